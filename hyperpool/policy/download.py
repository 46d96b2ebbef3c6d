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
from hyperpool.values import HeadersLike, parse_url, without_userinfo

if TYPE_CHECKING:
    from urllib3.util import Retry

    from hyperpool.handoff.response import Response
    from hyperpool.policy.journey import Company

# Opens a stream with these headers and these retries.
Open = Callable[[Headers, Any], AbstractContextManager["Response"]]

_CONTENT_RANGE = re.compile(r"bytes\s+(?:(\d+)-(\d+)|\*)/(\d+|\*)", re.IGNORECASE).fullmatch


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
    progress: ProgressLike


def download(order: Order, open_stream: Open, retry: Retry | None, company: Company) -> Download:
    """Carry it out. Blocks."""
    target = _target(order.path)
    checksum = Checksum(order.checksum)
    headers = tuple(pairs(order.headers))
    if names(headers, "range") or names(headers, "if-range"):
        raise LocalProtocolError("a download makes Range and If-Range itself: for a part of a body use stream()")
    if not names(headers, "accept-encoding"):
        headers += (("Accept-Encoding", "identity"),)
    partial = Partial(target, without_userinfo(order.url))
    try:
        if order.resume:
            partial.recall()
        with shown(order.progress, target.name) as tell:
            run = _Run(order, headers, open_stream, None if retry is None else Retries(retry), company, partial, tell)
            response, resumed_bytes = run.to_its_end(), run.resumed_bytes
        found = checksum.check(partial, response)
        size_bytes = partial.size_bytes
        partial.finish()
    except BaseException:
        partial.leave()
        raise
    return Download(target, size_bytes, resumed_bytes, found, response)


def _target(path: Any) -> Path:
    """Where the file will be, behind links. Raises OSError for what cannot be replaced by a file."""
    target = Path(os.path.realpath(os.fspath(path)))
    if target.is_dir():
        raise IsADirectoryError(21, "a download needs the path of a file", str(target))
    if target.exists() and not target.is_file():
        raise ValueError(f"{target} is no regular file, and a download would replace it: use stream()")
    return target


class _Run:
    """The attempts of one download. Owned by the thread that calls."""

    def __init__(
        self,
        order: Order,
        headers: Headers,
        open_stream: Open,
        retries: Retries | None,
        company: Company,
        partial: Partial,
        tell: Tell,
    ) -> None:
        self._order, self._headers, self._open = order, headers, open_stream
        self._retries, self._company = retries, company
        self._partial, self._tell = partial, tell
        self.resumed_bytes = partial.size_bytes

    def to_its_end(self) -> Response:
        """All attempts; the last response. Raises what the last attempt failed of."""
        while True:
            had_bytes = self._partial.size_bytes
            try:
                response, is_whole = self._attempt()
            except HyperpoolError as error:
                self._wait_before_next(error)
                continue
            if is_whole:
                return response
            if had_bytes and self._partial.size_bytes == had_bytes:
                raise _broken(response, "it answered a range with nothing of it")

    def _attempt(self) -> tuple[Response, bool]:
        """One request: the response, and whether the file is whole now."""
        left = None if self._retries is None else self._retries.left
        with self._open(self._headers + self._range(), left) as response:
            if response.status_code == 206 and self._partial.size_bytes:
                return response, self._go_on(response)
            if response.status_code == 416 and self._partial.size_bytes:
                return response, self._is_all_of(response)
            _raise_for_no_file(response)
            self._begin(response)
            self._tell(0, _length(response))
            self._take(response, _length(response))
            return response, True

    def _range(self) -> Headers:
        partial = self._partial
        if not partial.size_bytes or partial.validator is None:
            return ()
        return (("Range", f"bytes={partial.size_bytes}-"), ("If-Range", partial.validator))

    # -- what the server says ------------------------------------------------------------------------------------------

    def _begin(self, response: Response) -> None:
        """200: all of it, from the beginning."""
        self.resumed_bytes = 0
        self._partial.begin(validator_of(response.headers) if self._order.resume else None)

    def _go_on(self, response: Response) -> bool:
        """206: the rest, or some of it. Whether the file is whole then; it is empty where they do not fit together."""
        first, last, total = _content_range(response)
        validator = self._partial.validator
        is_other = validator is not None and _names_another(validator, response.headers)
        if first != self._partial.size_bytes or is_other or "content-encoding" in response.headers:
            self._forget()
            return False
        self._tell(self._partial.size_bytes, total)
        self._take(response, total)
        if last is not None and self._partial.size_bytes != last + 1:
            raise _broken(response, f"{self._partial.size_bytes:,} bytes are here after it sent up to byte {last:,}")
        return total is None or self._partial.size_bytes == total

    def _is_all_of(self, response: Response) -> bool:
        """416: nothing is missing, or the range is wrong. If-Range held, or it would be 200 (RFC 9110 14.2)."""
        total = _content_range(response)[2]
        if total == self._partial.size_bytes:
            self._tell(total, total)
            return True
        self._forget()
        return False

    def _forget(self) -> None:
        """What is here is of no use: the next attempt asks for all of it."""
        self.resumed_bytes = 0
        self._partial.begin(None)

    def _take(self, response: Response, total: int | None) -> None:
        partial, tell = self._partial, self._tell
        for piece in response.iter_bytes():
            partial.append(piece)
            tell(partial.size_bytes, total)

    # -- after a failure -----------------------------------------------------------------------------------------------

    def _wait_before_next(self, error: HyperpoolError) -> None:
        """Return when the next attempt may begin; raise the error where there is none."""
        delay_s = None
        if self._retries is not None and not isinstance(error, HTTPStatusError):
            delay_s = self._retries.after_error(error, "GET", self._order.url)
        if delay_s is None or not self._company.budget.spend(_origin(error)):
            raise error
        self._partial.flush()
        if self._company.closing.wait(delay_s):
            raise PoolClosed("the client was closed before this download could go on: close it later") from error


def _origin(error: HyperpoolError) -> str:
    return error.origin or ""


def _raise_for_no_file(response: Response) -> None:
    if response.status_code in (200, 203):
        return
    response.raise_for_status()
    words = f"{response.status_code} {response.reason} is no file: {without_userinfo(response.url)}"
    raise HTTPStatusError(words, response=response, **_where(response))


def _length(response: Response) -> int | None:
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
        self._digest = hashlib.new(self._name)  # ValueError for what hashlib does not know
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
