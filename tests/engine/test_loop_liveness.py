"""Whether the peer is there: late answers, blocked writers, calm, clocks that jump (RELIABILITY T2, L12)."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from engine_bench import ENHANCE_YOUR_CALM, Bench, Call, Endless, H2Peer
from hyperframe.frame import PingFrame

from hyperpool.engine.connection import Life
from hyperpool.engine.liveness import MOST_TIMEOUTS
from hyperpool.errors import ConnectionLost, ReadTimeout
from hyperpool.values import Timeout

MakeBench = Callable[..., Bench]
HASTY = Timeout(2, pool=None, connect=None)


def silent_after_a_timeout(bench: Bench) -> tuple[H2Peer, Call]:
    """A connection on which a stream has timed out, while another goes on; its peer does not answer PINGs."""
    peer = bench.open_h2()
    peer.pongs = False
    hasty, patient = bench.submit("/hasty", timeout=HASTY), bench.submit("/patient")
    bench.run()
    bench.advance(2)
    assert hasty.error.phase == "total" and peer.pings == 1
    return peer, patient


# -- doubt -------------------------------------------------------------------------------------------------------------


def test_for_a_second_after_the_ping_new_requests_still_go_to_the_connection(bench: Bench) -> None:
    peer, _ = silent_after_a_timeout(bench)
    bench.advance(0.9)
    bench.submit("/new")
    bench.run()
    assert "/new" in peer.paths and not bench.dialer.pending


def test_a_late_answer_sends_new_requests_to_a_replacement(bench: Bench) -> None:
    peer, patient = silent_after_a_timeout(bench)
    bench.advance(1)
    new = bench.submit("/new")
    bench.run()
    assert "/new" not in peer.paths
    second = bench.connect_h2()
    second.answers = True
    bench.run()
    assert new.response.text == "/new" and not patient.done


def test_a_connection_in_doubt_does_not_count_towards_the_cap(make_bench: MakeBench) -> None:
    bench = make_bench(max_connections_per_origin=1)
    silent_after_a_timeout(bench)
    bench.advance(1)
    bench.submit()
    bench.run()
    assert len(bench.dialer.pending) == 1


def test_a_connection_in_doubt_that_carries_nothing_is_replaced_all_the_same(bench: Bench) -> None:
    peer = bench.open_h2()
    peer.pongs = False
    bench.submit(timeout=HASTY)
    bench.run()
    bench.advance(2)
    bench.advance(1)
    bench.submit("/new")
    bench.run()
    assert len(bench.dialer.pending) == 1


def test_who_waits_in_the_queue_is_dialled_for_when_the_second_is_over(make_bench: MakeBench) -> None:
    # Nothing else happens in that instant: the loop must have set itself a timer.
    bench = make_bench(max_connections_per_origin=1)
    peer = bench.open_h2(MAX_CONCURRENT_STREAMS=1)
    peer.pongs = False
    bench.submit(timeout=HASTY)
    bench.submit("/waiting")
    bench.run()
    bench.advance(2)
    assert not bench.dialer.pending
    bench.advance(1)
    assert len(bench.dialer.pending) == 1


def test_when_the_answer_comes_after_all_the_connection_takes_requests_again(bench: Bench) -> None:
    peer, _ = silent_after_a_timeout(bench)
    bench.advance(5)
    peer.pong()
    bench.submit("/new")
    bench.run()
    assert "/new" in peer.paths and bench.connections[0].life is Life.OPEN


def test_within_the_ping_timeout_everybody_is_told_and_the_next_request_has_a_new_connection(bench: Bench) -> None:
    _, patient = silent_after_a_timeout(bench)
    bench.advance(9.9)
    assert not patient.done
    bench.advance(0.1)
    assert isinstance(patient.error, ConnectionLost) and "PING" in str(patient.error)


# -- whose fault is it -------------------------------------------------------------------------------------------------


def test_a_connection_full_of_streams_is_asked_as_well(make_bench: MakeBench) -> None:
    bench = make_bench(max_connections_per_origin=1)
    peer = bench.open_h2(MAX_CONCURRENT_STREAMS=3)
    peer.pongs = False
    calls = bench.submit_many(5)
    bench.run()
    bench.advance(15)
    assert peer.pings == 1
    bench.advance(10)
    assert [isinstance(call.error, ConnectionLost) if call.done else None for call in calls] == [True] * 3 + [None] * 2
    assert len(bench.dialer.pending) == 1


def test_a_peer_that_sends_is_not_given_up_for_a_late_answer(bench: Bench) -> None:
    # Its PING may stand behind megabytes on a slow line.
    peer, patient = silent_after_a_timeout(bench)
    peer.head(3)
    for _ in range(4):
        bench.advance(8)
        peer.data(3, b"more")
        bench.run()
    peer.data(3, b"end", end=True)
    bench.run()
    assert patient.response.content == b"moremoremoremoreend"


def test_a_peer_that_sends_and_never_answers_is_given_up_in_the_end(bench: Bench) -> None:
    peer, patient = silent_after_a_timeout(bench)
    peer.head(3)
    for _ in range(10 * MOST_TIMEOUTS):
        assert not patient.done
        bench.advance(1)
        peer.data(3, b"drip")
        bench.run()
    assert isinstance(patient.error, ConnectionLost)


def test_a_slow_reader_has_the_time_that_its_reading_takes(bench: Bench) -> None:
    # The PING stands behind an upload in our own backlog, and the peer takes a bit of that every few seconds.
    peer = bench.open_h2(INITIAL_WINDOW_SIZE=1 << 30)
    peer.grant(0, 1 << 30)
    bench.run()
    peer.deaf = True
    call = bench.submit(source=Endless())
    bench.run()
    bench.advance(15)
    for _ in range(2):
        bench.advance(9)
        while not bench.is_due:
            assert peer.sock.recv(1 << 16)
        bench.run()
    bench.advance(9)
    assert not call.done
    bench.advance(1)
    assert isinstance(call.error, ConnectionLost)


# -- calm --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["GOAWAY", "RST_STREAM"])
def test_after_enhance_your_calm_later_connections_ask_half_as_often(bench: Bench, by: str) -> None:
    first = bench.open_h2()
    bench.submit()
    bench.run()
    if by == "GOAWAY":
        first.go_away(0, ENHANCE_YOUR_CALM)
    else:
        first.refuse(1, ENHANCE_YOUR_CALM)
        bench.run()
        first.go_away(1)
    bench.submit()
    bench.run()
    bench.advance(1)
    second = bench.connect_h2()
    bench.run()
    bench.advance(29)
    assert second.pings == 0
    bench.advance(1)
    assert second.pings == 1


def test_after_enhance_your_calm_resets_share_a_ping_and_their_slots_wait_for_it(make_bench: MakeBench) -> None:
    bench = make_bench(max_connections_per_origin=1)
    first = bench.open_h2()
    first.go_away(0, ENHANCE_YOUR_CALM)
    calls = bench.submit_many(4)
    bench.run()
    bench.advance(1)
    second = bench.connect_h2(MAX_CONCURRENT_STREAMS=2)
    bench.run()
    for call in calls[:3]:
        call.future.cancel()
        bench.run()
    assert second.paths == ["/0", "/1", "/2"] and second.pings == 1
    bench.advance(1)
    assert second.paths == ["/0", "/1", "/2", "/3"] and second.pings == 2


# -- clocks ------------------------------------------------------------------------------------------------------------


def test_an_idle_connection_that_was_silent_is_asked_together_with_its_next_request(bench: Bench) -> None:
    # A NAT may have forgotten the flow: then this clock finds out, and not a read timeout.
    peer = bench.open_h2()
    peer.deaf = True
    bench.advance(60)
    call = bench.submit(timeout=Timeout(pool=None, connect=None, read=600))
    bench.run()
    bench.advance(10)
    assert isinstance(call.error, ConnectionLost)


def test_the_ping_goes_out_behind_that_request_in_one_write(bench: Bench) -> None:
    peer = bench.open_h2()
    bench.advance(60)
    bench.submit()
    bench.submit()
    bench.run()
    assert [frame.type for frame in peer.frames[-3:]] == [1, 1, PingFrame.type] and peer.pings == 1


def test_a_connection_that_has_just_been_heard_is_not_asked(bench: Bench) -> None:
    peer = bench.open_h2()
    bench.advance(14)
    bench.submit()
    bench.run()
    assert peer.pings == 0


def test_after_an_hours_sleep_an_idle_connection_is_not_used(bench: Bench) -> None:
    # Suspended: the request is there in the turn in which the clock has jumped.
    first = bench.open_h2()
    bench.clock.now += 3600
    call = bench.submit()
    bench.run()
    assert not first.paths
    second = bench.connect_h2()
    second.answers = True
    bench.run()
    assert call.response.ok


def test_after_an_hours_sleep_a_stream_without_a_deadline_is_asked_about_and_goes_on(bench: Bench) -> None:
    peer, call = bench.open_h2(), bench.submit()
    bench.run()
    bench.advance(3600)
    assert peer.pings == 1 and not call.done
    peer.respond(1)
    bench.run()
    assert call.response.ok


def test_after_an_hours_sleep_a_dead_flow_is_found_in_the_ping_timeout(bench: Bench) -> None:
    peer, call = bench.open_h2(), bench.submit()
    bench.run()
    peer.deaf = True
    bench.advance(3600)
    bench.advance(10)
    assert isinstance(call.error, ConnectionLost)


def test_after_an_hours_sleep_what_is_here_already_counts_before_any_deadline(bench: Bench) -> None:
    peer = bench.open_h2()
    peer.pongs = False
    hasty, call = bench.submit(timeout=HASTY), bench.submit(timeout=Timeout(60))
    bench.run()
    bench.advance(2)
    peer.pong()
    peer.respond(3)
    peer.flush()
    bench.advance(3600)
    assert hasty.error.phase == "total" and call.response.ok


def test_after_an_hours_sleep_a_read_timeout_ends_its_own_exchange_once(bench: Bench) -> None:
    bench.open_h2()
    call, patient = bench.submit(timeout=Timeout(pool=None, connect=None, read=60)), bench.submit()
    bench.run()
    bench.advance(3600)
    assert isinstance(call.error, ReadTimeout) and not patient.done
