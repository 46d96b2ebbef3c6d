"""The readers of streamed bodies are told of what came: at once, and once for all that a turn has brought."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from engine_bench import Bench, Call, H1Peer, H2Peer

from hyperpool.engine.connection import TURN_PIECES
from hyperpool.engine.transport import RECV_BYTES

MakeBench = Callable[..., Bench]


@pytest.fixture(params=["h1", "h2"])
def streaming(request: pytest.FixtureRequest, make_bench: MakeBench) -> tuple[Bench, Call, Callable[[bytes], None]]:
    """A streamed response whose head is here, and how its server sends body."""
    bench = make_bench(stream_window_bytes=4 << 20, connection_window_bytes=4 << 20)
    peer = bench.open_h1() if request.param == "h1" else bench.open_h2()
    call = bench.submit(stream=True)
    bench.run()
    if isinstance(peer, H1Peer):
        peer.head(fields=[("Content-Length", str(8 << 20))])
    else:
        peer.head(call.stream_id)
    bench.run()

    def send(data: bytes) -> None:
        for at in range(0, len(data), 16_384):
            piece = data[at : at + 16_384]
            peer.data(call.stream_id, piece) if isinstance(peer, H2Peer) else peer.data(piece)

    return bench, call, send


def test_a_reader_that_waits_is_told_of_the_next_piece(streaming) -> None:
    bench, call, send = streaming
    told: list[int] = []
    assert not call.response.pipe.is_ready(lambda: told.append(call.exchange.unread_bytes))
    send(b"abc")
    bench.run()
    assert told == [3]
    assert not bench.connections[0]._fed


def test_a_turn_reads_until_the_socket_is_empty(streaming) -> None:
    """More than one piece, in one go: the reader is told of all of it."""
    bench, call, send = streaming
    told: list[int] = []
    assert not call.response.pipe.is_ready(lambda: told.append(call.exchange.unread_bytes))
    send(bytes(2 * RECV_BYTES))
    bench.run()
    assert call.exchange.unread_bytes == 2 * RECV_BYTES
    assert len(told) == 1


def test_a_turn_has_an_end(make_bench: MakeBench) -> None:
    """However fast a server is, other connections get their turn."""
    bench = make_bench(stream_window_bytes=4 << 20)
    peer, call = bench.open_h1(), bench.submit(stream=True)
    bench.run()
    peer.head(fields=[("Content-Length", str(8 << 20))])
    bench.run()
    (connection,) = bench.connections

    class NeverEmpty:
        """A socket into which the server puts more than anybody takes."""

        def recv(self, size: int) -> bytes:
            return bytes(size)

    sock, connection.transport.sock = connection.transport.sock, NeverEmpty()
    connection.read()
    connection.transport.sock = sock
    assert call.exchange.unread_bytes == TURN_PIECES * RECV_BYTES
