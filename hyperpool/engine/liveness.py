"""Whether the peer of an HTTP/2 connection is there: PINGs, what waits for their answers, and when hope is given up.

A PING goes out when the peer was silent for too long while streams are open, with every reset (whose slot is free for
certain once it is answered), and with the first request after a silence, so that a flow that a NAT has forgotten is
found by this clock and not by a read timeout. One is under way at a time.

The clock does not stand behind the writer (L12): it runs from the moment in which the PING was wanted on the wire, be
it stuck there or not. It gives a peer more time only while bytes move: those that are read prove that it lives, and
those of ours that the socket takes, while the PING still stands behind them, prove that it is slow and not gone.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from hyperpool.handoff.deadlines import NEVER

if TYPE_CHECKING:
    from hyperpool.engine.transport import Transport
    from hyperpool.values import Limits

# An answer takes a round trip: 1 s is more than any but a satellite's. Until a later one comes, no new streams.
DOUBT_AFTER_S = 1.0
# A peer that moves bytes and never answers is given up after this many ping timeouts: no queue is that long.
MOST_TIMEOUTS = 6
# After this much calm a PING goes out every 16 minutes, and nobody would notice more of it.
MOST_CALM = 64


class Liveness:
    """What is known of one peer's being there.

    Owned by the loop thread. ``calm``: how many times rarer than usual the server wants its PINGs; 1 at first.
    """

    __slots__ = (
        "_asked_at",
        "_calm",
        "_limits",
        "_mark_bytes",
        "_moved_at",
        "_payload",
        "_resets_unproven",
        "_sent_bytes",
        "_wanted",
        "asked",
        "heard_at",
        "slots_held",
    )

    def __init__(self, limits: Limits, *, calm: int, now: float) -> None:
        self._limits = limits
        self._calm = calm
        self.heard_at = now
        # Whether a PING waits for its answer.
        self.asked = False
        self._asked_at = self._moved_at = -NEVER
        self._payload = b""
        self._wanted = False
        # Slots of reset streams that the peer may still count; those of them for which no PING has gone out.
        self.slots_held = 0
        self._resets_unproven = 0
        self._sent_bytes = self._mark_bytes = 0

    # -- what happens ----------------------------------------------------------------------------------------------

    def heard(self, now: float) -> None:
        """The peer has sent something."""
        self.heard_at = self._moved_at = now

    def ask(self) -> None:
        """A PING is due with what goes out next."""
        self._wanted = True

    def ask_after_silence(self, now: float) -> None:
        """The same, if nothing was heard for so long that the way to the peer may be gone."""
        self._wanted |= now >= self._silent_at

    def slot_given_back(self) -> None:
        """A stream was reset: its slot is not free before the peer has counted that."""
        self._resets_unproven += 1
        self.slots_held += 1

    def ping(self, now: float) -> bytes | None:
        """The PING that is to go out now, if any."""
        if self.asked or not self._due or now < self._next_ping_at:
            return None
        # Not to be met by a PING of the caller's, whose answer proves nothing about our resets.
        self._payload = random.randbytes(8)
        self.asked, self._wanted = True, False
        self._asked_at = self._moved_at = now
        self._mark_bytes = -1
        self._resets_unproven = 0
        return self._payload

    def flushed(self, wire: Transport, now: float) -> None:
        """Everything was offered to the socket: how far has it come?"""
        if self.asked and self._sent_bytes < min(self._mark_bytes, wire.sent_bytes):
            self._moved_at = now
        if self._mark_bytes < 0:
            self._mark_bytes = wire.sent_bytes + wire.backlog_bytes
        self._sent_bytes = wire.sent_bytes

    def pong(self, payload: bytes) -> None:
        """The peer has answered a PING; whether ours, its payload tells."""
        if self.asked and payload == self._payload:
            self.asked = False
            self.slots_held = self._resets_unproven

    # -- what that means -------------------------------------------------------------------------------------------

    def in_doubt(self, now: float) -> bool:
        """Whether the answer is late: better give new requests to others meanwhile."""
        return self.asked and now >= self._asked_at + DOUBT_AFTER_S

    def lost(self, now: float) -> bool:
        """Whether the answer does not come any more."""
        return self.asked and now >= self._lost_at

    def silent(self, now: float) -> bool:
        """Whether a peer that owes us answers has been silent for too long."""
        return not self.asked and now >= self._silent_at

    def next_at(self, now: float, *, owing: bool) -> float:
        """The next instant that changes one of these; ``owing``: whether the peer owes us anything."""
        if self.asked:
            doubt_at = self._asked_at + DOUBT_AFTER_S
            return min(doubt_at, self._lost_at) if now < doubt_at else self._lost_at
        silent_at = self._silent_at if owing else NEVER
        return max(self._next_ping_at, now) if self._due else max(silent_at, self._next_ping_at)

    @property
    def _due(self) -> bool:
        return self._wanted or self._resets_unproven > 0

    @property
    def _silent_at(self) -> float:
        after_s = self._limits.ping_after_s
        return NEVER if after_s is None else self.heard_at + after_s * self._calm

    @property
    def _next_ping_at(self) -> float:
        """No gap at first; 1 s when the server has asked for calm once, then 3, 7, 15 ..."""
        return self._asked_at + self._calm - 1

    @property
    def _lost_at(self) -> float:
        timeout_s = self._limits.ping_timeout_s
        return min(max(self._asked_at, self._moved_at) + timeout_s, self._asked_at + MOST_TIMEOUTS * timeout_s)
