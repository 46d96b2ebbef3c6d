"""Files to and from servers, for coroutines: what `Client.download` and `Client.upload` do, on an event loop.

The decisions are those of `hyperpool.policy`; here is who waits for what. The event loop never waits for a disk: what
touches the file runs in the loop's executor (`off_loop`), one call after the other.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, ExitStack
from typing import TYPE_CHECKING, Any

from hyperpool.aio.response import AsyncResponse
from hyperpool.aio.waiting import off_loop
from hyperpool.errors import HyperpoolError
from hyperpool.policy.download import Download, Run
from hyperpool.policy.progress import ProgressLike, Tell, shown
from hyperpool.policy.upload import prepared
from hyperpool.policy.writing import Headers
from hyperpool.values import HeadersLike

if TYPE_CHECKING:
    from hyperpool.handoff.response import Response

# A body is written in pieces of this size: a call by another thread costs 0.1 ms, as much as copying 256 KiB. Doubled,
# it is memory for nothing; halved, a fast download costs more threads' changes than writing.
WRITE_BYTES = 256 << 10

# Opens a stream with these headers and these retries.
Open = Callable[[Headers, Any], AbstractAsyncContextManager[AsyncResponse]]


async def download(run: Run, open_stream: Open, progress: ProgressLike) -> Download:
    """Carry it out. Cancelled, it leaves what a later call can go on with."""
    try:
        await off_loop(run.begin)
        with shown(progress, run.name) as tell:
            response = await _attempts(run, open_stream, tell)
        return await off_loop(run.finish, response)
    except BaseException:
        await off_loop(run.leave)
        raise


async def _attempts(run: Run, open_stream: Open, tell: Tell) -> Response:
    """The last response, when the file is whole."""
    while True:
        try:
            async with open_stream(run.headers, run.retries_left) as streamed:
                response = streamed._response
                if await off_loop(run.look_at, response):
                    tell(run.size_bytes, run.total_bytes)
                if run.takes:
                    await _take(run, streamed.aiter_bytes(), tell)
                is_whole = run.is_whole(response)
        except HyperpoolError as error:
            delay_s = await off_loop(run.delay_s_after, error)
            await asyncio.sleep(delay_s)
            run.wait(0.0, error)
            continue
        if is_whole:
            return response
        run.check_progress(response)


async def _take(run: Run, pieces: AsyncIterator[bytes], tell: Tell) -> None:
    held = list[bytes]()
    held_bytes = 0
    try:
        async for piece in pieces:
            held.append(piece)
            held_bytes += len(piece)
            tell(run.size_bytes + held_bytes, run.total_bytes)
            if held_bytes >= WRITE_BYTES:
                whole, held, held_bytes = b"".join(held), [], 0
                await off_loop(run.add, whole)
    finally:
        # After a failure too: what came need not come again.
        if held:
            await off_loop(run.add, b"".join(held))


async def upload(
    file: Any, headers: HeadersLike, progress: ProgressLike, send: Callable[[Headers, Any], Any]
) -> AsyncResponse:
    """Send a file; the response, when all of it is here."""
    with_file = ExitStack()
    try:
        fields, content = await off_loop(with_file.enter_context, prepared(file, headers, _in_event_loop(progress)))
        response: AsyncResponse = await send(fields, content)
        return response
    finally:
        await off_loop(with_file.close)


def _in_event_loop(progress: ProgressLike) -> ProgressLike:
    """A callable is called here and not by the thread that reads the file; a bar is drawn by that."""
    if not callable(progress):
        return progress
    event_loop = asyncio.get_running_loop()
    return lambda done, total: event_loop.call_soon_threadsafe(progress, done, total)
