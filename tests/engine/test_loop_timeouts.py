"""Each phase's timeout: on time, with its own error, and with nobody else harmed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from engine_bench import CANCEL, Bench, Call, H2Peer, HandFed

from hyperpool import errors
from hyperpool.engine.dial_cancel import DialPhase
from hyperpool.handoff import messages
from hyperpool.values import Timeout

MakeBench = Callable[..., Bench]


def only(**phases: float) -> Timeout:
    """A timeout in these phases alone."""
    return Timeout(**{"pool": None, "connect": None, "write": None, "read": None, **phases})  # type: ignore[arg-type]


def assert_timed_out(call: Call, kind: type[errors.Timeout], **spent_s: float) -> None:
    error: Any = call.error
    assert type(error) is kind
    assert error.phase == kind.phase
    assert {phase: seconds for phase, seconds in error.spent_s.items() if seconds} == spent_s
    assert isinstance(error, TimeoutError) and error.origin == "https://a.test"


def shut_stream(bench: Bench) -> H2Peer:
    """A peer that accepts heads, but not a byte of a body."""
    return bench.open_h2(INITIAL_WINDOW_SIZE=0)


def test_connect_runs_from_submit_until_the_first_connection(bench: Bench) -> None:
    call, patient = bench.submit(timeout=only(connect=5)), bench.submit(timeout=only(connect=9))
    bench.run()
    bench.advance(4)
    assert not call.done
    bench.advance(1)
    assert_timed_out(call, errors.ConnectTimeout, connect=5.0)
    assert call.error.processed == "no" and not patient.done


PHASE = DialPhase("proxy", "the proxy http://p.test:3128 at 192.0.2.1:3128 had not opened the way")


def test_who_could_not_be_connected_learns_what_was_waited_for(bench: Bench) -> None:
    call, total = bench.submit(timeout=only(connect=5)), bench.submit(timeout=only(total=5))
    bench.run()
    bench.dialer.phase = PHASE
    bench.advance(5)
    assert isinstance(call.error, errors.ConnectTimeout) and call.error.step == "proxy"
    for error in (call.error, total.error):
        assert "=5 s (spent: " in str(error) and str(error).endswith(f"): {PHASE.waits}")


def test_so_does_who_asked_for_a_connection_alone(bench: Bench) -> None:
    asked = [bench.ask_for_connection(patience_s=5)]
    bench.run()
    bench.advance(5)
    bench.dialer.phase = PHASE
    asked.append(bench.ask_for_connection(patience_s=2.5))
    bench.advance(2.5)
    blamed = [future.exception(0) for future in asked]
    within = ["https://a.test: no connection was established within 5 s"]
    within.append(f"https://a.test: no connection was established within 2.5 s: {PHASE.waits}")
    assert list(map(str, blamed)) == within
    assert [error.step for error in blamed if isinstance(error, errors.ConnectTimeout)] == [None, "proxy"]


def test_who_waits_for_a_slot_is_not_told_of_a_dial(make_bench: MakeBench) -> None:
    bench = make_bench(max_connections_per_origin=1)
    bench.open_h2(MAX_CONCURRENT_STREAMS=1)
    _, call = bench.submit(), bench.submit(timeout=only(pool=5))
    bench.run()
    bench.dialer.phase = PHASE
    bench.advance(5)
    assert "1 under way on 1 connection" in str(call.error) and PHASE.waits not in str(call.error)


def test_no_dial_is_begun_for_the_moment_that_is_left_when_one_has_timed_out(bench: Bench) -> None:
    call = bench.submit(timeout=only(connect=5))
    bench.run()

    def let_time_pass() -> None:
        bench.clock.now += 0.001

    def when_the_loop_has_looked_at_its_clock() -> None:
        bench.fail_dial(errors.ConnectTimeout("too late"))
        bench.clock.before_next = let_time_pass

    bench.clock.now += 4.9995
    bench.put(messages.Prewarm(1))  # so that there is a turn
    bench.clock.before_next = when_the_loop_has_looked_at_its_clock
    bench.run()
    assert bench.dialer.started == 1 and isinstance(call.error, errors.ConnectTimeout)


def test_pool_runs_while_all_slots_are_taken(make_bench: MakeBench) -> None:
    bench = make_bench(max_connections_per_origin=1)
    peer = bench.open_h2(MAX_CONCURRENT_STREAMS=1)
    holder, call = bench.submit(), bench.submit(timeout=only(pool=5, connect=1, read=1))
    bench.run()
    bench.advance(5)
    assert_timed_out(call, errors.PoolTimeout, pool=5.0)
    assert call.error.processed == "no"
    peer.respond(1)
    bench.run()
    assert holder.response.ok


def test_pool_is_not_prolonged_by_a_further_connection_that_brings_no_slot(bench: Bench) -> None:
    bench.open_h2(MAX_CONCURRENT_STREAMS=1)
    bench.submit_many(2)
    call = bench.submit(timeout=only(pool=5))
    bench.run()
    bench.advance(4)
    bench.connect_h2(MAX_CONCURRENT_STREAMS=1)
    bench.run()
    bench.advance(1)
    assert_timed_out(call, errors.PoolTimeout, pool=5.0)


def test_after_the_first_connection_those_who_wait_are_in_the_pool_phase(bench: Bench) -> None:
    call, other = bench.submit(), bench.submit(timeout=only(connect=10, pool=3))
    bench.run()
    bench.advance(6)
    bench.connect_h2(MAX_CONCURRENT_STREAMS=1)
    bench.run()
    bench.advance(2)
    assert not other.done
    bench.advance(1)
    assert_timed_out(other, errors.PoolTimeout, connect=6.0, pool=3.0)
    assert not call.done


def test_write_runs_while_the_peer_takes_nothing_of_the_body(bench: Bench) -> None:
    peer = shut_stream(bench)
    call = bench.submit(content=b"x" * 100, timeout=only(write=5, read=1))
    bench.run()
    bench.advance(4)
    peer.grant(1, 50)
    bench.run()
    bench.advance(4)
    assert not call.done  # the clock runs from the last progress
    bench.advance(1)
    assert_timed_out(call, errors.WriteTimeout, write=9.0)
    assert peer.seen[1].reset_code == CANCEL


def test_read_runs_from_the_last_sign_of_life_of_the_answer(bench: Bench) -> None:
    peer, call = bench.open_h2(), bench.submit(timeout=only(read=5))
    bench.run()
    for say in (lambda: peer.head(1, 103), lambda: peer.head(1), lambda: peer.data(1, b"drop")):
        bench.advance(4)
        say()
        bench.run()
    bench.advance(4)
    assert not call.done
    bench.advance(1)
    assert_timed_out(call, errors.ReadTimeout, read=17.0)
    assert call.error.processed == "maybe" and peer.seen[1].reset_code == CANCEL


@pytest.mark.parametrize("pad_bytes", [0, 9])
@pytest.mark.parametrize("together", [False, True])
def test_data_without_bytes_of_the_body_is_no_progress(bench: Bench, pad_bytes: int, together: bool) -> None:
    # A5, T3: empty, or padding alone; one frame, or a run of them in one read.
    peer, call = bench.open_h2(), bench.submit(timeout=only(read=5))
    bench.run()
    peer.head(1)
    peer.data(1, b"drop")
    bench.run()
    bench.advance(4)
    for _ in range(3 if together else 1):
        peer.data(1, pad_bytes=pad_bytes)
    bench.run()
    bench.advance(1)
    assert_timed_out(call, errors.ReadTimeout, read=5.0)


def test_chunk_lines_without_an_end_are_no_progress(bench: Bench) -> None:
    # T3: over HTTP/1.1
    peer, call = bench.open_h1(), bench.submit(timeout=only(read=5))
    bench.run()
    peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\ndrop\r\n")
    bench.run()
    bench.advance(4)
    peer.send(b"4;a=b")
    bench.run()
    bench.advance(1)
    assert_timed_out(call, errors.ReadTimeout, read=5.0)


def test_read_begins_when_the_body_is_sent_and_is_on_time_though_write_is_longer(bench: Bench) -> None:
    bench.open_h2()
    call = bench.submit(content=b"sent at once", timeout=only(write=100, read=5))
    bench.run()
    bench.advance(5)
    assert_timed_out(call, errors.ReadTimeout, read=5.0)


def test_total_runs_over_all_phases(bench: Bench) -> None:
    call = bench.submit(timeout=Timeout(10, read=3))
    bench.run()
    bench.advance(4)
    peer = bench.connect_h2()
    bench.run()
    bench.advance(2)
    peer.head(1)
    bench.run()
    bench.advance(2)
    peer.data(1, b"drip")
    bench.run()
    bench.advance(2)
    assert_timed_out(call, errors.TotalTimeout, connect=4.0, read=6.0)


def test_total_ends_with_the_head_of_a_streamed_response(bench: Bench) -> None:
    peer, call = bench.open_h2(), bench.submit(stream=True, timeout=Timeout(10, read=None))
    bench.run()
    peer.head(1)
    bench.run()
    bench.advance(100)
    peer.data(1, b"still here", end=True)
    bench.run()
    assert call.response.content == b"still here"


def test_total_holds_for_a_streamed_response_whose_head_does_not_come(bench: Bench) -> None:
    bench.open_h2()
    call = bench.submit(stream=True, timeout=Timeout(10, read=None))
    bench.run()
    bench.advance(10)
    assert_timed_out(call, errors.TotalTimeout, read=10.0)


def test_a_streamed_body_that_stops_coming_times_out_in_its_reader(bench: Bench) -> None:
    peer, call = bench.open_h2(), bench.submit(stream=True, timeout=only(read=5))
    bench.run()
    peer.head(1)
    peer.data(1, b"some")
    bench.run()
    assert call.read() == b"some"
    bench.advance(5)
    assert call.pieces is not None
    with pytest.raises(errors.ReadTimeout):
        next(call.pieces)
    assert peer.seen[1].reset_code == CANCEL


def test_an_unread_streamed_body_is_excused_from_the_read_timeout(bench: Bench) -> None:
    peer, call = bench.open_h2(), bench.submit(stream=True, timeout=only(read=5))
    bench.run()
    peer.head(1)
    peer.data(1, b"unread")
    bench.run()
    for _ in range(10):
        bench.advance(5)
    assert call.read() == b"unread"
    peer.data(1, b"rest", end=True)
    bench.run()
    assert call.read() == b"rest"


def test_when_the_reader_goes_on_the_peer_has_the_whole_read_timeout_to_do_so_too(bench: Bench) -> None:
    # The peer could send nothing while its window was shut: that pause was the reader's.
    peer, call = bench.open_h2(), bench.submit(stream=True, timeout=only(read=5))
    bench.run()
    peer.head(1)
    peer.fill_window(1)
    bench.run()
    bench.advance(4)
    assert len(call.read()) == 1 << 20
    bench.run()
    bench.advance(4)
    peer.data(1, b"rest", end=True)
    bench.run()
    assert call.read() == b"rest"


def test_a_starved_upload_is_excused_from_the_write_timeout(bench: Bench) -> None:
    peer, body = bench.open_h2(), HandFed()
    call = bench.submit(source=body, timeout=only(write=5))
    bench.run()
    for _ in range(10):
        bench.advance(5)
    body.pipe.feed(b"at last")
    body.pipe.finish()
    bench.run()
    peer.respond(1)
    bench.run()
    assert call.response.ok and peer.seen[1].body == b"at last"


def test_bytes_of_the_caller_do_not_prolong_the_write_timeout_while_the_window_is_shut(bench: Bench) -> None:
    body = HandFed()
    shut_stream(bench)
    call = bench.submit(source=body, timeout=only(write=5))
    bench.run()
    for _ in range(5):
        body.pipe.feed(b"more")
        bench.advance(1)
    assert_timed_out(call, errors.WriteTimeout, write=5.0)


def test_credit_for_the_connection_alone_is_no_progress_of_a_stream_whose_window_is_shut(bench: Bench) -> None:
    peer = shut_stream(bench)
    call = bench.submit(content=b"x", timeout=only(write=5))
    bench.run()
    for _ in range(5):
        peer.grant(0, 1000)
        bench.advance(1)
    assert_timed_out(call, errors.WriteTimeout, write=5.0)


@pytest.mark.parametrize("phase", ["total", "read"])
def test_others_on_the_connection_go_on(bench: Bench, phase: str) -> None:
    peer = bench.open_h2()
    timeout = Timeout(5) if phase == "total" else only(read=5)
    late = bench.submit(timeout=timeout)
    others = bench.submit_many(5)
    bench.run()
    bench.advance(5)
    for stream_id in peer.open_ids:
        peer.respond(stream_id)
    bench.run()
    assert late.error.phase == phase
    assert all(call.response.ok for call in others)
    assert len(bench.connections) == 1


def test_a_timed_out_stream_makes_the_loop_ask_whether_the_peer_is_there(bench: Bench) -> None:
    peer = bench.open_h2()
    bench.submit(timeout=only(read=5))
    bench.run()
    bench.advance(5)
    assert peer.pings == 1


def test_timeouts_at_the_same_instant_each_get_their_own_error(bench: Bench) -> None:
    bench.open_h2()
    calls = bench.submit_many(20, timeout=only(read=5))
    bench.run()
    bench.advance(5)
    assert len({id(call.error) for call in calls}) == 20


def test_a_response_that_is_here_in_the_turn_of_its_deadline_wins(bench: Bench) -> None:
    peer, call = bench.open_h2(), bench.submit(timeout=Timeout(5))
    bench.run()
    peer.respond(1, body=b"just in time")
    peer.flush()
    bench.advance(5)
    assert call.response.content == b"just in time"


def test_a_finished_exchange_leaves_no_timer_that_matters(bench: Bench) -> None:
    peer = bench.open_h2()
    peer.answers = True
    calls = bench.submit_many(1000, timeout=Timeout(60))
    bench.run()
    assert all(call.response.ok for call in calls)
    assert all(call.exchange.timer_at == float("inf") for call in calls)
    assert len(bench.loop._deadlines._heap) <= 64


def test_a_timeout_of_0_seconds_fires_in_the_first_turn(bench: Bench) -> None:
    call = bench.submit(timeout=Timeout(0))
    bench.run()
    assert isinstance(call.error, errors.TotalTimeout)
