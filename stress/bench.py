"""What hyperpool costs, beside the clients that people use today.

    python -m stress.bench --json docs/bench.json --plot docs/bench.svg --markdown docs/performance.md
    python -m stress.bench --quick --only h2,16 --clients hyperpool,httpcore
    python -m stress.bench --from docs/bench.json --plot bench.png
    python -m stress.bench --profile h2,16

It starts its own servers. Each measurement is a fresh process, the clients of a scenario take turns, and the tables
show medians of the rounds: on a shared machine only ratios taken in one run mean anything. All threads of a process
share ONE client object. A slow result is no failure; a measurement that did not end is one (status 1), and stands in
its row. A client that is not installed is left out, and the table says so. The scenarios: `bench_scenarios`.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import os
import platform
import sys
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from stress import bench_plot, bench_process, bench_show
from stress.bench_clients import is_installed
from stress.bench_peers import KINDS
from stress.bench_scenarios import BY_KEY, MANY_ORIGINS, SCENARIOS, Kind, Scenario
from stress.bench_servers import Places
from stress.bench_values import BODY_BYTES, Job, Measured, median
from stress.servers import ServerMissing

# What --quick divides large bodies and the number of origins by.
_QUICK = 10

Results = dict[str, list[Measured]]


def run_all(scenarios: list[Scenario], options: argparse.Namespace) -> tuple[Results, dict[str, str]]:
    """All measurements, the clients of each scenario in turns; the medians, and who was left out and why."""
    left_out = {name: KINDS[name].missing for name in options.clients if KINDS[name].missing}
    taken: dict[tuple[str, str], list[Measured]] = {}
    turns = list(_turns(scenarios, [name for name in options.clients if name not in left_out], options.rounds))
    origins = MANY_ORIGINS // (_QUICK if options.quick else 1)
    with Places(origins) as places, bench_show.progress(len(turns)) as (now, done):
        for scenario, client in turns:
            now(f"{scenario.key}  {client}")
            try:
                found = _take(scenario, client, places, options)
            except ServerMissing as error:
                left_out[scenario.key] = str(error)
                done(f"{scenario.key}: left out, {error}")
                continue
            taken.setdefault((scenario.key, client), []).append(found)
            row = f"{scenario.key:18} {client:16} {found.rate:>8,.0f} {scenario.unit}/s  {found.first_error[:80]}"
            done(row.rstrip())
    return {
        each.key: rows
        for each in scenarios
        if (rows := [median(taken[each.key, name]) for name in each.clients if (each.key, name) in taken])
    }, left_out


def _take(scenario: Scenario, client: str, places: Places, options: argparse.Namespace) -> Measured:
    size_bytes = scenario.size_bytes
    if options.quick and size_bytes > BODY_BYTES:
        size_bytes //= _QUICK
    job = Job(client=client, scenario=scenario.key, seconds=options.seconds, **places.job_for(scenario, size_bytes))
    return bench_process.measure_elsewhere(job)


def _turns(scenarios: list[Scenario], wanted: list[str], rounds: int) -> Iterator[tuple[Scenario, str]]:
    """Round after round, so that what else the machine does is shared out among all."""
    for number in range(rounds):
        for scenario in scenarios:
            order = deque(name for name in scenario.clients if name in wanted or name not in KINDS)
            order.rotate(-number)  # nobody always comes first, or after the same one
            yield from ((scenario, name) for name in order)


# -- what is written ---------------------------------------------------------------------------------------------------


def described(arguments: list[str], options: argparse.Namespace, spent_s: float) -> dict[str, Any]:
    """When, where and with what it was measured."""
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "command": " ".join(["python -m stress.bench", *arguments]),
        "took_s": round(spent_s),
        "rounds": options.rounds,
        "seconds": options.seconds,
        "quick": options.quick,
        "machine": {
            "cpus": os.cpu_count(),
            "processor": _processor(),
            "system": f"{platform.system()} {platform.release()} {platform.machine()}",
            "load_at_end": round(os.getloadavg()[0], 2),
        },
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "versions": _versions(),
    }


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()


def _versions() -> dict[str, str]:
    found = {}
    packages = dict.fromkeys(kind.package for kind in KINDS.values())
    for name in (*packages, "h2", "hpack", "h11", "pyOpenSSL"):
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def _summary(about: dict[str, Any]) -> str:
    machine = about["machine"]
    versions = ", ".join(f"{name} {number}" for name, number in about["versions"].items())
    return (
        f"Measured on {about['date']} with {about['python']} on {machine['cpus']} CPUs ({machine['processor']}), which"
        f" the server shares, by `{about['command']}` in {about['took_s'] // 60 + 1} min: {about['rounds']} rounds of"
        f" {about['seconds']:g} s. {versions}."
    )


def publish(results: Results, about: dict[str, Any], left_out: dict[str, str], options: argparse.Namespace) -> None:
    """Print the tables, and write what is asked for."""
    tables = [bench_show.table_of(BY_KEY[key], rows, left_out) for key, rows in results.items()]
    if about["quick"]:
        print("\nBriefly, with a tenth of the bytes and origins that the titles say: no figures to quote.")
    if options.json:
        rows = [asdict(row) for found in results.values() for row in found]
        text = json.dumps({**about, "left_out": left_out, "results": rows}, indent=1)
        options.json.write_text(text + "\n", "utf-8")
    for table in tables:
        bench_show.show(table)
    for key in left_out.keys() & BY_KEY.keys():
        print(f"\n{BY_KEY[key].title}: left out, {left_out[key]}")
    if options.markdown:
        bench_show.write_markdown(options.markdown, tables, _summary(about))
    if options.plot:
        caption = f"{about['date']}, {about['python']}, {about['machine']['cpus']} CPUs shared with the server; bars:"
        bench_plot.draw(options.plot, results, f"{caption} medians, with the slowest and fastest round")


def read(path: Path) -> tuple[Results, dict[str, Any]]:
    """What ``--json`` wrote."""
    about = json.loads(path.read_text("utf-8"))
    results: Results = {}
    for row in about.pop("results"):
        results.setdefault(row["scenario"], []).append(Measured(**row))
    return results, about


# -- the program -------------------------------------------------------------------------------------------------------


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m stress.bench", description="hyperpool beside its peers.")
    parser.add_argument("--rounds", type=int, help="default: 5")
    parser.add_argument("--seconds", type=float, help="of each measurement, after the warm-up; default: 1.2")
    parser.add_argument("--only", action="append", choices=list(BY_KEY), metavar="SCENARIO", help=", ".join(BY_KEY))
    parser.add_argument("--clients", type=_clients, default=list(KINDS), help=f"comma-separated: {','.join(KINDS)}")
    parser.add_argument("--quick", action="store_true", help="one round of 0.5 s, a tenth of the bytes and origins")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw them (.svg, .png; needs matplotlib)")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="put the tables between the marks of a file")
    parser.add_argument("--from", dest="source", type=Path, metavar="FILE", help="measure nothing: what --json wrote")
    parser.add_argument("--profile", choices=_profiled(), metavar="SCENARIO", help="where hyperpool's time goes")
    options = parser.parse_args(arguments)
    # Said now, and not after half an hour.
    if options.plot and not is_installed("matplotlib"):
        parser.error("--plot needs matplotlib, which is in the extra `bench`")
    options.rounds = options.rounds or (1 if options.quick else 5)
    options.seconds = options.seconds or (0.5 if options.quick else 1.2)
    return options


def _clients(text: str) -> list[str]:
    names = text.split(",")
    if unknown := [name for name in names if name not in KINDS]:
        raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: not among {', '.join(KINDS)}")
    return names


def _profiled() -> list[str]:
    kinds = (Kind.REQUESTS, Kind.FLIGHT, Kind.DOWN, Kind.UP)
    return [each.key for each in SCENARIOS if each.kind in kinds]


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    if options.profile:
        from stress import bench_profile

        return bench_profile.main(BY_KEY[options.profile], options.seconds)
    if options.source:
        results, about = read(options.source)
        publish(results, about, about.pop("left_out"), options)
        return 0
    scenarios = [each for each in SCENARIOS if not options.only or each.key in options.only]
    began_at = time.monotonic()
    results, left_out = run_all(scenarios, options)
    given = sys.argv[1:] if arguments is None else arguments
    publish(results, described(given, options, time.monotonic() - began_at), left_out, options)
    # That nothing was measured, because a server is missing, is not success either.
    return int(not results or any(row.failed for found in results.values() for row in found))


if __name__ == "__main__":
    sys.exit(main())
