"""A server that never stays: nginx that retires connections all the time, and is restarted under load.

    python -m stress.churn                                      # 64 threads, 50,000 requests, a GOAWAY per 100 streams
    python -m stress.churn --restarts 20 --keepalive-requests 1000

Every body is checked. ``--restarts``: so often nginx is told to start anew (SIGHUP) while the threads go on. The exit
status is 0 only if no request failed: GOAWAY says which ones to send again (RFC 9113 6.8), so none may be lost.
"""

from __future__ import annotations

import argparse
import faulthandler
import itertools
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import hyperpool
from hyperpool.testing.paths import pattern
from stress import servers, sockets

SIZES = (0, 1, 100, 1_000, 10_000)
ERRORS_SHOWN = 10


class Churn:
    """One run.

    Shared; the counter of requests is one atomic step, and the lists only grow.
    """

    def __init__(self, client: hyperpool.Client, served: servers.Served, requests: int) -> None:
        self.client = client
        self.served = served
        self.requests = requests
        self.numbers = itertools.count()
        self.errors: list[str] = []
        self.resent: list[Any] = []
        self.done = threading.Event()

    def work(self) -> None:
        """Requests, until all have been made."""
        while (number := next(self.numbers)) < self.requests:
            size = SIZES[number % len(SIZES)]
            try:
                response = self.client.get(self.served.url(f"/bytes/{size}"))
            except hyperpool.HyperpoolError as error:
                self.errors.append(f"request {number}: {error!r}")
            else:
                self.resent += response.retries
                if response.content != pattern(size):
                    self.errors.append(f"request {number}: a wrong body")
        self.done.set()

    def restart(self, times: int) -> int:
        """Restart the server that often, as long as there are requests; how often it was."""
        for number in range(times):
            if self.done.wait(0.25):
                return number
            self.served.process.send_signal(servers.RELOAD)
        return times


def main(argv: list[str] | None = None) -> int:
    """Exit status 0 if no request was lost."""
    parser = argparse.ArgumentParser(prog="python -m stress.churn", description="A server that never stays.")
    parser.add_argument("--threads", type=int, default=64)
    parser.add_argument("--requests", type=int, default=50_000)
    parser.add_argument("--keepalive-requests", type=int, default=100)
    parser.add_argument("--restarts", type=int, default=0)
    parser.add_argument("--deadline", type=float, default=300.0, help="seconds")
    options = parser.parse_args(argv)
    faulthandler.dump_traceback_later(options.deadline, exit=True)
    began_at = time.monotonic()
    with (
        servers.nginx(keepalive_requests=options.keepalive_requests, master=options.restarts > 0) as served,
        hyperpool.Client(verify=served.ca_pem, timeout=60) as client,
    ):
        churn = Churn(client, served, options.requests)
        with ThreadPoolExecutor(options.threads) as threads:
            workers = [threads.submit(churn.work) for _ in range(options.threads)]
            restarts = churn.restart(options.restarts)
            for worker in workers:
                worker.result()
    took_s = time.monotonic() - began_at
    print(f"{options.requests:,} requests in {took_s:.1f} s, {len(churn.resent):,} resent, {restarts} restarts")
    print(f"{len(churn.errors):,} errors, {len(sockets.our_threads())} threads left")
    for error in churn.errors[:ERRORS_SHOWN]:
        print(f"  {error}")
    return 1 if churn.errors or sockets.our_threads() else 0


if __name__ == "__main__":
    sys.exit(main())
