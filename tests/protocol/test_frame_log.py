"""FrameLog: frames in words, however their bytes come, and nothing that is private."""

from __future__ import annotations

import itertools
import logging

import pytest
from hyperframe import frame as hf
from hypothesis import given, settings
from hypothesis import strategies as st

from hyperpool.protocol import events, frame_log
from hyperpool.protocol.frame_log import PREFACE, FrameLog, FrameWalk
from hyperpool.protocol.h2_codec import H2Codec
from hyperpool.values import Limits

# On a busy machine an example may take long: that is no failure.
unhurried = settings(deadline=None)

SECRET = b"c2VjcmV0"


def raw(kind: int, payload: bytes = b"", *, flags: int = 0, stream_id: int = 0) -> bytes:
    """A frame of any kind (RFC 9113 4.1), right or wrong."""
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream_id.to_bytes(4, "big") + payload


def lines(*parts: bytes, preface: bytes = b"") -> list[str]:
    """What a walk writes when it is fed these parts."""
    written: list[str] = []
    walk = FrameWalk(written.append, preface=preface)
    for part in parts:
        walk.feed(part)
    return written


def split(stream: bytes, at: list[int]) -> list[bytes]:
    ends = [0, *sorted(min(one, len(stream)) for one in at), len(stream)]
    return [stream[start:end] for start, end in itertools.pairwise(ends)]


class TestWords:
    @pytest.mark.parametrize(
        ("frame", "line"),
        [
            (hf.DataFrame(1, b"12345", flags=["END_STREAM"]), "DATA stream=1 length=5 END_STREAM"),
            (hf.HeadersFrame(3, b"123", flags=["END_HEADERS"]), "HEADERS stream=3 length=3 END_HEADERS"),
            (hf.PriorityFrame(3, depends_on=1), "PRIORITY stream=3 length=5"),
            (hf.RstStreamFrame(3, error_code=8), "RST_STREAM stream=3 length=4 CANCEL"),
            (hf.RstStreamFrame(3, error_code=99), "RST_STREAM stream=3 length=4 error 99"),
            (
                hf.SettingsFrame(0, settings={4: 65_535, 8: 1, 0x34: 7}),
                "SETTINGS stream=0 length=18 INITIAL_WINDOW_SIZE=65535 ENABLE_CONNECT_PROTOCOL=1 setting 0x0034=7",
            ),
            (hf.SettingsFrame(0, flags=["ACK"]), "SETTINGS stream=0 length=0 ACK"),
            (hf.PushPromiseFrame(1, 2, b"x"), "PUSH_PROMISE stream=1 length=5 promised=2"),
            (hf.PingFrame(0, SECRET, flags=["ACK"]), "PING stream=0 length=8 ACK"),
            (
                hf.GoAwayFrame(0, last_stream_id=2**31 - 1, error_code=11, additional_data=SECRET),
                "GOAWAY stream=0 length=16 last_stream=2147483647 ENHANCE_YOUR_CALM",
            ),
            (hf.WindowUpdateFrame(0, window_increment=1 << 20), "WINDOW_UPDATE stream=0 length=4 +1048576"),
            (hf.ContinuationFrame(3, b"1", flags=["END_HEADERS"]), "CONTINUATION stream=3 length=1 END_HEADERS"),
            (hf.AltSvcFrame(0, origin=b"a", field=b"b"), "ALTSVC stream=0 length=4"),
        ],
        ids=lambda given: type(given).__name__ if isinstance(given, hf.Frame) else "line",
    )
    def test_each_kind_of_frame_has_its_line(self, frame: hf.Frame, line: str) -> None:
        """RFC 9113 6."""
        assert lines(frame.serialize()) == [line]

    def test_the_promised_stream_stands_behind_the_length_of_the_padding(self) -> None:
        """RFC 9113 6.6."""
        frame = hf.PushPromiseFrame(1, 6, b"x", pad_length=3, flags=["PADDED"])
        assert lines(frame.serialize()) == ["PUSH_PROMISE stream=1 length=9 PADDED promised=6"]

    def test_an_unknown_kind_is_shown_by_its_number(self) -> None:
        """RFC 9113 5.5."""
        assert lines(raw(0xFA, b"123", flags=0xFF, stream_id=5)) == ["type 0xfa stream=5 length=3"]

    def test_the_reserved_bit_is_not_part_of_the_stream(self) -> None:
        """RFC 9113 4.1."""
        assert lines(raw(0, stream_id=2**31 + 1)) == ["DATA stream=1 length=0"]

    def test_a_frame_that_breaks_the_rules_is_shown_as_it_came(self) -> None:
        """RFC 9113 6.5, 6.9: a length that cannot be, DATA without a stream."""
        assert lines(raw(4, b"1234567"), raw(8, b"\x00\x01"), raw(0)) == [
            "SETTINGS stream=0 length=7 setting 0x3132=859059510",
            "WINDOW_UPDATE stream=0 length=2 +1",
            "DATA stream=0 length=0",
        ]

    def test_no_more_than_a_hundred_settings_are_shown(self) -> None:
        line = lines(raw(4, bytes([0, 4, 0, 0, 0, 1]) * 101))[0]
        assert line.count("INITIAL_WINDOW_SIZE=1") == 100

    def test_the_connection_preface_is_one_line(self) -> None:
        """RFC 9113 3.4."""
        assert lines(PREFACE + raw(4), preface=PREFACE) == ["connection preface", "SETTINGS stream=0 length=0"]

    def test_a_frame_that_has_not_come_yet_has_no_line(self) -> None:
        assert lines(raw(8, bytes(4))[:12]) == []

    def test_a_body_need_not_be_here_for_the_line_of_its_frame(self) -> None:
        assert lines(raw(0, bytes(1_000), stream_id=1)[:9]) == ["DATA stream=1 length=1000"]


frames = st.builds(
    raw, st.integers(0, 12), st.binary(max_size=40), flags=st.integers(0, 255), stream_id=st.integers(0, 2**32 - 1)
)


@unhurried
@given(
    stream=st.lists(frames, max_size=6).map(b"".join),
    tail=st.binary(max_size=12),
    at=st.lists(st.integers(0, 300), max_size=12),
    preface=st.sampled_from([b"", PREFACE]),
)
def test_any_split_of_the_bytes_gives_the_same_lines(stream: bytes, tail: bytes, at: list[int], preface: bytes) -> None:
    whole = preface + stream + tail
    assert lines(*split(whole, at), preface=preface) == lines(whole, preface=preface)


@unhurried
@given(st.lists(frames, max_size=6))
def test_every_complete_frame_has_one_line(given_frames: list[bytes]) -> None:
    assert len(lines(b"".join(given_frames))) == len(given_frames)


def test_both_directions_are_told_apart_and_the_connection_has_its_number() -> None:
    written: list[str] = []
    log = FrameLog(written.append, number=3)
    log.sent(PREFACE + raw(6, bytes(8)))
    log.received(raw(6, bytes(8), flags=1))
    assert written == [
        "#3 -> connection preface",
        "#3 -> PING stream=0 length=8",
        "#3 <- PING stream=0 length=8 ACK",
    ]


def a_codec_talks() -> H2Codec:
    """A codec that has sent a request with a secret and received SETTINGS."""
    codec = H2Codec(Limits())
    fields = ((b"authorization", SECRET),)
    codec.open(events.RequestHead(b"POST", b"https", b"a.test", b"/" + SECRET, fields, len(SECRET)), end=False)
    codec.send(1, SECRET, end=True)
    codec.data_to_send()
    codec.receive(hf.SettingsFrame(0, settings={3: 10}).serialize())
    return codec


def messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What was logged, without the numbers of connections, which count through the process."""
    records = [record for record in caplog.records if record.name == "hyperpool.frames"]
    return [record.getMessage().partition(" ")[2] for record in records]


class TestTheCodec:
    def test_it_logs_what_it_sends_and_receives(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.DEBUG, "hyperpool.frames")
        a_codec_talks()
        sent = [line.split()[1] for line in messages(caplog) if line.startswith("->")]
        assert sent == ["connection", "SETTINGS", "WINDOW_UPDATE", "HEADERS", "DATA"]
        assert messages(caplog)[-1] == "<- SETTINGS stream=0 length=6 MAX_CONCURRENT_STREAMS=10"

    def test_no_header_value_and_no_body_is_logged(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.DEBUG, "hyperpool.frames")
        a_codec_talks()
        assert SECRET.decode() not in caplog.text

    def test_it_logs_nothing_where_nobody_listens(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO, "hyperpool.frames")
        a_codec_talks()
        assert frame_log.frame_log() is None
        assert messages(caplog) == []

    def test_what_the_guard_refuses_is_not_taken_for_frames(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.DEBUG, "hyperpool.frames")
        codec = H2Codec(Limits())
        codec.receive(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        assert [line for line in messages(caplog) if line.startswith("<-")] == []
