"""Bodies that are awaited piece by piece: decoding, back-pressure, errors in mid-body, and endings."""

from __future__ import annotations

import asyncio
import gzip
import threading
from typing import Any

import pytest
from aio_kit import H1_PLAIN, PIECE, Kit, Wire, in_event_loop, until, with_huge

import hyperpool
from hyperpool.testing import Reply, Reset, pattern
from stage import WAIT_S, opened

MIB = 1 << 20

# What lies between the server's generator and our reader besides the stream window: the server's pipe and output, and
# for HTTP/1.1 the kernel's buffers at both ends.
SLACK_BYTES = {True: 1 * MIB, False: 16 * MIB}


# -- what a reader gets ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/bytes/3000000", "/chunked/3000000"])
@in_event_loop
async def test_a_body_is_read_as_it_comes(kit: Kit, wire: Wire, path: str) -> None:
    server, client = kit.pair(wire)
    async with client.stream("GET", server.url(path)) as response:
        assert b"".join([piece async for piece in response.aiter_bytes()]) == pattern(3_000_000)
        assert not response.closed
    assert response.closed


@in_event_loop
async def test_pieces_have_the_size_that_was_asked_for(kit: Kit, wire: Wire) -> None:
    server, client = kit.pair(wire)
    async with client.stream("GET", server.url("/bytes/100000")) as response:
        pieces = [piece async for piece in response.aiter_bytes(30_000)]
    assert ([len(piece) for piece in pieces], b"".join(pieces)) == ([30_000] * 3 + [10_000], pattern(100_000))


@pytest.mark.parametrize("path", ["/gzip", "/deflate"])
@in_event_loop
async def test_a_coded_body_is_decoded_while_it_is_read(kit: Kit, wire: Wire, path: str) -> None:
    server, client = kit.pair(wire)
    async with client.stream("GET", server.url(path)) as response:
        assert b"".join([piece async for piece in response.aiter_bytes(7)]) == pattern(10_000)


@in_event_loop
async def test_the_raw_body_is_left_encoded(kit: Kit, wire: Wire) -> None:
    server, client = kit.pair(wire)
    async with client.stream("GET", server.url("/gzip")) as response:
        coded = b"".join([piece async for piece in response.aiter_raw(100)])
    assert gzip.decompress(coded) == pattern(10_000)
    whole = await client.get(server.url("/gzip"))
    assert b"".join([piece async for piece in whole.aiter_raw()]) == coded


@in_event_loop
async def test_no_character_and_no_line_is_torn(kit: Kit, wire: Wire) -> None:
    text = "é\r\nä\n\nlast"
    server, client = kit.pair(wire, lambda request: Reply(body=iter([bytes([one]) for one in text.encode()])))
    async with client.stream("GET", server.url()) as response:
        assert [line async for line in response.aiter_lines()] == ["é", "ä", "", "last"]
    async with client.stream("GET", server.url()) as response:
        assert [line async for line in response.aiter_lines("\n\n")] == ["é\r\nä", "last"]
    async with client.stream("GET", server.url()) as response:
        assert "".join([part async for part in response.aiter_text()]) == text


@pytest.mark.parametrize("again", ["aiter_raw", "aiter_bytes", "aiter_text", "aiter_lines"])
@in_event_loop
async def test_a_second_iterator_is_refused_what_the_first_may_hold(kit: Kit, again: str) -> None:
    server, client = kit.pair()
    async with client.stream("GET", server.url("/bytes/1000")) as response:
        pieces = response.aiter_bytes(50)
        first = await pieces.__anext__()
        with pytest.raises(hyperpool.ResponseClosed, match="piece by piece already"):
            await getattr(response, again)().__anext__()
        assert first + b"".join([piece async for piece in pieces]) == pattern(1000)


@pytest.mark.parametrize("way", ["aiter_raw", "aiter_bytes"])
@in_event_loop
async def test_one_that_holds_nothing_may_be_left_for_another(kit: Kit, way: str) -> None:
    server, client = kit.pair()
    async with client.stream("GET", server.url("/bytes/300000")) as response:
        first = await getattr(response, way)().__anext__()
        assert first + b"".join([piece async for piece in response.aiter_bytes(1000)]) == pattern(300_000)


@in_event_loop
async def test_a_whole_response_can_be_iterated_too(kit: Kit) -> None:
    server, client = kit.pair()
    response = await client.get(server.url("/gzip"))
    for _ in range(2):
        assert b"".join([piece async for piece in response.aiter_bytes(1000)]) == pattern(10_000)
    assert [piece async for piece in (await client.get(server.url("/bytes/0"))).aiter_bytes()] == []


@in_event_loop
async def test_trailers_are_there_at_the_end(kit: Kit, wire: Wire) -> None:
    server, client = kit.pair(wire)
    async with client.stream("GET", server.url("/trailers")) as response:
        await response.aread()
        assert len(response.trailers["x-sha256"]) == 64


@in_event_loop
async def test_a_streamed_body_can_be_read_whole(kit: Kit, wire: Wire) -> None:
    server, client = kit.pair(wire)
    async with client.stream("GET", server.url("/headers")) as response:
        assert await response.aread() == await response.aread() == response.content
        assert response.json() == response.json() and response.text


@in_event_loop
async def test_content_that_was_not_read_is_refused(kit: Kit) -> None:
    server, client = kit.pair()
    async with client.stream("GET", server.url("/bytes/9")) as response:
        for act in (lambda: response.content, lambda: response.text, response.json):
            with pytest.raises(hyperpool.LocalProtocolError, match="aread"):
                act()


@in_event_loop
async def test_what_was_read_piece_by_piece_is_not_there_as_a_whole(kit: Kit) -> None:
    server, client = kit.pair()
    async with client.stream("GET", server.url("/bytes/9")) as response:
        assert [piece async for piece in response.aiter_raw()] == [pattern(9)]
        with pytest.raises(hyperpool.ResponseClosed):
            await response.aread()


# -- back-pressure -----------------------------------------------------------------------------------------------------


@in_event_loop
async def test_an_unread_body_is_no_further_than_the_window_and_delays_no_other_task(kit: Kit, wire: Wire) -> None:
    server, client = kit.pair(wire)
    taps = with_huge(server)
    async with client.stream("GET", server.url("/huge")):
        answers = await asyncio.gather(*(client.get(server.url(f"/bytes/{n}")) for n in range(50)))
        assert [len(answer.content) for answer in answers] == [*range(50)]
        assert taps[0].given_bytes <= client.pool.limits.stream_window_bytes + SLACK_BYTES[wire.http2]


@in_event_loop
async def test_a_slow_reader_holds_at_most_a_window(kit: Kit, wire: Wire) -> None:
    server, client = kit.pair(wire, limits=hyperpool.Limits(max_stream_window_bytes=MIB))
    taps, received, furthest = with_huge(server, 32 * MIB), 0, 0
    async with client.stream("GET", server.url("/huge")) as response:
        async for piece in response.aiter_bytes():
            received += len(piece)
            furthest = max(furthest, taps[0].given_bytes - received)
            await asyncio.sleep(0)
    assert received == 32 * MIB
    assert furthest <= client.pool.limits.stream_window_bytes + SLACK_BYTES[wire.http2]


@pytest.mark.slow
@in_event_loop
async def test_decoding_lets_other_tasks_run(kit: Kit) -> None:
    bomb = gzip.compress(bytes(32 * MIB))
    server, client = kit.pair(H1_PLAIN, lambda request: Reply(200, [("content-encoding", "gzip")], bomb))
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async with client.stream("GET", server.url()) as response:
        counting = asyncio.create_task(count())
        assert len(await response.aread()) == 32 * MIB
        counting.cancel()
    assert turns > 50


# -- one reader --------------------------------------------------------------------------------------------------------


@in_event_loop
async def test_a_second_reader_is_refused(kit: Kit) -> None:
    server, client = kit.pair()
    gate = kit.gate()
    server.route("/slow")(lambda request: Reply(body=_when_opened(gate)))
    async with client.stream("GET", server.url("/slow")) as response:
        first = asyncio.create_task(response.aread())
        await asyncio.sleep(0)
        with pytest.raises(hyperpool.LocalProtocolError, match="one reader"):
            await anext(response.aiter_raw())
        gate.set()
        assert await first == b"late"


@in_event_loop
async def test_a_reader_that_was_cancelled_takes_nothing_with_it(kit: Kit, wire: Wire) -> None:
    server, client = kit.pair(wire)
    gate = kit.gate()
    server.route("/slow")(lambda request: Reply(body=_when_opened(gate)))
    async with client.stream("GET", server.url("/slow")) as response:
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(anext(response.aiter_raw()), 0.01)
        gate.set()
        assert await response.aread() == b"late"


def _when_opened(gate: threading.Event) -> Any:
    opened(gate)
    yield b"late"


# -- errors in mid-body ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["aiter_raw", "aiter_bytes", "aiter_text"])
@pytest.mark.parametrize("n", [None, 100_000])
@in_event_loop
async def test_what_came_before_an_error_is_given_first(kit: Kit, way: str, n: int | None) -> None:
    cut = Reply(body=iter([PIECE] * 4), fault=Reset(), fault_after_bytes=3 * len(PIECE))
    server, client = kit.pair(handler=lambda request: cut)
    received = 0
    async with client.stream("GET", server.url()) as response:
        with pytest.raises(hyperpool.StreamReset):
            async for piece in getattr(response, way)(n):
                received += len(piece)
    assert received == 3 * len(PIECE)


@in_event_loop
async def test_a_connection_that_breaks_wakes_the_reader(kit: Kit, wire: Wire) -> None:
    server, client = kit.pair(wire)
    gate = kit.gate()
    server.route("/slow")(lambda request: Reply(body=_when_opened(gate)))
    async with client.stream("GET", server.url("/slow")) as response:
        reading = asyncio.create_task(response.aread())
        await asyncio.sleep(0)
        await asyncio.to_thread(server.drop_connections, rst=True)
        with pytest.raises(hyperpool.ConnectionLost):
            await reading


@in_event_loop
async def test_a_bomb_is_found_while_it_is_read(kit: Kit) -> None:
    server, client = kit.pair(limits=hyperpool.Limits(max_decoded_bytes=9_999))
    async with client.stream("GET", server.url("/gzip")) as response:
        with pytest.raises(hyperpool.DecodeError, match="more than 9,999 bytes"):
            await response.aread()
        assert response.closed


# -- endings -----------------------------------------------------------------------------------------------------------


@in_event_loop
async def test_leaving_the_block_early_resets_the_stream(kit: Kit) -> None:
    server, client = kit.pair()
    taps = with_huge(server)
    async with client.stream("GET", server.url("/huge")) as response:
        async for _ in response.aiter_bytes():
            break
    assert await until(server, lambda server: server.requests[0].reset_code == 8)
    assert await asyncio.to_thread(taps[0].closed.wait, WAIT_S)
    assert len((await client.get(server.url("/bytes/7"))).content) == 7
    assert server.connections_accepted == 1


@in_event_loop
async def test_leaving_the_block_early_closes_an_http1_socket(kit: Kit, h1_wire: Wire) -> None:
    server, client = kit.pair(h1_wire)
    taps = with_huge(server)
    with pytest.raises(KeyError):
        async with client.stream("GET", server.url("/huge")):
            raise KeyError
    assert await until(server, lambda server: server.connections_open == 0)
    assert await asyncio.to_thread(taps[0].closed.wait, WAIT_S)


@in_event_loop
async def test_closing_from_elsewhere_wakes_the_reader(kit: Kit, wire: Wire) -> None:
    server, client = kit.pair(wire)
    gate = kit.gate()
    server.route("/slow")(lambda request: Reply(body=_when_opened(gate)))
    async with client.stream("GET", server.url("/slow")) as response:
        reading = asyncio.create_task(response.aread())
        await asyncio.sleep(0)
        await asyncio.to_thread(response.close)
        with pytest.raises(hyperpool.ResponseClosed):
            await reading


@in_event_loop
async def test_a_forgotten_response_is_named_and_its_stream_reset(kit: Kit) -> None:
    server, client = kit.pair()
    with_huge(server)

    async def forget() -> bool:
        await client.request("GET", server.url("/huge"), stream=True)
        # The I/O thread may be the last to let go of it.
        return await until(server, lambda server: server.requests[0].reset_code == 8)

    with pytest.warns(ResourceWarning, match="test_aio_streams"):
        assert await forget()


@in_event_loop
async def test_a_response_may_be_used_as_a_block_by_itself(kit: Kit) -> None:
    server, client = kit.pair()
    async with await client.request("GET", server.url("/bytes/9"), stream=True) as response:
        assert await response.aread() == pattern(9)
    assert response.closed
