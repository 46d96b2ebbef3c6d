"""What a server saw: requests in order of arrival, connections, and errors that no test should have to guess.

Every thread of the server writes here, every test reads; nothing here decides anything.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

# Requests kept for `Server.requests`: more than a test looks at, and 50 MB at the very worst. Counts go on beyond it.
KEPT_REQUESTS = 10_000


@dataclass(slots=True, eq=False)
class SeenRequest:
    """One request that arrived.

    Written by the I/O thread of its connection; reading is safe from anywhere.

    ``headers`` are without pseudo-headers. ``body_bytes`` grows as the body arrives, whether or not a handler reads
    it; ``is_complete`` says that its end was seen. ``reset_code``: the peer reset the stream, with this code.
    """

    method: str
    target: str
    scheme: str
    authority: str
    headers: list[tuple[str, str]]
    http_version: str
    connection_number: int
    stream_id: int | None
    body_bytes: int = 0
    is_complete: bool = False
    reset_code: int | None = None


class Logbook:
    """The record of one server.

    Shared; guarded by _cond, which is notified of every change.
    """

    def __init__(self) -> None:
        self._cond = threading.Condition()
        self._requests: deque[SeenRequest] = deque(maxlen=KEPT_REQUESTS)
        self._errors: list[BaseException] = []
        self._handshake_errors: list[BaseException] = []
        self.accepted = 0
        self.open = 0
        self.most_open = 0

    def opened(self) -> int:
        """Count an accepted connection; returns its number, from 1."""
        with self._cond:
            self.accepted += 1
            self.open += 1
            self.most_open = max(self.most_open, self.open)
            self._cond.notify_all()
            return self.accepted

    def closed(self) -> None:
        with self._cond:
            self.open -= 1
            self._cond.notify_all()

    def saw(self, request: SeenRequest) -> None:
        with self._cond:
            self._requests.append(request)
            self._cond.notify_all()

    def changed(self) -> None:
        """Tell those who wait that a request's record grew."""
        with self._cond:
            self._cond.notify_all()

    def error(self, error: BaseException) -> None:
        with self._cond:
            self._errors.append(error)
            self._cond.notify_all()

    def handshake_error(self, error: BaseException) -> None:
        with self._cond:
            self._handshake_errors.append(error)
            self._cond.notify_all()

    def wait_until(self, predicate: Callable[[], bool], timeout_s: float) -> bool:
        """Block until the predicate holds; it is asked again after every change."""
        with self._cond:
            return self._cond.wait_for(predicate, timeout_s)

    @property
    def requests(self) -> list[SeenRequest]:
        with self._cond:
            return list(self._requests)

    @property
    def errors(self) -> list[BaseException]:
        with self._cond:
            return list(self._errors)

    @property
    def handshake_errors(self) -> list[BaseException]:
        with self._cond:
            return list(self._handshake_errors)
