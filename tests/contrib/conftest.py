"""What the tests of the urllib3 and requests faces share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from adapter_kit import WIRES, Bench, Wire

from stage import AUTHORITY


@pytest.fixture(scope="session")
def ca_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ca") / "ca.pem"
    path.write_bytes(AUTHORITY.ca_pem)
    return path


@pytest.fixture
def bench(ca_file: Path) -> Iterator[Bench]:
    """Makes servers, managers and sessions, and closes them."""
    bench = Bench(ca_file)
    try:
        yield bench
    finally:
        bench.close()


@pytest.fixture(params=WIRES, ids=str)
def wire(request: pytest.FixtureRequest) -> Wire:
    """HTTP/2 and HTTP/1.1 over TLS, and HTTP/1.1 without."""
    return request.param
