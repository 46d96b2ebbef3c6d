"""What comes back: the standard library's response, whatever carried it, and never a cut body that looks whole."""

from __future__ import annotations

import email.message
import gc
import http.client
import io
import zlib
from typing import Any

import pytest
from http_client_kit import H1, H1_TLS, H2, Kit, Wire, fetch

from hyperpool import errors, http_client
from hyperpool.testing import Reply, Reset, pattern
from stage import WAIT_S


def answer(kit: Kit, wire: Wire, path: str = "/", method: str = "GET", handler: Any = None) -> Any:
    connection = kit.connection(kit.server(wire, handler))
    connection.request(method, path)
    return connection.getresponse()


def raw(kit: Kit, octets: bytes, *, tls: bool = False) -> Any:
    """A connection to a peer that answers with these bytes and closes."""

    def script(connection: Any) -> None:
        connection.recv()
        connection.send(octets)

    return kit.connection(kit.peer(script, tls=tls, alpn=("http/1.1",)))


def test_a_response_says_what_it_is(kit: Kit, wire: Wire) -> None:
    response = answer(kit, wire, "/bytes/10")
    assert isinstance(response, http.client.HTTPResponse)
    assert (response.status, response.code, response.getcode()) == (200, 200, 200)
    assert (response.reason, response.version, response.length) == ("OK", wire.version, 10)
    assert response.chunked is False
    assert response.will_close is False
    assert isinstance(response.msg, http.client.HTTPMessage)
    assert isinstance(response.headers, email.message.Message)
    assert response.info() is response.headers
    assert response.debuglevel == 0


def test_the_stream_is_known_on_http2(kit: Kit) -> None:
    assert answer(kit, H2).stream_id == 1


def test_there_is_no_stream_on_http1(kit: Kit, h1_wire: Wire) -> None:
    assert answer(kit, h1_wire).stream_id is None


def test_headers_are_str_and_spelled_as_programs_look_for_them(kit: Kit, wire: Wire) -> None:
    fields = [("etag", '"x"'), ("www-authenticate", "Basic"), ("x-one", "1"), ("x-one", "2")]
    response = answer(kit, wire, handler=lambda request: Reply(headers=fields, body=b"ok"))
    assert response.getheaders() == [
        ("ETag", '"x"'),
        ("WWW-Authenticate", "Basic"),
        ("X-One", "1"),
        ("X-One", "2"),
        ("Content-Length", "2"),
    ]
    assert response.getheader("X-ONE") == "1, 2"
    assert response.getheader("absent", "else") == "else"


def test_a_header_that_is_no_ascii_is_latin_1(kit: Kit) -> None:
    connection = raw(kit, b"HTTP/1.1 200 OK\r\nX: \xe9\r\nContent-Length: 0\r\n\r\n")
    connection.request("GET", "/")
    assert connection.getresponse().getheader("X") == "é"


def test_a_body_is_not_decoded(kit: Kit, wire: Wire) -> None:
    response = answer(kit, wire, "/gzip")
    assert response.getheader("Content-Encoding") == "gzip"
    assert zlib.decompress(response.read(), wbits=31) == pattern(10_000)


@pytest.mark.parametrize("path", ["/bytes/200000", "/chunked/200000"])
def test_a_body_can_be_read_at_once(kit: Kit, wire: Wire, path: str) -> None:
    response = answer(kit, wire, path)
    assert response.read() == pattern(200_000)
    assert response.isclosed()
    assert response.read() == b""


@pytest.mark.parametrize("path", ["/bytes/100000", "/chunked/100000"])
@pytest.mark.parametrize("n", [1_000, 30_000, 200_000])
def test_a_body_can_be_read_in_pieces(kit: Kit, wire: Wire, path: str, n: int) -> None:
    response = answer(kit, wire, path)
    pieces = list(iter(lambda: response.read(n), b""))
    assert b"".join(pieces) == pattern(100_000)
    assert {len(piece) for piece in pieces[:-1]} <= {n}
    assert response.isclosed()


@pytest.mark.parametrize("path", ["/bytes/100000", "/chunked/100000"])
def test_read1_readinto_and_peek_give_the_same_body(kit: Kit, wire: Wire, path: str) -> None:
    response = answer(kit, wire, path)
    body = response.read1(10)
    ahead = response.peek(5)
    body += response.read(len(ahead))
    assert body.endswith(ahead)
    buffer = bytearray(7_000)
    while n_bytes := response.readinto(buffer):
        body += buffer[:n_bytes]
    assert body == pattern(100_000)


@pytest.mark.parametrize("length", [True, False], ids=["counted", "streamed"])
def test_lines_are_lines(kit: Kit, wire: Wire, length: bool) -> None:
    lines = [b"one\n", b"two" * 9000 + b"\n", b"\n", b"last"]
    body = b"".join(lines)
    response = answer(kit, wire, handler=lambda request: Reply(body=body if length else iter([body[:5], body[5:]])))
    assert list(response) == lines
    assert response.readline() == b""


def test_asking_for_nothing_gives_nothing(kit: Kit, wire: Wire) -> None:
    response = answer(kit, wire, "/bytes/3")
    assert (response.read(0), response.read1(0), response.readinto(bytearray()), response.readline(0)) == (
        b"", b"", 0, b"",
    )  # fmt: skip
    assert response.read() == pattern(3)


def test_a_response_is_a_file_for_buffered_readers(kit: Kit, wire: Wire) -> None:
    response = answer(kit, wire, "/bytes/100000")
    with io.TextIOWrapper(response, "latin-1", newline="") as text:
        assert text.read() == pattern(100_000).decode("latin-1")


def test_chunks_are_counted_where_the_server_sends_some(kit: Kit, h1_wire: Wire) -> None:
    response = answer(kit, h1_wire, "/chunked/100")
    assert response.chunked is True
    assert response.length is None
    assert response.getheader("Transfer-Encoding") == "chunked"


def test_a_streamed_body_on_http2_has_no_length_and_leaves_the_connection(kit: Kit) -> None:
    response = answer(kit, H2, "/chunked/100")
    assert (response.chunked, response.length, response.will_close) == (False, None, False)


def test_trailers_end_the_body(kit: Kit, wire: Wire) -> None:
    connection = kit.connection(kit.server(wire))
    fetch(connection, "/trailers")
    assert fetch(connection, "/bytes/3") == pattern(3)


@pytest.mark.parametrize("method_and_path", [("HEAD", "/bytes/100"), ("GET", "/status/204"), ("GET", "/status/304")])
def test_what_has_no_body_is_over_with_its_head(kit: Kit, wire: Wire, method_and_path: tuple[str, str]) -> None:
    connection = kit.connection(kit.server(wire))
    connection.request(*method_and_path)
    assert connection.getresponse().read() == b""
    assert fetch(connection, "/bytes/3") == pattern(3)


def test_a_response_that_was_read_to_its_length_is_not_reset(kit: Kit) -> None:
    """Servers count resets, and many send the end of a stream in a frame of its own."""
    server = kit.server(H2)
    connection = kit.connection(server)
    for _ in range(20):
        assert fetch(connection, "/bytes/20000") == pattern(20_000)
    assert {seen.reset_code for seen in server.requests} == {None}


@pytest.mark.parametrize("status", [100, 102, 103])
def test_interim_responses_are_skipped(kit: Kit, wire: Wire, status: int) -> None:
    response = answer(kit, wire, handler=lambda request: Reply(interim=[(status, ())], body=b"final"))
    assert (response.status, response.read()) == (200, b"final")


def test_http_1_0_is_version_10_and_closes(kit: Kit) -> None:
    connection = raw(kit, b"HTTP/1.0 404 Nothing here\r\nX: y\r\n\r\nuntil the end")
    connection.request("GET", "/")
    response = connection.getresponse()
    assert (response.version, response.reason, response.will_close) == (10, "Nothing here", True)
    assert connection.sock is None
    assert response.read() == b"until the end"


def test_connection_close_gives_the_socket_to_the_response(kit: Kit, h1_wire: Wire) -> None:
    server = kit.server(h1_wire)
    connection = kit.connection(server)
    connection.request("GET", "/bytes/100000", headers={"Connection": "close"})
    response = connection.getresponse()
    assert response.will_close
    assert connection.sock is None
    assert response.read() == pattern(100_000)
    assert fetch(connection, "/bytes/3") == pattern(3)


def test_debug_output_is_the_standard_librarys(kit: Kit, wire: Wire, capsys: pytest.CaptureFixture[str]) -> None:
    connection = kit.connection(kit.server(wire))
    connection.set_debuglevel(1)
    fetch(connection, "/bytes/3")
    shown = capsys.readouterr().out
    assert "send: b'GET /bytes/3 HTTP/1.1" in shown
    assert "reply: 'HTTP/1.1 200 OK" in shown
    assert "header: Content-Length: 3" in shown


def test_a_standard_response_class_reads_it_as_well(kit: Kit, wire: Wire) -> None:
    class Plain(http.client.HTTPResponse):
        pass

    connection = kit.connection(kit.server(wire))
    connection.response_class = Plain
    for path in ("/bytes/100", "/chunked/100"):
        connection.request("GET", path)
        response = connection.getresponse()
        assert type(response) is Plain
        assert response.read() == pattern(100)


def test_a_response_has_no_descriptor(kit: Kit, wire: Wire) -> None:
    with pytest.raises(io.UnsupportedOperation):
        answer(kit, wire).fileno()


def test_another_file_than_a_response_is_not_made(kit: Kit) -> None:
    connection = kit.connection(kit.server(H2))
    connection.connect()
    with pytest.raises(io.UnsupportedOperation):
        connection.sock.makefile("wb")
    with pytest.raises(OSError, match="no request"):
        connection.sock.makefile("rb")


def test_an_unbuffered_file_gives_the_same_bytes(kit: Kit) -> None:
    connection = kit.connection(kit.server(H2))
    connection.request("GET", "/bytes/3")
    with connection.sock.makefile("rb", 0) as file:
        head, _, body = file.readall().partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert body == pattern(3)


def test_begin_waits_once(kit: Kit, wire: Wire) -> None:
    response = answer(kit, wire, "/bytes/3")
    response.begin()
    assert response.read() == pattern(3)


def test_a_file_that_was_closed_gives_nothing(kit: Kit) -> None:
    connection = kit.connection(kit.server(H2))
    connection.request("GET", "/bytes/3")
    file = connection.sock.makefile("rb", 0)
    file.close()
    with pytest.raises(ValueError, match="closed file"):
        file.readall()


def test_a_socket_that_is_given_has_the_standard_librarys_cut_bodies() -> None:
    class Fake:
        def makefile(self, mode: str) -> Any:
            return io.BytesIO(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort")

    response = http_client.HTTPResponse(Fake())
    response.begin()
    with pytest.raises(http.client.IncompleteRead) as caught:
        response.read()
    assert caught.value.partial == b"short"
    assert response.stream_id is None


# -- what was cut short ------------------------------------------------------------------------------------------------


@pytest.fixture(params=["counted", "streamed"])
def cut(request: pytest.FixtureRequest, kit: Kit, wire: Wire) -> Any:
    """A response that ends after 50,000 of 100,000 bytes, announced or not."""
    headers = [("content-length", "100000")] if request.param == "counted" else []
    reply = Reply(headers=headers, body=iter([pattern(100_000)]), fault=Reset(), fault_after_bytes=50_000)
    connection = kit.connection(kit.server(wire, lambda request: reply))
    connection.request("GET", "/")
    return connection.getresponse()


def test_a_cut_body_read_at_once_is_incomplete(cut: Any) -> None:
    with pytest.raises(http.client.IncompleteRead) as caught:
        cut.read()
    assert pattern(100_000).startswith(caught.value.partial)
    assert isinstance(caught.value.__cause__, errors.HyperpoolError)


@pytest.mark.parametrize("way", ["read", "read1", "readinto", "readline"])
def test_a_cut_body_read_in_pieces_is_incomplete_at_its_end(cut: Any, way: str) -> None:
    def step() -> bytes:
        if way != "readinto":
            data: bytes = getattr(cut, way)(10_000)
            return data
        buffer = bytearray(10_000)
        return bytes(buffer[: cut.readinto(buffer)])

    body = b""
    with pytest.raises(http.client.IncompleteRead):
        while piece := step():
            body += piece
    assert pattern(100_000).startswith(body)


def test_a_cut_body_stays_incomplete(kit: Kit) -> None:
    reply = Reply(body=iter([pattern(100)]), fault=Reset(), fault_after_bytes=50)
    response = answer(kit, H2, handler=lambda request: reply)
    for _ in range(3):
        with pytest.raises(http.client.IncompleteRead):
            while response.read(1_000):
                pass


def test_a_tls_session_without_a_farewell_ends_what_only_its_end_delimits(kit: Kit) -> None:
    """As in the standard library, whose own servers end so."""
    assert fetch(raw(kit, b"HTTP/1.0 200 OK\r\n\r\nall of it", tls=True)) == b"all of it"


@pytest.mark.parametrize("length", [b"Content-Length: 99", b"Transfer-Encoding: chunked"])
def test_a_tls_session_without_a_farewell_ends_nothing_else(kit: Kit, length: bytes) -> None:
    connection = raw(kit, b"HTTP/1.1 200 OK\r\n%s\r\n\r\n5\r\nfirst\r\n" % length, tls=True)
    with pytest.raises(http.client.IncompleteRead):
        fetch(connection)


# -- let go ------------------------------------------------------------------------------------------------------------


def held_up(kit: Kit, server: Any) -> None:
    """Have /held answer with a head and a part of its body, and then nothing until the test ends."""
    gate = kit.gate()

    def pieces() -> Any:
        yield bytes(1_000)
        gate.wait(WAIT_S)

    server.route("/held")(lambda request: Reply(body=pieces()))


def was_reset(server: Any) -> bool:
    return bool(server.wait_until(lambda seen: seen.requests[0].reset_code is not None, WAIT_S))


@pytest.mark.parametrize("letting_go", ["response.close", "connection.close", "with", "sock.shutdown"])
def test_letting_go_of_a_response_resets_its_stream_and_no_other(kit: Kit, letting_go: str) -> None:
    server = kit.server(H2)
    held_up(kit, server)
    other = kit.connection(server)
    other.connect()
    connection = kit.connection(server)
    connection.request("GET", "/held")
    response = connection.getresponse()
    if letting_go == "response.close":
        response.close()
    elif letting_go == "connection.close":
        connection.close()
    elif letting_go == "with":
        with response:
            pass
    else:
        connection.sock.shutdown(2)
    assert was_reset(server)
    assert fetch(other, "/bytes/3") == pattern(3)
    assert server.connections_accepted == 1


def test_forgetting_everything_resets_the_stream_and_warns_nobody(kit: Kit, recwarn: Any) -> None:
    server = kit.server(H2)
    held_up(kit, server)
    other = kit.connection(server)
    other.connect()
    forgotten = http_client.HTTPSConnection("localhost", server.port, context=kit.context)
    forgotten.request("GET", "/held")
    forgotten.getresponse()
    del forgotten
    gc.collect()
    assert was_reset(server)
    assert fetch(other, "/bytes/3") == pattern(3)
    assert not [one for one in recwarn if issubclass(one.category, ResourceWarning)]


def test_forgetting_a_request_that_nobody_answers_resets_its_stream(kit: Kit) -> None:
    server = kit.server(H2)
    forgotten = http_client.HTTPSConnection("localhost", server.port, context=kit.context)
    forgotten.request("GET", "/fault/silence")
    assert server.wait_until(lambda seen: len(seen.requests) == 1, WAIT_S)
    del forgotten
    gc.collect()
    assert was_reset(server)


def test_a_closed_sock_is_closed_for_its_object_alone(kit: Kit, wire: Wire) -> None:
    server = kit.server(wire)
    one, other = kit.connection(server), kit.connection(server)
    assert fetch(other, "/bytes/3") == pattern(3)
    assert fetch(one, "/bytes/3") == pattern(3)
    one.sock.close()
    with pytest.raises(OSError, match="was closed"):
        one.request("GET", "/")
    assert fetch(other, "/bytes/3") == pattern(3)
    one.close()
    assert fetch(one, "/bytes/3") == pattern(3)


def test_closing_the_sock_leaves_the_response_readable(kit: Kit, wire: Wire) -> None:
    connection = kit.connection(kit.server(wire))
    connection.request("GET", "/bytes/300000")
    response = connection.getresponse()
    connection.sock.close()
    assert response.read() == pattern(300_000)


@pytest.mark.parametrize("wire", [H1_TLS, H1], ids=str)
def test_closing_the_last_object_closes_an_http1_connection(kit: Kit, wire: Wire) -> None:
    """Servers give a thread to each, and wait for it when they stop."""
    server = kit.server(wire)
    one, other = kit.connection(server), kit.connection(server)
    fetch(one)
    fetch(other)
    one.close()
    assert fetch(other, "/bytes/3") == pattern(3)
    other.close()
    assert server.wait_until(lambda seen: seen.connections_open == 0, WAIT_S)
