"""hyper's connections: requests, their ids, their bodies, and the responses that belong to them."""

from __future__ import annotations

import io
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest
from hyper_support import H1, H1_PLAIN, H2, H2C, H11, H20, PRIOR, Bench, Way
from hyperframe.frame import HeadersFrame

from hyperpool import InvalidURL, LocalProtocolError
from hyperpool.connection import HTTP11Connection, HTTP20Connection, HTTPConnection
from hyperpool.connection_errors import NoSuchStream, StreamResetError
from hyperpool.connection_messages import HTTPVersion
from hyperpool.headers import HTTPHeaderMap
from hyperpool.testing import Reply, ScriptedConnection, pattern
from stage import WAIT_S, eventually, in_time, opened


def sent_headers(connection: Any, headers: Any) -> list[list[str]]:
    connection.request("GET", "/headers", headers=headers)
    return json.loads(connection.get_response().read())


def echoed(connection: Any, body: Any, **headers: str) -> bytes:
    connection.request("POST", "/echo", body=body, headers=headers)
    return connection.get_response().read()


# -- ids and responses -------------------------------------------------------------------------------------------------


def test_a_request_is_answered(bench: Bench, way: Way) -> None:
    _, connection = bench.pair(way)
    connection.request("GET", "/bytes/100")
    response = connection.get_response()
    assert (response.status, response.read()) == (200, pattern(100))


def test_getresponse_is_another_name_for_it(bench: Bench, way: Way) -> None:
    _, connection = bench.pair(way)
    connection.request("GET", "/bytes/1")
    assert connection.getresponse().status == 200


def test_requests_get_ids_over_http2_and_none_over_http1(bench: Bench, way: Way) -> None:
    _, connection = bench.pair(way)
    ids = []
    for _ in range(3):
        ids.append(connection.request("GET", "/bytes/1"))
        connection.get_response().read()
    assert ids == ([None, 3, 5] if way is H2C else [1, 3, 5] if way.http2 else [None] * 3)


def test_ids_are_those_of_the_wire(bench: Bench) -> None:
    server, connection = bench.pair(H2)
    ids = [connection.request("GET", "/bytes/1") for _ in range(5)]
    for stream_id in ids:
        connection.get_response(stream_id).read()
    assert [request.stream_id for request in server.requests] == ids


def test_responses_can_be_taken_in_any_order(bench: Bench, h2_way: Way) -> None:
    _, connection = bench.pair(h2_way)
    connection.request("GET", "/bytes/1")
    connection.get_response().read()
    ids = {n: connection.request("GET", f"/bytes/{n}") for n in range(2, 8)}
    for n in reversed(ids):
        assert connection.get_response(ids[n]).read() == pattern(n)


def test_without_an_id_the_oldest_response_comes(bench: Bench, way: Way) -> None:
    _, connection = bench.pair(way)
    for n in (5, 6, 7):
        connection.request("GET", f"/bytes/{n}")
    assert [len(connection.get_response().read()) for _ in range(3)] == [5, 6, 7]


def test_ids_are_ignored_over_http1(bench: Bench, h1_way: Way) -> None:
    _, connection = bench.pair(h1_way)
    connection.request("GET", "/bytes/1")
    connection.get_response(1).read()  # from now on it is known to be HTTP/1.1
    assert [connection.request("GET", "/bytes/5"), connection.request("GET", "/bytes/6")] == [None, None]
    assert [len(connection.get_response(given).read()) for given in (3, 17)] == [5, 6]


def test_an_id_that_was_never_given_is_an_error_at_once(bench: Bench, h2_way: Way) -> None:
    _, connection = bench.pair(h2_way)
    connection.request("GET", "/bytes/1")
    connection.get_response().read()
    with pytest.raises(NoSuchStream, match="stream id 99") as caught:
        connection.get_response(99)
    assert isinstance(caught.value, StreamResetError)


def test_a_response_is_taken_once(bench: Bench, h2_way: Way) -> None:
    _, connection = bench.pair(h2_way)
    connection.request("GET", "/bytes/1")
    connection.get_response().read()
    stream_id = connection.request("GET", "/bytes/1")
    connection.get_response(stream_id).read()
    with pytest.raises(NoSuchStream):
        connection.get_response(stream_id)


def test_to_ask_for_a_response_before_a_request_is_an_error_at_once(bench: Bench, way: Way) -> None:
    _, connection = bench.pair(way)
    with pytest.raises(NoSuchStream, match="no request"):
        connection.get_response()


def test_after_an_upgrade_the_first_request_owns_id_1(bench: Bench) -> None:
    _, connection = bench.pair(H2C)
    assert connection.request("GET", "/bytes/1") is None
    assert connection.get_response().stream_id == 1


@pytest.mark.parametrize("answers", ["before", "between", "after"])
@pytest.mark.parametrize("order", [("GET", "POST", "GET"), ("POST", "GET", "GET")], ids="-".join)
def test_ids_belong_to_their_responses_whenever_an_upgrade_is_answered(
    bench: Bench, order: tuple[str, ...], answers: str
) -> None:
    """The first three requests of a connection, whose first answer comes early or late."""
    gate = bench.gate()

    def handler(request: Any) -> Reply:
        if request.path == "/0":
            opened(gate)
        return Reply(body=request.path)

    server, connection = bench.pair(H2C, handler)
    ids: list[Any] = []
    for number, method in enumerate(order):
        if number == {"before": 1, "between": 2}.get(answers):
            gate.set()
            assert in_time(next(iter(connection._session.calls._asked.values())).future.result)
        ids.append(connection.request(method, f"/{number}", body=b"x" if method == "POST" else None))
    gate.set()
    assert ids == [None, 3, 5]
    assert [connection.get_response(ids[number]).read() for number in (1, 0, 2)] == [b"/1", b"/0", b"/2"]
    assert {request.target for request in server.requests} == {"/0", "/1", "/2"}


def test_an_upgrade_that_is_held_back_keeps_the_ids_right(bench: Bench) -> None:
    asked, held = threading.Event(), bench.gate()

    def answer(conn: ScriptedConnection, stream_id: int, target: bytes) -> None:
        conn.headers(stream_id, [(":status", "200")])
        conn.data(stream_id, target, end_stream=True)

    def script(conn: ScriptedConnection) -> None:
        target = conn.recv_until(b"\r\n\r\n").split()[1]
        asked.set()
        opened(held)
        conn.send(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n")
        conn.greet()
        answer(conn, 1, target)
        with suppress(ConnectionError):
            while frame := conn.wait_frame(HeadersFrame):
                answer(conn, frame.stream_id, dict(conn.decode(frame))[":path"].encode())

    connection = bench.connection(H2C, bench.peer(script, tls=False).port)
    first = connection.request("GET", "/first")
    opened(asked)
    second, third = connection.request("GET", "/second"), connection.request("GET", "/third")
    held.set()
    assert connection.get_response(second).read() == b"/second"
    assert connection.get_response(first).read() == b"/first"
    assert connection.get_response(third).read() == b"/third"
    connection.close()


def test_an_offer_that_is_refused_late_keeps_the_ids_right(bench: Bench) -> None:
    """Others wait for it for a while, and then go out on connections of their own."""
    asked, held = threading.Event(), bench.gate()

    def handler(request: Any) -> Reply:
        if request.path == "/first":
            asked.set()
            opened(held)
        return Reply(body=request.path)

    server = bench.server(H2C, handler, upgrades=False)
    connection = bench.connection(H2C, server.port)
    first = connection.request("GET", "/first")
    opened(asked)
    second = connection.request("GET", "/second")
    third = connection.request("GET", "/third")
    # What was given is looked up, though it turns out to be HTTP/1.1.
    assert connection.get_response(third).read() == b"/third"
    held.set()
    assert connection.get_response(first).read() == b"/first"
    fourth = connection.request("GET", "/fourth")
    assert connection.get_response(fourth).read() == b"/fourth"
    assert connection.get_response(second).read() == b"/second"
    assert connection.request("GET", "/fifth") is connection.request("GET", "/sixth") is None


def test_requests_that_are_put_together_side_by_side_before_an_upgrade_have_ids(bench: Bench) -> None:
    _, connection = bench.pair(H2C)
    first, second = connection.putrequest("GET", "/headers"), connection.putrequest("GET", "/bytes/6")
    connection.putheader("X-Own", "1", first)
    connection.putheader("X-Own", "2", second)
    connection.endheaders(stream_id=second, final=True)
    connection.endheaders(stream_id=first, final=True)
    assert (first, second) == (None, 3)
    assert connection.get_response(second).read() == pattern(6)
    assert ["x-own", "1"] in json.loads(connection.get_response(first).read())


def test_what_a_thread_adds_never_gets_into_the_request_of_another(bench: Bench) -> None:
    # One thread was told None, as long as it was alone; the other an id, which it does not care for.
    _, connection = bench.pair(H2C)
    assert connection.putrequest("GET", "/headers") is None

    def beside() -> bytes:
        assert connection.putrequest("GET", "/headers") == 3
        connection.putheader("Authorization", "secret")
        connection.endheaders(final=True)
        return connection.get_response(3).read()

    with ThreadPoolExecutor(1) as thread:
        its_own = json.loads(thread.submit(beside).result(WAIT_S))
    connection.endheaders(final=True)
    mine = json.loads(connection.get_response().read())
    assert (["authorization", "secret"] in its_own, ["authorization", "secret"] in mine) == (True, False)


@pytest.mark.parametrize("header", [{}, {"Connection": "close"}])
def test_a_request_that_offers_nothing_tells_nothing_about_the_version(bench: Bench, header: dict[str, str]) -> None:
    _, connection = bench.pair(H2C)
    connection.request("GET" if header else "POST", "/bytes/1", body=None if header else b"x", headers=header)
    connection.get_response().read()
    first, second = connection.request("GET", "/bytes/5"), connection.request("GET", "/bytes/6")
    assert second is not None
    assert connection.get_response(second).read() == pattern(6)
    assert connection.get_response(first).read() == pattern(5)


def test_a_server_that_does_not_upgrade_is_spoken_to_in_http1(bench: Bench) -> None:
    server = bench.server(H2C, upgrades=False)
    connection = bench.connection(H2C, server.port)
    for _ in range(2):
        assert connection.request("GET", "/bytes/1") is None
        assert connection.get_response().version is HTTPVersion.http11
    assert server.connections_accepted == 1


def test_a_request_with_a_body_offers_no_upgrade_and_the_next_one_does(bench: Bench) -> None:
    server, connection = bench.pair(H2C)
    assert echoed(connection, b"x") == b"x"
    assert "upgrade" not in dict(server.requests[0].headers)


def test_the_version_of_a_connection_is_known_once_it_is_there(bench: Bench, way: Way) -> None:
    _, connection = bench.pair(way)
    connection.request("GET", "/bytes/1")
    connection.get_response().read()
    assert connection.version is (HTTPVersion.http20 if way.http2 else HTTPVersion.http11)


def test_sequential_requests_share_one_socket(bench: Bench, way: Way) -> None:
    server, connection = bench.pair(way)
    for _ in range(5):
        connection.request("GET", "/bytes/1000")
        connection.get_response().read()
    assert server.connections_accepted == 1


def test_a_request_does_not_wait_for_another_response(bench: Bench, way: Way) -> None:
    gate = bench.gate()

    def handler(request: Any) -> Reply:
        if request.path == "/slow":
            opened(gate)
        return Reply(body=request.path)

    _, connection = bench.pair(way, handler)
    slow = connection.request("GET", "/slow")
    quick = connection.request("GET", "/quick")
    gate.set()
    assert [connection.get_response(each).read() for each in (slow, quick)] == [b"/slow", b"/quick"]


def test_large_responses_that_are_not_read_keep_nobody_waiting(bench: Bench, way: Way) -> None:
    _, connection = bench.pair(way)
    for _ in range(3):
        connection.request("GET", "/bytes/3000000")
    responses = [connection.get_response() for _ in range(3)]
    assert [response.read() == pattern(3_000_000) for response in reversed(responses)] == [True] * 3


# -- what is asked -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("url", ["/get?x=1&y=%2f", "/a/../b?q", "/%7euser", "//double"])
def test_path_and_query_go_out_as_they_are_given(bench: Bench, way: Way, url: str) -> None:
    server, connection = bench.pair(way)
    connection.request("GET", url)
    connection.get_response().read()
    assert server.requests[0].target == url


@pytest.mark.parametrize(
    ("url", "target"), [("", "/"), ("?a=b", "/?a=b"), ("/a b", "/a%20b"), ("/ä", "/%C3%A4"), ("/x#part", "/x")]
)
def test_what_no_request_target_can_be_is_put_right(bench: Bench, url: str, target: str) -> None:
    server, connection = bench.pair(H2)
    connection.request("GET", url)
    connection.get_response().read()
    assert server.requests[0].target == target


def test_an_absolute_url_of_this_origin_is_accepted(bench: Bench, way: Way) -> None:
    server, connection = bench.pair(way)
    connection.request("GET", server.url("/bytes/4?x=1"))
    assert len(connection.get_response().read()) == 4


def test_an_absolute_url_of_another_origin_is_refused(bench: Bench, way: Way) -> None:
    _, connection = bench.pair(way)
    with pytest.raises(InvalidURL, match="this connection leads to"):
        connection.request("GET", "https://elsewhere.test/")


def test_a_relative_path_is_refused(bench: Bench) -> None:
    _, connection = bench.pair(H2)
    with pytest.raises(InvalidURL, match="begins with '/'"):
        connection.request("GET", "get")


def test_options_may_ask_about_the_server_as_a_whole(bench: Bench, way: Way) -> None:
    server, connection = bench.pair(way)
    connection.request("OPTIONS", "*")
    connection.get_response().read()
    assert server.requests[0].target == "*"


@pytest.mark.parametrize("url", ["/\r\nx: y", "/a\nb"])
def test_line_ends_in_a_path_never_leave(bench: Bench, way: Way, url: str) -> None:
    server, connection = bench.pair(way)
    with pytest.raises(ValueError):
        connection.request("GET", url)
    assert server.requests == []


def test_line_ends_in_a_header_never_leave(bench: Bench, way: Way) -> None:
    server, connection = bench.pair(way)
    with pytest.raises(LocalProtocolError):
        connection.request("GET", "/", headers={"x": "a\r\ny: b"})
    assert server.requests == []


def test_the_authority_names_the_port(bench: Bench, way: Way) -> None:
    server, connection = bench.pair(way)
    connection.request("GET", "/")
    connection.get_response().read()
    assert server.requests[0].authority == f"localhost:{server.port}"


@pytest.mark.parametrize("name", [":authority", "Host"])
def test_a_given_authority_replaces_the_default_one(bench: Bench, way: Way, name: str) -> None:
    server, connection = bench.pair(way)
    connection.request("GET", "/", headers={name: "example.org"})
    connection.get_response().read()
    assert server.requests[0].authority == "example.org"


def test_pseudo_headers_replace_method_and_path(bench: Bench, way: Way) -> None:
    server, connection = bench.pair(way)
    connection.request("GET", "/", headers={":method": "PUT", ":path": "/p", ":scheme": "https" if way.tls else "http"})
    connection.get_response().read()
    assert (server.requests[0].method, server.requests[0].target) == ("PUT", "/p")


@pytest.mark.parametrize("headers", [{":scheme": "gopher"}, {":status": "200"}])
def test_other_pseudo_headers_are_refused(bench: Bench, headers: dict[str, str]) -> None:
    _, connection = bench.pair(H2)
    with pytest.raises(LocalProtocolError, match="header ':s"):
        connection.request("GET", "/", headers=headers)


@pytest.mark.parametrize(
    "headers",
    [
        {"X-One": "1", "x-two": "2"},
        {b"X-One": b"1", b"x-two": b"2"},
        [("X-One", "1"), (b"x-two", b"2")],
        HTTPHeaderMap([("x-one", "1"), ("x-two", "2")]),
    ],
    ids=["str", "bytes", "pairs", "map"],
)
def test_headers_come_in_any_form(bench: Bench, way: Way, headers: Any) -> None:
    _, connection = bench.pair(way)
    seen = sent_headers(connection, headers)
    assert [pair for pair in seen if pair[0].startswith("x-")] == [["x-one", "1"], ["x-two", "2"]]


def test_a_header_map_goes_out_as_it_was_put_together(bench: Bench, way: Way) -> None:
    _, connection = bench.pair(way)
    seen = sent_headers(connection, HTTPHeaderMap([("x", "a, b"), ("x", "c")]))
    assert [value for name, value in seen if name == "x"] == ["a, b", "c"]


def test_header_text_is_utf_8(bench: Bench, way: Way) -> None:
    _, connection = bench.pair(way)
    assert ["x", "ä".encode().decode("latin-1")] in sent_headers(connection, {"x": "ä"})


@pytest.mark.parametrize("headers", [{"x": 1}, 5], ids=["a number", "no headers"])
def test_what_is_no_header_is_a_value_error(bench: Bench, headers: Any) -> None:
    _, connection = bench.pair(H2)
    with pytest.raises(ValueError, match="header"):
        connection.request("GET", "/", headers=headers)


def test_fields_of_an_http1_connection_are_dropped_over_http2(bench: Bench, h2_way: Way) -> None:
    _, connection = bench.pair(h2_way)
    connection.request("GET", "/bytes/1")
    connection.get_response().read()
    headers = {"Connection": "keep-alive, X-Hop", "Keep-Alive": "5", "Upgrade": "x", "X-Hop": "1", "X-End": "1"}
    assert dict(sent_headers(connection, headers)) == {"x-end": "1"}


def test_method_and_url_may_be_bytes(bench: Bench, way: Way) -> None:
    server, connection = bench.pair(way)
    connection.request(b"DELETE", b"/x?y")
    connection.get_response().read()
    assert (server.requests[0].method, server.requests[0].target) == ("DELETE", "/x?y")


# -- bodies ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [
        lambda: b"hello",
        lambda: bytearray(b"hello"),
        lambda: "hello",
        lambda: io.BytesIO(b"hello"),
        lambda: [b"hel", b"lo"],
        lambda: (piece for piece in (b"hel", b"", b"lo")),
        lambda: iter([bytearray(b"hel"), memoryview(b"lo")]),
    ],
    ids=["bytes", "bytearray", "str", "file", "list", "generator", "buffers"],
)
def test_a_body_comes_in_any_form(bench: Bench, way: Way, make: Any) -> None:
    _, connection = bench.pair(way)
    assert echoed(connection, make()) == b"hello"


def test_text_is_sent_as_utf_8(bench: Bench, way: Way) -> None:
    _, connection = bench.pair(way)
    assert echoed(connection, "häß") == "häß".encode()


@pytest.mark.parametrize(
    "make", [lambda: b"hello", lambda: "hello", lambda: io.BytesIO(b"hello")], ids=["bytes", "str", "file"]
)
def test_a_known_length_is_declared(bench: Bench, way: Way, make: Any) -> None:
    server, connection = bench.pair(way)
    echoed(connection, make())
    assert dict(server.requests[0].headers)["content-length"] == "5"


@pytest.mark.parametrize("make", [bytes, str, io.BytesIO, lambda: iter([])], ids=["bytes", "str", "file", "iterator"])
def test_an_empty_body_ends(bench: Bench, way: Way, make: Any) -> None:
    _, connection = bench.pair(way)
    assert echoed(connection, make()) == b""


def test_a_file_is_read_from_where_it_stands(bench: Bench, way: Way) -> None:
    file = io.BytesIO(b"0123456789")
    file.seek(6)
    _, connection = bench.pair(way)
    assert echoed(connection, file) == b"6789"


def test_a_file_may_be_closed_once_the_request_is_made(bench: Bench, way: Way, tmp_path: Any) -> None:
    (tmp_path / "body").write_bytes(pattern(200_000))
    _, connection = bench.pair(way)
    with (tmp_path / "body").open("rb") as file:
        connection.request("POST", "/sha256", body=file)
    assert json.loads(connection.get_response().read())["length"] == 200_000


@pytest.mark.slow
def test_a_body_larger_than_any_window_arrives(bench: Bench, way: Way) -> None:
    _, connection = bench.pair(way)
    connection.request("POST", "/sha256", body=(pattern(65_536) for _ in range(80)))
    assert json.loads(connection.get_response().read())["length"] == 80 * 65_536


def test_a_generator_runs_on_the_callers_thread_and_its_error_is_the_callers(bench: Bench, way: Way) -> None:
    def body() -> Any:
        yield b"some"
        raise ZeroDivisionError("mine")

    server, connection = bench.pair(way)
    with pytest.raises(ZeroDivisionError, match="mine"):
        connection.request("POST", "/echo", body=body())
    assert server.wait_until(lambda seen: not any(request.is_complete for request in seen.requests), WAIT_S)


def test_after_a_body_that_broke_off_the_connection_goes_on(bench: Bench, way: Way) -> None:
    _, connection = bench.pair(way)
    with pytest.raises(LocalProtocolError, match="str where bytes are needed"):
        connection.request("POST", "/echo", body=["text"])
    assert echoed(connection, b"next") == b"next"


@pytest.mark.parametrize("body", [5, {"a": "b"}], ids=["number", "dict"])
def test_what_is_no_body_is_refused(bench: Bench, body: Any) -> None:
    _, connection = bench.pair(H2)
    with pytest.raises(LocalProtocolError, match="a body must be"):
        connection.request("POST", "/echo", body=body)


def test_a_wrong_length_never_leaves(bench: Bench, way: Way) -> None:
    server, connection = bench.pair(way)
    with pytest.raises(LocalProtocolError, match="Content-Length"):
        connection.request("POST", "/echo", body=b"hello", headers={"content-length": "4"})
    assert server.requests == []


def test_a_server_that_answers_early_ends_the_upload(bench: Bench, h2_way: Way) -> None:
    _, connection = bench.pair(h2_way)
    connection.request("POST", "/early/413", body=(bytes(65_536) for _ in range(1_000)))
    assert connection.get_response().status == 413


# -- putrequest and its family -----------------------------------------------------------------------------------------


def test_a_request_can_be_put_together_piece_by_piece(bench: Bench, way: Way) -> None:
    server, connection = bench.pair(way)
    stream_id = connection.putrequest("POST", "/echo")
    connection.putheader("X-A", "1", stream_id=stream_id)
    connection.putheader("X-A", "2", stream_id, replace=True)
    connection.endheaders(stream_id=stream_id)
    connection.send(b"one ", stream_id=stream_id)
    connection.send("two", final=True, stream_id=stream_id)
    assert connection.get_response(stream_id).read() == b"one two"
    assert [value for name, value in server.requests[0].headers if name == "x-a"] == ["2"]


def test_without_an_id_the_latest_request_is_meant(bench: Bench, way: Way) -> None:
    _, connection = bench.pair(way)
    connection.putrequest("POST", "/echo")
    connection.endheaders()
    connection.send(b"whole", final=True)
    assert connection.get_response().read() == b"whole"


def test_the_head_can_bring_the_whole_body(bench: Bench, way: Way) -> None:
    server, connection = bench.pair(way)
    connection.putrequest("POST", "/echo")
    connection.endheaders(b"body", final=True)
    assert connection.get_response().read() == b"body"
    assert dict(server.requests[0].headers)["content-length"] == "4"


def test_the_head_can_bring_the_beginning_of_the_body(bench: Bench, way: Way) -> None:
    _, connection = bench.pair(way)
    connection.putrequest("POST", "/echo")
    connection.endheaders(message_body=b"begin ")
    connection.send(b"end", final=True)
    assert connection.get_response().read() == b"begin end"


def test_the_head_can_be_all(bench: Bench, way: Way) -> None:
    _, connection = bench.pair(way)
    connection.putrequest("GET", "/bytes/3")
    connection.endheaders(final=True)
    assert connection.get_response().read() == pattern(3)


def test_over_http1_a_get_without_a_length_ends_with_its_head(bench: Bench, h1_way: Way) -> None:
    server, connection = bench.pair(h1_way)
    connection.putrequest("GET", "/bytes/3")
    connection.endheaders()
    assert connection.get_response().read() == pattern(3)
    assert "transfer-encoding" not in dict(server.requests[0].headers)


def test_a_declared_length_is_kept_and_held(bench: Bench, way: Way) -> None:
    server, connection = bench.pair(way)
    connection.putrequest("PUT", "/echo")
    connection.putheader("Content-Length", "6")
    connection.endheaders()
    connection.send(b"abc")
    connection.send(io.BytesIO(b"def"), final=True)
    assert connection.get_response().read() == b"abcdef"
    assert "transfer-encoding" not in dict(server.requests[0].headers)


def test_several_requests_can_be_put_together_at_once(bench: Bench, h2_way: Way) -> None:
    _, connection = bench.pair(h2_way)
    connection.request("GET", "/bytes/1")
    connection.get_response().read()
    ids = [connection.putrequest("POST", "/echo") for _ in range(3)]
    for stream_id in reversed(ids):
        connection.endheaders(stream_id=stream_id)
    for stream_id in ids:
        connection.send(f"{stream_id}", final=True, stream_id=stream_id)
    assert [connection.get_response(stream_id).read() for stream_id in ids] == [b"%d" % each for each in ids]


def test_a_response_can_come_before_the_request_has_ended(bench: Bench, h2_way: Way) -> None:
    _, connection = bench.pair(h2_way)
    connection.request("GET", "/bytes/1")
    connection.get_response().read()
    stream_id = connection.putrequest("POST", "/duplex")
    connection.endheaders(stream_id=stream_id)
    response = connection.get_response(stream_id)
    connection.send(b"ping", stream_id=stream_id)
    assert response.read(4) == b"ping"
    connection.send(b"pong", final=True, stream_id=stream_id)
    assert response.read() == b"pong"


def test_to_send_before_the_head_is_an_error(bench: Bench, way: Way) -> None:
    _, connection = bench.pair(way)
    connection.putrequest("POST", "/echo")
    with pytest.raises(LocalProtocolError, match="endheaders"):
        connection.send(b"x")


def test_to_send_after_the_end_is_an_error(bench: Bench, way: Way) -> None:
    _, connection = bench.pair(way)
    connection.putrequest("POST", "/echo")
    connection.endheaders(b"x", final=True)
    with pytest.raises(NoSuchStream, match="putrequest"):
        connection.send(b"y")


def test_a_head_is_sent_once(bench: Bench, way: Way) -> None:
    _, connection = bench.pair(way)
    connection.putrequest("POST", "/echo")
    connection.endheaders()
    with pytest.raises(LocalProtocolError, match="sent already"):
        connection.endheaders()


def test_to_send_on_a_stream_that_was_reset_says_so(bench: Bench) -> None:
    _, connection = bench.pair(H2)
    connection.putrequest("POST", "/fault/reset")
    connection.endheaders()
    with pytest.raises(StreamResetError):
        while True:
            connection.send(bytes(65_536))


# -- where it leads ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["localhost:{}", "127.0.0.1:{}"])
def test_the_port_may_stand_with_the_host(bench: Bench, form: str) -> None:
    server = bench.server(PRIOR)
    with HTTP20Connection(form.format(server.port), timeout=WAIT_S) as connection:
        connection.request("GET", "/bytes/1")
        assert (connection.get_response().status, connection.port) == (200, server.port)


def test_an_ipv6_address_stands_in_brackets(bench: Bench) -> None:
    server = bench.server(H2, host="::1")
    with HTTP20Connection(f"[::1]:{server.port}", secure=True, ssl_context=bench.connection(H2, 1).ssl_context) as one:
        one.request("GET", "/bytes/1")
        assert (one.get_response().status, one.host) == (200, "::1")
    assert server.requests[0].authority == f"[::1]:{server.port}"


@pytest.mark.parametrize(
    ("kind", "host", "port", "expected"),
    [
        (HTTPConnection, "a.test", None, ("a.test", 80, False)),
        (HTTPConnection, "a.test:443", None, ("a.test", 443, True)),
        (HTTPConnection, "a.test", 443, ("a.test", 443, True)),
        (HTTPConnection, "[::1]", None, ("::1", 80, False)),
        (HTTPConnection, "::1", 8080, ("::1", 8080, False)),
        (HTTPConnection, "a.test:1", 2, ("a.test", 2, False)),
        (HTTP20Connection, "a.test", None, ("a.test", 443, True)),
        (HTTP20Connection, "a.test:8443", None, ("a.test", 8443, False)),
        (HTTP11Connection, "a.test", None, ("a.test", 80, False)),
        (HTTP11Connection, "[::1]:443", None, ("::1", 443, True)),
    ],
)
def test_host_port_and_secure_are_found(kind: Any, host: str, port: int | None, expected: Any) -> None:
    connection = kind(host, port)
    assert (connection.host, connection.port, connection.secure) == expected


NO_HOSTS = ["", ":80", "a b", "a:b", "[::1", 5]
# In a URL they would be another host, or a host with more behind it.
MORE_THAN_HOSTS = ["a/b", "a?b", "a#b", "u@b.test", "a\\b", "a%31", "a\tb", "a\r\nb", "a\x7f", "[::1/x]", "[a%31]"]


@pytest.mark.parametrize("host", [*NO_HOSTS, *MORE_THAN_HOSTS])
def test_what_is_no_host_is_refused_at_once(host: Any) -> None:
    with pytest.raises(InvalidURL):
        HTTPConnection(host)


@pytest.mark.parametrize("host", [each for each in NO_HOSTS if each] + MORE_THAN_HOSTS)
def test_what_is_no_host_is_no_proxy_either(host: Any) -> None:
    with pytest.raises(InvalidURL):
        HTTPConnection("a.test", proxy_host=host)


@pytest.mark.parametrize("port", [-1, 0, 65_536])
def test_what_is_no_port_is_refused_at_once(port: int) -> None:
    for options in ({"port": port}, {"proxy_host": "p.test", "proxy_port": port}):
        with pytest.raises(InvalidURL, match="between 1 and 65535"):
            HTTPConnection("a.test", **options)


@pytest.mark.parametrize("host", ["[fe80::1%eth0]", "[fe80::1%25eth0]", "fe80::1%eth0"])
def test_an_ipv6_address_may_have_a_zone(host: str) -> None:
    assert "fe80::1%eth0" in repr(HTTPConnection(host))


def test_secure_counts_more_than_the_port() -> None:
    assert (HTTPConnection("a.test", 443, secure=False).secure, HTTPConnection("a.test", 80, True).secure) == (
        False,
        True,
    )


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, (None, None)),
        ({"proxy_host": "p.test"}, ("p.test", 8080)),
        ({"proxy_host": "p.test:3128"}, ("p.test", 3128)),
        ({"proxy_host": "p.test", "proxy_port": 1}, ("p.test", 1)),
    ],
)
def test_a_proxy_has_port_8080_unless_another_is_given(options: Any, expected: Any) -> None:
    connection = HTTPConnection("a.test", **options)
    assert (connection.proxy_host, connection.proxy_port) == expected


@pytest.mark.parametrize("kind", [HTTPConnection, HTTP20Connection, HTTP11Connection])
def test_an_unknown_argument_is_refused(kind: Any) -> None:
    with pytest.raises(TypeError, match="strict"):
        kind("a.test", strict=True)


def test_a_buffer_size_can_be_set() -> None:
    connection = HTTPConnection("a.test")
    connection.network_buffer_size *= 2
    assert connection.network_buffer_size == 131_072


# -- its life ----------------------------------------------------------------------------------------------------------


def test_making_one_opens_nothing(bench: Bench, way: Way) -> None:
    server, _ = bench.pair(way)
    assert server.connections_accepted == 0


def test_connect_connects_once(bench: Bench, way: Way) -> None:
    server, connection = bench.pair(way)
    connection.connect()
    connection.connect()
    connection.request("GET", "/bytes/1")
    connection.get_response().read()
    assert server.connections_accepted == 1


def test_after_close_it_can_be_used_again(bench: Bench, way: Way) -> None:
    server, connection = bench.pair(way)
    for _ in range(2):
        assert connection.request("GET", "/bytes/1") == (1 if way.gives_ids else None)
        connection.get_response().read()
        connection.close()
    assert server.wait_until(lambda seen: (seen.connections_accepted, seen.connections_open) == (2, 0), WAIT_S)


def test_close_may_be_called_at_any_time(bench: Bench, way: Way) -> None:
    _, connection = bench.pair(way)
    connection.close()
    connection.request("GET", "/delay/20")
    connection.close()
    connection.close(3)


def test_responses_of_a_closed_connection_are_gone(bench: Bench, way: Way) -> None:
    _, connection = bench.pair(way)
    connection.request("GET", "/bytes/1")
    connection.close()
    with pytest.raises(NoSuchStream):
        connection.get_response()


def test_a_connection_is_a_context_manager(bench: Bench, way: Way) -> None:
    server, connection = bench.pair(way)
    with connection as same:
        same.request("GET", "/bytes/1")
        assert same.get_response().read() == pattern(1)
    assert server.wait_until(lambda seen: seen.connections_open == 0, WAIT_S)


def test_a_connection_that_is_forgotten_closes_itself(bench: Bench, way: Way) -> None:
    server = bench.server(way)
    options = {"ssl_context": bench.connection(way, 1).ssl_context} if way.tls else {}
    connection = way.kind("localhost", server.port, secure=way.tls, **options)
    connection.request("GET", "/bytes/1")
    connection.get_response().read()
    del connection
    assert server.wait_until(lambda seen: seen.connections_open == 0, WAIT_S)


def test_a_connection_that_the_server_closed_is_opened_again(bench: Bench, way: Way) -> None:
    server, connection = bench.pair(way)
    connection.request("GET", "/bytes/1")
    connection.get_response().read()
    server.drop_connections()
    assert eventually(lambda: connection._session.pool.stats().connections == 0)
    connection.request("GET", "/bytes/2")
    assert connection.get_response().read() == pattern(2)


@pytest.mark.parametrize("payload", ["12345678", b"\x00" * 8], ids=["str", "payload"])
def test_a_ping_takes_8_bytes(bench: Bench, way: Way, payload: Any) -> None:
    _, connection = bench.pair(way)
    connection.ping(payload)
    connection.request("GET", "/bytes/1")
    assert connection.get_response().status == 200


def test_a_ping_of_another_length_is_refused(bench: Bench, way: Way) -> None:
    _, connection = bench.pair(way)
    with pytest.raises(ValueError, match="8 bytes"):
        connection.ping("short")


def test_a_connection_shows_where_it_leads_and_what_is_outstanding(bench: Bench) -> None:
    server, connection = bench.pair(H2)
    connection.request("GET", "/bytes/1")
    assert repr(connection) == f"<HTTPConnection https://localhost:{server.port} HTTP/2 outstanding=1>"


def test_http11connection_speaks_http1_to_a_server_that_could_do_better(bench: Bench) -> None:
    server, connection = bench.pair(H11)
    connection.request("GET", "/bytes/1")
    connection.get_response().read()
    assert server.requests[0].http_version == "1.1"


def test_http20connection_is_refused_by_a_server_that_speaks_http1_alone(bench: Bench) -> None:
    server = bench.server(H1, errors_expected=True)
    with pytest.raises(ConnectionError):
        bench.connection(H20, server.port).request("GET", "/")


def test_force_proto_speaks_http2_whatever_the_handshake_says(bench: Bench) -> None:
    from hyperframe.frame import HeadersFrame

    def script(conn: Any) -> None:
        conn.greet()
        conn.headers(conn.wait_frame(HeadersFrame).stream_id, [(":status", "204")], end_stream=True)
        conn.drain()

    peer = bench.peer(script, alpn=())
    connection = bench.connection(H20, peer.port, force_proto="h2")
    connection.request("GET", "/")
    assert connection.get_response().status == 204


def test_plain_http1_is_spoken_without_an_offer_by_http11connection(bench: Bench) -> None:
    server = bench.server(H1_PLAIN)
    with HTTP11Connection(f"localhost:{server.port}", timeout=WAIT_S) as connection:
        connection.request("GET", "/")
        connection.get_response().read()
    assert "upgrade" not in dict(server.requests[0].headers)
