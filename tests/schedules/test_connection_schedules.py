"""A loop with real connections under every schedule: GOAWAY, loss, time-outs and cancels against submits and answers.

The sockets are real and never waited for: what a thread of the model waits for is a flag that the other end raises with
each send. The servers are the peers of the engine's bench, each on a thread of the model. Then the gate that forks wait
at.
"""

from __future__ import annotations

import logging
import select
import selectors
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from typing import Any

import pytest
from schedule_kit import FlagWakeup, ModelPool, finds, model_process, search, spawn, together

from hyperpool.engine import http2 as http2_room  # noqa: F401 - what it imports must not be imported in a model
from hyperpool.engine import loop as loop_room
from hyperpool.engine.dial import Dialed
from hyperpool.engine.loop import OriginLoop
from hyperpool.errors import ConnectionLost, HyperpoolError
from hyperpool.errors import Timeout as TimedOut
from hyperpool.handoff.forks import ForkGate
from hyperpool.handoff.inbox import InboxClosed
from hyperpool.handoff.messages import Dialed as DialedMessage
from hyperpool.urls import parse_url
from hyperpool.values import Limits, Request, Route, Timeout
from stress.simulated import bench_room

PEERS = bench_room()
GET = Request("GET", "https://a.test/", timeout=Timeout(None))
POST = Request("POST", "https://a.test/", content=b"body", timeout=Timeout(None))
# Switches come between lines here: a model with loops in it has thousands of opcodes.
LINES = {"granularity": "line"}


class Key:
    """What select says of one that is ready. Immutable."""

    def __init__(self, data: object) -> None:
        self.data = data


class SocketsAndFlag:
    """A selector of real sockets that never waits for them: the flag of the loop's wake-up is raised with each byte."""

    def __init__(self) -> None:
        self._wakeup: Any = None
        self._watched: dict[Any, tuple[int, object]] = {}

    def register(self, one: Any, events: int, data: object) -> None:
        if isinstance(one, FlagWakeup):
            self._wakeup = one
        else:
            self._watched[one] = (events, data)

    modify = register

    def unregister(self, one: Any) -> None:
        del self._watched[one]

    def select(self, timeout_s: float | None) -> list[tuple[Key, int]]:
        ready = self._ready()
        if not ready and timeout_s != 0:
            self._wakeup._written.wait(timeout_s)
            ready = self._ready()
        return ready + ([(Key(None), 1)] if self._wakeup.written else [])

    def _ready(self) -> list[tuple[Key, int]]:
        found = []
        for sock, (events, data) in list(self._watched.items()):
            reading = [sock] if events & selectors.EVENT_READ else []
            writing = [sock] if events & selectors.EVENT_WRITE else []
            can_read, can_write, _ = select.select(reading, writing, [], 0)
            mask = bool(can_read) * selectors.EVENT_READ | bool(can_write) * selectors.EVENT_WRITE
            if mask:
                found.append((Key(data), mask))
        return found

    def close(self) -> None:
        """Nothing to close."""


class TellingSocket(socket.socket):
    """One that tells the other end of each send, and of its close."""

    told: Callable[[], None]

    def send(self, data: Any, flags: int = 0) -> int:
        sent = super().send(data, flags)
        self.told()
        return sent

    def close(self) -> None:
        super().close()
        self.told()


class Server:
    """One connection's server, on a thread of the model; ``act`` is called whenever it may have heard something."""

    def __init__(self, loop: OriginLoop, act: Callable[[Any], None]) -> None:
        ours, theirs = socket.socketpair()
        self._heard, self._loop, self._act = threading.Event(), loop, act
        self.sock = TellingSocket(fileno=ours.detach())
        self.sock.setblocking(False)
        self.sock.told = self._heard.set
        self.peer = PEERS.H2Peer(theirs)
        self.peer.greet()
        self._heard.set()

    def __call__(self) -> None:
        try:
            while not (self.peer.eof or self.peer.closed):
                self._heard.wait()
                self._heard.clear()
                self.peer.carry()
                if not self.peer.closed:
                    self._act(self.peer)
                    self.peer.flush()
                self._loop._wakeup.wake()
        finally:
            self.peer.sock.close()
            self._loop._wakeup.wake()


class Dialer:
    """Gives a server for each dial, the acts of which are named in their order; the last one serves all the rest."""

    phase = None

    def __init__(self, *acts: Callable[[Any], None]) -> None:
        self._acts = list(acts)
        self.loop: Any = None
        self.servers: list[Server] = []

    def start(self, deliver: Callable[[Any], None], *, deadline_at: float) -> None:
        act = self._acts.pop(0) if len(self._acts) > 1 else self._acts[0]
        server = Server(self.loop, act)
        self.servers.append(server)
        spawn(self._deliver, deliver, server)

    def _deliver(self, deliver: Callable[[Any], None], server: Server) -> None:
        try:
            deliver(DialedMessage(Dialed(self.loop.route, server.sock, None, "h2", (), {})))
        except InboxClosed:
            server.sock.close()
        server()

    def speak_http1(self) -> None:
        """It never comes to that."""

    def cancel(self) -> None:
        """They end by themselves."""


class Pool(ModelPool):
    """A pool with one loop, whose dialler gives servers of the model."""

    def __init__(self, *acts: Callable[[Any], None], **limits: Any) -> None:
        self.dialer = Dialer(*acts)
        super().__init__(self._make_loop, ping_after_s=None, **limits)

    def _make_loop(self, route: Route, limits: Limits) -> OriginLoop:
        self.dialer.loop = made = OriginLoop(route, limits, self.dialer, clock=time.monotonic)
        return made

    def seen(self) -> list[tuple[str, str]]:
        """Method and path of what servers have seen and not given back."""
        return [
            (seen.fields[":method"], seen.path)
            for server in self.dialer.servers
            for seen in server.peer.seen.values()
            if seen.reset_code is None
        ]


@pytest.fixture(autouse=True)
def modelled(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Loops of this file make flags where they would make sockets of their own."""
    model_process(monkeypatch)
    monkeypatch.setattr(loop_room, "SocketWakeup", FlagWakeup)
    monkeypatch.setattr(loop_room.selectors, "DefaultSelector", SocketsAndFlag)
    logging.disable()
    yield
    logging.disable(logging.NOTSET)


def answers(peer: Any) -> None:
    """A server that behaves."""
    for stream_id in peer.open_ids:
        if peer.seen[stream_id].ended and not peer.seen[stream_id].answered:
            peer.respond(stream_id)


def goes_away(peer: Any) -> None:
    """One that retires with the first request, and has processed nothing."""
    if peer.seen:
        peer.go_away(0)


def leaves(peer: Any) -> None:
    """One that closes with the first request."""
    if peer.seen:
        peer.close()


def goaway_and_submits() -> None:
    """RFC 9113 6.8: every request is answered by the next connection, whatever its method, and seen once there."""
    pool = Pool(goes_away, answers)
    futures: list[Any] = []
    together(lambda: futures.append(pool.submit(GET)), lambda: futures.append(pool.submit(POST)))
    assert [future.result().status_code for future in futures] == [200, 200]
    pool.close(grace_s=0)
    assert len(pool.dialer.servers[-1].peer.seen) <= 2


def a_lost_connection_and_submits() -> None:
    """Who was on the wire is told, who was not is served: nobody waits, and no POST is seen twice."""
    pool = Pool(leaves, answers)
    futures: list[Any] = []
    together(lambda: futures.append(pool.submit(POST)), lambda: futures.append(pool.submit(POST)))
    for future in futures:
        error = future.exception()
        assert error is None or isinstance(error, ConnectionLost), error
    answered = sum(future.exception() is None for future in futures)
    pool.close(grace_s=0)
    assert sum(seen.answered for server in pool.dialer.servers for seen in server.peer.seen.values()) == answered
    assert len(pool.seen()) <= 2


def a_retirement_and_two_submits() -> None:
    """What comes after `retire` is served by another connection, or by the one that is just draining."""
    pool = Pool(answers)
    route = pool.route(parse_url(GET.url).origin)
    futures: list[Any] = []
    together(
        lambda: futures.append(pool.submit(GET)), lambda: pool.retire(route), lambda: futures.append(pool.submit(GET))
    )
    assert all(future.result().status_code == 200 for future in futures)
    pool.close(grace_s=0)


def a_cancel_as_the_answer_comes() -> None:
    pool = Pool(answers)
    future = pool.submit(GET)
    called_back: list[Any] = []
    future.add_done_callback(lambda _: called_back.append(1))
    cancelled: list[bool] = []
    together(lambda: cancelled.append(future.cancel()), lambda: None)
    next_one = pool.submit(GET)
    assert next_one.result().status_code == 200, "the slot is free again"
    assert future.done() and future.cancelled() is cancelled[0]
    if not future.cancelled():
        assert future.result().status_code == 200
    pool.close(grace_s=0)
    assert called_back == [1]


def a_timeout_as_the_answer_comes() -> None:
    """The clock is the model's: whichever is first, there is one outcome, and the next request is served."""
    pool = Pool(answers)
    future = pool.submit(Request("GET", GET.url, timeout=Timeout(0.001)))
    error = future.exception()
    assert error is None or isinstance(error, TimedOut), error
    assert pool.submit(GET).result().status_code == 200
    pool.close(grace_s=0)


def a_close_as_the_answer_comes() -> None:
    pool = Pool(answers)
    futures = [pool.submit(GET), pool.submit(POST)]
    together(lambda: pool.close(grace_s=0), lambda: None)
    for future in futures:
        assert future.done()
        error = None if future.cancelled() else future.exception()
        assert error is None or isinstance(error, (HyperpoolError, CancelledError))
    assert all(loop.ended for loop in pool.made)


@pytest.mark.parametrize(
    "model",
    [
        goaway_and_submits,
        a_lost_connection_and_submits,
        a_retirement_and_two_submits,
        a_cancel_as_the_answer_comes,
        a_timeout_as_the_answer_comes,
        a_close_as_the_answer_comes,
    ],
)
def test_connections_come_and_go_and_everybody_is_answered(model: Callable[[], None]) -> None:
    search(model, **LINES)


def test_the_search_finds_a_resend_that_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    from hyperpool.engine.reports import Reports

    requeue = Reports.requeue

    def forgets(self: Any, exchange: Any, *arguments: Any, **named: Any) -> None:
        if exchange.request.method == "GET":
            requeue(self, exchange, *arguments, **named)

    monkeypatch.setattr(Reports, "requeue", forgets)
    assert finds(goaway_and_submits, **LINES)


# -- forks -------------------------------------------------------------------------------------------------------------


class LooksOutside(ForkGate):
    """Broken: whether a fork is under way is looked at before the lock is held."""

    def __enter__(self) -> None:
        while self._forks:
            with self._cond:
                self._cond.wait_for(lambda: not self._forks)
        with self._cond:
            self._inside.append(threading.get_ident())


class Lock:
    """A lock that is no lock of ours: a fork while it is held would leave it held in the child for ever."""

    held = False


def work_and_forks(kind: type[ForkGate] = ForkGate) -> None:
    # One for each worker: both may be inside at once, and what one leaves must not depend on the other.
    gate, locks = kind(), [Lock(), Lock()]

    def work(lock: Lock) -> None:
        with gate:
            lock.held = True
            lock.held = False

    def fork() -> None:
        gate.close()
        try:
            assert not any(lock.held for lock in locks), "forked while somebody was at work"
        finally:
            gate.open()

    together(lambda: work(locks[0]), fork, lambda: work(locks[1]))
    assert not gate._inside and not gate._forks


def test_no_fork_happens_while_somebody_is_at_work() -> None:
    search(work_and_forks)


def test_the_search_finds_a_gate_that_looks_too_early() -> None:
    assert finds(lambda: work_and_forks(LooksOutside))
