"""The streams of one HTTP/2 connection: what the peer says on each, and how each ends (RFC 9113 5.1).

What concerns the connection as a whole stays in `http2`: its credit, its PINGs, its life.

Cancelled streams keep their slot until a PING that was sent after the reset is answered: the peer has counted the reset
by then, and a storm of cancels cannot overrun its limit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from hyperpool.engine.connection import may_resend
from hyperpool.engine.expectations import CONTINUE, REFUSAL
from hyperpool.errors import ConnectionLost, HyperpoolError, LocalProtocolError, RemoteProtocolError, StreamReset
from hyperpool.handoff.deadlines import NEVER
from hyperpool.handoff.exchange import Exchange, State
from hyperpool.protocol import events, h2_codec
from hyperpool.protocol.ledger import ManagedLedger, ReceiveLedger
from hyperpool.protocol.response_fields import declared_bytes

if TYPE_CHECKING:
    from hyperpool.engine.connection import Host
    from hyperpool.engine.h2_uploads import Uploads
    from hyperpool.engine.liveness import Liveness
    from hyperpool.protocol.h2_codec import H2Codec
    from hyperpool.values import Route


class Stream:
    """An exchange on its stream.

    Owned by the loop thread.
    """

    __slots__ = ("begins_at_bytes", "credited_at", "exchange", "interim", "ledger", "sending", "stream_id", "trailers")

    def __init__(self, stream_id: int, exchange: Exchange, ledger: ReceiveLedger, *, begins_at_bytes: int = -1) -> None:
        self.stream_id = stream_id
        self.exchange = exchange
        self.ledger = ledger
        # How much the connection had written before it, in bytes of the wire.
        self.begins_at_bytes = begins_at_bytes
        # Whether there is more of its body to send.
        self.sending = exchange.request_body is not None and not exchange.pushed
        self.interim = 0
        # When its last credit was given; at first, when its head came.
        self.credited_at = NEVER
        self.trailers: events.Fields = []


class Streams:
    """The open streams of one connection.

    Owned by the loop thread. ``peer`` learns of resets, ``uploads`` of streams that are over.
    """

    def __init__(self, codec: H2Codec, host: Host, route: Route, *, peer: Liveness, uploads: Uploads) -> None:
        self._h2 = codec
        self._host = host
        self._route = route
        self._peer = peer
        self._uploads = uploads
        # By their ids, oldest first.
        self.open: dict[int, Stream] = {}
        # How many of them the server has opened.
        self.pushed = 0
        # Since when there is none.
        self.idle_since = host.now

    def add(self, stream: Stream) -> None:
        """It has been opened."""
        self.open[stream.stream_id] = stream
        self.pushed += stream.exchange.pushed

    # -- what the peer says ----------------------------------------------------------------------------------------

    def _on_head(self, stream: Stream, event: events.Head) -> None:
        exchange, now = stream.exchange, self._host.now
        exchange.deadlines.touched_at = stream.credited_at = now
        if event.status >= REFUSAL and exchange in self._uploads.expectations.held:
            self._uploads.expectations.refuse(exchange)
            self._host.uploaded(exchange)
        # A manager hears of every frame, so the loop must hear of every piece that is read.
        step_bytes = 1 if isinstance(stream.ledger, ManagedLedger) else None
        exchange.answer(event, now, credit_step_bytes=step_bytes)
        if exchange.streamed:
            self._host.finished(exchange)
        if isinstance(stream.ledger, ManagedLedger):
            self._tell_length(stream, stream.ledger, declared_bytes(event.fields))

    def _tell_length(self, stream: Stream, ledger: ManagedLedger, body_bytes: int | None) -> None:
        try:
            ledger.expect(body_bytes)
        except LocalProtocolError as error:
            self.break_off(stream, error)

    def _on_interim(self, stream: Stream, event: events.Interim) -> None:
        stream.exchange.deadlines.touched_at = self._host.now
        stream.interim += 1
        if stream.interim > events.MAX_INTERIM:
            message = f"the server sent more than {events.MAX_INTERIM} interim responses (RFC 9110 15.2)"
            self.break_off(stream, RemoteProtocolError(message), h2_codec.PROTOCOL_ERROR)
            return
        if stream.exchange.inform(event):
            self._host.finished(stream.exchange)
        if event.status == CONTINUE and stream.exchange in self._uploads.expectations.held:
            self.release_upload(stream)

    def _on_trailers(self, stream: Stream, event: events.Trailers) -> None:
        stream.trailers = event.fields

    def _on_end(self, stream: Stream, event: events.End) -> None:
        if stream.sending:
            # The server has answered without wanting the rest: stop sending it (RFC 9113 8.1).
            self.drop(stream, h2_codec.NO_ERROR)
        else:
            self.forget(stream)
        stream.exchange.complete(stream.trailers, self._host.now)
        self._host.finished(stream.exchange)

    def _on_reset(self, stream: Stream, event: events.Reset) -> None:
        self.forget(stream)
        exchange = stream.exchange
        resent = exchange.state is State.OPEN and not exchange.pushed
        if event.code == h2_codec.REFUSED_STREAM and resent:
            self._not_processed(exchange, "REFUSED_STREAM", refused=True)
        elif event.code == h2_codec.HTTP_1_1_REQUIRED and resent and self.may_speak_http1:
            self._host.speak_http1()
            self._not_processed(exchange, "HTTP_1_1_REQUIRED", refused=True)
        else:
            if event.code == h2_codec.ENHANCE_YOUR_CALM:
                self._host.calm_down()
            message = f"the server reset the stream with {h2_codec.error_name(event.code)} (RFC 9113 7)"
            self._fail(exchange, StreamReset(message, code=event.code, **exchange.where()))

    @property
    def may_speak_http1(self) -> bool:
        """Whether ALPN could have chosen HTTP/1.1, and may do so next time."""
        return self._route.http1 and not self._route.force_http2 and self._route.origin.scheme == "https"

    def _on_broken(self, stream: Stream, event: events.Broken) -> None:
        self.break_off(stream, event.error, h2_codec.PROTOCOL_ERROR)

    def deny_above(self, last_stream_id: int, reason: str, *, refused: bool, suspect: bool) -> None:
        """The server has not processed the streams above this one, and will not (RFC 9113 6.8).

        ``refused``: that counts towards the bound of resends; ``suspect``: for the first of them it does at least.
        """
        # It speaks of the streams that we opened; those that it opened itself have even numbers.
        unprocessed = [each for each in self.open.values() if each.stream_id % 2 and each.stream_id > last_stream_id]
        for stream in unprocessed:
            self.forget(stream)
            if stream.exchange.state is State.OPEN:
                self._not_processed(stream.exchange, reason, refused=refused or suspect)
                suspect = False
            else:
                message = f"the server denied a stream that it had answered ({reason})"
                self._fail(stream.exchange, ConnectionLost(message, **stream.exchange.where()))

    def _not_processed(self, exchange: Exchange, reason: str, *, refused: bool) -> None:
        if may_resend(exchange):
            self._host.requeue(exchange, reason, refused=refused)
            return
        why = "its body cannot be replayed" if not exchange.replayable else "it was resent too often"
        message = f"the server did not process the request ({reason}), and {why}: send it again yourself"
        where = {**exchange.where(), "processed": "no"}
        self._fail(exchange, ConnectionLost(message, **where))

    # -- what we say -----------------------------------------------------------------------------------------------

    def release_upload(self, stream: Stream) -> None:
        """A body that was held may go."""
        failed = self._uploads.release(stream, self._host.now)
        if failed is not None:
            self.give_up(stream, failed)

    def break_off(self, stream: Stream, error: HyperpoolError, code: int = h2_codec.CANCEL) -> None:
        """Reset a stream, and fail its exchange with a copy of the error that says where it struck."""
        self.give_up(stream, error.own_copy(**stream.exchange.where()), code)

    def give_up(self, stream: Stream, error: BaseException, code: int = h2_codec.CANCEL) -> None:
        """Reset a stream, and fail its exchange with this error."""
        self.drop(stream, code)
        self._fail(stream.exchange, error)

    def _fail(self, exchange: Exchange, error: BaseException) -> None:
        exchange.fail(error)
        self._host.finished(exchange)

    def drop(self, stream: Stream, code: int) -> None:
        """Reset a stream; its exchange is the caller's."""
        self._h2.reset(stream.stream_id, code)
        if stream.exchange.pushed:
            self._peer.ask()  # it had no slot of the peer's; but the peer may be dead
        else:
            self._peer.slot_given_back()
        self.forget(stream)

    def forget(self, stream: Stream) -> None:
        """It is over."""
        del self.open[stream.stream_id]
        self.pushed -= stream.exchange.pushed
        if stream.sending:
            self._uploads.forget(stream)
        if not self.open:
            self.idle_since = self._host.now


# What is said on a stream, and concerns nothing but that.
ON_STREAM: dict[type, Callable[[Streams, Stream, Any], None]] = {
    events.Head: Streams._on_head,
    events.Interim: Streams._on_interim,
    events.Trailers: Streams._on_trailers,
    events.End: Streams._on_end,
    events.Reset: Streams._on_reset,
    events.Broken: Streams._on_broken,
}
