"""What every test is held to: it leaves no thread, no socket and no unseen exception behind."""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent

# Programs that tests start must meet the checkout as well, whatever folder they run in and whatever is installed.
os.environ["PYTHONPATH"] = os.pathsep.join(
    [str(ROOT), *(part for part in os.environ.get("PYTHONPATH", "").split(os.pathsep) if part and part != str(ROOT))]
)

# A shell starts what runs in the background deaf to Ctrl-C, and so are its children. Tests send it, and await its work.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Clients trust the environment: a proxy of this machine's would stand between tests and their servers on loopback.
for _name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
    os.environ.pop(_name, None)
    os.environ.pop(_name.upper(), None)

# What an example costs says how busy the machine is, and nothing about the code.
try:
    from hypothesis import HealthCheck, settings
except ImportError:  # where few packages are to be had, such as on builds without a GIL
    pass
else:
    settings.register_profile("unhurried", settings(deadline=None, suppress_health_check=[HealthCheck.too_slow]))
    settings.load_profile("unhurried")

import hyperpool  # noqa: E402 - which copy this is, is the point
from hyperpool.testing.pytest_plugin import hyperpool_server  # noqa: E402
from stress.lock_watch import LockWatch  # noqa: E402

__all__ = ["hyperpool_server"]

# Threads of the client begin with the first; those of the test kit's server with the others (testing/server.py).
OUR_THREADS = ("hyperpool", "served-", "handler-", "accepting")

# More than a loop that was told to end needs on a busy machine. It is waited for by joining, and only where something
# is left: no test that passes takes longer for it.
GRACE_S = 20.0

_FDS = Path("/proc/self/fd")


def pytest_configure() -> None:
    found = Path(hyperpool.__file__).resolve()
    if ROOT not in found.parents or "site-packages" in found.parts:
        raise pytest.UsageError(f"{found} would be tested instead of the checkout {ROOT}: start pytest in the checkout")


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Binary and long values are called by their argument: pytest-xdist's workers must agree on the names of tests.

    Certificates are random, and the bytes of gzip hold the time.
    """
    if isinstance(val, bytes) and not val.decode("latin-1").isprintable():
        return argname
    return argname if isinstance(val, (str, bytes)) and len(val) > 80 else None


def our_threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name.startswith(OUR_THREADS)}


def open_sockets() -> dict[str, str]:
    """Inodes of the sockets that are open now, with the descriptor of each; empty where there is no /proc."""
    found: dict[str, str] = {}
    for fd in _FDS.iterdir() if _FDS.exists() else ():
        try:
            target = os.readlink(fd)
        except OSError:
            continue  # the descriptor with which the folder is being read
        # selectors leave no inode of their own, so theirs are told apart by number.
        if target.startswith("socket:"):
            found[target] = fd.name
        elif target == "anon_inode:[eventpoll]":
            found[f"selector on descriptor {fd.name}"] = fd.name
    return found


@pytest.fixture(autouse=True)
def no_leaks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fail the test if a thread or socket of ours outlives it, or a thread or finalizer raised unseen."""
    unseen: list[str] = []
    monkeypatch.setattr(threading, "excepthook", lambda args: unseen.append(_describe_thread(args)))
    monkeypatch.setattr(sys, "unraisablehook", lambda args: unseen.append(_describe_unraisable(args)))
    threads_before, sockets_before = our_threads(), open_sockets()
    yield
    deadline_at = time.monotonic() + GRACE_S
    late = _join(lambda: our_threads() - threads_before, deadline_at)
    left = _closed_in_time(lambda: open_sockets().keys() - sockets_before.keys(), deadline_at)
    problems = [f"thread {thread.name!r} still runs" for thread in late]
    problems += [f"{name} is still open" for name in sorted(left)]
    problems += unseen
    if problems:
        pytest.fail(f"{request.node.name} left something behind:\n  " + "\n  ".join(problems), pytrace=False)


@pytest.fixture
def lock_watch() -> Iterator[LockWatch]:
    """Watch every lock of hyperpool that is made during the test; fail if one was taken while another was held."""
    with LockWatch().active() as watch:
        yield watch
    watch.check()


def _join(threads: Callable[[], set[threading.Thread]], deadline_at: float) -> set[threading.Thread]:
    for thread in threads():
        thread.join(max(0.0, deadline_at - time.monotonic()))
    return threads()


def _closed_in_time(left: Callable[[], set[str]], deadline_at: float) -> set[str]:
    if not left():
        return set()
    gc.collect()  # what hangs in a cycle is closed by its finalizer, whose ResourceWarning is an error here
    pause = threading.Event()
    while left() and time.monotonic() < deadline_at:
        pause.wait(0.01)
    return left()


def _describe_thread(args: threading.ExceptHookArgs) -> str:
    name = args.thread.name if args.thread is not None else "a thread"
    return f"{name} died of {_describe(args.exc_value, args.exc_traceback)}"


def _describe_unraisable(args: Any) -> str:
    return f"{args.err_msg or 'ignored'} {args.object!r}: {_describe(args.exc_value, args.exc_traceback)}"


def _describe(error: BaseException | None, trace: TracebackType | None) -> str:
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    where = f" at {trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}" if trace is not None else ""
    return f"{type(error).__name__}: {error}{where}"
