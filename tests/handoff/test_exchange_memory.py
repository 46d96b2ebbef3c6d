"""What an exchange that is over still holds: timers may know it until their deadline, and a body may be large."""

from __future__ import annotations

from handoff_kit import make_answer, make_exchange


def test_a_finished_exchange_leaves_its_body_to_the_response() -> None:
    exchange = make_exchange()
    future = exchange.future
    assert future is not None
    exchange.begin(1, 100.0)
    exchange.answer(make_answer(), 100.0)
    exchange.feed(b"abc")
    exchange.complete([], 100.0)
    exchange.settle()
    assert exchange._collected == []
    assert future.result(0).content == b"abc"
