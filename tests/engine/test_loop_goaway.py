"""GOAWAY and REFUSED_STREAM: what the server did not process goes out again, in order, and nothing else does (L9)."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from engine_bench import CANCEL, ENHANCE_YOUR_CALM, NO_ERROR, PROTOCOL_ERROR, REFUSED_STREAM, Bench, H2Peer, HandFed

from hyperpool.engine.connection import MAX_RESENDS, Life
from hyperpool.engine.http2 import Http2Connection
from hyperpool.errors import ConnectionLost, ReadTimeout, StreamReset
from hyperpool.handoff import messages
from hyperpool.protocol.h2_codec import HIGHEST_STREAM_ID
from hyperpool.values import Timeout

MakeBench = Callable[..., Bench]


def reconnect(bench: Bench) -> H2Peer:
    peer = bench.connect_h2()
    bench.run()
    return peer


@pytest.mark.parametrize("code", [NO_ERROR, ENHANCE_YOUR_CALM])
def test_streams_above_the_last_id_go_to_a_new_connection_in_order_before_later_ones(
    make_bench: MakeBench, code: int
) -> None:
    bench = make_bench(max_connections_per_origin=1)
    first = bench.open_h2(MAX_CONCURRENT_STREAMS=5)
    calls = bench.submit_many(8)
    bench.run()
    first.go_away(3, code)
    bench.run()
    bench.advance(1.1)  # a server that wants calm is left alone for a second
    second = reconnect(bench)
    assert first.paths == ["/0", "/1", "/2", "/3", "/4"]
    assert second.paths == ["/2", "/3", "/4", "/5", "/6", "/7"]
    for stream_id in second.open_ids:
        second.respond(stream_id)
    for stream_id in (1, 3):
        first.respond(stream_id)
    bench.run()
    assert [len(call.response.retries) for call in calls] == [0, 0, 1, 1, 1, 0, 0, 0]
    assert calls[2].response.retries[0].reason.startswith("GOAWAY")
    assert bench.loop.stats.resent == 3


def test_streams_up_to_the_last_id_finish_and_the_connection_closes_with_the_last(bench: Bench) -> None:
    # L10: the replacement is there before the drained connection is gone.
    first = bench.open_h2()
    calls = bench.submit_many(2)
    bench.run()
    first.go_away(3)
    bench.submit("/new")
    bench.run()
    second = reconnect(bench)
    second.answers = True
    first.respond(1, body=b"one")
    bench.run()
    assert not first.eof
    first.head(3)
    first.data(3, b"t" * 200_000, end=True)
    bench.run()
    assert (calls[0].response.content, len(calls[1].response.content)) == (b"one", 200_000)
    assert first.eof and second.paths == ["/new"]


def test_an_upload_up_to_the_last_id_goes_on_after_the_goaway(bench: Bench) -> None:
    # python-hyper/h2#1181
    peer, body = bench.open_h2(), HandFed()
    call = bench.submit(source=body)
    bench.run()
    peer.go_away(1)
    bench.run()
    body.pipe.feed(b"after")
    body.pipe.finish()
    bench.run()
    assert peer.seen[1].body == b"after"
    peer.respond(1)
    bench.run()
    assert call.response.ok


def test_a_goaway_with_nothing_open_closes_the_connection(bench: Bench) -> None:
    peer = bench.open_h2()
    peer.go_away(0)
    bench.run()
    assert peer.eof and bench.ended


def test_the_two_step_goaway_lets_everything_finish_and_resends_only_what_the_second_names(bench: Bench) -> None:
    # RELIABILITY F24
    first = bench.open_h2()
    calls = bench.submit_many(3)
    bench.run()
    first.go_away(HIGHEST_STREAM_ID)
    bench.run()
    assert not bench.dialer.pending and bench.connections[0].life is Life.DRAINING
    first.go_away(3)
    bench.run()
    second = reconnect(bench)
    assert second.paths == ["/2"]
    for peer, stream_id in ((first, 1), (first, 3), (second, 1)):
        peer.respond(stream_id)
    bench.run()
    assert all(call.response.ok for call in calls)


@pytest.mark.parametrize("code", [*range(14), 0xFF, 2**32 - 1])
def test_whatever_the_code_lower_streams_finish_and_higher_ones_are_resent(bench: Bench, code: int) -> None:
    first = bench.open_h2()
    calls = bench.submit_many(4, content=b"post")
    bench.run()
    first.go_away(3, code)
    bench.run()
    bench.advance(1)  # where the code asks for calm
    second = reconnect(bench)
    assert second.paths == ["/2", "/3"] and not first.eof  # the replacement is there before the drained one is gone
    for peer in (first, second):
        for stream_id in (1, 3):
            peer.respond(stream_id)
    bench.run()
    assert all(call.response.ok for call in calls) and first.eof


def test_a_second_goaway_with_a_lower_id_gives_back_the_rest_and_nothing_twice(bench: Bench) -> None:
    # RELIABILITY F23
    first = bench.open_h2()
    calls = bench.submit_many(4)
    bench.run()
    for last_id in (5, 1, 1):
        first.go_away(last_id)
        bench.run()
    second = reconnect(bench)
    assert second.paths == ["/1", "/2", "/3"]
    second.answers = True
    first.respond(1)
    for stream_id in second.open_ids:
        second.respond(stream_id)
    bench.run()
    assert [len(call.response.retries) for call in calls] == [0, 1, 1, 1]


def test_a_second_goaway_with_a_higher_id_takes_nothing_back(bench: Bench) -> None:
    # RELIABILITY F23, RFC 9113 6.8: what was given back is on its way elsewhere.
    first = bench.open_h2()
    calls = bench.submit_many(2)
    bench.run()
    first.go_away(1)
    bench.run()
    first.go_away(HIGHEST_STREAM_ID)
    first.respond(1)
    first.respond(3)  # which it had denied
    bench.run()
    second = reconnect(bench)
    second.respond(1, body=b"second")
    bench.run()
    assert second.paths == ["/1"] and [call.response.text for call in calls] == ["", "second"]


def test_a_bytes_body_is_resent_from_its_beginning(bench: Bench) -> None:
    first, call = bench.open_h2(), bench.submit(content=b"b" * 100_000)
    bench.run()
    assert 0 < len(first.seen[1].body) < 100_000
    first.go_away(0)
    bench.run()
    second = reconnect(bench)
    second.grant(0, 1 << 20)
    second.grant(1, 1 << 20)
    bench.run()
    assert second.seen[1].body == b"b" * 100_000 and second.seen[1].ended
    second.respond(1)
    bench.run()
    assert call.response.ok


def test_a_replayable_upload_is_opened_anew_and_its_first_run_is_let_go(bench: Bench) -> None:
    first, body = bench.open_h2(), HandFed(replayable=True)
    bench.submit(source=body)
    bench.run()
    body.pipe.feed(b"once")
    bench.run()
    first.go_away(0)
    bench.run()
    second = reconnect(bench)
    assert len(body.pipes) == 2
    assert not body.pipes[0].feed(b"nobody wants this")
    body.pipe.feed(b"again")
    body.pipe.finish()
    bench.run()
    assert second.seen[1].body == b"again"


def test_a_body_that_cannot_be_replayed_fails_and_says_that_it_was_not_processed(bench: Bench) -> None:
    peer, body = bench.open_h2(), HandFed()
    call, other = bench.submit(source=body), bench.submit("/other")
    bench.run()
    body.pipe.feed(b"gone")
    bench.run()
    peer.go_away(0)
    bench.run()
    assert isinstance(call.error, ConnectionLost) and call.error.processed == "no"
    assert "replayed" in str(call.error)
    assert not other.done
    assert reconnect(bench).paths == ["/other"]


@pytest.mark.parametrize("how", ["GOAWAY", "REFUSED_STREAM"])
def test_a_request_is_resent_five_times_at_most(bench: Bench, how: str) -> None:
    peer, call = bench.open_h2(), bench.submit()
    bench.run()
    for sent in range(1, MAX_RESENDS + 2):
        assert len(call.exchange.resends) == sent - 1 and not call.done
        if how == "GOAWAY":
            peer.go_away(0)
            bench.run()
            bench.advance(1)  # the longest rest between two attempts
            peer = reconnect(bench) if bench.dialer.pending else peer
        else:
            peer.refuse(max(peer.seen))
            bench.run()
            bench.advance(1)
    assert isinstance(call.error, ConnectionLost)
    assert (call.error.processed, bench.loop.stats.resent) == ("no", MAX_RESENDS)
    assert MAX_RESENDS == 5 and "too often" in str(call.error)


def test_a_server_that_retires_connections_after_each_request_is_served_to_the_end(bench: Bench) -> None:
    # nginx with a small keepalive_requests: the last in line is resent more often than a refused one would be
    peer, calls = bench.open_h2(), bench.submit_many(MAX_RESENDS + 3)
    bench.run()
    for call in calls:
        peer.respond(1)
        peer.go_away(1)
        bench.run()
        assert call.done and call.error is None
        peer = reconnect(bench) if bench.dialer.pending else peer
    assert len(calls[-1].exchange.resends) > MAX_RESENDS


@pytest.mark.parametrize(("code", "counted"), [(NO_ERROR, [0, 0]), (PROTOCOL_ERROR, [1, 0])])
def test_of_a_server_that_ends_with_an_error_the_first_stream_that_it_does_not_name_counts_as_refused(
    bench: Bench, code: int, counted: list[int]
) -> None:
    # HAProxy ends so over a head that is larger than its buffer: without a bound it would end one after the other.
    peer, calls = bench.open_h2(), bench.submit_many(3)
    bench.run()
    peer.go_away(1, code)
    bench.run()
    assert [call.exchange.refusals for call in calls[1:]] == counted
    second = reconnect(bench)
    assert second.paths == ["/1", "/2"]


def test_refused_streams_keep_their_order_and_any_method_is_resent(bench: Bench) -> None:
    # RFC 9113 8.7
    peer = bench.open_h2()
    bench.submit_many(4, content=b"post")
    bench.run()
    for stream_id in (7, 3, 5):
        peer.refuse(stream_id)
    bench.run()
    assert peer.paths == ["/0", "/1", "/2", "/3", "/1", "/2", "/3"]


def test_a_stream_that_was_answered_is_never_resent(bench: Bench) -> None:
    peer, call = bench.open_h2(), bench.submit(stream=True)
    bench.run()
    peer.head(1)
    bench.run()
    peer.refuse(1, REFUSED_STREAM)
    bench.run()
    with pytest.raises(StreamReset) as caught:
        next(call.response.iter_raw())
    assert caught.value.processed == "maybe" and len(peer.seen) == 1


def test_a_lost_connection_resends_nothing_that_may_have_been_processed(bench: Bench) -> None:
    peer, call = bench.open_h2(), bench.submit()
    bench.run()
    peer.close()
    bench.run()
    assert isinstance(call.error, ConnectionLost) and call.error.processed == "maybe"


def test_what_is_cancelled_while_it_waits_to_be_resent_is_not_resent(bench: Bench) -> None:
    first, call = bench.open_h2(), bench.submit()
    bench.run()
    first.go_away(0)
    bench.run()
    call.future.cancel()
    second = bench.connect_h2()
    bench.run()
    assert not second.seen and bench.loop.stats.queued == 0


def test_what_times_out_in_the_turn_in_which_it_is_given_back_is_not_resent(make_bench: MakeBench) -> None:
    bench = make_bench()
    first = bench.open_h2(MAX_CONCURRENT_STREAMS=1)
    call = bench.submit(timeout=Timeout(5))
    bench.submit("/second")
    bench.run()
    second = bench.connect_h2()  # has a free slot when the first one gives its stream back
    bench.run()
    first.go_away(0)
    first.flush()
    bench.advance(5)
    assert call.done and call.error.phase == "total"
    assert second.paths == ["/second"]


def test_a_resent_request_has_its_total_timeout_from_its_submit_on(bench: Bench) -> None:
    first, call = bench.open_h2(), bench.submit(timeout=Timeout(10))
    bench.run()
    bench.advance(6)
    first.go_away(0)
    bench.run()
    reconnect(bench)
    bench.advance(4)
    assert call.error.phase == "total"


def test_a_resent_request_has_its_read_timeout_anew(bench: Bench) -> None:
    first, call = bench.open_h2(), bench.submit(timeout=Timeout(pool=None, connect=None, read=10))
    bench.run()
    bench.advance(6)
    first.go_away(0)
    bench.run()
    reconnect(bench)
    bench.advance(6)
    assert not call.done
    bench.advance(4)
    assert isinstance(call.error, ReadTimeout) and call.error.spent_s == {"read": 16.0, "pool": 0.0}


def test_when_the_stream_ids_are_used_up_a_new_connection_takes_over(bench: Bench) -> None:
    # RFC 9113 5.1.1, RELIABILITY F27
    first = bench.open_h2()
    connection = bench.connections[0]
    assert isinstance(connection, Http2Connection)
    connection._h2._machine.highest_outbound_stream_id = HIGHEST_STREAM_ID - 2
    first.deaf = True  # which counts ids from 1
    last, next_one = bench.submit("/last"), bench.submit("/next")
    bench.run()
    assert connection.life is Life.DRAINING
    second = reconnect(bench)
    second.respond(1)
    bench.run()
    assert next_one.response.ok and not last.done
    assert last.stream_id == HIGHEST_STREAM_ID


def test_retiring_drains_every_connection_and_serves_what_still_comes(bench: Bench) -> None:
    first, open_one = bench.open_h2(), bench.submit("/open")
    bench.run()
    bench.put(messages.Retire())
    bench.submit("/late")
    bench.run()
    second = reconnect(bench)
    second.answers = True
    first.respond(1)
    bench.run()
    assert open_one.response.ok and first.eof and second.paths == ["/late"]


def test_a_stream_reset_with_cancel_is_not_resent(bench: Bench) -> None:
    peer, call = bench.open_h2(), bench.submit()
    bench.run()
    peer.refuse(1, CANCEL)
    bench.run()
    assert isinstance(call.error, StreamReset) and len(peer.seen) == 1
