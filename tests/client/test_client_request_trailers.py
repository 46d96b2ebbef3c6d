"""Fields behind a request's body: ``trailers=`` (RFC 9110 6.5)."""

from __future__ import annotations

import hashlib
import io
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from client_support import H1_PLAIN, Kit, Wire, raised

import hyperpool
from hyperpool.testing import Reply
from stage import WAIT_S

Trailers = list[list[tuple[str, str]]]


@pytest.fixture
def told() -> Trailers:
    """The trailers of each request that `echo` has read."""
    return []


@pytest.fixture
def echo(told: Trailers) -> Any:
    """A handler that gives the body back, and the request's trailers to `told`."""

    def handler(request: Any) -> Reply:
        body = request.read()
        told.append(request.trailers)
        if request.target == "/see":
            return Reply(303, {"location": "/"})
        return Reply(307, {"location": "/"}) if request.target == "/moved" else Reply(body=body)

    return handler


def bodies() -> dict[str, Any]:
    return {
        "bytes": b"the body",
        "no bytes": b"",
        "file": io.BytesIO(b"the body"),
        "list": [b"the ", b"body"],
        "generator": (piece for piece in (b"the ", b"body")),
    }


@pytest.mark.parametrize("form", bodies())
def test_trailers_follow_a_body_of_each_form(kit: Kit, wire: Wire, echo: Any, told: Trailers, form: str) -> None:
    server, client = kit.pair(wire, echo)
    response = client.post(server.url("/echo"), content=bodies()[form], trailers={"X-Checksum": "abc", "x-b": "ü"})
    seen = server.requests[0]
    assert response.content == (b"" if form == "no bytes" else b"the body")
    assert told == [[("x-checksum", "abc"), ("x-b", "ü")]]
    assert dict(seen.headers)["trailer"] == "X-Checksum, x-b"
    assert "content-length" not in dict(seen.headers)


def test_a_callable_gives_them_when_the_body_is_through(kit: Kit, wire: Wire, echo: Any, told: Trailers) -> None:
    """The checksum of a body that is made on the way."""
    server, client = kit.pair(wire, echo)
    digest, threads = hashlib.sha256(), []

    def body() -> Iterator[bytes]:
        for _ in range(50):
            digest.update(bytes(20_000))
            yield bytes(20_000)

    def trailers() -> dict[str, str]:
        threads.append(threading.current_thread().name)
        return {"Repr-Digest": digest.hexdigest()}

    response = client.put(server.url("/"), content=body(), trailers=trailers, headers={"Trailer": "Repr-Digest"})
    assert told == [[("repr-digest", hashlib.sha256(response.content).hexdigest())]]
    assert threads == ["hyperpool upload"]


def test_a_body_in_memory_has_them_made_by_the_caller(kit: Kit, plain_wire: Wire, echo: Any, told: Trailers) -> None:
    server, client = kit.pair(plain_wire, echo)
    threads = []

    def trailers() -> list[tuple[str, str]]:
        threads.append(threading.current_thread())
        return [("x-a", "1"), ("x-a", "2")]

    client.submit("POST", server.url("/echo"), content=b"body", trailers=trailers).result(WAIT_S)
    assert (told, threads) == ([[("x-a", "1"), ("x-a", "2")]], [threading.current_thread()])


def test_the_connection_serves_on_after_trailers(kit: Kit, wire: Wire, echo: Any, told: Trailers) -> None:
    server, client = kit.pair(wire, echo)
    for n in range(3):
        assert client.post(server.url("/echo"), content=b"body", trailers={"x-n": str(n)}).content == b"body"
    assert (server.connections_accepted, told) == (1, [[("x-n", str(n))] for n in range(3)])


def test_they_go_out_again_with_the_body(kit: Kit, wire: Wire, echo: Any, told: Trailers) -> None:
    server, client = kit.pair(wire, echo)
    assert client.post(server.url("/moved"), content=[b"body"], trailers={"x-a": "1"}).content == b"body"
    assert told == [[("x-a", "1")]] * 2


def test_a_redirect_that_drops_the_body_drops_them(kit: Kit, wire: Wire, echo: Any, told: Trailers) -> None:
    server, client = kit.pair(wire, echo)
    assert client.post(server.url("/see"), content=b"body", trailers={"x-a": "1"}).ok
    assert told == [[("x-a", "1")], []] and "trailer" not in dict(server.requests[1].headers)


def test_they_may_be_used_with_an_expectation(kit: Kit, wire: Wire, echo: Any, told: Trailers) -> None:
    server, client = kit.pair(wire, echo)
    response = client.post(
        server.url("/echo"), content=b"body", trailers={"x-a": "1"}, headers={"Expect": "100-continue"}
    )
    assert (response.content, told) == (b"body", [[("x-a", "1")]])


def test_none_at_all_is_a_body_in_chunks(kit: Kit, echo: Any, told: Trailers) -> None:
    server, client = kit.pair(H1_PLAIN, echo)
    assert client.post(server.url("/echo"), content=b"body", trailers={}).content == b"body"
    assert told == [[]] and ("transfer-encoding", "chunked") in server.requests[0].headers


FORBIDDEN = (
    *("Content-Length", "Transfer-Encoding", "Host", "Connection", "TE", "Trailer", "Content-Type", "Content-Encoding"),
    *(
        "Authorization",
        "Cookie",
        "Set-Cookie",
        "Cache-Control",
        "Expect",
        "Range",
        "If-Match",
        "Max-Forwards",
        "Upgrade",
    ),
)


@pytest.mark.parametrize("name", FORBIDDEN)
def test_what_belongs_to_the_head_is_refused(kit: Kit, name: str) -> None:
    server, client = kit.pair(H1_PLAIN)
    error = raised(
        hyperpool.LocalProtocolError, lambda: client.post(server.url(), content=b"x", trailers={name.upper(): "1"})
    )
    assert name.upper() in str(error) and server.connections_accepted == 0


@pytest.mark.parametrize(
    "bad", [{"x\r\ny": "1"}, {"x": "1\r\nHost: b"}, {":path": "/"}, {"": "1"}, {"x": "\N{SNOWMAN}"}], ids=ascii
)
def test_nothing_is_injected_by_a_trailer(kit: Kit, bad: dict[str, str]) -> None:
    server, client = kit.pair(H1_PLAIN)
    raised(hyperpool.LocalProtocolError, lambda: client.post(server.url(), content=b"x", trailers=bad))
    raised(hyperpool.LocalProtocolError, lambda: client.post(server.url(), content=b"x", trailers=lambda: bad))
    assert server.connections_accepted == 0


def test_bad_trailers_of_a_callable_take_the_request_back(kit: Kit, wire: Wire) -> None:
    server, client = kit.pair(wire)
    for bad in ({"Host": "b"}, {"x": "\n"}):
        raised(
            hyperpool.LocalProtocolError,
            lambda bad=bad: client.post(server.url("/echo"), content=[b"body"], trailers=lambda: bad),
        )
    assert server.wait_until(lambda _: all(request.body_bytes in (0, 4) for request in server.requests), WAIT_S)
    assert not any(request.is_complete for request in server.requests)


def test_what_a_callable_raises_reaches_the_caller(kit: Kit, wire: Wire) -> None:
    server, client = kit.pair(wire)

    def trailers() -> Any:
        raise KeyError("mine")

    raised(KeyError, lambda: client.post(server.url("/echo"), content=[b"body"], trailers=trailers))
    raised(KeyError, lambda: client.post(server.url("/echo"), content=b"body", trailers=trailers))


def test_without_a_body_there_is_nothing_for_them_to_follow(kit: Kit) -> None:
    client = kit.client(H1_PLAIN)
    error = raised(hyperpool.LocalProtocolError, lambda: client.get("http://a.test/", trailers={"x": "1"}))
    assert "needs a body" in str(error)


def test_a_declared_length_leaves_no_room_for_them(kit: Kit) -> None:
    client = kit.client(H1_PLAIN)
    error = raised(
        hyperpool.LocalProtocolError,
        lambda: client.post("http://a.test/", content=b"x", headers={"Content-Length": "1"}, trailers={"x": "1"}),
    )
    assert "Content-Length" in str(error)
