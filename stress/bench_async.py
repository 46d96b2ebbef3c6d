"""The clients of the benchmark that are for asyncio: as many tasks as a scenario has threads, in one event loop.

They have no ``get``: where a scenario is about threads, they show what a program gives that was written for asyncio.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from pathlib import Path
from typing import Any

from stress.bench_clients import PATIENCE_S, Peer, Setting, Tally, load, trusting


class AsyncPeer(Peer):
    """A client for asyncio. Owned by the thread that calls `fly`, which runs the event loop."""

    how_flying = "tasks"

    def __init__(self, setting: Setting) -> None:
        self.setting = setting

    def session(self) -> AbstractAsyncContextManager[Any]:
        raise NotImplementedError

    async def length(self, client: Any, url: str) -> int:
        """The length of what a GET brought."""
        raise NotImplementedError

    def fly(self, url: str, in_flight: int, tally: Tally) -> None:
        import asyncio

        asyncio.run(self._fly(url, in_flight, tally))

    async def _fly(self, url: str, in_flight: int, tally: Tally) -> None:
        import asyncio

        async with self.session() as client:
            tally.probed(await self.length(client, tally.probe_url or url))
            await asyncio.gather(*(self._one_after_another(client, url, tally) for _ in range(in_flight)))

    async def _one_after_another(self, client: Any, url: str, tally: Tally) -> None:
        while not tally.over:
            began_at = time.monotonic()
            try:
                length = await self.length(client, url)
            except Exception as error:
                tally.fail(error)
            else:
                tally.count(began_at, length)


class HyperpoolAio(AsyncPeer):
    """Ours, for coroutines."""

    def session(self) -> AbstractAsyncContextManager[Any]:
        aio = load("hyperpool.aio")
        client: AbstractAsyncContextManager[Any] = aio.AsyncClient(
            verify=self.setting.ca_file, http2=self.setting.h2, trust_env=False
        )
        return client

    async def length(self, client: Any, url: str) -> int:
        return len((await client.get(url)).content)


class HttpxAsync(AsyncPeer):
    """httpx.AsyncClient."""

    def session(self) -> AbstractAsyncContextManager[Any]:
        client: AbstractAsyncContextManager[Any] = load("httpx").AsyncClient(
            verify=trusting(self.setting), http2=self.setting.h2, trust_env=False, timeout=PATIENCE_S
        )
        return client

    async def length(self, client: Any, url: str) -> int:
        return len((await client.get(url)).content)


class Aiohttp(AsyncPeer):
    """aiohttp, which speaks HTTP/1.1, over the 100 connections that it allows itself."""

    def session(self) -> AbstractAsyncContextManager[Any]:
        aiohttp = load("aiohttp")
        connector = aiohttp.TCPConnector(ssl=trusting(self.setting))
        client: AbstractAsyncContextManager[Any] = aiohttp.ClientSession(
            connector=connector, timeout=aiohttp.ClientTimeout(PATIENCE_S)
        )
        return client

    async def length(self, client: Any, url: str) -> int:
        async with client.get(url) as response:
            return len(await response.read())


class PrimpAsync(AsyncPeer):
    """primp's client for asyncio."""

    @contextlib.asynccontextmanager
    async def session(self) -> AsyncIterator[Any]:
        yield load("primp").AsyncClient(ca_cert_file=self.setting.ca_file, timeout=PATIENCE_S)

    async def length(self, client: Any, url: str) -> int:
        # Not `content`, which blocks the event loop until the body is there.
        return len(await (await client.get(url)).aread())


class PyreqwestAsync(AsyncPeer):
    """pyreqwest's client for asyncio."""

    def session(self) -> AbstractAsyncContextManager[Any]:
        client: AbstractAsyncContextManager[Any] = reqwest(load("pyreqwest.client").ClientBuilder(), self.setting)
        return client

    async def length(self, client: Any, url: str) -> int:
        return len(await (await client.get(url).build().send()).bytes())


def reqwest(builder: Any, setting: Setting) -> Any:
    """A client of pyreqwest's. Its documentation recommends to tune HTTP/2's windows, which are 64 KiB else."""
    built = (
        builder.add_root_certificate_pem(Path(setting.ca_file).read_bytes())
        .http2(setting.h2)
        .timeout(timedelta(seconds=PATIENCE_S))
        .no_proxy()
    )
    return (built.http2_adaptive_window(True) if setting.h2 else built).build()
