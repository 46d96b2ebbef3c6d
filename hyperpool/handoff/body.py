"""The two pipes between a loop and the threads that read and write bodies.

`BodyPipe` carries a streamed response to its reader, `UploadPipe` a streamed request body to the loop. Both are
bounded: the first by the window that the peer was granted, the second by its capacity. The loop never waits on either;
the other side does, and wakes when the loop ends the pipe, which it does for every exchange on every path (L5).
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from hyperpool.errors import HyperpoolError, ResponseClosed
from hyperpool.handoff.forks import in_child

if TYPE_CHECKING:
    from hyperpool.protocol.events import Fields

# Another object in each process: a response whose stream has ended is known to nobody but its readers, of whom one may
# have held its lock in the moment of a fork.
_process = object()


@in_child
def _become_child() -> None:
    global _process  # noqa: PLW0603 - it stands for the whole process
    _process = object()


def _lock_and_condition() -> tuple[Any, threading.Condition]:
    """A lock to be taken by `with`, and a condition on it to wait at: for what a loop takes.

    A Condition's own methods for `with` are Python code, in which a signal handler may raise while the lock is taken.
    That would leave it locked, and the loop with it (L4). Those of the lock are C.
    """
    lock = threading.RLock()
    return lock, threading.Condition(lock)


def _renew(lock: Any) -> None:
    """After a fork, in the child: a thread that is not here may have held it.

    It stays the same lock: the thread that has forked may wait at its condition, or hold it, in a signal handler.
    """
    if not lock._is_owned():
        lock._at_fork_reinit()


class BodyPipe:
    """A response body on its way to one reader.

    Shared; guarded by _lock. The loop feeds, one thread takes. ``credit`` is called by the reader, outside the lock,
    with the bytes that it has taken, whenever they reach ``credit_step_bytes``.
    """

    def __init__(self, *, credit: Callable[[int], None], credit_step_bytes: int) -> None:
        self._lock, self._cond = _lock_and_condition()
        self._chunks: deque[bytes] = deque()
        self._buffered_bytes = 0
        self._owed_bytes = 0
        self._credit = credit
        self._credit_step_bytes = credit_step_bytes
        self._ended = False
        self._abandoned = False
        self._error: BaseException | None = None
        # Whom to call, once, when `take` would not wait any more: a reader that must not wait in it.
        self._called: Callable[[], None] | None = None
        self.trailers: Fields = []
        # How many pieces have left it, counted before they do: by this a reader that was interrupted knows whether one
        # may be missing.
        self.handed = 0
        self._process = _process

    # -- the loop's side -------------------------------------------------------------------------------------------

    def feed(self, data: bytes, *, wake: bool = True) -> None:
        """Append a piece of body. Without ``wake``, `wake` must follow in the same step of the loop."""
        if not data:
            return  # to the reader b"" is the end
        with self._lock:
            self._chunks.append(data)
            self._buffered_bytes += len(data)
        if wake:
            self.wake()

    def wake(self) -> None:
        """Tell the reader that there is something: once for many pieces, since each time costs a change of threads."""
        with self._lock:
            self._cond.notify()
        if self._called is not None:
            self._call()

    def finish(self, trailers: Fields) -> None:
        """The body is complete."""
        with self._lock:
            self.trailers = trailers
            self._ended = True
            self._cond.notify()
        self._call()

    def fail(self, error: BaseException) -> None:
        """The body will not be completed; the reader gets what came before, then the error."""
        with self._lock:
            self._error = error
            self._ended = True
            self._cond.notify()
        self._call()

    def _call(self) -> None:
        with self._lock:
            called, self._called = self._called, None
        if called is not None:
            called()

    def abandon_in_child(self, error: BaseException) -> None:
        """After a fork, in the child: the reader gets what is here, then ``error``: the rest goes to the parent."""
        _renew(self._lock)
        self._called = None  # it would wake the parent's reader
        if not self._ended:
            self.fail(error)

    @property
    def buffered_bytes(self) -> int:
        """Bytes that wait for the reader."""
        with self._lock:
            return self._buffered_bytes

    # -- the reader's side -----------------------------------------------------------------------------------------

    def is_ready(self, or_call: Callable[[], None]) -> bool:
        """Whether `take` will not wait. If it would, ``or_call`` is called, once, as soon as it would not.

        That happens outside the lock, on an I/O thread or on the one that closes the response: it must not block.
        """
        self._renew_lock_in_child()
        with self._lock:
            ready = bool(self._chunks) or self._ended or self._abandoned
            self._called = None if ready else or_call
            return ready

    def take(self) -> bytes:
        """The next piece of body; b"" at the end. Blocks until there is one.

        Raises the error that ended the body, ResponseClosed after `abandon`.
        """
        self._renew_lock_in_child()
        with self._lock:
            while not (self._chunks or self._ended or self._abandoned):
                self._cond.wait()
            data = self._take_locked()
            owed = self._take_owed_locked(len(data))
        if owed:
            self._credit(owed)
        return data

    def abandon(self) -> bool:
        """Nobody will read on: drop what is here. Whether the peer is still sending, so that it must be told."""
        self._renew_lock_in_child()
        with self._lock:
            open_still = not (self._ended or self._abandoned)
            self._abandoned = True
            self._chunks.clear()
            self._buffered_bytes = 0
            self._cond.notify_all()
        self._call()
        return open_still

    @property
    def taken(self) -> bool:
        """Whether somebody has a part of it."""
        return self.handed > 0

    def _renew_lock_in_child(self) -> None:
        if self._process is not _process:
            _renew(self._lock)
            self._process = _process

    def _take_locked(self) -> bytes:
        if self._abandoned:
            raise ResponseClosed("this response was closed: read the body before close() or inside the with block")
        if not self._chunks:
            if self._error is None:
                return b""
            raise _for_this_waiter(self._error)
        self.handed += 1
        chunk = self._chunks.popleft()
        self._buffered_bytes -= len(chunk)
        return chunk

    def _take_owed_locked(self, taken_bytes: int) -> int:
        self._owed_bytes += taken_bytes
        # After the end the peer needs no credit; before it, half a window at a time is enough to keep it sending.
        if self._ended or self._owed_bytes < self._credit_step_bytes:
            return 0
        owed, self._owed_bytes = self._owed_bytes, 0
        return owed


def _for_this_waiter(error: BaseException) -> BaseException:
    return error.own_copy() if isinstance(error, HyperpoolError) else error


class Piece(NamedTuple):
    """What an upload has for the wire now: bytes, whether they are the last, and why there will be no more."""

    data: bytes | memoryview
    last: bool
    failure: BaseException | None = None


class Upload(Protocol):
    """A request body as the loop sees it: it takes what is there, and never waits.

    ``trailers`` go out behind the last piece (RFC 9110 6.5); they are there as soon as that was taken.
    """

    trailers: Fields | None

    def take(self, max_bytes: int) -> Piece: ...

    def abandon(self) -> None: ...

    def abandon_in_child(self) -> None: ...


class BytesUpload:
    """A body that is all in memory.

    Owned by the loop thread.
    """

    def __init__(self, data: bytes | memoryview, trailers: Fields | None = None) -> None:
        self._rest = memoryview(data)
        self.trailers = trailers

    def take(self, max_bytes: int) -> Piece:
        """The next bytes, without a copy."""
        data, self._rest = self._rest[:max_bytes], self._rest[max_bytes:]
        return Piece(data, last=not self._rest)

    def abandon(self) -> None:
        """Let the bytes go."""
        self._rest = memoryview(b"")

    abandon_in_child = abandon


class UploadPipe:
    """A streamed request body on its way to the loop.

    Shared; guarded by _lock. One thread feeds, and waits from when ``capacity_bytes`` are full until three quarters of
    them are taken; the loop takes. ``notify``
    is called by the feeder, outside the lock, when there is something for a loop that had found the pipe empty.
    """

    def __init__(self, *, capacity_bytes: int, notify: Callable[[], None]) -> None:
        self._lock, self._cond = _lock_and_condition()
        self._chunks: deque[memoryview] = deque()
        self._buffered_bytes = 0
        self._capacity_bytes = capacity_bytes
        self._notify = notify
        self._loop_waits = True
        self._feeder_waits = False
        self._ended = False
        self._abandoned = False
        self._failure: BaseException | None = None
        self.trailers: Fields | None = None
        # Whom to call, once, when `feed` would not wait any more: a feeder that must not wait in it.
        self._called: Callable[[], None] | None = None

    # -- the feeder's side -----------------------------------------------------------------------------------------

    def has_room(self, or_call: Callable[[], None]) -> bool:
        """Whether `feed` will not wait. If it would, ``or_call`` is called, once, as soon as it would not.

        That happens outside the lock, on an I/O thread: it must not block.
        """
        with self._lock:
            room = self._buffered_bytes < self._capacity_bytes or self._abandoned
            self._called = None if room else or_call
            return room

    def feed(self, data: bytes | memoryview) -> bool:
        """Add a piece; False when nobody wants more. Blocks while the pipe is full."""
        if not data:
            return not self._abandoned
        with self._lock:
            while self._buffered_bytes >= self._capacity_bytes and not self._abandoned:
                self._feeder_waits = True
                self._cond.wait()
            if self._abandoned:
                return False
            self._chunks.append(memoryview(data).cast("B"))
            self._buffered_bytes += len(self._chunks[-1])
            wake = self._take_loop_waits_locked()
        if wake:
            self._notify()
        return True

    def finish(self, trailers: Fields | None = None) -> None:
        """The body is complete, but for trailers."""
        self.trailers = trailers
        self._end(None)

    def fail(self, error: BaseException) -> None:
        """The caller's iterable raised: the request must be taken back."""
        self._end(error)

    def _end(self, failure: BaseException | None) -> None:
        with self._lock:
            self._failure = failure
            self._ended = True
            # A failure is news also for a loop that waits for the peer's window with bytes still here.
            wake = self._take_loop_waits_locked() or failure is not None
        if wake:
            self._notify()

    def _take_loop_waits_locked(self) -> bool:
        waits, self._loop_waits = self._loop_waits, False
        return waits

    # -- the loop's side -------------------------------------------------------------------------------------------

    def take(self, max_bytes: int) -> Piece:
        """The next bytes; none and not the last when there are none now: ``notify`` will be called for the next."""
        with self._lock:
            data = self._take_locked(max_bytes)
            last = self._ended and not self._chunks
            self._loop_waits = not (data or last or self._chunks)
            called = self._take_called_locked()
            piece = Piece(data, last, self._failure)
        if called is not None:
            called()
        return piece

    def _take_locked(self, max_bytes: int) -> memoryview:
        if not self._chunks:
            return memoryview(b"")
        chunk = self._chunks.popleft()
        if len(chunk) > max_bytes:
            self._chunks.appendleft(chunk[max_bytes:])
            chunk = chunk[:max_bytes]
        self._buffered_bytes -= len(chunk)
        # At a quarter, not at the first room: a feeder that is woken for each frame costs more than the frame. What is
        # left keeps the loop busy meanwhile.
        if self._feeder_waits and self._buffered_bytes <= self._capacity_bytes // 4:
            self._feeder_waits = False
            self._cond.notify()
        return chunk

    def _take_called_locked(self) -> Callable[[], None] | None:
        if self._called is None or not (self._abandoned or self._buffered_bytes < self._capacity_bytes):
            return None
        called, self._called = self._called, None
        return called

    def abandon(self) -> None:
        """Nobody will take more: the feeder returns at its next step."""
        with self._lock:
            self._abandoned = True
            self._chunks.clear()
            self._cond.notify_all()
            called = self._take_called_locked()
        if called is not None:
            called()

    def abandon_in_child(self) -> None:
        """After a fork, in the child: nobody takes anything here."""
        _renew(self._lock)
        self._called = None
        self.abandon()
