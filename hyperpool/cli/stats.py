"""``--stats``: what the request cost, as a small table."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hyperpool.handoff.hooks import ConnectionInfo
    from hyperpool.handoff.response import Response
    from hyperpool.pool import PoolStats


class Clock:
    """The instants of a run. Owned by its thread. Times are taken where the user waits, not on the wire.

    ``connections``: those that were opened; I/O threads append to it.
    """

    def __init__(self) -> None:
        self.connections: list[ConnectionInfo] = []
        self.begin()

    def begin(self) -> None:
        """The request is about to be sent."""
        self._began_at = self._head_at = self._end_at = time.monotonic()

    def head(self) -> None:
        """The response's head is here."""
        self._head_at = self._end_at = time.monotonic()

    def end(self) -> None:
        """All that was wanted of the body is here."""
        self._end_at = time.monotonic()

    @property
    def to_head_s(self) -> float:
        """Name, connection, TLS, the request, and the server's thinking."""
        return self._head_at - self._began_at

    @property
    def body_s(self) -> float:
        """The body, and what was done with it."""
        return self._end_at - self._head_at


def table(response: Response, stats: PoolStats, clock: Clock, *, size_bytes: int | None) -> str:
    """The lines of the table."""
    rows = [
        ("version", response.http_version),
        ("status", str(response.status_code)),
        ("until head", f"{clock.to_head_s:.3f} s (connecting included)"),
        ("body", f"{clock.body_s:.3f} s, {_size(response, size_bytes)}"),
        ("resent", _resends(response)),
        *(("connected", _phases(one)) for one in list(clock.connections)),
    ]
    for origin, one in stats.origins.items():
        sockets = "1 connection" if one.connections == 1 else f"{one.connections} connections"
        requests = "1 request" if one.requests == 1 else f"{one.requests} requests"
        rows.append(("pool", f"{origin}: {sockets}, {requests}"))
    rows.append(("threads", f"{stats.threads} of hyperpool's"))
    return "".join(f"{name:<11} {value}\n" for name, value in rows)


def _phases(one: ConnectionInfo) -> str:
    """How long each phase of connecting took."""
    spent = ", ".join(f"{name} {seconds:.3f} s" for name, seconds in one.spent_s.items())
    return f"{one.origin}: {spent}{f' ({one.tls_version})' if one.tls_version else ''}"


def _size(response: Response, size_bytes: int | None) -> str:
    if size_bytes is None:
        return "not read"
    coding = response.headers.get("content-encoding")
    return f"{size_bytes:,} bytes" + (f" (sent as {coding})" if coding else "")


def _resends(response: Response) -> str:
    if not response.retries:
        return "0"
    return f"{len(response.retries)}: " + "; ".join(f"{one.reason} after {one.at_s:.3f} s" for one in response.retries)
