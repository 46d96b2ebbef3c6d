"""Which address is connected to, and from which: ``resolver=`` and ``source_address=``."""

from __future__ import annotations

import ipaddress
import socket
import sys
import threading
from typing import Any

import pytest
from client_support import H1_PLAIN, H2_TLS, WIRES, Kit, Wire, raised

import hyperpool
from hyperpool.testing import Reply
from proxy_kit import SocksProxy, TunnelProxy
from stage import WAIT_S

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has all of 127.0.0.0/8 on loopback")


class Resolver:
    """Answers as it was told; knows who was asked for, and on which thread."""

    def __init__(self, *answer: Any) -> None:
        self.answer: Any = answer
        self.asked: list[tuple[str, int]] = []
        self.threads: set[threading.Thread] = set()

    def __call__(self, host: str, port: int) -> Any:
        self.asked.append((host, port))
        self.threads.add(threading.current_thread())
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer


def test_a_resolver_says_where_a_name_is(kit: Kit, wire: Wire) -> None:
    server, resolver = kit.server(wire, lambda request: Reply(body=request.authority)), Resolver("127.0.0.1")
    client = kit.client(wire, resolver=resolver)
    assert client.get(server.url("/")).text == f"localhost:{server.port}"
    assert resolver.asked == [("localhost", server.port)]


@pytest.mark.parametrize(
    "form",
    [
        lambda port: "127.0.0.1",
        lambda port: ipaddress.ip_address("127.0.0.1"),
        lambda port: ("127.0.0.1", port),
        lambda port: (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port)),
    ],
    ids=["str", "ipaddress", "address and port", "getaddrinfo"],
)
def test_an_address_may_be_given_in_each_of_its_forms(kit: Kit, form: Any) -> None:
    server = kit.server(H1_PLAIN)
    client = kit.client(H1_PLAIN, resolver=Resolver(form(server.port)))
    assert client.get(f"http://anywhere.test:{server.port}/bytes/3").ok


def test_a_name_may_be_pinned_to_another_port(kit: Kit) -> None:
    server = kit.server(H1_PLAIN, lambda request: Reply(body=request.authority))
    client = kit.client(H1_PLAIN, resolver=Resolver(("127.0.0.1", server.port)))
    assert client.get("http://service.test/").text == "service.test"


def test_addresses_are_tried_in_the_order_of_the_resolver(kit: Kit) -> None:
    server = kit.server(H1_PLAIN)
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        client = kit.client(H1_PLAIN, resolver=Resolver(closed.getsockname(), ("127.0.0.1", server.port)))
        assert client.get("http://service.test/bytes/3").ok


def test_the_name_stays_what_tls_and_the_server_see(kit: Kit) -> None:
    server = kit.server(H2_TLS)
    client = kit.client(H2_TLS, resolver=Resolver("127.0.0.1"))
    raised(hyperpool.CertificateError, lambda: client.get(f"https://other.test:{server.port}/"))


def test_a_resolver_sees_addresses_that_stand_in_urls(kit: Kit) -> None:
    """Else a judge of addresses would be gone around by writing one."""
    resolver = Resolver("127.0.0.1")
    server = kit.server(H1_PLAIN)
    assert kit.client(H1_PLAIN, resolver=resolver).get(f"http://192.0.2.7:{server.port}/bytes/1").ok
    assert resolver.asked == [("192.0.2.7", server.port)]


class PrivateAddress(Exception):
    """What a program raises for addresses that it does not want to be led to."""


def public_only(host: str, port: int) -> Any:
    """A guard against server-side request forgery, on the addresses that will be connected to."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    if bad := [entry[4][0] for entry in found if not ipaddress.ip_address(entry[4][0]).is_global]:
        raise PrivateAddress(bad[0])
    return found


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "[::1]", "127.1", "2130706433", "0x7f.1"])
def test_a_guard_sees_the_address_behind_each_spelling(kit: Kit, host: str) -> None:
    server = kit.server(H1_PLAIN)
    client = kit.client(H1_PLAIN, resolver=public_only)
    error = raised(hyperpool.NameResolutionError, lambda: client.get(f"http://{host}:{server.port}/"))
    assert isinstance(error.__cause__, PrivateAddress) and "PrivateAddress" in str(error)
    assert error.processed == "no"
    assert server.connections_accepted == 0


def test_a_guard_sees_where_redirects_lead(kit: Kit) -> None:
    inside = kit.server(H1_PLAIN)
    outside = kit.server(H1_PLAIN, lambda request: Reply(302, {"location": inside.url("/")}))

    def guard(host: str, port: int) -> list[str]:
        if host != "outside.test":
            raise PrivateAddress(host)
        return ["127.0.0.1"]

    client = kit.client(H1_PLAIN, resolver=guard)
    raised(hyperpool.NameResolutionError, lambda: client.get(f"http://outside.test:{outside.port}/"))
    assert inside.connections_accepted == 0


def test_a_guard_is_not_gone_around_by_a_unix_socket(kit: Kit) -> None:
    client = kit.client(H1_PLAIN, resolver=public_only)
    assert "no address" in str(raised(hyperpool.InvalidURL, lambda: client.get("http+unix://%2Frun%2Fdocker.sock/")))


def test_an_error_of_ours_that_a_resolver_raises_is_raised_itself(kit: Kit) -> None:
    refusal = hyperpool.InvalidURL("this program does not go there")
    resolver = Resolver()
    resolver.answer = refusal
    client = kit.client(H1_PLAIN, resolver=resolver)
    error = raised(hyperpool.InvalidURL, lambda: client.get("http://a.test/"))
    assert (str(error), error.origin) == ("this program does not go there", "http://a.test")
    assert error is not refusal


@pytest.mark.parametrize(
    ("answer", "words"),
    [((), "no address"), (("a.test",), "no IP address"), ((5.0,), "no IP address"), (5, "TypeError"), ((), "")],
    ids=["none", "a name", "a number", "no list", "nothing"],
)
def test_an_answer_that_is_none_is_a_name_resolution_error(kit: Kit, answer: Any, words: str) -> None:
    resolver = Resolver()
    resolver.answer = answer
    client = kit.client(H1_PLAIN, resolver=resolver)
    assert words in str(raised(hyperpool.NameResolutionError, lambda: client.get("http://a.test/")))


def test_even_an_exit_in_a_resolver_reaches_who_waits(kit: Kit) -> None:
    resolver = Resolver()
    resolver.answer = SystemExit(3)
    client = kit.client(H1_PLAIN, resolver=resolver, timeout=WAIT_S)
    raised(hyperpool.NameResolutionError, lambda: client.get("http://a.test/"))


def test_a_resolver_may_block_and_is_given_up_at_the_connect_timeout(kit: Kit) -> None:
    gate = kit.gate()

    def slow(host: str, port: int) -> list[str]:
        gate.wait(WAIT_S)
        return []

    client = kit.client(H1_PLAIN, resolver=slow, timeout=hyperpool.Timeout(connect=0.05))
    raised(hyperpool.ConnectTimeout, lambda: client.get("http://a.test/"))


def test_a_resolver_runs_on_no_io_thread(kit: Kit) -> None:
    server, resolver = kit.server(H1_PLAIN), Resolver("127.0.0.1")
    kit.client(H1_PLAIN, resolver=resolver).get(server.url("/bytes/1"))
    assert [thread.name for thread in resolver.threads] == ["hyperpool resolve localhost"]


def test_a_client_with_a_shared_pool_takes_its_addresses_from_that(kit: Kit) -> None:
    pool = kit.pool(H1_PLAIN, resolver=Resolver("127.0.0.1"))
    server = kit.server(H1_PLAIN)
    assert kit.client(pool=pool).get(f"http://a.test:{server.port}/bytes/1").ok
    for option in ({"resolver": print}, {"source_address": "127.0.0.1"}, {"uds": "/x"}):
        with pytest.raises(ValueError, match="are the pool's"):
            hyperpool.Client(pool=pool, **option)


@pytest.mark.parametrize(
    ("scheme", "asked"),
    [("http", {"proxy.test"}), ("socks5h", {"proxy.test"}), ("socks5", {"proxy.test", "localhost"})],
)
def test_behind_a_proxy_the_resolver_is_asked_for_what_is_resolved_here(kit: Kit, scheme: str, asked: set[str]) -> None:
    """With socks5 names are resolved here, with the others by the proxy."""
    server, resolver = kit.server(H2_TLS), Resolver("127.0.0.1")
    proxy = kit.enter(TunnelProxy() if scheme == "http" else SocksProxy())
    client = kit.client(H2_TLS, resolver=resolver, proxy=f"{scheme}://proxy.test:{proxy.port}")
    assert client.get(server.url("/bytes/3")).ok
    assert {host for host, _ in resolver.asked} == asked


def test_a_guard_that_refuses_a_proxy_is_a_proxy_error(kit: Kit) -> None:
    client = kit.client(H2_TLS, resolver=public_only, proxy="http://127.0.0.1:1")
    assert "PrivateAddress" in str(raised(hyperpool.ProxyError, lambda: client.get("https://a.test/")))


@linux_only
def test_a_proxy_is_reached_from_the_source_address(kit: Kit) -> None:
    listener = kit.enter(socket.create_server(("127.0.0.1", 0)))
    client = kit.client(H2_TLS, source_address="127.0.0.2", proxy=f"http://127.0.0.1:{listener.getsockname()[1]}")
    future = client.submit("GET", "https://a.test/")
    sock, (host, _) = listener.accept()
    sock.close()
    assert host == "127.0.0.2"
    raised(hyperpool.ProxyError, lambda: future.result(WAIT_S))


# -- where from --------------------------------------------------------------------------------------------------------


@linux_only
@pytest.mark.parametrize("wire", WIRES, ids=str)
@pytest.mark.parametrize("given", ["127.0.0.2", ("127.0.0.2", 0)], ids=str)
def test_connections_come_from_the_source_address(kit: Kit, wire: Wire, given: Any) -> None:
    listener = kit.enter(socket.create_server(("127.0.0.1", 0)))
    client = kit.client(wire, source_address=given)
    scheme = "https" if wire.tls else "http"
    future = client.submit("GET", f"{scheme}://127.0.0.1:{listener.getsockname()[1]}/")
    sock, (host, _) = listener.accept()
    sock.close()
    assert host == "127.0.0.2"
    future.cancel()


@linux_only
def test_the_source_port_may_be_chosen(kit: Kit) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.3", 0))
        port = free.getsockname()[1]
    listener = kit.enter(socket.create_server(("127.0.0.1", 0)))
    client = kit.client(H1_PLAIN, source_address=("127.0.0.3", port))
    future = client.submit("GET", f"http://127.0.0.1:{listener.getsockname()[1]}/")
    sock, peer = listener.accept()
    sock.close()
    assert peer == ("127.0.0.3", port)
    future.cancel()


def test_a_source_address_that_is_not_this_machines_is_a_connect_error(kit: Kit) -> None:
    server = kit.server(H1_PLAIN)
    client = kit.client(H1_PLAIN, source_address="192.0.2.1")
    error = raised(hyperpool.ConnectError, lambda: client.get(server.url("/")))
    assert "from 192.0.2.1" in str(error) and error.processed == "no"


def test_addresses_of_another_family_than_the_source_are_not_connected_to(kit: Kit) -> None:
    server = kit.server(H1_PLAIN)
    resolver = Resolver(("::1", server.port), ("127.0.0.1", server.port))
    assert kit.client(H1_PLAIN, source_address="127.0.0.1", resolver=resolver).get("http://a.test/bytes/1").ok
    only_v6 = kit.client(H1_PLAIN, source_address="127.0.0.1", resolver=Resolver("::1"))
    raised(hyperpool.ConnectError, lambda: only_v6.get("http://a.test/"))


@pytest.mark.parametrize("bad", ["localhost", ("127.0.0.1", -1), ("127.0.0.1", "80"), ("", 0)], ids=str)
def test_a_source_address_is_an_ip_address_with_or_without_a_port(bad: Any) -> None:
    with pytest.raises(ValueError):
        hyperpool.Client(source_address=bad)
