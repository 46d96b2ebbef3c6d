"""BodyPipe: a response body between the loop and one reader, with every end it can have."""

from __future__ import annotations

import pytest
from handoff_kit import Waiters, open_pipe
from hypothesis import given, settings
from hypothesis import strategies as st

from hyperpool.errors import ConnectionLost, ResponseClosed
from hyperpool.handoff.body import BodyPipe
from hyperpool.protocol.ledger import ReceiveLedger

# On a busy machine an example may take long: that is no failure.
unhurried = settings(deadline=None)


def lost() -> ConnectionLost:
    return ConnectionLost("the server closed the connection", processed="maybe")


class TestReading:
    def test_pieces_come_in_order(self) -> None:
        pipe = open_pipe()
        pipe.feed(b"a")
        pipe.feed(b"b")
        assert [pipe.take(), pipe.take()] == [b"a", b"b"]

    def test_a_finished_body_ends_with_nothing_for_ever(self) -> None:
        pipe = open_pipe()
        pipe.finish([])
        assert [pipe.take(), pipe.take()] == [b"", b""]

    def test_what_was_fed_before_the_end_is_read_before_the_end(self) -> None:
        pipe = open_pipe()
        pipe.feed(b"a")
        pipe.finish([])
        assert [pipe.take(), pipe.take()] == [b"a", b""]

    def test_an_empty_piece_is_not_the_end(self) -> None:
        pipe = open_pipe()
        pipe.feed(b"")
        pipe.feed(b"a")
        assert pipe.take() == b"a"

    def test_trailers_come_with_the_end(self) -> None:
        pipe = open_pipe()
        pipe.finish([(b"x", b"1")])
        assert pipe.trailers == [(b"x", b"1")]

    def test_the_pipe_knows_what_waits(self) -> None:
        pipe = open_pipe()
        pipe.feed(b"abc")
        pipe.feed(b"de")
        pipe.take()
        assert pipe.buffered_bytes == 2

    def test_the_pipe_knows_whether_anybody_has_read(self) -> None:
        pipe = open_pipe()
        pipe.feed(b"a")
        assert not pipe.taken
        pipe.take()
        assert pipe.taken


class TestErrors:
    def test_an_error_comes_after_the_bytes_that_came_before_it(self) -> None:
        """M10: what arrived is not lost, and never looks complete."""
        pipe = open_pipe()
        pipe.feed(b"a")
        pipe.fail(lost())
        assert pipe.take() == b"a"
        with pytest.raises(ConnectionLost):
            pipe.take()

    def test_an_error_stays(self) -> None:
        """M10: the second read is no short success either."""
        pipe = open_pipe()
        pipe.fail(lost())
        for _ in range(2):
            with pytest.raises(ConnectionLost):
                pipe.take()

    def test_each_raise_has_an_instance_of_its_own(self) -> None:
        pipe = open_pipe()
        pipe.fail(error := lost())
        with pytest.raises(ConnectionLost) as first:
            pipe.take()
        with pytest.raises(ConnectionLost) as second:
            pipe.take()
        assert len({id(error), id(first.value), id(second.value)}) == 3

    def test_a_foreign_error_is_raised_as_it_is(self) -> None:
        pipe = open_pipe()
        pipe.fail(error := KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt) as caught:
            pipe.take()
        assert caught.value is error


class TestAbandoning:
    def test_an_abandoned_pipe_raises(self) -> None:
        pipe = open_pipe()
        pipe.feed(b"a")
        pipe.abandon()
        with pytest.raises(ResponseClosed):
            pipe.take()

    def test_abandoning_lets_the_memory_go(self) -> None:
        """L8."""
        pipe = open_pipe()
        pipe.feed(b"a")
        pipe.abandon()
        assert pipe.buffered_bytes == 0
        assert not pipe._chunks

    def test_what_still_comes_is_not_read(self) -> None:
        """The loop may feed until it has heard of the close."""
        pipe = open_pipe()
        pipe.abandon()
        pipe.feed(b"late")
        with pytest.raises(ResponseClosed):
            pipe.take()

    def test_the_peer_must_be_told_once(self) -> None:
        pipe = open_pipe()
        assert pipe.abandon()
        assert not pipe.abandon()

    def test_a_peer_that_has_finished_need_not_be_told(self) -> None:
        pipe = open_pipe()
        pipe.finish([])
        assert not pipe.abandon()

    def test_a_peer_that_has_failed_need_not_be_told(self) -> None:
        pipe = open_pipe()
        pipe.fail(lost())
        assert not pipe.abandon()


class TestWaiting:
    @pytest.fixture
    def waiting(self, in_thread):
        """A pipe, and the reader that waits on it."""
        pipe = open_pipe()
        waiters = Waiters(pipe._cond)
        reader = in_thread(pipe.take)
        waiters.until_parked()
        return pipe, reader

    def test_bytes_wake_the_reader(self, waiting) -> None:
        pipe, reader = waiting
        pipe.feed(b"a")
        assert reader.value() == b"a"

    def test_many_pieces_may_wake_the_reader_once(self) -> None:
        """A change of threads costs more than a piece."""
        pipe = open_pipe()
        woken: list[int] = []
        pipe._cond.notify = lambda: woken.append(pipe._buffered_bytes)
        for piece in (b"a", b"b", b""):
            pipe.feed(piece, wake=False)
        pipe.wake()
        assert woken == [2]

    def test_the_end_wakes_the_reader(self, waiting) -> None:
        pipe, reader = waiting
        pipe.finish([])
        assert reader.value() == b""

    def test_an_error_wakes_the_reader(self, waiting) -> None:
        """L5: whoever waits learns of it."""
        pipe, reader = waiting
        pipe.fail(lost())
        with pytest.raises(ConnectionLost):
            reader.value()

    def test_abandoning_wakes_the_reader(self, waiting) -> None:
        """L5: a close by another thread."""
        pipe, reader = waiting
        pipe.abandon()
        with pytest.raises(ResponseClosed):
            reader.value()

    def test_abandoning_wakes_every_reader(self, in_thread) -> None:
        """One reader is the rule; a second one must not hang for breaking it."""
        pipe = open_pipe()
        waiters = Waiters(pipe._cond)
        first = in_thread(pipe.take)
        waiters.until_parked()
        waiters.came.clear()
        second = in_thread(pipe.take)
        waiters.until_parked()
        pipe.abandon()
        for reader in (first, second):
            with pytest.raises(ResponseClosed):
                reader.value()


class TestCredit:
    def test_credit_is_given_when_a_step_is_full(self) -> None:
        """L8: stream credit on consumption, a step at a time."""
        given_back: list[int] = []
        pipe = open_pipe(given_back.append, step=4)
        for _ in range(5):
            pipe.feed(b"ab")
            pipe.take()
        assert given_back == [4, 4]

    def test_unread_bytes_give_no_credit(self) -> None:
        """L8: a slow reader stops its own stream."""
        given_back: list[int] = []
        pipe = open_pipe(given_back.append, step=1)
        pipe.feed(b"abc")
        assert given_back == []

    def test_one_piece_may_fill_several_steps(self) -> None:
        """L7: what is owed is given whole, not a step of it."""
        given_back: list[int] = []
        pipe = open_pipe(given_back.append, step=4)
        pipe.feed(b"0123456789")
        pipe.take()
        assert given_back == [10]

    def test_a_body_that_is_here_needs_no_more_credit(self) -> None:
        given_back: list[int] = []
        pipe = open_pipe(given_back.append, step=1)
        pipe.feed(b"abc")
        pipe.finish([])
        pipe.take()
        assert given_back == []

    def test_credit_is_said_outside_the_lock(self, in_thread) -> None:
        """Decide under the lock, act outside: the loop may feed meanwhile."""
        pipe: BodyPipe = open_pipe(lambda _: in_thread(lambda: pipe.feed(b"next")).value(), step=1)
        pipe.feed(b"a")
        assert [pipe.take(), pipe.buffered_bytes] == [b"a", 4]

    @unhurried
    @given(
        window=st.integers(65_535, 65_545) | st.just(1 << 17),
        pieces=st.lists(st.tuples(st.integers(1, 16_384), st.integers(0, 256)), max_size=60),
    )
    def test_a_reader_that_has_read_all_leaves_the_peer_some_credit(self, window, pieces) -> None:
        """L7, L8: pipe and ledger each hold back less than half a window, so together never a whole one: no deadlock.

        Each piece has its padding (RFC 9113 6.1), which is consumed at once, as `Http2Connection` does.
        """
        ledger = ReceiveLedger(window)
        pipe = open_pipe(ledger.consume, step=window // 2)
        for size, padding in pieces:
            size = min(size, ledger.left)
            padding = min(padding, ledger.left - size)
            ledger.receive(size + padding)
            ledger.consume(padding)
            pipe.feed(b"x" * size)
            pipe.take()
            ledger.take_credit()
            assert ledger.balanced
            assert ledger.left > 0
