"""What other threads say to a loop. Immutable; the loop dispatches on the class.

`Dialed` and `DialFailed` come from a dialling thread, everything else from callers, readers, uploaders and finalizers.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hyperpool.handoff.exchange import Exchange


@dataclass(frozen=True, slots=True)
class Submit:
    """Carry out this exchange."""

    exchange: Exchange


@dataclass(frozen=True, slots=True)
class Cancel:
    """Nobody wants this exchange any more: its Future was cancelled, or its response closed."""

    exchange: Exchange


@dataclass(frozen=True, slots=True)
class Consumed:
    """A reader has taken this many body bytes: their credit may go back to the peer (L8)."""

    exchange: Exchange
    body_bytes: int


@dataclass(frozen=True, slots=True)
class UploadReady:
    """An upload that had run dry has bytes again, has ended, or has failed."""

    exchange: Exchange


@dataclass(frozen=True, slots=True)
class Prewarm:
    """Open connections until there are this many."""

    connections: int


@dataclass(frozen=True, slots=True)
class Connect:
    """Resolve this Future with "HTTP/2" or "HTTP/1.1" once there is a connection, or with why there is none."""

    connected: Future[str]
    deadline_at: float


@dataclass(frozen=True, slots=True)
class Ping:
    """Send these eight bytes on every HTTP/2 connection (RFC 9113 6.7)."""

    payload: bytes


@dataclass(frozen=True, slots=True)
class Dialed:
    """A connection is ready; the dialling thread has forgotten it."""

    dialed: Any


@dataclass(frozen=True, slots=True)
class DialFailed:
    """No connection could be made."""

    error: BaseException


@dataclass(frozen=True, slots=True)
class Retire:
    """Let every connection finish and close: the pool needs room for another origin. What still comes is served."""


@dataclass(frozen=True, slots=True)
class Drain:
    """Call ``answered`` when no Future is left to be resolved. Everything goes on as before."""

    answered: Callable[[], None]


@dataclass(frozen=True, slots=True)
class Close:
    """Take nothing new, let exchanges finish until ``grace_at`` (a monotonic instant), then end.

    ``code`` goes out with the GOAWAY, and with the reset of each stream that is still open (RFC 9113 7).
    """

    grace_at: float
    code: int = 0
