"""The bench of the asyncio face: tests that are coroutines, the wires, servers, and clients that are closed."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from threading import Event
from typing import Any

import hyperpool
from hyperpool.aio import AsyncClient
from hyperpool.testing import Reply, Server
from stage import AUTHORITY, OURS, WAIT_S, Stage

PIECE = bytes(64 << 10)


@dataclass(frozen=True)
class Wire:
    """How HTTP is carried."""

    name: str
    tls: bool
    http2: bool

    @property
    def version(self) -> str:
        return "HTTP/2" if self.http2 else "HTTP/1.1"

    @property
    def client_options(self) -> dict[str, Any]:
        """What makes a client speak this and nothing else."""
        return {
            "verify": AUTHORITY.ca_pem if self.tls else True,
            "http1": not self.http2,
            "http2": self.http2,
            "trust_env": False,
        }

    def __str__(self) -> str:
        return self.name


H2_TLS = Wire("h2-tls", tls=True, http2=True)
H1_TLS = Wire("h1-tls", tls=True, http2=False)
H1_PLAIN = Wire("h1-plain", tls=False, http2=False)
WIRES = (H2_TLS, H1_TLS, H1_PLAIN)


class Kit(Stage):
    """Servers and clients of one test, closed in the reverse order of their making."""

    def server(self, wire: Wire = H2_TLS, handler: Any = None, *, errors_expected: bool = False, **options: Any) -> Any:
        if wire.tls:
            options = {**OURS, **options}
        server = self.enter(Server(handler, tls=wire.tls, **options))
        if not errors_expected:
            self._servers.append(server)
        return server

    def client(self, wire: Wire = H2_TLS, **options: Any) -> AsyncClient:
        """A client that speaks the wire's version only; closed at the end, when no event loop runs any more."""
        return AsyncClient(client=self.enter(hyperpool.Client(**{**wire.client_options, **options})))

    def pair(self, wire: Wire = H2_TLS, handler: Any = None, **client_options: Any) -> tuple[Any, AsyncClient]:
        return self.server(wire, handler), self.client(wire, **client_options)


def in_event_loop(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """A test that is a coroutine, in an event loop of its own; bounded."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        asyncio.run(asyncio.wait_for(test(*args, **kwargs), 2 * WAIT_S))

    return run


async def until(server: Any, holds: Callable[[Any], bool]) -> bool:
    """`Server.wait_until`, while the event loop goes on."""
    return await asyncio.to_thread(server.wait_until, holds, WAIT_S)


class Tap:
    """A reply's body that counts how far it got."""

    def __init__(self, n_bytes: int) -> None:
        self.given_bytes = 0
        self.closed = Event()
        self._n_bytes = n_bytes

    def __iter__(self) -> Iterator[bytes]:
        try:
            while self.given_bytes < self._n_bytes:
                self.given_bytes += len(PIECE)
                yield PIECE
        finally:
            self.closed.set()


def with_huge(server: Any, n_bytes: int = 100 << 20) -> list[Tap]:
    """Let the server answer /huge with n bytes; the taps of the answers."""
    taps: list[Tap] = []

    @server.route("/huge")
    def huge(request: object) -> Reply:
        taps.append(Tap(n_bytes))
        return Reply(200, body=iter(taps[-1]))

    return taps


class Spring:
    """An async body that counts what was taken of it. Iterable once; ``waits_at`` bytes it waits for ever."""

    def __init__(self, n_bytes: int, *, waits_at: int | None = None) -> None:
        self.given_bytes = 0
        self.is_closed = False
        self._n_bytes = n_bytes
        self._waits_at = waits_at

    def body(self) -> AsyncIterator[bytes]:
        return self._pieces()

    async def _pieces(self) -> AsyncIterator[bytes]:
        try:
            while self.given_bytes < self._n_bytes:
                if self.given_bytes == self._waits_at:
                    await asyncio.Event().wait()
                self.given_bytes += len(PIECE)
                yield PIECE
        finally:
            self.is_closed = True
