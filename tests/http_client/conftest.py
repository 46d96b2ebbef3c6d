"""What the tests of the http.client face share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from http_client_kit import WIRES, Kit, Wire


@pytest.fixture
def kit() -> Iterator[Kit]:
    """Makes servers and connection objects; at the end no server may have met an error that nobody announced."""
    kit = Kit()
    try:
        yield kit
    finally:
        kit.close()
    assert kit.server_errors() == []


@pytest.fixture(params=WIRES, ids=str)
def wire(request: pytest.FixtureRequest) -> Wire:
    """HTTP/2 and HTTP/1.1 over TLS, and HTTP/1.1 in plaintext."""
    found: Wire = request.param
    return found


@pytest.fixture(params=[one for one in WIRES if not one.http2], ids=str)
def h1_wire(request: pytest.FixtureRequest) -> Wire:
    """HTTP/1.1, over TLS and plain."""
    found: Wire = request.param
    return found
