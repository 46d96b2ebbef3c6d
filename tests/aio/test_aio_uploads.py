"""Async iterables as request bodies: a task gives them, back-pressure stops it, and it never outlives its request."""

from __future__ import annotations

import asyncio
import contextvars
import hashlib
from collections.abc import AsyncIterator

import pytest
from aio_kit import PIECE, Kit, Spring, Wire, in_event_loop, until

import hyperpool
from hyperpool.testing import Refuse, Reply, Request, Silence
from stage import nobody, opened

MIB = 1 << 20


@in_event_loop
async def test_an_async_generator_is_sent_as_it_comes(kit: Kit, wire: Wire) -> None:
    server, client = kit.pair(wire)
    spring = Spring(4 * MIB)
    seen = (await client.post(server.url("/sha256"), content=spring.body())).json()
    assert seen == {"sha256": hashlib.sha256(bytes(4 * MIB)).hexdigest(), "length": 4 * MIB}
    assert spring.is_closed


@in_event_loop
async def test_a_declared_length_is_believed(kit: Kit, wire: Wire) -> None:
    server, client = kit.pair(wire)
    fields = {"Content-Length": str(len(PIECE))}
    answer = await client.post(server.url("/sha256"), content=Spring(len(PIECE)).body(), headers=fields)
    assert answer.json()["length"] == len(PIECE)
    assert dict(server.requests[0].headers)["content-length"] == str(len(PIECE))


@in_event_loop
async def test_50_uploads_go_on_together(kit: Kit, wire: Wire) -> None:
    server, client = kit.pair(wire)
    posts = (client.post(server.url("/sha256"), content=Spring(4 * len(PIECE)).body()) for _ in range(50))
    assert [answer.json()["length"] for answer in await asyncio.gather(*posts)] == [4 * len(PIECE)] * 50


@pytest.mark.slow
@in_event_loop
async def test_a_server_that_does_not_read_stops_the_generator(kit: Kit, wire: Wire) -> None:
    server, client = kit.pair(wire)
    gate, spring = kit.gate(), Spring(64 * MIB)
    server.route("/slow")(lambda request: opened(gate) or Reply(body=str(len(request.read()))))
    upload = asyncio.create_task(client.post(server.url("/slow"), content=spring.body()))
    assert await until(server, lambda server: server.requests and server.requests[0].body_bytes > 0)
    taken = -1
    while taken != spring.given_bytes:
        taken = spring.given_bytes
        # Others are served meanwhile, and the generator would have been asked many times.
        await asyncio.gather(*(client.get(server.url("/bytes/9")) for _ in range(20)))
    # The server's window (1 MiB on HTTP/2), the buffers of the kernel (HTTP/1.1), ours, and a piece.
    assert spring.given_bytes <= (3 if wire.http2 else 24) * MIB
    gate.set()
    assert (await upload).text == str(64 * MIB)


@in_event_loop
async def test_what_the_generator_raises_is_raised_by_the_request(kit: Kit, wire: Wire) -> None:
    server, client = kit.pair(wire)

    async def body() -> AsyncIterator[bytes]:
        yield PIECE
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        await client.post(server.url("/echo"), content=body())


@pytest.mark.parametrize("piece", ["text", 7])
@in_event_loop
async def test_pieces_that_are_no_bytes_are_refused(kit: Kit, piece: object) -> None:
    server, client = kit.pair()

    async def body() -> AsyncIterator[object]:
        yield piece

    with pytest.raises(hyperpool.LocalProtocolError, match="where bytes are needed"):
        await client.post(server.url("/echo"), content=body())


@in_event_loop
async def test_the_generator_runs_in_the_event_loop_with_the_callers_context(kit: Kit) -> None:
    server, client = kit.pair()
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")
    variable.set("the caller's")
    seen: list[object] = []

    async def body() -> AsyncIterator[bytes]:
        seen.extend((asyncio.get_running_loop(), variable.get()))
        yield PIECE

    await client.post(server.url("/echo"), content=body())
    assert seen == [asyncio.get_running_loop(), "the caller's"]


# -- its end -----------------------------------------------------------------------------------------------------------


@in_event_loop
async def test_an_early_answer_closes_the_generator(kit: Kit, wire: Wire) -> None:
    server, client = kit.pair(wire)
    spring = Spring(64 * MIB, waits_at=len(PIECE))
    answer = await client.post(server.url("/early/413"), content=spring.body())
    # Where the answer was faster, it has not even begun.
    assert (answer.status_code, spring.is_closed or not spring.given_bytes) == (413, True)


@in_event_loop
async def test_a_generator_that_has_given_all_may_clean_up_though_the_answer_is_here(kit: Kit, wire: Wire) -> None:
    server, client = kit.pair(wire)
    steps: list[str] = []

    async def body() -> AsyncIterator[bytes]:
        yield PIECE
        steps.append("given")
        for _ in range(20):
            await client.get(server.url("/bytes/9"))
        steps.append("cleaned up")

    await client.post(server.url("/sha256"), content=body(), headers={"Content-Length": str(len(PIECE))})
    assert steps == ["given", "cleaned up"]


@pytest.mark.parametrize("value", ["x", "-1", "٣"])
@in_event_loop
async def test_a_length_that_is_none_is_refused(kit: Kit, value: str) -> None:
    server, client = kit.pair()
    with pytest.raises(hyperpool.LocalProtocolError):
        await client.post(server.url(), content=Spring(MIB).body(), headers={"Content-Length": value})


@in_event_loop
async def test_a_body_of_another_length_than_declared_is_refused(kit: Kit, wire: Wire) -> None:
    server, client = kit.pair(wire)
    for length in (1, 10 * MIB):
        with pytest.raises(hyperpool.LocalProtocolError, match="were declared"):
            fields = {"Content-Length": str(length)}
            await client.post(server.url("/sha256"), content=Spring(MIB).body(), headers=fields)


@in_event_loop
async def test_a_cancelled_request_closes_the_generator(kit: Kit, wire: Wire) -> None:
    server, client = kit.pair(wire, lambda request: Silence())
    spring = Spring(64 * MIB, waits_at=len(PIECE))
    upload = asyncio.create_task(client.post(server.url(), content=spring.body()))
    assert await until(server, lambda server: server.requests and server.requests[0].body_bytes == len(PIECE))
    upload.cancel()
    with pytest.raises(asyncio.CancelledError):
        await upload
    assert spring.is_closed


@in_event_loop
async def test_a_request_that_cannot_be_sent_leaves_no_task(kit: Kit) -> None:
    server, client = kit.pair()
    server.close()
    kit.enter(nobody(server.port))
    with pytest.raises(hyperpool.ConnectError):
        await client.post(server.url(), content=Spring(MIB).body())
    with pytest.raises(hyperpool.InvalidURL):
        await client.post("ftp://localhost/", content=Spring(MIB).body())
    assert asyncio.all_tasks() == {asyncio.current_task()} or len(asyncio.all_tasks()) == 2  # wait_for's, below 3.12


@in_event_loop
async def test_an_upload_goes_on_while_the_response_is_read(kit: Kit, wire: Wire) -> None:
    server, client = kit.pair(wire)
    turn: asyncio.Queue[bytes] = asyncio.Queue()

    async def body() -> AsyncIterator[bytes]:
        while piece := await turn.get():
            yield piece

    turn.put_nowait(b"ping")
    async with client.stream("POST", server.url("/duplex"), content=body()) as response:
        pieces = response.aiter_raw()
        assert await anext(pieces) == b"ping"
        turn.put_nowait(b"pong")
        assert await anext(pieces) == b"pong"
        turn.put_nowait(b"")
        assert [piece async for piece in pieces] == []


@in_event_loop
async def test_closing_the_response_ends_the_upload(kit: Kit) -> None:
    server, client = kit.pair()
    spring = Spring(64 * MIB, waits_at=len(PIECE))
    async with client.stream("POST", server.url("/duplex"), content=spring.body()) as response:
        await anext(response.aiter_raw())
    assert spring.is_closed
    assert await until(server, lambda server: server.requests[0].reset_code == 8)


# -- sent again --------------------------------------------------------------------------------------------------------


class Again:
    """A body that can be iterated any number of times."""

    async def _pieces(self) -> AsyncIterator[bytes]:
        for _ in range(4):
            yield PIECE

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._pieces()


def _redirecting(request: Request) -> Reply:
    if request.path == "/there":
        return Reply(body=str(len(request.read())))
    request.read()
    return Reply(307, [("location", "/there")])


@in_event_loop
async def test_an_async_iterable_is_sent_again_after_a_redirect(kit: Kit, wire: Wire) -> None:
    server, client = kit.pair(wire, _redirecting)
    assert (await client.post(server.url(), content=Again())).text == str(4 * len(PIECE))


@in_event_loop
async def test_a_generator_is_not_sent_again(kit: Kit) -> None:
    server, client = kit.pair(handler=_redirecting)
    with pytest.raises(hyperpool.LocalProtocolError, match="second time"):
        await client.post(server.url(), content=Spring(MIB).body())


@in_event_loop
async def test_a_refused_request_is_sent_again_with_its_body(kit: Kit) -> None:
    refusals = [Refuse()]
    server, client = kit.pair(handler=lambda request: refusals.pop() if refusals else str(len(request.read())))
    answer = await client.post(server.url(), content=Again())
    assert (answer.text, [one.reason for one in answer.retries]) == (str(4 * len(PIECE)), ["REFUSED_STREAM"])


@in_event_loop
async def test_trailers_follow_an_async_body_and_may_be_made_of_it(kit: Kit, wire: Wire) -> None:
    told, digest = [], hashlib.sha256()

    def echo(request: Request) -> Reply:
        body = request.read()
        told.append(request.trailers)
        return Reply(body=body)

    async def body() -> AsyncIterator[bytes]:
        for piece in (b"the ", b"body"):
            digest.update(piece)
            yield piece

    server, client = kit.pair(wire, echo)
    trailers = lambda: {"x-sum": digest.hexdigest()}  # noqa: E731
    assert (await client.post(server.url(), content=body(), trailers=trailers)).content == b"the body"
    assert (await client.post(server.url(), content=body(), trailers={"x-b": "c"})).content == b"the body"
    assert told == [[("x-sum", hashlib.sha256(b"the body").hexdigest())], [("x-b", "c")]]


@in_event_loop
async def test_what_the_maker_of_trailers_raises_is_raised_by_the_request(kit: Kit, wire: Wire) -> None:
    server, client = kit.server(wire, errors_expected=True), kit.client(wire)

    def fails() -> dict[str, str]:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        await client.post(server.url("/echo"), content=Spring(2 * len(PIECE)).body(), trailers=fails)
