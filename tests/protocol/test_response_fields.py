"""The rules for what servers send: statuses, the characters of fields, declared lengths, promised requests."""

from __future__ import annotations

import pytest

from hyperpool.errors import RemoteProtocolError
from hyperpool.protocol.response_fields import (
    LOWER_TOKEN,
    RESPONSE_VALUE,
    declared_bytes,
    parse_status,
    promised_request,
)
from hyperpool.urls import Origin
from hyperpool.values import Request, Timeout


class TestStatusCodes:
    @pytest.mark.parametrize("status", [100, 200, 404, 599, 600, 999])
    def test_three_digits_are_a_status(self, status: int) -> None:
        assert parse_status(b"%d" % status) == status

    @pytest.mark.parametrize("value", [b"", b"20", b"2000", b"2x0", b"099", b"000", b"+20", b" 20", b"-10", b"2\xb20"])
    def test_nothing_else_is_one(self, value: bytes) -> None:
        """M2."""
        with pytest.raises(RemoteProtocolError) as caught:
            parse_status(value)
        assert caught.value.processed == "maybe"


class TestCharacters:
    """RFC 9110 5.5, RFC 9113 8.2.1."""

    @pytest.mark.parametrize("value", [b"", b"a b", b"a=\x01", b"\xff", b"a\tb"])
    def test_what_servers_really_send_is_a_value(self, value: bytes) -> None:
        assert RESPONSE_VALUE(value)

    @pytest.mark.parametrize(
        "value", [b"\r", b"\n", b"\0", b"a\r\nb", b" a", b"a ", b"\ta", b"a\t", b" ", b"a\n", b"a\0"]
    )
    def test_what_splits_or_has_blanks_around_it_is_none(self, value: bytes) -> None:
        """M4."""
        assert not RESPONSE_VALUE(value)

    @pytest.mark.parametrize("name", [b"x", b"x-y", b"set-cookie", b"1!"])
    def test_a_lower_case_token_is_a_name(self, name: bytes) -> None:
        assert LOWER_TOKEN(name)

    @pytest.mark.parametrize("name", [b"", b"X", b"x y", b"x:", b":status", b"x\r\n", b"x\0", b"\xe9", b"x\n"])
    def test_nothing_else_is_one(self, name: bytes) -> None:
        """M4."""
        assert not LOWER_TOKEN(name)


class TestPromisedRequests:
    """RFC 9113 8.4: what a server may ask in our name."""

    ORIGIN = Origin("https", "a.test", 443)
    GET = ((b":method", b"GET"), (b":scheme", b"https"), (b":authority", b"a.test"), (b":path", b"/p?q=1"))

    def promised(self, *more: tuple[bytes, bytes], **pseudo: bytes | None) -> Request | None:
        changed: dict[bytes, bytes | None] = {
            **dict(self.GET),
            **{b":" + name.encode(): value for name, value in pseudo.items()},
        }
        block = [(name, value) for name, value in changed.items() if value is not None]
        return promised_request([*block, *more], self.ORIGIN, Timeout(7))

    @pytest.mark.parametrize("method", [b"GET", b"HEAD"])
    def test_a_safe_request_to_our_origin_is_one(self, method: bytes) -> None:
        request = self.promised((b"accept", b"text/css"), (b"x", b"\xfc"), method=method)
        assert request is not None
        assert (request.method, request.url) == (method.decode(), "https://a.test/p?q=1")
        assert request.headers == (("accept", "text/css"), ("x", "\u00fc")) and request.timeout == Timeout(7)

    @pytest.mark.parametrize("authority", [b"a.test:443", b"A.TEST", b"a.test:"])
    def test_one_origin_may_be_spelt_in_many_ways(self, authority: bytes) -> None:
        assert self.promised(authority=authority) is not None

    @pytest.mark.parametrize(
        "pseudo",
        [
            {"method": b"POST"},
            {"method": b"get"},
            {"method": b"OPTIONS"},
            {"method": None},
            {"scheme": b"http"},
            {"scheme": b"gopher"},
            {"scheme": b""},
            {"scheme": None},
            {"authority": b"b.test"},
            {"authority": b"a.test.b.test"},
            {"authority": b"a.test:8443"},
            {"authority": b"a.test:99999"},
            {"authority": b"me@a.test"},
            {"authority": b"a.test/"},
            {"authority": b"a.test#"},
            {"authority": b"a.test\\"},
            {"authority": b"\xe4.test"},
            {"authority": b""},
            {"authority": None},
            {"path": b""},
            {"path": b"*"},
            {"path": b"p"},
            {"path": b".b.test/"},
            {"path": b"/p#q"},
            {"path": b"/p q"},
            {"path": b"/\xfc"},
            {"path": None},
            {"authority": b"a.te", "path": b"st/p"},
        ],
    )
    def test_everything_else_is_none(self, pseudo: dict[str, bytes | None]) -> None:
        assert self.promised(**pseudo) is None

    def test_a_request_with_a_body_is_none(self) -> None:
        assert self.promised((b"content-length", b"5")) is None
        assert self.promised((b"content-length", b"0")) is not None


@pytest.mark.parametrize(
    ("block", "length"),
    [
        ([], None),
        ([(b"content-length", b"0")], 0),
        ([(b"x", b"1"), (b"content-length", b"1500")], 1500),
        ([(b"content-length", b"-1")], None),
        ([(b"content-length", b"many")], None),
        ([(b"content-length", b"9" * 19)], None),
    ],
)
def test_the_declared_length_is_read_where_it_is_one(block: list[tuple[bytes, bytes]], length: int | None) -> None:
    """RFC 9110 8.6."""
    assert declared_bytes(block) == length
