"""A throw-away certificate authority: real X.509, made in a millisecond, worth nothing outside the test.

Keys are EC P-256, since making an RSA key takes a hundred times as long. Every certificate carries what OpenSSL 3's
strict mode (X509_V_FLAG_X509_STRICT, the default of `ssl` from Python 3.13) asks for: basicConstraints, keyUsage and
both key identifiers. Nothing is written to disk here.
"""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Sequence

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_DAY = datetime.timedelta(days=1)

# Dotted object identifiers are taken as well; these are the two that people have names for.
_PURPOSES = {"server": ExtendedKeyUsageOID.SERVER_AUTH, "client": ExtendedKeyUsageOID.CLIENT_AUTH}


class CertificateAuthority:
    """A root of trust for one test.

    Immutable after it was made, so threads may share it.
    """

    def __init__(self, name: str = "hyperpool test CA") -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _common_name(name)
        builder = _builder(self._name, self._key, _validity())
        builder = builder.issuer_name(self._name).add_extension(_ca_constraints(), critical=True)
        builder = builder.add_extension(_key_usage(is_ca=True), critical=True)
        builder = builder.add_extension(_authority_id(self._key), critical=False)
        self._certificate = builder.sign(self._key, hashes.SHA256())
        self.ca_pem: bytes = self._certificate.public_bytes(serialization.Encoding.PEM)

    def issue(
        self,
        *names: str,
        expired: bool = False,
        not_yet_valid: bool = False,
        self_signed: bool = False,
        eku: Sequence[str] = ("server",),
    ) -> tuple[bytes, bytes]:
        """Make a certificate for DNS names and IP addresses; returns (certificate PEM, key PEM).

        ``eku`` lists purposes: "server", "client" or a dotted object identifier; empty leaves the extension out.
        ``self_signed`` gives one that this authority never saw.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        subject = _common_name(names[0] if names else "nobody")
        builder = _builder(subject, key, _validity(expired=expired, not_yet_valid=not_yet_valid))
        builder = builder.issuer_name(subject if self_signed else self._name)
        builder = _as_leaf(builder, names, eku)
        signer = key if self_signed else self._key
        builder = builder.add_extension(_authority_id(signer), critical=False)
        certificate = builder.sign(signer, hashes.SHA256())
        return certificate.public_bytes(serialization.Encoding.PEM), _key_pem(key)


def _builder(
    subject: x509.Name, key: ec.EllipticCurvePrivateKey, validity: tuple[datetime.datetime, datetime.datetime]
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(validity[0])
        .not_valid_after(validity[1])
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _as_leaf(builder: x509.CertificateBuilder, names: Sequence[str], eku: Sequence[str]) -> x509.CertificateBuilder:
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(_key_usage(is_ca=False), critical=True)
    if eku:
        purposes = [_PURPOSES.get(purpose) or x509.ObjectIdentifier(purpose) for purpose in eku]
        builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName([_san(name) for name in names]), critical=False)
    return builder


def _validity(*, expired: bool = False, not_yet_valid: bool = False) -> tuple[datetime.datetime, datetime.datetime]:
    now = datetime.datetime.now(datetime.timezone.utc)
    if expired:
        return now - 3 * _DAY, now - _DAY
    if not_yet_valid:
        return now + _DAY, now + 3 * _DAY
    return now - _DAY, now + 30 * _DAY


def _san(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _common_name(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64])])  # 64: X.520's upper bound


def _ca_constraints() -> x509.BasicConstraints:
    return x509.BasicConstraints(ca=True, path_length=0)


def _authority_id(key: ec.EllipticCurvePrivateKey) -> x509.AuthorityKeyIdentifier:
    return x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key())


def _key_usage(*, is_ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not is_ca,
        key_cert_sign=is_ca,
        crl_sign=is_ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
