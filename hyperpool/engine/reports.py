"""What connections report to their loop (`Host`), and what comes of it: nothing that would touch a socket."""

from __future__ import annotations

from hyperpool.engine.announcements import Announcements
from hyperpool.engine.connection import Connection
from hyperpool.engine.connections import Connections
from hyperpool.engine.dials import Dials
from hyperpool.engine.http2 import Http2Connection
from hyperpool.engine.liveness import MOST_CALM
from hyperpool.engine.pauses import pause_s
from hyperpool.engine.settlement import Settlement
from hyperpool.engine.timers import Timers
from hyperpool.engine.waiting import WaitingQueue
from hyperpool.handoff.exchange import Exchange

# A connection that ends within this, and has carried nothing, was never one.
STILLBORN_S = 1.0


class Reports:
    """The loop of one origin, as its connections see it.

    Owned by the loop thread. ``now`` is the instant in which the turn began.
    """

    def __init__(
        self,
        now: float,
        *,
        waiting: WaitingQueue,
        deadlines: Timers[Exchange],
        connections: Connections,
        dials: Dials,
        settlement: Settlement,
        announcements: Announcements | None = None,
    ) -> None:
        self.now = now
        self.upgrade_refused = False
        self.closes_unannounced = False
        self.calm = 1
        self.resent = 0
        self._waiting = waiting
        self._deadlines = deadlines
        self._connections = connections
        self._dials = dials
        self._settlement = settlement
        self._announcements = announcements

    def finished(self, exchange: Exchange) -> None:
        """Settle this exchange at the end of the turn: it is done, or its streamed response has begun."""
        if exchange.parts is not None:
            self._waiting.pause.worked()
            self._dials.worked()
        self._settlement.add(exchange)

    def uploaded(self, exchange: Exchange) -> None:
        """The body is out: now its response is waited for, perhaps with less patience."""
        exchange.deadlines.enter("read", self.now)
        self._deadlines.arm(exchange, exchange.deadlines.next_at)

    def requeue(self, exchange: Exchange, reason: str, *, refused: bool) -> None:
        """The exchange goes out again, before all who came after it (L9); what is refused again and again, later."""
        exchange.requeue(reason, self.now)
        exchange.connection = None
        exchange.refusals += refused
        self.resent += 1
        if self._announcements is not None:
            self._announcements.resent(exchange)
        if refused:
            self._waiting.pause.failed(self.now)
        rest_s = pause_s(exchange.refusals) if refused else 0.0
        if rest_s:
            self._waiting.rest(exchange, self.now + rest_s)
        else:
            self._waiting.put_back(exchange)
        self._deadlines.arm(exchange, exchange.deadlines.next_at)

    def account(self) -> str:
        """What holds the slots, in words."""
        under_way, queued, connections = self._connections.load, len(self._waiting), len(self._connections)
        held = f"{under_way:,} under way on {connections} connection{'s' * (connections != 1)}, {queued:,} queued"
        oldest = f"{held}, the oldest for {self._waiting.longest_s(self.now):.1f} s"
        if self._dials.postponed(self.now):
            return f"{oldest}, and the server is left alone for a while, after a flood or ENHANCE_YOUR_CALM"
        refused = ", and the server refuses what it is sent" if self.now < self._waiting.pause.until_at else ""
        return f"{oldest}{refused}"

    def adopt(self, exchange: Exchange, connection: Connection) -> None:
        """The server has opened this exchange itself: from now on it has a deadline like any other."""
        self._settlement.accept(exchange)
        exchange.connection = connection
        self._deadlines.arm(exchange, exchange.deadlines.look_at)

    def replace(self, connection: Connection, successor: Connection) -> None:
        """A connection goes on in another version, with the same socket and the same exchange."""
        self._connections.replace(connection, successor)
        self._dials.version = successor.version
        for exchange in successor.exchanges:
            exchange.connection = successor

    def speak_http1(self) -> None:
        """The server asks for HTTP/1.1 (RFC 9113 7, HTTP_1_1_REQUIRED): nothing new on its HTTP/2 connections."""
        self._dials.speak_http1()
        for connection in self._connections:
            if connection.version == Http2Connection.version:
                connection.drain()
                self._connections.touch(connection)

    def calm_down(self) -> None:
        """The server finds us too eager (RFC 9113 7): the next connection is not opened at once, and asks less."""
        self._dials.postpone(self.now)
        self.calm = min(self.calm * 2, MOST_CALM)

    def flooded(self) -> None:
        """The server has flooded a connection (RFC 9113 10.5): it could do so on one after another."""
        self._dials.postpone(self.now)

    def gone(self, connection: Connection) -> None:
        """A connection is closed. One that was never of use must not be replaced at once, for ever."""
        if not connection.carried_any and self.now < connection.opened_at + STILLBORN_S:
            self._dials.stillborn(self.now, connection.lost_by)
        if self._announcements is not None:
            self._announcements.closed(connection)
