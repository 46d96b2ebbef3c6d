"""Redirects: where they lead, what goes with them, what never does, and where they end."""

from __future__ import annotations

import gc
import gzip
import itertools
import json
import pickle
from collections.abc import Callable
from typing import Any

import pytest
from client_support import H1_PLAIN, H2_TLS, Kit, Wire, error_of, raised

import hyperpool
from hyperpool.handoff.exchange import PASSED_BODY_BYTES
from hyperpool.testing import Reply, Request, Silence, inline
from stage import WAIT_S, eventually


def told(request: Request) -> str:
    """What arrived, as JSON."""
    seen = {"method": request.method, "target": request.target, "headers": request.headers}
    return json.dumps({**seen, "body": request.read().decode()})


def to(location: str, status: int = 302, body: bytes = b"elsewhere") -> Reply:
    return Reply(status, (("location", location),), body)


def leading(routes: dict[str, Any]) -> Callable[[Request], Any]:
    """A handler: a Reply for each path that is named, and what arrived for all others."""

    def handle(request: Request) -> Any:
        answer = routes.get(request.target)
        if answer is not None:
            request.read()
        return told(request) if answer is None else answer

    return handle


def values(seen: Any, name: str) -> list[str]:
    return [value for key, value in seen["headers"] if key == name]


def by_get(client: Any, url: str, **options: Any) -> Any:
    return client.get(url, **options)


def by_submit(client: Any, url: str, **options: Any) -> Any:
    return client.submit("GET", url, **options).result(WAIT_S)


def by_stream(client: Any, url: str, **options: Any) -> Any:
    with client.stream("GET", url, **options) as response:
        response.read_text = response.read()
        return response


ways = pytest.mark.parametrize("way", [by_get, by_submit, by_stream], ids=lambda way: way.__name__)


@ways
def test_a_redirect_is_followed_and_the_response_tells_the_way(kit: Kit, wire: Wire, way: Any) -> None:
    routes = {"/a": to("/b", 301), "/b": to("c?d=1", 307)}
    server, client = kit.pair(wire, leading(routes))
    response = way(client, server.url("/a"))
    assert (response.status_code, response.url) == (200, server.url("/c?d=1"))
    assert [(one.status_code, one.url) for one in response.history] == [
        (301, server.url("/a")),
        (307, server.url("/b")),
    ]
    assert [len(one.history) for one in response.history] == [0, 1]


def test_each_hop_has_the_url_that_was_requested(kit: Kit) -> None:
    routes = {"/a%20b": to("/\u00fc x".encode().decode("latin-1"))}
    server = kit.server(H1_PLAIN, leading(routes))
    routes["/%C3%BC%20x"] = to(f"HTTP://me@LOCALHOST:{server.port}/C#d")
    response = kit.client(H1_PLAIN).get(server.url("/a b"))
    hops = [server.url("/a%20b"), server.url("/%C3%BC%20x"), f"http://localhost:{server.port}/C#d"]
    assert [one.url for one in (*response.history, response)] == hops
    assert [one.request.url for one in (*response.history, response)] == hops


METHODS = [
    (301, "GET", "GET"),
    (301, "POST", "GET"),
    (301, "PUT", "PUT"),
    (302, "POST", "GET"),
    (302, "HEAD", "HEAD"),
    (302, "DELETE", "DELETE"),
    (303, "POST", "GET"),
    (303, "PUT", "GET"),
    (303, "GET", "GET"),
    (303, "HEAD", "HEAD"),
    (307, "POST", "POST"),
    (308, "POST", "POST"),
    (308, "PATCH", "PATCH"),
]


@pytest.mark.parametrize(("status", "method", "then"), METHODS)
def test_the_method_changes_as_the_status_says(kit: Kit, status: int, method: str, then: str) -> None:
    server, client = kit.pair(handler=leading({"/a": to("/b", status)}))
    client.request(method, server.url("/a"))
    assert [request.method for request in server.requests] == [method, then]


def test_a_get_that_was_a_post_has_neither_its_body_nor_what_described_it(kit: Kit, wire: Wire) -> None:
    server, client = kit.pair(wire, leading({"/a": to("/b", 303)}))
    seen = client.post(server.url("/a"), json={"a": 1}, headers={"X-A": "1"}).json()
    assert (seen["method"], seen["body"], values(seen, "x-a")) == ("GET", "", ["1"])
    assert values(seen, "content-type") == values(seen, "content-length") == []


@pytest.mark.parametrize("status", [307, 308])
@pytest.mark.parametrize("stream", [False, True])
def test_307_and_308_send_the_body_again(kit: Kit, wire: Wire, status: int, stream: bool, tmp_path: Any) -> None:
    server, client = kit.pair(wire, leading({"/a": to("/b", status)}))
    path = tmp_path / "body"
    path.write_bytes(b"--from a file")
    with path.open("rb") as file:
        file.seek(2)
        for content, text in ((b"bytes", "bytes"), ([b"a ", b"list"], "a list"), (file, "from a file")):
            response = client.submit("POST", server.url("/a"), content=content, stream=stream).result(WAIT_S)
            seen = response.json()
            assert (seen["method"], seen["body"]) == ("POST", text)


@ways
def test_a_body_that_cannot_be_sent_twice_is_an_error_that_says_so(kit: Kit, wire: Wire, way: Any) -> None:
    server, client = kit.pair(wire, leading({"/a": to("/b", 307)}))
    with pytest.raises(hyperpool.LocalProtocolError, match="cannot be sent a second time") as caught:
        client.post(server.url("/a"), content=iter([b"once"]))
    assert (caught.value.processed, caught.value.origin) == ("maybe", server.origin)


FRAGMENTS = [("/a#one", "/b", "/b#one"), ("/a#one", "/b#two", "/b#two"), ("/a", "/b#two", "/b#two"), ("/a", "/b", "/b")]


@pytest.mark.parametrize(("asked", "location", "ends"), FRAGMENTS)
def test_a_fragment_is_inherited_unless_the_location_has_its_own(
    kit: Kit, asked: str, location: str, ends: str
) -> None:
    server, client = kit.pair(handler=leading({"/a": to(location)}))
    assert client.get(server.url(asked)).url == server.url(ends)


LOCATIONS = {
    "absolute path": ("/x/y", "/x/y"),
    "relative": ("y", "/d/y"),
    "dots": ("../z", "/z"),
    "query only": ("?q=1", "/d/a?q=1"),
    "a space": ("/x y", "/x%20y"),
    "UTF-8": ("/\u00e4", "/%C3%A4"),
}


@pytest.mark.parametrize("name", LOCATIONS)
def test_a_relative_location_is_resolved(kit: Kit, name: str) -> None:
    location, target = LOCATIONS[name]
    raw = location.encode().decode("latin-1")
    server, client = kit.pair(H1_PLAIN, leading({"/d/a": to(raw)}))
    assert client.get(server.url("/d/a")).json()["target"] == target


@ways
@pytest.mark.parametrize(
    "location",
    ["ftp://a.test/", "file:///etc/passwd", "javascript:alert(1)", "http://", "http://[::1/", "http://a.test:99999/",
     "//good.test\\@evil.test/", "/a\tb"],
)  # fmt: skip
def test_a_location_that_cannot_be_requested_is_an_error_of_the_server(kit: Kit, way: Any, location: str) -> None:
    server, client = kit.pair(handler=leading({"/a": to(location)}))
    error = raised(hyperpool.RemoteProtocolError, lambda: way(client, server.url("/a")))
    assert (error.processed, error.origin) == ("maybe", server.origin)
    assert "is not followed" in str(error)


@pytest.mark.parametrize(
    "reply", [Reply(302), Reply(302, (("location", ""),)), Reply(304), Reply(300, (("location", "/b"),))]
)
def test_a_response_that_leads_nowhere_is_the_response(kit: Kit, reply: Reply) -> None:
    server, client = kit.pair(handler=leading({"/a": reply}))
    assert client.get(server.url("/a")).status_code == reply.status
    assert len(server.requests) == 1


def test_redirects_are_shown_where_they_are_not_to_be_followed(kit: Kit) -> None:
    server = kit.server(handler=leading({"/a": to("/b")}))
    never, always = kit.client(follow_redirects=False), kit.client()
    assert never.get(server.url("/a")).status_code == 302
    assert never.get(server.url("/a"), follow_redirects=True).status_code == 200
    assert always.get(server.url("/a"), follow_redirects=False).headers["location"] == "/b"


@ways
@pytest.mark.parametrize("bound", [0, 1, 5])
def test_a_loop_ends_with_too_many_redirects_and_its_history(kit: Kit, way: Any, bound: int) -> None:
    server = kit.server(handler=leading({"/a": to("/a")}))
    client = kit.client(max_redirects=bound)
    error = raised(hyperpool.TooManyRedirects, lambda: way(client, server.url("/a")))
    assert len(error.history) == len(server.requests) == bound + 1
    assert [one.status_code for one in error.history] == [302] * (bound + 1)
    assert pickle.loads(pickle.dumps(error)).history == []
    assert error.own_copy().history == error.history


# -- other origins -----------------------------------------------------------------------------------------------------


@ways
@pytest.mark.parametrize("status", [302, 307])
def test_no_credentials_and_no_cookies_reach_another_origin(kit: Kit, wire: Wire, way: Any, status: int) -> None:
    other = kit.server(wire, told)
    server = kit.server(wire, leading({"/a": to(other.url("/b"), status)}))
    client = kit.client(wire, cookies={"client": "1"}, headers={"Proxy-Authorization": "Basic eDp5", "X-Kept": "1"})
    way(client, server.url("/a"), auth=("u", "p"), cookies={"call": "1"}, headers={"Host": "virtual.test"})
    first, second = server.requests[0].headers, other.requests[0].headers
    assert {"authorization", "proxy-authorization", "cookie"} <= {name for name, _ in first}
    assert not {"authorization", "proxy-authorization", "cookie"} & {name for name, _ in second}
    assert ("x-kept", "1") in second
    assert "virtual.test" not in json.dumps(second)


def test_the_way_back_from_a_stranger_brings_no_credentials_along(kit: Kit) -> None:
    other = kit.server(handler=inline(lambda request: to(f"{server.origin}/home")))
    server = kit.server(handler=leading({"/a": to(other.url("/b"))}))
    client = kit.client(cookies={"client": "1"})
    seen = client.get(server.url("/a"), auth=("u", "p"), cookies={"call": "1"}, headers={"X-A": "1"}).json()
    assert values(seen, "authorization") == values(seen, "cookie") == []
    assert values(seen, "x-a") == ["1"]


def test_what_an_auth_of_the_callers_adds_stays_with_the_origin(kit: Kit) -> None:
    import dataclasses

    def sign(request: hyperpool.Request) -> hyperpool.Request:
        return dataclasses.replace(request, headers=(*request.headers, ("X-Api-Key", "secret")))

    other = kit.server(handler=told)
    server = kit.server(handler=leading({"/a": to("/b"), "/b": to(other.url("/c"))}))
    seen = kit.client().get(server.url("/a"), auth=sign).json()
    assert values(seen, "x-api-key") == []
    assert [("x-api-key", "secret") in request.headers for request in server.requests] == [True, True]


def test_credentials_stay_on_the_way_within_one_origin(kit: Kit, wire: Wire) -> None:
    server, client = kit.pair(wire, leading({"/a": to("/b", 307)}))
    seen = client.post(server.url("/a"), auth=("u", "p"), cookies={"call": "1"}).json()
    assert values(seen, "authorization") == ["Basic dTpw"]
    assert values(seen, "cookie") == ["call=1"]


def test_a_user_in_a_location_is_nobodys(kit: Kit) -> None:
    server = kit.server(handler=told)
    server.route("/a")(lambda request: to(server.url("/b").replace("://", "://u:p@")))
    response = kit.client().get(server.url("/a"))
    assert values(response.json(), "authorization") == []
    assert response.url == server.url("/b")


def test_from_https_to_http_and_back_is_followed(kit: Kit) -> None:
    plain = kit.server(H1_PLAIN, told)
    secure = kit.server(handler=leading({"/a": to(plain.url("/b"))}))
    client = kit.client(http1=True, http2=True)
    seen = client.get(secure.url("/a"), auth=("u", "p")).json()
    assert (seen["target"], values(seen, "authorization")) == ("/b", [])


# -- bodies, time, cancelling ------------------------------------------------------------------------------------------


@ways
def test_the_body_of_a_redirect_is_never_decoded(kit: Kit, wire: Wire, way: Any) -> None:
    bomb = gzip.compress(bytes(1 << 20))
    reply = Reply(302, (("location", "/b"), ("content-encoding", "gzip")), bomb)
    server = kit.server(
        wire, leading({"/a": reply, "/c": Reply(302, (("location", "/b"), ("content-encoding", "gzip")), b"junk")})
    )
    client = kit.client(wire, limits=hyperpool.Limits(max_decoded_bytes=1000))
    assert way(client, server.url("/a")).status_code == 200
    assert way(client, server.url("/c")).status_code == 200


def test_the_body_of_a_redirect_can_still_be_read(kit: Kit) -> None:
    server, client = kit.pair(handler=leading({"/a": to("/b", body=b"moved")}))
    assert client.get(server.url("/a")).history[0].content == b"moved"


def test_an_endless_body_of_a_redirect_does_not_hold_up_a_stream(kit: Kit, wire: Wire) -> None:
    gate = kit.gate()

    def endless() -> Any:
        yield b"x"
        gate.wait(WAIT_S)

    server = kit.server(wire, leading({"/a": Reply(302, (("location", "/b"),), endless())}), errors_expected=True)
    with kit.client(wire).stream("GET", server.url("/a")) as response:
        assert json.loads(response.read())["target"] == "/b"


@ways
def test_the_end_of_a_long_body_of_a_redirect_is_not_waited_for(kit: Kit, wire: Wire, way: Any) -> None:
    endless = itertools.repeat(bytes(16 << 10))
    server = kit.server(wire, leading({"/a": Reply(302, (("location", "/b"),), endless)}), errors_expected=True)
    response = way(kit.client(wire), server.url("/a"))
    assert response.status_code == 200
    with pytest.raises(hyperpool.ResponseClosed):
        _ = response.history[0].content
    assert pickle.loads(pickle.dumps(response.history[0])).status_code == 302


@pytest.mark.parametrize("way", [by_get, by_submit])
def test_a_body_of_a_redirect_that_is_not_long_costs_no_connection(kit: Kit, wire: Wire, way: Any) -> None:
    body = bytes(PASSED_BODY_BYTES)
    server = kit.server(wire, leading({"/a": to("/b", body=body)}))
    client = kit.client(wire)
    assert way(client, server.url("/a")).history[0].content == body
    assert server.connections_accepted == 1


def test_a_long_body_behind_a_redirect_that_leads_nowhere_is_read(kit: Kit, wire: Wire) -> None:
    body = bytes(2 * PASSED_BODY_BYTES)
    server = kit.server(wire, lambda request: Reply(302, (("location", ""),), body))
    assert kit.client(wire).get(server.url("/a")).content == body
    assert kit.client(wire).get(server.url("/a"), follow_redirects=False).content == body


def test_with_too_many_redirects_the_last_one_is_let_go(kit: Kit, wire: Wire) -> None:
    endless = Reply(302, (("location", "/a"),), itertools.repeat(bytes(16 << 10)))
    server = kit.server(wire, lambda request: endless, errors_expected=True)
    client = kit.client(wire, max_redirects=0)
    error = raised(hyperpool.TooManyRedirects, lambda: client.get(server.url("/a")))
    assert error.history[0].closed
    assert eventually(lambda: client.pool.stats().open_streams == 0)


@ways
def test_the_total_timeout_spans_all_hops(kit: Kit, way: Any) -> None:
    server, client = kit.pair(handler=leading({"/a": to("/b"), "/b": Silence()}))
    timeout = hyperpool.Timeout(0.3, read=None)

    def ended_in_the_second() -> bool:
        error = raised(hyperpool.TotalTimeout, lambda: way(client, server.url("/a"), timeout=timeout))
        assert "Timeout.total=0.3 s" in str(error)
        return "1 redirects" in str(error)

    # On a busy machine the time may be over in the first hop.
    assert eventually(ended_in_the_second)


def test_cancel_reaches_the_hop_that_is_under_way(kit: Kit, wire: Wire) -> None:
    gone, arrived = kit.gate(), kit.gate()

    def slow(request: Request) -> Any:
        if request.path == "/a":
            return to("/slow")
        arrived.set()
        if request.wait_gone(WAIT_S):
            gone.set()
        return Silence()

    server, client = kit.pair(wire, slow)
    future = client.submit("GET", server.url("/a"))
    assert arrived.wait(WAIT_S)
    assert future.cancel()
    assert gone.wait(WAIT_S)
    assert eventually(lambda: future._state == "CANCELLED_AND_NOTIFIED")


def test_closing_the_client_ends_a_request_in_the_middle_of_its_way(kit: Kit) -> None:
    server, client = kit.pair(handler=leading({"/a": to("/b"), "/b": Silence()}))
    future = client.submit("GET", server.url("/a"))
    assert eventually(lambda: len(server.requests) == 2)
    client.close(grace_s=0)
    error_of(future, hyperpool.PoolClosed)


def test_a_done_callback_after_a_redirect_must_not_block_either(kit: Kit) -> None:
    server, client = kit.pair(handler=leading({"/a": to("/b")}))
    seen: list[BaseException] = []
    told_about = kit.gate()

    def wait_for_another(_: Any) -> None:
        try:
            client.get(server.url("/c"))
        except RuntimeError as error:
            seen.append(error)
        told_about.set()

    future = client.submit("GET", server.url("/a"))
    future.add_done_callback(wait_for_another)
    assert future.result(WAIT_S).status_code == 200
    assert told_about.wait(WAIT_S)
    # Where the callback was added too late it ran here, and was allowed to wait.
    assert all("block an I/O thread" in str(error) for error in seen)


def walkers() -> set[int]:
    return {id(one) for one in gc.get_objects() if type(one).__name__ in ("Escort", "Journey")}


def test_a_future_that_is_kept_keeps_no_response_of_the_way_but_its_own(kit: Kit) -> None:
    server, client = kit.pair(handler=leading({"/a": to("/b")}))
    gc.collect()
    before = walkers()  # those that errors of earlier tests still hold
    future = client.submit("GET", server.url("/a"), stream=True)
    response = future.result(WAIT_S)
    response.close()
    # Collected: without a GIL what another thread has made is else freed when that runs again.
    assert eventually(lambda: gc.collect() >= 0 and walkers() <= before)
    assert future.result() is response


def test_map_follows_redirects(kit: Kit) -> None:
    server, client = kit.pair(handler=leading({"/a": to("/b")}))
    urls = [server.url("/a")] * 20
    assert [one.status_code for one in client.map(urls, max_in_flight=5)] == [200] * 20


@pytest.mark.parametrize("way", [by_get, by_submit], ids=lambda way: way.__name__)
def test_32_threads_follow_redirects_at_once(kit: Kit, wire: Wire, way: Any) -> None:
    @inline
    def chain(request: Request) -> Any:
        n, _, left = request.path[1:].partition("/")
        return to(f"/{n}/{int(left) - 1}", 302) if int(left) else f"{n}"

    server, client = kit.pair(wire, chain)
    with kit.threads(32) as threads:
        done = list(threads.map(lambda n: way(client, server.url(f"/{n}/4")), range(256)))
    assert [int(one.text) for one in done] == list(range(256))
    assert {len(one.history) for one in done} == {4}
    assert len(server.requests) == 256 * 5


def test_a_request_without_redirect_starts_no_further_thread(kit: Kit) -> None:
    import threading

    server, client = kit.pair(H2_TLS, leading({}), retries=3)
    assert client.submit("GET", server.url("/b")).result(WAIT_S).history == []
    assert not [one for one in threading.enumerate() if one.name == "hyperpool courier"]
