"""`HTTPResponse`: the standard library's, with HTTP/2 in it, and without bodies that look whole and are not.

Given a socket of somebody else's, as tests and other libraries do, it is the standard library's and nothing more.
"""

from __future__ import annotations

import functools
import http.client as standard
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, TypeVar

from hyperpool.http_client.answer import Answer

P = ParamSpec("P")
T = TypeVar("T")

# Kept now: programs put ours into this module in their place.
_Standard = standard.HTTPResponse


def _noted(step: Callable[Concatenate[HTTPResponse, P], T]) -> Callable[Concatenate[HTTPResponse, P], T]:
    """A way of reading, after which nobody reads on where it was interrupted: its bytes are in frames that are gone.

    One way may go by another, as the standard library's do.
    """

    @functools.wraps(step)
    def noted(self: HTTPResponse, *args: P.args, **kwargs: P.kwargs) -> T:
        if self._interrupted:
            raise standard.IncompleteRead(b"", self.length)
        try:
            return step(self, *args, **kwargs)
        except (standard.HTTPException, TypeError, ValueError):
            raise
        except BaseException:
            self._interrupted = self._answer is not None and not self._answer.timed_out
            raise

    return noted  # type: ignore[return-value]


class HTTPResponse(_Standard):
    """A response as ``http.client`` has it: str headers, a body that is not decoded.

    Owned by one reader at a time. ``version`` is 20 on HTTP/2, else 11 or 10. A body that was cut short raises
    IncompleteRead from every way of reading it; the standard library says so from `read` without a size alone. So does
    one whose reader was interrupted, by Ctrl-C or another signal handler that raises.
    """

    headers: Any
    version: Any
    length: Any
    will_close: Any
    fp: Any

    def __init__(self, sock: Any, debuglevel: int = 0, method: str | None = None, url: str | None = None) -> None:
        super().__init__(sock, debuglevel=debuglevel, method=method, url=url)
        file = getattr(self.fp, "raw", self.fp)
        self._answer = file if isinstance(file, Answer) else None
        self._interrupted = False

    def begin(self) -> None:
        """Wait for the head."""
        if self.headers is not None:
            return
        super().begin()
        if self._answer is not None and self._over_http2:
            self.version = 20
            # What ends is a stream: the connection is there for the next request.
            self.will_close = False

    @property
    def _over_http2(self) -> bool:
        answer = self._answer
        return answer is not None and answer.response is not None and answer.response.http_version == "HTTP/2"

    @property
    def stream_id(self) -> int | None:
        """The HTTP/2 stream that carries it; None on HTTP/1.1."""
        answer = self._answer
        return None if answer is None or answer.response is None else answer.response.stream_id

    @_noted
    def read(self, amt: int | None = None) -> bytes:
        """The rest of the body, or up to ``amt`` bytes. Blocks. Raises IncompleteRead, TimeoutError."""
        data: bytes = self._checked(super().read, amt, whole=amt is None)
        if amt is not None and len(data) < amt and self._answer is not None and self.fp is not None:
            # What ends without Content-Length is known to have ended by what it did not give.
            self._close_conn()  # type: ignore[attr-defined]
        return data

    @_noted
    def read1(self, n: int = -1) -> bytes:
        """Up to ``n`` bytes that are here; blocks only where there are none."""
        data: bytes = self._checked(super().read1, n)
        return data

    @_noted
    def readinto(self, b: Any) -> int:
        """Fill a buffer; how many bytes were put there."""
        n_bytes: int = self._checked(super().readinto, b)
        return n_bytes

    @_noted
    def readline(self, limit: int = -1) -> bytes:  # type: ignore[override]
        """The next line, with its end."""
        data: bytes = self._checked(super().readline, limit)
        return data

    @_noted
    def peek(self, n: int = -1) -> bytes:
        """What is here, without taking it; blocks only where there is nothing."""
        data: bytes = super().peek(n)
        return data

    def _checked(self, read: Callable[[Any], Any], wanted: Any, *, whole: bool = False) -> Any:
        """What was read, unless that is the end of a body that was cut short."""
        try:
            got = read(wanted)
        except standard.IncompleteRead as error:
            self._raise_cut(error)
            raise
        failure = None if self._answer is None else self._answer.failure
        if failure is not None and self.length != 0 and (whole or not (got or _nothing(wanted))):
            self._raise_cut(standard.IncompleteRead(got or b"", self.length))
        return got

    def _raise_cut(self, error: standard.IncompleteRead) -> None:
        if self._answer is not None and self._answer.failure is not None:
            raise error from self._answer.failure


def _nothing(wanted: Any) -> bool:
    """Whether nothing was asked for: then getting nothing says nothing."""
    return wanted == 0 if isinstance(wanted, int) else memoryview(wanted).nbytes == 0
