"""UploadPipe and BytesUpload: a request body between the caller's code and a loop that never waits."""

from __future__ import annotations

import pytest
from handoff_kit import WAIT_S, Waiters
from hypothesis import given, settings
from hypothesis import strategies as st

from hyperpool.handoff.body import BytesUpload, UploadPipe

# On a busy machine an example may take long: that is no failure.
unhurried = settings(deadline=None)


class Bell:
    """Counts how often the loop was told."""

    def __init__(self) -> None:
        self.rung = 0

    def __call__(self) -> None:
        self.rung += 1


def make_pipe(capacity: int = 8) -> tuple[UploadPipe, Bell]:
    bell = Bell()
    return UploadPipe(capacity_bytes=capacity, notify=bell), bell


class TestTaking:
    def test_bytes_come_in_order_and_no_more_than_asked_for(self) -> None:
        pipe, _ = make_pipe(100)
        pipe.feed(b"abc")
        pipe.feed(b"de")
        assert [bytes(pipe.take(2).data) for _ in range(3)] == [b"ab", b"c", b"de"]

    def test_an_empty_pipe_is_not_the_end(self) -> None:
        pipe, _ = make_pipe()
        piece = pipe.take(10)
        assert (bytes(piece.data), piece.last) == (b"", False)

    def test_the_last_piece_says_so(self) -> None:
        pipe, _ = make_pipe()
        pipe.feed(b"abc")
        pipe.finish()
        assert [pipe.take(2).last, pipe.take(2).last] == [False, True]

    def test_an_empty_body_is_one_last_piece(self) -> None:
        pipe, _ = make_pipe()
        pipe.finish()
        assert pipe.take(10).last

    def test_a_shut_window_takes_nothing(self) -> None:
        """RFC 9113 6.9.2."""
        pipe, _ = make_pipe()
        pipe.feed(b"abc")
        pipe.finish()
        assert (bytes(pipe.take(0).data), bytes(pipe.take(10).data)) == (b"", b"abc")

    def test_a_failure_overtakes_the_bytes(self) -> None:
        """The request will be taken back: nothing behind it matters."""
        pipe, _ = make_pipe()
        pipe.feed(b"abc")
        pipe.fail(error := OSError("disk"))
        assert pipe.take(1).failure is error

    def test_wide_items_count_by_their_bytes(self) -> None:
        pipe, _ = make_pipe()
        pipe.feed(memoryview(bytes(8)).cast("I"))
        assert len(pipe.take(100).data) == 8


class TestNotifying:
    """The loop is told exactly when it had found the pipe empty: each message costs a turn."""

    def test_the_first_piece_is_told(self) -> None:
        pipe, bell = make_pipe()
        pipe.feed(b"a")
        assert bell.rung == 1

    def test_the_second_piece_is_not(self) -> None:
        pipe, bell = make_pipe()
        pipe.feed(b"a")
        pipe.feed(b"b")
        assert bell.rung == 1

    def test_a_loop_that_got_bytes_comes_back_by_itself(self) -> None:
        pipe, bell = make_pipe()
        pipe.feed(b"a")
        pipe.take(10)
        pipe.feed(b"b")
        assert bell.rung == 1

    def test_a_loop_that_found_nothing_is_told(self) -> None:
        """L3's like: forgotten, the upload would stay parked for ever."""
        pipe, bell = make_pipe()
        pipe.feed(b"a")
        pipe.take(10)
        pipe.take(10)
        pipe.feed(b"b")
        assert bell.rung == 2

    def test_a_loop_that_waits_for_a_window_is_not_told_of_more_bytes(self) -> None:
        """It has not found the pipe empty; told, it would call the pause progress, and no WriteTimeout would come."""
        pipe, bell = make_pipe()
        pipe.feed(b"a")
        pipe.take(0)
        pipe.feed(b"b")
        assert bell.rung == 1

    def test_a_loop_that_waits_for_a_window_is_told_of_a_failure(self) -> None:
        pipe, bell = make_pipe()
        pipe.feed(b"a")
        pipe.take(0)
        pipe.fail(OSError())
        assert bell.rung == 2

    @pytest.mark.parametrize("end", ["finish", "fail"])
    def test_the_end_is_told_to_a_loop_that_found_nothing(self, end: str) -> None:
        """L5: else the request would never be finished, nor taken back."""
        pipe, bell = make_pipe()
        pipe.take(10)
        getattr(pipe, end)(*([OSError()] if end == "fail" else []))
        assert bell.rung == 1

    def test_the_end_is_not_told_to_a_loop_that_will_come_anyway(self) -> None:
        pipe, bell = make_pipe()
        pipe.feed(b"a")
        pipe.finish()
        assert bell.rung == 1

    def test_taking_from_a_pipe_that_stays_full_wakes_no_feeder(self) -> None:
        pipe, _ = make_pipe(4)
        pipe.feed(b"12345678")
        pipe.take(1)
        assert pipe._buffered_bytes == 7

    def test_a_feeder_that_finishes_between_take_and_park_is_heard(self) -> None:
        """L3's like: the loop took nothing, and parks only after; the message must be on its way by then."""
        pipe, bell = make_pipe()
        parked: list[str] = []
        piece = pipe.take(10)
        pipe.finish()
        if not piece.data and not piece.last:
            parked.append("upload")
        assert parked
        assert bell.rung == 1

    def test_nothing_is_told_under_the_lock(self, in_thread) -> None:
        """Decide under the lock, act outside."""
        pipe = UploadPipe(capacity_bytes=8, notify=lambda: taken.append(in_thread(lambda: pipe.take(10)).value()))
        taken: list[object] = []
        pipe.feed(b"a")
        pipe.finish()
        assert len(taken) == 1

    @unhurried
    @given(st.lists(st.sampled_from(["feed", "take", "shut"]), max_size=50))
    def test_bytes_for_a_parked_loop_are_always_told(self, acts: list[str]) -> None:
        """L3's like, under any order of the two sides: a loop that went away empty-handed has been called back."""
        pipe, bell = make_pipe(1 << 20)
        heard = found_empty = False
        for act in acts:
            before = bell.rung
            if act == "feed":
                pipe.feed(b"ab")
                heard = heard or bell.rung > before
                assert heard or not found_empty
            else:
                was_empty = not pipe._chunks
                pipe.take(1 if act == "take" else 0)
                found_empty, heard = was_empty, False


class TestWaiting:
    @pytest.fixture
    def full(self, in_thread):
        """A full pipe, and the feeder that waits for room in it."""
        pipe, _ = make_pipe(4)
        pipe.feed(b"1234")
        waiters = Waiters(pipe._cond)
        feeder = in_thread(lambda: pipe.feed(b"5"))
        waiters.until_parked()
        return pipe, feeder

    def test_a_feeder_waits_while_the_pipe_is_full(self, full) -> None:
        pipe, feeder = full
        pipe.take(3)
        assert feeder.value() is True

    def test_a_feeder_is_not_woken_for_each_frame(self, full) -> None:
        """A change of threads costs more than a frame: it is woken when a quarter is left."""
        pipe, feeder = full
        woken: list[int] = []
        notify = pipe._cond.notify
        pipe._cond.notify = lambda: (woken.append(pipe._buffered_bytes), notify())
        for _ in range(4):
            pipe.take(1)
        feeder.value()
        assert woken == [1]

    @pytest.mark.parametrize("capacity", range(1, 6))
    def test_a_loop_that_finds_nothing_has_woken_the_feeder(self, capacity: int, in_thread) -> None:
        """L3's like: both would wait for ever."""
        pipe, _ = make_pipe(capacity)
        pipe.feed(bytes(capacity))
        waiters = Waiters(pipe._cond)
        feeder = in_thread(lambda: pipe.feed(b"5"))
        waiters.until_parked()
        pipe.take(capacity)
        assert feeder.value() is True

    def test_a_feeder_returns_when_the_pipe_is_abandoned(self, full) -> None:
        """L5: uploader threads end with their exchange."""
        pipe, feeder = full
        pipe.abandon()
        assert feeder.value() is False

    def test_memory_is_bounded_by_capacity_and_one_piece(self, full) -> None:
        pipe, feeder = full
        assert pipe._buffered_bytes == 4
        pipe.abandon()
        feeder.value()

    def test_a_feeder_that_comes_after_the_end_is_sent_home(self) -> None:
        pipe, bell = make_pipe()
        pipe.abandon()
        assert pipe.feed(b"a") is False
        assert bell.rung == 0

    def test_an_empty_piece_is_skipped(self) -> None:
        """On HTTP/1.1 an empty chunk would end the body (RFC 9112 7.1)."""
        pipe, bell = make_pipe()
        assert pipe.feed(b"") is True
        assert bell.rung == 0

    def test_an_endless_run_of_empty_pieces_ends_when_nobody_wants_more(self) -> None:
        pipe, _ = make_pipe()
        pipe.abandon()
        assert pipe.feed(b"") is False

    def test_abandoning_lets_the_memory_go(self) -> None:
        pipe, _ = make_pipe()
        pipe.feed(b"abc")
        pipe.abandon()
        assert bytes(pipe.take(10).data) == b""


@unhurried
@given(pieces=st.lists(st.binary(max_size=9)), steps=st.lists(st.integers(1, 12), min_size=1))
def test_what_goes_in_comes_out(pieces: list[bytes], steps: list[int]) -> None:
    pipe, _ = make_pipe(1 << 20)
    for piece in pieces:
        pipe.feed(piece)
    pipe.finish()
    got, at = [], 0
    while not got or not got[-1].last:
        got.append(pipe.take(steps[at % len(steps)]))
        at += 1
    assert b"".join(bytes(piece.data) for piece in got) == b"".join(pieces)


def test_two_threads_move_a_body_through_a_small_pipe(in_thread) -> None:
    """The whole dance: full, empty, told, parked, under real threads."""
    import threading

    ready = threading.Event()
    pipe = UploadPipe(capacity_bytes=64, notify=ready.set)
    body = bytes(range(256)) * 40

    def feed() -> None:
        for at in range(0, len(body), 50):
            pipe.feed(body[at : at + 50])
        pipe.finish()

    feeder = in_thread(feed)
    got, last = b"", False
    while not last:
        data, last, _ = pipe.take(37)
        got += data
        if not data and not last:
            assert ready.wait(WAIT_S)
            ready.clear()
    feeder.value()
    assert got == body


class TestBytesUpload:
    def test_it_gives_the_bytes_without_a_copy(self) -> None:
        body = b"abc"
        assert BytesUpload(body).take(2).data.obj is body

    def test_it_says_which_piece_is_the_last(self) -> None:
        upload = BytesUpload(b"abc")
        assert [upload.take(2), upload.take(2)] == [(b"ab", False, None), (b"c", True, None)]

    def test_an_abandoned_one_has_nothing_left(self) -> None:
        upload = BytesUpload(b"abc")
        upload.abandon()
        assert upload.take(9) == (b"", True, None)
