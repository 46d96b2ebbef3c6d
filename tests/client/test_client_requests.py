"""What callers write and what arrives: URLs, parameters, headers, forms, JSON, verbs, and the module's functions."""

from __future__ import annotations

import inspect
import io
import ipaddress
import json
import threading
from collections.abc import Iterator
from concurrent.futures import wait
from typing import Any

import pytest
from client_support import H1_PLAIN, H2_TLS, Kit, Wire, raised

import hyperpool
from hyperpool.policy import flights
from hyperpool.testing import Reply, Request, inline, pattern
from stage import WAIT_S, eventually


@inline
def mirror(request: Request) -> str:
    """The request's head as JSON."""
    return json.dumps({"method": request.method, "target": request.target, "headers": request.headers})


def echo_head(request: Request) -> str:
    """Head and body as JSON."""
    body = request.read().decode()
    return json.dumps({"method": request.method, "target": request.target, "headers": request.headers, "body": body})


def sent(kit: Kit, wire: Wire, method: str = "GET", path: str = "/", **options: Any) -> Any:
    server, client = kit.pair(wire, echo_head)
    return client.request(method, server.url(path), **options).json()


def values(seen: Any, name: str) -> list[str]:
    return [value for key, value in seen["headers"] if key == name]


VERBS = ["get", "options", "post", "put", "patch", "delete", "query"]


@pytest.mark.parametrize("verb", VERBS)
def test_each_verb_sends_its_method(kit: Kit, wire: Wire, verb: str) -> None:
    server, client = kit.pair(wire, mirror)
    assert getattr(client, verb)(server.url("/x")).json()["method"] == verb.upper()


def test_head_has_no_body_but_the_headers_of_a_get(kit: Kit, wire: Wire) -> None:
    server, client = kit.pair(wire)
    response = client.head(server.url("/bytes/1000"))
    assert (response.content, response.headers["content-length"]) == (b"", "1000")
    assert client.get(server.url("/bytes/5")).content == pattern(5)


def test_a_method_in_lower_case_is_sent_in_upper_case_and_an_unknown_one_is_sent_at_all(kit: Kit, wire: Wire) -> None:
    server, client = kit.pair(wire, mirror)
    assert client.request("get", server.url()).json()["method"] == "GET"
    assert client.request("PURGE", server.url()).json()["method"] == "PURGE"


PARAMS: dict[str, tuple[Any, str]] = {
    "mapping": ({"a": 1, "b": "x y"}, "a=1&b=x+y"),
    "pairs": ([("a", 1), ("a", 2)], "a=1&a=2"),
    "list value": ({"a": [1, 2]}, "a=1&a=2"),
    "str": ("a=1&b", "a=1&b"),
    "None value": ({"a": None, "b": 1}, "b=1"),
    "None in a list": ({"a": [None, 1]}, "a=1"),
    "tuple value": ([("a", (1, 2))], "a=1&a=2"),
    "set value": ({"a": {1}}, "a=1"),
    "range value": ({"a": range(2)}, "a=0&a=1"),
    "bytes value": ({"a": b"x y"}, "a=x+y"),
    "mapping value": ({"a": {"b": 1}}, "a=%7B%27b%27%3A+1%7D"),
    "bytes": (b"a=1&b", "a=1&b"),
    "bytes to be encoded": (b"a=%20 \xe4\r\n", "a=%20%20%E4%0D%0A"),
    "dict view": ({"a": 1}.items(), "a=1"),
    "special characters": ({"a&b": "c=d#e?f"}, "a%26b=c%3Dd%23e%3Ff"),
    "not ASCII": ({"ä": "☃"}, "%C3%A4=%E2%98%83"),
    "line ends": ({"a": "b\r\nc"}, "a=b%0D%0Ac"),
    "empty": ({}, ""),
    "None": (None, ""),
}


@pytest.mark.parametrize("name", PARAMS)
def test_params_become_the_query(kit: Kit, plain_wire: Wire, name: str) -> None:
    params, query = PARAMS[name]
    assert sent(kit, plain_wire, path="/p", params=params)["target"] == ("/p?" + query if query else "/p")


def test_params_are_added_to_the_query_of_the_url_and_before_its_fragment(kit: Kit) -> None:
    assert sent(kit, H2_TLS, path="/p?a=1#f", params={"b": 2})["target"] == "/p?a=1&b=2"


def test_params_of_the_client_go_with_each_call_which_may_replace_them_by_name(kit: Kit) -> None:
    server, client = kit.pair(handler=mirror, params={"key": "k", "lang": "de"})
    assert client.get(server.url("/p")).json()["target"] == "/p?key=k&lang=de"
    assert client.get(server.url("/p"), params={"page": 2}).json()["target"] == "/p?key=k&lang=de&page=2"
    assert client.get(server.url("/p"), params={"lang": "fr"}).json()["target"] == "/p?key=k&lang=fr"
    assert client.get(server.url("/p?q=1")).json()["target"] == "/p?q=1&key=k&lang=de"


def test_params_of_a_call_that_are_none_remove_those_of_the_client(kit: Kit) -> None:
    server, client = kit.pair(handler=mirror, params={"key": "k", "lang": "de"})
    assert client.get(server.url("/p"), params={"lang": None}).json()["target"] == "/p?key=k"
    assert client.get(server.url("/p"), params=[("key", None), ("lang", "fr")]).json()["target"] == "/p?lang=fr"


def test_params_may_be_an_iterator_or_have_one_as_a_value(kit: Kit) -> None:
    server, client = kit.pair(handler=mirror)
    assert client.get(server.url("/p"), params=iter([("a", 1), ("b", 2)])).json()["target"] == "/p?a=1&b=2"
    assert client.get(server.url("/p"), params={"a": (n for n in (1, None, 2))}).json()["target"] == "/p?a=1&a=2"


def test_what_can_be_iterated_over_is_not_several_values_for_that(kit: Kit) -> None:
    server, client = kit.pair(handler=echo_head)
    network = ipaddress.ip_network("10.0.0.0/29")
    assert client.get(server.url("/p"), params={"net": network}).json()["target"] == "/p?net=10.0.0.0%2F29"
    form = client.post(server.url("/p"), data={"a": bytearray(b"xy")}, files={"b": (None, "z")}).json()
    assert form["body"].count('name="a"') == 1


def test_an_iterator_among_the_params_of_a_client_serves_every_request(kit: Kit) -> None:
    server, client = kit.pair(handler=mirror, params=iter([("a", 1)]))
    assert [client.get(server.url("/p")).json()["target"] for _ in range(2)] == ["/p?a=1"] * 2
    client.params = {"b": iter([1, 2])}
    assert [client.get(server.url("/p")).json()["target"] for _ in range(2)] == ["/p?b=1&b=2"] * 2


def test_params_of_a_client_are_its_callers_own_object(kit: Kit) -> None:
    server, client = kit.pair(handler=mirror, params={"a": 1})
    client.params["b"] = 2
    assert client.get(server.url("/p")).json()["target"] == "/p?a=1&b=2"
    for given, target in ((b"c=3", "/p?c=3&d=4"), ("c=3", "/p?c=3&d=4"), (None, "/p?d=4")):
        client.params = given
        assert client.params is given
        assert client.get(server.url("/p"), params={"d": 4}).json()["target"] == target


def test_headers_of_a_call_replace_those_of_the_client_by_name_and_none_removes_one(kit: Kit) -> None:
    server, client = kit.pair(handler=mirror, headers={"X-A": "client", "X-B": "client", "User-Agent": "mine"})
    seen = client.get(server.url(), headers={"x-a": "call", "X-B": None, "Accept": None}).json()
    assert (values(seen, "x-a"), values(seen, "x-b"), values(seen, "user-agent")) == (["call"], [], ["mine"])
    assert values(seen, "accept") == []
    again = client.get(server.url()).json()
    assert (values(again, "x-a"), values(again, "x-b"), values(again, "accept")) == (["client"], ["client"], ["*/*"])


def test_default_headers_say_who_we_are_and_what_can_be_decoded(kit: Kit, wire: Wire) -> None:
    seen = sent(kit, wire)
    assert values(seen, "user-agent") == [f"hyperpool/{hyperpool.__version__}"]
    assert values(seen, "accept") == ["*/*"]
    assert {"gzip", "deflate"} <= set(values(seen, "accept-encoding")[0].split(", "))


def test_repeated_headers_are_kept_in_their_order(kit: Kit, wire: Wire) -> None:
    seen = sent(kit, wire, headers=[("X-A", "1"), ("X-B", "2"), ("X-A", "3")])
    assert values(seen, "x-a") == ["1", "3"]


@pytest.mark.parametrize("value", [5, b"5", "5"], ids=repr)
def test_header_values_may_be_str_bytes_or_int(kit: Kit, value: Any) -> None:
    assert values(sent(kit, H2_TLS, headers={b"X-A": value}), "x-a") == ["5"]


def test_a_host_header_replaces_the_authority(kit: Kit, wire: Wire) -> None:
    server, client = kit.pair(wire, mirror)
    client.get(server.url(), headers={"Host": "virtual.test"})
    assert server.requests[0].authority == "virtual.test"


BODIES: dict[str, tuple[dict[str, Any], str, str | None]] = {
    "json object": ({"json": {"a": [1, None, "ä"]}}, '{"a":[1,null,"\\u00e4"]}', "application/json"),
    "json falsy": ({"json": 0}, "0", "application/json"),
    "form": ({"data": {"a": 1, "b": "x y"}}, "a=1&b=x+y", "application/x-www-form-urlencoded"),
    "form pairs": ({"data": [("a", 1), ("a", 2)]}, "a=1&a=2", "application/x-www-form-urlencoded"),
    "form lists": ({"data": {"a": [1, 2]}}, "a=1&a=2", "application/x-www-form-urlencoded"),
    "form None": ({"data": {"a": None, "b": "1"}}, "b=1", "application/x-www-form-urlencoded"),
    "form None in a list": ({"data": {"a": [None, 1]}}, "a=1", "application/x-www-form-urlencoded"),
    "form generator": ({"data": {"a": range(2)}}, "a=0&a=1", "application/x-www-form-urlencoded"),
    "json beside no form": ({"json": {}, "data": {}}, "{}", "application/json"),
    "json beside an empty list": ({"json": 0, "data": []}, "0", "application/json"),
    "json beside no data": ({"json": 0, "data": b""}, "0", "application/json"),
    "data bytes": ({"data": b"raw"}, "raw", None),
    "data str": ({"data": "raw"}, "raw", None),
    "data iterable": ({"data": [b"r", b"aw"]}, "raw", None),
    "content": ({"content": b"raw"}, "raw", None),
    "nothing": ({}, "", None),
}


@pytest.mark.parametrize("name", BODIES)
def test_a_body_is_sent_with_the_type_that_it_has(kit: Kit, plain_wire: Wire, name: str) -> None:
    options, body, content_type = BODIES[name]
    seen = sent(kit, plain_wire, "POST", **options)
    assert seen["body"] == body
    assert values(seen, "content-type") == ([content_type] if content_type else [])


def test_a_content_type_that_is_given_is_kept(kit: Kit) -> None:
    seen = sent(kit, H2_TLS, "POST", json={}, headers={"content-type": "application/ld+json"})
    assert values(seen, "content-type") == ["application/ld+json"]


@pytest.mark.parametrize("two", [("content", "data"), ("content", "json"), ("data", "json")], ids="+".join)
def test_two_bodies_at_once_are_refused(kit: Kit, two: tuple[str, str]) -> None:
    server, client = kit.pair()
    with pytest.raises(hyperpool.LocalProtocolError, match="one of"):
        client.submit("POST", server.url(), **dict.fromkeys(two, b"x"))
    assert server.connections_accepted == 0


def test_json_that_is_none_is_refused_before_anything_is_sent(kit: Kit) -> None:
    server, client = kit.pair()
    raised(ValueError, lambda: client.submit("POST", server.url(), json=float("nan")))
    raised(TypeError, lambda: client.submit("POST", server.url(), json=object()))
    assert server.connections_accepted == 0


BASES: dict[str, tuple[str, str, str]] = {
    "path": ("", "/x", "/x"),
    "no slash": ("", "x", "/x"),
    "base with a path": ("/api/v1", "x", "/api/v1/x"),
    "both slashes": ("/api/", "/x", "/api/x"),
    "empty": ("/api", "", "/api/"),
    "a URL within the query": ("/api", "/login?next=https://other.test/", "/api/login?next=https://other.test/"),
    "a colon in the path": ("/api", "/a:b://c", "/api/a:b://c"),
}


@pytest.mark.parametrize("name", BASES)
def test_a_relative_url_is_put_behind_the_base_url(kit: Kit, name: str) -> None:
    base, given, target = BASES[name]
    server = kit.server(handler=mirror)
    client = kit.client(base_url=server.origin + base)
    assert client.get(given).json()["target"] == target


def test_an_absolute_url_leaves_the_base_url_aside(kit: Kit) -> None:
    server, other = kit.server(handler=mirror), kit.server(handler=mirror)
    client = kit.client(base_url=server.origin)
    assert client.get(other.url("/x")).json()["target"] == "/x"
    assert len(other.requests) == 1 and server.requests == []


def test_a_request_keeps_what_was_asked_for(kit: Kit) -> None:
    server, client = kit.pair()
    response = client.post(server.url("/echo"), content=b"x", params={"a": 1})
    assert (response.request.method, response.request.url) == ("POST", server.url("/echo?a=1"))
    assert response.url == server.url("/echo?a=1")


WIRED = {
    "path": ("/\u2603 x", "/%E2%98%83%20x"),
    "query": ("/x?\u00e4", "/x?%C3%A4"),
    "as it stands": ("/x%2Fy?a=b#f", "/x%2Fy?a=b#f"),
    "no path": ("", ""),
}


@pytest.mark.parametrize("name", WIRED)
def test_the_url_of_a_response_is_the_one_that_was_requested(kit: Kit, plain_wire: Wire, name: str) -> None:
    given, expected = WIRED[name]
    server, client = kit.pair(plain_wire, mirror)
    response = client.get(f"{server.origin}{given}")
    assert response.url == response.request.url == f"{server.origin}{expected}"


def test_no_user_and_no_capital_letter_is_left_in_the_url_of_a_response(kit: Kit) -> None:
    server, client = kit.pair(H1_PLAIN, mirror)
    response = client.get(f"HTTP://me:secret@LOCALHOST:{server.port}/X")
    assert response.url == response.request.url == f"http://localhost:{server.port}/X"


# -- one pool, two clients -------------------------------------------------------------------------------------------


def test_two_clients_share_the_connections_of_one_pool(kit: Kit) -> None:
    server = kit.server(handler=mirror)
    pool = kit.pool()
    one = kit.client(pool=pool, headers={"X-Who": "one"})
    two = kit.client(pool=pool, headers={"X-Who": "two"})
    assert values(one.get(server.url()).json(), "x-who") == ["one"]
    assert values(two.get(server.url()).json(), "x-who") == ["two"]
    assert server.connections_accepted == 1
    one.close()
    assert two.get(server.url()).status_code == 200, "a shared pool outlives each of its clients"
    assert not pool.closed


@pytest.mark.parametrize(
    "options",
    [
        {"verify": False},
        {"cert": "x"},
        {"limits": hyperpool.Limits()},
        {"http1": False},
        {"http2": False},
        {"trust_env": False},
    ],
    ids=lambda options: next(iter(options)),
)
def test_what_belongs_to_the_pool_cannot_be_given_to_a_client_that_shares_one(kit: Kit, options: Any) -> None:
    raised(ValueError, lambda: hyperpool.Client(pool=kit.pool(), **options))


def test_a_client_that_may_speak_nothing_is_refused() -> None:
    raised(ValueError, lambda: hyperpool.Client(http1=False, http2=False))


# -- the module's functions ------------------------------------------------------------------------------------------


@pytest.fixture
def default_client() -> Iterator[None]:
    yield
    hyperpool.default_client().close()


@pytest.mark.usefixtures("default_client")
def test_the_modules_functions_use_one_default_client(kit: Kit) -> None:
    server = kit.server(H1_PLAIN, echo_head)
    for verb in VERBS:
        assert getattr(hyperpool, verb)(server.url("/x")).json()["method"] == verb.upper()
    assert hyperpool.head(server.url()).content == b""
    assert hyperpool.request("PURGE", server.url()).json()["method"] == "PURGE"
    assert hyperpool.submit("GET", server.url()).result(WAIT_S).status_code == 200
    with hyperpool.stream("GET", server.url()) as response:
        assert json.loads(response.read())["method"] == "GET"
    assert [response.status_code for response in hyperpool.map([server.url()] * 3)] == [200] * 3
    assert server.connections_accepted <= 3
    assert len(hyperpool.default_client().pool.stats().origins) == 1


@pytest.mark.usefixtures("default_client")
def test_threads_that_ask_for_the_default_client_at_once_get_the_same_one(kit: Kit) -> None:
    barrier = threading.Barrier(16, timeout=WAIT_S)
    threads = kit.threads(16)
    got = [threads.submit(lambda: (barrier.wait(), hyperpool.default_client())[1]) for _ in range(16)]
    assert len({id(future.result(WAIT_S)) for future in got}) == 1


@pytest.mark.usefixtures("default_client")
def test_the_default_client_is_made_anew_after_it_was_closed(kit: Kit) -> None:
    server = kit.server(H1_PLAIN)
    first = hyperpool.default_client()
    assert hyperpool.get(server.url("/bytes/1")).status_code == 200
    first.close()
    assert hyperpool.get(server.url("/bytes/1")).status_code == 200
    assert hyperpool.default_client() is not first


@pytest.mark.parametrize("name", [*VERBS, "head", "request", "submit", "stream", "map", "download", "upload"])
def test_each_module_function_is_documented_and_typed_like_its_twin(name: str) -> None:
    function, method = getattr(hyperpool, name), getattr(hyperpool.Client, name)
    assert function.__doc__ and method.__doc__
    wanted = [one for one in inspect.signature(method).parameters if one != "self"]
    taken = inspect.signature(function).parameters
    assert wanted[0] in taken
    assert any(one.kind is one.VAR_KEYWORD for one in taken.values()) or set(wanted) <= set(taken)


# -- map -------------------------------------------------------------------------------------------------------------


def test_map_gives_all_responses_in_order_of_input_where_ordered(kit: Kit, wire: Wire) -> None:
    server, client = kit.pair(wire)
    urls = [server.url(f"/bytes/{n}") for n in range(250)]
    assert [len(response.content) for response in client.map(urls, ordered=True)] == list(range(250))


def test_map_gives_responses_as_they_are_completed_otherwise(kit: Kit, wire: Wire) -> None:
    gate = kit.gate()
    server, client = kit.pair(wire)
    server.route("/gated")(lambda request: (gate.wait(WAIT_S), "late")[1])
    responses = client.map([server.url("/gated"), *[server.url(f"/bytes/{n}") for n in range(5)]])
    first = [len(next(responses).content) for _ in range(5)]
    gate.set()
    assert sorted(first) == list(range(5))
    assert next(responses).text == "late"
    assert list(responses) == []


@pytest.mark.parametrize("ordered", [False, True], ids=["unordered", "ordered"])
@pytest.mark.parametrize("max_in_flight", [1, 7, 100])
def test_map_reads_its_input_only_as_slots_come_free(kit: Kit, ordered: bool, max_in_flight: int) -> None:
    server, client = kit.pair()
    taken = 0

    def urls() -> Iterator[str]:
        nonlocal taken
        for n in range(300):
            taken += 1
            yield server.url(f"/bytes/{n}")

    given = 0
    for response in client.map(urls(), max_in_flight=max_in_flight, ordered=ordered):
        assert taken - given <= max_in_flight
        assert response.status_code == 200
        given += 1
    assert (given, taken) == (300, 300)


def test_map_takes_urls_and_tuples_with_options_of_their_own(kit: Kit) -> None:
    server, client = kit.pair(handler=echo_head)
    entries = [server.url("/a"), ("POST", server.url("/b"), {"content": b"x"}), ("DELETE", server.url("/c"))]
    seen = [response.json() for response in client.map(entries, ordered=True, headers={"X-All": "y"})]
    assert [(one["method"], one["target"], one["body"]) for one in seen] == [
        ("GET", "/a", ""),
        ("POST", "/b", "x"),
        ("DELETE", "/c", ""),
    ]
    assert [values(one, "x-all") for one in seen] == [["y"]] * 3


@pytest.mark.parametrize("ordered", [False, True], ids=["unordered", "ordered"])
def test_map_raises_the_error_of_a_request_and_cancels_the_others(kit: Kit, h2_wire: Wire, ordered: bool) -> None:
    server, client = kit.pair(h2_wire)
    urls = [server.url("/fault/reset"), *[server.url("/fault/silence")] * 5]
    raised(hyperpool.StreamReset, lambda: list(client.map(urls, ordered=ordered)))
    assert server.wait_until(lambda server: all(one.reset_code == 8 for one in server.requests[1:]), WAIT_S)
    assert client.get(server.url("/bytes/1")).status_code == 200


@pytest.mark.parametrize("order", [flights.in_order, flights.as_completed])
def test_leaving_map_early_closes_streamed_responses_that_nobody_took(kit: Kit, wire: Wire, order: Any) -> None:
    """Their streams come back, and nobody is blamed for having forgotten them."""
    server, client = kit.pair(wire)
    futures = [client.submit("GET", server.url("/bytes/1000000"), stream=True) for _ in range(3)]
    assert not wait(futures, WAIT_S).not_done
    responses = order(iter(futures), 10)
    with next(responses) as taken:
        responses.close()
        others = [future.result(0) for future in futures if future.result(0) is not taken]
        assert [each.closed for each in (taken, *others)] == [False, True, True]


@pytest.mark.parametrize("ordered", [False, True], ids=["unordered", "ordered"])
def test_leaving_map_early_cancels_what_is_under_way(kit: Kit, h2_wire: Wire, ordered: bool) -> None:
    server, client = kit.pair(h2_wire)
    urls = [server.url("/bytes/1"), *[server.url("/fault/silence")] * 5]
    responses = client.map(urls, ordered=ordered, max_in_flight=6)
    assert next(responses).content == pattern(1)
    responses.close()
    assert server.wait_until(
        lambda server: [one.reset_code for one in server.requests[1:]] == [8] * (len(server.requests) - 1), WAIT_S
    )
    assert eventually(lambda: client.pool.stats().open_streams == client.pool.stats().queued == 0)


@pytest.mark.parametrize("ordered", [False, True], ids=["unordered", "ordered"])
def test_an_exception_of_maps_input_is_raised_and_cancels_what_is_under_way(
    kit: Kit, h2_wire: Wire, ordered: bool
) -> None:
    server, client = kit.pair(h2_wire)

    def urls() -> Iterator[str]:
        yield server.url("/fault/silence")
        assert server.wait_until(lambda server: len(server.requests) == 1, WAIT_S)
        raise ZeroDivisionError

    raised(ZeroDivisionError, lambda: list(client.map(urls(), ordered=ordered)))
    assert server.wait_until(lambda server: server.requests[0].reset_code == 8, WAIT_S)


def test_map_of_nothing_is_nothing_and_a_bad_bound_is_refused_at_once(kit: Kit) -> None:
    client = kit.client()
    assert list(client.map([])) == []
    raised(ValueError, lambda: client.map([], max_in_flight=0))


UNKNOWN = [
    ("verify", "as in Client(verify=...)"),
    ("cert", "as in Client(cert=...)"),
    ("http2", "as in Client(http2=...)"),
    ("proxy", "as in Client(proxy=...)"),
    ("proxies", "as in Client(proxy=...)"),
    ("allow_redirects", "it is follow_redirects here"),
    ("no_such", "see Client.submit"),
]
CALLS: dict[str, Any] = {
    "Client.request()": [
        lambda client, url, **options: client.request("GET", url, **options),
        lambda client, url, **options: client.get(url, **options),
        lambda client, url, **options: client.upload(url, io.BytesIO(b"x"), **options),
        lambda client, url, **options: hyperpool.get(url, **options),
    ],
    "Client.stream()": [lambda client, url, **options: client.stream("GET", url, **options).__enter__()],
    "Client.map()": [lambda client, url, **options: list(client.map([url], **options))],
}


@pytest.mark.parametrize(("option", "advice"), UNKNOWN)
def test_an_unknown_option_is_named_with_the_call_and_where_it_belongs(kit: Kit, option: str, advice: str) -> None:
    client = kit.client()
    for call, ways in CALLS.items():
        for way in ways:
            text = str(raised(TypeError, lambda way=way: way(client, "https://localhost:1/", **{option: None})))
            assert text.startswith(f"{call} has no option {option!r}: ")
            assert advice in text


def test_a_type_error_of_what_was_given_stays_what_it_is(kit: Kit) -> None:
    client = kit.client()

    def auth(request: Any) -> Any:
        raise TypeError("mine")

    for call in (client.get, lambda url, **options: list(client.map([url], **options))):
        assert str(raised(TypeError, lambda call=call: call("https://localhost:1/", auth=auth))) == "mine"
    raised(TypeError, lambda: client.post("https://localhost:1/", json=object()))


@pytest.mark.parametrize("one", ["https://localhost/", b"https://localhost/"], ids=["str", "bytes"])
def test_map_of_one_url_in_place_of_many_is_refused_at_once(kit: Kit, one: Any) -> None:
    assert "give a list" in str(raised(TypeError, lambda: kit.client().map(one)))


@pytest.mark.parametrize(
    ("entry", "shown"),
    [
        (5, "5"),
        (None, "None"),
        ({"url": "/x", "headers": {"X-Key": "secret"}}, "'url': '/x'"),
        (("GET",), "('GET',)"),
        (("GET", "/x", {"a": 1}, 4), "('GET', '/x', {...}, 4)"),
        (("GET", "/x", 4), "('GET', '/x', 4)"),
    ],
    ids=repr,
)
def test_an_entry_of_map_that_has_a_wrong_shape_is_named(kit: Kit, entry: Any, shown: str) -> None:
    text = str(raised(TypeError, lambda: list(kit.client().map([entry]))))
    assert "(method, url, options)" in text
    assert shown in text
    assert "secret" not in text


def test_eight_threads_each_map_over_one_client(kit: Kit) -> None:
    server, client = kit.pair()
    threads = kit.threads(8)

    def one(thread: int) -> int:
        urls = (server.url(f"/bytes/{n + thread}") for n in range(100))
        return sum(len(response.content) for response in client.map(urls, max_in_flight=10))

    done = [threads.submit(one, n) for n in range(8)]
    assert [future.result(WAIT_S) for future in done] == [sum(range(n, n + 100)) for n in range(8)]
    assert server.connections_accepted == 1


def test_a_reply_without_a_handlers_headers_is_still_a_response(kit: Kit, wire: Wire) -> None:
    server, client = kit.pair(wire, lambda request: Reply(599))
    response = client.get(server.url())
    assert (response.status_code, response.content, response.ok) == (599, b"", False)
