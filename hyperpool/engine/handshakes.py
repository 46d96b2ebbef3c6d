"""Shaking hands over a socket that is connected: with the proxy on the way to an origin, then with the origin.

Lives here: what moves the bytes of each step (engine/tunnel.py), and whose fault it is when one fails. Must never come
in: the clock, and which sockets there are; the dial, whose thread this runs on, has both.
"""

from __future__ import annotations

import selectors
from contextlib import suppress
from typing import TYPE_CHECKING

from hyperpool.engine.race import words
from hyperpool.errors import (
    CertificateError,
    ConnectError,
    ConnectionLost,
    HyperpoolError,
    ProxyError,
    RemoteProtocolError,
    TlsError,
)
from hyperpool.handoff.forks import gate

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from hyperpool.engine.tunnel import Step, Way
    from hyperpool.values import Route

# One recv of the handshake: a server's whole flight with its certificates is 3 to 6 KiB.
RECV_BYTES = 16_384


class Handshakes:
    """The handshakes of one dial, one after the other over the socket that has won the race.

    Owned by the dialling thread. ``wait_for`` blocks until the socket is ready for these events of `selectors`, and
    raises where the dial is over first; ``blame`` is called when what answers at this address is of no use.
    """

    def __init__(
        self,
        route: Route,
        way: Way,
        sock: socket.socket,
        *,
        wait_for: Callable[[socket.socket, int], None],
        blame: Callable[[], None],
    ) -> None:
        self._route = route
        self._way = way
        self._sock = sock
        self._wait_for = wait_for
        self._blame = blame

    def shake(self, step: Step) -> None:
        """Take one step of the way. Blocks until it is done.

        Raises CertificateError, TlsError and ProxyError, and whatever ``wait_for`` raises.
        """
        try:
            while not self._advance(step):
                self._send(step, step.ciphertext())
                self._receive(step)
            self._send(step, step.ciphertext())
        except CertificateError:
            self._send_alert(step)
            raise
        except (TlsError, ProxyError, ConnectionLost, RemoteProtocolError) as error:
            self._send_alert(step)
            self._blame()
            raise self._blamed(step, error) from error.__cause__

    def agreed_protocol(self) -> str | None:
        """What ALPN chose, once all steps are taken. Raises TlsError where that is not what the route needs."""
        session = self._way.session
        alpn = None if session is None else session.alpn
        if session is not None and not (self._route.http1 or self._route.force_http2) and alpn != "h2":
            who = "proxy" if self._way.tls is None else "server"
            raise TlsError(f"{self._route.origin}: the {who} does not speak HTTP/2 (ALPN: {alpn}); allow http1")
        return alpn

    def _advance(self, step: Step) -> bool:
        with gate:  # OpenSSL takes locks of its own in a handshake
            return step.handshake()

    def _send(self, step: Step, data: bytes) -> None:
        view = memoryview(data)
        while view:
            try:
                view = view[self._sock.send(view) :]
            except (BlockingIOError, InterruptedError):
                self._wait_for(self._sock, selectors.EVENT_WRITE)
            except OSError as error:
                raise self._broken(step, error) from error

    def _receive(self, step: Step) -> None:
        # Behind a SOCKS proxy's answer the origin's own bytes may follow at once: they stay in the socket.
        most_bytes = 1 if step is self._way.socks else RECV_BYTES
        while True:
            self._wait_for(self._sock, selectors.EVENT_READ)
            try:
                data = self._sock.recv(most_bytes)
            except (BlockingIOError, InterruptedError):
                continue
            except OSError as error:
                raise self._broken(step, error) from error
            step.feed(data) if data else step.feed_eof()
            return

    def _send_alert(self, step: Step) -> None:
        # Tells the server's log why. Suppressed: we are leaving, and the error on its way out says more.
        with suppress(OSError):
            self._sock.send(step.ciphertext())

    # -- whose fault it is -----------------------------------------------------------------------------------------

    def _blamed(self, step: Step, error: HyperpoolError) -> HyperpoolError:
        """The error as one of whoever it is about: TLS with the origin is the origin's, all else on the way is not."""
        if isinstance(error, ProxyError) or (step is self._way.tls and isinstance(error, TlsError)):
            return error
        return ProxyError(f"proxy {self._route.proxy}: {error}")

    def _broken(self, step: Step, error: OSError) -> ConnectError:
        if step is not self._way.tls:
            return ProxyError(f"proxy {self._route.proxy}: the connection broke ({words(error)})")
        return TlsError(f"{self._route.origin}: the connection broke during the TLS handshake ({words(error)})")
