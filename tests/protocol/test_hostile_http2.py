"""What servers may not send over HTTP/2, form by form: each named by its row in the table of faults and by its section.

Bytes against `H2Codec`. Each form is given whole and byte by byte, and the outcome must be the same: the code of the
GOAWAY or RST_STREAM that goes out is looked at on the wire. Nothing of a malformed message may reach the caller.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import h2.settings
import hpack
import pytest

from hyperpool.errors import RemoteProtocolError
from hyperpool.protocol import events
from hyperpool.protocol.events import RequestHead
from hyperpool.protocol.frame_guard import MAX_CONTINUATIONS, MAX_SETTINGS
from hyperpool.protocol.h2_codec import CANCEL, H2Codec
from hyperpool.values import Limits

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
UNKNOWN = 0xFA
END_STREAM = ACK = 1
END_HEADERS, PADDED, WITH_PRIORITY = 4, 8, 32
PROTOCOL_ERROR, FLOW_CONTROL_ERROR, STREAM_CLOSED, FRAME_SIZE_ERROR, COMPRESSION_ERROR, CALM = 1, 3, 5, 6, 9, 11

# The streams of a `session`. The last is one that nobody has opened.
ASKED, UPLOADING, DONE, RESET, IDLE = 1, 3, 5, 7, 99
OK = [(":status", "200")]
HEAD = RequestHead(b"GET", b"https", b"a.test", b"/", ())


def frame(kind: int, stream_id: int = 0, body: bytes = b"", *, flags: int = 0, size: int | None = None) -> bytes:
    """A frame (RFC 9113 4.1); ``size`` where its head does not tell the truth."""
    length = len(body) if size is None else size
    return length.to_bytes(3, "big") + bytes([kind, flags]) + stream_id.to_bytes(4, "big") + body


def block(fields: list[tuple[str, str]]) -> bytes:
    """A header block that refers to nothing, whatever its fields say."""
    return b"".join(
        b"\0" + bytes([len(name.encode())]) + name.encode() + number(len(value), 7) + value.encode("latin-1")
        for name, value in fields
    )


def number(value: int, prefix_bits: int) -> bytes:
    """RFC 7541 5.1."""
    full = (1 << prefix_bits) - 1
    if value < full:
        return bytes([value])
    out, value = [full], value - full
    while value >= 128:
        out.append(value % 128 | 128)
        value //= 128
    return bytes([*out, value])


def head(fields: list[tuple[str, str]], stream_id: int = ASKED, *, flags: int = END_HEADERS) -> bytes:
    return frame(HEADERS, stream_id, block(fields), flags=flags)


def setting(code: int, value: int) -> bytes:
    return code.to_bytes(2, "big") + value.to_bytes(4, "big")


def u32(value: int) -> bytes:
    return value.to_bytes(4, "big")


def goaway(last: int, code: int = 0, debug: bytes = b"") -> bytes:
    return frame(GOAWAY, 0, u32(last) + u32(code) + debug)


GREETING = frame(SETTINGS) + frame(SETTINGS, flags=ACK)
GOOD_ANSWER = head(OK) + frame(DATA, ASKED, b"abc", flags=END_STREAM)
ALL_OF_IT = [events.Head(ASKED, 200, []), events.Data(ASKED, b"abc", 3), events.End(ASKED)]


def session(limits: Limits | None = None, *, push: bool = False) -> H2Codec:
    """A codec with one stream of each kind, whose peer has behaved so far."""
    codec = H2Codec(limits or Limits(), push=push)
    for stream_id in (ASKED, UPLOADING, DONE, RESET):
        assert codec.open(HEAD, end=stream_id != UPLOADING) == stream_id
    codec.receive(GREETING + head(OK, DONE, flags=END_HEADERS | END_STREAM))
    codec.reset(RESET, CANCEL)
    assert codec.failure is None
    codec.data_to_send()
    return codec


def fresh() -> H2Codec:
    """A codec that has heard nothing."""
    codec = H2Codec(Limits())
    codec.open(HEAD, end=True)
    codec.data_to_send()
    return codec


def frames_of(wire: bytes) -> list[tuple[int, int, bytes]]:
    found = []
    while wire:
        size = int.from_bytes(wire[:3], "big")
        found.append((wire[3], int.from_bytes(wire[5:9], "big"), wire[9 : 9 + size]))
        wire = wire[9 + size :]
    return found


def goaway_code(said: bytes) -> int | None:
    return next((int.from_bytes(body[4:8], "big") for kind, _, body in frames_of(said) if kind == GOAWAY), None)


def resets(said: bytes) -> list[tuple[int, int]]:
    return [(stream, int.from_bytes(body, "big")) for kind, stream, body in frames_of(said) if kind == RST_STREAM]


def plain(heard: list[events.Event]) -> list[Any]:
    """What concerns somebody; errors by their words."""
    theirs = [event for event in heard if not isinstance(event, events.LateData)]
    return [(event.stream_id, str(event.error)) if isinstance(event, events.Broken) else event for event in theirs]


def outcome(codec: H2Codec, wire: bytes, *, by_bytes: bool = False) -> tuple[list[Any], str, bytes]:
    """What is heard, the words of the failure, and what goes out."""
    heard: list[events.Event] = []
    step = 1 if by_bytes else max(1, len(wire))
    for at in range(0, len(wire), step):
        if codec.failure is None:
            heard += codec.receive(wire[at : at + step])
    assert codec.failure is None or type(codec.failure) is RemoteProtocolError
    return plain(heard), str(codec.failure), codec.data_to_send()


# -- connection errors -------------------------------------------------------------------------------------------------

FIRST = {
    "PING": frame(PING, 0, bytes(8)),
    "HEADERS": head(OK),
    "DATA": frame(DATA, 1, b"x"),
    "PRIORITY": frame(PRIORITY, 1, bytes(5)),
    "RST_STREAM": frame(RST_STREAM, 1, u32(0)),
    "GOAWAY": goaway(0),
    "WINDOW_UPDATE": frame(WINDOW_UPDATE, 0, u32(1)),
    "an unknown frame": frame(UNKNOWN, 0, b"x"),
    "an acknowledgement": frame(SETTINGS, flags=ACK),
    "text": b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "text of another kind": b"SSH-2.0-OpenSSH_9.2\r\n",
    "a TLS alert": b"\x15\x03\x01\x00\x02\x02\x46\x00\x00\x00",
}
KINDS = {
    "DATA": DATA,
    "HEADERS": HEADERS,
    "PRIORITY": PRIORITY,
    "RST_STREAM": RST_STREAM,
    "SETTINGS": SETTINGS,
    "PUSH_PROMISE": PUSH_PROMISE,
    "PING": PING,
    "GOAWAY": GOAWAY,
    "WINDOW_UPDATE": WINDOW_UPDATE,
    "CONTINUATION": CONTINUATION,
    "an unknown frame": UNKNOWN,
}
BAD_SIZES = {SETTINGS: (1, 5, 7), PING: (0, 7, 9), RST_STREAM: (0, 3, 5), WINDOW_UPDATE: (0, 3, 5), GOAWAY: (0, 7)}
NAMES = {kind: name for name, kind in KINDS.items()}
ON_A_STREAM = {SETTINGS, PING, GOAWAY}
GOOD_BODIES = {PING: bytes(8), GOAWAY: bytes(8), RST_STREAM: u32(8), PRIORITY: b"\0\0\0\x03\1"}

CONNECTION_ERRORS: dict[str, tuple[bytes, int]] = {
    **{
        f"F2 4.2 {name} of 16,385 bytes": (frame(kind, ASKED, size=16_385), FRAME_SIZE_ERROR)
        for name, kind in KINDS.items()
    },
    "F2 4.2 a frame of 16 MiB": (frame(DATA, ASKED, size=(1 << 24) - 1), FRAME_SIZE_ERROR),
    **{
        f"F3 6 {NAMES[kind]} of {size} bytes": (
            frame(kind, ASKED if kind in (RST_STREAM, WINDOW_UPDATE) else 0, bytes(size)),
            FRAME_SIZE_ERROR,
        )
        for kind, sizes in BAD_SIZES.items()
        for size in sizes
    },
    **{
        f"F4 6 {NAMES[kind]} on a stream": (frame(kind, ASKED, GOOD_BODIES.get(kind, b"")), PROTOCOL_ERROR)
        for kind in ON_A_STREAM
    },
    **{
        f"F4 6 {NAMES[kind]} on no stream": (
            frame(kind, 0, GOOD_BODIES.get(kind, block(OK)), flags=END_HEADERS),
            PROTOCOL_ERROR,
        )
        for kind in (DATA, HEADERS, PRIORITY, RST_STREAM, PUSH_PROMISE, CONTINUATION)
    },
    "F5 6.1 DATA that is shorter than its padding": (
        frame(DATA, ASKED, b"\x09abc", flags=PADDED),
        PROTOCOL_ERROR,
    ),
    "F5 6.1 DATA of just its padding's length": (frame(DATA, ASKED, b"\x04abc", flags=PADDED), PROTOCOL_ERROR),
    "F5 6.2 HEADERS that are shorter than their padding": (
        frame(HEADERS, ASKED, b"\xff\x88", flags=END_HEADERS | PADDED),
        PROTOCOL_ERROR,
    ),
    "F6 5.1 DATA on an idle stream": (frame(DATA, IDLE, b"x"), PROTOCOL_ERROR),
    "F6 5.1 DATA on an even idle stream": (frame(DATA, 2, b"x"), PROTOCOL_ERROR),
    "F6 5.1 the end of an idle stream": (frame(DATA, IDLE, flags=END_STREAM), PROTOCOL_ERROR),
    "F6 5.1 the end of an even idle stream": (frame(DATA, 2, flags=END_STREAM), PROTOCOL_ERROR),
    "F6 6.4 RST_STREAM on an idle stream": (frame(RST_STREAM, IDLE, u32(8)), PROTOCOL_ERROR),
    "F6 6.4 RST_STREAM on an even idle stream": (frame(RST_STREAM, 2, u32(8)), PROTOCOL_ERROR),
    "F6 5.1 WINDOW_UPDATE on an idle stream": (frame(WINDOW_UPDATE, IDLE, u32(1)), PROTOCOL_ERROR),
    "F6 5.1 WINDOW_UPDATE on an even idle stream": (frame(WINDOW_UPDATE, 2, u32(1)), PROTOCOL_ERROR),
    "F7 5.1 DATA behind the end": (frame(DATA, DONE, b"x"), STREAM_CLOSED),
    "F7 5.1 HEADERS behind the end": (head(OK, DONE), STREAM_CLOSED),
    "F7 5.1 DATA behind the end in the same read": (GOOD_ANSWER + frame(DATA, ASKED, b"x"), STREAM_CLOSED),
    "F9 5.1.1 HEADERS on an even stream": (head(OK, 2), PROTOCOL_ERROR),
    "F9 5.1.1 HEADERS on an odd stream that is idle": (head(OK, IDLE), PROTOCOL_ERROR),
    "F10 6.10 CONTINUATION of nothing": (frame(CONTINUATION, ASKED, block(OK), flags=END_HEADERS), PROTOCOL_ERROR),
    "F10 6.10 CONTINUATION of a block that has ended": (
        head(OK) + frame(CONTINUATION, ASKED, block(OK), flags=END_HEADERS),
        PROTOCOL_ERROR,
    ),
    "F10 6.2 PING inside a block": (head(OK, flags=0) + frame(PING, 0, bytes(8)), PROTOCOL_ERROR),
    "F10 6.2 DATA inside a block": (head(OK, flags=0) + frame(DATA, ASKED, b"x"), PROTOCOL_ERROR),
    "F10 6.2 an unknown frame inside a block": (head(OK, flags=0) + frame(UNKNOWN, ASKED), PROTOCOL_ERROR),
    "F10 6.2 another head inside a block": (head(OK, flags=0) + head(OK, UPLOADING), PROTOCOL_ERROR),
    "F10 6.10 CONTINUATION of another stream": (
        head(OK, flags=0) + frame(CONTINUATION, UPLOADING, b"", flags=END_HEADERS),
        PROTOCOL_ERROR,
    ),
    "F11 6.9 no increment for the connection": (frame(WINDOW_UPDATE, 0, u32(0)), PROTOCOL_ERROR),
    "F11 6.9 no increment for a stream": (frame(WINDOW_UPDATE, UPLOADING, u32(0)), PROTOCOL_ERROR),
    "F12 6.9.1 the connection's window over 2**31-1": (
        frame(WINDOW_UPDATE, 0, u32(2**31 - 1)),
        FLOW_CONTROL_ERROR,
    ),
    "F14 6.5.2 windows of 2**31": (frame(SETTINGS, 0, setting(4, 2**31)), FLOW_CONTROL_ERROR),
    "F14 6.5.2 windows of 2**32-1": (frame(SETTINGS, 0, setting(4, 2**32 - 1)), FLOW_CONTROL_ERROR),
    "F15 6.5.2 frames of nothing": (frame(SETTINGS, 0, setting(5, 0)), PROTOCOL_ERROR),
    "F15 6.5.2 frames of 16,383": (frame(SETTINGS, 0, setting(5, 16_383)), PROTOCOL_ERROR),
    "F15 6.5.2 frames of 16 MiB": (frame(SETTINGS, 0, setting(5, 1 << 24)), PROTOCOL_ERROR),
    "F16 6.5.2 a server that enables push": (frame(SETTINGS, 0, setting(2, 1)), PROTOCOL_ERROR),
    "F16 6.5.2 a push setting of 2": (frame(SETTINGS, 0, setting(2, 2)), PROTOCOL_ERROR),
    "F17 6.5 an acknowledgement with settings in it": (
        frame(SETTINGS, 0, setting(4, 100), flags=ACK),
        FRAME_SIZE_ERROR,
    ),
    "F17 6.5.3 acknowledgements of nothing": (frame(SETTINGS, flags=ACK) * 20, CALM),
    "F21 8.4 a push without leave": (
        frame(PUSH_PROMISE, ASKED, u32(2) + block([(":method", "GET")]), flags=END_HEADERS),
        PROTOCOL_ERROR,
    ),
    "A4 10.5 hundreds of settings in a frame": (frame(SETTINGS, 0, setting(9, 1) * (MAX_SETTINGS + 1)), CALM),
    "A11 RFC 7541 6.1 index 0": (frame(HEADERS, ASKED, b"\x80", flags=END_HEADERS), COMPRESSION_ERROR),
    "A11 RFC 7541 2.3.3 an index past the table": (
        frame(HEADERS, ASKED, b"\xc8", flags=END_HEADERS),
        COMPRESSION_ERROR,
    ),
    "A11 RFC 7541 2.3.3 a name past the table": (
        frame(HEADERS, ASKED, b"\x7f\x20\x01x", flags=END_HEADERS),
        COMPRESSION_ERROR,
    ),
    "A11 RFC 7541 5.1 an integer without an end": (
        frame(HEADERS, ASKED, b"\xff" * 16_000, flags=END_HEADERS),
        COMPRESSION_ERROR,
    ),
    "A11 RFC 7541 5.2 Huffman padding of more than seven bits": (
        frame(HEADERS, ASKED, b"\x88\x00\x01x\x82\xff\xff", flags=END_HEADERS),
        COMPRESSION_ERROR,
    ),
    "A11 RFC 7541 5.2 Huffman padding of zeros": (
        frame(HEADERS, ASKED, b"\x88\x00\x01x\x81\x00", flags=END_HEADERS),
        COMPRESSION_ERROR,
    ),
    "A11 RFC 7541 5.2 a string that is cut short": (
        frame(HEADERS, ASKED, b"\x88\x00\x01x\x05ab", flags=END_HEADERS),
        COMPRESSION_ERROR,
    ),
    "A11 RFC 7541 6.3 a table larger than was allowed": (
        frame(HEADERS, ASKED, b"\x3f\xe2\x1f\x88", flags=END_HEADERS),
        COMPRESSION_ERROR,
    ),
    "A11 RFC 7541 4.2 a table update behind a field": (
        frame(HEADERS, ASKED, b"\x88\x20", flags=END_HEADERS),
        COMPRESSION_ERROR,
    ),
    "A11 RFC 9113 4.3 a bad block on a stream that is over": (
        frame(HEADERS, RESET, b"\x80", flags=END_HEADERS),
        COMPRESSION_ERROR,
    ),
}


@pytest.mark.parametrize("form", FIRST)
@pytest.mark.parametrize("by_bytes", [False, True])
def test_a_server_begins_with_settings(form: str, by_bytes: bool) -> None:
    """F1; RFC 9113 3.4."""
    heard, failure, said = outcome(fresh(), FIRST[form], by_bytes=by_bytes)
    assert (heard, goaway_code(said)) == ([], PROTOCOL_ERROR if len(FIRST[form]) > 0 and "16," not in failure else 6)
    assert failure != "None"


@pytest.mark.parametrize("form", CONNECTION_ERRORS)
@pytest.mark.parametrize("by_bytes", [False, True])
def test_what_breaks_the_connection_is_told_to_the_server(form: str, by_bytes: bool) -> None:
    wire, code = CONNECTION_ERRORS[form]
    heard, failure, said = outcome(session(), wire, by_bytes=by_bytes)
    assert failure != "None"
    assert goaway_code(said) == code
    assert len(failure) < 400
    # A whole answer that stood before it counts (F7 in the same read).
    assert not any(isinstance(event, events.End) for event in heard) or wire.startswith(GOOD_ANSWER)


@pytest.mark.parametrize("form", CONNECTION_ERRORS)
def test_an_answer_before_it_in_the_same_read_is_heard(form: str) -> None:
    """L5."""
    wire, _ = CONNECTION_ERRORS[form]
    wire = wire.removeprefix(GOOD_ANSWER)
    heard, failure, _ = outcome(session(), GOOD_ANSWER + wire)
    assert (heard[:3], failure != "None") == (ALL_OF_IT, True)


# -- what is to be borne -----------------------------------------------------------------------------------------------

BORNE: dict[str, bytes] = {
    "F3 6.3 PRIORITY of 5 bytes": frame(PRIORITY, ASKED, b"\0\0\0\x03\1"),
    "F7 6.9 WINDOW_UPDATE behind the end": frame(WINDOW_UPDATE, DONE, u32(10)),
    "F7 5.1 RST_STREAM behind the end": frame(RST_STREAM, DONE, u32(0)),
    "F7 5.1 a second end": frame(DATA, DONE, flags=END_STREAM) * 2,
    "F7 5.1 DATA of nothing behind the end": frame(DATA, DONE),
    "F7 6.3 PRIORITY behind the end": frame(PRIORITY, DONE, b"\0\0\0\x03\1"),
    "F8 5.1 HEADERS on a stream that we have reset": head(OK, RESET),
    "F8 5.1 an interim head on a stream that we have reset": head([(":status", "103")], RESET) * 2,
    "F8 5.1 a malformed head on a stream that we have reset": head([("X", " 1")], RESET),
    "F8 5.1 trailers on a stream that we have reset": head(OK, RESET) + head([("x", "1")], RESET, flags=5),
    "F8 5.1 DATA on a stream that we have reset": head(OK, RESET) + frame(DATA, RESET, b"abc") * 3,
    "F8 5.1 a whole answer on a stream that we have reset": head(OK, RESET) + frame(DATA, RESET, b"abc", flags=1),
    "F8 5.1 WINDOW_UPDATE on a stream that we have reset": frame(WINDOW_UPDATE, RESET, u32(10)),
    "F8 5.1 RST_STREAM on a stream that we have reset": frame(RST_STREAM, RESET, u32(8)),
    "F17 6.5.3 an acknowledgement too many": frame(SETTINGS, flags=ACK) * 3,
    "F19 5.5 an unknown frame": frame(UNKNOWN, ASKED, b"abc") + frame(0xB, 0, b"x" * 100),
    "F19 5.5 an unknown frame on an idle stream": frame(UNKNOWN, IDLE, b"abc"),
    "F19 6.5.2 an unknown setting": frame(SETTINGS, 0, setting(0x1A1A, 7)),
    "F19 4.1 undefined flags": frame(PING, 0, bytes(8), flags=0xF0),
    "F19 4.1 a reserved bit": frame(PING, 1 << 31, bytes(8)),
    "F19 6.9 a reserved bit before an increment": frame(WINDOW_UPDATE, 0, u32(1 << 31 | 1))
    + frame(WINDOW_UPDATE, UPLOADING, u32(1 << 31 | 1)),
    "F19 RFC 7838 ALTSVC": frame(0xA, 0, b'\0\x06a.testh2=":443"'),
    "F19 5.5 an empty ALTSVC": frame(0xA, 0),
    "F19 5.5 an ALTSVC of one byte on a stream": frame(0xA, ASKED, b"\1"),
    "F19 5.5 an ALTSVC that is shorter than it says": frame(0xA, 0, b"\0\xffa"),
    "F19 RFC 8336 ORIGIN": frame(0xC, 0, b"\0\x0ehttps://b.test"),
    "F20 6.7 a PING that nobody has sent is acknowledged": frame(PING, 0, b"12345678", flags=ACK),
    "A1 6.10 a block in the most pieces": b"".join(
        [
            frame(HEADERS, RESET, b"\x88"),
            *[frame(CONTINUATION, RESET)] * (MAX_CONTINUATIONS - 1),
            frame(CONTINUATION, RESET, flags=END_HEADERS),
        ]
    ),
    "6.5 the largest SETTINGS": frame(SETTINGS, 0, setting(9, 1) * MAX_SETTINGS),
    "6.2 HEADERS with priority and padding": frame(
        HEADERS, RESET, b"\x03\0\0\0\x05\x10\x88abc", flags=END_HEADERS | PADDED | WITH_PRIORITY
    ),
}


@pytest.mark.parametrize("form", BORNE)
@pytest.mark.parametrize("by_bytes", [False, True])
def test_what_is_harmless_is_borne_in_silence(form: str, by_bytes: bool) -> None:
    codec = session()
    heard, failure, said = outcome(codec, BORNE[form], by_bytes=by_bytes)
    assert failure == "None"
    assert (goaway_code(said), resets(said)) == (None, [])
    spoken = (tuple, events.Head, events.Data, events.End, events.Reset)
    assert not [event for event in heard if isinstance(event, spoken)]
    assert outcome(codec, GOOD_ANSWER, by_bytes=by_bytes)[0] == ALL_OF_IT


def test_priority_of_a_wrong_size_breaks_its_stream_or_the_connection() -> None:
    """F3; RFC 9113 6.3 asks for the stream, and 5.4.1 lets it be the connection."""
    for size in (0, 4, 6):
        _, failure, said = outcome(session(), frame(PRIORITY, ASKED, bytes(size)))
        assert (failure != "None", goaway_code(said)) == (True, FRAME_SIZE_ERROR)


def test_a_streams_window_over_the_top_breaks_the_stream_alone() -> None:
    """F12; RFC 9113 6.9.1."""
    codec = session()
    heard, failure, said = outcome(codec, frame(WINDOW_UPDATE, UPLOADING, u32(2**31 - 1)))
    assert (failure, [stream for stream, _ in heard]) == ("None", [UPLOADING])
    assert resets(said) == [(UPLOADING, FLOW_CONTROL_ERROR)]
    assert outcome(codec, GOOD_ANSWER)[0] == ALL_OF_IT


def test_settings_that_lift_a_streams_window_over_the_top_break_the_connection() -> None:
    """F12; RFC 9113 6.9.2."""
    codec = session()
    wire = frame(WINDOW_UPDATE, UPLOADING, u32(2**31 - 1 - 65_535)) + frame(SETTINGS, 0, setting(4, 65_536))
    _, failure, said = outcome(codec, wire)
    assert (failure != "None", goaway_code(said)) == (True, FLOW_CONTROL_ERROR)


@pytest.mark.parametrize(("stream_bytes", "connection_bytes"), [(65_535, 1 << 20), (1 << 20, 65_535)])
def test_more_than_a_window_breaks_the_connection(stream_bytes: int, connection_bytes: int) -> None:
    """F13; RFC 9113 6.9."""
    codec = session(Limits(stream_window_bytes=stream_bytes, connection_window_bytes=connection_bytes))
    wire = head(OK) + frame(DATA, ASKED, bytes(16_384)) * 3 + frame(DATA, ASKED, bytes(16_383))
    assert outcome(codec, wire)[1] == "None"
    _, failure, said = outcome(codec, frame(DATA, ASKED, b"x"))
    assert (failure != "None", goaway_code(said)) == (True, FLOW_CONTROL_ERROR)


def test_data_of_a_stream_that_we_have_reset_costs_the_connection_nothing_for_good() -> None:
    """F8; RFC 9113 5.1: it counts, and it comes back."""
    codec = session(Limits(connection_window_bytes=65_535))
    wire = head(OK, RESET) + frame(DATA, RESET, bytes(16_000)) * 4
    for _ in range(20):
        heard = codec.receive(wire)
        assert (heard, codec.failure) == ([events.LateData(16_000)] * 4, None)
        for event in heard:
            codec.grant(event.flow_bytes)
    assert outcome(codec, GOOD_ANSWER)[0] == ALL_OF_IT


# -- messages ----------------------------------------------------------------------------------------------------------

MALFORMED_HEADS: dict[str, list[tuple[str, str]]] = {
    "M1 8.3.2 no status": [("x", "1")],
    "M1 8.3.2 no field at all": [],
    "M1 8.3.2 two statuses": [*OK, *OK],
    "M1 8.3 a request's pseudo-header": [*OK, (":path", "/")],
    "M1 8.3 an unknown pseudo-header": [*OK, (":color", "red")],
    "M1 8.3 a pseudo-header behind a field": [("x", "1"), *OK],
    "M1 8.3 a second status behind a field": [*OK, ("x", "1"), *OK],
    "M2 9110 15 a status that is no number": [(":status", "2x0")],
    "M2 9110 15 a status of four digits": [(":status", "2000")],
    "M2 9110 15 a status of two digits": [(":status", "20")],
    "M2 9110 15 an empty status": [(":status", "")],
    "M2 9110 15 a status with a sign": [(":status", "+20")],
    "M2 9110 15 a status with a reason": [(":status", "200 OK")],
    "M2 9110 15 a status below 100": [(":status", "099")],
    "M3 8.6 101": [(":status", "101")],
    "M4 8.2 an uppercase name": [*OK, ("X", "1")],
    "M4 8.2.1 a space in a name": [*OK, ("a b", "1")],
    "M4 8.2.1 a colon in a name": [*OK, ("a:b", "1")],
    "M4 8.2.1 an empty name": [*OK, ("", "1")],
    "M4 8.2.1 a control character in a name": [*OK, ("a\x01", "1")],
    "M4 8.2.1 a name that is not ASCII": [*OK, ("\xe9", "1")],
    "M4 8.2.1 CR in a value": [*OK, ("x", "1\r2")],
    "M4 8.2.1 LF in a value": [*OK, ("x", "1\n2")],
    "M4 8.2.1 a response in a value": [*OK, ("x", "1\r\n\r\nHTTP/1.1 200 OK")],
    "M4 8.2.1 NUL in a value": [*OK, ("x", "\0")],
    "M4 8.2.1 a blank before a value": [*OK, ("x", " 1")],
    "M4 8.2.1 a blank behind a value": [*OK, ("x", "1 ")],
    "M4 8.2.1 a tab behind a value": [*OK, ("x", "1\t")],
    "M5 8.2.2 connection": [*OK, ("connection", "close")],
    "M5 8.2.2 transfer-encoding": [*OK, ("transfer-encoding", "chunked")],
    "M5 8.2.2 keep-alive": [*OK, ("keep-alive", "timeout=5")],
    "M5 8.2.2 upgrade": [*OK, ("upgrade", "h2c")],
    "M5 8.2.2 proxy-connection": [*OK, ("proxy-connection", "close")],
    "M6 9110 8.6 a length that is no number": [*OK, ("content-length", "3x")],
    "M6 9110 8.6 a length below zero": [*OK, ("content-length", "-3")],
    "M6 9110 8.6 a length with a plus sign": [*OK, ("content-length", "+3")],
    "M6 9110 8.6 an empty length": [*OK, ("content-length", "")],
    "M6 9110 8.6 two lengths": [*OK, ("content-length", "3"), ("content-length", "4")],
}


@pytest.mark.parametrize("form", MALFORMED_HEADS)
@pytest.mark.parametrize("by_bytes", [False, True])
@pytest.mark.parametrize("end", [False, True])
def test_a_malformed_head_breaks_its_stream_alone(form: str, by_bytes: bool, end: bool) -> None:
    """RFC 9113 8.1.1. Nothing of it reaches the caller, and what others have asked for is answered."""
    flags = END_HEADERS | (END_STREAM if end else 0)
    wire = frame(HEADERS, UPLOADING, block(MALFORMED_HEADS[form]), flags=flags)
    heard, failure, _ = outcome(session(), wire + GOOD_ANSWER, by_bytes=by_bytes)
    assert failure == "None"
    assert [event[0] for event in heard if isinstance(event, tuple)] == [UPLOADING]
    told = [event for event in heard if not isinstance(event, (tuple, events.End))]
    assert [*told, heard[-1]] == ALL_OF_IT


@pytest.mark.parametrize("form", [form for form in MALFORMED_HEADS if not form.startswith(("M2", "M3"))])
def test_what_follows_a_malformed_head_is_ignored_and_its_stream_reset_once(form: str) -> None:
    """RFC 9113 5.1, 5.4.2."""
    late = head(OK, UPLOADING) + frame(DATA, UPLOADING, b"abc") + head([("x", "1")], UPLOADING, flags=5)
    late += frame(WINDOW_UPDATE, UPLOADING, u32(9)) + frame(RST_STREAM, UPLOADING, u32(8))
    codec = session(push=True)
    wire = frame(HEADERS, UPLOADING, block(MALFORMED_HEADS[form]), flags=END_HEADERS)
    heard, failure, said = outcome(codec, wire + late + GOOD_ANSWER)
    assert (heard[1:], failure, resets(said)) == (ALL_OF_IT, "None", [(UPLOADING, PROTOCOL_ERROR)])
    codec.reset(UPLOADING, CANCEL)  # as its owner does
    assert codec.data_to_send() == b""


def test_a_push_on_a_stream_that_was_malformed_is_refused() -> None:
    """F8, F21: the server had not heard of the reset yet."""
    promise = block([(":method", "GET"), (":scheme", "https"), (":authority", "a.test"), (":path", "/p")])
    wire = head([*OK, ("X", "1")]) + frame(PUSH_PROMISE, ASKED, u32(2) + promise, flags=END_HEADERS)
    _, failure, said = outcome(session(push=True), wire)
    assert (failure, resets(said)) == ("None", [(ASKED, PROTOCOL_ERROR), (2, 7)])


def test_data_that_comes_before_a_head_counts_in_the_connections_window() -> None:
    """RFC 9113 6.9: it breaks its stream, and its bytes are given back like others."""
    heard, failure, said = outcome(session(), frame(DATA, ASKED, b"abc"))
    assert (heard[0], heard[1][0], failure) == (events.Data(ASKED, b"", 3), ASKED, "None")
    assert resets(said) == [(ASKED, PROTOCOL_ERROR)]


MALFORMED_BODIES: dict[str, bytes] = {
    "M6 8.1.1 less than the length": head([*OK, ("content-length", "5")]) + frame(DATA, ASKED, b"abc", flags=1),
    "M6 8.1.1 more than the length": head([*OK, ("content-length", "2")]) + frame(DATA, ASKED, b"abc", flags=1),
    "M6 8.1.1 a length and no body": head([*OK, ("content-length", "2")], flags=END_HEADERS | END_STREAM),
    "M6 8.1.1 less than the length, then trailers": head([*OK, ("content-length", "5")])
    + frame(DATA, ASKED, b"abc")
    + head([("x", "1")], flags=END_HEADERS | END_STREAM),
    "M7 8.1 a pseudo-header in trailers": head(OK) + head(OK, flags=END_HEADERS | END_STREAM),
    "M7 8.1 trailers without an end": head(OK) + head([("x", "1")]),
    "M7 8.1 a head behind the head": head(OK) + head(OK),
    "M7 8.1 DATA before the head": frame(DATA, ASKED, b"abc"),
    "M7 8.1 DATA behind trailers": head(OK) + head([("x", "1")], flags=5) + frame(DATA, ASKED, b"abc"),
    "M7 8.1 trailers behind trailers": head(OK) + head([("x", "1")], flags=5) + head([("x", "1")], flags=5),
    "M7 8.2 an uppercase name in trailers": head(OK) + head([("X", "1")], flags=5),
    "M7 8.2.2 connection in trailers": head(OK) + head([("connection", "close")], flags=5),
    "M8 8.1 an interim head that ends": head([(":status", "103")], flags=5),
    "M8 8.1 DATA behind an interim head": head([(":status", "103")]) + frame(DATA, ASKED, b"abc"),
    "M8 8.1 an interim head behind the head": head(OK) + head([(":status", "103")]),
    "M8 8.6 101 behind an interim head": head([(":status", "103")]) + head([(":status", "101")]),
}


@pytest.mark.parametrize("form", MALFORMED_BODIES)
@pytest.mark.parametrize("by_bytes", [False, True])
def test_a_malformed_message_has_no_good_end(form: str, by_bytes: bool) -> None:
    heard, failure, said = outcome(session(), MALFORMED_BODIES[form], by_bytes=by_bytes)
    broken = [event for event in heard if isinstance(event, tuple)]
    if "behind trailers" in form:  # of a message that has ended well (RFC 9113 5.1)
        assert goaway_code(said) == STREAM_CLOSED
    else:
        assert ([each[0] for each in broken], failure) == ([ASKED], "None")
    ends = [event for event in heard if isinstance(event, events.End)]
    assert not ends or "behind trailers" in form


@pytest.mark.parametrize(
    "fields",
    [
        [*OK, ("content-length", "3"), ("content-length", "3")],
        [*OK, ("te", "trailers")],
        [*OK, ("x", "")],
        [*OK, ("x", "a \t b\xe9")],
        [*OK, ("set-cookie", "a=b"), ("set-cookie", "c=d")],
    ],
)
def test_odd_but_good_heads_pass(fields: list[tuple[str, str]]) -> None:
    heard, failure, _ = outcome(session(), head(fields) + frame(DATA, ASKED, b"abc", flags=END_STREAM))
    assert (type(heard[0]), heard[-1], failure) == (events.Head, events.End(ASKED), "None")


# How a message ends that has no content: none of these is any.
ENDS: dict[str, bytes] = {
    "empty DATA": frame(DATA, ASKED, flags=END_STREAM),
    "padding alone": frame(DATA, ASKED, b"\x03\0\0\0", flags=END_STREAM | PADDED),
    "empty DATA, then empty DATA": frame(DATA, ASKED) + frame(DATA, ASKED, flags=END_STREAM),
    "trailers": head([("x", "1")], flags=END_HEADERS | END_STREAM),
}
NO_CONTENT = pytest.mark.parametrize("status", ["204", "304"])


@NO_CONTENT
def test_a_response_that_has_no_content_may_declare_some(status: str) -> None:
    """RFC 9113 8.1.1, RFC 9110 8.6."""
    wire = head([(":status", status), ("content-length", "5")], flags=END_HEADERS | END_STREAM)
    heard, failure, _ = outcome(session(), wire)
    assert (heard[0].status, heard[1], failure) == (int(status), events.End(ASKED), "None")


@NO_CONTENT
@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("by_bytes", [False, True])
def test_it_may_end_with_a_frame_of_its_own(status: str, end: str, padded: bool, by_bytes: bool) -> None:
    """RFC 9113 8.1.1: no content follows what it declares, and that is no fault. A padded head is h2's to judge."""
    fields = [(":status", status), ("content-length", "5")]
    first = frame(HEADERS, ASKED, b"\0" + block(fields), flags=END_HEADERS | PADDED) if padded else head(fields)
    heard, failure, said = outcome(session(), first + ENDS[end], by_bytes=by_bytes)
    assert (heard[0].status, heard[-1], failure, said) == (int(status), events.End(ASKED), "None", b"")


@NO_CONTENT
@pytest.mark.parametrize("declared", [[], [("content-length", "5")], [("content-length", "0")]])
@pytest.mark.parametrize("flags", [0, END_STREAM])
@pytest.mark.parametrize("by_bytes", [False, True])
def test_a_response_that_may_have_no_content_brings_none(
    status: str, declared: list[tuple[str, str]], flags: int, by_bytes: bool
) -> None:
    """RFC 9113 8.1.1, RFC 9110 15.3.5, 15.4.5."""
    codec = session()
    wire = head([(":status", status), *declared]) + frame(DATA, ASKED, b"hello", flags=flags)
    heard, failure, said = outcome(codec, wire, by_bytes=by_bytes)
    assert heard[1:-1] == [events.Data(ASKED, b"", 5)] and failure == "None"
    assert heard[-1][0] == ASKED and "more than the 0 bytes" in heard[-1][1]
    assert resets(said) == [(ASKED, PROTOCOL_ERROR)]


def test_an_answer_to_head_may_declare_any_length() -> None:
    codec = session()
    stream_id = codec.open(RequestHead(b"HEAD", b"https", b"a.test", b"/", ()), end=True)
    heard, failure, _ = outcome(codec, head([*OK, ("content-length", "5")], stream_id, flags=END_HEADERS | END_STREAM))
    assert (heard[1:], failure) == ([events.End(stream_id)], "None")


def test_a_message_that_is_cut_short_says_how_much_is_missing_and_leaves_the_others_alone() -> None:
    """M6, M10; RFC 9113 8.1.1."""
    codec = session()
    upload_answer = head([*OK, ("content-length", "5000")], UPLOADING, flags=END_HEADERS | END_STREAM)
    heard, failure, _ = outcome(codec, upload_answer)
    assert (failure, [stream for stream, _ in heard]) == ("None", [UPLOADING])
    assert "0 of the 5,000 bytes" in heard[0][1]
    assert outcome(codec, GOOD_ANSWER)[0] == ALL_OF_IT


@pytest.mark.parametrize("by_bytes", [False, True])
def test_a_body_that_data_ends_too_early_leaves_the_others_alone(by_bytes: bool) -> None:
    """M6; RFC 9113 8.1.1, 5.4.2: it gives what has come."""
    codec = session()
    body = frame(DATA, ASKED, b"ab") + frame(DATA, ASKED, b"\1c\0", flags=END_STREAM | PADDED)
    other = head(OK, UPLOADING) + frame(DATA, UPLOADING, b"good", flags=END_STREAM)
    heard, failure, said = outcome(codec, head([*OK, ("content-length", "5")]) + body + other, by_bytes=by_bytes)
    assert heard[1:3] == [events.Data(ASKED, b"ab", 2), events.Data(ASKED, b"c", 3)]
    assert heard[3][0] == ASKED and "3 of the 5 bytes" in heard[3][1]
    assert heard[4:] == [events.Head(UPLOADING, 200, []), events.Data(UPLOADING, b"good", 4), events.End(UPLOADING)]
    assert (failure, said) == ("None", b"")


def test_a_body_that_ends_too_early_is_reset_where_we_still_send() -> None:
    """RFC 9113 5.4.2."""
    codec = session()
    wire = head([*OK, ("content-length", "5")], UPLOADING) + frame(DATA, UPLOADING, b"abc", flags=END_STREAM)
    heard, failure, said = outcome(codec, wire)
    assert (heard[-1][0], failure, said) == (UPLOADING, "None", b"")
    codec.reset(UPLOADING, PROTOCOL_ERROR)  # the engine's answer to what is broken
    assert resets(codec.data_to_send()) == [(UPLOADING, PROTOCOL_ERROR)]


@pytest.mark.parametrize("by_bytes", [False, True])
def test_a_body_that_is_too_long_is_reset_once_and_what_follows_is_ignored(by_bytes: bool) -> None:
    """M6; RFC 9113 8.1.1, 5.4.2, 5.1: DATA, an end and trailers that are in flight."""
    late = frame(DATA, ASKED, b"more") + frame(DATA, ASKED, b"end", flags=END_STREAM)
    late += head([("x", "1")], flags=END_HEADERS | END_STREAM) + frame(RST_STREAM, ASKED, u32(0))
    other = head(OK, UPLOADING) + frame(DATA, UPLOADING, b"good", flags=END_STREAM)
    wire = head([*OK, ("content-length", "2")]) + frame(DATA, ASKED, b"ab") + frame(DATA, ASKED, b"c") + late + other
    heard, failure, said = outcome(session(), wire, by_bytes=by_bytes)
    assert heard[1:3] == [events.Data(ASKED, b"ab", 2), events.Data(ASKED, b"", 1)]
    assert heard[3][0] == ASKED and "more than the 2 bytes" in heard[3][1]
    assert heard[4:] == [events.Head(UPLOADING, 200, []), events.Data(UPLOADING, b"good", 4), events.End(UPLOADING)]
    assert (failure, resets(said)) == ("None", [(ASKED, PROTOCOL_ERROR)])


def test_a_body_that_is_too_long_costs_the_connection_no_credit() -> None:
    """L7: all of it is heard, and h2 gives back none by itself."""
    codec = session()
    windows = codec._machine._inbound_flow_control_window_manager
    before = windows.current_window_size
    late = b"".join(frame(DATA, ASKED, bytes(1_000)) for _ in range(4))
    too_long = head([*OK, ("content-length", "5")]) + frame(DATA, ASKED, b"\1abcdef\0", flags=PADDED)
    heard = codec.receive(too_long + late)
    costs = [event.flow_bytes for event in heard if isinstance(event, (events.Data, events.LateData))]
    assert costs == [8, 1_000, 1_000, 1_000, 1_000]
    assert (windows.current_window_size + sum(costs), windows._bytes_processed) == (before, 0)


@pytest.mark.parametrize("length", ["1000000000000000000", "9" * 30])
def test_a_length_of_an_exabyte_is_a_number(length: str) -> None:
    """A16."""
    heard, failure, _ = outcome(session(), head([*OK, ("content-length", length)]) + frame(DATA, ASKED, b"abc"))
    assert (heard[1:], failure) == ([events.Data(ASKED, b"abc", 3)], "None")


# -- header blocks -----------------------------------------------------------------------------------------------------


class TestHeaderBlocks:
    def test_a_bomb_of_references_is_stopped_while_it_is_decoded(self) -> None:
        """A9: 3.9 KB that are named 16,000 times (CVE-2016-6581)."""
        bomb = b"\x88\x40\x01x" + number(3_900, 7) + b"y" * 3_900 + b"\xbe" * 12_000
        self._stops(frame(HEADERS, ASKED, bomb, flags=END_HEADERS), CALM)

    def test_tiny_fields_are_counted_with_their_overhead(self) -> None:
        """A10; RFC 9113 6.5.2: 32 bytes each, so that 64 KiB are no more than 2,048 fields."""
        fields = b"\x88" + b"\x40\x01x\x00" + b"\xbe" * 1_900
        codec = session()
        heard, failure, _ = outcome(codec, frame(HEADERS, ASKED, fields, flags=END_HEADERS))
        assert (len(heard[0].fields), failure) == (1_901, "None")
        self._stops(frame(HEADERS, ASKED, fields + b"\xbe" * 200, flags=END_HEADERS), CALM)

    @pytest.mark.parametrize("size", [16_384, 1_000])
    def test_a_block_without_an_end_stops_at_the_limit_of_a_head(self, size: int) -> None:
        """A1 (CVE-2024-27316 and its like)."""
        wire = frame(HEADERS, ASKED, b"\x88") + frame(CONTINUATION, ASKED, bytes(size)) * 200
        said, taken = self._stops(wire, CALM)
        assert "CONTINUATION" in said
        assert taken < 100_000

    def test_a_block_without_an_end_and_without_bytes_stops_by_count(self) -> None:
        """A2 (CVE-2026-33871)."""
        wire = frame(HEADERS, ASKED, b"\x88") + frame(CONTINUATION, ASKED) * 1_000
        said, taken = self._stops(wire, CALM)
        assert "CONTINUATION" in said
        assert taken <= 9 * (MAX_CONTINUATIONS + 3)

    @pytest.mark.parametrize("byte", [b"\xff", b"\x7f", b"\x0f", b"\x3f"])
    def test_an_integer_without_an_end_costs_no_time(self, byte: bytes) -> None:
        """A11: hpack before 4.2.0 took the square of its length."""
        began = time.process_time()
        wire = frame(HEADERS, ASKED, byte + b"\xff" * 16_000)
        wire += frame(CONTINUATION, ASKED, b"\xff" * 16_000, flags=END_HEADERS)
        self._stops(wire, COMPRESSION_ERROR)
        assert time.process_time() - began < 1.0

    def test_a_block_of_a_stream_that_is_over_still_changes_the_table(self) -> None:
        """F8."""
        codec, encoder = session(), hpack.Encoder()
        late = frame(HEADERS, RESET, encoder.encode([*OK, ("x-new", "value")]), flags=END_HEADERS)
        next_one = frame(HEADERS, ASKED, encoder.encode([*OK, ("x-new", "value")]), flags=END_HEADERS)
        heard, _, _ = outcome(codec, late + next_one)
        assert heard == [events.Head(ASKED, 200, [(b"x-new", b"value")])]

    @staticmethod
    def _stops(wire: bytes, code: int) -> tuple[str, int]:
        """The words, and how many bytes were taken before."""
        codec, taken = session(), 0
        while codec.failure is None and taken < len(wire):
            codec.receive(wire[taken : taken + 9])
            taken += 9
        assert goaway_code(codec.data_to_send()) == code
        return str(codec.failure), taken - 9 + taken % 9


# -- floods ------------------------------------------------------------------------------------------------------------

FLOODS: dict[str, tuple[Callable[[int], bytes], str]] = {
    "A3 PING": (lambda at: frame(PING, 0, bytes(8)), "PING"),
    "A3 PING acknowledgements": (lambda at: frame(PING, 0, bytes(8), flags=ACK), "PING acknowledgement"),
    "A4 SETTINGS": (lambda at: frame(SETTINGS), "SETTINGS"),
    "A4 SETTINGS that change windows": (lambda at: frame(SETTINGS, 0, setting(4, at)), "SETTINGS"),
    "F17 SETTINGS acknowledgements": (lambda at: frame(SETTINGS, flags=ACK), "SETTINGS acknowledgement"),
    "A5 empty DATA": (lambda at: frame(DATA, ASKED), "empty DATA"),
    "A5 DATA of padding": (lambda at: frame(DATA, ASKED, b"\x03\0\0\0", flags=PADDED), "empty DATA"),
    "A5 DATA of no padding": (lambda at: frame(DATA, ASKED, b"\0", flags=PADDED), "empty DATA"),
    "A5 empty DATA on a stream that is over": (lambda at: frame(DATA, RESET), "empty DATA"),
    "A6 interim heads": (lambda at: head([(":status", "103")]), "HEADERS"),
    "A6 interim heads on a stream that is over": (lambda at: head([(":status", "103")], RESET), "HEADERS"),
    "A7 PRIORITY": (lambda at: frame(PRIORITY, ASKED, b"\0\0\0\x03\1"), "PRIORITY"),
    "A7 WINDOW_UPDATE": (lambda at: frame(WINDOW_UPDATE, 0, u32(1)), "WINDOW_UPDATE"),
    "A7 WINDOW_UPDATE of a stream": (lambda at: frame(WINDOW_UPDATE, UPLOADING, u32(1)), "WINDOW_UPDATE"),
    "A7 WINDOW_UPDATE of a stream that is over": (lambda at: frame(WINDOW_UPDATE, RESET, u32(1)), "WINDOW_UPDATE"),
    "A7 unknown frames": (lambda at: frame(UNKNOWN, 0), "unknown"),
    "A7 large unknown frames": (lambda at: frame(UNKNOWN, 0, bytes(16_384)), "unknown"),
    "A7 ALTSVC": (lambda at: frame(0xA, 0, b"\0\x06a.testclear"), "unknown"),
    "A7 GOAWAY": (lambda at: goaway(99), "GOAWAY"),
    "A7 large GOAWAY": (lambda at: goaway(99, debug=bytes(16_000)), "GOAWAY"),
    "A8 RST_STREAM": (lambda at: frame(RST_STREAM, RESET, u32(8)), "RST_STREAM"),
    "A8 RST_STREAM of a stream that has ended": (lambda at: frame(RST_STREAM, DONE, u32(0)), "RST_STREAM"),
}


@pytest.mark.parametrize("form", FLOODS)
def test_a_flood_ends_early_and_is_named(form: str) -> None:
    """RFC 9113 10.5: before 1 MB or 10,000 frames; the events of what was honest still come."""
    make, name = FLOODS[form]
    codec, sent, count, answered = session(), 0, 0, 0
    if "DATA" in name and "over" not in form:
        codec.receive(head(OK))
    while codec.failure is None:
        assert count < 10_000
        assert sent < 1 << 20
        wire = make(count)
        codec.receive(wire)
        answered += len(codec.data_to_send()) if codec.failure is None else 0
        sent += len(wire)
        count += 1
    assert f"floods this connection with {name} frames" in str(codec.failure)
    assert goaway_code(codec.data_to_send()) == CALM
    # What it made us say is not more than it said.
    assert answered <= sent


def hear_all(codec: H2Codec, wire: bytes) -> None:
    """As a connection does that rests in between."""
    codec.receive(wire)
    while codec.held:
        codec.receive(b"")


@pytest.mark.parametrize("form", FLOODS)
def test_a_flood_in_one_read_costs_no_time(form: str) -> None:
    make, _ = FLOODS[form]
    codec = session()
    wire = head(OK) + b"".join(make(at) for at in range(20_000 if len(make(0)) < 100 else 150))
    began = time.process_time()
    hear_all(codec, wire)
    assert codec.failure is not None
    assert time.process_time() - began < 2.0


@pytest.mark.parametrize("form", [name for name in FLOODS if name.startswith(("A3", "A4", "A5", "A7", "A8"))])
def test_the_same_frames_at_an_honest_pace_are_borne(form: str) -> None:
    """One each second, for two hours."""
    make, _ = FLOODS[form]
    codec = session()
    codec.receive(head(OK))
    for second in range(7_200):
        codec.tick(1_000.0 + second * (1.0 if len(make(0)) < 1_000 else 20.0))
        codec.receive(make(second % 100))
        codec.data_to_send()
        assert codec.failure is None


# -- servers that behave -----------------------------------------------------------------------------------------------


class TestHonestServers:
    """What these do must never be taken for a flood, however fast it comes: the clock stands still here."""

    def test_small_pieces_of_a_body(self) -> None:
        """gRPC streams a message in each frame."""
        codec = session()
        codec.receive(head(OK))
        for _ in range(50):
            codec.receive(frame(DATA, ASKED, b"12345") * 1_000)
            codec.grant(5_000, ASKED)
            codec.grant(5_000)
        assert codec.failure is None

    def test_a_reset_behind_each_response(self) -> None:
        """RFC 9113 8.1: nginx and nghttpd do so where they have not read the whole request."""
        codec = H2Codec(Limits())
        codec.receive(GREETING)
        for _ in range(5_000):
            stream_id = codec.open(HEAD, end=False)
            answer = head(OK, stream_id) + frame(DATA, stream_id, b"abc", flags=END_STREAM)
            codec.receive(answer + frame(RST_STREAM, stream_id, u32(0)))
        assert codec.failure is None

    def test_empty_ends_and_early_hints_and_trailers_of_each_response(self) -> None:
        codec = H2Codec(Limits())
        codec.receive(GREETING)
        for _ in range(5_000):
            stream_id = codec.open(HEAD, end=True)
            hints = head([(":status", "103")], stream_id) * 3
            answer = head(OK, stream_id) + frame(DATA, stream_id) * 3
            codec.receive(hints + answer + head([("x", "1")], stream_id, flags=END_HEADERS | END_STREAM))
        assert codec.failure is None

    def test_large_heads(self) -> None:
        codec = H2Codec(Limits())
        codec.receive(GREETING)
        big = [*OK, *[("x", "y" * 120)] * 120]
        for _ in range(1_000):
            stream_id = codec.open(HEAD, end=True)
            codec.receive(head(big, stream_id, flags=END_HEADERS | END_STREAM))
        assert codec.failure is None

    @pytest.mark.parametrize("at_once", [1, 1_000])
    def test_two_window_updates_and_a_ping_for_each_frame_of_an_upload(self, at_once: int) -> None:
        """A server that counts nothing together, and one that measures its bandwidth; all come a round trip later."""
        codec = session()
        for _ in range(20_000 // at_once):
            for _ in range(at_once):
                codec.send(UPLOADING, b"x", end=False)
            grants = frame(WINDOW_UPDATE, 0, u32(1)) + frame(WINDOW_UPDATE, UPLOADING, u32(1))
            codec.receive((grants + frame(PING, 0, bytes(8))) * at_once)
            codec.data_to_send()
        assert codec.failure is None

    def test_settings_that_change_a_thousand_times(self) -> None:
        codec = session()
        for at in range(1_000):
            codec.receive(frame(SETTINGS, 0, setting(4, 1_000 + at)))
        assert codec.failure is None

    def test_answers_to_our_pings(self) -> None:
        """A storm of cancels sends one each round trip."""
        codec = session()
        for at in range(5_000):
            codec.ping(at.to_bytes(8, "big"))
            codec.receive(frame(PING, 0, at.to_bytes(8, "big"), flags=ACK))
        assert codec.failure is None

    def test_a_long_life(self) -> None:
        """Keep-alive PINGs, tuned windows and a reset now and then, for a day."""
        codec = session()
        for minute in range(1_440):
            codec.tick(minute * 60.0)
            codec.receive(frame(PING, 0, bytes(8)) * 6 + frame(WINDOW_UPDATE, 0, u32(1_000)) * 2)
            codec.receive(frame(SETTINGS, 0, setting(4, 65_535 + minute)) + frame(UNKNOWN))
            codec.data_to_send()
        assert codec.failure is None


def test_a_flood_is_judged_by_the_time_that_passes() -> None:
    """100 PINGs a second are borne for ever, 200 are not."""

    def lasts(per_s: int) -> int:
        codec = session()
        for second in range(60):
            codec.tick(float(second))
            hear_all(codec, frame(PING, 0, bytes(8)) * per_s)
            if codec.failure is not None:
                return second
        return 60

    assert (lasts(100), lasts(200) < 15) == (60, True)


def test_a_flood_is_told_from_other_faults() -> None:
    """Who floods is left alone for a while; who breaks a rule may have done so once."""
    flooded, broken = session(), session()
    hear_all(flooded, frame(PING, 0, bytes(8)) * 5_000)
    hear_all(broken, frame(PING, 1, bytes(8)))
    assert (flooded.failure is not None, broken.failure is not None) == (True, True)
    assert (flooded.flooded, broken.flooded) == (True, False)


def test_what_our_work_earns_has_a_bound() -> None:
    """A connection that has carried a million requests can still be flooded, or not for long."""
    codec = session()
    codec._guard.streams = 10**9
    count = 0
    while codec.failure is None:
        hear_all(codec, frame(PING, 0, bytes(8)) * 1_000)
        codec.data_to_send()
        count += 1_000
    assert count <= 102_000


def test_a_push_is_counted_too() -> None:
    """A8: each that is one too many costs us a reset."""
    codec = session(push=True)
    promise = block([(":method", "GET"), (":scheme", "https"), (":authority", "a.test"), (":path", "/p")])
    count = 0
    while codec.failure is None:
        count += 1
        assert count < 10_000
        codec.receive(frame(PUSH_PROMISE, ASKED, u32(2 * count) + promise, flags=END_HEADERS))
        codec.reset(2 * count, 7)
    assert "floods this connection with PUSH_PROMISE frames" in str(codec.failure)


def test_a_reset_of_a_stream_that_is_long_over_is_borne() -> None:
    """F7: h2 has forgotten it, but knows that it was."""
    codec = session()
    codec._machine._open_streams(1)
    assert DONE not in codec._machine.streams
    assert outcome(codec, frame(RST_STREAM, DONE, u32(0)) + GOOD_ANSWER)[:2] == (ALL_OF_IT, "None")


def test_an_answer_that_ends_twice_does_not_end_its_upload() -> None:
    """F7: nginx ends an empty answer with its head, and with DATA once more where its socket was full meanwhile."""
    codec = session()
    twice = head(OK, UPLOADING, flags=END_HEADERS | END_STREAM) + frame(DATA, UPLOADING, flags=END_STREAM)
    heard, failure, said = outcome(codec, twice)
    assert (heard, failure, said) == ([events.Head(UPLOADING, 200, []), events.End(UPLOADING)], "None", b"")
    codec.send(UPLOADING, b"the rest", end=True)
    assert outcome(codec, frame(DATA, UPLOADING, flags=END_STREAM)) == (
        [],
        "None",
        frame(DATA, UPLOADING, b"the rest", flags=1),
    )


def test_a_push_that_belongs_to_a_stream_that_we_have_reset_is_refused_and_its_answer_ignored() -> None:
    """F8, F21."""
    codec = session(push=True)
    promise = block([(":method", "GET"), (":scheme", "https"), (":authority", "a.test"), (":path", "/p")])
    wire = frame(PUSH_PROMISE, RESET, u32(2) + promise, flags=END_HEADERS) + head(OK, 2) + frame(DATA, 2, b"x", flags=1)
    heard, failure, said = outcome(codec, wire + GOOD_ANSWER)
    assert (heard, failure, resets(said)) == (ALL_OF_IT, "None", [(2, 7)])


@pytest.mark.parametrize("by_bytes", [False, True])
def test_a_reserved_bit_before_the_last_stream_id_is_ignored(by_bytes: bool) -> None:
    """F19, F22; RFC 9113 6.8: with it the id would stand above all streams, and none would be sent again."""
    wire = frame(GOAWAY, 0, u32(1 << 31 | ASKED) + u32(0))
    assert outcome(session(), wire, by_bytes=by_bytes)[:2] == ([events.GoAway(ASKED, 0, b"")], "None")


@pytest.mark.parametrize(("flags", "before", "behind"), [(0, b"", b""), (PADDED, b"\3", b"\0\0\0")])
def test_a_reserved_bit_before_a_promised_id_is_ignored(flags: int, before: bytes, behind: bytes) -> None:
    """F19; RFC 9113 6.6."""
    promise = block([(":method", "GET"), (":scheme", "https"), (":authority", "a.test"), (":path", "/p")])
    wire = frame(PUSH_PROMISE, ASKED, before + u32(1 << 31 | 2) + promise + behind, flags=END_HEADERS | flags)
    heard, failure, _ = outcome(session(push=True), wire + head(OK, 2))
    assert [event.promised_id for event in heard if isinstance(event, events.Promise)] == [2]
    assert (heard[-1], failure) == (events.Head(2, 200, []), "None")


def test_an_upgrade_begins_with_stream_1() -> None:
    """RFC 7540 3.2: its request has gone out over HTTP/1.1."""
    codec = H2Codec(Limits(), upgrade=b"HEAD")
    assert codec.upgrade_settings
    wire = GREETING + head([*OK, ("content-length", "5")], flags=END_HEADERS | END_STREAM)
    assert outcome(codec, wire)[:2] == (
        [events.PeerSettings(), events.Head(1, 200, [(b"content-length", b"5")]), events.End(1)],
        "None",
    )


def test_our_settings_are_acknowledged_once_that_is_said() -> None:
    """F18; RFC 9113 6.5.3."""
    codec = H2Codec(Limits())
    codec.receive(frame(SETTINGS))
    before = codec.settings_acknowledged
    codec.receive(frame(SETTINGS, flags=ACK))
    assert (before, codec.settings_acknowledged) == (False, True)


def test_answers_are_counted() -> None:
    """Its owner compares them with what the wire takes."""
    codec = session()
    before = codec.answers
    codec.receive(frame(PING, 0, bytes(8)) * 3 + frame(SETTINGS) + frame(PING, 0, bytes(8), flags=ACK))
    assert codec.answers - before == 4
    assert h2.settings.SettingCodes.INITIAL_WINDOW_SIZE == 4
