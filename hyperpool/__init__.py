"""hyperpool: one thread-safe, shareable HTTP client for a whole process.

The door of the house: names only. Importing it starts no thread, opens no socket and reads no file. hyper's names and
the faces for other libraries are loaded when they are asked for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from hyperpool._version import __version__
from hyperpool.client import Client
from hyperpool.default import (
    default_client,
    delete,
    download,
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
    upload,
)
from hyperpool.errors import (
    CertificateError,
    ChecksumError,
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
from hyperpool.handoff.futures import ResponseFuture
from hyperpool.handoff.response import Response
from hyperpool.pool import ConnectionPool, PoolStats
from hyperpool.urls import Origin
from hyperpool.values import Limits, Request, Timeout

if TYPE_CHECKING:
    from hyperpool.connection import HTTP11Connection, HTTP20Connection, HTTPConnection
    from hyperpool.connection_messages import HTTP11Response, HTTP20Push, HTTP20Response, HTTPVersion
    from hyperpool.handoff.hooks import ConnectionInfo
    from hyperpool.headers import HTTPHeaderMap
    from hyperpool.policy.auth import BasicAuth, BearerAuth
    from hyperpool.policy.cookies import Cookies
    from hyperpool.policy.digest import DigestAuth
    from hyperpool.policy.download import Download

# Where names live that few programs need, hyper's above all; and the rooms to which `import hyperpool` alone gives
# access, as `import hyper` did.
_ON_USE = {
    "ConnectionInfo": "handoff.hooks",
    "HTTP11Connection": "connection",
    "HTTP20Connection": "connection",
    "HTTPConnection": "connection",
    "HTTP11Response": "connection_messages",
    "HTTP20Push": "connection_messages",
    "HTTP20Response": "connection_messages",
    "HTTPHeaderMap": "headers",
    "BasicAuth": "policy.auth",
    "BearerAuth": "policy.auth",
    "Cookies": "policy.cookies",
    "DigestAuth": "policy.digest",
    "Download": "policy.download",
    "HTTPVersion": "connection_messages",
}
_ROOMS_ON_USE = frozenset({"aio", "common", "contrib", "http11", "http20", "http_client", "tls", "window"})


def __getattr__(name: str) -> Any:
    if name in _ROOMS_ON_USE:
        return importlib.import_module(f"hyperpool.{name}")
    if name not in _ON_USE:
        raise AttributeError(f"module 'hyperpool' has no attribute {name!r}")
    found = globals()[name] = getattr(importlib.import_module(f"hyperpool.{_ON_USE[name]}"), name)
    return found


__all__ = [
    "BasicAuth",
    "BearerAuth",
    "CertificateError",
    "ChecksumError",
    "Client",
    "ConnectError",
    "ConnectTimeout",
    "ConnectionInfo",
    "ConnectionLost",
    "ConnectionPool",
    "Cookies",
    "DecodeError",
    "DigestAuth",
    "Download",
    "HTTP11Connection",
    "HTTP11Response",
    "HTTP20Connection",
    "HTTP20Push",
    "HTTP20Response",
    "HTTPConnection",
    "HTTPHeaderMap",
    "HTTPStatusError",
    "HTTPVersion",
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
    "download",
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
    "upload",
]
