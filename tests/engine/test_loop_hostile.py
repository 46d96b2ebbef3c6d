"""Servers that break or bend HTTP/2, turn by turn: what becomes of an exchange, its neighbours, and the next one.

Named by the rows of the table of faults. What a single read must say is in tests/protocol/test_hostile_http2.py.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from engine_bench import CANCEL, ENHANCE_YOUR_CALM, PROTOCOL_ERROR, Bench, H2Peer, HandFed
from hyperframe.frame import GoAwayFrame, RstStreamFrame, SettingsFrame

from hyperpool.errors import ConnectionLost, RemoteProtocolError, StreamReset

MakeBench = Callable[..., Bench]
SETTINGS_TIMEOUT, HTTP_1_1_REQUIRED = 4, 13


class SilentH2Peer(H2Peer):
    """One that never acknowledges our SETTINGS."""

    def _acknowledge(self) -> None:
        pass


def open_silent(bench: Bench) -> SilentH2Peer:
    peer = bench._connect(SilentH2Peer, "h2")
    peer.greet()
    bench.run()
    return peer


class TestSettings:
    def test_a_server_that_never_acknowledges_our_settings_is_left(self, make_bench: MakeBench) -> None:
        """F18; RFC 9113 6.5.3."""
        bench = make_bench(settings_timeout_s=5.0)
        call = bench.submit()
        bench.run()
        peer = open_silent(bench)
        bench.advance(4.9)
        before = call.done
        bench.advance(0.2)
        assert (before, type(call.error)) == (False, RemoteProtocolError)
        assert "did not acknowledge our SETTINGS" in str(call.error)
        assert peer.goaway is not None
        assert peer.goaway.error_code == SETTINGS_TIMEOUT

    def test_one_that_is_late_but_in_time_is_not(self, make_bench: MakeBench) -> None:
        bench = make_bench(settings_timeout_s=5.0)
        call = bench.submit()
        bench.run()
        peer = open_silent(bench)
        bench.advance(4.9)
        peer.send(SettingsFrame(0, flags=["ACK"]).serialize())
        bench.run()
        bench.advance(10.0)
        peer.respond(1, body=b"here")
        bench.run()
        assert call.response.content == b"here"

    def test_a_server_that_says_nothing_at_all_is_left_for_that(self, make_bench: MakeBench) -> None:
        bench = make_bench(settings_timeout_s=5.0)
        call = bench.submit()
        bench.run()
        bench.connect_h2(greet=False)
        bench.run()
        bench.advance(5.1)
        assert "sent no SETTINGS in time" in str(call.error)


class TestCancelledStreams:
    """F8: what was under way when we reset a stream must not touch the others."""

    @pytest.mark.parametrize("status", [103, 200])
    def test_heads_that_come_after_a_cancel_are_ignored(self, bench: Bench, status: int) -> None:
        peer = bench.open_h2()
        cancelled, good = bench.submit("/cancelled"), bench.submit("/good")
        bench.run()
        cancelled.future.cancel()
        bench.run()
        peer.head(1, status)
        peer.respond(3, body=b"here")
        bench.run()
        assert (peer.seen[1].reset_code, good.response.content) == (CANCEL, b"here")
        assert peer.goaway is None

    def test_a_cancelled_stream_is_reset_once_whatever_comes(self, bench: Bench) -> None:
        peer, call = bench.open_h2(), bench.submit(stream=True)
        bench.run()
        peer.head(1)
        bench.run()
        call.response.close()
        bench.run()
        for _ in range(20):
            peer.data(1, b"late")
        peer.trailers(1, [("x", "1")])
        bench.run()
        assert len(peer.heard(RstStreamFrame)) == 1


class TestMessages:
    def test_a_response_that_is_shorter_than_declared_fails_alone(self, bench: Bench) -> None:
        """M6, M10."""
        peer = bench.open_h2()
        short, good = bench.submit("/short"), bench.submit("/good")
        bench.run()
        peer.head(1, 200, [("content-length", "10")], end=True)
        peer.respond(3, body=b"here")
        bench.run()
        assert type(short.error) is RemoteProtocolError
        assert "0 of the 10 bytes" in str(short.error)
        assert good.response.content == b"here"

    def test_trailers_that_come_too_early_fail_a_streamed_response(self, bench: Bench) -> None:
        """M6, M10: what came is read, then the error."""
        peer, call = bench.open_h2(), bench.submit(stream=True)
        bench.run()
        peer.head(1, 200, [("content-length", "10")])
        peer.data(1, b"abc")
        peer.trailers(1, [("x", "1")])
        bench.run()
        pieces = call.response.iter_raw()
        assert next(pieces) == b"abc"
        with pytest.raises(RemoteProtocolError, match="3 of the 10 bytes"):
            next(pieces)

    def test_a_status_that_is_none_fails_alone(self, bench: Bench) -> None:
        """M2."""
        peer = bench.open_h2()
        bad, good = bench.submit("/bad"), bench.submit("/good")
        bench.run()
        peer.head(1, 2000)
        peer.respond(3, body=b"here")
        bench.run()
        assert (type(bad.error), good.response.content) == (RemoteProtocolError, b"here")
        assert peer.seen[1].reset_code == PROTOCOL_ERROR

    @pytest.mark.parametrize("end", [False, True])
    def test_a_head_that_is_none_fails_alone(self, bench: Bench, end: bool) -> None:
        """M5: one program behind a server must not cost others what they have asked of another."""
        peer = bench.open_h2()
        bad, posted = bench.submit("/bad"), bench.submit("/posted", method="POST")
        bench.run()
        peer.head(1, 200, [("connection", "close")], end=end)
        bench.run()
        peer.respond(3, body=b"here")
        bench.run()
        assert (type(bad.error), posted.response.content) == (RemoteProtocolError, b"here")
        assert "Connection-specific header field" in str(bad.error)
        assert (peer.seen[1].reset_code, peer.goaway) == (PROTOCOL_ERROR, None)

    def test_trailers_that_are_none_fail_their_own_body(self, bench: Bench) -> None:
        """M7: what came before is read, then the error."""
        peer, call, good = bench.open_h2(), bench.submit(stream=True), bench.submit("/good")
        bench.run()
        peer.head(1, 200)
        peer.data(1, b"abc")
        peer.trailers(1, [("connection", "close")])
        peer.respond(3, body=b"here")
        bench.run()
        pieces = call.response.iter_raw()
        assert (next(pieces), good.response.content) == (b"abc", b"here")
        with pytest.raises(RemoteProtocolError, match="malformed message"):
            next(pieces)

    def test_a_body_before_its_head_fails_alone_and_its_credit_comes_back(self, make_bench: MakeBench) -> None:
        """M7, RFC 9113 6.9."""
        bench = make_bench(stream_window_bytes=65_535, connection_window_bytes=65_535)
        peer = bench.open_h2()
        calls = [bench.submit(f"/{number}") for number in range(4)]
        bench.run()
        for stream_id in (1, 3, 5):
            peer.data(stream_id, bytes(16_384))
        bench.run()
        peer.respond(7, body=bytes(40_000))  # more than is left of the window without that
        bench.run()
        assert {type(bad.error) for bad in calls[:3]} == {RemoteProtocolError}
        assert calls[3].response.content == bytes(40_000)

    def test_a_reset_of_a_stream_that_was_never_opened_ends_the_connection(self, bench: Bench) -> None:
        """F6; RFC 9113 6.4."""
        peer, call = bench.open_h2(), bench.submit()
        bench.run()
        peer.send(RstStreamFrame(99, error_code=8).serialize())
        bench.run()
        assert type(call.error) is RemoteProtocolError
        assert "stream 99, which was never opened" in str(call.error)
        assert peer.goaway is not None
        assert peer.goaway.error_code == PROTOCOL_ERROR


class TestHttp11Required:
    """F30; RFC 9113 7."""

    def test_the_request_goes_out_again_over_http1(self, bench: Bench) -> None:
        first, call = bench.open_h2(), bench.submit("/old")
        bench.run()
        first.refuse(1, HTTP_1_1_REQUIRED)
        bench.run()
        assert bench.dialer.http1_alone
        second = bench.connect_h1()
        second.answers = True
        bench.run()
        assert (call.response.content, call.response.http_version) == (b"/old", "HTTP/1.1")
        assert [resend.reason for resend in call.exchange.resends] == ["HTTP_1_1_REQUIRED"]

    def test_what_is_under_way_over_http2_finishes_there_and_nothing_new_starts(self, bench: Bench) -> None:
        first = bench.open_h2()
        refused, running = bench.submit("/refused"), bench.submit("/running")
        bench.run()
        first.refuse(1, HTTP_1_1_REQUIRED)
        bench.run()
        later = bench.submit("/later")
        bench.run()
        first.respond(3, body=b"here")
        for _ in range(len(bench.dialer.pending)):
            bench.connect_h1().answers = True
        bench.run()
        for _ in range(len(bench.dialer.pending)):
            bench.connect_h1().answers = True
        bench.run()
        assert [call.response.content for call in (running, refused, later)] == [b"here", b"/refused", b"/later"]
        assert first.paths == ["/refused", "/running"]

    @pytest.mark.parametrize("last_id", [0, 1])
    def test_a_goaway_may_say_so_as_well(self, bench: Bench, last_id: int) -> None:
        """What it leaves to HTTP/2 finishes there."""
        first = bench.open_h2()
        calls = [bench.submit("/one", content=b"post"), bench.submit("/two", content=b"post")]
        bench.run()
        first.go_away(last_id, HTTP_1_1_REQUIRED)
        bench.run()
        assert bench.dialer.http1_alone
        if last_id:
            first.respond(1, body=b"/one")
        while bench.dialer.pending:
            bench.connect_h1().answers = True
            bench.run()
        assert [call.response.content for call in calls] == [b"/one", b"/two"]
        versions = ["HTTP/2" if last_id else "HTTP/1.1", "HTTP/1.1"]
        assert [call.response.http_version for call in calls] == versions
        assert [resend.reason for resend in calls[1].exchange.resends] == ["GOAWAY HTTP_1_1_REQUIRED"]

    def test_a_goaway_changes_nothing_where_http1_is_not_wanted(self, make_bench: MakeBench) -> None:
        bench = make_bench(route={"http1": False})
        first, call = bench.open_h2(), bench.submit()
        bench.run()
        first.go_away(0, HTTP_1_1_REQUIRED)
        bench.run()
        assert not bench.dialer.http1_alone
        bench.connect_h2().answers = True
        bench.run()
        assert call.response.http_version == "HTTP/2"

    def test_a_body_that_cannot_be_replayed_is_not(self, bench: Bench) -> None:
        first, body = bench.open_h2(), HandFed()
        call = bench.submit(source=body)
        bench.run()
        body.pipe.feed(b"gone")
        bench.run()
        first.refuse(1, HTTP_1_1_REQUIRED)
        bench.run()
        assert type(call.error) is ConnectionLost
        assert call.error.processed == "no"

    def test_a_response_that_has_begun_is_lost(self, bench: Bench) -> None:
        first, call = bench.open_h2(), bench.submit()
        bench.run()
        first.head(1)
        first.refuse(1, HTTP_1_1_REQUIRED)
        bench.run()
        assert (type(call.error), call.error.code) == (StreamReset, HTTP_1_1_REQUIRED)


class TestEnhanceYourCalm:
    """F30; RFC 9113 7: a typed error, and nothing that comes back at once."""

    def test_a_reset_is_an_error_that_is_not_retried(self, bench: Bench) -> None:
        peer, call = bench.open_h2(), bench.submit()
        bench.run()
        peer.refuse(1, ENHANCE_YOUR_CALM)
        bench.run()
        assert (type(call.error), call.error.code) == (StreamReset, ENHANCE_YOUR_CALM)
        assert "ENHANCE_YOUR_CALM" in str(call.error)
        assert len(peer.seen) == 1

    def test_a_goaway_is_followed_by_a_pause(self, bench: Bench) -> None:
        first, call = bench.open_h2(), bench.submit("/again")
        bench.run()
        first.go_away(0, ENHANCE_YOUR_CALM)
        bench.run()
        before = len(bench.dialer.pending)
        bench.advance(1.1)
        second = bench.connect_h2()
        second.answers = True
        bench.run()
        assert (before, call.response.content) == (0, b"/again")

    def test_a_server_that_is_never_calm_is_not_asked_for_ever(self, bench: Bench) -> None:
        call = bench.submit()
        bench.run()
        for _ in range(20):
            if call.done:
                break
            peer = bench.connect_h2()
            bench.run()
            peer.send(GoAwayFrame(0, last_stream_id=0, error_code=ENHANCE_YOUR_CALM).serialize())
            bench.run()
            bench.advance(1.1)
        assert type(call.error) is ConnectionLost
        assert "resent too often" in str(call.error)
