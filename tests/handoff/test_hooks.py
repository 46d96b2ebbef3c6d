"""Hooks: what may be given, and that whoever only listens harms nobody."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from hyperpool.handoff.hooks import NAMES, as_hooks, tell


class Listener:
    """Hears of responses alone."""

    def __init__(self) -> None:
        self.heard: list[Any] = []

    def response(self, response: Any) -> None:
        self.heard.append(response)


def test_nothing_given_is_nothing_to_tell() -> None:
    assert as_hooks(None) is None


def test_the_methods_of_an_object_are_its_hooks() -> None:
    listener = Listener()
    hooks = as_hooks(listener)
    assert hooks is not None and [name for name in NAMES if getattr(hooks, name)] == ["response"]
    tell(hooks.response, 5)
    tell(hooks.request, 6)
    assert listener.heard == [5]


def test_a_mapping_names_a_callable_or_several() -> None:
    heard: list[Any] = []
    hooks = as_hooks({"request": heard.append, "retry": [lambda *what: heard.append(what)], "response": []})
    assert hooks is not None and hooks.response is None
    tell(hooks.request, 1)
    tell(hooks.retry, 2, 3)
    assert heard == [1, (2, 3)]


def test_an_empty_mapping_listens_to_nothing() -> None:
    hooks = as_hooks({})
    assert hooks is not None and not any(getattr(hooks, name) for name in NAMES)


@pytest.mark.parametrize("bad", [{"typo": print}, {"request": [5]}, {"request": 5}, object()], ids=["name", *"abc"])
def test_what_cannot_be_told_anything_is_refused(bad: Any) -> None:
    with pytest.raises(TypeError):
        as_hooks(bad)


@pytest.mark.parametrize("fault", [ValueError, SystemExit])
def test_what_a_hook_raises_is_logged(fault: type[BaseException], caplog: pytest.LogCaptureFixture) -> None:
    def raising() -> None:
        raise fault("mine")

    with caplog.at_level(logging.ERROR, "hyperpool"):
        tell(raising)
    assert [record.exc_info[0] for record in caplog.records if record.exc_info] == [fault]
