"""The loop's own life: idleness, age, Close, crashes, callbacks, and the figures that it publishes."""

from __future__ import annotations

import concurrent.futures
import logging
import socket
from collections.abc import Callable
from typing import Any

import pytest
from engine_bench import Bench, HandFed

from hyperpool.engine.dial import Dialed
from hyperpool.engine.loop import OriginStats
from hyperpool.errors import ConnectError, HyperpoolError, PoolClosed
from hyperpool.handoff import loop_thread, messages
from hyperpool.handoff.inbox import InboxClosed
from hyperpool.handoff.response import Response
from hyperpool.values import Timeout

MakeBench = Callable[..., Bench]


# -- ending by itself --------------------------------------------------------------------------------------------------


def test_an_idle_connection_is_closed_with_goaway_and_the_loop_ends(bench: Bench) -> None:
    peer = bench.open_h2()
    bench.advance(89)
    assert not bench.ended
    bench.advance(1)
    assert bench.ended and peer.eof
    assert peer.goaway is not None and peer.goaway.error_code == 0


def test_idleness_begins_with_the_end_of_the_last_exchange(bench: Bench) -> None:
    peer, call = bench.open_h2(), bench.submit()
    bench.advance(80)
    peer.respond(1)
    bench.run()
    bench.advance(89)
    assert call.response.ok and not peer.eof
    bench.advance(1)
    assert peer.eof


def test_a_loop_that_has_ended_takes_nothing(bench: Bench) -> None:
    # L2
    bench.open_h2()
    bench.advance(90)
    with pytest.raises(InboxClosed):
        bench.submit()
    bench.calls.clear()


def test_a_request_that_comes_in_the_moment_of_the_loops_end_is_served(bench: Bench) -> None:
    # L2: it is put after the turn has taken its messages, and before it looks whether anything is left.
    bench.open_h2()
    transport = bench.connections[0].transport
    close, calls = transport.close, []

    def submit_and_close() -> None:
        calls.append(bench.submit("/just-in-time"))
        close()

    transport.close = submit_and_close  # type: ignore[method-assign]
    bench.advance(90)
    assert not bench.ended
    peer = bench.connect_h2()
    peer.answers = True
    bench.run()
    assert calls[0].response.text == "/just-in-time"


def test_a_loop_without_anything_to_do_ends_in_its_first_turn(bench: Bench) -> None:
    bench.put(messages.Retire())
    bench.run()
    assert bench.ended


def test_past_its_age_a_connection_finishes_what_it_has_and_takes_nothing_new(make_bench: MakeBench) -> None:
    # L10: the replacement carries new requests while the old one drains.
    bench = make_bench(max_age_s=50, ping_after_s=None)
    first, long_one = bench.open_h2(), bench.submit("/long")
    bench.run()
    bench.advance(60)
    bench.submit("/new")
    bench.run()
    second = bench.connect_h2()
    second.answers = True
    bench.run()
    assert first.paths == ["/long"] and second.paths == ["/new"] and not first.eof
    first.respond(1)
    bench.run()
    assert long_one.response.ok and first.eof and not second.eof


def test_connections_of_one_age_do_not_all_end_at_once(make_bench: MakeBench) -> None:
    bench = make_bench()
    bench.put(messages.Prewarm(8))
    bench.run()
    for _ in range(8):
        bench.connect_h2()
        bench.run()
    assert len({connection.retire_at for connection in bench.connections}) == 8


# -- Close -------------------------------------------------------------------------------------------------------------


def test_close_gives_those_under_way_their_grace_and_takes_nothing_new(bench: Bench) -> None:
    peer, under_way = bench.open_h2(), bench.submit()
    bench.run()
    bench.put(messages.Close(bench.clock.now + 5))
    late = bench.submit()
    bench.run()
    assert isinstance(late.error, PoolClosed) and late.error.processed == "no"
    bench.advance(4)
    peer.respond(1)
    bench.run()
    assert under_way.response.ok and bench.ended and peer.goaway is not None


def test_when_the_grace_is_over_everybody_gets_an_error_of_their_own(make_bench: MakeBench) -> None:
    bench = make_bench(max_connections_per_origin=1)
    peer = bench.open_h2(MAX_CONCURRENT_STREAMS=2)
    calls = [*bench.submit_many(4), bench.submit(source=HandFed())]
    bench.run()
    bench.put(messages.Close(bench.clock.now + 5))
    bench.run()
    bench.advance(5)
    found = [call.error for call in calls]
    assert all(type(error) is PoolClosed for error in found) and len({id(error) for error in found}) == 5
    assert [error.processed for error in found] == ["maybe", "maybe", "no", "no", "no"]
    assert bench.ended and peer.eof


def test_close_cancels_the_dials_and_waits_for_their_word(bench: Bench) -> None:
    call = bench.submit()
    bench.run()
    bench.put(messages.Close(bench.clock.now))
    bench.run()
    assert isinstance(call.error, PoolClosed) and bench.ended and not bench.dialer.pending


def test_a_connection_that_comes_after_the_close_is_closed(bench: Bench) -> None:
    bench.submit()
    bench.run()
    bench.dialer.cancel = lambda: None  # type: ignore[method-assign]
    bench.put(messages.Close(bench.clock.now))
    bench.run()
    assert not bench.ended
    peer = bench.connect_h2()
    bench.run()
    assert bench.ended and peer.eof


def test_of_several_closes_the_least_grace_counts(bench: Bench) -> None:
    bench.open_h2()
    call = bench.submit()
    bench.run()
    bench.put(messages.Close(bench.clock.now + 50))
    bench.put(messages.Close(bench.clock.now + 5))
    bench.put(messages.Close(bench.clock.now + 70))
    bench.run()
    bench.advance(5)
    assert isinstance(call.error, PoolClosed)


def test_a_closed_loops_streamed_reader_gets_pool_closed(bench: Bench) -> None:
    peer, call = bench.open_h2(), bench.submit(stream=True)
    bench.run()
    peer.head(1)
    peer.data(1, b"half")
    bench.run()
    bench.put(messages.Close(bench.clock.now))
    bench.run()
    pieces = call.response.iter_raw()
    assert next(pieces) == b"half"
    with pytest.raises(PoolClosed):
        next(pieces)


@pytest.mark.parametrize("connect", ["connect_h2", "connect_h1"])
def test_a_connection_that_was_still_being_dialled_is_retired_too(bench: Bench, connect: str) -> None:
    # No route leads to this loop any more: idle, it would stay for `Limits.idle_s`.
    bench.put(messages.Prewarm(1))
    bench.run()
    bench.put(messages.Retire())
    bench.run()
    assert not bench.ended
    getattr(bench, connect)()
    bench.run()
    assert bench.ended


@pytest.mark.parametrize("connect", ["connect_h2", "connect_h1"])
def test_what_comes_after_a_retirement_is_served_and_then_the_loop_ends(bench: Bench, connect: str) -> None:
    bench.put(messages.Retire())
    call = bench.submit("/late")
    bench.run()
    peer = getattr(bench, connect)()
    peer.answers = True
    bench.run()
    assert call.response.content == b"/late" and bench.ended


# -- crashes -----------------------------------------------------------------------------------------------------------


class NotAMessage:
    """What no loop knows: it crashes."""


def assert_crashed(bench: Bench, error: Any) -> None:
    assert type(error) is HyperpoolError and "bug in hyperpool" in str(error)
    assert error.origin == "https://a.test" and error.__cause__ is not None
    assert bench.loop.ended
    with pytest.raises(InboxClosed):
        bench.put(messages.Retire())


def test_a_crash_settles_everybody_wherever_they_are(make_bench: MakeBench) -> None:
    # L5
    bench = make_bench(max_connections_per_origin=1)
    peer = bench.open_h2(MAX_CONCURRENT_STREAMS=3)
    on_the_wire = [bench.submit(), bench.submit(source=HandFed()), bench.submit(stream=True)]
    queued = bench.submit_many(3)
    bench.run()
    peer.head(5)
    bench.run()
    before = bench.submit("/before")
    bench.put(NotAMessage())
    behind = bench.submit("/behind")
    bench.run_in_thread()
    found = [call.error for call in [*on_the_wire[:2], *queued, before, behind]]
    for error in found:
        assert_crashed(bench, error)
    assert len({id(error) for error in found}) == len(found)
    with pytest.raises(HyperpoolError, match="bug in hyperpool"):
        on_the_wire[2].response.read()
    peer.carry()
    assert peer.eof


def test_a_crash_while_a_request_is_started_does_not_lose_it(bench: Bench) -> None:
    bench.open_h2()

    def crash(*_: Any, **__: Any) -> int:
        raise ZeroDivisionError

    bench.connections[0]._codec.open = crash  # type: ignore[method-assign]
    calls = bench.submit_many(3)
    bench.run_in_thread()
    for call in calls:
        assert_crashed(bench, call.error)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_without_memory_for_a_response_its_request_fails_and_does_not_hang(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, stream: bool
) -> None:
    # L5: found by stress.faults; its stream was forgotten already, and it stood in no queue.
    peer, call = bench.open_h2(), bench.submit(stream=stream)
    bench.run()

    def no_memory(*_: Any, **__: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(Response, "__init__", no_memory)
    if stream:
        peer.head(1)
    else:
        peer.respond(1, body=b"x")
    peer.carry()
    bench.run_in_thread()
    assert_crashed(bench, call.error)


def test_a_crash_closes_the_connections_that_were_just_dialled(bench: Bench) -> None:
    call = bench.submit()
    bench.run()
    bench.put(NotAMessage())
    ours, theirs = socket.socketpair()
    with theirs:
        bench.put(messages.Dialed(Dialed(bench.route, ours, None, "h2", (), {})))
        bench.run_in_thread()
        assert_crashed(bench, call.error)
        assert theirs.recv(1) == b""


def test_a_loop_that_was_never_run_settles_what_was_put_there(bench: Bench) -> None:
    call = bench.submit()
    bench.loop.discard(PoolClosed("not needed"))
    bench.ended = True
    assert isinstance(call.error, PoolClosed)


# -- done-callbacks ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("raised", [ValueError("mine"), SystemExit(3), KeyboardInterrupt()])
def test_a_callback_that_raises_harms_nobody(
    bench: Bench, caplog: pytest.LogCaptureFixture, raised: BaseException
) -> None:
    peer = bench.open_h2()
    calls = bench.submit_many(3)

    def refuse(_: Any) -> None:
        raise raised

    calls[0].future.add_done_callback(refuse)
    bench.run()
    with caplog.at_level(logging.CRITICAL + 1, "concurrent.futures"):
        for stream_id in (1, 3, 5):
            peer.respond(stream_id)
        bench.run()
    assert all(call.response.ok for call in calls)
    assert bench.submit() and not bench.ended


def test_a_callback_may_submit_the_next_request(bench: Bench) -> None:
    peer, first = bench.open_h2(), bench.submit("/first")
    following: list[Any] = []
    first.future.add_done_callback(lambda _: following.append(bench.submit("/following")))
    peer.answers = True
    bench.run()
    assert following[0].response.text == "/following"


def test_a_callback_of_a_failure_may_submit_the_next_request_to_the_same_loop(bench: Bench) -> None:
    call = bench.submit("/first")
    following: list[Any] = []
    call.future.add_done_callback(lambda _: following.append(bench.submit("/following")))
    bench.run()
    bench.fail_dial(ConnectError("refused"))
    bench.run()
    assert isinstance(call.error, ConnectError) and not following[0].done
    bench.connect_h2().answers = True
    bench.run()
    assert following[0].response.ok


@pytest.mark.parametrize("wait", [lambda call: call.future.result(), lambda call: call.future.exception()])
def test_a_callback_that_waits_for_another_response_is_refused_at_once(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, wait: Callable[[Any], Any]
) -> None:
    # L11
    peer = bench.open_h2()
    monkeypatch.setattr(loop_thread._here, "is_loop", True, raising=False)
    first, other = bench.submit(), bench.submit()
    refused: list[BaseException] = []

    def wait_for_the_other(_: Any) -> None:
        with pytest.raises(RuntimeError, match="I/O thread") as caught:
            wait(other)
        refused.append(caught.value)

    first.future.add_done_callback(wait_for_the_other)
    bench.run()
    peer.respond(1)
    bench.run()
    assert len(refused) == 1
    assert first.future.result().ok  # what is here already does not block


def test_a_callback_that_reads_a_streamed_body_is_refused_at_once(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    # L11
    peer, call = bench.open_h2(), bench.submit(stream=True)
    monkeypatch.setattr(loop_thread._here, "is_loop", True, raising=False)
    refused: list[BaseException] = []

    def read(future: Any) -> None:
        with pytest.raises(RuntimeError, match="I/O thread") as caught:
            future.result().read()
        refused.append(caught.value)

    call.future.add_done_callback(read)
    bench.run()
    peer.head(1)
    bench.run()
    assert len(refused) == 1


def test_a_callback_may_cancel_its_neighbour_and_close_the_loop(bench: Bench) -> None:
    peer = bench.open_h2()
    first, neighbour = bench.submit(), bench.submit()
    first.future.add_done_callback(lambda _: (neighbour.future.cancel(), bench.put(messages.Close(bench.clock.now))))
    bench.run()
    peer.respond(1)
    bench.run()
    assert first.response.ok and neighbour.future.cancelled() and bench.ended


def test_futures_behave_as_any_for_wait_and_as_completed(bench: Bench) -> None:
    peer = bench.open_h2()
    calls = bench.submit_many(10)
    bench.run()
    for stream_id in list(peer.seen)[:5]:
        peer.respond(stream_id)
    bench.run()
    calls[9].future.cancel()
    bench.run()
    futures = [call.future for call in calls]
    waited = concurrent.futures.wait(futures, timeout=0)
    assert waited.done == {*futures[:5], futures[9]}
    assert len(list(concurrent.futures.as_completed(futures[:5], timeout=0))) == 5


# -- figures -----------------------------------------------------------------------------------------------------------


def test_the_stats_tell_what_is_under_way_in_every_state(make_bench: MakeBench) -> None:
    bench = make_bench(max_connections_per_origin=1)
    origin = "https://a.test"
    assert bench.loop.stats == OriginStats(origin, None, 0, 0, 0, 0, 0, 0) and bench.loop.stats.idle
    bench.submit_many(3)
    bench.run()
    assert bench.loop.stats == OriginStats(origin, None, 0, 0, 3, 1, 3, 0) and not bench.loop.stats.idle
    peer = bench.connect_h2(MAX_CONCURRENT_STREAMS=2)
    bench.run()
    assert bench.loop.stats == OriginStats(origin, "HTTP/2", 1, 2, 1, 0, 3, 0)
    for stream_id in (1, 3):
        peer.respond(stream_id)
    bench.run()
    peer.refuse(5)
    bench.run()
    peer.respond(7)
    bench.run()
    assert bench.loop.stats == OriginStats(origin, "HTTP/2", 1, 0, 0, 0, 3, 1) and bench.loop.stats.idle
    bench.advance(90)
    bench.loop._release()
    assert bench.loop.stats == OriginStats(origin, "HTTP/2", 0, 0, 0, 0, 3, 1)


def test_who_has_its_response_finds_itself_in_the_stats_no_more(bench: Bench) -> None:
    peer, call = bench.open_h2(), bench.submit()
    seen: list[OriginStats] = []
    call.future.add_done_callback(lambda _: seen.append(bench.loop.stats))
    peer.answers = True
    bench.run()
    assert seen[0].open_streams == 0


def test_a_dial_that_failed_or_timed_out_is_in_the_stats_no_more(bench: Bench) -> None:
    bench.submit(timeout=Timeout(5))
    bench.run()
    bench.advance(5)
    assert bench.loop.stats[2:6] == (0, 0, 0, 1)
    bench.fail_dial(ConnectError("late"))
    bench.run()
    assert bench.loop.stats[2:6] == (0, 0, 0, 0) and bench.ended


def test_the_repr_tells_the_state(bench: Bench) -> None:
    bench.open_h2()
    bench.submit()
    bench.run()
    assert repr(bench.loop) == "<OriginLoop https://a.test HTTP/2 open=1 queued=0>"
    assert repr(bench.connections[0]) == "<Http2Connection open load=1 backlog=0>"
