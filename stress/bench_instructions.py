"""How many instructions a small request costs hyperpool: the same each time, whatever else the machine does.

    python -m stress.bench_instructions h2,16 h2,in-flight h1,16

Times of a busy machine vary by a fifth, so that a change of a few per cent is not seen in them. callgrind counts
instead (Debian: valgrind). It runs a process that sends few requests and one that sends many; the difference is that
of the requests alone, without imports and handshake. Two runs differ by 1 % with HTTP/2, and by some more with
HTTP/1.1, where it is chance how many connections have their turn together. The kernel's instructions are not counted,
nor what changing threads costs. It takes half a minute for each scenario.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

from stress.bench_clients import Hyperpool, opened
from stress.bench_measures import setting_for
from stress.bench_scenarios import BY_KEY, SCENARIOS, Kind, Scenario
from stress.bench_servers import Places
from stress.bench_values import BODY_BYTES, Job
from stress.servers import find_program

FEW, MANY = 160, 1_760
_SMALL = (Kind.REQUESTS, Kind.FLIGHT)
_COUNTED = re.compile(r"Collected : (\d+)").search


class _Count:
    """So many requests, and no more: a `Tally`. Owned by the thread that keeps them in flight."""

    probe_url = ""

    def __init__(self, requests: int) -> None:
        self._left = requests
        self.over = False

    def probed(self, length: int) -> None:
        """The first one is not counted."""

    def count(self, began_at: float, length: int) -> None:
        assert length == BODY_BYTES, f"{length} bytes came"
        self._left -= 1
        self.over = self._left <= 0

    def fail(self, error: BaseException) -> None:
        raise error


def send(job: Job, requests: int) -> None:
    """Send so many requests, as the job's scenario does."""
    scenario = BY_KEY[job.scenario]
    with opened(Hyperpool, setting_for(scenario, job)) as peer:
        peer.get(job.url)
        if scenario.kind is Kind.FLIGHT:
            peer.fly(job.url, scenario.workers, _Count(requests))
            return
        share = requests // scenario.workers
        with ThreadPoolExecutor(scenario.workers) as workers:
            for sent in [workers.submit(_ask, peer, job.url, share) for _ in range(scenario.workers)]:
                sent.result()


def _ask(peer: Hyperpool, url: str, times: int) -> None:
    for _ in range(times):
        assert peer.get(url) == BODY_BYTES


def counted(job: Job, requests: int) -> int:
    """The instructions of a process that sends so many."""
    command = [find_program("valgrind", package="valgrind"), "--tool=callgrind", "--callgrind-out-file=/dev/null"]
    command += [sys.executable, "-W", "ignore", "-m", "stress.bench_instructions", "--send", str(requests)]
    done = subprocess.run([*command, json.dumps(job.plain())], capture_output=True, text=True, check=False)
    found = _COUNTED(done.stderr)
    if done.returncode or found is None:
        raise SystemExit(f"callgrind failed with status {done.returncode}:\n{done.stderr[-2_000:]}")
    return int(found[1])


def main() -> None:
    small = [one.key for one in SCENARIOS if one.kind in _SMALL and not one.one_cpu]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--send", type=int, help=argparse.SUPPRESS)
    parser.add_argument("what", nargs="+", help=f"scenarios: {' '.join(small)}")
    options = parser.parse_args()
    if options.send is not None:
        send(Job.from_plain(json.loads(options.what[0])), options.send)
        return
    if unknown := [key for key in options.what if key not in small]:
        parser.error(f"{unknown[0]} is none of {' '.join(small)}")
    with Places(0) as places, ThreadPoolExecutor(2) as runs:
        for scenario in (BY_KEY[key] for key in options.what):
            _show(scenario, places, runs)


def _show(scenario: Scenario, places: Places, runs: ThreadPoolExecutor) -> None:
    job = Job(client="hyperpool", scenario=scenario.key, seconds=0, **places.job_for(scenario, scenario.size_bytes))
    few, many = runs.map(lambda requests: counted(job, requests), (FEW, MANY))
    print(f"{scenario.title}: {(many - few) // (MANY - FEW):,} instructions a request", flush=True)


if __name__ == "__main__":
    main()
