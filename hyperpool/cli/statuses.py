"""Exit statuses: what failed, as a number that a script can ask for. They are part of the interface.

6 and 7 are curl's; 3, 4 and 5 are HTTPie's; 130 and 141 are what shells make of SIGINT and SIGPIPE.
"""

from __future__ import annotations

import enum

from hyperpool import errors


class Status(enum.IntEnum):
    """How a run ended."""

    OK = 0
    OTHER = 1
    USAGE = 2
    REDIRECTED = 3
    CLIENT_ERROR = 4
    SERVER_ERROR = 5
    NAME = 6
    CONNECT = 7
    TLS = 8
    CERTIFICATE = 9
    TIMEOUT = 10
    PROTOCOL = 11
    LOST = 12
    DECODE = 13
    FILE = 14
    PROXY = 15
    INTERRUPTED = 130
    PIPE_CLOSED = 141


MEANING = {
    Status.OK: "the request was answered",
    Status.OTHER: "something else went wrong",
    Status.USAGE: "the command line is wrong",
    Status.REDIRECTED: "3xx, with --check-status",
    Status.CLIENT_ERROR: "4xx, with --check-status",
    Status.SERVER_ERROR: "5xx, with --check-status",
    Status.NAME: "the host name has no address",
    Status.CONNECT: "no connection could be made",
    Status.TLS: "the TLS handshake failed",
    Status.CERTIFICATE: "the server's certificate is not trusted",
    Status.TIMEOUT: "it took too long",
    Status.PROTOCOL: "the server broke the rules of HTTP",
    Status.LOST: "the connection was lost, or the server gave the request up",
    Status.DECODE: "the body is not what Content-Encoding says",
    Status.FILE: "a file could not be read or written",
    Status.PROXY: "the proxy refused or broke the tunnel",
    Status.INTERRUPTED: "Ctrl-C",
    Status.PIPE_CLOSED: "nobody reads the output any more",
}

# Leaves before their branches: the first that fits counts.
_OF_ERRORS: tuple[tuple[type[errors.HyperpoolError], Status], ...] = (
    (errors.InvalidURL, Status.USAGE),
    (errors.LocalProtocolError, Status.USAGE),
    (errors.Timeout, Status.TIMEOUT),
    (errors.NameResolutionError, Status.NAME),
    (errors.CertificateError, Status.CERTIFICATE),
    (errors.TlsError, Status.TLS),
    (errors.ProxyError, Status.PROXY),
    (errors.ConnectError, Status.CONNECT),
    (errors.ConnectionLost, Status.LOST),
    (errors.StreamReset, Status.LOST),
    (errors.ProtocolError, Status.PROTOCOL),
    (errors.DecodeError, Status.DECODE),
)


def of_error(error: errors.HyperpoolError) -> Status:
    """The status with which this error ends the run."""
    if isinstance(error, errors.HTTPStatusError) and error.response is not None:
        return of_response(error.response.status_code) or Status.OTHER
    return next((status for kind, status in _OF_ERRORS if isinstance(error, kind)), Status.OTHER)


def of_response(status_code: int) -> Status:
    """The status under ``--check-status``."""
    by_hundreds = {3: Status.REDIRECTED, 4: Status.CLIENT_ERROR, 5: Status.SERVER_ERROR}
    return by_hundreds.get(status_code // 100, Status.OK)
