"""The receive side of flow control: credit is conserved (L7), and a slow reader stops nobody but itself (L8)."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from engine_bench import Bench, Call, H2Peer, check_ledgers

from hyperpool.engine.http2 import Http2Connection
from hyperpool.errors import RemoteProtocolError

MakeBench = Callable[..., Bench]
STREAM_BYTES = 100_000
CONNECTION_BYTES = 300_000


@pytest.fixture
def narrow(make_bench: MakeBench) -> Bench:
    """Windows that small bodies can fill."""
    return make_bench(stream_window_bytes=STREAM_BYTES, connection_window_bytes=CONNECTION_BYTES)


def http2(bench: Bench) -> Http2Connection:
    (connection,) = bench.connections
    assert isinstance(connection, Http2Connection)
    return connection


def open_stream(bench: Bench, peer: H2Peer, *, stream: bool = True) -> Call:
    call = bench.submit(stream=stream)
    bench.run()
    peer.head(call.stream_id)
    bench.run()
    return call


def assert_conserved(bench: Bench, peer: H2Peer) -> None:
    """L7, told from the peer's end: what it may send, and what is on its way back to it, is what was granted."""
    connection = http2(bench)
    check_ledgers(connection)
    ledger = connection._windows.ledger
    assert peer.connection_credit + ledger.uncredited + ledger.buffered == ledger.granted
    for stream_id, stream in connection._streams.open.items():
        assert peer.stream_credit[stream_id] == stream.ledger.left


def test_the_windows_that_the_peer_sees_are_those_of_the_limits(narrow: Bench) -> None:
    peer = narrow.open_h2()
    open_stream(narrow, peer)
    assert (peer.connection_credit, peer.stream_credit[1]) == (CONNECTION_BYTES, STREAM_BYTES)


def test_an_unread_stream_stops_at_its_window_while_32_others_finish(make_bench: MakeBench) -> None:
    bench = make_bench()
    peer = bench.open_h2()
    unread = open_stream(bench, peer)
    sent = 0
    others = bench.submit_many(32)
    bench.run()
    for stream_id in peer.open_ids[1:]:
        sent += peer.fill_window(unread.stream_id)
        peer.respond(stream_id, body=bytes(100_000))
        bench.run()
    assert sent == unread.exchange.unread_bytes == 1 << 20
    assert all(len(call.response.content) == 100_000 for call in others)
    assert_conserved(bench, peer)


def test_unread_streams_do_not_use_up_the_connections_window(narrow: Bench) -> None:
    # L8: connection credit on receipt. Ten unread windows are more than three times what the connection grants.
    peer = narrow.open_h2()
    calls = [open_stream(narrow, peer) for _ in range(10)]
    for call in calls:
        assert peer.fill_window(call.stream_id) == STREAM_BYTES
        narrow.run()
    assert [call.exchange.unread_bytes for call in calls] == [STREAM_BYTES] * 10
    assert_conserved(narrow, peer)


def test_stream_credit_comes_with_reading(narrow: Bench) -> None:
    peer = narrow.open_h2()
    call = open_stream(narrow, peer)
    peer.fill_window(1)
    narrow.run()
    assert peer.stream_credit[1] == 0
    assert len(call.read()) == STREAM_BYTES
    narrow.run()
    assert peer.stream_credit[1] >= STREAM_BYTES / 2
    assert_conserved(narrow, peer)


def test_a_reader_that_keeps_up_receives_a_body_of_many_windows(narrow: Bench) -> None:
    peer = narrow.open_h2()
    call = open_stream(narrow, peer)
    received = 0
    for _ in range(50):
        peer.fill_window(1)
        narrow.run()
        received += len(call.read())
        narrow.run()
        assert_conserved(narrow, peer)
    assert received > 10 * STREAM_BYTES


def test_a_body_that_is_collected_needs_no_reader(narrow: Bench) -> None:
    peer = narrow.open_h2()
    call = open_stream(narrow, peer, stream=False)
    sent = sum((peer.fill_window(1), narrow.run())[0] for _ in range(50))
    peer.data(1, b"end", end=True)
    narrow.run()
    assert len(call.response.content) == sent + 3 > 10 * STREAM_BYTES
    assert_conserved(narrow, peer)


@pytest.mark.parametrize("stream", [False, True])
def test_padding_is_given_back_though_nobody_reads_it(narrow: Bench, stream: bool) -> None:
    # RFC 9113 6.1: padding counts. 1,300 frames of it are more than either window.
    peer = narrow.open_h2()
    call = open_stream(narrow, peer, stream=stream)
    for _ in range(1300):
        assert peer.stream_credit[1] > 300 and peer.connection_credit > 300
        peer.data(1, b"x", pad_bytes=255)
        narrow.run()
    if stream:
        assert call.read() == b"x" * 1300
        narrow.run()
    assert_conserved(narrow, peer)


def half_received(bench: Bench, peer: H2Peer, *, stream: bool = False) -> Call:
    call = open_stream(bench, peer, stream=stream)
    peer.data(call.stream_id, bytes(40_000))
    bench.run()
    return call


def cancelled(bench: Bench, peer: H2Peer) -> None:
    half_received(bench, peer).future.cancel()
    bench.run()


def cancelled_with_bytes_in_flight(bench: Bench, peer: H2Peer) -> None:
    call = half_received(bench, peer)
    call.future.cancel()
    bench.step()
    peer.data(call.stream_id, bytes(30_000), pad_bytes=9)
    bench.run()


def closed_unread(bench: Bench, peer: H2Peer) -> None:
    half_received(bench, peer, stream=True).response.close()
    bench.run()


def closed_half_read(bench: Bench, peer: H2Peer) -> None:
    call = half_received(bench, peer, stream=True)
    call.response.read(10_000)
    call.response.close()
    bench.run()


def reset_by_the_peer(bench: Bench, peer: H2Peer) -> None:
    call = half_received(bench, peer)
    peer.refuse(call.stream_id, 2)
    bench.run()


def ended_unread(bench: Bench, peer: H2Peer) -> None:
    call = half_received(bench, peer, stream=True)
    peer.data(call.stream_id, b"end", end=True)
    bench.run()


def broken_by_an_early_end(bench: Bench, peer: H2Peer) -> None:
    call = bench.submit(content=bytes(200_000))
    bench.run()
    peer.respond(call.stream_id, 413, body=bytes(20_000))
    bench.run()


def broken_by_too_long_a_body(bench: Bench, peer: H2Peer) -> None:
    call = open_stream(bench, peer)
    other = bench.submit()
    bench.run()
    peer.head(other.stream_id, fields=[("content-length", "30000")])
    peer.data(other.stream_id, bytes(31_000), pad_bytes=9)
    peer.data(other.stream_id, bytes(1_000), pad_bytes=9)
    peer.data(call.stream_id, b"good", end=True)
    bench.run()
    assert isinstance(other.error, RemoteProtocolError) and call.read() == b"good"


def broken_by_too_short_a_body(bench: Bench, peer: H2Peer) -> None:
    call = bench.submit()
    bench.run()
    peer.head(call.stream_id, fields=[("content-length", "30000")])
    peer.data(call.stream_id, bytes(20_000), pad_bytes=9, end=True)
    bench.run()
    assert isinstance(call.error, RemoteProtocolError) and "20,000 of the 30,000" in str(call.error)


@pytest.mark.parametrize(
    "scenario",
    [
        broken_by_too_long_a_body,
        broken_by_too_short_a_body,
        cancelled,
        cancelled_with_bytes_in_flight,
        closed_unread,
        closed_half_read,
        reset_by_the_peer,
        ended_unread,
        broken_by_an_early_end,
    ],
)
def test_no_credit_is_lost_when_a_stream_ends_early(narrow: Bench, scenario: Callable[[Bench, H2Peer], None]) -> None:
    peer = narrow.open_h2()
    for _ in range(30):  # together more than the connection's window: a leak of each would shut it
        scenario(narrow, peer)
        assert_conserved(narrow, peer)
    call = narrow.submit()
    narrow.run()
    assert peer.connection_credit > STREAM_BYTES
    peer.respond(call.stream_id, body=bytes(50_000))
    narrow.run()
    assert len(call.response.content) == 50_000


def test_credit_for_a_stream_that_has_ended_is_not_sent(narrow: Bench) -> None:
    peer = narrow.open_h2()
    call = open_stream(narrow, peer)
    peer.data(1, bytes(90_000), end=True)
    narrow.run()
    assert len(call.read()) == 90_000
    narrow.run()
    assert peer.stream_credit[1] == STREAM_BYTES - 90_000 and len(narrow.connections) == 1


def test_a_peer_that_overruns_a_window_is_told_so_and_left(narrow: Bench) -> None:
    # RELIABILITY F13
    peer = narrow.open_h2()
    call = open_stream(narrow, peer)
    peer.data(1, bytes(STREAM_BYTES + 1))
    narrow.run()
    assert peer.goaway is not None and peer.goaway.error_code == 3
    with pytest.raises(RemoteProtocolError):
        call.response.read()


# -- windows that grow -------------------------------------------------------------------------------------------------

ROUND_TRIP_S = 0.05


def widths(bench: Bench, peer: H2Peer, call: Call, *, after_s: float) -> list[int]:
    """How wide the window is after each of some times in which the peer sends all it may, and a reader takes it."""
    found = []
    for _ in range(5):
        sent = peer.fill_window(call.stream_id)
        bench.advance(after_s)
        assert len(call.read()) == sent
        bench.run()
        assert_conserved(bench, peer)
        found.append(http2(bench)._streams.open[call.stream_id].ledger.window_bytes)
    return found


def distant(bench: Bench) -> H2Peer:
    peer = bench.open_h2()
    http2(bench)._windows.round_trip_s = ROUND_TRIP_S
    return peer


def test_the_round_trip_is_measured_with_our_settings(bench: Bench) -> None:
    bench.submit()
    bench.run()
    peer = bench.connect_h2(greet=False)
    bench.run()
    bench.advance(ROUND_TRIP_S)
    peer.greet()
    bench.run()
    assert http2(bench)._windows.round_trip_s == pytest.approx(ROUND_TRIP_S)


def test_a_window_that_holds_a_keen_reader_back_grows_up_to_its_bound(make_bench: MakeBench) -> None:
    bench = make_bench(stream_window_bytes=STREAM_BYTES, max_stream_window_bytes=1_000_000)
    peer = distant(bench)
    call = open_stream(bench, peer)
    found = widths(bench, peer, call, after_s=ROUND_TRIP_S)
    assert (found[0], found[-1], found) == (4 * STREAM_BYTES, 1_000_000, sorted(found))


def test_a_window_whose_half_comes_in_a_moment_grows_at_once_to_what_round_trips_carry(make_bench: MakeBench) -> None:
    """Three round trips at the pace of the first half, where four windows are less than that."""
    bench = make_bench(stream_window_bytes=STREAM_BYTES, max_stream_window_bytes=100 * STREAM_BYTES)
    peer = distant(bench)
    call = open_stream(bench, peer)
    peer.data(call.stream_id, bytes(STREAM_BYTES // 2))
    bench.advance(ROUND_TRIP_S / 10)
    assert len(call.read()) == STREAM_BYTES // 2
    bench.run()
    widened = http2(bench)._streams.open[call.stream_id].ledger.window_bytes
    assert widened == pytest.approx(3 * 10 * STREAM_BYTES // 2, rel=0.01)
    assert_conserved(bench, peer)


def test_a_window_that_holds_nobody_back_stays(make_bench: MakeBench) -> None:
    bench = make_bench(stream_window_bytes=STREAM_BYTES)
    peer = distant(bench)
    call = open_stream(bench, peer)
    assert set(widths(bench, peer, call, after_s=3 * ROUND_TRIP_S)) == {STREAM_BYTES}


def test_a_window_does_not_grow_before_a_round_trip_is_known(make_bench: MakeBench) -> None:
    bench = make_bench(stream_window_bytes=STREAM_BYTES)
    peer = bench.open_h2()
    call = open_stream(bench, peer)
    assert set(widths(bench, peer, call, after_s=0.001)) == {STREAM_BYTES}


def test_a_window_that_nobody_reads_from_stays(make_bench: MakeBench) -> None:
    bench = make_bench(stream_window_bytes=STREAM_BYTES)
    peer = distant(bench)
    call = open_stream(bench, peer)
    sent = peer.fill_window(call.stream_id)
    bench.advance(ROUND_TRIP_S)
    assert (sent, peer.stream_credit[call.stream_id]) == (STREAM_BYTES, 0)
