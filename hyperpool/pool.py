"""ConnectionPool: what lies under a client.

It makes an exchange of a request, knows the way to its origin, and gives both to the loop that serves it (`Loops`).
"""

from __future__ import annotations

import os
import time
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, NamedTuple

from hyperpool import arguments
from hyperpool.errors import InvalidURL
from hyperpool.handoff.deadlines import NEVER
from hyperpool.handoff.exchange import Exchange, Review
from hyperpool.handoff.futures import LoopFuture, ResponseFuture, SoleWaiter
from hyperpool.handoff.hooks import Informational, as_hooks
from hyperpool.handoff.messages import Connect, Ping, Prewarm, Submit
from hyperpool.handoff.source import Source, make_source
from hyperpool.loops import Loops, Workshop
from hyperpool.process import FOR_ALL, load, pools
from hyperpool.protocol.fields import forwarded, prepare_head, tunnelled
from hyperpool.proxies import ProxyLike, ProxyMap, forwards
from hyperpool.urls import Origin, Url, is_socket_path, parse_url
from hyperpool.values import Limits, Proxy, Request, RequestHead, Route, TlsSettings, as_source_address

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from hyperpool.engine.stats import OriginStats
    from hyperpool.handoff.response import Response
    from hyperpool.protocol.events import Head


class PoolStats(NamedTuple):
    """What a pool is doing. Immutable. ``origins`` maps "https://host" to its own figures.

    ``dialing``: connections that are being opened just now.
    """

    origins: dict[str, OriginStats]
    threads: int
    connections: int
    open_streams: int
    queued: int
    dialing: int


class ConnectionPool:
    """Connections to any number of origins, for any number of threads.

    Shared; its `Loops` guard themselves. One I/O thread per origin, named ``hyperpool <origin>``, made on first use; it
    ends by itself when the origin has been idle for ``Limits.idle_s``. ``verify``, ``cert``, ``http1``, ``http2``,
    ``proxy``, ``trust_env``, ``uds``, ``source_address`` and ``resolver`` are as in `Client`, and of ``events`` what is
    about connections. Making a pool opens nothing; the environment's proxies are read once, by the first request.
    """

    def __init__(
        self,
        *,
        limits: Limits | None = None,
        verify: Any = True,
        cert: Any = None,
        http1: bool = True,
        http2: bool = True,
        proxy: ProxyLike = None,
        trust_env: bool = True,
        uds: str | os.PathLike[str] | None = None,
        source_address: str | tuple[str, int] | None = None,
        resolver: Callable[[str, int], Iterable[Any]] | None = None,
        events: Any = None,
    ) -> None:
        self._versions = (arguments.flag("http1", http1), arguments.flag("http2", http2))
        if not any(self._versions):
            raise ValueError("http1=False and http2=False leave nothing to speak")
        path = None if uds is None else _as_uds(uds, excluded=(proxy, source_address, resolver))
        self.limits = Limits() if limits is None else arguments.instance("limits", limits, Limits)
        self._tls = TlsSettings(verify, cert, trust_env)
        self._proxies = ProxyMap(proxy, trust_env=trust_env)
        self._uds = path
        self._source_address = as_source_address(source_address)
        self._judges_addresses = resolver is not None
        self._hooks = as_hooks(events)
        ask = arguments.callback("resolver", resolver)
        self._use(Loops(Workshop(self.limits, self._tls, ask, self._hooks), self.limits.max_origins))
        pools.add(self)

    def _use(self, loops: Loops) -> None:
        self._loops = loops
        # The pool's own ways, made once; threads that race there make equal ones.
        self._own_routes: dict[str, Route] = {}
        self._finalizer = loops.finalize_with(self)

    # -- requests --------------------------------------------------------------------------------------------------

    def submit(
        self,
        request: Request,
        *,
        stream: bool = False,
        made_at: str | None = "",
        route: Route | None = None,
        source: Source | None = None,
        review: Review | None = None,
        informational: Informational | None = None,
        passes_by: Callable[[Head], bool] | None = None,
    ) -> ResponseFuture:
        """Begin a request; its Future. Never blocks on the network.

        The Future resolves with the whole response, or at its head where ``stream`` is true. ``route`` says how to
        reach the origin where that differs from the pool's own way (see `route`). ``source`` is the request's body
        where it was opened before (`make_source`). ``review`` is asked by the I/O thread with (future, outcome) before
        the Future resolves; True from it means that it will resolve the Future itself. It must not block.
        ``informational`` is called with (status, headers) of each 1xx response, likewise. ``passes_by`` is asked with
        the head of the response whether nobody will read its body, likewise: a long one is then not waited for.

        Raises PoolClosed, PoolFull (too many origins), InvalidURL, and LocalProtocolError for what HTTP does not allow:
        nothing was sent then. Every other fault is the Future's.
        """
        exchange = self._make_exchange(request, route, source, stream=stream, made_at=made_at, alone=False)
        exchange.review = review
        exchange.informational = informational
        exchange.passes_by = passes_by
        future: ResponseFuture = self._submit(exchange)
        return future

    def fetch(self, request: Request, **how: Any) -> Response:
        """`submit`, and wait for the response: cheaper than a Future's result. Blocks; Ctrl-C cancels the request."""
        return self.submit_alone(request, **how).result()

    def submit_alone(
        self,
        request: Request,
        *,
        stream: bool = False,
        made_at: str | None = "",
        route: Route | None = None,
        source: Source | None = None,
        informational: Informational | None = None,
        passes_by: Callable[[Head], bool] | None = None,
    ) -> SoleWaiter[Response]:
        """`submit`, for a thread that waits alone and at once. Never blocks on the network.

        `fetch` is this and the wait for its result. Apart, they tell a PoolClosed before anything was sent, which is
        raised here, from one that ends what is under way.
        """
        exchange = self._make_exchange(request, route, source, stream=stream, made_at=made_at, alone=True)
        exchange.informational = informational
        exchange.passes_by = passes_by
        waiter: SoleWaiter[Response] = self._submit(exchange)
        return waiter

    def _make_exchange(
        self,
        request: Request,
        route: Route | None,
        source: Source | None,
        *,
        stream: bool,
        made_at: str | None,
        alone: bool,
    ) -> Exchange:
        load("requests", FOR_ALL)
        url = parse_url(request.url)
        if request.target is not None:
            url = url._replace(target=request.target)
        if route is None:
            route = self._own_route(url)
        if source is None and request.content is not None:
            source = make_source(request.content)
        body_bytes = 0 if source is None else source.length_bytes
        head = prepare_head(method=request.method, url=url, headers=request.headers, body_bytes=body_bytes)
        if route.proxy is not None:
            head = _for_proxy(head, route, route.proxy)
        exchange = Exchange(
            request,
            head,
            source=source,
            streamed=stream,
            submitted_at=time.monotonic(),
            origin=url.place,
            limits=self.limits,
            made_at=made_at,
            keeps_alive=self,
            alone=alone,
        )
        exchange.route = route
        if route.push:
            from hyperpool.handoff.pushes import Pushes

            exchange.pushes = Pushes()
        return exchange

    def _submit(self, exchange: Exchange) -> Any:
        future = exchange.future
        assert future is not None and exchange.route is not None
        future.pushes = exchange.pushes
        self._loops.put(exchange.route, Submit(exchange), exchange)
        return future

    def route(self, origin: Origin, **differs: Any) -> Route:
        """The pool's own way to an origin, but for what ``differs``: any field of `Route`.

        Raises InvalidURL where the environment names a proxy that is none.
        """
        given = {"tls": self._tls, "http1": self._versions[0], "http2": self._versions[1], **differs}
        uds = given.setdefault("uds", self._uds) if origin.uds is None else origin.uds
        if uds is not None:
            return Route(origin, **{**given, "proxy": None, "uds": self._allowed(uds, origin)})
        if "proxy" not in given:
            given["proxy"] = self._proxies.choose(origin)
        given.setdefault("source_address", self._source_address)
        return Route(origin, **given)

    def _own_route(self, url: Url) -> Route:
        route = self._own_routes.get(url.place)
        if route is None:
            if len(self._own_routes) >= self.limits.max_origins:
                self._own_routes.clear()
            route = self._own_routes[url.place] = self.route(url.origin)
        return route

    def _allowed(self, uds: str, origin: Origin) -> str:
        """Whoever judges addresses must not be gone around by a URL."""
        if self._judges_addresses:
            raise InvalidURL(f"{origin}: a Unix socket has no address, and this pool's resolver is to see each one")
        return uds

    def connect(self, route: Route, *, timeout_s: float | None = 10.0) -> Future[str]:
        """Open a connection, unless there is one; a Future of what it speaks: "HTTP/2" or "HTTP/1.1". Does not block.

        The Future has the error where there can be none. Raises PoolClosed and PoolFull.
        """
        connected: Future[str] = LoopFuture()
        deadline_at = NEVER if timeout_s is None else time.monotonic() + timeout_s
        self._loops.put(route, Connect(connected, deadline_at, timeout_s))
        return connected

    def ping(self, route: Route, payload: bytes) -> None:
        """Send PING with these 8 bytes on the HTTP/2 connections of a route (RFC 9113 6.7). Does not block."""
        if len(payload) != 8:
            raise ValueError(f"a PING carries 8 bytes, not {len(payload)} (RFC 9113 6.7)")
        self._loops.put(route, Ping(payload))

    def prewarm(self, origin: str | Origin, connections: int = 1) -> None:
        """Open connections to an origin ("https://host:port", or an `Origin`) before they are needed. Does not block.

        A failure shows in nothing but `stats`: the first request will meet it again and say so. Raises ValueError for
        less than one connection, InvalidURL, PoolClosed and PoolFull.
        """
        arguments.whole("connections", connections, least=1)
        place = origin if isinstance(origin, Origin) else parse_url(arguments.text("origin", origin)).origin
        self._loops.put(self.route(place), Prewarm(connections))

    def retire(self, route: Route) -> None:
        """Let the connections of a route finish and close: nobody expects to need them. Does not block.

        A later request to the same route opens new ones.
        """
        self._loops.retire(route)

    # -- looking at it, and its end --------------------------------------------------------------------------------

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._loops.closed

    def stats(self) -> PoolStats:
        """A snapshot of what is going on: each loop's own is consistent. Cheap, from any thread, never blocks."""
        each = [loop.stats for loop in self._loops.alive()]
        return PoolStats(
            origins={one.origin: one for one in each},
            threads=len(each),
            connections=sum(one.connections for one in each),
            open_streams=sum(one.open_streams for one in each),
            queued=sum(one.queued for one in each),
            dialing=sum(one.dialing for one in each),
        )

    def close(self, *, grace_s: float = 1.0, code: int = 0) -> None:
        """Take no new requests, give those under way ``grace_s`` seconds, then end them with PoolClosed.

        ``code`` is the error code of the GOAWAY with which HTTP/2 connections end (RFC 9113 7).
        Returns when no thread and no socket of the pool is left; called by a done-callback, which runs on an I/O
        thread, it returns at once and the rest follows. May be called again, from any thread.
        """
        if arguments.whole("code", code, least=0) >= 1 << 32:
            raise ValueError(f"an error code has 32 bits, {code} has not (RFC 9113 7)")
        self._loops.close(grace_s=arguments.seconds("grace_s", grace_s), code=code)

    def __enter__(self) -> ConnectionPool:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __repr__(self) -> str:
        stats = self.stats()
        state = "closed" if self.closed else "open"
        return f"<ConnectionPool {state} origins={len(stats.origins)} connections={stats.connections}>"

    def start_anew_in_child(self) -> None:
        """After a fork: the parent's threads are not here, and its sockets are not ours to write to."""
        self._finalizer.detach()
        self._use(self._loops.successor_in_child())


def _as_uds(given: str | os.PathLike[str], *, excluded: tuple[Any, ...]) -> str:
    path = os.fspath(given) if isinstance(given, os.PathLike) else given
    if not isinstance(path, str) or not is_socket_path(path):
        raise ValueError(f"uds must be the absolute path of a Unix socket, not {given!r}")
    if any(option is not None for option in excluded):
        raise ValueError("a Unix socket is reached without proxy, source_address and resolver: give uds alone")
    return path


def _for_proxy(head: RequestHead, route: Route, proxy: Proxy) -> RequestHead:
    if forwards(route):
        return forwarded(head, proxy, http2=route.force_http2 or not route.http1)
    return tunnelled(head)
