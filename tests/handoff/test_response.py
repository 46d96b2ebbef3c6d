"""Response: what callers see of it, and that every way of reading its body gives the same bytes."""

from __future__ import annotations

import copy
import encodings.aliases
import gzip
import http.cookiejar
import io
import itertools
import json
import pickle
import shutil
import warnings
import zlib
from collections.abc import Callable
from typing import Any

import brotli
import pytest
import zstandard
from handoff_kit import ORIGIN, Waiters, make_request, make_response, open_pipe, streaming
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hyperpool.errors import ConnectionLost, DecodeError, HTTPStatusError, ResponseClosed
from hyperpool.handoff.response import Response

# On a busy machine an example may take long: that is no failure.
unhurried = settings(deadline=None)

STREAMED = pytest.mark.parametrize("streamed", [False, True], ids=["collected", "streamed"])
GZIP = [(b"content-encoding", b"gzip")]
CHUNKS = st.lists(st.binary(max_size=12), max_size=8)
PLAIN = bytes(range(256)) * 64


# Every charset that Python knows by a name; unicode_escape warns about what it is given.
CHARSETS = sorted(set(encodings.aliases.aliases.values()) - {"unicode_escape", "mbcs", "oem"})


def lost() -> ConnectionLost:
    return ConnectionLost("the server closed the connection", origin=ORIGIN, processed="maybe")


def texts() -> st.SearchStrategy[list[bytes]]:
    """UTF-8 text with every kind of line end, cut into pieces anywhere, also inside characters."""
    text = st.text(alphabet=st.sampled_from("ab\u00e9\U0001f600\n\r\u2028\x0b"), max_size=30)
    return st.builds(cut, text.map(str.encode), st.lists(st.integers(0, 60), max_size=6))


def cut(body: bytes, at: list[int]) -> list[bytes]:
    ends = [0, *sorted(min(one, len(body)) for one in at), len(body)]
    return [body[start:end] for start, end in itertools.pairwise(ends)]


class TestTheHead:
    def test_the_status_has_both_names(self) -> None:
        response = make_response(status=404)
        assert (response.status_code, response.status) == (404, 404)

    def test_headers_are_str_and_ask_no_case(self) -> None:
        response = make_response(fields=[(b"x-name", b"caf\xe9")])
        assert response.headers["X-Name"] == "caf\u00e9"

    def test_repeated_fields_are_kept_apart(self) -> None:
        response = make_response(fields=[(b"set-cookie", b"a=1"), (b"set-cookie", b"b=2")])
        assert response.headers.getlist("set-cookie") == ["a=1", "b=2"]

    def test_http2_has_the_standard_reason(self) -> None:
        assert make_response(status=404).reason == "Not Found"

    def test_http2_has_no_reason_for_an_unknown_status(self) -> None:
        assert make_response(status=799).reason == ""

    def test_http1_has_the_reason_that_was_sent(self) -> None:
        assert make_response(reason=b"Fine \xe9", http_version="HTTP/1.1").reason == "Fine \u00e9"

    def test_http1_without_a_reason_has_none(self) -> None:
        assert make_response(http_version="HTTP/1.1").reason == ""

    @pytest.mark.parametrize(("version", "stream_id"), [("HTTP/2", 1), ("HTTP/1.1", None)])
    def test_only_http2_has_stream_ids(self, version: str, stream_id: int | None) -> None:
        response = make_response(http_version=version)
        assert (response.http_version, response.stream_id) == (version, stream_id)

    def test_it_knows_its_request(self) -> None:
        response = make_response()
        assert (response.url, response.request.method, response.history) == (f"{ORIGIN}/x", "GET", [])

    def test_elapsed_is_a_timedelta(self) -> None:
        assert make_response().elapsed.total_seconds() == 1.5

    def test_nothing_was_resent(self) -> None:
        assert make_response().retries == ()

    @pytest.mark.parametrize(("status", "ok"), [(200, True), (399, True), (400, False), (599, False)])
    def test_ok_is_below_400(self, status: int, ok: bool) -> None:
        assert make_response(status=status).ok is ok

    def test_raise_for_status_gives_the_response_when_all_is_well(self) -> None:
        response = make_response()
        assert response.raise_for_status() is response

    @pytest.mark.parametrize(("status", "who"), [(404, "client"), (503, "server")])
    def test_raise_for_status_says_whose_fault_it_is(self, status: int, who: str) -> None:
        response = make_response(status=status)
        with pytest.raises(HTTPStatusError, match=rf"{status} .* \({who} error\) for GET {ORIGIN}/x") as caught:
            response.raise_for_status()
        error = caught.value
        assert (error.response, error.origin, error.stream_id, error.processed) == (response, ORIGIN, 1, "maybe")

    def test_cookies_are_a_jar(self) -> None:
        response = make_response(fields=[(b"set-cookie", b"a=1; Path=/"), (b"set-cookie", b"b=2")])
        assert isinstance(response.cookies, http.cookiejar.CookieJar)
        assert {cookie.name: cookie.value for cookie in response.cookies} == {"a": "1", "b": "2"}

    def test_without_cookies_the_jar_is_empty(self) -> None:
        assert len(make_response().cookies) == 0

    def test_it_shows_its_state(self) -> None:
        assert repr(make_response(status=204)) == f"<Response [204 HTTP/2] GET {ORIGIN}/x>"

    def test_a_password_in_the_url_is_shown_nowhere(self) -> None:
        response = make_response(status=404)
        response.request = make_request(url="https://user:secret@a.test/x")
        with pytest.raises(HTTPStatusError) as caught:
            response.raise_for_status()
        assert "secret" not in repr(response) + str(caught.value)

    @STREAMED
    def test_trailers_come_with_the_end(self, streamed: bool) -> None:
        assert make_response(trailers=[(b"x-sum", b"1")], streamed=streamed).trailers["X-Sum"] == "1"

    def test_trailers_are_empty_before_the_end(self) -> None:
        with streaming(open_pipe()) as response:
            assert len(response.trailers) == 0


class TestText:
    @pytest.mark.parametrize(
        ("content_type", "encoding"),
        [
            (None, "utf-8"),
            (b"text/plain", "utf-8"),
            (b"text/plain; charset=latin-1", "latin-1"),
            (b'text/plain; CHARSET = "utf-16"; x=y', "utf-16"),
            (b"text/plain; charset='ascii'", "ascii"),
            (b"text/plain; charset=", "utf-8"),
            (b'text/plain; charset=""', "utf-8"),
        ],
    )
    def test_its_charset_comes_from_content_type(self, content_type: bytes | None, encoding: str) -> None:
        fields = [(b"content-type", content_type)] if content_type else []
        assert make_response(fields=fields).encoding == encoding

    def test_its_charset_may_be_set(self) -> None:
        response = make_response([b"\xe9"], fields=[(b"content-type", b"text/plain; charset=utf-8")])
        response.encoding = "latin-1"
        assert (response.encoding, response.text) == ("latin-1", "\u00e9")

    def test_foreign_bytes_are_replaced(self) -> None:
        fields = [(b"content-type", b"text/plain; charset=utf-8")]
        assert make_response([b"a\xff"], fields=fields).text == "a\ufffd"

    @pytest.mark.parametrize(
        "charset", [b"nonsense", b"zlib", b"rot13", b"hex", b"idna", b"punycode", b"undefined", b"..", b"\xe9"]
    )
    @pytest.mark.parametrize("read", [lambda one: one.text, lambda one: "".join(one.iter_text())])
    def test_a_charset_that_is_none_counts_as_utf8(self, charset: bytes, read: Any) -> None:
        """The name is the server's choice: it must not choose an exception of codecs, or a decompressor."""
        response = make_response(["\u00e9".encode()], fields=[(b"content-type", b"text/plain; charset=" + charset)])
        assert read(response) == "\u00e9"

    def test_json_is_parsed(self) -> None:
        assert make_response([b'{"a": ', b"[1.5]}"]).json(parse_float=str) == {"a": ["1.5"]}

    @pytest.mark.parametrize("body", [b"", b"{", b"\xff\xfe\xfd"])
    def test_what_is_no_json_is_a_value_error(self, body: bytes) -> None:
        with pytest.raises(ValueError):
            make_response([body]).json()

    @pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-32"])
    def test_json_may_be_in_any_unicode(self, encoding: str) -> None:
        assert make_response([json.dumps("\u00e9", ensure_ascii=False).encode(encoding)]).json() == "\u00e9"


class TestAllWaysOfReadingAgree:
    @STREAMED
    @unhurried
    @given(chunks=CHUNKS)
    def test_content_is_the_whole_body(self, streamed: bool, chunks: list[bytes]) -> None:
        assert make_response(chunks, streamed=streamed).content == b"".join(chunks)

    @STREAMED
    @unhurried
    @given(chunks=CHUNKS, n=st.none() | st.integers(1, 20), raw=st.booleans())
    def test_pieces_add_up_and_have_the_size_that_was_asked_for(self, streamed, chunks, n, raw) -> None:
        response = make_response(chunks, streamed=streamed)
        pieces = list(response.iter_raw(n) if raw else response.iter_bytes(n))
        assert b"".join(pieces) == b"".join(chunks)
        assert all(pieces)
        assert n is None or all(len(piece) == n for piece in pieces[:-1])
        assert n is None or not pieces or len(pieces[-1]) <= n

    @STREAMED
    @unhurried
    @given(chunks=CHUNKS, sizes=st.lists(st.integers(0, 20), max_size=12))
    def test_read_gives_what_a_file_would(self, streamed: bool, chunks: list[bytes], sizes: list[int]) -> None:
        response, file = make_response(chunks, streamed=streamed), io.BytesIO(b"".join(chunks))
        for n in [*sizes, -1, 5]:
            assert response.read(n) == file.read(n)

    @STREAMED
    @unhurried
    @given(chunks=texts(), n=st.none() | st.integers(1, 9))
    def test_text_pieces_add_up_to_the_text(self, streamed: bool, chunks: list[bytes], n: int | None) -> None:
        response = make_response(chunks, streamed=streamed)
        pieces = list(response.iter_text(n))
        assert all(pieces)
        assert "".join(pieces) == b"".join(chunks).decode()

    @STREAMED
    @unhurried
    @given(chunks=texts())
    def test_lines_are_those_of_a_text_file(self, streamed: bool, chunks: list[bytes]) -> None:
        file = io.TextIOWrapper(io.BytesIO(b"".join(chunks)), "utf-8", newline=None)
        assert list(make_response(chunks, streamed=streamed).iter_lines()) == [line.rstrip("\n") for line in file]

    @STREAMED
    @unhurried
    @given(body=st.binary(max_size=200), at=st.lists(st.integers(0, 200), max_size=5), n=st.integers(1, 50))
    def test_a_decoded_body_agrees_as_well(self, streamed: bool, body: bytes, at: list[int], n: int) -> None:
        chunks = cut(gzip.compress(body), at)
        make = [make_response(chunks, fields=GZIP, streamed=streamed) for _ in range(4)]
        assert make[0].content == body
        assert b"".join(make[1].iter_bytes(n)) == body
        assert b"".join(iter(lambda: make[2].read(n), b"")) == body
        assert b"".join(make[3].iter_raw(n)) == b"".join(chunks)

    @unhurried
    @given(body=st.binary(max_size=40), name=st.sampled_from(CHARSETS))
    def test_any_bytes_are_text_in_any_charset(self, body: bytes, name: str) -> None:
        """Both are the server's choice: neither may raise what is not of our tree."""
        response = make_response([body], fields=[(b"content-type", b"text/plain; charset=" + name.encode())])
        assert isinstance(response.text, str)
        assert isinstance("".join(response.iter_text(3)), str)

    @unhurried
    @example(body=b"\xef", name="utf-8-sig", n=1)
    @given(
        body=st.binary(max_size=12),
        name=st.sampled_from(["utf-16", "UTF16", "utf_32", "utf-8-sig"]),
        n=st.integers(1, 5),
    )
    def test_text_pieces_agree_with_text_about_byte_order_marks(self, body: bytes, name: str, n: int) -> None:
        response = make_response([body], fields=[(b"content-type", b"text/plain; charset=" + name.encode())])
        assert "".join(response.iter_text(n)) == response.text

    @pytest.mark.parametrize("n", [0, -1])
    def test_pieces_of_nothing_are_refused(self, n: int) -> None:
        with pytest.raises(ValueError, match="n must be 1 or more"):
            list(make_response([b"a"]).iter_bytes(n))

    @pytest.mark.parametrize("n", ["5", b"5", 2.5, [5]])
    def test_a_size_that_is_no_whole_number_is_told(self, n: Any) -> None:
        for read in (Response.read, Response.read1, Response.readline):
            with pytest.raises(TypeError, match="n must be a whole number or None, not"):
                read(make_response([b"ab"]), n)
        with pytest.raises(TypeError, match="n must be a whole number, not"):
            list(make_response([b"ab"]).iter_bytes(n))

    def test_reading_none_is_reading_all(self) -> None:
        assert make_response([b"ab", b"c"]).read(None) == b"abc"

    def test_content_is_the_one_chunk_itself(self) -> None:
        """A body that came in one piece is never copied."""
        assert make_response([PLAIN]).content is PLAIN

    def test_content_may_be_asked_for_again(self) -> None:
        response = make_response([b"a", b"b"], streamed=True)
        assert [response.content, response.content, *response.iter_bytes()] == [b"ab"] * 3

    def test_a_collected_body_may_be_iterated_again(self) -> None:
        response = make_response([b"a", b"b"])
        assert [b"".join(response.iter_bytes()) for _ in range(2)] == [b"ab"] * 2

    def test_reading_a_large_piece_in_small_steps_copies_no_rest(self) -> None:
        """8 MiB in steps of 64 bytes: a copy of the rest at each step would move half a terabyte."""
        size = 8 << 20
        response = make_response([bytes(size)])
        assert sum(len(part) for part in iter(lambda: response.read(64), b"")) == size

    def test_a_long_line_in_small_pieces_is_joined_once(self) -> None:
        """20,000 pieces of a line without end: joined at each, they would move 20 GB."""
        assert [len(line) for line in make_response([b"x" * 100] * 20_000, streamed=True).iter_lines()] == [2_000_000]


class TestAsAFile:
    @STREAMED
    def test_readinto_fills_a_buffer(self, streamed: bool) -> None:
        response, buffer = make_response([b"ab", b"cd", b"e"], streamed=streamed), bytearray(4)
        got = [
            response.readinto(buffer),
            bytes(buffer),
            response.readinto(buffer),
            buffer[:1],
            response.readinto(buffer),
        ]
        assert got == [4, b"abcd", 1, b"e", 0]

    def test_readinto_counts_bytes_not_items(self) -> None:
        buffer = memoryview(bytearray(8)).cast("I")
        assert make_response([b"12345678"]).readinto(buffer) == 8

    @STREAMED
    @pytest.mark.parametrize("fields", [[], GZIP])
    def test_a_buffered_reader_reads_it(self, streamed: bool, fields: list[tuple[bytes, bytes]]) -> None:
        body = gzip.compress(PLAIN) if fields else PLAIN
        chunks = cut(body, list(range(0, len(body), 700)))
        with io.BufferedReader(make_response(chunks, fields=fields, streamed=streamed)) as reader:
            assert reader.read(10) + reader.peek(1)[:0] + reader.read() == PLAIN

    def test_a_text_wrapper_reads_it(self) -> None:
        with io.TextIOWrapper(io.BufferedReader(make_response([b"a\r", b"\nb"])), "ascii") as reader:
            assert list(reader) == ["a\n", "b"]

    @STREAMED
    def test_copyfileobj_copies_it(self, streamed: bool) -> None:
        target = io.BytesIO()
        shutil.copyfileobj(make_response([PLAIN[:100], PLAIN[100:]], streamed=streamed), target)
        assert target.getvalue() == PLAIN

    def test_it_says_what_it_can_do(self) -> None:
        response = make_response()
        assert (response.readable(), response.writable(), response.seekable()) == (True, False, False)

    def test_flushing_it_is_nothing(self) -> None:
        make_response().flush()

    def test_closing_the_reader_closes_the_response(self) -> None:
        response = make_response()
        io.BufferedReader(response).close()
        assert response.closed


class TestDecoding:
    @STREAMED
    @pytest.mark.parametrize(
        ("coding", "encode"),
        [
            (b"gzip", gzip.compress),
            (b"x-gzip", gzip.compress),
            (b"deflate", zlib.compress),
            (b"br", brotli.compress),
            (b"zstd", zstandard.compress),
            (b"gzip, br", lambda body: brotli.compress(gzip.compress(body))),
            (b"identity", lambda body: body),
        ],
    )
    def test_content_encoding_is_undone(self, coding: bytes, encode: Any, streamed: bool) -> None:
        encoded = encode(PLAIN)
        chunks = cut(encoded, list(range(0, len(encoded), 50)))
        response = make_response(chunks, fields=[(b"content-encoding", coding)], streamed=streamed)
        assert response.content == PLAIN

    def test_two_fields_are_one_list(self) -> None:
        """RFC 9110 5.3."""
        fields = [(b"content-encoding", b"gzip"), (b"content-encoding", b"br")]
        assert make_response([brotli.compress(gzip.compress(b"abc"))], fields=fields).content == b"abc"

    @pytest.mark.parametrize("coding", [b"gzip", b"deflate", b"br", b"zstd", b"gzip, br"])
    def test_no_body_needs_no_decoding(self, coding: bytes) -> None:
        """HEAD, 204 and 304 name the coding of a body that does not come (RFC 9110 8.4, 9.3.2)."""
        assert make_response([], fields=[(b"content-encoding", coding)]).content == b""

    def test_raw_stays_encoded(self) -> None:
        encoded = gzip.compress(PLAIN)
        assert b"".join(make_response([encoded], fields=GZIP).iter_raw()) == encoded

    @STREAMED
    @pytest.mark.parametrize("body", [b"not gzip at all", gzip.compress(PLAIN)[:-9]])
    @pytest.mark.parametrize(
        "read", [lambda one: one.content, lambda one: list(one.iter_bytes()), lambda one: one.read()]
    )
    def test_a_body_that_is_not_what_it_says_is_an_error(self, body: bytes, read: Any, streamed: bool) -> None:
        response = make_response([body], fields=GZIP, streamed=streamed)
        with pytest.raises(DecodeError) as caught:
            read(response)
        assert (caught.value.origin, caught.value.stream_id, caught.value.processed) == (ORIGIN, 1, "maybe")

    def test_too_many_codings_are_an_error_that_says_where(self) -> None:
        """A13."""
        with pytest.raises(DecodeError) as caught:
            make_response([b"x"], fields=[(b"content-encoding", b"gzip" + b", gzip" * 9)]).read()
        assert caught.value.origin == ORIGIN

    @STREAMED
    def test_a_bomb_is_stopped_at_the_bound(self, streamed: bool) -> None:
        """A12."""
        bomb = gzip.compress(bytes(4 << 20))
        response = make_response([bomb], fields=GZIP, streamed=streamed, max_decoded_bytes=1 << 20)
        with pytest.raises(DecodeError, match=r"more than 1,048,576 bytes.*Limits\.max_decoded_bytes"):
            response.content  # noqa: B018
        assert response.closed

    def test_a_body_of_just_the_bound_passes(self) -> None:
        response = make_response([gzip.compress(PLAIN)], fields=GZIP, max_decoded_bytes=len(PLAIN))
        assert response.content == PLAIN

    def test_iterating_over_a_bomb_costs_a_piece_at_a_time(self) -> None:
        """A12: iterating is not bounded, it never decodes ahead of the reader."""
        response = make_response([gzip.compress(bytes(4 << 20))], fields=GZIP, max_decoded_bytes=1)
        sizes = [len(piece) for piece in response.iter_bytes()]
        assert (sum(sizes), max(sizes)) == (4 << 20, 256 << 10)

    def test_a_collected_plain_body_is_not_bounded(self) -> None:
        """It is in memory already."""
        assert make_response([b"abc"], max_decoded_bytes=1).content == b"abc"

    def test_a_streamed_plain_body_is_bounded_when_read_whole(self) -> None:
        response = make_response([b"abc"], streamed=True, max_decoded_bytes=1)
        with pytest.raises(DecodeError):
            response.content  # noqa: B018


class TestCopies:
    """What a worker process gives back, and what is kept in a cache."""

    @pytest.mark.parametrize("copied", [lambda one: pickle.loads(pickle.dumps(one)), copy.deepcopy, copy.copy])
    @pytest.mark.parametrize("read", [False, True])
    def test_a_body_that_is_here_goes_with_it(self, copied: Callable[[Response], Response], read: bool) -> None:
        response = make_response([gzip.compress(b"ab"), gzip.compress(b"c\nd")], fields=GZIP, trailers=[(b"a", b"b")])
        if read:
            assert (response.content, response.read(2)) == (b"abc\nd", b"ab")
        response.history.append(make_response([b"moved"], status=302))
        twin = copied(response)
        assert (twin.read(1), twin.content, list(twin.iter_lines())) == (b"a", b"abc\nd", ["abc", "d"])
        assert (twin.headers, twin.trailers) == (response.headers, response.trailers)
        assert (repr(twin), twin.elapsed, twin.history[0].content) == (repr(response), response.elapsed, b"moved")

    def test_so_does_one_that_was_streamed_and_read(self) -> None:
        response = make_response([gzip.compress(b"abc")], fields=GZIP, streamed=True, trailers=[(b"a", b"b")])
        assert response.content == b"abc"
        response.history.append(make_response([b"moved"], status=302, streamed=True))
        response.history[0].close()
        twin = pickle.loads(pickle.dumps(response))
        assert (twin.content, twin.trailers, twin.history[0].status_code) == (b"abc", {"a": "b"}, 302)

    def test_one_that_is_still_to_come_does_not(self) -> None:
        response = make_response([b"abc"], streamed=True)
        with pytest.raises(TypeError, match="its body comes from a connection"):
            pickle.dumps(response)
        assert response.content == b"abc"


class TestErrors:
    """M10: a body that was cut short never looks complete, however often it is asked for."""

    @pytest.fixture
    def cut_short(self) -> Response:
        pipe = open_pipe()
        pipe.feed(b"abc")
        pipe.fail(lost())
        return streaming(pipe)

    @pytest.mark.parametrize(
        "read",
        [
            lambda one: one.content,
            lambda one: one.text,
            lambda one: one.read(),
            lambda one: one.read(4),
            lambda one: list(one.iter_bytes()),
            lambda one: list(one.iter_raw(2)),
            lambda one: list(one.iter_lines()),
            lambda one: shutil.copyfileobj(one, io.BytesIO()),
            lambda one: one.readinto(bytearray(10)),
        ],
    )
    def test_every_way_of_reading_raises(self, cut_short: Response, read: Any) -> None:
        with pytest.raises(ConnectionLost):
            read(cut_short)

    def test_what_came_before_is_given(self, cut_short: Response) -> None:
        assert cut_short.read(3) == b"abc"

    @pytest.mark.parametrize("n", [-1, 4, 100])
    def test_a_second_read_raises_again(self, cut_short: Response, n: int) -> None:
        with pytest.raises(ConnectionLost):
            cut_short.read(100)
        with pytest.raises(ConnectionLost):
            cut_short.read(n)

    def test_each_raise_has_an_instance_of_its_own(self, cut_short: Response) -> None:
        errors = []
        for _ in range(2):
            with pytest.raises(ConnectionLost) as caught:
                cut_short.read()
            errors.append(caught.value)
        assert errors[0] is not errors[1]
        assert [str(error) for error in errors] == [str(lost())] * 2

    def test_a_damaged_coding_is_damaged_at_the_second_read_as_well(self) -> None:
        response = make_response([gzip.compress(PLAIN)[:-9]], fields=GZIP)
        for _ in range(2):
            with pytest.raises(DecodeError):
                response.read()


class TestClosing:
    def test_it_is_open_until_it_is_closed(self) -> None:
        response = make_response()
        before = response.closed
        response.close()
        assert (before, response.closed) == (False, True)

    def test_a_with_block_closes_it(self) -> None:
        with make_response() as response:
            pass
        assert response.closed

    def test_closing_before_the_end_resets_the_stream_once(self) -> None:
        resets: list[str] = []
        response = streaming(open_pipe(), reset=lambda: resets.append("reset"))
        response.close()
        response.close()
        assert resets == ["reset"]

    def test_closing_after_the_end_resets_nothing(self) -> None:
        resets: list[str] = []
        pipe = open_pipe()
        response = streaming(pipe, reset=lambda: resets.append("reset"))
        pipe.finish([])
        response.close()
        assert resets == []

    @pytest.mark.parametrize(
        "read", [lambda one: one.content, lambda one: one.read(1), lambda one: list(one.iter_bytes())]
    )
    def test_a_closed_stream_cannot_be_read(self, read: Any) -> None:
        response = make_response([b"abc"], streamed=True)
        response.close()
        with pytest.raises(ResponseClosed):
            read(response)

    def test_a_closed_collected_body_is_still_here(self) -> None:
        response = make_response([b"abc"])
        response.close()
        assert response.content == b"abc"

    def test_content_after_the_first_piece_is_refused(self) -> None:
        """It would be the rest, and look like the whole."""
        response = make_response([b"a", b"b"], streamed=True)
        next(response.iter_bytes())
        with pytest.raises(ResponseClosed, match="piece by piece"):
            response.content  # noqa: B018

    def test_closing_wakes_a_reader_in_another_thread(self, in_thread) -> None:
        """L5."""
        pipe = open_pipe()
        response = streaming(pipe)
        waiters = Waiters(pipe._cond)
        reader = in_thread(lambda: response.read(1))
        waiters.until_parked()
        response.close()
        with pytest.raises(ResponseClosed):
            reader.value()

    def test_a_forgotten_stream_is_reset_and_warned_about(self) -> None:
        """X8."""
        resets: list[str] = []
        response = streaming(open_pipe(), reset=lambda: resets.append("reset"))
        with pytest.warns(ResourceWarning, match=r"asked for at caller\.py:7"):
            del response
        assert resets == ["reset"]

    def test_a_closed_stream_is_not_warned_about(self) -> None:
        response = streaming(open_pipe())
        response.close()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            del response


class TestOnALoopThread:
    """L11."""

    @pytest.mark.parametrize(
        "read", [lambda one: one.content, lambda one: one.read(1), lambda one: next(one.iter_raw())]
    )
    def test_reading_a_stream_is_refused(self, loop_mark, read: Any) -> None:
        with streaming(open_pipe()) as response, pytest.raises(RuntimeError, match="streamed response"):
            read(response)

    def test_reading_a_collected_body_is_not(self, loop_mark) -> None:
        assert make_response([b"abc"]).content == b"abc"

    def test_closing_never_blocks(self, loop_mark) -> None:
        response = streaming(open_pipe())
        response.close()
        assert response.closed
