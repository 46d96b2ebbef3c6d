r"""Request items, in HTTPie's notation: ``Header:value``, ``q==v``, ``field=v``, ``field:=json``, ``@file`` and so on.

The first separator of a word decides, and of those that begin at the same place the longest. A backslash before a
separator in the name takes its meaning away (``a\:b=c`` is the field "a:b"), and two are one backslash there
(``a\\=b`` is the field "a\"); what stands behind the separator is taken as it is. No file is opened here.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from hyperpool.cli.words import UsageError

# Longest first.
_SEPARATORS = (":=@", "==@", "=@", ":=", "==", ":@", "=", ":", "@")
_SPECIAL = frozenset(":=@;")


@dataclass(frozen=True, slots=True)
class Item:
    """One item: what stands before the separator, the separator, and what stands behind it. Immutable."""

    name: str
    separator: str
    value: str
    text: str


@dataclass(slots=True)
class Items:
    """The items of a command line, sorted by what they become. Owned by the run."""

    headers: list[Item] = field(default_factory=list)
    query: list[Item] = field(default_factory=list)
    fields: list[Item] = field(default_factory=list)
    files: list[Item] = field(default_factory=list)
    whole_body: str | None = None

    @property
    def has_body(self) -> bool:
        """Whether any item makes a body."""
        return bool(self.fields or self.files) or self.whole_body is not None


def parse_items(words: Iterable[str]) -> Items:
    """Sort items by their separators. Raises UsageError for a word that is none."""
    items = Items()
    for word in words:
        _sort(items, parse_item(word))
    if items.whole_body is not None and (items.fields or items.files):
        raise UsageError(f"@{items.whole_body} is the whole body: it cannot stand beside fields")
    return items


def parse_item(word: str) -> Item:
    """One item of a word. Raises UsageError where it has no separator, or nothing before it."""
    name = ""
    at = 0
    while at < len(word):
        if word[at] == "\\":
            literal, length = _unescaped(word[at:])
            name += literal
            at += length
            continue
        if at + 1 == len(word) and word[at] == ";":
            return Item(_named(name, word), ";", "", word)
        separator = next((one for one in _SEPARATORS if word.startswith(one, at)), None)
        if separator is not None:
            return _made(name, separator, word[at + len(separator) :], word)
        name += word[at]
        at += 1
    raise UsageError(f"{word!r} is no request item: write Name:value, name==value, name=value or @file")


def _unescaped(rest: str) -> tuple[str, int]:
    """What the backslashes at the beginning mean, with the separator that they cover; how long that is written."""
    backslashes = len(rest) - len(rest.lstrip("\\"))
    following = rest[backslashes : backslashes + 1]
    if following not in _SPECIAL:
        return rest[:backslashes], backslashes
    covered = following if backslashes % 2 else ""
    return "\\" * (backslashes // 2) + covered, backslashes + len(covered)


def _made(name: str, separator: str, value: str, word: str) -> Item:
    if separator.endswith("@") and not value.partition(";type=")[0]:
        raise UsageError(f"{word!r}: a path is missing behind the @")
    if separator == "@" and not name:
        return Item("", "@", value, word)
    if separator == ":" and not name:
        return _pseudo(value, word)
    return Item(_named(name, word), separator, value, word)


def _pseudo(rest: str, word: str) -> Item:
    """``:authority:host``: hyper's command line took pseudo-headers; the one with a meaning of its own is Host."""
    name, colon, value = rest.partition(":")
    if name == "authority" and colon:
        return Item("Host", ":", value, word)
    raise UsageError(f"{word!r}: pseudo-headers are made of METHOD and URL; only :authority may be given")


def _named(name: str, word: str) -> str:
    if not name:
        raise UsageError(f"{word!r}: a name is missing before the separator")
    return name


def _sort(items: Items, item: Item) -> None:
    if item.separator in (":", ";", ":@"):
        items.headers.append(item)
    elif item.separator in ("==", "==@"):
        items.query.append(item)
    elif item.separator != "@":
        items.fields.append(item)
    elif item.name:
        items.files.append(item)
    elif items.whole_body is None:
        items.whole_body = item.value
    else:
        raise UsageError(f"{item.text!r}: a request has one body only")
