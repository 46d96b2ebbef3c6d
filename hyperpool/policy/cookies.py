"""The cookies of a client: RFC 6265 as http.cookiejar has it, and pairs that a program simply wants to be sent.

http.cookiejar is loaded by the first cookie: it brings half of the standard library with it.
"""

from __future__ import annotations

import re
import threading
from collections.abc import ItemsView, Iterable, Iterator, Mapping, MutableMapping
from typing import TYPE_CHECKING, Any, Union

from hyperpool import arguments
from hyperpool.errors import LocalProtocolError
from hyperpool.handoff.response_head import CookieView
from hyperpool.urls import parse_url

if TYPE_CHECKING:
    from http.cookiejar import Cookie, CookieJar

    from hyperpool.handoff.response import Response

CookiesLike = Union[Mapping[str, str], "CookieJar", "Cookies", None]
Pairs = tuple[tuple[str, str], ...]

# A server may set what cannot be sent: one such cookie must not spoil every request to its site.
_SENDABLE = re.compile(r"[ -~\x80-\xff]*").fullmatch
_NOT_IN_NAME, _NOT_IN_VALUE = re.compile(r"[\x00-\x20\x7f;,=]").search, re.compile(r"[\x00-\x1f\x7f;]").search


class Cookies(MutableMapping[str, str]):
    """The cookies of a client: a jar that follows the rules of domain, path and secure, and pairs without a domain.

    Shared; the pairs are guarded by _lock, the jar guards itself. A request takes those that are there when it goes
    out; Set-Cookie of a response is in the jar before its Future resolves.

    ``cookies[name] = value`` sets a pair without a domain: it goes with every request of the program's own, to any
    origin, but never to another origin in a redirect. `set` with a domain, and servers, fill the jar. Where names
    meet, the jar's cookie is sent; ``cookies=`` of a call goes before both.
    """

    def __init__(self, given: CookiesLike = None) -> None:
        self._lock = threading.RLock()
        # Replaced, never changed: whoever has read it may iterate.
        self._own: dict[str, str] = {}
        self._jar: CookieJar | None = None
        if isinstance(given, Cookies):
            self._own, self._jar = given._own, given.jar
        elif is_jar(given):
            self._jar = given  # type: ignore[assignment]
        elif given is not None:
            self.update(arguments.pairs("cookies", given))

    @property
    def jar(self) -> CookieJar:
        """The ``http.cookiejar.CookieJar`` beneath: the one that was given, or one of its own."""
        if self._jar is None:
            from http.cookiejar import CookieJar

            from hyperpool.policy.suffixes import Policy

            made = CookieJar(Policy(strict_ns_domain=Policy.DomainStrictNonDomain))
            with self._lock:
                self._jar = self._jar if self._jar is not None else made
        return self._jar

    @property
    def pairs(self) -> Pairs:
        """The cookies without a domain."""
        return tuple(self._own.items())

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing that could be sent. Cheap: each request asks."""
        return not self._own and not (self._jar is not None and getattr(self._jar, "_cookies", True))

    def set(self, name: str, value: str, *, domain: str | None = None, path: str = "/", secure: bool = False) -> None:
        """Set a cookie: for one host (``domain="example.org"``), for a domain with all below it (``".example.org"``),
        or, without ``domain``, as ``cookies[name] = value`` does. ``secure``: over https only.

        Raises LocalProtocolError for what is no cookie, InvalidURL for a domain that has no ASCII form.
        """
        name, value = checked_pair(name, value)
        if domain is not None:
            self.jar.set_cookie(_made(name, value, _ascii_domain(domain), path, secure))
            return
        with self._lock:
            self._own = {**self._own, name: value}

    def extract(self, response: Response) -> None:
        """Take the cookies that a response sets, if its URL may set them."""
        import urllib.request

        request = urllib.request.Request(response.url)
        self.jar.extract_cookies(CookieView(response), request)  # type: ignore[arg-type]

    def start_anew_in_child(self) -> None:
        """After a fork: other threads of the parent may have held the locks."""
        self._lock = threading.RLock()
        if self._jar is not None and hasattr(self._jar, "_cookies_lock"):
            self._jar._cookies_lock = type(self._jar._cookies_lock)()

    # -- as a mapping of names and values --------------------------------------------------------------------------

    def __getitem__(self, name: str) -> str:
        """The value of a cookie; of the last one where several domains have one of this name."""
        own = self._own
        if name in own:
            return own[name]
        found = [cookie.value for cookie in self._in_jar() if cookie.name == name]
        if not found:
            raise KeyError(name)
        return found[-1] or ""

    def __setitem__(self, name: str, value: str) -> None:
        self.set(name, value)

    def __delitem__(self, name: str) -> None:
        """Forget the cookies of this name, of every domain."""
        with self._lock:
            was_own = name in self._own
            self._own = {key: value for key, value in self._own.items() if key != name}
        doomed = [cookie for cookie in self._in_jar() if cookie.name == name]
        for cookie in doomed:
            try:
                self.jar.clear(cookie.domain, cookie.path, cookie.name)
            except KeyError:
                continue  # another thread was faster
        if not (was_own or doomed):
            raise KeyError(name)

    def clear(self) -> None:
        """Forget all of them."""
        with self._lock:
            self._own = {}
        if self._jar is not None:
            self._jar.clear()

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys((*self._own, *(cookie.name for cookie in self._in_jar()))))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def items(self) -> ItemsView[str, str]:
        """Names and values of one moment: unlike ``dict(cookies)``, it meets no cookie that is gone."""
        found = {cookie.name: cookie.value or "" for cookie in self._in_jar()}
        return {**found, **self._own}.items()

    def _in_jar(self) -> list[Cookie]:
        if self._jar is None:
            return []
        # Iterating a CookieJar is no step of its own: the lock that its other methods take makes it one.
        with self._jar._cookies_lock:  # type: ignore[attr-defined]
            return list(self._jar)

    def __repr__(self) -> str:
        # Names alone: the values are credentials as often as not.
        return f"<Cookies {', '.join(self)}>"


def is_jar(given: Any) -> bool:
    """Whether this is a ``http.cookiejar.CookieJar``; without loading that."""
    return hasattr(given, "add_cookie_header") and hasattr(given, "extract_cookies")


def are_set_by(response: Response) -> bool:
    """Whether a response has Set-Cookie. Cheap: each response is asked."""
    return b"set-cookie" in [name for name, _ in response.raw_fields]


def of_a_call(given: CookiesLike) -> tuple[Pairs, Any]:
    """What a call gives as ``cookies=``: pairs, for the origin that it asks, and a jar or None.

    Raises LocalProtocolError for pairs that cannot be sent.
    """
    if given is None or is_jar(given):
        return (), given
    if isinstance(given, Cookies):
        return given.pairs, given.jar
    return tuple(checked_pair(name, value) for name, value in arguments.pairs("cookies", given)), None


def checked_pair(name: str, value: str) -> tuple[str, str]:
    """The same. Raises LocalProtocolError for what cannot be a cookie, or would be two (RFC 6265 4.1.1)."""
    if not isinstance(name, str) or not isinstance(value, str):
        raise LocalProtocolError("the name and the value of a cookie must be str")
    if not name or _NOT_IN_NAME(name):
        raise LocalProtocolError(f"cookie {name!r}: a name has no blanks, controls, ';', ',' or '=' in it")
    if _NOT_IN_VALUE(value):
        raise LocalProtocolError(f"cookie {name!r}: its value must have neither ';' nor controls; quote them")
    return arguments.plain(name), arguments.plain(value)


def header(url: str, *, jars: Iterable[Any], under: Pairs, over: Pairs) -> str | None:
    """The Cookie field for a URL: ``over`` before the jars' cookies for it, these before ``under``; None for none."""
    found = list(over)
    for jar in jars:
        _add(found, _from_jar(jar, url))
    _add(found, under)
    return "; ".join(f"{name}={value}" if name else value for name, value in found) or None


def _add(found: list[tuple[str, str]], more: Iterable[tuple[str, str]]) -> None:
    # One jar may rightly have a name twice, for two paths; what stands before it excludes both.
    known = {name for name, _ in found}
    found.extend(pair for pair in more if pair[0] not in known)


def _from_jar(jar: Any, url: str) -> list[tuple[str, str]]:
    import urllib.request

    # As it is requested: an auth may have put another URL in place, and a jar knows hosts by their ASCII names.
    request = urllib.request.Request(parse_url(url).wire)
    jar.add_cookie_header(request)
    pairs = []
    for piece in (request.get_header("Cookie") or "").split("; "):
        name, equals, value = piece.partition("=")
        if piece and _SENDABLE(piece):
            pairs.append((name, value) if equals else ("", name))
    return pairs


def _ascii_domain(domain: str) -> str:
    from hyperpool.engine.resolve import ascii_name  # here: it brings socket with it

    dot = "." * domain.startswith(".")
    return dot + ascii_name(domain.lower().removeprefix("."))


def _made(name: str, value: str, domain: str, path: str, secure: bool) -> Cookie:
    from http.cookiejar import Cookie

    if "." not in domain:
        domain = f"{domain}.local"  # how http.cookiejar calls a host without a dot
    dot = domain.startswith(".")
    return Cookie(0, name, value, None, False, domain, dot, dot, path, True, secure, None, False, None, None, {})
