"""One HTTP/2 connection: streams, windows, uploads, and whether the peer is still there.

The receive side: connection credit goes back on receipt, stream credit on consumption (L8), so an unread response
stops its own stream and nothing else. The send side: uploads take turns, one frame each, only while little ciphertext
waits. Cancelled streams keep their slot until a PING that was sent after the reset is answered: the peer has counted
the reset by then, and a storm of cancels cannot overrun its limit.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from hyperpool.engine.answers import UnreadAnswers
from hyperpool.engine.connection import BACKLOG_BYTES, WRITE_BYTES, Connection, Host, Life, may_resend
from hyperpool.engine.expectations import CONTINUE, REFUSAL, Expectations
from hyperpool.engine.liveness import Liveness
from hyperpool.errors import ConnectionLost, HyperpoolError, LocalProtocolError, RemoteProtocolError, StreamReset
from hyperpool.handoff.deadlines import NEVER
from hyperpool.handoff.exchange import Exchange, State
from hyperpool.protocol import events, h2_codec
from hyperpool.protocol.h2_codec import H2Codec
from hyperpool.protocol.ledger import ManagedLedger, ReceiveLedger
from hyperpool.protocol.response_fields import declared_bytes, promised_request

if TYPE_CHECKING:
    from hyperpool.engine.transport import Transport
    from hyperpool.values import Limits, Route


# A window of 1 MiB holds nobody back over such a round trip: that would be 500 MB/s.
SHORT_ROUND_TRIP_S = 0.002
# Whose half a window is read within this many round trips is held back by the window.
WIDEN_WITHIN_ROUND_TRIPS = 2
# Credit goes back by halves of a window: with less than two round trips' bytes the peer would stop now and then.
WIDEN_FOR_ROUND_TRIPS = 3
WIDEST = 16
# What an upload sends at a time: a piece of a file (`source.FILE_PIECE_BYTES`). A server that takes frames of 16 MiB
# does not get them, or a RST_STREAM would queue behind that much.
TURN_BYTES = 112 << 10
# So many frames of 16 KiB, from an upload without company: one at a time took half as much CPU again.
FRAMES_ALONE = 7
# A peer that says much that nobody has asked for is heard again after this: five times what that much costs.
REST_S = 0.005


class _Stream:
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
        self.sending = exchange.source is not None and not exchange.pushed
        self.interim = 0
        # When its last credit was given; at first, when its head came.
        self.credited_at = NEVER
        self.trailers: events.Fields = []


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
        self._streams: dict[int, _Stream] = {}
        self._pushed = 0
        self._ledger = self._new_ledger(max(limits.connection_window_bytes, h2_codec.INITIAL_WINDOW_BYTES))
        self._uploads: deque[_Stream] = deque()
        self._parked: dict[int, _Stream] = {}
        self._peer = Liveness(limits, calm=host.calm, now=host.now)
        self._answers = UnreadAnswers()
        self._expectations = Expectations(limits.continue_after_s)
        # From our SETTINGS to their acknowledgement; None before that.
        self._round_trip_s: float | None = None
        # When what the codec holds back may go on.
        self._rested_at = NEVER

    # -- what the loop asks ----------------------------------------------------------------------------------------

    @property
    def exchanges(self) -> list[Exchange]:
        """The exchanges on open streams, oldest first."""
        return [stream.exchange for stream in self._streams.values()]

    @property
    def load(self) -> int:
        """How many streams are open."""
        return len(self._streams)

    @property
    def ready(self) -> bool:  # type: ignore[override]
        """Whether the peer's limits are known."""
        return self._h2.settings_received

    @property
    def free_slots(self) -> int:
        """Streams that may be opened now, by the peer's limit (RFC 9113 5.1.2) and ours."""
        if self.life is not Life.OPEN or self._h2.exhausted or self.in_doubt:
            return 0
        limit = min(self.limits.max_streams_per_connection, self._h2.peer_stream_limit)
        # What the server pushes counts against our limit, not against its own.
        return limit - (len(self._streams) - self._pushed) - self._peer.slots_held

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
        return bool(self._uploads) and self.transport.backlog_bytes < BACKLOG_BYTES

    def start(self, exchange: Exchange) -> None:
        """Open a stream (L6)."""
        ledger = self._new_ledger(self.limits.stream_window_bytes)
        stream_id = self._h2.open(exchange.head, end=exchange.source is None)
        stream = self._streams[stream_id] = _Stream(stream_id, exchange, ledger, begins_at_bytes=self._written_bytes)
        self.carried_any = True
        self._peer.ask_after_silence(self.host.now)
        if self._h2.exhausted:
            self.life = Life.DRAINING
        exchange.begin(stream_id, self.host.now)
        if stream.sending and exchange.head.expects_continue:
            self._expectations.hold(exchange, self.host.now)
        elif stream.sending:
            self._uploads.append(stream)

    def take_over(self, exchange: Exchange) -> None:
        """Stream 1 is for what was asked over HTTP/1.1 (RFC 7540 3.2)."""
        self._streams[1] = _Stream(1, exchange, self._new_ledger(self.limits.stream_window_bytes))
        self.carried_any = True
        exchange.stream_id = 1

    def _new_ledger(self, window_bytes: int) -> ReceiveLedger:
        manager = self.route.window_manager
        return ReceiveLedger(window_bytes) if manager is None else ManagedLedger(window_bytes, manager)

    def cancel(self, exchange: Exchange) -> None:
        """Reset the exchange's stream (RFC 9113 8.1.1, 7: CANCEL)."""
        if exchange.stream_id in self._streams:
            self._drop(exchange.stream_id, self.farewell_code or h2_codec.CANCEL)

    def ping(self, payload: bytes) -> None:
        """Send a PING of the caller's; its answer is nobody's business here."""
        self._h2.ping(payload)

    def credit(self, exchange: Exchange, body_bytes: int) -> None:
        """Give stream credit back for what the reader took."""
        stream = self._streams.get(exchange.stream_id or 0)
        if stream is not None and stream.exchange is exchange:
            stream.ledger.consume(body_bytes)
            self._grant(stream)

    # -- uploads ---------------------------------------------------------------------------------------------------

    def resume_upload(self, exchange: Exchange) -> None:
        """Give a parked upload its turn again."""
        self._unpark(exchange.stream_id or 0)

    def _release_upload(self, stream: _Stream) -> None:
        failed = self._expectations.release(stream.exchange, self.host.now)
        if failed is None:
            self._uploads.append(stream)
        else:
            self._drop(stream.stream_id, h2_codec.CANCEL)
            self._fail(stream.exchange, failed)

    def pump(self) -> None:
        """One frame of each upload in turn, more of one alone, until windows, uploads or the backlog say stop."""
        room_bytes, unsent_bytes = BACKLOG_BYTES - self.transport.backlog_bytes, 0
        while self._uploads and room_bytes > 0:
            size = self._send_piece(self._uploads.popleft())
            room_bytes -= size
            unsent_bytes += size
            if unsent_bytes >= WRITE_BYTES:
                self._write_out()
                unsent_bytes = 0

    def _send_piece(self, stream: _Stream) -> int:
        if self._streams.get(stream.stream_id) is not stream:
            return 0
        frames = 1 if self._uploads else FRAMES_ALONE
        capacity = min(self._h2.send_capacity(stream.stream_id, frames), TURN_BYTES)
        piece = stream.exchange.take_upload(max(capacity, 0))
        if piece.failure is not None:
            self._drop(stream.stream_id, h2_codec.CANCEL)
            self._fail(stream.exchange, piece.failure)
        elif piece.data or piece.last:
            trailers = stream.exchange.trailers if piece.last else None
            if piece.data or not trailers:
                self._h2.send(stream.stream_id, piece.data, end=piece.last and not trailers)
            if trailers:
                self._h2.trail(stream.stream_id, trailers)
            self._sent(stream, piece.last)
        else:
            # Either a window is shut, which is the peer's doing, or the caller has nothing yet, which is not.
            stream.exchange.upload_starved = capacity > 0
            self._parked[stream.stream_id] = stream
        return len(piece.data)

    def _sent(self, stream: _Stream, last: bool) -> None:
        stream.sending = not last
        self._uploaded(stream.exchange, last=last)
        if stream.sending:
            self._uploads.append(stream)

    def _unpark(self, stream_id: int) -> None:
        stream = self._parked.pop(stream_id, None)
        if stream is not None:
            if stream.exchange.upload_starved:
                stream.exchange.upload_starved = False
                stream.exchange.deadlines.touched_at = self.host.now
            self._uploads.append(stream)

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
        if self._round_trip_s is None and self._h2.settings_acknowledged:
            self._round_trip_s = self.host.now - self.opened_at

    def _check_health(self) -> None:
        if self._h2.held:
            return  # what came before an end is heard before it
        if self._h2.flooded:
            self.host.flooded()
        super()._check_health()

    def handle(self, heard: list[events.Event]) -> None:
        """Act on events, each by its class."""
        for event in heard:
            if self.life is Life.CLOSED:
                return  # the caller's window manager has failed
            _REACT[event.__class__](self, event)
        self._grant_connection()

    def _on_head(self, event: events.Head) -> None:
        stream = self._streams.get(event.stream_id)
        if stream is None:
            return
        stream.exchange.deadlines.touched_at = stream.credited_at = self.host.now
        if event.status >= REFUSAL and stream.exchange in self._expectations.held:
            self._expectations.refuse(stream.exchange)
            self.host.uploaded(stream.exchange)
        # A manager hears of every frame, so the loop must hear of every piece that is read.
        step_bytes = 1 if isinstance(stream.ledger, ManagedLedger) else None
        stream.exchange.answer(event, self.host.now, credit_step_bytes=step_bytes)
        if stream.exchange.streamed:
            self.host.finished(stream.exchange)
        if isinstance(stream.ledger, ManagedLedger):
            self._tell_length(stream, stream.ledger, declared_bytes(event.fields))

    def _tell_length(self, stream: _Stream, ledger: ManagedLedger, body_bytes: int | None) -> None:
        try:
            ledger.expect(body_bytes)
        except LocalProtocolError as error:
            self._break_off(stream, h2_codec.CANCEL, error)

    def _on_interim(self, event: events.Interim) -> None:
        stream = self._streams.get(event.stream_id)
        if stream is None:
            return
        stream.exchange.deadlines.touched_at = self.host.now
        stream.interim += 1
        if stream.interim > events.MAX_INTERIM:
            message = f"the server sent more than {events.MAX_INTERIM} interim responses (RFC 9110 15.2)"
            self._on_broken(events.Broken(event.stream_id, RemoteProtocolError(message)))
            return
        if stream.exchange.inform(event):
            self.host.finished(stream.exchange)
        if event.status == CONTINUE and stream.exchange in self._expectations.held:
            self._release_upload(stream)

    def _on_data(self, event: events.Data) -> None:
        self._ledger.receive(event.flow_bytes)
        self._ledger.consume(event.flow_bytes)
        if self.route.window_manager is not None:
            self._grant_connection()
        stream = self._streams.get(event.stream_id)
        if stream is None:
            return
        stream.exchange.deadlines.touched_at = self.host.now
        stream.ledger.receive(event.flow_bytes)
        # Padding is nobody's to read, so it is consumed here (RFC 9113 6.1).
        consumed = event.flow_bytes
        if event.data and not self._feed(stream.exchange, event.data):
            consumed -= len(event.data)
        stream.ledger.consume(consumed)
        self._grant(stream)

    def _on_trailers(self, event: events.Trailers) -> None:
        stream = self._streams.get(event.stream_id)
        if stream is not None:
            stream.trailers = event.fields

    def _on_end(self, event: events.End) -> None:
        stream = self._streams.get(event.stream_id)
        if stream is None:
            return
        exchange = stream.exchange
        if stream.sending:
            # The server has answered without wanting the rest: stop sending it (RFC 9113 8.1).
            self._drop(event.stream_id, h2_codec.NO_ERROR)
        else:
            self._forget(event.stream_id)
        exchange.complete(stream.trailers, self.host.now)
        self.host.finished(exchange)

    def _on_reset(self, event: events.Reset) -> None:
        stream = self._streams.get(event.stream_id)
        if stream is None:
            return
        self._forget(event.stream_id)
        name = h2_codec.error_name(event.code)
        resent = stream.exchange.state is State.OPEN and not stream.exchange.pushed
        if event.code == h2_codec.REFUSED_STREAM and resent:
            self._not_processed(stream.exchange, "REFUSED_STREAM", refused=True)
        elif event.code == h2_codec.HTTP_1_1_REQUIRED and resent and self._may_speak_http1:
            self.host.speak_http1()
            self._not_processed(stream.exchange, "HTTP_1_1_REQUIRED", refused=True)
        else:
            if event.code == h2_codec.ENHANCE_YOUR_CALM:
                self.host.calm_down()
            message = f"the server reset the stream with {name} (RFC 9113 7)"
            self._fail(stream.exchange, StreamReset(message, code=event.code, **stream.exchange.where()))

    @property
    def _may_speak_http1(self) -> bool:
        """Whether ALPN could have chosen HTTP/1.1, and may do so next time."""
        return self.route.http1 and not self.route.force_http2 and self.route.origin.scheme == "https"

    def _on_broken(self, event: events.Broken) -> None:
        stream = self._streams.get(event.stream_id)
        if stream is not None:
            self._break_off(stream, h2_codec.PROTOCOL_ERROR, event.error)

    def _on_goaway(self, event: events.GoAway) -> None:
        """RFC 9113 6.8: streams above the last id were not processed, the others will be answered."""
        self.drain()
        calm = event.code == h2_codec.ENHANCE_YOUR_CALM
        if calm:
            self.host.calm_down()
        # It speaks of the streams that we opened; those that it opened itself have even numbers.
        ours = [stream for stream in self._streams.values() if stream.stream_id % 2]
        unprocessed = [stream for stream in ours if stream.stream_id > event.last_stream_id]
        for stream in unprocessed:
            self._forget(stream.stream_id)
            reason = f"GOAWAY {h2_codec.error_name(event.code)}"
            if stream.exchange.state is State.OPEN:
                # A server that retires connections (nginx's keepalive_requests) has served others first: that a queue
                # moves on by a few at a time is no refusal of those at its end.
                self._not_processed(stream.exchange, reason, refused=calm or event.last_stream_id == 0)
            else:
                message = f"the server denied a stream that it had answered ({reason})"
                self._fail(stream.exchange, ConnectionLost(message, **stream.exchange.where()))

    def _not_processed(self, exchange: Exchange, reason: str, *, refused: bool) -> None:
        if may_resend(exchange):
            self.host.requeue(exchange, reason, refused=refused)
            return
        why = "its body cannot be replayed" if not exchange.replayable else "it was resent too often"
        message = f"the server did not process the request ({reason}), and {why}: send it again yourself"
        where = {**exchange.where(), "processed": "no"}
        self._fail(exchange, ConnectionLost(message, **where))

    def _on_settings(self, event: events.PeerSettings) -> None:
        self._unpark_all()

    def _on_window(self, event: events.WindowOpened) -> None:
        if event.stream_id:
            self._unpark(event.stream_id)
        else:
            self._unpark_all()

    def _unpark_all(self) -> None:
        for stream_id in list(self._parked):
            self._unpark(stream_id)

    def _on_promise(self, event: events.Promise) -> None:
        """RFC 9113 8.4: a push belongs to a request of ours, and to the origin that it went to."""
        parent = self._streams.get(event.stream_id)
        if parent is None or parent.exchange.pushes is None or self._pushed >= h2_codec.MAX_PUSHES:
            self._h2.reset(event.promised_id, h2_codec.REFUSED_STREAM)
            return
        request = promised_request(event.fields, self.route.origin, parent.exchange.request.timeout)
        if request is None:
            self._h2.reset(event.promised_id, h2_codec.PROTOCOL_ERROR)
            return
        try:
            ledger = self._new_ledger(self.limits.stream_window_bytes)
        except LocalProtocolError:  # the caller's window manager: nobody has asked for this stream, so nobody is told
            self._h2.reset(event.promised_id, h2_codec.CANCEL)
            return
        pushed = parent.exchange.promise(request, event.promised_id, self.host.now)
        self._pushed += 1
        self._streams[event.promised_id] = _Stream(event.promised_id, pushed, ledger)
        self.host.adopt(pushed, self)

    def _on_pong(self, event: events.Pong) -> None:
        self._peer.pong(event.payload)

    # -- streams' ends ---------------------------------------------------------------------------------------------

    def _grant(self, stream: _Stream) -> None:
        try:
            credit = stream.ledger.take_credit()
        except LocalProtocolError as error:  # the caller's window manager: this stream's own
            self._break_off(stream, h2_codec.CANCEL, error)
            return
        if credit:
            self._h2.grant(credit + self._more_for(stream, credit), stream.stream_id)

    def _more_for(self, stream: _Stream, read_bytes: int) -> int:
        """What a window grows by whose half was read so soon that the round trip must be what holds the peer back.

        To what would be read in a few round trips at this pace, and at least four times: a pace that is held back says
        little. By four alone, 100 MB over 1 Gbit/s and 50 ms lose a second round trip (docs/performance.md).
        """
        now = self.host.now
        since_s, stream.credited_at = now - stream.credited_at, now
        round_trip_s = self._round_trip_s or 0.0
        soon_s = WIDEN_WITHIN_ROUND_TRIPS * round_trip_s if round_trip_s > SHORT_ROUND_TRIP_S else 0.0
        # Twice in one turn says nothing about time. A window manager of the caller's decides for itself.
        if not 0 < since_s < soon_s or self.route.window_manager is not None:
            return 0
        most_bytes = self.limits.max_stream_window_bytes or WIDEST * self.limits.stream_window_bytes
        return stream.ledger.widen(most_bytes, int(read_bytes * WIDEN_FOR_ROUND_TRIPS * round_trip_s / since_s))

    def _grant_connection(self) -> None:
        try:
            credit = self._ledger.take_credit()
        except LocalProtocolError as error:  # the caller's window manager: no stream gets on without it
            self.abort(error)
            return
        if credit:
            self._h2.grant(credit)

    def _break_off(self, stream: _Stream, code: int, error: HyperpoolError) -> None:
        self._drop(stream.stream_id, code)
        self._fail(stream.exchange, error.own_copy(**stream.exchange.where()))

    def _drop(self, stream_id: int, code: int) -> None:
        self._h2.reset(stream_id, code)
        if self._streams[stream_id].exchange.pushed:
            self._peer.ask()  # it had no slot of the peer's; but the peer may be dead
        else:
            self._peer.slot_given_back()
        self._forget(stream_id)

    def _forget(self, stream_id: int) -> None:
        stream = self._streams.pop(stream_id)
        self._pushed -= stream.exchange.pushed
        self._parked.pop(stream_id, None)
        if self._expectations.held:
            self._expectations.forget(stream.exchange)
        if not self._streams:
            self.idle_since = self.host.now

    def end_lost(self, exchange: Exchange, error: HyperpoolError) -> None:
        """The connection is gone, and with it this exchange; unless not a byte of it has left (L9)."""
        stream = self._streams[exchange.stream_id or 0]
        self._forget(stream.stream_id)
        self._end_unless_unwritten(exchange, error, stream.begins_at_bytes)

    def close(self) -> None:
        """Say GOAWAY and close."""
        if self.life is not Life.CLOSED and self._h2.failure is None:
            self._h2.go_away(self.farewell_code)
            self.transport.send(self._h2.data_to_send())
        super().close()

    # -- is anybody there ------------------------------------------------------------------------------------------

    def flush(self) -> None:
        """Send this step's frames; a PING goes with them where one is due."""
        if self.life is not Life.CLOSED and (payload := self._peer.ping(self.host.now)) is not None:
            self._h2.ping(payload)
        super().flush()
        self._peer.flushed(self.transport, self.host.now)
        if self.life is not Life.CLOSED and self._answers.too_many(self._h2.answers, self.transport):
            self.host.flooded()
            self.abort(
                RemoteProtocolError("the server floods us with frames whose answers it never reads (RFC 9113 10.5)")
            )

    def next_at(self) -> float:
        """The earliest of: a rest over, SETTINGS due, pong late or due, silence to be asked about, idle expiry, age."""
        due = [NEVER if self.life is Life.DRAINING else self.retire_at]
        if self._h2.held:
            due.append(self._rested_at)
        if not self._greeted:
            due.append(self.opened_at + self.limits.settings_timeout_s)
        due.append(self._peer.next_at(self.host.now, owing=bool(self._streams)))
        if self._expectations.held:
            due.append(self._expectations.next_at())
        if not self._streams:
            due.append(self.idle_since + self.limits.idle_s)
        return min(due)

    def on_timer(self) -> None:
        """Look at each of these instants; the clock does not stand behind the writer (L12)."""
        now, limits = self.host.now, self.limits
        if self._h2.held and now >= self._rested_at:
            self.hear(b"")
            self.wake_readers()
        if self.life is Life.CLOSED:
            return
        for exchange in self._expectations.overdue(now):
            self._release_upload(self._streams[exchange.stream_id or 0])
        if not self._greeted and now >= self.opened_at + limits.settings_timeout_s:
            what = "did not acknowledge our SETTINGS in time (RFC 9113 6.5.3)"
            if not self.ready:
                what = "sent no SETTINGS in time: this is not HTTP/2 (RFC 9113 3.4)"
            self._h2.go_away(h2_codec.SETTINGS_TIMEOUT)
            self.abort(RemoteProtocolError(f"the server {what}"))
        elif self._peer.lost(now):
            self.abort(ConnectionLost(f"the server did not answer a PING within {limits.ping_timeout_s:g} s"))
        elif not self._streams and now >= self.idle_since + limits.idle_s:
            self.close()
        elif self.life is Life.OPEN and now >= self.retire_at:
            self.drain()
        elif self._streams and self._peer.silent(now):
            self._peer.ask()

    @property
    def _greeted(self) -> bool:
        """Whether both sides know each other's SETTINGS."""
        return self.ready and self._h2.settings_acknowledged


_REACT: dict[type, Callable[[Http2Connection, Any], None]] = {
    events.Head: Http2Connection._on_head,
    events.Interim: Http2Connection._on_interim,
    events.Data: Http2Connection._on_data,
    events.Trailers: Http2Connection._on_trailers,
    events.End: Http2Connection._on_end,
    events.Reset: Http2Connection._on_reset,
    events.Broken: Http2Connection._on_broken,
    events.GoAway: Http2Connection._on_goaway,
    events.PeerSettings: Http2Connection._on_settings,
    events.WindowOpened: Http2Connection._on_window,
    events.Pong: Http2Connection._on_pong,
    events.Promise: Http2Connection._on_promise,
}
