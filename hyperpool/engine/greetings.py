"""Who wants to know when there is a connection (`ConnectionPool.connect`), until when, and what they are told."""

from __future__ import annotations

from hyperpool.engine.dial_cancel import DialPhase
from hyperpool.engine.settlement import Settlement
from hyperpool.errors import ConnectTimeout, HyperpoolError
from hyperpool.handoff.deadlines import NEVER
from hyperpool.handoff.messages import Connect


class Greetings:
    """The Futures of one origin that wait for a connection, whatever it will carry.

    Owned by the loop thread.
    """

    def __init__(self, origin: str, settlement: Settlement) -> None:
        self._origin = origin
        self._settlement = settlement
        # A dict for its order and for `add`: a crash hands messages in twice.
        self._waiting: dict[Connect, None] = {}

    def add(self, greeting: Connect) -> None:
        """One more; it may be known already."""
        self._waiting[greeting] = None

    def answer(self, version: str) -> None:
        """There is a connection, which speaks this."""
        waiting, self._waiting = self._waiting, {}
        for greeting in waiting:
            self._settlement.greet(greeting.connected, version)

    def fail(self, error: BaseException) -> None:
        """There is none, and will be none."""
        for greeting in list(self._waiting):
            self._fail_one(greeting, error)

    def run_timers(self, now: float, phase: DialPhase | None) -> None:
        """Let those go whose patience has ended, and those who were cancelled meanwhile.

        ``phase``: what they have been waiting for.
        """
        for greeting in list(self._waiting):
            if greeting.deadline_at <= now or greeting.connected.cancelled():
                self._fail_one(greeting, self._timed_out(greeting, phase))

    def _timed_out(self, greeting: Connect, phase: DialPhase | None) -> ConnectTimeout:
        within = f"{self._origin}: no connection was established within {greeting.timeout_s} s"
        if phase is None:
            return ConnectTimeout(within)
        return ConnectTimeout(f"{within}: {phase.waits}", step=phase.name)

    def _fail_one(self, greeting: Connect, error: BaseException) -> None:
        del self._waiting[greeting]
        own = error.own_copy(origin=self._origin) if isinstance(error, HyperpoolError) else error
        self._settlement.greet(greeting.connected, own)

    def next_at(self) -> float:
        """When the first of them loses patience."""
        return min((greeting.deadline_at for greeting in self._waiting), default=NEVER)

    def patience_until_at(self) -> float:
        """Until when somebody waits."""
        return max((greeting.deadline_at for greeting in self._waiting), default=NEVER)

    def __bool__(self) -> bool:
        return bool(self._waiting)
