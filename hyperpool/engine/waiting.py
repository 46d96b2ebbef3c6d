"""The exchanges of one origin that wait for a slot: first in, first out, but for those that were refused and rest."""

from __future__ import annotations

import heapq
import itertools
from collections import OrderedDict
from collections.abc import Iterator

from hyperpool.engine.pauses import Pause
from hyperpool.handoff.deadlines import NEVER
from hyperpool.handoff.exchange import Exchange


class WaitingQueue:
    """Exchanges in the order in which they came; one that is resent goes before all who came after it (L9).

    Owned by the loop thread. While ``pause`` lasts, nobody is next: the server has refused all that it was sent last.
    """

    def __init__(self) -> None:
        self.pause = Pause()
        self._queue: OrderedDict[int, Exchange] = OrderedDict()
        self._returned: list[Exchange] = []
        self._resting: dict[int, Exchange] = {}
        # When each of those goes on, and its number; what has left the line meanwhile is skipped.
        self._rests: list[tuple[float, int]] = []
        self._came = 0

    def add(self, exchange: Exchange) -> None:
        """To the end."""
        self._came += 1
        exchange.sequence = self._came
        self._queue[self._came] = exchange

    def put_back(self, exchange: Exchange) -> None:
        """To its old place before those who came later."""
        self._returned.append(exchange)

    def rest(self, exchange: Exchange, until_at: float) -> None:
        """To that place, but not before this instant."""
        self._resting[exchange.sequence] = exchange
        heapq.heappush(self._rests, (until_at, exchange.sequence))

    def run_timers(self, now: float) -> None:
        """Let those stand in line again who have rested for long enough."""
        while self._rests and self._rests[0][0] <= now:
            rested = self._resting.pop(heapq.heappop(self._rests)[1], None)
            if rested is not None:
                self.put_back(rested)

    def next_at(self, now: float) -> float:
        """When somebody has rested for long enough, or the pause is over."""
        rested_at = self._rests[0][0] if self._rests else NEVER
        return min(rested_at, self.pause.until_at) if self._ready and self.pause.until_at > now else rested_at

    def first(self, now: float) -> Exchange | None:
        """Who is next in line."""
        self._merge()
        return None if now < self.pause.until_at else next(iter(self._queue.values()), None)

    def ready(self, now: float) -> int:
        """How many could start now."""
        return 0 if now < self.pause.until_at else self._ready

    @property
    def _ready(self) -> int:
        return len(self._queue) + len(self._returned)

    def discard(self, exchange: Exchange) -> None:
        """Out of the line, wherever it stands."""
        found = self._queue.pop(exchange.sequence, None) or self._resting.pop(exchange.sequence, None)
        if found is None and exchange in self._returned:
            self._returned.remove(exchange)

    def _merge(self) -> None:
        if not self._returned:
            return
        # Sorted once for all that came back together: a GOAWAY returns up to a hundred at a time.
        returned, self._returned = self._returned, []
        for exchange in sorted(returned, key=lambda one: one.sequence, reverse=True):
            self._queue[exchange.sequence] = exchange
            self._queue.move_to_end(exchange.sequence, last=False)

    def longest_s(self, now: float) -> float:
        """For how many seconds the first in line, or one who rests, has been waiting."""
        self._merge()
        oldest = [*itertools.islice(self._queue.values(), 1), *self._resting.values()]
        return max((now - one.deadlines.phase_began_at for one in oldest), default=0.0)

    def __iter__(self) -> Iterator[Exchange]:
        self._merge()
        return iter([*self._queue.values(), *self._resting.values()])

    def __len__(self) -> int:
        return self._ready + len(self._resting)
