"""Settings that move while streams are open, beyond those of test_loop_limits.py: extremes, order, and churn.

RFC 9113 6.5; RELIABILITY F25 and F26. Nobody may be stuck: each test ends with every answer there.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from engine_bench import Bench, H2Peer, HandFed
from hyperframe.frame import SettingsFrame

MakeBench = Callable[..., Bench]
BODY = bytes(range(256)) * 150  # 38,400 bytes


@pytest.fixture
def alone(make_bench: MakeBench) -> Bench:
    """A bench that makes one connection at a time."""
    return make_bench(max_connections_per_origin=1)


def finish(bench: Bench, peer: H2Peer) -> None:
    """Answer whatever is owed, and whatever comes then."""
    peer.answers = True
    for stream_id in peer.open_ids:
        if peer.seen[stream_id].ended:
            peer.respond(stream_id)
    bench.run()


# -- MAX_CONCURRENT_STREAMS --------------------------------------------------------------------------------------------


def test_a_limit_of_0_from_the_first_word_on_is_waited_for(alone: Bench) -> None:
    """The first request is out before the limit is known; the others wait."""
    calls = alone.submit_many(4)
    alone.run()
    peer = alone.connect_h2(greet=False)
    alone.run()
    peer.greet(MAX_CONCURRENT_STREAMS=0)
    peer.limit = None
    alone.run()
    seen_before = len(peer.seen)
    peer.greet(MAX_CONCURRENT_STREAMS=100)
    alone.run()
    finish(alone, peer)
    assert seen_before == 1 and all(call.response.ok for call in calls)


def test_a_limit_below_what_is_open_resets_nothing(alone: Bench) -> None:
    peer = alone.open_h2(MAX_CONCURRENT_STREAMS=10)
    calls = alone.submit_many(10)
    alone.run()
    peer.greet(MAX_CONCURRENT_STREAMS=1)
    later = alone.submit("/later")
    alone.run()
    assert len(peer.open_ids) == 10 and not any(seen.reset_code for seen in peer.seen.values())
    for stream_id in peer.open_ids[:9]:
        peer.respond(stream_id)
    alone.run()
    assert len(peer.seen) == 10, "one is still open: that is as many as are allowed"
    finish(alone, peer)
    assert all(call.response.ok for call in [*calls, later])


def test_the_largest_limit_is_no_reason_to_open_more_than_ours(make_bench: MakeBench) -> None:
    bench = make_bench(max_connections_per_origin=1, max_streams_per_connection=7)
    peer = bench.open_h2(MAX_CONCURRENT_STREAMS=2**32 - 1)
    calls = bench.submit_many(20)
    bench.run()
    assert len(peer.open_ids) == 7
    finish(bench, peer)
    assert all(call.response.ok for call in calls)


def test_uploads_and_downloads_live_through_a_limit_of_0(alone: Bench) -> None:
    peer, body = alone.open_h2(MAX_CONCURRENT_STREAMS=5), HandFed()
    up, down = alone.submit("/up", source=body), alone.submit("/down", stream=True)
    alone.run()
    peer.head(3)
    peer.greet(MAX_CONCURRENT_STREAMS=0)
    alone.run()
    body.pipe.feed(BODY)
    body.pipe.finish()
    peer.data(3, b"half")
    alone.run()
    peer.data(3, b"and half", end=True)
    peer.respond(1)
    alone.run()
    assert up.response.ok and down.read() == b"halfand half" and bytes(peer.seen[1].body) == BODY


# -- INITIAL_WINDOW_SIZE -----------------------------------------------------------------------------------------------


def test_a_window_of_0_from_the_first_word_on_holds_bodies_and_no_heads(bench: Bench) -> None:
    peer = bench.open_h2(INITIAL_WINDOW_SIZE=0)
    calls = [bench.submit(content=BODY), bench.submit("/get"), bench.submit(content=b"")]
    bench.run()
    assert [len(seen.body) for seen in peer.seen.values()] == [0, 0, 0]
    assert [seen.ended for seen in peer.seen.values()] == [False, True, True]
    peer.greet(INITIAL_WINDOW_SIZE=len(BODY))
    bench.run()
    assert bytes(peer.seen[1].body) == BODY
    finish(bench, peer)
    assert all(call.response.ok for call in calls)


def test_the_largest_window_lets_the_connections_window_decide(bench: Bench) -> None:
    peer = bench.open_h2(INITIAL_WINDOW_SIZE=2**31 - 1)
    call = bench.submit(content=BODY * 3)
    bench.run()
    assert len(peer.seen[1].body) == 65_535
    peer.grant(0, 1 << 20)
    bench.run()
    finish(bench, peer)
    assert call.response.ok and bytes(peer.seen[1].body) == BODY * 3


def test_a_window_that_is_taken_away_and_restored_with_credit_loses_nothing(bench: Bench) -> None:
    """It is 1,000 below nothing; credit of a WINDOW_UPDATE counts from there (RFC 9113 6.9.2)."""
    peer = bench.open_h2(INITIAL_WINDOW_SIZE=1_000)
    call = bench.submit(content=BODY)
    bench.run()
    peer.greet(INITIAL_WINDOW_SIZE=0)
    bench.run()
    peer.grant(1, 1_000)
    bench.run()
    assert len(peer.seen[1].body) == 1_000
    peer.grant(1, 500)
    bench.run()
    assert len(peer.seen[1].body) == 1_500
    peer.greet(INITIAL_WINDOW_SIZE=60_000)
    bench.run()
    finish(bench, peer)
    assert call.response.ok and bytes(peer.seen[1].body) == BODY


# -- several at once ---------------------------------------------------------------------------------------------------


def test_a_setting_that_comes_twice_in_a_frame_is_what_it_was_last(alone: Bench) -> None:
    """RFC 9113 6.5.3: in the order in which they stand."""
    peer = alone.open_h2(MAX_CONCURRENT_STREAMS=1)
    calls = alone.submit_many(6)
    alone.run()
    one, last = SettingsFrame(0, settings={3: 0}), SettingsFrame(0, settings={3: 4})
    both = one.serialize_body() + last.serialize_body()
    peer.limit = 4
    peer.send(len(both).to_bytes(3, "big") + b"\x04\0\0\0\0\0" + both)
    alone.run()
    assert len(peer.open_ids) == 4
    finish(alone, peer)
    assert all(call.response.ok for call in calls)


def test_every_setting_at_once_in_the_middle_of_everything(bench: Bench) -> None:
    peer, body = bench.open_h2(MAX_CONCURRENT_STREAMS=3), HandFed()
    calls = [bench.submit(source=body), bench.submit(content=BODY), bench.submit("/get")]
    bench.run()
    body.pipe.feed(BODY)
    peer._decoder.max_allowed_table_size = 0
    peer.greet(
        HEADER_TABLE_SIZE=0,
        MAX_CONCURRENT_STREAMS=3,
        INITIAL_WINDOW_SIZE=100_000,
        MAX_FRAME_SIZE=100_000,
        MAX_HEADER_LIST_SIZE=1 << 20,
    )
    peer.grant(0, 1 << 20)
    bench.run()
    body.pipe.finish()
    bench.run()
    finish(bench, peer)
    assert all(call.response.ok for call in calls)
    assert bytes(peer.seen[1].body) == bytes(peer.seen[3].body) == BODY


def test_push_that_is_switched_off_again_changes_nothing(bench: Bench) -> None:
    """RFC 9113 6.5.2: 0 is the one value that a server may say."""
    peer, call = bench.open_h2(), bench.submit()
    bench.run()
    peer.greet(ENABLE_PUSH=0)
    finish(bench, peer)
    assert call.response.ok and peer.goaway is None


def test_settings_in_the_same_read_as_the_last_byte_hold_for_the_next_request(alone: Bench) -> None:
    peer = alone.open_h2(INITIAL_WINDOW_SIZE=65_535)
    first = alone.submit()
    alone.run()
    peer.respond(1)
    peer.greet(INITIAL_WINDOW_SIZE=10)
    alone.run()
    second = alone.submit(content=BODY)
    alone.run()
    assert len(peer.seen[3].body) == 10
    peer.greet(INITIAL_WINDOW_SIZE=60_000)
    alone.run()
    finish(alone, peer)
    assert first.response.ok and second.response.ok


@pytest.mark.slow
def test_a_thousand_changes_while_a_thousand_streams_come_and_go(alone: Bench) -> None:
    """The budget of SETTINGS is 2,000 at once (protocol/frame_guard.py)."""
    peer = alone.open_h2(MAX_CONCURRENT_STREAMS=50)
    calls = [alone.submit(f"/{number}", content=b"x" * (number % 300)) for number in range(1_000)]
    for change in range(1_000):
        peer.greet(INITIAL_WINDOW_SIZE=(0, 7, 65_535)[change % 3], MAX_CONCURRENT_STREAMS=(0, 5, 60)[change % 3])
        peer.limit = None
        peer.grant(0, 100)
        alone.run()
        for stream_id in peer.open_ids[:5]:
            if peer.seen[stream_id].ended:
                peer.respond(stream_id)
    peer.greet(INITIAL_WINDOW_SIZE=65_535, MAX_CONCURRENT_STREAMS=60)
    alone.run()
    finish(alone, peer)
    assert all(call.response.ok for call in calls)
    bodies = {seen.path: len(seen.body) for seen in peer.seen.values()}
    assert bodies == {f"/{number}": number % 300 for number in range(1_000)}
