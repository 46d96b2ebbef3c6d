"""The end of a program in each state that a request can be in, Ctrl-C at each place where a thread waits, and threads
that die with something in their hands.

RELIABILITY X2 to X6, and the row "process" of its table. Each test is a program in an interpreter of its own.
"""

from __future__ import annotations

import subprocess
import textwrap
from pathlib import Path
from typing import Any

import pytest
from client_support import H1_PLAIN, H2_TLS, Kit, Wire
from test_process_exit import runs

from hyperpool import process
from hyperpool.testing import Reply
from stage import opened

pytestmark = pytest.mark.slow

both = pytest.mark.parametrize("wire", [H2_TLS, H1_PLAIN], ids=str)

# -- exits -------------------------------------------------------------------------------------------------------------

# What is going on when the program ends: `begin` does it, and returns a Future that is not done, or None.
STATES = {
    "idle": """
        def begin():
            assert client.get(origin + "/bytes/3").ok
    """,
    "dialling": """
        import socket, warnings
        warnings.simplefilter("ignore", ResourceWarning)  # of the listener here
        listener = socket.create_server(("127.0.0.1", 0))
        accepted = []
        def begin():
            future = client.submit("GET", "https://127.0.0.1:%d/" % listener.getsockname()[1])
            accepted.append(listener.accept()[0])
            accepted[0].recv(1)
            return future
    """,
    "in flight": """
        def begin():
            future = client.submit("GET", origin + "/fault/silence")
            assert client.get(origin + "/bytes/3").ok
            return future
    """,
    "uploading": """
        started = threading.Event()
        def pieces():
            while True:
                yield bytes(1 << 16)
                started.set()
        def begin():
            future = client.submit("POST", origin + "/sha256", content=pieces())
            started.wait(30)
            return future
    """,
    "queued": """
        limits = hyperpool.Limits(max_connections_per_origin=1, max_http1_connections_per_origin=1,
            max_streams_per_connection=1)
        client = hyperpool.Client(verify=client.pool._tls.verify, limits=limits)
        def begin():
            first = client.submit("GET", origin + "/fault/silence")
            second = client.submit("GET", origin + "/bytes/3")
            while not client.pool.stats().queued:
                pass
            return second
    """,
    "in a done-callback": """
        added, inside = threading.Event(), threading.Event()
        def callback(_):
            inside.set()
            threading.Event().wait()
        def body():
            added.wait(30)  # one that is added to a Future that is done runs, and stays, in the thread that adds it
            yield b"body"
        def begin():
            client.submit("POST", origin + "/echo", content=body()).add_done_callback(callback)
            added.set()
            inside.wait(30)
            return client.submit("GET", origin + "/bytes/4")
    """,
}

# Whose it is: nobody waits for it, or a daemon thread stands in `Future.result` when the interpreter goes.
HOLDERS = {
    "nobody's": """
        begin()
    """,
    "a daemon thread's": """
        begun = threading.Event()
        def work():
            future = begin()
            begun.set()
            if future is not None:
                future.result()
            threading.Event().wait()
        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        begun.wait(30)
        waiting(thread, "wait", "result")
    """,
}


@both
@pytest.mark.parametrize("holder", HOLDERS)
@pytest.mark.parametrize("state", STATES)
def test_a_program_may_end_whatever_is_going_on(kit: Kit, tmp_path: Path, wire: Wire, state: str, holder: str) -> None:
    _, done = runs(kit, tmp_path, wire, textwrap.dedent(STATES[state]) + textwrap.dedent(HOLDERS[holder]))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", ""), done.stderr


def test_an_exit_waits_for_answers_for_a_moment_only() -> None:
    """With it, every program above ends within two seconds: an interpreter's own end takes a few tenths."""
    assert process._EXIT_GRACE_S <= 1.0


# -- Ctrl-C ------------------------------------------------------------------------------------------------------------

# Where the main thread waits when it is interrupted; `endless` is a streamed response of which no more will come.
WAITS = {
    "Future.result": "client.submit('GET', origin + '/fault/silence').result()",
    "get": "client.get(origin + '/fault/silence')",
    "response.read": "endless().read()",
    "iter_bytes": "for _ in endless().iter_bytes(): pass",
    "a stream slot": """
        limits = hyperpool.Limits(max_connections_per_origin=1, max_http1_connections_per_origin=1,
            max_streams_per_connection=1)
        with hyperpool.Client(verify=client.pool._tls.verify, limits=limits) as narrow:
            first = narrow.submit("GET", origin + "/fault/silence")
            try:
                narrow.get(origin + "/bytes/3")
            finally:
                assert not first.done()
                first.cancel()
                while narrow.pool.stats().queued or narrow.pool.stats().open_streams:
                    time.sleep(0.001)
    """,
    "room for an upload": """
        from hyperpool import http_client
        make = http_client.HTTPSConnection if origin.startswith("https") else http_client.HTTPConnection
        options = {"context": ssl.create_default_context(cafile=ca)} if origin.startswith("https") else {}
        one = make("127.0.0.1", int(origin.rpartition(":")[2]), **options)
        one.putrequest("POST", "/unread")
        one.putheader("Content-Length", str(1 << 30))
        one.endheaders()
        try:
            while True:
                one.send(bytes(1 << 20))
        finally:
            one.close()
    """,
}


def unread(kit: Kit, wire: Wire, folder: Path, program: str) -> subprocess.CompletedProcess[str]:
    """Run it with a server that reads no body of a request to /unread, and never ends a response of /endless."""
    gate = kit.gate()

    def never(request: Any) -> str:
        opened(gate)
        return "late"

    def endless(request: Any) -> Reply:
        def body() -> Any:
            yield b"a beginning"
            opened(gate)

        return Reply(200, body=body())

    _, done = runs(kit, folder, wire, program, routes={"/unread": never, "/endless": endless})
    return done


@both
@pytest.mark.parametrize("place", WAITS)
def test_ctrl_c_reaches_a_main_thread_wherever_it_waits(kit: Kit, tmp_path: Path, wire: Wire, place: str) -> None:
    program = f"""
        import ssl, time
        def endless():
            response = client.submit("GET", origin + "/endless", stream=True).result()
            assert response.read(11) == b"a beginning"
            responses.append(response)
            return response
        responses = []
        def interrupt():
            waiting(threading.main_thread(), "wait", "result")
            # Not while it prepares to wait: a place that it comes to again and again is one where it waits.
            time.sleep(0.3)
            waiting(threading.main_thread(), "wait", "result")
            os.kill(os.getpid(), signal.SIGINT)
        assert client.get(origin + "/bytes/3").ok
        thread = threading.Thread(target=interrupt)
        thread.start()
        try:
{textwrap.indent(textwrap.dedent(WAITS[place]), " " * 12)}
        except KeyboardInterrupt:
            pass
        else:
            raise AssertionError("it was not interrupted")
        thread.join()
        for response in responses:
            response.close()
        assert client.get(origin + "/bytes/4").ok
    """
    done = unread(kit, wire, tmp_path, program)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", ""), done.stderr


# -- threads that die --------------------------------------------------------------------------------------------------

# What a thread holds when it dies of an exception that nobody catches.
DEATHS = {
    "a response that it has not read": """
        response = client.submit("GET", origin + "/bytes/10000000", stream=True).result()
        response.read(10)
        raise SystemExit
    """,
    "a response that another thread's iterator reads": """
        response = client.submit("GET", origin + "/bytes/10000000", stream=True).result()
        for _ in response.iter_bytes():
            raise SystemExit
    """,
    "an upload that its generator ends": """
        def pieces():
            yield bytes(100_000)
            raise SystemExit
        client.post(origin + "/sha256", content=pieces())
    """,
    "an upload that it feeds by hand": """
        one = hyperpool.http_client.HTTPConnection("127.0.0.1", int(origin.rpartition(":")[2]))
        one.putrequest("POST", "/sha256")
        one.putheader("Content-Length", "1000000")
        one.endheaders()
        one.send(bytes(1000))
        raise SystemExit
    """,
    "a map that it has begun": """
        for _ in client.map([origin + "/bytes/3"] * 100, max_in_flight=3):
            raise SystemExit
    """,
    "a done-callback": """
        done = threading.Event()
        def callback(_):
            done.set()
            raise SystemExit
        client.submit("GET", origin + "/delay/0.1").add_done_callback(callback)
        done.wait(30)
        raise SystemExit
    """,
}


@pytest.mark.parametrize(
    ("name", "wire"),
    [(name, wire) for name in DEATHS for wire in (H2_TLS, H1_PLAIN) if wire is H1_PLAIN or "by hand" not in name],
    ids=str,
)
def test_a_thread_that_dies_takes_nothing_of_the_others_with_it(
    kit: Kit, tmp_path: Path, wire: Wire, name: str
) -> None:
    program = f"""
        import gc, time, warnings
        import hyperpool.http_client
        warnings.simplefilter("ignore", ResourceWarning)  # what is forgotten says so, rightly
        logging.disable()  # so does a callback that fails
        limits = hyperpool.Limits(max_connections_per_origin=1, max_http1_connections_per_origin=2,
            max_streams_per_connection=2)
        client = hyperpool.Client(verify=client.pool._tls.verify, limits=limits)
        other = client.submit("GET", origin + "/delay/0.5")
        def work():
{textwrap.indent(textwrap.dedent(DEATHS[name]), " " * 12)}
        thread = threading.Thread(target=work)
        thread.start()
        thread.join(30)
        assert not thread.is_alive()
        gc.collect()
        assert other.result().ok
        # Its slot is free: both are, at once.
        both = [client.submit("GET", origin + "/delay/0.05") for _ in range(2)]
        assert all(one.result(10).ok for one in both)
        while client.pool.stats().open_streams:
            time.sleep(0.001)
        client.close()
    """
    _, done = runs(kit, tmp_path, wire, program)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", ""), done.stderr
