"""The courier: its thread begins with the first step, and whatever happens there, everybody is told (L5)."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Any

import pytest

import hyperpool
from hyperpool.errors import HyperpoolError, PoolClosed
from hyperpool.handoff import inbox as inboxes
from hyperpool.policy.courier import Courier, Step
from hyperpool.policy.escort import Escort
from hyperpool.testing import Reply, Server
from stage import WAIT_S


def nothing(*_: Any) -> None:
    """What is not to happen in a test."""


def with_start(monkeypatch: pytest.MonkeyPatch, act: Callable[[Callable[[], None]], None]) -> None:
    """Have this done in place of the start of a courier's thread; it is given that."""
    genuine = threading.Thread.start

    def start(thread: threading.Thread) -> None:
        if thread.name == "hyperpool courier":
            act(lambda: genuine(thread))
        else:
            genuine(thread)

    monkeypatch.setattr(threading.Thread, "start", start)


def test_a_close_finds_a_thread_that_it_can_join_or_none(monkeypatch: pytest.MonkeyPatch) -> None:
    courier, failed = Courier(), list[BaseException]()
    closing, closed = threading.Event(), threading.Event()

    def close() -> None:
        closing.set()
        try:
            courier.close()
        except BaseException as error:
            failed.append(error)
        closed.set()

    def start_while_another_closes(start: Callable[[], None]) -> None:
        threading.Thread(target=close).start()
        assert closing.wait(WAIT_S)
        closed.wait(0.05)  # where it need not wait for us, it has come to its end by then
        start()

    with_start(monkeypatch, start_while_another_closes)
    courier.put(Step(nothing, nothing))
    assert closed.wait(WAIT_S)
    assert failed == []


@pytest.mark.parametrize("interruption", [KeyboardInterrupt(), MemoryError(), RuntimeError("can't start new thread")])
@pytest.mark.parametrize("begins", [False, True])
def test_an_interrupted_start_is_made_up_for_by_the_next_step(
    monkeypatch: pytest.MonkeyPatch, interruption: BaseException, begins: bool
) -> None:
    courier, ran = Courier(), threading.Event()

    def interrupt(start: Callable[[], None]) -> None:
        if begins:
            start()
        raise interruption

    with monkeypatch.context() as patch:
        with_start(patch, interrupt)
        with pytest.raises((KeyboardInterrupt, MemoryError, HyperpoolError)):
            courier.put(Step(nothing, nothing))
    assert courier.put(Step(ran.set, nothing))
    assert ran.wait(WAIT_S)
    courier.close()


class Short:
    """Does something, but for the first time, for which there is no memory."""

    def __init__(self, act: Callable[..., Any]) -> None:
        self._act = act
        self._is_short = True

    def __call__(self, *arguments: Any) -> Any:
        if self._is_short:
            self._is_short = False
            raise MemoryError
        return self._act(*arguments)


@pytest.fixture
def without_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inboxes, "MEMORY_AGAIN_S", 0.0)


def test_a_step_that_fails_is_told_to_whoever_waits_once_there_is_memory_for_that(without_pauses: None) -> None:
    courier, told = Courier(), queue.SimpleQueue[BaseException]()
    courier.put(Step(Short(nothing), Short(told.put)))
    assert isinstance(told.get(timeout=WAIT_S), MemoryError)
    courier.close()


def test_a_step_that_is_due_in_ages_holds_up_no_other() -> None:
    courier = Courier()
    courier.put(Step(nothing, nothing), 1e20)
    for _ in range(2):  # at the second one its thread has looked at what is left
        done = threading.Event()
        courier.put(Step(done.set, nothing))
        assert done.wait(WAIT_S)
    courier.close()


def test_the_next_step_is_found_once_there_is_memory_for_looking(without_pauses: None) -> None:
    courier, ran = Courier(), threading.Event()
    courier._next = Short(courier._next)  # type: ignore[method-assign]
    courier.put(Step(ran.set, nothing))
    assert ran.wait(WAIT_S)
    courier.close()


def test_all_that_waits_at_a_close_is_told_once_there_is_memory_for_that(without_pauses: None) -> None:
    courier, told = Courier(), queue.SimpleQueue[BaseException]()
    for _ in range(3):
        courier.put(Step(nothing, Short(told.put)), 3_600.0)
    courier.close()
    assert [type(told.get_nowait()) for _ in range(3)] == [PoolClosed] * 3


def test_a_future_for_which_there_was_no_memory_still_gets_its_outcome(
    hyperpool_server: Server, monkeypatch: pytest.MonkeyPatch, without_pauses: None
) -> None:
    """L5: at the end of a redirect."""
    hyperpool_server.route("/there")(lambda _: Reply(302, headers=[("Location", "/bytes/1")]))
    with hyperpool.Client(verify=hyperpool_server.ca_pem, trust_env=False) as client:
        genuine = Escort._resolve

        def resolve(escort: Escort, outcome: Any) -> None:
            future = escort._future
            if future is not None and "set_result" not in vars(future):
                future.set_result = Short(future.set_result)  # type: ignore[method-assign]
            genuine(escort, outcome)

        monkeypatch.setattr(Escort, "_resolve", resolve)
        future = client.submit("GET", hyperpool_server.url("/there"))
        assert isinstance(future.exception(WAIT_S), MemoryError)
