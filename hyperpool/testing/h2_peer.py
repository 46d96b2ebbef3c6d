"""HTTP/2 on one connection, server side: h2 for frames and states, this file for who may send next.

Replies take turns, one frame each, while windows and the socket's buffer have room. Uploads get connection credit on
receipt and stream credit when the handler took the bytes, so one handler that does not read stalls its own stream and
no other. GOAWAY is written past h2, which would refuse to finish the open streams after it.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from typing import Any

import h2.config
import h2.connection
import h2.events
import h2.exceptions
from h2.connection import ConnectionState
from h2.settings import SettingCodes
from hyperframe.frame import GoAwayFrame

from hyperpool.testing.bodies import Outgoing, Upload
from hyperpool.testing.logbook import SeenRequest
from hyperpool.testing.messages import (
    REFUSED_STREAM,
    Disconnect,
    Fault,
    Refuse,
    Request,
    Reset,
    final_headers,
    has_no_body,
    latin_1,
    pairs,
)
from hyperpool.testing.service import CUT, POLITE, Ending, Exchange, Options, Service, Wire

DEFAULT_WINDOW_BYTES = 65_535  # RFC 9113 6.9.2
LAST_STREAM_ID_SOON = 2**31 - 1  # RFC 9113 6.8: announces a GOAWAY, ends nothing yet

# The checks of what we send would be in the way of handlers that reply with nonsense on purpose.
_CONFIG = h2.config.H2Configuration(
    client_side=False,
    header_encoding=None,
    validate_outbound_headers=False,
    normalize_outbound_headers=False,
)


class H2Peer:
    """The server's side of one HTTP/2 connection.

    Owned by the I/O thread of the connection.
    """

    def __init__(self, wire: Wire, service: Service, *, upgrade_settings: bytes | None = None) -> None:
        """``upgrade_settings``: what HTTP2-Settings said, where the peer began in HTTP/1.1 (RFC 7540 3.2)."""
        self._wire = wire
        self._service = service
        self._exchanges: dict[int, Exchange] = {}
        self._sending: dict[int, Exchange] = {}
        self._arrived: list[Exchange] = []
        self._owed_bytes = 0
        self._last_stream_id: int | None = None  # of the GOAWAY that was sent
        self._peer_goes_away = False
        self._h2 = h2.connection.H2Connection(config=_CONFIG)
        self._greet(service.options, upgrade_settings)
        self.wants_read = True

    def _greet(self, options: Options, upgrade_settings: bytes | None) -> None:
        settings: dict[SettingCodes | int, int] = {
            SettingCodes.MAX_CONCURRENT_STREAMS: options.max_concurrent_streams,
            SettingCodes.INITIAL_WINDOW_SIZE: options.initial_window_bytes,
            SettingCodes.MAX_FRAME_SIZE: options.max_frame_bytes,
            SettingCodes.MAX_HEADER_LIST_SIZE: self._h2.DEFAULT_MAX_HEADER_LIST_SIZE,
            **options.h2_settings,
        }
        # h2 would hold the client to initial settings that it has not seen yet; updates count from their
        # acknowledgement on (RFC 9113 6.5.3). So the first SETTINGS frame on the wire is an update.
        if upgrade_settings is None:
            self._h2.initiate_connection()
        else:
            self._h2.initiate_upgrade_connection(upgrade_settings)
        self._h2.clear_outbound_data_buffer()
        self.update_settings(settings)
        self._window_bytes = max(options.connection_window_bytes, DEFAULT_WINDOW_BYTES)
        if self._window_bytes > DEFAULT_WINDOW_BYTES:
            self._h2.increment_flow_control_window(self._window_bytes - DEFAULT_WINDOW_BYTES)

    # What arrives.

    def receive(self, data: bytes) -> None:
        if not data:
            return
        try:
            events = self._h2.receive_data(data)
        except h2.exceptions.ProtocolError as error:
            return self._give_up(error)
        if any(isinstance(event, h2.events.ConnectionTerminated) for event in events):
            self._let_peer_leave()
        for event in events:
            act = _ACTS.get(type(event))
            if act is not None:
                act(self, event)
        self._serve_arrived()
        if self._owed_bytes * 2 >= self._window_bytes:
            self._h2.increment_flow_control_window(self._owed_bytes)
            self._owed_bytes = 0

    def _give_up(self, error: Exception) -> None:
        if not self._peer_goes_away:
            self._service.log.error(error)
        self._arrived.clear()
        self.abandon(str(error))
        self._wire.write(self._h2.data_to_send())  # h2 put a GOAWAY there
        self._wire.end(POLITE)

    def _on_request(self, event: h2.events.RequestReceived) -> None:
        stream_id = event.stream_id or 0
        if self._last_stream_id is not None and stream_id > self._last_stream_id:
            return  # beyond our GOAWAY: ignored, as RFC 9113 6.8 lets the client expect
        exchange = self._exchange(stream_id, event.headers or [])
        self._exchanges[stream_id] = exchange
        self._service.log.saw(exchange.seen)
        if event.stream_ended is not None:
            exchange.finish_upload([])  # before the handler asks: an inline one can read an empty body
        self._arrived.append(exchange)

    def answer_upgraded(self, head: dict[str, Any]) -> None:
        """Answer on stream 1 what was asked over HTTP/1.1, which had no body."""
        upload = Upload(credit=lambda credit_bytes: None, expects_continue=False, io_thread=threading.get_ident())
        head = {**head, "stream_id": 1, "http_version": "2"}
        exchange = Exchange(Request(**head, upload=upload), upload, SeenRequest(**head))
        self._exchanges[1] = exchange
        self._service.log.saw(exchange.seen)
        exchange.finish_upload([])
        self._service.serve(self._wire, self, exchange)

    def _serve_arrived(self) -> None:
        # After all events of the read: a request that was reset within it must not be answered.
        arrived, self._arrived = self._arrived, []
        for exchange in arrived:
            if not exchange.is_over:
                self._service.serve(self._wire, self, exchange)

    def _exchange(self, stream_id: int, fields: Any) -> Exchange:
        headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in fields]
        pseudo = {name: value for name, value in headers if name.startswith(":")}
        headers = headers[len(pseudo) :]
        head: dict[str, Any] = {
            "method": pseudo[":method"],
            "target": pseudo.get(":path", ""),
            "scheme": pseudo.get(":scheme", ""),
            "authority": pseudo.get(":authority", ""),
            "headers": headers,
            "http_version": "2",
            "stream_id": stream_id,
            "connection_number": self._wire.number,
        }
        upload = Upload(
            credit=lambda credit_bytes: self._post_credit(stream_id, credit_bytes),
            expects_continue=("expect", "100-continue") in headers,
            io_thread=threading.get_ident(),
        )
        return Exchange(Request(**head, upload=upload), upload, SeenRequest(**head))

    def _on_data(self, event: h2.events.DataReceived) -> None:
        frame_bytes = event.flow_controlled_length or 0
        self._owed_bytes += frame_bytes
        exchange = self._exchanges.get(event.stream_id or 0)
        if exchange is None:
            return
        credit_bytes = exchange.feed(event.data or b"", frame_bytes)
        self._service.log.changed()
        if event.stream_ended is None:
            self._credit(event.stream_id or 0, credit_bytes)

    def _on_trailers(self, event: h2.events.TrailersReceived) -> None:
        exchange = self._exchanges.get(event.stream_id or 0)
        if exchange is not None:
            fields: Any = event.headers or []
            exchange.finish_upload([(name.decode("latin-1"), value.decode("latin-1")) for name, value in fields])

    def _on_stream_end(self, event: h2.events.StreamEnded) -> None:
        exchange = self._exchanges.get(event.stream_id or 0)
        if exchange is None:
            return
        if not exchange.seen.is_complete:
            exchange.finish_upload([])
        self._service.log.changed()
        if exchange.is_over:
            del self._exchanges[event.stream_id or 0]

    def _on_reset(self, event: h2.events.StreamReset) -> None:
        exchange = self._exchanges.get(event.stream_id or 0)
        if exchange is not None and event.remote_reset:
            exchange.seen.reset_code = int(event.error_code or 0)
            self._service.log.changed()
        self._forget(event.stream_id or 0, "the peer reset the stream")

    def _let_peer_leave(self) -> None:
        self._peer_goes_away = True
        # h2 takes GOAWAY for the end; RFC 9113 6.8 lets the open streams finish. Before the events of the same read are
        # acted on, since data may stand in front of it, and wants its credit.
        self._h2.state_machine.state = ConnectionState.SERVER_OPEN

    # Credit for uploads.

    def _post_credit(self, stream_id: int, credit_bytes: int) -> None:
        self._wire.post(lambda: self._credit_taken(stream_id, credit_bytes))

    def _credit_taken(self, stream_id: int, credit_bytes: int) -> None:
        exchange = self._exchanges.get(stream_id)
        if exchange is None or exchange.seen.is_complete:
            return
        if not credit_bytes and not exchange.seen.body_bytes and exchange.outgoing is None:
            # The handler waits for a body that waits for our 100.
            self._h2.send_headers(stream_id, [(":status", "100")])
        self._credit(stream_id, credit_bytes)

    def _credit(self, stream_id: int, credit_bytes: int) -> None:
        if not credit_bytes:
            return
        with contextlib.suppress(KeyError, h2.exceptions.StreamClosedError):  # closed within the same read
            self._h2.increment_flow_control_window(credit_bytes, stream_id)

    # What leaves.

    def reply(self, exchange: Exchange, outgoing: Outgoing) -> None:
        stream_id = exchange.request.stream_id or 0
        exchange.outgoing = outgoing
        if exchange.is_over or stream_id not in self._exchanges:
            return outgoing.source.close()
        reply = outgoing.reply
        for status, headers in reply.interim:
            self._h2.send_headers(stream_id, latin_1([(":status", str(status)), *pairs(headers)]))
        fields = latin_1([(":status", str(reply.status)), *final_headers(reply, reply.whole_body())])
        ends = has_no_body(exchange.request.method, reply.status) or outgoing.ends_plainly
        self._h2.send_headers(stream_id, fields, end_stream=ends)
        if ends:
            self._finish(stream_id, exchange)
        else:
            self._sending[stream_id] = exchange

    def pump(self, room_bytes: int) -> bool:
        is_moving = True
        while is_moving and room_bytes > 0:
            is_moving = False
            for stream_id, exchange in list(self._sending.items()):
                if self._send_piece(stream_id, exchange):
                    is_moving = True
                    room_bytes -= self._h2.max_outbound_frame_size
        self._wire.write(self._h2.data_to_send())
        self._end_if_drained()
        return is_moving

    def _send_piece(self, stream_id: int, exchange: Exchange) -> bool:
        outgoing = exchange.outgoing
        assert outgoing is not None
        window_bytes = self._h2.local_flow_control_window(stream_id)
        piece = outgoing.next_piece(max(0, min(window_bytes, self._h2.max_outbound_frame_size)))
        if piece is None:
            return False
        if not isinstance(piece, bytes):
            self.fault(exchange, piece)
        elif outgoing.ends_plainly:
            self._h2.send_data(stream_id, piece, end_stream=True)
            self._finish(stream_id, exchange)
        elif piece:
            self._h2.send_data(stream_id, piece)
        else:
            self._h2.send_headers(stream_id, latin_1(pairs(outgoing.reply.trailers)), end_stream=True)
            self._finish(stream_id, exchange)
        return True

    def _finish(self, stream_id: int, exchange: Exchange) -> None:
        assert exchange.outgoing is not None
        self._sending.pop(stream_id, None)
        exchange.outgoing.source.close()
        exchange.is_over = True
        if exchange.seen.is_complete:
            del self._exchanges[stream_id]
        elif exchange.outgoing.reply.stops_upload:
            self._h2.reset_stream(stream_id, 0)  # NO_ERROR: RFC 9113 8.1
            self._forget(stream_id, "the reply did not wait for the upload")
        else:
            self._credit(stream_id, exchange.upload.discard())

    def _forget(self, stream_id: int, why: str) -> None:
        self._sending.pop(stream_id, None)
        exchange = self._exchanges.pop(stream_id, None)
        if exchange is not None:
            exchange.abandon(why)

    def fault(self, exchange: Exchange, fault: Fault) -> None:
        stream_id = exchange.request.stream_id or 0
        if self._exchanges.get(stream_id) is not exchange:
            return
        if isinstance(fault, Disconnect):
            self._wire.write(self._h2.data_to_send())
            self._wire.end(Ending(rst=fault.rst))
        elif isinstance(fault, (Reset, Refuse)):
            self._h2.reset_stream(stream_id, fault.code if isinstance(fault, Reset) else REFUSED_STREAM)
            self._forget(stream_id, "the server reset the stream")
        else:
            self._sending.pop(stream_id, None)

    # The connection.

    def goaway(self, *, code: int, last_stream_id: int | None) -> None:
        """Send GOAWAY; streams up to it are finished, later ones are dropped without a word (RFC 9113 6.8)."""
        if last_stream_id is None:
            last_stream_id = self._h2.highest_inbound_stream_id
        self._last_stream_id = last_stream_id
        frame = GoAwayFrame(stream_id=0, last_stream_id=last_stream_id, error_code=code)
        self._wire.write(self._h2.data_to_send() + frame.serialize())
        for stream_id in [open_id for open_id in self._exchanges if open_id > last_stream_id]:
            self._forget(stream_id, "beyond the server's GOAWAY")

    def update_settings(self, settings: dict[SettingCodes | int, int]) -> None:
        self._h2.update_settings(settings)

    def _end_if_drained(self) -> None:
        if self._exchanges:
            return
        if self._peer_goes_away:
            self._wire.end(CUT)
        elif self._last_stream_id is not None and self._last_stream_id != LAST_STREAM_ID_SOON:
            self._wire.end(POLITE)

    def abandon(self, why: str) -> None:
        for stream_id in list(self._exchanges):
            self._forget(stream_id, why)


_ACTS: dict[type, Callable[[H2Peer, Any], None]] = {
    h2.events.RequestReceived: H2Peer._on_request,
    h2.events.DataReceived: H2Peer._on_data,
    h2.events.TrailersReceived: H2Peer._on_trailers,
    h2.events.StreamEnded: H2Peer._on_stream_end,
    h2.events.StreamReset: H2Peer._on_reset,
}
