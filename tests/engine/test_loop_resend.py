"""Resending: what never left, how often, and how a server that refuses everything is left alone (L9, A8)."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from engine_bench import Bench, Endless, H1Peer, H2Peer, HandFed

from hyperpool.engine import pauses
from hyperpool.engine.connection import MAX_RESENDS, NEVER_WRITTEN
from hyperpool.engine.dials import MOST_STILLBORN
from hyperpool.errors import ConnectionLost, PoolTimeout, RemoteProtocolError
from hyperpool.handoff import messages
from hyperpool.values import Timeout

MakeBench = Callable[..., Bench]


@pytest.fixture(autouse=True)
def no_jitter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pauses.random, "uniform", lambda low, high: (low + high) / 2)


# -- what never left ---------------------------------------------------------------------------------------------------


def blocked(bench: Bench) -> H2Peer:
    """A peer that has stopped to read, with our output full."""
    peer = bench.open_h2(INITIAL_WINDOW_SIZE=1 << 30)
    peer.grant(0, 1 << 30)
    bench.run()
    peer.deaf = True
    bench.submit("/endless", source=Endless())
    bench.run()
    assert bench.connections[0].transport.backlog_bytes
    return peer


def test_what_stood_behind_a_blocked_writer_goes_out_again_when_the_connection_is_lost(bench: Bench) -> None:
    peer = blocked(bench)
    post = bench.submit("/post", content=b"exactly once")
    bench.run()
    peer.reset()
    bench.run()
    assert isinstance(bench.calls[0].error, ConnectionLost) and bench.calls[0].error.processed == "maybe"
    second = bench.connect_h2()
    bench.run()
    second.respond(1)
    bench.run()
    assert post.response.ok and second.seen[1].body == b"exactly once"
    assert [resend.reason for resend in post.response.retries] == [NEVER_WRITTEN]


def test_a_stale_connection_that_is_noticed_while_writing_is_replaced(bench: Bench) -> None:
    peer = bench.open_h2()
    call = bench.submit("/post", content=b"body")
    bench.clock.before_next = peer.sock.close  # after the loop's look at its sockets
    bench.run()
    second = bench.connect_h2()
    second.answers = True
    bench.run()
    assert call.response.ok


def test_over_http1_as_well(bench: Bench) -> None:
    peer: H1Peer = bench.open_h1()
    call = bench.submit("/post", content=b"body")
    bench.clock.before_next = peer.sock.close
    bench.run()
    second = bench.connect_h1()
    second.answers = True
    bench.run()
    assert call.response.ok and second.paths == ["/post"]


def test_a_request_of_which_anything_was_written_is_not_sent_again(bench: Bench) -> None:
    peer = bench.open_h2()
    call = bench.submit("/post", content=b"body")
    bench.run()
    peer.close()
    bench.run()
    assert call.error.processed == "maybe" and not bench.dialer.pending


# -- rest --------------------------------------------------------------------------------------------------------------


def refuse_last(bench: Bench, peer: H2Peer) -> None:
    peer.refuse(max(peer.seen))
    bench.run()


def test_the_first_resend_goes_out_at_once_and_the_next_ones_later_each_time(bench: Bench) -> None:
    peer, call = bench.open_h2(), bench.submit()
    bench.run()
    refuse_last(bench, peer)
    assert len(peer.seen) == 2
    for number, rest_s in enumerate([0.05, 0.1, 0.2, 0.4], start=3):
        refuse_last(bench, peer)
        bench.advance(rest_s - 0.01)
        assert len(peer.seen) == number - 1
        bench.advance(0.02)
        assert len(peer.seen) == number
    peer.respond(max(peer.seen))
    bench.run()
    retries = call.response.retries
    assert [resend.reason for resend in retries] == ["REFUSED_STREAM"] * 5
    assert [resend.at_s for resend in retries] == sorted(resend.at_s for resend in retries)


def test_after_the_last_resend_the_error_says_that_it_was_not_processed(bench: Bench) -> None:
    peer, call = bench.open_h2(), bench.submit(content=b"post")
    bench.run()
    for _ in range(MAX_RESENDS + 1):
        refuse_last(bench, peer)
        bench.advance(1)
    assert len(peer.seen) == MAX_RESENDS + 1
    assert isinstance(call.error, ConnectionLost) and call.error.processed == "no" and call.error.stream_id == 11


def test_jitter_is_half_to_one_and_a_half_of_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pauses.random, "uniform", lambda low, high: low)
    least = [pauses.pause_s(failures) for failures in range(1, 9)]
    monkeypatch.setattr(pauses.random, "uniform", lambda low, high: high)
    most = [pauses.pause_s(failures) for failures in range(1, 9)]
    assert least == pytest.approx([0.0, 0.025, 0.05, 0.1, 0.2, 0.4, 0.5, 0.5])
    assert most == pytest.approx([0.0, 0.075, 0.15, 0.3, 0.6, 1.2, 1.5, 1.5])


def test_while_one_rests_others_go_on(bench: Bench) -> None:
    peer, call = bench.open_h2(), bench.submit("/refused")
    bench.run()
    refuse_last(bench, peer)
    refuse_last(bench, peer)
    other = bench.submit("/other")
    bench.run()
    peer.respond(5)
    bench.run()
    assert other.response.ok and not call.done and bench.loop.stats.queued == 1


def test_who_rests_can_be_cancelled(bench: Bench) -> None:
    peer, call = bench.open_h2(), bench.submit()
    bench.run()
    refuse_last(bench, peer)
    refuse_last(bench, peer)
    call.future.cancel()
    bench.run()
    bench.advance(1)
    assert len(peer.seen) == 2 and bench.loop.stats.queued == 0


def test_who_rests_times_out_on_time(bench: Bench) -> None:
    peer, call = bench.open_h2(), bench.submit(timeout=Timeout(pool=0.01, connect=None))
    bench.run()
    refuse_last(bench, peer)
    refuse_last(bench, peer)
    bench.advance(0.01)
    assert isinstance(call.error, PoolTimeout) and call.error.processed == "no"


def test_who_has_rested_goes_before_those_who_came_later(make_bench: MakeBench) -> None:
    bench = make_bench(max_connections_per_origin=1)
    peer = bench.open_h2(MAX_CONCURRENT_STREAMS=1)
    bench.submit_many(3)
    bench.run()
    peer.refuse(1)
    bench.run()
    peer.refuse(3)
    bench.run()
    bench.advance(1)  # /1 has had the slot meanwhile
    peer.respond(5)
    bench.run()
    assert peer.paths == ["/0", "/0", "/1", "/0"]


# -- a server that refuses everybody -----------------------------------------------------------------------------------


def test_a_server_that_refuses_everything_hears_of_us_less_and_less(make_bench: MakeBench) -> None:
    # RELIABILITY A8
    bench = make_bench(max_connections_per_origin=1)
    peer = bench.open_h2(MAX_CONCURRENT_STREAMS=10)
    calls = bench.submit_many(200)
    sent = []
    for _ in range(100):
        bench.advance(0.1)
        sent.append(len(peer.seen))
        for stream_id in peer.open_ids:
            peer.refuse(stream_id)
        bench.run()
    in_each_second = [later - earlier for earlier, later in zip(sent[::10], sent[10::10], strict=False)]
    assert max(in_each_second[1:]) <= 60 and sent[-1] < 300
    assert any(call.done for call in calls)


def test_new_requests_wait_for_the_end_of_the_pause_and_say_so_when_they_give_up(bench: Bench) -> None:
    peer = bench.open_h2()
    bench.submit()
    bench.run()
    for _ in range(3):
        bench.advance(0.2)
        refuse_last(bench, peer)
    late = bench.submit("/late", timeout=Timeout(pool=0.05, connect=None))
    bench.run()
    assert "/late" not in peer.paths
    bench.advance(0.05)
    assert isinstance(late.error, PoolTimeout) and "the server refuses" in str(late.error)


def test_one_answer_ends_the_pause(bench: Bench) -> None:
    peer = bench.open_h2()
    good = bench.submit("/good")
    bench.submit("/bad")
    bench.run()
    for _ in range(3):
        bench.advance(0.2)
        refuse_last(bench, peer)
    new = bench.submit("/new")
    bench.run()
    assert "/new" not in peer.paths
    peer.respond(1)
    bench.run()
    assert good.response.ok and "/new" in peer.paths and not new.done


@pytest.mark.parametrize("how", ["EOF", "GOAWAY"])
def test_after_five_connections_that_were_of_no_use_those_who_wait_are_told(bench: Bench, how: str) -> None:
    call = bench.submit()
    began_at = bench.clock.now
    while not call.done:
        bench.advance(0.01)
        if bench.dialer.pending:
            peer = bench.connect_h2(greet=how == "GOAWAY", MAX_CONCURRENT_STREAMS=0)
            if how == "GOAWAY":
                peer.go_away(0)
            peer.close()  # all of it is there when the connection is first looked at
            bench.run()
    assert isinstance(call.error, ConnectionLost) and call.error.processed == "no"
    assert bench.dialer.started == MOST_STILLBORN and 0.1 < bench.clock.now - began_at < 1


def test_a_connection_that_is_garbage_from_the_start_is_not_tried_again(bench: Bench) -> None:
    call = bench.submit()
    bench.run()
    peer = bench.connect_h2(greet=False)
    peer.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    peer.flush()
    bench.run()
    assert isinstance(call.error, RemoteProtocolError) and call.error.processed == "no"
    assert bench.dialer.started == 1


def test_what_was_wrong_with_a_connection_beside_a_good_one_is_told_to_nobody_later(bench: Bench) -> None:
    good = bench.open_h2(MAX_CONCURRENT_STREAMS=1)
    bench.submit_many(2)
    bench.run()
    bad = bench.connect_h2(greet=False)
    bad.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    bad.flush()
    bench.run()
    for stream_id in (1, 3):
        good.respond(stream_id)
        bench.run()
    good.close()
    late = bench.submit("/late")
    bench.run()
    bench.advance(1)
    third = bench.connect_h2()
    third.answers = True
    bench.run()
    assert all(call.response.ok for call in [*bench.calls[:2], late])


def test_a_prewarm_is_given_up_with_the_first_such_connection(bench: Bench) -> None:
    bench.put(messages.Prewarm(3))
    bench.run()
    for _ in range(5):
        bench.advance(0.01)
        if bench.dialer.pending:
            bench.connect_h2(greet=False).close()
            bench.run()
    assert bench.dialer.started <= 2 and bench.ended


# -- bodies that come once ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["GOAWAY", "REFUSED_STREAM"])
def test_a_generator_of_which_nothing_has_left_is_sent_again(bench: Bench, how: str) -> None:
    peer, body = bench.open_h2(INITIAL_WINDOW_SIZE=0), HandFed()
    call = bench.submit(source=body)
    bench.run()
    body.pipe.feed(b"stands at a shut window")
    body.pipe.finish()
    bench.run()
    if how == "GOAWAY":
        peer.go_away(0)
        bench.run()
        peer = bench.connect_h2()
        bench.run()
    else:
        peer.refuse(1)
        peer.greet(INITIAL_WINDOW_SIZE=1000)
        bench.run()
    last = max(peer.seen)
    peer.respond(last)
    bench.run()
    assert call.response.ok and peer.seen[last].body == b"stands at a shut window" and len(body.pipes) == 1


def test_an_upload_that_had_run_dry_times_out_in_the_queue_as_any_other(make_bench: MakeBench) -> None:
    bench = make_bench(max_connections_per_origin=1)
    first = bench.open_h2(MAX_CONCURRENT_STREAMS=1)
    call = bench.submit(source=HandFed(), timeout=Timeout(pool=5, connect=None))
    bench.run()
    first.greet(MAX_CONCURRENT_STREAMS=0)
    first.refuse(1)
    bench.run()
    bench.advance(5)
    assert isinstance(call.error, PoolTimeout)
