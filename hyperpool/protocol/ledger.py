"""The receive side of flow control (RFC 9113 5.2, 6.9): who holds how much of the credit that we granted.

Pure arithmetic. One ledger stands beside each stream and one beside each connection. The law (L7) is an equation that
holds after every call:

    granted = left + buffered + uncredited

``left`` is what the peer may still send, ``buffered`` what it sent and nobody consumed yet, ``uncredited`` what was
consumed and not yet given back. h2 keeps the same ``left`` for itself; it is what refuses a peer that sends more.
"""

from __future__ import annotations


class ReceiveLedger:
    """Credit granted to the peer for one stream or one connection.

    Owned by the loop thread.
    """

    __slots__ = ("buffered", "granted", "left", "uncredited", "window_bytes")

    def __init__(self, window_bytes: int) -> None:
        self.window_bytes = window_bytes
        self.granted = window_bytes
        self.left = window_bytes
        self.buffered = 0
        self.uncredited = 0

    def receive(self, flow_bytes: int) -> None:
        """The peer spent credit, padding included (RFC 9113 6.1)."""
        assert 0 <= flow_bytes <= self.left, "h2 refuses a peer that overruns its window"
        self.left -= flow_bytes
        self.buffered += flow_bytes

    def consume(self, flow_bytes: int) -> None:
        """The bytes left our memory, or will never be wanted: their credit may go back."""
        assert 0 <= flow_bytes <= self.buffered, "L7: more consumed than was received"
        self.buffered -= flow_bytes
        self.uncredited += flow_bytes

    def take_credit(self) -> int:
        """Bytes to grant now: 0 until half the window is due.

        Half, because each WINDOW_UPDATE costs a frame on both sides and the other half keeps the peer sending while
        it travels. At a quarter there are twice the frames; at all of it the peer stops for a round trip.
        """
        if self.uncredited * 2 < self.window_bytes:
            return 0
        credit, self.uncredited = self.uncredited, 0
        self.left += credit
        return credit

    @property
    def balanced(self) -> bool:
        """Whether L7 holds."""
        return self.granted == self.left + self.buffered + self.uncredited
