"""One exchange's deadlines: which comes next, and what its error says."""

from __future__ import annotations

import pytest

from hyperpool import errors
from hyperpool.handoff.deadlines import NEVER, Deadlines
from hyperpool.values import Timeout

PHASES = {
    "pool": errors.PoolTimeout,
    "connect": errors.ConnectTimeout,
    "write": errors.WriteTimeout,
    "read": errors.ReadTimeout,
}
PATIENT = Timeout(pool=None, connect=None, write=None, read=None)


@pytest.mark.parametrize("phase", PHASES)
def test_a_phase_ends_its_own_limit_after_it_began(phase: str) -> None:
    deadlines = Deadlines(Timeout(**{phase: 5.0}), 100.0)
    deadlines.enter(phase, 110.0)
    assert deadlines.next_at == 115.0


@pytest.mark.parametrize("phase", PHASES)
def test_a_phase_without_limit_never_ends(phase: str) -> None:
    deadlines = Deadlines(PATIENT, 100.0)
    deadlines.enter(phase, 110.0)
    assert deadlines.next_at == NEVER


@pytest.mark.parametrize("phase", PHASES)
def test_the_total_bounds_every_phase(phase: str) -> None:
    deadlines = Deadlines(Timeout(12.0), 100.0)
    deadlines.enter(phase, 111.0)
    assert deadlines.next_at == 112.0


def test_the_total_bounds_a_phase_without_limit() -> None:
    deadlines = Deadlines(Timeout(12.0, pool=None), 100.0)
    assert deadlines.next_at == 112.0


def test_progress_moves_a_deadline() -> None:
    deadlines = Deadlines(Timeout(read=5.0), 100.0)
    deadlines.enter("read", 100.0)
    deadlines.touched_at = 103.0
    assert deadlines.next_at == 108.0


def test_entering_the_same_phase_again_is_progress() -> None:
    deadlines = Deadlines(Timeout(write=5.0), 100.0)
    deadlines.enter("write", 101.0)
    deadlines.enter("write", 103.0)
    assert deadlines.next_at == 108.0


@pytest.mark.parametrize(("phase", "kind"), PHASES.items())
def test_each_phase_has_its_own_error(phase: str, kind: type[errors.Timeout]) -> None:
    deadlines = Deadlines(Timeout(**{phase: 5.0}), 100.0)
    deadlines.enter(phase, 100.0)
    error = deadlines.error(105.0, what="GET x", where={})
    assert (type(error), error.phase) == (kind, phase)


def test_the_total_has_its_own_error_whatever_the_phase() -> None:
    deadlines = Deadlines(Timeout(5.0), 100.0)
    assert type(deadlines.error(105.0, what="GET x", where={})) is errors.TotalTimeout


def test_the_error_says_where_the_time_went() -> None:
    deadlines = Deadlines(Timeout(read=5.0), 100.0)
    deadlines.enter("connect", 101.0)
    deadlines.enter("write", 103.0)
    deadlines.enter("read", 107.0)
    assert deadlines.error(112.0, what="GET x", where={}).spent_s == {"pool": 1, "connect": 2, "write": 4, "read": 5}


def test_a_phase_that_came_twice_is_booked_once_with_the_sum() -> None:
    deadlines = Deadlines(Timeout(pool=5.0), 100.0)
    deadlines.enter("read", 101.0)
    deadlines.enter("pool", 102.0)
    assert deadlines.error(107.0, what="GET x", where={}).spent_s == {"pool": 6.0, "read": 1.0}


def test_the_message_says_who_what_and_which_knob() -> None:
    deadlines = Deadlines(Timeout(pool=2.5), 100.0)
    text = str(deadlines.error(102.5, what="GET https://a.test/x", where={}))
    assert text.startswith("GET https://a.test/x: no connection or stream slot became free within Timeout.pool=2.5 s")


def test_the_error_carries_where_it_happened() -> None:
    error = Deadlines(Timeout(0), 100.0).error(100.0, what="GET x", where={"origin": "https://a.test", "stream_id": 3})
    assert (error.origin, error.stream_id) == ("https://a.test", 3)
