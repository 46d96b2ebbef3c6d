"""At a terminal: colours, laid out JSON, binary bodies, the progress bar, Ctrl-C."""

from __future__ import annotations

import json
import os
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from cli_support import Kit, Terminal, seen_of

from hyperpool.testing import Reply, Request, Silence, pattern
from stage import WAIT_S

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not hasattr(os, "openpty"), reason="there are no pseudo-terminals on this system"),
]

BOLD_GREEN = "\x1b[1;32m"


def finished(terminal: Terminal) -> Terminal:
    assert terminal.wait() == 0, terminal.plain
    return terminal


def answering(content_type: str, body: bytes) -> Any:
    return lambda request: Reply(200, (("content-type", content_type),), body)


class TestColours:
    def test_a_head_and_json_are_coloured(self, kit: Kit) -> None:
        terminal = finished(kit.terminal(kit.server(seen_of).url("/")))
        assert f"{BOLD_GREEN}200" in terminal.shown
        head, body = terminal.plain.split("\n\n", 1)
        assert head.startswith("HTTP/2 200\ncontent-type: application/json")
        assert body.startswith('{\n  "method": "GET",\n')
        assert json.loads(body)["target"] == "/"

    @pytest.mark.parametrize("env", [{"NO_COLOR": "1"}, {"TERM": "dumb"}], ids=lambda env: next(iter(env)))
    def test_who_wants_none_gets_none(self, kit: Kit, env: dict[str, str]) -> None:
        terminal = finished(kit.terminal(kit.server(seen_of).url("/"), env=env))
        assert ("\x1b" in terminal.shown, '{\n  "method": "GET",\n' in terminal.shown) == (False, True)

    def test_without_rich_the_same_text_is_plain(self, kit: Kit, tmp_path: Path) -> None:
        (tmp_path / "rich.py").write_text("raise ImportError('not installed')\n")
        path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
        server = kit.server(seen_of)
        terminal = finished(kit.terminal(server.url("/"), env={"PYTHONPATH": path}))
        assert ("\x1b" in terminal.shown, '{\n  "method": "GET",\n' in terminal.shown) == (False, True)
        saved = finished(kit.terminal("-o", str(tmp_path / "x"), server.url("/"), env={"PYTHONPATH": path}))
        assert "\x1b" not in saved.shown

    def test_not_a_letter_of_html_is_lost(self, kit: Kit) -> None:
        page = "<html>\n\n  <body class='é'>[bold]x[/bold]</body></html>\n\n"
        terminal = finished(kit.terminal("-b", kit.server(answering("text/html", page.encode())).url("/")))
        assert (terminal.plain, "\x1b" in terminal.shown) == (page, True)

    def test_a_long_line_is_not_broken(self, kit: Kit) -> None:
        body = json.dumps(["x" * 500]).encode()
        terminal = finished(kit.terminal("-b", kit.server(answering("application/json", body)).url("/")))
        assert '  "' + "x" * 500 + '"\n' in terminal.plain

    def test_json_that_is_none_is_shown_as_it_is(self, kit: Kit) -> None:
        terminal = finished(kit.terminal("-b", kit.server(answering("application/json", b"oops")).url("/")))
        assert terminal.plain == "oops\n"


class TestBodies:
    def test_text_ends_with_a_line_of_its_own(self, kit: Kit) -> None:
        terminal = finished(kit.terminal("-b", kit.server(answering("text/plain", b"text")).url("/")))
        assert terminal.plain == "text\n"

    def test_a_binary_body_is_named_and_not_shown(self, kit: Kit) -> None:
        terminal = finished(kit.terminal("-b", kit.server(answering("image/png", b"\x89PNG\0\0")).url("/")))
        assert terminal.plain == "[binary body: image/png, 6 bytes; -o FILE saves it, a pipe takes it]\n"

    def test_a_binary_body_can_be_asked_for(self, kit: Kit) -> None:
        terminal = finished(kit.terminal("-b", "-o", "-", kit.server(answering("x/y", b"a\0b")).url("/")))
        assert terminal.shown.endswith("a\0b")

    def test_text_is_shown_while_it_comes(self, kit: Kit) -> None:
        def handler(request: Request) -> Reply:
            return Reply(200, (("content-type", "text/plain"),), pieces())

        def pieces() -> Any:
            yield b"first "
            seen.wait(30)
            yield b"second"

        seen = threading.Event()
        terminal = kit.terminal(kit.server(handler).url("/"))
        terminal.read_until("first ")
        seen.set()
        assert finished(terminal).plain.endswith("first second\n")

    def test_json_that_is_too_large_to_be_laid_out_is_shown_whole(self, kit: Kit) -> None:
        body = json.dumps(["x" * 98] * 15_000).encode()
        terminal = finished(kit.terminal("-b", kit.server(answering("application/json", body)).url("/")))
        assert terminal.plain == body.decode() + "\n"

    def test_another_charset_is_shown_as_text(self, kit: Kit) -> None:
        server = kit.server(answering("text/plain; charset=utf-16", "é\n".encode("utf-16")))
        assert finished(kit.terminal("-b", server.url("/"))).plain == "é\n"

    def test_an_unknown_charset_is_read_as_utf_8(self, kit: Kit) -> None:
        server = kit.server(answering("text/plain; charset=hex", "é\n".encode()))
        assert finished(kit.terminal("-b", server.url("/"))).plain == "é\n"


class TestProgress:
    def test_a_download_has_a_bar(self, kit: Kit, tmp_path: Path) -> None:
        terminal = finished(kit.terminal("-o", str(tmp_path / "saved"), kit.server().url("/bytes/300000")))
        assert ("saved" in terminal.plain, "300.0/300.0 kB" in terminal.plain) == (True, True)
        assert (tmp_path / "saved").read_bytes() == pattern(300_000)

    def test_a_body_without_length_has_one_too(self, kit: Kit, tmp_path: Path) -> None:
        terminal = finished(kit.terminal("-o", str(tmp_path / "saved"), kit.server().url("/chunked/300000")))
        assert "300.0/300.0 kB" in terminal.plain


class TestCtrlC:
    def test_it_leaves_a_clean_line_and_resets_the_stream(self, kit: Kit) -> None:
        asked, gone = threading.Event(), threading.Event()

        def handler(request: Request) -> Any:
            asked.set()
            if request.wait_gone(30):
                gone.set()
            return Silence()

        terminal = kit.terminal(kit.server(handler).url("/"))
        assert asked.wait(30)
        terminal.type(b"\x03")
        assert terminal.wait() == 130
        assert terminal.plain == "^C\nhyperpool: interrupted\n"
        assert gone.wait(30)

    def test_a_download_says_what_is_left(self, kit: Kit, tmp_path: Path) -> None:
        def pieces() -> Any:
            yield b"x" * 100_000
            over.wait(30)

        over = threading.Event()
        kit.stack.callback(over.set)
        target = tmp_path / "saved"
        server = kit.server(lambda request: Reply(200, (("content-length", "200000"),), pieces()))
        kit.stack.callback(over.set)
        terminal = kit.terminal("-o", str(target), server.url("/"))
        terminal.read_until("100.0/200.0 kB")
        terminal.type(b"\x03")
        assert terminal.wait() == 130
        assert terminal.plain.endswith(f"hyperpool: interrupted; what came is in {target}.part\n")
        assert ((tmp_path / "saved.part").stat().st_size, target.exists()) == (100_000, False)


def test_a_password_that_is_not_given_is_asked_for(kit: Kit) -> None:
    terminal = kit.terminal("-a", "ann", kit.server(seen_of).url("/"))
    terminal.read_until("password of ann: ")
    terminal.type(b"secret\n")
    assert terminal.wait() == 0
    assert ("secret" in terminal.plain, "Basic YW5uOnNlY3JldA==" in terminal.plain) == (False, True)


def test_nothing_heavy_is_loaded_for_a_pipe(kit: Kit) -> None:
    """rich takes as long to import as everything else together."""
    program = "import sys; from hyperpool.cli import main; main(); print('rich' in sys.modules, file=sys.stderr)"
    import subprocess

    done = subprocess.run(
        [sys.executable, "-c", program, "--verify", kit.ca, kit.server().url("/")],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=2 * WAIT_S,
    )
    assert done.stderr.decode() == "False\n"
