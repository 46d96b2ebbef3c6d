"""Bodies cut anew: the same bytes in pieces of another size, the same text in lines. Pure."""

from __future__ import annotations

import codecs
import io
import itertools
import sys
from collections.abc import Iterable, Iterator


def resized(pieces: Iterator[bytes], n: int | None) -> Iterator[bytes]:
    """The same bytes in pieces of ``n``; as they come for None. Empty pieces are left out."""
    if n is None:
        yield from filter(None, pieces)
        return
    if n < 1:
        raise ValueError(f"pieces must have 1 byte or more, not {n}")
    rest = bytearray()
    for piece in pieces:
        rest += piece
        whole_bytes = len(rest) - len(rest) % n
        yield from (bytes(rest[at : at + n]) for at in range(0, whole_bytes, n))
        del rest[:whole_bytes]
    if rest:
        yield bytes(rest)


def slices(pieces: Iterable[bytes], max_bytes: int) -> Iterator[bytes]:
    """The same bytes, no piece larger than ``max_bytes``; smaller ones as they come."""
    for piece in pieces:
        for at in range(0, len(piece), max_bytes):
            yield piece[at : at + max_bytes]


def lines(texts: Iterable[str]) -> Iterator[str]:
    r"""The same text in lines without their ends (\n, \r or \r\n), whole also across pieces."""
    # The io module does just this, with all its corner cases.
    newlines = io.IncrementalNewlineDecoder(None, translate=True)
    # The parts of the unfinished line are joined once: a body without line ends must not cost its size squared.
    unfinished: list[str] = []
    for text in itertools.chain(texts, [""]):
        first, *others = newlines.decode(text, final=not text).split("\n")
        unfinished.append(first)
        if others:
            yield "".join(unfinished)
            unfinished = [others.pop()]
            yield from others
    if last := "".join(unfinished):
        yield last


class TextDecoder:
    """bytes.decode, piece by piece.

    Owned by one reader. UTF-16 and UTF-32 without a byte order mark are in this machine's order to bytes.decode, and an
    error to the incremental decoders.
    """

    def __init__(self, charset: str) -> None:
        self._charset = codecs.lookup(charset).name
        self._decoder = codecs.getincrementaldecoder(charset)(errors="replace")

    def decode(self, data: bytes, final: bool = False) -> str:
        try:
            text = self._decoder.decode(data, final)
            if final and (rest := self._decoder.getstate()[0]):
                # A byte order mark that was cut off: CPython's utf-8-sig keeps its beginning for ever.
                text += rest.decode("utf-8", "replace")
            return text
        except UnicodeError:
            data = self._decoder.getstate()[0] + data
            self._decoder = codecs.getincrementaldecoder(f"{self._charset}-{sys.byteorder[0]}e")(errors="replace")
            return self._decoder.decode(data, final)
