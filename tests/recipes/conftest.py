"""What the tests of the recipes share: the files as they stand in the documentation, and servers that they talk to."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from stage import AUTHORITY, OURS, Stage

RECIPES = Path(__file__).resolve().parents[2] / "docs" / "recipes"


class Kitchen(Stage):
    """Servers and clients of one test."""

    def server(self, handler: Any = None, **options: Any) -> Any:
        """A running server over TLS, which may meet errors: workers are stopped in the middle of things."""
        from hyperpool.testing import Server

        return self.enter(Server(handler, **OURS, **options))

    def client(self, **options: Any) -> Any:
        """A client that trusts these servers."""
        import hyperpool

        return self.enter(hyperpool.Client(verify=AUTHORITY.ca_pem, **options))


@pytest.fixture
def kitchen() -> Iterator[Kitchen]:
    """Closed at the end of the test."""
    kitchen = Kitchen()
    try:
        yield kitchen
    finally:
        kitchen.close()


@pytest.fixture
def ca_path(tmp_path: Path) -> str:
    """The file of the authority that the servers' certificates are of."""
    path = tmp_path / "ca.pem"
    path.write_bytes(AUTHORITY.ca_pem)
    return str(path)


@pytest.fixture
def recipe(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """Runs a file of the recipes as a module of its own."""

    def load(name: str) -> ModuleType:
        spec = importlib.util.spec_from_file_location(name, RECIPES / f"{name}.py")
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, name, module)
        spec.loader.exec_module(module)
        return module

    return load
