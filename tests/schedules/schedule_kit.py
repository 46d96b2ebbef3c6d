"""Schedule search: a small model of threads is run under many interleavings, each chosen, not left to luck.

interleave-test owns every switch between the threads of a model: at each line of the rooms that are listed in
`_SWITCHED` and at each operation on a lock, condition, event or queue. A thread that waits for ever is a deadlock that
it sees at once, and it names the schedule and the seed with which it found one.

A model makes its own objects, which are the real classes; only what would be a system call is modelled here: the bytes
that wake a selector, and the selector. Next to each model stands one with a planted bug, and a test that the search
finds it: a search that finds nothing in a broken class says nothing about a whole one.

HYPERPOOL_SCHEDULES_S: seconds of search for each model, 0.8 by default. HYPERPOOL_SCHEDULES: how many schedules each
model gets at least, however long that takes (`pytest --timeout=0`); `pytest -rP` shows how many there were.
HYPERPOOL_SCHEDULES_SEED: where to begin.
"""

from __future__ import annotations

import gc
import os
import random
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import hyperpool
from hyperpool import loops as loops_room
from hyperpool import pool as pool_room
from hyperpool.engine.loop import OriginLoop
from hyperpool.errors import PoolClosed
from hyperpool.loops import Loops
from hyperpool.pool import ConnectionPool
from hyperpool.values import Limits, Request, Route

interleave = pytest.importorskip(
    "interleave_test",
    reason=f"schedule search needs interleave-test and Python 3.12 or later, this is {sys.version.split()[0]}",
)

SEARCH_S = float(os.environ.get("HYPERPOOL_SCHEDULES_S", "0.8"))
AT_LEAST = int(os.environ.get("HYPERPOOL_SCHEDULES", "1"))
FIRST_SEED = int(os.environ.get("HYPERPOOL_SCHEDULES_SEED", "1"))
# A planted bug that takes longer counts as not found. All are found within a second on a machine that is not busy.
PATIENCE_S = 90.0
# Two that choose at each step, and one that goes through all schedules with few switches, for as long as there are any.
_STRATEGIES = ("random", "pct", "dfs")
_AT_A_TIME = 10

_PACKAGE = Path(hyperpool.__file__).resolve().parent
# Where a switch may come between any two lines: where threads meet. What one thread alone owns need not be cut up.
_SWITCHED = (_PACKAGE / "handoff", _PACKAGE / "pool.py", _PACKAGE / "loops.py", Path(__file__).resolve().parent)

Model = Callable[[], object]

# Before any patch: how long a search takes is no business of the virtual clock.
_now = time.monotonic


def search(model: Model, **how: Any) -> None:
    """Run the model under schedules until the time is up, and show how many. Raises what went wrong, with its seed."""
    # A collection may come at any allocation, also inside the scheduler, and finalizers of ours take locks that are
    # modelled: the thread would wait for itself.
    gc.disable()
    try:
        print(_search(model, **how), "schedules")
    finally:
        gc.enable()


def _search(model: Model, *, granularity: str = "opcode", within_s: float = SEARCH_S, at_least: int = AT_LEAST) -> int:
    until_at, schedules = _now() + within_s, 0
    all_of_them = interleave.DFSStrategy(max_preemptions=2)
    for seed in range(FIRST_SEED, sys.maxsize):
        strategy = _STRATEGIES[seed % len(_STRATEGIES)]
        result = interleave.explore(
            model,
            iterations=_AT_A_TIME if strategy != "dfs" or all_of_them.more() is not False else 0,
            seed=seed,
            strategy=all_of_them if strategy == "dfs" else strategy,
            granularity=granularity,
            include=[str(path) for path in _SWITCHED],
            timeout=60.0,
        )
        schedules += result.schedules_run
        if _now() > until_at and schedules >= at_least:
            break
    return schedules


def finds(model: Model, **how: Any) -> Exception | None:
    """What the search says of a model with a planted bug; None where it finds nothing."""
    try:
        search(model, within_s=PATIENCE_S, at_least=1, **how)
    except interleave.InterleaveError as error:
        found: Exception = error
        return found
    return None


def spawn(act: Callable[..., object], *arguments: Any) -> Any:
    """Start a thread of the model; ``join()`` it."""
    return interleave.spawn(act, *arguments)


def together(*acts: Callable[[], object]) -> None:
    """Run these at the same time, each in a thread of its own, until all are through."""
    threads = [spawn(act) for act in acts]
    for thread in threads:
        thread.join()


class ModelPool(ConnectionPool):
    """A pool whose loops are made by the model, and all kept, so that it can look at them afterwards."""

    def __init__(self, make: Callable[[Route, Limits], OriginLoop], kind: type[Loops] = Loops, **limits: Any) -> None:
        super().__init__(limits=Limits(**limits), trust_env=False)
        self._finalizer.detach()
        self.made: list[OriginLoop] = []
        self._make = make
        workshop: Any = self
        self._use(kind(workshop, self.limits.max_origins))
        self._finalizer.detach()  # it would run when the model is over, and its locks with it

    def build(self, route: Route) -> OriginLoop:
        made = self._make(route, self.limits)
        self.made.append(made)
        return made


def model_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the process knows of pools and loops is the model's, and ends with it."""
    # The first request of a process imports things, under locks that no search knows of: not in a model.
    closed = ConnectionPool(trust_env=False)
    closed.close()
    with suppress(PoolClosed):
        closed.submit(Request("GET", "https://a.test/"))
    # What an exit or a fork would look at: pools and loops with locks of a model that is over are not its business.
    monkeypatch.setattr(pool_room, "pools", type(pool_room.pools)())
    monkeypatch.setattr(loops_room, "running", type(loops_room.running)())


class FlagWakeup:
    """The byte that wakes a selector, as a flag. ``receiver`` is what a selector would be told to watch."""

    def __init__(self) -> None:
        self._written = threading.Event()
        self.receiver = self

    def wake(self) -> None:
        self._written.set()

    def drain(self) -> None:
        self._written.clear()

    def wait(self) -> None:
        """What select does while nothing else could happen: a byte that never comes is a deadlock of the model."""
        self._written.wait()

    @property
    def written(self) -> bool:
        return self._written.is_set()

    def close(self) -> None:
        """Nothing to close."""


class Key:
    """What select says of the wake-up. Immutable."""

    data = None


class FlagSelector:
    """A selector that watches nothing but one `FlagWakeup`."""

    def __init__(self) -> None:
        self._wakeup: FlagWakeup | None = None

    def register(self, wakeup: FlagWakeup, events: int, data: object) -> None:
        self._wakeup = wakeup

    def select(self, timeout_s: float | None) -> list[tuple[Key, int]]:
        assert self._wakeup is not None
        if timeout_s != 0:
            self._wakeup._written.wait(timeout_s)
        return [(Key(), 1)] if self._wakeup.written else []

    def close(self) -> None:
        """Nothing to close."""


def quiet(act: Callable[[], object], *expected: type[BaseException]) -> Callable[[], None]:
    """The same act, for which these errors are answers too."""

    def tried() -> None:
        with suppress(*expected):
            act()

    return tried


def seeded(name: str) -> random.Random:
    """Chance that is the same in each run of a model: it must be a function of its schedule."""
    return random.Random(f"{FIRST_SEED}:{name}")
