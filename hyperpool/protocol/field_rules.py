"""The rules for single request fields: names, values, and those fields that say how a message is framed or routed.

Whatever passes here can be written on either version as it stands. Names repeat and are remembered (`checked_name`);
values are secrets as often as not and are never remembered, they pay one check each.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn

from hyperpool.errors import LocalProtocolError

_CONTINUE = b"100-continue"  # RFC 9110 10.1.1: the only expectation there is

# 18 digits are an exabyte less one; int() of a longer one is quadratic, and refused by CPython beyond 4,300.
LENGTH = re.compile(rb"[0-9]{1,18}").fullmatch

# RFC 3986 3.2.
AUTHORITY = re.compile(rb"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9\-._~!$&'()*+,;=%]+)(?::[0-9]{0,5})?").fullmatch

_NOT_TCHAR = re.compile(rb"[^!#$%&'*+\-.^_`|~0-9A-Za-z]").search  # RFC 9110 5.6.2
_NOT_FIELD_CHAR = re.compile(rb"[^\t -~\x80-\xff]").search  # RFC 9110 5.5


@dataclass(slots=True, eq=False, repr=False)
class Draft:
    """What the rules for single fields find out about one request.

    Owned by the one call of `prepare_head` that made it.
    """

    fields: list[tuple[bytes, bytes]]
    authority: bytes | None = None
    declared_bytes: int | None = None
    chunked: bool = False
    te: bool = False
    names_te: bool = False
    expects_continue: bool = False


Rule = Callable[[Draft, bytes, bytes], None]


@functools.lru_cache(maxsize=1024)
def checked_name(name: str | bytes) -> tuple[bytes, Rule | None]:
    """A name as it is written, and the rule for it if it has one; remembered, since programs use few names."""
    octets = name.encode("latin-1", "replace") if isinstance(name, str) else name
    if not isinstance(octets, bytes):
        raise refusal(f"header name {name!r}: give str or bytes, not {type(name).__name__} (RFC 9110 5.1)")
    if octets[:1] == b":":
        raise refusal(f"header {name!r}: pseudo-headers come from method and URL; leave it out (RFC 9113 8.3)")
    # "replace" writes "?", which is no tchar either: both kinds of wrong character end here.
    if bad := _NOT_TCHAR(octets):
        raise refusal(f"header name {name!r}: {name[bad.start()]!r} is not allowed in a name (RFC 9110 5.6.2)")
    if not octets:
        raise refusal("header name '': a name has at least one character (RFC 9110 5.1)")
    return octets, _RULES.get(octets.lower())


def checked_value(name: str | bytes, value: str | bytes) -> bytes:
    """A value as it is written, without blanks around it (RFC 9110 5.5)."""
    # Two C calls answer for nearly all values; the regular expression is three times as dear. ASCII is its own UTF-8,
    # and encode() without a name is the fastest.
    if type(value) is str and value.isascii() and value.isprintable():
        return value.strip(" ").encode()
    octets = _latin_1(name, value).strip(b" \t")
    if bad := _NOT_FIELD_CHAR(octets):
        _refuse_value(name, bad[0].decode("latin-1"), bad.start(), "remove it")
    return octets


def _latin_1(name: str | bytes, value: str | bytes) -> bytes:
    if isinstance(value, bytes):
        return value
    if not isinstance(value, str):
        raise refusal(f"header {name!r}: give the value as str or bytes, not {type(value).__name__} (RFC 9110 5.5)")
    try:
        return value.encode("latin-1")
    except UnicodeEncodeError as error:
        _refuse_value(name, value[error.start], error.start, "encode the value yourself and give bytes")


def _refuse_value(name: str | bytes, character: str, position: int, remedy: str) -> NoReturn:
    # Never the whole value: it may be a credential, and messages end in logs.
    where = f"{character!r} at position {position} of the value"
    raise refusal(f"header {name!r}: {where} is not allowed; {remedy} (RFC 9110 5.5)")


# --- the rules -------------------------------------------------------------------------------------------------------


def _host(draft: Draft, name: bytes, value: bytes) -> None:
    if draft.authority is not None:
        raise refusal("header 'Host': given twice; keep one (RFC 9112 3.2)")
    if not AUTHORITY(value):
        raise refusal(f"header 'Host': {short(value)} is not host or host:port (RFC 9110 7.2)")
    draft.authority = value


def _content_length(draft: Draft, name: bytes, value: bytes) -> None:
    if draft.declared_bytes is not None:
        raise refusal("header 'Content-Length': given twice; keep one, or none: it is added for you (RFC 9110 8.6)")
    if not LENGTH(value):
        raise refusal(f"header 'Content-Length': {short(value)} is not a number of bytes (RFC 9110 8.6)")
    draft.declared_bytes = int(value)
    draft.fields.append((name, b"%d" % draft.declared_bytes))


def _transfer_encoding(draft: Draft, name: bytes, value: bytes) -> None:
    if value.lower() != b"chunked" or draft.chunked:
        raise refusal(f"header 'Transfer-Encoding': {short(value)} cannot be sent; leave it out (RFC 9112 6.1)")
    draft.chunked = True


def _connection(draft: Draft, name: bytes, value: bytes) -> None:
    for option in value.lower().split(b","):
        draft.names_te |= option.strip() == b"te"
        if option.strip() not in (b"close", b"keep-alive", b"te", b""):
            what = "only 'close' and 'keep-alive' can be asked for"
            raise refusal(f"header 'Connection': option {short(option)} is not allowed; {what} (RFC 9110 7.6.1)")
    draft.fields.append((name, value))


def _te(draft: Draft, name: bytes, value: bytes) -> None:
    if value.lower() != b"trailers":
        raise refusal(f"header 'TE': {short(value)} is not possible; only 'trailers' is (RFC 9113 8.2.2)")
    draft.te = True
    draft.fields.append((name, value))


def _expect(draft: Draft, name: bytes, value: bytes) -> None:
    draft.expects_continue |= value.lower() == _CONTINUE
    draft.fields.append((name, value))


def _upgrade(draft: Draft, name: bytes, value: bytes) -> None:
    raise refusal(f"header 'Upgrade': cannot switch to {short(value)} on a shared connection (RFC 9110 7.8)")


def drop(draft: Draft, name: bytes, value: bytes) -> None:
    """Connection bookkeeping of HTTP/1.0 times, which libraries set by habit: ours, and no loss."""


_RULES: dict[bytes, Rule] = {
    b"host": _host,
    b"content-length": _content_length,
    b"transfer-encoding": _transfer_encoding,
    b"connection": _connection,
    b"te": _te,
    b"expect": _expect,
    b"upgrade": _upgrade,
    b"keep-alive": drop,
    b"proxy-connection": drop,
}


def short(octets: bytes) -> str:
    """What somebody gave, as a message shows it."""
    return repr(octets[:80])


def refusal(message: str) -> LocalProtocolError:
    """The error for what must not be written."""
    return LocalProtocolError(message, processed="no")
