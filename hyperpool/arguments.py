"""What callers give, judged at the door: one place for each kind of value.

Each of these, but for `plain`, takes the name of the parameter and what was given for it, and gives that back. It
raises at once, in the caller's thread: TypeError for another kind of thing, ValueError for what is out of bounds. What
may hold a secret is named by its type alone.
"""

from __future__ import annotations

import math
import operator
import os
import sys
from collections.abc import Mapping
from typing import Any

# By equality: numpy's bools are no ints.
_FLAGS = {False: False, True: True}


def flag(name: str, given: Any) -> bool:
    """True or False, also as 1 and 0, and as numpy's. A word would else be taken for True, whatever it says."""
    try:
        return _FLAGS[given]
    except (KeyError, TypeError):  # what has no hash, too
        raise TypeError(f"{name} must be True or False, not {given!r}") from None


def whole(name: str, given: Any, *, least: int) -> int:
    """A whole number from ``least`` on; neither a float nor a bool."""
    try:
        number = operator.index(given)
    except TypeError:
        number = None
    if number is None or isinstance(given, bool):
        raise TypeError(f"{name} must be a whole number, not {given!r}")
    if number < least:
        raise ValueError(f"{name} must be {least} or more, not {given!r}")
    return number


def seconds(name: str, given: Any) -> float:
    """A number of seconds; fewer than 0 are what a deadline that has passed leaves."""
    if isinstance(given, bool) or not isinstance(given, (int, float)):
        raise TypeError(f"{name} must be a number of seconds, not {given!r}")
    if not (abs(given) <= sys.float_info.max or given == math.inf):  # NaN, or a whole number that no float holds
        raise ValueError(f"{name} must be a number of seconds, not {given!r}")
    return given


def text(name: str, given: Any) -> str:
    """A str."""
    if not isinstance(given, str):
        raise TypeError(f"{name} must be str, not {type(given).__name__}")
    return str.__str__(given)


def plain(given: Any) -> Any:
    """What an Enum of str stands for, not the name of its member; everything else as it is."""
    return str.__str__(given) if isinstance(given, str) else given


def path(name: str, given: Any) -> str:
    """A path, as str."""
    found = os.fspath(given) if isinstance(given, os.PathLike) else given
    if not isinstance(found, str):
        raise TypeError(f"{name} must be a path, as str or os.PathLike, not {given!r}")
    return found


def callback(name: str, given: Any) -> Any:
    """What can be called, or None."""
    if given is not None and not callable(given):
        raise TypeError(f"{name} must be a callable or None, not {given!r}")
    return given


def instance(name: str, given: Any, kind: type) -> Any:
    """One of ours."""
    if not isinstance(given, kind):
        called = kind.__name__
        raise TypeError(f"{name} must be {called}, not {type(given).__name__}: give hyperpool.{called}(...)")
    return given


def pairs(name: str, given: Any) -> list[tuple[Any, Any]]:
    """The pairs of a mapping, or of an iterable, which is read here."""
    if isinstance(given, Mapping):
        return list(given.items())
    if isinstance(given, (str, bytes, bytearray)) or (found := _entries(given)) is None:
        raise TypeError(f"{name} must be a mapping or (name, value) pairs, not {type(given).__name__}")
    for one in found:
        if not isinstance(one, (tuple, list)) or len(one) != 2:
            what = f"a {type(one).__name__} among them is none"
            raise TypeError(f"{name} must be a mapping or (name, value) pairs, and {what}: give tuples of two")
    return found


def _entries(given: Any) -> list[Any] | None:
    try:
        entries = iter(given)
    except TypeError:
        return None
    return list(entries)
