"""The receive ledger: L7 as an equation that holds whatever happens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from hyperpool.errors import LocalProtocolError
from hyperpool.protocol.ledger import LARGEST_WINDOW_BYTES, ManagedLedger, ReceiveLedger

# On a busy machine an example may take long: that is no failure.
unhurried = settings(deadline=None)


class Ledgers(RuleBasedStateMachine):
    """Any sequence of what peers, readers and loops do with credit."""

    def __init__(self) -> None:
        super().__init__()
        self.ledger = ReceiveLedger(1_000)
        self.sent = self.consumed = self.credited = 0

    @rule(share=st.floats(0, 1))
    def the_peer_sends(self, share: float) -> None:
        size = int(self.ledger.left * share)
        self.ledger.receive(size)
        self.sent += size

    @rule(share=st.floats(0, 1))
    def somebody_consumes(self, share: float) -> None:
        size = int(self.ledger.buffered * share)
        self.ledger.consume(size)
        self.consumed += size

    @rule()
    def the_loop_credits(self) -> None:
        credit = self.ledger.take_credit()
        self.credited += credit
        assert credit == 0 or credit * 2 >= self.ledger.window_bytes

    @precondition(lambda self: self.ledger.buffered == 0)
    @rule()
    def a_peer_whose_bytes_are_all_consumed_is_not_stuck(self) -> None:
        self.credited += self.ledger.take_credit()
        assert self.ledger.left * 2 > self.ledger.window_bytes

    @invariant()
    def credit_is_conserved(self) -> None:
        """L7."""
        assert self.ledger.balanced
        assert self.ledger.granted == 1_000

    @invariant()
    def every_byte_stands_in_one_place(self) -> None:
        """L7, against a second book that was kept outside."""
        ledger = self.ledger
        assert ledger.left == 1_000 - self.sent + self.credited
        assert ledger.buffered == self.sent - self.consumed
        assert ledger.uncredited == self.consumed - self.credited

    @invariant()
    def nothing_is_negative(self) -> None:
        assert min(self.ledger.left, self.ledger.buffered, self.ledger.uncredited) >= 0


TestLedgers = Ledgers.TestCase
TestLedgers.settings = settings(deadline=None, max_examples=40, stateful_step_count=25)


def test_a_fresh_ledger_has_granted_its_window() -> None:
    ledger = ReceiveLedger(100)
    assert (ledger.granted, ledger.left, ledger.buffered, ledger.uncredited) == (100, 100, 0, 0)


@unhurried
@given(window=st.integers(1, 2**31 - 1), share=st.floats(0, 1))
def test_credit_is_due_from_half_the_window_on(window: int, share: float) -> None:
    """L8: not a frame for every byte, not a round trip of silence either."""
    ledger = ReceiveLedger(window)
    taken = int(window * share)
    ledger.receive(taken)
    ledger.consume(taken)
    assert ledger.take_credit() == (taken if taken * 2 >= window else 0)


def test_received_bytes_give_no_credit_before_they_are_consumed() -> None:
    """L8: stream credit on consumption."""
    ledger = ReceiveLedger(100)
    ledger.receive(100)
    assert ledger.take_credit() == 0


def test_credit_is_given_once() -> None:
    """L7: given twice, the peer could send more than memory was set aside for."""
    ledger = ReceiveLedger(100)
    ledger.receive(80)
    ledger.consume(80)
    assert [ledger.take_credit(), ledger.take_credit()] == [80, 0]


@pytest.mark.parametrize("size", [101, -1])
def test_more_than_the_window_cannot_be_received(size: int) -> None:
    """h2 refuses it before (RFC 9113 6.9)."""
    with pytest.raises(AssertionError):
        ReceiveLedger(100).receive(size)


@pytest.mark.parametrize("size", [11, -1])
def test_more_than_was_received_cannot_be_consumed(size: int) -> None:
    """L7."""
    ledger = ReceiveLedger(100)
    ledger.receive(10)
    with pytest.raises(AssertionError):
        ledger.consume(size)


def test_a_ledger_that_lost_a_byte_is_not_balanced() -> None:
    """L7: the check itself sees."""
    ledger = ReceiveLedger(100)
    ledger.left -= 1
    assert not ledger.balanced


# --- a ledger whose credit a manager decides -------------------------------------------------------------------------


class Manager:
    """Says what it was told to say."""

    def __init__(self, window_bytes: int) -> None:
        self.window_bytes = window_bytes
        self.document_size: int | None = None
        self.heard: list[int] = []
        self.says: Callable[[int], Any] = lambda frame_bytes: frame_bytes

    def _handle_frame(self, frame_size: int) -> Any:
        self.heard.append(frame_size)
        return self.says(frame_size)


def managed(window_bytes: int = 1_000) -> tuple[ManagedLedger, Manager]:
    made: list[Manager] = []

    def make(size: int) -> Manager:
        made.append(Manager(size))
        return made[-1]

    return ManagedLedger(window_bytes, make), made[0]


def raising(error: BaseException) -> Callable[[int], Any]:
    def say(_: int) -> Any:
        raise error

    return say


class ManagedLedgers(RuleBasedStateMachine):
    """Whatever a manager answers, and whenever."""

    def __init__(self) -> None:
        super().__init__()
        self.ledger, self.manager = managed()
        self.sent = self.credited = 0

    @rule(share=st.floats(0, 1))
    def the_peer_sends(self, share: float) -> None:
        size = int(self.ledger.left * share)
        self.ledger.receive(size)
        self.sent += size

    @rule(share=st.floats(0, 1), says=st.integers(-10, 5_000) | st.none() | st.floats() | st.just(2**31))
    def somebody_consumes_and_the_manager_is_asked(self, share: float, says: Any) -> None:
        self.ledger.consume(int(self.ledger.buffered * share))
        self.manager.says = lambda _: says
        before = self.ledger.left
        try:
            credit = self.ledger.take_credit()
        except LocalProtocolError:
            assert self.ledger.left == before
        else:
            self.credited += credit
            assert credit >= 0 and self.ledger.uncredited == 0

    @invariant()
    def credit_is_conserved(self) -> None:
        """L7."""
        assert self.ledger.balanced
        assert self.ledger.left == 1_000 - self.sent + self.credited
        assert 0 <= self.ledger.left < 2**31


TestManagedLedgers = ManagedLedgers.TestCase
TestManagedLedgers.settings = settings(deadline=None, max_examples=40, stateful_step_count=25)


class TestManaged:
    def test_the_manager_is_made_for_the_window(self) -> None:
        ledger, manager = managed(777)
        assert manager.window_bytes == ledger.left == ledger.granted == 777

    def test_it_hears_of_what_was_consumed_since_it_was_asked_last(self) -> None:
        ledger, manager = managed()
        ledger.receive(300)
        assert ledger.take_credit() == 0 and manager.heard == []
        ledger.consume(100)
        ledger.consume(50)
        assert ledger.take_credit() == 150
        assert ledger.take_credit() == 0 and manager.heard == [150]

    @pytest.mark.parametrize(("said", "credit"), [(0, 0), (-5, 0), (10, 10), (500, 500), (2.9, 2), (True, 1)])
    def test_its_answer_is_the_credit(self, said: Any, credit: int) -> None:
        """L7: more than was consumed widens what is granted, less narrows it."""
        ledger, manager = managed()
        ledger.receive(100)
        ledger.consume(100)
        manager.says = lambda _: said
        assert ledger.take_credit() == credit
        assert (ledger.granted, ledger.left) == (900 + credit, 900 + credit) and ledger.balanced

    def test_the_largest_window_is_the_last_that_is_allowed(self) -> None:
        """RFC 9113 6.9.1."""
        ledger, manager = managed()
        ledger.receive(1)
        ledger.consume(1)
        manager.says = lambda _: LARGEST_WINDOW_BYTES - 998
        with pytest.raises(LocalProtocolError, match="past 2"):
            ledger.take_credit()
        manager.says = lambda _: LARGEST_WINDOW_BYTES - 999
        assert ledger.take_credit() == LARGEST_WINDOW_BYTES - 999 and ledger.left == LARGEST_WINDOW_BYTES

    @pytest.mark.parametrize(
        "says",
        [raising(ValueError("mine")), raising(SystemExit(3)), lambda _: None, lambda _: "many", lambda _: float("nan")],
    )
    def test_what_it_does_wrong_is_an_error_of_ours_and_changes_nothing(self, says: Callable[[int], Any]) -> None:
        ledger, manager = managed()
        ledger.receive(100)
        ledger.consume(60)
        manager.says = says
        with pytest.raises(LocalProtocolError, match="window manager") as caught:
            ledger.take_credit()
        assert caught.value.__cause__ is not None
        assert (ledger.left, ledger.buffered, ledger.uncredited) == (900, 40, 60) and ledger.balanced

    @pytest.mark.parametrize("error", [ValueError("mine"), KeyboardInterrupt()])
    def test_one_that_cannot_be_made_is_an_error_of_ours(self, error: BaseException) -> None:
        with pytest.raises(LocalProtocolError, match="window manager") as caught:
            ManagedLedger(1_000, raising(error))
        assert caught.value.__cause__ is error

    def test_it_is_told_the_length_of_the_body(self) -> None:
        ledger, manager = managed()
        ledger.expect(500)
        assert manager.document_size == 500
        ledger.expect(None)
        assert manager.document_size is None

    def test_one_that_can_be_told_nothing_is_an_error_of_ours(self) -> None:
        class Slotted:
            __slots__ = ()

        ledger = ManagedLedger(1_000, lambda _: Slotted())  # type: ignore[arg-type,return-value]
        with pytest.raises(LocalProtocolError, match="document_size"):
            ledger.expect(5)


def test_a_window_grows_up_to_its_bound_and_the_ledger_balances() -> None:
    ledger = ReceiveLedger(100_000)
    ledger.receive(60_000)
    assert [ledger.widen(450_000) for _ in range(3)] == [300_000, 50_000, 0]
    assert (ledger.window_bytes, ledger.left, ledger.balanced) == (450_000, 390_000, True)


def test_a_window_that_is_wider_than_the_bound_stays() -> None:
    ledger = ReceiveLedger(100_000)
    assert ledger.widen(70_000) == 0
    assert ledger.window_bytes == 100_000


@pytest.mark.parametrize("window_bytes", [1 << 29, 1 << 30, 2**31 - 1])
def test_no_window_is_widened_past_what_a_window_can_be(window_bytes: int) -> None:
    """RFC 9113 6.9.1. What is granted beyond that, h2 refuses to write, which ended the I/O thread."""
    ledger = ReceiveLedger(window_bytes)
    ledger.widen(16 * window_bytes, 8 * window_bytes)
    assert ledger.window_bytes == ledger.left == 2**31 - 1 and ledger.balanced


def test_a_window_is_widened_to_what_is_wanted_within_its_bound() -> None:
    widened = [ReceiveLedger(100_000).widen(1_000_000, wanted) for wanted in (50_000, 500_000, 2_000_000)]
    assert widened == [300_000, 400_000, 900_000]
