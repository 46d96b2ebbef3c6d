"""httpx.Client over hyperpool: its requests, bodies, exceptions, timeouts, trust, proxies and endings."""

from __future__ import annotations

import errno
import gzip
import hashlib
import io
import itertools
import json
import os
import socket
import ssl
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
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
from httpx_kit import client_of

import hyperpool
from hyperpool import errors
from hyperpool.contrib.httpx import HyperpoolTransport
from hyperpool.contrib.httpx.errors import as_httpx_raises
from hyperpool.contrib.httpx.sending import as_limits, as_proxy
from hyperpool.testing import Disconnect, Reply, Request, Reset, ScriptedPeer, inline, pattern
from proxy_kit import SocksProxy, TunnelProxy
from stage import AUTHORITY, SERVER_CERTIFICATE, WAIT_S, nobody, opened

_VERSIONS = {True: "HTTP/2", False: "HTTP/1.1"}
PIECE = bytes(64 << 10)


@inline
def mirror(request: Request) -> str:
    """The request's head as JSON."""
    return json.dumps({"method": request.method, "target": request.target, "headers": request.headers})


def values(response: Any, name: str) -> list[str]:
    return [value for key, value in response.json()["headers"] if key == name]


# -- requests and responses --------------------------------------------------------------------------------------------


def test_a_response_is_httpxs_own_with_version_and_reason(bench: Bench, wire: Wire) -> None:
    server, client = bench.server(wire), client_of(bench)
    response = client.get(server.url("/bytes/1000"))
    assert isinstance(response, httpx.Response)
    assert (response.status_code, response.reason_phrase) == (200, "OK")
    assert (response.http_version, response.content) == (_VERSIONS[wire.http2], pattern(1000))
    assert response.headers["Content-Length"] == "1000" and response.elapsed.total_seconds() > 0


def test_extensions_say_what_there_is_to_say(bench: Bench) -> None:
    client = client_of(bench)
    h2 = client.get(bench.server(H2_TLS).url()).extensions
    h1 = client.get(bench.server(H1_TLS).url()).extensions
    assert (h2["http_version"], h2["stream_id"], "reason_phrase" in h2) == (b"HTTP/2", 1, False)
    assert (h1["http_version"], h1["reason_phrase"], "stream_id" in h1) == (b"HTTP/1.1", b"OK", False)


def test_the_reason_of_http1_is_the_servers(bench: Bench) -> None:
    script = ScriptedPeer(_says(b"HTTP/1.1 299 Rather Fine\r\nContent-Length: 0\r\n\r\n"), tls=False)
    with script as peer:
        assert client_of(bench).get(f"http://127.0.0.1:{peer.port}/").reason_phrase == "Rather Fine"


def _says(answer: bytes) -> Any:
    def script(peer: Any) -> None:
        peer.recv_until(b"\r\n\r\n")
        peer.send(answer)

    return script


@pytest.mark.slow
def test_64_threads_over_one_client_share_one_http2_connection(bench: Bench) -> None:
    server, client = bench.server(), client_of(bench)
    sizes = from_threads(64, lambda number: len(client.get(server.url(f"/bytes/{1000 + number}")).content))
    assert sizes == [1000 + number for number in range(64)]
    assert server.connections_accepted == 1


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "PURGE"])
def test_each_method_is_sent(bench: Bench, method: str) -> None:
    server, client = bench.server(handler=mirror), client_of(bench)
    assert client.request(method, server.url("/x")).json()["method"] == method


def test_head_and_204_have_no_body(bench: Bench, wire: Wire) -> None:
    server, client = bench.server(wire), client_of(bench)
    assert (client.head(server.url("/gzip")).content, client.get(server.url("/status/204")).content) == (b"", b"")


def test_headers_go_out_in_their_order(bench: Bench, wire: Wire) -> None:
    server, client = bench.server(wire, mirror), client_of(bench)
    fields = [("X-B", "1"), ("X-A", "2"), ("X-B", "3")]
    sent = client.get(server.url(), headers=fields).json()["headers"]
    assert [pair for pair in sent if pair[0].startswith("x-")] == [["x-b", "1"], ["x-a", "2"], ["x-b", "3"]]


def test_a_host_header_names_another_authority(bench: Bench, wire: Wire) -> None:
    server, client = bench.server(wire), client_of(bench)
    client.get(server.url(), headers={"Host": "other.test"})
    assert server.requests[0].authority == "other.test"


def test_the_target_is_as_httpx_wrote_it_or_as_its_extension_says(bench: Bench, wire: Wire) -> None:
    server, client = bench.server(wire, mirror), client_of(bench)
    assert client.get(server.url("/a%2Fb/../c"), params={"q": "ä b"}).json()["target"] == "/c?q=%C3%A4+b"
    assert client.get(server.url("/a%2Fb?q=%20")).json()["target"] == "/a%2Fb?q=%20"
    assert client.options(server.url(), extensions={"target": b"*"}).json()["target"] == "*"
    assert client.request(b"GET", server.url(), extensions={"target": "/x"}).json()["target"] == "/x"  # type: ignore[arg-type]


def test_redirects_cookies_and_auth_are_httpxs_own(bench: Bench, wire: Wire) -> None:
    server = bench.server(wire, mirror)
    server.route("/set")(lambda request: Reply(302, [("set-cookie", "a=1; Path=/"), ("location", "/there")]))
    client = client_of(bench, auth=("u", "p"), follow_redirects=True)
    answer = client.get(server.url("/set"))
    assert [one.status_code for one in answer.history] == [302]
    assert (values(answer, "cookie"), values(answer, "authorization")) == (["a=1"], ["Basic dTpw"])


@pytest.mark.parametrize("status", [302, 307])
def test_a_redirect_is_followed_with_the_body_that_it_calls_for_and_no_chunks(
    bench: Bench, wire: Wire, status: int
) -> None:
    """To follow one, httpx makes a request whose body is a stream, even where there is nothing in it."""
    server = bench.server(wire, mirror)
    server.route("/go")(lambda request: Reply(status, [("location", "/there")]))
    client = client_of(bench, follow_redirects=True)
    for method, content in (("GET", None), ("POST", b"body")):
        answer = client.request(method, server.url("/go"), content=content)
        kept = status == 307 and content is not None
        assert (values(answer, "content-length"), values(answer, "transfer-encoding")) == (["4"] if kept else [], [])


def test_digest_auth_sends_its_body_again(bench: Bench, wire: Wire) -> None:
    challenge = [("www-authenticate", 'Digest realm="r", nonce="n", qop="auth", algorithm=MD5')]

    def handler(request: Request) -> Reply:
        body = request.read()
        return Reply(200, body=body) if request.header("authorization") else Reply(401, challenge)

    server, client = bench.server(wire, handler), client_of(bench)
    assert client.post(server.url(), content=b"body", auth=httpx.DigestAuth("u", "p")).content == b"body"


def test_event_hooks_are_called(bench: Bench) -> None:
    seen: list[str] = []
    hooks: Any = {"request": [lambda one: seen.append("request")], "response": [lambda one: seen.append("response")]}
    client_of(bench, event_hooks=hooks).get(bench.server().url())
    assert seen == ["request", "response"]


def test_mounts_choose_between_transports(bench: Bench) -> None:
    tls, plain = bench.server(), bench.server(H1_PLAIN)
    mounted = HyperpoolTransport(verify=bench.ca_file)
    with httpx.Client(mounts={"https://": mounted}, trust_env=False) as client:
        assert client.get(tls.url()).http_version == "HTTP/2"
        assert client.get(plain.url()).http_version == "HTTP/1.1"
        assert len(mounted.pool.stats().origins) == 1


def test_coded_bodies_are_decoded_by_httpx(bench: Bench, wire: Wire) -> None:
    server, client = bench.server(wire), client_of(bench)
    assert client.get(server.url("/gzip")).content == client.get(server.url("/deflate")).content == pattern(10_000)
    with client.stream("GET", server.url("/gzip")) as response:
        assert gzip.decompress(b"".join(response.iter_raw())) == pattern(10_000)


def test_trailers_are_an_extension_filled_at_the_end(bench: Bench, wire: Wire) -> None:
    server, client = bench.server(wire), client_of(bench)
    response = client.get(server.url("/trailers"))
    ((name, digest),) = response.extensions["trailing_headers"]
    assert (name, len(digest)) == (b"x-sha256", 64)


# -- bodies that go out ------------------------------------------------------------------------------------------------


def digest_of(data: bytes) -> dict[str, Any]:
    return {"sha256": hashlib.sha256(data).hexdigest(), "length": len(data)}


def test_bytes_forms_json_and_files_are_sent(bench: Bench, wire: Wire) -> None:
    server, client = bench.server(wire), client_of(bench)
    assert client.post(server.url("/echo"), content=b"abc").content == b"abc"
    assert client.post(server.url("/echo"), data={"a": "b c"}).content == b"a=b+c"
    assert client.post(server.url("/echo"), json={"a": 1}).json() == {"a": 1}
    assert b'filename="f.bin"' in client.post(server.url("/echo"), files={"f": ("f.bin", io.BytesIO(b"x"))}).content


def test_a_generator_is_streamed(bench: Bench, wire: Wire) -> None:
    server, client = bench.server(wire), client_of(bench)
    seen = client.post(server.url("/sha256"), content=(PIECE for _ in range(64))).json()
    assert seen == digest_of(bytes(4 << 20))


def test_a_file_is_streamed_with_its_length(bench: Bench, wire: Wire) -> None:
    server, client = bench.server(wire), client_of(bench)
    assert client.post(server.url("/sha256"), content=io.BytesIO(pattern(300_000))).json() == digest_of(
        pattern(300_000)
    )
    assert dict(server.requests[0].headers)["content-length"] == "300000"


def test_an_empty_body_is_declared_for_post_and_not_for_get(bench: Bench, wire: Wire) -> None:
    server, client = bench.server(wire, mirror), client_of(bench)
    assert values(client.post(server.url()), "content-length") == ["0"]
    assert values(client.get(server.url()), "content-length") == []


def test_what_a_generator_raises_is_raised(bench: Bench, wire: Wire) -> None:
    server, client = bench.server(wire), client_of(bench)

    def body() -> Iterator[bytes]:
        yield PIECE
        raise KeyError("mine")

    assert str(raised(KeyError, lambda: client.post(server.url("/echo"), content=body()))) == "'mine'"


def test_a_generator_cannot_be_sent_again_and_httpx_says_so(bench: Bench, wire: Wire) -> None:
    server, client = bench.server(wire, lambda request: Reply(307, [("location", "/")])), client_of(bench)
    body = (b"x" for _ in range(2))
    raised(httpx.StreamConsumed, lambda: client.post(server.url(), content=body, follow_redirects=True))


def test_an_early_answer_is_given_while_the_body_still_goes_out(bench: Bench, wire: Wire) -> None:
    server, client = bench.server(wire), client_of(bench)
    assert client.post(server.url("/early/413"), content=(PIECE for _ in itertools.count())).status_code == 413


# -- bodies that come in -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/bytes/3000000", "/chunked/3000000"])
def test_a_body_is_streamed(bench: Bench, wire: Wire, path: str) -> None:
    server, client = bench.server(wire), client_of(bench)
    with client.stream("GET", server.url(path)) as response:
        assert b"".join(response.iter_bytes(10_000)) == pattern(3_000_000)


def test_lines_and_text_are_httpxs_own(bench: Bench) -> None:
    server, client = bench.server(handler=lambda request: Reply(body=iter([b"a\nb", b"c\n"]))), client_of(bench)
    with client.stream("GET", server.url()) as response:
        assert list(response.iter_lines()) == ["a", "bc"]


def test_an_unread_body_delays_no_other_thread_and_stays_within_its_window(bench: Bench) -> None:
    server, client = bench.server(), client_of(bench)
    given: list[int] = []
    server.route("/huge")(lambda request: Reply(body=(given.append(1) or PIECE for _ in range(1600))))
    with client.stream("GET", server.url("/huge")):
        assert from_threads(16, lambda n: len(client.get(server.url(f"/bytes/{n}")).content)) == [*range(16)]
        assert len(given) * len(PIECE) <= client_window(client) + (1 << 20)
    assert server.connections_accepted == 1


def client_window(client: httpx.Client) -> int:
    transport: Any = client._transport
    window: int = transport.pool.limits.stream_window_bytes
    return window


def test_leaving_a_stream_early_resets_it(bench: Bench) -> None:
    server, client = bench.server(), client_of(bench)
    server.route("/huge")(lambda request: Reply(body=(PIECE for _ in range(1600))))
    with client.stream("GET", server.url("/huge")) as response:
        next(response.iter_raw())
    assert server.wait_until(lambda server: server.requests[0].reset_code == 8, WAIT_S)
    assert client.get(server.url("/bytes/3")).content == pattern(3)
    assert server.connections_accepted == 1


def test_leaving_a_stream_early_closes_an_http1_socket(bench: Bench) -> None:
    server, client = bench.server(H1_TLS), client_of(bench)
    server.route("/huge")(lambda request: Reply(body=(PIECE for _ in range(1600))))
    with client.stream("GET", server.url("/huge")) as response:
        next(response.iter_raw())
    assert server.wait_until(lambda server: server.connections_open == 0, WAIT_S)


# -- exceptions --------------------------------------------------------------------------------------------------------


def _lost(cause: BaseException | None) -> errors.ConnectionLost:
    error = errors.ConnectionLost("gone", processed="maybe")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (errors.PoolTimeout("m"), httpx.PoolTimeout),
        (errors.PoolFull("m"), httpx.PoolTimeout),
        (errors.ConnectTimeout("m"), httpx.ConnectTimeout),
        (errors.WriteTimeout("m"), httpx.WriteTimeout),
        (errors.ReadTimeout("m"), httpx.ReadTimeout),
        (errors.TotalTimeout("m"), httpx.ReadTimeout),
        (errors.ConnectError("m"), httpx.ConnectError),
        (errors.NameResolutionError("m"), httpx.ConnectError),
        (errors.TlsError("m"), httpx.ConnectError),
        (errors.CertificateError("m"), httpx.ConnectError),
        (errors.ProxyError("m"), httpx.ProxyError),
        (errors.StreamReset("m", code=2), httpx.RemoteProtocolError),
        (errors.RemoteProtocolError("m"), httpx.RemoteProtocolError),
        (errors.LocalProtocolError("m"), httpx.LocalProtocolError),
        (errors.InvalidURL("m"), httpx.LocalProtocolError),
        (errors.DecodeError("m"), httpx.DecodingError),
        (errors.ResponseClosed("m"), httpx.ReadError),
        (errors.PoolClosed("m"), httpx.ConnectError),
        (errors.PoolClosed("m", processed="maybe"), httpx.ReadError),
        (_lost(None), httpx.RemoteProtocolError),
        (_lost(OSError(errno.ECONNRESET, "reset")), httpx.ReadError),
    ],
)
def test_each_error_has_its_httpx_class(error: errors.HyperpoolError, kind: type[Exception]) -> None:
    request = httpx.Request("GET", "https://a.test/")
    made = as_httpx_raises(error, request)
    assert (type(made), str(made), made.request) == (kind, str(error), request)


def test_a_refused_connection_is_a_connect_error(bench: Bench) -> None:
    server, client = bench.server(), client_of(bench)
    server.close()
    bench.enter(nobody(server.port))
    error = raised(httpx.ConnectError, lambda: client.get(server.url()))
    assert isinstance(error.__cause__, hyperpool.ConnectError) and error.request.url == server.url()


def test_an_untrusted_certificate_is_a_connect_error(bench: Bench) -> None:
    server = bench.server()
    error = raised(httpx.ConnectError, lambda: client_of(bench, transport={"verify": True}).get(server.url()))
    assert isinstance(error.__cause__, hyperpool.CertificateError)


def test_a_server_that_hangs_up_is_a_remote_protocol_error(bench: Bench) -> None:
    server, client = bench.server(H1_PLAIN, lambda request: Disconnect()), client_of(bench)
    raised(httpx.RemoteProtocolError, lambda: client.get(server.url()))


def test_a_socket_that_fails_is_a_read_error(bench: Bench) -> None:
    server, client = bench.server(H1_PLAIN, lambda request: Disconnect(rst=True)), client_of(bench)
    raised(httpx.ReadError, lambda: client.get(server.url()))


def test_a_reset_in_mid_body_is_a_remote_protocol_error_after_what_came(bench: Bench) -> None:
    cut = Reply(body=iter([PIECE] * 4), fault=Reset(), fault_after_bytes=3 * len(PIECE))
    server, client = bench.server(handler=lambda request: cut), client_of(bench)
    received = 0
    with client.stream("GET", server.url()) as response:
        with pytest.raises(httpx.RemoteProtocolError) as caught:
            for piece in response.iter_raw():
                received += len(piece)
    assert (received, caught.value.request.url) == (3 * len(PIECE), server.url())


def test_other_schemes_are_unsupported(bench: Bench) -> None:
    client = client_of(bench)
    raised(httpx.UnsupportedProtocol, lambda: client.get("ftp://localhost/"))
    raised(httpx.UnsupportedProtocol, lambda: client.get("/relative"))
    raised(httpx.LocalProtocolError, lambda: client.get("http://a.test:99999/"))


def test_headers_that_http_forbids_are_local_protocol_errors(bench: Bench) -> None:
    client = client_of(bench)
    raised(httpx.LocalProtocolError, lambda: client.get("http://localhost/", headers={"A": "b\nc"}))


# -- time --------------------------------------------------------------------------------------------------------------


def test_a_silent_server_is_a_read_timeout_and_harms_no_sibling(bench: Bench, wire: Wire) -> None:
    server, client = bench.server(wire), client_of(bench)
    raised(httpx.ReadTimeout, lambda: client.get(server.url("/fault/silence"), timeout=httpx.Timeout(None, read=0.05)))
    assert client.get(server.url("/bytes/3")).content == pattern(3)


def test_a_peer_that_takes_nothing_is_a_write_timeout(bench: Bench) -> None:
    server, client = bench.server(), client_of(bench)
    client.get(server.url())
    server.pause_reading()
    body = (PIECE for _ in range(1000))
    raised(httpx.WriteTimeout, lambda: client.post(server.url(), content=body, timeout=httpx.Timeout(None, write=0.1)))
    server.resume_reading()


def test_a_handshake_that_hangs_is_a_connect_timeout(bench: Bench) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"https://127.0.0.1:{listener.getsockname()[1]}/"
        client = client_of(bench)
        raised(httpx.ConnectTimeout, lambda: client.get(url, timeout=httpx.Timeout(None, connect=0.05)))


def test_waiting_for_a_place_is_a_pool_timeout(bench: Bench) -> None:
    server = bench.server(H1_PLAIN)
    gate = bench.gate()
    server.route("/slow")(lambda request: opened(gate) or b"")
    client = client_of(bench, transport={"limits": httpx.Limits(max_connections=1)})
    with ThreadPoolExecutor(1) as crew:
        slow = crew.submit(client.get, server.url("/slow"))
        assert server.wait_until(lambda server: len(server.requests) == 1, WAIT_S)
        raised(httpx.PoolTimeout, lambda: client.get(server.url(), timeout=httpx.Timeout(None, pool=0.05)))
        gate.set()
        assert slow.result(WAIT_S).status_code == 200


def test_without_the_extension_a_transport_waits_for_ever(bench: Bench) -> None:
    server, transport = bench.server(), bench.enter(HyperpoolTransport(verify=bench.ca_file))
    response = transport.handle_request(httpx.Request("GET", server.url("/bytes/3")))
    assert response.read() == pattern(3)


# -- what a transport is made with -------------------------------------------------------------------------------------


def test_versions_can_be_chosen(bench: Bench) -> None:
    server = bench.server()
    assert client_of(bench, transport={"http2": False}).get(server.url()).http_version == "HTTP/1.1"
    plain = bench.server(H1_PLAIN, http2=True)
    assert client_of(bench, transport={"http1": False}).get(plain.url()).http_version == "HTTP/2"
    raised(ValueError, lambda: HyperpoolTransport(http1=False, http2=False))


def test_limits_of_httpx_are_taken_for_each_origin() -> None:
    limits = as_limits(httpx.Limits(max_connections=5, keepalive_expiry=7))
    assert limits is not None
    assert (limits.max_http1_connections_per_origin, limits.max_connections_per_origin, limits.idle_s) == (5, 5, 7)
    assert as_limits(httpx.Limits(max_connections=100, keepalive_expiry=None)) == hyperpool.Limits(
        max_http1_connections_per_origin=100
    )
    own = hyperpool.Limits(max_origins=3)
    assert (as_limits(own), as_limits(None)) == (own, None)
    assert as_limits(httpx.Limits(keepalive_expiry=0)).idle_s > 0  # type: ignore[union-attr]


def test_a_pool_can_be_shared_and_stays_open(bench: Bench) -> None:
    server = bench.server()
    with hyperpool.ConnectionPool(verify=AUTHORITY.ca_pem) as pool:
        for _ in range(2):
            with httpx.Client(transport=HyperpoolTransport(pool=pool)) as client:
                client.get(server.url())
        assert not pool.closed
        raised(ValueError, lambda: HyperpoolTransport(pool=pool, http2=False))
    assert server.connections_accepted == 1


def test_closing_the_client_closes_every_connection(bench: Bench, wire: Wire) -> None:
    server = bench.server(wire)
    with httpx.Client(transport=HyperpoolTransport(verify=bench.ca_file)) as client:
        client.get(server.url())
    assert server.wait_until(lambda server: server.connections_open == 0, WAIT_S)
    raised(RuntimeError, lambda: client.get(server.url()))


@pytest.mark.parametrize("kind", [HyperpoolTransport, httpx.HTTPTransport])
def test_a_transport_serves_one_client_after_another(bench: Bench, kind: Any) -> None:
    server = bench.server()
    transport = kind(verify=ssl.create_default_context(cafile=bench.ca_file))
    for _ in range(2):
        with httpx.Client(transport=transport) as client:
            assert client.get(server.url("/bytes/3")).status_code == 200
        assert server.wait_until(lambda server: server.connections_open == 0, WAIT_S)
    assert server.connections_accepted == 2


def test_retries_are_for_connections_that_cannot_be_made(bench: Bench) -> None:
    server = bench.server()
    server.close()
    bench.enter(nobody(server.port))
    dials = 0

    class Counting(HyperpoolTransport):
        def _asked(self, request: httpx.Request, content: Any) -> Any:
            nonlocal dials
            dials += 1
            return super()._asked(request, content)

    transport = Counting(verify=bench.ca_file, retries=1)
    with httpx.Client(transport=transport) as client:
        raised(httpx.ConnectError, lambda: client.post(server.url(), content=iter([b"x"])))
    assert dials == 2


def test_what_was_sent_is_not_retried(bench: Bench) -> None:
    server = bench.server(H1_PLAIN, lambda request: Disconnect())
    raised(httpx.RemoteProtocolError, lambda: client_of(bench, transport={"retries": 3}).get(server.url()))
    assert len(server.requests) == 1


# -- trust and names ---------------------------------------------------------------------------------------------------


def test_an_ssl_context_is_taken_for_verify(bench: Bench) -> None:
    import ssl

    context = ssl.create_default_context(cafile=bench.ca_file)
    server = bench.server()
    assert client_of(bench, transport={"verify": context}).get(server.url()).http_version == "HTTP/2"
    assert client_of(bench, transport={"verify": False}).get(server.url()).status_code == 200


def test_sni_hostname_is_told_and_looked_for(bench: Bench) -> None:
    server = bench.server(certificate=AUTHORITY.issue("inner.test"))
    client = client_of(bench)
    for _ in range(2):
        assert client.get(server.url(), extensions={"sni_hostname": "inner.test"}).http_version == "HTTP/2"
    raised(httpx.ConnectError, lambda: client.get(server.url()))
    raised(httpx.ConnectError, lambda: client.get(server.url(), extensions={"sni_hostname": "else.test"}))
    assert server.requests[0].authority == f"localhost:{server.port}"


def test_sni_hostname_goes_with_every_way_to_trust_but_a_context(bench: Bench, tmp_path: Any) -> None:
    import ssl

    server = bench.server(certificate=AUTHORITY.issue("inner.test"))
    sni = {"sni_hostname": "inner.test"}
    for verify in (AUTHORITY.ca_pem, False):
        assert client_of(bench, transport={"verify": verify}).get(server.url(), extensions=sni).status_code == 200
    for verify in (True, "system"):
        client = client_of(bench, transport={"verify": verify})
        raised(httpx.ConnectError, lambda client=client: client.get(server.url(), extensions=sni))
    own = client_of(bench, transport={"verify": ssl.create_default_context(cafile=bench.ca_file)})
    raised(httpx.LocalProtocolError, lambda: own.get(server.url(), extensions=sni))


def test_ssl_cert_file_counts_where_the_environment_is_trusted(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", bench.ca_file)
    server = bench.server()
    trusting = client_of(bench, transport={"verify": True})
    assert trusting.get(server.url()).status_code == 200
    assert trusting.get(server.url(), extensions={"sni_hostname": "127.0.0.1"}).status_code == 200
    wary = client_of(bench, transport={"verify": True, "trust_env": False})
    raised(httpx.ConnectError, lambda: wary.get(server.url()))


# -- proxies -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("give", [str, httpx.URL, httpx.Proxy])
def test_https_goes_through_a_tunnel_in_http2(bench: Bench, give: Any) -> None:
    server, proxy = bench.server(), bench.enter(TunnelProxy())
    client = client_of(bench, transport={"proxy": give(f"http://u%3A:p@127.0.0.1:{proxy.port}")})
    assert client.get(server.url()).http_version == "HTTP/2"
    assert (proxy.tunnels, b"Basic dTo6cA==" in proxy.heads[0]) == (1, True)


def test_an_https_proxy_and_its_headers(bench: Bench) -> None:
    server, proxy = bench.server(), bench.enter(TunnelProxy(certificate=SERVER_CERTIFICATE))
    given = httpx.Proxy(f"https://localhost:{proxy.port}", headers={"X-P": "1"})
    assert client_of(bench, transport={"proxy": given}).get(server.url()).status_code == 200
    assert b"x-p: 1" in proxy.heads[0].lower()


def test_a_socks_proxy_resolves_names_where_it_is_asked_to(bench: Bench) -> None:
    server, proxy = bench.server(), bench.enter(SocksProxy())
    client = client_of(bench, transport={"proxy": f"socks5h://127.0.0.1:{proxy.port}"})
    assert client.get(server.url()).http_version == "HTTP/2"


def test_a_proxy_that_refuses_is_a_proxy_error(bench: Bench) -> None:
    proxy = bench.enter(TunnelProxy(answer=lambda head: b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n"))
    client = client_of(bench, transport={"proxy": f"http://127.0.0.1:{proxy.port}"})
    raised(httpx.ProxyError, lambda: client.get("https://localhost:1/"))


def test_proxies_of_the_environment_are_for_httpxs_mounts(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    assert client_of(bench).get(bench.server().url()).status_code == 200


def test_proxies_are_taken_in_every_form() -> None:
    own = hyperpool.values.Proxy("http", "a.test", 80)
    assert (as_proxy(None), as_proxy(own)) == (None, own)
    assert as_proxy("http://[::1]:3128") == hyperpool.values.Proxy("http", "::1", 3128)
    assert as_proxy("https://a.test") == hyperpool.values.Proxy("https", "a.test", 443)
    import ssl

    context = ssl.create_default_context()
    raised(ValueError, lambda: as_proxy(httpx.Proxy("https://a.test", ssl_context=context)))


# -- sockets -----------------------------------------------------------------------------------------------------------


@linux_only
def test_connections_come_from_the_local_address(bench: Bench, wire: Wire) -> None:
    client = client_of(bench, transport={"local_address": "127.0.0.2"})
    assert peer_of(bench, wire, client.get) == "127.0.0.2"


@linux_only
def test_socket_options_are_set_on_the_socket(bench: Bench, wire: Wire) -> None:
    option = (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 1234)
    server, client = bench.server(wire), client_of(bench, transport={"socket_options": [option]})
    assert client.get(server.url("/bytes/9")).content == pattern(9)
    assert option_of_socket_to(server.port, *option[:2]) == 1234


def test_a_unix_socket_is_connected_to_whatever_the_host_is(bench: Bench) -> None:
    with tempfile.TemporaryDirectory() as folder:  # tmp_path may be too long for a socket
        path = os.path.join(folder, "app.sock")
        bench.server(H1_PLAIN, uds=path)
        assert client_of(bench, transport={"uds": path}).get("http://anything.test/bytes/9").content == pattern(9)
