"""The servers that a storm knows, by name: `serve` starts one and says what it can do.

``NAME-h1`` is the same server, asked over HTTP/1.1.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from hyperpool import Limits, demo
from stress import more_servers, servers
from stress.servers import Served

_LIMITS = Limits()
_Start = Callable[[], contextlib.AbstractContextManager[Served]]

# By how many requests a connection may carry.
_RETIRING: dict[str, Callable[[int], contextlib.AbstractContextManager[Served]]] = {
    "nginx": lambda most: servers.nginx(keepalive_requests=most),
    "nginx-h1": lambda most: servers.nginx(h2=False, keepalive_requests=most),
    "nginx-master": lambda most: more_servers.nginx_with_master(keepalive_requests=most),
    "apache": lambda most: more_servers.apache(keepalive_requests=most),
    "lighttpd": lambda most: more_servers.lighttpd(keepalive_requests=most),
    "hypercorn": lambda most: more_servers.hypercorn(keepalive_requests=most),
}
_OTHERS: dict[str, _Start] = {
    "nghttpd": servers.nghttpd,
    "h2o": more_servers.h2o,
    "caddy": more_servers.caddy,
    "haproxy": more_servers.haproxy,
    "node": more_servers.node,
    "go": more_servers.go,
}
_H2_ONLY = frozenset({"nghttpd"})
_HTTP1_TOO = ({*_RETIRING, *_OTHERS} - _H2_ONLY) - {"nginx-h1"}

NAMES = ("embedded", *_RETIRING, *_OTHERS, *sorted({f"{name}-h1" for name in _HTTP1_TOO} - {*_RETIRING}))

RELOADS = more_servers.RELOADS | {f"{name}-h1" for name in more_servers.RELOADS}

# nginx alone stores what is PUT.
_STORING = frozenset({"nginx", "nginx-h1", "nginx-master"})
# lighttpd allows 8 streams on a connection, so that a storm needs all that a client opens. Who loses connections
# needs one beside that which ends.
_NEEDS_SEVERAL = more_servers.LOSING | {"lighttpd"}


@dataclass(frozen=True, slots=True)
class Target:
    """The server of a storm. Immutable.

    ``uploads``: where a PUT ends up on disk, None where it does not. ``takes_pieces``: whether a body may come without
    its length. ``is_losing``: whether it ends connections on which requests are under way. ``connections``: how many at
    a time are right. ``reload`` is None where the server cannot.
    """

    origin: str
    ca_pem: bytes
    is_h2: bool
    uploads: Path | None
    takes_pieces: bool = True
    is_losing: bool = False
    connections: int = 1
    reload: Callable[[], None] | None = None

    @property
    def port(self) -> int:
        return int(self.origin.rpartition(":")[2])


@contextlib.contextmanager
def serve(name: str, keepalive_requests: int = servers.KEEPALIVE_REQUESTS) -> Iterator[Target]:
    """Start the server that is asked for. Raises ServerMissing, StartFailed.

    ``keepalive_requests``: after how many it retires a connection; ValueError where it cannot.
    """
    if name == "embedded":
        with demo.serve_elsewhere() as server:
            yield Target(server.origin, server.ca_pem, is_h2=True, uploads=None)
        return
    base = name if name in _RETIRING else name.removesuffix("-h1")
    with _start(base, keepalive_requests) as served:
        target = _target(base, served)
        if name.endswith("-h1"):
            target = replace(target, is_h2=False, connections=_LIMITS.max_http1_connections_per_origin)
        yield target


def _start(name: str, keepalive_requests: int) -> contextlib.AbstractContextManager[Served]:
    if name in _RETIRING:
        return _RETIRING[name](keepalive_requests)
    if keepalive_requests != servers.KEEPALIVE_REQUESTS:
        raise ValueError(f"{name} retires no connection by the number of its requests")
    return _OTHERS[name]()


def _target(name: str, served: Served) -> Target:
    return Target(
        served.origin,
        served.ca_pem,
        is_h2=True,
        uploads=served.uploads if name in _STORING else None,
        takes_pieces=name not in more_servers.NEEDS_LENGTH,
        is_losing=name in more_servers.LOSING,
        connections=_LIMITS.max_connections_per_origin if name in _NEEDS_SEVERAL else 1,
        reload=(lambda: more_servers.reload(served)) if name in more_servers.RELOADS else None,
    )
