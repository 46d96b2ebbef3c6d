"""Ctrl-C in the reader of a response of the urllib3 face: who catches it and reads on misses nothing in silence."""

from __future__ import annotations

import gzip
from collections.abc import Callable

import pytest
from urllib3.exceptions import HTTPError, ProtocolError

from hyperpool.contrib.urllib3.response import HTTPResponse, Raw
from interrupts import each, interrupted_at, into, reads_on_or_is_told, streamed, until_empty

BODY = b"ab\nc\n"


READS: dict[str, Callable[[HTTPResponse, list[bytes]], None]] = {
    "read": lambda response, got: until_empty(lambda: response.read(2), got),
    "read all": lambda response, got: got.append(response.read()),
    "read1": lambda response, got: until_empty(response.read1, got),
    "readinto": into,
    "stream": lambda response, got: each(response.stream(2), got),
}


def response_of(pieces: list[bytes], fields: list[tuple[bytes, bytes]]) -> HTTPResponse:
    source = streamed(pieces, fields=fields)
    made = HTTPResponse(Raw(source, "GET"), version_string="HTTP/2", preload_content=False, request_method="GET")
    made.kept = source  # type: ignore[attr-defined]  # what is raised in its finalizer goes nowhere
    return made


@pytest.mark.slow
@pytest.mark.parametrize("coding", ["", "gzip"])
@pytest.mark.parametrize("declared", [False, True])
@pytest.mark.parametrize("way", READS)
def test_who_was_interrupted_reads_on_without_a_gap_or_is_told(way: str, declared: bool, coding: str) -> None:
    body = gzip.compress(BODY, mtime=0) if coding else BODY
    fields = [(b"content-encoding", b"gzip")] if coding else []
    fields += [(b"content-length", b"%d" % len(body))] if declared else []
    reads_on_or_is_told(
        lambda: response_of([body[:4], body[4:]], fields),
        READS[way],
        HTTPResponse.read,
        (BODY,),
        told_by=HTTPError,
    )


@pytest.mark.slow
def test_so_it_is_with_the_lines_of_one_iterator() -> None:
    reads_on_or_is_told(lambda: iter(response_of([BODY[:1], BODY[1:]], [])), each, b"".join, (BODY,), told_by=HTTPError)


def test_what_was_interrupted_is_over() -> None:
    response = response_of([BODY], [])
    assert interrupted_at(12, lambda: response.read(2), lines=True)
    for read in (response.read, lambda: next(response.stream()), lambda: response.data):
        with pytest.raises(ProtocolError, match="interrupted"):
            read()


def test_an_error_of_reading_is_no_interrupt() -> None:
    response = response_of([BODY], [(b"content-length", b"9")])
    for _ in range(2):
        with pytest.raises(ProtocolError, match="IncompleteRead"):
            response.read(9)


def test_a_stream_can_be_closed_as_a_generator() -> None:
    stream = response_of([BODY], []).stream(2)
    assert next(stream) == BODY[:2]
    stream.close()  # type: ignore[attr-defined]
    assert list(stream) == []
