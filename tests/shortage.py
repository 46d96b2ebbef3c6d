"""Memory that runs out at the Nth line of ours, for N = 1, 2, 3, ...: a trace function raises there."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hyperpool

_OURS = str(Path(hyperpool.__file__).parent)


class Shortage:
    """Runs calls on this thread, in which memory runs out once: at the Nth line of all.

    ``struck``: whether there were as many lines. Finalizers are spared: nobody could be told by one. Nor are those of
    what other tests have left run meanwhile: what a weak reference calls has no name by which it could be spared.
    """

    def __init__(self, at: int) -> None:
        self._left = at
        self.struck = False

    def run(self, call: Callable[[], Any]) -> Any:
        before = sys.gettrace()
        gc.disable()
        sys.settrace(self._enter)
        try:
            return call()
        finally:
            sys.settrace(before)
            gc.enable()

    def _enter(self, frame: Any, event: str, arg: Any) -> Any:
        return self._trace if frame.f_code.co_filename.startswith(_OURS) and not _is_finalizing(frame) else None

    def _trace(self, frame: Any, event: str, arg: Any) -> Any:
        if event == "line":
            self._left -= 1
            if not self._left:
                self.struck = True
                raise MemoryError
        return self._trace


def _is_finalizing(frame: Any) -> bool:
    while frame is not None:
        if frame.f_code.co_name == "__del__":
            return True
        frame = frame.f_back
    return False
