"""The response that callers hold: its head, and a body that is here or still to come.

It is made on the loop thread and therefore costs as little as possible there: text and decoded content come into being
when somebody asks. Reading a streamed body blocks the reader only; its credit goes back as it reads (L8).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

from hyperpool.errors import DecodeError, HyperpoolError, ResponseClosed
from hyperpool.handoff.charset import apparent, detected, named
from hyperpool.handoff.leash import Leash
from hyperpool.handoff.loop_thread import check_may_wait
from hyperpool.handoff.pieces import known_charset
from hyperpool.handoff.reading import BodyReader
from hyperpool.handoff.response_head import ResponseHead, ResponseParts, field_value, header_dict
from hyperpool.handoff.turns import TORN, in_turn

if TYPE_CHECKING:
    from hyperpool.handoff.body import BodyPipe
    from hyperpool.protocol.events import Fields

T = TypeVar("T")


class Response(ResponseHead):
    """A response: status, headers, and a body that is here already or is read from the connection as you go.

    Safe to hand from thread to thread; its body has one reader at a time: who reads a streamed one while another
    thread waits for its next piece gets LocalProtocolError.

    ``status_code`` (also ``status``), ``reason``, ``http_version`` ("HTTP/1.1" or "HTTP/2"), ``headers``, ``trailers``,
    ``url``, ``request``, ``history``, ``elapsed``, ``stream_id`` (None on HTTP/1.1), ``retries``. A streamed response
    must be read to its end or closed, best by a with block; closing early resets the stream and frees its slot.
    """

    def __init__(
        self,
        parts: ResponseParts,
        *,
        chunks: list[bytes] | None = None,
        trailers: Fields | None = None,
        leash: Leash | None = None,
    ) -> None:
        super().__init__(parts)
        self._chunks = chunks or []
        self._trailers = trailers
        self._leash = leash
        # Which thread is reading.
        self._reading: dict[str, Any] = {}
        self._content: bytes | None = None
        self._reader: BodyReader | None = None
        self._encoding: str | None = None
        self._closed = False

    # -- the body --------------------------------------------------------------------------------------------------

    @property
    def trailers(self) -> Any:
        """The trailer fields (RFC 9110 6.5); empty until the body has been read to its end."""
        if self._leash is not None:
            return header_dict(self._leash.pipe.trailers)
        return header_dict(self._trailers or [])

    @property
    def content(self) -> bytes:
        """The whole decoded body. Blocks while it is still coming.

        Raises DecodeError where it is not what Content-Encoding says, or expands past ``Limits.max_decoded_bytes``;
        ResponseClosed where it was read piece by piece, or closed, before.
        """
        if self._content is None and self._leash is None:
            self._content = self._joined()
        elif self._content is None:
            self._read_all()
        assert self._content is not None
        return self._content

    @in_turn
    def _read_all(self) -> None:
        """One step, so that of two threads one gets it all."""
        self._content = self._joined()

    @property
    def encoding(self) -> str:
        """The charset that `text` uses: that of Content-Type; else what the body looks like, once it is here, and UTF-8
        before. May be set."""
        return self._encoding or named(self._content_type()) or self._looks_like()

    @encoding.setter
    def encoding(self, charset: str) -> None:
        self._encoding = charset

    @property
    def apparent_encoding(self) -> str:
        """The charset that the body looks like, whatever Content-Type says. Blocks while the body is still coming.

        UTF-8 where it is that; else what charset_normalizer says, where that is installed.
        """
        return apparent(self.content)

    def _content_type(self) -> str:
        return str(self.headers.get("content-type", ""))

    def _looks_like(self) -> str:
        """The charset of a body that is here, and is not to be decoded first; else UTF-8."""
        coded = self._coding()
        body = self._whole if self._content is None and self._leash is None and not coded else self._content
        return "utf-8" if body is None else detected(body, self._content_type())

    @property
    def text(self) -> str:
        """The body as str; bytes that are not of the charset are replaced."""
        body = self.content  # first: it may tell its charset
        return body.decode(self._known_charset(), errors="replace")

    def json(self, **options: Any) -> Any:
        """The body parsed as JSON (RFC 8259); options go to ``json.loads``. Raises ValueError where it is none."""
        import json

        try:
            return json.loads(self.content, **options)
        except UnicodeDecodeError:
            # It is in none of the charsets that JSON may be in, but it may say which.
            if not (self._encoding or named(self._content_type())):
                raise
            return json.loads(self.text, **options)

    # -- the body, piece by piece ----------------------------------------------------------------------------------

    # Of a streamed body all of these go on where another has stopped. One that is here begins anew with each iterator,
    # and `read` and its kin go on among themselves. Where a body is cut, pieces of bytes and of text give all that came
    # before they give the error; what `read` would give in part, and a line, is kept: it would look like the end.

    def iter_raw(self, n: int | None = None) -> Iterator[bytes]:
        """The body as it came, still encoded: pieces of ``n`` bytes (the last may be shorter), or as they arrive."""
        return self._one_reader(lambda reader: reader.raw().taking(n), raw=True)

    def iter_bytes(self, n: int | None = None) -> Iterator[bytes]:
        """The decoded body in pieces of ``n`` bytes (the last may be shorter), or as they arrive. Blocks for each."""
        return self._one_reader(lambda reader: reader.decoded().taking(n))

    def iter_text(self, n: int | None = None) -> Iterator[str]:
        """The body as str, from pieces of ``n`` bytes; no character is torn."""
        return self._one_reader(lambda reader: reader.text(self._known_charset(), n).take)

    def iter_lines(self, delimiter: str | None = None) -> Iterator[str]:
        r"""The lines of the body without their ends (\n, \r or \r\n, or the delimiter), whole also across pieces."""
        return self._one_reader(lambda reader: reader.lines(self._known_charset(), delimiter).take)

    @in_turn
    def read(self, n: int | None = -1) -> bytes:
        """The next ``n`` decoded bytes, fewer only at the end; all that is left for -1 or None. Blocks.

        Raises LocalProtocolError where another thread is just reading: bytes would be given twice, or lost. What came
        before an error is left to `read1` and to `iter_bytes`.
        """
        return self._go_on().decoded().read(n)

    @in_turn
    def read1(self, n: int | None = -1) -> bytes:
        """Up to ``n`` decoded bytes as soon as there are any; b"" at the end. Blocks."""
        return self._go_on().decoded().read1(n)

    @in_turn
    def readinto(self, buffer: Any) -> int:
        """Fill a writable buffer; how many bytes were put there, 0 at the end. Blocks."""
        return _put(buffer, self._go_on().decoded().read)

    @in_turn
    def readinto1(self, buffer: Any) -> int:
        """Put what `read1` gives into a writable buffer; how many bytes that were, 0 at the end. Blocks."""
        return _put(buffer, self._go_on().decoded().read1)

    @in_turn
    def readline(self, limit: int | None = -1) -> bytes:
        r"""The next line of the decoded body with its \n; less at the end, or after ``limit`` bytes. Blocks."""
        return self._go_on().decoded().readline(limit)

    @in_turn
    def readlines(self, hint: int | None = -1) -> list[bytes]:
        """The lines that are left, or as many as have ``hint`` bytes together. Blocks."""
        return self._go_on().decoded().readlines(hint)

    def __iter__(self) -> Iterator[bytes]:
        """The lines of `readline`, as of every binary file."""
        return iter(self.readline, b"")

    def _one_reader(self, begin: Callable[[BodyReader], Callable[[], T | None]], *, raw: bool = False) -> Iterator[T]:
        """Pieces, of which each step is one thread's: of a streamed body there is one step at a time in all."""
        if self._leash is None or self._content is not None:
            return _Pieces(lambda: begin(self._new_reader(raw=raw)))
        return PiecesInTurn(lambda: begin(self._go_on(raw=raw)), self._reading, self._where)

    def _go_on(self, *, raw: bool = False) -> BodyReader:
        """The reader that stands where the last one has stopped."""
        if raw and self._content is not None:
            return self._new_reader(raw=True)
        if self._reader is None:
            self._reader = self._new_reader()
        return self._reader

    def _new_reader(self, *, raw: bool = False) -> BodyReader:
        if self._content is not None and not raw:
            return BodyReader(_once(self._content), "", self._where())
        return BodyReader(self.source(), self._coding(), self._where())

    def _coding(self) -> str:
        return field_value(self._parts.head.fields, b"content-encoding")

    @property
    def _whole(self) -> bytes:
        # Joined here, on the reader's thread: 100 MB would hold up the loop for 30 ms. One chunk is never copied. Two
        # threads may both do it, with the same outcome.
        chunks = self._chunks
        if len(chunks) != 1:
            chunks = self._chunks = [b"".join(chunks)]
        return chunks[0]

    def _joined(self) -> bytes:
        coding = self._coding()
        if self._leash is None and not coding:
            return self._whole
        if self._leash is not None and self._leash.pipe.taken:
            raise ResponseClosed("this streamed body was read piece by piece already: keep the pieces")
        self._reader = None  # from here on `read` begins with what this gives
        pieces, size, limit = [], 0, self._parts.max_decoded_bytes
        try:
            for piece in iter(self._new_reader().decoded().take, None):
                size += len(piece)
                if limit is not None and size > limit:
                    raise self._too_large(limit)
                pieces.append(piece)
        except BaseException:
            if self._leash is not None and self._leash.pipe.taken:  # what was given is nowhere
                self._reading["by"] = TORN
            raise
        return b"".join(pieces)

    def _too_large(self, limit: int) -> DecodeError:
        self.close()
        return DecodeError(
            f"the body of {self.url} expands to more than {limit:,} bytes: iterate over it, or raise"
            " Limits.max_decoded_bytes",
            **self._where(),
        )

    def _known_charset(self) -> str:
        return known_charset(self.encoding)

    # -- for faces that read in a way of their own -----------------------------------------------------------------

    def source(self) -> Callable[[], bytes | None]:
        """What gives the body as it came, piece by piece, None at the end. Who has it reads by nothing else.

        It takes no turn: what stands between it and the caller does (`in_turn`), by the ``_reading`` of this response.
        """
        return _once(self._whole) if self._leash is None else _streamed(self._leash.pipe, self._reading)

    # -- for faces whose readers must not wait ---------------------------------------------------------------------

    @property
    def pipe(self) -> BodyPipe | None:
        """What a streamed body comes through; None where it is here already. It lives as long as this response."""
        return None if self._leash is None else self._leash.pipe

    def keep(self, content: bytes) -> None:
        """Take the decoded body from whoever read it out of `pipe`: from now on `content` gives it."""
        self._content = content

    # -- its end ---------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Let the body go. Where it was not read to its end, the stream is reset and its slot is free. Never blocks."""
        self._closed = True
        if self._leash is not None:
            self._leash.let_go()

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    def __enter__(self) -> Response:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        # For pickle and copy: what is read from a connection stays with it. One that was closed, as those are that a
        # redirect has left behind, has no body in its copy.
        kept = {**self.__dict__, "_leash": None, "_reader": None, "_reading": {}}
        if self._leash is not None:
            if self._content is None and not self._closed:
                what = "cannot be pickled or copied: its body comes from a connection; read `content` first"
                raise TypeError(f"{self!r} {what}")
            kept["_chunks"] = [self._content or b""]
            kept["_trailers"] = self._leash.pipe.trailers
        return kept

    def readable(self) -> bool:
        """True: a Response serves as a binary file."""
        return True

    def writable(self) -> bool:
        """False."""
        return False

    def seekable(self) -> bool:
        """False."""
        return False

    def flush(self) -> None:
        """Nothing, as on every file that is read."""


class _Pieces(Iterator[T]):
    """Pieces of a body that is here; ``begin`` finds the way to them, with the first.

    Owned by one reader.
    """

    def __init__(self, begin: Callable[[], Callable[[], T | None]]) -> None:
        self._begin = begin
        self._take: Callable[[], T | None] | None = None

    def __next__(self) -> T:
        if self._take is None:
            self._take = self._begin()
        if (piece := self._take()) is None:
            raise StopIteration
        return piece


class PiecesInTurn(_Pieces[T]):
    """Pieces of a streamed body.

    Shared; each step is a turn.
    """

    def __init__(
        self,
        begin: Callable[[], Callable[[], T | None]],
        reading: dict[str, Any],
        where: Callable[[], dict[str, Any]],
    ) -> None:
        super().__init__(begin)
        self._reading = reading
        self._where = where

    __next__ = in_turn(_Pieces.__next__)  # type: ignore[type-var]  # it is called with one of these


def _once(content: bytes) -> Callable[[], bytes | None]:
    """A source of one piece."""
    pieces = iter((content, None))
    return lambda: next(pieces, None)


def _streamed(pipe: BodyPipe, reading: dict[str, Any]) -> Callable[[], bytes | None]:
    """What comes through a pipe. It knows nothing of the response, which would else never be found forgotten."""

    def take() -> bytes | None:
        handed = pipe.handed
        try:
            check_may_wait("reading a streamed response")
            return pipe.take() or None
        except HyperpoolError:  # a part of reading, which may go on: the last piece of a size is given in its place
            raise
        except BaseException:
            if pipe.handed == handed:  # whoever reads on misses nothing
                reading.pop("by", None)
            raise

    return take


def _put(buffer: Any, read: Callable[[int], bytes]) -> int:
    view = memoryview(buffer).cast("B")
    if view.readonly:  # before anything is taken for it
        raise TypeError(f"a buffer to read into must be writable, not {type(buffer).__name__}")
    data = read(len(view))
    view[: len(data)] = data
    return len(data)
