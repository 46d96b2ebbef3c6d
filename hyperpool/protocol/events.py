"""What a codec reports: one class per thing that a peer can say, the same for HTTP/2 and HTTP/1.1.

Pure values. ``stream_id`` is the HTTP/2 stream; the HTTP/1.1 codec numbers its exchanges 1, 2, 3, … in the same place,
so that everything above handles both alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, Union

from hyperpool.values import RequestHead as RequestHead  # noqa: PLC0414 - here people look for it

if TYPE_CHECKING:
    from hyperpool.errors import HyperpoolError

Fields = list[tuple[bytes, bytes]]

# More 1xx heads than this for one request are a flood (RFC 9110 15.2 sets no bound; Go allows 5 without progress).
MAX_INTERIM = 100


class Chunked(bytes):
    """A piece of a chunked body that knows where chunks end in it (RFC 9112 7.1). Immutable once made.

    ``ends``: for each chunk that ends in this piece, the bytes up to there.
    """

    ends: tuple[int, ...] = ()

    @classmethod
    def cut(cls, data: bytes, ends: list[int]) -> Chunked:
        """These bytes with these ends."""
        piece = cls(data)
        piece.ends = tuple(ends)
        return piece


@dataclass(slots=True)
class Head:
    """The final response head (RFC 9110 15.1)."""

    stream_id: int
    status: int
    fields: Fields
    reason: bytes = b""
    http_version: str = "HTTP/2"


@dataclass(slots=True)
class Interim:
    """A 1xx head (RFC 9110 15.2)."""

    stream_id: int
    status: int
    fields: Fields


@dataclass(slots=True)
class Data:
    """A piece of body. ``flow_bytes`` is what it cost of the windows, padding included (RFC 9113 6.9.1)."""

    stream_id: int
    data: bytes
    flow_bytes: int


@dataclass(slots=True)
class LateData:
    """A piece of a body whose stream is over: nobody's, but the connection's window has it (RFC 9113 5.1, 6.9)."""

    flow_bytes: int


@dataclass(slots=True)
class Trailers:
    """The trailer section (RFC 9110 6.5)."""

    stream_id: int
    fields: Fields


@dataclass(slots=True)
class End:
    """The response is complete."""

    stream_id: int


@dataclass(slots=True)
class Reset:
    """The peer reset the stream (RFC 9113 6.4)."""

    stream_id: int
    code: int


@dataclass(slots=True)
class GoAway:
    """The peer takes no new streams (RFC 9113 6.8)."""

    last_stream_id: int
    code: int
    debug: bytes


@dataclass(slots=True)
class PeerSettings:
    """The peer's SETTINGS changed: limits and windows are to be read anew (RFC 9113 6.5)."""


@dataclass(slots=True)
class WindowOpened:
    """The peer granted credit (RFC 9113 6.9). ``stream_id`` 0 is the connection."""

    stream_id: int


@dataclass(slots=True)
class Pong:
    """The peer answered our PING (RFC 9113 6.7)."""

    payload: bytes


@dataclass(slots=True)
class Promise:
    """The peer will push a response to this request, on this stream (RFC 9113 8.4)."""

    stream_id: int
    promised_id: int
    fields: Fields


@dataclass(slots=True)
class Switched:
    """The peer left HTTP/1.1 (RFC 9110 15.2.2); ``data`` is what came behind that in the new protocol."""

    stream_id: int
    protocol: bytes
    data: bytes


@dataclass(slots=True)
class Broken:
    """One message is malformed (RFC 9113 8.1.1): its stream is to be reset, the connection may go on."""

    stream_id: int
    error: HyperpoolError


Event = Union[
    Head,
    Interim,
    Data,
    LateData,
    Trailers,
    End,
    Reset,
    GoAway,
    PeerSettings,
    WindowOpened,
    Pong,
    Promise,
    Switched,
    Broken,
]


class Codec(Protocol):
    """One connection's protocol machine: bytes in, events out; requests in, bytes out.

    Owned by the loop thread. `receive` never raises: what went wrong stands in ``failure`` after the events that came
    before it were returned, so that a complete response is not lost to the garbage behind it.
    """

    failure: HyperpoolError | None

    def open(self, head: RequestHead, *, end: bool) -> int: ...

    def send(self, stream_id: int, data: bytes | memoryview, *, end: bool) -> None: ...

    def trail(self, stream_id: int, fields: Fields) -> None: ...

    def receive(self, data: bytes) -> list[Event]: ...

    def receive_eof(self) -> list[Event]: ...

    def data_to_send(self) -> bytes | bytearray: ...
