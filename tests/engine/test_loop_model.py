"""One origin's loop and its peers, driven by Hypothesis: whatever they do and in whatever order, the laws hold.

The step-driven bench stands between them: no thread, no port, no sleep, and a loop that spins or that forgets to wake
up is seen as such. Each rule is one act of a caller, of a peer, of the network or of time; some acts pile up before the
loop gets its turn, as they do in life.

The bench holds to L5, L7, L10 and the stream limit. Here it is held to more:

- L5: every Future calls back exactly once, and what it gives is what a peer has sent in full;
- L9: a request is on the wire twice only where each earlier copy was refused or stood above a GOAWAY;
- uploads arrive whole, or their request fails;
- a peer that lowers its stream limit gets no new stream until there is room;
- in the end, a peer that behaves answers a fresh request.

A failure prints a ``reproduce_failure`` line; pytest's ``--hypothesis-seed`` repeats a whole run.
HYPERPOOL_MODEL_EXAMPLES: how many lives of a loop are tried, 60 by default.
"""

from __future__ import annotations

import os
from typing import Any

import pytest
from engine_bench import Bench, Call, H1Peer, H2Peer, HandFed, Seen
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from hyperpool.errors import ConnectError, HyperpoolError
from hyperpool.handoff.messages import Close
from hyperpool.protocol.fields import IDEMPOTENT
from hyperpool.values import Limits, Timeout

LIMITS = Limits(
    max_connections_per_origin=2,
    max_http1_connections_per_origin=2,
    max_streams_per_connection=4,
    max_queued_per_origin=30,
    stream_window_bytes=65_535,
    connection_window_bytes=100_000,
    idle_s=40.0,
    ping_after_s=5.0,
    ping_timeout_s=3.0,
)
MODERATE = settings(
    max_examples=int(os.environ.get("HYPERPOOL_MODEL_EXAMPLES", "60")),
    stateful_step_count=60,
    deadline=None,
    print_blob=True,
    # Not Phase.shrink: it would take minutes, and the time limit of a test would end it without a word.
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
# Which of those that are there: taken modulo their number.
ANY = st.integers(0, 1_000)
SIZES = st.sampled_from([0, 1, 100, 9_000, 40_000])
# Whether the loop gets its turn at once.
TURNS = st.sampled_from([True, True, False])
# Rare acts, which would end most lives before they began: not 0, which is drawn far more often than others.
RARE = st.integers(0, 15).map(lambda drawn: drawn == 11)


class Callers(RuleBasedStateMachine):
    """What callers, dials and time can do, for both versions of HTTP."""

    def __init__(self) -> None:
        super().__init__()
        self.bench = Bench(LIMITS)
        self.calls: dict[str, Call] = {}
        self.bodies: dict[str, bytes] = {}
        self.feeding: list[tuple[str, HandFed]] = []
        self.called_back: dict[str, int] = {}
        self.closing = False

    def turn(self, now: bool) -> None:
        if now:
            self.bench.run()

    def submit(self, **options: Any) -> str:
        path = f"/{len(self.calls)}"
        call = self.calls[path] = self.bench.submit(path, **options)
        self.called_back[path] = 0
        call.future.add_done_callback(lambda _: self.count(path))
        return path

    def count(self, path: str) -> None:
        self.called_back[path] += 1

    def is_open(self) -> bool:
        return not self.bench.ended

    # -- callers ---------------------------------------------------------------------------------------------------

    @initialize(settings=st.data())
    def begin(self, settings: Any) -> None:
        """A connection, and requests on it: what comes later is more interesting than how it began."""
        for method in ("GET", "POST", "GET"):
            self.submit(method=method)
        self.bench.run()
        self.connect(settings)
        self.bench.run()

    @precondition(is_open)
    @rule(now=TURNS, stream=st.booleans(), method=st.sampled_from(["GET", "HEAD", "DELETE"]))
    def ask(self, now: bool, stream: bool, method: str) -> None:
        self.submit(stream=stream, method=method)
        self.turn(now)

    @precondition(is_open)
    @rule(now=TURNS, total=st.sampled_from([0.5, 4.0, 30.0]))
    def ask_with_little_patience(self, now: bool, total: float) -> None:
        self.submit(timeout=Timeout(total))
        self.turn(now)

    @precondition(is_open)
    @rule(now=TURNS, size=SIZES, stream=st.booleans())
    def post(self, now: bool, size: int, stream: bool) -> None:
        path = self.submit(content=b"p" * size, stream=stream)
        self.bodies[path] = b"p" * size
        self.turn(now)

    @precondition(is_open)
    @rule(now=TURNS, replayable=st.booleans())
    def post_by_hand(self, now: bool, replayable: bool) -> None:
        source = HandFed(replayable=replayable)
        path = self.submit(source=source)
        self.feeding.append((path, source))
        self.turn(now)

    @precondition(lambda self: self.feeding)
    @rule(which=ANY, size=SIZES, end=st.sampled_from(["", "", "finish", "fail"]), now=TURNS)
    def feed(self, which: int, size: int, end: str, now: bool) -> None:
        path, source = self.feeding[which % len(self.feeding)]
        if not source.pipes or source.pipe._buffered_bytes > LIMITS.upload_buffer_bytes // 2:
            return
        source.pipe.feed(b"f" * size)
        if end:
            self.feeding.remove((path, source))
            source.pipe.finish() if end == "finish" else source.pipe.fail(ValueError("of the caller"))
        self.turn(now)

    @precondition(lambda self: self.calls)
    @rule(which=ANY, now=TURNS)
    def cancel(self, which: int, now: bool) -> None:
        list(self.calls.values())[which % len(self.calls)].future.cancel()
        self.turn(now)

    @precondition(lambda self: self.readable())
    @rule(which=ANY, close=st.booleans(), now=TURNS)
    def read(self, which: int, close: bool, now: bool) -> None:
        calls = self.readable()
        call = calls[which % len(calls)]
        if close:
            call.response.close()
        else:
            call.read()
        self.turn(now)

    def readable(self) -> list[Call]:
        calls = [call for call in self.calls.values() if call.done and call.error is None and call.exchange.streamed]
        return [call for call in calls if not call.response.closed]

    @precondition(is_open)
    @rule(grace_s=st.sampled_from([0.0, 5.0]), sure=RARE)
    def close_pool(self, grace_s: float, sure: bool) -> None:
        if sure:
            self.closing = True
            self.bench.put(Close(self.bench.clock.now + grace_s))
            self.bench.run()

    # -- dials and time --------------------------------------------------------------------------------------------

    @precondition(lambda self: self.bench.dialer.pending)
    @rule(now=TURNS, fails=RARE, settings=st.data())
    def dial_ends(self, now: bool, fails: bool, settings: Any) -> None:
        if fails:
            self.bench.fail_dial(ConnectError("nobody is there"))
        else:
            self.connect(settings)
        self.turn(now)

    def connect(self, data: Any) -> None:
        raise NotImplementedError

    @rule(seconds=st.sampled_from([0.01, 0.01, 0.3, 0.3, 1.1, 1.1, 4.0, 11.0, 45.0]))
    def time_passes(self, seconds: float) -> None:
        if not self.bench.ended:
            self.bench.advance(seconds)

    # -- laws ------------------------------------------------------------------------------------------------------

    @invariant()
    def nobody_is_told_twice(self) -> None:
        for path, times in self.called_back.items():
            assert times == self.calls[path].done, f"L5: {path} was called back {times} times"

    def teardown(self) -> None:
        try:
            self.bench.run()
            self.check_sendings()
            self.check_answers()
            if not (self.bench.ended or self.closing):
                self.check_that_it_recovers()
        finally:
            self.bench.close()
        self.nobody_is_told_twice()
        for path, call in self.calls.items():
            if not call.future.cancelled() and (error := call.error) is not None:
                assert isinstance(error, (HyperpoolError, ValueError)), (path, error)

    def check_that_it_recovers(self) -> None:
        """The network is down for a moment, and everybody gives up; then there are peers that behave."""
        for call in self.calls.values():
            call.future.cancel()
        for peer in self.bench.peers:
            if not (peer.closed or peer.eof):
                peer.deaf = False
                peer.carry()
                peer.close()
        self.bench.run()
        if self.bench.ended:
            return
        last = self.bench.submit("/last")
        for _ in range(60):
            self.bench.advance(0.5)
            if last.done:
                break
            while self.bench.dialer.pending:
                self.connect_well()
        assert last.done and last.error is None, f"a peer that behaves is not asked: {last.exchange!r}"

    def connect_well(self) -> None:
        """Let a dial succeed, with a peer that answers."""
        raise NotImplementedError

    def check_sendings(self) -> None:
        raise NotImplementedError

    def sent_whole(self, path: str) -> list[bytes]:
        """The bodies of the answers to this path that a peer has sent to their end."""
        raise NotImplementedError

    def check_answers(self) -> None:
        for path, call in self.calls.items():
            if call.done and call.error is None and not call.exchange.streamed:
                assert call.response.content in self.sent_whole(path), f"{path} got what nobody has sent"


class Http2Model(Callers):
    """Peers that speak HTTP/2, and obey its rules, but are otherwise as they like."""

    def __init__(self) -> None:
        super().__init__()
        self.peers: list[H2Peer] = []
        self.answers: dict[tuple[int, int], bytearray] = {}
        self.whole: set[tuple[int, int]] = set()
        self.refused: set[tuple[int, int]] = set()
        self.last_ids: dict[int, int] = {}
        self.limits: dict[int, int] = {}
        self.known: dict[int, int] = {}

    def connect(self, data: Any) -> None:
        peer = self.bench.connect_h2(greet=False)
        values = {}
        if data.draw(st.booleans()):
            values["MAX_CONCURRENT_STREAMS"] = data.draw(st.sampled_from([1, 3, 100]))
        if data.draw(st.booleans()):
            values["INITIAL_WINDOW_SIZE"] = data.draw(st.sampled_from([0, 10, 30_000]))
        if not data.draw(RARE):
            peer.greet(**values)
        self.peers.append(peer)

    # -- peers -----------------------------------------------------------------------------------------------------

    def streams(self, *, begun: bool | None = None) -> list[tuple[int, H2Peer, Seen]]:
        """Requests that are owed something: with or without a head so far."""
        found = []
        for number, peer in enumerate(self.peers):
            if peer.closed or peer.eof or not peer._said_settings:
                continue
            for stream_id in peer.open_ids:
                seen, key = peer.seen[stream_id], (number, stream_id)
                if seen.answered or stream_id > self.last_ids.get(number, stream_id):
                    continue
                if begun in (None, key in self.answers):
                    found.append((number, peer, seen))
        return found

    @precondition(lambda self: self.streams(begun=False))
    @rule(which=ANY, end=st.booleans(), interim=st.booleans(), now=TURNS)
    def peer_answers(self, which: int, end: bool, interim: bool, now: bool) -> None:
        number, peer, seen = self.pick(which, begun=False)
        if interim:
            peer.head(seen.stream_id, 103)
        peer.head(seen.stream_id, end=end)
        self.answers[number, seen.stream_id] = bytearray()
        if end:
            self.whole.add((number, seen.stream_id))
        self.turn(now)

    def pick(self, which: int, *, begun: bool | None = None) -> tuple[int, H2Peer, Seen]:
        streams = self.streams(begun=begun)
        return streams[which % len(streams)]

    @precondition(lambda self: self.streams(begun=True))
    @rule(which=ANY, size=SIZES, end=st.booleans(), pad_bytes=st.sampled_from([0, 0, 7]), now=TURNS)
    def peer_sends(self, which: int, size: int, end: bool, pad_bytes: int, now: bool) -> None:
        number, peer, seen = self.pick(which, begun=True)
        if seen.fields[":method"] == "HEAD":
            size = 0
        frames = size // 16_000 + 1
        room = min(peer.connection_credit, peer.stream_credit[seen.stream_id]) - frames * (pad_bytes + 1)
        if room < size:
            return
        peer.data(seen.stream_id, b"d" * size, end=end, pad_bytes=pad_bytes)
        self.answers[number, seen.stream_id] += b"d" * size
        if end:
            self.whole.add((number, seen.stream_id))
        self.turn(now)

    @precondition(lambda self: self.streams(begun=True))
    @rule(which=ANY, now=TURNS)
    def peer_ends_with_trailers(self, which: int, now: bool) -> None:
        number, peer, seen = self.pick(which, begun=True)
        peer.trailers(seen.stream_id, [("x-sum", "1")])
        self.whole.add((number, seen.stream_id))
        self.turn(now)

    @precondition(lambda self: self.streams())
    @rule(which=ANY, code=st.sampled_from([0, 2, 8, 11]), now=TURNS)
    def peer_resets(self, which: int, code: int, now: bool) -> None:
        _, peer, seen = self.pick(which)
        peer.refuse(seen.stream_id, code)
        self.turn(now)

    @precondition(lambda self: self.streams(begun=False))
    @rule(which=ANY, now=TURNS)
    def peer_refuses(self, which: int, now: bool) -> None:
        number, peer, seen = self.pick(which, begun=False)
        peer.refuse(seen.stream_id)
        self.refused.add((number, seen.stream_id))
        self.turn(now)

    def talking(self) -> list[tuple[int, H2Peer]]:
        return [
            (number, peer)
            for number, peer in enumerate(self.peers)
            if not (peer.closed or peer.eof) and peer._said_settings
        ]

    def pick_peer(self, which: int) -> tuple[int, H2Peer]:
        talking = self.talking()
        return talking[which % len(talking)]

    @precondition(lambda self: self.talking())
    @rule(which=ANY, back=st.integers(0, 3), code=st.sampled_from([0, 0, 2, 11]), notice=st.booleans(), now=TURNS)
    def peer_goes_away(self, which: int, back: int, code: int, notice: bool, now: bool) -> None:
        number, peer = self.pick_peer(which)
        if notice and number not in self.last_ids:
            peer.go_away(2**31 - 1)
        begun = [stream_id for peer_number, stream_id in self.answers if peer_number == number]
        latest = max(peer.seen, default=0)
        # It answers what it has begun to answer, and never raises the id again (RFC 9113 6.8).
        last_id = min(self.last_ids.get(number, latest), max([latest - 2 * back, *begun, 0]))
        peer.go_away(last_id, code)
        self.last_ids[number] = last_id
        self.turn(now)

    @precondition(lambda self: self.talking())
    @rule(
        which=ANY,
        streams=st.sampled_from([None, 0, 1, 3, 50]),
        window=st.sampled_from([None, 0, 1, 20_000, 65_535]),
        frame=st.sampled_from([None, 16_384, 100_000]),
        table=st.sampled_from([None, 0, 64, 4_096]),
    )
    def peer_changes_settings(
        self, which: int, streams: int | None, window: int | None, frame: int | None, table: int | None
    ) -> None:
        self.bench.run()
        # A deaf one has not seen yet what was written before, under the old settings.
        talking = [(number, peer) for number, peer in self.talking() if not peer.deaf]
        if not talking:
            return
        number, peer = talking[which % len(talking)]
        named = {
            "MAX_CONCURRENT_STREAMS": streams,
            "INITIAL_WINDOW_SIZE": window,
            "MAX_FRAME_SIZE": frame,
            "HEADER_TABLE_SIZE": table,
        }
        values = {name: value for name, value in named.items() if value is not None}
        if table is not None:
            peer._decoder.max_allowed_table_size = table
        peer.greet(**values)
        if streams is not None:
            self.limits[number] = streams
        self.known[number] = len(peer.seen)
        self.bench.run()

    @precondition(lambda self: self.talking())
    @rule(which=ANY, stream=st.booleans(), credit=st.sampled_from([1, 5_000, 100_000]), now=TURNS)
    def peer_opens_a_window(self, which: int, stream: bool, credit: int, now: bool) -> None:
        _, peer = self.pick_peer(which)
        ids = peer.open_ids
        peer.grant(ids[which % len(ids)] if stream and ids else 0, credit)
        self.turn(now)

    @precondition(lambda self: self.talking())
    @rule(which=ANY, pongs=st.booleans(), now=TURNS)
    def peer_falls_silent_or_not(self, which: int, pongs: bool, now: bool) -> None:
        _, peer = self.pick_peer(which)
        peer.pongs = pongs
        if pongs:
            peer.pong()
        self.turn(now)

    @precondition(lambda self: self.talking())
    @rule(which=ANY, deaf=st.booleans(), now=TURNS)
    def peer_stops_reading_or_not(self, which: int, deaf: bool, now: bool) -> None:
        _, peer = self.pick_peer(which)
        peer.deaf = deaf
        self.turn(now)

    @precondition(lambda self: self.talking())
    @rule(which=ANY, now=TURNS, sure=st.sampled_from([False, False, True]))
    def connection_is_lost(self, which: int, now: bool, sure: bool) -> None:
        if not sure:
            return
        _, peer = self.pick_peer(which)
        if not peer.deaf:
            peer.carry()  # what has arrived was seen
        peer.close()
        self.turn(now)

    # -- laws ------------------------------------------------------------------------------------------------------

    @invariant()
    def no_limit_is_overrun(self) -> None:
        for number, peer in enumerate(self.peers):
            opened = len(peer.seen) - self.known.get(number, len(peer.seen))
            if opened and number in self.limits:
                assert len(peer.open_ids) <= self.limits[number], "RFC 9113 5.1.2: more streams than were allowed"
            self.known[number] = len(peer.seen)

    def check_sendings(self) -> None:
        copies: dict[str, list[bool]] = {}
        for number, peer in enumerate(self.peers):
            for stream_id, seen in peer.seen.items():
                above = stream_id > self.last_ids.get(number, stream_id)
                copies.setdefault(seen.path, []).append(above or (number, stream_id) in self.refused)
                wanted = self.bodies.get(seen.path)
                if seen.ended and wanted is not None and (number, stream_id) not in self.refused and not seen.answered:
                    assert bytes(seen.body) == wanted, f"{seen.path} arrived in part"
        for path, excused in copies.items():
            assert excused.count(False) <= 1, f"L9: {path} was sent again, though it may have been processed"

    def sent_whole(self, path: str) -> list[bytes]:
        whole = [key for key in self.whole if self.peers[key[0]].seen[key[1]].path == path]
        return [bytes(self.answers[key]) for key in whole]

    def connect_well(self) -> None:
        self.bench.connect_h2().answers = True


class Http1Model(Callers):
    """Peers that speak HTTP/1.1."""

    def __init__(self) -> None:
        super().__init__()
        self.peers: list[H1Peer] = []
        # For each request that a peer has heard: what it has answered, and whether that is all.
        self.answers: dict[tuple[int, int], tuple[bytearray, bool]] = {}

    def connect(self, data: Any) -> None:
        self.peers.append(self.bench.connect_h1())

    def owing(self) -> list[tuple[tuple[int, int], H1Peer]]:
        """Peers with a request that is all there and has no answer yet."""
        found = []
        for number, peer in enumerate(self.peers):
            key = (number, len(peer.requests) - 1)
            if peer.requests and peer.requests[-1].ended and key not in self.answers and not (peer.closed or peer.eof):
                found.append((key, peer))
        return found

    @precondition(lambda self: self.owing())
    @rule(which=ANY, size=SIZES, last=st.booleans(), chunked=st.booleans(), now=TURNS)
    def peer_answers(self, which: int, size: int, last: bool, chunked: bool, now: bool) -> None:
        key, peer = self.owing()[which % len(self.owing())]
        size = 0 if peer.requests[-1].method == "HEAD" else size
        fields = [("Transfer-Encoding", "chunked")] if chunked else [("Content-Length", str(size))]
        peer.head(200, [*fields, *([("Connection", "close")] if last else [])])
        if size:
            peer.data(b"d" * size)
        peer.end()
        self.answers[key] = (bytearray(b"d" * size), True)
        if last:
            peer.carry()
            peer.close()
        self.turn(now)

    @precondition(lambda self: self.owing())
    @rule(which=ANY, cut=st.sampled_from([b"", b"HTTP/1.1 2", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc"]))
    def peer_is_cut_off(self, which: int, cut: bytes) -> None:
        key, peer = self.owing()[which % len(self.owing())]
        peer.send(cut)
        # To HEAD, a head is the whole answer, whatever stands behind it.
        whole = peer.requests[key[1]].method == "HEAD" and b"\r\n\r\n" in cut
        self.answers[key] = (bytearray(), whole)
        peer.close()
        self.bench.run()

    def living(self) -> list[H1Peer]:
        return [peer for peer in self.peers if not (peer.closed or peer.eof)]

    @precondition(lambda self: self.living())
    @rule(which=ANY, now=TURNS, sure=st.sampled_from([False, False, True]))
    def connection_is_lost(self, which: int, now: bool, sure: bool) -> None:
        if not sure:
            return
        peer = self.living()[which % len(self.living())]
        peer.carry()
        if not (peer.closed or peer.eof):
            peer.close()
        self.turn(now)

    @precondition(lambda self: self.living())
    @rule(which=ANY, sure=RARE)
    def peer_babbles(self, which: int, sure: bool) -> None:
        """Bytes that nobody had asked for, or that are no answer."""
        if not sure:
            return
        peer = self.living()[which % len(self.living())]
        if not (peer.requests and (self.peers.index(peer), len(peer.requests) - 1) not in self.answers):
            peer.send(b"what?\r\n\r\n")
            self.bench.run()

    def check_sendings(self) -> None:
        copies: dict[str, list[str]] = {}
        for peer in self.peers:
            for request in peer.requests:
                copies.setdefault(request.path, []).append(request.method)
                wanted = self.bodies.get(request.path)
                assert wanted is None or not request.ended or bytes(request.body) == wanted, "an upload in part"
        for path, methods in copies.items():
            # Once more where the kept-alive connection was closed under it, if that can do no harm (RFC 9110 9.2.2).
            most = 2 if methods[0].encode() in IDEMPOTENT or methods[0] in IDEMPOTENT else 1
            assert len(methods) <= most, f"L9: {methods[0]} {path} was sent {len(methods)} times"

    def sent_whole(self, path: str) -> list[bytes]:
        return [
            bytes(body)
            for (number, at), (body, whole) in self.answers.items()
            if whole and self.peers[number].requests[at].path == path
        ]

    def connect_well(self) -> None:
        self.bench.connect_h1().answers = True


TestHttp2Model = pytest.mark.slow(Http2Model.TestCase)
TestHttp2Model.settings = MODERATE
TestHttp1Model = pytest.mark.slow(Http1Model.TestCase)
TestHttp1Model.settings = MODERATE
