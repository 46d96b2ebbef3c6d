"""``-o FILE``: a body goes to FILE.part and is called FILE when all of it is there, so that FILE is never half a body.

What came before a failure stays in FILE.part, and the error says so. With ``--continue`` the next try goes on with it,
where the server can tell that it is still the same; without, it begins anew. The rules, and the note beside FILE.part,
are those of `Client.download`. Devices and pipes have no second name and are written directly.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hyperpool.cli.words import FileProblem, UsageError
from hyperpool.client import NOT_GIVEN, Client
from hyperpool.errors import HyperpoolError
from hyperpool.handoff.response import Response
from hyperpool.policy.download import Download, download, length_of
from hyperpool.policy.partial import Partial, validator_of
from hyperpool.policy.progress import Tell


def save(response: Response, path: str) -> int:
    """Write the body to a file, with a progress bar where standard error is a terminal; its size in bytes.

    Raises FileProblem, and what reading the body raises.
    """
    _refuse_folder(path)
    target = Path(os.path.realpath(path))
    is_plain = target.is_file() or not target.exists()
    with _progress(Path(path).name) as tell, _faults_of(target):
        return (_write_part if is_plain else _write)(response, target, tell)


def go_on(client: Client, url: str, path: str, *, head: Callable[[], None], params: Any, headers: Any) -> Download:
    """Download a file, and go on with what an earlier try left of it; what came stays, whatever it is good for.

    ``head`` is called when the response's is here. Raises FileProblem, UsageError for a device, and what a download
    raises.
    """
    _refuse_folder(path)
    with _progress(Path(path).name) as show, _faults_of(Path(path)):

        def open_stream(fields: Any, retry: Any) -> Any:
            return client.stream("GET", url, params=params, headers=fields, retries=retry)

        def tell(done: int, total: int | None) -> None:
            nonlocal head
            head()
            head = _nothing
            show(done, total)

        try:
            run = client._download_run(url, path, params, headers, resume=True, checksum=None, retries=NOT_GIVEN)
            run.keeps = True
            return download(run, open_stream, tell)
        except ValueError as error:
            if isinstance(error, HyperpoolError):
                raise
            raise UsageError(f"--continue: {path} is no plain file") from error


def _refuse_folder(path: str) -> None:
    """A folder that is not there would become a file, whose name has lost its slash. Raises FileProblem."""
    if path.endswith("/") and not os.path.exists(path):
        raise FileProblem(f"cannot write {path}: there is no such folder, and the name of a file is missing")


def _nothing() -> None:
    """Once was enough."""


def left_behind(path: str) -> str:
    """What to say about FILE.part after a failure; nothing where there is none, or none of it came."""
    part = Path(os.path.realpath(path) + ".part")
    try:
        if not part.stat().st_size:
            return ""
    except OSError:  # it was not made, or cannot be told: the failure itself is the news
        return ""
    goes_on = ", and --continue goes on with it" if part.with_name(f"{part.name}.json").exists() else ""
    return f"; what came is in {path}.part{goes_on}"


@contextmanager
def _faults_of(path: Path) -> Iterator[None]:
    try:
        yield
    except HyperpoolError:
        raise  # some are OSError too: a read timeout is no fault of the file
    except OSError as error:
        raise FileProblem.of("write", str(error.filename or path), error) from error


def _write(response: Response, target: Path, tell: Tell) -> int:
    size_bytes, total_bytes = 0, length_of(response)
    with target.open("wb") as file:
        for piece in response.iter_bytes():
            file.write(piece)
            size_bytes += len(piece)
            tell(size_bytes, total_bytes)
    return size_bytes


def _write_part(response: Response, target: Path, tell: Tell) -> int:
    # As it was asked for: a redirect may lead elsewhere the next time.
    asked = (response.history or [response])[0].request
    partial = Partial(target, asked.url)
    try:
        can_go_on = (asked.method, response.status_code) == ("GET", 200)
        partial.begin(validator_of(response.headers) if can_go_on else None)
        total_bytes = length_of(response)
        for piece in response.iter_bytes():
            partial.append(piece)
            tell(partial.size_bytes, total_bytes)
        partial.finish()
    except BaseException:
        partial.leave(keep=True)
        raise
    return partial.size_bytes


@contextmanager
def _progress(name: str) -> Iterator[Tell]:
    """A bar on standard error; nothing where that is no terminal, or without rich."""
    if sys.stderr is None or not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":
        yield lambda done, total: None
        return
    try:
        from rich import progress
        from rich.console import Console
    except ImportError:
        yield lambda done, total: None
        return
    columns = (
        progress.TextColumn("{task.description}", markup=False),
        progress.BarColumn(),
        progress.DownloadColumn(),
        progress.TransferSpeedColumn(),
        progress.TimeRemainingColumn(),
    )
    with progress.Progress(*columns, console=Console(file=sys.stderr)) as bar:
        task = bar.add_task(name, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
        if bar.tasks[0].total is None:
            bar.update(task, total=bar.tasks[0].completed)
