"""What cannot be said in HTTP is refused in the caller: a typed error, and not even a connection is opened."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from client_support import H1_PLAIN, H2_PLAIN, Kit, Wire, error_of, raised

import hyperpool
from hyperpool.testing import ScriptedConnection
from stage import WAIT_S

BAD_NAMES = [
    "a\r\nb", "a\rb", "a\nb", "a\0b", "\r\n", "a b", " a", "a ", "a\tb", "a:b", "a:", "", "a(b)", 'a"b', "a/b",
    "a@b", "a[b]", "a{b}", "a,b", "a;b", "a=b", "a?b", "a\\b", "\x7f", "\x80", "é", "ü-name", "\u2028", "名",
    ":path", ":method", ":authority", ":status", ":protocol", ":", ":unknown",
]  # fmt: skip

BAD_VALUES = [
    "a\r\nb: c", "a\rb", "a\nb", "a\0b", "a\r\n", "\na", "a\r\n\r\nGET / HTTP/1.1", "a\x01b", "a\x0bb",
    "a\x0cb", "a\x1bb", "a\x7fb", "snow☃man", "a\u2028b", "\ud800", "č\u010a",
]  # fmt: skip

BAD_METHODS = [
    "GET /evil HTTP/1.1\r\nHost: x\r\n\r\n", "G\rET", "G\nET", "G\0ET", "G ET", " GET", "GET ", "", "GET\t",
    "G(T)", "GÉT", "G/T", "G:T", "CONNECT", "connect", "\ufb01nd", "\u0131",
]  # fmt: skip

BAD_TARGETS = [
    "/a\r\nb", "/a\rb", "/a\nb", "/a\0b", "/a\tb", "/?a\r\nb", "/?a\nb", "/\x7f", "/a\r\n\r\nGET /evil", "/#\n",
    "\n", "\r\n",
]  # fmt: skip

BAD_URLS = [
    "", "/", "/path", "example.test", "//example.test/", "ftp://example.test/", "file:///etc/passwd", "http:",
    "http://", "http:///path", "https://", "http://:80/", "http://?query", "http://a b/", "http://a\tb/",
    "http://a\nb/", "http://a\\b/", "http://a\0b/", "http://[::1/", "http://::1/", "http://[::1]x/",
    "http://[zz]/", "http://a,b@c d/", "http://user\n@a/", "ws://a/", "javascript:alert(1)", "http//a/",
    "http:/a/", " http://a/", "http://" + "a" * 64 + "é.test/",
]  # fmt: skip

BAD_PORTS = ["0", "65536", "99999", "999999999999999999999", "-1", "+80", "8o", "80 ", "0x50", "\uff18\uff10"]


@pytest.fixture(params=[H1_PLAIN, H2_PLAIN], ids=str)
def bench(request: pytest.FixtureRequest, kit: Kit) -> Iterator[tuple[Any, Any]]:
    """A server and a client; at the end the server has not even been connected to."""
    server, client = kit.pair(request.param)
    yield server, client
    client.close()
    assert server.connections_accepted == 0
    assert client.pool.stats().threads == 0


@pytest.mark.parametrize("name", BAD_NAMES, ids=ascii)
def test_a_header_name_that_is_no_token_is_refused(bench: Any, name: str) -> None:
    server, client = bench
    error = raised(hyperpool.LocalProtocolError, lambda: client.submit("GET", server.url(), headers={name: "x"}))
    assert (error.processed, error.origin) == ("no", server.origin)
    assert isinstance(error, ValueError)


@pytest.mark.parametrize("name", [b"a\r\nb", b"a b", b"", b":path", b"\xff", b"a\0"], ids=ascii)
def test_a_header_name_of_bytes_that_is_no_token_is_refused(bench: Any, name: bytes) -> None:
    server, client = bench
    raised(hyperpool.LocalProtocolError, lambda: client.submit("GET", server.url(), headers=[(name, b"x")]))


@pytest.mark.parametrize("value", BAD_VALUES, ids=ascii)
def test_a_header_value_with_a_control_character_is_refused_and_not_quoted(bench: Any, value: str) -> None:
    server, client = bench
    headers = {"X-Name": "secret" + value}
    error = raised(hyperpool.LocalProtocolError, lambda: client.submit("GET", server.url(), headers=headers))
    assert "X-Name" in str(error)
    assert "secret" not in str(error), "it may be a credential, and messages end in logs"


@pytest.mark.parametrize("value", [b"a\r\nb", b"a\nb", b"a\0b", b"\x01"], ids=ascii)
def test_a_header_value_of_bytes_with_a_control_character_is_refused(bench: Any, value: bytes) -> None:
    server, client = bench
    raised(hyperpool.LocalProtocolError, lambda: client.submit("GET", server.url(), headers={"X-Name": value}))


@pytest.mark.parametrize("value", [1.5, True, ["a"], object, {"a": 1}], ids=["float", "bool", "list", "type", "dict"])
def test_a_header_value_of_a_wrong_type_is_refused(bench: Any, value: Any) -> None:
    server, client = bench
    raised(hyperpool.LocalProtocolError, lambda: client.submit("GET", server.url(), headers={"X-Name": value}))


@pytest.mark.parametrize("method", BAD_METHODS, ids=ascii)
def test_a_method_that_is_no_token_is_refused(bench: Any, method: str) -> None:
    server, client = bench
    raised(hyperpool.LocalProtocolError, lambda: client.submit(method, server.url()))


@pytest.mark.parametrize("method", [None, 5, b"GET", ["GET"]], ids=repr)
def test_a_method_of_a_wrong_type_is_refused(bench: Any, method: Any) -> None:
    server, client = bench
    raised(hyperpool.LocalProtocolError, lambda: client.submit(method, server.url()))


@pytest.mark.parametrize("target", BAD_TARGETS, ids=ascii)
def test_a_path_or_query_with_a_control_character_is_refused(bench: Any, target: str) -> None:
    server, client = bench
    error = raised(hyperpool.InvalidURL, lambda: client.submit("GET", server.origin + target))
    assert isinstance(error, ValueError) and error.processed == "no"


@pytest.mark.parametrize("url", BAD_URLS, ids=ascii)
def test_a_url_that_cannot_be_requested_is_refused(bench: Any, url: str) -> None:
    _, client = bench
    raised(hyperpool.InvalidURL, lambda: client.submit("GET", url))


@pytest.mark.parametrize("host", ["a<b", "a^b", "a{b", "a'\"b", "a|b"])
def test_a_host_that_is_no_name_is_refused(bench: Any, host: str) -> None:
    _, client = bench
    with pytest.raises((hyperpool.InvalidURL, hyperpool.LocalProtocolError)) as caught:
        client.submit("GET", f"http://{host}/")
    assert caught.value.processed == "no"


@pytest.mark.parametrize("url", [None, 5, b"http://localhost/", ["http://localhost/"]], ids=repr)
@pytest.mark.parametrize("options", [{}, {"params": {"a": 1}}], ids=["bare", "with params"])
def test_a_url_of_a_wrong_type_is_refused(bench: Any, url: Any, options: Any) -> None:
    server, client = bench
    raised(hyperpool.InvalidURL, lambda: client.submit("GET", url, **options))
    with hyperpool.Client(base_url=server.origin) as based:
        raised(hyperpool.InvalidURL, lambda: based.submit("GET", url, **options))


@pytest.mark.parametrize("port", BAD_PORTS, ids=ascii)
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_port_out_of_range_is_refused(bench: Any, scheme: str, port: str) -> None:
    _, client = bench
    raised(hyperpool.InvalidURL, lambda: client.submit("GET", f"{scheme}://localhost:{port}/"))


BAD_HEADER_SETS: dict[str, Any] = {
    "two Hosts": [("Host", "a.test"), ("host", "b.test")],
    "a Host that is none": [("Host", "a b")],
    "a Host with a path": [("Host", "a.test/evil")],
    "a Host with user info": [("Host", "user@a.test")],
    "two lengths": [("Content-Length", "3"), ("content-length", "3")],
    "a negative length": [("Content-Length", "-3")],
    "a length with a sign": [("Content-Length", "+3")],
    "a list of lengths": [("Content-Length", "3, 3")],
    "an endless length": [("Content-Length", "9" * 5_000)],
    "a length beside chunks": [("Content-Length", "3"), ("Transfer-Encoding", "chunked")],
    "a length that is wrong": [("Content-Length", "4")],
    "a length of nothing": [("Content-Length", "0")],
    "a coding that is not chunked": [("Transfer-Encoding", "gzip, chunked")],
    "identity": [("Transfer-Encoding", "identity")],
    "chunked twice": [("Transfer-Encoding", "chunked"), ("Transfer-Encoding", "chunked")],
    "a disguised coding": [("Transfer-Encoding", "xchunked")],
    "an upgrade": [("Upgrade", "websocket"), ("Connection", "Upgrade")],
    "a connection option": [("Connection", "close, content-length")],
    "a TE": [("TE", "gzip")],
}


@pytest.mark.parametrize("name", BAD_HEADER_SETS)
def test_header_fields_that_would_change_the_framing_are_refused(bench: Any, name: str) -> None:
    server, client = bench
    headers = BAD_HEADER_SETS[name]
    raised(hyperpool.LocalProtocolError, lambda: client.submit("POST", server.url(), headers=headers, content=b"abc"))


@pytest.mark.parametrize("where", ["client", "call"])
def test_bad_headers_of_the_client_are_refused_like_those_of_a_call(bench: Any, where: str) -> None:
    server, _ = bench
    bad = {"X-Evil": "a\r\nX-Injected: b"}
    own = hyperpool.Client(headers=bad) if where == "client" else hyperpool.Client()
    with own:
        headers = bad if where == "call" else None
        raised(hyperpool.LocalProtocolError, lambda: own.submit("GET", server.url(), headers=headers))
        assert own.pool.stats().threads == 0


def drain(connection: ScriptedConnection) -> None:
    connection.drain()


def short(pieces: int) -> Iterator[bytes]:
    for _ in range(pieces):
        yield b"ab"


@pytest.mark.parametrize("pieces", [0, 1, 2, 4, 5], ids=lambda n: f"{2 * n} bytes")
def test_a_generator_that_breaks_its_declared_length_is_an_error_in_the_caller(
    kit: Kit, wire: Wire, pieces: int
) -> None:
    server, client = kit.pair(wire)
    headers = {"Content-Length": "6"}
    future = client.submit("POST", server.url("/sha256"), content=short(pieces), headers=headers)
    error = error_of(future, hyperpool.LocalProtocolError)
    assert "6" in str(error) and "Content-Length" in str(error)
    assert error.origin == server.origin
    assert client.get(server.url("/bytes/1")).status_code == 200
    assert not any(one.is_complete for one in server.requests if one.method == "POST")
    assert all(one.body_bytes <= 6 for one in server.requests)


def test_a_generator_that_keeps_its_declared_length_is_sent(kit: Kit, wire: Wire) -> None:
    server, client = kit.pair(wire)
    response = client.post(server.url("/echo"), content=short(3), headers={"Content-Length": "6"})
    assert response.content == b"ababab"


def test_transfer_encoding_chunked_is_taken_for_what_it_means(kit: Kit, wire: Wire) -> None:
    server, client = kit.pair(wire)
    headers = {"Transfer-Encoding": "chunked"}
    assert client.post(server.url("/echo"), content=short(3), headers=headers).content == b"ababab"


def test_a_client_that_had_to_refuse_goes_on(kit: Kit, wire: Wire) -> None:
    server, client = kit.pair(wire)
    good = [client.submit("GET", server.url("/bytes/5")) for _ in range(10)]
    for name in BAD_NAMES:
        raised(hyperpool.LocalProtocolError, lambda name=name: client.get(server.url(), headers={name: "x"}))
    assert [len(future.result(WAIT_S).content) for future in good] == [5] * 10
    assert client.get(server.url("/bytes/6")).status_code == 200


GOOD_URLS = {
    "/a b": "/a%20b",
    "/ä": "/%C3%A4",
    "/%2f%2F": "/%2F%2F",
    "/?q=ä b": "/?q=%C3%A4%20b",
    "?q": "/?q",
    "": "/",
    "/path#fragment": "/path",
    "/a/../b": "/b",
    "/[x]": "/%5Bx%5D",
    '/"<>': "/%22%3C%3E",
}


@pytest.mark.parametrize("given", GOOD_URLS, ids=ascii)
def test_a_url_is_percent_encoded_where_that_is_the_only_thing_it_can_mean(
    kit: Kit, plain_wire: Wire, given: str
) -> None:
    server, client = kit.pair(plain_wire)
    assert client.get(server.origin + given).json()["target"] == GOOD_URLS[given]


@pytest.mark.parametrize("name", ["X-Name", "x_name", "X.Name~", "!#$%&'*+-.^_`|~09azAZ"])
def test_every_token_is_a_good_header_name(kit: Kit, plain_wire: Wire, name: str) -> None:
    server, client = kit.pair(plain_wire)
    assert [name.lower(), "v"] in client.get(server.url("/headers"), headers={name: "v"}).json()


@pytest.mark.parametrize(
    "value", ["", "a", "a b", "a\tb", "é", b"\xc3\xa9", b"\xff", "a" * 8_000], ids=lambda v: ascii(v)[:20]
)
def test_every_field_value_of_the_grammar_arrives_unchanged(kit: Kit, plain_wire: Wire, value: Any) -> None:
    server, client = kit.pair(plain_wire)
    client.get(server.url("/bytes/1"), headers={"X-Name": value})
    expected = value.decode("latin-1") if isinstance(value, bytes) else value
    assert ("x-name", expected) in server.requests[0].headers
