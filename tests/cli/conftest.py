"""What the command line's tests share: servers and runs, ended after each test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_support import Kit


@pytest.fixture
def kit(tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch) -> Iterator[Kit]:
    """Servers, and the command line against them; no proxy of the environment stands between."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    kit = Kit(tmp_path, capsysbinary)
    with kit.stack:
        yield kit
