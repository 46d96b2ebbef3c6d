"""Four codings, six abuses: what a body can do to whoever decodes it. One case for each cell of the table.

test_content.py has the details of each coding. RELIABILITY A12 to A15.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable
from typing import Any

import brotli
import pytest
import zstandard

from hyperpool.errors import DecodeError
from hyperpool.protocol.content import MAX_EMPTY_MEMBERS, make_decoder

# As `Response` reads; zstd and br may finish their block on top of it.
PIECE_BYTES, MOST_BYTES = 256 << 10, 1 << 20
BOMB_BYTES = 16 << 20

ENCODE: dict[str, Callable[[bytes], bytes]] = {
    "gzip": lambda data: gzip.compress(data, mtime=0),
    "deflate": zlib.compress,
    "br": lambda data: brotli.compress(data, quality=4),
    "zstd": lambda data: zstandard.ZstdCompressor().compress(data),
}


def pieces(coding: str, body: bytes, *, step: int = 16 << 10) -> list[bytes]:
    """The decoded pieces of a body that comes in steps, as a reader gets them."""
    decoder: Any = make_decoder(coding)
    out = []
    for at in range(0, len(body), step):
        out.append(decoder.decode(body[at : at + step], PIECE_BYTES))
        while not decoder.needs_input:
            out.append(decoder.decode(b"", PIECE_BYTES))
    out.append(decoder.flush())
    return out


def bomb(coding: str) -> None:
    sizes = [len(piece) for piece in pieces(coding, ENCODE[coding](bytes(BOMB_BYTES)))]
    assert (sum(sizes), max(sizes) <= MOST_BYTES) == (BOMB_BYTES, True)


def chain(coding: str) -> None:
    body = b"abc"
    for _ in range(5):
        body = ENCODE[coding](body)
    assert b"".join(pieces(", ".join([coding] * 5), body)) == b"abc"
    for count in (6, 1_500):
        with pytest.raises(DecodeError, match="too many"):
            make_decoder(", ".join([coding] * count))


def members(coding: str) -> None:
    """RFC 1952 2.2 and RFC 8878 3.1 let them follow each other; the other two end once."""
    two = ENCODE[coding](b"abc") + ENCODE[coding](b"def")
    if coding == "deflate":
        assert b"".join(pieces(coding, two)) == b"abc"
        return
    if coding == "br":
        with pytest.raises(DecodeError):
            pieces(coding, two)
        return
    assert b"".join(pieces(coding, two)) == b"abcdef"
    with pytest.raises(DecodeError, match="empty"):
        pieces(coding, ENCODE[coding](b"") * (MAX_EMPTY_MEMBERS + 2))


def truncated(coding: str) -> None:
    whole = ENCODE[coding](bytes(range(256)) * 40)
    for cut in (1, len(whole) // 2, len(whole) - 1):
        with pytest.raises(DecodeError):
            pieces(coding, whole[:cut])


def garbage(coding: str) -> None:
    for body in (b"garbage, and nothing else" * 10, b"\xff" * 100, ENCODE[coding](b"abc" * 99)[:12] + b"\xff" * 200):
        with pytest.raises(DecodeError):
            pieces(coding, body)


def without_its_dictionary() -> bytes:
    """A deflate stream that refers to what stands before its beginning."""
    machine = zlib.compressobj(wbits=-15, zdict=b"what stands before the beginning" * 8)
    return machine.compress(b"what stands before the beginning" * 8) + machine.flush()


WINDOWS = {
    "gzip": gzip.compress(b"", mtime=0)[:10] + without_its_dictionary() + bytes(8),
    # CINFO of 8: a window of 64 KiB, which RFC 1950 2.2 does not allow.
    "deflate": b"\x88\x1c" + without_its_dictionary(),
    # "Large window brotli", which RFC 7932 9.1 reserves.
    "br": b"\x11\x1e" + brotli.compress(b"abc"),
    # RFC 9659: 8 MiB at most; these ask for 16.
    "zstd": b"\x28\xb5\x2f\xfd\x00" + bytes([14 << 3]) + b"\x01\x00\x00",
}


def window(coding: str) -> None:
    with pytest.raises(DecodeError):
        pieces(coding, WINDOWS[coding])


ABUSES = {act.__name__: act for act in (bomb, chain, members, truncated, garbage, window)}


@pytest.mark.parametrize("abuse", ABUSES)
@pytest.mark.parametrize("coding", ENCODE)
def test_a_body_is_decoded_in_bounded_pieces_or_refused(coding: str, abuse: str) -> None:
    ABUSES[abuse](coding)
