"""Which threads are I/O threads of ours, so that no call of ours ever blocks on one (L11).

A done-callback of a Future runs on the I/O thread; if it waited there for another response, nobody would be left to
read that response. The call raises at once instead.
"""

from __future__ import annotations

import threading

from hyperpool.handoff.forks import in_child

_here = threading.local()


def enter_loop_thread() -> None:
    """Mark the calling thread as an I/O thread for the rest of its life."""
    _here.is_loop = True


@in_child
def leave_loop_thread() -> None:
    """Take the mark from the calling thread: where one has forked, it is an ordinary thread of the child."""
    _here.is_loop = False


def on_loop_thread() -> bool:
    """Whether the calling thread is an I/O thread of hyperpool."""
    return getattr(_here, "is_loop", False)


def refuse_on_loop_thread(call: str) -> None:
    """Raise RuntimeError where the calling thread is an I/O thread of hyperpool."""
    if on_loop_thread():
        raise RuntimeError(
            f"{call} would block an I/O thread of hyperpool for ever; a done-callback must not wait:"
            " hand the work to a thread of your own"
        )
