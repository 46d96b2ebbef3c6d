"""Which charset a text is in: what Content-Type says, and where it says nothing, what the bytes look like. Pure.

requests takes ISO-8859-1 for all text/* without a charset, as HTTP once had it (RFC 2616 3.7.1), which spoils UTF-8.
Here bytes that are UTF-8 count as UTF-8 first: hardly any other text is valid UTF-8 by chance.
"""

from __future__ import annotations

import codecs
import re

# Bytes that are shown to charset_normalizer: 20 ms for so many, and time in proportion for more. Halved, it knows
# hardly less; doubled, hardly more.
_LOOKED_AT_BYTES = 1 << 20

_CHARSET = re.compile(r"""charset\s*=\s*["']?([^\s"';]+)""", re.IGNORECASE)
_JSON = re.compile(r"[\w.+-]+/(?:[\w.+-]*\+)?json\s*(?:;|$)", re.IGNORECASE)

# UTF-32 first: its mark begins with that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)

# Where the first four bytes of JSON are NUL: it begins with ASCII (RFC 4627 3).
_JSON_BY_NULS: dict[tuple[bool, ...], str] = {
    (True, True, True, False): "utf-32-be",
    (True, False, True, False): "utf-16-be",
    (False, True, True, True): "utf-32-le",
    (False, True, False, True): "utf-16-le",
}


def named(content_type: str) -> str | None:
    """The charset that a Content-Type names."""
    found = _CHARSET.search(content_type)
    return found[1] if found else None


def detected(body: bytes, content_type: str) -> str:
    """The charset of a body whose Content-Type names none."""
    if (marked := _by_mark(body)) is not None:
        return marked
    if _JSON.match(content_type):
        return _JSON_BY_NULS.get(tuple(byte == 0 for byte in body[:4]), "utf-8")
    if is_utf8(body):
        return "utf-8"
    return "iso-8859-1" if content_type.lower().startswith("text/") else _guessed(body)


def apparent(body: bytes) -> str:
    """The charset that the bytes look like, whatever anybody says."""
    return _by_mark(body) or ("utf-8" if is_utf8(body) else _guessed(body))


def is_utf8(body: bytes) -> bool:
    """Whether the bytes are valid UTF-8; they are text, too, and no NULs between letters."""
    try:
        body.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return b"\0" not in body


def _by_mark(body: bytes) -> str | None:
    return next((charset for mark, charset in _MARKS if body.startswith(mark)), None)


def _guessed(body: bytes) -> str:
    """What charset_normalizer says, where it is installed; else UTF-8."""
    try:
        from charset_normalizer import from_bytes
    except ImportError:
        return "utf-8"
    # An even number of bytes, and up to the end of a line: a torn character would exclude the right charset.
    cut = body[:_LOOKED_AT_BYTES]
    if len(body) > len(cut) and (end := cut.rfind(b"\n")) > 0:
        cut = cut[: end + 1 + (end + 1) % 2]
    best = from_bytes(cut).best()
    return "utf-8" if best is None else best.encoding
