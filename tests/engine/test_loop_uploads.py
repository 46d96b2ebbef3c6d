"""Request bodies over HTTP/2: turns, windows, and every way in which an upload ends early."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from engine_bench import CANCEL, NO_ERROR, Bench, Endless, HandFed
from hyperframe.frame import DataFrame, WindowUpdateFrame

from hyperpool.engine.connection import BACKLOG_BYTES, LEAST_PIECE_BYTES
from hyperpool.engine.h2_uploads import TURN_BYTES
from hyperpool.errors import HyperpoolError, LocalProtocolError, StreamReset

MakeBench = Callable[..., Bench]
FRAME_BYTES = 1 << 14


def test_a_body_is_sent_whole_with_its_length_and_ends_its_stream(bench: Bench) -> None:
    peer, body = bench.open_h2(), bytes(range(256)) * 200
    call = bench.submit(content=body)
    bench.run()
    assert (peer.seen[1].body, peer.seen[1].ended) == (body, True)
    assert peer.seen[1].fields["content-length"] == str(len(body))
    peer.respond(1)
    bench.run()
    assert call.response.ok


def test_a_streamed_body_goes_out_as_it_comes(bench: Bench) -> None:
    peer, body = bench.open_h2(), HandFed()
    bench.submit(source=body)
    bench.run()
    for piece in (b"one", b"two"):
        body.pipe.feed(piece)
        bench.run()
        assert peer.seen[1].body.endswith(piece) and not peer.seen[1].ended
    body.pipe.finish()
    bench.run()
    assert peer.seen[1].ended and "content-length" not in peer.seen[1].fields


def test_uploads_take_turns_a_frame_each(bench: Bench) -> None:
    peer = bench.open_h2(INITIAL_WINDOW_SIZE=1 << 20)
    peer.grant(0, 1 << 24)
    bench.run()
    for _ in range(3):
        bench.submit(content=bytes(5 * FRAME_BYTES))
    bench.run()
    assert [frame.stream_id for frame in peer.heard(DataFrame)] == [1, 3, 5] * 5


def test_an_upload_that_is_alone_goes_out_in_frames_of_the_peers_size(bench: Bench) -> None:
    peer = bench.open_h2(INITIAL_WINDOW_SIZE=1 << 20)
    peer.grant(0, 1 << 24)
    bench.run()
    body = bytes(range(250)) * 800
    bench.submit(content=body)
    bench.run()
    assert peer.seen[1].body == body
    assert [len(frame.data) for frame in peer.heard(DataFrame)] == [*12 * [FRAME_BYTES], len(body) - 12 * FRAME_BYTES]


def test_no_frame_is_so_large_that_others_would_wait_behind_it(bench: Bench) -> None:
    """RFC 9113 4.2: what a peer takes is not what it must be sent; nginx takes 16 MiB."""
    peer = bench.open_h2(INITIAL_WINDOW_SIZE=1 << 24, MAX_FRAME_SIZE=(1 << 24) - 1)
    peer.grant(0, 1 << 24)
    bench.run()
    for _ in range(2):
        bench.submit(content=bytes(1_000_000))
    bench.run()
    assert peer.seen[1].body == peer.seen[3].body == bytes(1_000_000)
    assert max(len(frame.data) for frame in peer.heard(DataFrame)) == TURN_BYTES


def test_a_request_is_not_kept_waiting_by_an_endless_upload(bench: Bench) -> None:
    peer = bench.open_h2(INITIAL_WINDOW_SIZE=1 << 30)
    peer.grant(0, 1 << 30)
    bench.run()
    upload, request = bench.submit(source=Endless()), bench.submit("/quick")
    for _ in range(20):
        bench.step()
        peer.carry()
    peer.respond(3)
    peer.carry()
    for _ in range(20):
        bench.step()
        peer.carry()
    assert request.response.ok
    upload.future.cancel()
    bench.run()


@pytest.mark.parametrize("http2", [True, False])
def test_tiny_pieces_are_no_more_in_one_turn_than_small_ones(bench: Bench, http2: bool) -> None:
    """A generator of single bytes gave a turn a quarter of a million of them: others waited for seconds."""
    if http2:
        bench.open_h2().grant(0, 1 << 20)
    else:
        bench.open_h1()
    bench.run()
    source = Endless(most_bytes=1)
    upload = bench.submit(source=source)
    before, turns = 0, []
    for _ in range(5):
        bench.step()
        turns.append(source.taken - before)
        before = source.taken
    assert min(turns) > 0 and max(turns) <= BACKLOG_BYTES // LEAST_PIECE_BYTES
    upload.future.cancel()
    bench.run()


def test_an_upload_stops_at_its_streams_window_and_goes_on_with_a_window_update(bench: Bench) -> None:
    peer = bench.open_h2(INITIAL_WINDOW_SIZE=1000)
    bench.submit(content=bytes(1500))
    bench.run()
    assert len(peer.seen[1].body) == 1000
    peer.grant(1, 499)
    bench.run()
    assert len(peer.seen[1].body) == 1499 and not peer.seen[1].ended
    peer.grant(1, 100)
    bench.run()
    assert len(peer.seen[1].body) == 1500 and peer.seen[1].ended


def test_all_uploads_together_stop_at_the_connections_window(bench: Bench) -> None:
    peer = bench.open_h2(INITIAL_WINDOW_SIZE=1 << 20)
    for _ in range(3):
        bench.submit(content=bytes(50_000))
    bench.run()
    assert sum(len(seen.body) for seen in peer.seen.values()) == 65_535
    peer.grant(0, 100_000)
    bench.run()
    assert [len(seen.body) for seen in peer.seen.values()] == [50_000] * 3


def test_one_upload_with_a_shut_window_does_not_stop_another(bench: Bench) -> None:
    peer = bench.open_h2(INITIAL_WINDOW_SIZE=0)
    bench.submit_many(2, content=b"body")
    bench.run()
    peer.grant(3, 4)
    bench.run()
    assert (peer.seen[1].body, peer.seen[3].body) == (b"", b"body")


def test_a_negative_window_has_to_be_filled_before_anything_goes_out(bench: Bench) -> None:
    # RFC 9113 6.9.2, RELIABILITY F26
    peer = bench.open_h2(INITIAL_WINDOW_SIZE=20_000)
    bench.submit(content=bytes(30_000))
    bench.run()
    peer.greet(INITIAL_WINDOW_SIZE=10_000)  # -10,000
    bench.run()
    peer.grant(1, 10_000)
    bench.run()
    assert len(peer.seen[1].body) == 20_000
    peer.grant(1, 10)
    bench.run()
    assert len(peer.seen[1].body) == 20_010


def test_an_upload_goes_on_when_settings_raise_its_window(bench: Bench) -> None:
    peer = bench.open_h2(INITIAL_WINDOW_SIZE=0)
    bench.submit(content=bytes(1000))
    bench.run()
    assert peer.seen[1].body == b""
    peer.greet(INITIAL_WINDOW_SIZE=1000)
    bench.run()
    assert peer.seen[1].ended


def test_what_waits_for_a_peer_that_does_not_read_is_bounded(bench: Bench) -> None:
    peer = bench.open_h2(INITIAL_WINDOW_SIZE=1 << 30)
    peer.grant(0, 1 << 30)
    bench.run()
    peer.deaf = True
    calls = [bench.submit(source=Endless()) for _ in range(4)]
    bench.run()
    backlog_bytes = bench.connections[0].transport.backlog_bytes
    assert BACKLOG_BYTES <= backlog_bytes <= BACKLOG_BYTES * 2
    for call in calls:
        call.future.cancel()
    bench.run()


def test_frames_are_no_longer_than_the_peer_allows(bench: Bench) -> None:
    peer = bench.open_h2(MAX_FRAME_SIZE=1 << 15, INITIAL_WINDOW_SIZE=1 << 20)
    bench.submit(content=bytes(60_000))
    bench.run()
    assert peer.seen[1].pieces == [1 << 15, 60_000 - (1 << 15)]


def test_an_upload_that_has_nothing_to_send_lets_the_loop_sleep(bench: Bench) -> None:
    bench.open_h2()
    bench.submit(source=HandFed())
    bench.run()
    assert not bench.is_due


# -- early ends --------------------------------------------------------------------------------------------------------


def test_an_early_answer_is_delivered_and_ends_the_upload(bench: Bench) -> None:
    # RFC 9113 8.1, RELIABILITY F29
    peer, body = bench.open_h2(), HandFed()
    call = bench.submit(source=body)
    bench.run()
    body.pipe.feed(b"first")
    bench.run()
    peer.respond(1, 413, body=b"too large")
    bench.run()
    assert (call.response.status_code, call.response.content) == (413, b"too large")
    assert peer.seen[1].reset_code == NO_ERROR
    assert not body.pipe.feed(b"more")


def test_a_reset_with_no_error_behind_the_early_answer_changes_nothing(bench: Bench) -> None:
    peer, body = bench.open_h2(), HandFed()
    call = bench.submit(source=body)
    bench.run()
    peer.respond(1, 413)
    peer.refuse(1, NO_ERROR)
    bench.run()
    assert call.response.status_code == 413


def test_a_reset_with_no_error_before_the_answer_is_whole_is_an_error(bench: Bench) -> None:
    peer, call = bench.open_h2(), bench.submit(source=HandFed())
    bench.run()
    peer.head(1, 200)
    peer.refuse(1, NO_ERROR)
    bench.run()
    assert isinstance(call.error, StreamReset)


def test_an_answer_that_has_only_begun_lets_the_upload_go_on(bench: Bench) -> None:
    peer, body = bench.open_h2(), HandFed()
    call = bench.submit(source=body, stream=True)
    bench.run()
    peer.head(1)
    bench.run()
    body.pipe.feed(b"question")
    bench.run()
    peer.data(1, b"answer")
    bench.run()
    assert (bytes(peer.seen[1].body), call.read()) == (b"question", b"answer")
    body.pipe.finish()
    peer.data(1, end=True)
    bench.run()


def test_a_source_that_raises_resets_its_stream_and_raises_in_the_caller_alone(bench: Bench) -> None:
    peer, body = bench.open_h2(), HandFed()
    call, other = bench.submit(source=body), bench.submit("/other")
    bench.run()
    body.pipe.feed(b"part")
    bench.run()
    mine = ValueError("my generator broke")
    body.pipe.fail(mine)
    bench.run()
    peer.respond(3)
    bench.run()
    assert call.error is mine
    assert peer.seen[1].reset_code == CANCEL and not peer.seen[1].ended
    assert other.response.ok


def test_a_source_that_raises_while_its_window_is_shut_fails_at_once(bench: Bench) -> None:
    peer, body = bench.open_h2(INITIAL_WINDOW_SIZE=0), HandFed()
    call = bench.submit(source=body)
    bench.run()
    body.pipe.feed(b"waits")
    bench.run()
    body.pipe.fail(ValueError())
    bench.run()
    assert isinstance(call.error, ValueError) and peer.seen[1].reset_code == CANCEL


@pytest.mark.parametrize("pieces", [[b"12345"], [b"12345", b"678901"], [b"12345678901"]])
def test_a_body_that_is_not_as_long_as_declared_is_reset(bench: Bench, pieces: list[bytes]) -> None:
    peer, body = bench.open_h2(), HandFed(length_bytes=10)
    call, other = bench.submit(source=body), bench.submit("/other")
    bench.run()
    for piece in pieces:
        body.pipe.feed(piece)
    body.pipe.finish()
    bench.run()
    assert isinstance(call.error, LocalProtocolError) and "10 were declared" in str(call.error)
    assert len(peer.seen[1].body) <= 10 and not peer.seen[1].ended
    assert peer.seen[1].reset_code == CANCEL and not other.done


def test_where_no_uploader_can_be_started_the_request_fails_and_nobody_else(bench: Bench) -> None:
    # RELIABILITY X7
    peer = bench.open_h2()
    call, other = bench.submit(source=HandFed(starts=False)), bench.submit("/other")
    bench.run()
    assert isinstance(call.error, HyperpoolError) and isinstance(call.error.__cause__, RuntimeError)
    assert peer.seen[1].reset_code == CANCEL
    peer.respond(3)
    bench.run()
    assert other.response.ok


def test_a_window_update_for_an_ended_stream_hurts_nobody(bench: Bench) -> None:
    peer, call = bench.open_h2(), bench.submit(content=b"x")
    bench.run()
    peer.respond(1)
    peer.grant(1, 1000)
    bench.run()
    peer.send(WindowUpdateFrame(1, window_increment=5).serialize())
    bench.run()
    assert call.response.ok and len(bench.connections) == 1
