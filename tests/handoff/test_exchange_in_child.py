"""X1: what an exchange does in a forked child, and what a Future does that was taken over."""

from __future__ import annotations

from typing import Any

import pytest
from handoff_kit import make_answer, make_exchange, make_response

from hyperpool.errors import ConnectionLost, LocalProtocolError
from hyperpool.handoff.exchange import Exchange, Resend
from hyperpool.handoff.pushes import Pushes
from hyperpool.handoff.response import Response
from hyperpool.handoff.source import FedSource

LOST = ConnectionLost("forked")


def test_the_future_of_a_parents_exchange_fails_in_the_child() -> None:
    exchange = make_exchange()
    future = exchange.future
    assert future is not None
    exchange.abandon_in_child(LOST)
    assert isinstance(future.exception(0), ConnectionLost)
    assert exchange.future is None


def test_bodies_and_promises_of_a_parents_exchange_end_in_the_child() -> None:
    source, pushes = FedSource(), Pushes()
    exchange = make_exchange(source=source, streamed=True)
    exchange.pushes = pushes
    exchange.begin(1, 100.0)
    exchange.answer(make_answer(200, ()), 101.0)
    response = exchange._outcome
    assert isinstance(response, Response)
    exchange.abandon_in_child(LOST)
    with pytest.raises(ConnectionLost):
        response.read()
    assert list(pushes.so_far()) == []
    assert not source.feed(b"x")


def test_a_review_that_takes_a_future_over_resolves_it_itself() -> None:
    taken: list[Any] = []
    exchange: Exchange = make_exchange()
    future = exchange.future
    assert future is not None
    exchange.review = lambda its, outcome: taken.append((its, outcome)) or True  # type: ignore[func-returns-value]
    exchange.fail(LOST)
    exchange.settle()
    assert taken == [(future, LOST)] and not future.done()


def test_the_cancel_of_a_future_that_was_taken_over_goes_where_it_is_told() -> None:
    exchange, told = make_exchange(), []
    future = exchange.future
    assert future is not None
    future.on_cancel(lambda: told.append("here"))
    assert future.cancel() and told == ["here"]


def test_what_led_to_a_response_is_noted_in_it() -> None:
    first, last = make_response([b"moved"]), make_response([b"here"], fields=[(b"x", b"y")])
    last._parts.resends = (Resend("REFUSED_STREAM", 0.5),)
    last.came_after([first], [Resend("503", 0.1)], 2.0)
    assert last.history == [first]
    assert last.retries == (Resend("503", 0.1), Resend("REFUSED_STREAM", 2.5))
    assert last.raw_fields == [(b"x", b"y")]


def test_a_second_reader_at_the_same_time_is_refused() -> None:
    response = make_response([b"body"])
    response._reading["by"] = (-1,)
    with pytest.raises(LocalProtocolError, match="one reader at a time"):
        response.read()
    response._reading.clear()
    assert response.read() == b"body"


def test_an_exchange_whose_response_is_out_already_tells_its_body_alone() -> None:
    exchange = make_exchange(streamed=True)
    future = exchange.future
    assert future is not None
    exchange.begin(1, 100.0)
    exchange.answer(make_answer(200, ()), 101.0)
    exchange.settle()
    exchange.abandon_in_child(LOST)
    with pytest.raises(ConnectionLost):
        future.result(0).read()
