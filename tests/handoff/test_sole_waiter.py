"""What one thread waits for: a Future without what it does not need."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from hyperpool.handoff.futures import ResponseFuture, SoleWaiter, resolve
from hyperpool.handoff.leash import caller
from hyperpool.handoff.loop_thread import enter_loop_thread, leave_loop_thread


class Outcome:
    """A response, as far as a waiter is concerned."""

    def __init__(self) -> None:
        self.closed = 0

    def close(self) -> None:
        self.closed += 1


class Told:
    """Counts cancellations, and does something at each."""

    def __init__(self, act: Callable[[], object] = lambda: None) -> None:
        self.times = 0
        self.act = act

    def __call__(self) -> None:
        self.times += 1
        self.act()


def test_it_waits_for_another_thread() -> None:
    waiter: SoleWaiter[Outcome] = SoleWaiter(Told())
    outcome = Outcome()
    resolver = threading.Timer(0.01, waiter.set_result, (outcome,))
    resolver.start()
    assert waiter.result() is outcome
    assert waiter.done() and not waiter.cancelled()
    resolver.join()


@pytest.mark.parametrize("kind", [SoleWaiter, ResponseFuture])
def test_who_has_an_outcome_is_given_no_other(kind: Callable[[Callable[[], None]], Any]) -> None:
    waiter, first, second = kind(lambda: None), Outcome(), Outcome()
    resolve(waiter, first)
    resolve(waiter, second)
    assert waiter.result() is first
    assert (first.closed, second.closed) == (0, 1)


def test_an_error_is_raised_and_not_kept() -> None:
    waiter: SoleWaiter[Outcome] = SoleWaiter(Told())
    waiter.set_exception(KeyError("x"))
    with pytest.raises(KeyError):
        waiter.result()
    assert waiter._outcome is None


def test_what_comes_after_a_cancel_is_closed() -> None:
    cancelled, outcome = Told(), Outcome()
    waiter: SoleWaiter[Outcome] = SoleWaiter(cancelled)
    waiter.cancel()
    assert cancelled.times == 1
    assert not waiter.set_running_or_notify_cancel()
    waiter.set_result(outcome)
    assert outcome.closed == 1


def test_what_came_before_a_cancel_is_closed() -> None:
    cancelled, outcome = Told(), Outcome()
    waiter: SoleWaiter[Outcome] = SoleWaiter(cancelled)
    waiter.set_result(outcome)
    waiter.cancel()
    assert (cancelled.times, outcome.closed) == (0, 1)


def test_an_error_that_came_before_a_cancel_is_dropped() -> None:
    waiter: SoleWaiter[Outcome] = SoleWaiter(Told())
    waiter.set_result(KeyError("x"))
    waiter.cancel()
    assert waiter.cancelled()


def test_a_wait_that_is_interrupted_cancels() -> None:
    """Ctrl-C: nobody will take the response."""
    cancelled = Told()
    waiter: SoleWaiter[Outcome] = SoleWaiter(cancelled)

    class Interrupted:
        def acquire(self) -> None:
            raise KeyboardInterrupt

        def release(self) -> None:
            pass

    waiter._gate = Interrupted()  # type: ignore[assignment]
    with pytest.raises(KeyboardInterrupt):
        waiter.result()
    assert cancelled.times == 1


def test_an_io_thread_does_not_wait_for_itself() -> None:
    """L11."""
    waiter: SoleWaiter[Outcome] = SoleWaiter(Told())
    raised: list[Any] = []

    def wait() -> None:
        enter_loop_thread()
        try:
            waiter.result()
        except RuntimeError as error:
            raised.append(error)
        finally:
            leave_loop_thread()

    thread = threading.Thread(target=wait)
    thread.start()
    thread.join()
    assert len(raised) == 1


def test_in_a_forked_child_it_fails_once() -> None:
    waiter: SoleWaiter[Outcome] = SoleWaiter(Told())
    waiter.abandon_in_child(KeyError("forked"))
    waiter.abandon_in_child(KeyError("again"))
    with pytest.raises(KeyError, match="forked"):
        waiter.result()


def test_the_caller_is_the_program_and_not_hyperpool() -> None:
    ours: dict[str, Any] = {"__name__": "hyperpool.client", "caller": caller}
    exec("def request():\n    return caller()", ours)
    assert ours["request"]().startswith(__file__)
