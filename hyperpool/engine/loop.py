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
import math
import selectors
import sys
import time
from collections.abc import Callable
from concurrent.futures import CancelledError
from typing import TYPE_CHECKING, Any

from hyperpool.engine.announcements import Announcements
from hyperpool.engine.connection import CLOSED, Connection
from hyperpool.engine.connections import Connections
from hyperpool.engine.dials import Dialer, Dials
from hyperpool.engine.endings import Endings
from hyperpool.engine.greetings import Greetings
from hyperpool.engine.http1 import Http1Connection
from hyperpool.engine.http2 import Http2Connection
from hyperpool.engine.reports import Reports
from hyperpool.engine.settlement import Settlement
from hyperpool.engine.stats import OriginStats
from hyperpool.engine.timers import Timers
from hyperpool.engine.transport import Transport
from hyperpool.engine.waiting import WaitingQueue
from hyperpool.engine.wakeup import SocketWakeup
from hyperpool.errors import ConnectTimeout, HyperpoolError, PoolClosed
from hyperpool.handoff import messages
from hyperpool.handoff.deadlines import LONGEST_SLEEP_S, NEVER
from hyperpool.handoff.exchange import DONE, Exchange
from hyperpool.handoff.inbox import Inbox, until_there_is_memory
from hyperpool.handoff.loop_thread import enter_loop_thread

if TYPE_CHECKING:
    from hyperpool.handoff.hooks import Hooks
    from hyperpool.values import Limits, Route

logger = logging.getLogger("hyperpool")

# In a free-threaded build an object of which another thread drops the last reference is freed by the thread that has
# made it, once that runs (PEP 703, biased reference counts): the finalizer of a forgotten response waits for a turn of
# its loop, and the peer may have nothing to say that would bring one. So a loop with open streams does not sleep for
# longer than this there; twice costs half of next to nothing, and a forgotten slot for twice as long.
FORGOTTEN_WITHIN_S = 1.0
_WAKES_FOR_FORGOTTEN = "t" in getattr(sys, "abiflags", "")


class OriginLoop:
    """The loop of one origin.

    Owned by the loop thread; other threads use ``inbox`` and read ``stats``, which is swapped whole.
    """

    def __init__(
        self,
        route: Route,
        limits: Limits,
        dialer: Dialer,
        *,
        clock: Callable[[], float] = time.monotonic,
        hooks: Hooks | None = None,
    ) -> None:
        self.route = route
        self.limits = limits
        self.origin = str(route.origin)
        self.now = clock()
        self.ended = False
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
        self._announcements = None if hooks is None else Announcements(hooks, self._settlement)
        self._greetings = Greetings(self.origin, self._settlement)
        self._reports = Reports(
            self.now,
            waiting=self._waiting,
            deadlines=self._deadlines,
            connections=self._connections,
            dials=self._dials,
            settlement=self._settlement,
            announcements=self._announcements,
        )
        self._endings = Endings(
            self.origin,
            reports=self._reports,
            waiting=self._waiting,
            connections=self._connections,
            dials=self._dials,
            greetings=self._greetings,
            settlement=self._settlement,
        )
        self._is_retired = False
        self._closing_at = NEVER
        self._farewell_code = 0
        self._requests = 0

    # -- the loop --------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """The thread's body: turn after turn until nothing is left; a crash settles everything (L5)."""
        enter_loop_thread()
        try:
            while self.step():
                pass
        except BaseException as error:  # whatever it was: every waiter must learn of it, and none may hang
            until_there_is_memory(self._crash, error)
            logger.debug("%r failed", self, exc_info=True)
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
        self.now = self._reports.now = self._clock()
        return ready

    def _sleep_s(self) -> float | None:
        if self._connections.any_busy or not self.inbox.may_sleep():
            return 0
        wake_at = min(
            self._deadlines.next_at(),
            self._connections.next_at(),
            self._greetings.next_at(),
            self._waiting.next_at(self.now),
            self._dials.next_at(waiting=bool(self._waiting.ready(self.now) or self._greetings), now=self.now),
            # Once it has passed everything is ended, and only dials are waited for.
            self._closing_at if self._closing_at > self.now else NEVER,
        )
        if _WAKES_FOR_FORGOTTEN and self._connections.load:
            wake_at = min(wake_at, self.now + FORGOTTEN_WITHIN_S)
        return None if wake_at == NEVER else min(max(0.0, wake_at - self._clock()), LONGEST_SLEEP_S)

    def _take_messages(self, ready: list[tuple[selectors.SelectorKey, int]]) -> None:
        woken = any(key.data is None for key, _ in ready)
        taken = self.inbox.take(woken=woken)
        while taken:
            _REACT[taken[0].__class__](self, taken[0])
            taken.popleft()  # after it was acted on, so that a crash there cannot lose it (L5)

    def _read(self, ready: list[tuple[selectors.SelectorKey, int]]) -> None:
        for key, mask in ready:
            connection: Connection | None = key.data
            if connection is None or connection.life is CLOSED:
                continue  # the wake-up, or a connection that a message has just closed
            self._connections.touch(connection)
            if mask & selectors.EVENT_READ:
                connection.read()

    def _run_timers(self) -> None:
        for exchange in self._deadlines.take_due(self.now):
            self._look_at_deadline(exchange)
        self._connections.run_timers(self.now)
        self._greetings.run_timers(self.now, self._dials.phase)

    def _look_at_deadline(self, exchange: Exchange) -> None:
        if exchange.state is DONE:
            return
        if exchange.excused:
            exchange.deadlines.touched_at = self.now
        slow = exchange.deadlines.too_slow(self.now, unread=exchange.unread_bytes > 0)
        if exchange.deadlines.next_at > self.now and not slow:
            self._deadlines.arm(exchange, exchange.deadlines.look_at)
        else:
            self._endings.time_out(exchange, slow)

    def _pump_and_flush(self) -> None:
        self._connections.pump_and_flush()
        self._publish()

    def _goes_on(self) -> bool:
        closing = self._closing_at != NEVER
        answered = (closing or self._settlement.awaited) and not self._endings.unanswered
        if answered:
            self._settlement.all_are()
        if self._closing_at <= self.now or (closing and answered):
            self._endings.close()
        if self._connections or self._waiting or self._dials.under_way or self._greetings:
            return True
        if self._dials.postponed(self.now) and not closing:
            return True
        return not self.inbox.close_if_empty()

    # -- messages --------------------------------------------------------------------------------------------------

    def _on_submit(self, message: messages.Submit) -> None:
        exchange = message.exchange
        self._settlement.accept(exchange)
        self._requests += 1
        if self._closing_at != NEVER:
            self._endings.give_up(exchange, PoolClosed("the pool was closed", **exchange.where()))
        elif len(self._waiting) >= self.limits.max_queued_per_origin:
            self._endings.refuse(exchange)
        else:
            self._waiting.add(exchange)
            self._begin_waiting(exchange, self._waiting_phase())

    def _waiting_phase(self) -> str:
        return "pool" if self._connections else "connect"

    def _enter_waiting_phase(self) -> None:
        phase = self._waiting_phase()
        for exchange in self._waiting:
            if exchange.deadlines.phase != phase:  # else a further connection would begin its phase anew
                self._begin_waiting(exchange, phase)

    def _begin_waiting(self, exchange: Exchange, phase: str) -> None:
        deadlines = exchange.deadlines
        deadlines.enter(phase, self.now)
        look_at = deadlines.look_at
        if look_at <= self.now < deadlines.total_at:
            # In this turn it may start: who waits for 0 s takes what is free now, and nothing else.
            look_at = math.nextafter(self.now, NEVER)
        self._deadlines.arm(exchange, look_at)

    def _on_cancel(self, message: messages.Cancel) -> None:
        if message.exchange.state is not DONE:
            self._endings.end_early(message.exchange, CancelledError())

    def _on_consumed(self, message: messages.Consumed) -> None:
        connection = self._connections.carrier(message.exchange)
        if connection is not None:
            message.exchange.deadlines.body_was_read(self.now)
            connection.credit(message.exchange, message.body_bytes)

    def _on_upload_ready(self, message: messages.UploadReady) -> None:
        connection = self._connections.carrier(message.exchange)
        if connection is not None:
            connection.resume_upload(message.exchange)

    def _on_prewarm(self, message: messages.Prewarm) -> None:
        self._dials.prewarm = max(self._dials.prewarm, message.connections)

    def _on_connect(self, message: messages.Connect) -> None:
        version = self._connections.version
        if self._closing_at != NEVER:
            self._settlement.greet(message.connected, PoolClosed("the pool was closed", origin=self.origin))
        elif version is not None:
            self._settlement.greet(message.connected, version)
        else:
            self._greetings.add(message)

    def _on_ping(self, message: messages.Ping) -> None:
        for connection in self._connections:
            if connection.life is not CLOSED:
                connection.ping(message.payload)
                self._connections.touch(connection)

    def _on_dialed(self, message: messages.Dialed) -> None:
        dialed = message.dialed
        transport = Transport(dialed.sock, dialed.tls)
        kind = Http2Connection if dialed.http2 else Http1Connection
        try:
            connection: Connection = kind(transport, self._reports, self.limits, self.route)
        except HyperpoolError as error:  # the caller's window manager
            transport.abort()
            self._on_dial_failed(messages.DialFailed(error))
            return
        connection.farewell_code = self._farewell_code
        self._dials.succeeded(connection.version)
        self._connections.add(connection)
        if self._announcements is not None:
            self._announcements.opened(connection, dialed)
        self._enter_waiting_phase()
        self._greetings.answer(connection.version)
        # The peer's first bytes may have come with the end of the handshake: the socket will not announce them.
        connection.read()
        if connection.life is CLOSED:
            self._connections.watch(connection)  # before the next one is dialled

    def _on_dial_failed(self, message: messages.DialFailed) -> None:
        # A dial that ran out of time was as patient as whoever is next in line: for them it must be over by now, or one
        # more would be begun for the microseconds that are left, and they were told of that.
        self.now = self._reports.now = self._clock()
        self._dials.failed(alone=not self._connections, now=self.now)
        # After a timeout everybody's own deadline speaks: who has more patience is dialled for once more.
        if not (self._connections or self._dials.under_way or isinstance(message.error, ConnectTimeout)):
            self._endings.fail_waiting(message.error)

    def _on_retire(self, message: messages.Retire) -> None:
        self._is_retired = True
        self._drain_all()

    def _on_drain(self, message: messages.Drain) -> None:
        self._settlement.when_all_are(message.answered)

    def _on_close(self, message: messages.Close) -> None:
        self._closing_at = min(self._closing_at, message.grace_at)
        self._farewell_code = message.code or self._farewell_code
        for connection in self._connections:
            connection.farewell_code = self._farewell_code

    # -- the waiting queue -----------------------------------------------------------------------------------------

    def _start_waiting(self) -> None:
        """First in, first out: what can start starts; for the rest connections are dialled, as far as allowed."""
        self._waiting.run_timers(self.now)
        if not self._connections and (hopeless := self._dials.take_hopeless()) is not None:
            self._endings.fail_waiting(hopeless)
        while first := self._waiting.first(self.now):
            connection = self._connections.next_carrier(first)
            if connection is None:
                break
            self._start(connection, first)
            self._waiting.discard(first)  # after its start, so that a crash there cannot lose it (L5)
        if self.now < self._closing_at:
            waiting = max(self._waiting.ready(self.now), bool(self._greetings))
            for _ in range(self._dials.wanted(self._connections, waiting, self.now)):
                self._dials.start(self.now, patience_until_at=self._patience_until_at(first))
        if self._is_retired and not (self._waiting or self._greetings):
            self._drain_all()  # what was dialled since then: no route leads here any more

    def _drain_all(self) -> None:
        for connection in self._connections:
            connection.drain()
            self._connections.touch(connection)

    def _patience_until_at(self, first: Exchange | None) -> float:
        """Until when somebody waits for the next connection."""
        return self._greetings.patience_until_at() if first is None else first.deadlines.next_at

    def _start(self, connection: Connection, exchange: Exchange) -> None:
        self._connections.touch(connection)
        exchange.connection = connection
        try:
            connection.start(exchange)
        except HyperpoolError as error:
            self._endings.end_early(exchange, error.own_copy(**exchange.where()))
        except RuntimeError as error:  # "can't start new thread" for an upload
            failed = HyperpoolError(f"the upload could not be started: {error}", **exchange.where())
            failed.__cause__ = error
            self._endings.end_early(exchange, failed)
        else:
            self._deadlines.arm(exchange, exchange.deadlines.next_at)

    # -- ends ------------------------------------------------------------------------------------------------------

    def _crash(self, cause: BaseException) -> None:
        # The first message that is left may have been the cause; those behind it were not looked at.
        self._endings.crash(cause, self.inbox.close())

    def _release(self) -> None:
        self._settlement.all_are()  # whoever drains waits for nothing more, however this loop has ended
        self._selector.close()
        self._wakeup.close()
        self.ended = True
        self._publish()

    def discard(self, error: HyperpoolError) -> None:
        """Any thread, of a loop that never ran: let it go, and settle what others have put there meanwhile."""
        self._crash(error)
        self._release()

    def abandon_in_child(self) -> None:
        """After a fork, in the child: close the copies of the descriptors; the parent goes on with its own.

        Whoever came along and waits for something here is told.
        """
        waited = self.inbox.abandon_in_child()
        self._selector.close()
        self._wakeup.close()
        self._dials.abandon_in_child()
        for connection in self._connections:
            connection.transport.abort()
        self._endings.abandon_in_child(waited)

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
            self._reports.resent,
        )

    def __repr__(self) -> str:
        stats = self.stats
        return f"<OriginLoop {self.origin} {stats.http_version} open={stats.open_streams} queued={stats.queued}>"


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
