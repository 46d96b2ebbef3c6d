"""hyperpool for asyncio programs: `AsyncClient`, and functions over the process-wide client.

    import hyperpool.aio

    async with hyperpool.aio.AsyncClient() as client:
        responses = await asyncio.gather(*(client.get(url) for url in urls))
        async with client.stream("GET", url) as response:
            async for piece in response.aiter_bytes():
                ...

Theory of operation: the pool, its I/O threads and its connections are the same as for threads, and may be shared with
them. A coroutine waits for a Future (`waiting.outcome_of`) or for a piece of body (`waiting.take`); what it waits for
rings a bell in its event loop. Uploads from async iterables are fed by a task (`uploads`). Nothing here ever blocks an
event loop, and no thread is started for a request; for files, the loop's executor has some (`transfers`).
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, AsyncIterable, Iterable
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any

from hyperpool.aio.client import AsyncClient
from hyperpool.aio.response import AsyncResponse
from hyperpool.default import default_client

if TYPE_CHECKING:
    from hyperpool.policy.download import Download

__all__ = [
    "AsyncClient",
    "AsyncResponse",
    "delete",
    "download",
    "get",
    "head",
    "map",
    "options",
    "patch",
    "post",
    "put",
    "query",
    "request",
    "stream",
    "upload",
]


def _client() -> AsyncClient:
    return AsyncClient(client=default_client())


async def request(method: str, url: str, **options: Any) -> AsyncResponse:
    """`AsyncClient.request` over the process-wide client, which is that of ``hyperpool.get`` too."""
    return await _client().request(method, url, **options)


def stream(method: str, url: str, **options: Any) -> AbstractAsyncContextManager[AsyncResponse]:
    """`AsyncClient.stream` over the process-wide client."""
    return _client().stream(method, url, **options)


async def download(url: str, path: str | os.PathLike[str], **options: Any) -> Download:
    """`AsyncClient.download` over the process-wide client."""
    return await _client().download(url, path, **options)


async def upload(url: str, file: Any, **options: Any) -> AsyncResponse:
    """`AsyncClient.upload` over the process-wide client."""
    return await _client().upload(url, file, **options)


def map(requests: Iterable[Any] | AsyncIterable[Any], **options: Any) -> AsyncGenerator[AsyncResponse, None]:
    """`AsyncClient.map` over the process-wide client."""
    return _client().map(requests, **options)


async def get(url: str, **options: Any) -> AsyncResponse:
    """`AsyncClient.get` over the process-wide client."""
    return await request("GET", url, **options)


async def head(url: str, **options: Any) -> AsyncResponse:
    """`AsyncClient.head` over the process-wide client."""
    return await request("HEAD", url, **options)


async def options(url: str, **options: Any) -> AsyncResponse:
    """`AsyncClient.options` over the process-wide client."""
    return await request("OPTIONS", url, **options)


async def post(url: str, **options: Any) -> AsyncResponse:
    """`AsyncClient.post` over the process-wide client."""
    return await request("POST", url, **options)


async def put(url: str, **options: Any) -> AsyncResponse:
    """`AsyncClient.put` over the process-wide client."""
    return await request("PUT", url, **options)


async def patch(url: str, **options: Any) -> AsyncResponse:
    """`AsyncClient.patch` over the process-wide client."""
    return await request("PATCH", url, **options)


async def delete(url: str, **options: Any) -> AsyncResponse:
    """`AsyncClient.delete` over the process-wide client."""
    return await request("DELETE", url, **options)


async def query(url: str, **options: Any) -> AsyncResponse:
    """`AsyncClient.query` over the process-wide client."""
    return await request("QUERY", url, **options)
