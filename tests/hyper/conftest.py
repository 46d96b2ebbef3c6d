"""What the tests of hyper's API share: the ways to reach a server, and what is closed after each test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hyper_support import WAYS, Bench, Way

from stage import AUTHORITY


@pytest.fixture(scope="session")
def ca_file(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The certificate of the authority that all servers here have theirs from."""
    path = tmp_path_factory.mktemp("ca") / "ca.pem"
    path.write_bytes(AUTHORITY.ca_pem)
    return str(path)


@pytest.fixture
def bench(ca_file: str) -> Iterator[Bench]:
    """Makes servers and connections; at the end no server may have met an error that the test did not announce."""
    bench = Bench(ca_file)
    try:
        yield bench
    finally:
        bench.close()
    assert bench.server_errors() == []


@pytest.fixture(params=WAYS, ids=str)
def way(request: pytest.FixtureRequest) -> Way:
    """Each class over each kind of connection: HTTP/2, HTTP/1.1, h2c by upgrade and by prior knowledge."""
    return request.param


@pytest.fixture(params=[one for one in WAYS if one.http2], ids=str)
def h2_way(request: pytest.FixtureRequest) -> Way:
    """Those that end up with HTTP/2."""
    return request.param


@pytest.fixture(params=[one for one in WAYS if not one.http2], ids=str)
def h1_way(request: pytest.FixtureRequest) -> Way:
    """Those that end up with HTTP/1.1."""
    return request.param
