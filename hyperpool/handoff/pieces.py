"""Bodies cut anew: the same bytes decoded, or in pieces of another size; the same text in lines. Pure.

The work is done by classes with ``feed`` and ``end``, so that it can be pulled (`hyperpool.handoff.reading`: blocking
readers) and pushed (`hyperpool.aio`: readers that must not wait).
"""

from __future__ import annotations

import codecs
import io
import sys
from collections.abc import Iterator
from typing import Any, Protocol, TypeVar

from hyperpool import arguments

Made_co = TypeVar("Made_co", covariant=True)

# Bytes that a decoder may produce at a time: a bomb costs this much, not what it claims. Halved, a large body takes
# twice the calls; doubled, nothing gets faster.
DECODE_PIECE_BYTES = 256 << 10

# Bytes that a decoder is given at a time: zlib copies what it has not used yet at each call, so a body of 128 MB given
# at once was decoded in 36 s where 1.5 s are enough.
DECODE_INPUT_BYTES = 64 << 10


class Step(Protocol[Made_co]):
    """Makes pieces of another kind."""

    def feed(self, piece: Any, /) -> Iterator[Made_co]: ...

    def end(self) -> Iterator[Made_co]: ...


class Resizer:
    """The same bytes in pieces of ``n``, the last may be shorter.

    Owned by one reader.
    """

    def __init__(self, n: int) -> None:
        self._n = arguments.whole("n", n, least=1)
        self._rest = bytearray()

    def feed(self, piece: bytes) -> Iterator[bytes]:
        self._rest += piece
        whole_bytes = len(self._rest) - len(self._rest) % self._n
        yield from (bytes(self._rest[at : at + self._n]) for at in range(0, whole_bytes, self._n))
        del self._rest[:whole_bytes]

    def end(self) -> Iterator[bytes]:
        if self._rest:
            yield bytes(self._rest)


class Decoding:
    """The same body without its Content-Encoding, never further ahead than the reader.

    Owned by one reader. ``decoder`` is one of `hyperpool.protocol.content.make_decoder`.
    """

    def __init__(self, decoder: Any) -> None:
        self._decoder = decoder

    def feed(self, piece: bytes) -> Iterator[bytes]:
        """What a piece decodes to. Raises DecodeError."""
        for at in range(0, len(piece), DECODE_INPUT_BYTES):
            yield self._decoder.decode(piece[at : at + DECODE_INPUT_BYTES], DECODE_PIECE_BYTES)
            while not self._decoder.needs_input:
                yield self._decoder.decode(b"", DECODE_PIECE_BYTES)

    def end(self) -> Iterator[bytes]:
        """What is left. Raises DecodeError where the body was cut."""
        yield self._decoder.flush()


class Lines:
    r"""The same text in lines without their ends (\n, \r or \r\n).

    Owned by one reader.
    """

    def __init__(self) -> None:
        # The io module does just this, with all its corner cases.
        self._newlines = io.IncrementalNewlineDecoder(None, translate=True)
        # The parts of the unfinished line are joined once: a body without line ends must not cost its size squared.
        self._unfinished: list[str] = []

    def feed(self, text: str, *, final: bool = False) -> Iterator[str]:
        first, *others = self._newlines.decode(text, final=final).split("\n")
        self._unfinished.append(first)
        if others:
            yield "".join(self._unfinished)
            self._unfinished = [others.pop()]
            yield from others

    def end(self) -> Iterator[str]:
        yield from self.feed("", final=True)
        if last := "".join(self._unfinished):
            yield last


class DelimitedLines:
    """The same text in lines without their delimiter.

    Owned by one reader.
    """

    def __init__(self, delimiter: str) -> None:
        if not arguments.text("delimiter", delimiter):
            raise ValueError("a delimiter must have 1 character or more")
        self._delimiter = delimiter
        self._unfinished: list[str] = []
        # Too short to hold a delimiter, but it may be the beginning of one.
        self._begun = ""

    def feed(self, text: str) -> Iterator[str]:
        *whole, rest = (self._begun + text).split(self._delimiter)
        for line in whole:
            yield "".join([*self._unfinished, line])
            self._unfinished = []
        cut = max(len(rest) - len(self._delimiter) + 1, 0)
        self._unfinished.append(rest[:cut])
        self._begun = rest[cut:]

    def end(self) -> Iterator[str]:
        if last := "".join([*self._unfinished, self._begun]):
            yield last


def known_charset(encoding: str) -> str:
    """The charset itself where text can be decoded with it, else UTF-8."""
    try:
        # "zlib" and "rot13" are codecs as well: only those that make text of any bytes will do.
        b"-\xff".decode(encoding, "replace")
        is_charset = codecs.lookup(encoding).name not in ("idna", "punycode")  # they spell host names
    except (LookupError, ValueError):
        is_charset = False
    return encoding if is_charset else "utf-8"


class TextDecoder:
    """bytes.decode, piece by piece.

    Owned by one reader. UTF-16 and UTF-32 without a byte order mark are in this machine's order to bytes.decode, and an
    error to the incremental decoders.
    """

    def __init__(self, charset: str) -> None:
        self._charset = codecs.lookup(charset).name
        self._decoder = codecs.getincrementaldecoder(charset)(errors="replace")

    def feed(self, piece: bytes) -> Iterator[str]:
        if text := self._decode(piece):
            yield text

    def end(self) -> Iterator[str]:
        if text := self._decode(b"", final=True):
            yield text

    def _decode(self, data: bytes, *, final: bool = False) -> str:
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
