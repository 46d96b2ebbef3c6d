"""Who may wait: no thread of ours that does I/O (L11), and nobody when those are gone.

A done-callback of a Future runs on the I/O thread; if it waited there for another response, nobody would be left to
read that response. The call raises at once instead.
"""

from __future__ import annotations

import sys
import threading

from hyperpool.errors import PoolClosed
from hyperpool.handoff.forks import in_child


class _Here(threading.local):
    """Of the calling thread."""

    is_loop = False


_here = _Here()


def enter_loop_thread() -> None:
    """Mark the calling thread as an I/O thread for the rest of its life."""
    _here.is_loop = True


@in_child
def leave_loop_thread() -> None:
    """Take the mark from the calling thread: where one has forked, it is an ordinary thread of the child."""
    _here.is_loop = False


def on_loop_thread() -> bool:
    """Whether the calling thread is an I/O thread of hyperpool."""
    return _here.is_loop


def may_join() -> bool:
    """Whether the calling thread may wait for the end of one of ours: an I/O thread may not, or it could be waiting for
    itself, and nobody may when the interpreter is about to be gone: our threads are gone before, without an end."""
    return not (on_loop_thread() or sys.is_finalizing())


def check_may_wait(call: str) -> None:
    """Raise where a wait would be for ever: RuntimeError on an I/O thread of hyperpool, and PoolClosed when the
    interpreter is about to be gone, as it is to finalizers of what it takes with it: our threads are gone before."""
    if sys.is_finalizing():
        raise PoolClosed(f"{call}: the interpreter is shutting down, nobody is left to answer; do that before its end")
    if on_loop_thread():
        raise RuntimeError(
            f"{call} would block an I/O thread of hyperpool for ever; a done-callback must not wait:"
            " hand the work to a thread of your own"
        )
