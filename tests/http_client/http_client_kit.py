"""The bench for `hyperpool.http_client`: the wires it runs over, servers, and connection objects that trust them."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hyperpool import http_client
from hyperpool.testing import ScriptedPeer, Server
from stage import AUTHORITY, OURS, WAIT_S, Stage


@dataclass(frozen=True)
class Wire:
    """How HTTP is carried."""

    name: str
    tls: bool
    http2: bool

    @property
    def version(self) -> int:
        return 20 if self.http2 else 11

    def __str__(self) -> str:
        return self.name


H2 = Wire("h2-tls", tls=True, http2=True)
H1_TLS = Wire("h1-tls", tls=True, http2=False)
H1 = Wire("h1-plain", tls=False, http2=False)
WIRES = (H2, H1_TLS, H1)


class Kit(Stage):
    """Servers and connection objects of one test, closed in the reverse order of their making."""

    def __init__(self) -> None:
        super().__init__()
        # One for the test: objects share where they have the same one.
        self.context = self.fresh_context()

    @staticmethod
    def fresh_context() -> ssl.SSLContext:
        """A context that trusts the kit's servers."""
        return ssl.create_default_context(cadata=AUTHORITY.ca_pem.decode())

    def server(self, wire: Wire = H2, handler: Any = None, *, errors_expected: bool = False, **options: Any) -> Any:
        """A running server that speaks what the wire says, with the default paths unless a handler is given."""
        if wire.tls:
            options = {**OURS, **options}
        server = self.enter(Server(handler, tls=wire.tls, http2=wire.http2, **options))
        if not errors_expected:
            self._servers.append(server)
        return server

    def peer(self, script: Any, **options: Any) -> Any:
        """A running peer that does what the script says."""
        options = {**OURS, "timeout_s": WAIT_S, **options}
        return self.enter(ScriptedPeer(script, **options))

    def connection(self, server: Any, **options: Any) -> Any:
        """A connection object for a server or peer; one that is never closed is so at the end."""
        if server.origin.startswith("https"):
            made: Any = http_client.HTTPSConnection("localhost", server.port, **{"context": self.context, **options})
        else:
            made = http_client.HTTPConnection("localhost", server.port, **options)
        self._stack.callback(made.close)
        return made

    def close(self) -> None:
        # First, so that what is on its way there ends with it.
        self._stack.callback(http_client.shared_pool().close, grace_s=0.0)
        super().close()


def fetch(connection: Any, path: str = "/", **how: Any) -> bytes:
    """GET it, and read all of it."""
    connection.request("GET", path, **how)
    body: bytes = connection.getresponse().read()
    return body


def threads(act: Callable[[int], None], n: int) -> list[BaseException]:
    """Run it n times at once; what was raised."""
    raised: list[BaseException] = []

    def run(number: int) -> None:
        try:
            act(number)
        except BaseException as error:
            raised.append(error)

    crew = [threading.Thread(target=run, args=(number,)) for number in range(n)]
    for each in crew:
        each.start()
    for each in crew:
        each.join(WAIT_S)
    return raised
