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
from typing import TYPE_CHECKING, Any

from hyperpool.handoff.forks import Known, gate, in_child
from hyperpool.handoff.inbox import InboxClosed
from hyperpool.handoff.messages import Drain

if TYPE_CHECKING:
    from hyperpool.engine.loop import OriginLoop
    from hyperpool.pool import ConnectionPool

# How long answers are waited for when the interpreter exits with requests under way.
_EXIT_GRACE_S = 0.5

_loaded: set[str] = set()

pools: Known[ConnectionPool] = Known()
# All loops, also those of pools that were forgotten: they live on until they have ended.
running: Known[OriginLoop] = Known()


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
    for loop in running:
        answered = threading.Event()
        if tell(loop, Drain(answered.set)):
            waits.append(answered)
    for answered in waits:
        answered.wait(max(0.0, until_at - time.monotonic()))


# What requests need, and what those over TLS need besides. urllib3 parses URLs, and holds headers; socket.getaddrinfo
# asks for the codec. What functions of ours import when they are called stands here too, where any request may come
# to call them.
FOR_ALL = (
    "urllib3",
    "encodings.idna",
    *(f"hyperpool.engine.{name}" for name in ("dialler", "loop", "resolve", "trust")),
    *("hyperpool.protocol.content", "hyperpool.handoff.pushes", "base64", "datetime", "http", "json", "urllib.parse"),
)
FOR_TLS = ("ssl", "certifi", "OpenSSL.SSL", "service_identity.cryptography")
# Others that are imported on the way, by whichever thread needs them first.
_ON_THE_WAY = (
    *("brotli", "http.cookiejar", "idna", "ipaddress", "netrc", "pathlib", "urllib.request", "zstandard"),
    *(f"hyperpool.policy.{name}" for name in ("download", "flights", "multipart", "progress", "suffixes", "upload")),
)


def load(what: str, names: tuple[str, ...]) -> None:
    """Import what requests need: not by `import hyperpool` but by the first request, and nowhere but here.

    A module that some thread imports later, when it is needed, might be just being imported when another one forks.
    """
    if what not in _loaded:
        # The interpreter keeps a lock for each module that is being imported.
        with gate:
            for name in names:
                with contextlib.suppress(ModuleNotFoundError):  # who needs it says so
                    importlib.import_module(name)
        _loaded.add(what)


def _wait_for_imports() -> None:
    for name in (*FOR_ALL, *FOR_TLS, *_ON_THE_WAY):
        if name in sys.modules:
            with contextlib.suppress(ImportError):  # whoever imports it is told
                importlib.import_module(name)  # waits for a thread that is at it, and is otherwise done at once


@in_child
def _start_anew_in_child() -> None:
    loops = list(running)
    running.clear()
    for pool in pools:
        pool.start_anew_in_child()
    # Then the loops: whatever their ends set free meets pools that can be used.
    for loop in loops:
        loop.abandon_in_child()


atexit.register(_drain_at_exit)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_wait_for_imports)
