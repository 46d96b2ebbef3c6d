"""Request bodies that an async iterable gives.

The iterable runs in the event loop of the request, as a task of its own: an upload goes on while the response is being
read. It is asked for the next piece only while the pipe to the I/O thread has room, so it is never further ahead of the
wire than ``Limits.upload_buffer_bytes`` and one piece. No thread is used for that: the pipe calls when it has room.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import AsyncIterable, Callable, Iterable
from typing import TYPE_CHECKING, Any

from hyperpool.aio.waiting import room_in
from hyperpool.errors import HyperpoolError, LocalProtocolError
from hyperpool.handoff.body import Upload, UploadPipe
from hyperpool.handoff.source import as_bytes

if TYPE_CHECKING:
    from hyperpool.handoff.source import MakeTrailers


def declared_bytes(fields: Iterable[tuple[str, str]]) -> int | None:
    """The Content-Length that the caller declares; None where there is none, or none that could be sent."""
    values = {value for name, value in fields if name.lower() == "content-length"}
    value = values.pop() if len(values) == 1 else ""
    return int(value) if value.isascii() and value.isdigit() else None


class AsyncSource:
    """A body from an async iterable; sent again where that gives a fresh iterator each time, as no generator does.

    ``length_bytes``: what the request declares. Made in a coroutine. I/O threads open and abandon it; everything else
    happens in the coroutine's event loop.
    """

    def __init__(self, content: AsyncIterable[Any], *, length_bytes: int | None = None) -> None:
        self.length_bytes = length_bytes
        self._content = content
        self._repeatable = not hasattr(content, "__anext__")
        self._event_loop = asyncio.get_running_loop()
        self._context = contextvars.copy_context()
        self._is_opened = False
        self._is_over = False
        self._given_bytes = 0
        self._task: asyncio.Task[None] | None = None
        self._trailers: MakeTrailers | None = None

    def trail(self, make: MakeTrailers) -> None:
        """Have trailers go out behind it, which ``make`` gives in the event loop when the body is through."""
        self._trailers, self.length_bytes = make, None

    def claim(self) -> AsyncSource:
        """This source: it was made for one request."""
        return self

    # -- on an I/O thread ------------------------------------------------------------------------------------------

    @property
    def replayable(self) -> bool:
        """Whether `open` gives the whole body (again)."""
        return self._repeatable or not self._is_opened

    def open(self, *, notify: Callable[[], None], capacity_bytes: int) -> Upload:
        """Have a task begin that fills a pipe."""
        assert self.replayable, "L9: a body that cannot be replayed is sent once"
        self._is_opened = True
        pipe = UploadPipe(capacity_bytes=capacity_bytes, notify=notify)
        if not self._tell(self._begin, pipe):
            pipe.fail(HyperpoolError("the event loop of the request's body was closed before the body could be sent"))
        return pipe

    def abandon(self) -> None:
        """The exchange is over: nobody wants the rest."""
        self._tell(self._stop)

    def abandon_in_child(self) -> None:
        """After a fork, in the child: the task is the parent's."""

    def _tell(self, act: Callable[..., None], *arguments: Any) -> bool:
        try:
            self._event_loop.call_soon_threadsafe(act, *arguments, context=self._context)
        except RuntimeError:
            return False  # the event loop was closed, and its tasks with it
        return True

    # -- in the event loop -----------------------------------------------------------------------------------------

    def _begin(self, pipe: UploadPipe) -> None:
        self._cancel()
        self._given_bytes = 0
        if not self._is_over:
            self._task = self._event_loop.create_task(self._upload(pipe, self._task))

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def _stop(self) -> None:
        # One that has given all has been answered, and only cleans up: nothing there may be cut short.
        if self.length_bytes is None or self._given_bytes < self.length_bytes:
            self._cancel()

    async def _upload(self, pipe: UploadPipe, former: asyncio.Task[None] | None) -> None:
        try:
            if former is not None:
                # It may be in the middle of a step of the same iterable.
                await asyncio.wait([former])
            await self._feed(pipe)
            trailers = None if self._trailers is None else self._trailers()
        except asyncio.CancelledError:
            pipe.fail(LocalProtocolError("the task that gives the request's body was cancelled"))
        except BaseException as error:  # whatever the caller's code raises belongs to the task that waits (L5)
            pipe.fail(error)
        else:
            pipe.finish(trailers)

    async def _feed(self, pipe: UploadPipe) -> None:
        pieces = aiter(self._content)
        try:
            async for piece in pieces:
                data = as_bytes(piece)
                await room_in(pipe)
                self._given_bytes += len(data)
                if not pipe.feed(data):
                    return
        finally:
            if hasattr(pieces, "aclose"):
                await pieces.aclose()

    async def end(self) -> None:
        """Let the body go, and wait until the caller's iterable was closed."""
        self._is_over = True
        if asyncio.get_running_loop() is not self._event_loop:
            self._tell(self._stop)
        elif self._task is not None and self._task is not asyncio.current_task():
            self._stop()
            await asyncio.wait([self._task])
