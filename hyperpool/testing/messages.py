"""What a handler gets and gives: Request, Reply, and the faults it may return instead.

No socket and no codec in here. A handler is a plain function of one `Request`; what it returns is read by `as_answer`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from hyperpool.testing.bodies import Upload

HeadersLike = Mapping[str, str] | Sequence[tuple[str, str]]

INTERNAL_ERROR = 0x2  # RFC 9113 7
REFUSED_STREAM = 0x7


@dataclass(frozen=True, slots=True)
class Reset:
    """Reset the stream with this RFC 9113 7 code; on HTTP/1.1 the connection, by TCP RST. Immutable."""

    code: int = INTERNAL_ERROR


@dataclass(frozen=True, slots=True)
class Refuse:
    """Say that the request was not processed: REFUSED_STREAM; HTTP/1.1 closes without a byte. Immutable."""


@dataclass(frozen=True, slots=True)
class Disconnect:
    """Close the socket at once, without TLS close_notify or GOAWAY; ``rst``: by TCP RST. Immutable."""

    rst: bool = False


@dataclass(frozen=True, slots=True)
class Silence:
    """Never say another word about this request. Immutable."""


Fault = Reset | Refuse | Disconnect | Silence
FAULTS = (Reset, Refuse, Disconnect, Silence)


@dataclass(frozen=True, slots=True)
class Reply:
    """One response as the handler means it.

    Immutable, but for an iterable body: that is consumed once, in the thread that ran the handler.

    ``body``: bytes and str get a content-length of their own (unless there are trailers, or you give one); an iterable
    of bytes is streamed as fast as the peer's windows allow. ``interim``: (status, headers) pairs to send before.
    ``fault``: what to do in place of the body's end, or once ``fault_after_bytes`` of it were sent.
    ``stop_upload``: do not read the rest of the request's body: RST_STREAM(NO_ERROR) after the reply (RFC 9113 8.1),
    or ``connection: close``. None: only with 413. Otherwise the rest is read and thrown away.
    """

    status: int = 200
    headers: HeadersLike = ()
    body: bytes | str | Iterable[bytes] = b""
    trailers: HeadersLike = ()
    interim: Sequence[tuple[int, HeadersLike]] = ()
    fault_after_bytes: int | None = None
    fault: Fault | None = None
    stop_upload: bool | None = None

    @property
    def stops_upload(self) -> bool:
        return self.status == 413 if self.stop_upload is None else self.stop_upload

    def whole_body(self) -> bytes | None:
        """The body where it is known at once; None where it is to be iterated."""
        if isinstance(self.body, str):
            return self.body.encode()
        return bytes(self.body) if isinstance(self.body, (bytes, bytearray, memoryview)) else None


Answer = Reply | Reset | Refuse | Disconnect | Silence
AnswerLike = Answer | bytes | str | int | tuple[int, bytes | str]
Handler = Callable[["Request"], AnswerLike]
H = TypeVar("H", bound=Handler)


def as_answer(given: AnswerLike) -> Answer:
    """Read a handler's result in its short forms. Raises TypeError for anything else."""
    if isinstance(given, (Reply, *FAULTS)):
        return given
    if isinstance(given, (bytes, str)):
        return Reply(body=given)
    if isinstance(given, int):
        return Reply(given)
    if isinstance(given, tuple) and len(given) == 2:
        return Reply(given[0], body=given[1])
    raise TypeError(f"a handler must return a Reply, a fault, bytes, str, a status or (status, body), not {given!r}")


def pairs(headers: HeadersLike) -> list[tuple[str, str]]:
    """Header fields as a list of lower-case name and value, in order."""
    items = headers.items() if isinstance(headers, Mapping) else headers
    return [(name.lower(), str(value)) for name, value in items]


def latin_1(fields: list[tuple[str, str]]) -> list[tuple[bytes, bytes]]:
    """The same in bytes, as both versions send them (RFC 9110 5.5)."""
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in fields]


def has_no_body(method: str, status: int) -> bool:
    """Whether a response has no content whatever its headers say (RFC 9110 6.4.1)."""
    return method == "HEAD" or status in (204, 304)


def final_headers(reply: Reply, whole: bytes | None) -> list[tuple[str, str]]:
    """The reply's header fields, with the content-length that it did not give itself."""
    fields = pairs(reply.headers)
    if whole is None or reply.trailers or reply.fault or reply.status in (204, 304):
        return fields
    if any(name in ("content-length", "transfer-encoding") for name, _ in fields):
        return fields
    return [*fields, ("content-length", str(len(whole)))]


def inline(handler: H) -> H:
    """Mark a handler to be run on the connection's I/O thread: quicker, but it must not wait for anything."""
    handler.runs_inline = True  # type: ignore[attr-defined]
    return handler


class Request:
    """One request, from the moment its head arrived.

    Owned by the thread that runs the handler; the I/O thread feeds its body.
    """

    __slots__ = (
        "_upload", "authority", "connection_number", "headers", "http_version", "method", "scheme", "stream_id",
        "target",
    )  # fmt: skip

    def __init__(
        self,
        *,
        method: str,
        target: str,
        scheme: str,
        authority: str,
        headers: list[tuple[str, str]],
        http_version: str,
        stream_id: int | None,
        connection_number: int,
        upload: Upload,
    ) -> None:
        self.method = method
        self.target = target
        self.scheme = scheme
        self.authority = authority
        self.headers = headers
        self.http_version = http_version
        self.stream_id = stream_id
        self.connection_number = connection_number
        self._upload = upload

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]

    @property
    def query(self) -> str:
        return self.target.partition("?")[2]

    @property
    def trailers(self) -> list[tuple[str, str]]:
        """The trailer fields; empty until the body was read to its end."""
        return self._upload.trailers

    def header(self, name: str) -> str | None:
        """The first value of a field, None where it is absent."""
        wanted = name.lower()
        return next((value for key, value in self.headers if key == wanted), None)

    def read(self) -> bytes:
        """The whole body. Blocks until it arrived; raises PeerGone when it never will."""
        return b"".join(self.iter_body())

    def iter_body(self) -> Iterator[bytes]:
        """The body in pieces as they arrive; the peer gets credit for what was taken. Blocks; raises PeerGone."""
        return iter(self._upload.take, b"")

    def wait_gone(self, timeout_s: float) -> bool:
        """Block until the peer gave the request up (reset, disconnect, server closing); False after ``timeout_s``."""
        return self._upload.wait_gone(timeout_s)

    def __repr__(self) -> str:
        return f"<Request {self.method} {self.target} http/{self.http_version} stream={self.stream_id}>"
