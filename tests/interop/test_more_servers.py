"""The same behaviours against h2o, Caddy, HAProxy, Apache, lighttpd, Node, Go and Hypercorn, over TLS."""

from __future__ import annotations

import concurrent.futures
import contextlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from interop_kit import running

from hyperpool import Client
from hyperpool.testing import pattern, pattern_pieces
from stress import more_servers, sockets
from stress.servers import Served

pytestmark = pytest.mark.interop

SERVERS: dict[str, Callable[[], contextlib.AbstractContextManager[Served]]] = {
    "nginx-master": more_servers.nginx_with_master,
    "h2o": more_servers.h2o,
    "caddy": more_servers.caddy,
    "haproxy": more_servers.haproxy,
    "apache": more_servers.apache,
    "lighttpd": more_servers.lighttpd,
    "node": more_servers.node,
    "go": more_servers.go,
    "hypercorn": more_servers.hypercorn,
}
THREADS = 32
REQUESTS = 1_000


@pytest.fixture(scope="module", params=SERVERS)
def served(request: pytest.FixtureRequest) -> Iterator[Served]:
    """Each of them."""
    with running(SERVERS[request.param]()) as started:
        yield started


@pytest.mark.parametrize("size", [0, 1, 1_000, 65_536, 1_048_576])
def test_a_body_of_any_size_arrives_whole_over_http2(served: Served, client: Client, size: int) -> None:
    response = client.get(served.url(f"/bytes/{size}"))
    assert (response.http_version, response.content == pattern(size)) == ("HTTP/2", True)


@pytest.mark.parametrize("size", [0, 1, 65_536, 1_048_576])
def test_an_upload_comes_back_as_it_was(served: Served, client: Client, size: int) -> None:
    assert client.post(served.url("/echo"), content=pattern(size)).content == pattern(size)


def test_a_generator_upload_comes_back_as_it_was(served: Served, client: Client) -> None:
    response = client.post(served.url("/echo"), content=pattern_pieces(200_000))
    needs_length = served.name in more_servers.NEEDS_LENGTH
    assert response.status_code == 411 if needs_length else response.content == pattern(200_000)


def test_head_has_the_length_and_no_body(served: Served, client: Client) -> None:
    response = client.head(served.url("/bytes/100000"))
    assert (response.status_code, response.content, response.headers["Content-Length"]) == (200, b"", "100000")


def test_a_missing_page_is_a_404_and_no_error(served: Served, client: Client) -> None:
    assert client.get(served.url("/bytes/no-such")).status_code == 404


def test_trailers_arrive(served: Served, client: Client) -> None:
    if served.name not in more_servers.TRAILERS:
        return  # it can send none
    response = client.get(served.url("/trailers"), headers={"TE": "trailers"})
    assert (response.text, response.trailers["x-checksum"]) == ("body", "42")


def test_a_stream_that_is_closed_early_leaves_the_connection_usable(served: Served, client: Client) -> None:
    for _ in range(20):
        with client.stream("GET", served.url("/bytes/1048576")) as response:
            next(response.iter_raw())
    assert client.get(served.url("/bytes/1000")).content == pattern(1_000)
    assert client.pool.stats().connections == 1


@pytest.mark.slow
def test_1000_requests_from_32_threads_need_one_socket(served: Served, client: Client) -> None:
    sizes = (0, 1, 100, 1_000, 10_000)

    def work(number: int) -> bool:
        size = sizes[number % len(sizes)]
        return client.get(served.url(f"/bytes/{size}")).content == pattern(size)

    with ThreadPoolExecutor(THREADS) as threads:
        assert all(threads.map(work, range(REQUESTS)))
    # lighttpd allows 8 streams on a connection, so 32 threads may need four.
    assert sockets.sockets_to(served.port) <= (THREADS // 8 if served.name == "lighttpd" else 1)


@pytest.mark.slow
def test_a_graceful_restart_loses_no_request(served: Served, client: Client) -> None:
    if served.name not in more_servers.RELOADS:
        return  # it has no such thing
    stop = threading.Event()

    def work() -> int:
        done = 0
        while not stop.is_set():
            assert client.get(served.url("/bytes/1000")).content == pattern(1_000)
            done += 1
        return done

    with ThreadPoolExecutor(8) as threads:
        workers = [threads.submit(work) for _ in range(8)]
        try:
            for _ in range(3):
                more_servers.reload(served)
                # Requests on both sides of the restart: as many as there are workers, a few times over.
                for _ in range(100):
                    assert client.get(served.url("/bytes/100")).content == pattern(100)
        finally:
            stop.set()
        assert all(worker.result() > 0 for worker in concurrent.futures.as_completed(workers))
