"""The servers that somebody else wrote; each runs once for a module's tests."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import pytest
from interop_kit import running

import hyperpool
from hyperpool import Client
from stress import servers
from stress.servers import Served

SERVERS: dict[str, Callable[[], contextlib.AbstractContextManager[Served]]] = {
    "nginx-h2": servers.nginx,
    "nginx-h1": lambda: servers.nginx(h2=False),
    "nghttpd": servers.nghttpd,
}


@pytest.fixture(scope="module", params=SERVERS)
def served(request: pytest.FixtureRequest) -> Iterator[Served]:
    """Each of the servers."""
    with running(SERVERS[request.param]()) as started:
        yield started


@pytest.fixture
def start() -> Iterator[Callable[[contextlib.AbstractContextManager[Served]], Served]]:
    """Start a server for one test: ``start(servers.nginx(keepalive_requests=10))``."""
    with contextlib.ExitStack() as stack:
        yield lambda made: stack.enter_context(running(made))


@pytest.fixture
def client(served: Served) -> Iterator[Client]:
    """A client that trusts the server, closed after the test."""
    with hyperpool.Client(verify=served.ca_pem, timeout=30, trust_env=False) as made:
        yield made
