"""Timeout, Limits, TlsSettings, Route, Request: what is accepted, and what is refused at the door."""

from __future__ import annotations

import dataclasses
import inspect
import pickle
from typing import Any

import pytest
import urllib3
import urllib3.util

from hyperpool.urls import Origin, parse_url
from hyperpool.values import Limits, Request, Route, Timeout, TlsSettings, as_timeout


def test_a_route_tells_trust_and_versions_apart() -> None:
    """Two ways of trusting never share a connection."""
    origin = Origin("https", "a.test", 443)
    routes = {
        Route(origin, TlsSettings()),
        Route(origin, TlsSettings(verify=False)),
        Route(origin, TlsSettings(), http2=False),
        Route(origin, TlsSettings()),
    }
    assert len(routes) == 3


@pytest.mark.parametrize(
    "value",
    [
        Origin("https", "a.test", 443),
        parse_url("https://a.test/"),
        Timeout(1),
        Limits(),
        Request("GET", "https://a.test/"),
        TlsSettings(),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_value_is_frozen_and_can_be_pickled(value: Any) -> None:
    assert pickle.loads(pickle.dumps(value)) == value
    first = value._fields[0] if isinstance(value, tuple) else dataclasses.fields(value)[0].name
    with pytest.raises(AttributeError):  # FrozenInstanceError is one
        setattr(value, first, None)


class TestTimeouts:
    def test_the_defaults_are_the_documented_ones(self) -> None:
        assert Timeout() == Timeout(None, pool=30, connect=10, write=30, read=60)

    @pytest.mark.parametrize(
        ("given_", "meant"),
        [
            (None, Timeout(pool=None, connect=None, write=None, read=None)),
            (5, Timeout(5)),
            (2.5, Timeout(2.5)),
            (0, Timeout(0)),
            ((3, 7), Timeout(connect=3, read=7)),
            ((None, 7.5), Timeout(connect=None, read=7.5)),
            (Timeout(read=1), Timeout(read=1)),
            (urllib3.Timeout(9), Timeout(9)),
            (urllib3.Timeout(connect=3, read=7), Timeout(connect=3, read=7)),
            (urllib3.Timeout(total=9, connect=None, read=None), Timeout(9, connect=None, read=None)),
            (urllib3.Timeout(), Timeout()),
        ],
    )
    def test_it_is_read_in_the_forms_that_people_know(self, given_: Any, meant: Timeout) -> None:
        assert as_timeout(given_) == meant

    def test_a_subclass_of_urllib3s_is_read_as_well(self) -> None:
        class Patient(urllib3.Timeout):
            pass

        assert as_timeout(Patient(9)) == Timeout(9)

    @pytest.mark.parametrize(
        "given_", ["5", (1,), (1, 2, 3), [1, 2], object(), True, ("1", "2"), urllib3.util.Retry(3), {"total": 1}]
    )
    def test_anything_else_is_refused(self, given_: Any) -> None:
        with pytest.raises(TypeError):
            as_timeout(given_)

    @pytest.mark.parametrize("phase", ["total", "pool", "connect", "write", "read"])
    @pytest.mark.parametrize("seconds", [-1, -0.001, float("nan"), float("inf"), 10**400])
    def test_a_phase_lasts_no_less_than_nothing_and_no_longer_than_a_number(self, phase: str, seconds: float) -> None:
        with pytest.raises(ValueError, match=f"Timeout.{phase}"):
            Timeout(**{phase: seconds})

    @pytest.mark.parametrize("phase", ["total", "pool", "connect", "write", "read"])
    @pytest.mark.parametrize("seconds", ["1", True, 1j])
    def test_a_phase_is_a_number_of_seconds(self, phase: str, seconds: Any) -> None:
        with pytest.raises(TypeError, match=f"Timeout.{phase}"):
            Timeout(**{phase: seconds})


class TestRequests:
    @pytest.mark.parametrize("given_", [0.5, None, (1, 2), urllib3.Timeout(3), Timeout(4)], ids=repr)
    def test_a_timeout_is_read_in_the_forms_that_people_know(self, given_: Any) -> None:
        request = Request("GET", "https://a.test/", timeout=given_)
        assert request.timeout == as_timeout(given_)
        assert dataclasses.replace(request, timeout=given_) == request

    @pytest.mark.parametrize(
        "given_", [{"A": "1", "B": "2"}, [("A", "1"), ("B", "2")], (("A", "1"), ("B", "2"))], ids=repr
    )
    def test_headers_are_kept_as_pairs(self, given_: Any) -> None:
        assert Request("GET", "https://a.test/", given_).headers == (("A", "1"), ("B", "2"))

    def test_without_headers_there_are_none(self) -> None:
        assert Request("GET", "https://a.test/", None).headers == Request("GET", "https://a.test/").headers == ()

    @pytest.mark.parametrize("headers", ["A: 1", b"A: 1", 1])
    def test_headers_that_are_none_are_refused(self, headers: Any) -> None:
        with pytest.raises(TypeError, match="headers must be a mapping or"):
            Request("GET", "https://a.test/", headers)

    def test_a_timeout_that_is_none_is_refused(self) -> None:
        with pytest.raises(TypeError, match="timeout must be seconds"):
            Request("GET", "https://a.test/", timeout="1")

    def test_it_is_equal_to_one_of_the_same_parts(self) -> None:
        one, bare = Request("GET", "https://a.test/", (), b"x", Timeout(1), "*"), Request("GET", "https://a.test/")
        assert dataclasses.replace(bare, content=b"x", timeout=Timeout(1), target="*") == one
        assert (one.content, one.timeout, one.target) == (b"x", Timeout(1), "*")
        assert (bare.content, bare.timeout, bare.target) == (None, Timeout(), None)


def test_certificate_and_key_may_come_as_a_list() -> None:
    """Settings are part of the key by which connections are found."""
    settings_ = TlsSettings(cert=["cert", "key"])
    assert settings_ == TlsSettings(cert=("cert", "key")) and hash(settings_) == hash(TlsSettings(cert=("cert", "key")))


NUMBERS = [limit.name for limit in dataclasses.fields(Limits)]
OPTIONAL = ["max_stream_window_bytes", "ping_after_s", "min_body_rate", "max_decoded_bytes"]
WHOLE = [limit.name for limit in dataclasses.fields(Limits) if str(limit.type).startswith("int")]


class TestLimits:
    @pytest.mark.parametrize("name", NUMBERS)
    @pytest.mark.parametrize("value", [0, -1])
    def test_a_limit_is_more_than_nothing(self, name: str, value: float) -> None:
        with pytest.raises(ValueError, match=f"Limits.{name}"):
            Limits(**{name: value})

    @pytest.mark.parametrize("name", sorted(set(NUMBERS) - set(WHOLE)))
    def test_a_limit_in_seconds_is_a_number(self, name: str) -> None:
        with pytest.raises(ValueError, match=f"Limits.{name}"):
            Limits(**{name: float("nan")})

    @pytest.mark.parametrize("name", OPTIONAL)
    def test_some_limits_may_be_left_out(self, name: str) -> None:
        assert getattr(Limits(**{name: None}), name) is None

    @pytest.mark.parametrize("name", sorted(set(NUMBERS) - set(OPTIONAL)))
    def test_the_others_may_not(self, name: str) -> None:
        """Else it would be the I/O thread that stumbles over None."""
        with pytest.raises(TypeError, match=f"Limits.{name}"):
            Limits(**{name: None})

    @pytest.mark.parametrize("name", WHOLE)
    def test_counts_and_sizes_are_whole_numbers(self, name: str) -> None:
        """Else it would be the I/O thread, when h2 packs 1e6 into a SETTINGS frame."""
        with pytest.raises(TypeError, match=f"Limits.{name}"):
            Limits(**{name: 1e6})

    @pytest.mark.parametrize("name", ["stream_window_bytes", "connection_window_bytes"])
    @pytest.mark.parametrize("value", [65_534, 2**31])
    def test_a_window_is_one_that_http2_can_have(self, name: str, value: int) -> None:
        """RFC 9113 6.9.2."""
        with pytest.raises(ValueError, match=f"Limits.{name}"):
            Limits(**{name: value})

    @pytest.mark.parametrize("name", ["stream_window_bytes", "connection_window_bytes"])
    @pytest.mark.parametrize("value", [65_535, 2**31 - 1])
    def test_the_smallest_and_the_largest_window_are_allowed(self, name: str, value: int) -> None:
        assert getattr(Limits(**{name: value}), name) == value

    def test_a_bound_for_heads_is_one_that_settings_can_carry(self) -> None:
        """RFC 9113 6.5.1. Else it would be the I/O thread, when h2 packs it into a SETTINGS frame."""
        assert Limits(max_header_bytes=2**32 - 1).max_header_bytes == 2**32 - 1
        with pytest.raises(ValueError, match=r"Limits.max_header_bytes must be at most 2\*\*32-1"):
            Limits(max_header_bytes=2**32)

    @pytest.mark.parametrize("name", NUMBERS)
    def test_every_limit_is_documented(self, name: str) -> None:
        # From Python 3.13 on the compiler strips the indentation.
        assert f"\n{name}: " in inspect.cleandoc(Limits.__doc__ or "")
