"""Request heads, checked and brought into the form that both codecs write: pure functions.

`prepare_head` runs in the caller's thread, before a connection is even chosen: what it lets through, both codecs can
write as it stands, on HTTP/2 and HTTP/1.1 alike, and what it refuses never reaches a socket. It is the one place where
request smuggling and header injection are stopped, so it refuses where others repair.

Framing (Content-Length, Transfer-Encoding) and routing (Host, :authority) are ours: a caller may state them, and is
then held to them, but never gets two of them or a contradiction onto the wire.

Never here: I/O, state, codec machines. hpack is imported on first use only.

One call per request stands on the hot path: see `field_rules` for what is remembered.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable
from typing import Any

from hyperpool.errors import LocalProtocolError
from hyperpool.protocol.field_rules import AUTHORITY, Draft, checked_name, checked_value, drop, refusal, short
from hyperpool.protocol.lasting import passed_before, written_once
from hyperpool.urls import Origin, Url
from hyperpool.values import Proxy, RequestHead

# RFC 9110 9.2.1 and 9.2.2. Methods are case-sensitive (9.1): "get" is neither.
SAFE = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
IDEMPOTENT = SAFE | {"PUT", "DELETE"}

# RFC 9113 8.2.2: they speak about an HTTP/1.1 connection and make an HTTP/2 message malformed.
CONNECTION_SPECIFIC = frozenset({b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"})

# RFC 9110 8.6: a user agent should send Content-Length: 0 where the method anticipates content.
_ANTICIPATES_CONTENT = frozenset({b"POST", b"PUT", b"PATCH"})

# RFC 7541 7.1.3. Cookies below 20 bytes: the limit that Firefox, nghttp2 and h2 use; longer ones cannot be guessed
# through the size of a compressed block, and indexing them is where HPACK gains most.
_NEVER_INDEXED = frozenset({b"authorization", b"proxy-authorization"})
_SHORT_COOKIE_BYTES = 20

# RFC 9110 6.5.1: what frames, routes, conditions, authenticates or describes a message cannot come after its body.
# Those with a rule of their own (`field_rules`) are among them.
_NOT_BEHIND = frozenset(
    (
        *(b"cache-control", b"max-forwards", b"pragma", b"range", b"if-match", b"if-none-match", b"if-modified-since"),
        *(b"if-unmodified-since", b"if-range", b"authorization", b"proxy-authorization", b"proxy-authenticate"),
        *(b"www-authenticate", b"cookie", b"set-cookie", b"content-encoding", b"content-type", b"content-range"),
        *(b"trailer", b"http2-settings"),
    )
)

_TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+").fullmatch  # RFC 9110 5.6.2
TARGET = re.compile(r"/[!\"$-~]*").fullmatch  # RFC 9112 3.2.1; a fragment never leaves the client (RFC 9110 4.2.5)
_AT_AN_ORIGIN = (b"/", b"*")  # how a target begins that is no absolute URL
_NOT_TARGET_CHAR = re.compile(r"[^!\"$-~]").search
# RFC 9112 3.2.2: scheme, authority without userinfo (RFC 9110 4.2.4), then what an origin would be sent.
_ABSOLUTE = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]*)://([^/?@]+)(/[!\"$-~]*|\?[!\"$-~]*)?").fullmatch


def prepare_head(
    *, method: str, url: Url, headers: Iterable[tuple[str | bytes, str | bytes]], body_bytes: int | None
) -> RequestHead:
    """Check a request and bring it into the form that both codecs write. Blocks: no.

    ``url.target`` may be "*" for OPTIONS (RFC 9112 3.2.4), or an absolute URL where the server is a proxy (3.2.2): the
    head is for that URL's authority then, and a Host header must agree with it. ``body_bytes``: length of the body, 0
    when there is none, None when it is unknown; a Content-Length that the caller declares for an unknown length is
    believed, and the codec will hold the body to it.

    Raises LocalProtocolError for everything that must not be written; its text says what to change.
    """
    try:
        verb = _method(method)
        target = _target(url.target, verb)
        origin = url.origin
        if target[:1] in _AT_AN_ORIGIN:
            scheme, authority = _scheme_and_authority(origin.scheme, origin.host, origin.port)
        else:
            scheme, authority = _named_in(target)
        if body_bytes == 0 and verb not in _ANTICIPATES_CONTENT and (passed := passed_before(headers)):
            return RequestHead(verb, scheme, authority, target, passed)
        draft = Draft([])
        keep = draft.fields.append
        for name, value in headers:
            spelling, rule = checked_name(name)
            octets = checked_value(name, value)
            if rule is None:
                keep((spelling, octets))
            else:
                rule(draft, spelling, octets)
        if target[:1] not in _AT_AN_ORIGIN:
            _check_host_of_absolute(draft, authority)
        if draft.te and not draft.names_te:
            # RFC 9110 10.1.4: on HTTP/1.1 it must be named as a connection option; HTTP/2 drops that again.
            keep((b"Connection", b"TE"))
        body_bytes = _frame(draft, verb, body_bytes)
    except LocalProtocolError as error:
        error.origin = url.place
        raise
    except (TypeError, ValueError):
        _refuse_malformed(headers, url.place)
        raise
    expects = draft.expects_continue and _settle_expectation(draft, body_bytes)
    return RequestHead(verb, scheme, draft.authority or authority, target, tuple(draft.fields), body_bytes, expects)


def prepare_trailers(given: Iterable[tuple[str | bytes, str | bytes]]) -> list[tuple[bytes, bytes]]:
    """Check the fields that go out behind a body, and bring them into the form that both codecs write (RFC 9110 6.5).

    Raises LocalProtocolError: beside what no field may be, for those that somebody acts on before the body is there.
    """
    fields = []
    for name, value in given:
        spelling, rule = checked_name(name)
        if rule is not None or spelling.lower() in _NOT_BEHIND:
            raise refusal(f"trailer {name!r}: belongs to the head, where recipients look for it (RFC 9110 6.5.1)")
        fields.append((spelling.lower(), checked_value(name, value)))
    return fields


def forwarded(head: RequestHead, proxy: Proxy, *, http2: bool) -> RequestHead:
    """The head as a proxy takes it that forwards requests: its own fields added, and on HTTP/1.1 an absolute target.

    RFC 9112 3.2.2, and 3.2.4 for "*", which the last proxy makes of a URL without a path. On HTTP/2 the
    pseudo-headers say all of it already (RFC 9113 8.3.1).
    """
    target = head.target
    if not http2 and target[:1] in _AT_AN_ORIGIN:
        target = head.scheme + b"://" + head.authority + (b"" if target == b"*" else target)
    own = proxy_fields(proxy)
    names = {name.lower() for name, _ in own}
    kept = tuple(field for field in head.fields if field[0].lower() not in names)
    return head._replace(target=target, fields=kept + own)


def tunnelled(head: RequestHead) -> RequestHead:
    """The head as it goes through a tunnel, which ends at the origin: nothing that is for the proxy (RFC 9110 11.7.2).

    Libraries set Proxy-Authorization on the request itself, whatever becomes of it.
    """
    kept = tuple(field for field in head.fields if field[0].lower() != b"proxy-authorization")
    return head if len(kept) == len(head.fields) else head._replace(fields=kept)


@functools.lru_cache(maxsize=64)
def proxy_fields(proxy: Proxy) -> tuple[tuple[bytes, bytes], ...]:
    """What the proxy alone is told: its headers, and the credentials of its URL unless the headers have some.

    Raises LocalProtocolError for a header that is not allowed, or that belongs to the request.
    """
    fields = []
    for name, value in proxy.headers:
        spelling, rule = checked_name(name)
        if rule not in (None, drop):
            raise refusal(f"proxy header {name!r}: is set for you; leave it out (RFC 9110 7.6.1)")
        if rule is None:
            fields.append((spelling, checked_value(name, value)))
    if proxy.userinfo is not None and not any(name.lower() == b"proxy-authorization" for name, _ in fields):
        from base64 import b64encode

        fields.append((b"Proxy-Authorization", b"Basic " + b64encode(b":".join(credentials(proxy.userinfo)))))
    return tuple(fields)


def credentials(userinfo: str) -> tuple[bytes, bytes]:
    """User and password of a URL's userinfo, percent-decoded (RFC 3986 3.2.1)."""
    from urllib.parse import unquote_to_bytes

    user, _, password = userinfo.partition(":")
    return unquote_to_bytes(user), unquote_to_bytes(password)


def head_fields_for_h2(head: RequestHead) -> list[tuple[bytes, bytes]]:
    """The field list of a HEADERS frame (RFC 9113 8.3.1): pseudo-headers first, names in lower case.

    Drops Host, which :authority replaces, empty cookies, and what is specific to an HTTP/1.1 connection (8.2.2).
    Secrets are ``hpack.NeverIndexedHeaderTuple``, so that no intermediary's table keeps them.
    """
    fields = [
        (b":method", head.method),
        (b":scheme", head.scheme),
        (b":authority", head.authority),
        (b":path", head.target if head.target[:1] in _AT_AN_ORIGIN else _path_of_absolute(head)),
    ]
    return fields + written_once(head.fields, _h2_fields)


def _h2_fields(given: tuple[tuple[bytes, bytes], ...]) -> list[tuple[bytes, bytes]]:
    fields = []
    for name, value in given:
        lower, wrap = _h2_name(name)
        # A server joins cookies with "; " (8.2.3): an empty one would leave a blank at the end, which is malformed.
        if wrap is not None and (value or wrap is not _cookie):
            fields.append(wrap(lower, value))
    return fields


# --- the parts of a request head -------------------------------------------------------------------------------------


def _refuse_malformed(headers: Iterable[Any], origin: str) -> None:
    """Raise LocalProtocolError if something among the headers is no pair: looked for when one could not be read."""
    for one in headers:
        if not isinstance(one, (tuple, list)) or len(one) != 2 or not isinstance(one[0], (str, bytes)):
            # Only its type: what it is may be a credential.
            what = f"headers must be (name, value) pairs of str, and a {type(one).__name__} among them is none"
            raise LocalProtocolError(f"{what}: give tuples of two", origin=origin, processed="no")


@functools.lru_cache(maxsize=256)
def _method(method: str) -> bytes:
    octets = method.encode("latin-1", "replace") if isinstance(method, str) else b""
    if not _TOKEN(octets):
        raise refusal(f"method {method!r}: not a token; methods are words such as GET or POST (RFC 9110 5.6.2)")
    if octets == b"CONNECT":
        raise refusal("method 'CONNECT': opens a tunnel, not a request; give `proxy=` instead (RFC 9110 9.3.6)")
    return octets


@functools.lru_cache(maxsize=1024)  # as many as URLs are remembered (`urls.parse_url`)
def _target(target: str, verb: bytes) -> bytes:
    if TARGET(target) or (target == "*" and verb == b"OPTIONS"):
        return target.encode()
    if (parts := _ABSOLUTE(target)) and AUTHORITY(parts[2].encode("latin-1", "replace")):
        return target.encode()
    if bad := _NOT_TARGET_CHAR(target):
        raise refusal(f"target: {bad[0]!r} at position {bad.start()} is not allowed; percent-encode it (RFC 3986 2.1)")
    raise refusal(
        f"target {target[:80]!r}: must begin with '/', be '*' with OPTIONS, or an absolute URL (RFC 9112 3.2)"
    )


def _named_in(target: bytes) -> tuple[bytes, bytes]:
    """Scheme and authority of a target in absolute form."""
    parts = _ABSOLUTE(target.decode("ascii"))
    assert parts is not None, "`_target` has seen it"
    return parts[1].lower().encode(), parts[2].encode()


def _check_host_of_absolute(draft: Draft, authority: bytes) -> None:
    # RFC 9112 3.2.2: they must be the same. Recipients differ in which one they believe, and attacks live on that.
    if draft.authority is not None and draft.authority.lower() != authority.lower():
        what = f"{short(draft.authority)} differs from the target's {short(authority)}"
        raise refusal(f"header 'Host': {what}; leave it out (RFC 9112 3.2.2)")


def _path_of_absolute(head: RequestHead) -> bytes:
    """What follows the authority: HTTP/2 says the rest in fields of their own (RFC 9113 8.3.1)."""
    path = head.target[len(head.scheme) + len(b"://") + len(head.authority) :]
    if not path:
        return b"*" if head.method == b"OPTIONS" else b"/"
    return path if path[:1] == b"/" else b"/" + path


@functools.lru_cache(maxsize=1024)
def _scheme_and_authority(scheme: str, host: str, port: int) -> tuple[bytes, bytes]:
    # A zone identifier means something on this machine only and is not sent (RFC 6874 4).
    host = host.partition("%")[0] if ":" in host else host
    authority = Origin(scheme, host, port).authority.encode("latin-1", "replace")
    if not AUTHORITY(authority):
        raise refusal(f"host {host!r}: not a host name; write it in ASCII, IDNA-encoded if need be (RFC 3986 3.2.2)")
    return scheme.encode("ascii"), authority


def _frame(draft: Draft, verb: bytes, body_bytes: int | None) -> int | None:
    """Settle the length of the body (RFC 9112 6.2, 6.3), and declare it where nobody has yet."""
    declared = draft.declared_bytes
    if declared is None:
        if body_bytes or (body_bytes is not None and verb in _ANTICIPATES_CONTENT):
            draft.fields.append((b"Content-Length", b"%d" % body_bytes))
        return body_bytes
    if draft.chunked:
        raise refusal("headers 'Content-Length' and 'Transfer-Encoding' exclude each other: drop one (RFC 9112 6.2)")
    if body_bytes is not None and body_bytes != declared:
        what = f"{declared} declared, but the body has {body_bytes} bytes"
        raise refusal(f"header 'Content-Length': {what}; leave it out, it is added for you (RFC 9110 8.6)")
    return declared


def _settle_expectation(draft: Draft, body_bytes: int | None) -> bool:
    """Whether the body waits for 100 (Continue). Without a body nobody may ask for that (RFC 9110 10.1.1)."""
    if body_bytes == 0:
        draft.fields = [field for field in draft.fields if field[0].lower() != b"expect"]
    return body_bytes != 0


# --- HTTP/2's form ---------------------------------------------------------------------------------------------------

_Wrap = Callable[[bytes, bytes], Any]


@functools.lru_cache(maxsize=1024)
def _h2_name(name: bytes) -> tuple[bytes, _Wrap | None]:
    """The name in HTTP/2's form, and what makes a field of it; None where HTTP/2 has no such field."""
    lower = name.lower()
    if lower in CONNECTION_SPECIFIC or lower == b"host":
        return lower, None
    if lower in _NEVER_INDEXED:
        return lower, _never_indexed
    return lower, _cookie if lower == b"cookie" else _plain


def _plain(name: bytes, value: bytes) -> tuple[bytes, bytes]:
    return name, value


def _never_indexed(name: bytes, value: bytes) -> Any:
    from hpack import NeverIndexedHeaderTuple

    return NeverIndexedHeaderTuple(name, value)


def _cookie(name: bytes, value: bytes) -> Any:
    return _never_indexed(name, value) if len(value) < _SHORT_COOKIE_BYTES else (name, value)
