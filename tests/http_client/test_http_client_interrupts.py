"""Ctrl-C in the reader of a response of http_client: who catches it and reads on misses nothing in silence."""

from __future__ import annotations

import http.client
import io
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import pytest

from hyperpool.http_client import HTTPResponse
from hyperpool.http_client.answer import BUFFER_BYTES, Answer
from interrupts import Interrupt, into, reads_on_or_is_told, streamed, until_empty

BODY = b"ab\nc\n"
DECLARED = [(b"content-length", b"%d" % len(BODY))]
CHUNKED = [(b"transfer-encoding", b"chunked")]


class Socket:
    """What http.client asks of one that has a response."""

    def __init__(self, response: Any) -> None:
        future: Future[Any] = Future()
        future.set_result(response)
        self._answer = Answer(future)  # type: ignore[arg-type]

    def makefile(self, mode: str) -> io.BufferedReader:
        return io.BufferedReader(self._answer, BUFFER_BYTES)


def begun(response: Any) -> HTTPResponse:
    made = HTTPResponse(Socket(response), method="GET")
    made.begin()
    return made


READS: dict[str, Callable[[HTTPResponse, list[bytes]], None]] = {
    "read": lambda response, got: until_empty(lambda: response.read(2), got),
    "read all": lambda response, got: got.append(response.read()),
    "read1": lambda response, got: until_empty(response.read1, got),
    "readinto": into,
    "readline": lambda response, got: until_empty(response.readline, got),
    "peek": lambda response, got: (response.peek(), got.append(response.read()))[1],  # type: ignore[func-returns-value]
}


@pytest.mark.slow
@pytest.mark.parametrize("fields", [[], DECLARED, CHUNKED], ids=["until the end", "declared", "chunked"])
@pytest.mark.parametrize("way", READS)
def test_who_was_interrupted_reads_on_without_a_gap_or_is_told(way: str, fields: list[tuple[bytes, bytes]]) -> None:
    reads_on_or_is_told(
        lambda: begun(streamed([BODY[:4], BODY[4:]], fields=fields)),
        READS[way],
        HTTPResponse.read,
        (BODY,),
        told_by=http.client.IncompleteRead,
    )


def test_a_wait_that_was_interrupted_is_no_end() -> None:
    source = streamed([BODY])
    response = begun(source)
    assert response.read(2) == BODY[:2]

    def interrupt() -> bytes:
        raise Interrupt

    source.pipe.take = interrupt  # type: ignore[union-attr, method-assign]
    with pytest.raises(Interrupt):
        response.read()
    for read in (response.read, response.read1, response.readline, response.peek):
        with pytest.raises(http.client.IncompleteRead):
            read()
