"""Timeouts and proxies: what stands between a connection and its server."""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import Any

import pytest
from hyper_support import H1_PLAIN, H2, H2C, H11, H20, Bench, Way

from hyperpool import ConnectTimeout, ReadTimeout
from hyperpool.connection import HTTP11Connection, HTTP20Connection, HTTPConnection
from hyperpool.connection_errors import ProxyError
from hyperpool.testing import Reply, ScriptedConnection
from stage import WAIT_S, in_time, opened

# -- timeouts ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("timeout", [0.1, (WAIT_S, 0.1)], ids=["number", "pair"])
def test_a_server_that_does_not_answer_is_a_timeout(bench: Bench, way: Way, timeout: Any) -> None:
    gate = bench.gate()
    _, connection = bench.pair(way, lambda request: opened(gate) or 200, timeout=timeout)
    in_time(connection.connect)
    connection.request("GET", "/")
    with pytest.raises(ReadTimeout) as caught:
        connection.get_response()
    assert isinstance(caught.value, TimeoutError)


def test_a_pause_in_a_body_is_a_timeout(bench: Bench, way: Way) -> None:
    gate = bench.gate()

    def body() -> Any:
        yield b"begin"
        opened(gate)

    _, connection = bench.pair(way, lambda request: Reply(body=body()), timeout=(WAIT_S, 0.1))

    def begun() -> Any:
        connection.request("GET", "/")
        return connection.get_response()

    response = in_time(begun)
    with pytest.raises(ReadTimeout):
        response.read()


def test_a_handshake_that_never_ends_is_a_timeout(bench: Bench) -> None:
    peer = bench.peer(lambda conn: conn.drain() and None, tls=False)
    connection = HTTP20Connection("localhost", peer.port, secure=True, timeout=(0.1, None))
    with connection, pytest.raises(ConnectTimeout):
        connection.connect()


@pytest.mark.parametrize(
    ("given", "expected"), [(None, (None, None)), (3, (3, 3)), ((1, 2.5), (1, 2.5)), ((None, 2), (None, 2))]
)
def test_a_timeout_is_for_connecting_and_for_each_pause(given: Any, expected: Any) -> None:
    timeout = HTTPConnection("a.test", timeout=given)._timeout
    assert (timeout.total, timeout.connect, timeout.read) == (None, *expected)


# -- proxies -----------------------------------------------------------------------------------------------------------


class Proxy:
    """A proxy's script: tunnels where CONNECT asks for it, answers itself where it does not."""

    def __init__(self, to_port: int, status: bytes = b"200 OK") -> None:
        self.to_port = to_port
        self.status = status
        self.heads: list[str] = []

    def __call__(self, conn: ScriptedConnection) -> None:
        head = conn.recv_until(b"\r\n\r\n").decode()
        self.heads.append(head)
        if not head.startswith("CONNECT"):
            conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nforwarded")
            conn.drain()
            return
        conn.send(
            b"HTTP/1.1 " + self.status + b"\r\nContent-Length: 0\r\n\r\n"[: 2 if self.status[:1] == b"2" else None]
        )
        if self.status[:1] == b"2":
            conn.send(b"\r\n")
            self._tunnel(conn)

    def _tunnel(self, conn: ScriptedConnection) -> None:
        import socket

        with socket.create_connection(("127.0.0.1", self.to_port)) as onward:

            def back() -> None:
                with suppress(OSError):  # either side may have left
                    while data := onward.recv(65_536):
                        conn.send(data)

            thread = threading.Thread(target=back)
            thread.start()
            with suppress(OSError):
                while data := conn.recv():
                    onward.sendall(data)
            with suppress(OSError):
                onward.shutdown(socket.SHUT_RDWR)
            thread.join()


@pytest.mark.parametrize("way", [H2, H20, H11], ids=str)
def test_a_secure_connection_goes_through_a_tunnel(bench: Bench, way: Way) -> None:
    server = bench.server(way)
    proxy = Proxy(server.port)
    options = {"proxy_host": "127.0.0.1", "proxy_port": bench.peer(proxy, tls=False).port}
    connection = bench.connection(way, server.port, **options, proxy_headers={"X-Proxy": "told"})
    connection.request("GET", "/headers", headers={"X-Server": "told"})
    body = connection.get_response().read()
    assert proxy.heads[0].startswith(f"CONNECT localhost:{server.port} HTTP/1.1\r\n")
    assert "x-proxy: told" in proxy.heads[0].lower()
    assert (b"x-proxy" in body, b"x-server" in body) == (False, True)


@pytest.mark.parametrize("way", [H2C, H1_PLAIN], ids=str)
def test_a_plain_connection_is_forwarded(bench: Bench, way: Way) -> None:
    proxy = Proxy(0)
    host = f"127.0.0.1:{bench.peer(proxy, tls=False).port}"
    connection = HTTPConnection("a.test", proxy_host=host, proxy_headers=[("X-Proxy", "told")], timeout=WAIT_S)
    with connection:
        connection.request("GET", "/x?y")
        assert connection.get_response().read() == b"forwarded"
    assert proxy.heads[0].startswith("GET http://a.test/x?y HTTP/1.1\r\n")
    assert "x-proxy: told" in proxy.heads[0].lower()
    assert "upgrade" not in proxy.heads[0].lower()


def test_a_proxy_that_refuses_is_a_proxy_error(bench: Bench) -> None:
    proxy = Proxy(0, status=b"403 Forbidden")
    host = f"127.0.0.1:{bench.peer(proxy, tls=False).port}"
    connection = HTTP11Connection("a.test", 443, proxy_host=host, timeout=WAIT_S)
    with connection, pytest.raises(ProxyError, match="403"):
        connection.request("GET", "/")
