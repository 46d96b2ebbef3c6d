"""A signal handler that raises, as that of Ctrl-C does, may do so wherever the main thread calls or returns: no lock
that a loop takes may stay locked by that, and no wake-up be lost (L3, L4).

The moments are built by hand: see tests/interrupts.py.
"""

from __future__ import annotations

import gzip
import itertools
import threading
from collections.abc import Callable
from typing import Any

import pytest
from handoff_kit import FakeWakeup, make_response, open_pipe, streaming

from hyperpool.errors import ResponseClosed
from hyperpool.handoff.body import UploadPipe
from hyperpool.handoff.forks import ForkGate
from hyperpool.handoff.futures import LoopFuture, ResponseFuture
from hyperpool.handoff.inbox import Inbox
from hyperpool.handoff.response import Response
from hyperpool.policy.courier import Courier, Step
from interrupts import Interrupt, each, interrupted_at, into, reads_on_or_is_told, until_empty


def is_free(lock: Any, in_thread: Callable[[Callable[[], object]], Any]) -> bool:
    """Whether another thread can take it."""

    def take_and_release() -> bool:
        return bool(lock.acquire(blocking=False) and (lock.release() is None))

    return bool(in_thread(take_and_release).value())


def fed_pipe() -> Any:
    pipe = open_pipe()
    pipe.feed(b"abc")
    return pipe


def through(gate: ForkGate) -> None:
    with gate:
        pass


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
    "gate": (ForkGate, through),
    "close and open": (ForkGate, lambda gate: (gate.close(), gate.open())),
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


BODY = b"ab\nc\n"


READS: dict[str, Callable[[Response, list[Any]], None]] = {
    "read": lambda response, got: until_empty(lambda: response.read(2), got),
    "read all": lambda response, got: got.append(response.read()),
    "read1": lambda response, got: until_empty(response.read1, got),
    "readinto": into,
    "readline": lambda response, got: until_empty(response.readline, got),
    "readlines": lambda response, got: got.extend(response.readlines()),
    "iter_bytes": lambda response, got: each(response.iter_bytes(), got),
    "iter_bytes of a size": lambda response, got: each(response.iter_bytes(2), got),
    "iter_raw": lambda response, got: each(response.iter_raw(), got),
    "iter_text": lambda response, got: each((text.encode() for text in response.iter_text()), got),
    "iter_lines": lambda response, got: each((f"{line}\n".encode() for line in response.iter_lines()), got),
    "content": lambda response, got: got.append(response.content),
}
GOES_ON = {"iter_text": "iter_text", "iter_lines": "iter_lines", "iter_raw": "iter_raw"}


@pytest.mark.slow
@pytest.mark.parametrize("coding", ["", "gzip"])
@pytest.mark.parametrize("way", READS)
def test_who_was_interrupted_reads_on_without_a_gap_or_is_told(way: str, coding: str) -> None:
    """At each line of ours: a body of which a piece was lost never looks whole."""
    body = gzip.compress(BODY, mtime=0) if coding else BODY
    fields = [(b"content-encoding", b"gzip")] if coding else []
    whole = body if way == "iter_raw" else BODY

    def read_on(response: Response) -> bytes:
        rest: list[bytes] = []
        READS[GOES_ON.get(way, "read all")](response, rest)
        return b"".join(rest)

    reads_on_or_is_told(
        lambda: make_response([body[:4], body[4:]], streamed=True, fields=fields),
        READS[way],
        read_on,
        (whole, whole * 2) if way == "content" else (whole,),
    )


def test_a_buffer_that_cannot_be_written_takes_nothing() -> None:
    response = make_response([b"abc"], streamed=True)
    with pytest.raises(TypeError, match="writable"):
        response.readinto(b"123")
    assert response.read() == b"abc"


def test_who_waited_for_what_never_came_may_read_on_and_so_may_any_other_thread(
    in_thread: Callable[[Callable[[], object]], Any],
) -> None:
    pipe = open_pipe()

    def interrupt() -> bool:
        raise Interrupt

    response, wait = streaming(pipe), pipe._cond.wait
    pipe._cond.wait = lambda timeout=None: interrupt()  # type: ignore[method-assign]
    for read in (lambda: response.read(1), lambda: next(response.iter_bytes()), lambda: response.content):
        with pytest.raises(Interrupt):
            read()
    pipe._cond.wait = wait  # type: ignore[method-assign]
    pipe.feed(b"abc")
    pipe.finish([])
    assert in_thread(lambda: response.read(1)).value() == b"a" and response.read() == b"bc"


def test_who_was_interrupted_when_a_piece_had_left_the_pipe_is_told() -> None:
    def credit(taken_bytes: int) -> None:
        raise Interrupt

    pipe = open_pipe(credit)
    pipe.feed(b"abc")
    response = streaming(pipe)
    with pytest.raises(Interrupt):
        response.read(1)
    with pytest.raises(ResponseClosed, match="interrupted"):
        response.read(1)
    response.close()


def test_another_thread_is_told_of_the_interrupt_as_well(in_thread: Callable[[Callable[[], object]], Any]) -> None:
    response = make_response([b"a", b"b"], streamed=True)
    assert interrupted_at(6, lambda: response.read(1), lines=True)
    with pytest.raises(ResponseClosed, match="interrupted"):
        in_thread(lambda: response.read(1)).value()


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
