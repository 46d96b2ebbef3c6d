"""h2's machine, made a client's: every override of h2 stands here, each with its reason.

h2 is the one HTTP/2 machine; this file is that machine, with what a client needs that h2 does
otherwise:

- A received GOAWAY must not end the streams that the server still answers (RFC 9113 6.8), but h2 closes its whole
  machine (python-hyper/h2 issue 1181). `Machine` overrides the method that does.
- Events that stood before an error in the same read must reach the caller: h2 raises and loses them. `Machine` keeps
  each frame's events as they come.
- What still comes on a stream that we have reset is to be ignored (RFC 9113 5.1), but h2 answers each frame of it with
  one more RST_STREAM: a cancelled download of 1 MiB in flight makes a hundred, and servers count them as an attack
  (CVE-2023-44487). `Machine` sends the first. h2 also ends the connection for an interim head on such a stream.
- A malformed message breaks its own stream (8.1.1, 5.4.2), but h2 ends the connection, and with it what everybody else
  waits for. It overlooks a head or trailers that end a message too early, and of 204 and 304 it awaits the length that
  another response would have.
- A push that belongs to a stream that we have reset is refused by h2 and forgotten: its response, in flight already,
  then looks like a request of the server's and ends the connection. `Machine` remembers it.
- h2 remembers how each of the last 65,536 streams ended: 150 bytes for each, 10 MiB for each busy connection. `Machine`
  remembers those that were reset, and knows that all others have come to their end (see `_Ended`).
- A reset of a stream that was never opened is a connection error (RFC 9113 6.4), and a header block that cannot be
  decoded is a COMPRESSION_ERROR (4.3): h2 overlooks the one, and calls the other a PROTOCOL_ERROR.
- DATA and WINDOW_UPDATE on a promised stream that has no head yet are connection errors (5.1): h2 ends that stream
  alone for the one, and takes the other.
- A stream may end twice: with its head, and once more with a DATA frame of nothing. nginx (1.22) does it with an empty
  body while its socket takes no more. 5.1 leaves it to us what comes of it; nobody's body is touched, so nobody's
  request is to fail.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import h2.stream
import hpack
from hyperframe.frame import RstStreamFrame

from hyperpool.protocol import events as ours
from hyperpool.protocol.hpack_memo import MemoDecoder, MemoEncoder

# Frames can be in flight for this many of our latest resets; an older one is reset once more, which is legal. As many
# are known of those that have come, and of pushes. Half of it halves 100 KiB that a storm of cancels leaves behind.
MAX_RESETS_KNOWN = 1_000

_BY_END = (h2.stream.StreamClosedBy.RECV_END_STREAM, h2.stream.StreamClosedBy.SEND_END_STREAM)

_CONFIG = h2.config.H2Configuration(
    client_side=True,
    header_encoding=None,
    validate_outbound_headers=False,
    normalize_outbound_headers=False,
)


class _CompressionError(h2.exceptions.ProtocolError):
    """A header block that cannot be decoded: the tables of both sides differ from here on (RFC 9113 4.3)."""

    error_code = h2.errors.ErrorCodes.COMPRESSION_ERROR


class _Decoder(MemoDecoder):
    """hpack's decoder, whose failures tell h2 with which code to leave.

    Owned by the loop thread.
    """

    def decode(self, data: bytes, raw: bool = False) -> Iterable[Any]:
        """See hpack."""
        try:
            return super().decode(data, raw)
        except hpack.OversizedHeaderListError:
            raise  # h2's answer to this one is right: ENHANCE_YOUR_CALM
        except (hpack.HPACKError, IndexError, TypeError, UnicodeDecodeError) as error:  # those that h2 expects
            raise _CompressionError(f"a header block cannot be decoded: {error!r}") from error


@dataclass(slots=True)
class WrongLength(h2.events.Event):
    """A message has ended with less of a body than its head allows, or goes on with more (RFC 9113 8.1.1)."""

    stream_id: int
    declared_bytes: int
    received_bytes: int


@dataclass(slots=True)
class Malformed(h2.events.Event):
    """A head or trailers, or DATA without a head, that no message can have (RFC 9113 8.1.1). Its stream was reset."""

    stream_id: int
    reason: str


class _Ended(dict[int, Any]):
    """How streams that are over were closed, as far as that cannot be known without a memory.

    Owned by its Machine. What still comes on a stream that has ended is a connection error, and on one that was reset
    it is not (RFC 9113 5.1). We open every odd id in turn, so an old one that stands nowhere has come to its end; but
    up to ``unsure_up_to``, the highest id that was forgotten here, it may have been reset. Of even ids (pushes) not all
    are used, so each one that was stands here.
    """

    unsure_up_to = 0

    def __setitem__(self, stream_id: int, closed_by: Any) -> None:
        if stream_id % 2 and closed_by in _BY_END:
            return
        super().__setitem__(stream_id, closed_by)
        if len(self) > MAX_RESETS_KNOWN:
            oldest = next(iter(self))
            del self[oldest]
            self.unsure_up_to = max(self.unsure_up_to, oldest)

    def closed_by(self, stream_id: int) -> Any:
        """What h2 asks of a stream that is over; where that is not known, a reset, which breaks the least."""
        if stream_id in self or not stream_id % 2:
            return self.get(stream_id)
        by = h2.stream.StreamClosedBy
        return by.SEND_RST_STREAM if stream_id <= self.unsure_up_to else by.RECV_END_STREAM


class _Values(list[Any]):
    """The values of one setting: the one that holds, then those to come.

    Owned by its Machine. h2 has a deque there, eight times as large for its one value; a connection has a dozen
    of them, and a program may have a thousand connections that do nothing.
    """

    __slots__ = ()

    def popleft(self) -> Any:
        """See deque."""
        return self.pop(0)


class Machine(h2.connection.H2Connection):
    """h2's connection, tolerant of GOAWAY, and with a memory of what it heard.

    Owned by the loop thread.
    """

    def __init__(self) -> None:
        super().__init__(config=_CONFIG)
        self.heard: list[h2.events.Event] = []
        self._was_reset: dict[int, None] = {}
        self._closed_streams: _Ended = _Ended()
        self.encoder = MemoEncoder()
        self.decoder = _Decoder()
        for settings in (self.local_settings, self.remote_settings):
            compact: dict[Any, Any] = {code: _Values(values) for code, values in settings._settings.items()}
            settings._settings = compact

    def _prepare_for_sending(self, frames: list[Any]) -> None:
        super()._prepare_for_sending([frame for frame in frames if not self._repeats_reset(frame)])

    def _repeats_reset(self, frame: Any) -> bool:
        """Whether this is a reset, of a stream that was reset before: by our caller, or by h2 for a fault."""
        if not isinstance(frame, RstStreamFrame):
            return False
        known = frame.stream_id in self._was_reset
        self._was_reset[frame.stream_id] = None
        if len(self._was_reset) > MAX_RESETS_KNOWN:
            del self._was_reset[next(iter(self._was_reset))]
        return known

    def _stream_closed_by(self, stream_id: int) -> Any:
        if stream_id in self.streams:
            return super()._stream_closed_by(stream_id)
        return self._closed_streams.closed_by(stream_id)

    def _receive_frame(self, frame: Any) -> list[h2.events.Event]:
        events = super()._receive_frame(frame)
        self.heard += events
        stream = self.streams.get(frame.stream_id)
        if stream is not None and stream.closed:
            self._forget(stream)
        return events

    def _forget(self, stream: Any) -> None:
        """A stream is over: h2 forgets it when a further one is opened, and judges late frames otherwise until then."""
        del self.streams[stream.stream_id]
        self._closed_streams[stream.stream_id] = stream.closed_by

    def _receive_headers_frame(self, frame: Any) -> tuple[list[Any], list[h2.events.Event]]:
        if frame.stream_id in self._was_reset:
            # It was under way. What is in it is nobody's business, but that it changes the table (RFC 9113 5.1).
            h2.connection._decode_headers(self.decoder, frame.data)
            return [], []
        known = self.streams.get(frame.stream_id)
        # h2 forgets it when trailers come.
        declared = None if known is None else known._expected_content_length
        try:
            frames, heard = super()._receive_headers_frame(frame)
        except h2.exceptions.ProtocolError as error:
            frames, malformed = self._break_message(known, error)
            return frames, [malformed]
        stream, first = self.streams[frame.stream_id], heard[0]
        if isinstance(first, h2.events.ResponseReceived):
            if first.headers[0][1] in (b"204", b"304"):
                stream._expected_content_length = 0  # they declare what another response would have (RFC 9110 8.6)
            declared = stream._expected_content_length
        received = stream._actual_content_length
        if "END_STREAM" in frame.flags and declared is not None and declared != received:
            return frames, [WrongLength(frame.stream_id, declared, received)]
        return frames, heard

    def _receive_data_frame(self, frame: Any) -> tuple[list[Any], list[h2.events.Event]]:
        self._check_has_a_head(frame)
        if not frame.flow_controlled_length and self._server_has_ended(frame.stream_id):
            return [], []
        try:
            return super()._receive_data_frame(frame)
        except h2.exceptions.InvalidBodyLengthError as error:
            return [], self._break_body(frame, error.expected_length, error.actual_length)
        except h2.exceptions.ProtocolError as error:
            frames, malformed = self._break_message(self.streams.get(frame.stream_id), error)
            return frames, [_taken(frame, b""), malformed]

    def _server_has_ended(self, stream_id: int) -> bool:
        stream = self.streams.get(stream_id)
        if stream is not None and stream.state_machine.state is h2.stream.StreamState.HALF_CLOSED_REMOTE:
            return True
        return stream_id <= self.highest_outbound_stream_id and self._stream_is_closed_by_end(stream_id)

    def _break_message(self, stream: Any, error: h2.exceptions.ProtocolError) -> tuple[list[Any], Malformed]:
        """The reset and the event for a stream whose message h2 has refused; raises where more is at fault.

        That is what h2 has a class of its own for, and what came on no stream.
        """
        if stream is None or error.__class__ is not h2.exceptions.ProtocolError:
            raise error
        # By hand: h2 may have closed it for what it raised, and then resets no more, nor knows by what it was closed.
        state = stream.state_machine
        state.state, state.stream_closed_by = h2.stream.StreamState.CLOSED, h2.stream.StreamClosedBy.SEND_RST_STREAM
        reset = RstStreamFrame(stream.stream_id, error_code=int(h2.errors.ErrorCodes.PROTOCOL_ERROR))
        return [reset], Malformed(stream.stream_id, str(error))

    def _break_body(self, frame: Any, declared: int, received: int) -> list[h2.events.Event]:
        """What this frame is, whose stream alone is at fault. h2 has taken it out of both windows, and no more."""
        too_much = received > declared
        if too_much:
            # At once: what comes behind it in the same read must find the stream closed.
            self.reset_stream(frame.stream_id, h2.errors.ErrorCodes.PROTOCOL_ERROR)
        else:
            self.streams[frame.stream_id].state_machine.process_input(h2.stream.StreamInputs.RECV_END_STREAM)
        return [_taken(frame, b"" if too_much else frame.data), WrongLength(frame.stream_id, declared, received)]

    def _receive_window_update_frame(self, frame: Any) -> tuple[list[Any], list[h2.events.Event]]:
        self._check_has_a_head(frame)
        return super()._receive_window_update_frame(frame)

    def _check_has_a_head(self, frame: Any) -> None:
        """A promised stream carries nothing before its head. `QuickMachine` takes no frames of such streams."""
        stream = self.streams.get(frame.stream_id)
        if stream is not None and stream.state_machine.state is h2.stream.StreamState.RESERVED_REMOTE:
            message = f"{type(frame).__name__} on stream {frame.stream_id}, which is promised only (RFC 9113 5.1)"
            raise h2.exceptions.ProtocolError(message)

    def _handle_data_on_closed_stream(self, events: Any, exc: Any, frame: Any) -> Any:
        # A stream that the server has ended stays ended (5.1).
        if frame.stream_id not in self._was_reset and self._stream_is_closed_by_end(frame.stream_id):
            raise exc
        # h2 would give it back by itself, by an account beside the engine's: each would wait for half of a window.
        reset = RstStreamFrame(frame.stream_id, error_code=int(exc.error_code))
        return [reset], [*exc._events, ours.LateData(frame.flow_controlled_length)]

    def _receive_rst_stream_frame(self, frame: Any) -> tuple[list[Any], list[h2.events.Event]]:
        try:
            self._get_stream_by_id(frame.stream_id)
        except h2.exceptions.StreamClosedError:
            pass  # one that is over may be reset once more
        except h2.exceptions.NoSuchStreamError as error:
            message = f"RST_STREAM on stream {frame.stream_id}, which was never opened (RFC 9113 6.4)"
            raise h2.exceptions.ProtocolError(message) from error
        return super()._receive_rst_stream_frame(frame)

    def _receive_push_promise_frame(self, frame: Any) -> tuple[list[Any], list[h2.events.Event]]:
        # What was reset stays in `streams` until somebody counts: a server that promises for ever would fill it.
        self._open_streams(remainder=0)
        refusals, events = super()._receive_push_promise_frame(frame)
        if refusals:
            self._begin_new_stream(frame.promised_stream_id, h2.connection.AllowedStreamIDs.EVEN).remotely_pushed([])
            self.reset_stream(frame.promised_stream_id, h2.errors.ErrorCodes.REFUSED_STREAM)
            return [], events
        promise = events[-1]
        assert isinstance(promise, h2.events.PushedStreamReceived)
        # h2 does not look: the length that a response to HEAD declares would be held against it.
        self.streams[frame.promised_stream_id].request_method = dict(promise.headers or ()).get(b":method")
        return [], events

    def _receive_goaway_frame(self, frame: Any) -> tuple[list[Any], list[h2.events.Event]]:
        event = h2.events.ConnectionTerminated()
        event.error_code = frame.error_code
        event.last_stream_id = frame.last_stream_id
        event.additional_data = frame.additional_data or None
        return [], [event]


def _taken(frame: Any, data: bytes) -> h2.events.DataReceived:
    """A DATA frame that was taken out of the windows, and as much of its content as somebody may have."""
    return h2.events.DataReceived(
        stream_id=frame.stream_id, data=data, flow_controlled_length=frame.flow_controlled_length
    )
