"""``python -m hyperpool.demo``: many threads, one client, one connection, as a live table.

The server is the test kit's, in a process of its own, so that the figures are the client's: two halves of one program
would share one interpreter lock. The child lives exactly as long as the pipe to its standard input is open, which the
kernel closes whatever happens to the parent. Nothing here is needed by the client.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hyperpool._version import __version__
from hyperpool.client import Client
from hyperpool.values import Limits

if TYPE_CHECKING:
    from hyperpool.pool import PoolStats

# What one of the threads asks for: mostly small bodies, some large ones, one upload in ten.
SIZES = (0, 100, 1_024, 1_024, 1_024, 10_000, 65_536)
UPLOADS = 0.1

# A start of the child takes 0.3 s; a loaded machine may need much more. After it the demonstration gives up.
START_S = 30.0
STOP_S = 10.0
REQUEST_TIMEOUT_S = 30.0
REDRAW_S = 0.25


# -- the server --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """A test server in a process of its own. Immutable."""

    origin: str
    ca_pem: bytes


@contextlib.contextmanager
def serve_elsewhere() -> Iterator[Elsewhere]:
    """Run the test kit's server in a child process until the end of the block. Raises RuntimeError if it ends early."""
    child = subprocess.Popen(
        [sys.executable, "-m", "hyperpool.demo", "--serve"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,  # Ctrl-C is for the client, which then closes the pipe
    )
    with child:
        try:
            yield _announced(child)
        finally:
            _end(child)


def _announced(child: subprocess.Popen[bytes]) -> Elsewhere:
    assert child.stdout is not None
    timer = threading.Timer(START_S, child.kill)  # ends the read below
    timer.start()
    try:
        line = child.stdout.readline()
    finally:
        timer.cancel()
        timer.join()
    if not line:
        raise RuntimeError(f"the server process did not start (status {child.wait(STOP_S)}); its words are above")
    said = json.loads(line)
    return Elsewhere(said["origin"], said["ca_pem"].encode())


def _end(child: subprocess.Popen[bytes]) -> None:
    assert child.stdin is not None
    child.stdin.close()
    try:
        child.wait(STOP_S)
    except subprocess.TimeoutExpired:
        child.kill()


def _serve() -> int:
    """The child's part: announce a server on standard output, and serve until standard input ends."""
    from hyperpool.testing.server import Server

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with Server() as server:
        print(json.dumps({"origin": server.origin, "ca_pem": server.ca_pem.decode()}), flush=True)
        sys.stdin.buffer.read()
    return 0


# -- the load ----------------------------------------------------------------------------------------------------------


class Load:
    """The threads that use one client.

    Shared; guarded by _lock.
    """

    def __init__(self, client: Client, origin: str, *, threads: int) -> None:
        self._client = client
        self._origin = origin
        self._is_over = threading.Event()
        self._lock = threading.Lock()
        self._latencies_s: list[float] = []
        self._errors: Counter[str] = Counter()
        self._requests = 0
        self._threads = [threading.Thread(target=self._work, args=(n,), name=f"caller-{n}") for n in range(threads)]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Let each thread finish the request that it is waiting for. Blocks until all have."""
        self._is_over.set()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join()

    def take(self) -> list[float]:
        """The seconds that each request took which ended since the last call."""
        with self._lock:
            taken, self._latencies_s = self._latencies_s, []
        return taken

    @property
    def requests(self) -> int:
        with self._lock:
            return self._requests

    @property
    def errors(self) -> Counter[str]:
        """What went wrong, and how often."""
        with self._lock:
            return Counter(self._errors)

    def _work(self, seed: int) -> None:
        chance = random.Random(seed)
        while not self._is_over.is_set():
            began_at = time.monotonic()
            try:
                self._one_request(chance)
            except Exception as error:
                self._count(began_at, f"{type(error).__name__}: {error}")
            else:
                self._count(began_at, None)

    def _one_request(self, chance: random.Random) -> None:
        from hyperpool.testing.paths import pattern

        wanted = pattern(chance.choice(SIZES))
        if chance.random() < UPLOADS:
            response = self._client.post(f"{self._origin}/echo", content=wanted)
        else:
            response = self._client.get(f"{self._origin}/bytes/{len(wanted)}")
        if response.status_code != 200 or response.content != wanted:
            raise RuntimeError(f"a wrong answer: {response!r}")

    def _count(self, began_at: float, error: str | None) -> None:
        took_s = time.monotonic() - began_at
        with self._lock:
            self._requests += 1
            if error is None:
                self._latencies_s.append(took_s)
            else:
                self._errors[error] += 1


# -- the table ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Row:
    """One second of the table. Immutable."""

    at_s: float
    rate: float
    p50_ms: float
    p99_ms: float
    threads: int
    sockets: int
    streams: int
    errors: int

    HEAD = "   time   requests/s    p50 ms    p99 ms   I/O threads   sockets   streams   errors"

    def __str__(self) -> str:
        return (
            f"{self.at_s:5.1f} s {self.rate:>12,.0f} {self.p50_ms:>9.2f} {self.p99_ms:>9.2f}"
            f" {self.threads:>13} {self.sockets:>9} {self.streams:>9} {self.errors:>8}"
        )


def percentile_ms(seconds: Sequence[float], share: float) -> float:
    """The latency that this share of the requests kept below; 0 where there were none."""
    if not seconds:
        return 0.0
    return sorted(seconds)[min(len(seconds) - 1, int(len(seconds) * share))] * 1_000


def _row(at_s: float, latencies_s: Sequence[float], over_s: float, stats: PoolStats, errors: int) -> Row:
    p50, p99 = percentile_ms(latencies_s, 0.50), percentile_ms(latencies_s, 0.99)
    rate = len(latencies_s) / over_s
    return Row(at_s, rate, p50, p99, stats.threads, stats.connections, stats.open_streams, errors)


class Table:
    """Rows on standard output: the last one redrawn in place on a terminal, one line a second elsewhere.

    Used by one thread.
    """

    REDRAW = "\x1b[F\x1b[K"  # ANSI: to the start of the line above, erase it

    def __init__(self) -> None:
        self._is_live = sys.stdout.isatty()
        self._second = -1
        print(Row.HEAD, flush=True)

    def show(self, row: Row) -> None:
        """Show how it is now. A second that is over keeps its line."""
        is_same_second, self._second = int(row.at_s) == self._second, int(row.at_s)
        if self._is_live:
            print(f"{self.REDRAW if is_same_second else ''}{row}", flush=True)
        elif not is_same_second and self._second:
            print(row, flush=True)


def _run(client: Client, origin: str, *, seconds: float, threads: int) -> int:
    load, table = Load(client, origin, threads=threads), Table()
    everything: list[float] = []
    began_at = time.monotonic()
    try:
        load.start()
        with contextlib.suppress(KeyboardInterrupt):
            _watch(load, table, client, everything, began_at, seconds)
    finally:
        load.stop()
    everything += load.take()
    return _sum_up(load, everything, time.monotonic() - began_at)


def _watch(load: Load, table: Table, client: Client, everything: list[float], began_at: float, seconds: float) -> None:
    recent: list[tuple[float, list[float]]] = [(began_at, [])]
    while (now := time.monotonic()) < began_at + seconds:
        time.sleep(min(REDRAW_S, began_at + seconds - now))
        now = time.monotonic()
        recent.append((now, load.take()))
        everything += recent[-1][1]
        # The last second alone, so that the table shows how it is and not how it was.
        while len(recent) > 2 and recent[0][0] < now - 1.01:
            del recent[0]
        latencies = [each for _, taken in recent[1:] for each in taken]
        errors = load.errors.total()
        table.show(_row(now - began_at, latencies, now - recent[0][0], client.pool.stats(), errors))


def _sum_up(load: Load, latencies_s: Sequence[float], over_s: float) -> int:
    errors = load.errors
    print(
        f"\n{load.requests:,} requests in {over_s:.1f} s: {load.requests / over_s:,.0f}/s,"
        f" p50 {percentile_ms(latencies_s, 0.50):.2f} ms, p99 {percentile_ms(latencies_s, 0.99):.2f} ms,"
        f" {errors.total()} errors; every body was checked"
    )
    for error, times in errors.most_common(10):
        print(f"  {times} x {error}", file=sys.stderr)
    return 1 if errors or not latencies_s else 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m hyperpool.demo", description="Many threads share one client.")
    parser.add_argument("--seconds", type=float, default=5.0, help="how long (%(default)s)")
    parser.add_argument("--threads", type=int, default=32, help="how many use the client (%(default)s)")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demonstration; the exit status is 0 when every request was answered rightly."""
    options = _parse(arguments)
    if options.serve:
        return _serve()
    with serve_elsewhere() as server, _client(server) as client:
        print(f"hyperpool {__version__}: {options.threads} threads share one Client; {server.origin}\n")
        return _run(client, server.origin, seconds=options.seconds, threads=options.threads)


def _client(server: Elsewhere) -> Client:
    return Client(verify=server.ca_pem, timeout=REQUEST_TIMEOUT_S, limits=Limits(), trust_env=False)


if __name__ == "__main__":
    sys.exit(main())
