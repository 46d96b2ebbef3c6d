"""``Expect: 100-continue``: when a body waits, when it goes, and when it never does (RFC 9110 10.1.1)."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from client_support import H1_PLAIN, H2_PLAIN, Kit, Wire

import hyperpool
from hyperpool.handoff.source import FedSource
from hyperpool.testing import Reply, ScriptedConnection
from stage import WAIT_S, eventually, opened

EXPECT = {"Expect": "100-continue"}
# Longer than any test lasts, so that only the server can let a body go.
PATIENT = hyperpool.Limits(continue_after_s=3600.0)
AT_ONCE = hyperpool.Limits(continue_after_s=0.01)


class Watched:
    """A body that can be had once, and knows whether anybody wanted it."""

    def __init__(self, *pieces: bytes) -> None:
        self._pieces = iter(pieces)
        self.asked = threading.Event()

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        self.asked.set()
        return next(self._pieces)


def test_the_body_goes_when_the_server_says_continue(kit: Kit, wire: Wire) -> None:
    """The kit's server says 100 when its handler reads."""
    may_read, body = kit.gate(), Watched(b"the ", b"body")
    waited = []

    def handler(request: Any) -> Reply:
        waited.append(not body.asked.is_set())
        opened(may_read)
        return Reply(body=request.read())

    server, client = kit.pair(wire, handler, limits=PATIENT)
    future = client.submit("POST", server.url("/"), content=body, headers=EXPECT)
    assert eventually(lambda: bool(waited))
    assert not body.asked.is_set() and server.requests[0].body_bytes == 0
    may_read.set()
    response = future.result(WAIT_S)
    assert (response.content, waited, response.retries) == (b"the body", [True], ())
    assert ("expect", "100-continue") in server.requests[0].headers


def test_after_a_hundred_the_connection_serves_on(kit: Kit, wire: Wire) -> None:
    server, client = kit.pair(wire, limits=PATIENT)
    for _ in range(3):
        assert client.post(server.url("/echo"), content=b"body", headers=EXPECT).content == b"body"
    assert server.connections_accepted == 1


def test_a_server_that_says_nothing_gets_the_body_all_the_same(kit: Kit, plain_wire: Wire) -> None:
    def on_http1(peer: ScriptedConnection) -> None:
        peer.recv_until(b"\r\n\r\n")
        assert peer.recv_exactly(4) == b"body"
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    def on_http2(peer: ScriptedConnection) -> None:
        from hyperframe.frame import DataFrame

        peer.greet()
        assert peer.wait_frame(DataFrame).data == b"body"
        peer.headers(1, [(":status", "200")])
        peer.data(1, b"ok", end_stream=True)

    peer = kit.peer(on_http2 if plain_wire.http2 else on_http1, tls=False)
    client = kit.client(plain_wire, limits=AT_ONCE, timeout=WAIT_S)
    assert client.post(peer.url(), content=b"body", headers=EXPECT).content == b"ok"
    assert peer.errors == []


@pytest.mark.parametrize("status", [401, 403, 413, 500])
def test_a_body_that_is_refused_is_never_sent_nor_even_asked_for(kit: Kit, wire: Wire, status: int) -> None:
    server, client = kit.pair(wire, lambda request: Reply(status, body="no"), limits=PATIENT)
    body = Watched(b"body")
    response = client.post(server.url("/"), content=body, headers=EXPECT)
    assert (response.status_code, response.text) == (status, "no")
    assert not body.asked.is_set()
    assert [request.body_bytes for request in server.requests] == [0]


def test_a_refused_body_leaves_no_http1_connection_that_is_used_again(kit: Kit) -> None:
    """CVE-2024-24791 of Go: the server would read the next request as the body that it still waits for."""
    heads: list[bytes] = []

    def script(peer: ScriptedConnection) -> None:
        heads.append(peer.recv_until(b"\r\n\r\n"))
        peer.send(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno")
        if (rest := peer.recv()) != b"":
            heads.append(rest)

    peer = kit.peer(script, tls=False)
    client = kit.client(H1_PLAIN, limits=PATIENT, timeout=WAIT_S)
    for _ in range(3):
        assert client.post(peer.url(), content=b"body", headers=EXPECT).status_code == 403
    assert peer.wait_done(3, timeout_s=WAIT_S)
    assert (peer.connections_accepted, len(heads)) == (3, 3)


def test_an_early_answer_of_2xx_may_wait_for_the_body_and_its_connection_is_not_used_again(kit: Kit) -> None:
    def script(peer: ScriptedConnection) -> None:
        with contextlib.suppress(ConnectionError):
            while True:
                peer.recv_until(b"\r\n\r\n")
                peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n")
                peer.send(peer.recv_exactly(4))

    def goes_elsewhere() -> bool:
        # An answer that comes when the body has gone is not early: on a machine that slow, the next one may be.
        assert client.post(peer.url(), content=b"body", headers=EXPECT).content == b"body"
        return bool(peer.connections_accepted > 1)

    peer = kit.peer(script, tls=False)
    client = kit.client(H1_PLAIN, limits=AT_ONCE, timeout=WAIT_S)
    assert eventually(goes_elsewhere)
    assert peer.errors == []


def test_a_late_hundred_is_no_answer(kit: Kit) -> None:
    def script(peer: ScriptedConnection) -> None:
        for _ in range(2):
            peer.recv_until(b"\r\n\r\nbody")
            peer.send(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    peer = kit.peer(script, tls=False)
    client = kit.client(H1_PLAIN, limits=AT_ONCE, timeout=WAIT_S)
    assert [client.post(peer.url(), content=b"body", headers=EXPECT).text for _ in range(2)] == ["ok", "ok"]
    assert peer.connections_accepted == 1


def test_another_1xx_does_not_let_the_body_go(kit: Kit, plain_wire: Wire) -> None:
    body = Watched(b"body")

    def handler(request: Any) -> Reply:
        return Reply(403, interim=[(103, {"link": "</a>"}), (102, ())])

    server, client = kit.pair(plain_wire, handler, limits=PATIENT)
    assert client.post(server.url("/"), content=body, headers=EXPECT).status_code == 403
    assert not body.asked.is_set()


def test_a_417_is_answered_with_the_same_request_without_the_expectation(kit: Kit, wire: Wire) -> None:
    def handler(request: Any) -> Reply:
        return Reply(417) if request.header("expect") else Reply(body=request.read())

    server, client = kit.pair(wire, handler, limits=PATIENT)
    response = client.post(server.url("/"), content=iter([b"once ", b"only"]), headers=EXPECT)
    assert (response.status_code, response.content) == (200, b"once only")
    assert [resend.reason for resend in response.retries] == ["417"]
    assert client.submit("PUT", server.url("/"), content=b"body", headers=EXPECT).result(WAIT_S).content == b"body"


def test_a_417_without_expectation_is_a_response_like_others(kit: Kit, plain_wire: Wire) -> None:
    server, client = kit.pair(plain_wire, lambda request: Reply(417))
    assert client.post(server.url("/"), content=b"body").status_code == 417
    assert client.submit("POST", server.url("/"), content=b"body").result(WAIT_S).status_code == 417
    assert len(server.requests) == 2


def test_a_417_after_the_body_began_stands_where_the_body_cannot_be_had_again(kit: Kit, plain_wire: Wire) -> None:
    def handler(request: Any) -> Reply:
        request.read()
        return Reply(417)

    server, client = kit.pair(plain_wire, handler, limits=PATIENT)
    assert client.post(server.url("/"), content=iter([b"body"]), headers=EXPECT).status_code == 417
    assert len(server.requests) == 1


def test_a_body_that_waited_can_follow_a_redirect_though_it_is_had_once(kit: Kit, wire: Wire) -> None:
    server, client = kit.pair(wire, limits=PATIENT)

    @server.route("/elsewhere")
    def elsewhere(request: Any) -> Reply:
        return Reply(307, {"location": "/echo"})

    response = client.post(server.url("/elsewhere"), content=iter([b"once"]), headers=EXPECT)
    assert (response.content, len(response.history)) == (b"once", 1)


def test_without_a_body_nothing_is_expected(kit: Kit, wire: Wire) -> None:
    server, client = kit.pair(wire, limits=PATIENT)
    assert client.get(server.url("/bytes/3"), headers=EXPECT).status_code == 200
    assert client.post(server.url("/echo"), content=b"", headers=EXPECT).status_code == 200
    assert not any("expect" in dict(request.headers) for request in server.requests)


def test_after_a_refusal_the_answer_is_waited_for_as_ever(kit: Kit, plain_wire: Wire) -> None:
    def handler(request: Any) -> Reply:
        def body() -> Iterator[bytes]:
            yield b"begun"
            request.wait_gone(WAIT_S)

        return Reply(403, body=body())

    server, client = kit.pair(plain_wire, handler, limits=PATIENT, timeout=hyperpool.Timeout(read=0.05))
    with pytest.raises(hyperpool.ReadTimeout):
        client.post(server.url("/"), content=b"body", headers=EXPECT)


def test_cancelling_while_the_body_waits_frees_the_stream(kit: Kit, wire: Wire) -> None:
    body, gate = Watched(b"body"), kit.gate()

    def handler(request: Any) -> Reply:
        request.wait_gone(WAIT_S)
        gate.set()
        return Reply()

    server, client = kit.pair(wire, handler, limits=PATIENT)
    future = client.submit("POST", server.url("/"), content=body, headers=EXPECT)
    assert server.wait_until(lambda server: len(server.requests) == 1, WAIT_S)
    assert future.cancel()
    opened(gate)
    assert not body.asked.is_set()


@pytest.mark.slow
def test_many_bodies_that_wait_share_one_connection(kit: Kit) -> None:
    server, client = kit.pair(H2_PLAIN)
    futures = [
        client.submit("POST", server.url("/echo"), content=b"%d" % n, headers=EXPECT if n % 2 else {})
        for n in range(60)
    ]
    assert [future.result(WAIT_S).content for future in futures] == [b"%d" % n for n in range(60)]
    assert server.connections_accepted == 1


@pytest.mark.parametrize("wire", [H1_PLAIN, H2_PLAIN], ids=str)
def test_who_feeds_a_refused_body_is_free_to_read_a_long_answer(kit: Kit, wire: Wire) -> None:
    """The answer is longer than its window, so it is not whole before its reader comes."""
    server, client = kit.pair(wire, lambda request: Reply(403, body=bytes(3 << 20)), limits=PATIENT)
    source = FedSource(length_bytes=4 << 20)
    with client.stream("POST", server.url("/"), content=source, headers=EXPECT) as response:
        while source.feed(bytes(1 << 16)):
            continue
        assert (response.status_code, len(response.read())) == (403, 3 << 20)
