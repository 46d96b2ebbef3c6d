"""Window managers: code of the caller that decides about credit, on the loop thread.

Whatever such code does, L7 holds (the bench looks), its own stream or connection is all that it can harm, and the
error says whose fault it was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import pytest
from engine_bench import CANCEL, NO_ERROR, Bench, Call, H2Peer
from hyperframe.frame import RstStreamFrame, WindowUpdateFrame

from hyperpool.engine.connection import Life
from hyperpool.engine.http2 import Http2Connection
from hyperpool.errors import LocalProtocolError, ReadTimeout
from hyperpool.handoff import messages
from hyperpool.values import Limits, Timeout

MakeBench = Callable[..., Bench]
Says = Callable[[int], Any]
CONNECTION_BYTES = Limits().connection_window_bytes
STREAM_BYTES = Limits().stream_window_bytes


def of_streams(says: Says, *, of_connection: Says = lambda frame_bytes: frame_bytes) -> type:
    """A manager class: what it says to each frame of a stream, and of the connection."""

    class Manager:
        made: ClassVar[list[Any]] = []

        def __init__(self, window_bytes: int) -> None:
            self.window_bytes = window_bytes
            self.document_size: int | None = None
            self.heard: list[int] = []
            self.made.append(self)

        def _handle_frame(self, frame_size: int) -> Any:
            self.heard.append(frame_size)
            return (of_connection if self is self.made[0] else says)(frame_size)

    return Manager


def fails(error: BaseException) -> Says:
    def say(_: int) -> Any:
        raise error

    return say


def once(*values: Any) -> Says:
    """These answers, and then zero."""
    left: Iterator[Any] = iter(values)
    return lambda _: next(left, 0)


def managed(make_bench: MakeBench, manager: type, **options: Any) -> tuple[Bench, H2Peer, Call]:
    bench = make_bench(route={"window_manager": manager}, max_connections_per_origin=1)
    peer, call = bench.open_h2(), bench.submit(**options)
    bench.run()
    return bench, peer, call


def granted(peer: H2Peer, stream_id: int) -> list[int]:
    """Credit that came after the first, which opens the connection's window."""
    updates = [frame.window_increment for frame in peer.heard(WindowUpdateFrame) if frame.stream_id == stream_id]
    return updates if stream_id else updates[1:]


# -- what a manager is told, and what comes of its answers -------------------------------------------------------------


def test_there_is_one_for_the_connection_and_one_for_each_stream(make_bench: MakeBench) -> None:
    manager = of_streams(lambda frame_bytes: frame_bytes)
    bench, _, _ = managed(make_bench, manager)
    bench.submit()
    bench.run()
    assert [one.window_bytes for one in manager.made] == [CONNECTION_BYTES, STREAM_BYTES, STREAM_BYTES]  # type: ignore[attr-defined]


def test_it_hears_of_every_frame_and_its_answers_are_the_credit(make_bench: MakeBench) -> None:
    manager = of_streams(once(7, 11), of_connection=once(100, 200))
    bench, peer, call = managed(make_bench, manager)
    peer.head(1)
    peer.data(1, b"x" * 1000)
    peer.data(1, b"x" * 500)
    bench.run()
    assert [one.heard for one in manager.made] == [[1000, 500], [1000, 500]]  # type: ignore[attr-defined]
    assert (granted(peer, 1), granted(peer, 0)) == ([7, 11], [100, 200])
    peer.data(1, end=True)
    bench.run()
    assert len(call.response.content) == 1500


def test_of_a_streamed_body_the_stream_hears_when_it_is_read(make_bench: MakeBench) -> None:
    # L8
    manager = of_streams(lambda frame_bytes: frame_bytes)
    bench, peer, call = managed(make_bench, manager, stream=True)
    peer.head(1)
    peer.data(1, b"x" * 10)
    peer.data(1, b"y" * 20)
    bench.run()
    connection, stream = manager.made  # type: ignore[attr-defined]
    assert (connection.heard, stream.heard) == ([10, 20], [])
    call.read()
    bench.run()
    assert stream.heard == [10, 20] and granted(peer, 1) == [10, 20]


def test_padding_is_heard_of_at_once_and_the_rest_when_it_is_read(make_bench: MakeBench) -> None:
    # RFC 9113 6.1: padding and the byte that tells its length
    manager = of_streams(lambda frame_bytes: frame_bytes)
    bench, peer, call = managed(make_bench, manager, stream=True)
    peer.head(1)
    peer.data(1, b"x" * 10, pad_bytes=5)
    bench.run()
    assert manager.made[1].heard == [6]  # type: ignore[attr-defined]
    call.read()
    bench.run()
    assert manager.made[1].heard == [6, 10] and granted(peer, 1) == [6, 10]  # type: ignore[attr-defined]


def test_it_is_told_the_length_that_the_response_declares(make_bench: MakeBench) -> None:
    manager = of_streams(lambda frame_bytes: frame_bytes)
    bench, peer, _ = managed(make_bench, manager)
    bench.submit()
    bench.run()
    peer.head(1, fields=[("content-length", "1500")])
    peer.head(3)
    bench.run()
    assert [one.document_size for one in manager.made] == [None, 1500, None]  # type: ignore[attr-defined]


def test_a_window_may_be_narrowed_to_nothing_and_opened_again(make_bench: MakeBench) -> None:
    answers = iter([0, 0, 0, STREAM_BYTES])
    bench, peer, call = managed(make_bench, of_streams(lambda _: next(answers)), stream=True)
    peer.head(1)
    for _ in range(3):
        peer.data(1, b"x" * 10_000)
        bench.run()
        call.read()
        bench.run()
    assert granted(peer, 1) == [] and peer.stream_credit[1] == STREAM_BYTES - 30_000
    assert peer.fill_window(1) == STREAM_BYTES - 30_000
    bench.run()
    next(call.pieces)  # type: ignore[arg-type]
    bench.run()
    assert granted(peer, 1) == [STREAM_BYTES]


def test_a_window_may_be_widened_past_its_beginning(make_bench: MakeBench) -> None:
    bench, peer, call = managed(make_bench, of_streams(once(10 * STREAM_BYTES)), stream=True)
    peer.head(1)
    peer.data(1, b"x")
    bench.run()
    call.read()
    bench.run()
    assert peer.fill_window(1) == 11 * STREAM_BYTES - 1
    bench.run()
    assert call.exchange.unread_bytes == 11 * STREAM_BYTES - 1
    call.response.close()
    bench.run()


def test_a_stream_that_gets_no_credit_times_out_alone(make_bench: MakeBench) -> None:
    starving = of_streams(lambda _: 0)
    bench, peer, call = managed(make_bench, starving, timeout=Timeout(read=5))
    other = bench.submit("/other")
    bench.run()
    peer.head(1)
    peer.fill_window(1)
    bench.run()
    assert peer.stream_credit[1] == 0
    bench.advance(4)
    peer.respond(3, body=b"fine")
    bench.run()
    assert other.response.content == b"fine"
    bench.advance(1)
    assert isinstance(call.error, ReadTimeout)


def test_a_connection_that_gets_no_credit_starves_all_its_streams(make_bench: MakeBench) -> None:
    manager = of_streams(lambda frame_bytes: frame_bytes, of_connection=lambda _: 0)
    bench = make_bench(route={"window_manager": manager}, connection_window_bytes=65_535)
    peer, call = bench.open_h2(), bench.submit(timeout=Timeout(read=5))
    bench.run()
    peer.head(1)
    assert peer.fill_window(1) == 65_535
    bench.run()
    assert peer.connection_credit == 0
    bench.advance(5)
    assert isinstance(call.error, ReadTimeout)


@pytest.mark.parametrize("said", [-1, -(2**40), 0, 0.0, 0.9, False])
def test_an_answer_of_nothing_or_less_grants_nothing(make_bench: MakeBench, said: Any) -> None:
    bench, peer, call = managed(make_bench, of_streams(lambda _: said))
    peer.respond(1, body=b"body")
    bench.run()
    assert call.response.content == b"body" and granted(peer, 1) == []


@pytest.mark.parametrize(("said", "credit"), [(2.9, 2), (True, 1), ("5", 5)])
def test_an_answer_is_taken_as_a_number(make_bench: MakeBench, said: Any, credit: int) -> None:
    bench, peer, _ = managed(make_bench, of_streams(once(said)))
    peer.head(1)
    peer.data(1, b"x")
    bench.run()
    assert granted(peer, 1) == [credit]


def test_what_the_caller_does_not_read_is_the_managers_business_no_more(make_bench: MakeBench) -> None:
    manager = of_streams(lambda frame_bytes: frame_bytes)
    bench, peer, call = managed(make_bench, manager, stream=True)
    peer.head(1)
    peer.data(1, b"x" * 1000)
    bench.run()
    call.response.close()
    bench.run()
    assert manager.made[1].heard == []  # type: ignore[attr-defined]
    peer.data(1, b"in flight")
    bench.run()
    assert len(bench.connections) == 1


# -- managers that fail ------------------------------------------------------------------------------------------------

FAILURES: dict[str, Says] = {
    "raises": fails(ZeroDivisionError("mine")),
    "wants to exit": fails(SystemExit(3)),
    "is interrupted": fails(KeyboardInterrupt()),
    "None": lambda _: None,
    "words": lambda _: "many",
    "no number": lambda _: float("nan"),
    "infinity": lambda _: float("inf"),
    "past the largest window": lambda _: 2**31,
    "past every number": lambda _: 10**400,
}


@pytest.mark.parametrize("says", FAILURES.values(), ids=FAILURES.keys())
@pytest.mark.parametrize("streamed", [False, True])
def test_a_streams_manager_that_fails_ends_its_stream_alone(make_bench: MakeBench, says: Says, streamed: bool) -> None:
    answers = iter([says])  # to the first stream that is asked

    def say(frame_bytes: int) -> Any:
        return next(answers, lambda same: same)(frame_bytes)

    manager = of_streams(say)
    bench, peer, call = managed(make_bench, manager, stream=streamed)
    other = bench.submit("/other")
    bench.run()
    peer.head(1)
    peer.data(1, b"x")
    bench.run()
    if streamed:
        assert call.read() == b"x"
        bench.run()
    with pytest.raises(LocalProtocolError, match="window manager") as caught:
        call.future.result(0).read()
    assert (caught.value.stream_id, caught.value.origin) == (1, "https://a.test")
    peer.data(1, b"in flight", end=True)
    peer.respond(3, body=b"fine")
    bench.run()
    assert other.response.content == b"fine" and peer.goaway is None
    assert [frame.error_code for frame in peer.heard(RstStreamFrame)] == [CANCEL]


@pytest.mark.parametrize("says", FAILURES.values(), ids=FAILURES.keys())
def test_a_connections_manager_that_fails_ends_its_connection_and_nothing_else(
    make_bench: MakeBench, says: Says
) -> None:
    manager = of_streams(lambda frame_bytes: frame_bytes, of_connection=says)
    bench, peer, call = managed(make_bench, manager)
    other = bench.submit("/other")
    bench.run()
    other.future.add_done_callback(lambda _: bench.submit("/next"))
    peer.head(1)
    peer.data(1, b"x")
    peer.go_away(3)  # what comes behind it in the same read changes nothing (L10)
    peer.data(1, b"x", end=True)
    bench.run()
    assert peer.eof and bench.dialer.started == 2
    for found in (call.error, other.error):
        assert type(found) is LocalProtocolError and "window manager" in str(found)
    assert call.error is not other.error and call.error.processed == "maybe"
    bench.dialer.cancel()
    bench.run()


def test_a_failed_manager_is_asked_no_more(make_bench: MakeBench) -> None:
    manager = of_streams(lambda same: same, of_connection=fails(ValueError("mine")))
    bench, peer, _ = managed(make_bench, manager)
    peer.head(1)
    for _ in range(5):
        peer.data(1, b"x")
    bench.run()
    assert manager.made[0].heard == [1]  # type: ignore[attr-defined]


class RefusesLength:
    """A manager that can be told nothing."""

    def __init__(self, window_bytes: int) -> None: ...

    @property
    def document_size(self) -> int | None:
        return None

    @document_size.setter
    def document_size(self, value: int | None) -> None:
        raise ValueError("not my business")

    def _handle_frame(self, frame_size: int) -> int:
        return frame_size


@pytest.mark.parametrize("streamed", [False, True])
def test_a_manager_that_refuses_the_length_ends_its_stream_alone(make_bench: MakeBench, streamed: bool) -> None:
    bench, peer, call = managed(make_bench, RefusesLength, stream=streamed)
    peer.head(1)
    bench.run()
    with pytest.raises(LocalProtocolError, match="not my business"):
        call.future.result(0).read()
    assert bench.connections[0].life is Life.OPEN and peer.seen[1].reset_code == CANCEL


class FailsOnTheNth:
    """Cannot be made more often than so."""

    left = 0

    def __init__(self, window_bytes: int) -> None:
        type(self).left -= 1
        if type(self).left < 0:
            raise OSError("no more of these")
        self.document_size: int | None = None

    def _handle_frame(self, frame_size: int) -> int:
        return frame_size


def made_at_most(count: int) -> type:
    return type("FailsOnTheNth", (FailsOnTheNth,), {"left": count})


def test_a_manager_that_cannot_be_made_for_the_connection_is_a_failed_dial(make_bench: MakeBench) -> None:
    bench = make_bench(route={"window_manager": made_at_most(0)})
    call, connected = bench.submit(), bench.ask_for_connection()
    bench.run()
    peer = bench.connect_h2()
    bench.run()
    for error in (call.error, connected.exception(0)):
        assert type(error) is LocalProtocolError and "no more of these" in str(error)
    assert call.error.processed == "no" and peer.eof and bench.ended


def test_a_manager_that_cannot_be_made_for_a_stream_fails_that_request_unsent(make_bench: MakeBench) -> None:
    bench = make_bench(route={"window_manager": made_at_most(2)})
    peer = bench.open_h2()
    first, second = bench.submit("/first"), bench.submit("/second")
    bench.run()
    assert type(second.error) is LocalProtocolError and second.error.processed == "no"
    assert peer.paths == ["/first"]
    peer.respond(1)
    bench.run()
    assert first.response.ok


def test_a_manager_that_cannot_be_made_for_a_push_refuses_the_push(make_bench: MakeBench) -> None:
    bench = make_bench(route={"window_manager": made_at_most(2), "push": True})
    peer, call = bench.open_h2(), bench.submit()
    bench.run()
    peer.promise(1, 2)
    bench.run()
    peer.respond(2, body=b"in flight")
    peer.respond(1)
    bench.run()
    assert call.response.ok and call.pushes == [] and peer.seen[2].reset_code == CANCEL


@pytest.mark.parametrize("made", [0, 1])
def test_a_manager_that_cannot_be_made_after_an_upgrade_fails_the_request(make_bench: MakeBench, made: int) -> None:
    bench = make_bench(url="http://a.test", route={"window_manager": made_at_most(made), "upgrade": True})
    offering, call = bench.open_h1(), bench.submit()
    bench.run()
    peer = bench.switch(offering)
    peer.greet()
    bench.run()
    assert type(call.error) is LocalProtocolError and call.error.processed == "maybe" and peer.eof


def test_a_pushed_stream_has_a_manager_too(make_bench: MakeBench) -> None:
    manager = of_streams(lambda frame_bytes: frame_bytes)
    bench = make_bench(route={"window_manager": manager, "push": True})
    peer, call = bench.open_h2(), bench.submit()
    bench.run()
    peer.promise(1, 2)
    peer.head(2, fields=[("content-length", "5")])
    peer.data(2, b"12345")
    bench.run()
    (push,) = call.pushes
    pieces = push.future.result(0).iter_raw()
    assert next(pieces) == b"12345"
    bench.run()
    assert (manager.made[2].document_size, manager.made[2].heard) == (5, [5])  # type: ignore[attr-defined]
    push.future.result(0).close()
    bench.run()
    assert peer.seen[2].reset_code == CANCEL


def test_a_manager_that_fails_as_its_response_ends_is_an_error_still(make_bench: MakeBench) -> None:
    bench, peer, call = managed(make_bench, of_streams(fails(ValueError("mine"))))
    peer.respond(1, body=b"x")
    bench.run()
    assert type(call.error) is LocalProtocolError and bench.connections[0].load == 0
    assert isinstance(bench.connections[0], Http2Connection)
    bench.put(messages.Close(bench.clock.now))
    bench.run()
    assert peer.goaway is not None and peer.goaway.error_code == NO_ERROR
