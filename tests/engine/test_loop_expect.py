"""``Expect: 100-continue`` by the clock: who waits, for how long, and what else goes on meanwhile (RFC 9110 10.1.1)."""

from __future__ import annotations

import pytest
from engine_bench import CANCEL, NO_ERROR, Bench, H1Peer, H2Peer, HandFed, Peer

from hyperpool.errors import HyperpoolError, ReadTimeout
from hyperpool.values import Timeout

EXPECT = (("Expect", "100-continue"),)
STRICT = Timeout(pool=None, connect=None, write=0.1, read=5.0)


@pytest.fixture(params=["h1", "h2"])
def peer(request: pytest.FixtureRequest, bench: Bench) -> Peer:
    return bench.open_h1() if request.param == "h1" else bench.open_h2()


def body_at(peer: Peer) -> bytes:
    if isinstance(peer, H2Peer):
        return bytes(peer.seen[1].body)
    assert isinstance(peer, H1Peer)
    return bytes(peer.requests[-1].body)


def say(peer: Peer, status: int) -> None:
    if isinstance(peer, H2Peer):
        peer.head(1, status)
    else:
        peer.send(b"HTTP/1.1 %d Word\r\n%s\r\n" % (status, b"" if status < 200 else b"Content-Length: 2\r\n"))


def test_the_body_goes_after_a_second_of_silence_and_not_before(bench: Bench, peer: Peer) -> None:
    bench.submit(content=b"body", headers=EXPECT)
    bench.run()
    bench.advance(0.9)
    assert body_at(peer) == b""
    bench.advance(0.2)
    assert body_at(peer) == b"body"


def test_the_wait_is_no_pause_of_the_peer(bench: Bench, peer: Peer) -> None:
    """Timeout.write counts from the moment in which the body may go."""
    call = bench.submit(source=HandFed(length_bytes=4), headers=EXPECT, timeout=STRICT)
    bench.run()
    bench.advance(0.9)
    assert not call.done
    say(peer, 100)
    bench.run()
    bench.advance(0.05)
    assert not call.done


def test_after_a_refusal_the_rest_of_the_answer_is_waited_for(bench: Bench, peer: Peer) -> None:
    source = HandFed()
    call = bench.submit(source=source, headers=EXPECT, timeout=STRICT)
    bench.run()
    say(peer, 403)
    bench.run()
    bench.advance(4.0)
    assert not call.done
    bench.advance(2.0)
    assert isinstance(call.error, ReadTimeout)
    assert source.pipes == [] and body_at(peer) == b""


def test_where_no_thread_starts_for_the_body_the_request_fails(bench: Bench, peer: Peer) -> None:
    call = bench.submit(source=HandFed(starts=False), headers=EXPECT)
    bench.run()
    say(peer, 100)
    bench.run()
    assert type(call.error) is HyperpoolError and "upload could not be started" in str(call.error)
    assert (peer.seen[1].reset_code == CANCEL) if isinstance(peer, H2Peer) else peer.eof


def test_a_window_that_opens_is_no_word_for_the_body(bench: Bench) -> None:
    peer = bench.open_h2()
    bench.submit(content=b"body", headers=EXPECT)
    bench.run()
    peer.grant(1, 100)
    peer.grant(0, 100)
    bench.run()
    assert peer.seen[1].body == b""


def test_a_refused_stream_is_reset_without_an_error_and_its_slot_is_free(bench: Bench) -> None:
    peer = bench.open_h2()
    call = bench.submit(content=b"body", headers=EXPECT)
    bench.run()
    peer.respond(1, 403)
    bench.run()
    assert call.response.status_code == 403
    assert (peer.seen[1].reset_code, peer.seen[1].body) == (NO_ERROR, b"")


def test_a_body_that_waits_goes_out_again_with_its_request(bench: Bench) -> None:
    """RFC 9113 8.7: refused streams were not processed, and a body that never began is there in full."""
    peer, source = bench.open_h2(), HandFed(replayable=True)
    bench.submit(source=source, headers=EXPECT)
    bench.run()
    peer.refuse(1)
    bench.run()
    bench.advance(0.5)
    assert list(peer.seen) == [1, 3] and source.pipes == []
    peer.head(3, 100)
    bench.run()
    source.pipe.feed(b"body")
    source.pipe.finish()
    bench.run()
    assert (bytes(peer.seen[3].body), peer.seen[3].ended) == (b"body", True)
