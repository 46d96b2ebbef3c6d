"""hyperpool's errors in the standard library's classes: what callers of `http.client` catch.

Each function gives a fresh exception of a standard class; whoever raises it does so ``from`` the hyperpool error, which
keeps origin, stream and ``processed``. There is but one class of our own here: callers ask with ``except OSError``,
``except http.client.HTTPException``, ``except ssl.SSLCertVerificationError`` and by errno, and classes that say the
same once more would only be one more name to know.
"""

from __future__ import annotations

import http.client
import re
import socket
from collections.abc import Callable
from typing import Any

from hyperpool import errors
from hyperpool.protocol.h1_head import HEAD_TOO_LONG, WRONG_BEGINNING

_OTHER_VERSION = re.compile(WRONG_BEGINNING + r" b['\"](HTTP/(?!1\.)[^ ]+) ").search
# SSLError fills these in from OpenSSL's queue alone; a fresh instance has none of them.
_SSL_DETAILS = ("library", "reason", "verify_code", "verify_message")


def standard_error(error: BaseException) -> BaseException:
    """The exception that the standard library would have raised in this place; others than ours as they are.

    urllib turns every OSError of a request into URLError, and xmlrpc repeats a call after RemoteDisconnected: these two
    habits decide what is what here.
    """
    for kind, make in _MAKERS.items():
        if isinstance(error, kind):
            return make(error)
    return OSError(str(error)) if isinstance(error, errors.HyperpoolError) else error


def _timed_out(error: Any) -> BaseException:
    # "timed out" is all that the standard library says, and there are programs that look for it.
    return TimeoutError(f"timed out: {error}")


def _no_such_name(error: Any) -> BaseException:
    code = error.__cause__.errno if isinstance(error.__cause__, socket.gaierror) else socket.EAI_NONAME
    return socket.gaierror(code, str(error))


def _from_system(error: Any) -> BaseException:
    # OSError picks its subclass by errno: ConnectionRefusedError and its kin.
    code = getattr(error.__cause__, "errno", None)
    return OSError(code, str(error)) if code else ConnectionError(str(error))


def _tls(error: Any) -> BaseException:
    import ssl

    cause = error.__cause__
    if isinstance(cause, ssl.SSLWantReadError):
        # Over memory, OpenSSL wants more where over a socket it would have seen the end.
        return ssl.SSLEOFError(ssl.SSL_ERROR_EOF, str(error))
    refused = isinstance(error, errors.CertificateError)
    kind = ssl.SSLCertVerificationError if refused else type(cause) if isinstance(cause, ssl.SSLError) else ssl.SSLError
    made = kind(getattr(cause, "errno", None) or ssl.SSL_ERROR_SSL, str(error))
    for detail in _SSL_DETAILS:
        if hasattr(cause, detail):
            setattr(made, detail, getattr(cause, detail))
    return made


def _tunnel(error: Any) -> BaseException:
    if error.status is not None:
        return OSError(f"Tunnel connection failed: {error.status} ({error})")
    return _from_system(error)


def _disconnected(error: Any) -> BaseException:
    return http.client.RemoteDisconnected(str(error))


def _not_http(error: Any) -> BaseException:
    words = str(error)
    if HEAD_TOO_LONG in words:
        made = http.client.LineTooLong("head")
        made.args = (words,)
        return made
    if version := _OTHER_VERSION(words):
        return http.client.UnknownProtocol(version[1])
    return http.client.BadStatusLine(words)


class Unsendable(http.client.HTTPException, ValueError):
    """The request is one that HTTP does not allow; nothing of it was sent.

    The one class that the standard library lacks: its own checks raise ValueError for some of these, and send others.
    """


_MAKERS: dict[type[BaseException], Callable[[Any], BaseException]] = {
    errors.Timeout: _timed_out,
    errors.NameResolutionError: _no_such_name,
    errors.TlsError: _tls,
    errors.ProxyError: _tunnel,
    errors.ConnectError: _from_system,
    errors.ConnectionLost: _disconnected,
    errors.StreamReset: _disconnected,
    errors.LocalProtocolError: lambda error: Unsendable(str(error)),
    errors.InvalidURL: lambda error: http.client.InvalidURL(str(error)),
    errors.RemoteProtocolError: _not_http,
}
