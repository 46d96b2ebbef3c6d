"""What a server promised beside the response that was asked for (RFC 9113 8.4): requests of its own, with Futures."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from hyperpool.handoff.loop_thread import refuse_on_loop_thread

if TYPE_CHECKING:
    from hyperpool.handoff.exchange import ResponseFuture
    from hyperpool.values import Request


class Push(NamedTuple):
    """One promise: the request that the server makes in our name, and the Future of the streamed response to it."""

    request: Request
    stream_id: int
    future: ResponseFuture


class Pushes:
    """The promises that belong to one request.

    Shared; a queue that guards itself. The loop adds and ends, any thread takes; each promise is taken once.
    """

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[Push | None] = queue.SimpleQueue()

    def add(self, push: Push) -> None:
        """One more."""
        self._queue.put(push)

    def end(self) -> None:
        """The stream on which they come has ended: there will be no more."""
        self._queue.put(None)

    def so_far(self) -> Iterator[Push]:
        """Those that are here. Does not block."""
        return self._taken(block=False)

    def until_the_end(self) -> Iterator[Push]:
        """Those that are here and all that still come. Blocks for each."""
        refuse_on_loop_thread("Pushes.until_the_end()")
        return self._taken(block=True)

    def _taken(self, *, block: bool) -> Iterator[Push]:
        while True:
            try:
                push = self._queue.get(block)
            except queue.Empty:
                return
            if push is None:
                self._queue.put(None)  # for whoever asks next
                return
            yield push
