"""The error tree: everything that hyperpool raises on purpose.

One root, so that ``except HyperpoolError`` is enough; branches by what the caller can do about it. No exception of
h2, h11, OpenSSL, ssl or socket leaves hyperpool: the floor that meets one turns it into a leaf of this tree and keeps
the original as ``__cause__``.

    HyperpoolError
     |- PoolClosed, PoolFull
     |- Timeout (also TimeoutError): PoolTimeout, ConnectTimeout, WriteTimeout, ReadTimeout, TotalTimeout
     |- ConnectError: NameResolutionError, TlsError (CertificateError), ProxyError
     |- ConnectionLost
     |- StreamReset
     |- ProtocolError: LocalProtocolError (also ValueError), RemoteProtocolError
     |- DecodeError
     |- ChecksumError
     |- HTTPStatusError, TooManyRedirects
     |- InvalidURL (also ValueError)
     '- ResponseClosed
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, Literal, TypeVar

if TYPE_CHECKING:
    from collections.abc import Mapping

Processed = Literal["no", "maybe"]
E = TypeVar("E", bound="HyperpoolError")


class HyperpoolError(Exception):
    """Root of every error that hyperpool raises.

    Not shared: each waiter gets an instance of its own (`own_copy`), so that tracebacks of threads never mix.

    ``origin``: "https://host:port" or None where the error came before one was known.
    ``stream_id``: the HTTP/2 stream (RFC 9113 5.1.1), None on HTTP/1.1 or before a stream was opened.
    ``processed``: "no" when the server provably did not act on the request (RFC 9113 8.7, or nothing was written),
    so that repeating it is safe for any method; "maybe" otherwise.
    """

    def __init__(
        self,
        message: str,
        *,
        origin: str | None = None,
        stream_id: int | None = None,
        processed: Processed = "no",
    ) -> None:
        super().__init__(message)
        self.origin = origin
        self.stream_id = stream_id
        self.processed: Processed = processed

    def own_copy(self: E, **where: Any) -> E:
        """A fresh instance for one more waiter, with the same words and cause; ``where`` sets attributes of it."""
        twin = copy.copy(self)
        twin.__cause__ = self.__cause__
        twin.__dict__.update(where)
        return twin

    def __reduce__(self) -> tuple[Any, ...]:
        # BaseException would call the class with the message alone and lose the keyword-only attributes.
        return _rebuild, (type(self), self.args, self.__dict__)


def _rebuild(cls: type[E], args: tuple[Any, ...], state: dict[str, Any]) -> E:
    error = cls.__new__(cls)
    error.args = args
    error.__dict__.update(state)
    return error


class PoolClosed(HyperpoolError):
    """The pool or client was closed: make a new one, or close it later."""


class PoolFull(HyperpoolError):
    """The bounded queue of an origin, or the number of origins, is at its limit: slow down or raise `Limits`."""


class Timeout(HyperpoolError, TimeoutError):
    """A deadline passed. ``phase`` names it; ``spent_s`` maps each phase to the seconds spent in it."""

    phase = "total"

    def __init__(self, message: str, *, spent_s: Mapping[str, float] | None = None, **where: Any) -> None:
        super().__init__(message, **where)
        self.spent_s = dict(spent_s or {})


class PoolTimeout(Timeout):
    """No connection or stream slot became free in ``Timeout.pool`` seconds."""

    phase = "pool"


class ConnectTimeout(Timeout):
    """Resolving, connecting and the TLS handshake took longer than ``Timeout.connect`` seconds.

    ``step``: the one that was not done: "dns", "tcp", "proxy" (its TLS, CONNECT, SOCKS) or "tls" (with the origin);
    None where no connection was being opened. The message names who owed the answer.
    """

    phase = "connect"

    def __init__(self, message: str, *, step: str | None = None, **where: Any) -> None:
        super().__init__(message, **where)
        self.step = step


class WriteTimeout(Timeout):
    """The peer accepted nothing of the request for ``Timeout.write`` seconds."""

    phase = "write"


class ReadTimeout(Timeout):
    """The peer sent nothing of the response for ``Timeout.read`` seconds."""

    phase = "read"


class TotalTimeout(Timeout):
    """The whole exchange took longer than ``Timeout.total`` seconds."""


class ConnectError(HyperpoolError):
    """No connection to the origin could be made: refused, unreachable, reset while connecting."""


class NameResolutionError(ConnectError):
    """The host name has no address."""


class TlsError(ConnectError):
    """The TLS handshake failed."""


class CertificateError(TlsError):
    """The server's certificate is not acceptable; never retried, and no byte of the request was written."""


class ProxyError(ConnectError):
    """The proxy cannot be reached, or refused or broke the tunnel. ``status``: its HTTP status, None without one."""

    def __init__(self, message: str, *, status: int | None = None, **where: Any) -> None:
        super().__init__(message, **where)
        self.status = status


class ConnectionLost(HyperpoolError):
    """An established connection ended before the response did."""


class StreamReset(HyperpoolError):
    """The server reset the stream (RFC 9113 6.4). ``code`` is the HTTP/2 error code."""

    def __init__(self, message: str, *, code: int, **where: Any) -> None:
        super().__init__(message, **where)
        self.code = code


class ProtocolError(HyperpoolError):
    """Somebody broke the rules of HTTP."""


class LocalProtocolError(ProtocolError, ValueError):
    """The caller asked for something that HTTP does not allow; nothing of it was written."""


class RemoteProtocolError(ProtocolError):
    """The server broke the rules of HTTP."""


class DecodeError(HyperpoolError):
    """The body does not match its Content-Encoding, or decodes to more than the bound."""


class ChecksumError(HyperpoolError):
    """What `Client.download` wrote is not what its checksum says; nothing of it was kept."""


class HTTPStatusError(HyperpoolError):
    """``raise_for_status()`` met a 4xx or 5xx status. ``response`` is the response."""

    def __init__(self, message: str, *, response: Any, **where: Any) -> None:
        super().__init__(message, **where)
        self.response = response

    def __reduce__(self) -> tuple[Any, ...]:
        # A response may be tied to a connection of this process: the copy in another one has None in its place.
        return _rebuild, (type(self), self.args, {**self.__dict__, "response": None})

    def __copy__(self) -> HTTPStatusError:
        twin: HTTPStatusError = _rebuild(type(self), self.args, self.__dict__)
        return twin


class TooManyRedirects(HyperpoolError):
    """More redirects than ``max_redirects``. ``history``: the responses, the last redirect among them."""

    def __init__(self, message: str, *, history: list[Any] | None = None, **where: Any) -> None:
        super().__init__(message, **where)
        self.history = list(history or ())

    def __reduce__(self) -> tuple[Any, ...]:
        # As with HTTPStatusError: responses do not travel to another process.
        return _rebuild, (type(self), self.args, {**self.__dict__, "history": []})

    def __copy__(self) -> TooManyRedirects:
        twin: TooManyRedirects = _rebuild(type(self), self.args, self.__dict__)
        return twin


class InvalidURL(HyperpoolError, ValueError):
    """The URL cannot be requested: no host, unknown scheme, port out of range, forbidden characters."""


class ResponseClosed(HyperpoolError):
    """The response was closed before its body was read to the end."""
