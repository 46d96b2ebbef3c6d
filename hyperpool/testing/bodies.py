"""Bodies on their way: uploads towards a handler, replies towards the wire.

The only locks between the I/O thread of a connection and the threads of its handlers are here, one per body. Memory
stays flat in both directions: an upload holds what the peer had credit for, a reply pipe `PIPE_BYTES`.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable
from typing import Protocol

from hyperpool.testing.messages import Fault, Reply

# Credit is handed back in steps of this size, or before the handler waits. Half costs twice the wake-ups; double
# makes peers with the default 65,535-byte window stop and go.
CREDIT_STEP_BYTES = 32 << 10

# What a generator may be ahead of the wire: ten frames of the usual size. Half halves the throughput of slow
# generators, double only costs memory.
PIPE_BYTES = 256 << 10


class PeerGone(ConnectionError):
    """The peer gave the request up, or the connection ended."""


class Upload:
    """The body of one request, between the I/O thread that feeds it and the handler that takes it.

    Shared; guarded by _cond. Callbacks run outside the lock, in the taking thread.
    """

    def __init__(self, *, credit: Callable[[int], None], expects_continue: bool, io_thread: int) -> None:
        self._cond = threading.Condition(threading.Lock())
        self._credit = credit
        self._expects_continue = expects_continue
        self._io_thread = io_thread
        self._pieces: deque[bytes] = deque()
        self._owed_bytes = 0
        self._is_finished = False
        self._is_discarded = False
        self._failure: PeerGone | None = None
        self.buffered_bytes = 0
        self.trailers: list[tuple[str, str]] = []

    def feed(self, piece: bytes, credit_bytes: int) -> int:
        """Add what arrived; returns the bytes to credit at once, since nobody will take them."""
        with self._cond:
            if self._is_discarded or self._failure:
                return credit_bytes
            self._pieces.append(piece)
            self.buffered_bytes += len(piece)
            self._cond.notify_all()
            return credit_bytes - len(piece)  # padding is credited now (RFC 9113 6.9.1)

    def finish(self, trailers: list[tuple[str, str]]) -> None:
        with self._cond:
            self.trailers = trailers
            self._is_finished = True
            self._cond.notify_all()

    def fail(self, failure: PeerGone) -> None:
        with self._cond:
            self._failure = failure
            self._cond.notify_all()

    def discard(self) -> int:
        """Throw away what nobody took and what may come; returns the bytes to credit for it."""
        with self._cond:
            left_bytes = self.buffered_bytes + self._owed_bytes
            self._is_discarded = True
            self._pieces.clear()
            self.buffered_bytes = self._owed_bytes = 0
            return left_bytes

    def take(self) -> bytes:
        """The next piece, b"" at the end. Blocks until there is one; raises PeerGone."""
        self._before_waiting()
        with self._cond:
            self._cond.wait_for(lambda: self._pieces or self._is_finished or self._failure)
            piece = self._pop_locked()
            credit_bytes = self._settle_locked(CREDIT_STEP_BYTES)
        if credit_bytes:
            self._credit(credit_bytes)
        return piece

    def wait_gone(self, timeout_s: float) -> bool:
        with self._cond:
            return self._cond.wait_for(lambda: self._failure is not None, timeout_s)

    def _before_waiting(self) -> None:
        with self._cond:
            if self._pieces or self._is_finished or self._failure:
                return
            credit_bytes = self._settle_locked(1)
            asks, self._expects_continue = self._expects_continue, False
        if threading.get_ident() == self._io_thread:
            raise RuntimeError("an inline handler cannot wait for the request's body: leave @inline away")
        if credit_bytes or asks:
            self._credit(credit_bytes)

    def _settle_locked(self, at_least_bytes: int) -> int:
        if self._owed_bytes < at_least_bytes:
            return 0
        owed_bytes, self._owed_bytes = self._owed_bytes, 0
        return owed_bytes

    def _pop_locked(self) -> bytes:
        if self._pieces:
            piece = self._pieces.popleft()
            self.buffered_bytes -= len(piece)
            self._owed_bytes += len(piece)
            return piece
        if self._is_finished:
            return b""
        raise PeerGone(str(self._failure))


class BodySource(Protocol):
    """Where the I/O thread finds a reply's body."""

    @property
    def at_end(self) -> bool:
        """Whether it is known already that nothing follows."""

    def pull(self, max_bytes: int) -> bytes | None:
        """Up to so many bytes without blocking; None: not now; b"": that was all."""

    def close(self) -> None:
        """Nobody will pull again."""


class IteratorSource:
    """A body that is ready, or that an inline handler's iterator makes without waiting.

    Owned by the I/O thread.
    """

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = iter(pieces)
        self._left = memoryview(b"")
        self.at_end = False

    def pull(self, max_bytes: int) -> bytes | None:
        while not self._left and not self.at_end:
            piece = next(self._pieces, None)
            self.at_end = piece is None
            self._left = memoryview(piece or b"")
        if not self._left:
            return b""
        piece, self._left = bytes(self._left[:max_bytes]), self._left[max_bytes:]
        return piece or None

    def close(self) -> None:
        close = getattr(self._pieces, "close", None)
        if close is not None:
            close()


class BytesSource:
    """A body that is known whole. Owned by the I/O thread."""

    def __init__(self, body: bytes) -> None:
        self._left = memoryview(body)

    @property
    def at_end(self) -> bool:
        return not self._left

    def pull(self, max_bytes: int) -> bytes | None:
        if not self._left:
            return b""
        piece, self._left = bytes(self._left[:max_bytes]), self._left[max_bytes:]
        return piece or None

    def close(self) -> None:
        self._left = memoryview(b"")


class ReplyPipe:
    """The body that a handler's thread makes while the I/O thread sends it.

    Shared; guarded by _cond.
    """

    def __init__(self, wake: Callable[[], object]) -> None:
        self._cond = threading.Condition(threading.Lock())
        self._wake = wake
        self._pieces: deque[memoryview] = deque()
        self._buffered_bytes = 0
        self._is_finished = False
        self._is_closed = False

    @property
    def at_end(self) -> bool:
        with self._cond:
            return self._is_finished and not self._pieces

    def put(self, piece: bytes) -> None:
        """Add a piece. Blocks while `PIPE_BYTES` wait; raises PeerGone when nobody will pull them."""
        with self._cond:
            self._cond.wait_for(lambda: self._is_closed or self._buffered_bytes < PIPE_BYTES)
            if self._is_closed:
                raise PeerGone("the peer gave the request up while its reply was made")
            if piece:
                self._pieces.append(memoryview(piece))
                self._buffered_bytes += len(piece)
        self._wake()

    def finish(self) -> None:
        with self._cond:
            self._is_finished = True
        self._wake()

    def pull(self, max_bytes: int) -> bytes | None:
        with self._cond:
            if not self._pieces:
                return b"" if self._is_finished else None
            head = self._pieces.popleft()
            if len(head) > max_bytes:
                self._pieces.appendleft(head[max_bytes:])
            piece = bytes(head[:max_bytes])
            self._buffered_bytes -= len(piece)
            self._cond.notify_all()
        return piece or None

    def close(self) -> None:
        with self._cond:
            self._is_closed = True
            self._pieces.clear()
            self._cond.notify_all()


class Outgoing:
    """A reply on its way out, with the fault that waits in it.

    Owned by the I/O thread.
    """

    def __init__(self, reply: Reply, source: BodySource) -> None:
        self.reply = reply
        self.source = source
        self.sent_bytes = 0

    @property
    def ends_plainly(self) -> bool:
        """Whether it is known that neither bytes, trailers nor a fault follow."""
        return self.source.at_end and not self.reply.trailers and self.reply.fault is None

    def next_piece(self, max_bytes: int) -> bytes | Fault | None:
        """What `BodySource.pull` gives, or the fault whose turn has come."""
        fault, after_bytes = self.reply.fault, self.reply.fault_after_bytes
        if fault is not None and after_bytes is not None:
            max_bytes = min(max_bytes, after_bytes - self.sent_bytes)
            if self.sent_bytes >= after_bytes:
                return fault
        piece = self.source.pull(max_bytes)
        self.sent_bytes += len(piece or b"")
        return fault if piece == b"" and fault is not None else piece
