"""HTTPHeaderMap: what goes in, what comes out."""

from __future__ import annotations

import copy
from collections.abc import MutableMapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperpool.headers import HTTPHeaderMap

PAIRS = [(b"k1", b"v1"), (b"K2", b"v2, v3"), (b"k2", b"v4")]


def test_str_goes_in_and_bytes_come_out() -> None:
    headers = HTTPHeaderMap()
    headers["key"] = "välue"
    assert headers["key"] == ["välue".encode()]


@pytest.mark.parametrize("name", ["key", "KEY", b"Key"])
def test_names_are_found_in_any_case(name: Any) -> None:
    assert HTTPHeaderMap([("kEy", "v")])[name] == [b"v"]


def test_setting_appends() -> None:
    headers = HTTPHeaderMap(PAIRS)
    headers["k2"] = "v5"
    assert headers["k2"] == [b"v2", b"v3", b"v4", b"v5"]


def test_iterating_gives_names_in_lower_case_and_single_values() -> None:
    expected = [(b"k1", b"v1"), (b"k2", b"v2"), (b"k2", b"v3"), (b"k2", b"v4")]
    headers = HTTPHeaderMap(PAIRS)
    assert (
        list(headers) == list(headers.items()) == list(zip(headers.keys(), headers.values(), strict=True)) == expected
    )
    assert len(headers) == 4


def test_raw_iteration_gives_what_was_put_in() -> None:
    assert list(HTTPHeaderMap(PAIRS).iter_raw()) == PAIRS


@pytest.mark.parametrize("name", ["nothing", "", "k"])
def test_a_name_that_is_not_there_is_a_key_error(name: str) -> None:
    headers = HTTPHeaderMap(PAIRS)
    with pytest.raises(KeyError):
        headers[name]
    with pytest.raises(KeyError):
        del headers[name]


def test_get_has_a_default() -> None:
    headers = HTTPHeaderMap(PAIRS)
    assert (headers.get("k2"), headers.get("x"), headers.get("x", "hi")) == ([b"v2", b"v3", b"v4"], None, "hi")


def test_deleting_takes_all_values() -> None:
    headers = HTTPHeaderMap(PAIRS)
    del headers[b"K2"]
    assert list(headers.iter_raw()) == PAIRS[:1]


@pytest.mark.parametrize(("name", "there"), [("k1", True), (b"K1", True), ("k3", False), (5, False)])
def test_containment(name: Any, there: bool) -> None:
    assert (name in HTTPHeaderMap(PAIRS)) is there


@pytest.mark.parametrize("put", [("k", 1), (1, "v"), ("k", None), ("k", ["v"])])
def test_what_is_no_text_is_a_value_error(put: Any) -> None:
    headers = HTTPHeaderMap()
    with pytest.raises(ValueError, match="str or bytes"):
        headers[put[0]] = put[1]


def test_keywords_are_text_too() -> None:
    with pytest.raises(ValueError, match="str or bytes"):
        HTTPHeaderMap(key=1)  # type: ignore[arg-type]


def test_it_is_made_of_pairs_mappings_other_maps_and_keywords() -> None:
    made = HTTPHeaderMap(PAIRS, {"k3": "v5"}, HTTPHeaderMap(PAIRS), k4="v6")
    assert list(made.iter_raw()) == [*PAIRS, (b"k3", b"v5"), *PAIRS, (b"k4", b"v6")]


def test_merging_appends_and_keeps_the_raw_form() -> None:
    headers = HTTPHeaderMap([("hi", "there")])
    headers.merge(HTTPHeaderMap([("Hi", "there, sir")]))
    headers.merge({"cat": "dog"})
    assert list(headers.iter_raw()) == [(b"hi", b"there"), (b"Hi", b"there, sir"), (b"cat", b"dog")]


def test_merging_with_itself_does_nothing() -> None:
    headers = HTTPHeaderMap(PAIRS)
    headers.merge(headers)
    assert headers == HTTPHeaderMap(PAIRS)


def test_update_merges_all_it_gets() -> None:
    headers = HTTPHeaderMap()
    headers.update([("a", "1")], {"b": "2"}, c="3")
    assert list(headers) == [(b"a", b"1"), (b"b", b"2"), (b"c", b"3")]


def test_replacing_keeps_the_place_of_the_first_value() -> None:
    headers = HTTPHeaderMap([("name", "v"), ("name2", "v2"), ("Name2", "v3"), ("name3", "v4")])
    headers.replace("NAME2", "42")
    headers.replace("name4", "new")
    assert list(headers) == [(b"name", b"v"), (b"name2", b"42"), (b"name3", b"v4"), (b"name4", b"new")]


def test_maps_are_equal_where_their_raw_forms_are() -> None:
    assert HTTPHeaderMap([("k", "v1, v2")]) == HTTPHeaderMap([("k", "v1, v2")])
    assert HTTPHeaderMap([("k", "v1, v2")]) != HTTPHeaderMap([("k", "v1"), ("k", "v2")])
    assert HTTPHeaderMap() != {}


def test_popping_and_clearing() -> None:
    headers = HTTPHeaderMap(PAIRS)
    assert headers.pop("k1") == [b"v1"]
    assert headers.pop("k1", None) is None
    assert headers.popitem() == (b"k2", b"v4")
    headers.clear()
    assert (len(headers), headers.setdefault("a", "b"), headers.setdefault("a", "c")) == (0, [b"b"], [b"b"])


@pytest.mark.parametrize("take", [lambda headers: headers.popitem(), lambda headers: headers.pop("x")])
def test_taking_from_an_empty_map_is_a_key_error(take: Any) -> None:
    with pytest.raises(KeyError):
        take(HTTPHeaderMap())


@pytest.mark.parametrize("copied", [HTTPHeaderMap.copy, copy.copy, copy.deepcopy])
def test_a_copy_lives_on_its_own(copied: Any) -> None:
    headers = HTTPHeaderMap(PAIRS)
    other = copied(headers)
    other["k3"] = "v"
    assert list(headers.iter_raw()) == PAIRS


def test_it_shows_itself_as_hyper_does() -> None:
    assert repr(HTTPHeaderMap(PAIRS[:1])) == str(HTTPHeaderMap(PAIRS[:1])) == "HTTPHeaderMap([(b'k1', b'v1')])"


def test_it_is_a_mapping_to_those_who_ask() -> None:
    assert isinstance(HTTPHeaderMap(), MutableMapping)


@pytest.mark.parametrize("given", [5, "text", [1]])
def test_what_holds_no_headers_is_a_value_error(given: Any) -> None:
    with pytest.raises(ValueError):
        HTTPHeaderMap(given)


# -- commas ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["set-cookie", "Date", "expires", "last-modified", "user-agent", "www-authenticate", "Report-To", "NEL"]
)
def test_some_fields_have_one_value_whatever_stands_in_it(name: str) -> None:
    assert HTTPHeaderMap([(name, "a, b")])[name] == [b"a, b"]


@pytest.mark.parametrize("date", ["Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Wednesday, 1"])
def test_a_date_is_not_split_in_any_field(date: str) -> None:
    assert HTTPHeaderMap([("x-at", f"{date}, {date}")])["x-at"] == [date.encode()] * 2


@pytest.mark.parametrize(
    ("value", "parts"),
    [
        ("a,b", ["a", "b"]),
        ("a , b,", ["a", "b", ""]),
        ("Sun, Moon", ["Sun", "Moon"]),
        ('"a, b", c', ['"a, b"', "c"]),
        (r'"a\", b", c', [r'"a\", b"', "c"]),
        ('a "b, c', ['a "b', "c"]),
        ("a\\, b", ["a\\", "b"]),
        ("</a,b>; rel=x, <c>", ["</a,b>; rel=x", "<c>"]),
        ('<a"b,c>, d', ['<a"b,c>', "d"]),
        ('"<", a, ">"', ['"<"', "a", '">"']),
        ("1.1 a (x, (y, z), w), 1.1 b", ["1.1 a (x, (y, z), w)", "1.1 b"]),
        (r"a (b\), c), d", [r"a (b\), c)", "d"]),
        ('a=("b),c" d, e), f', ['a=("b),c" d, e)', "f"]),
        ('a <b, "c, d"', ["a <b", '"c, d"']),
        ('a (b, "c, d"', ["a (b", '"c, d"']),
        ("a> b, c) d, e", ["a> b", "c) d", "e"]),
    ],
)
def test_a_comma_splits_where_it_stands_between_values(value: str, parts: list[str]) -> None:
    assert HTTPHeaderMap([("x", value)])["x"] == [part.encode() for part in parts]


@given(st.lists(st.text(alphabet='ab ,"\\é<>()', max_size=30), max_size=5))
def test_splitting_loses_nothing_but_blanks(values: list[str]) -> None:
    headers = HTTPHeaderMap([("x", value) for value in values])
    text = ",".join(values).encode()
    assert b",".join(headers.values()).replace(b" ", b"") == text.replace(b" ", b"")


def test_a_value_of_many_quotes_is_split_in_no_time() -> None:
    value = b'"\\' * 30_000 + b","
    assert len(HTTPHeaderMap([("x", value)])["x"]) == 2
