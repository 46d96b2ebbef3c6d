"""Whom we trust and who we are: TlsSettings turned into TLS sessions.

Lives here: `TlsConfig`, one context per TlsSettings, made on first use. Must never come in: sockets; what a session
does with its bytes is protocol/tls.py; whether a certificate is for the host that was asked for, engine/pyopenssl.py.

pyOpenSSL, certifi and ssl are imported in the functions that need them: `import hyperpool` is cheap.
"""

from __future__ import annotations

import os
import re
import threading
from typing import TYPE_CHECKING, Any

from hyperpool.engine.pyopenssl import OpenSslBinding, note_problem
from hyperpool.engine.resolve import tls_name
from hyperpool.errors import TlsError
from hyperpool.handoff.forks import gate, in_child
from hyperpool.protocol.stdlib_tls import StdlibBinding
from hyperpool.protocol.tls import TlsStream

if TYPE_CHECKING:
    import socket
    import ssl

    from cryptography.x509 import Certificate
    from OpenSSL import SSL

    from hyperpool.values import TlsSettings

# SSL_MODE_ENABLE_PARTIAL_WRITE, fixed by OpenSSL's ABI; pyOpenSSL sets it but gives it no name. A memory BIO never
# fills up, so it only costs us one call per record: 0.54 ns per byte with it, 0.47 without, for writes of 64 KiB.
_PARTIAL_WRITE = 0x1

# c_rehash's names: the hash of the subject, then a counter. OpenSSL finds nothing under any other name.
_HASHED_NAME = re.compile(r"[0-9a-f]{8}\.\d+")

# set_alpn_protocols() works on the context alone: two configurations may share one, so "set, wrap, take back" is one
# step for the whole process. Held for about 50 us per dial. Re-entrant: callers take it, too, in `wrap`.
_alpn_lock = threading.RLock()


@in_child
def _renew_lock_in_child() -> None:
    global _alpn_lock  # noqa: PLW0603 - one for the whole process, and a dial may have held it when that forked
    _alpn_lock = threading.RLock()


class TlsConfig:
    """One TlsSettings made usable: its context, built once, on first use.

    Shared; building is guarded by _lock, and nothing changes afterwards.
    """

    def __init__(self, settings: TlsSettings) -> None:
        self.settings = settings
        self._lock = threading.Lock()
        self._context: ssl.SSLContext | SSL.Context | None = None

    def build(self) -> ssl.SSLContext | SSL.Context:
        """The context. Reads files on the first call; raises TlsError that names the one that cannot be used."""
        if self._context is None:
            with self._lock:
                # Two threads may both have seen None; the second one finds the work done. An error is not kept, so
                # that a file that was put right is read again.
                if self._context is None:
                    self._context = _build(self.settings)
        return self._context

    def client(self, server_name: str, *, http1: bool = True, http2: bool = True) -> TlsStream:
        """A new session with a server, offering the HTTP versions that are wanted (RFC 7301).

        Raises TlsError where the settings cannot be used, InvalidURL where the name cannot be asked for.
        """
        offered = [name for name, wanted in (("h2", http2), ("http/1.1", http1)) if wanted]
        assert offered, "a route needs one HTTP version at least"
        # OpenSSL has locks for all of the process.
        with gate:
            context = self.build()
            import ssl

            name = tls_name(server_name)
            if isinstance(context, ssl.SSLContext):
                with _alpn_lock:
                    return TlsStream(StdlibBinding(context, name, offered), name)
            return TlsStream(OpenSslBinding(context, name, offered), name)


def wrap(context: ssl.SSLContext, sock: socket.socket, server_name: str) -> ssl.SSLSocket:
    """A session of its own for a socket, offering what the caller's context offers, and never what a dial has put there
    for an instant. Its handshake is still to be made."""
    with _alpn_lock:
        return context.wrap_socket(sock, server_hostname=server_name, do_handshake_on_connect=False)


def _build(settings: TlsSettings) -> ssl.SSLContext | SSL.Context:
    import ssl

    if isinstance(settings.verify, ssl.SSLContext):
        return _prepare_stdlib(settings.verify, settings.cert)
    from OpenSSL import SSL

    if isinstance(settings.verify, SSL.Context):
        context = settings.verify
    else:
        context = _fresh_context()
        _trust(context, settings)
    if settings.cert is not None:
        _identify(context, *_cert_parts(settings.cert))
    return context


def _prepare_stdlib(context: ssl.SSLContext, cert: Any) -> ssl.SSLContext:
    import ssl

    # RFC 9113 9.2.1 forbids both; RFC 9110 4.3.4 leaves no room for a name in the subject's common name.
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    context.hostname_checks_common_name = False
    if cert is not None:
        chain, key, password = _cert_parts(cert)
        if _pem(chain) or _pem(key):
            raise TlsError("cert: an ssl.SSLContext takes files only; give paths, or load the certificate into it")
        try:
            # With None, OpenSSL would ask on the terminal and hang a service; an empty password is an error.
            context.load_cert_chain(chain, key, password or str)
        except (OSError, ValueError, TypeError) as error:
            raise TlsError(f"cert={_name(cert)}: cannot be used ({error})") from error
    return context


def _fresh_context() -> SSL.Context:
    from OpenSSL import SSL

    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_min_proto_version(SSL.TLS1_2_VERSION)
    context.set_options(SSL.OP_NO_RENEGOTIATION | SSL.OP_NO_COMPRESSION)
    # RELEASE_BUFFERS gives back about 34 KiB per idle connection and costs 1 % of bulk speed (measured).
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)
    context.clear_mode(_PARTIAL_WRITE)
    return context


def _trust(context: SSL.Context, settings: TlsSettings) -> None:
    from OpenSSL import SSL, crypto

    verify = settings.verify
    if verify is False:
        context.set_verify(SSL.VERIFY_NONE)
        return
    context.set_verify(SSL.VERIFY_PEER, note_problem)
    store = context.get_cert_store()
    assert store is not None
    # A file may hold the server's own certificate, or an issuer that is no root: what is in it is trusted. curl and
    # urllib3 do the same. X509_STRICT stays off: many private authorities of today would fail (no key identifier).
    store.set_flags(crypto.X509StoreFlags.PARTIAL_CHAIN)
    if verify is True:
        _trust_default(context, settings.trust_env)
    elif verify == "system":
        context.set_default_verify_paths()
    elif (pem := _pem(verify)) is not None:
        _trust_pem(store, pem)
    else:
        _trust_path(context, os.fspath(verify), "verify")


def _trust_default(context: SSL.Context, trust_env: bool) -> None:
    names = ("SSL_CERT_FILE", "SSL_CERT_DIR") if trust_env else ()
    paths = {name: path for name in names if (path := os.environ.get(name))}
    for name, path in paths.items():
        _trust_path(context, path, name)
    if not paths:
        import certifi

        _trust_path(context, certifi.where(), "certifi")


def _trust_path(context: SSL.Context, path: str | bytes, what: str) -> None:
    from OpenSSL import SSL

    if os.path.isdir(path):
        # OpenSSL would take any folder, find nothing in it later, and blame each server for that.
        if not any(_HASHED_NAME.fullmatch(os.fsdecode(name)) for name in os.listdir(path)):
            raise TlsError(f"{what}={path!r}: no hashed certificates in this folder; run `openssl rehash` on it")
        context.load_verify_locations(None, path)
        return
    if not os.path.exists(path):
        raise TlsError(f"{what}={path!r}: no such file or folder")
    try:
        context.load_verify_locations(path)
    except SSL.Error as error:
        raise TlsError(f"{what}={path!r}: no CA certificate in PEM form can be read from this file") from error


def _trust_pem(store: Any, pem: bytes) -> None:
    from OpenSSL import crypto

    for certificate in _certificates(pem, "verify"):
        store.add_cert(crypto.X509.from_cryptography(certificate))


def _cert_parts(cert: Any) -> tuple[Any, Any, Any]:
    """(certificate, key, password), where the key may be in the same file as the certificate."""
    if not isinstance(cert, tuple):
        return cert, cert, None
    return cert[0], cert[1], cert[2] if len(cert) == 3 else None


def _identify(context: SSL.Context, cert: Any, key: Any, password: str | bytes | None) -> None:
    from OpenSSL import SSL

    chain = _certificates(_read(cert), _name(cert))
    private_key = _private_key(_read(key), _name(key), password)
    try:
        context.use_certificate(chain[0])
        for issuer in chain[1:]:
            context.add_extra_chain_cert(issuer)
        context.use_privatekey(private_key)
        context.check_privatekey()
    except (SSL.Error, TypeError) as error:
        raise TlsError(f"cert: the key in {_name(key)} does not belong to the certificate in {_name(cert)}") from error
    except ValueError as error:
        raise TlsError("cert: this OpenSSL.SSL.Context is in use already; load it there beforehand") from error


def _certificates(pem: bytes, name: str) -> list[Certificate]:
    from cryptography import x509

    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError as error:
        raise TlsError(f"{name}: no certificate in PEM form in here ({error})") from error


def _private_key(pem: bytes, name: str, password: str | bytes | None) -> Any:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization

    secret = password.encode() if isinstance(password, str) else password
    try:
        return serialization.load_pem_private_key(pem, secret)
    except TypeError as error:
        # cryptography's way to say that there is a password too many or too few.
        raise TlsError(f"{name}: {error} Give cert=(certificate, key, password) for an encrypted key only.") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise TlsError(f"{name}: no private key in PEM form, or a wrong password ({error})") from error


def _read(source: Any) -> bytes:
    if pem := _pem(source):
        return pem
    try:
        with open(source, "rb") as file:
            return file.read()
    except (OSError, TypeError) as error:
        raise TlsError(f"cert={_name(source)}: cannot be read ({error})") from error


def _pem(source: Any) -> bytes | None:
    """PEM text itself rather than the path of it, else None; empty bytes are text, since no path is empty."""
    if isinstance(source, str) and "-----BEGIN" in source:
        return source.encode()
    return bytes(source) if isinstance(source, (bytes, bytearray)) else None


def _name(source: Any) -> str:
    """How an error calls a source: a path by itself, but never a key's text."""
    if isinstance(source, (tuple, list)):
        return f"({', '.join(_name(part) for part in source[:2])})"
    return "PEM text" if _pem(source) is not None else repr(source)
