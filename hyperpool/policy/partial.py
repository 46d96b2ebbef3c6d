"""A file that is not whole yet: ``NAME.part`` beside it, and ``NAME.part.json`` with what is needed to go on with it.

Files of these names that are here already may be another download's, or nobody knows whose: until `begin` they are left
as they are.

Bytes of two versions of a resource must never end in one file. So the second file holds the validator (RFC 9110 8.8) of
the version that the first has the beginning of; without one, nothing is kept. It is written before the first byte: what
a killed program leaves behind can be resumed like all else. The URL is in it as a digest: it may hold secrets.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, BinaryIO

# Seconds by which a resource must be older than its response, for Last-Modified to tell its versions apart (RFC 9110
# 8.8.2.2; RFC 7232 named this figure). Halved, two changes within one second of a clock that is wrong get mixed up.
_SETTLED_S = 60.0


class Partial:
    """The beginning of a file. Owned by one download; a second one for the same file, of any process, is refused.

    ``validator``: what If-Range takes, or None where what is here cannot be gone on with.
    """

    def __init__(self, target: Path, url: str) -> None:
        self._target = target
        self._part = target.with_name(f"{target.name}.part")
        self._note = target.with_name(f"{target.name}.part.json")
        self._of = hashlib.sha256(url.encode()).hexdigest()
        self.validator: str | None = None
        self.size_bytes = 0
        self._has_begun = False
        self._file: BinaryIO = self._locked()

    def _locked(self) -> BinaryIO:
        """The part, opened for appending and locked against others. Raises BlockingIOError where one has it."""
        while True:
            file = open(self._part, "ab", opener=_open_no_link)  # noqa: SIM115 - closed by `leave` or `finish`
            try:
                _lock(file)
            except BlockingIOError as error:
                file.close()
                raise BlockingIOError(errno.EAGAIN, "another download is writing this", str(self._part)) from error
            # Who had the lock before may have renamed or removed what we opened.
            with contextlib.suppress(OSError):
                if os.path.samestat(os.fstat(file.fileno()), self._part.stat()):
                    return file
            file.close()

    def recall(self) -> None:
        """Find what an earlier download of this URL left behind, if it can be gone on with."""
        size_bytes = self._file.seek(0, os.SEEK_END)
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
            note = json.loads(self._note.read_text("utf-8"))
            if note["of"] == self._of and isinstance(note["validator"], str) and size_bytes:
                self.validator, self.size_bytes = note["validator"], size_bytes

    def begin(self, validator: str | None) -> None:
        """Begin anew, with a version that this validator names."""
        self._file.truncate(0)
        self._has_begun = True
        self.size_bytes, self.validator = 0, validator
        if validator is None:
            self._note.unlink(missing_ok=True)
        else:
            # In one step: half a note would be a wrong one.
            whole = self._note.with_name(f"{self._note.name}.new")
            whole.write_text(json.dumps({"of": self._of, "validator": validator}), "utf-8")
            whole.replace(self._note)

    def append(self, piece: bytes) -> None:
        """Add a piece. Raises OSError."""
        self._file.write(piece)
        self.size_bytes += len(piece)

    def flush(self) -> None:
        """All that was added is in the file."""
        self._file.flush()

    def update(self, digest: Any) -> None:
        """Feed the whole file to a hashlib object."""
        self.flush()
        with self._part.open("rb") as file:
            while piece := file.read(1 << 20):
                digest.update(piece)

    def finish(self) -> None:
        """The file is whole: give it its name, in one step."""
        self._file.flush()
        with contextlib.suppress(OSError):  # there is none, or its mode is none of ours to give
            shutil.copymode(self._target, self._part)
        # The note first: once the part is gone, there may be another download with a note of its own.
        self._note.unlink(missing_ok=True)
        self._part.replace(self._target)
        self._file.close()

    def leave(self, *, keep: bool = False) -> None:
        """It is not whole, and nobody goes on now: keep what can be gone on with, and nothing else.

        ``keep``: the bytes stay also where nothing can go on with them.
        """
        with contextlib.suppress(OSError):  # the disk is full: what is in the file already counts
            self._file.flush()
        is_empty = not os.fstat(self._file.fileno()).st_size
        if self._has_begun and (is_empty or (self.validator is None and not keep)):
            self._note.unlink(missing_ok=True)
            self._part.unlink(missing_ok=True)
        elif is_empty:
            self._part.unlink(missing_ok=True)  # made by being opened
        # Last: it gives the lock back.
        _close(self._file)


def _open_no_link(path: str, flags: int) -> int:
    # What a link of this name leads to is nothing that a download was asked to write.
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0), 0o666)


def _lock(file: BinaryIO) -> None:
    try:
        import fcntl
    except ImportError:  # no such locks here: two downloads of one file at once are the program's own fault
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError:  # a file system without locks
        return


def _unlock(descriptor: int) -> None:
    with contextlib.suppress(OSError, ImportError):  # as in `_lock`
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_UN)


def _close(file: BinaryIO) -> None:
    """Close, and then unlock: not by the close alone, since a child that was forked meanwhile has a copy of the
    descriptor, which would keep the lock for as long as it lives."""
    own = None
    with contextlib.suppress(OSError):  # no descriptor is left for it
        own = os.dup(file.fileno())
    with contextlib.suppress(OSError):
        file.close()
    if own is not None:
        _unlock(own)
        os.close(own)


def validator_of(headers: Any) -> str | None:
    """What If-Range may name this version by (RFC 9110 13.1.5): a strong ETag, or a Last-Modified that is settled."""
    if headers.get("accept-ranges", "").strip().lower() == "none" or "content-encoding" in headers:
        return None  # of a coded body, ranges count bytes that are not in the file
    etag: str = headers.get("etag", "")
    if etag.startswith('"') and etag.isascii():
        return etag
    modified: str = headers.get("last-modified", "")
    try:
        age = parsedate_to_datetime(headers.get("date", "")) - parsedate_to_datetime(modified)
        return modified if not etag and age.total_seconds() >= _SETTLED_S else None
    except (TypeError, ValueError):  # no date, or one with a time zone and one without
        return None
