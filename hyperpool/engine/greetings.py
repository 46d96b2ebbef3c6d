"""Who wants to know when there is a connection (`ConnectionPool.connect`), until when, and what they are told."""

from __future__ import annotations

from concurrent.futures import Future

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
        # By their Futures, for `add`: a crash hands messages in twice.
        self._waiting: dict[Future[str], Connect] = {}

    def add(self, greeting: Connect) -> None:
        """One more; it may be known already."""
        self._waiting[greeting.connected] = greeting

    def answer(self, version: str) -> None:
        """There is a connection, which speaks this."""
        for connected in self._waiting:
            self._settlement.greet(connected, version)
        self._waiting.clear()  # after that, so that a crash there cannot lose one (L5)

    def fail(self, error: BaseException) -> None:
        """There is none, and will be none."""
        for connected in list(self._waiting):
            self._fail_one(connected, error)

    def run_timers(self, now: float, phase: DialPhase | None) -> None:
        """Let those go whose patience has ended, and those who were cancelled meanwhile.

        ``phase``: what they have been waiting for.
        """
        for greeting in list(self._waiting.values()):
            if greeting.deadline_at <= now or greeting.connected.cancelled():
                self._fail_one(greeting.connected, self._timed_out(greeting, phase))

    def _timed_out(self, greeting: Connect, phase: DialPhase | None) -> ConnectTimeout:
        within = f"{self._origin}: no connection was established within {greeting.timeout_s} s"
        if phase is None:
            return ConnectTimeout(within)
        return ConnectTimeout(f"{within}: {phase.waits}", step=phase.name)

    def _fail_one(self, connected: Future[str], error: BaseException) -> None:
        own = error.own_copy(origin=self._origin) if isinstance(error, HyperpoolError) else error
        self._settlement.greet(connected, own)
        del self._waiting[connected]

    def next_at(self) -> float:
        """When the first of them loses patience."""
        return min((greeting.deadline_at for greeting in self._waiting.values()), default=NEVER)

    def patience_until_at(self) -> float:
        """Until when somebody waits."""
        return max((greeting.deadline_at for greeting in self._waiting.values()), default=NEVER)

    def __bool__(self) -> bool:
        return bool(self._waiting)
