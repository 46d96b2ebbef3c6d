"""The rules for what servers send: status codes, the characters of fields, lengths, and the requests of pushes.

Pure functions; the codecs ask them of what h2 and h11 have let through, or instead of asking those.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from hyperpool.errors import InvalidURL, RemoteProtocolError
from hyperpool.protocol.field_rules import AUTHORITY, LENGTH, short
from hyperpool.protocol.fields import TARGET
from hyperpool.urls import Origin, parse_url
from hyperpool.values import Request, Timeout

LOWER_TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]+").fullmatch  # RFC 9113 8.2.1
# Responses: what a recipient must not let through (RFC 9110 5.5, RFC 9113 8.2.1). Other controls are invalid as well,
# but may be kept for robustness, and real servers set cookies with \x01 in them (python-hyper/h11#57).
RESPONSE_VALUE = re.compile(rb"(?![ \t])[^\0\r\n]*(?<![ \t])").fullmatch


def parse_status(value: bytes) -> int:
    """Read a status code: three digits, 100 to 999 (RFC 9110 15). Raises RemoteProtocolError for anything else.

    Codes of 600 and above are invalid, but are handed on as a 5xx would be: some servers invent them (999 is seen).
    """
    if len(value) != 3 or not value.isdigit() or value[0] == 0x30:
        # "maybe": the server answered, so it has seen the request.
        raise RemoteProtocolError(
            f"the status code {short(value)} is not three digits from 100 to 999 (RFC 9110 15)", processed="maybe"
        )
    return int(value)


def declared_bytes(fields: Iterable[tuple[bytes, bytes]]) -> int | None:
    """The length that a response declares for its body (RFC 9110 8.6); None where it does not."""
    return next((int(value) for name, value in fields if name == b"content-length" and LENGTH(value)), None)


def promised_request(fields: Sequence[tuple[bytes, bytes]], origin: Origin, timeout: Timeout) -> Request | None:
    """The request that a PUSH_PROMISE makes in our name; None where the server may not make it.

    RFC 9113 8.4: a safe method without content, and an origin for which the server speaks.
    """
    texts = {name.decode("latin-1"): value.decode("latin-1") for name, value in fields if name[:1] == b":"}
    method, scheme, authority, path = (texts.get(name, "") for name in (":method", ":scheme", ":authority", ":path"))
    # Each for itself: "a.test/" and "x?y" would make a URL of our origin too.
    if not (AUTHORITY(authority.encode("latin-1")) and TARGET(path)):
        return None
    try:
        url = parse_url(f"{scheme}://{authority}{path}")
    except InvalidURL:
        return None
    if url.origin != origin or method not in ("GET", "HEAD") or declared_bytes(fields):
        return None
    headers = tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in fields if name[:1] != b":")
    return Request(method, url.wire, headers, timeout=timeout)
