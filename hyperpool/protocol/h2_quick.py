"""The same machine, with the plain cases taken in one step each.

Nearly all that a connection carries are five things: a request head, a response head with nothing special in it, DATA
within the windows in either direction, and a stream's end with one of these. For each of them h2 makes a frame object
with flags, two transitions, a list of events and a log line; here each is one step on the same objects of h2's, and the
events are ours at once. Whatever is not plain goes to h2 as it came, before anything was changed: padding, priority,
CONTINUATION, trailers, interim heads, a field that h2 would refuse or change, a stream in any other state, a window or
a length that does not fit. So h2 stays the one that judges.

Measured with 1 KiB responses: 12 us of CPU for a request and its response, where h2 takes 113 (docs/performance.md).
`tests/protocol/test_h2_quick.py` gives the same bytes to both machines: same events, same answers, same state.
"""

from __future__ import annotations

import functools
import re
import struct
from typing import Any

import h2.connection
import h2.events
import h2.stream

from hyperpool.protocol import events as ours
from hyperpool.protocol.field_rules import LENGTH
from hyperpool.protocol.fields import CONNECTION_SPECIFIC
from hyperpool.protocol.h2_machine import Machine
from hyperpool.protocol.hpack_memo import MemoDecoder
from hyperpool.protocol.response_fields import LOWER_TOKEN, RESPONSE_VALUE

# Length (16 + 8 bits), type, flags, stream id (RFC 9113 4.1).
_HEAD = struct.Struct(">HBBBL")
# The same, with type and flags as one number: DATA (type 0) without flags is 0, with END_STREAM alone it is 1.
_RUN_HEAD = struct.Struct(">HBHL")
_HEAD_BYTES = 9
_DATA, _HEADERS, _PUSH_PROMISE, _GOAWAY, _WINDOW_UPDATE, _CONTINUATION = 0x0, 0x1, 0x5, 0x7, 0x8, 0x9
_END_STREAM, _END_HEADERS, _PADDED = 0x1, 0x4, 0x8
# These carry a number of 31 bits behind a bit that means nothing (RFC 9113 6.6, 6.8, 6.9).
_RESERVING = frozenset((_PUSH_PROMISE, _GOAWAY, _WINDOW_UPDATE))

# Streams that are over are swept away when the map has doubled since the last time; h2 walks it for every new stream.
_SWEEP_AT = 64

_OPEN = h2.stream.StreamState.OPEN
_HALF_CLOSED_LOCAL = h2.stream.StreamState.HALF_CLOSED_LOCAL
_HALF_CLOSED_REMOTE = h2.stream.StreamState.HALF_CLOSED_REMOTE
_CLOSED = h2.stream.StreamState.CLOSED
_RECV_END_STREAM = h2.stream.StreamClosedBy.RECV_END_STREAM
_CLIENT_OPEN = h2.connection.ConnectionState.CLIENT_OPEN

# (status, fields without it, the length that they allow)
Answer = tuple[int, ours.Fields, "int | None"]
NOT_PLAIN: Answer = (0, [], None)
_FINAL_STATUS = re.compile(rb"[2-9][0-9][0-9]").fullmatch
# What these declare is the length that another response would have (RFC 9113 8.1.1).
_NO_CONTENT = (b"204", b"304")
# h2 refuses what is specific to an HTTP/1.1 connection, looks at the value of TE, and moves cookies to the end.
_NOT_PLAIN_NAMES = CONNECTION_SPECIFIC | {b"te", b"cookie"}


class QuickMachine(Machine):
    """`Machine`, quicker. ``heard`` has events of h2's, and our Head, Data and End.

    Owned by the loop thread.
    """

    decoder: MemoDecoder

    def __init__(self) -> None:
        super().__init__()
        # The beginning of a frame whose end has not come yet.
        self._rest = b""
        self._sweep_at = _SWEEP_AT
        # What the windows of a new stream begin with, ours and the peer's; None where h2 may have heard of others.
        self._first_windows: tuple[int, int] | None = None
        # Whether DATA frames that follow each other are heard as one piece.
        self.joins_data = True

    # -- out -------------------------------------------------------------------------------------------------------

    def send_request(self, fields: list[tuple[bytes, bytes]], *, end: bool) -> int:
        """Send a request head, ``:method`` first and ``:authority`` third; the id of its stream (RFC 9113 5.1.1).

        The caller has seen that a slot is free, and an id.
        """
        if len(self.streams) >= self._sweep_at:
            self._sweep_at = _SWEEP_AT + 2 * self._open_streams(remainder=1)
        if self.state_machine.state is not _CLIENT_OPEN:
            self.state_machine.process_input(h2.connection.ConnectionInputs.SEND_HEADERS)
        stream_id = self.highest_outbound_stream_id = self.get_next_available_stream_id()
        windows = self._first_windows
        if windows is None:  # h2's settings take as long to say this as all that stands below
            sizes = self.local_settings.initial_window_size, self.remote_settings.initial_window_size
            windows = self._first_windows = sizes
        stream = self.streams[stream_id] = h2.stream.H2Stream(stream_id, self.config, *windows)
        stream.max_outbound_frame_size = self.max_outbound_frame_size
        stream.request_method, stream._authority = fields[0][1], fields[2][1]
        state = stream.state_machine
        state.client = state.headers_sent = True
        state.state = _HALF_CLOSED_LOCAL if end else _OPEN
        self._send_block(stream_id, self.encoder.encode(fields), _END_STREAM if end else 0)
        return stream_id

    def _send_block(self, stream_id: int, block: bytes, flags: int) -> None:
        """RFC 9113 4.3, 6.10."""
        kind, most = _HEADERS, self.max_outbound_frame_size
        while len(block) > most:
            self._data_to_send += _HEAD.pack(most >> 8, most & 0xFF, kind, flags, stream_id) + block[:most]
            kind, flags, block = _CONTINUATION, 0, block[most:]
        size = len(block)
        self._data_to_send += _HEAD.pack(size >> 8, size & 0xFF, kind, flags | _END_HEADERS, stream_id) + block

    def send_piece(self, stream_id: int, data: bytes | memoryview, *, end: bool) -> int:
        """Send DATA frames (RFC 9113 6.1, 6.9.1), as few as hold these bytes; how many that were.

        Each as h2's ``send_data`` does. Raises as that does.
        """
        stream, size, most = self.streams.get(stream_id), len(data), self.max_outbound_frame_size
        plain = stream is not None and self._may_send(stream, size, end)
        for at in range(0, size or 1, most):
            part = data[at : at + most]
            ends = end and at + most >= size
            if plain:
                length, flags = len(part), _END_STREAM if ends else 0
                self._data_to_send += _HEAD.pack(length >> 8, length & 0xFF, _DATA, flags, stream_id)
                self._data_to_send += part
            else:
                self.send_data(stream_id, part, end_stream=ends)
        if plain:
            self._count_sent(stream, size, end)
        return max(1, -(-size // most))

    def _count_sent(self, stream: Any, size: int, end: bool) -> None:
        self.outbound_flow_control_window -= size
        stream.outbound_flow_control_window -= size
        if end:
            stream.state_machine.state = _HALF_CLOSED_LOCAL

    def _may_send(self, stream: Any, size: int, end: bool) -> bool:
        """Whether a piece is plain: within all bounds, on a stream that stays open or is half closed by it."""
        state = stream.state_machine.state
        return (
            self.state_machine.state is _CLIENT_OPEN
            # An end that closes the stream is h2's: it must know how that came.
            and (state is _OPEN or (state is _HALF_CLOSED_REMOTE and not end))
            and 0 < size <= self.outbound_flow_control_window
            and size <= stream.outbound_flow_control_window
        )

    def capacity(self, stream_id: int, frames: int = 1) -> int:
        """Bytes that so many DATA frames of this stream may carry now (RFC 9113 6.9.2).

        0 or less while a window is shut.
        """
        windows = min(self.outbound_flow_control_window, self.streams[stream_id].outbound_flow_control_window)
        return min(windows, frames * self.max_outbound_frame_size)

    def take_output(self) -> bytes | bytearray:
        """Everything that waits for the wire, not copied once more."""
        data, self._data_to_send = self._data_to_send, bytearray()
        return data

    # -- in --------------------------------------------------------------------------------------------------------

    def receive_data(self, data: Any) -> list[h2.events.Event]:
        """Take bytes; what they mean stands in ``heard``. Raises as h2 does, with what came before still there."""
        data = self._rest + data if self._rest else data
        at, size = 0, len(data)
        while size - at >= _HEAD_BYTES:
            high, low, kind, flags, stream_id = _HEAD.unpack_from(data, at)
            begin = at + _HEAD_BYTES
            end = begin + (high << 8 | low)
            if end > size:
                break
            if kind == _DATA and (run_end := self._hear_data(stream_id, data, at, size if self.joins_data else end)):
                at = run_end
                continue
            heard = kind == _HEADERS and self._hear_head(stream_id, flags, data[begin:end])
            # An extension that nobody here uses is ignored whatever is in it (RFC 9113 5.5): h2 would judge an ALTSVC.
            # Within a header block it is an error, which h2 sees.
            if not heard and (kind <= _CONTINUATION or self.incoming_buffer._headers_buffer):
                frame = data[at:end]
                self._first_windows = None
                super().receive_data(_without_reserved_bit(kind, flags, frame) if kind in _RESERVING else frame)
            at = end
        self._rest = data[at:]
        return []

    def _plain_stream(self, stream_id: int) -> Any:
        """A stream that the peer may go on with, on a connection where nothing is amiss; or None."""
        stream = self.streams.get(stream_id)
        if stream is None or self.state_machine.state is not _CLIENT_OPEN or self.incoming_buffer._headers_buffer:
            return None
        state = stream.state_machine.state
        return stream if state is _HALF_CLOSED_LOCAL or state is _OPEN else None

    def _hear_data(self, stream_id: int, data: bytes, at: int, until: int) -> int:
        """Take the run of plain DATA frames between here and there, as one piece (RFC 9113 6.1, 6.9.1, 8.1.1).

        Where it ends; 0, and nothing is done, where not even the first of them is plain.
        """
        stream = self._plain_stream(stream_id)
        if stream is None or not stream.state_machine.headers_received:
            return 0
        window, own_window = self._inbound_flow_control_window_manager, stream._inbound_window_manager
        room = min(window.current_window_size, own_window.current_window_size)
        received, declared = stream._actual_content_length, stream._expected_content_length
        missing = 0 if declared is None else declared - received
        bounds = (self.max_inbound_frame_size, room if declared is None else min(room, missing), missing)
        spans, ends = _plain_run(data, at, until, stream_id, bounds)
        if not spans:
            return 0
        piece = _joined(data, spans)
        size = len(piece)
        window.current_window_size -= size
        own_window.current_window_size -= size
        stream._actual_content_length = received + size
        self.heard.append(ours.Data(stream_id, piece, size))  # type: ignore[arg-type]
        if ends:
            self._hear_end(stream)
        return spans[-1][1]

    def _hear_head(self, stream_id: int, flags: int, block: bytes) -> bool:
        """RFC 9113 8.1; False, and nothing is done, where it is not plain or not known."""
        stream = self._plain_stream(stream_id)
        if stream is None or flags & ~_END_STREAM != _END_HEADERS or stream.state_machine.headers_received:
            return False
        known = self.decoder.look(block)
        if known is None:
            return False
        if known.judged is None:
            known.judged = judged(known.fields)
        if known.judged is NOT_PLAIN:
            return False
        status, fields, declared = known.judged
        ends = bool(flags & _END_STREAM)
        if stream.request_method == b"HEAD":
            declared = 0
        elif ends and declared:
            return False
        self.decoder.take(known)
        stream._expected_content_length = declared
        stream.state_machine.headers_received = True
        self.heard.append(ours.Head(stream_id, status, fields))  # type: ignore[arg-type]
        if ends:
            self._hear_end(stream)
        return True

    def _hear_end(self, stream: Any) -> None:
        state = stream.state_machine
        if state.state is _OPEN:
            state.state = _HALF_CLOSED_REMOTE
        else:
            state.state, state.stream_closed_by = _CLOSED, _RECV_END_STREAM
            del self.streams[stream.stream_id]  # what stands nowhere has come to its end (see `h2_machine`)
        self.heard.append(ours.End(stream.stream_id))  # type: ignore[arg-type]


def _plain_run(
    data: bytes, at: int, until: int, stream_id: int, bounds: tuple[int, int, int]
) -> tuple[list[tuple[int, int]], bool]:
    """Where the payloads of the plain DATA frames of a stream lie that follow each other here; whether they end it.

    ``bounds``: bytes that one frame may have, those that all may have, and those that must be here before an end.
    """
    max_frame_bytes, most_bytes, missing_bytes = bounds
    spans: list[tuple[int, int]] = []
    taken, ends = 0, False
    while until - at >= _HEAD_BYTES and not ends:
        high, low, kind_flags, of_stream = _RUN_HEAD.unpack_from(data, at)
        begin, length = at + _HEAD_BYTES, high << 8 | low
        at = begin + length
        if kind_flags > _END_STREAM or of_stream != stream_id or at > until or length > max_frame_bytes:
            break
        taken += length
        if taken > most_bytes or (kind_flags and taken < missing_bytes):
            break
        spans.append((begin, at))
        ends = kind_flags == _END_STREAM
    return spans, ends


def _joined(data: bytes, spans: list[tuple[int, int]]) -> bytes:
    """The bytes of these spans, copied once."""
    if len(spans) == 1:
        return data[spans[0][0] : spans[0][1]]
    view = memoryview(data)
    return b"".join([view[begin:end] for begin, end in spans])


def _without_reserved_bit(kind: int, flags: int, frame: bytes) -> bytes:
    """The frame with the bit unset that is to be ignored, and that h2 takes for a part of the number behind it."""
    at = _HEAD_BYTES + (kind == _PUSH_PROMISE and bool(flags & _PADDED))
    return frame[:at] + bytes((frame[at] & 0x7F,)) + frame[at + 1 :] if len(frame) > at else frame


def judged(fields: list[Any]) -> Answer:
    """A response head as our events say it, or `NOT_PLAIN`: what passes here passes h2, and means the same there.

    RFC 9113 8.2.1, 8.2.2, 8.3.2; RFC 9110 8.6. h2 looks at the rest: at what is wrong, and at what it would change.
    """
    (first, status), *rest = fields or [(b"", b"")]
    if first != b":status" or not _FINAL_STATUS(status):
        return NOT_PLAIN
    declared = None
    for name, value in rest:
        if not (_is_plain_name(name) and RESPONSE_VALUE(value)):
            return NOT_PLAIN
        if name == b"content-length":
            if declared is not None or not LENGTH(value):
                return NOT_PLAIN
            declared = int(value)
    if status in _NO_CONTENT:
        declared = 0
    return int(status), [(name, value) for name, value in rest], declared


@functools.lru_cache(maxsize=1024)
def _is_plain_name(name: bytes) -> bool:
    return LOWER_TOKEN(name) is not None and name not in _NOT_PLAIN_NAMES
