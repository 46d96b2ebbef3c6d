"""How heads and JSON are laid out, as text: nothing is written here, and no colour is known but by the name of a style.

JSON is indented token by token, so that what is shown is what came: 1.10 stays 1.10, a key that stands there twice is
shown twice, and a number of 40 digits keeps them.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from hyperpool.protocol.fields import head_fields_for_h2

if TYPE_CHECKING:
    from hyperpool.handoff.response import Response
    from hyperpool.protocol.events import Fields, RequestHead

Line = list[tuple[str, str]]

_JSON_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[\[\]{},:]|[^\s\[\]{},:"]+')
_ESCAPE = re.compile(r"\\u(?:[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|[0-9a-fA-F]{4})|\\.")
_INDENT = "  "

# The type of a body and the language that colours it.
_LEXERS = (
    ("html", "html"),
    ("xml", "xml"),
    ("javascript", "javascript"),
    ("css", "css"),
    ("yaml", "yaml"),
)


def is_json_type(content_type: str) -> bool:
    """Whether a body of this type is one JSON text (RFC 8259, RFC 6839 3.1); lines of JSON are not."""
    mime = content_type.partition(";")[0].strip().lower()
    return mime in ("application/json", "text/json") or mime.endswith("+json")


def lexer_of(content_type: str) -> str | None:
    """The language by which a body of this type is coloured; None for what is shown as it comes."""
    if is_json_type(content_type):
        return "json"
    mime = content_type.partition(";")[0].lower()
    return next((lexer for word, lexer in _LEXERS if word in mime), None)


def laid_out(text: str) -> str:
    """JSON with one value on a line; anything else as it is."""
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return text
    return "".join(_indented(_JSON_TOKEN.findall(text)))


def _indented(tokens: list[str]) -> list[str]:
    words: list[str] = []
    depth = 0
    for number, token in enumerate(tokens):
        following = tokens[number + 1] if number + 1 < len(tokens) else ""
        if token in "]}":
            # An empty list or object stays on its line.
            depth -= 1
            words += ["" if tokens[number - 1] in "[{" else _new_line(depth), token]
        elif token in "[{":
            depth += 1
            words += [token, "" if following in "]}" else _new_line(depth)]
        elif token == ",":
            words += [token, _new_line(depth)]
        else:
            words.append(": " if token == ":" else _readable(token))
    return words


def _new_line(depth: int) -> str:
    return "\n" + depth * _INDENT


def _readable(token: str) -> str:
    r"""A token with its letters in place of ``\uXXXX``; what is no letter stays escaped."""
    return _ESCAPE.sub(_letter, token) if "\\u" in token else token


def _letter(escape: re.Match[str]) -> str:
    if len(escape[0]) < 6:
        return escape[0]
    letter: str = json.loads(f'"{escape[0]}"')
    return letter if letter.isprintable() and letter not in '"\\' else escape[0]


def request_lines(head: RequestHead, version: str) -> list[Line]:
    """A request head as it was sent: on HTTP/2 with lower-case names and :authority (RFC 9113 8.3.1)."""
    first: Line = [("method", head.method.decode()), ("", " "), ("target", head.target.decode("latin-1"))]
    first += [("", " "), ("version", version)]
    if version == "HTTP/2":
        # :method, :scheme and :path stand in the line above.
        fields = [(b":authority", head.authority), *head_fields_for_h2(head)[4:]]
    else:
        fields = [(b"Host", head.authority), *head.fields]
        if head.body_bytes is None:
            fields.append((b"Transfer-Encoding", b"chunked"))
    return [first, *field_lines(fields)]


def response_lines(response: Response) -> list[Line]:
    """A response head as it came; HTTP/2 has no reason phrase (RFC 9113 8.3.2)."""
    head = response._parts.head
    style = "ok" if head.status < 300 else "redirect" if head.status < 400 else "wrong"
    words = f"{head.status} {head.reason.decode('latin-1')}".rstrip()
    return [[("version", head.http_version), ("", " "), (style, words)], *field_lines(head.fields)]


def trailer_lines(response: Response) -> list[Line]:
    """The trailer section, which is known once the body has been read (RFC 9110 6.5)."""
    return [_field_line(name, value) for name, value in response.trailers.items()]


def field_lines(fields: Fields) -> list[Line]:
    """Header fields, one line for each."""
    return [_field_line(name.decode("latin-1"), _text(value)) for name, value in fields]


def _field_line(name: str, value: str) -> Line:
    return [("name", name), ("", ": "), ("", value)]


def _text(value: bytes) -> str:
    """A field's value as whoever wrote it meant it: UTF-8 where it can be that (RFC 9110 5.5 knows octets only)."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")
