"""docs/api.md lists every public name: what is not there is found by nobody."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import hyperpool

PAGE = Path(__file__).parent.parent / "docs" / "api.md"
_DIRECTIVE = re.compile(r"^\.\. (currentmodule|auto\w+|py:data):: ([\w.]+)", re.MULTILINE)


def documented() -> set[str]:
    module, names = "", set()
    for directive, name in _DIRECTIVE.findall(PAGE.read_text("utf-8")):
        if directive == "currentmodule":
            module = name
        else:
            names.add(name if name.startswith("hyperpool.") else f"{module}.{name}")
    return names


@pytest.mark.parametrize("name", hyperpool.__all__)
def test_every_public_name_stands_on_the_page_of_the_api(name: str) -> None:
    assert f"hyperpool.{name}" in documented()


def test_the_page_of_the_api_lists_nothing_that_is_not_there() -> None:
    for name in documented():
        module, _, attribute = name.rpartition(".")
        assert hasattr(__import__(module, fromlist=["x"]), attribute), name
