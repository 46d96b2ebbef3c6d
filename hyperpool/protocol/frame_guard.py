"""What must be refused from a frame's first bytes (RFC 9113 4.1), before h2 buffers, parses or answers it.

Pure, and without a clock: the owner says what time it is. Two things are judged here:

- A frame that cannot be good. h2 judges a frame when all of it is there: a peer that speaks HTTP/1.1 text, or announces
  16 MiB, would be waited for until a deadline.
- A frame that is good, but one of too many (RFC 9113 10.5). h2 counts CONTINUATION frames and nothing else, while each
  frame costs the loop a few microseconds that all streams of the origin share, and some cost an answer.

The guard walks the same bytes a moment earlier, looks at type, flags and length only, and parses nothing else.

Theory of the budgets: a token bucket for each kind of frame that a server may send without us having asked. Time fills
it (``per_s``), up to ``burst``; our own work fills it further, since honest servers answer work: a DATA frame of ours
with WINDOW_UPDATEs, a request with a head, perhaps a reset. Published limits to compare with: nghttp2 1,000 resets and
33 a second, 10,000 other oddities and 330 a second; Envoy 10 WINDOW_UPDATEs for each DATA frame sent, 100 PRIORITYs for
each stream.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from hyperpool.errors import RemoteProtocolError

HEAD_BYTES = 9
PROTOCOL_ERROR, FRAME_SIZE_ERROR, ENHANCE_YOUR_CALM = 1, 6, 11
_DATA, _HEADERS, _PRIORITY, _RST_STREAM, _SETTINGS, _PUSH_PROMISE, _PING, _GOAWAY, _WINDOW_UPDATE, _CONTINUATION = (
    range(10)
)
_ACK, _END_HEADERS, _PADDED = 1, 4, 8

# RFC 9113 6.5.2 and the registry know eight settings; nghttp2 takes 32 in a frame.
MAX_SETTINGS = 64
# h2 takes 63. A block of 64 KiB needs 4.
MAX_CONTINUATIONS = 63
# What work earns does not grow past this, or a long-lived connection could be flooded for minutes. All bytes of a
# usual send window in frames of one byte each are 65,535, which come back in one round trip.
MOST_TOKENS = 100_000
# Frames of any length are paid for by the kilobyte: a thousand of 16 KiB would be 16 MB that nobody wants.
TOKEN_BYTES = 1024
# So much that nobody has asked for is taken at a time (see `FrameGuard.admit`): about 1 ms of work. Honest servers say
# a few such things in a minute.
UNASKED_AT_A_TIME = 32


@dataclass(frozen=True, slots=True)
class Budget:
    """How many frames of a kind are honest. Immutable.

    ``burst`` at once, ``per_s`` afterwards, and further ones for each stream that we open, each DATA frame that we
    send and each PING that we send.
    """

    name: str
    burst: int
    per_s: float
    per_stream: int = 0
    per_data: int = 0
    per_ping: int = 0


# Servers that measure their bandwidth (gRPC) send a PING for each round trip in which they get DATA; keep-alive is one
# in seconds.
_PINGS = Budget("PING", 1_000, 100, per_stream=10, per_data=2)
_PONGS = Budget("PING acknowledgement", 1_000, 100, per_ping=1)
# One at the start, a few when a server tunes its windows; a test that changes limits a thousand times must pass.
_SETTINGS_CHANGES = Budget("SETTINGS", 2_000, 10)
# We send one SETTINGS frame; the rest is slack for servers that miscount.
_SETTINGS_ACKS = Budget("SETTINGS acknowledgement", 10, 0)
# An empty DATA frame ends a body, once a stream; some servers flush with them. Padding alone is as empty.
_EMPTY_DATA = Budget("empty DATA", 1_000, 100, per_stream=10)
# A head, trailers, a few interim ones; `events.MAX_INTERIM` bounds them for each request, but not those that come on a
# stream that is over. 100: a head of the largest size costs 65 tokens.
_HEADS = Budget("HEADERS", 1_000, 100, per_stream=100)
_PROMISES = Budget("PUSH_PROMISE", 1_000, 100, per_stream=100)
# A stream is reset once, if at all (RFC 9113 8.1 allows it behind each response).
_RESETS = Budget("RST_STREAM", 1_000, 33, per_stream=2)
# A naive server sends two for each DATA frame that it gets, for its stream and for the connection.
_WINDOW_UPDATES = Budget("WINDOW_UPDATE", 1_000, 100, per_stream=10, per_data=10)
_PRIORITIES = Budget("PRIORITY", 1_000, 100, per_stream=10)
# Two make a graceful shutdown (RFC 9113 6.8).
_GOAWAYS = Budget("GOAWAY", 100, 1)
# To be ignored (RFC 9113 5.5): ALTSVC, ORIGIN, grease.
_UNKNOWN = Budget("unknown", 1_000, 100, per_stream=10)

_BUDGETS = {
    _HEADERS: _HEADS,
    _PRIORITY: _PRIORITIES,
    _RST_STREAM: _RESETS,
    _PUSH_PROMISE: _PROMISES,
    _GOAWAY: _GOAWAYS,
    _WINDOW_UPDATE: _WINDOW_UPDATES,
}


_LENGTH_KIND_FLAGS = struct.Struct(">HBBB")


class _Bucket:
    """The tokens of one budget.

    Owned by its guard.
    """

    __slots__ = ("_at", "_budget", "_earned", "_tokens")

    def __init__(self, budget: Budget, now: float) -> None:
        self._budget = budget
        self._tokens: float = budget.burst
        self._earned = 0
        self._at = now

    def take(self, tokens: int, now: float, earned: int) -> float:
        """Pay; what is left, less than nothing if there was not enough. ``earned``: by all our work so far."""
        left, burst = self._tokens, self._budget.burst
        if left < burst:
            left = min(burst, left + (now - self._at) * self._budget.per_s)
        left = min(MOST_TOKENS, left + earned - self._earned) - tokens
        self._tokens, self._earned, self._at = left, earned, now
        return left


class FrameGuard:
    """Walks the frame heads of one connection's incoming bytes.

    Owned by the loop thread. ``error_code`` is what the GOAWAY should carry once `admit` found something. The codec
    counts its own frames here (`ask`, ``data_frames``, ``pings``), and its owner sets the time (``now``).
    ``answers``: how many frames have come that are answered with frames of our own.
    """

    __slots__ = (
        "_awaited_heads",
        "_block_bytes",
        "_buckets",
        "_continuations",
        "_first",
        "_head",
        "_max_block_bytes",
        "_max_frame_bytes",
        "_skip_bytes",
        "_unasked",
        "answers",
        "data_frames",
        "error_code",
        "failure",
        "now",
        "pings",
        "streams",
    )

    def __init__(self, *, max_frame_bytes: int, max_block_bytes: int = 64 << 10) -> None:
        self._max_frame_bytes = max_frame_bytes
        self._max_block_bytes = max_block_bytes
        self._head = b""
        self._skip_bytes = 0
        self._first = True
        # Bytes of the header block that has not ended yet; None between blocks.
        self._block_bytes: int | None = None
        self._continuations = 0
        self._buckets: dict[str, _Bucket] = {}
        # Of the requests that went out: what each is answered with is no flood.
        self._awaited_heads = 0
        # Tokens that the bytes which are walked now have taken out of bursts.
        self._unasked = 0
        self.now = 0.0
        self.streams = self.data_frames = self.pings = self.answers = 0
        self.failure: RemoteProtocolError | None = None
        self.error_code = PROTOCOL_ERROR

    def ask(self) -> None:
        """One more request goes out."""
        self.streams += 1
        if self._awaited_heads < MOST_TOKENS:
            self._awaited_heads += 1

    def admit(self, data: bytes) -> int:
        """How many of these bytes h2 may see now.

        All of them; or those before the frame that set ``failure``; or, if that is not set, those before a frame that
        should wait a little with all behind it: a flood that is dealt with in one go, up to its end, would keep every
        thread of the process from running meanwhile (what waits is the caller's to keep, and to bring again).
        """
        at = self._skip_bytes
        size = len(data)
        self._unasked = 0
        while at < size:
            if self._unasked >= UNASKED_AT_A_TIME:
                self._skip_bytes = 0
                return at
            if not (self._head or self._first) and size - at >= HEAD_BYTES:
                high, low, kind, flags = _LENGTH_KIND_FLAGS.unpack_from(data, at)
                length = high << 8 | low
                if length <= self._max_frame_bytes:
                    # Nothing is to be said about these two, and nearly all that comes is one of them.
                    if kind == _DATA and length and not flags & _PADDED:
                        at += HEAD_BYTES + length
                        continue
                    if kind == _HEADERS and flags & _END_HEADERS and self._awaited_heads:
                        self._awaited_heads -= 1
                        at += HEAD_BYTES + length
                        continue
            # With the byte behind it, which says how much of a padded frame is padding.
            head = self._head + data[at : at + HEAD_BYTES + 1 - len(self._head)]
            if len(head) < HEAD_BYTES or (len(head) == HEAD_BYTES and _is_padded_data(head)):
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
            self._refuse(
                FRAME_SIZE_ERROR,
                f"the server announced a frame of {length:,} bytes where {self._max_frame_bytes:,} are allowed"
                " (RFC 9113 4.2)",
            )
        if self.failure is None and (head[3] != _DATA or _is_empty(head, length)):
            self._count(head, length)
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

    # -- floods ----------------------------------------------------------------------------------------------------

    def _count(self, head: bytes, length: int) -> None:
        kind, flags = head[3], head[4]
        if kind == _CONTINUATION:
            self._continue_block(flags, length)
            return
        if kind in (_HEADERS, _PUSH_PROMISE):
            self._block_bytes = None if flags & _END_HEADERS else length
            self._continuations = 0
        if kind == _SETTINGS and length > 6 * MAX_SETTINGS:
            self._refuse(ENHANCE_YOUR_CALM, f"the server sent {length // 6:,} settings in one frame (RFC 9113 10.5)")
            return
        acknowledges = bool(flags & _ACK)
        if kind == _SETTINGS and acknowledges and length:
            self._refuse(FRAME_SIZE_ERROR, "the server acknowledges SETTINGS with settings (RFC 9113 6.5)")
            return
        # A PUSH_PROMISE is refused where it is one too many.
        self.answers += kind == _PUSH_PROMISE or (kind in (_SETTINGS, _PING) and not acknowledges)
        self._spend(_budget(kind, acknowledges), 1 + length // TOKEN_BYTES)

    def _spend(self, budget: Budget, tokens: int) -> None:
        bucket = self._buckets.get(budget.name)
        if bucket is None:
            bucket = self._buckets[budget.name] = _Bucket(budget, self.now)
        earned = budget.per_stream * self.streams + budget.per_data * self.data_frames + budget.per_ping * self.pings
        left = bucket.take(tokens, self.now, earned)
        if left < budget.burst:
            self._unasked += tokens
        if left < 0:
            self._refuse(
                ENHANCE_YOUR_CALM,
                f"the server floods this connection with {budget.name} frames: more than {budget.burst:,} at once and"
                f" {budget.per_s:g} a second (RFC 9113 10.5)",
            )

    def _continue_block(self, flags: int, length: int) -> None:
        if self._block_bytes is None:
            return  # there is no block to continue, which h2 sees
        self._continuations += 1
        # What is there cannot be decoded within the limit: HPACK is no larger than what it stands for (RFC 7541 6.2).
        if self._block_bytes > self._max_block_bytes or self._continuations > MAX_CONTINUATIONS:
            self._refuse(
                ENHANCE_YOUR_CALM,
                f"the server floods this connection with CONTINUATION frames: {self._continuations:,} with"
                f" {self._block_bytes:,} bytes are no end of one header block (RFC 9113 10.5.1)",
            )
        self._block_bytes = None if flags & _END_HEADERS else self._block_bytes + length

    def _refuse(self, error_code: int, message: str) -> None:
        self.error_code = error_code
        self.failure = RemoteProtocolError(message)


def _is_padded_data(head: bytes) -> bool:
    return head[3] == _DATA and bool(head[4] & _PADDED) and head[:3] != b"\0\0\0"


def _is_empty(head: bytes, length: int) -> bool:
    """Whether a DATA frame carries nothing, but perhaps padding (RFC 9113 6.1)."""
    return not length or (bool(head[4] & _PADDED) and head[HEAD_BYTES] + 1 >= length)


def _budget(kind: int, acknowledges: bool) -> Budget:
    if kind == _PING:
        return _PONGS if acknowledges else _PINGS
    if kind == _SETTINGS:
        return _SETTINGS_ACKS if acknowledges else _SETTINGS_CHANGES
    return _EMPTY_DATA if kind == _DATA else _BUDGETS.get(kind, _UNKNOWN)
