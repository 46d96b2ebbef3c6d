"""HTTP/2 as bytes: h2's machine with our events around it. No socket, no thread, no clock.

h2 is the one HTTP/2 machine; `h2_machine` makes it a client's. This file is its face to the engine:

- Events are ours, and those that stood before an error in the same read come before it.
- Frames are judged, and counted, from their first nine bytes (see `frame_guard`).

Outbound header checks of h2 are off, since `fields.prepare_head` has refused all that they refuse, in the caller's
thread (a differential test proves it). Its inbound checks stay on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import h2.errors
import h2.events
import h2.exceptions
import h2.settings

from hyperpool.errors import HyperpoolError, RemoteProtocolError
from hyperpool.protocol import events as ours
from hyperpool.protocol.fields import head_fields_for_h2
from hyperpool.protocol.frame_guard import FrameGuard
from hyperpool.protocol.frame_log import frame_log
from hyperpool.protocol.h2_machine import Malformed, WrongLength
from hyperpool.protocol.h2_quick import QuickMachine
from hyperpool.protocol.response_fields import parse_status

if TYPE_CHECKING:
    from hyperpool.values import Limits

NO_ERROR = int(h2.errors.ErrorCodes.NO_ERROR)
PROTOCOL_ERROR = int(h2.errors.ErrorCodes.PROTOCOL_ERROR)
SETTINGS_TIMEOUT = int(h2.errors.ErrorCodes.SETTINGS_TIMEOUT)
REFUSED_STREAM = int(h2.errors.ErrorCodes.REFUSED_STREAM)
CANCEL = int(h2.errors.ErrorCodes.CANCEL)
ENHANCE_YOUR_CALM = int(h2.errors.ErrorCodes.ENHANCE_YOUR_CALM)
HTTP_1_1_REQUIRED = int(h2.errors.ErrorCodes.HTTP_1_1_REQUIRED)

# RFC 9113 6.5.2's smallest value, which every peer accepts; larger frames would let one response delay the others.
MAX_FRAME_BYTES = 1 << 14
# h2 starts both windows with RFC 9113 6.9.2's initial value.
INITIAL_WINDOW_BYTES = 65_535
# Pushes that may be under way on a connection: what common servers allow us in requests.
MAX_PUSHES = 100
HIGHEST_STREAM_ID = 2**31 - 1
# Characters of what h2 says about a message: it repeats the whole of a field.
MAX_REASON = 200


def error_name(code: int) -> str:
    """The name of an HTTP/2 error code (RFC 9113 7), for messages."""
    try:
        return h2.errors.ErrorCodes(code).name
    except ValueError:
        return f"error {code}"


class H2Codec:
    """One HTTP/2 connection's client side.

    Owned by the loop thread (L1). A request takes its id, is encoded and stands in the output within one `open` (L6).
    """

    def __init__(self, limits: Limits, *, push: bool = False, upgrade: bytes = b"") -> None:
        """``upgrade``: the method of the request that goes out over HTTP/1.1 and is answered on stream 1, if any."""
        self.failure: HyperpoolError | None = None
        # How many streams the peer allows at a time (RFC 9113 5.1.2). Until its SETTINGS are here this is 1: the first
        # request goes out at once, while a burst waits for the one round trip after which nobody can overrun a limit
        # that was not known yet.
        self.peer_stream_limit = 1
        self.settings_received = False
        self.settings_acknowledged = False
        # Bytes of the peer that wait until `receive` is called again (`FrameGuard.admit`).
        self.held = b""
        self._machine = machine = QuickMachine()
        self._guard = FrameGuard(max_frame_bytes=MAX_FRAME_BYTES, max_block_bytes=limits.max_header_bytes)
        self._log = frame_log()
        codes = h2.settings.SettingCodes
        # Set before the preface is made, so that they stand in the first SETTINGS frame and need no second one.
        machine.local_settings.update(
            {
                codes.ENABLE_PUSH: int(push),
                codes.INITIAL_WINDOW_SIZE: limits.stream_window_bytes,
                codes.MAX_HEADER_LIST_SIZE: limits.max_header_bytes,
            }
        )
        if push:
            machine.local_settings[codes.MAX_CONCURRENT_STREAMS] = MAX_PUSHES
        machine.local_settings.acknowledge()
        machine.decoder.max_header_list_size = limits.max_header_bytes
        machine.max_inbound_frame_size = MAX_FRAME_BYTES
        if upgrade:
            # Opens stream 1 for that request, and gives what HTTP2-Settings carries.
            self.upgrade_settings: bytes = machine.initiate_upgrade_connection() or b""
            machine.streams[1].request_method = upgrade
        else:
            machine.initiate_connection()
        if limits.connection_window_bytes > INITIAL_WINDOW_BYTES:
            machine.increment_flow_control_window(limits.connection_window_bytes - INITIAL_WINDOW_BYTES)

    # -- what we send ----------------------------------------------------------------------------------------------

    def open(self, head: ours.RequestHead, *, end: bool) -> int:
        """Send a request head; the id of its stream (RFC 9113 5.1.1). The caller has seen that a slot is free."""
        self._guard.ask()
        return self._machine.send_request(head_fields_for_h2(head), end=end)

    def send(self, stream_id: int, data: bytes | memoryview, *, end: bool) -> None:
        """Send no more than `send_capacity` bytes, in DATA frames."""
        self._guard.data_frames += self._machine.send_piece(stream_id, data, end=end)

    def trail(self, stream_id: int, fields: ours.Fields) -> None:
        """End a body with trailers (RFC 9113 8.1), which no window bounds."""
        self._machine.send_headers(stream_id, fields, end_stream=True)

    def send_capacity(self, stream_id: int, frames: int = 1) -> int:
        """Bytes that so many DATA frames of this stream may carry now (RFC 9113 6.9.2); 0 or less: none."""
        return self._machine.capacity(stream_id, frames)

    def reset(self, stream_id: int, code: int) -> None:
        """Send RST_STREAM; nothing where the stream is closed already, or the whole connection has failed."""
        if self.failure is not None:
            return  # events from before the error are still acted on; h2 has said its last word by then
        try:
            self._machine.reset_stream(stream_id, code)
        except (h2.exceptions.NoSuchStreamError, h2.exceptions.StreamClosedError):
            return  # both ends were faster; RFC 9113 5.1 has nothing left to say on this stream

    def grant(self, credit_bytes: int, stream_id: int | None = None) -> None:
        """Send WINDOW_UPDATE for a stream, or for the connection; nothing where that is over."""
        if self.failure is not None:
            return
        try:
            self._machine.increment_flow_control_window(credit_bytes, stream_id)
        except (KeyError, h2.exceptions.StreamClosedError):
            return  # the peer has ended the stream: it needs no more credit

    def ping(self, payload: bytes) -> None:
        """Send PING with these 8 bytes (RFC 9113 6.7)."""
        self._machine.ping(payload)
        self._guard.pings += 1

    def go_away(self, code: int) -> None:
        """Send GOAWAY; the connection takes nothing afterwards."""
        self._machine.close_connection(error_code=code)

    def data_to_send(self) -> bytes | bytearray:
        """Everything that waits for the wire."""
        data = self._machine.take_output()
        if self._log is not None:
            self._log.sent(bytes(data))
        return data

    # -- what the peer allows --------------------------------------------------------------------------------------

    @property
    def exhausted(self) -> bool:
        """Whether the stream ids are used up (RFC 9113 5.1.1)."""
        return self._machine.highest_outbound_stream_id + 2 > HIGHEST_STREAM_ID

    # -- what we receive -------------------------------------------------------------------------------------------

    def tick(self, now: float) -> None:
        """Say what time it is, in seconds of a monotonic clock: budgets of frames grow with it."""
        self._guard.now = now

    @property
    def answers(self) -> int:
        """How many answers the peer has made us write (to PING, SETTINGS and PUSH_PROMISE) so far."""
        return self._guard.answers

    @property
    def flooded(self) -> bool:
        """Whether the peer has sent too much of what nobody asked for."""
        return self._guard.error_code == ENHANCE_YOUR_CALM

    def receive(self, data: bytes) -> list[ours.Event]:
        """Events of these bytes, behind those in ``held``, where some of them may stay.

        An error stands in ``failure``, after the events that came before it (L5).
        """
        if self.held:
            data = self.held + data
        admitted = self._guard.admit(data)
        self.held = data[admitted:]
        if self.held:
            data = data[:admitted]
        if self._log is not None:
            self._log.received(data)
        self._feed(data)
        if self.failure is None and self._guard.failure is not None:
            self.failure = self._guard.failure
            self.go_away(self._guard.error_code)
        if self.failure is not None:
            self.held = b""
        heard, self._machine.heard = self._machine.heard, []
        events: list[ours.Event] = []
        for event in heard:
            if event.__class__ in _OURS:
                events.append(event)  # type: ignore[arg-type]
            elif (translate := _TRANSLATE.get(event.__class__)) is not None:
                translate(self, event, events)
        return events

    def hear_each_frame(self) -> None:
        """From now on each DATA frame is an event of its own; else those that come together are one."""
        self._machine.joins_data = False

    def receive_eof(self) -> list[ours.Event]:
        """The peer closed: HTTP/2 needs no event for it, since END_STREAM ends messages (RFC 9113 8.1)."""
        return []

    def _feed(self, data: bytes) -> None:
        try:
            self._machine.receive_data(data)
        except h2.exceptions.ProtocolError as error:
            self.failure = RemoteProtocolError(f"the server broke HTTP/2: {error!r}")
            self.failure.__cause__ = error
        except Exception as error:  # h2 and hpack have leaked ValueError, KeyError and IndexError (h2 issue 1231)
            self.failure = RemoteProtocolError(f"the server sent what h2 cannot read: {error!r}")
            self.failure.__cause__ = error
            self.go_away(PROTOCOL_ERROR)

    def _on_response(self, event: Any, events: list[ours.Event]) -> None:
        try:
            status, fields = _split_status(event.headers)
        except RemoteProtocolError as error:
            events.append(ours.Broken(event.stream_id, error))
        else:
            events.append(ours.Head(event.stream_id, status, fields))

    def _on_interim(self, event: Any, events: list[ours.Event]) -> None:
        try:
            status, fields = _split_status(event.headers)
            if status == 101:
                raise RemoteProtocolError("the server answered 101: HTTP/2 cannot switch protocols (RFC 9113 8.6)")
        except RemoteProtocolError as error:
            events.append(ours.Broken(event.stream_id, error))
        else:
            events.append(ours.Interim(event.stream_id, status, fields))

    def _on_data(self, event: Any, events: list[ours.Event]) -> None:
        events.append(ours.Data(event.stream_id, event.data, event.flow_controlled_length))

    def _on_trailers(self, event: Any, events: list[ours.Event]) -> None:
        events.append(ours.Trailers(event.stream_id, list(event.headers)))

    def _on_end(self, event: Any, events: list[ours.Event]) -> None:
        events.append(ours.End(event.stream_id))

    def _on_reset(self, event: Any, events: list[ours.Event]) -> None:
        code = int(event.error_code)
        if event.remote_reset:
            events.append(ours.Reset(event.stream_id, code))
            return
        # h2 has reset the stream itself: its window was raised past 2**31-1 (RFC 9113 6.9.1), or it had ended already.
        error = RemoteProtocolError(f"the server broke HTTP/2 on this stream: {error_name(code)} (RFC 9113 5.4.2)")
        events.append(ours.Broken(event.stream_id, error))

    def _on_wrong_length(self, event: Any, events: list[ours.Event]) -> None:
        if event.received_bytes < event.declared_bytes:
            of_all = f"{event.received_bytes:,} of the {event.declared_bytes:,} bytes that the server had declared"
            message = f"the response ended after {of_all}"
        else:
            message = f"the server sent more than the {event.declared_bytes:,} bytes of a body that the head allows"
        events.append(ours.Broken(event.stream_id, RemoteProtocolError(f"{message} (RFC 9113 8.1.1)")))

    def _on_malformed(self, event: Any, events: list[ours.Event]) -> None:
        message = f"the server sent a malformed message: {event.reason[:MAX_REASON]} (RFC 9113 8.1.1)"
        events.append(ours.Broken(event.stream_id, RemoteProtocolError(message)))

    def _on_goaway(self, event: Any, events: list[ours.Event]) -> None:
        events.append(ours.GoAway(event.last_stream_id, int(event.error_code), event.additional_data or b""))

    def _on_settings(self, event: Any, events: list[ours.Event]) -> None:
        self.settings_received = True
        self.peer_stream_limit = self._machine.remote_settings.max_concurrent_streams
        events.append(ours.PeerSettings())

    def _on_settings_acknowledged(self, event: Any, events: list[ours.Event]) -> None:
        self.settings_acknowledged = True

    def _on_window(self, event: Any, events: list[ours.Event]) -> None:
        events.append(ours.WindowOpened(event.stream_id))

    def _on_promise(self, event: Any, events: list[ours.Event]) -> None:
        events.append(ours.Promise(event.parent_stream_id, event.pushed_stream_id, list(event.headers)))

    def _on_pong(self, event: Any, events: list[ours.Event]) -> None:
        events.append(ours.Pong(event.ping_data))


def _split_status(fields: list[tuple[bytes, bytes]]) -> tuple[int, ours.Fields]:
    # h2 has seen that :status is there, alone and before the fields (RFC 9113 8.3.2).
    return parse_status(fields[0][1]), [(name, value) for name, value in fields[1:]]


# What the machine says in our words already.
_OURS = frozenset((ours.Head, ours.Data, ours.LateData, ours.End))

_TRANSLATE: dict[type, Callable[[H2Codec, Any, list[ours.Event]], None]] = {
    h2.events.ResponseReceived: H2Codec._on_response,
    h2.events.InformationalResponseReceived: H2Codec._on_interim,
    h2.events.DataReceived: H2Codec._on_data,
    h2.events.TrailersReceived: H2Codec._on_trailers,
    h2.events.StreamEnded: H2Codec._on_end,
    WrongLength: H2Codec._on_wrong_length,
    Malformed: H2Codec._on_malformed,
    h2.events.StreamReset: H2Codec._on_reset,
    h2.events.ConnectionTerminated: H2Codec._on_goaway,
    h2.events.RemoteSettingsChanged: H2Codec._on_settings,
    h2.events.SettingsAcknowledged: H2Codec._on_settings_acknowledged,
    h2.events.WindowUpdated: H2Codec._on_window,
    h2.events.PingAckReceived: H2Codec._on_pong,
    h2.events.PushedStreamReceived: H2Codec._on_promise,
}
