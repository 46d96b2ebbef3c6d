"""Server push: what is accepted, what is refused, and that nobody else suffers from either (RFC 9113 8.4)."""

from __future__ import annotations

import gc
from collections.abc import Callable
from concurrent.futures import CancelledError
from typing import Any

import pytest
from engine_bench import CANCEL, NO_ERROR, PATIENT, PROTOCOL_ERROR, REFUSED_STREAM, Bench, Call, H2Peer, HandFed
from hyperframe.frame import GoAwayFrame, RstStreamFrame, SettingsFrame

from hyperpool.engine.connection import Life
from hyperpool.errors import (
    ConnectionLost,
    PoolClosed,
    ReadTimeout,
    RemoteProtocolError,
    StreamReset,
    TotalTimeout,
)
from hyperpool.handoff import messages
from hyperpool.handoff.pushes import Push
from hyperpool.protocol.h2_codec import MAX_PUSHES
from hyperpool.values import Timeout

MakeBench = Callable[..., Bench]
GET = [(":method", "GET"), (":scheme", "https"), (":authority", "a.test"), (":path", "/pushed")]


@pytest.fixture
def bench(make_bench: MakeBench) -> Bench:
    """A bench whose route lets the server push."""
    return make_bench(route={"push": True})


def asked(bench: Bench, **options: Any) -> tuple[H2Peer, Call]:
    """A connection with one request on stream 1."""
    peer, call = bench.open_h2(), bench.submit(**options)
    bench.run()
    return peer, call


def promised(bench: Bench, **options: Any) -> tuple[H2Peer, Call, Push]:
    """The same, with one promise, on stream 2."""
    peer, call = asked(bench, **options)
    peer.promise(1, 2)
    bench.run()
    (push,) = call.pushes
    return peer, call, push


def still_serves(bench: Bench, peer: H2Peer) -> None:
    """The connection is as good as before."""
    peer.answers = True
    call = bench.submit("/afterwards")
    bench.run()
    assert call.response.text == "/afterwards" and peer.goaway is None


def resets(peer: H2Peer) -> dict[int, int]:
    return {frame.stream_id: frame.error_code for frame in peer.heard(RstStreamFrame)}


# -- what is accepted --------------------------------------------------------------------------------------------------


def test_a_promise_is_a_request_with_a_future_of_its_own(bench: Bench) -> None:
    peer, call = asked(bench)
    peer.promise(1, 2, fields=[*GET, ("accept", "text/css")])
    bench.run()
    (push,) = call.pushes
    assert (push.request.method, push.request.url, push.stream_id) == ("GET", "https://a.test/pushed", 2)
    assert push.request.headers == (("accept", "text/css"),) and not push.future.done()
    peer.respond(2, body=b"pushed")
    peer.respond(1, body=b"asked")
    bench.run()
    pushed = push.future.result(0)
    assert (pushed.content, pushed.stream_id, pushed.url) == (b"pushed", 2, "https://a.test/pushed")
    assert call.response.content == b"asked"


def test_a_push_goes_on_when_its_parent_has_ended(bench: Bench) -> None:
    peer, call, push = promised(bench)
    peer.respond(1)
    bench.run()
    assert call.done
    peer.respond(2, body=b"late")
    bench.run()
    assert push.future.result(0).content == b"late"


def test_who_asks_for_pushes_to_the_end_is_released_by_the_end_of_the_parent(bench: Bench) -> None:
    peer, call = asked(bench)
    peer.promise(1, 2)
    peer.promise(1, 4)
    peer.respond(1)
    bench.run()
    assert call.future.pushes is not None
    taken = list(call.future.pushes.until_the_end())
    assert [push.stream_id for push in taken] == [2, 4]
    assert list(call.future.pushes.until_the_end()) == []
    for push in taken:
        push.future.cancel()


@pytest.mark.parametrize("end", ["cancel", "reset", "loss", "close", "timeout"])
def test_who_asks_for_pushes_to_the_end_is_released_however_the_parent_ends(bench: Bench, end: str) -> None:
    # L5
    peer, call = asked(bench, timeout=Timeout(5) if end == "timeout" else PATIENT)
    if end == "cancel":
        call.future.cancel()
    elif end == "reset":
        peer.refuse(1, CANCEL)
    elif end == "loss":
        peer.close()
    elif end == "close":
        bench.put(messages.Close(bench.clock.now))
    bench.run()
    bench.advance(5)
    assert call.done and call.future.pushes is not None
    assert list(call.future.pushes.until_the_end()) == []


def test_an_http1_answer_ends_the_pushes_too(bench: Bench) -> None:
    peer, call = bench.open_h1(), bench.submit()
    bench.run()
    peer.respond()
    bench.run()
    assert call.future.pushes is not None and list(call.future.pushes.until_the_end()) == []


def test_a_request_that_waits_or_fails_in_the_queue_has_no_pushes_and_an_end(bench: Bench) -> None:
    call = bench.submit(timeout=Timeout(5))
    bench.run()
    assert call.pushes == []
    bench.advance(5)
    assert call.future.pushes is not None and list(call.future.pushes.until_the_end()) == []


def test_a_pushed_response_has_its_trailers(bench: Bench) -> None:
    peer, _, push = promised(bench)
    peer.head(2)
    peer.data(2, b"body")
    peer.trailers(2, [("checksum", "42")])
    bench.run()
    response = push.future.result(0)
    assert response.content == b"body" and response.trailers["checksum"] == "42"


@pytest.mark.parametrize("ends_with_data", [False, True])
def test_a_pushed_head_has_the_length_of_what_is_not_sent(bench: Bench, ends_with_data: bool) -> None:
    # h2 would hold the declared length against the empty body, and end the connection.
    peer, call = asked(bench)
    peer.promise(1, 2, fields=[(":method", "HEAD"), *GET[1:]])
    peer.head(2, fields=[("content-length", "1000")], end=not ends_with_data)
    if ends_with_data:
        peer.data(2, b"", end=True)
    bench.run()
    (push,) = call.pushes
    response = push.future.result(0)
    assert (response.headers["content-length"], response.content) == ("1000", b"")
    peer.respond(1)
    bench.run()
    still_serves(bench, peer)


def test_a_promise_and_all_of_its_response_in_one_read(bench: Bench) -> None:
    peer, call = asked(bench)
    peer.promise(1, 2)
    peer.respond(2, body=b"at once")
    peer.respond(1)
    bench.run()
    (push,) = call.pushes
    assert push.future.result(0).content == b"at once"


def test_the_server_is_told_how_many_pushes_may_be_open(bench: Bench, make_bench: MakeBench) -> None:
    settings = asked(bench)[0].heard(SettingsFrame)[0].settings
    assert settings[SettingsFrame.ENABLE_PUSH] == 1
    assert settings[SettingsFrame.MAX_CONCURRENT_STREAMS] == MAX_PUSHES
    without = make_bench()
    assert asked(without)[0].heard(SettingsFrame)[0].settings[SettingsFrame.ENABLE_PUSH] == 0


# -- what is refused ---------------------------------------------------------------------------------------------------


REFUSED = {
    "another origin": [*GET[:2], (":authority", "b.test"), GET[3]],
    "another port": [*GET[:2], (":authority", "a.test:8443"), GET[3]],
    "another scheme": [GET[0], (":scheme", "http"), *GET[2:]],
    "a scheme that is none": [GET[0], (":scheme", "gopher"), *GET[2:]],
    "a method that is not safe": [(":method", "POST"), *GET[1:]],
    "a body": [*GET, ("content-length", "5")],
    "userinfo": [*GET[:2], (":authority", "me@a.test"), GET[3]],
    "an authority with a path in it": [*GET[:2], (":authority", "a.test/x?"), GET[3]],
    "a path that adds to the authority": [*GET[:2], (":authority", "a.te"), (":path", "st/pushed")],
    "a path that is none": [*GET[:3], (":path", "*")],
    "a fragment": [*GET[:3], (":path", "/x#y")],
    "a port that is none": [*GET[:2], (":authority", "a.test:99999"), GET[3]],
}


@pytest.mark.parametrize("fields", REFUSED.values(), ids=REFUSED.keys())
@pytest.mark.parametrize("begun", [False, True])
def test_a_promise_that_the_server_may_not_make_is_reset(
    bench: Bench, fields: list[tuple[str, str]], begun: bool
) -> None:
    peer, call = asked(bench)
    peer.promise(1, 2, fields=fields)
    if begun:
        peer.head(2)
        peer.data(2, b"nobody wants this")
    bench.run()
    assert resets(peer) == {2: PROTOCOL_ERROR}
    peer.data(2, b"in flight", end=True) if begun else peer.respond(2, body=b"in flight")
    peer.respond(1)
    bench.run()
    assert resets(peer) == {2: PROTOCOL_ERROR} and call.pushes == [] and call.response.ok
    still_serves(bench, peer)


def test_the_default_port_and_capitals_make_no_other_origin(bench: Bench) -> None:
    peer, call = asked(bench)
    peer.promise(1, 2, fields=[*GET[:2], (":authority", "A.TEST:443"), GET[3]])
    bench.run()
    (push,) = call.pushes
    push.future.cancel()


def test_a_promise_without_an_authority_harms_nobody_but_itself(bench: Bench) -> None:
    peer, call = asked(bench)
    peer.promise(1, 2, fields=[GET[0], GET[1], GET[3]])
    peer.respond(1)
    bench.run()
    assert call.pushes == [] and call.done
    if peer.goaway is None:
        assert resets(peer) == {2: PROTOCOL_ERROR} and call.response.ok
    else:
        # h2 takes such a head for malformed (RFC 9113 8.3.1), which is its right.
        assert isinstance(call.error, RemoteProtocolError)


def test_of_more_than_a_hundred_promises_the_rest_is_refused(bench: Bench) -> None:
    peer, call = asked(bench)
    for number in range(MAX_PUSHES + 3):
        peer.promise(1, 2 + 2 * number)
    bench.run()
    assert len(call.pushes) == MAX_PUSHES
    assert resets(peer) == {2 * MAX_PUSHES + 2 * extra: REFUSED_STREAM for extra in (1, 2, 3)}
    still_serves(bench, peer)


def test_a_push_that_has_ended_makes_room_for_another(bench: Bench) -> None:
    peer, call = asked(bench)
    for number in range(MAX_PUSHES):
        peer.promise(1, 2 + 2 * number)
    peer.respond(2)
    peer.promise(1, 2 + 2 * MAX_PUSHES)
    bench.run()
    assert len(call.pushes) == MAX_PUSHES + 1 and resets(peer) == {}


def test_a_server_that_promises_without_end_costs_no_memory(bench: Bench) -> None:
    # h2 keeps what is closed until it counts, which it does for requests of ours only.
    peer, call = asked(bench)
    machine = bench.connections[0]._h2._machine  # type: ignore[attr-defined]
    for number in range(900):
        peer.promise(1, 2 + 2 * number)
        bench.run()
    assert len(machine.streams) <= MAX_PUSHES + 2
    assert len(call.pushes) == MAX_PUSHES


def test_a_promise_where_push_is_off_ends_the_connection_and_the_next_request_has_a_new_one(
    make_bench: MakeBench,
) -> None:
    # RFC 9113 8.4: a connection error
    bench = make_bench()
    first, call = asked(bench)
    call.future.add_done_callback(lambda _: bench.submit("/next"))
    first.promise(1, 2)
    bench.run()
    assert isinstance(call.error, RemoteProtocolError) and call.error.processed == "maybe"
    assert first.goaway is not None and first.goaway.error_code == PROTOCOL_ERROR
    bench.connect_h2().answers = True
    bench.run()
    assert bench.calls[1].response.text == "/next"


def test_a_promise_on_a_stream_that_the_server_has_ended_is_a_connection_error(bench: Bench) -> None:
    # RFC 9113 5.1: a promise on a stream that is closed
    peer, call = asked(bench)
    other = bench.submit("/other")
    bench.run()
    peer.respond(1)
    bench.run()
    peer.promise(1, 2)
    bench.run()
    assert call.response.ok and call.pushes == [] and isinstance(other.error, RemoteProtocolError)
    assert bench.loop.stats.connections == 0


@pytest.mark.parametrize("cleaned", [False, True])
def test_a_promise_and_its_response_that_cross_a_cancel_are_ignored(bench: Bench, cleaned: bool) -> None:
    # They were in flight when the parent was reset: h2 took the response for a request, and ended the connection.
    peer, call = asked(bench)
    other = bench.submit("/other")
    bench.run()
    call.future.cancel()
    bench.run()
    if cleaned:  # h2 forgets what is closed when it counts, as it does for each request
        bench.submit("/count").future.cancel()
        bench.run()
    peer.promise(1, 2)
    peer.head(2)
    peer.data(2, b"x" * 1000)
    bench.run()
    peer.data(2, b"x" * 1000, end=True)
    bench.run()
    assert resets(peer)[2] == REFUSED_STREAM and call.pushes == []
    assert len([frame for frame in peer.heard(RstStreamFrame) if frame.stream_id == 2]) == 1
    peer.respond(3, body=b"other")
    bench.run()
    assert other.response.content == b"other"
    still_serves(bench, peer)


def test_a_promise_that_comes_in_one_read_with_what_breaks_its_parent_is_refused(bench: Bench) -> None:
    peer, call = asked(bench)
    peer.head(1, 99)  # no status
    peer.promise(1, 2)
    bench.run()
    assert isinstance(call.error, RemoteProtocolError) and call.pushes == []
    assert resets(peer) == {1: PROTOCOL_ERROR, 2: REFUSED_STREAM}


def test_a_promise_on_a_pushed_stream_is_a_connection_error(bench: Bench) -> None:
    # RFC 9113 8.4.1 by way of 6.6: only requests of ours are pushed upon
    peer, call, push = promised(bench)
    peer.promise(2, 4)
    bench.run()
    assert isinstance(call.error, RemoteProtocolError) and isinstance(push.future.exception(0), RemoteProtocolError)


# -- how pushes end ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [REFUSED_STREAM, CANCEL])
@pytest.mark.parametrize("answered", [False, True])
def test_a_push_that_the_server_takes_back_is_an_error_and_never_a_request(
    bench: Bench, code: int, answered: bool
) -> None:
    peer, call, push = promised(bench)
    if answered:
        peer.head(2)
        bench.run()
    peer.refuse(2, code)
    peer.respond(1)
    bench.run()
    with pytest.raises(StreamReset) as caught:
        push.future.result(0).read()
    assert (caught.value.code, caught.value.stream_id) == (code, 2)
    assert call.response.ok and list(peer.seen) == [1, 2] and bench.loop.stats.resent == 0


@pytest.mark.parametrize("answered", [False, True])
def test_cancelling_a_push_resets_its_stream_and_its_parent_goes_on(bench: Bench, answered: bool) -> None:
    peer, call, push = promised(bench)
    if answered:
        peer.head(2)
        bench.run()
        push.future.result(0).close()
    else:
        assert push.future.cancel()
    bench.run()
    assert resets(peer) == {2: CANCEL}
    peer.data(2, b"in flight", end=True) if answered else peer.respond(2, body=b"in flight")
    peer.respond(1)
    bench.run()
    assert call.response.ok and push.future.cancelled() is not answered
    still_serves(bench, peer)


def test_a_reset_push_takes_no_slot_of_the_peers(make_bench: MakeBench) -> None:
    # RFC 9113 5.1.2: each side counts the streams that it has opened itself.
    bench = make_bench(route={"push": True}, max_connections_per_origin=1)
    peer = bench.open_h2(MAX_CONCURRENT_STREAMS=2)
    peer.pongs = False
    bench.submit("/0")
    bench.run()
    peer.promise(1, 2)
    peer.promise(1, 4)
    bench.run()
    for push in bench.calls[0].pushes:
        push.future.cancel()
    bench.submit("/1")
    bench.run()
    assert peer.paths == ["/0", "/pushed", "/pushed", "/1"]
    assert peer.pings == 1  # a connection on which pushes are ended early may be dead, as with any other


def test_open_pushes_leave_the_peers_slots_alone(make_bench: MakeBench) -> None:
    bench = make_bench(route={"push": True}, max_connections_per_origin=1)
    peer = bench.open_h2(MAX_CONCURRENT_STREAMS=2)
    bench.submit("/0")
    bench.run()
    for stream_id in (2, 4, 6):
        peer.promise(1, stream_id)
    bench.run()
    assert bench.loop.stats.open_streams == 4 and not bench.loop.stats.idle
    bench.submit_many(2)
    bench.run()
    assert peer.most_open == 2 and bench.loop.stats.queued == 1
    for push in bench.calls[0].pushes:
        push.future.cancel()
    bench.run()
    assert bench.loop.stats.open_streams == 2


@pytest.mark.parametrize("read", [None, 5.0])
def test_a_push_has_the_timeouts_of_its_parent_from_the_promise_on(bench: Bench, read: float | None) -> None:
    timeout = Timeout(None if read else 8.0, read=read)
    peer, call = asked(bench, timeout=timeout)
    bench.advance(4)
    peer.promise(1, 2)
    peer.respond(1)
    bench.run()
    (push,) = call.pushes
    bench.advance(4.5)
    assert not push.future.done()
    bench.advance(4)
    assert isinstance(push.future.exception(0), ReadTimeout if read else TotalTimeout)
    assert resets(peer) == {2: CANCEL} and call.response.ok


def test_a_promise_is_no_answer_to_its_parent(bench: Bench) -> None:
    peer, call = asked(bench, timeout=Timeout(read=5))
    bench.advance(4)
    peer.promise(1, 2)
    bench.run()
    bench.advance(1)
    assert isinstance(call.error, ReadTimeout) and resets(peer)[1] == CANCEL
    (push,) = call.pushes
    peer.respond(2, body=b"goes on")
    bench.run()
    assert push.future.result(0).content == b"goes on"


def test_a_lost_connection_ends_its_pushes_too(bench: Bench) -> None:
    peer, call, push = promised(bench)
    peer.promise(1, 4)
    peer.head(4)
    peer.data(4, b"half")
    bench.run()
    (begun,) = call.pushes
    peer.close()
    bench.run()
    errors = [call.error, push.future.exception(0)]
    assert all(isinstance(error, ConnectionLost) for error in errors) and errors[0] is not errors[1]
    pieces = begun.future.result(0).iter_raw()
    assert next(pieces) == b"half"
    with pytest.raises(ConnectionLost) as caught:
        next(pieces)
    assert caught.value.stream_id == 4


def test_a_goaway_does_not_speak_of_pushes(bench: Bench) -> None:
    # RFC 9113 6.8: its id is one of ours
    first, call = asked(bench)
    other = bench.submit("/other")
    bench.run()
    first.promise(1, 2)
    first.promise(1, 4)
    first.go_away(1)
    bench.run()
    assert len(call.pushes) == 2
    second = bench.connect_h2()
    bench.run()
    assert second.paths == ["/other"]
    first.respond(1)
    first.respond(2)
    bench.run()
    assert call.response.ok and not first.eof
    first.respond(4)
    bench.run()
    assert first.eof  # with the last of them (L10)
    second.respond(1)
    bench.run()
    assert other.response.ok


def test_a_parent_that_is_resent_keeps_what_was_pushed_and_gets_more(bench: Bench) -> None:
    # No server should do this: a promise belongs to a request that it acts on.
    peer, call = asked(bench)
    peer.promise(1, 2)
    peer.refuse(1)
    bench.run()
    peer.promise(3, 4)
    peer.respond(3)
    bench.run()
    assert [push.stream_id for push in call.pushes] == [2, 4] and call.response.ok


# -- unread pushes -----------------------------------------------------------------------------------------------------


def test_unread_pushes_stop_at_their_windows_and_leave_the_rest_alone(make_bench: MakeBench) -> None:
    # L8
    bench = make_bench(route={"push": True}, stream_window_bytes=65_535)
    peer, call = asked(bench)
    sent = 0
    for stream_id in range(2, 22, 2):
        peer.promise(1, stream_id)
        peer.head(stream_id)
        bench.run()
        sent += peer.fill_window(stream_id)
        bench.run()
    pushes = call.pushes
    assert sent == 10 * 65_535 and all(peer.stream_credit[push.stream_id] == 0 for push in pushes)
    still_serves(bench, peer)
    assert peer.connection_credit > 32 << 20
    held = pushes[0].future.result(0)
    pieces = held.iter_raw()
    while peer.stream_credit[2] == 0:
        next(pieces)
        bench.run()
    for push in pushes:
        push.future.result(0).close()
    bench.run()
    assert set(resets(peer)) == {push.stream_id for push in pushes}


def test_a_push_that_is_forgotten_is_reset_without_a_warning(bench: Bench) -> None:
    # L8: its window would be held until the connection ends. A ResourceWarning would be an error here.
    peer, call = asked(bench)
    peer.promise(1, 2)
    peer.promise(1, 4)
    peer.head(2)
    peer.data(2, b"nobody reads this")
    bench.run()
    for push in call.pushes:
        del push
    gc.collect()
    bench.run()
    assert resets(peer) == {2: CANCEL}
    peer.head(4)  # it is forgotten when there is something to forget
    bench.run()
    gc.collect()
    bench.run()
    assert resets(peer) == {2: CANCEL, 4: CANCEL}
    peer.respond(1)
    bench.run()
    assert call.response.ok


def test_pushes_that_nobody_takes_go_with_their_requests_future(bench: Bench) -> None:
    peer, call = asked(bench)
    peer.promise(1, 2)
    peer.head(2)
    peer.respond(1)
    bench.run()
    bench.calls.remove(call)
    bench.carried.clear()
    del call
    gc.collect()
    bench.run()
    assert resets(peer) == {2: CANCEL}


# -- drains and ends ---------------------------------------------------------------------------------------------------


def test_a_connection_past_its_age_finishes_its_pushes_and_closes_with_the_last(make_bench: MakeBench) -> None:
    bench = make_bench(route={"push": True}, max_age_s=50, ping_after_s=None)
    peer, call, push = promised(bench)
    peer.respond(1)
    bench.run()
    bench.advance(60)
    assert bench.connections[0].life is Life.DRAINING and not peer.eof
    peer.respond(2, body=b"to the end")
    bench.run()
    assert peer.eof and push.future.result(0).content == b"to the end" and call.response.ok


def test_a_draining_connection_does_not_wait_for_ever_for_a_promise_that_is_not_kept(bench: Bench) -> None:
    peer, call, push = promised(bench, timeout=Timeout(read=60))
    peer.respond(1)
    bench.put(messages.Retire())
    bench.run()
    assert call.response.ok and not peer.eof
    peer.pongs = True
    for _ in range(4):
        bench.advance(15)
    assert isinstance(push.future.exception(0), ReadTimeout) and peer.eof and bench.ended


def test_pushes_keep_a_connection_from_being_idle(make_bench: MakeBench) -> None:
    bench = make_bench(route={"push": True}, ping_after_s=None)
    peer, _, push = promised(bench)
    peer.respond(1)
    bench.run()
    bench.advance(200)
    assert not peer.eof
    peer.respond(2)
    bench.run()
    bench.advance(89)
    assert push.future.result(0).ok and not peer.eof
    bench.advance(1)
    assert peer.eof


def test_a_dead_peer_is_found_while_only_pushes_are_open(bench: Bench) -> None:
    # L12
    peer, _, push = promised(bench)
    peer.respond(1)
    bench.run()
    peer.pongs = False
    bench.advance(15)
    assert peer.pings == 1
    bench.advance(10)
    assert isinstance(push.future.exception(0), ConnectionLost)


def test_close_gives_pushes_their_grace_and_then_ends_them(bench: Bench) -> None:
    peer, call, push = promised(bench)
    peer.promise(1, 4)
    peer.head(4)
    peer.respond(1)
    bench.run()
    (begun,) = call.pushes
    bench.put(messages.Close(bench.clock.now + 5, 11))
    bench.run()
    assert call.response.ok and not push.future.done() and not bench.ended
    bench.advance(5)
    assert isinstance(push.future.exception(0), PoolClosed) and bench.ended
    with pytest.raises(PoolClosed):
        begun.future.result(0).read()
    assert resets(peer) == {2: 11, 4: 11}
    assert [frame.error_code for frame in peer.heard(GoAwayFrame)] == [11]


def test_a_close_waits_for_nobody_who_reads_a_push(bench: Bench) -> None:
    # Its Future is resolved: as with every streamed response, what is unread by then is cut off.
    peer, _, push = promised(bench)
    peer.head(2)
    peer.respond(1)
    bench.run()
    bench.put(messages.Close(bench.clock.now + 5))
    bench.run()
    assert bench.ended
    with pytest.raises(PoolClosed):
        push.future.result(0).read()


def test_a_drain_at_exit_hears_when_pushes_are_answered(bench: Bench) -> None:
    peer, _, push = promised(bench)
    answered: list[bool] = []
    bench.put(messages.Drain(lambda: answered.append(True)))
    peer.respond(1)
    bench.run()
    assert not answered
    peer.respond(2)
    bench.run()
    assert answered and push.future.result(0).ok


def test_a_crash_settles_pushes_as_well(bench: Bench) -> None:
    # L5
    _, call, push = promised(bench)
    bench.put("no message")
    bench.run_in_thread()
    for error in (call.error, push.future.exception(0)):
        assert "bug in hyperpool" in str(error)
    assert call.future.pushes is not None and list(call.future.pushes.until_the_end()) == []


def test_an_answer_before_the_end_of_the_upload_ends_the_promises(bench: Bench) -> None:
    peer, call, push = promised(bench, source=HandFed())
    peer.respond(1)
    bench.run()
    assert call.response.ok and resets(peer) == {1: NO_ERROR}
    assert call.future.pushes is not None and list(call.future.pushes.until_the_end()) == []
    peer.respond(2)
    bench.run()
    assert push.future.result(0).ok


def test_a_cancelled_parent_leaves_its_pushes(bench: Bench) -> None:
    peer, call, push = promised(bench)
    call.future.cancel()
    bench.run()
    assert isinstance(call.error, CancelledError) and resets(peer) == {1: CANCEL}
    peer.respond(2)
    bench.run()
    assert push.future.result(0).ok
