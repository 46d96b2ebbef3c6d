"""What httpx's callers give, in the form in which hyperpool takes it: requests, timeouts, limits, proxies, names."""

from __future__ import annotations

import dataclasses
import os
from typing import Any, Union
from urllib.parse import quote

import httpx

from hyperpool.errors import LocalProtocolError
from hyperpool.proxies import parse_proxy
from hyperpool.urls import DEFAULT_PORTS, Origin
from hyperpool.values import Limits, Proxy, Request, Timeout, TlsSettings

ProxyLike = Union[str, httpx.URL, httpx.Proxy, Proxy, None]
LimitsLike = Union[httpx.Limits, Limits, None]

# httpx asks for connections to be closed at once with 0; hyperpool has no such word, and this comes near it.
_SHORTEST_IDLE_S = 0.001


def origin_of(url: httpx.URL) -> Origin:
    """Where a request goes. Raises httpx.UnsupportedProtocol."""
    scheme = url.scheme
    if scheme not in DEFAULT_PORTS:
        missing, wrong = "is missing an 'http://' or 'https://' protocol", f"has an unsupported protocol '{scheme}://'"
        raise httpx.UnsupportedProtocol(f"Request URL {wrong if scheme else missing}.")
    return Origin(scheme, url.raw_host.decode("ascii").lower(), url.port or DEFAULT_PORTS[scheme])


def as_request(request: httpx.Request, origin: Origin, content: Any) -> Request:
    """The request as hyperpool has it: fields in their order and case, and the target as httpx wrote it."""
    target = request.extensions.get("target", request.url.raw_path)
    return Request(
        _text(request.method),
        f"{origin}{request.url.raw_path.decode('ascii')}",
        tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in request.headers.raw),
        content,
        as_timeout(request.extensions.get("timeout") or {}),
        _text(target),
    )


def _text(given: str | bytes) -> str:
    """httpcore takes either for methods and targets."""
    return given.decode("latin-1") if isinstance(given, bytes) else given


def as_timeout(given: dict[str, float | None]) -> Timeout:
    """httpx's four timeouts; each that is not there waits for ever, as in httpcore."""
    return Timeout(**{phase: given.get(phase) for phase in ("connect", "read", "write", "pool")})


def whole_body(request: httpx.Request) -> bytes | None:
    """The body where it is in memory, None where it is a stream."""
    try:
        return request.content
    except httpx.RequestNotRead:
        # So it is with what httpx makes to follow a redirect: the stream of the request before, or one of nothing.
        return b"".join(request.stream) if isinstance(request.stream, httpx.ByteStream) else None


# -- what a transport is made with -------------------------------------------------------------------------------------


def as_limits(given: LimitsLike) -> Limits | None:
    """httpx's Limits as hyperpool's. ``max_connections`` counts for each origin; idle connections are not counted."""
    if not isinstance(given, httpx.Limits):
        return given
    limits = Limits()
    if given.max_connections is not None:
        limits = dataclasses.replace(
            limits,
            max_connections_per_origin=min(given.max_connections, limits.max_connections_per_origin),
            max_http1_connections_per_origin=given.max_connections,
        )
    if given.keepalive_expiry is not None:
        limits = dataclasses.replace(limits, idle_s=max(given.keepalive_expiry, _SHORTEST_IDLE_S))
    return limits


def as_proxy(given: ProxyLike) -> Proxy | None:
    """httpx's Proxy as hyperpool's. Raises ValueError for TLS options of its own."""
    if given is None or isinstance(given, Proxy):
        return given
    proxy = given if isinstance(given, httpx.Proxy) else httpx.Proxy(given)
    if proxy.ssl_context is not None:
        raise ValueError("an ssl_context for the proxy alone is not possible: it is held to the transport's verify")
    made = parse_proxy(f"{proxy.url.scheme}://{proxy.url.netloc.decode('ascii')}", proxy.headers.multi_items())
    # httpx has taken user and password out of the URL, and decoded them.
    userinfo = None if proxy.auth is None else ":".join(quote(part, safe="") for part in proxy.auth)
    return dataclasses.replace(made, userinfo=userinfo)


# -- another server name -----------------------------------------------------------------------------------------------


def with_server_name(tls: TlsSettings, name: str) -> TlsSettings:
    """The settings for another name than the host's, to be told to the server and looked for in its certificate.

    Raises LocalProtocolError where that is not possible.
    """
    from hyperpool.contrib.urllib3.trust import tls_settings

    special = tls_settings((("server_hostname", name), *_authorities(tls)))
    return dataclasses.replace(tls, verify=special.verify)


def _authorities(tls: TlsSettings) -> tuple[tuple[str, Any], ...]:
    """Whom to trust, as urllib3's options say it."""
    verify = tls.verify
    if verify is True:
        return _default_authorities(tls.trust_env)
    if verify is False:
        return (("cert_reqs", "CERT_NONE"),)
    if verify == "system":
        return ()
    if isinstance(verify, (str, os.PathLike)):
        return (("ca_cert_dir" if os.path.isdir(verify) else "ca_certs", os.fspath(verify)),)
    if isinstance(verify, bytes):
        return (("ca_cert_data", verify.decode("ascii")),)
    raise LocalProtocolError("sni_hostname is not possible with a TLS context as verify: give a CA file or folder")


def _default_authorities(trust_env: bool) -> tuple[tuple[str, Any], ...]:
    import certifi

    variables = {"ca_certs": "SSL_CERT_FILE", "ca_cert_dir": "SSL_CERT_DIR"} if trust_env else {}
    named = tuple((option, path) for option, name in variables.items() if (path := os.environ.get(name)))
    return named or (("ca_certs", certifi.where()),)
