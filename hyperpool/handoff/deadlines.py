"""The timeouts of one exchange, turned into one deadline at a time.

An exchange is always in one phase: ``pool`` (waiting for a slot), ``connect`` (waiting for the first connection),
``write`` (its body is going out), ``read`` (its response is coming in). Waiting phases run from their beginning; write
and read run from the last progress, so that a slow transfer is not a dead one. ``total`` runs over all of them.
"""

from __future__ import annotations

from typing import Any

from hyperpool import errors
from hyperpool.values import Timeout

NEVER = float("inf")

_ERRORS: dict[str, type[errors.Timeout]] = {
    "pool": errors.PoolTimeout,
    "connect": errors.ConnectTimeout,
    "write": errors.WriteTimeout,
    "read": errors.ReadTimeout,
    "total": errors.TotalTimeout,
}

_MEANING = {
    "pool": "no connection or stream slot became free",
    "connect": "no connection was established",
    "write": "the server accepted nothing of the body",
    "read": "the server sent nothing",
    "total": "the exchange was not finished",
}


class Deadlines:
    """Where the time of one exchange goes.

    Owned by the loop thread.
    """

    __slots__ = ("_spent_s", "phase", "phase_began_at", "submitted_at", "timeout", "total_at", "touched_at")

    def __init__(self, timeout: Timeout, submitted_at: float) -> None:
        self.timeout = timeout
        self.submitted_at = submitted_at
        self.total_at = NEVER if timeout.total is None else submitted_at + timeout.total
        self.phase = "pool"
        self.phase_began_at = submitted_at
        self.touched_at = submitted_at
        self._spent_s: dict[str, float] | None = None

    def enter(self, phase: str, now: float) -> None:
        """Begin a phase; the one before it is booked."""
        if phase != self.phase:
            self._book(now)
            self.phase = phase
            self.phase_began_at = now
        self.touched_at = now

    def _book(self, now: float) -> None:
        spent = self._spent_s = {} if self._spent_s is None else self._spent_s
        # A turn of the loop may have begun before the submit that it takes: no time has passed then, not less.
        spent[self.phase] = spent.get(self.phase, 0.0) + max(0.0, now - self.phase_began_at)

    @property
    def next_at(self) -> float:
        """The instant at which this exchange times out unless something happens."""
        limit_s: float | None = getattr(self.timeout, self.phase)
        return self.total_at if limit_s is None else min(self.total_at, self.touched_at + limit_s)

    def error(self, now: float, *, what: str, where: dict[str, Any], because: str = "") -> errors.Timeout:
        """The error of the deadline that has passed, naming the phase and the time spent in each."""
        phase = "total" if now >= self.total_at else self.phase
        self._book(now)
        spent = dict(self._spent_s or {})
        limit_s = getattr(self.timeout, phase)
        account = ", ".join(f"{name} {seconds:.3f} s" for name, seconds in spent.items())
        within = f"within Timeout.{phase}={limit_s:g} s (spent: {account})"
        return _ERRORS[phase](
            f"{what}: {_MEANING[phase]} {within}{': ' * bool(because)}{because}", spent_s=spent, **where
        )
