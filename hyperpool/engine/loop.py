"""One origin's I/O thread: the only code that touches its sockets, TLS and protocol machines (L1).

`OriginLoop.step` is the whole of it: everything the loop does, it does in that order, once a turn. The order matters:
messages before reading, so that a cancel is seen before the response that it races with; completions last, when no map
of streams is being walked, because they run code of the caller (L5); one write per connection and turn, because system
calls cost more than frames.

The loop sleeps in select and nowhere else (L4), until a socket, a message or the next timer. It ends by itself when
nothing is left: no connection, nobody waiting, nothing in the inbox (L2).
"""

from __future__ import annotations

import logging
import selectors
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import CancelledError
from typing import TYPE_CHECKING, Any

from hyperpool.engine.connection import Connection, Life
from hyperpool.engine.connections import Connections
from hyperpool.engine.dials import Dialer, Dials
from hyperpool.engine.http1 import Http1Connection
from hyperpool.engine.http2 import Http2Connection
from hyperpool.engine.settlement import Settlement
from hyperpool.engine.stats import OriginStats
from hyperpool.engine.timers import Timers
from hyperpool.engine.transport import Transport
from hyperpool.engine.waiting import WaitingQueue
from hyperpool.engine.wakeup import SocketWakeup
from hyperpool.errors import ConnectTimeout, HyperpoolError, PoolClosed, PoolFull
from hyperpool.handoff import messages
from hyperpool.handoff.deadlines import NEVER
from hyperpool.handoff.exchange import Exchange, State
from hyperpool.handoff.inbox import Inbox
from hyperpool.handoff.loop_thread import enter_loop_thread

if TYPE_CHECKING:
    from hyperpool.values import Limits, Route

logger = logging.getLogger("hyperpool")


class OriginLoop:
    """The loop of one origin.

    Owned by the loop thread; other threads use ``inbox`` and read ``stats``, which is swapped whole.
    """

    def __init__(
        self, route: Route, limits: Limits, dialer: Dialer, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.route = route
        self.limits = limits
        self.origin = str(route.origin)
        self.now = clock()
        self.ended = False
        self.upgrade_refused = False
        self.stats = OriginStats(self.origin, None, 0, 0, 0, 0, 0, 0)
        self._clock = clock
        # In this order: where no descriptor is left for the second of these, the first one closes itself.
        self._selector = selectors.DefaultSelector()
        self._wakeup = SocketWakeup()
        self.inbox = Inbox(self._wakeup)
        self._selector.register(self._wakeup.receiver, selectors.EVENT_READ, None)
        self._connections = Connections(self._selector)
        self._dials = Dials(dialer, limits, self.inbox.put)
        self._waiting = WaitingQueue()
        self._deadlines: Timers[Exchange] = Timers()
        self._settlement = Settlement(self._deadlines)
        self._taken: deque[Any] = deque()
        self._closing_at = NEVER
        self._requests = 0
        self._resent = 0

    # -- the loop --------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """The thread's body: turn after turn until nothing is left; a crash settles everything (L5)."""
        enter_loop_thread()
        try:
            while self.step():
                pass
        except BaseException as error:  # whatever it was: every waiter must learn of it, and none may hang
            logger.debug("%r failed", self, exc_info=True)
            self._crash(error)
        finally:
            self._release()

    def step(self) -> bool:
        """One turn; whether there will be another."""
        ready = self._select()
        self._take_messages(ready)
        self._read(ready)
        self._run_timers()
        self._start_waiting()
        self._pump_and_flush()
        self._settlement.carry_out()
        return self._goes_on()

    def _select(self) -> list[tuple[selectors.SelectorKey, int]]:
        ready = self._selector.select(self._sleep_s())
        self.now = self._clock()
        return ready

    def _sleep_s(self) -> float | None:
        if self._connections.any_busy or not self.inbox.may_sleep():
            return 0
        wake_at = min(
            self._deadlines.next_at(),
            self._connections.next_at(),
            self._dials.next_at(waiting=bool(self._waiting or self._dials.greetings), now=self.now),
            # Once it has passed everything is ended, and only dials are waited for.
            self._closing_at if self._closing_at > self.now else NEVER,
        )
        return None if wake_at == NEVER else max(0.0, wake_at - self._clock())

    def _take_messages(self, ready: list[tuple[selectors.SelectorKey, int]]) -> None:
        woken = any(key.data is None for key, _ in ready)
        self._taken = self.inbox.take(woken=woken)
        for message in self._taken:
            _REACT[message.__class__](self, message)
        self._taken.clear()

    def _read(self, ready: list[tuple[selectors.SelectorKey, int]]) -> None:
        for key, mask in ready:
            connection: Connection | None = key.data
            if connection is None or connection.life is Life.CLOSED:
                continue  # the wake-up, or a connection that a message has just closed
            self._connections.touch(connection)
            if mask & selectors.EVENT_READ:
                connection.read()

    def _run_timers(self) -> None:
        for exchange in self._deadlines.take_due(self.now):
            self._look_at_deadline(exchange)
        self._connections.run_timers(self.now)

    def _look_at_deadline(self, exchange: Exchange) -> None:
        if exchange.state is State.DONE:
            return
        if exchange.excused:
            exchange.deadlines.touched_at = self.now
        if exchange.deadlines.next_at > self.now:
            self._deadlines.arm(exchange, exchange.deadlines.next_at)
        else:
            self._end_early(exchange, exchange.timeout_error(self.now))

    def _pump_and_flush(self) -> None:
        self._connections.pump_and_flush()
        self._publish()

    def _goes_on(self) -> bool:
        closing = self._closing_at != NEVER
        answered = (closing or self._settlement.awaited) and not self._unanswered()
        if answered:
            self._settlement.all_are()
        if self._closing_at <= self.now or (closing and answered):
            self._end_everything()
        if self._connections or self._waiting or self._dials.under_way or self._dials.greetings:
            return True
        return not self.inbox.close_if_empty()

    # -- messages --------------------------------------------------------------------------------------------------

    def _on_submit(self, message: messages.Submit) -> None:
        exchange = message.exchange
        self._requests += 1
        if self._closing_at != NEVER:
            self._give_up(exchange, PoolClosed("the pool was closed", **exchange.where()))
        elif len(self._waiting) >= self.limits.max_queued_per_origin:
            self._give_up(exchange, self._full(exchange))
        else:
            self._waiting.add(exchange)
            exchange.deadlines.enter(self._waiting_phase(), self.now)
            self._deadlines.arm(exchange, exchange.deadlines.next_at)

    def _full(self, exchange: Exchange) -> PoolFull:
        return PoolFull(
            f"{len(self._waiting):,} requests wait for {self.origin} already, behind {self._connections.load} that are"
            " under way: slow down, or raise Limits.max_queued_per_origin",
            **exchange.where(),
        )

    def _waiting_phase(self) -> str:
        return "pool" if self._connections else "connect"

    def _enter_waiting_phase(self) -> None:
        phase = self._waiting_phase()
        for exchange in self._waiting:
            if exchange.deadlines.phase != phase:  # else a further connection would begin its phase anew
                exchange.deadlines.enter(phase, self.now)
                self._deadlines.arm(exchange, exchange.deadlines.next_at)

    def _on_cancel(self, message: messages.Cancel) -> None:
        if message.exchange.state is not State.DONE:
            self._end_early(message.exchange, CancelledError())

    def _on_consumed(self, message: messages.Consumed) -> None:
        connection = self._carrier(message.exchange)
        if connection is not None:
            # The pause before this was the reader's; the peer's begins here.
            message.exchange.deadlines.touched_at = self.now
            connection.credit(message.exchange, message.body_bytes)

    def _on_upload_ready(self, message: messages.UploadReady) -> None:
        connection = self._carrier(message.exchange)
        if connection is not None:
            connection.resume_upload(message.exchange)

    def _carrier(self, exchange: Exchange) -> Connection | None:
        """The connection that carries an exchange, which gets its turn with this."""
        connection: Connection | None = exchange.connection
        if connection is not None:
            self._connections.touch(connection)
        return connection

    def _on_prewarm(self, message: messages.Prewarm) -> None:
        self._dials.prewarm = max(self._dials.prewarm, message.connections)

    def _on_connect(self, message: messages.Connect) -> None:
        version = self._connections.version
        if self._closing_at != NEVER:
            self._settlement.greet(message.connected, PoolClosed("the pool was closed", origin=self.origin))
        elif version is not None:
            self._settlement.greet(message.connected, version)
        else:
            self._dials.greetings.append(message)

    def _on_ping(self, message: messages.Ping) -> None:
        for connection in self._connections:
            connection.ping(message.payload)
            self._connections.touch(connection)

    def _on_dialed(self, message: messages.Dialed) -> None:
        dialed = message.dialed
        transport = Transport(dialed.sock, dialed.tls)
        kind = Http2Connection if dialed.http2 else Http1Connection
        connection: Connection = kind(transport, self, self.limits, self.route)
        self._dials.succeeded(connection.version)
        self._connections.add(connection)
        self._enter_waiting_phase()
        for greeting in self._dials.take_greetings():
            self._settlement.greet(greeting.connected, connection.version)
        # The peer's first bytes may have come with the end of the handshake: the socket will not announce them.
        connection.read()

    def _on_dial_failed(self, message: messages.DialFailed) -> None:
        self._dials.failed(alone=not self._connections, now=self.now)
        # After a timeout everybody's own deadline speaks: who has more patience is dialled for once more.
        if not (self._connections or self._dials.under_way or isinstance(message.error, ConnectTimeout)):
            self._fail_waiting(message.error)
        elif not (self._connections or self._dials.under_way):
            self._fail_greetings(message.error, due_at=self.now)

    def _fail_greetings(self, error: BaseException, *, due_at: float = NEVER) -> None:
        """Tell those who wait for a connection, and whose patience ends by then, that there is none."""
        for greeting in self._dials.take_greetings():
            if greeting.deadline_at > due_at:
                self._dials.greetings.append(greeting)
            else:
                own = error.own_copy(origin=self.origin) if isinstance(error, HyperpoolError) else error
                self._settlement.greet(greeting.connected, own)

    def _fail_waiting(self, error: BaseException) -> None:
        self._fail_greetings(error)
        for exchange in self._waiting:
            own = error.own_copy(**exchange.where()) if isinstance(error, HyperpoolError) else error
            self._waiting.discard(exchange)
            self._give_up(exchange, own)

    def _on_retire(self, message: messages.Retire) -> None:
        for connection in self._connections:
            connection.drain()
            self._connections.touch(connection)

    def _on_drain(self, message: messages.Drain) -> None:
        self._settlement.when_all_are(message.answered)

    def _on_close(self, message: messages.Close) -> None:
        self._closing_at = min(self._closing_at, message.grace_at)
        for connection in self._connections:
            connection.farewell_code = message.code

    # -- the waiting queue -----------------------------------------------------------------------------------------

    def _start_waiting(self) -> None:
        """First in, first out: what can start starts; for the rest connections are dialled, as far as allowed."""
        while (first := self._waiting.first()) and (connection := self._connections.least_loaded()) is not None:
            self._start(connection, first)
            self._waiting.discard(first)  # after its start, so that a crash there cannot lose it (L5)
        if self.now < self._closing_at:
            waiting = len(self._waiting) + len(self._dials.greetings)
            for _ in range(self._dials.wanted(self._connections, waiting, self.now)):
                self._dials.start(self.now, patience_until_at=self._patience_until_at(first))

    def _patience_until_at(self, first: Exchange | None) -> float:
        """Until when somebody waits for the next connection."""
        if first is not None:
            return first.deadlines.next_at
        return max((greeting.deadline_at for greeting in self._dials.greetings), default=NEVER)

    def _start(self, connection: Connection, exchange: Exchange) -> None:
        self._connections.touch(connection)
        exchange.connection = connection
        try:
            connection.start(exchange)
        except HyperpoolError as error:
            self._end_early(exchange, error.own_copy(**exchange.where()))
        except RuntimeError as error:  # "can't start new thread" for an upload
            failed = HyperpoolError(f"the upload could not be started: {error}", **exchange.where())
            failed.__cause__ = error
            self._end_early(exchange, failed)
        else:
            self._deadlines.arm(exchange, exchange.deadlines.next_at)

    # -- what connections report (Host) ----------------------------------------------------------------------------

    def finished(self, exchange: Exchange) -> None:
        """Settle this exchange at the end of the turn: it is done, or its streamed response has begun."""
        self._settlement.add(exchange)

    def uploaded(self, exchange: Exchange) -> None:
        """The body is out: now its response is waited for, perhaps with less patience."""
        exchange.deadlines.enter("read", self.now)
        self._deadlines.arm(exchange, exchange.deadlines.next_at)

    def requeue(self, exchange: Exchange, reason: str) -> None:
        """The exchange goes out again, before all who came after it (L9)."""
        exchange.requeue(reason, self.now)
        exchange.connection = None
        self._resent += 1
        self._waiting.put_back(exchange)
        self._deadlines.arm(exchange, exchange.deadlines.next_at)

    def adopt(self, exchange: Exchange, connection: Connection) -> None:
        """The server has opened this exchange itself: from now on it has a deadline like any other."""
        exchange.connection = connection
        self._deadlines.arm(exchange, exchange.deadlines.next_at)

    def replace(self, connection: Connection, successor: Connection) -> None:
        """A connection goes on in another version, with the same socket and the same exchange."""
        self._connections.replace(connection, successor)
        self._dials.version = successor.version
        for exchange in successor.exchanges:
            exchange.connection = successor

    # -- ends ------------------------------------------------------------------------------------------------------

    def _give_up(self, exchange: Exchange, error: BaseException) -> None:
        exchange.fail(error)
        self._settlement.add(exchange)

    def _end_early(self, exchange: Exchange, error: BaseException) -> None:
        """End an exchange wherever it is: in the queue, or on the wire, where its stream is reset.

        A PING goes with the reset, so a connection on which streams time out is found dead, if it is, by that.
        """
        if exchange.state is State.QUEUED:
            self._waiting.discard(exchange)
        connection = self._carrier(exchange)
        self._give_up(exchange, error)
        if connection is not None and connection.life is not Life.CLOSED:
            connection.cancel(exchange)

    def _unanswered(self) -> bool:
        """Whether somebody's Future is still to be resolved."""
        if self._waiting or self._dials.greetings:
            return True
        return any(one.future is not None for connection in self._connections for one in connection.exchanges)

    def _end_everything(self) -> None:
        """The grace is over: fail what is left, close everything."""
        self._dials.cancel()
        self._fail_waiting(PoolClosed("the pool was closed before this request was answered"))
        for connection in self._connections:
            for exchange in connection.exchanges:
                self._end_early(exchange, PoolClosed("the pool was closed", **exchange.where()))
            connection.flush()
            connection.close()
            self._connections.watch(connection)
        self._settlement.carry_out()

    def _crash(self, cause: BaseException) -> None:
        """Last resort: close everything raw and settle everybody with the cause (L5, L12)."""
        error = cause if isinstance(cause, HyperpoolError) else _as_bug(self.origin, cause)
        self._dials.cancel()
        # One message may have been the cause; those behind it were not looked at.
        for message in [*self._taken, *self.inbox.close()]:
            self._save_from(message)
        self._fail_greetings(error)
        exchanges = [*self._waiting, *self._settlement.take()]
        for connection in self._connections:
            exchanges += connection.exchanges
            connection.transport.abort()
        for exchange in dict.fromkeys(exchanges):
            if exchange.state is not State.DONE:
                exchange.fail(error.own_copy(**exchange.where()))
            self._settlement.add(exchange)
        self._settlement.carry_out()

    def _save_from(self, message: Any) -> None:
        """What a message holds must not be lost with the inbox: exchanges are settled, sockets closed."""
        if isinstance(message, messages.Submit):
            self._waiting.add(message.exchange)
        elif isinstance(message, messages.Connect):
            self._dials.greetings.append(message)
        elif isinstance(message, messages.Dialed):
            message.dialed.close()

    def _release(self) -> None:
        self._selector.close()
        self._wakeup.close()
        self.ended = True
        self._publish()

    def discard(self, error: HyperpoolError) -> None:
        """Any thread, of a loop that never ran: let it go, and settle what others have put there meanwhile."""
        self._crash(error)
        self._release()

    def abandon_in_child(self) -> None:
        """After a fork, in the child: close the copies of the descriptors; the parent goes on with its own."""
        self.inbox.abandon_in_child()
        self._selector.close()
        self._wakeup.close()
        for connection in self._connections:
            connection.transport.abort()

    # -- statistics ------------------------------------------------------------------------------------------------

    def _publish(self) -> None:
        self.stats = OriginStats(
            self.origin,
            self._dials.version,
            len(self._connections),
            self._connections.load,
            len(self._waiting),
            self._dials.under_way,
            self._requests,
            self._resent,
        )

    def __repr__(self) -> str:
        stats = self.stats
        return f"<OriginLoop {self.origin} {stats.http_version} open={stats.open_streams} queued={stats.queued}>"


def _as_bug(origin: str, cause: BaseException) -> HyperpoolError:
    error = HyperpoolError(f"the I/O thread of {origin} failed: {cause!r}; this is a bug in hyperpool", origin=origin)
    error.__cause__ = cause
    return error


_REACT: dict[type, Callable[[OriginLoop, Any], None]] = {
    messages.Submit: OriginLoop._on_submit,
    messages.Cancel: OriginLoop._on_cancel,
    messages.Consumed: OriginLoop._on_consumed,
    messages.UploadReady: OriginLoop._on_upload_ready,
    messages.Prewarm: OriginLoop._on_prewarm,
    messages.Connect: OriginLoop._on_connect,
    messages.Ping: OriginLoop._on_ping,
    messages.Dialed: OriginLoop._on_dialed,
    messages.DialFailed: OriginLoop._on_dial_failed,
    messages.Retire: OriginLoop._on_retire,
    messages.Drain: OriginLoop._on_drain,
    messages.Close: OriginLoop._on_close,
}
