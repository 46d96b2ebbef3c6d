"""`ConnectionPool` with real threads and loopback sockets: which loop serves whom, and how loops come and go."""

from __future__ import annotations

import errno
import gc
import socket
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

import pytest

from hyperpool.engine import dialler
from hyperpool.engine.loop import OriginLoop
from hyperpool.errors import ConnectError, HyperpoolError, InvalidURL, LocalProtocolError, PoolClosed, PoolFull
from hyperpool.pool import ConnectionPool
from hyperpool.testing import Reply, Server
from hyperpool.testing.messages import Request as Seen
from hyperpool.urls import parse_url
from hyperpool.values import Limits, Request, Timeout
from stage import eventually, nobody

WAIT_S = 45.0  # for what is expected at once: a bound for broken code only


class Gate:
    """Handlers wait here until the test opens it."""

    def __init__(self) -> None:
        self.arrived = threading.Semaphore(0)
        self.opened = threading.Event()

    def __call__(self) -> Reply:
        self.arrived.release()
        assert self.opened.wait(WAIT_S)
        return Reply(body="late")

    def await_arrival(self) -> None:
        assert self.arrived.acquire(timeout=WAIT_S)


@pytest.fixture
def gate() -> Gate:
    return Gate()


@pytest.fixture
def server(gate: Gate) -> Iterator[Server]:
    """Plaintext HTTP/1.1: /slow waits at the gate, /close closes its connection, /echo echoes."""

    def handle(request: Seen) -> Any:
        if request.path == "/slow":
            return gate()
        if request.path == "/close":
            return Reply(headers={"connection": "close"}, body="bye")
        return Reply(body=request.path)

    with Server(handle, tls=False) as server:
        yield server
        gate.opened.set()


def make_pool(**limits: Any) -> ConnectionPool:
    return ConnectionPool(limits=Limits(**limits), trust_env=False)


@pytest.fixture
def pool() -> Iterator[ConnectionPool]:
    with make_pool() as pool:
        yield pool


def get(pool: ConnectionPool, url: str, **options: Any) -> Future[Any]:
    return pool.submit(Request("GET", url, timeout=Timeout(WAIT_S)), **options)


def loop_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("hyperpool http")]


def join_loops() -> None:
    for thread in loop_threads():
        thread.join(WAIT_S)
        assert not thread.is_alive()


def by_name(server: Server, host: str, path: str = "/") -> str:
    return f"http://{host}:{server.port}{path}"


# -- one loop for each origin ------------------------------------------------------------------------------------------


def test_one_origin_has_one_thread_that_bears_its_name(pool: ConnectionPool, server: Server) -> None:
    assert [get(pool, server.url(f"/{number}")).result().text for number in range(5)] == [f"/{n}" for n in range(5)]
    assert [thread.name for thread in loop_threads()] == [f"hyperpool {server.origin}"]
    assert all(thread.daemon for thread in loop_threads())
    assert server.connections_accepted == 1
    stats = pool.stats()
    assert (stats.threads, stats.connections, stats.open_streams, stats.queued) == (1, 1, 0, 0)
    assert stats.origins[server.origin].requests == 5


def test_two_threads_that_race_for_a_new_origin_share_one_loop(pool: ConnectionPool, server: Server) -> None:
    # The race is built by hand: both have found no loop, and have made one, before either installs it.
    both, build, made = threading.Barrier(2), pool._loops._workshop.build, []

    def build_beside_the_other(route: Any) -> OriginLoop:
        loop = build(route)
        made.append(loop)
        both.wait(WAIT_S)
        return loop

    pool._loops._workshop.build = build_beside_the_other  # type: ignore[method-assign]
    answers: list[str] = []
    racers = [
        threading.Thread(target=lambda: answers.append(get(pool, server.url("/x")).result().text)) for _ in range(2)
    ]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join(WAIT_S)
    assert answers == ["/x", "/x"]
    assert len(made) == 2 and sum(loop.ended for loop in made) == 1
    assert len(loop_threads()) == 1 and pool.stats().threads == 1


def test_a_request_after_the_loop_has_ended_gets_a_new_loop(pool: ConnectionPool, server: Server) -> None:
    # L2: the pool still knows the old one, whose inbox refuses.
    assert get(pool, server.url("/close")).result().text == "bye"
    join_loops()
    assert eventually(lambda: pool.stats().threads == 0)  # a thread leaves `enumerate` before it is over
    assert get(pool, server.url("/again")).result().text == "/again"
    assert len(loop_threads()) == 1


def test_after_a_crash_the_next_request_gets_a_new_loop(pool: ConnectionPool, server: Server, gate: Gate) -> None:
    # RELIABILITY X4
    slow = get(pool, server.url("/slow"))
    gate.await_arrival()
    (loop,) = pool._loops.alive()
    loop.inbox.put(object())
    with pytest.raises(HyperpoolError, match="bug in hyperpool") as caught:
        slow.result()
    assert isinstance(caught.value.__cause__, KeyError)
    assert get(pool, server.url("/again")).result().text == "/again"


def test_an_origin_can_be_prewarmed_as_well_as_a_url(pool: ConnectionPool, server: Server) -> None:
    pool.prewarm(parse_url(server.origin).origin)
    assert eventually(lambda: pool.stats().connections == 1)
    assert list(pool.stats().origins) == [server.origin]


@pytest.mark.parametrize("connections", [0, -1])
def test_less_than_one_connection_cannot_be_prewarmed(pool: ConnectionPool, connections: int) -> None:
    with pytest.raises(ValueError, match="connections must be 1 or more"):
        pool.prewarm("http://a.test", connections)
    assert pool.stats().threads == 0


@pytest.mark.parametrize("limits", [5, {"idle_s": 1}, "", Limits])
def test_limits_of_another_type_are_refused(limits: Any) -> None:
    with pytest.raises(TypeError, match=r"hyperpool\.Limits"):
        ConnectionPool(limits=limits)


def test_a_request_may_have_a_timeout_in_any_form(pool: ConnectionPool, server: Server) -> None:
    for timeout in (None, WAIT_S, (WAIT_S, WAIT_S)):
        assert pool.submit(Request("GET", server.url("/x"), timeout=timeout)).result(WAIT_S).status_code == 200


@pytest.mark.parametrize("headers", [("X-A",), (("X-A",),), (("X-A", "1", "2"),), (None,), ((["X-A"], "1"),)], ids=repr)
def test_headers_that_are_no_pairs_are_refused(pool: ConnectionPool, headers: Any) -> None:
    with pytest.raises(LocalProtocolError, match="pairs of str") as caught:
        pool.submit(Request("GET", "http://a.test/", headers))
    assert (caught.value.origin, caught.value.processed) == ("http://a.test", "no")


def test_a_response_has_the_url_that_was_requested(pool: ConnectionPool, server: Server) -> None:
    given = f"HTTP://LOCALHOST:{server.port}/\u2603 x"
    response = pool.submit(Request("GET", given)).result(WAIT_S)
    assert (response.url, response.request.url) == (server.url("/%E2%98%83%20x"), given)


def test_prewarmed_connections_are_used(pool: ConnectionPool, server: Server) -> None:
    pool.prewarm(server.origin)
    assert get(pool, server.url("/")).result().ok
    assert server.connections_accepted == 1


# -- what is refused in the caller's thread ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "url", "error"),
    [
        ("GET", "ftp://a.test/", InvalidURL),
        ("GET", "http://a.test:99999/", InvalidURL),
        ("GE T", "http://a.test/", LocalProtocolError),
    ],
)
def test_a_request_that_cannot_be_sent_is_refused_before_a_loop_is_made(
    pool: ConnectionPool, method: str, url: str, error: type[Exception]
) -> None:
    with pytest.raises(error):
        pool.submit(Request(method, url))
    assert pool.stats().threads == 0 and not loop_threads()


def test_a_pool_must_speak_something() -> None:
    with pytest.raises(ValueError, match="leave nothing"):
        ConnectionPool(http1=False, http2=False)


# -- max_origins -------------------------------------------------------------------------------------------------------


def test_at_max_origins_the_one_idle_for_longest_is_retired(server: Server) -> None:
    with Server(tls=False) as other, make_pool(max_origins=2) as pool:
        for host in ("localhost", "127.0.0.1", "localhost"):
            assert get(pool, by_name(server, host)).result().ok
        oldest = next(thread for thread in loop_threads() if "127.0.0.1" in thread.name)
        assert get(pool, other.url("/")).result().status_code
        oldest.join(WAIT_S)
        assert not oldest.is_alive()
        assert {route.origin.port for route in pool._loops._by_route} == {server.port, other.port}


def test_where_all_origins_are_busy_a_further_one_is_refused_and_none_is_harmed(server: Server, gate: Gate) -> None:
    with make_pool(max_origins=1) as pool:
        slow = get(pool, by_name(server, "localhost", "/slow"))
        gate.await_arrival()
        with pytest.raises(PoolFull, match="max_origins"):
            get(pool, by_name(server, "127.0.0.1"))
        gate.opened.set()
        assert slow.result().text == "late"
        assert get(pool, by_name(server, "127.0.0.1")).result().ok


# -- close -------------------------------------------------------------------------------------------------------------


def test_after_close_nothing_is_left_and_nothing_is_taken(server: Server) -> None:
    pool = make_pool()
    assert get(pool, server.url("/")).result().ok
    pool.close()
    assert not loop_threads() and pool.closed
    assert pool.stats() == ({}, 0, 0, 0, 0, 0)
    with pytest.raises(PoolClosed):
        get(pool, server.url("/"))
    pool.close()
    assert repr(pool) == "<ConnectionPool closed origins=0 connections=0>"


def test_close_ends_what_is_not_answered_in_its_grace(server: Server, gate: Gate) -> None:
    pool = make_pool()
    slow = get(pool, server.url("/slow"))
    gate.await_arrival()
    pool.close(grace_s=0)
    with pytest.raises(PoolClosed):
        slow.result(0)
    assert not loop_threads()


def test_close_waits_for_answers_in_its_grace(server: Server, gate: Gate) -> None:
    pool = make_pool()
    slow = get(pool, server.url("/slow"))
    gate.await_arrival()
    closing = threading.Thread(target=pool.close, kwargs={"grace_s": WAIT_S})
    closing.start()
    gate.opened.set()
    assert slow.result().text == "late"
    closing.join(WAIT_S)
    assert not closing.is_alive() and not loop_threads()


def test_close_from_a_done_callback_returns_at_once_and_the_rest_follows(server: Server) -> None:
    # L11: that thread would be waiting for itself.
    pool, returned = make_pool(), threading.Event()
    get(pool, server.url("/")).add_done_callback(lambda _: (pool.close(), returned.set()))
    assert returned.wait(WAIT_S)
    join_loops()
    with pytest.raises(PoolClosed):
        get(pool, server.url("/"))


def test_close_while_dialling_does_not_wait_for_the_dial() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full, socket.create_connection(full.getsockname()):
        pool = make_pool()
        waiting = get(pool, f"http://127.0.0.1:{full.getsockname()[1]}/")
        pool.close(grace_s=0)
        with pytest.raises(PoolClosed):
            waiting.result(0)


def test_a_forgotten_pools_threads_end(server: Server) -> None:
    pool = make_pool()
    assert get(pool, server.url("/")).result().ok
    assert loop_threads()
    del pool
    gc.collect()
    join_loops()


# -- callbacks ---------------------------------------------------------------------------------------------------------


def test_a_done_callback_that_waits_is_refused_and_one_that_submits_is_served(
    pool: ConnectionPool, server: Server, gate: Gate
) -> None:
    slow = get(pool, server.url("/slow"))
    gate.await_arrival()
    seen: Future[Any] = Future()

    def call(_: Any) -> None:
        try:
            slow.result()
        except RuntimeError as refused:
            seen.set_result((refused, get(pool, server.url("/next"))))

    # A callback of a Future that is done already would run here, and wait.
    begins = threading.Event()
    server.route("/first")(lambda request: "first" if begins.wait(WAIT_S) else "never")
    get(pool, server.url("/first")).add_done_callback(call)
    begins.set()
    refused, following = seen.result(WAIT_S)
    assert "I/O thread" in str(refused)
    assert following.result().text == "/next"
    gate.opened.set()
    assert slow.result().text == "late"


def test_a_generator_that_raises_raises_in_the_caller_alone(pool: ConnectionPool, server: Server) -> None:
    mine = ValueError("mine")

    def body() -> Iterator[bytes]:
        yield b"part"
        raise mine

    upload = pool.submit(Request("POST", server.url("/"), content=body()))
    other = get(pool, server.url("/other"))
    assert upload.exception(WAIT_S) is mine
    assert other.result().text == "/other"


# -- what the system refuses -------------------------------------------------------------------------------------------


def no_thread_named(monkeypatch: pytest.MonkeyPatch, prefix: str) -> None:
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name.startswith(prefix):
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)


def test_where_no_io_thread_starts_the_error_is_typed_and_the_pool_goes_on(
    pool: ConnectionPool, server: Server
) -> None:
    # RELIABILITY X7
    with pytest.MonkeyPatch.context() as patch:
        no_thread_named(patch, "hyperpool http")
        with pytest.raises(HyperpoolError, match="no I/O thread") as caught:
            get(pool, server.url("/"))
    assert caught.value.origin == server.origin and isinstance(caught.value.__cause__, RuntimeError)
    assert get(pool, server.url("/")).result().ok


def test_a_loop_whose_start_is_interrupted_ends_by_itself(
    pool: ConnectionPool, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Ctrl-C while Thread.start() waits for the new thread to say that it runs: it does, and nobody knows of it.
    with monkeypatch.context() as patches:
        start = threading.Thread.start

        def interrupted(thread: threading.Thread) -> None:
            start(thread)
            raise KeyboardInterrupt

        patches.setattr(threading.Thread, "start", interrupted)
        with pytest.raises(KeyboardInterrupt):
            get(pool, server.url("/"))
    join_loops()
    assert pool.stats().threads == 0
    assert get(pool, server.url("/again")).result().text == "/again"


def test_where_no_dialling_thread_starts_the_error_is_typed_and_the_pool_goes_on(
    pool: ConnectionPool, server: Server
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        no_thread_named(patch, "hyperpool dial")
        with pytest.raises(HyperpoolError, match="no thread to connect with"):
            get(pool, server.url("/")).result()
    assert get(pool, server.url("/")).result().ok


@pytest.mark.parametrize("call", ["socket.socketpair", "selectors.DefaultSelector"])
def test_where_no_descriptor_is_left_the_error_is_typed_and_the_pool_goes_on(
    pool: ConnectionPool, server: Server, call: str
) -> None:
    def refuse(*_: Any) -> Any:
        raise OSError(errno.EMFILE, "Too many open files")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(call, refuse)
        with pytest.raises(HyperpoolError, match="Too many open files") as caught:
            get(pool, server.url("/"))
    assert caught.value.origin == server.origin and isinstance(caught.value.__cause__, OSError)
    assert get(pool, server.url("/")).result().ok


def test_a_dial_that_fails_in_an_unforeseen_way_is_told_to_those_who_wait(
    pool: ConnectionPool, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(*_: Any, **__: Any) -> Any:
        raise ZeroDivisionError

    monkeypatch.setattr(dialler, "dial", crash)
    with pytest.raises(HyperpoolError, match="ZeroDivisionError") as caught:
        get(pool, server.url("/")).result()
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_a_refused_connection_is_a_connect_error_and_its_loop_ends(pool: ConnectionPool) -> None:
    with nobody() as port, pytest.raises(ConnectError):
        get(pool, f"http://127.0.0.1:{port}/").result()
    join_loops()


# -- processes ---------------------------------------------------------------------------------------------------------


def run_program(program: str) -> subprocess.CompletedProcess[str]:
    prelude = """
        import os, sys, threading, gc, warnings
        from hyperpool.pool import ConnectionPool
        from hyperpool.testing import Reply, Server
        from hyperpool.values import Limits, Request, Timeout

        gate = threading.Event()

        def endless():
            while True:
                yield b"x" * 1000

        def handle(request):
            if request.path == "/slow":
                gate.wait(30)
            return Reply(body=endless() if request.path == "/endless" else request.path)

        def get(pool, path, **options):
            return pool.submit(Request("GET", server.url(path), timeout=Timeout(20)), **options)

        server = Server(handle, tls=False).start()
        pool = ConnectionPool(trust_env=False)
        """
    source = textwrap.dedent(prelude) + textwrap.dedent(program)
    return subprocess.run(
        [sys.executable, "-W", "error", "-W", "ignore::DeprecationWarning", "-c", source],
        capture_output=True,
        text=True,
        timeout=2 * WAIT_S,
        check=False,
    )


def test_a_forked_child_starts_anew_and_its_parent_is_undisturbed() -> None:
    # RELIABILITY X1
    done = run_program(
        """
        assert get(pool, "/before").result().text == "/before"
        slow = get(pool, "/slow")
        streamed = get(pool, "/endless", stream=True).result()
        accepted = server.connections_accepted
        child = os.fork()
        if child == 0:
            try:
                assert pool.stats().threads == 0
                streamed.close()  # the parent's stream is not ours to reset
                del streamed
                gc.collect()
                assert get(pool, "/child").result().text == "/child"
                pool.close()
                assert not [t for t in threading.enumerate() if t.name.startswith("hyperpool http")]
                os._exit(7)
            except BaseException as error:
                print("child:", repr(error), file=sys.stderr)
                os._exit(8)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        assert server.connections_accepted == accepted + 1
        assert streamed.read(100_000)
        gate.set()
        assert slow.result().text == "/slow"
        assert get(pool, "/after").result().text == "/after"
        streamed.close()
        pool.close()
        server.close()
        print("fine")
        """
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "fine\n", "")


def test_a_program_that_forgets_to_close_exits_at_once_and_cleanly() -> None:
    # RELIABILITY X2
    done = run_program(
        """
        assert get(pool, "/").result().ok
        slow = get(pool, "/slow")
        print("fine")
        """
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "fine\n", "")
