"""The pools of the urllib3 face: its own classes, whose requests go to hyperpool instead of a queue of sockets."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import urllib3
from urllib3.exceptions import ClosedPoolError, HTTPError, InsecureRequestWarning
from urllib3.util import parse_url

from hyperpool.contrib.urllib3 import sending
from hyperpool.contrib.urllib3.errors import also_timeout, of_request
from hyperpool.contrib.urllib3.response import HTTPResponse, Raw
from hyperpool.contrib.urllib3.shared import SharedPool
from hyperpool.contrib.urllib3.trust import is_verified, tls_options
from hyperpool.errors import HyperpoolError
from hyperpool.pool import ConnectionPool
from hyperpool.urls import DEFAULT_PORTS, Origin
from hyperpool.urls import parse_url as parse_request_url
from hyperpool.values import Proxy, Request, TlsSettings

_NO_TIMEOUT = urllib3.Timeout.DEFAULT_TIMEOUT


class Place:
    """What urllib3 takes for a connection: the right to have one request under way.

    Owned by the thread whose request it is.
    """

    is_closed = False
    is_connected = True
    # Errors come from hyperpool with the right class: urllib3 need not guess whether a proxy is to blame.
    has_connected_to_proxy = True

    def __init__(self, pool: Any) -> None:
        self.host = pool.host
        self.port = pool.port
        self.proxy = pool.proxy
        self.timeout: Any = None

    def close(self) -> None:
        """Nothing: what was under way is ended by closing its response."""

    def __repr__(self) -> str:
        return f"<hyperpool to {self.host}:{self.port}>"


class PoolOverHyperpool(urllib3.HTTPConnectionPool):
    """What HTTP and HTTPS pools do in hyperpool's way.

    Shared by threads, as urllib3's pools are.
    """

    _shared: SharedPool | None = None

    def share(self, shared: SharedPool) -> None:
        """Use this ConnectionPool, which is not closed with the pool. Before the first request."""
        self._shared, self._owns_shared = shared, False

    _owns_shared = True

    @property
    def hyperpool(self) -> ConnectionPool:
        """The ConnectionPool that carries the requests."""
        return self._find_shared().pool

    def _find_shared(self) -> SharedPool:
        if self._shared is None:
            # setdefault: of two threads that come here at once, both get the same one.
            self.__dict__.setdefault("_shared", SharedPool())
        assert self._shared is not None
        return self._shared

    # -- what urllib3 takes for connections ------------------------------------------------------------------------

    def _new_conn(self) -> Any:
        return Place(self)

    def _get_conn(self, timeout: float | None = None) -> Any:
        if self.pool is None:
            raise ClosedPoolError(self, "Pool is closed.")
        # With ``block`` the queue's places bound what is under way; else nothing does but hyperpool's Limits.
        return super()._get_conn(timeout) if self.block else Place(self)

    def _put_conn(self, conn: Any) -> None:
        if self.block:
            super()._put_conn(conn)

    def close(self) -> None:
        """Take no more requests. Responses that are being read are not disturbed."""
        super().close()
        if self._shared is not None and self._owns_shared:
            self._shared.close()

    # -- requests --------------------------------------------------------------------------------------------------

    def urlopen(self, *args: Any, **options: Any) -> Any:
        """As urllib3's; its timeouts are also builtin TimeoutErrors."""
        try:
            return super().urlopen(*args, **options)
        except HTTPError as error:
            both = also_timeout(error)
            if both is error:
                raise
            raise both from both.__cause__

    def _make_request(  # type: ignore[override]
        self,
        conn: Place,
        method: str,
        url: str,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        retries: Any = None,
        timeout: Any = _NO_TIMEOUT,
        chunked: bool = False,
        response_conn: Place | None = None,
        preload_content: bool = True,
        decode_content: bool = True,
        enforce_content_length: bool = True,
    ) -> HTTPResponse:
        self.num_requests += 1
        limit = self._get_timeout(timeout)
        conn.timeout = limit.connect_timeout
        try:
            response = self._answer(method, url, body=body, headers=headers, timeout=limit, chunked=chunked)
        except HyperpoolError as error:
            raise of_request(error, pool=self, conn=conn, url=url) from error
        return HTTPResponse(
            Raw(response, method),
            version_string=response.http_version,
            preload_content=preload_content,
            decode_content=decode_content,
            enforce_content_length=enforce_content_length,
            pool=self,
            connection=response_conn,
            request_method=method,
            request_url=url,
            retries=retries,
        )

    def _answer(self, method: str, url: str, *, body: Any, headers: Any, timeout: Any, chunked: bool) -> Any:
        """The streamed response. Blocks. Raises hyperpool's errors."""
        chunked = body is not None and (chunked or _declares_chunked(headers))
        origin, target, proxy = self._destination(url or "/")
        request = Request(
            method,
            url if target is None else f"{origin}{'/' if target == '*' else target}",
            sending.fields(headers, chunked=chunked),
            sending.content(body, chunked=chunked),
            sending.as_timeout(timeout),
            target,
        )
        way = {"tls": self._tls(), "proxy": proxy, **sending.socket_way(self.conn_kw)}
        return self._find_shared().fetch(request, origin, **way)

    def _destination(self, url: str) -> tuple[Origin, str | None, Proxy | None]:
        """Where a request goes: origin, target where it stands as it is, and the proxy between."""
        own = Origin(str(self.scheme), self.host.lower(), self.port or DEFAULT_PORTS[str(self.scheme)])
        if url.startswith("/") or url == "*":
            return own, url, self._proxy_for(own)
        origin = parse_request_url(url).origin
        if self.proxy is None and origin != own:
            # "Use the pool on an HTTP proxy", as the documentation of assert_same_host=False has it.
            return origin, None, Proxy(own.scheme, own.host, own.port)
        return origin, None, self._proxy_for(origin)

    def _proxy_for(self, origin: Origin) -> Proxy | None:
        if self.proxy is None:
            return self._find_shared().detour
        config = self.proxy_config
        if config is not None and any((config.ssl_context, config.assert_hostname, config.assert_fingerprint)):
            raise ValueError("TLS options for the proxy alone are not possible: it is held to those of the pool")
        if config is not None and config.use_forwarding_for_https and origin.scheme == "https":
            raise ValueError("use_forwarding_for_https is not possible: https goes through a tunnel")
        return sending.as_proxy(self.proxy, self.proxy_headers, forwards=origin.scheme == "http")

    def _tls(self) -> TlsSettings:
        return TlsSettings()


def _declares_chunked(headers: Any) -> bool:
    return any(str(name).lower() == "transfer-encoding" for name in headers or ())


class HTTPConnectionPool(PoolOverHyperpool):
    """``urllib3.HTTPConnectionPool`` over hyperpool.

    Shared by threads. One made by itself has a ConnectionPool of its own, which ends with `close`.
    """


class HTTPSConnectionPool(PoolOverHyperpool, urllib3.HTTPSConnectionPool):
    """``urllib3.HTTPSConnectionPool`` over hyperpool: HTTP/2 where the server speaks it.

    Shared by threads. One made by itself has a ConnectionPool of its own, which ends with `close`.
    """

    def _tls(self) -> TlsSettings:
        options = tls_options(self)
        if not is_verified(options):
            warnings.warn(
                f"Unverified HTTPS request is being made to host '{self.host}': whoever answers is not checked",
                InsecureRequestWarning,
                stacklevel=2,
            )
        return self._find_shared().tls(options)


POOL_CLASSES: dict[str, type[urllib3.HTTPConnectionPool]] = {"http": HTTPConnectionPool, "https": HTTPSConnectionPool}


def connection_from_url(url: str, **options: Any) -> urllib3.HTTPConnectionPool:
    """A pool for the host of a URL, with a ConnectionPool of its own."""
    parts = parse_url(url)
    scheme = parts.scheme or "http"
    return POOL_CLASSES[scheme](str(parts.host), port=parts.port or DEFAULT_PORTS[scheme], **options)
