"""A forked child starts anew, waits for nothing that only its parent can finish, and disturbs the parent in nothing.

RELIABILITY X1. Each test is a program in an interpreter of its own, which forks; the server is here, and keeps count.
"""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
from client_support import H1_PLAIN, H2_PLAIN, H2_TLS, Kit, Wire, run_program

from hyperpool.testing import Reply
from stage import AUTHORITY, WAIT_S, opened

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork"),
]

PRELUDE = """
import faulthandler, os, signal, sys, threading, time, warnings
warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns of every fork with threads
faulthandler.register(signal.SIGALRM, chain=True)  # what hangs says where, and dies
signal.alarm(75)
import asyncio, concurrent.futures as cf
import hyperpool
origin, ca, http2 = sys.argv[1], sys.argv[2], sys.argv[3] == "True"
client = hyperpool.Client(verify=ca if origin.startswith("https") else True, http1=not http2, http2=http2)

def get(path, **options):
    return client.submit("GET", origin + path, **options)

def release(one=""):
    # Lets the server answer what it has held so far: requests that are under way at a fork stay so until then.
    assert get("/release" + one).result().ok

async def awaited(future):
    return await asyncio.wrap_future(future)

def in_child(act):
    # Runs act in a forked child; its status. What it raises is printed, and makes the test fail.
    child = os.fork()
    if child == 0:
        signal.alarm(60)
        status = 1
        try:
            act()
            status = 0
        except BaseException:
            import traceback
            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

def lost(act):
    try:
        got = act()
    except hyperpool.ConnectionLost as error:
        assert "forked" in str(error) and error.processed == "maybe" and error.origin == origin, repr(error)
        return True
    raise AssertionError(f"the parent's answer came to the child: {got!r}")
"""


def forks(kit: Kit, folder: Path, program: str, *, wire: Wire = H2_TLS, server: Any = None) -> Any:
    """Run the program; the server that it talked to. It must exit with 0 and say nothing."""
    server = server or kit.server(wire)
    for one in ("", "/alone"):
        released = kit.gate()
        server.route("/held" + one)(lambda _, gate=released: (opened(gate), Reply(200, (), b"held"))[1])
        server.route("/release" + one)(lambda _, gate=released: (gate.set(), Reply(200))[1])
    ca = folder / "ca.pem"
    ca.write_bytes(AUTHORITY.ca_pem)
    text = PRELUDE + textwrap.dedent(program)
    done = run_program(folder, text, server.origin, str(ca), str(wire.http2))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", ""), done.stdout + done.stderr
    return server


both = pytest.mark.parametrize("wire", [H2_TLS, H1_PLAIN], ids=str)


# -- what came along is told, and the parent gets its answers ----------------------------------------------------------


WAITS = {
    "result": "assert lost(future.result)",
    "exception": "assert type(future.exception()) is hyperpool.ConnectionLost",
    "wait": "assert cf.wait([future]).done == {future}",
    "as_completed": "assert list(cf.as_completed([future])) == [future]",
    "cancel": "assert not future.cancel() and future.done()",
    "asyncio": "assert lost(lambda: asyncio.run(awaited(future)))",
}


@both
@pytest.mark.parametrize("name", WAITS)
def test_a_parents_future_fails_in_the_child_at_once_and_is_answered_in_the_parent(
    kit: Kit, tmp_path: Path, wire: Wire, name: str
) -> None:
    program = f"""
        future = get("/held")
        assert get("/bytes/3").result().content
        def act():
            {WAITS[name]}
        assert in_child(act) == 0
        release()
        assert future.result().status_code == 200
    """
    server = forks(kit, tmp_path, program, wire=wire)
    assert sorted(one.target for one in server.requests) == ["/bytes/3", "/held", "/release"]


def test_futures_that_wait_for_a_stream_fail_in_the_child_and_are_sent_once_by_the_parent(
    kit: Kit, tmp_path: Path
) -> None:
    program = """
        limits = hyperpool.Limits(max_connections_per_origin=1)
        client = hyperpool.Client(verify=ca, http1=False, limits=limits)
        assert get("/bytes/3").result().ok
        futures = [get("/held") for _ in range(10)]
        def act():
            late = cf.wait(futures).done
            assert len(late) == 10
            assert all(isinstance(one.exception(), hyperpool.ConnectionLost) for one in late)
        assert in_child(act) == 0
        # Over another connection: of this one the only stream is taken.
        assert hyperpool.Client(verify=ca).get(origin + "/release").ok
        assert [one.result().status_code for one in futures] == [200] * 10
    """
    server = forks(kit, tmp_path, program, server=kit.server(H2_TLS, max_concurrent_streams=1))
    assert [one.target for one in server.requests].count("/held") == 10


def test_a_future_that_waits_for_a_dial_fails_in_the_child_and_the_dial_is_the_parents_alone(
    kit: Kit, tmp_path: Path
) -> None:
    program = """
        import socket
        from hyperpool.urls import parse_url
        listener = socket.create_server(("127.0.0.1", 0))
        origin = "https://127.0.0.1:%d" % listener.getsockname()[1]
        future, connected = get("/"), client.pool.connect(client.pool.route(parse_url(origin).origin))
        accepted = listener.accept()[0]
        assert accepted.recv(1) == b"\\x16"
        to_child, from_parent = os.pipe(), os.pipe()
        child = os.fork()
        if child == 0:
            assert lost(future.result) and lost(connected.result)
            os.write(to_child[1], b"x")
            os.read(from_parent[0], 1)
            os._exit(0)
        os.read(to_child[0], 1)
        client.close(grace_s=0)
        # The child lives: if it had kept a copy of the socket, this would wait for it.
        accepted.settimeout(30)
        while accepted.recv(65536):
            pass
        os.write(from_parent[1], b"x")
        assert os.waitpid(child, 0)[1] == 0
        listener.close(), accepted.close()
        assert isinstance(future.exception(), hyperpool.PoolClosed)
    """
    forks(kit, tmp_path, program)


@both
def test_a_parents_connection_ends_with_the_parents_close_although_a_child_lives_on(
    kit: Kit, tmp_path: Path, wire: Wire
) -> None:
    program = """
        get("/bytes/3").result()
        go_on = os.pipe()
        child = os.fork()
        if child == 0:
            os.read(go_on[0], 1)
            os._exit(0)
        client.close()
        assert hyperpool.Client(verify=ca if ca else True).get(origin + "/closed").content == b"True"
        os.write(go_on[1], b"x")
        assert os.waitpid(child, 0)[1] == 0
    """
    if not wire.tls:
        program = program.replace("verify=ca if ca else True", "")

    def answer(request: Any) -> Reply:
        if request.path != "/closed":
            return Reply(200, (), b"abc")
        # The one that asks is open: the first must not be.
        return Reply(200, (), str(server.wait_until(lambda server: server.connections_open == 1, 10)).encode())

    server = kit.server(wire, answer)
    forks(kit, tmp_path, program, wire=wire, server=server)


@both
def test_a_streamed_response_gives_the_child_what_is_here_then_an_error_and_the_parent_all(
    kit: Kit, tmp_path: Path, wire: Wire
) -> None:
    program = """
        from hyperpool.testing import pattern
        response = get("/bytes/10000000", stream=True).result()
        first = response.read(1000)
        def act():
            came = []
            assert lost(lambda: came.extend(response.iter_raw()))
            response.close()
        assert in_child(act) == 0
        assert first + response.read() == pattern(10_000_000)
    """
    server = forks(kit, tmp_path, program, wire=wire)
    assert [(one.target, one.reset_code) for one in server.requests] == [("/bytes/10000000", None)]


@both
@pytest.mark.parametrize("ends", ["os._exit(0)", "sys.exit(0)"])
def test_an_upload_under_way_reaches_the_server_whole_whatever_becomes_of_the_child(
    kit: Kit, tmp_path: Path, wire: Wire, ends: str
) -> None:
    program = f"""
        import hashlib
        started, forked = threading.Event(), threading.Event()
        def pieces():
            yield bytes(1 << 20)
            started.set()
            forked.wait(30)
            for n in range(20):
                yield bytes([n]) * 100_000
        future = client.submit("POST", origin + "/sha256", content=pieces())
        started.wait(30)
        child = os.fork()
        if child == 0:
            assert lost(future.result)
            {ends}
        assert os.waitpid(child, 0)[1] == 0
        forked.set()
        whole = bytes(1 << 20) + b"".join(bytes([n]) * 100_000 for n in range(20))
        assert future.result().json() == dict(sha256=hashlib.sha256(whole).hexdigest(), length=len(whole))
        client.close()
    """
    server = forks(kit, tmp_path, program, wire=wire)
    assert [one.body_bytes for one in server.requests] == [(1 << 20) + 2_000_000]


def test_who_feeds_a_body_by_hand_is_sent_home_in_the_child(kit: Kit, tmp_path: Path) -> None:
    program = """
        from hyperpool.handoff.source import FedSource
        fed = FedSource()
        future = client.submit("POST", origin + "/echo", content=fed)
        assert fed.feed(b"parent")
        def act():
            assert not fed.feed(bytes(1 << 20)) and not fed.feed(b"child")
            fed.finish()
            assert lost(future.result)
        assert in_child(act) == 0
        assert fed.feed(b" alone")
        fed.finish()
        assert future.result().content == b"parent alone"
    """
    forks(kit, tmp_path, program)


def test_a_done_callback_runs_in_the_parent_alone(kit: Kit, tmp_path: Path) -> None:
    program = """
        def again(future):
            os.write(ran[1], b"p" if os.getpid() == parent else b"c")
        ran, parent = os.pipe(), os.getpid()
        future = get("/held")
        future.add_done_callback(again)
        assert in_child(lambda: lost(future.result)) == 0
        release()
        future.result()
        client.close()
        assert os.read(ran[0], 10) == b"p"
    """
    forks(kit, tmp_path, program)


@both
def test_a_map_that_came_along_ends_with_the_error_and_goes_on_in_the_parent(
    kit: Kit, tmp_path: Path, wire: Wire
) -> None:
    program = """
        results = client.map([origin + "/bytes/3"] + [origin + "/held"] * 3)
        assert next(results).content
        def act():
            assert lost(lambda: list(results))
        assert in_child(act) == 0
        release()
        assert [one.status_code for one in results] == [200] * 3
    """
    assert len(forks(kit, tmp_path, program, wire=wire).requests) == 5


# -- the child's own ---------------------------------------------------------------------------------------------------


def test_a_child_that_is_forked_by_a_done_callback_may_wait_for_answers(kit: Kit, tmp_path: Path) -> None:
    """The callback runs on the I/O thread, which in the child is a thread like any other."""
    program = """
        statuses, done = [], threading.Event()
        def callback(_):
            statuses.append(in_child(lambda: client.get(origin + "/bytes/3").raise_for_status()))
            done.set()
        others = [get("/held") for _ in range(5)]
        get("/held/alone").add_done_callback(callback)
        release("/alone")  # not before: what is done already calls back at once, on this thread
        assert done.wait(30) and statuses == [0]
        release()
        assert [one.result().status_code for one in others] == [200] * 5
    """
    forks(kit, tmp_path, program)


def test_a_child_that_returns_from_a_done_callback_does_not_go_on_with_the_parents_connections(
    kit: Kit, tmp_path: Path
) -> None:
    program = """
        children, done = [], threading.Event()
        def callback(_):
            children.append(os.fork())
            done.set()
        others = [get("/held") for _ in range(5)]
        get("/held/alone").add_done_callback(callback)
        release("/alone")  # not before: what is done already calls back at once, on this thread
        assert done.wait(30)
        assert os.waitpid(children[0], 0)[1] == 0
        release()
        assert [one.result().status_code for one in others] == [200] * 5
    """
    assert len(forks(kit, tmp_path, program).requests) == 8


@both
def test_children_of_a_thread_make_requests_while_other_threads_make_requests(
    kit: Kit, tmp_path: Path, wire: Wire
) -> None:
    program = """
        stop = threading.Event()
        asked, failed = [], []
        def work():
            # The first of them import, dial and resolve while the first children are forked.
            while not stop.is_set():
                try:
                    assert client.get(origin + "/bytes/2000").status_code == 200
                    asked.append(1)
                    with client.stream("GET", origin + "/bytes/200000") as response:
                        response.read(10)
                    asked.append(1)
                except BaseException as error:
                    failed.append(error)
        workers = [threading.Thread(target=work) for _ in range(6)]
        def fork():
            for _ in range(20):
                assert in_child(lambda: client.get(origin + "/bytes/1000").raise_for_status()) == 0
        for worker in workers:
            worker.start()
        with cf.ThreadPoolExecutor(2) as forkers:
            done = [forkers.submit(fork) for _ in range(2)]
        stop.set()
        for worker in workers:
            worker.join()
        assert not failed, failed
        [one.result() for one in done]
        client.close()
    """
    forks(kit, tmp_path, program, wire=wire, server=kit.server(wire, errors_expected=True))


def test_a_child_that_is_forked_while_the_first_request_imports_can_make_one(kit: Kit, tmp_path: Path) -> None:
    """The interpreter would let its import wait for ever for the parent's thread."""
    program = """
        import importlib.abc, importlib.util
        began = threading.Event()
        class Slow(importlib.abc.MetaPathFinder):
            def find_spec(self, name, path, target=None):
                if name == "hyperpool.engine.http2" and not began.is_set():
                    began.set()
                    time.sleep(0.3)
        sys.meta_path.insert(0, Slow())
        threading.Thread(target=lambda: client.get(origin + "/bytes/3")).start()
        assert began.wait(30)
        assert in_child(lambda: client.get(origin + "/bytes/3").headers["content-length"]) == 0
    """
    forks(kit, tmp_path, program)


HELD = """
    from hyperpool import default
    from hyperpool.engine import trust
    from hyperpool.http_client import shared
    from hyperpool.urls import parse_url
    connection = hyperpool.HTTPConnection(origin.split("//")[1], secure=False)
    connection.request("GET", "/held")
    connection.request("GET", "/bytes/3")
    silent = get("/held")
    streamed = get("/bytes/10000000", stream=True).result()
    loops = client.pool._loops
    (loop, *_) = loops.alive()
    pipe = streamed._leash.pipe
    dialler = loop._dials._dialer
    locks = [
        loops._lock, loops._workshop._lock, loops._workshop._resolver._lock, trust._alpn_lock, default._lock,
        loop.inbox._lock, silent._condition._lock, pipe._lock, dialler._tls_config._lock, dialler._cancel._lock,
        shared._lock, connection._lock, connection._session.calls._lock,
    ]
    held, go_on = threading.Event(), threading.Event()
    def hold():
        # What other threads may be doing in the moment of the fork.
        import contextlib
        with contextlib.ExitStack() as stack:
            for lock in locks:
                stack.enter_context(lock)
            held.set()
            go_on.wait(30)
    threading.Thread(target=hold, daemon=True).start()
    held.wait(30)
"""

USES = {
    "the client": "assert client.get(origin + '/bytes/3').content and client.pool.stats(); client.close()",
    "the default client": "assert hyperpool.get(origin + '/bytes/3').content",
    "a future": "assert lost(silent.result)",
    "a response": "assert lost(lambda: list(streamed.iter_raw())); streamed.close()",
    "hyper's object": """
            import contextlib
            for stream_id in (1, 3):
                with contextlib.suppress(hyperpool.ConnectionLost):
                    connection.get_response(stream_id)
            # Without an id where a slow server was not offered HTTP/2 again.
            asked = connection.request("GET", "/bytes/3")
            assert len(connection.get_response(asked).read()) == 3
            connection.close()""",
    "an http_client object": """
            from hyperpool import http_client
            one = http_client.HTTPConnection(origin.split("//")[1])
            one.request("GET", "/bytes/3")
            assert len(one.getresponse().read()) == 3
            one.close()""",
}


@pytest.mark.parametrize("name", USES)
def test_no_lock_that_was_held_at_the_fork_holds_up_the_child(kit: Kit, tmp_path: Path, name: str) -> None:
    program = textwrap.dedent(HELD) + textwrap.dedent(f"""
        def act():
            {USES[name].strip()}
        status = in_child(act)
        go_on.set()
        assert status == 0
        release()
        assert silent.result().status_code == 200
        assert len(streamed.read()) == 10_000_000
        assert connection.get_response(1).status == 200
        connection.close()
        client.close()
    """)
    forks(kit, tmp_path, program, wire=H1_PLAIN, server=kit.server(H2_PLAIN))


# -- the other faces ---------------------------------------------------------------------------------------------------


FACES = {
    "http_client": """
        from hyperpool import http_client
        def make():
            return http_client.HTTPSConnection(origin.split("//")[1], context=context)
        def ask(one, path):
            one.request("GET", path)
        def answer(one):
            return one.getresponse().read()
    """,
    "hyper": """
        def make():
            return hyperpool.HTTPConnection(origin.split("//")[1], secure=True, ssl_context=context)
        def ask(one, path):
            one.request("GET", path)
        def answer(one):
            return one.get_response().read()
    """,
}


@pytest.mark.parametrize("name", FACES)
def test_a_connection_object_with_a_request_under_way_is_told_in_the_child_and_can_be_used_anew(
    kit: Kit, tmp_path: Path, name: str
) -> None:
    program = (
        """
        import ssl
        context = ssl.create_default_context(cafile=ca)
        """
        + FACES[name]
        + """
        one = make()
        ask(one, "/bytes/3")
        assert len(answer(one)) == 3
        ask(one, "/held")
        def act():
            try:
                answer(one)
            except (hyperpool.HyperpoolError, ConnectionError) as error:
                assert "forked" in str(error), repr(error)
            else:
                raise AssertionError
            one.close()
            ask(one, "/bytes/4")
            assert len(answer(one)) == 4
            other = make()
            ask(other, "/bytes/5")
            assert len(answer(other)) == 5
            one.close(), other.close()
        assert in_child(act) == 0
        release()
        assert answer(one)
        one.close()
        """
    )
    server = forks(kit, tmp_path, program)
    assert sorted(one.target for one in server.requests) == ["/bytes/3", "/bytes/4", "/bytes/5", "/held", "/release"]


def test_urllib3s_face_is_used_by_parent_and_child(kit: Kit, tmp_path: Path) -> None:
    program = """
        from hyperpool.contrib.urllib3 import PoolManager
        manager = PoolManager(ca_certs=ca)
        assert len(manager.request("GET", origin + "/bytes/3").data) == 3
        streamed = manager.request("GET", origin + "/bytes/1000000", preload_content=False)
        def act():
            assert len(manager.request("GET", origin + "/bytes/4").data) == 4
            manager.clear()
        assert in_child(act) == 0
        assert len(streamed.read()) == 1_000_000
        assert len(manager.request("GET", origin + "/bytes/5").data) == 5
        manager.clear()
    """
    forks(kit, tmp_path, program)


# -- those who fork for others -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_the_processes_of_multiprocessing_share_a_global_client_by_name_alone(
    kit: Kit, tmp_path: Path, method: str
) -> None:
    (tmp_path / "work.py").write_text(
        textwrap.dedent("""
        import warnings
        warnings.simplefilter("ignore", DeprecationWarning)
        import hyperpool
        client = None
        def fetch(argument):
            global client
            origin, ca, n = argument
            client = client or hyperpool.Client(verify=ca)
            return len(client.get(f"{origin}/bytes/{n}").content)
        """)
    )
    program = f"""
        import multiprocessing
        from concurrent.futures import ProcessPoolExecutor
        sys.path.insert(0, {str(tmp_path)!r})
        import work
        if __name__ == "__main__":
            jobs = [(origin, ca, n) for n in range(1, 9)]
            assert [work.fetch(job) for job in jobs] == list(range(1, 9))
            context = multiprocessing.get_context({method!r})
            with context.Pool(2) as pool:
                assert pool.map(work.fetch, jobs) == list(range(1, 9))
            with ProcessPoolExecutor(2, mp_context=context) as executor:
                assert list(executor.map(work.fetch, jobs)) == list(range(1, 9))
            assert work.fetch(jobs[0]) == 1
    """
    forks(kit, tmp_path, program)


def _gunicorn() -> str | None:
    """An interpreter that has gunicorn: this one, or the one that HYPERPOOL_GUNICORN_PYTHON names."""
    python = os.environ.get("HYPERPOOL_GUNICORN_PYTHON", sys.executable)
    found = subprocess.run([python, "-c", "import gunicorn, h2, h11"], capture_output=True, check=False)
    return python if found.returncode == 0 else None


APP = """
import os, sys
import hyperpool
origin, ca = os.environ["APP_ORIGIN"], os.environ["APP_CA"]
client = hyperpool.Client(verify=ca)
client.get(origin + "/bytes/1")  # the parent has a connection, and threads, when it forks
pending = client.submit("GET", origin + "/fault/silence")

def app(environ, start_response):
    n = int(environ["PATH_INFO"].strip("/"))
    body = client.get(f"{origin}/bytes/{n}").content
    start_response("200 OK", [("Content-Length", str(len(body))), ("X-Pid", str(os.getpid()))])
    return [body]
"""


def test_gunicorns_preloaded_workers_share_a_global_client_by_name_alone(kit: Kit, tmp_path: Path) -> None:
    python = _gunicorn()
    if python is None:
        pytest.skip("gunicorn is not installed (nor in HYPERPOOL_GUNICORN_PYTHON)")
    server, client = kit.server(H2_TLS, errors_expected=True), kit.client(H1_PLAIN, timeout=WAIT_S)
    (tmp_path / "app.py").write_text(APP)
    ca = tmp_path / "ca.pem"
    ca.write_bytes(AUTHORITY.ca_pem)
    options = ["--preload", "-w", "2", "-k", "gthread", "--threads", "8", "-b", "127.0.0.1:0"]
    # What is idle stays open: a slow machine would have it closed under a request, or under its repetition too.
    options += ["--keep-alive", "60", "--graceful-timeout", "2", "--no-control-socket"]
    command = [python, "-m", "gunicorn", *options, "app:app"]
    environment = {**os.environ, "APP_ORIGIN": server.origin, "APP_CA": str(ca)}
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            lines = iter(process.stderr.readline, "")
            said = []
            where = ""
            for line in lines:
                said.append(line)
                if "Listening at" in line:
                    where = line.split("Listening at: ")[1].split()[0]
                    break
            assert where, "".join(said)
            urls = [f"{where}/{n}" for n in range(1, 401)]
            got = list(client.map(urls, max_in_flight=32, ordered=True))
            assert [len(one.content) for one in got] == list(range(1, 401))
            assert len({one.headers["x-pid"] for one in got}) >= 1
            # One connection of the parent, and a few of each worker.
            assert server.connections_accepted <= 1 + 2 * 8
            process.terminate()
            _, rest = process.communicate(timeout=WAIT_S)
            assert process.returncode == 0
            assert "Traceback" not in rest, rest
        finally:
            process.kill()
