"""Forks: what a child makes anew, of which objects, and what no fork may happen in the middle of.

A lock that some thread held in the moment of the fork is held for ever in the child, where that thread does not exist.
Locks of our own are made anew there. Those of the interpreter's imports and of OpenSSL are not ours to make, so a fork
waits at a gate until nobody is at work that takes them.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")
Act = TypeVar("Act", bound=Callable[[], object])


def in_child(act: Act) -> Act:
    """Call this in every forked child, after those that were given before. Serves as a decorator."""
    if hasattr(os, "register_at_fork"):  # pragma: no branch - Windows does not fork
        os.register_at_fork(after_in_child=act)
    return act


class ForkGate:
    """Work that no fork may happen in the middle of. A context manager, entered once by a thread.

    Shared; guarded by _lock. Many may be inside at once. A fork waits for them, and keeps others out until it is done.
    """

    # A fork waits no longer than this for work that does not end: a hang would be worse than the risk.
    PATIENCE_S = 10.0

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """As new: nobody is inside, and no fork is under way."""
        # Taken itself, and by a finalizer within: see `handoff.body`.
        self._lock = threading.RLock()
        self._cond = threading.Condition(self._lock)
        self._inside: list[int] = []
        self._forks = 0

    def __enter__(self) -> None:
        with self._lock:
            while self._forks:
                self._cond.wait()
            self._inside.append(threading.get_ident())

    def __exit__(self, *exc_info: object) -> None:
        mine = threading.get_ident()
        with self._lock:
            if mine in self._inside:  # else this is a child, and its thread has forked in here
                self._inside.remove(mine)
            self._cond.notify_all()

    def close(self) -> None:
        """Keep others out, and wait until all who are inside have left; a thread does not wait for itself."""
        mine = threading.get_ident()
        with self._lock:
            self._forks += 1
            self._cond.wait_for(lambda: all(each == mine for each in self._inside), self.PATIENCE_S)

    def open(self) -> None:
        """This fork is over; others may be under way."""
        with self._lock:
            self._forks -= 1
            self._cond.notify_all()


# One for the whole process.
gate = ForkGate()
in_child(gate.begin)
if hasattr(os, "register_at_fork"):  # pragma: no branch - Windows does not fork
    os.register_at_fork(before=gate.close, after_in_parent=gate.open)


class Known(Generic[T]):
    """All living objects of a kind.

    Shared; each operation is one step, with and without a GIL. It keeps none of them alive.
    """

    def __init__(self) -> None:
        # By id, not a set: `valuerefs` copies in one step, while a weak set cannot be walked when another thread adds.
        self._by_id: weakref.WeakValueDictionary[int, T] = weakref.WeakValueDictionary()

    def add(self, one: T) -> None:
        """One more."""
        self._by_id[id(one)] = one

    def clear(self) -> None:
        """Forget all."""
        self._by_id.clear()

    def __iter__(self) -> Iterator[T]:
        return iter([one for ref in self._by_id.valuerefs() if (one := ref()) is not None])
