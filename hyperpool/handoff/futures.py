"""Futures that an I/O thread resolves, and on which none of our I/O threads may wait (L11)."""

from __future__ import annotations

import _thread
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from hyperpool.handoff.loop_thread import check_may_wait

if TYPE_CHECKING:
    from hyperpool.handoff.pushes import Pushes
    from hyperpool.handoff.response import Response  # noqa: F401 - what a ResponseFuture is of

T = TypeVar("T")


_Condition = threading.Condition
# The states of a Future in which it is said already whether it goes on, or is over.
_SAID = ("RUNNING", "CANCELLED_AND_NOTIFIED", "FINISHED")
_CANCELLED = ("CANCELLED", "CANCELLED_AND_NOTIFIED")
_DONE = ("FINISHED", *_CANCELLED)


class _SafeCondition(threading.Condition):
    """A condition that no signal leaves locked.

    Where a handler raises, as that of Ctrl-C does, the standard library's may stay locked: it takes its lock in Python
    code, which may be left before the with block is entered. A loop that is to settle that Future would wait for ever,
    and with it everybody who asks its origin. Here `with`, which is all that Futures use, gets the methods of the lock
    itself, which are C.
    """

    __enter__ = property(attrgetter("_lock.__enter__"))
    __exit__ = property(attrgetter("_lock.__exit__"))


class LoopFuture(Future[T]):
    """A Future that a loop resolves.

    Shared; guarded by its own condition.
    """

    def __init__(self) -> None:
        super().__init__()
        if self._condition.__class__ is _Condition:  # else it is one of a debugger's, or of a model of threads
            self._condition.__class__ = _SafeCondition

    # Without the condition, which each request would take twice for these: a state is one reference.

    def cancelled(self) -> bool:
        """Whether it was cancelled."""
        return self._state in _CANCELLED

    def done(self) -> bool:
        """Whether it was cancelled, or is resolved."""
        return self._state in _DONE

    def result(self, timeout: float | None = None) -> T:
        """What came of it. Blocks. Raises its error, CancelledError, or TimeoutError after ``timeout``."""
        if not self.done():
            check_may_wait("Future.result()")
        return super().result(timeout)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Its error or None. Blocks like `result`."""
        if not self.done():
            check_may_wait("Future.exception()")
        return super().exception(timeout)

    def set_running_or_notify_cancel(self) -> bool:
        """As of `Future`; but a loop may say it again, if memory ran out before it had said the outcome.

        False, too, where the caller has resolved it, which no Future forbids: to resolve it again would log.
        """
        if self._state in _SAID:
            return self.running()
        return super().set_running_or_notify_cancel()

    def abandon_in_child(self, error: BaseException) -> None:
        """After a fork, in the child: no thread is here that could resolve it, so it fails with ``error``.

        The caller's done-callbacks are dropped: what they do with the outcome is done once, in the parent.
        """
        # A thread that is not here may have held the condition, or the locks of those who wait in `wait` and
        # `as_completed`. By this method the standard library makes its own locks usable after a fork.
        _renew(self._condition)
        waiters: list[Any] = list(self._waiters)
        for waiter in waiters:
            _renew(waiter.event._cond)
            if hasattr(waiter, "lock"):
                waiter.lock._at_fork_reinit()
        callbacks: list[Callable[..., object]] = vars(self)["_done_callbacks"]
        callbacks[:] = [one for one in callbacks if _hands_over(one)]
        if self.running() or (not self.done() and self.set_running_or_notify_cancel()):
            self.set_exception(error)
        elif self.cancelled() and self._state == "CANCELLED":
            self.set_running_or_notify_cancel()  # tells those in `wait` and `as_completed`


def _renew(condition: Any) -> None:
    """The standard library forgets who waits. One may be here: the thread that has forked, in a signal handler."""
    waiting = [*condition._waiters]
    condition._at_fork_reinit()
    condition._waiters.extend(waiting)


class ResponseFuture(LoopFuture["Response"]):
    """A Future whose `cancel` reaches the wire.

    Shared; guarded by its own condition. It stays PENDING until it resolves, so `cancel` works until then.
    """

    def __init__(self, cancelled: Callable[[], None]) -> None:
        super().__init__()
        self._cancelled = cancelled
        # What the server pushes beside this response; None where it may not.
        self.pushes: Pushes | None = None

    def cancel(self) -> bool:
        """Cancel the request: RST_STREAM(CANCEL) on HTTP/2, closing the socket on HTTP/1.1. Does not block."""
        done = super().cancel()
        if done:
            self._cancelled()
        return done

    def on_cancel(self, cancelled: Callable[[], None]) -> None:
        """From now on `cancel` reaches this: a request that goes on has left the exchange that it began with."""
        self._cancelled = cancelled


class SoleWaiter(Generic[T]):
    """What one thread waits for, and nobody else: a Future without timeouts, callbacks and further waiters.

    Shared by that thread and a loop. A bare lock hands over: a Future makes a condition for whoever may come, and what
    it costs is felt in small requests (docs/performance.md).
    """

    __slots__ = ("_cancel", "_cancelled", "_done", "_gate", "_outcome", "pushes")

    def __init__(self, cancelled: Callable[[], None]) -> None:
        # A latch: held from the beginning by nobody in particular, and let go once.
        self._gate = _thread.allocate_lock()
        self._gate.acquire()
        self._cancel = cancelled
        self._cancelled = self._done = False
        self._outcome: Any = None
        # As of ResponseFuture.
        self.pushes: Any = None

    def result(self) -> T:
        """What came of it. Blocks. Raises its error; whatever else ends the wait, as Ctrl-C does, cancels it."""
        if not self._done:
            check_may_wait("A blocking request")
        try:
            self._gate.acquire()
        except BaseException:
            self.cancel()
            raise
        if isinstance(self._outcome, BaseException):
            try:
                raise self._outcome
            finally:
                self._outcome = None  # the error's frames know this object
        outcome: T = self._outcome
        return outcome

    def cancel(self) -> None:
        """Nobody waits any more: the request ends, and what it has brought is closed. Does not block."""
        self._cancelled = True
        # In this order, as `set_result` does it in the other: one of the two sees what the other has done.
        if self._done:
            _close(self._outcome)
        else:
            self._cancel()

    # -- the loop's side -------------------------------------------------------------------------------------------

    def cancelled(self) -> bool:
        """Whether the waiter has left."""
        return self._cancelled

    def done(self) -> bool:
        """Whether there is nothing left to be decided."""
        return self._done or self._cancelled

    def set_running_or_notify_cancel(self) -> bool:
        """Whether the outcome is still wanted."""
        return not self.done()

    def set_result(self, outcome: T | BaseException) -> None:
        """Wake the waiter."""
        self._outcome = outcome
        self._done = True
        if self._cancelled:
            _close(outcome)
        self._gate.release()

    set_exception = set_result

    def abandon_in_child(self, error: BaseException) -> None:
        """After a fork, in the child. It may have been in a signal handler of the thread that waits."""
        if not self._done:
            self.set_result(error)
        elif self._gate.locked():
            self._gate.release()  # the loop was just about to do so


def resolve(future: Future[T] | SoleWaiter[T], outcome: T | BaseException) -> None:
    """Wake who waits for this outcome; where nobody does any more, let go of it."""
    if not future.set_running_or_notify_cancel():
        _close(outcome)
    elif isinstance(outcome, BaseException):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)


def _close(outcome: Any) -> None:
    if hasattr(outcome, "close"):  # a response: neither an error nor the name of a version holds anything
        outcome.close()


def _hands_over(callback: Callable[..., object]) -> bool:
    """Whether a done-callback only puts the Future into a queue, whose reader may have come along (`Client.map`)."""
    return isinstance(getattr(callback, "__self__", None), queue.SimpleQueue)
