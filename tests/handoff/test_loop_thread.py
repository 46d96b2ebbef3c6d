"""L11: no call of ours blocks an I/O thread."""

from __future__ import annotations

import sys

import pytest

from hyperpool.errors import PoolClosed
from hyperpool.handoff.loop_thread import check_may_wait, enter_loop_thread, may_join, on_loop_thread


def test_a_thread_is_no_loop_thread_until_it_says_so() -> None:
    assert not on_loop_thread()


def test_a_call_is_refused_on_a_loop_thread(loop_mark) -> None:
    """L11."""
    with pytest.raises(RuntimeError, match="Future.result"):
        check_may_wait("Future.result()")


def test_a_call_is_refused_when_no_thread_is_left_to_answer_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "is_finalizing", lambda: True)
    with pytest.raises(PoolClosed, match="reading: the interpreter is shutting down"):
        check_may_wait("reading")


def test_a_call_is_let_through_elsewhere() -> None:
    check_may_wait("Future.result()")


def test_the_mark_is_the_threads_own(in_thread) -> None:
    """L11: one loop thread does not make the others loop threads."""
    in_thread(enter_loop_thread).value()
    assert not on_loop_thread()


def test_an_io_thread_joins_nobody(loop_mark) -> None:
    """L11: it could be waiting for itself."""
    assert not may_join()


def test_nobody_joins_threads_that_the_interpreters_end_has_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    assert may_join()
    monkeypatch.setattr(sys, "is_finalizing", lambda: True)
    assert not may_join()
