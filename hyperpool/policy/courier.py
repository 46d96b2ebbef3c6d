"""The thread on which submitted requests go on: after a redirect, before a retry, while cookies are being read.

An I/O thread must neither wait nor run code of the caller (L4), and whoever called `submit` is gone. So what follows
from a response is decided here. There is one courier for a client; its thread begins with the first step, and ends when
there has been none for a while. It counts as an I/O thread: done-callbacks run on it, and must not block (L11).
"""

from __future__ import annotations

import heapq
import itertools
import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple, Protocol

from hyperpool.errors import HyperpoolError, PoolClosed
from hyperpool.handoff.deadlines import LONGEST_SLEEP_S
from hyperpool.handoff.inbox import until_there_is_memory
from hyperpool.handoff.loop_thread import enter_loop_thread, may_join

# Seconds without a step after which the thread ends. Making one anew costs about 100 us: more is of no use.
IDLE_S = 2.0

logger = logging.getLogger("hyperpool")

# And nothing more comes of it: a done-callback's SystemExit must not end what others wait for.
_FAILED = "a done-callback failed"


class Step(NamedTuple):
    """What to do, or, if it cannot be done any more, whom to tell."""

    run: Callable[[], None]
    fail: Callable[[BaseException], None]


class Rider(Protocol):
    """Whoever has steps here, and somebody waiting for it."""

    def abandon_in_child(self, error: HyperpoolError) -> None: ...


class Courier:
    """Runs steps on a thread of its own, each when it is due.

    Shared; guarded by _lock.
    """

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self._lock = threading.RLock()  # taken itself: see `handoff.body`
        self._cond = threading.Condition(self._lock)
        self._due: list[tuple[float, int, Step]] = []
        self._numbers = itertools.count()
        self._thread: threading.Thread | None = None
        self._closed = False
        # Those that have a Future to resolve, wherever they are now: a forked child has nobody else who could tell it.
        self._riders: dict[Rider, None] = {}

    def take_up(self, rider: Rider) -> None:
        """From now on this one has a Future of somebody's to resolve."""
        with self._lock:
            self._riders[rider] = None

    def set_down(self, rider: Rider) -> None:
        """It is resolved."""
        with self._lock:
            self._riders.pop(rider, None)

    def put(self, step: Step, delay_s: float = 0.0) -> bool:
        """Have a step run; whether it will be, which it will not after `close`. Never blocks for long.

        Raises HyperpoolError where no thread can be started: then nothing of it happens.
        """
        with self._lock:
            if self._closed:
                return False
            if self._thread is None:
                self._start_locked()
            heapq.heappush(self._due, (time.monotonic() + delay_s, next(self._numbers), step))
            self._cond.notify()
        return True

    def _start_locked(self) -> None:
        thread = threading.Thread(target=self._run, name="hyperpool courier", daemon=True)
        try:
            # Under the lock, so that whoever finds the thread finds it running: `close` could not join it otherwise.
            thread.start()
        except RuntimeError as cause:
            raise HyperpoolError(f"the thread that follows redirects and retries did not start: {cause}") from cause
        # Last: where it was not started, whatever the reason, the next step starts another one.
        self._thread = thread

    def _run(self) -> None:
        enter_loop_thread()
        while (step := until_there_is_memory(self._next)) is not None:
            _carry_out(step)
            del step  # it holds a response, which may be forgotten while this thread waits
        until_there_is_memory(self._fail_the_rest)

    def _next(self) -> Step | None:
        """The next step that is due; None when this thread shall end. Blocks."""
        with self._lock:
            idle_at = time.monotonic() + IDLE_S
            while not self._closed:
                now = time.monotonic()
                if self._due and self._due[0][0] <= now:
                    return heapq.heappop(self._due)[2]
                if not self._due and now >= idle_at:
                    self._thread = None
                    return None
                self._cond.wait(min((self._due[0][0] if self._due else idle_at) - now, LONGEST_SLEEP_S))
            return None

    def _fail_the_rest(self) -> None:
        while self._closed and self._due:
            _fail(self._due[0][2], PoolClosed("the client was closed before this request could go on: close it later"))
            heapq.heappop(self._due)

    def close(self) -> None:
        """Fail what waits, and end the thread. Blocks until it has ended, but for a call on an I/O thread."""
        with self._lock:
            self._closed = True
            self._cond.notify_all()  # one whose start was interrupted may run beside the one that is known
            thread = self._thread
        if thread is not None and may_join():
            thread.join()

    def start_anew_in_child(self) -> None:
        """After a fork: the parent's thread is not here, and its requests are its own."""
        closed, riders = self._closed, list(self._riders)
        self._begin()
        self._closed = closed
        for rider in riders:
            rider.abandon_in_child(HyperpoolError("this process was forked while the request was under way"))


def _carry_out(step: Step) -> None:
    try:
        step.run()
    except BaseException as error:
        # Whoever waits for it may not have been told (L5); if so, it was a done-callback's own fault.
        until_there_is_memory(_fail, step, error)
        with suppress(MemoryError):
            logger.exception(_FAILED)


def _fail(step: Step, error: BaseException) -> None:
    try:
        step.fail(error)
    except MemoryError:
        raise
    except BaseException:
        logger.exception(_FAILED)
