"""The receive side of flow control (RFC 9113 5.2, 6.9): who holds how much of the credit that we granted.

Pure arithmetic. One ledger stands beside each stream and one beside each connection. The law (L7) is an equation that
holds after every call:

    granted = left + buffered + uncredited

``left`` is what the peer may still send, ``buffered`` what it sent and nobody consumed yet, ``uncredited`` what was
consumed and not yet given back. h2 keeps the same ``left`` for itself; it is what refuses a peer that sends more.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from hyperpool.errors import LocalProtocolError

# RFC 9113 6.9.1.
LARGEST_WINDOW_BYTES = 2**31 - 1


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

    def pass_on(self, flow_bytes: int) -> None:
        """The peer spent credit, and the bytes are no concern of this window any more."""
        assert 0 <= flow_bytes <= self.left, "h2 refuses a peer that overruns its window"
        self.left -= flow_bytes
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

    def widen(self, most_bytes: int, wanted_bytes: int = 0) -> int:
        """Make the window as wide as wanted, at least four times, but not past ``most_bytes``; the bytes to grant now.

        Nor past what a window can be, whatever the caller's limits say (RFC 9113 6.9.1). By twice, 100 MB over a round
        trip of 50 ms would spend half of their time on growing.
        """
        widest = min(max(4 * self.window_bytes, wanted_bytes), most_bytes, LARGEST_WINDOW_BYTES)
        more = max(0, widest - self.window_bytes)
        self.window_bytes += more
        self.granted += more
        self.left += more
        return more

    @property
    def balanced(self) -> bool:
        """Whether L7 holds."""
        return self.granted == self.left + self.buffered + self.uncredited


class WindowManager(Protocol):
    """Who decides about credit in our place: hyper's flow-control managers (see `hyperpool.window`)."""

    document_size: int | None

    def _handle_frame(self, frame_size: int) -> int: ...


class ManagedLedger(ReceiveLedger):
    """A ledger whose credit is decided by a window manager: more than was consumed widens the window, less narrows it.

    Owned by the loop thread, on which the manager runs. Whatever that raises comes out as LocalProtocolError: code of
    the caller must not end the thread (L5).
    """

    __slots__ = ("_manager",)

    def __init__(self, window_bytes: int, manager: Callable[[int], WindowManager]) -> None:
        super().__init__(window_bytes)
        try:
            self._manager = manager(window_bytes)
        except BaseException as error:
            raise _failed(error) from error

    def expect(self, document_bytes: int | None) -> None:
        """Tell the manager how long the body is, where the response has said so."""
        try:
            self._manager.document_size = document_bytes
        except BaseException as error:
            raise _failed(error) from error

    def take_credit(self) -> int:
        """What the manager says to the bytes that were consumed since it was asked last."""
        if not self.uncredited:
            return 0
        try:
            credit = max(0, int(self._manager._handle_frame(self.uncredited)))
        except BaseException as error:
            raise _failed(error) from error
        if self.left + credit > LARGEST_WINDOW_BYTES:
            raise LocalProtocolError(f"a window manager widened a window to {self.left + credit:,} bytes, past 2**31-1")
        self.granted += credit - self.uncredited
        self.left += credit
        self.uncredited = 0
        return credit


def _failed(error: BaseException) -> LocalProtocolError:
    return LocalProtocolError(f"a window manager failed: {error!r}")
