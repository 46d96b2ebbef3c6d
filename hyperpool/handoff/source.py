"""Where a request body comes from: what the caller gave as ``content``, made replayable where that is possible.

Code of the caller (a generator, a file's ``read``) runs on an uploader thread, never on an I/O thread (L4): it may
block, and it may raise. That thread lives from the moment in which the request goes out until its body is sent or
nobody wants it. It runs in a copy of the submitting thread's contextvars.
"""

from __future__ import annotations

import contextvars
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Protocol

from hyperpool import arguments
from hyperpool.errors import LocalProtocolError
from hyperpool.handoff.body import BytesUpload, Upload, UploadPipe
from hyperpool.handoff.inbox import until_there_is_memory
from hyperpool.handoff.loop_thread import check_may_wait
from hyperpool.protocol.fields import prepare_trailers

if TYPE_CHECKING:
    from hyperpool.protocol.events import Fields

    MakeTrailers = Callable[[], Fields]

# One read of a file: seven frames of the usual size. With 64 KiB the threads change more often, which costs a fifth
# more CPU; from 128 KiB on, malloc takes each buffer from the kernel, and the page faults cost more than all the rest.
FILE_PIECE_BYTES = 112 << 10


class Source(Protocol):
    """A body that can be opened for sending; again, where ``replayable``."""

    @property
    def length_bytes(self) -> int | None: ...

    @property
    def replayable(self) -> bool: ...

    def open(self, *, notify: Callable[[], None], capacity_bytes: int) -> Upload: ...

    def abandon(self) -> None: ...

    def abandon_in_child(self) -> None: ...


class BytesSource:
    """A body in memory. Immutable, once it is made with its trailers."""

    replayable = True

    def __init__(self, data: bytes | memoryview) -> None:
        self._data = memoryview(data).cast("B")
        self._trailers: Fields | None = None
        self.length_bytes: int | None = len(self._data)

    def trail(self, make: MakeTrailers) -> None:
        """Have these trailers go out behind it; they are made here and now, since the body is all there."""
        self._trailers, self.length_bytes = make(), None

    def open(self, *, notify: Callable[[], None], capacity_bytes: int) -> Upload:
        """A fresh run over the bytes."""
        return BytesUpload(self._data, self._trailers)

    def abandon(self) -> None:
        """Nobody waits for bytes in memory."""

    abandon_in_child = abandon


class StreamSource:
    """A body that comes piece by piece from the caller's code.

    Opened by the loop thread, once or, where ``replayable``, again; ``pieces`` runs on the uploader thread.
    """

    def __init__(self, pieces: Callable[[], Iterator[Any]], *, length_bytes: int | None, replayable: bool) -> None:
        self._pieces = pieces
        self._context = contextvars.copy_context()
        self._uploader: threading.Thread | None = None
        self._repeatable = replayable
        self._trailers: MakeTrailers | None = None
        self.length_bytes = length_bytes

    def trail(self, make: MakeTrailers) -> None:
        """Have trailers go out behind it, which ``make`` gives on the uploader thread when the body is through."""
        self._trailers, self.length_bytes = make, None

    @property
    def replayable(self) -> bool:
        """Whether `open` gives the whole body (again)."""
        return self._repeatable or self._uploader is None

    def open(self, *, notify: Callable[[], None], capacity_bytes: int) -> Upload:
        """Start an uploader thread that fills a pipe. Raises RuntimeError where no thread can be started."""
        assert self.replayable, "L9: a body that cannot be replayed is sent once"
        pipe = UploadPipe(capacity_bytes=capacity_bytes, notify=notify)
        # A run on a context must end before the next one begins, and an abandoned uploader may still be in one.
        context = self._context.copy()
        upload = (_upload, self._pieces, pipe, self._uploader, self._trailers)
        uploader = threading.Thread(target=context.run, args=upload, name="hyperpool upload", daemon=True)
        uploader.start()
        self._uploader = uploader
        return pipe

    def abandon(self) -> None:
        """The uploader is told by its pipe."""

    abandon_in_child = abandon


class FedSource:
    """A body that its owner feeds piece by piece, as http.client's ``send`` does.

    Shared; the pipe guards itself. `feed` blocks while the pipe is full. It is for one request, and goes out once.
    """

    def __init__(self, *, length_bytes: int | None = None, capacity_bytes: int = 256 << 10) -> None:
        self.length_bytes = length_bytes
        self.replayable = True
        self._unclaimed = [True]
        self._notify: Callable[[], None] | None = None
        self._pipe = UploadPipe(capacity_bytes=capacity_bytes, notify=self._wake)

    def claim(self) -> FedSource:
        """This source, for the one request that it is for; a second one would end the first with its own end.

        Raises LocalProtocolError for every further one.
        """
        try:
            self._unclaimed.pop()  # one step, with and without a GIL: of two threads one gets it
        except IndexError:
            raise LocalProtocolError("a FedSource is the body of one request: make a new one for each") from None
        return self

    def _wake(self) -> None:
        # Before `open` nobody waits: the loop's first look finds what is here.
        if self._notify is not None:
            self._notify()

    def open(self, *, notify: Callable[[], None], capacity_bytes: int) -> Upload:
        """Give the loop its end of the pipe."""
        assert self.replayable, "L9: a body that cannot be replayed is sent once"
        self._notify, self.replayable = notify, False
        return self._pipe

    def abandon(self) -> None:
        """The exchange is over: whoever feeds returns at its next step."""
        self.replayable = False  # nor can it go out for the first time: what was here is dropped
        self._pipe.abandon()

    def abandon_in_child(self) -> None:
        """After a fork, in the child: it is the parent's request that goes on."""
        self._pipe.abandon_in_child()

    def feed(self, data: bytes | memoryview) -> bool:
        """Add a piece; False when nobody wants more: the exchange's Future says why. Blocks while the pipe is full."""
        check_may_wait("FedSource.feed()")
        return self._pipe.feed(as_bytes(data))

    def finish(self) -> None:
        """The body is complete."""
        self._pipe.finish()

    def fail(self, error: BaseException) -> None:
        """There will be no more, and the request must be taken back."""
        self._pipe.fail(error)


def _upload(
    pieces: Callable[[], Iterator[Any]],
    pipe: UploadPipe,
    abandoned: threading.Thread | None,
    make_trailers: MakeTrailers | None,
) -> None:
    if abandoned is not None:
        # It may be in the middle of a read of the same file, and would take bytes that belong to this run.
        abandoned.join()
    try:
        iterator = pieces()
        try:
            for piece in iterator:
                if not pipe.feed(as_bytes(piece)):
                    return
        finally:
            _close(iterator)
        pipe.finish(None if make_trailers is None else make_trailers())
    except BaseException as error:  # whatever the caller's code raises belongs to the thread that waits (L5)
        until_there_is_memory(pipe.fail, error)


def _close(iterator: Iterator[Any]) -> None:
    close = getattr(iterator, "close", None)
    if close is not None:
        close()


def as_bytes(piece: Any) -> bytes | memoryview:
    """A piece of body, which its owner may change afterwards. Raises LocalProtocolError for what is none."""
    if isinstance(piece, bytes):
        return piece
    if isinstance(piece, str):
        raise LocalProtocolError("the body gave str where bytes are needed: encode it, or open the file in binary mode")
    try:
        # A copy: the caller may reuse its buffer for the next piece while this one still waits for the wire.
        return bytes(memoryview(piece))
    except TypeError:
        raise LocalProtocolError(f"the body gave {type(piece).__name__} where bytes are needed") from None


def make_source(content: Any) -> Source | None:
    """The source for what the caller gave as ``content``: bytes, str (as UTF-8), a binary file, whatever has a buffer,
    an iterable, or a `FedSource`.

    None for no body. Raises LocalProtocolError for everything else, and for a `FedSource` that had its request.
    """
    if content is None:
        return None
    if hasattr(content, "claim"):  # a `FedSource`, a source of the asyncio face, or a form with files
        source: Source = content.claim()
        return source
    if isinstance(content, bytes):
        return BytesSource(content)
    if isinstance(content, str):
        return BytesSource(content.encode())
    if hasattr(content, "read"):
        return _file_source(content)
    if (octets := _copied(content)) is not None:
        return BytesSource(octets)
    if isinstance(content, Iterable):
        return _iterable_source(content)
    raise LocalProtocolError(
        f"content (or data) must be bytes, str, a binary file or an iterable of bytes, not {type(content).__name__}"
    )


def _copied(content: Any) -> bytes | None:
    """The bytes of an object with a buffer, such as bytearray, array.array and numpy's; None for any other."""
    try:
        return bytes(memoryview(content))
    except TypeError:
        return None


def with_trailers(source: Source | None, given: Any) -> Source:
    """The source with trailers behind it: a mapping, pairs, or a callable that gives one of them behind the body.

    The length of the body is not declared then: on HTTP/1.1 only chunks can be followed by trailers (RFC 9112 7.1.2).
    Raises LocalProtocolError where there is no body for them to follow, and for fields that cannot be trailers.
    """
    trail = getattr(source, "trail", None)
    if source is None or trail is None:
        raise LocalProtocolError("trailers= needs a body to follow: bytes, a file or an iterable (RFC 9110 6.5)")
    if not callable(given):
        fields = prepare_trailers(arguments.pairs("trailers", given))
        trail(lambda: fields)
    else:
        trail(lambda: prepare_trailers(arguments.pairs("trailers", given())))
    return source


def _iterable_source(content: Iterable[Any]) -> Source:
    if isinstance(content, dict):
        raise LocalProtocolError("content must not be a dict: use data= for a form or json= for JSON")
    if isinstance(content, (list, tuple)):
        for piece in content:  # told now, and not by a request that was half sent
            piece.__class__ is bytes or as_bytes(piece)
    return StreamSource(lambda: iter(content), length_bytes=None, replayable=not isinstance(content, Iterator))


def _file_source(file: Any) -> Source:
    try:
        start = file.tell()
        file.seek(0, os.SEEK_END)
        length = file.tell() - start
        file.seek(start)
    except (AttributeError, OSError, ValueError):
        # A pipe, a socket's file, an object with read() alone.
        return StreamSource(lambda: _read_pieces(file), length_bytes=None, replayable=False)

    def from_start() -> Iterator[Any]:
        file.seek(start)
        return _read_pieces(file)

    return StreamSource(from_start, length_bytes=max(length, 0), replayable=True)


def _read_pieces(file: Any) -> Iterator[Any]:
    while piece := file.read(FILE_PIECE_BYTES):
        yield piece
