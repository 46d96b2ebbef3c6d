"""The connections of one origin: which there are, which have something to do, and what each one waits for.

A connection that was touched in a turn is ``busy``: it is pumped and flushed once at the end of that turn, and what the
selector and the timers wait for on its behalf is brought up to date there, in one place.
"""

from __future__ import annotations

import selectors
from collections.abc import Iterator

from hyperpool.engine.connection import CLOSED, OPEN, Connection, is_repeatable
from hyperpool.engine.timers import Timers
from hyperpool.handoff.exchange import Exchange


class Connections:
    """All connections of one loop, with their selector and their timers.

    Owned by the loop thread.
    """

    def __init__(self, selector: selectors.BaseSelector) -> None:
        self._selector = selector
        self._all: list[Connection] = []
        self._busy: dict[Connection, None] = {}
        self._timers: Timers[Connection] = Timers()

    def add(self, connection: Connection) -> None:
        """A new one, with its first turn to come."""
        self._all.append(connection)
        self.touch(connection)

    def replace(self, connection: Connection, successor: Connection) -> None:
        """The successor has its socket, and its place."""
        if connection.watched:
            self._watch_socket(connection, 0)
        self._timers.disarm(connection)
        self._busy.pop(connection, None)
        self._all[self._all.index(connection)] = successor
        self.touch(successor)

    def touch(self, connection: Connection) -> None:
        """This one has something to do in this turn."""
        self._busy[connection] = None

    def carrier(self, exchange: Exchange) -> Connection | None:
        """The connection that carries an exchange, if any; it gets its turn with this."""
        connection: Connection | None = exchange.connection
        if connection is not None:
            self.touch(connection)
        return connection

    @property
    def any_busy(self) -> bool:
        """Whether the next turn has work without waiting for anything."""
        return bool(self._busy)

    def next_at(self) -> float:
        """When the next of them wants its clock to be looked at."""
        return self._timers.next_at()

    def run_timers(self, now: float) -> None:
        """Let those act whose instant has come."""
        for connection in self._timers.take_due(now):
            if connection.life is not CLOSED:
                connection.on_timer()
                self.touch(connection)

    def pump_and_flush(self) -> None:
        """Give every busy one its turn at the wire."""
        busy, self._busy = self._busy, {}
        for connection in busy:
            if connection.life is not CLOSED:
                connection.pump()
                connection.flush()
            self.watch(connection)

    def watch(self, connection: Connection) -> None:
        """Tell the selector and the timers what this connection waits for now."""
        if connection.life is CLOSED:
            self._forget(connection)
            return
        if connection.wants_turn:
            self.touch(connection)
        if connection.interest != connection.watched:
            self._watch_socket(connection, connection.interest)
        self._timers.arm(connection, connection.next_at())

    def _watch_socket(self, connection: Connection, wanted: int) -> None:
        sock = connection.transport.sock
        if not wanted:
            self._selector.unregister(sock)
        elif connection.watched:
            self._selector.modify(sock, wanted, connection)
        else:
            self._selector.register(sock, wanted, connection)
        connection.watched = wanted

    def _forget(self, connection: Connection) -> None:
        if connection not in self._all:
            return
        self._all.remove(connection)
        connection.host.gone(connection)
        # One more turn: what it gave back while it was flushed, and who waits for a slot, must not sleep through that.
        self.touch(connection)
        self._timers.disarm(connection)
        if connection.watched:
            # Before the number of its closed socket comes back with a new one.
            self._watch_socket(connection, 0)

    def next_carrier(self, exchange: Exchange) -> Connection | None:
        """The one that should carry this exchange, which is the next; None where all are full.

        One that carries nothing is listened to first where the request could not go out again if it were lost. The peer
        may have closed since the selector looked: it was restarted, or its end came right behind an answer.
        """
        while (connection := self._least_loaded()) is not None:
            if connection.load or is_repeatable(exchange):
                return connection
            connection.read()
            if connection.free_slots > 0:
                return connection
            self.touch(connection)
            self.watch(connection)
        return None

    def _least_loaded(self) -> Connection | None:
        least, least_load = None, 0
        for connection in self._all:
            if connection.free_slots > 0:
                load = connection.load
                if not load:
                    return connection
                if least is None or load < least_load:
                    least, least_load = connection, load
        return least

    @property
    def open_count(self) -> int:
        """How many take new exchanges, or will: one whose peer may be gone is not counted on."""
        return sum(connection.life is OPEN and not connection.in_doubt for connection in self._all)

    @property
    def version(self) -> str | None:
        """What those speak that take new exchanges; None where there is none."""
        return next((one.version for one in self._all if one.life is OPEN), None)

    @property
    def all_loaded(self) -> bool:
        """Whether every one that takes new exchanges carries some: one that is empty and takes none will do so again.

        That is a peer that says "no streams for now" (RFC 9113 5.1.2); to open another connection to it is no answer.
        """
        return all(one.load or one.in_doubt for one in self._all if one.life is OPEN)

    @property
    def all_ready(self) -> bool:
        """Whether every peer's limits are known."""
        return all(connection.ready for connection in self._all)

    @property
    def load(self) -> int:
        """Exchanges under way on all of them."""
        return sum(connection.load for connection in self._all)

    def __iter__(self) -> Iterator[Connection]:
        return iter(list(self._all))

    def __len__(self) -> int:
        return len(self._all)
