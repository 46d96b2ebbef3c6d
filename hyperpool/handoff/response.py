"""The response that callers hold: its head, and a body that is here or still to come.

It is made on the loop thread and therefore costs as little as possible there: text and decoded content come into being
when somebody asks. Reading a streamed body blocks the reader only; its credit goes back as it reads (L8).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

from hyperpool.errors import DecodeError, HyperpoolError, LocalProtocolError, ResponseClosed
from hyperpool.handoff.charset import apparent, detected, named
from hyperpool.handoff.leash import Leash
from hyperpool.handoff.loop_thread import refuse_on_loop_thread
from hyperpool.handoff.pieces import Decoding, TextDecoder, known_charset, lines, resized
from hyperpool.handoff.response_head import ResponseHead, ResponseParts, field_value, header_dict

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
        self._rest = memoryview(b"")
        self._turns = [True]
        self._read_error: HyperpoolError | None = None
        self._content: bytes | None = None
        self._reading: Iterator[bytes] | None = None
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
        if self._content is None:
            self._content = self._joined() if self._leash is None else next(self._one_reader(self._all_at_once()))
        return self._content

    def _all_at_once(self) -> Iterator[bytes]:
        """A streamed body in one step, so that of two threads one gets it all."""
        yield self._joined()

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
        coded = field_value(self._parts.head.fields, b"content-encoding")
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

    def iter_raw(self, n: int | None = None) -> Iterator[bytes]:
        """The body as it came, still encoded: pieces of ``n`` bytes (the last may be shorter), or as they arrive."""
        return self._one_reader(resized(self._raw_pieces(), n))

    def iter_bytes(self, n: int | None = None) -> Iterator[bytes]:
        """The decoded body in pieces of ``n`` bytes (the last may be shorter), or as they arrive. Blocks for each."""
        return self._one_reader(self._any_pieces(n))

    def _any_pieces(self, n: int | None = None) -> Iterator[bytes]:
        if self._content is not None:
            return resized(iter((self._content,)), n)
        return resized(self._fresh_pieces(), n)

    def iter_text(self, n: int | None = None) -> Iterator[str]:
        """The body as str, from pieces of ``n`` bytes; no character is torn."""
        return self._one_reader(self._texts(n))

    def _texts(self, n: int | None = None) -> Iterator[str]:
        decoder = TextDecoder(self._known_charset())
        for piece in self._any_pieces(n):
            if text := decoder.decode(piece):
                yield text
        if text := decoder.decode(b"", True):
            yield text

    def iter_lines(self, delimiter: str | None = None) -> Iterator[str]:
        r"""The lines of the body without their ends (\n, \r or \r\n, or the delimiter), whole also across pieces."""
        return self._one_reader(lines(self._texts(), delimiter))

    def _one_reader(self, pieces: Iterator[T]) -> Iterator[T]:
        """The same, of which each step is one thread's: of a streamed body there is one step at a time in all."""
        return _InTurn(pieces, [True] if self._leash is None else self._turns, self._busy)

    def read(self, n: int | None = -1) -> bytes:
        """The next ``n`` decoded bytes, fewer only at the end; all that is left for -1 or None. Blocks.

        Raises LocalProtocolError where another thread is just reading: bytes would be given twice, or lost.
        """
        try:
            turn = self._turns.pop()  # one step, with and without a GIL: of two threads one gets it
        except IndexError:
            raise self._busy() from None
        try:
            return self._read(n)
        finally:
            self._turns.append(turn)

    def _busy(self) -> LocalProtocolError:
        message = "another thread is reading this response: a body has one reader at a time"
        return LocalProtocolError(message, **self._where())

    def _read(self, n: int | None) -> bytes:
        # Views, not slices of bytes: small reads from a large piece must not copy what they leave.
        parts, wanted = [], sys.maxsize if n is None or n < 0 else n
        while wanted and (self._rest or self._refill()):
            parts.append(self._rest[:wanted])
            wanted -= len(parts[-1])
            self._rest = self._rest[len(parts[-1]) :]
        return b"".join(parts)

    def _refill(self) -> bool:
        """Get the next piece for `read`; whether there was one. An error stays: a cut body never looks complete."""
        if self._read_error is not None:
            raise self._read_error.own_copy()
        try:
            self._rest = memoryview(next(self._pieces, b""))
        except HyperpoolError as error:
            self._read_error = error.own_copy()
            raise
        return bool(self._rest)

    def readinto(self, buffer: Any) -> int:
        """Fill a writable buffer; how many bytes were put there, 0 at the end. Blocks."""
        view = memoryview(buffer).cast("B")
        data = self.read(len(view))
        view[: len(data)] = data
        return len(data)

    @property
    def _pieces(self) -> Iterator[bytes]:
        """What `read` reads from, where the last read left it."""
        if self._reading is None:
            self._reading = self._any_pieces()
        return self._reading

    def _fresh_pieces(self) -> Iterator[bytes]:
        """The decoded body from its beginning; of a streamed one, from where it is."""
        try:
            yield from self._decoded_pieces()
        except DecodeError as error:
            error.__dict__.update(self._where())  # a decoder does not know whose body it reads
            raise

    def _decoded_pieces(self) -> Iterator[bytes]:
        from hyperpool.protocol.content import make_decoder

        decoder = make_decoder(field_value(self._parts.head.fields, b"content-encoding"))
        if decoder is None:
            yield from self._raw_pieces()
            return
        decoding = Decoding(decoder)
        for raw in self._raw_pieces():
            yield from decoding.feed(raw)
        yield from decoding.end()

    @property
    def _whole(self) -> bytes:
        # Joined here, on the reader's thread: 100 MB would hold up the loop for 30 ms. One chunk is never copied. Two
        # threads may both do it, with the same outcome.
        chunks = self._chunks
        if len(chunks) != 1:
            chunks = self._chunks = [b"".join(chunks)]
        return chunks[0]

    def _raw_pieces(self) -> Iterator[bytes]:
        if self._leash is None:
            yield self._whole
            return
        refuse_on_loop_thread("reading a streamed response")
        while piece := self._leash.pipe.take():
            yield piece

    def _joined(self) -> bytes:
        if self._leash is None and not field_value(self._parts.head.fields, b"content-encoding"):
            return self._whole
        if self._leash is not None and self._leash.pipe.taken:
            raise ResponseClosed("this streamed body was read piece by piece already: keep the pieces")
        pieces, size, limit = [], 0, self._parts.max_decoded_bytes
        for piece in self._fresh_pieces():
            size += len(piece)
            if limit is not None and size > limit:
                raise self._too_large(limit)
            pieces.append(piece)
        return b"".join(pieces)

    def _too_large(self, limit: int) -> DecodeError:
        self.close()
        return DecodeError(
            f"the body of {self._name()} expands to more than {limit:,} bytes: iterate over it, or raise"
            " Limits.max_decoded_bytes",
            **self._where(),
        )

    def _known_charset(self) -> str:
        return known_charset(self.encoding)

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


class _InTurn(Iterator[T]):
    """An iterator that tells a second thread so, instead of letting it take what the first would miss.

    Shared; guarded by ``turns``, from which the thread that steps takes the only entry.
    """

    def __init__(self, pieces: Iterator[T], turns: list[bool], busy: Callable[[], LocalProtocolError]) -> None:
        self._pieces = pieces
        self._turns = turns
        self._busy = busy

    def __next__(self) -> T:
        try:
            turn = self._turns.pop()  # see `Response.read`
        except IndexError:
            raise self._busy() from None
        try:
            return next(self._pieces)
        finally:
            self._turns.append(turn)
