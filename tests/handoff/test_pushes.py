"""Pushes: a queue with an end, taken by any number of threads; and the exchange that a promise makes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from handoff_kit import Thread, make_answer, make_exchange, make_head, make_request

from hyperpool.errors import StreamReset, TotalTimeout
from hyperpool.handoff.exchange import Exchange, State
from hyperpool.handoff.futures import ResponseFuture
from hyperpool.handoff.messages import Cancel, Consumed
from hyperpool.handoff.pushes import Push, Pushes, promise
from hyperpool.handoff.source import make_source
from hyperpool.values import Limits, Timeout


def push(number: int) -> Push:
    return Push(make_request(), number, ResponseFuture(lambda: None))


def filled(*numbers: int, ended: bool) -> Pushes:
    pushes = Pushes()
    for number in numbers:
        pushes.add(push(number))
    if ended:
        pushes.end()
    return pushes


def ids(taken: Any) -> list[int]:
    return [one.stream_id for one in taken]


def parent(**changes: Any) -> Exchange:
    """An exchange under way on stream 1, beside which the server may push."""
    exchange = make_exchange(**changes)
    assert exchange.future is not None
    exchange.pushes = exchange.future.pushes = Pushes()
    exchange.begin(1, 101.0)
    return exchange


def said(exchange: Exchange) -> list[Any]:
    assert exchange.inbox is not None
    return list(exchange.inbox.take())


class TestTheQueue:
    def test_those_that_are_here_are_given_without_waiting(self) -> None:
        pushes = filled(2, 4, ended=False)
        assert ids(pushes.so_far()) == [2, 4]
        assert ids(pushes.so_far()) == []

    def test_what_comes_later_is_given_later(self) -> None:
        pushes = filled(2, ended=False)
        assert ids(pushes.so_far()) == [2]
        pushes.add(push(4))
        assert ids(pushes.so_far()) == [4]

    def test_a_loop_that_is_broken_off_leaves_the_rest(self) -> None:
        pushes = filled(2, 4, ended=True)
        assert next(pushes.until_the_end()).stream_id == 2
        assert ids(pushes.until_the_end()) == [4]

    def test_the_end_stays(self) -> None:
        pushes = filled(2, ended=True)
        assert ids(pushes.until_the_end()) == [2]
        assert ids(pushes.until_the_end()) == ids(pushes.so_far()) == ids(pushes.until_the_end()) == []

    def test_who_asks_for_all_waits_for_those_that_come(self, in_thread: Callable[..., Thread]) -> None:
        pushes = filled(ended=False)
        reader = in_thread(lambda: ids(pushes.until_the_end()))
        for number in (2, 4, 6):
            pushes.add(push(number))
        pushes.end()
        assert reader.value() == [2, 4, 6]

    def test_the_end_reaches_all_who_wait_and_each_promise_one_of_them(self, in_thread: Callable[..., Thread]) -> None:
        pushes = filled(ended=False)
        readers = [in_thread(lambda: ids(pushes.until_the_end())) for _ in range(8)]
        for number in range(2, 202, 2):
            pushes.add(push(number))
        pushes.end()
        taken = [number for reader in readers for number in reader.value()]
        assert sorted(taken) == list(range(2, 202, 2))

    def test_to_wait_on_an_io_thread_is_refused_at_once(self, loop_mark: None) -> None:
        """L11: nobody would be left to add the next one."""
        pushes = filled(2, ended=False)
        with pytest.raises(RuntimeError, match="I/O thread"):
            pushes.until_the_end()
        assert ids(pushes.so_far()) == [2]


class TestThePromise:
    def test_it_is_an_exchange_under_way_with_a_streamed_response(self) -> None:
        exchange = parent()
        pushed = promise(exchange, make_request(url="https://a.test/p"), 2, 110.0)
        assert (pushed.state, pushed.stream_id, pushed.pushed, pushed.streamed) == (State.OPEN, 2, True, True)
        assert pushed.origin == exchange.origin and pushed.inbox is exchange.inbox
        assert exchange.pushes is not None
        (given,) = exchange.pushes.so_far()
        assert (given.future, given.stream_id, given.request.url) == (pushed.future, 2, "https://a.test/p")

    def test_it_is_never_sent(self) -> None:
        """L9: the server has made the request, so nothing of ours could be repeated."""
        exchange = parent(source=make_source(b"body"), head=make_head(4))
        pushed = promise(exchange, make_request(), 2, 110.0)
        assert not pushed.replayable and pushed.request_body is None and exchange.replayable

    def test_it_takes_no_pushes_of_its_own(self) -> None:
        pushed = promise(parent(), make_request(), 2, 110.0)
        assert pushed.pushes is None and pushed.future is not None and pushed.future.pushes is None
        pushed.fail(StreamReset("reset", code=8))

    def test_where_nobody_asked_for_pushes_there_can_be_none(self) -> None:
        exchange = make_exchange()
        exchange.begin(1, 101.0)
        with pytest.raises(AssertionError, match="refused"):
            promise(exchange, make_request(), 2, 110.0)

    def test_its_time_begins_with_the_promise(self) -> None:
        pushed = promise(parent(), make_request(timeout=Timeout(5)), 2, 110.0)
        assert pushed.deadlines.next_at == 115.0
        assert isinstance(pushed.timeout_error(115.0), TotalTimeout)

    def test_cancelling_its_future_reaches_the_loop(self) -> None:
        exchange = parent()
        pushed = promise(exchange, make_request(), 2, 110.0)
        assert pushed.future is not None and pushed.future.cancel()
        (message,) = said(exchange)
        assert isinstance(message, Cancel) and message.exchange is pushed

    def test_its_response_is_read_as_any_other(self) -> None:
        exchange = parent()
        pushed = promise(exchange, make_request(), 2, 110.0)
        future = pushed.future
        assert future is not None
        pushed.answer(make_answer(), 111.0)
        pushed.settle()
        pushed.feed(b"pushed")
        pushed.complete([], 112.0)
        assert future.result().read() == b"pushed"

    def test_it_may_be_forgotten_without_a_warning(self) -> None:
        """A ResourceWarning would be an error in these tests."""
        exchange = parent()
        pushed = promise(exchange, make_request(), 2, 110.0)
        pushed.answer(make_answer(), 111.0)
        pushed.settle()
        assert exchange.pushes is not None
        list(exchange.pushes.so_far())
        (message,) = said(exchange)
        assert isinstance(message, Cancel) and message.exchange is pushed

    @pytest.mark.parametrize("end", ["complete", "fail"])
    def test_the_end_of_the_parent_is_the_end_of_the_promises_and_not_of_what_was_promised(self, end: str) -> None:
        """L5."""
        exchange = parent()
        pushed = promise(exchange, make_request(), 2, 110.0)
        if end == "complete":
            exchange.answer(make_answer(), 111.0)
            exchange.complete([], 112.0)
        else:
            exchange.fail(StreamReset("reset", code=8))
        assert exchange.pushes is not None
        assert ids(exchange.pushes.until_the_end()) == [2]
        assert pushed.state is State.OPEN

    def test_a_resend_of_the_parent_is_no_end(self) -> None:
        exchange = parent()
        exchange.requeue("GOAWAY", 111.0)
        assert exchange.pushes is not None
        exchange.begin(3, 112.0)
        promise(exchange, make_request(), 4, 113.0)
        assert ids(exchange.pushes.so_far()) == [4]


@pytest.mark.parametrize(("step_bytes", "heard"), [(1, [3, 4]), (None, [])])
def test_the_loop_may_ask_to_hear_of_every_piece_that_is_read(step_bytes: int | None, heard: list[int]) -> None:
    exchange = make_exchange(streamed=True, limits=Limits())
    future = exchange.future
    assert future is not None
    exchange.begin(1, 101.0)
    exchange.answer(make_answer(), 102.0, credit_step_bytes=step_bytes)
    exchange.settle()
    exchange.feed(b"abc")
    exchange.feed(b"defg")
    pieces = future.result().iter_raw()
    assert [next(pieces), next(pieces)] == [b"abc", b"defg"]
    assert [message.body_bytes for message in said(exchange) if isinstance(message, Consumed)] == heard
    exchange.complete([], 103.0)
