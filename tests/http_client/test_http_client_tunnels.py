"""set_tunnel: TLS through a proxy, on connections that the objects behind it share."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from http_client_kit import H1, H2, Kit, fetch

from hyperpool import errors, http_client
from hyperpool.testing import pattern

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from proxy_kit import TunnelProxy


def tunnelled(kit: Kit, proxy: Any, server: Any, **options: Any) -> Any:
    connection = http_client.HTTPSConnection("localhost", proxy.port, context=kit.context)
    connection.set_tunnel("localhost", server.port, **options)
    return connection


def test_https_goes_through_the_tunnel_and_is_http2_behind_it(kit: Kit) -> None:
    server, proxy = kit.server(H2), kit.enter(TunnelProxy())
    connection = tunnelled(kit, proxy, server, headers={"Proxy-Authorization": "Basic eDp5", "Host": "mine"})
    connection.request("GET", "/bytes/3")
    response = connection.getresponse()
    assert (response.version, response.read()) == (20, pattern(3))
    assert proxy.heads[0].startswith(f"CONNECT localhost:{server.port} HTTP/1.1\r\n".encode())
    assert b"proxy-authorization: basic edp5" in proxy.heads[0].lower()
    assert server.requests[0].authority == f"localhost:{server.port}"
    assert "proxy-authorization" not in dict(server.requests[0].headers)
    connection.close()


def test_objects_share_a_tunnel(kit: Kit) -> None:
    server, proxy = kit.server(H2), kit.enter(TunnelProxy())
    objects = [tunnelled(kit, proxy, server) for _ in range(4)]
    assert [fetch(each, "/bytes/3") for each in objects] == [pattern(3)] * 4
    assert proxy.tunnels == 1
    for each in objects:
        each.close()


def test_a_tunnel_that_is_refused_says_so_as_the_standard_library_does(kit: Kit) -> None:
    proxy = kit.enter(TunnelProxy(answer=lambda head: b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n"))
    connection = tunnelled(kit, proxy, kit.server(H2))
    with pytest.raises(OSError, match="Tunnel connection failed: 407") as caught:
        connection.request("GET", "/")
    assert isinstance(caught.value.__cause__, errors.ProxyError)


def test_plaintext_through_a_tunnel_goes_the_standard_way(kit: Kit) -> None:
    server, proxy = kit.server(H1), kit.enter(TunnelProxy())
    connection = http_client.HTTPConnection("localhost", proxy.port)
    connection.set_tunnel("localhost", server.port)
    assert fetch(connection, "/bytes/3") == pattern(3)
    assert proxy.tunnels == 1
    connection.close()


def test_a_tunnel_cannot_be_set_up_for_what_is_connected(kit: Kit) -> None:
    connection = kit.connection(kit.server(H2))
    connection.connect()
    with pytest.raises(RuntimeError):
        connection.set_tunnel("other.test")
