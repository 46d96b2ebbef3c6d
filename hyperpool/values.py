"""The values that every floor speaks of: Timeout, Limits, TlsSettings, Proxy, Route, Request, RequestHead.

All immutable, all comparable, none knows a socket, a thread or a codec. Importing hyperpool must stay cheap:
what only some of this needs is imported on first use.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple, Union

from hyperpool import arguments
from hyperpool.urls import Origin


@dataclass(frozen=True, slots=True)
class Timeout:
    """How long each phase of one request may last, in seconds; None waits for ever. Immutable.

    ``total``: from submit to the end of the body (or to its headers, where the body is streamed).
    ``pool``: waiting for a connection or stream slot. ``connect``: resolving, connecting and the TLS handshake.
    ``write``: the longest pause in which the peer accepts nothing of a body that is ready to be sent.
    ``read``: the longest pause in which the peer sends nothing that is being waited for.
    """

    total: float | None = None
    pool: float | None = field(default=30.0, kw_only=True)
    connect: float | None = field(default=10.0, kw_only=True)
    write: float | None = field(default=30.0, kw_only=True)
    read: float | None = field(default=60.0, kw_only=True)

    def __post_init__(self) -> None:
        for phase in fields(self):
            seconds = getattr(self, phase.name)
            if seconds is None:
                continue
            if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
                raise TypeError(f"Timeout.{phase.name} must be seconds or None, not {seconds!r}")
            if not 0 <= seconds <= sys.float_info.max:
                raise ValueError(f"Timeout.{phase.name} must be 0 s or more, or None for ever, not {seconds!r}")


TimeoutLike = Union[Timeout, float, int, None, "tuple[float | None, float | None]", Any]


def as_timeout(given: TimeoutLike) -> Timeout:
    """Read a timeout in the forms people know.

    A number is the total; None waits for ever in every phase; (connect, read) is requests' pair; a ``urllib3.Timeout``
    is taken by its total, connect and read. Raises TypeError for anything else.
    """
    if isinstance(given, Timeout):
        return given
    if given is None:
        return Timeout(pool=None, connect=None, write=None, read=None)
    if isinstance(given, (int, float)):
        return Timeout(given)
    if isinstance(given, tuple) and len(given) == 2:
        return Timeout(connect=given[0], read=given[1])
    if any(base.__module__ == "urllib3.util.timeout" for base in type(given).__mro__):
        return _from_urllib3(given)
    raise TypeError(f"timeout must be seconds, (connect, read), a Timeout or None, not {given!r}")


def _from_urllib3(given: Any) -> Timeout:
    default = Timeout()

    def seconds(value: Any, fallback: float | None) -> float | None:
        # urllib3 marks "not given" with an enum member, and takes None as "for ever" as we do.
        return value if value is None or isinstance(value, (int, float)) else fallback

    return Timeout(
        seconds(given.total, None),
        connect=seconds(given._connect, default.connect),
        read=seconds(given._read, default.read),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The bounds within which a pool works. Immutable; give your own to `ConnectionPool` or `Client`.

    max_connections_per_origin: sockets to one HTTP/2 origin. 8: one carries 100 requests at a time already.
    max_http1_connections_per_origin: sockets to one HTTP/1.1 origin. 32: each carries one request at a time.
    max_streams_per_connection: open requests on one HTTP/2 connection, where the peer does not allow fewer. 100: what
        servers commonly grant; more makes each one slower, not the sum faster.
    max_queued_per_origin: requests waiting for a slot. 10,000: a program that is further behind wants to know it.
    max_origins: I/O threads. 1,000: each costs about 100 KiB when idle.
    stream_window_bytes: unread bytes that one response may hold. 1 MiB: 20 MB/s at 50 ms round trip.
    max_stream_window_bytes: what that grows to while its reader keeps up and the round trip holds it back. None: 16
        times stream_window_bytes, so 320 MB/s at 50 ms.
    connection_window_bytes: bytes in flight on one connection. 64 MiB: never the bottleneck; memory is bounded by the
        stream windows, since this window is credited on receipt.
    upload_buffer_bytes: bytes of a streamed upload that wait for the I/O thread. 256 KiB.
    idle_s: seconds after which an unused connection is closed; its thread ends with the last one. 90: below the
        keep-alive of common servers.
    max_age_s: seconds after which a connection takes no new requests, so that DNS changes are seen. 3,600.
    ping_after_s: seconds of silence, with responses outstanding, after which an HTTP/2 peer is asked whether it
        lives. 15. None: never.
    ping_timeout_s: seconds in which it must answer; else the connection is lost. 10.
    settings_timeout_s: seconds in which an HTTP/2 peer must send its SETTINGS (RFC 9113 3.4, 6.5.3). 10.
    continue_after_s: seconds for which a body that was announced with ``Expect: 100-continue`` waits for the server's
        word; then it is sent all the same (RFC 9110 10.1.1). 1: what curl and Go wait.
    dns_ttl_s: seconds for which a resolved address is reused. 60.
    max_header_bytes: size of one response head, by RFC 9113 6.5.2's count on HTTP/2. 64 KiB.
    min_body_rate: bytes per second that a response body must bring, on the average of 10 s in which its reader had
        room for more; else ReadTimeout: ``Timeout.read`` is satisfied by one byte now and then. None: no bound. Not
        for pools that read event streams.
    max_decoded_bytes: bytes to which a compressed body may expand when it is read whole. 256 MiB; None: no bound.
        Iterating is not bounded: it never decodes ahead of the reader.
    """

    max_connections_per_origin: int = 8
    max_http1_connections_per_origin: int = 32
    max_streams_per_connection: int = 100
    max_queued_per_origin: int = 10_000
    max_origins: int = 1_000
    stream_window_bytes: int = 1 << 20
    max_stream_window_bytes: int | None = None
    connection_window_bytes: int = 64 << 20
    upload_buffer_bytes: int = 256 << 10
    idle_s: float = 90.0
    max_age_s: float = 3600.0
    ping_after_s: float | None = 15.0
    ping_timeout_s: float = 10.0
    settings_timeout_s: float = 10.0
    continue_after_s: float = 1.0
    dns_ttl_s: float = 60.0
    max_header_bytes: int = 64 << 10
    min_body_rate: float | None = None
    max_decoded_bytes: int | None = 256 << 20

    def __post_init__(self) -> None:
        for limit in fields(self):
            value = getattr(self, limit.name)
            if value is None and str(limit.type).endswith("None"):
                continue
            # A float would only be found out by the I/O thread, when h2 packs it into a frame.
            kinds = int if str(limit.type).startswith("int") else (int, float)
            if isinstance(value, bool) or not isinstance(value, kinds):
                raise TypeError(f"Limits.{limit.name} must be {limit.type}, not {value!r}")
            if not value > 0:
                raise ValueError(f"Limits.{limit.name} must be more than 0, not {value!r}")
        for name in ("stream_window_bytes", "connection_window_bytes"):
            if not 65_535 <= getattr(self, name) <= 2**31 - 1:
                raise ValueError(f"Limits.{name} must be between 65,535 and 2**31-1 (RFC 9113 6.9.2)")
        # It goes out in our SETTINGS.
        if self.max_header_bytes > 2**32 - 1:
            raise ValueError("Limits.max_header_bytes must be at most 2**32-1 (RFC 9113 6.5.1)")


@dataclass(frozen=True)
class TlsSettings:
    """How to trust a server, and how to show who we are. Immutable; contexts in it compare by identity.

    ``verify``: True (certifi, or SSL_CERT_FILE / SSL_CERT_DIR where ``trust_env``), "system", a CA file or folder, PEM
    bytes, an ``ssl.SSLContext``, an ``OpenSSL.SSL.Context``, or False (no check at all).
    ``cert``: None, a path or PEM bytes with certificate and key, (cert, key), or (cert, key, password).
    """

    verify: Any = True
    cert: Any = None
    trust_env: bool = True

    def __post_init__(self) -> None:
        if isinstance(self.cert, list):  # as requests takes it; but settings are part of a key
            object.__setattr__(self, "cert", tuple(self.cert))
        object.__setattr__(self, "trust_env", arguments.flag("trust_env", self.trust_env))
        if not (isinstance(self.verify, bool) or _is_file(self.verify) or _is_context(self.verify)):
            wanted = 'True, False, "system", a path, PEM bytes, or a context of ssl or OpenSSL'
            raise TypeError(f"verify must be {wanted}, not {self.verify!r}")
        # A password may stand third: it is not shown.
        pair = self.cert if isinstance(self.cert, tuple) else (self.cert, self.cert)
        if self.cert is not None and not (2 <= len(pair) <= 3 and all(map(_is_file, pair[:2]))):
            wanted = "a path, PEM bytes, (cert, key), or (cert, key, password)"
            raise TypeError(f"cert must be {wanted}, not {type(self.cert).__name__}")


def _is_file(given: Any) -> bool:
    return isinstance(given, (str, bytes, bytearray, os.PathLike))


def _is_context(given: Any) -> bool:
    """Without loading either library: whoever gives a context of it has done so."""
    known = {("ssl", "SSLContext"), ("OpenSSL.SSL", "Context")}
    return any((base.__module__, base.__name__) in known for base in given.__class__.__mro__)


@dataclass(frozen=True, slots=True)
class Proxy:
    """What stands between us and an origin. Immutable.

    ``scheme`` is http, https, socks5 or socks5h. ``userinfo`` is "user:password", percent-encoded as in a URL.
    ``headers`` go to the proxy alone: with CONNECT, or with each request that is forwarded.
    """

    scheme: str
    host: str
    port: int
    # Not shown: credentials live in both.
    userinfo: str | None = field(default=None, repr=False)
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)

    def __str__(self) -> str:
        return f"{self.scheme}://{Origin(self.scheme, self.host, self.port).authority}"


@dataclass(frozen=True, slots=True)
class Route:
    """What must be equal for two requests to share connections. Immutable; the pool's key.

    upgrade: on ``http://``, ask an HTTP/1.1 server to go on in HTTP/2 (h2c, RFC 7540 3.2).
    force_http2: speak HTTP/2 over TLS whatever ALPN chose.
    push: let the server push (RFC 9113 8.4). window_manager: a class that decides about credit (`hyperpool.window`).
    each_frame: pieces of a body are the frames that the server made, not what came together.
    uds: the path of a Unix socket to connect to, whatever host and port are. source_address: the local address and
    port to connect from. socket_options: (level, option, value) each, set on every TCP socket before it connects.
    """

    origin: Origin
    tls: TlsSettings
    http1: bool = True
    http2: bool = True
    proxy: Proxy | None = None
    upgrade: bool = False
    force_http2: bool = False
    push: bool = False
    window_manager: type | None = None
    each_frame: bool = False
    uds: str | None = None
    source_address: tuple[str, int] | None = None
    socket_options: tuple[tuple[int, int, int | bytes], ...] = ()
    _hash: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # Each request asks for it, twice. Routes that have these in common, but not the rest, are few.
        object.__setattr__(self, "_hash", hash((self.origin, self.tls)))

    def __hash__(self) -> int:
        return self._hash


def as_source_address(given: Any) -> tuple[str, int] | None:
    """The local address to connect from: an IP address, or (address, port), where port 0 lets the system choose.

    Raises TypeError and ValueError for anything else.
    """
    if given is None:
        return None
    pair = (given, 0) if isinstance(given, str) else given
    if not isinstance(pair, (tuple, list)) or len(pair) != 2:
        raise TypeError(f"source_address must be an IP address or (address, port), not {given!r}")
    host, port = pair
    if not isinstance(port, int) or not 0 <= port <= 65535:
        raise ValueError(f"the port of source_address must be between 0 and 65535, not {port!r}")
    import ipaddress

    try:
        return str(ipaddress.ip_address(host)), port
    except ValueError as error:
        raise ValueError(f"source_address must be an IP address of this machine, not {host!r}") from error


def as_socket_options(given: Any) -> tuple[tuple[int, int, int | bytes], ...]:
    """Options for TCP sockets: (level, option, value) each, as ``socket.setsockopt`` takes them. None: none.

    Raises ValueError for anything else: the thread that connects could only report it as a fault of the server.
    """
    options = tuple(() if given is None else given)
    for one in options:
        if (
            not isinstance(one, (tuple, list))
            or len(one) != 3
            or not all(isinstance(part, int) and abs(part) < 1 << 31 for part in one[:2])
        ):
            raise ValueError(f"a socket option is (level, option, value), not {one!r}")
        value = one[2]
        if not isinstance(value, bytes) and not (isinstance(value, int) and abs(value) < 1 << 31):
            raise ValueError(f"the value of a socket option is an int of 32 bits or bytes, not {value!r}")
    return tuple((level, option, value) for level, option, value in options)


HeadersLike = Union[Mapping[Any, Any], "Sequence[tuple[Any, Any]]", None]


class LastingHeaders(tuple[tuple[str, str], ...]):  # noqa: SLOT001 - a tuple can have no slots but ()
    """Header fields as a client has them for all of its requests. Immutable, but for what is remembered of them.

    ``passed``: their form on the wire (`protocol.lasting`).
    """

    passed: Any = None

    def __reduce__(self) -> tuple[Any, ...]:
        return LastingHeaders, (tuple(self),)  # a copy remembers nothing


_PATIENCE = Timeout()
_PAIRS = (tuple, LastingHeaders)


@dataclass(frozen=True, slots=True, init=False)
class Request:
    """One request as the caller means it. Immutable.

    ``url`` is absolute. ``headers`` are pairs of str in the order of the wire, or a mapping, which is made into pairs.
    ``content`` is what the caller gave: bytes-like, str, a binary file, an iterable of bytes, a
    `handoff.source.FedSource`, or None. ``timeout`` is given in any of the forms of `as_timeout`, and is a `Timeout`
    from then on. ``target`` goes out as it stands in place of the URL's own path and query. Raises TypeError for
    what is of another type; what it says is judged when it is sent.
    """

    method: str
    url: str
    headers: tuple[tuple[str, str], ...]
    content: Any
    timeout: Timeout
    target: str | None

    def __init__(
        self,
        method: str,
        url: str,
        headers: HeadersLike = (),
        content: Any = None,
        timeout: TimeoutLike = _PATIENCE,
        target: str | None = None,
    ) -> None:
        # By hand, since a client makes one for each request: with a __post_init__ it takes a seventh longer. For the
        # same reason the looks at a class, which find nothing to do for what a client gives.
        put = object.__setattr__
        put(self, "method", method if method.__class__ is str else arguments.text("method", method))
        put(self, "url", url if url.__class__ is str else arguments.text("url", url))
        put(self, "headers", headers if headers.__class__ in _PAIRS else _header_pairs(headers))
        put(self, "content", content)
        put(self, "timeout", timeout if timeout.__class__ is Timeout else as_timeout(timeout))
        put(self, "target", target if target is None else arguments.text("target", target))


def _header_pairs(given: HeadersLike) -> tuple[tuple[Any, Any], ...]:
    if given is None:
        return ()
    return tuple(arguments.pairs("headers", given))


class RequestHead(NamedTuple):
    """A request head that has passed every check of `protocol.fields`. Immutable.

    ``fields`` keep the caller's order and spelling; the HTTP/2 codec lowers the names. ``body_bytes``: declared length
    of the body, None when it is unknown, 0 when there is none. ``expects_continue``: the body waits for the server's
    word (RFC 9110 10.1.1).
    """

    method: bytes
    scheme: bytes
    authority: bytes
    target: bytes
    fields: tuple[tuple[bytes, bytes], ...]
    body_bytes: int | None = 0
    expects_continue: bool = False
