"""pyOpenSSL under `TlsStream`, and the check of host names that it lacks.

pyOpenSSL checks chains but NOT host names: `OpenSslBinding.check_host` is the only thing between us and any valid
certificate of somebody else. TlsStream calls it before it lets a byte be written. The contexts are engine/trust.py's.

pyOpenSSL, cryptography and service_identity are imported in the functions that need them: `import hyperpool` is cheap.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hyperpool.engine.resolve import is_address
from hyperpool.errors import CertificateError

if TYPE_CHECKING:
    from cryptography.x509 import Certificate
    from OpenSSL import SSL

# One call takes a whole send batch: 64 KiB of plaintext are a little more than 64 KiB of ciphertext. With half of it,
# two calls are needed; from 128 KiB on, malloc would take the buffer of each call from the kernel (see transport.py).
_OUTGOING_BYTES = 81_920


def note_problem(connection: SSL.Connection, _cert: object, code: int, _depth: int, ok: int) -> bool:
    """Keep OpenSSL's verdict and write down its reason, which pyOpenSSL has no public way to ask for afterwards."""
    if not ok:
        connection.get_app_data().append(code)
    return bool(ok)


class OpenSslBinding:
    """pyOpenSSL over memory BIOs.

    Owned by its TlsStream.
    """

    def __init__(self, context: SSL.Context, name: str, offered: list[str]) -> None:
        from OpenSSL import SSL

        connection = SSL.Connection(context, None)
        connection.set_connect_state()
        # On the connection, not the context: a context may be the caller's own, and routes of one TlsSettings that
        # want other HTTP versions share it.
        connection.set_alpn_protos([protocol.encode() for protocol in offered])
        connection.set_options(SSL.OP_NO_RENEGOTIATION | SSL.OP_NO_COMPRESSION)
        self._problems: list[int] = []
        connection.set_app_data(self._problems)
        if not is_address(name):
            # RFC 6066 3: no addresses in SNI.
            connection.set_tlsext_host_name(name.encode("ascii"))
        self._name = name
        self._connection = connection
        self.want_read, self.zero_return, self.error = SSL.WantReadError, SSL.ZeroReturnError, SSL.Error
        # sendall, since a caller's own context may write in parts.
        self.feed, self.recv, self.send = connection.bio_write, connection.recv, connection.sendall
        self.do_handshake, self.shutdown = connection.do_handshake, connection.shutdown

    def outgoing(self) -> bytes:
        chunks: list[bytes] = []
        try:
            chunks.append(self._connection.bio_read(_OUTGOING_BYTES))
            while len(chunks[-1]) == _OUTGOING_BYTES:
                chunks.append(self._connection.bio_read(_OUTGOING_BYTES))
        except self.want_read:
            # An empty BIO says so by raising; asking again after a short read would cost 1.7 us for nothing.
            return b"".join(chunks)
        return b"".join(chunks)

    def check_host(self) -> None:
        from OpenSSL import SSL

        # A caller's own context that verifies nothing has said that it wants no check.
        if self._connection.get_verify_mode() == SSL.VERIFY_NONE:
            return
        certificate = self._connection.get_peer_certificate(as_cryptography=True)
        assert certificate is not None, "a TLS server that is verified has shown a certificate"
        _check_name(certificate, self._name)

    def reason(self, error: Exception) -> str:
        # [(library, function, reason), …], or nothing of the kind when OpenSSL had no more to say.
        entries = error.args[0] if error.args and isinstance(error.args[0], list) else []
        return "; ".join(entry[-1] for entry in entries).lower() or "the session is over"

    def certificate_problem(self, error: Exception) -> tuple[int, str] | None:
        if "certificate verify failed" not in self.reason(error):
            return None
        # Empty where a caller's own context judged: only its own callback knows why.
        return (self._problems[-1] if self._problems else 0), "certificate verify failed"

    def alpn(self) -> str | None:
        return self._connection.get_alpn_proto_negotiated().decode("ascii", "replace") or None

    def version(self) -> str | None:
        return self._connection.get_protocol_version_name()

    def cipher(self) -> str | None:
        return self._connection.get_cipher_name()

    def certificate_der(self) -> bytes | None:
        from cryptography.hazmat.primitives.serialization import Encoding

        certificate = self._connection.get_peer_certificate(as_cryptography=True)
        return None if certificate is None else certificate.public_bytes(Encoding.DER)


def _check_name(certificate: Certificate, name: str) -> None:
    """RFC 9110 4.3.4, RFC 9525: subjectAltName only, an address only against iPAddress."""
    from service_identity import cryptography as identity

    check = identity.verify_certificate_ip_address if is_address(name) else identity.verify_certificate_hostname
    try:
        check(certificate, name)
    except Exception as error:
        # Whatever cannot be read or matched is not the server that was asked for: this check fails closed.
        words = f"certificate is for {_names_in(certificate)}, not for {name!r}; check the host name"
        raise CertificateError(f"{words}, else the server's owner must replace it") from error


def _names_in(certificate: Certificate) -> str:
    from cryptography import x509

    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, x509.DuplicateExtension, ValueError):
        return "no host at all (it has no readable subjectAltName; its common name does not count)"
    return ", ".join(repr(str(name.value)) for name in names)
