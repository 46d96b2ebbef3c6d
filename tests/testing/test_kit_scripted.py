"""The scripted peer: single frames, single bytes, and proof of what was not written."""

from __future__ import annotations

import select
import socket
import ssl

import httpx
import pytest
from hyperframe.frame import HeadersFrame, PingFrame, SettingsFrame
from kit_clients import TIMEOUT_S, trusting

from hyperpool.testing import CertificateAuthority, ScriptedConnection, ScriptedPeer
from stage import eventually


def test_a_script_answers_an_http2_client(client) -> None:
    seen: list[tuple[str, str]] = []

    def script(conn: ScriptedConnection) -> None:
        conn.greet(MAX_CONCURRENT_STREAMS=5)
        request = conn.wait_frame(HeadersFrame)
        seen.extend(conn.decode(request))
        conn.headers(request.stream_id, [(":status", "200"), ("x-a", "b")])
        conn.data(request.stream_id, b"hello", end_stream=True)
        conn.drain()

    with ScriptedPeer(script) as peer:
        assert client(peer).get(peer.url("/x")).text == "hello"
    assert (":path", "/x") in seen
    assert (peer.errors, peer.connections_accepted) == ([], 1)


def test_a_script_can_reset_and_go_away(client) -> None:
    def script(conn: ScriptedConnection) -> None:
        conn.greet()
        request = conn.wait_frame(HeadersFrame)
        conn.ping()
        assert "ACK" in conn.wait_frame(PingFrame).flags
        conn.window_update(0, 1000)
        conn.rst(request.stream_id, 11)
        conn.goaway(request.stream_id, 11, b"calm down")
        conn.drain()

    with ScriptedPeer(script) as peer:
        with pytest.raises(httpx.RemoteProtocolError):
            client(peer).get(peer.url())
    assert peer.errors == []


def test_a_script_speaks_http1_in_plaintext(client) -> None:
    def script(conn: ScriptedConnection) -> None:
        assert conn.recv_until(b"\r\n\r\n").startswith(b"GET / HTTP/1.1\r\n")
        conn.send(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        conn.close()

    with ScriptedPeer(script, tls=False) as peer:
        assert client(peer).get(peer.url()).text == "ok"
    assert peer.errors == []


def test_what_a_client_wrote_is_counted_after_tls() -> None:
    with ScriptedPeer(lambda conn: conn.drain() and None, alpn=()) as peer:
        raw = socket.create_connection(("127.0.0.1", peer.port), TIMEOUT_S)
        with trusting(peer.ca_pem).wrap_socket(raw, server_hostname="localhost") as sock:
            sock.sendall(b"12345")
        assert peer.wait_done(timeout_s=TIMEOUT_S)
        assert peer.received == 5


def test_what_arrived_before_a_connection_was_shut_is_still_read_as_text() -> None:
    text: list[bytes] = []

    def script(conn: ScriptedConnection) -> None:
        text.append(conn.recv(1))
        was_shut = select.poll()
        was_shut.register(conn.sock, 0)  # POLLHUP is always told
        was_shut.poll(TIMEOUT_S * 1000)
        text.append(conn.recv())

    with ScriptedPeer(script, alpn=()) as peer:
        raw = socket.create_connection(("127.0.0.1", peer.port), TIMEOUT_S)
        with trusting(peer.ca_pem).wrap_socket(raw, server_hostname="localhost") as sock:
            sock.sendall(b"1")
            sock.sendall(b"2")
            assert eventually(lambda: text == [b"1"] and has_arrived(peer.connections[0].sock))
            peer.close()
    assert (text, peer.errors) == ([b"1", b"2"], [])


def has_arrived(sock: socket.socket) -> bool:
    return bool(select.select([sock], [], [], 0)[0])


def test_a_refused_certificate_leaves_nothing_received() -> None:
    with ScriptedPeer(lambda conn: conn.drain() and None) as peer:
        with pytest.raises(httpx.ConnectError):
            httpx.get(peer.url(), verify=trusting(CertificateAuthority().ca_pem), trust_env=False)
        assert peer.wait_done(timeout_s=TIMEOUT_S)
        assert (peer.received, len(peer.handshake_errors)) == (0, 1)


@pytest.mark.parametrize("ending", ["close", "cut"])
def test_only_a_polite_ending_sends_close_notify(ending: str) -> None:
    with ScriptedPeer(lambda conn: getattr(conn, ending)(), alpn=()) as peer:
        raw = socket.create_connection(("127.0.0.1", peer.port), TIMEOUT_S)
        context = trusting(peer.ca_pem)
        with context.wrap_socket(raw, server_hostname="localhost", suppress_ragged_eofs=False) as sock:
            if ending == "close":
                assert sock.recv(1) == b""
            else:
                with pytest.raises(ssl.SSLError, match="(?i)eof"):  # an SSLEOFError, but on Python 3.11.2
                    sock.recv(1)
    assert peer.errors == []


def test_an_abort_is_a_tcp_reset() -> None:
    # In plaintext: over TLS CPython 3.11 reports a TCP RST as an end of file.
    with ScriptedPeer(lambda conn: conn.recv() and conn.abort(), tls=False) as peer:
        with socket.create_connection(("127.0.0.1", peer.port), TIMEOUT_S) as sock:
            sock.sendall(b"now")
            with pytest.raises(ConnectionResetError):
                sock.recv(1)


def test_a_script_that_waits_for_nothing_fails_instead_of_hanging() -> None:
    with ScriptedPeer(lambda conn: conn.recv() and None, tls=False, timeout_s=0.05) as peer:
        with socket.create_connection(("127.0.0.1", peer.port), TIMEOUT_S):
            assert peer.wait_done(timeout_s=TIMEOUT_S)
    assert isinstance(peer.errors[0], TimeoutError)


def test_close_ends_scripts_and_handshakes_that_wait() -> None:
    with ScriptedPeer(lambda conn: conn.wait_frame(SettingsFrame) and None) as peer:
        with socket.create_connection(("127.0.0.1", peer.port), TIMEOUT_S):
            peer.close()
    assert peer.errors == []
