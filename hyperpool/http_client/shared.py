"""What all connection objects of a process share: one pool, the standard trust, and who is where.

An object that is closed leaves an HTTP/2 connection to the pool, whose next user is glad of it. An HTTP/1.1 connection
is closed when the last object that holds its route is: servers give a thread to each such connection, and programs call
``close()`` to end it. So is a connection with a context of the caller's own: nobody may ever use that context again.
"""

from __future__ import annotations

import os
import threading
import weakref
from typing import TYPE_CHECKING, Any

from hyperpool.handoff.forks import in_child
from hyperpool.pool import ConnectionPool

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

    from hyperpool.values import Route

_lock = threading.RLock()
_pool: ConnectionPool | None = None
_stays: dict[Route, weakref.WeakSet[Stay]] = {}
_contexts: dict[tuple[Any, ...], ssl.SSLContext] = {}

# How many of these are remembered: a program has one factory, or two. One that makes a factory again and again would
# leave 1 MB with each. Halved or doubled, nobody else sees it.
_REMEMBERED = 8


@in_child
def _renew_lock_in_child() -> None:
    global _lock  # noqa: PLW0603 - one for the whole process, and another thread may have held it when that forked
    _lock = threading.RLock()


def shared_pool() -> ConnectionPool:
    """The pool under all objects of this package; made on first use, and anew after it was closed."""
    global _pool  # noqa: PLW0603 - one for the whole process
    known = _pool
    if known is not None and not known.closed:
        return known
    # None of the environment's: http.client knows proxies by set_tunnel alone.
    made = ConnectionPool(trust_env=False)
    with _lock:
        if _pool is known:
            _pool = made
        assert _pool is not None
        return _pool


def standard_context() -> ssl.SSLContext:
    """What ``context=None`` means to the standard library, made once for each factory that is set there.

    The factory is looked up at each call: programs replace it to trust more, or less. So are the two variables that
    OpenSSL reads.
    """
    import ssl

    factory: Callable[[], ssl.SSLContext] = ssl._create_default_https_context
    key = (factory, os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR"))
    if (known := _contexts.get(key)) is not None:
        return known
    made = factory()
    if made.post_handshake_auth is not None:
        # As http.client has it; HTTP/2 servers never ask for it (RFC 9113 9.2.3).
        made.post_handshake_auth = True
    with _lock:
        if key not in _contexts and len(_contexts) >= _REMEMBERED:
            del _contexts[next(iter(_contexts))]
        return _contexts.setdefault(key, made)


def is_standard(context: object) -> bool:
    """Whether a context is one that `standard_context` may still give to others."""
    return any(known is context for known in list(_contexts.values()))


class Stay:
    """One wire's presence on a route.

    Shared; the set of all is guarded by _lock. One that is forgotten leaves the set by itself; since a finalizer must
    take no lock, the next one to come does what it would have done.
    """

    def __init__(self, route: Route) -> None:
        self.pool = shared_pool()
        self._route = route
        with _lock:
            _stays.setdefault(route, weakref.WeakSet()).add(self)
            forgotten = [known for known, here in list(_stays.items()) if not here]
            for known in forgotten:
                _stays.pop(known, None)
        for known in forgotten:
            self.pool.retire(known)

    def end(self, *, keep_warm: bool) -> None:
        """Leave; the last one lets the connections of the route finish and close, unless they are kept warm."""
        with _lock:
            here = _stays.get(self._route)
            if here is None or self not in here:
                return
            here.discard(self)
            if here:
                return
            del _stays[self._route]
        if not keep_warm:
            self.pool.retire(self._route)
