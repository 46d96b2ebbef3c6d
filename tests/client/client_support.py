"""The bench of the end-to-end tests: wires, a kit of servers and clients, and waits that always end."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import hyperpool
from hyperpool.testing import ScriptedConnection, ScriptedPeer, Server
from stage import AUTHORITY, OURS, WAIT_S, Stage


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
        return {"http1": not self.http2, "http2": self.http2}

    def __str__(self) -> str:
        return self.name


H2_TLS = Wire("h2-tls", tls=True, http2=True)
H1_TLS = Wire("h1-tls", tls=True, http2=False)
H1_PLAIN = Wire("h1-plain", tls=False, http2=False)
H2_PLAIN = Wire("h2-plain", tls=False, http2=True)
WIRES = (H2_TLS, H1_TLS, H1_PLAIN, H2_PLAIN)
PLAIN_WIRES = (H1_PLAIN, H2_PLAIN)


class Kit(Stage):
    """Servers and clients of one test, closed in the reverse order of their making."""

    def server(self, wire: Wire = H2_TLS, handler: Any = None, *, errors_expected: bool = False, **options: Any) -> Any:
        """A running server for the wire, with the default paths unless a handler is given."""
        if wire.tls:
            options = {**OURS, **options}
        server = self.enter(Server(handler, tls=wire.tls, **options))
        if not errors_expected:
            self._servers.append(server)
        return server

    def peer(self, script: Any, **options: Any) -> Any:
        """A running scripted peer."""
        options = {**OURS, "timeout_s": WAIT_S, **options}
        peer = self.enter(ScriptedPeer(script, **options))
        return peer

    def client(self, wire: Wire = H2_TLS, **options: Any) -> Any:
        """A client that trusts the kit's servers and speaks the wire's version only."""
        if "pool" not in options:
            options = {"verify": AUTHORITY.ca_pem if wire.tls else True, **wire.client_options, **options}
        return self.enter(hyperpool.Client(**options))

    def pair(self, wire: Wire = H2_TLS, handler: Any = None, **client_options: Any) -> tuple[Any, Any]:
        """A server and a client for it."""
        return self.server(wire, handler), self.client(wire, **client_options)

    def pool(self, wire: Wire = H2_TLS, **options: Any) -> Any:
        """A pool of its own, for clients that share one."""
        options = {"verify": AUTHORITY.ca_pem if wire.tls else True, **wire.client_options, **options}
        return self.enter(hyperpool.ConnectionPool(**options))

    def threads(self, n: int) -> ThreadPoolExecutor:
        """A crew of n threads."""
        return self.enter(ThreadPoolExecutor(n))


def error_of(future: Any, kind: type[BaseException] = BaseException) -> Any:
    """The error that a Future ends with, which must be of this very class."""
    error = future.exception(WAIT_S)
    assert type(error) is kind or (kind is BaseException and error is not None), repr(error)
    return error


def raised(kind: type[BaseException], act: Callable[[], object]) -> Any:
    """The exception of this very class that the call raises."""
    with pytest.raises(kind) as caught:
        act()
    assert type(caught.value) is kind, repr(caught.value)
    return caught.value


def pieces(n_bytes: int, piece_bytes: int = 64 << 10) -> Iterator[bytes]:
    """n bytes of zeros, piece by piece."""
    piece = bytes(piece_bytes)
    for at in range(0, n_bytes, piece_bytes):
        yield piece[: min(piece_bytes, n_bytes - at)]


def run_program(
    folder: Path, text: str, *arguments: str, timeout_s: float = 2 * WAIT_S
) -> subprocess.CompletedProcess[str]:
    """Run a program in an interpreter of its own, in which warnings are errors."""
    program = folder / "program.py"
    program.write_text(text)
    command = [sys.executable, "-W", "error", str(program), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)


def stale(connection: ScriptedConnection) -> None:
    """Answer one request, then close when the next one begins: the race that every kept connection can lose."""
    connection.recv_until(b"\r\n\r\n")
    connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    if connection.number == 1:
        connection.recv(1)
        return
    connection.drain()
