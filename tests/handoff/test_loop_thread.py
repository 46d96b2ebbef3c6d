"""L11: no call of ours blocks an I/O thread."""

from __future__ import annotations

import pytest

from hyperpool.handoff.loop_thread import enter_loop_thread, on_loop_thread, refuse_on_loop_thread


def test_a_thread_is_no_loop_thread_until_it_says_so() -> None:
    assert not on_loop_thread()


def test_a_call_is_refused_on_a_loop_thread(loop_mark) -> None:
    """L11."""
    with pytest.raises(RuntimeError, match="Future.result"):
        refuse_on_loop_thread("Future.result()")


def test_a_call_is_let_through_elsewhere() -> None:
    refuse_on_loop_thread("Future.result()")


def test_the_mark_is_the_threads_own(in_thread) -> None:
    """L11: one loop thread does not make the others loop threads."""
    in_thread(enter_loop_thread).value()
    assert not on_loop_thread()
