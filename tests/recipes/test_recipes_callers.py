"""The recipes for thread pools and for asyncio."""

from __future__ import annotations

import asyncio
from typing import Any

import hyperpool


def urls_of(server: Any, n: int) -> list[str]:
    return [server.url(f"/bytes/{number}") for number in range(n)]


def test_an_executors_threads_share_one_connection_and_each_error_is_its_own(kitchen: Any, recipe: Any) -> None:
    executor, server, client = recipe("executor"), kitchen.server(), kitchen.client()
    urls, broken, missing = urls_of(server, 200), server.url("/fault/reset"), server.url("/status/404")
    found = executor.sizes(client, [*urls, broken, missing])
    assert [found[url] for url in urls] == list(range(200))
    assert isinstance(found[broken], hyperpool.StreamReset)
    assert isinstance(found[missing], hyperpool.HTTPStatusError)
    assert server.connections_accepted == 1


def test_futures_need_no_threads(kitchen: Any, recipe: Any) -> None:
    executor, server, client = recipe("executor"), kitchen.server(), kitchen.client()
    urls, broken = urls_of(server, 50), server.url("/fault/reset")
    found = executor.sizes_without_threads(client, [*urls, broken])
    assert [found[url] for url in urls] == list(range(50))
    assert isinstance(found[broken], hyperpool.StreamReset)


def test_tasks_share_the_client_of_the_threads(kitchen: Any, recipe: Any) -> None:
    tasks, server, client = recipe("tasks"), kitchen.server(), kitchen.client()
    assert asyncio.run(tasks.sizes(client, urls_of(server, 200), at_once=20)) == list(range(200))
    assert server.connections_accepted == 1


def test_a_task_that_is_cancelled_takes_its_request_back(kitchen: Any, recipe: Any) -> None:
    tasks, server, client = recipe("tasks"), kitchen.server(), kitchen.client()

    async def give_up() -> None:
        running = asyncio.ensure_future(tasks.sizes(client, [server.url("/fault/silence")]))
        await asyncio.to_thread(server.wait_until, lambda server: bool(server.requests), 20)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    asyncio.run(give_up())
    assert server.wait_until(lambda server: server.requests[0].reset_code == 8, 20)
