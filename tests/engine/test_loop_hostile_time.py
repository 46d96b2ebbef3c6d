"""Servers that keep a request for ever: in four phases, by silence, by a drip, or by PINGs that only look like life.

RELIABILITY T2, T3. The phases before a connection is there (name, connect, proxy, TLS) are in
test_hostile_time_dialing.py, and some of both in tests/client, with real sockets. Time is the bench's, so "on time" is
exact.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from engine_bench import Bench, H2Peer, HandFed
from hyperframe.frame import DataFrame, PingFrame, SettingsFrame, WindowUpdateFrame

from hyperpool.errors import HyperpoolError
from hyperpool.values import Timeout

TOTAL_S, STEP_S = 5.0, 0.25
PING = PingFrame(0, opaque_data=bytes(8)).serialize()
# Bytes of a frame that would take minutes to come.
LONG_SETTINGS = SettingsFrame(0, settings={0x1A1A + number: 1 for number in range(60)}).serialize()
LONG_HEAD = (400).to_bytes(3, "big") + b"\x01\x04\0\0\0\x01" + b"\x88" + b"\0\1x\x7f\x80\x7e" + b"y" * 393


def before_settings(bench: Bench) -> H2Peer:
    bench.run()
    return bench.connect_h2(greet=False)


def greeted(bench: Bench) -> H2Peer:
    bench.run()
    peer = bench.connect_h2(INITIAL_WINDOW_SIZE=0)
    bench.run()
    return peer


def answering(bench: Bench) -> H2Peer:
    peer = greeted(bench)
    peer.head(1)
    bench.run()
    return peer


# For each phase: how the connection gets there, and what drips.
PHASES: dict[str, tuple[Callable[[Bench], H2Peer], Callable[[int], bytes]]] = {
    "before SETTINGS": (before_settings, lambda at: LONG_SETTINGS[at : at + 1]),
    "before the head": (greeted, lambda at: LONG_HEAD[at : at + 1]),
    "within the body": (answering, lambda at: DataFrame(1, data=b"x").serialize()),
    "within an upload": (greeted, lambda at: WindowUpdateFrame(1, window_increment=1).serialize()),
}
WAYS: dict[str, Callable[[Callable[[int], bytes], int], bytes]] = {
    "silence": lambda drip, at: b"",
    "a drip": lambda drip, at: drip(at),
    "PINGs": lambda drip, at: PING,
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("phase", PHASES)
def test_a_request_ends_on_time_whatever_keeps_it(bench: Bench, phase: str, way: str) -> None:
    body = HandFed() if phase == "within an upload" else None
    call = bench.submit(source=body, timeout=Timeout(TOTAL_S))
    began = bench.clock.now
    begin, drip = PHASES[phase]
    peer = begin(bench)
    if body is not None:
        body.pipe.feed(bytes(1_000))
    for at in range(int(TOTAL_S / STEP_S)):
        if call.done:
            break  # a PING before SETTINGS is no HTTP/2, which need not be waited for
        peer.send(WAYS[way](drip, at))
        bench.advance(STEP_S)
    assert call.done, "not on time"
    assert isinstance(call.error, HyperpoolError)
    assert bench.clock.now - began >= TOTAL_S or (phase, way) == ("before SETTINGS", "PINGs")
