"""What goes wrong on the wire: each fault is one error of the tree that says where, and the client goes on."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable
from typing import Any

import pytest
from client_support import H1_PLAIN, H1_TLS, H2_PLAIN, H2_TLS, Kit, Wire, error_of, raised

import hyperpool
from hyperpool.testing import Disconnect, Reply, Reset, ScriptedConnection, pattern
from stage import WAIT_S, nobody, opened

HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n"


def still_good(kit: Kit, client: hyperpool.Client, wire: Wire) -> None:
    """The same client serves the next request to a good server."""
    server = kit.server(wire)
    assert client.get(server.url("/bytes/1000")).content == pattern(1000)


def test_a_refused_connection_is_a_connect_error(kit: Kit, wire: Wire) -> None:
    client = kit.client(wire)
    origin = f"{'https' if wire.tls else 'http'}://127.0.0.1:{kit.enter(nobody())}"
    error = raised(hyperpool.ConnectError, lambda: client.post(origin + "/", content=b"x"))
    assert (error.origin, error.processed, error.stream_id) == (origin, "no", None)
    assert "refused" in str(error).lower() and isinstance(error.__cause__, OSError)
    still_good(kit, client, wire)


def test_a_refused_connection_fails_everybody_who_waits_each_with_an_error_of_its_own(kit: Kit) -> None:
    client = kit.client(H1_PLAIN)
    url = f"http://127.0.0.1:{kit.enter(nobody())}/"
    errors = [error_of(future) for future in [client.submit("GET", url) for _ in range(20)]]
    assert {type(error) for error in errors} == {hyperpool.ConnectError}
    assert len(set(map(id, errors))) == 20


@pytest.fixture
def resolving_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(host: str, *args: Any, **kwargs: Any) -> Any:
        if host.endswith(".invalid"):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return socket_getaddrinfo(host, *args, **kwargs)

    from hyperpool.engine import resolve

    socket_getaddrinfo = socket.getaddrinfo
    # The default was bound when the module was first imported, so that is what is replaced.
    monkeypatch.setitem(resolve.Resolver.__init__.__kwdefaults__, "getaddrinfo", nothing)


@pytest.mark.usefixtures("resolving_nothing")
def test_a_name_without_an_address_is_a_name_resolution_error(kit: Kit, wire: Wire) -> None:
    client = kit.client(wire)
    origin = f"{'https' if wire.tls else 'http'}://nonexistent.invalid"
    error = raised(hyperpool.NameResolutionError, lambda: client.get(origin + "/"))
    assert (error.origin, error.processed, error.stream_id) == (origin, "no", None)
    assert isinstance(error, hyperpool.ConnectError) and "nonexistent.invalid" in str(error)
    still_good(kit, client, wire)


def test_an_unreachable_address_is_a_connect_error(kit: Kit) -> None:
    # 255.255.255.255 is refused by the kernel itself: no packet leaves.
    client = kit.client(H1_PLAIN)
    error = raised(hyperpool.ConnectError, lambda: client.get("http://255.255.255.255:9/"))
    assert error.processed == "no"


Script = Callable[[ScriptedConnection], None]


def after_request(*data: bytes, rst: bool = False) -> Script:
    """Read one request's beginning, send the bytes, close."""

    def script(connection: ScriptedConnection) -> None:
        connection.recv(1)
        for one in data:
            connection.send(one)
        close(connection, rst)

    return script


def close(connection: ScriptedConnection, rst: bool) -> None:
    if rst:
        connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    else:
        with contextlib.suppress(OSError):
            connection.sock.shutdown(socket.SHUT_WR)
        connection.drain()


H1_FAULTS: dict[str, tuple[Script, type[hyperpool.HyperpoolError]]] = {
    "EOF before the head": (after_request(), hyperpool.ConnectionLost),
    "EOF within the head": (after_request(b"HTTP/1.1 200 OK\r\nConte"), hyperpool.ConnectionLost),
    "EOF within the body": (after_request(HEAD, b"x" * 99), hyperpool.ConnectionLost),
    "EOF within a chunk": (
        after_request(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel"),
        hyperpool.ConnectionLost,
    ),
    "EOF between chunks": (
        after_request(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"),
        hyperpool.ConnectionLost,
    ),
    "reset before the head": (after_request(rst=True), hyperpool.ConnectionLost),
    "garbage": (after_request(b"\x00\xffgarbage\r\n\r\n"), hyperpool.RemoteProtocolError),
    "another protocol": (after_request(b"220 mail.test ESMTP\r\n"), hyperpool.RemoteProtocolError),
    "HTTP/2": (after_request(b"\0\0\0\4\0\0\0\0\0"), hyperpool.RemoteProtocolError),
    "a status of two digits": (after_request(b"HTTP/1.1 20 OK\r\n\r\n"), hyperpool.RemoteProtocolError),
    "a bad header": (after_request(b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n"), hyperpool.RemoteProtocolError),
    "a bare line feed": (after_request(b"HTTP/1.1 200 OK\nContent-Length: 0\n\n"), hyperpool.RemoteProtocolError),
    "two lengths": (
        after_request(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx"),
        hyperpool.RemoteProtocolError,
    ),
    "a length that is no number": (
        after_request(b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n"),
        hyperpool.RemoteProtocolError,
    ),
    "a length beside chunks": (
        after_request(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n"),
        hyperpool.RemoteProtocolError,
    ),
    "a chunk without a size": (
        after_request(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n"),
        hyperpool.RemoteProtocolError,
    ),
    "an endless head": (after_request(b"HTTP/1.1 200 OK\r\n", b"a: b\r\n" * 20_000), hyperpool.RemoteProtocolError),
    "an unwanted switch": (after_request(b"HTTP/1.1 101 Go\r\n\r\n"), hyperpool.RemoteProtocolError),
    "a storm of 1xx": (after_request(b"HTTP/1.1 103 Early\r\n\r\n" * 1_000), hyperpool.RemoteProtocolError),
}


@pytest.mark.parametrize("fault", H1_FAULTS)
@pytest.mark.parametrize("wire", [H1_TLS, H1_PLAIN], ids=str)
def test_a_faulty_http1_server_is_one_typed_error(kit: Kit, wire: Wire, fault: str) -> None:
    script, kind = H1_FAULTS[fault]
    peer = kit.peer(script, tls=wire.tls, alpn=("http/1.1",))
    client = kit.client(wire)
    error = raised(kind, lambda: client.post(peer.url(), content=b"x"))
    assert (error.origin, error.stream_id, error.processed) == (peer.origin, None, "maybe")
    assert str(error)
    still_good(kit, client, wire)


def frames(*act: Callable[[ScriptedConnection], object], rst: bool = False) -> Script:
    """Greet, wait for the request, do what is given, close."""

    def script(connection: ScriptedConnection) -> None:
        from hyperframe.frame import HeadersFrame

        connection.greet()
        connection.wait_frame(HeadersFrame)
        for one in act:
            one(connection)
        close(connection, rst)

    return script


def raw(data: bytes) -> Callable[[ScriptedConnection], object]:
    return lambda connection: connection.send(data)


def frame_head(length: int, kind: int, flags: int, stream_id: int) -> bytes:
    return length.to_bytes(3, "big") + bytes([kind, flags]) + stream_id.to_bytes(4, "big")


OK = [(":status", "200")]

H2_FAULTS: dict[str, tuple[Script, type[hyperpool.HyperpoolError]]] = {
    "EOF at once": (lambda connection: close(connection, False), hyperpool.ConnectionLost),
    "reset at once": (lambda connection: (connection.recv(1), close(connection, True))[1], hyperpool.ConnectionLost),
    "EOF after SETTINGS": (frames(), hyperpool.ConnectionLost),
    "EOF within the body": (
        frames(lambda c: c.headers(1, OK), lambda c: c.data(1, b"half")),
        hyperpool.ConnectionLost,
    ),
    "EOF within a frame": (frames(raw(frame_head(100, 0, 0, 1) + b"half")), hyperpool.ConnectionLost),
    "reset within the body": (frames(lambda c: c.headers(1, OK), rst=True), hyperpool.ConnectionLost),
    "garbage": (lambda c: (c.recv(1), c.send(b"\xff" * 100), close(c, False))[2], hyperpool.RemoteProtocolError),
    "HTTP/1 text": (
        lambda c: (c.recv(1), c.send(b"HTTP/1.1 400 Bad Request\r\n\r\n"), close(c, False))[2],
        hyperpool.RemoteProtocolError,
    ),
    "no SETTINGS first": (lambda c: (c.recv(1), c.ping(), close(c, False))[2], hyperpool.RemoteProtocolError),
    "RST_STREAM": (frames(lambda c: c.rst(1, 2)), hyperpool.StreamReset),
    "RST_STREAM within the body": (frames(lambda c: c.headers(1, OK), lambda c: c.rst(1, 2)), hyperpool.StreamReset),
    "DATA before HEADERS": (frames(lambda c: c.data(1, b"x")), hyperpool.RemoteProtocolError),
    "a stream that nobody opened": (frames(lambda c: c.headers(7, OK)), hyperpool.RemoteProtocolError),
    "a frame that is too large": (
        frames(raw(frame_head(16_385, 0, 0, 1) + bytes(16_385))),
        hyperpool.RemoteProtocolError,
    ),
    "a header block that is no HPACK": (
        frames(raw(frame_head(4, 1, 4, 1) + b"\xff\xff\xff\xff")),
        hyperpool.RemoteProtocolError,
    ),
    "no status": (frames(lambda c: c.headers(1, [("a", "b")], end_stream=True)), hyperpool.RemoteProtocolError),
    "a status that is no number": (
        frames(lambda c: c.headers(1, [(":status", "abc")], end_stream=True)),
        hyperpool.RemoteProtocolError,
    ),
    "an upper-case header name": (
        frames(lambda c: c.headers(1, [*OK, ("Upper", "x")], end_stream=True)),
        hyperpool.RemoteProtocolError,
    ),
    "a line end in a header": (
        frames(lambda c: c.headers(1, [*OK, ("a", "b\r\nc: d")], end_stream=True)),
        hyperpool.RemoteProtocolError,
    ),
    "less body than declared": (
        frames(lambda c: c.headers(1, [*OK, ("content-length", "5")]), lambda c: c.data(1, b"x", end_stream=True)),
        hyperpool.RemoteProtocolError,
    ),
    "more body than declared": (
        frames(lambda c: c.headers(1, [*OK, ("content-length", "1")]), lambda c: c.data(1, b"xy", end_stream=True)),
        hyperpool.RemoteProtocolError,
    ),
    "204 with content": (
        frames(lambda c: c.headers(1, [(":status", "204")]), lambda c: c.data(1, b"x", end_stream=True)),
        hyperpool.RemoteProtocolError,
    ),
    "a push": (frames(raw(frame_head(5, 5, 4, 1) + b"\0\0\0\2\x88")), hyperpool.RemoteProtocolError),
    "a window beyond the maximum": (frames(lambda c: c.window_update(0, 2**31 - 1)), hyperpool.RemoteProtocolError),
    "a PING with a wrong size": (frames(raw(frame_head(3, 6, 0, 0) + b"abc")), hyperpool.RemoteProtocolError),
    "a storm of 1xx": (
        frames(*[lambda c: c.headers(1, [(":status", "103")])] * 1_000),
        hyperpool.RemoteProtocolError,
    ),
    "an endless head": (
        frames(lambda c: c.headers(1, [*OK, *[(f"name-{n}", "x" * 1_000) for n in range(200)]])),
        hyperpool.RemoteProtocolError,
    ),
    "GOAWAY then EOF, request not processed, body gone": (
        frames(lambda c: c.goaway(0, 11)),
        hyperpool.ConnectionLost,
    ),
}


@pytest.mark.parametrize("fault", H2_FAULTS)
@pytest.mark.parametrize("wire", [H2_TLS, H2_PLAIN], ids=str)
def test_a_faulty_http2_server_is_one_typed_error(kit: Kit, wire: Wire, fault: str) -> None:
    script, kind = H2_FAULTS[fault]
    peer = kit.peer(script, tls=wire.tls)
    client = kit.client(wire)
    # A body that cannot be replayed, so that nothing is resent behind the test's back.
    error = raised(kind, lambda: client.post(peer.url(), content=iter([b"x"])))
    assert error.origin == peer.origin
    # A connection that is gone before the request is on it has no stream, and has processed nothing.
    early = fault == "EOF at once" and error.stream_id is None
    assert early or error.stream_id == 1
    assert error.processed == ("no" if early or "not processed" in fault else "maybe")
    assert str(error)
    still_good(kit, client, wire)


@pytest.mark.parametrize("client_wire", [H2_TLS, H1_TLS], ids=str)
def test_tls_to_a_plain_port_is_a_tls_error(kit: Kit, client_wire: Wire) -> None:
    server = kit.server(H1_PLAIN, errors_expected=True)
    client = kit.client(client_wire)
    origin = server.origin.replace("http:", "https:")
    error = raised(hyperpool.TlsError, lambda: client.post(origin + "/", content=b"x"))
    assert (error.origin, error.processed, error.stream_id) == (origin, "no", None)
    assert server.requests == []
    still_good(kit, client, client_wire)


@pytest.mark.parametrize("client_wire", [H1_PLAIN, H2_PLAIN], ids=str)
def test_plain_http_to_a_tls_port_is_a_typed_error(kit: Kit, client_wire: Wire) -> None:
    server = kit.server(H2_TLS)
    client = kit.client(client_wire)
    origin = server.origin.replace("https:", "http:")
    error = error_of(client.submit("POST", origin + "/", content=b"x"))
    assert isinstance(error, (hyperpool.ConnectionLost, hyperpool.RemoteProtocolError)), repr(error)
    assert (error.origin, error.processed) == (origin, "maybe")
    assert server.requests == []
    still_good(kit, client, client_wire)


def test_prior_knowledge_to_an_http1_only_server_is_a_typed_error(kit: Kit) -> None:
    server = kit.server(H1_PLAIN, http2=False, errors_expected=True)
    client = kit.client(H2_PLAIN)
    error = error_of(client.submit("GET", server.url("/bytes/1")))
    assert isinstance(error, (hyperpool.ConnectionLost, hyperpool.RemoteProtocolError)), repr(error)
    assert error.origin == server.origin
    assert server.requests == []


def test_http1_to_a_server_that_speaks_http2_only_is_a_typed_error(kit: Kit) -> None:
    server = kit.server(H2_PLAIN, http1=False, errors_expected=True)
    client = kit.client(H1_PLAIN)
    error = error_of(client.submit("GET", server.url("/bytes/1")))
    assert isinstance(error, (hyperpool.ConnectionLost, hyperpool.RemoteProtocolError)), repr(error)
    assert server.requests == []


def test_a_tls_stream_cut_within_the_body_is_not_taken_for_its_end(kit: Kit) -> None:
    # No length, no chunks: only an orderly close ends such a body (RFC 9112 9.8).
    def script(connection: ScriptedConnection) -> None:
        connection.recv_until(b"\r\n\r\n")
        connection.send(b"HTTP/1.1 200 OK\r\n\r\nthe beginning")
        close(connection, False)

    peer = kit.peer(script, alpn=("http/1.1",))
    client = kit.client(H1_TLS)
    error = raised(hyperpool.ConnectionLost, lambda: client.get(peer.url()))
    assert error.processed == "maybe"


def test_a_body_that_ends_with_the_connection_is_complete_without_tls(kit: Kit) -> None:
    def script(connection: ScriptedConnection) -> None:
        connection.recv_until(b"\r\n\r\n")
        connection.send(b"HTTP/1.1 200 OK\r\n\r\nall of it")
        close(connection, False)

    peer = kit.peer(script, tls=False)
    assert kit.client(H1_PLAIN).get(peer.url()).text == "all of it"


LENGTH_5 = [*OK, ("content-length", "5")]
NOT_MODIFIED = [(":status", "304"), ("content-length", "5")]


@pytest.mark.parametrize(
    ("head", "body", "outcome"),
    [
        (NOT_MODIFIED, b"", 304),
        (NOT_MODIFIED, b"hello", "more than the 0 bytes"),
        (LENGTH_5, b"four", "4 of the 5 bytes"),
        (LENGTH_5, b"sixsix", "more than the 5 bytes"),
    ],
)
def test_a_body_of_another_length_harms_no_sibling(kit: Kit, head: Any, body: bytes, outcome: int | str) -> None:
    """RFC 9113 8.1.1, 5.4.2; the DATA frame that ends the first response is its fault, or none."""

    def script(connection: ScriptedConnection) -> None:
        from hyperframe.frame import HeadersFrame

        connection.greet()
        for _ in range(3):
            connection.wait_frame(HeadersFrame)
        connection.headers(1, head)
        connection.data(1, body, end_stream=True)
        for stream_id in (3, 5):
            connection.headers(stream_id, OK)
            connection.data(stream_id, b"good", end_stream=True)
        connection.drain()

    client = kit.client(H2_TLS, timeout=WAIT_S)
    peer = kit.peer(script)
    first, *others = [client.submit("GET", peer.url()) for _ in range(3)]
    if isinstance(outcome, int):
        assert (first.result(WAIT_S).status_code, first.result().content) == (outcome, b"")
    else:
        assert outcome in str(error_of(first, hyperpool.RemoteProtocolError))
    assert [other.result(WAIT_S).content for other in others] == [b"good", b"good"]
    assert peer.connections_accepted == 1


@pytest.mark.parametrize("code", [1, 2, 3, 5, 8, 11, 13, 0xFF])
def test_a_reset_stream_carries_its_code_and_harms_no_sibling(kit: Kit, code: int) -> None:
    gate = kit.gate()
    server, client = kit.pair()
    server.route("/gated")(lambda request: (opened(gate), "sibling")[1])
    server.route("/reset")(lambda request: Reset(code))
    sibling = client.submit("GET", server.url("/gated"))
    error = raised(hyperpool.StreamReset, lambda: client.get(server.url("/reset")))
    assert (error.code, error.stream_id, error.processed, error.origin) == (code, 3, "maybe", server.origin)
    gate.set()
    assert sibling.result(WAIT_S).text == "sibling"
    assert server.connections_accepted == 1


def test_a_streamed_response_gives_what_came_before_the_fault_then_the_fault(kit: Kit, wire: Wire) -> None:
    server, client = kit.pair(
        wire, lambda request: Reply(200, body=pattern(50_000), fault_after_bytes=20_000, fault=Disconnect())
    )
    with client.stream("GET", server.url()) as response:
        got = b""
        with pytest.raises(hyperpool.ConnectionLost):
            for piece in response.iter_bytes():
                got += piece
    assert got == pattern(20_000)


def test_a_fault_within_a_streamed_http2_body_is_a_stream_reset_with_its_code(kit: Kit, h2_wire: Wire) -> None:
    server, client = kit.pair(
        h2_wire, lambda request: Reply(200, body=pattern(50_000), fault_after_bytes=20_000, fault=Reset(2))
    )
    with client.stream("GET", server.url()) as response:
        assert response.read(20_000) == pattern(20_000)
        error = raised(hyperpool.StreamReset, response.read)
        assert (error.code, error.stream_id, error.processed) == (2, 1, "maybe")
        raised(hyperpool.StreamReset, response.read)


@pytest.mark.parametrize("rst", [False, True], ids=["eof", "rst"])
def test_a_lost_connection_fails_all_its_requests_and_the_next_ones_get_a_new_one(
    kit: Kit, wire: Wire, rst: bool
) -> None:
    server, client = kit.pair(wire)
    futures = [client.submit("POST", server.url("/fault/silence"), content=b"x") for _ in range(10)]
    assert server.wait_until(lambda server: len(server.requests) == 10, WAIT_S)
    server.drop_connections(rst=rst)
    assert {type(error_of(future)) for future in futures} == {hyperpool.ConnectionLost}
    assert client.get(server.url("/bytes/3")).content == pattern(3)


def test_no_foreign_exception_escapes_and_the_cause_is_kept(kit: Kit) -> None:
    client, url = kit.client(H1_PLAIN), f"http://127.0.0.1:{kit.enter(nobody())}/"
    error = raised(hyperpool.ConnectError, lambda: client.get(url))
    assert isinstance(error.__cause__, ConnectionRefusedError)


def test_errors_survive_pickling_with_all_that_they_say(kit: Kit) -> None:
    import pickle

    server, client = kit.pair()
    error = raised(hyperpool.StreamReset, lambda: client.get(server.url("/fault/reset")))
    twin = pickle.loads(pickle.dumps(error))
    assert (type(twin), str(twin), twin.code, twin.stream_id, twin.origin, twin.processed) == (
        hyperpool.StreamReset,
        str(error),
        error.code,
        error.stream_id,
        error.origin,
        error.processed,
    )
