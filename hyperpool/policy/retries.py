"""When a request is sent once more, and when it must not be: ``urllib3.util.Retry`` decides, a budget holds it back.

Retry counts for one request. A thousand requests with three retries each are four thousand when a server is down, which
is when it can bear them least. So each origin has a budget besides: retries are a tenth of its requests, and a few.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Union

from hyperpool import errors

if TYPE_CHECKING:
    from urllib3.util import Retry

    from hyperpool.handoff.response import Response

RetriesLike = Union[int, "Retry", None]

# Retries per request that a budget grants on the long run: the figure of the SRE book and of Finagle (0.2). Twice that
# adds a fifth to the load of an origin that has too much of it.
SHARE = 0.1

# Retries that may be made beyond the share: a restart that meets ten requests at once costs nobody an error.
BURST = 10.0

# Retries per second that any origin is granted, so that a program with one request a minute may repeat each of them.
TRICKLE_PER_S = 1.0

# Origins whose budget is remembered: as many as `Limits.max_origins`. Beyond that they begin anew.
_REMEMBERED = 1_024

# Seconds before the second retry where ``retries`` is a number, doubling from there; the first goes out at once, as in
# urllib3. The jitter keeps threads that failed together from coming back together.
_BACKOFF_S, _JITTER_S = 0.1, 0.1

# Nothing of it is the server's answer to this request, or nobody would gain by a repetition.
_FINAL = (
    errors.PoolClosed,
    errors.PoolFull,
    errors.PoolTimeout,
    errors.TotalTimeout,
    errors.CertificateError,
    errors.LocalProtocolError,
    errors.InvalidURL,
    errors.DecodeError,
)
_CONNECTING = (errors.ConnectError, errors.ConnectTimeout)


def as_retry(given: RetriesLike) -> Retry | None:
    """Read ``retries=``: None, False and 0 for none; a number of them; or a ``urllib3.util.Retry``.

    A number means that many, with a short backoff, for what `Retry` allows by default; a status that stays is no error
    then. Raises TypeError and ValueError.
    """
    if given is None or given is False or given == 0:
        return None
    from urllib3.util import Retry

    if isinstance(given, Retry):
        return given
    if isinstance(given, bool) or not isinstance(given, int):
        raise TypeError(f"retries must be a number or a urllib3.util.Retry, not {given!r}")
    if given < 0:
        raise ValueError(f"retries must be 0 or more, not {given}")
    return Retry(given, backoff_factor=_BACKOFF_S, backoff_jitter=_JITTER_S, raise_on_status=False)


class RetryBudget:
    """How many retries each origin may still get: a bucket of tokens for each.

    Shared; guarded by _lock.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._lock = threading.RLock()
        self._clock = clock
        self._buckets: dict[str, tuple[float, float]] = {}

    def earn(self, origin: str) -> None:
        """A request goes out for the first time."""
        with self._lock:
            tokens, at = self._filled_locked(origin)
            self._buckets[origin] = (min(BURST, tokens + SHARE), at)

    def spend(self, origin: str) -> bool:
        """Whether one retry is granted."""
        with self._lock:
            tokens, at = self._filled_locked(origin)
            granted = tokens >= 1
            self._buckets[origin] = (tokens - 1 if granted else tokens, at)
        return granted

    def _filled_locked(self, origin: str) -> tuple[float, float]:
        now = self._clock()
        if origin not in self._buckets:
            if len(self._buckets) >= _REMEMBERED:
                self._buckets.clear()
            return BURST, now
        tokens, at = self._buckets[origin]
        return min(BURST, tokens + (now - at) * TRICKLE_PER_S), now

    def start_anew_in_child(self) -> None:
        """After a fork: another thread of the parent may have held the lock."""
        self._lock = threading.RLock()


class Retries:
    """The retries of one request: what `Retry` still allows.

    Owned by whoever carries the request on. May run code of the caller: a subclass of Retry.
    """

    __slots__ = ("_ordinary", "_retry", "_statuses")

    def __init__(self, retry: Retry) -> None:
        from urllib3.util import Retry

        self._retry = retry
        self._ordinary = type(retry) is Retry
        self._statuses = frozenset(retry.status_forcelist) | retry.RETRY_AFTER_STATUS_CODES

    def look_at(self, status: int) -> bool:
        """Whether a response of this status must be asked about at all. Cheap, and no code of the caller."""
        return not self._ordinary or status in self._statuses

    def after_error(self, error: BaseException, method: str, url: str) -> float | None:
        """Seconds to wait before the next attempt; None where there must be none."""
        stand_in = _as_urllib3(error)
        if stand_in is None or not self._count(method, url, error=stand_in):
            return None
        return _seconds(self._retry.get_backoff_time())

    def begin_anew(self) -> None:
        """The last attempt got somewhere: what comes now is no repetition of it, and need not wait for long."""
        self._retry = self._retry.new(history=())

    def asks_for(self, response: Response) -> bool:
        """Whether Retry would have a request with this response repeated, as long as there are retries left."""
        has_date = "retry-after" in response.headers
        return bool(self._retry.is_retry(response.request.method, response.status_code, has_date))

    def after_status(self, response: Response) -> float | None:
        """Seconds to wait before the next attempt, as the server or the backoff has it; None where no retry is left."""
        from urllib3.exceptions import InvalidHeader

        if not self._count(response.request.method, response.url, response=_View(response)):
            return None
        wait_s = None
        if self._retry.respect_retry_after_header:
            try:
                wait_s = self._retry.get_retry_after(response)  # type: ignore[arg-type]
            except (InvalidHeader, OverflowError, ValueError):
                wait_s = None  # neither seconds nor a date: as good as none
        return _seconds(wait_s or self._retry.get_backoff_time())

    @property
    def left(self) -> Retry:
        """What may still be done."""
        return self._retry

    @property
    def raises_on_status(self) -> bool:
        """Whether a status that stays is an error."""
        return bool(self._retry.raise_on_status)

    def _count(self, method: str, url: str, **outcome: Any) -> bool:
        from urllib3.exceptions import HTTPError

        try:
            self._retry = self._retry.increment(method, url, **outcome)
        except HTTPError:  # MaxRetryError, or the stand-in itself: not for this method
            return False
        return True


def _seconds(wait_s: float) -> float:
    """No more than threads can wait: a Retry of the caller's may have no bound of its own."""
    return float(min(wait_s, threading.TIMEOUT_MAX))


class _View:
    """The little that Retry wants of a response."""

    def __init__(self, response: Response) -> None:
        self.status = response.status_code
        self.headers = response.headers

    def get_redirect_location(self) -> None:
        return None  # redirects have a bound of their own


def _as_urllib3(error: BaseException) -> Exception | None:
    """The error by which Retry knows what happened; None for what is never repeated."""
    from urllib3 import exceptions

    if not isinstance(error, errors.HyperpoolError) or isinstance(error, _FINAL):
        return None
    if isinstance(error, errors.ProxyError) and error.status is not None and 400 <= error.status < 500:
        return None
    if error.processed == "no" or isinstance(error, _CONNECTING):
        # As with a connection that could not be made: nothing was done, so any method may be repeated.
        return exceptions.ConnectTimeoutError(str(error))
    return exceptions.ProtocolError(str(error), error)
