"""What hyper's constructors are given, in the pool's words: host, proxy and timeout, and the limits of a connection."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Union

from hyperpool.errors import InvalidURL
from hyperpool.values import Limits, Timeout

if TYPE_CHECKING:
    from hyperpool.headers import MapLike
    from hyperpool.window import BaseFlowControlManager

TimeoutLike = Union[float, "tuple[float | None, float | None]", None]

PROXY_PORT = 8080

# A connection lives until it is closed. Not for ever, since epoll takes no timeout above 24.8 days, and the engine adds
# a tenth to the age.
LIFE_S = 20 * 86_400.0
# The peer's own limit is the one that counts.
MAX_STREAMS = 10_000
# Where a window manager decides: RFC 9113 6.9.2, and hyper's own beginning.
MANAGED_WINDOW_BYTES = 65_535

_HOST_AND_PORT = re.compile(r"\[([^\]]*)\](?::(\d*))?|([^:]*)(?::(\d*))?")
# What would lead elsewhere in a URL (RFC 3986 3.2): "a/x" has another target, "x@a" another host, and "%61" is "a".
# A percent sign stands before the zone of an IPv6 address only (RFC 6874).
_NOT_IN_HOST = re.compile(r"[\x00- \x7f/?#@\\\[\]]|^[^:]*%")


def host_and_port(host: str, port: int | None, default_port: int) -> tuple[str, int]:
    """Host and port apart: "host:port" and "[IPv6]:port" name both. Raises InvalidURL for what is no host."""
    if not isinstance(host, str):
        raise InvalidURL(f"host must be str, not {type(host).__name__}")
    if host.count(":") > 1 and not host.startswith("["):
        host = f"[{host}]"  # a bare IPv6 address
    parts = _HOST_AND_PORT.fullmatch(host)
    if parts is None or not (name := parts[1] or parts[3]) or _NOT_IN_HOST.search(name):
        raise InvalidURL(f"host {host!r}: give a name or an address, host:port, or [IPv6]:port")
    written = parts[2] or parts[4]
    number = int(port if port is not None else written or default_port)
    if not 1 <= number <= 65535:
        raise InvalidURL(f"host {host!r}: the port must be between 1 and 65535, not {number}")
    return name, number


def proxy_parts(
    host: str | None, port: int | None, headers: MapLike | None
) -> tuple[str | None, int | None, MapLike | None]:
    """Host, port and headers of the proxy; None each where there is none. Raises InvalidURL as `host_and_port` does."""
    return (*host_and_port(host, port, PROXY_PORT), headers) if host else (None, None, headers)


def as_timeout(given: TimeoutLike) -> Timeout:
    """hyper's timeouts are the socket's: they bound each pause, and never the whole."""
    connect, pause = given if isinstance(given, tuple) else (given, given)
    return Timeout(pool=pause, connect=connect, write=pause, read=pause)


def limits_for(window_manager: type[BaseFlowControlManager] | None) -> Limits:
    """One HTTP/2 connection that stays; its windows begin as hyper's did where a window manager is given."""
    windows = (
        {}
        if window_manager is None
        else dict.fromkeys(("stream_window_bytes", "connection_window_bytes"), MANAGED_WINDOW_BYTES)
    )
    return Limits(
        max_connections_per_origin=1, max_streams_per_connection=MAX_STREAMS, idle_s=LIFE_S, max_age_s=LIFE_S, **windows
    )
