"""X1: what a forked child does with what came along: no lock of a thread that is not there holds it up."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, as_completed, wait
from typing import Any

import pytest

from hyperpool.errors import ConnectionLost
from hyperpool.handoff import body
from hyperpool.handoff.body import BodyPipe, BytesUpload, UploadPipe
from hyperpool.handoff.futures import LoopFuture, SoleWaiter
from hyperpool.handoff.loop_thread import enter_loop_thread, leave_loop_thread, on_loop_thread
from hyperpool.handoff.source import BytesSource, FedSource, StreamSource

LOST = ConnectionLost("forked")


def hold(in_thread: Callable[..., Any], *locks: Any) -> None:
    """Take the locks on a thread that ends, and leave them taken: so a child finds those of its parent's threads."""
    in_thread(lambda: [lock.acquire() for lock in locks]).value()


def test_a_future_fails_although_its_condition_was_held(in_thread) -> None:
    future: LoopFuture[str] = LoopFuture()
    hold(in_thread, future._condition)
    future.abandon_in_child(LOST)
    assert future.exception(0) is LOST


def test_a_future_that_was_just_being_resolved_fails() -> None:
    future: LoopFuture[str] = LoopFuture()
    future.set_running_or_notify_cancel()
    future.abandon_in_child(LOST)
    assert future.exception(0) is LOST


def test_a_future_that_was_resolved_stays_so() -> None:
    future: LoopFuture[str] = LoopFuture()
    future.set_result("here")
    future.abandon_in_child(LOST)
    assert future.result(0) == "here"


def test_a_cancelled_future_is_told_to_those_who_wait_for_several(in_thread) -> None:
    futures: list[LoopFuture[str]] = [LoopFuture(), LoopFuture()]
    futures[0].set_result("here")
    coming = as_completed(futures, timeout=30)
    assert next(coming) is futures[0]
    futures[1].cancel()
    waiter = futures[1]._waiters[0]
    hold(in_thread, waiter.lock, waiter.event._cond)
    futures[1].abandon_in_child(LOST)
    assert next(coming) is futures[1]


def test_a_callers_callbacks_are_not_run_but_queues_are_filled() -> None:
    future: LoopFuture[str] = LoopFuture()
    ran: list[Any] = []
    filled: queue.SimpleQueue[Any] = queue.SimpleQueue()
    future.add_done_callback(ran.append)
    future.add_done_callback(filled.put)
    future.abandon_in_child(LOST)
    assert ran == [] and filled.get_nowait() is future


def test_a_reader_gets_what_is_here_and_then_the_error(in_thread) -> None:
    pipe = BodyPipe(credit=lambda _: None, credit_step_bytes=1)
    pipe.feed(b"here")
    hold(in_thread, pipe._cond)
    pipe.abandon_in_child(LOST)
    assert pipe.take() == b"here"
    with pytest.raises(ConnectionLost):
        pipe.take()


def test_a_body_that_was_complete_stays_so() -> None:
    pipe = BodyPipe(credit=lambda _: None, credit_step_bytes=1)
    pipe.feed(b"all")
    pipe.finish([])
    pipe.abandon_in_child(LOST)
    assert (pipe.take(), pipe.take()) == (b"all", b"")


def waiting_at(condition: Any, call: Callable[[], Any], in_thread: Callable[..., Any]) -> Any:
    """Who has made this call, and waits at this condition for what comes of it: as the thread that has forked, where
    that was in a signal handler."""
    waiter = in_thread(call)
    while not is_waited_at(condition):
        waiter.join(0.001)
    return waiter


def is_waited_at(condition: Any) -> bool:
    """Whether somebody waits there, and has let go of its lock: who comes enters his name while he holds it yet."""
    with condition:
        return bool(condition._waiters)


def test_who_has_forked_while_waiting_for_a_future_is_told(in_thread) -> None:
    future: LoopFuture[str] = LoopFuture()
    waiter = waiting_at(future._condition, lambda: future.exception(30), in_thread)
    future.abandon_in_child(LOST)
    assert waiter.value() is LOST


WAYS_TO_WAIT: list[Callable[..., Any]] = [
    lambda one: wait([one]),
    lambda one: wait([one], return_when=FIRST_COMPLETED),
    lambda one: next(as_completed([one])),
]


@pytest.mark.parametrize("wait_for", WAYS_TO_WAIT)
def test_and_while_waiting_for_several(in_thread, wait_for: Callable[..., Any]) -> None:
    future: LoopFuture[str] = LoopFuture()
    waiter = in_thread(lambda: wait_for(future))
    while not future._waiters or not is_waited_at(future._waiters[0].event._cond):
        waiter.join(0.001)
    future.abandon_in_child(LOST)
    waiter.value()
    assert future.exception(0) is LOST


def test_and_while_reading(in_thread) -> None:
    pipe = BodyPipe(credit=lambda _: None, credit_step_bytes=1)
    waiter = waiting_at(pipe._cond, lambda: raised(pipe.take), in_thread)
    pipe.abandon_in_child(LOST)
    assert type(waiter.value()) is ConnectionLost


def test_and_while_feeding(in_thread) -> None:
    pipe = UploadPipe(capacity_bytes=1, notify=lambda: None)
    pipe.feed(b"full")
    waiter = waiting_at(pipe._cond, lambda: pipe.feed(b"more"), in_thread)
    pipe.abandon_in_child()
    assert waiter.value() is False


def test_who_has_forked_with_a_pipe_in_hand_still_has_it() -> None:
    pipe = BodyPipe(credit=lambda _: None, credit_step_bytes=1)
    with pipe._lock:
        pipe.abandon_in_child(LOST)
    with pytest.raises(ConnectionLost):
        pipe.take()


def test_a_sole_waiter_whose_loop_was_about_to_wake_it_is_woken(in_thread) -> None:
    alone: SoleWaiter[Any] = SoleWaiter(lambda: None)
    alone._outcome, alone._done = "here", True
    alone.abandon_in_child(LOST)
    assert in_thread(alone.result).value() == "here"


def test_a_sole_waiter_that_was_woken_stays_so() -> None:
    alone: SoleWaiter[Any] = SoleWaiter(lambda: None)
    alone.set_result("here")
    alone.abandon_in_child(LOST)
    assert alone.result() == "here"


def raised(call: Callable[[], Any]) -> BaseException | None:
    try:
        call()
    except BaseException as error:
        return error
    return None


def test_a_complete_body_can_be_read_although_a_second_reader_held_its_lock(in_thread, monkeypatch) -> None:
    """Its exchange has ended: no loop knows it any more, so it must help itself."""
    pipe = BodyPipe(credit=lambda _: None, credit_step_bytes=1)
    pipe.feed(b"all")
    pipe.finish([])
    hold(in_thread, pipe._cond)
    monkeypatch.setattr(body, "_process", body._process)
    body._become_child()
    assert pipe.take() == b"all"
    assert not pipe.abandon()


def test_a_feeder_is_sent_home(in_thread) -> None:
    pipe = UploadPipe(capacity_bytes=1, notify=lambda: None)
    pipe.feed(b"full")
    hold(in_thread, pipe._cond)
    pipe.abandon_in_child()
    assert not pipe.feed(b"more")


def test_who_feeds_a_source_by_hand_is_sent_home(in_thread) -> None:
    fed = FedSource(capacity_bytes=1)
    fed.feed(b"full")
    hold(in_thread, fed._pipe._cond)
    fed.abandon_in_child()
    assert not fed.feed(b"more")


def test_other_bodies_have_nobody_to_send_home() -> None:
    BytesSource(b"x").abandon_in_child()
    StreamSource(lambda: iter(()), length_bytes=None, replayable=True).abandon_in_child()
    upload = BytesUpload(b"x")
    upload.abandon_in_child()
    assert upload.take(1).data == b""


def test_the_thread_that_forked_is_no_io_thread_any_more() -> None:
    seen: list[bool] = []

    def fork() -> None:
        enter_loop_thread()
        seen.append(on_loop_thread())
        leave_loop_thread()
        seen.append(on_loop_thread())

    thread = threading.Thread(target=fork)
    thread.start()
    thread.join()
    assert seen == [True, False]
