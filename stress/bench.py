"""What hyperpool costs, beside the clients that people use today. The small version: 1 KiB bodies over TLS from nginx.

    python -m stress.bench [--rounds 3] [--seconds 1.2] [--only h2,16] [--clients hyperpool,httpcore] [--json FILE]

Each measurement is a fresh process, the clients of a scenario take turns, and the table shows medians of the rounds: on
a shared machine only ratios taken in one run mean anything. All threads of a process share ONE client object. A slow
result is no failure; a measurement that did not end is one (status 1), and stands in its row.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from stress import sockets

BODY_BYTES = 1_024
WARM_UP_S = 0.3
PROCESS_S = 60.0
IN_FLIGHT = 100
FAILED = "the measurement failed"

Get = Callable[[], int]  # sends one request and returns the length of the body; raises where something failed


@dataclass(frozen=True, slots=True)
class Scenario:
    """What is measured. Immutable. ``threads`` 0 stands for `IN_FLIGHT` requests under way from one thread."""

    version: str
    threads: int
    clients: tuple[str, ...]

    @property
    def key(self) -> str:
        return f"{self.version},{self.threads or 'in-flight'}"

    def __str__(self) -> str:
        what = f"{self.threads} thread{'s' if self.threads > 1 else ''}" if self.threads else f"{IN_FLIGHT} in flight"
        return f"{self.version}, {what}"


# requests and urllib3 know no HTTP/2: in the h2 scenarios they show what the same server gives over HTTP/1.1.
PEERS_H2 = ("hyperpool", "httpcore", "httpx", "urllib3", "requests")
SCENARIOS = (
    Scenario("h2", 1, PEERS_H2),
    Scenario("h2", 16, PEERS_H2),
    Scenario("h2", 64, PEERS_H2),
    Scenario("h2", 0, ("hyperpool", "httpcore")),
    Scenario("h1", 16, ("hyperpool", "httpx", "urllib3", "requests")),
)


@dataclass(frozen=True, slots=True)
class Measured:
    """One measurement, or the medians of several. Immutable."""

    client: str
    scenario: str
    rate: float
    cpu_us: float
    p50_ms: float
    p99_ms: float
    errors: int
    first_error: str
    memory_mib: float


# -- the clients -------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _hyperpool(url: str, ca_file: str, *, h2: bool) -> Iterator[Get]:
    import hyperpool

    with hyperpool.Client(verify=ca_file, http2=h2, trust_env=False) as client:
        yield lambda: len(client.get(url).content)


@contextlib.contextmanager
def _httpcore(url: str, ca_file: str, *, h2: bool) -> Iterator[Get]:
    import ssl

    import httpcore

    context = ssl.create_default_context(cafile=ca_file)
    with httpcore.ConnectionPool(ssl_context=context, http2=h2, http1=not h2, max_connections=100) as pool:
        yield lambda: len(pool.request("GET", url).content)


@contextlib.contextmanager
def _httpx(url: str, ca_file: str, *, h2: bool) -> Iterator[Get]:
    import ssl

    import httpx

    context = ssl.create_default_context(cafile=ca_file)
    with httpx.Client(verify=context, http2=h2, trust_env=False, timeout=30) as client:
        yield lambda: len(client.get(url).content)


@contextlib.contextmanager
def _urllib3(url: str, ca_file: str, *, h2: bool) -> Iterator[Get]:
    import urllib3

    with urllib3.PoolManager(ca_certs=ca_file, maxsize=64) as pool:
        yield lambda: len(pool.request("GET", url, retries=False).data)


@contextlib.contextmanager
def _requests(url: str, ca_file: str, *, h2: bool) -> Iterator[Get]:
    import requests
    import requests.adapters

    with requests.Session() as session:
        session.verify, session.trust_env = ca_file, False
        session.mount("https://", requests.adapters.HTTPAdapter(pool_maxsize=64))
        yield lambda: len(session.get(url, timeout=30).content)


CLIENTS: dict[str, Callable[..., AbstractContextManager[Get]]] = {
    "hyperpool": _hyperpool,
    "httpcore": _httpcore,
    "httpx": _httpx,
    "urllib3": _urllib3,
    "requests": _requests,
}


# -- one measurement, in a process of its own --------------------------------------------------------------------------


class Run:
    """The threads of one measurement.

    Shared; each thread writes its own two lists, which are read when all threads have ended.
    """

    def __init__(self, get: Get) -> None:
        self._get = get
        self.counts_from_at = 0.0
        self.ends_at = 0.0
        self.latencies_s: list[list[float]] = []
        self.errors: list[str] = []

    def threads(self, count: int, seconds: float) -> None:
        """Send one request after another from each thread."""
        self._begin(seconds)
        lists: list[list[float]] = [[] for _ in range(count)]
        workers = [threading.Thread(target=self._work, args=(each,)) for each in lists]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        self.latencies_s = lists

    def _begin(self, seconds: float) -> None:
        self.counts_from_at = time.monotonic() + WARM_UP_S
        self.ends_at = self.counts_from_at + seconds

    def _work(self, latencies_s: list[float]) -> None:
        while (began_at := time.monotonic()) < self.ends_at:
            try:
                length = self._get()
            except Exception as error:
                self.errors.append(f"{type(error).__name__}: {error}")
                continue
            if length != BODY_BYTES:
                self.errors.append(f"{length} bytes")
            if began_at >= self.counts_from_at:
                latencies_s.append(time.monotonic() - began_at)

    def in_flight(self, submit: Callable[[], Future[Any]], seconds: float) -> None:
        """Keep `IN_FLIGHT` Futures under way from this thread."""
        self._begin(seconds)
        latencies_s: list[float] = []
        waiting: dict[Future[Any], float] = {}
        while time.monotonic() < self.ends_at:
            while len(waiting) < IN_FLIGHT:
                waiting[submit()] = time.monotonic()
            for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                self._count(future, waiting.pop(future), latencies_s)
        for future in waiting:
            future.exception()
        self.latencies_s = [latencies_s]

    def _count(self, future: Future[Any], began_at: float, latencies_s: list[float]) -> None:
        if error := future.exception():
            self.errors.append(f"{type(error).__name__}: {error}")
        elif len(future.result().content) != BODY_BYTES:
            self.errors.append("a wrong body")
        elif began_at >= self.counts_from_at:
            latencies_s.append(time.monotonic() - began_at)


def measure(client: str, scenario: Scenario, url: str, ca_file: str, seconds: float) -> Measured:
    """Take one measurement in this process."""
    with CLIENTS[client](url, ca_file, h2=scenario.version == "h2") as get:
        get()  # the import, the dial and the handshake are not what is measured
        run = Run(get)
        clock = _CpuClock()
        with clock.from_then_on(WARM_UP_S):
            if scenario.threads or client != "hyperpool":
                run.threads(scenario.threads or IN_FLIGHT, seconds)
            else:
                _in_flight(run, url, ca_file, seconds)
    latencies_s = sorted(each for each_list in run.latencies_s for each in each_list)
    return Measured(
        client,
        scenario.key,
        rate=len(latencies_s) / seconds,
        cpu_us=clock.spent_s / max(1, len(latencies_s)) * 1e6,
        p50_ms=_percentile_ms(latencies_s, 0.50),
        p99_ms=_percentile_ms(latencies_s, 0.99),
        errors=len(run.errors),
        first_error=run.errors[0] if run.errors else "",
        memory_mib=sockets.peak_memory_mib(),
    )


def _in_flight(run: Run, url: str, ca_file: str, seconds: float) -> None:
    import hyperpool

    with hyperpool.Client(verify=ca_file, trust_env=False) as client:
        client.get(url)
        run.in_flight(lambda: client.submit("GET", url), seconds)


class _CpuClock:
    """CPU time of the process, user and system, from the end of the warm-up on."""

    def __init__(self) -> None:
        self.spent_s = 0.0
        self._at_warm_s = 0.0

    @contextlib.contextmanager
    def from_then_on(self, after_s: float) -> Iterator[None]:
        timer = threading.Timer(after_s, self._warm)
        timer.start()
        try:
            yield
        finally:
            timer.join()
            self.spent_s = time.process_time() - self._at_warm_s

    def _warm(self) -> None:
        self._at_warm_s = time.process_time()


def _percentile_ms(latencies_s: list[float], share: float) -> float:
    return latencies_s[min(len(latencies_s) - 1, int(len(latencies_s) * share))] * 1_000 if latencies_s else 0.0


# -- all of them -------------------------------------------------------------------------------------------------------


def measure_elsewhere(client: str, scenario: Scenario, url: str, ca_file: Path, seconds: float) -> Measured:
    """Take one measurement in a fresh process; one that fails is a row with an error, and spares the others."""
    job = json.dumps([client, scenario.key, url, str(ca_file), seconds])
    command = [sys.executable, "-W", "ignore", "-m", "stress.bench", "--measure", job]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PROCESS_S, check=True)
    except subprocess.SubprocessError as error:
        last_words = (getattr(error, "stderr", None) or str(error)).strip().splitlines()[-1]
        return Measured(client, scenario.key, 0.0, 0.0, 0.0, 0.0, 1, f"{FAILED}: {last_words}", 0.0)
    return Measured(**json.loads(done.stdout.splitlines()[-1]))


def run_all(scenarios: list[Scenario], options: argparse.Namespace) -> dict[Scenario, list[Measured]]:
    """All measurements, the clients of each scenario in turns; medians."""
    from stress import servers

    taken: dict[tuple[Scenario, str], list[Measured]] = {}
    with servers.nginx(h2=True) as with_h2, servers.nginx(h2=False) as without:
        for round_number in range(options.rounds):
            for scenario, client in _turns(scenarios, options.clients, round_number):
                # Over nginx's TLS port with HTTP/2, clients of HTTP/1.1 are served as well.
                served = with_h2 if scenario.version == "h2" else without
                url = served.url(f"/bytes/{BODY_BYTES}")
                found = measure_elsewhere(client, scenario, url, served.ca_file, options.seconds)
                taken.setdefault((scenario, client), []).append(found)
                _note(f"  round {round_number + 1}  {scenario!s:18} {client:10} {found.rate:>8,.0f} req/s")
    return {each: [_median(taken[each, name]) for name in each.clients if (each, name) in taken] for each in scenarios}


def _turns(scenarios: list[Scenario], wanted: list[str], round_number: int) -> Iterator[tuple[Scenario, str]]:
    for scenario in scenarios:
        order = deque(name for name in scenario.clients if name in wanted)
        order.rotate(-round_number)  # nobody always comes first, or after the same one
        yield from ((scenario, name) for name in order)


def _median(several: list[Measured]) -> Measured:
    taken = [each for each in several if each.rate] or several
    return Measured(
        several[0].client,
        several[0].scenario,
        rate=statistics.median(each.rate for each in taken),
        cpu_us=statistics.median(each.cpu_us for each in taken),
        p50_ms=statistics.median(each.p50_ms for each in taken),
        p99_ms=statistics.median(each.p99_ms for each in taken),
        errors=sum(each.errors for each in several),
        first_error=next((each.first_error for each in several if each.first_error), ""),
        memory_mib=statistics.median(each.memory_mib for each in taken),
    )


def show(results: dict[Scenario, list[Measured]]) -> None:
    """Print one table per scenario; the ratio is hyperpool's rate to each one's."""
    for scenario, rows in results.items():
        ours = next((row.rate for row in rows if row.client == "hyperpool"), None)
        print(f"\n{scenario} (GET 1 KiB over TLS, one shared client)")
        print("  client              req/s   CPU us/req    p50 ms    p99 ms   MiB  errors   hyperpool is")
        for row in rows:
            ratio = f"{ours / row.rate:.2f} x" if ours and row.rate and row.client != "hyperpool" else ""
            print(
                f"  {row.client:16} {row.rate:>8,.0f} {row.cpu_us:>12,.0f} {row.p50_ms:>9.2f} {row.p99_ms:>9.2f}"
                f" {row.memory_mib:>5,.0f} {row.errors:>7} {ratio:>14}"
            )
            if row.first_error:
                print(f"    ! {row.first_error[:150]}")


def versions(names: list[str]) -> dict[str, str]:
    """Which versions were measured."""
    found = {"python": sys.version.split()[0]}
    for name in names:
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def _note(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m stress.bench", description="hyperpool beside its peers.")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1.2, help="of each measurement, after the warm-up")
    parser.add_argument("--only", action="append", help="a scenario, such as h2,16 or h2,in-flight; may be repeated")
    parser.add_argument("--clients", type=lambda text: text.split(","), default=list(CLIENTS))
    parser.add_argument("--json", type=Path, help="write the results to this file")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    if options.measure:
        client, key, url, ca_file, seconds = json.loads(options.measure)
        scenario = next(each for each in SCENARIOS if each.key == key)
        print(json.dumps(asdict(measure(client, scenario, url, ca_file, seconds))))
        return 0
    scenarios = [each for each in SCENARIOS if not options.only or each.key in options.only]
    results = run_all(scenarios, options)
    show(results)
    if options.json:
        rows = [asdict(row) for found in results.values() for row in found]
        options.json.write_text(json.dumps({"versions": versions(options.clients), "results": rows}, indent=1) + "\n")
    return int(any(row.first_error.startswith(FAILED) for found in results.values() for row in found))


if __name__ == "__main__":
    sys.exit(main())
