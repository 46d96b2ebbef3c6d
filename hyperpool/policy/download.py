"""`Client.download`: a body becomes a file, which is there as a whole or not at all; a cut one is gone on with.

Each attempt asks for what is missing (Range), and only of the version that is begun (If-Range). What comes decides: 206
goes on, 200 begins anew, 416 says that nothing was missing or that all of it was wrong. The file is written by the
thread that calls, piece by piece, so that memory is bounded by the stream's window.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hyperpool import arguments
from hyperpool.errors import (
    ChecksumError,
    HTTPStatusError,
    HyperpoolError,
    LocalProtocolError,
    PoolClosed,
    RemoteProtocolError,
)
from hyperpool.policy.partial import Partial, validator_of
from hyperpool.policy.progress import ProgressLike, Tell, shown
from hyperpool.policy.retries import Retries
from hyperpool.policy.writing import Headers, names, pairs
from hyperpool.urls import parse_url, without_userinfo
from hyperpool.values import HeadersLike

if TYPE_CHECKING:
    from urllib3.util import Retry

    from hyperpool.handoff.response import Response
    from hyperpool.policy.journey import Company

# Opens a stream with these headers and these retries.
Open = Callable[[Headers, Any], AbstractContextManager["Response"]]

# 18 digits are an exabyte less one; of a number of thousands of them CPython makes no int.
_CONTENT_RANGE = re.compile(r"bytes\s+(?:([0-9]{1,18})-([0-9]{1,18})|\*)/([0-9]{1,18}|\*)", re.IGNORECASE).fullmatch


@dataclass(frozen=True, slots=True)
class Download:
    """A file that was downloaded; serves wherever a path does. Immutable.

    ``resumed_bytes``: how much of it an earlier call had left behind. ``checksum``: "name:hex" where a checksum was
    asked for by name. ``response``: the last one, without its body.
    """

    path: Path
    size_bytes: int
    resumed_bytes: int
    checksum: str | None
    response: Response

    def __fspath__(self) -> str:
        return str(self.path)


@dataclass(frozen=True, slots=True)
class Order:
    """What a caller wants. Immutable."""

    url: str
    path: Any
    headers: HeadersLike
    resume: bool
    checksum: Any


def download(run: Run, open_stream: Open, progress: ProgressLike) -> Download:
    """Carry it out. Blocks."""
    try:
        run.begin()
        with shown(progress, run.name) as tell:
            response = _attempts(run, open_stream, tell)
        return run.finish(response)
    except BaseException:
        run.leave()
        raise


def _attempts(run: Run, open_stream: Open, tell: Tell) -> Response:
    """The last response, when the file is whole."""
    while True:
        try:
            with open_stream(run.headers, run.retries_left) as response:
                if run.look_at(response):
                    tell(run.size_bytes, run.total_bytes)
                for piece in response.iter_bytes() if run.takes else ():
                    run.add(piece)
                    tell(run.size_bytes, run.total_bytes)
                is_whole = run.is_whole(response)
        except HyperpoolError as error:
            run.wait(run.delay_s_after(error), error)
            continue
        if is_whole:
            return response
        run.check_progress(response)


def _target(path: Any) -> Path:
    """Where the file will be, behind links. Raises OSError for what cannot be replaced by a file."""
    target = Path(os.path.realpath(arguments.path("path", path)))
    if target.is_dir():
        raise IsADirectoryError(21, "a download needs the path of a file", str(target))
    if target.exists() and not target.is_file():
        raise ValueError(f"{target} is no regular file, and a download would replace it: use stream()")
    return target


class Run:
    """One download: what each attempt asks for, and what its answer means. Nothing here waits for the network.

    Owned by one thread or task at a time: for threads it is driven by `download`, for event loops by `hyperpool.aio`.
    What touches the file blocks: `begin`, `look_at`, `add`, `delay_s_after`, `finish` and `leave`.
    """

    def __init__(self, order: Order, retry: Retry | None, company: Company) -> None:
        """Raises what `Client.download` raises for an order that cannot be carried out."""
        self._order, self._company = order, company
        self._retries = None if retry is None else Retries(retry)
        self._target = _target(order.path)
        self._checksum = Checksum(order.checksum)
        self._headers = _without_ranges(order.headers)
        self._made: Partial | None = None
        self._had_bytes = 0
        # How much had come when an attempt failed last.
        self._failed_at_bytes = 0
        self._last: int | None = None
        self._is_whole = False
        self.resumed_bytes = 0
        self.takes = False
        # Whether what came stays after a failure, also where nothing can go on with it.
        self.keeps = False
        self.total_bytes: int | None = None

    @property
    def name(self) -> str:
        """The file, as progress calls it."""
        return self._target.name

    @property
    def size_bytes(self) -> int:
        """How much of the file is here."""
        return self._partial.size_bytes

    @property
    def _partial(self) -> Partial:
        assert self._made is not None, "begin() comes first"
        return self._made

    def begin(self) -> None:
        """Find out what is here already. Raises OSError, BlockingIOError where another download has the file."""
        self._made = Partial(self._target, without_userinfo(self._order.url))
        if self._order.resume:
            self._made.recall()
        self.resumed_bytes = self._failed_at_bytes = self._made.size_bytes

    # -- what to ask for -----------------------------------------------------------------------------------------------

    @property
    def headers(self) -> Headers:
        """Those of the next attempt."""
        partial = self._partial
        if not partial.size_bytes or partial.validator is None:
            return self._headers
        return (*self._headers, ("Range", f"bytes={partial.size_bytes}-"), ("If-Range", partial.validator))

    @property
    def retries_left(self) -> Any:
        """What the next attempt may still spend."""
        return None if self._retries is None else self._retries.left

    # -- what the server says ------------------------------------------------------------------------------------------

    def look_at(self, response: Response) -> bool:
        """The head of an answer; whether it brings the file further. Then ``takes`` says if `add` is to have its body.

        Raises HTTPStatusError for an answer without the file.
        """
        self._had_bytes = self._partial.size_bytes
        self._last, self._is_whole = None, False
        if response.status_code == 206 and self._had_bytes:
            self.takes = self._goes_on(response)
        elif response.status_code == 416 and self._had_bytes:
            self.takes, self._is_whole = False, self._is_all_of(response)
        else:
            _raise_for_no_file(response)
            self.takes = True
            self._begin_anew(response)
        return self.takes or self._is_whole

    def _begin_anew(self, response: Response) -> None:
        """200: all of it, from the beginning."""
        self.resumed_bytes, self.total_bytes = 0, length_of(response)
        self._is_whole = True  # with the end of its body
        self._partial.begin(validator_of(response.headers) if self._order.resume else None)

    def _goes_on(self, response: Response) -> bool:
        """206: the rest, or some of it. Whether it fits; what is here is dropped where not."""
        first, self._last, self.total_bytes = _content_range(response)
        validator = self._partial.validator
        is_other = validator is not None and _names_another(validator, response.headers)
        if first != self._partial.size_bytes or is_other or "content-encoding" in response.headers:
            self._forget()
            return False
        return True

    def _is_all_of(self, response: Response) -> bool:
        """416: nothing is missing, or the range is wrong. If-Range held, or it would be 200 (RFC 9110 14.2)."""
        self.total_bytes = _content_range(response)[2]
        if self.total_bytes == self._partial.size_bytes:
            return True
        self._forget()
        return False

    def _forget(self) -> None:
        """What is here is of no use: the next attempt asks for all of it."""
        self.resumed_bytes = 0
        self._partial.begin(None)

    def add(self, piece: bytes) -> None:
        """The next piece of the body. Raises OSError."""
        self._partial.append(piece)

    def is_whole(self, response: Response) -> bool:
        """Whether the file is, now that the answer is through. Raises RemoteProtocolError for less than it promised."""
        if self._is_whole or not self.takes:
            return self._is_whole
        if self._last is not None and self.size_bytes != self._last + 1:
            raise _broken(response, f"{self.size_bytes:,} bytes are here after it sent up to byte {self._last:,}")
        return self.total_bytes is None or self.size_bytes == self.total_bytes

    def check_progress(self, response: Response) -> None:
        """After an answer that did not make it whole. Raises RemoteProtocolError where it would be so for ever."""
        if self._had_bytes and self.size_bytes == self._had_bytes:
            raise _broken(response, "it answered a range with nothing of it")

    # -- after a failure -----------------------------------------------------------------------------------------------

    def delay_s_after(self, error: HyperpoolError) -> float:
        """Seconds until the next attempt may begin. Raises the error where there is none.

        An attempt that brought some of the file is no repetition: the next one need not wait, nor is it the budget's.
        """
        if self._retries is None or isinstance(error, HTTPStatusError):
            raise error
        got_on, self._failed_at_bytes = self.size_bytes > self._failed_at_bytes, self.size_bytes
        if got_on:
            self._retries.begin_anew()
        delay_s = self._retries.after_error(error, "GET", self._order.url)
        if delay_s is None or not (got_on or self._company.budget.spend(error.origin or "")):
            raise error
        self._partial.flush()
        return delay_s

    def wait(self, delay_s: float, error: HyperpoolError) -> None:
        """Let so many seconds pass. Blocks. Raises PoolClosed where the client is closed before that."""
        if self._company.closing.wait(delay_s):
            raise PoolClosed("the client was closed before this download could go on: close it later") from error

    # -- its end -------------------------------------------------------------------------------------------------------

    def finish(self, response: Response) -> Download:
        """The file is whole: check it and give it its name. Raises ChecksumError and OSError."""
        found = self._checksum.check(self._partial, response)
        size_bytes = self.size_bytes
        self._partial.finish()
        return Download(self._target, size_bytes, self.resumed_bytes, found, response)

    def leave(self) -> None:
        """It did not come to its end: keep what a later call can go on with, or, where this ``keeps``, all."""
        if self._made is not None:
            self._made.leave(keep=self.keeps)


def _without_ranges(given: HeadersLike) -> Headers:
    headers = tuple(pairs(given))
    if names(headers, "range") or names(headers, "if-range"):
        raise LocalProtocolError("a download makes Range and If-Range itself: for a part of a body use stream()")
    return headers if names(headers, "accept-encoding") else (*headers, ("Accept-Encoding", "identity"))


def _raise_for_no_file(response: Response) -> None:
    if response.status_code in (200, 203):
        return
    response.raise_for_status()
    words = f"{response.status_code} {response.reason} is no file: {without_userinfo(response.url)}"
    raise HTTPStatusError(words, response=response, **_where(response))


def length_of(response: Response) -> int | None:
    """The size that the file will have; a coded body's is not known before its end."""
    length = response.headers.get("content-length", "")
    return int(length) if length.isdecimal() and "content-encoding" not in response.headers else None


def _content_range(response: Response) -> tuple[int | None, int | None, int | None]:
    """First and last byte, and the size of the whole (RFC 9110 14.4); None for what is not said."""
    found = _CONTENT_RANGE(response.headers.get("content-range", "").strip())
    if found is None:
        return None, None, None
    first, last, total = (int(part) if part and part != "*" else None for part in found.groups())
    return first, last, total


def _names_another(validator: str, headers: Any) -> bool:
    """Whether a 206 shows another version than the one that If-Range named, to which a server should pay attention."""
    shown_by = headers.get("etag") if validator.startswith('"') else headers.get("last-modified")
    return shown_by is not None and shown_by != validator


def _broken(response: Response, what: str) -> RemoteProtocolError:
    return RemoteProtocolError(f"{without_userinfo(response.url)}: {what}", **_where(response))


def _where(response: Response) -> dict[str, Any]:
    origin = str(parse_url(response.url).origin)
    return {"origin": origin, "stream_id": response.stream_id, "processed": "maybe"}


class Checksum:
    """What a file must be: "name:hex", "name" (only to be told), a hashlib object (only to be fed), or None.

    Owned by one download. The file is read once more for it, from where it was written: so what was resumed counts too.
    """

    def __init__(self, given: Any) -> None:
        self._digest, self._name, self._expected = None, None, ""
        if given is None:
            return
        if not isinstance(given, str):
            if not hasattr(given, "update"):
                raise TypeError(f'checksum must be "sha256:hex", "sha256" or a hashlib object, not {given!r}')
            self._digest = given
            return
        self._name, _, expected = given.strip().partition(":")
        self._expected = expected.strip().lower()
        try:
            self._digest = hashlib.new(self._name)
        except ValueError as error:
            raise ValueError(f"checksum {given!r}: {error}") from error
        digits = self._digest.digest_size * 2
        if not digits or (":" in given and not re.fullmatch(f"[0-9a-f]{{{digits}}}", self._expected)):
            raise ValueError(f"checksum {given!r}: {self._name} has {digits} hexadecimal digits")

    def check(self, partial: Partial, response: Response) -> str | None:
        """ "name:hex" of the file, where a name was given. Raises ChecksumError; what is here is of no use then."""
        if self._digest is None:
            return None
        partial.update(self._digest)
        if self._name is None:
            return None
        found = self._digest.hexdigest()
        if self._expected and found != self._expected:
            partial.begin(None)
            words = f"{without_userinfo(response.url)}: {self._name} is {found}, not {self._expected}"
            raise ChecksumError(words, **_where(response))
        return f"{self._name}:{found}"
