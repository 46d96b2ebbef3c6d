"""hyper's errors of HTTP/2: other names for classes of `hyperpool.errors`, or subclasses of them."""

from hyperpool.connection_errors import (
    ConnectionError,
    HPACKDecodingError,
    HPACKEncodingError,
    HTTP20Error,
    ProtocolError,
    StreamResetError,
)

__all__ = [
    "ConnectionError",
    "HPACKDecodingError",
    "HPACKEncodingError",
    "HTTP20Error",
    "ProtocolError",
    "StreamResetError",
]
