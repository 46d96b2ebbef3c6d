"""What goes wrong is said in the standard library's classes, with hyperpool's error as its cause."""

from __future__ import annotations

import errno
import http.client
import socket
import ssl
import threading
from contextlib import suppress
from typing import Any

import pytest
from http_client_kit import H1, H1_TLS, H2, Kit, Wire, fetch

from hyperpool import errors, http_client
from hyperpool.http_client.faults import standard_error
from hyperpool.testing import Disconnect, Reply, ScriptedConnection, Silence, pattern
from proxy_kit import TunnelProxy
from stage import WAIT_S, eventually, in_time, nobody, stands_in


def raised(kind: type[BaseException], cause: type[BaseException], act: Any) -> Any:
    with pytest.raises(kind) as caught:
        act()
    assert isinstance(caught.value.__cause__, cause)
    return caught.value


def impatient(kit: Kit, server: Any, timeout_s: float = 0.05) -> Any:
    """A connection with little patience from now on; connecting may take its time on a busy machine."""
    connection = kit.connection(server)
    connection.connect()
    connection.sock.settimeout(timeout_s)
    return connection


@pytest.mark.parametrize("tls", [True, False])
def test_nobody_listens(kit: Kit, tls: bool) -> None:
    kind = http_client.HTTPSConnection if tls else http_client.HTTPConnection
    connection = kind("localhost", kit.enter(nobody()))
    error = raised(ConnectionRefusedError, errors.ConnectError, lambda: connection.request("GET", "/"))
    assert error.errno == errno.ECONNREFUSED


def test_no_such_name(kit: Kit) -> None:
    connection = http_client.HTTPConnection("no-such-host.invalid")
    raised(socket.gaierror, errors.NameResolutionError, connection.connect)


@pytest.mark.parametrize("host", ["a b.test", "a\r\n.test"])
def test_a_host_that_the_standard_library_refuses(host: str) -> None:
    with pytest.raises(http.client.InvalidURL):
        http_client.HTTPConnection(host)


@pytest.mark.parametrize("host", ["", "a/b", "a?b", "a#b", "x" * 64 + "é.test", "user@a.test", "a\\b", "[::1", "h%31"])
def test_a_host_that_is_none(kit: Kit, host: str) -> None:
    with pytest.raises(http.client.InvalidURL):
        http_client.HTTPConnection(host, 80).connect()


def test_a_certificate_that_is_not_trusted(kit: Kit) -> None:
    connection = kit.connection(kit.server(H2), context=ssl.create_default_context())
    error = raised(ssl.SSLCertVerificationError, errors.CertificateError, connection.connect)
    assert error.verify_code in (19, 20, 21)
    assert error.reason == "CERTIFICATE_VERIFY_FAILED"


def test_a_certificate_for_somebody_else(kit: Kit) -> None:
    server = kit.server(H2, certificate=None, authority=None, names=("other.test",))
    context = ssl.create_default_context(cadata=server.ca_pem.decode())
    connection = kit.connection(server, context=context)
    error = raised(ssl.SSLCertVerificationError, errors.CertificateError, lambda: fetch(connection))
    assert "other.test" in str(error) or "localhost" in str(error)


def test_a_server_that_speaks_no_tls(kit: Kit) -> None:
    server = kit.server(H1, errors_expected=True)
    connection = http_client.HTTPSConnection("localhost", server.port)
    raised(ssl.SSLError, errors.TlsError, connection.connect)


@pytest.mark.parametrize("through", ["straight", "tunnel"])
def test_a_server_that_leaves_within_the_handshake(kit: Kit, through: str) -> None:
    def script(conn: ScriptedConnection) -> None:
        conn.recv()
        conn.sock.shutdown(socket.SHUT_WR)
        conn.drain()  # to close over unread bytes would be a reset

    peer = kit.peer(script, tls=False)
    if through == "straight":
        connection = http_client.HTTPSConnection("localhost", peer.port, context=kit.context, timeout=WAIT_S)
    else:
        proxy = kit.enter(TunnelProxy())
        connection = http_client.HTTPSConnection("localhost", proxy.port, context=kit.context, timeout=WAIT_S)
        connection.set_tunnel("localhost", peer.port)
    error = raised(ssl.SSLEOFError, errors.TlsError, connection.connect)
    assert error.errno == ssl.SSL_ERROR_EOF


def test_a_server_that_leaves_without_an_answer(kit: Kit, wire: Wire) -> None:
    connection = kit.connection(kit.server(wire, lambda request: Disconnect()))
    connection.request("POST", "/", b"x")
    error = raised(http.client.RemoteDisconnected, errors.HyperpoolError, connection.getresponse)
    assert isinstance(error, ConnectionResetError)


def test_a_stream_that_is_reset_before_its_answer(kit: Kit) -> None:
    connection = kit.connection(kit.server(H2))
    connection.request("GET", "/fault/reset")
    raised(http.client.RemoteDisconnected, errors.StreamReset, connection.getresponse)
    assert fetch(connection, "/bytes/3") == pattern(3)


@pytest.mark.parametrize("octets", [b"garbage\r\n\r\n", b"SSH-2.0-x\r\n", b"<html>old</html>"])
def test_what_is_not_http_is_a_bad_status_line(kit: Kit, octets: bytes) -> None:
    """HTTP/0.9 among it."""

    def script(connection: Any) -> None:
        connection.recv()
        connection.send(octets)
        connection.recv()

    connection = kit.connection(kit.peer(script, tls=False))
    connection.request("GET", "/")
    raised(http.client.BadStatusLine, errors.RemoteProtocolError, connection.getresponse)


def test_more_headers_than_the_standard_library_takes(kit: Kit, wire: Wire) -> None:
    reply = Reply(headers=[(f"x-{number}", "y") for number in range(200)])
    connection = kit.connection(kit.server(wire, lambda request: reply))
    connection.request("GET", "/")
    with pytest.raises(http.client.HTTPException, match="100 headers"):
        connection.getresponse()


def test_a_response_that_does_not_come_in_time(kit: Kit, wire: Wire) -> None:
    connection = impatient(kit, kit.server(wire, lambda request: Silence()), 0.05)
    connection.request("GET", "/")
    error = raised(TimeoutError, errors.Timeout, connection.getresponse)
    assert isinstance(error, socket.timeout)
    assert str(error).startswith("timed out")


def test_a_body_that_pauses_for_too_long_times_out_and_stays_so(kit: Kit, wire: Wire) -> None:
    gate = kit.gate()

    def pieces() -> Any:
        yield bytes(10)
        gate.wait(WAIT_S)

    server = kit.server(wire, lambda request: Reply(body=pieces()))

    def begun() -> Any:
        connection = impatient(kit, server, 0.05)
        connection.request("GET", "/")
        return connection.getresponse()

    # On a busy machine the head may be late as well.
    response = in_time(begun)
    for _ in range(2):
        with pytest.raises(TimeoutError):
            response.read()


def test_a_timeout_hurts_nobody_else(kit: Kit) -> None:
    server = kit.server(H2)
    other = kit.connection(server)
    other.connect()
    connection = impatient(kit, server)
    connection.request("GET", "/fault/silence")
    with pytest.raises(TimeoutError):
        connection.getresponse()
    assert fetch(other, "/bytes/3") == pattern(3)
    assert server.connections_accepted == 1


def test_the_default_timeout_is_that_of_sockets(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    server = kit.server(H2)
    monkeypatch.setattr(socket, "getdefaulttimeout", lambda: 7.5)
    connection = kit.connection(server)
    connection.connect()
    assert connection.sock.gettimeout() == 7.5


def test_a_timeout_set_on_sock_counts_for_the_next_request(kit: Kit) -> None:
    connection = impatient(kit, kit.server(H2))
    connection.request("GET", "/fault/silence")
    with pytest.raises(TimeoutError):
        connection.getresponse()


def test_an_answer_to_half_a_request_is_waited_for_no_longer_than_the_timeout(kit: Kit, wire: Wire) -> None:
    connection = impatient(kit, kit.server(wire), 0.1)
    connection.putrequest("POST", "/echo")
    connection.putheader("Content-Length", "10")
    connection.endheaders()
    connection.send(b"half")
    with pytest.raises(TimeoutError):
        connection.getresponse()


def test_a_server_that_reads_nothing_is_not_waited_for_for_ever(kit: Kit, wire: Wire) -> None:
    connection = impatient(kit, kit.server(wire, lambda request: Silence()), 0.2)
    with pytest.raises(TimeoutError):
        connection.request("POST", "/", (bytes(65_536) for _ in range(10_000)))
        connection.getresponse()


def test_a_server_that_leaves_in_the_middle_of_an_upload(kit: Kit, wire: Wire) -> None:
    def handler(request: Any) -> Any:
        next(request.iter_body())
        return Disconnect()

    connection = kit.connection(kit.server(wire, handler, errors_expected=True))
    with pytest.raises(ConnectionError):
        connection.request("POST", "/", (bytes(65_536) for _ in range(10_000)))
        connection.getresponse()


def test_closing_while_another_thread_waits_wakes_it(kit: Kit) -> None:
    server = kit.server(H2)
    connection = kit.connection(server)
    connection.request("GET", "/fault/silence")
    seen: list[BaseException] = []

    def wait() -> None:
        try:
            connection.getresponse()
        except BaseException as error:
            seen.append(error)

    waiting = threading.Thread(target=wait)
    waiting.start()
    assert eventually(lambda: stands_in(waiting, "getresponse", "wait") and len(server.requests) == 1)
    connection.sock.shutdown(socket.SHUT_RDWR)
    waiting.join(WAIT_S)
    assert isinstance(seen[0], ConnectionError)


def test_shutting_down_ends_an_upload_that_waits_for_the_server(kit: Kit) -> None:
    server = kit.server(H2, lambda request: Silence(), initial_window_bytes=65_535)
    connection = kit.connection(server)
    connection.connect()
    server.pause_reading()

    def upload() -> Any:
        # More than all buffers on the way: the last of these waits until somebody makes an end.
        for _ in range(200):
            yield bytes(65_536)

    me = threading.current_thread()

    def shut() -> None:
        if eventually(lambda: stands_in(me, "feed", "wait")):
            connection.sock.shutdown(socket.SHUT_RDWR)

    shutting = threading.Thread(target=shut)
    shutting.start()
    with pytest.raises(ConnectionAbortedError):
        connection.request("POST", "/", upload())
    shutting.join()
    server.resume_reading()


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (b"HTTP/1.1 200 " + b"x" * 70_000, http.client.LineTooLong),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70_000, http.client.LineTooLong),
        (b"HTTP/2.0 200 OK", http.client.UnknownProtocol),
        (b"HTTP/1.1 abc OK", http.client.BadStatusLine),
        (b"HTTP 200 OK", http.client.BadStatusLine),
    ],
    ids=["status line", "header line", "version", "status", "no version"],
)
def test_a_head_that_cannot_be_read_has_the_standard_class(kit: Kit, head: bytes, kind: type[BaseException]) -> None:
    def script(conn: ScriptedConnection) -> None:
        conn.recv_until(b"\r\n\r\n")
        with suppress(OSError):
            conn.send(head + b"\r\n\r\n")
            conn.drain()

    connection = kit.connection(kit.peer(script, tls=False))
    connection.request("GET", "/")
    assert type(raised(kind, errors.RemoteProtocolError, connection.getresponse)) is kind


@pytest.mark.parametrize("timeout_s", [-1, float("nan")])
def test_a_timeout_that_is_none_is_a_value_error(kit: Kit, wire: Wire, timeout_s: float) -> None:
    server = kit.server(wire)
    with pytest.raises(ValueError, match="timeout"):
        kit.connection(server, timeout=timeout_s).connect()
    connection = kit.connection(server)
    connection.connect()
    with pytest.raises(ValueError, match="timeout"):
        connection.sock.settimeout(timeout_s)


def test_shutting_the_sending_side_is_no_news(kit: Kit) -> None:
    connection = kit.connection(kit.server(H2))
    connection.request("GET", "/bytes/3")
    connection.sock.shutdown(socket.SHUT_WR)
    assert connection.getresponse().read() == pattern(3)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (errors.PoolTimeout("x"), TimeoutError),
        (errors.ConnectTimeout("x"), TimeoutError),
        (errors.PoolClosed("x"), OSError),
        (errors.PoolFull("x"), OSError),
        (errors.ConnectError("x"), ConnectionError),
        (errors.TlsError("x"), ssl.SSLError),
        (errors.ProxyError("x"), OSError),
        (errors.ProxyError("x", status=407), OSError),
        (errors.InvalidURL("x"), http.client.InvalidURL),
        (errors.RemoteProtocolError("x"), http.client.BadStatusLine),
        (errors.NameResolutionError("x"), socket.gaierror),
        (KeyError("x"), KeyError),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else value.__name__,
)
def test_each_error_has_its_standard_class(error: BaseException, kind: type[BaseException]) -> None:
    assert isinstance(standard_error(error), kind)
    assert "x" in str(standard_error(error))


@pytest.mark.parametrize("wire", [H1_TLS, H2], ids=str)
def test_a_timeout_while_connecting(kit: Kit, wire: Wire) -> None:
    """The peer accepts, and never shakes hands."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        connection = http_client.HTTPSConnection("localhost", listener.getsockname()[1], timeout=0.1)
        raised(TimeoutError, errors.ConnectTimeout, connection.connect)
