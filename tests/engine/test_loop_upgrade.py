"""HTTP/2 offered within HTTP/1.1 (h2c, RFC 7540 3.2): the offer, the switch, and all that can go wrong."""

from __future__ import annotations

import selectors
from collections.abc import Callable
from concurrent.futures import CancelledError

import pytest
from engine_bench import CANCEL, Bench, Call, H1Peer, H2Peer, HandFed
from hyperframe.frame import RstStreamFrame, SettingsFrame

from hyperpool.engine.connection import Life
from hyperpool.engine.http1 import UPGRADE_PATIENCE_S
from hyperpool.engine.http2 import Http2Connection
from hyperpool.errors import ConnectionLost, PoolClosed, ReadTimeout, RemoteProtocolError
from hyperpool.handoff import messages
from hyperpool.handoff.exchange import State
from hyperpool.values import Timeout

MakeBench = Callable[..., Bench]
OFFER = {"connection", "upgrade", "http2-settings"}


@pytest.fixture
def make_upgrading(make_bench: MakeBench) -> MakeBench:
    def make(**limits: object) -> Bench:
        return make_bench(url="http://a.test", route={"upgrade": True}, **limits)

    return make


@pytest.fixture
def bench(make_upgrading: MakeBench) -> Bench:
    """A bench whose route offers HTTP/2."""
    return make_upgrading()


def offered(bench: Bench, **options: object) -> tuple[H1Peer, Call]:
    """A connection on which one request went out, with the offer."""
    peer, call = bench.open_h1(), bench.submit("/first", **options)
    bench.run()
    assert peer.requests[-1].fields.keys() >= OFFER
    return peer, call


def switched(bench: Bench, **options: object) -> tuple[H2Peer, Call]:
    """The same, after the switch, with the server's SETTINGS."""
    offering, call = offered(bench, **options)
    peer = bench.switch(offering)
    peer.greet()
    bench.run()
    return peer, call


def promise_of(path: str) -> list[tuple[str, str]]:
    return [(":method", "GET"), (":scheme", "http"), (":authority", "a.test"), (":path", path)]


# -- the offer ---------------------------------------------------------------------------------------------------------


def test_the_offer_carries_the_settings_and_is_named_in_connection(bench: Bench) -> None:
    peer, call = offered(bench, headers=(("TE", "trailers"), ("X-Mine", "yes")))
    fields = peer.requests[0].fields
    assert (fields["upgrade"], fields["x-mine"], fields["te"]) == ("h2c", "yes", "trailers")
    assert fields["connection"] == "TE, Upgrade, HTTP2-Settings" and "=" not in fields["http2-settings"]
    peer.respond()
    bench.run()
    assert call.response.ok


@pytest.mark.parametrize(
    "options",
    [{"content": b"body"}, {"source": HandFed()}, {"headers": (("Connection", "Close"),)}],
    ids=["bytes", "stream", "close"],
)
def test_no_offer_is_made_with_a_body_or_a_connection_that_is_to_end(bench: Bench, options: dict[str, object]) -> None:
    # RFC 7540 3.2: a server may switch only after all of the body, for which everybody else would wait.
    peer = bench.open_h1()
    bench.submit(**options)  # type: ignore[arg-type]
    bench.run()
    assert not {"upgrade", "http2-settings"} & peer.requests[0].fields.keys()


def test_no_offer_is_made_over_tls(make_bench: MakeBench) -> None:
    # ALPN has chosen (RFC 9113 3.2)
    bench = make_bench(route={"upgrade": True})
    peer = bench.open_h1()
    bench.submit()
    bench.run()
    assert not OFFER & peer.requests[0].fields.keys()


def test_a_server_that_does_not_care_is_asked_once(bench: Bench) -> None:
    peer, call = offered(bench)
    bench.submit("/waiting")
    peer.respond(body=b"1.1")
    bench.run()
    assert (call.response.content, call.response.http_version) == (b"1.1", "HTTP/1.1")
    assert peer.paths == ["/first", "/waiting"] and not OFFER & peer.requests[1].fields.keys()
    peer.respond()
    bench.run()
    peer.close()
    bench.run()
    assert bench.ended


def test_a_refusal_holds_for_further_connections(bench: Bench) -> None:
    first, _ = offered(bench)
    first.respond(426)
    bench.run()
    bench.submit_many(2)
    bench.run()
    second = bench.connect_h1()
    bench.run()
    assert not OFFER & second.requests[0].fields.keys()


def test_interim_responses_are_no_answer_to_the_offer(bench: Bench) -> None:
    offering, call = offered(bench)
    offering.send(b"HTTP/1.1 103 Early Hints\r\nLink: </s.css>\r\n\r\n")
    bench.run()
    peer = bench.switch(offering)
    peer.greet()
    peer.respond(1)
    bench.run()
    assert call.response.http_version == "HTTP/2"


# -- the switch --------------------------------------------------------------------------------------------------------


def test_the_response_to_the_offer_comes_on_stream_1(bench: Bench) -> None:
    peer, call = switched(bench)
    assert [type(one) for one in bench.connections] == [Http2Connection]
    assert peer.heard(SettingsFrame), "the preface, and our SETTINGS once more (RFC 7540 3.2)"
    peer.head(1, fields=[("x", "y")])
    peer.data(1, b"two")
    bench.run()
    peer.trailers(1, [("checksum", "42")])
    bench.run()
    response = call.response
    assert (response.content, response.http_version, response.stream_id) == (b"two", "HTTP/2", 1)
    assert response.trailers["checksum"] == "42" and bench.loop.stats.http_version == "HTTP/2"


def test_everything_may_come_in_one_read_with_the_101(bench: Bench) -> None:
    offering, call = offered(bench)
    peer = bench.switch(offering)
    peer.greet()
    peer.respond(1, body=b"at once")
    bench.run()
    assert call.response.content == b"at once"


def test_the_101_may_come_byte_by_byte(bench: Bench) -> None:
    offering, call = offered(bench)
    peer = bench.switch(offering)
    head, peer._out = bytes(peer._out), bytearray()
    for at in range(len(head)):
        peer.send(head[at : at + 1])
        bench.run()
    peer.greet()
    peer.respond(1, body=b"slowly")
    bench.run()
    assert call.response.content == b"slowly"


def test_a_switch_that_is_spelt_in_capitals_is_one(bench: Bench) -> None:
    offering, call = offered(bench)
    peer = bench.switch(offering)
    peer._out = bytearray(peer._out.replace(b"h2c", b"H2C"))
    peer.greet()
    peer.respond(1)
    bench.run()
    assert call.response.ok


def test_a_streamed_response_after_the_switch_keeps_to_its_window(make_upgrading: MakeBench) -> None:
    # L7, L8
    bench = make_upgrading(stream_window_bytes=65_535)
    peer, call = switched(bench, stream=True)
    peer.head(1)
    assert peer.fill_window(1) == 65_535
    bench.run()
    assert call.exchange.unread_bytes == 65_535 and peer.stream_credit[1] == 0
    call.read()
    bench.run()
    assert peer.stream_credit[1] > 65_535 // 2
    peer.data(1, b"end", end=True)
    bench.run()
    assert call.read() == b"end"


@pytest.mark.parametrize("ends_with_data", [False, True])
def test_a_head_request_may_be_answered_on_stream_1(bench: Bench, ends_with_data: bool) -> None:
    # h2 did not see the request: it would hold the declared length against the empty body.
    peer, call = switched(bench, method="HEAD")
    peer.head(1, fields=[("content-length", "1000")], end=not ends_with_data)
    if ends_with_data:
        peer.data(1, end=True)
    bench.run()
    assert call.response.headers["content-length"] == "1000"


def test_those_who_wait_go_on_the_same_connection_as_streams_3_and_5(bench: Bench) -> None:
    offering, call = offered(bench)
    waiting = bench.submit_many(2)
    bench.run()
    assert not bench.dialer.pending, "the answer to the offer is waited for"
    peer = bench.switch(offering)
    peer.answers = True
    peer.greet()
    peer.respond(1)
    bench.run()
    assert [one.response.stream_id for one in (call, *waiting)] == [1, 3, 5]
    assert peer.paths == ["/first", "/0", "/1"] and bench.dialer.started == 1


def test_after_the_patience_of_those_who_wait_a_further_connection_is_dialled(bench: Bench) -> None:
    offering, call = offered(bench)
    waiting = bench.submit("/waiting")
    bench.run()
    bench.advance(UPGRADE_PATIENCE_S - 0.01)
    assert bench.dialer.started == 1
    bench.advance(0.01)
    assert bench.dialer.started == 2
    second = bench.connect_h1()
    bench.run()
    assert second.paths == ["/waiting"]
    peer = bench.switch(offering)
    peer.greet()
    peer.respond(1)
    second.respond()
    bench.run()
    assert call.response.http_version == "HTTP/2" and waiting.response.http_version == "HTTP/1.1"


def test_who_comes_after_the_patience_dials_at_once(bench: Bench) -> None:
    offered(bench)
    bench.advance(1)
    assert bench.dialer.started == 1
    bench.submit("/late")
    bench.run()
    assert bench.dialer.started == 2
    bench.dialer.cancel()
    bench.run()


def test_requests_after_the_switch_share_the_connection(bench: Bench) -> None:
    peer, call = switched(bench)
    later = [bench.submit("/upload", content=b"body"), bench.submit("/later")]
    bench.run()
    assert bytes(peer.seen[3].body) == b"body" and peer.paths[1:] == ["/upload", "/later"]
    for stream_id in (5, 3, 1):
        peer.respond(stream_id)
    bench.run()
    assert all(one.response.ok for one in (call, *later)) and bench.dialer.started == 1


def test_before_the_servers_settings_stream_1_is_the_only_one(bench: Bench) -> None:
    # L6, and RFC 9113 5.1.2: its limit is not known yet
    offering, _ = offered(bench)
    bench.submit("/waiting")
    peer = bench.switch(offering)
    bench.run()
    assert list(peer.seen) == [1] and bench.dialer.started == 1
    peer.greet(MAX_CONCURRENT_STREAMS=2)
    bench.run()
    assert list(peer.seen) == [1, 3]


def test_the_server_may_push_after_the_switch(make_bench: MakeBench) -> None:
    bench = make_bench(url="http://a.test", route={"upgrade": True, "push": True})
    peer, call = switched(bench)
    peer.promise(1, 2, fields=promise_of("/pushed"))
    peer.respond(2, body=b"pushed")
    peer.respond(1)
    bench.run()
    (push,) = call.pushes
    assert push.future.result(0).content == b"pushed" and call.response.ok


# -- the selector, the timers, and what is inherited -------------------------------------------------------------------


def test_one_registration_of_the_socket_is_left_and_it_is_the_successors(bench: Bench) -> None:
    peer, call = switched(bench)
    keys = [key for key in bench.loop._selector.get_map().values() if key.data is not None]
    assert [key.data for key in keys] == bench.connections
    assert keys[0].events == selectors.EVENT_READ and bench.connections[0].watched == selectors.EVENT_READ
    assert not bench.is_due, "the loop rests"
    peer.respond(1)
    bench.run()
    assert call.response.ok


def test_the_timers_of_before_are_gone_and_those_of_http2_run(make_upgrading: MakeBench) -> None:
    bench = make_upgrading(ping_after_s=15, ping_timeout_s=10)
    peer, call = switched(bench)
    bench.advance(15)
    assert peer.pings == 1
    peer.respond(1)
    bench.run()
    bench.advance(89)
    assert call.response.ok and not peer.eof
    bench.advance(1)
    assert peer.eof and peer.goaway is not None and bench.ended


def test_a_server_that_switches_and_says_no_more_is_not_waited_for(bench: Bench) -> None:
    # RFC 9113 3.4
    offering, call = offered(bench)
    peer = bench.switch(offering)
    bench.run()
    bench.advance(10)
    assert isinstance(call.error, RemoteProtocolError) and "SETTINGS" in str(call.error) and peer.eof


def test_the_read_timeout_runs_on_through_the_switch(bench: Bench) -> None:
    offering, call = offered(bench, timeout=Timeout(read=5))
    bench.advance(3)
    peer = bench.switch(offering)
    peer.greet()
    bench.run()
    bench.advance(5)
    assert isinstance(call.error, ReadTimeout) and peer.seen[1].reset_code == CANCEL
    assert bench.connections[0].life is Life.OPEN


def test_a_cancel_after_the_switch_resets_stream_1_alone(bench: Bench) -> None:
    peer, call = switched(bench)
    call.future.cancel()
    later = bench.submit("/later")
    bench.run()
    assert peer.seen[1].reset_code == CANCEL
    peer.respond(3)
    bench.run()
    assert later.response.ok


def test_a_connection_that_drains_does_so_after_the_switch_as_well(bench: Bench) -> None:
    # L10
    offering, call = offered(bench)
    bench.put(messages.Retire())
    bench.run()
    peer = bench.switch(offering)
    peer.greet()
    bench.run()
    assert [one.life for one in bench.connections] == [Life.DRAINING]
    peer.respond(1)
    bench.run()
    assert call.response.ok and peer.eof and bench.ended


def test_a_close_in_the_middle_of_the_offer_is_told_to_the_successor(bench: Bench) -> None:
    offering, call = offered(bench)
    bench.put(messages.Close(bench.clock.now + 5, 11))
    bench.run()
    peer = bench.switch(offering)
    peer.greet()
    bench.run()
    bench.advance(5)
    assert isinstance(call.error, PoolClosed) and bench.ended
    assert peer.goaway is not None and peer.goaway.error_code == 11
    assert [frame.error_code for frame in peer.heard(RstStreamFrame)] == [11]


def test_a_close_that_finds_the_101_in_the_same_turn_ends_everything(bench: Bench) -> None:
    offering, call = offered(bench)
    peer = bench.switch(offering)
    peer.greet()
    peer.flush()
    bench.put(messages.Close(bench.clock.now))
    bench.run()
    assert isinstance(call.error, PoolClosed) and bench.ended and peer.eof


# -- what the server takes back after the switch -----------------------------------------------------------------------


def test_a_goaway_gives_an_unprocessed_stream_1_to_a_new_connection(bench: Bench) -> None:
    # L9: it was begun over HTTP/1.1, and is QUEUED and OPEN once more
    peer, call = switched(bench)
    peer.go_away(0)
    bench.run()
    assert peer.eof and call.exchange.stream_id is None and call.exchange.state is State.QUEUED
    again = bench.connect_h1()
    bench.run()
    assert again.paths == ["/first"] and again.requests[0].fields.keys() >= OFFER
    second = bench.switch(again)
    second.greet()
    second.respond(1)
    bench.run()
    assert call.response.ok and [one.reason for one in call.response.retries] == ["GOAWAY NO_ERROR"]


def test_a_goaway_in_one_read_with_the_101_does_as_well(bench: Bench) -> None:
    offering, call = offered(bench)
    peer = bench.switch(offering)
    peer.greet()
    peer.go_away(0)
    bench.run()
    again = bench.connect_h1()
    bench.run()
    again.respond(body=b"1.1")
    bench.run()
    assert call.response.content == b"1.1" and len(call.response.retries) == 1


def test_a_goaway_that_names_stream_1_lets_it_finish(bench: Bench) -> None:
    peer, call = switched(bench)
    peer.go_away(1)
    bench.run()
    peer.respond(1)
    bench.run()
    assert call.response.ok and not call.response.retries and peer.eof


@pytest.mark.parametrize("together", [False, True])
def test_a_refused_stream_1_goes_out_as_stream_3_without_the_offer(bench: Bench, together: bool) -> None:
    # RFC 9113 8.7
    offering, call = offered(bench)
    peer = bench.switch(offering)
    peer.greet()
    if not together:
        bench.run()
    peer.refuse(1)
    bench.run()
    assert peer.seen[3].path == "/first" and not OFFER & peer.seen[3].fields.keys()
    peer.respond(3)
    bench.run()
    assert call.response.stream_id == 3 and bench.dialer.started == 1


def test_a_reset_of_stream_1_is_its_own_matter(bench: Bench) -> None:
    peer, call = switched(bench)
    other = bench.submit("/other")
    bench.run()
    peer.refuse(1, CANCEL)
    peer.respond(3)
    bench.run()
    assert call.error.code == CANCEL and other.response.ok


# -- servers that break the rules, or leave ----------------------------------------------------------------------------


def test_a_101_that_nobody_asked_for_is_refused(make_bench: MakeBench) -> None:
    bench = make_bench(url="http://a.test")
    peer, call = bench.open_h1(), bench.submit()
    bench.run()
    peer.send(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n")
    bench.run()
    assert isinstance(call.error, RemoteProtocolError) and peer.eof


@pytest.mark.parametrize("upgrade", [b"Upgrade: websocket\r\n", b"Upgrade: h2\r\n", b""])
def test_a_101_to_something_else_is_refused(bench: Bench, upgrade: bytes) -> None:
    peer, call = offered(bench)
    peer.send(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n%s\r\n" % upgrade)
    bench.run()
    assert isinstance(call.error, RemoteProtocolError) and call.error.processed == "maybe" and peer.eof
    assert "h2c" in str(call.error)


def test_a_101_behind_the_answer_is_refused(bench: Bench) -> None:
    peer, call = offered(bench)
    peer.respond()
    peer.send(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n")
    bench.run()
    assert call.response.ok and peer.eof


def test_a_101_to_a_later_request_is_refused(bench: Bench) -> None:
    peer, _ = offered(bench)
    peer.respond()
    bench.run()
    later = bench.submit("/later")
    bench.run()
    peer.send(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n")
    bench.run()
    assert isinstance(later.error, RemoteProtocolError) and peer.eof


@pytest.mark.parametrize("together", [False, True])
def test_what_is_no_http2_behind_the_101_is_an_error_at_once(bench: Bench, together: bool) -> None:
    offering, call = offered(bench)
    peer = bench.switch(offering)
    if not together:
        bench.run()
    peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    bench.run()
    assert isinstance(call.error, RemoteProtocolError) and peer.eof and not bench.connections


@pytest.mark.parametrize("with_101", [False, True])
def test_a_server_that_leaves_instead_of_an_answer_is_a_lost_connection(bench: Bench, with_101: bool) -> None:
    offering, call = offered(bench)
    waiting = bench.submit("/waiting")
    bench.run()
    (bench.switch(offering) if with_101 else offering).close()
    bench.run()
    assert isinstance(call.error, ConnectionLost) and call.error.processed == "maybe"
    bench.connect_h1()
    bench.run()
    assert waiting.exchange.state is State.OPEN


def test_a_switch_and_a_whole_answer_count_although_the_server_has_left(bench: Bench) -> None:
    offering, call = offered(bench)
    peer = bench.switch(offering)
    peer.greet()
    peer.respond(1, body=b"and goodbye")
    peer.close()
    bench.run()
    assert call.response.content == b"and goodbye" and bench.ended


# -- the offer is pending ----------------------------------------------------------------------------------------------


def test_a_cancel_while_the_offer_is_pending_closes_the_socket(bench: Bench) -> None:
    peer, call = offered(bench)
    call.future.cancel()
    bench.run()
    assert isinstance(call.error, CancelledError) and peer.eof and bench.ended


def test_a_timeout_while_the_offer_is_pending_lets_the_others_go_on(bench: Bench) -> None:
    peer, call = offered(bench, timeout=Timeout(0.1))
    waiting = bench.submit("/waiting")
    bench.run()
    bench.advance(0.1)
    assert call.error.phase == "total" and peer.eof
    again = bench.connect_h1()
    bench.run()
    assert again.paths == ["/waiting"] and again.requests[0].fields.keys() >= OFFER
    again.respond()
    bench.run()
    assert waiting.response.ok


def test_a_crash_while_the_offer_is_pending_settles_everybody(bench: Bench) -> None:
    # L5
    _, call = offered(bench)
    waiting = bench.submit()
    bench.run()
    bench.put("no message")
    bench.run_in_thread()
    assert "bug in hyperpool" in str(call.error) and "bug in hyperpool" in str(waiting.error)


def test_a_crash_in_the_middle_of_the_switch_settles_everybody(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    # L5: the exchange is neither the old connection's nor the new one's then
    offering, call = offered(bench)
    peer = bench.switch(offering)
    peer.greet()
    peer.flush()

    def crash(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(Http2Connection, "hear", crash)
    bench.run_in_thread()
    assert "bug in hyperpool" in str(call.error)
    peer.carry()
    assert peer.eof


def test_each_of_two_connections_may_switch(bench: Bench) -> None:
    offering = [bench.open_h1(), bench.open_h1()]
    calls = bench.submit_many(2)
    bench.run()
    for number, peer in enumerate([bench.switch(one) for one in offering]):
        peer.greet()
        peer.respond(1, body=b"%d" % number)
    bench.run()
    assert [type(one) for one in bench.connections] == [Http2Connection] * 2
    assert [call.response.content for call in calls] == [b"0", b"1"]


def test_a_connection_window_manager_steers_after_the_switch(make_bench: MakeBench) -> None:
    class Doubling:
        document_size: int | None = None

        def __init__(self, window_bytes: int) -> None: ...

        def _handle_frame(self, frame_size: int) -> int:
            return frame_size * 2

    bench = make_bench(url="http://a.test", route={"upgrade": True, "window_manager": Doubling})
    peer, call = switched(bench)
    before = peer.stream_credit[1]
    peer.head(1)
    peer.data(1, b"x" * 1000)
    bench.run()
    assert peer.stream_credit[1] == before + 1000
    peer.data(1, end=True)
    bench.run()
    assert call.response.ok
