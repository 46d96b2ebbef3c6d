"""How things end before their time, and in which words: an exchange that is given up, a loop that is closed or has
crashed (L5).

Whatever ends is settled here, exactly once, and nothing is left of it on the wire, in a queue or in an open socket.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Any

from hyperpool.engine.connection import CLOSED
from hyperpool.engine.connections import Connections
from hyperpool.engine.dials import Dials
from hyperpool.engine.greetings import Greetings
from hyperpool.engine.reports import Reports
from hyperpool.engine.settlement import Settlement
from hyperpool.engine.waiting import WaitingQueue
from hyperpool.errors import ConnectionLost, ConnectTimeout, HyperpoolError, PoolClosed, PoolFull
from hyperpool.handoff import messages
from hyperpool.handoff.exchange import Exchange, State


class Endings:
    """The early ends of one origin's exchanges and connections.

    Owned by the loop thread.
    """

    def __init__(
        self,
        origin: str,
        *,
        reports: Reports,
        waiting: WaitingQueue,
        connections: Connections,
        dials: Dials,
        greetings: Greetings,
        settlement: Settlement,
    ) -> None:
        self._origin = origin
        self._reports = reports
        self._waiting = waiting
        self._connections = connections
        self._dials = dials
        self._greetings = greetings
        self._settlement = settlement

    def give_up(self, exchange: Exchange, error: BaseException) -> None:
        """End an exchange that no connection carries."""
        exchange.fail(error)
        self._settlement.add(exchange)

    def refuse(self, exchange: Exchange) -> None:
        """End an exchange for which there is no room in the queue."""
        full = f"too many requests wait for {self._origin}: {self._reports.account()}"
        remedy = "slow down, or raise Limits.max_queued_per_origin"
        self.give_up(exchange, PoolFull(f"{full}; {remedy}", **exchange.where()))

    def end_early(self, exchange: Exchange, error: BaseException) -> None:
        """End an exchange wherever it is: in the queue, or on the wire, where its stream is reset.

        A PING goes with the reset, so a connection on which streams time out is found dead, if it is, by that.
        """
        if exchange.state is State.QUEUED:
            self._waiting.discard(exchange)
        connection = self._connections.carrier(exchange)
        self.give_up(exchange, error)
        if connection is not None and connection.life is not CLOSED:
            connection.cancel(exchange)

    def time_out(self, exchange: Exchange, slow: str) -> None:
        """End an exchange whose deadline has passed, or whose body comes too slowly: then ``slow`` says how slowly."""
        self.end_early(exchange, self._timeout_error(exchange, slow))

    def _timeout_error(self, exchange: Exchange, slow: str) -> HyperpoolError:
        now = self._reports.now
        if exchange.state is not State.QUEUED:
            return exchange.timeout_error(now, slow=slow)
        phase = None if self._connections else self._dials.phase
        because = self._reports.account() if phase is None else phase.waits
        error = exchange.timeout_error(now, because=because)
        if isinstance(error, ConnectTimeout) and phase is not None:
            error.step = phase.name
        return error

    def fail_waiting(self, error: BaseException) -> None:
        """There will be no connection: tell everybody who waits for one."""
        self._greetings.fail(error)
        for exchange in self._waiting:
            own = error.own_copy(**exchange.where()) if isinstance(error, HyperpoolError) else error
            self._waiting.discard(exchange)
            self.give_up(exchange, own)

    @property
    def unanswered(self) -> bool:
        """Whether somebody's Future is still to be resolved."""
        return bool(self._greetings) or any(one.future is not None for one in self._settlement.accepted)

    def close(self) -> None:
        """The grace is over: fail what is left, close everything."""
        self._dials.cancel()
        self.fail_waiting(PoolClosed("the pool was closed before this request was answered"))
        for connection in self._connections:
            for exchange in connection.exchanges:
                self.end_early(exchange, PoolClosed("the pool was closed", **exchange.where()))
            connection.flush()
            connection.close()
            self._connections.watch(connection)
        self._settlement.carry_out()

    def crash(self, cause: BaseException, untouched: deque[Any]) -> None:
        """Last resort: close everything raw and settle everybody with the cause (L5, L12).

        ``untouched``: messages that were not acted on, or not to the end. Where there is no memory even for this, it
        may be called again: nothing that is owed an end is let go of before it has one.
        """
        error = cause if isinstance(cause, HyperpoolError) else self._as_bug(cause)
        self._dials.cancel()
        while untouched:
            self._save_from(untouched[0])
            untouched.popleft()
        self._greetings.fail(error)
        for connection in self._connections:
            connection.transport.abort()
        for exchange in self._settlement.accepted:
            if exchange.state is not State.DONE:
                exchange.fail(error.own_copy(**exchange.where()))
            self._settlement.add(exchange)
        self._settlement.carry_out()

    def _as_bug(self, cause: BaseException) -> HyperpoolError:
        message = f"the I/O thread of {self._origin} failed: {cause!r}; this is a bug in hyperpool"
        error = HyperpoolError(message, origin=self._origin)
        error.__cause__ = cause
        return error

    def abandon_in_child(self, waited: Iterable[Any]) -> None:
        """After a fork, in the child: tell everybody, close nothing on the wire.

        ``waited``: messages that may not have been acted on.
        """
        message = f"this was asked of {self._origin} before the process forked: the answer goes to the parent"
        error = ConnectionLost(f"{message}; ask here again", origin=self._origin, processed="maybe")
        for one in waited:
            self._save_from(one)
        self._greetings.fail(error)
        self._settlement.abandon_in_child(error)

    def _save_from(self, message: Any) -> None:
        """What a message holds must not be lost with the inbox: exchanges are settled, sockets closed."""
        if isinstance(message, messages.Submit):
            self._settlement.accept(message.exchange)
        elif isinstance(message, messages.Connect):
            self._greetings.add(message)
        elif isinstance(message, messages.Drain):
            self._settlement.when_all_are(message.answered)
        elif isinstance(message, messages.Dialed):
            message.dialed.close()
