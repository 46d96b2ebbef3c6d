"""The managers of the urllib3 face: direct, by an HTTP proxy, by a SOCKS proxy."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import urllib3

from hyperpool.contrib.urllib3.pools import POOL_CLASSES, PoolOverHyperpool
from hyperpool.contrib.urllib3.shared import SharedPool
from hyperpool.pool import ConnectionPool
from hyperpool.proxies import parse_proxy
from hyperpool.values import Limits, Proxy


class PoolManager(urllib3.PoolManager):
    """``urllib3.PoolManager`` whose requests share one hyperpool ConnectionPool.

    Shared by threads. ``pool``: a ConnectionPool to use, which stays open after `clear`; else one of its own is made,
    with ``limits``, ``http1`` and ``http2`` as in `hyperpool.Client`. ``window_manager``: see `hyperpool.values.Route`.
    """

    _detour: Proxy | None = None

    def __init__(
        self,
        num_pools: int = 10,
        headers: Mapping[str, str] | None = None,
        *,
        pool: ConnectionPool | None = None,
        limits: Limits | None = None,
        http1: bool = True,
        http2: bool = True,
        window_manager: type | None = None,
        **options: Any,
    ) -> None:
        super().__init__(num_pools, headers, **options)
        self.pool_classes_by_scheme = POOL_CLASSES
        self._shared = SharedPool(
            pool=pool, limits=limits, http1=http1, http2=http2, window_manager=window_manager, detour=self._detour
        )

    @property
    def hyperpool(self) -> ConnectionPool:
        """The ConnectionPool that carries the requests."""
        return self._shared.pool

    def _new_pool(self, scheme: str, host: str, port: int, request_context: dict[str, Any] | None = None) -> Any:
        made = super()._new_pool(scheme, host, port, request_context)
        if isinstance(made, PoolOverHyperpool):
            made.share(self._shared)
        return made

    def clear(self) -> None:
        """Forget the pools and close the connections; responses that are being read are not disturbed.

        A later request begins anew.
        """
        super().clear()
        self._shared.close()


# Of `PoolManager`; urllib3 would hand them on to its pools.
_OWN_OPTIONS = ("pool", "limits", "http1", "http2", "window_manager")


class ProxyManager(PoolManager, urllib3.ProxyManager):
    """``urllib3.ProxyManager`` over hyperpool: one tunnel to each https origin, shared by all threads.

    Shared by threads.
    """

    def __init__(self, proxy_url: Any, num_pools: int = 10, headers: Any = None, **options: Any) -> None:
        own = {name: options.pop(name) for name in _OWN_OPTIONS if name in options}
        urllib3.ProxyManager.__init__(self, proxy_url, num_pools, headers, **options)
        self.pool_classes_by_scheme = POOL_CLASSES
        self._shared = SharedPool(**own)


class SOCKSProxyManager(PoolManager):
    """``urllib3.contrib.socks.SOCKSProxyManager`` over hyperpool: ``socks5://`` and ``socks5h://``.

    Shared by threads. Raises InvalidURL (a ValueError) for other schemes: SOCKS4 is not spoken.
    """

    def __init__(
        self,
        proxy_url: str,
        username: str | None = None,
        password: str | None = None,
        num_pools: int = 10,
        headers: Mapping[str, str] | None = None,
        **options: Any,
    ) -> None:
        self._detour = _socks_proxy(proxy_url, username, password)
        super().__init__(num_pools, headers, **options)


def _socks_proxy(url: str, username: str | None, password: str | None) -> Proxy:
    proxy = parse_proxy(url)
    if not proxy.scheme.startswith("socks"):
        raise ValueError(f"{proxy}: give a socks5:// or socks5h:// URL")
    if username is None:
        return proxy
    return dataclasses.replace(proxy, userinfo=f"{quote(username, safe='')}:{quote(password or '', safe='')}")


def proxy_from_url(url: str, **options: Any) -> ProxyManager:
    """A ProxyManager for the proxy with this URL."""
    return ProxyManager(url, **options)
