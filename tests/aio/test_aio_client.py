"""AsyncClient: what `Client` does, awaited; many tasks, event loops and threads over one pool."""

from __future__ import annotations

import asyncio
import io
import json
import subprocess
import sys
import threading

import pytest
from aio_kit import H1_PLAIN, Kit, Wire, in_event_loop, until

import hyperpool
import hyperpool.aio
from hyperpool.aio import AsyncClient, AsyncResponse
from hyperpool.testing import Reply, Request, Silence, inline, pattern
from stage import AUTHORITY, WAIT_S, nobody, opened


@inline
def mirror(request: Request) -> Reply:
    """The request's head as JSON."""
    return Reply(body=json.dumps({"method": request.method, "target": request.target, "headers": request.headers}))


def value(response: AsyncResponse, name: str) -> str | None:
    return dict(response.json()["headers"]).get(name)


# -- one request -------------------------------------------------------------------------------------------------------


@in_event_loop
async def test_a_request_is_awaited_and_its_body_is_here(kit: Kit, wire: Wire) -> None:
    server, client = kit.pair(wire)
    response = await client.get(server.url("/bytes/1000"))
    assert (response.status_code, response.status, response.reason, response.ok) == (200, 200, "OK", True)
    assert (response.http_version, response.url) == (wire.version, server.url("/bytes/1000"))
    assert (response.content, response.headers["Content-Length"]) == (pattern(1000), "1000")
    assert [*response.raw_fields][-1][0] == b"content-length" and response.elapsed.total_seconds() > 0


@in_event_loop
async def test_an_unknown_option_is_named_with_where_it_belongs(kit: Kit) -> None:
    client = kit.client()
    with pytest.raises(TypeError, match=r"^AsyncClient\.request\(\) has no option 'verify': .* AsyncClient\(verify="):
        await client.get("https://localhost:1/", verify=False)
    with pytest.raises(TypeError, match=r"^AsyncClient\.stream\(\) has no option 'allow_redirects': it is follow_redi"):
        async with client.stream("GET", "https://localhost:1/", allow_redirects=False):
            pass
    with pytest.raises(TypeError, match="give a list"):
        client.map("https://localhost:1/")
    with pytest.raises(TypeError, match="not 5$"):
        await client.map([5]).__anext__()


@pytest.mark.parametrize("verb", ["get", "options", "post", "put", "patch", "delete", "query"])
@in_event_loop
async def test_each_verb_is_sent(kit: Kit, verb: str) -> None:
    server, client = kit.pair(handler=mirror)
    assert (await getattr(client, verb)(server.url())).json()["method"] == verb.upper()


@in_event_loop
async def test_head_has_no_body(kit: Kit, wire: Wire) -> None:
    server, client = kit.pair(wire)
    response = await client.head(server.url("/gzip"))
    assert (response.content, response.text, server.requests[0].method) == (b"", "", "HEAD")


@in_event_loop
async def test_the_keywords_are_those_of_client(kit: Kit) -> None:
    server, client = kit.pair(handler=mirror, headers={"X-Client": "c"})
    answer = await client.post(
        server.url("/p"), params={"a": "1"}, headers={"X-Call": "d"}, json={"b": 2}, auth=("u", "p"), timeout=WAIT_S
    )
    assert answer.json()["target"] == "/p?a=1"
    assert (value(answer, "x-client"), value(answer, "x-call")) == ("c", "d")
    assert (value(answer, "content-type"), value(answer, "authorization")) == ("application/json", "Basic dTpw")


@in_event_loop
async def test_redirects_are_followed_and_remembered(kit: Kit, wire: Wire) -> None:
    server, client = kit.pair(wire)
    response = await client.get(server.url("/status/302"))
    assert (response.status_code, [one.status_code for one in response.history]) == (200, [302])
    assert (await client.get(server.url("/status/302"), follow_redirects=False)).status_code == 302


@in_event_loop
async def test_cookies_come_back(kit: Kit) -> None:
    server, client = kit.pair(handler=mirror)
    server.route("/set")(lambda request: Reply(200, [("set-cookie", "a=1")]))
    answer = await client.get(server.url("/set"))
    assert [cookie.name for cookie in answer.cookies] == ["a"]
    assert value(await client.get(server.url("/")), "cookie") == "a=1"
    client.cookies = {"b": "2"}
    assert value(await client.get(server.url("/")), "cookie") == "b=2"


@in_event_loop
async def test_a_status_is_retried(kit: Kit) -> None:
    from urllib3.util import Retry

    answers = iter([Reply(503), Reply(200, body=b"now")])
    server, client = kit.pair(handler=inline(lambda request: next(answers)))
    response = await client.get(server.url(), retries=Retry(1, status_forcelist=[503]))
    assert (response.content, [one.reason for one in response.retries]) == (b"now", ["503"])


@in_event_loop
async def test_files_are_uploaded(kit: Kit, wire: Wire) -> None:
    server, client = kit.pair(wire)
    response = await client.post(server.url("/echo"), files={"f": ("a.bin", io.BytesIO(pattern(100_000)))})
    assert pattern(100_000) in response.content


@in_event_loop
async def test_default_headers_may_be_changed(kit: Kit) -> None:
    server, client = kit.pair(handler=mirror)
    client.headers["X-A"] = "1"
    assert value(await client.get(server.url()), "x-a") == "1"
    client.headers = {"X-B": "2"}
    answer = await client.get(server.url())
    assert (value(answer, "x-a"), value(answer, "x-b")) == (None, "2")


# -- the response ------------------------------------------------------------------------------------------------------


@in_event_loop
async def test_raise_for_status_names_the_async_response(kit: Kit) -> None:
    server, client = kit.pair()
    response = await client.get(server.url("/status/404"))
    with pytest.raises(hyperpool.HTTPStatusError) as caught:
        response.raise_for_status()
    assert caught.value.response is response
    fine = await client.get(server.url())
    assert fine.raise_for_status() is fine


@in_event_loop
async def test_text_follows_the_charset_which_may_be_set(kit: Kit) -> None:
    fields = [("content-type", "text/plain; charset=latin-1")]
    server, client = kit.pair(handler=lambda request: Reply(200, fields, "é".encode("latin-1")))
    response = await client.get(server.url())
    assert (response.encoding, response.text) == ("latin-1", "é")
    assert response.apparent_encoding
    response.encoding = "cp437"
    assert response.text == b"\xe9".decode("cp437")


@in_event_loop
async def test_a_coded_body_is_decoded_before_the_request_returns(kit: Kit, wire: Wire) -> None:
    server, client = kit.pair(wire)
    assert (await client.get(server.url("/gzip"))).content == pattern(10_000)


@in_event_loop
async def test_a_body_that_is_not_what_it_says_is_an_error_of_the_request(kit: Kit) -> None:
    server, client = kit.pair(handler=lambda request: Reply(200, [("content-encoding", "gzip")], b"not gzip at all"))
    with pytest.raises(hyperpool.DecodeError) as caught:
        await client.get(server.url())
    assert caught.value.origin == server.origin


@in_event_loop
async def test_a_bomb_is_an_error_of_the_request(kit: Kit) -> None:
    server, client = kit.pair(limits=hyperpool.Limits(max_decoded_bytes=9_999))
    with pytest.raises(hyperpool.DecodeError, match="more than 9,999 bytes"):
        await client.get(server.url("/gzip"))


@in_event_loop
async def test_the_response_says_what_it_is(kit: Kit) -> None:
    server, client = kit.pair()
    response = await client.get(server.url("/x"))
    assert repr(response) == f"<AsyncResponse [200 HTTP/2] GET {server.url('/x')}>"
    assert repr(client).startswith("<AsyncClient <ConnectionPool open")
    assert (response.stream_id, response.request.method, response.closed) == (1, "GET", False)


# -- errors ------------------------------------------------------------------------------------------------------------


@in_event_loop
async def test_a_silent_server_is_a_read_timeout(kit: Kit, wire: Wire) -> None:
    server, client = kit.pair(wire, lambda request: Silence())
    with pytest.raises(hyperpool.ReadTimeout) as caught:
        await client.get(server.url(), timeout=hyperpool.Timeout(read=0.05))
    assert isinstance(caught.value, TimeoutError)


@in_event_loop
async def test_what_the_caller_can_mend_is_said_at_once(kit: Kit) -> None:
    client = kit.client()
    with pytest.raises(hyperpool.InvalidURL):
        await client.get("ftp://localhost/")
    with pytest.raises(hyperpool.LocalProtocolError):
        await client.get("http://localhost/", headers={"A": "\n"})


@in_event_loop
async def test_a_refused_connection_is_a_connect_error(kit: Kit) -> None:
    client = kit.client()
    gone = kit.server()
    gone.close()
    kit.enter(nobody(gone.port))
    with pytest.raises(hyperpool.ConnectError):
        await client.get(gone.url())


# -- many at once ------------------------------------------------------------------------------------------------------


@in_event_loop
async def test_200_tasks_share_one_http2_connection(kit: Kit) -> None:
    server = kit.server(max_concurrent_streams=200)
    client = kit.client(limits=hyperpool.Limits(max_connections_per_origin=1))
    answers = await asyncio.gather(*(client.get(server.url(f"/bytes/{1000 + n}")) for n in range(200)))
    assert [len(answer.content) for answer in answers] == [1000 + n for n in range(200)]
    assert server.connections_accepted == 1


@in_event_loop
async def test_200_tasks_are_served_over_http1(kit: Kit, h1_wire: Wire) -> None:
    server, client = kit.pair(h1_wire)
    answers = await asyncio.gather(*(client.get(server.url(f"/bytes/{1000 + n}")) for n in range(200)))
    assert [len(answer.content) for answer in answers] == [1000 + n for n in range(200)]
    assert server.connections_accepted <= client.pool.limits.max_http1_connections_per_origin


@in_event_loop
async def test_a_slow_response_delays_no_other_task(kit: Kit, wire: Wire) -> None:
    server, client = kit.pair(wire)
    gate = kit.gate()
    server.route("/slow")(lambda request: opened(gate) or b"slow")
    slow = asyncio.create_task(client.get(server.url("/slow")))
    assert [len((await client.get(server.url(f"/bytes/{n}"))).content) for n in range(20)] == [*range(20)]
    assert not slow.done()
    gate.set()
    assert (await slow).content == b"slow"


def test_two_event_loops_in_two_threads_share_one_connection(kit: Kit) -> None:
    server, client = kit.pair(limits=hyperpool.Limits(max_connections_per_origin=1))
    got: list[int] = []

    async def ask() -> None:
        answers = await asyncio.gather(*(client.get(server.url(f"/bytes/{n}")) for n in range(50)))
        got.append(sum(len(answer.content) for answer in answers))

    threads = [threading.Thread(target=lambda: asyncio.run(ask())) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (got, server.connections_accepted) == ([sum(range(50))] * 2, 1)


@in_event_loop
async def test_threads_and_tasks_share_one_pool(kit: Kit) -> None:
    server = kit.server()
    with hyperpool.ConnectionPool(verify=AUTHORITY.ca_pem) as pool, hyperpool.Client(pool=pool) as blocking:
        client = AsyncClient(pool=pool)
        in_thread = asyncio.to_thread(blocking.get, server.url("/bytes/1"))
        first, second = await asyncio.gather(in_thread, client.get(server.url("/bytes/2")))
        assert (len(first.content), len(second.content)) == (1, 2)
    assert server.connections_accepted == 1


# -- its life ----------------------------------------------------------------------------------------------------------


@in_event_loop
async def test_a_client_closes_its_own_pool(kit: Kit, wire: Wire) -> None:
    server = kit.server(wire)
    async with AsyncClient(**wire.client_options) as client:
        await client.get(server.url())
    assert client.pool.closed
    assert await until(server, lambda server: server.connections_open == 0)
    with pytest.raises(hyperpool.PoolClosed):
        await client.get(server.url())


@in_event_loop
async def test_a_client_that_was_given_stays_open(kit: Kit) -> None:
    server = kit.server()
    with hyperpool.Client(verify=AUTHORITY.ca_pem) as blocking:
        async with AsyncClient(client=blocking) as client:
            await client.get(server.url())
        assert client.client is blocking
        assert not blocking.pool.closed


def test_options_beside_a_given_client_are_refused(kit: Kit) -> None:
    with pytest.raises(ValueError, match="given client"):
        AsyncClient(client=kit.client().client, http2=False)


@in_event_loop
async def test_closing_ends_what_is_under_way(kit: Kit) -> None:
    server = kit.server(handler=lambda request: Silence())
    client = AsyncClient(verify=AUTHORITY.ca_pem)
    waiting = asyncio.create_task(client.get(server.url()))
    assert await until(server, lambda server: len(server.requests) == 1)
    await client.aclose(grace_s=0)
    with pytest.raises(hyperpool.PoolClosed):
        await waiting


def test_the_functions_use_the_process_wide_client(kit: Kit) -> None:
    server = kit.server(H1_PLAIN, mirror)

    async def ask() -> list[str]:
        verbs = ("get", "head", "options", "post", "put", "patch", "delete", "query")
        for verb in verbs:
            await getattr(hyperpool.aio, verb)(server.url())
        async with hyperpool.aio.stream("GET", server.url()) as response:
            await response.aread()
        return [request.method.lower() for request in server.requests]

    try:
        assert asyncio.run(ask()) == ["get", "head", "options", "post", "put", "patch", "delete", "query", "get"]
        assert hyperpool.default.default_client().pool.stats().connections == 1
    finally:
        hyperpool.default.default_client().close()


@pytest.mark.slow
def test_importing_hyperpool_loads_no_asyncio() -> None:
    program = "import sys, hyperpool; sys.exit('asyncio' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], timeout=2 * WAIT_S).returncode == 0


@pytest.mark.slow
def test_the_first_request_of_a_process_imports_on_another_thread() -> None:
    program = """if True:
        import asyncio, sys, threading, hyperpool.aio, hyperpool.process
        seen = []
        real = hyperpool.process.load
        def load(*args):
            if args[0] not in hyperpool.process._loaded:
                seen.append(threading.current_thread() is threading.main_thread())
            real(*args)
        hyperpool.process.load = hyperpool.aio.client.load = hyperpool.pool.load = load
        async def ask():
            async with hyperpool.aio.AsyncClient() as client:
                try:
                    await client.get("http://127.0.0.1:9/")
                except hyperpool.HyperpoolError:
                    pass
        asyncio.run(ask())
        sys.exit(any(seen) or not seen)
    """
    assert subprocess.run([sys.executable, "-c", program], timeout=2 * WAIT_S).returncode == 0
