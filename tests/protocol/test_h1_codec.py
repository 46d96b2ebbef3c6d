"""H1Codec against h11's own server side, and against bytes that no decent server would send."""

from __future__ import annotations

import re
from typing import Any

import h11
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hyperpool.errors import ConnectionLost, LocalProtocolError, RemoteProtocolError
from hyperpool.protocol import events, h1_head
from hyperpool.protocol.events import Data, End, Head, Interim, RequestHead, Trailers
from hyperpool.protocol.h1_codec import H1Codec

unhurried = settings(deadline=None)

OK = b"HTTP/1.1 200 OK\r\n"
LENGTH_3 = OK + b"Content-Length: 3\r\n\r\nabc"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
EMPTY = OK + b"Content-Length: 0\r\n\r\n"


def head(
    method: bytes = b"GET", *fields: tuple[bytes, bytes], target: bytes = b"/x", body_bytes: int | None = 0
) -> RequestHead:
    return RequestHead(method, b"http", b"a.test", target, fields, body_bytes)


def make(*, max_header_bytes: int = 64 << 10) -> H1Codec:
    return H1Codec(max_header_bytes=max_header_bytes)


def asked(method: bytes = b"GET", *fields: tuple[bytes, bytes], **limits: int) -> H1Codec:
    """A codec that waits for its first response."""
    codec = make(**limits)
    codec.open(head(method, *fields), end=True)
    codec.data_to_send()
    return codec


def feed(codec: H1Codec, wire: bytes, step: int = 1 << 20) -> list[events.Event]:
    return [event for at in range(0, len(wire), step) for event in codec.receive(wire[at : at + step])]


def joined(heard: list[events.Event]) -> list[Any]:
    """Events with neighbouring pieces of body made one: how they are cut is the network's business."""
    out: list[Any] = []
    for event in heard:
        if isinstance(event, Data) and out and isinstance(out[-1], Data):
            event = Data(event.stream_id, out[-1].data + event.data, out[-1].flow_bytes + event.flow_bytes)
            out.pop()
        out.append(event)
    return out


def body(heard: list[events.Event]) -> bytes:
    return b"".join(event.data for event in heard if isinstance(event, Data))


def refused(wire: bytes, *, codec: H1Codec | None = None, step: int = 1 << 20) -> str:
    """The words with which a response is refused."""
    codec = codec or asked()
    feed(codec, wire, step)
    assert isinstance(codec.failure, RemoteProtocolError)
    assert not codec.reusable
    return str(codec.failure)


class TestRequests:
    def test_a_request_is_written_as_it_is_meant(self) -> None:
        codec = make()
        number = codec.open(head(b"GET", (b"X-Y", b"z"), target=b"/p?q"), end=True)
        assert number == 1
        assert codec.data_to_send() == b"GET /p?q HTTP/1.1\r\nHost: a.test\r\nX-Y: z\r\n\r\n"

    def test_what_was_taken_is_not_taken_again(self) -> None:
        codec = make()
        codec.open(head(), end=True)
        codec.data_to_send()
        assert codec.data_to_send() == b""

    def test_a_body_of_known_length_goes_as_it_is(self) -> None:
        codec = make()
        number = codec.open(head(b"PUT", (b"Content-Length", b"5"), body_bytes=5), end=False)
        codec.send(number, b"ab", end=False)
        codec.send(number, memoryview(b"cde"), end=True)
        assert codec.data_to_send().endswith(b"\r\n\r\nabcde")

    def test_a_body_of_unknown_length_goes_in_chunks(self) -> None:
        """RFC 9112 7.1."""
        codec = make()
        number = codec.open(head(b"PUT", body_bytes=None), end=False)
        codec.send(number, b"ab", end=False)
        codec.send(number, b"", end=False)
        codec.send(number, b"cde", end=True)
        wire = codec.data_to_send()
        assert wire.count(b"Transfer-Encoding: chunked\r\n") == 1
        assert wire.endswith(b"\r\n\r\n2\r\nab\r\n3\r\ncde\r\n0\r\n\r\n")

    def test_a_body_of_unknown_length_that_is_none_goes_without_framing(self) -> None:
        codec = make()
        codec.open(head(b"GET", body_bytes=None), end=True)
        assert b"Transfer-Encoding" not in codec.data_to_send()

    @unhurried
    @given(parts=st.lists(st.binary(max_size=20), max_size=6), known=st.booleans())
    def test_a_server_reads_the_body_that_was_sent(self, parts: list[bytes], known: bool) -> None:
        size = sum(map(len, parts))
        codec, server = make(), h11.Connection(h11.SERVER)
        fields = ((b"Content-Length", b"%d" % size),) if known else ()
        number = codec.open(head(b"POST", *fields, body_bytes=size if known else None), end=False)
        for part in parts:
            codec.send(number, part, end=False)
        codec.send(number, b"", end=True)
        server.receive_data(codec.data_to_send())
        heard = _until_end(server)
        assert b"".join(bytes(event.data) for event in heard if isinstance(event, h11.Data)) == b"".join(parts)

    def test_a_body_that_has_ended_takes_no_more(self) -> None:
        codec = make()
        number = codec.open(head(b"PUT", body_bytes=None), end=False)
        codec.send(number, b"x", end=True)
        with pytest.raises(LocalProtocolError):
            codec.send(number, b"y", end=True)

    @pytest.mark.parametrize("given_body", [b"ab", b"abcd"])
    def test_a_body_of_another_length_than_declared_is_our_own_mistake(self, given_body: bytes) -> None:
        """P7."""
        codec = make()
        number = codec.open(head(b"PUT", (b"Content-Length", b"3"), body_bytes=3), end=False)
        with pytest.raises(LocalProtocolError, match="cannot be sent over HTTP/1.1") as caught:
            codec.send(number, given_body, end=True)
        assert isinstance(caught.value.__cause__, h11.LocalProtocolError)
        assert not codec.reusable

    def test_one_exchange_is_carried_at_a_time(self) -> None:
        codec = asked()
        with pytest.raises(AssertionError):
            codec.send(2, b"x", end=True)


def _until_end(server: h11.Connection) -> list[Any]:
    heard: list[Any] = []
    while not heard or not isinstance(heard[-1], h11.EndOfMessage):
        heard.append(server.next_event())
        assert heard[-1] is not h11.NEED_DATA
    return heard


# What servers may say to one GET, and what is to be heard of it.
RESPONSES: dict[str, tuple[bytes, list[events.Event]]] = {
    "a length": (
        OK + b"X: y\r\nContent-Length: 3\r\n\r\nabc",
        [Head(1, 200, [(b"x", b"y"), (b"content-length", b"3")], b"OK", "HTTP/1.1"), Data(1, b"abc", 3), End(1)],
    ),
    "chunks": (
        CHUNKED + b"2\r\nab\r\n1;ext=1\r\nc\r\n0\r\n\r\n",
        [Head(1, 200, [(b"transfer-encoding", b"chunked")], b"OK", "HTTP/1.1"), Data(1, b"abc", 3), End(1)],
    ),
    "chunks with trailers": (
        CHUNKED + b"3\r\nabc\r\n0\r\nX-Sum: 7\r\nY: z\r\n\r\n",
        [
            Head(1, 200, [(b"transfer-encoding", b"chunked")], b"OK", "HTTP/1.1"),
            Data(1, b"abc", 3),
            Trailers(1, [(b"x-sum", b"7"), (b"y", b"z")]),
            End(1),
        ],
    ),
    "interim heads": (
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + EMPTY,
        [
            Interim(1, 100, []),
            Interim(1, 103, [(b"link", b"</a>")]),
            Head(1, 200, [(b"content-length", b"0")], b"OK", "HTTP/1.1"),
            End(1),
        ],
    ),
    "no content": (b"HTTP/1.1 204 \r\n\r\n", [Head(1, 204, [], b"", "HTTP/1.1"), End(1)]),
    "no reason": (
        b"HTTP/1.1 404\r\ncontent-length: 0\r\n\r\n",
        [Head(1, 404, [(b"content-length", b"0")], b"", "HTTP/1.1"), End(1)],
    ),
    "HTTP/1.0": (
        b"HTTP/1.0 200 OK\r\ncontent-length: 1\r\n\r\nx",
        [Head(1, 200, [(b"content-length", b"1")], b"OK", "HTTP/1.0"), Data(1, b"x", 1), End(1)],
    ),
    "an invented status": (
        b"HTTP/1.1 999 No\xe9\r\nContent-Length: 0\r\n\r\n",
        [Head(1, 999, [(b"content-length", b"0")], b"No\xe9", "HTTP/1.1"), End(1)],
    ),
}
# And what they may not; each is refused whatever the cut.
BAD = {
    "junk": b"\x16\x03\x01\x02\x00",
    "another protocol": b"SSH-2.0-x\r\n",
    "a blank line first": b"\r\n" + EMPTY,
    "HTTP/2": b"HTTP/2 200 OK\r\n\r\n",
    "HTTP/1.10": b"HTTP/1.10 200 OK\r\n\r\n",
    "HTTP/1.2": b"HTTP/1.2 200 OK\r\n\r\n",
    "lower case": b"http/1.1 200 OK\r\n\r\n",
    "a tab behind the version": b"HTTP/1.1\t200 OK\r\n\r\n",
    "one digit": b"HTTP/1.1 2 OK\r\n\r\n",
    "four digits": b"HTTP/1.1 2000 OK\r\n\r\n",
    "a status below 100": b"HTTP/1.1 099 OK\r\n\r\n",
    "a NUL in the reason": b"HTTP/1.1 200 O\0K\r\n\r\n",
    "a bare LF behind the status": b"HTTP/1.1 200 OK\nContent-Length: 0\r\n\r\n",
    "a bare LF behind a field": OK + b"X: y\nContent-Length: 0\r\n\r\n",
    "a bare LF at the end": OK + b"Content-Length: 0\r\n\n",
    "a bare CR": OK + b"X: y\rZ: z\r\n\r\n",
    "a CR before CRLF": OK + b"X: y\r\r\n\r\n",
    "a NUL in a value": OK + b"X: \0\r\n\r\n",
    "a space before the colon": OK + b"X : y\r\n\r\n",
    "a space in a name": OK + b"X Y: z\r\n\r\n",
    "no colon": OK + b"X\r\n\r\n",
    "no name": OK + b": x\r\n\r\n",
    "a folded first field": OK + b" x: y\r\n\r\n",
    "a coding beside a length": OK + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n",
    "a length beside a coding": OK + b"content-length:3\r\nTRANSFER-ENCODING:chunked\r\n\r\n",
    "a coding in HTTP/1.0": b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
    "a coding that is not chunked": OK + b"Transfer-Encoding: gzip\r\n\r\n",
    "a coding before chunked": OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n",
    "two codings": OK + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
    "two lengths": OK + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\n",
    "two lengths in one": OK + b"Content-Length: 3, 4\r\n\r\n",
    "a length below zero": OK + b"Content-Length: -3\r\n\r\n",
    "a length that is none": OK + b"Content-Length: 3x\r\n\r\n",
    "a length of 500 digits": OK + b"Content-Length: " + b"9" * 500 + b"\r\n\r\n",
    "101": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
    "a chunk size that is none": CHUNKED + b"x\r\n",
    "a chunk size with a sign": CHUNKED + b"+3\r\nabc\r\n",
    "a chunk size with 0x": CHUNKED + b"0x3\r\nabc\r\n",
    "a chunk size of 21 digits": CHUNKED + b"1" * 21 + b"\r\n",
    "a chunk size and a bare LF": CHUNKED + b"3\nabc\r\n0\r\n\r\n",
    "a chunk without its line end": CHUNKED + b"3\r\nabcX\r\n0\r\n\r\n",
    "a chunk size and junk": CHUNKED + b"3 junk\r\nabc\r\n0\r\n\r\n",
    "a trailer that is no field": CHUNKED + b"0\r\nX Y: z\r\n\r\n",
}


class TestResponses:
    @pytest.mark.parametrize(("wire", "expected"), RESPONSES.values(), ids=RESPONSES)
    def test_it_is_heard_as_it_is_meant(self, wire: bytes, expected: list[events.Event]) -> None:
        codec = asked()
        assert joined(feed(codec, wire)) == expected
        assert codec.failure is None

    @pytest.mark.parametrize(("wire", "expected"), RESPONSES.values(), ids=RESPONSES)
    @unhurried
    @given(steps=st.lists(st.integers(1, 40), min_size=1, max_size=9))
    def test_any_cut_of_the_same_bytes_gives_the_same_events(
        self, wire: bytes, expected: list[events.Event], steps: list[int]
    ) -> None:
        codec, heard, rest = asked(), [], wire
        while rest:
            heard += codec.receive(rest[: steps[0]])
            rest, steps = rest[steps[0] :], [*steps[1:], steps[0]]
        assert joined(heard) == expected

    @pytest.mark.parametrize("wire", BAD.values(), ids=BAD)
    @pytest.mark.parametrize("step", [1, 7, 1 << 20])
    def test_what_breaks_the_rules_is_refused_whatever_the_cut(self, wire: bytes, step: int) -> None:
        """P1, P2, P3, M2, M3."""
        assert len(refused(wire, step=step)) < 300

    def test_a_length_of_an_exabyte_is_no_reason_to_set_memory_aside(self) -> None:
        """A16."""
        codec = asked()
        assert body(feed(codec, OK + b"Content-Length: 1000000000000000000\r\n\r\nabc")) == b"abc"

    @pytest.mark.parametrize(
        ("method", "wire"),
        [
            (b"HEAD", OK + b"Content-Length: 99\r\n\r\n"),
            (b"HEAD", CHUNKED),
            (b"GET", b"HTTP/1.1 204 No Content\r\nContent-Length: 99\r\n\r\n"),
            (b"GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 99\r\n\r\n"),
            (b"GET", b"HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n"),
        ],
    )
    def test_where_no_body_may_be_its_length_means_nothing(self, method: bytes, wire: bytes) -> None:
        """P5; RFC 9112 6.3."""
        codec = asked(method)
        heard = feed(codec, wire)
        assert [type(event) for event in heard] == [Head, End]
        assert codec.reusable

    @pytest.mark.parametrize("method", [b"HEAD", b"GET"])
    def test_a_body_where_none_may_be_poisons_the_connection(self, method: bytes) -> None:
        """P5."""
        codec = asked(method)
        status = b"200" if method == b"HEAD" else b"304"
        heard = feed(codec, b"HTTP/1.1 " + status + b" X\r\nContent-Length: 3\r\n\r\nabc")
        assert [type(event) for event in heard] == [Head, End]
        assert isinstance(codec.failure, RemoteProtocolError)
        assert not codec.reusable


class TestHeadLimits:
    @pytest.mark.parametrize("step", [1, 50, 1 << 20])
    def test_a_head_of_the_limit_is_taken_and_one_byte_more_is_not(self, step: int) -> None:
        start = OK + b"Content-Length: 0\r\nX: "
        largest = start + b"y" * (300 - len(start))
        assert End(1) in feed(asked(max_header_bytes=300), largest + b"\r\n\r\n", step)
        words = refused(largest + b"y\r\n\r\n", codec=asked(max_header_bytes=300), step=step)
        assert "more than 300 bytes" in words

    def test_a_head_without_an_end_is_refused(self) -> None:
        """A6."""
        codec = asked(max_header_bytes=1_000)
        codec.receive(OK)
        for _ in range(20):
            codec.receive(b"X: " + b"y" * 60 + b"\r\n")
        assert "more than 1,000 bytes" in str(codec.failure)

    @pytest.mark.parametrize("start", [OK + b"X: ", OK[:-2]])
    def test_a_head_that_drips_in_is_not_judged_from_its_beginning_for_each_byte(
        self, monkeypatch: pytest.MonkeyPatch, start: bytes
    ) -> None:
        """A drip of 64 KiB would keep the loop's thread busy for a minute."""
        judged: list[int] = []

        class Counted:
            """A pattern that tells how much it was given."""

            def __init__(self, pattern: re.Pattern[bytes]) -> None:
                self.pattern = pattern

            def search(self, octets: bytearray, start: int = 0) -> re.Match[bytes] | None:
                judged.append(len(octets) - start)
                return self.pattern.search(octets, start)

            def match(self, octets: bytearray) -> re.Match[bytes] | None:
                judged.append(octets.find(b"\r\n"))
                return self.pattern.match(octets)

        for name in ("_BARE_LINE_END", "_STATUS_LINE"):
            monkeypatch.setattr(h1_head, name, Counted(getattr(h1_head, name)))
        wire = start + b"y" * 500 + b"\r\nZ: " + b"z" * 500
        feed(asked(), wire, 1)
        assert sum(judged) < 4 * len(wire)

    def test_trailers_without_an_end_are_refused(self) -> None:
        codec = asked(max_header_bytes=1_000)
        codec.receive(CHUNKED + b"0\r\n")
        for _ in range(20):
            codec.receive(b"X: " + b"y" * 60 + b"\r\n")
        assert isinstance(codec.failure, RemoteProtocolError)

    @pytest.mark.parametrize("at_once", [False, True])
    def test_interim_heads_are_counted(self, at_once: bool) -> None:
        """M8, A6."""
        codec, interim = asked(), b"HTTP/1.1 103 Early Hints\r\n\r\n"
        heard = feed(codec, interim * events.MAX_INTERIM)
        assert (len(heard), codec.failure) == (events.MAX_INTERIM, None)
        assert "interim responses" in refused(interim, codec=codec)

    def test_the_count_begins_anew_with_each_request(self) -> None:
        codec, interim = asked(), b"HTTP/1.1 103 Early Hints\r\n\r\n"
        feed(codec, interim * 60 + EMPTY)
        codec.open(head(), end=True)
        assert feed(codec, interim * 60 + EMPTY)[-1] == End(2)


class TestKeepAlive:
    def test_a_connection_carries_one_exchange_after_the_other(self) -> None:
        """RFC 9112 9.3."""
        codec = make()
        for number in (1, 2, 3):
            assert codec.open(head(), end=True) == number
            assert feed(codec, LENGTH_3, 5)[-1] == End(number)
            assert codec.reusable

    def test_it_is_not_reusable_while_it_is_used(self) -> None:
        codec = asked()
        before = codec.reusable
        codec.receive(LENGTH_3[:-1])
        assert (before, codec.reusable) == (False, False)

    @pytest.mark.parametrize("step", [1, 1 << 20])
    @pytest.mark.parametrize(
        "wire",
        [
            OK + b"Connection: close\r\nContent-Length: 0\r\n\r\n",
            OK + b"connection: x, CLOSE\r\nContent-Length: 0\r\n\r\n",
            b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n",
        ],
    )
    def test_a_server_that_will_close_is_not_asked_again(self, wire: bytes, step: int) -> None:
        """RFC 9112 9.6."""
        codec = asked()
        assert feed(codec, wire, step)[-1] == End(1)
        assert (codec.reusable, codec.failure) == (False, None)

    def test_after_our_own_close_nothing_is_asked_again(self) -> None:
        codec = asked(b"GET", (b"Connection", b"close"))
        feed(codec, EMPTY)
        assert (codec.reusable, codec.failure) == (False, None)

    @pytest.mark.parametrize("step", [1, 1 << 20])
    @pytest.mark.parametrize("behind", [b"x", b"\r\n", LENGTH_3])
    def test_bytes_behind_a_response_poison_the_connection(self, behind: bytes, step: int) -> None:
        """P4: an answer to a question that nobody has asked would be taken for that to the next one."""
        codec = asked()
        assert joined(feed(codec, LENGTH_3 + behind, step))[-2:] == [Data(1, b"abc", 3), End(1)]
        assert isinstance(codec.failure, RemoteProtocolError)
        assert not codec.reusable

    def test_bytes_on_an_idle_connection_poison_it(self) -> None:
        """P4."""
        codec = asked()
        feed(codec, LENGTH_3)
        assert codec.reusable
        assert codec.receive(EMPTY) == []
        assert "nobody had asked for" in refused(b"", codec=codec)

    def test_bytes_before_the_first_request_poison_a_connection(self) -> None:
        assert "nobody had asked for" in refused(EMPTY, codec=make())

    def test_a_server_that_answers_before_it_has_heard_all_is_not_asked_again(self) -> None:
        """RFC 9112 9.6: the rest of the upload stands between the two requests."""
        codec = make()
        number = codec.open(head(b"PUT", (b"Content-Length", b"9"), body_bytes=9), end=False)
        codec.send(number, b"abc", end=False)
        assert feed(codec, EMPTY)[-1] == End(1)
        assert (codec.reusable, codec.failure) == (False, None)

    def test_an_upload_may_be_finished_after_the_answer(self) -> None:
        codec = make()
        number = codec.open(head(b"PUT", (b"Content-Length", b"3"), body_bytes=3), end=False)
        feed(codec, EMPTY)
        codec.send(number, b"abc", end=True)
        assert codec.data_to_send().endswith(b"abc")
        assert codec.reusable


class TestEnds:
    def test_a_body_without_framing_ends_with_the_connection(self) -> None:
        """RFC 9112 6.3."""
        codec = asked()
        heard = feed(codec, OK + b"\r\nabc", 4)
        before = codec.failure
        assert codec.progress == "after 3 bytes of a body that ends with the connection"
        heard += codec.receive_eof()
        assert (body(heard), heard[-1], before, codec.failure) == (b"abc", End(1), None, None)
        assert not codec.reusable

    @pytest.mark.parametrize(
        ("wire", "words"),
        [
            (b"", "before its response head"),
            (b"HT", "after 2 bytes of a response head"),
            (OK + b"Content-Length: 3\r\n", "after 36 bytes of a response head"),
            (b"HTTP/1.1 100 Continue\r\n\r\n", "after an interim response"),
            (LENGTH_3[:-3], "after 0 of the 3 bytes of the body"),
            (LENGTH_3[:-1], "after 2 of the 3 bytes of the body"),
            (CHUNKED, "after 0 bytes of a chunked body"),
            (CHUNKED + b"3\r\nab", "after 2 bytes of a chunked body"),
            (CHUNKED + b"3\r\nabc\r\n", "after 3 bytes of a chunked body"),
            (CHUNKED + b"3\r\nabc\r\n0\r\nX: y\r\n", "after 3 bytes of a chunked body"),
        ],
    )
    def test_an_end_before_the_end_is_a_loss(self, wire: bytes, words: str) -> None:
        """M10: never a short success."""
        codec = asked()
        heard = codec.receive(wire)
        assert codec.receive_eof() == []
        assert End(1) not in heard
        assert isinstance(codec.failure, ConnectionLost)
        assert words in str(codec.failure)
        assert (codec.failure.processed, codec.reusable) == ("maybe", False)
        assert isinstance(codec.failure.__cause__, h11.RemoteProtocolError)

    def test_the_bytes_of_an_earlier_response_are_not_counted(self) -> None:
        codec = asked()
        feed(codec, LENGTH_3)
        codec.open(head(), end=True)
        codec.receive(LENGTH_3[:-1])
        codec.receive_eof()
        assert "after 2 of the 3 bytes" in str(codec.failure)

    @pytest.mark.parametrize("told", [False, True])
    @pytest.mark.parametrize("answer", [b"H", b"HTTP/1.1 103 Hints\r\n\r\n", LENGTH_3[:-1]])
    def test_the_first_byte_of_an_answer_is_remembered(self, told: bool, answer: bytes) -> None:
        """T5: an interim head is one as well. ``told``: h11 has an exchange behind it."""
        codec = asked()
        if told:
            codec.receive(LENGTH_3)
            codec.open(head(), end=True)
        assert codec.unanswered
        codec.receive(answer)
        assert not codec.unanswered

    def test_the_bytes_of_an_earlier_answer_are_none_of_the_next_one(self) -> None:
        codec = asked()
        codec.receive(b"HTTP/1.1 103 Hints\r\n\r\n" + LENGTH_3)
        assert not codec.unanswered
        codec.open(head(), end=True)
        assert codec.unanswered

    def test_the_end_of_an_idle_connection_is_no_failure(self) -> None:
        codec = asked()
        feed(codec, EMPTY)
        assert (codec.receive_eof(), codec.failure, codec.reusable) == ([], None, False)

    def test_an_end_after_a_failure_changes_nothing(self) -> None:
        codec = asked()
        codec.receive(b"junk")
        failure = codec.failure
        assert codec.receive_eof() == []
        assert codec.failure is failure


class TestFailures:
    @pytest.mark.parametrize("fault", [b"x\r\n", b"1\r\nxyz"])
    def test_what_came_before_it_is_heard(self, fault: bytes) -> None:
        """A complete response is not lost to the garbage behind it."""
        codec = asked()
        heard = joined(codec.receive(CHUNKED + b"3\r\nabc\r\n" + fault))
        assert [type(event) for event in heard] == [Head, Data]
        assert isinstance(codec.failure, RemoteProtocolError)

    def test_what_comes_after_it_is_not_heard(self) -> None:
        codec = asked()
        codec.receive(b"junk")
        failure = codec.failure
        assert codec.receive(EMPTY) == []
        assert codec.failure is failure

    def test_h11s_words_are_kept(self) -> None:
        codec = asked()
        codec.receive(OK + b"X Y: z\r\n\r\n")
        assert codec.failure is not None
        assert isinstance(codec.failure.__cause__, h11.RemoteProtocolError)

    @pytest.mark.parametrize(
        ("wire", "words"),
        [
            (b"HTTP/1.1 200 OK\nX: y\r\n\r\n", "b'\\n' alone"),
            (OK + b"X: y\rz\r\n\r\n", "b'\\r' alone"),
            (b"SSH-2.0-OpenSSH_9\r\n", "a response cannot begin with b'S"),
            (BAD["a coding beside a length"], "Transfer-Encoding beside Content-Length"),
            (BAD["a coding in HTTP/1.0"], "or in HTTP/1.0"),
        ],
    )
    @pytest.mark.parametrize("step", [1, 1 << 20])
    def test_it_says_what_is_wrong(self, wire: bytes, words: str, step: int) -> None:
        assert words in refused(wire, step=step)

    @unhurried
    @given(
        st.lists(st.sampled_from([OK, b"\r\n", b"X: y", b"Content-Length: 3", CHUNKED, b"3\r\n", b"abc", b"\n", b"0"]))
    )
    def test_no_bytes_raise_anything(self, parts: list[bytes]) -> None:
        """events.Codec: `receive` never raises."""
        codec = asked()
        for part in parts:
            codec.receive(part)
        codec.receive_eof()

    @unhurried
    @given(
        parts=st.lists(
            st.sampled_from([OK, b"\r\n", b"X: y\r\n", b"Content-Length: 3\r\n", CHUNKED, b"3\r\n", b"abc"])
        ),
        step=st.integers(1, 9),
    )
    def test_a_failure_does_not_depend_on_the_cut(self, parts: list[bytes], step: int) -> None:
        whole, cut, wire = asked(), asked(), OK + b"".join(parts)
        assert joined(feed(whole, wire)) == joined(feed(cut, wire, step))
        assert type(whole.failure) is type(cut.failure)


class TestSwitching:
    """RFC 9110 7.8 and 15.2.2: what comes behind a 101 is not HTTP/1.1 any more."""

    OFFER = ((b"Connection", b"Upgrade"), (b"Upgrade", b"h2c"))
    SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"

    @pytest.mark.parametrize("behind", [b"", b"\0\0\0\x04\0\0\0\0\0", b"HTTP/1.1 200 OK\r\n\r\n"])
    def test_what_came_behind_it_comes_with_it(self, behind: bytes) -> None:
        codec = asked(b"GET", *self.OFFER)
        assert codec.receive(self.SWITCH + behind) == [events.Switched(1, b"h2c", behind)]
        assert codec.failure is None and not codec.reusable

    def test_it_may_come_in_pieces(self) -> None:
        codec = asked(b"GET", *self.OFFER)
        assert feed(codec, self.SWITCH, 1) == [events.Switched(1, b"h2c", b"")]

    def test_interim_heads_may_come_before_it(self) -> None:
        codec = asked(b"GET", *self.OFFER)
        heard = codec.receive(b"HTTP/1.1 103 Early Hints\r\n\r\n" + self.SWITCH + b"x")
        assert heard[1:] == [events.Switched(1, b"h2c", b"x")] and isinstance(heard[0], Interim)

    def test_another_protocol_is_named(self) -> None:
        codec = asked(b"GET", *self.OFFER)
        (switched,) = codec.receive(self.SWITCH.replace(b"h2c", b"websocket"))
        assert switched == events.Switched(1, b"websocket", b"")

    def test_one_that_names_no_protocol_is_told_as_that(self) -> None:
        codec = asked(b"GET", *self.OFFER)
        assert codec.receive(b"HTTP/1.1 101 X\r\n\r\n") == [events.Switched(1, b"", b"")]

    def test_one_that_nobody_asked_for_is_refused(self) -> None:
        codec = asked()
        assert codec.receive(self.SWITCH) == []
        assert isinstance(codec.failure, RemoteProtocolError)

    def test_an_answer_instead_of_it_is_an_answer(self) -> None:
        codec = asked(b"GET", *self.OFFER)
        assert body(codec.receive(LENGTH_3)) == b"abc" and codec.reusable

    def test_one_to_a_later_request_that_did_not_ask_is_refused(self) -> None:
        codec = asked(b"GET", *self.OFFER)
        codec.receive(LENGTH_3)
        codec.open(head(), end=True)
        assert codec.receive(self.SWITCH) == []
        assert isinstance(codec.failure, RemoteProtocolError)
