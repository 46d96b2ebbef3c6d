"""Where it is shown: heads and bodies on a terminal, coloured and laid out, or bytes into a pipe as they came.

A pipe gets the body's bytes and nothing else, as they arrive. A terminal gets text: JSON is laid out anew (every number
and string as it stands, none parsed and printed back), and what is no text is named instead of dumped. rich colours
where it is installed; without it the same text is plain.
"""

from __future__ import annotations

import codecs
import os
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import chain
from typing import Any, BinaryIO

from hyperpool.cli.layout import Line, is_json_type, laid_out, lexer_of
from hyperpool.cli.words import FileProblem
from hyperpool.handoff.response import Response

# A body up to this size is held to be laid out and coloured; a larger one is shown as it comes.
LAID_OUT_BYTES = 1 << 20

# A server must not move the cursor or clear the screen from a header field.
_CONTROLS = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f]")


class Output:
    """Standard output with what is known about it. Owned by the run."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self.is_terminal = _is_terminal(stream)
        self._paint = _painter() if self.is_terminal else None
        self._at_line_start = True

    def write(self, data: bytes) -> None:
        """Write bytes at once. Raises FileProblem, and BrokenPipeError where nobody reads any more."""
        try:
            self._put(data)
        except OSError as error:
            self._turn_away()
            if isinstance(error, BrokenPipeError):
                raise
            raise FileProblem.of("write", "standard output", error) from error
        if data:
            self._at_line_start = data.endswith(b"\n")

    def _put(self, data: bytes) -> None:
        if self._stream is None:
            raise FileProblem("standard output is closed")
        raw: BinaryIO | None = getattr(self._stream, "buffer", None)
        if raw is not None:
            raw.write(data)
        else:  # an object in the place of sys.stdout, such as io.StringIO
            self._stream.write(data.decode("utf-8", "replace"))
        self._stream.flush()

    def _turn_away(self) -> None:
        """Keep the interpreter, which flushes for the last time at its end, from failing once more and saying so."""
        with suppress(AttributeError, OSError, ValueError):  # an object in its place has no descriptor
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)

    def text(self, text: str, *, lexer: str | None = None) -> None:
        """Write text, coloured by the rules of a language where there are colours."""
        if self._paint is not None and lexer is not None:
            text = self._paint.code(text, lexer)
        self.write(text.encode("utf-8", "replace"))

    def head(self, lines: Iterable[Line]) -> None:
        """Write a head: each line made of (style, text) pieces; then an empty line."""
        self.end_line()
        for line in lines:
            self._line(line)
        self.write(b"\n")

    def _line(self, line: Line) -> None:
        safe = [(style, _CONTROLS.sub(_visible, text)) for style, text in line]
        self.text(self._paint.line(safe) if self._paint is not None else "".join(text for _, text in safe))
        self.write(b"\n")

    def end_line(self) -> None:
        """Begin a new line unless one has begun: nothing else shall stand behind the end of a body."""
        if not self._at_line_start:
            self.write(b"\n")

    def body(self, response: Response) -> int:
        """Write a response's body, its bytes into a pipe and text on a terminal; how many bytes of it were read."""
        if not self.is_terminal:
            return self.copy(response)
        size = response.headers.get("content-length") if "content-encoding" not in response.headers else None
        counted = _Counted(response.iter_bytes())
        self._show(counted, response.headers.get("content-type", ""), response.encoding, size)
        return counted.size_bytes

    def copy(self, response: Response) -> int:
        """Write the bytes of a body as they are, wherever that goes; how many."""
        counted = _Counted(response.iter_bytes())
        for piece in counted:
            self.write(piece)
        return counted.size_bytes

    def body_bytes(self, body: bytes, content_type: str) -> None:
        """Write a body that is all here, as `body` does."""
        if self.is_terminal:
            self._show(iter((body,)), content_type, "utf-8", str(len(body)))
        else:
            self.write(body)

    def _show(self, pieces: Iterator[bytes], content_type: str, charset: str, size: str | None) -> None:
        decoder = _decoder(charset)
        first = next(filter(None, pieces), b"")
        if is_binary(first, content_type, charset):
            return self._name_binary(content_type, size)
        lexer = lexer_of(content_type)
        if lexer is None:
            return self._flow(chain((first,), pieces), decoder)
        held = bytearray(first)
        for piece in pieces:
            held += piece
            if len(held) > LAID_OUT_BYTES:
                return self._flow(chain((bytes(held),), pieces), decoder)
        text = decoder.decode(bytes(held), True)
        self.text(laid_out(text) if is_json_type(content_type) else text, lexer=lexer)
        self.end_line()

    def _flow(self, pieces: Iterable[bytes], decoder: Any) -> None:
        for piece in pieces:
            self.text(decoder.decode(piece))
        self.text(decoder.decode(b"", True))
        self.end_line()

    def _name_binary(self, content_type: str, size: str | None) -> None:
        what = ", ".join(part for part in (content_type, f"{size} bytes" if size else "") if part)
        note = f"[binary body{': ' if what else ''}{what}; -o FILE saves it, a pipe takes it]"
        self._line([("note", note)])


class _Counted:
    """Pieces of a body, and how many bytes of them were taken. Owned by the run."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self.size_bytes = 0

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        piece = next(self._pieces)
        self.size_bytes += len(piece)
        return piece


def is_binary(begun: bytes, content_type: str, charset: str) -> bool:
    """Whether a body that begins so is nothing for a terminal: it has NUL bytes, or is no text in its charset."""
    if charset.lower().replace("_", "-").startswith(("utf-16", "utf-32", "ucs-2", "ucs-4")):
        return False
    if b"\0" in begun:
        return True
    if content_type.lower().startswith("text/"):
        return False
    try:
        codecs.getincrementaldecoder(charset)("strict").decode(begun)
    except (LookupError, ValueError, TypeError):
        return True
    return False


def _decoder(charset: str) -> Any:
    try:
        decoder = codecs.getincrementaldecoder(charset)("replace")
        # "hex" and its like are codecs too, from bytes to bytes.
        if isinstance(decoder.decode(b""), str):
            return decoder
    except (LookupError, ValueError, AssertionError):
        pass  # no charset of this world: what is not UTF-8 either will be seen as such
    return codecs.getincrementaldecoder("utf-8")("replace")


def _visible(control: re.Match[str]) -> str:
    return f"\\x{ord(control[0]):02x}"


def _is_terminal(stream: Any) -> bool:
    try:
        return bool(stream.isatty())
    except (AttributeError, ValueError):  # None, closed
        return False


def _painter() -> Any:
    """The colours of this terminal; None where it has none, where NO_COLOR is set, or without rich."""
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return None
    try:
        from hyperpool.cli.paint import Paint

        return Paint()
    except ImportError:
        return None


def say(words: str) -> None:
    """One line on standard error, if anybody is there to read it."""
    try:
        sys.stderr.write(f"hyperpool: {' '.join(words.split())}\n")
        sys.stderr.flush()
    except (AttributeError, OSError, ValueError):  # None or closed: there is no other place to say it
        return
