"""Forks: what is known of a kind, without being kept alive, and what a child makes anew."""

from __future__ import annotations

import os
import threading

import pytest

from hyperpool.handoff.forks import ForkGate, Known, in_child


class One:
    """Something to know."""


def test_known_are_those_that_live() -> None:
    known: Known[One] = Known()
    kept, forgotten = One(), One()
    known.add(kept)
    known.add(forgotten)
    del forgotten
    assert list(known) == [kept]
    known.clear()
    assert list(known) == []


def test_others_may_be_added_while_it_is_walked() -> None:
    known: Known[One] = Known()
    ones = [One(), One()]
    for one in ones:
        known.add(one)
    walk = iter(known)
    first = next(walk)
    adder = threading.Thread(target=known.add, args=(later := One(),))
    adder.start()
    adder.join()
    assert {first, *walk} == set(ones)
    assert later in list(known)


def test_what_a_child_makes_anew_is_made_in_the_child_only() -> None:
    made: list[int] = []
    in_child(lambda: made.append(os.getpid()))
    child = os.fork()
    if child == 0:
        os._exit(0 if made == [os.getpid()] else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert made == []


def test_a_fork_waits_for_those_who_are_inside_the_gate_and_keeps_others_out() -> None:
    gate = ForkGate()
    order: list[str] = []
    inside, leave, closing = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        with gate:
            inside.set()
            assert leave.wait(30)
            order.append("left")

    def fork() -> None:
        closing.set()
        gate.close()
        order.append("forked")
        gate.open()

    def come_later() -> None:
        with gate:
            order.append("came")

    worker, forker, latecomer = (threading.Thread(target=each) for each in (work, fork, come_later))
    worker.start()
    assert inside.wait(30)
    forker.start()
    assert closing.wait(30)
    while not gate._forks:  # the latecomer is to find it closed
        forker.join(0.001)
    latecomer.start()
    leave.set()
    for thread in (worker, forker, latecomer):
        thread.join(30)
    assert order == ["left", "forked", "came"]


def test_a_thread_that_forks_inside_the_gate_does_not_wait_for_itself() -> None:
    gate = ForkGate()
    with gate:
        gate.close()
        gate.open()
    with gate:
        pass


def test_a_thread_that_forks_inside_the_gate_leaves_it_in_the_child_as_well() -> None:
    gate = ForkGate()
    with gate:
        gate.close()
        gate.begin()
    with gate:
        pass


def test_a_finalizer_may_go_through_the_gate_while_its_lock_is_held() -> None:
    gate = ForkGate()
    with gate._lock, gate:
        pass


def test_a_child_finds_the_gate_as_new() -> None:
    gate = ForkGate()
    gate.close()
    gate.begin()
    with gate:
        pass


def test_work_that_does_not_end_holds_a_fork_for_a_while_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ForkGate, "PATIENCE_S", 0.01)
    gate = ForkGate()
    forker = threading.Thread(target=gate.close)
    with gate:
        forker.start()
        forker.join(30)
    assert not forker.is_alive()
