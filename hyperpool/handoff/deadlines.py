"""The timeouts of one exchange, turned into one deadline at a time.

An exchange is always in one phase: ``pool`` (waiting for a slot), ``connect`` (waiting for the first connection),
``write`` (its body is going out), ``read`` (its response is coming in). Waiting phases run from their beginning; write
and read run from the last progress, so that a slow transfer is not a dead one. ``total`` runs over all of them.

Who wants no transfer to be endlessly slow either sets ``Limits.min_body_rate``: a `Pace` then looks at the body now
and then.
"""

from __future__ import annotations

from typing import Any

from hyperpool import errors
from hyperpool.values import Timeout

NEVER = float("inf")
# A day. Selectors count milliseconds in a C int and refuse more than 24 days; an instant that is further off is slept
# for in parts.
LONGEST_SLEEP_S = 86_400.0
# Over how long a body's rate is averaged. Halved, one lost packet on a long way counts as slowness; doubled, a server
# that drips keeps its reader for twice as long.
PACE_S = 10.0

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


class Pace:
    """Whether a response body comes fast enough; what its reader holds up is not counted.

    Owned by the loop thread.
    """

    __slots__ = ("_began_at", "_body_bytes", "_held_up", "_rate", "look_at")

    def __init__(self, rate: float, now: float) -> None:
        self._rate = rate
        self._began_at = NEVER
        self._body_bytes = 0
        # Its reader is so far behind that the peer may have to wait: until it is heard of again no time counts.
        self._held_up = False
        self.look_at = now + PACE_S

    def begin(self, now: float) -> None:
        """From now on the body is awaited, and there is room for it."""
        self._began_at = now
        self._body_bytes = 0
        self._held_up = False

    def came(self, body_bytes: int, *, held_up: bool) -> None:
        """A piece of body, with which the reader may be far behind."""
        self._body_bytes += body_bytes
        self._held_up = self._held_up or held_up

    def go_on(self, now: float) -> None:
        """The reader is heard of. The pause before this was its own."""
        if self._held_up:
            self.begin(now)

    def look(self, now: float, *, unread: bool) -> str:
        """Why this is too slow, or "". ``unread``: whether bytes wait for the reader."""
        if self._began_at != NEVER and (unread or self._held_up):
            self._began_at, self._body_bytes = now, 0
        lasted_s = now - self._began_at
        if lasted_s < PACE_S:
            self.look_at = min(self._began_at, now) + PACE_S
            return ""
        if self._body_bytes >= self._rate * lasted_s:
            self.begin(now)
            self.look_at = now + PACE_S
            return ""
        return (
            f"the server sent {self._body_bytes:,} bytes of the body in {lasted_s:.1f} s, less than"
            f" Limits.min_body_rate={self._rate:g} bytes a second"
        )


class Deadlines:
    """Where the time of one exchange goes.

    Owned by the loop thread.
    """

    __slots__ = ("_over", "pace", "phase", "phase_began_at", "submitted_at", "timeout", "total_at", "touched_at")

    def __init__(self, timeout: Timeout, submitted_at: float, *, min_rate: float | None = None) -> None:
        self.timeout = timeout
        self.submitted_at = submitted_at
        self.total_at = NEVER if timeout.total is None else submitted_at + timeout.total
        self.phase = "pool"
        self.phase_began_at = submitted_at
        self.touched_at = submitted_at
        # The phases that are over, and how long each was.
        self._over: tuple[tuple[str, float], ...] = ()
        self.pace = None if min_rate is None else Pace(min_rate, submitted_at)

    def enter(self, phase: str, now: float) -> None:
        """Begin a phase; the one before it is booked."""
        if phase != self.phase:
            self._over += ((self.phase, now - self.phase_began_at),)
            self.phase = phase
            self.phase_began_at = now
        self.touched_at = now

    def _spent_s(self, now: float) -> dict[str, float]:
        """The seconds in each phase, up to now."""
        spent: dict[str, float] = {}
        for phase, lasted_s in (*self._over, (self.phase, now - self.phase_began_at)):
            # A turn of the loop may have begun before the submit that it takes: no time has passed then, not less.
            spent[phase] = spent.get(phase, 0.0) + max(0.0, lasted_s)
        return spent

    @property
    def next_at(self) -> float:
        """The instant at which this exchange times out unless something happens."""
        limit_s: float | None = getattr(self.timeout, self.phase)
        return self.total_at if limit_s is None else min(self.total_at, self.touched_at + limit_s)

    @property
    def look_at(self) -> float:
        """The instant at which somebody must look at it: then, or earlier if its pace is watched."""
        return self.next_at if self.pace is None else min(self.next_at, self.pace.look_at)

    def body_was_read(self, now: float) -> None:
        """The reader is heard of: the pause before this was its own, and the peer's begins here."""
        self.touched_at = now
        if self.pace is not None:
            self.pace.go_on(now)

    def too_slow(self, now: float, *, unread: bool) -> str:
        """Why the body comes too slowly (``Limits.min_body_rate``), or "". ``unread``: see `Pace.look`."""
        return "" if self.pace is None or now < self.pace.look_at else self.pace.look(now, unread=unread)

    def error(
        self, now: float, *, what: str, where: dict[str, Any], because: str = "", slow: str = ""
    ) -> errors.Timeout:
        """The error of the deadline that has passed, naming the phase and the time spent in each.

        ``slow``: the body's own fault (see `Pace.look`), where that is it.
        """
        phase = "total" if now >= self.total_at else self.phase
        spent = self._spent_s(now)
        limit_s = getattr(self.timeout, phase)
        account = ", ".join(f"{name} {seconds:.3f} s" for name, seconds in spent.items())
        if slow:
            return errors.ReadTimeout(f"{what}: {slow} (spent: {account})", spent_s=spent, **where)
        within = f"within Timeout.{phase}={limit_s:g} s (spent: {account})"
        return _ERRORS[phase](
            f"{what}: {_MEANING[phase]} {within}{': ' * bool(because)}{because}", spent_s=spent, **where
        )
