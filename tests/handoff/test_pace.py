"""How fast a body comes, and whose fault it is where it does not (`Limits.min_body_rate`)."""

from __future__ import annotations

import pytest
from handoff_kit import make_answer, make_exchange

from hyperpool.errors import ReadTimeout
from hyperpool.handoff.deadlines import NEVER, PACE_S, Deadlines, Pace
from hyperpool.handoff.exchange import Exchange
from hyperpool.values import Limits, Timeout

RATE = 100.0
PATIENT = Timeout(pool=None, connect=None, write=None, read=None)


def begun() -> Pace:
    """A body that is awaited from 100.0 on."""
    pace = Pace(RATE, 90.0)
    pace.begin(100.0)
    return pace


def answered(*, streamed: bool) -> Exchange:
    exchange = make_exchange(streamed=streamed, made_at=None, limits=Limits(min_body_rate=RATE))
    exchange.begin(1, 100.0)
    exchange.answer(make_answer(), 100.0)
    return exchange


def too_slow(exchange: Exchange, now: float) -> str:
    return exchange.deadlines.too_slow(now, unread=exchange.unread_bytes > 0)


def test_before_it_is_awaited_nothing_is_slow() -> None:
    pace = Pace(RATE, 100.0)
    assert pace.look(100.0 + 5 * PACE_S, unread=False) == ""
    assert pace.look_at == 100.0 + 6 * PACE_S


@pytest.mark.parametrize(("body_bytes", "is_slow"), [(999, True), (1000, False), (10**9, False)])
def test_the_rate_is_that_of_the_whole_time_since_the_last_look(body_bytes: int, is_slow: bool) -> None:
    pace = begun()
    pace.came(body_bytes, held_up=False)
    words = pace.look(100.0 + PACE_S, unread=False)
    assert bool(words) is is_slow
    assert not is_slow or f"{body_bytes:,} bytes of the body in 10.0 s" in words


def test_what_came_before_the_last_look_does_not_help_later() -> None:
    pace = begun()
    pace.came(10**9, held_up=False)
    assert pace.look(100.0 + PACE_S, unread=False) == ""
    assert pace.look_at == 100.0 + 2 * PACE_S
    assert pace.look(100.0 + 2 * PACE_S, unread=False)


def test_an_early_look_decides_nothing() -> None:
    pace = begun()
    assert pace.look(103.0, unread=False) == ""
    assert pace.look_at == 100.0 + PACE_S


def test_while_bytes_wait_for_the_reader_no_time_counts() -> None:
    pace = begun()
    for turn in range(1, 5):
        assert pace.look(100.0 + turn * PACE_S, unread=True) == ""
        assert pace.look_at == 100.0 + (turn + 1) * PACE_S


def test_from_a_reader_that_was_far_behind_the_time_counts_when_it_is_heard_of() -> None:
    pace = begun()
    pace.came(10, held_up=True)
    assert pace.look(100.0 + PACE_S, unread=False) == ""
    pace.go_on(115.0)
    assert pace.look(115.0 + PACE_S - 1, unread=False) == ""
    assert pace.look(115.0 + PACE_S, unread=False)


def test_a_reader_that_keeps_up_changes_nothing_by_being_heard_of() -> None:
    """Else a server that sends a little now and then would have its time anew with each piece."""
    pace = begun()
    pace.came(10, held_up=False)
    pace.go_on(109.0)
    assert pace.look(100.0 + PACE_S, unread=False)


def test_who_sets_no_rate_is_looked_at_only_when_the_deadline_comes() -> None:
    deadlines = Deadlines(Timeout(read=60.0), 100.0)
    deadlines.enter("read", 100.0)
    assert deadlines.look_at == deadlines.next_at == 160.0


def test_who_sets_a_rate_is_looked_at_sooner_and_may_last_as_long() -> None:
    deadlines = Deadlines(PATIENT, 100.0, min_rate=RATE)
    assert (deadlines.look_at, deadlines.next_at) == (100.0 + PACE_S, NEVER)


def test_an_exchange_without_a_rate_is_never_too_slow() -> None:
    exchange = make_exchange()
    exchange.begin(1, 100.0)
    exchange.answer(make_answer(), 100.0)
    exchange.feed(b"x")
    exchange.deadlines.body_was_read(150.0)
    assert too_slow(exchange, 1e9) == "" and exchange.deadlines.touched_at == 150.0


@pytest.mark.parametrize("streamed", [False, True])
def test_an_exchange_whose_body_drips_is_too_slow_and_its_error_says_so(streamed: bool) -> None:
    exchange = answered(streamed=streamed)
    assert too_slow(exchange, 100.0 + PACE_S - 1) == ""
    exchange.feed(b"drip")
    if streamed:
        assert exchange._pipe is not None and exchange._pipe.take() == b"drip"
    slow = too_slow(exchange, 100.0 + PACE_S)
    error = exchange.timeout_error(100.0 + PACE_S, slow=slow)
    assert type(error) is ReadTimeout and error.phase == "read" and error.spent_s["read"] == PACE_S
    assert "4 bytes of the body in 10.0 s, less than Limits.min_body_rate=100 bytes a second" in str(error)


def test_a_reader_half_a_window_behind_holds_its_body_up_until_it_has_read() -> None:
    exchange = answered(streamed=True)
    assert exchange._pipe is not None
    exchange.feed(bytes(exchange.limits.stream_window_bytes // 2))
    exchange._pipe.take()
    assert too_slow(exchange, 100.0 + PACE_S) == ""
    exchange.deadlines.body_was_read(100.0 + PACE_S)
    assert too_slow(exchange, 100.0 + 2 * PACE_S)


def test_a_body_that_nobody_reads_piece_by_piece_is_never_held_up() -> None:
    exchange = answered(streamed=False)
    exchange.feed(bytes(exchange.limits.stream_window_bytes))
    assert too_slow(exchange, 100.0 + PACE_S) == ""
    assert too_slow(exchange, 100.0 + 2 * PACE_S)
