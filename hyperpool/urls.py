"""Where a request goes: Origin and Url, and how a URL is parsed and judged.

Immutable and comparable, like all values. urllib3, which takes a URL apart, is imported by the first that is parsed.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from typing import Any, NamedTuple

from hyperpool.errors import InvalidURL

DEFAULT_PORTS = {"http": 80, "https": 443}

MAX_LABEL_BYTES = 63  # RFC 1035 2.3.4

# Controls are refused anywhere, space and backslash in the authority: parsers disagree about where a host with one of
# them ends, which is how requests are smuggled to other hosts.
_FORBIDDEN = re.compile(r"[\x00-\x1f\x7f]|^[^/?#]*//[^/?#]*?([ \\])")
_USERINFO = re.compile(r"//[^/?#]*@")
# The path of a Unix socket, percent-encoded, stands where a host would; then what its server is asked for.
_UNIX = re.compile(r"http\+unix://([^/?#]*)(.*)", re.IGNORECASE | re.DOTALL).fullmatch


@dataclass(frozen=True, slots=True)
class Origin:
    """Scheme, host and port (RFC 9110 4.3.1): what may share a connection. Immutable.

    ``host`` is lower case, an IPv6 address without its brackets; ``port`` is always a number. ``uds``: the path of the
    Unix socket that an ``http+unix://`` URL names; such origins are "localhost" to their servers.
    """

    scheme: str
    host: str
    port: int
    uds: str | None = None

    @property
    def authority(self) -> str:
        """Host and port as Host and :authority carry them: the port only where it is not the scheme's own."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == DEFAULT_PORTS.get(self.scheme) else f"{host}:{self.port}"

    def __str__(self) -> str:
        if self.uds is not None:
            from urllib.parse import quote

            return f"http+unix://{quote(self.uds, safe='', errors='surrogateescape')}"
        return f"{self.scheme}://{self.authority}"


class Url(NamedTuple):
    """A parsed, requestable URL. Immutable.

    ``target`` is the path with its query, ready for the wire. ``text`` is the URL as it was given, ``wire`` as it is
    requested: without a user, percent-encoded, scheme and host in lower case, the host in its ASCII form. ``place`` is
    the origin as messages name it.
    """

    origin: Origin
    target: str
    userinfo: str | None
    text: str
    wire: str
    place: str


@functools.lru_cache(maxsize=1024)
def parse_url(text: str) -> Url:
    """Parse an absolute http or https URL, or ``http+unix://%2Fpath%2Fof%2Fthe%2Fsocket/target``.

    Raises InvalidURL for everything that cannot be requested: control characters (RFC 3986 2), another scheme, no
    host, a port outside 1..65535, a host name that IDNA or DNS refuses. What is not ASCII is encoded: see `Url.wire`.
    """
    if not isinstance(text, str):
        raise InvalidURL(f"a URL must be str, not {type(text).__name__}")
    shown = repr(without_userinfo(text))
    if bad := _FORBIDDEN.search(text):
        raise InvalidURL(f"{shown}: {bad[bad.lastindex or 0]!r} is not allowed here; percent-encode it (RFC 3986 2.1)")
    if unix := _UNIX(text):
        uds = _socket_path(unix[1], shown)
        local = _split(f"http://localhost{unix[2]}")
        wire = f"http+unix://{unix[1]}{local.url.removeprefix('http://localhost')}"
        origin = Origin("http", "localhost", 80, uds)
        return Url(origin, local.request_uri, None, text, wire, str(origin))
    parts = _split(text)
    scheme = (parts.scheme or "").lower()
    if scheme not in DEFAULT_PORTS:
        raise InvalidURL(f"{shown}: give an absolute URL that begins with http:// or https://")
    if not parts.host:
        raise InvalidURL(f"{shown}: no host name in this URL")
    port = DEFAULT_PORTS[scheme] if parts.port is None else parts.port
    if not 1 <= port <= 65535:
        raise InvalidURL(f"{shown}: the port must be between 1 and 65535")
    host = _host(parts.host, shown)
    origin = Origin(scheme, host, port)
    return Url(origin, parts.request_uri, parts.auth, text, _wire(parts), str(origin))


def _host(given: str, shown: str) -> str:
    """The host of a URL, without the brackets of IPv6. Raises InvalidURL for a name that no resolver may be asked."""
    host = given.strip("[]").lower()
    # "127.0.0.1%20" is no address with a zone: only IPv6 has these (RFC 4007 11), and no interface is called "%20".
    if host.count("%") > (":" in host):
        raise InvalidURL(f"{shown}: '%' is not allowed in a host, but once before the zone of an IPv6 address")
    if ":" in host:
        return host
    if not all(0 < len(label) <= MAX_LABEL_BYTES for label in host.removesuffix(".").split(".")):
        bound = f"1 to {MAX_LABEL_BYTES} characters (RFC 1035 2.3.4)"
        raise InvalidURL(f"{shown}: each label of a host name has {bound}; check its spelling")
    return host


def _wire(parts: Any) -> str:
    # RFC 6874 2: the parser has decoded the "%25" that stands before a zone.
    made: str = parts._replace(auth=None, host=parts.host.replace("%", "%25")).url
    return made


def _socket_path(quoted: str, shown: str) -> str:
    from urllib.parse import unquote

    path = unquote(quoted, errors="surrogateescape")
    if "@" in quoted or not is_socket_path(path):
        example = "http+unix://%2Frun%2Fapp.sock/target"
        raise InvalidURL(f"{shown}: name a Unix socket by its absolute path, percent-encoded, as in {example}")
    return path


def is_socket_path(path: str) -> bool:
    """Whether this is the absolute path of a Unix socket, or a name of Linux's abstract space: NUL, then anything."""
    return len(path) > 1 and path[0] in "/\0" and "\0" not in path[1:]


def without_userinfo(url: str) -> str:
    """The URL for messages and logs: a password in it is nobody's business there."""
    return _USERINFO.sub("//", url, count=1)


def _split(text: str) -> Any:
    import urllib3.exceptions
    import urllib3.util

    try:
        return urllib3.util.parse_url(text)
    except (urllib3.exceptions.LocationParseError, UnicodeError, ValueError) as error:
        shown = without_userinfo(text)
        # The cause shows the URL as it is: not where a password may stand in it.
        raise InvalidURL(f"{shown!r}: this URL cannot be parsed (RFC 3986 3)") from (error if shown == text else None)
