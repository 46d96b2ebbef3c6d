"""Who we are: what ``auth=`` may be, and netrc.

An auth is a callable that takes a `Request` and returns one, on the thread of whoever submits: it may read files and
ask servers. One that also has ``answer(request, response)`` is asked again after a 401 (`DigestAuth`).
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Union

from hyperpool.errors import LocalProtocolError
from hyperpool.policy.writing import without
from hyperpool.values import Request

logger = logging.getLogger("hyperpool")

AuthLike = Union["tuple[str | bytes, str | bytes]", Callable[[Request], Request], None]

_AUTHORIZATION = frozenset(("authorization",))


def authorized(request: Request, value: str) -> Request:
    """The request with this Authorization field in place of any other."""
    return replace(request, headers=(*without(request.headers, _AUTHORIZATION), ("Authorization", value)))


class BasicAuth:
    """User and password, as UTF-8 (RFC 7617). Immutable. It is readable by whoever sees the request: use https."""

    def __init__(self, user: str | bytes, password: str | bytes) -> None:
        import base64

        octets = b":".join(part.encode() if isinstance(part, str) else part for part in (user, password))
        self._value = "Basic " + base64.b64encode(octets).decode()

    def __call__(self, request: Request) -> Request:
        return authorized(request, self._value)


class BearerAuth:
    """A token (RFC 6750), or a callable that gives the one that is valid now. Immutable.

    The callable runs for each request, on the thread that submits it.
    """

    def __init__(self, token: str | Callable[[], str]) -> None:
        self._token = token

    def __call__(self, request: Request) -> Request:
        token = self._token() if callable(self._token) else self._token
        return authorized(request, f"Bearer {token}")


def as_auth(given: AuthLike) -> Callable[[Request], Request] | None:
    """Read an auth in the forms people know. Raises LocalProtocolError for anything else."""
    if given is None or callable(given):
        return given
    if isinstance(given, (tuple, list)) and len(given) == 2 and all(isinstance(one, (str, bytes)) for one in given):
        return BasicAuth(*given)
    # Never shown: whatever it is, it may be a password.
    raise LocalProtocolError(f"auth must be (user, password) or a callable, not {type(given).__name__}")


def from_userinfo(userinfo: str) -> BasicAuth:
    """The auth that a URL names: ``user:password``, percent-encoded."""
    from urllib.parse import unquote

    user, _, password = userinfo.partition(":")
    return BasicAuth(unquote(user), unquote(password))


def apply(auth: Callable[[Request], Request], request: Request) -> Request:
    """What the auth makes of a request. Runs code of the caller."""
    made = auth(request)
    if not isinstance(made, Request):
        raise LocalProtocolError(f"auth must return the request, not {type(made).__name__}: use dataclasses.replace")
    return made


class Netrc:
    """The entries of a netrc file: $NETRC, or ~/.netrc, or ~/_netrc. Shared; read once, by the first question.

    Threads that race there read it twice, and no harm. One that cannot be read or parsed is as good as none.
    """

    def __init__(self) -> None:
        self._entries: Any = None

    @property
    def is_empty(self) -> bool:
        """Whether there is no entry at all. Cheap, after the first time: each request asks."""
        if self._entries is None:
            self._entries = _read_netrc()
        return not self._entries

    def auth(self, host: str, *, named: bool = False) -> BasicAuth | None:
        """The entry of a host, else, unless it must be ``named``, that of "default"."""
        if self.is_empty:
            return None
        found = self._entries.get(host)
        if found is None and not named:
            found = self._entries.get("default")
        return None if found is None else BasicAuth(found[0] or found[1] or "", found[2] or "")


def _read_netrc() -> dict[str, Any]:
    from pathlib import Path

    given = os.environ.get("NETRC")
    try:
        paths = [Path(given)] if given else [Path.home() / ".netrc", Path.home() / "_netrc"]
        path = next((path for path in paths if path.is_file()), None)
    except (OSError, RuntimeError):  # no home
        return {}
    if path is None:
        return {}
    import netrc

    try:
        return dict(netrc.netrc(str(path)).hosts)
    except (netrc.NetrcParseError, OSError, UnicodeDecodeError) as error:
        logger.debug("netrc file %s is not used: %s", path, type(error).__name__)
        return {}
