"""Text as requests 2.34 has it: the same bytes, fetched by both, row by row; and where we differ, why."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import pytest
from client_support import H1_PLAIN, Kit

from hyperpool.testing import Reply

requests = pytest.importorskip("requests")

GERMAN = "Grüße aus München, wo die Füchse über die Zäune hüpfen und die Bären größere Nüsse knacken. "
RUSSIAN = "Скажи-ка, дядя, ведь не даром Москва, спаленная пожаром, французу отдана? "
JAPANESE = "吾輩は猫である。名前はまだ無い。どこで生れたかとんと見当がつかぬ。"
JSON = json.dumps({"name": "Jürgen", "n": [1, 2]}, ensure_ascii=False)


@dataclass(frozen=True)
class Row:
    """A body with its type, and what hyperpool makes of it where that is not what requests makes of it."""

    kind: str | None
    body: bytes
    ours: str | None = None
    why: str = ""


UTF8_FIRST = "requests takes ISO-8859-1 for all text/* without a charset, which spoils UTF-8"
JSON_ITSELF = "requests takes UTF-8 for application/json, which may be UTF-16 and UTF-32, too (RFC 4627 3)"
MARKED = "requests takes the byte order mark for text"

ROWS = {
    "no type, ascii": Row(None, b"plain"),
    "no type, nothing": Row(None, b""),
    "no type, utf-8": Row(None, (GERMAN * 5).encode()),
    "no type, cyrillic": Row(None, (RUSSIAN * 5).encode("cp1251")),
    "no type, shift-jis": Row(None, (JAPANESE * 5).encode("shift-jis")),
    "named utf-8": Row("text/html; charset=utf-8", GERMAN.encode()),
    "named latin-1": Row("text/html; charset=ISO-8859-1", GERMAN.encode("latin-1")),
    "named in quotes": Row('text/html; charset="koi8-r"', RUSSIAN.encode("koi8-r")),
    "named in single quotes": Row("text/html; charset='koi8-r'", RUSSIAN.encode("koi8-r")),
    "named wrongly": Row("text/html; charset=utf-8", GERMAN.encode("latin-1")),
    "named nonsense": Row("text/html; charset=nonsense", GERMAN.encode()),
    "named in capitals": Row("TEXT/HTML; CHARSET=KOI8-R", RUSSIAN.encode("koi8-r")),
    "named after others": Row("text/html; a=b; charset=koi8-r", RUSSIAN.encode("koi8-r")),
    "text, ascii": Row("text/plain", b"plain"),
    "text, latin-1": Row("text/plain", GERMAN.encode("latin-1")),
    "text, cyrillic": Row("text/html", RUSSIAN.encode("koi8-r")),
    "text, utf-8": Row("text/html", GERMAN.encode(), GERMAN, UTF8_FIRST),
    "text, marked": Row("text/csv", GERMAN.encode("utf-16"), GERMAN, UTF8_FIRST),
    "json": Row("application/json", JSON.encode()),
    "json of another kind": Row("application/problem+json", JSON.encode()),
    "json, utf-16": Row("application/json", JSON.encode("utf-16"), JSON, JSON_ITSELF),
    "json, utf-16 without a mark": Row("application/json", JSON.encode("utf-16-le"), JSON, JSON_ITSELF),
    "json, utf-32": Row("application/json", JSON.encode("utf-32-be"), JSON, JSON_ITSELF),
    "json, marked": Row("application/json", JSON.encode("utf-8-sig"), JSON, MARKED),
    "xml, utf-8": Row("application/xml", (GERMAN * 5).encode()),
    "xml, cyrillic": Row("application/xml", (RUSSIAN * 5).encode("cp1251")),
}


def both(kit: Kit, row: Row) -> tuple[Any, Any]:
    headers = (("content-type", row.kind),) if row.kind else ()
    server, client = kit.pair(H1_PLAIN, lambda request: Reply(200, headers, row.body))
    with requests.Session() as session:
        session.trust_env = False
        return client.get(server.url()), session.get(server.url())


@pytest.mark.parametrize("name", ROWS)
def test_text_is_what_requests_makes_of_it_but_for_the_rows_that_say_why(kit: Kit, name: str) -> None:
    row = ROWS[name]
    ours, theirs = both(kit, row)
    assert ours.text == (theirs.text if row.ours is None else row.ours)
    assert row.ours is None or ours.text != theirs.text, "a difference that is none any more"


@pytest.mark.parametrize("name", [name for name in ROWS if name != "no type, nothing"])
def test_the_apparent_encoding_reads_the_same_text_as_that_of_requests(kit: Kit, name: str) -> None:
    ours, theirs = both(kit, ROWS[name])
    if ROWS[name].body.startswith((b"\xff\xfe", b"\xef\xbb\xbf")):
        assert ours.content.decode(ours.apparent_encoding) in (ROWS[name].ours, theirs.text)
    elif "utf-16" in name or "utf-32" in name or "wrongly" in name or len(ROWS[name].body) < 250:
        assert isinstance(ours.apparent_encoding, str), "too little for a guess to be the same"
    else:
        assert ours.content.decode(ours.apparent_encoding) == theirs.content.decode(theirs.apparent_encoding)


@pytest.mark.parametrize("name", [name for name in ROWS if "json" in name])
def test_json_is_what_requests_makes_of_it_where_that_reads_it_at_all(kit: Kit, name: str) -> None:
    ours, theirs = both(kit, ROWS[name])
    assert ours.json() == json.loads(JSON)
    try:
        assert theirs.json() == ours.json()
    except ValueError:
        assert ROWS[name].why


def test_an_encoding_that_is_set_is_used_by_both(kit: Kit) -> None:
    ours, theirs = both(kit, Row("text/plain", RUSSIAN.encode("koi8-r")))
    ours.encoding = theirs.encoding = "koi8-r"
    assert ours.text == theirs.text == RUSSIAN
