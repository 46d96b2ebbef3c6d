"""HTTPie over hyperpool: a transport plugin, so that ``http https://…`` speaks HTTP/2 where the server does.

HTTPie finds it by itself (entry point group ``httpie.plugins.transport.v1``). Sessions, downloads, uploads, redirects
and colours stay HTTPie's; this carries the requests. What HTTPie says with ``--ssl`` and ``--ciphers`` goes to its own
adapter, which no plugin hears of.
"""

from __future__ import annotations

from typing import Any

from httpie.plugins import TransportPlugin  # type: ignore[import-not-found,import-untyped,unused-ignore]

from hyperpool.contrib import HTTP20Adapter


class HyperpoolAdapter(HTTP20Adapter):
    """The adapter for requests, which knows HTTPie's client certificates too.

    Owned by HTTPie's thread.
    """

    def build_connection_pool_key_attributes(self, request: Any, verify: Any, cert: Any = None) -> Any:
        """See requests; the passphrase of a key (``--cert-key-pass``) decides about sharing, as the key does."""
        host, context = super().build_connection_pool_key_attributes(request, verify, _pair(cert))
        if password := getattr(cert, "key_password", None):
            context["key_password"] = password
        return host, context

    def cert_verify(self, conn: Any, url: Any, verify: Any, cert: Any) -> None:
        """See requests."""
        super().cert_verify(conn, url, verify, _pair(cert))


def _pair(cert: Any) -> Any:
    """HTTPie's certificate, a triple, in the form that requests knows; anything else as it is."""
    return cert.to_raw_cert() if hasattr(cert, "to_raw_cert") else cert


class HyperpoolTransport(TransportPlugin):  # type: ignore[misc,unused-ignore]
    """What HTTPie loads: every https:// request goes through one hyperpool adapter.

    Owned by HTTPie's thread.
    """

    name = "hyperpool"
    description = "HTTP/2, and HTTP/1.1 where a server speaks no HTTP/2"
    prefix = "https://"

    def get_adapter(self) -> HTTP20Adapter:
        """A new adapter; HTTPie closes it with its session."""
        return HyperpoolAdapter()
