"""A TCP proxy that is far away: every byte arrives so much later as it would on a long line, and no faster than that
line carries.

    python -m stress.bench_delay --delay-ms 25 --rate-mbit 1000 HOST:PORT ...

It prints the port on which it stands before each target, then runs until it is ended. Each direction of a connection is
a line of its own: bytes enter it at its rate, and leave it when the delay has passed. What is under way is bounded by
what such a line holds, with a queue of `QUEUE_S` before it as in a router: from a sender that is ahead of it, the proxy
does not read, so that the sender's own TCP stops it. Without a rate nothing is held back, and memory is the only bound.

The times are kept by the bytes, not by the sleeps between them: a thread that wakes late finds that more is due, and
the rate over a few milliseconds is that of the line. What is not here: loss, and the slow start of TCP on a long line
(both connections of the proxy are short).
"""

from __future__ import annotations

import argparse
import contextlib
import math
import queue
import socket
import sys
import threading
import time
from collections.abc import Iterator

# With a rate of 1 Gbit/s, half a millisecond.
CHUNK_BYTES = 64 << 10
# A thread that is later than this leaves a gap in the line. A busy machine lets a thread wait for some milliseconds.
QUEUE_S = 0.010


class Line:
    """One direction of one connection. Its `enter` and `leave` run in a thread each; both are guarded by _room."""

    def __init__(self, source: socket.socket, sink: socket.socket, *, delay_s: float, rate: float) -> None:
        """``rate``: bytes a second, or infinity."""
        self._source, self._sink = source, sink
        self._delay_s = delay_s
        self._rate = rate
        self._under_way: queue.SimpleQueue[tuple[float, bytes]] = queue.SimpleQueue()
        self._held_bytes = 0
        self._most_bytes = rate * (delay_s + QUEUE_S)
        self._room = threading.Condition()
        self._free_at = 0.0

    def start(self) -> None:
        for work in (self.enter, self.leave):
            threading.Thread(target=work, daemon=True).start()

    def enter(self) -> None:
        """Read what comes, at the line's rate."""
        data = b"-"
        while data:
            try:
                data = self._source.recv(CHUNK_BYTES)
            except OSError:
                data = b""
            self._free_at = max(self._free_at, time.monotonic()) + len(data) / self._rate
            self._under_way.put((self._free_at + self._delay_s, data))
            self._wait_for_room(len(data))

    def _wait_for_room(self, more_bytes: int) -> None:
        time.sleep(max(0.0, self._free_at - QUEUE_S - time.monotonic()))
        with self._room:
            self._held_bytes += more_bytes
            while self._held_bytes > self._most_bytes:
                self._room.wait()

    def leave(self) -> None:
        """Hand on what has come to the end of the line."""
        data = b"-"
        while data:
            due_at, data = self._under_way.get()
            time.sleep(max(0.0, due_at - time.monotonic()))
            with contextlib.suppress(OSError):  # whoever is gone is told by the other direction
                self._sink.sendall(data) if data else self._sink.shutdown(socket.SHUT_WR)
            with self._room:
                self._held_bytes -= len(data)
                self._room.notify()


class Delay:
    """One listening port before one target."""

    def __init__(self, target: str, *, delay_s: float, rate: float) -> None:
        self._target = target
        self._delay_s = delay_s
        self._rate = rate
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]

    def run(self) -> None:
        """Accept for ever."""
        while True:
            near, _ = self._listener.accept()
            far = _connect(self._target)
            for sock in (near, far):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for source, sink in ((near, far), (far, near)):
                Line(source, sink, delay_s=self._delay_s, rate=self._rate).start()


def _connect(target: str) -> socket.socket:
    host, _, port = target.rpartition(":")
    return socket.create_connection((host, int(port)))


@contextlib.contextmanager
def delayed(*targets: str, delay_s: float, rate_mbit: float = 0.0) -> Iterator[list[int]]:
    """The proxy as a process of its own; the ports that stand before the targets."""
    import subprocess

    line = ["--delay-ms", str(delay_s * 1_000), "--rate-mbit", str(rate_mbit)]
    command = [sys.executable, "-m", "stress.bench_delay", *line, *targets]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield [int(process.stdout.readline()) for _ in targets]
        finally:
            process.terminate()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m stress.bench_delay")
    parser.add_argument("--delay-ms", type=float, default=25.0, help="each way")
    parser.add_argument("--rate-mbit", type=float, default=0.0, help="each way, in Mbit/s; 0 for no limit")
    parser.add_argument("targets", nargs="+", metavar="HOST:PORT")
    options = parser.parse_args()
    rate = options.rate_mbit * 1e6 / 8 or math.inf
    threads = []
    for target in options.targets:
        delay = Delay(target, delay_s=options.delay_ms / 1_000, rate=rate)
        print(delay.port, flush=True)
        threads.append(threading.Thread(target=delay.run, daemon=True))
    for thread in threads:
        thread.start()
    threading.Event().wait()


if __name__ == "__main__":
    main()
