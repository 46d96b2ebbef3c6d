"""The one way into a loop thread: a locked queue with a wake-up.

The rules, of which each has once been broken by somebody:

- A put that returned will be handled, and a put after close raises (L2). The loop closes the inbox only in the moment
  in which it sees it empty, under the same lock.
- No wake-up is lost (L3). The loop says that it is about to sleep (`may_sleep`) under the lock and only if nothing is
  there; whoever puts afterwards finds the flag and sends one byte. On waking the loop drains the bytes, clears the flag
  and takes the items, in that order: a byte that comes after the drain belongs to an item that is taken at once, and
  costs one empty turn. So does a byte that nobody drained because something else had woken the loop.
- A byte is sent only while the loop sleeps, so a busy loop costs its callers no system call.
- The lock is re-entrant: a finalizer may put at any allocation, also in a put on the same thread.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

T = TypeVar("T")

MEMORY_AGAIN_S = 0.05


class Wakeup(Protocol):
    """Wakes a sleeping selector. `wake` may be called from any thread, and never blocks."""

    def wake(self) -> None: ...

    def drain(self) -> None: ...


def until_there_is_memory(tell: Callable[..., T], *what: object) -> T:
    """Tell somebody something, again and again while memory is short.

    For threads of ours: a loop that counts on what they tell would wait for ever (L5), and nobody else could tell it.
    """
    while True:
        try:
            return tell(*what)
        except MemoryError:
            time.sleep(MEMORY_AGAIN_S)


class InboxClosed(Exception):
    """The loop has ended: ask the pool for its successor. Never leaves hyperpool."""


class Inbox:
    """Messages to one loop.

    Shared; guarded by _lock, which is never held over anything that blocks.
    """

    __slots__ = ("_asleep", "_closed", "_items", "_lock", "_taken", "_wakeup")

    def __init__(self, wakeup: Wakeup) -> None:
        self._lock = threading.RLock()
        self._wakeup = wakeup
        self._items: deque[Any] = deque()
        self._taken: deque[Any] = deque()
        self._asleep = False
        self._closed = False

    def put(self, item: Any) -> None:
        """Hand over one message. Never blocks. Raises InboxClosed when the loop has ended (L2)."""
        with self._lock:
            if self._closed:
                raise InboxClosed
            self._items.append(item)
            if self._asleep:
                self._asleep = False
                try:
                    self._wakeup.wake()
                except BaseException:  # a signal handler's: the next put must wake, perhaps once more
                    self._asleep = True
                    raise

    def may_sleep(self) -> bool:
        """Loop only: whether nothing waits. From a True on, the next put wakes the selector."""
        with self._lock:
            self._asleep = not self._items
            return self._asleep

    def take(self, *, woken: bool = True) -> deque[Any]:
        """Loop only: everything that waits, oldest first. ``woken``: whether the selector saw the wake-up's bytes.

        To be emptied as it is acted on: what is left in it belongs to `close`.
        """
        if woken:
            self._wakeup.drain()
        with self._lock:
            self._asleep = False
            # In one of the two at every moment: neither a fork nor a lack of memory in between must lose them.
            self._taken, self._items = self._items, deque()
        return self._taken

    def close_if_empty(self) -> bool:
        """Loop only: close, unless a message has come; whether it is closed now."""
        with self._lock:
            self._closed = self._closed or not self._items
            return self._closed

    def abandon_in_child(self) -> list[Any]:
        """After a fork, in the child: nobody takes anything here, and the lock may be held by a thread of before.

        Returns what the loop may not have acted on to the end.
        """
        self._lock = threading.RLock()
        # Closed first: what is dropped may have finalizers that put, and the parent must not be woken by a child.
        self._closed = True
        waited = [*self._taken, *self._items]
        self._items.clear()
        return waited

    def close(self) -> deque[Any]:
        """Loop only: close; what was not acted on to the end, which the caller must settle (L5), and take out then."""
        with self._lock:
            self._closed = True
            self._taken.extend(self._items)
            self._items.clear()
        return self._taken
