"""requests over hyperpool: `HTTP20Adapter`, a transport adapter for `requests.Session.mount`.

It is requests' own HTTPAdapter over the urllib3 face (`hyperpool.contrib.urllib3`): what a session does with verify,
cert, proxies, cookies, hooks and exceptions is requests' code. Only timeouts are made builtin TimeoutErrors as well.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import requests
from requests import exceptions
from requests.adapters import DEFAULT_POOLBLOCK, DEFAULT_POOLSIZE, DEFAULT_RETRIES, HTTPAdapter
from requests.utils import get_auth_from_url
from urllib3.exceptions import EmptyPoolError, LocationValueError, MaxRetryError, ReadTimeoutError

from hyperpool.contrib.urllib3 import PoolManager, ProxyManager, SOCKSProxyManager
from hyperpool.contrib.urllib3.errors import root_of
from hyperpool.pool import ConnectionPool
from hyperpool.values import Limits

__all__ = ["ConnectTimeout", "HTTP20Adapter", "ReadTimeout", "Response"]


class ConnectTimeout(exceptions.ConnectTimeout, TimeoutError):
    """requests' connect timeout, which is also a builtin TimeoutError."""


class ReadTimeout(exceptions.ReadTimeout, TimeoutError):
    """requests' read timeout, which is also a builtin TimeoutError."""


class LateReadTimeout(exceptions.ConnectionError, exceptions.ReadTimeout, TimeoutError):
    """A read timeout where requests by itself has a ConnectionError: in mid-body, or after retries."""


class HTTP20Adapter(HTTPAdapter):
    """A requests transport adapter whose sessions share one HTTP/2 connection per origin between all threads.

    Shared by threads. ``window_manager``: a flow-control class, as in hyper. ``pool``: a ConnectionPool to use, which
    stays open after ``close``; else one of its own is made, with ``limits``, ``http1`` and ``http2`` as in
    `hyperpool.Client`. Everything else is as in ``requests.adapters.HTTPAdapter``.
    """

    __attrs__ = [*HTTPAdapter.__attrs__, "window_manager", "_options"]  # noqa: RUF012 - read-only, and requests says list

    def __init__(
        self,
        window_manager: type | None = None,
        pool_connections: int = DEFAULT_POOLSIZE,
        pool_maxsize: int = DEFAULT_POOLSIZE,
        max_retries: Any = DEFAULT_RETRIES,
        pool_block: bool = DEFAULT_POOLBLOCK,
        *,
        pool: ConnectionPool | None = None,
        limits: Limits | None = None,
        http1: bool = True,
        http2: bool = True,
    ) -> None:
        self.window_manager = window_manager
        self._pool = pool
        self._options = {"limits": limits, "http1": http1, "http2": http2}
        super().__init__(pool_connections, pool_maxsize, max_retries, pool_block)

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._pool = None  # one that was shared belongs to the process where it was made
        # The base's makes the manager, for which these two must be there already.
        self.window_manager, self._options = state["window_manager"], state["_options"]
        super().__setstate__(state)

    @property
    def hyperpool(self) -> ConnectionPool:
        """The ConnectionPool that carries the requests which no proxy does."""
        pool: ConnectionPool = self.poolmanager.hyperpool  # type: ignore[attr-defined]
        return pool

    def _own_options(self) -> dict[str, Any]:
        return {**self._options, "pool": self._pool, "window_manager": self.window_manager}

    def init_poolmanager(
        self, connections: int, maxsize: int, block: bool = DEFAULT_POOLBLOCK, **pool_kwargs: Any
    ) -> None:
        """Make the manager; overridden in subclasses to add TLS options, as with HTTPAdapter."""
        # Kept for pickling.
        self._pool_connections, self._pool_maxsize, self._pool_block = connections, maxsize, block
        self.poolmanager = PoolManager(
            num_pools=connections, maxsize=maxsize, block=block, **self._own_options(), **pool_kwargs
        )

    def proxy_manager_for(self, proxy: str, **proxy_kwargs: Any) -> Any:
        """The manager for a proxy, made on first use."""
        if proxy not in self.proxy_manager:
            # Of two threads that make one, both get the first, and the other was never used.
            self.proxy_manager.setdefault(proxy, self._make_proxy_manager(proxy, proxy_kwargs))
        return self.proxy_manager[proxy]

    def _make_proxy_manager(self, proxy: str, proxy_kwargs: dict[str, Any]) -> Any:
        options = {
            "num_pools": self._pool_connections,
            "maxsize": self._pool_maxsize,
            "block": self._pool_block,
            **self._own_options(),
            **proxy_kwargs,
        }
        if not proxy.lower().startswith("socks"):
            return ProxyManager(proxy, proxy_headers=self.proxy_headers(proxy), **options)
        username, password = get_auth_from_url(proxy)
        try:
            return SOCKSProxyManager(proxy, username=username or None, password=password or None, **options)
        except ValueError as error:
            raise exceptions.InvalidProxyURL(str(error)) from error

    def send(self, request: Any, *args: Any, **options: Any) -> Any:
        """As HTTPAdapter's; its timeouts are also builtin TimeoutErrors. Blocks."""
        try:
            return super().send(request, *args, **options)
        except exceptions.RequestException as error:
            raise _improved(error, ReadTimeout) from root_of(error) or error.__cause__
        except LocationValueError as error:
            # urllib3 finds these before it sends, and requests looks for them there only.
            raise exceptions.InvalidURL(error, request=request) from root_of(error) or error
        except EmptyPoolError as error:
            # requests never waits for a place with a limit; hyperpool's queue has one.
            raise exceptions.ConnectionError(error, request=request) from root_of(error) or error

    def build_response(self, req: Any, resp: Any) -> Any:
        """A requests.Response whose timeouts in mid-body are also builtin TimeoutErrors."""
        response = super().build_response(req, resp)
        response.__class__ = Response
        return response


class Response(requests.Response):
    """requests' Response, whose timeouts while the body is read are timeouts by their class too.

    Its body has one reader at a time.
    """

    def iter_content(self, chunk_size: int | None = 1, decode_unicode: Any = False) -> Any:
        return _iterate(super().iter_content(chunk_size, decode_unicode))


def _iterate(pieces: Iterator[Any]) -> Iterator[Any]:
    try:
        yield from pieces
    except exceptions.RequestException as error:
        raise _improved(error, LateReadTimeout) from root_of(error) or error.__cause__


def _improved(
    error: exceptions.RequestException, read_timeout: type[exceptions.RequestException]
) -> exceptions.RequestException:
    """The same error, as a TimeoutError too where it is a timeout: ``read_timeout`` for one that was not retried."""
    kind = _kind(error, read_timeout)
    return error if kind is None else kind(*error.args, request=error.request, response=error.response)


def _kind(
    error: exceptions.RequestException, read_timeout: type[exceptions.RequestException]
) -> type[exceptions.RequestException] | None:
    if type(error) is exceptions.ConnectTimeout:
        return ConnectTimeout
    given = error.args[0] if error.args else None
    if isinstance(given, MaxRetryError) and isinstance(given.reason, ReadTimeoutError):
        return LateReadTimeout
    # The pool's own class is an OSError, and therefore a ConnectionError to requests.
    return read_timeout if isinstance(given, ReadTimeoutError) else None
