"""Bodies that are fed by hand, in a loop: each way in which a request ends lets its feeder go (L5)."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from engine_bench import CANCEL, PATIENT, Bench

from hyperpool.errors import ConnectError, ConnectionLost, LocalProtocolError
from hyperpool.handoff import messages
from hyperpool.handoff.source import FedSource
from hyperpool.values import Timeout

MakeBench = Callable[..., Bench]


def test_what_is_fed_before_and_after_the_connection_goes_out_in_order(bench: Bench) -> None:
    source = FedSource()
    call = bench.submit(content=source)
    bench.run()
    source.feed(b"before ")
    peer = bench.connect_h2()
    bench.run()
    source.feed(b"after")
    bench.run()
    assert peer.seen[1].body == b"before after" and not peer.seen[1].ended
    source.finish()
    bench.run()
    assert peer.seen[1].ended
    peer.respond(1)
    bench.run()
    assert call.response.ok and not source.feed(b"late")


def test_over_http1_it_is_chunked_as_it_comes(bench: Bench) -> None:
    peer, source = bench.open_h1(), FedSource()
    call = bench.submit(content=source)
    bench.run()
    source.feed(b"one")
    bench.run()
    source.feed(b"two")
    source.finish()
    bench.run()
    assert peer.requests[0].body == b"onetwo" and peer.requests[0].fields["transfer-encoding"] == "chunked"
    peer.respond()
    bench.run()
    assert call.response.ok


@pytest.mark.parametrize("how", ["refused", "timeout", "close", "cancel"])
def test_a_request_that_never_went_out_lets_its_feeder_go(bench: Bench, how: str) -> None:
    source = FedSource()
    call = bench.submit(content=source, timeout=Timeout(5) if how == "timeout" else PATIENT)
    bench.run()
    assert source.feed(b"nobody has wanted this yet")
    if how == "refused":
        bench.fail_dial(ConnectError("refused"))
    elif how == "close":
        bench.put(messages.Close(bench.clock.now))
    elif how == "cancel":
        call.future.cancel()
    bench.run()
    bench.advance(5)
    assert call.done and not source.feed(b"more")
    bench.dialer.cancel()
    bench.run()


def test_a_request_that_the_pool_does_not_take_lets_its_feeder_go(make_bench: MakeBench) -> None:
    bench, source = make_bench(max_queued_per_origin=1), FedSource()
    bench.submit()
    call = bench.submit(content=source)
    bench.run()
    assert call.done and not source.feed(b"more")
    bench.dialer.cancel()
    bench.run()


@pytest.mark.parametrize("how", ["goaway", "refused stream"])
def test_a_body_that_has_begun_to_go_out_is_not_sent_again(bench: Bench, how: str) -> None:
    # L9. Its owner is told, and can feed a new one.
    peer, source = bench.open_h2(), FedSource()
    call = bench.submit(content=source)
    bench.run()
    source.feed(b"gone")
    bench.run()
    if how == "goaway":
        peer.go_away(0)
    else:
        peer.refuse(1)
    bench.run()
    assert isinstance(call.error, ConnectionLost) and call.error.processed == "no"
    assert not source.feed(b"more")


def test_a_body_of_which_nothing_went_out_goes_on_with_the_next_stream(bench: Bench) -> None:
    peer, source = bench.open_h2(), FedSource()
    call = bench.submit(content=source)
    bench.run()
    peer.refuse(1)
    bench.run()
    source.feed(b"later")
    source.finish()
    bench.run()
    peer.respond(3)
    bench.run()
    assert call.response.ok and peer.seen[3].body == b"later"


def test_a_request_that_waits_for_a_slot_keeps_its_body_for_the_next_connection(make_bench: MakeBench) -> None:
    bench, source = make_bench(max_connections_per_origin=1), FedSource()
    first = bench.open_h2(MAX_CONCURRENT_STREAMS=1)
    bench.submit("/first")
    call = bench.submit("/fed", content=source)
    bench.run()
    source.feed(b"fed while waiting")
    source.finish()
    first.go_away(1)
    bench.run()
    second = bench.connect_h2()
    bench.run()
    assert second.seen[1].body == b"fed while waiting"
    first.respond(1)
    second.respond(1)
    bench.run()
    assert call.response.ok


def test_a_failure_resets_the_stream_and_is_the_error(bench: Bench) -> None:
    peer, source = bench.open_h2(), FedSource()
    call = bench.submit(content=source)
    bench.run()
    source.feed(b"half")
    source.fail(error := OSError("disk"))
    bench.run()
    assert call.error is error and peer.seen[1].reset_code == CANCEL and not source.feed(b"more")


def test_a_length_that_is_missed_resets_the_stream(bench: Bench) -> None:
    peer, source = bench.open_h2(), FedSource(length_bytes=10)
    call = bench.submit(content=source)
    bench.run()
    source.feed(b"short")
    source.finish()
    bench.run()
    assert isinstance(call.error, LocalProtocolError) and "10 were declared" in str(call.error)
    assert peer.seen[1].fields["content-length"] == "10" and peer.seen[1].reset_code == CANCEL


def test_a_second_request_with_the_same_body_is_refused_and_the_first_goes_on(bench: Bench) -> None:
    peer, source = bench.open_h2(), FedSource()
    call = bench.submit(content=source)
    with pytest.raises(LocalProtocolError, match="one request"):
        bench.submit(content=source)
    bench.run()
    source.feed(b"body")
    source.finish()
    bench.run()
    peer.respond(1)
    bench.run()
    assert call.response.ok and peer.seen[1].body == b"body"


def test_a_crash_lets_feeders_go(bench: Bench) -> None:
    bench.open_h2()
    open_one, source = FedSource(), FedSource()
    bench.submit(content=open_one)
    bench.run()
    bench.put("no message")
    call = bench.submit(content=source)
    bench.run_in_thread()
    assert call.done and not open_one.feed(b"more") and not source.feed(b"more")


def test_a_close_with_grace_lets_the_body_be_fed_to_its_end(bench: Bench) -> None:
    peer, source = bench.open_h2(), FedSource()
    call = bench.submit(content=source)
    bench.run()
    bench.put(messages.Close(bench.clock.now + 5))
    bench.run()
    source.feed(b"to the end")
    source.finish()
    bench.run()
    peer.respond(1)
    bench.run()
    assert call.response.ok and bench.ended
