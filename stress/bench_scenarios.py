"""What is measured: the scenarios, and which clients take part in each.

A client is in every scenario that it can be in. Those that know no HTTP/2 show in the h2 scenarios what the same server
gives them over HTTP/1.1, since that is the choice that a program has.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from stress.bench_values import BODY_BYTES

BIG_BYTES = 100_000_000
HUGE_BYTES = 1_000_000_000
ROUND_TRIP_S = 0.050
LINE_MBIT = 1_000
MANY_ORIGINS = 1_000
REQUESTS_PER_ORIGIN = 4


class Kind(Enum):
    """What the processes of a scenario do; the functions are in `bench_measures` and `bench_long`."""

    REQUESTS = "requests"
    FLIGHT = "flight"
    DOWN = "down"
    UP = "up"
    FAR = "far"
    SLOW = "slow"
    ORIGINS = "origins"
    SOCKETS = "sockets"
    IMPORT = "import"


class Where(Enum):
    """Which server it is that is asked."""

    NGINX_H2 = "nginx"
    NGINX_H1 = "nginx-h1"
    NGHTTPD = "nghttpd"
    NGHTTPD_UP = "nghttpd, wide windows"
    FAR = "nginx, 50 ms away on a line of 1 Gbit/s"
    FAR_OPEN = "nginx, 50 ms away"
    ORIGINS = "nginx, many origins"
    NOBODY = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """What is measured. Immutable. ``workers``: threads (tasks, for clients of asyncio), or requests in flight.

    ``one_cpu``: the client keeps to one CPU, and leaves the others to the server.
    """

    key: str
    title: str
    kind: Kind
    where: Where
    clients: tuple[str, ...]
    workers: int = 1
    size_bytes: int = BODY_BYTES
    one_cpu: bool = False

    @property
    def h2(self) -> bool:
        return self.where is not Where.NGINX_H1

    @property
    def unit(self) -> str:
        if self.kind in (Kind.DOWN, Kind.UP, Kind.FAR):
            return "MB"
        return "import" if self.kind is Kind.IMPORT else "req"


_PYTHON = ("hyperpool", "httpcore", "httpx", "urllib3", "requests", "niquests")
_NATIVE = ("pycurl", "primp", "pyreqwest")
_THREADS = (*_PYTHON, "aiohttp", *_NATIVE)
_BULK = ("hyperpool", "httpcore", "httpx", "niquests", "urllib3", *_NATIVE)
_FLIGHT = (
    "hyperpool",
    "hyperpool-aio",
    "httpcore",
    "httpx",
    "httpx-async",
    "urllib3",
    "requests",
    "niquests",
    "aiohttp",
    "pycurl-multi",
    "primp",
    "primp-async",
    "pyreqwest",
    "pyreqwest-async",
)
# 1,000 threads are nobody's way of having 1,000 requests in flight; httpcore stands for what they cost.
_FLIGHT_1000 = ("hyperpool", "hyperpool-aio", "httpcore", "aiohttp", "pycurl-multi", "primp-async", "pyreqwest-async")


def _threads(
    where: Where, name: str, workers: int, clients: tuple[str, ...] = _THREADS, *, one_cpu: bool = False
) -> Scenario:
    threads = "1 thread" if workers == 1 else f"{workers} threads"
    return Scenario(
        key=f"{name},{workers}{',one-cpu' * one_cpu}",
        title=f"{name}: GET 1 KiB, {threads}{', the client on one CPU' * one_cpu}",
        kind=Kind.REQUESTS,
        where=where,
        clients=clients,
        workers=workers,
        one_cpu=one_cpu,
    )


SCENARIOS = (
    _threads(Where.NGINX_H2, "h2", 1),
    _threads(Where.NGINX_H2, "h2", 16),
    _threads(Where.NGINX_H2, "h2", 64),
    _threads(Where.NGINX_H2, "h2", 16, one_cpu=True),
    _threads(Where.NGHTTPD, "h2-nghttpd", 16, ("hyperpool", "httpcore", "httpx", "niquests", *_NATIVE)),
    Scenario(
        key="h2,in-flight",
        title="h2: GET 1 KiB, 100 in flight",
        kind=Kind.FLIGHT,
        where=Where.NGINX_H2,
        clients=_FLIGHT,
        workers=100,
    ),
    Scenario(
        key="h2,in-flight-1000",
        title="h2: GET 1 KiB, 1,000 in flight",
        kind=Kind.FLIGHT,
        where=Where.NGINX_H2,
        clients=_FLIGHT_1000,
        workers=1_000,
    ),
    _threads(Where.NGINX_H1, "h1", 16),
    _threads(Where.NGINX_H1, "h1", 16, one_cpu=True),
    Scenario(
        key="down-h2",
        title="100 MB down, h2, read as it comes",
        kind=Kind.DOWN,
        where=Where.NGINX_H2,
        clients=_BULK,
        size_bytes=BIG_BYTES,
    ),
    Scenario(
        key="down-h1",
        title="100 MB down, h1, read as it comes",
        kind=Kind.DOWN,
        where=Where.NGINX_H1,
        clients=(*_BULK, "requests"),
        size_bytes=BIG_BYTES,
    ),
    Scenario(
        key="up-h2",
        title="100 MB up, h2, from a file",
        kind=Kind.UP,
        where=Where.NGINX_H2,
        clients=_BULK,
        size_bytes=BIG_BYTES,
    ),
    Scenario(
        key="up-h2-nghttpd",
        title="100 MB up, h2, from a file, to nghttpd (frames of 16 KiB)",
        kind=Kind.UP,
        where=Where.NGHTTPD_UP,
        clients=("hyperpool", "httpcore", "httpx", "niquests", *_NATIVE),
        size_bytes=BIG_BYTES,
    ),
    Scenario(
        key="rtt50",
        title="100 MB down, h2, 1 Gbit/s and a round trip of 50 ms, on a connection that has carried one response",
        kind=Kind.FAR,
        where=Where.FAR,
        clients=("tcp", *_BULK),
        size_bytes=BIG_BYTES,
    ),
    Scenario(
        key="rtt50-open",
        title="The same over a round trip of 50 ms alone, at whatever rate",
        kind=Kind.FAR,
        where=Where.FAR_OPEN,
        clients=("tcp", *_BULK),
        size_bytes=BIG_BYTES,
    ),
    Scenario(
        key="slow-reader",
        title="h2: 63 threads GET 1 KiB, beside one response of 1 GB that nobody reads",
        kind=Kind.SLOW,
        where=Where.NGINX_H2,
        clients=("hyperpool", "httpcore", "httpx", "urllib3", "requests"),
        workers=63,
        size_bytes=HUGE_BYTES,
    ),
    Scenario(
        key="origins-1000",
        title="1,000 origins, 4 requests of 1 KiB to each from 16 threads",
        kind=Kind.ORIGINS,
        where=Where.ORIGINS,
        clients=("hyperpool", "urllib3", "requests"),  # httpx looks through all its connections for each request
        workers=16,
    ),
    Scenario(
        key="sockets",
        title="64 threads on one origin: sockets, threads of the client, memory for each worker",
        kind=Kind.SOCKETS,
        where=Where.NGINX_H2,
        clients=_THREADS,
        workers=64,
    ),
    Scenario(
        key="import",
        title="`import X` in a fresh interpreter",
        kind=Kind.IMPORT,
        where=Where.NOBODY,
        clients=(*_PYTHON, "aiohttp", *_NATIVE),
    ),
)

BY_KEY = {scenario.key: scenario for scenario in SCENARIOS}
