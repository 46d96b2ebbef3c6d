"""The drop-in for the standard library's `http.client`: the same names, over hyperpool's shared connections.

``from hyperpool import http_client`` in place of ``import http.client``; or, for libraries that are not one's own,
``http.client.HTTPSConnection = http_client.HTTPSConnection``. The classes are subclasses of the standard ones; the
exceptions are the standard ones. docs/from-http-client.md lists what differs.

Reading order: `connection` (what is overridden), `wire` (the socket's place), `outgoing` and `answer` (bytes in, bytes
out), `response`, `faults`, `shared`.
"""

from __future__ import annotations

import http.client as _standard
from http.client import (
    HTTP_PORT,
    HTTPS_PORT,
    BadStatusLine,
    CannotSendHeader,
    CannotSendRequest,
    HTTPException,
    HTTPMessage,
    ImproperConnectionState,
    IncompleteRead,
    InvalidURL,
    LineTooLong,
    NotConnected,
    RemoteDisconnected,
    ResponseNotReady,
    UnimplementedFileMode,
    UnknownProtocol,
    UnknownTransferEncoding,
    error,
    parse_headers,
    responses,
)
from typing import Any

from hyperpool.http_client.connection import HTTPConnection, HTTPSConnection
from hyperpool.http_client.faults import Unsendable
from hyperpool.http_client.response import HTTPResponse
from hyperpool.http_client.shared import shared_pool

__all__ = [
    "HTTPS_PORT",
    "HTTP_PORT",
    "BadStatusLine",
    "CannotSendHeader",
    "CannotSendRequest",
    "HTTPConnection",
    "HTTPException",
    "HTTPMessage",
    "HTTPResponse",
    "HTTPSConnection",
    "ImproperConnectionState",
    "IncompleteRead",
    "InvalidURL",
    "LineTooLong",
    "NotConnected",
    "RemoteDisconnected",
    "ResponseNotReady",
    "UnimplementedFileMode",
    "UnknownProtocol",
    "UnknownTransferEncoding",
    "Unsendable",
    "error",
    "parse_headers",
    "responses",
    "shared_pool",
]


def __getattr__(name: str) -> Any:
    """The names that are not listed: the status constants, of which each version has more, and what begins with "_"."""
    if name.startswith("__"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(_standard, name)
