"""The response of the urllib3 face: urllib3's own, over a body that a hyperpool stream carries.

urllib3 decodes, counts and caches; `Raw` below it is shaped like ``http.client.HTTPResponse``, which is all that
urllib3 knows of connections. The cookie jars of the standard library and of requests read their fields from it too.
"""

from __future__ import annotations

import http.client
import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import urllib3
from urllib3.util.response import is_fp_closed

from hyperpool.contrib.urllib3.errors import also_timeout, of_body
from hyperpool.errors import HyperpoolError
from hyperpool.handoff.reading import ByteReader
from hyperpool.handoff.turns import turns

_VERSIONS = {"HTTP/2": 20, "HTTP/1.1": 11, "HTTP/1.0": 10}

# urllib3's own default for `stream`.
_STREAM_BYTES = 1 << 16


class Raw:
    """A body as it comes from the wire, with its head: the part of ``http.client.HTTPResponse`` that others lean on.

    Its body has one reader at a time; `close` may be called by any thread, and wakes that reader.
    """

    def __init__(self, response: Any, method: str) -> None:
        self.status = response.status_code
        self.reason = response.reason
        self.headers = response.headers
        self.version = _VERSIONS.get(response.http_version, 11)
        self.stream_id = response.stream_id
        self.trailers: Any = urllib3.HTTPHeaderDict()
        self.closed = False
        # What urllib3.util.response.is_response_to_head looks at.
        self._method = method
        self._response: Any = response
        self._body = ByteReader(response.source(), {})
        self._msg: http.client.HTTPMessage | None = None

    @property
    def msg(self) -> http.client.HTTPMessage:
        """The header fields as the standard library and its cookie jars know them."""
        if self._msg is None:
            message = http.client.HTTPMessage()
            for name, value in self.headers.iteritems():
                message[name] = value
            self._msg = message
        return self._msg

    def getheaders(self) -> list[tuple[str, str]]:
        return list(self.headers.iteritems())

    def getheader(self, name: str, default: Any = None) -> Any:
        return self.headers.get(name, default)

    def read(self, amt: int | None = None) -> bytes:
        """The next ``amt`` bytes, fewer only at the end; all that is left for None. Blocks.

        What came before an error is given first, where a size was asked for, and the error next.
        """
        if amt is None or amt < 0:
            return self._taken(self._body.read)
        return self._taken(self._body.taking(amt)) if amt else b""

    def read1(self, amt: int | None = -1) -> bytes:
        """What is here, up to ``amt`` bytes; b"" at the end. Blocks until there is something."""
        return self._taken(lambda: self._body.read1(amt)) if amt != 0 else b""

    def _taken(self, take: Callable[[], bytes | None]) -> bytes:
        if self.closed:
            return b""
        data = take()
        if self._body.over:
            self._end()
        return data or b""

    def _end(self) -> None:
        self.trailers = self._response.trailers
        self.close()

    def close(self) -> None:
        """Let the body go: where it was not read to its end, the stream is reset. Never blocks."""
        self.closed = True
        response, self._response = self._response, None
        if response is not None:
            response.close()

    def shutdown(self, how: int = 0) -> None:
        """Wake whoever reads, with an error: what shutting down a socket does elsewhere."""
        if (response := self._response) is not None:
            response.close()

    def isclosed(self) -> bool:
        return self.closed

    def fileno(self) -> int:
        """None of its own: the socket is shared. Raises what the io module expects then."""
        raise io.UnsupportedOperation("a response over hyperpool has no file descriptor: its connection is shared")

    def flush(self) -> None:
        """Nothing, as on every file that is read."""


def _refusing(reader: Any, error: HyperpoolError) -> Exception:
    return urllib3.exceptions.ProtocolError(str(error), error)


# urllib3 closes what it reads, wherever an interrupt comes: each leaves its mark, and whoever reads on is told.
_in_turn = turns(urllib3.exceptions.HTTPError, StopIteration, TypeError, ValueError, refusing=_refusing)


class HTTPResponse(urllib3.HTTPResponse):
    """urllib3's HTTPResponse over a hyperpool stream; ``version`` is 20 on HTTP/2.

    Its body has one reader at a time. ``trailers`` are there once it was read to its end.
    """

    # The constructor reads the body where it is to be preloaded, inside urllib3's `urlopen`, to which a TimeoutError
    # would be a broken connection.
    _is_inside_urlopen = True

    def __init__(self, raw: Raw, *, version_string: str, **options: Any) -> None:
        self._reading: dict[str, Any] = {}
        super().__init__(
            raw,  # type: ignore[arg-type]
            headers=raw.headers,
            status=raw.status,
            version=raw.version,
            version_string=version_string,
            reason=raw.reason,
            original_response=raw,  # type: ignore[arg-type]
            msg=raw.msg,
            sock_shutdown=raw.shutdown,
            **options,
        )
        self._raw = raw
        self._is_inside_urlopen = False

    @property
    def trailers(self) -> Any:
        """The trailer fields (RFC 9110 6.5): a HTTPHeaderDict, empty until the body has been read to its end."""
        return self._raw.trailers

    @property
    def stream_id(self) -> int | None:
        """The HTTP/2 stream; None on HTTP/1.1."""
        stream_id: int | None = self._raw.stream_id
        return stream_id

    @contextmanager
    def _error_catcher(self) -> Iterator[None]:
        try:
            with super()._error_catcher():
                try:
                    yield
                except HyperpoolError as error:
                    raise of_body(
                        error, pool=self._pool, read_bytes=self._fp_bytes_read, left_bytes=self.length_remaining
                    ) from error
        except urllib3.exceptions.ReadTimeoutError as error:
            if self._is_inside_urlopen:
                raise
            both = also_timeout(error)
            raise both from both.__cause__

    def _raw_read(self, amt: int | None = None, *, read1: bool = False) -> bytes:
        data = super()._raw_read(amt, read1=read1)
        if self.length_remaining == 0:
            # Of a pool with ``block=True``: the place is free with the last byte, not with the read after it.
            self.release_conn()
        return data

    def _where(self) -> dict[str, Any]:
        return {"stream_id": self.stream_id, "processed": "maybe"}

    @_in_turn
    def read(self, amt: int | None = None, decode_content: bool | None = None, cache_content: bool = False) -> bytes:
        """The next ``amt`` bytes, fewer only at the end; all that is left for None. Blocks. As urllib3's."""
        return super().read(amt, decode_content, cache_content)

    @_in_turn
    def read1(self, amt: int | None = None, decode_content: bool | None = None) -> bytes:
        """What is here, up to ``amt`` bytes. Blocks until there is something. As urllib3's."""
        return super().read1(amt, decode_content)

    @_in_turn
    def readinto(self, b: Any) -> int:
        """Fill a buffer; how many bytes were put there. Blocks."""
        data = super().read(len(b))
        b[: len(data)] = data
        return len(data)

    def __iter__(self) -> Iterator[bytes]:
        # Its own of urllib3 asks for `stream` alone; what it holds of a line is lost where it is interrupted.
        lines: Any = urllib3.HTTPResponse.__iter__
        return _Steps(self, lines(SimpleNamespace(stream=self._stream)))

    def stream(self, amt: int | None = _STREAM_BYTES, decode_content: bool | None = None) -> Iterator[bytes]:  # type: ignore[override]
        """The body in pieces of up to ``amt`` bytes; as they arrive where its length is not known beforehand."""
        return _Steps(self, self._stream(amt, decode_content))

    def _stream(self, amt: int | None = _STREAM_BYTES, decode_content: bool | None = None) -> Iterator[bytes]:
        read = super().read1 if self.length_remaining is None else super().read
        while amt != 0 and (not is_fp_closed(self._fp) or self._holds_decoded_bytes()):
            if data := read(amt, decode_content):
                yield data

    def read_chunked(self, amt: int | None = None, decode_content: bool | None = None) -> Iterator[bytes]:  # type: ignore[override]
        """The body as it arrives. Raises ResponseNotChunked where the head declared its length.

        The pieces are those of the wire: chunks of HTTP/1.1 are not told apart, and HTTP/2 has none.
        """
        return _Steps(self, self._read_chunked(amt, decode_content))

    def _read_chunked(self, amt: int | None, decode_content: bool | None) -> Iterator[bytes]:
        if self.length_remaining is not None:
            raise urllib3.exceptions.ResponseNotChunked(
                "Response is not chunked: its head declares its length. Use stream()"
            )
        yield from self._stream(amt, decode_content)

    def supports_chunked_reads(self) -> bool:
        """True: there is `read_chunked`. urllib3 itself looks for the file of ``http.client``."""
        return True

    def _holds_decoded_bytes(self) -> bool:
        return len(self._decoded_buffer) > 0 or bool(self._decoder and self._decoder.has_unconsumed_tail)


class _Steps(Iterator[bytes]):
    """What a generator gives of a response's body; it can be closed as that.

    Owned by one reader; each step is a turn at the body.
    """

    def __init__(self, response: HTTPResponse, pieces: Any) -> None:
        self._pieces = pieces
        self.close = pieces.close
        self._reading, self._where = response._reading, response._where

    @_in_turn
    def __next__(self) -> bytes:
        piece: bytes = next(self._pieces)
        return piece
