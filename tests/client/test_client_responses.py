"""What comes back: status, headers, trailers and bodies, the same over both versions."""

from __future__ import annotations

import contextlib
import datetime
import gzip
import hashlib
import io
import json
import shutil
import threading
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import brotli
import pytest
import zstandard
from client_support import Kit, Wire, raised, stale

import hyperpool
from hyperpool.testing import Reply, ScriptedConnection, pattern
from stage import AUTHORITY, WAIT_S, eventually, opened, peers_gone

TEXT = "first line\nsecond line\r\nthird: grün ☃\n"


def test_a_response_says_what_came_and_how(kit: Kit, wire: Wire) -> None:
    headers = (("Content-Type", "text/plain; charset=utf-8"), ("X-A", "1"), ("X-A", "2"))
    server, client = kit.pair(wire, lambda request: Reply(201, headers, TEXT))
    response = client.get(server.url("/path?q=1"))
    assert (response.status_code, response.status, response.ok, response.reason) == (201, 201, True, "Created")
    assert response.http_version == wire.version
    assert response.stream_id == (1 if wire.http2 else None)
    assert response.headers["content-TYPE"] == "text/plain; charset=utf-8"
    assert response.headers.getlist("x-a") == ["1", "2"]
    assert response.headers["x-a"] == "1, 2"
    assert response.url == server.url("/path?q=1")
    assert (response.content, response.text, response.encoding) == (TEXT.encode(), TEXT, "utf-8")
    assert isinstance(response.elapsed, datetime.timedelta) and response.elapsed > datetime.timedelta(0)
    assert (response.retries, response.history) == ((), [])
    assert response.raise_for_status() is response
    assert "201" in repr(response) and wire.version in repr(response)


def test_content_may_be_read_again_in_every_form(kit: Kit, wire: Wire) -> None:
    server, client = kit.pair(wire, lambda request: Reply(200, body=TEXT))
    response = client.get(server.url())
    for _ in range(2):
        assert response.content == TEXT.encode()
        assert b"".join(response.iter_bytes(7)) == TEXT.encode()
        assert "".join(response.iter_text(7)) == TEXT
        assert list(response.iter_lines()) == ["first line", "second line", "third: grün ☃"]
    assert response.read() == TEXT.encode()
    assert response.read() == b""


def test_a_streamed_response_is_a_binary_file(kit: Kit, wire: Wire) -> None:
    server, client = kit.pair(wire)
    with client.stream("GET", server.url("/bytes/100000")) as response:
        assert response.readable() and not response.writable() and not response.seekable()
        assert response.read(0) == b""
        assert response.read(10) == pattern(10)
        buffer = bytearray(20)
        assert response.readinto(buffer) == 20
        assert buffer == pattern(30)[10:]
        assert response.read() == pattern(100_000)[30:]
        assert response.read(5) == b""
        assert response.readinto(buffer) == 0


def test_shutil_and_buffered_readers_read_a_streamed_response(kit: Kit, wire: Wire) -> None:
    server, client = kit.pair(wire)
    sink = io.BytesIO()
    with client.stream("GET", server.url("/bytes/300000")) as response:
        shutil.copyfileobj(response, sink)
    assert sink.getvalue() == pattern(300_000)
    with client.stream("GET", server.url("/bytes/300000")) as response:
        with io.BufferedReader(response) as buffered:
            assert buffered.read(100_001) == pattern(300_000)[:100_001]
            assert buffered.read() == pattern(300_000)[100_001:]


@pytest.mark.parametrize("n", [1, 7, 65_536, 1_000_000])
def test_pieces_have_the_size_that_is_asked_for(kit: Kit, wire: Wire, n: int) -> None:
    server, client = kit.pair(wire)
    size = 20_000 if n == 1 else 200_000
    with client.stream("GET", server.url(f"/bytes/{size}")) as response:
        pieces = list(response.iter_bytes(n))
    assert b"".join(pieces) == pattern(size)
    assert {len(piece) for piece in pieces[:-1]} <= {n}


def test_a_streamed_response_can_be_read_whole_or_in_pieces_but_not_both(kit: Kit, wire: Wire) -> None:
    server, client = kit.pair(wire)
    with client.stream("GET", server.url("/bytes/1000")) as response:
        assert response.content == pattern(1_000)
        assert response.content == pattern(1_000)
    with client.stream("GET", server.url("/bytes/1000")) as response:
        response.read(1)
        raised(hyperpool.ResponseClosed, lambda: response.content)


def test_a_stream_that_is_left_early_frees_its_slot(kit: Kit, wire: Wire) -> None:
    server, client = kit.pair(wire)
    for _ in range(5):
        with client.stream("GET", server.url("/bytes/100000000")) as response:
            assert response.read(5) == pattern(5)
    assert client.get(server.url("/bytes/5")).content == pattern(5)


def test_a_stream_whose_block_raises_is_closed(kit: Kit, h2_wire: Wire) -> None:
    server, client = kit.pair(h2_wire)
    with pytest.raises(ZeroDivisionError):
        with client.stream("GET", server.url("/bytes/100000000")):
            raise ZeroDivisionError
    assert server.wait_until(lambda server: server.requests[0].reset_code == 8, WAIT_S)


def test_json_is_parsed_in_its_own_encoding(kit: Kit, wire: Wire) -> None:
    value = {"a": [1, None, "grün ☃"]}
    server, client = kit.pair(wire, lambda request: Reply(200, body=json.dumps(value).encode("utf-16")))
    assert client.get(server.url()).json() == value


@pytest.mark.parametrize("charset", ["utf-8", "latin-1", "utf-16-le", "koi8-r"])
def test_text_is_decoded_by_the_charset_of_the_content_type(kit: Kit, charset: str) -> None:
    text = "текст" if charset == "koi8-r" else "grün"
    headers = (("Content-Type", f"text/plain; charset={charset}"),)
    server, client = kit.pair(handler=lambda request: Reply(200, headers, text.encode(charset)))
    assert client.get(server.url()).text == text


def test_an_encoding_that_is_set_wins_and_an_unknown_one_is_utf_8(kit: Kit) -> None:
    headers = (("Content-Type", "text/plain; charset=nonsense"),)
    server, client = kit.pair(handler=lambda request: Reply(200, headers, "grün"))
    response = client.get(server.url())
    assert response.text == "grün"
    response.encoding = "latin-1"
    assert response.text == "grÃ¼n"


@pytest.mark.parametrize("status", [400, 404, 500, 503])
def test_raise_for_status_raises_with_the_response(kit: Kit, wire: Wire, status: int) -> None:
    server, client = kit.pair(wire)
    response = client.get(server.url(f"/status/{status}"))
    assert not response.ok
    error = raised(hyperpool.HTTPStatusError, response.raise_for_status)
    assert error.response is response
    assert str(status) in str(error) and server.origin in str(error)
    assert (error.origin, error.processed) == (server.origin, "maybe")


@pytest.mark.parametrize("status", [204, 304])
def test_a_status_without_content_is_complete_with_its_head_and_the_next_response_is_not_eaten(
    kit: Kit, wire: Wire, status: int
) -> None:
    server, client = kit.pair(wire)
    for _ in range(3):
        response = client.get(server.url(f"/status/{status}"))
        assert (response.status_code, response.content) == (status, b"")
        assert client.get(server.url("/bytes/10")).content == pattern(10)
    assert server.connections_accepted == 1


def test_a_304_with_a_content_length_has_no_body(kit: Kit, wire: Wire) -> None:
    server, client = kit.pair(wire, lambda request: Reply(304, (("Content-Length", "1000"), ("ETag", '"x"'))))
    for _ in range(2):
        response = client.get(server.url())
        assert (response.content, response.headers["content-length"]) == (b"", "1000")


def test_head_responses_with_a_length_are_complete_at_once(kit: Kit, wire: Wire) -> None:
    server, client = kit.pair(wire)
    for n in (0, 1, 100_000):
        assert client.head(server.url(f"/bytes/{n}")).headers["content-length"] == str(n)
        assert client.head(server.url(f"/chunked/{n}")).content == b""
        assert client.head(server.url("/gzip")).content == b""
    assert server.connections_accepted == 1


@pytest.mark.parametrize("n", [0, 1, 16_384, 65_537, 300_000])
def test_a_body_of_unknown_length_is_read_to_its_end(kit: Kit, wire: Wire, n: int) -> None:
    server, client = kit.pair(wire)
    assert client.get(server.url(f"/chunked/{n}")).content == pattern(n)
    assert client.get(server.url("/bytes/1")).content == pattern(1)
    assert server.connections_accepted == 1


def test_interim_responses_are_skipped(kit: Kit, wire: Wire) -> None:
    interim = [(103, (("Link", "</a.css>"),)), (102, ()), (103, (("Link", "</b.css>"),))]
    server, client = kit.pair(wire, lambda request: Reply(200, body="final", interim=interim))
    response = client.get(server.url())
    assert (response.status_code, response.text, response.headers.get("link")) == (200, "final", None)


def test_an_upload_goes_out_whether_or_not_the_server_says_100(kit: Kit, wire: Wire) -> None:
    server, client = kit.pair(wire)
    response = client.post(server.url("/echo"), content=pattern(100_000), headers={"Expect": "100-continue"})
    assert response.content == pattern(100_000)


def test_trailers_are_there_once_the_body_was_read(kit: Kit, wire: Wire) -> None:
    server, client = kit.pair(wire)
    digest = hashlib.sha256(b"trailers follow\n").hexdigest()
    assert client.get(server.url("/trailers")).trailers["X-SHA256"] == digest
    with client.stream("GET", server.url("/trailers")) as response:
        assert response.read() == b"trailers follow\n"
        assert response.trailers["x-sha256"] == digest
    assert len(client.get(server.url("/bytes/1")).trailers) == 0


def test_cookies_of_a_response_are_parsed(kit: Kit) -> None:
    headers = (("Set-Cookie", "a=1; Path=/"), ("Set-Cookie", "b=2; Expires=Wed, 21 Oct 2099 07:28:00 GMT"))
    server, client = kit.pair(handler=lambda request: Reply(200, headers))
    assert {cookie.name: cookie.value for cookie in client.get(server.url()).cookies} == {"a": "1", "b": "2"}


def deflate_raw(data: bytes) -> bytes:
    machine = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return machine.compress(data) + machine.flush()


def brotli_quickly(data: bytes) -> bytes:
    return brotli.compress(data, quality=4)


CODINGS: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "gzip": ("gzip", gzip.compress),
    "gzip of two members": ("gzip", lambda data: gzip.compress(data[:1000]) + gzip.compress(data[1000:])),
    "deflate": ("deflate", zlib.compress),
    "raw deflate": ("deflate", deflate_raw),
    "br": ("br", brotli_quickly),
    "zstd": ("zstd", zstandard.ZstdCompressor().compress),
    "identity": ("identity", bytes),
    "two at once": ("gzip, br", lambda data: brotli_quickly(gzip.compress(data))),
    "an unknown one": ("rot13", bytes),
}


@pytest.mark.parametrize("name", CODINGS)
def test_a_coded_body_is_decoded_however_it_is_read(kit: Kit, plain_wire: Wire, name: str) -> None:
    coding, compress = CODINGS[name]
    data = pattern(70_000) + bytes(700_000)
    coded = compress(data)
    server, client = kit.pair(plain_wire, lambda request: Reply(200, (("Content-Encoding", coding),), coded))
    assert client.get(server.url()).content == data
    with client.stream("GET", server.url()) as response:
        assert b"".join(response.iter_bytes(10_007)) == data
    with client.stream("GET", server.url()) as response:
        parts = [response.read(50_000) for _ in range(3)]
        assert [len(part) for part in parts] == [50_000] * 3, "never b'' in mid-body"
        assert b"".join(parts) + response.read() == data
    with client.stream("GET", server.url()) as response:
        assert b"".join(response.iter_raw()) == coded


@pytest.mark.parametrize("name", ["gzip", "deflate", "br", "zstd"])
def test_a_coded_body_that_is_cut_short_or_damaged_is_a_decode_error(kit: Kit, plain_wire: Wire, name: str) -> None:
    coding, compress = CODINGS[name]
    coded = compress(pattern(50_000))
    bodies = {"/cut": coded[:-20], "/damaged": b"\xff" * 4 + coded[4:]}
    server, client = kit.pair(
        plain_wire, lambda request: Reply(200, (("Content-Encoding", coding),), bodies.get(request.path, b""))
    )
    for path in bodies:
        response = client.get(server.url(path))
        error = raised(hyperpool.DecodeError, lambda response=response: response.content)
        assert error.origin == server.origin
        assert b"".join(response.iter_raw()) == bodies[path]
    assert client.get(server.url("/empty")).content == b"", "an empty body needs no decoding"


def test_a_decompression_bomb_is_stopped_at_the_bound_and_may_be_iterated(kit: Kit, plain_wire: Wire) -> None:
    bomb = gzip.compress(bytes(20_000_000))
    server = kit.server(plain_wire, lambda request: Reply(200, (("Content-Encoding", "gzip"),), bomb))
    client = kit.client(plain_wire, limits=hyperpool.Limits(max_decoded_bytes=1_000_000))
    response = client.get(server.url())
    assert "max_decoded_bytes" in str(raised(hyperpool.DecodeError, lambda: response.content))
    with client.stream("GET", server.url()) as streamed:
        sizes = [len(piece) for piece in streamed.iter_bytes()]
    assert sum(sizes) == 20_000_000
    assert max(sizes) <= 1 << 20, "a bomb costs one piece of memory, not what it claims"


def test_a_response_head_may_be_as_large_as_the_limit_says(kit: Kit, wire: Wire) -> None:
    headers = [(f"x-{n}", "v" * 1_000) for n in range(40)]
    server, client = kit.pair(wire, lambda request: Reply(200, headers, "ok"))
    assert client.get(server.url()).headers["x-39"] == "v" * 1_000


def test_the_reason_of_http1_is_what_the_server_said(kit: Kit) -> None:
    def script(connection: ScriptedConnection) -> None:
        for line in (b"HTTP/1.1 200 Very Well\r\n", b"HTTP/1.1 200\r\n", b"HTTP/1.1 200 \r\n"):
            connection.recv_until(b"\r\n\r\n")
            connection.send(line + b"Content-Length: 0\r\n\r\n")
        connection.drain()

    peer = kit.peer(script, tls=False)
    with hyperpool.Client() as client:
        assert [client.get(peer.url()).reason for _ in range(3)] == ["Very Well", "", ""]


def test_a_body_that_is_read_as_it_comes_needs_no_end(kit: Kit, wire: Wire) -> None:
    gate = kit.gate()

    def endless() -> Iterator[bytes]:
        yield b"event: 1\n\n"
        opened(gate)
        yield b"event: 2\n\n"

    server, client = kit.pair(wire, lambda request: Reply(200, body=endless()))
    with client.stream("GET", server.url()) as response:
        lines = response.iter_lines()
        assert (next(lines), next(lines)) == ("event: 1", "")
        gate.set()
        assert list(lines) == ["event: 2", ""]


# -- connections that are kept ---------------------------------------------------------------------------------------


def test_requests_one_after_another_share_one_connection(kit: Kit, wire: Wire) -> None:
    server, client = kit.pair(wire)
    for n in range(30):
        assert client.get(server.url(f"/bytes/{n}")).content == pattern(n)
        assert client.post(server.url("/echo"), content=pattern(n)).content == pattern(n)
    assert server.connections_accepted == 1


def test_a_streamed_response_that_was_read_to_its_end_leaves_its_connection_for_the_next(kit: Kit, wire: Wire) -> None:
    server, client = kit.pair(wire)
    for _ in range(5):
        with client.stream("GET", server.url("/chunked/100000")) as response:
            assert len(response.read()) == 100_000
    assert server.connections_accepted == 1


@pytest.mark.parametrize("rst", [False, True], ids=["eof", "rst"])
def test_a_kept_connection_that_the_server_dropped_costs_no_request(kit: Kit, wire: Wire, rst: bool) -> None:
    server, client = kit.pair(wire)
    for n in range(10):
        assert client.get(server.url(f"/bytes/{n}")).content == pattern(n)
        server.drop_connections(rst=rst)
        assert eventually(lambda: peers_gone(server.port))
        # The drop has happened, so the loop reads it before it writes: even a POST is never written to a dead socket.
        assert client.post(server.url("/echo"), content=b"x").content == b"x"
        server.drop_connections(rst=rst)
        assert eventually(lambda: peers_gone(server.port))


def test_a_get_that_lost_the_race_with_a_closing_connection_is_sent_once_more(kit: Kit, h1_wire: Wire) -> None:
    peer = kit.peer(stale, tls=h1_wire.tls, alpn=("http/1.1",))
    client = kit.client(h1_wire)
    client.get(peer.url())
    response = client.get(peer.url())
    assert response.text == "ok"
    assert len(response.retries) == 1
    assert peer.connections_accepted == 2


@pytest.mark.parametrize("method", ["POST", "PATCH"])
def test_a_post_that_lost_the_race_with_a_closing_connection_is_not_sent_twice(
    kit: Kit, h1_wire: Wire, method: str
) -> None:
    peer = kit.peer(stale, tls=h1_wire.tls, alpn=("http/1.1",))
    client = kit.client(h1_wire)
    client.get(peer.url())
    error = raised(hyperpool.ConnectionLost, lambda: client.request(method, peer.url(), content=b"x"))
    assert (error.processed, error.stream_id) == ("maybe", None)
    assert peer.connections_accepted == 1


@pytest.mark.parametrize("head", [b"HTTP/1.1 200 OK\r\nConnection: close", b"HTTP/1.0 200 OK"])
def test_a_server_that_closes_after_each_response_gets_a_connection_for_each(kit: Kit, head: bytes) -> None:
    def script(connection: ScriptedConnection) -> None:
        connection.recv_until(b"\r\n\r\n")
        connection.send(head + b"\r\nContent-Length: 2\r\n\r\nok")

    peer = kit.peer(script, tls=False)
    with hyperpool.Client() as client:
        assert [client.get(peer.url()).text for _ in range(3)] == ["ok"] * 3
    assert peer.connections_accepted == 3


def test_an_answer_that_nobody_asked_for_is_never_given_to_the_next_request(kit: Kit) -> None:
    def script(connection: ScriptedConnection) -> None:
        connection.recv_until(b"\r\n\r\n")
        answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"
        connection.send(answer + b"ok" + answer + b"no")
        connection.drain()

    peer = kit.peer(script, tls=False)
    with hyperpool.Client() as client:
        for _ in range(3):
            with contextlib.suppress(hyperpool.RemoteProtocolError):
                assert client.get(peer.url()).text == "ok"


# -- the pool --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 3])
def test_prewarm_opens_connections_before_they_are_needed(kit: Kit, wire: Wire, n: int) -> None:
    server, client = kit.pair(wire)
    client.pool.prewarm(server.origin, n)
    assert server.wait_until(lambda server: server.connections_open >= n, WAIT_S)
    assert client.get(server.url("/bytes/1")).status_code == 200
    assert server.connections_accepted == n


def test_prewarming_what_does_not_answer_fails_nothing(kit: Kit) -> None:
    client = kit.client()
    client.pool.prewarm("https://127.0.0.1:1")
    server = kit.server()
    assert client.get(server.url("/bytes/1")).status_code == 200


def test_stats_tell_what_is_going_on(kit: Kit, wire: Wire) -> None:
    gate = kit.gate()
    server = kit.server(wire)
    server.route("/gated")(lambda request: (opened(gate), "ok")[1])
    limits = hyperpool.Limits(
        max_connections_per_origin=1, max_http1_connections_per_origin=3, max_streams_per_connection=3
    )
    client = kit.client(wire, limits=limits)
    empty = client.pool.stats()
    assert (empty.origins, empty.threads, empty.connections, empty.open_streams, empty.queued) == ({}, 0, 0, 0, 0)
    futures = [client.submit("GET", server.url("/gated")) for _ in range(10)]
    assert server.wait_until(lambda server: len(server.requests) == 3, WAIT_S)
    # A turn's figures are published when its requests are out already, and a later turn may take the other requests:
    # the server may be faster than they are.
    assert eventually(lambda: (client.pool.stats().open_streams, client.pool.stats().queued) == (3, 7))
    stats = client.pool.stats()
    assert (stats.threads, stats.open_streams, stats.queued) == (1, 3, 7)
    assert stats.connections == (1 if wire.http2 else 3)
    one = stats.origins[server.origin]
    assert (one.http_version, one.requests, one.resent, one.open_streams, one.queued) == (wire.version, 10, 0, 3, 7)
    gate.set()
    assert [future.result(WAIT_S).text for future in futures] == ["ok"] * 10
    assert (stats.open_streams, stats.queued) == (3, 7), "a snapshot stays what it was"


def test_stats_may_be_asked_for_from_any_thread_while_others_work(kit: Kit) -> None:
    server, client = kit.pair()
    threads = kit.threads(8)
    done = [threads.submit(client.get, server.url(f"/bytes/{n}")) for n in range(200)]
    while not all(future.done() for future in done):
        stats = client.pool.stats()
        assert stats.threads <= 1 and stats.open_streams <= 100
    assert {future.result().status_code for future in done} == {200}


def test_each_origin_has_one_thread_of_its_own_name(kit: Kit) -> None:
    servers = [kit.server() for _ in range(3)]
    client = kit.client()
    for server in servers:
        client.get(server.url("/bytes/1"))
    names = {thread.name for thread in threading.enumerate()}
    assert {f"hyperpool {server.origin}" for server in servers} <= names
    assert client.pool.stats().threads == 3


def test_at_max_origins_the_one_that_is_idle_for_longest_makes_room(kit: Kit) -> None:
    servers = [kit.server() for _ in range(3)]
    client = kit.client(limits=hyperpool.Limits(max_origins=2))
    for server in servers:
        client.get(server.url("/bytes/1"))
    assert servers[0].wait_until(lambda server: server.connections_open == 0, WAIT_S)
    assert client.get(servers[0].url("/bytes/1")).status_code == 200
    assert servers[2].connections_accepted == 1


def test_one_origin_too_many_is_pool_full_while_all_are_busy(kit: Kit) -> None:
    gate = kit.gate()
    server, other = kit.server(handler=lambda request: (opened(gate), "ok")[1]), kit.server()
    client = kit.client(limits=hyperpool.Limits(max_origins=1))
    future = client.submit("GET", server.url())
    assert server.wait_until(lambda server: len(server.requests) == 1, WAIT_S)
    error = raised(hyperpool.PoolFull, lambda: client.get(other.url()))
    assert (error.processed, error.origin) == ("no", other.origin)
    gate.set()
    assert future.result(WAIT_S).text == "ok"


def test_a_pool_takes_requests_as_values(kit: Kit) -> None:
    server = kit.server()
    with hyperpool.ConnectionPool(verify=AUTHORITY.ca_pem) as pool:
        request = hyperpool.Request("GET", server.url("/bytes/3"))
        assert pool.submit(request).result(WAIT_S).content == pattern(3)
        assert pool.submit(request).result(WAIT_S).request is request


def test_http2_and_http1_are_different_routes_to_one_origin(kit: Kit) -> None:
    server = kit.server()
    with hyperpool.Client(verify=AUTHORITY.ca_pem, http2=False) as old:
        assert old.get(server.url("/bytes/1")).http_version == "HTTP/1.1"
    new = kit.client(http1=True)
    assert new.get(server.url("/bytes/1")).http_version == "HTTP/2"


def error_table() -> dict[str, Any]:
    return {name: getattr(hyperpool, name) for name in hyperpool.__all__ if name.endswith(("Error", "Timeout", "Lost"))}


def test_every_error_is_a_hyperpool_error() -> None:
    for name, kind in error_table().items():
        if name != "Timeout":
            assert issubclass(kind, hyperpool.HyperpoolError), name
