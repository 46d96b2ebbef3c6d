"""``-o FILE``: a body goes to FILE.part and is called FILE when all of it is there, so that FILE is never half a body.

What came before a failure stays in FILE.part, and the error says so; the next try begins anew. Devices and pipes have
no second name and are written directly.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from hyperpool.cli.words import FileProblem
from hyperpool.errors import HyperpoolError
from hyperpool.handoff.response import Response

Advance = Callable[[int], None]


def save(response: Response, path: str) -> int:
    """Write the body to a file, with a progress bar where standard error is a terminal; its size in bytes.

    Raises FileProblem, and what reading the body raises.
    """
    target = Path(os.path.realpath(path))
    is_plain = target.is_file() or not target.exists()
    written = target.with_name(target.name + ".part") if is_plain else target
    with _progress(Path(path).name, _length(response)) as advance:
        size_bytes = _write(response, written, advance)
    if is_plain:
        _rename(written, target)
    return size_bytes


def left_behind(path: str) -> str:
    """What to say about FILE.part after a failure; nothing where there is none, or none of it came."""
    part = Path(os.path.realpath(path) + ".part")
    try:
        if part.stat().st_size:
            return f"; what came is in {path}.part"
        part.unlink()
    except OSError:  # it was not made, or cannot be told: the failure itself is the news
        return ""
    return ""


def _write(response: Response, written: Path, advance: Advance) -> int:
    size_bytes = 0
    try:
        with written.open("wb") as file:
            for piece in response.iter_bytes():
                file.write(piece)
                size_bytes += len(piece)
                advance(len(piece))
    except HyperpoolError:
        raise  # some are OSError too: a read timeout is no fault of the file
    except OSError as error:
        raise FileProblem.of("write", str(written), error) from error
    return size_bytes


def _rename(written: Path, target: Path) -> None:
    try:
        written.replace(target)
    except OSError as error:
        raise FileProblem.of("write", str(target), error) from error


def _length(response: Response) -> int | None:
    """The size that the file will have; a coded body's is not known before its end."""
    length = response.headers.get("content-length", "")
    return int(length) if length.isdecimal() and "content-encoding" not in response.headers else None


@contextmanager
def _progress(name: str, size_bytes: int | None) -> Iterator[Advance]:
    """A bar on standard error; nothing where that is no terminal, or without rich."""
    if sys.stderr is None or not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":
        yield lambda n_bytes: None
        return
    try:
        from rich import progress
        from rich.console import Console
    except ImportError:
        yield lambda n_bytes: None
        return
    columns = (
        progress.TextColumn("{task.description}", markup=False),
        progress.BarColumn(),
        progress.DownloadColumn(),
        progress.TransferSpeedColumn(),
        progress.TimeRemainingColumn(),
    )
    with progress.Progress(*columns, console=Console(file=sys.stderr)) as bar:
        task = bar.add_task(name, total=size_bytes)
        yield lambda n_bytes: bar.advance(task, n_bytes)
        if size_bytes is None:
            bar.update(task, total=bar.tasks[0].completed)
