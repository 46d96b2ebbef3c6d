"""Futures that an I/O thread resolves, and on which none of our I/O threads may wait (L11)."""

from __future__ import annotations

import queue
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from hyperpool.handoff.loop_thread import refuse_on_loop_thread

T = TypeVar("T")


class LoopFuture(Future[T]):
    """A Future that a loop resolves.

    Shared; guarded by its own condition.
    """

    def result(self, timeout: float | None = None) -> T:
        """What came of it. Blocks. Raises its error, CancelledError, or TimeoutError after ``timeout``."""
        if not self.done():
            refuse_on_loop_thread("Future.result()")
        return super().result(timeout)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Its error or None. Blocks like `result`."""
        if not self.done():
            refuse_on_loop_thread("Future.exception()")
        return super().exception(timeout)

    def abandon_in_child(self, error: BaseException) -> None:
        """After a fork, in the child: no thread is here that could resolve it, so it fails with ``error``.

        The caller's done-callbacks are dropped: what they do with the outcome is done once, in the parent.
        """
        # A thread that is not here may have held the condition, or the locks of those who wait in `wait` and
        # `as_completed`. By this method the standard library makes its own locks usable after a fork.
        locks: list[Any] = [self._condition]
        for waiter in self._waiters:
            locks += (waiter.event, getattr(waiter, "lock", waiter.event))
        for lock in locks:
            lock._at_fork_reinit()
        callbacks: list[Callable[..., object]] = vars(self)["_done_callbacks"]
        callbacks[:] = [one for one in callbacks if _hands_over(one)]
        if self.running() or (not self.done() and self.set_running_or_notify_cancel()):
            self.set_exception(error)
        elif self.cancelled() and self._state == "CANCELLED":
            self.set_running_or_notify_cancel()  # tells those in `wait` and `as_completed`


def result_or_cancel(future: Future[T]) -> T:
    """The result, for the only one who waits for it: Ctrl-C and the like while waiting cancel it.

    Nobody will take the response then, so its slot must be free (RFC 9113 8.1.1). Blocks.
    """
    try:
        return future.result()
    except BaseException:
        if not future.done():
            future.cancel()
        raise


def _hands_over(callback: Callable[..., object]) -> bool:
    """Whether a done-callback only puts the Future into a queue, whose reader may have come along (`Client.map`)."""
    return isinstance(getattr(callback, "__self__", None), queue.SimpleQueue)
