"""A cancelled task takes its request back from the wire, at whatever moment; and what wakes coroutines, by itself."""

from __future__ import annotations

import asyncio
import threading

import pytest
from aio_kit import Kit, Wire, in_event_loop, until, with_huge

import hyperpool
from hyperpool.aio.waiting import Bell, outcome_of, room_in, take
from hyperpool.handoff.body import BodyPipe, UploadPipe
from hyperpool.testing import Silence
from stage import WAIT_S


@in_event_loop
async def test_cancelling_a_task_resets_its_stream_and_no_other(kit: Kit) -> None:
    server, client = kit.pair(handler=lambda request: Silence())
    server.route("/bytes")(lambda request: b"fine")
    task = asyncio.create_task(client.get(server.url()))
    assert await until(server, lambda server: len(server.requests) == 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await until(server, lambda server: server.requests[0].reset_code == 8)
    assert (await client.get(server.url("/bytes"))).content == b"fine"
    assert server.connections_accepted == 1


@in_event_loop
async def test_cancelling_a_task_closes_its_http1_socket(kit: Kit, h1_wire: Wire) -> None:
    server, client = kit.pair(h1_wire, lambda request: Silence())
    task = asyncio.create_task(client.get(server.url()))
    assert await until(server, lambda server: len(server.requests) == 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await until(server, lambda server: server.connections_open == 0)


@in_event_loop
async def test_a_timeout_of_asyncio_reaches_the_wire(kit: Kit) -> None:
    server, client = kit.pair(handler=lambda request: Silence())
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(client.get(server.url()), 0.05)
    assert await until(server, lambda server: all(one.reset_code == 8 for one in server.requests))


@in_event_loop
async def test_one_failure_in_a_gather_leaves_the_others_alone(kit: Kit) -> None:
    server, client = kit.pair()
    answers = await asyncio.gather(
        client.get(server.url("/fault/reset")), client.get(server.url("/bytes/3")), return_exceptions=True
    )
    assert isinstance(answers[0], hyperpool.StreamReset)
    assert not isinstance(answers[1], BaseException) and len(answers[1].content) == 3


@in_event_loop
async def test_a_response_that_came_just_before_the_cancel_is_let_go(kit: Kit) -> None:
    server, client = kit.pair()
    with_huge(server)
    future = client.client.submit("GET", server.url("/huge"), stream=True)
    task = asyncio.create_task(outcome_of(future))
    await asyncio.sleep(0)
    future.result(WAIT_S)  # the event loop stands still, so the task has not heard of it
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await until(server, lambda server: server.requests[0].reset_code == 8)


@in_event_loop
async def test_a_request_that_waits_for_a_retry_is_cancelled(kit: Kit) -> None:
    from urllib3.util import Retry

    server, client = kit.pair(handler=lambda request: 503)
    task = asyncio.create_task(client.get(server.url(), retries=Retry(5, status_forcelist=[503], backoff_factor=100)))
    assert await until(server, lambda server: len(server.requests) == 2)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_an_event_loop_that_ends_takes_its_requests_back(kit: Kit) -> None:
    server, client = kit.pair(handler=lambda request: Silence())

    async def leave() -> None:
        left.add(asyncio.create_task(client.get(server.url())))
        assert await until(server, lambda server: len(server.requests) == 1)

    left: set[asyncio.Task[object]] = set()
    asyncio.run(leave())
    assert server.wait_until(lambda server: server.requests[0].reset_code == 8, WAIT_S)


# -- what wakes coroutines ---------------------------------------------------------------------------------------------


@in_event_loop
async def test_a_bell_is_heard_from_another_thread() -> None:
    bell = Bell()
    threading.Thread(target=bell.ring).start()
    await bell.heard()
    bell.ring()
    await asyncio.sleep(0)


def test_a_bell_of_an_event_loop_that_is_closed_rings_in_vain() -> None:
    async def make() -> Bell:
        return Bell()

    asyncio.run(make()).ring()


@in_event_loop
async def test_a_body_and_an_upload_are_waited_for() -> None:
    body = BodyPipe(credit=lambda n_bytes: None, credit_step_bytes=1 << 20)
    taking = asyncio.create_task(take(body))
    upload = UploadPipe(capacity_bytes=1, notify=lambda: None)
    upload.feed(b"1")
    feeding = asyncio.create_task(room_in(upload))
    await asyncio.sleep(0)
    assert not taking.done() and not feeding.done()
    body.feed(b"2")
    upload.take(1)
    assert (await taking, await feeding) == (b"2", None)
