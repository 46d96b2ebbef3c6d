"""What a server promised beside the response that was asked for (RFC 9113 8.4): requests of its own, with Futures."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from hyperpool.handoff.exchange import Exchange
from hyperpool.handoff.futures import ResponseFuture
from hyperpool.handoff.loop_thread import check_may_wait

if TYPE_CHECKING:
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
        check_may_wait("Pushes.until_the_end()")
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


def promise(parent: Exchange, request: Request, stream_id: int, now: float) -> Exchange:
    """The exchange for a push that belongs to ``parent`` (RFC 9113 8.4): its request was made by the server.

    For the loop thread, which owns both.
    """
    assert parent.pushes is not None, "pushes are refused where nobody asked for them"
    # No name for whoever forgets its response: a push that nobody wants is no mistake.
    pushed = Exchange(
        request,
        parent.head,
        source=None,
        streamed=True,
        submitted_at=now,
        origin=parent.origin,
        limits=parent.limits,
        made_at=None,
        keeps_alive=parent.keeps_alive,
    )
    pushed.pushed, pushed.inbox = True, parent.inbox
    pushed.begin(stream_id, now)
    assert isinstance(pushed.future, ResponseFuture)
    parent.pushes.add(Push(request, stream_id, pushed.future))
    return pushed
