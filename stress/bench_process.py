"""One measurement: the process that takes it (``python -m stress.bench_process JOB``), and who asks it to.

Nothing of one measurement is left for the next: no import, no connection, no warm cache but the kernel's.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from typing import Any

from stress import bench_long, bench_measures
from stress.bench_clients import opened
from stress.bench_measures import setting_for
from stress.bench_peers import KINDS
from stress.bench_scenarios import BY_KEY, Kind, Scenario
from stress.bench_values import FAILED, Job, Measured

# The longest are the origins (1,000 handshakes, 30 s of waiting) and what a busy machine makes of them.
PROCESS_S = 120.0
HELD_UP_S = 5.0

_WITH_A_CLIENT: dict[Kind, Callable[[Scenario, Job, Any], Measured]] = {
    Kind.REQUESTS: bench_measures.requests,
    Kind.FLIGHT: bench_measures.requests,
    Kind.SOCKETS: bench_measures.sockets_of_workers,
    Kind.DOWN: bench_long.transfers,
    Kind.UP: bench_long.transfers,
    Kind.FAR: bench_long.transfers,
    Kind.SLOW: bench_long.slow_reader,
}


def measure(job: Job) -> Measured:
    """Take one measurement in this process."""
    scenario = BY_KEY[job.scenario]
    if scenario.one_cpu and hasattr(os, "sched_setaffinity"):  # Linux
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    if job.client == "tcp":
        return bench_long.transfers(scenario, job, bench_long.Tcp(job))
    kind = KINDS[job.client]
    if scenario.kind is Kind.IMPORT:
        return bench_long.importing(job, kind.module)
    if scenario.kind is Kind.ORIGINS:
        return bench_long.many_origins(scenario, job, partial(opened, kind.open))
    # Where others are held up by a response that nobody reads, it is not to take minutes.
    more = {"patience_s": HELD_UP_S} if scenario.kind is Kind.SLOW else {}
    with opened(kind.open, setting_for(scenario, job, **more)) as peer:
        return _WITH_A_CLIENT[scenario.kind](scenario, job, peer)


def measure_elsewhere(job: Job) -> Measured:
    """Take one measurement in a fresh process; one that fails is a row with an error, and spares the others."""
    command = [sys.executable, "-W", "ignore", "-m", "stress.bench_process", json.dumps(job.plain())]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PROCESS_S, check=True)
    except subprocess.TimeoutExpired:
        return failure(job, f"no end within {PROCESS_S:.0f} s")
    except subprocess.CalledProcessError as error:
        return failure(job, (error.stderr.strip() or str(error)).splitlines()[-1])
    return Measured(**json.loads(done.stdout.splitlines()[-1]))


def failure(job: Job, reason: str) -> Measured:
    return Measured(client=job.client, scenario=job.scenario, errors=1, first_error=f"{FAILED}: {reason}", rounds=0)


def main() -> None:
    found = measure(Job.from_plain(json.loads(sys.argv[1])))
    print(json.dumps(asdict(found)), flush=True)


if __name__ == "__main__":
    main()
