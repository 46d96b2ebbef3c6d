"""Many requests, so many of them under way at a time: what `AsyncClient.map` iterates over.

A feeder task reads the requests as slots come free and begins each as a task of its own. Whoever iterates takes them
from a queue; a slot is free when its response was taken, so that no more responses wait than were asked for.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Coroutine, Iterable
from contextlib import aclosing
from typing import Any, Union

from hyperpool.aio.response import AsyncResponse
from hyperpool.policy.progress import ProgressLike, shown

Entries = Union[Iterable[Any], AsyncIterable[Any]]
Begin = Callable[[Any], Coroutine[Any, Any, AsyncResponse]]


class Flights:
    """The requests of one iteration.

    Owned by the event loop of the task that iterates.
    """

    def __init__(self, begin: Begin, max_in_flight: int, *, ordered: bool) -> None:
        self._begin = begin
        self._ordered = ordered
        # One entry for each slot that is taken.
        self._slots: asyncio.Queue[None] = asyncio.Queue(max_in_flight)
        self._under_way: set[asyncio.Task[Any]] = set()
        # Of tasks: those that are done, or all in their order; and the feeder, when it has begun the last.
        self._queue: asyncio.Queue[asyncio.Task[Any]] = asyncio.Queue()

    async def responses(self, entries: Entries) -> AsyncGenerator[AsyncResponse, None]:
        """The responses. Leaving early, by whatever way, cancels what is under way."""
        feeder = asyncio.create_task(self._feed(entries))
        feeder.add_done_callback(self._queue.put_nowait)
        try:
            has_begun_all = False
            while self._under_way or not has_begun_all:
                task = await self._queue.get()
                if task is feeder:
                    has_begun_all = True
                    task.result()
                    continue
                response = await task
                self._under_way.discard(task)
                self._slots.get_nowait()
                yield response
        finally:
            await _cancelled({feeder, *self._under_way})

    async def _feed(self, entries: Entries) -> None:
        async for entry in _each(entries):
            await self._slots.put(None)
            task = asyncio.create_task(self._begin(entry))
            self._under_way.add(task)
            if self._ordered:
                self._queue.put_nowait(task)
            else:
                task.add_done_callback(self._queue.put_nowait)


async def _each(entries: Entries) -> AsyncIterator[Any]:
    if isinstance(entries, AsyncIterable):
        async for entry in entries:
            yield entry
        return
    for entry in entries:
        yield entry


async def _cancelled(tasks: set[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    # Their outcomes are nobody's any more; asked for, none is logged as forgotten. One that is streamed holds a stream.
    for outcome in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(outcome, AsyncResponse):
            outcome.close()


async def told(
    responses: AsyncGenerator[AsyncResponse, None], progress: ProgressLike, total: int | None
) -> AsyncGenerator[AsyncResponse, None]:
    """The same responses, with word of how many there were."""
    async with aclosing(responses):
        with shown(progress, "requests", unit="") as tell:
            tell(0, total)
            count = 0
            async for response in responses:
                count += 1
                tell(count, total)
                yield response
