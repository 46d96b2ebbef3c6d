"""The engine's bench as a fixture."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from engine_bench import Bench

from hyperpool.values import Limits


@pytest.fixture
def make_bench() -> Iterator[Callable[..., Bench]]:
    """Make benches, with `Limits` as keywords; each is closed, and held to the laws, after the test.

    ``route``: fields of the `Route` that differ from the usual ones.
    """
    made: list[Bench] = []

    def make(*, url: str = "https://a.test", route: dict[str, Any] | None = None, **limits: Any) -> Bench:
        made.append(Bench(Limits(**limits), url=url, **(route or {})))
        return made[-1]

    yield make
    for bench in made:
        bench.close()


@pytest.fixture
def bench(make_bench: Callable[..., Bench]) -> Bench:
    """A bench with the usual limits."""
    return make_bench()
