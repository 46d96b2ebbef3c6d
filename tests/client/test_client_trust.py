"""Whose certificate is good enough: everything else is refused before one byte of the request is written."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from client_support import H1_TLS, H2_TLS, Kit, Wire, error_of, raised
from OpenSSL import SSL, crypto

import hyperpool
from hyperpool.testing import CertificateAuthority, ScriptedConnection, Server
from stage import AUTHORITY, WAIT_S

STRANGER = CertificateAuthority("a stranger")


def pyopenssl_context(ca_pem: bytes) -> SSL.Context:
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    store = context.get_cert_store()
    assert store is not None
    store.add_cert(crypto.load_certificate(crypto.FILETYPE_PEM, ca_pem))
    context.set_verify(SSL.VERIFY_PEER, lambda *args: bool(args[-1]))
    return context


ENGINES: dict[str, Callable[[bytes], Any]] = {
    "pyOpenSSL": lambda ca_pem: ca_pem,
    "ssl.SSLContext": lambda ca_pem: ssl.create_default_context(cadata=ca_pem.decode()),
    "OpenSSL.SSL.Context": pyopenssl_context,
}


@pytest.fixture(params=ENGINES)
def trusting(request: pytest.FixtureRequest) -> Callable[[bytes], Any]:
    """Makes a ``verify`` that trusts a CA, for each way in which TLS is done."""
    return ENGINES[request.param]


BAD_CERTIFICATES: dict[str, Callable[[], tuple[bytes, bytes]]] = {
    "wrong host name": lambda: AUTHORITY.issue("elsewhere.test"),
    "no host name": AUTHORITY.issue,
    "expired": lambda: AUTHORITY.issue("localhost", expired=True),
    "not yet valid": lambda: AUTHORITY.issue("localhost", not_yet_valid=True),
    "self-signed": lambda: AUTHORITY.issue("localhost", self_signed=True),
    "unknown CA": lambda: STRANGER.issue("localhost"),
    "for clients only": lambda: AUTHORITY.issue("localhost", eku=("client",)),
}


def drain(connection: ScriptedConnection) -> None:
    connection.drain()


@pytest.mark.parametrize("bad", BAD_CERTIFICATES)
@pytest.mark.parametrize("wire", [H2_TLS, H1_TLS], ids=str)
def test_a_bad_certificate_is_refused_before_an_application_byte_is_written(
    kit: Kit, trusting: Callable[[bytes], Any], wire: Wire, bad: str
) -> None:
    peer = kit.peer(drain, alpn=("h2", "http/1.1"), certificate=BAD_CERTIFICATES[bad]())
    client = kit.client(wire, verify=trusting(AUTHORITY.ca_pem))
    error = raised(hyperpool.CertificateError, lambda: client.post(peer.url("/secret"), content=b"secret"))
    assert (error.origin, error.processed, error.stream_id) == (peer.origin, "no", None)
    assert "localhost" in str(error)
    assert peer.wait_done(timeout_s=WAIT_S)
    assert peer.received == 0
    assert peer.connections_accepted == 1, "a certificate problem is never retried"
    good = kit.server(wire)
    assert client.get(good.url("/bytes/3")).status_code == 200


@pytest.mark.parametrize("bad", BAD_CERTIFICATES)
def test_verify_false_takes_any_certificate(kit: Kit, bad: str) -> None:
    with Server(certificate=BAD_CERTIFICATES[bad]()) as server:
        client = kit.client(verify=False)
        assert client.get(server.url("/bytes/3")).status_code == 200
        client.close()


def test_a_good_certificate_is_taken_whichever_engine_looks_at_it(kit: Kit, trusting: Callable[[bytes], Any]) -> None:
    for wire in (H2_TLS, H1_TLS):
        server = kit.server(wire)
        client = kit.client(wire, verify=trusting(AUTHORITY.ca_pem))
        response = client.post(server.url("/echo"), content=b"x" * 300_000)
        assert response.content == b"x" * 300_000
        assert response.http_version == wire.version


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_a_certificate_may_name_an_address_as_well_as_a_name(
    kit: Kit, trusting: Callable[[bytes], Any], host: str
) -> None:
    server = kit.server()
    client = kit.client(verify=trusting(AUTHORITY.ca_pem))
    assert client.get(f"https://{host}:{server.port}/bytes/1").status_code == 200


def test_an_address_that_the_certificate_does_not_name_is_refused(kit: Kit, trusting: Callable[[bytes], Any]) -> None:
    server = kit.server(certificate=AUTHORITY.issue("localhost"))
    client = kit.client(verify=trusting(AUTHORITY.ca_pem))
    raised(hyperpool.CertificateError, lambda: client.get(f"https://127.0.0.1:{server.port}/"))


def test_the_default_trust_does_not_include_a_private_ca(kit: Kit) -> None:
    server = kit.server()
    client = kit.client(verify=True)
    raised(hyperpool.CertificateError, lambda: client.get(server.url()))
    assert server.requests == []


def test_a_ca_file_a_folder_and_the_environment_name_a_private_ca(
    kit: Kit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = kit.server()
    file = tmp_path / "ca.pem"
    file.write_bytes(AUTHORITY.ca_pem)
    hashed = crypto.load_certificate(crypto.FILETYPE_PEM, AUTHORITY.ca_pem).subject_name_hash()
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / f"{hashed:08x}.0").write_bytes(AUTHORITY.ca_pem)
    for verify in (str(file), file, str(folder)):
        assert kit.client(verify=verify).get(server.url("/bytes/1")).status_code == 200
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    assert kit.client(verify=True).get(server.url("/bytes/1")).status_code == 200
    raised(hyperpool.CertificateError, lambda: kit.client(verify=True, trust_env=False).get(server.url("/bytes/1")))


@pytest.mark.parametrize("verify", ["/no/such/file", b"no PEM", ""], ids=repr)
def test_a_verify_that_cannot_be_used_is_a_tls_error_and_connects_nowhere(kit: Kit, verify: Any) -> None:
    server = kit.server()
    client = kit.client(verify=verify)
    error = raised(hyperpool.TlsError, lambda: client.get(server.url()))
    assert error.origin == server.origin
    assert server.connections_accepted == 0


def client_certificates(tmp_path: Path) -> dict[str, Any]:
    certificate, key = AUTHORITY.issue("client", eku=("client",))
    (tmp_path / "both.pem").write_bytes(certificate + key)
    (tmp_path / "cert.pem").write_bytes(certificate)
    (tmp_path / "key.pem").write_bytes(key)
    return {
        "path": str(tmp_path / "both.pem"),
        "paths": (str(tmp_path / "cert.pem"), str(tmp_path / "key.pem")),
        "list": [str(tmp_path / "cert.pem"), str(tmp_path / "key.pem")],
        "PEM bytes": certificate + key,
        "pair of PEM bytes": (certificate, key),
    }


@pytest.mark.parametrize("form", ["path", "paths", "list", "PEM bytes", "pair of PEM bytes"])
def test_a_client_certificate_is_shown_in_each_form(kit: Kit, tmp_path: Path, form: str) -> None:
    server = kit.server(client_ca_pem=AUTHORITY.ca_pem)
    client = kit.client(cert=client_certificates(tmp_path)[form])
    assert client.get(server.url("/bytes/1")).status_code == 200


@pytest.mark.parametrize("form", ["path", "paths"])
def test_a_client_certificate_is_shown_through_an_ssl_context(kit: Kit, tmp_path: Path, form: str) -> None:
    server = kit.server(client_ca_pem=AUTHORITY.ca_pem)
    context = ssl.create_default_context(cadata=AUTHORITY.ca_pem.decode())
    client = kit.client(verify=context, cert=client_certificates(tmp_path)[form])
    assert client.get(server.url("/bytes/1")).status_code == 200


def test_a_server_that_wants_a_client_certificate_refuses_without_one_with_a_typed_error(
    kit: Kit, trusting: Callable[[bytes], Any]
) -> None:
    # TLS 1.3: the refusal comes after our side of the handshake is done, as an alert on the open connection.
    server = kit.server(client_ca_pem=AUTHORITY.ca_pem)
    client = kit.client(verify=trusting(AUTHORITY.ca_pem))
    error = error_of(client.submit("GET", server.url("/bytes/1")))
    assert isinstance(error, (hyperpool.TlsError, hyperpool.ConnectionLost)), repr(error)
    assert error.origin == server.origin
    assert server.requests == []


def test_a_server_without_alpn_is_spoken_to_in_http1(kit: Kit) -> None:
    def script(connection: ScriptedConnection) -> None:
        connection.recv_until(b"\r\n\r\n")
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        connection.drain()

    peer = kit.peer(script, alpn=())
    client = kit.client(http1=True)
    response = client.get(peer.url())
    assert (response.http_version, response.text) == ("HTTP/1.1", "ok")


def test_http2_alone_is_refused_by_a_server_that_speaks_only_http1(kit: Kit) -> None:
    server = kit.server(http2=False)
    client = kit.client(H2_TLS)
    raised(hyperpool.TlsError, lambda: client.get(server.url()))
    assert server.requests == []


def test_alpn_decides_the_version_per_origin_and_is_remembered(kit: Kit) -> None:
    new, old = kit.server(), kit.server(http2=False)
    client = kit.client(http1=True, http2=True)
    assert client.get(new.url("/bytes/1")).http_version == "HTTP/2"
    assert client.get(old.url("/bytes/1")).http_version == "HTTP/1.1"
    stats = client.pool.stats().origins
    assert (stats[new.origin].http_version, stats[old.origin].http_version) == ("HTTP/2", "HTTP/1.1")
    # Known to speak HTTP/1.1, the origin gets a connection for each request; HTTP/2 keeps its one.
    gate = kit.gate()
    for server in (new, old):
        server.route("/gated")(lambda request: (gate.wait(WAIT_S), "ok")[1])
        futures = [client.submit("GET", server.url("/gated")) for _ in range(4)]
        assert server.wait_until(lambda server: len(server.requests) == 5, WAIT_S)
        gate.set()
        assert [future.result(WAIT_S).text for future in futures] == ["ok"] * 4
        gate.clear()
    assert (new.most_connections_open, old.most_connections_open) == (1, 4)


def test_certificates_are_checked_anew_for_each_client(kit: Kit) -> None:
    server = kit.server()
    careless, careful = kit.client(verify=False), kit.client(verify=STRANGER.ca_pem)
    assert careless.get(server.url("/bytes/1")).status_code == 200
    raised(hyperpool.CertificateError, lambda: careful.get(server.url("/bytes/1")))
    assert careless.get(server.url("/bytes/1")).status_code == 200
