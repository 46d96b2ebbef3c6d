"""How far a transfer is, told to whoever wants to know: a callback of the caller's, or a bar on standard error.

A bar is drawn by rich where that is installed; several at once stand below each other, also those of several threads.
Without rich it is one line of text, written anew in its place on a terminal and once, at the end, elsewhere.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Optional, Union

from hyperpool.handoff.forks import in_child

Tell = Callable[[int, Optional[int]], object]
ProgressLike = Union[Tell, bool, None]

# Seconds between two states of a line of text. Halved, a terminal flickers; doubled, it seems to stand.
_LINE_EVERY_S = 0.2


def check_progress(progress: ProgressLike) -> None:
    """Raises TypeError for what is none of `ProgressLike`."""
    if not (progress is None or isinstance(progress, bool) or callable(progress)):
        raise TypeError(f"progress must be a callable, True or None, not {progress!r}")


@contextmanager
def shown(progress: ProgressLike, label: str, *, unit: str = "B") -> Iterator[Tell]:
    """What to call with (done, total or None), for the time of the with block.

    ``progress``: a callable, which is given itself; True for a bar; None or False for nothing. ``unit`` "B": bytes.
    """
    check_progress(progress)
    if progress is None or progress is False:
        yield _nobody
    elif progress is True:
        with (_bars if _has_rich() else _line)(label, unit) as tell:
            yield tell
    else:
        yield progress


def _nobody(done: int, total: int | None) -> None:
    """Nobody wants to know."""


def _has_rich() -> bool:
    try:
        import rich.progress  # noqa: F401 - whether it is there is the question
    except ImportError:
        return False
    return True


# -- with rich ---------------------------------------------------------------------------------------------------------


class _Board:
    """The bars of this process: one display, which is there as long as any transfer is under way.

    Shared; guarded by _lock. rich's own display guards itself, and is never called with the lock held.
    """

    def __init__(self) -> None:
        self.start_anew()

    def start_anew(self) -> None:
        """As new; after a fork, the thread that draws stayed with the parent, and the lock may be held."""
        self._lock = threading.Lock()
        self._display: Any = None
        self._users = 0

    def begin(self) -> Any:
        """The display that is there, or a new one."""
        made = _display()
        with self._lock:
            self._display = display = self._display or made
            self._users += 1
        display.start()
        return display

    def end(self, display: Any) -> None:
        """One transfer less; the last one takes the display with it."""
        with self._lock:
            if display is not self._display:  # the parent's
                return
            self._users -= 1
            is_last = self._users == 0
            if is_last:
                self._display = None
        if is_last:
            display.stop()


def _display() -> Any:
    from rich import progress
    from rich.console import Console

    class Amount(progress.DownloadColumn):
        """Bytes as bytes, all else as a plain count."""

        def render(self, task: Any) -> Any:
            return super().render(task) if task.fields["unit"] == "B" else counts.render(task)

    counts = progress.MofNCompleteColumn()
    columns = (
        progress.TextColumn("{task.description}", markup=False),
        progress.BarColumn(),
        Amount(),
        progress.TimeElapsedColumn(),
        progress.TimeRemainingColumn(),
    )
    return progress.Progress(*columns, console=Console(file=sys.stderr))


_board = _Board()
in_child(_board.start_anew)


@contextmanager
def _bars(label: str, unit: str) -> Iterator[Tell]:
    display = _board.begin()
    try:
        task = display.add_task(label, total=None, unit=unit)
        yield lambda done, total: display.update(task, completed=done, total=total)
    finally:
        _board.end(display)


# -- without -----------------------------------------------------------------------------------------------------------


@contextmanager
def _line(label: str, unit: str) -> Iterator[Tell]:
    line = _Line(label, unit)
    try:
        yield line.tell
    finally:
        line.end()


class _Line:
    """One line of text. Owned by the transfer, whose calls follow each other."""

    def __init__(self, label: str, unit: str) -> None:
        self._label, self._unit = label, unit
        self._out = sys.stderr
        self._is_terminal = self._out is not None and self._out.isatty()
        self._state = (0, None)
        self._next_at = 0.0

    def tell(self, done: int, total: int | None) -> None:
        self._state = (done, total)  # type: ignore[assignment]
        if self._is_terminal and time.monotonic() >= self._next_at:
            self._next_at = time.monotonic() + _LINE_EVERY_S
            self._write("\r", "")

    def end(self) -> None:
        self._write("\r" if self._is_terminal else "", "\n")

    def _write(self, before: str, after: str) -> None:
        if self._out is None:  # a program without a console has nowhere to write
            return
        done, total = self._state
        share = f" ({done * 100 // total} %)" if total else ""
        of = "" if total is None else f" of {total:,}"
        unit = " bytes" if self._unit == "B" else ""
        self._out.write(f"{before}{self._label}: {done:,}{of}{unit}{share}{after}")
        self._out.flush()
