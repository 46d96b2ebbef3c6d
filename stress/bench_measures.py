"""How one client is measured in one scenario, in a process of its own: many small requests, by threads or in flight.

`Run` is what all of them write into. Its clock counts CPU time of the whole process, all of its threads, user and
system, from the end of the warm-up on; latencies count for requests that were begun after it.
"""

from __future__ import annotations

import contextlib
import math
import os
import threading
import time
from pathlib import Path
from typing import Any

from stress import sockets
from stress.bench_clients import Setting
from stress.bench_scenarios import Kind, Scenario
from stress.bench_values import BODY_BYTES, Job, Measured

WARM_UP_S = 0.3
# Of many requests in flight: 100 handshakes of those who need so many connections, and one round of all.
LONG_WARM_UP_S = 1.0
MANY = 100
_PROBE_H2_BYTES = 2
_ESTABLISHED = "01"  # include/net/tcp_states.h


class Lane:
    """What one thread writes down. Owned by it until all have ended."""

    __slots__ = ("errors", "first_error", "latencies_s")

    def __init__(self) -> None:
        self.latencies_s: list[float] = []
        self.errors = 0
        self.first_error = ""

    def fail(self, error: BaseException | str) -> None:
        self.errors += 1
        if not self.first_error:
            self.first_error = error if isinstance(error, str) else f"{type(error).__name__}: {error}"


class Run:
    """The threads of one measurement, or the one that keeps many requests in flight (it is its `Tally`).

    Each thread writes its own lane; they are read when all have ended.
    """

    def __init__(self, job: Job, peer: Any, *, warm_up_s: float = WARM_UP_S) -> None:
        self._job = job
        self._peer = peer
        self._warm_up_s = warm_up_s
        self._own = Lane()
        self.lanes = [self._own]
        self.probe_url = job.probe_url
        self.protocol = "" if job.probe_url else "h2"
        self.counts_from_at = self.ends_at = math.inf
        self.cpu_s = self._warm_cpu_s = 0.0
        self.threads = self._sockets = 0

    # -- driving -------------------------------------------------------------------------------------------------------

    def by_threads(self, count: int) -> None:
        """Send one request after another from each thread."""
        self.probed(self._peer.get(self.probe_url or self._job.url))
        self.lanes = [Lane() for _ in range(count)]
        workers = [threading.Thread(target=self._work, args=(lane,)) for lane in self.lanes]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        self._end()

    def in_flight(self, count: int) -> None:
        """Let the client itself keep so many requests under way; its first one is the probe."""
        self._peer.fly(self._job.url, count, self)
        self._end()

    def _begin(self) -> None:
        self._warm = threading.Timer(self._warm_up_s, self._end_warm_up)
        self._warm.start()

    def _end_warm_up(self) -> None:
        # Here and at the end: a client for asyncio is closed by then.
        self._sockets = sockets.sockets_to(self._job.port)
        self.threads = threads_of_process() - 2  # the main thread and this one
        # At one and the same moment, which may come late where all threads are busy.
        self._warm_cpu_s = time.process_time()
        self.counts_from_at = time.monotonic()
        self.ends_at = self.counts_from_at + self._job.seconds

    def _end(self) -> None:
        self._warm.join()
        self.cpu_s = time.process_time() - self._warm_cpu_s

    def _work(self, lane: Lane) -> None:
        get, url, latencies_s = self._peer.get, self._job.url, lane.latencies_s
        while (began_at := time.monotonic()) < self.ends_at:
            try:
                length = get(url)
            except Exception as error:
                lane.fail(error)
                continue
            if length != BODY_BYTES:
                lane.fail(f"{length} bytes came")
            elif began_at >= self.counts_from_at:
                latencies_s.append(time.monotonic() - began_at)

    # -- what a client that flies writes down --------------------------------------------------------------------------

    @property
    def over(self) -> bool:
        return time.monotonic() >= self.ends_at

    def probed(self, length: int) -> None:
        """What the probe brought; now everything is imported and connected, and the time begins."""
        if self.probe_url:
            self.protocol = "h2" if length == _PROBE_H2_BYTES else "h1"
        self._begin()

    def count(self, began_at: float, length: int) -> None:
        if length != BODY_BYTES:
            self._own.fail(f"{length} bytes came")
        elif began_at >= self.counts_from_at:
            self._own.latencies_s.append(time.monotonic() - began_at)

    def fail(self, error: BaseException) -> None:
        self._own.fail(error)

    # -- what came of it -----------------------------------------------------------------------------------------------

    @property
    def latencies_s(self) -> list[float]:
        return sorted(each for lane in self.lanes for each in lane.latencies_s)

    def measured(self, how: str, **more: Any) -> Measured:
        latencies_s = self.latencies_s
        return Measured(
            client=self._job.client,
            scenario=self._job.scenario,
            how=how,
            protocol=self.protocol,
            rate=len(latencies_s) / self._job.seconds,
            cpu_us=self.cpu_s / max(1, len(latencies_s)) * 1e6,
            p50_ms=percentile_ms(latencies_s, 0.50),
            p99_ms=percentile_ms(latencies_s, 0.99),
            memory_mib=sockets.peak_memory_mib(),
            sockets=max(self._sockets, sockets.sockets_to(self._job.port)),
            errors=sum(lane.errors for lane in self.lanes),
            first_error=next((lane.first_error for lane in self.lanes if lane.first_error), ""),
            **more,
        )


def setting_for(scenario: Scenario, job: Job, **more: Any) -> Setting:
    return Setting(ca_file=job.ca_file, h2=scenario.h2, workers=scenario.workers, **more)


def requests(scenario: Scenario, job: Job, peer: Any) -> Measured:
    """Small requests, from threads; or from the client's own loop, where it has one and is asked for many in flight."""
    run = Run(job, peer, warm_up_s=LONG_WARM_UP_S if scenario.workers >= MANY else WARM_UP_S)
    flies = bool(peer.how_flying) and (scenario.kind is Kind.FLIGHT or not hasattr(peer, "get"))
    if flies:
        run.in_flight(scenario.workers)
    else:
        run.by_threads(scenario.workers)
    how = peer.how_flying if flies else "threads"
    if scenario.workers == 1:
        how = how.removesuffix("s")
    own = run.threads - (0 if flies else scenario.workers)
    return run.measured(f"{scenario.workers} {how}", threads=max(0, own))


def sockets_of_workers(scenario: Scenario, job: Job, peer: Any) -> Measured:
    """The same, with what each worker adds to the memory of a process that has sent one request."""
    if hasattr(peer, "get"):
        peer.get(job.url)
    before_mib = sockets.peak_memory_mib()
    found = requests(scenario, job, peer)
    found.more["KiB for each worker"] = (sockets.peak_memory_mib() - before_mib) * 1024 / scenario.workers
    return found


# -- what a process is made of -----------------------------------------------------------------------------------------


def threads_of_process() -> int:
    """All threads of this process, those of libraries in C and Rust among them."""
    return len(os.listdir("/proc/self/task"))


def tcp_sockets() -> int:
    """Established TCP connections of this process, to wherever."""
    own = set()
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            own.add(os.readlink(f"/proc/self/fd/{name}"))
    lines = Path("/proc/self/net/tcp").read_text("ascii").splitlines()[1:]
    fields = (line.split() for line in lines)
    return sum(each[3] == _ESTABLISHED and f"socket:[{each[9]}]" in own for each in fields)


def resident_mib() -> float:
    """What this process has in memory now."""
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    return pages * os.sysconf("SC_PAGESIZE") / (1 << 20)


def percentile_ms(latencies_s: list[float], share: float) -> float:
    return latencies_s[min(len(latencies_s) - 1, int(len(latencies_s) * share))] * 1_000 if latencies_s else 0.0
