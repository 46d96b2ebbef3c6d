"""One request and its response over HTTP/2: what callers get, in every form that a response can have."""

from __future__ import annotations

import pytest
from engine_bench import Bench, HandFed
from hyperframe.frame import HeadersFrame

from hyperpool.errors import ConnectionLost, RemoteProtocolError, StreamReset
from hyperpool.handoff.exchange import State


def test_a_request_is_dialled_for_sent_and_answered(bench: Bench) -> None:
    call = bench.submit("/hello")
    bench.run()
    peer = bench.connect_h2()
    bench.run()
    assert peer.seen[1].fields == {":method": "GET", ":scheme": "https", ":authority": "a.test", ":path": "/hello"}
    assert not call.done
    peer.respond(1, body=b"world")
    bench.run()
    response = call.response
    assert (response.status_code, response.content, response.http_version) == (200, b"world", "HTTP/2")
    assert response.stream_id == 1


def test_a_body_in_pieces_is_one_body_and_resolves_at_its_end(bench: Bench) -> None:
    peer, call = bench.open_h2(), bench.submit()
    bench.run()
    peer.head(1)
    bench.run()
    for piece in (b"one ", b"two ", b""):
        peer.data(1, piece)
        bench.run()
        assert not call.done
    peer.data(1, b"three", end=True)
    bench.run()
    assert call.response.content == b"one two three"


def test_a_response_that_comes_byte_by_byte_is_the_same_response(bench: Bench) -> None:
    peer, call = bench.open_h2(), bench.submit()
    bench.run()
    peer.head(1, fields=[("x", "y")])
    peer.data(1, b"body", end=True)
    said, peer._out = bytes(peer._out), bytearray()
    for at in range(len(said)):
        peer.send(said[at : at + 1])
        bench.run()
    assert (call.response.headers["x"], call.response.content) == ("y", b"body")


def test_a_streamed_response_resolves_at_its_head(bench: Bench) -> None:
    peer, call = bench.open_h2(), bench.submit(stream=True)
    bench.run()
    assert not call.done
    peer.head(1, 201)
    bench.run()
    assert call.response.status_code == 201
    peer.data(1, b"first")
    bench.run()
    assert call.read() == b"first"
    peer.data(1, b"last", end=True)
    bench.run()
    assert call.read() == b"last"
    assert call.exchange.state is State.DONE


def test_a_streamed_response_that_is_here_in_one_read_is_whole(bench: Bench) -> None:
    # The future is settled for the head and for the end in one turn, and resolved once (L5).
    peer, call = bench.open_h2(), bench.submit(stream=True)
    bench.run()
    peer.respond(1, body=b"all of it")
    bench.run()
    assert call.response.content == b"all of it"


@pytest.mark.parametrize("stream", [False, True])
def test_trailers_are_handed_over_with_the_end(bench: Bench, stream: bool) -> None:
    peer, call = bench.open_h2(), bench.submit(stream=stream)
    bench.run()
    peer.head(1)
    peer.data(1, b"body")
    peer.trailers(1, [("checksum", "42")])
    bench.run()
    assert call.response.content == b"body"
    assert call.response.trailers["checksum"] == "42"


def test_interim_responses_are_skipped(bench: Bench) -> None:
    peer, call = bench.open_h2(), bench.submit()
    bench.run()
    peer.head(1, 103, [("link", "</style.css>")])
    peer.head(1, 100)
    bench.run()
    assert not call.done
    peer.respond(1, 200, body=b"final")
    bench.run()
    assert (call.response.status_code, call.response.content) == (200, b"final")
    assert "link" not in call.response.headers


@pytest.mark.parametrize(
    ("method", "status", "fields"),
    [
        ("HEAD", 200, [("content-length", "1000")]),
        ("GET", 204, []),
        ("GET", 304, [("content-length", "1000")]),
    ],
)
def test_a_response_that_has_no_content_ends_with_its_head(
    bench: Bench, method: str, status: int, fields: list[tuple[str, str]]
) -> None:
    peer, call = bench.open_h2(), bench.submit(method=method)
    bench.run()
    peer.head(1, status, fields, end=True)
    bench.run()
    assert (call.response.status_code, call.response.content) == (status, b"")


def test_an_empty_body_is_sent_as_an_end_of_stream(bench: Bench) -> None:
    peer = bench.open_h2()
    peer.answers = True
    call = bench.submit(content=b"")
    bench.run()
    assert call.response.status_code == 200
    assert (peer.seen[1].body, peer.seen[1].fields["content-length"]) == (b"", "0")


def test_many_requests_share_one_connection_and_each_gets_its_own_answer(bench: Bench) -> None:
    peer, calls = bench.open_h2(), bench.submit_many(50)
    bench.run()
    for stream_id in reversed(list(peer.seen)):
        peer.respond(stream_id, body=peer.seen[stream_id].path.encode())
    bench.run()
    assert [call.response.text for call in calls] == [f"/{number}" for number in range(50)]
    assert bench.dialer.started == 1


def test_stream_ids_rise_on_the_wire_whatever_kinds_of_request_are_mixed(bench: Bench) -> None:
    # L6: the peer asserts it for every test; here are the kinds that take different ways.
    peer = bench.open_h2()
    peer.answers = True
    bench.submit_many(3)
    bench.submit(content=b"x" * 100_000)
    bench.submit(source=HandFed()).future.cancel()
    bench.submit("/streamed", stream=True)
    bench.run()
    ids = [frame.stream_id for frame in peer.heard(HeadersFrame)]
    assert ids == sorted(ids) and len(ids) >= 5


def test_a_malformed_status_fails_its_own_stream_only(bench: Bench) -> None:
    peer = bench.open_h2()
    broken, fine = bench.submit(), bench.submit()
    bench.run()
    peer._headers(1, [(":status", "2x0")], False)
    peer.respond(3, body=b"fine")
    bench.run()
    assert isinstance(broken.error, RemoteProtocolError)
    assert (broken.error.origin, broken.error.stream_id) == ("https://a.test", 1)
    assert peer.seen[1].reset_code == 1
    assert fine.response.content == b"fine"


def test_a_reset_stream_is_an_error_with_its_code_and_place(bench: Bench) -> None:
    peer, call = bench.open_h2(), bench.submit()
    bench.run()
    peer.refuse(1, 2)
    bench.run()
    assert isinstance(call.error, StreamReset)
    assert (call.error.code, call.error.stream_id, call.error.processed) == (2, 1, "maybe")
    assert "INTERNAL_ERROR" in str(call.error)


def test_a_streamed_body_that_is_reset_gives_what_came_and_then_the_error(bench: Bench) -> None:
    peer, call = bench.open_h2(), bench.submit(stream=True)
    bench.run()
    peer.head(1)
    peer.data(1, b"half")
    peer.refuse(1, 2)
    bench.run()
    pieces = call.response.iter_raw()
    assert next(pieces) == b"half"
    with pytest.raises(StreamReset):
        next(pieces)


def test_a_short_body_is_never_a_success(bench: Bench) -> None:
    peer, call = bench.open_h2(), bench.submit()
    bench.run()
    peer.head(1, fields=[("content-length", "10")])
    peer.data(1, b"short", end=True)
    bench.run()
    assert isinstance(call.error, RemoteProtocolError)


def test_a_response_that_ends_before_the_rest_of_the_read_is_garbage_is_not_lost(bench: Bench) -> None:
    peer = bench.open_h2()
    whole, torn = bench.submit(), bench.submit()
    bench.run()
    peer.respond(1, body=b"whole")
    peer.head(3)
    peer.send(b"\xff" * 64)
    bench.run()
    assert whole.response.content == b"whole"
    assert isinstance(torn.error, RemoteProtocolError)
    assert peer.goaway is not None


def test_a_request_that_comes_as_the_connection_is_lost_gets_a_new_one(bench: Bench) -> None:
    peer, lost = bench.open_h2(), bench.submit()
    bench.run()
    peer.close()
    again = bench.submit()
    bench.run()
    assert isinstance(lost.error, ConnectionLost)
    second = bench.connect_h2()
    second.answers = True
    bench.run()
    assert again.response.status_code == 200
