"""What a request head becomes on its way through a proxy: forwarded, or through a tunnel that the proxy cannot see."""

from __future__ import annotations

from typing import Any

import pytest

from hyperpool.errors import LocalProtocolError
from hyperpool.protocol.events import RequestHead
from hyperpool.protocol.fields import credentials, forwarded, prepare_head, proxy_fields, tunnelled
from hyperpool.urls import parse_url
from hyperpool.values import Proxy

PROXY = Proxy("http", "proxy.test", 3128)


def head(url: str = "http://a.test:81/b?c=d", *headers: tuple[str, str], method: str = "GET") -> RequestHead:
    return prepare_head(method=method, url=parse_url(url), headers=headers, body_bytes=0)


def proxy(userinfo: str | None = None, *headers: Any) -> Proxy:
    return Proxy("http", "proxy.test", 3128, userinfo, headers)


def test_a_forwarded_request_has_an_absolute_target_on_http1() -> None:
    assert forwarded(head(), PROXY, http2=False).target == b"http://a.test:81/b?c=d"


def test_a_forwarded_request_keeps_its_path_on_http2_and_names_scheme_and_authority_there() -> None:
    made = forwarded(head(), PROXY, http2=True)
    assert (made.scheme, made.authority, made.target) == (b"http", b"a.test:81", b"/b?c=d")


def test_the_target_names_the_host_that_the_request_names() -> None:
    assert forwarded(head("http://a.test/b", ("Host", "c.test")), PROXY, http2=False).target == b"http://c.test/b"


def test_a_target_that_is_absolute_already_is_forwarded_as_it_is() -> None:
    request = RequestHead(b"GET", b"http", b"c.test", b"http://c.test/d", ())
    assert forwarded(request, PROXY, http2=False).target == b"http://c.test/d"


def test_a_forwarded_star_is_a_url_without_a_path() -> None:
    request = RequestHead(b"OPTIONS", b"http", b"a.test", b"*", ())
    assert forwarded(request, PROXY, http2=False).target == b"http://a.test"
    assert forwarded(request, PROXY, http2=True).target == b"*"


def test_a_forwarded_request_carries_what_the_proxy_is_told() -> None:
    made = forwarded(head("http://a.test/", ("X-A", "1")), proxy("user:pass", ("X-B", "2")), http2=False)
    assert made.fields == ((b"X-A", b"1"), (b"X-B", b"2"), (b"Proxy-Authorization", b"Basic dXNlcjpwYXNz"))


def test_what_the_proxy_is_told_replaces_what_the_request_says_under_the_same_name() -> None:
    request = head("http://a.test/", ("proxy-authorization", "Basic stale"), ("X-A", "1"))
    made = forwarded(request, proxy("user:pass"), http2=False)
    assert made.fields == ((b"X-A", b"1"), (b"Proxy-Authorization", b"Basic dXNlcjpwYXNz"))


def test_the_requests_own_credentials_for_the_proxy_are_forwarded_where_the_proxy_has_none() -> None:
    request = head("http://a.test/", ("Proxy-Authorization", "Basic own"))
    assert forwarded(request, PROXY, http2=False).fields == request.fields


def test_nothing_for_the_proxy_goes_through_a_tunnel() -> None:
    request = head("https://a.test/", ("X-A", "1"), ("PROXY-Authorization", "Basic secret"))
    assert tunnelled(request).fields == ((b"X-A", b"1"),)


def test_a_head_without_anything_for_the_proxy_goes_through_a_tunnel_as_it_is() -> None:
    request = head("https://a.test/", ("X-A", "1"))
    assert tunnelled(request) is request


@pytest.mark.parametrize(
    ("userinfo", "expected"),
    [
        ("user:pass", b"Basic dXNlcjpwYXNz"),
        ("user", b"Basic dXNlcjo="),
        ("user:", b"Basic dXNlcjo="),
        (":pass", b"Basic OnBhc3M="),
        ("us%65r:p%3Ass", b"Basic dXNlcjpwOnNz"),
        ("us%C3%A9r:p", b"Basic dXPDqXI6cA=="),
        ("a:b:c", b"Basic YTpiOmM="),
    ],
)
def test_the_userinfo_of_the_url_is_percent_decoded_into_basic_credentials(userinfo: str, expected: bytes) -> None:
    assert proxy_fields(proxy(userinfo)) == ((b"Proxy-Authorization", expected),)


def test_credentials_are_a_user_and_a_password() -> None:
    assert credentials("us%40er:p:a%20ss") == (b"us@er", b"p:a ss")


def test_credentials_that_are_given_as_a_header_win_over_the_urls() -> None:
    own = ("proxy-authorization", "Bearer token")
    assert proxy_fields(proxy("user:pass", own)) == ((b"proxy-authorization", b"Bearer token"),)


def test_connection_bookkeeping_among_the_proxys_headers_is_dropped() -> None:
    assert proxy_fields(proxy(None, ("Proxy-Connection", "keep-alive"), ("X-A", "1"))) == ((b"X-A", b"1"),)


@pytest.mark.parametrize("name", ["Host", "Content-Length", "Transfer-Encoding", "Connection", "TE", "Upgrade"])
def test_the_proxys_headers_may_not_say_what_is_the_requests_to_say(name: str) -> None:
    with pytest.raises(LocalProtocolError, match=f"proxy header '{name}': is set for you"):
        proxy_fields(proxy(None, (name, "1")))


@pytest.mark.parametrize("pair", [("X A", "1"), ("X-A", "1\r\nX-B: 2"), ("", "1"), ("X-A", "\0")])
def test_the_proxys_headers_cannot_smuggle(pair: tuple[str, str]) -> None:
    with pytest.raises(LocalProtocolError, match="not allowed|at least one"):
        proxy_fields(proxy(None, pair))


def test_a_password_with_a_line_end_stays_within_its_base64() -> None:
    ((_, value),) = proxy_fields(proxy("user:a%0D%0AX-Evil:%201"))
    assert b"\n" not in value and b"\r" not in value
