"""`Future.cancel`, wherever the exchange stands, down to the wire."""

from __future__ import annotations

import concurrent.futures
import random
from collections.abc import Callable
from concurrent.futures import CancelledError

import pytest
from engine_bench import CANCEL, Bench, Call, H2Peer, HandFed

from hyperpool.errors import ResponseClosed
from hyperpool.handoff.exchange import State

MakeBench = Callable[..., Bench]


def assert_cancelled(call: Call) -> None:
    assert call.future.cancelled() and call.exchange.state is State.DONE
    # wait() counts a cancelled Future as done only once the loop has notified it.
    assert call.future in concurrent.futures.wait([call.future], timeout=0).done
    with pytest.raises(CancelledError):
        call.future.result(0)


def test_a_request_cancelled_while_its_connection_is_dialled_never_goes_out(bench: Bench) -> None:
    call = bench.submit()
    bench.run()
    assert call.future.cancel()
    bench.run()
    assert_cancelled(call)
    peer = bench.connect_h2()
    bench.run()
    assert not peer.seen


def test_a_request_cancelled_in_the_turn_of_its_submit_never_goes_out(bench: Bench) -> None:
    peer, call = bench.open_h2(), bench.submit()
    call.future.cancel()
    bench.run()
    assert_cancelled(call)
    assert not peer.seen


def test_a_request_cancelled_in_the_queue_gives_its_place_to_the_next(make_bench: MakeBench) -> None:
    bench = make_bench(max_connections_per_origin=1)
    peer = bench.open_h2(MAX_CONCURRENT_STREAMS=1)
    peer_calls = bench.submit_many(3)
    bench.run()
    peer_calls[1].future.cancel()
    bench.run()
    assert_cancelled(peer_calls[1])
    peer.respond(1)
    bench.run()
    assert peer.paths == ["/0", "/2"]


def test_an_open_request_is_reset_with_cancel(bench: Bench) -> None:
    peer, call = bench.open_h2(), bench.submit()
    bench.run()
    call.future.cancel()
    bench.run()
    assert_cancelled(call)
    assert peer.seen[1].reset_code == CANCEL


def test_an_upload_is_reset_and_its_source_let_go(bench: Bench) -> None:
    peer, body = bench.open_h2(), HandFed()
    call = bench.submit(source=body)
    bench.run()
    body.pipe.feed(b"one")
    bench.run()
    call.future.cancel()
    bench.run()
    assert_cancelled(call)
    assert (peer.seen[1].body, peer.seen[1].reset_code) == (b"one", CANCEL)
    assert not body.pipe.feed(b"two")


def test_a_half_received_answer_is_reset_and_later_bytes_of_it_hurt_nobody(bench: Bench) -> None:
    # RELIABILITY F8
    peer = bench.open_h2()
    call, other = bench.submit(), bench.submit()
    bench.run()
    peer.head(1)
    peer.data(1, b"half")
    bench.run()
    call.future.cancel()
    peer.data(1, b"x" * 40_000)
    peer.trailers(1, [("late", "yes")])
    peer.respond(3, body=b"other")
    bench.run()
    assert_cancelled(call)
    assert peer.seen[1].reset_code == CANCEL
    assert other.response.content == b"other"
    bench.submit("/next")
    bench.run()
    assert peer.paths[-1] == "/next"


def test_a_streamed_response_cannot_be_cancelled_after_its_head_but_closed(bench: Bench) -> None:
    peer, call = bench.open_h2(), bench.submit(stream=True)
    bench.run()
    peer.head(1)
    peer.data(1, b"unread")
    bench.run()
    assert not call.future.cancel()
    call.response.close()
    bench.run()
    assert peer.seen[1].reset_code == CANCEL
    assert call.exchange.state is State.DONE
    with pytest.raises(ResponseClosed):
        call.response.read()


def test_closing_a_streamed_response_that_has_ended_resets_nothing(bench: Bench) -> None:
    peer, call = bench.open_h2(), bench.submit(stream=True)
    bench.run()
    peer.respond(1, body=b"all")
    bench.run()
    call.response.close()
    bench.run()
    assert peer.seen[1].reset_code is None


def test_a_forgotten_streamed_response_is_reset_and_warned_of(bench: Bench) -> None:
    peer, call = bench.open_h2(), bench.submit(stream=True)
    bench.run()
    peer.head(1)
    bench.run()
    bench.calls.clear()
    with pytest.warns(ResourceWarning, match="forgotten"):
        del call
    bench.run()
    assert peer.seen[1].reset_code == CANCEL


# -- the race with completion ------------------------------------------------------------------------------------------


def test_a_cancel_that_is_seen_in_the_turn_of_the_response_wins(bench: Bench) -> None:
    peer, call = bench.open_h2(), bench.submit()
    bench.run()
    peer.respond(1, body=b"too late")
    peer.flush()
    call.future.cancel()
    bench.run()
    assert_cancelled(call)


@pytest.mark.parametrize("stream", [False, True])
def test_a_cancel_between_the_response_and_its_settling_wins_and_the_response_is_let_go(
    bench: Bench, stream: bool
) -> None:
    peer, first, second = bench.open_h2(), bench.submit(), bench.submit(stream=stream)
    bench.run()
    first.future.add_done_callback(lambda future: second.future.cancel())  # runs while the turn settles
    peer.respond(1)
    peer.head(3)
    peer.data(3, b"unread", end=not stream)
    bench.run()
    assert first.response.ok
    assert_cancelled(second)
    assert peer.seen[3].reset_code == (CANCEL if stream else None)


def test_a_cancel_after_the_response_changes_nothing(bench: Bench) -> None:
    peer, call = bench.open_h2(), bench.submit()
    bench.run()
    peer.respond(1, body=b"here")
    bench.run()
    assert not call.future.cancel()
    bench.run()
    assert call.response.content == b"here" and peer.seen[1].reset_code is None


def test_cancelling_twice_resets_once(bench: Bench) -> None:
    peer, call = bench.open_h2(), bench.submit()
    bench.run()
    call.future.cancel()
    call.future.cancel()
    bench.run()
    assert_cancelled(call)
    assert sum(frame.type == 3 for frame in peer.frames) == 1


# -- what a cancel costs -----------------------------------------------------------------------------------------------


def full_connection(bench: Bench) -> H2Peer:
    peer = bench.open_h2(MAX_CONCURRENT_STREAMS=2)
    peer.pongs = False
    bench.submit_many(4)
    bench.run()
    return peer


def test_a_cancelled_stream_keeps_its_slot_until_the_ping_that_followed_it_is_answered(make_bench: MakeBench) -> None:
    bench = make_bench(max_connections_per_origin=1)
    peer = full_connection(bench)
    bench.calls[0].future.cancel()
    bench.run()
    assert peer.paths == ["/0", "/1"] and peer.pings == 1
    assert [frame.type for frame in peer.frames[-2:]] == [3, 6]  # RST_STREAM, then PING
    peer.pong()
    bench.run()
    assert peer.paths == ["/0", "/1", "/2"]


def test_a_reset_after_a_ping_waits_for_the_next_one(make_bench: MakeBench) -> None:
    bench = make_bench(max_connections_per_origin=1)
    peer = full_connection(bench)
    bench.calls[0].future.cancel()
    bench.run()
    bench.calls[1].future.cancel()
    bench.run()
    assert peer.pings == 1
    peer.pong()
    bench.run()
    assert (peer.paths, peer.pings) == (["/0", "/1", "/2"], 2)
    peer.pong()
    bench.run()
    assert peer.paths == ["/0", "/1", "/2", "/3"]


def test_a_storm_of_cancels_never_overruns_the_peers_limit(make_bench: MakeBench) -> None:
    # The peer counts a stream until its RST_STREAM is there: `H2Peer` asserts its limit at each HEADERS.
    bench = make_bench(max_connections_per_origin=1)
    peer = bench.open_h2(MAX_CONCURRENT_STREAMS=5)
    for _ in range(40):
        for call in bench.submit_many(5):
            bench.run()
            call.future.cancel()
    bench.run()
    assert peer.most_open <= 5 and bench.loop.stats.queued == 0
    assert all(call.future.cancelled() for call in bench.calls)


@pytest.mark.parametrize("seed", range(3))
def test_1000_futures_cancelled_at_random_moments_leave_no_slot_and_no_credit_behind(
    make_bench: MakeBench, seed: int
) -> None:
    chance = random.Random(seed)
    bench = make_bench(max_connections_per_origin=3)
    calls = [bench.submit(f"/{n}", content=b"x" * 300 if n % 3 == 0 else None) for n in range(1000)]
    left = calls.copy()
    while left:
        bench.run()
        while bench.dialer.pending:
            bench.connect_h2(MAX_CONCURRENT_STREAMS=chance.choice([1, 7, 30]))
            bench.run()
        for call in chance.sample(left, min(len(left), chance.randrange(1, 60))):
            call.future.cancel()
        for peer in bench.peers:
            assert isinstance(peer, H2Peer)
            for stream_id in chance.sample(peer.open_ids, -(-len(peer.open_ids) // 3)):
                peer.respond(stream_id, body=bytes(chance.randrange(5000)))
            peer.pongs = chance.random() < 0.7
            if peer.pongs:
                peer.pong()
        left = [call for call in left if not call.done]
    for peer in bench.peers:
        peer.pongs = True  # type: ignore[attr-defined]
        peer.pong()  # type: ignore[attr-defined]
    bench.run()
    stats = bench.loop.stats
    assert (stats.open_streams, stats.queued) == (0, 0)
    for connection, peer in zip(bench.connections, bench.peers, strict=True):
        assert not peer.open_ids and connection.free_slots == peer.limit  # type: ignore[attr-defined]
    assert any(call.future.cancelled() for call in calls) and not all(call.future.cancelled() for call in calls)


def test_a_pong_that_nobody_asked_for_frees_no_slot(make_bench: MakeBench) -> None:
    # RELIABILITY F20
    bench = make_bench(max_connections_per_origin=1)
    peer = full_connection(bench)
    bench.calls[0].future.cancel()
    bench.run()
    peer.unanswered = [b"\xff" * 8]
    peer.pong()
    bench.run()
    assert peer.paths == ["/0", "/1"]


def test_other_streams_go_on_undisturbed(bench: Bench) -> None:
    peer = bench.open_h2()
    calls = bench.submit_many(10)
    bench.run()
    for call in calls[::2]:
        call.future.cancel()
    bench.run()
    for stream_id in peer.open_ids:
        peer.respond(stream_id, body=peer.seen[stream_id].path.encode())
    bench.run()
    assert [call.response.text for call in calls[1::2]] == ["/1", "/3", "/5", "/7", "/9"]
