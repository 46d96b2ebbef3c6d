"""iter_lines: the same lines wherever the network cuts the body; beside those of requests and httpx."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest
from client_support import H1_PLAIN, Kit, Wire

from hyperpool.testing import Reply

requests = pytest.importorskip("requests")
httpx = pytest.importorskip("httpx")

UTF8 = (("content-type", "text/plain; charset=utf-8"),)


def cut(body: bytes, n: int) -> Iterator[bytes]:
    return (body[at : at + n] for at in range(0, len(body), n))


def lines_of(kit: Kit, body: bytes, n: int, wire: Wire = H1_PLAIN, *arguments: Any) -> list[str]:
    """The lines of a streamed response whose chunks have n bytes each."""
    server, client = kit.pair(wire, lambda request: Reply(200, UTF8, cut(body, n)))
    with client.stream("GET", server.url()) as response:
        return list(response.iter_lines(*arguments))


BODIES = {
    "windows": b"one\r\ntwo\r\n\r\nfour\r\n",
    "unix": b"one\ntwo\n\nfour\n",
    "old mac": b"one\rtwo\r\rfour\r",
    "mixed": b"a\r\nb\nc\rd\n\re\r\r\nf",
    "without an end": b"one\r\ntwo",
    "ends in half an end": b"one\r\ntwo\r",
    "only ends": b"\r\n\r\n\n\r",
    "letters of several bytes": "grün\r\n☃☃\n\U0001f600\r".encode(),
    "nothing": b"",
}


@pytest.mark.parametrize("n", [1, 2, 3, 7])
@pytest.mark.parametrize("name", BODIES)
def test_lines_do_not_depend_on_where_the_body_is_cut(kit: Kit, wire: Wire, name: str, n: int) -> None:
    assert lines_of(kit, BODIES[name], n, wire) == [line.decode() for line in BODIES[name].splitlines()]


@pytest.mark.parametrize("name", BODIES)
def test_lines_are_those_of_requests_where_nothing_is_cut(kit: Kit, name: str) -> None:
    """Of its bytes, which is what its iter_lines gives unless it is told otherwise."""
    server, client = kit.pair(H1_PLAIN, lambda request: Reply(200, UTF8, BODIES[name]))
    with requests.Session() as session:
        session.trust_env = False
        theirs = [line.decode() for line in session.get(server.url()).iter_lines()]
    assert list(client.get(server.url()).iter_lines()) == theirs


@pytest.mark.parametrize("name", BODIES)
def test_lines_are_those_of_httpx(kit: Kit, name: str) -> None:
    server, client = kit.pair(H1_PLAIN, lambda request: Reply(200, UTF8, cut(BODIES[name], 2)))
    with httpx.Client(trust_env=False) as other:
        theirs = list(other.get(server.url()).iter_lines())
    assert list(client.get(server.url()).iter_lines()) == theirs


# What str.splitlines takes for the end of a line, and JSON, CSV and server-sent events do not.
NO_ENDS = "\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"


@pytest.mark.parametrize("n", [1, 100])
def test_only_lf_cr_and_crlf_end_a_line(kit: Kit, wire: Wire, n: int) -> None:
    """httpx ends lines at these too, and so tears JSON in two whose strings have them in it (RFC 8259 7)."""
    records = [f'{{"{end}": "{end}"}}' for end in NO_ENDS]
    assert lines_of(kit, "\n".join(records).encode(), n, wire) == records


def test_httpx_and_requests_with_unicode_do_end_lines_there(kit: Kit) -> None:
    """Why the line above is worth saying; a change of theirs is to be noticed."""
    server = kit.server(H1_PLAIN, lambda request: Reply(200, UTF8, "a\u2028b"))
    with httpx.Client(trust_env=False) as other, requests.Session() as session:
        session.trust_env = False
        assert list(other.get(server.url()).iter_lines()) == ["a", "b"]
        assert list(session.get(server.url()).iter_lines(decode_unicode=True)) == ["a", "b"]


@pytest.mark.parametrize(("n", "delimiter"), list(itertools.product([1, 2, 5], ["|", "||", "\r\n", "☃"])))
def test_a_delimiter_may_be_cut_as_well(kit: Kit, wire: Wire, n: int, delimiter: str) -> None:
    body = delimiter.join(["one", "", "two\nlines", "☃" if delimiter != "☃" else "|", "last"]) + delimiter
    wanted = body.split(delimiter)[:-1]
    assert lines_of(kit, body.encode(), n, wire, delimiter) == wanted


@pytest.mark.parametrize("body", ["one|two|three", "one|two|", "|one", "one"])
def test_a_delimiter_gives_what_requests_gives_where_nothing_is_cut(kit: Kit, body: str) -> None:
    server, client = kit.pair(H1_PLAIN, lambda request: Reply(200, UTF8, body))
    with requests.Session() as session:
        session.trust_env = False
        theirs = list(session.get(server.url()).iter_lines(decode_unicode=True, delimiter="|"))
    # One difference: requests gives an empty line after the last delimiter.
    assert list(client.get(server.url()).iter_lines("|")) == (theirs[:-1] if theirs[-1] == "" else theirs)


def test_a_line_is_given_as_soon_as_it_is_whole(kit: Kit, wire: Wire) -> None:
    gate = kit.gate()

    def body() -> Iterator[bytes]:
        yield b"data: 1\n\ndata:"
        gate.wait(30)
        yield b" 2\n\n"

    server, client = kit.pair(wire, lambda request: Reply(200, UTF8, body()))
    with client.stream("GET", server.url()) as response:
        lines = response.iter_lines()
        assert [next(lines), next(lines)] == ["data: 1", ""]
        gate.set()
        assert list(lines) == ["data: 2", ""]
