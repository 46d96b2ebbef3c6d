"""`HTTPConnection` and `HTTPSConnection`: the standard library's, with a wire into the shared pool for a socket.

They are subclasses that change one thing: where `connect` would make a socket, they make a `Wire`, which reads the
bytes of requests and writes the bytes of responses. So every rule of ``http.client`` (states, validation, automatic
headers, debug output) is the standard library's own, in each version of Python, and none of it is written here again.

A connection object gets a socket of its own, and with it the standard library's HTTP/1.1, where it asks for what a
shared connection cannot give: see `_own_socket_needed` and `_needs_own_socket`. One that is given a socket (``sock``)
keeps that.

Plaintext goes through the pool as well. Two objects may then use one TCP connection after each other, as two that speak
HTTP/2 do at the same time; the last object that is closed closes it (`shared`), so that no server waits for nothing.
"""

from __future__ import annotations

import http.client as standard
import re
import socket
import sys
from typing import TYPE_CHECKING, Any

from hyperpool.engine import trust
from hyperpool.errors import HyperpoolError
from hyperpool.http_client import shared
from hyperpool.http_client.faults import standard_error
from hyperpool.http_client.response import HTTPResponse
from hyperpool.http_client.wire import Wire
from hyperpool.urls import Url, parse_url
from hyperpool.values import Proxy, TlsSettings

if TYPE_CHECKING:
    import ssl

# Kept now: programs put ours into that module in their place, and replace socket.create_connection.
_StandardHTTP = standard.HTTPConnection
_StandardHTTPS = standard.HTTPSConnection
_create_connection = socket.create_connection

# Request targets that may be shared (RFC 9112 3.2). xmlrpc.client sends "?q" and fragments as well, as they stand.
_TARGET = re.compile(rb"(?:[^ ]+ (?:[A-Za-z][A-Za-z0-9+.\-]*:/)?/[!\"$-~]*|OPTIONS \*) HTTP/1\.1").fullmatch


# What would lead elsewhere in a URL (RFC 3986 3.2): "a.test/x" to another target, "x@a.test" to another host, and
# "%61.test" is "a.test". A percent sign stands before the zone of an IPv6 address only (RFC 6874).
_NOT_IN_HOST = re.compile(r"[/?#@\\\[\]]|^[^:]*%").search


class HTTPConnection(_StandardHTTP):
    """One request at a time, as ``http.client`` has it, over the connections that all such objects share.

    Owned by one thread at a time, as the standard library's; any number of objects may be used at once.
    """

    response_class = HTTPResponse
    _scheme = "http"
    _tunnel_host: str | None
    _tunnel_port: int | None
    _tunnel_headers: Any
    _buffer: list[bytes]
    _http_vsn: int

    def __init__(self, host: str, port: int | None = None, *args: Any, **options: Any) -> None:
        # Named, since the standard HTTPSConnection looks its parent up in a module where ours may stand.
        _StandardHTTP.__init__(self, host, port, *args, **options)

    def connect(self) -> None:
        """Wait for a connection to the host: the pool's, or one of its own (see the top of this file)."""
        if self._own_socket_needed():
            self._connect_alone()
            return
        sys.audit("http.client.connect", self, self.host, self.port)
        try:
            url = self._origin_url()
            route = shared.shared_pool().route(url.origin, tls=self._tls(), proxy=self._proxy())
        except HyperpoolError as error:
            raise standard_error(error) from error
        self.sock: Any = Wire(route, url.text, timeout_s=self._timeout_s(), keep_warm=self._keep_warm())

    def _own_socket_needed(self) -> bool:
        """Whether this object asks for what the pool's connections cannot give, or does the connecting itself."""
        return (
            # A subclass that connects in its own way expects a socket from us.
            type(self).connect is not HTTPConnection.connect
            or getattr(self, "_create_connection", None) is not _create_connection
            or bool(self.source_address)  # type: ignore[attr-defined]
            or self._http_vsn != 11
            or (self._tunnel_host is not None and self._scheme == "http")
        )

    def _connect_alone(self) -> None:
        super().connect()

    def _send_output(self, message_body: Any = None, encode_chunked: bool = False) -> None:
        if isinstance(self.sock, Wire) and (self._own_socket_needed() or _needs_own_socket(self._buffer)):
            self.sock.close()
            self.sock = None
        if self.sock is None and self.auto_open and _needs_own_socket(self._buffer):
            self._connect_alone()
        super()._send_output(message_body, encode_chunked=encode_chunked)  # type: ignore[misc]
        if isinstance(self.sock, Wire):
            # What is missing now comes with `send`: let the head be seen.
            self.sock.flush()

    def _origin_url(self) -> Url:
        host, port = (self._tunnel_host, self._tunnel_port) if self._tunnel_host else (self.host, self.port)
        return parse_url(f"{self._scheme}://{_ascii_host(host or '')}:{port}/")

    def _timeout_s(self) -> float | None:
        unset = self.timeout is socket._GLOBAL_DEFAULT_TIMEOUT  # type: ignore[attr-defined]
        return socket.getdefaulttimeout() if unset else self.timeout

    def _proxy(self) -> Proxy | None:
        if not self._tunnel_host:
            return None
        # Newer versions put Host in here; it is the CONNECT's own, and the engine writes it.
        headers = tuple(
            (_text(name), _text(value)) for name, value in self._tunnel_headers.items() if _text(name).lower() != "host"
        )
        return Proxy("http", self.host, self.port, headers=headers)

    def _tls(self) -> TlsSettings:
        return TlsSettings(trust_env=False)

    def _keep_warm(self) -> bool:
        return False


class HTTPSConnection(HTTPConnection, _StandardHTTPS):
    """`HTTPConnection` over TLS: objects to one origin share its HTTP/2 connection, where the server speaks that.

    Owned by one thread at a time. Objects share where they trust alike: those without ``context``, and those with the
    same one. A context that was used offers no protocol afterwards (RFC 7301): the pool sets ALPN on it and takes it
    back.
    """

    _scheme = "https"
    _context: ssl.SSLContext

    def __init__(self, host: str, port: int | None = None, *args: Any, **options: Any) -> None:
        # With key_file and its kin (before Python 3.12) the standard library changes the context: never the shared one.
        if not args and not options.keys() - {"timeout", "source_address", "blocksize", "context"}:
            options["context"] = options.get("context") or shared.standard_context()
        _StandardHTTPS.__init__(self, host, port, *args, **options)

    def _own_socket_needed(self) -> bool:
        import ssl

        return not isinstance(self._context, ssl.SSLContext) or super()._own_socket_needed()

    def _connect_alone(self) -> None:
        if shared.is_standard(self._context):
            import ssl

            self._context = ssl._create_default_https_context()
            self._context.set_alpn_protocols(["http/1.1"])
        given = self._context
        self._context = _Alone(given)  # type: ignore[assignment]
        try:
            super()._connect_alone()
        finally:
            self._context = given

    def _tls(self) -> TlsSettings:
        return TlsSettings(self._context, trust_env=False)

    def _keep_warm(self) -> bool:
        return shared.is_standard(self._context)


class _Alone:
    """A context, as `http.client` uses it: nobody else's protocols are offered in its sessions.

    Immutable. A context that wraps sockets in a way of its own is left to do so.
    """

    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context

    def wrap_socket(self, sock: socket.socket, *, server_hostname: str) -> ssl.SSLSocket:
        import ssl

        if getattr(type(self._context), "wrap_socket", None) is not ssl.SSLContext.wrap_socket:
            return self._context.wrap_socket(sock, server_hostname=server_hostname)
        session = trust.wrap(self._context, sock, server_hostname)
        try:
            session.do_handshake()
        except BaseException:
            session.close()
            raise
        return session


def _needs_own_socket(lines: list[bytes]) -> bool:
    """Whether a request head asks for what only this object may have: a tunnel, another protocol, a strange target."""
    return not _TARGET(lines[0]) or any(line[:8].lower() == b"upgrade:" for line in lines)


def _ascii_host(host: str) -> str:
    """A host as it stands in a URL. Raises InvalidURL for what would be more than a host there."""
    if _NOT_IN_HOST(host):
        raise standard.InvalidURL(f"host {host!r} is not a host name")
    if ":" in host:
        return f"[{host}]"
    try:
        return host if host.isascii() else host.encode("idna").decode("ascii")
    except UnicodeError as error:
        raise standard.InvalidURL(f"host {host!r} has no ASCII form: {error}") from error


def _text(value: Any) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)
