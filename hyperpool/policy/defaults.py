"""The headers that a client sends with every request, which threads may change while requests go on."""

from __future__ import annotations

import threading
from collections.abc import ItemsView, Iterator, MutableMapping
from typing import Any

from hyperpool.policy.writing import Headers, default_headers, merged, without
from hyperpool.values import HeadersLike, LastingHeaders


class DefaultHeaders(MutableMapping[str, str]):
    """Header fields by name, whatever its case.

    Shared; guarded by _lock. Each change puts a new tuple in place: a request has all of the fields as they were when
    it was submitted, and no change reaches one that is under way. ``update`` is one change, however many names it has.
    """

    def __init__(self, given: HeadersLike) -> None:
        self._lock = threading.RLock()
        self.fields: Headers = LastingHeaders(merged(default_headers(), given))

    def replace(self, given: HeadersLike) -> None:
        """Put these over hyperpool's own defaults, in place of all that was set before."""
        fields = LastingHeaders(merged(default_headers(), given))
        with self._lock:
            self.fields = fields

    def update(self, *given: Any, **named: Any) -> None:
        """Set several fields in one change; None as a value removes one."""
        pairs = dict(*given, **named)
        with self._lock:
            self.fields = LastingHeaders(merged(self.fields, pairs))

    def __setitem__(self, name: str, value: Any) -> None:
        self.update({name: value})

    def __getitem__(self, name: str) -> str:
        found = [value for key, value in self.fields if key.lower() == name.lower()]
        if not found:
            raise KeyError(name)
        return ", ".join(found)

    def __delitem__(self, name: str) -> None:
        with self._lock:
            kept = without(self.fields, frozenset((name.lower(),)))
            missing = len(kept) == len(self.fields)
            self.fields = LastingHeaders(kept)
        if missing:
            raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys(name for name, _ in self.fields))

    def __len__(self) -> int:
        return len(dict.fromkeys(name for name, _ in self.fields))

    def items(self) -> ItemsView[str, str]:
        """Names and values of one moment: unlike ``dict(headers)``, it meets no field that is gone."""
        found: dict[str, str] = {}
        for name, value in self.fields:
            found[name] = f"{found[name]}, {value}" if name in found else value
        return found.items()

    def start_anew_in_child(self) -> None:
        """After a fork: another thread of the parent may have held the lock."""
        self._lock = threading.RLock()

    def __repr__(self) -> str:
        # Names alone: values may be credentials, and this ends in logs.
        return f"<DefaultHeaders {', '.join(self)}>"
