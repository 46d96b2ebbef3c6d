"""The same loop over HTTP/1.1: one exchange at a time on each connection, and the socket is all there is to say no."""

from __future__ import annotations

import socket
from collections.abc import Callable
from concurrent.futures import CancelledError
from typing import Any

import pytest
from engine_bench import Bench, Call, Endless, H1Peer, HandFed

from hyperpool.engine.connection import BACKLOG_BYTES, NEVER_WRITTEN, Life
from hyperpool.engine.http1 import Http1Connection
from hyperpool.engine.reports import Reports
from hyperpool.errors import (
    ConnectionLost,
    LocalProtocolError,
    PoolTimeout,
    ReadTimeout,
    RemoteProtocolError,
    WriteTimeout,
)
from hyperpool.handoff import messages
from hyperpool.handoff.exchange import Exchange, State
from hyperpool.values import Timeout

MakeBench = Callable[..., Bench]


def busy(bench: Bench, peer: H1Peer) -> None:
    """Use the connection once, so that it is a kept-alive one."""
    call = bench.submit("/warm")
    bench.run()
    peer.respond()
    bench.run()
    assert call.response.ok


# -- responses ---------------------------------------------------------------------------------------------------------


def test_a_request_is_sent_and_answered(bench: Bench) -> None:
    call = bench.submit("/hello?x=1", headers=(("X-Mine", "yes"),))
    bench.run()
    peer = bench.connect_h1()
    bench.run()
    (request,) = peer.requests
    assert (request.method, request.path) == ("GET", "/hello?x=1")
    assert request.fields == {"host": "a.test", "x-mine": "yes"}
    peer.respond(body=b"world", fields=[("Y", "z")])
    bench.run()
    response = call.response
    assert (response.status_code, response.content, response.headers["y"]) == (200, b"world", "z")
    assert (response.http_version, response.stream_id, response.reason) == ("HTTP/1.1", None, "")


def test_a_chunked_body_has_its_trailers(bench: Bench) -> None:
    peer, call = bench.open_h1(), bench.submit()
    bench.run()
    peer.head(200, [("Transfer-Encoding", "chunked")])
    peer.data(b"one ")
    peer.data(b"two")
    bench.run()
    assert not call.done
    peer.end([("checksum", "42")])
    bench.run()
    assert (call.response.content, call.response.trailers["checksum"]) == (b"one two", "42")


def test_interim_responses_are_skipped_and_keep_the_exchange_alive(bench: Bench) -> None:
    peer, call = bench.open_h1(), bench.submit(timeout=Timeout(read=5))
    bench.run()
    bench.advance(4)
    peer.send(b"HTTP/1.1 103 Early Hints\r\nLink: </s.css>\r\n\r\n")
    bench.run()
    bench.advance(4)
    peer.respond(body=b"final")
    bench.run()
    assert call.response.content == b"final"


@pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("GET", 204), ("GET", 304)])
def test_a_response_that_has_no_content_ends_with_its_head_and_keeps_the_connection(
    bench: Bench, method: str, status: int
) -> None:
    peer, call = bench.open_h1(), bench.submit(method=method)
    bench.run()
    length = b"" if status == 204 else b"Content-Length: 1000\r\n"
    peer.send(b"HTTP/1.1 %d X\r\n%s\r\n" % (status, length))
    bench.run()
    assert (call.response.status_code, call.response.content) == (status, b"")
    assert len(bench.connections) == 1


def test_a_streamed_response_resolves_at_its_head(bench: Bench) -> None:
    peer, call = bench.open_h1(), bench.submit(stream=True)
    bench.run()
    peer.head(200, [("Content-Length", "10")])
    bench.run()
    assert call.response.status_code == 200
    peer.data(b"12345")
    bench.run()
    assert call.read() == b"12345"
    peer.data(b"67890")
    peer.end()
    bench.run()
    assert call.read() == b"67890" and call.exchange.state is State.DONE


def test_a_body_without_framing_ends_with_the_connection(bench: Bench) -> None:
    # RFC 9112 6.3
    peer, call = bench.open_h1(), bench.submit()
    bench.run()
    peer.send(b"HTTP/1.1 200 OK\r\n\r\nuntil the end")
    bench.run()
    assert not call.done
    peer.close()
    bench.run()
    assert call.response.content == b"until the end"


@pytest.mark.parametrize("head", [b"Content-Length: 10\r\n", b"Transfer-Encoding: chunked\r\n"])
def test_a_body_that_the_connection_cuts_short_is_never_a_success(bench: Bench, head: bytes) -> None:
    peer, call = bench.open_h1(), bench.submit()
    bench.run()
    peer.send(b"HTTP/1.1 200 OK\r\n" + head + b"\r\n5\r\n123")
    peer.close()
    bench.run()
    assert isinstance(call.error, ConnectionLost) and call.error.processed == "maybe"


def test_garbage_is_an_error_of_the_peer_and_never_resent(bench: Bench) -> None:
    peer = bench.open_h1()
    busy(bench, peer)
    call = bench.submit()
    bench.run()
    peer.send(b"SSH-2.0-OpenSSH\r\n\r\n")
    bench.run()
    assert isinstance(call.error, RemoteProtocolError) and peer.eof


# -- which connection --------------------------------------------------------------------------------------------------


def test_a_kept_alive_connection_is_used_again(bench: Bench) -> None:
    peer = bench.open_h1()
    peer.answers = True
    for number in range(5):
        call = bench.submit(f"/{number}")
        bench.run()
        assert call.response.text == f"/{number}"
    assert bench.dialer.started == 1 and peer.paths == ["/0", "/1", "/2", "/3", "/4"]


def test_requests_are_never_pipelined(make_bench: MakeBench) -> None:
    bench = make_bench(max_http1_connections_per_origin=1)
    peer = bench.open_h1()
    bench.submit_many(3)
    bench.run()
    for number in range(3):
        assert peer.paths == [f"/{one}" for one in range(number + 1)]
        peer.respond()
        bench.run()
    assert all(call.response.ok for call in bench.calls) and bench.dialer.started == 1


def test_each_waiting_request_gets_a_connection_up_to_the_cap_and_the_rest_wait(make_bench: MakeBench) -> None:
    bench = make_bench(max_http1_connections_per_origin=3)
    first = bench.open_h1()
    calls = bench.submit_many(10)
    bench.run()
    assert bench.dialer.started == 3
    peers = [first, bench.connect_h1(), bench.connect_h1()]
    bench.run()
    assert len(bench.connections) == 3 and bench.loop.stats.queued == 7
    for peer in peers:
        peer.answers = True
        peer.respond()
    bench.run()
    assert all(call.response.ok for call in calls)
    assert bench.dialer.started == 3


def test_before_the_origins_version_is_known_one_dial_is_made(bench: Bench) -> None:
    bench.submit_many(5)
    bench.run()
    assert bench.dialer.started == 1
    bench.connect_h1()
    bench.run()
    assert bench.dialer.started == 5


def test_those_who_wait_for_a_connection_time_out_in_the_pool_phase(make_bench: MakeBench) -> None:
    bench = make_bench(max_http1_connections_per_origin=1)
    bench.open_h1()
    bench.submit()
    call = bench.submit(timeout=Timeout(pool=5))
    bench.run()
    bench.advance(5)
    assert isinstance(call.error, PoolTimeout)


@pytest.mark.parametrize("how", [[("Connection", "close")], []])
def test_a_connection_that_ends_with_its_response_is_not_used_again(bench: Bench, how: list[tuple[str, str]]) -> None:
    peer, call = bench.open_h1(), bench.submit()
    bench.run()
    version = b"HTTP/1.1" if how else b"HTTP/1.0"
    fields = b"".join(b"%s: %s\r\n" % (name.encode(), value.encode()) for name, value in how)
    peer.send(version + b" 200 OK\r\nContent-Length: 2\r\n" + fields + b"\r\nok")
    following = bench.submit("/next")
    bench.run()
    assert call.response.content == b"ok" and peer.eof
    bench.connect_h1().answers = True
    bench.run()
    assert following.response.ok


def test_an_idle_connection_is_closed_and_the_loop_ends(bench: Bench) -> None:
    peer = bench.open_h1()
    busy(bench, peer)
    bench.advance(89)
    assert not peer.eof
    bench.advance(1)
    assert peer.eof and bench.ended


def test_past_its_age_a_connection_closes_when_its_exchange_is_done(make_bench: MakeBench) -> None:
    bench = make_bench(max_age_s=50)
    peer, call = bench.open_h1(), bench.submit()
    bench.run()
    bench.advance(60)
    peer.respond()
    bench.run()
    assert call.response.ok and peer.eof


def test_retiring_closes_the_idle_and_drains_the_busy(bench: Bench) -> None:
    first, call = bench.open_h1(), bench.submit()
    bench.run()
    idle = bench.open_h1()
    bench.put(messages.Retire())
    bench.run()
    assert idle.eof and not first.eof
    first.respond()
    bench.run()
    assert call.response.ok and bench.ended


# -- stale connections -------------------------------------------------------------------------------------------------


def test_an_idle_connection_that_the_peer_closed_is_not_used(bench: Bench) -> None:
    peer = bench.open_h1()
    busy(bench, peer)
    peer.close()
    call = bench.submit("/next")
    bench.run()
    second = bench.connect_h1()
    second.answers = True
    bench.run()
    assert call.response.ok and call.response.retries == ()


def say_goodbye(peer: H1Peer, words: bytes = b"") -> None:
    """The peer ends, as TCP does it: who writes to it is not told."""
    peer.send(words)
    peer.flush()
    peer.sock.shutdown(socket.SHUT_WR)


def test_a_connection_that_ends_right_behind_an_answer_is_not_used(make_bench: MakeBench) -> None:
    # The selector has announced the answer alone. A POST that goes out now can never be sent again (L9).
    bench = make_bench(max_http1_connections_per_origin=1)
    peer, first = bench.open_h1(), bench.submit("/first")
    call = bench.submit("/next", method="POST", content=b"pay")
    bench.run()
    peer.respond()
    say_goodbye(peer)
    bench.run()
    second = bench.connect_h1()
    second.answers = True
    bench.run()
    assert first.response.ok and call.response.retries == ()
    assert (peer.paths, second.paths) == (["/first"], ["/next"])


def before_it_writes(bench: Bench, monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> None:
    """Something happens when a request has its connection, and before a byte of it is written."""
    start = Http1Connection.start

    def started(connection: Http1Connection, exchange: Exchange) -> None:
        monkeypatch.undo()
        start(connection, exchange)
        act()

    monkeypatch.setattr(Http1Connection, "start", started)


LAST_WORDS = {
    "nothing": b"",
    "408": b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
}


@pytest.mark.parametrize("words", LAST_WORDS)
def test_a_post_is_not_written_to_a_connection_that_the_peer_has_closed(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, words: str
) -> None:
    peer = bench.open_h1()
    busy(bench, peer)
    before_it_writes(bench, monkeypatch, lambda: say_goodbye(peer, LAST_WORDS[words]))
    call = bench.submit("/next", method="POST", content=b"pay" * 100_000)
    bench.run()
    second = bench.connect_h1()
    second.answers = True
    bench.run()
    assert call.response.ok and [each.reason for each in call.response.retries] == [NEVER_WRITTEN]
    assert (peer.paths, second.paths) == (["/warm"], ["/next"])


def go_stale(bench: Bench, peer: H1Peer) -> None:
    """The peer closes after the request has left, before an answer."""
    busy(bench, peer)
    bench.submit("/stale", method="PUT", content=b"body")
    bench.run()
    peer.close()
    bench.run()


def test_an_idempotent_request_that_a_kept_alive_connection_lost_is_resent_once(bench: Bench) -> None:
    # RFC 9112 9.3.1
    peer = bench.open_h1()
    go_stale(bench, peer)
    second = bench.connect_h1()
    bench.run()
    assert (second.paths, second.requests[0].body) == (["/stale"], b"body")
    assert bench.loop.stats.resent == 1
    second.respond()
    bench.run()
    assert len(bench.calls[-1].response.retries) == 1


def ask_one_of_two(bench: Bench) -> tuple[Call, H1Peer, H1Peer]:
    """A request on one of two kept-alive connections; its server, and that of the other."""
    peer = bench.open_h1()
    other = bench.submit("/other")
    bench.run()
    second = bench.open_h1()
    busy(bench, second)
    call = bench.submit("/stale")
    bench.run()
    peer.respond()
    bench.run()
    assert other.response.ok and second.paths[-1] == "/stale"
    return call, second, peer


def test_it_is_not_resent_twice(bench: Bench) -> None:
    call, second, peer = ask_one_of_two(bench)
    second.close()
    bench.run()
    assert peer.paths[-1] == "/stale"
    peer.close()
    bench.run()
    assert isinstance(call.error, ConnectionLost) and call.error.processed == "maybe"


def test_what_was_lost_once_goes_out_on_no_other_connection_that_has_just_closed(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A server that restarts closes all that it keeps: the second of them would cost the request.
    call, second, peer = ask_one_of_two(bench)
    requeue = Reports.requeue

    def requeued(reports: Reports, *what: Any, **how: Any) -> None:
        requeue(reports, *what, **how)
        say_goodbye(peer)

    monkeypatch.setattr(Reports, "requeue", requeued)
    second.close()
    bench.run()
    third = bench.connect_h1()
    third.answers = True
    bench.run()
    assert call.response.ok
    assert (peer.paths, third.paths) == (["/other"], ["/stale"])


def test_a_post_that_a_kept_alive_connection_lost_may_have_been_processed(bench: Bench) -> None:
    peer = bench.open_h1()
    busy(bench, peer)
    call = bench.submit(content=b"pay", method="POST")
    bench.run()
    peer.close()
    bench.run()
    assert isinstance(call.error, ConnectionLost) and call.error.processed == "maybe"
    assert bench.dialer.started == 1


# What of an answer proves that the server had the request.
BEGINNINGS = {
    "a byte": b"H",
    "a part of a status line": b"HTTP/1.1 20",
    "a part of a head": b"HTTP/1.1 200 OK\r\nContent-Le",
    "an interim head": b"HTTP/1.1 103 Early Hints\r\n\r\n",
    "an interim head and a part of a head": b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 2",
}


@pytest.mark.parametrize("beginning", BEGINNINGS)
@pytest.mark.parametrize("stream", [False, True])
def test_a_request_is_not_resent_after_the_first_byte_of_its_answer(bench: Bench, beginning: str, stream: bool) -> None:
    # T5, L9; RFC 9112 9.3.1
    peer = bench.open_h1()
    busy(bench, peer)
    call = bench.submit("/once", method="DELETE", stream=stream)
    bench.run()
    peer.send(BEGINNINGS[beginning])
    bench.run()
    peer.close()
    bench.run()
    assert isinstance(call.error, ConnectionLost) and call.error.processed == "maybe"
    assert (bench.dialer.started, peer.paths.count("/once"), bench.loop.stats.resent) == (1, 1, 0)


def test_bytes_of_the_answer_before_are_none_of_this_one(bench: Bench) -> None:
    # T5: an interim head, and a body that came in two pieces.
    peer, first = bench.open_h1(), bench.submit()
    bench.run()
    peer.send(BEGINNINGS["an interim head"] + b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbo")
    bench.run()
    peer.send(b"dy")
    bench.run()
    assert first.response.content == b"body"
    call = bench.submit("/stale", method="DELETE")
    bench.run()
    peer.close()
    bench.run()
    second = bench.connect_h1()
    second.answers = True
    bench.run()
    assert call.response.content == b"/stale"


def test_a_request_that_a_fresh_connection_lost_is_not_resent(bench: Bench) -> None:
    peer, call = bench.open_h1(), bench.submit()
    bench.run()
    peer.close()
    bench.run()
    assert isinstance(call.error, ConnectionLost) and bench.dialer.started == 1


def test_a_request_whose_answer_had_begun_is_not_resent(bench: Bench) -> None:
    peer = bench.open_h1()
    busy(bench, peer)
    call = bench.submit()
    bench.run()
    peer.head(200, [("Content-Length", "10")])
    peer.close()
    bench.run()
    assert isinstance(call.error, ConnectionLost) and bench.dialer.started == 1


def test_a_stale_connection_that_is_noticed_while_writing_is_replaced_at_once(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    peer = bench.open_h1()
    busy(bench, peer)
    before_it_writes(bench, monkeypatch, peer.sock.close)
    call = bench.submit("/again")
    bench.run()
    second = bench.connect_h1()
    second.answers = True
    bench.run()
    assert call.response.text == "/again" and len(call.response.retries) == 1


# -- uploads -----------------------------------------------------------------------------------------------------------


def test_a_body_of_unknown_length_is_chunked_and_of_known_length_counted(bench: Bench) -> None:
    peer = bench.open_h1()
    peer.answers = True
    body = HandFed()
    streamed = bench.submit(source=body)
    bench.run()
    body.pipe.feed(b"one ")
    bench.run()
    body.pipe.feed(b"two")
    body.pipe.finish()
    bench.run()
    counted = bench.submit(content=b"three")
    bench.run()
    assert streamed.response.ok and counted.response.ok
    first, second = peer.requests
    assert (first.body, first.fields["transfer-encoding"]) == (b"one two", "chunked")
    assert (second.body, second.fields["content-length"]) == (b"three", "5")
    assert "content-length" not in first.fields and "transfer-encoding" not in second.fields


def test_a_large_body_arrives_whole(bench: Bench) -> None:
    peer = bench.open_h1()
    peer.answers = True
    body = bytes(range(256)) * 8000
    call = bench.submit(content=body)
    bench.run()
    assert call.response.ok and peer.requests[0].body == body


def test_an_early_answer_ends_the_upload_and_the_connection(bench: Bench) -> None:
    # RFC 9112 9.6: what is left of the body would be read as the next request.
    peer, body = bench.open_h1(), HandFed()
    call = bench.submit(source=body)
    bench.run()
    body.pipe.feed(b"part")
    bench.run()
    peer.send(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno")
    bench.run()
    assert (call.response.status_code, call.response.content) == (413, b"no")
    assert peer.eof and not body.pipe.feed(b"more")


def test_a_source_that_raises_closes_the_connection_and_raises_in_the_caller(bench: Bench) -> None:
    peer, body = bench.open_h1(), HandFed()
    call = bench.submit(source=body)
    bench.run()
    mine = ValueError("my generator broke")
    body.pipe.feed(b"part")
    body.pipe.fail(mine)
    bench.run()
    assert call.error is mine and peer.eof and not peer.requests[0].ended


@pytest.mark.parametrize("piece", [b"short", b"far too long"])
def test_a_body_that_is_not_as_long_as_declared_closes_the_connection(bench: Bench, piece: bytes) -> None:
    peer, body = bench.open_h1(), HandFed(length_bytes=10)
    call = bench.submit(source=body)
    bench.run()
    body.pipe.feed(piece)
    body.pipe.finish()
    bench.run()
    assert isinstance(call.error, LocalProtocolError) and peer.eof and not peer.requests[0].ended


def test_what_waits_for_a_peer_that_does_not_read_is_bounded_and_times_out(bench: Bench) -> None:
    peer = bench.open_h1()
    peer.deaf = True
    call = bench.submit(source=Endless(), timeout=Timeout(write=5))
    bench.run()
    assert 0 < bench.connections[0].transport.backlog_bytes <= 2 * BACKLOG_BYTES
    bench.advance(5)
    assert isinstance(call.error, WriteTimeout)


def test_a_starved_upload_is_excused_from_the_write_timeout(bench: Bench) -> None:
    peer, body = bench.open_h1(), HandFed()
    call = bench.submit(source=body, timeout=Timeout(write=5))
    bench.run()
    bench.advance(5)
    bench.advance(5)
    body.pipe.finish()
    peer.answers = True
    bench.run()
    assert call.response.ok


def test_read_begins_when_the_body_is_sent_and_is_on_time_though_write_is_longer(bench: Bench) -> None:
    bench.open_h1()
    call = bench.submit(content=b"sent at once", timeout=Timeout(write=100, read=5))
    bench.run()
    bench.advance(5)
    assert isinstance(call.error, ReadTimeout)


# -- slow readers, cancels, timeouts -----------------------------------------------------------------------------------


def test_a_reader_a_window_behind_stops_the_reading_and_its_going_on_resumes_it(make_bench: MakeBench) -> None:
    # L8
    bench = make_bench(stream_window_bytes=100_000)
    peer, call = bench.open_h1(), bench.submit(stream=True)
    bench.run()
    total = 8_000_000
    peer.head(200, [("Content-Length", str(total))])
    peer.data(bytes(total))
    bench.run()
    unread = call.exchange.unread_bytes
    assert 100_000 <= unread <= 100_000 + (1 << 20)
    assert peer.sent_bytes < total / 2
    peer.end()
    received = 0
    while call.exchange.unread_bytes:
        received += len(call.read())
        bench.run()
    assert received == total


def test_a_stopped_reader_is_excused_from_the_read_timeout(make_bench: MakeBench) -> None:
    bench = make_bench(stream_window_bytes=100_000)
    peer, call = bench.open_h1(), bench.submit(stream=True, timeout=Timeout(read=5))
    bench.run()
    peer.head(200, [("Content-Length", "400000")])
    peer.data(bytes(400_000))
    peer.end()
    bench.run()
    for _ in range(5):
        bench.advance(5)
    received = 0
    while call.exchange.unread_bytes:
        received += len(call.read())
        bench.run()
    assert received == 400_000


@pytest.mark.parametrize("answered", [False, True])
def test_cancelling_closes_the_socket_and_a_new_connection_takes_over(make_bench: MakeBench, answered: bool) -> None:
    bench = make_bench(max_http1_connections_per_origin=1)
    peer, call, other = bench.open_h1(), bench.submit(), bench.submit("/other")
    bench.run()
    if answered:
        peer.head(200, [("Content-Length", "10")])
        bench.run()
    assert call.future.cancel()
    bench.run()
    assert isinstance(call.error, CancelledError) and peer.eof
    bench.connect_h1().answers = True
    bench.run()
    assert other.response.ok


def test_closing_a_half_read_response_closes_the_socket(bench: Bench) -> None:
    peer, call = bench.open_h1(), bench.submit(stream=True)
    bench.run()
    peer.head(200, [("Content-Length", "10")])
    bench.run()
    call.response.close()
    bench.run()
    assert peer.eof and bench.ended


def test_a_timeout_closes_the_socket(bench: Bench) -> None:
    peer, call = bench.open_h1(), bench.submit(timeout=Timeout(read=5))
    bench.run()
    bench.advance(5)
    assert isinstance(call.error, ReadTimeout) and peer.eof


def test_bytes_that_nobody_asked_for_close_an_idle_connection(bench: Bench) -> None:
    # RELIABILITY P4
    peer = bench.open_h1()
    busy(bench, peer)
    peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    bench.run()
    assert peer.eof and bench.ended


def test_the_stats_name_the_version(bench: Bench) -> None:
    bench.open_h1()
    bench.submit()
    bench.run()
    assert bench.loop.stats.http_version == "HTTP/1.1"
    assert (bench.loop.stats.connections, bench.loop.stats.open_streams) == (1, 1)


def test_a_connection_that_is_closed_cannot_be_drained_back_to_life(bench: Bench) -> None:
    # L10: a cancel has closed it in the turn in which the pool wants everything drained.
    bench.open_h1()
    call, connection = bench.submit(), bench.connections[0]
    bench.run()
    call.future.cancel()
    bench.put(messages.Retire())
    bench.run()
    connection.drain()
    assert bench.lives[connection] == [Life.OPEN, Life.CLOSED] and connection.life is Life.CLOSED
