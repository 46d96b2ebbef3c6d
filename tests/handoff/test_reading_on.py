"""A streamed body is read on from where it is, whichever way: nothing is given twice, nothing is missed in silence."""

from __future__ import annotations

import csv
import gzip
import io
import itertools
import pickle
from collections.abc import Callable
from typing import Any

import pytest
from handoff_kit import make_response, open_pipe, streaming
from hypothesis import given, settings
from hypothesis import strategies as st

from hyperpool.errors import ConnectionLost, ResponseClosed
from hyperpool.handoff.reading import ByteReader
from hyperpool.handoff.response import Response

# On a busy machine an example may take long: that is no failure.
unhurried = settings(deadline=None)

GZIP = [(b"content-encoding", b"gzip")]
CHUNKS = st.lists(st.binary(max_size=12).map(lambda chunk: chunk.replace(b"\x00", b"\n")), max_size=8)
TEXT = b"name,size\nfirst,1\nsecond,2\nthird,3\n"


def into(response: Response, n: int) -> bytes:
    buffer = bytearray(n)
    return bytes(buffer[: response.readinto(buffer)])


def into1(response: Response, n: int) -> bytes:
    buffer = bytearray(n)
    return bytes(buffer[: response.readinto1(buffer)])


STEPS: dict[str, Callable[[Response, int], bytes]] = {
    "read": lambda response, n: response.read(n),
    "read1": lambda response, n: response.read1(n),
    "readinto": into,
    "readinto1": into1,
    "readline": lambda response, n: response.readline(n),
    "iter_bytes": lambda response, n: next(response.iter_bytes(n), b""),
    "as they arrive": lambda response, n: next(response.iter_bytes(), b""),
    "a line": lambda response, n: next(iter(response), b""),
}
RAW_STEPS = {**STEPS, "iter_raw": lambda response, n: next(response.iter_raw(n), b"")}


@unhurried
@given(CHUNKS, st.lists(st.tuples(st.sampled_from(sorted(RAW_STEPS)), st.integers(1, 20)), max_size=12))
def test_each_step_goes_on_where_the_last_one_stopped(chunks: list[bytes], steps: list[tuple[str, int]]) -> None:
    response = make_response(chunks, streamed=True)
    parts = [RAW_STEPS[name](response, n) for name, n in steps]
    assert b"".join([*parts, response.read()]) == b"".join(chunks)


@unhurried
@given(st.binary(max_size=200), st.lists(st.tuples(st.sampled_from(sorted(STEPS)), st.integers(1, 20)), max_size=8))
def test_so_it_is_where_the_body_is_coded(body: bytes, steps: list[tuple[str, int]]) -> None:
    coded = gzip.compress(body)
    response = make_response([coded[at : at + 7] for at in range(0, len(coded), 7)], fields=GZIP, streamed=True)
    parts = [STEPS[name](response, n) for name, n in steps]
    assert b"".join([*parts, response.read()]) == body


@pytest.mark.parametrize("streamed", [False, True], ids=["collected", "streamed"])
@unhurried
@given(
    chunks=CHUNKS, limits=st.lists(st.none() | st.integers(-1, 20), max_size=8), hint=st.none() | st.integers(-1, 40)
)
def test_lines_of_bytes_are_those_of_a_file(
    streamed: bool, chunks: list[bytes], limits: list[int | None], hint: int | None
) -> None:
    response, file = make_response(chunks, streamed=streamed), io.BytesIO(b"".join(chunks))
    assert [response.readline(limit) for limit in limits] == [file.readline(limit) for limit in limits]
    assert response.readlines(hint) == file.readlines(hint)
    assert list(response) == list(file)


def test_lines_go_on_as_lines() -> None:
    response = make_response([TEXT[:12], TEXT[12:]], streamed=True)
    assert next(response.iter_lines()) == "name,size"
    assert next(response.iter_lines()) == "first,1"
    assert list(response.iter_lines()) == ["second,2", "third,3"]
    assert list(response.iter_lines()) == []


def test_from_bytes_to_text_to_lines_nothing_is_missed() -> None:
    response = make_response(["é1\nz".encode()[:1], "é1\nz".encode()[1:4], b"z\nend"], streamed=True)
    assert response.read(1) == "é".encode()[:1]
    assert next(response.iter_text()) == "\ufffd1\n"
    assert list(response.iter_lines()) == ["z", "end"]


def test_a_character_that_one_text_iterator_has_begun_is_ended_by_the_next() -> None:
    body = "aé".encode()
    response = make_response([body[:2], body[2:]], streamed=True)
    assert next(response.iter_text()) == "a"
    assert list(response.iter_text()) == ["é"]


BEGUN: dict[str, Callable[[Response], Any]] = {
    "iter_lines": lambda response: next(response.iter_lines()),
    "iter_text": lambda response: next(response.iter_text()),
}
BELOW: dict[str, Callable[[Response], Any]] = {
    "read": lambda response: response.read(),
    "iter_bytes": lambda response: next(response.iter_bytes()),
    "iter_raw": lambda response: next(response.iter_raw()),
    "readline": lambda response: response.readline(),
}


@pytest.mark.parametrize("begun", BEGUN)
@pytest.mark.parametrize("below", BELOW)
def test_what_would_miss_a_part_is_refused(begun: str, below: str) -> None:
    response = make_response([TEXT], streamed=True)
    BEGUN[begun](response)
    with pytest.raises(ResponseClosed, match=rf"{begun}\(\) has begun to read this body") as caught:
        BELOW[below](response)
    assert caught.value.origin == "https://a.test"


def test_lines_that_have_begun_are_not_cut_at_other_places() -> None:
    response = make_response([TEXT], streamed=True)
    assert next(response.iter_lines()) == "name,size"
    with pytest.raises(ResponseClosed):
        next(response.iter_lines(","))
    with pytest.raises(ResponseClosed):
        next(response.iter_text())
    assert next(response.iter_lines()) == "first,1"


@pytest.mark.parametrize("below", BELOW)
def test_after_the_end_there_is_nothing_to_be_missed(below: str) -> None:
    response = make_response([TEXT], streamed=True)
    list(response.iter_lines())
    assert response.read() == b"" and list(response.iter_raw()) == []


@pytest.mark.parametrize("raw_first", [True, False])
def test_coded_bytes_are_read_raw_or_decoded(raw_first: bool) -> None:
    response = make_response([gzip.compress(b"a"), gzip.compress(b"b")], fields=GZIP, streamed=True)
    first, second = (response.iter_raw(1), response.iter_bytes(1))[:: 1 if raw_first else -1]
    next(first)
    with pytest.raises(ResponseClosed):
        next(second)


def test_what_was_read_ahead_is_put_back() -> None:
    reader = ByteReader(iter((b"ab", b"c", None)).__next__, {})
    reader.put_back(reader.read())
    assert (reader.read(1), reader.read(), reader.read()) == (b"a", b"bc", b"")


def test_a_body_that_is_here_begins_anew_with_each_iterator() -> None:
    response = make_response([TEXT])
    assert next(response.iter_lines()) == "name,size"
    assert next(response.iter_bytes(4)) == b"name"
    assert response.read(4) == b"name"
    assert response.readline() == b",size\n"
    assert b"".join(response.iter_raw()) == TEXT


def test_content_that_was_read_from_a_stream_is_here() -> None:
    response = make_response([gzip.compress(TEXT)], fields=GZIP, streamed=True)
    assert response.content == TEXT
    assert (response.read(), list(response.iter_bytes()), list(response.iter_raw())) == (TEXT, [TEXT], [])
    assert list(response.iter_lines()) == list(response.iter_lines())


def test_raw_pieces_are_never_decoded_ones() -> None:
    coded = gzip.compress(TEXT)
    response = make_response([coded], fields=GZIP, streamed=True)
    before = response.iter_raw()
    assert response.content == TEXT
    assert (list(before), list(response.iter_raw())) == ([], [])
    here = make_response([coded], fields=GZIP)
    assert here.content == TEXT
    assert list(pickle.loads(pickle.dumps(here)).iter_raw()) == [coded]


class TestAnInterruptedWait:
    """Ctrl-C in a thread that waits for a body: whoever catches it and reads on has missed nothing."""

    @pytest.fixture
    def response(self) -> Response:
        pipe = open_pipe()
        for piece in (b"ab\nc", b"de\n", b"f"):
            pipe.feed(piece)
        pipe.finish([])
        take, calls = pipe.take, itertools.count(1)

        def interrupted() -> bytes:
            if next(calls) == 2:
                raise KeyboardInterrupt
            return take()

        pipe.take = interrupted  # type: ignore[method-assign]
        return streaming(pipe)

    @pytest.mark.parametrize("read", [Response.read, lambda response: response.read(7)])
    def test_read_goes_on(self, response: Response, read: Callable[[Response], bytes]) -> None:
        with pytest.raises(KeyboardInterrupt):
            read(response)
        assert response.read() == b"ab\ncde\nf"

    def test_readline_goes_on(self, response: Response) -> None:
        assert response.readline() == b"ab\n"
        with pytest.raises(KeyboardInterrupt):
            response.readline()
        assert response.readlines() == [b"cde\n", b"f"]

    @pytest.mark.parametrize(
        ("pieces", "expected"),
        [
            (lambda response: response.iter_bytes(), [b"ab\nc", b"de\n", b"f"]),
            (lambda response: response.iter_bytes(5), [b"ab\ncd", b"e\nf"]),
            (lambda response: response.iter_raw(), [b"ab\nc", b"de\n", b"f"]),
            (lambda response: response.iter_text(), ["ab\nc", "de\n", "f"]),
            (lambda response: response.iter_lines(), ["ab", "cde", "f"]),
        ],
        ids=["bytes", "sized", "raw", "text", "lines"],
    )
    def test_so_do_iterators(self, response: Response, pieces: Callable[[Response], Any], expected: list[Any]) -> None:
        one = pieces(response)
        read: list[Any] = []
        with pytest.raises(KeyboardInterrupt):
            while True:
                read.append(next(one))
        assert [*read, *one] == expected

    def test_content_is_not_the_rest_alone(self, response: Response) -> None:
        with pytest.raises(KeyboardInterrupt):
            _ = response.content
        with pytest.raises(ResponseClosed):
            _ = response.content


def test_an_error_ends_every_way_for_good() -> None:
    pipe = open_pipe()
    pipe.feed(b"a\nb")
    pipe.fail(ConnectionLost("gone", origin="https://a.test", processed="maybe"))
    response = streaming(pipe)
    assert next(response.iter_lines()) == "a"
    for _ in range(2):
        with pytest.raises(ConnectionLost):
            next(response.iter_lines())


def cut(*pieces: bytes, fields: Any = ()) -> Response:
    """A response whose connection is lost behind these pieces."""
    pipe = open_pipe()
    for piece in pieces:
        pipe.feed(piece)
    pipe.fail(ConnectionLost("gone", origin="https://a.test", processed="maybe"))
    return streaming(pipe, fields=fields)


@pytest.mark.parametrize("way", ["iter_raw", "iter_bytes", "iter_text"])
def test_pieces_of_a_size_give_what_came_before_the_error(way: str) -> None:
    pieces, got = getattr(cut(b"abcd", b"efg"), way)(5), []
    with pytest.raises(ConnectionLost):
        while True:
            got.append(next(pieces))
    assert got == (["abcde", "fg"] if way == "iter_text" else [b"abcde", b"fg"])
    with pytest.raises(ConnectionLost):
        next(pieces)


def test_so_it_is_where_the_body_is_coded_and_cut() -> None:
    coded = gzip.compress(b"abcdefg")
    pieces = cut(coded[:-4], fields=GZIP).iter_bytes(5)
    assert (next(pieces), next(pieces)) == (b"abcde", b"fg")
    with pytest.raises(ConnectionLost):
        next(pieces)


READS: dict[str, Callable[[Response], Any]] = {
    "read": Response.read,
    "read of a size": lambda response: response.read(8),
    "readline": Response.readline,
    "readlines": Response.readlines,
}


@pytest.mark.parametrize("way", READS)
def test_what_would_look_like_the_end_is_left_to_who_asks_for_pieces(way: str) -> None:
    response = cut(b"abcd", b"efg")
    for _ in range(2):
        with pytest.raises(ConnectionLost):
            READS[way](response)
    assert response.read(3) == b"abc" and response.read1() == b"defg"
    with pytest.raises(ConnectionLost):
        response.read1()


def test_a_line_is_never_given_in_part() -> None:
    lines = cut(b"a\nb").iter_lines()
    assert next(lines) == "a"
    with pytest.raises(ConnectionLost):
        next(lines)


@pytest.mark.parametrize("streamed", [False, True], ids=["collected", "streamed"])
def test_what_reads_files_reads_responses(streamed: bool) -> None:
    response = make_response([TEXT[:5], TEXT[5:]], streamed=streamed)
    assert list(csv.reader(io.TextIOWrapper(response)))[1] == ["first", "1"]  # type: ignore[type-var]
    assert pickle.load(make_response([pickle.dumps({"a": 1})], streamed=streamed)) == {"a": 1}


def test_read1_gives_what_is_here() -> None:
    pipe = open_pipe()
    pipe.feed(b"event: 1\n")
    text = io.TextIOWrapper(streaming(pipe))  # type: ignore[type-var]
    assert text.readline() == "event: 1\n"  # and the pipe is open
    pipe.finish([])
    assert text.read() == ""
