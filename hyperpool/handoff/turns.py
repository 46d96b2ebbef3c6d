"""Turns at reading a body: one reader at a time, and none that goes on behind bytes which an interrupt has swallowed.

A signal handler may raise wherever something is called: Ctrl-C, an alarm. Between the pipe and whoever called `read`, a
piece is in nobody's hands but those of the frames that the exception ends. A reader that waits has nothing there.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from hyperpool.errors import HyperpoolError, LocalProtocolError, ResponseClosed

T = TypeVar("T")
P = ParamSpec("P")


class _Read(Protocol):
    """What is read in turns. ``_reading`` says by whom; it is shared with whatever reads the same body."""

    _reading: dict[str, Any]

    def _where(self) -> dict[str, Any]: ...


S = TypeVar("S", bound=_Read)

# In the place of the thread that reads: it was interrupted, and what it had taken is nowhere.
TORN = (0,)


def turns(
    *told: type[BaseException], refusing: Callable[[Any, HyperpoolError], BaseException] = lambda reader, error: error
) -> Callable[[Callable[Concatenate[S, P], T]], Callable[Concatenate[S, P], T]]:
    """Take this step, unless another thread is just taking one: it would miss what this one gets.

    The mark is set in one operation, with and without a GIL, and taken away by the last one: behind that there is
    nothing of ours. Where the step is interrupted the mark stays, and who reads on is told; but the source of the body
    takes it away where it ended before it had given anything; from then on another thread may have one there.

    ``told``: errors that are a part of reading, or of a wrong call. ``refusing``: what to raise in place of our error
    to who may take no step.
    """

    def decorated(step: Callable[Concatenate[S, P], T]) -> Callable[Concatenate[S, P], T]:
        @functools.wraps(step)
        def turn(self: S, *args: P.args, **kwargs: P.kwargs) -> T:
            mark = (threading.get_ident(),)
            if (found := self._reading.setdefault("by", mark)) is not mark:
                raise refusing(self, _out_of_turn(found, mark, self._where()))
            try:
                made = step(self, *args, **kwargs)
            except told:
                if self._reading.get("by") in (mark, TORN):
                    del self._reading["by"]
                raise
            except BaseException:
                if self._reading.get("by") is mark:
                    self._reading["by"] = TORN
                raise
            # Neither of these two calls anything, so no signal is looked for behind the first one.
            del self._reading["by"]; return made  # fmt: skip  # noqa: E702 - for those who trace line by line

        return turn  # type: ignore[return-value]

    return decorated


in_turn = turns(HyperpoolError, StopIteration, TypeError, ValueError)


def _out_of_turn(found: tuple[int], mark: tuple[int], where: dict[str, Any]) -> HyperpoolError:
    if found in (TORN, mark):
        what = "reading this response was interrupted while bytes were handed over, and some may be missing: ask again"
        return ResponseClosed(what, **where)
    return LocalProtocolError("another thread is reading this response: a body has one reader at a time", **where)
