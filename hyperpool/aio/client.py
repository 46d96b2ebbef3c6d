"""AsyncClient: a `Client` for coroutines.

It is the same client: `Client.submit` gives a Future, and a coroutine waits for it. Redirects, cookies, retries and
authentication are `Client`'s own, and so is the pool.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from hyperpool import arguments
from hyperpool.aio.response import AsyncResponse
from hyperpool.aio.uploads import AsyncSource, declared_bytes
from hyperpool.aio.waiting import off_loop, outcome_of
from hyperpool.client import NOT_GIVEN, Client, check_options
from hyperpool.policy.cookies import Cookies, CookiesLike
from hyperpool.policy.defaults import DefaultHeaders
from hyperpool.policy.retries import RetriesLike
from hyperpool.policy.writing import Params, merged
from hyperpool.pool import ConnectionPool
from hyperpool.process import FOR_ALL, FOR_TLS, load
from hyperpool.values import HeadersLike

if TYPE_CHECKING:
    from hyperpool.policy.download import Download
    from hyperpool.policy.progress import ProgressLike


class AsyncClient:
    """An HTTP client for asyncio programs, to be shared by all tasks of all event loops of a process.

    Shared; what can be changed guards itself. ``client``: a `Client` whose pool, cookies, headers and settings are
    used, and which stays open. Otherwise ``options`` are those of `Client`, ``pool`` among them.
    """

    def __init__(self, *, client: Client | None = None, **options: Any) -> None:
        if client is not None and options:
            raise ValueError("what a given client is to do differently, give to that client")
        self._owns_client = client is None
        self._client = Client(**options) if client is None else client

    @property
    def client(self) -> Client:
        """The `Client` underneath, for threads that may block."""
        return self._client

    @property
    def pool(self) -> ConnectionPool:
        """The `ConnectionPool`, as `Client` has it."""
        return self._client.pool

    @property
    def headers(self) -> DefaultHeaders:
        """The header fields that go with every request, as in `Client.headers`."""
        return self._client.headers

    @headers.setter
    def headers(self, given: HeadersLike) -> None:
        self._client.headers = given

    @property
    def cookies(self) -> Cookies:
        """The cookies, as in `Client.cookies`."""
        return self._client.cookies

    @cookies.setter
    def cookies(self, given: CookiesLike) -> None:
        self._client.cookies = given

    # -- requests --------------------------------------------------------------------------------------------------

    async def request(self, method: str, url: str, **options: Any) -> AsyncResponse:
        """Send a request; the response, when all of it is here. Cancelling the task cancels it on the wire.

        ``options`` are those of `Client.submit`; ``content`` may be an async iterable of bytes as well. Raises a
        `HyperpoolError`, DecodeError for a body that cannot be decoded among them.
        """
        response = await self._send(method, url, options)
        if not options.get("stream"):
            await response.aread()
        return response

    async def get(self, url: str, **options: Any) -> AsyncResponse:
        """`request` with GET (RFC 9110 9.3.1)."""
        return await self.request("GET", url, **options)

    async def head(self, url: str, **options: Any) -> AsyncResponse:
        """`request` with HEAD (RFC 9110 9.3.2)."""
        return await self.request("HEAD", url, **options)

    async def options(self, url: str, **options: Any) -> AsyncResponse:
        """`request` with OPTIONS (RFC 9110 9.3.7)."""
        return await self.request("OPTIONS", url, **options)

    async def post(self, url: str, **options: Any) -> AsyncResponse:
        """`request` with POST (RFC 9110 9.3.3)."""
        return await self.request("POST", url, **options)

    async def put(self, url: str, **options: Any) -> AsyncResponse:
        """`request` with PUT (RFC 9110 9.3.4)."""
        return await self.request("PUT", url, **options)

    async def patch(self, url: str, **options: Any) -> AsyncResponse:
        """`request` with PATCH (RFC 5789)."""
        return await self.request("PATCH", url, **options)

    async def delete(self, url: str, **options: Any) -> AsyncResponse:
        """`request` with DELETE (RFC 9110 9.3.5)."""
        return await self.request("DELETE", url, **options)

    async def query(self, url: str, **options: Any) -> AsyncResponse:
        """`request` with QUERY (draft-ietf-httpbis-safe-method-w-body)."""
        return await self.request("QUERY", url, **options)

    @asynccontextmanager
    async def stream(self, method: str, url: str, **options: Any) -> AsyncIterator[AsyncResponse]:
        """A response whose body is awaited as it comes; closed at the end of the block, wherever that is reached."""
        async with await self._send(method, url, {**options, "stream": True}) as response:
            yield response

    async def download(
        self,
        url: str,
        path: str | os.PathLike[str],
        *,
        resume: bool = True,
        checksum: Any = None,
        progress: ProgressLike = None,
        params: Params = None,
        headers: HeadersLike = None,
        retries: RetriesLike = NOT_GIVEN,
        **options: Any,
    ) -> Download:
        """GET a URL into a file, which is there as a whole or not at all: as `Client.download`, in every respect.

        Other threads wait for the disk. Cancelling the task leaves what a later call, of either client, goes on with.
        ``progress`` is called in the event loop.
        """
        from hyperpool.aio.transfers import download

        def open_stream(fields: Any, retry: Any) -> AbstractAsyncContextManager[AsyncResponse]:
            return self.stream("GET", url, params=params, headers=fields, retries=retry, **options)

        make = partial(self._client._download_run, resume=resume, checksum=checksum, retries=retries)
        run = await off_loop(make, url, path, params, headers)
        return await download(run, open_stream, progress)

    async def upload(
        self,
        url: str,
        file: Any,
        *,
        method: str = "PUT",
        progress: ProgressLike = None,
        headers: HeadersLike = None,
        **options: Any,
    ) -> AsyncResponse:
        """Send a file as the body of a request: as `Client.upload`. ``progress`` is called in the event loop."""
        from hyperpool.aio.transfers import upload

        async def send(fields: Any, content: Any) -> AsyncResponse:
            return await self.request(method, url, headers=fields, content=content, **options)

        return await upload(file, headers, progress, send)

    def map(
        self,
        requests: Iterable[Any] | AsyncIterable[Any],
        *,
        max_in_flight: int = 100,
        ordered: bool = False,
        progress: ProgressLike = None,
        **options: Any,
    ) -> AsyncGenerator[AsyncResponse, None]:
        """The responses to many requests, for ``async for``; at most ``max_in_flight`` are under way at a time.

        As `Client.map`; ``requests`` may be an async iterable as well, and a response that is here is given before the
        next request is. Leaving the iteration early cancels what is under way, when the iterator is closed: at once
        with ``contextlib.aclosing``.
        """
        from hyperpool.aio.flights import Flights, told
        from hyperpool.policy.flights import check_many, len_of, parts_of

        if not hasattr(requests, "__aiter__"):
            check_many(requests)
        bound = arguments.whole("max_in_flight", max_in_flight, least=1)

        async def begin(entry: Any) -> AsyncResponse:
            method, url, own = parts_of(entry, options)
            return await self.request(method, url, **own)

        responses = Flights(begin, bound, ordered=ordered).responses(requests)
        return responses if progress is None else told(responses, progress, len_of(requests))

    async def _send(self, method: str, url: str, options: dict[str, Any]) -> AsyncResponse:
        await ready()
        source = None
        if hasattr(options.get("content"), "__aiter__"):
            length_bytes = declared_bytes(merged((), options.get("headers")))
            options["content"] = source = AsyncSource(options["content"], length_bytes=length_bytes)
        try:
            response = await outcome_of(self._client.submit(method, url, **options))
        except BaseException as error:
            await _ended(source)
            if isinstance(error, TypeError):
                check_options("AsyncClient.stream()" if options.get("stream") else "AsyncClient.request()", options)
            raise
        if not options.get("stream"):
            await _ended(source)
        return AsyncResponse(response, max_decoded_bytes=self.pool.limits.max_decoded_bytes, source=source)

    # -- its end ---------------------------------------------------------------------------------------------------

    async def aclose(self, *, grace_s: float = 1.0) -> None:
        """Close the client, as `Client.close` does, while other tasks go on; a client that was given stays open."""
        if self._owns_client:
            # It joins threads.
            await asyncio.to_thread(self._client.close, grace_s=grace_s)

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        return f"<AsyncClient {self.pool!r}>"


async def _ended(source: AsyncSource | None) -> None:
    if source is not None:
        await source.end()


_loaded: set[str] = set()


async def ready() -> None:
    """Have what requests need imported by another thread: the first request of a process takes about 0.2 s for that,
    for which it must not hold up its event loop."""
    if not _loaded:
        await asyncio.to_thread(_load)


def _load() -> None:
    load("requests", FOR_ALL)
    load("TLS", FOR_TLS)
    _loaded.add("requests")
