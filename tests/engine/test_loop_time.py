"""Transfers that never end and are never silent: heads and bodies that drip (RELIABILITY T3); what timers keep."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import pytest
from engine_bench import CANCEL, Bench, Call
from hyperframe.frame import ContinuationFrame, HeadersFrame

from hyperpool import errors
from hyperpool.engine import loop
from hyperpool.engine.timers import Timers
from hyperpool.handoff.deadlines import NEVER, PACE_S
from hyperpool.values import Timeout

MakeBench = Callable[..., Bench]

RATE = 100.0
PATIENT = Timeout(read=60.0)


class OnHttp2:
    """A server that answers the first request of a bench over HTTP/2."""

    def __init__(self, bench: Bench) -> None:
        self._peer = bench.open_h2()

    def head(self) -> None:
        self._peer.head(1)

    def data(self, data: bytes) -> None:
        self._peer.data(1, data)

    def end(self) -> None:
        self._peer.data(1, end=True)

    def begin_head(self) -> None:
        self._peer.send(HeadersFrame(1, data=b"\x88").serialize())

    def drip_head(self) -> None:
        # "x" with the value "y", a literal that is not put into the table (RFC 7541 6.2.2).
        self._peer.send(ContinuationFrame(1, data=b"\x00\x01x\x01y").serialize())

    @property
    def was_told(self) -> bool:
        return self._peer.seen[1].reset_code == CANCEL


class OnHttp1:
    """The same over HTTP/1.1."""

    def __init__(self, bench: Bench) -> None:
        self._peer = bench.open_h1()

    def head(self) -> None:
        self._peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")

    def data(self, data: bytes) -> None:
        self._peer.send(b"%x\r\n%b\r\n" % (len(data), data))

    def end(self) -> None:
        self._peer.send(b"0\r\n\r\n")

    def begin_head(self) -> None:
        self._peer.send(b"HTTP/1.1 200 OK\r\n")

    def drip_head(self) -> None:
        self._peer.send(b"x: y\r\n")

    @property
    def was_told(self) -> bool:
        return self._peer.eof


both = pytest.mark.parametrize("make_server", [OnHttp2, OnHttp1], ids=["http/2", "http/1.1"])
both_kinds = pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])


def error_of(call: Call) -> Any:
    """What the reader of the response is told."""
    if call.future.exception(0) is not None:
        return call.error
    call.read()
    assert call.pieces is not None
    with pytest.raises(errors.HyperpoolError) as caught:
        next(call.pieces)
    return caught.value


def drips(bench: Bench, server: Any, call: Call, *, seconds: float, body_bytes: int = 1) -> None:
    """A piece each second, and a reader that takes it at once."""
    for _ in range(int(seconds)):
        server.data(b"d" * body_bytes)
        bench.run()
        if call.done and call.future.exception(0) is None:
            call.read()
        bench.advance(1)


# -- bodies that drip --------------------------------------------------------------------------------------------------


@both
@both_kinds
def test_a_body_that_drips_is_a_read_timeout_that_says_the_rate(
    make_bench: MakeBench, make_server: Any, stream: bool
) -> None:
    bench = make_bench(min_body_rate=RATE)
    server = make_server(bench)
    call = bench.submit(stream=stream, timeout=PATIENT)
    bench.run()
    server.head()
    drips(bench, server, call, seconds=2 * PACE_S, body_bytes=9)
    error = error_of(call)
    assert type(error) is errors.ReadTimeout and error.phase == "read" and error.processed == "maybe"
    assert "90 bytes of the body in 10.0 s, less than Limits.min_body_rate=100 bytes a second" in str(error)
    assert PACE_S <= error.spent_s["read"] <= 2 * PACE_S
    bench.run()
    assert server.was_told


@both
@both_kinds
def test_without_a_rate_a_body_may_drip_for_ever(make_bench: MakeBench, make_server: Any, stream: bool) -> None:
    bench = make_bench()
    server = make_server(bench)
    call = bench.submit(stream=stream, timeout=PATIENT)
    bench.run()
    server.head()
    drips(bench, server, call, seconds=200)
    server.end()
    bench.run()
    assert call.response.ok and call.exchange.timer_at == NEVER


@both
@both_kinds
def test_a_body_that_comes_fast_enough_is_let_be(make_bench: MakeBench, make_server: Any, stream: bool) -> None:
    bench = make_bench(min_body_rate=RATE)
    server = make_server(bench)
    call = bench.submit(stream=stream, timeout=PATIENT)
    bench.run()
    server.head()
    drips(bench, server, call, seconds=10 * PACE_S, body_bytes=int(RATE))
    server.end()
    bench.run()
    assert call.response.ok and call.exchange.timer_at == NEVER


@both
def test_a_body_that_grows_slow_later_is_found_out_too(make_bench: MakeBench, make_server: Any) -> None:
    bench = make_bench(min_body_rate=RATE)
    server = make_server(bench)
    call = bench.submit(timeout=PATIENT)
    bench.run()
    server.head()
    server.data(bytes(300_000))
    drips(bench, server, call, seconds=3 * PACE_S)
    assert type(call.error) is errors.ReadTimeout


@both
def test_a_body_that_nobody_reads_is_not_slow(make_bench: MakeBench, make_server: Any) -> None:
    bench = make_bench(min_body_rate=RATE)
    server = make_server(bench)
    call = bench.submit(stream=True, timeout=PATIENT)
    bench.run()
    server.head()
    server.data(b"unread")
    bench.run()
    bench.advance(10 * PACE_S)
    assert call.read() == b"unread"
    server.end()
    bench.run()
    assert call.response.read() == b""


@both
def test_the_pause_of_a_reader_whose_window_was_full_is_not_the_servers(
    make_bench: MakeBench, make_server: Any
) -> None:
    bench = make_bench(min_body_rate=RATE)
    server = make_server(bench)
    call = bench.submit(stream=True, timeout=PATIENT)
    bench.run()
    server.head()
    for _ in range(40):
        server.data(bytes(16_384))
    bench.run()
    bench.advance(PACE_S - 1)
    assert len(call.read()) == 40 * 16_384
    bench.run()
    # The server may go on only now: it has its ten seconds from here.
    bench.advance(PACE_S - 1)
    server.data(bytes(int(RATE * PACE_S)))
    server.end()
    bench.run()
    assert len(call.read()) == int(RATE * PACE_S)


@both
def test_after_such_a_pause_a_body_that_does_not_go_on_is_found_out(make_bench: MakeBench, make_server: Any) -> None:
    bench = make_bench(min_body_rate=RATE)
    server = make_server(bench)
    call = bench.submit(stream=True, timeout=PATIENT)
    bench.run()
    server.head()
    for _ in range(40):
        server.data(bytes(16_384))
    bench.run()
    bench.advance(3 * PACE_S)
    assert len(call.read()) == 40 * 16_384
    bench.run()
    drips(bench, server, call, seconds=2 * PACE_S)
    assert type(error_of(call)) is errors.ReadTimeout


@both
def test_time_before_the_head_is_not_counted(make_bench: MakeBench, make_server: Any) -> None:
    bench = make_bench(min_body_rate=RATE)
    server = make_server(bench)
    call = bench.submit(timeout=PATIENT)
    bench.run()
    bench.advance(3 * PACE_S - 1)
    server.head()
    bench.run()
    bench.advance(2)
    server.data(bytes(2000))
    server.end()
    bench.run()
    assert len(call.response.content) == 2000


def test_a_slow_body_harms_no_sibling(make_bench: MakeBench) -> None:
    bench = make_bench(min_body_rate=RATE)
    peer = bench.open_h2()
    slow, sibling = bench.submit("/slow", timeout=PATIENT), bench.submit("/sibling", timeout=PATIENT)
    bench.run()
    peer.head(1)
    bench.run()
    for _ in range(int(2 * PACE_S)):
        bench.advance(1)
    assert type(slow.error) is errors.ReadTimeout
    peer.respond(3)
    bench.run()
    assert sibling.response.ok


def test_a_rate_shortens_nobodys_patience_for_a_connection(make_bench: MakeBench) -> None:
    bench = make_bench(min_body_rate=RATE)
    call = bench.submit(timeout=Timeout(connect=50))
    bench.run()
    assert bench.dialer.pending[0].deadline_at >= bench.loop.now + 50
    for _ in range(5):
        bench.advance(PACE_S - 1)
    assert not call.done
    bench.advance(PACE_S)
    assert type(call.error) is errors.ConnectTimeout


# -- heads that drip ---------------------------------------------------------------------------------------------------


@both
def test_a_head_that_drips_does_not_prolong_the_read_timeout(make_bench: MakeBench, make_server: Any) -> None:
    """The whole head is due within ``Timeout.read``, whatever its server sends meanwhile."""
    bench = make_bench(ping_after_s=None)
    server = make_server(bench)
    call = bench.submit(timeout=Timeout(read=5))
    bench.run()
    server.begin_head()
    for _ in range(4):
        bench.run()
        bench.advance(1)
        server.drip_head()
    assert not call.done
    bench.run()
    bench.advance(1)
    assert type(call.error) is errors.ReadTimeout and call.error.spent_s["read"] == 5.0


# -- what timers keep --------------------------------------------------------------------------------------------------


class Owner:
    timer_at = NEVER


@pytest.mark.parametrize("end", ["disarmed", "armed earlier"])
def test_an_entry_that_nobody_waits_for_keeps_nothing_alive(end: str) -> None:
    timers: Timers[Owner] = Timers()
    owner = Owner()
    kept = weakref.ref(owner)
    timers.arm(owner, 60.0)
    if end == "disarmed":
        timers.disarm(owner)
    else:
        timers.arm(owner, 1.0)
        assert timers.take_due(1.0) == [owner]
    del owner
    assert kept() is None
    assert timers.take_due(60.0) == []


# -- without a GIL -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True], ids=["idle", "with an open stream"])
def test_without_a_gil_a_loop_with_open_streams_turns_now_and_then(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, stream: bool
) -> None:
    """There what its thread has made, and another has forgotten, is finalized in one of its turns (PEP 703)."""
    monkeypatch.setattr(loop, "_WAKES_FOR_FORGOTTEN", True)
    peer = bench.open_h2()
    if stream:
        call = bench.submit(stream=True, timeout=PATIENT)
        bench.run()
        peer.head(1)
        peer.data(1, b"more will not come")
        bench.run()
        assert call.response.ok
    sleeps_s = bench.loop._sleep_s()
    assert sleeps_s is not None and (sleeps_s <= loop.FORGOTTEN_WITHIN_S) is stream
