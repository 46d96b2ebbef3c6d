"""What urllib3's users expect to catch, made of what hyperpool raises; the hyperpool error stays as ``__cause__``.

urllib3 decides by the class of an error whether it may be retried, and takes every OSError for a broken connection. So
timeouts travel through its `urlopen` as urllib3's own classes, and become builtin TimeoutErrors as well on the way out
(`also_timeout`).
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

from urllib3 import exceptions

from hyperpool import errors

# Chains are short; a ring of causes must not hold anybody up.
_DEEPEST_CHAIN = 16


class ReadTimeoutError(exceptions.ReadTimeoutError, TimeoutError):
    """urllib3's read timeout, which is also a builtin TimeoutError."""


class ConnectTimeoutError(exceptions.ConnectTimeoutError, TimeoutError):
    """urllib3's connect timeout, which is also a builtin TimeoutError."""


class RefusedRequest(exceptions.InvalidHeader, ValueError):
    """HTTP does not allow this request; nothing of it was written. The text says what to change."""


_BOTH: dict[type[BaseException], type[BaseException]] = {
    exceptions.ReadTimeoutError: ReadTimeoutError,
    exceptions.ConnectTimeoutError: ConnectTimeoutError,
}


def also_timeout(error: Any) -> Any:
    """The same error, as a TimeoutError too where it is a timeout; the reason of a MaxRetryError likewise."""
    if isinstance(error, exceptions.MaxRetryError):
        error.reason = error.__cause__ = also_timeout(error.reason)
        return error
    both = _BOTH.get(type(error))
    if both is None:
        return error
    twin = both.__new__(both)
    twin.args = error.args
    twin.__dict__.update(error.__dict__)
    twin.__cause__ = error.__cause__
    return twin.with_traceback(error.__traceback__)


def root_of(error: BaseException | None) -> errors.HyperpoolError | None:
    """The hyperpool error that an exception of urllib3 or requests was made of; None where there is none."""
    for _ in range(_DEEPEST_CHAIN):
        if error is None or isinstance(error, errors.HyperpoolError):
            return error
        error = error.__cause__ or getattr(error, "reason", None) or next(iter(_exceptions_in(error)), None)
    return None


def _exceptions_in(error: BaseException) -> list[BaseException]:
    return [given for given in error.args if isinstance(given, BaseException)]


# -- before there is a response ----------------------------------------------------------------------------------------


def of_request(error: errors.HyperpoolError, *, pool: Any, conn: Any, url: str) -> Exception:
    """What urllib3 would have raised for a request that got no response."""
    make = next(_MAKERS[kind] for kind in type(error).__mro__ if kind in _MAKERS)
    return make(error, pool, conn, url)


def _refused(error: errors.HyperpoolError, pool: Any, conn: Any, url: str) -> Exception:
    return RefusedRequest(str(error))


def _bad_url(error: errors.HyperpoolError, pool: Any, conn: Any, url: str) -> Exception:
    return exceptions.LocationParseError(f"{url}, {error}")


def _unresolved(error: errors.HyperpoolError, pool: Any, conn: Any, url: str) -> Exception:
    cause = error.__cause__
    reason = cause if isinstance(cause, socket.gaierror) else socket.gaierror(socket.EAI_NONAME, str(error))
    return exceptions.NameResolutionError(conn.host, conn, reason)


def _unconnected(error: errors.HyperpoolError, pool: Any, conn: Any, url: str) -> Exception:
    return exceptions.NewConnectionError(conn, f"Failed to establish a new connection: {error}")


def _connect_timeout(error: errors.HyperpoolError, pool: Any, conn: Any, url: str) -> Exception:
    return exceptions.ConnectTimeoutError(conn, f"{error} (connect timeout={conn.timeout})")


def _read_timeout(error: errors.HyperpoolError, pool: Any, conn: Any, url: str) -> Exception:
    return exceptions.ReadTimeoutError(pool, url, f"Read timed out. ({error})")


def _total_timeout(error: errors.HyperpoolError, pool: Any, conn: Any, url: str) -> Exception:
    # Which half of urllib3's total it was, decides whether Retry may send the request again.
    was_sent = {"write", "read"} & set(getattr(error, "spent_s", ()))
    return (_read_timeout if was_sent else _connect_timeout)(error, pool, conn, url)


def _tls(error: errors.HyperpoolError, pool: Any, conn: Any, url: str) -> Exception:
    return exceptions.SSLError(error)


def _proxy(error: errors.HyperpoolError, pool: Any, conn: Any, url: str) -> Exception:
    return exceptions.ProxyError(f"Unable to connect to proxy: {error}", error)


def _closed(error: errors.HyperpoolError, pool: Any, conn: Any, url: str) -> Exception:
    return exceptions.ClosedPoolError(pool, f"Pool is closed. ({error})")


def _full(error: errors.HyperpoolError, pool: Any, conn: Any, url: str) -> Exception:
    return exceptions.EmptyPoolError(pool, str(error))


def _aborted(error: errors.HyperpoolError, pool: Any, conn: Any, url: str) -> Exception:
    return exceptions.ProtocolError(f"Connection aborted. ({error})", error)


_Maker = Callable[[errors.HyperpoolError, Any, Any, str], Exception]

_MAKERS: dict[type[BaseException], _Maker] = {
    errors.LocalProtocolError: _refused,
    errors.InvalidURL: _bad_url,
    errors.NameResolutionError: _unresolved,
    errors.TlsError: _tls,
    errors.ProxyError: _proxy,
    errors.ConnectError: _unconnected,
    errors.ConnectTimeout: _connect_timeout,
    # Nothing was sent for want of a stream: to urllib3's users that is a connection that was not to be had in time.
    errors.PoolTimeout: _connect_timeout,
    errors.ReadTimeout: _read_timeout,
    errors.TotalTimeout: _total_timeout,
    errors.PoolClosed: _closed,
    errors.PoolFull: _full,
    errors.HyperpoolError: _aborted,
}


# -- while its body is read --------------------------------------------------------------------------------------------


def of_body(error: errors.HyperpoolError, *, pool: Any, read_bytes: int, left_bytes: int | None) -> Exception:
    """What urllib3 would have raised for a body that ends too early."""
    if isinstance(error, errors.Timeout):
        return exceptions.ReadTimeoutError(pool, None, f"Read timed out. ({error})")
    if isinstance(error, errors.TlsError):
        return exceptions.SSLError(error)
    if not left_bytes:
        return exceptions.ProtocolError(f"Connection broken: {error}", error)
    cut = exceptions.IncompleteRead(read_bytes, left_bytes)
    return exceptions.ProtocolError(f"Connection broken: {cut!r} ({error})", cut)
