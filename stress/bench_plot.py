"""The plot of the results: one panel for each scenario that is a race, bars from the fastest to the slowest.

Needs matplotlib, which is in the extra `bench`; the suffix of the file says the format.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stress.bench_clients import load
from stress.bench_scenarios import BY_KEY
from stress.bench_show import OURS
from stress.bench_values import Measured

PANELS = ("h2,1", "h2,16", "h2,64", "h2,in-flight", "h2,in-flight-1000", "h1,16", "down-h2", "up-h2", "rtt50")
_PER_ROW = 3
_OURS_COLOUR, _H2_COLOUR, _H1_COLOUR = "#d1495b", "#5b7a99", "#b8c4d0"


def draw(path: Path, results: dict[str, list[Measured]], caption: str) -> None:
    """Write the plot. Raises ModuleNotFoundError where matplotlib is not installed, ValueError where nothing races."""
    panels = [key for key in PANELS if any(row.rate for row in results.get(key, ()))]
    if not panels:
        raise ValueError(f"nothing to draw: none of {', '.join(PANELS)} was measured")
    matplotlib = load("matplotlib")
    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "hyperpool"  # the same results give the same file
    rows = -(-len(panels) // _PER_ROW)
    columns = min(len(panels), _PER_ROW)
    figure, axes = load("matplotlib.pyplot").subplots(
        rows, columns, figsize=(5 * columns, 3.1 * rows), squeeze=False, layout="constrained"
    )
    for number, axis in enumerate(axes.flat):
        if number < len(panels):
            _panel(axis, panels[number], [row for row in results[panels[number]] if row.rate])
        else:
            axis.set_axis_off()
    figure.supxlabel(caption, fontsize=8, color="#555555")
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None, dpi=120)


def _panel(axis: Any, key: str, rows: Sequence[Measured]) -> None:
    scenario = BY_KEY[key]
    ordered = sorted(rows, key=lambda row: row.rate)
    rates = [row.rate for row in ordered]
    spread = [[row.rate - row.low for row in ordered], [row.high - row.rate for row in ordered]]
    bars = axis.barh([row.client for row in ordered], rates, color=[_colour(row) for row in ordered], xerr=spread)
    labels = [f" {rate:,.0f}" for rate in rates]
    axis.bar_label(bars, labels, fontsize=7, padding=2)
    axis.set_title(f"{scenario.title}, {scenario.unit}/s", fontsize=8, loc="left", wrap=True)
    axis.tick_params(labelsize=7)
    axis.margins(x=0.18)
    axis.spines[["top", "right"]].set_visible(False)


def _colour(row: Measured) -> str:
    if row.client.startswith(OURS):
        return _OURS_COLOUR
    return _H1_COLOUR if row.protocol == "h1" else _H2_COLOUR
