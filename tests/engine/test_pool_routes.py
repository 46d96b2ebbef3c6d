"""`ConnectionPool` with routes: connections on demand, PING, bodies that are fed, and a close with a code."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

import pytest

from hyperpool.errors import ConnectError, LocalProtocolError, PoolClosed
from hyperpool.handoff.pushes import Pushes
from hyperpool.handoff.source import FedSource
from hyperpool.pool import ConnectionPool
from hyperpool.testing import Reply, Server
from hyperpool.testing.messages import Request as Seen
from hyperpool.urls import parse_url
from hyperpool.values import Request, Route

WAIT_S = 45.0  # for what is expected at once: a bound for broken code only


@pytest.fixture
def server() -> Iterator[Server]:
    """Plaintext HTTP/1.1 and, by prior knowledge, HTTP/2; what it gets it sends back."""

    def echo(request: Seen) -> Any:
        return Reply(body=request.read() or request.path)

    with Server(echo, tls=False) as server:
        yield server


@pytest.fixture
def pool() -> Iterator[ConnectionPool]:
    with ConnectionPool(trust_env=False) as pool:
        yield pool


def route_to(pool: ConnectionPool, server: Server, **differs: Any) -> Route:
    return pool.route(parse_url(server.url()).origin, **differs)


@pytest.mark.parametrize(("http1", "version"), [(True, "HTTP/1.1"), (False, "HTTP/2")])
def test_a_connection_is_opened_on_demand_and_then_used(
    pool: ConnectionPool, server: Server, http1: bool, version: str
) -> None:
    route = route_to(pool, server, http1=http1)
    assert [pool.connect(route).result(WAIT_S) for _ in range(2)] == [version] * 2
    pool.ping(route, b"8 bytes!")
    response = pool.submit(Request("GET", server.url("/x")), route=route).result(WAIT_S)
    assert (response.text, response.http_version, pool.stats().connections) == ("/x", version, 1)


def test_force_http2_speaks_it_without_asking(pool: ConnectionPool, server: Server) -> None:
    assert pool.connect(route_to(pool, server, force_http2=True)).result(WAIT_S) == "HTTP/2"


def test_routes_that_differ_share_no_connection(pool: ConnectionPool, server: Server) -> None:
    for differs in ({}, {"http1": False}, {"http1": False, "push": True}):
        pool.connect(route_to(pool, server, **differs)).result(WAIT_S)
    assert pool.stats().threads == 3 and pool.stats().connections == 3


def test_where_nobody_listens_the_future_has_the_error(pool: ConnectionPool) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        route = pool.route(parse_url(f"http://127.0.0.1:{bound.getsockname()[1]}").origin)
        assert isinstance(pool.connect(route).exception(WAIT_S), ConnectError)


def test_a_callback_that_waits_for_another_connection_is_refused_at_once(pool: ConnectionPool, server: Server) -> None:
    # L11
    refused: Future[BaseException | None] = Future()
    with socket.create_server(("127.0.0.1", 0)) as mute:  # no handshake comes from it
        never = pool.connect(pool.route(parse_url(f"https://127.0.0.1:{mute.getsockname()[1]}").origin))

        def wait(_: Any) -> None:
            try:
                refused.set_result(never.exception(WAIT_S))
            except BaseException as error:
                refused.set_exception(error)

        # A callback of a Future that is done already would run here, and be allowed to wait.
        begins = threading.Event()
        server.route("/gated")(lambda request: "begun" if begins.wait(WAIT_S) else "never")
        pool.submit(Request("GET", server.url("/gated"))).add_done_callback(wait)
        begins.set()
        with pytest.raises(RuntimeError, match="I/O thread"):
            refused.result(WAIT_S)
        pool.close(grace_s=0)
    assert isinstance(never.exception(WAIT_S), PoolClosed)


def test_a_ping_has_eight_bytes(pool: ConnectionPool, server: Server) -> None:
    with pytest.raises(ValueError, match="8 bytes, not 3"):
        pool.ping(route_to(pool, server), b"abc")


def test_only_a_route_that_allows_pushes_has_any(pool: ConnectionPool, server: Server) -> None:
    request = Request("GET", server.url())
    with_pushes = pool.submit(request, route=route_to(pool, server, http1=False, push=True))
    without = pool.submit(request)
    assert isinstance(with_pushes.pushes, Pushes) and without.pushes is None
    assert list(with_pushes.pushes.until_the_end()) == []
    assert with_pushes.result(WAIT_S).ok and without.result(WAIT_S).ok


@pytest.mark.parametrize("http1", [True, False])
def test_a_body_is_fed_while_the_request_is_under_way(pool: ConnectionPool, server: Server, http1: bool) -> None:
    source, route = FedSource(), route_to(pool, server, http1=http1)
    future = pool.submit(Request("POST", server.url(), content=source), route=route)
    pieces = [bytes([number]) * 50_000 for number in range(20)]
    for piece in pieces:
        assert source.feed(piece)
    source.finish()
    assert future.result(WAIT_S).content == b"".join(pieces)
    with pytest.raises(LocalProtocolError, match="one request"):
        pool.submit(Request("POST", server.url(), content=source), route=route)


def test_a_feeder_of_a_request_that_finds_no_server_is_released(pool: ConnectionPool) -> None:
    source = FedSource(capacity_bytes=10)
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{bound.getsockname()[1]}"
        future = pool.submit(Request("POST", url, content=source))
        fed: list[bool] = []
        feeder = threading.Thread(target=lambda: fed.extend([source.feed(bytes(10)), source.feed(bytes(10))]))
        feeder.start()
        feeder.join(WAIT_S)
        assert not feeder.is_alive() and fed[-1] is False
        assert isinstance(future.exception(WAIT_S), ConnectError)


@pytest.mark.parametrize("code", [-1, 1 << 32])
def test_a_code_that_no_frame_can_carry_closes_nothing(pool: ConnectionPool, server: Server, code: int) -> None:
    with pytest.raises(ValueError, match="32 bits|code must be 0 or more"):
        pool.close(code=code)
    assert pool.submit(Request("GET", server.url())).result(WAIT_S).ok


def test_a_closed_pool_opens_no_connection(pool: ConnectionPool, server: Server) -> None:
    route = route_to(pool, server)
    pool.close(code=2)
    with pytest.raises(PoolClosed):
        pool.connect(route)
