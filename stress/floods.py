"""What a peer that floods does to everybody else (RFC 9113 10.5), one kind of frame after another.

    python -m stress.floods                                   # every kind, less than a minute
    python -m stress.floods --kinds PING CONTINUATION --seconds 3
    python -m stress.floods --pause-ms 5                       # threads that rest between their requests

A good server (nginx) and a flooding peer are processes of their own, so that only the client is measured. 8 threads ask
the good origin all the time, in rounds without an attack and with one: then one thread more asks the bad origin without
a pause, on a new connection each time the last one was ended. Last, some attacks are made with nothing beside them, for
their CPU time. In the table:

    attacks        connections that the peer flooded until they were ended
    frames, KiB    written on one until then (median); what lay in the kernels' buffers counts, so an upper bound
    code           of the client's GOAWAY; 11 is ENHANCE_YOUR_CALM
    CPU ms         of the client, for one attack: dial, request, flood, end
    p50, p99 ms    of the good origin, without and with the attack (of all rounds), and the ratio of the two

Two rows are controls. A thread that computes, and no peer: what it does to the p99, any busy thread of a program does,
since one holds the interpreter for 5 ms where others want it (sys.setswitchinterval). And a peer that answers, and
retires each connection: what it does, the bare work of one more origin does.

The exit status is 1 if anything went wrong: a good request failed, a flood was answered, or ended in a foreign error or
with another code, or a thread was left. It never depends on a time.
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import statistics
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import hyperpool
from hyperpool.testing.paths import pattern
from stress import servers, sockets
from stress.bench_measures import percentile_ms
from stress.flood_peer import ANSWERED, FLOODS, Told

BODY_BYTES = 1_000
ENHANCE_YOUR_CALM = 11
# Each waits for a second, in which a server that has flooded is left alone.
ALONE = 2
ERRORS_SHOWN = 10
END_S = 10.0
WARM_UP_S = 0.3


# The other control: no network, but a thread of this process that computes.
BUSY = "none: a thread that computes"
KINDS = [BUSY, *FLOODS]
BUSY_S = 0.02


def compute(seconds: float) -> None:
    """Keep the interpreter busy."""
    ends_at = time.thread_time() + seconds
    while time.thread_time() < ends_at:
        sum(range(1_000))


class Flooders:
    """The process of the peers that flood, and what they have told.

    Shared: a thread reads what they tell, into lists that only grow.
    """

    def __init__(self, kinds: list[str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "stress.flood_peer", *kinds],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        self._ports: dict[str, int] = json.loads(self._process.stdout.readline())
        self._told: dict[str, list[Told]] = {kind: [] for kind in kinds}
        self._reader = threading.Thread(target=self._read, args=(self._process.stdout,), daemon=True)
        self._reader.start()

    def __enter__(self) -> Flooders:
        return self

    def __exit__(self, *error: object) -> None:
        """End the process. Blocks until it is gone."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(END_S)
        self._reader.join(END_S)

    def url(self, kind: str) -> str:
        return f"http://127.0.0.1:{self._ports[kind]}/"

    def told(self, kind: str) -> list[Told]:
        return self._told.get(kind, [])

    def _read(self, output: Any) -> None:
        with output:
            for line in output:
                kind, told = json.loads(line)
                self._told[kind].append(Told(**told))


@dataclass
class Row:
    """What was seen of one kind. Owned by the main thread."""

    kind: str
    told: list[Told]
    attacks: int = 0
    cpu_s: float = 0.0
    without_s: list[float] = field(default_factory=list)
    with_s: list[float] = field(default_factory=list)

    @property
    def ended(self) -> list[Told]:
        """Connections on which there was something to be ended."""
        return [one for one in self.told if one.frames]

    @property
    def codes(self) -> list[int]:
        return sorted({one.code for one in self.ended if one.code is not None})

    def cells(self) -> list[str]:
        frames = statistics.median([one.frames for one in self.ended] or [0])
        written = statistics.median([one.written_bytes for one in self.ended] or [0])
        both = [sorted(took_s) for took_s in (self.without_s, self.with_s)]
        p50s_ms, p99s_ms = ([percentile_ms(took_s, share) for took_s in both] for share in (0.5, 0.99))
        return [
            self.kind,
            f"{self.attacks:,}",
            f"{frames:,.0f}",
            f"{written / 1024:,.0f}",
            " ".join(map(str, self.codes)) or "-",
            f"{1000 * self.cpu_s:.1f}",
            *compared(p50s_ms),
            *compared(p99s_ms),
        ]


COMPARED = ("without", "with", "ratio")
HEADS = ("kind", "attacks", "frames", "KiB", "code", "CPU ms", "p50 ms:", *COMPARED, "p99 ms:", *COMPARED)


def compared(pair_ms: list[float]) -> list[str]:
    """Two times and their ratio, behind an empty cell for their name."""
    without, beside = pair_ms
    return ["", f"{without:.1f}", f"{beside:.1f}", f"{beside / without:.2f}" if without else "-"]


class Run:
    """One client between the good origin and one that floods.

    Shared; lists only grow.
    """

    def __init__(self, client: Any, good_url: str, flooders: Flooders, options: argparse.Namespace) -> None:
        self._client = client
        self._good_url = good_url
        self._flooders = flooders
        self._options = options
        self.errors: list[str] = []

    def warm_up(self) -> None:
        """One request of each thread, so that nobody pays for a handshake."""
        with ThreadPoolExecutor(self._options.threads) as threads:
            list(threads.map(self._ask, [time.perf_counter() + WARM_UP_S] * self._options.threads))

    def measure(self, kind: str) -> Row:
        """All rounds of one kind. What its peer tells may still be under way."""
        row = Row(kind, self._flooders.told(kind))
        for _ in range(self._options.rounds):
            row.without_s += self._good_requests()
            row.attacks += self._attack_beside(kind, row.with_s)
        row.cpu_s = self._cpu_s_alone(kind)
        row.attacks += ALONE
        return row

    def judge(self, row: Row) -> None:
        """Look at the codes, once all has been told."""
        if row.codes not in ([], [ENHANCE_YOUR_CALM]):
            self.errors.append(f"{row.kind}: connections ended with {row.codes}")

    def _good_requests(self) -> list[float]:
        """The good origin, by all threads for a while: how long each request took."""
        ends_at = time.perf_counter() + self._options.seconds
        with ThreadPoolExecutor(self._options.threads) as threads:
            lanes = [threads.submit(self._ask, ends_at) for _ in range(self._options.threads)]
            return [seconds for lane in lanes for seconds in lane.result()]

    def _ask(self, ends_at: float) -> list[float]:
        took_s: list[float] = []
        rest = threading.Event()
        while (began_at := time.perf_counter()) < ends_at:
            try:
                right = self._client.get(self._good_url).content == pattern(BODY_BYTES)
            except hyperpool.HyperpoolError as error:
                self.errors.append(f"the good origin: {error!r}")
            else:
                took_s.append(time.perf_counter() - began_at)
                if not right:
                    self.errors.append("the good origin: a wrong body")
            if self._options.pause_ms:
                rest.wait(self._options.pause_ms / 1000)
        return took_s

    def _attack_beside(self, kind: str, into: list[float]) -> int:
        over = threading.Event()
        with ThreadPoolExecutor(1) as thread:
            attacks = thread.submit(self._attack_until, kind, over)
            into += self._good_requests()
            over.set()
            return attacks.result()

    def _attack_until(self, kind: str, over: threading.Event) -> int:
        attacks = 0
        while not over.wait(self._options.every_ms / 1000):
            self._attack(kind)
            attacks += 1
        return attacks

    def _attack(self, kind: str) -> None:
        if kind == BUSY:
            compute(BUSY_S)
            return
        try:
            self._client.get(self._flooders.url(kind))
        except (hyperpool.RemoteProtocolError, hyperpool.StreamReset):
            return  # a reset ends the request with its first frame, and the connection with the others
        except hyperpool.HyperpoolError as error:
            self.errors.append(f"{kind}: {error!r}")
        else:
            if kind != ANSWERED:
                self.errors.append(f"{kind}: the request was answered")

    def _cpu_s_alone(self, kind: str) -> float:
        began = time.process_time()
        for _ in range(ALONE):
            self._attack(kind)
        return (time.process_time() - began) / ALONE


def table(rows: list[list[str]]) -> str:
    """Aligned columns: the first to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = (
        "  ".join(
            cell.rjust(width) if at else cell.ljust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    """Exit status 0 if every flood was ended as it should be, and no good request failed."""
    parser = argparse.ArgumentParser(prog="python -m stress.floods", description="Peers that flood, and the others.")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS, metavar="KIND")
    parser.add_argument("--threads", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=0.6, help="of one round without an attack, and of one with it")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--pause-ms", type=float, default=0.0, help="rest of each thread between its requests")
    parser.add_argument("--every-ms", type=float, default=0.0, help="rest between two attacks")
    parser.add_argument("--switch-ms", type=float, default=1000 * sys.getswitchinterval(), help="of the interpreter")
    parser.add_argument("--deadline", type=float, default=300.0, help="seconds")
    options = parser.parse_args(argv)
    sys.setswitchinterval(options.switch_ms / 1000)
    faulthandler.dump_traceback_later(options.deadline, exit=True)
    with (
        servers.nginx() as good,
        Flooders([kind for kind in options.kinds if kind != BUSY]) as flooders,
        hyperpool.Client(verify=good.ca_pem, http1=False, timeout=60) as client,
    ):
        run = Run(client, good.url(f"/bytes/{BODY_BYTES}"), flooders, options)
        run.warm_up()
        rows = [run.measure(kind) for kind in options.kinds]
    for row in rows:
        run.judge(row)
    faulthandler.cancel_dump_traceback_later()
    print(table([list(HEADS), *(row.cells() for row in rows)]))
    if left := sockets.our_threads():
        run.errors.append(f"threads left: {', '.join(left)}")
    print(f"{len(run.errors):,} errors")
    for error in run.errors[:ERRORS_SHOWN]:
        print(f"  {error}")
    return 1 if run.errors else 0


if __name__ == "__main__":
    sys.exit(main())
