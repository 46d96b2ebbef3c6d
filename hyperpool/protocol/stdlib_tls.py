"""The stdlib's ssl under `TlsStream`, for callers who bring an ssl.SSLContext.

It checks host names in the handshake, as the caller's context has it. ssl is imported where it is needed first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hyperpool.errors import TlsError

if TYPE_CHECKING:
    import ssl


def _offer_nothing(context: ssl.SSLContext) -> None:
    try:
        context.set_alpn_protocols([])
    except MemoryError:  # how OpenSSL 1.1.1 says that it knows no empty list
        context.set_alpn_protocols(["http/1.1"])


class StdlibBinding:
    """The stdlib's ssl over its MemoryBIOs.

    Owned by its TlsStream. Whoever makes one keeps others from making one of the same context at that time.
    """

    def __init__(self, context: ssl.SSLContext, name: str, offered: list[str]) -> None:
        import ssl

        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        try:
            context.set_alpn_protocols(offered)
            session = context.wrap_bio(incoming, outgoing, server_hostname=name)
        except (ssl.SSLError, ValueError) as error:
            raise TlsError(f"this ssl.SSLContext cannot be used for {name}: {error}") from error
        finally:
            # The session has its copy. The context is the caller's, who may use it for what speaks no HTTP/2.
            _offer_nothing(context)
        self._session = session
        self.want_read, self.zero_return, self.error = ssl.SSLWantReadError, ssl.SSLZeroReturnError, ssl.SSLError
        self.feed, self.outgoing = incoming.write, outgoing.read
        self.recv, self.send = session.read, session.write
        self.do_handshake, self.shutdown = session.do_handshake, session.unwrap

    def check_host(self) -> None:
        """Nothing: OpenSSL did it in the handshake, as far as the caller's context asks for it."""

    def reason(self, error: Exception) -> str:
        words = getattr(error, "reason", None) or str(error)
        return str(words).replace("_", " ").lower()

    def certificate_problem(self, error: Exception) -> tuple[int, str] | None:
        import ssl

        if not isinstance(error, ssl.SSLCertVerificationError):
            return None
        return error.verify_code, error.verify_message

    def alpn(self) -> str | None:
        return self._session.selected_alpn_protocol()

    def version(self) -> str | None:
        return self._session.version()

    def cipher(self) -> str | None:
        cipher = self._session.cipher()
        return cipher[0] if cipher else None

    def certificate_der(self) -> bytes | None:
        try:
            return self._session.getpeercert(binary_form=True)
        except ValueError:
            # "handshake not done yet"
            return None
