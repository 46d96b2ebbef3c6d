"""The pool and its loops under every schedule: submit, close, end, retire and cancel at the same time (L2, L5).

The loops are real, each on a thread of the model; their selector and wake-up are flags, and all dials fail. So a loop
ends as soon as nobody waits, which is when most can go wrong: somebody may be about to submit.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from schedule_kit import FlagSelector, FlagWakeup, ModelPool, finds, model_process, search, spawn, together

from hyperpool.engine import dial_cancel as dial_cancel_room
from hyperpool.engine import loop as loop_room
from hyperpool.engine.dial_cancel import DialCancel
from hyperpool.engine.loop import OriginLoop
from hyperpool.errors import ConnectError, HyperpoolError, PoolClosed
from hyperpool.handoff.inbox import InboxClosed
from hyperpool.handoff.messages import DialFailed, Drain
from hyperpool.loops import Loops
from hyperpool.pool import ConnectionPool
from hyperpool.process import tell
from hyperpool.urls import parse_url
from hyperpool.values import Limits, Request, Route, Timeout

REQUEST = Request("GET", "https://a.test/", timeout=Timeout(None))
OTHER = Request("GET", "https://b.test/", timeout=Timeout(None))


@pytest.fixture(autouse=True)
def modelled(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Loops and dials of this file make flags where they would make sockets."""
    model_process(monkeypatch)
    monkeypatch.setattr(loop_room, "SocketWakeup", FlagWakeup)
    monkeypatch.setattr(dial_cancel_room, "SocketWakeup", FlagWakeup)
    monkeypatch.setattr(loop_room.selectors, "DefaultSelector", FlagSelector)
    logging.disable()  # a handler's lock that is made inside a run would belong to its scheduler
    yield
    logging.disable(logging.NOTSET)


class FailingDialer:
    """Dials on threads, none of which gets anywhere."""

    phase = None

    def start(self, deliver: Callable[[Any], None], *, deadline_at: float) -> None:
        spawn(self._fail, deliver)

    def _fail(self, deliver: Callable[[Any], None]) -> None:
        try:
            deliver(DialFailed(ConnectError("nobody is there")))
        except InboxClosed:
            return

    def speak_http1(self) -> None:
        """It never comes to that."""

    def cancel(self) -> None:
        """They end by themselves."""


def make_loop(route: Route, limits: Limits) -> OriginLoop:
    # The virtual clock, which is there for as long as a search lasts; the default was bound before.
    return OriginLoop(route, limits, FailingDialer(), clock=time.monotonic)


class Pool(ModelPool):
    """A pool with such loops."""

    def __init__(self, kind: type[Loops] = Loops, **limits: Any) -> None:
        super().__init__(make_loop, kind, **limits)

    def check_that_all_is_over(self) -> None:
        for loop in self.made:
            assert loop.ended, f"{loop!r} was left running"
            assert not loop.inbox.close(), "L2: a message that nobody takes"


class Caller:
    """One thread's requests, and what came of them."""

    def __init__(self, pool: ConnectionPool, *requests: Request, waits: bool = True) -> None:
        self._pool = pool
        self._requests = requests or (REQUEST,)
        self._waits = waits
        self.futures: list[Any] = []
        self.refused = 0

    def __call__(self) -> None:
        for request in self._requests:
            try:
                self.futures.append(self._pool.submit(request))
            except PoolClosed:
                self.refused += 1
                continue
            if self._waits:
                self.futures[-1].exception()

    def check(self) -> None:
        assert len(self.futures) + self.refused == len(self._requests)
        for future in self.futures:
            assert future.done(), "L5: accepted, and never answered"
            assert isinstance(future.exception(), (ConnectError, PoolClosed))


def submits_and_a_close(kind: type[Loops] = Loops) -> None:
    pool = Pool(kind)
    callers = [Caller(pool, waits=False), Caller(pool, OTHER, waits=False)]
    together(*callers, lambda: pool.close(grace_s=0))
    for caller in callers:
        caller.check()
    pool.check_that_all_is_over()


def submits_to_a_loop_that_keeps_ending(kind: type[Loops] = Loops) -> None:
    pool = Pool(kind)
    callers = [Caller(pool, REQUEST, REQUEST), Caller(pool)]
    together(*callers)
    for caller in callers:
        caller.check()
        assert not caller.refused, "this pool was not closed"
    pool.close(grace_s=0)
    pool.check_that_all_is_over()


def three_first_requests() -> None:
    """The loop of an origin is made by whoever comes first; its dial fails for all of them."""
    pool = Pool()
    callers = [Caller(pool, waits=False) for _ in range(3)]
    together(*callers)
    assert len(pool._loops._by_route) <= 1
    pool.close(grace_s=0)
    for caller in callers:
        caller.check()
    pool.check_that_all_is_over()


def a_cancel_while_the_dial_fails() -> None:
    pool = Pool()
    future = pool.submit(REQUEST)
    called_back: list[Any] = []
    future.add_done_callback(called_back.append)
    cancelled: list[bool] = []
    together(lambda: cancelled.append(future.cancel()), lambda: pool.close(grace_s=0))
    assert future.done() and len(called_back) == 1
    assert future.cancelled() is cancelled[0]
    pool.check_that_all_is_over()


def a_callback_that_submits_again_while_the_pool_closes() -> None:
    pool = Pool()
    again: list[Any] = []

    def retry(_: Any) -> None:
        try:
            again.append(pool.submit(REQUEST))
        except PoolClosed as error:
            again.append(error)

    first = pool.submit(REQUEST)
    together(lambda: first.add_done_callback(retry), lambda: pool.close(grace_s=0))
    assert len(again) == 1
    assert isinstance(again[0], PoolClosed) or again[0].done()
    pool.check_that_all_is_over()


def two_closes_and_one_from_a_callback() -> None:
    pool = Pool()
    future = pool.submit(REQUEST)
    future.add_done_callback(lambda _: pool.close(grace_s=0))
    together(lambda: pool.close(grace_s=0), lambda: pool.close(grace_s=0))
    assert future.done()
    pool.check_that_all_is_over()


def a_retirement_and_a_submit() -> None:
    pool = Pool()
    caller = Caller(pool, REQUEST, waits=False)
    route = pool.route(parse_url(REQUEST.url).origin)
    together(caller, lambda: pool.retire(route), Caller(pool))
    pool.close(grace_s=0)
    caller.check()
    pool.check_that_all_is_over()


def more_origins_than_are_allowed() -> None:
    """Each origin that comes pushes out the one that has been idle for longest, or is refused."""
    pool = Pool(max_origins=1)
    outcomes: list[Any] = []

    def ask(request: Request) -> None:
        try:
            outcomes.append(pool.submit(request).exception())
        except HyperpoolError as error:
            outcomes.append(error)

    together(lambda: ask(REQUEST), lambda: ask(OTHER))
    assert len(outcomes) == 2 and all(isinstance(one, HyperpoolError) for one in outcomes)
    assert len(pool._loops._by_route) <= 1
    pool.close(grace_s=0)
    pool.check_that_all_is_over()


def an_exit_while_others_submit() -> None:
    """The hook of the interpreter's end asks to be told when all are answered, and is."""
    pool = Pool()
    first = pool.submit(REQUEST)

    def drain() -> None:
        for loop in pool._loops.alive():
            answered = threading.Event()
            if tell(loop, Drain(answered.set)):
                answered.wait()
        assert first.done(), "said before it was so"

    caller = Caller(pool, waits=False)
    together(drain, caller)
    pool.close(grace_s=0)
    caller.check()
    pool.check_that_all_is_over()


class DoesNotLookAgain(Loops):
    """L2 broken: a loop is made for a pool that was open a moment ago."""

    def _add_loop(self, route: Route, made: OriginLoop) -> OriginLoop:
        with self._lock:
            self._start_locked(route, made)
        return made


class AsksOnce(Loops):
    """L2 broken: a loop that has ended is taken for a closed pool."""

    def put(self, route: Route, message: Any, exchange: Any = None) -> None:
        loop = self._loop_for(route)
        exchange.inbox = loop.inbox
        try:
            loop.inbox.put(message)
        except InboxClosed:
            raise PoolClosed("once is enough") from None


# Switches come between lines here: a model with loops in it has thousands of opcodes.
LINES = {"granularity": "line"}


@pytest.mark.parametrize(
    "model",
    [
        submits_and_a_close,
        submits_to_a_loop_that_keeps_ending,
        three_first_requests,
        a_cancel_while_the_dial_fails,
        a_callback_that_submits_again_while_the_pool_closes,
        two_closes_and_one_from_a_callback,
        a_retirement_and_a_submit,
        more_origins_than_are_allowed,
        an_exit_while_others_submit,
    ],
)
def test_every_request_is_answered_or_refused_and_no_loop_stays(model: Callable[[], None]) -> None:
    search(model, **LINES)


def test_the_search_finds_a_loop_that_is_added_to_a_closed_pool() -> None:
    assert finds(lambda: submits_and_a_close(DoesNotLookAgain), **LINES)


def test_the_search_finds_a_request_that_meets_a_loop_at_its_end() -> None:
    assert finds(lambda: submits_to_a_loop_that_keeps_ending(AsksOnce), **LINES)


# -- ending a dial -----------------------------------------------------------------------------------------------------


def a_dial(cancel: DialCancel, *, looks_first: bool = False) -> None:
    """As `dial` does it: its wake-up is known before it looks whether it was cancelled."""
    if looks_first and cancel.cancelled:
        return
    wakeup: Any = cancel.attach(lambda: None)
    try:
        while looks_first or not cancel.cancelled:
            wakeup.wait()
            wakeup.drain()
            if looks_first:
                return
    finally:
        cancel.detach(wakeup)


def dials_and_their_end(*, looks_first: bool = False) -> None:
    cancel = DialCancel()
    together(
        lambda: a_dial(cancel, looks_first=looks_first), lambda: a_dial(cancel, looks_first=looks_first), cancel.cancel
    )
    assert not cancel._wakeups


def a_dial_that_ends_while_its_race_wakes_it() -> None:
    cancel = DialCancel()
    wakeup: Any = cancel.attach(lambda: None)
    together(lambda: cancel.wake(wakeup), lambda: cancel.detach(wakeup), cancel.cancel)
    assert not cancel._wakeups


def test_a_dial_that_is_cancelled_while_it_begins_ends() -> None:
    search(dials_and_their_end)


def test_a_dial_may_end_while_it_is_woken() -> None:
    search(a_dial_that_ends_while_its_race_wakes_it)


def test_the_search_finds_a_dial_that_looks_too_early() -> None:
    assert "deadlock" in str(finds(lambda: dials_and_their_end(looks_first=True)))
