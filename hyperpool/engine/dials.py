"""When to open a further connection, and what is known of the dials under way.

HTTP/1.1 carries one exchange at a time, so there is a dial for each one that waits, up to the cap. HTTP/2 needs a
further connection only when all streams of the others are taken, so there is one dial at a time, and none before every
connection has told its limits: a burst on a fresh origin must not become a stampede.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from hyperpool.engine.connections import Connections
from hyperpool.engine.dial_cancel import DialPhase
from hyperpool.engine.http1 import Http1Connection
from hyperpool.engine.pauses import Pause
from hyperpool.errors import ConnectionLost, HyperpoolError, RemoteProtocolError, TlsError
from hyperpool.handoff.deadlines import NEVER
from hyperpool.handoff.messages import DialFailed

if TYPE_CHECKING:
    from hyperpool.values import Limits

# After a failed dial, an origin with other connections waits this long before it tries for one more.
REDIAL_AFTER_S = 1.0
# So many new connections in a row end before they carry anything, and those who wait are told.
MOST_STILLBORN = 5
# A dial that nobody's connect timeout bounds.
DIAL_AT_MOST_S = 120.0


class Dialer(Protocol):
    """Makes connections on threads of its own, and delivers `Dialed` or `DialFailed` once for each dial."""

    @property
    def phase(self) -> DialPhase | None: ...

    def start(self, deliver: Callable[[Any], None], *, deadline_at: float) -> None: ...

    def speak_http1(self) -> None: ...

    def cancel(self) -> None: ...

    def abandon_in_child(self) -> None: ...


class Dials:
    """The dials of one origin.

    Owned by the loop thread.
    """

    def __init__(self, dialer: Dialer, limits: Limits, deliver: Callable[[Any], None]) -> None:
        self._dialer = dialer
        self._limits = limits
        self._deliver = deliver
        self._again_at = self._postponed_until_at = 0.0
        # Connections in a row that ended before they were of use, and what that has come to.
        self._stillborn = 0
        self._pause = Pause()
        self._hopeless: HyperpoolError | None = None
        self.prewarm = 0
        self.under_way = 0
        # What the origin spoke last (ALPN, RFC 7301); None before the first connection.
        self.version: str | None = None

    def wanted(self, connections: Connections, waiting: int, now: float) -> int:
        """How many to start now."""
        if not (waiting or self.prewarm):
            return 0
        have = connections.open_count + self.under_way
        if have >= self.prewarm:
            self.prewarm = 0
        wanted = max(waiting, self.prewarm - have)
        if now < self._not_before_at or not wanted:
            return 0
        if self.version == Http1Connection.version and connections.all_ready:
            room = self._limits.max_http1_connections_per_origin - have
            return max(0, min(wanted - self.under_way, room))
        if self.under_way or not connections.all_ready or not (self.prewarm or connections.all_loaded):
            return 0
        return int(have < self._limits.max_connections_per_origin)

    def start(self, now: float, *, patience_until_at: float) -> None:
        """Begin one, with the patience of the exchange that waits for longest."""
        self.under_way += 1
        try:
            self._dialer.start(self._deliver, deadline_at=min(now + DIAL_AT_MOST_S, patience_until_at))
        except RuntimeError as cause:  # "can't start new thread"
            failed = HyperpoolError(f"no thread to connect with could be started: {cause}")
            failed.__cause__ = cause
            self._deliver(DialFailed(failed))

    @property
    def phase(self) -> DialPhase | None:
        """What those wait for who wait for the first connection."""
        return self._dialer.phase

    def succeeded(self, version: str) -> None:
        """One has become a connection."""
        self.under_way -= 1
        self.version = version
        self._hopeless = None

    def failed(self, *, alone: bool, now: float) -> None:
        """One has failed; where the origin has other connections or dials, the next one may wait a little.

        Else each of several dials would be replaced as it fails, and those who wait would never learn that all did.
        """
        self.under_way -= 1
        self.prewarm = 0
        self._again_at = now if alone and not self.under_way else now + REDIAL_AFTER_S

    def postpone(self, now: float) -> None:
        """Leave the server alone for a while: it wants that, or has flooded us."""
        self._postponed_until_at = now + REDIAL_AFTER_S

    def postponed(self, now: float) -> bool:
        """Whether the server is being left alone, which must not be forgotten meanwhile."""
        return now < self._postponed_until_at

    def stillborn(self, now: float, error: HyperpoolError | None) -> None:
        """A connection has ended before it could carry anything; after some of these, all is in vain."""
        self.prewarm = 0
        self._stillborn += 1
        self._pause.failed(now)
        if self._stillborn >= MOST_STILLBORN or isinstance(error, (TlsError, RemoteProtocolError)):
            self._hopeless = error or ConnectionLost("the server closes each new connection before it is of use")

    def worked(self) -> None:
        """The server has answered a request."""
        self._stillborn, self._hopeless = 0, None
        self._pause.worked()

    def take_hopeless(self) -> HyperpoolError | None:
        """What is to be told to those who wait: no connection that is made is of use, and none is under way."""
        if self.under_way or self._hopeless is None:
            return None
        error, self._hopeless, self._stillborn = self._hopeless, None, 0
        return error

    @property
    def _not_before_at(self) -> float:
        return max(self._again_at, self._postponed_until_at, self._pause.until_at)

    def speak_http1(self) -> None:
        """Offer HTTP/1.1 alone from now on."""
        self._dialer.speak_http1()

    def next_at(self, *, waiting: bool, now: float) -> float:
        """When a dial may be made that had to wait, or the server need not be left alone any more."""
        at = self._not_before_at if waiting else self._postponed_until_at
        return at if at > now else NEVER

    def abandon_in_child(self) -> None:
        """After a fork, in the child: those under way are the parent's."""
        self._dialer.abandon_in_child()

    def cancel(self) -> None:
        """End those under way; each still reports."""
        self.prewarm = 0
        self._dialer.cancel()
