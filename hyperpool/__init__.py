"""hyperpool: one thread-safe, shareable HTTP client for a whole process.

The door of the house: names only. Importing it starts no thread, opens no socket and reads no file.
"""

from __future__ import annotations

from hyperpool._version import __version__
from hyperpool.client import Client
from hyperpool.default import (
    default_client,
    delete,
    get,
    head,
    map,
    options,
    patch,
    post,
    put,
    query,
    request,
    stream,
    submit,
)
from hyperpool.errors import (
    CertificateError,
    ConnectError,
    ConnectionLost,
    ConnectTimeout,
    DecodeError,
    HTTPStatusError,
    HyperpoolError,
    InvalidURL,
    LocalProtocolError,
    NameResolutionError,
    PoolClosed,
    PoolFull,
    PoolTimeout,
    ProtocolError,
    ProxyError,
    ReadTimeout,
    RemoteProtocolError,
    ResponseClosed,
    StreamReset,
    TlsError,
    TooManyRedirects,
    TotalTimeout,
    WriteTimeout,
)
from hyperpool.handoff.exchange import ResponseFuture
from hyperpool.handoff.response import Response
from hyperpool.pool import ConnectionPool, PoolStats
from hyperpool.values import Limits, Origin, Request, Timeout

__all__ = [
    "CertificateError",
    "Client",
    "ConnectError",
    "ConnectTimeout",
    "ConnectionLost",
    "ConnectionPool",
    "DecodeError",
    "HTTPStatusError",
    "HyperpoolError",
    "InvalidURL",
    "Limits",
    "LocalProtocolError",
    "NameResolutionError",
    "Origin",
    "PoolClosed",
    "PoolFull",
    "PoolStats",
    "PoolTimeout",
    "ProtocolError",
    "ProxyError",
    "ReadTimeout",
    "RemoteProtocolError",
    "Request",
    "Response",
    "ResponseClosed",
    "ResponseFuture",
    "StreamReset",
    "Timeout",
    "TlsError",
    "TooManyRedirects",
    "TotalTimeout",
    "WriteTimeout",
    "__version__",
    "default_client",
    "delete",
    "get",
    "head",
    "map",
    "options",
    "patch",
    "post",
    "put",
    "query",
    "request",
    "stream",
    "submit",
]
