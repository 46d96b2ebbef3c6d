"""hyper's responses: what they say, and every way to read them."""

from __future__ import annotations

import gzip
import hashlib
from typing import Any

import pytest
from hyper_support import H2, H11, Bench, Way

from hyperpool import DecodeError, ResponseClosed
from hyperpool.connection_errors import ChunkedDecodeError, ConnectionResetError, StreamResetError
from hyperpool.connection_messages import HTTP11Response, HTTP20Response, HTTPVersion
from hyperpool.headers import HTTPHeaderMap
from hyperpool.testing import Disconnect, Reply, Reset, pattern, pattern_pieces
from stage import WAIT_S, eventually, nobody, opened


def response_to(connection: Any, method: str, url: str, **options: Any) -> Any:
    connection.request(method, url, **options)
    return connection.get_response()


def get(bench: Bench, way: Way, url: str = "/", handler: Any = None) -> Any:
    return response_to(bench.pair(way, handler)[1], "GET", url)


# -- the head ----------------------------------------------------------------------------------------------------------


def test_the_class_says_over_which_version_it_came(bench: Bench, way: Way) -> None:
    response = get(bench, way)
    assert type(response) is (HTTP20Response if way.http2 else HTTP11Response)
    assert response.version is (HTTPVersion.http20 if way.http2 else HTTPVersion.http11)


def test_the_reason_is_empty_over_http2_and_bytes_over_http1(bench: Bench, way: Way) -> None:
    assert get(bench, way, "/status/404").reason == ("" if way.http2 else b"Not Found")


def test_headers_are_bytes_in_lists(bench: Bench, way: Way) -> None:
    headers = get(bench, way, handler=lambda request: Reply(headers={"X-Mixed": "a, b"}, body=b"x")).headers
    assert isinstance(headers, HTTPHeaderMap)
    assert (headers["x-mixed"], headers[b"X-MIXED"], headers["content-length"]) == ([b"a", b"b"], [b"a", b"b"], [b"1"])


def test_there_is_no_pseudo_header_among_them(bench: Bench, way: Way) -> None:
    assert not any(name.startswith(b":") for name, _ in get(bench, way).headers)


def test_a_response_shows_what_it_answers(bench: Bench) -> None:
    server, connection = bench.pair(H2)
    response = response_to(connection, "GET", "/bytes/1")
    assert repr(response) == f"<HTTP20Response [200] GET {server.url('/bytes/1')}>"


def test_a_response_has_no_file_descriptor(bench: Bench, way: Way) -> None:
    with pytest.raises(NotImplementedError):
        get(bench, way).fileno()


# -- reading -----------------------------------------------------------------------------------------------------------


def test_read_gives_everything_and_then_nothing(bench: Bench, way: Way) -> None:
    response = get(bench, way, "/chunked/300000")
    assert (response.read() == pattern(300_000), response.read(), response.read(10)) == (True, b"", b"")


@pytest.mark.parametrize("n", [1, 7, 1_000, 65_536, 1_000_000])
def test_read_n_gives_n_bytes_until_the_end(bench: Bench, way: Way, n: int) -> None:
    response = get(bench, way, "/chunked/10007")
    pieces = list(iter(lambda: response.read(n), b""))
    assert b"".join(pieces) == pattern(10_007)
    assert {len(piece) for piece in pieces[:-1]} <= {n}


def test_read_0_gives_nothing_and_loses_nothing(bench: Bench, way: Way) -> None:
    response = get(bench, way, "/bytes/5")
    assert (response.read(0), response.read(-1)) == (b"", pattern(5))


@pytest.mark.parametrize("path", ["/gzip", "/deflate"])
def test_a_coded_body_is_decoded(bench: Bench, way: Way, path: str) -> None:
    assert get(bench, way, path).read() == pattern(10_000)


@pytest.mark.parametrize("n", [1, 13, 4_096])
@pytest.mark.parametrize("path", ["/gzip", "/deflate"])
def test_a_coded_body_read_in_parts_has_no_empty_part_before_its_end(bench: Bench, way: Way, path: str, n: int) -> None:
    response = get(bench, way, path)
    assert b"".join(iter(lambda: response.read(n), b"")) == pattern(10_000)


def test_a_long_run_of_coded_bytes_without_output_is_not_the_end(bench: Bench, way: Way) -> None:
    """Empty members of gzip decode to nothing for a while."""
    body = gzip.compress(b"begin") + gzip.compress(b"") * 200 + gzip.compress(b"end")
    cut = [body[at : at + 20] for at in range(0, len(body), 20)]
    response = get(bench, way, handler=lambda request: Reply(headers={"content-encoding": "gzip"}, body=cut))
    assert b"".join(iter(lambda: response.read(5), b"")) == b"beginend"


def test_undecoded_bytes_are_those_of_the_wire(bench: Bench, way: Way) -> None:
    body = gzip.compress(b"hello", mtime=0)
    response = get(bench, way, handler=lambda request: Reply(headers={"content-encoding": "gzip"}, body=body))
    assert response.read(decode_content=False) == body


def test_a_coding_that_is_not_known_is_left_alone(bench: Bench, way: Way) -> None:
    response = get(bench, way, handler=lambda request: Reply(headers={"content-encoding": "x-own"}, body=b"as it is"))
    assert response.read() == b"as it is"


def test_a_coded_body_that_is_cut_off_is_an_error(bench: Bench, way: Way) -> None:
    body = gzip.compress(pattern(1_000))[:-20]
    response = get(bench, way, handler=lambda request: Reply(headers={"content-encoding": "gzip"}, body=body))
    with pytest.raises(DecodeError):
        response.read()


def test_iterating_gives_the_decoded_body(bench: Bench, way: Way) -> None:
    assert b"".join(get(bench, way, "/gzip")) == pattern(10_000)


def test_ways_of_reading_can_follow_one_another(bench: Bench, way: Way) -> None:
    response = get(bench, way, "/gzip")
    first = response.read(10)
    rest = b"".join(response.read_chunked())
    assert first + rest == pattern(10_000)


@pytest.mark.parametrize("url", ["/bytes/0", "/chunked/0"])
def test_an_empty_body_ends(bench: Bench, way: Way, url: str) -> None:
    assert get(bench, way, url).read() == b""


@pytest.mark.parametrize("status", [204, 304])
def test_a_status_without_a_body_does_not_swallow_the_next_response(bench: Bench, way: Way, status: int) -> None:
    _, connection = bench.pair(way)
    assert response_to(connection, "GET", f"/status/{status}").read() == b""
    assert response_to(connection, "GET", "/bytes/5").read() == pattern(5)


def test_a_response_to_head_has_a_length_and_no_body(bench: Bench, way: Way) -> None:
    _, connection = bench.pair(way)
    response = response_to(connection, "HEAD", "/bytes/1000")
    assert (response.headers["content-length"], response.read()) == ([b"1000"], b"")
    assert response_to(connection, "GET", "/bytes/5").read() == pattern(5)


# -- piece by piece ----------------------------------------------------------------------------------------------------


def test_read_chunked_gives_the_whole_body_in_pieces(bench: Bench, way: Way) -> None:
    pieces = list(get(bench, way, "/chunked/300000").read_chunked())
    assert (b"".join(pieces) == pattern(300_000), len(pieces) > 1, b"" in pieces) == (True, True, False)


def test_read_chunked_decodes_unless_told_otherwise(bench: Bench, way: Way) -> None:
    _, connection = bench.pair(way)
    decoded = b"".join(response_to(connection, "GET", "/gzip").read_chunked())
    raw = b"".join(response_to(connection, "GET", "/gzip").read_chunked(decode_content=False))
    assert (decoded, gzip.decompress(raw)) == (pattern(10_000), pattern(10_000))


def test_each_frame_is_a_piece(bench: Bench) -> None:
    from hyperframe.frame import HeadersFrame

    def script(conn: Any) -> None:
        conn.greet()
        stream_id = conn.wait_frame(HeadersFrame).stream_id
        conn.headers(stream_id, [(":status", "200")])
        for data in (b"one", b"", b"two", b"three"):
            conn.data(stream_id, data)
        conn.data(stream_id, b"", end_stream=True)
        conn.drain()

    connection = bench.connection(H2, bench.peer(script).port)
    assert list(response_to(connection, "GET", "/").read_chunked()) == [b"one", b"two", b"three"]


def chunked(*sends: bytes) -> Any:
    """A script that answers with a chunked body, sent in these parts."""

    def script(conn: Any) -> None:
        conn.recv_until(b"\r\n\r\n")
        conn.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for data in sends:
            conn.send(data)
        conn.drain()

    return script


def test_each_chunk_is_a_piece(bench: Bench) -> None:
    peer = bench.peer(chunked(b"3\r\none\r\n3\r\ntwo\r\n5\r\nthree\r\n0\r\n\r\n"), alpn=("http/1.1",))
    response = response_to(bench.connection(H11, peer.port), "GET", "/")
    assert list(response.read_chunked()) == [b"one", b"two", b"three"]


def test_a_chunk_that_comes_in_parts_is_one_piece(bench: Bench) -> None:
    peer = bench.peer(chunked(b"6\r\nabc", b"def\r\n", b"2", b"\r\ngh\r\n0\r\n\r\n"), alpn=("http/1.1",))
    response = response_to(bench.connection(H11, peer.port), "GET", "/")
    assert list(response.read_chunked()) == [b"abcdef", b"gh"]


def test_a_body_without_chunks_comes_in_pieces_as_well(bench: Bench) -> None:
    assert b"".join(get(bench, H11, "/bytes/300000").read_chunked()) == pattern(300_000)


def test_a_broken_chunk_is_a_chunked_decode_error(bench: Bench) -> None:
    peer = bench.peer(chunked(b"3\r\none\r\nnonsense\r\n"), alpn=("http/1.1",))
    response = response_to(bench.connection(H11, peer.port), "GET", "/")
    with pytest.raises(ChunkedDecodeError):
        list(response.read_chunked())


def test_pieces_come_as_soon_as_they_are_sent(bench: Bench, way: Way) -> None:
    gate = bench.gate()

    def body() -> Any:
        yield b"first"
        opened(gate)
        yield b"second"

    pieces = get(bench, way, handler=lambda request: Reply(body=body())).read_chunked()
    first = next(pieces)
    gate.set()
    assert (first, b"".join(pieces)) == (b"first", b"second")


# -- trailers ----------------------------------------------------------------------------------------------------------


def test_trailers_come_behind_the_body(bench: Bench, way: Way) -> None:
    response = get(bench, way, "/trailers")
    body = response.read()
    assert response.trailers["x-sha256"] == [hashlib.sha256(body).hexdigest().encode()]


def test_trailers_can_be_asked_for_before_the_body_was_read(bench: Bench, way: Way) -> None:
    response = get(bench, way, "/trailers")
    assert (b"x-sha256" in response.trailers, response.read()) == (True, b"trailers follow\n")


def test_a_response_without_trailers_has_an_empty_map(bench: Bench, way: Way) -> None:
    assert list(get(bench, way, "/bytes/1").trailers) == []


# -- ends --------------------------------------------------------------------------------------------------------------


def test_closing_resets_what_is_still_to_come(bench: Bench, h2_way: Way) -> None:
    server, connection = bench.pair(h2_way, lambda request: Reply(body=pattern_pieces(50_000_000)))
    response_to(connection, "GET", "/").close()
    assert server.wait_until(lambda seen: seen.requests[0].reset_code == 8, WAIT_S)
    assert server.connections_accepted == 1


def test_a_response_is_a_context_manager(bench: Bench, way: Way) -> None:
    with get(bench, way, "/bytes/3000000") as response:
        assert response.read(5) == pattern(5)
    with pytest.raises(ResponseClosed):
        response.read()


def test_a_response_may_outlive_the_name_of_its_connection(bench: Bench, way: Way) -> None:
    server = bench.server(way)
    options = {"ssl_context": bench.connection(way, 1).ssl_context} if way.tls else {}
    response = response_to(way.kind("localhost", server.port, secure=way.tls, **options), "GET", "/bytes/3000000")
    assert len(response.read()) == 3_000_000


@pytest.mark.parametrize("first", ["/fault/reset", "/x"])
def test_a_reset_is_a_stream_reset_error(bench: Bench, h2_way: Way, first: str) -> None:
    _, connection = bench.pair(h2_way, lambda request: Reset(2))
    connection.request("GET", first)
    with pytest.raises(StreamResetError) as caught:
        connection.get_response()
    assert caught.value.code == 2


def test_a_body_that_is_cut_off_is_an_error_each_time_it_is_read(bench: Bench, way: Way) -> None:
    cut = Reply(headers={"content-length": "100"}, body=b"x" * 50, fault=Disconnect(), fault_after_bytes=50)
    response = get(bench, way, handler=lambda request: cut)
    for _ in range(2):
        with pytest.raises(ConnectionResetError):
            response.read()


def test_a_lost_connection_is_a_builtin_error_too(bench: Bench, way: Way) -> None:
    import builtins

    _, connection = bench.pair(way, lambda request: Disconnect())
    connection.request("GET", "/")
    with pytest.raises(builtins.ConnectionResetError):
        connection.get_response()


def test_a_server_that_is_not_there_is_a_connection_error(bench: Bench, way: Way) -> None:
    server = bench.server(way)
    server.close()
    bench.enter(nobody(server.port))
    connection = bench.connection(way, server.port, timeout=WAIT_S)
    with pytest.raises(ConnectionError):
        connection.request("GET", "/")


def test_an_unread_response_that_is_forgotten_frees_its_stream(bench: Bench, h2_way: Way) -> None:
    server, connection = bench.pair(h2_way, lambda request: Reply(body=pattern_pieces(50_000_000)))

    def forget() -> None:
        response_to(connection, "GET", "/")
        # Without a GIL it is finalized, and warned of, in the next turn of its loop.
        assert eventually(lambda: server.requests[0].reset_code == 8)

    with pytest.warns(ResourceWarning, match="test_hyper_responses.py"):
        forget()
