"""The response of the asyncio face: a `Response` whose body is awaited."""

from __future__ import annotations

import datetime
from collections.abc import AsyncIterator
from typing import Any

from hyperpool.aio.uploads import AsyncSource
from hyperpool.aio.waiting import Turns, take, through
from hyperpool.errors import DecodeError, HTTPStatusError, HyperpoolError, LocalProtocolError
from hyperpool.handoff.pieces import Decoding, DelimitedLines, Lines, Resizer, TextDecoder, known_charset
from hyperpool.handoff.response import Response
from hyperpool.protocol.content import make_decoder
from hyperpool.urls import parse_url, without_userinfo
from hyperpool.values import Request


class AsyncResponse:
    """A response: status, headers, and a body that is here already or is awaited piece by piece.

    Safe to hand from task to task; its body has one reader at a time.

    The head is as in `Response`. A streamed response must be read to its end or closed, best by an async with block:
    closing early resets the stream and frees its slot. ``content``, ``text`` and ``json()`` are there after `aread`,
    and at once where the response is not streamed.
    """

    def __init__(
        self, response: Response, *, max_decoded_bytes: int | None = None, source: AsyncSource | None = None
    ) -> None:
        self._response = response
        self._max_decoded_bytes = max_decoded_bytes
        self._source = source
        self._turns = [True]
        self._is_read = False
        # Whether an iterator that has begun may hold what another one would miss.
        self._holds = False

    # -- the head --------------------------------------------------------------------------------------------------

    @property
    def status_code(self) -> int:
        """The status (RFC 9110 15)."""
        return self._response.status_code

    @property
    def status(self) -> int:
        """The same as ``status_code``."""
        return self._response.status_code

    @property
    def reason(self) -> str:
        """The reason phrase; on HTTP/2 the standard one."""
        return self._response.reason

    @property
    def http_version(self) -> str:
        """ "HTTP/1.1" or "HTTP/2"."""
        return self._response.http_version

    @property
    def headers(self) -> Any:
        """The header fields: a ``urllib3.HTTPHeaderDict`` of str, case-insensitive, repeated fields kept apart."""
        return self._response.headers

    @property
    def raw_fields(self) -> list[tuple[bytes, bytes]]:
        """The header fields as they came: (name, value) pairs of bytes, names in lower case."""
        return list(self._response.raw_fields)

    @property
    def trailers(self) -> Any:
        """The trailer fields (RFC 9110 6.5); empty until the body has been read to its end."""
        return self._response.trailers

    @property
    def url(self) -> str:
        """The URL that was requested: after redirects, the last one."""
        return self._response.url

    @property
    def request(self) -> Request:
        """The request that this is the response to."""
        return self._response.request

    @property
    def history(self) -> list[Response]:
        """The redirects that led here."""
        return self._response.history

    @property
    def elapsed(self) -> datetime.timedelta:
        """From submit to the response's end, or to its head where the body is streamed."""
        return self._response.elapsed

    @property
    def stream_id(self) -> int | None:
        """The HTTP/2 stream; None on HTTP/1.1."""
        return self._response.stream_id

    @property
    def retries(self) -> tuple[Any, ...]:
        """One entry for each time the request was sent again, as in `Response.retries`."""
        return self._response.retries

    @property
    def cookies(self) -> Any:
        """The cookies that this response sets: a ``http.cookiejar.CookieJar``."""
        return self._response.cookies

    @property
    def ok(self) -> bool:
        """Whether the status is below 400."""
        return self._response.ok

    def raise_for_status(self) -> AsyncResponse:
        """This response. Raises HTTPStatusError for 4xx and 5xx (RFC 9110 15.5, 15.6)."""
        try:
            self._response.raise_for_status()
        except HTTPStatusError as error:
            error.response = self
            raise
        return self

    @property
    def encoding(self) -> str:
        """The charset that ``text`` uses, as in `Response.encoding`. May be set."""
        return self._response.encoding

    @encoding.setter
    def encoding(self, charset: str) -> None:
        self._response.encoding = charset

    @property
    def apparent_encoding(self) -> str:
        """The charset that the body looks like; LocalProtocolError where it was not read yet."""
        self._check_read()
        return self._response.apparent_encoding

    # -- the whole body --------------------------------------------------------------------------------------------

    @property
    def content(self) -> bytes:
        """The whole decoded body. Raises LocalProtocolError where it has not been read: `aread` does that."""
        self._check_read()
        return self._response.content

    @property
    def text(self) -> str:
        """The body as str; bytes that are not of the charset are replaced."""
        self._check_read()
        return self._response.text

    def json(self, **options: Any) -> Any:
        """The body parsed as JSON (RFC 8259); options go to ``json.loads``. Raises ValueError where it is none."""
        self._check_read()
        return self._response.json(**options)

    def _check_read(self) -> None:
        if not self._is_read:
            # It would have to wait, and hold up the event loop.
            message = "the body was not read yet: await response.aread(), or iterate over it"
            raise LocalProtocolError(message, **self._where())

    async def aread(self) -> bytes:
        """The whole decoded body, which ``content``, ``text`` and ``json()`` give from now on.

        Raises DecodeError where it is not what Content-Encoding says, or expands past ``Limits.max_decoded_bytes``;
        ResponseClosed where it was closed, or read piece by piece, before.
        """
        if not self._is_read:
            if (pipe := self._response.pipe) is not None and pipe.taken:
                self._refuse_second_reading()
            self._response.keep(b"".join([piece async for piece in self._bounded()]))
            self._is_read = True
        return self._response.content

    async def _bounded(self) -> AsyncIterator[bytes]:
        size, limit = 0, self._max_decoded_bytes
        async for piece in self.aiter_bytes():
            size += len(piece)
            if limit is not None and size > limit:
                self.close()
                name = without_userinfo(self.url)
                remedy = "iterate over it, or raise Limits.max_decoded_bytes"
                raise DecodeError(f"the body of {name} expands to more than {limit:,} bytes: {remedy}", **self._where())
            yield piece

    def _refuse_second_reading(self) -> None:
        # ResponseClosed, with the reason: the same as a streamed `Response`.
        _ = self._response.content

    def _where(self) -> dict[str, Any]:
        origin = str(parse_url(self.url).origin)
        return {"origin": origin, "stream_id": self.stream_id, "processed": "maybe"}

    # -- piece by piece --------------------------------------------------------------------------------------------

    # An iterator that is left may hold what it had fetched, where it cuts or decodes: another one is refused then.

    async def aiter_raw(self, n: int | None = None) -> AsyncIterator[bytes]:
        """The body as it came, still encoded: pieces of ``n`` bytes (the last may be shorter), or as they arrive."""
        pieces = self._raw_pieces(holds=n is not None)
        async for piece in pieces if n is None else _sized(pieces, n):
            yield piece

    def aiter_bytes(self, n: int | None = None) -> AsyncIterator[bytes]:
        """The decoded body in pieces of ``n`` bytes (the last may be shorter), or as they arrive."""
        return self._bytes(n, holds=n is not None)

    async def _bytes(self, n: int | None, *, holds: bool) -> AsyncIterator[bytes]:
        pieces = self._decoded_pieces(holds=holds)
        try:
            async for piece in pieces if n is None else _sized(pieces, n):
                yield piece
        except DecodeError as error:
            error.__dict__.update(self._where())  # a decoder does not know whose body it reads
            raise

    def aiter_text(self, n: int | None = None) -> AsyncIterator[str]:
        """The body as str, from pieces of ``n`` bytes; no character is torn."""
        return through(self._bytes(n, holds=True), TextDecoder(known_charset(self.encoding)))

    def aiter_lines(self, delimiter: str | None = None) -> AsyncIterator[str]:
        r"""The lines of the body without their ends (\n, \r or \r\n, or the delimiter), whole also across pieces."""
        return through(self.aiter_text(), Lines() if delimiter is None else DelimitedLines(delimiter))

    def _decoded_pieces(self, *, holds: bool) -> AsyncIterator[bytes]:
        if self._is_read:
            return _one(self._response.content)
        decoder = make_decoder(", ".join(self.headers.getlist("content-encoding")))
        pieces = self._raw_pieces(holds=holds or decoder is not None)
        return pieces if decoder is None else through(pieces, Decoding(decoder))

    async def _raw_pieces(self, *, holds: bool) -> AsyncIterator[bytes]:
        if self._response.pipe is None:
            for piece in self._response.iter_raw():
                yield piece
            return
        if self._holds and self._turns:
            self._refuse_second_reading()
        self._holds = holds
        turns = Turns()
        while piece := await self._take():
            yield piece
            await turns.after(len(piece))

    async def _take(self) -> bytes:
        pipe = self._response.pipe
        assert pipe is not None
        try:
            turn = self._turns.pop()
        except IndexError:
            message = "another task is reading this response: a body has one reader at a time"
            raise LocalProtocolError(message, **self._where()) from None
        try:
            return await take(pipe)
        finally:
            self._turns.append(turn)

    # -- its end ---------------------------------------------------------------------------------------------------

    async def aclose(self) -> None:
        """Let the body go. Where it was not read to its end, the stream is reset and its slot is free.

        Waits for nothing but the end of an async iterable that still gives the request's body.
        """
        self.close()
        if self._source is not None:
            await self._source.end()

    def close(self) -> None:
        """`aclose`, without waiting; from any thread."""
        self._response.close()

    @property
    def closed(self) -> bool:
        """Whether `aclose` was called."""
        return self._response.closed

    async def __aenter__(self) -> AsyncResponse:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        return repr(self._response).replace("<Response", "<AsyncResponse", 1)


async def _one(piece: bytes) -> AsyncIterator[bytes]:
    if piece:
        yield piece


async def _sized(pieces: AsyncIterator[bytes], n: int) -> AsyncIterator[bytes]:
    """The same in pieces of ``n`` bytes. The last may be shorter; where the body was cut, the error is behind that."""
    step = Resizer(n)
    try:
        async for piece in through(pieces, step):
            yield piece
    except HyperpoolError:
        for rest in step.end():
            yield rest
        raise
