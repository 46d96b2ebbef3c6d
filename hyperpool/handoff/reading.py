"""The ways to read one body: raw, decoded, as text, in lines. All of them go on from one place, so that whoever reads
on where another way of reading has stopped misses nothing.

No way is a generator: where Ctrl-C ends a wait, a generator would be over, and a body that is cut would look whole.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from operator import index
from typing import Any, Generic, TypeVar

from hyperpool import arguments
from hyperpool.errors import DecodeError, HyperpoolError, ResponseClosed
from hyperpool.handoff.pieces import Decoding, DelimitedLines, Lines, Step, TextDecoder

T = TypeVar("T")

# What the ways are called, from below to above: each stands on those before it.
_RAW, _BYTES, _TEXT, _LINES = _NAMES = ("iter_raw()", "read() or iter_bytes()", "iter_text()", "iter_lines()")


class Stage(Generic[T]):
    """What a step makes of the pieces that ``source`` gives, until that gives None.

    Owned by one reader.
    """

    def __init__(self, source: Callable[[], Any], step: Step[T]) -> None:
        self._source = source
        self._step = step
        self._made: Iterator[T] = iter(())
        self.over = False

    def take(self) -> T | None:
        """The next piece; None at the end."""
        while True:
            for made in self._made:
                return made
            if self.over:
                return None
            piece = self._source()
            self.over = piece is None
            self._made = self._step.end() if piece is None else self._step.feed(piece)


class ByteReader:
    """Pieces of bytes, in any other sizes.

    Owned by one reader. ``source`` gives the next piece, None at the end. An error stays: a cut body never looks whole.
    """

    def __init__(self, source: Callable[[], bytes | None], where: dict[str, Any]) -> None:
        self._source = source
        self._where = where
        self._piece = b""
        self._at = 0
        self._error: HyperpoolError | None = None
        self.over = False

    def read(self, n: int | None = -1) -> bytes:
        """The next ``n`` bytes, fewer only at the end; all that is left for -1 or None.

        Where an error comes first, what came before it stays to be read with a smaller ``n``, or by `read1`.
        """
        wanted = _bound(n)
        # One slice, where the piece that came last has enough: what small reads leave of a large one is not copied.
        return self._cut(wanted) if wanted <= len(self._piece) - self._at else self._gather(wanted, self._part)

    def read1(self, n: int | None = -1) -> bytes:
        """What is left of the piece that came last, else the next one; at most ``n`` bytes of it, b"" at the end."""
        return self._part(_bound(n))

    def readline(self, limit: int | None = -1) -> bytes:
        r"""The next line with its \n: less at the end, or where it has more than ``limit`` bytes."""
        return self._gather(_bound(limit), self._part_of_line, last=b"\n")

    def readlines(self, hint: int | None = -1) -> list[bytes]:
        """The lines that are left, or as many as have ``hint`` bytes together."""
        return self._parts(_bound(hint) or sys.maxsize, lambda _: self.readline())

    def put_back(self, data: bytes) -> None:
        """Read this next, where nothing else is left."""
        self._piece, self._at = data, 0

    def take(self) -> bytes | None:
        """What `read1` gives; None at the end."""
        return self._part(sys.maxsize) or None

    def taking(self, n: int | None) -> Callable[[], bytes | None]:
        """A `take` of pieces of ``n`` bytes, the last may be shorter; as they come for None."""
        if n is None:
            return self.take
        size = arguments.whole("n", n, least=1)
        return lambda: self._take_sized(size)

    def _take_sized(self, size: int) -> bytes | None:
        try:
            return self.read(size) or None
        except HyperpoolError:
            if self._at == len(self._piece):
                raise
            return self._cut(size)  # a piece may be short, and who takes it asks for another: that has the error

    def _gather(self, wanted: int, next_part: Callable[[int], bytes], last: bytes = b"") -> bytes:
        """Parts until there are enough, or one ends with ``last``."""
        return b"".join(self._parts(wanted, next_part, last))

    def _parts(self, wanted: int, next_part: Callable[[int], bytes], last: bytes = b"") -> list[bytes]:
        parts: list[bytes] = []
        try:
            while wanted > 0 and (part := next_part(wanted)):
                parts.append(part)
                wanted -= len(part)
                if last and part.endswith(last):
                    break
        except BaseException:  # Ctrl-C, or a body that was cut: who reads on gets what came before it
            self._piece, self._at = b"".join(parts) + self._piece[self._at :], 0
            raise
        return parts

    def _part(self, n: int) -> bytes:
        self._fill()
        return self._cut(n)

    def _part_of_line(self, n: int) -> bytes:
        self._fill()
        end = self._piece.find(b"\n", self._at) + 1 or len(self._piece)
        return self._cut(min(n, end - self._at))

    def _fill(self) -> None:
        while self._at == len(self._piece) and not self.over:
            self._refill()

    def _cut(self, n: int) -> bytes:
        begin, self._at = self._at, min(self._at + n, len(self._piece))
        whole = begin == 0 and self._at == len(self._piece)
        return self._piece if whole else self._piece[begin : self._at]  # itself: it may be `Chunked`

    def _refill(self) -> None:
        if self._error is not None:
            raise self._error.own_copy()
        try:
            piece = self._source()
        except HyperpoolError as error:
            if isinstance(error, DecodeError):
                error.__dict__.update(self._where)  # a decoder does not know whose body it reads
            self._error = error.own_copy()
            raise
        self.over = piece is None
        self._piece, self._at = piece or b"", 0


class BodyReader:
    """One body, to be read in any of these ways.

    Owned by one reader at a time. ``source`` gives its pieces as they came, None at the end; ``coding`` is what
    Content-Encoding says. From bytes one may go on to text, and from that to lines. The other way round what the upper
    one holds would be missed, so ResponseClosed says so until that is at its end; likewise whatever follows the raw
    pieces of a body that is coded.
    """

    def __init__(self, source: Callable[[], bytes | None], coding: str, where: dict[str, Any]) -> None:
        self._raw = ByteReader(source, where)
        self._coding = coding
        self._where = where
        self._decoded: ByteReader | None = None
        self._decoder: TextDecoder | None = None
        # The way that was gone last, and its upper end.
        self._way = ""
        self._top: Any = self._raw
        self._delimiter: str | None = None

    def raw(self) -> ByteReader:
        """The body as it came."""
        return self._go(_RAW, self._raw) if self._coding else self.decoded()

    def decoded(self) -> ByteReader:
        """The body without its Content-Encoding. Raises DecodeError where that names none that is known."""
        return self._go(_BYTES, self._bytes())

    def text(self, charset: str, n: int | None = None) -> Stage[str]:
        """The body as str, from pieces of ``n`` bytes; the charset is that of the first call."""
        return self._go(_TEXT, self._text(charset, n))

    def lines(self, charset: str, delimiter: str | None) -> Stage[str]:
        """The lines of the body."""
        if self._way != _LINES or delimiter != self._delimiter:
            splitter = Lines() if delimiter is None else DelimitedLines(delimiter)
            self._go(_LINES, Stage(self._text(charset, None).take, splitter))
            self._delimiter = delimiter
        lines: Stage[str] = self._top
        return lines

    def _go(self, way: str, top: T) -> T:
        stays = way == self._way != _LINES  # two that split lines have different ways to do it
        climbs = self._way != _RAW and _NAMES.index(way) > _NAMES.index(self._way or _RAW)
        if self._way and not (stays or climbs or self._top.over):
            what = f"{self._way} has begun to read this body: go on with that; {way} would miss what it holds"
            raise ResponseClosed(what, **self._where)
        self._way, self._top = way, top
        return top

    def _bytes(self) -> ByteReader:
        if self._decoded is None:
            from hyperpool.protocol.content import make_decoder

            try:
                decoder = make_decoder(self._coding)
            except DecodeError as error:
                error.__dict__.update(self._where)
                raise
            self._decoded = self._raw
            if decoder is not None:
                self._decoded = ByteReader(Stage(self._raw.take, Decoding(decoder)).take, self._where)
        return self._decoded

    def _text(self, charset: str, n: int | None) -> Stage[str]:
        if self._decoder is None:
            self._decoder = TextDecoder(charset)
        return Stage(self._bytes().taking(n), self._decoder)


def _bound(n: int | None) -> int:
    try:
        return sys.maxsize if n is None or n < 0 else index(n)
    except TypeError:
        raise TypeError(f"n must be a whole number or None, not {n!r}") from None
