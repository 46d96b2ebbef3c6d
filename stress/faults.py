"""The Nth operation fails, for every N: one fixed scenario, run again and again until no fault is met any more.

    python -m stress.faults                      # every kind of fault, once, over HTTP/2
    python -m stress.faults --kind socket --first 17 --last 17
    python -m stress.faults --everything         # over HTTP/1.1 as well; and faults that last

A kind is a set of operations (of sockets, of the selector, of the name service, of starting threads, of memory). In run
N the Nth call of one of them does what it does when the system fails; all others work, or, of faults that last, all
before it. After each run:

- every call of the scenario has ended, with the right answer or a `HyperpoolError` (MemoryError, where the caller's
  own thread ran out of it), within `PATIENCE_S`; with the right answer, if what happened is no failure (`HARMLESS`);
- requests on the same client succeed again within `RECOVERY_S`;
- both ledgers of every connection balance (L7);
- after `close` no thread and no descriptor is left.

The server is nginx, in a process of its own. The exit status is 0 only if all of that held in every run.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import faulthandler
import gc
import os
import selectors
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError
from dataclasses import dataclass, field
from typing import Any

import hyperpool
from hyperpool.engine.connections import Connections
from hyperpool.engine.http2 import Http2Connection
from hyperpool.handoff.body import BodyPipe, UploadPipe
from hyperpool.handoff.exchange import Exchange
from hyperpool.handoff.inbox import Inbox
from hyperpool.handoff.request_body import RequestBody
from hyperpool.handoff.response import Response
from hyperpool.protocol.h2_codec import H2Codec
from hyperpool.protocol.tls import TlsStream
from hyperpool.testing.paths import pattern, pattern_pieces
from stress import servers, sockets

# A fault is told at once; this is for a machine that is busy with something else.
PATIENCE_S = 20.0
# What failed may be remembered for a second: a name that did not resolve, a dial beside other connections.
RECOVERY_S = 2.0
# Far more than the scenario has operations of any kind.
MOST_RUNS = 5_000
LARGE = 262_144


@dataclass(frozen=True, slots=True)
class Operation:
    """One function that can fail. Immutable. ``fault``: what happens then, given the genuine one and its arguments."""

    owner: Any
    name: str
    fault: Callable[..., Any]


def _raises(make: Callable[[], BaseException]) -> Callable[..., Any]:
    def fault(genuine: object, *arguments: object, **keywords: object) -> Any:
        raise make()

    return fault


def _os_error(code: int) -> Callable[[], BaseException]:
    return lambda: OSError(code, os.strerror(code))


def _one_byte_sent(genuine: Callable[..., int], sock: object, data: Any) -> int:
    return genuine(sock, data[:1])


def _one_byte_received(genuine: Callable[..., bytes], sock: object, size: int) -> bytes:
    return genuine(sock, 1)


def _operations(owner: Any, make: Callable[[], BaseException], *names: str) -> list[Operation]:
    return [Operation(owner, name, _raises(make)) for name in names]


KINDS: dict[str, list[Operation]] = {
    "socket": [
        *_operations(socket.socket, _os_error(errno.ECONNRESET), "send", "recv"),
        *_operations(socket.socket, _os_error(errno.ENOBUFS), "connect_ex", "setsockopt", "getsockopt", "setblocking"),
    ],
    "pipe": [
        *_operations(socket.socket, _os_error(errno.EPIPE), "send"),
        *_operations(socket.socket, _os_error(errno.ETIMEDOUT), "recv"),
    ],
    "interrupted": _operations(socket.socket, _os_error(errno.EINTR), "send", "recv"),
    "blocked": _operations(socket.socket, _os_error(errno.EAGAIN), "send", "recv"),
    "short": [
        Operation(socket.socket, "send", _one_byte_sent),
        Operation(socket.socket, "recv", _one_byte_received),
    ],
    "descriptor": [
        *_operations(socket, _os_error(errno.EMFILE), "socketpair"),
        *_operations(selectors.DefaultSelector, _os_error(errno.EMFILE), "__init__"),
    ],
    "select": _operations(
        selectors.DefaultSelector, _os_error(errno.ENOMEM), "select", "register", "modify", "unregister"
    ),
    "dns": _operations(socket, lambda: socket.gaierror(socket.EAI_AGAIN, "try again"), "getaddrinfo"),
    "thread": _operations(threading.Thread, lambda: RuntimeError("can't start new thread"), "start"),
    "tls": _operations(TlsStream, MemoryError, "handshake", "feed", "read", "write", "ciphertext"),
    "memory": [
        *_operations(H2Codec, MemoryError, "open", "send", "receive", "data_to_send", "grant", "reset", "ping"),
        *_operations(Exchange, MemoryError, "begin", "answer", "feed", "complete"),
        *_operations(RequestBody, MemoryError, "take"),
        *_operations(BodyPipe, MemoryError, "feed", "take", "finish"),
        *_operations(UploadPipe, MemoryError, "feed", "take"),
        *_operations(Inbox, MemoryError, "put", "take"),
        *_operations(Connections, MemoryError, "add", "touch", "watch"),
        *_operations(Response, MemoryError, "__init__"),
    ],
}
# What any call may meet, and no caller may notice. If it lasted, nothing would ever get on.
HARMLESS = frozenset({"interrupted", "blocked", "short"})


class Injector:
    """Lets the Nth call of a kind's operations fail; with ``lasting``, all those behind it too.

    Shared; the counter is guarded by _lock.
    """

    def __init__(self, kind: str, *, lasting: bool = False) -> None:
        self._operations = KINDS[kind]
        self._lasting = lasting
        self._lock = threading.Lock()
        self._at = 0
        self._calls = 0
        self.fired = ""

    @contextlib.contextmanager
    def armed(self, at: int) -> Iterator[None]:
        """Within this, call number ``at`` fails."""
        self._at, self._calls, self.fired = at, 0, ""
        with contextlib.ExitStack() as stack:
            for operation in self._operations:
                stack.enter_context(self._replaced(operation))
            yield

    def disarm(self) -> None:
        """From now on all work."""
        with self._lock:
            self._at = 0

    @contextlib.contextmanager
    def _replaced(self, operation: Operation) -> Iterator[None]:
        own = operation.name in vars(operation.owner)
        genuine = getattr(operation.owner, operation.name)

        def counted(*arguments: Any, **keywords: Any) -> Any:
            # The pair within the process that wakes a loop cannot be reset by anybody.
            if not _is_local(arguments) and self._is_due(operation):
                return operation.fault(genuine, *arguments, **keywords)
            return genuine(*arguments, **keywords)

        setattr(operation.owner, operation.name, counted)
        try:
            yield
        finally:
            if own:
                setattr(operation.owner, operation.name, genuine)
            else:
                delattr(operation.owner, operation.name)

    def _is_due(self, operation: Operation) -> bool:
        with self._lock:
            if not self._at:
                return False
            self._calls += 1
            if self._calls == self._at:
                where = getattr(operation.owner, "__name__", str(operation.owner))
                self.fired = f"{where}.{operation.name} on {threading.current_thread().name}"
                return True
            return self._lasting and self._calls > self._at


def _is_local(arguments: tuple[Any, ...]) -> bool:
    return bool(arguments) and isinstance(arguments[0], socket.socket) and arguments[0].family == socket.AF_UNIX


class Wrong(Exception):
    """A promise that was not kept."""


@dataclass
class Scenario:
    """A little of everything, on one client. Owned by the main thread."""

    client: hyperpool.Client
    url: Callable[[str], str]
    outcomes: list[str] = field(default_factory=list)

    def run(self) -> None:
        """Every step ends in an answer or an error."""
        for step in (
            self._plain,
            self._several,
            self._upload,
            self._generator,
            self._streamed,
            self._closed,
            self._cancelled,
        ):
            try:
                step()
            except (hyperpool.HyperpoolError, CancelledError, MemoryError) as error:
                self.outcomes.append(type(error).__name__)
            else:
                self.outcomes.append("ok")

    def _check(self, content: bytes, size: int) -> None:
        if content != pattern(size):
            raise Wrong(f"{len(content):,} bytes that are not the {size:,} that were asked for")

    def _plain(self) -> None:
        self._check(self.client.get(self.url("/bytes/1000")).content, 1_000)

    def _several(self) -> None:
        futures = [self.client.submit("GET", self.url("/bytes/10000")) for _ in range(4)]
        for future in futures:
            try:
                self._check(future.result(PATIENCE_S).content, 10_000)
            except hyperpool.HyperpoolError as error:
                self.outcomes.append(type(error).__name__)

    def _upload(self) -> None:
        self._check(self.client.post(self.url("/echo"), content=pattern(70_000)).content, 70_000)

    def _generator(self) -> None:
        self._check(self.client.post(self.url("/echo"), content=pattern_pieces(70_000)).content, 70_000)

    def _streamed(self) -> None:
        with self.client.stream("GET", self.url(f"/bytes/{LARGE}")) as response:
            self._check(b"".join(response.iter_bytes()), LARGE)

    def _closed(self) -> None:
        with self.client.stream("GET", self.url(f"/bytes/{LARGE}")) as response:
            next(response.iter_raw())

    def _cancelled(self) -> None:
        self.client.submit("GET", self.url(f"/bytes/{LARGE}")).cancel()


def run_once(injector: Injector, at: int, served: servers.Served, *, http2: bool, harmless: bool) -> str:
    """One run; what failed in it, "" where nothing was left to fail. Raises Wrong."""
    before = _descriptors()
    limits = hyperpool.Limits(stream_window_bytes=65_535, upload_buffer_bytes=16_384)
    client = hyperpool.Client(
        verify=str(served.ca_file), timeout=PATIENCE_S / 2, limits=limits, trust_env=False, http2=http2
    )
    scenario = Scenario(client, served.url)
    try:
        with injector.armed(at):
            began_at = time.monotonic()
            scenario.run()
            injector.disarm()
            if time.monotonic() - began_at > PATIENCE_S:
                raise Wrong(f"took {time.monotonic() - began_at:.1f} s: {scenario.outcomes}")
            if harmless and set(scenario.outcomes) != {"ok"}:
                raise Wrong(f"somebody noticed: {scenario.outcomes}")
            _recovers(client, served)
            _balances(client)
    finally:
        client.close()
    _nothing_is_left(before)
    return injector.fired


def _recovers(client: hyperpool.Client, served: servers.Served) -> None:
    until_at = time.monotonic() + RECOVERY_S
    while not _works(client, served, until_at):
        time.sleep(0.05)


def _works(client: hyperpool.Client, served: servers.Served, until_at: float) -> bool:
    try:
        content = client.get(served.url("/bytes/1000")).content
    except hyperpool.HyperpoolError as error:
        if time.monotonic() > until_at:
            raise Wrong(f"still fails after {RECOVERY_S} s: {error!r}") from error
        return False
    if content != pattern(1_000):
        raise Wrong("the next response is wrong")
    return True


def _balances(client: hyperpool.Client) -> None:
    """L7, while everything is at rest."""
    for loop in client.pool._loops.alive():
        for connection in loop._connections:
            if isinstance(connection, Http2Connection):
                streams = list(connection._streams.open.values())
                ledgers = [connection._windows.ledger, *(stream.ledger for stream in streams)]
                if not all(ledger.balanced for ledger in ledgers):
                    raise Wrong(f"a ledger of {connection!r} does not balance (L7)")


def _descriptors() -> set[str]:
    gc.collect()
    return set(os.listdir("/proc/self/fd"))


def _nothing_is_left(before: set[str]) -> None:
    until_at = time.monotonic() + PATIENCE_S
    while True:
        # Helpers that nobody joins (a dial, an uploader) end by themselves, a moment later.
        threads, descriptors = sockets.our_threads(), len(_descriptors()) - len(before)
        if not threads and descriptors <= 0:
            return
        if time.monotonic() > until_at:
            raise Wrong(f"left over: threads {threads}, descriptors {descriptors}")
        time.sleep(0.005)


@dataclass(frozen=True, slots=True)
class Search:
    """All runs of a kind. Immutable."""

    kind: str
    http2: bool = True
    lasting: bool = False

    def __str__(self) -> str:
        return f"{self.kind}{', lasting' * self.lasting}{'' if self.http2 else ', HTTP/1.1'}"


def everything(kinds: Iterable[str]) -> list[Search]:
    """Each of them over both versions; those that can last also as such."""
    return [
        Search(kind, http2, lasting)
        for lasting in (False, True)
        for http2 in (True, False)
        for kind in kinds
        if not (lasting and kind in HARMLESS)
    ]


def search(what: Search, served: servers.Served, *, first: int, last: int) -> tuple[int, list[str]]:
    """How many faults there were, and what went wrong in them."""
    injector, wrong = Injector(what.kind, lasting=what.lasting), []
    harmless = what.kind in HARMLESS
    for at in range(first, last + 1):
        faulthandler.dump_traceback_later(4 * PATIENCE_S, exit=True)
        try:
            fired = run_once(injector, at, served, http2=what.http2, harmless=harmless)
        except Exception as error:
            wrong.append(f"{what} {at} ({injector.fired or 'no fault'}): {type(error).__name__}: {error}")
            print("  " + wrong[-1], flush=True)
            continue
        finally:
            faulthandler.cancel_dump_traceback_later()
        if not fired:
            break
    print(f"{what!s:30} {at - first:5} faults, {len(wrong)} wrong", flush=True)
    return at - first, wrong


def main(argv: list[str] | None = None) -> int:
    """Exit status 0 if every promise was kept."""
    parser = argparse.ArgumentParser(
        prog="python -m stress.faults", description="The Nth operation fails, for every N."
    )
    parser.add_argument("--kind", choices=KINDS, action="append", help="one kind only; may be given again")
    parser.add_argument("--everything", action="store_true", help="over both versions, once and lasting")
    parser.add_argument("--first", type=int, default=1)
    parser.add_argument("--last", type=int, default=MOST_RUNS)
    options = parser.parse_args(argv)
    # A fault on an I/O thread is told to whoever waits; a traceback on stderr would be a second, loud way.
    unhandled: list[str] = []
    threading.excepthook = lambda args: unhandled.append(f"{args.thread and args.thread.name}: {args.exc_value!r}")
    wrong, faults = [], 0
    kinds = options.kind or list(KINDS)
    with servers.nginx() as served:
        with hyperpool.Client(verify=str(served.ca_file)) as warm:
            warm.get(served.url("/bytes/1000"))  # imports, caches: what is done once in a process
        for what in everything(kinds) if options.everything else map(Search, kinds):
            found, gone_wrong = search(what, served, first=options.first, last=options.last)
            faults += found
            wrong += gone_wrong
    print(f"{faults:,} faults, {len(wrong)} wrong")
    for line in unhandled:
        print(f"  a thread died loudly: {line}")
    return 1 if wrong or unhandled else 0


if __name__ == "__main__":
    sys.exit(main())
