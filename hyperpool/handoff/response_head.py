"""The head of a response that callers hold: what is known before a byte of its body is read.

It is made on the loop thread and therefore costs as little as possible there: headers, cookies and the time it took
come into being when somebody asks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from hyperpool.errors import HTTPStatusError
from hyperpool.urls import parse_url

if TYPE_CHECKING:
    import datetime

    from hyperpool.handoff.response import Response
    from hyperpool.protocol.events import Fields, Head
    from hyperpool.values import Request

R = TypeVar("R", bound="ResponseHead")


@dataclass(slots=True, eq=False, repr=False)
class ResponseParts:
    """What a Response is made of. Handed over once, from the loop to the reader."""

    head: Head
    request: Request
    origin: str
    elapsed_s: float
    resends: tuple[Any, ...]
    max_decoded_bytes: int | None


class ResponseHead:
    """Status, header fields, and what led to them.

    Safe to hand from thread to thread.
    """

    def __init__(self, parts: ResponseParts) -> None:
        head = parts.head
        self.status_code = head.status
        self.http_version = head.http_version
        self.stream_id = head.stream_id if head.http_version == "HTTP/2" else None
        self.request = parts.request
        self.history: list[Response] = []
        self._parts = parts
        self._headers: Any = None

    @property
    def status(self) -> int:
        """The same as ``status_code``, as http.client and urllib3 call it."""
        return self.status_code

    @property
    def reason(self) -> str:
        """The reason phrase; HTTP/2 has none (RFC 9113 8.3.2), there it is the standard one."""
        if self._parts.head.reason or self.stream_id is None:
            return self._parts.head.reason.decode("latin-1")
        return _standard_reason(self.status_code)

    @property
    def url(self) -> str:
        """The URL as it was requested, percent-encoded where that was needed: after redirects, the last one."""
        return parse_url(self.request.url).wire

    @property
    def headers(self) -> Any:
        """The header fields: a ``urllib3.HTTPHeaderDict`` of str, case-insensitive, repeated fields kept apart."""
        # Not functools.cached_property, here and below: before Python 3.12 it takes one lock for all responses.
        if self._headers is None:
            self._headers = header_dict(self._parts.head.fields)
        return self._headers

    @property
    def raw_fields(self) -> Fields:
        """The header fields as they came: (name, value) pairs of bytes, names in lower case."""
        return list(self._parts.head.fields)  # responses with the same head share one

    @property
    def elapsed(self) -> datetime.timedelta:
        """From submit to the response's end, or to its head where the body is streamed.

        Of the last exchange alone: redirects and retries before it are not counted, ``history`` has theirs.
        """
        import datetime

        return datetime.timedelta(seconds=self._parts.elapsed_s)

    @property
    def retries(self) -> tuple[Any, ...]:
        """One entry for each time the request was sent again: ``reason`` (an HTTP/2 error code's name, a status, or
        the name of an error) and ``at_s``, seconds after submit."""
        return self._parts.resends

    def came_after(self, history: list[Response], resends: list[Any], before_s: float) -> None:
        """Note what led here: redirects, and retries that began ``before_s`` seconds before this attempt."""
        self.history = list(history)
        own = (each._replace(at_s=each.at_s + before_s) for each in self._parts.resends)
        self._parts.resends = (*resends, *own)

    @property
    def ok(self) -> bool:
        """Whether the status is below 400."""
        return self.status_code < 400

    def raise_for_status(self: R) -> R:
        """This response. Raises HTTPStatusError for 4xx and 5xx (RFC 9110 15.5, 15.6)."""
        if self.ok:
            return self
        who = "client" if self.status_code < 500 else "server"
        message = f"{self.status_code} {self.reason} ({who} error) for {self.request.method} {self.url}"
        raise HTTPStatusError(message, response=self, **self._where())

    @property
    def cookies(self) -> Any:
        """The cookies that this response sets: a ``http.cookiejar.CookieJar``."""
        import http.cookiejar
        import urllib.request

        jar = http.cookiejar.CookieJar()
        jar.extract_cookies(CookieView(self), urllib.request.Request(self.url))  # type: ignore[arg-type]
        return jar

    def _where(self) -> dict[str, Any]:
        """What every error about this response says."""
        return {"origin": self._parts.origin, "stream_id": self.stream_id, "processed": "maybe"}

    def __repr__(self) -> str:
        return f"<Response [{self.status_code} {self.http_version}] {self.request.method} {self.url}>"


class CookieView:
    """The little that http.cookiejar wants of a response."""

    def __init__(self, response: ResponseHead) -> None:
        self._headers = response.headers

    def info(self) -> CookieView:
        return self

    def get_all(self, name: str, default: Any = None) -> Any:
        return self._headers.getlist(name) or default


def header_dict(fields: Fields) -> Any:
    """Fields as people look at them: a ``urllib3.HTTPHeaderDict`` of str."""
    import urllib3

    headers = urllib3.HTTPHeaderDict()
    for name, value in fields:
        headers.add(name.decode("latin-1"), value.decode("latin-1"))
    return headers


def field_value(fields: Fields, wanted: bytes) -> str:
    """A field's values, joined as RFC 9110 5.3 has it; "" where there is none."""
    values = [value for name, value in fields if name == wanted]
    return b", ".join(values).decode("latin-1")


def _standard_reason(status: int) -> str:
    import http

    try:
        return http.HTTPStatus(status).phrase
    except ValueError:
        return ""
