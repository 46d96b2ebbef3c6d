"""The ConnectionPool below the pools of one manager: made on first use, let go with `close`, made anew after it."""

from __future__ import annotations

from typing import Any

from hyperpool.contrib.urllib3.trust import tls_settings
from hyperpool.errors import PoolClosed
from hyperpool.handoff.futures import SoleWaiter
from hyperpool.handoff.response import Response
from hyperpool.pool import ConnectionPool
from hyperpool.urls import Origin
from hyperpool.values import Proxy, Request, TlsSettings

_Options = tuple[tuple[str, Any], ...]


class SharedPool:
    """A ConnectionPool that may be closed and used again, as urllib3's managers may.

    Shared; single dictionary operations only, so it needs no lock. ``pool``: a given one, not closed here.
    ``detour``: a proxy for every request. ``options``: of the ConnectionPool that is made otherwise.
    """

    def __init__(
        self,
        *,
        pool: ConnectionPool | None = None,
        window_manager: type | None = None,
        detour: Proxy | None = None,
        **options: Any,
    ) -> None:
        self._given = pool
        self._window_manager = window_manager
        self._options = options
        self._made: dict[str, ConnectionPool] = {}
        self._tls: dict[_Options, TlsSettings] = {}
        self.detour = detour

    @property
    def pool(self) -> ConnectionPool:
        """The ConnectionPool. Making one opens nothing."""
        if self._given is not None:
            return self._given
        made = self._made.get("pool")
        # Of two threads that make one, both get the first, and the other was never used.
        return self._made.setdefault("pool", ConnectionPool(**self._options)) if made is None else made

    def fetch(self, request: Request, origin: Origin, **way: Any) -> Response:
        """The response at its head; it may be forgotten, as is the habit with urllib3. Blocks.

        ``way``: fields of `hyperpool.values.Route`.
        """
        return self._submit(request, origin, way).result()

    def _submit(self, request: Request, origin: Origin, way: dict[str, Any]) -> SoleWaiter[Response]:
        pool = self.pool
        try:
            return self._submit_to(pool, request, origin, way)
        except PoolClosed:
            if self.pool is pool:
                raise
        # `close` came between, and nothing was sent: had it been, the waiter would have the error.
        return self._submit_to(self.pool, request, origin, way)

    def _submit_to(
        self, pool: ConnectionPool, request: Request, origin: Origin, way: dict[str, Any]
    ) -> SoleWaiter[Response]:
        route = pool.route(origin, window_manager=self._window_manager, **way)
        return pool.submit_alone(request, stream=True, made_at=None, route=route)

    def tls(self, options: _Options) -> TlsSettings:
        """The settings for urllib3's options: the same for the same, since connections are shared by their equality."""
        try:
            return self._tls[options]
        except KeyError:
            return self._tls.setdefault(options, tls_settings(options))

    def close(self) -> None:
        """Close the connections and join their threads; where responses are being read, with the last of them.

        A ConnectionPool that was given is left alone.
        """
        made = self._made.pop("pool", None)
        if made is None:
            return
        stats = made.stats()
        if not (stats.open_streams or stats.queued):
            made.close()
        # Else each response under way keeps the ConnectionPool alive, whose finalizer closes it.
