"""The turning points of a process: the imports of its first request, its forks, its exit.

Every pool and every running loop is known here, so that a forked child can forget them and an exit can wait for them.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib
import os
import sys
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any, TypeVar

from hyperpool.handoff.inbox import InboxClosed
from hyperpool.handoff.messages import Drain

if TYPE_CHECKING:
    from hyperpool.engine.loop import OriginLoop
    from hyperpool.pool import ConnectionPool

T = TypeVar("T")

# How long answers are waited for when the interpreter exits with requests under way.
_EXIT_GRACE_S = 0.5

# Held over the first request's imports, and over forks: the interpreter keeps a lock for each module that is being
# imported, and in a child that is forked meanwhile nobody would ever release it.
_import_lock = threading.RLock()
_loaded: set[str] = set()
# A fork waits no longer than this for an import that does not end.
_IMPORTED_WITHIN_S = 10.0

# By id, not sets: `valuerefs` copies in one step, while a weak set cannot be walked when another thread adds to it.
pools: weakref.WeakValueDictionary[int, ConnectionPool] = weakref.WeakValueDictionary()
# All loops, also those of pools that were forgotten: they live on until they have ended.
running: weakref.WeakValueDictionary[int, OriginLoop] = weakref.WeakValueDictionary()


def tell(loop: OriginLoop, message: Any) -> bool:
    """Put a message into a loop's inbox; False where it has ended by itself."""
    try:
        loop.inbox.put(message)
    except InboxClosed:
        return False
    return True


def _drain_at_exit() -> None:
    """Let requests that were submitted and never waited for reach their end, for a short while.

    Nothing is closed: daemon threads may be in the middle of calls, and an error there would be printed although
    nobody did anything wrong. They stop with the interpreter, and so do our threads; the system closes the sockets.
    """
    until_at = time.monotonic() + _EXIT_GRACE_S
    waits = []
    for loop in _alive(running):
        answered = threading.Event()
        if tell(loop, Drain(answered.set)):
            waits.append(answered)
    for answered in waits:
        answered.wait(max(0.0, until_at - time.monotonic()))


# What requests need, and what those over TLS need besides. urllib3 parses URLs, and holds headers.
FOR_ALL = ("urllib3", *(f"hyperpool.engine.{name}" for name in ("dialler", "loop", "resolve", "trust")))
FOR_TLS = ("ssl", "certifi", "OpenSSL.SSL", "service_identity.cryptography")
# Others that are imported on the way, by whichever thread needs them first.
_ON_THE_WAY = ("brotli", "http.cookiejar", "idna", "urllib.request", "zstandard")


def load(what: str, names: tuple[str, ...]) -> None:
    """Import what requests need: not by `import hyperpool` but by the first request, and nowhere but here.

    A module that some thread imports later, when it is needed, might be just being imported when another one forks.
    """
    if what not in _loaded:
        with _import_lock:
            for name in names:
                with contextlib.suppress(ModuleNotFoundError):  # who needs it says so
                    importlib.import_module(name)
            _loaded.add(what)


def _hold_imports() -> None:
    _import_lock.acquire(timeout=_IMPORTED_WITHIN_S)
    for name in (*FOR_ALL, *FOR_TLS, *_ON_THE_WAY):
        if name in sys.modules:
            with contextlib.suppress(ImportError):  # whoever imports it is told
                importlib.import_module(name)  # waits for a thread that is at it, and is otherwise done at once


def _let_imports_go() -> None:
    with contextlib.suppress(RuntimeError):  # it was not to be had
        _import_lock.release()


def _start_anew_in_child() -> None:
    global _import_lock  # noqa: PLW0603 - one for the whole process
    _import_lock = threading.RLock()
    loops = _alive(running)
    running.clear()
    for pool in _alive(pools):
        pool.start_anew_in_child()
    # Then the loops: whatever their ends set free meets pools that can be used.
    for loop in loops:
        loop.abandon_in_child()


def _alive(known: weakref.WeakValueDictionary[int, T]) -> list[T]:
    return [one for ref in known.valuerefs() if (one := ref()) is not None]


atexit.register(_drain_at_exit)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_hold_imports, after_in_parent=_let_imports_go, after_in_child=_start_anew_in_child)
