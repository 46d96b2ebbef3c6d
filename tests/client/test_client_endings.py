"""Ends: of a client, of a program, of a process by fork, of things that were forgotten."""

from __future__ import annotations

import gc
import os
import socket
import subprocess
import sys
import textwrap
import threading
import warnings
import weakref
from concurrent.futures import CancelledError, Future, wait
from pathlib import Path
from typing import Any

import pytest
from client_support import H1_PLAIN, H2_TLS, Kit, Wire, error_of, raised, run_program
from test_process_exit import PRELUDE as WAITING_PRELUDE

import hyperpool
from hyperpool.testing import Reply, ScriptedConnection, pattern
from stage import AUTHORITY, WAIT_S, eventually, opened


def our_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("hyperpool http")]


def sockets_to(port: int) -> int:
    """How many sockets of this process are connected to the port."""
    count = 0
    for name in os.listdir("/proc/self/fd"):
        try:
            if not os.readlink(f"/proc/self/fd/{name}").startswith("socket:"):
                continue
            with socket.socket(fileno=os.dup(int(name))) as sock:
                count += sock.family == socket.AF_INET and sock.getpeername()[1] == port
        except OSError:
            continue
    return count


def test_after_close_no_thread_and_no_socket_is_left(kit: Kit, wire: Wire) -> None:
    server, client = kit.pair(wire)
    wait([client.submit("GET", server.url(f"/bytes/{n}")) for n in range(50)], WAIT_S)
    assert our_threads() == [f"hyperpool {server.origin}"]
    assert sockets_to(server.port) >= 1
    client.close()
    assert our_threads() == []
    assert sockets_to(server.port) == 0


def test_after_a_with_block_no_thread_and_no_socket_is_left(kit: Kit, wire: Wire) -> None:
    server = kit.server(wire)
    verify = AUTHORITY.ca_pem if wire.tls else True
    with hyperpool.Client(verify=verify, **wire.client_options) as client:
        client.get(server.url("/bytes/1"))
    assert (our_threads(), sockets_to(server.port)) == ([], 0)
    raised(hyperpool.PoolClosed, lambda: client.get(server.url()))


def test_a_client_that_was_never_used_has_nothing_to_close() -> None:
    client = hyperpool.Client()
    assert our_threads() == []
    client.close()
    client.close()


def test_close_gives_requests_under_way_their_grace(kit: Kit, wire: Wire) -> None:
    gate = kit.gate()
    server, client = kit.pair(wire, lambda request: (opened(gate), "in time")[1])
    future = client.submit("GET", server.url())
    assert server.wait_until(lambda server: len(server.requests) == 1, WAIT_S)
    closing = kit.threads(1).submit(client.close, grace_s=WAIT_S)
    gate.set()
    assert future.result(WAIT_S).text == "in time"
    closing.result(WAIT_S)


def test_close_settles_everything_under_way_with_pool_closed(kit: Kit, wire: Wire) -> None:
    server = kit.server(wire)
    limits = hyperpool.Limits(
        max_http1_connections_per_origin=5, max_connections_per_origin=1, max_streams_per_connection=5
    )
    client = kit.client(wire, limits=limits)
    futures = [client.submit("POST", server.url("/fault/silence"), content=b"x") for _ in range(20)]
    assert server.wait_until(lambda server: len(server.requests) == 5, WAIT_S)
    client.close(grace_s=0)
    assert all(future.done() for future in futures)
    errors = [error_of(future, hyperpool.PoolClosed) for future in futures]
    assert sorted(error.processed for error in errors) == ["maybe"] * 5 + ["no"] * 15
    assert {error.origin for error in errors} == {server.origin}
    assert len(set(map(id, errors))) == 20
    assert (our_threads(), sockets_to(server.port)) == ([], 0)


def test_close_wakes_a_thread_that_reads_a_streamed_response(kit: Kit, wire: Wire) -> None:
    gate = kit.gate()

    def body() -> Any:
        yield b"a beginning"
        opened(gate)

    server, client = kit.pair(wire, lambda request: Reply(200, body=body()))
    with client.stream("GET", server.url()) as response:
        assert response.read(11) == b"a beginning"
        reading = kit.threads(1).submit(response.read, 1)
        client.close(grace_s=0)
        assert type(reading.exception(WAIT_S)) is hyperpool.PoolClosed


def test_close_ends_a_dial_that_is_under_way(kit: Kit) -> None:
    gate = kit.gate()
    peer = kit.peer(lambda connection: opened(gate), tls=False)
    client = kit.client()
    future = client.submit("GET", peer.url().replace("http:", "https:"))
    client.close(grace_s=0)
    assert error_of(future, hyperpool.PoolClosed).processed == "no"
    assert our_threads() == []


def test_close_ends_an_upload_and_closes_its_generator(kit: Kit, wire: Wire) -> None:
    server, client = kit.pair(wire)
    closed = threading.Event()

    def endless() -> Any:
        try:
            while True:
                yield bytes(64 << 10)
        finally:
            closed.set()

    future = client.submit("POST", server.url("/sha256"), content=endless())
    assert server.wait_until(lambda server: any(one.body_bytes for one in server.requests), WAIT_S)
    client.close(grace_s=0)
    error_of(future, hyperpool.PoolClosed)
    assert closed.wait(WAIT_S)


@pytest.mark.parametrize("act", ["submit", "get", "stream", "map", "prewarm"])
def test_a_closed_client_refuses_with_pool_closed(kit: Kit, act: str) -> None:
    server, client = kit.pair()
    client.get(server.url("/bytes/1"))
    client.close()
    acts: dict[str, Any] = {
        "submit": lambda: client.submit("GET", server.url()),
        "get": lambda: client.get(server.url()),
        "stream": lambda: client.stream("GET", server.url()).__enter__(),
        "map": lambda: list(client.map([server.url()])),
        "prewarm": lambda: client.pool.prewarm(server.origin),
    }
    error = raised(hyperpool.PoolClosed, acts[act])
    assert (error.processed, error.origin) == ("no", server.origin)


def test_close_may_be_called_twice_and_by_many_threads_at_once(kit: Kit) -> None:
    server, client = kit.pair()
    client.get(server.url("/bytes/1"))
    threads = kit.threads(8)
    for closing in [threads.submit(client.close) for _ in range(16)]:
        closing.result(WAIT_S)
    client.close()
    assert client.pool.closed and our_threads() == []


def test_close_from_a_done_callback_returns_at_once_and_ends_the_rest(kit: Kit, wire: Wire) -> None:
    gate = kit.gate()
    server, client = kit.pair(wire)
    server.route("/gated")(lambda request: (opened(gate), "ok")[1])
    never = client.submit("GET", server.url("/fault/silence"))
    first = client.submit("GET", server.url("/gated"))
    assert server.wait_until(lambda server: len(server.requests) == 2, WAIT_S)
    closed: Future[None] = Future()
    first.add_done_callback(lambda _: closed.set_result(client.close(grace_s=0)))
    gate.set()
    assert first.result(WAIT_S).text == "ok"
    closed.result(WAIT_S)
    error_of(never, hyperpool.PoolClosed)
    client.close()
    assert our_threads() == []


def test_requests_that_race_with_close_are_answered_or_get_pool_closed(kit: Kit, wire: Wire) -> None:
    server, client = kit.pair(wire)
    started = threading.Barrier(9, timeout=WAIT_S)

    def load() -> set[type]:
        kinds: set[type] = set()
        started.wait()
        for _ in range(50):
            try:
                assert client.get(server.url("/bytes/100")).content == pattern(100)
            except hyperpool.HyperpoolError as error:
                kinds.add(type(error))
        return kinds

    threads = kit.threads(8)
    done = [threads.submit(load) for _ in range(8)]
    started.wait()
    client.close(grace_s=0)
    assert set().union(*(future.result(WAIT_S) for future in done)) <= {hyperpool.PoolClosed}
    assert our_threads() == []


def test_an_idle_origin_loses_its_thread_and_gets_a_new_one_when_it_is_needed(kit: Kit, wire: Wire) -> None:
    server = kit.server(wire)
    client = kit.client(wire, limits=hyperpool.Limits(idle_s=0.05))
    for _ in range(3):
        assert client.get(server.url("/bytes/1")).status_code == 200
        assert server.wait_until(lambda server: server.connections_open == 0, WAIT_S)
        for thread in threading.enumerate():
            if thread.name == f"hyperpool {server.origin}":
                thread.join(WAIT_S)
        # A thread that is just ending may be in no list any more, and alive for a moment yet.
        assert eventually(lambda: client.pool.stats().threads == 0)


# -- forgotten things ------------------------------------------------------------------------------------------------


def test_a_forgotten_streamed_response_warns_with_the_line_that_made_it_and_frees_its_slot(
    kit: Kit, h2_wire: Wire
) -> None:
    server = kit.server(h2_wire)
    limits = hyperpool.Limits(max_connections_per_origin=1, max_streams_per_connection=1)
    client = kit.client(h2_wire, limits=limits)

    def forget() -> int:
        client.submit("GET", server.url("/bytes/50000000"), stream=True).result(WAIT_S)
        line = sys._getframe().f_lineno - 1
        # The last reference may be the loop's, for a moment; it warns before it resets.
        assert server.wait_until(lambda server: server.requests[0].reset_code == 8, WAIT_S)
        return line

    with pytest.warns(ResourceWarning, match="forgotten") as caught:
        line = forget()
    assert f"{__file__}:{line}" in str(caught[0].message)
    assert client.get(server.url("/bytes/1")).content == pattern(1)


def test_a_forgotten_http1_response_closes_its_socket(kit: Kit, h1_wire: Wire) -> None:
    server, client = kit.pair(h1_wire)

    def forget() -> bool:
        client.submit("GET", server.url("/bytes/50000000"), stream=True).result(WAIT_S)
        return server.wait_until(lambda server: server.connections_open == 0, WAIT_S)

    with pytest.warns(ResourceWarning, match="forgotten"):
        assert forget()


def test_a_streamed_response_that_was_read_to_its_end_may_be_forgotten(kit: Kit, wire: Wire) -> None:
    server, client = kit.pair(wire)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        response = client.submit("GET", server.url("/bytes/100000"), stream=True).result(WAIT_S)
        assert response.read() == pattern(100_000)
        del response
        gc.collect()


def test_a_client_that_its_owner_gave_a_method_is_forgotten_with_it() -> None:
    class Program:
        def __init__(self) -> None:
            self.client = hyperpool.Client(resolver=self.resolve, events=self)

        def resolve(self, host: str, port: int) -> list[str]:
            return ["127.0.0.1"]

        def request(self, request: Any) -> None:
            """It is told of requests."""

    program = Program()
    forgotten = weakref.ref(program)
    del program
    gc.collect()
    assert forgotten() is None


@pytest.mark.parametrize("given", ["resolver", "events", "both"])
def test_so_it_is_while_its_connection_is_open_and_that_ends(kit: Kit, given: str) -> None:
    class Program:
        def __init__(self) -> None:
            options = {"resolver": self.resolve, "events": self}
            kept = options if given == "both" else {given: options[given]}
            self.client = hyperpool.Client(verify=AUTHORITY.ca_pem, trust_env=False, **kept)  # type: ignore[arg-type]

        def resolve(self, host: str, port: int) -> list[str]:
            return ["127.0.0.1"]

        def connection_opened(self, info: Any) -> None:
            """It is told of connections."""

    server, program = kit.server(), Program()
    assert program.client.get(server.url("/bytes/1")).ok
    loops = list(program.client.pool._loops._threads)
    assert len(loops) == 1
    forgotten = weakref.ref(program)
    del program
    # The loop, who has dialled and who has resolved may be on their way out of what they have called yet.
    assert eventually(lambda: gc.collect() >= 0 and forgotten() is None)
    loops[0].join(WAIT_S)
    assert not loops[0].is_alive()


def test_a_forgotten_client_ends_its_threads_and_sockets(kit: Kit, wire: Wire) -> None:
    server = kit.server(wire)
    verify = AUTHORITY.ca_pem if wire.tls else True
    client = hyperpool.Client(verify=verify, **wire.client_options)
    client.get(server.url("/bytes/1"))
    threads = [thread for thread in threading.enumerate() if thread.name == f"hyperpool {server.origin}"]
    forgotten = weakref.ref(client)
    del client
    # The loop may be on its way to its next turn yet, with what it has settled in its hands.
    assert eventually(lambda: gc.collect() >= 0 and forgotten() is None)
    for thread in threads:
        thread.join(WAIT_S)
    assert server.wait_until(lambda server: server.connections_open == 0, WAIT_S)
    assert our_threads() == []


def test_a_forgotten_future_is_answered_nevertheless(kit: Kit, wire: Wire) -> None:
    server, client = kit.pair(wire)
    done = threading.Event()
    client.submit("GET", server.url("/bytes/1")).add_done_callback(lambda _: done.set())
    gc.collect()
    assert done.wait(WAIT_S)


# -- programs --------------------------------------------------------------------------------------------------------

PRELUDE = """
import os, signal, sys, threading
import hyperpool
origin, ca = sys.argv[1:]
client = hyperpool.Client(verify=ca if origin.startswith("https") else True)
"""

PROGRAMS = {
    "one request": """
        assert client.get(origin + "/bytes/3").status_code == 200
    """,
    "a client that is never used": """
        pass
    """,
    "a stream that is open": """
        response = client.submit("GET", origin + "/bytes/100000000", stream=True).result()
        assert len(response.read(10)) == 10
    """,
    "requests that are never answered": """
        futures = [client.submit("GET", origin + "/fault/silence") for _ in range(10)]
        assert client.get(origin + "/bytes/3").status_code == 200
    """,
    "requests of daemon threads": """
        def work():
            while True:
                client.get(origin + "/bytes/1000")
        for _ in range(16):
            threading.Thread(target=work, daemon=True).start()
        for _ in range(20):
            client.get(origin + "/bytes/3")
    """,
    "a request of another thread": """
        thread = threading.Thread(target=lambda: client.get(origin + "/bytes/3"))
        thread.start()
        # Before 3.12.2 no thread starts once the main thread has ended, ours neither.
        if (3, 12) <= sys.version_info[:3] < (3, 12, 2):
            thread.join()
    """,
    "an upload that is under way": """
        def endless():
            while True:
                yield bytes(65536)
        upload = client.submit("POST", origin + "/sha256", content=endless(), stream=True)
        assert client.get(origin + "/bytes/3").status_code == 200
    """,
    "a generator that blocks": """
        def blocking():
            yield b"x"
            threading.Event().wait()
        upload = client.submit("POST", origin + "/sha256", content=blocking())
        assert client.get(origin + "/bytes/3").status_code == 200
    """,
    "a dial that is under way": """
        import socket
        listener = socket.create_server(("127.0.0.1", 0))
        client.submit("GET", "https://127.0.0.1:%d/" % listener.getsockname()[1])
        accepted = listener.accept()
        import warnings; warnings.simplefilter("ignore", ResourceWarning)  # of the listener here
    """,
    "a name that is being resolved": """
        import socket
        asked = threading.Event()
        def slow(*args, **kwargs):
            asked.set()
            threading.Event().wait()
        socket.getaddrinfo = slow
        future = client.submit("GET", "http://slow.invalid/")
        assert asked.wait(30)
    """,
    "the default client": """
        if origin.startswith("http:"):
            assert hyperpool.get(origin + "/bytes/3").status_code == 200
    """,
    "a done-callback that raises SystemExit": """
        import logging; logging.disable()
        added, done = threading.Event(), threading.Event()
        def callback(future):
            done.set()
            raise SystemExit(7)
        def body():
            added.wait(30)  # one that is added to a Future that is done runs, and raises, in this thread
            yield b"body"
        future = client.submit("POST", origin + "/echo", content=body())
        future.add_done_callback(callback)
        added.set()
        done.wait(30)
    """,
    "a request in an atexit function": """
        import atexit
        def last():
            assert client.get(origin + "/bytes/3").status_code == 200
        atexit.register(last)
        client.get(origin + "/bytes/3")
    """,
}


# Each costs half a second; the others do not depend on the version.
BOTH_WIRES = ("one request", "a stream that is open", "requests that are never answered", "the default client")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "wire"),
    [*((name, H2_TLS) for name in PROGRAMS), *((name, H1_PLAIN) for name in BOTH_WIRES)],
    ids=str,
)
def test_a_program_that_forgets_to_close_exits_with_status_0_and_says_nothing(
    kit: Kit, tmp_path: Path, wire: Wire, name: str
) -> None:
    server = kit.server(wire, errors_expected=True)
    ca = tmp_path / "ca.pem"
    ca.write_bytes(AUTHORITY.ca_pem)
    done = run_program(tmp_path, PRELUDE + textwrap.dedent(PROGRAMS[name]), server.origin, str(ca))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.slow
@pytest.mark.parametrize("wire", [H2_TLS, H1_PLAIN], ids=str)
@pytest.mark.parametrize(
    "waiting",
    [
        'client.get(origin + "/fault/silence")',
        'with client.stream("GET", origin + "/fault/silence"): pass',
        'list(client.map([origin + "/fault/silence"] * 3))',
        'list(client.map([origin + "/fault/silence"] * 3, ordered=True))',
    ],
    ids=["get", "stream", "map", "ordered map"],
)
def test_ctrl_c_in_a_waiting_main_thread_cancels_the_request(
    kit: Kit, tmp_path: Path, wire: Wire, waiting: str
) -> None:
    server = kit.server(wire, errors_expected=True)
    ca = tmp_path / "ca.pem"
    ca.write_bytes(AUTHORITY.ca_pem)
    program = WAITING_PRELUDE + textwrap.dedent(f"""
        def interrupt():
            sys.stdin.readline()
            waiting(threading.main_thread(), "result", "_take_done")
            os.kill(os.getpid(), signal.SIGINT)
        threading.Thread(target=interrupt).start()
        try:
            {waiting}
        except KeyboardInterrupt:
            print("interrupted", flush=True)
        sys.stdin.readline()
    """)
    (tmp_path / "program.py").write_text(program)
    command = [sys.executable, "-W", "error", str(tmp_path / "program.py"), server.origin, str(ca)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as process:
        try:
            assert process.stdin is not None and process.stdout is not None
            expected = 3 if "map" in waiting else 1
            assert server.wait_until(lambda server: len(server.requests) == expected, WAIT_S)
            print("now", file=process.stdin, flush=True)
            assert process.stdout.readline() == "interrupted\n"
            # While the program lives on, nothing of its requests may.
            if wire.http2:
                assert server.wait_until(lambda server: all(one.reset_code == 8 for one in server.requests), WAIT_S)
            else:
                assert server.wait_until(lambda server: server.connections_open == 0, WAIT_S)
            _, stderr = process.communicate("end\n", timeout=WAIT_S)
            assert (process.returncode, stderr) == (0, "")
        finally:
            process.kill()


FORKS = {
    "a client that has been used": """
        client.get(origin + "/bytes/3")
    """,
    "requests under way": """
        futures = [client.submit("GET", origin + "/fault/silence") for _ in range(5)]
        client.get(origin + "/bytes/3")
    """,
    "an open stream": """
        response = client.submit("GET", origin + "/bytes/10000000", stream=True).result()
        response.read(10)
    """,
}


@pytest.mark.slow
@pytest.mark.parametrize("name", FORKS)
@pytest.mark.parametrize("wire", [H2_TLS, H1_PLAIN], ids=str)
def test_a_forked_child_starts_anew_and_the_parent_is_undisturbed(
    kit: Kit, tmp_path: Path, wire: Wire, name: str
) -> None:
    server = kit.server(wire, errors_expected=True)
    ca = tmp_path / "ca.pem"
    ca.write_bytes(AUTHORITY.ca_pem)
    program = (
        PRELUDE
        + "import warnings; warnings.simplefilter('ignore', DeprecationWarning)\n"
        + textwrap.dedent(FORKS[name])
        + textwrap.dedent("""
        child = os.fork()
        if child == 0:
            assert client.pool.stats().threads == 0
            assert len(client.get(origin + "/bytes/1000").content) == 1000
            assert [len(r.content) for r in client.map([origin + "/bytes/5"] * 20)] == [5] * 20
            client.close()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        assert len(client.get(origin + "/bytes/1000").content) == 1000
        if "response" in globals():
            assert len(response.read()) == 10_000_000 - 10
        """)
    )
    done = run_program(tmp_path, program, server.origin, str(ca))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.slow
def test_a_child_that_was_forked_while_a_lock_was_held_does_not_wait_for_it(kit: Kit, tmp_path: Path) -> None:
    server = kit.server(H1_PLAIN)
    program = """
        import os, sys, threading, warnings
        warnings.simplefilter("ignore", DeprecationWarning)
        import hyperpool, hyperpool.default
        from hyperpool.engine import trust
        held, done = threading.Event(), threading.Event()
        def hold():
            # What another thread may be doing in the moment of the fork.
            with hyperpool.default._lock, trust._alpn_lock:
                held.set()
                done.wait()
        threading.Thread(target=hold, daemon=True).start()
        held.wait()
        child = os.fork()
        if child == 0:
            assert hyperpool.get(sys.argv[1] + "/bytes/3").status_code == 200
            assert trust._alpn_lock.acquire(blocking=False)
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        done.set()
    """
    done = run_program(tmp_path, textwrap.dedent(program), server.origin)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.slow
def test_a_child_may_close_its_parents_streamed_response(kit: Kit, tmp_path: Path) -> None:
    server = kit.server(H2_TLS)
    ca = tmp_path / "ca.pem"
    ca.write_bytes(AUTHORITY.ca_pem)
    program = PRELUDE + textwrap.dedent("""
        import warnings
        warnings.simplefilter("ignore", DeprecationWarning)
        with client.stream("GET", origin + "/bytes/10000000") as response:
            response.read(10)
            child = os.fork()
            if child:
                assert os.waitpid(child, 0)[1] == 0
                assert len(response.read()) == 10_000_000 - 10
        if not child:
            client.close()
            os._exit(0)
    """)
    done = run_program(tmp_path, program, server.origin, str(ca))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_importing_hyperpool_starts_no_thread_and_opens_no_socket(tmp_path: Path) -> None:
    program = """
        import os, sys, threading
        before = set(os.listdir("/proc/self/fd"))
        import hyperpool
        hyperpool.Client()
        assert threading.active_count() == 1
        assert set(os.listdir("/proc/self/fd")) == before
        # The first request loads them.
        assert not {"h2", "h11", "OpenSSL", "ssl", "urllib3", "certifi"} & set(sys.modules)
    """
    done = run_program(tmp_path, textwrap.dedent(program))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_cancelled_future_keeps_no_thread_after_close(kit: Kit, wire: Wire) -> None:
    server, client = kit.pair(wire)
    futures = [client.submit("GET", server.url("/fault/silence")) for _ in range(10)]
    for future in futures:
        future.cancel()
    client.close(grace_s=WAIT_S)
    for future in futures:
        raised(CancelledError, future.result)
    assert our_threads() == []


def test_a_peer_that_reads_nothing_does_not_hold_up_close(kit: Kit) -> None:
    gate = kit.gate()

    def script(connection: ScriptedConnection) -> None:
        connection.greet(INITIAL_WINDOW_SIZE=2**31 - 1)
        connection.window_update(0, 2**30)
        opened(gate)

    peer = kit.peer(script)
    client = kit.client()
    future = client.submit("POST", peer.url(), content=bytes(64 << 20), timeout=hyperpool.Timeout(write=0.2))
    error_of(future, hyperpool.WriteTimeout)
    client.close(grace_s=0)
    assert our_threads() == []
    gate.set()
