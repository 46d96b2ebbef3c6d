"""The loops of a pool: which one serves which route, what it is made with, and that it ends.

A dictionary with a lock around it (dictionary operations only, L4 in spirit: nobody waits for I/O there). Loops do not
know the pool: one that has ended is noticed by its closed inbox, and the request goes to a successor (L2).
"""

from __future__ import annotations

import dataclasses
import threading
import time
import weakref
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

from hyperpool.errors import HyperpoolError, PoolClosed, PoolFull
from hyperpool.handoff.exchange import Exchange
from hyperpool.handoff.inbox import InboxClosed
from hyperpool.handoff.loop_thread import may_join
from hyperpool.handoff.messages import Close, Retire
from hyperpool.process import FOR_ALL, FOR_TLS, load, running, tell
from hyperpool.proxies import forwards
from hyperpool.values import Limits, Route, TlsSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from hyperpool.engine.loop import OriginLoop
    from hyperpool.engine.resolve import Resolver
    from hyperpool.engine.trust import TlsConfig
    from hyperpool.handoff.hooks import Hooks

# A loop may end between the look-up and the put; a fresh one cannot, so the second try succeeds but for a close.
_TRIES = 8


class Workshop:
    """What the loops of one pool are made with, and share: limits, hooks, TLS contexts, a resolver.

    Shared; guarded by _lock.
    """

    def __init__(
        self, limits: Limits, tls: TlsSettings, ask: Callable[[str, int], Iterable[Any]] | None, hooks: Hooks | None
    ) -> None:
        self._limits = limits
        self._tls = tls
        self._ask = ask
        self._hooks = hooks
        self.start_anew_in_child()

    def start_anew_in_child(self) -> None:
        """After a fork: other threads of the parent may have held the lock, or been writing into what it guards."""
        self._lock = threading.RLock()
        # Weak, since loops hold what they use: a program may make a context for each call, and each has a CA bundle.
        self._tls_configs: weakref.WeakValueDictionary[TlsSettings, TlsConfig] = weakref.WeakValueDictionary()
        self._own_tls_config: TlsConfig | None = None
        self._resolver: Resolver | None = None

    def build(self, route: Route) -> OriginLoop:
        """A loop for a route; its thread does not run yet. Raises HyperpoolError where no descriptor is left."""
        load("requests", FOR_ALL)
        if route.origin.scheme == "https" or (route.proxy is not None and route.proxy.scheme == "https"):
            load("TLS", FOR_TLS)
        from hyperpool.engine.dialler import DialThreads
        from hyperpool.engine.loop import OriginLoop

        dialer = DialThreads(route, tls_config=self._tls_config(route.tls), resolver=self._shared_resolver())
        try:
            return OriginLoop(route, self._limits, dialer, hooks=self._hooks)
        except OSError as cause:  # no descriptor is left
            where = str(route.origin)
            raise HyperpoolError(f"no I/O thread for {where} could be set up: {cause}", origin=where) from cause

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
                ask = None if self._ask is None else _asking(weakref.ref(self))
                self._resolver = Resolver(ttl_s=self._limits.dns_ttl_s, ask=ask)
            return self._resolver

    def ask(self, host: str, port: int) -> Iterable[Any]:
        """Ask the program's own resolver."""
        assert self._ask is not None
        return self._ask(host, port)


def _asking(workshop: weakref.ref[Workshop]) -> Callable[[str, int], Iterable[Any]]:
    """What loops ask. They hold nothing of the program's: see `Announcements`."""

    def ask(host: str, port: int) -> Iterable[Any]:
        known = workshop()
        if known is None:
            raise PoolClosed(f"the pool was forgotten before {host} was resolved")
        return known.ask(host, port)

    return ask


class Loops:
    """The loops of one pool by their routes, each with its thread.

    Shared; guarded by _lock.
    """

    def __init__(self, workshop: Workshop, max_origins: int) -> None:
        self._workshop = workshop
        self._max_origins = max_origins
        # Re-entrant, as all locks that callers take: a finalizer of the program may ask for something in here.
        self._lock = threading.RLock()
        self._closed = False
        self._by_route: OrderedDict[Route, OriginLoop] = OrderedDict()
        # Also those that are found by no route any more, until they have ended.
        self._threads: dict[threading.Thread, OriginLoop] = {}

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        with self._lock:
            return self._closed

    def alive(self) -> list[OriginLoop]:
        """Those whose threads run."""
        with self._lock:
            return [loop for thread, loop in list(self._threads.items()) if thread.is_alive()]

    def put(self, route: Route, message: Any, exchange: Exchange | None = None) -> None:
        """Put a message into the inbox of the loop that serves a route, which is made where there is none.

        ``exchange``: the one that the message is about, which then knows that inbox. Raises PoolClosed and PoolFull.
        """
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

    def _loop_for(self, route: Route) -> OriginLoop:
        with self._lock:
            loop = self._by_route.get(route)
            if loop is not None:
                self._by_route.move_to_end(route)
                return loop
            self._check_open_locked(route)
        return self._add_loop(route, self._workshop.build(route))

    def _add_loop(self, route: Route, made: OriginLoop) -> OriginLoop:
        """Install a loop, unless another thread was faster; its thread runs when this returns."""
        loop, idle = made, None
        try:
            with self._lock:
                loop = self._by_route.get(route, made)
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
            self._threads[thread] = loop
            self._by_route[route] = loop
        except RuntimeError as cause:
            where = str(route.origin)
            raise HyperpoolError(f"no I/O thread for {where} could be started: {cause}", origin=where) from cause
        except BaseException:  # Ctrl-C: whether it runs nobody can tell, and nobody but us would ever end it
            tell(loop, Close(0.0, 0))
            raise

    def _check_open_locked(self, route: Route) -> None:
        if self._closed:
            raise PoolClosed("this pool or client was closed: make a new one", origin=str(route.origin))

    def _make_room_locked(self, route: Route) -> OriginLoop | None:
        """At ``max_origins``, forget the origin that has been idle for longest; its loop is to be told."""
        for thread in [thread for thread in list(self._threads) if not thread.is_alive()]:
            self._threads.pop(thread, None)
        for known in [known for known, loop in list(self._by_route.items()) if loop.ended]:
            self._by_route.pop(known, None)
        if len(self._by_route) < self._max_origins:
            return None
        idle = next((known for known, loop in list(self._by_route.items()) if loop.stats.idle), None)
        if idle is None:
            raise PoolFull(
                f"all {self._max_origins:,} origins are busy: raise Limits.max_origins, or ask fewer at a time",
                origin=str(route.origin),
            )
        return self._by_route.pop(idle, None)

    def _forget(self, route: Route, loop: OriginLoop) -> None:
        with self._lock:
            if self._by_route.get(route) is loop:
                del self._by_route[route]

    # -- their end -------------------------------------------------------------------------------------------------

    def retire(self, route: Route) -> None:
        """See `ConnectionPool.retire`."""
        with self._lock:
            loop = self._by_route.pop(_as_kept(route), None)
        if loop is not None:
            tell(loop, Retire())

    def close(self, *, grace_s: float, code: int) -> None:
        """See `ConnectionPool.close`."""
        with self._lock:
            self._closed = True
            self._by_route.clear()
            threads = list(self._threads)
        tell_all_to_close(self._threads, grace_s=grace_s, code=code)
        if may_join():
            for thread in threads:
                thread.join()

    def finalize_with(self, owner: object) -> weakref.finalize[..., Any]:
        """Close all loops as soon as this object is forgotten. They, and what they share, may know it: what is kept for
        that is the dictionary of threads, and nothing else."""
        finalizer = weakref.finalize(owner, tell_all_to_close, self._threads)
        finalizer.atexit = False
        return finalizer

    def successor_in_child(self) -> Loops:
        """After a fork: the parent's threads are not here, and its sockets are not ours to write to."""
        self._workshop.start_anew_in_child()
        successor = Loops(self._workshop, self._max_origins)
        successor._closed = self._closed
        return successor


def tell_all_to_close(threads: dict[threading.Thread, OriginLoop], *, grace_s: float = 0.0, code: int = 0) -> None:
    """What `Loops.close` does, without waiting for it: for a finalizer too, so it takes no lock."""
    grace_at = time.monotonic() + grace_s
    for loop in list(threads.values()):
        tell(loop, Close(grace_at, code))


def _as_kept(route: Route) -> Route:
    """The route under which a loop is kept."""
    if route.upgrade and forwards(route):
        # The proxy would be asked to switch, not the origin (RFC 9110 7.8: Upgrade is hop by hop).
        return dataclasses.replace(route, upgrade=False)
    return route
