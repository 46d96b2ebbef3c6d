"""The server itself: handlers, lifetimes, protocols, and what it records."""

from __future__ import annotations

import gc
import os
import socket
import ssl
import subprocess
import sys
import threading

import h2.events
import httpx
import pytest
from kit_clients import TIMEOUT_S, H2Client, trusting

from hyperpool.testing import CertificateAuthority, PeerGone, Reply, Server, inline

BOTH = pytest.mark.parametrize("http2", [True, False], ids=["http2", "http1"])


@pytest.mark.parametrize(
    ("given", "status", "body"),
    [(b"b", 200, b"b"), ("é", 200, "é".encode()), (418, 418, b""), ((201, "made"), 201, b"made")],
)
def test_handlers_may_answer_in_short(client, given: object, status: int, body: bytes) -> None:
    with Server(lambda request: given) as server:
        response = client(server).get(server.url())
    assert (response.status_code, response.content) == (status, body)


@BOTH
def test_a_failing_handler_gives_500_and_is_recorded(client, http2: bool) -> None:
    def handler(request):
        raise ValueError("on purpose")

    with Server(handler) as server:
        assert client(server, http2=http2).get(server.url()).status_code == 500
        assert [str(error) for error in server.errors] == ["on purpose"]


@BOTH
def test_a_failing_body_resets_and_is_recorded(client, http2: bool) -> None:
    def body():
        yield b"x"
        raise ValueError("on purpose")

    with Server(lambda request: Reply(body=body())) as server:
        with pytest.raises((httpx.RemoteProtocolError, httpx.NetworkError)):
            client(server, http2=http2).get(server.url())
        assert [str(error) for error in server.errors] == ["on purpose"]


@pytest.mark.parametrize("http2", [True, False])
def test_header_values_are_latin_1_on_both_versions(http2: bool) -> None:
    with Server(lambda request: Reply(200, [("x-echo", request.header("x-name"))])) as server:
        context = trusting(server.ca_pem)
        with httpx.Client(verify=context, http2=http2, http1=not http2) as client:
            answer = client.get(server.url(), headers=[(b"x-name", "café".encode("latin-1"))])
    assert dict(answer.headers.raw)[b"x-echo"] == "café".encode("latin-1")


def test_the_longest_route_wins(client) -> None:
    with Server(lambda request: "rest") as server:
        server.route("/a")(lambda request: "a")
        server.route("/a/b")(inline(lambda request: "b"))
        get = client(server).get
        assert [get(server.url(path)).text for path in ("/", "/a/x", "/a/b/c")] == ["rest", "a", "b"]


def test_128_waiting_handlers_do_not_stop_another(client) -> None:
    release = threading.Event()

    def handler(request):
        assert release.wait(TIMEOUT_S)
        return "waited"

    with Server(handler, max_concurrent_streams=200) as server, H2Client(server) as peer:
        server.route("/quick")(lambda request: "quick")
        peer.wait(h2.events.RemoteSettingsChanged)
        waiting = [peer.request("/") for _ in range(128)]
        assert peer.body(peer.request("/quick")) == b"quick"
        release.set()
        assert {peer.body(stream_id) for stream_id in waiting} == {b"waited"}


def test_a_handler_answers_before_the_upload_and_reads_it_in_pieces() -> None:
    with Server(lambda request: Reply(body=request.iter_body())) as server, H2Client(server) as peer:
        stream_id = peer.request("/", method="POST", end_stream=False)
        assert peer.status(stream_id) == "200"
        peer.h2.send_data(stream_id, b"ping", end_stream=True)
        peer.flush()
        assert peer.body(stream_id) == b"ping"


def test_interim_responses_come_first() -> None:
    reply = Reply(body=b"x", interim=((103, {"Link": "</a>"}),))
    with Server(lambda request: reply) as server, H2Client(server) as peer:
        stream_id = peer.request("/")
        assert dict(peer.wait(h2.events.InformationalResponseReceived).headers)["link"] == "</a>"
        assert peer.status(stream_id) == "200"


@pytest.mark.parametrize("tls", [True, False])
def test_100_continue_is_sent_once_the_handler_wants_the_body(tls: bool) -> None:
    with Server(lambda request: request.read(), tls=tls, http2=False) as server:
        raw = socket.create_connection(("127.0.0.1", server.port), TIMEOUT_S)
        sock = trusting(server.ca_pem).wrap_socket(raw, server_hostname="localhost") if tls else raw
        with sock:
            sock.sendall(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\nexpect: 100-continue\r\n\r\n")
            assert sock.recv(1000).startswith(b"HTTP/1.1 100 ")
            sock.sendall(b"abc")
            answer = b""
            while not answer.endswith(b"abc"):
                answer += sock.recv(1000)


def test_http2_also_sends_100_continue() -> None:
    with Server(lambda request: request.read()) as server, H2Client(server) as peer:
        stream_id = peer.request("/", method="PUT", headers=[("expect", "100-continue")], end_stream=False)
        peer.wait(h2.events.InformationalResponseReceived)
        peer.h2.send_data(stream_id, b"abc", end_stream=True)
        peer.flush()
        assert peer.body(stream_id) == b"abc"


def test_an_early_413_stops_the_http2_upload_with_no_error(hyperpool_server: Server) -> None:
    with H2Client(hyperpool_server) as peer:
        stream_id = peer.request("/early/413", method="POST", end_stream=False)
        assert peer.body(stream_id) == b"enough\n"
        assert peer.wait_reset(stream_id) == 0
        assert peer.body(peer.request("/status/200")) == b"status 200\n"


def test_an_early_413_reaches_an_http1_client_that_is_still_sending(hyperpool_server: Server) -> None:
    raw = socket.create_connection(("127.0.0.1", hyperpool_server.port), TIMEOUT_S)
    with trusting(hyperpool_server.ca_pem).wrap_socket(raw, server_hostname="localhost") as sock:
        sock.sendall(b"POST /early/413 HTTP/1.1\r\nhost: a\r\ncontent-length: 1000000\r\n\r\n" + bytes(100_000))
        answer = b"".join(iter(lambda: sock.recv(1000), b""))
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"connection: close" in answer


def test_pipelined_requests_are_answered_in_order() -> None:
    with Server(lambda request: request.path + "\n", tls=False) as server:
        with socket.create_connection(("127.0.0.1", server.port), TIMEOUT_S) as sock:
            sock.sendall(b"".join(b"GET /%d HTTP/1.1\r\nhost: a\r\n\r\n" % number for number in range(5)))
            answer = b""
            while answer.count(b"HTTP/1.1 200") < 5 or not answer.endswith(b"/4\n"):
                answer += sock.recv(1000)
        assert [seen.target for seen in server.requests] == ["/0", "/1", "/2", "/3", "/4"]


def test_plaintext_knows_http2_by_its_preface(client) -> None:
    with Server(lambda request: request.http_version, tls=False) as server:
        assert client(server, http1=False).get(server.url()).text == "2"
        assert client(server, http2=False).get(server.url()).text == "1.1"


@pytest.mark.parametrize(("http1", "http2", "spoken"), [(True, False, "HTTP/1.1"), (False, True, "HTTP/2")])
def test_a_protocol_can_be_switched_off(client, http1: bool, http2: bool, spoken: str) -> None:
    with Server(http1=http1, http2=http2) as server:
        assert client(server).get(server.url()).http_version == spoken


def test_a_client_that_does_not_trust_is_recorded_apart() -> None:
    with Server() as server:
        with pytest.raises(httpx.ConnectError):
            httpx.get(server.url(), verify=trusting(CertificateAuthority().ca_pem), trust_env=False)
        assert server.wait_until(lambda server: server.connections_open == 0, TIMEOUT_S)
        assert (len(server.handshake_errors), server.errors, server.requests) == (1, [], [])


def test_client_certificates_can_be_demanded() -> None:
    authority = CertificateAuthority()
    with Server(authority=authority, client_ca_pem=authority.ca_pem) as server:
        with pytest.raises((httpx.NetworkError, httpx.RemoteProtocolError)):
            httpx.get(server.url(), verify=trusting(server.ca_pem), trust_env=False)
        assert server.wait_until(lambda server: len(server.handshake_errors) == 1, TIMEOUT_S)


def test_broken_http2_is_recorded_as_an_error() -> None:
    with Server(tls=False) as server, H2Client(server) as peer:
        peer.sock.sendall(b"\x00\x00\x00\x01\x05\x00\x00\x00\x00")  # HEADERS on stream 0
        assert peer.read_to_end()
        assert server.wait_until(lambda server: len(server.errors) == 1, TIMEOUT_S)


def test_more_streams_than_granted_are_recorded_as_an_error() -> None:
    with Server(lambda request: request.wait_gone(TIMEOUT_S), max_concurrent_streams=1) as server:
        with H2Client(server) as peer:
            peer.wait(h2.events.RemoteSettingsChanged)
            peer.h2.remote_settings.max_concurrent_streams = 10
            peer.h2.remote_settings.acknowledge()
            peer.request("/")
            peer.request("/")
            assert server.wait_until(lambda server: bool(server.errors), TIMEOUT_S)
            assert "streams" in str(server.errors[0]).lower()


def test_a_client_reset_frees_the_handler_and_is_recorded() -> None:
    freed = threading.Event()

    def handler(request):
        try:
            request.read()
        except PeerGone:
            freed.set()
            raise

    with Server(handler) as server, H2Client(server) as peer:
        stream_id = peer.request("/", method="POST", end_stream=False)
        assert server.wait_until(lambda server: len(server.requests) == 1, TIMEOUT_S)
        peer.h2.reset_stream(stream_id, 8)
        peer.flush()
        assert freed.wait(TIMEOUT_S)
        assert (server.requests[0].reset_code, server.errors) == (8, [])


def open_files() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="counts descriptors in /proc")
def test_close_leaves_no_thread_and_no_socket(in_thread) -> None:
    gc.collect()  # else what another test has left to it may be closed, and its numbers given away, in between
    threads, files = set(threading.enumerate()), open_files()
    with Server() as server:
        with H2Client(server) as peer, H2Client(server) as other:
            peer.request("/delay/100")
            other.request("/sha256", method="POST", end_stream=False)
            other.request("/chunked/100000000")
            socket.create_connection(("127.0.0.1", server.port), TIMEOUT_S).close()
            with socket.create_connection(("127.0.0.1", server.port), TIMEOUT_S):
                assert server.wait_until(
                    lambda server: len(server.requests) == 3 and server.connections_accepted == 4, TIMEOUT_S
                )
                server.close()
        server.close()
    # What another test has left may end meanwhile.
    assert set(threading.enumerate()) <= threads and open_files() <= files
    assert server.connections_open == 0
    assert server.errors == []


def test_importing_the_kit_does_not_import_pytest() -> None:
    code = "import sys, hyperpool.testing; sys.exit('pytest' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    assert subprocess.run([sys.executable, "-c", code], env=environment, timeout=2 * TIMEOUT_S).returncode == 0


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ({"expired": True}, "expired"),
        ({"not_yet_valid": True}, "not yet valid"),
        ({"self_signed": True}, "self-signed|self signed"),
        ({"eku": ("client",)}, "purpose"),
    ],
)
def test_bad_certificates_are_refused_for_their_reason(fault: dict[str, object], reason: str) -> None:
    authority = CertificateAuthority()
    with Server(authority=authority, certificate=authority.issue("localhost", **fault)) as server:
        with pytest.raises(ssl.SSLCertVerificationError, match=reason):
            H2Client(server)


def test_ip_addresses_are_named_in_the_certificate(client) -> None:
    with Server() as server:
        assert client(server).get(f"https://127.0.0.1:{server.port}/").status_code == 200
