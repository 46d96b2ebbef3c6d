"""The bench of the tests of hyper's API: the ways in which its connections reach a server."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hyperpool.connection import HTTP11Connection, HTTP20Connection, HTTPConnection
from hyperpool.testing import ScriptedPeer, Server
from hyperpool.tls import init_context
from stage import OURS, WAIT_S, Stage


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


class Bench(Stage):
    """Servers and connections of one test, closed in the reverse order of their making."""

    def __init__(self, ca_file: str) -> None:
        super().__init__()
        self.ca_file = ca_file

    def server(self, way: Way = H2, handler: Any = None, *, errors_expected: bool = False, **options: Any) -> Server:
        """A running server for this way, with the kit's default paths unless a handler is given."""
        if way.tls:
            options = {**OURS, **options}
        options = {"http2": way.server_http2, **options}
        server = self.enter(Server(handler, tls=way.tls, **options))
        if not errors_expected:
            self._servers.append(server)
        return server

    def peer(self, script: Any, **options: Any) -> ScriptedPeer:
        """A running scripted peer."""
        options = {**OURS, "timeout_s": WAIT_S, **options}
        return self.enter(ScriptedPeer(script, **options))

    def connection(self, way: Way, port: int, **options: Any) -> Any:
        """A connection of the way's class to a port here."""
        if way.tls:
            options = {"ssl_context": init_context(self.ca_file), **options}
        options = {"timeout": WAIT_S, "secure": way.tls, **options}
        return self.enter(way.kind("localhost", port, **options))

    def pair(self, way: Way = H2, handler: Any = None, **options: Any) -> tuple[Server, Any]:
        """A server and a connection to it."""
        server = self.server(way, handler)
        return server, self.connection(way, server.port, **options)
