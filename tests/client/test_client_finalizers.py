"""Finalizers of the program's own, which ask for something: the garbage collector may run them at any allocation, so
also while the thread that it runs on holds a lock of ours.

The moments are built by hand: something that is looked at under the lock runs what a finalizer would.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import pytest

import hyperpool
from hyperpool import default
from hyperpool.engine import trust
from hyperpool.policy.cookies import Cookies
from hyperpool.policy.defaults import DefaultHeaders
from hyperpool.policy.retries import RetryBudget
from hyperpool.testing import Server


class Once:
    """Calls something the first time that it is called itself."""

    def __init__(self, act: Callable[[], object]) -> None:
        self._acts = [act]

    def __call__(self) -> None:
        if self._acts:
            self._acts.pop()()


def test_a_request_within_the_map_of_routes(hyperpool_server: Server) -> None:
    with hyperpool.Client(verify=hyperpool_server.ca_pem, trust_env=False) as client:
        url = hyperpool_server.url("/bytes/1")
        finalize = Once(lambda: answers.append(client.get(url).status_code))
        answers: list[int] = []

        class Watched(OrderedDict[Any, Any]):
            def get(self, *arguments: Any) -> Any:
                finalize()
                return super().get(*arguments)

        client.pool._loops._by_route = Watched()
        answers.append(client.get(url).status_code)
        assert answers == [200, 200]
        assert client.pool.stats().threads == 1


def test_a_request_within_what_loops_share(hyperpool_server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    with hyperpool.Client(verify=hyperpool_server.ca_pem, trust_env=False) as client:
        url = hyperpool_server.url("/bytes/1")
        workshop = client.pool._loops._workshop
        finalize = Once(lambda: answers.append(client.get(url).status_code))
        answers: list[int] = []
        known = workshop._tls_configs

        class Watched:
            def setdefault(self, *arguments: Any) -> Any:
                finalize()
                return known.setdefault(*arguments)

        monkeypatch.setattr(workshop, "_tls_configs", Watched())
        answers.append(client.get(url).status_code)
        assert answers == [200, 200]


def test_a_request_within_a_budget_of_retries() -> None:
    finalize = Once(lambda: budget.earn("https://a.test"))

    def clock() -> float:
        finalize()
        return 0.0

    budget = RetryBudget(clock)
    budget.earn("https://a.test")
    assert budget.spend("https://a.test")


class Watched(dict[str, str]):
    """A dictionary of which a copy is made under the lock."""

    finalize: Callable[[], None]

    def keys(self) -> Any:
        self.finalize()
        return super().keys()

    def __iter__(self) -> Any:
        self.finalize()
        return super().__iter__()


def test_a_cookie_within_another_cookie() -> None:
    cookies = Cookies()
    cookies._own = watched = Watched()
    watched.finalize = Once(lambda: cookies.set("inner", "1"))
    cookies.set("outer", "1")
    assert "outer" in cookies


def test_headers_within_other_headers(monkeypatch: pytest.MonkeyPatch) -> None:
    from hyperpool.policy import defaults

    headers, genuine = DefaultHeaders(None), defaults.merged
    finalize = Once(lambda: headers.update({"inner": "1"}))

    def merged(*arguments: Any) -> Any:
        finalize()
        return genuine(*arguments)

    monkeypatch.setattr(defaults, "merged", merged)
    headers.update({"outer": "1"})
    assert headers["outer"] == "1"


def test_a_socket_of_ones_own_within_the_wrapping_of_another() -> None:
    wrapped: list[str] = []
    finalize = Once(lambda: trust.wrap(context, sock, "inner"))

    class Context:
        def wrap_socket(self, sock: Any, *, server_hostname: str, **_: Any) -> Any:
            finalize()
            wrapped.append(server_hostname)

    context: Any = Context()
    sock: Any = None
    trust.wrap(context, sock, "outer")
    assert wrapped == ["inner", "outer"]


def test_the_process_wide_client_within_its_making(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []
    finalize = Once(lambda: made.append(default.default_client()))

    def make() -> hyperpool.Client:
        finalize()
        return hyperpool.Client(trust_env=False)

    monkeypatch.setattr(default, "_client", None)
    monkeypatch.setattr(default, "Client", make)
    made.append(default.default_client())
    assert default.default_client() is made[-1]
    for client in made:
        client.close()
