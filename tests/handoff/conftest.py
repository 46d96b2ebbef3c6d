"""What the tests of the hand-off floor share: threads that are joined, and exchanges without a loop around them."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from handoff_kit import WAIT_S, Thread

from hyperpool.handoff import loop_thread


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A test that hangs in a lock of ours fails by a signal, and the others go on; the thread method ends the run."""
    for item in items:
        if Path(__file__).parent in item.path.parents and hasattr(signal, "SIGALRM"):
            item.add_marker(pytest.mark.timeout(2 * WAIT_S, method="signal"))


@pytest.fixture
def in_thread() -> Iterator[Callable[..., Thread]]:
    """Run a function in a thread; whoever is still alive after the test is a failure, not a hang."""
    started: list[Thread] = []

    def run(act: Callable[[], object]) -> Thread:
        started.append(Thread(act))
        return started[-1]

    yield run
    for thread in started:
        thread.join(WAIT_S)
        assert not thread.is_alive(), "a thread of this test hangs"


@pytest.fixture
def loop_mark() -> Iterator[None]:
    """The test's own thread counts as an I/O thread while the test runs."""
    loop_thread.enter_loop_thread()
    yield
    loop_thread._here.is_loop = False
