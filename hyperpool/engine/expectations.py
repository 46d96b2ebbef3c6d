"""Request bodies that wait for the server's word: ``Expect: 100-continue`` (RFC 9110 10.1.1).

Such a body is not even opened before it may go, so a request that is refused, redirected or challenged meanwhile can go
out again whatever its body is. It goes after a 100, or when the server has said nothing for `Limits.continue_after_s`;
after a final status of 300 or more it never does.
"""

from __future__ import annotations

from hyperpool.errors import HyperpoolError
from hyperpool.handoff.deadlines import NEVER
from hyperpool.handoff.exchange import Exchange

# What the server says to let the body come (RFC 9110 15.2.1).
CONTINUE = 100
# The first status that says it does not want the body. An answer of 2xx that comes without a 100 is one of a server
# that knows no expectations, and may be waiting for the body itself.
REFUSAL = 300


class Expectations:
    """The bodies of one connection that wait.

    Owned by the loop thread. ``held`` has the instant until which each waits; nearly always it is empty, and looking
    there costs a request nothing.
    """

    def __init__(self, wait_s: float) -> None:
        self._wait_s = wait_s
        # In the order of the instants, since all wait for as long.
        self.held: dict[Exchange, float] = {}

    def hold(self, exchange: Exchange, now: float) -> None:
        """Its head has gone out; its body waits."""
        assert exchange.request_body is not None
        exchange.request_body.starved = True
        self.held[exchange] = now + self._wait_s

    def next_at(self) -> float:
        """When the first of them has waited long enough."""
        return next(iter(self.held.values()), NEVER)

    def overdue(self, now: float) -> list[Exchange]:
        """Those that have."""
        return [exchange for exchange, until_at in self.held.items() if until_at <= now]

    def release(self, exchange: Exchange, now: float) -> HyperpoolError | None:
        """Its body may go; the error where no thread can be started for it."""
        self.forget(exchange)
        try:
            exchange.release_upload(now)
        except RuntimeError as cause:
            failed = HyperpoolError(f"the upload could not be started: {cause}", **exchange.where())
            failed.__cause__ = cause
            return failed
        return None

    def refuse(self, exchange: Exchange) -> None:
        """Its body never goes: from here on the server is waited for, and nothing else."""
        self.forget(exchange)
        assert exchange.request_body is not None
        exchange.request_body.refuse()

    def forget(self, exchange: Exchange) -> None:
        """It is over, or goes on elsewhere."""
        self.held.pop(exchange, None)
