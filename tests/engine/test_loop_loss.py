"""A peer that dies, lies or falls silent: every exchange ends once, with its own error (L5), and on time (L12)."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from engine_bench import CANCEL, NO_ERROR, Bench, Call, Endless, H2Peer, HandFed
from hyperframe.frame import PingFrame

from hyperpool.engine.connection import Life
from hyperpool.errors import ConnectionLost, HyperpoolError, RemoteProtocolError
from hyperpool.handoff.body import Piece
from hyperpool.values import Timeout

MakeBench = Callable[..., Bench]


def assert_all_lost(calls: list[Call], kind: type[HyperpoolError]) -> None:
    found = [call.error for call in calls]
    assert all(type(error) is kind for error in found), found
    assert len({id(error) for error in found}) == len(found)  # an instance each: tracebacks are not shared
    assert all(error.origin == "https://a.test" and error.processed == "maybe" for error in found)
    assert [error.stream_id for error in found] == [call.stream_id for call in calls]


def eof(peer: H2Peer) -> None:
    peer.close()


def garbage(peer: H2Peer) -> None:
    peer.send(b"\xde\xad\xbe\xef" * 100)


def frame_too_long(peer: H2Peer) -> None:
    peer.send(b"\x7f\xff\xff" + b"\0" * 6)


def headers_of_an_idle_stream(peer: H2Peer) -> None:
    peer.send(b"\0\0\1\1\5\0\0\0\x63\x88")


@pytest.mark.parametrize(
    ("death", "kind"),
    [
        (eof, ConnectionLost),
        (garbage, RemoteProtocolError),
        (frame_too_long, RemoteProtocolError),
        (headers_of_an_idle_stream, RemoteProtocolError),
    ],
)
def test_when_the_peer_dies_every_exchange_ends_once_with_its_own_error(
    bench: Bench, death: Callable[[H2Peer], None], kind: type[HyperpoolError]
) -> None:
    peer = bench.open_h2()
    calls = [*bench.submit_many(5), bench.submit(source=HandFed()), bench.submit(content=bytes(100_000))]
    bench.run()
    peer.head(3)
    peer.data(3, b"half")
    death(peer)
    bench.run()
    assert_all_lost(calls, kind)
    assert bench.ended and not bench.connections


def test_a_reset_connection_names_its_cause(bench: Bench) -> None:
    peer = bench.open_h2()
    peer.deaf = True
    calls = bench.submit_many(3)
    bench.run()
    peer.reset()
    bench.run()
    assert_all_lost(calls, ConnectionLost)
    assert all(isinstance(call.error.__cause__, ConnectionResetError) for call in calls)


def test_a_streamed_reader_gets_what_came_and_then_the_loss(bench: Bench) -> None:
    peer, call = bench.open_h2(), bench.submit(stream=True)
    bench.run()
    peer.head(1)
    peer.data(1, b"half")
    peer.close()
    bench.run()
    pieces = call.response.iter_raw()
    assert next(pieces) == b"half"
    with pytest.raises(ConnectionLost):
        next(pieces)


def test_the_goaway_that_names_the_fault_goes_out(bench: Bench) -> None:
    peer = bench.open_h2()
    bench.submit()
    bench.run()
    garbage(peer)
    bench.run()
    assert peer.goaway is not None and peer.goaway.error_code != NO_ERROR and peer.eof


def test_http1_text_in_place_of_frames_is_named_as_such(bench: Bench) -> None:
    # RELIABILITY F1
    call = bench.submit()
    bench.run()
    peer = bench.connect_h2(greet=False)
    peer.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    bench.run()
    assert isinstance(call.error, RemoteProtocolError) and "HTTP/1" in str(call.error)


def test_a_first_frame_that_is_not_settings_is_refused(bench: Bench) -> None:
    call = bench.submit()
    bench.run()
    bench.connect_h2(greet=False).send(PingFrame(0, opaque_data=b"hyperpoo").serialize())
    bench.run()
    assert isinstance(call.error, RemoteProtocolError) and "SETTINGS" in str(call.error)


def test_a_peer_that_sends_no_settings_in_time_is_left(bench: Bench) -> None:
    call = bench.submit()
    bench.run()
    peer = bench.connect_h2(greet=False)
    bench.run()
    bench.advance(bench.limits.settings_timeout_s - 1)
    assert not call.done
    bench.advance(1)
    assert_all_lost([call], RemoteProtocolError)
    assert peer.goaway is not None and peer.goaway.error_code == 4  # SETTINGS_TIMEOUT


def test_those_who_only_waited_are_served_by_the_next_connection(make_bench: MakeBench) -> None:
    bench = make_bench(max_connections_per_origin=1)
    peer = bench.open_h2(MAX_CONCURRENT_STREAMS=1)
    calls = bench.submit_many(3)
    bench.run()
    peer.close()
    bench.run()
    second = bench.connect_h2()
    second.answers = True
    bench.run()
    assert_all_lost(calls[:1], ConnectionLost)
    assert [call.response.text for call in calls[1:]] == ["/1", "/2"]


def test_an_idle_connection_that_the_peer_closes_is_forgotten_without_a_word(bench: Bench) -> None:
    bench.open_h2().close()
    bench.run()
    assert bench.ended


# -- events and errors in one read -------------------------------------------------------------------------------------


def test_an_early_answer_before_garbage_is_delivered(bench: Bench) -> None:
    peer = bench.open_h2()
    call = bench.submit(source=HandFed())
    bench.run()
    peer.respond(1, 413)
    garbage(peer)
    bench.run()
    assert call.response.status_code == 413


class Interrupted(Endless):
    """An upload, before whose first piece the peer leaves: behind what this turn has read, before what it writes."""

    def __init__(self, leave: Callable[[], None]) -> None:
        super().__init__()
        self._leaves = [leave]

    def take(self, max_bytes: int) -> Piece:
        while self._leaves:
            self._leaves.pop()()
        return super().take(max_bytes)


def test_an_answer_is_heard_of_a_server_that_has_left_in_the_middle_of_an_upload(bench: Bench) -> None:
    # RFC 9112 9.6: it closes over what it has not read, so that the next write finds the connection broken.
    peer = bench.open_h1()

    def leave() -> None:
        peer.send(b"HTTP/1.1 413 Too Large\r\nConnection: close\r\nContent-Length: 2\r\n\r\nno")
        peer.close()

    call = bench.submit(source=Interrupted(leave))
    bench.run()
    assert (call.response.status_code, call.response.content) == (413, b"no")
    assert not bench.connections


def test_a_goaway_is_heard_of_a_server_that_has_left_in_the_middle_of_an_upload(bench: Bench) -> None:
    # L9; RFC 9113 6.8: what it says of the streams that it has not acted on must not be lost with the connection.
    peer = bench.open_h2()

    def leave() -> None:
        peer.go_away(0)
        peer.close()

    asked = bench.submit("/asked", method="POST", content=b"once")
    bench.run()
    uploading = bench.submit(source=Interrupted(leave))
    bench.run()
    assert type(uploading.error) is ConnectionLost and uploading.error.processed == "no"
    second = bench.connect_h2()
    second.answers = True
    bench.run()
    assert (asked.response.content, second.paths) == (b"/asked", ["/asked"])


def test_a_reset_says_how_far_the_response_had_come(bench: Bench) -> None:
    peer, body = bench.open_h1(), HandFed()
    call = bench.submit(source=body)
    bench.run()
    peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhi")
    bench.run()
    peer.deaf = True
    body.pipe.feed(b"unread")
    bench.run()
    peer.reset()
    bench.run()
    assert isinstance(call.error, ConnectionLost) and isinstance(call.error.__cause__, OSError)
    assert str(call.error).endswith("(after 2 of the 5 bytes of the body)")


def test_a_reader_who_is_behind_hears_of_the_loss(make_bench: MakeBench) -> None:
    # L8: what it has no room for is not read on account of a broken upload either.
    bench = make_bench(stream_window_bytes=65_535)
    peer = bench.open_h1()
    body = HandFed()
    call = bench.submit(source=body, stream=True)
    bench.run()
    peer.send(b"HTTP/1.1 200 OK\r\n\r\n" + bytes(70_000))
    bench.run()
    peer.close()
    body.pipe.feed(b"more")
    bench.run()
    pieces = call.response.iter_raw()
    assert len(next(pieces)) == 70_000
    with pytest.raises(ConnectionLost, match="the connection was lost"):
        next(pieces)


def test_data_that_is_worth_credit_before_garbage_hurts_nobody(make_bench: MakeBench) -> None:
    bench = make_bench(stream_window_bytes=65_535, connection_window_bytes=65_535)
    peer = bench.open_h2()
    calls = bench.submit_many(2)
    bench.run()
    peer.head(1)
    peer.data(1, bytes(50_000))
    garbage(peer)
    bench.run()
    assert_all_lost(calls, RemoteProtocolError)


def test_a_malformed_status_before_garbage_ends_each_exchange_once(bench: Bench) -> None:
    peer = bench.open_h2()
    calls = bench.submit_many(2)
    bench.run()
    peer._headers(1, [(":status", "2x0")], False)
    garbage(peer)
    bench.run()
    assert_all_lost(calls, RemoteProtocolError)


# -- silence -----------------------------------------------------------------------------------------------------------


def test_a_silent_peer_is_asked_and_its_pong_is_enough(bench: Bench) -> None:
    peer, call = bench.open_h2(), bench.submit()
    bench.run()
    bench.advance(14)
    assert peer.pings == 0
    bench.advance(1)
    assert peer.pings == 1
    for _ in range(10):
        bench.advance(15)
    assert peer.pings == 11 and not call.done
    peer.respond(1)
    bench.run()
    assert call.response.ok


def test_a_peer_that_does_not_answer_a_ping_is_lost(bench: Bench) -> None:
    # L12
    peer = bench.open_h2()
    peer.pongs = False
    calls = bench.submit_many(3)
    bench.run()
    bench.advance(15)
    bench.advance(9)
    assert not calls[0].done
    bench.advance(1)
    assert_all_lost(calls, ConnectionLost)
    assert "PING" in str(calls[0].error)


def test_a_wedged_connection_is_lost_though_nothing_can_be_written(bench: Bench) -> None:
    # L12: the PING itself waits behind a full output.
    peer = bench.open_h2(INITIAL_WINDOW_SIZE=1 << 30)
    peer.grant(0, 1 << 30)
    bench.run()
    peer.deaf = True
    calls = [bench.submit(source=Endless()), bench.submit()]
    bench.run()
    assert bench.connections[0].transport.backlog_bytes
    bench.advance(15)
    bench.advance(10)
    assert_all_lost(calls, ConnectionLost)
    assert bench.ended


def test_a_timed_out_stream_on_a_dead_connection_ends_the_others_within_the_ping_timeout(bench: Bench) -> None:
    peer = bench.open_h2()
    peer.deaf = True
    hasty, patient = bench.submit(timeout=Timeout(2)), bench.submit()
    bench.run()
    bench.advance(2)
    bench.advance(10)
    assert hasty.error.phase == "total"
    assert_all_lost([patient], ConnectionLost)


def test_an_idle_connection_is_not_asked(bench: Bench) -> None:
    peer = bench.open_h2()
    bench.advance(80)
    assert peer.pings == 0 and not peer.eof


def test_where_ping_after_s_is_none_silence_is_never_asked_about(make_bench: MakeBench) -> None:
    bench = make_bench(ping_after_s=None)
    peer, call = bench.open_h2(), bench.submit()
    bench.run()
    bench.advance(1000)
    assert peer.pings == 0 and not call.done


def test_a_connection_past_its_age_still_asks_and_the_loop_does_not_spin(make_bench: MakeBench) -> None:
    bench = make_bench(max_age_s=100)
    peer, call = bench.open_h2(), bench.submit()
    bench.run()
    bench.advance(120)
    assert bench.connections[0].life is Life.DRAINING
    before = peer.pings
    bench.advance(15)
    assert peer.pings == before + 1
    peer.pongs = False
    bench.advance(15)
    bench.advance(10)
    assert_all_lost([call], ConnectionLost)


def test_a_cancelled_streams_reset_is_not_sent_into_a_lost_connection(bench: Bench) -> None:
    peer, call = bench.open_h2(), bench.submit()
    bench.run()
    peer.close()
    call.future.cancel()
    bench.run()
    assert call.future.cancelled() and peer.seen[1].reset_code in (None, CANCEL)
