"""What all connections of one server share, and how a request finds its handler and its answer finds the wire.

`Service.serve` is the only place where a request changes threads: inline handlers run where they are, all others on
the crew, whose answers come back as commands to the connection's I/O thread.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from hyperpool.testing.bodies import BytesSource, IteratorSource, Outgoing, PeerGone, ReplyPipe, Upload
from hyperpool.testing.crew import Crew
from hyperpool.testing.logbook import Logbook, SeenRequest
from hyperpool.testing.messages import Answer, Fault, Handler, Reply, Request, Reset, Silence, as_answer


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How a server behaves on the wire. Immutable. The defaults are those of `Server`."""

    tls: bool
    http2: bool
    http1: bool
    max_concurrent_streams: int
    initial_window_bytes: int
    connection_window_bytes: int
    max_frame_bytes: int
    h2_settings: Mapping[int, int]
    upgrades: bool


class Exchange:
    """One request with its reply.

    Owned by the I/O thread; handlers see `request` and `upload` alone.
    """

    __slots__ = ("is_over", "outgoing", "request", "seen", "upload")

    def __init__(self, request: Request, upload: Upload, seen: SeenRequest) -> None:
        self.request = request
        self.upload = upload
        self.seen = seen
        self.outgoing: Outgoing | None = None
        self.is_over = False

    def feed(self, piece: bytes, credit_bytes: int) -> int:
        self.seen.body_bytes += len(piece)
        return self.upload.feed(piece, credit_bytes)

    def finish_upload(self, trailers: list[tuple[str, str]]) -> None:
        self.seen.is_complete = True
        self.upload.finish(trailers)

    def abandon(self, why: str) -> None:
        """The peer will get no more of this: let the handler's threads know."""
        self.is_over = True
        self.upload.fail(PeerGone(why))
        if self.outgoing is not None:
            self.outgoing.source.close()


class Wire(Protocol):
    """What a peer sees of its connection."""

    number: int

    def post(self, command: Callable[[], None]) -> bool:
        """Run the command on the I/O thread; False if that ended. Never blocks; callable from any thread."""

    def wake(self) -> None:
        """Make the I/O thread take a turn; callable from any thread."""

    def write(self, data: bytes) -> None:
        """Append to what the socket gets."""

    def switch(self, peer: Peer) -> None:
        """Let another protocol go on from here."""

    def end(self, ending: Ending) -> None:
        """Close, after what was written was sent."""


@dataclass(frozen=True, slots=True)
class Ending:
    """How a connection closes. Immutable.

    ``is_polite``: with close_notify, and reading on for a while so that the last bytes are not lost to a TCP RST.
    ``rst``: by TCP RST (SO_LINGER 0).
    """

    is_polite: bool = False
    rst: bool = False


POLITE = Ending(is_polite=True)
CUT = Ending()
RST = Ending(rst=True)


class Peer(Protocol):
    """One protocol on one connection; every method runs on the I/O thread."""

    @property
    def wants_read(self) -> bool:
        """Whether there is room for what the socket has."""

    def receive(self, data: bytes) -> None:
        """Take what came; b"" is its end."""

    def pump(self, room_bytes: int) -> bool:
        """Write what may be sent, up to about so much; whether there may be more at once."""

    def reply(self, exchange: Exchange, outgoing: Outgoing) -> None:
        """Send the head, and the body with the next `pump`."""

    def fault(self, exchange: Exchange, fault: Fault) -> None:
        """Do the fault now."""

    def abandon(self, why: str) -> None:
        """The connection ended."""


@dataclass(kw_only=True)
class Service:
    """The shared part of all connections.

    Shared; its members guard themselves, and ``is_paused`` is a plain flag that every turn reads.
    """

    options: Options
    log: Logbook
    crew: Crew
    find_handler: Callable[[str], Handler]
    tls_context: ssl.SSLContext | None
    is_paused: bool = field(default=False)

    def serve(self, wire: Wire, peer: Peer, exchange: Exchange) -> None:
        """Have the request answered, on this thread or on one of the crew."""
        handler = self.find_handler(exchange.request.path)
        if getattr(handler, "runs_inline", False):
            self._serve_inline(handler, peer, exchange)
        else:
            self.crew.submit(partial(self._serve_from_crew, handler, wire, peer, exchange))

    def _serve_inline(self, handler: Handler, peer: Peer, exchange: Exchange) -> None:
        answer = self._ask(handler, exchange.request)
        if not isinstance(answer, Reply):
            return peer.fault(exchange, answer)
        whole = answer.whole_body()
        source = IteratorSource(_iterable(answer)) if whole is None else BytesSource(whole)
        peer.reply(exchange, Outgoing(answer, source))

    def _serve_from_crew(self, handler: Handler, wire: Wire, peer: Peer, exchange: Exchange) -> None:
        answer = self._ask(handler, exchange.request)
        if not isinstance(answer, Reply):
            wire.post(partial(peer.fault, exchange, answer))
            return
        whole = answer.whole_body()
        if whole is not None:
            wire.post(partial(peer.reply, exchange, Outgoing(answer, BytesSource(whole))))
            return
        pipe = ReplyPipe(wire.wake)
        if wire.post(partial(peer.reply, exchange, Outgoing(answer, pipe))):
            self._pour(_iterable(answer), pipe, on_error=lambda: wire.post(partial(peer.fault, exchange, Reset())))

    def _ask(self, handler: Handler, request: Request) -> Answer:
        try:
            return as_answer(handler(request))
        except PeerGone:
            return Silence()  # nobody is left to be answered
        except Exception as error:
            self.log.error(error)
            return Reply(500, body=f"{type(error).__name__}: {error}")

    def _pour(self, pieces: Iterable[bytes], pipe: ReplyPipe, *, on_error: Callable[[], object]) -> None:
        try:
            for piece in pieces:
                pipe.put(piece)
            pipe.finish()
        except PeerGone:
            _close_iterator(pieces)
        except Exception as error:
            self.log.error(error)
            on_error()


def _iterable(reply: Reply) -> Iterable[bytes]:
    assert not isinstance(reply.body, (str, bytes))
    return reply.body


def _close_iterator(pieces: Iterable[bytes]) -> None:
    close = getattr(pieces, "close", None)
    if close is not None:
        close()
