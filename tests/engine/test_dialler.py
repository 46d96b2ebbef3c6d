"""What comes of a dial reaches the loop that counts on it, or nobody does (L5)."""

from __future__ import annotations

import queue
import socket
import time
from typing import Any

import pytest

from hyperpool.engine import dialler
from hyperpool.engine.dialler import DialThreads
from hyperpool.engine.resolve import Resolver
from hyperpool.engine.trust import TlsConfig
from hyperpool.errors import HyperpoolError
from hyperpool.handoff.inbox import InboxClosed
from hyperpool.handoff.messages import Dialed, DialFailed
from hyperpool.urls import parse_url
from hyperpool.values import Route, TlsSettings
from stage import nobody

WAIT_S = 45.0  # a bound for broken code only


@pytest.fixture
def listener():
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def dial(port: int, deliver: Any) -> None:
    settings = TlsSettings()
    route = Route(parse_url(f"http://127.0.0.1:{port}").origin, settings)
    dialer = DialThreads(route, tls_config=TlsConfig(settings), resolver=Resolver(ttl_s=1.0))
    dialer.start(deliver, deadline_at=time.monotonic() + WAIT_S)


class _ShortOfMemory:
    """An inbox that has no memory for the first messages."""

    def __init__(self, times: int) -> None:
        self._times = times
        self.taken: queue.Queue[Any] = queue.Queue()

    def put(self, message: Any) -> None:
        if self._times:
            self._times -= 1
            raise MemoryError
        self.taken.put(message)


def test_a_connection_is_handed_over_once_there_is_memory_for_the_message(listener: socket.socket) -> None:
    inbox = _ShortOfMemory(3)
    dial(listener.getsockname()[1], inbox.put)
    message = inbox.taken.get(timeout=WAIT_S)
    assert type(message) is Dialed
    assert message.dialed.sock.getpeername() == listener.getsockname()
    message.dialed.close()
    assert inbox.taken.empty()


def test_so_is_a_failure() -> None:
    inbox = _ShortOfMemory(3)
    with nobody() as port:
        dial(port, inbox.put)
        assert type(inbox.taken.get(timeout=WAIT_S)) is DialFailed


@pytest.mark.parametrize("message", ["Dialed", "DialFailed"])
def test_even_where_there_is_none_for_the_message_itself(
    listener: socket.socket, monkeypatch: pytest.MonkeyPatch, message: str
) -> None:
    left = [MemoryError(), MemoryError()]
    genuine = getattr(dialler, message)

    def short_of_memory(what: Any) -> Any:
        if left:
            raise left.pop()
        return genuine(what)

    def refuse(*_: object, **__: object) -> Any:
        raise HyperpoolError("refused")

    monkeypatch.setattr(dialler, message, short_of_memory)
    if message == "DialFailed":
        monkeypatch.setattr(dialler, "dial", refuse)
    inbox = _ShortOfMemory(0)
    dial(listener.getsockname()[1], inbox.put)
    told = inbox.taken.get(timeout=WAIT_S)
    assert type(told) is genuine
    if message == "Dialed":
        told.dialed.close()


def test_a_connection_that_comes_too_late_is_closed(listener: socket.socket) -> None:
    def ended(message: Any) -> None:
        raise InboxClosed

    dial(listener.getsockname()[1], ended)
    accepted, _ = listener.accept()
    with accepted:
        accepted.settimeout(WAIT_S)
        assert accepted.recv(1) == b""
