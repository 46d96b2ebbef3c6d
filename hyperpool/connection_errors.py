"""The names under which hyper's errors are caught, and how errors of ours come to answer to them.

Most are other names for classes of `hyperpool.errors`. hyper also let the operating system's errors through, which
programs catch as OSError or ConnectionError: what says here that a connection could not be made, or was lost, is both
an error of ours and one of those.
"""

from __future__ import annotations

import builtins
from collections.abc import Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager

from hyperpool import errors
from hyperpool.errors import HyperpoolError, LocalProtocolError, RemoteProtocolError, StreamReset, TlsError

HTTP20Error = HyperpoolError
ProtocolError = errors.ProtocolError
StreamResetError = StreamReset
HPACKEncodingError = LocalProtocolError
HPACKDecodingError = RemoteProtocolError
ChunkedDecodeError = RemoteProtocolError
InvalidResponseError = RemoteProtocolError
LineTooLongError = RemoteProtocolError

# RFC 9113 7.
CANCEL = 8
STREAM_CLOSED = 5


class ConnectionError(HyperpoolError, builtins.ConnectionError):
    """No connection could be made, or it was lost."""


class ConnectionResetError(errors.ConnectionLost, ConnectionError, builtins.ConnectionResetError):
    """The connection ended before the response did."""


SocketError = ConnectionResetError


class ConnectError(errors.ConnectError, ConnectionError):
    """No connection to the server could be made."""


class NameResolutionError(errors.NameResolutionError, ConnectError):
    """The host name has no address."""


class ProxyError(errors.ProxyError, ConnectError):
    """The proxy refused or broke the tunnel."""


class HandshakeError(errors.TlsError, ConnectError):
    """The TLS handshake failed."""


class CertificateError(errors.CertificateError, HandshakeError):
    """The server's certificate is not acceptable."""


class MissingCertFile(TlsError):
    """The file with certificates is not there."""


class NoSuchStream(StreamReset, LookupError):
    """No response is outstanding under this id: it was taken already, or was never asked for."""

    def __init__(self, message: str, *, stream_id: int | None = None) -> None:
        super().__init__(message, code=STREAM_CLOSED, stream_id=stream_id)


_NAMESAKES: dict[type[HyperpoolError], type[HyperpoolError]] = {
    errors.ConnectionLost: ConnectionResetError,
    errors.ConnectError: ConnectError,
    errors.NameResolutionError: NameResolutionError,
    errors.ProxyError: ProxyError,
    errors.TlsError: HandshakeError,
    errors.CertificateError: CertificateError,
}


@contextmanager
def as_hyper_raises() -> Iterator[None]:
    """Let errors of the connection leave as those that are also the builtin ones; all others as they are."""
    try:
        yield
    except HyperpoolError as error:
        namesake = _NAMESAKES.get(type(error))
        if namesake is None:
            raise
        raise _as(namesake, error) from error.__cause__
    except CancelledError:
        raise StreamReset("this request was cancelled on our side", code=CANCEL, processed="maybe") from None


def _as(kind: type[HyperpoolError], error: HyperpoolError) -> HyperpoolError:
    namesake = kind(str(error))
    namesake.__dict__.update(error.__dict__)
    return namesake
