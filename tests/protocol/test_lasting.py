"""Header fields that go with every request: remembered, they say what they would say if they were looked at anew."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperpool.errors import LocalProtocolError
from hyperpool.protocol.fields import head_fields_for_h2, prepare_head
from hyperpool.protocol.h1_codec import H1Codec
from hyperpool.protocol.lasting import LastingFields, passed_before
from hyperpool.urls import parse_url
from hyperpool.values import LastingHeaders, Request, RequestHead

PLAIN = (("User-Agent", "x/1"), ("Accept", "*/*"), ("Authorization", "Bearer hunter2"), ("Cookie", ""))

_NAMES = st.sampled_from(
    [
        "Accept",
        "X-A",
        "Host",
        "Connection",
        "TE",
        "Expect",
        "Content-Length",
        "Transfer-Encoding",
        "Keep-Alive",
        "Cookie",
    ]
)
_VALUES = st.sampled_from(["", "a.test", "close", "trailers", "100-continue", "3", "chunked", " b ", "\x00", "é", "€"])


def outcome(
    headers: Any, *, method: str = "GET", url: str = "https://a.test/x", body: int | None = 0
) -> RequestHead | str:
    try:
        return prepare_head(method=method, url=parse_url(url), headers=headers, body_bytes=body)
    except LocalProtocolError as error:
        return f"{error.origin} {error}"


def head(headers: Any) -> RequestHead:
    made = outcome(headers)
    assert isinstance(made, RequestHead)
    return made


def as_http1(made: RequestHead) -> bytes:
    codec = H1Codec()
    codec.open(made, end=True)
    return bytes(codec.data_to_send())


@given(
    st.lists(st.tuples(_NAMES, _VALUES), max_size=4),
    st.sampled_from(["GET", "HEAD", "POST", "GE T"]),
    st.sampled_from([0, 3, None]),
)
def test_each_time_the_head_and_the_refusal_are_those_of_fields_that_do_not_last(
    pairs: list[tuple[str, str]], method: str, body: int | None
) -> None:
    lasting, anew = LastingHeaders(pairs), outcome(tuple(pairs), method=method, body=body)
    for _ in range(3):
        assert outcome(lasting, method=method, body=body) == anew


@given(st.lists(st.tuples(st.sampled_from(["Accept", "X-A", "Cookie", "Authorization"]), st.text("ab", max_size=30))))
def test_each_time_both_versions_write_what_they_write_of_fields_that_do_not_last(pairs: list[tuple[str, str]]) -> None:
    lasting, anew = LastingHeaders(pairs), head(tuple(pairs))
    for _ in range(3):
        again = head(lasting)
        assert as_http1(again) == as_http1(anew)
        assert head_fields_for_h2(again) == head_fields_for_h2(anew)
        assert list(map(type, head_fields_for_h2(again))) == list(map(type, head_fields_for_h2(anew)))


def test_they_are_judged_once_and_written_once_for_each_version() -> None:
    lasting = LastingHeaders(PLAIN)
    first, second = head(lasting), head(lasting)
    assert first.fields is second.fields is passed_before(lasting)
    for made in (first, second):
        as_http1(made)
        head_fields_for_h2(made)
    assert isinstance(first.fields, LastingFields)
    assert list(first.fields.written.values()) == [
        b"User-Agent: x/1\r\nAccept: */*\r\nAuthorization: Bearer hunter2\r\nCookie: \r\n\r\n",
        [(b"user-agent", b"x/1"), (b"accept", b"*/*"), (b"authorization", b"Bearer hunter2")],
    ]


def test_what_is_given_for_one_request_is_remembered_nowhere() -> None:
    made = head(PLAIN)
    assert not isinstance(made.fields, LastingFields) and head(PLAIN).fields is not made.fields


def test_fields_that_say_how_a_message_is_framed_are_looked_at_each_time() -> None:
    assert not passed_before(LastingHeaders((("Host", "b.test"), *PLAIN)))


def test_a_value_that_cannot_be_sent_is_refused_each_time() -> None:
    lasting = LastingHeaders((("X-A", "a\nb"),))
    for _ in range(2):
        with pytest.raises(LocalProtocolError, match="X-A"):
            passed_before(lasting)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda given: pickle.loads(pickle.dumps(given))])
def test_a_copy_remembers_nothing(copied: Any) -> None:
    lasting = LastingHeaders(PLAIN)
    head_fields_for_h2(head(lasting))
    again = copied(Request("GET", "https://a.test", lasting)).headers
    assert again == PLAIN and again.__class__ is LastingHeaders and again.passed is None
