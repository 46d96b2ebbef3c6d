"""The two errors that the command line itself can meet; every other one is the client's."""

from __future__ import annotations


class UsageError(Exception):
    """The words of the command line make no request. Its text says what to write instead."""


class FileProblem(Exception):
    """A file cannot be read or written. Its text names the file and the reason."""

    @classmethod
    def of(cls, doing: str, path: str, error: OSError) -> FileProblem:
        """The problem that the system reported while ``doing`` something with a file."""
        return cls(f"cannot {doing} {path}: {(error.strerror or str(error)).lower()}")
