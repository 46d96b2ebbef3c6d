"""Plain HTTP/1.1 exchanges are spared h11: with and without it, the same is written, heard, and thought of the end.

The reference is the same codec, which tells h11 of each request at once and remembers no head.
"""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hyperpool.protocol import events, h1_codec
from hyperpool.protocol.events import RequestHead
from hyperpool.protocol.h1_codec import H1Codec

GET = RequestHead(b"GET", b"http", b"a.test", b"/", ((b"Accept", b"*/*"),))
CLOSE = RequestHead(b"GET", b"http", b"a.test", b"/", ((b"connection", b"close"),))
HEAD = RequestHead(b"HEAD", b"http", b"a.test", b"/", ())
OK = b"HTTP/1.1 200 OK\r\nServer: x\r\nConnection: keep-alive\r\nContent-Length: 4\r\n\r\n"
BULK = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % h1_codec.BULK_BYTES
ANSWERS = [
    BULK + bytes(h1_codec.BULK_BYTES),
    BULK + bytes(h1_codec.BULK_BYTES + 1),
    BULK + bytes(h1_codec.BULK_BYTES - 1),
    b"HTTP/1.1 103 Early Hints\r\n\r\n" + BULK + bytes(h1_codec.BULK_BYTES),
    BULK.replace(b"OK\r\n", b"OK\r\nConnection: close\r\n") + bytes(h1_codec.BULK_BYTES),
    BULK.replace(b"1.1", b"1.0") + bytes(h1_codec.BULK_BYTES),
    OK + b"abcd",
    OK + b"efgh",
    OK + b"abc",
    OK + b"abcde",
    b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 304 Not Modified\r\nContent-Length: 4\r\n\r\n",
    b"HTTP/1.1 204 No Content\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
    b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
    b"HTTP/1.1 103 Early Hints\r\n\r\n" + OK + b"abcd",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nok",
    b"HTTP/1.1 2x0 OK\r\n\r\n",
    b"",
]


class Told(H1Codec):
    """Everything is h11's."""

    def open(self, head: RequestHead, *, end: bool) -> int:
        number = super().open(head, end=end)
        self._tell_what_was_sent()
        self._plain = None
        return number

    def _remember(self, head: bytes, events: list[events.Event]) -> None:
        pass


def talk(codec: H1Codec, turns: list[tuple[RequestHead, bytes]], cuts: list[int], *, cut_off: bool) -> list[Any]:
    """Request by request, as long as the connection can carry one; what was written and heard."""
    story: list[Any] = []
    for head, answer in turns:
        codec.open(head, end=True)
        story.append(codec.data_to_send())
        edges = sorted({0, len(answer), *(cut for cut in cuts if cut < len(answer))})
        heard: list[events.Event] = []
        for begin, end in itertools.pairwise(edges):
            heard += codec.receive(answer[begin:end])
        story += [*joined(heard), codec.reusable, str(codec.failure)]
        if not codec.reusable:
            break
    if cut_off:
        story += [*codec.receive_eof(), type(codec.failure), str(codec.failure), codec.reusable]
    return story


def joined(heard: list[events.Event]) -> list[Any]:
    """Events, whose body is in one piece: how it is cut is nobody's promise."""
    bodies = [event for event in heard if isinstance(event, events.Data)]
    return [event for event in heard if event not in bodies] + [b"".join(event.data for event in bodies)]


TURNS = st.lists(st.tuples(st.sampled_from([GET, GET, GET, CLOSE, HEAD]), st.sampled_from(ANSWERS)), max_size=6)


@settings(deadline=None, max_examples=300)
@given(TURNS, st.lists(st.integers(1, 120), max_size=4), st.booleans())
def test_without_h11_the_same_is_written_and_heard(
    turns: list[tuple[RequestHead, bytes]], cuts: list[int], cut_off: bool
) -> None:
    assert talk(H1Codec(), turns, cuts, cut_off=cut_off) == talk(Told(), turns, cuts, cut_off=cut_off)


def test_a_head_that_came_before_is_not_given_to_h11() -> None:
    """Else the test above would compare h11 with itself."""
    codec = H1Codec()
    for body in (b"abcd", b"efgh", b"ijkl"):
        codec.open(GET, end=True)
        told = codec._untold is None
        codec.receive(OK + body)
        assert codec.reusable
    assert not told and codec._untold is not None


def test_a_head_that_is_cut_is_given_to_h11() -> None:
    codec = H1Codec()
    for cut in (len(OK), 9, len(OK)):
        codec.open(GET, end=True)
        heard = codec.receive(OK[:cut]) + codec.receive(OK[cut:] + b"abcd")
        assert [type(event) for event in heard] == [events.Head, events.Data, events.End]
        assert codec.reusable


def test_a_large_body_behind_a_new_head_is_not_given_to_h11() -> None:
    codec = H1Codec()
    codec.open(GET, end=True)
    codec.receive(BULK[:9])
    assert codec._untold is None
    codec.receive(BULK[9:] + b"abc")
    assert codec._untold is not None
    heard = codec.receive(bytes(h1_codec.BULK_BYTES - 3))
    assert [type(event) for event in heard] == [events.Data, events.End] and codec.reusable


def test_the_memory_has_a_bound() -> None:
    codec = H1Codec()
    for number in range(h1_codec.MEMO_HEADS * 2 + 9):
        codec.open(GET, end=True)
        codec.receive(b"HTTP/1.1 200 OK\r\nDate: %d\r\nContent-Length: 0\r\n\r\n" % number)
        assert len(codec._known) <= h1_codec.MEMO_HEADS
    assert len(codec._known) == 9


def test_a_long_head_is_not_remembered() -> None:
    codec = H1Codec()
    codec.open(GET, end=True)
    codec.receive(b"HTTP/1.1 200 OK\r\nX: %b\r\nContent-Length: 0\r\n\r\n" % (b"x" * h1_codec.MEMO_HEAD_BYTES))
    assert codec._known == {} and codec.reusable


@pytest.mark.parametrize("name", [b"Connection", b"UPGRADE"])
def test_a_request_that_says_something_about_the_connection_is_h11s(name: bytes) -> None:
    codec = H1Codec()
    codec.open(RequestHead(b"GET", b"http", b"a.test", b"/", ((name, b"close"),)), end=True)
    assert codec._untold is None


def test_a_head_that_is_known_to_have_no_body_ends_its_exchange() -> None:
    codec = H1Codec()
    for _ in range(4):
        codec.open(GET, end=True)
        heard = codec.receive(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        assert [type(event) for event in heard] == [events.Head, events.End]
    assert len(codec._known) == 1
