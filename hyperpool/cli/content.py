"""What is sent: header fields, query, and the body that items or standard input make.

Files that are sent as they are, and long standard input, are streamed; fields and multipart forms are made in memory.
"""

from __future__ import annotations

import json
import mimetypes
import os
import select
import stat
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from hyperpool.cli.items import Item, Items
from hyperpool.cli.words import FileProblem, UsageError

JSON = "application/json"
FORM = "application/x-www-form-urlencoded"

# Standard input up to this size is taken whole, so that its length can be declared and a request can be resent.
STDIN_WHOLE_BYTES = 1 << 20
_STDIN_PIECE_BYTES = 64 << 10
# After this long without a byte, whoever waits at a terminal is told what for.
STDIN_NOTE_S = 2.0


@dataclass(frozen=True, slots=True)
class Body:
    """A body with its type. Immutable. ``size_bytes``: None where the length is not known before the end."""

    content: Any
    content_type: str | None
    size_bytes: int | None


NOTHING = Body(None, None, 0)


def header_fields(items: Items) -> list[tuple[str, str | None]]:
    """Header fields; None as a value removes what would be sent by default. Values are the octets that were typed."""
    return [(item.name, _header_value(item)) for item in items.headers]


def _header_value(item: Item) -> str | None:
    if item.separator == ":@":
        return _octets(_line_of(item)).decode("latin-1")
    return "" if item.separator == ";" else _octets(item.value.strip()).decode("latin-1") or None


def query_pairs(items: Items) -> list[tuple[Any, Any]]:
    """Query parameters as octets, in their order."""
    values = [_line_of(item) if item.separator == "==@" else item.value for item in items.query]
    return [(_octets(item.name), _octets(value)) for item, value in zip(items.query, values, strict=True)]


def _line_of(item: Item) -> str:
    """The text of a file for a place where lines do not end."""
    return read_text(item.value).rstrip("\r\n")


def _octets(typed: str) -> bytes:
    """As it was typed: Python shows octets of the command line that are no UTF-8 as surrogates (PEP 383)."""
    return typed.encode("utf-8", "surrogateescape")


def body_of_items(items: Items, *, form: bool, files: ExitStack) -> Body:
    """The body that the items make. A file that is sent as it is stays open until ``files`` is closed."""
    if items.whole_body is not None:
        return _file_body(items.whole_body, files)
    if items.files:
        return _multipart(items)
    return _urlencoded(items) if form else _json_object(items)


def _file_body(path: str, files: ExitStack) -> Body:
    try:
        opened = files.enter_context(Path(path).open("rb"))  # noqa: SIM115 - `files` closes it
        mode = os.fstat(opened.fileno())
    except OSError as error:
        raise FileProblem.of("read", path, error) from error
    size_bytes = mode.st_size if stat.S_ISREG(mode.st_mode) else None
    return Body(opened, mimetypes.guess_type(path)[0], size_bytes)


def _json_object(items: Items) -> Body:
    if not items.fields:
        return NOTHING
    # Put together as text, so that 1.10 goes out as 1.10; a name that is given twice has its last value.
    members = {_utf8(item.name, item): _json_value(item) for item in items.fields}
    made = ("{" + ", ".join(f"{json.dumps(name)}: {value}" for name, value in members.items()) + "}").encode()
    return Body(made, JSON, len(made))


def _json_value(item: Item) -> str:
    if not item.separator.startswith(":="):
        return json.dumps(_utf8(_text_of(item), item))
    text, _ = _parsed(item)
    return text.strip()


def _text_of(item: Item) -> str:
    return read_text(item.value) if item.separator.endswith("@") else item.value


def _utf8(text: str, item: Item) -> str:
    if not _is_utf8(text):
        raise UsageError(f"{item.text!r} is not UTF-8, which JSON must be; send a form (-f) or a file (@)")
    return text


def _is_utf8(text: str) -> bool:
    return _octets(text) == text.encode("utf-8", "replace")


def _parsed(item: Item) -> tuple[str, Any]:
    """JSON as it was typed, and what it says. Raises UsageError."""
    text = _utf8(_text_of(item), item)
    try:
        return text, json.loads(text, parse_constant=_refuse_constant)
    except ValueError as error:
        raise UsageError(f"{item.text!r}: this is no JSON ({error}); use {item.name}=… for a string") from error


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not in RFC 8259")


def _form_pairs(items: Items) -> list[tuple[str, bytes]]:
    return [(item.name, _octets(_form_value(item))) for item in items.fields]


def _form_value(item: Item) -> str:
    """JSON's strings, numbers and booleans as HTTPie writes them: nobody says how a form has the rest of it."""
    if not item.separator.startswith(":="):
        return _text_of(item)
    _, value = _parsed(item)
    if not isinstance(value, (str, int, float)):
        raise UsageError(f"{item.text!r}: a form has no such JSON, only strings, numbers, true and false")
    return str(value)


def _urlencoded(items: Items) -> Body:
    from urllib.parse import urlencode

    pairs = [(_octets(name), value) for name, value in _form_pairs(items)]
    made = urlencode(pairs).encode()
    return Body(made, FORM, len(made)) if pairs else NOTHING


def _multipart(items: Items) -> Body:
    from urllib3.filepost import encode_multipart_formdata

    if wrong := next((item for item in (*items.fields, *items.files) if not _is_utf8(item.name)), None):
        raise UsageError(f"{wrong.text!r}: the name of a part must be UTF-8 (RFC 7578 5.1)")
    parts: list[Any] = [*_form_pairs(items), *(_file_part(item) for item in items.files)]
    made, content_type = encode_multipart_formdata(parts)
    return Body(made, content_type, len(made))


def _file_part(item: Item) -> tuple[str, tuple[str, bytes, str]]:
    path, _, declared = item.value.partition(";type=")
    content_type = declared or mimetypes.guess_type(path)[0] or "application/octet-stream"
    # A question mark for each octet of the file's name that is no UTF-8: what is uploaded is what is in it.
    return item.name, (Path(path).name.encode("utf-8", "replace").decode(), read_bytes(path), content_type)


def read_bytes(path: str) -> bytes:
    """What is in a file. Raises FileProblem."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise FileProblem.of("read", path, error) from error


def read_text(path: str) -> str:
    """The text in a file, which must be UTF-8. Raises FileProblem."""
    try:
        return read_bytes(path).decode()
    except UnicodeDecodeError as error:
        raise FileProblem(f"{path} is not UTF-8 text; name@file uploads it as it is") from error


# -- standard input ----------------------------------------------------------------------------------------------------


def stdin_descriptor(stdin: Any) -> int | None:
    """The descriptor of standard input where a body can come from it: a pipe, a file or a socket.

    Neither a terminal nor /dev/null is one: the one would wait for ever, the other is what daemons have.
    """
    try:
        descriptor: int = stdin.fileno()
        mode = os.fstat(descriptor).st_mode
    except (AttributeError, OSError, ValueError):  # None, closed, or an object that stands in for it
        return None
    return descriptor if stat.S_ISFIFO(mode) or stat.S_ISREG(mode) or stat.S_ISSOCK(mode) else None


def body_of_stdin(descriptor: int, *, form: bool, files: ExitStack, note: Callable[[str], None]) -> Body:
    """What comes on standard input; `NOTHING` where it is at its end. Blocks until that, or until 1 MiB is here."""
    mode = os.fstat(descriptor)
    if stat.S_ISREG(mode.st_mode):
        return _stdin_file(descriptor, mode.st_size, files=files, form=form)
    if not select.select([descriptor], [], [], STDIN_NOTE_S)[0]:
        note("waiting for the body on standard input (--ignore-stdin sends none)")
    # os.read and not sys.stdin.buffer: a thread that waits inside the latter stops the interpreter from exiting.
    begun = b""
    while len(begun) < STDIN_WHOLE_BYTES:
        piece = os.read(descriptor, _STDIN_PIECE_BYTES)
        begun += piece
        if not piece:
            return Body(begun, _type_of(begun, form=form), len(begun)) if begun else NOTHING
    return Body(_rest_of_stdin(begun, descriptor), FORM if form else None, None)


def _stdin_file(descriptor: int, size_bytes: int, *, files: ExitStack, form: bool) -> Body:
    opened: BinaryIO = files.enter_context(open(os.dup(descriptor), "rb"))  # noqa: SIM115
    left_bytes = size_bytes - opened.tell()
    if left_bytes <= 0:
        return NOTHING
    if left_bytes <= STDIN_WHOLE_BYTES:
        whole = opened.read()
        return Body(whole, _type_of(whole, form=form), len(whole))
    return Body(opened, FORM if form else None, left_bytes)


def _rest_of_stdin(begun: bytes, descriptor: int) -> Iterator[bytes]:
    yield begun
    while piece := os.read(descriptor, _STDIN_PIECE_BYTES):
        yield piece


def _type_of(body: bytes, *, form: bool) -> str | None:
    """JSON is called so; of anything else on standard input nobody has said what it is."""
    if form:
        return FORM
    try:
        json.loads(body)
    except ValueError:
        return None
    return JSON
