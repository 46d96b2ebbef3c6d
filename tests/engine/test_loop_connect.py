"""Connections that are asked for before any request (`ConnectionPool.connect`), PINGs of the caller's, farewells."""

from __future__ import annotations

import concurrent.futures
import logging
from collections.abc import Callable
from typing import Any

import pytest
from engine_bench import CANCEL, Bench
from hyperframe.frame import PingFrame, RstStreamFrame

from hyperpool.errors import ConnectError, ConnectionLost, ConnectTimeout, PoolClosed, RemoteProtocolError
from hyperpool.handoff import messages
from hyperpool.values import Timeout

MakeBench = Callable[..., Bench]
PAYLOAD = b"8 bytes!"


# -- Connect: there is a connection ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("connect", "version"), [("connect_h2", "HTTP/2"), ("connect_h1", "HTTP/1.1")])
def test_who_asks_for_a_connection_is_told_what_it_speaks(bench: Bench, connect: str, version: str) -> None:
    connected = bench.ask_for_connection()
    bench.run()
    assert not connected.done() and bench.dialer.started == 1
    getattr(bench, connect)()
    bench.run()
    assert connected.result(0) == version


def test_many_who_ask_are_not_compared_with_each_other(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    # A thousand threads of http.client over one pool: each with each would hold up the loop for seconds.
    def compare(*_: object) -> bool:
        raise AssertionError("compared")

    monkeypatch.setattr(messages.Connect, "__eq__", compare)
    asked = [bench.ask_for_connection() for _ in range(3)]
    bench.run()
    bench.connect_h2()
    bench.run()
    assert [one.result(0) for one in asked] == ["HTTP/2"] * 3


def test_a_connection_that_is_there_is_the_answer_at_once(bench: Bench) -> None:
    bench.open_h1()
    bench.submit()  # busy as it may be
    bench.run()
    connected = bench.ask_for_connection()
    bench.run()
    assert connected.result(0) == "HTTP/1.1" and bench.dialer.started == 1


def test_several_who_ask_share_one_connection(bench: Bench) -> None:
    bench.open_h1()
    bench.put(messages.Retire())
    bench.submit()
    bench.run()  # the origin is known to speak HTTP/1.1, where each request has a dial of its own
    asked = [bench.ask_for_connection() for _ in range(5)]
    bench.run()
    assert bench.dialer.started == 2
    bench.connect_h1()
    bench.run()
    assert [one.result(0) for one in asked] == ["HTTP/1.1"] * 5


def test_a_request_and_who_asks_share_one_dial(bench: Bench) -> None:
    call, connected = bench.submit(), bench.ask_for_connection()
    bench.run()
    peer = bench.connect_h2()
    peer.answers = True
    bench.run()
    assert call.response.ok and connected.result(0) == "HTTP/2" and bench.dialer.started == 1


@pytest.mark.parametrize("how", ["retire", "goaway"])
def test_a_draining_connection_is_none(bench: Bench, how: str) -> None:
    # L10: the replacement is opened before the drained one is gone
    first, call = bench.open_h2(), bench.submit()
    bench.run()
    if how == "retire":
        bench.put(messages.Retire())
    else:
        first.go_away(1)
        bench.run()
    connected = bench.ask_for_connection()
    bench.run()
    assert not connected.done() and bench.dialer.started == 2
    bench.connect_h2()
    bench.run()
    assert connected.result(0) == "HTTP/2"
    first.respond(1)
    bench.run()
    assert call.response.ok


def test_a_loop_that_is_retired_still_answers_who_asks(bench: Bench) -> None:
    # the pool evicts an origin by its last figures, which may not know yet that somebody asks
    connected = bench.ask_for_connection()
    bench.put(messages.Retire())
    bench.run()
    assert not bench.loop.stats.idle
    bench.connect_h2()
    bench.run()
    assert connected.result(0) == "HTTP/2"


def test_the_connection_that_was_asked_for_ends_when_it_has_been_idle(bench: Bench) -> None:
    bench.ask_for_connection()
    bench.run()
    bench.connect_h2()
    bench.run()
    bench.advance(90)
    assert bench.ended


# -- Connect: there is none --------------------------------------------------------------------------------------------


def test_a_failed_dial_is_told_to_each_who_asks_and_to_each_request(bench: Bench) -> None:
    asked, call = [bench.ask_for_connection(), bench.ask_for_connection()], bench.submit()
    bench.run()
    bench.fail_dial(ConnectError("refused"))
    bench.run()
    errors = [call.error, *(one.exception(0) for one in asked)]
    assert all(type(error) is ConnectError and error.origin == "https://a.test" for error in errors)
    assert len({id(error) for error in errors}) == 3 and bench.ended


def test_what_is_no_error_of_ours_is_told_as_it_is(bench: Bench) -> None:
    connected, error = bench.ask_for_connection(), OSError("strange")
    bench.run()
    bench.dialer.pending.pop(0).deliver(messages.DialFailed(error))
    bench.run()
    assert connected.exception(0) is error


def test_a_dial_has_the_longest_patience_of_those_who_ask(bench: Bench) -> None:
    bench.ask_for_connection(patience_s=5)
    bench.ask_for_connection(patience_s=50)
    bench.run()
    assert bench.dialer.pending[0].deadline_at == bench.clock.now + 50
    bench.dialer.cancel()
    bench.run()


def test_each_who_asks_has_a_patience_of_its_own(bench: Bench) -> None:
    hasty, patient = bench.ask_for_connection(patience_s=5), bench.ask_for_connection(patience_s=50)
    bench.run()
    bench.advance(5)
    assert isinstance(hasty.exception(0), ConnectTimeout) and not patient.done()
    bench.connect_h2()
    bench.run()
    assert patient.result(0) == "HTTP/2"


def test_who_asks_does_not_wait_longer_than_it_said_for_the_dial_of_a_request(bench: Bench) -> None:
    call = bench.submit(timeout=Timeout(connect=50))
    connected = bench.ask_for_connection(patience_s=5)
    bench.run()
    bench.advance(5)
    assert isinstance(connected.exception(0), ConnectTimeout) and isinstance(connected.exception(0), TimeoutError)
    assert not call.done
    bench.connect_h2().answers = True
    bench.run()
    assert call.response.ok


def test_who_has_more_patience_than_the_dial_is_dialled_for_again(bench: Bench) -> None:
    call = bench.submit(timeout=Timeout(connect=5))
    connected = bench.ask_for_connection(patience_s=50)
    bench.run()
    bench.advance(5)
    bench.fail_dial(ConnectTimeout("too late"))
    bench.run()
    assert isinstance(call.error, ConnectTimeout) and not connected.done()
    assert bench.dialer.started == 2 and bench.dialer.pending[0].deadline_at == bench.clock.now + 45
    bench.connect_h2()
    bench.run()
    assert connected.result(0) == "HTTP/2"


def test_a_dial_that_times_out_with_who_asks_ends_the_loop(bench: Bench) -> None:
    connected = bench.ask_for_connection(patience_s=5)
    bench.run()
    bench.advance(5)
    bench.fail_dial(ConnectTimeout("too late"))
    bench.run()
    assert isinstance(connected.exception(0), ConnectTimeout) and bench.ended and bench.dialer.started == 1


def test_who_asks_beside_a_draining_connection_waits_no_longer_than_it_said(bench: Bench) -> None:
    bench.open_h2()
    bench.submit()
    bench.run()
    bench.put(messages.Retire())
    connected = bench.ask_for_connection(patience_s=5)
    bench.run()
    bench.fail_dial(ConnectError("refused"))
    bench.run()
    assert not connected.done()
    bench.advance(5)
    assert isinstance(connected.exception(0), ConnectTimeout)
    bench.dialer.cancel()
    bench.run()


def test_a_failed_dial_is_made_again_where_another_connection_drains(bench: Bench) -> None:
    bench.open_h2()
    bench.submit()
    bench.run()
    bench.put(messages.Retire())
    connected = bench.ask_for_connection(patience_s=5)
    bench.run()
    bench.fail_dial(ConnectError("refused"))
    bench.run()
    bench.advance(1)
    bench.connect_h2()
    bench.run()
    assert connected.result(0) == "HTTP/2"


def test_who_cancels_is_dialled_for_no_more(bench: Bench) -> None:
    # With patience for ever each dial that times out would be followed by another.
    connected = bench.ask_for_connection()
    bench.run()
    connected.cancel()
    bench.fail_dial(ConnectTimeout("too late"))
    bench.run()
    assert bench.ended and bench.dialer.started == 1
    assert concurrent.futures.wait([connected], timeout=0).done


def test_who_cancels_just_before_the_answer_harms_nobody(bench: Bench) -> None:
    cancelled, other = bench.ask_for_connection(), bench.ask_for_connection()
    bench.run()
    cancelled.cancel()
    bench.connect_h2()
    bench.run()
    assert cancelled.cancelled() and other.result(0) == "HTTP/2"


# -- Connect: the ends of a loop ---------------------------------------------------------------------------------------


def test_close_gives_who_asks_its_grace(bench: Bench) -> None:
    answered = bench.ask_for_connection()
    bench.run()
    bench.put(messages.Close(bench.clock.now + 5))
    late = bench.ask_for_connection()
    bench.run()
    assert isinstance(late.exception(0), PoolClosed) and not answered.done() and not bench.ended
    peer = bench.connect_h2()
    bench.run()
    assert answered.result(0) == "HTTP/2" and bench.ended and peer.eof


def test_when_the_grace_is_over_who_asks_is_told(bench: Bench) -> None:
    connected = bench.ask_for_connection()
    bench.run()
    bench.put(messages.Close(bench.clock.now + 5))
    bench.run()
    bench.advance(5)
    assert isinstance(connected.exception(0), PoolClosed) and bench.ended


def test_a_crash_is_told_to_all_who_ask_exactly_once(bench: Bench) -> None:
    # L5: in the list, in the turn of the crash before it, and behind it
    before = bench.ask_for_connection()
    bench.run()
    asked = [before, bench.ask_for_connection()]
    bench.put("no message")
    asked.append(bench.ask_for_connection())
    call = bench.submit()
    bench.run_in_thread()
    errors = [call.error, *(one.exception(0) for one in asked)]
    assert all("bug in hyperpool" in str(error) for error in errors)
    assert len({id(error) for error in errors}) == 4


def test_a_crash_after_the_answer_does_not_answer_twice(bench: Bench) -> None:
    # L5
    bench.open_h2()
    connected = bench.ask_for_connection()
    bench.put("no message")
    bench.run_in_thread()
    assert connected.result(0) == "HTTP/2"


def test_a_loop_that_was_never_run_tells_who_asked_there(bench: Bench) -> None:
    connected = bench.ask_for_connection()
    bench.loop.discard(PoolClosed("not needed"))
    bench.ended = True
    assert isinstance(connected.exception(0), PoolClosed)


def test_a_forked_childs_copy_of_the_loop_is_let_go_with_those_who_ask(bench: Bench) -> None:
    connected = bench.ask_for_connection()
    bench.run()
    bench.loop.abandon_in_child()
    bench.ended = True
    error = connected.exception(0)  # the parent's copy of it will be answered
    assert type(error) is ConnectionLost and error.origin == bench.loop.origin


@pytest.mark.parametrize("raised", [ValueError("mine"), SystemExit(3)])
def test_a_callback_of_who_asks_that_raises_harms_nobody(
    bench: Bench, caplog: pytest.LogCaptureFixture, raised: BaseException
) -> None:
    def refuse(_: Any) -> None:
        raise raised

    first, second = bench.ask_for_connection(), bench.ask_for_connection()
    first.add_done_callback(refuse)
    bench.run()
    bench.connect_h2()
    with caplog.at_level(logging.CRITICAL + 1, "concurrent.futures"):
        bench.run()
    assert second.result(0) == "HTTP/2" and not bench.ended


def test_a_callback_of_who_asks_may_submit(bench: Bench) -> None:
    connected, calls = bench.ask_for_connection(), []
    connected.add_done_callback(lambda _: calls.append(bench.submit("/next")))
    bench.run()
    bench.connect_h2().answers = True
    bench.run()
    assert calls[0].response.ok


def test_a_callback_of_a_failed_connection_may_ask_again(bench: Bench) -> None:
    connected, again = bench.ask_for_connection(), []
    connected.add_done_callback(lambda _: again.append(bench.ask_for_connection()))
    bench.run()
    bench.fail_dial(ConnectError("refused"))
    bench.run()
    bench.connect_h2()
    bench.run()
    assert again[0].result(0) == "HTTP/2"


# -- PING --------------------------------------------------------------------------------------------------------------


def pings(frames: list[PingFrame]) -> list[bytes]:
    return [frame.opaque_data for frame in frames if "ACK" not in frame.flags]


def test_a_ping_goes_out_on_every_connection_also_a_draining_one(make_bench: MakeBench) -> None:
    bench = make_bench()
    first = bench.open_h2(MAX_CONCURRENT_STREAMS=1)
    bench.submit_many(2)
    bench.run()
    second = bench.connect_h2()
    bench.run()
    first.go_away(1)
    bench.run()
    bench.put(messages.Ping(PAYLOAD))
    bench.run()
    assert pings(first.heard(PingFrame)) == pings(second.heard(PingFrame)) == [PAYLOAD]


def test_a_ping_over_http1_is_nothing(bench: Bench) -> None:
    peer = bench.open_h1()
    bench.put(messages.Ping(PAYLOAD))
    call = bench.submit()
    bench.run()
    peer.respond()
    bench.run()
    assert call.response.ok


def test_a_ping_without_a_connection_is_nothing(bench: Bench) -> None:
    bench.put(messages.Ping(PAYLOAD))
    bench.run()
    assert bench.ended


def test_a_ping_in_the_turn_in_which_its_connection_breaks_is_nothing(bench: Bench) -> None:
    # h2 refuses to write on a connection that it has ended: the loop must not ask it to.
    bench.submit()
    bench.run()
    peer = bench.connect_h2(greet=False)
    peer.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    peer.flush()
    bench.put(messages.Ping(PAYLOAD))
    bench.run()
    assert peer.eof and type(bench.calls[0].error) is RemoteProtocolError and bench.ended


def test_the_answer_to_a_ping_of_the_callers_proves_nothing_about_our_own(make_bench: MakeBench) -> None:
    bench = make_bench(ping_timeout_s=10)
    peer = bench.open_h2()
    peer.pongs = False
    call = bench.submit()
    bench.run()
    bench.put(messages.Ping(PAYLOAD))
    call.future.cancel()
    other = bench.submit()
    bench.run()
    assert len(pings(peer.heard(PingFrame))) == 2
    peer.send(PingFrame(0, opaque_data=PAYLOAD, flags=["ACK"]).serialize())
    bench.run()
    bench.advance(10)
    assert other.error is not None and "PING" in str(other.error)


def test_no_payload_of_the_callers_can_be_taken_for_ours(make_bench: MakeBench) -> None:
    # A PING of the caller's that was sent before a reset would give its slot back too early.
    bench = make_bench(max_connections_per_origin=1)
    peer = bench.open_h2(MAX_CONCURRENT_STREAMS=1)
    peer.pongs = False
    call = bench.submit("/0")
    for number in range(10):
        bench.put(messages.Ping(number.to_bytes(8, "big")))
    bench.run()
    theirs, peer.unanswered = peer.unanswered, []
    call.future.cancel()
    bench.submit("/1")
    bench.run()
    for payload in theirs:
        peer.send(PingFrame(0, opaque_data=payload, flags=["ACK"]).serialize())
    bench.run()
    assert peer.paths == ["/0"], "the slot is not proven free"
    peer.pong()
    bench.run()
    assert peer.paths == ["/0", "/1"]


def test_pings_of_the_callers_do_not_keep_a_connection_from_being_idle(bench: Bench) -> None:
    peer = bench.open_h2()
    for _ in range(9):
        bench.advance(10)
        if not bench.ended:
            bench.put(messages.Ping(PAYLOAD))
            bench.run()
    assert bench.ended and peer.eof


# -- Close with a code -------------------------------------------------------------------------------------------------


def test_the_code_of_a_close_is_in_the_goaway_and_in_each_reset(make_bench: MakeBench) -> None:
    bench = make_bench(max_connections_per_origin=2)
    first = bench.open_h2(MAX_CONCURRENT_STREAMS=1)
    bench.submit_many(2)
    bench.run()
    second = bench.connect_h2()
    bench.run()
    bench.put(messages.Close(bench.clock.now, 2))
    bench.run()
    for peer in (first, second):
        assert peer.goaway is not None and peer.goaway.error_code == 2
        assert [frame.error_code for frame in peer.heard(RstStreamFrame)] == [2]


def test_without_a_code_a_close_is_no_error_and_its_resets_are_cancels(bench: Bench) -> None:
    peer = bench.open_h2()
    bench.submit()
    bench.run()
    bench.put(messages.Close(bench.clock.now))
    bench.run()
    assert peer.goaway is not None and peer.goaway.error_code == 0
    assert [frame.error_code for frame in peer.heard(RstStreamFrame)] == [CANCEL]


def test_a_connection_that_comes_after_the_close_says_goodbye_with_its_code(bench: Bench) -> None:
    bench.submit()
    bench.run()
    bench.put(messages.Close(bench.clock.now + 5, 2))
    bench.run()
    peer = bench.connect_h2()
    bench.run()
    peer.respond(1)
    bench.run()
    assert bench.ended and peer.goaway is not None and peer.goaway.error_code == 2


def test_a_second_close_without_a_code_leaves_the_first_ones(bench: Bench) -> None:
    # as where a with block ends after a close
    peer = bench.open_h2()
    bench.submit()
    bench.run()
    bench.put(messages.Close(bench.clock.now + 5, 2))
    bench.put(messages.Close(bench.clock.now))
    bench.run()
    assert peer.goaway is not None and peer.goaway.error_code == 2


def test_a_code_changes_nothing_over_http1(bench: Bench) -> None:
    peer, call = bench.open_h1(), bench.submit()
    bench.run()
    bench.put(messages.Close(bench.clock.now, 2))
    bench.run()
    assert isinstance(call.error, PoolClosed) and peer.eof
