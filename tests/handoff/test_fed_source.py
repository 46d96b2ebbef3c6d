"""FedSource: a body that its owner feeds by hand, before the request goes out, while it does, and after its end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from handoff_kit import Thread, Waiters, make_answer, make_exchange, make_head

from hyperpool.errors import ConnectError, LocalProtocolError
from hyperpool.handoff.body import Piece
from hyperpool.handoff.exchange import Exchange
from hyperpool.handoff.messages import UploadReady
from hyperpool.handoff.source import FedSource, make_source


class Woken:
    """Counts how often the loop was told that there is something."""

    times = 0

    def __call__(self) -> None:
        self.times += 1


def opened(source: FedSource) -> tuple[Any, Woken]:
    woken = Woken()
    return source.open(notify=woken, capacity_bytes=1), woken


def exchange_with(source: FedSource, *, declared: int | None = None) -> Exchange:
    return make_exchange(source=make_source(source), head=make_head(declared))


def everything(upload: Any) -> bytes:
    got = b""
    while piece := upload.take(1 << 20).data:
        got += piece
    return got


class TestFeeding:
    def test_what_was_fed_before_the_request_went_out_is_there(self) -> None:
        source = FedSource()
        assert source.feed(b"one") and source.feed(b"two")
        source.finish()
        upload, woken = opened(source)
        assert everything(upload) == b"onetwo" and upload.take(1).last
        assert woken.times == 0, "the loop looks for itself first"

    def test_a_loop_that_found_nothing_is_woken_by_the_next_piece(self) -> None:
        source = FedSource()
        upload, woken = opened(source)
        assert upload.take(10) == Piece(b"", last=False)
        source.feed(b"a")
        source.feed(b"b")
        assert woken.times == 1 and everything(upload) == b"ab"
        source.finish()
        assert woken.times == 2 and upload.take(10).last

    def test_nothing_is_no_piece(self) -> None:
        source = FedSource()
        upload, woken = opened(source)
        assert source.feed(b"") and woken.times == 0
        upload.abandon()
        assert not source.feed(b"")

    def test_a_buffer_that_the_caller_fills_again_is_copied(self) -> None:
        source = FedSource()
        buffer = bytearray(b"first")
        source.feed(memoryview(buffer))
        buffer[:] = b"secon"
        buffer += b"d"  # which an export of the buffer would forbid
        source.feed(buffer)
        assert everything(opened(source)[0]) == b"firstsecond"

    @pytest.mark.parametrize("piece", ["text", 5])
    def test_what_is_no_bytes_is_refused_where_it_is_fed(self, piece: Any) -> None:
        source = FedSource()
        with pytest.raises(LocalProtocolError, match=type(piece).__name__):
            source.feed(piece)
        assert source.feed(b"goes on")

    def test_to_feed_from_an_io_thread_is_refused_at_once(self, loop_mark: None) -> None:
        """L11: the pipe might be full, and this is the thread that would empty it."""
        with pytest.raises(RuntimeError, match="I/O thread"):
            FedSource().feed(b"a")

    def test_a_failure_takes_the_request_back(self) -> None:
        source = FedSource()
        source.feed(b"half")
        source.fail(error := OSError("disk"))
        assert opened(source)[0].take(10).failure is error

    def test_a_failure_wakes_the_loop_although_bytes_are_waiting(self) -> None:
        source = FedSource()
        upload, woken = opened(source)
        source.feed(b"half")
        woken.times = 0
        source.fail(OSError("disk"))
        assert woken.times == 1 and upload.take(10).failure is not None


class TestBlocking:
    def test_the_feeder_waits_while_the_pipe_is_full(self, in_thread: Callable[..., Thread]) -> None:
        source = FedSource(capacity_bytes=4)
        waiters = Waiters(source._pipe._cond)
        source.feed(b"full")
        feeder = in_thread(lambda: source.feed(b"more"))
        waiters.until_parked()
        upload, _ = opened(source)
        assert bytes(upload.take(4).data) == b"full"
        assert feeder.value() is True and bytes(upload.take(4).data) == b"more"

    @pytest.mark.parametrize("is_open", [False, True])
    def test_the_end_of_the_exchange_releases_a_feeder_that_waits(
        self, in_thread: Callable[..., Thread], is_open: bool
    ) -> None:
        """L5: also where no connection was made, so that nobody ever opened it."""
        source = FedSource(capacity_bytes=4)
        exchange = exchange_with(source)
        if is_open:
            exchange.begin(1, 101.0)
        waiters = Waiters(source._pipe._cond)
        source.feed(b"full")
        feeder = in_thread(lambda: source.feed(b"more"))
        waiters.until_parked()
        exchange.fail(ConnectError("refused"))
        assert feeder.value() is False and source.feed(b"still") is False

    def test_a_response_before_the_end_of_the_body_releases_the_feeder(self, in_thread: Callable[..., Thread]) -> None:
        source = FedSource(capacity_bytes=4)
        exchange = exchange_with(source)
        exchange.begin(1, 101.0)
        waiters = Waiters(source._pipe._cond)
        source.feed(b"full")
        feeder = in_thread(lambda: source.feed(b"more"))
        waiters.until_parked()
        exchange.answer(make_answer(413), 102.0)
        exchange.complete([], 103.0)
        assert feeder.value() is False

    def test_what_comes_after_the_end_is_nobodys_and_harms_nobody(self) -> None:
        source = FedSource()
        source.abandon()
        assert not source.feed(b"late")
        source.finish()
        source.fail(OSError("later"))
        source.abandon()


class TestOneRequest:
    def test_its_length_is_what_its_owner_says(self) -> None:
        assert (FedSource().length_bytes, FedSource(length_bytes=7).length_bytes) == (None, 7)

    def test_it_is_the_body_of_one_request(self) -> None:
        """A second one would let go of the pipe from which the first is sent, and that would wait for ever."""
        source = FedSource()
        assert make_source(source) is source
        with pytest.raises(LocalProtocolError, match="make a new one"):
            make_source(source)
        assert source.feed(b"the first goes on")

    def test_until_it_is_opened_it_can_be_sent(self) -> None:
        """L9: a request that waits, or that was never written, has lost nothing."""
        source = FedSource()
        source.feed(b"waiting")
        assert source.replayable
        opened(source)
        assert not source.replayable
        with pytest.raises(AssertionError, match="L9"):
            opened(source)

    def test_a_request_that_is_given_back_lets_its_feeder_go(self) -> None:
        source = FedSource()
        exchange = exchange_with(source)
        exchange.begin(1, 101.0)
        source.feed(b"gone")
        exchange.request_body.take(10, where=exchange.where)
        assert not exchange.replayable
        exchange.requeue("GOAWAY", 102.0)  # which the loop does not do where it is not replayable
        assert not source.feed(b"more")

    def test_the_loop_is_told_through_the_exchange(self) -> None:
        source = FedSource()
        exchange = exchange_with(source)
        exchange.begin(1, 101.0)
        assert exchange.request_body.take(10, where=exchange.where) == Piece(b"", last=False)
        source.feed(b"a")
        assert exchange.inbox is not None
        assert [type(message) for message in exchange.inbox.take()] == [UploadReady]

    @pytest.mark.parametrize("fed", [b"ab", b"abcd"])
    def test_a_body_of_another_length_than_was_declared_fails(self, fed: bytes) -> None:
        source = FedSource(length_bytes=3)
        exchange = exchange_with(source, declared=3)
        exchange.begin(1, 101.0)
        source.feed(fed)
        source.finish()
        piece = exchange.request_body.take(10, where=exchange.where)
        assert isinstance(piece.failure, LocalProtocolError) and "3 were declared" in str(piece.failure)


@pytest.mark.parametrize("content", [b"bytes", [b"pieces"]])
def test_other_bodies_have_nothing_to_let_go_of(content: Any) -> None:
    source = make_source(content)
    assert source is not None
    source.abandon()
    assert source.replayable
