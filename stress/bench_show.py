"""How the results are shown: one table for each scenario, by rich where it is installed, plain otherwise, or Markdown.

`table_of` decides what is in a table; the three ways of printing one know nothing of measuring.
"""

from __future__ import annotations

import contextlib
import importlib.util
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stress.bench_scenarios import Kind, Scenario
from stress.bench_values import Measured

OURS = "hyperpool"
_BEGIN, _END = "<!-- tables of stress.bench: begin -->", "<!-- tables of stress.bench: end -->"


@dataclass(frozen=True, slots=True)
class Table:
    """What is printed about one scenario. Immutable. The first column is text, the others are numbers."""

    title: str
    heads: list[str]
    rows: list[list[str]]
    notes: list[str]


def table_of(scenario: Scenario, rows: Sequence[Measured], left_out: dict[str, str]) -> Table:
    """One row for each client; below it what went wrong, and who was left out and why."""
    ours = next((row.rate for row in rows if row.client == OURS), 0.0)
    columns = _columns(scenario, ours)
    for name in next((row.more for row in rows if row.more), {}):
        columns[name] = _more(name)
    notes = [f"{row.client}: {row.errors} x {row.first_error[:150]}" for row in rows if row.errors]
    notes += [f"{row.client}: {row.note}" for row in rows if row.note]
    notes += [f"{name}: left out, {reason}" for name, reason in left_out.items() if name in scenario.clients]
    cells = [["-" if _unknown(head, row) else cell(row) for head, cell in columns.items()] for row in rows]
    return Table(scenario.title, list(columns), cells, notes)


def _columns(scenario: Scenario, ours: float) -> dict[str, Callable[[Measured], str]]:
    unit = scenario.unit
    times: dict[str, Callable[[Measured], str]] = {
        "p50 ms": lambda row: f"{row.p50_ms:,.2f}",
        "p99 ms": lambda row: f"{row.p99_ms:,.2f}",
    }
    rate: dict[str, Callable[[Measured], str]] = {
        f"{unit}/s": lambda row: _number(row.rate),
        "min-max": lambda row: f"{_number(row.low)}-{_number(row.high)}" if row.rounds > 1 else "",
    }
    rest: dict[str, Callable[[Measured], str]] = {
        f"CPU us/{unit}": lambda row: _number(row.cpu_us),
        **times,
        "MiB": lambda row: f"{row.memory_mib:,.0f}",
        "sockets": lambda row: f"{row.sockets:,.0f}",
        "threads": lambda row: f"{row.threads:,.0f}",
        "errors": lambda row: f"{row.errors:,}",
    }
    if scenario.kind is Kind.IMPORT:
        rest = {**times, "CPU ms": lambda row: f"{row.cpu_us / 1_000:,.1f}", "MiB": rest["MiB"]}
        rate = {}
    first: dict[str, Callable[[Measured], str]] = {"client": lambda row: row.client, "how": _how}
    return {**first, **rate, f"{OURS} is": lambda row: _ratio(ours, row), **rest}


def _how(row: Measured) -> str:
    return " ".join(part for part in (row.how, row.protocol) if part)


def _ratio(ours: float, row: Measured) -> str:
    return f"{ours / row.rate:.2f} x" if ours and row.rate and row.client != OURS else ""


def _more(name: str) -> Callable[[Measured], str]:
    return lambda row: f"{row.more[name]:,.1f}".removesuffix(".0") if name in row.more else ""


def _unknown(head: str, row: Measured) -> bool:
    """Whether nothing is known: of a measurement that failed; and of times, where no request came to an end."""
    if row.failed and not row.rate:
        return head not in ("client", "how", "errors")
    return not row.rate and (head.startswith("CPU") or head.endswith("/s") or head in ("p50 ms", "p99 ms"))


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


# -- three ways to print a table ---------------------------------------------------------------------------------------


def show(table: Table) -> None:
    """Print a table on standard output."""
    if importlib.util.find_spec("rich") is None or not sys.stdout.isatty():
        print("\n".join(["", *_plain(table)]))
        return
    from rich.console import Console
    from rich.table import Table as RichTable

    rich_table = RichTable(title=table.title, title_justify="left", title_style="bold")
    for number, head in enumerate(table.heads):
        rich_table.add_column(head, justify="left" if number < 2 else "right", no_wrap=number == 0)
    for row in table.rows:
        rich_table.add_row(*row, style="bold green" if row[0] == OURS else None)
    console = Console(highlight=False)
    console.print()
    console.print(rich_table)
    for note in table.notes:
        console.print(f"  {note}", markup=False)


def _plain(table: Table) -> Iterator[str]:
    widths = [max(len(row[number]) for row in (table.heads, *table.rows)) for number in range(len(table.heads))]
    yield table.title
    for row in (table.heads, *table.rows):
        cells = [cell.ljust(width) for cell, width in zip(row[:2], widths[:2], strict=True)]
        cells += [cell.rjust(width) for cell, width in zip(row[2:], widths[2:], strict=True)]
        yield "  " + "  ".join(cells).rstrip()
    yield from (f"    {note}" for note in table.notes)


def _markdown(table: Table) -> Iterator[str]:
    yield f"### {table.title}\n"
    yield "| " + " | ".join(table.heads) + " |"
    yield "|" + "|".join("---" if number < 2 else "--:" for number, _ in enumerate(table.heads)) + "|"
    for row in table.rows:
        cells = [f"**{cell}**" if row[0] == OURS and cell else cell for cell in row]
        yield "| " + " | ".join(cells) + " |"
    yield ""
    yield from (f"* {note}" for note in table.notes)


def write_markdown(path: Path, tables: Sequence[Table], introduction: str) -> None:
    """Put the tables between two marks of a file, or make the file. Raises ValueError where it has no marks."""
    text = "\n".join([introduction, "", *("\n".join([*_markdown(table), ""]) for table in tables)])
    whole = path.read_text("utf-8") if path.exists() else f"{_BEGIN}\n{_END}\n"
    if _BEGIN not in whole or _END not in whole:
        raise ValueError(f"{path} has no lines {_BEGIN!r} and {_END!r} to put the tables between")
    before, _, rest = whole.partition(_BEGIN)
    _, _, after = rest.partition(_END)
    path.write_text(f"{before}{_BEGIN}\n\n{text.rstrip()}\n\n{_END}{after}", "utf-8")


# -- progress ----------------------------------------------------------------------------------------------------------

Tell = Callable[[str], None]


@contextlib.contextmanager
def progress(total: int) -> Iterator[tuple[Tell, Tell]]:
    """Two functions, for what is measured now and what came of it: a bar on standard error, or one line for each."""
    if importlib.util.find_spec("rich") is None or not sys.stderr.isatty():
        yield (lambda now: None), _Lines(total)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns: list[Any] = [BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.description}")]
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("", total=total)
        yield (lambda now: bar.update(task, description=now)), (lambda done: bar.advance(task))


class _Lines:
    """One line for each measurement. Owned by the main thread."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._done = 0

    def __call__(self, done: str) -> None:
        self._done += 1
        print(f"  {self._done:>4}/{self._total}  {done}", file=sys.stderr, flush=True)
