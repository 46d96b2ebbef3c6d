"""Cookies: kept between requests by the rules of http.cookiejar, from many threads at once."""

from __future__ import annotations

import dataclasses
import http.cookiejar
import json
import threading
from typing import Any
from urllib.parse import urlsplit

import pytest
from client_support import H1_PLAIN, H2_TLS, Kit, Wire, raised

import hyperpool
from hyperpool.policy.cookies import Cookies
from hyperpool.testing import Reply, Request, inline
from stage import WAIT_S


@inline
def told(request: Request) -> Any:
    """/set?a=1&... sets each of these cookies; everything else tells the Cookie field that came."""
    if request.path == "/set":
        return Reply(200, [("set-cookie", each.replace("%20", " ")) for each in request.query.split("&")])
    if request.path == "/login":
        return Reply(302, (("location", "/who"), ("set-cookie", "session=new")))
    return json.dumps([value for name, value in request.headers if name == "cookie"])


def by_get(client: Any, url: str, **options: Any) -> Any:
    return client.get(url, **options)


def by_submit(client: Any, url: str, **options: Any) -> Any:
    return client.submit("GET", url, **options).result(WAIT_S)


ways = pytest.mark.parametrize("way", [by_get, by_submit], ids=lambda way: way.__name__)


def sent(response: Any) -> set[str]:
    """The cookies that arrived: HTTP/2 may carry them in several fields (RFC 9113 8.2.3)."""
    return {each for field in response.json() for each in field.split("; ")}


@ways
def test_a_cookie_that_was_set_is_sent_from_then_on(kit: Kit, wire: Wire, way: Any) -> None:
    server, client = kit.pair(wire, told)
    assert way(client, server.url("/set?a=1&b=2")).cookies is not None
    assert sent(way(client, server.url("/who"))) == {"a=1", "b=2"}
    assert dict(client.cookies) == {"a": "1", "b": "2"}


@ways
def test_a_cookie_of_a_redirect_goes_with_the_next_hop(kit: Kit, wire: Wire, way: Any) -> None:
    server, client = kit.pair(wire, told)
    response = way(client, server.url("/login"))
    assert sent(response) == {"session=new"}
    assert [one.value for one in response.history[0].cookies] == ["new"]


def test_a_streamed_response_sets_cookies_too(kit: Kit, wire: Wire) -> None:
    server, client = kit.pair(wire, told)
    with client.stream("GET", server.url("/set?a=1")):
        assert client.cookies["a"] == "1"


RULES = {
    "path": ("a=1; Path=/private", "/who", set()),
    "path that fits": ("a=1; Path=/who", "/who/x", {"a=1"}),
    "another domain": ("a=1; Domain=example.org", "/who", set()),
    "expired": ("a=1; Max-Age=0", "/who", set()),
    "controls": ("a=1\x01; Path=/", "/who", set()),
    "junk": (";;;=", "/who", set()),
}


@pytest.mark.parametrize("rule", RULES)
def test_path_domain_and_age_are_obeyed(kit: Kit, rule: str) -> None:
    cookie, path, expected = RULES[rule]
    server, client = kit.pair(H1_PLAIN, inline(lambda request: set_or_tell(request, cookie)))
    client.get(server.url("/set"))
    assert sent(client.get(server.url(path))) == expected


def set_or_tell(request: Request, cookie: str) -> Any:
    return Reply(200, (("set-cookie", cookie),)) if request.path == "/set" else told(request)


def test_a_secure_cookie_is_sent_over_tls_only(kit: Kit) -> None:
    secure, plain = kit.server(handler=told), kit.server(H1_PLAIN, told)
    client = kit.client(http1=True, http2=True)
    client.get(secure.url("/set?a=1;%20Secure"))
    assert sent(client.get(secure.url("/who"))) == {"a=1"}
    assert sent(client.get(plain.url("/who"))) == set()


def at(server: Any, host: str, path: str) -> str:
    """The URL of a path at another name of the server."""
    return f"http://{host}:{server.port}{path}"


def everywhere(host: str, port: int) -> list[str]:
    """A resolver for which every name is this machine's."""
    return ["127.0.0.1"]


def test_a_cookie_without_a_domain_goes_back_to_its_host_alone(kit: Kit) -> None:
    """RFC 6265 5.3, 5.4."""
    server, client = kit.pair(H1_PLAIN, told, resolver=everywhere)
    client.get(at(server, "a.test", "/set?here=1&below=1;%20Domain=a.test"))
    client.cookies.set("mine", "1", domain="a.test")
    client.cookies.set("ours", "1", domain=".a.test")
    assert sent(client.get(at(server, "a.test", "/who"))) == {"here=1", "below=1", "mine=1", "ours=1"}
    assert sent(client.get(at(server, "sub.a.test", "/who"))) == {"below=1", "ours=1"}
    assert sent(client.get(at(server, "b.test", "/who"))) == set()


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "single"])
def test_a_host_without_a_domain_gets_its_cookies_back(kit: Kit, host: str) -> None:
    server, client = kit.pair(H1_PLAIN, told, resolver=everywhere)
    client.get(at(server, host, "/set?a=1"))
    client.cookies.set("b", "1", domain=host)
    assert sent(client.get(at(server, host, "/who"))) == {"a=1", "b=1"}
    assert sent(client.get(at(server, f"sub.{host}", "/who"))) == set()


def test_the_policy_of_a_jar_of_the_callers_is_its_own(kit: Kit) -> None:
    server, client = kit.pair(H1_PLAIN, told, resolver=everywhere, cookies=http.cookiejar.CookieJar())
    client.get(at(server, "a.test", "/set?a=1"))
    assert sent(client.get(at(server, "sub.a.test", "/who"))) == {"a=1"}, "http.cookiejar's own rule, which is laxer"


def test_a_host_has_the_same_cookies_under_both_of_its_names(kit: Kit) -> None:
    """RFC 6265 5.1.2."""
    server, client = kit.pair(H1_PLAIN, told, resolver=everywhere)
    names = ("b\u00fccher.test", "xn--bcher-kva.test")
    client.get(at(server, names[0], "/set?a=1"))
    client.get(at(server, names[1], "/set?b=1"))
    client.cookies.set("c", "1", domain=names[0])
    client.cookies.set("d", "1", domain=f".{names[0].upper()}")
    for name in names:
        assert sent(client.get(at(server, name, "/who"))) == {"a=1", "b=1", "c=1", "d=1"}
    assert sent(client.get(at(server, f"sub.{names[0]}", "/who"))) == {"d=1"}


@pytest.mark.parametrize("url", ["nope", "", "/x", "//x/y", "http://[::1", "http://a..b/"])
@pytest.mark.parametrize("way", ["request", "submit"])
def test_a_url_that_is_none_is_told_whatever_the_jar_holds(kit: Kit, url: str, way: str) -> None:
    client = kit.client()
    client.cookies.set("a", "1", domain="a.test")
    raised(hyperpool.InvalidURL, lambda: getattr(client, way)("GET", url))
    raised(hyperpool.InvalidURL, lambda: getattr(client, way)("GET", url, cookies=http.cookiejar.CookieJar()))


def test_a_url_that_an_auth_has_broken_is_told_too(kit: Kit) -> None:
    client = kit.client(auth=lambda request: dataclasses.replace(request, url="nope"))
    client.cookies.set("a", "1", domain="a.test")
    raised(hyperpool.InvalidURL, lambda: client.get("http://127.0.0.1:1/"))


def test_cookies_of_a_call_are_sent_once_and_not_kept(kit: Kit, wire: Wire) -> None:
    server, client = kit.pair(wire, told)
    assert sent(client.get(server.url("/who"), cookies={"a": "1"})) == {"a=1"}
    assert sent(client.get(server.url("/who"))) == set()


def test_the_call_goes_before_the_server_and_the_server_before_the_client(kit: Kit) -> None:
    server = kit.server(handler=told)
    client = kit.client(cookies={"a": "client", "b": "client", "c": "client"})
    client.get(server.url("/set?a=server&b=server"))
    assert sent(client.get(server.url("/who"), cookies={"a": "call"})) == {"a=call", "b=server", "c=client"}


def test_a_cookie_header_of_the_callers_is_sent_as_it_is(kit: Kit) -> None:
    server, client = kit.pair(handler=told, cookies={"a": "1"})
    assert sent(client.get(server.url("/who"), headers={"Cookie": "mine=1"})) == {"mine=1"}


def test_a_cookie_jar_of_the_callers_is_used_itself(kit: Kit) -> None:
    jar = http.cookiejar.CookieJar()
    server, client = kit.pair(handler=told, cookies=jar)
    client.get(server.url("/set?a=1"))
    assert [cookie.value for cookie in jar] == ["1"]
    other = kit.client()
    assert sent(other.get(server.url("/who"), cookies=jar)) == {"a=1"}
    assert len(other.cookies) == 0


def test_cookies_can_be_set_for_a_host_read_and_forgotten(kit: Kit) -> None:
    server, client = kit.pair(handler=told)
    client.cookies.set("here", "1", domain=str(urlsplit(server.origin).hostname))
    client.cookies.set("there", "1", domain="example.org")
    client.cookies["everywhere"] = "1"
    assert sent(client.get(server.url("/who"))) == {"here=1", "everywhere=1"}
    del client.cookies["here"]
    assert sorted(client.cookies) == ["everywhere", "there"]
    client.cookies.clear()
    assert sent(client.get(server.url("/who"))) == set()
    with pytest.raises(KeyError):
        del client.cookies["here"]
    client.cookies = {"fresh": "1"}
    assert sent(client.get(server.url("/who"))) == {"fresh=1"}


@pytest.mark.parametrize("pair", [("a", "1; b=2"), ("a", "x\r\ny"), ("a b", "1"), ("", "1"), ("a=b", "1"), ("a", 1)])
def test_a_cookie_that_would_be_two_is_refused(kit: Kit, pair: Any) -> None:
    raised(hyperpool.LocalProtocolError, lambda: Cookies(dict([pair])))
    raised(hyperpool.LocalProtocolError, lambda: kit.client().get("http://127.0.0.1:1/", cookies=dict([pair])))


def test_the_names_are_shown_and_the_values_are_not() -> None:
    assert repr(Cookies({"session": "secret"})) == "<Cookies session>"


@ways
def test_32_threads_set_and_send_cookies_at_once(kit: Kit, wire: Wire, way: Any) -> None:
    server, client = kit.pair(wire, told)

    def visit(n: int) -> set[str]:
        way(client, server.url(f"/set?n{n}=1"))
        return sent(way(client, server.url("/who")))

    with kit.threads(32) as threads:
        seen = list(threads.map(visit, range(96)))
    assert all(f"n{n}=1" in cookies for n, cookies in enumerate(seen)), "what was set before is sent after"
    assert len(client.cookies) == 96


def test_threads_change_cookies_while_others_iterate(kit: Kit) -> None:
    cookies = Cookies()
    stop = threading.Event()

    def read() -> int:
        while not stop.is_set():
            list(cookies.items())
        return len(cookies)

    def write(n: int) -> None:
        for k in range(50):
            cookies[f"own{n}-{k}"] = "1"
            cookies.set(f"jar{n}-{k}", "1", domain=f"h{n}.test")
        for k in range(50):
            del cookies[f"own{n}-{k}"]

    with kit.threads(8) as threads:
        readers = [threads.submit(read) for _ in range(4)]
        list(threads.map(write, range(4)))
        stop.set()
        assert {reader.result(WAIT_S) for reader in readers} == {200}


# -- headers, which threads may change in the same way -----------------------------------------------------------------


@inline
def headers(request: Request) -> str:
    return json.dumps(request.headers)


def test_headers_of_a_client_can_be_changed_and_hold_from_the_next_request_on(kit: Kit) -> None:
    server, client = kit.pair(H2_TLS, headers, headers={"X-A": "1"})
    client.headers["x-a"] = "2"
    client.headers.update({"X-B": "3", "Accept": None})
    seen = dict(client.get(server.url()).json())
    assert (seen["x-a"], seen["x-b"], "accept" in seen) == ("2", "3", False)
    del client.headers["X-B"]
    assert "X-B" not in client.headers
    client.headers = {"X-C": "4"}
    seen = dict(client.get(server.url()).json())
    assert ("x-a" in seen, seen["x-c"], seen["accept"]) == (False, "4", "*/*")


def test_a_request_has_all_headers_of_one_moment(kit: Kit, wire: Wire) -> None:
    server, client = kit.pair(wire, headers, headers={"X-A": "0", "X-B": "0"})
    stop = threading.Event()

    def change() -> None:
        n = 0
        while not stop.is_set():
            n += 1
            client.headers.update({"X-A": str(n), "X-B": str(n)})

    with kit.threads(9) as threads:
        changing = threads.submit(change)
        seen = [dict(one.json()) for one in threads.map(lambda _: client.get(server.url()), range(100))]
        stop.set()
        changing.result(WAIT_S)
    assert all(one["x-a"] == one["x-b"] for one in seen)


def test_no_change_of_a_header_is_lost(kit: Kit) -> None:
    client = kit.client()

    def add(n: int) -> None:
        for k in range(20):
            client.headers[f"X-{n}-{k}"] = "1"

    with kit.threads(8) as threads:
        list(threads.map(add, range(8)))
    assert sum(name.startswith("X-") for name in client.headers) == 160
