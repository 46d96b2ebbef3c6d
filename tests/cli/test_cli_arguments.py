"""Words and options: METHOD, URL, items, in any order, and what is refused."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from cli_support import Kit

import hyperpool
from hyperpool.cli.arguments import Command, complete_url, make_parser, read_command, split_words
from hyperpool.cli.statuses import MEANING, Status
from hyperpool.cli.words import FileProblem, UsageError
from hyperpool.values import Timeout


def command(*words: str) -> Command:
    parser = make_parser()
    return read_command(parser, parser.parse_intermixed_args(list(words)))


@pytest.mark.parametrize(
    ("words", "method", "url"),
    [
        (["a.test"], None, "a.test"),
        (["GET", "a.test"], "GET", "a.test"),
        (["get", "a.test"], "GET", "a.test"),
        (["PROPFIND", "a.test"], "PROPFIND", "a.test"),
        (["M-SEARCH", "a.test"], "M-SEARCH", "a.test"),
        (["a.test", "x=1"], None, "a.test"),
        (["localhost", "x=1"], None, "localhost"),
        (["GET"], None, "GET"),
    ],
)
def test_the_first_word_is_the_method_where_it_can_be_nothing_else(
    words: list[str], method: str | None, url: str
) -> None:
    assert split_words(words)[:2] == (method, url)


@pytest.mark.parametrize(
    ("typed", "url"),
    [
        ("https://a.test/x", "https://a.test/x"),
        ("http://a.test", "http://a.test"),
        ("HTTP://a.test", "HTTP://a.test"),
        ("a.test", "https://a.test"),
        ("a.test:8443/x?y=1", "https://a.test:8443/x?y=1"),
        ("localhost:3000", "https://localhost:3000"),
        ("://a.test", "https://a.test"),
        (":3000/users", "http://localhost:3000/users"),
        (":3000", "http://localhost:3000"),
        (":/users", "http://localhost/users"),
        (":", "http://localhost"),
    ],
)
def test_a_url_is_completed(typed: str, url: str) -> None:
    assert complete_url(typed) == url


def test_options_may_stand_anywhere() -> None:
    for words in (
        ["-v", "--h2", "PUT", "a.test", "x=1", "y=2"],
        ["PUT", "-v", "a.test", "--h2", "x=1", "y=2"],
        ["PUT", "a.test", "x=1", "-v", "y=2", "--h2"],
    ):
        made = command(*words)
        assert (made.method, made.url, made.show_request) == ("PUT", "https://a.test", True)
        assert [item.text for item in made.items.fields] == ["x=1", "y=2"]
        assert made.client_options["http1"] is False


@pytest.mark.parametrize(
    ("words", "request_", "heads", "body"),
    [
        ([], False, None, True),
        (["-v"], True, True, True),
        (["-h"], False, True, False),
        (["-b"], False, False, True),
        (["-hb"], False, True, True),
        (["-vh"], True, True, False),
        (["-vb"], True, True, True),
    ],
)
def test_what_is_shown_follows_from_v_h_and_b(words: list[str], request_: bool, heads: bool | None, body: bool) -> None:
    made = command(*words, "a.test")
    assert (made.show_request, made.show_heads, made.show_body) == (request_, heads, body)


@pytest.mark.parametrize(
    ("words", "options"),
    [
        ([], {"verify": True, "http1": True, "http2": True}),
        (["--h2"], {"verify": True, "http1": False, "http2": True}),
        (["--http1.1"], {"verify": True, "http1": True, "http2": False}),
        (["--verify=no"], {"verify": False, "http1": True, "http2": True}),
        (["--verify", "YES"], {"verify": True, "http1": True, "http2": True}),
        (["--verify", "system"], {"verify": "system", "http1": True, "http2": True}),
        (["--verify", "/"], {"verify": "/", "http1": True, "http2": True}),
        (["--cert", "/"], {"verify": True, "http1": True, "http2": True, "cert": "/"}),
        (["--cert", "/", "--cert-key", "/."], {"verify": True, "http1": True, "http2": True, "cert": ("/", "/.")}),
        (["--proxy", "http://p"], {"verify": True, "http1": True, "http2": True, "proxy": "http://p"}),
    ],
)
def test_what_says_how_to_connect_becomes_the_clients(words: list[str], options: dict[str, Any]) -> None:
    assert command(*words, "a.test").client_options == options


@pytest.mark.parametrize(("given", "limit_s"), [("2.5", 2.5), ("0", None)])
def test_the_timeout_is_for_each_phase(given: str, limit_s: float | None) -> None:
    expected = Timeout(pool=limit_s, connect=limit_s, write=limit_s, read=limit_s)
    assert command("--timeout", given, "a.test").client_options["timeout"] == expected


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ([], "a URL is missing"),
        (["--bogus", "a.test"], "unrecognized arguments: --bogus"),
        (["--verb", "a.test"], "unrecognized arguments: --verb"),
        (["--h2", "--http1.1", "a.test"], "not allowed with"),
        (["--json", "--form", "a.test"], "exclude each other"),
        (["--cert-key", "/", "a.test"], "--cert-key needs --cert"),
        (["--timeout", "soon", "a.test"], "takes seconds"),
        (["--timeout=-1", "a.test"], "takes seconds"),
        (["--timeout", "nan", "a.test"], "takes seconds"),
        (["--timeout", "inf", "a.test"], "takes seconds"),
        (["a.test", "what"], "is no request item"),
    ],
)
def test_what_makes_no_request_is_refused(words: list[str], why: str) -> None:
    with pytest.raises(UsageError, match=why):
        command(*words)


@pytest.mark.parametrize("option", ["--verify", "--cert"])
def test_a_file_that_is_not_there_is_named(option: str) -> None:
    with pytest.raises(FileProblem, match="/no/such/file does not exist"):
        command(option, "/no/such/file", "a.test")


def test_help_teaches_by_examples_and_lists_every_exit_status(kit: Kit) -> None:
    done = kit.run("--help")
    assert (done.status, done.err) == (0, "")
    assert "hyperpool example.org/users name=Ann age:=41" in done.text
    assert all(f"  {status.value:<4} {MEANING[status]}" in done.text for status in Status)


def test_version_is_one_line(kit: Kit) -> None:
    done = kit.run("--version")
    assert (done.status, done.text) == (0, f"hyperpool {hyperpool.__version__}\n")


def test_the_module_is_the_same_command(kit: Kit) -> None:
    server = kit.server()
    done = kit.run_process(server.url("/x"))
    assert (done.status, json.loads(done.out)["target"], done.err) == (0, "/x", "")


def test_the_documentation_lists_every_exit_status() -> None:
    page = (Path(__file__).parents[2] / "docs" / "cli.md").read_text("utf-8")
    rows = [line.split("|")[1].split() for line in page.splitlines() if re.match(r"\| [0-9]", line)]
    assert [int(number) for row in rows for number in row] == [status.value for status in Status]
