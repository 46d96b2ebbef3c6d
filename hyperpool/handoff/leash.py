"""What ties a streamed response to its stream, so that one that is forgotten is noticed and its slot comes back."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable

from hyperpool.handoff.body import BodyPipe


class Leash:
    """Ties a streamed Response to its stream, so that a forgotten one is noticed.

    Owned by its Response; the finalizer may run on any thread, which the inbox's re-entrant lock allows. ``made_at``
    None: to forget it is no mistake.
    """

    __slots__ = ("_made_at", "_reset", "pipe")

    def __init__(self, pipe: BodyPipe, *, reset: Callable[[], None], made_at: str | None) -> None:
        self.pipe = pipe
        self._reset = reset
        self._made_at = made_at

    def let_go(self) -> bool:
        """Drop what is unread, and reset the stream if the peer is still sending; whether it was."""
        sending = self.pipe.abandon()
        if sending:
            self._reset()
        return sending

    def __del__(self) -> None:
        # What the interpreter's end takes with it was not forgotten.
        if self.let_go() and self._made_at is not None and not sys.is_finalizing():
            warnings.warn(
                f"a streamed response was forgotten before its end; it was asked for at {self._made_at}."
                " Read it to its end, close() it, or use a with block",
                ResourceWarning,
                stacklevel=2,
            )


def caller() -> str:
    """Where the program asks for this: the nearest frame outside hyperpool."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith(("hyperpool.", "contextlib")):
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"
