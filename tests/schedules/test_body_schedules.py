"""The pipes of bodies under every schedule: nobody waits for ever, no byte is lost, and its credit comes back once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from schedule_kit import FlagWakeup, finds, quiet, search, together

from hyperpool.errors import ConnectionLost, ResponseClosed
from hyperpool.handoff.body import BodyPipe, Piece, UploadPipe
from hyperpool.handoff.inbox import Inbox
from hyperpool.handoff.source import FedSource

# -- responses ---------------------------------------------------------------------------------------------------------


class Reader:
    """Reads a body to its end, or as far as it gets."""

    def __init__(self, kind: type[BodyPipe] = BodyPipe, *, step_bytes: int = 2) -> None:
        self.credited: list[int] = []
        self.pipe = kind(credit=self.credited.append, credit_step_bytes=step_bytes)
        self.read = b""
        self.error: BaseException | None = None

    def __call__(self) -> None:
        try:
            while piece := self.pipe.take():
                self.read += piece
        except (ConnectionLost, ResponseClosed) as error:
            self.error = error


def a_body_and_its_reader(kind: type[BodyPipe] = BodyPipe) -> None:
    reader = Reader(kind)

    def feed() -> None:
        reader.pipe.feed(b"ab")
        reader.pipe.feed(b"c")
        reader.pipe.finish([(b"x", b"1")])

    together(feed, reader)
    assert reader.read == b"abc" and reader.error is None
    assert reader.pipe.trailers == [(b"x", b"1")]
    assert sum(reader.credited) <= 3 and reader.pipe.buffered_bytes == 0


def a_body_that_fails_and_its_reader() -> None:
    reader = Reader()

    def feed() -> None:
        reader.pipe.feed(b"ab")
        reader.pipe.fail(ConnectionLost("lost"))

    together(feed, reader)
    assert reader.read == b"ab", "what came before an error is read before it"
    assert isinstance(reader.error, ConnectionLost)


def a_reader_whose_response_is_closed_by_others() -> None:
    reader, told = Reader(), []

    def close() -> None:
        told.append(reader.pipe.abandon())

    def feed() -> None:
        reader.pipe.feed(b"ab")
        reader.pipe.finish([])

    together(feed, reader, close, close)
    assert told.count(True) <= 1, "the stream is reset once"
    assert isinstance(reader.error, ResponseClosed) or reader.read == b"ab"


class WaitsWithoutLooking(BodyPipe):
    """Broken: whether to wait is decided before the lock is held."""

    def take(self) -> bytes:
        must_wait = not (self._chunks or self._ended)
        with self._cond:
            if must_wait:
                self._cond.wait()
            return self._take_locked()


class EndsSilently(BodyPipe):
    """Broken: the end of a body wakes nobody."""

    def finish(self, trailers: Any) -> None:
        with self._cond:
            self.trailers = trailers
            self._ended = True


def test_a_reader_gets_all_of_a_body_and_then_its_end() -> None:
    search(a_body_and_its_reader)


def test_a_reader_gets_what_came_before_an_error() -> None:
    search(a_body_that_fails_and_its_reader)


def test_closing_a_response_frees_its_reader_and_resets_once() -> None:
    search(a_reader_whose_response_is_closed_by_others)


@pytest.mark.parametrize("kind", [WaitsWithoutLooking, EndsSilently])
def test_the_search_finds_a_reader_that_waits_for_ever(kind: type[BodyPipe]) -> None:
    assert "deadlock" in str(finds(lambda: a_body_and_its_reader(kind)))


# -- uploads -----------------------------------------------------------------------------------------------------------


class Sender:
    """The loop's side of an upload: takes what is there, and sleeps until it is told of more."""

    def __init__(self) -> None:
        self.wakeup = FlagWakeup()
        self.inbox = Inbox(self.wakeup)
        self.sent = b""
        self.failure: BaseException | None = None

    def notify(self) -> None:
        self.inbox.put("UploadReady")

    def send(self, take: Callable[[int], Piece]) -> None:
        while True:
            piece = take(2)
            self.sent += piece.data
            self.failure = piece.failure
            if piece.last or piece.failure is not None:
                return
            if not piece.data:
                self.sleep()

    def sleep(self) -> None:
        if self.inbox.may_sleep():
            self.wakeup.wait()
        self.inbox.take(woken=self.wakeup.written)


def an_upload_through_a_small_pipe(kind: type[UploadPipe] = UploadPipe) -> None:
    sender = Sender()
    pipe = kind(capacity_bytes=2, notify=sender.notify)

    def feed() -> None:
        assert pipe.feed(b"abc") and pipe.feed(b"d") and pipe.feed(b"ef")
        pipe.finish()

    together(feed, lambda: sender.send(pipe.take))
    assert sender.sent == b"abcdef" and sender.failure is None


def an_upload_whose_iterable_raises() -> None:
    sender = Sender()
    pipe = UploadPipe(capacity_bytes=2, notify=sender.notify)

    def feed() -> None:
        pipe.feed(b"ab")
        pipe.fail(ValueError("of the caller"))

    together(feed, lambda: sender.send(pipe.take))
    assert isinstance(sender.failure, ValueError)


def an_upload_that_nobody_wants_any_more(kind: type[UploadPipe] = UploadPipe) -> None:
    sender = Sender()
    pipe = kind(capacity_bytes=2, notify=sender.notify)
    fed: list[bool] = []

    def feed() -> None:
        while not fed or fed[-1]:
            fed.append(pipe.feed(b"abc"))

    def take_and_go() -> None:
        pipe.take(2)
        pipe.abandon()

    together(feed, take_and_go)
    assert fed[-1] is False


class ForgetsTheFeeder(UploadPipe):
    """Broken: the feeder that waits for room is not told that nobody wants more."""

    def abandon(self) -> None:
        with self._cond:
            self._abandoned = True
            self._chunks.clear()


class SaysTooLateThatItWaits(UploadPipe):
    """Broken: that the loop waits for bytes is noted when the lock is free again."""

    def take(self, max_bytes: int) -> Piece:
        with self._cond:
            data = self._take_locked(max_bytes)
            last = self._ended and not self._chunks
        self._loop_waits = not (data or last)
        return Piece(data, last, self._failure)


def test_an_upload_arrives_whole_through_a_pipe_smaller_than_it() -> None:
    search(an_upload_through_a_small_pipe)


def test_a_loop_hears_of_an_iterable_that_raises() -> None:
    search(an_upload_whose_iterable_raises)


def test_a_feeder_returns_when_nobody_wants_more() -> None:
    search(an_upload_that_nobody_wants_any_more)


def test_the_search_finds_a_feeder_that_waits_for_ever() -> None:
    assert "deadlock" in str(finds(lambda: an_upload_that_nobody_wants_any_more(ForgetsTheFeeder)))


def test_the_search_finds_a_loop_that_is_not_told_of_bytes() -> None:
    assert "deadlock" in str(finds(lambda: an_upload_through_a_small_pipe(SaysTooLateThatItWaits)))


# -- bodies that are fed by hand ---------------------------------------------------------------------------------------


def a_fed_body_that_is_opened_meanwhile(kind: type[FedSource] = FedSource) -> None:
    sender, source = Sender(), kind(capacity_bytes=2)

    def feed() -> None:
        assert source.feed(b"ab") and source.feed(b"c")
        source.finish()

    def carry() -> None:
        sender.send(source.open(notify=sender.notify, capacity_bytes=2).take)

    together(feed, carry)
    assert sender.sent == b"abc"


def a_fed_body_whose_exchange_ends_before_it_begins() -> None:
    source = FedSource(capacity_bytes=2)
    fed: list[bool] = []

    def feed() -> None:
        while not fed or fed[-1]:
            fed.append(source.feed(b"abc"))
        source.finish()

    together(feed, source.abandon)
    assert fed[-1] is False


def a_source_that_two_requests_want() -> None:
    from hyperpool.errors import LocalProtocolError

    source, claimed = FedSource(), []
    claim = quiet(lambda: claimed.append(source.claim()), LocalProtocolError)
    together(claim, claim)
    assert len(claimed) == 1


class OpensAtItsFirstTake(FedSource):
    """Broken: the loop looks first, and says only then how it is to be told."""

    def open(self, *, notify: Callable[[], None], capacity_bytes: int) -> Any:
        outer, pipe = self, self._pipe

        class Looking:
            def take(self, max_bytes: int) -> Piece:
                piece = pipe.take(max_bytes)
                outer._notify = notify
                return piece

        return Looking()


def test_a_body_that_is_fed_before_during_and_after_its_opening_arrives_whole() -> None:
    search(a_fed_body_that_is_opened_meanwhile)


def test_feeding_ends_with_the_exchange() -> None:
    search(a_fed_body_whose_exchange_ends_before_it_begins)


def test_a_fed_source_belongs_to_one_request() -> None:
    search(a_source_that_two_requests_want)


def test_the_search_finds_a_source_that_says_too_late_how_it_is_told() -> None:
    assert "deadlock" in str(finds(lambda: a_fed_body_that_is_opened_meanwhile(OpensAtItsFirstTake)))
