"""ConnectionPool: which loop serves which origin.

The pool is a dictionary with a lock around it (dictionary operations only, L4 in spirit: nobody waits for I/O there).
Loops do not know the pool: one that has ended is noticed by its closed inbox, and the request goes to a successor (L2).
"""

from __future__ import annotations

import dataclasses
import threading
import time
import weakref
from collections import OrderedDict
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, NamedTuple

from hyperpool.errors import HyperpoolError, InvalidURL, PoolClosed, PoolFull
from hyperpool.handoff.deadlines import NEVER
from hyperpool.handoff.exchange import Exchange, Review
from hyperpool.handoff.futures import LoopFuture, ResponseFuture, SoleWaiter
from hyperpool.handoff.hooks import Informational, as_hooks
from hyperpool.handoff.inbox import InboxClosed
from hyperpool.handoff.loop_thread import on_loop_thread
from hyperpool.handoff.messages import Close, Connect, Ping, Prewarm, Retire, Submit
from hyperpool.handoff.source import Source, make_source
from hyperpool.process import FOR_ALL, FOR_TLS, load, pools, running, tell
from hyperpool.protocol.fields import forwarded, prepare_head, tunnelled
from hyperpool.proxies import ProxyLike, ProxyMap, forwards
from hyperpool.values import (
    Limits,
    Origin,
    Proxy,
    Request,
    RequestHead,
    Route,
    TlsSettings,
    as_source_address,
    is_socket_path,
    parse_url,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from hyperpool.engine.loop import OriginLoop
    from hyperpool.engine.resolve import Resolver
    from hyperpool.engine.stats import OriginStats
    from hyperpool.engine.trust import TlsConfig
    from hyperpool.handoff.response import Response

# A loop may end between the look-up and the put; a fresh one cannot, so the second try succeeds but for a close.
_TRIES = 8


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

    Shared; guarded by _lock. One I/O thread per origin, named ``hyperpool <origin>``, made on first use; it ends by
    itself when the origin has been idle for ``Limits.idle_s``. ``verify``, ``cert``, ``http1``, ``http2``, ``proxy``,
    ``trust_env``, ``uds``, ``source_address`` and ``resolver`` are as in `Client`, and of ``events`` what is about
    connections. Making a pool opens nothing; the environment's proxies are read once, by the first request.
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
        uds: str | None = None,
        source_address: str | tuple[str, int] | None = None,
        resolver: Callable[[str, int], Iterable[Any]] | None = None,
        events: Any = None,
    ) -> None:
        if not (http1 or http2):
            raise ValueError("http1=False and http2=False leave nothing to speak")
        if uds is not None:
            _check_uds(uds, excluded=(proxy, source_address, resolver))
        self.limits = limits if limits is not None else Limits()
        self._tls = TlsSettings(verify, cert, trust_env)
        self._versions = (http1, http2)
        self._proxies = ProxyMap(proxy, trust_env=trust_env)
        self._uds = uds
        self._source_address = as_source_address(source_address)
        self._ask = resolver
        self._hooks = as_hooks(events)
        self._begin()
        pools.add(self)

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._closed = False
        self._loops: OrderedDict[Route, OriginLoop] = OrderedDict()
        self._threads: dict[threading.Thread, OriginLoop] = {}
        # The pool's own ways, made once; threads that race there make equal ones.
        self._own_routes: dict[Origin, Route] = {}
        # Weak, since loops hold what they use: a program may make a context for each call, and each has a CA bundle.
        self._tls_configs: weakref.WeakValueDictionary[TlsSettings, TlsConfig] = weakref.WeakValueDictionary()
        self._own_tls_config: TlsConfig | None = None
        self._resolver: Resolver | None = None
        # A forgotten pool closes its loops; the finalizer must not hold the pool, so it holds the dictionary.
        self._finalizer = weakref.finalize(self, _close_loops, self._threads)
        self._finalizer.atexit = False

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
    ) -> ResponseFuture:
        """Begin a request; its Future. Never blocks on the network.

        The Future resolves with the whole response, or at its head where ``stream`` is true. ``route`` says how to
        reach the origin where that differs from the pool's own way (see `route`). ``source`` is the request's body
        where it was opened before (`make_source`). ``review`` is asked by the I/O thread with (future, outcome) before
        the Future resolves; True from it means that it will resolve the Future itself. It must not block.
        ``informational`` is called with (status, headers) of each 1xx response, likewise.

        Raises PoolClosed, PoolFull (too many origins), InvalidURL, and LocalProtocolError for what HTTP does not allow:
        nothing was sent then. Every other fault is the Future's.
        """
        exchange = self._make_exchange(request, route, source, stream=stream, made_at=made_at, alone=False)
        exchange.review = review
        exchange.informational = informational
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
    ) -> SoleWaiter[Response]:
        """`submit`, for a thread that waits alone and at once. Never blocks on the network.

        `fetch` is this and the wait for its result. Apart, they tell a PoolClosed before anything was sent, which is
        raised here, from one that ends what is under way.
        """
        exchange = self._make_exchange(request, route, source, stream=stream, made_at=made_at, alone=True)
        exchange.informational = informational
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
            route = self._own_route(url.origin)
        if source is None:
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
            origin=str(url.origin),
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
        self._put(exchange.route, exchange, Submit(exchange))
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

    def _own_route(self, origin: Origin) -> Route:
        route = self._own_routes.get(origin)
        if route is None:
            if len(self._own_routes) >= self.limits.max_origins:
                self._own_routes.clear()
            route = self._own_routes[origin] = self.route(origin)
        return route

    def _allowed(self, uds: str, origin: Origin) -> str:
        """Whoever judges addresses must not be gone around by a URL."""
        if self._ask is not None:
            raise InvalidURL(f"{origin}: a Unix socket has no address, and this pool's resolver is to see each one")
        return uds

    def connect(self, route: Route, *, timeout_s: float | None = 10.0) -> Future[str]:
        """Open a connection, unless there is one; a Future of what it speaks: "HTTP/2" or "HTTP/1.1". Does not block.

        The Future has the error where there can be none. Raises PoolClosed and PoolFull.
        """
        connected: Future[str] = LoopFuture()
        deadline_at = NEVER if timeout_s is None else time.monotonic() + timeout_s
        self._put(route, None, Connect(connected, deadline_at))
        return connected

    def ping(self, route: Route, payload: bytes) -> None:
        """Send PING with these 8 bytes on the HTTP/2 connections of a route (RFC 9113 6.7). Does not block."""
        if len(payload) != 8:
            raise ValueError(f"a PING carries 8 bytes, not {len(payload)} (RFC 9113 6.7)")
        self._put(route, None, Ping(payload))

    def prewarm(self, origin: str, connections: int = 1) -> None:
        """Open connections to an origin ("https://host:port") before they are needed. Does not block.

        A failure shows in nothing but `stats`: the first request will meet it again and say so.
        """
        self._put(self.route(parse_url(origin).origin), None, Prewarm(connections))

    def retire(self, route: Route) -> None:
        """Let the connections of a route finish and close: nobody expects to need them. Does not block.

        A later request to the same route opens new ones.
        """
        with self._lock:
            loop = self._loops.pop(_as_kept(route), None)
        if loop is not None:
            tell(loop, Retire())

    def _put(self, route: Route, exchange: Exchange | None, message: Any) -> None:
        route = _as_kept(route)
        for _ in range(_TRIES):
            loop = self._loop_for(route)
            if exchange is not None:
                exchange.inbox = loop.inbox
            try:
                return loop.inbox.put(message)
            except InboxClosed:
                self._forget(route, loop)
        raise PoolClosed(f"the loop of {route.origin} keeps ending", origin=str(route.origin))

    # -- loops -----------------------------------------------------------------------------------------------------

    def _loop_for(self, route: Route) -> OriginLoop:
        with self._lock:
            self._check_open_locked(route)
            loop = self._loops.get(route)
            if loop is not None:
                self._loops.move_to_end(route)
                return loop
        return self._add_loop(route, self._build_loop(route))

    def _build_loop(self, route: Route) -> OriginLoop:
        load("requests", FOR_ALL)
        if route.origin.scheme == "https" or (route.proxy is not None and route.proxy.scheme == "https"):
            load("TLS", FOR_TLS)
        from hyperpool.engine.dialler import DialThreads
        from hyperpool.engine.loop import OriginLoop

        dialer = DialThreads(route, tls_config=self._tls_config(route.tls), resolver=self._shared_resolver())
        try:
            return OriginLoop(route, self.limits, dialer, hooks=self._hooks)
        except OSError as cause:  # no descriptor is left
            where = str(route.origin)
            raise HyperpoolError(f"no I/O thread for {where} could be set up: {cause}", origin=where) from cause

    def _add_loop(self, route: Route, made: OriginLoop) -> OriginLoop:
        """Install a loop, unless another thread was faster; its thread runs when this returns."""
        loop, idle = made, None
        try:
            with self._lock:
                loop = self._loops.get(route, made)
                if loop is made:
                    self._check_open_locked(route)
                    idle = self._make_room_locked(route)
                    self._start_locked(route, made)
        except HyperpoolError as error:
            made.discard(error)
            raise
        if loop is not made:
            made.discard(PoolClosed("not needed"))
        if idle is not None:
            tell(idle, Retire())
        return loop

    def _start_locked(self, route: Route, loop: OriginLoop) -> None:
        thread = threading.Thread(target=loop.run, name=f"hyperpool {route.origin}", daemon=True)
        running.add(loop)
        try:
            # Under the lock, so that whoever finds the loop finds it running: `close` could not join it otherwise.
            thread.start()
        except RuntimeError as cause:
            where = str(route.origin)
            raise HyperpoolError(f"no I/O thread for {where} could be started: {cause}", origin=where) from cause
        self._loops[route] = loop
        self._threads[thread] = loop

    def _check_open_locked(self, route: Route) -> None:
        if self._closed:
            raise PoolClosed("this pool or client was closed: make a new one", origin=str(route.origin))

    def _make_room_locked(self, route: Route) -> OriginLoop | None:
        """At ``max_origins``, forget the origin that has been idle for longest; its loop is to be told."""
        for thread in [thread for thread in self._threads if not thread.is_alive()]:
            del self._threads[thread]
        for known in [known for known, loop in self._loops.items() if loop.ended]:
            del self._loops[known]
        if len(self._loops) < self.limits.max_origins:
            return None
        idle = next((known for known, loop in self._loops.items() if loop.stats.idle), None)
        if idle is None:
            raise PoolFull(
                f"all {self.limits.max_origins:,} origins are busy: raise Limits.max_origins, or ask fewer at a time",
                origin=str(route.origin),
            )
        return self._loops.pop(idle)

    def _forget(self, route: Route, loop: OriginLoop) -> None:
        with self._lock:
            if self._loops.get(route) is loop:
                del self._loops[route]

    def _tls_config(self, settings: TlsSettings) -> TlsConfig:
        from hyperpool.engine.trust import TlsConfig

        with self._lock:
            config = self._tls_configs.setdefault(settings, TlsConfig(settings))
            if settings == self._tls:
                self._own_tls_config = config
            return config

    def _shared_resolver(self) -> Resolver:
        from hyperpool.engine.resolve import Resolver

        with self._lock:
            if self._resolver is None:
                self._resolver = Resolver(ttl_s=self.limits.dns_ttl_s, ask=self._ask)
            return self._resolver

    # -- looking at it, and its end --------------------------------------------------------------------------------

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        with self._lock:
            return self._closed

    def stats(self) -> PoolStats:
        """A snapshot of what is going on: each loop's own is consistent. Cheap, from any thread, never blocks."""
        with self._lock:
            alive = [loop for thread, loop in self._threads.items() if thread.is_alive()]
        each = [loop.stats for loop in alive]
        return PoolStats(
            origins={one.origin: one for one in each},
            threads=len(alive),
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
        if not 0 <= code < 1 << 32:
            raise ValueError(f"an error code has 32 bits, {code} has not (RFC 9113 7)")
        with self._lock:
            self._closed = True
            self._loops.clear()
            threads = list(self._threads)
        _close_loops(self._threads, grace_s=grace_s, code=code)
        if not on_loop_thread():
            for thread in threads:
                thread.join()

    def __enter__(self) -> ConnectionPool:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __repr__(self) -> str:
        stats = self.stats()
        state = "closed" if self._closed else "open"
        return f"<ConnectionPool {state} origins={len(stats.origins)} connections={stats.connections}>"

    def start_anew_in_child(self) -> None:
        """After a fork: the parent's threads are not here, and its sockets are not ours to write to."""
        closed = self._closed
        self._finalizer.detach()
        self._begin()
        self._closed = closed


def _check_uds(uds: str, *, excluded: tuple[Any, ...]) -> None:
    if not isinstance(uds, str) or not is_socket_path(uds):
        raise ValueError(f"uds must be the absolute path of a Unix socket, not {uds!r}")
    if any(given is not None for given in excluded):
        raise ValueError("a Unix socket is reached without proxy, source_address and resolver: give uds alone")


def _as_kept(route: Route) -> Route:
    """The route under which a loop is kept."""
    if route.upgrade and forwards(route):
        # The proxy would be asked to switch, not the origin (RFC 9110 7.8: Upgrade is hop by hop).
        return dataclasses.replace(route, upgrade=False)
    return route


def _for_proxy(head: RequestHead, route: Route, proxy: Proxy) -> RequestHead:
    if forwards(route):
        return forwarded(head, proxy, http2=route.force_http2 or not route.http1)
    return tunnelled(head)


def _close_loops(threads: dict[threading.Thread, OriginLoop], *, grace_s: float = 0.0, code: int = 0) -> None:
    grace_at = time.monotonic() + grace_s
    for loop in list(threads.values()):
        tell(loop, Close(grace_at, code))
