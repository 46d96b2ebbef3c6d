"""A server that redirects as it likes, as a harness of `stress.fuzz`: a client over a pool without sockets.

The input is text. Its first line says how the program asks: a method, and letters for what it asks with (``WAYS``).
Each further line is the answer to one more request, the last one to all that follow:

    POST ahcb
    307 https://b.test/
    302 http://a.test/ | k=v; Domain=.test; Secure
    200

What must hold: it ends, after ``MAX_REDIRECTS`` redirects at most; nothing comes out but a response that is no
redirect, or an error of hyperpool's tree; no secret of the program's is in any error, or in what is asked of another
origin, nor of the first one once the way has led through another; a cookie goes to hosts of its setter's site alone,
and one that is Secure over https alone.
"""

from __future__ import annotations

import itertools
import re
import time
from typing import Any

import hyperpool
from hyperpool.errors import HyperpoolError, TooManyRedirects
from hyperpool.handoff.futures import ResponseFuture
from hyperpool.handoff.response import Response
from hyperpool.handoff.response_head import ResponseParts
from hyperpool.policy import redirects
from hyperpool.protocol.events import Head
from hyperpool.protocol.fields import prepare_head
from hyperpool.urls import Origin, parse_url
from hyperpool.values import Request

MAX_REDIRECTS = 5
HOME = "https://a.test"
SECRET = "hush"
METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "QUERY")

# A letter, and what it adds to the request.
WAYS: dict[str, dict[str, Any]] = {
    "a": {"auth": ("user", SECRET)},
    "d": {"auth": hyperpool.DigestAuth("user", SECRET)},
    "t": {"auth": hyperpool.BearerAuth(SECRET)},
    "h": {"headers": {"Authorization": SECRET, "Proxy-Authorization": SECRET, "Host": f"{SECRET}.test"}},
    "c": {"cookies": {"own": SECRET}},
    "k": {"headers": {"Cookie": f"own={SECRET}"}},
    "b": {"content": b"a body"},
    "g": {"content": iter(())},
}
# Which fields of a request nobody but its first origin may see, whatever they say.
_PRIVATE = frozenset(("authorization", "proxy-authorization"))
_ANSWER = re.compile(r"\s*(\d{3})\s?([^|]*)(?:\|(.*))?", re.DOTALL)


class ScriptedPool(hyperpool.ConnectionPool):
    """Answers requests by a script, at once. Owned by one thread.

    It looks at every request first, as the wire would: what could not be sent is refused as by `ConnectionPool`.
    """

    limits = hyperpool.Limits()

    def __init__(self, answers: list[str]) -> None:
        self._answers = itertools.chain(answers, itertools.repeat(answers[-1] if answers else "200"))
        self.requests = 0
        self._is_astray = False
        # Cookies by the values that they were given here: who has set them, and whether they are Secure.
        self._set: dict[str, tuple[Origin, bool]] = {}

    def submit(self, request: Request, **options: Any) -> ResponseFuture:
        """The Future of the next answer, which is here already."""
        future = ResponseFuture(lambda: None)
        future.set_running_or_notify_cancel()
        future.set_result(self.fetch(request))
        return future

    def fetch(self, request: Request, **options: Any) -> Response:
        """The next answer."""
        url = parse_url(request.url)
        prepare_head(method=request.method, url=url, headers=request.headers, body_bytes=None)
        self.requests += 1
        assert self.requests <= 2 * (MAX_REDIRECTS + 1), "it does not end"
        self._look_at(request, url.origin)
        return self._answer(request, url.origin)

    def _look_at(self, request: Request, origin: Origin) -> None:
        self._is_astray = self._is_astray or str(origin) != HOME
        if self._is_astray:
            shown = f"{request.url} {request.headers}"
            assert SECRET not in shown, f"a secret leaves its origin: {shown}"
            told = _PRIVATE & {name.lower() for name, _ in request.headers}
            assert not told, f"{told} leaves its origin: {shown}"
        assert parse_url(request.url).userinfo is None, f"a user in {request.url}"
        for name, value in request.headers:
            if name.lower() == "cookie":
                self._look_at_cookies(value, origin)

    def _look_at_cookies(self, value: str, origin: Origin) -> None:
        for number in re.findall(r"=cookie-(\d+)-", value):
            setter, is_secure = self._set[number]
            assert _is_of_site(origin.host, setter.host), f"a cookie of {setter} goes to {origin}"
            assert origin.scheme == "https" or not is_secure, f"a Secure cookie goes to {origin}"

    def _answer(self, request: Request, origin: Origin) -> Response:
        found = _ANSWER.fullmatch(next(self._answers))
        status, to, cookie = found.groups() if found else ("200", "", None)
        fields = [(b"location", to.rstrip().encode("utf-8", "surrogateescape"))]
        if status == "401":
            fields = [(b"www-authenticate", fields[0][1])]
        if cookie is not None:
            fields.append((b"set-cookie", self._noted(cookie.strip(), origin)))
        head = Head(1, int(status), fields)
        return Response(ResponseParts(head, request, str(origin), 0.0, (), None), chunks=[b""])

    def _noted(self, cookie: str, origin: Origin) -> bytes:
        number = str(len(self._set))
        name, _, rest = cookie.partition("=")
        _, _, attributes = rest.partition(";")
        is_secure = any(one.strip().lower() == "secure" for one in attributes.split(";"))
        self._set[number] = (origin, is_secure)
        return f"{name or 'k'}=cookie-{number}-;{attributes}".encode("utf-8", "surrogateescape")


def _is_of_site(host: str, setter: str) -> bool:
    """Whether a server may set cookies for that host: it is itself, or both are below one domain of two labels."""
    return host == setter or (
        host.split(".")[-2:] == setter.split(".")[-2:] and "." in host and not host[-1:].isdigit() and ":" not in host
    )


def redirect_chain(data: bytes) -> str:
    """One request, and wherever it is led."""
    first, *answers = data.decode("utf-8", "surrogateescape").split("\n")
    words = first.split(" ")
    options: dict[str, Any] = {}
    for letter in "".join(words[1:])[:8]:
        options |= WAYS.get(letter, {})
    if "content" in options and not isinstance(options["content"], bytes):
        options["content"] = (piece for piece in (b"a", b"body"))
    method = words[0] if words[0] in METHODS else "GET"
    pool = ScriptedPool(answers)
    userinfo = f"user:{SECRET}@" if "u" in "".join(words[1:]) else ""
    began_at = time.monotonic()
    client = hyperpool.Client(pool=pool, trust_env=True, max_redirects=MAX_REDIRECTS)
    try:
        outcome = _outcome_of(client, method, f"https://{userinfo}a.test/first", options)
    finally:
        client.close()
    assert time.monotonic() - began_at < 60, "it takes too long"
    return f"{outcome} after {pool.requests}"


def _look_at_error(error: HyperpoolError) -> None:
    assert SECRET not in f"{error!r} {error} {error.__cause__}", f"a secret is shown: {error!r}"
    if isinstance(error, TooManyRedirects):
        assert sum(one.status_code in redirects.STATUSES for one in error.history) == MAX_REDIRECTS + 1


def _outcome_of(client: hyperpool.Client, method: str, url: str, options: dict[str, Any]) -> str:
    try:
        response = client.request(method, url, **options)
    except HyperpoolError as error:
        _look_at_error(error)
        return type(error).__name__
    followed = [one for one in response.history if one.status_code in redirects.STATUSES]
    assert len(followed) <= MAX_REDIRECTS, "more redirects than are allowed"
    if response.status_code in redirects.STATUSES:
        assert redirects.location(response.raw_fields) is None, "a redirect that was not followed"
    return f"{response.status_code} {response.request.method}"
