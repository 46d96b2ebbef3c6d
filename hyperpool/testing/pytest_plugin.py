"""The pytest fixture of the test kit; pytest finds it by the entry point group ``pytest11``."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from hyperpool.testing.server import Server


@pytest.fixture
def hyperpool_server() -> Iterator[Server]:
    """A running TLS server with the default paths, closed after the test."""
    with Server() as server:
        yield server
