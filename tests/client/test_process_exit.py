"""The interpreter ends at any moment: with its own status, silently, and with what was submitted delivered.

RELIABILITY X2, X3; see tests/client/test_client_endings.py for programs that merely forget to close. Each test is a
program in an interpreter of its own, in development mode.
"""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
from client_support import H1_PLAIN, H2_TLS, Kit, Wire

from hyperpool.testing import Reply
from stage import AUTHORITY, WAIT_S

pytestmark = pytest.mark.slow

PRELUDE = """
import ctypes, linecache, logging, os, signal, sys, threading
import hyperpool
origin, ca = sys.argv[1:]
client = hyperpool.Client(verify=ca if origin.startswith("https") else True)

class Stopped(BaseException):
    pass

def waiting(thread, *calls):
    # Until the thread stands in one of these calls, at the line in which it waits: what it is interrupted by there
    # reaches those who clean up.
    def inside(frame):
        line = "" if frame is None else linecache.getline(frame.f_code.co_filename, frame.f_lineno or 0)
        if "acquire(" not in line and ".get()" not in line:
            return False
        while frame is not None:
            if frame.f_code.co_name in calls:
                return True
            frame = frame.f_back
        return False
    while not inside(sys._current_frames().get(thread.ident)):
        pass
"""

both = pytest.mark.parametrize("wire", [H2_TLS, H1_PLAIN], ids=str)

# https://github.com/python/cpython/issues/113964
NO_THREADS_AT_THE_END = pytest.mark.skipif(
    (3, 12) <= sys.version_info[:3] < (3, 12, 2),
    reason="no thread starts once the main thread has ended, before 3.12.2",
)
# The ends in which one is needed.
STARTS_THREADS = {
    "sys.exit in another thread",
    "the end of main while another thread asks on",
    "an answer that is logged as the last thing",
}


def runs(
    kit: Kit, folder: Path, wire: Wire, program: str, *, routes: dict[str, Any] | None = None
) -> tuple[Any, subprocess.CompletedProcess[str]]:
    """Run the program; the server that it talked to, and how it ended."""
    server = kit.server(wire, errors_expected=True)
    for path, handler in (routes or {}).items():
        server.route(path)(handler)
    ca = folder / "ca.pem"
    ca.write_bytes(AUTHORITY.ca_pem)
    path = folder / "program.py"
    path.write_text(PRELUDE + textwrap.dedent(program))
    command = [sys.executable, "-X", "dev", "-W", "error", str(path), server.origin, str(ca)]
    return server, subprocess.run(command, capture_output=True, text=True, timeout=2 * WAIT_S, check=False)


# Each with the status of its end.
ENDS = {
    "sys.exit": (3, "future = client.submit('GET', origin + '/fault/silence'); sys.exit(3)"),
    "os._exit": (4, "future = client.submit('GET', origin + '/fault/silence'); os._exit(4)"),
    "os._exit in a done-callback": (
        5,
        """
        client.submit("GET", origin + "/bytes/3").add_done_callback(lambda _: os._exit(5))
        threading.Event().wait(75)  # never that long
        """,
    ),
    "SIGTERM": (-15, "client.get(origin + '/bytes/3'); os.kill(os.getpid(), signal.SIGTERM)"),
    "sys.exit in another thread": (
        0,
        """
        def work():
            client.get(origin + "/bytes/3")
            sys.exit(9)
        thread = threading.Thread(target=work)
        thread.start()
        """,
    ),
    "the end of main while another thread asks on": (
        0,
        """
        def work():
            threading.main_thread().join()
            for _ in range(20):
                assert client.get(origin + "/bytes/3").ok
        threading.Thread(target=work).start()
        """,
    ),
    "the end of main in the middle of a done-callback": (
        0,
        """
        inside = threading.Event()
        def callback(_):
            inside.set()
            threading.Event().wait(1)
        client.submit("GET", origin + "/bytes/3").add_done_callback(callback)
        inside.wait(30)
        """,
    ),
    "daemon threads that make clients while it ends": (
        0,
        """
        import warnings
        def work():
            while True:
                hyperpool.Client(pool=None)
        for _ in range(4):
            threading.Thread(target=work, daemon=True).start()
        client.get(origin + "/bytes/3")
        """,
    ),
    "an answer that is logged as the last thing": (
        0,
        """
        import atexit
        logging.basicConfig(stream=open(os.devnull, "w"), level=logging.DEBUG)
        atexit.register(lambda: logging.info(client.get(origin + "/bytes/3").status_code))
        atexit.register(logging.shutdown)
        client.submit("GET", origin + "/delay/0.1").add_done_callback(lambda _: logging.info("late"))
        import warnings; warnings.simplefilter("ignore", ResourceWarning)  # of the log's file
        """,
    ),
}


@both
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[NO_THREADS_AT_THE_END] if name in STARTS_THREADS else []) for name in ENDS]
)
def test_a_program_ends_with_its_own_status_and_says_nothing(kit: Kit, tmp_path: Path, wire: Wire, name: str) -> None:
    status, program = ENDS[name]
    _, done = runs(kit, tmp_path, wire, program)
    assert (done.returncode, done.stdout, done.stderr) == (status, "", ""), done.stderr


@both
@NO_THREADS_AT_THE_END
def test_what_was_submitted_before_the_end_reaches_the_server(kit: Kit, tmp_path: Path, wire: Wire) -> None:
    # An exit waits for half a second, in which a slow machine may not get this far; that it waits is what is tested.
    program = """
        import hyperpool.process
        hyperpool.process._EXIT_GRACE_S = 30.0
        for n in range(20):
            client.submit("POST", origin + "/sha256", content=bytes(100_000))
        client.submit("POST", origin + "/sha256", content=(bytes(10_000) for _ in range(20)))
    """
    server, done = runs(kit, tmp_path, wire, program)
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(one.body_bytes for one in server.requests if one.is_complete) == [100_000] * 20 + [200_000]


@pytest.mark.parametrize(
    "last", ["client.get(url, timeout=0.1)", "client.submit('GET', url).result()", "next(self.pieces)"]
)
def test_a_finalizer_that_asks_after_the_end_of_all_threads_is_refused(kit: Kit, tmp_path: Path, last: str) -> None:
    # A logout in __del__, say: nobody is left that could answer it, or end it when its timeout has passed.
    program = f"""
    class Session:
        def __init__(self):
            self.client, self.url = client, origin + "/bytes/1"
            self.client.get(self.url)
            self.pieces = client.submit("GET", origin + "/bytes/10000000", stream=True).result().iter_raw()
            next(self.pieces)
        def __del__(self, refused=hyperpool.PoolClosed, tell=os.write, finalizing=sys.is_finalizing):
            client, url = self.client, self.url
            try:
                {last}
            except refused as error:
                tell(1, f"{{finalizing()}}: {{error}}".encode())
    session = Session()
    """
    _, ended = runs(kit, tmp_path, H1_PLAIN, program)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.startswith("True: ") and "the interpreter is shutting down" in ended.stdout


@pytest.mark.parametrize("wire", [H2_TLS, H1_PLAIN], ids=str)
def test_a_client_that_is_closed_after_the_end_of_all_threads_waits_for_none(
    kit: Kit, tmp_path: Path, wire: Wire
) -> None:
    # They never end: a join would hang, and from Python 3.14 on it raises.
    program = """
    class Session:
        def __init__(self):
            self.client = client
            client.submit("GET", origin + "/redirect/1").result()  # the courier's thread, too
        def __del__(self, tell=os.write, finalizing=sys.is_finalizing):
            self.client.close()
            tell(1, f"{finalizing()}".encode())
    session = Session()
    """
    routes = {"/redirect/1": lambda _: Reply(302, headers=[("Location", "/bytes/1")])}
    _, ended = runs(kit, tmp_path, wire, program, routes=routes)
    assert (ended.returncode, ended.stderr, ended.stdout) == (0, "", "True")


@pytest.mark.parametrize("error", ["Stopped", "SystemExit", "KeyboardInterrupt"])
def test_an_exception_that_is_thrown_into_a_waiting_thread_cancels_its_request_alone(
    kit: Kit, tmp_path: Path, error: str
) -> None:
    """Python delivers it when the thread next runs Python code: here, when a signal or an answer wakes it."""
    program = f"""
        seen = []
        def work():
            try:
                while True:
                    client.get(origin + "/delay/0.05")
            except {error}:
                seen.append(True)
        thread = threading.Thread(target=work)
        thread.start()
        other = client.submit("GET", origin + "/delay/0.5")
        waiting(thread, "result")
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object({error}))
        thread.join(30)
        assert seen and not thread.is_alive()
        assert other.result().ok
        assert client.get(origin + "/bytes/3").ok
        # The count that the loop publishes may be one turn old.
        import time
        while client.pool.stats().open_streams:
            time.sleep(0.001)
        client.close()
    """
    _, done = runs(kit, tmp_path, H2_TLS, program)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", ""), done.stderr
