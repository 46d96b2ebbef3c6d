"""How one client is measured where it is not about small requests: transfers, a slow reader, many origins, imports.

Each function runs in a process of its own. A transfer that takes longer than `PATIENCE_S` is left, and its rate is that
of the bytes that came: a client whose windows do not grow would take minutes for 100 MB over a long line.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import resource
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from stress import sockets
from stress.bench_measures import Lane, Run, percentile_ms, resident_mib, setting_for, tcp_sockets, threads_of_process
from stress.bench_scenarios import REQUESTS_PER_ORIGIN, Kind, Scenario
from stress.bench_values import BODY_BYTES, Job, Measured

PATIENCE_S = 10.0
# Long enough for 1,000 handshakes on a busy machine; a client that is asked to be quick to forget is seen to forget.
IDLE_S = 20.0
IDLE_FEW_S = 2.0
FEW = 200
# fmt: off
HEAVY = (
    "ssl", "OpenSSL", "cryptography", "asyncio", "anyio", "h2", "hpack", "h11", "jh2", "qh3", "urllib3",
    "urllib3_future", "requests", "httpx", "httpcore", "aiohttp", "certifi", "idna", "charset_normalizer", "brotli",
    "zstandard", "email", "http.client", "http.cookiejar", "concurrent.futures", "rich", "click", "numpy",
)
# fmt: on


# -- transfers ---------------------------------------------------------------------------------------------------------


class _Transfers:
    """Transfers one after another. Owned by the main thread."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._until_at = time.monotonic() + job.seconds
        self.moved_bytes = 0
        self.times_s: list[float] = []
        self._began_at = time.monotonic()
        self._began_cpu_s = time.process_time()
        self.cut_short = False

    def go_on(self) -> bool:
        """Whether there is to be another one: one at least, and more while the time lasts."""
        return not self.times_s or (time.monotonic() < self._until_at and not self.cut_short)

    @contextlib.contextmanager
    def one(self) -> Iterator[Callable[[int], bool]]:
        began_at = time.monotonic()

        def seen(length: int) -> bool:
            self.moved_bytes += length
            self.cut_short = time.monotonic() - began_at > PATIENCE_S
            return self.cut_short

        yield seen
        self.times_s.append(time.monotonic() - began_at)

    def measured(self, protocol: str, lane: Lane) -> Measured:
        spent_s, megabytes = sum(self.times_s), self.moved_bytes / 1e6
        if not self.cut_short and self.moved_bytes != len(self.times_s) * self._job.size_bytes:
            lane.fail(f"{self.moved_bytes} bytes came in {len(self.times_s)} transfers")
        times_s = sorted(self.times_s)
        return Measured(
            client=self._job.client,
            scenario=self._job.scenario,
            how="1 thread",
            protocol=protocol,
            rate=megabytes / spent_s,
            cpu_us=(time.process_time() - self._began_cpu_s) / max(megabytes, 1e-6) * 1e6,
            p50_ms=percentile_ms(times_s, 0.5),
            p99_ms=percentile_ms(times_s, 0.99),
            memory_mib=sockets.peak_memory_mib(),
            sockets=sockets.sockets_to(self._job.port),
            threads=threads_of_process() - 1,
            errors=lane.errors,
            first_error=lane.first_error,
            note=f"left after {PATIENCE_S:.0f} s" if self.cut_short else "",
        )


def transfers(scenario: Scenario, job: Job, peer: Any) -> Measured:
    """Large bodies, down or up, one after another; over a long line one alone, on a connection that is fresh."""
    protocol = peer.protocol if isinstance(peer, Tcp) else "h2" if peer.get(job.probe_url or job.url) else "h1"
    run, lane = _Transfers(job), Lane()
    with tempfile.TemporaryDirectory(prefix="hyperpool-bench-") as folder:
        source = Path(folder) / "source"
        with source.open("wb") as file:
            file.truncate(job.size_bytes)
        while run.go_on():
            with run.one() as seen:
                if scenario.kind is Kind.UP:
                    _upload(peer, job, source, lane)
                    seen(job.size_bytes)
                else:
                    peer.download(job.url, seen)
            if scenario.kind is Kind.FAR:
                break
    return run.measured(protocol, lane)


def _upload(peer: Any, job: Job, source: Path, lane: Lane) -> None:
    status = peer.upload(job.url, source)
    if status not in (200, 201, 204):
        lane.fail(f"status {status}")


class Tcp:
    """No client: one plain TCP stream, for what the line carries. Owned by the main thread."""

    protocol = "plain TCP"

    def __init__(self, job: Job) -> None:
        self._job = job

    def download(self, url: str, seen: Callable[[int], bool]) -> None:
        path = "/" + url.split("/", 3)[3]
        with socket.create_connection(("localhost", self._job.plain_port)) as sock:
            sock.sendall(f"GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())
            rest = bytearray()
            while b"\r\n\r\n" not in rest:
                rest += sock.recv(65_536)
            seen(len(rest) - rest.index(b"\r\n\r\n") - 4)
            buffer = bytearray(1 << 20)
            while count := sock.recv_into(buffer):
                seen(count)


# -- one slow reader among busy ones -----------------------------------------------------------------------------------


def slow_reader(scenario: Scenario, job: Job, peer: Any) -> Measured:
    """Busy threads without and with a large response that stays unread; the row is the run with it."""
    alone = Run(job, peer)
    alone.by_threads(scenario.workers)
    before = alone.measured("")
    before_mib = resident_mib()
    huge = f"{job.url.rpartition('/')[0]}/{job.size_bytes}"
    beside = Run(job, peer)
    with peer.hold(huge):
        beside.by_threads(scenario.workers)
        grown_mib = resident_mib() - before_mib
        own = beside.threads - scenario.workers
        more = {
            "req/s without": before.rate,
            "p99 ms without": before.p99_ms,
            "MiB grown": grown_mib,
        }
        return beside.measured(f"{scenario.workers} threads", threads=max(0, own), more=more)


# -- many origins ------------------------------------------------------------------------------------------------------


def many_origins(scenario: Scenario, job: Job, open_peer: Callable[..., Any]) -> Measured:
    """A few requests to each of many origins; then what is left of it when all have been idle."""
    _allow_files()
    idle_s = IDLE_S if len(job.urls) > FEW else IDLE_FEW_S
    setting = setting_for(scenario, job, origins=len(job.urls), idle_s=idle_s)
    before_mib = resident_mib()
    threads_before = threads_of_process()
    with open_peer(setting) as peer:
        lanes, spent_s, cpu_s = _ask_all(job.urls, peer, scenario.workers)
        most = (tcp_sockets(), threads_of_process() - threads_before)
        grown_mib = resident_mib() - before_mib
        _wait_until_idle(threads_before, idle_s if job.client == "hyperpool" else 0.0)
        left = {"sockets after idle": tcp_sockets(), "threads after idle": threads_of_process() - threads_before}
    latencies_s = sorted(each for lane in lanes for each in lane.latencies_s)
    return Measured(
        client=job.client,
        scenario=job.scenario,
        how=f"{scenario.workers} threads",
        protocol="h1" if job.client == "urllib3" else "h2",
        rate=len(latencies_s) / spent_s,
        cpu_us=cpu_s / max(1, len(latencies_s)) * 1e6,
        p50_ms=percentile_ms(latencies_s, 0.5),
        p99_ms=percentile_ms(latencies_s, 0.99),
        memory_mib=sockets.peak_memory_mib(),
        sockets=most[0],
        threads=most[1],
        errors=sum(lane.errors for lane in lanes),
        first_error=next((lane.first_error for lane in lanes if lane.first_error), ""),
        more={"MiB grown": grown_mib, **left},
    )


def _allow_files() -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _ask_all(urls: tuple[str, ...], peer: Any, workers: int) -> tuple[list[Lane], float, float]:
    work: queue.SimpleQueue[str] = queue.SimpleQueue()
    for url in urls * REQUESTS_PER_ORIGIN:
        work.put(url)
    lanes = [Lane() for _ in range(workers)]
    threads = [threading.Thread(target=_ask, args=(work, peer, lane)) for lane in lanes]
    began_at, began_cpu_s = time.monotonic(), time.process_time()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return lanes, time.monotonic() - began_at, time.process_time() - began_cpu_s


def _ask(work: queue.SimpleQueue[str], peer: Any, lane: Lane) -> None:
    with contextlib.suppress(queue.Empty):
        while True:
            url = work.get_nowait()
            began_at = time.monotonic()
            try:
                length = peer.get(url)
            except Exception as error:
                lane.fail(error)
                continue
            if length != BODY_BYTES:
                lane.fail(f"{length} bytes came")
            lane.latencies_s.append(time.monotonic() - began_at)


def _wait_until_idle(threads_before: int, idle_s: float) -> None:
    """Wait for what a client closes by itself: at most as long as it was told, and a while for doing it."""
    until_at = time.monotonic() + (idle_s + 10.0 if idle_s else 1.0)
    while time.monotonic() < until_at and (tcp_sockets() or threads_of_process() > threads_before):
        time.sleep(0.1)


# -- imports -----------------------------------------------------------------------------------------------------------

_IMPORTING = """
import time, sys
known = set(sys.modules)
began, began_cpu = time.perf_counter(), time.process_time()
import {module}
took, took_cpu = time.perf_counter() - began, time.process_time() - began_cpu
loaded = sorted(set(sys.modules) - known)
import json
status = open("/proc/self/status").read()
peak = int(status.split("VmHWM:")[1].split()[0]) / 1024
print(json.dumps([took, took_cpu, peak, loaded]))
"""


def importing(job: Job, module: str) -> Measured:
    """Interpreters one after another that import a module and tell how long it took, and what else they loaded."""
    found: list[tuple[float, float, float, list[str]]] = []
    until_at = time.monotonic() + job.seconds
    program = _IMPORTING.format(module=module)
    with tempfile.TemporaryDirectory(prefix="hyperpool-bench-") as folder:
        # Compiled once, the same for all, whatever the environment says about writing bytecode.
        environment = {**os.environ, "PYTHONPYCACHEPREFIX": folder, "PYTHONDONTWRITEBYTECODE": ""}
        _import_once(program, environment)
        while len(found) < 5 or time.monotonic() < until_at:
            found.append(_import_once(program, environment))
    times_s = sorted(each[0] for each in found)
    loaded = found[0][3]
    heavy = [name for name in HEAVY if name in loaded and name != module]
    return Measured(
        client=job.client,
        scenario=job.scenario,
        how=f"{len(found)} interpreters",
        rate=1 / (percentile_ms(times_s, 0.5) / 1_000),
        cpu_us=sorted(each[1] for each in found)[len(found) // 2] * 1e6,
        p50_ms=percentile_ms(times_s, 0.5),
        p99_ms=percentile_ms(times_s, 0.99),
        memory_mib=max(each[2] for each in found),
        note=" ".join(heavy),
        more={"modules": len(loaded)},
    )


def _import_once(program: str, environment: dict[str, str]) -> tuple[float, float, float, list[str]]:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment)
    took, took_cpu, peak, loaded = json.loads(done.stdout)
    return took, took_cpu, peak, loaded
