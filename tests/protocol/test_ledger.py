"""The receive ledger: L7 as an equation that holds whatever happens."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from hyperpool.protocol.ledger import ReceiveLedger

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
