"""The network and the servers of `stress.simulate`: bytes that are cut, delayed and lost as a seed says.

Nothing here waits or sleeps, and nothing knows real time: `World` of simulate.py turns each part when its chance comes.
A `Wire` stands between the loop's socket and the server's, and carries bytes in pieces, late, or not at all. The
servers are honest: all harm is the network's, but for what HTTP/2 lets an honest server do (refuse, reset, go away,
change its settings, fall silent).
"""

from __future__ import annotations

import contextlib
import importlib
import random
import socket
import sys
import zlib
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
SIZES = (0, 1, 100, 5_000, 40_000, 120_000)
MOST_READ_BYTES = 1 << 16
# Statuses without a body come too, and the servers know it (RFC 9110 6.4.1).
_REFUSED_STREAM, _RESETS, _GOAWAYS = 7, (2, 8, 11), (0, 0, 0, 2, 11)


def bench_room() -> Any:
    """tests/engine/engine_bench.py, which no package holds."""
    folder = str(ROOT / "tests/engine")
    if folder not in sys.path:
        sys.path.append(folder)
    return importlib.import_module("engine_bench")


def right_body(path: str) -> bytes:
    """The one right answer to a path: its size and its bytes follow from it."""
    seed = zlib.crc32(path.encode())
    return random.Random(seed).randbytes(64) * (SIZES[seed % len(SIZES)] // 64 + 1)


class Way:
    """One direction of a wire: what was taken and is not delivered yet.

    Owned by its wire.
    """

    def __init__(self, source: socket.socket, target: socket.socket, chance: random.Random) -> None:
        self._source, self._target, self._chance = source, target, chance
        self._queue: deque[tuple[float, bytes]] = deque()
        self._ended = self._closed = False
        self.lag_s = 0.0

    @property
    def due_at(self) -> float:
        return self._queue[0][0] if self._queue else float("inf")

    def take(self, now: float) -> bool:
        """Take what the source has said."""
        if self._ended:
            return False
        try:
            data = self._source.recv(MOST_READ_BYTES)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        self._ended = not data
        late = self._queue[-1][0] if self._queue else now
        self._queue.append((max(late, now + self._chance.expovariate(1.0) * self.lag_s), data))
        return True

    def give(self, now: float) -> bool:
        """Deliver a piece of what is due, of a size that chance says."""
        if self._closed or self.due_at > now:
            return False
        due_at, data = self._queue[0]
        if not data:
            self._queue.clear()
            self.end()
            return True
        size = self._chance.choice((1, 9, 100, 1_000, len(data), len(data), len(data)))
        try:
            sent = self._target.send(data[:size])
        except BlockingIOError:
            return False
        except OSError:
            self._queue.clear()
            self._closed = True
            return True
        self._queue[0] = (due_at, data[sent:])
        if sent == len(data):
            self._queue.popleft()
        return True

    def end(self) -> None:
        """Say nothing more, and tell the target so; what is under way is lost."""
        self._queue.clear()
        self._closed = self._ended = True
        with contextlib.suppress(OSError):
            self._target.shutdown(socket.SHUT_WR)


class Wire:
    """What is between a loop and a server.

    Owned by its world.
    """

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.ours, self._near = socket.socketpair()
        self._far, self.theirs = socket.socketpair()
        for end in (self.ours, self._near, self._far, self.theirs):
            end.setblocking(False)
        if chance.random() < 0.3:  # small buffers, so that writes are taken in part
            for end in (self.ours, self._far):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4_096)
        self._ways = (Way(self._near, self._far, chance), Way(self._far, self._near, chance))
        self._stalled_until = 0.0
        self.is_cut = False
        self.lag_s = chance.choice((0.0, 0.0, 0.01, 0.3))

    @property
    def lag_s(self) -> float:
        return self._ways[0].lag_s

    @lag_s.setter
    def lag_s(self, value: float) -> None:
        for way in self._ways:
            way.lag_s = value

    @property
    def due_at(self) -> float:
        return max(self._stalled_until, min(way.due_at for way in self._ways))

    def carry(self, now: float) -> bool:
        """Take and deliver something; whether anything moved."""
        if self.is_cut or now < self._stalled_until:
            return False
        moved = [act(now) for way in self._ways for act in (way.take, way.give)]
        return any(moved)

    def harm(self, now: float) -> str:
        """One fault: a stall, the end of one direction, or of the whole wire at once."""
        kind = self.chance.choice(("stall", "cut", "truncate"))
        if kind == "stall":
            self._stalled_until = now + self.chance.choice((0.1, 2.0, 20.0))
        elif kind == "truncate":
            self._ways[1].end()
        else:
            self.close()
        return kind

    def heal(self) -> None:
        """No more delays. What is cut stays cut."""
        self.lag_s = self._stalled_until = 0.0

    def close(self) -> None:
        """Cut it: what was under way is lost, and both ends find it closed."""
        self.is_cut = True
        for end in (self._near, self._far):
            end.close()


class Shuffled:
    """A selector that tells what is ready in any order, and some of it later.

    Owned by the loop.
    """

    def __init__(self, selector: Any, chance: random.Random, order: Callable[[Any], int]) -> None:
        self._selector, self._chance, self._order = selector, chance, order

    def select(self, timeout_s: float | None = None) -> list[Any]:
        ready = sorted(self._selector.select(timeout_s), key=lambda one: self._order(one[0].data))
        self._chance.shuffle(ready)
        return ready[: self._chance.randint(1, len(ready))] if ready and timeout_s != 0 else ready

    def __getattr__(self, name: str) -> Any:
        return getattr(self._selector, name)


class Http2Server:
    """Answers what its peer has heard, bit by bit.

    Owned by its world. ``excused``: streams that it did not process, and said so.
    """

    def __init__(self, peer: Any, chance: random.Random, uploads: dict[str, bytes]) -> None:
        self.peer, self._chance, self._uploads = peer, chance, uploads
        self._left: dict[int, bytes] = {}
        self._refused: set[int] = set()
        self._last_id: int | None = None
        self._granted: dict[int, int] = {}
        peer.greet(**self._first_settings())

    def _first_settings(self) -> dict[str, int]:
        values = {}
        if self._chance.random() < 0.5:
            values["MAX_CONCURRENT_STREAMS"] = self._chance.choice((1, 3, 100))
        if self._chance.random() < 0.5:
            values["INITIAL_WINDOW_SIZE"] = self._chance.choice((0, 10, 30_000))
        return values

    @property
    def sendings(self) -> list[tuple[str, bool]]:
        """Each request that was seen, and whether it may be sent again."""
        return [(seen.path, self._excused(stream_id)) for stream_id, seen in self.peer.seen.items()]

    def _excused(self, stream_id: int) -> bool:
        return stream_id in self._refused or (self._last_id is not None and stream_id > self._last_id)

    def _owed(self) -> list[Any]:
        if self.peer.closed or self.peer.eof:
            return []
        seen = [self.peer.seen[stream_id] for stream_id in self.peer.open_ids]
        return [one for one in seen if not one.answered and not self._excused(one.stream_id)]

    def act(self) -> None:
        """One act of a server's: mostly a step of an answer."""
        owed = self._owed()
        roll = self._chance.random()
        if roll < 0.02 and not self.peer.eof:
            self._go_away()
        elif roll < 0.05 and not self.peer.eof:
            self._change_settings()
        elif roll < 0.3:
            self._grant(self._chance.choice((1, 5_000, 100_000)))
        elif owed and roll < 0.36:
            self._refuse_or_reset(self._chance.choice(owed))
        elif owed and roll < 0.9:
            self._answer(self._chance.choice(owed), self._chance.choice((1, 700, 16_000, 50_000)))

    def serve(self) -> bool:
        """Answer everything that is whole, and open every window; whether there was anything to do."""
        if self.peer.closed or self.peer.eof:
            return False
        self.peer.pongs = True
        self.peer.pong()
        before = self.peer.sent_bytes, len(self.peer._out)
        self._grant(1 << 20)
        for seen in self._owed():
            if seen.ended:
                self._answer(seen, 1 << 20)
        return before != (self.peer.sent_bytes, len(self.peer._out))

    def _grant(self, credit: int) -> None:
        # Not without end: windows stay below 2**31-1 (RFC 9113 6.9.1), and a turn in which nothing is said is rest.
        heard = sum(len(one.body) for one in self.peer.seen.values())
        self._grant_on(0, heard, credit)
        for seen in self._owed():
            if not seen.ended:
                self._grant_on(seen.stream_id, len(seen.body), credit)

    def _grant_on(self, stream_id: int, heard_bytes: int, credit: int) -> None:
        granted = self._granted.get(stream_id, 0)
        if granted - heard_bytes < 1 << 21 and not self.peer.eof:
            self._granted[stream_id] = granted + credit
            self.peer.grant(stream_id, credit)

    def _refuse_or_reset(self, seen: Any) -> None:
        if seen.stream_id not in self._left and self._chance.random() < 0.6:
            self._refused.add(seen.stream_id)
            self.peer.refuse(seen.stream_id, _REFUSED_STREAM)
        else:
            self.peer.refuse(seen.stream_id, self._chance.choice(_RESETS))

    def _go_away(self) -> None:
        # It answers what it has begun to answer, and never raises the id again (RFC 9113 6.8).
        begun = max(self._left, default=0)
        latest = max(self.peer.seen, default=0)
        last_id = max(begun, latest - 2 * self._chance.randint(0, 3), 0)
        self._last_id = last_id if self._last_id is None else min(self._last_id, last_id)
        self.peer.go_away(self._last_id, self._chance.choice(_GOAWAYS))

    def _change_settings(self) -> None:
        self.peer.limit = None  # what it is lowered to is not known yet where requests are on their way
        self.peer.greet(
            INITIAL_WINDOW_SIZE=self._chance.choice((0, 100, 65_535, 200_000)),
            MAX_CONCURRENT_STREAMS=self._chance.choice((0, 1, 50)),
        )
        self.peer.limit = None

    def _answer(self, seen: Any, most_bytes: int) -> None:
        stream_id = seen.stream_id
        if stream_id not in self._left:
            if not seen.ended:
                return
            wanted = self._uploads.get(seen.path, b"")
            assert bytes(seen.body) == wanted, f"{seen.path} came with {len(seen.body)} of {len(wanted)} bytes"
            self._begin(seen)
            return
        left = self._left[stream_id]
        room = min(self.peer.connection_credit, self.peer.stream_credit[stream_id], most_bytes)
        piece = left[: max(room, 0)]
        if piece or not left:
            self._left[stream_id] = left[len(piece) :]
            self.peer.data(stream_id, piece, end=len(piece) == len(left))

    def _begin(self, seen: Any) -> None:
        if self._chance.random() < 0.1:
            self.peer.head(seen.stream_id, 103)
        body = b"" if seen.fields[":method"] == "HEAD" else right_body(seen.path)
        self._left[seen.stream_id] = body
        self.peer.head(seen.stream_id, fields=[("content-length", str(len(body)))] if body else [])


class Http1Server:
    """The same for HTTP/1.1, one request after the other.

    Owned by its world.
    """

    def __init__(self, peer: Any, chance: random.Random, uploads: dict[str, bytes]) -> None:
        self.peer, self._chance, self._uploads = peer, chance, uploads
        self._answered = 0
        self._left: bytes | None = None

    @property
    def sendings(self) -> list[tuple[str, bool]]:
        return [(request.path, False) for request in self.peer.requests]

    def act(self) -> None:
        if self._chance.random() < 0.7:
            self._answer(self._chance.choice((1, 700, 16_000, 50_000)))

    def serve(self) -> bool:
        return self._answer(1 << 20)

    def _answer(self, most_bytes: int) -> bool:
        if self.peer.closed or self.peer.eof or self._answered == len(self.peer.requests):
            return False
        request = self.peer.requests[self._answered]
        if not request.ended:
            return False
        if self._left is None:
            wanted = self._uploads.get(request.path, b"")
            assert bytes(request.body) == wanted, f"{request.path} came with {len(request.body)} bytes"
            self._left = self._begin(request)
            if self._left:
                return True
            # The head is all of it, and the client knows: h11 must be done before the next request comes.
        piece, self._left = self._left[:most_bytes], self._left[most_bytes:]
        if piece:
            self.peer.data(piece)
        if not self._left:
            self._left = None
            self._answered += 1
            self.peer.end()
        return True

    def _begin(self, request: Any) -> bytes:
        """Send the head; the body that is to follow."""
        body = right_body(request.path)
        chunked = self._chance.random() < 0.4
        fields = [("Transfer-Encoding", "chunked")] if chunked else [("Content-Length", str(len(body)))]
        if self._chance.random() < 0.1:
            fields.append(("Connection", "close"))
        self.peer.head(200, fields)
        return b"" if request.method == "HEAD" else body
