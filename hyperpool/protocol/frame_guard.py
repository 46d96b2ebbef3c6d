"""What must be refused from a frame's first nine bytes (RFC 9113 4.1), before h2 buffers a body for it.

Pure. h2 judges a frame when all of it is there: a peer that speaks HTTP/1.1 text, or announces 16 MiB, would be waited
for until a deadline. The guard walks the same bytes a moment earlier, looks at type and length only, and parses
nothing else.
"""

from __future__ import annotations

from hyperpool.errors import RemoteProtocolError

HEAD_BYTES = 9
_SETTINGS = 4
_ACK = 1
_PROTOCOL_ERROR = 1
_FRAME_SIZE_ERROR = 6


class FrameGuard:
    """Walks the frame heads of one connection's incoming bytes.

    Owned by the loop thread. ``error_code`` is what the GOAWAY should carry once `admit` found something.
    """

    __slots__ = ("_first", "_head", "_max_frame_bytes", "_skip_bytes", "error_code", "failure")

    def __init__(self, *, max_frame_bytes: int) -> None:
        self._max_frame_bytes = max_frame_bytes
        self._head = b""
        self._skip_bytes = 0
        self._first = True
        self.failure: RemoteProtocolError | None = None
        self.error_code = _PROTOCOL_ERROR

    def admit(self, data: bytes) -> int:
        """How many of these bytes h2 may see: all of them, or those before the frame that set ``failure``."""
        at = self._skip_bytes
        size = len(data)
        while at < size:
            head = self._head + data[at : at + HEAD_BYTES - len(self._head)]
            if len(head) < HEAD_BYTES:
                return self._keep_partial(head, size)
            if not self._judge(head):
                return at
            at += HEAD_BYTES - len(self._head) + int.from_bytes(head[:3], "big")
            self._head = b""
        self._skip_bytes = at - size
        return size

    def _keep_partial(self, head: bytes, size: int) -> int:
        self._head, self._skip_bytes = head, 0
        return size

    def _judge(self, head: bytes) -> bool:
        if self._first:
            self._judge_first(head)
            self._first = False
        length = int.from_bytes(head[:3], "big")
        if self.failure is None and length > self._max_frame_bytes:
            self.error_code = _FRAME_SIZE_ERROR
            self.failure = RemoteProtocolError(
                f"the server announced a frame of {length:,} bytes where {self._max_frame_bytes:,} are allowed"
                " (RFC 9113 4.2)"
            )
        return self.failure is None

    def _judge_first(self, head: bytes) -> None:
        if head[:5] == b"HTTP/":
            self.failure = RemoteProtocolError(
                "the server answered an HTTP/2 connection with HTTP/1 text: use http2=False for it (RFC 9113 3.3)"
            )
        elif head[3] != _SETTINGS or head[4] & _ACK:
            self.failure = RemoteProtocolError(
                f"the server's first frame is of type {head[3]}, not SETTINGS: this is not HTTP/2 (RFC 9113 3.4)"
            )
