"""HTTP/1.1 as bytes: h11's machine with our events around it. No socket, no thread, no clock.

h11 is the machine. Where it is lenient (RFC 9112 2.2 to 7.1 allow a recipient to be, and response splitting lives in
that room), heads are judged by `check_head` and the lines of chunked bodies by `ChunkGuard`, before h11 sees them.
Exchanges are numbered 1, 2, 3, … in place of stream ids.

Plain exchanges are spared the machine, which costs more than all the rest of a small one (docs/performance.md): a
request without a body is written as h11 would write it, and h11 is told of it only when something comes back that it
has not judged before. A head that came before, byte for byte, with a Content-Length, means what it meant. A large body
behind a head that h11 has just judged is counted here as well: h11 then forgets the exchange, as if it were untold.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import h11

from hyperpool.errors import ConnectionLost, HyperpoolError, LocalProtocolError, RemoteProtocolError
from hyperpool.protocol import events as ours
from hyperpool.protocol.chunk_guard import MAX_CHUNK_LINE_BYTES, ChunkGuard
from hyperpool.protocol.events import MAX_INTERIM
from hyperpool.protocol.h1_head import HEAD_END, check_head
from hyperpool.protocol.lasting import LastingFields, written_once
from hyperpool.protocol.response_fields import parse_status

# Different heads that are remembered on a connection, and the longest of them.
MEMO_HEADS = 64
MEMO_HEAD_BYTES = 4 << 10
# From this length on a new machine (20 us) costs less than to have h11 copy the body.
BULK_BYTES = 64 << 10
# With these in a head, the connection may not go on as it was.
_CONNECTION = frozenset((b"connection", b"upgrade"))
_BEHIND = "the server sent bytes behind the end of its response (RFC 9112 11.2)"


class _Known(NamedTuple):
    """What a response head meant: all but the number of its exchange."""

    status: int
    fields: ours.Fields
    reason: bytes
    length_bytes: int


class H1Codec:
    """One HTTP/1.1 connection's client side.

    Owned by the loop thread (L1). `receive` never raises: see `events.Codec`.
    """

    def __init__(self, *, max_header_bytes: int = 64 << 10) -> None:
        self.failure: HyperpoolError | None = None
        self._max_header_bytes = max_header_bytes
        self._machine = self._fresh_machine()
        self._out: list[bytes | memoryview] = []
        self._exchange = 0
        self._busy = False
        self._head: bytearray | None = None
        self._interim = 0
        self._body_bytes = 0
        self._length_bytes: int | None = None
        self._chunks: ChunkGuard | None = None
        self._pieces: list[bytes] = []
        self._piece_bytes = 0
        self._chunk_ends: list[int] = []
        self._ended = False
        # A request that has gone out, but that h11 has not been told of; and whether h11 has an exchange behind it.
        self._untold: tuple[bytes, bytes, ours.Fields] | None = None
        # The request under way where it could be left untold, told or not.
        self._plain: tuple[bytes, bytes, ours.Fields] | None = None
        self._told_before = False
        self._known: dict[bytes, _Known] = {}
        # What is still to come of the body of a plain response; None while there is none.
        self._left_bytes: int | None = None

    def _fresh_machine(self) -> h11.Connection:
        # h11's bound is for what it cannot read yet, so it would depend on how the bytes come. All that it gets has
        # passed ours, which does not.
        return h11.Connection(h11.CLIENT, max_incomplete_event_size=self._max_header_bytes + MAX_CHUNK_LINE_BYTES)

    # -- what we send ----------------------------------------------------------------------------------------------

    def open(self, head: ours.RequestHead, *, end: bool) -> int:
        """Send a request head; the number of its exchange. The exchange before it has ended (see ``reusable``)."""
        fields = [(b"Host", head.authority), *head.fields]
        if head.body_bytes is None and not end:
            fields.append((b"Transfer-Encoding", b"chunked"))
        request = head.method, head.target, fields
        if end and head.method != b"HEAD" and not _says_more(head.fields):
            self._untold = self._plain = request
            self._out.append(_written(head))
        else:
            self._untold = self._plain = None
            self._tell(*request)
        self._exchange += 1
        self._busy = True
        self._head = bytearray()
        self._interim = self._body_bytes = 0
        self._length_bytes = self._chunks = None
        if end and self._untold is None:
            self._send(h11.EndOfMessage)
        return self._exchange

    def _tell(self, method: bytes, target: bytes, fields: ours.Fields) -> None:
        if self._told_before:
            self._machine.start_next_cycle()
        self._told_before = True
        self._send(h11.Request, method=method, target=target, headers=fields)

    def _tell_what_was_sent(self) -> None:
        """From here on the exchange is h11's to judge."""
        if self._untold is not None:
            out, request = self._out, self._untold
            self._untold, self._out = None, []
            self._tell(*request)
            self._send(h11.EndOfMessage)
            self._out = out

    def send(self, stream_id: int, data: bytes | memoryview, *, end: bool) -> None:
        """Send a piece of body. Raises LocalProtocolError where it is longer or shorter than was declared."""
        assert stream_id == self._exchange, "HTTP/1.1 carries one exchange at a time"
        if data:
            self._send(h11.Data, data=data)
        if end:
            self._send(h11.EndOfMessage)

    def trail(self, stream_id: int, fields: ours.Fields) -> None:
        """End a body of unknown length with trailers (RFC 9112 7.1.2)."""
        assert stream_id == self._exchange, "HTTP/1.1 carries one exchange at a time"
        self._send(h11.EndOfMessage, headers=fields)

    def _send(self, kind: Callable[..., Any], **values: Any) -> None:
        try:
            self._out += self._machine.send_with_data_passthrough(kind(**values)) or ()
        except h11.LocalProtocolError as error:
            raise LocalProtocolError(f"this request cannot be sent over HTTP/1.1: {error}") from error

    def data_to_send(self) -> bytes:
        """Everything that waits for the wire."""
        parts, self._out = self._out, []
        return b"".join(parts)

    @property
    def reusable(self) -> bool:
        """Whether the connection can carry another exchange (RFC 9112 9.3): both sides are done, and neither closes."""
        if self._untold is not None:
            done = not self._busy
        else:
            done = self._machine.our_state is h11.DONE and self._machine.their_state is h11.DONE
        return done and not self.failure and not self._ended

    @property
    def unanswered(self) -> bool:
        """Whether not a byte has come of what answers the request under way, an interim head included."""
        return self._busy and self._head is not None and not self._head and not self._interim

    # -- what we receive -------------------------------------------------------------------------------------------

    def receive(self, data: bytes) -> list[ours.Event]:
        """Events of these bytes. An error stands in ``failure``, after the events that came before it."""
        events: list[ours.Event] = []
        try:
            while data and self.failure is None:
                data = self._receive_some(data, events)
        except h11.RemoteProtocolError as error:
            self._fail(f"the server broke HTTP/1.1: {error}", error)
        except RemoteProtocolError as error:
            self.failure = error
        return events

    def _receive_some(self, data: bytes, events: list[ours.Event]) -> bytes:
        """Act on the next part of the bytes; what is left of them."""
        if not self._busy:
            self._fail("the server sent bytes that nobody had asked for")
            return b""
        if self._left_bytes is not None:
            self._receive_plain_body(data, events)
            return b""
        if self._head is None:
            self._receive_body(data, events)
            return b""
        if self._untold is not None:
            if not self._head and (end := data.find(HEAD_END)) >= 0 and (known := self._known.get(data[: end + 4])):
                self._receive_plain_head(known, data[end + 4 :], events)
                return b""
            self._tell_what_was_sent()
        before = len(self._head)
        self._head += data
        end = self._head.find(HEAD_END, max(0, before - len(HEAD_END) + 1))
        check_head(self._head, end, before, max_bytes=self._max_header_bytes)
        if end < 0:
            return b""
        end += len(HEAD_END)
        head, rest = bytes(self._head[:end]), bytes(self._head[end:])
        self._head = bytearray()
        self._feed(head, events)
        self._remember(head, events)
        if events and isinstance(switched := events[-1], ours.Switched):
            switched.data = rest  # no HTTP/1.1 any more
            return b""
        if self._plain and (known := self._known.get(head)) and known.length_bytes >= BULK_BYTES:
            self._untell(known)
        return rest

    def _untell(self, known: _Known) -> None:
        """Go on with the body as if h11 had never been told of this exchange."""
        self._machine, self._told_before = self._fresh_machine(), False
        self._untold, self._left_bytes = self._plain, known.length_bytes

    def _receive_plain_head(self, known: _Known, rest: bytes, events: list[ours.Event]) -> None:
        self._head = None
        self._length_bytes = self._left_bytes = known.length_bytes
        events.append(ours.Head(self._exchange, known.status, known.fields, known.reason, "HTTP/1.1"))
        if rest or not known.length_bytes:
            self._receive_plain_body(rest, events)

    def _receive_plain_body(self, data: bytes, events: list[ours.Event]) -> None:
        assert self._left_bytes is not None
        piece = data[: self._left_bytes]
        self._left_bytes -= len(piece)
        self._body_bytes += len(piece)
        if piece:
            events.append(ours.Data(self._exchange, piece, len(piece)))
        if not self._left_bytes:
            self._left_bytes = None
            self._busy = False
            events.append(ours.End(self._exchange))
            if len(piece) < len(data):
                self._fail(_BEHIND)

    def _receive_body(self, data: bytes, events: list[ours.Event]) -> None:
        if self._chunks is None:
            self._feed(data, events)
            return
        admitted, fault = self._chunks.admit(data)
        # What stands before the fault is good, and its events come first. Nothing (b"") would be the end to h11.
        if admitted:
            self._feed(admitted, events)
        if fault is not None:
            raise fault

    def _feed(self, data: bytes, events: list[ours.Event]) -> None:
        self._machine.receive_data(data)
        try:
            while self._busy:
                event = self._machine.next_event()
                if event is h11.NEED_DATA:
                    return
                self._translate(event, events)
        finally:
            self._flush_body(events)
        if self._machine.trailing_data[0]:
            self._fail(_BEHIND)

    def _remember(self, head: bytes, events: list[ours.Event]) -> None:
        """Of what h11 and the checks of ours have let through: what tells alone how the exchange goes on."""
        answer = next((event for event in events if isinstance(event, ours.Head)), None)
        if answer is None or self._length_bytes is None or len(head) > MEMO_HEAD_BYTES:
            return
        if answer.http_version != "HTTP/1.1" or answer.status in (204, 304):
            return
        if any(name in _CONNECTION and value.lower() != b"keep-alive" for name, value in answer.fields):
            return
        if len(self._known) >= MEMO_HEADS:
            self._known.clear()
        self._known[head] = _Known(answer.status, answer.fields, answer.reason, self._length_bytes)

    def _translate(self, event: Any, events: list[ours.Event]) -> None:
        number = self._exchange
        if isinstance(event, h11.Data):
            self._pieces.append(event.data)
            self._piece_bytes += len(event.data)
            if event.chunk_end:
                self._chunk_ends.append(self._piece_bytes)
        elif isinstance(event, h11.Response):
            self._head = None
            self._frame(dict(event.headers))
            status = parse_status(b"%d" % event.status_code)
            version = "HTTP/" + event.http_version.decode("ascii")
            events.append(ours.Head(number, status, list(event.headers), bytes(event.reason), version))
        elif isinstance(event, h11.InformationalResponse) and event.status_code == 101:
            # h11 has seen that we had asked for it.
            self._busy = False
            events.append(ours.Switched(number, _value(event.headers, b"upgrade"), b""))
        elif isinstance(event, h11.InformationalResponse):
            self._count_interim()
            events.append(ours.Interim(number, event.status_code, list(event.headers)))
        else:
            self._flush_body(events)
            if event.headers:
                events.append(ours.Trailers(number, list(event.headers)))
            self._busy = False
            events.append(ours.End(number))

    def _frame(self, named: dict[bytes, bytes]) -> None:
        # For the guard and for messages: where the body really ends is h11's to say.
        if b"transfer-encoding" in named:
            self._chunks = ChunkGuard(max_trailer_bytes=self._max_header_bytes)
        elif b"content-length" in named:
            self._length_bytes = int(named[b"content-length"])

    def _flush_body(self, events: list[ours.Event]) -> None:
        """One event for the pieces of body so far: a server that sends single bytes must not cost an event for each."""
        if self._pieces:
            data = b"".join(self._pieces)
            if self._chunks is not None:
                data = ours.Chunked.cut(data, self._chunk_ends)
                self._chunk_ends.clear()
            self._pieces.clear()
            self._piece_bytes = 0
            self._body_bytes += len(data)
            events.append(ours.Data(self._exchange, data, len(data)))

    def _count_interim(self) -> None:
        self._interim += 1
        if self._interim > MAX_INTERIM:
            raise RemoteProtocolError(f"the server sent more than {MAX_INTERIM} interim responses (RFC 9110 15.2)")

    def receive_eof(self) -> list[ours.Event]:
        """The peer closed: the end of a body without framing (RFC 9112 6.3), else ``failure`` is ConnectionLost."""
        events: list[ours.Event] = []
        self._ended = True
        if not self._busy or self.failure is not None:
            return events
        if self._left_bytes is not None:
            self.failure = ConnectionLost(f"the server closed the connection {self.progress}", processed="maybe")
            return events
        self._tell_what_was_sent()
        try:
            self._feed(b"", events)
        except h11.RemoteProtocolError as error:
            self.failure = ConnectionLost(f"the server closed the connection {self.progress}", processed="maybe")
            self.failure.__cause__ = error
        return events

    @property
    def progress(self) -> str:
        """How far the answer to the request under way has come, for messages."""
        if self._head:
            return f"after {len(self._head):,} bytes of a response head"
        if self._head is not None:
            return "after an interim response" if self._interim else "before its response head"
        if self._length_bytes is not None:
            return f"after {self._body_bytes:,} of the {self._length_bytes:,} bytes of the body"
        kind = "a body that ends with the connection" if self._chunks is None else "a chunked body"
        return f"after {self._body_bytes:,} bytes of {kind}"

    def _fail(self, message: str, cause: BaseException | None = None) -> None:
        self.failure = RemoteProtocolError(message)
        self.failure.__cause__ = cause


def _says_more(fields: tuple[tuple[bytes, bytes], ...]) -> bool:
    """Whether a request says something about the connection."""
    return fields.__class__ is not LastingFields and any(name.lower() in _CONNECTION for name, _ in fields)


def _written(head: ours.RequestHead) -> bytes:
    """A request head without a body, as h11 writes it (RFC 9112 3, 5)."""
    line = b"%s %s HTTP/1.1\r\nHost: %s\r\n" % (head.method, head.target, head.authority)
    return line + written_once(head.fields, _lines)


def _lines(fields: tuple[tuple[bytes, bytes], ...]) -> bytes:
    return b"".join([b"%s: %s\r\n" % field for field in fields]) + b"\r\n"


def _value(fields: Any, wanted: bytes) -> bytes:
    return next((bytes(value) for name, value in fields if name == wanted), b"")
