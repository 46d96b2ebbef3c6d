"""Which proxy leads to an origin: from what callers write, and from the environment, to a `Proxy`, or None for direct.

Lives here: `parse_proxy`, `ProxyMap`, and `forwards`, the one question that pool and engine both ask about a route.
Must never come in: connecting.

The order of authority: what the caller gave for this origin, then, where ``trust_env``, HTTP_PROXY, HTTPS_PROXY and
ALL_PROXY but for what NO_PROXY excepts, then no proxy. NO_PROXY is a word of the environment about the environment: it
does not overrule a proxy that the program itself chose (so in requests and httpx; curl differs).
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Union

from hyperpool.errors import InvalidURL
from hyperpool.urls import Origin
from hyperpool.values import Proxy, Route

if TYPE_CHECKING:
    from ipaddress import IPv4Network, IPv6Network

ProxyLike = Union[str, Proxy, "Mapping[str, str | Proxy | None]", None]

# The scheme's own port, as requests and urllib3 have it, and 1080 for SOCKS (RFC 1928 3). curl assumes 1080 for http
# proxies as well: whoever means that writes it.
PROXY_PORTS = {"http": 80, "https": 443, "socks5": 1080, "socks5h": 1080}

# Origins whose proxy is remembered: as many as `Limits.max_origins`. Beyond that the choice is made anew.
_REMEMBERED = 1_024

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://").match
_FORBIDDEN = re.compile(r"[\x00-\x20\x7f\\]").search
_SEPARATORS = re.compile(r"[,\s]+")
_KEY = re.compile(r"(all|http|https)(?:://(.*))?").fullmatch
_WITH_PORT = re.compile(r"(\[.*\]|[^:]*):([0-9]{1,5})").fullmatch

Entries = dict[str, Union[Proxy, None]]


def parse_proxy(url: str, headers: Any = ()) -> Proxy:
    """A proxy from its URL: ``scheme://user:password@host:port``, or ``host:port`` for http.

    Schemes are http, https, socks5 (names are resolved here) and socks5h (names are resolved by the proxy); without a
    port it is 80, 443 or 1080. ``headers``: a mapping or pairs of str, for the proxy alone. User and password are
    percent-encoded where they hold any of ``:/?#@``. Raises InvalidURL, which never shows the password.
    """
    if not isinstance(url, str):
        raise InvalidURL(f"a proxy must be a URL as str, or a Proxy, not {type(url).__name__}")
    shown = url.rpartition("@")[2]
    if bad := _FORBIDDEN(url):
        raise InvalidURL(f"proxy {shown!r}: {bad[0]!r} is not allowed here; percent-encode it (RFC 3986 2.1)")
    scheme = found[1].lower() if (found := _SCHEME(url)) else "http"
    if scheme not in PROXY_PORTS:
        raise InvalidURL(f"proxy {shown!r}: the scheme must be one of {', '.join(PROXY_PORTS)}, not {scheme!r}")
    parts = _split(url if found else f"http://{url}", shown)
    if not parts.host:
        raise InvalidURL(f"proxy {shown!r}: no host name in this URL")
    if parts.path not in (None, "", "/") or parts.query is not None or parts.fragment is not None:
        raise InvalidURL(f"proxy {shown!r}: a proxy has no path; percent-encode '/', '?' and '#' in its password")
    port = PROXY_PORTS[scheme] if parts.port is None else parts.port
    if not 1 <= port <= 65535:
        raise InvalidURL(f"proxy {shown!r}: the port must be between 1 and 65535")
    pairs = headers.items() if isinstance(headers, Mapping) else headers
    return Proxy(
        scheme, parts.host.strip("[]").lower(), port, parts.auth, tuple((name, value) for name, value in pairs)
    )


def _split(url: str, shown: str) -> Any:
    import urllib3.exceptions
    import urllib3.util

    try:
        return urllib3.util.parse_url(url)
    except (urllib3.exceptions.LocationParseError, UnicodeError, ValueError):
        # "from None": the cause would show the whole URL, with the password in it.
        raise InvalidURL(f"proxy {shown!r}: this URL cannot be parsed") from None


def forwards(route: Route) -> bool:
    """Whether requests are given to the proxy to be forwarded, rather than sent to the origin through a tunnel."""
    return route.proxy is not None and route.origin.scheme == "http" and route.proxy.scheme in ("http", "https")


class ProxyMap:
    """Which proxy leads to which origin.

    Shared; what it was given is immutable. The environment is read once, by the first question, and choices are
    remembered: threads that race there do the same work twice, and no harm.

    ``given``: a proxy for all origins (a URL or a `Proxy`); or a mapping by "https://host:port", "https://host",
    "https", "all://host:port", "all://host" and "all", in this order of precedence, where None and "" mean a direct
    connection, and "no_proxy" lists exceptions as NO_PROXY does; or None for the environment alone, where
    ``trust_env``. Raises InvalidURL.
    """

    def __init__(self, given: ProxyLike = None, *, trust_env: bool = True) -> None:
        self._given, self._excepted = _read_given(given)
        self._trust_env = trust_env
        self._environment: tuple[Entries, tuple[Exemption, ...]] | None = None
        self._chosen: dict[Origin, Proxy | None] = {}

    def choose(self, origin: Origin) -> Proxy | None:
        """The proxy for an origin; None for a direct connection.

        Raises InvalidURL where a variable of the environment holds what is no proxy.
        """
        try:
            return self._chosen[origin]
        except KeyError:
            pass
        proxy = self._look_up(origin)
        if len(self._chosen) >= _REMEMBERED:
            self._chosen.clear()
        self._chosen[origin] = proxy
        return proxy

    def _look_up(self, origin: Origin) -> Proxy | None:
        if any(one.covers(origin) for one in self._excepted):
            return None
        if (key := _matching_key(self._given, origin)) is not None:
            return self._given[key]
        if not self._trust_env:
            return None
        if self._environment is None:
            self._environment = _read_environment(os.environ)
        entries, excepted = self._environment
        key = _matching_key(entries, origin)
        if key is None or any(one.covers(origin) for one in excepted):
            return None
        return entries[key]

    def __repr__(self) -> str:
        shown = {key: str(proxy) for key, proxy in self._given.items()}
        return f"<ProxyMap {shown} trust_env={self._trust_env}>"


def _matching_key(entries: Entries, origin: Origin) -> str | None:
    places = (_with_port(origin.host, origin.port), origin.host)
    keys = [key for scheme in (origin.scheme, "all") for key in (*(f"{scheme}://{one}" for one in places), scheme)]
    return next((key for key in keys if key in entries), None)


def _read_given(given: ProxyLike) -> tuple[Entries, tuple[Exemption, ...]]:
    if given is None:
        return {}, ()
    if not isinstance(given, Mapping):
        return {"all": _proxy(given)}, ()
    entries = {_key(key): _proxy(value) for key, value in given.items() if key not in ("no_proxy", "no")}
    return entries, read_no_proxy(str(given.get("no_proxy") or given.get("no") or ""))


def _key(key: str) -> str:
    found = _KEY(key.lower()) if isinstance(key, str) else None
    if found is None:
        raise InvalidURL(f"proxy for {key!r}: give http, https, all, or one of them with a host, as in 'https://host'")
    scheme, host = found[1], (found[2] or "").strip("/")
    if parts := _WITH_PORT(host):
        return f"{scheme}://{_with_port(parts[1].strip('[]'), int(parts[2]))}"
    host = host.strip("[]")
    return f"{scheme}://{host}" if host else scheme


def _with_port(host: str, port: int) -> str:
    # In brackets: "::1" with port 80 is not the address "::1:80".
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _proxy(given: Any) -> Proxy | None:
    return given if given is None or isinstance(given, Proxy) else parse_proxy(given) if given != "" else None


# -- the environment ---------------------------------------------------------------------------------------------------


def _read_environment(environ: Mapping[str, str]) -> tuple[Entries, tuple[Exemption, ...]]:
    entries: Entries = {}
    for scheme in ("http", "https", "all"):
        name, value = _variable(environ, f"{scheme}_proxy")
        if not value:
            continue
        try:
            entries[scheme] = parse_proxy(value)
        except InvalidURL as error:
            raise InvalidURL(f"environment variable {name}: {error}") from None
    return entries, read_no_proxy(_variable(environ, "no_proxy")[1])


def _variable(environ: Mapping[str, str], name: str) -> tuple[str, str]:
    """Its name and value, the lower-case spelling first; empty means: none."""
    if name in environ:
        return name, environ[name].strip()
    if name == "http_proxy" and "REQUEST_METHOD" in environ:
        # A CGI program: there HTTP_PROXY is the request header "Proxy:" of whoever asks (httpoxy, CVE-2016-5385).
        return name, ""
    return name.upper(), environ.get(name.upper(), "").strip()


class Exemption:
    """One entry of NO_PROXY.

    Immutable. A domain covers itself and what lies under it, with a leading dot or without; an address covers itself
    in every spelling; a network (CIDR) covers its addresses; with ":port" only that port is meant; "*" covers all.
    Names are not resolved: a network covers hosts that are written as addresses.
    """

    __slots__ = ("_everything", "_name", "_network", "_port")

    def __init__(self, entry: str) -> None:
        self._everything = entry == "*"
        self._port: int | None = None
        self._network = _network(entry)
        if self._network is None:
            entry, self._port = _without_port(entry)
            self._network = _network(entry)
        self._name = entry.lower().removeprefix("*").strip(".")

    def covers(self, origin: Origin) -> bool:
        """Whether the origin is reached without the environment's proxy."""
        if self._everything:
            return True
        if self._port not in (None, origin.port):
            return False
        if self._network is not None:
            return _covered(origin.host, self._network)
        host = origin.host.removesuffix(".")
        return bool(self._name) and (host == self._name or host.endswith(f".{self._name}"))


def read_no_proxy(text: str) -> tuple[Exemption, ...]:
    """The entries of a NO_PROXY list; commas or blanks separate them."""
    return tuple(Exemption(entry) for entry in _SEPARATORS.split(text) if entry)


def _network(text: str) -> IPv4Network | IPv6Network | None:
    import ipaddress

    try:
        return ipaddress.ip_network(text.strip("[]"), strict=False)
    except ValueError:
        return None


def _without_port(entry: str) -> tuple[str, int | None]:
    host, colon, port = entry.rpartition(":")
    return (host, int(port)) if colon and port.isascii() and port.isdigit() else (entry, None)


def _covered(host: str, network: Any) -> bool:
    import ipaddress

    try:
        return ipaddress.ip_address(host.partition("%")[0]) in network
    except ValueError:
        return False
