"""What the end-to-end tests share: the wires they run over, and servers and clients that are closed after each test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from client_support import PLAIN_WIRES, WIRES, Kit, Wire


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
    """Each of the four ways in which HTTP is carried."""
    return request.param


@pytest.fixture(params=[one for one in WIRES if one.http2], ids=str)
def h2_wire(request: pytest.FixtureRequest) -> Wire:
    """HTTP/2, over TLS and with prior knowledge."""
    return request.param


@pytest.fixture(params=[one for one in WIRES if not one.http2], ids=str)
def h1_wire(request: pytest.FixtureRequest) -> Wire:
    """HTTP/1.1, over TLS and plain."""
    return request.param


@pytest.fixture(params=PLAIN_WIRES, ids=str)
def plain_wire(request: pytest.FixtureRequest) -> Wire:
    """HTTP/1.1 and HTTP/2 without TLS, where a test only counts bytes."""
    return request.param
