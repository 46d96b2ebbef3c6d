"""One HTTP/1.1 connection: the same shape as an HTTP/2 one, with one exchange at a time (RFC 9112).

There is no stream to reset here: a cancelled exchange closes the socket. There is no window either: a reader that does
not keep up is respected by not reading the socket, which lets TCP's own window fill.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from hyperpool.engine.connection import (
    BACKLOG_BYTES,
    CLOSED,
    DRAINING,
    LEAST_PIECE_BYTES,
    OPEN,
    WRITE_BYTES,
    Connection,
    Host,
    is_repeatable,
    may_repeat,
)
from hyperpool.engine.expectations import CONTINUE, REFUSAL, Expectations
from hyperpool.engine.http2 import Http2Connection
from hyperpool.errors import ConnectionLost, HyperpoolError, LocalProtocolError, RemoteProtocolError
from hyperpool.handoff.deadlines import NEVER
from hyperpool.handoff.exchange import Exchange
from hyperpool.protocol import events
from hyperpool.protocol.h1_codec import H1Codec
from hyperpool.protocol.h2_codec import H2Codec
from hyperpool.proxies import forwards

if TYPE_CHECKING:
    from hyperpool.engine.transport import Transport
    from hyperpool.values import Limits, Route

# One piece of an upload: a chunk head on each costs nothing at this size.
PIECE_BYTES = 64 << 10
# How long others wait for the answer to an offer of HTTP/2, in which they may get a stream of the same connection. A
# server that switches does so at once; one that does not may take its time, and nobody should wait for that.
UPGRADE_PATIENCE_S = 0.25


class Http1Connection(Connection):
    """One HTTP/1.1 connection.

    Owned by the loop thread (L1).
    """

    version = "HTTP/1.1"

    def __init__(self, transport: Transport, host: Host, limits: Limits, route: Route) -> None:
        self._h1 = H1Codec(max_header_bytes=limits.max_header_bytes)
        super().__init__(transport, self._h1, host, limits, route)
        self._exchange: Exchange | None = None
        self._number = 0
        self._trailers: events.Fields = []
        self._sending = False
        self._upload_parked = False
        # Whether a request has started that could not go out again if it were lost, and nothing was written since.
        self._listens_first = False
        self._used = False
        self._idle_since = host.now
        self._begins_at_bytes = -1
        self._expectations = Expectations(limits.continue_after_s)
        # HTTP/2 as it was offered with the request under way (RFC 7540 3.2), and until when others wait for the answer.
        self._offered: H2Codec | None = None
        self._patience_until_at = NEVER

    # -- what the loop asks ----------------------------------------------------------------------------------------

    @property
    def exchanges(self) -> list[Exchange]:
        """The exchange that is under way."""
        return [] if self._exchange is None else [self._exchange]

    @property
    def load(self) -> int:
        """Whether it carries one."""
        return int(self._exchange is not None)

    @property
    def free_slots(self) -> int:
        """1 while idle."""
        if self._exchange is not None or self.life is not OPEN:
            return 0
        return int(not (self._used and self.host.closes_unannounced))

    @property
    def ready(self) -> bool:  # type: ignore[override]
        """False while HTTP/2 was offered: what still waits may soon have a stream of this connection."""
        return self._offered is None or self.host.now >= self._patience_until_at

    @property
    def wants_read(self) -> bool:
        """False while the reader is more than a window behind (L8)."""
        return self._exchange is None or self._exchange.unread_bytes < self.limits.stream_window_bytes

    @property
    def wants_turn(self) -> bool:
        """Whether the upload could go on at once."""
        return self._sending and not self._upload_parked and self.transport.backlog_bytes < BACKLOG_BYTES

    def start(self, exchange: Exchange) -> None:
        """Send the head; the body follows with `pump`."""
        self._exchange = exchange
        self._trailers = []
        self._sending = exchange.request_body is not None
        self._upload_parked = False
        head = exchange.head
        if self._may_offer(head):
            head = self._offer_http2(head)
        self.carried_any = True
        self._begins_at_bytes = self._written_bytes
        self._number = self._h1.open(head, end=not self._sending)
        exchange.begin(None, self.host.now)
        self._listens_first = self._used and not is_repeatable(exchange)
        if self._sending and exchange.head.expects_continue:
            self._upload_parked = True
            self._expectations.hold(exchange, self.host.now)

    def _may_offer(self, head: events.RequestHead) -> bool:
        """Not over TLS, where ALPN has chosen; not with a body, all of which would have to be sent first."""
        if not self.route.upgrade or self.route.origin.scheme != "http" or self.host.upgrade_refused:
            return False
        return not (self._used or self._sending or b"close" in _connection_options(head).lower())

    def _offer_http2(self, head: events.RequestHead) -> events.RequestHead:
        """The head with the offer in it."""
        self._offered = H2Codec(self.limits, push=self.route.push, upgrade=head.method)
        self._patience_until_at = self.host.now + UPGRADE_PATIENCE_S
        kept = tuple(pair for pair in head.fields if pair[0].lower() != b"connection")
        offer = (
            (b"Connection", _connection_options(head) + b"Upgrade, HTTP2-Settings"),
            (b"Upgrade", b"h2c"),
            (b"HTTP2-Settings", self._offered.upgrade_settings),
        )
        return head._replace(fields=kept + offer)

    def cancel(self, exchange: Exchange) -> None:
        """Close the socket: HTTP/1.1 has no other way to say that nobody listens."""
        if self._exchange is exchange:
            self._exchange = None
            self.life = CLOSED
            self.transport.abort()

    def credit(self, exchange: Exchange, body_bytes: int) -> None:
        """The reader is going on; `wants_read` sees it."""

    # -- uploads ---------------------------------------------------------------------------------------------------

    def resume_upload(self, exchange: Exchange) -> None:
        """The caller has bytes again."""
        if self._exchange is exchange:
            self._upload_parked = False
            assert exchange.request_body is not None
            exchange.request_body.starved = False
            exchange.deadlines.touched_at = self.host.now

    def _release_upload(self, exchange: Exchange) -> None:
        failed = self._expectations.release(exchange, self.host.now)
        if failed is None:
            self._upload_parked = False
            return
        self.cancel(exchange)
        self._sending = False
        self._fail(exchange, failed)

    def _keep_upload(self, exchange: Exchange, status: int) -> None:
        """The server has answered while the body waited. Nothing else goes out here: it may still be read as a body."""
        self.drain()
        if status >= REFUSAL:
            self._expectations.refuse(exchange)
            self._sending = False
            self.host.uploaded(exchange)

    def pump(self) -> None:
        """Send the body until the caller or the socket says stop."""
        if self._listens_first:
            self._listens_first = False
            if self._is_over():
                return
        room_bytes, unwritten_bytes = BACKLOG_BYTES - self.transport.backlog_bytes, 0
        while self._sending and not self._upload_parked and room_bytes > 0:
            assert self._exchange is not None
            piece_bytes = self._send_piece(self._exchange)
            room_bytes -= max(piece_bytes, LEAST_PIECE_BYTES)
            unwritten_bytes += piece_bytes
            # Less than that goes out with the end of the turn: a small body of a wrong length does not go out at all.
            if unwritten_bytes >= WRITE_BYTES:
                self._write_out()
                unwritten_bytes = 0

    def _is_over(self) -> bool:
        """Whether the server has ended a kept-alive connection before a byte of its next request was written.

        Other connections had their turn since this one was chosen, and the request is lost if it goes out now: the
        server may have acted on it, for all that anybody knows then (RFC 9112 9.3.1).
        """
        # What a server says before it is asked is no answer: 408, as some say goodbye.
        if not self.transport.receive() and not self.transport.eof and self.transport.failure is None:
            return False
        self._h1.data_to_send()
        self.abort(ConnectionLost("the server closed the connection", processed="no"))
        return True

    def _send_piece(self, exchange: Exchange) -> int:
        body = exchange.request_body
        assert body is not None
        piece = body.take(PIECE_BYTES, where=exchange.where)
        if piece.failure is not None:
            self.cancel(exchange)
            self._sending = False
            self._fail(exchange, piece.failure)
        elif piece.data or piece.last:
            trailers = body.trailers if piece.last else None
            self._h1.send(self._number, piece.data, end=piece.last and not trailers)
            if trailers:
                self._h1.trail(self._number, trailers)
            self._sending = not piece.last
            self._uploaded(exchange, last=piece.last)
        else:
            self._upload_parked = body.starved = True
        return len(piece.data)

    # -- what the peer says ----------------------------------------------------------------------------------------

    def handle(self, heard: list[events.Event]) -> None:
        """Act on events, each by its class."""
        for event in heard:
            if self._exchange is not None:
                self._exchange.deadlines.touched_at = self.host.now
                _REACT[event.__class__](self, self._exchange, event)

    def _on_switched(self, exchange: Exchange, event: events.Switched) -> None:
        """The rest of this connection's life is HTTP/2's, and so is the response (RFC 7540 3.2)."""
        assert self._offered is not None, "h11 refuses a switch that was not asked for"
        if event.protocol.lower() != b"h2c":
            self.abort(
                RemoteProtocolError(f"the server switched to {event.protocol[:80]!r}, not to h2c (RFC 9110 7.8)")
            )
            return
        try:
            successor = Http2Connection(self.transport, self.host, self.limits, self.route, codec=self._offered)
            successor.take_over(exchange)
        except LocalProtocolError as error:  # the caller's window manager
            self.abort(error)
            return
        successor.farewell_code = self.farewell_code
        if self.life is DRAINING:
            successor.drain()
        # In this order: at each moment one of the two holds the exchange (L5).
        self.host.replace(self, successor)
        self._exchange = None
        self.life = CLOSED
        successor.hear(event.data)
        successor.wake_readers()

    def _on_head(self, exchange: Exchange, event: events.Head) -> None:
        if self._offered is not None:
            self._offered = None
            self.host.upgrade_refused = True
        if exchange in self._expectations.held:
            self._keep_upload(exchange, event.status)
        exchange.answer(event, self.host.now)
        if exchange.streamed:
            self.host.finished(exchange)

    def _on_interim(self, exchange: Exchange, event: events.Interim) -> None:
        """A sign of life (RFC 9110 15.2), or the word that a body waits for."""
        if exchange.inform(event):
            self.host.finished(exchange)
        if event.status == CONTINUE and exchange in self._expectations.held:
            self._release_upload(exchange)

    def _on_data(self, exchange: Exchange, event: events.Data) -> None:
        self._feed(exchange, event.data)

    def _on_trailers(self, exchange: Exchange, event: events.Trailers) -> None:
        self._trailers = event.fields

    def _on_end(self, exchange: Exchange, event: events.End) -> None:
        self._exchange = None
        self._sending = False
        if self._expectations.held:
            self._expectations.forget(exchange)
        self._used = True
        self._idle_since = self.host.now
        exchange.complete(self._trailers, self.host.now)
        self.host.finished(exchange)
        if not self._h1.reusable or self.host.closes_unannounced:
            # Connection: close, HTTP/1.0, or an upload that the server did not want to the end (RFC 9112 9.6).
            self.drain()

    def end_lost(self, exchange: Exchange, error: HyperpoolError) -> None:
        """The connection is gone; a kept-alive one may have been closed just as the request left (RFC 9112 9.3.1)."""
        self._exchange = None
        self._expectations.forget(exchange)
        # Who has begun to answer had the request, and may have acted on it (L9).
        stale = self._used and isinstance(error, ConnectionLost) and self._h1.unanswered
        if stale and forwards(self.route):
            self.host.closes_unannounced = True
        if stale and may_repeat(exchange):
            self.host.requeue(exchange, "the kept-alive connection was closed", refused=False)
        else:
            self._end_unless_unwritten(exchange, self._with_progress(error), self._begins_at_bytes)

    def _with_progress(self, error: HyperpoolError) -> HyperpoolError:
        """What the transport says of its end, with how far the response had come; the codec says that itself."""
        if not isinstance(error, ConnectionLost) or error is self._h1.failure:
            return error
        told = ConnectionLost(f"{error} ({self._h1.progress})", processed="maybe")
        told.__cause__ = error.__cause__
        return told

    # -- its clock -------------------------------------------------------------------------------------------------

    def next_at(self) -> float:
        """Idle expiry and age; a busy connection has only its exchange's deadline."""
        if self._exchange is not None:
            return min(self._expectations.next_at(), NEVER if self.ready else self._patience_until_at)
        return min(self._idle_since + self.limits.idle_s, self.retire_at)

    def on_timer(self) -> None:
        """Close what has been idle, or open, for too long; send what has waited for long enough."""
        for exchange in self._expectations.overdue(self.host.now):
            self._release_upload(exchange)
        if self._exchange is None and self.host.now >= self.next_at():
            self.close()


def _connection_options(head: events.RequestHead) -> bytes:
    """What the request says in Connection already (RFC 9110 7.6.1), with a comma behind each."""
    return b"".join(value + b", " for name, value in head.fields if name.lower() == b"connection" and value)


_REACT: dict[type, Callable[[Http1Connection, Exchange, Any], None]] = {
    events.Head: Http1Connection._on_head,
    events.Switched: Http1Connection._on_switched,
    events.Interim: Http1Connection._on_interim,
    events.Data: Http1Connection._on_data,
    events.Trailers: Http1Connection._on_trailers,
    events.End: Http1Connection._on_end,
}
