"""What other threads say to a loop. The loop dispatches on the class.

`Dialed` and `DialFailed` come from a dialling thread, everything else from callers, readers, uploaders and finalizers.
No dataclasses: one costs half a millisecond of `import hyperpool`, and a frozen one three times as much per message.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    from hyperpool.handoff.exchange import Exchange


class Message:
    """Whatever a loop may be told.

    Immutable by custom: whoever has made one puts it into an inbox, and lets go of it.
    """

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Message) and self.__class__ is other.__class__ and self._said() == other._said()

    __hash__ = None  # type: ignore[assignment]  # what it says may have none

    def __repr__(self) -> str:
        return f"{self.__class__.__name__}({', '.join(f'{name}={what!r}' for name, what in self._said().items())})"

    def _said(self) -> dict[str, Any]:
        slots = [name for kind in reversed(self.__class__.__mro__) for name in getattr(kind, "__slots__", ())]
        return {name: getattr(self, name) for name in slots}


class _OfExchange(Message):
    """What is about one exchange."""

    __slots__ = ("exchange",)

    def __init__(self, exchange: Exchange) -> None:
        self.exchange = exchange


class Submit(_OfExchange):
    """Carry out this exchange."""

    __slots__ = ()


class Cancel(_OfExchange):
    """Nobody wants this exchange any more: its Future was cancelled, or its response closed."""

    __slots__ = ()


class Consumed(_OfExchange):
    """A reader has taken this many body bytes: their credit may go back to the peer (L8)."""

    __slots__ = ("body_bytes",)

    def __init__(self, exchange: Exchange, body_bytes: int) -> None:
        self.exchange = exchange
        self.body_bytes = body_bytes


class UploadReady(_OfExchange):
    """An upload that had run dry has bytes again, has ended, or has failed."""

    __slots__ = ()


class Prewarm(Message):
    """Open connections until there are this many."""

    __slots__ = ("connections",)

    def __init__(self, connections: int) -> None:
        self.connections = connections


class Connect(Message):
    """Resolve this Future with "HTTP/2" or "HTTP/1.1" once there is a connection, or with why there is none.

    ``timeout_s``: the seconds that end at ``deadline_at``, None for none.
    """

    __slots__ = ("connected", "deadline_at", "timeout_s")

    def __init__(self, connected: Future[str], deadline_at: float, timeout_s: float | None) -> None:
        self.connected = connected
        self.deadline_at = deadline_at
        self.timeout_s = timeout_s


class Ping(Message):
    """Send these eight bytes on every HTTP/2 connection (RFC 9113 6.7)."""

    __slots__ = ("payload",)

    def __init__(self, payload: bytes) -> None:
        self.payload = payload


class Dialed(Message):
    """A connection is ready; the dialling thread has forgotten it."""

    __slots__ = ("dialed",)

    def __init__(self, dialed: Any) -> None:
        self.dialed = dialed


class DialFailed(Message):
    """No connection could be made."""

    __slots__ = ("error",)

    def __init__(self, error: BaseException) -> None:
        self.error = error


class Retire(Message):
    """Let every connection finish and close: the pool needs room for another origin. What still comes is served."""

    __slots__ = ()


class Drain(Message):
    """Call ``answered`` when no Future is left to be resolved. Everything goes on as before."""

    __slots__ = ("answered",)

    def __init__(self, answered: Callable[[], None]) -> None:
        self.answered = answered


class Close(Message):
    """Take nothing new, let exchanges finish until ``grace_at`` (a monotonic instant), then end.

    ``code`` goes out with the GOAWAY, and with the reset of each stream that is still open (RFC 9113 7).
    """

    __slots__ = ("grace_at", "code")  # noqa: RUF023 - in the order of the arguments

    def __init__(self, grace_at: float, code: int = 0) -> None:
        self.grace_at = grace_at
        self.code = code
