"""Who carries a journey on from one attempt to the next, and on which thread.

* `carry_out` serves callers that wait (`Client.get`, `Client.stream`): all in their own thread, without a further
  thread or Future.
* `Escort` serves `Client.submit`. The Future that it returns is the first attempt's own. An I/O thread that is about to
  resolve it asks `_review` first. Nearly always the outcome stands, and the Future resolves there and then. Otherwise
  the escort takes the Future over, and goes on with the courier: reading cookies, asking Retry and submitting may take
  time and may run code of the caller, which an I/O thread must not (L4). `Future.cancel` reaches the attempt that is
  under way, or ends a wait.

So a request without redirect, retry and Set-Cookie costs no more than a look at the status and the field names.

Who may touch an escort: the submitting thread until the first attempt is out; then the I/O thread within `_review`, and
from there the courier until the next attempt is out. These follow each other, so no lock is needed. Only `_cancel`
comes from elsewhere, and it leaves everything to the courier.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from hyperpool.errors import HyperpoolError, PoolClosed
from hyperpool.handoff.futures import resolve
from hyperpool.policy.courier import Step
from hyperpool.policy.journey import Journey

if TYPE_CHECKING:
    from hyperpool.handoff.futures import ResponseFuture
    from hyperpool.handoff.response import Response

_CLOSED = "the client was closed before this request could go on: close it later"


def carry_out(journey: Journey) -> Response:
    """Send, and wait for what comes of it. Blocks. Raises a `HyperpoolError`."""
    while True:
        try:
            response = journey.fetch()
        except HyperpoolError as error:
            if journey.attempts == 1 and journey.stands(error):
                raise
            delay_s = journey.follow(error)
        else:
            if journey.attempts == 1 and journey.stands(response):
                return response
            delay_s = journey.follow(response)
            if delay_s is None:
                return response
            del response  # it would be kept while the next attempt is under way
        if delay_s and journey.company.closing.wait(delay_s):
            raise PoolClosed(_CLOSED)


class Escort:
    """Carries a journey on behind a Future.

    Owned by one thread at a time, as the head of this file says.
    """

    __slots__ = ("_attempt", "_future", "_journey", "_over")

    def __init__(self, journey: Journey) -> None:
        self._journey = journey
        # The Future that the caller has, once it is ours to resolve; and that of a later attempt that is under way.
        self._future: ResponseFuture | None = None
        self._attempt: ResponseFuture | None = None
        self._over = False

    def begin(self) -> ResponseFuture:
        """Send; the Future of what comes of it. Does not block."""
        return self._journey.send(self._review)

    # -- on an I/O thread ------------------------------------------------------------------------------------------

    def _review(self, future: ResponseFuture, outcome: Response | BaseException) -> bool:
        """Whether the escort takes this outcome of an attempt, and the caller's Future with it."""
        if future.cancelled():
            if self._future is not None:
                self._resolve(None)
            return False
        if self._future is None:
            if self._journey.stands(outcome):
                return False
            self._journey.company.courier.take_up(self)
            future.on_cancel(self._cancel)
            self._future = future  # last: where memory runs out before, this is asked again
        self._hand_over(Step(lambda: self._go_on(outcome), self._resolve), outcome)
        return True

    def _hand_over(self, step: Step, outcome: Response | BaseException | None, delay_s: float = 0.0) -> None:
        try:
            taken = self._journey.company.courier.put(step, delay_s)
        except BaseException as error:  # no memory for a step, say: the Future is owed an end all the same (L5)
            _let_go(outcome)
            self._resolve(error)
            return
        if not taken:
            _let_go(outcome)
            self._resolve(PoolClosed(_CLOSED))

    # -- on the courier --------------------------------------------------------------------------------------------

    def _go_on(self, outcome: Response | BaseException) -> None:
        assert self._future is not None
        self._attempt = None
        try:
            delay_s = self._journey.follow(outcome)
        except BaseException as error:  # a fault of the caller's own Retry, too, belongs to who waits (L5)
            self._resolve(error)
            return
        if delay_s is None:
            self._resolve(outcome)
        elif delay_s and not self._future.cancelled():
            self._hand_over(Step(self._again, self._resolve), None, delay_s)
        else:
            self._again()

    def _again(self) -> None:
        if self._over or self._future is None:
            return  # cancelled during the wait
        if self._future.cancelled():
            self._resolve(None)
            return
        try:
            self._attempt = attempt = self._journey.send(self._review)
        except BaseException as error:
            self._resolve(error)
            return
        # Last, and after the attempt can be found: a cancel that came before has found none.
        if self._future is not None and self._future.cancelled():
            attempt.cancel()

    def _notice_cancel(self) -> None:
        # With an attempt under way, its end tells the waiters.
        if self._attempt is None:
            self._resolve(None)

    # -- on any thread ---------------------------------------------------------------------------------------------

    def _cancel(self) -> None:
        """The caller's Future was cancelled."""
        attempt = self._attempt
        if attempt is not None:
            attempt.cancel()
        with suppress(HyperpoolError):  # no thread can be started: then none waits there, and the attempt tells
            self._journey.company.courier.put(Step(self._notice_cancel, _nothing))

    def _resolve(self, outcome: Response | BaseException | None) -> None:
        """Settle the caller's Future, once. Runs its callbacks. None where it was cancelled."""
        future = self._future
        if self._over or future is None:
            return
        try:
            if outcome is not None:
                resolve(future, outcome)
            elif future.set_running_or_notify_cancel():
                raise AssertionError("a Future that was not cancelled has an outcome")
        finally:
            if future.done():  # else there was no memory for that, and it is owed its outcome still (L5)
                self._set_down(future)

    def _set_down(self, future: ResponseFuture) -> None:
        self._over = True
        self._journey.company.courier.set_down(self)
        # A Future that is kept must not keep the journey, and with it every response on the way.
        self._future = self._attempt = None
        future.on_cancel(_nothing)

    def abandon_in_child(self, error: HyperpoolError) -> None:
        """After a fork, in the child: whoever came along and waits is told; the parent goes on."""
        future, self._future, self._over = self._future, None, True
        if future is not None:
            future.on_cancel(_nothing)
            future.abandon_in_child(error)


def _let_go(outcome: Response | BaseException | None) -> None:
    if outcome is not None and not isinstance(outcome, BaseException):
        outcome.close()


def _nothing(*_: Any) -> None:
    """There is nothing to cancel, and nobody to tell."""
