"""Where a redirect leads (RFC 9110 15.4), as pure functions.

Refusing is the rule wherever a server could make us do what the caller never meant: another scheme than http and
https, a Location with control characters in it, credentials that change their origin.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from hyperpool.errors import InvalidURL, RemoteProtocolError
from hyperpool.policy.writing import without
from hyperpool.urls import parse_url, without_userinfo
from hyperpool.values import Request

if TYPE_CHECKING:
    from hyperpool.protocol.events import Head

STATUSES = frozenset((301, 302, 303, 307, 308))

# What the caller said to one origin alone. Host names it, so it cannot be right for another.
_PRIVATE = frozenset(("authorization", "cookie", "proxy-authorization", "host"))

# What describes a body, which has no meaning without one (the list of the Fetch standard, and what frames it).
_OF_THE_BODY = frozenset(
    (
        *("content-encoding", "content-language", "content-length", "content-location", "content-type"),
        *("transfer-encoding", "expect", "trailer", "digest", "content-digest", "repr-digest"),
    )
)

_UNIX_AUTHORITY: Any = re.compile(r"[^:]+://[^/?#]*").match

_CONTROL = re.compile(r"[\x00-\x1f\x7f]").search  # urljoin would drop some of them silently


def location(fields: Any) -> str | None:
    """The Location of a response head; None without one, or with an empty one."""
    found = next((value for name, value in fields if name == b"location"), b"").strip()
    try:
        return found.decode() or None  # servers send raw UTF-8 there, whatever RFC 9110 5.5 says
    except UnicodeDecodeError:
        return str(found, "latin-1")


def leads_on(head: Head) -> bool:
    """Whether this is the head of a redirect that has somewhere to go."""
    return head.status in STATUSES and location(head.fields) is not None


def next_url(url: str, to: str, **where: Any) -> str:
    """The absolute URL of a Location that came in answer to ``url``, as it is requested; ``url``'s fragment is kept.

    A user in it is dropped: which credentials go out is not the server's to say. Raises RemoteProtocolError for what
    cannot be requested.
    """
    if bad := _CONTROL(to):
        raise _refused(url, f"{bad[0]!r} stands in its Location", where)
    try:
        joined = parse_url(_joined(url, to)).wire
    except ValueError as cause:  # InvalidURL is one too
        what = "it cannot be requested" if isinstance(cause, InvalidURL) else "it is no URL"
        raise _refused(url, f"it leads to {to[:200]!r}: {what}", where) from cause
    # RFC 9110 10.2.2: a Location without a fragment inherits that of the request.
    fragment = url.partition("#")[2]
    return joined if "#" in to or not fragment else f"{joined}#{fragment}"


def _joined(url: str, to: str) -> str:
    """The Location resolved against the URL. Raises ValueError for what is none, and where it names a Unix socket.

    What listens on Unix sockets trusts those who can reach them: which one is asked is never the server's to say.
    """
    from urllib.parse import urljoin, urlsplit

    if to[:10].lower() == "http+unix:":
        raise InvalidURL("it leads to a Unix socket")
    uds = parse_url(url).origin.uds
    if uds is None:
        return urljoin(url, to)
    # Such a server knows itself as "localhost", which is no place elsewhere.
    prefix, here = url[: _UNIX_AUTHORITY(url).end()], "http://localhost"
    joined = urljoin(f"{here}{url[len(prefix) :]}", to)
    parts = urlsplit(joined)
    is_here = (parts.scheme, parts.netloc) == ("http", "localhost")
    return prefix + joined[len(here) :] if is_here else joined


def _refused(url: str, why: str, where: dict[str, Any]) -> RemoteProtocolError:
    return RemoteProtocolError(f"the redirect of {without_userinfo(url)} is not followed: {why}", **where)


def next_method(status: int, method: str) -> str:
    """The method with which a redirect is followed.

    303 asks for GET, but HEAD stays (RFC 9110 15.4.4). 301 and 302 make GET of POST, as every browser does (15.4.2);
    all other methods stay, and 307 and 308 never change one.
    """
    if status == 303 and method != "HEAD":
        return "GET"
    return "GET" if status in (301, 302) and method == "POST" else method


def redirected(request: Request, status: int, url: str) -> Request:
    """The request to send in answer to a redirect, to the same origin."""
    method = next_method(status, request.method)
    if method == request.method:
        return replace(request, url=url, target=None)
    return replace(
        request, url=url, target=None, method=method, content=None, headers=without(request.headers, _OF_THE_BODY)
    )


def estranged(request: Request) -> Request:
    """The same for another origin: nothing of what was meant for the first one alone."""
    return replace(request, headers=without(request.headers, _PRIVATE))
