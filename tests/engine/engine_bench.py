"""The test bench of the engine: an `OriginLoop` that is turned by hand, between a clock, a dialler and peers of ours.

No thread, no port, no sleep. `Bench.run` turns the loop for as long as it has something to do, which it says itself,
and carries bytes between it and its peers; then the loop would sleep, and the test looks at what was done. So a lost
wake-up shows as a thing that is not done, and a loop that never rests fails as one that spins. Time passes in
`Bench.advance` only.

Every test is held to three laws when its bench closes: each exchange was settled (L5), both ledgers balance (L7; this
is looked at whenever the loop rests as well), no connection's life went back (L10).
Every `H2Peer` checks L6, since it refuses ids that do not rise and cannot decode HPACK blocks in another order, and
that its stream limit is respected.
"""

from __future__ import annotations

import base64
import contextlib
import socket
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass, field
from typing import Any, TypeVar

import h11
import hpack
from hyperframe.frame import (
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    PushPromiseFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from hyperpool.engine.connection import Connection, Life
from hyperpool.engine.dial import Dialed
from hyperpool.engine.dial_cancel import DialPhase
from hyperpool.engine.http2 import REST_S, Http2Connection
from hyperpool.engine.loop import OriginLoop
from hyperpool.errors import HyperpoolError, PoolClosed
from hyperpool.handoff import messages
from hyperpool.handoff.body import Piece, UploadPipe
from hyperpool.handoff.deadlines import NEVER
from hyperpool.handoff.exchange import Exchange, State
from hyperpool.handoff.futures import LoopFuture, ResponseFuture
from hyperpool.handoff.inbox import InboxClosed
from hyperpool.handoff.pushes import Push, Pushes
from hyperpool.handoff.response import Response
from hyperpool.handoff.source import Source, make_source
from hyperpool.protocol.fields import prepare_head
from hyperpool.urls import parse_url
from hyperpool.values import Limits, Request, Route, Timeout, TlsSettings

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
PATIENT = Timeout(pool=None, connect=None, write=None, read=None)
NO_ERROR, PROTOCOL_ERROR, REFUSED_STREAM, CANCEL, ENHANCE_YOUR_CALM = 0, 1, 7, 8, 11
INITIAL_WINDOW_BYTES = 65_535
# Far more than any test needs: a loop that is still busy after as many turns is spinning.
MOST_TURNS = 20_000

F = TypeVar("F", bound=Frame)


class Clock:
    """Time that passes when the test says so. ``before_next`` runs once, inside the next look at the clock."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.before_next: Callable[[], None] | None = None

    def __call__(self) -> float:
        act, self.before_next = self.before_next, None
        if act is not None:
            act()
        return self.now


@dataclass
class Dial:
    """One dial that the loop has asked for."""

    deliver: Callable[[Any], None]
    deadline_at: float


class HeldDialer:
    """Notes the dials; the test says what comes of each. ``refuses_to_start``: as where no thread can be started."""

    def __init__(self) -> None:
        self.pending: list[Dial] = []
        self.started = 0
        self.refuses_to_start = False
        self.http1_alone = False
        self.phase: DialPhase | None = None

    def start(self, deliver: Callable[[Any], None], *, deadline_at: float) -> None:
        if self.refuses_to_start:
            raise RuntimeError("can't start new thread")
        self.started += 1
        self.pending.append(Dial(deliver, deadline_at))

    def cancel(self) -> None:
        for dial in self.take_all():
            with contextlib.suppress(InboxClosed):
                dial.deliver(messages.DialFailed(PoolClosed("cancelled")))

    def abandon_in_child(self) -> None:
        self.pending.clear()

    def speak_http1(self) -> None:
        self.http1_alone = True

    def take_all(self) -> list[Dial]:
        taken, self.pending = self.pending, []
        return taken


class HandFed:
    """A request body that the test feeds through a real `UploadPipe`, in place of an uploader thread."""

    def __init__(self, *, length_bytes: int | None = None, replayable: bool = False, starts: bool = True) -> None:
        self.length_bytes = length_bytes
        self.replayable = replayable
        self.starts = starts
        self.pipes: list[UploadPipe] = []

    def open(self, *, notify: Callable[[], None], capacity_bytes: int) -> UploadPipe:
        if not self.starts:
            raise RuntimeError("can't start new thread")
        self.pipes.append(UploadPipe(capacity_bytes=capacity_bytes, notify=notify))
        return self.pipes[-1]

    def abandon(self) -> None:
        """Its pipe was told."""

    @property
    def pipe(self) -> UploadPipe:
        return self.pipes[-1]


class Endless:
    """An upload that always has more, as a generator that is faster than the wire; ``taken`` counts its pieces."""

    length_bytes = None
    replayable = False

    def __init__(self, most_bytes: int = 1 << 30) -> None:
        self.taken = 0
        self._most_bytes = most_bytes

    def open(self, *, notify: Callable[[], None], capacity_bytes: int) -> Endless:
        return self

    def take(self, max_bytes: int) -> Piece:
        self.taken += 1
        return Piece(bytes(min(max_bytes, self._most_bytes)), last=False)

    def abandon(self) -> None:
        pass


@dataclass
class Call:
    """One request of the test, with everything that comes of it."""

    exchange: Exchange
    future: ResponseFuture
    pieces: Iterator[bytes] | None = None

    @property
    def done(self) -> bool:
        return self.future.done()

    @property
    def response(self) -> Response:
        return self.future.result(0)

    @property
    def error(self) -> Any:
        try:
            return self.future.exception(0)
        except CancelledError as cancelled:
            return cancelled

    @property
    def stream_id(self) -> int:
        assert self.exchange.stream_id is not None
        return self.exchange.stream_id

    @property
    def pushes(self) -> list[Push]:
        """What the server has promised beside it and nobody has taken yet."""
        assert self.future.pushes is not None
        return list(self.future.pushes.so_far())

    def read(self) -> bytes:
        """What a reader finds of a streamed body now, without waiting for more."""
        if self.pieces is None:
            self.pieces = self.response.iter_raw()
        found = b""
        while self.exchange.unread_bytes:
            found += next(self.pieces)
        return found


class Peer:
    """The server's end of one socket. ``deaf``: it reads nothing; ``eof``: the loop has closed its end."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.sock.setblocking(False)
        self.deaf = False
        self.eof = False
        self.sent_bytes = 0
        self._out = bytearray()

    def send(self, data: bytes) -> None:
        self._out += data

    def close(self) -> None:
        """Close politely, which sends what was said before."""
        self.flush()
        self.sock.close()

    def reset(self) -> None:
        """Close with bytes unread, which the other end sees as ECONNRESET."""
        assert self.sock.recv(1, socket.MSG_PEEK), "nothing unread"
        self.sock.close()

    @property
    def closed(self) -> bool:
        return self.sock.fileno() < 0

    def flush(self) -> bool:
        if not self._out or self.closed:
            return False
        try:
            sent = self.sock.send(self._out)
        except BlockingIOError:
            return False
        except (BrokenPipeError, ConnectionResetError):
            self._out.clear()
            return False
        del self._out[:sent]
        self.sent_bytes += sent
        return True

    def carry(self) -> bool:
        """Send and read what can be; whether anything moved."""
        moved = self.flush()
        while not (self.closed or self.deaf or self.eof):
            try:
                data = self.sock.recv(1 << 18)
            except BlockingIOError:
                break
            except ConnectionResetError:
                data = b""
            self.eof = not data
            self.hear(data)
            moved = True
        return self.flush() or moved

    def hear(self, data: bytes) -> None:
        """Act on bytes; b"" is the end."""
        raise NotImplementedError


@dataclass
class Seen:
    """A request as an HTTP/2 peer sees it."""

    stream_id: int
    fields: dict[str, str]
    body: bytearray = field(default_factory=bytearray)
    pieces: list[int] = field(default_factory=list)
    ended: bool = False
    reset_code: int | None = None
    answered: bool = False

    @property
    def path(self) -> str:
        return self.fields[":path"]


class H2Peer(Peer):
    """A server of frames. It acknowledges SETTINGS and PING by itself, and answers only what the test tells it to.

    ``answers``: every complete request gets a 200 with its path as body at once. ``pongs``: PINGs are answered; those
    that were not are in ``unanswered``. ``limit``: the MAX_CONCURRENT_STREAMS that it has announced.
    """

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock)
        self.answers = False
        self.pongs = True
        self.limit: int | None = None
        self.frames: list[Frame] = []
        self.seen: dict[int, Seen] = {}
        self.most_open = 0
        self.unanswered: list[bytes] = []
        self.connection_credit = INITIAL_WINDOW_BYTES
        self.stream_credit: dict[int, int] = {}
        self._initial_credit = INITIAL_WINDOW_BYTES
        self._in = bytearray()
        self._preface_heard = False
        self._said_settings = False
        self._encoder = hpack.Encoder()
        self._decoder = hpack.Decoder()

    # -- what it has heard -----------------------------------------------------------------------------------------

    @property
    def paths(self) -> list[str]:
        return [seen.path for seen in self.seen.values()]

    @property
    def open_ids(self) -> list[int]:
        return [
            one
            for one, seen in self.seen.items()
            if one % 2 and seen.reset_code is None and not (seen.ended and seen.answered)
        ]

    def heard(self, kind: type[F]) -> list[F]:
        return [frame for frame in self.frames if isinstance(frame, kind)]

    @property
    def goaway(self) -> GoAwayFrame | None:
        return next(iter(self.heard(GoAwayFrame)), None)

    @property
    def pings(self) -> int:
        return sum("ACK" not in frame.flags for frame in self.heard(PingFrame))

    def hear(self, data: bytes) -> None:
        self._in += data
        if not self._preface_heard and len(self._in) >= len(PREFACE):
            assert self._in.startswith(PREFACE)
            del self._in[: len(PREFACE)]
            self._preface_heard = True
        while self._preface_heard and len(self._in) >= 9:
            frame, length = Frame.parse_frame_header(memoryview(bytes(self._in[:9])))
            if len(self._in) < 9 + length:
                return
            frame.parse_body(memoryview(bytes(self._in[9 : 9 + length])))
            del self._in[: 9 + length]
            self._react(frame)

    def _react(self, frame: Frame) -> None:
        self.frames.append(frame)
        if isinstance(frame, SettingsFrame) and "ACK" not in frame.flags:
            self._initial_credit = frame.settings.get(SettingsFrame.INITIAL_WINDOW_SIZE, INITIAL_WINDOW_BYTES)
            self._acknowledge()
        elif isinstance(frame, PingFrame) and "ACK" not in frame.flags:
            self.unanswered.append(frame.opaque_data)
            if self.pongs and self._said_settings:
                self.pong()
        elif isinstance(frame, WindowUpdateFrame):
            self._credit(frame.stream_id, frame.window_increment)
        elif isinstance(frame, HeadersFrame):
            self._open(frame)
        elif isinstance(frame, DataFrame):
            seen = self.seen[frame.stream_id]
            seen.body += frame.data
            seen.pieces.append(len(frame.data))
            self._end(seen, "END_STREAM" in frame.flags)
        elif isinstance(frame, RstStreamFrame):
            seen = self.seen[frame.stream_id]
            # The first counts: h2 answers each frame that comes after a reset with one more.
            seen.reset_code = frame.error_code if seen.reset_code is None else seen.reset_code

    def _credit(self, stream_id: int, credit: int) -> None:
        if stream_id:
            self.stream_credit[stream_id] += credit
        else:
            self.connection_credit += credit

    def _open(self, frame: HeadersFrame) -> None:
        latest = max((one for one in self.seen if one % 2), default=-1)
        assert frame.stream_id == latest + 2, "L6: ids on the wire are 1, 3, 5, ..."
        fields = dict(self._decoder.decode(frame.data))
        seen = self.seen[frame.stream_id] = Seen(frame.stream_id, fields)
        self.stream_credit[frame.stream_id] = self._initial_credit
        open_now = len(self.open_ids)
        self.most_open = max(self.most_open, open_now)
        assert self.limit is None or open_now <= self.limit, "RFC 9113 5.1.2: more streams than were allowed"
        self._end(seen, "END_STREAM" in frame.flags)

    def _end(self, seen: Seen, ended: bool) -> None:
        seen.ended = seen.ended or ended  # what was under way when it was refused opens no stream again
        if ended and self.answers:
            self.respond(seen.stream_id, body=seen.path.encode())

    # -- what it says ----------------------------------------------------------------------------------------------

    def greet(self, **values: int) -> None:
        """Send SETTINGS, by the names of RFC 9113 6.5.2."""
        limit = values.get("MAX_CONCURRENT_STREAMS", self.limit)
        # A lower limit holds for new streams (RFC 9113 5.1.2); tests that lower it look for themselves.
        self.limit = limit if self.limit is None or limit is None or limit >= len(self.open_ids) else None
        numbers = {getattr(SettingsFrame, name): value for name, value in values.items()}
        self.send(SettingsFrame(0, settings=numbers).serialize())
        if not self._said_settings:
            self._said_settings = True
            self._acknowledge()
            self.pong()

    def _acknowledge(self) -> None:
        # A server's own SETTINGS come first (RFC 9113 3.4).
        if self._said_settings and self._preface_heard:
            self.send(SettingsFrame(0, flags=["ACK"]).serialize())

    def head(
        self, stream_id: int, status: int = 200, fields: Iterable[tuple[str, str]] = (), *, end: bool = False
    ) -> None:
        self._headers(stream_id, [(":status", str(status)), *fields], end)

    def trailers(self, stream_id: int, fields: Sequence[tuple[str, str]]) -> None:
        self._headers(stream_id, list(fields), True)

    def _headers(self, stream_id: int, fields: list[tuple[str, str]], end: bool) -> None:
        self.seen[stream_id].answered |= end
        flags = ["END_HEADERS", "END_STREAM"] if end else ["END_HEADERS"]
        self.send(HeadersFrame(stream_id, data=self._encoder.encode(fields), flags=flags).serialize())

    def data(self, stream_id: int, data: bytes = b"", *, end: bool = False, pad_bytes: int = 0) -> None:
        """Send DATA, in frames of no more than 16 KiB, whatever the windows say."""
        self.seen[stream_id].answered |= end
        whole, at = len(data), 0
        while True:
            piece = data[at : at + (1 << 14) - 1 - pad_bytes]
            at += len(piece)
            flags = ["END_STREAM"] if end and at == whole else []
            flags += ["PADDED"] if pad_bytes else []
            frame = DataFrame(stream_id, data=piece, pad_length=pad_bytes, flags=flags)
            self.send(frame.serialize())
            self.connection_credit -= frame.flow_controlled_length
            self.stream_credit[stream_id] -= frame.flow_controlled_length
            if at == whole:
                return

    def fill_window(self, stream_id: int) -> int:
        """Send all that the windows allow; how many bytes that was."""
        room = min(self.connection_credit, self.stream_credit[stream_id])
        if room > 0:
            self.data(stream_id, bytes(room))
        return max(room, 0)

    def promise(
        self, parent_id: int, promised_id: int, path: str = "/pushed", fields: Iterable[tuple[str, str]] | None = None
    ) -> None:
        """Promise the response to a request (RFC 9113 8.4): a GET of ``path``, or whatever ``fields`` say."""
        request = [(":method", "GET"), (":scheme", "https"), (":authority", "a.test"), (":path", path)]
        fields = list(request if fields is None else fields)
        self.seen[promised_id] = Seen(promised_id, dict(fields), ended=True)
        self.stream_credit[promised_id] = self._initial_credit
        block = self._encoder.encode(fields)
        frame = PushPromiseFrame(parent_id, promised_stream_id=promised_id, data=block, flags=["END_HEADERS"])
        self.send(frame.serialize())

    def respond(self, stream_id: int, status: int = 200, *, body: bytes = b"") -> None:
        self.head(stream_id, status, end=not body)
        if body:
            self.data(stream_id, body, end=True)

    def refuse(self, stream_id: int, code: int = REFUSED_STREAM) -> None:
        self.seen[stream_id].answered = self.seen[stream_id].ended = True
        self.send(RstStreamFrame(stream_id, error_code=code).serialize())

    def go_away(self, last_stream_id: int, code: int = NO_ERROR) -> None:
        self.send(GoAwayFrame(0, last_stream_id=last_stream_id, error_code=code).serialize())

    def grant(self, stream_id: int, credit: int) -> None:
        self.send(WindowUpdateFrame(stream_id, window_increment=credit).serialize())

    def pong(self) -> None:
        """Answer the PINGs that were not answered yet."""
        unanswered, self.unanswered = self.unanswered, []
        for payload in unanswered:
            self.send(PingFrame(0, opaque_data=payload, flags=["ACK"]).serialize())


@dataclass
class SeenHttp1:
    """A request as an HTTP/1.1 peer sees it."""

    method: str
    path: str
    fields: dict[str, str]
    body: bytearray = field(default_factory=bytearray)
    ended: bool = False


class H1Peer(Peer):
    """An HTTP/1.1 server, by h11; `send` says what h11 would not. ``answers``: as `H2Peer`'s."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock)
        self.answers = False
        self.requests: list[SeenHttp1] = []
        self._machine = h11.Connection(h11.SERVER)

    @property
    def paths(self) -> list[str]:
        return [request.path for request in self.requests]

    def hear(self, data: bytes) -> None:
        self._machine.receive_data(data)
        while (event := self._next_event()) not in (h11.NEED_DATA, h11.PAUSED, None):
            self._react(event)

    def _next_event(self) -> Any:
        try:
            event = self._machine.next_event()
        except h11.RemoteProtocolError:
            assert self.eof  # a request that ends with its connection; `SeenHttp1.ended` tells
            return None
        return None if isinstance(event, h11.ConnectionClosed) else event

    def _react(self, event: Any) -> None:
        if isinstance(event, h11.Request):
            fields = {name.decode(): value.decode() for name, value in event.headers}
            self.requests.append(SeenHttp1(event.method.decode(), event.target.decode(), fields))
        elif isinstance(event, h11.Data):
            self.requests[-1].body += event.data
        elif isinstance(event, h11.EndOfMessage):
            self.requests[-1].ended = True
            if self.answers:
                self.respond(body=self.requests[-1].path.encode())

    def head(self, status: int = 200, fields: Sequence[tuple[str, str]] = ()) -> None:
        self.send(self._machine.send(h11.Response(status_code=status, headers=fields)))

    def data(self, data: bytes) -> None:
        self.send(self._machine.send(h11.Data(data=data)))

    def end(self, trailers: Sequence[tuple[str, str]] = ()) -> None:
        self.send(self._machine.send(h11.EndOfMessage(headers=trailers)))
        if self._machine.our_state is h11.DONE and self._machine.their_state is h11.DONE:
            self._machine.start_next_cycle()

    def switch(self) -> H2Peer:
        """Answer 101 to the offer of HTTP/2 (RFC 7540 3.2), and go on as the HTTP/2 server that this gives."""
        offer = self.requests[-1].fields
        settings = SettingsFrame(0)
        settings.parse_body(memoryview(base64.urlsafe_b64decode(offer["http2-settings"])))
        peer = H2Peer(self.sock)
        peer._initial_credit = settings.settings[SettingsFrame.INITIAL_WINDOW_SIZE]
        peer.seen[1] = Seen(1, {":path": self.requests[-1].path}, ended=True)
        peer.stream_credit[1] = peer._initial_credit
        peer.send(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n")
        return peer

    def respond(self, status: int = 200, *, body: bytes = b"", fields: Sequence[tuple[str, str]] = ()) -> None:
        self.head(status, [("Content-Length", str(len(body))), *fields])
        self.data(body)
        self.end()


P = TypeVar("P", bound=Peer)


class Bench:
    """One loop, turned by hand."""

    def __init__(self, limits: Limits | None = None, *, url: str = "https://a.test", **differs: Any) -> None:
        self.url = url
        self.limits = limits or Limits()
        self.clock = Clock()
        self.dialer = HeldDialer()
        self.route = Route(parse_url(url).origin, TlsSettings(), **differs)
        self.loop = OriginLoop(self.route, self.limits, self.dialer, clock=self.clock)
        self.ended = False
        self.calls: list[Call] = []
        self.peers: list[Peer] = []
        self.lives: dict[Connection, list[Life]] = {}
        self.carried: dict[Exchange, None] = {}

    # -- requests --------------------------------------------------------------------------------------------------

    def submit(
        self,
        path: str = "/",
        *,
        method: str = "GET",
        content: Any = None,
        source: Source | None = None,
        headers: tuple[tuple[str, str], ...] = (),
        timeout: Timeout = PATIENT,
        stream: bool = False,
    ) -> Call:
        """What `ConnectionPool.submit` does, for this one loop. A body makes it a POST."""
        source = source if source is not None else make_source(content)
        method = "POST" if source is not None and method == "GET" else method
        request = Request(method, self.url + path, headers, content, timeout)
        length = 0 if source is None else source.length_bytes
        head = prepare_head(method=method, url=parse_url(request.url), headers=headers, body_bytes=length)
        exchange = Exchange(
            request,
            head,
            source=source,
            streamed=stream,
            submitted_at=self.clock.now,
            origin=str(self.route.origin),
            limits=self.limits,
        )
        assert exchange.future is not None
        exchange.inbox = self.loop.inbox
        if self.route.push:
            exchange.pushes = exchange.future.pushes = Pushes()
        self.loop.inbox.put(messages.Submit(exchange))
        self.calls.append(Call(exchange, exchange.future))
        return self.calls[-1]

    def submit_many(self, count: int, **options: Any) -> list[Call]:
        """Requests for /0, /1, /2, ..."""
        return [self.submit(f"/{number}", **options) for number in range(count)]

    def ask_for_connection(self, *, patience_s: float = NEVER) -> Future[str]:
        """What `ConnectionPool.connect` does."""
        connected: Future[str] = LoopFuture()
        self.put(messages.Connect(connected, self.clock.now + patience_s, patience_s))
        return connected

    def put(self, message: Any) -> None:
        self.loop.inbox.put(message)

    # -- dials -----------------------------------------------------------------------------------------------------

    def connect_h2(self, *, greet: bool = True, **settings: int) -> H2Peer:
        """Let the oldest dial succeed, with HTTP/2; the peer's SETTINGS are not carried yet."""
        peer = self._connect(H2Peer, "h2")
        if greet:
            peer.greet(**settings)
        return peer

    def connect_h1(self) -> H1Peer:
        """Let the oldest dial succeed, with HTTP/1.1."""
        return self._connect(H1Peer, None)

    def _connect(self, kind: type[P], alpn: str | None) -> P:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        dialed = Dialed(self.route, ours, None, alpn, (), {})
        self.dialer.pending.pop(0).deliver(messages.Dialed(dialed))
        peer = kind(theirs)
        self.peers.append(peer)
        return peer

    def switch(self, peer: H1Peer) -> H2Peer:
        """Let an HTTP/1.1 peer go on in HTTP/2; nothing is carried yet."""
        successor = peer.switch()
        self.peers[self.peers.index(peer)] = successor
        return successor

    def fail_dial(self, error: HyperpoolError) -> None:
        """Let the oldest dial fail."""
        self.dialer.pending.pop(0).deliver(messages.DialFailed(error))

    def open_h2(self, **settings: int) -> H2Peer:
        """A connection that is there, idle and ready."""
        self.put(messages.Prewarm(1))
        self.run()
        peer = self.connect_h2(**settings)
        self.run()
        return peer

    def open_h1(self) -> H1Peer:
        """A connection that is there, and idle."""
        self.put(messages.Prewarm(len(self.connections) + 1))
        self.run()
        peer = self.connect_h1()
        self.run()
        return peer

    # -- turns -----------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Turn the loop, and carry bytes, until nothing moves: the loop would sleep now.

        Time stands still, but for the short rests after much that nobody has asked for.
        """
        for _ in range(MOST_TURNS):
            if not (self._turn() or self._carry() or self._rest()):
                self._check_ledgers()
                return
        raise AssertionError(f"{self.loop!r} spins")

    def _turn(self) -> bool:
        if self.ended or not self.is_due:
            return False
        self.step()
        return True

    def _rest(self) -> bool:
        resting = any(one._h2.held for one in self.connections if isinstance(one, Http2Connection))
        self.clock.now += REST_S * resting
        return resting

    def _carry(self) -> bool:
        moved = [peer.carry() for peer in self.peers]
        return any(moved)

    @property
    def is_due(self) -> bool:
        """Whether the loop's select would return at once."""
        return self.loop._sleep_s() == 0 or bool(self.loop._selector.select(0))

    def step(self) -> None:
        """One turn. Only while the loop has something to do, else it would sleep."""
        self._note_lives()
        self.ended = not self.loop.step()
        self._note_lives()

    def _note_lives(self) -> None:
        for connection in self.connections:
            self.lives.setdefault(connection, [])
            # Also those that the server has made by itself.
            self.carried.update(dict.fromkeys(connection.exchanges))
        for connection, lives in self.lives.items():
            if connection.life not in lives[-1:]:
                lives.append(connection.life)

    def advance(self, seconds: float) -> None:
        """Let time pass, and then everything that it brings about."""
        self.clock.now += seconds
        self.run()

    @property
    def connections(self) -> list[Connection]:
        return list(self.loop._connections)

    def run_in_thread(self) -> None:
        """Let the loop run by itself, on a thread of its own, to its end."""
        thread = threading.Thread(target=self.loop.run, name="hyperpool bench", daemon=True)
        thread.start()
        thread.join(30)
        assert not thread.is_alive()
        self.ended = True

    # -- the end ---------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """End the loop, hold the test to the laws, and leave nothing open."""
        try:
            if not self.ended:
                self.put(messages.Close(self.clock.now))
                self.run()
            self._hold_to_the_laws()
        finally:
            for connection in [*self.lives, *self.connections]:
                connection.transport.abort()
            for peer in self.peers:
                peer.sock.close()
            self.loop._release()
            for call in self.calls:
                if call.done and not isinstance(call.error, BaseException):
                    call.response.close()

    def _hold_to_the_laws(self) -> None:
        assert self.ended, "L2: the loop goes on with nothing left"
        for call in self.calls:
            assert call.done, f"L5: {call.exchange!r} was never settled"
        for exchange in self.carried:
            assert exchange.state is State.DONE and exchange.future is None, f"L5: {exchange!r} was never settled"
        for lives in self.lives.values():
            # L10
            assert lives == sorted(lives, key=list(Life).index), lives
        self._check_ledgers()

    def _check_ledgers(self) -> None:
        for connection in self.lives:
            if isinstance(connection, Http2Connection):
                check_ledgers(connection)


def check_ledgers(connection: Http2Connection) -> None:
    """L7, at this moment, and that h2, which tells the peer, has counted the same."""
    machine = connection._h2._machine
    assert connection._windows.ledger.balanced
    if connection.life is not Life.CLOSED:
        # What comes on streams that we have reset is credited by h2 alone.
        assert machine._inbound_flow_control_window_manager.current_window_size <= connection._windows.ledger.left
    for stream in connection._streams.open.values():
        assert stream.ledger.balanced
        assert machine.streams[stream.stream_id]._inbound_window_manager.current_window_size == stream.ledger.left
