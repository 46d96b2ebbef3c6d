"""The receive side of one HTTP/2 connection: what the peer is granted, when, and how far a window grows.

The arithmetic is `protocol.ledger`'s. When bytes count as consumed is the connection's to say: at once for itself, as a
reader takes them for a stream (L8).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from hyperpool.errors import LocalProtocolError
from hyperpool.protocol import h2_codec
from hyperpool.protocol.ledger import ManagedLedger, ReceiveLedger, WindowManager

if TYPE_CHECKING:
    from hyperpool.engine.h2_streams import Stream
    from hyperpool.protocol.h2_codec import H2Codec
    from hyperpool.values import Limits

# A window of 1 MiB holds nobody back over such a round trip: that would be 500 MB/s.
SHORT_ROUND_TRIP_S = 0.002
# Whose half a window is read within this many round trips is held back by the window.
WIDEN_WITHIN_ROUND_TRIPS = 2
# Credit goes back by halves of a window: with less than two round trips' bytes the peer would stop now and then.
WIDEN_FOR_ROUND_TRIPS = 3
WIDEST = 16


class Windows:
    """The windows of one connection: its own, and how those of its streams grow.

    Owned by the loop thread. Where the caller's window manager fails, a grant returns the error: what that ends, a
    stream or all of them, is the connection's to say.
    """

    def __init__(self, codec: H2Codec, limits: Limits, manager: Callable[[int], WindowManager] | None) -> None:
        self._h2 = codec
        self._limits = limits
        self._manager = manager
        # Whether a window manager of the caller's decides.
        self.managed = manager is not None
        self.ledger = self.new_ledger(max(limits.connection_window_bytes, h2_codec.INITIAL_WINDOW_BYTES))
        # From our SETTINGS to their acknowledgement; None before that.
        self.round_trip_s: float | None = None

    def new_ledger(self, window_bytes: int) -> ReceiveLedger:
        """A ledger of the kind that this connection has; LocalProtocolError where the caller's manager fails."""
        return ReceiveLedger(window_bytes) if self._manager is None else ManagedLedger(window_bytes, self._manager)

    def grant_connection(self) -> LocalProtocolError | None:
        """Send the connection's credit, if enough of it is due."""
        try:
            credit = self.ledger.take_credit()
        except LocalProtocolError as error:
            return error
        if credit:
            self._h2.grant(credit)
        return None

    def grant(self, stream: Stream, now: float) -> LocalProtocolError | None:
        """Send a stream's credit, if enough of it is due."""
        try:
            credit = stream.ledger.take_credit()
        except LocalProtocolError as error:
            return error
        if credit:
            self._h2.grant(credit + self._more_for(stream, credit, now), stream.stream_id)
        return None

    def _more_for(self, stream: Stream, read_bytes: int, now: float) -> int:
        """What a window grows by whose half was read so soon that the round trip must be what holds the peer back.

        To what would be read in a few round trips at this pace, and at least four times: a pace that is held back says
        little. By four alone, 100 MB over 1 Gbit/s and 50 ms lose a second round trip (docs/performance.md).
        """
        since_s, stream.credited_at = now - stream.credited_at, now
        round_trip_s = self.round_trip_s or 0.0
        soon_s = WIDEN_WITHIN_ROUND_TRIPS * round_trip_s if round_trip_s > SHORT_ROUND_TRIP_S else 0.0
        # Twice in one turn says nothing about time. A window manager of the caller's decides for itself.
        if not 0 < since_s < soon_s or self.managed:
            return 0
        most_bytes = self._limits.max_stream_window_bytes or WIDEST * self._limits.stream_window_bytes
        return stream.ledger.widen(most_bytes, int(read_bytes * WIDEN_FOR_ROUND_TRIPS * round_trip_s / since_s))
