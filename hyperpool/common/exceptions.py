"""hyper's errors of both versions: other names for classes of `hyperpool.errors`, or subclasses of them."""

from hyperpool.connection_errors import (
    ChunkedDecodeError,
    ConnectionError,
    ConnectionResetError,
    InvalidResponseError,
    LineTooLongError,
    MissingCertFile,
    ProxyError,
    SocketError,
)

__all__ = [
    "ChunkedDecodeError",
    "ConnectionError",
    "ConnectionResetError",
    "InvalidResponseError",
    "LineTooLongError",
    "MissingCertFile",
    "ProxyError",
    "SocketError",
]
