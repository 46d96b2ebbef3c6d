"""How a coroutine waits for what happens on other threads, without ever holding up its event loop.

hyperpool's I/O threads know no event loop. They call whoever asked to be called: a Future its done-callbacks, a body
pipe whoever found it empty. A `Bell` is what they call here; it wakes one coroutine of one event loop. So any number of
event loops, in any number of threads, may share a pool.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from hyperpool.handoff.body import BodyPipe, UploadPipe
from hyperpool.handoff.pieces import Step
from hyperpool.handoff.response import Response

T = TypeVar("T")

# Bytes after which a coroutine that never had to wait lets others run: decoding so many takes about 1 ms. Halved, a
# fast download costs more turns of the event loop; doubled, others wait longer.
TURN_BYTES = 256 << 10


class Bell:
    """Wakes the coroutine that waits for it.

    Made and awaited in one coroutine; may be rung from any thread, and more than once.
    """

    __slots__ = ("_event_loop", "_rung")

    def __init__(self) -> None:
        self._event_loop = asyncio.get_running_loop()
        self._rung = self._event_loop.create_future()

    def ring(self, *_: Any) -> None:
        """Wake whoever waits. Never blocks."""
        try:
            self._event_loop.call_soon_threadsafe(self._ring)
        except RuntimeError:
            return  # the event loop was closed: nobody waits in it any more

    def _ring(self) -> None:
        if not self._rung.done():
            self._rung.set_result(None)

    async def heard(self) -> None:
        """Wait until it was rung."""
        await self._rung


async def outcome_of(future: Future[Response]) -> Response:
    """What a Future of `Client.submit` resolves with. Cancelling the waiting task cancels the request on the wire."""
    bell = Bell()
    future.add_done_callback(bell.ring)
    try:
        await bell.heard()
    except BaseException:
        if not future.cancel():
            # It was resolved, and nobody will take its response: one that is streamed holds a stream.
            future.add_done_callback(_let_go)
        raise
    return future.result()


def _let_go(future: Future[Response]) -> None:
    if not future.cancelled() and future.exception() is None:
        future.result().close()


async def take(pipe: BodyPipe) -> bytes:
    """The next piece of a body, b"" at its end. Raises what `BodyPipe.take` raises."""
    while not pipe.is_ready((bell := Bell()).ring):
        await bell.heard()
    return pipe.take()


async def room_in(pipe: UploadPipe) -> None:
    """Wait until a body may be fed on, or nobody wants it any more."""
    while not pipe.has_room((bell := Bell()).ring):
        await bell.heard()


async def off_loop(act: Callable[..., T], *arguments: Any) -> T:
    """What a call gives that may wait for a disk: another thread makes it, while the event loop goes on.

    A task that is cancelled meanwhile goes on with that only when the call has returned: what it used is free then.
    """
    work = asyncio.get_running_loop().run_in_executor(None, functools.partial(act, *arguments))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        while not work.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait([work])
        if not work.cancelled():
            work.exception()  # seen, though nobody is told: the task was cancelled
        raise


class Turns:
    """Lets other coroutines run, every so many bytes.

    Owned by one coroutine.
    """

    def __init__(self) -> None:
        self._bytes = 0

    async def after(self, n_bytes: int) -> None:
        """Note that so many bytes went by."""
        self._bytes += n_bytes
        if self._bytes >= TURN_BYTES:
            self._bytes = 0
            await asyncio.sleep(0)


async def through(pieces: AsyncIterator[Any], step: Step[Any]) -> AsyncIterator[Any]:
    """What a step makes of the pieces. Empty pieces of bytes are left out; empty lines are not."""
    turns = Turns()
    async for piece in pieces:
        for made in step.feed(piece):
            if made != b"":
                yield made
                await turns.after(len(made))
    for made in step.end():
        if made != b"":
            yield made
