"""How others end a dial: the loop that does not want it any more, and the child after a fork; and how they see what it
waits for.

A dial sleeps in a select; so whoever ends it, or has an answer for it, wakes it there.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, NamedTuple

from hyperpool.engine.wakeup import SocketWakeup

if TYPE_CHECKING:
    from collections.abc import Callable


class DialPhase(NamedTuple):
    """Where a dial stands. Immutable.

    ``name``: "dns", "tcp", "proxy" or "tls". ``waits``: what for, in words, which blame whoever owes it.
    """

    name: str
    waits: str


class DialCancel:
    """Ends dials from another thread, now and for ever.

    Shared; guarded by _lock. May be given to any number of dials. ``phase`` is swapped whole, by the one that told
    last; None when that has come to its end.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._wakeups: dict[SocketWakeup, Callable[[], None]] = {}
        self.cancelled = False
        self.phase: DialPhase | None = None

    def cancel(self) -> None:
        """Make the dials raise PoolClosed at once, and later ones as soon as they begin."""
        with self._lock:
            self.cancelled = True
            for wakeup in self._wakeups:
                wakeup.wake()

    def attach(self, abandon: Callable[[], None]) -> SocketWakeup:
        """Used by a dial: the new wake-up belongs to its selector.

        ``abandon`` closes the dial's sockets as they are.
        """
        wakeup = SocketWakeup()
        with self._lock:
            self._wakeups[wakeup] = abandon
        return wakeup

    def abandon_in_child(self) -> None:
        """After a fork, in the child: close the copies of the descriptors.

        The dialling threads are not here, and what they held would stay open: when the parent closes its connection,
        the server would not learn of it before the child has ended.
        """
        self._lock = threading.Lock()
        self.cancelled = True
        dials, self._wakeups = self._wakeups, {}
        for wakeup, abandon in dials.items():
            abandon()
            wakeup.close()

    def wake(self, wakeup: SocketWakeup) -> None:
        """Make one dial look around; nothing happens when it is over. Never blocks."""
        with self._lock:
            # The lock keeps the dial from closing the pair between look and send; one byte never waits.
            if wakeup in self._wakeups:
                wakeup.wake()

    def detach(self, wakeup: SocketWakeup) -> None:
        """Used by a dial that is over."""
        with self._lock:
            self._wakeups.pop(wakeup, None)
        wakeup.close()
