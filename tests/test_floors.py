"""The floors of the house (docs/design.md): who may import whom, and what `import hyperpool` may load.

The imports are read from the source, those inside functions too: a lazy import is a dependency as well. An import for
types alone may name a later room of its own floor, never a higher floor.
"""

from __future__ import annotations

import ast
import functools
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import hyperpool
from stage import WAIT_S

PACKAGE = Path(hyperpool.__file__).parent

# Each floor is a list of groups; a room may import the groups before its own. A group with several rooms: they stand
# side by side, and none imports another. The faces of the top floor stand in order too; inside their packages there
# is none.
FLOORS: dict[str, list[tuple[str, ...]]] = {
    "ground": [("_version", "errors", "arguments"), ("urls",), ("values",), ("proxies",)],
    "F0 protocol": [
        ("protocol.events", "protocol.field_rules"),
        ("protocol.lasting",),
        ("protocol.fields",),
        ("protocol.response_fields",),
        (
            "protocol.content",
            "protocol.ledger",
            "protocol.tls_records",
            "protocol.stdlib_tls",
            "protocol.frame_guard",
            "protocol.frame_log",
            "protocol.hpack_memo",
        ),
        ("protocol.tls", "protocol.h2_machine"),
        ("protocol.h2_quick",),
        ("protocol.h2_codec", "protocol.chunk_guard", "protocol.h1_head"),
        ("protocol.h1_codec",),
    ],
    "F1 handoff": [
        ("handoff.forks", "handoff.hooks", "handoff.charset"),
        (
            "handoff.loop_thread",
            "handoff.deadlines",
            "handoff.inbox",
            "handoff.messages",
            "handoff.pieces",
            "handoff.turns",
        ),
        ("handoff.reading",),
        ("handoff.body", "handoff.futures"),
        ("handoff.source", "handoff.leash"),
        ("handoff.request_body", "handoff.response_head"),
        ("handoff.response",),
        ("handoff.exchange",),
        ("handoff.pushes",),
    ],
    "F2 engine": [
        ("engine.pauses",),
        (
            "engine.wakeup",
            "engine.timers",
            "engine.resolve",
            "engine.transport",
            "engine.waiting",
            "engine.stats",
            "engine.answers",
            "engine.liveness",
        ),
        ("engine.pyopenssl",),
        ("engine.trust", "engine.socks", "engine.race", "engine.dial_cancel"),
        ("engine.tunnel", "engine.handshakes"),
        ("engine.dial", "engine.connection", "engine.expectations"),
        ("engine.h2_uploads", "engine.h2_windows"),
        ("engine.h2_streams",),
        ("engine.dialler", "engine.http2", "engine.connections"),
        ("engine.http1",),
        ("engine.dials", "engine.settlement"),
        ("engine.announcements",),
        ("engine.greetings", "engine.reports"),
        ("engine.endings",),
        ("engine.loop",),
    ],
    "F3 pool": [("process",), ("loops",), ("pool",)],
    "F4 client": [
        ("policy.multipart", "policy.courier", "policy.progress", "policy.partial", "policy.suffixes"),
        ("policy.writing", "policy.flights"),
        ("policy.defaults", "policy.redirects", "policy.cookies", "policy.auth", "policy.retries"),
        ("policy.digest", "policy.journey"),
        ("policy.escort", "policy.download", "policy.upload"),
        ("client",),
        ("default",),
    ],
}
FACES = (
    *("testing", "headers", "window", "connection_errors", "tls", "connection_messages", "connection_calls"),
    *("connection_arguments", "connection_base", "connection", "http20", "http11", "common"),
    *("http_client", "aio", "contrib", "cli", "demo", "__main__"),
)
DOOR = "hyperpool"

PURE_MUST_NOT_IMPORT = {"socket", "threading", "select", "selectors", "asyncio", "concurrent", "queue", "subprocess"}
LOADED_ON_USE_ONLY = (
    *("OpenSSL", "h2", "h11", "hpack", "brotli", "zstandard", "urllib3", "ssl", "cryptography"),
    *("asyncio", "http", "datetime", "base64", "mimetypes", "email", "socket", "selectors"),
    *("hyperpool.protocol.events", "hyperpool.handoff.pushes"),
    *("hyperpool.policy.multipart", "hyperpool.policy.flights"),
)


@dataclass(frozen=True, slots=True)
class Import:
    """One import statement of a room."""

    room: str
    name: str
    line: int
    is_for_types: bool


def rooms() -> list[str]:
    """All modules of the package, without its name: "pool", "engine.loop"; packages without code are not rooms."""
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        if parts[-1] == "__init__":
            parts = parts[:-1]
            if not parts or not path.read_text("utf-8").strip():
                continue
        found.append(".".join(parts))
    return found


def source_of(room: str) -> Path:
    path = PACKAGE.joinpath(*room.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


@functools.cache
def imports_of(room: str) -> tuple[Import, ...]:
    tree = ast.parse(source_of(room).read_text("utf-8"))
    for_types = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and "TYPE_CHECKING" in ast.dump(block.test)
        for statement in block.body
        for node in ast.walk(statement)
    }
    return tuple(
        Import(room, name, node.lineno, id(node) in for_types)
        for node in ast.walk(tree)
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for name in _names(node, room)
    )


def _names(node: ast.Import | ast.ImportFrom, room: str) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
        return
    assert node.level == 0, f"{room}:{node.lineno}: imports are absolute"
    module = node.module or ""
    for alias in node.names:
        # `from hyperpool import errors` names a room; `from hyperpool.errors import PoolClosed` a name in one.
        full = f"{module}.{alias.name}"
        yield full if full.startswith("hyperpool.") and _is_module(full) else module


def _is_module(name: str) -> bool:
    path = PACKAGE.joinpath(*name.split(".")[1:])
    return path.is_dir() or path.with_suffix(".py").exists()


def place_of(room: str) -> tuple[int, int] | None:
    """(floor, group), None for what stands in no list."""
    if room == DOOR:
        return len(FLOORS), len(FACES)
    if (face := room.split(".")[0]) in FACES:
        return len(FLOORS), FACES.index(face)
    for floor, groups in enumerate(FLOORS.values()):
        for number, group in enumerate(groups):
            if room in group:
                return floor, number
    return None


def may_import(room: str, wanted: str, *, is_for_types: bool) -> bool:
    mine, theirs = place_of(room), place_of(wanted)
    assert mine is not None
    assert theirs is not None, f"{room} imports hyperpool.{wanted}, which has no place in FLOORS"
    if mine == theirs and mine[0] == len(FLOORS):
        return room.split(".")[0] == wanted.split(".")[0]
    return theirs[0] <= mine[0] if is_for_types else theirs < mine


def own_imports(room: str) -> list[tuple[str, Import]]:
    """What a room imports of hyperpool: the room that it names, and the statement."""
    found = [each for each in imports_of(room) if each.name.split(".")[0] == "hyperpool"]
    return [(each.name.partition(".")[2] or DOOR, each) for each in found]


@pytest.mark.parametrize("room", rooms())
def test_every_room_has_a_place(room: str) -> None:
    assert place_of(room) is not None, f"give hyperpool.{room} its place in FLOORS, and in docs/design.md"


@pytest.mark.parametrize("room", [room for room in rooms() if place_of(room)])
def test_a_room_imports_earlier_rooms_and_lower_floors_only(room: str) -> None:
    wrong = [
        f"{source_of(room)}:{each.line}: imports hyperpool.{wanted}"
        for wanted, each in own_imports(room)
        if not may_import(room, wanted, is_for_types=each.is_for_types)
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("room", [room for room in rooms() if room.startswith("protocol.")])
def test_the_pure_floor_imports_no_socket_no_thread_and_no_selector(room: str) -> None:
    roots = {each.name.split(".")[0] for each in imports_of(room) if not each.is_for_types}
    assert not roots & PURE_MUST_NOT_IMPORT


@pytest.mark.parametrize("room", [room for room in rooms() if room.startswith("testing")])
def test_the_test_kit_knows_nothing_of_the_client_that_it_judges(room: str) -> None:
    assert {wanted.split(".")[0] for wanted, _ in own_imports(room)} <= {"testing"}


def test_the_checks_see_a_wrong_import() -> None:
    assert not may_import("protocol.events", "handoff.inbox", is_for_types=False)
    assert not may_import("protocol.events", "handoff.inbox", is_for_types=True)
    assert not may_import("protocol.events", "protocol.h2_codec", is_for_types=False)
    assert may_import("protocol.events", "protocol.h2_codec", is_for_types=True)
    assert not may_import("contrib.requests", "demo", is_for_types=False)
    assert may_import("demo", "testing.server", is_for_types=False)
    assert not may_import("pool", DOOR, is_for_types=False)


def loaded_by(statement: str) -> tuple[list[str], int]:
    """The modules that are loaded, and the number of threads that run, after a statement in a fresh interpreter."""
    show = "print(json.dumps([sorted(sys.modules), threading.active_count()]))"
    program = f"import json, sys, threading; {statement}; {show}"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=2 * WAIT_S
    )
    modules, threads = json.loads(done.stdout)
    return modules, threads


def test_importing_hyperpool_loads_no_protocol_library_and_starts_no_thread() -> None:
    modules, threads = loaded_by("import hyperpool")
    assert [name for name in LOADED_ON_USE_ONLY if name in modules] == []
    assert threads == 1


def test_making_a_client_loads_no_protocol_library_and_starts_no_thread() -> None:
    modules, threads = loaded_by("import hyperpool; client = hyperpool.Client()")
    assert [name for name in LOADED_ON_USE_ONLY if name in modules] == []
    assert threads == 1
