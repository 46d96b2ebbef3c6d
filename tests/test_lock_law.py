"""The lock law (docs/concurrency.md): few locks, all leaves, none held over I/O, over waiting or over user code.

First the source is read: where locks are made, and what is called while one is held. Then a real client is run under
`stress.lock_watch`, which sees every lock that is taken while another is held; engine tests use the same fixture,
`lock_watch`.
"""

from __future__ import annotations

import ast
import functools
import textwrap
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import ModuleType

import pytest

import hyperpool
from hyperpool.testing import Server, pattern
from stage import WAIT_S
from stress.lock_watch import LockWatch

PACKAGE = Path(hyperpool.__file__).parent

# The rooms in which locks are made, each with what its lock guards. The first three are the house plan's.
LOCK_ROOMS = {
    "loops.py": "the map of routes, and whether the pool is closed; and what its loops share",
    "handoff/forks.py": "who is at work that no fork may happen in the middle of",
    "handoff/inbox.py": "the messages to one loop",
    "handoff/futures.py": "nothing: it is the latch at which one thread waits for one response",
    "handoff/body.py": "the pieces of one body, on their way in or out",
    "engine/resolve.py": "the name cache: shared by all dials of a pool, which run on threads of their own",
    "engine/trust.py": "building one TLS context; ALPN of a shared ssl.SSLContext: both among dial threads only",
    "engine/dial_cancel.py": "the wake-ups of dials under way, which a loop rings when it closes",
    "connection_base.py": "which pool and which requests one of hyper's connection objects has now",
    "connection_calls.py": "the requests of one of hyper's connection objects, by their ids",
    "http_client/shared.py": "the pool that all http.client objects share, and the TLS context that they share",
    "policy/cookies.py": "cookies without a domain",
    "policy/courier.py": "requests that wait for a redirect or a retry",
    "policy/progress.py": "the lines of progress on the terminal",
    "policy/defaults.py": "the headers of a client",
    "policy/retries.py": "retry budgets",
    "default.py": "which client is the process-wide one",
}
# A server for tests, and a program that uses the client: they share no lock with it.
NOT_OURS = ("testing/", "demo.py")

LOCKS = {"Lock", "RLock", "Condition", "Semaphore", "BoundedSemaphore", "Barrier", "allocate_lock"}

# What may not be called while a lock is held, by the last part of its name.
BLOCKING = {"sleep", "join", "result", "getaddrinfo", "open", "read", "write"}
SOCKETS = {"send", "sendall", "sendmsg", "recv", "recv_into", "select", "connect", "accept", "do_handshake"}
FUTURES = {"set_result", "set_exception", "set_running_or_notify_cancel", "add_done_callback", "cancel", "settle"}
OTHER_LOCKS = {"put", "feed", "finish", "fail", "abandon", "submit", "start"}
FORBIDDEN = BLOCKING | SOCKETS | FUTURES | OTHER_LOCKS

# (room, function, call): why it is right all the same.
EXCEPTIONS = {
    (
        "loops.py",
        "_start_locked",
        "start",
    ): "whoever finds a loop must find it running, else close() could not join its thread; takes about 100 us",
    (
        "policy/courier.py",
        "_start_locked",
        "start",
    ): "the same",
}


def sources() -> dict[str, ast.Module]:
    paths = {path.relative_to(PACKAGE).as_posix(): path for path in sorted(PACKAGE.rglob("*.py"))}
    return {name: _parsed(path) for name, path in paths.items() if not name.startswith(NOT_OURS)}


@functools.cache
def _parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"))


# -- where locks are made ----------------------------------------------------------------------------------------------


def locks_made(tree: ast.Module) -> list[int]:
    """The lines that make a lock, or import the means in a way that would hide it from this check."""
    return [node.lineno for node in ast.walk(tree) if _makes_lock(node) or _hides_lock(node)]  # type: ignore[attr-defined]


def _makes_lock(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and _last_name(node.func) in LOCKS


def _hides_lock(node: ast.AST) -> bool:
    return isinstance(node, ast.ImportFrom) and node.module in {"threading", "_thread", "multiprocessing"}


def _last_name(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def test_locks_are_made_only_in_the_rooms_that_are_named_here() -> None:
    found = {room: lines for room, tree in sources().items() if (lines := locks_made(tree))}
    surplus = {room: lines for room, lines in found.items() if room not in LOCK_ROOMS}
    assert not surplus, f"a new lock needs a line in LOCK_ROOMS and in docs/concurrency.md: {surplus}"


def test_no_room_is_named_that_makes_no_lock() -> None:
    assert {room for room in LOCK_ROOMS if room in sources() and not locks_made(sources()[room])} == set()


# -- what is called while one is held ----------------------------------------------------------------------------------


def callbacks_of(tree: ast.AST) -> set[str]:
    """Attributes that hold a caller's function: parameters with Callable in their type that are kept in ``self``."""
    found = set()
    for function in ast.walk(tree):
        if not isinstance(function, ast.FunctionDef):
            continue
        arguments = [*function.args.args, *function.args.kwonlyargs]
        given = {each.arg for each in arguments if each.annotation and "Callable" in ast.unparse(each.annotation)}
        for node in ast.walk(function):
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Name) and node.value.id in given:
                found |= {target.attr for target in node.targets if isinstance(target, ast.Attribute)}
    return found - {"_clock"}  # a clock is read, never asked to do anything


def held_calls(tree: ast.Module) -> Iterator[tuple[str, str, int]]:
    """(function, call, line) of each call under a lock: in `with self._lock`, and in functions called _locked."""
    for function in ast.walk(tree):
        if not isinstance(function, ast.FunctionDef):
            continue
        bodies: list[ast.stmt] = function.body if function.name.endswith("_locked") else []
        for block in ast.walk(function):
            if isinstance(block, ast.With) and any(_is_lock(item.context_expr) for item in block.items):
                bodies = [*bodies, *block.body]
        for statement in bodies:
            yield from ((function.name, name, line) for name, line in _calls(statement))


def _is_lock(node: ast.expr) -> bool:
    return _last_name(node).endswith(("_lock", "_cond", "_condition"))


def _calls(statement: ast.stmt) -> Iterator[tuple[str, int]]:
    for node in ast.walk(statement):
        if isinstance(node, ast.Call):
            yield _last_name(node.func), node.lineno
        elif isinstance(node, ast.With) and any(_is_lock(item.context_expr) for item in node.items):
            yield "a second lock", node.lineno


def broken(room: str, tree: ast.Module) -> list[str]:
    forbidden = FORBIDDEN | callbacks_of(tree) | {"a second lock"}
    return [
        f"{room}:{line}: {function} calls {call} while it holds a lock"
        for function, call, line in held_calls(tree)
        if call in forbidden and (room, function, call) not in EXCEPTIONS
    ]


@pytest.mark.parametrize("room", sorted(set(LOCK_ROOMS) & set(sources())))
def test_no_io_no_waiting_no_future_and_no_callback_under_a_lock(room: str) -> None:
    assert not (wrong := broken(room, sources()[room])), "\n".join(wrong)


def test_every_exception_is_still_needed() -> None:
    made = {(room, function, call) for room, tree in sources().items() for function, call, _ in held_calls(tree)}
    assert set(EXCEPTIONS) <= made


BAD_ROOM = """
    class Bad:
        def __init__(self, notify: Callable[[], None]) -> None:
            self._lock = threading.Lock()
            self._notify = notify

        def a_callback(self):
            with self._lock:
                self._notify()

        def a_socket(self):
            with self._lock:
                if self.ready:
                    self.sock.send(b"")

        def a_future_locked(self):
            self.future.set_result(1)

        def a_nesting(self):
            with self._lock:
                with self.other._cond:
                    pass

        def all_right(self):
            with self._lock:
                item = self.items.popleft()
            self._notify()
            return item
"""


def test_the_source_check_sees_each_kind_of_break() -> None:
    tree = ast.parse(textwrap.dedent(BAD_ROOM))
    functions = {line.split(": ")[1].split()[0] for line in broken("bad.py", tree)}
    assert functions == {"a_callback", "a_socket", "a_future_locked", "a_nesting"}


# -- what happens at run time ------------------------------------------------------------------------------------------


def room_with_two_locks(watch: LockWatch) -> ModuleType:
    module = ModuleType("hyperpool._two_locks")
    module.__dict__["threading"] = threading
    with watch.active():
        exec("first, second = threading.Lock(), threading.Condition()", module.__dict__)
    return module


def test_the_watch_sees_a_lock_that_is_taken_under_another() -> None:
    watch = LockWatch()
    room = room_with_two_locks(watch)
    with room.first, room.second:
        pass
    assert [(nesting.held, nesting.taken) for nesting in watch.nestings] == [("hyperpool._two_locks:1",) * 2]
    with pytest.raises(AssertionError, match="locks are leaves"):
        watch.check()


def test_the_watch_says_nothing_of_locks_taken_one_after_the_other_or_again() -> None:
    watch = LockWatch()
    room = room_with_two_locks(watch)
    with room.first:
        pass
    with room.second, room.second:
        room.second.notify_all()
    watch.check()


def test_a_watched_condition_waits_and_wakes() -> None:
    watch = LockWatch()
    room = room_with_two_locks(watch)
    woken: list[bool] = []

    def wait() -> None:
        with room.second:
            started.set()
            woken.append(room.second.wait(WAIT_S))

    started = threading.Event()
    waiter = threading.Thread(target=wait)
    waiter.start()
    started.wait(WAIT_S)
    with room.second:  # free only once the waiter sleeps in it
        room.second.notify_all()
    waiter.join(WAIT_S)
    assert woken == [True]
    watch.check()


def test_the_watch_sees_a_future_that_is_settled_under_a_lock() -> None:
    watch = LockWatch()
    room = room_with_two_locks(watch)
    with watch.active():
        future: Future[int] = Future()
    with room.first:
        future.set_result(1)
    assert [nesting.held for nesting in watch.nestings] == ["hyperpool._two_locks:1"]


def test_other_peoples_locks_are_left_alone() -> None:
    watch = LockWatch()
    with watch.active():
        assert type(threading.Lock()) is type(threading._allocate_lock())  # type: ignore[attr-defined]
    assert __name__ not in {site.split(":")[0] for site in watch.sites}


@pytest.mark.slow
@pytest.mark.parametrize("http2", [True, False], ids=["h2", "h1"])
def test_a_busy_client_never_takes_a_lock_under_another(lock_watch: LockWatch, http2: bool) -> None:
    with Server() as server, hyperpool.Client(verify=server.ca_pem, http2=http2, timeout=WAIT_S) as client:

        def work(seed: int) -> None:
            assert client.get(server.url(f"/bytes/{seed * 1000}")).content == pattern(seed * 1000)
            pieces = (b"x" * 1000 for _ in range(seed))
            assert client.post(server.url("/echo"), content=pieces).content == b"x" * 1000 * seed
            with client.stream("GET", server.url("/bytes/300000")) as response:
                next(iter(response.iter_bytes(1000)))
            client.submit("GET", server.url("/delay/30")).cancel()
            client.pool.stats()

        with ThreadPoolExecutor(8) as threads:
            list(threads.map(work, range(32)))
    assert any(site.startswith("hyperpool.handoff.inbox") for site in lock_watch.sites)


def test_a_pool_that_makes_room_for_an_origin_takes_one_lock_at_a_time(lock_watch: LockWatch) -> None:
    limits = hyperpool.Limits(max_origins=1)
    with (
        Server(tls=False) as one,
        Server(tls=False) as other,
        hyperpool.Client(limits=limits, timeout=WAIT_S) as client,
    ):
        for server in (one, other, one):
            assert client.get(server.url("/bytes/1")).status_code == 200


def test_the_default_client_takes_one_lock_at_a_time(lock_watch: LockWatch) -> None:
    hyperpool.default_client().close()
    assert hyperpool.default_client() is hyperpool.default_client()
    hyperpool.default_client().close()
