"""The bytes of one response, as `http.client` reads them: the head that the engine parsed, written again, and the body.

`http.client.HTTPResponse` reads from a file: ``begin`` parses a head there, ``read`` takes what Content-Length or
chunks delimit. Giving it that file, rather than overriding everything it does, keeps its behaviour to the letter, in
each version of Python, also for subclasses that callers set as ``response_class``.

A body that was cut short ends this file early, and leaves its reason in ``failure``: `HTTPResponse` turns it into
IncompleteRead, with the bytes that came before.
"""

from __future__ import annotations

import concurrent.futures
import errno
import functools
import io
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from hyperpool.errors import ConnectionLost, HyperpoolError, Timeout
from hyperpool.http_client.faults import standard_error
from hyperpool.protocol.response_fields import declared_bytes

if TYPE_CHECKING:
    from hyperpool.handoff.futures import ResponseFuture
    from hyperpool.handoff.response import Response

# What a buffered reader asks for at a time: an HTTP/2 frame or a TLS record is 16 KiB, and often several are here.
BUFFER_BYTES = 64 << 10

# Names come in lower case from the engine. Programs written for http.client look for "Content-Type" in a plain dict of
# getheaders(); only these are not written with a capital at each part.
_SPELLINGS = {
    "Etag": "ETag",
    "Www-Authenticate": "WWW-Authenticate",
    "Te": "TE",
    "Content-Md5": "Content-MD5",
    "X-Xss-Protection": "X-XSS-Protection",
    "X-Ua-Compatible": "X-UA-Compatible",
}


class Answer(io.RawIOBase):
    """A response as a file of HTTP/1.1 bytes.

    Owned by its reader; `close` may be called from any thread. The first read waits for the head, for ``patience_s``
    at most where that is given.
    """

    def __init__(self, future: ResponseFuture, *, patience_s: float | None = None) -> None:
        self.failure: HyperpoolError | None = None
        self.response: Response | None = None
        self._timeout: Timeout | None = None
        self._future = future
        self._patience_s = patience_s
        self._pieces: Iterator[bytes] = self._bytes()
        self._rest = memoryview(b"")

    @property
    def timed_out(self) -> bool:
        """Whether the server let its reader wait for too long."""
        return self._timeout is not None

    def readable(self) -> bool:
        """True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Bytes of head or body; 0 at the end. Blocks.

        Raises what `http.client` would: RemoteDisconnected, TimeoutError, and others, where there is no head.
        """
        if not self._rest:
            self._rest = memoryview(self._next())
        view = memoryview(buffer).cast("B")
        n_bytes = min(len(view), len(self._rest))
        view[:n_bytes] = self._rest[:n_bytes]
        self._rest = self._rest[n_bytes:]
        return n_bytes

    def readall(self) -> bytes:
        """All that is left. Blocks."""
        parts = [bytes(self._rest)]
        self._rest = memoryview(b"")
        while piece := self._next():
            parts.append(piece)
        return b"".join(parts)

    def _next(self) -> bytes:
        if self.closed:
            raise ValueError("I/O operation on closed file.")
        if self._timeout is not None:
            # Said once only, the next read would take what is here for the whole body.
            raise standard_error(self._timeout) from self._timeout
        try:
            return next(self._pieces, b"")
        except Timeout as error:
            self._timeout = error
            raise standard_error(error) from error
        except HyperpoolError as error:
            if self.response is None:
                raise standard_error(error) from error
            self.failure = None if _is_ragged_end(self.response, error) else error
            return b""

    def _bytes(self) -> Iterator[bytes]:
        response = self.response = self._wait()
        yield head_bytes(response)
        pieces = response.iter_raw()
        yield from _chunks(response, pieces) if _is_chunked(response) else _with_its_end(response, pieces)

    def _wait(self) -> Response:
        try:
            return self._future.result(self._patience_s)
        except concurrent.futures.CancelledError:
            raise ConnectionAbortedError(errno.ECONNABORTED, "the connection was closed on this side") from None
        except HyperpoolError:
            raise
        except concurrent.futures.TimeoutError:
            self._future.cancel()
            raise TimeoutError("timed out: the body of the request is not complete, and nobody answered") from None

    def close(self) -> None:
        """Let the response go; where it was not read to its end, the stream is reset. Never blocks."""
        if not self.closed:
            self._future.cancel()
            # Not by way of ``response``: a reader may still be waiting for the head.
            if self._future.done() and not self._future.cancelled() and self._future.exception() is None:
                self._future.result().close()
        super().close()


def head_bytes(response: Response) -> bytes:
    """The head as an HTTP/1.1 server would have written it, its empty line included."""
    head = response._parts.head
    version = "HTTP/1.0" if response.http_version == "HTTP/1.0" else "HTTP/1.1"
    lines = [f"{version} {response.status_code} {response.reason}".encode("latin-1")]
    lines += [_spelled(name) + b": " + value for name, value in head.fields]
    return b"\r\n".join([*lines, b"", b""])


@functools.lru_cache(maxsize=512)
def _spelled(name: bytes) -> bytes:
    words = "-".join(part.capitalize() for part in name.decode("latin-1").split("-"))
    return _SPELLINGS.get(words, words).encode("latin-1")


def _is_ragged_end(response: Response, error: HyperpoolError) -> bool:
    """Whether a body that ends with its connection has ended without TLS's close_notify.

    The standard library takes that for an end (``suppress_ragged_eofs``), and its own servers end so. Where anything
    else tells the length it is used, and a reset is none.
    """
    delimited = _is_chunked(response) or declared_bytes(response._parts.head.fields) is not None
    over_http1 = response.http_version != "HTTP/2"
    return over_http1 and not delimited and isinstance(error, ConnectionLost) and error.__cause__ is None


def _is_chunked(response: Response) -> bool:
    """Whether the head says so: then the body must look like it."""
    coding = response.headers.get("transfer-encoding", "")
    return bool(coding.lower() == "chunked")


def _with_its_end(response: Response, pieces: Iterator[bytes]) -> Iterator[bytes]:
    """The same pieces; the last byte that was declared comes only when the stream has ended.

    HTTPResponse lets go once it has all that Content-Length says, while many servers send END_STREAM in a frame of its
    own: a reset for each response that was read to its end would cross it, and servers count resets (CVE-2023-44487).
    """
    left_bytes = declared_bytes(response._parts.head.fields)
    for piece in pieces:
        if left_bytes is not None:
            left_bytes -= len(piece)
            if left_bytes == 0:
                with suppress(HyperpoolError):  # the body is whole, whatever comes behind it
                    next(pieces, None)
        yield piece


def _chunks(response: Response, pieces: Iterator[bytes]) -> Iterator[bytes]:
    for piece in pieces:
        yield b"%X\r\n%s\r\n" % (len(piece), piece)
    trailers = "".join(f"{name}: {value}\r\n" for name, value in response.trailers.items())
    yield f"0\r\n{trailers}\r\n".encode("latin-1")
