"""One HTTP/2 connection: its life, its credit, and whether the peer is still there.

What happens on single streams is in `h2_streams`, how windows grow in `h2_windows`, whose turn it is to send a body in
`h2_uploads`. Connection credit goes back on receipt, stream credit on consumption (L8), so an unread response stops its
own stream and nothing else. Uploads go out only while little ciphertext waits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from hyperpool.engine.answers import UnreadAnswers
from hyperpool.engine.connection import (
    BACKLOG_BYTES,
    CLOSED,
    DRAINING,
    LEAST_PIECE_BYTES,
    OPEN,
    WRITE_BYTES,
    Connection,
    Host,
)
from hyperpool.engine.h2_streams import ON_STREAM, Stream, Streams
from hyperpool.engine.h2_uploads import Uploads
from hyperpool.engine.h2_windows import Windows
from hyperpool.engine.liveness import Liveness
from hyperpool.errors import ConnectionLost, HyperpoolError, LocalProtocolError, RemoteProtocolError
from hyperpool.handoff.deadlines import NEVER
from hyperpool.handoff.exchange import Exchange
from hyperpool.protocol import events, h2_codec
from hyperpool.protocol.h2_codec import H2Codec
from hyperpool.protocol.response_fields import promised_request

if TYPE_CHECKING:
    from hyperpool.engine.transport import Transport
    from hyperpool.values import Limits, Route

# A peer that says much that nobody has asked for is heard again after this: five times what that much costs.
REST_S = 0.005


class Http2Connection(Connection):
    """One HTTP/2 connection with its streams (RFC 9113).

    Owned by the loop thread (L1).
    """

    version = "HTTP/2"

    def __init__(
        self, transport: Transport, host: Host, limits: Limits, route: Route, *, codec: H2Codec | None = None
    ) -> None:
        self._h2 = codec or H2Codec(limits, push=route.push)
        if route.each_frame or route.window_manager is not None:
            self._h2.hear_each_frame()
        super().__init__(transport, self._h2, host, limits, route)
        self._peer = Liveness(limits, calm=host.calm, now=host.now)
        self._answers = UnreadAnswers()
        self._windows = Windows(self._h2, limits, route.window_manager)
        self._uploads = Uploads(self._h2, limits.continue_after_s)
        self._streams = Streams(self._h2, host, route, peer=self._peer, uploads=self._uploads)
        # When what the codec holds back may go on.
        self._rested_at = NEVER

    # -- what the loop asks ----------------------------------------------------------------------------------------

    @property
    def exchanges(self) -> list[Exchange]:
        """The exchanges on open streams, oldest first."""
        return [stream.exchange for stream in self._streams.open.values()]

    @property
    def load(self) -> int:
        """How many streams are open."""
        return len(self._streams.open)

    @property
    def ready(self) -> bool:  # type: ignore[override]
        """Whether the peer's limits are known."""
        return self._h2.settings_received

    @property
    def free_slots(self) -> int:
        """Streams that may be opened now, by the peer's limit (RFC 9113 5.1.2) and ours."""
        peer, streams = self._peer, self._streams
        if self.life is not OPEN or peer.in_doubt(self.host.now):
            return 0
        limit = min(self.limits.max_streams_per_connection, self._h2.peer_stream_limit)
        # What the server pushes counts against our limit, not against its own.
        return limit - (len(streams.open) - streams.pushed) - peer.slots_held

    @property
    def in_doubt(self) -> bool:  # type: ignore[override]
        """Whether the peer is late with the answer to a PING: it gets nothing new until that comes."""
        return self._peer.in_doubt(self.host.now)

    @property
    def wants_read(self) -> bool:
        """Whether all that came has been acted on."""
        return not self._h2.held

    @property
    def wants_turn(self) -> bool:
        """Whether an upload could go on at once."""
        return bool(self._uploads.ready) and self.transport.backlog_bytes < BACKLOG_BYTES

    def start(self, exchange: Exchange) -> None:
        """Open a stream (L6)."""
        ledger = self._windows.new_ledger(self.limits.stream_window_bytes)
        stream_id = self._h2.open(exchange.head, end=exchange.request_body is None)
        stream = Stream(stream_id, exchange, ledger, begins_at_bytes=self._written_bytes)
        self._streams.add(stream)
        self.carried_any = True
        self._peer.ask_after_silence(self.host.now)
        if self._h2.exhausted:
            self.life = DRAINING
        exchange.begin(stream_id, self.host.now)
        if stream.sending:
            self._uploads.begin(stream, self.host.now)

    def take_over(self, exchange: Exchange) -> None:
        """Stream 1 is for what was asked over HTTP/1.1 (RFC 7540 3.2)."""
        ledger = self._windows.new_ledger(self.limits.stream_window_bytes)
        self._streams.add(Stream(1, exchange, ledger))
        self.carried_any = True
        exchange.stream_id = 1

    def cancel(self, exchange: Exchange) -> None:
        """Reset the exchange's stream (RFC 9113 8.1.1, 7: CANCEL)."""
        stream = self._streams.open.get(exchange.stream_id or 0)
        if stream is not None:
            self._streams.drop(stream, self.farewell_code or h2_codec.CANCEL)

    def ping(self, payload: bytes) -> None:
        """Send a PING of the caller's; its answer is nobody's business here."""
        self._h2.ping(payload)

    def credit(self, exchange: Exchange, body_bytes: int) -> None:
        """Give stream credit back for what the reader took."""
        stream = self._streams.open.get(exchange.stream_id or 0)
        if stream is not None and stream.exchange is exchange:
            stream.ledger.consume(body_bytes)
            if (failed := self._windows.grant(stream, self.host.now)) is not None:
                self._streams.break_off(stream, failed)

    def resume_upload(self, exchange: Exchange) -> None:
        """Give a parked upload its turn again."""
        self._uploads.unpark(exchange.stream_id or 0, self.host.now)

    def pump(self) -> None:
        """Let uploads take turns, until windows, uploads or the backlog say stop."""
        room_bytes, unsent_bytes = BACKLOG_BYTES - self.transport.backlog_bytes, 0
        while self._uploads.ready and room_bytes > 0:
            stream, piece = self._uploads.take_turn()
            if piece.failure is not None:
                self._streams.give_up(stream, piece.failure)
            elif piece.data or piece.last:
                self._uploaded(stream.exchange, last=piece.last)
            room_bytes -= max(len(piece.data), LEAST_PIECE_BYTES)
            unsent_bytes += len(piece.data)
            if unsent_bytes >= WRITE_BYTES:
                self._write_out()
                unsent_bytes = 0

    # -- what the peer says ----------------------------------------------------------------------------------------

    def hear(self, data: bytes) -> None:
        """Act on these bytes; what a server may send of its own accord is measured by the time."""
        if data:
            self._peer.heard(self.host.now)
        self._h2.tick(self.host.now)
        if self._h2.held:
            self.handle(self._h2.receive(b""))
        super().hear(data)
        if self._h2.held:
            self._rested_at = self.host.now + REST_S
        if self._windows.round_trip_s is None and self._h2.settings_acknowledged:
            self._windows.round_trip_s = self.host.now - self.opened_at

    def _check_health(self) -> None:
        if self._h2.held:
            return  # what came before an end is heard before it
        if self._h2.flooded:
            self.host.flooded()
        super()._check_health()

    def handle(self, heard: list[events.Event]) -> None:
        """Act on events, each by its class."""
        for event in heard:
            if self.life is CLOSED:
                return  # the caller's window manager has failed
            on_stream = ON_STREAM.get(event.__class__)
            if on_stream is None:
                _REACT[event.__class__](self, event)
            elif (stream := self._streams.open.get(event.stream_id)) is not None:  # type: ignore[union-attr]
                on_stream(self._streams, stream, event)
        if (failed := self._windows.grant_connection()) is not None:
            self.abort(failed)

    def _on_data(self, event: events.Data) -> None:
        self._windows.ledger.pass_on(event.flow_bytes)
        if self._windows.managed and (failed := self._windows.grant_connection()) is not None:
            self.abort(failed)
        stream = self._streams.open.get(event.stream_id)
        if stream is None:
            return
        stream.ledger.receive(event.flow_bytes)
        # Padding is nobody's to read, so it is consumed here (RFC 9113 6.1). It is no progress either.
        consumed = event.flow_bytes
        if event.data:
            stream.exchange.deadlines.touched_at = self.host.now
            if not self._feed(stream.exchange, event.data):
                consumed -= len(event.data)
        stream.ledger.consume(consumed)
        if (failed := self._windows.grant(stream, self.host.now)) is not None:
            self._streams.break_off(stream, failed)

    def _on_late_data(self, event: events.LateData) -> None:
        self._windows.ledger.pass_on(event.flow_bytes)

    def _on_goaway(self, event: events.GoAway) -> None:
        """RFC 9113 6.8: streams above the last id were not processed, the others will be answered."""
        self.drain()
        calm = event.code == h2_codec.ENHANCE_YOUR_CALM
        if calm:
            self.host.calm_down()
        if event.code == h2_codec.HTTP_1_1_REQUIRED and self._streams.may_speak_http1:
            self.host.speak_http1()
        # A server that retires connections (nginx's keepalive_requests) has served others first: that a queue moves on
        # by a few at a time is no refusal of those at its end.
        refused = calm or event.last_stream_id == 0
        # A server that ends with an error may have met it in the first stream that it does not name (HAProxy, for a
        # head larger than its buffer): sent again without a bound, that one would end each connection that it meets.
        suspect = event.code != h2_codec.NO_ERROR
        reason = f"GOAWAY {h2_codec.error_name(event.code)}"
        self._streams.deny_above(event.last_stream_id, reason, refused=refused, suspect=suspect)

    def _on_settings(self, event: events.PeerSettings) -> None:
        self._uploads.unpark_all(self.host.now)

    def _on_window(self, event: events.WindowOpened) -> None:
        if event.stream_id:
            self._uploads.unpark(event.stream_id, self.host.now)
        else:
            self._uploads.unpark_all(self.host.now)

    def _on_promise(self, event: events.Promise) -> None:
        """RFC 9113 8.4: a push belongs to a request of ours, and to the origin that it went to."""
        parent = self._streams.open.get(event.stream_id)
        if parent is None or parent.exchange.pushes is None or self._streams.pushed >= h2_codec.MAX_PUSHES:
            self._h2.reset(event.promised_id, h2_codec.REFUSED_STREAM)
            return
        request = promised_request(event.fields, self.route.origin, parent.exchange.request.timeout)
        if request is None:
            self._h2.reset(event.promised_id, h2_codec.PROTOCOL_ERROR)
            return
        try:
            ledger = self._windows.new_ledger(self.limits.stream_window_bytes)
        except LocalProtocolError:  # the caller's window manager: nobody has asked for this stream, so nobody is told
            self._h2.reset(event.promised_id, h2_codec.CANCEL)
            return
        from hyperpool.handoff.pushes import promise

        pushed = promise(parent.exchange, request, event.promised_id, self.host.now)
        self._streams.add(Stream(event.promised_id, pushed, ledger))
        self.host.adopt(pushed, self)

    def _on_pong(self, event: events.Pong) -> None:
        self._peer.pong(event.payload)

    # -- its end ---------------------------------------------------------------------------------------------------

    def end_lost(self, exchange: Exchange, error: HyperpoolError) -> None:
        """The connection is gone, and with it this exchange; unless not a byte of it has left (L9)."""
        stream = self._streams.open[exchange.stream_id or 0]
        self._streams.forget(stream)
        self._end_unless_unwritten(exchange, error, stream.begins_at_bytes)

    def close(self) -> None:
        """Say GOAWAY and close."""
        if self.life is not CLOSED and self._h2.failure is None:
            self._h2.go_away(self.farewell_code)
            self.transport.send(self._h2.data_to_send())
        super().close()

    # -- is anybody there ------------------------------------------------------------------------------------------

    def flush(self) -> None:
        """Send this step's frames; a PING goes with them where one is due."""
        if self.life is not CLOSED and (payload := self._peer.ping(self.host.now)) is not None:
            self._h2.ping(payload)
        super().flush()
        self._peer.flushed(self.transport, self.host.now)
        if self.life is not CLOSED and self._answers.too_many(self._h2.answers, self.transport):
            self.host.flooded()
            self.abort(
                RemoteProtocolError("the server floods us with frames whose answers it never reads (RFC 9113 10.5)")
            )

    def next_at(self) -> float:
        """The earliest of: a rest over, SETTINGS due, pong late or due, silence to be asked about, idle expiry, age."""
        due = [NEVER if self.life is DRAINING else self.retire_at]
        if self._h2.held:
            due.append(self._rested_at)
        if not self._greeted:
            due.append(self.opened_at + self.limits.settings_timeout_s)
        due.append(self._peer.next_at(self.host.now, owing=bool(self._streams.open)))
        if self._uploads.expectations.held:
            due.append(self._uploads.expectations.next_at())
        if not self._streams.open:
            due.append(self._streams.idle_since + self.limits.idle_s)
        return min(due)

    def on_timer(self) -> None:
        """Look at each of these instants; the clock does not stand behind the writer (L12)."""
        now, limits = self.host.now, self.limits
        if self._h2.held and now >= self._rested_at:
            self.hear(b"")
            self.wake_readers()
        if self.life is CLOSED:
            return
        for exchange in self._uploads.expectations.overdue(now):
            self._streams.release_upload(self._streams.open[exchange.stream_id or 0])
        if not self._greeted and now >= self.opened_at + limits.settings_timeout_s:
            what = "did not acknowledge our SETTINGS in time (RFC 9113 6.5.3)"
            if not self.ready:
                what = "sent no SETTINGS in time: this is not HTTP/2 (RFC 9113 3.4)"
            self._h2.go_away(h2_codec.SETTINGS_TIMEOUT)
            self.abort(RemoteProtocolError(f"the server {what}"))
        elif self._peer.lost(now):
            self.abort(ConnectionLost(f"the server did not answer a PING within {limits.ping_timeout_s:g} s"))
        elif not self._streams.open and now >= self._streams.idle_since + limits.idle_s:
            self.close()
        elif self.life is OPEN and now >= self.retire_at:
            self.drain()
        elif self._streams.open and self._peer.silent(now):
            self._peer.ask()

    @property
    def _greeted(self) -> bool:
        """Whether both sides know each other's SETTINGS."""
        return self.ready and self._h2.settings_acknowledged


_REACT: dict[type, Callable[[Http2Connection, Any], None]] = {
    events.Data: Http2Connection._on_data,
    events.LateData: Http2Connection._on_late_data,
    events.GoAway: Http2Connection._on_goaway,
    events.PeerSettings: Http2Connection._on_settings,
    events.WindowOpened: Http2Connection._on_window,
    events.Pong: Http2Connection._on_pong,
    events.Promise: Http2Connection._on_promise,
}
