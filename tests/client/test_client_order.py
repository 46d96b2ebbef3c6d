"""Many requests and few streams: who came first is served first, and no limit of the server is ever overrun."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from concurrent.futures import as_completed, wait
from pathlib import Path

import pytest
from client_support import H2_TLS, Kit, Wire

import hyperpool
from hyperpool.testing import Refuse, Reply, Request, Server, inline, pattern
from hyperpool.testing.messages import AnswerLike, Handler
from stage import WAIT_S, opened

REQUESTS = 500


def paths_seen(server: Server) -> list[int]:
    return [int(one.target.rpartition("/")[2]) for one in server.requests]


@pytest.mark.parametrize("streams", [1, 3, 100])
def test_500_waiting_requests_are_served_first_in_first_out_within_the_servers_stream_limit(
    kit: Kit, streams: int
) -> None:
    server = kit.server(max_concurrent_streams=streams)
    client = kit.client(limits=hyperpool.Limits(max_connections_per_origin=1))
    futures = [client.submit("GET", server.url(f"/bytes/{n}")) for n in range(REQUESTS)]
    assert not wait(futures, WAIT_S).not_done
    assert [len(future.result().content) for future in futures] == list(range(REQUESTS))
    assert paths_seen(server) == list(range(REQUESTS))
    assert server.connections_accepted == 1


@pytest.mark.parametrize("streams", [1, 3, 100])
def test_500_waiting_requests_may_spread_over_connections_up_to_the_cap(kit: Kit, streams: int) -> None:
    server = kit.server(max_concurrent_streams=streams)
    client = kit.client(limits=hyperpool.Limits(max_connections_per_origin=4))
    futures = [client.submit("GET", server.url(f"/bytes/{n}")) for n in range(REQUESTS)]
    assert not wait(futures, WAIT_S).not_done
    assert [len(future.result().content) for future in futures] == list(range(REQUESTS))
    assert sorted(paths_seen(server)) == list(range(REQUESTS))
    assert server.connections_accepted <= 4


def test_a_second_connection_is_opened_while_all_streams_of_the_first_are_taken(kit: Kit) -> None:
    gate = kit.gate()
    server = kit.server(handler=lambda request: (opened(gate), "late")[1], max_concurrent_streams=1)
    client = kit.client(limits=hyperpool.Limits(max_connections_per_origin=2))
    futures = [client.submit("GET", server.url()) for _ in range(3)]
    assert server.wait_until(lambda server: len(server.requests) == 2, WAIT_S)
    gate.set()
    assert [future.result(WAIT_S).text for future in futures] == ["late"] * 3
    assert server.connections_accepted == 2


def test_http1_requests_beyond_the_connection_cap_are_served_first_in_first_out(kit: Kit, h1_wire: Wire) -> None:
    server = kit.server(h1_wire)
    client = kit.client(h1_wire, limits=hyperpool.Limits(max_http1_connections_per_origin=1))
    futures = [client.submit("GET", server.url(f"/bytes/{n}")) for n in range(200)]
    assert not wait(futures, WAIT_S).not_done
    assert paths_seen(server) == list(range(200))
    assert server.connections_accepted == 1


def test_http1_never_has_more_connections_than_its_limit(kit: Kit, h1_wire: Wire) -> None:
    server = kit.server(h1_wire)
    client = kit.client(h1_wire, limits=hyperpool.Limits(max_http1_connections_per_origin=3))
    futures = [client.submit("GET", server.url(f"/bytes/{n}")) for n in range(100)]
    assert sorted(len(future.result().content) for future in as_completed(futures, WAIT_S)) == list(range(100))
    assert server.most_connections_open <= 3


def test_a_limit_that_is_lowered_on_a_live_connection_is_kept(kit: Kit) -> None:
    gate = kit.gate()
    running, most = 0, 0
    lock = threading.Lock()

    def handler(request: object) -> str:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        opened(gate)
        with lock:
            running -= 1
        return "ok"

    server = kit.server(handler=handler)
    client = kit.client(limits=hyperpool.Limits(max_connections_per_origin=1))
    first = client.submit("GET", server.url("/first"))
    assert server.wait_until(lambda server: len(server.requests) == 1, WAIT_S)
    server.set_max_concurrent_streams(2)
    gate.set()
    first.result(WAIT_S)
    futures = [client.submit("GET", server.url(f"/{n}")) for n in range(50)]
    assert not wait(futures, WAIT_S).not_done
    assert {future.result().status_code for future in futures} == {200}
    assert most <= 2


def mixed_load(client: hyperpool.Client, server: Server, thread: int, requests: int) -> int:
    """Downloads and uploads of many sizes, each compared byte by byte; how many were right."""
    right = 0
    for n in range(requests):
        size = (0, 1, 100, 1_000, 16_384, 16_385, 65_536, 131_071)[(thread + n) % 8]
        if n % 10 == 9:
            right += client.post(server.url("/echo"), content=pattern(size)).content == pattern(size)
        else:
            right += client.get(server.url(f"/bytes/{size}")).content == pattern(size)
    return right


@pytest.mark.slow
def test_64_threads_share_one_client_one_socket_and_one_io_thread(kit: Kit, h2_wire: Wire) -> None:
    server, client = kit.pair(h2_wire)
    client.get(server.url("/bytes/1"))
    threads = kit.threads(64)
    done = [threads.submit(mixed_load, client, server, n, 20) for n in range(64)]
    assert sum(future.result(60) for future in done) == 64 * 20
    assert server.most_connections_open == 1
    assert client.pool.stats().threads == 1


@pytest.mark.slow
def test_64_threads_share_one_http1_client_within_its_connection_limit(kit: Kit, h1_wire: Wire) -> None:
    server, client = kit.pair(h1_wire)
    threads = kit.threads(64)
    done = [threads.submit(mixed_load, client, server, n, 10) for n in range(64)]
    assert sum(future.result(60) for future in done) == 64 * 10
    assert server.most_connections_open <= client.pool.limits.max_http1_connections_per_origin
    assert client.pool.stats().threads == 1


@pytest.fixture
def switching_all_the_time() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.slow
@pytest.mark.usefixtures("switching_all_the_time")
def test_32_threads_get_their_own_bytes_when_the_interpreter_switches_all_the_time(kit: Kit, wire: Wire) -> None:
    server, client = kit.pair(wire)
    threads = kit.threads(32)
    done = [threads.submit(mixed_load, client, server, n, 10) for n in range(32)]
    assert sum(future.result(60) for future in done) == 32 * 10
    if wire.http2:
        assert server.most_connections_open == 1


@pytest.mark.slow
@pytest.mark.parametrize("code", [0, 2])
def test_a_goaway_under_64_threads_fails_no_request(kit: Kit, code: int) -> None:
    server, client = kit.pair()
    threads = kit.threads(64)
    halfway = threading.Barrier(65, timeout=WAIT_S)

    def load(thread: int) -> int:
        right = mixed_load(client, server, thread, 5)
        halfway.wait()
        return right + mixed_load(client, server, thread, 15)

    done = [threads.submit(load, n) for n in range(64)]
    halfway.wait()
    for _ in range(3):
        server.goaway(code=code)
    assert sum(future.result(60) for future in done) == 64 * 20
    assert server.connections_accepted >= 2


def test_requests_beyond_a_goaways_last_stream_id_are_resent_on_a_new_connection(kit: Kit) -> None:
    gate = kit.gate()
    server = kit.server(handler=lambda request: (opened(gate), request.target)[1])
    client = kit.client()
    futures = [client.submit("POST", server.url(f"/{n}"), content=b"x") for n in range(5)]
    assert server.wait_until(lambda server: len(server.requests) == 5, WAIT_S)
    server.goaway(last_stream_id=3)
    gate.set()
    responses = [future.result(WAIT_S) for future in futures]
    assert [response.text for response in responses] == [f"/{n}" for n in range(5)]
    assert [len(response.retries) for response in responses] == [0, 0, 1, 1, 1]
    assert "GOAWAY" in responses[4].retries[0].reason
    assert [one.target for one in server.requests[5:]] == ["/2", "/3", "/4"]
    assert server.connections_accepted == 2


def test_an_announced_goaway_lets_open_streams_finish_and_new_ones_go_elsewhere(kit: Kit) -> None:
    gate = kit.gate()
    server = kit.server(handler=lambda request: (opened(gate), str(request.connection_number))[1])
    client = kit.client()
    early = client.submit("GET", server.url("/early"))
    assert server.wait_until(lambda server: len(server.requests) == 1, WAIT_S)
    server.goaway(last_stream_id=2**31 - 1)
    late = client.submit("GET", server.url("/late"))
    assert server.wait_until(lambda server: len(server.requests) == 2, WAIT_S)
    gate.set()
    assert early.result(WAIT_S).text == "1"
    assert early.result().retries == ()
    assert late.result(WAIT_S).status_code == 200


def refusing(times: int) -> Handler:
    """A handler that refuses each path so often, then answers with what was uploaded."""
    seen: dict[str, int] = {}

    def handler(request: Request) -> AnswerLike:
        seen[request.path] = seen.get(request.path, 0) + 1
        return Refuse() if seen[request.path] <= times else Reply(200, body=request.read())

    return handler


@pytest.mark.parametrize("method", ["POST", "PATCH"])
def test_a_refused_request_is_resent_whatever_its_method_and_the_response_says_so(kit: Kit, method: str) -> None:
    server, client = kit.pair(handler=refusing(2))
    response = client.request(method, server.url("/refused"), content=b"body")
    assert response.content == b"body"
    assert [resend.reason for resend in response.retries] == ["REFUSED_STREAM"] * 2
    assert client.pool.stats().origins[server.origin].resent == 2


def test_a_refused_file_upload_is_read_again_from_its_beginning(kit: Kit, tmp_path: Path) -> None:
    server, client = kit.pair(handler=refusing(1))
    path = tmp_path / "upload"
    path.write_bytes(b"skipped" + pattern(200_000))
    with path.open("rb") as file:
        file.seek(7)
        assert client.post(server.url("/file"), content=file).content == pattern(200_000)


def test_a_refused_generator_upload_fails_and_is_said_to_be_unprocessed(kit: Kit) -> None:
    server, client = kit.pair(handler=refusing(1))
    with pytest.raises(hyperpool.ConnectionLost, match="cannot be replayed") as caught:
        client.post(server.url("/once"), content=(piece for piece in [b"a", b"b"]))
    assert (caught.value.processed, caught.value.origin, caught.value.stream_id) == ("no", server.origin, 1)


def test_a_server_that_always_refuses_is_given_up_after_a_few_resends(kit: Kit) -> None:
    server, client = kit.pair(handler=refusing(1_000))
    with pytest.raises(hyperpool.ConnectionLost, match="resent too often") as caught:
        client.get(server.url("/never"))
    assert caught.value.processed == "no"
    assert 2 <= len(server.requests) <= 10


def test_the_bounded_queue_refuses_what_is_too_much_and_serves_the_rest(kit: Kit) -> None:
    gate = kit.gate()
    server = kit.server(handler=lambda request: (opened(gate), "ok")[1], max_concurrent_streams=1)
    client = kit.client(limits=hyperpool.Limits(max_connections_per_origin=1, max_queued_per_origin=5))
    first = client.submit("GET", server.url("/first"))
    assert server.wait_until(lambda server: len(server.requests) == 1, WAIT_S)
    others = [client.submit("GET", server.url(f"/{n}")) for n in range(8)]
    refused = [future.exception(WAIT_S) for future in others[5:]]
    assert [type(error) for error in refused] == [hyperpool.PoolFull] * 3
    assert {error.processed for error in refused} == {"no"}
    gate.set()
    assert [future.result(WAIT_S).text for future in [first, *others[:5]]] == ["ok"] * 6


def test_one_connection_carries_requests_of_all_threads_by_increasing_stream_ids(kit: Kit) -> None:
    server = kit.server(handler=inline(lambda request: "ok"))
    client = kit.client(H2_TLS)
    client.get(server.url())
    threads = kit.threads(16)
    done = [threads.submit(client.get, server.url(f"/{n}")) for n in range(300)]
    ids = [future.result(WAIT_S).stream_id for future in done]
    assert sorted(ids) == list(range(3, 603, 2))
    assert [one.stream_id for one in server.requests] == sorted(one.stream_id for one in server.requests)
