"""The body of one request on its way out: where it comes from, what is open of it, and how much has left.

Lives here: what is one body's own, on whatever stream it goes out. Must never come in: whose turn it is and what the
wire takes (engine), and where the bytes come from (handoff/source.py).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from hyperpool.errors import LocalProtocolError
from hyperpool.handoff.body import Piece, Upload

if TYPE_CHECKING:
    from hyperpool.handoff.source import Source
    from hyperpool.protocol.events import Fields


class RequestBody:
    """A request body, from its source to the wire.

    Made by the caller's thread, owned by the loop thread with its exchange. It knows nothing of that: a reference back
    would keep both for the garbage collector.
    """

    __slots__ = ("_capacity_bytes", "_declared_bytes", "_sent_bytes", "_source", "starved", "trailers", "upload")

    def __init__(self, source: Source, *, declared_bytes: int | None, capacity_bytes: int) -> None:
        """``declared_bytes``: what the head says of its length; ``capacity_bytes``: what may wait for the wire."""
        self._source = source
        self._declared_bytes = declared_bytes
        self._capacity_bytes = capacity_bytes
        self._sent_bytes = 0
        self.upload: Upload | None = None
        # The caller's iterable is slower than the wire: no fault of the peer, so no WriteTimeout. Likewise while it
        # waits for the server's word, which the server need not give.
        self.starved = False
        # What goes out behind the body, once the last piece of that was taken.
        self.trailers: Fields | None = None

    def open(self, notify: Callable[[], None]) -> None:
        """Let it begin to come. ``notify`` is called, by any thread, when there is something after a pause.

        Raises RuntimeError where no thread can be started.
        """
        if self.upload is None:
            self.upload = self._source.open(notify=notify, capacity_bytes=self._capacity_bytes)

    def take(self, max_bytes: int, *, where: Callable[[], dict[str, Any]]) -> Piece:
        """The next piece, checked against the length that the head declared (RFC 9110 8.6). Does not block.

        ``where`` has the keywords of an error about that.
        """
        assert self.upload is not None
        piece = self.upload.take(max_bytes)
        self._sent_bytes += len(piece.data)
        if piece.failure is not None:
            return piece
        declared = self._declared_bytes
        if declared is not None and (self._sent_bytes > declared or (piece.last and self._sent_bytes < declared)):
            return Piece(b"", last=True, failure=self._wrong_length(declared, where()))
        if piece.last:
            self.trailers = self.upload.trailers
        return piece

    def _wrong_length(self, declared: int, where: dict[str, Any]) -> LocalProtocolError:
        message = f"the body has {self._sent_bytes:,} bytes where {declared:,} were declared (RFC 9110 8.6)"
        return LocalProtocolError(f"{message}: correct Content-Length, or leave it out", **where)

    @property
    def replayable(self) -> bool:
        """Whether all of it could be sent once more."""
        return self._source.replayable or self._untouched

    @property
    def _untouched(self) -> bool:
        """Whether nothing has left the upload: what waits there can go out on another stream as it is."""
        return self.upload is not None and not self._sent_bytes

    def rewind(self) -> None:
        """It goes out again, on another stream, and from its beginning (L9)."""
        self.starved = False
        if not self._untouched:
            self._sent_bytes, self.trailers = 0, None
            if self.upload is not None:
                self.upload.abandon()
                self.upload = None

    def refuse(self) -> None:
        """It never goes. Whoever feeds it learns of it now: it may be the thread that is to read the answer."""
        self.starved = False
        self._source.abandon()

    def end(self) -> None:
        """Its exchange is over: whoever feeds it is sent home (L5)."""
        if self.upload is not None:
            self.upload.abandon()
            self.upload = None
        self._source.abandon()

    def abandon_in_child(self) -> None:
        """After a fork, in the child: the uploader is not here, and the parent goes on with it."""
        upload, self.upload = self.upload, None
        for pipe in (upload, self._source):
            if pipe is not None:
                pipe.abandon_in_child()
