"""What threads may change of a shared client while others send with it, and what a request sees of that.

A request takes headers, parameters, auth, timeout and retries when it is made, and cookies when it goes out, each time
that it does. So a change holds for requests that are made after it, never reaches one that is under way, and is seen
as a whole or not at all.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from http.cookiejar import CookieJar
from typing import Any

import pytest
from client_support import H1_PLAIN, H1_TLS, H2_PLAIN, H2_TLS, Kit, Wire

from hyperpool.testing import Reply, Request, inline, pattern
from proxy_kit import TunnelProxy
from stage import WAIT_S, opened

THREADS = 32


@inline
def show(request: Request) -> Any:
    return Reply(200, (("content-type", "application/json"),), json.dumps(request.headers))


def seen(response: Any) -> dict[str, str]:
    return dict(response.json())


def cookies_of(fields: dict[str, str]) -> dict[str, str]:
    return dict(pair.split("=") for pair in fields["cookie"].split("; ")) if "cookie" in fields else {}


def sent_while(kit: Kit, client: Any, url: str, change: Callable[[int], object], n: int = 320) -> list[dict[str, str]]:
    """What the server saw of n requests of 32 threads, while one more thread makes changes all the time."""
    stop = threading.Event()

    def change_on() -> None:
        count = 0
        while not stop.is_set():
            count += 1
            change(count)

    with kit.threads(THREADS + 1) as threads:
        changing = threads.submit(change_on)
        try:
            return [seen(one) for one in threads.map(lambda _: client.get(url), range(n))]
        finally:
            stop.set()
            changing.result(WAIT_S)


# -- headers -----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_32_threads_send_while_a_header_is_set(kit: Kit, wire: Wire) -> None:
    server, client = kit.pair(wire, show, headers={"X-N": "0"})
    fields = sent_while(kit, client, server.url(), lambda n: client.headers.__setitem__("X-N", str(n)))
    assert all(one["x-n"].isdecimal() and one["accept"] == "*/*" for one in fields)


@pytest.mark.slow
def test_32_threads_send_while_headers_are_replaced_and_removed(kit: Kit, wire: Wire) -> None:
    server, client = kit.pair(wire, show)

    def change(n: int) -> None:
        client.headers = {"X-A": str(n), "X-B": str(n)} if n % 2 else {}

    for one in sent_while(kit, client, server.url(), change):
        assert one.get("x-a") == one.get("x-b"), "both of one moment, or none"


def test_a_request_that_is_under_way_keeps_its_headers_on_a_redirect(kit: Kit, wire: Wire) -> None:
    came, gate = threading.Event(), kit.gate()
    server, client = kit.pair(wire, show, headers={"X-A": "before"})

    @server.route("/from")
    def redirect(request: Request) -> Any:
        came.set()
        opened(gate)
        return Reply(302, (("location", "/to"),))

    future = client.submit("GET", server.url("/from"))
    opened(came)
    client.headers["X-A"] = "after"
    gate.set()
    assert seen(future.result(WAIT_S))["x-a"] == "before"
    assert seen(client.get(server.url()))["x-a"] == "after"


def test_a_snapshot_of_the_headers_can_be_taken_while_they_change(kit: Kit) -> None:
    client = kit.client(headers={f"X-{n}": "1" for n in range(20)})
    stop = threading.Event()

    def change() -> None:
        while not stop.is_set():
            client.headers = {}
            client.headers = {f"X-{n}": "1" for n in range(20)}

    with kit.threads(9) as threads:
        changing = threads.submit(change)
        sizes = {len(one) for one in threads.map(lambda _: dict(client.headers.items()), range(2_000))}
        stop.set()
        changing.result(WAIT_S)
    assert sizes <= {3, 23}


# -- cookies -----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_32_threads_send_while_a_cookie_is_set_and_deleted(kit: Kit, wire: Wire) -> None:
    server, client = kit.pair(wire, show, cookies={"fixed": "1"})

    def change(n: int) -> None:
        client.cookies["n"] = str(n)
        del client.cookies["n"]

    for one in sent_while(kit, client, server.url(), change):
        found = cookies_of(one)
        assert found.pop("fixed") == "1" and (not found or found.pop("n").isdecimal()) and not found


@pytest.mark.slow
def test_32_threads_send_while_the_jar_is_filled_and_cleared(kit: Kit, wire: Wire) -> None:
    server, client = kit.pair(wire, show)

    def change(n: int) -> None:
        client.cookies.set(f"n{n % 50}", str(n), domain="localhost")
        if n % 50 == 0:
            client.cookies.clear()

    for one in sent_while(kit, client, server.url(), change):
        assert all(value.isdecimal() for value in cookies_of(one).values())


@pytest.mark.slow
def test_32_threads_send_while_the_cookies_are_replaced(kit: Kit, wire: Wire) -> None:
    server, client = kit.pair(wire, show)

    def change(n: int) -> None:
        client.cookies = CookieJar() if n % 3 == 0 else {"a": str(n), "b": str(n)}

    for one in sent_while(kit, client, server.url(), change):
        found = cookies_of(one)
        assert found.get("a") == found.get("b"), "both of one moment, or none"


def test_a_cookie_of_a_response_is_there_before_its_future_resolves(kit: Kit, wire: Wire) -> None:
    server, client = kit.pair(wire, show)
    server.route("/set/")(lambda request: Reply(200, (("set-cookie", f"{request.path[5:]}=1; Path=/"),)))

    def log_in(n: int) -> bool:
        client.submit("GET", server.url(f"/set/c{n}")).result(WAIT_S)
        return f"c{n}" in cookies_of(seen(client.get(server.url())))

    assert all(kit.threads(THREADS).map(log_in, range(64)))


def test_a_request_that_is_redirected_sends_the_cookies_of_that_moment(kit: Kit, wire: Wire) -> None:
    came, gate = threading.Event(), kit.gate()
    server, client = kit.pair(wire, show, cookies={"a": "before"})

    @server.route("/from")
    def redirect(request: Request) -> Any:
        came.set()
        opened(gate)
        return Reply(302, (("location", "/to"),))

    future = client.submit("GET", server.url("/from"))
    opened(came)
    client.cookies["a"] = "after"
    gate.set()
    assert cookies_of(seen(future.result(WAIT_S))) == {"a": "after"}


# -- all else that may be set ------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_32_threads_send_while_everything_else_is_set(kit: Kit, wire: Wire) -> None:
    server, client = kit.pair(wire, show)

    def change(n: int) -> None:
        client.auth = None if n % 2 else ("user", "password")
        client.params = None if n % 2 else {"a": "1"}
        client.timeout = type(client.timeout)(20 + n % 2)
        client.follow_redirects = bool(n % 2)
        client.base_url = server.origin if n % 2 else ""

    fields = sent_while(kit, client, server.url(), change)
    assert {one.get("authorization") for one in fields} <= {None, "Basic dXNlcjpwYXNzd29yZA=="}


# -- 32 threads through proxies, on both versions ----------------------------------------------------------------------


@pytest.mark.parametrize("wire", [H2_TLS, H1_TLS], ids=str)
def test_32_threads_go_through_a_tunnel_each_to_its_own_answer(kit: Kit, wire: Wire) -> None:
    proxy = kit.enter(TunnelProxy())
    server, client = kit.pair(wire, proxy=f"http://127.0.0.1:{proxy.port}")
    sizes = [number * 37 % 20_000 for number in range(THREADS * 4)]
    got = kit.threads(THREADS).map(lambda size: client.get(server.url(f"/bytes/{size}")).content, sizes)
    assert list(got) == [pattern(size) for size in sizes]
    # A tunnel that was asked for in the rush, and not needed in the end, may not have reached the server yet.
    assert 1 <= server.connections_accepted <= proxy.tunnels <= (1 if wire.http2 else THREADS)


@pytest.mark.parametrize("wire", [H1_PLAIN, H2_PLAIN], ids=str)
def test_32_threads_are_forwarded_with_credentials_on_both_versions(kit: Kit, wire: Wire) -> None:
    proxy = kit.server(wire, lambda request: f"{request.header('proxy-authorization')} {request.target}")
    client = kit.client(wire, proxy=f"http://user:password@127.0.0.1:{proxy.port}")
    answers = kit.threads(THREADS).map(lambda n: client.get(f"http://origin.test/{n}").text, range(THREADS * 4))
    for n, answer in enumerate(answers):
        assert answer.startswith("Basic dXNlcjpwYXNzd29yZA== ") and answer.endswith(f"/{n}")
