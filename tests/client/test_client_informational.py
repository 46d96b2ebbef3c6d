"""1xx responses given to a callable: ``informational=`` (RFC 9110 15.2, RFC 8297)."""

from __future__ import annotations

import logging
import threading
from typing import Any

import pytest
from client_support import Kit, Wire, raised

import hyperpool
from hyperpool.testing import Reply
from stage import WAIT_S, opened

HINTS = [(103, {"link": "</style.css>; rel=preload"}), (102, ()), (103, [("link", "</a>"), ("link", "</b>")])]


class Heard:
    """Notes what it is called with, and where."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, list[str]]] = []
        self.threads: set[str] = set()

    def __call__(self, status: int, headers: Any) -> None:
        self.calls.append((status, headers.getlist("Link")))
        self.threads.add(threading.current_thread().name)


def hinting(request: Any) -> Reply:
    return Reply(body="page", interim=HINTS)


EXPECTED = [(103, ["</style.css>; rel=preload"]), (102, []), (103, ["</a>", "</b>"])]


def test_they_are_told_in_their_order_before_the_response(kit: Kit, wire: Wire) -> None:
    server, client = kit.pair(wire, hinting)
    heard = Heard()
    response = client.get(server.url("/"), informational=heard)
    assert (response.text, heard.calls) == ("page", EXPECTED)


def test_submitted_and_streamed_requests_tell_them_too(kit: Kit, wire: Wire) -> None:
    server, client = kit.pair(wire, hinting)
    first, second = Heard(), Heard()
    assert client.submit("GET", server.url("/"), informational=first).result(WAIT_S).text == "page"
    with client.stream("GET", server.url("/"), informational=second) as response:
        assert second.calls == EXPECTED
        assert response.read() == b"page"
    assert first.calls == EXPECTED


def test_they_are_told_while_the_response_is_still_being_made(kit: Kit, wire: Wire) -> None:
    gate, told = kit.gate(), threading.Event()

    def handler(request: Any) -> Reply:
        request.read()
        opened(gate)
        return Reply()

    server, client = kit.pair(wire, handler)
    future = client.submit(
        "POST",
        server.url("/"),
        content=b"body",
        headers={"Expect": "100-continue"},
        informational=lambda status, headers: told.set(),
    )
    opened(told)
    assert not future.done()
    gate.set()
    assert future.result(WAIT_S).ok


def test_those_of_every_hop_are_told(kit: Kit, wire: Wire) -> None:
    def handler(request: Any) -> Reply:
        interim = [(103, {"link": request.target})]
        return Reply(302, {"location": "/b"}, interim=interim) if request.target == "/a" else Reply(interim=interim)

    server, client = kit.pair(wire, handler)
    heard = Heard()
    client.get(server.url("/a"), informational=heard)
    client.submit("GET", server.url("/a"), informational=heard).result(WAIT_S)
    assert heard.calls == [(103, ["/a"]), (103, ["/b"])] * 2


def test_they_run_on_the_io_thread_where_nothing_of_ours_blocks(kit: Kit, plain_wire: Wire) -> None:
    server, client = kit.pair(plain_wire, hinting)
    heard, errors = Heard(), []

    def blocking(status: int, headers: Any) -> None:
        heard(status, headers)
        with pytest.raises(RuntimeError) as caught:
            client.get(server.url("/"))
        errors.append(caught.value)

    assert client.get(server.url("/"), informational=blocking).ok
    assert heard.threads == {f"hyperpool {server.origin}"} and len(errors) == 3


def test_they_may_begin_other_requests(kit: Kit, wire: Wire) -> None:
    """What early hints are for."""
    server, client = kit.pair(wire)
    begun = []

    @server.route("/page")
    def page(request: Any) -> Reply:
        return Reply(body="page", interim=HINTS[:1])

    client.get(
        server.url("/page"),
        informational=lambda status, headers: begun.append(client.submit("GET", server.url("/bytes/5"))),
    )
    assert [len(future.result(WAIT_S).content) for future in begun] == [5]


@pytest.mark.parametrize("fault", [ValueError, SystemExit])
def test_what_they_raise_is_logged_and_harms_nobody(
    kit: Kit, wire: Wire, fault: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    server, client = kit.pair(wire, hinting)

    def raising(status: int, headers: Any) -> None:
        raise fault("mine")

    with caplog.at_level(logging.ERROR, "hyperpool"):
        assert client.get(server.url("/"), informational=raising).text == "page"
    assert len(caplog.records) == len(HINTS)
    assert server.connections_accepted == 1


def test_a_flood_of_them_is_still_an_error(kit: Kit, wire: Wire) -> None:
    server, client = kit.pair(wire, lambda request: Reply(interim=[(102, ())] * 101))
    heard = Heard()
    raised(hyperpool.RemoteProtocolError, lambda: client.get(server.url("/"), informational=heard))
    assert len(heard.calls) <= 100
