"""Request items: which separator decides, what it makes of the word, and what is refused."""

from __future__ import annotations

import pytest

from hyperpool.cli.items import Item, parse_item, parse_items
from hyperpool.cli.words import UsageError


def parts(word: str) -> tuple[str, str, str]:
    item = parse_item(word)
    return item.name, item.separator, item.value


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("Accept:text/html", ("Accept", ":", "text/html")),
        ("Accept:", ("Accept", ":", "")),
        ("Accept;", ("Accept", ";", "")),
        ("q==red fox", ("q", "==", "red fox")),
        ("name=Ann", ("name", "=", "Ann")),
        ("name=", ("name", "=", "")),
        ("age:=41", ("age", ":=", "41")),
        ("text=@a.txt", ("text", "=@", "a.txt")),
        ("data:=@a.json", ("data", ":=@", "a.json")),
        ("q==@a.txt", ("q", "==@", "a.txt")),
        ("Cookie:@a.txt", ("Cookie", ":@", "a.txt")),
        ("picture@cat.jpg", ("picture", "@", "cat.jpg")),
        ("@cat.jpg", ("", "@", "cat.jpg")),
    ],
)
def test_each_separator_makes_its_item(word: str, expected: tuple[str, str, str]) -> None:
    assert parts(word) == expected


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("Referer:http://a.test/?x=1", ("Referer", ":", "http://a.test/?x=1")),
        ("mail=ann@a.test", ("mail", "=", "ann@a.test")),
        ("time=12:30", ("time", "=", "12:30")),
        ("Content-Type:text/html;charset=utf-8", ("Content-Type", ":", "text/html;charset=utf-8")),
        ("sum==1=1", ("sum", "==", "1=1")),
        ("a=b;", ("a", "=", "b;")),
    ],
)
def test_the_first_separator_decides(word: str, expected: tuple[str, str, str]) -> None:
    assert parts(word) == expected


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        (r"a\:b=c", ("a:b", "=", "c")),
        (r"a\=b=c", ("a=b", "=", "c")),
        (r"\@home=c", ("@home", "=", "c")),
        (r"a\;:c", ("a;", ":", "c")),
        (r"a\=\=b==c", ("a==b", "==", "c")),
        (r"C\temp=c", (r"C\temp", "=", "c")),
        (r"a\\=b", ("a\\", "=", "b")),
        (r"a\\==b", ("a\\", "==", "b")),
        (r"a\\\=b=c", (r"a\=b", "=", "c")),
        (r"a\\\\:b", (r"a\\", ":", "b")),
        (r"\\server\x=c", (r"\\server\x", "=", "c")),
        (r"a\\;", ("a\\", ";", "")),
    ],
)
def test_a_backslash_takes_the_meaning_of_a_separator_away(word: str, expected: tuple[str, str, str]) -> None:
    assert parts(word) == expected


@pytest.mark.parametrize("value", [r"C:\new", r'{"a":"\u00e9"}', r"a\:b", "\\"])
def test_a_value_is_taken_as_it_is(value: str) -> None:
    assert parts(f"a={value}") == ("a", "=", value)


def test_the_authority_of_hyper_is_the_host_header() -> None:
    assert parts(":authority:a.test") == ("Host", ":", "a.test")


@pytest.mark.parametrize(
    ("word", "why"),
    [
        ("nothing", "is no request item"),
        ("", "is no request item"),
        ("a;b", "is no request item"),
        ("=value", "a name is missing"),
        ("==value", "a name is missing"),
        (":=1", "a name is missing"),
        (";", "a name is missing"),
        ("@", "a path is missing"),
        ("f@", "a path is missing"),
        ("f@;type=text/csv", "a path is missing"),
        ("f=@", "a path is missing"),
        ("f==@", "a path is missing"),
        ("a\\", "is no request item"),
        (":method:GET", "pseudo-headers are made of METHOD and URL"),
        (":", "pseudo-headers are made of METHOD and URL"),
    ],
)
def test_what_is_no_item_is_refused(word: str, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        parse_item(word)


def test_items_are_sorted_by_what_they_become() -> None:
    items = parse_items(["A:1", "B;", "q==1", "x=1", "y:=2", "f@a.txt", "A:2"])
    assert [item.text for item in items.headers] == ["A:1", "B;", "A:2"]
    assert [item.text for item in items.query] == ["q==1"]
    assert [item.text for item in items.fields] == ["x=1", "y:=2"]
    assert items.files == [Item("f", "@", "a.txt", "f@a.txt")]


@pytest.mark.parametrize(
    ("words", "expected"), [(["x=1"], True), (["f@a"], True), (["@a"], True), (["A:1", "q==1"], False), ([], False)]
)
def test_headers_and_queries_make_no_body(words: list[str], expected: bool) -> None:
    assert parse_items(words).has_body is expected


@pytest.mark.parametrize("words", [["@a", "@b"], ["@a", "x=1"], ["f@a", "@b"]])
def test_a_request_has_one_body(words: list[str]) -> None:
    with pytest.raises(UsageError, match=r"body"):
        parse_items(words)
