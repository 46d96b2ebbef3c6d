"""A server that sends what costs it nothing and us something (RFC 9113 10.5): ended early, in bounded memory."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from engine_bench import ENHANCE_YOUR_CALM, Bench, HandFed
from hyperframe.frame import PingFrame, SettingsFrame, WindowUpdateFrame

from hyperpool.engine.answers import MAX_UNREAD, UnreadAnswers
from hyperpool.errors import RemoteProtocolError

MakeBench = Callable[..., Bench]
PING = PingFrame(0, opaque_data=bytes(8)).serialize()
SETTINGS = SettingsFrame(0).serialize()


@pytest.mark.parametrize("frame", [PING, SETTINGS], ids=["PING", "SETTINGS"])
def test_a_flood_ends_every_exchange_with_the_name_of_the_flood(bench: Bench, frame: bytes) -> None:
    peer = bench.open_h2()
    calls = bench.submit_many(3)
    bench.run()
    peer.send(frame * 20_000)
    bench.run()
    assert all(type(call.error) is RemoteProtocolError for call in calls)
    assert all("floods this connection" in str(call.error) for call in calls)
    assert peer.goaway is None or peer.goaway.error_code == ENHANCE_YOUR_CALM
    assert not bench.connections


def test_the_next_request_goes_out_on_a_connection_of_its_own(bench: Bench) -> None:
    peer = bench.open_h2(MAX_CONCURRENT_STREAMS=1)
    bench.submit("/flooded")
    next_one = bench.submit("/next")
    bench.run()
    peer.send(PING * 20_000)
    bench.run()
    second = bench.connect_h2()
    second.answers = True
    bench.run()
    assert next_one.response.content == b"/next"


def test_a_server_that_behaves_goes_on_after_a_burst(bench: Bench) -> None:
    peer, call = bench.open_h2(), bench.submit()
    bench.run()
    peer.send(PING * 900)
    bench.run()
    peer.respond(1, body=b"here")
    bench.run()
    assert call.response.content == b"here"


def test_time_gives_a_server_new_budget(bench: Bench) -> None:
    peer, call = bench.open_h2(), bench.submit()
    bench.run()
    for _ in range(30):
        peer.send(PING * 90)
        bench.advance(1.0)
    peer.respond(1, body=b"here")
    bench.run()
    assert call.response.content == b"here"


def test_answers_do_not_pile_up_for_a_server_that_reads_none(bench: Bench) -> None:
    """At an honest pace, so that no budget ends it."""
    peer, call = bench.open_h2(), bench.submit()
    bench.run()
    peer.deaf = True
    backlog_bytes = 0
    for _ in range(1_000):
        if call.done:
            break
        peer.send(PING * 90)
        bench.advance(1.0)
        backlog_bytes = max([backlog_bytes, *(one.transport.backlog_bytes for one in bench.connections)])
    assert "whose answers it never reads" in str(call.error)
    assert 0 < backlog_bytes <= (MAX_UNREAD + 100) * len(PING)


def test_an_upload_that_fills_the_wire_is_not_taken_for_answers_that_nobody_reads(bench: Bench) -> None:
    """Such a server measures its bandwidth, and there is always something in the backlog."""
    peer, body = bench.open_h2(), HandFed()
    call = bench.submit(source=body)
    bench.run()
    peer.send(WindowUpdateFrame(0, window_increment=1 << 30).serialize())
    peer.send(WindowUpdateFrame(1, window_increment=1 << 30).serialize())
    for _ in range(40):
        body.pipe.feed(bytes(200_000))
        peer.send(PING * 120)
        bench.advance(1.0)
    body.pipe.finish()
    bench.run()
    peer.respond(1, body=b"here")
    bench.run()
    assert (call.response.content, len(peer.seen[1].body)) == (b"here", 8_000_000)


class _Wire:
    """A wire of which the test says how far it is."""

    def __init__(self) -> None:
        self.sent_bytes = 0
        self.backlog_bytes = 0


class TestUnreadAnswers:
    def test_what_the_wire_has_taken_is_not_unread(self) -> None:
        unread, wire = UnreadAnswers(), _Wire()
        assert not unread.too_many(10**6, wire)

    def test_a_backlog_that_never_empties_but_moves_is_no_flood(self) -> None:
        unread, wire = UnreadAnswers(), _Wire()
        wire.backlog_bytes = 1_000
        for answers in range(0, 100 * MAX_UNREAD, MAX_UNREAD // 4):
            assert not unread.too_many(answers, wire)
            wire.sent_bytes += 1_000

    def test_a_backlog_that_stands_still_is_one_after_the_bound(self) -> None:
        unread, wire = UnreadAnswers(), _Wire()
        wire.backlog_bytes = 1_000
        verdicts = [unread.too_many(answers, wire) for answers in (1, MAX_UNREAD, MAX_UNREAD + 1)]
        assert verdicts == [False, False, True]
