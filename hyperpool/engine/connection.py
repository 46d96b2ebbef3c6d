"""What HTTP/2 and HTTP/1.1 connections have in common: their life, their socket, and the shape that the loop sees.

    OPEN --drain--> DRAINING --last exchange--> CLOSED
      '------------------failure--------------------^

A connection goes this way and never back (L10).
"""

from __future__ import annotations

import enum
import random
import selectors
from typing import TYPE_CHECKING, Protocol

from hyperpool.engine.transport import RECV_BYTES, Transport
from hyperpool.errors import ConnectionLost, HyperpoolError
from hyperpool.handoff.deadlines import NEVER
from hyperpool.handoff.exchange import Exchange, State
from hyperpool.protocol.events import Codec, Event
from hyperpool.protocol.fields import IDEMPOTENT

if TYPE_CHECKING:
    from hyperpool.values import Limits, Route

# A request is resent this often at most when servers keep refusing it (RFC 9113 8.7 sets no bound; Go and OkHttp stop
# at 6 and 20). A server that refuses five times is not going to take the sixth. See `Exchange.refusals`.
MAX_RESENDS = 5
# Why a request goes out again that was to go out on a connection that is lost.
NEVER_WRITTEN = "the connection was lost before a byte of it was written"
# Ciphertext that may wait before uploads pause: enough to fill a socket, little enough that a PING or a RST_STREAM does
# not queue behind megabytes.
BACKLOG_BYTES = 256 << 10
# What a piece of an upload counts for at least, in a turn's share of the backlog: a turn of single bytes would keep
# everybody else waiting for seconds.
LEAST_PIECE_BYTES = 1 << 10
# What uploads write at a time: below 128 KiB for the reason that `RECV_BYTES` has; more of it gained nothing.
WRITE_BYTES = 64 << 10
# One turn of the loop reads this much of a connection at most (1 MiB), so that another connection gets its turn.
TURN_PIECES = (1 << 20) // RECV_BYTES


class Life(enum.Enum):
    """Where a connection stands."""

    OPEN = "open"
    DRAINING = "draining"
    CLOSED = "closed"


# By these names: before Python 3.12 an Enum finds a member by a detour of 0.1 us, and a request asks a dozen times.
OPEN, DRAINING, CLOSED = Life


class Host(Protocol):
    """The loop, as its connections see it."""

    now: float
    # Whether the server has answered an offer of HTTP/2 in HTTP/1.1 (RFC 7540 3.2).
    upgrade_refused: bool
    # Whether a forwarding proxy closes connections that its answers promise to keep (tinyproxy does after each one).
    closes_unannounced: bool
    # How many times rarer than usual the server wants its PINGs.
    calm: int

    def finished(self, exchange: Exchange) -> None: ...

    def uploaded(self, exchange: Exchange) -> None: ...

    def requeue(self, exchange: Exchange, reason: str, *, refused: bool) -> None: ...

    def adopt(self, exchange: Exchange, connection: Connection) -> None: ...

    def replace(self, connection: Connection, successor: Connection) -> None: ...

    def speak_http1(self) -> None: ...

    def calm_down(self) -> None: ...

    def flooded(self) -> None: ...

    def gone(self, connection: Connection) -> None: ...


class Connection:
    """One connection of either version.

    Owned by the loop thread. What differs between the versions is in `Http2Connection` and `Http1Connection`.
    """

    version = ""
    # Whether the peer's limits are known.
    ready = True
    # Whether its peer may be gone.
    in_doubt = False

    def __init__(self, transport: Transport, codec: Codec, host: Host, limits: Limits, route: Route) -> None:
        self.transport = transport
        self.route = route
        # With which error code HTTP/2 says goodbye (RFC 9113 7).
        self.farewell_code = 0
        self.host = host
        self.limits = limits
        self.life = OPEN
        self.timer_at = NEVER
        self.watched = 0
        # Whether an exchange has ever been started on it.
        self.carried_any = False
        # What it was lost by.
        self.lost_by: HyperpoolError | None = None
        self.opened_at = host.now
        # With jitter, so that connections opened together do not all end together.
        self.retire_at = host.now + limits.max_age_s * random.uniform(0.9, 1.1)
        self._codec = codec
        # Whose readers have not been told yet of what came in this turn.
        self._fed: set[Exchange] = set()

    # -- what the loop asks ----------------------------------------------------------------------------------------

    @property
    def exchanges(self) -> list[Exchange]:
        """The exchanges that are under way here."""
        raise NotImplementedError

    @property
    def free_slots(self) -> int:
        """How many further exchanges may start now."""
        raise NotImplementedError

    @property
    def load(self) -> int:
        """How many exchanges are under way."""
        return len(self.exchanges)

    @property
    def wants_read(self) -> bool:
        """Whether bytes of the peer are welcome."""
        return True

    @property
    def wants_turn(self) -> bool:
        """Whether there is something to send that needs neither the peer nor another thread."""
        return False

    @property
    def interest(self) -> int:
        """The selector's events to wait for."""
        wanted = selectors.EVENT_READ if self.wants_read else 0
        # A socket that is broken, of which something is still to be heard, says all the time that it can be written to.
        writes = self.transport.backlog_bytes and self.transport.failure is None
        return wanted | (selectors.EVENT_WRITE if writes else 0)

    def start(self, exchange: Exchange) -> None:
        """Send the exchange's head and begin with its body."""
        raise NotImplementedError

    def cancel(self, exchange: Exchange) -> None:
        """Take an exchange off the wire; it has been failed already."""
        raise NotImplementedError

    def credit(self, exchange: Exchange, body_bytes: int) -> None:
        """A reader has taken this much of a streamed body."""
        raise NotImplementedError

    def resume_upload(self, exchange: Exchange) -> None:
        """An upload that had run dry has bytes again, has ended, or has failed."""
        raise NotImplementedError

    def ping(self, payload: bytes) -> None:
        """Send a PING of the caller's, where the version has one (RFC 9113 6.7)."""

    def pump(self) -> None:
        """Send what uploads have, as far as windows and backlog allow."""
        raise NotImplementedError

    def next_at(self) -> float:
        """The instant at which `on_timer` wants to be called, if nothing happens before."""
        raise NotImplementedError

    def on_timer(self) -> None:
        """The instant has come."""
        raise NotImplementedError

    # -- bytes -----------------------------------------------------------------------------------------------------

    def read(self) -> None:
        """Take what the socket has, up to a turn's share, and act on it; then on the end, if that came with it."""
        for _ in range(TURN_PIECES):
            self.hear(self.transport.receive())
            if not self.transport.more or self.life is CLOSED or not self.wants_read:
                break
        self.wake_readers()

    def wake_readers(self) -> None:
        """Tell the readers of streamed bodies, once for all that this turn has brought."""
        while self._fed:
            self._fed.pop().wake_reader()

    def _feed(self, exchange: Exchange, data: bytes) -> bool:
        """`Exchange.feed`, of which the reader is told at the end of the turn."""
        streamed = exchange.streamed
        if streamed:
            self._fed.add(exchange)
        consumed = exchange.feed(data, wake=False)
        if exchange.streamed is not streamed:
            self.host.finished(exchange)
        return consumed

    def hear(self, data: bytes) -> None:
        """Act on these bytes, and on what the transport says beside them."""
        if data:
            self.handle(self._codec.receive(data))
        if self.life is not CLOSED:
            self._check_health()

    def flush(self) -> None:
        """Send what the codec has, in one piece (one system call a step)."""
        data = self._codec.data_to_send()
        if data:
            self.transport.send(data)
        elif self.transport.backlog_bytes:
            self.transport.flush()
        if self.transport.failure is not None:
            self._hear_last_words()
        elif self.life is DRAINING and not self.load:
            self.close()

    def _hear_last_words(self) -> None:
        """The socket is broken, which was found in writing: what came before that is still there to be read.

        A server that does not want the rest of an upload answers, or says GOAWAY, and closes over bytes that it has not
        read, which is a reset (RFC 9112 9.6). On which streams it has not acted stands there alone (RFC 9113 6.8).
        """
        if self.wants_read:
            self.read()
        else:
            self._check_health()

    def _write_out(self) -> None:
        """Send what uploads have put into the codec; `flush` looks at how that went."""
        if data := self._codec.data_to_send():
            self.transport.send(data)

    def handle(self, events: list[Event]) -> None:
        """Act on the codec's events."""
        raise NotImplementedError

    def _check_health(self) -> None:
        failure = self._codec.failure or self.transport.failure
        if failure is None and self.transport.eof:
            self.handle(self._codec.receive_eof())
            failure = self._codec.failure or ConnectionLost("the server closed the connection", processed="maybe")
        if failure is not None:
            self.abort(failure)

    @property
    def _written_bytes(self) -> int:
        """All that was written so far, whether the socket has taken it or not."""
        return self.transport.sent_bytes + self.transport.backlog_bytes

    def _end_unless_unwritten(self, exchange: Exchange, error: HyperpoolError, begins_at_bytes: int) -> None:
        """Fail the exchange, or send it again: of what the socket has taken nothing, the server has seen nothing (L9).

        What is wrong with TLS or with the server's HTTP would be so the next time.
        """
        unwritten = self.transport.sent_bytes <= begins_at_bytes
        if unwritten and isinstance(error, ConnectionLost) and may_resend(exchange):
            self.host.requeue(exchange, NEVER_WRITTEN, refused=True)
            return
        where = exchange.where()
        self._fail(exchange, error.own_copy(**{**where, "processed": "no" if unwritten else where["processed"]}))

    # -- life ------------------------------------------------------------------------------------------------------

    def drain(self) -> None:
        """Start nothing new; `flush` closes when the last exchange is done (L10)."""
        if self.life is OPEN:
            self.life = DRAINING

    def close(self) -> None:
        """Say goodbye and close; nothing is under way."""
        if self.life is not CLOSED:
            self.life = CLOSED
            self.transport.close()

    def abort(self, error: HyperpoolError) -> None:
        """The connection is no good: close it raw, and end or requeue what was under way (L5, L9, L12)."""
        if self.life is CLOSED:
            return
        self.life = CLOSED
        self.lost_by = error
        # Whatever the codec still has to say (a GOAWAY that names the fault) goes out if the socket takes it.
        if data := self._codec.data_to_send():
            self.transport.send(data)
        self.transport.abort()
        for exchange in self.exchanges:
            self.end_lost(exchange, error)

    def end_lost(self, exchange: Exchange, error: HyperpoolError) -> None:
        """End one exchange of a connection that is lost."""
        raise NotImplementedError

    def _uploaded(self, exchange: Exchange, *, last: bool) -> None:
        """The wire has taken a piece of the body, perhaps its end."""
        if last:
            self.host.uploaded(exchange)
        else:
            exchange.deadlines.enter("write", self.host.now)

    def _fail(self, exchange: Exchange, error: BaseException) -> None:
        exchange.fail(error)
        self.host.finished(exchange)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.life.value} load={self.load} backlog={self.transport.backlog_bytes}>"


def may_resend(exchange: Exchange) -> bool:
    """Whether an exchange that the server provably did not act on can go out again (L9)."""
    return exchange.state is State.OPEN and exchange.replayable and exchange.refusals < MAX_RESENDS


def may_repeat(exchange: Exchange) -> bool:
    """Whether an exchange that a reused connection lost without a byte of an answer can go out again, once.

    RFC 9112 9.3.1 and RFC 9110 9.2.2: the server may have closed just as the request left; repeating is safe for
    idempotent methods.
    """
    return may_resend(exchange) and is_repeatable(exchange)


def is_repeatable(exchange: Exchange) -> bool:
    """Whether it may be lost once: what is not is written with more care (see `Connections.next_carrier`)."""
    return exchange.replayable and not exchange.resends and exchange.request.method in IDEMPOTENT
