"""A bad network between a client and its server, seeded: delays, stalls, throttling, bursts, cuts, truncations.

    python -m stress.chaos --threads 16 --requests 2000 --seed 7
    python -m stress.chaos --threads 64 --minutes 10
    python -m stress.chaos --h1

Every connection draws one `Weather` from the seed. Half of the requests are GETs whose bodies are checked, half are
POSTs with a number that the server counts. What must hold, whatever the network does:

- a success is right to the last byte, and its POST was counted exactly once;
- a failure is a `HyperpoolError` within the request's timeout; where it says processed="no" the server never saw it;
- nothing is counted twice;
- afterwards, over a calm network, the same client works, and after `close` no thread is left.

The exit status is 0 only if all of that held.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import faulthandler
import itertools
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import hyperpool
from hyperpool.testing import Reply, Request, Server, pattern
from stress import sockets

SIZES = (0, 1, 1_000, 20_000, 200_000)
TIMEOUT_S = 5.0
# Many kinds of weather end no connection, and the worst of them would be that of the rest of the run.
MAX_AGE_S = 15.0
# A request may end this much later than its timeout on a loaded machine.
LATE_S = 3.0
ERRORS_SHOWN = 15
# Over HTTP/1.1 the server answers 400 to an upload that ends too early, as it does where the weather has closed that
# direction alone: the client is told so, and nothing is counted.
BROKEN_OFF = "400, as the upload broke off"


@dataclass(frozen=True, slots=True)
class Weather:
    """What happens to one connection. Immutable.

    ``delay_s`` before each piece; pieces of ``piece_bytes`` at most; after ``calm_bytes`` the ``end``: "cut" resets
    both sides, "truncate" closes one direction, "stall" passes nothing more, "" never comes.
    """

    delay_s: float
    piece_bytes: int
    calm_bytes: int
    end: str

    @classmethod
    def drawn(cls, chance: random.Random) -> Weather:
        """From best to worst; nothing is so bad that no request gets through."""
        return cls(
            delay_s=chance.choice((0, 0, 0.001, 0.01)),
            piece_bytes=chance.choice((7, 1_000, 65_536, 65_536)),
            calm_bytes=int(chance.expovariate(1 / 150_000)) + 3_000,
            end=chance.choice(("", "cut", "cut", "truncate", "stall")),
        )


CALM = Weather(0, 65_536, 0, "")


class ChaosProxy:
    """Passes bytes to and fro on a loopback port, each connection in its own weather.

    One thread with an asyncio loop; ``calm`` may be set by any thread, and counts for later connections.
    """

    def __init__(self, target_port: int, seed: int) -> None:
        self.calm = False
        self.port = 0
        self._target_port = target_port
        self._chance = random.Random(seed)
        self._ready = threading.Event()
        self._stop: asyncio.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        # Before Python 3.12 nothing else holds the task of a connection that waits, and it may vanish in mid-wait.
        self._tasks: set[asyncio.Task[None] | None] = set()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name="chaos", daemon=True)

    def __enter__(self) -> ChaosProxy:
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(self, *exc_info: object) -> None:
        assert self._loop is not None and self._stop is not None
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self._pass_on, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._stop.wait()
        server.close()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._tasks.add(asyncio.current_task())
        weather = CALM if self.calm else Weather.drawn(self._chance)
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target_port)
        ways = [self._one_way(reader, far_writer, weather), self._one_way(far_reader, writer, weather)]
        tasks = [asyncio.ensure_future(way) for way in ways]
        try:
            await asyncio.gather(*tasks)
        except (OSError, asyncio.CancelledError):  # cut, or the end of the proxy, which asyncio would print
            for end in (writer, far_writer):
                end.transport.abort()
            for task in tasks:
                task.cancel()
        finally:
            self._tasks.discard(asyncio.current_task())

    async def _one_way(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, weather: Weather) -> None:
        passed = 0
        while data := await reader.read(weather.piece_bytes):
            if weather.delay_s:
                await asyncio.sleep(weather.delay_s)
            writer.write(data)
            await writer.drain()
            passed += len(data)
            if weather.end and passed >= weather.calm_bytes:
                break
        else:
            weather = CALM
        if weather.end == "cut":
            raise ConnectionResetError("the weather")
        if weather.end == "stall":
            await asyncio.sleep(3_600)
        with contextlib.suppress(OSError):
            writer.write_eof() if writer.can_write_eof() else writer.close()


class Count:
    """How often the server has seen each number.

    Shared; guarded by lock.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seen: Counter[int] = Counter()

    def handle(self, request: Request) -> Reply:
        """The server's side of POST /count?N."""
        body = request.read()
        with self._lock:
            self._seen[int(request.query)] += 1
        return Reply(200, body=body)

    def of(self, number: int) -> int:
        with self._lock:
            return self._seen[number]


class Chaos:
    """One run. Shared; the counter of requests is one atomic step, and the lists only grow."""

    def __init__(self, client: hyperpool.Client, origin: str, options: argparse.Namespace) -> None:
        self.client = client
        self.origin = origin
        self.options = options
        self.count = Count()
        self.numbers = itertools.count()
        self.outcomes: list[str] = []
        self.posts: list[tuple[int, str]] = []
        self.wrong: list[str] = []
        self._until_at = float("inf") if options.minutes is None else time.monotonic() + 60 * options.minutes

    def work(self) -> None:
        """Requests, until all have been made, or for the time that was asked for."""
        most = float("inf") if self.options.minutes is not None else self.options.requests
        while (number := next(self.numbers)) < most and time.monotonic() < self._until_at:
            began_at = time.monotonic()
            try:
                outcome = self._one(number)
            except Exception as error:
                self.wrong.append(f"request {number}: {type(error).__name__}: {error}")
                continue
            took_s = time.monotonic() - began_at
            if took_s > TIMEOUT_S + LATE_S:
                self.wrong.append(f"request {number}: took {took_s:.1f} s, {outcome}")
            self.outcomes.append(outcome)

    def _one(self, number: int) -> str:
        size = random.Random(f"{self.options.seed}:{number}").choice(SIZES)
        is_post = number % 2 == 1
        url = f"{self.origin}/count?{number}" if is_post else f"{self.origin}/bytes/{size}"
        try:
            response = self.client.request(
                "POST" if is_post else "GET", url, content=pattern(size) if is_post else None
            )
        except hyperpool.HyperpoolError as error:
            outcome = f"{type(error).__name__} processed={error.processed}"
        else:
            outcome = "ok"
            if is_post and response.status_code == 400:
                outcome = BROKEN_OFF
            elif response.content != pattern(size):
                what = f"a wrong body of {len(response.content):,} bytes, status {response.status_code}"
                self.wrong.append(f"request {number}: {what}")
        if is_post:
            self.posts.append((number, outcome))
        return outcome

    def judge(self) -> None:
        """Hold what the server has counted against what the client was told."""
        for number, outcome in self.posts:
            seen = self.count.of(number)
            unseen = outcome == BROKEN_OFF or outcome.endswith("=no")
            allowed = (1,) if outcome == "ok" else (0,) if unseen else (0, 1)
            if seen not in allowed:
                self.wrong.append(f"request {number}: counted {seen} times, but the client was told: {outcome}")


@contextlib.contextmanager
def bad_network(options: argparse.Namespace) -> Iterator[tuple[Chaos, ChaosProxy]]:
    """A server, the network before it, and the client behind that."""
    limits = hyperpool.Limits(ping_after_s=0.5, ping_timeout_s=1.0, max_age_s=MAX_AGE_S)
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(Server(http2=not options.h1))
        proxy = stack.enter_context(ChaosProxy(server.port, options.seed))
        client = stack.enter_context(
            hyperpool.Client(verify=server.ca_pem, timeout=TIMEOUT_S, limits=limits, trust_env=False)
        )
        chaos = Chaos(client, f"https://localhost:{proxy.port}", options)
        server.route("/count")(chaos.count.handle)
        yield chaos, proxy


def main(argv: list[str] | None = None) -> int:
    """Exit status 0 if every promise was kept."""
    parser = argparse.ArgumentParser(prog="python -m stress.chaos", description="A bad network.")
    parser.add_argument("--threads", type=int, default=16)
    parser.add_argument("--requests", type=int, default=2_000)
    parser.add_argument("--minutes", type=float, help="for so long, however many requests those are")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--h1", action="store_true", help="HTTP/1.1 instead of HTTP/2")
    parser.add_argument("--deadline", type=float, default=300.0, help="seconds")
    options = parser.parse_args(argv)
    faulthandler.dump_traceback_later(options.deadline + 60 * (options.minutes or 0), exit=True)
    began_at = time.monotonic()
    with bad_network(options) as (chaos, proxy):
        with ThreadPoolExecutor(options.threads) as threads:
            for worker in [threads.submit(chaos.work) for _ in range(options.threads)]:
                worker.result()
        proxy.calm = True
        _calms_down(chaos)
        chaos.judge()
    if left := sockets.our_threads():
        chaos.wrong.append(f"threads left: {left}")
    print(f"{len(chaos.outcomes):,} requests in {time.monotonic() - began_at:.1f} s")
    for outcome, times in Counter(chaos.outcomes).most_common():
        print(f"{times:7,}  {outcome}")
    print(f"{len(chaos.wrong):,} wrong")
    for line in chaos.wrong[:ERRORS_SHOWN]:
        print(f"  {line}")
    return 1 if chaos.wrong else 0


def _calms_down(chaos: Chaos) -> None:
    """Connections of the bad network may have to die first; each failure on them must say so in time."""
    until_at = time.monotonic() + 4 * TIMEOUT_S
    for _ in range(20):
        try:
            assert chaos.client.get(f"{chaos.origin}/bytes/1000").content == pattern(1_000)
        except hyperpool.HyperpoolError as error:
            if time.monotonic() > until_at:
                chaos.wrong.append(f"over a calm network: {error!r}")
                return


if __name__ == "__main__":
    sys.exit(main())
