"""A TCP proxy that is far away: every byte arrives so much later as it would on a long line, and none is held back.

    python -m stress.bench_delay --delay-ms 25 HOST:PORT ...

It prints the port on which it stands before each target, then runs until it is ended. It reads without limit and keeps
what is under way in memory, so that it bounds the time of each byte and not the rate: what a client is slow at here is
waiting for its own windows. It does not show what TCP's own windows do on a long line, nor loss.
"""

from __future__ import annotations

import argparse
import contextlib
import queue
import socket
import sys
import threading
import time
from collections.abc import Iterator

CHUNK_BYTES = 1 << 20


class Delay:
    """One listening port before one target. Each connection has four threads, two in each direction."""

    def __init__(self, target: str, delay_s: float) -> None:
        self._target = target
        self._delay_s = delay_s
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]

    def run(self) -> None:
        """Accept for ever."""
        while True:
            near, _ = self._listener.accept()
            far = _connect(self._target)
            for sock in (near, far):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._carry(near, far)
            self._carry(far, near)

    def _carry(self, source: socket.socket, sink: socket.socket) -> None:
        line: queue.SimpleQueue[tuple[float, bytes]] = queue.SimpleQueue()
        for work in (self._enter, self._leave):
            threading.Thread(target=work, args=(source if work == self._enter else sink, line), daemon=True).start()

    def _enter(self, source: socket.socket, line: queue.SimpleQueue[tuple[float, bytes]]) -> None:
        data = b"-"
        while data:
            try:
                data = source.recv(CHUNK_BYTES)
            except OSError:
                data = b""
            line.put((time.monotonic() + self._delay_s, data))

    def _leave(self, sink: socket.socket, line: queue.SimpleQueue[tuple[float, bytes]]) -> None:
        with contextlib.suppress(OSError):
            while True:
                due_at, data = line.get()
                time.sleep(max(0.0, due_at - time.monotonic()))
                if not data:
                    sink.shutdown(socket.SHUT_WR)
                    return
                sink.sendall(data)


def _connect(target: str) -> socket.socket:
    host, _, port = target.rpartition(":")
    return socket.create_connection((host, int(port)))


@contextlib.contextmanager
def delayed(*targets: str, delay_s: float) -> Iterator[list[int]]:
    """The proxy as a process of its own; the ports that stand before the targets."""
    import subprocess

    command = [sys.executable, "-m", "stress.bench_delay", "--delay-ms", str(delay_s * 1_000), *targets]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield [int(process.stdout.readline()) for _ in targets]
        finally:
            process.terminate()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m stress.bench_delay")
    parser.add_argument("--delay-ms", type=float, default=25.0, help="each way")
    parser.add_argument("targets", nargs="+", metavar="HOST:PORT")
    options = parser.parse_args()
    threads = []
    for target in options.targets:
        delay = Delay(target, options.delay_ms / 1_000)
        print(delay.port, flush=True)
        threads.append(threading.Thread(target=delay.run, daemon=True))
    for thread in threads:
        thread.start()
    threading.Event().wait()


if __name__ == "__main__":
    main()
