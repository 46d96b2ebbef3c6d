"""Futures that an I/O thread resolves, and on which none of our I/O threads may wait (L11)."""

from __future__ import annotations

from concurrent.futures import Future
from typing import TypeVar

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
