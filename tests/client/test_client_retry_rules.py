"""What is sent again and what is not: 5 ways to lose a request x 3 kinds of request x 3 moments, counted at the server.

The rules (RFC 9113 8.7, RFC 9110 9.2.2, RFC 9112 9.3.1), for a client that was told nothing about retries:

- What the server says it has not processed (REFUSED_STREAM, a GOAWAY below its stream), or what never reached it, is
  sent again, whatever the method, while the body can be given once more.
- What it may have processed is not, but for an idempotent request that a kept-alive HTTP/1.1 connection lost before
  the first byte of an answer.
- Once a byte of the answer is there, nothing is.

With ``retries=2`` the second rule opens for idempotent methods; never for POST.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from client_support import Kit
from hyperframe.frame import DataFrame, HeadersFrame

import hyperpool
from hyperpool.testing import ScriptedConnection
from stage import WAIT_S

BODY = b"0123456789" * 20
REFUSED_STREAM, INTERNAL_ERROR, NO_ERROR = 7, 2, 0
OK = [(":status", "200")]


# -- what the server sees and does -------------------------------------------------------------------------------------


class Ledger:
    """Which requests came to the server, whole. Shared; a list's append is atomic enough for its lock."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.whole: list[str] = []

    def note(self, path: str) -> None:
        with self._lock:
            self.whole.append(path)


def read_h2_request(connection: ScriptedConnection, ledger: Ledger) -> int:
    """The id of the next request, once all of it is here."""
    frame = connection.wait_frame(HeadersFrame)
    path = dict(connection.decode(frame))[":path"]
    stream_id, ended = frame.stream_id, "END_STREAM" in frame.flags
    while not ended:
        ended = "END_STREAM" in connection.wait_frame(DataFrame).flags
    ledger.note(path)
    return stream_id


def read_h1_request(connection: ScriptedConnection, ledger: Ledger) -> None:
    head = connection.recv_until(b"\r\n\r\n")
    ledger.note(head.split(b" ")[1].decode())
    if b"chunked" in head.lower():
        connection.recv_until(b"0\r\n\r\n")
    elif b"content-length: 200" in head.lower():
        connection.recv_exactly(200)


# How much of an answer is sent before the fault.
MOMENTS = ("before a byte", "after the head", "within the body")


def begin_h2_answer(connection: ScriptedConnection, stream_id: int, moment: str) -> None:
    if moment != "before a byte":
        connection.headers(stream_id, [*OK, ("content-length", "6")])
    if moment == "within the body":
        connection.data(stream_id, b"abc")


def begin_h1_answer(connection: ScriptedConnection, moment: str) -> None:
    if moment != "before a byte":
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n")
    if moment == "within the body":
        connection.send(b"abc")


def answer_h2(connection: ScriptedConnection, ledger: Ledger) -> None:
    while True:
        stream_id = read_h2_request(connection, ledger)
        connection.headers(stream_id, OK)
        connection.data(stream_id, b"done", end_stream=True)


def answer_h1(connection: ScriptedConnection, ledger: Ledger) -> None:
    while True:
        read_h1_request(connection, ledger)
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone")


def goaway(connection: ScriptedConnection, stream_id: int) -> None:
    """Below the request's stream: it was not processed."""
    connection.goaway(max(0, stream_id - 2), NO_ERROR)
    connection.drain()


def refuse(connection: ScriptedConnection, stream_id: int) -> None:
    connection.rst(stream_id, REFUSED_STREAM)


def reset(connection: ScriptedConnection, stream_id: int) -> None:
    connection.rst(stream_id, INTERNAL_ERROR)


def end(connection: ScriptedConnection, stream_id: int) -> None:
    connection.cut()


def over_h2(fault: Callable[[ScriptedConnection, int], None], moment: str, ledger: Ledger) -> Callable[..., None]:
    """A server whose first connection loses the first request, and answers others as long as it lives."""

    def script(connection: ScriptedConnection) -> None:
        connection.greet()
        if connection.number == 1:
            stream_id = read_h2_request(connection, ledger)
            begin_h2_answer(connection, stream_id, moment)
            fault(connection, stream_id)
        until_it_leaves(answer_h2, connection, ledger)

    return script


def over_h1(moment: str, ledger: Ledger) -> Callable[..., None]:
    """One whose first connection serves a request, waits until it is idle, and is reset under the next one."""

    def script(connection: ScriptedConnection) -> None:
        if connection.number == 1:
            read_h1_request(connection, ledger)
            connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone")
            read_h1_request(connection, ledger)
            begin_h1_answer(connection, moment)
            connection.cut() if moment != "before a byte" else connection.abort()
            return
        until_it_leaves(answer_h1, connection, ledger)

    return script


def until_it_leaves(act: Callable[[ScriptedConnection, Ledger], None], connection: Any, ledger: Ledger) -> None:
    if connection.sock.fileno() < 0:
        return
    try:
        act(connection, ledger)
    except (ConnectionError, OSError):
        return


# -- what the client asks ----------------------------------------------------------------------------------------------


def pieces() -> Iterator[bytes]:
    for at in range(0, len(BODY), 50):
        yield BODY[at : at + 50]


KINDS: dict[str, Callable[[Any, str], Any]] = {
    "GET": lambda client, url: client.submit("GET", url),
    "POST": lambda client, url: client.submit("POST", url, content=BODY),
    "streamed POST": lambda client, url: client.submit("POST", url, content=pieces()),
}


@dataclass(frozen=True)
class Outcome:
    """What must come of it: how often the server saw it, and the error if there is one. Immutable."""

    seen: int
    error: type[hyperpool.HyperpoolError] | None = None
    processed: str = "maybe"


AGAIN = Outcome(2)
LOST = Outcome(1, hyperpool.ConnectionLost)
WAS_RESET = Outcome(1, hyperpool.StreamReset)
# Not processed, but the generator is used up.
USED_UP = Outcome(1, hyperpool.ConnectionLost, "no")


def expected(fault: str, kind: str, moment: str) -> Outcome:
    """The rules of this file's head, once more as code."""
    answered = moment != "before a byte"
    if fault in ("GOAWAY", "REFUSED_STREAM"):
        if answered:
            return LOST if fault == "GOAWAY" else WAS_RESET
        return USED_UP if kind == "streamed POST" else AGAIN
    if fault == "RST_STREAM":
        return WAS_RESET
    if fault == "RST of an idle connection" and kind == "GET" and not answered:
        return AGAIN
    return LOST


H2_FAULTS = {"GOAWAY": goaway, "REFUSED_STREAM": refuse, "RST_STREAM": reset, "EOF": end}
FAULTS = (*H2_FAULTS, "RST of an idle connection")


def lose(kit: Kit, fault: str, kind: str, moment: str, **options: Any) -> tuple[Ledger, Any, Any]:
    """Ask; the server's ledger, the response or error, and the client."""
    ledger = Ledger()
    if fault in H2_FAULTS:
        peer = kit.peer(over_h2(H2_FAULTS[fault], moment, ledger), tls=False)
        client = kit.client(http1=False, http2=True, timeout=WAIT_S, **options)
    else:
        peer = kit.peer(over_h1(moment, ledger), tls=False)
        client = kit.client(http1=True, http2=False, timeout=WAIT_S, **options)
        assert client.get(peer.url("/warm")).content == b"done"
    future = KINDS[kind](client, peer.url("/lost"))
    error = future.exception(WAIT_S)
    assert client.get(peer.url("/next")).content == b"done", "the client goes on"
    return ledger, error or future.result(), client


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("fault", FAULTS)
def test_a_lost_request_is_sent_as_often_as_the_rules_say(kit: Kit, fault: str, kind: str, moment: str) -> None:
    ledger, got, _ = lose(kit, fault, kind, moment)
    rule = expected(fault, kind, moment)
    assert ledger.whole.count("/lost") == rule.seen
    if rule.error is None:
        assert got.content == b"done" and len(got.retries) == 1
    else:
        assert type(got) is rule.error, repr(got)
        assert got.processed == rule.processed


@pytest.mark.parametrize(
    "beginning", [b"HTTP/1.1 20", b"HTTP/1.1 200 OK\r\nContent-Le", b"HTTP/1.1 103 Early Hints\r\n\r\n"]
)
@pytest.mark.parametrize("stream", [False, True])
def test_a_delete_whose_answer_has_begun_is_executed_once(kit: Kit, beginning: bytes, stream: bool) -> None:
    """T5: a part of a head is a byte of the answer, and so is an interim head."""
    ledger = Ledger()

    def script(connection: ScriptedConnection) -> None:
        if connection.number == 1:
            read_h1_request(connection, ledger)
            connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone")
            read_h1_request(connection, ledger)
            connection.send(beginning)
            connection.cut()
        until_it_leaves(answer_h1, connection, ledger)

    peer = kit.peer(script, tls=False)
    client = kit.client(http1=True, http2=False, timeout=WAIT_S)
    assert client.get(peer.url("/warm")).content == b"done"
    error = client.submit("DELETE", peer.url("/lost"), stream=stream).exception(WAIT_S)
    assert (type(error), error.processed) == (hyperpool.ConnectionLost, "maybe")
    assert client.get(peer.url("/next")).content == b"done"
    assert ledger.whole == ["/warm", "/lost", "/next"]


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("fault", FAULTS)
def test_retries_never_send_a_post_twice_that_may_have_been_processed(
    kit: Kit, fault: str, kind: str, moment: str
) -> None:
    """Retries open the second rule for GET; what is not idempotent stays where it was."""
    ledger, got, _ = lose(kit, fault, kind, moment, retries=2)
    seen = ledger.whole.count("/lost")
    if kind == "GET":
        assert (seen, got.content) == (2, b"done")
    else:
        assert seen == expected(fault, kind, moment).seen
