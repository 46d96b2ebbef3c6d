"""One TLS session as bytes: ciphertext in, plaintext out, and back.

Lives here: `TlsStream`, the one shape in which the engine speaks TLS, `TlsBinding`, the seam to either OpenSSL binding,
and the words of TLS errors. Must never come in: sockets, threads, files. The bindings are protocol/stdlib_tls.py and
engine/pyopenssl.py, which checks host names, too; engine/trust.py reads certificates and makes the contexts.

How it works. A binding runs OpenSSL over two memory BIOs. `feed` puts what the socket gave into the first one,
`ciphertext` takes from the second what must be sent. Every step that may make OpenSSL speak (handshake, write, close,
and also read, since it answers a KeyUpdate, RFC 8446 4.6.3) is followed by `ciphertext` by the caller.

A session ends in one of three ways that must never be mixed up: ``eof`` (close_notify came: nothing is missing),
``truncated`` (the bytes ended without it: somebody may have cut the stream, RFC 8446 6.1), ``failure`` (a broken record
or a fatal alert). The bindings are never told of the end of bytes, because OpenSSL reports that in four different ways
over its versions and options; "more is needed, but nothing will come" is decided here, alike for both.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

from hyperpool.errors import CertificateError, ConnectionLost, HyperpoolError, RemoteProtocolError, TlsError
from hyperpool.protocol.tls_records import RecordCount

if TYPE_CHECKING:
    from collections.abc import Callable

Buffer = bytes | bytearray | memoryview

# RFC 8446 5.1: SSL_read returns one record at most. Measured with 300 bytes to 1 MiB fed at once, pyOpenSSL 26.4: 16,
# 32 and 64 KiB cost the same (0.64-0.66 ns per byte, 6.2 us per small response); half of 16 KiB doubles the calls.
RECORD_BYTES = 16_384

# RFC 8446 5.1: content types of the first record that a TLS server can send: alert and handshake.
_FIRST_RECORD_TYPES = b"\x15\x16"

_TOO_OLD_FOR_H2 = frozenset({"TLSv1", "TLSv1.1"})

# What X509_V_ERR_* mean and what helps; the numbers are fixed by OpenSSL's ABI (x509_vfy.h).
_ISSUER = "give the certificate of its issuer as verify=, if you trust it"
_CLOCK = "check the clock of this machine, else the server's owner must replace it"
_OWNER = "the server's owner must replace it"
_VERIFY_ERRORS = {
    9: ("certificate is not yet valid", _CLOCK),
    10: ("certificate has expired", _CLOCK),
    18: ("self-signed certificate", _ISSUER),
    19: ("self-signed certificate in certificate chain", _ISSUER),
    20: ("unable to get local issuer certificate", _ISSUER),
    21: ("unable to verify the first certificate", _ISSUER),
    23: ("certificate revoked", _OWNER),
    26: ("unsuitable certificate purpose", "the certificate is not meant for a server"),
    47: ("permitted subtree violation", "its issuer may not vouch for this name"),
    48: ("excluded subtree violation", "its issuer may not vouch for this name"),
    66: ("the key of the certificate is too small", _OWNER),
    68: ("the certificate is signed with a weak digest", _OWNER),
}

_REASON_HINTS = {
    "no application protocol": "the server speaks none of the HTTP versions that were offered; see http1= and http2=",
    "protocol version": "the server speaks no TLS version that is still safe (1.2 or newer)",
    "unsupported protocol": "the server speaks no TLS version that is still safe (1.2 or newer)",
    "certificate required": "the server asks for a client certificate; give one as cert=",
    "alert handshake failure": "the server may want a client certificate (cert=) or a cipher that is not offered",
    "alert bad certificate": "the server does not accept the client certificate",
    "alert unknown ca": "the server does not trust the issuer of the client certificate",
    "unrecognized name": "the server does not serve this host name",
}


class TlsBinding(Protocol):
    """What both OpenSSL bindings can do, under one set of names.

    Owned by its TlsStream. ``outgoing`` takes all that waits to be sent; ``check_host`` raises CertificateError;
    ``reason`` is OpenSSL's words for an error in lower case; ``certificate_problem`` is X509_V_ERR_* with its words
    where the error is about the server's certificate, else None.
    """

    @property
    def want_read(self) -> type[Exception]: ...
    @property
    def zero_return(self) -> type[Exception]: ...
    @property
    def error(self) -> type[Exception]: ...
    @property
    def feed(self) -> Callable[[Buffer], object]: ...
    @property
    def recv(self) -> Callable[[int], bytes]: ...
    @property
    def send(self) -> Callable[[Buffer], object]: ...
    @property
    def do_handshake(self) -> Callable[[], object]: ...
    @property
    def shutdown(self) -> Callable[[], object]: ...
    @property
    def outgoing(self) -> Callable[[], bytes]: ...
    def check_host(self) -> None: ...
    def reason(self, error: Exception) -> str: ...
    def certificate_problem(self, error: Exception) -> tuple[int, str] | None: ...
    def alpn(self) -> str | None: ...
    def version(self) -> str | None: ...
    def cipher(self) -> str | None: ...
    def certificate_der(self) -> bytes | None: ...


class TlsStream:
    """The client side of one TLS session, as bytes.

    Owned by one thread at a time: the dialler, then the loop.

    ``eof``: the peer sent close_notify. ``truncated``: the bytes ended without one. ``failure``: why nothing can be
    read any more; it is set while `read` still returns what stood before the fault.
    """

    __slots__ = (
        "_binding",
        "_closed",
        "_ended",
        "_error",
        "_feed",
        "_first",
        "_muted",
        "_ready",
        "_records",
        "_recv",
        "_unread",
        "_want_read",
        "_zero_return",
        "eof",
        "failure",
        "server_name",
        "truncated",
    )

    def __init__(self, binding: TlsBinding, server_name: str) -> None:
        self.server_name = server_name
        self.eof = False
        self.truncated = False
        self.failure: HyperpoolError | None = None
        self._binding = binding
        # Bound once: an attribute chain at each record shows in a profile of small responses.
        self._feed = binding.feed
        self._recv = binding.recv
        self._want_read = binding.want_read
        self._zero_return = binding.zero_return
        self._error = binding.error
        self._first = b""
        self._records = RecordCount()
        # How many records OpenSSL may have that were not read; those of the handshake among them until a read is vain.
        self._unread = 0
        self._ready = False
        self._ended = False
        self._muted = False
        self._closed = False

    def __repr__(self) -> str:
        state = "ready" if self._ready else "handshake"
        return f"<TlsStream {self.server_name} {state} {self.version} alpn={self.alpn}>"

    @property
    def alpn(self) -> str | None:
        """The protocol that the server chose (RFC 7301), None where it chose none."""
        return self._binding.alpn()

    @property
    def version(self) -> str | None:
        """The version, as in "TLSv1.3"."""
        return self._binding.version()

    @property
    def cipher(self) -> str | None:
        """The name of the cipher suite."""
        return self._binding.cipher()

    @property
    def peer_certificate_der(self) -> bytes | None:
        """The server's own certificate, None before it came."""
        return self._binding.certificate_der()

    def feed(self, ciphertext: Buffer) -> None:
        """Take bytes from the socket; call `handshake` or `read` next."""
        if not self._ready and len(self._first) < 5:
            self._first += bytes(ciphertext[:5])
        if ciphertext:
            self._unread += self._records.count(bytes(ciphertext))
            self._feed(ciphertext)

    def feed_eof(self) -> None:
        """Learn that no more bytes will come; call `handshake` or `read` next."""
        self._ended = True
        self._unread += 1  # one more question, to which the answer is whether the session was complete

    def handshake(self) -> bool:
        """Go on with the handshake; True when it is complete and the certificate is accepted.

        Raises CertificateError or TlsError; `ciphertext` may then hold an alert that tells the server why.
        """
        if self._ready:
            return True
        if self.failure is not None:
            raise self.failure
        try:
            self._binding.do_handshake()
        except self._want_read as waiting:
            return self._await_more(waiting)
        except self._error as error:
            raise self._fail(self._handshake_error(error)) from error
        except Exception as error:
            # A verify or info callback of a caller's own context runs in there and may raise anything.
            raise self._fail(TlsError(f"TLS handshake with {self.server_name} failed: {error!r}")) from error
        self._check_host()
        self._check_version()
        self._ready = True
        return True

    def write(self, plaintext: Buffer) -> None:
        """Encrypt; take the result with `ciphertext`."""
        assert self._ready, "no byte may be written before the server's certificate is accepted (RFC 9110 4.3.4)"
        if not plaintext:
            return
        try:
            self._binding.send(plaintext)
        except self._error as error:
            raise self._fail(self._session_error(error)) from error

    def read(self) -> bytes:
        """Everything that can be decrypted now; b"" where there is nothing.

        Raises ConnectionLost (fatal alert) or RemoteProtocolError (broken record) once all that stood before the fault
        has been returned. Look at ``eof``, ``truncated`` and ``failure`` after each call.
        """
        assert self._ready, "the handshake is not complete"
        if self.failure is not None:
            raise self.failure
        chunks: list[bytes] = []
        try:
            # Never until pending() == 0: that counts decrypted bytes only, not the records behind them.
            while self._unread > 0:
                chunk = self._recv(RECORD_BYTES)
                if not chunk:
                    self.eof = True
                    break
                chunks.append(chunk)
                self._unread -= 1
        except self._want_read:
            self._unread = 0
            self.truncated = self._ended
        except self._zero_return:
            self.eof = True
        except self._error as error:
            failure = self._fail(self._session_error(error))
            if not chunks:
                raise failure from error
        return b"".join(chunks)

    def ciphertext(self) -> bytes:
        """Take all that must go to the wire; b"" where there is nothing."""
        return b"" if self._muted else self._binding.outgoing()

    def close(self) -> None:
        """Queue close_notify. Never raises, and does nothing when called again.

        Read before: the stdlib loses what was fed and not read.
        """
        if self._closed or not self._ready:
            return
        self._closed = True
        # WantRead is how the stdlib says that the peer's own close_notify is not here yet. Anything else means that the
        # session is broken, which takes nothing from a caller who is leaving.
        with suppress(self._error):
            self._binding.shutdown()

    def _check_host(self) -> None:
        try:
            self._binding.check_host()
        except CertificateError as error:
            # Our Finished, and in TLS 1.3 our client certificate, wait to be sent: they are not for a wrong host.
            self._muted = True
            raise self._fail(error) from error.__cause__

    def _check_version(self) -> None:
        # RFC 9113 9.2. Ours offers nothing older; a caller's own context may, and does by default in Debian's Python.
        if self.alpn == "h2" and self.version in _TOO_OLD_FOR_H2:
            what = f"the server chose {self.version} for HTTP/2, which needs TLS 1.2 (RFC 9113 9.2)"
            remedy = "set minimum_version of your ssl.SSLContext, or give http2=False"
            raise self._fail(TlsError(f"{self.server_name}: {what}; {remedy}"))

    def _await_more(self, waiting: Exception) -> bool:
        if self._ended:
            words = self._not_tls() or "the server closed the connection during the TLS handshake"
            raise self._fail(TlsError(f"{self.server_name}: {words}")) from waiting
        return False

    def _fail(self, error: HyperpoolError) -> HyperpoolError:
        self.failure = error
        return error

    def _not_tls(self) -> str | None:
        if self._first.startswith(b"HTTP/"):
            return "the server speaks plain HTTP on this port, not TLS; use http:// or another port"
        if self._first and self._first[0] not in _FIRST_RECORD_TYPES:
            return f"the server does not speak TLS on this port (its first bytes are {self._first[:5]!r})"
        return None

    def _handshake_error(self, error: Exception) -> TlsError:
        problem = self._binding.certificate_problem(error)
        if problem is not None:
            code, words = problem
            words, hint = _VERIFY_ERRORS.get(code, (words, "the connection is not safe; nothing was sent"))
            return CertificateError(f"certificate of {self.server_name} refused: {words}; {hint}")
        if not_tls := self._not_tls():
            return TlsError(f"{self.server_name}: {not_tls}")
        return TlsError(f"TLS handshake with {self.server_name} failed: {_with_hint(self._binding.reason(error))}")

    def _session_error(self, error: Exception) -> HyperpoolError:
        reason = _with_hint(self._binding.reason(error))
        if "alert" in reason:
            # TLS 1.3 servers refuse a client certificate only now, after our side of the handshake is complete.
            return ConnectionLost(f"{self.server_name} ended the TLS session: {reason}", processed="maybe")
        return RemoteProtocolError(f"TLS session with {self.server_name} is broken: {reason}", processed="maybe")


def _with_hint(reason: str) -> str:
    return next((f"{reason}; {hint}" for words, hint in _REASON_HINTS.items() if words in reason), reason)
