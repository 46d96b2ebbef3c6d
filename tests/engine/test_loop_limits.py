"""Limits that the peer moves while requests are under way (RFC 9113 6.5.2; RELIABILITY F25, F26, F27)."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from engine_bench import Bench, HandFed, Seen

from hyperpool.engine.connection import Life
from hyperpool.engine.http2 import Http2Connection
from hyperpool.errors import ConnectError
from hyperpool.protocol.h2_codec import HIGHEST_STREAM_ID

MakeBench = Callable[..., Bench]


@pytest.fixture
def alone(make_bench: MakeBench) -> Bench:
    """A bench that makes one connection at a time."""
    return make_bench(max_connections_per_origin=1)


# -- MAX_CONCURRENT_STREAMS --------------------------------------------------------------------------------------------


def test_a_limit_that_falls_to_0_lets_open_streams_finish_and_holds_the_others_until_it_rises(alone: Bench) -> None:
    peer = alone.open_h2(MAX_CONCURRENT_STREAMS=3)
    calls = alone.submit_many(6)
    alone.run()
    peer.greet(MAX_CONCURRENT_STREAMS=0)
    for stream_id in (1, 3, 5):
        peer.respond(stream_id)
    alone.run()
    assert [call.done for call in calls] == [True] * 3 + [False] * 3 and len(peer.seen) == 3
    peer.answers = True
    peer.greet(MAX_CONCURRENT_STREAMS=1)
    alone.run()
    assert all(call.response.ok for call in calls) and peer.most_open == 3


def test_a_limit_that_goes_up_and_down_is_never_overrun(alone: Bench) -> None:
    peer = alone.open_h2(MAX_CONCURRENT_STREAMS=1)
    calls = alone.submit_many(100)
    for limit in [5, 0, 2, 0, 9, 1, 4] * 6:
        alone.run()
        for stream_id in peer.open_ids:
            peer.respond(stream_id)
        peer.greet(MAX_CONCURRENT_STREAMS=limit)  # in one read with the answers: else the next ones go out before it
        alone.run()
        assert len(peer.open_ids) <= limit
    assert all(call.response.ok for call in calls)


def test_an_origin_that_takes_no_streams_for_now_gets_no_stampede_of_connections(bench: Bench) -> None:
    first = bench.open_h2(MAX_CONCURRENT_STREAMS=1)
    calls = bench.submit_many(5)
    bench.run()
    second = bench.connect_h2(MAX_CONCURRENT_STREAMS=1)
    bench.step()
    for peer in (first, second):
        peer.greet(MAX_CONCURRENT_STREAMS=0)
        peer.limit = None  # /1 may be on its way
    bench.run()
    for peer in (first, second):
        for stream_id in peer.open_ids:
            peer.respond(stream_id)
    bench.run()
    started = bench.dialer.started
    bench.fail_dial(ConnectError("refused"))  # asked for while both were full
    bench.advance(10)
    assert bench.loop.stats.queued == 3 and bench.dialer.started == started
    second.answers = True
    second.greet(MAX_CONCURRENT_STREAMS=10)
    bench.run()
    assert all(call.response.ok for call in calls) and bench.dialer.started == started


# -- INITIAL_WINDOW_SIZE -----------------------------------------------------------------------------------------------


def test_windows_that_fall_below_what_was_sent_hold_every_upload_until_they_rise(bench: Bench) -> None:
    peer = bench.open_h2(INITIAL_WINDOW_SIZE=15_000)
    bodies = [bytes([number]) * 20_000 for number in range(4)]
    calls = [bench.submit(content=body) for body in bodies]
    bench.run()
    peer.greet(INITIAL_WINDOW_SIZE=0)
    bench.run()
    (connection,) = bench.connections
    assert isinstance(connection, Http2Connection)
    assert [connection._h2.send_capacity(stream_id) for stream_id in (1, 3, 5, 7)] == [-15_000] * 4
    late = bench.submit(content=b"late")
    peer.grant(1, 15_001)
    bench.run()
    assert [len(seen.body) for seen in peer.seen.values()] == [15_001, 15_000, 15_000, 15_000, 0]
    peer.grant(0, 1 << 20)
    peer.greet(INITIAL_WINDOW_SIZE=20_000)
    bench.run()
    assert [bytes(seen.body) for seen in peer.seen.values()] == [*bodies, b"late"]
    for stream_id in peer.open_ids:
        peer.respond(stream_id)
    bench.run()
    assert all(call.response.ok for call in [*calls, late])


def test_windows_that_keep_moving_lose_no_byte(bench: Bench) -> None:
    peer = bench.open_h2(INITIAL_WINDOW_SIZE=1000)
    body = bytes(range(256)) * 200
    bench.submit(content=body)
    bench.run()
    peer.grant(0, 1 << 20)
    for size in [0, 7, 30_000, 100, 0, 16_385, 1, 45_000, 20_000, len(body)]:
        peer.greet(INITIAL_WINDOW_SIZE=size)
        bench.run()
        assert len(peer.seen[1].body) <= max(size, 45_000)
    assert peer.seen[1].body == body and peer.seen[1].ended


# -- MAX_FRAME_SIZE, HEADER_TABLE_SIZE ---------------------------------------------------------------------------------


def test_a_frame_size_that_moves_holds_from_the_next_frame_on(bench: Bench) -> None:
    peer, body = bench.open_h2(INITIAL_WINDOW_SIZE=1 << 20, MAX_FRAME_SIZE=1 << 14), HandFed()
    bench.submit(source=body)
    for size in (1 << 14, 1 << 16, 1 << 14, 1 << 15):
        peer.greet(MAX_FRAME_SIZE=size)
        peer.grant(0, 1 << 18)
        bench.run()
        body.pipe.feed(bytes(size + 1))
        bench.run()
        assert peer.seen[1].pieces[-2:] == [size, 1]
    body.pipe.finish()
    bench.run()
    assert peer.seen[1].ended


@pytest.mark.parametrize("sizes", [(0,), (0, 4096), (100, 0, 65_536), (65_536, 50, 4096)])
def test_a_header_table_that_moves_keeps_every_request_readable(bench: Bench, sizes: tuple[int, ...]) -> None:
    # RFC 7541 4.2: the peer's decoder refuses blocks that do not follow.
    peer = bench.open_h2()
    peer.answers = True
    for size in sizes:
        for number in range(3):
            call = bench.submit(f"/{size}/{number}", headers=(("x-kept", "the same each time"), ("x-n", str(number))))
            bench.run()
            assert call.response.text == f"/{size}/{number}"
        peer.greet(HEADER_TABLE_SIZE=size)
        peer._decoder.max_allowed_table_size = size
        bench.run()
    call = bench.submit("/end", headers=(("x-kept", "the same each time"),))
    bench.run()
    assert peer.seen[call.stream_id].fields["x-kept"] == "the same each time" and call.response.ok


# -- stream ids --------------------------------------------------------------------------------------------------------


def test_near_the_last_stream_id_a_fresh_connection_takes_over_and_nobody_notices(bench: Bench) -> None:
    first = bench.open_h2()
    (connection,) = bench.connections
    assert isinstance(connection, Http2Connection)
    connection._h2._machine.highest_outbound_stream_id = HIGHEST_STREAM_ID - 6
    first.seen[HIGHEST_STREAM_ID - 6] = Seen(HIGHEST_STREAM_ID - 6, {}, ended=True, answered=True)
    calls = bench.submit_many(8, content=b"post")
    bench.run()
    assert list(first.open_ids) == [HIGHEST_STREAM_ID - 4, HIGHEST_STREAM_ID - 2, HIGHEST_STREAM_ID]
    second = bench.connect_h2()
    bench.run()
    for peer in (first, second):
        for stream_id in peer.open_ids:
            peer.respond(stream_id)
    bench.run()
    assert all(call.response.ok and not call.response.retries for call in calls)
    assert connection.life is Life.CLOSED and len(second.seen) == 5
