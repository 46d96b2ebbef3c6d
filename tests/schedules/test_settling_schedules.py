"""Settling against cancelling under every schedule (L5): one outcome, and the loop hears of each cancel that counts."""

from __future__ import annotations

import logging
from concurrent.futures import CancelledError
from typing import Any

import pytest
from schedule_kit import FlagWakeup, finds, search, together

from hyperpool.errors import ConnectionLost, ResponseClosed
from hyperpool.handoff.exchange import Exchange, State
from hyperpool.handoff.inbox import Inbox
from hyperpool.handoff.messages import Cancel, Consumed
from hyperpool.handoff.pushes import Push, Pushes
from hyperpool.handoff.response import Response
from hyperpool.protocol.events import Head, RequestHead
from hyperpool.values import Limits, Request, Timeout

HEAD = RequestHead(b"GET", b"https", b"a.test", b"/", ())
REQUEST = Request("GET", "https://a.test/", timeout=Timeout(None))


@pytest.fixture(autouse=True)
def no_log() -> Any:
    """A handler's lock that is made inside a run would belong to its scheduler."""
    logging.disable()
    yield
    logging.disable(logging.NOTSET)


def under_way(kind: type[Exchange] = Exchange, *, streamed: bool = False) -> Exchange:
    """An exchange whose request has gone out."""
    exchange = kind(
        REQUEST,
        HEAD,
        source=None,
        streamed=streamed,
        submitted_at=0.0,
        origin="https://a.test",
        limits=Limits(),
        made_at=None,
    )
    exchange.inbox = Inbox(FlagWakeup())
    exchange.begin(1, 0.0)
    return exchange


class Caller:
    """Whoever waits on a Future, cancels it, and keeps what comes of that."""

    def __init__(self, exchange: Exchange) -> None:
        assert exchange.future is not None
        self.future = exchange.future
        self.cancels: list[bool] = []
        self.called_back: list[bool] = []
        self.outcome: Any = None
        # Not through self: a cycle would be found by the collector, in the middle of the scheduler's own work.
        called_back = self.called_back
        self.future.add_done_callback(lambda future: called_back.append(future.cancelled()))

    def cancel(self) -> None:
        self.cancels.append(self.future.cancel())

    def wait(self) -> None:
        try:
            self.outcome = self.future.result()
        except (CancelledError, ConnectionLost) as error:
            self.outcome = error


def messages_of(exchange: Exchange, kind: type) -> list[Any]:
    assert exchange.inbox is not None
    return [message for message in exchange.inbox.close() if isinstance(message, kind)]


def an_answer_and_cancels() -> None:
    exchange = under_way()
    caller = Caller(exchange)

    def answer() -> None:
        exchange.answer(Head(1, 200, []), 1.0)
        exchange.feed(b"abc")
        exchange.complete([], 1.0)
        exchange.settle()

    together(answer, caller.cancel, caller.wait)
    was_cancelled = isinstance(caller.outcome, CancelledError)
    assert caller.cancels == [was_cancelled], "cancel() tells whether it counted"
    assert was_cancelled or caller.outcome.content == b"abc"
    assert caller.called_back == [was_cancelled], "called back once, with the outcome that everybody sees"
    assert len(messages_of(exchange, Cancel)) == was_cancelled
    assert exchange.state is State.DONE and exchange.future is None


def a_settlement_and_a_cancel(kind: type[Exchange] = Exchange) -> None:
    """The same, where nothing but the end is left: small enough to be gone through."""
    exchange = under_way(kind)
    caller = Caller(exchange)
    exchange.answer(Head(1, 200, []), 1.0)
    exchange.complete([], 1.0)
    together(exchange.settle, caller.cancel)
    assert caller.cancels == [caller.future.cancelled()] == caller.called_back


def a_loss_and_two_cancels() -> None:
    exchange = under_way()
    caller = Caller(exchange)

    def lose() -> None:
        exchange.fail(ConnectionLost("lost"))
        exchange.settle()

    together(lose, caller.cancel, caller.cancel)
    assert len(set(caller.cancels)) == 1 or caller.future.cancelled()
    assert caller.future.done() and caller.called_back == [caller.future.cancelled()]


def a_streamed_answer_and_a_cancel() -> None:
    """Who cancels while the head comes gets no Response: the stream must be reset all the same."""
    exchange = under_way(streamed=True)
    caller = Caller(exchange)

    def answer() -> None:
        exchange.answer(Head(1, 200, []), 1.0)
        exchange.feed(b"abc")
        exchange.settle()

    together(answer, caller.cancel)
    if caller.future.cancelled():
        assert messages_of(exchange, Cancel), "nobody would ever read it: its slot must come back"
    else:
        response = caller.future.result()
        response.close()
        assert len(messages_of(exchange, Cancel)) == 1
    exchange.fail(CancelledError())
    exchange.settle()


def a_response_that_two_threads_have() -> None:
    """One reads it, one closes it, while the loop feeds: the reset is asked for once, if at all."""
    exchange = under_way(streamed=True)
    caller = Caller(exchange)
    exchange.answer(Head(1, 200, []), 1.0, credit_step_bytes=2)
    exchange.settle()
    response: Response = caller.future.result()
    read: list[bytes] = []

    def feed() -> None:
        exchange.feed(b"ab")
        exchange.feed(b"c")
        exchange.complete([], 1.0)

    def use() -> None:
        try:
            read.extend(response.iter_raw())
        except ResponseClosed:
            read.append(b"closed")

    together(feed, use, response.close)
    assert read[-1:] == [b"closed"] or b"".join(read) == b"abc"
    assert exchange.inbox is not None
    said = list(exchange.inbox.close())
    assert sum(isinstance(one, Cancel) for one in said) <= 1
    assert sum(one.body_bytes for one in said if isinstance(one, Consumed)) <= 3, "L7: credit comes back once"
    exchange.settle()


class LooksBeforeItSettles(Exchange):
    """L5 broken: whether the Future was cancelled is looked at, and acted on later."""

    __slots__ = ()

    def settle(self) -> None:
        future, outcome = self.future, self._outcome
        self.future = self._outcome = None
        assert future is not None
        if not future.cancelled():
            future.set_result(outcome)  # type: ignore[arg-type]


def test_a_future_has_one_outcome_whoever_is_faster() -> None:
    search(an_answer_and_cancels)


def test_a_settlement_and_a_cancel_agree() -> None:
    search(a_settlement_and_a_cancel)


def test_a_lost_exchange_ends_once_however_often_it_is_cancelled() -> None:
    search(a_loss_and_two_cancels)


def test_a_stream_whose_caller_has_left_is_reset() -> None:
    search(a_streamed_answer_and_a_cancel)


def test_a_response_that_one_thread_reads_and_another_closes_resets_its_stream_once() -> None:
    search(a_response_that_two_threads_have)


def test_the_search_finds_a_settlement_that_looks_first() -> None:
    assert finds(lambda: a_settlement_and_a_cancel(LooksBeforeItSettles))


# -- promises ----------------------------------------------------------------------------------------------------------


def promises_and_two_takers(kind: type[Pushes] = Pushes) -> None:
    pushes, taken = kind(), []
    promised = [Push(REQUEST, number, None) for number in (2, 4)]  # type: ignore[arg-type]

    def promise() -> None:
        for push in promised:
            pushes.add(push)
        pushes.end()

    def take() -> None:
        taken.extend(push.stream_id for push in pushes.until_the_end())

    together(promise, take, take)
    assert sorted(taken) == [2, 4], "each promise is taken once"
    assert not list(pushes.so_far())


class EndsForOne(Pushes):
    """Broken: who meets the end does not leave it for the next."""

    def _taken(self, *, block: bool) -> Any:
        while (push := self._queue.get(block)) is not None:
            yield push


class EndsBeforeItsLast(Pushes):
    """Broken: the end overtakes a promise."""

    def add(self, push: Push) -> None:
        if self._queue.empty():
            self._queue.put(push)
        else:
            self._queue.put(None)
            self._queue.put(push)


def test_promises_are_taken_once_and_their_end_is_seen_by_all() -> None:
    search(promises_and_two_takers)


@pytest.mark.parametrize("kind", [EndsForOne, EndsBeforeItsLast])
def test_the_search_finds_promises_that_are_lost_or_waited_for(kind: type[Pushes]) -> None:
    assert finds(lambda: promises_and_two_takers(kind))
