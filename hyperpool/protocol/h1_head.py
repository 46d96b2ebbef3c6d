"""What must be refused of an HTTP/1.1 response head, before h11 reads it (RFC 9112 2.2, 4, 6).

Pure, and without h11: the answer to CONNECT is judged here as well, where that is not loaded yet. h11 takes lines that
end with a bare LF, odd versions, and two things that say how long a body is. Two readers of such a head may disagree on
where it, or its message, ends: that is how a response is split.
"""

from __future__ import annotations

import re

from hyperpool.errors import RemoteProtocolError

HEAD_END = b"\r\n\r\n"
# How two faults begin to be worded: the face of http.client tells them apart by that.
HEAD_TOO_LONG = "the response head has more than"
WRONG_BEGINNING = "a response cannot begin with"
# What a field costs beside its bytes, as HTTP/2 counts it (RFC 9113 6.5.2): one bound then means the same on both.
FIELD_BYTES = 32
_BEGINNING = b"HTTP/1."
_STATUS_LINE = re.compile(rb"HTTP/1\.[01] [1-9][0-9][0-9](?: [\t\x20-\x7e\x80-\xff]*)?\r\n")
_BARE_LINE_END = re.compile(rb"(?<!\r)\n|\r(?!\n|$)")
# Each with its value, and the blank that begins a folded line behind it (RFC 9112 5.2).
_LENGTH = re.compile(rb"\r\ncontent-length[ \t]*:([^\r]*)(?=\r\n([ \t]?))", re.IGNORECASE)
_CODING = re.compile(rb"\r\ntransfer-encoding[ \t]*:([^\r]*)(?=\r\n([ \t]?))", re.IGNORECASE)


def check_head(whole: bytearray, end: int, before: int, *, max_bytes: int, framed: bool = True) -> None:
    """Refuse what h11 would let pass: RFC 9112 2.2 (bare LF, bare CR), 4 (status line), 6.1 and 6.3 (framing).

    ``end`` is where the last field ends, -1 while that has not come. ``before`` bytes have been judged already:
    a head that drips in byte by byte would cost 45 s at 64 KiB if each byte had all of them judged again.
    ``framed``: whether it says how long a body is: the answer to CONNECT has none (RFC 9110 9.3.6).
    Raises RemoteProtocolError.
    """
    # Without an end, the last bytes may be all of it but one.
    size = len(whole) - len(HEAD_END) + 1 if end < 0 else end
    if size > max_bytes:
        raise RemoteProtocolError(f"{HEAD_TOO_LONG} {max_bytes:,} bytes")
    head = whole if end < 0 else whole[: end + 2]
    if bad := _BARE_LINE_END.search(head, max(0, before - 1)):
        raise RemoteProtocolError(f"{bytes(bad[0])!r} alone ends no line of a response head (RFC 9112 2.2)")
    complete = b"\r\n" in head and whole.find(b"\r\n", 0, before) < 0
    if not _BEGINNING.startswith(head[: len(_BEGINNING)]) or (complete and not _STATUS_LINE.match(head)):
        raise RemoteProtocolError(f"{WRONG_BEGINNING} {bytes(head[:40])!r}: is this HTTP/1.1? (RFC 9112 4)")
    if end >= 0 and head.count(b"\n") > max_bytes // FIELD_BYTES:
        raise RemoteProtocolError(f"{HEAD_TOO_LONG} {max_bytes // FIELD_BYTES:,} lines")
    if end >= 0 and framed:
        _check_framing(head)


def _check_framing(head: bytearray) -> None:
    """RFC 9112 6.1 and 6.3: one thing says how long the body is, and it says so once, in one line."""
    codings, lengths = _CODING.findall(head), _LENGTH.findall(head)
    if codings and (lengths or head.startswith(b"HTTP/1.0")):
        raise RemoteProtocolError("Transfer-Encoding beside Content-Length, or in HTTP/1.0 (RFC 9112 6.1, 6.3)")
    if any(fold for _, fold in codings + lengths):
        raise RemoteProtocolError("Transfer-Encoding or Content-Length over two lines (RFC 9112 5.2)")
    if len(lengths) > 1 or not all(value.strip(b" \t").isdigit() for value, _ in lengths):
        said = b", ".join(bytes(value) for value, _ in lengths)[:40]
        raise RemoteProtocolError(f"Content-Length must be one number, once, not {said!r} (RFC 9112 6.3)")
