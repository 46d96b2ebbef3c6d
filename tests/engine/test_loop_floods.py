"""A server that sends what costs it nothing and us something (RFC 9113 10.5): ended early, in bounded memory."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from engine_bench import ENHANCE_YOUR_CALM, Bench, H2Peer, HandFed
from hyperframe.frame import PingFrame, SettingsFrame, WindowUpdateFrame

from hyperpool.engine.answers import MAX_UNREAD, UnreadAnswers
from hyperpool.engine.dials import REDIAL_AFTER_S
from hyperpool.engine.http2 import REST_S
from hyperpool.errors import ConnectionLost, RemoteProtocolError
from hyperpool.handoff import messages
from hyperpool.protocol.frame_guard import UNASKED_AT_A_TIME
from hyperpool.values import Timeout

MakeBench = Callable[..., Bench]
PING = PingFrame(0, opaque_data=bytes(8)).serialize()
SETTINGS = SettingsFrame(0).serialize()
# PINGs that one request allows (`frame_guard`).
EARNED = 10


@pytest.mark.parametrize("frame", [PING, SETTINGS], ids=["PING", "SETTINGS"])
def test_a_flood_ends_every_exchange_with_the_name_of_the_flood(bench: Bench, frame: bytes) -> None:
    peer = bench.open_h2()
    calls = bench.submit_many(3)
    bench.run()
    peer.send(frame * 20_000)
    bench.run()
    assert all(type(call.error) is RemoteProtocolError for call in calls)
    assert all("floods this connection" in str(call.error) for call in calls)
    assert peer.goaway is None or peer.goaway.error_code == ENHANCE_YOUR_CALM
    assert not bench.connections


def test_the_next_request_goes_out_on_a_connection_of_its_own(bench: Bench) -> None:
    peer = bench.open_h2(MAX_CONCURRENT_STREAMS=1)
    bench.submit("/flooded")
    next_one = bench.submit("/next")
    bench.run()
    peer.send(PING * 20_000)
    bench.run()
    bench.advance(REDIAL_AFTER_S)
    second = bench.connect_h2()
    second.answers = True
    bench.run()
    assert next_one.response.content == b"/next"


def test_a_server_that_behaves_goes_on_after_a_burst(bench: Bench) -> None:
    peer, call = bench.open_h2(), bench.submit()
    bench.run()
    peer.send(PING * 900)
    bench.run()
    peer.respond(1, body=b"here")
    bench.run()
    assert call.response.content == b"here"


def test_time_gives_a_server_new_budget(bench: Bench) -> None:
    peer, call = bench.open_h2(), bench.submit()
    bench.run()
    for _ in range(30):
        peer.send(PING * 90)
        bench.advance(1.0)
    peer.respond(1, body=b"here")
    bench.run()
    assert call.response.content == b"here"


def test_answers_do_not_pile_up_for_a_server_that_reads_none(bench: Bench) -> None:
    """At an honest pace, so that no budget ends it."""
    peer, call = bench.open_h2(), bench.submit()
    bench.run()
    peer.deaf = True
    backlog_bytes = 0
    for _ in range(1_000):
        if call.done:
            break
        peer.send(PING * 90)
        bench.advance(1.0)
        backlog_bytes = max([backlog_bytes, *(one.transport.backlog_bytes for one in bench.connections)])
    assert "whose answers it never reads" in str(call.error)
    assert 0 < backlog_bytes <= (MAX_UNREAD + 100) * len(PING)


def test_an_upload_that_fills_the_wire_is_not_taken_for_answers_that_nobody_reads(bench: Bench) -> None:
    """Such a server measures its bandwidth, and there is always something in the backlog."""
    peer, body = bench.open_h2(), HandFed()
    call = bench.submit(source=body)
    bench.run()
    peer.send(WindowUpdateFrame(0, window_increment=1 << 30).serialize())
    peer.send(WindowUpdateFrame(1, window_increment=1 << 30).serialize())
    for _ in range(40):
        body.pipe.feed(bytes(200_000))
        peer.send(PING * 120)
        bench.advance(1.0)
    body.pipe.finish()
    bench.run()
    peer.respond(1, body=b"here")
    bench.run()
    assert (call.response.content, len(peer.seen[1].body)) == (b"here", 8_000_000)


class TestTheRest:
    """A flood is dealt with a little at a time: others of the process run meanwhile."""

    def test_a_turn_takes_a_little_of_it_and_the_next_turns_nothing(self, bench: Bench) -> None:
        peer = self._flooded(bench, PING * 900)
        self._turn_without_time(bench, peer)
        assert self._answers(peer) == UNASKED_AT_A_TIME + EARNED

    def test_after_the_rest_comes_as_much_again(self, bench: Bench) -> None:
        peer = self._flooded(bench, PING * 900)
        self._turn_without_time(bench, peer)
        bench.clock.now += REST_S
        self._turn_without_time(bench, peer)
        assert self._answers(peer) == 2 * UNASKED_AT_A_TIME + EARNED

    def test_nothing_more_is_read_meanwhile(self, bench: Bench) -> None:
        peer = self._flooded(bench, PING * 900)
        self._turn_without_time(bench, peer)
        (connection,) = bench.connections
        assert not connection.wants_read
        bench.run()
        assert connection.wants_read

    def test_what_is_asked_for_meanwhile_goes_out(self, bench: Bench) -> None:
        peer = self._flooded(bench, PING * 900)
        self._turn_without_time(bench, peer)
        bench.submit("/meanwhile")
        self._turn_without_time(bench, peer)
        assert "/meanwhile" in peer.paths

    def test_a_response_behind_it_arrives_although_the_server_has_gone(self, bench: Bench) -> None:
        """The end is there before what came before it has been heard."""
        peer, call = bench.open_h2(), bench.submit()
        bench.run()
        peer.send(PING * 900)
        peer.respond(1, body=b"here")
        peer.flush()
        peer.close()
        bench.run()
        assert call.response.content == b"here"
        assert not bench.connections

    def test_a_response_that_is_not_behind_it_does_not(self, bench: Bench) -> None:
        peer, call = bench.open_h2(), bench.submit()
        bench.run()
        peer.send(PING * 900)
        peer.flush()
        peer.close()
        bench.run()
        assert type(call.error) is ConnectionLost

    def test_a_stream_behind_it_is_read_on(self, bench: Bench) -> None:
        """Its reader is told, although no read has brought it."""
        peer, call = bench.open_h2(), bench.submit(stream=True)
        bench.run()
        peer.head(1)
        bench.run()
        peer.send(PING * 900)
        peer.data(1, b"here", end=True)
        bench.run()
        assert call.read() == b"here"

    def test_answers_to_many_requests_are_no_flood(self, bench: Bench) -> None:
        """Heads and ends of as many streams as there are, in one turn."""
        peer = bench.open_h2()
        calls = bench.submit_many(100)
        bench.run()
        for stream_id in peer.open_ids:
            peer.respond(stream_id, body=b"here")
        self._turn_without_time(bench, peer)
        assert all(call.done for call in calls)

    def _flooded(self, bench: Bench, frames: bytes) -> H2Peer:
        peer = bench.open_h2()
        bench.submit()
        bench.run()
        peer.send(frames)
        return peer

    def _turn_without_time(self, bench: Bench, peer: H2Peer) -> None:
        for _ in range(100):
            peer.carry()
            if bench.is_due:
                bench.step()
        peer.carry()

    def _answers(self, peer: H2Peer) -> int:
        return sum("ACK" in frame.flags for frame in peer.heard(PingFrame))


class TestAfterAFlood:
    """A server that floods one connection could flood the next one: it is left alone for a while (RELIABILITY A8)."""

    def test_the_next_connection_is_not_opened_at_once(self, bench: Bench) -> None:
        self._flood(bench)
        call = bench.submit("/next")
        bench.run()
        assert not bench.dialer.pending
        bench.advance(REDIAL_AFTER_S)
        bench.connect_h2().answers = True
        bench.run()
        assert call.response.content == b"/next"

    def test_the_loop_remembers_it_so_long_and_no_longer(self, bench: Bench) -> None:
        self._flood(bench)
        bench.advance(REDIAL_AFTER_S / 2)
        assert not bench.ended
        bench.advance(REDIAL_AFTER_S / 2)
        assert bench.ended

    def test_a_pool_that_is_closed_does_not_wait_for_that(self, bench: Bench) -> None:
        self._flood(bench)
        bench.put(messages.Close(bench.clock.now + 30))
        bench.run()
        assert bench.ended

    def test_who_has_less_patience_is_told_why(self, bench: Bench) -> None:
        self._flood(bench)
        call = bench.submit(timeout=Timeout(connect=0.5))
        bench.run()
        bench.advance(0.6)
        assert "the server is left alone for a while" in str(call.error)

    def test_answers_that_it_never_reads_count_as_well(self, bench: Bench) -> None:
        peer, call = bench.open_h2(), bench.submit()
        bench.run()
        peer.deaf = True
        while not call.done:
            peer.send(PING * 90)
            bench.advance(1.0)
        assert not bench.connections
        bench.submit(timeout=Timeout(connect=0.5))
        bench.run()
        assert not bench.dialer.pending

    def test_a_server_that_breaks_the_protocol_is_not_meant(self, bench: Bench) -> None:
        peer = bench.open_h2()
        bench.submit()
        bench.run()
        peer.send(bytes(16_385).join((b"\0\x40\x01\6\0", b"")))
        bench.run()
        assert bench.ended, "it is remembered, though it was no flood"

    def _flood(self, bench: Bench) -> None:
        peer, call = bench.open_h2(), bench.submit()
        bench.run()
        peer.send(PING * 2_000)
        bench.run()
        assert "floods this connection" in str(call.error)


class _Wire:
    """A wire of which the test says how far it is."""

    def __init__(self) -> None:
        self.sent_bytes = 0
        self.backlog_bytes = 0


class TestUnreadAnswers:
    def test_what_the_wire_has_taken_is_not_unread(self) -> None:
        unread, wire = UnreadAnswers(), _Wire()
        assert not unread.too_many(10**6, wire)

    def test_a_backlog_that_never_empties_but_moves_is_no_flood(self) -> None:
        unread, wire = UnreadAnswers(), _Wire()
        wire.backlog_bytes = 1_000
        for answers in range(0, 100 * MAX_UNREAD, MAX_UNREAD // 4):
            assert not unread.too_many(answers, wire)
            wire.sent_bytes += 1_000

    def test_a_backlog_that_stands_still_is_one_after_the_bound(self) -> None:
        unread, wire = UnreadAnswers(), _Wire()
        wire.backlog_bytes = 1_000
        verdicts = [unread.too_many(answers, wire) for answers in (1, MAX_UNREAD, MAX_UNREAD + 1)]
        assert verdicts == [False, False, True]
