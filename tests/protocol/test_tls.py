"""TLS as bytes: the client's TlsStream against a server that is an `ssl.MemoryBIO` object in the same thread.

No sockets, no threads, no ports. `Bench` carries bytes between the two; the certificates are made by `cryptography`.
"""

from __future__ import annotations

import datetime
import functools
import ipaddress
import re
import ssl
import threading
import warnings
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from OpenSSL import SSL, crypto

from hyperpool.engine.trust import TlsConfig
from hyperpool.errors import CertificateError, ConnectionLost, InvalidURL, RemoteProtocolError, TlsError
from hyperpool.protocol.tls import TlsStream
from hyperpool.values import TlsSettings

NOW = datetime.datetime.now(datetime.timezone.utc)
DAY = datetime.timedelta(days=1)
HOST = "server.test"


class Credential:
    """A certificate with its key, and the means to issue further ones. Immutable."""

    def __init__(self, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
        self.certificate = certificate
        self.key = key

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    def key_pem(self, password: bytes | None = None) -> bytes:
        protection: Any = serialization.NoEncryption()
        if password:
            protection = serialization.BestAvailableEncryption(password)
        return self.key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, protection)


@functools.cache
def issue(
    *names: str,
    issuer: Credential | None = None,
    common_name: str = "somebody",
    begin: int = -1,
    end: int = 1,
    purpose: x509.ObjectIdentifier = ExtendedKeyUsageOID.SERVER_AUTH,
    authority: bool = False,
) -> Credential:
    """A credential for host names and addresses; ``begin`` and ``end`` in days from now."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    builder = x509.CertificateBuilder(
        subject_name=subject,
        issuer_name=issuer.certificate.subject if issuer else subject,
        public_key=key.public_key(),
        serial_number=x509.random_serial_number(),
        not_valid_before=NOW + begin * DAY,
        not_valid_after=NOW + end * DAY,
    )
    builder = builder.add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    signing_key = issuer.key if issuer else key
    key_id = x509.AuthorityKeyIdentifier.from_issuer_public_key(signing_key.public_key())
    builder = builder.add_extension(key_id, critical=False)
    builder = builder.add_extension(_usage(authority), critical=True)
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(list(map(_general_name, names))), critical=False)
    if not authority:
        builder = builder.add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
    return Credential(builder.sign(signing_key, hashes.SHA256()), key)


def _usage(authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(True, False, False, False, False, authority, authority, False, False)


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


CA = issue(common_name="Test CA", authority=True)
STRANGER = issue(common_name="Other CA", authority=True)
GOOD = issue(HOST, issuer=CA)


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pem")


def put(folder: Path, name: str, *pieces: bytes) -> str:
    path = folder / name
    path.write_bytes(b"".join(pieces))
    return str(path)


@pytest.fixture(params=["pyopenssl", "stdlib"])
def engine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def settings(engine: str, *, trust: Credential = CA, **more: Any) -> TlsSettings:
    if engine == "pyopenssl":
        return TlsSettings(verify=trust.pem, **more)
    return TlsSettings(verify=ssl.create_default_context(cadata=trust.pem.decode()), **more)


def set_bounds(context: ssl.SSLContext, *, newest: ssl.TLSVersion) -> ssl.SSLContext:
    """From TLS 1.0 on where the newest is old, which OpenSSL takes for insecure and Python for deprecated."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.maximum_version = newest
        if newest < ssl.TLSVersion.TLSv1_2:
            context.minimum_version = ssl.TLSVersion.TLSv1
            context.set_ciphers("DEFAULT:@SECLEVEL=0")
    return context


class Bench:
    """A client and a server session joined by bytes.

    ``shown``: what the server saw of the client: its certificate, its SNI.
    """

    def __init__(
        self,
        client: TlsStream,
        files: Path,
        credential: Credential = GOOD,
        *,
        alpn: list[str] | None = None,
        client_ca: Credential | None = None,
        newest: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3,
    ) -> None:
        self.client = client
        self.sni: str | None = None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(put(files, f"server-{id(self)}.pem", credential.pem, credential.key_pem()))
        set_bounds(context, newest=newest)
        context.sni_callback = self._note_sni
        if alpn:
            context.set_alpn_protocols(alpn)
        if client_ca:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(cadata=client_ca.pem.decode())
        self._to_server, self._from_server = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.server = context.wrap_bio(self._to_server, self._from_server, server_side=True)

    def _note_sni(self, _session: object, name: str, _context: object) -> None:
        self.sni = name

    def to_server(self) -> None:
        self._to_server.write(self.client.ciphertext())

    def from_server(self) -> bytes:
        return self._from_server.read()

    def server_step(self) -> None:
        try:
            self.server.do_handshake()
        except ssl.SSLWantReadError:
            return

    def shake(self, *, size: int = 1 << 20) -> Bench:
        """Both sides of the handshake, in pieces of ``size`` bytes to the client."""
        while not self.client.handshake():
            self.to_server()
            self.server_step()
            flight = self.from_server()
            assert flight, "nobody has anything to say"
            for at in range(0, len(flight), size):
                self.client.feed(flight[at : at + size])
                if at + size < len(flight):
                    self.client.handshake()
        self.to_server()
        self.server_step()
        return self

    def say(self, plaintext: bytes) -> bytes:
        """The server says something: its ciphertext."""
        self.server.write(plaintext)
        return self.from_server()

    def heard(self) -> bytes:
        """What the server can read now."""
        self.to_server()
        chunks = []
        try:
            while chunk := self.server.read(1 << 16):
                chunks.append(chunk)
        except ssl.SSLWantReadError:
            pass
        return b"".join(chunks)


def connect(engine: str, files: Path, *, host: str = HOST, credential: Credential = GOOD, **server: Any) -> Bench:
    return Bench(TlsConfig(settings(engine)).client(host), files, credential, **server).shake()


# Whom we talk to


def test_a_certificate_for_another_host_is_refused(engine: str, files: Path) -> None:
    with pytest.raises(CertificateError, match=r"not (for|valid for) 'other.test'") as caught:
        connect(engine, files, host="other.test")
    assert caught.value.processed == "no"


def test_the_refusal_names_the_hosts_of_the_certificate(files: Path) -> None:
    credential = issue("a.test", "192.0.2.1", issuer=CA)
    with pytest.raises(CertificateError, match=r"certificate is for 'a.test', '192.0.2.1', not for 'server.test'"):
        connect("pyopenssl", files, credential=credential)


def test_nothing_is_sent_to_a_wrong_host_after_its_certificate(engine: str, files: Path) -> None:
    bench = Bench(TlsConfig(settings(engine)).client("other.test"), files)
    with pytest.raises(CertificateError) as caught:
        bench.shake()
    assert len(bench.client.ciphertext()) < 60  # an alert at most, and no Finished
    assert bench.client.failure is caught.value
    with pytest.raises(CertificateError):
        bench.client.handshake()


def test_a_byte_written_before_the_check_is_an_assertion(engine: str) -> None:
    stream = TlsConfig(settings(engine)).client(HOST)
    with pytest.raises(AssertionError, match="9110 4.3.4"):
        stream.write(b"GET /")


@pytest.mark.parametrize("host", ["192.0.2.7", "2001:db8::7", "[2001:db8::7]", "2001:db8::7%1"])
def test_an_address_matches_its_entry_in_the_certificate(engine: str, files: Path, host: str) -> None:
    bench = connect(engine, files, host=host, credential=issue("192.0.2.7", "2001:db8::7", issuer=CA))
    assert bench.sni is None


def test_an_address_that_the_certificate_does_not_name_is_refused(engine: str, files: Path) -> None:
    with pytest.raises(CertificateError, match="192.0.2.7"):
        connect(engine, files, host="192.0.2.7")


def test_a_common_name_does_not_count(engine: str, files: Path) -> None:
    with pytest.raises(CertificateError, match=r"no host at all|not valid for"):
        connect(engine, files, credential=issue(issuer=CA, common_name=HOST))


def test_a_wildcard_stands_for_one_label(engine: str, files: Path) -> None:
    credential = issue("*.example.test", issuer=CA)
    assert connect(engine, files, host="www.example.test", credential=credential).client.alpn is None
    with pytest.raises(CertificateError):
        connect(engine, files, host="a.b.example.test", credential=credential)


def test_a_name_that_the_checker_cannot_read_is_refused(files: Path) -> None:
    with pytest.raises(CertificateError, match="not for 'a b.test'"):
        connect("pyopenssl", files, host="a b.test")


@pytest.mark.parametrize(
    ("credential", "words"),
    [
        (issue(HOST, issuer=CA, begin=-3, end=-1), "certificate has expired"),
        (issue(HOST, issuer=CA, begin=1, end=3), "certificate is not yet valid"),
        (issue(HOST), "self-signed certificate; give the certificate of its issuer as verify="),
        (issue(HOST, issuer=STRANGER), "unable to get local issuer certificate"),
        (issue(HOST, issuer=CA, purpose=ExtendedKeyUsageOID.CLIENT_AUTH), "unsuitable certificate purpose"),
    ],
)
def test_a_certificate_that_cannot_be_trusted_is_refused_with_its_reason(
    engine: str, files: Path, credential: Credential, words: str
) -> None:
    bench = Bench(TlsConfig(settings(engine)).client(HOST), files, credential)
    with pytest.raises(CertificateError, match=words):
        bench.shake()
    assert bench.client.ciphertext(), "the alert that tells the server why"


def test_verify_false_takes_any_certificate(files: Path) -> None:
    client = TlsConfig(TlsSettings(verify=False)).client(HOST)
    assert Bench(client, files, issue("other.test")).shake().client.handshake()


def test_a_certificate_given_as_verify_is_trusted_itself(engine: str, files: Path) -> None:
    alone = issue(HOST, common_name="alone")
    assert Bench(TlsConfig(settings(engine, trust=alone)).client(HOST), files, alone).shake().client.handshake()


def test_sni_is_the_a_label_without_the_final_dot(engine: str, files: Path) -> None:
    bench = connect(engine, files, host="BÜCHER.test.", credential=issue("xn--bcher-kva.test", issuer=CA))
    assert bench.sni == "xn--bcher-kva.test"


def test_a_name_without_an_a_label_is_an_invalid_url(engine: str) -> None:
    with pytest.raises(InvalidURL, match="xn--"):
        TlsConfig(settings(engine)).client("☃\u2044.test")


# Contexts


def test_an_openssl_context_is_used_and_host_names_are_checked(files: Path) -> None:
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.load_verify_locations(put(files, "ca.pem", CA.pem))
    context.set_verify(SSL.VERIFY_PEER)
    config = TlsConfig(TlsSettings(verify=context))
    assert Bench(config.client(HOST), files, alpn=["h2"]).shake().client.alpn == "h2"
    with pytest.raises(CertificateError, match="not for 'other.test'"):
        Bench(config.client("other.test"), files).shake()
    with pytest.raises(CertificateError, match="certificate verify failed"):
        Bench(config.client(HOST), files, issue(HOST)).shake()


def test_an_openssl_context_that_verifies_nothing_is_obeyed(files: Path) -> None:
    config = TlsConfig(TlsSettings(verify=SSL.Context(SSL.TLS_CLIENT_METHOD)))
    assert Bench(config.client("other.test"), files).shake().client.handshake()


def test_what_a_callback_of_the_caller_raises_is_a_tls_error(files: Path) -> None:
    def explode(*_: object) -> bool:
        raise KeyError("mine")

    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_verify(SSL.VERIFY_PEER, explode)
    with pytest.raises(TlsError, match="KeyError") as caught:
        Bench(TlsConfig(TlsSettings(verify=context)).client(HOST), files).shake()
    assert isinstance(caught.value.__cause__, KeyError)


def test_an_ssl_context_for_servers_cannot_be_used() -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with pytest.raises(TlsError, match=r"ssl\.SSLContext cannot be used"):
        TlsConfig(TlsSettings(verify=context)).client(HOST)


class OvertakingLock:
    """Lies: while it is waited for, another thread has built the context already."""

    def __init__(self, config: TlsConfig) -> None:
        self._config, self._mine = config, threading.Lock()
        self.built: list[Any] = []

    def __enter__(self) -> None:
        self._config._lock = self._mine
        self.built.append(self._config.build())

    def __exit__(self, *_: object) -> None:
        return None


def test_a_context_that_another_thread_built_meanwhile_is_used() -> None:
    config = TlsConfig(TlsSettings(verify=CA.pem))
    lock = OvertakingLock(config)
    config._lock = lock  # type: ignore[assignment]
    assert config.build() is lock.built[0]


# Trust


def test_true_means_certifi(monkeypatch: pytest.MonkeyPatch, files: Path) -> None:
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    monkeypatch.delenv("SSL_CERT_DIR", raising=False)
    monkeypatch.setattr("certifi.where", lambda: put(files, "certifi.pem", CA.pem))
    assert Bench(TlsConfig(TlsSettings()).client(HOST), files).shake().client.handshake()


def test_true_means_ssl_cert_file_where_the_environment_is_trusted(
    monkeypatch: pytest.MonkeyPatch, files: Path
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", put(files, "env.pem", CA.pem))
    monkeypatch.delenv("SSL_CERT_DIR", raising=False)
    monkeypatch.setattr("certifi.where", lambda: put(files, "stranger.pem", STRANGER.pem))
    assert Bench(TlsConfig(TlsSettings()).client(HOST), files).shake().client.handshake()
    with pytest.raises(CertificateError):
        Bench(TlsConfig(TlsSettings(trust_env=False)).client(HOST), files).shake()


def test_system_means_the_default_paths_of_openssl(monkeypatch: pytest.MonkeyPatch, files: Path) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", put(files, "system.pem", CA.pem))
    assert Bench(TlsConfig(TlsSettings(verify="system")).client(HOST), files).shake().client.handshake()


@pytest.mark.parametrize("form", [str, Path])
def test_a_file_is_trusted(files: Path, form: Any) -> None:
    verify = form(put(files, "file.pem", CA.pem))
    assert Bench(TlsConfig(TlsSettings(verify=verify)).client(HOST), files).shake().client.handshake()


def test_pem_may_be_text(files: Path) -> None:
    client = TlsConfig(TlsSettings(verify=CA.pem.decode())).client(HOST)
    assert Bench(client, files).shake().client.handshake()


def test_a_hashed_folder_is_trusted(tmp_path: Path, files: Path) -> None:
    digest = crypto.X509.from_cryptography(CA.certificate).subject_name_hash()
    put(tmp_path, f"{digest:08x}.0", CA.pem)
    client = TlsConfig(TlsSettings(verify=str(tmp_path))).client(HOST)
    assert Bench(client, files).shake().client.handshake()


def test_a_folder_without_hashed_names_is_an_error_at_once(tmp_path: Path) -> None:
    put(tmp_path, "ca.pem", CA.pem)
    with pytest.raises(TlsError, match="openssl rehash"):
        TlsConfig(TlsSettings(verify=tmp_path)).build()


@pytest.mark.parametrize(
    ("verify", "words"),
    [
        ("/no/such/file", "/no/such/file.*no such file or folder"),
        (__file__, "no CA certificate in PEM form"),
        (b"garbage", "verify: no certificate in PEM form"),
        (b"", "verify: no certificate in PEM form"),
    ],
)
def test_trust_that_cannot_be_read_names_the_culprit(verify: Any, words: str) -> None:
    config = TlsConfig(TlsSettings(verify=verify))
    with pytest.raises(TlsError, match=words):
        config.build()


def test_a_file_that_was_put_right_is_read_again(tmp_path: Path) -> None:
    config = TlsConfig(TlsSettings(verify=str(tmp_path / "late.pem")))
    with pytest.raises(TlsError):
        config.build()
    put(tmp_path, "late.pem", CA.pem)
    assert config.build() is config.build()


# Who we are

ME = issue("me.test", issuer=CA, purpose=ExtendedKeyUsageOID.CLIENT_AUTH)


def as_files(folder: Path, password: bytes | None = None) -> tuple[str, str]:
    key = put(folder, f"my-{bool(password)}.key", ME.key_pem(password))
    return put(folder, "my.crt", ME.pem, CA.pem), key


def shown_for(cert: Any, engine: str, files: Path) -> bytes | None:
    """The certificate that the server got to see."""
    client = TlsConfig(settings(engine, cert=cert)).client(HOST)
    return Bench(client, files, client_ca=CA).shake().server.getpeercert(binary_form=True)


def test_a_client_certificate_in_files_is_shown(engine: str, files: Path) -> None:
    assert shown_for(as_files(files), engine, files) == ME.certificate.public_bytes(serialization.Encoding.DER)


def test_a_client_certificate_in_one_file_is_shown(engine: str, files: Path) -> None:
    assert shown_for(put(files, "both.pem", ME.pem, ME.key_pem()), engine, files)
    assert shown_for(put(files, "key-first.pem", ME.key_pem(), ME.pem), engine, files)


@pytest.mark.parametrize("password", ["sesame", b"sesame"])
def test_a_client_certificate_with_a_password_is_shown(engine: str, files: Path, password: Any) -> None:
    assert shown_for((*as_files(files, b"sesame"), password), engine, files)


def test_a_client_certificate_as_pem_bytes_is_shown(files: Path) -> None:
    assert shown_for(ME.pem + ME.key_pem(), "pyopenssl", files)
    assert shown_for((ME.pem, ME.key_pem()), "pyopenssl", files)
    assert shown_for((ME.pem, ME.key_pem(b"sesame"), "sesame"), "pyopenssl", files)
    assert shown_for([ME.pem, as_files(files)[1]], "pyopenssl", files)


def test_a_client_certificate_goes_into_a_fresh_openssl_context_only(files: Path) -> None:
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    given = TlsSettings(verify=context, cert=(ME.pem, ME.key_pem()))
    assert Bench(TlsConfig(given).client(HOST), files, client_ca=CA).shake().server.getpeercert()
    with pytest.raises(TlsError, match="in use already"):
        TlsConfig(given).build()


@pytest.mark.parametrize(
    ("cert", "words"),
    [
        ("/no/such.pem", "/no/such.pem.*cannot be read"),
        (__file__, "no certificate in PEM form"),
        (ME.pem, "no private key in PEM form"),
        ((ME.pem, b"garbage"), "no private key in PEM form"),
        ((ME.pem, GOOD.key_pem()), "does not belong"),
        ((ME.pem, ME.key_pem(b"sesame"), "wrong"), "wrong password"),
        ((ME.pem, ME.key_pem(b"sesame")), "Password was not given.*cert=.certificate, key, password"),
        ((ME.pem, ME.key_pem(), "superfluous"), "not encrypted"),
    ],
)
def test_a_client_certificate_that_cannot_be_used_says_why(cert: Any, words: str) -> None:
    with pytest.raises(TlsError, match=words) as caught:
        TlsConfig(TlsSettings(verify=CA.pem, cert=cert)).build()
    assert "PRIVATE KEY" not in str(caught.value)


@pytest.mark.parametrize(
    ("cert", "words"),
    [((ME.pem, ME.key_pem()), "takes files only"), ("/no", "cert='/no'"), (("/no", "/key"), r"cert=\('/no', '/key'\)")],
)
def test_an_ssl_context_says_which_client_certificate_it_cannot_take(cert: Any, words: str) -> None:
    with pytest.raises(TlsError, match=words):
        TlsConfig(settings("stdlib", cert=cert)).build()


def test_an_encrypted_key_without_a_password_is_an_error_and_no_question_on_the_terminal(files: Path) -> None:
    with pytest.raises(TlsError, match="cannot be used"):
        TlsConfig(settings("stdlib", cert=as_files(files, b"sesame"))).build()


@pytest.mark.parametrize("newest", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_server_that_misses_a_client_certificate_says_so(engine: str, files: Path, newest: ssl.TLSVersion) -> None:
    bench = Bench(TlsConfig(settings(engine)).client(HOST), files, client_ca=CA, newest=newest)
    with pytest.raises(ssl.SSLError, match="PEER_DID_NOT_RETURN"):
        bench.shake()
    bench.client.feed(bench.from_server())
    with pytest.raises((TlsError, ConnectionLost), match=r"cert=") as caught:
        bench.client.handshake()
        bench.client.read()
    assert caught.value.__cause__ is not None


# Versions


@pytest.mark.parametrize(
    ("wanted", "spoken", "chosen"),
    [
        ({}, ["h2", "http/1.1"], "h2"),
        ({}, ["http/1.1"], "http/1.1"),
        ({}, None, None),
        ({"http2": False}, ["h2", "http/1.1"], "http/1.1"),
        ({"http1": False}, ["h2", "http/1.1"], "h2"),
        ({"http1": False}, ["http/1.1"], None),
    ],
)
def test_alpn_offers_what_is_wanted(
    engine: str, files: Path, wanted: dict[str, bool], spoken: list[str] | None, chosen: str | None
) -> None:
    config = TlsConfig(settings(engine))
    config.client(HOST, http1=True, http2=True)  # another route with the same settings leaves no trace
    assert Bench(config.client(HOST, **wanted), files, alpn=spoken).shake().client.alpn == chosen


class OldContext(ssl.SSLContext):
    """One of OpenSSL 1.1.1, to which an empty list is a lack of memory."""

    def set_alpn_protocols(self, alpn_protocols: Any) -> None:
        super().set_alpn_protocols(alpn_protocols)
        if not alpn_protocols:
            raise MemoryError


@pytest.mark.parametrize(("make", "left"), [(ssl.SSLContext, None), (OldContext, "http/1.1")])
def test_a_context_that_was_used_offers_no_http2_to_others(files: Path, make: Any, left: str | None) -> None:
    context = make(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=CA.pem.decode())
    config = TlsConfig(TlsSettings(verify=context))
    assert Bench(config.client(HOST), files, alpn=["h2", "http/1.1"]).shake().client.alpn == "h2"
    bench = Bench(config.client(HOST), files, alpn=["h2", "http/1.1"])
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    somebody_else = context.wrap_bio(incoming, outgoing, server_hostname=HOST)
    with pytest.raises(ssl.SSLWantReadError):
        somebody_else.do_handshake()
    bench._to_server.write(outgoing.read())
    bench.server_step()
    incoming.write(bench.from_server())
    somebody_else.do_handshake()
    assert somebody_else.selected_alpn_protocol() == left


def test_a_context_for_which_a_session_cannot_be_made_offers_nothing_either() -> None:
    class Refusing(ssl.SSLContext):
        offered: Any = None

        def set_alpn_protocols(self, alpn_protocols: Any) -> None:
            self.offered = alpn_protocols

        def wrap_bio(self, *_: Any, **__: Any) -> Any:
            raise ValueError("not today")

    context = Refusing(ssl.PROTOCOL_TLS_CLIENT)
    with pytest.raises(TlsError, match=r"cannot be used for server\.test: not today"):
        TlsConfig(TlsSettings(verify=context)).client(HOST)
    assert context.offered == []


def test_an_openssl_context_keeps_the_alpn_list_of_the_caller(files: Path) -> None:
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_alpn_protos([b"http/1.1"])
    assert Bench(TlsConfig(TlsSettings(verify=context)).client(HOST), files, alpn=["h2"]).shake().client.alpn == "h2"
    bench = Bench(TlsConfig(TlsSettings(verify=False)).client(HOST), files, alpn=["h2", "http/1.1"])
    somebody_else = SSL.Connection(context, None)
    somebody_else.set_connect_state()
    with pytest.raises(SSL.WantReadError):
        somebody_else.do_handshake()
    bench._to_server.write(somebody_else.bio_read(1 << 16))
    bench.server_step()
    somebody_else.bio_write(bench.from_server())
    somebody_else.do_handshake()
    assert somebody_else.get_alpn_proto_negotiated() == b"http/1.1"


@pytest.mark.parametrize(("newest", "name"), [(ssl.TLSVersion.TLSv1_2, "TLSv1.2"), (ssl.TLSVersion.TLSv1_3, "TLSv1.3")])
def test_a_session_knows_what_was_agreed(engine: str, files: Path, newest: ssl.TLSVersion, name: str) -> None:
    client = connect(engine, files, newest=newest, alpn=["h2"]).client
    assert client.version == name
    assert client.cipher is not None and re.search("AES|CHACHA", client.cipher)
    assert client.peer_certificate_der == GOOD.certificate.public_bytes(serialization.Encoding.DER)
    assert repr(client) == f"<TlsStream server.test ready {name} alpn=h2>"


def test_a_session_before_its_handshake_knows_nothing(engine: str) -> None:
    client = TlsConfig(settings(engine)).client(HOST)
    assert client.alpn is None and client.cipher is None and client.peer_certificate_der is None
    assert "handshake" in repr(client)


# Bytes


@pytest.mark.parametrize("size", [1, 7, 1000, 1 << 20])
@pytest.mark.parametrize("newest", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_any_split_of_the_bytes_gives_the_same_session(
    engine: str, files: Path, size: int, newest: ssl.TLSVersion
) -> None:
    bench = Bench(TlsConfig(settings(engine)).client(HOST), files, newest=newest).shake(size=size)
    data = bench.say(b"hello ") + bench.say(b"world" * 2000)
    got = b""
    for at in range(0, len(data), size):
        bench.client.feed(data[at : at + size])
        got += bench.client.read()
    assert got == b"hello " + b"world" * 2000
    assert bench.client.read() == b""
    bench.client.write(b"and back")
    assert bench.heard() == b"and back"


@pytest.mark.parametrize("form", [bytes, bytearray, memoryview])
def test_any_buffer_is_taken(engine: str, files: Path, form: Any) -> None:
    bench = connect(engine, files)
    bench.client.write(form(b""))
    bench.client.write(form(b"x" * 100_000))
    assert bench.heard() == b"x" * 100_000
    bench.client.feed(form(b""))
    bench.client.feed(form(bench.say(b"y")))
    assert bench.client.read() == b"y"


def test_ten_megabytes_pass_both_ways(engine: str, files: Path) -> None:
    bench, block = connect(engine, files), bytes(range(256)) * 4096
    for _ in range(10):
        bench.client.write(block)
        assert bench.heard() == block
        bench.client.feed(bench.say(block))
        assert bench.client.read() == block


def test_an_empty_output_is_empty(engine: str, files: Path) -> None:
    assert connect(engine, files).client.ciphertext() == b""


# Ends


def ended(stream: TlsStream) -> str:
    return "+".join(word for word in ("eof", "truncated") if getattr(stream, word))


def test_close_notify_is_eof_and_no_truncation(engine: str, files: Path) -> None:
    bench = connect(engine, files)
    last = bench.say(b"last")
    with pytest.raises(ssl.SSLWantReadError):
        bench.server.unwrap()
    bench.client.feed(last + bench.from_server())
    bench.client.feed_eof()
    assert bench.client.read() == b"last"
    assert bench.client.read() == b""
    assert ended(bench.client) == "eof" and bench.client.failure is None


def test_the_end_of_bytes_without_close_notify_is_a_truncation(engine: str, files: Path) -> None:
    bench = connect(engine, files)
    bench.client.feed(bench.say(b"all but the last record") + bench.say(b"cut")[:-1])
    assert bench.client.read() == b"all but the last record"
    assert not ended(bench.client)
    bench.client.feed_eof()
    assert bench.client.read() == b""
    assert ended(bench.client) == "truncated"


def test_close_tells_the_server_once(engine: str, files: Path) -> None:
    bench = connect(engine, files)
    bench.client.write(b"bye")
    bench.client.close()
    assert bench.heard() == b"bye"
    assert bench.server.read() == b""  # the stdlib's word for close_notify
    bench.client.close()
    assert bench.client.ciphertext() == b""
    assert bench.client.failure is None


def test_close_before_the_handshake_says_nothing(engine: str) -> None:
    client = TlsConfig(settings(engine)).client(HOST)
    client.close()
    assert client.ciphertext() == b""


def test_writing_after_close_is_an_error_of_ours(engine: str, files: Path) -> None:
    client = connect(engine, files).client
    client.close()
    with pytest.raises(RemoteProtocolError):
        client.write(b"late")


def test_a_broken_record_is_told_after_what_stood_before_it(engine: str, files: Path) -> None:
    bench = connect(engine, files)
    good, bad = bench.say(b"good"), bytearray(bench.say(b"bad"))
    bad[-1] ^= 1
    bench.client.feed(good + bytes(bad))
    assert bench.client.read() == b"good"
    assert isinstance(bench.client.failure, RemoteProtocolError)
    with pytest.raises(RemoteProtocolError, match="broken") as caught:
        bench.client.read()
    assert caught.value.processed == "maybe"
    assert bench.client.ciphertext(), "the alert"


def test_a_broken_record_alone_is_told_at_once(engine: str, files: Path) -> None:
    bench = connect(engine, files)
    bench.client.feed(b"GET / HTTP/1.1\r\n\r\n")
    with pytest.raises(RemoteProtocolError):
        bench.client.read()
    with pytest.raises((RemoteProtocolError, ConnectionLost)):
        bench.client.write(b"more")
    bench.client.close()
    bench.client.close()


# What is no handshake


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "speaks plain HTTP on this port"),
        (b"SSH-2.0-OpenSSH_9.9\r\n", "does not speak TLS on this port.*SSH-2"),
        (b"\x00" * 40, "does not speak TLS"),
        (b"\x15\x03\x03\x00\x02\x02\x78", "none of the HTTP versions that were offered"),
        (b"\x15\x03\x03\x00\x02\x02\x46", "no TLS version that is still safe"),
        (b"\x15\x03\x03\x00\x02\x02\x28", "client certificate"),
        (b"\x15\x03\x03\x00\x02\x02\x70", "does not serve this host name"),
        (b"\x16\x03\x03\x00\x04\xff\xff\xff\xff", "TLS handshake with server.test failed"),
    ],
)
@pytest.mark.parametrize("size", [1, 100])
def test_an_answer_that_is_no_handshake_is_named(engine: str, answer: bytes, words: str, size: int) -> None:
    client = TlsConfig(settings(engine)).client(HOST)
    with pytest.raises(TlsError, match=words) as caught:
        for at in range(0, len(answer), size):
            client.handshake()
            client.feed(answer[at : at + size])
        client.feed_eof()
        client.handshake()
    assert caught.value is client.failure


@pytest.mark.parametrize(("start", "words"), [(b"", "closed the connection"), (b"HTT", "does not speak TLS")])
def test_the_end_of_bytes_in_the_handshake_is_a_tls_error(engine: str, start: bytes, words: str) -> None:
    client = TlsConfig(settings(engine)).client(HOST)
    assert not client.handshake()
    client.feed(start)
    client.feed_eof()
    with pytest.raises(TlsError, match=words):
        client.handshake()


def test_a_server_that_knows_only_old_tls_is_refused(files: Path) -> None:
    bench = Bench(TlsConfig(settings("pyopenssl")).client(HOST), files, newest=ssl.TLSVersion.TLSv1_1)
    bench.client.handshake()
    bench.to_server()
    with pytest.raises(ssl.SSLError, match="UNSUPPORTED_PROTOCOL"):
        bench.server.do_handshake()
    bench.client.feed(bench.from_server())
    with pytest.raises(TlsError, match="protocol version"):
        bench.client.handshake()


@pytest.mark.parametrize("alpn", [None, "http/1.1", "h2"])
def test_a_context_that_allows_old_tls_gets_no_http2_over_it(files: Path, alpn: str | None) -> None:
    old = ssl.TLSVersion.TLSv1_1
    own = set_bounds(ssl.create_default_context(cadata=CA.pem.decode()), newest=old)
    bench = Bench(TlsConfig(TlsSettings(verify=own)).client(HOST), files, newest=old, alpn=alpn and [alpn])
    if alpn == "h2":
        with pytest.raises(TlsError, match=r"server.test: the server chose TLSv1.1 for HTTP/2, .* minimum_version"):
            bench.shake()
    else:
        assert bench.shake().client.version == "TLSv1.1"


def test_handshake_is_true_ever_after(engine: str, files: Path) -> None:
    assert connect(engine, files).client.handshake()


# How often OpenSSL is asked


def count_reads(stream: TlsStream) -> list[int]:
    """The sizes that are asked for, from now on."""
    asked: list[int] = []
    recv = stream._recv

    def count(size: int) -> bytes:
        asked.append(size)
        return recv(size)

    stream._recv = count
    return asked


def test_openssl_is_asked_once_for_each_record(engine: str, files: Path) -> None:
    bench = connect(engine, files)
    bench.client.feed(bench.say(b"x"))
    assert bench.client.read() == b"x"  # and what followed the handshake
    asked = count_reads(bench.client)
    said = bench.say(b"one") + bench.say(b"two")
    bench.client.feed(said)
    assert (bench.client.read(), len(asked)) == (b"onetwo", 2)
    assert (bench.client.read(), len(asked)) == (b"", 2)


def test_openssl_is_not_asked_for_half_a_record(engine: str, files: Path) -> None:
    bench = connect(engine, files)
    bench.client.feed(bench.say(b"x"))
    bench.client.read()
    asked = count_reads(bench.client)
    said = bench.say(bytes(3000))
    bench.client.feed(said[:2000])
    assert (bench.client.read(), asked) == (b"", [])
    bench.client.feed(said[2000:])
    assert (bench.client.read(), len(asked)) == (bytes(3000), 1)
