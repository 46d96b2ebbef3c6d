"""H2Codec against a real HTTP/2 server machine, in memory: h2's own, played from the other side."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.settings
import hpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hyperpool.errors import RemoteProtocolError
from hyperpool.protocol import events, h2_codec, h2_machine
from hyperpool.protocol.events import RequestHead
from hyperpool.protocol.h2_codec import H2Codec
from hyperpool.values import Limits

# On a busy machine an example may take long: that is no failure.
unhurried = settings(deadline=None)

Codes = h2.settings.SettingCodes
OK = [(b":status", b"200")]
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM, END_HEADERS = 1, 4


def head(method: bytes = b"GET", *, body_bytes: int | None = 0) -> RequestHead:
    fields = ((b"User-Agent", b"t"), (b"Authorization", b"secret"))
    return RequestHead(method, b"https", b"a.test", b"/x", fields, body_bytes)


def frame(kind: int, stream_id: int, body: bytes = b"", *, flags: int = 0, size: int | None = None) -> bytes:
    """A frame (RFC 9113 4.1) as no decent server would send it."""
    length = len(body) if size is None else size
    return length.to_bytes(3, "big") + bytes([kind, flags]) + stream_id.to_bytes(4, "big") + body


class Pair:
    """A client codec and a server machine with nothing but bytes between them."""

    def __init__(
        self, limits: Limits | None = None, *, settings: dict[int, int] | None = None, push: bool = False
    ) -> None:
        config = h2.config.H2Configuration(
            client_side=False, header_encoding=None, validate_outbound_headers=False, normalize_outbound_headers=False
        )
        self.client = H2Codec(limits or Limits(), push=push)
        self.server = h2.connection.H2Connection(config=config)
        self.server.local_settings.update(settings or {})
        self.server.local_settings.acknowledge()
        self.server.initiate_connection()
        self.seen: list[Any] = []
        self.meet()

    def to_server(self) -> list[Any]:
        heard = self.server.receive_data(self.client.data_to_send())
        self.seen += heard
        return heard

    def to_client(self, *more: bytes) -> list[events.Event]:
        return self.client.receive(b"".join((self.server.data_to_send(), *more)))

    def meet(self) -> None:
        """Let both say what they have until neither has anything."""
        for _ in range(3):
            self.to_server()
            self.to_client()

    def request(self, *, end: bool = True) -> int:
        stream_id = self.client.open(head(), end=end)
        self.to_server()
        return stream_id

    def answer(self, stream_id: int, body: bytes = b"", *, fields: Any = OK) -> None:
        self.server.send_headers(stream_id, fields, end_stream=not body)
        if body:
            self.server.send_data(stream_id, body, end_stream=True)

    def of(self, kind: type) -> list[Any]:
        """What the server has heard of one kind."""
        self.to_server()
        return [event for event in self.seen if isinstance(event, kind)]

    def goaway_code(self) -> int | None:
        """The code of the GOAWAY that the client has said, if it has."""
        wire = self.client.data_to_send()
        while wire:
            size = int.from_bytes(wire[:3], "big")
            if wire[3] == GOAWAY:
                return int.from_bytes(wire[13:17], "big")
            wire = wire[9 + size :]
        return None


def resets_in(wire: bytes) -> list[int]:
    """The streams that these frames reset, in their order."""
    found = []
    while wire:
        size = int.from_bytes(wire[:3], "big")
        if wire[3] == RST_STREAM:
            found.append(int.from_bytes(wire[5:9], "big"))
        wire = wire[9 + size :]
    return found


@pytest.fixture
def pair() -> Pair:
    return Pair()


def block(pair: Pair, fields: list[tuple[bytes, bytes]]) -> bytes:
    """A header block that the client can decode, whatever it says."""
    return pair.server.encoder.encode(fields, huffman=False)


class TestThePreface:
    def test_one_settings_frame_says_it_all(self) -> None:
        """RFC 9113 3.4, 6.5.2: no push, our windows, our bound on headers."""
        pair = Pair(Limits(stream_window_bytes=1 << 18, max_header_bytes=1 << 15))
        changes = pair.of(h2.events.RemoteSettingsChanged)
        values = {code: change.new_value for code, change in changes[0].changed_settings.items()}
        assert len(changes) == 1
        assert values[Codes.ENABLE_PUSH] == 0
        assert values[Codes.INITIAL_WINDOW_SIZE] == 1 << 18
        assert values[Codes.MAX_HEADER_LIST_SIZE] == 1 << 15
        assert values[Codes.MAX_FRAME_SIZE] == h2_codec.MAX_FRAME_BYTES

    def test_the_connection_window_is_opened_at_once(self) -> None:
        pair = Pair(Limits(connection_window_bytes=1 << 20))
        assert pair.server.outbound_flow_control_window == 1 << 20

    def test_the_smallest_connection_window_needs_no_frame(self) -> None:
        pair = Pair(Limits(connection_window_bytes=65_535))
        assert pair.of(h2.events.WindowUpdated) == []

    def test_the_peers_settings_are_an_event_and_acknowledged(self) -> None:
        """RFC 9113 6.5.3."""
        codec = H2Codec(Limits())
        before = codec.settings_received
        codec.data_to_send()
        heard = codec.receive(frame(SETTINGS, 0))
        assert (before, heard, codec.settings_received) == (False, [events.PeerSettings()], True)
        assert codec.data_to_send() == frame(SETTINGS, 0, flags=1)


class TestStreamLimits:
    def test_before_settings_one_stream_may_open(self) -> None:
        """DESIGN 5: nobody can overrun a limit that was not told yet."""
        assert H2Codec(Limits()).peer_stream_limit == 1

    def test_after_settings_the_peers_limit_counts(self) -> None:
        assert Pair(settings={Codes.MAX_CONCURRENT_STREAMS: 7}).client.peer_stream_limit == 7

    def test_a_peer_that_names_none_allows_many(self) -> None:
        codec = H2Codec(Limits())
        codec.receive(frame(SETTINGS, 0))
        assert codec.peer_stream_limit > 1_000

    def test_a_lowered_limit_counts_at_once(self, pair: Pair) -> None:
        """F25."""
        pair.server.update_settings({Codes.MAX_CONCURRENT_STREAMS: 0})
        heard = pair.to_client()
        assert (heard, pair.client.peer_stream_limit) == ([events.PeerSettings()], 0)

    def test_ids_count_up_by_two(self, pair: Pair) -> None:
        """RFC 9113 5.1.1; L6."""
        assert [pair.request() for _ in range(3)] == [1, 3, 5]

    def test_the_last_id_can_be_used_and_is_the_last(self, pair: Pair) -> None:
        """F27."""
        pair.client._machine.highest_outbound_stream_id = 2**31 - 3
        before = pair.client.exhausted
        assert (before, pair.client.open(head(), end=True), pair.client.exhausted) == (False, 2**31 - 1, True)

    def test_a_fresh_connection_is_not_exhausted(self, pair: Pair) -> None:
        assert not pair.client.exhausted


class TestRequests:
    def test_the_head_arrives_as_it_was_meant(self, pair: Pair) -> None:
        pair.request()
        fields = [tuple(field) for field in pair.of(h2.events.RequestReceived)[0].headers]
        assert fields == [
            (b":method", b"GET"),
            (b":scheme", b"https"),
            (b":authority", b"a.test"),
            (b":path", b"/x"),
            (b"user-agent", b"t"),
            (b"authorization", b"secret"),
        ]

    def test_a_request_is_encoded_in_the_moment_in_which_it_takes_its_id(self, pair: Pair) -> None:
        """L6: ids and HPACK in the order of the wire."""
        for _ in range(5):
            pair.client.open(head(), end=True)
        pair.to_server()
        assert [event.stream_id for event in pair.of(h2.events.RequestReceived)] == [1, 3, 5, 7, 9]

    def test_a_body_arrives_with_its_end(self, pair: Pair) -> None:
        stream_id = pair.request(end=False)
        pair.client.send(stream_id, memoryview(b"abc"), end=False)
        pair.client.send(stream_id, b"", end=True)
        assert b"".join(event.data for event in pair.of(h2.events.DataReceived)) == b"abc"
        assert len(pair.of(h2.events.StreamEnded)) == 1

    def test_cancelling_says_so(self, pair: Pair) -> None:
        stream_id = pair.request()
        pair.client.reset(stream_id, h2_codec.CANCEL)
        assert [event.error_code for event in pair.of(h2.events.StreamReset)] == [h2_codec.CANCEL]

    def test_resetting_a_stream_that_has_ended_says_nothing(self, pair: Pair) -> None:
        stream_id = pair.request()
        pair.answer(stream_id)
        pair.meet()
        pair.client.reset(stream_id, h2_codec.CANCEL)
        assert pair.client.data_to_send() == b""

    def test_resetting_a_stream_that_never_was_says_nothing(self, pair: Pair) -> None:
        pair.request()
        pair.client.reset(99, h2_codec.CANCEL)
        assert pair.client.data_to_send() == b""

    def test_leaving_says_goaway(self, pair: Pair) -> None:
        pair.client.go_away(h2_codec.NO_ERROR)
        assert pair.goaway_code() == 0

    def test_an_unknown_error_code_has_a_name_too(self) -> None:
        assert [h2_codec.error_name(8), h2_codec.error_name(999)] == ["CANCEL", "error 999"]


class TestSendWindows:
    def test_a_frame_is_bounded_by_the_peers_frame_size(self, pair: Pair) -> None:
        assert pair.client.send_capacity(pair.request(end=False)) == 16_384

    def test_a_frame_is_bounded_by_the_streams_window(self) -> None:
        pair = Pair(settings={Codes.INITIAL_WINDOW_SIZE: 100})
        assert pair.client.send_capacity(pair.request(end=False)) == 100

    def test_a_spent_window_allows_nothing(self) -> None:
        pair = Pair(settings={Codes.INITIAL_WINDOW_SIZE: 100})
        stream_id = pair.request(end=False)
        pair.client.send(stream_id, bytes(100), end=False)
        assert pair.client.send_capacity(stream_id) == 0

    def test_a_window_may_become_negative_and_open_again(self) -> None:
        """F26, RFC 9113 6.9.2."""
        pair = Pair(settings={Codes.INITIAL_WINDOW_SIZE: 100})
        stream_id = pair.request(end=False)
        pair.client.send(stream_id, bytes(80), end=False)
        pair.meet()
        pair.server.update_settings({Codes.INITIAL_WINDOW_SIZE: 0})
        pair.to_client()
        shut = pair.client.send_capacity(stream_id)
        heard = pair.client.receive(frame(WINDOW_UPDATE, stream_id, (200).to_bytes(4, "big")))
        assert (shut, pair.client.send_capacity(stream_id)) == (-80, 120)
        assert heard == [events.WindowOpened(stream_id)]

    def test_settings_that_open_windows_are_an_event(self) -> None:
        pair = Pair(settings={Codes.INITIAL_WINDOW_SIZE: 0})
        stream_id = pair.request(end=False)
        pair.server.update_settings({Codes.INITIAL_WINDOW_SIZE: 50})
        assert pair.to_client() == [events.PeerSettings()]
        assert pair.client.send_capacity(stream_id) == 50

    def test_the_connections_window_is_stream_0(self, pair: Pair) -> None:
        assert pair.client.receive(frame(WINDOW_UPDATE, 0, (5).to_bytes(4, "big"))) == [events.WindowOpened(0)]


class TestReceiveWindows:
    def test_credit_reaches_the_peer(self, pair: Pair) -> None:
        """L7, L8: for a stream and for the connection apart."""
        stream_id = pair.request()
        pair.server.send_headers(stream_id, OK)
        pair.server.send_data(stream_id, bytes(1_000))
        pair.to_client()
        pair.client.grant(1_000, stream_id)
        pair.client.grant(1_000)
        opened = [(event.stream_id, event.delta) for event in pair.of(h2.events.WindowUpdated)[-2:]]
        assert opened == [(stream_id, 1_000), (0, 1_000)]

    def test_nothing_is_credited_by_itself(self, pair: Pair) -> None:
        """L8: h2 alone would not know when a reader has read."""
        stream_id = pair.request()
        before = len(pair.of(h2.events.WindowUpdated))
        pair.answer(stream_id, bytes(16_000))
        pair.meet()
        assert len(pair.of(h2.events.WindowUpdated)) == before

    @pytest.mark.parametrize(("each", "sizes"), [(False, [7]), (True, [3, 4])])
    def test_frames_that_come_together_are_one_piece_unless_each_is_wanted(
        self, pair: Pair, each: bool, sizes: list[int]
    ) -> None:
        stream_id = pair.request()
        if each:
            pair.client.hear_each_frame()
        pair.server.send_headers(stream_id, OK)
        for piece in (b"abc", b"defg"):
            pair.server.send_data(stream_id, piece)
        heard = pair.to_client()[1:]
        assert [event.flow_bytes for event in heard if isinstance(event, events.Data)] == sizes

    def test_padding_counts(self, pair: Pair) -> None:
        """L7, RFC 9113 6.9.1: it costs the windows what it costs the wire."""
        stream_id = pair.request()
        pair.server.send_headers(stream_id, OK)
        pair.server.send_data(stream_id, b"abc", pad_length=10)
        assert pair.to_client()[-1] == events.Data(stream_id, b"abc", 14)

    @pytest.mark.parametrize("stream_id", [1, 99])
    def test_credit_for_a_stream_that_is_over_is_dropped(self, pair: Pair, stream_id: int) -> None:
        pair.answer(pair.request())
        pair.meet()
        pair.client.grant(1_000, stream_id)
        assert pair.client.data_to_send() == b""

    def test_credit_for_a_stream_that_h2_has_not_swept_yet_is_dropped(self, pair: Pair) -> None:
        stream_id = pair.request()
        pair.answer(stream_id, b"abc")
        pair.to_client()
        pair.client.grant(3, stream_id)
        assert pair.client.data_to_send() == b""

    def test_more_than_the_window_is_refused(self) -> None:
        """F13."""
        pair = Pair(Limits(stream_window_bytes=65_535))
        stream_id = pair.request()
        pair.server.send_headers(stream_id, OK)
        flood = frame(DATA, stream_id, bytes(16_384)) * 4
        assert pair.to_client(flood)[1:] == [events.Data(stream_id, bytes(3 * 16_384), 3 * 16_384)]
        assert isinstance(pair.client.failure, RemoteProtocolError)
        assert pair.goaway_code() == h2.errors.ErrorCodes.FLOW_CONTROL_ERROR


class TestResponses:
    def test_a_response_is_head_data_trailers_end(self, pair: Pair) -> None:
        stream_id = pair.request()
        pair.server.send_headers(stream_id, [*OK, (b"x", b"1")])
        pair.server.send_data(stream_id, b"abc")
        pair.server.send_headers(stream_id, [(b"sum", b"2")], end_stream=True)
        assert pair.to_client() == [
            events.Head(stream_id, 200, [(b"x", b"1")]),
            events.Data(stream_id, b"abc", 3),
            events.Trailers(stream_id, [(b"sum", b"2")]),
            events.End(stream_id),
        ]

    def test_interim_heads_come_before(self, pair: Pair) -> None:
        stream_id = pair.request()
        pair.server.send_headers(stream_id, [(b":status", b"103"), (b"link", b"</a>")])
        pair.answer(stream_id)
        assert pair.to_client()[0] == events.Interim(stream_id, 103, [(b"link", b"</a>")])

    def test_a_reset_carries_its_code(self, pair: Pair) -> None:
        stream_id = pair.request()
        pair.server.reset_stream(stream_id, 7)
        assert pair.to_client() == [events.Reset(stream_id, h2_codec.REFUSED_STREAM)]

    def test_a_reset_with_an_unknown_code_is_a_reset(self, pair: Pair) -> None:
        """RFC 9113 7."""
        stream_id = pair.request()
        assert pair.to_client(frame(RST_STREAM, stream_id, (999).to_bytes(4, "big"))) == [events.Reset(stream_id, 999)]

    def test_frames_on_a_stream_that_we_have_reset_are_ignored(self, pair: Pair) -> None:
        """F8, RFC 9113 5.1: they were under way; what they cost of the connection's window is reported or returned."""
        stream_id = pair.request()
        pair.client.reset(stream_id, h2_codec.CANCEL)
        pair.answer(stream_id, b"abc")
        heard = pair.to_client()
        assert pair.client.failure is None
        assert not [event for event in heard if isinstance(event, (events.Head, events.Reset, events.End))]

    def test_a_window_raised_too_far_breaks_its_stream_alone(self, pair: Pair) -> None:
        """F12: h2 resets the stream by itself; whoever waits for it must hear (L5)."""
        bad, good = pair.request(end=False), pair.request()
        heard = pair.client.receive(frame(WINDOW_UPDATE, bad, b"\x7f\xff\xff\xff"))
        pair.answer(good)
        assert [(type(event), event.stream_id) for event in heard] == [(events.Broken, bad)]
        assert "FLOW_CONTROL_ERROR" in str(heard[0].error)
        assert pair.to_client()[-1] == events.End(good)

    def test_a_stream_that_h2_has_reset_is_reset_once(self, pair: Pair) -> None:
        """F12: the connection answers a Broken event with a reset of its own."""
        stream_id = pair.request(end=False)
        pair.client.receive(frame(WINDOW_UPDATE, stream_id, b"\x7f\xff\xff\xff"))
        pair.client.reset(stream_id, h2_codec.PROTOCOL_ERROR)
        assert resets_in(pair.client.data_to_send()) == [stream_id]

    def test_late_frames_on_a_stream_that_we_have_reset_are_not_answered_again(self, pair: Pair) -> None:
        """F8: a hundred resets for one cancelled download look like an attack (CVE-2023-44487)."""
        stream_id = pair.request()
        pair.server.send_headers(stream_id, OK)
        pair.to_client()
        pair.client.reset(stream_id, h2_codec.CANCEL)
        for _ in range(5):
            pair.server.send_data(stream_id, bytes(100))
        pair.to_client()
        assert resets_in(pair.client.data_to_send()) == [stream_id]

    def test_the_memory_of_resets_is_bounded(self, pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(h2_machine, "MAX_RESETS_KNOWN", 3)
        ids = [pair.request() for _ in range(5)]
        for stream_id in ids:
            pair.client.reset(stream_id, h2_codec.CANCEL)
        assert list(pair.client._machine._was_reset) == ids[-3:]

    def test_header_tables_survive_a_response_that_nobody_wanted(self, pair: Pair) -> None:
        """F8: the block of a reset stream is decoded all the same, or the next one means something else."""
        unwanted = pair.request()
        pair.client.reset(unwanted, h2_codec.CANCEL)
        pair.answer(unwanted, fields=[*OK, (b"x-new", b"value")])
        pair.to_client()
        wanted = pair.request()
        pair.answer(wanted, fields=[*OK, (b"x-new", b"value")])
        assert pair.to_client()[0] == events.Head(wanted, 200, [(b"x-new", b"value")])

    def test_a_pong_carries_our_bytes(self, pair: Pair) -> None:
        pair.client.ping(b"12345678")
        pair.to_server()
        assert pair.to_client() == [events.Pong(b"12345678")]

    def test_a_ping_is_answered_without_an_event(self, pair: Pair) -> None:
        """RFC 9113 6.7."""
        pair.server.ping(b"abcdefgh")
        assert pair.to_client() == []
        assert [event.ping_data for event in pair.of(h2.events.PingAckReceived)] == [b"abcdefgh"]

    def test_a_pong_that_nobody_asked_for_is_no_error(self, pair: Pair) -> None:
        """F20."""
        pair.client.receive(frame(PING, 0, b"00000000", flags=1))
        assert pair.client.failure is None

    def test_unknown_frames_are_ignored(self, pair: Pair) -> None:
        """F19."""
        assert (pair.client.receive(frame(0xFA, 1, b"abc")), pair.client.failure) == ([], None)

    def test_the_end_of_the_connection_is_no_end_of_a_message(self, pair: Pair) -> None:
        """M10: END_STREAM alone ends messages (RFC 9113 8.1)."""
        pair.request()
        assert pair.client.receive_eof() == []


class TestGoAway:
    """RFC 9113 6.8, python-hyper/h2 issue 1181."""

    @staticmethod
    def goaway(last: int, code: int = 0, debug: bytes = b"") -> bytes:
        return frame(GOAWAY, 0, last.to_bytes(4, "big") + code.to_bytes(4, "big") + debug)

    def test_it_is_an_event(self, pair: Pair) -> None:
        heard = pair.client.receive(self.goaway(3, 11, b"calm down"))
        assert heard == [events.GoAway(3, 11, b"calm down")]

    def test_without_words_and_with_an_unknown_code_as_well(self, pair: Pair) -> None:
        assert pair.client.receive(self.goaway(2**31 - 1, 999)) == [events.GoAway(2**31 - 1, 999, b"")]

    def test_streams_below_still_finish(self, pair: Pair) -> None:
        """F22: h2 alone would call their frames an error."""
        stream_id = pair.request()
        pair.server.send_headers(stream_id, OK)
        pair.to_client(self.goaway(stream_id))
        pair.server.send_data(stream_id, b"abc", end_stream=True)
        assert pair.to_client() == [events.Data(stream_id, b"abc", 3), events.End(stream_id)]
        assert pair.client.failure is None

    def test_frames_behind_it_in_the_same_read_count(self, pair: Pair) -> None:
        """F22."""
        stream_id = pair.request()
        pair.answer(stream_id, b"abc")
        heard = pair.client.receive(self.goaway(stream_id) + pair.server.data_to_send())
        assert [type(event) for event in heard] == [events.GoAway, events.Head, events.Data, events.End]

    def test_an_upload_goes_on(self, pair: Pair) -> None:
        """F22: its stream is below the last id."""
        stream_id = pair.request(end=False)
        pair.client.receive(self.goaway(stream_id))
        pair.client.send(stream_id, b"rest", end=True)
        assert pair.of(h2.events.DataReceived)[-1].data == b"rest"

    def test_what_waited_for_the_wire_is_still_sent(self, pair: Pair) -> None:
        """h2 alone would clear its output."""
        stream_id = pair.request(end=False)
        pair.client.send(stream_id, b"abc", end=True)
        pair.client.receive(self.goaway(stream_id))
        assert pair.of(h2.events.DataReceived)[-1].data == b"abc"

    def test_credit_cancels_and_pings_still_work(self, pair: Pair) -> None:
        """F22: a draining connection is a working one."""
        stream_id = pair.request()
        pair.server.send_headers(stream_id, OK)
        pair.to_client(self.goaway(stream_id))
        pair.client.ping(b"12345678")
        pair.client.grant(1_000, stream_id)
        pair.client.reset(stream_id, h2_codec.CANCEL)
        pair.to_server()
        kinds = {type(event) for event in pair.seen}
        assert kinds >= {h2.events.PingReceived, h2.events.WindowUpdated, h2.events.StreamReset}

    def test_a_second_one_is_an_event_of_its_own(self, pair: Pair) -> None:
        """F24: the two-step shutdown."""
        heard = pair.client.receive(self.goaway(2**31 - 1) + self.goaway(1))
        assert [event.last_stream_id for event in heard] == [2**31 - 1, 1]

    def test_one_that_is_too_short_is_an_error(self, pair: Pair) -> None:
        """F3."""
        pair.client.receive(frame(GOAWAY, 0, bytes(7)))
        assert isinstance(pair.client.failure, RemoteProtocolError)


BROKEN: dict[str, tuple[Callable[[Pair], bytes], int]] = {
    "F3 settings of 5 bytes": (lambda pair: frame(SETTINGS, 0, bytes(5)), 6),
    "F3 ping of 7 bytes": (lambda pair: frame(PING, 0, bytes(7)), 6),
    "F4 ping on a stream": (lambda pair: frame(PING, 1, bytes(8)), 1),
    "F4 data on stream 0": (lambda pair: frame(DATA, 0, b"x"), 1),
    "F5 padding longer than the frame": (lambda pair: frame(DATA, 1, b"\x09x", flags=8), 1),
    "F6 data on an idle stream": (lambda pair: frame(DATA, 9, b"x"), 1),
    "F9 head on an even stream": (lambda pair: frame(HEADERS, 2, block(pair, OK), flags=END_HEADERS), 1),
    "F10 continuation of nothing": (lambda pair: frame(CONTINUATION, 1, b"", flags=END_HEADERS), 1),
    "F10 ping inside a head": (lambda pair: frame(HEADERS, 1, block(pair, OK)) + frame(PING, 0, bytes(8)), 1),
    "F11 no increment": (lambda pair: frame(WINDOW_UPDATE, 0, bytes(4)), 1),
    "F12 window over 2**31-1": (lambda pair: frame(WINDOW_UPDATE, 0, b"\x7f\xff\xff\xff") * 2, 3),
    "F14 initial window over 2**31-1": (lambda pair: frame(SETTINGS, 0, b"\0\x04\xff\xff\xff\xff"), 3),
    "F15 frame size of 0": (lambda pair: frame(SETTINGS, 0, b"\0\x05\0\0\0\0"), 1),
    "F16 push enabled by a server": (lambda pair: frame(SETTINGS, 0, b"\0\x02\0\0\0\x01"), 1),
    "F21 push promise": (
        lambda pair: frame(PUSH_PROMISE, 1, b"\0\0\0\x02" + block(pair, [(b":method", b"GET")]), flags=END_HEADERS),
        1,
    ),
    "A11 index 0": (lambda pair: frame(HEADERS, 1, b"\x80", flags=END_HEADERS), 9),
    "A11 index past the table": (lambda pair: frame(HEADERS, 1, b"\xff\xff\x03", flags=END_HEADERS), 9),
}

MALFORMED = {
    "M1 no status": [(b"x", b"1")],
    "M1 two statuses": [*OK, *OK],
    "M1 a request's pseudo-header": [*OK, (b":path", b"/")],
    "M1 an unknown pseudo-header": [*OK, (b":color", b"red")],
    "M1 a pseudo-header behind a field": [(b"x", b"1"), *OK],
    "M4 an uppercase name": [*OK, (b"X", b"1")],
    "M4 a space in a name": [*OK, (b"a b", b"1")],
    "M4 an empty name": [*OK, (b"", b"1")],
    "M4 a line end in a value": [*OK, (b"x", b"1\r\ny: 2")],
    "M4 a NUL in a value": [*OK, (b"x", b"\0")],
    "M4 a blank before a value": [*OK, (b"x", b" 1")],
    "M4 a blank behind a value": [*OK, (b"x", b"1\t")],
    "M5 connection": [*OK, (b"connection", b"close")],
    "M5 transfer-encoding": [*OK, (b"transfer-encoding", b"chunked")],
    "M6 a length that is none": [*OK, (b"content-length", b"1x")],
    "M6 two lengths": [*OK, (b"content-length", b"1"), (b"content-length", b"2")],
}


class TestBrokenPeers:
    """RELIABILITY 1.1-1.2: never a 200 for a malformed message, never a foreign exception."""

    @pytest.mark.parametrize("fault", BROKEN)
    def test_a_broken_frame_fails_the_connection_with_its_code(self, pair: Pair, fault: str) -> None:
        make, code = BROKEN[fault]
        pair.request(end=False)
        pair.client.receive(make(pair))
        assert type(pair.client.failure) is RemoteProtocolError
        assert pair.goaway_code() == code

    @pytest.mark.parametrize("fault", MALFORMED)
    def test_a_malformed_head_breaks_its_stream_alone(self, pair: Pair, fault: str) -> None:
        """RFC 9113 8.1.1."""
        bad, good = pair.request(), pair.request()
        wire = frame(HEADERS, bad, block(pair, MALFORMED[fault]), flags=END_HEADERS | END_STREAM)
        heard = pair.client.receive(wire)
        assert [(type(event), event.stream_id) for event in heard] == [(events.Broken, bad)]
        assert type(heard[0].error) is RemoteProtocolError
        pair.answer(good, b"abc")
        assert pair.to_client()[0] == events.Head(good, 200, [])

    @pytest.mark.parametrize("status", [b"2x0", b"2000", b"", b"20", b"099", b" 200", b"1x0", b"1000", b"101"])
    def test_a_status_that_is_none_breaks_its_stream_alone(self, pair: Pair, status: bytes) -> None:
        """M2, M3: three digits, and no switching of protocols (RFC 9110 15, RFC 9113 8.6)."""
        stream_id = pair.request()
        heard = pair.to_client(frame(HEADERS, stream_id, block(pair, [(b":status", status)]), flags=END_HEADERS))
        if pair.client.failure is None:
            assert [(type(event), event.stream_id) for event in heard] == [(events.Broken, stream_id)]
            assert type(heard[0].error) is RemoteProtocolError
        assert not any(isinstance(event, (events.Head, events.Interim)) for event in heard)

    def test_a_broken_status_leaves_the_connection_alive(self, pair: Pair) -> None:
        """RFC 9113 8.1.1."""
        bad, good = pair.request(), pair.request()
        pair.client.receive(frame(HEADERS, bad, block(pair, [(b":status", b"2x0")]), flags=END_HEADERS))
        pair.answer(good, b"abc")
        assert pair.to_client()[0] == events.Head(good, 200, [])

    def test_an_interim_head_does_not_end_a_message(self, pair: Pair) -> None:
        """M8."""
        stream_id = pair.request()
        wire = frame(HEADERS, stream_id, block(pair, [(b":status", b"103")]), flags=END_HEADERS | END_STREAM)
        heard = pair.client.receive(wire)
        assert [(type(event), event.stream_id) for event in heard] == [(events.Broken, stream_id)]

    def test_what_is_said_of_a_malformed_message_is_short(self, pair: Pair) -> None:
        stream_id = pair.request()
        head = [*OK, (b"x", b" " + b"y" * 10_000)]
        heard = pair.client.receive(frame(HEADERS, stream_id, block(pair, head), flags=END_HEADERS))
        assert isinstance(heard[0], events.Broken) and len(str(heard[0].error)) < 300

    def test_a_body_of_another_length_is_an_error(self, pair: Pair) -> None:
        """M6."""
        stream_id = pair.request()
        pair.server.send_headers(stream_id, [*OK, (b"content-length", b"5")])
        heard = pair.to_client(frame(DATA, stream_id, b"abc", flags=END_STREAM))
        assert isinstance(heard[-1], events.Broken) and isinstance(heard[-1].error, RemoteProtocolError)

    def test_http1_text_is_refused_from_nine_bytes(self) -> None:
        """F1, T8."""
        codec = H2Codec(Limits())
        assert codec.receive(b"HTTP/1.1 ") == []
        assert "HTTP/1 text" in str(codec.failure)

    def test_a_frame_that_is_too_large_is_refused_from_nine_bytes(self, pair: Pair) -> None:
        """F2: and the peer is told why."""
        pair.client.receive(frame(DATA, 1, size=16_385))
        assert "16,385 bytes" in str(pair.client.failure)
        assert pair.goaway_code() == h2.errors.ErrorCodes.FRAME_SIZE_ERROR

    def test_a_header_list_over_the_limit_is_refused(self) -> None:
        """A9, A1: while it is decoded."""
        pair = Pair(Limits(max_header_bytes=1_000))
        stream_id = pair.request()
        wire = frame(HEADERS, stream_id, block(pair, [*OK, (b"x", b"y" * 1_000)]), flags=END_HEADERS)
        assert pair.client.receive(wire) == []
        assert isinstance(pair.client.failure, RemoteProtocolError)

    def test_a_header_list_of_just_the_limit_passes(self) -> None:
        """RFC 9113 6.5.2: names, values, and 32 for each field."""
        pair = Pair(Limits(max_header_bytes=1_000))
        stream_id = pair.request()
        value = b"y" * (1_000 - (7 + 3 + 32) - (1 + 32))
        wire = frame(HEADERS, stream_id, block(pair, [*OK, (b"x", value)]), flags=END_HEADERS)
        assert pair.client.receive(wire) == [events.Head(stream_id, 200, [(b"x", value)])]

    @pytest.mark.parametrize("leak", [KeyError("x"), ValueError("x"), RecursionError(), MemoryError()])
    def test_what_h2_itself_leaks_is_an_error_of_ours(
        self, pair: Pair, leak: Exception, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """h2 issue 1231: whatever it is, the loop must not die of it."""

        def leaking(*args: object, **options: object) -> None:
            raise leak

        stream_id = pair.request()
        monkeypatch.setattr(hpack.Decoder, "decode", leaking)
        pair.answer(stream_id)
        pair.to_client()
        assert type(pair.client.failure) is RemoteProtocolError
        assert pair.client.failure.__cause__ is leak

    def test_the_cause_is_kept(self, pair: Pair) -> None:
        pair.client.receive(frame(PING, 0, bytes(7)))
        assert pair.client.failure.__cause__ is not None


class TestEventsBeforeAnError:
    """L5: h2 raises, and would lose what stood before in the same read."""

    def test_a_complete_response_is_not_lost_to_the_garbage_behind_it(self, pair: Pair) -> None:
        stream_id = pair.request()
        pair.answer(stream_id, b"abc")
        heard = pair.to_client(frame(PING, 0, bytes(7)))
        assert [type(event) for event in heard] == [events.Head, events.Data, events.End]
        assert pair.client.failure is not None

    def test_nor_to_a_frame_that_the_guard_refuses(self, pair: Pair) -> None:
        stream_id = pair.request()
        pair.answer(stream_id, b"abc")
        heard = pair.to_client(frame(DATA, 1, size=1 << 20))
        assert [type(event) for event in heard] == [events.Head, events.Data, events.End]
        assert pair.client.failure is not None

    def test_frames_behind_the_error_say_nothing(self, pair: Pair) -> None:
        stream_id = pair.request()
        pair.answer(stream_id, b"abc")
        assert pair.client.receive(frame(PING, 0, bytes(7)) + pair.server.data_to_send()) == []

    @pytest.mark.parametrize("garbage", [frame(PING, 0, bytes(7)), frame(DATA, 1, size=1 << 20)])
    def test_acting_on_them_is_safe_after_the_error(self, pair: Pair, garbage: bytes) -> None:
        """L5: credit and resets belong to those events; h2 would raise for each, and the loop would die of it."""
        stream_id = pair.request(end=False)
        pair.server.send_headers(stream_id, OK)
        pair.server.send_data(stream_id, bytes(100))
        pair.to_client(garbage)
        pair.client.data_to_send()
        pair.client.grant(100)
        pair.client.grant(100, stream_id)
        pair.client.reset(stream_id, h2_codec.NO_ERROR)
        assert pair.client.data_to_send() == b""


def conversation() -> tuple[Callable[[], H2Codec], bytes]:
    """A long read from a server that does a bit of everything, and what makes a client that expects it."""

    def client() -> H2Codec:
        codec = H2Codec(Limits())
        for _ in range(4):
            codec.open(head(), end=True)
        return codec

    pair = Pair.__new__(Pair)
    pair.client, pair.seen = client(), []
    pair.server = h2.connection.H2Connection(
        config=h2.config.H2Configuration(client_side=False, header_encoding=None, validate_outbound_headers=False)
    )
    server = pair.server
    server.initiate_connection()
    server.receive_data(pair.client.data_to_send())
    server.send_headers(1, [(b":status", b"103"), (b"link", b"</a>")])
    server.send_headers(1, [*OK, (b"x", b"y" * 50)])
    server.send_data(1, b"abc" * 20, pad_length=7)
    server.ping(b"12345678")
    server.send_headers(3, [(b":status", b"2x0")])
    server.send_data(1, b"def")
    server.send_headers(1, [(b"sum", b"1")], end_stream=True)
    server.reset_stream(5, 7)
    server.increment_flow_control_window(100)
    wire = server.data_to_send() + TestGoAway.goaway(7, 0, b"bye")
    server.send_headers(7, OK, end_stream=True)
    return client, wire + server.data_to_send()


MAKE, WIRE = conversation()
GARBAGE = {
    "none": b"",
    "a broken ping": frame(PING, 0, bytes(7)),
    "a huge frame": frame(DATA, 7, size=1 << 20),
    "text": b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "half a frame": frame(DATA, 7, size=100),
}


@pytest.mark.parametrize("garbage", GARBAGE)
@unhurried
@given(at=st.lists(st.integers(0, len(WIRE) + 30), max_size=40))
def test_events_do_not_depend_on_how_the_bytes_come(garbage: str, at: list[int]) -> None:
    """RELIABILITY 3: the same set at every split; the error as well, and what the peer is told of it."""
    wire = WIRE + GARBAGE[garbage]
    whole, parts = MAKE(), MAKE()
    expected = whole.receive(wire)
    ends = [0, *sorted(min(one, len(wire)) for one in at), len(wire)]
    heard: list[events.Event] = []
    for start, end in itertools.pairwise(ends):
        if parts.failure is None:
            heard += parts.receive(wire[start:end])
    assert plain(heard) == plain(expected)
    assert str(parts.failure) == str(whole.failure)
    assert parts.data_to_send() == whole.data_to_send()


def test_events_are_the_same_for_single_bytes() -> None:
    whole, single = MAKE(), MAKE()
    heard = [event for at in range(len(WIRE)) for event in single.receive(WIRE[at : at + 1])]
    assert plain(heard) == plain(whole.receive(WIRE))
    assert len(heard) == 13


def plain(heard: list[events.Event]) -> list[Any]:
    """Errors compare by identity; by their words here."""
    return [(one.stream_id, str(one.error)) if isinstance(one, events.Broken) else one for one in heard]


@unhurried
@given(wire=st.binary(max_size=200), settings=st.booleans())
def test_no_bytes_raise(wire: bytes, settings: bool) -> None:
    """The codec's contract: what went wrong stands in ``failure``."""
    codec = H2Codec(Limits())
    codec.open(head(), end=False)
    codec.receive(frame(SETTINGS, 0) * settings + wire)
    assert codec.failure is None or isinstance(codec.failure, RemoteProtocolError)


@unhurried
@given(
    st.lists(
        st.tuples(st.integers(0, 9), st.sampled_from([0, 1, 2, 3]), st.binary(max_size=20), st.integers(0, 255)),
        max_size=12,
    )
)
def test_no_frames_raise(frames: list[tuple[int, int, bytes, int]]) -> None:
    """Well-framed nonsense goes deeper into h2 than random bytes."""
    codec = H2Codec(Limits())
    for _ in range(2):
        codec.open(head(), end=False)
    codec.receive(
        frame(SETTINGS, 0) + b"".join(frame(kind, sid, body, flags=flags) for kind, sid, body, flags in frames)
    )
    assert codec.failure is None or "cannot read" not in str(codec.failure)


PROMISED = [(b":method", b"GET"), (b":scheme", b"https"), (b":authority", b"a.test"), (b":path", b"/p"), (b"x", b"y")]


class TestPushes:
    """RFC 9113 8.4."""

    @pytest.fixture
    def pushing(self) -> Pair:
        return Pair(push=True)

    def test_the_settings_say_whether_and_how_many(self) -> None:
        wanted, unwanted = Pair(push=True).server.remote_settings, Pair().server.remote_settings
        assert (wanted.enable_push, unwanted.enable_push) == (1, 0)
        assert wanted.max_concurrent_streams == h2_codec.MAX_PUSHES

    def test_a_promise_comes_with_its_request_and_its_response_on_its_stream(self, pushing: Pair) -> None:
        stream_id = pushing.request()
        pushing.server.push_stream(stream_id, 2, PROMISED)
        pushing.answer(2, b"pushed")
        assert pushing.to_client() == [
            events.Promise(stream_id, 2, PROMISED),
            events.Head(2, 200, []),
            events.Data(2, b"pushed", 6),
            events.End(2),
        ]

    @pytest.mark.parametrize("method", [b"HEAD", b"GET"])
    def test_only_a_promised_head_may_declare_what_does_not_come(self, pushing: Pair, method: bytes) -> None:
        stream_id = pushing.request()
        pushing.server.push_stream(stream_id, 2, [(b":method", method), *PROMISED[1:]])
        wire = pushing.server.data_to_send()
        declared = block(pushing, [*OK, (b"content-length", b"9")])
        pushing.client.receive(wire + frame(HEADERS, 2, declared, flags=END_HEADERS))
        (*_, end) = pushing.client.receive(frame(DATA, 2, flags=END_STREAM))
        assert type(end) is (events.End if method == b"HEAD" else events.Broken)

    def test_a_promise_may_be_refused_and_what_still_comes_of_it_is_ignored(self, pushing: Pair) -> None:
        stream_id = pushing.request()
        pushing.server.push_stream(stream_id, 2, PROMISED)
        pushing.to_client()
        pushing.answer(2, b"in flight")
        pushing.client.reset(2, h2_codec.REFUSED_STREAM)
        assert pushing.to_client() == [events.LateData(9)] and pushing.client.failure is None
        assert resets_in(pushing.client.data_to_send()) == [2]

    @pytest.mark.parametrize("counted", [False, True])
    def test_a_promise_that_crosses_the_reset_of_its_parent_is_refused_with_all_that_comes_of_it(
        self, pushing: Pair, counted: bool
    ) -> None:
        """h2 would take the response for a request. ``counted``: h2 has forgotten the parent."""
        stream_id, other = pushing.request(), pushing.request()
        pushing.client.reset(stream_id, h2_codec.CANCEL)
        if counted:
            pushing.client.open(head(), end=True)
        pushing.server.push_stream(stream_id, 2, PROMISED)
        pushing.answer(2, b"in flight")
        assert pushing.to_client() == [events.LateData(9)]
        assert resets_in(pushing.client.data_to_send()) == [stream_id, 2]
        pushing.answer(other)
        assert events.End(other) in pushing.to_client() and pushing.client.failure is None

    def test_an_odd_stream_cannot_be_promised(self, pushing: Pair) -> None:
        stream_id = pushing.request()
        wire = frame(PUSH_PROMISE, stream_id, b"\0\0\0\x05" + block(pushing, PROMISED), flags=END_HEADERS)
        pushing.client.receive(wire)
        assert isinstance(pushing.client.failure, RemoteProtocolError)

    def test_a_stream_cannot_be_promised_twice(self, pushing: Pair) -> None:
        stream_id = pushing.request()
        for _ in range(2):
            body = b"\0\0\0\x02" + block(pushing, PROMISED)
            pushing.client.receive(frame(PUSH_PROMISE, stream_id, body, flags=END_HEADERS))
        assert isinstance(pushing.client.failure, RemoteProtocolError)

    def test_promises_that_are_over_leave_nothing_behind(self, pushing: Pair) -> None:
        """h2 keeps what is closed until it counts."""
        stream_id = pushing.request()
        for number in range(2, 402, 2):
            pushing.server.push_stream(stream_id, number, PROMISED)
            pushing.to_client()
            pushing.client.reset(number, h2_codec.REFUSED_STREAM)
            pushing.to_server()
            pushing.to_client()
        assert len(pushing.client._machine.streams) <= 3


class TestUpgrade:
    """RFC 7540 3.2."""

    @staticmethod
    def pair(method: bytes = b"GET") -> Pair:
        """Both sides after the 101; the server's SETTINGS are under way."""
        pair = Pair()
        pair.client = H2Codec(Limits(), upgrade=method)
        pair.server = h2.connection.H2Connection(config=pair.server.config)
        pair.server.initiate_upgrade_connection(pair.client.upgrade_settings)
        return pair

    def test_what_the_header_carries_are_our_settings(self) -> None:
        pair = self.pair()
        assert pair.server.remote_settings.initial_window_size == Limits().stream_window_bytes
        assert pair.server.remote_settings.enable_push == 0
        assert b"=" not in pair.client.upgrade_settings, "RFC 7540 3.2.1: without padding"

    def test_the_response_comes_on_stream_1_and_the_next_request_is_stream_3(self) -> None:
        pair = self.pair()
        pair.answer(1, b"upgraded")
        heard = pair.to_client()
        assert heard[-3:] == [events.Head(1, 200, []), events.Data(1, b"upgraded", 8), events.End(1)]
        assert pair.request() == 3 and pair.client.failure is None

    @pytest.mark.parametrize("method", [b"HEAD", b"GET"])
    def test_only_a_head_may_declare_what_does_not_come(self, method: bytes) -> None:
        pair = self.pair(method)
        pair.server.send_headers(1, [*OK, (b"content-length", b"9")])
        wire = pair.server.data_to_send() + frame(DATA, 1, flags=END_STREAM)
        (*_, end) = pair.client.receive(wire)
        assert type(end) is (events.End if method == b"HEAD" else events.Broken)

    def test_the_preface_follows_with_our_settings_once_more(self) -> None:
        wire = self.pair().client.data_to_send()
        assert wire.startswith(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n") and wire[27] == SETTINGS
