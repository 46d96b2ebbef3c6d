"""multipart/form-data (RFC 7578), streamed: files are read while they are sent, and never held.

The heads of the parts are urllib3's. Nothing is read here on an I/O thread: the body is opened by an uploader thread.
"""

from __future__ import annotations

import io
import mimetypes
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from hyperpool import arguments
from hyperpool.errors import LocalProtocolError
from hyperpool.handoff.source import FILE_PIECE_BYTES, StreamSource

_FORMS = "(filename, file), (filename, file, content type) or (filename, file, content type, headers)"


class _Part(NamedTuple):
    """One part: its head as it goes out, and its content: bytes, or a file that begins at ``start``."""

    head: bytes
    content: Any
    start: int | None
    length_bytes: int | None


class Multipart:
    """A form with files, as a request body: iterable, again where every file can be rewound.

    Used by one request at a time, since its files have one position each. ``length_bytes`` is None where a file does
    not tell its size.

    ``fields``: (name, value) pairs. ``files``: (name, file) pairs, each with a binary file, bytes or str, or a
    tuple (filename, file), (filename, file, content type), (filename, file, content type, headers). Where neither the
    tuple nor its headers name a type, it is guessed by the filename; without a filename there is none.
    """

    def __init__(self, fields: Iterable[tuple[Any, Any]], files: Iterable[tuple[Any, Any]]) -> None:
        boundary = os.urandom(16).hex()
        self.content_type = f"multipart/form-data; boundary={boundary}"
        self._delimiter = f"--{boundary}\r\n".encode()
        self._end = f"--{boundary}--\r\n".encode()
        self._parts = [_field_part(name, value) for name, value in fields]
        self._parts += [_file_part(name, given) for name, given in files]

    @property
    def length_bytes(self) -> int | None:
        """The length of the whole body, where every part's is known."""
        total = len(self._end)
        for part in self._parts:
            if part.length_bytes is None:
                return None
            total += len(self._delimiter) + len(part.head) + part.length_bytes + len(b"\r\n")
        return total

    @property
    def replayable(self) -> bool:
        """Whether the body can be sent a second time."""
        return all(isinstance(part.content, bytes) or part.start is not None for part in self._parts)

    def __iter__(self) -> Iterator[bytes]:
        for part in self._parts:
            yield self._delimiter + part.head
            yield from _pieces(part)
            yield b"\r\n"
        yield self._end

    def claim(self) -> StreamSource:
        """The body for one request and its repetitions, as `make_source` asks for it."""
        return StreamSource(self.__iter__, length_bytes=self.length_bytes, replayable=self.replayable)


def _pieces(part: _Part) -> Iterator[bytes]:
    if isinstance(part.content, bytes):
        yield part.content
        return
    if part.start is not None:
        part.content.seek(part.start)
    while piece := part.content.read(FILE_PIECE_BYTES):
        yield piece


def _field_part(name: Any, value: Any) -> _Part:
    data = value if isinstance(value, bytes) else str(value).encode()
    return _Part(_head(_named(name), None, None, None), data, None, len(data))


def _file_part(name: Any, given: Any) -> _Part:
    filename, content, content_type, headers = _unpacked(name, given)
    headers = dict(headers or {})
    stated = [headers.pop(key) for key in list(headers) if str(key).lower() == "content-type"]
    if content_type is None:
        content_type = stated[0] if stated else _guessed(filename)
    head = _head(_named(name), filename, content_type, headers)
    if isinstance(content, str):
        content = content.encode()
    if isinstance(content, (bytes, bytearray, memoryview)):
        data = bytes(content)
        return _Part(head, data, None, len(data))
    start, length_bytes = _extent(content)
    return _Part(head, content, start, length_bytes)


def _guessed(filename: str | None) -> str | None:
    """The type of a file by its name; None for a part without one, which is a field (RFC 7578 4.4: text/plain)."""
    return None if filename is None else mimetypes.guess_type(filename)[0] or "application/octet-stream"


def _unpacked(name: Any, given: Any) -> tuple[str | None, Any, str | None, Any]:
    if isinstance(given, (tuple, list)):
        if not 2 <= len(given) <= 4:
            raise LocalProtocolError(f"files[{name!r}] must be a file, bytes, str, {_FORMS}")
        filename, content, content_type, headers = (*given, None, None)[:4]
    else:
        content, content_type, headers = given, None, None
        filename = _filename(given) or str(arguments.plain(name))
    if isinstance(content, io.TextIOBase):
        raise LocalProtocolError(f"files[{name!r}] is open in text mode: open it with 'rb'")
    if not isinstance(content, (str, bytes, bytearray, memoryview)) and not hasattr(content, "read"):
        raise LocalProtocolError(f"files[{name!r}] must be a file, bytes, str, {_FORMS}, not {type(content).__name__}")
    return filename, content, content_type, headers


def _filename(file: Any) -> str | None:
    """The last part of the file's own name, where it has one: never the folders of this machine."""
    name = getattr(file, "name", None)
    return Path(name).name if isinstance(name, str) and name and not name.startswith("<") else None


def _extent(file: Any) -> tuple[int | None, int | None]:
    """Where the file stands and how much follows; None for what cannot be rewound."""
    try:
        start = file.tell()
        length_bytes = file.seek(0, os.SEEK_END) - start
        file.seek(start)
    except (AttributeError, OSError, ValueError, TypeError):
        return None, None  # a pipe, or an object with read() alone
    return start, max(length_bytes, 0)


def _named(name: Any) -> str:
    return name.decode() if isinstance(name, bytes) else str(arguments.plain(name))


def _head(name: str, filename: str | None, content_type: str | None, headers: Any) -> bytes:
    from urllib3.fields import RequestField

    own = {arguments.plain(key): arguments.plain(value) for key, value in (headers or {}).items()}
    field = RequestField(name, b"", arguments.plain(filename), own)
    field.make_multipart(content_type=arguments.plain(content_type))
    for key, value in field.headers.items():
        if any(one in f"{key}{value}" for one in "\r\n\0"):
            raise LocalProtocolError(f"files[{name!r}]: line ends and NUL are not allowed in its header {key!r}")
    return field.render_headers().encode()
