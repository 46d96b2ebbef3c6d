"""A slow or absent reader stops its own stream and nothing else, and memory stays within the stream window.

How much is buffered is judged by how far the other side's generator got, not by the size of this process.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator

import pytest
from client_support import Kit, Wire, pieces

import hyperpool
from hyperpool.testing import Reply, Request, Server, pattern, pattern_pieces
from stage import WAIT_S, opened

HUGE_BYTES = 100 << 20
MIB = 1 << 20

# What lies between the server's generator and our reader besides the stream window: the server's pipe and its output
# (256 KiB each), one piece, and for HTTP/1.1 the kernel's buffers at both ends and one turn's read.
H2_SLACK_BYTES = 1 * MIB
H1_SLACK_BYTES = 16 * MIB


class Tap:
    """A reply's body that counts how far it got."""

    def __init__(self, n_bytes: int) -> None:
        self.given_bytes = 0
        self.closed = threading.Event()
        self._n_bytes = n_bytes

    def __iter__(self) -> Iterator[bytes]:
        try:
            for piece in pieces(self._n_bytes):
                self.given_bytes += len(piece)
                yield piece
        finally:
            self.closed.set()


def slack_bytes(wire: Wire) -> int:
    return H2_SLACK_BYTES if wire.http2 else H1_SLACK_BYTES


def with_huge(server: Server, n_bytes: int = HUGE_BYTES) -> list[Tap]:
    """Let the server answer /huge with n bytes; the taps of the answers."""
    taps: list[Tap] = []

    @server.route("/huge")
    def huge(request: object) -> Reply:
        taps.append(Tap(n_bytes))
        return Reply(200, body=iter(taps[-1]))

    return taps


def test_an_unread_100_mb_response_delays_none_of_32_threads_on_its_connection(kit: Kit, h2_wire: Wire) -> None:
    server = kit.server(h2_wire)
    client = kit.client(h2_wire, limits=hyperpool.Limits(max_connections_per_origin=1))
    taps = with_huge(server)
    with client.stream("GET", server.url("/huge")) as unread:
        threads = kit.threads(32)
        done = [threads.submit(client.get, server.url(f"/bytes/{1000 * n}")) for n in range(300)]
        assert [len(future.result(WAIT_S).content) for future in done] == [1000 * n for n in range(300)]
        assert taps[0].given_bytes <= client.pool.limits.stream_window_bytes + H2_SLACK_BYTES
        assert not unread.closed
    assert server.connections_accepted == 1


def test_an_unread_http1_response_stops_its_own_socket_and_no_other(kit: Kit, h1_wire: Wire) -> None:
    server, client = kit.pair(h1_wire)
    taps = with_huge(server)
    with client.stream("GET", server.url("/huge")):
        threads = kit.threads(32)
        done = [threads.submit(client.get, server.url(f"/bytes/{1000 * n}")) for n in range(300)]
        assert [len(future.result(WAIT_S).content) for future in done] == [1000 * n for n in range(300)]
        assert taps[0].given_bytes <= client.pool.limits.stream_window_bytes + H1_SLACK_BYTES


def test_closing_an_unread_response_resets_its_stream_and_frees_its_slot(kit: Kit, h2_wire: Wire) -> None:
    server = kit.server(h2_wire, max_concurrent_streams=1)
    client = kit.client(h2_wire, limits=hyperpool.Limits(max_connections_per_origin=1))
    taps = with_huge(server)
    response = client.submit("GET", server.url("/huge"), stream=True).result(WAIT_S)
    waiting = client.submit("GET", server.url("/bytes/7"))
    assert not waiting.done()
    response.close()
    assert waiting.result(WAIT_S).content == pattern(7)
    assert server.wait_until(lambda server: server.requests[0].reset_code == 8, WAIT_S)
    assert taps[0].closed.wait(WAIT_S)
    assert server.connections_accepted == 1


def test_closing_an_unread_http1_response_closes_its_socket(kit: Kit, h1_wire: Wire) -> None:
    server, client = kit.pair(h1_wire)
    taps = with_huge(server)
    with client.stream("GET", server.url("/huge")) as response:
        assert response.read(10) == bytes(10)
    assert taps[0].closed.wait(WAIT_S)
    assert server.wait_until(lambda server: server.connections_open == 0, WAIT_S)
    assert client.get(server.url("/bytes/7")).content == pattern(7)


def test_a_closed_response_says_that_it_was_closed(kit: Kit, wire: Wire) -> None:
    server, client = kit.pair(wire)
    with_huge(server)
    response = client.submit("GET", server.url("/huge"), stream=True).result(WAIT_S)
    response.close()
    response.close()
    with pytest.raises(hyperpool.ResponseClosed):
        response.read()
    with pytest.raises(hyperpool.ResponseClosed):
        _ = response.content
    assert response.closed


def test_a_large_download_is_never_further_ahead_than_the_window(kit: Kit, wire: Wire) -> None:
    server, client = kit.pair(wire, limits=hyperpool.Limits(max_stream_window_bytes=MIB))
    taps = with_huge(server, 64 * MIB)
    received, furthest = 0, 0
    with client.stream("GET", server.url("/huge")) as response:
        for piece in response.iter_bytes():
            received += len(piece)
            furthest = max(furthest, taps[0].given_bytes - received)
    assert received == 64 * MIB
    assert furthest <= client.pool.limits.stream_window_bytes + slack_bytes(wire)


def test_a_smaller_stream_window_holds_back_more(kit: Kit, h2_wire: Wire) -> None:
    server = kit.server(h2_wire)
    client = kit.client(h2_wire, limits=hyperpool.Limits(stream_window_bytes=65_535, max_stream_window_bytes=65_535))
    taps = with_huge(server, 8 * MIB)
    received, furthest = 0, 0
    with client.stream("GET", server.url("/huge")) as response:
        for piece in response.iter_bytes(10_000):
            received += len(piece)
            furthest = max(furthest, taps[0].given_bytes - received)
    assert received == 8 * MIB
    assert furthest <= 65_535 + H2_SLACK_BYTES


def test_a_large_download_arrives_byte_for_byte(kit: Kit, wire: Wire) -> None:
    server, client = kit.pair(wire)
    digest = hashlib.sha256()
    with client.stream("GET", server.url(f"/bytes/{20 * MIB + 1}")) as response:
        for piece in response.iter_bytes():
            digest.update(piece)
    expected = hashlib.sha256()
    for piece in pattern_pieces(20 * MIB + 1):
        expected.update(piece)
    assert digest.digest() == expected.digest()


def test_64_streamed_responses_that_nobody_reads_leave_the_connection_free(kit: Kit, h2_wire: Wire) -> None:
    server = kit.server(h2_wire)
    client = kit.client(h2_wire, limits=hyperpool.Limits(max_connections_per_origin=1))
    with_huge(server)
    futures = [client.submit("GET", server.url("/huge"), stream=True) for _ in range(64)]
    responses = [future.result(WAIT_S) for future in futures]
    assert client.get(server.url("/bytes/1000000")).content == pattern(1_000_000)
    for response in responses:
        response.close()
    assert client.get(server.url("/bytes/5")).content == pattern(5)
    assert server.connections_accepted == 1


class Source:
    """An upload that counts how far it got, and notes that it was closed."""

    def __init__(self, n_bytes: int) -> None:
        self.given_bytes = 0
        self.closed = threading.Event()
        self._n_bytes = n_bytes

    def pieces(self) -> Iterator[bytes]:
        try:
            for piece in pieces(self._n_bytes):
                self.given_bytes += len(piece)
                yield piece
        finally:
            self.closed.set()


@pytest.mark.parametrize("mib", [64, pytest.param(1024, marks=[pytest.mark.slow, pytest.mark.timeout(300)])])
def test_a_large_upload_is_never_further_ahead_of_the_server_than_buffers_and_windows(
    kit: Kit, plain_wire: Wire, mib: int
) -> None:
    source = Source(mib * MIB)
    received, furthest = 0, 0

    def handler(request: Request) -> str:
        nonlocal received, furthest
        for piece in request.iter_body():
            received += len(piece)
            furthest = max(furthest, source.given_bytes - received)
        return str(received)

    server, client = kit.pair(plain_wire, handler)
    assert client.post(server.url(), content=source.pieces(), timeout=None).text == str(mib * MIB)
    assert furthest <= client.pool.limits.upload_buffer_bytes + MIB + slack_bytes(plain_wire)
    assert source.closed.is_set()


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_1_gb_download_is_never_further_ahead_than_the_window(kit: Kit, plain_wire: Wire) -> None:
    server, client = kit.pair(plain_wire, limits=hyperpool.Limits(max_stream_window_bytes=MIB))
    taps = with_huge(server, 1024 * MIB)
    received, furthest = 0, 0
    with client.stream("GET", server.url("/huge"), timeout=None) as response:
        for piece in response.iter_bytes():
            received += len(piece)
            furthest = max(furthest, taps[0].given_bytes - received)
    assert received == 1024 * MIB
    assert furthest <= client.pool.limits.stream_window_bytes + slack_bytes(plain_wire)


def test_an_upload_whose_reader_stands_still_waits_and_delays_nobody(kit: Kit, h2_wire: Wire) -> None:
    gate = kit.gate()
    source = Source(64 * MIB)
    server = kit.server(h2_wire)
    client = kit.client(h2_wire, limits=hyperpool.Limits(max_connections_per_origin=1))

    @server.route("/still")
    def still(request: Request) -> str:
        opened(gate)
        return str(len(request.read()))

    upload = client.submit("POST", server.url("/still"), content=source.pieces())
    assert server.wait_until(lambda server: sum(one.body_bytes for one in server.requests) >= MIB, WAIT_S)
    threads = kit.threads(32)
    done = [threads.submit(client.post, server.url("/echo"), content=pattern(n)) for n in range(200)]
    assert [future.result(WAIT_S).content for future in done] == [pattern(n) for n in range(200)]
    assert source.given_bytes <= client.pool.limits.upload_buffer_bytes + MIB + H2_SLACK_BYTES
    gate.set()
    assert upload.result(WAIT_S).text == str(64 * MIB)
    assert server.connections_accepted == 1


def test_both_directions_flow_at_once_on_http2(kit: Kit, h2_wire: Wire) -> None:
    server, client = kit.pair(h2_wire)
    digest, length = hashlib.sha256(), 0
    with client.stream("POST", server.url("/duplex"), content=pattern_pieces(16 * MIB)) as response:
        for piece in response.iter_bytes():
            digest.update(piece)
            length += len(piece)
    assert length == 16 * MIB
    assert digest.digest() == hashlib.sha256(b"".join(pattern_pieces(16 * MIB))).digest()


def test_a_conversation_in_one_exchange_answers_each_piece_before_the_next_is_made(kit: Kit, h2_wire: Wire) -> None:
    server, client = kit.pair(h2_wire)
    heard: list[bytes] = []
    answered = threading.Semaphore(1)

    def questions() -> Iterator[bytes]:
        for n in range(10):
            assert answered.acquire(timeout=WAIT_S)
            assert len(heard) == n
            yield b"%03d" % n

    with client.stream("POST", server.url("/duplex"), content=questions()) as response:
        while piece := response.read(3):
            heard.append(piece)
            answered.release()
    assert heard == [b"%03d" % n for n in range(10)]
