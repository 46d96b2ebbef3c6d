"""The default paths, as both protocols serve them."""

from __future__ import annotations

import hashlib
import http.client
import json

import pytest
from kit_clients import TIMEOUT_S, trusting

from hyperpool.testing import Server, pattern, pattern_at

BOTH = pytest.mark.parametrize("http2", [True, False], ids=["http2", "http1"])


def test_the_pattern_is_the_same_from_every_offset() -> None:
    whole = pattern(200_000)
    assert all(pattern_at(offset, 70_000) == whole[offset : offset + 70_000] for offset in (0, 1, 65_520, 130_000))
    assert len(pattern_at(3, 1_000_000)) == 1_000_000


@BOTH
@pytest.mark.parametrize("path", ["/bytes/300000", "/chunked/300000"])
def test_bodies_are_made_of_the_pattern(hyperpool_server: Server, client, http2: bool, path: str) -> None:
    response = client(hyperpool_server, http2=http2).get(hyperpool_server.url(path))
    assert response.http_version == ("HTTP/2" if http2 else "HTTP/1.1")
    assert response.content == pattern(300_000)
    assert response.headers.get("content-length") == ("300000" if path.startswith("/bytes") else None)
    assert hyperpool_server.errors == []


@BOTH
@pytest.mark.parametrize("n", [0, 1, 65_535, 65_536])
def test_a_body_that_just_fills_the_window_ends(hyperpool_server: Server, client, http2: bool, n: int) -> None:
    assert client(hyperpool_server, http2=http2).get(hyperpool_server.url(f"/chunked/{n}")).content == pattern(n)


@BOTH
@pytest.mark.parametrize("path", ["/gzip", "/deflate"])
def test_codings_decode_to_the_pattern(hyperpool_server: Server, client, http2: bool, path: str) -> None:
    response = client(hyperpool_server, http2=http2).get(hyperpool_server.url(path))
    assert response.headers["content-encoding"] == path[1:]
    assert response.content == pattern(10_000)


@BOTH
def test_echo_returns_body_and_type(hyperpool_server: Server, client, http2: bool) -> None:
    body, kind = pattern(2_000_000), {"content-type": "x/y"}
    response = client(hyperpool_server, http2=http2).post(hyperpool_server.url("/echo"), content=body, headers=kind)
    assert response.content == body
    assert response.headers["content-type"] == "x/y"
    assert hyperpool_server.requests[-1].body_bytes == len(body)


@BOTH
def test_an_upload_of_unknown_length_is_digested(hyperpool_server: Server, client, http2: bool) -> None:
    pieces = (pattern_at(offset, 100_000) for offset in range(0, 3_000_000, 100_000))
    answer = client(hyperpool_server, http2=http2).post(hyperpool_server.url("/sha256"), content=pieces).json()
    assert answer == {"sha256": hashlib.sha256(pattern(3_000_000)).hexdigest(), "length": 3_000_000}


@BOTH
@pytest.mark.parametrize("status", [200, 204, 304, 404, 503])
def test_any_status_can_be_had(hyperpool_server: Server, client, http2: bool, status: int) -> None:
    reused = client(hyperpool_server, http2=http2)
    assert reused.get(hyperpool_server.url(f"/status/{status}")).status_code == status
    assert reused.get(hyperpool_server.url("/")).status_code == 200
    assert hyperpool_server.connections_accepted == 1


@BOTH
def test_a_delay_is_waited_for(hyperpool_server: Server, client, http2: bool) -> None:
    assert client(hyperpool_server, http2=http2).get(hyperpool_server.url("/delay/0.01")).status_code == 200


@BOTH
def test_head_has_the_length_and_no_body(hyperpool_server: Server, client, http2: bool) -> None:
    response = client(hyperpool_server, http2=http2).head(hyperpool_server.url("/bytes/1234567"))
    assert (response.content, response.headers["content-length"]) == (b"", "1234567")


@BOTH
def test_request_headers_come_back_in_order(hyperpool_server: Server, client, http2: bool) -> None:
    fields = [("x-b", "1"), ("x-a", "2"), ("x-b", "3")]
    seen = client(hyperpool_server, http2=http2).get(hyperpool_server.url("/headers"), headers=fields).json()
    assert [tuple(pair) for pair in seen if pair[0].startswith("x-")] == fields


@BOTH
def test_another_path_is_described(hyperpool_server: Server, client, http2: bool) -> None:
    response = client(hyperpool_server, http2=http2).put(hyperpool_server.url("/a/b?c=d"), content=b"unread")
    assert response.json() == {"method": "PUT", "target": "/a/b?c=d"}
    seen = hyperpool_server.requests[-1]
    assert (seen.method, seen.target, seen.http_version) == ("PUT", "/a/b?c=d", "2" if http2 else "1.1")


def test_http_client_reads_trailers_and_keeps_the_connection(hyperpool_server: Server) -> None:
    connection = http.client.HTTPSConnection(
        "localhost", hyperpool_server.port, timeout=TIMEOUT_S, context=trusting(hyperpool_server.ca_pem)
    )
    connection.request("GET", "/trailers")
    assert connection.getresponse().read() == b"trailers follow\n"
    connection.request("POST", "/echo", body=iter([b"a", b"b"]), encode_chunked=True)
    assert connection.getresponse().read() == b"ab"
    connection.close()
    assert json.dumps([seen.connection_number for seen in hyperpool_server.requests]) == "[1, 1]"
