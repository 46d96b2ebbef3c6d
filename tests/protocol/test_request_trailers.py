"""Request trailers and expectations in both codecs, and the rules for them (RFC 9110 6.5, 10.1.1)."""

from __future__ import annotations

from typing import Any

import h2.config
import h2.connection
import h2.events
import pytest

from hyperpool.errors import LocalProtocolError
from hyperpool.protocol.events import RequestHead
from hyperpool.protocol.fields import prepare_head, prepare_trailers
from hyperpool.protocol.h1_codec import H1Codec
from hyperpool.protocol.h2_codec import H2Codec
from hyperpool.urls import parse_url
from hyperpool.values import Limits

HEAD = RequestHead(b"POST", b"http", b"a.test", b"/x", (), None)


def head(*headers: tuple[str, str], body_bytes: int | None) -> RequestHead:
    return prepare_head(method="POST", url=parse_url("http://a.test/x"), headers=headers, body_bytes=body_bytes)


@pytest.mark.parametrize("data", [b"abc", b""], ids=["a body", "an empty one"])
def test_http1_sends_trailers_behind_the_last_chunk(data: bytes) -> None:
    codec = H1Codec()
    number = codec.open(HEAD, end=False)
    codec.send(number, data, end=False)
    codec.trail(number, [(b"x-a", b"1"), (b"x-b", b"2")])
    assert codec.data_to_send().endswith(b"0\r\nx-a: 1\r\nx-b: 2\r\n\r\n")


def test_http1_has_no_trailers_behind_a_declared_length() -> None:
    codec = H1Codec()
    number = codec.open(head(body_bytes=3), end=False)
    codec.send(number, b"abc", end=False)
    with pytest.raises(LocalProtocolError):
        codec.trail(number, [(b"x-a", b"1")])


@pytest.mark.parametrize("data", [b"abc", b""], ids=["a body", "an empty one"])
def test_http2_ends_the_stream_with_trailers(data: bytes) -> None:
    codec = H2Codec(Limits())
    server = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding=None))
    stream_id = codec.open(HEAD, end=False)
    if data:
        codec.send(stream_id, data, end=False)
    codec.trail(stream_id, [(b"x-a", b"1")])
    heard: list[Any] = server.receive_data(codec.data_to_send())
    [trailers] = [event for event in heard if isinstance(event, h2.events.TrailersReceived)]
    assert [tuple(field) for field in trailers.headers] == [(b"x-a", b"1")]
    assert isinstance(heard[-1], h2.events.StreamEnded)


def test_trailers_go_out_in_lower_case_and_their_order() -> None:
    given = [("X-B", "1"), (b"x-a", b"2"), ("X-B", " 3 ")]
    assert prepare_trailers(given) == [(b"x-b", b"1"), (b"x-a", b"2"), (b"x-b", b"3")]


@pytest.mark.parametrize("name", ["Host", "content-length", "TE", "Trailer", "Cookie", "Expect", "Connection"])
def test_a_field_of_the_head_is_no_trailer(name: str) -> None:
    with pytest.raises(LocalProtocolError, match=r"RFC 9110 6\.5\.1"):
        prepare_trailers([(name, "1")])


@pytest.mark.parametrize(("body_bytes", "expects"), [(3, True), (None, True), (0, False)])
@pytest.mark.parametrize("value", ["100-continue", "100-Continue"])
def test_a_body_waits_where_there_is_one(body_bytes: int | None, expects: bool, value: str) -> None:
    made = head(("Expect", value), ("X-A", "1"), body_bytes=body_bytes)
    assert made.expects_continue is expects
    assert ((b"Expect", value.encode()) in made.fields) is expects
    assert (b"X-A", b"1") in made.fields


def test_no_other_expectation_holds_a_body_back() -> None:
    made = head(("Expect", "200-ok"), body_bytes=3)
    assert not made.expects_continue and (b"Expect", b"200-ok") in made.fields
