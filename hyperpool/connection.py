"""hyper's connections: HTTPConnection, HTTP20Connection and HTTP11Connection, which threads can share.

They differ in the versions of HTTP that they speak, and in nothing else: see `connection_base`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hyperpool.connection_base import HTTP2, Connection
from hyperpool.connection_messages import HTTPVersion

if TYPE_CHECKING:
    from hyperpool.connection_arguments import TimeoutLike
    from hyperpool.headers import MapLike
    from hyperpool.window import BaseFlowControlManager


class HTTPConnection(Connection):
    """A connection that speaks what the server speaks: HTTP/2 where it can, HTTP/1.1 where not.

    Shared; guarded by _lock. Over TLS the handshake decides. In plaintext the first request asks an HTTP/1.1 server to
    go on in HTTP/2 (RFC 7540 3.2).

    host: a name or address, "host:port", or "[::1]:port". port: 80 where nothing says another. secure: whether to use
        TLS; by default at port 443 only. window_manager: a subclass of `hyperpool.window.BaseFlowControlManager`.
    enable_push: whether the server may push. ssl_context: see `hyperpool.tls.init_context`.
    proxy_host, proxy_port (8080), proxy_headers: an HTTP proxy, and what it alone is told. timeout: seconds for
        connecting and for each pause of the server; (connect, read); None: none.
    """

    default_port = 80
    may_upgrade = True

    def __init__(
        self,
        host: str,
        port: int | None = None,
        secure: bool | None = None,
        window_manager: type[BaseFlowControlManager] | None = None,
        enable_push: bool = False,
        ssl_context: Any = None,
        proxy_host: str | None = None,
        proxy_port: int | None = None,
        proxy_headers: MapLike | None = None,
        timeout: TimeoutLike = None,
        *,
        force_proto: str | None = None,
    ) -> None:
        self.force_proto = force_proto
        super().__init__(
            host,
            port,
            secure=secure,
            ssl_context=ssl_context,
            proxy=(proxy_host, proxy_port, proxy_headers),
            timeout=timeout,
            window_manager=window_manager,
            push=bool(enable_push),
            force_http2=bool(force_proto),
        )

    @property
    def version(self) -> HTTPVersion:
        """What the server speaks; HTTP/1.1 as long as nobody knows."""
        session = self._session
        return HTTPVersion.http20 if session is not None and session.version == HTTP2 else HTTPVersion.http11


class HTTP20Connection(Connection):
    """A connection that speaks HTTP/2 and nothing else; in plaintext with prior knowledge (RFC 9113 3.3).

    Shared; guarded by _lock. See `HTTPConnection` for what it takes; port: 443 where nothing says another.
    force_proto: "h2" speaks HTTP/2 over TLS whatever the handshake says.
    """

    version = HTTPVersion.http20

    def __init__(
        self,
        host: str,
        port: int | None = None,
        secure: bool | None = None,
        window_manager: type[BaseFlowControlManager] | None = None,
        enable_push: bool = False,
        ssl_context: Any = None,
        proxy_host: str | None = None,
        proxy_port: int | None = None,
        force_proto: str | None = None,
        proxy_headers: MapLike | None = None,
        timeout: TimeoutLike = None,
    ) -> None:
        self.force_proto = force_proto
        super().__init__(
            host,
            port,
            secure=secure,
            ssl_context=ssl_context,
            proxy=(proxy_host, proxy_port, proxy_headers),
            timeout=timeout,
            window_manager=window_manager,
            push=bool(enable_push),
            force_http2=bool(force_proto),
            http1=False,
        )


class HTTP11Connection(Connection):
    """A connection that speaks HTTP/1.1 and nothing else.

    Shared; guarded by _lock. See `HTTPConnection` for what it takes; what concerns HTTP/2 alone has no effect.
    """

    version = HTTPVersion.http11
    default_port = 80

    def __init__(
        self,
        host: str,
        port: int | None = None,
        secure: bool | None = None,
        ssl_context: Any = None,
        proxy_host: str | None = None,
        proxy_port: int | None = None,
        proxy_headers: MapLike | None = None,
        timeout: TimeoutLike = None,
        *,
        window_manager: type[BaseFlowControlManager] | None = None,
        enable_push: bool = False,
    ) -> None:
        super().__init__(
            host,
            port,
            secure=secure,
            ssl_context=ssl_context,
            proxy=(proxy_host, proxy_port, proxy_headers),
            timeout=timeout,
            http2=False,
        )
