"""Proxies for tests: CONNECT over plain TCP or TLS, and SOCKS 5; each tunnel is relayed by a thread of its own.

Whatever host is asked for, the tunnel leads to this machine: names need no name service, so that a test can prove who
would have resolved them. Forward proxies need no kit: `hyperpool.testing.Server` shows what such a one is sent.
"""

from __future__ import annotations

import contextlib
import ipaddress
import selectors
import socket
import ssl
import threading
from collections.abc import Callable
from typing import Any

from hyperpool.testing.scripted import shut
from hyperpool.testing.server import load_certificate

WAIT_S = 45.0


class TunnelProxy:
    """An HTTP proxy that makes tunnels.

    Shared. ``heads`` are the requests for tunnels as they came; ``tunnels`` counts those that were opened. ``answer``
    takes a head and gives the bytes to answer with in place of a tunnel, or None for a tunnel.
    """

    greeting = b"HTTP/1.1 200 Connection established\r\n\r\n"

    def __init__(
        self,
        *,
        certificate: tuple[bytes, bytes] | None = None,
        answer: Callable[[bytes], bytes | None] = lambda head: None,
    ) -> None:
        self.heads: list[bytes] = []
        self.tunnels = 0
        self.errors: list[BaseException] = []
        self._answer = answer
        self._context: ssl.SSLContext | None = None
        if certificate is not None:
            self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._context.set_alpn_protocols(["http/1.1"])
            load_certificate(self._context, certificate)
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._closing = False

    def __enter__(self) -> Any:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port: int = self._listener.getsockname()[1]
        self._accepting = threading.Thread(target=self._accept, name="scripted-proxy", daemon=True)
        self._accepting.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._closing = True
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._accepting.join(WAIT_S)
        self._listener.close()
        self.drop_tunnels()
        for thread in self._threads:
            thread.join(WAIT_S)

    def url(self, userinfo: str = "", scheme: str = "") -> str:
        scheme = scheme or ("https" if self._context is not None else "http")
        return f"{scheme}://{userinfo}{'@' if userinfo else ''}localhost:{self.port}"

    def drop_tunnels(self) -> None:
        """Shut every connection, both sides, without a word."""
        for sock in self._sockets:
            shut(sock)

    def _accept(self) -> None:
        while not self._closing:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._run, args=(sock,), name="scripted-tunnel", daemon=True)
            self._sockets.append(sock)
            self._threads.append(thread)
            thread.start()

    def _run(self, sock: socket.socket) -> None:
        try:
            sock.settimeout(WAIT_S)
            if self._context is not None:
                sock = self._context.wrap_socket(sock, server_side=True)
                self._sockets.append(sock)
            self._serve(sock)
        except OSError as error:
            if not self._closing:
                self.errors.append(error)
        finally:
            sock.close()

    def _serve(self, sock: socket.socket) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            if not (data := sock.recv(65_536)):
                return
            head += data
        self.heads.append(head)
        if (answer := self._answer(head)) is not None:
            sock.sendall(answer)
            return
        port = int(head.split()[1].rpartition(b":")[2])
        self._relay(sock, port, self.greeting)

    def _relay(self, sock: socket.socket, port: int, greeting: bytes) -> None:
        with socket.create_connection(("127.0.0.1", port)) as upstream:
            self._sockets.append(upstream)
            self.tunnels += 1
            sock.sendall(greeting)
            relay(sock, upstream)


class SocksProxy(TunnelProxy):
    """A SOCKS 5 proxy. ``asked`` are (host or address, port), ``users`` the credentials that came."""

    def __init__(self, *, credentials: tuple[bytes, bytes] | None = None, reply: int = 0) -> None:
        super().__init__()
        self._credentials = credentials
        self._reply = reply
        self.asked: list[tuple[str, int]] = []
        self.users: list[tuple[bytes, bytes]] = []

    def url(self, userinfo: str = "", scheme: str = "socks5h") -> str:
        return super().url(userinfo, scheme)

    def _serve(self, sock: socket.socket) -> None:
        _, count = exactly(sock, 2)
        methods = exactly(sock, count)
        wanted = 0 if self._credentials is None else 2
        if wanted not in methods:
            sock.sendall(b"\x05\xff")
            return
        sock.sendall(bytes([5, wanted]))
        if wanted and not self._login(sock):
            return
        _, _, _, kind = exactly(sock, 4)
        length = {1: 4, 4: 16}.get(kind) or exactly(sock, 1)[0]
        address = exactly(sock, length)
        host = address.decode() if kind == 3 else str(ipaddress.ip_address(address))
        port = int.from_bytes(exactly(sock, 2), "big")
        self.asked.append((host, port))
        # An IPv6 address in the answer: the longest that is common.
        answer = bytes([5, self._reply, 0, 4]) + bytes(18)
        if self._reply:
            sock.sendall(answer)
        else:
            self._relay(sock, port, answer)

    def _login(self, sock: socket.socket) -> bool:
        _, length = exactly(sock, 2)
        user = exactly(sock, length)
        password = exactly(sock, exactly(sock, 1)[0])
        self.users.append((user, password))
        accepted = (user, password) == self._credentials
        sock.sendall(b"\x01\x00" if accepted else b"\x01\x01")
        return accepted


def exactly(sock: socket.socket, n: int) -> bytes:
    data = b""
    while len(data) < n:
        if not (more := sock.recv(n - len(data))):
            raise ConnectionError("the client left")
        data += more
    return data


def relay(one: socket.socket, other: socket.socket) -> None:
    """Copy both ways until either side ends."""
    one.setblocking(False)
    other.setblocking(False)
    with selectors.DefaultSelector() as selector:
        selector.register(one, selectors.EVENT_READ, other)
        selector.register(other, selectors.EVENT_READ, one)
        while True:
            for key, _ in selector.select(WAIT_S):
                if not _copy(key.fileobj, key.data):
                    return


def _copy(source: Any, sink: Any) -> bool:
    while True:
        try:
            data = source.recv(65_536)
        except (BlockingIOError, ssl.SSLWantReadError):
            return True
        if not data:
            return False
        _send(sink, data)


def _send(sink: Any, data: bytes) -> None:
    view = memoryview(data)
    while view:
        try:
            view = view[sink.send(view) :]
        except (BlockingIOError, ssl.SSLWantWriteError):
            with selectors.DefaultSelector() as selector:
                selector.register(sink, selectors.EVENT_WRITE)
                selector.select(WAIT_S)
