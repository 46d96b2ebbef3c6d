"""Files to and from servers on an event loop: the rules are those of `Client.download` and `Client.upload`."""

from __future__ import annotations

import asyncio
import hashlib
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from aio_kit import H1_PLAIN, Kit, Wire, in_event_loop, until
from urllib3.util import Retry

import hyperpool
import hyperpool.aio
from hyperpool.aio import AsyncResponse
from hyperpool.aio.flights import Flights
from hyperpool.aio.waiting import off_loop
from hyperpool.errors import ChecksumError, HTTPStatusError
from hyperpool.testing import Reply, Request, pattern
from shelf import BODY, SHA256, SIZE, Shelf
from stage import WAIT_S, eventually, opened

AT_ONCE = Retry(3, backoff_factor=0)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "file.bin"


def content_of(path: Any) -> bytes:
    return Path(path).read_bytes()


def left_in(target: Path) -> list[str]:
    return sorted(path.name for path in target.parent.iterdir())


# -- downloads ---------------------------------------------------------------------------------------------------------


@in_event_loop
async def test_a_body_becomes_a_file_and_nothing_else(kit: Kit, wire: Wire, target: Path) -> None:
    server, client = kit.pair(wire, Shelf())
    done = await client.download(server.url("/a"), target, checksum="sha256")
    assert (done.path, done.size_bytes, done.resumed_bytes, done.checksum) == (target, SIZE, 0, f"sha256:{SHA256}")
    assert (content_of(done), done.response.headers["etag"]) == (BODY, '"one"')
    assert left_in(target) == ["file.bin"]


@in_event_loop
async def test_a_cut_download_is_gone_on_with_by_the_next_call(kit: Kit, wire: Wire, target: Path) -> None:
    shelf = Shelf(cuts=1)
    server, client = kit.pair(wire, shelf)
    with pytest.raises(hyperpool.HyperpoolError):
        await client.download(server.url("/a"), target)
    assert left_in(target) == ["file.bin.part", "file.bin.part.json"]
    done = await client.download(server.url("/a"), target)
    assert (done.resumed_bytes, content_of(target)) == (int(str(shelf.asked[1])[6:-1]), BODY)
    assert done.resumed_bytes > 0 and left_in(target) == ["file.bin"]


@in_event_loop
async def test_what_one_client_left_behind_the_other_goes_on_with(kit: Kit, target: Path) -> None:
    server, client = kit.pair(H1_PLAIN, Shelf(cuts=1))
    with pytest.raises(hyperpool.HyperpoolError):
        await client.download(server.url("/a"), target)
    done = await asyncio.to_thread(client.client.download, server.url("/a"), target)
    assert done.resumed_bytes > 0 and content_of(target) == BODY


@in_event_loop
async def test_within_its_retries_it_goes_on_by_itself(kit: Kit, wire: Wire, target: Path) -> None:
    shelf = Shelf(cuts=2)
    server, client = kit.pair(wire, shelf)
    await client.download(server.url("/a"), target, retries=AT_ONCE)
    assert (content_of(target), len(shelf.asked), shelf.asked[0]) == (BODY, 3, None)
    assert all(str(asked).startswith("bytes=") for asked in shelf.asked[1:])


@in_event_loop
async def test_bytes_of_two_versions_never_end_in_one_file(kit: Kit, target: Path) -> None:
    shelf = Shelf(cuts=1)
    server, client = kit.pair(H1_PLAIN, shelf)
    with pytest.raises(hyperpool.HyperpoolError):
        await client.download(server.url("/a"), target)
    shelf.etag, shelf.body = '"two"', BODY[::-1]
    assert (await client.download(server.url("/a"), target)).resumed_bytes == 0
    assert content_of(target) == BODY[::-1]


@in_event_loop
async def test_a_wrong_checksum_and_a_wrong_status_leave_nothing(kit: Kit, target: Path) -> None:
    server, client = kit.pair(H1_PLAIN, Shelf())
    server.route("/none")(lambda request: Reply(404))
    with pytest.raises(ChecksumError):
        await client.download(server.url("/a"), target, checksum=f"sha256:{'0' * 64}")
    with pytest.raises(HTTPStatusError):
        await client.download(server.url("/none"), target)
    assert left_in(target) == []


@in_event_loop
async def test_progress_is_told_in_the_event_loop_up_to_the_whole(kit: Kit, wire: Wire, target: Path) -> None:
    told: list[tuple[int, Any]] = []
    threads: set[int] = set()

    def note(done: int, total: int | None) -> None:
        told.append((done, total))
        threads.add(threading.get_ident())

    server, client = kit.pair(wire, Shelf())
    await client.download(server.url("/a"), target, progress=note)
    assert (told[0], told[-1], threads) == ((0, SIZE), (SIZE, SIZE), {threading.get_ident()})
    assert told == sorted(told)


@in_event_loop
async def test_a_cancelled_download_leaves_what_came_and_frees_the_file(kit: Kit, wire: Wire, target: Path) -> None:
    gate, shelf = kit.gate(), Shelf()

    def handler(request: Request) -> Reply:
        reply = shelf(request)
        if len(shelf.asked) > 1:
            return reply

        def body() -> Iterator[bytes]:
            yield BODY[:100_000]
            opened(gate)

        return Reply(reply.status, reply.headers, body())

    server = kit.server(wire, handler, errors_expected=True)
    client, came = kit.client(wire), asyncio.Event()
    note = lambda done, total: came.set() if done else None  # noqa: E731
    running = asyncio.create_task(client.download(server.url("/a"), target, progress=note))
    await came.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert left_in(target) == ["file.bin.part", "file.bin.part.json"]
    gate.set()
    done = await client.download(server.url("/a"), target)
    assert (done.resumed_bytes > 0, content_of(target)) == (True, BODY)


@in_event_loop
async def test_a_file_that_is_being_written_is_refused_a_second_time(kit: Kit, target: Path) -> None:
    gate = kit.gate()
    server, client = kit.pair(H1_PLAIN, lambda request: opened(gate) or Reply(body=BODY))
    running = asyncio.create_task(client.download(server.url(), target))
    assert await until(server, lambda seen: seen.requests)
    with pytest.raises(BlockingIOError):
        await client.download(server.url(), target)
    gate.set()
    await running
    assert content_of(target) == BODY


@in_event_loop
async def test_many_downloads_go_on_together(kit: Kit, wire: Wire, tmp_path: Path) -> None:
    server, client = kit.pair(wire)
    paths = [tmp_path / str(number) for number in range(30)]
    await asyncio.gather(*(client.download(server.url(f"/bytes/{path.name}000"), path) for path in paths))
    assert [path.read_bytes() for path in paths] == [pattern(int(path.name) * 1000) for path in paths]


@in_event_loop
async def test_what_a_disk_is_waited_for_ends_before_a_cancelled_task_does() -> None:
    began, gate = threading.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def slow() -> None:
        began.set()
        gate.wait(WAIT_S)

    task = asyncio.create_task(off_loop(slow))
    await asyncio.to_thread(began.wait, WAIT_S)
    task.cancel()
    await asyncio.sleep(0)
    task.cancel()
    for _ in range(10):
        await asyncio.sleep(0)
    assert not task.done()
    loop.call_soon(gate.set)
    with pytest.raises(asyncio.CancelledError):
        await task


# -- uploads -----------------------------------------------------------------------------------------------------------


def judge(request: Request) -> str:
    """What was received: method, type, length, digest."""
    said = f"{request.method} {request.header('content-type')} {request.header('content-length')} "
    return said + hashlib.sha256(request.read()).hexdigest()


@in_event_loop
async def test_a_path_is_sent_with_its_length_and_its_type(kit: Kit, wire: Wire, tmp_path: Path) -> None:
    path = tmp_path / "report.pdf"
    path.write_bytes(BODY)
    server, client = kit.pair(wire, judge)
    answer = await client.upload(server.url(), path)
    assert (type(answer), answer.text) == (AsyncResponse, f"PUT application/pdf {SIZE} {SHA256}")


@in_event_loop
async def test_the_progress_of_an_upload_is_told_in_the_event_loop(kit: Kit, wire: Wire, tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(BODY)
    told: list[Any] = []
    server, client = kit.pair(wire, judge)
    note = lambda done, total: told.append((done, total, threading.get_ident()))  # noqa: E731
    await client.upload(server.url(), path, progress=note, method="POST")
    assert told[-1] == (SIZE, SIZE, threading.get_ident())


@in_event_loop
async def test_a_file_that_is_not_there_is_said(kit: Kit, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        await kit.client().upload("https://localhost/", tmp_path / "none")


# -- many --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ordered", [True, False], ids=["ordered", "as they come"])
@in_event_loop
async def test_all_are_answered_and_no_more_are_under_way_than_allowed(kit: Kit, wire: Wire, ordered: bool) -> None:
    read: list[int] = []
    taken = 0
    server, client = kit.pair(wire)

    def urls() -> Iterator[str]:
        for number in range(100):
            read.append(number)
            yield server.url(f"/bytes/{number}")

    sizes = []
    async for response in client.map(urls(), max_in_flight=8, ordered=ordered):
        taken += 1
        # One more is read from the input than there are slots: it waits for one.
        assert len(read) <= taken + 8 + 1
        sizes.append(len(response.content))
    assert sorted(sizes) == list(range(100))
    assert not ordered or sizes == list(range(100))


@in_event_loop
async def test_a_response_is_given_while_the_input_still_waits(kit: Kit, wire: Wire) -> None:
    server, client = kit.pair(wire)
    goes_on = asyncio.Event()

    async def entries() -> AsyncIterator[Any]:
        yield ("POST", server.url("/echo"), {"content": b"one"})
        await goes_on.wait()
        yield ("POST", server.url("/echo"), {"content": b"two"})

    answers = client.map(entries())
    assert (await anext(answers)).content == b"one"
    goes_on.set()
    assert [answer.content async for answer in answers] == [b"two"]


@in_event_loop
async def test_leaving_a_map_early_closes_streamed_responses_that_nobody_took(kit: Kit) -> None:
    server, client = kit.server(), kit.client()
    opened = [await client._send("GET", server.url("/bytes/1000000"), {"stream": True}) for _ in range(3)]

    async def begin(number: int) -> AsyncResponse:
        return opened[number]

    responses = Flights(begin, 3, ordered=True).responses(range(3))
    async with await anext(responses) as taken:
        for _ in range(10):  # the others are done without having to wait
            await asyncio.sleep(0)
        await responses.aclose()
        assert taken is opened[0]
        assert [each.closed for each in opened] == [False, True, True]


@in_event_loop
async def test_leaving_early_takes_back_what_is_under_way(kit: Kit, wire: Wire) -> None:
    gate = kit.gate()
    server = kit.server(wire, errors_expected=True)
    server.route("/slow")(lambda request: opened(gate) or Reply())
    client = kit.client(wire)
    responses = client.map([server.url("/bytes/1"), *[server.url("/slow")] * 3])
    assert (await anext(responses)).content == pattern(1)
    await responses.aclose()
    stats = client.pool.stats
    assert await asyncio.to_thread(eventually, lambda: stats().open_streams == stats().queued == 0)
    gate.set()


@in_event_loop
async def test_the_error_of_one_ends_the_iteration(kit: Kit) -> None:
    server, client = kit.pair(H1_PLAIN)
    with pytest.raises(hyperpool.InvalidURL):
        async for _ in client.map([server.url("/bytes/1"), "ftp://x/"]):
            pass


@in_event_loop
async def test_what_the_input_raises_is_raised(kit: Kit) -> None:
    server, client = kit.pair(H1_PLAIN)

    def urls() -> Iterator[str]:
        yield server.url("/bytes/1")
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        async for _ in client.map(urls()):
            pass


@in_event_loop
async def test_no_entries_are_no_responses_and_a_bound_of_0_is_refused(kit: Kit) -> None:
    client = kit.client(H1_PLAIN)
    assert [answer async for answer in client.map([])] == []
    with pytest.raises(ValueError, match="max_in_flight"):
        client.map([], max_in_flight=0)


@in_event_loop
async def test_progress_counts_the_responses(kit: Kit) -> None:
    told: list[Any] = []
    server, client = kit.pair(H1_PLAIN)
    note = lambda done, total: told.append((done, total))  # noqa: E731
    async for _ in client.map([server.url("/bytes/1")] * 3, progress=note):
        pass
    assert told == [(0, 3), (1, 3), (2, 3), (3, 3)]


@in_event_loop
async def test_the_process_wide_client_has_them_too(kit: Kit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server, client = kit.pair(H1_PLAIN)
    monkeypatch.setattr("hyperpool.default._client", client.client)
    done = await hyperpool.aio.download(server.url("/bytes/9"), tmp_path / "x")
    answer = await hyperpool.aio.upload(server.url("/echo"), done, method="POST")
    assert [one.content async for one in hyperpool.aio.map([server.url("/bytes/9")])] == [answer.content]
