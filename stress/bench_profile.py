"""Where hyperpool's microseconds go, thread by thread: by floors of the house and libraries.

    python -m stress.bench --profile h2,16

Two runs in this process. The first, without a profile, says how much CPU time the loop thread and the callers spend on
a request. The second, under cProfile with a clock of the thread's own CPU time, says in which parts: only its shares
are used, since cProfile makes every Python call dearer and calls of C less so. Waiting is not in it, neither for the
network nor for the GIL. From Python 3.12 on cProfile watches all threads at once, so that this needs 3.10 or 3.11.
"""

from __future__ import annotations

import cProfile
import pstats
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from stress import bench_show
from stress.bench_clients import Hyperpool, opened
from stress.bench_long import transfers
from stress.bench_measures import Run, setting_for
from stress.bench_scenarios import Kind, Scenario
from stress.bench_servers import Places
from stress.bench_values import Job, Measured

_LOOP, _UPLOAD, _CALLER = "loop thread", "upload thread", "callers (one of them watched)"
_UPLOAD_NAME = "hyperpool upload"
_SHOWN_FUNCTIONS = 12

# The first that is found in a file's name says whose time it is; then the built-ins, which have no file.
_BY_FILE = {
    "/hyperpool/handoff/response": "Response",
    "/hyperpool/handoff/body": "Response",
    "/hyperpool/handoff/pieces": "Response",
    "/hyperpool/handoff/": "hand-over",
    "/hyperpool/engine/wakeup": "hand-over",
    "/hyperpool/engine/transport": "TLS and sockets",
    "/hyperpool/protocol/tls": "TLS and sockets",
    "/hyperpool/protocol/hpack_memo": "HPACK",
    "/hyperpool/protocol/": "codec over h2 and h11",
    "/hyperpool/engine/": "loop",
    "/hyperpool/policy/": "Client and policy",
    "/hyperpool/": "Client and policy",
    "/h2/": "h2",
    "/hyperframe/": "h2",
    "/hpack/": "HPACK",
    "/h11/": "h11",
    "/OpenSSL/": "TLS and sockets",
    "/ssl.py": "TLS and sockets",
    "/urllib3/": "urllib3",
    "/concurrent/futures/": "hand-over",
    "/threading.py": "hand-over",
    "/queue.py": "hand-over",
    "/selectors.py": "loop",
    "/stress/": "the benchmark itself",
}
_BY_BUILTIN = {
    "SSL": "TLS and sockets",
    "_cffi_backend": "TLS and sockets",
    "socket": "TLS and sockets",
    "lock": "hand-over",
    "RLock": "hand-over",
    "SimpleQueue": "hand-over",
    "epoll": "loop",
    "posix.": "hand-over",  # the wake-up pipe
}

_Key = tuple[str, int, str]


class _Watched:
    """Which threads are watched, and how. Shared; each entry is written by one thread at a time."""

    def __init__(self) -> None:
        self.profiles: dict[str, cProfile.Profile] = {}
        self.cpu_s: defaultdict[str, float] = defaultdict(float)
        self._on = False

    def run(self, who: str, work: Callable[[], object]) -> None:
        """What a thread does, in that thread; the first one of a kind is watched, where that is wanted."""
        began_s = time.thread_time()
        with self._watching(who):
            work()
        self.cpu_s[who] += time.thread_time() - began_s

    @contextmanager
    def _watching(self, who: str) -> Iterator[None]:
        if not self._on or who in self.profiles:
            yield
            return
        profile = self.profiles[who] = cProfile.Profile(time.thread_time_ns, 1e-9)
        profile.enable()
        try:
            yield
        finally:
            profile.disable()

    def switch_on(self) -> None:
        self._on = True


@contextmanager
def _around(watched: _Watched) -> Iterator[None]:
    """Stand around what the library's own threads do."""
    from hyperpool.engine.loop import OriginLoop

    loops: Any = OriginLoop
    threads: Any = threading.Thread
    run_loop, run_thread = loops.run, threads.run

    def run(thread: threading.Thread) -> None:
        if thread.name == _UPLOAD_NAME:
            watched.run(_UPLOAD, lambda: run_thread(thread))
        else:
            run_thread(thread)

    loops.run = lambda loop: watched.run(_LOOP, lambda: run_loop(loop))
    threads.run = run
    try:
        yield
    finally:
        loops.run, threads.run = run_loop, run_thread


def _drive(scenario: Scenario, job: Job, watched: _Watched) -> dict[str, float]:
    """One run: the CPU time for each unit, in us, of each kind of thread."""
    began_s = time.process_time()
    watched.cpu_s.clear()
    with opened(Hyperpool, setting_for(scenario, job)) as peer:
        cpu_us = _moved(scenario, job, peer, watched) if scenario.unit == "MB" else _asked(scenario, job, peer, watched)
    all_s = time.process_time() - began_s
    shares = {who: watched.cpu_s[who] / all_s for who in (_LOOP, _UPLOAD)}
    shares[_CALLER] = 1 - sum(shares.values())
    return {who: cpu_us * share for who, share in shares.items()}


def _moved(scenario: Scenario, job: Job, peer: Any, watched: _Watched) -> float:
    found: list[Measured] = []
    _in_a_thread(lambda: watched.run(_CALLER, lambda: found.append(transfers(scenario, job, peer))))
    return found[0].cpu_us


def _asked(scenario: Scenario, job: Job, peer: Any, watched: _Watched) -> float:
    run = _WatchedRun(job, peer, watched)
    if scenario.kind is Kind.FLIGHT:
        _in_a_thread(lambda: watched.run(_CALLER, lambda: run.in_flight(scenario.workers)))
    else:
        run.by_threads(scenario.workers)
    return run.measured("").cpu_us


class _WatchedRun(Run):
    """A run whose threads are watched. As `Run`."""

    def __init__(self, job: Job, peer: Any, watched: _Watched) -> None:
        super().__init__(job, peer)
        self._watched = watched

    def _work(self, lane: Any) -> None:
        self._watched.run(_CALLER, lambda: Run._work(self, lane))


def _in_a_thread(work: Callable[[], None]) -> None:
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


# -- whose time it is --------------------------------------------------------------------------------------------------


def _shares(profile: cProfile.Profile) -> tuple[Counter[str], list[tuple[str, float]]]:
    """Seconds by owner, and the functions that took most. A built-in counts for its own part, or else its callers'."""
    stats: dict[_Key, Any] = pstats.Stats(profile).stats  # type: ignore[attr-defined]
    owners: Counter[str] = Counter()
    functions: list[tuple[str, float]] = []
    for key, (_, _, own_s, _, callers) in stats.items():
        functions.append((_name(key), own_s))
        if owner := _owner(key):
            owners[owner] += own_s
            continue
        for caller, (_, _, part_s, _) in callers.items():
            owners[_owner(caller) or "other"] += part_s
    return owners, sorted(functions, key=lambda each: -each[1])[:_SHOWN_FUNCTIONS]


def _owner(key: _Key) -> str:
    file, _, name = key
    if file == "~":
        return next((owner for part, owner in _BY_BUILTIN.items() if part in name), "")
    return next((owner for part, owner in _BY_FILE.items() if part in file), "")


def _name(key: _Key) -> str:
    file, line, name = key
    return name if file == "~" else f"{Path(file).parent.name}/{Path(file).name}:{line} {name}"


def _tables(scenario: Scenario, watched: _Watched, per_unit_us: dict[str, float]) -> Iterator[bench_show.Table]:
    for who in (each for each in per_unit_us if each in watched.profiles):
        owners, functions = _shares(watched.profiles[who])
        all_s = sum(owners.values()) or 1.0
        heads = [f"{who}: whose time", "", "share", f"CPU us/{scenario.unit}"]
        rows = [
            [owner, "", f"{own_s / all_s:.1%}", f"{own_s / all_s * per_unit_us[who]:.1f}"]
            for owner, own_s in owners.most_common()
        ]
        rows.append(["all", "", "100%", f"{per_unit_us[who]:.1f}"])
        notes = [f"{own_s / all_s:6.1%}  {name}" for name, own_s in functions]
        yield bench_show.Table(f"{scenario.title}: {who}", heads, rows, notes)


def main(scenario: Scenario, seconds: float) -> int:
    """Print where the time goes. Returns the exit status."""
    if sys.version_info >= (3, 12):
        print("--profile needs Python 3.10 or 3.11: later ones' cProfile watches all threads at once", file=sys.stderr)
        return 2
    watched = _Watched()
    with Places(1) as places, _around(watched):
        job = Job(
            client="hyperpool",
            scenario=scenario.key,
            seconds=seconds,
            **places.job_for(scenario, scenario.size_bytes),
        )
        per_unit_us = _drive(scenario, job, watched)
        watched.switch_on()
        _drive(scenario, job, watched)
    for table in _tables(scenario, watched, per_unit_us):
        bench_show.show(table)
    return 0
