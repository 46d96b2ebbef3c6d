"""Peers that flood, in a process of their own: ``python -m stress.flood_peer KIND [KIND ...]``.

Each kind of frame has a port: they are the first line of output, as JSON. Then comes a line for each connection that
has ended: its kind, and `Told`. A peer writes as fast as the client's kernel takes it, from the first request on. The
process ends with its standard input.
"""

from __future__ import annotations

import json
import selectors
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass

from hyperframe.frame import HeadersFrame

from hyperpool.testing import ScriptedConnection, ScriptedPeer

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS = range(5)
PING, GOAWAY, WINDOW_UPDATE, CONTINUATION, UNKNOWN = 6, 7, 8, 9, 0xBE
END_STREAM = ACK = 1
END_HEADERS, PADDED = 4, 8
# Written at once: less costs more calls, more lets the last frames before the end be guessed less well.
BATCH = 50
# The kernel would take megabytes that nobody is going to read.
SEND_BUFFER_BYTES = 16 << 10
# A connection that nobody ends is given up after this long: an honest one, or a client that bears all.
LONGEST_S = 5.0

# Fields that leave the table as it is: 200; 103; x: y.
OK, EARLY_HINTS, FIELD = b"\x88", b"\x08\x03103", b"\x00\x01x\x01y"


def frame(kind: int, stream_id: int = 0, body: bytes = b"", flags: int = 0) -> bytes:
    """RFC 9113 4.1."""
    return len(body).to_bytes(3, "big") + bytes((kind, flags)) + stream_id.to_bytes(4, "big") + body


def _u32(value: int) -> bytes:
    return value.to_bytes(4, "big")


def _ok(stream_id: int) -> bytes:
    return frame(HEADERS, stream_id, OK, END_HEADERS)


def _nothing(stream_id: int) -> bytes:
    return b""


@dataclass(frozen=True, slots=True)
class Flood:
    """A kind of flood: a frame, by its stream and its number, and what goes before the first one. Immutable."""

    frame: Callable[[int, int], bytes]
    opening: Callable[[int], bytes] = _nothing


def _answer(stream_id: int) -> bytes:
    body = frame(DATA, stream_id, b"here", END_STREAM)
    return _ok(stream_id) + body + frame(GOAWAY, 0, _u32(stream_id) + _u32(0))


def _open_head(stream_id: int) -> bytes:
    return frame(HEADERS, stream_id, OK)


ANSWERED = "none: an honest answer, then closed"
FLOODS = {
    ANSWERED: Flood(lambda stream, n: b"", _answer),
    "PING": Flood(lambda stream, n: frame(PING, 0, bytes(8))),
    "PING answers": Flood(lambda stream, n: frame(PING, 0, bytes(8), ACK)),
    "SETTINGS": Flood(lambda stream, n: frame(SETTINGS)),
    "SETTINGS, other windows": Flood(lambda stream, n: frame(SETTINGS, 0, b"\0\x04" + _u32(65_535 + n))),
    "SETTINGS answers": Flood(lambda stream, n: frame(SETTINGS, flags=ACK)),
    "DATA, empty": Flood(lambda stream, n: frame(DATA, stream), _ok),
    "DATA, padding alone": Flood(lambda stream, n: frame(DATA, stream, b"\x03\0\0\0", PADDED), _ok),
    "HEADERS, 103": Flood(lambda stream, n: frame(HEADERS, stream, EARLY_HINTS, END_HEADERS)),
    "CONTINUATION": Flood(lambda stream, n: frame(CONTINUATION, stream, FIELD), _open_head),
    "PRIORITY": Flood(lambda stream, n: frame(PRIORITY, stream, b"\0\0\0\x03\1")),
    "WINDOW_UPDATE": Flood(lambda stream, n: frame(WINDOW_UPDATE, 0, _u32(1))),
    "WINDOW_UPDATE, a stream's": Flood(lambda stream, n: frame(WINDOW_UPDATE, stream, _u32(1))),
    "RST_STREAM": Flood(lambda stream, n: frame(RST_STREAM, stream, _u32(8))),
    "GOAWAY": Flood(lambda stream, n: frame(GOAWAY, 0, _u32(stream) + _u32(0))),
    "unknown": Flood(lambda stream, n: frame(UNKNOWN)),
    "unknown, 16 KiB each": Flood(lambda stream, n: frame(UNKNOWN, 0, bytes(16_384))),
}


@dataclass(frozen=True, slots=True)
class Told:
    """One connection: what was written until its end, and the code of the client's GOAWAY where one came. Immutable.

    What had been written and lay in the kernels' buffers counts, so these are upper bounds.
    """

    frames: int
    written_bytes: int
    code: int | None


class Attack:
    """The flood on one connection.

    Owned by the script's thread.
    """

    def __init__(self, connection: ScriptedConnection, flood: Flood) -> None:
        connection.greet()
        stream_id = connection.wait_frame(HeadersFrame).stream_id
        self._connection = connection
        self._batch = b"".join(flood.frame(stream_id, n) for n in range(BATCH))
        self._waiting = flood.opening(stream_id)
        self._written_bytes = -len(self._waiting)
        self._heard = bytearray()
        self._code: int | None = None

    def run(self) -> Told:
        """Write until nobody takes it."""
        sock = self._connection.sock
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        sock.settimeout(0)
        give_up_at = time.monotonic() + LONGEST_S
        with suppress(OSError), selectors.DefaultSelector() as selector:
            selector.register(sock, selectors.EVENT_READ | selectors.EVENT_WRITE)
            self._hear_what_is_there()
            while time.monotonic() < give_up_at and self._go_on(selector):
                continue
        with suppress(OSError):
            self._hear_what_is_there()
        size = len(self._batch) // BATCH
        written = max(0, self._written_bytes)
        return Told(written // size if size else 0, written, self._code)

    def _go_on(self, selector: selectors.BaseSelector) -> bool:
        ready = sum(events for _, events in selector.select(1.0))
        if ready & selectors.EVENT_READ and not self._hear():
            return False
        self._waiting = self._waiting or self._batch
        if ready & selectors.EVENT_WRITE and self._waiting:
            sent = self._connection.sock.send(self._waiting)
            self._waiting = self._waiting[sent:]
            self._written_bytes += sent
            if not (self._waiting or self._batch):
                selector.modify(self._connection.sock, selectors.EVENT_READ)  # nothing more to say
        return True

    def _hear_what_is_there(self) -> None:
        with suppress(BlockingIOError):
            while self._hear():
                continue

    def _hear(self) -> bool:
        data = self._connection.recv()
        self._heard += data
        while len(self._heard) >= 9 + (size := int.from_bytes(self._heard[:3], "big")):
            if self._heard[3] == GOAWAY:
                self._code = int.from_bytes(self._heard[13:17], "big")
            del self._heard[: 9 + size]
        return bool(data)


# print writes a line and its end apart, and connections end side by side.
_one_line = threading.Lock()


def script_of(kind: str) -> Callable[[ScriptedConnection], None]:
    """What is done on each connection: the flood, and a line about it."""

    def script(connection: ScriptedConnection) -> None:
        told = asdict(Attack(connection, FLOODS[kind]).run())
        with _one_line:
            print(json.dumps([kind, told]), flush=True)

    return script


def main() -> None:
    with ExitStack() as stack:
        kinds = sys.argv[1:]
        peers = {kind: stack.enter_context(ScriptedPeer(script_of(kind), tls=False)) for kind in kinds}
        print(json.dumps({kind: peer.port for kind, peer in peers.items()}), flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
