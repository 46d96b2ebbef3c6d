"""Which proxy leads to an origin: URLs, mappings and the environment."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import hyperpool
from hyperpool.errors import InvalidURL
from hyperpool.proxies import ProxyMap, forwards, parse_proxy
from hyperpool.urls import Origin, parse_url
from hyperpool.values import Proxy, Route, TlsSettings

P = Proxy("http", "p.test", 3128)


def origin(url: str) -> Origin:
    return parse_url(url).origin


def chosen(given: Any, url: str) -> str | None:
    proxy = ProxyMap(given, trust_env=False).choose(origin(url))
    return None if proxy is None else str(proxy)


# URLs


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://p.test:3128", P),
        ("http://p.test:3128/", P),
        ("HTTP://P.TEST:3128", P),
        ("p.test:3128", P),
        ("p.test", Proxy("http", "p.test", 80)),
        ("http://p.test", Proxy("http", "p.test", 80)),
        ("https://p.test", Proxy("https", "p.test", 443)),
        ("socks5://p.test", Proxy("socks5", "p.test", 1080)),
        ("socks5h://p.test", Proxy("socks5h", "p.test", 1080)),
        ("http://127.0.0.1:1", Proxy("http", "127.0.0.1", 1)),
        ("http://[::1]:3128", Proxy("http", "::1", 3128)),
        ("[::1]:3128", Proxy("http", "::1", 3128)),
        ("http://user:pass@p.test:3128", Proxy("http", "p.test", 3128, "user:pass")),
        ("user:pass@p.test:3128", Proxy("http", "p.test", 3128, "user:pass")),
        ("http://us%40er:p%23@p.test:3128", Proxy("http", "p.test", 3128, "us%40er:p%23")),
    ],
)
def test_a_proxy_is_read_from_its_url(url: str, expected: Proxy) -> None:
    assert parse_proxy(url) == expected


@pytest.mark.parametrize("headers", [{"X-A": "1"}, [("X-A", "1")], (("X-A", "1"),)])
def test_headers_for_the_proxy_are_a_mapping_or_pairs(headers: Any) -> None:
    assert parse_proxy("http://p.test", headers).headers == (("X-A", "1"),)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("ftp://p.test:1", "the scheme must be one of http, https, socks5, socks5h, not 'ftp'"),
        ("socks4://p.test:1", "not 'socks4'"),
        ("http://", "no host name"),
        ("", "no host name"),
        ("http://:3128", "no host name|cannot be parsed"),
        ("http://p.test:0", "between 1 and 65535"),
        ("http://p.test:65536", "between 1 and 65535|cannot be parsed"),
        ("http://p.test:port", "cannot be parsed"),
        ("http://p.test/path", "a proxy has no path"),
        ("http://p.test?x", "a proxy has no path"),
        ("http://p.test#x", "a proxy has no path"),
        ("http://p.test\r\nX: 1", "is not allowed here"),
        ("http://p test", "is not allowed here"),
        (" http://p.test", "is not allowed here"),
        ("http://p.test\\@q.test", "is not allowed here"),
        (b"http://p.test", "must be a URL as str"),
        (3128, "must be a URL as str"),
    ],
)
def test_what_is_no_proxy_is_refused(url: Any, words: str) -> None:
    with pytest.raises(InvalidURL, match=words):
        parse_proxy(url)


@pytest.mark.parametrize(
    "url", ["http://user:secret@p.test/x", "ftp://u:secret@p.test", "http://u:secret@p.test:port", "u:se cret@p.test"]
)
def test_no_error_shows_a_password(url: str) -> None:
    with pytest.raises(InvalidURL) as caught:
        parse_proxy(url)
    assert "cret" not in str(caught.value)


def test_nothing_that_is_printed_shows_a_password() -> None:
    proxy = parse_proxy("http://user:secret@p.test:3128", {"Proxy-Authorization": "secret"})
    route = Route(origin("http://a.test"), TlsSettings(), proxy=proxy)
    shown = f"{proxy} {proxy!r} {route!r} {ProxyMap(proxy)!r}"
    assert "secret" not in shown and "p.test:3128" in shown


@pytest.mark.parametrize(
    ("scheme", "proxy", "expected"),
    [
        ("http", None, False),
        ("http", "http://p.test", True),
        ("http", "https://p.test", True),
        ("http", "socks5://p.test", False),
        ("http", "socks5h://p.test", False),
        ("https", "http://p.test", False),
        ("https", "https://p.test", False),
    ],
)
def test_only_plain_requests_are_forwarded_and_only_by_http_proxies(scheme: str, proxy: Any, expected: bool) -> None:
    route = Route(origin(f"{scheme}://a.test"), TlsSettings(), proxy=proxy and parse_proxy(proxy))
    assert forwards(route) is expected


# What callers give


def test_without_a_proxy_the_connection_is_direct() -> None:
    assert chosen(None, "https://a.test") is None


@pytest.mark.parametrize("given", ["http://p.test:3128", P, {"all": "p.test:3128"}, {"all://": P}])
@pytest.mark.parametrize("url", ["http://a.test", "https://a.test", "https://localhost", "http://127.0.0.1:8080"])
def test_one_proxy_is_for_all_origins_loopback_too(given: Any, url: str) -> None:
    assert chosen(given, url) == "http://p.test:3128"


def test_the_nearest_entry_of_a_mapping_wins() -> None:
    entries = {"https://a.test": "one:1", "https": "two:2", "all://b.test": "three:3", "all://c.test": None}
    given = {**entries, "all": "four:4"}
    assert chosen(given, "https://a.test:8443") == "http://one:1"
    assert chosen(given, "https://b.test") == "http://two:2"
    assert chosen(given, "http://b.test") == "http://three:3"
    assert chosen(given, "http://c.test") is None
    assert chosen(given, "http://d.test") == "http://four:4"


def test_a_key_with_a_port_is_for_that_port_and_goes_before_the_one_without() -> None:
    entries = {"http://a.test:8000": "one:1", "http://a.test": "two:2", "all://b.test:443": "three:3", "all": "four:4"}
    assert chosen(entries, "http://a.test:8000") == "http://one:1"
    assert chosen(entries, "http://a.test") == chosen(entries, "http://a.test:80") == "http://two:2"
    assert chosen(entries, "https://b.test") == "http://three:3"
    assert chosen(entries, "http://b.test") == "http://four:4"
    assert chosen({"http://127.0.0.1:8000/": None, "http": P}, "http://127.0.0.1:8000") is None


def test_a_key_with_a_port_may_be_for_an_ipv6_host() -> None:
    assert chosen({"http://[::1]:81": P}, "http://[::1]:81") == "http://p.test:3128"
    assert chosen({"http://[::1]:81": P}, "http://[::1:81]") is None
    assert chosen({"http://[::1:81]": P}, "http://[::1]:81") is None


@pytest.mark.parametrize("direct", [None, ""])
def test_an_entry_of_none_means_a_direct_connection_whatever_the_environment_says(
    monkeypatch: pytest.MonkeyPatch, direct: Any
) -> None:
    monkeypatch.setenv("ALL_PROXY", "http://p.test")
    assert ProxyMap({"all": direct}).choose(origin("http://a.test")) is None


def test_an_empty_url_means_a_direct_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "http://p.test")
    assert ProxyMap("").choose(origin("http://a.test")) is None


def test_a_mapping_may_list_its_exceptions() -> None:
    given = {"all": P, "no_proxy": "a.test, 10.0.0.0/8"}
    assert chosen(given, "http://a.test") is None
    assert chosen(given, "http://10.1.2.3") is None
    assert chosen(given, "http://b.test") == "http://p.test:3128"


def test_a_mapping_by_an_ipv6_host_is_written_as_in_a_url() -> None:
    assert chosen({"http://[::1]": P}, "http://[::1]:81/") == "http://p.test:3128"


@pytest.mark.parametrize("key", ["ftp", "a.test", "", 3, "httpx://a.test"])
def test_a_mapping_by_anything_else_is_refused(key: Any) -> None:
    with pytest.raises(InvalidURL, match="give http, https, all"):
        ProxyMap({key: P})


def test_a_wrong_proxy_is_refused_when_it_is_given() -> None:
    with pytest.raises(InvalidURL, match="socks4"):
        ProxyMap({"https": "socks4://p.test"})


# The environment


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> Any:
    def put(**variables: str) -> None:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return put


def from_environment(url: str, given: Any = None) -> str | None:
    proxy = ProxyMap(given).choose(origin(url))
    return None if proxy is None else str(proxy)


@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy"])
def test_http_proxy_is_for_plain_origins(environment: Any, name: str) -> None:
    environment(**{name: "p.test:3128"})
    assert from_environment("http://a.test") == "http://p.test:3128"
    assert from_environment("https://a.test") is None


@pytest.mark.parametrize("name", ["HTTPS_PROXY", "https_proxy"])
def test_https_proxy_is_for_origins_with_tls(environment: Any, name: str) -> None:
    environment(**{name: "http://p.test:3128"})
    assert from_environment("https://a.test") == "http://p.test:3128"
    assert from_environment("http://a.test") is None


@pytest.mark.parametrize("name", ["ALL_PROXY", "all_proxy"])
def test_all_proxy_is_for_the_rest(environment: Any, name: str) -> None:
    environment(**{name: "socks5h://p.test", "HTTPS_PROXY": "http://q.test"})
    assert from_environment("http://a.test") == "socks5h://p.test:1080"
    assert from_environment("https://a.test") == "http://q.test"


def test_the_lower_case_spelling_wins_even_where_it_is_empty(environment: Any) -> None:
    environment(http_proxy="one:1", HTTP_PROXY="two:2", https_proxy="", HTTPS_PROXY="three:3")
    assert from_environment("http://a.test") == "http://one:1"
    assert from_environment("https://a.test") is None


def test_in_a_cgi_program_the_upper_case_http_proxy_is_the_request_of_a_stranger(environment: Any) -> None:
    environment(REQUEST_METHOD="GET", HTTP_PROXY="evil.test:1", HTTPS_PROXY="p.test:2")
    assert from_environment("http://a.test") is None
    assert from_environment("https://a.test") == "http://p.test:2"


def test_in_a_cgi_program_the_lower_case_http_proxy_counts(environment: Any) -> None:
    environment(REQUEST_METHOD="GET", http_proxy="p.test:1")
    assert from_environment("http://a.test") == "http://p.test:1"


def test_the_environment_is_not_looked_at_where_it_is_not_trusted(environment: Any) -> None:
    environment(ALL_PROXY="p.test:1")
    assert chosen(None, "http://a.test") is None


def test_what_the_program_gives_wins_over_the_environment_and_over_no_proxy(environment: Any) -> None:
    environment(HTTP_PROXY="one:1", HTTPS_PROXY="two:2", NO_PROXY="*")
    assert from_environment("http://a.test", "three:3") == "http://three:3"


def test_the_environment_fills_what_a_mapping_leaves_open(environment: Any) -> None:
    environment(HTTP_PROXY="one:1", HTTPS_PROXY="two:2")
    assert from_environment("http://a.test", {"https": "three:3"}) == "http://one:1"
    assert from_environment("https://a.test", {"https": "three:3"}) == "http://three:3"


def test_a_variable_that_holds_no_proxy_is_named(environment: Any) -> None:
    environment(HTTPS_PROXY="gopher://user:secret@p.test")
    with pytest.raises(InvalidURL, match="environment variable HTTPS_PROXY: .*gopher") as caught:
        from_environment("https://a.test")
    assert "secret" not in str(caught.value)


def test_the_environment_is_read_once_and_not_before_the_first_question(environment: Any) -> None:
    proxies = ProxyMap()
    environment(HTTP_PROXY="one:1")
    assert str(proxies.choose(origin("http://a.test"))) == "http://one:1"
    environment(HTTP_PROXY="two:2")
    assert str(proxies.choose(origin("http://b.test"))) == "http://one:1"


@pytest.mark.parametrize(
    ("no_proxy", "url", "is_direct"),
    [
        ("a.test", "http://a.test", True),
        ("a.test", "http://A.Test", True),
        ("A.TEST", "http://a.test", True),
        ("a.test", "http://x.a.test", True),
        ("a.test", "http://bada.test", False),
        ("a.test", "http://a.test.evil.test", False),
        ("a.test", "http://a.test./", True),
        ("a.test.", "http://a.test", True),
        (".a.test", "http://x.a.test", True),
        (".a.test", "http://a.test", True),
        (".a.test", "http://bada.test", False),
        ("*.a.test", "http://x.a.test", True),
        ("test", "http://a.test", True),
        ("*", "http://a.test", True),
        ("*", "http://127.0.0.1", True),
        ("b.test, *", "http://a.test", True),
        ("b.test,a.test", "http://a.test", True),
        (" b.test , a.test ", "http://a.test", True),
        ("b.test a.test", "http://a.test", True),
        (",,", "http://a.test", False),
        (".", "http://a.test", False),
        ("", "http://a.test", False),
        ("localhost", "http://localhost:8080", True),
        ("b.test", "http://localhost", False),
        ("b.test", "http://127.0.0.1", False),
        ("a.test:80", "http://a.test", True),
        ("a.test:8080", "http://a.test", False),
        ("a.test:8080", "http://x.a.test:8080", True),
        ("127.0.0.1", "http://127.0.0.1:9", True),
        ("127.0.0.1", "http://127.0.0.2", False),
        ("127.0.0.1:9", "http://127.0.0.1:9", True),
        ("127.0.0.1:9", "http://127.0.0.1:8", False),
        ("10.0.0.0/8", "http://10.255.0.1", True),
        ("10.0.0.0/8", "http://11.0.0.1", False),
        ("10.1.2.3/8", "http://10.0.0.1", True),
        ("10.0.0.0/8", "http://a.test", False),
        ("10.0.0.0/99", "http://10.0.0.1", False),
        ("::1", "http://[::1]:81", True),
        ("[::1]", "http://[::1]", True),
        ("[::1]:81", "http://[::1]:81", True),
        ("[::1]:81", "http://[::1]:82", False),
        ("0:0:0:0:0:0:0:1", "http://[::1]", True),
        ("fd00::/8", "http://[fd12::1]", True),
        ("fd00::/8", "http://10.0.0.1", False),
        ("0.0.0.0/0", "http://[::1]", False),
        ("fe80::/10", "http://[fe80::1%25lo]/", True),
    ],
)
def test_no_proxy_lists_what_is_reached_directly(environment: Any, no_proxy: str, url: str, is_direct: bool) -> None:
    environment(ALL_PROXY="p.test:3128", NO_PROXY=no_proxy)
    assert (from_environment(url) is None) is is_direct


def test_no_proxy_in_lower_case_wins(environment: Any) -> None:
    environment(ALL_PROXY="p.test:3128", NO_PROXY="*", no_proxy="a.test")
    assert from_environment("http://b.test") == "http://p.test:3128"


# One map, many askers


def test_a_choice_is_remembered_and_what_is_remembered_is_bounded() -> None:
    proxies = ProxyMap({"https": P}, trust_env=False)
    for number in range(3_000):
        assert proxies.choose(Origin("https", f"h{number}.test", 443)) == P
        assert proxies.choose(Origin("http", f"h{number}.test", 80)) is None
    assert len(proxies._chosen) <= 1_024


def test_32_threads_get_the_same_answers(environment: Any) -> None:
    environment(HTTPS_PROXY="p.test:3128", NO_PROXY="b.test")
    proxies, ready = ProxyMap(), threading.Barrier(32)

    def ask(_: int) -> tuple[str, ...]:
        ready.wait(30)
        return tuple(str(proxies.choose(origin(url))) for url in ("https://a.test", "https://b.test", "http://a.test"))

    with ThreadPoolExecutor(32) as threads:
        assert set(threads.map(ask, range(32))) == {("http://p.test:3128", "None", "None")}


def test_making_a_client_reads_no_environment(environment: Any) -> None:
    environment(HTTP_PROXY="gopher://p.test")
    with hyperpool.Client() as client:
        assert not client.pool.closed
        with pytest.raises(InvalidURL, match="HTTP_PROXY"):
            client.get("http://a.test/")
