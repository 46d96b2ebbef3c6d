"""From a route to a connection: name, addresses, the race between them, the TLS handshake.

Lives here: `dial`, `Dialed` (what it makes) and `DialCancel` (how others stop it). Must never come in: HTTP.

A dial runs on a short-lived thread of its own, so that the loop never waits for a network (L4). It sleeps in one select
that watches the racing sockets, the deadline, and the wake-up of its DialCancel; the answer of the name service, which
comes on another thread, uses the same wake-up. So a cancel or a deadline ends a dial at once in every phase, and each
way out but the good one closes every socket that was opened.

The race (RFC 8305 5): the first address is tried at once, the next one after 250 ms or as soon as the last one failed;
the first to connect wins. TLS is shaken with the winner only: a certificate that is refused is never tried elsewhere.
"""

from __future__ import annotations

import errno
import os
import selectors
import socket
import threading
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from hyperpool.engine.wakeup import SocketWakeup
from hyperpool.errors import CertificateError, ConnectError, ConnectTimeout, HyperpoolError, PoolClosed, TlsError

if TYPE_CHECKING:
    from collections.abc import Callable

    from hyperpool.engine.resolve import Address, Resolver
    from hyperpool.engine.trust import TlsConfig
    from hyperpool.protocol.tls import TlsStream
    from hyperpool.values import Route

# RFC 8305 8, the recommended delay. Half of it opens needless sockets on long paths; twice as much is felt by people
# whose IPv6 is broken.
NEXT_ADDRESS_S = 0.25

# One recv of the handshake: a server's whole flight with its certificates is 3 to 6 KiB.
RECV_BYTES = 16_384

# What a connect that has only begun says, on Windows by another name; 0 where loopback was faster. Not EWOULDBLOCK: on
# Linux that is EAGAIN, a connect that failed for want of kernel memory, on a socket that then looks writable.
_UNDER_WAY = {0, errno.EINPROGRESS, getattr(errno, "WSAEWOULDBLOCK", errno.EINPROGRESS)}


@dataclass(frozen=True, slots=True)
class Dialed:
    """A connection that is ready for HTTP. Immutable; owned by whoever has it, who must `close` or use it.

    The socket is non-blocking. ``tls`` may hold bytes of the server already (HTTP/2 servers talk first): read it once
    before the first select. ``spent_s`` has the seconds of each phase: "dns", "tcp", "tls".
    """

    route: Route
    sock: socket.socket
    tls: TlsStream | None
    alpn: str | None
    peername: tuple[Any, ...]
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


class DialCancel:
    """Ends dials from another thread, now and for ever.

    Shared; guarded by _lock. May be given to any number of dials.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._wakeups: list[SocketWakeup] = []
        self.cancelled = False

    def cancel(self) -> None:
        """Make the dials raise PoolClosed at once, and later ones as soon as they begin."""
        with self._lock:
            self.cancelled = True
            for wakeup in self._wakeups:
                wakeup.wake()

    def attach(self) -> SocketWakeup:
        """Used by a dial: the new wake-up belongs to its selector."""
        wakeup = SocketWakeup()
        with self._lock:
            self._wakeups.append(wakeup)
        return wakeup

    def wake(self, wakeup: SocketWakeup) -> None:
        """Make one dial look around; nothing happens when it is over. Never blocks."""
        with self._lock:
            # The lock keeps the dial from closing the pair between look and send; one byte never waits.
            if wakeup in self._wakeups:
                wakeup.wake()

    def detach(self, wakeup: SocketWakeup) -> None:
        """Used by a dial that is over."""
        with self._lock:
            self._wakeups.remove(wakeup)
        wakeup.close()


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

    Raises NameResolutionError, ConnectError, TlsError, CertificateError, ConnectTimeout, or PoolClosed where it was
    cancelled; each with ``origin``. No socket is left open then.
    """
    origin = str(route.origin)
    try:
        # First, since it needs no network: settings that cannot be used are told before anything is tried.
        tls = _session(route, tls_config)
        attempt = _Dial(route, resolver, deadline_at, cancelled or DialCancel(), seams)
        try:
            return attempt.run(tls)
        finally:
            attempt.close()
    except HyperpoolError as error:
        # Before OSError, which a ConnectTimeout is as well.
        error.origin = origin
        raise
    except OSError as error:
        # The system has no socket pair or selector left, or select itself failed.
        raise ConnectError(f"cannot connect to {origin}: {_words(error)}", origin=origin) from error


def _session(route: Route, tls_config: TlsConfig) -> TlsStream | None:
    if route.origin.scheme != "https":
        return None
    return tls_config.client(route.origin.host, http1=route.http1, http2=route.http2)


class _Dial:
    """One dial in progress.

    Owned by the dialling thread.
    """

    def __init__(
        self, route: Route, resolver: Resolver, deadline_at: float | None, cancel: DialCancel, seams: Seams
    ) -> None:
        self._route = route
        self._resolver = resolver
        self._deadline_at = deadline_at
        self._cancel = cancel
        self._clock = seams.clock
        self._socket_factory = seams.socket_factory
        self._sockets: dict[socket.socket, Address] = {}
        self._failures: list[tuple[Address, OSError]] = []
        self._spent_s: dict[str, float] = {}
        self._phase, self._phase_at = "dns", self._clock()
        self._selector = seams.selector_factory()
        try:
            self._wakeup = cancel.attach()
        except OSError:
            self._selector.close()
            raise

    def close(self) -> None:
        """Close whatever was not handed over."""
        for sock in self._sockets:
            sock.close()
        self._selector.close()
        self._cancel.detach(self._wakeup)

    def run(self, tls: TlsStream | None) -> Dialed:
        """The phases in their order."""
        self._selector.register(self._wakeup.receiver, selectors.EVENT_READ)
        addresses = self._resolve()
        self._begin("tcp")
        sock = self._connect(addresses)
        address = self._sockets[sock]
        if tls is not None:
            self._begin("tls")
            self._shake_hands(sock, tls, address)
        self._begin("done")
        # The last moment in which we own it: from here on the caller closes it.
        del self._sockets[sock]
        alpn = None if tls is None else tls.alpn
        return Dialed(self._route, sock, tls, alpn, address.sockaddr, self._spent_s)

    def _begin(self, phase: str) -> None:
        now = self._clock()
        self._spent_s[self._phase] = now - self._phase_at
        self._phase, self._phase_at = phase, now

    def _select(self, until_at: float | None = None) -> list[socket.socket]:
        """The sockets that are ready. Returns early when something woke us; raises at the deadline and on cancel."""
        self._check()
        instants = [at for at in (until_at, self._deadline_at) if at is not None]
        timeout_s = max(0.0, min(instants) - self._clock()) if instants else None
        ready = [key.fileobj for key, _ in self._selector.select(timeout_s)]
        if self._wakeup.receiver in ready:
            self._wakeup.drain()
        return [sock for sock in ready if sock in self._sockets]

    def _check(self) -> None:
        if self._cancel.cancelled:
            raise PoolClosed(f"connecting to {self._route.origin} was given up: nobody wants it any more")
        if self._deadline_at is not None and self._clock() >= self._deadline_at:
            self._time_out()

    def _time_out(self) -> NoReturn:
        for address in self._sockets.values():
            self._demote(address)
        doing = {
            "dns": "its host name was still being resolved",
            "tcp": f"no address had answered; still trying {self._named_sockets()}{self._named_failures('; failed: ')}",
            "tls": f"the TLS handshake with {self._named_sockets()} was not complete",
        }[self._phase]
        self._begin("over")
        raise ConnectTimeout(f"{self._route.origin} could not be connected in time: {doing}", spent_s=self._spent_s)

    def _named_sockets(self) -> str:
        return ", ".join(map(str, self._sockets.values())) or "none"

    def _named_failures(self, lead: str) -> str:
        named = [f"{address} ({_words(error)})" for address, error in self._failures]
        return lead + ", ".join(named) if named else ""

    def _resolve(self) -> list[Address]:
        origin = self._route.origin
        answer = self._resolver.lookup(origin.host, origin.port)
        answer.add_done_callback(lambda _: self._cancel.wake(self._wakeup))
        while not answer.done():
            self._select()
        error = answer.exception()
        if isinstance(error, HyperpoolError):
            raise error.own_copy() from error.__cause__
        return answer.result()

    def _connect(self, addresses: list[Address]) -> socket.socket:
        waiting = deque(addresses)
        next_at = self._clock()
        while waiting or self._sockets:
            if waiting and (not self._sockets or self._clock() >= next_at):
                self._check()
                next_at = self._clock() + NEXT_ADDRESS_S if self._start(waiting.popleft()) else next_at
                continue
            for sock in self._select(next_at if waiting else None):
                if self._finish(sock):
                    return self._win(sock)
                next_at = self._clock()
        raise self._refused()

    def _start(self, address: Address) -> bool:
        """Begin to connect; False where that failed at once."""
        try:
            sock = self._socket_factory(address.family, socket.SOCK_STREAM)
        except OSError as error:
            self._note_failure(address, error)
            return False
        self._sockets[sock] = address
        try:
            sock.setblocking(False)
            # Set before connecting: after a reset some systems refuse options on a socket.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            code = sock.connect_ex(address.sockaddr)
            if code not in _UNDER_WAY:
                raise OSError(code, os.strerror(code))
            self._selector.register(sock, selectors.EVENT_WRITE)
        except OSError as error:
            self._drop(sock, error)
            return False
        return True

    def _finish(self, sock: socket.socket) -> bool:
        try:
            code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if code:
                raise OSError(code, os.strerror(code))
        except OSError as error:
            self._selector.unregister(sock)
            self._drop(sock, error)
            return False
        return True

    def _win(self, winner: socket.socket) -> socket.socket:
        for sock in list(self._sockets):
            self._selector.unregister(sock)
            if sock is not winner:
                del self._sockets[sock]
                sock.close()
        return winner

    def _drop(self, sock: socket.socket, error: OSError) -> None:
        address = self._sockets.pop(sock)
        sock.close()
        self._note_failure(address, error)

    def _note_failure(self, address: Address, error: OSError) -> None:
        self._failures.append((address, error))
        self._demote(address)

    def _demote(self, address: Address) -> None:
        self._resolver.demote(self._route.origin.host, self._route.origin.port, address)

    def _refused(self) -> ConnectError:
        error = ConnectError(f"cannot connect to {self._route.origin}: {self._named_failures('tried ')}")
        error.__cause__ = self._failures[-1][1]
        return error

    def _shake_hands(self, sock: socket.socket, tls: TlsStream, address: Address) -> None:
        try:
            while not tls.handshake():
                self._send(sock, tls.ciphertext())
                self._receive(sock, tls)
            self._send(sock, tls.ciphertext())
            self._check_protocol(tls)
        except CertificateError:
            self._send_alert(sock, tls)
            raise
        except TlsError:
            self._send_alert(sock, tls)
            self._demote(address)
            raise

    def _check_protocol(self, tls: TlsStream) -> None:
        if not (self._route.http1 or self._route.force_http2) and tls.alpn != "h2":
            raise TlsError(f"{self._route.origin}: the server does not speak HTTP/2 (ALPN: {tls.alpn}); allow http1")

    def _send(self, sock: socket.socket, data: bytes) -> None:
        view = memoryview(data)
        while view:
            try:
                view = view[sock.send(view) :]
            except (BlockingIOError, InterruptedError):
                self._await(sock, selectors.EVENT_WRITE)
            except OSError as error:
                raise self._broken(error) from error

    def _receive(self, sock: socket.socket, tls: TlsStream) -> None:
        while True:
            self._await(sock, selectors.EVENT_READ)
            try:
                data = sock.recv(RECV_BYTES)
            except (BlockingIOError, InterruptedError):
                continue
            except OSError as error:
                raise self._broken(error) from error
            tls.feed(data) if data else tls.feed_eof()
            return

    def _await(self, sock: socket.socket, events: int) -> None:
        self._selector.register(sock, events)
        try:
            while not self._select():
                continue
        finally:
            self._selector.unregister(sock)

    def _broken(self, error: OSError) -> TlsError:
        return TlsError(f"{self._route.origin}: the connection broke during the TLS handshake ({_words(error)})")

    def _send_alert(self, sock: socket.socket, tls: TlsStream) -> None:
        # Tells the server's log why. Suppressed: we are leaving, and the error on its way out says more.
        with suppress(OSError):
            sock.send(tls.ciphertext())


def _words(error: OSError) -> str:
    return error.strerror or str(error) or type(error).__name__
