"""urllib3's PoolManager over hyperpool: its requests, bodies, exceptions, Retry, trust and proxies."""

from __future__ import annotations

import codecs
import gzip
import hashlib
import http.cookiejar
import io
import json
import signal
import socket
import ssl
import tempfile
import threading
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import urllib3
from adapter_kit import (
    H1_PLAIN,
    H1_TLS,
    H2_TLS,
    Bench,
    Wire,
    from_threads,
    linux_only,
    option_of_socket_to,
    peer_of,
    raised,
)
from urllib3.exceptions import (
    ClosedPoolError,
    DecodeError,
    EmptyPoolError,
    InsecureRequestWarning,
    InvalidHeader,
    LocationParseError,
    MaxRetryError,
    NameResolutionError,
    NewConnectionError,
    ProtocolError,
    ProxyError,
    ResponseNotChunked,
    SSLError,
)
from urllib3.util import SKIP_HEADER, Retry, Timeout

import hyperpool
from hyperpool.contrib import urllib3 as face
from hyperpool.testing import Disconnect, Reply, Request, Reset, inline, pattern
from proxy_kit import SocksProxy, TunnelProxy
from stage import AUTHORITY, SERVER_CERTIFICATE, WAIT_S, eventually, in_time, is_parked, nobody, opened

# For a server to answer; the connection may take its time.
SHORT = Timeout(connect=WAIT_S, read=0.05)

pytestmark = pytest.mark.usefixtures("bench")


@inline
def mirror(request: Request) -> str:
    """The request's head as JSON."""
    return json.dumps({"method": request.method, "target": request.target, "headers": request.headers})


def values(response: Any, name: str) -> list[str]:
    return [value for key, value in response.json()["headers"] if key == name]


# -- requests ----------------------------------------------------------------------------------------------------------


def test_a_response_is_urllib3s_own_with_version_and_reason(bench: Bench, wire: Wire) -> None:
    server, manager = bench.server(wire), bench.manager()
    response = manager.request("GET", server.url("/bytes/1000"))
    assert isinstance(response, urllib3.HTTPResponse)
    assert (response.status, response.reason, response.version) == (200, "OK", wire.version)
    assert (response.data, response.headers["Content-Length"]) == (pattern(1000), "1000")


def test_the_version_is_named_as_urllib3_names_it(bench: Bench) -> None:
    manager = bench.manager()
    assert manager.request("GET", bench.server(H2_TLS).url()).version_string == "HTTP/2"
    assert manager.request("GET", bench.server(H1_TLS).url()).version_string == "HTTP/1.1"


def test_urllib3_itself_is_left_as_it_was(bench: Bench) -> None:
    assert face.PoolManager is not urllib3.PoolManager
    assert issubclass(face.PoolManager, urllib3.PoolManager)
    assert urllib3.poolmanager.pool_classes_by_scheme["https"] is urllib3.HTTPSConnectionPool


@pytest.mark.slow
def test_64_threads_over_one_manager_share_one_http2_connection(bench: Bench) -> None:
    server, manager = bench.server(), bench.manager(num_pools=2, maxsize=1)
    sizes = from_threads(64, lambda number: len(manager.request("GET", server.url(f"/bytes/{1000 + number}")).data))
    assert sizes == [1000 + number for number in range(64)]
    assert server.connections_accepted == 1


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "PURGE"])
def test_each_method_is_sent(bench: Bench, method: str) -> None:
    server, manager = bench.server(handler=mirror), bench.manager()
    assert manager.request(method, server.url("/x")).json()["method"] == method


def test_head_has_no_body_but_the_headers_of_a_get(bench: Bench, wire: Wire) -> None:
    server, manager = bench.server(wire), bench.manager()
    response = manager.request("HEAD", server.url("/bytes/1000"))
    assert (response.data, response.headers["content-length"]) == (b"", "1000")


def test_204_has_no_body(bench: Bench, wire: Wire) -> None:
    server, manager = bench.server(wire, lambda request: Reply(204)), bench.manager()
    assert (manager.request("GET", server.url()).data, server.requests[0].method) == (b"", "GET")


def test_the_target_of_a_pool_keeps_its_dots(bench: Bench) -> None:
    server, manager = bench.server(handler=mirror), bench.manager()
    pool = manager.connection_from_url(server.url())
    assert pool.request("GET", "/a%2Fb/../c?q=%20").json()["target"] == "/a%2Fb/../c?q=%20"


@pytest.mark.parametrize(("method", "given", "target"), [("OPTIONS", "*", "*"), ("GET", "", "/")])
def test_a_pool_takes_the_targets_without_a_path(
    bench: Bench, wire: Wire, method: str, given: str, target: str
) -> None:
    server, manager = bench.server(wire, mirror), bench.manager()
    pool = manager.connection_from_url(server.url())
    options: Any = {"assert_same_host": False, "retries": False}  # to urllib3 these are another host
    assert pool.urlopen(method, given, **options).json()["target"] == target
    refused = raised(InvalidHeader, lambda: pool.urlopen("GET", "*", **options))
    assert "'*' with OPTIONS" in str(refused)


def test_default_headers_are_those_of_urllib3(bench: Bench, wire: Wire) -> None:
    server, manager = bench.server(wire, mirror), bench.manager()
    response = manager.request("GET", server.url())
    assert values(response, "user-agent") == [f"python-urllib3/{urllib3.__version__}"]
    assert values(response, "accept-encoding") == ["identity"]


def test_skip_header_leaves_a_default_out(bench: Bench) -> None:
    server, manager = bench.server(handler=mirror), bench.manager()
    response = manager.request("GET", server.url(), headers={"User-Agent": SKIP_HEADER, "Accept-Encoding": SKIP_HEADER})
    assert values(response, "user-agent") == values(response, "accept-encoding") == []


def test_skip_header_elsewhere_is_refused(bench: Bench) -> None:
    server, manager = bench.server(), bench.manager()
    error = raised(ValueError, lambda: manager.request("GET", server.url(), headers={"X-A": SKIP_HEADER}))
    assert "x-a" in str(error).lower()


def test_a_header_is_text_or_a_number(bench: Bench) -> None:
    server, manager = bench.server(handler=mirror), bench.manager()
    sent = manager.request("GET", server.url(), headers={"X": 5, "Y": b"6", "Z": bytearray(b"7")})
    assert [values(sent, name) for name in "xyz"] == [["5"], ["6"], ["7"]]
    for value in (None, ["a"], 1.5):
        raised(TypeError, lambda value=value: manager.request("GET", server.url(), headers={"X": value}))


def test_repeated_headers_of_a_header_dict_go_out_apart(bench: Bench) -> None:
    server, manager = bench.server(handler=mirror), bench.manager()
    headers = urllib3.HTTPHeaderDict([("X-A", "1"), ("X-A", "2")])
    assert values(manager.request("GET", server.url(), headers=headers), "x-a") == ["1", "2"]


def test_fields_json_and_headers_of_the_manager_are_sent(bench: Bench) -> None:
    server, manager = bench.server(handler=mirror), bench.manager(headers={"X-Default": "yes"})
    assert manager.request("GET", server.url("/p"), fields={"a": "b c"}).json()["target"] == "/p?a=b+c"
    assert values(manager.request("GET", server.url()), "x-default") == ["yes"]
    assert values(manager.request("POST", server.url(), json={"a": 1}), "content-type") == ["application/json"]


# -- bodies that are sent ----------------------------------------------------------------------------------------------


class Once:
    """Something with read() alone."""

    def __init__(self, data: bytes) -> None:
        self.read = io.BytesIO(data).read


BODIES = {
    "bytes": lambda: b"h\xc3\xa9llo",
    "bytearray": lambda: bytearray(b"h\xc3\xa9llo"),
    "memoryview": lambda: memoryview(b"h\xc3\xa9llo"),
    "str": lambda: "héllo",
    "file": lambda: io.BytesIO(b"h\xc3\xa9llo"),
    "text file": lambda: io.StringIO("héllo"),
    "reader of text": lambda: codecs.getreader("utf-8")(io.BytesIO("héllo".encode())),
    "reader": lambda: Once(b"h\xc3\xa9llo"),
    "list": lambda: [b"h\xc3\xa9", b"", "llo"],
    "generator": lambda: (piece for piece in ["h", "é", b"llo"]),
}


@pytest.mark.parametrize("kind", BODIES)
@pytest.mark.parametrize("chunked", [False, True], ids=["", "chunked"])
def test_bodies_of_every_kind_arrive(bench: Bench, wire: Wire, kind: str, chunked: bool) -> None:
    server, manager = bench.server(wire), bench.manager()
    response = manager.request("POST", server.url("/echo"), body=BODIES[kind](), chunked=chunked)
    assert response.data == "héllo".encode()


def test_temporary_files_arrive_be_they_text_or_not(bench: Bench, wire: Wire) -> None:
    server, manager = bench.server(wire), bench.manager()
    with tempfile.NamedTemporaryFile("w+", encoding="utf-8") as text, tempfile.SpooledTemporaryFile() as octets:
        for file, written in ((text, "héllo"), (octets, "héllo".encode())):
            file.write(written)
            file.seek(0)
            assert manager.request("POST", server.url("/echo"), body=file).data == "héllo".encode()


@pytest.mark.parametrize("kind", ["bytes", "file"])
def test_chunked_declares_no_length_also_where_it_is_known(bench: Bench, kind: str) -> None:
    server, manager = bench.server(H1_PLAIN, mirror), bench.manager()
    response = manager.request("POST", server.url(), body=BODIES[kind](), chunked=True)
    assert (values(response, "transfer-encoding"), values(response, "content-length")) == (["chunked"], [])


@pytest.mark.parametrize("body", [5, {"a": 1}], ids=["int", "dict"])
def test_what_is_no_body_is_a_type_error(bench: Bench, body: Any) -> None:
    server, manager = bench.server(), bench.manager()
    raised(TypeError, lambda: manager.request("POST", server.url(), body=body))
    assert server.connections_accepted == 0


def test_a_piece_of_a_body_that_has_no_octets_is_a_type_error(bench: Bench) -> None:
    server, manager = bench.server(), bench.manager()
    raised(TypeError, lambda: manager.request("POST", server.url("/echo"), body=iter([5])))


def test_an_error_of_the_callers_generator_is_the_callers(bench: Bench) -> None:
    server, manager = bench.server(), bench.manager()

    def pieces() -> Iterator[bytes]:
        yield b"a"
        raise KeyError("mine")

    assert raised(KeyError, lambda: manager.request("POST", server.url("/echo"), body=pieces())).args == ("mine",)


# -- bodies that are read ----------------------------------------------------------------------------------------------


def test_gzip_is_decoded_and_the_raw_bytes_are_there_too(bench: Bench, wire: Wire) -> None:
    server, manager = bench.server(wire), bench.manager()
    assert manager.request("GET", server.url("/gzip")).data == pattern(10_000)
    raw = manager.request("GET", server.url("/gzip"), decode_content=False).data
    assert gzip.decompress(raw) == pattern(10_000)


@pytest.mark.parametrize("path", ["/bytes/200000", "/chunked/200000", "/gzip"])
@pytest.mark.parametrize("amt", [None, 1000, 1 << 16])
def test_stream_gives_the_whole_body_in_pieces(bench: Bench, wire: Wire, path: str, amt: int | None) -> None:
    server, manager = bench.server(wire), bench.manager()
    response = manager.request("GET", server.url(path), preload_content=False)
    pieces = list(response.stream(amt))
    assert b"".join(pieces) == pattern(10_000 if path == "/gzip" else 200_000)
    assert amt is None or max(map(len, pieces)) <= amt
    assert all(pieces)


def test_a_body_of_unknown_length_is_streamed_as_it_comes(bench: Bench, wire: Wire) -> None:
    gate = bench.gate()

    def two_pieces(request: Request) -> Reply:
        def pieces() -> Iterator[bytes]:
            yield b"first"
            opened(gate)
            yield b"second"

        return Reply(200, body=pieces())

    server, manager = bench.server(wire, two_pieces), bench.manager()
    stream = manager.request("GET", server.url(), preload_content=False).stream(1 << 16)
    assert next(stream) == b"first"
    gate.set()
    assert list(stream) == [b"second"]


def test_read_and_tell_count_what_came_over_the_wire(bench: Bench, wire: Wire) -> None:
    server, manager = bench.server(wire), bench.manager()
    response = manager.request("GET", server.url("/bytes/1000"), preload_content=False)
    assert (response.read(10), response.tell(), response.length_remaining) == (pattern(10), 10, 990)
    assert response.read() == pattern(1000)[10:]
    assert response.read() == b""


def test_read1_gives_what_is_there(bench: Bench) -> None:
    server, manager = bench.server(), bench.manager()
    response = manager.request("GET", server.url("/bytes/100000"), preload_content=False)
    parts = list(iter(lambda: response.read1(30_000), b""))
    assert (b"".join(parts), max(map(len, parts)) <= 30_000) == (pattern(100_000), True)


def test_a_response_serves_as_a_binary_file(bench: Bench) -> None:
    server, manager = bench.server(handler=lambda request: "line one\nline two\n"), bench.manager()
    response = manager.request("GET", server.url(), preload_content=False)
    response.auto_close = False  # as urllib3 has it
    assert list(io.TextIOWrapper(io.BufferedReader(response))) == ["line one\n", "line two\n"]


def test_a_response_is_iterated_by_lines(bench: Bench) -> None:
    server, manager = bench.server(handler=lambda request: "one\ntwo\n"), bench.manager()
    assert list(manager.request("GET", server.url(), preload_content=False)) == [b"one\n", b"two\n"]


def test_read_chunked_gives_a_body_of_unknown_length_and_refuses_one_of_known_length(bench: Bench, wire: Wire) -> None:
    server, manager = bench.server(wire), bench.manager()
    response = manager.request("GET", server.url("/chunked/5000"), preload_content=False)
    assert response.supports_chunked_reads()
    assert b"".join(response.read_chunked()) == pattern(5000)
    known = manager.request("GET", server.url("/bytes/5"), preload_content=False)
    raised(ResponseNotChunked, lambda: list(known.read_chunked()))


def test_trailers_are_there_after_the_body(bench: Bench, wire: Wire) -> None:
    server, manager = bench.server(wire), bench.manager()
    response = manager.request("GET", server.url("/trailers"))
    assert response.trailers["X-SHA256"] == hashlib.sha256(response.data).hexdigest()


def test_cookies_are_read_from_the_original_response(bench: Bench, wire: Wire) -> None:
    cookies = (("set-cookie", "a=1; Path=/"), ("set-cookie", "b=2; Path=/"))
    server, manager = bench.server(wire, lambda request: Reply(200, cookies)), bench.manager()
    response = manager.request("GET", server.url(), preload_content=False)
    jar = http.cookiejar.CookieJar()
    jar.extract_cookies(response, urllib.request.Request(server.url()))
    assert sorted(cookie.name for cookie in jar) == ["a", "b"]
    assert response._original_response.msg.get_all("Set-Cookie") == ["a=1; Path=/", "b=2; Path=/"]


def test_drain_conn_reads_the_rest_and_close_resets_the_stream(bench: Bench) -> None:
    server, manager = bench.server(), bench.manager()
    drained = manager.request("GET", server.url("/bytes/100000"), preload_content=False)
    drained.drain_conn()
    assert (drained.closed, drained.tell()) == (True, 100_000)
    closed = manager.request("GET", server.url("/bytes/50000000"), preload_content=False)
    closed.close()
    assert server.wait_until(lambda seen: seen.requests[1].reset_code == 8, WAIT_S)
    assert server.connections_accepted == 1


def test_a_forgotten_response_frees_its_stream_without_a_warning(bench: Bench) -> None:
    # Warnings are errors here.
    server, manager = bench.server(), bench.manager()
    manager.request("GET", server.url("/bytes/50000000"), preload_content=False)
    assert server.wait_until(lambda seen: seen.requests[0].reset_code == 8, WAIT_S)


def test_shutdown_wakes_a_reader_that_waits(bench: Bench) -> None:
    gate = bench.gate()
    server = bench.server(handler=lambda request: opened(gate) or "late")
    manager, errors = bench.manager(), []

    @server.route("/slow")
    def slow(request: Request) -> Reply:
        def pieces() -> Iterator[bytes]:
            yield b"first"
            opened(gate)

        return Reply(200, body=pieces())

    response = manager.request("GET", server.url("/slow"), preload_content=False, release_conn=False)
    assert response.read1(10) == b"first"
    reader = threading.Thread(target=lambda: errors.append(raised(ProtocolError, lambda: response.read(10))))
    reader.start()
    response.shutdown()
    reader.join()
    assert len(errors) == 1


# -- exceptions --------------------------------------------------------------------------------------------------------


def test_a_refused_connection_is_a_new_connection_error(bench: Bench) -> None:
    url = f"http://localhost:{bench.enter(nobody())}/"
    error = raised(NewConnectionError, lambda: bench.manager().request("GET", url, retries=False))
    assert type(error.__cause__) is hyperpool.ConnectError


def test_after_retries_it_is_the_reason_of_a_max_retry_error(bench: Bench) -> None:
    url = f"http://localhost:{bench.enter(nobody())}/"
    error = raised(MaxRetryError, lambda: bench.manager().request("GET", url, retries=Retry(2, backoff_factor=0)))
    assert isinstance(error.reason, NewConnectionError)
    assert isinstance(error.reason.__cause__, hyperpool.ConnectError)


def test_an_unknown_host_is_a_name_resolution_error(bench: Bench) -> None:
    error = raised(
        NameResolutionError, lambda: bench.manager().request("GET", "http://no-such-host.invalid/", retries=False)
    )
    assert type(error.__cause__) is hyperpool.NameResolutionError


def test_an_unknown_authority_is_an_ssl_error(bench: Bench) -> None:
    server, manager = bench.server(), bench.manager(ca_certs=None)
    error = raised(SSLError, lambda: manager.request("GET", server.url(), retries=False))
    assert type(error.__cause__) is hyperpool.CertificateError


def test_a_silent_server_is_a_read_timeout_and_a_timeout_error(bench: Bench, wire: Wire) -> None:
    server, manager = bench.server(wire), bench.manager()
    url = server.url("/fault/silence")
    error = raised(TimeoutError, lambda: manager.request("GET", url, timeout=SHORT, retries=False))
    assert isinstance(error, urllib3.exceptions.ReadTimeoutError)
    assert type(error.__cause__) is hyperpool.ReadTimeout


def test_a_total_timeout_is_a_read_timeout_once_the_request_went_out(bench: Bench) -> None:
    server, manager = bench.server(), bench.manager()
    url = server.url("/fault/silence")
    limit = Timeout(total=0.05)

    def was_sent() -> bool:
        error = raised(TimeoutError, lambda: manager.request("GET", url, timeout=limit, retries=False))
        return isinstance(error, urllib3.exceptions.ReadTimeoutError)

    # On a busy machine the first one's time may be over before there is a connection.
    assert eventually(was_sent)


def test_a_read_timeout_after_retries_is_a_timeout_error_as_the_reason(bench: Bench) -> None:
    server, manager = bench.server(), bench.manager()
    retries = Retry(1, backoff_factor=0)
    url = server.url("/fault/silence")
    error = raised(MaxRetryError, lambda: manager.request("GET", url, timeout=SHORT, retries=retries))
    assert isinstance(error.reason, TimeoutError)
    # The client may have given up before the server has read what it was asked.
    assert server.wait_until(lambda seen: len(seen.requests) == 2, WAIT_S)


def test_a_peer_that_never_shakes_hands_is_a_connect_timeout_and_a_timeout_error(bench: Bench) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        url = f"https://localhost:{mute.getsockname()[1]}/"
        act = lambda: bench.manager().request("GET", url, timeout=Timeout(connect=0.05), retries=False)  # noqa: E731
        error = raised(TimeoutError, act)
    assert isinstance(error, urllib3.exceptions.ConnectTimeoutError)
    assert type(error.__cause__) is hyperpool.ConnectTimeout


def test_a_body_that_stalls_is_a_read_timeout_and_a_timeout_error(bench: Bench, wire: Wire) -> None:
    gate = bench.gate()

    def stall(request: Request) -> Reply:
        def pieces() -> Iterator[bytes]:
            yield b"first"
            opened(gate)

        return Reply(200, body=pieces())

    server, manager = bench.server(wire, stall), bench.manager()
    response = in_time(
        lambda: manager.request("GET", server.url(), preload_content=False, timeout=SHORT, retries=False)
    )
    error = raised(TimeoutError, response.read)
    assert isinstance(error, urllib3.exceptions.ReadTimeoutError)
    assert type(error.__cause__) is hyperpool.ReadTimeout


@pytest.mark.parametrize("fault", [Reset(), Disconnect()], ids=["reset", "disconnect"])
def test_a_response_that_never_begins_is_a_protocol_error(bench: Bench, wire: Wire, fault: Any) -> None:
    server, manager = bench.server(wire, lambda request: fault), bench.manager()
    error = raised(ProtocolError, lambda: manager.request("GET", server.url(), retries=False))
    assert isinstance(error.__cause__, (hyperpool.ConnectionLost, hyperpool.StreamReset))


@pytest.mark.parametrize("preload", [True, False], ids=["preload", "stream"])
def test_a_body_that_is_cut_is_an_incomplete_read(bench: Bench, wire: Wire, preload: bool) -> None:
    cut = Reply(200, (("content-length", "1000"),), pattern(1000), fault_after_bytes=100, fault=Disconnect())
    server, manager = bench.server(wire, lambda request: cut), bench.manager()
    act = lambda: manager.request("GET", server.url(), retries=False, preload_content=preload).read()  # noqa: E731
    error = raised(ProtocolError, act)
    assert isinstance(error.args[1], urllib3.exceptions.IncompleteRead)
    assert isinstance(error.__cause__, hyperpool.HyperpoolError)


def test_what_came_before_the_cut_can_be_read_by_size(bench: Bench, wire: Wire) -> None:
    cut = Reply(200, (("content-length", "1000"),), pattern(1000), fault_after_bytes=100, fault=Disconnect())
    server, manager = bench.server(wire, lambda request: cut), bench.manager()
    response = manager.request("GET", server.url(), preload_content=False)
    assert response.read(500, decode_content=False) == pattern(100)
    raised(ProtocolError, lambda: response.read(500, decode_content=False))


def test_a_body_that_is_not_what_its_coding_says_is_a_decode_error(bench: Bench) -> None:
    reply = Reply(200, (("content-encoding", "gzip"),), b"this is not gzip")
    server, manager = bench.server(handler=lambda request: reply), bench.manager()
    raised(DecodeError, lambda: manager.request("GET", server.url(), retries=False))


def test_line_ends_in_a_header_are_refused_before_anything_is_sent(bench: Bench) -> None:
    server, manager = bench.server(), bench.manager()
    error = raised(ValueError, lambda: manager.request("GET", server.url(), headers={"X-A": "b\r\nX-C: d"}))
    assert isinstance(error, InvalidHeader)
    assert server.connections_accepted == 0


def test_a_host_that_is_none_is_a_location_error(bench: Bench) -> None:
    raised(LocationParseError, lambda: bench.manager().request("GET", "http://a b/"))


def test_errors_survive_pickling(bench: Bench) -> None:
    import pickle

    server, manager = bench.server(), bench.manager()
    error = raised(
        TimeoutError, lambda: manager.request("GET", server.url("/fault/silence"), timeout=SHORT, retries=False)
    )
    twin = pickle.loads(pickle.dumps(error))
    assert (type(twin), str(twin)) == (type(error), str(error).replace(str(error.pool), "None"))


# -- what urllib3 does above -------------------------------------------------------------------------------------------


def test_redirects_are_followed_and_recorded(bench: Bench, wire: Wire) -> None:
    server, manager = bench.server(wire), bench.manager()
    response = manager.request("GET", server.url("/status/302"))
    assert (response.status, response.geturl()) == (200, "/")
    assert [entry.status for entry in response.retries.history] == [302]


def test_authorization_does_not_follow_a_redirect_to_another_origin(bench: Bench) -> None:
    other = bench.server(H1_PLAIN, mirror)
    server = bench.server(H2_TLS, lambda request: Reply(302, (("location", other.url("/there")),)))
    response = bench.manager().request("GET", server.url(), headers={"Authorization": "secret"})
    assert (response.json()["target"], values(response, "authorization")) == ("/there", [])


def test_a_status_of_the_forcelist_is_retried(bench: Bench, wire: Wire) -> None:
    statuses = iter([503, 503, 200])
    server = bench.server(wire, lambda request: Reply(next(statuses), body="done"))
    retries = Retry(3, status_forcelist=[503], backoff_factor=0)
    response = bench.manager(retries=retries).request("GET", server.url())
    assert (response.status, [entry.status for entry in response.retries.history]) == (200, [503, 503])


def test_a_file_is_sent_again_from_where_it_was(bench: Bench) -> None:
    bodies: list[bytes] = []

    def answer(request: Request) -> Reply:
        bodies.append(request.read())
        return Reply(503 if len(bodies) == 1 else 200)

    server, file = bench.server(handler=answer), io.BytesIO(b"skipped body")
    file.seek(8)
    retries = Retry(3, status_forcelist=[503], allowed_methods=None, backoff_factor=0)
    assert bench.manager().request("POST", server.url(), body=file, retries=retries).status == 200
    assert bodies == [b"body", b"body"]


def test_num_requests_counts_and_pools_are_found_by_every_door(bench: Bench) -> None:
    server, manager = bench.server(), bench.manager(maxsize=3)
    pool = manager.connection_from_url(server.url())
    assert manager.connection_from_host("localhost", server.port, "https") is pool
    assert isinstance(pool, urllib3.HTTPSConnectionPool)
    pool.request("GET", "/")
    assert (pool.num_requests, len(manager.pools)) == (1, 1)


def test_block_bounds_the_requests_under_way(bench: Bench) -> None:
    server, manager = bench.server(), bench.manager(maxsize=1, block=True)
    pool = manager.connection_from_url(server.url())
    held = pool.urlopen("GET", "/bytes/1000", preload_content=False)
    raised(EmptyPoolError, lambda: pool.urlopen("GET", "/", pool_timeout=0.01))
    assert held.read(1000) == pattern(1000)
    assert pool.urlopen("GET", "/", pool_timeout=WAIT_S).status == 200


def test_clear_closes_the_connections_and_the_manager_can_be_used_again(bench: Bench) -> None:
    server, manager = bench.server(), bench.manager()
    first = manager.hyperpool
    manager.request("GET", server.url())
    manager.clear()
    assert (first.closed, first.stats().threads) == (True, 0)
    assert manager.request("GET", server.url()).status == 200
    assert server.connections_accepted == 2


def test_clear_does_not_disturb_a_response_that_is_being_read(bench: Bench, wire: Wire) -> None:
    server, manager = bench.server(wire), bench.manager()
    response = manager.request("GET", server.url("/bytes/5000000"), preload_content=False)
    assert response.read(10) == pattern(10)
    manager.clear()
    assert response.read() == pattern(5_000_000)[10:]
    assert server.wait_until(lambda seen: seen.connections_open == 0, WAIT_S)


def test_a_pool_that_was_given_stays_open(bench: Bench) -> None:
    server = bench.server()
    with hyperpool.ConnectionPool() as pool:
        manager = bench.manager(pool=pool)
        manager.request("GET", server.url())
        manager.clear()
        assert not pool.closed
        assert manager.hyperpool is pool


def test_what_was_under_way_when_its_pool_was_closed_is_not_sent_again(bench: Bench, wire: Wire) -> None:
    """The manager has a new ConnectionPool by then, for which only what was never sent is."""
    gate, arrived = threading.Event(), threading.Event()

    def handler(request: Request) -> Reply:
        arrived.set()
        gate.wait(WAIT_S)
        return Reply()

    server, manager = bench.server(wire, handler), bench.manager()
    pool = manager.hyperpool
    with ThreadPoolExecutor(1) as crew:
        asked = crew.submit(manager.request, "GET", server.url(), retries=False)
        opened(arrived)
        manager.clear()
        pool.close(grace_s=0)
        assert isinstance(asked.exception(WAIT_S), ClosedPoolError)
    gate.set()
    assert len(server.requests) == 1 and manager.hyperpool is not pool


def test_ctrl_c_while_waiting_takes_the_request_back(bench: Bench, wire: Wire) -> None:
    gate, waiting = threading.Event(), threading.main_thread()
    server = bench.server(wire, lambda request: gate.wait(WAIT_S) and Reply())
    manager = bench.manager()

    def interrupt() -> None:
        assert eventually(lambda: bool(server.requests) and is_parked(waiting))
        signal.pthread_kill(waiting.ident or 0, signal.SIGINT)

    interrupting = threading.Thread(target=interrupt)
    interrupting.start()
    raised(KeyboardInterrupt, lambda: manager.request("GET", server.url()))
    interrupting.join(WAIT_S)
    assert eventually(lambda: manager.hyperpool.stats().open_streams == 0)
    gate.set()


def test_a_pool_by_itself_closes_what_it_opened(bench: Bench) -> None:
    server = bench.server()
    with face.connection_from_url(server.url(), ca_certs=bench.ca_file) as pool:
        assert pool.request("GET", "/").status == 200
        below = pool.hyperpool
    assert below.closed
    raised(ClosedPoolError, lambda: pool.request("GET", "/"))


def test_http1_only_and_http2_only_managers(bench: Bench) -> None:
    server = bench.server()
    assert bench.manager(http2=False).request("GET", server.url()).version == 11
    plain = bench.server(H1_PLAIN, http2=True)
    assert bench.manager(http1=False).request("GET", plain.url()).version == 20


# -- trust -------------------------------------------------------------------------------------------------------------


def status_with(bench: Bench, server: Any, **options: Any) -> int:
    status: int = bench.manager(**{"ca_certs": None, **options}).request("GET", server.url(), retries=False).status
    return status


def fingerprint(algorithm: str = "sha256") -> str:
    der = ssl.PEM_cert_to_DER_cert(SERVER_CERTIFICATE[0].decode())
    return hashlib.new(algorithm, der).hexdigest()


def test_without_a_check_there_is_urllib3s_warning(bench: Bench) -> None:
    server = bench.server()
    with pytest.warns(InsecureRequestWarning, match="localhost"):
        assert status_with(bench, server, cert_reqs="CERT_NONE") == 200


def test_authorities_come_from_a_file_from_text_or_from_both(bench: Bench) -> None:
    server, pem = bench.server(), AUTHORITY.ca_pem.decode()
    assert status_with(bench, server, ca_certs=bench.ca_file) == 200
    assert status_with(bench, server, ca_cert_data=pem) == 200
    assert status_with(bench, server, ca_cert_data=ssl.PEM_cert_to_DER_cert(pem)) == 200
    assert status_with(bench, server, ca_cert_data=pem, ca_certs=bench.ca_file) == 200


def test_a_context_of_the_callers_own_decides(bench: Bench) -> None:
    server = bench.server()
    trusting = ssl.create_default_context(cafile=bench.ca_file)
    assert status_with(bench, server, ssl_context=trusting) == 200
    raised(SSLError, lambda: status_with(bench, server, ssl_context=ssl.create_default_context()))


@pytest.mark.parametrize("algorithm", ["sha256", "sha1", "md5"])
def test_a_pinned_fingerprint_must_match(bench: Bench, algorithm: str) -> None:
    server = bench.server()
    assert status_with(bench, server, cert_reqs="CERT_NONE", assert_fingerprint=fingerprint(algorithm)) == 200
    wrong = "00" * hashlib.new(algorithm).digest_size
    error = raised(SSLError, lambda: status_with(bench, server, cert_reqs="CERT_NONE", assert_fingerprint=wrong))
    assert "fingerprint" in str(error)


def test_what_is_no_fingerprint_is_said(bench: Bench) -> None:
    server = bench.server()
    error = raised(SSLError, lambda: status_with(bench, server, assert_fingerprint="12:34"))
    assert "12:34" in str(error)


def test_another_name_may_be_expected_or_none_at_all(bench: Bench) -> None:
    certificate = AUTHORITY.issue("elsewhere.test")
    server = bench.server(certificate=certificate)
    trusted = {"ca_certs": bench.ca_file}
    raised(SSLError, lambda: status_with(bench, server, **trusted))
    assert status_with(bench, server, **trusted, assert_hostname="elsewhere.test") == 200
    assert status_with(bench, server, **trusted, assert_hostname=False) == 200
    assert status_with(bench, server, **trusted, server_hostname="elsewhere.test") == 200
    error = raised(SSLError, lambda: status_with(bench, server, **trusted, assert_hostname="third.test"))
    assert "third.test" in str(error)


def test_a_client_certificate_is_shown(bench: Bench, tmp_path: Path) -> None:
    cert, key = AUTHORITY.issue("client.test", eku=("client",))
    server = bench.server(client_ca_pem=AUTHORITY.ca_pem)
    (tmp_path / "cert.pem").write_bytes(cert)
    (tmp_path / "key.pem").write_bytes(key)
    trusted = {"ca_certs": bench.ca_file}
    files = {"cert_file": str(tmp_path / "cert.pem"), "key_file": str(tmp_path / "key.pem")}
    assert status_with(bench, server, **trusted, **files) == 200
    raised((SSLError, ProtocolError), lambda: status_with(bench, server, **trusted))  # type: ignore[arg-type]


@pytest.mark.parametrize("nothing", ["", False])
def test_sources_of_certificates_that_name_nothing_are_none(bench: Bench, nothing: Any) -> None:
    server, manager = bench.server(), bench.manager(cert_file=nothing, key_file=nothing, ca_cert_dir=nothing)
    assert manager.request("GET", server.url()).status == 200


def test_the_lowest_tls_version_is_held_to(bench: Bench) -> None:
    server = bench.server()
    server.tls_context.maximum_version = ssl.TLSVersion.TLSv1_2
    trusted = {"ca_certs": bench.ca_file}
    assert status_with(bench, server, **trusted, ssl_minimum_version=ssl.TLSVersion.TLSv1_2) == 200
    act = lambda: status_with(bench, server, **trusted, ssl_minimum_version=ssl.TLSVersion.TLSv1_3)  # noqa: E731
    raised(SSLError, act)


# -- sockets -----------------------------------------------------------------------------------------------------------

KEEPALIVE_AFTER_1234_S = (socket.IPPROTO_TCP, getattr(socket, "TCP_KEEPIDLE", 4), 1234)


@linux_only
def test_connections_of_a_manager_come_from_its_source_address(bench: Bench, wire: Wire) -> None:
    manager = bench.manager(source_address=("127.0.0.2", 0), retries=False)
    assert peer_of(bench, wire, lambda url: manager.request("GET", url)) == "127.0.0.2"


@linux_only
def test_a_pool_that_was_made_by_itself_has_a_source_address_too(bench: Bench) -> None:
    def ask(url: str) -> None:
        with face.connection_from_url(url, source_address=("127.0.0.3", 0)) as pool:
            pool.urlopen("GET", "/", retries=False)

    assert peer_of(bench, H1_PLAIN, ask) == "127.0.0.3"


def test_requests_from_two_addresses_share_no_connection_and_those_from_one_do(bench: Bench, wire: Wire) -> None:
    server, shared = bench.server(wire), bench.enter(hyperpool.ConnectionPool(http2=wire.http2))
    addresses = (("127.0.0.1", 0), None, ("127.0.0.1", 0), ("", 0))
    answers = [
        bench.manager(pool=shared, source_address=given).request("GET", server.url("/bytes/9")).data
        for given in addresses
    ]
    assert (answers, shared.stats().connections) == ([pattern(9)] * 4, 2)


@pytest.mark.parametrize(
    "options",
    [
        {"source_address": ("not.an.address", 0)},
        {"source_address": ("127.0.0.1", 70_000)},
        {"socket_options": [(6, 1)]},
        {"socket_options": [(6, 1, "on")]},
        {"socket_options": [(1 << 40, 1, 1)]},
    ],
    ids=str,
)
def test_what_no_socket_would_take_is_said_at_once(bench: Bench, options: Any) -> None:
    server = bench.server(H1_PLAIN)
    raised(ValueError, lambda: bench.manager(**options).request("GET", server.url()))


def test_an_address_of_another_machine_is_no_connection(bench: Bench, wire: Wire) -> None:
    server, manager = bench.server(wire), bench.manager(source_address=("192.0.2.1", 0), retries=False)
    assert "from 192.0.2.1" in str(raised(NewConnectionError, lambda: manager.request("GET", server.url())))


@linux_only
def test_socket_options_are_set_on_the_socket(bench: Bench, wire: Wire) -> None:
    options = [*urllib3.connection.HTTPConnection.default_socket_options, KEEPALIVE_AFTER_1234_S]
    server, manager = bench.server(wire), bench.manager(socket_options=options)
    assert manager.request("GET", server.url("/bytes/9")).data == pattern(9)
    assert option_of_socket_to(server.port, *KEEPALIVE_AFTER_1234_S[:2]) == 1234


def test_an_option_that_the_system_refuses_is_no_connection(bench: Bench) -> None:
    server, manager = bench.server(H1_PLAIN), bench.manager(socket_options=[(6, 9999, 1)], retries=False)
    raised(NewConnectionError, lambda: manager.request("GET", server.url()))


# -- proxies -----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_32_threads_share_one_tunnel_to_an_https_origin(bench: Bench) -> None:
    server = bench.server()
    with TunnelProxy() as proxy:
        manager = bench.enter(
            face.ProxyManager(proxy.url(), proxy_headers={"Proxy-Authorization": "Basic eDp5"}, ca_certs=bench.ca_file)
        )
        versions = from_threads(32, lambda number: manager.request("GET", server.url("/headers")).version)
        assert (versions, proxy.tunnels) == ([20] * 32, 1)
        assert b"Proxy-Authorization: Basic eDp5" in proxy.heads[0]
        assert all(name != "proxy-authorization" for name, _ in manager.request("GET", server.url("/headers")).json())
        manager.clear()


def test_http_is_forwarded_by_the_proxy_with_an_absolute_target(bench: Bench) -> None:
    proxy = bench.server(H1_PLAIN, mirror)
    manager = bench.enter(face.proxy_from_url(proxy.url(), proxy_headers={"Proxy-Authorization": "Basic eDp5"}))
    response = manager.request("GET", "http://elsewhere.test/path?q=1")
    assert response.json()["target"] == "http://elsewhere.test/path?q=1"
    assert values(response, "proxy-authorization") == ["Basic eDp5"]
    assert (values(response, "accept"), values(response, "host")) == (["*/*"], ["elsewhere.test"])


def test_a_pool_may_be_used_as_a_proxy(bench: Bench) -> None:
    proxy = bench.server(H1_PLAIN, mirror)
    pool = bench.enter(face.connection_from_url(proxy.url()))
    response = pool.urlopen("GET", "http://elsewhere.test/path", assert_same_host=False)
    assert response.json()["target"] == "http://elsewhere.test/path"


def test_a_proxy_that_refuses_is_a_proxy_error(bench: Bench) -> None:
    with TunnelProxy(answer=lambda head: b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n") as proxy:
        manager = bench.enter(face.ProxyManager(proxy.url(), ca_certs=bench.ca_file))
        error = raised(ProxyError, lambda: manager.request("GET", "https://elsewhere.test/", retries=False))
    assert type(error.__cause__) is hyperpool.ProxyError
    assert error.__cause__.status == 407


def test_a_proxy_that_is_not_there_is_a_proxy_error(bench: Bench) -> None:
    manager = bench.enter(face.ProxyManager(f"http://localhost:{bench.enter(nobody())}"))
    raised(ProxyError, lambda: manager.request("GET", "http://elsewhere.test/", retries=False))


def test_socks_proxies_resolve_the_name_where_asked_to(bench: Bench) -> None:
    server = bench.server()
    with SocksProxy(credentials=(b"me", b"p:w")) as proxy:
        manager = bench.enter(face.SOCKSProxyManager(proxy.url(), "me", "p:w", ca_certs=bench.ca_file))
        assert manager.request("GET", server.url()).version == 20
        assert (proxy.asked, proxy.users) == ([("localhost", server.port)], [(b"me", b"p:w")])
        manager.clear()


@pytest.mark.parametrize("url", ["socks4://localhost:1", "http://localhost:1"])
def test_other_schemes_than_socks5_are_refused(url: str) -> None:
    raised(ValueError, lambda: face.SOCKSProxyManager(url))


@pytest.mark.parametrize("option", ["proxy_ssl_context", "use_forwarding_for_https"])
def test_proxy_options_that_are_not_possible_are_refused(bench: Bench, option: str) -> None:
    value = ssl.create_default_context() if option == "proxy_ssl_context" else True
    manager = bench.enter(face.ProxyManager("https://localhost:1", **{option: value}))
    raised(ValueError, lambda: manager.request("GET", "https://elsewhere.test/"))


# -- what stands on it -------------------------------------------------------------------------------------------------


def test_minio_works_over_the_manager(bench: Bench) -> None:
    minio = pytest.importorskip("minio", reason="minio is not installed")
    stored: dict[str, bytes] = {}

    def s3(request: Request) -> Reply:
        dates = (("last-modified", "Wed, 21 Oct 2015 07:28:00 GMT"), ("etag", '"0"'))
        if request.method == "PUT":
            stored[request.path] = request.read()
        elif request.method == "GET" and request.path in stored:
            return Reply(200, dates, stored[request.path])
        return Reply(200, dates)

    server, manager = bench.server(handler=s3), bench.manager()
    client = minio.Minio(f"localhost:{server.port}", "access", "secret", region="here", http_client=manager)
    client.put_object(bucket_name="bucket", object_name="name", data=io.BytesIO(pattern(10_000)), length=10_000)
    got = client.get_object(bucket_name="bucket", object_name="name")
    assert (got.read(), got.version, server.connections_accepted) == (pattern(10_000), 20, 1)
    got.close()
    got.release_conn()
