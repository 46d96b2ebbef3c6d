"""What is shown: bytes into a pipe, text on a terminal, heads as they came, errors on one line."""

from __future__ import annotations

import gzip
import io
import json
import re
import sys
from typing import Any

import pytest
from cli_support import Kit, seen_of

from hyperpool import process
from hyperpool.cli import main
from hyperpool.cli.layout import is_json_type, laid_out, lexer_of
from hyperpool.cli.output import is_binary
from hyperpool.cli.stats import Clock
from hyperpool.testing import Reply, Request, pattern

JSON = (("content-type", "application/json"),)


def answering(*fields: tuple[str, str], body: bytes = b"", **more: Any) -> Any:
    """A handler that always answers so."""
    return lambda request: Reply(200, fields, body, **more)


class TestPipe:
    def test_it_gets_the_bytes_of_the_body_and_nothing_else(self, kit: Kit) -> None:
        done = kit.run(kit.server().url("/bytes/300000"))
        assert (done.out, done.err) == (pattern(300_000), "")

    def test_json_is_not_laid_out(self, kit: Kit) -> None:
        assert kit.run(kit.server(answering(*JSON, body=b'{"a":1}')).url("/")).out == b'{"a":1}'

    def test_a_charset_is_not_changed(self, kit: Kit) -> None:
        server = kit.server(answering(("content-type", "text/plain; charset=latin-1"), body=b"\xe9"))
        assert kit.run(server.url("/")).out == b"\xe9"

    def test_content_coding_is_undone(self, kit: Kit) -> None:
        server = kit.server(answering(("content-encoding", "gzip"), body=gzip.compress(b"text")))
        assert kit.run(server.url("/")).out == b"text"

    def test_an_object_in_the_place_of_standard_output_gets_text(
        self, kit: Kit, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sys, "stdout", io.StringIO())
        assert main(["--verify", kit.ca, kit.server(answering(body=b"text")).url("/")]) == 0
        assert sys.stdout.getvalue() == "text"  # type: ignore[attr-defined]


class TestHeads:
    def test_headers_shows_the_response_head_only(self, kit: Kit) -> None:
        done = kit.run("-h", kit.server(answering(("x-a", "1"), ("x-a", "2"), body=b"text")).url("/"))
        assert done.text == "HTTP/2 200\nx-a: 1\nx-a: 2\ncontent-length: 4\n\n"

    def test_http1_has_its_reason_phrase(self, kit: Kit) -> None:
        done = kit.run("-h", "--http1.1", kit.server(answering(("X-A", "1"))).url("/"))
        assert done.text.startswith("HTTP/1.1 200 OK\nx-a: 1\n")

    def test_a_body_that_is_not_wanted_is_not_waited_for(self, kit: Kit) -> None:
        """The stream is reset; /slow would never end."""
        server = kit.server(lambda request: Reply(200, (), iter_for_ever()))
        assert kit.run("-h", server.url("/")).status == 0

    def test_verbose_shows_the_request_as_it_was_sent(self, kit: Kit) -> None:
        server = kit.server(seen_of)
        done = kit.run("-v", "PUT", server.url("/x?y=1"), "User-Agent:x", "Accept-Encoding:", "a=1")
        request, body, response, answer = done.text.split("\n\n", 3)
        assert request.splitlines() == [
            "PUT /x?y=1 HTTP/2",
            f":authority: localhost:{server.port}",
            "content-type: application/json",
            "accept: application/json, */*;q=0.5",
            "user-agent: x",
            "content-length: 10",
        ]
        assert (body, response.splitlines()[0]) == ('{"a": "1"}', "HTTP/2 200")
        assert sorted(json.loads(answer)["headers"]) == sorted(line.split(": ", 1) for line in request.splitlines()[2:])

    def test_verbose_shows_http1_as_it_was_sent(self, kit: Kit) -> None:
        server = kit.server(seen_of)
        done = kit.run("-v", "--http1.1", server.url("/x"), "User-Agent:x", "Accept-Encoding:", "Accept:")
        assert done.text.startswith(
            f"GET /x HTTP/1.1\nHost: localhost:{server.port}\nUser-Agent: x\n\nHTTP/1.1 200 OK\n"
        )

    def test_heads_without_bodies(self, kit: Kit) -> None:
        done = kit.run("-vh", kit.server(answering(body=b"text")).url("/"), "a=1")
        assert ("POST / HTTP/2" in done.text, "HTTP/2 200" in done.text) == (True, True)
        assert ('"a"' in done.text, "text" in done.text) == (False, False)

    def test_verbose_shows_trailers(self, kit: Kit) -> None:
        done = kit.run("-v", kit.server().url("/trailers"))
        assert "trailers follow\nx-sha256: " in done.text

    def test_controls_in_a_head_are_made_visible(self, kit: Kit) -> None:
        """C1 controls move the cursor of some terminals."""
        done = kit.run("-h", kit.server(answering(("x-a", "a\x9b2Jb"))).url("/"))
        assert "x-a: a\\x9b2Jb\n" in done.text


def iter_for_ever() -> Any:
    while True:
        yield b"x" * 1000


class TestErrors:
    def test_an_error_is_one_line(self, kit: Kit) -> None:
        done = kit.run("https://no-such-host.invalid/")
        assert done.err.startswith("hyperpool: host name 'no-such-host.invalid' cannot be resolved")
        assert (done.err.count("\n"), done.out) == (1, b"")

    def test_it_names_options_and_not_arguments_of_python(self, kit: Kit) -> None:
        done = kit.run("--verify=yes", kit.server().url("/"))
        assert ("--verify" in done.err, "verify=" in done.err) == (True, False)

    def test_debug_shows_the_traceback_as_well(self, kit: Kit) -> None:
        done = kit.run("--debug", "https://no-such-host.invalid/")
        assert done.err.startswith("Traceback")
        assert done.err.splitlines()[-1].startswith("hyperpool: host name")

    def test_a_fault_of_ours_is_one_line_too(self, kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(*args: Any) -> Any:
            raise LookupError("a bug")

        monkeypatch.setattr("hyperpool.cli.run.read_command", fail)
        done = kit.run("a.test")
        assert (done.status, done.err) == (1, "hyperpool: LookupError: a bug\n")


class TestDebug:
    def test_frames_are_shown_on_standard_error(self, kit: Kit) -> None:
        done = kit.run("--debug", kit.server(answering(body=b"text")).url("/"))
        frames = [line.split("hyperpool.frames: ")[1].split(" ", 2)[1:] for line in done.err.splitlines()]
        assert ["->", "connection preface"] in frames
        assert ["<-", "DATA stream=1 length=4 END_STREAM"] in frames
        assert done.out == b"text"

    def test_http1_shows_its_first_lines(self, kit: Kit) -> None:
        server = kit.server(tls=False)
        done = kit.run("--debug", server.url("/x"))
        assert f"-> GET {server.url('/x')} HTTP/1.1" in done.err
        assert "<- HTTP/1.1 200" in done.err

    def test_the_next_run_without_it_is_silent(self, kit: Kit) -> None:
        server = kit.server()
        kit.run("--debug", server.url("/"))
        assert kit.run(server.url("/")).err == ""


class TestStats:
    def test_the_table_is_on_standard_error(self, kit: Kit) -> None:
        server = kit.server()
        done = kit.run("--stats", server.url("/bytes/12345"))
        rows = dict(line.split(maxsplit=1) for line in done.err.splitlines())
        assert (rows["version"], rows["status"], rows["resent"]) == ("HTTP/2", "200", "0")
        assert rows["body"].endswith("s, 12,345 bytes")
        assert rows["pool"] == f"{server.origin}: 1 connection, 1 request"
        phases = re.sub(r"[0-9.]+ s", "? s", rows["connected"].removeprefix(f"{server.origin}: "))
        assert phases == "dns ? s, tcp ? s, tls ? s (TLSv1.3)"
        assert done.out == pattern(12_345)

    @pytest.mark.parametrize("tls", [False, True])
    def test_what_is_imported_is_imported_before_the_clock_runs(
        self, kit: Kit, monkeypatch: pytest.MonkeyPatch, tls: bool
    ) -> None:
        loaded: set[str] = set()
        at_begin: list[set[str]] = []
        begin = Clock.begin
        monkeypatch.setattr(process, "_loaded", loaded)
        monkeypatch.setattr(Clock, "begin", lambda clock: at_begin.append(set(loaded)) or begin(clock))
        assert kit.run("--stats", kit.server(tls=tls).url("/")).status == 0
        assert at_begin[-1] == loaded == ({"requests", "TLS"} if tls else {"requests"})

    def test_a_coded_body_is_called_so(self, kit: Kit) -> None:
        assert "10,000 bytes (sent as gzip)" in kit.run("--stats", kit.server().url("/gzip")).err

    def test_a_body_that_was_not_wanted_is_called_so(self, kit: Kit) -> None:
        assert "not read" in kit.run("--stats", "-h", kit.server().url("/bytes/5")).err

    def test_resends_are_counted_with_their_reasons(self, kit: Kit) -> None:
        from hyperpool.testing import Refuse

        refused: list[Request] = []

        def handler(request: Request) -> Any:
            refused.append(request)
            return Refuse() if len(refused) == 1 else "served"

        done = kit.run("--stats", kit.server(handler).url("/"))
        row = next(line for line in done.err.splitlines() if line.startswith("resent"))
        assert (row.split()[1], "after 0." in row) == ("1:", True)


class TestLayout:
    @pytest.mark.parametrize(
        ("given", "shown"),
        [
            ('{"a":1}', '{\n  "a": 1\n}'),
            ('{"a": [1, 2], "b": {}}', '{\n  "a": [\n    1,\n    2\n  ],\n  "b": {}\n}'),
            ("[]", "[]"),
            ('[{"a":null},[]]', '[\n  {\n    "a": null\n  },\n  []\n]'),
            ('"a"', '"a"'),
            (" 1.10 ", "1.10"),
            ('{"a":1,"a":2}', '{\n  "a": 1,\n  "a": 2\n}'),
            ("12345678901234567890.123456789", "12345678901234567890.123456789"),
            (r'"a\"[{,:}]\\"', r'"a\"[{,:}]\\"'),
            (r'"\u00e9 \ud83d\ude00"', '"é 😀"'),
            (r'"\u001b \u0022 \u005c \n \ud83d \\u00e9"', r'"\u001b \u0022 \u005c \n \ud83d \\u00e9"'),
            ("no json", "no json"),
            ("", ""),
        ],
    )
    def test_json_is_laid_out_and_nothing_of_it_is_changed(self, given: str, shown: str) -> None:
        assert laid_out(given) == shown

    def test_json_that_is_too_deep_is_left_as_it_is(self) -> None:
        deep = "[" * 100_000 + "]" * 100_000
        assert laid_out(deep) == deep

    @pytest.mark.parametrize(
        ("content_type", "expected"),
        [
            ("application/json", True),
            ("application/problem+json; charset=utf-8", True),
            ("Text/JSON", True),
            ("application/x-ndjson", False),
            ("text/plain", False),
            ("", False),
        ],
    )
    def test_json_is_known_by_its_type(self, content_type: str, expected: bool) -> None:
        assert is_json_type(content_type) is expected

    @pytest.mark.parametrize(
        ("content_type", "lexer"),
        [
            ("application/json", "json"),
            ("text/html; charset=utf-8", "html"),
            ("image/svg+xml", "xml"),
            ("text/javascript", "javascript"),
            ("text/plain", None),
            ("", None),
        ],
    )
    def test_the_language_follows_from_the_type(self, content_type: str, lexer: str | None) -> None:
        assert lexer_of(content_type) == lexer

    @pytest.mark.parametrize(
        ("begun", "content_type", "charset", "expected"),
        [
            (b"text", "", "utf-8", False),
            ("é".encode(), "application/octet-stream", "utf-8", False),
            ("é".encode()[:1], "", "utf-8", False),  # the rest of the letter comes with the next piece
            (b"\xe9!", "", "utf-8", True),
            (b"\xe9!", "text/plain", "utf-8", False),
            (b"\xe9!", "", "latin-1", False),
            (b"a\0", "text/plain", "utf-8", True),
            (b"a\0", "text/plain", "UTF_16", False),
            (b"text", "", "no-such-charset", True),
            (b"text", "text/plain", "no-such-charset", False),
            (b"", "", "utf-8", False),
        ],
    )
    def test_what_is_no_text_is_binary(self, begun: bytes, content_type: str, charset: str, expected: bool) -> None:
        assert is_binary(begun, content_type, charset) is expected
