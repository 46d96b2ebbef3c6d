"""Hostile servers over real sockets: each request ends with an error of ours, and the same client goes on."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from client_support import H1_PLAIN, H2_TLS, Kit, raised
from hyperframe.frame import HeadersFrame

import hyperpool
from hyperpool.testing import Reply, Reset, ScriptedConnection, pattern
from stage import AUTHORITY, WAIT_S

HTTP_1_1_REQUIRED, ENHANCE_YOUR_CALM = 13, 11
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"

FLOODS = {
    "A3 PING": b"\0\0\x08\x06\0\0\0\0\0" + bytes(8),
    "A4 SETTINGS": b"\0\0\0\x04\0\0\0\0\0",
    "A5 empty DATA": b"\0\0\0\0\0\0\0\0\x01",
    "A7 PRIORITY": b"\0\0\x05\x02\0\0\0\0\x01\0\0\0\x03\x01",
    "A7 WINDOW_UPDATE": b"\0\0\x04\x08\0\0\0\0\0\0\0\0\x01",
    "A7 an unknown frame": b"\0\0\0\xfa\0\0\0\0\0",
    "A2 CONTINUATION": b"\0\0\0\x09\0\0\0\0\x03",
}


def still_good(kit: Kit, client: hyperpool.Client, wire: Any) -> None:
    server = kit.server(wire)
    assert client.get(server.url("/bytes/1000")).content == pattern(1000)


@pytest.mark.parametrize("form", FLOODS)
def test_a_flood_is_an_error_and_the_client_goes_on(kit: Kit, form: str) -> None:
    """RELIABILITY 1.3; RFC 9113 10.5."""
    flood = FLOODS[form]

    def script(connection: ScriptedConnection) -> None:
        connection.greet()
        connection.headers(1, [(":status", "200")])
        if "CONTINUATION" in form:
            connection.send(b"\0\0\x01\x01\0\0\0\0\x03\x88")
        with contextlib.suppress(OSError):  # the client has left
            for _ in range(200):
                connection.send(flood * 1_000)
            # To close over unread bytes is a reset (RFC 9293 3.6.1), which may overtake what was sent before it.
            connection.drain()

    client = kit.client(H2_TLS, timeout=WAIT_S)
    peer = kit.peer(script)
    if "CONTINUATION" in form:
        futures = [client.submit("GET", peer.url("/")) for _ in range(2)]
        errors = [future.exception(WAIT_S) for future in futures]
    else:
        errors = [raised(hyperpool.RemoteProtocolError, lambda: client.get(peer.url("/")))]
    for error in errors:
        assert isinstance(error, hyperpool.RemoteProtocolError)
        assert error.origin == peer.origin
    still_good(kit, client, H2_TLS)


@pytest.mark.parametrize(
    "abuse",
    [b"+3\r\nabc\r\n0\r\n\r\n", b"3\nabc\r\n0\r\n\r\n", b"3;" + b"a" * 9_000, b"0\r\nContent-Length: 3\r\n\r\n"],
    ids=["7.1 a sign", "2.2 a bare LF", "7.1.1 an endless extension", "9110 6.5.1 a length as trailer"],
)
def test_an_abused_chunk_is_an_error_and_the_client_goes_on(kit: Kit, abuse: bytes) -> None:
    """P2; RFC 9112 7.1."""

    def script(connection: ScriptedConnection) -> None:
        connection.recv_until(b"\r\n\r\n")
        connection.send(CHUNKED + abuse)
        connection.drain()

    client = kit.client(H1_PLAIN, timeout=WAIT_S)
    peer = kit.peer(script, tls=False)
    error = raised(hyperpool.RemoteProtocolError, lambda: client.get(peer.url("/")))
    assert error.origin == peer.origin
    still_good(kit, client, H1_PLAIN)


def test_a_server_that_wants_http1_gets_it(kit: Kit) -> None:
    """F30; RFC 9113 7: ALPN offers HTTP/1.1 alone from then on."""

    def handler(request: Any) -> Reply | Reset:
        return Reset(HTTP_1_1_REQUIRED) if request.http_version == "2" else Reply(body="here")

    server = kit.server(H2_TLS, handler)
    client = kit.client(H2_TLS, verify=AUTHORITY.ca_pem, http1=True, http2=True, timeout=WAIT_S)
    answers = [client.get(server.url("/")) for _ in range(3)]
    assert [(answer.text, answer.http_version) for answer in answers] == [("here", "HTTP/1.1")] * 3
    assert [len(answer.retries) for answer in answers] == [1, 0, 0]


def test_a_server_that_wants_http1_may_say_so_by_goaway(kit: Kit) -> None:
    """F30."""

    def script(connection: ScriptedConnection) -> None:
        if connection.sock.selected_alpn_protocol() == "http/1.1":
            connection.recv_until(b"\r\n\r\n")
            connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nhere")
        else:
            connection.greet()
            connection.wait_frame(HeadersFrame)
            connection.goaway(0, HTTP_1_1_REQUIRED)
        connection.drain()

    peer = kit.peer(script, alpn=("h2", "http/1.1"))
    client = kit.client(H2_TLS, verify=AUTHORITY.ca_pem, http1=True, http2=True, timeout=WAIT_S)
    answer = client.post(peer.url("/"), content=b"x")
    assert (answer.text, answer.http_version, len(answer.retries)) == ("here", "HTTP/1.1", 1)
    assert peer.connections_accepted == 2


def test_a_client_of_http2_alone_is_told_so(kit: Kit) -> None:
    """F30."""
    server = kit.server(H2_TLS, lambda request: Reset(HTTP_1_1_REQUIRED))
    error = raised(hyperpool.StreamReset, lambda: kit.client(H2_TLS).get(server.url("/")))
    assert (error.code, "HTTP_1_1_REQUIRED" in str(error)) == (HTTP_1_1_REQUIRED, True)


def test_a_server_that_wants_calm_is_not_asked_again(kit: Kit) -> None:
    """F30: a typed error, and no retry."""
    seen: list[str] = []

    def handler(request: Any) -> Reset:
        seen.append(request.target)
        return Reset(ENHANCE_YOUR_CALM)

    server = kit.server(H2_TLS, handler)
    error = raised(hyperpool.StreamReset, lambda: kit.client(H2_TLS).get(server.url("/")))
    assert (error.code, seen) == (ENHANCE_YOUR_CALM, ["/"])
