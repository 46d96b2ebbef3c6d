"""What the tests of the test kit share: real clients that are not hyperpool's, each bounded by a timeout."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import httpx
import pytest
from kit_clients import TIMEOUT_S, trusting

from hyperpool.testing import ScriptedPeer, Server
from hyperpool.testing.pytest_plugin import hyperpool_server

__all__ = ["hyperpool_server"]


@pytest.fixture
def client() -> Iterator[Callable[..., httpx.Client]]:
    """Make an httpx client for a server; closed after the test."""
    made: list[httpx.Client] = []

    def make(server: Server | ScriptedPeer, *, http2: bool = True, http1: bool = True) -> httpx.Client:
        verify = trusting(server.ca_pem)
        made.append(httpx.Client(http2=http2, http1=http1, verify=verify, timeout=TIMEOUT_S, trust_env=False))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture
def in_thread() -> Iterator[Callable[[Callable[[], object]], threading.Thread]]:
    """Run a function in a thread that is joined after the test."""
    started: list[threading.Thread] = []

    def run(act: Callable[[], object]) -> threading.Thread:
        started.append(threading.Thread(target=act, daemon=True))
        started[-1].start()
        return started[-1]

    yield run
    for thread in started:
        thread.join(TIMEOUT_S)
        assert not thread.is_alive()
