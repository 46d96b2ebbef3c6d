"""A connection that lives long: what it holds of streams that are over, and what it makes of their late frames."""

from __future__ import annotations

from typing import Any

import pytest

from holdings import held_by
from hyperpool.protocol import events, h2_machine, h2_quick
from hyperpool.protocol.events import RequestHead
from hyperpool.protocol.h2_codec import CANCEL, H2Codec
from hyperpool.values import Limits

DATA, HEADERS, RST_STREAM, SETTINGS, WINDOW_UPDATE = 0x0, 0x1, 0x3, 0x4, 0x8
END_STREAM, END_HEADERS = 1, 4
STREAM_CLOSED = 5
# RFC 7541 A: ":status 200" is entry 8 of the static table.
OK = b"\x88"


def frame(kind: int, stream_id: int, body: bytes = b"", *, flags: int = 0) -> bytes:
    return len(body).to_bytes(3, "big") + bytes([kind, flags]) + stream_id.to_bytes(4, "big") + body


def request_head() -> RequestHead:
    return RequestHead(b"GET", b"https", b"a.test", b"/", ())


def greeted() -> H2Codec:
    codec = H2Codec(Limits())
    codec.receive(frame(SETTINGS, 0) + frame(SETTINGS, 0, flags=1))
    codec.data_to_send()
    return codec


def finish_one(codec: H2Codec) -> int:
    """A request, and its response in two frames."""
    stream_id = codec.open(request_head(), end=True)
    codec.receive(frame(HEADERS, stream_id, OK, flags=END_HEADERS) + frame(DATA, stream_id, b"x", flags=END_STREAM))
    codec.data_to_send()
    return stream_id


def reset_one(codec: H2Codec) -> int:
    stream_id = codec.open(request_head(), end=True)
    codec.reset(stream_id, CANCEL)
    codec.data_to_send()
    return stream_id


def be_reset(codec: H2Codec) -> int:
    stream_id = codec.open(request_head(), end=True)
    codec.receive(frame(RST_STREAM, stream_id, bytes(4)))
    codec.data_to_send()
    return stream_id


def test_what_a_codec_holds_does_not_grow_with_the_streams_that_it_has_carried() -> None:
    codec = greeted()
    for _ in range(500):
        finish_one(codec)
    early = held_by(codec)
    for _ in range(1_500):
        finish_one(codec)
    assert held_by(codec) <= early + 20  # numbers that have grown are objects of their own


@pytest.mark.parametrize("end_one", [reset_one, be_reset])
def test_what_a_codec_holds_of_streams_that_were_reset_is_bounded(
    monkeypatch: pytest.MonkeyPatch, end_one: Any
) -> None:
    monkeypatch.setattr(h2_machine, "MAX_RESETS_KNOWN", 50)
    monkeypatch.setattr(h2_quick, "_SWEEP_AT", 4)
    codec = greeted()
    codec.tick(1e6)  # no flood
    for _ in range(300):
        end_one(codec)
    early = held_by(codec)
    for _ in range(600):
        end_one(codec)
    assert held_by(codec) <= early + 50


LATE = {
    "DATA": lambda stream_id: frame(DATA, stream_id, b"late"),
    "HEADERS": lambda stream_id: frame(HEADERS, stream_id, OK, flags=END_HEADERS),
}


def ignored(heard: list[events.Event]) -> bool:
    """Whether it concerns the connection's window alone."""
    return all(isinstance(event, events.LateData) for event in heard)


@pytest.mark.parametrize("late", LATE)
def test_a_frame_on_a_stream_that_ended_long_ago_ends_the_connection(late: str) -> None:
    """RFC 9113 5.1: the server has said that nothing more would come."""
    codec = greeted()
    stream_id = finish_one(codec)
    for _ in range(1_500):
        finish_one(codec)
    codec.receive(LATE[late](stream_id))
    assert codec.failure is not None and "StreamClosedError" in str(codec.failure)
    assert codec.data_to_send()[-4:] == STREAM_CLOSED.to_bytes(4, "big")  # GOAWAY with this code


@pytest.mark.parametrize("late", LATE)
def test_a_frame_on_a_stream_that_was_reset_is_ignored_however_many_have_ended_since(late: str) -> None:
    codec = greeted()
    stream_id = reset_one(codec)
    for _ in range(1_500):
        finish_one(codec)
    assert ignored(codec.receive(LATE[late](stream_id)))
    assert codec.failure is None


@pytest.mark.parametrize("late", LATE)
@pytest.mark.parametrize("end_one", [reset_one, be_reset])
def test_a_frame_on_a_stream_whose_reset_was_forgotten_costs_one_reset(
    monkeypatch: pytest.MonkeyPatch, end_one: Any, late: str
) -> None:
    """A stream may have been reset if an older reset is forgotten: then the connection must not end for it."""
    monkeypatch.setattr(h2_machine, "MAX_RESETS_KNOWN", 10)
    codec = greeted()
    stream_id = end_one(codec)
    for _ in range(100):
        end_one(codec)
    newer = finish_one(codec)
    finish_one(codec)
    codec.data_to_send()
    assert ignored(codec.receive(LATE[late](stream_id) * 3))
    assert codec.failure is None
    assert codec.data_to_send() == frame(RST_STREAM, stream_id, STREAM_CLOSED.to_bytes(4, "big"))
    codec.receive(LATE[late](newer))  # of this one it is known that it has ended
    assert codec.failure is not None


@pytest.mark.parametrize("kind", [RST_STREAM, WINDOW_UPDATE])
def test_what_may_come_on_a_stream_that_is_over_is_borne_however_old_it_is(kind: int) -> None:
    """RFC 9113 5.1: the server may have sent it before it knew."""
    codec = greeted()
    stream_id = finish_one(codec)
    for _ in range(1_500):
        finish_one(codec)
    assert codec.receive(frame(kind, stream_id, (9).to_bytes(4, "big"))) == []
    assert codec.failure is None and codec.data_to_send() == b""
