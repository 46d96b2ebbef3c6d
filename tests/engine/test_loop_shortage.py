"""L5 where memory runs out, at whatever line of a turn: everybody is told, and nothing stays open.

Each scenario is prepared up to one turn with much to do. In that turn memory runs out at its first line, in the next
run a little later, and so on; and then once more while the loop tells everybody of its end.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from engine_bench import Bench, Call, HandFed

from hyperpool.errors import ConnectError
from hyperpool.handoff import inbox as inboxes
from hyperpool.handoff import messages
from hyperpool.handoff.inbox import until_there_is_memory
from shortage import Shortage

NOT_AT_ALL = -1
# Each line takes twice as long, and has found nothing more.
STRIDE = 2


class Prepared:
    """A bench before its turn, with all who wait for something."""

    def __init__(self, bench: Bench, *, fed: HandFed | None = None, streamed: tuple[Call, ...] = ()) -> None:
        self.bench = bench
        self.fed = fed
        self.pipes = [call.response.pipe for call in streamed]
        self.connected = bench.ask_for_connection()
        self.drained: list[bool] = []
        bench.submit("/late")
        bench.put(messages.Drain(lambda: self.drained.append(True)))

    def assert_all_are_told(self) -> None:
        loop = self.bench.loop
        assert all(call.done for call in self.bench.calls), [
            call.exchange for call in self.bench.calls if not call.done
        ]
        assert self.connected.done()
        assert self.drained
        assert all(pipe is not None and pipe.is_ready(lambda: None) for pipe in self.pipes)
        assert self.fed is None or not self.fed.pipe.feed(b"more"), "the feeder goes home"
        assert all(connection.transport.sock.fileno() < 0 for connection in self.bench.connections)
        with pytest.raises(inboxes.InboxClosed):
            loop.inbox.put("anything")


def a_failed_dial(bench: Bench) -> Prepared:
    bench.submit_many(2)
    bench.run()
    bench.fail_dial(ConnectError("nobody there"))
    return Prepared(bench)


def a_new_connection(bench: Bench) -> Prepared:
    bench.submit_many(2)
    bench.run()
    bench.connect_h2().flush()
    return Prepared(bench)


def much_on_http2(bench: Bench) -> Prepared:
    peer = bench.open_h2(MAX_CONCURRENT_STREAMS=5)
    answered, cancelled, refused = bench.submit_many(3)
    streamed, fed = bench.submit("/streamed", stream=True), HandFed()
    bench.submit("/upload", source=fed)
    bench.run()
    bench.submit("/queued")
    peer.head(streamed.stream_id)
    bench.run()
    peer.data(streamed.stream_id, b"body")
    peer.respond(answered.stream_id, body=b"body")
    peer.refuse(refused.stream_id)
    peer.flush()
    fed.pipe.feed(b"piece")
    cancelled.future.cancel()
    return Prepared(bench, fed=fed, streamed=(streamed,))


def a_lost_connection(bench: Bench) -> Prepared:
    prepared = much_on_http2(bench)
    bench.peers[0].close()
    return prepared


def a_close(bench: Bench) -> Prepared:
    prepared = much_on_http2(bench)
    bench.put(messages.Close(bench.clock.now))
    return prepared


SCENARIOS = (a_failed_dial, a_new_connection, much_on_http2, a_lost_connection, a_close)


def go_through(prepared: Prepared, first: Shortage, second: Shortage) -> None:
    """What `OriginLoop.run` does, with a shortage in the turn, and one in what follows from it."""
    bench = prepared.bench
    try:
        first.run(bench.step)
    except MemoryError as cause:
        until_there_is_memory(second.run, partial(bench.loop._crash, cause))
        bench.loop._release()
        bench.ended = True
        prepared.assert_all_are_told()
        bench._hold_to_the_laws = lambda: None  # type: ignore[method-assign] - an h2 that is left in a step is no ledger


@pytest.fixture(autouse=True)
def without_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inboxes, "MEMORY_AGAIN_S", 0.0)


def search(prepare: Callable[[Bench], Prepared], pairs: Any) -> None:
    for first_at, second_at in pairs:
        bench = Bench()
        first, second = Shortage(first_at), Shortage(second_at)
        try:
            go_through(prepare(bench), first, second)
        finally:
            bench.close()
        if not (first.struck and (second.struck or second_at == NOT_AT_ALL)):
            break
    assert first_at > 100 or second_at > 100


@pytest.mark.slow
@pytest.mark.parametrize("prepare", SCENARIOS)
def test_a_shortage_at_any_line_of_a_turn_leaves_nobody_waiting(prepare: Callable[[Bench], Prepared]) -> None:
    search(prepare, ((at, NOT_AT_ALL) for at in itertools.count(1, STRIDE)))


@pytest.mark.slow
@pytest.mark.parametrize("prepare", SCENARIOS)
@pytest.mark.parametrize("first_at", [1, 90])
def test_nor_does_a_second_one_while_everybody_is_told(prepare: Callable[[Bench], Prepared], first_at: int) -> None:
    search(prepare, ((first_at, at) for at in itertools.count(1, STRIDE)))
