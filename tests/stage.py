"""What the test benches stand on: certificates made once, gates that always open, resources closed in order, waits."""

from __future__ import annotations

import linecache
import os
import select
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from hyperpool.testing import CertificateAuthority, Server

# A bound for broken code only: nothing that works comes near it.
WAIT_S = 45.0

_FDS = "/proc/self/fd"

# One for all tests: making a key costs more than most of them.
AUTHORITY = CertificateAuthority()
SERVER_CERTIFICATE = AUTHORITY.issue("localhost", "127.0.0.1", "::1")
OURS: dict[str, Any] = {"authority": AUTHORITY, "certificate": SERVER_CERTIFICATE}


class Stage:
    """The resources of one test, closed in the reverse order of their making."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._servers: list[Server] = []
        self._gates: list[threading.Event] = []

    def enter(self, resource: Any) -> Any:
        """Enter a context until the end of the test."""
        return self._stack.enter_context(resource)

    def gate(self) -> threading.Event:
        """An Event for handlers to wait for; opened at the latest before anything closes."""
        gate = threading.Event()
        self._gates.append(gate)
        return gate

    def close(self) -> None:
        for gate in self._gates:
            gate.set()
        self._stack.close()

    def server_errors(self) -> list[BaseException]:
        return [error for server in self._servers for error in server.errors]


def opened(gate: threading.Event) -> None:
    """Wait for the gate, in a handler or a generator; fails instead of hanging."""
    if not gate.wait(WAIT_S):
        raise AssertionError("the gate was never opened")


@contextmanager
def nobody(port: int = 0) -> Iterator[int]:
    """A port at which connections are refused meanwhile; ``port``: this one, whose server has gone.

    It is bound, so that nobody else is given it: no server of another test, and no client for its own end.
    """
    with socket.socket() as sock:
        # For what the server has left there; not for longer, since others of this kind might share the port.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, int(port != 0))
        sock.bind(("127.0.0.1", port))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
        yield sock.getsockname()[1]


def eventually(holds: Callable[[], bool]) -> bool:
    """Whether it holds before long: for what nobody announces, such as published figures."""
    pause = threading.Event()
    deadline_at = time.monotonic() + WAIT_S
    while not holds():
        if time.monotonic() > deadline_at:
            return False
        pause.wait(0.002)
    return True


def peers_gone(port: int) -> bool:
    """Whether the system has heard of the end of all of this process's connections to a port.

    It hears of it at once, but on a busy machine, where packets are left to a thread of the kernel.
    """
    return not any(_is_connected(name, port) for name in (os.listdir(_FDS) if os.path.exists(_FDS) else ()))


def _is_connected(name: str, port: int) -> bool:
    try:
        if not os.readlink(f"{_FDS}/{name}").startswith("socket:"):
            return False
        with _copy_of(int(name)) as sock:
            if sock.family != socket.AF_INET or sock.getpeername()[1] != port:
                return False
            poll = select.poll()
            poll.register(sock, select.POLLRDHUP)
            return not poll.poll(0)
    except OSError:  # closed meanwhile, or not connected
        return False


def _copy_of(fd: int) -> socket.socket:
    copy = os.dup(fd)
    try:
        return socket.socket(fileno=copy)
    except OSError:  # another thread has closed it, and opened something else
        os.close(copy)
        raise


def stands_in(thread: threading.Thread, *functions: str) -> bool:
    """Whether the thread is inside functions of these names, the last called by those before it."""
    frame = sys._current_frames().get(thread.ident or 0)
    left = list(functions)
    while frame is not None and left:
        if frame.f_code.co_name == left[-1]:
            left.pop()
        frame = frame.f_back
    return not left


def is_parked(thread: threading.Thread) -> bool:
    """Whether the thread is at the line in which it waits for a lock, where an interrupt is provided for."""
    frame = sys._current_frames().get(thread.ident or 0)
    return frame is not None and "acquire(" in linecache.getline(frame.f_code.co_filename, frame.f_lineno or 0)


def in_time(act: Callable[[], Any]) -> Any:
    """What it gives where it ends before its short time-out: on a busy machine perhaps not at the first try."""
    until_at = time.monotonic() + WAIT_S
    while True:
        try:
            return act()
        except TimeoutError:
            if time.monotonic() > until_at:
                raise
