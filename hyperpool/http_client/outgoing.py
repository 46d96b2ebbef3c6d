"""The bytes of one request, as `http.client` writes them, read back: head, then body in the framing of that head.

`http.client` promises bytes: what ``send`` is given goes out as it stands, chunk sizes included where a caller writes
them himself. So bytes are what is read here, rather than the arguments of ``request()``: every way to write a request,
subclasses and callers of ``sock.sendall`` among them, ends in the same place. What goes out afterwards is another
matter, and the engine's: HTTP/2 has no chunks.

Never here: I/O, threads. What is not allowed in a head is not found here but by `protocol.fields`.
"""

from __future__ import annotations

import http.client
import re
from dataclasses import dataclass

# RFC 9112 5.2: a line that begins with a blank continues the one before. putheader writes several values that way.
_FOLD = re.compile(rb"\r\n[ \t]+")
_HEAD_END = b"\r\n\r\n"
_LENGTH = re.compile(r"[0-9]{1,18}").fullmatch


@dataclass(frozen=True, slots=True)
class Head:
    """Request line and fields. Immutable. ``length_bytes`` is None for chunks, 0 where no body was announced."""

    method: str
    target: str
    fields: tuple[tuple[str, str], ...]
    length_bytes: int | None


class Outgoing:
    """One request on its way in.

    Owned by the thread that sends.
    """

    def __init__(self) -> None:
        self.head: Head | None = None
        self.complete = False
        self._unread = bytearray()
        self._left_bytes = 0
        self._after_chunk = False
        self._in_trailers = False

    def feed(self, data: bytes | memoryview) -> list[bytes]:
        """Take bytes; the pieces of body among them, without their framing.

        Raises HTTPException for chunks that are none, and for bytes behind the end.
        """
        if self.head is not None and self.head.length_bytes is not None:
            return self._take_counted(bytes(data))
        self._unread += data
        if self.head is None and not self._take_head():
            return []
        assert self.head is not None
        if self.head.length_bytes is None:
            return self._take_chunks()
        rest, self._unread = bytes(self._unread), bytearray()
        return self._take_counted(rest)

    def _take_head(self) -> bool:
        end = self._unread.find(_HEAD_END)
        if end < 0:
            return False
        self.head = parse_head(bytes(self._unread[:end]))
        del self._unread[: end + len(_HEAD_END)]
        self._left_bytes = self.head.length_bytes or 0
        self.complete = self.head.length_bytes == 0
        return True

    def _take_counted(self, data: bytes) -> list[bytes]:
        if len(data) > self._left_bytes:
            raise http.client.HTTPException(
                f"{len(data) - self._left_bytes} bytes behind the end of the request: announce the body with"
                " Content-Length, or Transfer-Encoding: chunked (RFC 9112 6.3)"
            )
        self._left_bytes -= len(data)
        self.complete = self._left_bytes == 0
        return [data] if data else []

    def _take_chunks(self) -> list[bytes]:
        pieces: list[bytes] = []
        while self._unread and not self.complete:
            if self._left_bytes:
                pieces.append(bytes(self._unread[: self._left_bytes]))
                del self._unread[: len(pieces[-1])]
                self._left_bytes -= len(pieces[-1])
            elif not self._take_line():
                break
        if self.complete and self._unread:
            raise http.client.HTTPException(f"{len(self._unread)} bytes behind the last chunk (RFC 9112 7.1)")
        return pieces

    def _take_line(self) -> bool:
        """The line before, behind or after chunks (RFC 9112 7.1); whether there was a whole one."""
        end = self._unread.find(b"\r\n")
        if end < 0:
            return False
        line = bytes(self._unread[:end])
        del self._unread[: end + 2]
        if self._in_trailers:
            self.complete = not line  # trailers themselves are dropped: neither engine sends any
        elif self._after_chunk:
            self._after_chunk = False
            if line:
                raise http.client.HTTPException(f"a chunk is longer than its size says, by {line[:40]!r}")
        else:
            self._begin_chunk(line)
        return True

    def _begin_chunk(self, line: bytes) -> None:
        try:
            self._left_bytes = int(line.partition(b";")[0], 16)
        except ValueError:
            raise http.client.HTTPException(
                f"{line[:40]!r} is no chunk size: pass encode_chunked=True, or write chunks yourself"
            ) from None
        self._after_chunk = self._left_bytes > 0
        self._in_trailers = self._left_bytes == 0


def parse_head(octets: bytes) -> Head:
    """A head without its empty line. Spelling and order are kept."""
    first, _, rest = octets.partition(b"\r\n")
    method, _, target = first.decode("latin-1").partition(" ")
    fields = []
    for line in _FOLD.sub(b" ", rest).split(b"\r\n") if rest else ():
        name, _, value = line.decode("latin-1").partition(":")
        fields.append((name, value.strip(" \t")))
    return Head(method, target.rpartition(" ")[0], tuple(fields), _length_bytes(fields))


def _length_bytes(fields: list[tuple[str, str]]) -> int | None:
    values = {name.lower(): value for name, value in fields}
    if "transfer-encoding" in values:
        return None
    length = values.get("content-length", "0")
    # What is no number is refused by `prepare_head`, with words.
    return int(length) if _LENGTH(length) else 0
