"""Ctrl-C in the reader of a response: who catches it and reads on misses nothing in silence."""

from __future__ import annotations

import gzip
from collections.abc import Callable

import pytest

from hyperpool.connection_messages import HTTP20Response
from interrupts import each, reads_on_or_is_told, streamed

BODY = b"abcdefg"


def sized(response: HTTP20Response, got: list[bytes]) -> None:
    while piece := response.read(2):
        got.append(piece)


def ahead(response: HTTP20Response, got: list[bytes]) -> None:
    _ = response.trailers


@pytest.mark.slow
@pytest.mark.parametrize("coding", ["", "gzip"])
@pytest.mark.parametrize("read", [sized, each, ahead])
def test_who_was_interrupted_reads_on_without_a_gap_or_is_told(
    read: Callable[[HTTP20Response, list[bytes]], None], coding: str
) -> None:
    body = gzip.compress(BODY, mtime=0) if coding else BODY
    fields = [(b"content-encoding", b"gzip")] if coding else []
    reads_on_or_is_told(
        lambda: HTTP20Response(streamed([body[:4], body[4:]], fields=fields), stream_id=1),
        read,
        HTTP20Response.read,
        (BODY,),
    )
