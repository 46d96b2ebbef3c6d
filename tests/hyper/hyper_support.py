"""The bench of the tests of hyper's API: the ways in which its connections reach a server."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from hyperpool.connection import HTTP11Connection, HTTP20Connection, HTTPConnection
from hyperpool.testing import CertificateAuthority, ScriptedPeer, Server
from hyperpool.tls import init_context

# A bound for broken code only: nothing that works comes near it.
WAIT_S = 20.0

# One for all tests: making a key costs more than most of them.
AUTHORITY = CertificateAuthority()
SERVER_CERTIFICATE = AUTHORITY.issue("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True)
class Way:
    """A connection class, and the kind of server to which it leads."""

    name: str
    kind: type[Any]
    tls: bool
    http2: bool
    server_http2: bool = True

    @property
    def gives_ids(self) -> bool:
        """Whether already the first request gets a stream id."""
        return self.http2 and (self.tls or self.kind is HTTP20Connection)

    def __str__(self) -> str:
        return self.name


H2 = Way("HTTPConnection-h2", HTTPConnection, tls=True, http2=True)
H1 = Way("HTTPConnection-h1", HTTPConnection, tls=True, http2=False, server_http2=False)
H2C = Way("HTTPConnection-h2c", HTTPConnection, tls=False, http2=True)
H1_PLAIN = Way("HTTPConnection-plain", HTTPConnection, tls=False, http2=False, server_http2=False)
H20 = Way("HTTP20Connection", HTTP20Connection, tls=True, http2=True)
PRIOR = Way("HTTP20Connection-plain", HTTP20Connection, tls=False, http2=True)
H11 = Way("HTTP11Connection", HTTP11Connection, tls=True, http2=False)
WAYS = (H2, H1, H2C, H1_PLAIN, H20, PRIOR, H11)


class Bench:
    """Servers and connections of one test, closed in the reverse order of their making."""

    def __init__(self, ca_file: str) -> None:
        self.ca_file = ca_file
        self._stack = ExitStack()
        self._servers: list[Server] = []
        self._gates: list[threading.Event] = []

    def server(self, way: Way = H2, handler: Any = None, *, errors_expected: bool = False, **options: Any) -> Server:
        """A running server for this way, with the kit's default paths unless a handler is given."""
        if way.tls:
            options = {"authority": AUTHORITY, "certificate": SERVER_CERTIFICATE, **options}
        options = {"http2": way.server_http2, **options}
        server = self._stack.enter_context(Server(handler, tls=way.tls, **options))
        if not errors_expected:
            self._servers.append(server)
        return server

    def peer(self, script: Any, **options: Any) -> ScriptedPeer:
        """A running scripted peer."""
        options = {"authority": AUTHORITY, "certificate": SERVER_CERTIFICATE, **options}
        return self._stack.enter_context(ScriptedPeer(script, **options))

    def connection(self, way: Way, port: int, **options: Any) -> Any:
        """A connection of the way's class to a port here."""
        if way.tls:
            options = {"ssl_context": init_context(self.ca_file), **options}
        options = {"timeout": WAIT_S, "secure": way.tls, **options}
        return self._stack.enter_context(way.kind("localhost", port, **options))

    def pair(self, way: Way = H2, handler: Any = None, **options: Any) -> tuple[Server, Any]:
        """A server and a connection to it."""
        server = self.server(way, handler)
        return server, self.connection(way, server.port, **options)

    def gate(self) -> threading.Event:
        """An Event for handlers to wait for; opened at the latest before anything closes."""
        gate = threading.Event()
        self._gates.append(gate)
        return gate

    def close(self) -> None:
        for gate in self._gates:
            gate.set()
        self._stack.close()

    def server_errors(self) -> list[BaseException]:
        return [error for server in self._servers for error in server.errors]


def opened(gate: threading.Event) -> None:
    """Wait for the gate, in a handler or a generator; fails instead of hanging."""
    if not gate.wait(WAIT_S):
        raise AssertionError("the gate was never opened")


def eventually(holds: Callable[[], bool]) -> bool:
    """Whether it holds before long: for what nobody announces."""
    pause = threading.Event()
    deadline_at = time.monotonic() + WAIT_S
    while not holds():
        if time.monotonic() > deadline_at:
            return False
        pause.wait(0.002)
    return True
