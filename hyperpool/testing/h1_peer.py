"""HTTP/1.1 on one connection, server side: h11 for the grammar, this file for turns and for closing well.

One exchange at a time; pipelined requests wait in h11. Reading stops while a handler is behind with its upload, which
is all the flow control that HTTP/1.1 has.
"""

from __future__ import annotations

import http
import threading
from typing import Any

import h11

from hyperpool.testing.bodies import Outgoing, Upload
from hyperpool.testing.h2_peer import H2Peer
from hyperpool.testing.logbook import SeenRequest
from hyperpool.testing.messages import (
    Disconnect,
    Fault,
    Refuse,
    Reply,
    Request,
    Reset,
    final_headers,
    has_no_body,
    latin_1,
    pairs,
)
from hyperpool.testing.service import CUT, POLITE, RST, Ending, Exchange, Service, Wire

# What an upload may be ahead of its handler before reading stops, and what one turn writes at once.
UPLOAD_BYTES = 256 << 10
PIECE_BYTES = 64 << 10
PIPELINED_BYTES = 64 << 10


class H1Peer:
    """The server's side of one HTTP/1.1 connection.

    Owned by the I/O thread of the connection.
    """

    def __init__(self, wire: Wire, service: Service) -> None:
        self._wire = wire
        self._service = service
        self._h11 = h11.Connection(h11.SERVER, max_incomplete_event_size=256 << 10)
        self._exchange: Exchange | None = None
        self._is_sending = False
        self._ahead_bytes = 0  # received while a request was being answered
        self._is_draining = False

    @property
    def wants_read(self) -> bool:
        if self._exchange is None:
            return True
        return self._exchange.upload.buffered_bytes < UPLOAD_BYTES and self._ahead_bytes < PIPELINED_BYTES

    # What arrives.

    def receive(self, data: bytes) -> None:
        if self._exchange is not None and self._exchange.seen.is_complete:
            self._ahead_bytes += len(data)
        try:
            self._h11.receive_data(data)
            self._parse()
        except h11.RemoteProtocolError as error:
            self._give_up(error, at_end=not data)

    def _give_up(self, error: h11.RemoteProtocolError, *, at_end: bool) -> None:
        if not at_end:  # a request that breaks off is a disconnect
            self._service.log.error(error)
        if self._h11.our_state is h11.IDLE or self._h11.our_state is h11.SEND_RESPONSE:
            headers = latin_1([("content-length", "0"), ("connection", "close")])
            self._send(h11.Response(status_code=error.error_status_hint, headers=headers, reason=b"Bad Request"))
            self._send(h11.EndOfMessage())
        self.abandon(str(error))
        self._wire.end(POLITE)

    def _parse(self) -> None:
        while True:
            event = self._h11.next_event()
            if event is h11.NEED_DATA or event is h11.PAUSED:
                return
            if isinstance(event, h11.ConnectionClosed):
                return self.abandon("the peer closed the connection")
            self._on_event(event)

    def _on_event(self, event: Any) -> None:
        if isinstance(event, h11.Request):
            return self._on_request(event)
        if self._exchange is None:
            return None  # it goes on in HTTP/2
        if isinstance(event, h11.Data):
            self._exchange.feed(bytes(event.data), len(event.data))
        elif isinstance(event, h11.EndOfMessage):
            self._exchange.finish_upload(_text(event.headers))
            self._end_cycle()
        self._service.log.changed()

    def _on_request(self, event: h11.Request) -> None:
        headers = _text(event.headers)
        head: dict[str, Any] = {
            "method": event.method.decode("ascii"),
            "target": event.target.decode("latin-1"),
            "scheme": "https" if self._service.options.tls else "http",
            "authority": next((value for name, value in headers if name == "host"), ""),
            "headers": headers,
            "http_version": event.http_version.decode("ascii"),
            "stream_id": None,
            "connection_number": self._wire.number,
        }
        if self._service.options.upgrades and _asks_for_h2c(headers):
            return self._switch(head)
        upload = Upload(
            credit=self._post_credit,
            expects_continue=self._h11.they_are_waiting_for_100_continue,
            io_thread=threading.get_ident(),
        )
        exchange = Exchange(Request(**head, upload=upload), upload, SeenRequest(**head))
        self._exchange = exchange
        self._service.log.saw(exchange.seen)
        self._finish_if_bodiless(exchange, headers)
        self._service.serve(self._wire, self, exchange)

    def _switch(self, head: dict[str, Any]) -> None:
        """Go on in HTTP/2, and answer there (RFC 7540 3.2)."""
        settings = next(value for name, value in head["headers"] if name == "http2-settings")
        self._wire.write(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n")
        successor = H2Peer(self._wire, self._service, upgrade_settings=settings.encode("ascii"))
        self._wire.switch(successor)
        successor.answer_upgraded(head)

    def _finish_if_bodiless(self, exchange: Exchange, headers: list[tuple[str, str]]) -> None:
        # h11 says so with its next event; an inline handler may ask before.
        framing = [(name, value) for name, value in headers if name in ("content-length", "transfer-encoding")]
        if framing in ([], [("content-length", "0")]):
            exchange.upload.finish([])

    def _post_credit(self, credit_bytes: int) -> None:
        self._wire.post(self._send_continue)  # the turn that runs it also sees that there is room to read again

    def _send_continue(self) -> None:
        if self._h11.they_are_waiting_for_100_continue and self._h11.our_state is h11.SEND_RESPONSE:
            self._send(h11.InformationalResponse(status_code=100, headers=[], reason=b"Continue"))

    # What leaves.

    def reply(self, exchange: Exchange, outgoing: Outgoing) -> None:
        exchange.outgoing = outgoing
        if exchange is not self._exchange or exchange.is_over:
            return outgoing.source.close()
        for status, headers in outgoing.reply.interim:
            fields = latin_1(pairs(headers))
            self._send(h11.InformationalResponse(status_code=status, headers=fields, reason=_reason(status)))
        status = outgoing.reply.status
        fields = latin_1(self._final_headers(exchange, outgoing.reply))
        self._send(h11.Response(status_code=status, headers=fields, reason=_reason(status)))
        if has_no_body(exchange.request.method, status):
            self._finish(exchange)
        else:
            self._is_sending = True

    def _final_headers(self, exchange: Exchange, reply: Reply) -> list[tuple[str, str]]:
        fields = final_headers(reply, reply.whole_body())
        if self._is_draining or (reply.stops_upload and not exchange.seen.is_complete):
            fields.append(("connection", "close"))
        return fields

    def pump(self, room_bytes: int) -> bool:
        while self._is_sending and room_bytes > 0:
            exchange = self._exchange
            assert exchange is not None and exchange.outgoing is not None
            piece = exchange.outgoing.next_piece(min(room_bytes, PIECE_BYTES))
            if piece is None:
                return False
            if not isinstance(piece, bytes):
                self.fault(exchange, piece)
            elif piece:
                self._send(h11.Data(data=piece))
                room_bytes -= len(piece)
            else:
                self._finish(exchange)
        return self._is_sending

    def _finish(self, exchange: Exchange) -> None:
        assert exchange.outgoing is not None
        self._is_sending = False
        exchange.outgoing.source.close()
        exchange.is_over = True
        self._send(h11.EndOfMessage(headers=self._trailers(exchange, exchange.outgoing.reply)))
        exchange.upload.discard()
        stops = exchange.outgoing.reply.stops_upload or self._h11.they_are_waiting_for_100_continue
        if stops and not exchange.seen.is_complete:
            self.abandon("the reply did not wait for the upload")
            self._wire.end(POLITE)
        self._end_cycle()

    def _trailers(self, exchange: Exchange, reply: Reply) -> Any:
        # Only chunked coding can carry them (RFC 9112 7.1.2); to others they are not sent, as RFC 9110 6.5 wants.
        has_length = any(name == "content-length" for name, _ in pairs(reply.headers))
        if has_length or exchange.request.http_version == "1.0" or has_no_body(exchange.request.method, reply.status):
            return []
        return latin_1(pairs(reply.trailers))

    def _end_cycle(self) -> None:
        """Turn to the next request once both sides of this one are complete."""
        exchange = self._exchange
        if exchange is None or not exchange.is_over or not exchange.seen.is_complete:
            return
        self._exchange, self._ahead_bytes = None, 0
        if self._h11.our_state is h11.DONE and self._h11.their_state is h11.DONE and not self._is_draining:
            self._h11.start_next_cycle()
            self._wire.post(self.receive_more)  # what was pipelined, from a stack of its own
        else:
            self._wire.end(POLITE)

    def receive_more(self) -> None:
        """Parse what h11 still holds."""
        try:
            self._parse()
        except h11.RemoteProtocolError as error:
            self._give_up(error, at_end=False)

    def fault(self, exchange: Exchange, fault: Fault) -> None:
        if exchange is not self._exchange or exchange.is_over:
            return
        self._is_sending = False
        if isinstance(fault, Disconnect):
            self._wire.end(Ending(rst=fault.rst))
        elif isinstance(fault, (Reset, Refuse)):
            self._wire.end(RST if isinstance(fault, Reset) else CUT)

    # The connection.

    def goaway(self) -> None:
        """Close once idle; replies from now on say so."""
        self._is_draining = True
        if self._exchange is None:
            self._wire.end(POLITE)

    def abandon(self, why: str) -> None:
        self._is_sending = False
        if self._exchange is not None:
            self._exchange.abandon(why)

    def _send(self, event: Any) -> None:
        self._wire.write(self._h11.send(event) or b"")


def _asks_for_h2c(headers: list[tuple[str, str]]) -> bool:
    named = dict(headers)
    has_body = "transfer-encoding" in named or named.get("content-length", "0") != "0"
    return named.get("upgrade") == "h2c" and "http2-settings" in named and not has_body


def _text(headers: Any) -> list[tuple[str, str]]:
    return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers]


def _reason(status: int) -> bytes:
    try:
        return http.HTTPStatus(status).phrase.encode("ascii")
    except ValueError:
        return b"Unknown"
