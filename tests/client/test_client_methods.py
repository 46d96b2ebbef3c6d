"""Methods with rules of their own: HEAD, OPTIONS with "*", CONNECT."""

from __future__ import annotations

from typing import Any

import pytest
from client_support import H1_PLAIN, Kit, Wire, raised

import hyperpool
from hyperpool.testing import Reply


def test_a_response_to_head_has_a_length_and_no_body(kit: Kit, wire: Wire) -> None:
    """RFC 9110 9.3.2. The response behind it on the same connection is not taken for that body."""
    server, client = kit.pair(wire)
    for _ in range(2):
        response = client.head(server.url("/bytes/1000"))
        assert (response.headers["content-length"], response.content) == ("1000", b"")
        assert len(client.get(server.url("/bytes/7")).content) == 7
    assert server.connections_accepted == 1


def test_a_head_request_streams_nothing(kit: Kit, wire: Wire) -> None:
    server, client = kit.pair(wire)
    with client.stream("HEAD", server.url("/bytes/1000")) as response:
        assert list(response.iter_bytes()) == []


def test_head_stays_head_where_a_redirect_makes_get_of_others(kit: Kit, wire: Wire) -> None:
    server, client = kit.pair(wire)
    server.route("/see")(lambda request: Reply(303, {"location": "/bytes/3"}))
    assert client.head(server.url("/see")).request.method == "HEAD"


def test_options_may_ask_for_the_server_itself(kit: Kit, wire: Wire) -> None:
    """RFC 9112 3.2.4, RFC 9113 8.3.1."""
    server, client = kit.pair(wire, lambda request: Reply(204, {"allow": "GET, HEAD, OPTIONS"}))
    response = client.options(server.url("/"), target="*")
    assert response.headers["allow"] == "GET, HEAD, OPTIONS"
    assert (server.requests[0].method, server.requests[0].target) == ("OPTIONS", "*")


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_star_is_for_options_alone(kit: Kit, method: str) -> None:
    client = kit.client(H1_PLAIN)
    assert "'*'" in str(
        raised(hyperpool.LocalProtocolError, lambda: client.request(method, "http://a.test", target="*"))
    )


def test_a_target_goes_out_as_it_stands_and_not_with_a_redirect(kit: Kit, wire: Wire) -> None:
    def handler(request: Any) -> Reply:
        return Reply(302, {"location": "/there"}) if request.target == "/a%7Eb" else Reply(body=request.target)

    server, client = kit.pair(wire, handler)
    assert client.get(server.url("/ignored"), target="/a%7Eb").text == "/there"


@pytest.mark.parametrize("method", ["CONNECT", "connect"])
def test_connect_is_no_request_and_says_what_to_do(kit: Kit, wire: Wire, method: str) -> None:
    server, client = kit.pair(wire)
    error = raised(hyperpool.LocalProtocolError, lambda: client.request(method, server.url("/")))
    assert "proxy=" in str(error) and server.connections_accepted == 0
