"""urllib3's TLS options, as the `TlsSettings` of a route.

The common ones (a CA file, a folder, no check, a client certificate) are settings of hyperpool's own. What goes beyond,
such as a pinned fingerprint or another name to expect, takes an ``ssl.SSLContext`` that is made here.
"""

from __future__ import annotations

import hmac
import ssl
from hashlib import md5, sha1, sha256
from typing import Any

from urllib3.util import ssl_
from urllib3.util.ssl_match_hostname import CertificateError, match_hostname

from hyperpool.errors import TlsError
from hyperpool.values import TlsSettings

# Hexadecimal digits of a fingerprint, and what they are the digest of.
_DIGESTS: dict[int, Any] = {32: md5, 40: sha1, 64: sha256}

_HOSTNAME_MISMATCH = 62  # X509_V_ERR_HOSTNAME_MISMATCH
_REJECTED = 28  # X509_V_ERR_CERT_REJECTED

# What makes two pools of one manager speak TLS in the same way.
_OPTIONS = (
    "cert_reqs",
    "ca_certs",
    "ca_cert_dir",
    "cert_file",
    "key_file",
    "key_password",
    "ssl_version",
    "ssl_minimum_version",
    "ssl_maximum_version",
    "assert_hostname",
    "assert_fingerprint",
)
_CONNECTION_OPTIONS = ("ca_cert_data", "ssl_context", "server_hostname")

_SOURCES = ("ca_certs", "ca_cert_dir", "ca_cert_data", "cert_file", "key_file")

# What an ssl.SSLContext has to be made for.
_SPECIAL = (
    "ssl_context",
    "ssl_version",
    "ssl_minimum_version",
    "ssl_maximum_version",
    "assert_fingerprint",
    "server_hostname",
)


def tls_options(pool: Any) -> tuple[tuple[str, Any], ...]:
    """The TLS options that are set on a pool of urllib3's shape, as a hashable whole."""
    own = [(name, getattr(pool, name, None)) for name in _OPTIONS]
    given = [(name, pool.conn_kw.get(name)) for name in _CONNECTION_OPTIONS]
    return tuple((name, value) for name, value in own + given if value is not None and not _is_empty(name, value))


def _is_empty(name: str, value: Any) -> bool:
    """Whether it is a source of certificates and none is named: "" or False, which urllib3 takes for None."""
    return name in _SOURCES and not value


def tls_settings(options: tuple[tuple[str, Any], ...]) -> TlsSettings:
    """The settings for these options. Raises TlsError where they cannot be used."""
    given = dict(options)
    cert = _cert(given)
    is_special = any(name in given for name in _SPECIAL) or "assert_hostname" in given
    sources = [given[name] for name in ("ca_certs", "ca_cert_dir", "ca_cert_data") if name in given]
    if is_special or len(sources) > 1:
        return TlsSettings(_context(given), cert, trust_env=False)
    if not _wants_check(given):
        return TlsSettings(False, cert, trust_env=False)
    if "ca_cert_data" in given:
        return TlsSettings(_as_pem(given["ca_cert_data"]), cert, trust_env=False)
    # "system" is urllib3's default too: `load_default_certs`.
    return TlsSettings(sources[0] if sources else "system", cert, trust_env=False)


def is_verified(options: tuple[tuple[str, Any], ...]) -> bool:
    """Whether the server must prove who it is, so that no warning is due."""
    given = dict(options)
    return _wants_check(given) or "assert_fingerprint" in given


def _wants_check(given: dict[str, Any]) -> bool:
    wanted = given.get("cert_reqs")
    if wanted is None and "ssl_context" in given:
        return bool(given["ssl_context"].verify_mode != ssl.CERT_NONE)
    return ssl_.resolve_cert_reqs(wanted) != ssl.CERT_NONE


def _cert(given: dict[str, Any]) -> Any:
    cert, key, password = (given.get(name) for name in ("cert_file", "key_file", "key_password"))
    if cert is None:
        return None
    if password is not None:
        return cert, key or cert, password
    return cert if key is None else (cert, key)


def _as_pem(data: Any) -> bytes:
    if isinstance(data, str):
        return data.encode()
    # urllib3 takes DER as bytes.
    return data if b"-----BEGIN" in data else ssl.DER_cert_to_PEM_cert(data).encode()


# -- contexts ----------------------------------------------------------------------------------------------------------


def _context(given: dict[str, Any]) -> ssl.SSLContext:
    context = given.get("ssl_context")
    if context is None:
        context = _fresh_context(given)
    elif wrong := sorted({"server_hostname", "assert_fingerprint"} & set(given)):
        raise TlsError(f"{wrong[0]}: cannot be combined with an ssl_context of your own; leave one of them out")
    elif isinstance(given.get("assert_hostname"), str):
        raise TlsError("assert_hostname: another name cannot be combined with an ssl_context of your own")
    if not _wants_check(given):
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif "cert_reqs" in given:
        context.verify_mode = ssl.CERT_REQUIRED
    if given.get("assert_hostname") is not None:
        context.check_hostname = False
    _load_authorities(context, given)
    return context


def _fresh_context(given: dict[str, Any]) -> ssl.SSLContext:
    context = CheckingContext(
        name=given.get("server_hostname"),
        expected_name=given.get("assert_hostname") or None,
        fingerprint=given.get("assert_fingerprint"),
    )
    low, high = given.get("ssl_minimum_version"), given.get("ssl_maximum_version")
    if (exact := given.get("ssl_version")) not in (None, ssl.PROTOCOL_TLS, ssl.PROTOCOL_TLS_CLIENT):
        low = high = _exact_version(exact)
    context.minimum_version = low if low is not None else ssl.TLSVersion.TLSv1_2
    if high is not None:
        context.maximum_version = high
    if "assert_fingerprint" in given:
        context.check_hostname = False
    return context


def _exact_version(wanted: Any) -> ssl.TLSVersion:
    method = ssl_.resolve_ssl_version(wanted)
    versions = {ssl.PROTOCOL_TLSv1_2: ssl.TLSVersion.TLSv1_2, ssl.PROTOCOL_TLSv1_1: ssl.TLSVersion.TLSv1_1}
    if method not in versions:
        raise TlsError(f"ssl_version={wanted!r}: give ssl_minimum_version and ssl_maximum_version instead")
    return versions[ssl._SSLMethod(method)]


def _load_authorities(context: ssl.SSLContext, given: dict[str, Any]) -> None:
    file, folder, data = (given.get(name) for name in ("ca_certs", "ca_cert_dir", "ca_cert_data"))
    try:
        if file or folder or data:
            context.load_verify_locations(file, folder, data)
        elif "ssl_context" not in given:
            context.load_default_certs()
    except (OSError, ValueError) as error:
        raise TlsError(f"ca_certs={file!r}, ca_cert_dir={folder!r}: cannot be used ({error})") from error


class CheckingContext(ssl.SSLContext):
    """A client context that asks for another name than the host's, or holds the certificate to another name or digest.

    As thread-safe as its base; its own part is set once.
    """

    def __new__(cls, **_options: Any) -> CheckingContext:
        return super().__new__(cls, ssl.PROTOCOL_TLS_CLIENT)

    def __init__(self, *, name: str | None, expected_name: str | None, fingerprint: str | None) -> None:
        self._name = name
        self.expected_name = expected_name
        self.fingerprint = None if fingerprint is None else _digest_of(fingerprint)
        self.sslobject_class = CheckedSession

    def wrap_bio(
        self,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool = False,
        server_hostname: Any = None,
        session: ssl.SSLSession | None = None,
    ) -> ssl.SSLObject:
        return super().wrap_bio(incoming, outgoing, server_side, self._name or server_hostname, session)


class CheckedSession(ssl.SSLObject):
    """A TLS session whose handshake ends with the checks of its `CheckingContext`.

    Owned by the connection.
    """

    def do_handshake(self) -> None:
        super().do_handshake()
        context = self.context
        assert isinstance(context, CheckingContext)
        if context.fingerprint is not None:
            _check_fingerprint(self.getpeercert(binary_form=True) or b"", context.fingerprint)
        elif context.expected_name is not None and context.verify_mode != ssl.CERT_NONE:
            _check_name(self.getpeercert() or {}, context.expected_name)


def _digest_of(fingerprint: str) -> bytes:
    digits = fingerprint.replace(":", "").lower()
    try:
        digest = bytes.fromhex(digits)
    except ValueError:
        digest = b""
    if len(digits) not in _DIGESTS or not digest:
        raise TlsError(f"assert_fingerprint={fingerprint!r}: give an MD5, SHA-1 or SHA-256 digest in hexadecimal")
    return digest


def _check_fingerprint(certificate: bytes, expected: bytes) -> None:
    found = _DIGESTS[2 * len(expected)](certificate).digest()
    if not hmac.compare_digest(found, expected):
        words = f"fingerprints did not match: expected {expected.hex()}, got {found.hex()}"
        raise _verification_error(_REJECTED, words)


def _check_name(certificate: Any, name: str) -> None:
    try:
        match_hostname(certificate, name, hostname_checks_common_name=False)
    except CertificateError as error:
        raise _verification_error(_HOSTNAME_MISMATCH, str(error)) from error


def _verification_error(code: int, words: str) -> ssl.SSLCertVerificationError:
    error = ssl.SSLCertVerificationError(1, words)
    error.verify_code, error.verify_message = code, words
    return error
