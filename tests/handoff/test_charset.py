"""Which charset a text is in, and how responses use it."""

from __future__ import annotations

import gzip
import json
import sys
from typing import Any

import pytest
from handoff_kit import make_response
from hypothesis import given
from hypothesis import strategies as st

from hyperpool.handoff.charset import apparent, detected, named
from hyperpool.handoff.pieces import DelimitedLines
from hyperpool.handoff.reading import Stage

RUSSIAN = "Все счастливые семьи похожи друг на друга, каждая несчастливая семья несчастлива по-своему.\n" * 5  # noqa: RUF001


@pytest.fixture(params=[True, False], ids=["charset_normalizer", "without"])
def is_there(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """With charset_normalizer, and as if it were not installed."""
    if request.param:
        pytest.importorskip("charset_normalizer")
    else:
        monkeypatch.setitem(sys.modules, "charset_normalizer", None)
    return request.param


@pytest.mark.parametrize(
    ("content_type", "charset"),
    [
        ("", None),
        ("text/plain", None),
        ("text/plain; charset=latin-1", "latin-1"),
        ('text/plain; x=y; CHARSET = "utf-16"; z', "utf-16"),
        ("text/plain; charset=", None),
    ],
)
def test_a_charset_is_named_by_its_parameter(content_type: str, charset: str | None) -> None:
    assert named(content_type) == charset


MARKED = ["utf-8-sig", "utf-16", "utf-32"]


@pytest.mark.parametrize("kind", ["", "text/plain", "application/json", "image/png"])
@pytest.mark.parametrize("charset", MARKED)
def test_a_byte_order_mark_decides(charset: str, kind: str) -> None:
    body = json.dumps(RUSSIAN).encode(charset)
    assert body.decode(detected(body, kind)) == body.decode(apparent(body)) == json.dumps(RUSSIAN)


@pytest.mark.parametrize("kind", ["application/json", "application/json; x=y", "application/problem+json", "text/json"])
@pytest.mark.parametrize("charset", ["utf-8", "utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
def test_json_tells_its_charset_by_its_first_bytes(charset: str, kind: str) -> None:
    assert detected('{"a": "\u00e9"}'.encode(charset), kind) == charset


@pytest.mark.parametrize("body", [b"", b"1", b"{}", b"\xff\xff"])
def test_json_that_is_too_short_to_tell_is_utf8(body: bytes) -> None:
    assert detected(body, "application/json") == "utf-8"


@pytest.mark.parametrize("kind", ["", "text/html", "application/xml"])
def test_what_is_valid_utf8_is_utf8(kind: str, is_there: bool) -> None:
    assert detected(RUSSIAN.encode(), kind) == apparent(RUSSIAN.encode()) == "utf-8"


@pytest.mark.parametrize("kind", ["text/plain", "Text/HTML"])
def test_other_text_is_latin_1_as_http_once_had_it(kind: str, is_there: bool) -> None:
    assert detected(b"gr\xfcn", kind) == "iso-8859-1"


def test_all_else_is_guessed_where_that_is_possible(is_there: bool) -> None:
    body = RUSSIAN.encode("cp1251")
    for charset in (detected(body, "application/x-mine"), apparent(body)):
        assert (charset == "utf-8") is not is_there
        assert not is_there or body.decode(charset) == RUSSIAN


def test_what_is_no_text_at_all_counts_as_utf8(is_there: bool) -> None:
    assert isinstance(apparent(bytes(range(256)) * 4), str)
    assert apparent(b"\x00\xff\xfe\x80" * 100) == "utf-8"


def test_a_large_body_is_guessed_by_its_beginning(is_there: bool) -> None:
    assert (apparent(RUSSIAN.encode("cp1251") * 4_000) == "utf-8") is not is_there
    assert isinstance(apparent(b"\xff" * 2_000_000), str)


# -- of a response -----------------------------------------------------------------------------------------------------


def typed(kind: bytes) -> list[tuple[bytes, bytes]]:
    return [(b"content-type", kind)]


def test_text_without_a_charset_is_what_it_looks_like() -> None:
    assert make_response([b"gr\xfcn"], fields=typed(b"text/plain")).text == "grün"
    response = make_response(["grün".encode()], fields=typed(b"text/plain"))
    assert (response.text, response.encoding, response.apparent_encoding) == ("grün", "utf-8", "utf-8")


def test_encoding_tells_what_text_will_use_before_it_is_asked() -> None:
    assert make_response([b"gr\xfcn"], fields=typed(b"text/plain")).encoding == "iso-8859-1"


def test_a_body_that_is_coded_or_still_to_come_counts_as_utf8_until_it_is_here() -> None:
    body = gzip.compress(b"gr\xfcn")
    coded = make_response([body], fields=[*typed(b"text/plain"), (b"content-encoding", b"gzip")])
    assert (coded.encoding, coded.text, coded.encoding) == ("utf-8", "grün", "iso-8859-1")
    streamed = make_response([b"gr\xfcn"], fields=typed(b"text/plain"), streamed=True)
    assert (streamed.encoding, streamed.text, streamed.encoding) == ("utf-8", "grün", "iso-8859-1")


def test_an_encoding_that_is_set_goes_before_all() -> None:
    response = make_response(["grün".encode()], fields=typed(b"text/plain; charset=utf-8"))
    response.encoding = response.apparent_encoding
    assert response.text == "grün"
    response.encoding = "latin-1"
    assert response.text == "grÃ¼n"


def test_json_in_a_charset_that_json_cannot_have_is_read_where_it_says_so() -> None:
    body = '"grün"'.encode("latin-1")
    assert make_response([body], fields=typed(b"application/json; charset=latin-1")).json() == "grün"
    with pytest.raises(UnicodeDecodeError):
        make_response([body], fields=typed(b"application/json")).json()


# -- lines by a delimiter ----------------------------------------------------------------------------------------------


@given(
    st.text(alphabet="ab\r\n|", max_size=40),
    st.sampled_from(["|", "\n", "\r\n", "||", "aa", "aba", "\n\n"]),
    st.lists(st.integers(1, 5), min_size=1),
)
def test_delimited_lines_are_those_of_the_whole_text_wherever_it_is_cut(text: str, by: str, sizes: list[int]) -> None:
    pieces, at = [], 0
    while at < len(text):
        size = sizes[len(pieces) % len(sizes)]
        pieces.append(text[at : at + size])
        at += size
    wanted = text.split(by)
    assert list(iter(Stage(iter([*pieces, None]).__next__, DelimitedLines(by)).take, None)) == (
        wanted if wanted[-1] else wanted[:-1]
    )


def test_a_response_gives_its_lines_by_a_delimiter() -> None:
    chunks: list[Any] = [b"a|", b"|b||", b"c|", b"d"]
    assert list(make_response(chunks, streamed=True).iter_lines("||")) == ["a", "b", "c|d"]


def test_a_delimiter_has_a_character() -> None:
    with pytest.raises(ValueError):
        list(make_response([b"a"]).iter_lines(""))


def test_an_unfinished_delimited_line_costs_no_more_than_its_size() -> None:
    assert [len(line) for line in make_response([b"x" * 100] * 20_000, streamed=True).iter_lines("||")] == [2_000_000]
