"""The bench of the urllib3 and requests faces: servers for the three wires; sessions and managers for them."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from hyperpool.testing import Server
from stage import OURS, WAIT_S, Stage


@dataclass(frozen=True)
class Wire:
    """How HTTP is carried, and what urllib3 calls that version."""

    name: str
    tls: bool
    http2: bool

    @property
    def version(self) -> int:
        return 20 if self.http2 else 11

    def __str__(self) -> str:
        return self.name


H2_TLS = Wire("h2-tls", tls=True, http2=True)
H1_TLS = Wire("h1-tls", tls=True, http2=False)
H1_PLAIN = Wire("h1-plain", tls=False, http2=False)
WIRES = (H2_TLS, H1_TLS, H1_PLAIN)


linux_only = pytest.mark.skipif(sys.platform != "linux", reason="only there all of 127.0.0.0/8 is this machine")


class Bench(Stage):
    """Servers, managers and sessions of one test, closed in the reverse order of their making."""

    def __init__(self, ca_file: Path) -> None:
        super().__init__()
        self.ca_file = str(ca_file)

    def server(self, wire: Wire = H2_TLS, handler: Any = None, **options: Any) -> Any:
        if wire.tls:
            options = {**OURS, **options}
        return self.enter(Server(handler, tls=wire.tls, **{"http2": wire.http2, **options}))

    def manager(self, **options: Any) -> Any:
        from hyperpool.contrib.urllib3 import PoolManager

        return self.enter(PoolManager(**{"ca_certs": self.ca_file, **options}))

    def session(self, **options: Any) -> Any:
        """A session over the adapter, which trusts the servers and no environment."""
        import requests

        from hyperpool.contrib import HTTP20Adapter

        session = self.enter(requests.Session())
        session.trust_env, session.verify = False, self.ca_file
        adapter = HTTP20Adapter(**options)
        session.mount("https://", adapter)
        session.mount("http://", adapter)
        return session


def raised(kind: type[BaseException], act: Callable[[], object]) -> Any:
    """The exception that the call raises, which is of this kind."""
    with pytest.raises(kind) as caught:
        act()
    return caught.value


def from_threads(n: int, act: Callable[[int], Any]) -> list[Any]:
    """What n threads got from the same act, all of them at once."""
    together = threading.Barrier(n)

    def run(number: int) -> Any:
        together.wait(WAIT_S)
        return act(number)

    with ThreadPoolExecutor(n) as crew:
        return list(crew.map(run, range(n)))


def peer_of(bench: Bench, wire: Wire, act: Callable[[str], object]) -> str:
    """The address from which ``act(url)`` connects; it must bear that nobody answers."""
    listener = bench.enter(socket.create_server(("127.0.0.1", 0)))
    url = f"{'https' if wire.tls else 'http'}://127.0.0.1:{listener.getsockname()[1]}/"
    with ThreadPoolExecutor(1) as crew:
        asked = crew.submit(act, url)
        sock, (host, _) = listener.accept()
        sock.close()
        listener.close()
        assert isinstance(asked.exception(WAIT_S), Exception)
    return str(host)


def option_of_socket_to(port: int, level: int, option: int) -> int | None:
    """The option of this process's socket that is connected to a port; Linux only."""
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            number = os.dup(int(name))
            try:
                if stat.S_ISSOCK(os.fstat(number).st_mode) and (found := _option(number, port, level, option)):
                    return found
            finally:
                os.close(number)
    return None


def _option(number: int, port: int, level: int, option: int) -> int | None:
    sock = socket.socket(fileno=number)
    try:
        is_wanted = sock.family == socket.AF_INET and sock.getpeername()[1] == port
        return sock.getsockopt(level, option) if is_wanted else None
    finally:
        sock.detach()
