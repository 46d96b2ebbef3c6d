"""Servers that take for ever: at each phase of a request one that is silent, one that drips, and one that drips PINGs.

RELIABILITY 1.4 (T1 to T4) and the row "time" of its table. Each ends within its own timeout, with that timeout's own
error, and the client can be used afterwards. A resolver and a TCP handshake
have no bytes that could drip; what comes nearest to it is in engine/test_hostile_time_dialing.py.
"""

from __future__ import annotations

import contextlib
import itertools
import select
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from client_support import H1_PLAIN, H2_PLAIN, H2_TLS, Kit, Wire, error_of, raised
from hyperframe.frame import ContinuationFrame, DataFrame, HeadersFrame

import hyperpool
from hyperpool.handoff import deadlines
from hyperpool.testing import ScriptedConnection, pattern
from stage import WAIT_S, eventually, opened

pytestmark = pytest.mark.slow

SHORT_S = 0.15
# Far more often than any timeout here, as a server would that wants to be waited for.
DRIP_S = SHORT_S / 10
NEVER = hyperpool.Timeout(pool=None, connect=None, write=None, read=None)
PING = b"\x00\x00\x08\x06\x00\x00\x00\x00\x00hyperpoo"

Send = Callable[[int], None]


def drips(send: Send) -> None:
    """Call it with 0, 1, 2, ... now and then, until the client has closed its end."""
    pause = threading.Event()
    with contextlib.suppress(OSError):
        for n in itertools.count():
            send(n)
            pause.wait(DRIP_S)


def silent(connection: ScriptedConnection) -> None:
    connection.drain()


def pings(connection: ScriptedConnection) -> None:
    drips(lambda n: connection.send(PING))


# -- what the servers do -----------------------------------------------------------------------------------------------


def half_a_server_hello(connection: ScriptedConnection) -> None:
    connection.send(b"\x16\x03\x03\x40\x00")
    drips(lambda n: connection.send(b"\x02"))


def half_of_settings(connection: ScriptedConnection) -> None:
    connection.send(b"\x00\x00\x78\x04\x00\x00\x00\x00\x00")  # 20 settings of 6 bytes are announced
    drips(lambda n: connection.send(b"\x00"))


def asked(connection: ScriptedConnection, **settings: int) -> None:
    connection.greet(**settings)
    connection.wait_frame(HeadersFrame)


def silent_when_asked(connection: ScriptedConnection) -> None:
    asked(connection)
    silent(connection)


def pings_when_asked(connection: ScriptedConnection) -> None:
    asked(connection)
    pings(connection)


def half_a_head(connection: ScriptedConnection) -> None:
    asked(connection)
    connection.send(HeadersFrame(1, data=b"\x88").serialize())
    # A literal field, not put into the table (RFC 7541 6.2.2); fewer frames than are a flood.
    drips(lambda n: n < 40 and connection.send(ContinuationFrame(1, data=b"\x00\x01x\x01y").serialize()))


def half_a_head_in_text(connection: ScriptedConnection) -> None:
    connection.recv_until(b"\r\n\r\n")
    connection.send(b"HTTP/1.1 200 OK\r\n")
    drips(lambda n: connection.send(b"x-%d: y\r\n" % n))


def interim_heads(connection: ScriptedConnection) -> None:
    connection.recv_until(b"\r\n\r\n")
    drips(lambda n: connection.send(b"HTTP/1.1 103 Early Hints\r\n\r\n"))


def answered(connection: ScriptedConnection) -> None:
    asked(connection)
    head = HeadersFrame(1, data=connection.encoder.encode([(":status", "200")]), flags=["END_HEADERS"])
    # At once: what comes later may be too late for a reader that wants a pace.
    connection.send(head.serialize() + DataFrame(1, data=b"a beginning").serialize())


def silent_in_its_body(connection: ScriptedConnection) -> None:
    answered(connection)
    silent(connection)


def drips_its_body(connection: ScriptedConnection) -> None:
    answered(connection)
    drips(lambda n: connection.data(1, b"x"))


def pings_in_its_body(connection: ScriptedConnection) -> None:
    answered(connection)
    pings(connection)


def silent_in_its_text(connection: ScriptedConnection) -> None:
    connection.recv_until(b"\r\n\r\n")
    connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\na beginning")
    silent(connection)


def drips_its_text(connection: ScriptedConnection) -> None:
    connection.recv_until(b"\r\n\r\n")
    connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    drips(lambda n: connection.send(b"x"))


def takes_nothing(connection: ScriptedConnection) -> None:
    asked(connection, INITIAL_WINDOW_SIZE=0)
    silent(connection)


def takes_a_byte_at_a_time(connection: ScriptedConnection) -> None:
    asked(connection, INITIAL_WINDOW_SIZE=0)
    drips(lambda n: connection.window_update(1, 1))


def takes_nothing_and_pings(connection: ScriptedConnection) -> None:
    asked(connection, INITIAL_WINDOW_SIZE=0)
    pings(connection)


def reads_nothing(connection: ScriptedConnection) -> None:
    connection.recv_until(b"\r\n\r\n")
    # Until the client has gone: what it has sent is not read, and fills every buffer between.
    poll = select.poll()
    poll.register(connection.sock, select.POLLRDHUP | select.POLLHUP)
    poll.poll(1000 * WAIT_S)


@dataclass(frozen=True)
class Fault:
    """What a server does, over which wire, and what must come of it under which timeout."""

    name: str
    script: Callable[[ScriptedConnection], None]
    wire: Wire
    kind: type[hyperpool.HyperpoolError]
    bound: str
    uploads: bool = False
    # The server's own TLS stays away: its script speaks in its place.
    bare: bool = False
    rate: float | None = None

    def __str__(self) -> str:
        return f"{self.name}, {self.wire}"


READ, WRITE, TOTAL = hyperpool.ReadTimeout, hyperpool.WriteTimeout, hyperpool.TotalTimeout
FAULTS = (
    Fault("TLS: silent", silent, H2_TLS, hyperpool.ConnectTimeout, "connect", bare=True),
    Fault("TLS: drip", half_a_server_hello, H2_TLS, hyperpool.ConnectTimeout, "connect", bare=True),
    Fault("TLS: PING", pings, H2_TLS, hyperpool.TlsError, "connect", bare=True),
    Fault("preface: silent", silent, H2_TLS, READ, "read"),
    Fault("preface: drip", half_of_settings, H2_TLS, READ, "read"),
    Fault("preface: PING", pings, H2_TLS, hyperpool.RemoteProtocolError, "read"),
    Fault("preface: silent", silent, H2_PLAIN, READ, "read"),
    Fault("head: silent", silent_when_asked, H2_TLS, READ, "read"),
    Fault("head: drip", half_a_head, H2_TLS, READ, "read"),
    Fault("head: PING", pings_when_asked, H2_TLS, READ, "read"),
    Fault("head: silent", silent, H1_PLAIN, READ, "read"),
    Fault("head: drip", half_a_head_in_text, H1_PLAIN, READ, "read"),
    Fault("head: drip of interim responses", interim_heads, H1_PLAIN, TOTAL, "total"),
    Fault("body: silent", silent_in_its_body, H2_TLS, READ, "read"),
    Fault("body: drip", drips_its_body, H2_TLS, TOTAL, "total"),
    Fault("body: drip, with a rate", drips_its_body, H2_TLS, READ, "", rate=10_000),
    Fault("body: PING", pings_in_its_body, H2_TLS, READ, "read"),
    Fault("body: silent", silent_in_its_text, H1_PLAIN, READ, "read"),
    Fault("body: drip", drips_its_text, H1_PLAIN, TOTAL, "total"),
    Fault("body: drip, with a rate", drips_its_text, H1_PLAIN, READ, "", rate=10_000),
    Fault("upload: silent", takes_nothing, H2_TLS, WRITE, "write", uploads=True),
    Fault("upload: drip", takes_a_byte_at_a_time, H2_TLS, TOTAL, "total", uploads=True),
    Fault("upload: PING", takes_nothing_and_pings, H2_TLS, WRITE, "write", uploads=True),
    Fault("upload: silent", reads_nothing, H1_PLAIN, WRITE, "write", uploads=True),
)
# Nothing of the request is on the wire yet.
UNSENT = {"TLS: silent", "TLS: drip", "TLS: PING", "preface: PING"}


def origin_of(peer: Any, fault: Fault) -> str:
    origin: str = peer.origin
    return origin.replace("http:", "https:") if fault.bare else origin


@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_a_server_that_takes_for_ever_ends_in_its_own_timeout_and_harms_nobody(
    kit: Kit, monkeypatch: pytest.MonkeyPatch, fault: Fault
) -> None:
    if fault.rate is not None:
        monkeypatch.setattr(deadlines, "PACE_S", SHORT_S)
    peer = kit.peer(fault.script, tls=fault.wire.tls and not fault.bare)
    patience: dict[str, Any] = dict.fromkeys(("pool", "connect", "write", "read"))
    if fault.bound:
        patience[fault.bound] = SHORT_S if issubclass(fault.kind, TimeoutError) else WAIT_S
    client = kit.client(fault.wire, limits=hyperpool.Limits(min_body_rate=fault.rate))
    future = client.submit(
        "POST" if fault.uploads else "GET",
        f"{origin_of(peer, fault)}/",
        content=bytes(32 << 20) if fault.uploads else None,
        timeout=hyperpool.Timeout(**patience),
    )
    error = error_of(future, fault.kind)
    assert error.origin == origin_of(peer, fault)
    # What a server sends in place of its preface may come before the request is written, or after. On a busy machine a
    # total may be over before there is a connection.
    known = not fault.name.startswith("preface") and fault.bound != "total"
    assert not known or error.processed == ("no" if fault.name in UNSENT else "maybe")
    if isinstance(error, hyperpool.Timeout):
        assert error.phase == (fault.bound or "read")
        assert ("min_body_rate" if fault.rate else f"Timeout.{fault.bound}") in str(error)
        assert sum(error.spent_s.values()) >= SHORT_S
    assert client.get(kit.server(fault.wire).url("/bytes/100")).content == pattern(100)
    client.close(grace_s=0)
    assert client.pool.stats().threads == 0


def test_a_name_that_is_not_resolved_is_a_connect_timeout(kit: Kit) -> None:
    gate = kit.gate()

    def slow(host: str, port: int) -> Any:
        if host != "slow.invalid":
            return ["127.0.0.1"]
        opened(gate)
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    client = kit.client(H1_PLAIN, resolver=slow)
    timeout = hyperpool.Timeout(connect=SHORT_S)
    error = error_of(client.submit("GET", "http://slow.invalid/", timeout=timeout), hyperpool.ConnectTimeout)
    assert (error.origin, error.processed) == ("http://slow.invalid", "no")
    assert client.get(kit.server(H1_PLAIN).url("/bytes/3")).content == pattern(3)
    gate.set()


@pytest.mark.parametrize("total", [False, True], ids=["connect", "total"])
def test_a_connect_that_nobody_answers_is_a_timeout(kit: Kit, total: bool) -> None:
    # A listener with a full backlog: Linux drops further SYNs, as a firewall would.
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(4):
            filling = stack.enter_context(socket.socket())
            filling.setblocking(False)
            filling.connect_ex(listener.getsockname())
        client = kit.client(H1_PLAIN)
        timeout = hyperpool.Timeout(SHORT_S) if total else hyperpool.Timeout(connect=SHORT_S)
        future = client.submit("GET", f"http://127.0.0.1:{listener.getsockname()[1]}/", timeout=timeout)
        error = error_of(future, hyperpool.TotalTimeout if total else hyperpool.ConnectTimeout)
        assert error.processed == "no"


def test_a_streamed_body_that_drips_ends_in_its_reader_after_what_had_come(
    kit: Kit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deadlines, "PACE_S", SHORT_S)
    peer = kit.peer(drips_its_body)
    client = kit.client(limits=hyperpool.Limits(min_body_rate=10_000))
    came: list[bytes] = []
    with client.stream("GET", peer.url(), timeout=NEVER) as response:
        error = raised(hyperpool.ReadTimeout, lambda: came.extend(response.iter_bytes()))
        assert "less than Limits.min_body_rate=10000 bytes a second" in str(error)
    assert b"".join(came).startswith(b"a beginning")
    assert eventually(lambda: client.pool.stats().open_streams == 0)


def test_a_pool_counts_the_connections_that_it_is_opening(kit: Kit) -> None:
    peer = kit.peer(silent, tls=False)
    client = kit.client()
    future = client.submit("GET", peer.url().replace("http:", "https:"))
    assert eventually(lambda: client.pool.stats().dialing == 1)
    future.cancel()
    client.close(grace_s=0)
    assert client.pool.stats().dialing == 0


def cut(connection: ScriptedConnection) -> None:
    # What is unread when a socket is closed would make a reset of it.
    connection.sock.shutdown(socket.SHUT_WR)
    connection.drain()


@pytest.mark.parametrize("end", [cut, ScriptedConnection.close], ids=["cut", "closed"])
def test_the_error_of_a_lost_connection_tells_a_cut_session_from_one_that_was_closed(
    kit: Kit, end: Callable[[ScriptedConnection], None]
) -> None:
    """T6: without close_notify anybody between may have ended it (RFC 8446 6.1)."""

    def script(connection: ScriptedConnection) -> None:
        asked(connection)
        end(connection)

    peer = kit.peer(script)
    error = error_of(kit.client().submit("GET", peer.url()), hyperpool.ConnectionLost)
    assert ("without TLS's close_notify" in str(error)) is (end is cut)
