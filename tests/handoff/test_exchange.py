"""Exchange: settled exactly once, on every path, and let go of in the same moment."""

from __future__ import annotations

import gc
import threading
import warnings
import weakref
from concurrent.futures import CancelledError

import pytest
from handoff_kit import ORIGIN, make_answer, make_exchange, make_head, make_request

from hyperpool.errors import ConnectionLost, LocalProtocolError, ReadTimeout, ResponseClosed, TotalTimeout
from hyperpool.handoff.exchange import PASSED_BODY_BYTES, Exchange, Resend, State
from hyperpool.handoff.messages import Cancel, Consumed, UploadReady
from hyperpool.handoff.source import BytesSource, FedSource, make_source
from hyperpool.values import Limits, Timeout


def opened(**changes: object) -> Exchange:
    exchange = make_exchange(**changes)
    exchange.begin(1, 101.0)
    return exchange


def answered(**changes: object) -> Exchange:
    exchange = opened(**changes)
    exchange.answer(make_answer(), 102.0)
    return exchange


def done(**changes: object) -> Exchange:
    exchange = answered(**changes)
    exchange.complete([], 103.0)
    return exchange


def lost() -> ConnectionLost:
    return ConnectionLost("gone", processed="maybe")


class TestSettlingOnce:
    """L5."""

    def test_a_whole_response_settles_the_future(self) -> None:
        exchange = answered()
        future = exchange.future
        exchange.feed(b"a")
        exchange.feed(b"b")
        exchange.complete([(b"x", b"1")], 103.0)
        exchange.settle()
        response = future.result()
        assert (response.content, response.trailers["x"]) == (b"ab", "1")

    def test_a_failure_settles_the_future(self) -> None:
        exchange = opened()
        future = exchange.future
        exchange.fail(error := lost())
        exchange.settle()
        assert future.exception() is error

    def test_deciding_is_not_settling(self) -> None:
        """L5: settle last in a step; callbacks must not run while streams are being walked."""
        exchange = opened()
        called: list[object] = []
        exchange.future.add_done_callback(called.append)
        exchange.fail(lost())
        assert not called

    def test_a_second_settle_does_nothing(self) -> None:
        """L5: an exchange that stands on two lists at the end of a step is settled once."""
        exchange = done()
        called: list[object] = []
        exchange.future.add_done_callback(called.append)
        exchange.settle()
        exchange.settle()
        assert len(called) == 1

    def test_an_undecided_exchange_is_not_settled(self) -> None:
        exchange = answered()
        future = exchange.future
        exchange.settle()
        assert not future.done()

    @pytest.mark.parametrize("streamed", [False, True])
    def test_no_end_comes_after_the_end(self, streamed: bool) -> None:
        """L5."""
        exchange = done(streamed=streamed)
        with pytest.raises(AssertionError, match="L5"):
            exchange.fail(lost())
        with pytest.raises(AssertionError, match="L5"):
            exchange.complete([], 104.0)

    def test_a_failed_exchange_fails_once(self) -> None:
        """L5."""
        exchange = opened()
        exchange.fail(lost())
        with pytest.raises(AssertionError, match="L5"):
            exchange.fail(lost())

    def test_where_there_was_no_memory_for_an_end_it_can_still_fail(self, monkeypatch) -> None:
        """L5."""
        exchange = opened()
        future = exchange.future
        with monkeypatch.context() as patch:
            patch.setattr(exchange, "pushes", _ShortOfMemory())
            with pytest.raises(MemoryError):
                exchange.fail(lost())
        exchange.fail(lost())
        exchange.settle()
        assert isinstance(future.exception(0), ConnectionLost)

    def test_where_there_was_no_memory_for_waking_the_waiter_it_can_still_be_woken(self, monkeypatch) -> None:
        """L5."""
        exchange = done()
        future = exchange.future
        with monkeypatch.context() as patch:
            patch.setattr(future, "set_result", _ShortOfMemory().end)
            with pytest.raises(MemoryError):
                exchange.settle()
        exchange.settle()
        assert future.result(0).status_code == 200
        assert exchange.future is None

    def test_a_review_for_which_there_was_no_memory_is_asked_again(self) -> None:
        """L5: a Future behind that of this exchange may depend on it."""
        exchange, asked = done(), []
        exchange.review = lambda *what: bool(asked.append(what) or (len(asked) > 1 or _ShortOfMemory().end()))
        with pytest.raises(MemoryError):
            exchange.settle()
        exchange.settle()
        assert len(asked) == 2 and exchange.future is None

    def test_a_review_that_fails_by_itself_is_not_asked_again(self) -> None:
        """L5."""
        exchange, asked = done(), []
        future = exchange.future

        def review(*what: object) -> bool:
            asked.append(what)
            raise ValueError("mine")

        exchange.review = review
        with pytest.raises(ValueError, match="mine"):
            exchange.settle()
        exchange.settle()
        assert len(asked) == 1 and future.result(0).status_code == 200

    def test_a_callback_that_ends_its_thread_leaves_nothing_to_settle(self) -> None:
        exchange = done()

        def leave(_: object) -> None:
            raise SystemExit

        exchange.future.add_done_callback(leave)
        with pytest.raises(SystemExit):
            exchange.settle()
        assert exchange.future is None

    def test_a_body_without_a_head_is_no_response(self) -> None:
        exchange = opened()
        with pytest.raises(AssertionError, match="L5"):
            exchange.complete([], 102.0)

    def test_only_a_queued_exchange_begins(self) -> None:
        """L9: what is on the wire is not written a second time."""
        exchange = opened()
        with pytest.raises(AssertionError):
            exchange.begin(3, 102.0)

    def test_only_an_open_exchange_is_answered(self) -> None:
        exchange = answered()
        with pytest.raises(AssertionError):
            exchange.answer(make_answer(), 103.0)

    def test_settled_while_waiters_wait_in_threads(self, in_thread) -> None:
        """L5 across threads: every waiter of one Future gets the one outcome."""
        exchange = done()
        future = exchange.future
        waiters = [in_thread(future.result) for _ in range(4)]
        exchange.settle()
        assert len({id(waiter.value()) for waiter in waiters}) == 1


class _ShortOfMemory:
    """Whatever is asked of it, there is no memory for."""

    def end(self, *_: object) -> None:
        raise MemoryError


class TestCancelled:
    def test_cancelling_reaches_the_loop(self) -> None:
        exchange = opened()
        assert exchange.future.cancel()
        assert list(exchange.inbox.take()) == [Cancel(exchange)]

    def test_cancelling_after_the_loop_has_ended_is_quiet(self) -> None:
        """L2: the loop has settled this exchange on its way out."""
        exchange = opened()
        exchange.inbox.close()
        assert exchange.future.cancel()

    def test_a_cancelled_future_is_notified_by_settling(self) -> None:
        """L5: done for wait() and as_completed() only then (DESIGN 5, concurrent.futures)."""
        exchange = opened()
        future = exchange.future
        future.cancel()
        exchange.fail(CancelledError())
        exchange.settle()
        assert future._state == "CANCELLED_AND_NOTIFIED"

    def test_a_response_that_lost_against_a_cancel_is_dropped(self) -> None:
        exchange = done()
        future = exchange.future
        future.cancel()
        exchange.settle()
        with pytest.raises(CancelledError):
            future.result()

    def test_a_streamed_response_that_lost_against_a_cancel_is_closed_without_a_warning(self) -> None:
        """L5, L7: nobody holds it, so its stream is reset by us, and nobody is blamed for forgetting it."""
        exchange = answered(streamed=True)
        exchange.future.cancel()
        exchange.inbox.take()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            exchange.settle()
            gc.collect()
        assert list(exchange.inbox.take()) == [Cancel(exchange)]

    def test_a_resolved_future_cannot_be_cancelled(self) -> None:
        exchange = done()
        future = exchange.future
        exchange.settle()
        assert not future.cancel()
        assert not exchange.inbox.take()


class TestStreamed:
    def test_it_is_settled_with_its_head(self) -> None:
        exchange = answered(streamed=True)
        future = exchange.future
        exchange.settle()
        with future.result() as response:
            assert response.status_code == 200
            assert exchange.state is State.ANSWERED

    def test_its_body_goes_to_its_reader(self) -> None:
        exchange = answered(streamed=True)
        future = exchange.future
        exchange.settle()
        consumed = exchange.feed(b"abc")
        exchange.complete([(b"x", b"1")], 103.0)
        response = future.result()
        assert (consumed, response.content, response.trailers["x"]) == (False, b"abc", "1")

    @pytest.mark.parametrize("streamed", [True, False])
    def test_its_reader_is_woken_once_for_all_pieces(self, streamed: bool) -> None:
        exchange = answered(streamed=streamed)
        future, called = exchange.future, list[int]()
        exchange.settle()
        if streamed:
            assert not future.result().pipe.is_ready(lambda: called.append(1))
        exchange.feed(b"a", wake=False)
        exchange.feed(b"b", wake=False)
        exchange.wake_reader()
        exchange.complete([], 103.0)
        assert called == [1] * streamed

    def test_its_end_settles_nothing_more(self) -> None:
        """L5."""
        exchange = answered(streamed=True)
        future = exchange.future
        called: list[object] = []
        future.add_done_callback(called.append)
        exchange.settle()
        exchange.complete([], 103.0)
        exchange.settle()
        assert len(called) == 1

    def test_its_failure_reaches_its_reader(self) -> None:
        """L5: after the Future the pipe is where the outcome goes."""
        exchange = answered(streamed=True)
        future = exchange.future
        exchange.settle()
        exchange.fail(lost())
        exchange.settle()
        with pytest.raises(ConnectionLost):
            future.result().read()

    def test_a_failure_in_the_same_step_leaves_the_response_to_the_future(self) -> None:
        """The head is here, and what came of the body; the reader gets both, then the error."""
        exchange = answered(streamed=True)
        future = exchange.future
        exchange.feed(b"abc")
        exchange.fail(lost())
        exchange.settle()
        response = future.result()
        assert response.read(3) == b"abc"
        with pytest.raises(ConnectionLost):
            response.read(1)

    def test_a_collected_body_is_consumed_at_once(self) -> None:
        """L8: nobody else will read it piece by piece, so its credit goes back on receipt."""
        assert answered().feed(b"abc")

    def test_reading_gives_credit_through_the_inbox(self) -> None:
        """L1, L8: the reader's thread touches no ledger; it says so, half a window at a time."""
        exchange = answered(streamed=True, limits=Limits(stream_window_bytes=65_536))
        future = exchange.future
        exchange.settle()
        exchange.feed(bytes(32_767))
        exchange.feed(b"x")
        with future.result() as response:
            response.read(32_767)
            assert not exchange.inbox.take()
            response.read(1)
            assert list(exchange.inbox.take()) == [Consumed(exchange, 32_768)]

    def test_unread_bytes_excuse_the_peer(self) -> None:
        """A reader that pauses is no ReadTimeout."""
        exchange = answered(streamed=True)
        exchange.feed(b"abc")
        exchange.complete([], 103.0)
        assert (exchange.unread_bytes, exchange.excused) == (3, True)

    def test_nothing_unread_excuses_nobody(self) -> None:
        exchange = answered()
        exchange.feed(b"abc")
        assert (exchange.unread_bytes, exchange.excused) == (0, False)

    def test_closing_early_reaches_the_loop(self) -> None:
        exchange = answered(streamed=True)
        future = exchange.future
        exchange.settle()
        future.result().close()
        assert list(exchange.inbox.take()) == [Cancel(exchange)]

    def test_a_closed_response_survives_what_still_comes(self) -> None:
        """The loop may feed, and end, what has been closed a moment ago."""
        exchange = answered(streamed=True)
        future = exchange.future
        exchange.settle()
        response = future.result()
        response.close()
        exchange.feed(b"late")
        exchange.fail(CancelledError())
        with pytest.raises(ResponseClosed):
            response.read()


class TestPassedBy:
    """A response that only leads on: nobody will read its body."""

    def answered(self, *, passes_by: bool = True) -> Exchange:
        exchange = opened()
        exchange.passes_by = lambda head: passes_by
        exchange.answer(make_answer(302), 102.0)
        return exchange

    def test_what_is_not_long_is_collected(self) -> None:
        exchange = self.answered()
        future = exchange.future
        exchange.feed(bytes(PASSED_BODY_BYTES))
        exchange.complete([], 103.0)
        exchange.settle()
        assert len(future.result().content) == PASSED_BODY_BYTES

    def test_what_is_long_settles_it_and_ends_it_on_the_wire(self) -> None:
        exchange = self.answered()
        future = exchange.future
        exchange.feed(bytes(PASSED_BODY_BYTES))
        exchange.feed(b"x")
        exchange.settle()
        assert list(exchange.inbox.take()) == [Cancel(exchange)]
        with pytest.raises(ResponseClosed):
            _ = future.result().content

    def test_what_is_read_is_read_however_long_it_is(self) -> None:
        exchange = self.answered(passes_by=False)
        exchange.feed(bytes(2 * PASSED_BODY_BYTES))
        assert not exchange.streamed


class TestForgotten:
    """A Response that nobody holds is found by its finalizer, since the exchange lets go of it in `settle`."""

    def test_it_warns_and_names_the_place_where_it_was_asked_for(self) -> None:
        """X8. Named is the caller's line: the finalizer's own says nothing."""
        exchange = answered(streamed=True)
        with pytest.warns(ResourceWarning, match=r"caller\.py:7"):
            exchange.settle()  # the Future, and with it the Response, has no other owner

    def test_its_stream_is_reset(self) -> None:
        """L5, X8: the slot is free again."""
        exchange = answered(streamed=True)
        with pytest.warns(ResourceWarning):
            exchange.settle()
        assert list(exchange.inbox.take()) == [Cancel(exchange)]

    def test_settling_drops_every_reference(self) -> None:
        """Kept by an exchange that the loop still walks, the Response could never be found forgotten."""
        exchange = answered(streamed=True)
        future = exchange.future
        exchange.settle()
        seen = weakref.ref(future.result())
        with pytest.warns(ResourceWarning):
            del future
        assert seen() is None
        assert exchange.future is None

    def test_one_that_was_read_to_its_end_is_nobodys_fault(self) -> None:
        exchange = answered(streamed=True)
        exchange.complete([], 103.0)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            exchange.settle()
        assert not exchange.inbox.take()

    def test_it_may_be_found_inside_a_put_of_the_same_thread(self) -> None:
        """The inbox's lock is re-entrant: a finalizer runs at any allocation."""
        exchange = answered(streamed=True)
        exchange.inbox.may_sleep()
        exchange.inbox._wakeup.on_wake = exchange.settle
        with pytest.warns(ResourceWarning):
            exchange.inbox.put("of the caller")
        assert list(exchange.inbox.take()) == ["of the caller", Cancel(exchange)]


class TestResending:
    def test_it_is_queued_again_and_remembers_why(self) -> None:
        """L9."""
        exchange = opened()
        exchange.requeue("REFUSED_STREAM", 104.0)
        assert (exchange.state, exchange.stream_id) == (State.QUEUED, None)
        assert exchange.resends == [Resend("REFUSED_STREAM", 4.0)]

    def test_the_response_tells_of_it(self) -> None:
        exchange = opened()
        exchange.requeue("REFUSED_STREAM", 104.0)
        exchange.begin(3, 105.0)
        exchange.answer(make_answer(), 106.0)
        exchange.complete([], 107.0)
        future = exchange.future
        exchange.settle()
        assert future.result().retries == (Resend("REFUSED_STREAM", 4.0),)

    @pytest.mark.parametrize("make", [make_exchange, answered, done])
    def test_only_an_open_exchange_goes_out_again(self, make) -> None:
        """L9: never after its headers were delivered."""
        exchange = make()
        with pytest.raises(AssertionError):
            exchange.requeue("GOAWAY", 104.0)

    def test_its_body_starts_anew(self) -> None:
        """L9: the second server gets the whole body, and the length check counts from nothing."""
        exchange = opened(source=BytesSource(b"abc"), head=make_head(3))
        exchange.request_body.take(2, where=exchange.where)
        exchange.requeue("GOAWAY", 104.0)
        exchange.begin(3, 105.0)
        piece = exchange.request_body.take(10, where=exchange.where)
        assert (bytes(piece.data), piece.last, piece.failure) == (b"abc", True, None)

    def test_the_first_runs_uploader_is_sent_home(self) -> None:
        exchange = opened(source=make_source([b"abc"]), head=make_head(None))
        upload = exchange.request_body.upload
        while not exchange.request_body.take(1, where=exchange.where).data:
            continue
        exchange.requeue("GOAWAY", 104.0)
        assert upload.feed(b"more") is False

    def test_without_a_body_it_is_replayable(self) -> None:
        assert make_exchange().replayable

    def test_with_a_body_that_comes_once_it_is_replayable_until_a_byte_of_that_has_left(self) -> None:
        """L9."""
        source = FedSource()
        exchange = opened(source=source, head=make_head(None))
        source.feed(b"a")
        before = exchange.replayable
        exchange.request_body.take(1, where=exchange.where)
        assert (before, exchange.replayable) == (True, False)

    def test_a_body_of_which_nothing_has_left_goes_on_where_it_is(self) -> None:
        """L9."""
        source = FedSource()
        exchange = opened(source=source, head=make_head(None))
        source.feed(b"a")
        source.finish()
        exchange.requeue("GOAWAY", 104.0)
        exchange.begin(3, 105.0)
        piece = exchange.request_body.take(10, where=exchange.where)
        assert (bytes(piece.data), piece.last) == (b"a", True)

    def test_an_upload_that_had_run_dry_is_no_excuse_in_the_queue(self) -> None:
        exchange = opened(source=FedSource(), head=make_head(None))
        exchange.request_body.starved = True
        exchange.requeue("GOAWAY", 104.0)
        assert not exchange.excused


class TestUploading:
    def test_a_streamed_upload_speaks_through_the_inbox(self) -> None:
        """L1: the uploader's thread touches no connection."""
        ready = threading.Event()
        exchange = make_exchange(source=make_source([b"abc"]), head=make_head(None))
        exchange.inbox.may_sleep()
        exchange.inbox._wakeup.on_wake = ready.set
        exchange.begin(1, 101.0)
        assert ready.wait(30)
        assert list(exchange.inbox.take()) == [UploadReady(exchange)]

    def test_a_body_as_long_as_declared_passes(self) -> None:
        exchange = opened(source=BytesSource(b"abc"), head=make_head(3))
        assert exchange.request_body.take(10, where=exchange.where).failure is None

    def test_a_body_of_unknown_length_passes(self) -> None:
        exchange = opened(source=BytesSource(b"abc"), head=make_head(None))
        assert exchange.request_body.take(10, where=exchange.where).failure is None

    @pytest.mark.parametrize("body", [b"ab", b"abcd"])
    def test_a_body_of_another_length_is_stopped(self, body: bytes) -> None:
        """RFC 9110 8.6: on HTTP/1.1 the next request would be read from the wrong place."""
        exchange = opened(source=BytesSource(body), head=make_head(3))
        piece = exchange.request_body.take(10, where=exchange.where)
        assert (piece.data, type(piece.failure)) == (b"", LocalProtocolError)
        assert f"{len(body)} bytes where 3 were declared" in str(piece.failure)

    def test_a_body_that_is_not_at_its_end_is_not_too_short(self) -> None:
        exchange = opened(source=BytesSource(b"abc"), head=make_head(3))
        assert exchange.request_body.take(2, where=exchange.where).failure is None

    def test_the_callers_own_failure_comes_before_the_length(self) -> None:
        exchange = opened(source=BytesSource(b""), head=make_head(3))
        exchange.request_body.upload = FailedUpload()
        assert isinstance(exchange.request_body.take(10, where=exchange.where).failure, OSError)

    @pytest.mark.parametrize("end", [lambda one: one.fail(lost()), lambda one: one.complete([], 103.0)])
    def test_every_end_sends_the_uploader_home(self, end) -> None:
        """L5."""
        exchange = answered(source=make_source([b"abc"]), head=make_head(None))
        upload = exchange.request_body.upload
        end(exchange)
        assert upload.feed(b"more") is False
        assert exchange.request_body.upload is None

    def test_an_upload_without_bytes_excuses_the_peer(self) -> None:
        exchange = opened(source=FedSource(), head=make_head(None))
        exchange.request_body.starved = True
        assert exchange.excused


class FailedUpload:
    """An upload whose source has raised."""

    def take(self, max_bytes: int):
        from hyperpool.handoff.body import Piece

        return Piece(b"", True, OSError("disk"))

    def abandon(self) -> None:
        """Nothing to let go."""


class TestWhereAndWhen:
    def test_queued_it_was_provably_not_processed(self) -> None:
        """L9."""
        assert make_exchange().where() == {"origin": ORIGIN, "stream_id": None, "processed": "no"}

    def test_on_the_wire_it_may_have_been(self) -> None:
        """L9."""
        assert opened().where() == {"origin": ORIGIN, "stream_id": 1, "processed": "maybe"}

    def test_it_waits_for_a_slot_first(self) -> None:
        assert make_exchange().deadlines.phase == "pool"

    def test_without_a_body_it_reads_next(self) -> None:
        assert opened().deadlines.phase == "read"

    def test_with_a_body_it_writes_next(self) -> None:
        assert opened(source=BytesSource(b"")).deadlines.phase == "write"

    def test_sent_back_it_waits_for_a_slot_again(self) -> None:
        exchange = opened()
        exchange.requeue("GOAWAY", 102.0)
        assert exchange.deadlines.phase == "pool"

    def test_its_timeout_error_says_what_was_asked_and_where(self) -> None:
        exchange = opened(request=make_request(timeout=Timeout(read=1.0)))
        error = exchange.timeout_error(102.0)
        assert type(error) is ReadTimeout
        assert (error.origin, error.stream_id, error.processed) == (ORIGIN, 1, "maybe")
        assert str(error).startswith(f"GET {ORIGIN}/x: ")

    def test_its_total_runs_from_submit(self) -> None:
        exchange = opened(request=make_request(timeout=Timeout(2.0)))
        assert type(exchange.timeout_error(102.0)) is TotalTimeout

    def test_elapsed_runs_to_the_end_of_a_whole_body(self) -> None:
        exchange = done()
        future = exchange.future
        exchange.settle()
        assert future.result().elapsed.total_seconds() == 3.0

    def test_elapsed_runs_to_the_head_of_a_streamed_body(self) -> None:
        exchange = answered(streamed=True)
        future = exchange.future
        exchange.settle()
        with future.result() as response:
            assert response.elapsed.total_seconds() == 2.0

    def test_a_password_in_the_url_is_shown_nowhere(self) -> None:
        exchange = opened(request=make_request(url="https://user:secret@a.test/x", timeout=Timeout(1.0)))
        assert "secret" not in repr(exchange) + str(exchange.timeout_error(102.0))

    def test_it_shows_its_state(self) -> None:
        assert repr(opened()) == f"<Exchange GET {ORIGIN}/x open stream=1>"
