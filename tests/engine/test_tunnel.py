"""The way through proxies: CONNECT, SOCKS and TLS in TLS, as bytes first, then in dials over loopback.

Names are answered from a dictionary, so that a test sees who was asked for. Nothing here sleeps; where time matters,
`Clockwork` of the dial's tests is clock and selector.
"""

from __future__ import annotations

import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from test_dial import Announced, Clockwork

from hyperpool.engine.dial import Dialed, Seams, dial
from hyperpool.engine.dial_cancel import DialCancel
from hyperpool.engine.resolve import Address, Resolver
from hyperpool.engine.socks import Socks
from hyperpool.engine.trust import TlsConfig
from hyperpool.engine.tunnel import MAX_ANSWER_BYTES, Connect
from hyperpool.errors import (
    CertificateError,
    ConnectTimeout,
    HyperpoolError,
    InvalidURL,
    LocalProtocolError,
    NameResolutionError,
    PoolClosed,
    ProxyError,
    TlsError,
)
from hyperpool.protocol.events import MAX_INTERIM
from hyperpool.proxies import parse_proxy
from hyperpool.testing import CertificateAuthority, ScriptedPeer, Server
from hyperpool.urls import Origin
from hyperpool.values import Route, TlsSettings
from proxy_kit import SocksProxy, TunnelProxy

WAIT_S = 45.0
AUTHORITY = CertificateAuthority()
ORIGIN_CERTIFICATE = AUTHORITY.issue("origin.test")
PROXY_CERTIFICATE = AUTHORITY.issue("proxy.test")

# -- CONNECT as bytes --------------------------------------------------------------------------------------------------


def connect(host: str = "origin.test", port: int = 443, onward: Any = None) -> Connect:
    return Connect(parse_proxy("http://proxy.test:3128"), Origin("https", host, port), onward or pytest.fail)


def answered(answer: bytes) -> bool:
    step = connect()
    step.feed(answer)
    return step.handshake()


def refusal(answer: bytes, *, ended: bool = False) -> ProxyError:
    step = connect()
    if answer:
        step.feed(answer)
    if ended:
        step.feed_eof()
    with pytest.raises(ProxyError) as caught:
        step.handshake()
    return caught.value


@pytest.mark.parametrize(
    ("host", "port", "target"),
    [
        ("origin.test", 443, b"origin.test:443"),
        ("origin.test", 8443, b"origin.test:8443"),
        ("192.0.2.1", 443, b"192.0.2.1:443"),
        ("2001:db8::1", 443, b"[2001:db8::1]:443"),
        ("fe80::1%eth0", 443, b"[fe80::1]:443"),
        ("straße.test", 443, b"xn--strae-oqa.test:443"),
    ],
)
def test_a_tunnel_is_asked_for_by_host_and_port(host: str, port: int, target: bytes) -> None:
    expected = b"CONNECT " + target + b" HTTP/1.1\r\nHost: " + target + b"\r\n\r\n"
    assert connect(host=host, port=port).ciphertext() == expected


def test_the_request_for_a_tunnel_is_given_out_once() -> None:
    step = connect()
    assert step.ciphertext() and not step.ciphertext() and not step.handshake()


def test_the_proxys_credentials_and_headers_go_with_the_request_for_a_tunnel() -> None:
    proxy = parse_proxy("http://user:pass@proxy.test:3128", {"User-Agent": "me"})
    asked = Connect(proxy, Origin("https", "origin.test", 443), pytest.fail).ciphertext()
    assert asked.endswith(b"\r\nUser-Agent: me\r\nProxy-Authorization: Basic dXNlcjpwYXNz\r\n\r\n")


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.0 200 Connection established\r\nProxy-Agent: x\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 299 \r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
    ],
)
def test_any_2xx_is_a_tunnel_whatever_its_fields_say(answer: bytes) -> None:
    assert answered(answer)


def test_an_answer_may_come_byte_by_byte() -> None:
    step = connect()
    done = []
    for byte in b"HTTP/1.1 200 OK\r\nA: b\r\n\r\n":
        step.feed(bytes([byte]))
        done.append(step.handshake())
    assert done == [False] * (len(done) - 1) + [True]


def test_what_comes_behind_the_answer_belongs_to_the_tunnel() -> None:
    behind: list[bytes] = []
    step = connect(onward=behind.append)
    step.feed(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbody")
    assert step.handshake() and behind == [b"body"]


@pytest.mark.parametrize(
    ("answer", "status", "words"),
    [
        (b"HTTP/1.1 403 Filtered\r\n\r\n", 403, "proxy http://proxy.test:3128 refused the tunnel with 403 Filtered"),
        (b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 3\r\n\r\nabc", 502, "502 Bad Gateway"),
        (b"HTTP/1.1 302 Found\r\nLocation: https://evil.test/\r\n\r\n", 302, "302 Found"),
        (b"HTTP/1.1 500 \r\n\r\n", 500, "with 500"),
    ],
)
def test_any_other_status_is_a_refusal_with_its_reason(answer: bytes, status: int, words: str) -> None:
    error = refusal(answer)
    assert error.status == status and error.processed == "no" and str(error).endswith(words)


def test_a_407_asks_for_credentials() -> None:
    error = refusal(b'HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm="x"\r\n\r\n')
    assert error.status == 407 and "give the credentials in the proxy's URL" in str(error)


@pytest.mark.parametrize("status", [401, 407])
def test_credentials_that_are_not_accepted_are_told_so(status: int) -> None:
    step = Connect(parse_proxy("http://u:secret@proxy.test"), Origin("https", "origin.test", 443), pytest.fail)
    step.feed(b"HTTP/1.1 %d No\r\n\r\n" % status)
    with pytest.raises(ProxyError, match="does not accept the credentials") as caught:
        step.handshake()
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"SSH-2.0-x\r\n\r\n", "gave no answer of HTTP/1.1"),
        (b"\x15\x03\x01\x00\x02\x02\x46\r\n\r\n", "gave no answer of HTTP/1.1"),
        (b"HTTP/1.1 200 OK\r\nA b\r\n\r\n", "gave no answer of HTTP/1.1"),
        (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n", "gave no answer of HTTP/1.1"),
        (b"HTTP/1.1 200 OK\r\nA: " + b"b" * MAX_ANSWER_BYTES, "gave no answer of HTTP/1.1"),
        (b"HTTP/1.1 102 Processing\r\n\r\n" * (MAX_INTERIM + 1), "interim responses"),
    ],
)
def test_what_is_no_answer_ends_the_way(answer: bytes, words: str) -> None:
    error = refusal(answer)
    assert words in str(error) and error.status is None


# RFC 9112 2.2, 4. h11 takes six of these, and waits for more of the last.
NOT_AS_WRITTEN = {
    "LF alone": b"HTTP/1.1 200 OK\n\n",
    "LF alone behind the status line": b"HTTP/1.1 200 OK\nA: b\r\n\r\n",
    "LF alone behind a field": b"HTTP/1.1 200 OK\r\nA: b\nC: d\r\n\r\n",
    "LF alone as the end": b"HTTP/1.1 200 OK\r\nA: b\r\n\n",
    "LF alone in an interim head": b"HTTP/1.1 103 Hints\nA: b\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
    "an empty line first": b"\r\nHTTP/1.1 200 OK\r\n\r\n",
    "another version": b"HTTP/1.2 200 OK\r\n\r\n",
    "a status below 100": b"HTTP/1.1 099 OK\r\n\r\n",
    "CR alone": b"HTTP/1.1 200 OK\r\nA: b\rc\r\n\r\n",
    "text": b"220 mail.test ESMTP\r\n",
}


@pytest.mark.parametrize("form", NOT_AS_WRITTEN)
@pytest.mark.parametrize("by_bytes", [False, True])
def test_the_head_of_an_answer_is_judged_as_that_of_any_response(form: str, by_bytes: bool) -> None:
    """At its first fault: it is not waited for an end that may never come."""
    step = connect()
    with pytest.raises(ProxyError, match="gave no answer of HTTP/1.1") as caught:
        for at in range(0, len(NOT_AS_WRITTEN[form]), 1 if by_bytes else 1_000):
            step.feed(NOT_AS_WRITTEN[form][at : at + (1 if by_bytes else 1_000)])
            assert not step.handshake()
    assert caught.value.status is None and "RFC 9112" in str(caught.value)


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\nA: b\r\n"])
def test_a_proxy_that_closes_before_its_answer_is_complete_says_no(answer: bytes) -> None:
    assert "closed the connection when asked for a tunnel" in str(refusal(answer, ended=True))


@pytest.mark.parametrize("host", ["a\r\nX: 1", "a b", "a\0"])
def test_a_host_cannot_smuggle_a_line_to_the_proxy(host: str) -> None:
    with pytest.raises(LocalProtocolError, match="no tunnel"):
        connect(host=host)


# -- SOCKS as bytes ----------------------------------------------------------------------------------------------------

TO_IPV4 = b"\x05\x01\x00\x01\x7f\x00\x00\x01\x01\xbb"


def socks(url: str = "socks5h://proxy.test", host: str = "127.0.0.1", port: int = 443) -> Socks:
    return Socks(parse_proxy(url), Origin("https", host, port))


def talk(step: Socks, *messages: bytes) -> list[bytes]:
    """What the step says at first and after each message, which it gets byte by byte."""
    said = [step.ciphertext()]
    for message in messages:
        for byte in message:
            assert not step.handshake()
            step.feed(bytes([byte]))
        step.handshake()
        said.append(step.ciphertext())
    return said


def test_without_credentials_none_are_offered() -> None:
    assert talk(socks(), b"\x05\x00") == [b"\x05\x01\x00", TO_IPV4]


def test_credentials_are_percent_decoded_and_sent_when_they_are_asked_for() -> None:
    said = talk(socks("socks5h://us%40r:p%3A@proxy.test"), b"\x05\x02", b"\x01\x00")
    assert said == [b"\x05\x02\x00\x02", b"\x01\x04us@r\x02p:", TO_IPV4]


def test_credentials_are_not_sent_where_nobody_asks() -> None:
    assert talk(socks("socks5h://u:p@proxy.test"), b"\x05\x00")[1] == TO_IPV4


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("origin.test", b"\x03\x0borigin.test"),
        ("straße.test", b"\x03\x12xn--strae-oqa.test"),
        ("::1", b"\x04" + bytes(15) + b"\x01"),
        ("127.0.0.1", b"\x01\x7f\x00\x00\x01"),
    ],
)
def test_socks5h_leaves_names_to_the_proxy(host: str, expected: bytes) -> None:
    step = socks(host=host)
    assert not step.wants_address
    assert talk(step, b"\x05\x00")[1] == b"\x05\x01\x00" + expected + b"\x01\xbb"


def test_socks5_wants_names_resolved_and_prefers_ipv4() -> None:
    step = socks("socks5://proxy.test", "origin.test")
    assert step.wants_address
    addresses = [Address(socket.AF_INET6, ("::1", 443, 0, 0)), Address(socket.AF_INET, ("127.0.0.1", 443))]
    step.take_addresses(addresses)
    assert not step.wants_address and talk(step, b"\x05\x00")[1] == TO_IPV4


def test_socks5_takes_ipv6_where_there_is_nothing_else() -> None:
    step = socks("socks5://proxy.test", "origin.test")
    step.take_addresses([Address(socket.AF_INET6, ("fe80::1%3", 443, 0, 3))])
    assert talk(step, b"\x05\x00")[1][3:6] == b"\x04\xfe\x80"


@pytest.mark.parametrize(
    "reply",
    [
        b"\x05\x00\x00\x01\x7f\x00\x00\x01\x00\x50",
        b"\x05\x00\x00\x04" + bytes(18),
        b"\x05\x00\x00\x03\x04name\x00\x50",
        b"\x05\x00\x00\x03\x00\x00\x50",
    ],
)
def test_the_way_is_open_after_the_reply_whatever_kind_of_address_it_holds(reply: bytes) -> None:
    step = socks()
    talk(step, b"\x05\x00", reply)
    assert step.handshake()


@pytest.mark.parametrize(
    ("url", "messages", "words"),
    [
        ("socks5h://proxy.test", [b"\x05\xff"], "wants credentials; give them in its URL"),
        ("socks5h://proxy.test", [b"\x05\x02"], "wants credentials"),
        ("socks5h://u:p@proxy.test", [b"\x05\xff"], "takes neither these credentials nor none"),
        ("socks5h://u:p@proxy.test", [b"\x05\x01"], "takes neither"),
        ("socks5h://u:p@proxy.test", [b"\x05\x02", b"\x01\x01"], "does not accept the credentials"),
        ("socks5h://u:p@proxy.test", [b"\x05\x02", b"\x05\x00"], "does not speak SOCKS 5"),
        ("socks5h://proxy.test", [b"\x04\x00"], "does not speak SOCKS 5 on this port"),
        ("socks5h://proxy.test", [b"HTTP"], "does not speak SOCKS 5 on this port"),
        ("socks5h://proxy.test", [b"\x05\x00", b"\x05\x05\x00\x01" + bytes(6)], "the origin refused the connection"),
        ("socks5h://proxy.test", [b"\x05\x00", b"\x05\x02\x00\x01" + bytes(6)], "its rules do not allow this origin"),
        ("socks5h://proxy.test", [b"\x05\x00", b"\x05\x63\x00\x01" + bytes(6)], "did not connect: error 99"),
        ("socks5h://proxy.test", [b"\x05\x00", b"\x05\x00\x00\x09\x00"], "an address of unknown type 9"),
    ],
)
def test_what_a_socks_proxy_refuses_is_told(url: str, messages: list[bytes], words: str) -> None:
    with pytest.raises(ProxyError, match=words):
        talk(socks(url), *messages)


def test_a_socks_proxy_that_closes_is_told() -> None:
    with pytest.raises(ProxyError, match="closed the connection before"):
        socks().feed_eof()


@pytest.mark.parametrize("userinfo", ["u" * 256, "u:" + "p" * 256])
def test_credentials_that_are_too_long_for_socks_are_refused(userinfo: str) -> None:
    with pytest.raises(ProxyError, match="255 bytes each"):
        socks(f"socks5h://{userinfo}@proxy.test")


def test_a_name_that_is_too_long_for_socks_is_refused() -> None:
    with pytest.raises(ProxyError, match="the host name has 259 bytes"):
        socks(host="a." * 129 + "b")


def test_without_its_package_socks_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "socksio", None)
    with pytest.raises(ProxyError, match="needs socksio: pip install socksio"):
        socks()


# -- dials -------------------------------------------------------------------------------------------------------------


class Bench:
    """Everything around one dial; ``asked`` are the names that were resolved, all to loopback."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.addresses: dict[str, list[Any]] = {}
        self.opened: list[socket.socket] = []
        self.cancel = DialCancel()
        self.clockwork = Clockwork()
        self.selector: Any = None
        self.resolver = Resolver(getaddrinfo=self.getaddrinfo)
        self.settings = TlsSettings(verify=AUTHORITY.ca_pem)
        self._stack = ExitStack()

    def getaddrinfo(self, host: str, port: int, **_: Any) -> Any:
        self.asked.append(host)
        if host == "nowhere.test":
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(socket.AF_INET, 1, 6, "", address) for address in self.addresses.get(host, [("127.0.0.1", port)])]

    def make_socket(self, family: int, kind: int) -> socket.socket:
        self.opened.append(socket.socket(family, kind))
        return self.opened[-1]

    def enter(self, made: Any) -> Any:
        return self._stack.enter_context(made)

    def origin(self, **options: Any) -> Server:
        options = {"certificate": ORIGIN_CERTIFICATE, "authority": AUTHORITY, **options}
        server: Server = self.enter(Server(**options))
        return server

    def dial(
        self,
        origin: int | str,
        proxy: TunnelProxy | str,
        *,
        host: str = "origin.test",
        proxy_host: str = "proxy.test",
        timeout_s: float | None = None,
        **route: Any,
    ) -> Dialed:
        """To a port over TLS, or to "http:port"; the proxy's own name is proxy.test."""
        url = proxy if isinstance(proxy, str) else proxy.url()
        scheme, port = ("https", origin) if isinstance(origin, int) else ("http", int(origin.partition(":")[2]))
        seams = Seams(socket_factory=self.make_socket, **({"selector_factory": self.selector} if self.selector else {}))
        if timeout_s is not None:
            seams = Seams(lambda: self.clockwork.now, self.make_socket, self.clockwork.selector)
        made = dial(
            Route(
                Origin(scheme, host, port),
                self.settings,
                proxy=parse_proxy(url.replace("localhost", proxy_host)),
                **route,
            ),
            tls_config=TlsConfig(self.settings),
            resolver=self.resolver,
            deadline_at=None if timeout_s is None else self.clockwork.now + timeout_s,
            cancelled=self.cancel,
            seams=seams,
        )
        self._stack.callback(made.close)
        return made

    def refused(self, kind: type[HyperpoolError], origin: int | str, proxy: TunnelProxy | str, **options: Any) -> Any:
        """The error of this very class that the dial ends with; no socket is left open."""
        with pytest.raises(kind) as caught:
            self.dial(origin, proxy, **options)
        assert type(caught.value) is kind, repr(caught.value)
        assert [sock for sock in self.opened if sock.fileno() != -1] == []
        assert caught.value.origin and caught.value.processed == "no"
        return caught.value

    def close(self) -> None:
        self._stack.close()


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    bench.close()


PROXIES: dict[str, Callable[[], TunnelProxy]] = {
    "http": TunnelProxy,
    "https": lambda: TunnelProxy(certificate=PROXY_CERTIFICATE),
    "socks5h": SocksProxy,
}


@pytest.fixture(params=PROXIES)
def proxy(request: pytest.FixtureRequest, bench: Bench) -> Any:
    """Each kind of proxy."""
    return bench.enter(PROXIES[request.param]())


def test_through_any_proxy_http2_is_agreed_with_the_origin_itself(bench: Bench, proxy: TunnelProxy) -> None:
    dialed = bench.dial(bench.origin().port, proxy)
    assert dialed.http2 and dialed.alpn == "h2" and dialed.tls is not None and dialed.tls.version == "TLSv1.3"
    assert proxy.tunnels == 1


def test_the_dial_goes_to_the_proxy_and_asks_for_no_name_but_the_proxys(bench: Bench, proxy: TunnelProxy) -> None:
    dialed = bench.dial(bench.origin().port, proxy)
    assert dialed.peername == ("127.0.0.1", proxy.port)
    assert bench.asked == ["proxy.test"]
    assert list(dialed.spent_s) == ["dns", "tcp", "proxy", "tls"]


def test_a_route_without_http2_speaks_http1_through_any_proxy(bench: Bench, proxy: TunnelProxy) -> None:
    assert bench.dial(bench.origin().port, proxy, http2=False).alpn == "http/1.1"


def test_the_origins_certificate_is_checked_through_any_proxy(bench: Bench, proxy: TunnelProxy) -> None:
    error = bench.refused(CertificateError, bench.origin().port, proxy, host="other.test")
    assert "other.test" in str(error)


def test_an_origin_without_http2_is_refused_through_any_proxy_where_nothing_else_is_wanted(
    bench: Bench, proxy: TunnelProxy
) -> None:
    error = bench.refused(TlsError, bench.origin(http2=False).port, proxy, http1=False)
    assert "the server" in str(error) or "no application protocol" in str(error)


def answer_in_plain_text(conn: Any) -> None:
    conn.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    conn.drain()  # to close over unread bytes would be a reset, which may overtake the answer


def test_an_origin_that_does_not_speak_tls_is_the_origins_fault(bench: Bench, proxy: TunnelProxy) -> None:
    plain = bench.enter(ScriptedPeer(answer_in_plain_text, tls=False))
    assert "plain HTTP" in str(bench.refused(TlsError, plain.port, proxy))


def test_an_origin_that_hangs_up_in_the_handshake_is_the_origins_fault(bench: Bench, proxy: TunnelProxy) -> None:
    gone = bench.enter(ScriptedPeer(lambda conn: conn.recv(), tls=False))
    assert "origin.test" in str(bench.refused(TlsError, gone.port, proxy))


def test_socks5_resolves_the_origin_here(bench: Bench) -> None:
    proxy = bench.enter(SocksProxy())
    origin = bench.origin()
    bench.dial(origin.port, proxy.url(scheme="socks5"))
    assert proxy.asked == [("127.0.0.1", origin.port)] and bench.asked == ["origin.test", "proxy.test"]


def test_socks5h_resolves_the_origin_at_the_proxy(bench: Bench) -> None:
    proxy = bench.enter(SocksProxy())
    origin = bench.origin()
    bench.dial(origin.port, proxy)
    assert proxy.asked == [("origin.test", origin.port)] and bench.asked == ["proxy.test"]


def test_socks_credentials_are_given(bench: Bench) -> None:
    proxy = bench.enter(SocksProxy(credentials=(b"us@er", b"pa:ss")))
    bench.dial(bench.origin().port, proxy.url("us%40er:pa%3Ass"))
    assert proxy.users == [(b"us@er", b"pa:ss")]


def test_socks_refusals_are_proxy_errors(bench: Bench) -> None:
    assert "does not accept" in str(
        bench.refused(ProxyError, 443, bench.enter(SocksProxy(credentials=(b"u", b"p"))).url("u:wrong"))
    )
    assert "refused the connection" in str(bench.refused(ProxyError, 443, bench.enter(SocksProxy(reply=5))))


def test_what_a_plain_origin_says_first_is_not_lost_behind_a_socks_proxy(bench: Bench) -> None:
    """HTTP/2 servers with prior knowledge may send their SETTINGS with the proxy's last message."""
    proxy = bench.enter(SocksProxy())
    peer = bench.enter(ScriptedPeer(lambda conn: (conn.send(b"settings"), conn.recv()), tls=False))
    dialed = bench.dial(f"http:{peer.port}", proxy, http1=False)
    assert dialed.tls is None and dialed.http2
    dialed.sock.settimeout(WAIT_S)
    assert dialed.sock.recv(8, socket.MSG_WAITALL) == b"settings"


def test_plain_requests_need_no_tunnel_of_an_http_proxy(bench: Bench) -> None:
    proxy = bench.enter(TunnelProxy())
    dialed = bench.dial("http:80", proxy)
    assert dialed.tls is None and not dialed.http2 and list(dialed.spent_s) == ["dns", "tcp"]
    assert bench.asked == ["proxy.test"] and proxy.heads == []


def test_plain_requests_go_to_an_https_proxy_over_tls_and_http1(bench: Bench) -> None:
    proxy = bench.origin(certificate=PROXY_CERTIFICATE)
    dialed = bench.dial("http:80", f"https://proxy.test:{proxy.port}")
    assert dialed.alpn == "http/1.1" and not dialed.http2 and list(dialed.spent_s) == ["dns", "tcp", "proxy"]


def test_plain_requests_with_http2_alone_go_to_an_https_proxy_that_speaks_it(bench: Bench) -> None:
    proxy = bench.origin(certificate=PROXY_CERTIFICATE)
    assert bench.dial("http:80", f"https://proxy.test:{proxy.port}", http1=False).http2


def test_plain_requests_with_http2_alone_are_refused_where_the_https_proxy_has_none(bench: Bench) -> None:
    peer = bench.enter(ScriptedPeer(lambda conn: conn.recv(), alpn=(), certificate=PROXY_CERTIFICATE))
    error = bench.refused(TlsError, "http:80", f"https://proxy.test:{peer.port}", http1=False)
    assert "the proxy does not speak HTTP/2" in str(error)


def test_the_https_proxys_own_certificate_is_checked_before_anything_is_said(bench: Bench) -> None:
    proxy = bench.enter(TunnelProxy(certificate=PROXY_CERTIFICATE))
    error = bench.refused(CertificateError, bench.origin().port, proxy, proxy_host="other-proxy.test")
    assert "other-proxy.test" in str(error) and proxy.heads == []


def test_an_https_proxy_that_does_not_speak_tls_is_a_proxy_error(bench: Bench) -> None:
    plain = bench.enter(ScriptedPeer(answer_in_plain_text, tls=False))
    error = bench.refused(ProxyError, 443, f"https://proxy.test:{plain.port}")
    assert str(error).startswith("proxy https://proxy.test:") and "plain HTTP" in str(error)


def test_a_refused_tunnel_is_a_proxy_error_with_the_status(bench: Bench) -> None:
    proxy = bench.enter(TunnelProxy(answer=lambda _: b"HTTP/1.1 407 Auth\r\nContent-Length: 0\r\n\r\n"))
    error = bench.refused(ProxyError, 443, proxy)
    assert error.status == 407 and error.origin == "https://origin.test" and "credentials" in str(error)


def test_a_proxy_that_nobody_runs_is_a_proxy_error(bench: Bench) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
        error = bench.refused(ProxyError, 443, f"http://proxy.test:{port}")
    assert f"tried 127.0.0.1:{port} (Connection refused)" in str(error) and isinstance(error.__cause__, OSError)


def test_a_proxy_whose_name_does_not_resolve_is_a_proxy_error(bench: Bench) -> None:
    error = bench.refused(ProxyError, 443, "http://nowhere.test:3128")
    assert isinstance(error.__cause__, NameResolutionError)


def test_an_origin_that_socks5_cannot_resolve_is_no_proxy_error(bench: Bench) -> None:
    bench.refused(NameResolutionError, 443, "socks5://proxy.test:1080", host="nowhere.test")


def test_the_next_address_of_the_proxy_is_tried_when_one_is_refused(bench: Bench) -> None:
    proxy = bench.enter(TunnelProxy())
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        bench.addresses["proxy.test"] = [bound.getsockname(), ("127.0.0.1", proxy.port)]
        assert bench.dial(bench.origin().port, proxy).peername[1] == proxy.port


def test_settings_that_cannot_be_used_are_told_before_the_proxy_is_asked(bench: Bench) -> None:
    bench.refused(LocalProtocolError, 443, "http://proxy.test:1", host="a b")
    bench.refused(InvalidURL, 443, "http://proxy.test:1", host="stra\u00dfe..test")
    assert bench.opened == [] and bench.asked == []


# -- deadlines, cancels, and proxies that break ------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["http", "https", "socks5h"])
def test_a_deadline_while_the_proxy_is_silent_says_so(bench: Bench, scheme: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        bench.resolver.resolve("proxy.test", port)  # its thread may be slow, and the clock moves while nothing happens
        error = bench.refused(ConnectTimeout, 443, f"{scheme}://proxy.test:{port}", timeout_s=5)
    assert f"the proxy {scheme}://proxy.test:{port} at 127.0.0.1:{port} had not opened the way" in str(error)
    assert error.spent_s == {"dns": 0, "tcp": 0, "proxy": 5} and error.step == "proxy"


@pytest.mark.parametrize("scheme", ["http", "https", "socks5h"])
def test_a_cancel_ends_the_dial_while_the_proxy_is_silent(bench: Bench, scheme: str) -> None:
    waiting = threading.Event()
    outcome: list[BaseException] = []
    bench.selector = lambda: Announced(waiting, 1)
    bench.resolver.resolve("proxy.test", 1)

    def run(port: int) -> None:
        try:
            bench.dial(443, f"{scheme}://proxy.test:{port}")
        except HyperpoolError as error:
            outcome.append(error)

    with socket.create_server(("127.0.0.1", 0)) as silent:
        dialling = threading.Thread(target=run, args=silent.getsockname()[1:])
        dialling.start()
        assert waiting.wait(WAIT_S)
        bench.cancel.cancel()
        dialling.join(WAIT_S)
    assert [type(error) for error in outcome] == [PoolClosed]


@pytest.mark.parametrize("scheme", ["http", "https", "socks5h"])
def test_a_proxy_that_hangs_up_is_a_proxy_error(bench: Bench, scheme: str) -> None:
    peer = bench.enter(ScriptedPeer(lambda conn: conn.recv(1), tls=False))
    error = bench.refused(ProxyError, 443, f"{scheme}://proxy.test:{peer.port}")
    assert str(error).startswith(f"proxy {scheme}://proxy.test")


@pytest.mark.parametrize("form", ["LF alone", "LF alone behind the status line"])
def test_no_tunnel_stands_on_a_head_that_is_not_as_it_must_be(bench: Bench, form: str) -> None:
    def script(conn: Any) -> None:
        conn.recv_until(b"\r\n\r\n")
        conn.send(NOT_AS_WRITTEN[form])
        conn.drain()

    peer = bench.enter(ScriptedPeer(script, tls=False))
    error = bench.refused(ProxyError, 443, f"http://proxy.test:{peer.port}")
    assert "ends no line of a response head" in str(error)


def tls_proxy(bench: Bench, after_connect: Callable[[Any], object]) -> str:
    """An https proxy that goes wrong when it was asked for a tunnel."""

    def script(conn: Any) -> None:
        conn.recv_until(b"\r\n\r\n")
        after_connect(conn)

    peer = bench.enter(ScriptedPeer(script, alpn=("http/1.1",), certificate=PROXY_CERTIFICATE))
    return f"https://proxy.test:{peer.port}"


def raw(conn: Any) -> socket.socket:
    """The socket below the TLS session, which is lost."""
    return socket.socket(fileno=conn.sock.detach())


def break_record(conn: Any) -> None:
    with raw(conn) as sock:
        sock.sendall(b"\x17\x03\x03\x00\x20" + bytes(32))


def open_then(after: Callable[[Any], object]) -> Callable[[Any], object]:
    def act(conn: Any) -> None:
        conn.send(b"HTTP/1.1 200 OK\r\n\r\n")
        conn.recv(1)
        after(conn)

    return act


@pytest.mark.parametrize("act", [lambda conn: conn.close(), lambda conn: raw(conn).close(), break_record])
def test_an_https_proxy_that_breaks_its_session_before_the_tunnel_is_a_proxy_error(bench: Bench, act: Any) -> None:
    bench.refused(ProxyError, 443, tls_proxy(bench, act))


def test_an_https_proxy_that_breaks_its_session_in_the_tunnel_is_a_proxy_error(bench: Bench) -> None:
    bench.refused(ProxyError, 443, tls_proxy(bench, open_then(break_record)))


@pytest.mark.parametrize("act", [lambda conn: conn.close(), lambda conn: raw(conn).close()])
def test_an_https_proxy_that_closes_the_tunnel_breaks_the_origins_handshake(bench: Bench, act: Any) -> None:
    error = bench.refused(TlsError, 443, tls_proxy(bench, open_then(act)))
    assert "closed the connection during the TLS handshake" in str(error)


def test_an_origins_words_behind_an_https_proxys_answer_are_judged_as_the_origins(bench: Bench) -> None:
    url = tls_proxy(bench, lambda conn: conn.send(b"HTTP/1.1 200 OK\r\n\r\nSSH-2.0-x\r\n"))
    assert "does not speak TLS on this port" in str(bench.refused(TlsError, 443, url))
