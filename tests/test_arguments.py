"""Arguments of a wrong type: told at once, in the caller's thread, by the name of the parameter."""

from __future__ import annotations

import enum
import math
import os
import re
import socket
import ssl
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import OpenSSL.SSL
import pytest

import hyperpool
from hyperpool import Client, ConnectionPool, Limits, Request
from hyperpool.arguments import flag, seconds, whole
from hyperpool.policy.cookies import of_a_call
from hyperpool.policy.writing import body, full_url, merged, text
from hyperpool.values import TlsSettings, as_socket_options

# Nothing listens there, and nothing is to be sent.
URL = "https://localhost:1/"
THING = object()

NO_PAIRS = [5, True, 2.5, "x=y", b"x", THING, [5], ["ab"], (1, 2, 3), [("a", "b", "c")], [b"ab"], int]
NO_NUMBER = [None, True, 2.5, "5", b"5", THING, [5], math.nan]
NO_TEXT = [None, 5, b"x", THING, ["x"]]
NO_FLAG = [None, 5, -1, 2.5, "no", b"x", THING, [True]]
NO_CALLABLE = [5, "x", [print]]

CLIENT: dict[str, list[Any]] = {
    "base_url": NO_TEXT,
    "headers": [*NO_PAIRS, 0, ""],
    "params": [case for case in NO_PAIRS if not isinstance(case, (str, bytes))],
    "cookies": [*NO_PAIRS, 0, ""],
    "auth": [5, "user", ("user",), [5, 5]],
    "verify": [None, 0, 1, 5, 2.5, THING, (1, 2), [b"x"], {}, print, ssl.SSLContext, OpenSSL.SSL.Context],
    "cert": [5, True, (), ("a",), ("a", 5), ("a", "b", "c", "d"), {}, THING, ["a"]],
    "http1": NO_FLAG,
    "http2": NO_FLAG,
    "trust_env": NO_FLAG,
    "proxy": [5, b"http://p.test", THING],
    "timeout": [-1, math.nan, math.inf, True, "5", THING, (1, 2, 3), ("a", "b")],
    "limits": [5, "x", {}, Limits],
    "retries": [-1, True, "3", 2.5, THING],
    "follow_redirects": NO_FLAG,
    "max_redirects": [*NO_NUMBER, -1],
    "events": [5, "x", {"request": 5}, {"nothing": print}],
    "pool": [0, 5, "", "x", THING, Client, ConnectionPool],
    "uds": [5, b"/x", "x", ""],
    "source_address": [5, "x", "", (1, 2, 3), ("127.0.0.1",), ("127.0.0.1", "5"), ("127.0.0.1", -1), THING],
    "resolver": NO_CALLABLE,
}
REQUEST: dict[str, list[Any]] = {
    **{
        name: CLIENT[name]
        for name in ("headers", "params", "cookies", "auth", "timeout", "retries", "follow_redirects")
    },
    "stream": NO_FLAG[1:],
    "content": [5, True, 2.5, THING, [5], (b"x", THING), ["x"], {"a": 1}],
    "data": [5, True, THING, [5], [("a", "b", "c")], (b"x", 5)],
    "files": [5, True, "x", b"x", [5], ["ab"], THING, {"a": THING}],
    "json": [THING, b"x", math.nan, {"a": THING}],
    "trailers": NO_PAIRS[:-1],
    "informational": NO_CALLABLE,
    "target": NO_TEXT[1:],
}
# What an error calls it where that is not the name of the parameter alone.
CALLED = {
    "timeout": "timeout|Timeout",
    "events": "events=",
    "proxy": "proxy",
    "content": "content|body",
    "data": "data|body",
}


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with Client(trust_env=False) as client:
        yield client
        assert client.pool.stats().threads == 0  # nothing was begun


def cases(told: dict[str, list[Any]]) -> list[Any]:
    return [pytest.param(name, wrong, id=f"{name}-{at}") for name in told for at, wrong in enumerate(told[name])]


def check(name: str, wrong: Any, call: Callable[[], object]) -> None:
    """It is refused by us and not by what lies below, and the words say which parameter is meant."""
    with pytest.raises((TypeError, ValueError)) as caught:
        call()
    assert re.search(CALLED.get(name, name), str(caught.value)), caught.value
    raised_in = caught.traceback[-1].path
    assert os.path.dirname(hyperpool.__file__) in str(raised_in), f"{raised_in}: {caught.value!r}"


@pytest.mark.parametrize(("name", "wrong"), cases(CLIENT))
def test_a_client_is_not_made(name: str, wrong: Any) -> None:
    check(name, wrong, lambda: Client(**{name: wrong}))


@pytest.mark.parametrize(("name", "wrong"), cases(REQUEST))
def test_a_request_is_not_begun(client: Client, name: str, wrong: Any) -> None:
    more = {"content": b"x"} if name == "trailers" else {}
    check(name, wrong, lambda: client.submit("POST", URL, **{name: wrong}, **more))


LIMITS = list(Limits.__dataclass_fields__)


@pytest.mark.parametrize("name", LIMITS)
@pytest.mark.parametrize("wrong", [True, "x", b"5", THING, -1, 0, math.nan], ids=lambda wrong: type(wrong).__name__)
def test_limits_are_numbers(name: str, wrong: Any) -> None:
    check(f"Limits.{name}", wrong, lambda: Limits(**{name: wrong}))


OTHERS: dict[str, tuple[str, Callable[[Client, Any], object], list[Any]]] = {
    "map": ("map()", lambda client, wrong: client.map(wrong), [None, 5, "x", THING]),
    "map, bound": (
        "max_in_flight",
        lambda client, wrong: client.map([], max_in_flight=wrong),
        [*NO_NUMBER, 0],
    ),
    "map, progress": ("progress", lambda client, wrong: client.map([], progress=wrong), [5, "x", THING]),
    "download, path": ("path", lambda client, wrong: client.download(URL, wrong), [None, 5, b"x", THING]),
    "download, checksum": (
        "checksum",
        lambda client, wrong: client.download(URL, "/tmp/x", checksum=wrong),
        [5, "x", "", "sha256:x", THING],
    ),
    "prewarm": ("connections", lambda client, wrong: client.pool.prewarm(URL, wrong), [*NO_NUMBER, 0]),
    "close": (
        "grace_s",
        lambda client, wrong: Client().close(grace_s=wrong),
        [*NO_NUMBER[:2], *NO_NUMBER[3:], 10**400],
    ),
    "close, code": ("code", lambda client, wrong: client.pool.close(code=wrong), [*NO_NUMBER, -1]),
    "prewarm, origin": ("origin", lambda client, wrong: client.pool.prewarm(wrong), NO_TEXT),
    "request, method": ("method", lambda client, wrong: Request(wrong, URL), NO_TEXT),
    "request, url": ("url", lambda client, wrong: Request("GET", wrong), NO_TEXT),
    "request, target": ("target", lambda client, wrong: Request("GET", URL, target=wrong), NO_TEXT[1:]),
    "request, headers": ("headers", lambda client, wrong: Request("GET", URL, wrong), [5, "x", [5], ["ab"]]),
}
OTHER_CASES = cases({name: OTHERS[name][2] for name in OTHERS})


@pytest.mark.parametrize(("call", "wrong"), OTHER_CASES)
def test_other_calls_say_it_likewise(client: Client, call: str, wrong: Any) -> None:
    name, act, _ = OTHERS[call]
    check(re.escape(name), wrong, lambda: act(client, wrong))


def test_what_belongs_to_the_client_is_named_with_that(client: Client) -> None:
    for call in (client.submit, client.request, hyperpool.submit):
        unchecked: Any = call
        with pytest.raises(
            TypeError, match=r"^Client\.\w+\(\) has no option 'verify': .*as in Client\(verify=\.\.\.\)"
        ):
            unchecked("GET", URL, verify=False)
    with pytest.raises(TypeError, match="has no option 'verify'"):
        client.get(URL, verify=False)
    with pytest.raises(TypeError, match="it is follow_redirects here"):
        client.submit("GET", URL, allow_redirects=False)  # type: ignore[arg-type]


def test_a_pair_is_named_by_its_type_alone() -> None:
    """It may hold a password."""
    with pytest.raises(TypeError) as caught:
        Client(headers=[("Authorization", "Basic c2VjcmV0", "x")])  # type: ignore[list-item]
    assert "a tuple among them is none" in str(caught.value) and "c2Vj" not in str(caught.value)


class NumpyBool:
    """As numpy.bool_: equal to a bool, and none."""

    def __eq__(self, other: object) -> bool:
        return other is True

    def __hash__(self) -> int:
        return hash(True)


class Word(str, enum.Enum):
    """An Enum of str, as there were before StrEnum; it calls itself by its member's name."""

    JSON = "application/json"


class FarError(ValueError):
    """As pydantic's: not to be made with a message."""

    def __init__(self) -> None:
        super().__init__("made in a way of its own")


class Strange(dict[str, int]):
    def items(self) -> Any:
        raise FarError


def test_what_is_meant_is_taken() -> None:
    assert flag("x", 1) is True and flag("x", 0) is False and flag("x", NumpyBool()) is True
    assert whole("x", 3, least=3) == 3
    assert seconds("x", -0.5) == -0.5 and seconds("x", 2) == 2


def test_an_enum_of_str_is_what_it_stands_for() -> None:
    assert merged((), {"Accept": Word.JSON}) == (("Accept", "application/json"),)
    assert type(text(Word.JSON)) is str


def test_so_it_is_in_parameters_forms_and_cookies() -> None:
    named = {Word.JSON: Word.JSON, "several": [Word.JSON]}
    quoted = "application%2Fjson=application%2Fjson&several=application%2Fjson"
    assert full_url("http://a.test/", "", None, named) == f"http://a.test/?{quoted}"
    assert full_url("http://a.test/", "", None, Word.JSON) == "http://a.test/?application/json"
    assert body(None, named, None, None) == (quoted.encode(), "application/x-www-form-urlencoded")
    assert of_a_call({"a": Word.JSON}) == ((("a", "application/json"),), None)


@pytest.mark.parametrize(
    ("given", "times"),
    [({Word.JSON: b"x"}, 4), ({"f": (Word.JSON, b"x", Word.JSON, {"X-Own": Word.JSON})}, 5)],
    ids=["name", "all"],
)
def test_so_it_is_in_files(given: Any, times: int) -> None:
    made, _ = body(None, {Word.JSON: Word.JSON}, None, given)
    assert b"".join(made).count(b"application/json") == times


@pytest.mark.parametrize("files", [{}, [], (), {}.items(), iter(())], ids=lambda files: type(files).__name__)
def test_no_files_are_no_form_with_files(files: Any) -> None:
    assert body(None, {"a": "1"}, None, files) == (b"a=1", "application/x-www-form-urlencoded")


def test_an_error_of_what_is_no_json_may_have_any_shape() -> None:
    with pytest.raises(ValueError, match="json= cannot be sent: made in a way of its own") as caught:
        body(None, None, Strange(a=1), None)
    assert type(caught.value) is ValueError and isinstance(caught.value.__cause__, FarError)


def test_stream_may_be_none_as_for_requests(client: Client) -> None:
    with pytest.raises(hyperpool.ConnectError):
        client.request("GET", URL, stream=None, retries=0)


def test_what_stands_in_for_one_of_ours_is_taken() -> None:
    pool = mock.Mock(spec=ConnectionPool)
    assert Client(pool=pool).pool is pool
    context = mock.Mock(spec=ssl.SSLContext)
    assert TlsSettings(context).verify is context


@pytest.mark.parametrize("context", [ssl.create_default_context(), OpenSSL.SSL.Context(OpenSSL.SSL.TLS_CLIENT_METHOD)])
def test_contexts_of_both_libraries_are_taken_and_so_are_their_subclasses(context: Any) -> None:
    class Own(ssl.SSLContext):
        pass

    assert TlsSettings(context).verify is context
    assert TlsSettings(Own(ssl.PROTOCOL_TLS_CLIENT))


@pytest.mark.parametrize("wrong", [[5], ["abc"], [(1, 2)], [("a", 1, 1)], [(1, 1, THING)]])
def test_a_socket_option_is_three_values(wrong: Any) -> None:
    with pytest.raises(ValueError, match="socket option"):
        as_socket_options(wrong)
    assert as_socket_options([[socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1]])
