"""Uploads over HTTP/2: whose turn it is, and what each of the others waits for.

    held --the server's word--> ready --window shut, or nothing there yet--> parked
                                  ^-------------window open, or bytes there----'

They take turns, one frame each. How much ciphertext may wait behind that is the connection's business, and so is what
becomes of an exchange whose upload has failed.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from hyperpool.engine.expectations import Expectations
from hyperpool.handoff.body import Piece

if TYPE_CHECKING:
    from hyperpool.engine.h2_streams import Stream
    from hyperpool.errors import HyperpoolError
    from hyperpool.protocol.events import Fields
    from hyperpool.protocol.h2_codec import H2Codec

# What an upload sends at a time: a piece of a file (`source.FILE_PIECE_BYTES`). A server that takes frames of 16 MiB
# does not get them, or a RST_STREAM would queue behind that much.
TURN_BYTES = 112 << 10
# So many frames of 16 KiB, from an upload without company: one at a time took half as much CPU again.
FRAMES_ALONE = 7

_NOTHING = Piece(b"", last=False)


class Uploads:
    """The request bodies that are under way on one connection.

    Owned by the loop thread. A stream that is `Stream.sending` stands in one of three places: held, ready, or parked.
    """

    def __init__(self, codec: H2Codec, continue_after_s: float) -> None:
        self._h2 = codec
        # Whose body waits for the server's word.
        self.expectations = Expectations(continue_after_s)
        # Whose turn comes, in this order. Who is over meanwhile is passed over when its turn comes.
        self.ready: deque[Stream] = deque()
        self._parked: dict[int, Stream] = {}

    def begin(self, stream: Stream, now: float) -> None:
        """Its head has gone out."""
        if stream.exchange.head.expects_continue:
            self.expectations.hold(stream.exchange, now)
        else:
            self.ready.append(stream)

    def release(self, stream: Stream, now: float) -> HyperpoolError | None:
        """A body that was held may go; the error where no thread can be started for it."""
        failed = self.expectations.release(stream.exchange, now)
        if failed is None:
            self.ready.append(stream)
        return failed

    def take_turn(self) -> tuple[Stream, Piece]:
        """Send one frame of the upload whose turn it is, more of one alone; that upload, and what was taken of it."""
        stream = self.ready.popleft()
        if not stream.sending:
            return stream, _NOTHING
        frames = 1 if self.ready else FRAMES_ALONE
        capacity = min(self._h2.send_capacity(stream.stream_id, frames), TURN_BYTES)
        body = stream.exchange.request_body
        assert body is not None
        piece = body.take(max(capacity, 0), where=stream.exchange.where)
        if piece.failure is None:
            if piece.data or piece.last:
                self._send(stream, piece, body.trailers if piece.last else None)
            else:
                # Either a window is shut, which is the peer's doing, or the caller has nothing yet, which is not.
                body.starved = capacity > 0
                self._parked[stream.stream_id] = stream
        return stream, piece

    def _send(self, stream: Stream, piece: Piece, trailers: Fields | None) -> None:
        if piece.data or not trailers:
            self._h2.send(stream.stream_id, piece.data, end=piece.last and not trailers)
        if trailers:
            self._h2.trail(stream.stream_id, trailers)
        stream.sending = not piece.last
        if stream.sending:
            self.ready.append(stream)

    def unpark(self, stream_id: int, now: float) -> None:
        """What it waited for may have come: it gets a turn again."""
        stream = self._parked.pop(stream_id, None)
        if stream is not None:
            body = stream.exchange.request_body
            assert body is not None
            if body.starved:
                body.starved = False
                stream.exchange.deadlines.touched_at = now
            self.ready.append(stream)

    def unpark_all(self, now: float) -> None:
        """The same for each: the connection's window is wider, or every stream's."""
        for stream_id in list(self._parked):
            self.unpark(stream_id, now)

    def forget(self, stream: Stream) -> None:
        """Its stream is over."""
        stream.sending = False
        self._parked.pop(stream.stream_id, None)
        self.expectations.forget(stream.exchange)
