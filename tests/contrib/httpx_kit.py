"""The bench of the httpx face: clients over the transports, for threads and for event loops."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
from adapter_kit import Bench

from hyperpool.contrib.httpx import AsyncHyperpoolTransport, HyperpoolTransport
from hyperpool.pool import ConnectionPool
from stage import WAIT_S

# What tests of one phase leave alone.
PATIENT = httpx.Timeout(WAIT_S)


def client_of(bench: Bench, *, transport: dict[str, Any] | None = None, **options: Any) -> httpx.Client:
    """A client over a HyperpoolTransport that trusts the bench's servers."""
    made = HyperpoolTransport(**{"verify": bench.ca_file, **(transport or {})})
    return bench.enter(httpx.Client(**{"transport": made, "timeout": PATIENT, **options}))


def async_client_of(bench: Bench, *, transport: dict[str, Any] | None = None, **options: Any) -> httpx.AsyncClient:
    """The same for event loops. Its pool is closed at the end, when no event loop runs any more."""
    given = {"verify": bench.ca_file, **(transport or {})}
    pool = given.get("pool")
    if pool is None:
        pool = bench.enter(ConnectionPool(verify=given.pop("verify")))
    made = AsyncHyperpoolTransport(**{**{key: one for key, one in given.items() if key != "verify"}, "pool": pool})
    return httpx.AsyncClient(**{"transport": made, "timeout": PATIENT, **options})


def in_event_loop(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """A test that is a coroutine, in an event loop of its own; bounded."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        asyncio.run(asyncio.wait_for(test(*args, **kwargs), 2 * WAIT_S))

    return run
