"""Faults: those that a handler returns, and those that a test commands."""

from __future__ import annotations

import random
import threading

import h2.events
import httpx
import pytest
from kit_clients import TIMEOUT_S, H2Client

from hyperpool.testing import Disconnect, Refuse, Reply, Reset, Server, Silence, pattern

BOTH = pytest.mark.parametrize("http2", [True, False], ids=["http2", "http1"])


@pytest.mark.parametrize(("fault", "code"), [(Reset(11), 11), (Refuse(), 7)])
def test_a_fault_resets_its_stream_alone(fault: object, code: int) -> None:
    with Server(lambda request: fault) as server, H2Client(server) as peer:
        server.route("/good")(lambda request: "good")
        assert peer.wait_reset(peer.request("/")) == code
        assert peer.body(peer.request("/good")) == b"good"


@BOTH
@pytest.mark.parametrize("fault", [Disconnect(), Disconnect(rst=True)])
def test_a_disconnect_is_seen_and_is_no_error(client, fault: object, http2: bool) -> None:
    with Server(lambda request: fault) as server:
        with pytest.raises((httpx.RemoteProtocolError, httpx.NetworkError)):
            client(server, http2=http2).get(server.url())
        assert server.errors == []


@pytest.mark.parametrize("fault", [Reset(), Refuse()])
def test_http1_breaks_the_connection_instead_of_a_stream(client, fault: object) -> None:
    with Server(lambda request: fault) as server:
        with pytest.raises((httpx.RemoteProtocolError, httpx.NetworkError)):
            client(server, http2=False).get(server.url())


@pytest.mark.parametrize("n", [0, 1, 50_000])
@pytest.mark.parametrize("is_streamed", [True, False])
def test_a_fault_comes_after_so_many_bytes(n: int, is_streamed: bool) -> None:
    def handler(request):
        body = iter([pattern(100_000)]) if is_streamed else pattern(100_000)
        return Reply(body=body, fault_after_bytes=n, fault=Reset(2))

    with Server(handler) as server, H2Client(server) as peer:
        assert peer.wait_reset(peer.request("/")) == 2
        assert sum(len(e.data) for e in peer.events if isinstance(e, h2.events.DataReceived)) == n


def test_a_truncated_http1_body_keeps_what_was_sent(client) -> None:
    headers = {"content-length": "100"}
    with Server(lambda request: Reply(headers=headers, body=bytes(60), fault=Disconnect())) as server:
        received = 0
        with client(server, http2=False).stream("GET", server.url()) as response:
            # Over TLS Python 3.11.2, which is Debian's, has an error of its own for an end without close_notify.
            with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError), match="60 bytes|(?i:eof)"):
                for piece in response.iter_raw():
                    received += len(piece)
        assert received == 60


def test_silence_holds_one_stream_and_no_other() -> None:
    with Server(lambda request: Silence()) as server, H2Client(server) as peer:
        server.route("/good")(lambda request: "good")
        silent = peer.request("/")
        assert peer.body(peer.request("/good")) == b"good"
        assert all(getattr(event, "stream_id", 0) != silent for event in peer.events)


def test_goaway_lets_open_streams_finish_and_then_closes() -> None:
    release = threading.Event()
    with Server(lambda request: release.wait(TIMEOUT_S) and "done") as server, H2Client(server) as peer:
        first = peer.request("/")
        assert server.wait_until(lambda server: len(server.requests) == 1, TIMEOUT_S)
        server.goaway()
        event = peer.wait(h2.events.ConnectionTerminated)
        assert (event.error_code, event.last_stream_id) == (0, first)
        peer.h2.state_machine.state = type(peer.h2.state_machine.state).CLIENT_OPEN  # h2 takes GOAWAY for the end
        release.set()
        assert peer.body(first) == b"done"
        assert peer.read_to_end()


def test_goaway_drops_streams_beyond_its_last() -> None:
    release = threading.Event()
    with Server(lambda request: release.wait(TIMEOUT_S) and "done") as server, H2Client(server) as peer:
        first, second = peer.request("/"), peer.request("/")
        assert server.wait_until(lambda server: len(server.requests) == 2, TIMEOUT_S)
        server.goaway(last_stream_id=first)
        peer.wait(h2.events.ConnectionTerminated)
        peer.h2.state_machine.state = type(peer.h2.state_machine.state).CLIENT_OPEN
        release.set()
        assert peer.body(first) == b"done"
        assert peer.read_to_end()
        assert all(getattr(event, "stream_id", 0) != second for event in peer.events)


@pytest.mark.parametrize("rst", [True, False])
def test_dropped_connections_are_gone_when_the_call_returns(rst: bool) -> None:
    # In plaintext: over TLS CPython 3.11 reports a TCP RST as an end of file.
    with Server(tls=False) as server, H2Client(server) as peer:
        assert peer.body(peer.request("/bytes/3")) == pattern(3)
        server.drop_connections(rst=rst)
        assert server.connections_open == 0
        assert peer.read_to_end() is not rst


def test_a_paused_server_reads_nothing_and_goes_on_later() -> None:
    with Server() as server, H2Client(server) as peer:
        assert peer.body(peer.request("/bytes/3")) == pattern(3)
        server.pause_reading()
        stream_id = peer.request("/bytes/5")
        assert not server.wait_until(lambda server: len(server.requests) > 1, timeout_s=0.05)
        server.resume_reading()
        assert peer.body(stream_id) == pattern(5)


def test_limits_change_on_live_connections() -> None:
    with Server() as server, H2Client(server) as peer:
        assert peer.body(peer.request("/bytes/3")) == pattern(3)
        server.set_max_concurrent_streams(7)
        server.set_initial_window(1234)
        theirs = peer.h2.remote_settings
        while (theirs.max_concurrent_streams, theirs.initial_window_size) != (7, 1234):
            peer.receive()


def test_a_handler_that_does_not_read_holds_back_its_own_upload_alone() -> None:
    release = threading.Event()

    def handler(request):
        release.wait(TIMEOUT_S)
        return str(len(request.read()))

    with Server(handler, initial_window_bytes=20_000) as server, H2Client(server) as peer:
        server.route("/other")(lambda request: str(len(request.read())))
        peer.wait(h2.events.RemoteSettingsChanged)
        held = peer.request("/", method="POST", end_stream=False)
        peer.h2.send_data(held, bytes(16_000))
        peer.h2.send_data(held, bytes(4_000))
        peer.flush()
        assert peer.h2.local_flow_control_window(held) == 0
        other = peer.request("/other", method="POST", end_stream=False)
        peer.h2.send_data(other, bytes(10_000), end_stream=True)
        peer.flush()
        assert peer.body(other) == b"10000"
        assert peer.h2.local_flow_control_window(held) == 0
        release.set()
        while peer.h2.local_flow_control_window(held) == 0:
            peer.receive()
        peer.h2.send_data(held, b"", end_stream=True)
        peer.flush()
        assert peer.body(held) == b"20000"


def test_a_reply_respects_a_window_that_nobody_opens() -> None:
    with Server() as server, H2Client(server) as peer:
        peer.h2.acknowledge_received_data = lambda n, stream_id: None  # type: ignore[method-assign]
        big = peer.request("/bytes/1000000")
        while sum(len(e.data) for e in peer.events if isinstance(e, h2.events.DataReceived)) < 65_535:
            peer.receive()
        assert peer.status(peer.request("/status/204")) == "204"
        peer.h2.increment_flow_control_window(2_000_000)
        peer.h2.increment_flow_control_window(2_000_000, big)
        peer.flush()
        assert peer.body(big) == pattern(1_000_000)


@pytest.mark.parametrize("seed", range(3))
def test_resets_at_any_moment_are_no_error(seed: int) -> None:
    dice = random.Random(seed)
    paths = ["/bytes/100", "/bytes/200000", "/chunked/200000", "/echo", "/sha256", "/duplex", "/early/413", "/trailers"]
    with Server() as server:
        server.route("/made/")(lambda request: Reply(body=(bytes(1000) for _ in range(300))))
        with H2Client(server) as peer:
            for _ in range(150):
                stream_id = peer.request(dice.choice([*paths, "/made/"]), method="POST", end_stream=False)
                peer.h2.send_data(stream_id, bytes(dice.randrange(50)), end_stream=dice.random() < 0.3)
                peer.h2.reset_stream(stream_id, 8)
                if dice.random() < 0.5:
                    peer.flush()
            assert peer.body(peer.request("/bytes/300000")) == pattern(300_000)
        assert server.errors == []
