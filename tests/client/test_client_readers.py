"""A streamed body has one reader at a time: of two threads one is told so, and nothing is lost or given twice."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from client_support import Kit, Wire, raised

import hyperpool
from hyperpool.testing import Reply, pattern
from stage import WAIT_S, opened, stands_in

N_BYTES = 1000

READS: dict[str, Callable[[Any], Any]] = {
    "read": lambda response: response.read(N_BYTES),
    "readinto": lambda response: response.readinto(bytearray(N_BYTES)),
    "iter_raw": lambda response: next(response.iter_raw()),
    "iter_bytes": lambda response: next(response.iter_bytes()),
    "iter_bytes of a size": lambda response: next(response.iter_bytes(100)),
    "iter_text": lambda response: next(response.iter_text()),
    "iter_lines": lambda response: next(response.iter_lines()),
    "content": lambda response: response.content,
}
both_reads = pytest.mark.parametrize("name", READS)


def gated(gate: threading.Event) -> Iterator[bytes]:
    opened(gate)
    yield pattern(N_BYTES)


@both_reads
def test_who_reads_while_another_thread_waits_for_the_next_piece_is_told(kit: Kit, wire: Wire, name: str) -> None:
    gate = kit.gate()
    server, client = kit.pair(wire, lambda request: Reply(200, body=gated(gate)))
    got: list[bytes] = []
    with client.stream("GET", server.url()) as response:
        first = threading.Thread(target=lambda: got.append(response.read()))
        first.start()
        while not stands_in(first, "wait"):
            pass
        error = raised(hyperpool.LocalProtocolError, lambda: READS[name](response))
        assert "another thread is reading this response" in str(error)
        assert error.origin == server.origin
        gate.set()
        first.join(WAIT_S)
    assert got == [pattern(N_BYTES)]


@both_reads
def test_the_second_thread_is_told_whatever_way_the_first_one_reads(kit: Kit, name: str) -> None:
    gate = kit.gate()
    server, client = kit.pair(handler=lambda request: Reply(200, body=gated(gate)))
    with client.stream("GET", server.url()) as response:
        first = threading.Thread(target=lambda: READS[name](response))
        first.start()
        while not stands_in(first, "wait"):
            pass
        raised(hyperpool.LocalProtocolError, response.read)
        gate.set()
        first.join(WAIT_S)


def test_two_threads_that_share_one_iterator_are_told_as_well(kit: Kit) -> None:
    gate = kit.gate()
    server, client = kit.pair(handler=lambda request: Reply(200, body=gated(gate)))
    with client.stream("GET", server.url()) as response:
        pieces = response.iter_bytes()
        got: list[bytes] = []
        first = threading.Thread(target=lambda: got.extend(pieces))
        first.start()
        while not stands_in(first, "wait"):
            pass
        raised(hyperpool.LocalProtocolError, lambda: next(pieces))
        gate.set()
        first.join(WAIT_S)
    assert b"".join(got) == pattern(N_BYTES)


def test_a_body_may_be_handed_from_thread_to_thread_between_its_pieces(kit: Kit, wire: Wire) -> None:
    server, client = kit.pair(wire)
    got: list[bytes] = []
    with client.stream("GET", server.url("/bytes/100000")) as response:
        pieces = response.iter_bytes(10_000)
        for _ in range(10):
            reader = threading.Thread(target=lambda: got.append(next(pieces)))
            reader.start()
            reader.join(WAIT_S)
    assert b"".join(got) == pattern(100_000)


def test_a_reader_that_was_told_may_read_when_the_other_is_done(kit: Kit) -> None:
    gate = kit.gate()
    server, client = kit.pair(handler=lambda request: Reply(200, body=gated(gate)))
    with client.stream("GET", server.url()) as response:
        first = threading.Thread(target=lambda: response.read(10))
        first.start()
        while not stands_in(first, "wait"):
            pass
        raised(hyperpool.LocalProtocolError, lambda: response.read(1))
        gate.set()
        first.join(WAIT_S)
        assert response.read() == pattern(N_BYTES)[10:]


def test_a_body_that_is_here_has_as_many_readers_as_there_are_threads(kit: Kit) -> None:
    server, client = kit.pair()
    response = client.get(server.url("/bytes/100000"))
    mine, another = response.iter_bytes(1000), response.iter_bytes(1000)
    assert next(mine) == next(another)
    assert b"".join(mine) == b"".join(another) == pattern(100_000)[1000:]
    crew = kit.threads(8)
    wholes = [crew.submit(lambda: b"".join(response.iter_bytes(777))) for _ in range(16)]
    assert {one.result(WAIT_S) for one in wholes} == {pattern(100_000)}
