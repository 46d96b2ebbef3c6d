"""What a loop and its connections still hold of the exchanges that they have carried: nothing that adds up."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from engine_bench import Bench, H2Peer

from holdings import held_by
from hyperpool.protocol import h2_machine, h2_quick

# Timers and resets fill what they may before nothing grows any more.
FEW, MANY = 100, 150
# Numbers that have grown are objects of their own; streams that were reset wait to be swept. One object for each
# exchange would be `MANY`.
SLACK = 50


def answered(bench: Bench, peer: H2Peer) -> None:
    call = bench.submit("/")
    bench.run()
    peer.respond(call.stream_id, body=b"body")
    bench.run()
    assert call.response.content == b"body"


def streamed(bench: Bench, peer: H2Peer) -> None:
    call = bench.submit("/", stream=True)
    bench.run()
    peer.respond(call.stream_id, body=b"body")
    bench.run()
    assert call.read() == b"body"
    bench.run()


def uploaded(bench: Bench, peer: H2Peer) -> None:
    call = bench.submit("/", content=b"upload")
    bench.run()
    peer.respond(call.stream_id)
    bench.run()
    assert call.response.status_code == 200


def cancelled(bench: Bench, peer: H2Peer) -> None:
    call = bench.submit("/")
    bench.run()
    assert call.future.cancel()
    bench.run()
    peer.pong()
    bench.run()


def refused_for_good(bench: Bench, peer: H2Peer) -> None:
    call = bench.submit("/")
    bench.run()
    peer.refuse(call.stream_id, 11)
    bench.run()
    assert call.error is not None


WAYS = (answered, streamed, uploaded, cancelled, refused_for_good)


@pytest.mark.slow
@pytest.mark.parametrize("go", WAYS)
def test_what_a_loop_holds_does_not_grow_with_the_exchanges_that_it_has_carried(
    bench: Bench, go: Callable[[Bench, H2Peer], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(h2_machine, "MAX_RESETS_KNOWN", FEW // 2)
    monkeypatch.setattr(h2_quick, "_SWEEP_AT", 4)
    peer = bench.open_h2()
    for _ in range(FEW):
        go(bench, peer)
    early = held_by(bench.loop)
    for _ in range(MANY):
        go(bench, peer)
    assert held_by(bench.loop) <= early + SLACK


@pytest.mark.slow
def test_what_a_loop_holds_does_not_grow_with_the_exchanges_of_an_http1_connection(bench: Bench) -> None:
    peer = bench.open_h1()

    def go() -> None:
        call = bench.submit("/")
        bench.run()
        peer.respond(body=b"body")
        bench.run()
        assert call.response.content == b"body"

    for _ in range(FEW):
        go()
    early = held_by(bench.loop)
    for _ in range(MANY):
        go()
    assert held_by(bench.loop) <= early + SLACK
