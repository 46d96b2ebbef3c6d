"""A signal handler that raises, as that of Ctrl-C does, may do so wherever the main thread calls or returns: no lock
that a loop takes may stay locked by that, and no wake-up be lost (L3, L4).

The moments are built by hand: a trace function raises at the Nth of them, for N = 1, 2, 3, ... until there is no Nth.
"""

from __future__ import annotations

import itertools
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest
from handoff_kit import FakeWakeup, make_response, open_pipe

from hyperpool.handoff.body import UploadPipe
from hyperpool.handoff.futures import LoopFuture, ResponseFuture
from hyperpool.handoff.inbox import Inbox
from hyperpool.handoff.response import Response
from hyperpool.policy.courier import Courier, Step


class Interrupt(BaseException):
    """What the handler raises."""


def interrupted_at(n: int, call: Callable[[], object]) -> bool:
    """Run it with an interrupt where it calls or returns for the Nth time; whether it did so as often."""
    steps = itertools.count(1)

    def trace(frame: Any, event: str, arg: Any) -> Any:
        frame.f_trace_lines = False  # the interpreter looks for signals in calls and loops, not at each line
        if next(steps) == n:
            sys.settrace(None)
            raise Interrupt
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    except Interrupt:
        return True
    finally:
        sys.settrace(before)
    return False


def is_free(lock: Any, in_thread: Callable[[Callable[[], object]], Any]) -> bool:
    """Whether another thread can take it."""

    def take_and_release() -> bool:
        return bool(lock.acquire(blocking=False) and (lock.release() is None))

    return bool(in_thread(take_and_release).value())


def fed_pipe() -> Any:
    pipe = open_pipe()
    pipe.feed(b"abc")
    return pipe


def upload_pipe() -> Any:
    return UploadPipe(capacity_bytes=10, notify=lambda: None)


def future() -> Any:
    return ResponseFuture(lambda: None)


def resolved() -> Any:
    made: LoopFuture[int] = LoopFuture()
    made.set_result(1)
    return made


CALLS: dict[str, tuple[Callable[[], Any], Callable[[Any], object]]] = {
    "take": (fed_pipe, lambda pipe: pipe.take()),
    "is_ready": (fed_pipe, lambda pipe: pipe.is_ready(lambda: None)),
    "abandon": (fed_pipe, lambda pipe: pipe.abandon()),
    "buffered_bytes": (fed_pipe, lambda pipe: pipe.buffered_bytes),
    "feed": (upload_pipe, lambda pipe: pipe.feed(b"abc")),
    "finish": (upload_pipe, lambda pipe: pipe.finish()),
    "has_room": (upload_pipe, lambda pipe: pipe.has_room(lambda: None)),
    "done": (future, lambda one: one.done()),
    "cancel": (future, lambda one: one.cancel()),
    "cancelled": (future, lambda one: one.cancelled()),
    "add_done_callback": (future, lambda one: one.add_done_callback(print)),
    "result": (resolved, lambda one: one.result()),
    "exception": (resolved, lambda one: one.exception()),
    "take_up": (Courier, lambda courier: courier.take_up(Step)),
    "set_down": (Courier, lambda courier: courier.set_down(Step)),
    "put": (lambda: Inbox(FakeWakeup()), lambda inbox: inbox.put(1)),
}


@pytest.mark.parametrize("name", CALLS)
def test_no_lock_stays_locked(name: str, in_thread: Callable[[Callable[[], object]], Any]) -> None:
    make, call = CALLS[name]
    for n in itertools.count(1):
        subject = make()
        lock = subject._condition._lock if isinstance(subject, LoopFuture) else subject._lock
        more = interrupted_at(n, lambda subject=subject: call(subject))  # type: ignore[misc]
        assert is_free(lock, in_thread), f"an interrupt at step {n} left it locked"
        if not more:
            break
    assert n > 1


@pytest.mark.parametrize("read", [lambda one: one.read(1), lambda one: next(one.iter_bytes(1)), Response.readline])
def test_who_was_interrupted_may_read_on(read: Callable[[Response], object]) -> None:
    for n in itertools.count(1):
        response = make_response([b"a\n", b"b\n", b"c\n"], streamed=True)
        more = interrupted_at(n, lambda response=response: read(response))  # type: ignore[misc]
        read(response)
        if not more:
            break


def test_a_condition_of_another_kind_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    # A model of threads, or a debugger, has its own in the place of the standard library's.
    class Modelled(threading.Condition):
        pass

    monkeypatch.setattr(threading, "Condition", Modelled)
    assert type(future()._condition) is Modelled


def test_no_wake_up_is_lost() -> None:
    """L3: what an interrupted put has left there is found with the next one at the latest."""
    for n in itertools.count(1):
        wakeup = FakeWakeup()
        inbox = Inbox(wakeup)
        assert inbox.may_sleep()
        more = interrupted_at(n, lambda inbox=inbox: inbox.put(1))  # type: ignore[misc]
        inbox.put(2)
        assert wakeup.woken, f"an interrupt at step {n} lets the loop sleep on"
        if not more:
            break
