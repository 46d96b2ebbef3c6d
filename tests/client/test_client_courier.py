"""The courier's thread begins with the first step: who closes meanwhile, and what interrupts it there."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from hyperpool.errors import HyperpoolError
from hyperpool.policy.courier import Courier, Step
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
