"""Our Futures are concurrent.futures' Futures: waited for, chained, wrapped and cancelled like any other."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
import time
from concurrent.futures import FIRST_COMPLETED, FIRST_EXCEPTION, CancelledError, as_completed, wait
from typing import Any

import pytest
from client_support import Kit, Wire, error_of, pieces, raised

import hyperpool
from hyperpool.testing import Reply, ScriptedConnection, pattern
from stage import WAIT_S, eventually, opened

CANCEL = 8  # RFC 9113 7


def gated(kit: Kit, wire: Wire, **client_options: Any) -> tuple[Any, Any, threading.Event]:
    """A server whose /gated waits for the gate, with a client."""
    gate = kit.gate()
    server, client = kit.pair(wire, **client_options)
    server.route("/gated")(lambda request: (opened(gate), "through")[1])
    return server, client, gate


def seen(server: Any, n: int) -> bool:
    return server.wait_until(lambda server: len(server.requests) >= n, WAIT_S)


def test_submit_returns_a_concurrent_futures_future(kit: Kit, wire: Wire) -> None:
    server, client, gate = gated(kit, wire)
    future = client.submit("GET", server.url("/gated"))
    assert isinstance(future, concurrent.futures.Future)
    assert not future.done() and not future.running() and not future.cancelled()
    gate.set()
    assert future.result(WAIT_S).text == "through"
    assert future.done() and not future.cancelled() and future.exception() is None


def test_wait_returns_as_soon_as_the_first_is_done(kit: Kit, wire: Wire) -> None:
    server, client, gate = gated(kit, wire)
    slow = client.submit("GET", server.url("/gated"))
    quick = client.submit("GET", server.url("/bytes/1"))
    done, not_done = wait([slow, quick], WAIT_S, return_when=FIRST_COMPLETED)
    assert (done, not_done) == ({quick}, {slow})
    gate.set()
    assert not wait([slow, quick], WAIT_S).not_done


def test_wait_returns_at_the_first_exception(kit: Kit, wire: Wire) -> None:
    server, client, gate = gated(kit, wire)
    slow = client.submit("GET", server.url("/gated"))
    failing = client.submit("GET", server.url("/fault/disconnect"))
    done, _ = wait([slow, failing], WAIT_S, return_when=FIRST_EXCEPTION)
    assert failing in done
    gate.set()
    wait([slow], WAIT_S)


def test_as_completed_gives_each_future_once(kit: Kit, wire: Wire) -> None:
    server, client = kit.pair(wire)
    futures = {client.submit("GET", server.url(f"/bytes/{n}")): n for n in range(100)}
    got = [(futures[future], len(future.result().content)) for future in as_completed(futures, WAIT_S)]
    assert sorted(got) == [(n, n) for n in range(100)]


def test_asyncio_awaits_a_wrapped_future(kit: Kit, wire: Wire) -> None:
    server, client = kit.pair(wire)

    async def main() -> list[int]:
        wrapped = [asyncio.wrap_future(client.submit("GET", server.url(f"/bytes/{n}"))) for n in range(50)]
        responses = await asyncio.wait_for(asyncio.gather(*wrapped), WAIT_S)
        return [len(response.content) for response in responses]

    assert asyncio.run(main()) == list(range(50))


def test_cancelling_an_asyncio_task_reaches_the_wire(kit: Kit, h2_wire: Wire) -> None:
    server, client, _ = gated(kit, h2_wire)

    async def main() -> None:
        wrapped = asyncio.wrap_future(client.submit("GET", server.url("/gated")))
        await asyncio.get_running_loop().run_in_executor(None, seen, server, 1)
        wrapped.cancel()
        with pytest.raises(asyncio.CancelledError):
            await wrapped

    asyncio.run(main())
    assert server.wait_until(lambda server: server.requests[0].reset_code == CANCEL, WAIT_S)


def test_an_error_reaches_an_asyncio_waiter(kit: Kit) -> None:
    server, client = kit.pair()

    async def main() -> None:
        await asyncio.wrap_future(client.submit("GET", server.url("/fault/reset")))

    raised(hyperpool.StreamReset, lambda: asyncio.run(main()))


def test_cancelling_in_flight_resets_the_stream_and_no_sibling_notices(kit: Kit, h2_wire: Wire) -> None:
    server, client, gate = gated(kit, h2_wire)
    sibling = client.submit("GET", server.url("/gated"))
    victim = client.submit("GET", server.url("/gated"))
    assert seen(server, 2)
    assert victim.cancel()
    assert victim.cancelled() and victim.done()
    assert wait([victim], WAIT_S).done == {victim}
    assert server.wait_until(lambda server: server.requests[1].reset_code == CANCEL, WAIT_S)
    gate.set()
    assert sibling.result(WAIT_S).text == "through"
    assert server.connections_accepted == 1


def test_cancelling_in_flight_closes_the_http1_socket(kit: Kit, h1_wire: Wire) -> None:
    server, client, _ = gated(kit, h1_wire)
    victim = client.submit("GET", server.url("/gated"))
    assert seen(server, 1)
    assert victim.cancel()
    assert wait([victim], WAIT_S).done == {victim}
    assert server.wait_until(lambda server: server.connections_open == 0, WAIT_S)
    assert client.get(server.url("/bytes/3")).content == pattern(3)


def test_a_cancelled_queued_request_never_reaches_the_server(kit: Kit, wire: Wire) -> None:
    limits = hyperpool.Limits(
        max_connections_per_origin=1, max_http1_connections_per_origin=1, max_streams_per_connection=1
    )
    server, client, gate = gated(kit, wire, limits=limits)
    first = client.submit("GET", server.url("/gated"))
    assert seen(server, 1)
    queued = client.submit("GET", server.url("/queued"))
    third = client.submit("GET", server.url("/bytes/1"))
    assert queued.cancel()
    assert queued in wait([queued], WAIT_S).done
    gate.set()
    assert first.result(WAIT_S).text == "through"
    third.result(WAIT_S)
    assert [one.target for one in server.requests] == ["/gated", "/bytes/1"]


def test_a_request_cancelled_during_the_dial_writes_nothing(kit: Kit) -> None:
    gate = kit.gate()

    def script(connection: ScriptedConnection) -> None:
        opened(gate)
        connection.drain()

    peer = kit.peer(script, tls=False)
    client = kit.client(http1=False)
    # A listener without TLS on the other side of an https URL: the handshake stays under way until the gate opens.
    future = client.submit("GET", peer.url().replace("http:", "https:"))
    assert future.cancel()
    assert wait([future], WAIT_S).done == {future}
    raised(CancelledError, future.result)
    client.close(grace_s=0)
    gate.set()


def test_wait_counts_a_cancelled_future_as_done_in_every_state(kit: Kit, wire: Wire) -> None:
    server, client, gate = gated(kit, wire)
    futures = [client.submit("GET", server.url("/gated")) for _ in range(20)]
    assert seen(server, 5)
    for future in futures[::2]:
        assert future.cancel()
    gate.set()
    done, not_done = wait(futures, WAIT_S)
    assert not not_done and len(done) == 20
    assert [future.result(WAIT_S).text for future in futures[1::2]] == ["through"] * 10


def test_a_done_future_cannot_be_cancelled_any_more(kit: Kit, wire: Wire) -> None:
    server, client = kit.pair(wire)
    future = client.submit("GET", server.url("/bytes/3"))
    future.result(WAIT_S)
    assert not future.cancel()
    assert future.result().content == pattern(3)


def test_a_future_may_be_cancelled_twice(kit: Kit, wire: Wire) -> None:
    server, client, _ = gated(kit, wire)
    future = client.submit("GET", server.url("/gated"))
    assert future.cancel() and future.cancel()
    raised(CancelledError, lambda: future.result(WAIT_S))


def test_cancelling_an_upload_closes_its_generator(kit: Kit, wire: Wire) -> None:
    server, client, _ = gated(kit, wire)
    closed = threading.Event()

    def endless() -> Any:
        try:
            while True:
                yield bytes(64 << 10)
        finally:
            closed.set()

    future = client.submit("POST", server.url("/gated"), content=endless())
    assert seen(server, 1)
    assert future.cancel()
    assert closed.wait(WAIT_S)


def test_a_storm_of_cancels_never_overruns_the_servers_stream_limit(kit: Kit) -> None:
    server = kit.server(max_concurrent_streams=5)
    client = kit.client(limits=hyperpool.Limits(max_connections_per_origin=1))
    server.route("/slow")(lambda request: Reply(200, body=pieces(1 << 20)))
    futures = [client.submit("GET", server.url("/slow")) for _ in range(300)]
    for future in futures[::3]:
        future.cancel()
    done, not_done = wait(futures, WAIT_S)
    assert not not_done
    assert {type(future.exception()) for future in done if not future.cancelled()} == {type(None)}
    assert server.connections_accepted == 1


def test_cancels_race_with_responses_and_each_future_is_settled_once(kit: Kit, wire: Wire) -> None:
    server, client = kit.pair(wire)
    client.get(server.url("/bytes/0"))
    settled: list[Any] = []
    futures = []
    for n in range(400):
        futures.append(client.submit("GET", server.url(f"/bytes/{n}")))
        futures[-1].add_done_callback(settled.append)
        if n >= 20:
            futures[n - 20].cancel()
    assert not wait(futures, WAIT_S).not_done
    for n, future in enumerate(futures):
        if not future.cancelled():
            assert future.result().content == pattern(n)
    # A callback of a cancelled Future runs in cancel() itself; of the others on the I/O thread, just after wait().
    assert client.get(server.url("/bytes/1")).content == pattern(1)
    assert sorted(map(id, settled)) == sorted(map(id, futures))


def test_1000_requests_are_in_flight_from_one_thread(kit: Kit, h2_wire: Wire) -> None:
    server = kit.server(h2_wire, max_concurrent_streams=1_000)
    limits = hyperpool.Limits(max_connections_per_origin=1, max_streams_per_connection=1_000)
    client = kit.client(h2_wire, limits=limits)
    held = [client.submit("GET", server.url(f"/fault/silence?{n}")) for n in range(1_000)]
    assert server.wait_until(lambda server: len(server.requests) == 1_000, WAIT_S)
    assert not any(future.done() for future in held)
    assert eventually(lambda: client.pool.stats().open_streams == 1_000)
    for future in held:
        future.cancel()
    assert not wait(held, WAIT_S).not_done


def test_1000_requests_from_one_thread_are_all_answered(kit: Kit, wire: Wire) -> None:
    server, client = kit.pair(wire)
    futures = [client.submit("GET", server.url(f"/bytes/{n}")) for n in range(1_000)]
    assert [len(future.result(WAIT_S).content) for future in futures] == list(range(1_000))


def test_a_done_callback_runs_once_with_its_future_on_the_io_thread(kit: Kit, wire: Wire) -> None:
    server, client, gate = gated(kit, wire)
    called: list[Any] = []
    ran = threading.Event()

    def callback(future: Any) -> None:
        called.append((future, threading.current_thread().name))
        ran.set()

    future = client.submit("GET", server.url("/gated"))
    future.add_done_callback(callback)
    gate.set()
    assert ran.wait(WAIT_S)
    assert called == [(future, f"hyperpool {server.origin}")]


def test_a_done_callback_added_after_the_end_runs_at_once(kit: Kit, wire: Wire) -> None:
    server, client = kit.pair(wire)
    future = client.submit("GET", server.url("/bytes/1"))
    future.result(WAIT_S)
    called: list[Any] = []
    future.add_done_callback(called.append)
    assert called == [future]


@pytest.mark.parametrize("call", ["result", "exception"])
def test_waiting_for_another_future_inside_a_done_callback_raises_at_once(kit: Kit, wire: Wire, call: str) -> None:
    server, client, gate = gated(kit, wire)
    caught: concurrent.futures.Future[Any] = concurrent.futures.Future()
    first = client.submit("GET", server.url("/gated"))
    never = client.submit("GET", server.url("/fault/silence"))

    def callback(future: Any) -> None:
        assert future.result().text == "through", "the own one is done, and does not block"
        try:
            getattr(never, call)()
        except BaseException as error:
            caught.set_result(error)

    first.add_done_callback(callback)
    gate.set()
    assert type(caught.result(WAIT_S)) is RuntimeError
    never.cancel()


def test_a_blocking_get_inside_a_done_callback_raises_and_cancels_its_request(kit: Kit, wire: Wire) -> None:
    server, client, gate = gated(kit, wire)
    caught: concurrent.futures.Future[Any] = concurrent.futures.Future()
    first = client.submit("GET", server.url("/gated"))

    def callback(future: Any) -> None:
        try:
            client.get(server.url("/bytes/3"))
        except BaseException as error:
            caught.set_result(error)

    first.add_done_callback(callback)
    gate.set()
    assert type(caught.result(WAIT_S)) is RuntimeError
    assert client.get(server.url("/bytes/4")).content == pattern(4)


def test_reading_a_streamed_response_inside_a_done_callback_raises_at_once(kit: Kit, wire: Wire) -> None:
    server, client, gate = gated(kit, wire)
    caught: concurrent.futures.Future[Any] = concurrent.futures.Future()

    def callback(future: Any) -> None:
        try:
            future.result().read()
        except BaseException as error:
            caught.set_result(error)

    future = client.submit("GET", server.url("/gated"), stream=True)
    future.add_done_callback(callback)
    gate.set()  # one that is added to a Future that is done runs in the thread that adds it
    with future.result(WAIT_S) as response:
        assert type(caught.result(WAIT_S)) is RuntimeError
        assert response.text == "through"


def test_submitting_inside_a_done_callback_works(kit: Kit, wire: Wire) -> None:
    server, client = kit.pair(wire)
    chain: concurrent.futures.Future[int] = concurrent.futures.Future()

    def go_on(future: Any) -> None:
        n = len(future.result().content)
        if n == 20:
            chain.set_result(n)
        else:
            client.submit("GET", server.url(f"/bytes/{n + 1}")).add_done_callback(go_on)

    client.submit("GET", server.url("/bytes/1")).add_done_callback(go_on)
    assert chain.result(WAIT_S) == 20


def test_cancelling_a_sibling_inside_a_done_callback_works(kit: Kit, wire: Wire) -> None:
    server, client, gate = gated(kit, wire)
    never = client.submit("GET", server.url("/fault/silence"))
    first = client.submit("GET", server.url("/gated"))
    first.add_done_callback(lambda _: never.cancel())
    gate.set()
    raised(CancelledError, lambda: never.result(WAIT_S))
    assert client.get(server.url("/bytes/3")).content == pattern(3)


@pytest.mark.parametrize("error", [ValueError("of the callback"), SystemExit(3)], ids=repr)
def test_a_done_callback_that_raises_harms_no_other_request(
    kit: Kit, wire: Wire, error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    server, client, gate = gated(kit, wire)

    def callback(future: Any) -> None:
        raise error

    futures = [client.submit("GET", server.url("/gated")) for _ in range(3)]
    for future in futures:
        future.add_done_callback(callback)
    gate.set()
    assert [future.result(WAIT_S).text for future in futures] == ["through"] * 3
    assert client.get(server.url("/bytes/3")).content == pattern(3)
    assert "callback" in caplog.text


def test_result_with_a_timeout_gives_up_waiting_but_not_the_request(kit: Kit, wire: Wire) -> None:
    server, client, gate = gated(kit, wire)
    future = client.submit("GET", server.url("/gated"))
    with pytest.raises(concurrent.futures.TimeoutError):
        future.result(0)
    gate.set()
    assert future.result(WAIT_S).text == "through"


def test_a_streamed_future_resolves_at_the_head(kit: Kit, wire: Wire) -> None:
    gate = kit.gate()

    def body() -> Any:
        opened(gate)
        yield b"late"

    server, client = kit.pair(wire, lambda request: Reply(200, body=body()))
    with client.submit("GET", server.url(), stream=True).result(WAIT_S) as response:
        assert response.status_code == 200
        gate.set()
        assert response.read() == b"late"


def test_submit_returns_while_the_server_does_not_even_answer(kit: Kit) -> None:
    gate = kit.gate()
    peer = kit.peer(lambda connection: opened(gate), tls=False)
    client = kit.client()
    began = time.monotonic()
    future = client.submit("GET", peer.url().replace("http:", "https:"))
    assert not future.done() or time.monotonic() - began > 1, "a Future that nobody could settle yet"
    future.cancel()
    client.close(grace_s=0)
    gate.set()


def test_each_waiter_of_a_lost_connection_gets_an_error_of_its_own(kit: Kit, h2_wire: Wire) -> None:
    server, client = kit.pair(h2_wire)
    futures = [client.submit("POST", server.url("/fault/silence")) for _ in range(10)]
    assert seen(server, 10)
    server.drop_connections()
    errors = [error_of(future, hyperpool.ConnectionLost) for future in futures]
    assert len(set(map(id, errors))) == 10
    assert [error.stream_id for error in errors] == list(range(1, 20, 2))
    assert {(error.processed, error.origin) for error in errors} == {("maybe", server.origin)}
