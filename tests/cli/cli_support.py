"""What the command line's tests share: runs in this process, in one of their own, and at a terminal."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hyperpool.testing import CertificateAuthority, Reply, Request, Server

# For what takes milliseconds: a loaded machine may need much more, and nothing waits longer than it must.
WAIT_S = 45.0

# One for all tests: making a key costs more than most of them.
AUTHORITY = CertificateAuthority()
CERTIFICATE = AUTHORITY.issue("localhost", "127.0.0.1", "::1")

# Run first in the child: its terminal is standard input, so that Ctrl-C reaches it.
_TAKE_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""

_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@dataclass(frozen=True)
class Done:
    """How a run ended. Immutable."""

    status: int
    out: bytes
    err: str

    @property
    def text(self) -> str:
        return self.out.decode()


@dataclass
class Kit:
    """Servers of one test, the file with their CA, and ways to run the command line. Owned by the test's thread."""

    folder: Path
    capture: Any
    stack: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    def __post_init__(self) -> None:
        self.ca = str(self.folder / "ca.pem")
        Path(self.ca).write_bytes(AUTHORITY.ca_pem)

    def server(self, handler: Any = None, **options: Any) -> Server:
        """A running server of the test's authority; it answers with a description unless a handler is given."""
        if options.get("tls", True):
            options = {"authority": AUTHORITY, "certificate": CERTIFICATE, **options}
        return self.stack.enter_context(Server(handler, **options))

    def run(self, *words: str) -> Done:
        """Run the command line in this process, trusting the test's servers."""
        from hyperpool.cli import main

        self.capture.readouterr()
        status = main(["--verify", self.ca, *words])
        out, err = self.capture.readouterr()
        return Done(status, out, err.decode())

    def command(self, *words: str) -> list[str]:
        """The command line for a process of its own, in which warnings are errors."""
        return [sys.executable, "-W", "error", "-m", "hyperpool", "--verify", self.ca, *words]

    def spawn(self, *words: str, stdin: Any = subprocess.DEVNULL, **options: Any) -> subprocess.Popen[bytes]:
        """Start the command line in a process of its own; ended with the test."""
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
        # As most people have it: with that variable nothing would be left for the last flush of standard output.
        env = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
        child = subprocess.Popen(self.command(*words), stdin=stdin, env=env, **pipes)
        self.stack.callback(_end, child)
        return child

    def run_process(self, *words: str, body: bytes | None = None, **options: Any) -> Done:
        """Run the command line in a process of its own; ``body`` goes to its standard input."""
        child = self.spawn(*words, stdin=subprocess.DEVNULL if body is None else subprocess.PIPE, **options)
        out, err = child.communicate(body, timeout=WAIT_S)
        return Done(child.returncode, out or b"", (err or b"").decode())

    def terminal(self, *words: str, env: dict[str, str] | None = None) -> Terminal:
        """Start the command line at a terminal of its own."""
        return self.stack.enter_context(contextlib.closing(Terminal(self.command(*words), env or {})))


def _end(child: subprocess.Popen[bytes]) -> None:
    if child.poll() is None:
        child.kill()
    child.communicate()


class Terminal:
    """A program at a pseudo-terminal, and all that it has shown there.

    Owned by the test's thread.
    """

    def __init__(self, command: Sequence[str], env: dict[str, str]) -> None:
        import pty

        self._screen, terminal = pty.openpty()
        kept = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "TERM", "COLORTERM")}
        self._child = subprocess.Popen(
            [sys.executable, "-c", _TAKE_TERMINAL, *command],
            stdin=terminal,
            stdout=terminal,
            stderr=terminal,
            env={**kept, "TERM": "xterm-256color", "COLUMNS": "100", **env},
            start_new_session=True,
        )
        os.close(terminal)
        self._shown = b""

    def read_until(self, wanted: str) -> str:
        """Everything shown until this stands there. Raises AssertionError at the end without it."""
        while wanted not in self.plain:
            assert self._read(), f"{wanted!r} was never shown: {self.plain!r}"
        return self.plain

    def wait(self) -> int:
        """Read to the end; the exit status."""
        while self._read():
            pass
        return self._child.wait(WAIT_S)

    def type(self, keys: bytes) -> None:
        """Type these keys; b"\\x03" is Ctrl-C."""
        os.write(self._screen, keys)

    def _read(self) -> bool:
        try:
            piece = os.read(self._screen, 65_536)
        except OSError:  # Linux says EIO once nobody has the other side open
            return False
        self._shown += piece
        return bool(piece)

    @property
    def shown(self) -> str:
        """What was shown, with its escapes."""
        return self._shown.decode("utf-8", "replace").replace("\r\n", "\n")

    @property
    def plain(self) -> str:
        """What was shown, without colours."""
        return _ESCAPES.sub("", self.shown)

    def close(self) -> None:
        _end(self._child)
        os.close(self._screen)


def seen_of(request: Request) -> Reply:
    """A handler that answers with what it got, as JSON."""
    import json

    seen = {
        "method": request.method,
        "target": request.target,
        "headers": [list(pair) for pair in request.headers],
        "authority": request.authority,
        "body": request.read().decode("utf-8", "replace"),
    }
    return Reply(200, (("content-type", "application/json"),), json.dumps(seen).encode())


@contextlib.contextmanager
def standard_input(replace: Callable[..., None], body: bytes | None) -> Iterator[None]:
    """Put a pipe that holds these bytes in the place of sys.stdin; None: a pipe that is at its end."""
    reader, writer = os.pipe()
    feeding = threading.Thread(target=_feed, args=(writer, body or b""), name="feeding")
    feeding.start()
    with os.fdopen(reader, "r") as stdin:
        replace(sys, "stdin", stdin)
        yield
    feeding.join()


def _feed(writer: int, body: bytes) -> None:
    with contextlib.suppress(BrokenPipeError), os.fdopen(writer, "wb") as pipe:
        pipe.write(body)
