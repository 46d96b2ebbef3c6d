"""The MUSTs of RFC 9113 and RFC 7541 that a server can break towards a client, or a client itself: one case for each.

Bytes against `H2Codec`. Each case is named by its section. What other files hold already is not repeated: `HELD` says
where it stands, and a test looks whether it still does. The states of a session are those of test_hostile_http2.py.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import hpack
import pytest
from test_hostile_http2 import (
    ACK,
    ALL_OF_IT,
    ASKED,
    COMPRESSION_ERROR,
    CONTINUATION,
    DATA,
    DONE,
    END_HEADERS,
    END_STREAM,
    FRAME_SIZE_ERROR,
    GOOD_ANSWER,
    GREETING,
    HEAD,
    HEADERS,
    IDLE,
    OK,
    PADDED,
    PING,
    PROTOCOL_ERROR,
    PUSH_PROMISE,
    RESET,
    RST_STREAM,
    SETTINGS,
    STREAM_CLOSED,
    UPLOADING,
    WINDOW_UPDATE,
    block,
    frame,
    frames_of,
    goaway,
    goaway_code,
    head,
    outcome,
    resets,
    session,
    setting,
    u32,
)

from hyperpool.errors import LocalProtocolError
from hyperpool.protocol import events
from hyperpool.protocol.events import RequestHead
from hyperpool.protocol.fields import prepare_head
from hyperpool.protocol.h2_codec import H2Codec
from hyperpool.urls import parse_url
from hyperpool.values import Limits

HERE = Path(__file__).resolve().parent
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
INDEXED_OK = b"\x88"
PROMISE = block([(":method", "GET"), (":scheme", "https"), (":authority", "a.test"), (":path", "/p")])


def promise(parent: int, promised: int, fields: bytes = PROMISE, *, flags: int = END_HEADERS) -> bytes:
    return frame(PUSH_PROMISE, parent, u32(promised) + fields, flags=flags)


def fields_in(wire: bytes, flags: int = END_HEADERS) -> bytes:
    return frame(HEADERS, ASKED, wire, flags=flags)


# -- what a server must not do -----------------------------------------------------------------------------------------

# By name: the bytes, and the code of the GOAWAY that they are answered with.
BREAKS: dict[str, tuple[bytes, int]] = {
    "9113-4.2 a frame size that does not fit its type ends the connection": (
        frame(SETTINGS, 0, setting(3, 1) + b"\0"),
        FRAME_SIZE_ERROR,
    ),
    "9113-4.3 a block that breaks off": (fields_in(b"\x88\x40\x03x"), COMPRESSION_ERROR),
    "9113-4.3 a block whose last CONTINUATION is bad": (
        fields_in(INDEXED_OK, 0) + frame(CONTINUATION, ASKED, b"\x80", flags=END_HEADERS),
        COMPRESSION_ERROR,
    ),
    "9113-4.3 bad trailers": (head(OK) + fields_in(b"\x80", END_HEADERS | END_STREAM), COMPRESSION_ERROR),
    "9113-5.1 HEADERS on a half-closed stream that has had its trailers": (
        head(OK) + head([("x", "1")], flags=5) + head([("x", "1")], flags=5),
        STREAM_CLOSED,
    ),
    "9113-5.1.1 a response on a stream of the server's that was never promised": (head(OK, 4), PROTOCOL_ERROR),
    "9113-5.1.1 HEADERS on the next id that we have not used": (head(OK, 9), PROTOCOL_ERROR),
    "9113-6.1 DATA on stream 0 that is empty": (frame(DATA, 0, flags=END_STREAM), PROTOCOL_ERROR),
    "9113-6.1 padded DATA without the padding's length": (frame(DATA, ASKED, flags=PADDED), FRAME_SIZE_ERROR),
    "9113-6.2 padded HEADERS without the padding's length": (frame(HEADERS, ASKED, flags=12), FRAME_SIZE_ERROR),
    "9113-6.2 HEADERS with priority that are too short for it": (
        frame(HEADERS, ASKED, b"\0\0\0", flags=END_HEADERS | 32),
        FRAME_SIZE_ERROR,
    ),
    "9113-6.2 SETTINGS inside a block": (fields_in(INDEXED_OK, 0) + frame(SETTINGS), PROTOCOL_ERROR),
    "9113-6.2 WINDOW_UPDATE inside a block": (
        fields_in(INDEXED_OK, 0) + frame(WINDOW_UPDATE, 0, u32(1)),
        PROTOCOL_ERROR,
    ),
    "9113-6.2 RST_STREAM inside a block": (
        fields_in(INDEXED_OK, 0) + frame(RST_STREAM, ASKED, u32(8)),
        PROTOCOL_ERROR,
    ),
    "9113-6.2 GOAWAY inside a block": (fields_in(INDEXED_OK, 0) + goaway(0), PROTOCOL_ERROR),
    "9113-6.5 an acknowledgement on a stream": (frame(SETTINGS, ASKED, flags=ACK), PROTOCOL_ERROR),
    "9113-6.5.2 ENABLE_PUSH=1 from a server, between good settings": (
        frame(SETTINGS, 0, setting(3, 10) + setting(2, 1) + setting(4, 70_000)),
        PROTOCOL_ERROR,
    ),
    "9113-6.6 PUSH_PROMISE on a stream that is over, without leave": (promise(DONE, 2), PROTOCOL_ERROR),
    "9113-6.6 PUSH_PROMISE on an idle stream": (promise(IDLE, 2), PROTOCOL_ERROR),
    "9113-6.7 an acknowledgement of PING on a stream": (frame(PING, ASKED, bytes(8), flags=ACK), PROTOCOL_ERROR),
    "9113-6.7 an acknowledgement of PING of nothing": (frame(PING, 0, flags=ACK), FRAME_SIZE_ERROR),
    "9113-6.9 WINDOW_UPDATE that holds a reserved bit and no increment": (
        frame(WINDOW_UPDATE, 0, u32(1 << 31)),
        PROTOCOL_ERROR,
    ),
    "9113-6.10 CONTINUATION behind DATA": (
        head(OK) + frame(DATA, ASKED, b"x") + frame(CONTINUATION, ASKED, b"", flags=END_HEADERS),
        PROTOCOL_ERROR,
    ),
    "9113-8.1 DATA behind the end of a head that ends": (
        head(OK, flags=END_HEADERS | END_STREAM) + frame(DATA, ASKED, b"x"),
        STREAM_CLOSED,
    ),
    "7541-5.1 an index that overflows 32 bits": (fields_in(b"\xff\xff\xff\xff\xff\xff\x0f"), COMPRESSION_ERROR),
    "7541-5.1 an integer that breaks off": (fields_in(b"\x88\xff\x80"), COMPRESSION_ERROR),
    "7541-5.2 EOS in a string": (fields_in(b"\x88\x00\x01x\x84\xff\xff\xff\xff"), COMPRESSION_ERROR),
    "7541-5.2 a string longer than its block": (fields_in(b"\x88\x00\x01x\x7f\x80\x01"), COMPRESSION_ERROR),
    "7541-6.2.1 a literal with an index past the table": (fields_in(b"\x88\x7f\x30\x01x"), COMPRESSION_ERROR),
    "7541-6.2.2 one that is not indexed": (fields_in(b"\x88\x0f\x60\x01x"), COMPRESSION_ERROR),
    "7541-6.2.3 one that is never indexed": (fields_in(b"\x88\x1f\x60\x01x"), COMPRESSION_ERROR),
    "7541-4.2 a second field, then a table update": (fields_in(b"\x88\x00\x01x\x01y\x20"), COMPRESSION_ERROR),
    "7541-2.3.3 an entry that was evicted": (
        fields_in(b"\x88\x40\x01x\x01y" + b"\x00\x01a\x01b") + fields_in(b"\x20\xbe", END_HEADERS | END_STREAM),
        COMPRESSION_ERROR,
    ),
}

# The same, on a connection that takes pushes.
BREAKS_PUSHES: dict[str, tuple[bytes, int]] = {
    "9113-6.6 a promise of stream 0": (promise(ASKED, 0), PROTOCOL_ERROR),
    "9113-6.6 a promise of an odd stream": (promise(ASKED, 11), PROTOCOL_ERROR),
    "9113-6.6 a promise of one of our streams": (promise(ASKED, ASKED), PROTOCOL_ERROR),
    "9113-5.1.1 a promise of a lower id than the last": (promise(ASKED, 4) + promise(ASKED, 2), PROTOCOL_ERROR),
    "9113-6.6 the same promise twice": (promise(ASKED, 2) + promise(ASKED, 2), PROTOCOL_ERROR),
    "9113-6.6 a promise on stream 0": (promise(0, 2), PROTOCOL_ERROR),
    "9113-6.6 a promise on a stream of the server's": (promise(ASKED, 2) + promise(2, 4), PROTOCOL_ERROR),
    "9113-6.6 a promise on an idle stream": (promise(IDLE, 2), PROTOCOL_ERROR),
    "9113-6.10 another frame between a promise and its CONTINUATION": (
        promise(ASKED, 2, flags=0) + frame(PING, 0, bytes(8)),
        PROTOCOL_ERROR,
    ),
    "9113-6.6 a promise that is shorter than its padding": (
        frame(PUSH_PROMISE, ASKED, b"\xff" + u32(2) + PROMISE, flags=END_HEADERS | PADDED),
        PROTOCOL_ERROR,
    ),
    "9113-6.6 a promise of three bytes": (frame(PUSH_PROMISE, ASKED, b"\0\0\0", flags=END_HEADERS), FRAME_SIZE_ERROR),
    "9113-5.1 DATA on a promised stream that has no head yet": (
        promise(ASKED, 2) + frame(DATA, 2, b"x"),
        PROTOCOL_ERROR,
    ),
    "9113-5.1 DATA that is empty, and ends a promised stream before its head": (
        promise(ASKED, 2) + frame(DATA, 2, flags=END_STREAM),
        PROTOCOL_ERROR,
    ),
    "9113-5.1 WINDOW_UPDATE on a promised stream that has no head yet": (
        promise(ASKED, 2) + frame(WINDOW_UPDATE, 2, u32(5)),
        PROTOCOL_ERROR,
    ),
    "9113-4.3 a promise that cannot be decoded": (promise(ASKED, 2, b"\x80"), COMPRESSION_ERROR),
}


def breaks(wire: bytes, code: int, *, push: bool = False) -> None:
    for by_bytes in (False, True):
        heard, failure, said = outcome(session(push=push), wire, by_bytes=by_bytes)
        assert (failure != "None", goaway_code(said)) == (True, code), failure
        assert not any(isinstance(event, events.Data) and event.data == b"x" for event in heard[3:])


@pytest.mark.parametrize("must", BREAKS)
def test_a_server_that_breaks_it_is_left_with_the_code_of_the_rfc(must: str) -> None:
    breaks(*BREAKS[must])


@pytest.mark.parametrize("must", BREAKS_PUSHES)
def test_a_server_that_breaks_it_with_a_push_is_left_too(must: str) -> None:
    breaks(*BREAKS_PUSHES[must], push=True)


# By name: bytes behind which the same connection still gives a good answer.
BEARS: dict[str, bytes] = {
    "9113-4.1 unused flags of DATA, HEADERS and SETTINGS mean nothing": frame(SETTINGS, 0, flags=0xFE)
    + head(OK, RESET, flags=END_HEADERS | 0xC2),
    "9113-4.1 a reserved bit before a stream id means nothing": frame(WINDOW_UPDATE, UPLOADING | 1 << 31, u32(1)),
    "9113-5.1 PRIORITY on an idle stream": frame(2, IDLE, b"\0\0\0\x03\1"),
    "9113-6.1 padding that is not zero": frame(DATA, RESET, b"\x03abcxyz", flags=PADDED),
    "9113-6.5.2 a setting that nobody knows": frame(SETTINGS, 0, setting(0xFFFF, 2**32 - 1)),
    "9113-6.5.2 ENABLE_PUSH=0 from a server": frame(SETTINGS, 0, setting(2, 0)),
    "9113-6.5.2 MAX_CONCURRENT_STREAMS of all that fits": frame(SETTINGS, 0, setting(3, 2**32 - 1)),
    "9113-6.5.2 INITIAL_WINDOW_SIZE of 2**31-1": frame(SETTINGS, 0, setting(4, 2**31 - 1)),
    "9113-6.5.2 MAX_FRAME_SIZE of 2**24-1": frame(SETTINGS, 0, setting(5, 2**24 - 1)),
    "9113-6.5.2 HEADER_TABLE_SIZE of 2**32-1": frame(SETTINGS, 0, setting(1, 2**32 - 1)),
    "9113-6.5.3 SETTINGS of nothing": frame(SETTINGS),
    "9113-7 a GOAWAY with a code that nobody knows": goaway(2**31 - 1, 0xBADC0DE),
    "9113-8.1 interim heads": head([(":status", "100")], UPLOADING) + head([(":status", "103")], UPLOADING),
    "7541-4.1 an entry larger than the table empties it": fields_in(b"")[:0]
    + frame(HEADERS, RESET, b"\x20\x88\x40\x01x\x05value", flags=END_HEADERS),
    "7541-4.2 two table updates before a field": frame(HEADERS, RESET, b"\x20\x3f\xe1\x1f\x88", flags=END_HEADERS),
    "7541-2.3.2 the same entry twice": frame(HEADERS, RESET, b"\x88\x40\x01x\x01y\x40\x01x\x01y", flags=END_HEADERS),
    "7541-6.2.3 a field that is never indexed": frame(HEADERS, RESET, b"\x88\x10\x01x\x01y", flags=END_HEADERS),
    "7541-5.2 seven bits of padding": frame(HEADERS, RESET, b"\x88\x00\x81\xf3\x01y", flags=END_HEADERS),
}


@pytest.mark.parametrize("must", BEARS)
@pytest.mark.parametrize("by_bytes", [False, True])
def test_what_a_client_must_bear_is_borne(must: str, by_bytes: bool) -> None:
    heard, failure, said = outcome(session(), BEARS[must] + GOOD_ANSWER, by_bytes=by_bytes)
    assert (failure, goaway_code(said), resets(said)) == ("None", None, [])
    assert [event for event in heard if getattr(event, "stream_id", None) == ASKED] == ALL_OF_IT


MEANS: dict[str, tuple[bytes, list[Any]]] = {
    "9113-6.2 END_STREAM stands on HEADERS, though CONTINUATION follows": (
        fields_in(INDEXED_OK, END_STREAM) + frame(CONTINUATION, ASKED, b"\x00\x01x\x01y", flags=END_HEADERS),
        [events.Head(ASKED, 200, [(b"x", b"y")]), events.End(ASKED)],
    ),
    "9113-6.10 a flag END_STREAM on CONTINUATION means nothing": (
        fields_in(INDEXED_OK, 0) + frame(CONTINUATION, ASKED, b"", flags=END_HEADERS | END_STREAM),
        [events.Head(ASKED, 200, [])],
    ),
    "9113-6.1 padding is no body, and counts": (
        head(OK) + frame(DATA, ASKED, b"\x03abc\0\0\0", flags=PADDED | END_STREAM),
        [events.Head(ASKED, 200, []), events.Data(ASKED, b"abc", 7), events.End(ASKED)],
    ),
    "9113-7 a reset with a code that nobody knows is a reset": (
        frame(RST_STREAM, ASKED, u32(0xBADC0DE)),
        [events.Reset(ASKED, 0xBADC0DE)],
    ),
    "9113-8.1 a reset with NO_ERROR behind a whole answer takes nothing back": (
        head(OK, UPLOADING) + frame(DATA, UPLOADING, b"abc", flags=END_STREAM) + frame(RST_STREAM, UPLOADING, u32(0)),
        [
            events.Head(UPLOADING, 200, []),
            events.Data(UPLOADING, b"abc", 3),
            events.End(UPLOADING),
            events.Reset(UPLOADING, 0),
        ],
    ),
    "9113-8.1 trailers end a message": (
        head(OK) + head([("x-sum", "1")], flags=END_HEADERS | END_STREAM),
        [events.Head(ASKED, 200, []), events.Trailers(ASKED, [(b"x-sum", b"1")]), events.End(ASKED)],
    ),
    "9113-8.2.3 several fields of one name stay several": (
        head([*OK, ("set-cookie", "a=1"), ("set-cookie", "b=2")], flags=END_HEADERS | END_STREAM),
        [events.Head(ASKED, 200, [(b"set-cookie", b"a=1"), (b"set-cookie", b"b=2")]), events.End(ASKED)],
    ),
    "7541-2.3 the dynamic table holds from block to block": (
        frame(HEADERS, UPLOADING, b"\x88\x40\x01x\x01y", flags=END_HEADERS)
        + fields_in(b"\x88\xbe", END_HEADERS | END_STREAM),
        [
            events.Head(UPLOADING, 200, [(b"x", b"y")]),
            events.Head(ASKED, 200, [(b"x", b"y")]),
            events.End(ASKED),
        ],
    ),
}


@pytest.mark.parametrize("must", MEANS)
@pytest.mark.parametrize("by_bytes", [False, True])
def test_it_means_what_the_rfc_says(must: str, by_bytes: bool) -> None:
    wire, meant = MEANS[must]
    heard, failure, _ = outcome(session(), wire, by_bytes=by_bytes)
    assert (heard, failure) == (meant, "None")


def test_the_static_table_is_the_rfcs() -> None:
    """7541-A: 61 entries, of which only ``:status`` may stand in a response."""
    decoded = hpack.Decoder().decode(bytes(0x80 | number for number in range(1, 62)))
    assert len(list(decoded)) == 61
    for number in range(8, 15):
        heard, _, _ = outcome(session(), fields_in(bytes([0x80 | number])))
        assert heard[0].status == (200, 204, 206, 304, 400, 404, 500)[number - 8]


# -- what a client must do ---------------------------------------------------------------------------------------------


def said_by(act: Callable[[H2Codec], object], codec: H2Codec | None = None) -> list[tuple[int, int, bytes]]:
    """The frames that we write for this."""
    codec = codec or session()
    act(codec)
    assert codec.failure is None
    return frames_of(codec.data_to_send())


def request_head(url: str = "https://a.test/x", method: str = "GET", **headers: str) -> RequestHead:
    pairs = [(name.replace("_", "-"), value) for name, value in headers.items()]
    return prepare_head(method=method, url=parse_url(url), headers=pairs, body_bytes=0)


def written(request: RequestHead) -> list[tuple[str, str]]:
    """The fields of the HEADERS frame that opens this request, on a connection of its own."""
    codec = H2Codec(Limits())
    codec.receive(GREETING)
    codec.data_to_send()
    (kind, _, fields), *_ = said_by(lambda codec: codec.open(request, end=True), codec)
    assert kind == HEADERS
    return [(str(name), str(value)) for name, value in hpack.Decoder().decode(fields)]


class TestWhatWeSend:
    def test_9113_3_4_the_preface_is_first_and_settings_follow(self) -> None:
        wire = H2Codec(Limits()).data_to_send()
        assert wire.startswith(PREFACE)
        assert wire[len(PREFACE) + 3] == SETTINGS and wire[len(PREFACE) + 4] == 0

    def test_9113_4_1_no_reserved_bit_and_no_unused_flag_is_set(self) -> None:
        codec = H2Codec(Limits())
        codec.open(HEAD, end=False)
        codec.send(1, b"abc", end=True)
        codec.ping(bytes(8))
        wire = codec.data_to_send()[len(PREFACE) :]
        used = {DATA: 0x9, HEADERS: 0x2D, SETTINGS: 0x1, PING: 0x1, WINDOW_UPDATE: 0}
        while wire:
            size = int.from_bytes(wire[:3], "big")
            assert not wire[5] & 0x80 and not wire[4] & ~used[wire[3]]
            wire = wire[9 + size :]

    def test_9113_4_2_no_frame_of_ours_is_larger_than_the_server_allows(self) -> None:
        """A block that is larger goes on in CONTINUATION frames, with nothing between (6.10)."""
        request = RequestHead(b"GET", b"https", b"a.test", b"/", ((b"x-large", b"\x7e\x5c" * 20_000),))
        frames = said_by(lambda codec: codec.open(request, end=True))
        assert all(len(body) <= 16_384 for _, _, body in frames)
        assert [kind for kind, _, _ in frames] == [HEADERS, *[CONTINUATION] * (len(frames) - 1)] and len(frames) > 1

    def test_9113_4_3_1_a_table_update_answers_a_smaller_table(self) -> None:
        codec = session()
        codec.receive(frame(SETTINGS, 0, setting(1, 0)))
        codec.data_to_send()
        ((_, _, fields),) = said_by(lambda codec: codec.open(HEAD, end=True), codec)
        assert fields[:1] == b"\x20"

    def test_9113_5_1_1_ids_are_odd_and_rise(self) -> None:
        codec = session()
        assert [codec.open(HEAD, end=True) for _ in range(5)] == [9, 11, 13, 15, 17]

    def test_9113_5_4_1_a_connection_error_is_told_with_goaway_and_nothing_follows(self) -> None:
        codec = session()
        codec.receive(head(OK, 2))
        codec.reset(ASKED, 8)
        codec.grant(1_000)
        assert [kind for kind, _, _ in frames_of(codec.data_to_send())] == [7]

    def test_9113_5_4_2_a_reset_is_not_answered_with_a_reset(self) -> None:
        frames = said_by(lambda codec: codec.receive(frame(RST_STREAM, ASKED, u32(8)) * 2))
        assert frames == []

    def test_9113_6_5_3_settings_are_acknowledged_once_each_in_order(self) -> None:
        frames = said_by(lambda codec: codec.receive(frame(SETTINGS, 0, setting(3, 5)) * 3))
        assert frames == [(SETTINGS, 0, b"")] * 3

    def test_9113_6_5_3_settings_of_one_frame_hold_in_their_order(self) -> None:
        codec = session()
        codec.receive(frame(SETTINGS, 0, setting(3, 5) + setting(3, 9) + setting(3, 7)))
        assert codec.peer_stream_limit == 7

    def test_9113_6_5_3_an_acknowledgement_is_not_acknowledged(self) -> None:
        assert said_by(lambda codec: codec.receive(frame(SETTINGS, flags=ACK))) == []

    def test_9113_6_7_a_ping_is_answered_with_its_own_bytes(self) -> None:
        assert said_by(lambda codec: codec.receive(frame(PING, 0, b"12345678"))) == [(PING, 0, b"12345678")]

    def test_9113_6_7_an_answer_to_ping_is_not_answered(self) -> None:
        assert said_by(lambda codec: codec.receive(frame(PING, 0, b"12345678", flags=ACK))) == []

    def test_9113_6_9_1_padding_is_credited_like_data(self) -> None:
        """Else the connection's window would leak away (what is credited is what the event says it cost)."""
        codec = session()
        heard = codec.receive(head(OK) + frame(DATA, ASKED, b"\xff" + bytes(255), flags=PADDED))
        assert isinstance(heard[1], events.Data) and heard[1].flow_bytes == 256

    @pytest.mark.parametrize("window", [0, 1, 100, 65_535])
    def test_9113_6_9_1_no_byte_is_sent_past_a_window(self, window: int) -> None:
        codec = session()
        codec.receive(frame(SETTINGS, 0, setting(4, window)))
        assert codec.send_capacity(UPLOADING) == min(window, 16_384)
        codec.send(UPLOADING, bytes(min(window, 16_384)), end=False)
        assert codec.send_capacity(UPLOADING) == min(max(window - 16_384, 0), 16_384)

    def test_9113_6_9_2_a_window_may_turn_negative_and_is_waited_for(self) -> None:
        codec = session()
        codec.send(UPLOADING, bytes(10_000), end=False)
        codec.receive(frame(SETTINGS, 0, setting(4, 1_000)))
        assert codec.send_capacity(UPLOADING) == -9_000
        codec.receive(frame(WINDOW_UPDATE, UPLOADING, u32(9_001)))
        assert codec.send_capacity(UPLOADING) == 1

    def test_9113_6_9_2_settings_do_not_change_the_connections_window(self) -> None:
        codec = session()
        codec.receive(frame(SETTINGS, 0, setting(4, 2**31 - 1)) + frame(SETTINGS, 0, setting(5, 1 << 20)))
        assert codec.send_capacity(UPLOADING) == 65_535

    def test_9113_6_6_push_is_switched_off_in_our_first_settings(self) -> None:
        wire = H2Codec(Limits()).data_to_send()[len(PREFACE) :]
        assert setting(2, 0) in frames_of(wire)[0][2]

    def test_9113_8_2_names_are_lower_case(self) -> None:
        request = prepare_head(method="GET", url=parse_url("https://a.test/"), headers=[("X-Name", "V")], body_bytes=0)
        assert ("x-name", "V") in written(request)

    def test_9113_8_2_2_nothing_of_a_connection_is_sent(self) -> None:
        request = request_head(Connection="keep-alive", Keep_Alive="timeout=5", Proxy_Connection="keep-alive")
        names = {name for name, _ in written(request)}
        assert not names & {"connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"}

    def test_9113_8_2_2_te_says_trailers_alone(self) -> None:
        assert ("te", "trailers") in written(request_head(TE="trailers"))

    def test_9113_8_3_pseudo_headers_come_first_and_once(self) -> None:
        names = [name for name, _ in written(request_head(X="1"))]
        assert sorted(names[:4]) == [":authority", ":method", ":path", ":scheme"]
        assert not any(name.startswith(":") for name in names[4:])

    def test_9113_8_3_1_authority_has_no_user_and_no_host_stands_beside_it(self) -> None:
        fields = dict(written(request_head("https://user:secret@a.test/", Host="b.test")))
        assert fields[":authority"] == "b.test" and "host" not in fields

    def test_9113_8_3_1_a_path_is_never_empty(self) -> None:
        assert dict(written(request_head("https://a.test")))[":path"] == "/"
        assert dict(written(request_head("https://a.test?q")))[":path"] == "/?q"

    def test_9113_8_3_1_options_of_the_server_is_a_star(self) -> None:
        request = RequestHead(b"OPTIONS", b"https", b"a.test", b"*", ())
        assert dict(written(request))[":path"] == "*"

    @pytest.mark.parametrize("url", ["https://a.test/", "http://a.test:8080/"])
    def test_9113_8_5_connect_is_never_written(self, url: str) -> None:
        """A tunnel is no request (no :scheme, no :path, no end): its method is refused before there is a head."""
        with pytest.raises(LocalProtocolError, match="opens a tunnel") as caught:
            request_head(url, "CONNECT")
        assert caught.value.origin == url.rstrip("/") and caught.value.processed == "no"

    def test_9113_8_6_no_upgrade_is_offered(self) -> None:
        assert not {"upgrade", "http2-settings"} & {name for name, _ in written(request_head())}

    def test_7541_7_1_3_a_secret_is_never_indexed(self) -> None:
        ((_, _, fields),) = said_by(lambda codec: codec.open(request_head(Authorization="Basic c2VjcmV0"), end=True))
        assert b"\x1f\x08" in fields  # 0001xxxx: never indexed; static name 23

    def test_7541_4_2_our_table_never_outgrows_the_servers(self) -> None:
        codec = session()
        codec.receive(frame(SETTINGS, 0, setting(1, 100)))
        table = codec._machine.encoder.header_table
        for number in range(50):
            codec.open(RequestHead(b"GET", b"https", b"a.test", b"/", ((b"x-%d" % number, b"y" * 30),)), end=True)
            assert table.maxsize == 100 and table._current_size <= 100


# -- what stands elsewhere ---------------------------------------------------------------------------------------------

# By section: the file, and a word of it that names the case (a form, or a test).
HELD: dict[str, tuple[str, str]] = {
    "9113-3.4 the first frame is SETTINGS": ("test_hostile_http2.py", "test_a_server_begins_with_settings"),
    "9113-4.1 unknown frames, flags and bits": ("test_hostile_http2.py", "F19 5.5 an unknown frame"),
    "9113-4.2 MAX_FRAME_SIZE": ("test_hostile_http2.py", "F2 4.2"),
    "9113-4.3 COMPRESSION_ERROR": ("test_hostile_http2.py", "A11 RFC 9113 4.3"),
    "9113-5.1 idle streams": ("test_hostile_http2.py", "F6 5.1 DATA on an idle stream"),
    "9113-5.1 streams that are over": ("test_hostile_http2.py", "F7 5.1 DATA behind the end"),
    "9113-5.1 frames behind our reset": ("test_hostile_http2.py", "F8 5.1 HEADERS on a stream that we have reset"),
    "9113-5.1.1 ids of a server": ("test_hostile_http2.py", "F9 5.1.1 HEADERS on an even stream"),
    "9113-5.1.1 ids that are used up": ("../engine/test_loop_goaway.py", "test_when_the_stream_ids_are_used_up"),
    "9113-5.1.2 MAX_CONCURRENT_STREAMS": ("../engine/engine_bench.py", "RFC 9113 5.1.2: more streams"),
    "9113-5.5 extension frames in a block": ("test_hostile_http2.py", "an unknown frame inside a block"),
    "9113-6.1 padding of DATA": ("test_hostile_http2.py", "F5 6.1 DATA that is shorter"),
    "9113-6.2 padding of HEADERS": ("test_hostile_http2.py", "F5 6.2 HEADERS that are shorter"),
    "9113-6.3 PRIORITY": ("test_hostile_http2.py", "test_priority_of_a_wrong_size"),
    "9113-6.4 RST_STREAM": ("test_hostile_http2.py", "F6 6.4 RST_STREAM on an idle stream"),
    "9113-6.5 SETTINGS with an acknowledgement": ("test_hostile_http2.py", "F17 6.5 an acknowledgement with settings"),
    "9113-6.5.2 ENABLE_PUSH=1 from a server": ("test_hostile_http2.py", "F16 6.5.2 a server that enables push"),
    "9113-6.5.2 INITIAL_WINDOW_SIZE": ("test_hostile_http2.py", "F14 6.5.2 windows of 2**31"),
    "9113-6.5.2 MAX_FRAME_SIZE": ("test_hostile_http2.py", "F15 6.5.2 frames of nothing"),
    "9113-6.5.3 no acknowledgement in time": ("../engine/test_loop_hostile.py", "never_acknowledges_our_settings"),
    "9113-6.6 push without leave": ("test_hostile_http2.py", "F21 8.4 a push without leave"),
    "9113-6.8 GOAWAY": ("../engine/test_loop_goaway.py", "test_streams_above_the_last_id_go_to_a_new_connection"),
    "9113-6.8 last ids do not rise": ("../engine/test_loop_goaway.py", "test_a_second_goaway_with_a_higher_id"),
    "9113-6.9 no increment": ("test_hostile_http2.py", "F11 6.9 no increment for the connection"),
    "9113-6.9 beyond our window": ("test_hostile_http2.py", "test_more_than_a_window_breaks_the_connection"),
    "9113-6.9.1 windows over 2**31-1": ("test_hostile_http2.py", "F12 6.9.1 the connection's window"),
    "9113-6.10 CONTINUATION": ("test_hostile_http2.py", "F10 6.10 CONTINUATION of nothing"),
    "9113-8.1 the frames of a message": ("test_hostile_http2.py", "M7 8.1 trailers without an end"),
    "9113-8.1 an answer before the upload's end": ("../engine/test_loop_uploads.py", "NO_ERROR"),
    "9113-8.1.1 lengths": ("test_hostile_http2.py", "M6 8.1.1 less than the length"),
    "9113-8.2.1 names and values": ("test_hostile_http2.py", "M4 8.2.1 CR in a value"),
    "9113-8.2.2 connection fields": ("test_hostile_http2.py", "M5 8.2.2 connection"),
    "9113-8.3 pseudo-headers": ("test_hostile_http2.py", "M1 8.3 an unknown pseudo-header"),
    "9113-8.3.2 one status": ("test_hostile_http2.py", "M1 8.3.2 two statuses"),
    "9113-8.5 CONNECT, over both versions": ("../client/test_client_methods.py", '["CONNECT", "connect"]'),
    "9113-8.5 CONNECT through a proxy": ("../engine/test_tunnel.py", "test_a_tunnel_is_asked_for_by_host_and_port"),
    "9113-8.6 no 101": ("test_hostile_http2.py", "M3 8.6 101"),
    "9113-8.7 what may be sent again": ("../client/test_client_retry_rules.py", "REFUSED_STREAM"),
    "9113-9.2.1 no renegotiation": ("../client/test_client_tls_faults.py", "renegotiat"),
    "9113-10.5 floods": ("test_hostile_http2.py", "test_a_flood_ends_early_and_is_named"),
    "9113-10.5.1 large heads": ("test_hostile_http2.py", "test_a_bomb_of_references_is_stopped"),
    "7541-2.3.3 indexes": ("test_hostile_http2.py", "A11 RFC 7541 6.1 index 0"),
    "7541-4.2 table updates": ("test_hostile_http2.py", "A11 RFC 7541 4.2 a table update behind a field"),
    "7541-5.1 integers": ("test_hostile_http2.py", "A11 RFC 7541 5.1 an integer without an end"),
    "7541-5.2 Huffman padding": ("test_hostile_http2.py", "A11 RFC 7541 5.2 Huffman padding of zeros"),
    "7541-6.3 a table larger than allowed": ("test_hostile_http2.py", "A11 RFC 7541 6.3"),
}


@pytest.mark.parametrize("must", HELD)
def test_what_is_held_elsewhere_still_is(must: str) -> None:
    file, word = HELD[must]
    assert word in (HERE / file).read_text(), f"{must}: {word!r} is no longer in {file}"


def test_a_connection_that_broke_nothing_is_as_good_as_new() -> None:
    """The sessions of this file have behaved until their case begins."""
    assert outcome(session(), GOOD_ANSWER)[0] == ALL_OF_IT
    assert GREETING.startswith(frame(SETTINGS))
