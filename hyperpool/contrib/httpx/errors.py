"""What httpx's users expect to catch, made of what hyperpool raises; the hyperpool error stays as ``__cause__``."""

from __future__ import annotations

import httpx

from hyperpool import errors

_KINDS: dict[type[BaseException], type[httpx.RequestError]] = {
    errors.PoolTimeout: httpx.PoolTimeout,
    # More wait for a slot than may wait: httpx, too, gives up without sending anything.
    errors.PoolFull: httpx.PoolTimeout,
    errors.ConnectTimeout: httpx.ConnectTimeout,
    errors.WriteTimeout: httpx.WriteTimeout,
    errors.Timeout: httpx.ReadTimeout,
    errors.ProxyError: httpx.ProxyError,
    errors.ConnectError: httpx.ConnectError,
    errors.StreamReset: httpx.RemoteProtocolError,
    errors.RemoteProtocolError: httpx.RemoteProtocolError,
    errors.LocalProtocolError: httpx.LocalProtocolError,
    errors.InvalidURL: httpx.LocalProtocolError,
    errors.DecodeError: httpx.DecodingError,
    errors.ResponseClosed: httpx.ReadError,
}


def as_httpx_raises(error: errors.HyperpoolError, request: httpx.Request | None) -> httpx.RequestError:
    """The error of httpx for one of hyperpool: nothing else leaves a transport."""
    return _kind(error)(str(error), request=request)


def _kind(error: errors.HyperpoolError) -> type[httpx.RequestError]:
    if isinstance(error, errors.ConnectionLost):
        # httpx tells a socket that failed from a server that closed it too early.
        return httpx.ReadError if isinstance(error.__cause__, OSError) else httpx.RemoteProtocolError
    for kind in type(error).__mro__:
        if kind in _KINDS:
            return _KINDS[kind]
    # A closed pool, or a process without descriptors: either no connection is to be had, or one is gone.
    return httpx.ConnectError if error.processed == "no" else httpx.ReadError


def may_try_again(error: BaseException) -> bool:
    """Whether ``retries`` of a transport is for this: nothing was sent, and the next attempt may fare better."""
    kinds = (errors.ConnectTimeout, errors.ConnectError)
    return isinstance(error, kinds) and not isinstance(error, (errors.CertificateError, errors.ProxyError))
