"""What must be refused of a chunked body's lines (RFC 9112 7.1), before h11 reads them.

Pure. h11 takes a chunk line with anything behind the first ";", and trailer lines that end with a bare LF. Two readers
of such bytes may disagree on where the message ends: that is how a response is smuggled into the exchange behind it.
The guard walks the same bytes a moment earlier, looks at the lines only, and skips the data between them.
"""

from __future__ import annotations

import re

from hyperpool.errors import RemoteProtocolError

# One chunk line with its extensions: Go's bound. Extensions have no known use; without a bound each byte of body may be
# paid for with kilobytes of line (CVE-2023-39326).
MAX_CHUNK_LINE_BYTES = 4096

# RFC 9112 7.1 and 7.1.1. Blanks behind the size are no part of the grammar, but old servers pad it with them, and no
# reader takes them for anything else. 16 digits hold 2**64; more would overflow where others read the same bytes.
# Each blank has one place in the pattern: a line of blanks must not cost the square of its length.
_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_QUOTED = rb'"(?:[\t !#-\[\]-~\x80-\xff]|\\[\t -~\x80-\xff])*"'
_EXTENSION = rb"[ \t]*;[ \t]*" + _TOKEN + rb"(?:[ \t]*=[ \t]*(?:" + _TOKEN + rb"|" + _QUOTED + rb"))?"
_CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,16})(?:" + _EXTENSION + rb")*[ \t]*\r\n")
# RFC 9110 6.5.1: in a trailer they would say of a message that has ended where it ends.
_FRAMING = re.compile(rb"(?:content-length|transfer-encoding)[ \t]*:", re.IGNORECASE)


class ChunkGuard:
    """Walks beside h11 through one chunked body.

    Owned by its codec. Each byte is looked at once, however the bytes come; what is kept is one unfinished line.
    """

    __slots__ = ("_in_trailers", "_limit_bytes", "_line", "_max_trailer_bytes", "_over", "_room_bytes", "_skip_bytes")

    def __init__(self, *, max_trailer_bytes: int) -> None:
        self._line = bytearray()
        self._skip_bytes = 0
        self._in_trailers = False
        self._over = False
        self._limit_bytes = self._room_bytes = MAX_CHUNK_LINE_BYTES
        self._max_trailer_bytes = max_trailer_bytes

    def admit(self, data: bytes) -> tuple[bytes, RemoteProtocolError | None]:
        """What h11 may see of these bytes: all of them, or those before the line that is at fault.

        It sees a line when all of it is here, and none of its extensions (RFC 9112 7.1.1): they mean nothing to us, and
        h11 takes no blanks before the first of them, which a recipient has to take (RFC 9110 5.6.3).
        """
        at = begin = 0
        seen: list[bytes] = []
        while at < len(data) and not self._over:
            skipped = min(self._skip_bytes, len(data) - at)
            self._skip_bytes -= skipped
            at += skipped
            if self._skip_bytes or at == len(data):
                break
            end = data.find(b"\n", at) + 1 or len(data)
            piece = data[at:end]
            try:
                line = self._take(piece)
            except RemoteProtocolError as fault:
                return b"".join([*seen, data[begin:at]]), fault
            if line != piece:
                seen += (data[begin:at], line)
                begin = end
            at = end
        # Behind the end of the body the bytes are somebody else's; h11 stops there, and its codec sees them.
        return b"".join([*seen, data[begin:]]) if seen else data, None

    def _take(self, piece: bytes) -> bytes:
        """A line, or a part of one; what h11 is to see of it now."""
        self._room_bytes -= len(piece)
        if self._room_bytes < 0:
            what = "trailer section" if self._in_trailers else "chunk line"
            raise RemoteProtocolError(f"a {what} of more than {self._limit_bytes:,} bytes (RFC 9112 7.1.1, 7.1.2)")
        if not piece.endswith(b"\n"):
            self._line += piece
            return b""
        if self._line:
            piece = bytes(self._line) + piece
            self._line.clear()
        return self._judge_trailer(piece) if self._in_trailers else self._judge_chunk_line(piece)

    def _judge_trailer(self, line: bytes) -> bytes:
        if not line.endswith(b"\r\n"):
            raise RemoteProtocolError(f"a trailer line that ends without CR: {line[:40]!r} (RFC 9112 2.2)")
        if _FRAMING.match(line):
            raise RemoteProtocolError(f"a trailer cannot frame its message: {line[:40]!r} (RFC 9110 6.5.1)")
        self._over = line == b"\r\n"
        return line

    def _judge_chunk_line(self, line: bytes) -> bytes:
        found = _CHUNK_LINE.fullmatch(line)
        if found is None:
            raise RemoteProtocolError(f"a chunk cannot begin with {line[:40]!r} (RFC 9112 7.1)")
        chunk_bytes = int(found[1], 16)
        self._in_trailers = not chunk_bytes
        # The CRLF behind the data is skipped with it: h11 looks at that one closely.
        self._skip_bytes = chunk_bytes + 2 if chunk_bytes else 0
        self._limit_bytes = MAX_CHUNK_LINE_BYTES if chunk_bytes else self._max_trailer_bytes
        self._room_bytes = self._limit_bytes
        return found[1] + b"\r\n" if b";" in line else line
