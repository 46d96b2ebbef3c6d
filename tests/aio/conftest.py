"""What the tests of the asyncio face share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from aio_kit import WIRES, Kit, Wire


@pytest.fixture
def kit() -> Iterator[Kit]:
    """Makes servers and clients; at the end no server may have met an error that the test did not announce."""
    kit = Kit()
    try:
        yield kit
    finally:
        kit.close()
    assert kit.server_errors() == []


@pytest.fixture(params=WIRES, ids=str)
def wire(request: pytest.FixtureRequest) -> Wire:
    """HTTP/2 and HTTP/1.1 over TLS, and HTTP/1.1 without."""
    return request.param


@pytest.fixture(params=[one for one in WIRES if not one.http2], ids=str)
def h1_wire(request: pytest.FixtureRequest) -> Wire:
    """HTTP/1.1, over TLS and plain."""
    return request.param
