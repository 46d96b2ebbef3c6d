"""HTTP20Adapter under requests: sessions, threads, trust, timeouts, exceptions, streaming, proxies, and its end."""

from __future__ import annotations

import json
import pickle
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from adapter_kit import H1_PLAIN, H2_TLS, Bench, Wire, from_threads, linux_only, peer_of, raised
from urllib3.util import Retry

import hyperpool
from hyperpool.testing import Disconnect, Reply, Request, inline, pattern
from hyperpool.window import FlowControlManager
from proxy_kit import SocksProxy, TunnelProxy
from stage import AUTHORITY, WAIT_S, eventually, nobody, opened

requests = pytest.importorskip("requests", reason="requests is not installed")
from requests import exceptions  # noqa: E402

from hyperpool.contrib import HTTP20Adapter  # noqa: E402


@inline
def mirror(request: Request) -> str:
    """The request's head as JSON."""
    return json.dumps({"method": request.method, "target": request.target, "headers": request.headers})


def values(response: Any, name: str) -> list[str]:
    return [value for key, value in response.json()["headers"] if key == name]


def our_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("hyperpool")]


# -- what a session does -----------------------------------------------------------------------------------------------


def test_a_session_gets_requests_responses_over_every_wire(bench: Bench, wire: Wire) -> None:
    server, session = bench.server(wire), bench.session()
    response = session.get(server.url("/bytes/1000"))
    assert isinstance(response, requests.Response)
    assert (response.status_code, response.reason, response.content) == (200, "OK", pattern(1000))
    assert response.raw.version == wire.version


@pytest.mark.slow
@pytest.mark.parametrize("tls", [True, False], ids=["https", "http"])
def test_64_threads_over_one_session_share_one_http2_connection(bench: Bench, tls: bool) -> None:
    server = bench.server(H2_TLS if tls else H1_PLAIN, http2=True)
    session = bench.session(http1=tls)  # without TLS, HTTP/2 is a matter of prior knowledge
    contents = from_threads(64, lambda number: session.get(server.url(f"/bytes/{number}")).content)
    assert contents == [pattern(number) for number in range(64)]
    assert server.connections_accepted == 1


def test_a_slow_response_does_not_delay_the_others(bench: Bench) -> None:
    gate = bench.gate()
    server, session = bench.server(), bench.session()
    server.route("/slow")(lambda request: opened(gate) or "late")
    slow: list[str] = []
    waiting = threading.Thread(target=lambda: slow.append(session.get(server.url("/slow")).text))
    waiting.start()
    assert session.get(server.url("/bytes/5")).content == pattern(5)
    gate.set()
    waiting.join()
    assert (slow, server.connections_accepted) == (["late"], 1)


@pytest.mark.parametrize("options", [{"data": {"a": "1"}}, {"json": {"a": 1}}, {"files": {"f": b"abc"}}], ids=str)
def test_bodies_of_requests_arrive(bench: Bench, wire: Wire, options: Any) -> None:
    server, session = bench.server(wire), bench.session()
    prepared = session.prepare_request(requests.Request("POST", server.url("/echo"), **options))
    assert session.send(prepared).content == (prepared.body if isinstance(prepared.body, bytes) else b"a=1")


def test_generators_and_files_are_streamed_up(bench: Bench, wire: Wire, tmp_path: Path) -> None:
    server, session = bench.server(wire), bench.session()
    (tmp_path / "file").write_bytes(pattern(300_000))
    pieces = (pattern(300_000)[at : at + 1000] for at in range(0, 300_000, 1000))
    assert session.post(server.url("/sha256"), data=pieces).json()["length"] == 300_000
    with open(tmp_path / "file", "rb") as file:
        assert session.post(server.url("/sha256"), data=file).json()["length"] == 300_000


def test_cookies_are_kept_and_sent_back(bench: Bench, wire: Wire) -> None:
    server, session = bench.server(wire, mirror), bench.session()
    server.route("/set")(lambda request: Reply(200, (("set-cookie", "a=1; Path=/"), ("set-cookie", "b=2; Path=/"))))
    assert dict(session.get(server.url("/set")).cookies) == {"a": "1", "b": "2"}
    assert values(session.get(server.url("/")), "cookie") == ["a=1; b=2"]


def test_redirects_are_followed_with_history_and_cookies(bench: Bench, wire: Wire) -> None:
    server, session = bench.server(wire, mirror), bench.session()
    server.route("/from")(lambda request: Reply(302, (("location", "/to"), ("set-cookie", "a=1; Path=/"))))
    response = session.get(server.url("/from"))
    assert (response.url, [one.status_code for one in response.history]) == (server.url("/to"), [302])
    assert values(response, "cookie") == ["a=1"]


def test_credentials_do_not_follow_a_redirect_to_another_origin(bench: Bench) -> None:
    other = bench.server(H1_PLAIN, mirror)
    server = bench.server(H2_TLS, lambda request: Reply(302, (("location", other.url("/there")),)))
    response = bench.session().get(server.url(), auth=("user", "pass"))
    assert (response.json()["target"], values(response, "authorization")) == ("/there", [])


def test_digest_authentication_answers_the_challenge(bench: Bench, wire: Wire) -> None:
    def challenge(request: Request) -> Reply:
        if request.header("authorization"):
            return Reply(200, body=request.header("authorization") or "")
        return Reply(401, (("www-authenticate", 'Digest realm="r", nonce="n", qop="auth"'),), b"no")

    server, session = bench.server(wire, challenge), bench.session()
    response = session.get(server.url(), auth=requests.auth.HTTPDigestAuth("user", "pass"))
    assert (response.status_code, response.text.startswith('Digest username="user"')) == (200, True)


def test_hooks_see_the_response(bench: Bench) -> None:
    server, session, seen = bench.server(), bench.session(), []
    session.get(server.url(), hooks={"response": lambda response, **_: seen.append(response.raw.version)})
    assert seen == [20]


def test_max_retries_takes_a_retry(bench: Bench, wire: Wire) -> None:
    statuses = iter([503, 503, 200])
    server = bench.server(wire, lambda request: Reply(next(statuses), body="done"))
    session = bench.session(max_retries=Retry(3, status_forcelist=[503], backoff_factor=0))
    assert session.get(server.url()).text == "done"
    assert len(server.requests) == 3


def test_retries_that_are_used_up_are_a_retry_error(bench: Bench) -> None:
    server = bench.server(handler=lambda request: Reply(503))
    session = bench.session(max_retries=Retry(1, status_forcelist=[503], backoff_factor=0))
    raised(exceptions.RetryError, lambda: session.get(server.url()))


def test_hypers_constructor_still_works(bench: Bench) -> None:
    server, session = bench.server(), bench.session(window_manager=FlowControlManager)
    assert session.get(server.url("/bytes/3000000")).content == pattern(3_000_000)
    assert HTTP20Adapter(FlowControlManager, 5, 7).window_manager is FlowControlManager


def test_pool_sizes_are_accepted(bench: Bench) -> None:
    server = bench.server()
    session = bench.session(pool_connections=1, pool_maxsize=2, pool_block=True)
    assert session.get(server.url()).status_code == 200


# -- streaming ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/bytes/200000", "/chunked/200000", "/gzip"])
def test_iter_content_gives_the_decoded_body_in_pieces(bench: Bench, wire: Wire, path: str) -> None:
    server, session = bench.server(wire), bench.session()
    with session.get(server.url(path), stream=True) as response:
        pieces = list(response.iter_content(1000))
    assert (b"".join(pieces), max(map(len, pieces))) == (pattern(10_000 if path == "/gzip" else 200_000), 1000)


def test_raw_stream_and_raw_read_decode_on_demand(bench: Bench, wire: Wire) -> None:
    server, session = bench.server(wire), bench.session()
    streamed = session.get(server.url("/gzip"), stream=True)
    assert b"".join(streamed.raw.stream(1000, decode_content=True)) == pattern(10_000)
    read = session.get(server.url("/gzip"), stream=True)
    assert read.raw.read(decode_content=True) == pattern(10_000)
    raw = session.get(server.url("/gzip"), stream=True)
    assert raw.raw.read()[:2] == b"\x1f\x8b"


def test_lines_arrive_as_they_are_sent(bench: Bench, wire: Wire) -> None:
    gate = bench.gate()

    def events(request: Request) -> Reply:
        def pieces() -> Iterator[bytes]:
            yield b"data: 1\n\n"
            opened(gate)
            yield b"data: 2\n\n"

        return Reply(200, body=pieces())

    server, session = bench.server(wire, events), bench.session()
    lines = session.get(server.url(), stream=True).iter_lines()
    assert next(lines) == b"data: 1"
    gate.set()
    assert [line for line in lines if line] == [b"data: 2"]


def test_a_response_that_is_not_read_is_forgotten_in_silence(bench: Bench) -> None:
    # Warnings are errors here.
    server, session = bench.server(), bench.session()
    for _ in range(3):
        session.get(server.url("/bytes/50000000"), stream=True)
    assert server.wait_until(lambda seen: [each.reset_code for each in seen.requests] == [8, 8, 8], WAIT_S)
    assert server.connections_accepted == 1


def test_closing_a_response_resets_its_stream(bench: Bench) -> None:
    server, session = bench.server(), bench.session()
    session.get(server.url("/bytes/50000000"), stream=True).close()
    assert server.wait_until(lambda seen: seen.requests[0].reset_code == 8, WAIT_S)


# -- exceptions --------------------------------------------------------------------------------------------------------


def stalling(gate: threading.Event) -> Any:
    def stall(request: Request) -> Reply:
        def pieces() -> Iterator[bytes]:
            yield b"first"
            opened(gate)

        return Reply(200, body=pieces())

    return stall


def test_a_read_timeout_is_requests_read_timeout_and_a_timeout_error(bench: Bench, wire: Wire) -> None:
    server, session = bench.server(wire), bench.session()
    error = raised(exceptions.ReadTimeout, lambda: session.get(server.url("/fault/silence"), timeout=(WAIT_S, 0.05)))
    assert isinstance(error, TimeoutError)
    assert not isinstance(error, exceptions.ConnectionError)
    assert type(error.__cause__) is hyperpool.ReadTimeout
    assert error.request.url == server.url("/fault/silence")


def test_a_connect_timeout_is_requests_connect_timeout_and_a_timeout_error(bench: Bench) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        url = f"https://localhost:{mute.getsockname()[1]}/"
        error = raised(exceptions.ConnectTimeout, lambda: bench.session().get(url, timeout=(0.05, 5)))
    assert isinstance(error, TimeoutError)
    assert type(error.__cause__) is hyperpool.ConnectTimeout


@pytest.mark.parametrize("stream", [False, True])
def test_a_timeout_in_mid_body_is_a_connection_error_as_ever_and_a_timeout_too(
    bench: Bench, wire: Wire, stream: bool
) -> None:
    server, session = bench.server(wire, stalling(bench.gate())), bench.session()
    errors: list[Any] = []

    def breaks_in_mid_body() -> bool:
        # On a busy machine the head may be late as well, which is another error.
        with pytest.raises(exceptions.ReadTimeout) as caught:
            assert session.get(server.url(), timeout=(WAIT_S, 0.1), stream=stream).content
        errors.append(caught.value)
        return isinstance(caught.value, exceptions.ConnectionError)

    assert eventually(breaks_in_mid_body)
    error = errors[-1]
    assert isinstance(error, TimeoutError)
    assert type(error.__cause__) is hyperpool.ReadTimeout


def test_a_read_timeout_after_retries_is_a_timeout_too(bench: Bench) -> None:
    server, session = bench.server(), bench.session(max_retries=Retry(1, backoff_factor=0))
    act = lambda: session.get(server.url("/fault/silence"), timeout=(WAIT_S, 0.05))  # noqa: E731
    error = raised(exceptions.ConnectionError, act)
    assert isinstance(error, TimeoutError)


def test_a_refused_connection_is_a_connection_error(bench: Bench) -> None:
    url = f"http://localhost:{bench.enter(nobody())}/"
    error = raised(exceptions.ConnectionError, lambda: bench.session().get(url))
    assert type(error.__cause__) is hyperpool.ConnectError


def test_a_response_that_never_begins_is_a_connection_error(bench: Bench, wire: Wire) -> None:
    server, session = bench.server(wire, lambda request: Disconnect()), bench.session()
    raised(exceptions.ConnectionError, lambda: session.post(server.url(), data=b"x"))


def test_a_body_that_is_cut_is_a_chunked_encoding_error(bench: Bench, wire: Wire) -> None:
    cut = Reply(200, (("content-length", "1000"),), pattern(1000), fault_after_bytes=100, fault=Disconnect())
    server, session = bench.server(wire, lambda request: cut), bench.session()
    error = raised(exceptions.ChunkedEncodingError, lambda: session.get(server.url()))
    assert isinstance(error.__cause__, hyperpool.HyperpoolError)


def test_a_body_that_is_not_what_its_coding_says_is_a_content_decoding_error(bench: Bench) -> None:
    reply = Reply(200, (("content-encoding", "gzip"),), b"this is not gzip")
    server, session = bench.server(handler=lambda request: reply), bench.session()
    raised(exceptions.ContentDecodingError, lambda: session.get(server.url()))


def test_what_http_does_not_allow_is_an_invalid_header(bench: Bench) -> None:
    server, session = bench.server(), bench.session()
    raised(exceptions.InvalidHeader, lambda: session.get(server.url(), headers={"Upgrade": "websocket"}))
    assert server.connections_accepted == 0


def test_a_host_that_is_none_is_an_invalid_url(bench: Bench) -> None:
    """requests escapes "<" before anybody sees that no host can have it."""
    session = bench.session()
    error = raised(exceptions.InvalidURL, lambda: session.get("http://ex<ample.test/"))
    assert error.request.url == "http://ex%3Cample.test/"


def test_a_full_pool_is_a_connection_error(bench: Bench) -> None:
    gate = bench.gate()
    server, other = bench.server(handler=lambda request: (opened(gate), "ok")[1]), bench.server()
    session = bench.session(limits=hyperpool.Limits(max_origins=1))
    with ThreadPoolExecutor(1) as crew:
        first = crew.submit(session.get, server.url())
        assert server.wait_until(lambda server: len(server.requests) == 1, WAIT_S)
        error = raised(exceptions.ConnectionError, lambda: session.get(other.url()))
        gate.set()
        assert first.result(WAIT_S).text == "ok"
    assert (type(error.__cause__), error.request.url) == (hyperpool.PoolFull, other.url())


# -- trust, per call ---------------------------------------------------------------------------------------------------


def test_verify_is_true_false_or_a_path_by_the_call(bench: Bench) -> None:
    server, session = bench.server(), bench.session()
    assert session.get(server.url(), verify=bench.ca_file).status_code == 200
    error = raised(exceptions.SSLError, lambda: session.get(server.url(), verify=True))
    assert type(error.__cause__) is hyperpool.CertificateError
    with pytest.warns(Warning, match="Unverified"):
        assert session.get(server.url(), verify=False).status_code == 200


def test_the_wrong_authority_is_an_ssl_error(bench: Bench, tmp_path: Path) -> None:
    from hyperpool.testing import CertificateAuthority

    (tmp_path / "other.pem").write_bytes(CertificateAuthority().ca_pem)
    server, session = bench.server(), bench.session()
    raised(exceptions.SSLError, lambda: session.get(server.url(), verify=str(tmp_path / "other.pem")))


def test_a_certificate_for_another_host_is_an_ssl_error(bench: Bench) -> None:
    server, session = bench.server(certificate=AUTHORITY.issue("elsewhere.test")), bench.session()
    error = raised(exceptions.SSLError, lambda: session.get(server.url()))
    assert "elsewhere.test" in str(error)


def test_a_client_certificate_is_shown_by_the_call(bench: Bench, tmp_path: Path) -> None:
    cert, key = AUTHORITY.issue("client.test", eku=("client",))
    (tmp_path / "both.pem").write_bytes(cert + key)
    (tmp_path / "cert.pem").write_bytes(cert)
    (tmp_path / "key.pem").write_bytes(key)
    server, session = bench.server(client_ca_pem=AUTHORITY.ca_pem), bench.session()
    assert session.get(server.url(), cert=str(tmp_path / "both.pem")).status_code == 200
    pair = (str(tmp_path / "cert.pem"), str(tmp_path / "key.pem"))
    assert session.get(server.url(), cert=pair).status_code == 200
    raised(exceptions.ConnectionError, lambda: session.get(server.url()))


def test_a_subclass_may_give_its_own_context(bench: Bench) -> None:
    import ssl

    class Pinned(HTTP20Adapter):
        def init_poolmanager(self, *args: Any, **options: Any) -> None:
            super().init_poolmanager(*args, ssl_context=ssl.create_default_context(cafile=bench.ca_file), **options)

    server, session = bench.server(), bench.session()
    session.mount("https://", Pinned())
    assert session.get(server.url(), verify=True).raw.version == 20


# -- proxies -----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_32_threads_share_one_tunnel(bench: Bench) -> None:
    server, session = bench.server(), bench.session()
    with TunnelProxy() as proxy:
        proxies = {"https": proxy.url("user:p%40ss")}
        versions = from_threads(32, lambda number: session.get(server.url("/headers"), proxies=proxies).raw.version)
        assert (versions, proxy.tunnels, server.connections_accepted) == ([20] * 32, 1, 1)
        assert b"Proxy-Authorization: Basic dXNlcjpwQHNz" in proxy.heads[0]
        seen = session.get(server.url("/headers"), proxies=proxies).json()
        assert "proxy-authorization" not in dict(seen)
        session.close()


def test_http_is_forwarded_with_the_credentials_of_the_proxy(bench: Bench) -> None:
    proxy, session = bench.server(H1_PLAIN, mirror), bench.session()
    proxies = {"http": f"http://user:pass@localhost:{proxy.port}"}
    response = session.get("http://elsewhere.test/path?q=1#f", proxies=proxies)
    assert response.json()["target"] == "http://elsewhere.test/path?q=1"
    assert values(response, "proxy-authorization") == ["Basic dXNlcjpwYXNz"]


def test_socks_proxies_are_spoken_to(bench: Bench) -> None:
    server, session = bench.server(), bench.session()
    with SocksProxy(credentials=(b"user", b"pass")) as proxy:
        response = session.get(server.url(), proxies={"https": proxy.url("user:pass")})
        assert (response.raw.version, proxy.asked) == (20, [("localhost", server.port)])
        session.close()


def test_a_proxy_of_a_kind_that_is_not_spoken_is_an_invalid_proxy_url(bench: Bench) -> None:
    session = bench.session()
    raised(
        exceptions.InvalidProxyURL,
        lambda: session.get("http://elsewhere.test/", proxies={"http": "socks4://localhost:1"}),
    )


def test_a_proxy_that_refuses_is_a_proxy_error(bench: Bench) -> None:
    with TunnelProxy(answer=lambda head: b"HTTP/1.1 403 Forbidden\r\n\r\n") as proxy:
        session = bench.session()
        error = raised(
            exceptions.ProxyError, lambda: session.get("https://elsewhere.test/", proxies={"https": proxy.url()})
        )
        session.close()
    assert type(error.__cause__) is hyperpool.ProxyError


# -- its end -----------------------------------------------------------------------------------------------------------


def test_closing_the_session_leaves_no_thread_and_no_socket(bench: Bench, wire: Wire) -> None:
    server, session = bench.server(wire), bench.session()
    session.get(server.url("/bytes/1000"))
    session.close()
    assert not [name for name in our_threads() if name.startswith("hyperpool http")], "the loops are joined"
    assert eventually(lambda: our_threads() == []), "who has dialled, and resolved, ends by itself"
    assert server.wait_until(lambda seen: seen.connections_open == 0, WAIT_S)


def test_a_response_that_is_being_read_outlives_its_session(bench: Bench, wire: Wire) -> None:
    server, session = bench.server(wire), bench.session()
    response = session.get(server.url("/bytes/5000000"), stream=True)
    session.close()
    assert response.content == pattern(5_000_000)
    assert server.wait_until(lambda seen: seen.connections_open == 0, WAIT_S)


def test_a_closed_session_opens_again_for_the_next_request(bench: Bench) -> None:
    server, session = bench.server(), bench.session()
    session.get(server.url())
    session.close()
    assert session.get(server.url()).status_code == 200


def test_a_session_can_be_pickled_with_its_adapter(bench: Bench) -> None:
    server, session = bench.server(), bench.session(max_retries=3, limits=hyperpool.Limits(idle_s=5), http2=False)
    session.get(server.url())
    twin = bench.enter(pickle.loads(pickle.dumps(session)))
    adapter = twin.get_adapter("https://")
    assert (type(adapter), adapter.max_retries.total) == (HTTP20Adapter, 3)
    assert adapter.hyperpool.limits.idle_s == 5
    assert twin.get(server.url()).raw.version == 11


def test_a_pool_that_was_given_is_shared_and_stays_open(bench: Bench) -> None:
    server = bench.server()
    with hyperpool.ConnectionPool() as pool:
        first, second = bench.session(pool=pool), bench.session(pool=pool)
        assert [each.get(server.url()).status_code for each in (first, second)] == [200, 200]
        first.close()
        assert second.get(server.url()).status_code == 200
        assert server.connections_accepted == 1


@linux_only
def test_an_adapter_that_gives_a_source_address_connects_from_there(bench: Bench, wire: Wire) -> None:
    class From(HTTP20Adapter):
        def init_poolmanager(self, *args: Any, **options: Any) -> None:
            super().init_poolmanager(*args, source_address=("127.0.0.2", 0), **options)

    session = bench.session()
    session.mount(f"http{'s' if wire.tls else ''}://", From())
    assert peer_of(bench, wire, session.get) == "127.0.0.2"


# -- its import --------------------------------------------------------------------------------------------------------


def run(program: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=2 * WAIT_S
    )
    return done.stdout.strip()


@pytest.mark.slow
def test_importing_contrib_loads_neither_requests_nor_urllib3() -> None:
    program = "import sys, hyperpool.contrib; print([name in sys.modules for name in ('requests', 'urllib3')])"
    assert run(program) == "[False, False]"


@pytest.mark.slow
def test_without_requests_the_error_names_the_package() -> None:
    program = (
        "import sys; sys.modules['requests'] = None\n"
        "try:\n    from hyperpool.contrib import HTTP20Adapter\n"
        "except ImportError as error:\n    print(error)"
    )
    assert "HTTP20Adapter needs requests: pip install requests" in run(program)
