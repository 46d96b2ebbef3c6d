"""One connection object in the hands of many threads."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hyper_support import H2, H2C, H20, PRIOR, WAYS, Bench, Way

from hyperpool.connection import HTTPConnection
from hyperpool.testing import Reply, pattern
from stage import opened
from stress.lock_watch import LockWatch

THREADS = 64
REQUESTS = 5


def describe(request: Any) -> bytes:
    return request.path.encode()


def run_all(work: Any, n: int = THREADS) -> list[Any]:
    all_ready = threading.Barrier(n)

    def run(number: int) -> Any:
        all_ready.wait()
        return work(number)

    with ThreadPoolExecutor(n) as threads:
        return list(threads.map(run, range(n)))


@pytest.mark.slow
def test_64_threads_get_their_own_responses_by_their_ids_over_one_socket(bench: Bench, h2_way: Way) -> None:
    server, connection = bench.pair(h2_way, describe)
    connection.request("GET", "/first")
    connection.get_response().read()

    def work(number: int) -> bool:
        paths = [f"/{number}/{turn}" for turn in range(REQUESTS)]
        ids = [connection.request("GET", path) for path in paths]
        return [connection.get_response(each).read().decode() for each in reversed(ids)] == paths[::-1]

    assert all(run_all(work))
    assert server.connections_accepted == 1


@pytest.mark.slow
def test_64_threads_get_their_own_responses_without_ids_too(bench: Bench, way: Way) -> None:
    _, connection = bench.pair(way, describe)

    def work(number: int) -> bool:
        for turn in range(REQUESTS):
            connection.request("GET", f"/{number}/{turn}")
            if connection.get_response().read() != f"/{number}/{turn}".encode():
                return False
        return True

    assert all(run_all(work))


@pytest.mark.parametrize("way", [H2, H20, PRIOR], ids=str)
def test_64_threads_that_begin_at_once_share_one_socket(bench: Bench, way: Way) -> None:
    server, connection = bench.pair(way, describe)

    def work(number: int) -> bool:
        return connection.get_response(connection.request("GET", f"/{number}")).read() == f"/{number}".encode()

    assert all(run_all(work))
    assert server.connections_accepted == 1


def test_ids_are_given_once(bench: Bench) -> None:
    _, connection = bench.pair(H2, describe)
    ids = [
        each
        for several in run_all(lambda _: [connection.request("GET", "/") for _ in range(3)], 16)
        for each in several
    ]
    assert sorted(ids) == list(range(1, 96, 2))


def test_a_slow_response_delays_no_other_thread(bench: Bench, way: Way) -> None:
    gate, at_work = bench.gate(), threading.Event()

    def handler(request: Any) -> Reply:
        if request.path == "/slow":
            at_work.set()
            opened(gate)
        return Reply(body=request.path)

    _, connection = bench.pair(way, handler)

    def ask(path: str) -> bytes:
        connection.request("GET", path)
        return connection.get_response().read()

    with ThreadPoolExecutor(1) as thread:
        slow = thread.submit(ask, "/slow")
        opened(at_work)
        assert [ask(f"/{turn}") for turn in range(3)] == [b"/0", b"/1", b"/2"]
        assert not slow.done()
        gate.set()
        assert slow.result() == b"/slow"


def test_one_thread_can_take_what_another_asked_for(bench: Bench, way: Way) -> None:
    _, connection = bench.pair(way, describe)
    with ThreadPoolExecutor(1) as thread:
        thread.submit(connection.request, "GET", "/theirs").result()
        assert connection.get_response().read() == b"/theirs"


def test_threads_can_upload_side_by_side(bench: Bench, h2_way: Way) -> None:
    _, connection = bench.pair(h2_way)
    connection.request("GET", "/bytes/1")
    connection.get_response().read()

    def work(number: int) -> bool:
        stream_id = connection.putrequest("POST", "/echo")
        connection.endheaders()
        for turn in range(4):
            connection.send(f"{number}.{turn} ", final=turn == 3)
        return connection.get_response(stream_id).read() == "".join(f"{number}.{turn} " for turn in range(4)).encode()

    assert all(run_all(work, 16))


def test_closing_while_others_ask_ends_in_errors_of_ours_or_answers(bench: Bench, h2_way: Way) -> None:
    from hyperpool import HyperpoolError

    _, connection = bench.pair(h2_way, describe)

    def work(number: int) -> bool:
        for _ in range(10):
            if number == 0:
                connection.close()
                continue
            try:
                connection.get_response(connection.request("GET", f"/{number}")).read()
            except HyperpoolError:
                continue
        return True

    assert all(run_all(work, 8))


@pytest.mark.slow
@pytest.mark.parametrize("way", [one for one in WAYS if one in (H2, H2C)], ids=str)
def test_no_lock_is_taken_under_another(bench: Bench, lock_watch: LockWatch, way: Way) -> None:
    server = bench.server(way)
    options = {"ssl_context": bench.connection(way, 1).ssl_context} if way.tls else {}
    with HTTPConnection("localhost", server.port, secure=way.tls, enable_push=True, **options) as connection:

        def work(number: int) -> bool:
            connection.request("POST", "/echo", body=(b"x" * 100 for _ in range(number)))
            connection.get_response().read()
            list(connection.get_pushes())
            connection.putrequest("GET", "/bytes/1000")
            connection.endheaders(final=True)
            return connection.get_response().read() == pattern(1_000)

        assert all(run_all(work, 8))
    assert any(site.startswith("hyperpool.connection_calls") for site in lock_watch.sites)
