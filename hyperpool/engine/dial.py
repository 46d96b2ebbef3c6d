"""From a route to a connection: name, addresses, the race between them, the way through a proxy, the TLS handshake.

Lives here: `dial` and `Dialed`, what it makes. The race is in engine/race.py, what is said on the way in
engine/tunnel.py, how that is said over a socket in engine/handshakes.py, how others stop a dial in
engine/dial_cancel.py; here are its phases, and the waiting. Must never come in: HTTP.

A dial runs on a short-lived thread of its own, so that the loop never waits for a network (L4). It sleeps in one select
that watches the racing sockets, the deadline, and the wake-up of its DialCancel; the answer of the name service, which
comes on another thread, uses the same wake-up. So a cancel or a deadline ends a dial at once in every phase, and each
way out but the good one closes every socket that was opened.

Hands are shaken with the winner of the race only: a certificate that is refused is never tried elsewhere, and neither
is a proxy that says no.
"""

from __future__ import annotations

import errno
import functools
import selectors
import socket
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from hyperpool.engine.dial_cancel import DialCancel, DialPhase
from hyperpool.engine.handshakes import Handshakes
from hyperpool.engine.race import Race, words
from hyperpool.engine.resolve import Address
from hyperpool.engine.tunnel import Way
from hyperpool.errors import (
    ConnectError,
    ConnectTimeout,
    HyperpoolError,
    NameResolutionError,
    PoolClosed,
    ProxyError,
)
from hyperpool.handoff.deadlines import LONGEST_SLEEP_S

if TYPE_CHECKING:
    from collections.abc import Callable

    from hyperpool.engine.resolve import Resolver
    from hyperpool.engine.trust import TlsConfig
    from hyperpool.engine.tunnel import TlsInTls
    from hyperpool.protocol.tls import TlsStream
    from hyperpool.values import Route

# Between two tries to connect to a Unix socket whose queue is full. Half costs twice the tries, of 5 us each.
UNIX_RETRY_S = 0.01


@dataclass(frozen=True, slots=True)
class Dialed:
    """A connection that is ready for HTTP. Immutable; owned by whoever has it, who must `close` or use it.

    The socket is non-blocking. ``tls`` may hold bytes of the server already (HTTP/2 servers talk first): read it once
    before the first select. ``spent_s`` has the seconds of each phase: "dns", "tcp", "proxy", "tls".
    """

    route: Route
    sock: socket.socket
    tls: TlsStream | TlsInTls | None
    alpn: str | None
    peername: Any
    spent_s: dict[str, float]

    @property
    def http2(self) -> bool:
        """Whether HTTP/2 is spoken: ALPN chose it, or there is no TLS and nothing else is wanted (RFC 9113 3.3)."""
        return self.alpn == "h2" or self.route.force_http2 or (self.tls is None and not self.route.http1)

    @property
    def connect_s(self) -> float:
        """Seconds from the first question to the end of the handshake."""
        return sum(self.spent_s.values())

    def close(self) -> None:
        """Give up the connection unused."""
        self.sock.close()


@dataclass(frozen=True, slots=True)
class Seams:
    """What a dial takes from the system; tests put their own in. Immutable."""

    clock: Callable[[], float] = time.monotonic
    socket_factory: Callable[..., socket.socket] = socket.socket
    selector_factory: Callable[[], selectors.BaseSelector] = selectors.DefaultSelector


def dial(
    route: Route,
    *,
    tls_config: TlsConfig,
    resolver: Resolver,
    deadline_at: float | None,
    cancelled: DialCancel | None = None,
    seams: Seams = Seams(),
) -> Dialed:
    """Connect to the route's origin and shake hands. Blocks until then, until the deadline, or until it is cancelled.

    Raises NameResolutionError, ConnectError, ProxyError, TlsError, CertificateError, ConnectTimeout, or PoolClosed
    where it was cancelled; each with ``origin``. No socket is left open then.
    """
    origin = str(route.origin)
    try:
        # First, since it needs no network: settings that cannot be used are told before anything is tried.
        way = Way(route, tls_config)
        attempt = _Dial(route, way, resolver, deadline_at, cancelled or DialCancel(), seams)
        try:
            return attempt.run()
        finally:
            attempt.close()
    except HyperpoolError as error:
        # Before OSError, which a ConnectTimeout is as well.
        error.origin = origin
        raise
    except OSError as error:
        # The system has no socket pair or selector left, or select itself failed.
        raise ConnectError(f"cannot connect to {origin}: {words(error)}", origin=origin) from error


class _Dial:
    """One dial in progress.

    Owned by the dialling thread.
    """

    def __init__(
        self, route: Route, way: Way, resolver: Resolver, deadline_at: float | None, cancel: DialCancel, seams: Seams
    ) -> None:
        self._route = route
        self._way = way
        self._resolver = resolver
        self._deadline_at = deadline_at
        self._cancel = cancel
        self._clock = seams.clock
        self._spent_s: dict[str, float] = {}
        self._phase, self._phase_at = "dns", self._clock()
        # Whose name is being resolved, and what of the way through the proxy is being done.
        self._asked = self._step = ""
        self._selector = seams.selector_factory()
        self._race = Race(
            self._selector,
            clock=self._clock,
            socket_factory=seams.socket_factory,
            check=self._check,
            wait=self._select,
            lost=self._demote,
            source=route.source_address,
            options=route.socket_options,
        )
        try:
            self._wakeup = cancel.attach(self._abandon)
        except OSError:
            self._selector.close()
            raise

    def close(self) -> None:
        """Close whatever was not handed over."""
        self._abandon()
        self._cancel.detach(self._wakeup)

    def _abandon(self) -> None:
        self._race.close()
        self._selector.close()

    def run(self) -> Dialed:
        """The phases in their order."""
        self._selector.register(self._wakeup.receiver, selectors.EVENT_READ)
        way = self._way
        addresses = self._resolve_way()
        self._begin("tcp")
        sock = self._connect(addresses)
        address = self._race.sockets[sock]
        handshakes = Handshakes(
            self._route, way, sock, wait_for=self._wait_for, blame=functools.partial(self._demote, address)
        )
        if way.opening:
            self._begin("proxy")
        for self._step, step in way.opening:
            handshakes.shake(step)
        if way.tls is not None:
            self._begin("tls")
            handshakes.shake(way.tls)
        alpn = handshakes.agreed_protocol()
        self._begin("done")
        self._cancel.phase = None
        # The last moment in which we own it: from here on the caller closes it.
        del self._race.sockets[sock]
        return Dialed(self._route, sock, way.session, alpn, address.sockaddr, self._spent_s)

    def _begin(self, phase: str) -> None:
        now = self._clock()
        self._spent_s[self._phase] = now - self._phase_at
        self._phase, self._phase_at = phase, now

    def _select(self, until_at: float | None = None) -> list[socket.socket]:
        """The sockets that are ready. Returns early when something woke us; raises at the deadline and on cancel."""
        self._check()
        self._cancel.phase = DialPhase(self._phase, self._waits())
        instants = [at for at in (until_at, self._deadline_at) if at is not None]
        timeout_s = min(max(0.0, min(instants) - self._clock()), LONGEST_SLEEP_S) if instants else None
        ready = [key.fileobj for key, _ in self._selector.select(timeout_s)]
        if self._wakeup.receiver in ready:
            self._wakeup.drain()
        return [sock for sock in ready if sock in self._race.sockets]

    def _wait_for(self, sock: socket.socket, events: int) -> None:
        self._selector.register(sock, events)
        try:
            while not self._select():
                continue
        finally:
            self._selector.unregister(sock)

    def _check(self) -> None:
        if self._cancel.cancelled:
            raise PoolClosed(f"connecting to {self._route.origin} was given up: nobody wants it any more")
        if self._deadline_at is not None and self._clock() >= self._deadline_at:
            self._time_out()

    def _time_out(self) -> NoReturn:
        for address in self._race.sockets.values():
            self._demote(address)
        self._cancel.phase = phase = DialPhase(self._phase, self._waits())
        self._begin("over")
        message = f"{self._route.origin} could not be connected in time: {phase.waits}"
        raise ConnectTimeout(message, step=phase.name, spent_s=self._spent_s)

    def _waits(self) -> str:
        """What for, in words."""
        race, proxy = self._race, self._route.proxy
        if self._phase == "dns":
            return f"{self._asked} was still being resolved"
        if self._phase == "tcp":
            whose = "" if proxy is None else f" of the proxy {proxy}"
            return f"no address{whose} had answered; still trying {race.under_way}{race.failed('; failed: ')}"
        if proxy is None:
            return f"the TLS handshake with {race.under_way} was not complete"
        if self._phase == "proxy":
            return f"the proxy {proxy} at {race.under_way} had not opened the way: {self._step} was not complete"
        return f"the TLS handshake with the origin, through the proxy {proxy} at {race.under_way}, was not complete"

    def _resolve_way(self) -> list[Address]:
        way, proxy = self._way, self._route.proxy
        if self._route.uds is not None:
            return [_on_this_machine(self._route.uds)]
        if proxy is None:
            return self._resolve(way.host, way.port, f"the host name {way.host}")
        if way.socks is not None and way.socks.wants_address:
            origin = self._route.origin
            way.socks.take_addresses(self._resolve(origin.host, origin.port, f"the host name {origin.host}"))
        try:
            return self._resolve(way.host, way.port, f"the host name of the proxy {proxy}")
        except NameResolutionError as error:
            raise ProxyError(f"proxy {proxy}: {error}") from error

    def _resolve(self, host: str, port: int, asked: str) -> list[Address]:
        self._asked = asked
        answer = self._resolver.lookup(host, port)
        answer.add_done_callback(lambda _: self._cancel.wake(self._wakeup))
        while not answer.done():
            self._select()
        error = answer.exception()
        if isinstance(error, HyperpoolError):
            raise error.own_copy() from error.__cause__
        return answer.result()

    def _connect(self, addresses: list[Address]) -> socket.socket:
        while (sock := self._race.run(addresses)) is None and self._is_full_for_now:
            # Unlike TCP's, a connect to a Unix socket does not wait for room among those that are to be accepted.
            self._race.failures.clear()
            self._rest(UNIX_RETRY_S)
        if sock is not None:
            return sock
        tried, cause = self._race.failed("tried "), self._race.failures[-1][1]
        if self._route.source_address is not None:
            tried += f"; from {self._route.source_address[0]}"
        if self._route.proxy is not None:
            where = f"the proxy {self._route.proxy} for {self._route.origin}"
            raise ProxyError(f"cannot connect to {where}: {tried}") from cause
        raise ConnectError(f"cannot connect to {self._route.origin}: {tried}") from cause

    @property
    def _is_full_for_now(self) -> bool:
        return self._route.uds is not None and self._race.failures[-1][1].errno == errno.EAGAIN

    def _rest(self, seconds: float) -> None:
        until_at = self._clock() + seconds
        while self._clock() < until_at:
            self._select(until_at)

    def _demote(self, address: Address) -> None:
        self._resolver.demote(self._way.host, self._way.port, address)


def _on_this_machine(path: str) -> Address:
    if not hasattr(socket, "AF_UNIX"):  # pragma: no cover - Windows
        raise ConnectError(f"{path}: Python has no Unix sockets on this system")
    return Address(socket.AF_UNIX, path)
