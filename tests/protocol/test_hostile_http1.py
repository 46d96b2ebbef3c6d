"""What servers may and may not send over HTTP/1.1, form by form: each named by its section of RFC 9112 or RFC 9110.

Every form is given whole, byte by byte and in random cuts: the outcome must be the same. What is refused is refused
with an error of ours, and nothing of it reaches the caller as a complete response.
"""

from __future__ import annotations

import time
import tracemalloc
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hyperpool.errors import ConnectionLost, RemoteProtocolError
from hyperpool.protocol import events
from hyperpool.protocol.chunk_guard import MAX_CHUNK_LINE_BYTES, ChunkGuard
from hyperpool.protocol.events import Data, End, Head, RequestHead, Trailers
from hyperpool.protocol.h1_codec import H1Codec

unhurried = settings(deadline=None)

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
LAST = b"0\r\n\r\n"


def asked(**limits: int) -> H1Codec:
    """A codec that waits for its first response."""
    codec = H1Codec(**limits)
    codec.open(RequestHead(b"GET", b"http", b"a.test", b"/", ()), end=True)
    return codec


def outcome(wire: bytes, ends: list[int] | None = None, **limits: int) -> tuple[list[Any], str]:
    """What is heard of these bytes, with pieces of body made one, and the words of the failure."""
    codec = asked(**limits)
    heard: list[Any] = []
    for start, end in zip([0, *(ends or [])], [*(ends or []), len(wire)], strict=True):
        for event in codec.receive(wire[start:end]):
            if isinstance(event, Data) and heard and isinstance(heard[-1], Data):
                event = Data(1, heard.pop().data + event.data, 0)
            heard.append(Data(1, event.data, 0) if isinstance(event, Data) else event)
    assert codec.failure is None or type(codec.failure) is RemoteProtocolError
    return heard, str(codec.failure)


def body(heard: list[Any]) -> bytes:
    return b"".join(event.data for event in heard if isinstance(event, Data))


# Chunk lines, each with 3 bytes of data behind it, and what follows the body.
GOOD_CHUNKS = {
    "7.1 a size": b"3\r\nabc\r\n" + LAST,
    "7.1 a size in lower case with zeros before it": b"0000000000000003\r\nabc\r\n" + LAST,
    "7.1 a last chunk of several zeros": b"3\r\nabc\r\n000\r\n\r\n",
    "7.1 padded with blanks, as old servers do": b"3  \r\nabc\r\n0  \r\n\r\n",
    "7.1.1 an extension": b"3;a\r\nabc\r\n" + LAST,
    "7.1.1 an extension with a value": b"3;a=b\r\nabc\r\n" + LAST,
    "7.1.1 an extension in quotes": b'3;a="b;c=\\"d\\" \xe9"\r\nabc\r\n' + LAST,
    "7.1.1 an empty pair of quotes": b'3;a=""\r\nabc\r\n' + LAST,
    "7.1.1 a blank before it": b"3 ;a\r\nabc\r\n" + LAST,
    "7.1.1 blanks wherever they may be": b'3 \t; a \t= "b" \t; c\t=d \r\nabc\r\n0 ; e = f\r\n\r\n',
    "7.1.1 several extensions": b'3;a=b;c;d="e"\r\nabc\r\n0;x=y\r\n\r\n',
    "7.1.1 blanks around what stands in it": b"3; a = b ; c\t\r\nabc\r\n" + LAST,
    "7.1.1 an extension of just the limit": b"3;" + b"a" * (MAX_CHUNK_LINE_BYTES - 4) + b"\r\nabc\r\n" + LAST,
    "7.1.2 trailers": b"3\r\nabc\r\n0\r\nX: y\r\nZ:\r\n\r\n",
    "7.1.2 a folded trailer (5.2)": b"3\r\nabc\r\n0\r\nX: y\r\n content-length: 9\r\n\r\n",
    "7.1.2 a trailer that only resembles framing": b"3\r\nabc\r\n0\r\nX-Content-Length: 3\r\n\r\n",
}

BAD_CHUNKS = {
    "7.1 no size": b"\r\nabc\r\n" + LAST,
    "7.1 a blank before the size": b" 3\r\nabc\r\n" + LAST,
    "7.1 a tab before the size": b"\t3\r\nabc\r\n" + LAST,
    "7.1 a plus sign": b"+3\r\nabc\r\n" + LAST,
    "7.1 a minus sign": b"-3\r\nabc\r\n" + LAST,
    "7.1 0x": b"0x3\r\nabc\r\n" + LAST,
    "7.1 an underscore": b"0_3\r\nabc\r\n" + LAST,
    "7.1 a letter past f": b"g\r\nabc\r\n" + LAST,
    "7.1 a fraction": b"3.0\r\nabc\r\n" + LAST,
    "7.1 two sizes": b"3 3\r\nabc\r\n" + LAST,
    "7.1 digits that are not ASCII": "٣\r\nabc\r\n".encode() + LAST,
    "7.1 a size of 17 digits": b"00000000000000003\r\nabc\r\n" + LAST,
    "7.1 a NUL behind the size": b"3\0\r\nabc\r\n" + LAST,
    "7.1 junk behind the size": b"3 junk\r\nabc\r\n" + LAST,
    "7.1 data longer than the size": b"3\r\nabcd\r\n" + LAST,
    "7.1 data shorter than the size": b"3\r\nab\r\n" + LAST,
    "7.1 no CRLF behind the data": b"3\r\nabc0\r\n\r\n",
    "7.1 an LF alone behind the data": b"3\r\nabc\n" + LAST,
    "7.1 a CR alone behind the data": b"3\r\nabc\r" + LAST,
    "2.2 an LF alone behind the size": b"3\nabc\r\n" + LAST,
    "2.2 a CR alone in the line": b"3\rx\r\nabc\r\n" + LAST,
    "2.2 CR CR LF": b"3\r\r\nabc\r\n" + LAST,
    "2.2 an LF alone in an extension": b"3;a\nabc\r\n" + LAST,
    "2.2 a CR alone in an extension": b"3;a\rb\r\nabc\r\n" + LAST,
    "7.1.1 a semicolon and nothing": b"3;\r\nabc\r\n" + LAST,
    "7.1.1 an extension without a name": b"3;=a\r\nabc\r\n" + LAST,
    "7.1.1 a value without a value": b"3;a=\r\nabc\r\n" + LAST,
    "7.1.1 two words": b"3;a b\r\nabc\r\n" + LAST,
    "7.1.1 quotes that are not closed": b'3;a="b\r\nabc\r\n' + LAST,
    "7.1.1 a quote within a word": b'3;a=b"\r\nabc\r\n' + LAST,
    "7.1.1 something behind the quotes": b'3;a="b"c\r\nabc\r\n' + LAST,
    "7.1.1 a control character": b"3;a=\x01\r\nabc\r\n" + LAST,
    "7.1.1 a NUL in quotes": b'3;a="\0"\r\nabc\r\n' + LAST,
    "7.1.1 an extension past the limit": b"3;" + b"a" * (MAX_CHUNK_LINE_BYTES - 3) + b"\r\nabc\r\n" + LAST,
    "7.1.1 an extension without an end": b"3;" + b"a" * 9_000,
    "7.1.1 a bad extension on the last chunk": b"3\r\nabc\r\n0;;\r\n\r\n",
    "7.1.2 an LF alone behind a trailer": b"3\r\nabc\r\n0\r\nX: y\n\r\n",
    "7.1.2 an LF alone as the end": b"3\r\nabc\r\n0\r\n\n",
    "7.1.2 an LF alone as the end of trailers": b"3\r\nabc\r\n0\r\nX: y\r\n\n",
    "7.1.2 a CR alone in a trailer": b"3\r\nabc\r\n0\r\nX: y\rZ: a\r\n\r\n",
    "7.1.2 a trailer without a colon": b"3\r\nabc\r\n0\r\nX\r\n\r\n",
    "7.1.2 a blank before a trailer's colon": b"3\r\nabc\r\n0\r\nX : y\r\n\r\n",
    "7.1.2 a trailer that begins folded": b"3\r\nabc\r\n0\r\n X: y\r\n\r\n",
    "7.1.2 a NUL in a trailer": b"3\r\nabc\r\n0\r\nX: \0\r\n\r\n",
    "9110 6.5.1 a length as trailer": b"3\r\nabc\r\n0\r\nContent-Length: 3\r\n\r\n",
    "9110 6.5.1 a coding as trailer": b"3\r\nabc\r\n0\r\ntransfer-ENCODING: chunked\r\n\r\n",
    "9110 6.5.1 a length as the second trailer": b"3\r\nabc\r\n0\r\nX: y\r\ncontent-length:3\r\n\r\n",
    "7.1.2 trailers past the limit": b"3\r\nabc\r\n0\r\n" + b"X: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyy\r\n" * 2_000,
    "11.2 a second response behind the end": b"3\r\nabc\r\n" + LAST + OK + b"Content-Length: 0\r\n\r\n",
}

GOOD_HEADS = {
    "4 no reason": b"HTTP/1.1 200 \r\nContent-Length: 3\r\n\r\nabc",
    "4 no blank before an absent reason": b"HTTP/1.1 200\r\nContent-Length: 3\r\n\r\nabc",
    "4 obs-text in the reason": b"HTTP/1.1 200 \xc3\xa9\r\nContent-Length: 3\r\n\r\nabc",
    "5.1 no blank behind the colon": OK + b"Content-Length:3\r\n\r\nabc",
    "5.1 blanks and tabs around a value": OK + b"Content-Length: \t 3 \t\r\n\r\nabc",
    "5.2 a folded field": OK + b"X: a\r\n  b\r\n\tc\r\nContent-Length: 3\r\n\r\nabc",
    "5.2 a folded line that only resembles framing": OK + b"X: a\r\n Content-Length: 9\r\nContent-Length: 3\r\n\r\nabc",
    "9110 5.5 obs-text and controls in a value": OK + b"X: \xe9\x01\x7f\r\nContent-Length: 3\r\n\r\nabc",
    "9110 5.5 an empty value": OK + b"X:\r\nContent-Length: 3\r\n\r\nabc",
    "9110 8.6 a length with zeros before it": OK + b"Content-Length: 003\r\n\r\nabc",
    "6.3 a name that only resembles framing": OK + b"X-Content-Length: 9\r\nContent-Length: 3\r\n\r\nabc",
    "6.1 chunked in capitals": OK + b"Transfer-Encoding: CHUNKED\r\n\r\n3\r\nabc\r\n" + LAST,
    "9.3 1.0 with a length": b"HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\nabc",
    "15.2 an interim head": b"HTTP/1.1 103 Hints\r\nLink: </a>\r\n\r\n" + OK + b"Content-Length: 3\r\n\r\nabc",
}

LENGTHS = {
    "a plus sign": b"+3",
    "a minus sign": b"-3",
    "a list of two that agree": b"3, 3",
    "a list of two that do not": b"3, 4",
    "a comma": b"3,",
    "a semicolon": b"3;",
    "hexadecimal": b"0x3",
    "a fraction": b"3.0",
    "an exponent": b"3e0",
    "an underscore": b"1_0",
    "a blank between digits": b"1 0",
    "a tab between digits": b"1\t0",
    "quotes": b'"3"',
    "nothing": b"",
    "blanks alone": b" \t ",
    "a letter": b"3x",
    "a NUL": b"3\0",
    "digits that are not ASCII": "٣".encode(),
    "a superscript": "³".encode("latin-1"),
    "500 digits": b"9" * 500,
    "21 digits": b"1" * 21,
    "a fold": b"3\r\n ",
    "a fold between digits": b"1\r\n 0",
}

BAD_HEADS = {
    f"6.3 a length with {form}": OK + b"Content-Length: " + value + b"\r\n\r\nabc" for form, value in LENGTHS.items()
}
BAD_HEADS |= {
    "6.3 two lengths that agree": OK + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
    "6.3 two lengths that agree, apart": OK + b"Content-Length: 3\r\nX: y\r\ncontent-length: 3\r\n\r\nabc",
    "6.3 two lengths that do not agree": OK + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabc",
    "6.1 a folded coding": OK + b"Transfer-Encoding:\r\n chunked\r\n\r\n" + LAST,
    "6.1 a coding that is not chunked": OK + b"Transfer-Encoding: identity\r\n\r\n",
    "6.1 chunked twice": OK + b"Transfer-Encoding: chunked, chunked\r\n\r\n" + LAST,
    "6.1 chunked before another": OK + b"Transfer-Encoding: chunked, gzip\r\n\r\n" + LAST,
    "6.1 chunked with a parameter": OK + b"Transfer-Encoding: chunked;a=b\r\n\r\n" + LAST,
    "6.1 chunked in quotes": OK + b'Transfer-Encoding: "chunked"\r\n\r\n' + LAST,
    "6.1 a vertical tab before chunked": OK + b"Transfer-Encoding: \x0bchunked\r\n\r\n" + LAST,
    "6.1 a coding beside a length": OK + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n" + LAST,
    "6.1 a coding beside a length of nothing": OK + b"Transfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n" + LAST,
    "6.1 a coding in HTTP/1.0": b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + LAST,
    "5.1 a blank before the colon of a length": OK + b"Content-Length : 3\r\n\r\nabc",
    "5.1 a blank before the colon of a coding": OK + b"Transfer-Encoding : chunked\r\n\r\n" + LAST,
    "5.1 a tab before a colon": OK + b"X\t: y\r\n\r\n",
    "5.1 a NUL in a name": OK + b"X\0: y\r\n\r\n",
    "5.1 a name that is not ASCII": OK + b"X\xe9: y\r\n\r\n",
    "5.1 a name in brackets": OK + b"(X): y\r\n\r\n",
    "5.2 a folded first field": OK + b" X: y\r\n\r\n",
    "9110 5.5 a NUL in a value": OK + b"X: a\0b\r\n\r\n",
    "9110 5.5 a form feed in a value": OK + b"X: a\x0cb\r\n\r\n",
    "2.2 an LF alone behind the status line": OK[:-2] + b"\n\r\n",
    "2.2 an LF alone as the end": OK + b"X: y\r\n\n",
    "2.2 a CR alone in a value": OK + b"X: a\rb\r\n\r\n",
    "2.2 CR CR LF": OK + b"X: a\r\r\n\r\n",
    "2.2 an empty line first": b"\r\n" + OK + b"\r\n",
    "4 two blanks before the status": b"HTTP/1.1  200 OK\r\n\r\n",
    "4 a tab before the status": b"HTTP/1.1\t200 OK\r\n\r\n",
    "4 a tab behind the status": b"HTTP/1.1 200\tOK\r\n\r\n",
    "4 a status of two digits": b"HTTP/1.1 20 OK\r\n\r\n",
    "4 a status of four digits": b"HTTP/1.1 2000 OK\r\n\r\n",
    "4 a status with a sign": b"HTTP/1.1 +20 OK\r\n\r\n",
    "4 a status below 100": b"HTTP/1.1 099 OK\r\n\r\n",
    "4 a status that is no number": b"HTTP/1.1 2x0 OK\r\n\r\n",
    "4 no status": b"HTTP/1.1\r\n\r\n",
    "4 a NUL in the reason": b"HTTP/1.1 200 \0\r\n\r\n",
    "2.3 HTTP/1.10": b"HTTP/1.10 200 OK\r\n\r\n",
    "2.3 HTTP/1": b"HTTP/1 200 OK\r\n\r\n",
    "2.3 HTTP/2.0": b"HTTP/2.0 200 OK\r\n\r\n",
    "2.3 HTTP/0.9": b"<html>",
    "2.3 lower case": b"http/1.1 200 OK\r\n\r\n",
    "2.3 ICY": b"ICY 200 OK\r\n\r\n",
    "9110 15.2.2 a switch that nobody asked for": b"HTTP/1.1 101 X\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
    "9110 5.4 more fields than 2,048": OK + b"a:\r\n" * 2_050 + b"\r\n",
    "9110 5.4 more bytes than the limit": OK + b"X: " + b"y" * (64 << 10) + b"\r\n\r\n",
}

GOOD = {**{name: CHUNKED + rest for name, rest in GOOD_CHUNKS.items()}, **GOOD_HEADS}
BAD = {**{name: CHUNKED + rest for name, rest in BAD_CHUNKS.items()}, **BAD_HEADS}


@pytest.mark.parametrize("form", GOOD)
def test_what_a_server_may_send_is_taken(form: str) -> None:
    heard, failure = outcome(GOOD[form])
    assert (body(heard), heard[-1], failure) == (b"abc", End(1), "None")


@pytest.mark.parametrize("form", BAD)
def test_what_it_may_not_send_is_refused_and_says_why(form: str) -> None:
    heard, failure = outcome(BAD[form])
    assert failure != "None"
    assert len(failure) < 300
    # A body that is whole before the fault is whole.
    assert End(1) not in heard or form.startswith("11.2")


@pytest.mark.parametrize("form", [*GOOD, *BAD])
def test_single_bytes_say_the_same(form: str) -> None:
    wire = {**GOOD, **BAD}[form]
    by_bytes = outcome(wire, list(range(1, len(wire))))
    whole = outcome(wire)
    assert by_bytes[0] == whole[0]
    assert (by_bytes[1] == "None") == (whole[1] == "None")


@unhurried
@given(form=st.sampled_from([*GOOD, *BAD]), data=st.data())
def test_any_cut_says_the_same(form: str, data: st.DataObject) -> None:
    wire = {**GOOD, **BAD}[form]
    ends = sorted(data.draw(st.lists(st.integers(0, len(wire)), max_size=8)))
    heard, failure = outcome(wire, ends)
    whole, expected = outcome(wire)
    assert heard == whole
    assert (failure == "None") == (expected == "None")


PARTS = [b"3", b"0", b"\r\n", b"\n", b"\r", b"abc", b";", b"a", b"=", b'"', b" ", b"X: y", b"Content-Length: 1", b"\0"]


@unhurried
@given(parts=st.lists(st.sampled_from(PARTS), max_size=16), data=st.data())
def test_any_cut_of_any_chunks_says_the_same(parts: list[bytes], data: st.DataObject) -> None:
    wire = CHUNKED + b"".join(parts)
    ends = sorted(data.draw(st.lists(st.integers(0, len(wire)), max_size=8)))
    heard, failure = outcome(wire, ends)
    whole, expected = outcome(wire)
    assert heard == whole
    assert (failure == "None") == (expected == "None")


@unhurried
@given(
    pieces=st.lists(st.binary(min_size=1, max_size=40), max_size=8),
    extension=st.sampled_from([b"", b";a", b';a="b c"', b" ", b" ; a = b"]),
    trailers=st.sampled_from([b"", b"X: y\r\n"]),
    data=st.data(),
)
def test_good_chunks_pass_whole(pieces: list[bytes], extension: bytes, trailers: bytes, data: st.DataObject) -> None:
    """The guard sees the same body as h11, whatever the data looks like."""
    chunks = b"".join(b"%x%s\r\n%s\r\n" % (len(piece), extension, piece) for piece in pieces)
    wire = CHUNKED + chunks + b"0\r\n" + trailers + b"\r\n"
    heard, failure = outcome(wire, sorted(data.draw(st.lists(st.integers(0, len(wire)), max_size=8))))
    assert (body(heard), heard[-1], failure) == (b"".join(pieces), End(1), "None")
    assert [event.fields for event in heard if isinstance(event, Trailers)] == [[(b"x", b"y")]] * bool(trailers)


def test_a_folded_field_is_one_value() -> None:
    """RFC 9112 5.2: a user agent reads the fold as blanks."""
    heard, _ = outcome(GOOD["5.2 a folded field"])
    assert isinstance(heard[0], Head)
    assert heard[0].fields[0] == (b"x", b"a b c")


def test_a_switch_that_was_asked_for_ends_http1() -> None:
    """RFC 9110 15.2.2: what stands behind it is the new protocol's."""
    codec = H1Codec()
    offer = ((b"Connection", b"Upgrade"), (b"Upgrade", b"h2c"))
    codec.open(RequestHead(b"GET", b"http", b"a.test", b"/", offer), end=True)
    heard = codec.receive(b"HTTP/1.1 101 X\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\nnot a head\n")
    assert (heard, codec.failure) == ([events.Switched(1, b"h2c", b"not a head\n")], None)


def test_neighbouring_chunks_are_one_event() -> None:
    """A server of single bytes must not cost an event for each."""
    heard = asked().receive(CHUNKED + b"1\r\na\r\n" * 1_000 + LAST)
    assert [type(event) for event in heard] == [Head, Data, End]
    assert heard[1] == Data(1, b"a" * 1_000, 1_000)


def test_what_stands_before_a_bad_chunk_line_in_the_same_read_is_heard() -> None:
    heard, failure = outcome(CHUNKED + b"3\r\nabc\r\n3\nabc\r\n")
    assert (body(heard), "a chunk cannot begin with b'3\\n'" in failure) == (b"abc", True)


class TestBounds:
    @pytest.mark.parametrize("size", [b"1000000000000000000", b"9" * 20])
    def test_a_length_of_an_exabyte_sets_no_memory_aside(self, size: bytes) -> None:
        """A16, RFC 9110 8.6."""
        self._takes_no_memory(OK + b"Content-Length: " + size + b"\r\n\r\nabc")

    def test_a_chunk_of_16_exabytes_sets_no_memory_aside(self) -> None:
        """RFC 9112 7.1: large numbers are to be expected."""
        self._takes_no_memory(CHUNKED + b"ffffffffffffffff\r\nabc")

    @staticmethod
    def _takes_no_memory(wire: bytes) -> None:
        codec = asked()
        tracemalloc.start()
        heard = codec.receive(wire)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert body(heard) == b"abc"
        assert peak < 1 << 20

    def test_a_guard_keeps_one_line_at_most(self) -> None:
        guard = ChunkGuard(max_trailer_bytes=1_000)
        for _ in range(MAX_CHUNK_LINE_BYTES):
            assert guard.admit(b"3")[1] is None
        assert len(guard._line) == MAX_CHUNK_LINE_BYTES
        assert guard.admit(b"3")[1] is not None

    def test_without_extensions_nothing_is_copied(self) -> None:
        data = b"3\r\nabc\r\n" * 3 + b"5\r\nab"
        assert ChunkGuard(max_trailer_bytes=1_000).admit(data)[0] is data

    def test_a_guard_admits_what_stands_behind_the_end(self) -> None:
        """It is h11 that stops there, and the codec that refuses it."""
        assert ChunkGuard(max_trailer_bytes=1_000).admit(LAST + b"\njunk\n") == (LAST + b"\njunk\n", None)

    @pytest.mark.parametrize(
        "line",
        [
            b"3" + b" " * 4_000 + b"x\r\n",
            b"3;a=b" + b" " * 4_000 + b"x\r\n",
            b"3" + b";a" * 2_000 + b"\0\r\n",
            b"3;a" + b" " * 2_000 + b"=" + b" " * 2_000 + b"\r\n",
            b'3;a="' + b"\\" * 4_000 + b"\r\n",
            b'3;a="' + b"b" * 4_000 + b"\r\n",
        ],
    )
    def test_no_line_costs_the_square_of_its_length(self, line: bytes) -> None:
        began = time.process_time()
        for _ in range(50):
            assert ChunkGuard(max_trailer_bytes=1_000).admit(line)[1] is not None
        # Linear: a few milliseconds. Quadratic: several seconds.
        assert time.process_time() - began < 1.0

    def test_trailers_have_the_limit_of_a_head(self) -> None:
        start = CHUNKED + b"0\r\n"
        line = b"X: " + b"y" * 93 + b"\r\n"
        assert outcome(start + line * 10 + b"\r\n", max_header_bytes=982)[0][-1] == End(1)
        assert "more than 981 bytes" in outcome(start + line * 10 + b"\r\n", max_header_bytes=981)[1]

    def test_single_byte_reads_of_a_long_chunk_line_are_refused_at_the_same_byte(self) -> None:
        codec = asked()
        codec.receive(CHUNKED + b"3;")
        taken = 0
        while codec.failure is None:
            codec.receive(b"a")
            taken += 1
        assert taken == MAX_CHUNK_LINE_BYTES - 1


class TestEarlyEnds:
    """M10, RFC 9112 8: the message says how much is missing."""

    @pytest.mark.parametrize(
        ("wire", "words"),
        [
            (b"", "before its response head"),
            (b"HTTP/1.1 2", "after 10 bytes of a response head"),
            (OK + b"Content-Length: 10000\r\n\r\nabc", "after 3 of the 10,000 bytes of the body"),
            (CHUNKED + b"3\r\nabc\r\n", "after 3 bytes of a chunked body"),
            (CHUNKED + b"3\r\nabc\r\n0\r\nX: y", "after 3 bytes of a chunked body"),
        ],
    )
    def test_an_early_end_says_how_far_it_came(self, wire: bytes, words: str) -> None:
        codec = asked()
        heard: list[events.Event] = [*codec.receive(wire), *codec.receive_eof()]
        assert isinstance(codec.failure, ConnectionLost)
        assert words in str(codec.failure)
        assert End(1) not in heard
