"""The quick machine is the same machine: what `Machine` makes of any bytes, it makes of them too.

Both get the same requests to send and the same bytes to hear. Afterwards what they heard, what they answered, and the
state of every stream and window are compared.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from typing import Any

import h2.events
import h2.exceptions
import hpack
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hyperpool.protocol import events as ours
from hyperpool.protocol.h2_codec import H2Codec
from hyperpool.protocol.h2_machine import Machine
from hyperpool.protocol.h2_quick import QuickMachine
from hyperpool.values import Limits

DATA, HEADERS, RST_STREAM, SETTINGS, PING, WINDOW_UPDATE, CONTINUATION = 0, 1, 3, 4, 6, 8, 9
END_STREAM, END_HEADERS, PADDED, PRIORITY = 1, 4, 8, 32
GREETING = bytes.fromhex("000000040000000000")
REQUEST = [(b":method", b"GET"), (b":scheme", b"https"), (b":authority", b"a.test"), (b":path", b"/")]
HEAD_REQUEST = [(b":method", b"HEAD"), *REQUEST[1:]]
ASKED = (1, 3, 5, 7)  # 5 is an upload that goes on; 7 asks with HEAD


def frame(kind: int, flags: int, stream_id: int, body: bytes = b"") -> bytes:
    return len(body).to_bytes(3, "big") + bytes((kind, flags)) + stream_id.to_bytes(4, "big") + body


def block(*fields: tuple[bytes, bytes]) -> bytes:
    """A header block that means the same whatever was sent before, and changes nothing."""
    return hpack.Encoder().encode([(name, value, True) for name, value in fields])


HEADS = [
    block((b":status", b"200"), (b"content-length", b"4")),
    block((b":status", b"200"), (b"x", b"y")),
    block((b":status", b"304"), (b"content-length", b"9")),
    block((b":status", b"204")),
    block((b":status", b"103"), (b"x", b"y")),
    block((b":status", b"2x0")),
    block((b":status", b"200"), (b"X", b"y")),
    block((b":status", b"200"), (b"cookie", b"a=1"), (b"cookie", b"b=2")),
    block((b"x", b"trailer")),
    b"\x88\x40\x01x\x01y",  # enters the table
    b"\x88\xbe",  # refers to it
    b"\xff\xff\xff\xff\xff\xff",
]
STREAMS = st.sampled_from([*ASKED, 0, 2, 9])
BODIES = st.sampled_from([b"", b"ab", b"abcd", b"\x01ab\x00", bytes(40)])
DATA_FLAGS = st.sampled_from([0, 0, END_STREAM, END_STREAM, PADDED, 0x80])
WHOLE = END_HEADERS | END_STREAM
HEAD_FLAGS = st.sampled_from([END_HEADERS, END_HEADERS, WHOLE, 0, END_HEADERS | PRIORITY, END_STREAM])
FRAMES = st.one_of(
    st.builds(frame, st.just(HEADERS), HEAD_FLAGS, STREAMS, st.sampled_from(HEADS)),
    st.builds(frame, st.just(HEADERS), HEAD_FLAGS, st.sampled_from(ASKED), st.sampled_from(HEADS[:2])),
    st.builds(frame, st.just(DATA), DATA_FLAGS, STREAMS, BODIES),
    st.builds(frame, st.just(DATA), DATA_FLAGS, st.sampled_from(ASKED), BODIES),
    st.builds(frame, st.just(CONTINUATION), st.sampled_from([0, END_HEADERS]), STREAMS, st.sampled_from(HEADS)),
    st.builds(frame, st.just(RST_STREAM), st.just(0), STREAMS, st.just(bytes(4))),
    st.builds(frame, st.just(WINDOW_UPDATE), st.just(0), STREAMS, st.just(bytes((0, 0, 0, 9)))),
    st.builds(frame, st.just(PING), st.just(0), st.just(0), st.just(bytes(8))),
    st.builds(frame, st.just(SETTINGS), st.just(0), st.just(0), st.just(b"\0\4\0\0\0\x05")),
)


def requests(machine: Machine, send: Callable[..., Any], window: int) -> None:
    codes = h2.settings.SettingCodes
    machine.local_settings.update({codes.ENABLE_PUSH: 0, codes.INITIAL_WINDOW_SIZE: window})
    machine.local_settings.acknowledge()
    machine.initiate_connection()
    machine.receive_data(GREETING)
    for stream_id in ASKED:
        send(HEAD_REQUEST if stream_id == 7 else REQUEST, end=stream_id != 5)


def plain_machine(window: int = 65_535) -> Machine:
    machine = Machine()

    def send(fields: Any, *, end: bool) -> None:
        machine.send_headers(machine.get_next_available_stream_id(), fields, end_stream=end)

    requests(machine, send, window)
    return machine


def quick_machine(window: int = 65_535) -> QuickMachine:
    machine = QuickMachine()
    requests(machine, machine.send_request, window)
    return machine


def in_our_words(heard: list[Any]) -> list[str]:
    """As the codec tells it: of both machines the same. As text, since errors are not equal to each other.

    What follows each other on one stream is one piece to the quick machine, and may be one to its reader.
    """
    codec = H2Codec(Limits())
    codec._machine.heard = heard
    codec._feed = lambda data: None  # type: ignore[method-assign]
    told: list[Any] = []
    for event in codec.receive(b""):
        if isinstance(event, ours.Data) and told and isinstance(told[-1], ours.Data):
            before = told[-1]
            if before.stream_id == event.stream_id:
                event = ours.Data(event.stream_id, before.data + event.data, before.flow_bytes + event.flow_bytes)
                told.pop()
        told.append(event)
    return [repr(event) for event in told]


def state(machine: Machine) -> Any:
    machine._open_streams(1)  # the plain one counts now and then, and forgets what is over
    streams = {
        stream_id: (
            stream.state_machine.state,
            stream.state_machine.headers_received,
            stream.state_machine.stream_closed_by,
            stream.inbound_flow_control_window,
            stream.outbound_flow_control_window,
            stream._expected_content_length,
            stream._actual_content_length,
            stream.request_method,
        )
        for stream_id, stream in machine.streams.items()
    }
    closed = {stream_id: machine._closed_streams.get(stream_id) for stream_id in ASKED}
    table = list(machine.decoder.header_table.dynamic_entries)
    return streams, closed, machine.inbound_flow_control_window, machine.state_machine.state, table


def hear(machine: Machine, pieces: list[bytes]) -> tuple[Any, ...]:
    machine.data_to_send()
    failure: Any = None
    for piece in pieces:
        try:
            machine.receive_data(piece)
        except Exception as error:
            failure = type(error), re.sub(r" at 0x\w+", "", str(error))
            break
    return in_our_words(machine.heard), failure, machine.data_to_send(), state(machine)


@settings(deadline=None, max_examples=300)
@given(st.lists(FRAMES, max_size=8), st.lists(st.integers(1, 200), max_size=6))
def test_it_hears_and_answers_what_the_plain_one_does(frames: list[bytes], cuts: list[int]) -> None:
    """Whole frames to the plain one, pieces that are cut anywhere to the quick one."""
    wire = b"".join(frames)
    edges = sorted({0, len(wire), *(cut for cut in cuts if cut < len(wire))})
    pieces = [wire[begin:end] for begin, end in itertools.pairwise(edges)]
    assert hear(quick_machine(), pieces) == hear(plain_machine(), [wire])


# A body in one run of frames: with an end, padding or another stream's frame in between, too large, too many.
RUN = st.lists(
    st.tuples(
        st.sampled_from([0, 1, 4, 4, 40, 16_384, 16_385]),
        st.sampled_from([*6 * [0], END_STREAM, PADDED]),
        st.sampled_from([*6 * [1], 3, 2**31 + 1]),
    ),
    max_size=9,
)
FRAME_OF_4, LAST_OF_4 = (4, 0, 1), (4, END_STREAM, 1)


@settings(deadline=None, max_examples=400)
@given(
    RUN,
    st.sampled_from([0, 9, 50, 16_384, 65_535]),
    st.sampled_from([None, 0, 4, 8, 44, 16_388]),
    st.lists(st.integers(1, 80_000), max_size=3),
)
@example([FRAME_OF_4, LAST_OF_4, FRAME_OF_4], 65_535, None, [])
@example([FRAME_OF_4, LAST_OF_4], 65_535, 8, [])
@example([FRAME_OF_4, LAST_OF_4], 65_535, 44, [])
@example([FRAME_OF_4, FRAME_OF_4, FRAME_OF_4], 65_535, 8, [])
@example([FRAME_OF_4, FRAME_OF_4, FRAME_OF_4], 9, None, [])
@example([(16_384, 0, 1)] * 4, 80_000, None, [])
@example([FRAME_OF_4, (4, 0, 3), FRAME_OF_4], 65_535, None, [])
def test_a_run_of_data_is_judged_as_frame_after_frame(
    run: list[tuple[int, int, int]], window: int, declared: int | None, cuts: list[int]
) -> None:
    """RFC 9113 6.1, 6.9.1, 8.1.1: a window or a length that ends within it, and whatever stands in its middle."""
    length = [] if declared is None else [(b"content-length", str(declared).encode())]
    head = block((b":status", b"200"), *length)
    heads = [frame(HEADERS, END_HEADERS, stream_id, head) for stream_id in (1, 3)]
    wire = b"".join([*heads, *(frame(DATA, flags, stream_id, bytes(size)) for size, flags, stream_id in run)])
    edges = sorted({0, len(wire), *(cut for cut in cuts if cut < len(wire))})
    pieces = [wire[begin:end] for begin, end in itertools.pairwise(edges)]
    assert hear(quick_machine(window), pieces) == hear(plain_machine(window), [wire])


@pytest.mark.parametrize(
    ("joins", "heard"),
    [
        (True, [ours.Data(3, b"abcdefgh", 8), ours.End(3)]),
        (False, [ours.Data(3, b"abcd", 4), ours.Data(3, b"efgh", 4), ours.End(3)]),
    ],
)
def test_a_run_of_data_is_one_piece_or_one_for_each_frame(joins: bool, heard: list[Any]) -> None:
    machine = quick_machine()
    machine.joins_data = joins
    machine.receive_data(frame(HEADERS, END_HEADERS, 3, HEADS[1]))
    machine.heard.clear()
    machine.receive_data(frame(DATA, 0, 3, b"abcd") + frame(DATA, END_STREAM, 3, b"efgh"))
    assert machine.heard == heard


def test_requests_leave_the_same_bytes_and_streams() -> None:
    plain, quick = plain_machine(), quick_machine()
    assert quick.data_to_send() == plain.data_to_send()
    assert state(quick) == state(plain)


# What the peer may say between two pieces of an upload: windows of both kinds, larger frames, resets, an answer.
TOLD = st.sampled_from(
    [
        frame(WINDOW_UPDATE, 0, 0, (40_000).to_bytes(4, "big")),
        frame(WINDOW_UPDATE, 0, 5, (40_000).to_bytes(4, "big")),
        frame(SETTINGS, 0, 0, b"\0\4" + (7).to_bytes(4, "big")),
        frame(SETTINGS, 0, 0, b"\0\5" + (20_000).to_bytes(4, "big")),
        frame(RST_STREAM, 0, 5, bytes(4)),
        frame(HEADERS, END_HEADERS, 5, HEADS[1]),
        frame(HEADERS, WHOLE, 5, HEADS[1]),
        b"",
    ]
)
OF_STREAM, OF_CONNECTION = (frame(WINDOW_UPDATE, 0, number, (40_000).to_bytes(4, "big")) for number in (5, 0))
SIZES = st.sampled_from([0, 1, 7, 8, 16_384, 16_385, 20_000, 20_001, 32_768, 50_000, -1])
PIECES = st.tuples(SIZES, st.sampled_from([False, False, False, True]), st.sampled_from([5, 5, 5, 5, 5, 1, 9, 2]))


def send_all(machine: Machine, steps: list[Any], send: Callable[..., None]) -> list[Any]:
    """What each piece left on the wire, or raised; -1 is as much as may go. Then what the machine has become."""
    story: list[Any] = [machine.data_to_send()]
    for told, (size, end, stream_id) in steps:
        try:
            machine.receive_data(told)
        except h2.exceptions.ProtocolError as error:
            story.append(type(error))
        story.append(capacity := capacity_of(machine, stream_id))
        try:
            send(stream_id, memoryview(bytes(max(capacity or 0, 0) if size < 0 else size)), end)
        except Exception as error:
            story += [type(error), str(error)]
        story.append(machine.data_to_send())
    return [*story, machine.outbound_flow_control_window, state(machine)]


def capacity_of(machine: Machine, stream_id: int) -> int | None:
    machine._open_streams(1)  # the quick one forgets at once what has ended
    if stream_id not in machine.streams or machine.streams[stream_id].closed:
        return None
    if isinstance(machine, QuickMachine):
        return machine.capacity(stream_id)
    return min(machine.local_flow_control_window(stream_id), machine.max_outbound_frame_size)


@settings(deadline=None, max_examples=300)
@given(st.lists(st.tuples(TOLD, PIECES), max_size=12))
@example([(OF_STREAM, (16_384, False, 5)), *4 * [(b"", (16_384, False, 5))]])
@example([(OF_CONNECTION, (16_384, False, 5)), *4 * [(b"", (16_384, False, 5))]])
def test_what_is_sent_leaves_the_same_bytes_windows_and_streams(steps: list[Any]) -> None:
    """RFC 9113 5.1, 6.1, 6.9: also where a piece is too large for a window, or its stream is in no state for it."""
    plain, quick = plain_machine(), quick_machine()

    def send_by_h2(stream_id: int, data: memoryview, end: bool) -> None:
        most = plain.max_outbound_frame_size
        parts = [data[at : at + most] for at in range(0, len(data), most)] or [data]
        for number, part in enumerate(parts, 1):
            plain.send_data(stream_id, part, end_stream=end and number == len(parts))

    by_h2 = send_all(plain, steps, send_by_h2)
    assert send_all(quick, steps, lambda stream_id, data, end: quick.send_piece(stream_id, data, end=end)) == by_h2


@pytest.mark.parametrize("end", [False, True])
def test_a_piece_is_sent_without_h2(end: bool) -> None:
    """Else the differential test would compare h2 with itself."""
    machine = quick_machine()
    machine.data_to_send()
    machine.send_data = None  # type: ignore[assignment, method-assign]
    machine.send_piece(5, b"abc", end=end)
    assert machine.take_output() == frame(DATA, END_STREAM if end else 0, 5, b"abc")
    assert machine.take_output() == b""


@pytest.mark.parametrize(
    ("size", "sizes"), [(16_384, [16_384]), (16_385, [16_384, 1]), (40_000, [16_384, 16_384, 7_232])]
)
def test_a_large_piece_goes_out_in_frames_of_the_peers_size(size: int, sizes: list[int]) -> None:
    machine = quick_machine()
    machine.data_to_send()
    assert machine.capacity(5, 2) == 32_768
    assert machine.send_piece(5, bytes(size), end=True) == len(sizes)
    flags = [0] * (len(sizes) - 1) + [END_STREAM]
    assert machine.take_output() == b"".join(
        frame(DATA, *pair, bytes(n)) for *pair, n in zip(flags, [5] * len(sizes), sizes, strict=True)
    )


def test_a_connection_that_is_over_takes_no_piece() -> None:
    machine = quick_machine()
    machine.close_connection()
    with pytest.raises(h2.exceptions.ProtocolError):
        machine.send_piece(5, b"abc", end=False)


def test_what_came_before_is_heard_without_h2() -> None:
    """Else the differential test would compare h2 with itself."""
    machine = quick_machine()
    answer = [frame(HEADERS, END_HEADERS, 1, HEADS[0]), frame(DATA, END_STREAM, 1, b"abcd")]
    machine.receive_data(b"".join(answer))
    machine.heard.clear()
    machine.receive_data(b"".join(part[:5] + bytes((0, 0, 0, 3)) + part[9:] for part in answer))
    heard = [ours.Head(3, 200, [(b"content-length", b"4")]), ours.Data(3, b"abcd", 4), ours.End(3)]
    assert machine.heard == heard


@pytest.mark.parametrize("status", [b"204", b"304"])
@pytest.mark.parametrize("flags", [END_HEADERS, WHOLE])
def test_of_what_has_no_content_none_is_awaited(status: bytes, flags: int) -> None:
    """RFC 9113 8.1.1; the second of two equal heads is heard without h2."""
    machine = quick_machine()
    for stream_id in (1, 3):
        machine.receive_data(frame(HEADERS, flags, stream_id, block((b":status", status), (b"content-length", b"9"))))
    if flags == END_HEADERS:
        machine.receive_data(frame(DATA, END_STREAM, 3))
    assert machine.heard[-1] == ours.End(3) and 3 not in machine.streams


@pytest.mark.parametrize("size", [16_384, 16_385, 40_000])
def test_a_long_head_goes_on_in_continuation_frames(size: int) -> None:
    """RFC 9113 6.10: a frame of the peer's largest size, and the rest behind it."""
    plain, quick = Machine(), QuickMachine()
    fields = [*REQUEST, hpack.NeverIndexedHeaderTuple(b"authorization", b"\x7f" * (size // 4))]
    for machine in (plain, quick):
        machine.initiate_connection()
        machine.data_to_send()
    plain.send_headers(1, fields, end_stream=True)
    quick.send_request(fields, end=True)
    assert quick.data_to_send() == plain.data_to_send()


def test_streams_that_are_over_are_swept_away() -> None:
    machine = QuickMachine()
    machine.initiate_connection()
    machine.receive_data(GREETING)
    for _ in range(1_000):
        stream_id = machine.send_request(REQUEST, end=True)
        machine.receive_data(frame(HEADERS, END_HEADERS | END_STREAM, stream_id, HEADS[1]))
    assert len(machine.streams) <= 65


def test_a_connection_that_is_over_takes_no_request() -> None:
    machine = QuickMachine()
    machine.initiate_connection()
    machine.close_connection()
    with pytest.raises(h2.exceptions.ProtocolError):
        machine.send_request(REQUEST, end=True)


NAMES = st.sampled_from(
    [
        b"x",
        b"etag",
        b"content-length",
        b"cookie",
        b"te",
        b"connection",
        b"X",
        b"",
        b"a:b",
        b":x",
        b":status",
        b"x y",
        b"\xc3",
    ]
)
VALUES = st.sampled_from(
    [b"", b"1", b"01", b"-1", b"1 ", b" a", b"a b", b"\t", b"a\x01", b"a\nb", b"\0", b"\xff", b"200"]
)
FIELDS = st.lists(st.tuples(NAMES, VALUES), max_size=4)
STATUSES = st.sampled_from([b"200", b"404", b"999", b"103", b"20", b"2x0", b"", b"099", b"204", b"304"])


@settings(deadline=None, max_examples=400)
@given(STATUSES, FIELDS, st.sampled_from([END_HEADERS, WHOLE]), st.sampled_from([1, 7]))
def test_a_head_that_it_lets_pass_is_one_that_h2_lets_pass(
    status: bytes, fields: list[tuple[bytes, bytes]], flags: int, stream_id: int
) -> None:
    """RFC 9113 8.2.1 to 8.3.2: refused or changed is exactly what h2 refuses or changes."""
    wire = frame(HEADERS, flags, stream_id, block((b":status", status), *fields))
    assert hear(quick_machine(), [wire]) == hear(plain_machine(), [wire])
