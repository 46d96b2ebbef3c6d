"""Requests through proxies: tunnels with HTTP/2 end to end, forwarding, SOCKS, the environment, and what goes wrong."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from client_support import H1_PLAIN, H1_TLS, H2_PLAIN, H2_TLS, Kit, Wire, error_of, pieces, raised

import hyperpool
from hyperpool.errors import (
    CertificateError,
    ConnectionLost,
    ConnectTimeout,
    InvalidURL,
    LocalProtocolError,
    PoolClosed,
    ProxyError,
)
from hyperpool.proxies import parse_proxy
from hyperpool.testing import CertificateAuthority, Reply, pattern
from hyperpool.values import Request
from proxy_kit import SocksProxy, TunnelProxy
from stage import AUTHORITY, SERVER_CERTIFICATE, WAIT_S, eventually, opened

THREADS = 32
TLS_WIRES = pytest.mark.parametrize("wire", [H2_TLS, H1_TLS], ids=str)

PROXIES: dict[str, Callable[[], TunnelProxy]] = {
    "http": TunnelProxy,
    "https": lambda: TunnelProxy(certificate=SERVER_CERTIFICATE),
    "socks5": SocksProxy,
    "socks5h": SocksProxy,
}


class Way:
    """A proxy and its URL."""

    def __init__(self, scheme: str, proxy: TunnelProxy) -> None:
        self.scheme = scheme
        self.proxy = proxy
        self.url = proxy.url(scheme=scheme)


@pytest.fixture
def start() -> Iterator[Callable[..., Any]]:
    """Starts proxies, which end with the test."""
    with ExitStack() as stack:
        yield stack.enter_context


@pytest.fixture(params=PROXIES)
def way(request: pytest.FixtureRequest, start: Any) -> Way:
    """Each kind of proxy."""
    return Way(request.param, start(PROXIES[request.param]()))


@pytest.fixture
def https_proxy(start: Any) -> Any:
    """The one that needs TLS in TLS."""
    return start(PROXIES["https"]())


# -- tunnels -----------------------------------------------------------------------------------------------------------


@TLS_WIRES
def test_the_version_is_agreed_with_the_origin_whatever_the_proxy_speaks(kit: Kit, way: Way, wire: Wire) -> None:
    server, client = kit.pair(wire, proxy=way.url)
    response = client.get(server.url("/bytes/1000"))
    assert (response.http_version, response.content) == (wire.version, pattern(1_000))
    assert way.proxy.tunnels == 1


@TLS_WIRES
def test_large_bodies_go_through_a_tunnel_in_both_directions(kit: Kit, way: Way, wire: Wire) -> None:
    server, client = kit.pair(wire, proxy=way.url)
    assert client.post(server.url("/echo"), content=pieces(3_000_000)).content == bytes(3_000_000)
    assert client.get(server.url("/bytes/5000000")).content == pattern(5_000_000)


@pytest.mark.slow
def test_32_threads_share_one_tunnel(kit: Kit, way: Way) -> None:
    server, client = kit.pair(proxy=way.url)
    client.get(server.url("/bytes/1"))
    sizes = [number * 37 % 50_000 for number in range(THREADS * 10)]
    got = kit.threads(THREADS).map(lambda size: client.get(server.url(f"/bytes/{size}")).content, sizes)
    assert list(got) == [pattern(size) for size in sizes]
    assert way.proxy.tunnels == server.connections_accepted == 1


@pytest.mark.parametrize("plain", [H1_PLAIN, H2_PLAIN], ids=str)
@pytest.mark.parametrize("scheme", ["socks5", "socks5h"])
def test_socks_carries_plain_requests_as_well(kit: Kit, start: Any, plain: Wire, scheme: str) -> None:
    proxy = start(SocksProxy())
    server, client = kit.pair(plain, proxy=proxy.url(scheme=scheme))
    response = client.get(server.url("/bytes/100000"))
    assert (response.http_version, response.content) == (plain.version, pattern(100_000))
    assert proxy.tunnels == 1


def test_a_slow_response_in_a_tunnel_delays_no_other(kit: Kit, way: Way) -> None:
    gate = kit.gate()

    def answer(request: Any) -> Reply:
        if request.path == "/slow":
            opened(gate)
        return Reply(200, body=request.path.encode())

    server, client = kit.pair(handler=answer, proxy=way.url)
    slow = client.submit("GET", server.url("/slow"))
    assert client.get(server.url("/fast")).content == b"/fast"
    assert not slow.done()
    gate.set()
    assert slow.result(WAIT_S).content == b"/slow"


def test_a_cancelled_request_leaves_the_tunnel_to_the_others(kit: Kit, https_proxy: Any) -> None:
    gate = kit.gate()
    server, client = kit.pair(handler=lambda request: opened(gate) or Reply(200), proxy=https_proxy.url())
    cancelled = client.submit("GET", server.url("/1"))
    assert server.wait_until(lambda seen: len(seen.requests) == 1, WAIT_S)
    assert cancelled.cancel()
    gate.set()
    assert client.get(server.url("/2")).status_code == 200
    assert https_proxy.tunnels == 1


def test_http1_connections_have_a_tunnel_each_and_use_it_again(kit: Kit, https_proxy: Any) -> None:
    server, client = kit.pair(H1_TLS, proxy=https_proxy.url())
    for _ in range(3):
        client.get(server.url("/bytes/10"))
    assert https_proxy.tunnels == 1


@pytest.mark.parametrize(
    "trusting",
    [lambda pem: pem, lambda pem: ssl.create_default_context(cadata=pem.decode())],
    ids=["pyOpenSSL", "ssl.SSLContext"],
)
@TLS_WIRES
def test_both_tls_engines_run_inside_each_other(kit: Kit, https_proxy: Any, trusting: Any, wire: Wire) -> None:
    server, client = kit.pair(wire, proxy=https_proxy.url(), verify=trusting(AUTHORITY.ca_pem))
    assert client.get(server.url("/bytes/300000")).content == pattern(300_000)


def test_a_body_that_the_end_delimits_is_whole_with_the_origins_close_notify(kit: Kit, https_proxy: Any) -> None:
    def script(connection: Any) -> None:
        connection.recv_until(b"\r\n\r\n")
        connection.send(b"HTTP/1.1 200 OK\r\n\r\nall of it")
        connection.close()

    peer = kit.peer(script, alpn=("http/1.1",))
    assert kit.client(H1_TLS, proxy=https_proxy.url()).get(peer.url()).content == b"all of it"


def test_a_body_that_the_end_delimits_is_cut_short_without_it(kit: Kit, https_proxy: Any) -> None:
    def script(connection: Any) -> None:
        connection.recv_until(b"\r\n\r\n")
        connection.send(b"HTTP/1.1 200 OK\r\n\r\nhalf of")

    peer = kit.peer(script, alpn=("http/1.1",))
    client = kit.client(H1_TLS, proxy=https_proxy.url())
    assert "cut short" in str(raised(ConnectionLost, lambda: client.get(peer.url())))


# -- who sees the credentials ------------------------------------------------------------------------------------------


@TLS_WIRES
def test_proxy_authorization_never_reaches_the_origin_through_a_tunnel(kit: Kit, start: Any, wire: Wire) -> None:
    proxy = start(TunnelProxy())
    server, client = kit.pair(wire, proxy=proxy.url("user:pass"), headers={"Proxy-Authorization": "Basic own"})
    client.get(server.url("/"), headers={"proxy-authorization": "Basic another"})
    assert b"\r\nProxy-Authorization: Basic dXNlcjpwYXNz\r\n" in proxy.heads[0]
    assert b"own" not in proxy.heads[0] and b"another" not in proxy.heads[0]
    assert "proxy-authorization" not in {name.lower() for name, _ in server.requests[0].headers}


def test_the_proxys_own_headers_go_to_the_proxy_alone(kit: Kit, start: Any) -> None:
    proxy = start(TunnelProxy())
    server, client = kit.pair(proxy=parse_proxy(proxy.url(), {"X-Tenant": "blue"}))
    client.get(server.url("/"))
    assert b"\r\nX-Tenant: blue\r\n" in proxy.heads[0]
    assert "x-tenant" not in {name.lower() for name, _ in server.requests[0].headers}


def test_nothing_of_the_request_is_in_the_request_for_the_tunnel(kit: Kit, start: Any) -> None:
    proxy = start(TunnelProxy())
    server, client = kit.pair(proxy=proxy.url(), headers={"Authorization": "Bearer secret", "Cookie": "secret=1"})
    client.get(server.url("/secret"))
    assert proxy.heads == [
        f"CONNECT localhost:{server.port} HTTP/1.1\r\nHost: localhost:{server.port}\r\n\r\n".encode()
    ]


# -- forwarding --------------------------------------------------------------------------------------------------------


def told(request: Any) -> dict[str, str]:
    return {name.lower(): value for name, value in request.headers}


@pytest.mark.parametrize("proxy_wire", [H1_PLAIN, H1_TLS], ids=["http", "https"])
def test_plain_requests_are_forwarded_with_an_absolute_target(kit: Kit, proxy_wire: Wire) -> None:
    proxy = kit.server(proxy_wire, lambda request: Reply(200, body=b"from afar"))
    client = kit.client(verify=AUTHORITY.ca_pem, http2=True, http1=True, proxy=proxy.url())
    response = client.get("http://origin.test:81/a", params={"b": "c"})
    assert (response.content, response.http_version, response.url) == (
        b"from afar",
        "HTTP/1.1",
        "http://origin.test:81/a?b=c",
    )
    (seen,) = proxy.requests
    assert seen.target == "http://origin.test:81/a?b=c" and told(seen)["host"] == "origin.test:81"


def test_each_forwarded_request_carries_the_credentials_on_one_connection(kit: Kit) -> None:
    proxy = kit.server(H1_PLAIN, lambda request: Reply(200))
    client = kit.client(H1_PLAIN, proxy=parse_proxy(f"http://user:pass@localhost:{proxy.port}", {"X-Tenant": "blue"}))
    for _ in range(3):
        client.get("http://origin.test/")
    assert [(told(seen)["proxy-authorization"], told(seen)["x-tenant"]) for seen in proxy.requests] == [
        ("Basic dXNlcjpwYXNz", "blue")
    ] * 3
    assert proxy.connections_accepted == 1


def test_with_prior_knowledge_http2_is_spoken_to_a_forwarding_proxy(kit: Kit) -> None:
    proxy = kit.server(H2_PLAIN, lambda request: Reply(200, body=request.path.encode()))
    client = kit.client(H2_PLAIN, proxy=f"http://user:pass@localhost:{proxy.port}")
    response = client.get("http://origin.test:81/a")
    assert (response.http_version, response.content) == ("HTTP/2", b"/a")
    (seen,) = proxy.requests
    assert told(seen)["proxy-authorization"] == "Basic dXNlcjpwYXNz"


def test_an_upgrade_to_http2_is_never_offered_to_a_forwarding_proxy(kit: Kit) -> None:
    proxy = kit.server(H1_PLAIN, lambda request: Reply(200))
    pool = kit.pool(H1_PLAIN, http2=True, http1=True, proxy=proxy.url())
    route = pool.route(hyperpool.urls.parse_url("http://origin.test/").origin, upgrade=True)
    response = pool.submit(Request("GET", "http://origin.test/"), route=route).result(WAIT_S)
    assert response.http_version == "HTTP/1.1"
    assert "upgrade" not in told(proxy.requests[0]) and "http2-settings" not in told(proxy.requests[0])


def test_a_forwarded_body_goes_and_comes(kit: Kit) -> None:
    proxy = kit.server(H1_PLAIN, lambda request: Reply(200, body=request.read()))
    client = kit.client(H1_PLAIN, proxy=proxy.url())
    assert client.post("http://origin.test/", content=pieces(300_000)).content == bytes(300_000)


def test_a_forwarding_proxy_that_wants_credentials_answers_for_itself(kit: Kit) -> None:
    proxy = kit.server(H1_PLAIN, lambda request: Reply(407, headers=[("Proxy-Authenticate", "Basic")]))
    assert kit.client(H1_PLAIN, proxy=proxy.url()).get("http://origin.test/").status_code == 407


def test_a_wrong_header_for_a_forwarding_proxy_is_refused_at_once(kit: Kit) -> None:
    client = kit.client(H1_PLAIN, proxy=parse_proxy("http://localhost:1", {"Host": "evil.test"}))
    raised(LocalProtocolError, lambda: client.submit("GET", "http://origin.test/"))


@pytest.mark.slow
def test_32_threads_are_forwarded_each_to_its_own_answer(kit: Kit) -> None:
    proxy = kit.server(H1_PLAIN, lambda request: Reply(200, body=request.target.encode()))
    client = kit.client(H1_PLAIN, proxy=proxy.url())
    urls = [f"http://origin-{number % 4}.test/{number}" for number in range(THREADS * 5)]
    assert list(kit.threads(THREADS).map(lambda url: client.get(url).text, urls)) == urls


def test_a_proxy_that_closes_after_each_answer_without_saying_so_loses_no_request(kit: Kit) -> None:
    """tinyproxy does: the next request leaves before its FIN is here."""

    def script(connection: Any) -> None:
        connection.recv_until(b"\r\n\r\n")
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        connection.recv(1)  # what may come is lost

    proxy = kit.peer(script, tls=False)
    client = kit.client(H1_PLAIN, proxy=proxy.url(), limits=hyperpool.Limits(max_http1_connections_per_origin=2))
    futures = [client.submit("GET", f"http://origin.test/{number}") for number in range(20)]
    assert [future.result(WAIT_S).content for future in futures] == [b"ok"] * 20


# -- which proxy -------------------------------------------------------------------------------------------------------


def test_the_environments_proxy_is_used_but_for_its_exceptions(
    kit: Kit, start: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = start(TunnelProxy())
    monkeypatch.setenv("HTTPS_PROXY", proxy.url())
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    server, client = kit.pair()
    client.get(server.url("/bytes/1"))
    assert proxy.tunnels == 1
    client.get(server.url("/bytes/1").replace("localhost", "127.0.0.1"))
    assert proxy.tunnels == 1


def test_the_environment_is_left_alone_where_it_is_not_trusted(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    server, client = kit.pair(trust_env=False)
    assert client.get(server.url("/bytes/1")).status_code == 200


def test_a_mapping_sends_each_scheme_its_way(kit: Kit, start: Any) -> None:
    tunnel = start(TunnelProxy())
    forwarding = kit.server(H1_PLAIN, lambda request: Reply(200))
    server = kit.server()
    client = kit.client(proxy={"https": tunnel.url(), "http": forwarding.url()}, http1=True)
    client.get(server.url("/bytes/1"))
    client.get("http://origin.test/")
    assert (tunnel.tunnels, len(forwarding.requests)) == (1, 1)


def test_a_mapping_of_none_is_direct(kit: Kit) -> None:
    server, client = kit.pair(proxy={"all": "http://127.0.0.1:1", "https://localhost": None})
    assert client.get(server.url("/bytes/1")).status_code == 200


def test_a_route_may_name_its_own_proxy_and_shares_no_connection_with_another(kit: Kit, start: Any) -> None:
    one, other = start(TunnelProxy()), start(TunnelProxy())
    server, pool = kit.server(), kit.pool(proxy=None)
    origin = hyperpool.urls.parse_url(server.url()).origin
    for proxy in (parse_proxy(one.url()), parse_proxy(other.url()), None):
        route = pool.route(origin, proxy=proxy)
        assert pool.submit(Request("GET", server.url("/")), route=route).result(WAIT_S).status_code == 200
    assert (one.tunnels, other.tunnels, server.connections_accepted) == (1, 1, 3)


def test_a_proxy_beside_a_shared_pool_is_refused(kit: Kit) -> None:
    pool = kit.pool()
    error = raised(ValueError, lambda: hyperpool.Client(pool=pool, proxy="http://p.test"))
    assert "proxy" in str(error)


def test_a_wrong_proxy_is_told_when_the_client_is_made() -> None:
    raised(InvalidURL, lambda: hyperpool.Client(proxy="gopher://p.test"))


def test_prewarming_opens_the_tunnel(kit: Kit, start: Any) -> None:
    proxy = start(TunnelProxy())
    server, client = kit.pair(proxy=proxy.url())
    client.pool.prewarm(server.origin)
    assert server.wait_until(lambda seen: seen.connections_accepted == 1, WAIT_S)
    client.get(server.url("/bytes/1"))
    assert proxy.tunnels == 1


# -- what goes wrong ---------------------------------------------------------------------------------------------------


def test_a_refused_tunnel_fails_the_requests_that_wait_for_it(kit: Kit, start: Any) -> None:
    proxy = start(TunnelProxy(answer=lambda head: b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n"))
    client = kit.client(proxy=proxy.url())
    futures = [client.submit("GET", "https://origin.test/") for _ in range(3)]
    errors = [error_of(future, ProxyError) for future in futures]
    assert {(error.status, error.processed, error.origin) for error in errors} == {(407, "no", "https://origin.test")}
    assert len(set(map(id, errors))) == 3


def test_a_wrong_password_never_stands_in_an_error(kit: Kit, start: Any) -> None:
    proxy = start(TunnelProxy(answer=lambda head: b"HTTP/1.1 407 No\r\n\r\n"))
    client = kit.client(proxy=proxy.url("user:secret"))
    assert "secret" not in str(raised(ProxyError, lambda: client.get("https://origin.test/")))


def test_an_https_proxy_of_a_strange_authority_hears_nothing(kit: Kit, start: Any) -> None:
    stranger = CertificateAuthority("a stranger").issue("localhost")
    proxy = start(TunnelProxy(certificate=stranger))
    client = kit.client(proxy=proxy.url("user:pass"))
    raised(CertificateError, lambda: client.get("https://origin.test/"))
    assert proxy.heads == []


def test_a_silent_proxy_is_a_connect_timeout(kit: Kit) -> None:
    silent = kit.peer(lambda connection: connection.drain(), tls=False)
    client = kit.client(proxy=silent.url())
    timeout = hyperpool.Timeout(connect=0.2)
    error = raised(ConnectTimeout, lambda: client.get("https://origin.test/", timeout=timeout))
    assert error.phase == "connect"


def test_closing_the_client_ends_a_tunnel_that_is_being_opened(kit: Kit) -> None:
    asked = threading.Event()

    def script(connection: Any) -> None:
        connection.recv_until(b"\r\n\r\n")
        asked.set()
        connection.drain()

    client = kit.client(proxy=kit.peer(script, tls=False).url())
    future = client.submit("GET", "https://origin.test/")
    assert asked.wait(WAIT_S)
    client.close(grace_s=0)
    error_of(future, PoolClosed)


@pytest.mark.parametrize("scheme", ["http", "https", "socks5h"])
def test_a_proxy_that_drops_a_tunnel_costs_the_requests_in_it_and_no_more(kit: Kit, start: Any, scheme: str) -> None:
    proxy = start(PROXIES[scheme]())
    gate = kit.gate()

    def answer(request: Any) -> Reply:
        if request.path == "/held":
            opened(gate)
        return Reply(200)

    server, client = kit.pair(handler=answer, proxy=proxy.url(scheme=scheme))
    held = client.submit("GET", server.url("/held"))
    assert server.wait_until(lambda seen: len(seen.requests) == 1, WAIT_S)
    proxy.drop_tunnels()
    error_of(held, ConnectionLost)
    gate.set()
    assert eventually(lambda: client.pool.stats().connections == 0)
    assert client.get(server.url("/again")).status_code == 200
    assert proxy.tunnels == 2
