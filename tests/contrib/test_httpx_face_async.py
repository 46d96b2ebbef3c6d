"""httpx.AsyncClient over hyperpool: many tasks and event loops, streams both ways, cancellation, exceptions."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest
from adapter_kit import H1_TLS, H2_TLS, Bench, Wire, raised
from httpx_kit import async_client_of, client_of, in_event_loop

import hyperpool
from hyperpool.contrib.httpx import AsyncHyperpoolTransport, HyperpoolTransport
from hyperpool.testing import Reply, Reset, Silence, pattern
from stage import AUTHORITY, WAIT_S, nobody, opened

PIECE = bytes(64 << 10)
_VERSIONS = {True: "HTTP/2", False: "HTTP/1.1"}


async def until(server: Any, holds: Any) -> bool:
    return await asyncio.to_thread(server.wait_until, holds, WAIT_S)


async def pieces(n: int) -> AsyncIterator[bytes]:
    for _ in range(n):
        yield PIECE


# -- requests ----------------------------------------------------------------------------------------------------------


@in_event_loop
async def test_a_response_is_httpxs_own(bench: Bench, wire: Wire) -> None:
    server, client = bench.server(wire), async_client_of(bench)
    async with client:
        response = await client.get(server.url("/bytes/1000"))
    assert (response.status_code, response.http_version) == (200, _VERSIONS[wire.http2])
    assert (response.content, response.elapsed.total_seconds() > 0) == (pattern(1000), True)


@in_event_loop
async def test_200_tasks_share_one_http2_connection(bench: Bench) -> None:
    server = bench.server(max_concurrent_streams=200)
    pool = bench.enter(hyperpool.ConnectionPool(verify=AUTHORITY.ca_pem, limits=_ONE_CONNECTION))
    client = async_client_of(bench, transport={"pool": pool})
    answers = await asyncio.gather(*(client.get(server.url(f"/bytes/{1000 + n}")) for n in range(200)))
    assert [len(answer.content) for answer in answers] == [1000 + n for n in range(200)]
    assert server.connections_accepted == 1


_ONE_CONNECTION = hyperpool.Limits(max_connections_per_origin=1)


def test_threads_and_event_loops_share_one_pool(bench: Bench) -> None:
    server = bench.server()
    pool = bench.enter(hyperpool.ConnectionPool(verify=AUTHORITY.ca_pem, limits=_ONE_CONNECTION))
    client = bench.enter(httpx.Client(transport=HyperpoolTransport(pool=pool)))
    got: list[int] = []

    async def ask() -> None:
        async with httpx.AsyncClient(transport=AsyncHyperpoolTransport(pool=pool)) as own:
            answers = await asyncio.gather(*(own.get(server.url(f"/bytes/{n}")) for n in range(30)))
        got.append(sum(len(answer.content) for answer in answers))

    threads = [threading.Thread(target=lambda: asyncio.run(ask())) for _ in range(2)]
    for thread in threads:
        thread.start()
    got.append(sum(len(client.get(server.url(f"/bytes/{n}")).content) for n in range(30)))
    for thread in threads:
        thread.join()
    assert (got, server.connections_accepted) == ([sum(range(30))] * 3, 1)


@in_event_loop
async def test_redirects_cookies_auth_and_hooks_are_httpxs_own(bench: Bench, wire: Wire) -> None:
    server, seen = bench.server(wire), []

    async def note(one: Any) -> None:
        seen.append(type(one).__name__)

    server.route("/set")(lambda request: Reply(302, [("set-cookie", "a=1; Path=/"), ("location", "/headers")]))
    hooks: Any = {"request": [note], "response": [note]}
    client = async_client_of(bench, auth=("u", "p"), follow_redirects=True, event_hooks=hooks)
    sent = dict((await client.get(server.url("/set"))).json())
    assert (sent["cookie"], sent["authorization"]) == ("a=1", "Basic dTpw")
    assert seen == ["Request", "Response"] * 2


@in_event_loop
async def test_coded_bodies_are_decoded_by_httpx(bench: Bench, wire: Wire) -> None:
    server, client = bench.server(wire), async_client_of(bench)
    assert (await client.get(server.url("/gzip"))).content == pattern(10_000)
    async with client.stream("GET", server.url("/gzip")) as response:
        assert gzip.decompress(b"".join([piece async for piece in response.aiter_raw()])) == pattern(10_000)


@in_event_loop
async def test_trailers_are_an_extension_filled_at_the_end(bench: Bench, wire: Wire) -> None:
    server, client = bench.server(wire), async_client_of(bench)
    response = await client.get(server.url("/trailers"))
    assert [name for name, _ in response.extensions["trailing_headers"]] == [b"x-sha256"]


# -- bodies ------------------------------------------------------------------------------------------------------------


@in_event_loop
async def test_an_async_generator_is_streamed(bench: Bench, wire: Wire) -> None:
    server, client = bench.server(wire), async_client_of(bench)
    answer = await client.post(server.url("/sha256"), content=pieces(64))
    assert answer.json() == {"sha256": hashlib.sha256(bytes(4 << 20)).hexdigest(), "length": 4 << 20}


@in_event_loop
async def test_bytes_and_files_are_sent(bench: Bench, wire: Wire) -> None:
    server, client = bench.server(wire), async_client_of(bench)
    assert (await client.post(server.url("/echo"), content=b"abc")).content == b"abc"
    assert b"filename" in (await client.post(server.url("/echo"), files={"f": ("f.bin", b"x")})).content
    assert (await client.post(server.url("/echo"))).content == b""


@in_event_loop
async def test_a_server_that_does_not_read_stops_the_generator(bench: Bench, wire: Wire) -> None:
    server, client = bench.server(wire), async_client_of(bench)
    gate, given = bench.gate(), []

    async def body() -> AsyncIterator[bytes]:
        for _ in range(1000):
            given.append(1)
            yield PIECE

    server.route("/slow")(lambda request: opened(gate) or Reply(body=str(len(request.read()))))
    upload = asyncio.create_task(client.post(server.url("/slow"), content=body()))
    assert await until(server, lambda server: server.requests and server.requests[0].body_bytes > 0)
    taken = -1
    while taken != len(given):
        taken = len(given)
        await asyncio.gather(*(client.get(server.url("/bytes/9")) for _ in range(20)))
    # The server's window (1 MiB on HTTP/2), the buffers of the kernel (HTTP/1.1), ours, and a piece.
    assert taken * len(PIECE) <= (3 if wire.http2 else 24) << 20
    gate.set()
    assert (await upload).text == str(1000 * len(PIECE))


@in_event_loop
async def test_what_a_generator_raises_is_raised(bench: Bench, wire: Wire) -> None:
    server, client = bench.server(wire), async_client_of(bench)

    async def body() -> AsyncIterator[bytes]:
        yield PIECE
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        await client.post(server.url("/echo"), content=body())


@in_event_loop
async def test_a_generator_cannot_be_sent_again_and_httpx_says_so(bench: Bench) -> None:
    server, client = bench.server(handler=lambda request: Reply(307, [("location", "/")])), async_client_of(bench)
    with pytest.raises(httpx.StreamConsumed):
        await client.post(server.url(), content=pieces(2), follow_redirects=True)


@pytest.mark.parametrize("path", ["/bytes/3000000", "/chunked/3000000"])
@in_event_loop
async def test_a_body_is_streamed(bench: Bench, wire: Wire, path: str) -> None:
    server, client = bench.server(wire), async_client_of(bench)
    async with client.stream("GET", server.url(path)) as response:
        assert b"".join([piece async for piece in response.aiter_bytes(10_000)]) == pattern(3_000_000)


@in_event_loop
async def test_an_unread_body_delays_no_other_task_and_stays_within_its_window(bench: Bench) -> None:
    server, client = bench.server(), async_client_of(bench)
    given: list[int] = []
    server.route("/huge")(lambda request: Reply(body=_counted(given)))
    async with client.stream("GET", server.url("/huge")):
        answers = await asyncio.gather(*(client.get(server.url(f"/bytes/{n}")) for n in range(50)))
        assert [len(answer.content) for answer in answers] == [*range(50)]
        assert len(given) * len(PIECE) <= hyperpool.Limits().stream_window_bytes + (1 << 20)


def _counted(given: list[int]) -> Iterator[bytes]:
    for _ in range(1600):
        given.append(1)
        yield PIECE


@in_event_loop
async def test_leaving_a_stream_early_resets_it(bench: Bench) -> None:
    server, client = bench.server(), async_client_of(bench)
    server.route("/huge")(lambda request: Reply(body=_counted([])))
    async with client.stream("GET", server.url("/huge")) as response:
        await anext(response.aiter_raw())
    assert await until(server, lambda server: server.requests[0].reset_code == 8)


# -- cancellation and errors -------------------------------------------------------------------------------------------


@in_event_loop
async def test_cancelling_a_task_resets_its_stream(bench: Bench) -> None:
    server, client = bench.server(handler=lambda request: Silence()), async_client_of(bench)
    task = asyncio.create_task(client.get(server.url()))
    assert await until(server, lambda server: len(server.requests) == 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await until(server, lambda server: server.requests[0].reset_code == 8)


@in_event_loop
async def test_cancelling_a_task_closes_its_http1_socket(bench: Bench) -> None:
    server, client = bench.server(H1_TLS, lambda request: Silence()), async_client_of(bench)
    task = asyncio.create_task(client.get(server.url()))
    assert await until(server, lambda server: len(server.requests) == 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await until(server, lambda server: server.connections_open == 0)


@in_event_loop
async def test_errors_are_httpxs_own(bench: Bench) -> None:
    server, client = bench.server(), async_client_of(bench)
    with pytest.raises(httpx.RemoteProtocolError):
        await client.get(server.url("/fault/reset"))
    with pytest.raises(httpx.ReadTimeout):
        await client.get(server.url("/fault/silence"), timeout=httpx.Timeout(None, read=0.05))
    with pytest.raises(httpx.UnsupportedProtocol):
        await client.get("ftp://localhost/")
    server.close()
    bench.enter(nobody(server.port))
    # Of its own: the connection of the other one may not have heard yet that it is over.
    fresh = async_client_of(bench)
    with pytest.raises(httpx.ConnectError) as caught:
        await fresh.get(server.url())
    assert caught.value.request.url == server.url()


@in_event_loop
async def test_an_error_in_mid_body_comes_after_what_came(bench: Bench) -> None:
    cut = Reply(body=iter([PIECE] * 4), fault=Reset(), fault_after_bytes=3 * len(PIECE))
    server, client = bench.server(handler=lambda request: cut), async_client_of(bench)
    received = 0
    async with client.stream("GET", server.url()) as response:
        with pytest.raises(httpx.RemoteProtocolError):
            async for piece in response.aiter_raw():
                received += len(piece)
    assert received == 3 * len(PIECE)


@in_event_loop
async def test_retries_are_for_connections_that_cannot_be_made(bench: Bench) -> None:
    server = bench.server()
    server.close()
    bench.enter(nobody(server.port))
    dials = 0

    class Counting(AsyncHyperpoolTransport):
        def _asked(self, request: httpx.Request, content: Any) -> Any:
            nonlocal dials
            dials += 1
            return super()._asked(request, content)

    async with httpx.AsyncClient(transport=Counting(verify=bench.ca_file, retries=1)) as client:
        with pytest.raises(httpx.ConnectError):
            await client.post(server.url(), content=pieces(2))
    assert dials == 2


# -- its end -----------------------------------------------------------------------------------------------------------


@in_event_loop
async def test_closing_the_client_closes_every_connection(bench: Bench, wire: Wire) -> None:
    server, transport = bench.server(wire), AsyncHyperpoolTransport(verify=bench.ca_file)
    for _ in range(2):  # as httpx's own, it serves one client after another
        async with httpx.AsyncClient(transport=transport) as client:
            await client.get(server.url())
        assert await until(server, lambda server: server.connections_open == 0)


def test_a_client_of_the_wrong_kind_is_refused_by_httpx(bench: Bench) -> None:
    raised(RuntimeError, lambda: client_of(bench).post(bench.server(H2_TLS).url(), content=pieces(1)))
