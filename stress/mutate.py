"""Our own guards, taken out one by one: a test must fail for each, or nothing holds the guard in place.

    python -m stress.mutate
    python -m stress.mutate --only frame_guard
    python -m stress.mutate --list

The package and its tests are copied into a folder of their own, and one place of one file is changed there: a limit
becomes endless, a check is left out. Then the tests that belong to that file run, until the first one fails. A guard
that "survived" can be removed without anybody noticing. Exit status 1 if one did, or if a place is no longer found.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# For the tests of one guard: a mutant that makes them hang is found as well.
TIMEOUT_S = 300

# Those that show what a guard must let pass take longest, and kill nothing.
_NOT = "not honest and not in_one_read"
_HTTP2 = ("tests/protocol/test_frame_guard.py", "tests/protocol/test_hostile_http2.py")
_MACHINE = (*_HTTP2, "tests/protocol/test_h2_codec.py", "tests/protocol/test_musts_rfc9113.py")
_HTTP1 = ("tests/protocol/test_hostile_http1.py", "tests/protocol/test_h1_codec.py")
_CONTENT = ("tests/protocol/test_content.py",)
_FIELDS = ("tests/protocol/test_fields.py",)
_LASTING = ("tests/protocol/test_lasting.py",)
_ANSWERS = ("tests/engine/test_loop_floods.py",)

_TESTS = {
    "frame_guard": _HTTP2,
    "h2_machine": _MACHINE,
    "h2_codec": _MACHINE,
    "chunk_guard": _HTTP1,
    "h1_codec": _HTTP1,
    "h1_head": _HTTP1,
    "content": _CONTENT,
    "fields": _FIELDS,
    "field_rules": _FIELDS,
    "lasting": _LASTING,
    "answers": _ANSWERS,
}


@dataclass(frozen=True)
class Mutant:
    """One guard and how it is taken out. Immutable. ``old`` stands once in its file."""

    room: str
    guard: str
    old: str
    new: str

    @property
    def path(self) -> Path:
        return Path("hyperpool", "engine" if self.room == "answers" else "protocol", f"{self.room}.py")


def _budgets() -> list[Mutant]:
    """Each kind of frame without its bound."""
    named = {
        "PING": "1_000, 100, per_stream=10, per_data=2",
        "PING acknowledgement": "1_000, 100, per_ping=1",
        "SETTINGS": "2_000, 10",
        "SETTINGS acknowledgement": "10, 0",
        "empty DATA": "1_000, 100, per_stream=10",
        "HEADERS": "1_000, 100, per_stream=100",
        "PUSH_PROMISE": "1_000, 100, per_stream=100",
        "RST_STREAM": "1_000, 33, per_stream=2",
        "WINDOW_UPDATE": "1_000, 100, per_stream=10, per_data=10",
        "PRIORITY": "1_000, 100, per_stream=10",
        "GOAWAY": "100, 1",
        "unknown": "1_000, 100, per_stream=10",
    }
    return [
        Mutant("frame_guard", f"a budget of {name}", f'Budget("{name}", {numbers})', f'Budget("{name}", 10**9, 0)')
        for name, numbers in named.items()
    ]


MUTANTS = (
    *_budgets(),
    Mutant("frame_guard", "the first frame", "            self._judge_first(head)\n", "            pass\n"),
    Mutant(
        "frame_guard",
        "the length of a frame",
        "if self.failure is None and length > self._max_frame_bytes:",
        "if False:",
    ),
    Mutant("frame_guard", "settings in a frame", "MAX_SETTINGS = 64", "MAX_SETTINGS = 10**6"),
    Mutant(
        "frame_guard",
        "an acknowledgement with settings",
        "if kind == _SETTINGS and acknowledges and length:",
        "if False:",
    ),
    Mutant("frame_guard", "frames of a block", "MAX_CONTINUATIONS = 63", "MAX_CONTINUATIONS = 10**6"),
    Mutant("frame_guard", "bytes of a block", "self._block_bytes > self._max_block_bytes or ", ""),
    Mutant("frame_guard", "what work earns", "MOST_TOKENS = 100_000", "MOST_TOKENS = 10**12"),
    Mutant("frame_guard", "a little at a time", "UNASKED_AT_A_TIME = 32", "UNASKED_AT_A_TIME = 10**9"),
    Mutant("frame_guard", "frames by the kilobyte", "TOKEN_BYTES = 1024", "TOKEN_BYTES = 1 << 30"),
    Mutant(
        "frame_guard",
        "padding is nothing",
        " or (bool(head[4] & _PADDED) and head[HEAD_BYTES] + 1 >= length)",
        "",
    ),
    Mutant("h2_machine", "a reset of an idle stream", "raise h2.exceptions.ProtocolError(message) from error", "pass"),
    Mutant("h2_machine", "a body cut short", "declared is not None and declared != received", "False"),
    Mutant("h2_machine", "no content with 204 and 304", 'if first.headers[0][1] in (b"204", b"304"):', "if False:"),
    Mutant("h2_machine", "a body too long", "        if too_much:\n", "        if False:\n"),
    Mutant("h2_machine", "a second end", "        if not frame.flow_controlled_length and", "        if False and"),
    Mutant(
        "h2_machine",
        "a push on a malformed stream",
        "StreamClosedBy.SEND_RST_STREAM\n        reset",
        "StreamClosedBy.RECV_END_STREAM\n        reset",
    ),
    Mutant("h2_machine", "one reset for a stream", "        return known\n", "        return False\n"),
    Mutant("h2_machine", "the code of a bad block", "h2.errors.ErrorCodes.COMPRESSION_ERROR", "1  # PROTOCOL_ERROR"),
    Mutant(
        "h2_machine",
        "heads behind a reset",
        "        if frame.stream_id in self._was_reset:\n            # It was",
        "        if False:\n            # It was",
    ),
    Mutant(
        "h2_machine",
        "DATA behind an end",
        "if frame.stream_id not in self._was_reset and self._stream_is_closed_by_end(frame.stream_id):",
        "if False:",
    ),
    Mutant("h2_machine", "resets that are remembered", "if len(self._was_reset) > MAX_RESETS_KNOWN:", "if False:"),
    Mutant("h2_codec", "no push", "codes.ENABLE_PUSH: int(push)", "codes.ENABLE_PUSH: 1"),
    Mutant("h2_codec", "no 101", "if status == 101:", "if False:"),
    Mutant(
        "h2_codec",
        "the size of a head",
        "machine.decoder.max_header_list_size = limits.max_header_bytes",
        "machine.decoder.max_header_list_size = 1 << 40",
    ),
    Mutant("h2_codec", "what h2 leaks", "except Exception as error:  # h2", "except ImportError as error:  # h2"),
    Mutant("chunk_guard", "the length of a line", "if self._room_bytes < 0:", "if False:"),
    Mutant("chunk_guard", "LF alone in trailers", 'if not line.endswith(b"\\r\\n"):', "if False:"),
    Mutant("chunk_guard", "framing in trailers", "if _FRAMING.match(line):", "if False:"),
    Mutant("chunk_guard", "16 digits", "{1,16}", "{1,99}"),
    Mutant("chunk_guard", "the grammar of extensions", '(?:" + _EXTENSION + rb")*', "(?:;.*)?"),
    Mutant(
        "h1_head", "bare line ends", "if bad := _BARE_LINE_END.search(head, max(0, before - 1)):", "if bad := None:"
    ),
    Mutant("h1_head", "the status line", "or (complete and not _STATUS_LINE.match(head)):", "or False:"),
    Mutant("h1_head", "the size of a head", "    if size > max_bytes:", "    if False:"),
    Mutant("h1_head", "lines of a head", "if end >= 0 and head.count(b", "if False and head.count(b"),
    Mutant("h1_head", "a coding beside a length", "if codings and (lengths or head", "if False and (lengths or head"),
    Mutant("h1_head", "folded framing", "if any(fold for _, fold in codings + lengths):", "if False:"),
    Mutant("h1_head", "one length", "if len(lengths) > 1 or not all(", "if not all("),
    Mutant("h1_codec", "the first byte of an answer", " and not self._head and not self._interim", ""),
    Mutant("h1_codec", "interim heads", "if self._interim > MAX_INTERIM:", "if False:"),
    Mutant("h1_codec", "bytes behind the end", "if self._machine.trailing_data[0]:", "if False:"),
    Mutant(
        "h1_codec",
        "bytes that nobody asked for",
        "        if not self._busy:\n            self._fail(",
        "        if 0:\n            self._fail(",
    ),
    Mutant("content", "stacked codings", "MAX_STACKED = 5", "MAX_STACKED = 10**6"),
    Mutant("content", "empty members", "MAX_EMPTY_MEMBERS = 1_000", "MAX_EMPTY_MEMBERS = 10**9"),
    Mutant("content", "zstd's window", "if _window_bytes(head) > ZSTD_WINDOW_BYTES:", "if False:"),
    Mutant("content", "a gzip body cut short", "if self._begun and not self._machine.eof:", "if False:"),
    Mutant("content", "a br body cut short", "if self._begun and not self._machine.is_finished():", "if False:"),
    Mutant("content", "a zstd body cut short", "if self._machine is not None or self._rest:", "if False:"),
    Mutant("fields", "methods", "if not _TOKEN(octets):", "if False:"),
    Mutant(
        "fields",
        "targets",
        "if bad := _NOT_TARGET_CHAR(target):",
        "return target.encode('latin-1', 'replace')\n    if bad := _NOT_TARGET_CHAR(target):",
    ),
    Mutant(
        "fields",
        "hosts",
        'if not AUTHORITY(authority):\n        raise refusal(f"host',
        'if False:\n        raise refusal(f"host',
    ),
    Mutant("field_rules", "names", "if bad := _NOT_TCHAR(octets):", "if bad := None:"),
    Mutant("field_rules", "pseudo-headers", 'if octets[:1] == b":":', "if False:"),
    Mutant("field_rules", "values", "if bad := _NOT_FIELD_CHAR(octets):", "if bad := None:"),
    Mutant(
        "fields",
        "a Host of an absolute target",
        "if draft.authority is not None and draft.authority.lower() != authority.lower():",
        "if False:",
    ),
    Mutant("lasting", "rules for what lasts", "octets = () if ruled else", "octets ="),
    Mutant("lasting", "no memory of one request's fields", "if headers.__class__ is not LastingHeaders:", "if False:"),
    Mutant("answers", "answers that nobody reads", "MAX_UNREAD = 4_000", "MAX_UNREAD = 10**9"),
)


class Copy:
    """A copy of the package and its tests, of which one place differs.

    Owned by the program.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        unwanted = shutil.ignore_patterns("__pycache__", ".hypothesis")
        for name in ("hyperpool", "tests", "stress"):
            shutil.copytree(ROOT / name, folder / name, ignore=unwanted)
        for name in ("pyproject.toml", "tox.ini", "setup.cfg", "pytest.ini"):
            if (ROOT / name).exists():
                shutil.copy(ROOT / name, folder)

    def passes(self, tests: tuple[str, ...]) -> bool:
        """Whether these tests pass; a time-out is a failure."""
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "-k", _NOT, *tests]
        environ = {**os.environ, "PYTHONPATH": str(self._folder), "PYTHONDONTWRITEBYTECODE": "1"}
        try:
            ended = subprocess.run(
                command, cwd=self._folder, env=environ, capture_output=True, timeout=TIMEOUT_S, check=False
            )
        except subprocess.TimeoutExpired:
            return False
        return ended.returncode == 0

    def mutated(self, mutant: Mutant) -> str:
        """What becomes of the tests: "killed", "survived", or "not found" where the place is no longer there."""
        path = self._folder / mutant.path
        whole = path.read_text()
        if whole.count(mutant.old) != 1:
            return "not found"
        try:
            path.write_text(whole.replace(mutant.old, mutant.new))
            return "survived" if self.passes(_TESTS[mutant.room]) else "killed"
        finally:
            path.write_text(whole)


def main(arguments: list[str] | None = None) -> int:
    """Exit status 0 where every mutant was killed."""
    parser = argparse.ArgumentParser(prog="python -m stress.mutate", description="Guards that are taken out.")
    parser.add_argument("--only", default="", help="guards of this file alone, such as frame_guard")
    parser.add_argument("--list", action="store_true", help="name them, and run nothing")
    options = parser.parse_args(arguments)
    mutants = [mutant for mutant in MUTANTS if options.only in mutant.room]
    if options.list:
        print("\n".join(f"{mutant.room}: {mutant.guard}" for mutant in mutants))
        return 0
    began, found = time.monotonic(), {"killed": 0, "survived": 0, "not found": 0}
    with tempfile.TemporaryDirectory(prefix="mutate-") as folder:
        copy = Copy(Path(folder))
        for room in dict.fromkeys(mutant.room for mutant in mutants):
            if not copy.passes(_TESTS[room]):
                print(f"! the tests of {room} fail without a change: nothing can be said")
                return 1
        for mutant in mutants:
            outcome = copy.mutated(mutant)
            found[outcome] += 1
            if outcome != "killed":
                print(f"! {outcome}: {mutant.room}: {mutant.guard}", flush=True)
    told = ", ".join(f"{count} {name}" for name, count in found.items())
    print(f"{len(mutants)} guards in {time.monotonic() - began:.0f} s: {told}")
    return 0 if found["killed"] == len(mutants) else 1


if __name__ == "__main__":
    sys.exit(main())
