"""The exchanges of one origin that wait for a slot: first in, first out."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator

from hyperpool.handoff.exchange import Exchange


class WaitingQueue:
    """Exchanges in the order in which they came; one that is resent goes before all who came after it (L9).

    Owned by the loop thread.
    """

    def __init__(self) -> None:
        self._queue: OrderedDict[int, Exchange] = OrderedDict()
        self._returned: list[Exchange] = []
        self._came = 0

    def add(self, exchange: Exchange) -> None:
        """To the end."""
        self._came += 1
        exchange.sequence = self._came
        self._queue[self._came] = exchange

    def put_back(self, exchange: Exchange) -> None:
        """To its old place before those who came later."""
        self._returned.append(exchange)

    def first(self) -> Exchange | None:
        """Who is next in line."""
        self._merge()
        return next(iter(self._queue.values()), None)

    def discard(self, exchange: Exchange) -> None:
        """Out of the line, wherever it stands."""
        if self._queue.pop(exchange.sequence, None) is None and exchange in self._returned:
            self._returned.remove(exchange)

    def _merge(self) -> None:
        # Sorted once for all that came back together: a GOAWAY returns up to a hundred at a time.
        returned, self._returned = self._returned, []
        for exchange in sorted(returned, key=lambda one: one.sequence, reverse=True):
            self._queue[exchange.sequence] = exchange
            self._queue.move_to_end(exchange.sequence, last=False)

    def __iter__(self) -> Iterator[Exchange]:
        self._merge()
        return iter(list(self._queue.values()))

    def __len__(self) -> int:
        return len(self._queue) + len(self._returned)
