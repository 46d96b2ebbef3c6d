"""The Future that callers hold: a real concurrent.futures.Future, whose cancel reaches the wire."""

from __future__ import annotations

import asyncio
import concurrent.futures
from concurrent.futures import CancelledError, wait

import pytest
from handoff_kit import WAIT_S, Waiters, make_answer, make_exchange

from hyperpool.errors import ConnectionLost
from hyperpool.handoff.exchange import Exchange
from hyperpool.handoff.messages import Cancel


def finish(exchange: Exchange, body: bytes = b"body") -> None:
    """What a loop does with an exchange that goes well."""
    exchange.begin(1, 101.0)
    exchange.answer(make_answer(), 102.0)
    exchange.feed(body)
    exchange.complete([], 103.0)
    exchange.settle()


def obey_cancel(exchange: Exchange) -> None:
    """What a loop does with the Cancel that lies in its inbox."""
    assert list(exchange.inbox.take()) == [Cancel(exchange)]
    exchange.fail(CancelledError())
    exchange.settle()


@pytest.fixture
def pair():
    exchange = make_exchange()
    return exchange, exchange.future


class TestOnALoopThread:
    """L11: a done-callback that waits would wait for itself."""

    @pytest.mark.parametrize("call", ["result", "exception"])
    def test_waiting_is_refused_at_once(self, pair, loop_mark, call: str) -> None:
        _, future = pair
        with pytest.raises(RuntimeError, match=rf"Future\.{call}\(\).*done-callback"):
            getattr(future, call)()

    @pytest.mark.parametrize("call", ["result", "exception"])
    def test_waiting_with_a_timeout_is_refused_as_well(self, pair, loop_mark, call: str) -> None:
        _, future = pair
        with pytest.raises(RuntimeError):
            getattr(future, call)(timeout=0.1)

    def test_a_result_that_is_here_is_given(self, pair, loop_mark) -> None:
        exchange, future = pair
        finish(exchange)
        assert future.result().content == b"body"

    def test_an_exception_that_is_here_is_given(self, pair, loop_mark) -> None:
        exchange, future = pair
        exchange.fail(error := ConnectionLost("gone"))
        exchange.settle()
        assert future.exception() is error

    def test_a_done_callback_gets_the_result(self, pair, loop_mark) -> None:
        exchange, future = pair
        got: list[bytes] = []
        future.add_done_callback(lambda done: got.append(done.result().content))
        finish(exchange)
        assert got == [b"body"]


class TestWaiting:
    def test_result_blocks_until_the_loop_settles(self, pair, in_thread) -> None:
        exchange, future = pair
        waiters = Waiters(future._condition)
        caller = in_thread(future.result)
        waiters.until_parked()
        finish(exchange)
        assert caller.value().content == b"body"

    def test_result_wakes_with_the_error(self, pair, in_thread) -> None:
        """L5."""
        exchange, future = pair
        waiters = Waiters(future._condition)
        caller = in_thread(future.result)
        waiters.until_parked()
        exchange.fail(ConnectionLost("gone"))
        exchange.settle()
        with pytest.raises(ConnectionLost):
            caller.value()

    def test_result_gives_up_after_its_timeout(self, pair) -> None:
        _, future = pair
        with pytest.raises(concurrent.futures.TimeoutError):
            future.result(timeout=0)

    def test_exception_is_none_for_a_response(self, pair) -> None:
        exchange, future = pair
        finish(exchange)
        assert future.exception() is None

    def test_giving_up_does_not_cancel(self, pair) -> None:
        exchange, future = pair
        with pytest.raises(concurrent.futures.TimeoutError):
            future.result(timeout=0)
        finish(exchange)
        assert future.result().content == b"body"

    def test_wait_returns_what_is_done(self) -> None:
        exchanges = [make_exchange() for _ in range(3)]
        futures = [exchange.future for exchange in exchanges]
        finish(exchanges[1])
        done, _ = wait(futures, WAIT_S, return_when=concurrent.futures.FIRST_COMPLETED)
        assert done == {futures[1]}

    def test_as_completed_gives_them_in_the_order_of_their_ends(self, in_thread) -> None:
        exchanges = [make_exchange() for _ in range(3)]
        futures = [exchange.future for exchange in exchanges]
        ordered = concurrent.futures.as_completed(futures, WAIT_S)
        got = []
        for at in (2, 0, 1):
            finish(exchanges[at])
            got.append(futures.index(next(ordered)))
        assert got == [2, 0, 1]

    def test_as_completed_gives_a_cancelled_one_when_the_loop_has_settled_it(self, pair) -> None:
        """L5: cancelled but not notified, it would be waited for without end."""
        exchange, future = pair
        future.cancel()
        obey_cancel(exchange)
        assert list(concurrent.futures.as_completed([future], WAIT_S)) == [future]

    def test_wait_returns_a_cancelled_one_when_the_loop_has_settled_it(self, pair, in_thread) -> None:
        """L5."""
        exchange, future = pair
        waiter = in_thread(lambda: wait([future], WAIT_S))
        future.cancel()
        obey_cancel(exchange)
        assert waiter.value().done == {future}


class TestCancelling:
    def test_it_is_never_running(self, pair) -> None:
        """cancel() would be refused from then on."""
        exchange, future = pair
        exchange.begin(1, 101.0)
        exchange.answer(make_answer(), 102.0)
        assert not future.running()
        assert future.cancel()

    def test_a_cancelled_future_raises_at_once(self, pair) -> None:
        _, future = pair
        future.cancel()
        with pytest.raises(CancelledError):
            future.result()

    def test_cancelling_wakes_who_waits(self, pair, in_thread) -> None:
        _, future = pair
        waiters = Waiters(future._condition)
        caller = in_thread(future.result)
        waiters.until_parked()
        future.cancel()
        with pytest.raises(CancelledError):
            caller.value()

    def test_a_resolved_one_is_not_cancelled(self, pair) -> None:
        exchange, future = pair
        finish(exchange)
        assert not future.cancel()
        assert not exchange.inbox.take()

    def test_a_cancel_that_races_with_the_settling_is_one_or_the_other(self, in_thread) -> None:
        """L5: never both, never neither, and the Future never raises InvalidStateError at the loop."""
        for _ in range(50):
            exchange = make_exchange()
            future = exchange.future
            canceller = in_thread(future.cancel)
            finish(exchange)
            assert canceller.value() == future.cancelled()
            assert future.done()

    def test_a_callback_that_cancels_another_request_may_run_on_the_loop(self, pair, loop_mark) -> None:
        exchange, future = pair
        other = make_exchange()
        future.add_done_callback(lambda done: other.future.cancel())
        finish(exchange)
        assert list(other.inbox.take()) == [Cancel(other)]


class TestAsyncio:
    """The future is made in one thread and awaited by an event loop, as `asyncio.wrap_future` allows."""

    def test_it_can_be_awaited(self, in_thread) -> None:
        async def main() -> bytes:
            exchange = make_exchange()
            wrapped = asyncio.wrap_future(exchange.future)
            in_thread(lambda: finish(exchange)).value()
            return (await asyncio.wait_for(wrapped, WAIT_S)).content

        assert asyncio.run(main()) == b"body"

    def test_its_error_is_raised_where_it_is_awaited(self) -> None:
        async def main() -> None:
            exchange = make_exchange()
            wrapped = asyncio.wrap_future(exchange.future)
            exchange.fail(ConnectionLost("gone"))
            exchange.settle()
            await asyncio.wait_for(wrapped, WAIT_S)

        with pytest.raises(ConnectionLost):
            asyncio.run(main())

    def test_cancelling_the_awaited_one_reaches_the_loop(self) -> None:
        async def main() -> Exchange:
            exchange = make_exchange()
            wrapped = asyncio.wrap_future(exchange.future)
            wrapped.cancel()
            with pytest.raises(asyncio.CancelledError):
                await wrapped
            return exchange

        exchange = asyncio.run(main())
        assert list(exchange.inbox.take()) == [Cancel(exchange)]


class TestSaidAgain:
    """L5: a loop that ran out of memory before it had said the outcome begins anew."""

    def test_it_goes_on_as_it_did(self, pair) -> None:
        _, future = pair
        assert future.set_running_or_notify_cancel()
        assert future.set_running_or_notify_cancel()
        future.set_exception(ConnectionLost("gone"))
        assert isinstance(future.exception(0), ConnectionLost)

    def test_or_not_at_all(self, pair, caplog) -> None:
        _, future = pair
        future.cancel()
        assert not future.set_running_or_notify_cancel()
        assert not future.set_running_or_notify_cancel()
        assert not caplog.records
