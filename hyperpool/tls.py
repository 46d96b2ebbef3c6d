"""init_context: the ``ssl.SSLContext`` to begin with, to trust somebody else or to show who we are.

ssl is imported on first use: importing hyperpool must stay cheap.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Union

from hyperpool.connection_errors import MissingCertFile
from hyperpool.errors import TlsError

if TYPE_CHECKING:
    import ssl

Path = Union[str, "os.PathLike[str]"]
Password = Union[str, bytes, bytearray, Callable[[], Union[str, bytes, bytearray]], None]


def init_context(
    cert_path: Path | None = None,
    cert: Path | tuple[Path, Path] | None = None,
    cert_password: Password = None,
) -> ssl.SSLContext:
    """A context that verifies certificate and host name, speaks TLS 1.2 or later, and offers h2 and http/1.1.

    ``cert_path``: a file, or a hashed folder, with the certificates to trust; certifi's by default. ``cert``: our own
    certificate with its key in one file, or (certificate, key). Change what you like in the context, and give it to a
    connection as ``ssl_context``. Reads the files. Raises MissingCertFile, TlsError for one that cannot be used.
    """
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2  # RFC 9113 9.2
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION  # RFC 9113 9.2.1
    context.set_alpn_protocols(["h2", "http/1.1"])
    path = _existing(cert_path)
    try:
        context.load_verify_locations(**{"capath" if os.path.isdir(path) else "cafile": path})
    except (OSError, ValueError) as error:
        raise TlsError(f"cert_path={path!r}: no certificate to trust can be read from this file ({error})") from error
    if cert is not None:
        _identify(context, cert, cert_password)
    return context


def _existing(cert_path: Path | None) -> str:
    if cert_path is None:
        import certifi

        return certifi.where()
    if not os.path.exists(cert_path):
        raise MissingCertFile(f"cert_path={os.fspath(cert_path)!r}: there is no such file")
    return os.fspath(cert_path)


def _identify(context: ssl.SSLContext, cert: Any, password: Password) -> None:
    chain, key = (cert, None) if isinstance(cert, (str, bytes, os.PathLike)) else (cert[0], cert[1])
    for path in (chain, key):
        if path is not None and not os.path.exists(path):
            raise MissingCertFile(f"cert={os.fspath(path)!r}: there is no such file")
    try:
        # With None, OpenSSL would ask on the terminal and hang a service; an empty password is an error.
        context.load_cert_chain(chain, key, str if password is None else password)
    except (OSError, ValueError, TypeError) as error:
        raise TlsError(f"cert={os.fspath(chain)!r}: cannot be used ({error})") from error
