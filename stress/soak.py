"""Hours of mixed load on one client, with one fault in a hundred, while memory, descriptors and threads stay flat.

    python -m stress.soak                       # 5 minutes
    python -m stress.soak --minutes 600 --threads 64 --faults 0.01
    python -m stress.soak --minutes 10 --tracemalloc
    python -m stress.soak --minutes 60 --rate 100     # beside other work

The server runs in another process. Most requests are those of `stress.storm`: bodies of many sizes, read whole or as
they come, uploads in three forms; all bodies are checked byte for byte. A share of ``--faults`` are trouble: cancels,
timeouts that are too short, responses that are left half read, streams that the server resets, refuses or never
answers, connections that it cuts. A request that fell together with a cut connection may fail as well; everything else
must succeed.

Each ``--every`` seconds a line tells what this process holds. The first ``--warm-up`` share of the time is not judged:
caches fill, and the allocator finds its size. Over the rest a line is fitted to each series. The exit status is 0 only
if no body was wrong, no error was unexpected, descriptors and threads did not grow (by more than ``SLACK`` over the
whole time, which a busy moment costs), and resident memory did not grow by more than ``--slope`` MiB/h, or by more than
``NOISE_MIB`` in all where the run is too short to tell a slope from noise.

The last line but one is the slope of memory by least squares over the second half, with its standard error, and what
that says: "flat" where more than ``--slope`` MiB/h is ruled out (by two standard errors), "grows" where less is, else
"too short to tell". What Python itself holds (``blocks``: all objects and their parts) is fitted too, for 100,000
requests: it has no allocator's noise, so a leak of our own shows there first.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import faulthandler
import gc
import itertools
import os
import random
import statistics
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable
from concurrent.futures import CancelledError
from dataclasses import dataclass
from pathlib import Path

import hyperpool
from hyperpool import demo
from stress import sockets, storm, targets

# Descriptors and threads at the end of the fitted line, above those at its beginning.
SLACK = 3.0
# What the allocator's arenas and one more burst of large bodies in flight are good for.
NOISE_MIB = 12.0
# Longer than the server needs for anything but silence.
PATIENCE_S = 30.0
# Of glibc's malloc.h.
_M_ARENA_MAX = -8
# Errors that a cut connection brings over its neighbours.
CUT = (hyperpool.ConnectionLost, hyperpool.StreamReset)
ERRORS_SHOWN = 15


@dataclass(frozen=True, slots=True)
class Sample:
    """What this process held at one moment. Immutable."""

    at_s: float
    memory_mib: float
    descriptors: int
    threads: int
    traced_mib: float
    blocks: int
    requests: int


def take_sample(began_at: float, requests: int) -> Sample:
    """Look at this process (Linux)."""
    gc.collect()
    _trim()
    traced_mib = tracemalloc.get_traced_memory()[0] / 2**20 if tracemalloc.is_tracing() else 0.0
    return Sample(
        time.monotonic() - began_at,
        _resident_mib(),
        len(os.listdir("/proc/self/fd")),
        threading.active_count(),
        traced_mib,
        sys.getallocatedblocks(),
        requests,
    )


def _trim() -> None:
    """Have glibc give back what is free: its arenas, one for each thread, would keep the peaks of all bodies."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _use_one_arena() -> None:
    """Have glibc keep one arena: with one for each thread memory wanders by 20 MiB for minutes, without any leak."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, 1)


def _resident_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


class Soak:
    """The requests of one run.

    Shared; the tally guards itself, the rest is immutable but for the event and the counter, each one atomic step.
    """

    def __init__(self, client: hyperpool.Client, target: targets.Target, options: argparse.Namespace) -> None:
        self.is_over = threading.Event()
        self.tally = storm.Tally()
        self._client = client
        self._origin = target.origin
        self._options = options
        self._numbers = itertools.count()
        self._good = storm.Storm(client, target, _as_storm(options))

    def work(self) -> None:
        """One thread's share, until time is up."""
        while not self.is_over.is_set():
            number = next(self._numbers)
            if self._options.rate:
                self.is_over.wait(self._options.threads / self._options.rate)
            chance = random.Random(f"{self._options.seed}:{number}")
            act = self._trouble if chance.random() < self._options.faults else self._request
            try:
                self.tally.add(*act(chance, number))
            except CUT as error:
                # The server cuts connections here; whoever shared one is told, and nothing else may be the reason.
                self.tally.add(f"lost with a connection ({type(error).__name__})", 0)
            except Exception as error:
                self.tally.error(f"#{number} {act.__name__.strip('_')}: {type(error).__name__}: {error}")

    def _request(self, chance: random.Random, number: int) -> tuple[str, int]:
        act: Callable[[random.Random, int], tuple[str, int]] = chance.choices(
            (self._good._get, self._good._stream, self._good._upload), (8, 1, 1)
        )[0]
        return act(chance, number)

    def _trouble(self, chance: random.Random, number: int) -> tuple[str, int]:
        good = self._good
        acts: tuple[Callable[[random.Random, int], tuple[str, int]], ...] = (
            *(good._cancel, good._cancel, good._time_out, good._time_out, good._close_early),
            *(self._be_reset, self._be_refused, self._meet_silence, self._be_cut_off),
        )
        return chance.choice(acts)(chance, number)

    def _be_reset(self, chance: random.Random, number: int) -> tuple[str, int]:
        return self._expect("/fault/reset", hyperpool.StreamReset)

    def _be_refused(self, chance: random.Random, number: int) -> tuple[str, int]:
        return self._expect("/fault/refuse", hyperpool.HyperpoolError)

    def _be_cut_off(self, chance: random.Random, number: int) -> tuple[str, int]:
        return self._expect("/fault/disconnect", hyperpool.ConnectionLost)

    def _meet_silence(self, chance: random.Random, number: int) -> tuple[str, int]:
        future = self._client.submit("GET", f"{self._origin}/fault/silence", timeout=PATIENCE_S)
        with contextlib.suppress(TimeoutError):
            future.exception(chance.random() * 0.2)
        future.cancel()
        with contextlib.suppress(CancelledError, *CUT):
            future.result(0)
        return "silence, cancelled", 0

    def _expect(self, path: str, error: type[hyperpool.HyperpoolError]) -> tuple[str, int]:
        try:
            self._client.get(f"{self._origin}{path}", timeout=PATIENCE_S)
        except error:
            return f"met {path}", 0
        raise storm.WrongAnswer(f"{path} gave a response")


def _as_storm(options: argparse.Namespace) -> argparse.Namespace:
    return argparse.Namespace(seed=options.seed, requests=0, only=None, uploads=0.0)


# -- judging -----------------------------------------------------------------------------------------------------------


def growth(samples: list[Sample], what: str) -> tuple[float, float]:
    """Growth of a series along its fitted line: per hour, and from the first sample to the last.

    By medians of slopes between pairs (Theil and Sen), so that single peaks do not count.
    """
    points = [(one.at_s, float(getattr(one, what))) for one in samples]
    slopes = [(y2 - y1) / (x2 - x1) for (x1, y1), (x2, y2) in itertools.combinations(points, 2) if x2 > x1]
    slope = statistics.median(slopes) if slopes else 0.0
    return slope * 3600, slope * (points[-1][0] - points[0][0])


def fit(points: list[tuple[float, float]]) -> tuple[float, float]:
    """The slope of a line through the points by least squares, and its standard error."""
    if len(points) < 3:
        return 0.0, float("inf")
    xs, ys = zip(*points, strict=True)
    slope, intercept = statistics.linear_regression(xs, ys)
    rest = sum((y - intercept - slope * x) ** 2 for x, y in points) / (len(points) - 2)
    middle = statistics.fmean(xs)
    return slope, (rest / sum((x - middle) ** 2 for x in xs)) ** 0.5


def verdict(samples: list[Sample], allowed: float) -> str:
    """What the second half says of memory, as a line."""
    half = [one for one in samples if one.at_s >= samples[-1].at_s / 2]
    slope, error = (3600 * each for each in fit([(one.at_s, one.memory_mib) for one in half]))
    blocks, _ = fit([(one.requests / 1e5, float(one.blocks)) for one in half])
    words = "flat" if slope + 2 * error <= allowed else "grows" if slope - 2 * error > allowed else "too short to tell"
    return (
        f"memory over the second half: {slope:+.2f} MiB/h, give or take {error:.2f}: {words}"
        f" (allowed: {allowed:g}); {blocks:+,.0f} blocks for 100,000 requests"
    )


def judge(soak: Soak, samples: list[Sample], options: argparse.Namespace, left: list[str]) -> list[str]:
    """What is wrong with the run, as sentences; prints the figures."""
    settled = [one for one in samples if one.at_s >= options.warm_up * samples[-1].at_s]
    wrong = [] if soak.tally.error_count == 0 else [f"{soak.tally.error_count} errors"]
    for what in ("memory_mib", "descriptors", "threads", "traced_mib"):
        per_hour, in_all = growth(settled, what)
        values = [getattr(one, what) for one in settled]
        _say(
            f"  {what:12} {min(values):8.1f} to {max(values):8.1f}   {per_hour:+10.2f} per hour, {in_all:+8.2f} in all"
        )
        if what in ("descriptors", "threads") and in_all > SLACK:
            wrong.append(f"{what} grow by {in_all:.1f}")
        if what == "memory_mib" and per_hour > options.slope and in_all > NOISE_MIB:
            wrong.append(f"resident memory grows by {per_hour:.1f} MiB/h")
    _say(verdict(samples, options.slope))
    if left:
        wrong.append(f"left behind after close(): {', '.join(left)}")
    return wrong


def _say(line: str) -> None:
    print(line, flush=True)


# -- a run -------------------------------------------------------------------------------------------------------------


def run(soak: Soak, client: hyperpool.Client, options: argparse.Namespace) -> list[Sample]:
    """Let the threads work for the time, with a sample and a line about it now and then."""
    workers = [threading.Thread(target=soak.work, name=f"worker-{n}") for n in range(options.threads)]
    began_at = time.monotonic()
    for worker in workers:
        worker.start()
    samples = []
    while (left_s := options.minutes * 60 - (time.monotonic() - began_at)) > 0:
        soak.is_over.wait(min(options.every, left_s))
        samples.append(take_sample(began_at, soak.tally.total))
        _say(_line(samples[-1], soak, client))
    soak.is_over.set()
    for worker in workers:
        worker.join()
    return samples


def _line(sample: Sample, soak: Soak, client: hyperpool.Client) -> str:
    stats = client.pool.stats()
    return (
        f"{sample.at_s:7.0f} s {sample.memory_mib:8.1f} MiB {sample.blocks:>9,} blocks {sample.traced_mib:6.2f} traced"
        f" {sample.descriptors:5} descriptors {sample.threads:4} threads"
        f" {stats.connections:3} connections {stats.open_streams:4} streams {soak.tally.total:>10,} requests"
    )


def main(arguments: list[str] | None = None) -> int:
    """Exit status 0 where all stayed flat and nothing was wrong."""
    parser = argparse.ArgumentParser(prog="python -m stress.soak", description="Long load, flat curves.")
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--threads", type=int, default=32)
    parser.add_argument("--faults", type=float, default=0.01, help="share of requests that are trouble")
    parser.add_argument(
        "--rate", type=float, default=0.0, help="requests a second at most, of all threads; 0: no bound"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--every", type=float, default=5.0, help="seconds between samples")
    parser.add_argument("--warm-up", type=float, default=0.3, help="share of the time that is not judged")
    parser.add_argument("--slope", type=float, default=1.0, help="MiB/h of resident memory that are allowed")
    parser.add_argument("--tracemalloc", action="store_true", help="count Python's own allocations too (slow)")
    options = parser.parse_args(arguments)
    _use_one_arena()
    faulthandler.dump_traceback_later(options.minutes * 60 + 120, exit=True)
    if options.tracemalloc:
        tracemalloc.start()
    with demo.serve_elsewhere() as server:
        target = targets.Target(server.origin, server.ca_pem, is_h2=True, uploads=None)
        client = hyperpool.Client(verify=server.ca_pem, trust_env=False, timeout=PATIENCE_S)
        soak = Soak(client, target, options)
        try:
            samples = run(soak, client, options)
        finally:
            client.close()
        left = [*sockets.our_threads(), *["a socket"] * sockets.sockets_to(target.port)]
    faulthandler.cancel_dump_traceback_later()
    wrong = _report(soak, samples, options, left)
    _say("FAILED: " + "; ".join(wrong) if wrong else "passed")
    return 1 if wrong else 0


def _report(soak: Soak, samples: list[Sample], options: argparse.Namespace, left: list[str]) -> list[str]:
    tally = soak.tally
    _say(f"\n{tally.total:,} requests, {tally.body_bytes / 1e9:.2f} GB of checked bodies")
    for outcome, count in sorted(tally.done.items()):
        _say(f"  {outcome:40} {count:>9,}")
    _say(f"  {'errors':40} {tally.error_count:>9,}")
    for error in tally.errors[:ERRORS_SHOWN]:
        _say(f"  ! {error}")
    _say(f"after {options.warm_up:.0%} of the time:")
    return judge(soak, samples, options, left)


if __name__ == "__main__":
    sys.exit(main())
