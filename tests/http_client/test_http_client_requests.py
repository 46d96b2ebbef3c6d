"""What goes out: heads as they were given, bodies whole or piece by piece, and what the standard library refuses."""

from __future__ import annotations

import array
import http.client
import io
import json
import ssl
from typing import Any

import pytest
from http_client_kit import H1, H1_TLS, H2, Kit, Wire, fetch

from hyperpool import errors, http_client
from hyperpool.engine import trust
from hyperpool.http_client.outgoing import Outgoing
from hyperpool.testing import pattern
from stage import AUTHORITY, WAIT_S


def heads(server: Any) -> list[dict[str, str]]:
    return [dict(seen.headers) for seen in server.requests]


def echoed(connection: Any, body: Any, headers: Any = (), **how: Any) -> bytes:
    connection.request("POST", "/echo", body, dict(headers), **how)
    data: bytes = connection.getresponse().read()
    return data


def test_the_classes_are_the_standard_ones_as_well() -> None:
    assert issubclass(http_client.HTTPSConnection, http_client.HTTPConnection)
    assert issubclass(http_client.HTTPSConnection, http.client.HTTPSConnection)
    assert issubclass(http_client.HTTPConnection, http.client.HTTPConnection)
    assert issubclass(http_client.HTTPResponse, http.client.HTTPResponse)


@pytest.mark.parametrize("name", [*http.client.__all__, "HTTP_PORT", "OK", "NOT_FOUND", "HTTPMessage", "_MAXLINE"])
def test_every_name_of_http_client_is_here(name: str) -> None:
    ours = getattr(http_client, name)
    assert ours is getattr(http.client, name) or issubclass(ours, getattr(http.client, name))


def test_a_name_that_http_client_lacks_is_no_attribute() -> None:
    assert not hasattr(http_client, "get")
    assert not hasattr(http_client, "__wrapped__")


def test_host_and_accept_encoding_are_set(kit: Kit, wire: Wire) -> None:
    server = kit.server(wire)
    fetch(kit.connection(server))
    assert heads(server)[0]["accept-encoding"] == "identity"
    assert server.requests[0].authority == f"localhost:{server.port}"


def test_a_host_header_of_the_callers_own_replaces_it(kit: Kit, wire: Wire) -> None:
    server = kit.server(wire)
    fetch(kit.connection(server), headers={"Host": "other.test"})
    assert server.requests[0].authority == "other.test"


def test_putrequest_leaves_out_what_it_is_told_to(kit: Kit, wire: Wire) -> None:
    server = kit.server(wire)
    connection = kit.connection(server)
    connection.putrequest("GET", "/", skip_host=True, skip_accept_encoding=True)
    connection.putheader("Host", "put.test")
    connection.endheaders()
    connection.getresponse().read()
    assert server.requests[0].authority == "put.test"
    assert "accept-encoding" not in heads(server)[0]


def test_several_values_of_one_putheader_are_one_field(kit: Kit, wire: Wire) -> None:
    """RFC 9112 5.2: the line that they are folded into is unfolded."""
    server = kit.server(wire)
    connection = kit.connection(server)
    connection.putrequest("GET", "/")
    connection.putheader("X-Many", "a", b"b", 3)
    connection.endheaders()
    connection.getresponse().read()
    assert heads(server)[0]["x-many"] == "a b 3"


def test_a_target_goes_out_as_it_stands(kit: Kit, wire: Wire) -> None:
    server = kit.server(wire)
    fetch(kit.connection(server), "//a/../b?c=%41&d=[e]")
    assert server.requests[0].target == "//a/../b?c=%41&d=[e]"


def test_the_target_of_a_whole_server_may_be_shared(kit: Kit, wire: Wire) -> None:
    server = kit.server(wire)
    connection = kit.connection(server)
    connection.request("OPTIONS", "*")
    connection.getresponse().read()
    assert server.requests[0].target == "*"


def test_header_values_are_latin_1(kit: Kit, wire: Wire) -> None:
    server = kit.server(wire)
    connection = kit.connection(server)
    assert dict(json.loads(fetch(connection, "/headers", headers={"X-Name": "é"})))["x-name"] == "é"


@pytest.mark.parametrize(
    "make",
    [
        bytes,
        bytes.decode,
        bytearray,
        lambda body: array.array("b", body),
        io.BytesIO,
        lambda body: io.StringIO(body.decode()),
        lambda body: [body[:3], b"", body[3:]],
    ],
    ids=["bytes", "str", "bytearray", "array", "file", "text file", "list"],
)
def test_bodies_of_every_kind_arrive(kit: Kit, wire: Wire, make: Any) -> None:
    assert echoed(kit.connection(kit.server(wire)), make(b"some bytes")) == b"some bytes"


def test_a_generator_is_sent_piece_by_piece(kit: Kit, wire: Wire) -> None:
    connection = kit.connection(kit.server(wire))
    assert echoed(connection, (b"%d," % number for number in range(1000))) == b"".join(
        b"%d," % number for number in range(1000)
    )


@pytest.mark.parametrize("n_bytes", [0, 1, 64 << 10, 3_000_000])
def test_a_body_of_any_size_arrives(kit: Kit, wire: Wire, n_bytes: int) -> None:
    assert echoed(kit.connection(kit.server(wire)), pattern(n_bytes)) == pattern(n_bytes)


def test_a_file_with_its_length_declared_is_not_chunked(kit: Kit, wire: Wire) -> None:
    server = kit.server(wire)
    body = pattern(500_000)
    assert echoed(kit.connection(server), io.BytesIO(body), {"Content-Length": str(len(body))}) == body
    assert heads(server)[0]["content-length"] == "500000"


def test_chunks_that_the_caller_writes_are_chunks(kit: Kit, wire: Wire) -> None:
    """What ``send`` is given are bytes of HTTP/1.1, whatever is spoken below."""
    connection = kit.connection(kit.server(wire))
    headers = {"Transfer-Encoding": "chunked"}
    assert echoed(connection, b"5;ext=1\r\nfirst\r\nA\r\nand second\r\n0\r\nX-Trailer: 1\r\n\r\n", headers) == (
        b"firstand second"
    )


def test_encode_chunked_frames_what_the_caller_calls_chunked(kit: Kit, wire: Wire) -> None:
    connection = kit.connection(kit.server(wire))
    assert echoed(connection, [b"a", b"b"], {"Transfer-Encoding": "chunked"}, encode_chunked=True) == b"ab"


def test_send_continues_a_body_that_endheaders_announced(kit: Kit, wire: Wire) -> None:
    connection = kit.connection(kit.server(wire))
    connection.putrequest("POST", "/echo")
    connection.putheader("Content-Length", "10")
    connection.endheaders()
    for piece in (b"first", b"", b"-", b"last"):
        connection.send(piece)
    assert connection.getresponse().read() == b"first-last"


def test_the_head_is_seen_before_the_body_is_sent(kit: Kit, wire: Wire) -> None:
    server = kit.server(wire)
    connection = kit.connection(server)
    connection.putrequest("POST", "/echo")
    connection.putheader("Content-Length", "4")
    connection.endheaders()
    assert server.wait_until(lambda seen: len(seen.requests) == 1, WAIT_S)
    connection.send(b"body")
    assert connection.getresponse().read() == b"body"


def test_expect_is_sent_and_the_interim_response_skipped(kit: Kit, wire: Wire) -> None:
    server = kit.server(wire)
    connection = kit.connection(server)
    assert echoed(connection, b"body", {"Expect": "100-continue"}) == b"body"
    assert heads(server)[0]["expect"] == "100-continue"


def test_a_body_that_the_server_does_not_want_is_given_up(kit: Kit, wire: Wire) -> None:
    connection = kit.connection(kit.server(wire))
    connection.request("POST", "/early/413", (bytes(65_536) for _ in range(1000)))
    assert connection.getresponse().status == 413


@pytest.mark.parametrize(
    ("method", "body", "length"), [("POST", None, "0"), ("GET", None, None), ("PUT", b"", "0"), ("GET", b"x", "1")]
)
def test_content_length_is_set_as_the_standard_library_sets_it(
    kit: Kit, wire: Wire, method: str, body: Any, length: Any
) -> None:
    server = kit.server(wire)
    connection = kit.connection(server)
    connection.request(method, "/", body)
    connection.getresponse().read()
    assert heads(server)[0].get("content-length") == length


# -- refused -----------------------------------------------------------------------------------------------------------


def test_the_states_are_the_standard_librarys(kit: Kit, wire: Wire) -> None:
    connection = kit.connection(kit.server(wire))
    with pytest.raises(http.client.ResponseNotReady):
        connection.getresponse()
    with pytest.raises(http.client.CannotSendHeader):
        connection.putheader("X", "y")
    connection.request("GET", "/")
    with pytest.raises(http.client.CannotSendRequest):
        connection.request("GET", "/")
    response = connection.getresponse()
    connection.request("GET", "/")
    with pytest.raises(http.client.ResponseNotReady):
        connection.getresponse()
    response.read()
    assert connection.getresponse().status == 200


def test_auto_open_off_means_not_connected(kit: Kit, wire: Wire) -> None:
    connection = kit.connection(kit.server(wire))
    connection.auto_open = 0
    with pytest.raises(http.client.NotConnected):
        connection.request("GET", "/")


@pytest.mark.parametrize(
    ("how", "kind"),
    [
        ({"url": "/a b"}, http.client.InvalidURL),
        ({"url": "/a\r\nX: y"}, http.client.InvalidURL),
        ({"headers": {"X\r\n": "y"}}, ValueError),
        ({"headers": {"X": "y\r\nz"}}, ValueError),
        ({"method": "GET\r\n"}, ValueError),
        ({"headers": {"Transfer-Encoding": "gzip"}}, http_client.Unsendable),
        ({"headers": {"Content-Length": "x"}}, http_client.Unsendable),
        ({"headers": {"X Y": "z"}}, http_client.Unsendable),
        ({"headers": {"TE": "gzip"}}, http_client.Unsendable),
    ],
    ids=str,
)
def test_what_would_break_out_of_a_head_is_refused(kit: Kit, wire: Wire, how: Any, kind: type[BaseException]) -> None:
    server = kit.server(wire)
    connection = kit.connection(server)
    with pytest.raises(kind):
        connection.request(**{"method": "GET", "url": "/", **how})
    assert server.requests == []


def test_a_refusal_of_ours_is_a_standard_exception_with_its_reason(kit: Kit) -> None:
    connection = kit.connection(kit.server(H2))
    with pytest.raises(http.client.HTTPException) as caught:
        connection.request("GET", "/", headers={"TE": "gzip"})
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value.__cause__, errors.LocalProtocolError)


def test_after_a_refusal_and_a_close_the_object_works(kit: Kit, wire: Wire) -> None:
    connection = kit.connection(kit.server(wire))
    with pytest.raises(http_client.Unsendable):
        connection.request("GET", "/", headers={"TE": "gzip"})
    connection.close()
    assert fetch(connection, "/bytes/3") == pattern(3)


def test_bytes_behind_the_end_of_a_request_are_refused(kit: Kit, wire: Wire) -> None:
    """On a socket they would be taken for the next request: that is what smuggling is made of."""
    connection = kit.connection(kit.server(wire))
    connection.putrequest("POST", "/echo")
    connection.endheaders()
    with pytest.raises(http.client.HTTPException, match="behind the end"):
        connection.send(b"GET /admin HTTP/1.1\r\n\r\n")


@pytest.mark.parametrize(
    "body", [b"xyz\r\n", b"3\r\nabcd\r\n", b"1\r\na\r\n0\r\n\r\nmore"], ids=["no size", "too long", "behind the end"]
)
def test_chunks_that_are_none_are_refused(kit: Kit, wire: Wire, body: bytes) -> None:
    connection = kit.connection(kit.server(wire))
    with pytest.raises(http.client.HTTPException):
        connection.request("POST", "/echo", body, {"Transfer-Encoding": "chunked"})


@pytest.mark.parametrize("step_bytes", [1, 2, 7])
def test_a_request_is_read_the_same_however_its_bytes_are_cut(step_bytes: int) -> None:
    octets = b"POST /a HTTP/1.1\r\nX: 1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
    request = Outgoing()
    pieces: list[bytes] = []
    for at in range(0, len(octets), step_bytes):
        pieces += request.feed(octets[at : at + step_bytes])
    assert b"".join(pieces) == b"abcde"
    assert request.complete


def test_a_body_that_is_no_body_is_a_type_error(kit: Kit) -> None:
    connection = kit.connection(kit.server(H2))
    with pytest.raises(TypeError):
        connection.request("POST", "/echo", 7, {"Content-Length": "1"})
    connection.close()
    connection.putrequest("POST", "/echo")
    connection.endheaders()
    with pytest.raises(TypeError):
        connection.send(7)


def test_an_iterable_that_raises_takes_its_request_back(kit: Kit, wire: Wire) -> None:
    server = kit.server(wire)
    connection = kit.connection(server)

    def broken() -> Any:
        yield bytes(100)
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        connection.request("POST", "/echo", broken())
    connection.close()
    assert fetch(connection, "/bytes/3") == pattern(3)


# -- on a socket of its own --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["?q=1", "/a#b", "path", "*"])
def test_a_target_that_http_does_not_know_goes_the_standard_way(kit: Kit, target: str) -> None:
    """xmlrpc.client asks for them, on a connection that is nobody else's."""
    seen = []

    def script(connection: Any) -> None:
        seen.append(connection.recv())
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    peer = kit.peer(script, tls=False)
    assert fetch(kit.connection(peer), target) == b"ok"
    assert seen[0].startswith(f"GET {target} HTTP/1.1\r\n".encode())


def test_another_protocol_is_asked_for_on_a_socket_of_its_own(kit: Kit) -> None:
    def script(connection: Any) -> None:
        connection.recv()
        connection.send(b"HTTP/1.1 101 Switching\r\nUpgrade: echo\r\nConnection: upgrade\r\n\r\n")
        connection.send(connection.recv())

    connection = kit.connection(kit.peer(script, tls=False))
    connection.request("GET", "/", headers={"Upgrade": "echo", "Connection": "upgrade"})
    response = connection.getresponse()
    assert response.status == 101
    connection.sock.sendall(b"hello")
    assert connection.sock.recv(5) == b"hello"


@pytest.mark.parametrize("trusted", ["own", "standard"])
def test_a_socket_of_its_own_never_offers_http_2_whatever_the_pool_offered(
    kit: Kit, trusted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = kit.server(H2)
    if trusted == "standard":
        monkeypatch.setattr(ssl, "_create_default_https_context", kit.fresh_context)
    connection = kit.connection(server, context=kit.context if trusted == "own" else None)
    assert fetch(connection, "/bytes/3") == pattern(3)
    connection.request("GET", "/", headers={"Upgrade": "echo"})
    assert connection.getresponse().version == 11
    assert connection.sock.selected_alpn_protocol() == {"standard": "http/1.1", "own": None}[trusted]
    assert [seen.http_version for seen in server.requests] == ["2", "1.1"]


def test_an_upgrade_after_connect_leaves_the_shared_connection(kit: Kit) -> None:
    server = kit.server(H1)
    connection = kit.connection(server)
    connection.connect()
    connection.request("GET", "/", headers={"Upgrade": "echo"})
    assert connection.getresponse().status == 200
    assert connection.sock.fileno() > 0


@pytest.mark.parametrize("wire", [H1_TLS, H1], ids=str)
def test_a_source_address_is_bound_on_a_socket_of_its_own(kit: Kit, wire: Wire) -> None:
    connection = kit.connection(kit.server(wire), source_address=("127.0.0.1", 0))
    assert fetch(connection, "/bytes/3") == pattern(3)
    assert connection.sock.getsockname()[0] == "127.0.0.1"


def test_a_socket_of_its_own_never_offers_what_a_dial_has_put_on_a_shared_context(
    kit: Kit, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = ssl.create_default_context(cadata=AUTHORITY.ca_pem.decode())

    class HeldByADial:
        """Who gets it finds that the dial which had it has taken back what it offered."""

        def __enter__(self) -> None:
            context.set_alpn_protocols(["http/1.1"])

        def __exit__(self, *exc_info: object) -> None:
            """Nothing."""

    monkeypatch.setattr(trust, "_alpn_lock", HeldByADial())
    context.set_alpn_protocols(["h2"])
    connection = kit.connection(kit.server(H2), source_address=("127.0.0.1", 0), context=context)
    assert fetch(connection, "/bytes/3") == pattern(3)
    assert connection.sock.selected_alpn_protocol() == "http/1.1"


def test_a_context_that_wraps_sockets_in_its_own_way_is_left_to(kit: Kit) -> None:
    wrapped = []

    class Own(ssl.SSLContext):
        def wrap_socket(self, sock: Any, **options: Any) -> Any:
            wrapped.append(options)
            return super().wrap_socket(sock, **options)

    context = Own(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=AUTHORITY.ca_pem.decode())
    connection = kit.connection(kit.server(H1_TLS), source_address=("127.0.0.1", 0), context=context)
    assert fetch(connection, "/bytes/3") == pattern(3) and wrapped == [{"server_hostname": "localhost"}]


def test_a_handshake_that_fails_on_a_socket_of_its_own_leaves_none_open(kit: Kit) -> None:
    stranger = ssl.create_default_context()
    server = kit.server(H1_TLS, errors_expected=True)
    connection = kit.connection(server, source_address=("127.0.0.1", 0), context=stranger)
    with pytest.raises(ssl.SSLCertVerificationError):
        connection.connect()


def test_http_1_0_is_spoken_where_a_program_sets_it(kit: Kit) -> None:
    seen = []

    def script(connection: Any) -> None:
        seen.append(connection.recv())
        connection.send(b"HTTP/1.0 200 OK\r\n\r\nok")

    connection = kit.connection(kit.peer(script, tls=False))
    connection._http_vsn, connection._http_vsn_str = 10, "HTTP/1.0"
    assert fetch(connection) == b"ok"
    assert seen[0].startswith(b"GET / HTTP/1.0\r\n")


def test_a_socket_that_is_given_is_used() -> None:
    class Fake:
        def __init__(self) -> None:
            self.sent = b""

        def sendall(self, data: bytes) -> None:
            self.sent += data

        def makefile(self, mode: str) -> Any:
            return io.BytesIO(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc")

        def close(self) -> None:
            pass

    connection = http_client.HTTPConnection("fake.test")
    connection.sock = Fake()
    assert fetch(connection) == b"abc"


def test_a_subclass_that_connects_in_its_own_way_gets_a_socket(kit: Kit) -> None:
    server = kit.server(H1)

    class Own(http_client.HTTPConnection):
        def connect(self) -> None:
            super().connect()
            self.peer = self.sock.getpeername()

    connection = Own("localhost", server.port)
    assert fetch(connection, "/bytes/3") == pattern(3)
    assert connection.peer == ("127.0.0.1", server.port)
    connection.close()


def test_an_absolute_target_goes_out_to_a_proxy_as_it_stands(kit: Kit) -> None:
    server = kit.server(H1)
    connection = kit.connection(server)
    fetch(connection, "http://target.test:81/bytes/3")
    assert server.requests[0].target == "http://target.test:81/bytes/3"
    assert server.requests[0].authority == "target.test:81"


def test_an_absolute_target_is_taken_apart_on_http2(kit: Kit) -> None:
    server = kit.server(H2)
    assert fetch(kit.connection(server), "http://target.test:81/bytes/3") == pattern(3)
    seen = server.requests[0]
    assert (seen.scheme, seen.authority, seen.target) == ("http", "target.test:81", "/bytes/3")
