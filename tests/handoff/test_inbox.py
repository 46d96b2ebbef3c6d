"""The inbox: L2 and L3, with each race that could break them built by hand."""

from __future__ import annotations

import itertools
import selectors
import threading
from collections import deque

import pytest
from handoff_kit import WAIT_S, FakeWakeup
from hypothesis import given, settings
from hypothesis import strategies as st

from hyperpool.engine.wakeup import SocketWakeup
from hyperpool.handoff.inbox import Inbox, InboxClosed

# On a busy machine an example may take long: that is no failure.
unhurried = settings(deadline=None)


def a_sleeping_inbox() -> tuple[Inbox, FakeWakeup]:
    wakeup = FakeWakeup()
    inbox = Inbox(wakeup)
    assert inbox.may_sleep()
    return inbox, wakeup


def is_free(inbox: Inbox) -> bool:
    """Asked by another thread: could it enter the inbox now?"""
    if inbox._lock.acquire(blocking=False):
        inbox._lock.release()
        return True
    return False


class TestWakeUps:
    def test_a_put_wakes_a_sleeping_loop(self) -> None:
        """L3."""
        inbox, wakeup = a_sleeping_inbox()
        inbox.put("a")
        assert wakeup.woken == 1

    def test_a_put_costs_a_busy_loop_nothing(self) -> None:
        """L3: a byte is sent only when the flag was down."""
        wakeup = FakeWakeup()
        Inbox(wakeup).put("a")
        assert wakeup.woken == 0

    def test_many_puts_wake_once(self) -> None:
        """L3: a byte is sent only when the flag was down."""
        inbox, wakeup = a_sleeping_inbox()
        for item in range(100):
            inbox.put(item)
        assert wakeup.woken == 1

    def test_a_loop_that_has_taken_is_awake(self) -> None:
        """L3: taking clears the flag."""
        inbox, wakeup = a_sleeping_inbox()
        inbox.take()
        inbox.put("a")
        assert wakeup.woken == 0

    def test_a_put_between_drain_and_take_is_taken_at_once(self) -> None:
        """L3: drain before take. Taken first, the item's byte would be drained behind it, and the item would sleep."""
        inbox, wakeup = a_sleeping_inbox()
        wakeup.on_drain = lambda: inbox.put("from another thread")
        assert list(inbox.take()) == ["from another thread"]

    def test_the_bytes_are_drained_before_the_flag_is_cleared(self) -> None:
        """L3: a put during the drain still finds the flag and wakes: at worst one empty turn."""
        inbox, wakeup = a_sleeping_inbox()
        wakeup.on_drain = lambda: inbox.put("a")
        inbox.take()
        assert wakeup.woken == 1

    def test_a_loop_that_something_else_woke_takes_without_draining(self) -> None:
        """L4: no system call for bytes that the selector has not seen."""
        inbox, wakeup = a_sleeping_inbox()
        inbox.put("a")
        assert list(inbox.take(woken=False)) == ["a"]
        assert wakeup.woken == 1

    def test_a_byte_that_nobody_drained_costs_one_empty_turn(self) -> None:
        """L3, with the real socketpair: it wakes the next select, is drained there, and is gone."""
        wakeup = SocketWakeup()
        inbox = Inbox(wakeup)
        with selectors.DefaultSelector() as selector:
            selector.register(wakeup.receiver, selectors.EVENT_READ)
            inbox.may_sleep()
            inbox.put("a")
            inbox.take(woken=False)
            turns = []
            for _ in range(2):
                turns.append(bool(selector.select(0)))
                inbox.take(woken=turns[-1])
        wakeup.close()
        assert turns == [True, False]

    def test_no_item_is_left_without_a_byte_when_the_loop_goes_to_sleep(self) -> None:
        """L3: put between the last take and may_sleep: the loop is told not to sleep."""
        inbox, _ = a_sleeping_inbox()
        inbox.take()
        inbox.put("a")
        assert not inbox.may_sleep()

    def test_a_put_after_a_refused_sleep_needs_no_byte(self) -> None:
        inbox = Inbox(wakeup := FakeWakeup())
        inbox.put("a")
        inbox.may_sleep()
        inbox.put("b")
        assert wakeup.woken == 0

    def test_a_put_between_may_sleep_and_select_ends_the_select(self) -> None:
        """L3, with the real socketpair: the byte lies there before the selector looks."""
        wakeup = SocketWakeup()
        inbox = Inbox(wakeup)
        with selectors.DefaultSelector() as selector:
            selector.register(wakeup.receiver, selectors.EVENT_READ)
            assert inbox.may_sleep()
            inbox.put("a")
            woke = selector.select(WAIT_S)
        wakeup.close()
        assert woke

    def test_a_drained_socketpair_is_silent(self) -> None:
        """L3: no byte stays behind to make an idle loop turn for ever."""
        wakeup = SocketWakeup()
        inbox = Inbox(wakeup)
        with selectors.DefaultSelector() as selector:
            selector.register(wakeup.receiver, selectors.EVENT_READ)
            for item in range(3):
                inbox.may_sleep()
                inbox.put(item)
                inbox.take()
            woke = selector.select(0)
        wakeup.close()
        assert not woke


class TestTheLock:
    """The flag and the items change together: a second thread is held out in between."""

    def test_a_put_asks_for_the_flag_and_wakes_under_the_lock(self, in_thread) -> None:
        """L3: else a loop could take the item, and sleep, before the byte goes out, and the byte would be stale."""
        inbox, wakeup = a_sleeping_inbox()
        seen: list[bool] = []
        wakeup.on_wake = lambda: seen.append(in_thread(lambda: is_free(inbox)).value())
        inbox.put("a")
        assert seen == [False]

    def test_a_loop_that_is_about_to_sleep_decides_under_the_lock(self, in_thread) -> None:
        """L3: between "nothing is here" and the flag no put may come."""
        inbox = Inbox(FakeWakeup())
        others: list[bool] = []

        class Watched(list):
            def __bool__(self) -> bool:
                others.append(in_thread(lambda: is_free(inbox)).value())
                return False

        inbox._items = Watched()
        inbox.may_sleep()
        assert others == [False]

    def test_closing_when_empty_decides_under_the_lock(self, in_thread) -> None:
        """L2: between "nothing is here" and closed no put may come."""
        inbox = Inbox(FakeWakeup())
        others: list[bool] = []

        class Watched(list):
            def __bool__(self) -> bool:
                others.append(in_thread(lambda: is_free(inbox)).value())
                return False

        inbox._items = Watched()
        inbox.close_if_empty()
        assert others == [False]

    @pytest.mark.parametrize("act", ["take", "close"])
    def test_items_change_hands_under_the_lock(self, in_thread, act: str) -> None:
        """L2: an item put meanwhile would go into a queue that nobody reads."""
        inbox = Inbox(FakeWakeup())
        with inbox._lock:
            loop = in_thread(getattr(inbox, act))
            inbox.put("before the lock was let go")
        assert list(loop.value()) == ["before the lock was let go"]

    def test_a_put_that_begins_when_the_loop_lets_the_lock_go_is_taken_next(self, in_thread) -> None:
        """L2, with a lock that lies: it lets a put in before the loop may go on.

        Were the items swapped after the lock, that put would hold the old queue, and append to it when it was read.
        """
        inbox = Inbox(FakeWakeup())
        moved, gate, threads = threading.Event(), threading.Event(), []

        class SlowQueue(deque):
            def append(self, item: object) -> None:
                moved.set()
                assert gate.wait(WAIT_S)
                super().append(item)

        def put_late() -> None:
            inbox.put("late")
            moved.set()

        class LyingLock:
            def __init__(self) -> None:
                self._lock = inbox._lock
                self._lies = 1

            def __enter__(self) -> None:
                self._lock.acquire()

            def __exit__(self, *exc_info: object) -> None:
                self._lock.release()
                if self._lies:
                    self._lies = 0
                    threads.append(in_thread(put_late))
                    assert moved.wait(WAIT_S)

        inbox._items, inbox._lock = SlowQueue(), LyingLock()
        got = list(inbox.take())
        gate.set()
        threads[0].value()
        assert got + list(inbox.take()) == ["late"]

    def test_a_finalizer_may_put_in_the_middle_of_a_put_of_its_own_thread(self) -> None:
        """The lock is re-entrant; a plain one would hang here."""
        inbox, wakeup = a_sleeping_inbox()
        wakeup.on_wake = lambda: inbox.put("finalizer")
        inbox.put("caller")
        assert list(inbox.take()) == ["caller", "finalizer"]

    def test_a_wake_up_that_is_interrupted_is_made_by_the_next_put(self) -> None:
        """L3: Ctrl-C between the flag and the byte."""
        inbox, wakeup = a_sleeping_inbox()

        def interrupt() -> None:
            wakeup.woken = 0
            raise KeyboardInterrupt

        wakeup.on_wake = interrupt
        with pytest.raises(KeyboardInterrupt):
            inbox.put("interrupted")
        wakeup.on_wake = lambda: None
        inbox.put("next")
        assert wakeup.woken == 1
        assert list(inbox.take()) == ["interrupted", "next"]

    def test_drain_runs_without_the_lock(self, in_thread) -> None:
        """Section 4: no lock is held over I/O."""
        inbox, wakeup = a_sleeping_inbox()
        seen: list[bool] = []
        wakeup.on_drain = lambda: seen.append(in_thread(lambda: is_free(inbox)).value())
        inbox.take()
        assert seen == [True]


class TestOrderAndEnd:
    def test_items_come_in_the_order_of_their_puts(self) -> None:
        inbox = Inbox(FakeWakeup())
        for item in "abc":
            inbox.put(item)
        assert list(inbox.take()) == ["a", "b", "c"]

    def test_an_item_is_taken_once(self) -> None:
        inbox = Inbox(FakeWakeup())
        inbox.put("a")
        inbox.take()
        assert not inbox.take()

    def test_a_put_after_close_raises(self) -> None:
        """L2."""
        inbox = Inbox(FakeWakeup())
        inbox.close()
        with pytest.raises(InboxClosed):
            inbox.put("a")

    def test_a_refused_item_is_not_kept(self) -> None:
        """L2: who is refused will ask somebody else; handled here too, the request would be sent twice."""
        inbox = Inbox(FakeWakeup())
        inbox.close()
        with pytest.raises(InboxClosed):
            inbox.put("a")
        assert not inbox.take()

    def test_close_hands_out_what_is_left(self) -> None:
        """L2, L5: a put that returned will be handled."""
        inbox = Inbox(FakeWakeup())
        inbox.put("a")
        assert list(inbox.close()) == ["a"]

    def test_close_hands_out_again_what_was_not_taken_out(self) -> None:
        """L5: where there was no memory to settle it, it is still owed that."""
        inbox = Inbox(FakeWakeup())
        inbox.put("a")
        inbox.put("b")
        inbox.close().popleft()
        assert list(inbox.close()) == ["b"]

    def test_close_hands_out_what_was_taken_and_not_acted_on(self) -> None:
        """L5: the loop crashed in the middle of a turn."""
        inbox = Inbox(FakeWakeup())
        inbox.put("a")
        inbox.put("b")
        inbox.take().popleft()
        inbox.put("c")
        assert list(inbox.close()) == ["b", "c"]

    def test_an_empty_inbox_closes_when_asked(self) -> None:
        """L2."""
        inbox = Inbox(FakeWakeup())
        assert inbox.close_if_empty()
        with pytest.raises(InboxClosed):
            inbox.put("a")

    def test_an_inbox_with_a_message_does_not_close(self) -> None:
        """L2: the message came just as the loop wanted to end; it must go on."""
        inbox = Inbox(FakeWakeup())
        inbox.put("a")
        assert not inbox.close_if_empty()
        inbox.put("b")
        assert list(inbox.take()) == ["a", "b"]

    def test_a_closed_inbox_stays_closed(self) -> None:
        """L10's cousin: whoever asks again hears the same."""
        inbox = Inbox(FakeWakeup())
        inbox.close()
        assert inbox.close_if_empty()


class TestInAForkedChild:
    """X1: the parent's loop is not here, and its lock may be held by a thread that is not here either."""

    def test_a_put_is_refused_although_the_lock_was_held(self, in_thread) -> None:
        inbox, _ = a_sleeping_inbox()
        in_thread(inbox._lock.acquire).value()
        inbox.abandon_in_child()
        with pytest.raises(InboxClosed):
            inbox.put("a")

    def test_what_waited_is_dropped(self) -> None:
        """The parent handles it; handled here too, it would be sent twice."""
        inbox, _ = a_sleeping_inbox()
        inbox.put("a")
        inbox.abandon_in_child()
        assert not inbox.close()

    def test_what_is_dropped_does_not_wake_the_parent(self) -> None:
        """Its finalizer may put: the wake-up's socket belongs to the parent."""
        inbox, wakeup = a_sleeping_inbox()
        refused: list[bool] = []

        class WithFinalizer:
            def __del__(self) -> None:
                try:
                    inbox.put("finalizer")
                except InboxClosed:
                    refused.append(True)

        inbox._items.append(WithFinalizer())
        inbox.abandon_in_child()
        assert (refused, wakeup.woken) == ([True], 0)


@unhurried
@given(st.lists(st.sampled_from(["put", "sleep", "take"]), max_size=40))
def test_a_waiting_item_is_never_asleep_without_a_byte(acts: list[str]) -> None:
    """L3 as an invariant: wherever the loop may sleep with items there, a byte is on its way."""
    wakeup = FakeWakeup()
    inbox, number = Inbox(wakeup), itertools.count()
    sleeping = False
    for act in acts:
        if act == "put":
            inbox.put(next(number))
        elif act == "sleep":
            sleeping = inbox.may_sleep()
        else:
            inbox.take()
            sleeping = False
        assert not (sleeping and inbox._items) or wakeup.woken


def test_everything_that_eight_threads_put_before_the_close_is_handled(in_thread) -> None:
    """L2 with real threads: what was put and not refused is what the loop got, each item once."""
    inbox = Inbox(FakeWakeup())
    start = threading.Barrier(9)
    accepted: list[list[int]] = [[] for _ in range(8)]

    def put_all(mine: list[int], first: int) -> None:
        start.wait(WAIT_S)
        for item in range(first, first + 500):
            try:
                inbox.put(item)
            except InboxClosed:
                return
            mine.append(item)

    threads = [in_thread(lambda at=at: put_all(accepted[at], at * 500)) for at in range(8)]
    start.wait(WAIT_S)
    got = [item for _ in range(20) for item in inbox.take()]
    got += inbox.close()
    for thread in threads:
        thread.value()
    assert sorted(got) == sorted(itertools.chain(*accepted))
