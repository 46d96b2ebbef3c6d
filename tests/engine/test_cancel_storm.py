"""10,000 futures over real sockets, cancelled at random moments: the server keeps count of its limit."""

from __future__ import annotations

import random
import threading
from concurrent.futures import CancelledError, wait
from typing import Any

import pytest
from engine_bench import check_ledgers

from hyperpool.pool import ConnectionPool
from hyperpool.testing import Reply, Server
from hyperpool.testing.messages import Request as Seen
from hyperpool.values import Limits, Request, Timeout
from stage import eventually

FUTURES = 10_000
THREADS = 8
LIMIT = 20
WAIT_S = 60.0  # a bound for broken code only


def handle(request: Seen) -> Reply:
    return Reply(body=request.path.encode() * 100)


def storm(pool: ConnectionPool, url: str, seed: int, settled: list[Any]) -> None:
    """Submit, and cancel two of three: at once, a little later, or when others have been answered."""
    chance, pending = random.Random(seed), []
    for number in range(FUTURES // THREADS):
        future = pool.submit(Request("GET", f"{url}/{seed}/{number}", timeout=Timeout(WAIT_S)))
        settled.append((f"/{seed}/{number}", future))
        pending.append(future)
        if chance.random() < 0.7:
            pending.pop(chance.randrange(len(pending))).cancel()
        if chance.random() < 0.02:
            wait(pending[:1], WAIT_S)


def all_free(loop: Any) -> bool:
    return all(connection.free_slots == LIMIT for connection in loop._connections)


@pytest.mark.slow
def test_10000_futures_cancelled_at_random_moments_cost_no_slot_and_never_overrun_the_limit() -> None:
    # The server's HTTP/2 machine ends a connection whose client opens more streams than it allows.
    limits = Limits(max_queued_per_origin=FUTURES, max_connections_per_origin=4)
    with Server(handle, max_concurrent_streams=LIMIT) as server:
        with ConnectionPool(limits=limits, verify=server.ca_pem, trust_env=False) as pool:
            settled: list[Any] = []
            threads = [
                threading.Thread(target=storm, args=(pool, server.origin, seed, settled)) for seed in range(THREADS)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(WAIT_S)
            wait([future for _, future in settled], WAIT_S)
            answered = 0
            for path, future in settled:
                try:
                    assert future.result(0).content == path.encode() * 100
                    answered += 1
                except CancelledError:
                    assert future.cancelled()
            assert len(settled) == FUTURES and 0 < answered < FUTURES
            again = [pool.submit(Request("GET", f"{server.origin}/{n}", timeout=Timeout(WAIT_S))) for n in range(80)]
            assert all(future.result(WAIT_S).ok for future in again)
            (loop,) = pool._loops.alive()
            # The last PING's answer frees the last slot; until then the loop has something to read.
            assert eventually(lambda: all_free(loop))
            for connection in loop._connections:
                check_ledgers(connection)
            assert (loop.stats.open_streams, loop.stats.queued) == (0, 0)
        assert server.errors == []
