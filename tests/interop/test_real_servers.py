"""hyperpool against nginx, with HTTP/2 and without, and against nghttpd: over TLS, every body checked."""

from __future__ import annotations

import concurrent.futures
import io
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager

import pytest

import hyperpool
from hyperpool import Client
from hyperpool.testing import pattern, pattern_pieces
from stress import servers, sockets
from stress.servers import Served

pytestmark = pytest.mark.interop

Start = Callable[[AbstractContextManager[Served]], Served]

THREADS = 32
REQUESTS_PER_THREAD = 200


def is_h2(served: Served) -> bool:
    return served.name != "nginx-h1"


def test_the_version_is_the_one_that_the_server_speaks(served: Served, client: Client) -> None:
    response = client.get(served.url("/bytes/100"))
    assert (response.status_code, response.http_version) == (200, "HTTP/2" if is_h2(served) else "HTTP/1.1")


@pytest.mark.parametrize("size", servers.SIZES)
def test_a_body_of_any_size_arrives_whole(served: Served, client: Client, size: int) -> None:
    assert client.get(served.url(f"/bytes/{size}")).content == pattern(size)


def test_a_streamed_body_arrives_whole(served: Served, client: Client) -> None:
    with client.stream("GET", served.url("/bytes/1048576")) as response:
        assert b"".join(response.iter_bytes(10_000)) == pattern(1_048_576)


def test_head_has_the_length_and_no_body(served: Served, client: Client) -> None:
    response = client.head(served.url("/bytes/100000"))
    assert (response.status_code, response.content, response.headers["Content-Length"]) == (200, b"", "100000")


def test_head_leaves_the_connection_usable(served: Served, client: Client) -> None:
    client.head(served.url("/bytes/100000"))
    assert client.get(served.url("/bytes/1000")).content == pattern(1_000)
    assert client.pool.stats().connections == 1


def test_a_missing_page_is_a_404_and_no_error(served: Served, client: Client) -> None:
    assert client.get(served.url("/bytes/no-such")).status_code == 404


@pytest.mark.parametrize("size", [0, 1, 1_000, 65_536, 1_048_576, servers.ECHO_BYTES])
def test_an_upload_comes_back_as_it_was(served: Served, client: Client, size: int) -> None:
    assert client.post(served.url("/echo"), content=pattern(size)).content == pattern(size)


@pytest.mark.parametrize("size", [0, 1, 200_000])
def test_a_generator_upload_comes_back_as_it_was(served: Served, client: Client, size: int) -> None:
    assert client.post(served.url("/echo"), content=pattern_pieces(size)).content == pattern(size)


def test_a_file_upload_comes_back_as_it_was(served: Served, client: Client) -> None:
    assert client.post(served.url("/echo"), content=io.BytesIO(pattern(300_000))).content == pattern(300_000)


@pytest.mark.parametrize("h2", [True, False], ids=["nginx-h2", "nginx-h1"])
def test_a_large_upload_lies_on_the_servers_disk_as_it_was(start: Start, h2: bool) -> None:
    served, size = start(servers.nginx(h2=h2)), 10_000_000
    with hyperpool.Client(verify=served.ca_pem, timeout=30) as client:
        assert client.put(served.url("/uploads/large"), content=pattern_pieces(size)).status_code == 201
    assert (served.uploads / "large").read_bytes() == pattern(size)


@pytest.mark.parametrize("h2", [True, False], ids=["nginx-h2", "nginx-h1"])
def test_an_upload_that_is_too_large_ends_with_413_and_not_with_an_error(start: Start, h2: bool) -> None:
    served = start(servers.nginx(h2=h2))
    with hyperpool.Client(verify=served.ca_pem, timeout=30) as client:
        assert client.post(served.url("/too-large"), content=pattern_pieces(5_000_000)).status_code == 413
        assert client.get(served.url("/bytes/1000")).content == pattern(1_000)


@pytest.mark.slow
def test_many_threads_share_one_client_and_one_io_thread(served: Served, client: Client) -> None:
    sizes = (0, 1, 100, 1_000, 1_024, 10_000)

    def work(seed: int) -> None:
        for number in range(REQUESTS_PER_THREAD):
            size = sizes[(seed + number) % len(sizes)]
            assert client.get(served.url(f"/bytes/{size}")).content == pattern(size)
        seen.append((sockets.sockets_to(served.port), sockets.io_threads(served.origin)))
        all_busy.wait(60)

    seen: list[tuple[int, int]] = []
    all_busy = threading.Barrier(THREADS)
    with ThreadPoolExecutor(THREADS) as threads:
        list(threads.map(work, range(THREADS)))
    allowed = 1 if is_h2(served) else client.pool.limits.max_http1_connections_per_origin
    assert max(count for count, _ in seen) <= allowed
    assert {count for _, count in seen} == {1}
    assert client.pool.stats().origins[served.origin].requests == THREADS * REQUESTS_PER_THREAD


@pytest.mark.parametrize("most", [1, 3, 100])
@pytest.mark.parametrize("make", [servers.nginx, servers.nghttpd], ids=["nginx", "nghttpd"])
def test_500_waiting_requests_are_served_whatever_number_of_streams_is_allowed(
    start: Start, make: Callable[..., AbstractContextManager[Served]], most: int
) -> None:
    served = start(make(max_concurrent_streams=most))
    with hyperpool.Client(verify=served.ca_pem, timeout=30) as client:
        futures = [client.submit("GET", served.url("/bytes/1000")) for _ in range(500)]
        assert {future.result().content for future in concurrent.futures.as_completed(futures)} == {pattern(1_000)}
        assert client.pool.stats().connections <= client.pool.limits.max_connections_per_origin


def test_a_server_that_retires_connections_loses_no_request(start: Start) -> None:
    """nginx sends GOAWAY after keepalive_requests streams."""
    served = start(servers.nginx(keepalive_requests=20))
    with hyperpool.Client(verify=served.ca_pem, timeout=30) as client:
        futures = [client.submit("GET", served.url("/bytes/1000")) for _ in range(500)]
        assert {future.result().content for future in futures} == {pattern(1_000)}


def test_padded_frames_cost_no_credit(start: Start) -> None:
    served = start(servers.nghttpd(sizes=[20_000_000], options=["--padding=200"]))
    limits = hyperpool.Limits(stream_window_bytes=65_535, connection_window_bytes=65_535)
    with hyperpool.Client(verify=served.ca_pem, timeout=30, limits=limits) as client:
        assert client.get(served.url("/bytes/20000000")).content == pattern(20_000_000)


def test_nothing_is_left_after_close(served: Served) -> None:
    client = hyperpool.Client(verify=served.ca_pem)
    client.get(served.url("/bytes/100"))
    client.close()
    assert (sockets.sockets_to(served.port), sockets.our_threads()) == (0, [])
