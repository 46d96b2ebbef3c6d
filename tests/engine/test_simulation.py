"""Lives of a loop in a simulated network (stress/simulate.py): a few seeds of the many that run at night.

A failing seed is repeated by ``python -m stress.simulate --seed N --verbose``.
"""

from __future__ import annotations

import pytest

from hyperpool.engine.transport import Transport
from hyperpool.handoff.exchange import Exchange
from stress import simulate
from stress.simulate import World, run_seed

SEEDS = range(1, 61)


@pytest.mark.slow
@pytest.mark.parametrize("first", SEEDS[::10])
def test_every_future_is_settled_rightly_whatever_the_network_does(first: int) -> None:
    for seed in range(first, first + 10):
        run_seed(seed)


def test_a_seed_makes_the_same_life_each_time() -> None:
    assert [run_seed(seed).fingerprint() for seed in (3, 7)] == [run_seed(seed).fingerprint() for seed in (3, 7)]


@pytest.mark.slow
def test_seeds_see_the_things_that_they_are_for() -> None:
    seen = set[str]()
    for seed in SEEDS:
        seen |= set(run_seed(seed).counts)
    assert seen >= {
        "answered",
        "cut",
        "truncate",
        "stall",
        "cancelled",
        "ConnectionLost",
        "StreamReset",
        "TotalTimeout",
    }


def first_failure() -> str:
    for seed in range(1, 200):
        try:
            World(seed).live()
        except Exception as error:
            return f"{type(error).__name__}: {error}"
    return ""


@pytest.mark.slow
def test_a_client_that_loses_a_byte_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: a write that is taken in part is taken for more."""
    send = Transport._send

    def sends_less(self: Transport, data: bytes | bytearray) -> int:
        sent = send(self, data)
        return min(sent + 1, len(data)) if 0 < sent < len(data) else sent

    monkeypatch.setattr(Transport, "_send", sends_less)
    assert first_failure()


@pytest.mark.slow
def test_a_client_that_never_settles_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: a lost exchange is forgotten."""
    monkeypatch.setattr(simulate, "MOST_STEPS", 3_000)
    fail = Exchange.fail

    def forgets(self: Exchange, error: BaseException) -> None:
        if "closed the connection" not in str(error):
            fail(self, error)

    monkeypatch.setattr(Exchange, "fail", forgets)
    assert "hangs" in first_failure()
