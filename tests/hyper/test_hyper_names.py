"""Where hyper's names are found, and init_context."""

from __future__ import annotations

import builtins
import importlib
import pickle
import ssl
from pathlib import Path
from typing import Any

import pytest
from hyper_support import H2, H20, Bench

import hyperpool.tls
from hyperpool import CertificateError, HyperpoolError, TlsError, errors
from hyperpool.common import exceptions as common
from hyperpool.connection_errors import NoSuchStream
from hyperpool.http20 import exceptions as http20
from hyperpool.tls import init_context
from stage import AUTHORITY

PATHS = {
    "hyperpool.http20.connection": ["HTTP20Connection"],
    "hyperpool.http20.response": ["HTTP20Response", "HTTP20Push"],
    "hyperpool.http20.window": ["BaseFlowControlManager", "FlowControlManager"],
    "hyperpool.http20.exceptions": ["HTTP20Error", "ConnectionError", "ProtocolError", "StreamResetError"],
    "hyperpool.http11.connection": ["HTTP11Connection"],
    "hyperpool.http11.response": ["HTTP11Response"],
    "hyperpool.common.connection": ["HTTPConnection"],
    "hyperpool.common.headers": ["HTTPHeaderMap"],
    "hyperpool.common.util": ["HTTPVersion"],
    "hyperpool.common.exceptions": ["ChunkedDecodeError", "InvalidResponseError", "SocketError", "LineTooLongError"],
    "hyperpool.tls": ["init_context"],
}


@pytest.mark.parametrize(("path", "name"), [(path, name) for path, names in PATHS.items() for name in names])
def test_hypers_import_paths_lead_somewhere(path: str, name: str) -> None:
    assert getattr(importlib.import_module(path), name) is not None


@pytest.mark.parametrize(
    ("hypers", "ours"),
    [
        (http20.HTTP20Error, errors.StreamReset),
        (http20.HTTP20Error, errors.ConnectionLost),
        (http20.HTTP20Error, errors.RemoteProtocolError),
        (http20.StreamResetError, errors.StreamReset),
        (http20.ProtocolError, errors.RemoteProtocolError),
        (http20.HPACKDecodingError, errors.RemoteProtocolError),
        (http20.HPACKEncodingError, errors.LocalProtocolError),
        (http20.ConnectionError, common.ConnectionResetError),
        (http20.ConnectionError, common.ProxyError),
        (builtins.ConnectionResetError, common.ConnectionResetError),
        (builtins.ConnectionError, common.ConnectionError),
        (OSError, common.ProxyError),
        (errors.ConnectionLost, common.ConnectionResetError),
        (errors.ProxyError, common.ProxyError),
        (errors.TlsError, common.MissingCertFile),
        (LookupError, NoSuchStream),
    ],
)
def test_a_handler_for_hypers_error_catches_ours(hypers: type, ours: type) -> None:
    assert issubclass(ours, hypers)


@pytest.mark.parametrize("name", [*common.__all__, *http20.__all__])
def test_all_of_hypers_errors_are_in_the_tree(name: str) -> None:
    kind = getattr(common, name, None) or getattr(http20, name)
    assert issubclass(kind, HyperpoolError)


def test_an_error_can_be_pickled_and_keeps_what_it_knows() -> None:
    error = common.ConnectionResetError("gone", origin="https://a.test", stream_id=3, processed="maybe")
    twin = pickle.loads(pickle.dumps(error))
    assert (type(twin), str(twin), twin.stream_id) == (common.ConnectionResetError, "gone", 3)


# -- init_context ------------------------------------------------------------------------------------------------------


def test_a_context_verifies_and_speaks_tls_12_or_later() -> None:
    context = init_context()
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    assert context.cert_store_stats()["x509_ca"] > 50


def test_a_context_trusts_the_file_that_it_was_given_alone(bench: Bench) -> None:
    server = bench.server(H2, errors_expected=True)
    with pytest.raises(CertificateError) as caught:
        bench.connection(H2, server.port, ssl_context=init_context()).request("GET", "/")
    assert isinstance(caught.value, OSError)
    trusting = bench.connection(H2, server.port, ssl_context=init_context(bench.ca_file))
    assert trusting.request("GET", "/bytes/1") == 1


def test_a_context_can_be_told_not_to_verify(bench: Bench) -> None:
    server = bench.server(H2)
    context = hyperpool.tls.init_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    connection = bench.connection(H2, server.port, ssl_context=context)
    connection.request("GET", "/bytes/1")
    assert connection.get_response().status == 200


def test_without_a_context_certifi_and_the_environment_are_trusted(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = bench.server(H2)
    monkeypatch.setenv("SSL_CERT_FILE", bench.ca_file)
    connection = bench.connection(H20, server.port, ssl_context=None)
    assert connection.request("GET", "/bytes/1") == 1


def client_pair(folder: Path, password: bytes | None = None) -> tuple[str, str]:
    from cryptography.hazmat.primitives import serialization as s

    certificate, key = AUTHORITY.issue("client", eku=["client"])
    if password is not None:
        loaded = s.load_pem_private_key(key, None)
        key = loaded.private_bytes(s.Encoding.PEM, s.PrivateFormat.PKCS8, s.BestAvailableEncryption(password))
    (folder / "client.pem").write_bytes(certificate)
    (folder / "client.key").write_bytes(key)
    (folder / "both.pem").write_bytes(certificate + key)
    return str(folder / "client.pem"), str(folder / "client.key")


@pytest.mark.parametrize(
    "password", [None, b"secret", "secret", lambda: "secret"], ids=["none", "bytes", "str", "call"]
)
@pytest.mark.parametrize("form", ["pair", "one file"])
def test_a_client_certificate_is_shown(bench: Bench, tmp_path: Path, password: Any, form: str) -> None:
    pair = client_pair(tmp_path, None if password is None else b"secret")
    cert = pair if form == "pair" else str(tmp_path / "both.pem")
    server = bench.server(H2, client_ca_pem=AUTHORITY.ca_pem)
    context = init_context(bench.ca_file, cert=cert, cert_password=password)
    connection = bench.connection(H2, server.port, ssl_context=context)
    connection.request("GET", "/bytes/1")
    assert connection.get_response().status == 200


@pytest.mark.parametrize(
    "given", [{"cert_path": "/no/such.pem"}, {"cert": "/no/such.pem"}, {"cert": ("/no/a", "/no/b")}]
)
def test_a_file_that_is_missing_is_named(given: Any) -> None:
    with pytest.raises(common.MissingCertFile, match="/no/"):
        init_context(**given)


def test_a_file_without_certificates_is_an_error_of_ours(tmp_path: Path) -> None:
    (tmp_path / "empty.pem").write_text("nothing")
    for given in ({"cert_path": tmp_path / "empty.pem"}, {"cert": str(tmp_path / "empty.pem")}):
        with pytest.raises(TlsError, match="empty.pem"):
            init_context(**given)


def test_a_wrong_password_is_an_error_of_ours(tmp_path: Path) -> None:
    pair = client_pair(tmp_path, b"secret")
    for password in (None, "wrong"):
        with pytest.raises(TlsError, match="client.pem"):
            init_context(cert=pair, cert_password=password)
