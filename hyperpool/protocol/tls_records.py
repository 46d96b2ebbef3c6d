"""TLS records counted by their heads (RFC 8446 5.1), so that OpenSSL is not asked for what it cannot have.

The only sign by which OpenSSL says "that was all" is an error, which costs more than a small record itself; and each
call into it lets go of the GIL, for which other threads of the program may be waiting.
"""

from __future__ import annotations

HEAD_BYTES = 5
# change_cipher_spec, alert, handshake, application_data; and the most that TLS 1.2 (RFC 5246 6.2.3) lets a record have.
_TYPES = range(20, 24)
_MAX_RECORD_BYTES = (1 << 14) + 2048
# More than anybody reads: what is no record is OpenSSL's to judge.
_UNCOUNTED = 1 << 62


class RecordCount:
    """How many records of a stream of bytes are complete.

    Owned by its TlsStream.
    """

    __slots__ = ("_clear", "_head", "_rest_bytes")

    def __init__(self) -> None:
        self._clear = True
        # Of the record under way: what is here of its head, or else how much of it is still to come.
        self._head = b""
        self._rest_bytes = 0

    def count(self, data: bytes) -> int:
        """How many records end in the next bytes; from something that is no record on, more than there can be."""
        if not self._clear:
            return _UNCOUNTED
        if self._head:
            data = self._head + data
        end, at = len(data), self._rest_bytes
        if at > end:
            self._rest_bytes = at - end
            return 0
        records = 1 if at else 0
        while end - at >= HEAD_BYTES:
            length = data[at + 3] << 8 | data[at + 4]
            if data[at] not in _TYPES or data[at + 1] != 3 or length > _MAX_RECORD_BYTES:
                self._clear = False
                return _UNCOUNTED
            at += HEAD_BYTES + length
            records += at <= end
        self._head = data[at:] if at < end else b""
        self._rest_bytes = at - end if at > end else 0
        return records
