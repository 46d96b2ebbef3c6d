"""Certificates and TLS sessions with a fault: refused before a byte of a request leaves, with both ways to do TLS.

The plain kinds (wrong host, expired, not yet valid, self-signed, unknown CA, for clients only) are in
test_client_trust.py. Here are chains, names that only look right, weak keys and signatures; then sessions that are cut
short, renegotiated, or speak another protocol than they agreed on. Each case for `ssl` and for pyOpenSSL.
"""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import pytest
from client_support import H1_TLS, H2_TLS, Kit, raised
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from hyperframe.frame import HeadersFrame
from OpenSSL import SSL

import hyperpool
from hyperpool.testing import ScriptedConnection
from hyperpool.testing.server import load_certificate
from stage import AUTHORITY, SERVER_CERTIFICATE, WAIT_S

DAY = datetime.timedelta(days=1)
ENGINES: dict[str, Callable[[bytes], Any]] = {
    "pyOpenSSL": lambda ca_pem: ca_pem,
    "ssl": lambda ca_pem: ssl.create_default_context(cadata=ca_pem.decode()),
}


@pytest.fixture(params=ENGINES)
def trusting(request: pytest.FixtureRequest) -> Callable[[bytes], Any]:
    """Makes a ``verify`` that trusts a root, for each way in which TLS is done."""
    return ENGINES[request.param]


# -- certificates ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Plan:
    """A certificate to be made. Immutable."""

    name: str = "localhost"
    names: tuple[x509.GeneralName, ...] = (x509.DNSName("localhost"),)
    is_ca: bool = False
    path_length: int | None = None
    signs: bool | None = None
    purpose: x509.ObjectIdentifier | None = ExtendedKeyUsageOID.SERVER_AUTH
    days: tuple[int, int] = (-1, 30)
    hash: Any = hashes.SHA256
    rsa_bits: int = 0
    extra: tuple[tuple[x509.ExtensionType, bool], ...] = ()


ROOT = Plan("root", (), is_ca=True, purpose=None)
MIDDLE = Plan("middle", (), is_ca=True, purpose=None)
LEAF = Plan()


@dataclass(frozen=True)
class Made:
    """A certificate with its key. Immutable."""

    certificate: x509.Certificate
    key: Any

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        kinds = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        return self.key.private_bytes(serialization.Encoding.PEM, *kinds)


@cache
def weak_key(bits: int) -> Any:
    return rsa.generate_private_key(65_537, bits)


def make(plan: Plan, issuer: Made | None = None, *, as_name: x509.Name | None = None) -> Made:
    """Make it, signed by its issuer or by itself; ``as_name``: what it says of its issuer."""
    key = weak_key(plan.rsa_bits) if plan.rsa_bits else ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, plan.name)])
    signer = issuer.key if issuer else key
    now = datetime.datetime.now(datetime.timezone.utc)
    usage = plan.is_ca if plan.signs is None else plan.signs
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(as_name or (issuer.certificate.subject if issuer else subject))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + plan.days[0] * DAY)
        .not_valid_after(now + plan.days[1] * DAY)
        .add_extension(x509.BasicConstraints(plan.is_ca, plan.path_length), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
        .add_extension(key_usage(signs=usage), critical=True)
    )
    if plan.names:
        builder = builder.add_extension(x509.SubjectAlternativeName(plan.names), critical=False)
    if plan.purpose is not None:
        builder = builder.add_extension(x509.ExtendedKeyUsage([plan.purpose]), critical=False)
    for extension, critical in plan.extra:
        builder = builder.add_extension(extension, critical=critical)
    return Made(builder.sign(signer, plan.hash()), key)


def key_usage(*, signs: bool) -> x509.KeyUsage:
    no = dict.fromkeys(("content_commitment", "data_encipherment", "key_agreement", "encipher_only"), False)
    return x509.KeyUsage(
        digital_signature=not signs, key_encipherment=not signs, key_cert_sign=signs, crl_sign=signs,
        decipher_only=False, **no,
    )  # fmt: skip


@dataclass(frozen=True)
class Shown:
    """What a server shows, and what the client trusts. Immutable."""

    trusted: bytes
    chain: bytes
    key: bytes
    host: str = "localhost"


def chain(
    *,
    root: Plan = ROOT,
    middle: Plan | None = MIDDLE,
    leaf: Plan = LEAF,
    sends_middle: bool = True,
    host: str = "localhost",
) -> Shown:
    """A server's chain below a root that is trusted."""
    top = make(root)
    between = make(middle, top) if middle else None
    end = make(leaf, between or top)
    sent = end.pem + (between.pem if between and sends_middle else b"")
    return Shown(top.pem, sent, end.key_pem, host)


def named(*names: x509.GeneralName, host: str = "localhost") -> Callable[[], Shown]:
    return lambda: chain(middle=None, leaf=replace(LEAF, names=names), host=host)


def leaf(**differs: Any) -> Callable[[], Shown]:
    return lambda: chain(middle=None, leaf=replace(LEAF, **differs))


def middle(**differs: Any) -> Callable[[], Shown]:
    return lambda: chain(middle=replace(MIDDLE, **differs))


def of_another_key() -> Shown:
    """The issuer's name is right, and its key is another one."""
    top, stranger = make(ROOT), make(ROOT)
    end = make(LEAF, stranger, as_name=top.certificate.subject)
    return Shown(top.pem, end.pem, end.key_pem)


def forged() -> Shown:
    """One bit of what was signed is another one."""
    shown = chain(middle=None)
    der = bytearray(x509.load_pem_x509_certificate(shown.chain).public_bytes(serialization.Encoding.DER))
    der[-1] ^= 0x01  # the signature's end
    return replace(shown, chain=ssl.DER_cert_to_PEM_cert(bytes(der)).encode())


def constraint(**trees: Any) -> tuple[tuple[x509.ExtensionType, bool], ...]:
    both = {"permitted_subtrees": None, "excluded_subtrees": None, **trees}
    return ((x509.NameConstraints(**both), True),)


LOCAL, OTHER = x509.DNSName("localhost"), x509.DNSName("other.test")
UNKNOWN = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.55555.1"), b"\x05\x00")

BAD_CHAINS: dict[str, Callable[[], Shown]] = {
    "a common name alone": named(),
    "an address in a DNS entry": named(x509.DNSName("127.0.0.1"), host="127.0.0.1"),
    "a name, and asked by address": named(LOCAL, host="127.0.0.1"),
    "another address": named(x509.IPAddress(ipaddress.ip_address("127.0.0.2")), host="127.0.0.1"),
    "a wildcard of everything": named(x509.DNSName("*")),
    "a wildcard within a label": named(x509.DNSName("local*")),
    "a wildcard below the name": named(x509.DNSName("*.localhost")),
    "the name behind a NUL": named(x509.DNSName("localhost\0.other.test")),
    "a mail address": named(x509.RFC822Name("root@localhost")),
    "a URI": named(x509.UniformResourceIdentifier("https://localhost/")),
    "for signing code": leaf(purpose=ExtendedKeyUsageOID.CODE_SIGNING),
    "an unknown extension that is critical": leaf(extra=((UNKNOWN, True),)),
    "a key of 1,024 bits": leaf(rsa_bits=1_024),
    "an issuer of another key": of_another_key,
    "a forged bit": forged,
    "an issuer that is no authority": middle(is_ca=False),
    "an issuer that may not sign": middle(signs=False),
    "an issuer that has expired": middle(days=(-3, -1)),
    "an issuer for clients only": middle(purpose=ExtendedKeyUsageOID.CLIENT_AUTH),
    "an issuer that is missing": lambda: chain(sends_middle=False),
    "an issuer below a root that allows none": lambda: chain(root=replace(ROOT, path_length=0)),
    "an issuer for other names": middle(extra=constraint(permitted_subtrees=[OTHER])),
    "an issuer for all but this name": middle(extra=constraint(excluded_subtrees=[LOCAL])),
    "a root that has expired": lambda: chain(root=replace(ROOT, days=(-3, -1))),
}


def drain(connection: ScriptedConnection) -> None:
    connection.drain()


def show(peer: Any, shown: Shown) -> None:
    """Let the peer show this chain, however weak it is."""
    peer.tls_context.set_ciphers("ALL:@SECLEVEL=0")
    load_certificate(peer.tls_context, (shown.chain, shown.key))


@pytest.mark.parametrize("bad", BAD_CHAINS)
def test_a_bad_chain_is_refused_before_a_byte_of_the_request_is_written(
    kit: Kit, trusting: Callable[[bytes], Any], bad: str
) -> None:
    """RFC 9110 4.3.4, RFC 5280 6, RFC 9525."""
    shown = BAD_CHAINS[bad]()
    peer = kit.peer(drain, alpn=("h2", "http/1.1"))
    show(peer, shown)
    client = kit.client(verify=trusting(shown.trusted), http1=True)
    url = f"https://{shown.host}:{peer.port}/secret"
    error = raised(hyperpool.CertificateError, lambda: client.post(url, content=b"secret"))
    assert (error.processed, error.stream_id) == ("no", None)
    assert peer.wait_done(timeout_s=WAIT_S)
    assert (peer.received, peer.connections_accepted) == (0, 1)


GOOD_CHAINS: dict[str, Callable[[], Shown]] = {
    "below the root": lambda: chain(middle=None),
    "below an issuer": chain,
    "by address": named(x509.IPAddress(ipaddress.ip_address("127.0.0.1")), host="127.0.0.1"),
    "below an issuer for this name": middle(extra=constraint(permitted_subtrees=[LOCAL])),
    "an unknown extension": leaf(extra=((UNKNOWN, False),)),
    "a key of 2,048 bits": leaf(rsa_bits=2_048),
}


@pytest.mark.parametrize("good", GOOD_CHAINS)
def test_a_good_chain_is_taken(kit: Kit, trusting: Callable[[bytes], Any], good: str) -> None:
    """Without these, the cases above might be refused for another reason than theirs."""
    shown = GOOD_CHAINS[good]()
    server = kit.server(H2_TLS, certificate=(shown.chain, shown.key))
    client = kit.client(verify=trusting(shown.trusted))
    assert client.get(f"https://{shown.host}:{server.port}/bytes/3").status_code == 200


# -- sessions ----------------------------------------------------------------------------------------------------------

TRUNCATED = {
    "without framing": b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nabc",
    "within a length": b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc",
    "within a chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabc",
    "before the last chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
    "within the head": b"HTTP/1.1 200 OK\r\nContent-Le",
}


def answering(answer: bytes, end: Callable[[ScriptedConnection], None]) -> Callable[[ScriptedConnection], None]:
    def script(connection: ScriptedConnection) -> None:
        connection.recv_until(b"\r\n\r\n")
        connection.send(answer)
        end(connection)

    return script


@pytest.mark.parametrize("where", TRUNCATED)
def test_a_truncated_session_is_no_end_of_a_response(kit: Kit, trusting: Callable[[bytes], Any], where: str) -> None:
    """T6; RFC 9112 9.8: no close_notify."""
    peer = kit.peer(answering(TRUNCATED[where], ScriptedConnection.cut), alpn=("http/1.1",))
    client = kit.client(H1_TLS, verify=trusting(AUTHORITY.ca_pem))
    error = raised(hyperpool.ConnectionLost, lambda: client.get(peer.url()))
    assert (error.processed, error.origin) == ("maybe", peer.origin)
    assert "without TLS's close_notify" in str(error) and "(after " in str(error)


@pytest.mark.parametrize("end", [ScriptedConnection.cut, ScriptedConnection.close], ids=["truncated", "closed"])
def test_a_response_that_is_whole_stays_so_however_the_session_ends(
    kit: Kit, trusting: Callable[[bytes], Any], end: Callable[[ScriptedConnection], None]
) -> None:
    """T6: the framing decides."""
    peer = kit.peer(answering(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", end), alpn=("http/1.1",))
    client = kit.client(H1_TLS, verify=trusting(AUTHORITY.ca_pem))
    assert client.get(peer.url()).content == b"abc"


def test_an_http2_response_ends_with_its_own_flag_or_not_at_all(kit: Kit, trusting: Callable[[bytes], Any]) -> None:
    """T6; RFC 9113 8.1: one of two is whole when the session is truncated."""

    def script(connection: ScriptedConnection) -> None:
        connection.greet()
        for stream_id in (1, 3):
            connection.wait_frame(HeadersFrame)
            connection.headers(stream_id, [(":status", "200")])
        connection.data(1, b"whole", end_stream=True)
        connection.data(3, b"half")
        connection.sock.shutdown(socket.SHUT_WR)
        connection.drain()  # else what is unread would make a reset of it, which takes back what was sent

    peer = kit.peer(script)
    client = kit.client(H2_TLS, verify=trusting(AUTHORITY.ca_pem))
    whole, half = [client.submit("POST", peer.url(path)) for path in ("/whole", "/half")]
    assert whole.result(WAIT_S).content == b"whole"
    assert isinstance(half.exception(WAIT_S), hyperpool.ConnectionLost)


def openssl_server(connection: ScriptedConnection, *, alpn: bytes | None = b"http/1.1", tls12: bool = False) -> Any:
    """The server's side of TLS by pyOpenSSL, which can do what `ssl` cannot."""
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    certificate, key = SERVER_CERTIFICATE
    context.use_certificate(x509.load_pem_x509_certificate(certificate))
    context.use_privatekey(serialization.load_pem_private_key(key, None))
    if tls12:
        context.set_max_proto_version(SSL.TLS1_2_VERSION)
    if alpn is not None:
        context.set_alpn_select_callback(lambda _, __: alpn)
    connection.sock.setblocking(True)
    session = SSL.Connection(context, connection.sock)
    session.set_accept_state()
    session.do_handshake()
    return session


def test_a_server_that_renegotiates_is_left(kit: Kit, trusting: Callable[[bytes], Any]) -> None:
    """T7; RFC 9113 9.2.1: no second handshake, in which the certificate could be another one."""
    hellos: list[bytes] = []

    def script(connection: ScriptedConnection) -> None:
        session = openssl_server(connection, tls12=True)
        session.recv(65_536)
        hellos.append(session.client_random())
        session.renegotiate()
        with contextlib.suppress(SSL.Error):
            session.do_handshake()  # says HelloRequest
            session.send(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc")
            while session.recv(65_536):
                pass
        hellos.append(session.client_random())

    peer = kit.peer(script, tls=False)
    client = kit.client(H1_TLS, verify=trusting(AUTHORITY.ca_pem), timeout=WAIT_S)
    future = client.submit("POST", peer.url().replace("http:", "https:"), content=b"x")
    # The request is refused, or answered in the session that there was: never in a new one.
    error = future.exception(WAIT_S)
    assert error is None or isinstance(error, (hyperpool.TlsError, hyperpool.ConnectionLost)), repr(error)
    client.close()
    assert peer.wait_done(timeout_s=WAIT_S)
    assert len(set(hellos)) == 1 and len(hellos) == 2, "a second handshake"
    assert not peer.errors


def test_a_server_that_agrees_on_what_nobody_offered_is_left(kit: Kit, trusting: Callable[[bytes], Any]) -> None:
    """T8; RFC 7301 3.1."""
    got: list[bytes] = []

    def script(connection: ScriptedConnection) -> None:
        with contextlib.suppress(SSL.Error):
            session = openssl_server(connection, alpn=b"spdy/3")
            got.append(session.recv(65_536))

    peer = kit.peer(script, tls=False)
    client = kit.client(H1_TLS, verify=trusting(AUTHORITY.ca_pem), http2=True)
    error = raised(hyperpool.TlsError, lambda: client.post(peer.url().replace("http:", "https:"), content=b"secret"))
    assert error.processed == "no"
    assert peer.wait_done(timeout_s=WAIT_S)
    assert (got, peer.errors) == ([], [])


def test_a_server_that_agrees_on_http2_and_speaks_http1_is_named(kit: Kit, trusting: Callable[[bytes], Any]) -> None:
    """T8, F1."""

    def script(connection: ScriptedConnection) -> None:
        connection.recv(1)
        connection.send(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
        connection.drain()

    peer = kit.peer(script)
    client = kit.client(verify=trusting(AUTHORITY.ca_pem), http1=True)
    error = raised(hyperpool.RemoteProtocolError, lambda: client.get(peer.url()))
    assert "HTTP/1" in str(error)


def test_a_server_that_agrees_on_http1_and_speaks_http2_is_refused(kit: Kit, trusting: Callable[[bytes], Any]) -> None:
    """T8."""
    peer = kit.peer(answering(b"\0\0\0\x04\0\0\0\0\0", ScriptedConnection.drain), alpn=("http/1.1",))
    client = kit.client(verify=trusting(AUTHORITY.ca_pem), http1=True)
    raised(hyperpool.RemoteProtocolError, lambda: client.get(peer.url()))


def test_a_server_without_alpn_is_not_asked_in_http2(kit: Kit, trusting: Callable[[bytes], Any]) -> None:
    """T8: refused before a byte, where HTTP/2 alone is wanted."""
    peer = kit.peer(drain, alpn=())
    client = kit.client(H2_TLS, verify=trusting(AUTHORITY.ca_pem))
    raised(hyperpool.TlsError, lambda: client.post(peer.url(), content=b"secret"))
    assert peer.wait_done(timeout_s=WAIT_S) and peer.received == 0


def test_each_connection_is_what_its_own_alpn_says(kit: Kit, trusting: Callable[[bytes], Any]) -> None:
    """T8: a server that was moved from HTTP/2 to HTTP/1.1."""

    def script(connection: ScriptedConnection) -> None:
        if connection.number == 1:
            connection.greet()
            connection.wait_frame(HeadersFrame)
            peer.tls_context.set_alpn_protocols(["http/1.1"])
            connection.headers(1, [(":status", "200")], end_stream=True)
            connection.sock.shutdown(socket.SHUT_WR)
            connection.drain()  # until the client has closed its end, and asks elsewhere
            return
        connection.recv_until(b"\r\n\r\n")
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc")
        connection.drain()

    peer = kit.peer(script)
    client = kit.client(verify=trusting(AUTHORITY.ca_pem), http1=True)
    first = client.get(peer.url("/first"))
    assert peer.wait_done(1, timeout_s=WAIT_S)
    second = client.get(peer.url("/second"))
    assert [(one.http_version, one.content) for one in (first, second)] == [("HTTP/2", b""), ("HTTP/1.1", b"abc")]
