"""The inbox under every schedule: no lost wake-up (L3), no lost message (L2)."""

from __future__ import annotations

from typing import Any

import pytest
from schedule_kit import FlagWakeup, finds, search, together

from hyperpool.handoff.inbox import Inbox, InboxClosed


class Loop:
    """A loop as the inbox sees it: sleeps where it may, takes, and ends when it is told to."""

    def __init__(self, kind: type[Inbox] = Inbox) -> None:
        self.wakeup = FlagWakeup()
        self.inbox = kind(self.wakeup)
        self.taken: list[Any] = []
        self.spurious = 0

    def turn(self) -> None:
        if self.inbox.may_sleep():
            self.wakeup.wait()
        items = self.inbox.take(woken=self.wakeup.written)
        self.spurious += not items
        self.taken += items
        items.clear()

    def run_until(self, count: int) -> None:
        while len(self.taken) < count:
            self.turn()

    def run_until_nothing_is_left(self) -> None:
        """As `OriginLoop._goes_on` with nothing under way."""
        self.taken += self.inbox.take(woken=self.wakeup.written)
        while not self.inbox.close_if_empty():
            self.taken += self.inbox.take(woken=self.wakeup.written)


class Putter:
    """Puts numbers until it has put them all, or the inbox is closed."""

    def __init__(self, inbox: Inbox, *numbers: int) -> None:
        self._inbox = inbox
        self._numbers = numbers
        self.put: list[int] = []
        self.refused: list[int] = []

    def __call__(self) -> None:
        for number in self._numbers:
            try:
                self._inbox.put(number)
            except InboxClosed:
                self.refused.append(number)
            else:
                self.put.append(number)


def two_callers_and_a_sleeping_loop(kind: type[Inbox] = Inbox) -> None:
    loop = Loop(kind)
    together(lambda: loop.run_until(4), Putter(loop.inbox, 1, 2), Putter(loop.inbox, 10, 20))
    assert sorted(loop.taken) == [1, 2, 10, 20]
    assert [one for one in loop.taken if one < 10] == [1, 2], "first in, first out for each caller"
    assert loop.spurious <= 4, "a wake-up for each message at most"


def one_caller_and_a_sleeping_loop(kind: type[Inbox]) -> None:
    loop = Loop(kind)
    together(lambda: loop.run_until(1), Putter(loop.inbox, 1))


def callers_and_a_loop_that_ends(kind: type[Inbox] = Inbox) -> None:
    loop = Loop(kind)
    first, second = Putter(loop.inbox, 1, 2), Putter(loop.inbox, 10)
    together(loop.run_until_nothing_is_left, first, second)
    assert sorted(loop.taken) == sorted(first.put + second.put), "L2: what was put was taken, and nothing else"
    assert len(loop.taken) + len(first.refused + second.refused) == 3


def callers_and_a_loop_that_crashes() -> None:
    loop = Loop()
    first, second = Putter(loop.inbox, 1, 2), Putter(loop.inbox, 10)
    left: list[Any] = []

    def crash() -> None:
        loop.turn()
        left.extend(loop.inbox.close())

    together(crash, first, second)
    assert sorted(loop.taken + left) == sorted(first.put + second.put), "L5: what is left at a crash is found"


class DrainsLast(Inbox):
    """L3 broken: the flag goes up, and then the bytes are drained: one of them may be for the flag."""

    def may_sleep(self) -> bool:
        asleep = super().may_sleep()
        self._wakeup.drain()
        return asleep


class LooksAtTheFlagTooEarly(Inbox):
    """L3 broken: a put looks whether the loop sleeps before it holds the lock."""

    def put(self, item: Any) -> None:
        asleep = self._asleep
        with self._lock:
            self._items.append(item)
            if asleep:
                self._asleep = False
                self._wakeup.wake()


class LooksBeforeItSaysThatItSleeps(Inbox):
    """L3 broken: whether something waits is looked at before the lock is held."""

    def may_sleep(self) -> bool:
        empty = not self._items
        with self._lock:
            self._asleep = empty
            return empty


class ClosesWithoutLookingAgain(Inbox):
    """L2 broken: emptiness is seen under one lock, and the door shut under the next."""

    def close_if_empty(self) -> bool:
        with self._lock:
            if self._items:
                return False
        with self._lock:
            self._closed = True
            return True


class AsksWithoutTheLock(Inbox):
    """L2 broken: whether it is closed is asked before the lock is held."""

    def put(self, item: Any) -> None:
        if self._closed:
            raise InboxClosed
        with self._lock:
            self._items.append(item)


def test_a_sleeping_loop_hears_of_every_message() -> None:
    search(two_callers_and_a_sleeping_loop)


def test_a_message_is_taken_or_refused_by_a_loop_that_ends() -> None:
    search(callers_and_a_loop_that_ends)


def test_what_was_put_before_a_crash_is_found_after_it() -> None:
    search(callers_and_a_loop_that_crashes)


@pytest.mark.parametrize("kind", [DrainsLast, LooksAtTheFlagTooEarly, LooksBeforeItSaysThatItSleeps])
def test_the_search_finds_a_lost_wake_up(kind: type[Inbox]) -> None:
    found = finds(lambda: one_caller_and_a_sleeping_loop(kind))
    assert "deadlock" in str(found)


def test_the_search_finds_a_close_that_does_not_look_again() -> None:
    assert finds(lambda: callers_and_a_loop_that_ends(ClosesWithoutLookingAgain))


def test_the_search_finds_a_put_that_asks_too_early() -> None:
    assert finds(lambda: callers_and_a_loop_that_ends(AsksWithoutTheLock))


def test_a_failure_names_a_seed_with_which_it_comes_again() -> None:
    found: Any = finds(lambda: callers_and_a_loop_that_ends(ClosesWithoutLookingAgain))
    assert f"seed={found.failure.seed}" in str(found)
    assert found.failure.schedule.choices
