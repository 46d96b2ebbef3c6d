"""The instants at which a loop must look at something again.

Most timers never fire: an exchange is done long before its deadline. So an owner has at most one live entry, its
progress costs no timer operation at all (the deadline is read anew when the entry comes up), and entries of finished
owners are swept when they are half of the heap, or all of it: an idle loop keeps none and sleeps on. Until then such
an entry is empty: what has finished, with all that it holds, is not kept by an instant that nobody waits for any more.
"""

from __future__ import annotations

import heapq
import itertools
from typing import Any, Generic, Protocol, TypeVar

from hyperpool.handoff.deadlines import NEVER


class Timed(Protocol):
    """What has a timer: ``timer_at`` is kept by `Timers` alone, and is NEVER at first."""

    timer_at: float


T = TypeVar("T", bound=Timed)

# Below this a sweep costs more than the entries do.
_SWEEP_FROM = 64


class Timers(Generic[T]):
    """A heap of instants.

    Owned by the loop thread.
    """

    def __init__(self) -> None:
        # Lists, so that an entry can be emptied where it stands. Numbered, so that owners are never compared.
        self._heap: list[list[Any]] = []
        self._entries: dict[T, list[Any]] = {}
        self._order = itertools.count()
        self._stale = 0

    def arm(self, owner: T, at: float) -> None:
        """Look at this owner no later than ``at``; an earlier timer stands."""
        if at < owner.timer_at:
            if owner.timer_at != NEVER:
                self._empty(owner)
            entry = self._entries[owner] = [at, next(self._order), owner]
            heapq.heappush(self._heap, entry)
            owner.timer_at = at  # last: where there was no memory for an entry there is no timer

    def disarm(self, owner: T) -> None:
        """The owner is done."""
        if owner.timer_at != NEVER:
            self._empty(owner)
            if not self._entries or self._stale * 2 > len(self._heap) > _SWEEP_FROM:
                self._sweep()

    def next_at(self) -> float:
        """The next instant; NEVER when there is none. It may be that of a finished owner, which costs an empty turn."""
        return self._heap[0][0] if self._heap else NEVER

    def take_due(self, now: float) -> list[T]:
        """The owners whose instant has come, in its order; each must be armed again if it is to be seen again."""
        due = []
        while self._heap and self._heap[0][0] <= now:
            owner: T | None = heapq.heappop(self._heap)[2]
            if owner is None:
                self._stale -= 1
            else:
                owner.timer_at = NEVER
                del self._entries[owner]
                due.append(owner)
        return due

    def _empty(self, owner: T) -> None:
        owner.timer_at = NEVER
        self._entries.pop(owner)[2] = None
        self._stale += 1

    def _sweep(self) -> None:
        self._heap = [entry for entry in self._heap if entry[2] is not None]
        heapq.heapify(self._heap)
        self._stale = 0
