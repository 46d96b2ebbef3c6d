"""A seeded storm: many threads, ONE client, mixed requests, every body checked byte for byte.

    python -m stress.storm --server nginx --threads 64 --requests 20000 --seed 1
    python -m stress.storm --server nghttpd --switch-interval 1e-6 --cancels 0.05 --timeouts 0.02 --early-close 0.05
    python -m stress.storm --server caddy --reload-every 2 --sockets 5
    python -m stress.storm --server apache-h1 --keepalive-requests 50 --partial 0.2

What request number i does follows from the seed and i alone, whichever thread meets it: `--only i` repeats it. A
cancel or a short timeout may come too late, and then the body must be right; anything else that is unexpected is an
error.

The exit status is 0 only if there was no error, the origin had one I/O thread, and never more sockets than allowed: one
for HTTP/2, `Limits.max_http1_connections_per_origin` for HTTP/1.1. Past `--deadline` seconds all stacks are printed and
the program ends with status 1.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import io
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from dataclasses import dataclass, field
from typing import Any

import hyperpool
from hyperpool.testing.paths import pattern, pattern_at
from stress import servers, sockets, targets
from stress.targets import Target

# Mostly small, as traffic is; the mean is about 37 KB.
SIZES = (0, 1, 100, 1_000, 1_024, 10_000, 16_384, 65_536, 100_000, 262_144, 1_048_576)
SIZE_WEIGHTS = (6, 6, 20, 20, 20, 10, 6, 5, 4, 2, 1)

SAMPLE_S = 0.02
ERRORS_SHOWN = 20


@dataclass
class Tally:
    """What happened. Shared; guarded by lock."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    done: Counter[str] = field(default_factory=Counter)
    body_bytes: int = 0
    errors: list[str] = field(default_factory=list)
    error_count: int = 0

    def add(self, outcome: str, body_bytes: int) -> None:
        with self.lock:
            self.done[outcome] += 1
            self.body_bytes += body_bytes

    def error(self, what: str) -> None:
        with self.lock:
            self.error_count += 1
            if len(self.errors) < ERRORS_SHOWN:
                self.errors.append(what)

    @property
    def total(self) -> int:
        with self.lock:
            return sum(self.done.values()) + self.error_count


@dataclass
class Peaks:
    """The most that was seen at one time. Written by the sampling thread alone."""

    kernel_sockets: int = 0
    connections: int = 0
    io_threads: int = 0
    all_threads: int = 0
    streams: int = 0
    queued: int = 0

    def take(self, client: hyperpool.Client, target: Target) -> None:
        stats = client.pool.stats()
        self.kernel_sockets = max(self.kernel_sockets, sockets.sockets_to(target.port))
        self.connections = max(self.connections, stats.connections)
        self.io_threads = max(self.io_threads, stats.threads, sockets.io_threads(target.origin))
        self.all_threads = max(self.all_threads, len(sockets.our_threads()))
        self.streams = max(self.streams, stats.open_streams)
        self.queued = max(self.queued, stats.queued)


class WrongAnswer(Exception):
    """A response that is not what was asked for."""


class Storm:
    """The requests of one run.

    Shared; immutable but for its tally and the counter of requests, which is one atomic step.
    """

    def __init__(self, client: hyperpool.Client, target: Target, options: argparse.Namespace) -> None:
        self.client = client
        self.target = target
        self.options = options
        self.tally = Tally()
        numbers = range(options.requests) if options.only is None else [options.only]
        self._numbers = iter(numbers)
        self._numbers_lock = threading.Lock()

    def work(self) -> None:
        """One thread's share: the next request, until there is none."""
        while (number := self._next()) is not None:
            chance = random.Random(f"{self.options.seed}:{number}")
            act = self._choose(chance)
            try:
                self.tally.add(*act(chance, number))
            except Exception as error:
                if self.target.is_losing and isinstance(error, hyperpool.ConnectionLost):
                    self.tally.add("lost with a connection", 0)
                    continue
                self.tally.error(f"#{number} {act.__name__.strip('_')}: {type(error).__name__}: {error}")

    def _next(self) -> int | None:
        with self._numbers_lock:
            return next(self._numbers, None)

    def _choose(self, chance: random.Random) -> Callable[[random.Random, int], tuple[str, int]]:
        options = self.options
        shares = [(options.cancels, self._cancel), (options.timeouts, self._time_out)]
        shares += [(options.early_close, self._close_early), (options.uploads, self._upload), (0.1, self._stream)]
        shares += [(options.partial, self._ask_for_less)]
        point = chance.random()
        for share, act in shares:
            if point < share:
                return act
            point -= share
        return self._get

    # -- the kinds of request --------------------------------------------------------------------------------------

    def _get(self, chance: random.Random, number: int) -> tuple[str, int]:
        size = _size(chance)
        return "read whole", _check(self.client.get(self._bytes(size)), pattern(size))

    def _stream(self, chance: random.Random, number: int) -> tuple[str, int]:
        size, piece = _size(chance), chance.choice((1_000, 16_384, 70_000))
        with self.client.stream("GET", self._bytes(size)) as response:
            read = b"".join(response.iter_bytes(piece))
        _compare(response, read, pattern(size))
        return "streamed", size

    def _upload(self, chance: random.Random, number: int) -> tuple[str, int]:
        body = pattern_at(chance.randrange(65_000), _size(chance))
        forms = (_as_bytes, _as_file, _as_pieces) if self.target.takes_pieces else (_as_bytes, _as_file)
        form = chance.choice(forms)
        is_put = self.target.uploads is not None and chance.random() < 0.5
        try:
            return self._send(number, body, form(body), is_put)
        except hyperpool.ConnectionLost as error:
            # A server that retires its connection (GOAWAY) meets generators that have begun, which only their owner can
            # begin anew (L9). Anything else that is lost is an error.
            if form is not _as_pieces or error.processed != "no":
                raise
        outcome, body_bytes = self._send(number, body, body, is_put)
        return f"{outcome}, sent again", body_bytes

    def _send(self, number: int, body: bytes, content: Any, is_put: bool) -> tuple[str, int]:
        if is_put:
            return "uploaded to disk", self._put(number, body, content)
        return "uploaded, echoed", _check(self.client.post(f"{self.target.origin}/echo", content=content), body)

    def _put(self, number: int, body: bytes, content: Any) -> int:
        assert self.target.uploads is not None
        response = self.client.put(f"{self.target.origin}/uploads/{number}", content=content)
        if response.status_code not in (201, 204):
            raise WrongAnswer(f"PUT gave {response.status_code}")
        stored = self.target.uploads / str(number)
        _compare(response, stored.read_bytes(), body)
        stored.unlink()
        return len(body)

    def _cancel(self, chance: random.Random, number: int) -> tuple[str, int]:
        size = _size(chance)
        future = self.client.submit("GET", self._bytes(size))
        with contextlib.suppress(TimeoutError):
            future.exception(chance.choice((0.0, 0.001, 0.01, 0.04)))
        if not future.cancel():
            return "cancelled too late", _check(future.result(), pattern(size))
        try:
            future.result(0)
        except CancelledError:
            return "cancelled", 0
        raise WrongAnswer("a cancelled Future has a result")

    def _time_out(self, chance: random.Random, number: int) -> tuple[str, int]:
        size = _size(chance)
        try:
            response = self.client.get(self._bytes(size), timeout=chance.choice((0.0005, 0.002, 0.01)))
        except hyperpool.TotalTimeout:
            return "timed out", 0
        return "not timed out", _check(response, pattern(size))

    def _close_early(self, chance: random.Random, number: int) -> tuple[str, int]:
        size = _size(chance)
        wanted = chance.randrange(size + 1)
        read = b""
        with self.client.stream("GET", self._bytes(size)) as response:
            for piece in response.iter_bytes(4_096):
                read += piece
                if len(read) >= wanted:
                    break
        _compare(response, read, pattern(len(read)))
        return "closed early", len(read)

    def _ask_for_less(self, chance: random.Random, number: int) -> tuple[str, int]:
        """HEAD, a conditional GET, or a range. A server may know none but the first, and then gives all."""
        size = _size(chance)
        if chance.random() < 0.4:
            return "HEAD", _check(self.client.head(self._bytes(size)), b"")
        if chance.random() < 0.5:
            response = self.client.get(self._bytes(size), headers=self._validators(size))
            return f"conditional, {response.status_code}", _check_part(response, 304, b"", pattern(size))
        first = chance.randrange(size + 1)
        response = self.client.get(self._bytes(size), headers={"Range": f"bytes={first}-"})
        if response.status_code == 416:  # its body is the server's own
            return "range, 416", 0
        part = pattern_at(first, size - first)
        return f"range, {response.status_code}", _check_part(response, 206, part, pattern(size))

    def _validators(self, size: int) -> dict[str, str]:
        known = self.client.head(self._bytes(size)).headers
        pairs = (("If-None-Match", "ETag"), ("If-Modified-Since", "Last-Modified"))
        return {condition: known[name] for condition, name in pairs if name in known}

    def _bytes(self, size: int) -> str:
        return f"{self.target.origin}/bytes/{size}"


def _size(chance: random.Random) -> int:
    return chance.choices(SIZES, SIZE_WEIGHTS)[0]


def _as_bytes(body: bytes) -> bytes:
    return body


def _as_file(body: bytes) -> io.BytesIO:
    return io.BytesIO(body)


def _as_pieces(body: bytes) -> Iterator[bytes]:
    return (body[start : start + 10_000] for start in range(0, len(body), 10_000))


def _check(response: hyperpool.Response, wanted: bytes) -> int:
    _compare(response, response.content, wanted)
    return len(wanted)


def _check_part(response: hyperpool.Response, status: int, part: bytes, whole: bytes) -> int:
    if response.status_code != status:
        return _check(response, whole)
    _compare_bytes(response.content, part)
    return len(part)


def _compare(response: hyperpool.Response, got: bytes, wanted: bytes) -> None:
    if response.status_code not in (200, 201, 204):
        raise WrongAnswer(f"status {response.status_code}")
    _compare_bytes(got, wanted)


def _compare_bytes(got: bytes, wanted: bytes) -> None:
    if got != wanted:
        pairs = enumerate(zip(got, wanted, strict=False))
        place = next((i for i, (a, b) in pairs if a != b), min(len(got), len(wanted)))
        raise WrongAnswer(f"{len(got):,} bytes instead of {len(wanted):,}, different from byte {place:,} on")


# -- a run -------------------------------------------------------------------------------------------------------------


def run(storm: Storm, peaks: Peaks) -> None:
    """Let the threads do all requests, with a line about it each second."""
    is_over = threading.Event()
    workers = [threading.Thread(target=storm.work, name=f"worker-{n}") for n in range(storm.options.threads)]
    beside = [threading.Thread(target=_watch, args=(storm, peaks, is_over), name="watcher")]
    if storm.options.reload_every:
        beside.append(threading.Thread(target=_reload, args=(storm, is_over), name="reloader"))
    for thread in (*workers, *beside):
        thread.start()
    for thread in workers:
        thread.join()
    is_over.set()
    for thread in beside:
        thread.join()


def _reload(storm: Storm, is_over: threading.Event) -> None:
    """As an operator would, time and again."""
    assert storm.target.reload is not None
    while not is_over.wait(storm.options.reload_every):
        storm.target.reload()


def _watch(storm: Storm, peaks: Peaks, is_over: threading.Event) -> None:
    began_at = shown_at = time.monotonic()
    while not is_over.wait(SAMPLE_S):
        peaks.take(storm.client, storm.target)
        if time.monotonic() - shown_at >= 1:
            shown_at = time.monotonic()
            _say(f"{shown_at - began_at:5.0f} s  {storm.tally.total:>8,} requests  {_brief(storm.client.pool.stats())}")


def _brief(stats: hyperpool.PoolStats) -> str:
    return f"{stats.connections} connections, {stats.open_streams:>3} streams, {stats.queued:>4} queued"


def _say(line: str) -> None:
    print(line, flush=True)


def judge(storm: Storm, peaks: Peaks, left: list[str]) -> list[str]:
    """What is wrong with the run, as sentences; empty when all is well."""
    allowed = storm.options.sockets or storm.target.connections
    wanted = 1 if storm.options.only is not None else storm.options.requests
    checks = {
        f"{storm.tally.error_count} errors": storm.tally.error_count == 0,
        f"{storm.tally.total} of {wanted} requests were done": storm.tally.total == wanted,
        f"{peaks.kernel_sockets} sockets at a time, {allowed} allowed": peaks.kernel_sockets <= allowed,
        f"{peaks.connections} connections in stats() at a time, {allowed} allowed": peaks.connections <= allowed,
        f"{peaks.io_threads} I/O threads at a time, 1 allowed": peaks.io_threads <= 1,
        f"left behind after close(): {', '.join(left)}": not left,
    }
    return [sentence for sentence, is_right in checks.items() if not is_right]


def report(storm: Storm, peaks: Peaks, seconds: float) -> None:
    """Print what happened."""
    tally, target = storm.tally, storm.target
    _say(f"\n{storm.options.server}: {tally.total:,} requests by {storm.options.threads} threads in {seconds:.1f} s")
    _say(f"  {tally.total / seconds:,.0f} requests/s, {tally.body_bytes / seconds / 1e6:,.1f} MB/s of checked bodies")
    for outcome, count in sorted(tally.done.items()):
        _say(f"  {outcome:30} {count:>8,}")
    _say(f"  {'errors':30} {tally.error_count:>8,}")
    _say(f"  at most: {peaks.kernel_sockets} sockets by the kernel, {peaks.connections} by stats();")
    _say(f"           {peaks.io_threads} I/O threads, {peaks.all_threads} threads of ours with diallers and uploaders;")
    _say(f"           {peaks.streams} open streams, {peaks.queued} queued")
    _say(f"  {sockets.peak_memory_mib():,.0f} MiB at most; HTTP/{2 if target.is_h2 else 1.1}")
    for error in tally.errors:
        _say(f"  ! {error}")


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m stress.storm", description="Mixed load through one client.")
    parser.add_argument("--server", choices=targets.NAMES, default="embedded")
    parser.add_argument("--threads", type=int, default=64)
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--uploads", type=float, default=0.1, help="share of requests; so are the next four")
    parser.add_argument("--cancels", type=float, default=0.0)
    parser.add_argument("--timeouts", type=float, default=0.0)
    parser.add_argument("--early-close", type=float, default=0.0)
    parser.add_argument("--partial", type=float, default=0.0, help="share of HEAD, conditional GET and ranges")
    parser.add_argument("--reload-every", type=float, default=0.0, help="seconds between two graceful restarts")
    parser.add_argument("--switch-interval", type=float, help="seconds, for sys.setswitchinterval")
    parser.add_argument("--keepalive-requests", type=int, default=servers.KEEPALIVE_REQUESTS)
    parser.add_argument("--sockets", type=int, help="how many are allowed at a time")
    parser.add_argument("--deadline", type=float, default=540.0, help="seconds")
    parser.add_argument("--only", type=int, help="repeat one request by its number")
    options = parser.parse_args(arguments)
    if options.reload_every and options.server not in targets.RELOADS:
        parser.error(f"--reload-every is for {', '.join(sorted(targets.RELOADS))}")
    return options


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    faulthandler.dump_traceback_later(options.deadline, exit=True)
    if options.switch_interval:
        sys.setswitchinterval(options.switch_interval)
    with targets.serve(options.server, options.keepalive_requests) as target:
        client = hyperpool.Client(verify=target.ca_pem, http2=target.is_h2, trust_env=False)
        storm, peaks = Storm(client, target, options), Peaks()
        began_at = time.monotonic()
        try:
            run(storm, peaks)
        finally:
            client.close()
        left = [*sockets.our_threads(), *["a socket"] * sockets.sockets_to(target.port)]
        report(storm, peaks, time.monotonic() - began_at)
    faulthandler.cancel_dump_traceback_later()
    wrong = judge(storm, peaks, left)
    _say("FAILED: " + "; ".join(wrong) if wrong else "passed")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
