"""The server of the test kit: one real listener with scriptable behaviour, for any number of connections.

Theory of operation: an accepting thread, one I/O thread for each connection (`served`), a crew of threads for the
handlers (`crew`). Commands of tests go to the I/O threads and have been sent when the call returns. Nothing is left
after `close`: no thread, no socket.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import ssl
import tempfile
import threading
from collections.abc import Callable, Mapping
from functools import partial
from types import TracebackType
from typing import Any

from h2.settings import SettingCodes

from hyperpool.testing.certificates import CertificateAuthority
from hyperpool.testing.crew import Crew
from hyperpool.testing.h1_peer import H1Peer
from hyperpool.testing.h2_peer import H2Peer
from hyperpool.testing.logbook import Logbook, SeenRequest
from hyperpool.testing.messages import H, Handler
from hyperpool.testing.paths import DEFAULT_PATHS, describe
from hyperpool.testing.served import ServedConnection
from hyperpool.testing.service import Ending, Options, Service

# Threads for handlers that wait: more than two connections' worth of streams. A request beyond them waits in line.
HANDLER_THREADS = 256

# How long `close` waits for handlers. Only one that waits for something of the test's own can take any time.
CLOSE_S = 20.0

# How long other calls wait for what the server does at once. Only a machine with much else to do takes any time.
PATIENCE_S = 30.0


class Server:
    """An HTTP/2 and HTTP/1.1 server on a loopback port, over TLS or in plaintext.

    Shared: every method may be called from any thread; `start` and `close` once each.

    ``handler``: answers what no route matches; None gives `paths.DEFAULT_PATHS`. ``names``: what the certificate is
    for. ``certificate``: (certificate PEM, key PEM) to show instead. ``authority``: a CA to share between servers.
    ``client_ca_pem``: demand client certificates of this CA. ``h2_settings``: further SETTINGS by number.
    ``uds``: listen on a Unix socket of this path in place of a port; `close` removes it.
    ``upgrades``: in plaintext, go on in HTTP/2 where a request over HTTP/1.1 asks for it (RFC 7540 3.2).
    """

    def __init__(
        self,
        handler: Handler | None = None,
        *,
        tls: bool = True,
        http2: bool = True,
        http1: bool = True,
        host: str = "127.0.0.1",
        names: tuple[str, ...] = ("localhost", "127.0.0.1", "::1"),
        certificate: tuple[bytes, bytes] | None = None,
        authority: CertificateAuthority | None = None,
        client_ca_pem: bytes | None = None,
        max_concurrent_streams: int = 100,
        initial_window_bytes: int = 1 << 20,
        connection_window_bytes: int = 16 << 20,
        max_frame_bytes: int = 16_384,
        h2_settings: Mapping[int, int] | None = None,
        upgrades: bool = True,
        uds: str | None = None,
    ) -> None:
        options = Options(
            tls=tls,
            http2=http2,
            http1=http1,
            max_concurrent_streams=max_concurrent_streams,
            initial_window_bytes=initial_window_bytes,
            connection_window_bytes=connection_window_bytes,
            max_frame_bytes=max_frame_bytes,
            h2_settings=h2_settings or {},
            upgrades=upgrades and http2 and not tls,
        )
        self.authority = authority or CertificateAuthority()
        self.tls_context = self._tls_context(options, certificate or self.authority.issue(*names)) if tls else None
        if self.tls_context is not None and client_ca_pem is not None:
            self.tls_context.load_verify_locations(cadata=client_ca_pem.decode())
            self.tls_context.verify_mode = ssl.CERT_REQUIRED
        self._host = host
        self._uds = uds
        self._routes: dict[str, Handler] = {} if handler else dict(DEFAULT_PATHS)
        self._rest = handler or describe
        self._log = Logbook()
        self._service = Service(
            options=options,
            log=self._log,
            crew=Crew(max_threads=HANDLER_THREADS, on_error=self._log.error),
            find_handler=self._find_handler,
            tls_context=self.tls_context,
        )
        self._listener: socket.socket | None = None
        self._port = 0
        self._connections: list[ServedConnection] = []
        self._lock = threading.Lock()  # guards _connections and _is_closed
        self._is_closed = False

    @staticmethod
    def _tls_context(options: Options, certificate: tuple[bytes, bytes]) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        load_certificate(context, certificate)
        offered = [name for name, is_on in (("h2", options.http2), ("http/1.1", options.http1)) if is_on]
        context.set_alpn_protocols(offered)
        return context

    # Its life.

    def start(self) -> Server:
        """Bind and accept; returns the server itself."""
        self._listener = self._listen()
        self._port = 0 if self._uds else self._listener.getsockname()[1]
        self._listener.setblocking(False)
        self._stop_reader, self._stop_writer = socket.socketpair()
        self._accepting = threading.Thread(target=self._accept, name="accepting", daemon=True)
        self._accepting.start()
        return self

    def _listen(self) -> socket.socket:
        if self._uds is None:
            family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
            return socket.create_server((self._host, 0), family=family, backlog=512)
        listener = socket.socket(socket.AF_UNIX)
        try:
            listener.bind(self._uds)
            listener.listen(512)
        except OSError:
            listener.close()
            raise
        return listener

    def close(self) -> None:
        """Close every socket and join every thread. Blocks up to `CLOSE_S` for handlers; safe to repeat."""
        with self._lock:
            if self._is_closed or self._listener is None:
                return
            self._is_closed = True
        self._stop_writer.send(b"\0")
        self._accepting.join()
        for sock in (self._listener, self._stop_reader, self._stop_writer):
            sock.close()
        if self._uds is not None:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._uds)
        for connection in self._connections:
            connection.stop()
        late = [repr(connection) for connection in self._connections if not connection.join(CLOSE_S)]
        late += self._service.crew.close(CLOSE_S)
        if late:
            self._log.error(RuntimeError(f"still running {CLOSE_S} s after close: {', '.join(late)}"))

    def __enter__(self) -> Server:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        where = self.origin if self._listener is not None else "not started"
        return f"<Server {where} open={self.connections_open} accepted={self.connections_accepted}>"

    def _accept(self) -> None:
        assert self._listener is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self._listener, selectors.EVENT_READ)
            selector.register(self._stop_reader, selectors.EVENT_READ)
            while not any(key.fileobj is self._stop_reader for key, _ in selector.select()):
                with contextlib.suppress(BlockingIOError, ConnectionError):
                    self._serve(self._listener.accept()[0])

    def _serve(self, sock: socket.socket) -> None:
        with self._lock:  # whoever was told of the connection by the log, and commands it, finds it
            connection = ServedConnection(sock, number=self._log.opened(), service=self._service)
            self._connections = [*(other for other in self._connections if not other.join(0)), connection]
            connection.start()

    # Where it is, and what it saw.

    def url(self, path: str = "/") -> str:
        return self.origin + path

    @property
    def port(self) -> int:
        return self._port

    @property
    def origin(self) -> str:
        """Scheme, the name "localhost" and port: the address is the one of ``host``, which a client must reach."""
        scheme = "https" if self._service.options.tls else "http"
        if self._uds is not None:  # the port is the scheme's own: nothing listens there
            return f"{scheme}://localhost"
        return f"{scheme}://localhost:{self._port}"

    @property
    def ca_pem(self) -> bytes:
        return self.authority.ca_pem

    @property
    def connections_accepted(self) -> int:
        return self._log.accepted

    @property
    def connections_open(self) -> int:
        return self._log.open

    @property
    def most_connections_open(self) -> int:
        """The most that were open at the same time."""
        return self._log.most_open

    @property
    def requests(self) -> list[SeenRequest]:
        """The last 10,000 requests, in order of arrival."""
        return self._log.requests

    @property
    def errors(self) -> list[BaseException]:
        """What the server's threads met and no ordinary disconnect explains: broken protocol, failed handlers."""
        return self._log.errors

    @property
    def handshake_errors(self) -> list[BaseException]:
        """Connections that failed before a protocol was spoken, such as clients that do not trust `ca_pem`."""
        return self._log.handshake_errors

    def wait_until(self, predicate: Callable[[Server], bool], timeout_s: float = PATIENCE_S) -> bool:
        """Block until what the server saw satisfies the predicate; whether it did in time. Instead of sleeping."""
        return self._log.wait_until(lambda: predicate(self), timeout_s)

    # What it answers.

    def route(self, path_prefix: str) -> Callable[[H], H]:
        """Decorator: have paths with this prefix answered by the function. The longest prefix wins."""

        def add(handler: H) -> H:
            self._routes = {**self._routes, path_prefix: handler}
            return handler

        return add

    def _find_handler(self, path: str) -> Handler:
        routes = self._routes
        matching = [prefix for prefix in routes if path.startswith(prefix)]
        return routes[max(matching, key=len)] if matching else self._rest

    # How it misbehaves.

    def goaway(self, code: int = 0, last_stream_id: int | None = None) -> None:
        """Send GOAWAY on every HTTP/2 connection; HTTP/1.1 ones close when idle.

        ``last_stream_id`` None: the last one received. Streams beyond it are dropped without a word; the connection
        closes when the others are done. 2**31-1 only announces (RFC 9113 6.8): nothing is dropped or closed.
        """
        self._on_each(lambda connection: _goaway(connection, code=code, last_stream_id=last_stream_id))

    def drop_connections(self, rst: bool = False) -> None:
        """Close every socket without a word of TLS or HTTP; ``rst``: by TCP RST. Blocks until they are closed."""
        dropped = self._live()
        for connection in dropped:
            connection.post(partial(connection.drop, Ending(rst=rst)))
        for connection in dropped:
            connection.join(PATIENCE_S)

    def pause_reading(self) -> None:
        """Read no socket, so that peers' writes block once the kernel's buffers are full. Handshakes go on."""
        self._service.is_paused = True
        self._on_each(lambda connection: None)

    def resume_reading(self) -> None:
        self._service.is_paused = False
        self._on_each(lambda connection: None)

    def set_max_concurrent_streams(self, n: int) -> None:
        """Change the setting on live HTTP/2 connections; it counts once the peer acknowledged it."""
        self._on_each(lambda connection: _update(connection, SettingCodes.MAX_CONCURRENT_STREAMS, n))

    def set_initial_window(self, n_bytes: int) -> None:
        """Change the setting on live HTTP/2 connections; open streams' windows change with it (RFC 9113 6.9.2)."""
        self._on_each(lambda connection: _update(connection, SettingCodes.INITIAL_WINDOW_SIZE, n_bytes))

    def _live(self) -> list[ServedConnection]:
        with self._lock:
            return [connection for connection in self._connections if not connection.has_ended]

    def _on_each(self, act: Callable[[ServedConnection], None]) -> None:
        for connection in self._live():
            connection.call(partial(act, connection), PATIENCE_S)


def load_certificate(context: ssl.SSLContext, certificate: tuple[bytes, bytes]) -> None:
    """Give (certificate PEM, key PEM) to a context; `ssl` takes them from files alone."""
    with tempfile.NamedTemporaryFile(suffix=".pem") as file:
        file.write(b"".join(certificate))
        file.flush()
        context.load_cert_chain(file.name)


def _goaway(connection: ServedConnection, *, code: int, last_stream_id: int | None) -> None:
    peer: Any = connection.peer
    if isinstance(peer, H2Peer):
        peer.goaway(code=code, last_stream_id=last_stream_id)
    elif isinstance(peer, H1Peer):
        peer.goaway()


def _update(connection: ServedConnection, setting: int, value: int) -> None:
    if isinstance(connection.peer, H2Peer):
        connection.peer.update_settings({setting: value})
