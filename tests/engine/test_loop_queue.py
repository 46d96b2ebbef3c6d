"""Who goes first, on which connection, and when a further connection is dialled."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from engine_bench import REFUSED_STREAM, Bench

from hyperpool.engine.connections import Connections
from hyperpool.errors import ConnectError, ConnectTimeout, HyperpoolError, PoolFull, PoolTimeout
from hyperpool.handoff import messages
from hyperpool.values import Timeout

MakeBench = Callable[..., Bench]


@pytest.mark.parametrize("limit", [1, 3, 100])
def test_500_waiting_requests_are_served_first_in_first_out(make_bench: MakeBench, limit: int) -> None:
    bench = make_bench(max_connections_per_origin=1)
    calls = bench.submit_many(500)
    bench.run()
    peer = bench.connect_h2(MAX_CONCURRENT_STREAMS=limit)
    bench.run()
    finished: list[str] = []
    for call in calls:
        call.future.add_done_callback(lambda future: finished.append(future.result().text))
    while peer.open_ids:
        assert len(peer.open_ids) <= limit
        for stream_id in peer.open_ids:
            peer.respond(stream_id, body=peer.seen[stream_id].path.encode())
        bench.run()
    everyone = [f"/{number}" for number in range(500)]
    assert peer.paths == everyone
    assert finished == everyone
    assert peer.most_open == limit
    assert bench.dialer.started == 1


def test_our_own_limit_holds_where_the_peer_names_a_higher_one(make_bench: MakeBench) -> None:
    bench = make_bench(max_streams_per_connection=2, max_connections_per_origin=1)
    peer = bench.open_h2(MAX_CONCURRENT_STREAMS=50)
    bench.submit_many(5)
    bench.run()
    assert peer.most_open == 2


def test_while_the_limit_is_0_requests_wait_and_none_fails(make_bench: MakeBench) -> None:
    bench = make_bench(max_connections_per_origin=1)
    peer = bench.open_h2(MAX_CONCURRENT_STREAMS=0)
    peer.answers = True
    calls = bench.submit_many(3)
    bench.run()
    assert not peer.seen and bench.loop.stats.queued == 3
    peer.greet(MAX_CONCURRENT_STREAMS=2)
    bench.run()
    assert [call.response.text for call in calls] == ["/0", "/1", "/2"]


def test_a_limit_lowered_below_the_open_streams_resets_none_and_opens_none(make_bench: MakeBench) -> None:
    # RELIABILITY F25
    bench = make_bench(max_connections_per_origin=1)
    peer = bench.open_h2(MAX_CONCURRENT_STREAMS=3)
    first, waiting = bench.submit_many(3), bench.submit("/late")
    bench.run()
    peer.greet(MAX_CONCURRENT_STREAMS=1)
    bench.run()
    peer.respond(1)
    peer.respond(3)
    bench.run()
    assert peer.paths == ["/0", "/1", "/2"] and first[0].done and first[1].done
    peer.limit = 1
    peer.respond(5)
    bench.run()
    peer.respond(7)
    bench.run()
    assert first[2].response.ok and waiting.response.ok


def test_before_the_peers_settings_only_one_stream_is_opened(bench: Bench) -> None:
    bench.submit_many(10)
    bench.run()
    peer = bench.connect_h2(greet=False)
    bench.run()
    assert peer.paths == ["/0"]
    peer.greet(MAX_CONCURRENT_STREAMS=5)
    bench.run()
    assert peer.paths == ["/0", "/1", "/2", "/3", "/4"]


def test_a_burst_on_a_fresh_origin_dials_once(bench: Bench) -> None:
    bench.submit_many(250)
    bench.run()
    bench.submit_many(250)
    bench.run()
    bench.connect_h2(greet=False)
    bench.run()
    assert bench.dialer.started == 1


def test_a_further_connection_is_dialled_when_all_are_full_and_ready_one_at_a_time_up_to_the_cap(
    make_bench: MakeBench,
) -> None:
    bench = make_bench(max_connections_per_origin=3)
    bench.submit_many(100)
    bench.run()
    for number in (1, 2, 3):
        assert bench.dialer.started == number
        peer = bench.connect_h2(greet=False)
        bench.run()
        assert bench.dialer.started == number  # not before this one has told its limit
        peer.greet(MAX_CONCURRENT_STREAMS=4)
        bench.run()
    assert bench.dialer.started == 3
    assert bench.loop.stats[2:6] == (3, 12, 88, 0)


def test_no_further_connection_is_dialled_while_a_stream_is_free(bench: Bench) -> None:
    bench.open_h2(MAX_CONCURRENT_STREAMS=10)
    bench.submit_many(10)
    bench.run()
    assert bench.dialer.started == 1
    bench.submit()
    bench.run()
    assert bench.dialer.started == 2


def test_the_least_loaded_connection_gets_the_next_request(bench: Bench) -> None:
    first = bench.open_h2(MAX_CONCURRENT_STREAMS=4)
    bench.submit_many(5)
    bench.run()
    second = bench.connect_h2(MAX_CONCURRENT_STREAMS=4)
    bench.run()
    assert (len(first.open_ids), len(second.open_ids)) == (4, 1)
    for stream_id in (1, 3, 5):
        first.respond(stream_id)
    bench.run()
    bench.submit_many(2)
    bench.run()
    assert (len(first.open_ids), len(second.open_ids)) == (2, 2)


def test_prewarm_opens_connections_before_any_request(bench: Bench) -> None:
    bench.put(messages.Prewarm(3))
    bench.run()
    for number in (1, 2, 3):
        assert bench.dialer.started == number
        bench.connect_h2()
        bench.run()
    assert (len(bench.connections), bench.dialer.started) == (3, 3)


def test_a_request_that_takes_the_prewarmed_connection_causes_no_second_one(bench: Bench) -> None:
    bench.put(messages.Prewarm(1))
    bench.submit()
    bench.run()
    peer = bench.connect_h2()
    peer.carry()  # its SETTINGS are there with the connection, as they are over TLS
    bench.run()
    assert (peer.paths, bench.dialer.started) == (["/"], 1)


def test_the_queue_is_bounded(make_bench: MakeBench) -> None:
    bench = make_bench(max_queued_per_origin=3)
    calls = bench.submit_many(5)
    bench.run()
    assert [call.done for call in calls] == [False, False, False, True, True]
    assert all(isinstance(call.error, PoolFull) and call.error.processed == "no" for call in calls[3:])
    assert calls[3].error is not calls[4].error


def test_who_finds_the_queue_full_is_told_what_holds_the_slots(make_bench: MakeBench) -> None:
    bench = make_bench(max_connections_per_origin=1, max_queued_per_origin=2)
    bench.open_h2(MAX_CONCURRENT_STREAMS=3)
    for count in (2, 1, 2):
        bench.submit_many(count)
        bench.run()
    bench.advance(7)
    call = bench.submit()
    bench.run()
    assert "3 under way on 1 connection, 2 queued, the oldest for 7.0 s; slow down" in str(call.error)


def test_who_times_out_in_the_queue_is_told_what_holds_the_slots(make_bench: MakeBench) -> None:
    bench = make_bench(max_connections_per_origin=2)
    bench.open_h2(MAX_CONCURRENT_STREAMS=2)
    bench.submit_many(5)
    bench.run()
    bench.connect_h2(MAX_CONCURRENT_STREAMS=2)
    bench.run()
    bench.advance(3)
    call = bench.submit(timeout=Timeout(pool=4))
    bench.run()
    bench.advance(4)
    assert isinstance(call.error, PoolTimeout)
    assert str(call.error).endswith(": 4 under way on 2 connections, 2 queued, the oldest for 7.0 s")


# -- dials that fail ---------------------------------------------------------------------------------------------------


def test_a_failed_dial_fails_all_who_wait_each_with_its_own_error(bench: Bench) -> None:
    calls = bench.submit_many(3)
    bench.run()
    bench.fail_dial(ConnectError("refused"))
    bench.run()
    found = [call.error for call in calls]
    assert all(isinstance(error, ConnectError) and error.origin == "https://a.test" for error in found)
    assert all(error.processed == "no" for error in found)
    assert len(set(map(id, found))) == 3
    assert bench.ended


def test_a_dial_that_times_out_is_repeated_for_those_with_more_patience(bench: Bench) -> None:
    hasty = bench.submit(timeout=Timeout(connect=1))
    patient = bench.submit(timeout=Timeout(connect=60))
    bench.run()
    assert bench.dialer.pending[0].deadline_at == bench.clock.now + 1
    bench.clock.now += 1
    bench.fail_dial(ConnectTimeout("too slow"))
    bench.run()
    assert isinstance(hasty.error, ConnectTimeout) and not patient.done
    peer = bench.connect_h2()
    peer.answers = True
    bench.run()
    assert patient.response.ok


def test_an_origin_with_a_connection_waits_a_second_after_a_failed_dial_for_one_more(bench: Bench) -> None:
    bench.open_h2(MAX_CONCURRENT_STREAMS=1)
    bench.submit_many(2)
    bench.run()
    bench.fail_dial(ConnectError("refused"))
    bench.run()
    assert bench.dialer.started == 2
    bench.advance(0.5)
    assert bench.dialer.started == 2
    bench.advance(0.5)
    assert bench.dialer.started == 3


def test_where_no_dialling_thread_starts_the_waiting_fail_and_the_loop_ends(bench: Bench) -> None:
    # RELIABILITY X7
    bench.dialer.refuses_to_start = True
    call = bench.submit()
    bench.run()
    assert isinstance(call.error, HyperpoolError) and isinstance(call.error.__cause__, RuntimeError)
    assert bench.ended and bench.loop.stats.dialing == 0


def test_a_refusing_http1_origin_fails_all_who_wait_though_several_dials_are_under_way(bench: Bench) -> None:
    peer = bench.open_h1()
    peer.close()
    calls = bench.submit_many(3)
    bench.run()
    assert bench.dialer.started == 4
    for _ in range(3):
        bench.fail_dial(ConnectError("refused"))
        bench.run()
    assert [type(call.error) for call in calls] == [ConnectError] * 3
    assert bench.dialer.started == 4


# -- what a slot that becomes free brings about ------------------------------------------------------------------------


def test_those_who_wait_are_dialled_for_at_once_when_the_connection_is_lost_while_writing(
    make_bench: MakeBench,
) -> None:
    bench = make_bench(max_connections_per_origin=1)
    peer = bench.open_h2(MAX_CONCURRENT_STREAMS=1)
    bench.submit_many(2)
    bench.run()
    bench.calls[0].future.cancel()  # whose RST_STREAM is what the loop writes
    bench.clock.before_next = peer.sock.close  # after the loop's look at its sockets
    bench.run()
    assert bench.dialer.started == 2


def test_a_refused_stream_is_resent_before_those_who_came_later(make_bench: MakeBench) -> None:
    bench = make_bench(max_connections_per_origin=1)
    peer = bench.open_h2(MAX_CONCURRENT_STREAMS=1)
    bench.submit_many(3)
    bench.run()
    peer.refuse(1, REFUSED_STREAM)
    bench.run()
    peer.respond(3)
    bench.run()
    assert peer.paths == ["/0", "/0", "/1"]
    assert [resend.reason for resend in bench.calls[0].response.retries] == ["REFUSED_STREAM"]


def test_connections_are_forgotten_with_their_timers_and_sockets(bench: Bench) -> None:
    peer = bench.open_h2()
    connection = bench.connections[0]
    peer.close()
    bench.submit()
    bench.run()
    registry: Connections = bench.loop._connections
    assert connection not in list(registry) and connection.timer_at == float("inf")
    assert [key.data for key in bench.loop._selector.get_map().values()] == [None]
