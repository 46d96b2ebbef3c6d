"""Cookies for a public suffix are refused where the list is at hand, so that strangers share no cookies."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import pytest
from client_support import H1_PLAIN, Kit

from hyperpool.policy import suffixes
from hyperpool.testing import Reply, Request


@pytest.fixture(params=[True, False], ids=["with the list", "without"])
def has_list(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[bool]:
    """With the package, and as if it were not installed."""
    if request.param:
        pytest.importorskip("publicsuffixlist")
    else:
        monkeypatch.setitem(sys.modules, "publicsuffixlist", None)
    suffixes._check.cache_clear()
    yield request.param
    suffixes._check.cache_clear()


# Host, Domain of the cookie, whether the list forbids it.
CASES = {
    "a country": ("shop.example.co.uk", "co.uk", True),
    "a country with a dot": ("shop.example.co.uk", ".CO.UK", True),
    "a host of pages": ("mine.github.io", "github.io", True),
    "a top level": ("example.com", "com", True),
    "one's own domain": ("shop.example.co.uk", "example.co.uk", False),
    "one's own name": ("shop.example.co.uk", "shop.example.co.uk", False),
    "a network of one's own": ("a.b.internal", "b.internal", False),
}


def asked(kit: Kit, host: str, domain: str) -> list[Any]:
    """The Cookie fields of a first and a second request to a host, through a proxy that stands for it."""

    def answer(request: Request) -> Any:
        got.append(request.header("cookie"))
        return Reply(200, (("set-cookie", f"a=1; Domain={domain}"), ("set-cookie", "b=2")))

    got: list[Any] = []
    proxy = kit.server(H1_PLAIN, answer)
    client = kit.client(H1_PLAIN, proxy=f"http://127.0.0.1:{proxy.port}")
    for _ in range(2):
        client.get(f"http://{host}/")
    return got


@pytest.mark.parametrize("name", CASES)
def test_a_cookie_for_a_public_suffix_is_refused_where_there_is_a_list(kit: Kit, has_list: bool, name: str) -> None:
    host, domain, is_suffix = CASES[name]
    first, second = asked(kit, host, domain)
    # http.cookiejar itself refuses a domain without a dot in it.
    refused = (is_suffix and has_list) or "." not in domain.strip(".")
    assert first is None
    assert sorted(second.split("; ")) == (["b=2"] if refused else ["a=1", "b=2"])


def test_a_jar_of_the_callers_keeps_its_own_rules(kit: Kit) -> None:
    from http.cookiejar import CookieJar

    jar = CookieJar()
    proxy = kit.server(H1_PLAIN, lambda request: Reply(200, (("set-cookie", "a=1; Domain=co.uk"),)))
    client = kit.client(H1_PLAIN, proxy=f"http://127.0.0.1:{proxy.port}", cookies=jar)
    client.get("http://example.co.uk/")
    assert len(list(jar)) == 1
