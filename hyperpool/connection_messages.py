"""What hyper's connections hand out: responses, and the pushes of a server.

A response here is a view of the engine's own: it has bytes where that has str, and it can be read decoded or as it
came, by number of bytes or piece by piece, in any mixture.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, TypeVar

from hyperpool.connection_errors import as_hyper_raises
from hyperpool.handoff.pieces import Decoding
from hyperpool.handoff.reading import ByteReader, Stage
from hyperpool.handoff.response import PiecesInTurn
from hyperpool.handoff.turns import in_turn
from hyperpool.headers import HTTPHeaderMap
from hyperpool.protocol.content import make_decoder
from hyperpool.protocol.events import Chunked
from hyperpool.urls import parse_url

if TYPE_CHECKING:
    from hyperpool.handoff.pushes import Push
    from hyperpool.handoff.response import Response

M = TypeVar("M", bound="_Message")


class HTTPVersion(enum.Enum):
    """The versions of HTTP, as hyper calls them."""

    http11 = "HTTP/1.1"
    http20 = "HTTP/2"


def _reader(take: Callable[[], bytes | None]) -> ByteReader:
    """A reader of these pieces, whose errors are hyper's."""

    def taken() -> bytes | None:
        with as_hyper_raises():
            return take()

    return ByteReader(taken, {})


class _WholeChunks:
    """Pieces cut at the ends of chunks; those that know of no chunks as they are.

    Owned by one reader.
    """

    def __init__(self) -> None:
        self._begun: list[bytes] = []

    def feed(self, piece: bytes) -> Iterator[bytes]:
        at = 0
        for end in piece.ends if isinstance(piece, Chunked) else (len(piece),):
            yield b"".join([*self._begun, piece[at:end]])
            self._begun.clear()
            at = end
        if rest := piece[at:]:
            self._begun.append(rest)

    def end(self) -> Iterator[bytes]:
        if self._begun:
            yield b"".join(self._begun)


def _map_of(pairs: Iterable[tuple[str, str]]) -> HTTPHeaderMap:
    return HTTPHeaderMap((name.encode("latin-1"), value.encode("latin-1")) for name, value in pairs)


class _Message:
    """What responses of both versions have.

    Safe to hand from thread to thread; its body has one reader at a time.

    ``status``, ``headers`` (`HTTPHeaderMap`), ``version`` (`HTTPVersion`), ``stream_id``: the id that `request` gave
    for it, None for a response that came over HTTP/1.1.
    """

    version: HTTPVersion

    def __init__(self, response: Response, *, stream_id: int | None = None) -> None:
        self.status = response.status_code
        self.headers = HTTPHeaderMap(response._parts.head.fields)
        self.stream_id = stream_id
        self._response = response
        self._is_encoded = b"content-encoding" in self.headers
        self._raw = _reader(response.source())
        self._decoded: ByteReader | None = None
        # For `in_turn`, with which each step of reading here begins.
        self._reading, self._where = response._reading, response._where

    # -- the body --------------------------------------------------------------------------------------------------

    @in_turn
    def read(self, amt: int | None = None, decode_content: bool = True) -> bytes:
        """The next ``amt`` bytes of the body, fewer only at its end; all that is left for None. Blocks.

        Content-Encoding is undone, unless ``decode_content`` is false. Raises the error that cut the body off;
        DecodeError where it is not what Content-Encoding says.
        """
        return self._body(decode_content).read(amt)

    def read_chunked(self, decode_content: bool = True) -> Iterator[bytes]:
        """The body piece by piece, none of them empty: a frame of HTTP/2, a chunk of HTTP/1.1. Blocks for each.

        Where the body is decoded, a piece is what a frame or chunk decodes to. A body without chunks comes in pieces
        of any size.
        """
        return PiecesInTurn(lambda: self._taking(decode_content), self._reading, self._where)

    def _taking(self, decode: bool) -> Callable[[], bytes | None]:
        if decode and self._is_encoded:
            return self._body(True).take
        return Stage(self._raw.take, _WholeChunks()).take

    def __iter__(self) -> Iterator[bytes]:
        return self.read_chunked()

    def _body(self, decode: bool) -> ByteReader:
        if not (decode and self._is_encoded):
            return self._raw
        if self._decoded is None:
            decoder = make_decoder(b", ".join(self.headers[b"content-encoding"]).decode("latin-1"))
            self._decoded = self._raw if decoder is None else _reader(Stage(self._raw.take, Decoding(decoder)).take)
        return self._decoded

    @property
    def trailers(self) -> HTTPHeaderMap:
        """The trailer fields. What is left of the body is read into memory first, and stays readable. Blocks."""
        self._read_ahead()
        return _map_of(self._response.trailers.iteritems())

    @in_turn
    def _read_ahead(self) -> None:
        self._raw.put_back(self._raw.read(None))

    # -- its end ---------------------------------------------------------------------------------------------------

    def fileno(self) -> int:
        """Raises NotImplementedError: the socket is shared with other responses, and none of its bytes are plain."""
        raise NotImplementedError("a response has no socket of its own: read() it, or iterate over it")

    def close(self, socket_close: bool = False) -> None:
        """Let the body go: what is still to come is reset. Never blocks. ``socket_close`` is taken for hyper's sake."""
        self._response.close()

    def __enter__(self: M) -> M:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} [{self.status}] {self._response.request.method} {self._response.url}>"


class HTTP20Response(_Message):
    """A response that came over HTTP/2. ``reason`` is "": HTTP/2 has none (RFC 9113 8.3.2).

    Safe to hand from thread to thread; its body has one reader at a time.
    """

    version = HTTPVersion.http20
    reason = ""


class HTTP11Response(_Message):
    """A response that came over HTTP/1.1. ``reason``: its reason phrase, as bytes.

    Safe to hand from thread to thread; its body has one reader at a time.
    """

    version = HTTPVersion.http11

    def __init__(self, response: Response, *, stream_id: int | None = None) -> None:
        super().__init__(response, stream_id=stream_id)
        self.reason = response._parts.head.reason


def make_response(response: Response, stream_id: int | None) -> HTTP20Response | HTTP11Response:
    """The response in the class of the version over which it came."""
    if response.http_version == HTTPVersion.http20.value:
        return HTTP20Response(response, stream_id=stream_id)
    return HTTP11Response(response)


class HTTP20Push:
    """A response that the server sends without being asked, and the request that it would answer (RFC 9113 8.4).

    Safe to hand from thread to thread. The request: ``method``, ``scheme``, ``authority`` and ``path``, all bytes, and
    ``request_headers``. ``stream_id``: the stream on which it comes. The origin has been checked: it is the
    connection's own.
    """

    def __init__(self, push: Push) -> None:
        url = parse_url(push.request.url)
        self.method = push.request.method.encode("latin-1")
        self.scheme = url.origin.scheme.encode("latin-1")
        self.authority = url.origin.authority.encode("latin-1")
        self.path = url.target.encode("latin-1")
        self.request_headers = _map_of(push.request.headers)
        self.stream_id = push.stream_id
        self._future = push.future
        self._response: HTTP20Response | None = None

    def get_response(self) -> HTTP20Response:
        """The response that was pushed. Blocks until its head is here. Raises the error that ended it before."""
        if self._response is None:
            with as_hyper_raises():
                self._response = HTTP20Response(self._future.result(), stream_id=self.stream_id)
        return self._response

    def cancel(self) -> None:
        """Tell the server that nobody wants it: RST_STREAM with CANCEL. Never blocks."""
        if not self._future.cancel() and self._future.exception() is None:
            self._future.result().close()

    def __repr__(self) -> str:
        return f"<HTTP20Push {self.method.decode()} {self.path.decode()}>"
