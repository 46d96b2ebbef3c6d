"""`Client.upload`: a file becomes the body of a request, with its length, its type, and word of how far it is.

The file is read by an uploader thread while it is sent (`handoff.source`), and never held.
"""

from __future__ import annotations

import mimetypes
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from hyperpool.errors import LocalProtocolError
from hyperpool.policy.progress import ProgressLike, Tell, shown
from hyperpool.policy.writing import Headers, names, pairs
from hyperpool.values import HeadersLike

if TYPE_CHECKING:
    from hyperpool.handoff.response import Response

# Sends these headers and this content.
Send = Callable[[Headers, Any], "Response"]

# What a coding of a whole file is called: Content-Type names the file as it is (RFC 6713, 8478). As Content-Encoding it
# would be undone by who receives it.
_CODED = {
    "gzip": "application/gzip",
    "bzip2": "application/x-bzip2",
    "xz": "application/x-xz",
    "zstd": "application/zstd",
}
_BYTES = "application/octet-stream"


def upload(given: Any, headers: HeadersLike, progress: ProgressLike, send: Send) -> Response:
    """Send a file. Blocks until the whole response is here."""
    with prepared(given, headers, progress) as (fields, content):
        return send(fields, content)


@contextmanager
def prepared(given: Any, headers: HeadersLike, progress: ProgressLike) -> Iterator[tuple[Headers, Any]]:
    """The headers and the content with which a file is sent, for the time of the with block. Opening it may block."""
    with _opened(given) as file:
        name = os.path.basename(_name_of(given))
        fields = tuple(pairs(headers))
        if not names(fields, "content-type"):
            fields += (("Content-Type", guessed_type(name)),)
        if progress is None or progress is False:
            yield fields, file
            return
        with shown(progress, name or "upload") as tell:
            yield fields, _Told(file, tell)


@contextmanager
def _opened(given: Any) -> Iterator[Any]:
    """A binary file: the one that is given, from where it stands, or the one that a path names."""
    if hasattr(given, "read"):
        yield given
    elif isinstance(given, (str, os.PathLike)):
        with open(given, "rb") as file:
            yield file
    else:
        raise LocalProtocolError(
            f"an upload needs a path or a binary file, not {type(given).__name__}: give other bodies as content="
        )


def _name_of(given: Any) -> str:
    name = getattr(given, "name", "") if hasattr(given, "read") else os.fspath(given)
    return name if isinstance(name, str) else ""  # files of descriptors are called by a number


def guessed_type(name: str) -> str:
    """The media type that a file name stands for."""
    kind, coding = mimetypes.guess_type(name)
    return (kind if coding is None else _CODED.get(coding)) or _BYTES


class _Told:
    """A binary file that tells how far it was read.

    Owned by the uploader thread while it is sent. Sent again, it is told from the beginning.
    """

    def __init__(self, file: Any, tell: Tell) -> None:
        self._file, self._tell = file, tell
        self._start, self._total = _extent(file)
        self._done = 0

    def read(self, n: int) -> Any:
        piece = self._file.read(n)
        if piece:
            self._done += len(piece)
            self._tell(self._done, self._total)
        return piece

    def tell(self) -> int:
        return int(self._file.tell())

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        position = int(self._file.seek(offset, whence))
        self._done = max(position - self._start, 0)
        return position


def _extent(file: Any) -> tuple[int, int | None]:
    """Where a file stands, and the bytes from there to its end; None where it does not tell."""
    try:
        start = file.tell()
        total = file.seek(0, os.SEEK_END) - start
        file.seek(start)
    except (AttributeError, OSError, ValueError, TypeError):
        return 0, None
    return start, max(total, 0)
