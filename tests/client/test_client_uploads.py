"""What may be given as content, how it goes out, and how an upload ends before its end."""

from __future__ import annotations

import array
import hashlib
import io
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from client_support import Kit, Wire, error_of, pieces, raised

import hyperpool
from hyperpool.testing import Reply, Reset, pattern
from stage import WAIT_S, opened

MIB = 1 << 20


class OnlyRead:
    """A file that knows nothing but read()."""

    def __init__(self, data: bytes) -> None:
        self._file = io.BytesIO(data)

    def read(self, n: int = -1) -> bytes:
        return self._file.read(n)


class Pieces:
    """An iterable that can be begun again."""

    def __init__(self, *pieces: Any) -> None:
        self._pieces = pieces

    def __iter__(self) -> Iterator[Any]:
        return iter(self._pieces)


CONTENTS: dict[str, Any] = {
    "bytes": lambda: (b"abc", b"abc"),
    "empty bytes": lambda: (b"", b""),
    "str": lambda: ("grün", "grün".encode()),
    "bytearray": lambda: (bytearray(b"abc"), b"abc"),
    "memoryview": lambda: (memoryview(b"xabcx")[1:4], b"abc"),
    "list": lambda: ([b"a", b"", b"bc"], b"abc"),
    "empty list": lambda: ([], b""),
    "tuple of bytes-likes": lambda: ((bytearray(b"a"), memoryview(b"bc")), b"abc"),
    "iterable": lambda: (Pieces(b"a", b"bc"), b"abc"),
    "generator": lambda: ((piece for piece in (b"a", b"bc")), b"abc"),
    "empty generator": lambda: ((piece for piece in ()), b""),
    "wide items": lambda: ([array.array("I", [1, 2]), b"x"], array.array("I", [1, 2]).tobytes() + b"x"),
    "BytesIO": lambda: (io.BytesIO(pattern(200_000)), pattern(200_000)),
    "file without seek": lambda: (OnlyRead(pattern(200_000)), pattern(200_000)),
    "large pieces": lambda: ([pattern(3 * MIB), b"end"], pattern(3 * MIB) + b"end"),
}


@pytest.mark.parametrize("name", CONTENTS)
def test_content_arrives_byte_for_byte(kit: Kit, wire: Wire, name: str) -> None:
    server, client = kit.pair(wire)
    content, expected = CONTENTS[name]()
    assert client.post(server.url("/echo"), content=content).content == expected


def test_a_file_is_sent_from_where_it_stands_with_its_length_declared(kit: Kit, wire: Wire, tmp_path: Path) -> None:
    server, client = kit.pair(wire)
    (tmp_path / "upload").write_bytes(pattern(300_000))
    with (tmp_path / "upload").open("rb") as file:
        file.seek(1_000)
        assert client.put(server.url("/echo"), content=file).content == pattern(300_000)[1_000:]
    assert ("content-length", "299000") in server.requests[0].headers


def test_a_pipe_is_sent_until_its_writer_closes_it(kit: Kit, wire: Wire) -> None:
    server, client = kit.pair(wire)
    reader, writer = os.pipe()
    with open(reader, "rb", buffering=0) as pipe:
        future = client.submit("POST", server.url("/echo"), content=pipe)
        with open(writer, "wb") as sink:
            sink.write(b"through a pipe")
        assert future.result(WAIT_S).content == b"through a pipe"


def test_a_generator_with_a_declared_length_is_not_chunked(kit: Kit, h1_wire: Wire) -> None:
    server, client = kit.pair(h1_wire)
    response = client.post(server.url("/echo"), content=pieces(100_000), headers={"Content-Length": "100000"})
    assert len(response.content) == 100_000
    names = [name for name, _ in server.requests[0].headers]
    assert "content-length" in names and "transfer-encoding" not in names


def test_a_generator_of_unknown_length_is_chunked_on_http1(kit: Kit, h1_wire: Wire) -> None:
    server, client = kit.pair(h1_wire)
    client.post(server.url("/echo"), content=pieces(100_000))
    assert ("transfer-encoding", "chunked") in server.requests[0].headers


def test_a_post_without_content_declares_that_there_is_none(kit: Kit, wire: Wire) -> None:
    server, client = kit.pair(wire)
    assert client.post(server.url("/echo")).content == b""
    assert ("content-length", "0") in server.requests[0].headers


@pytest.mark.parametrize("content", [5, 1.5, len, {"a": 1}, True], ids=["int", "float", "function", "dict", "bool"])
def test_content_of_a_wrong_type_is_refused_before_anything_is_opened(kit: Kit, content: Any) -> None:
    server, client = kit.pair()
    with pytest.raises(hyperpool.LocalProtocolError, match="content"):
        client.submit("POST", server.url(), content=content)
    assert server.connections_accepted == 0


@pytest.mark.parametrize("bad", ["text", 5, None, [1]], ids=repr)
def test_a_piece_of_a_wrong_type_raises_in_the_caller_and_resets_the_stream(kit: Kit, wire: Wire, bad: Any) -> None:
    server, client = kit.pair(wire)
    raised(hyperpool.LocalProtocolError, lambda: client.post(server.url("/echo"), content=[b"good", bad]))
    assert client.get(server.url("/bytes/3")).content == pattern(3)


def test_a_text_file_is_refused_with_the_advice_to_open_it_in_binary(kit: Kit, wire: Wire) -> None:
    server, client = kit.pair(wire)
    with pytest.raises(hyperpool.LocalProtocolError, match="binary"):
        client.post(server.url("/echo"), content=io.StringIO("text"))


def test_an_exception_of_the_generator_is_raised_in_the_caller_as_it_is(kit: Kit, wire: Wire) -> None:
    server, client = kit.pair(wire)
    boom = KeyError("of the caller")

    def failing() -> Iterator[bytes]:
        yield b"a beginning"
        raise boom

    assert raised(KeyError, lambda: client.post(server.url("/sha256"), content=failing())) is boom
    assert client.get(server.url("/bytes/3")).content == pattern(3)


def test_a_generator_that_raises_resets_its_stream_and_no_sibling_notices(kit: Kit, h2_wire: Wire) -> None:
    gate = kit.gate()
    server, client = kit.pair(h2_wire)
    server.route("/gated")(lambda request: (opened(gate), "sibling")[1])
    sibling = client.submit("GET", server.url("/gated"))

    def failing() -> Iterator[bytes]:
        yield b"a beginning"
        assert server.wait_until(lambda server: any(one.body_bytes for one in server.requests), WAIT_S)
        raise ZeroDivisionError

    error_of(client.submit("POST", server.url("/sha256"), content=failing()), ZeroDivisionError)
    assert server.wait_until(lambda server: server.requests[1].reset_code == 8, WAIT_S)
    assert not server.requests[1].is_complete
    gate.set()
    assert sibling.result(WAIT_S).text == "sibling"
    assert server.connections_accepted == 1


def test_a_generator_that_raises_closes_its_http1_socket_before_the_body_looks_complete(
    kit: Kit, h1_wire: Wire
) -> None:
    server, client = kit.pair(h1_wire)

    def failing() -> Iterator[bytes]:
        yield b"a beginning"
        raise ZeroDivisionError

    error_of(client.submit("POST", server.url("/sha256"), content=failing()), ZeroDivisionError)
    assert server.wait_until(lambda server: server.connections_open == 0, WAIT_S)
    assert [one.is_complete for one in server.requests] in ([], [False])


def test_a_generator_that_raises_before_its_first_piece_raises_in_the_caller(kit: Kit, wire: Wire) -> None:
    server, client = kit.pair(wire)

    def failing() -> Iterator[bytes]:
        raise ZeroDivisionError
        yield b""

    raised(ZeroDivisionError, lambda: client.post(server.url("/echo"), content=failing()))


def test_a_file_that_fails_raises_its_own_error(kit: Kit, wire: Wire) -> None:
    class Broken(OnlyRead):
        def read(self, n: int = -1) -> bytes:
            raise OSError(5, "disk error")

    server, client = kit.pair(wire)
    raised(OSError, lambda: client.post(server.url("/echo"), content=Broken(b"")))


def test_a_closed_file_is_refused_with_its_own_error(kit: Kit, wire: Wire) -> None:
    server, client = kit.pair(wire)
    file = io.BytesIO(b"x")
    file.close()
    raised(ValueError, lambda: client.post(server.url("/echo"), content=file))


def test_an_early_413_ends_the_upload_and_closes_the_generator(kit: Kit, wire: Wire) -> None:
    server, client = kit.pair(wire)
    closed = threading.Event()
    given = 0

    def endless() -> Iterator[bytes]:
        nonlocal given
        try:
            while True:
                given += 1
                yield bytes(64 << 10)
        finally:
            closed.set()

    response = client.post(server.url("/early/413"), content=endless())
    assert (response.status_code, response.text) == (413, "enough\n")
    assert closed.wait(WAIT_S)
    assert client.get(server.url("/bytes/3")).content == pattern(3)
    if wire.http2:
        assert server.connections_accepted == 1


def test_an_early_answer_without_a_reset_ends_the_upload_as_well(kit: Kit, h2_wire: Wire) -> None:
    server, client = kit.pair(h2_wire, lambda request: Reply(200, body=b"no need", stop_upload=False))
    closed = threading.Event()

    def endless() -> Iterator[bytes]:
        try:
            while True:
                yield bytes(64 << 10)
        finally:
            closed.set()

    assert client.post(server.url(), content=endless()).text == "no need"
    assert closed.wait(WAIT_S)


def test_a_server_that_resets_during_the_upload_closes_the_generator(kit: Kit, h2_wire: Wire) -> None:
    server, client = kit.pair(h2_wire, lambda request: Reset(11))
    closed = threading.Event()

    def endless() -> Iterator[bytes]:
        try:
            while True:
                yield bytes(64 << 10)
        finally:
            closed.set()

    error = raised(hyperpool.StreamReset, lambda: client.post(server.url(), content=endless()))
    assert (error.code, error.processed, error.stream_id) == (11, "maybe", 1)
    assert closed.wait(WAIT_S)


def test_user_code_runs_neither_on_the_io_thread_nor_after_its_end(kit: Kit, wire: Wire) -> None:
    server, client = kit.pair(wire)
    ran_on: set[str] = set()

    def noting() -> Iterator[bytes]:
        for _ in range(5):
            ran_on.add(threading.current_thread().name)
            yield b"x"

    client.post(server.url("/echo"), content=noting())
    assert f"hyperpool {server.origin}" not in ran_on
    assert len(ran_on) == 1


def test_a_generator_that_waits_for_another_request_of_the_same_client_is_no_deadlock(kit: Kit, wire: Wire) -> None:
    server, client = kit.pair(wire)

    def nested() -> Iterator[bytes]:
        for n in range(5):
            yield client.get(server.url(f"/bytes/{n}")).content

    assert client.post(server.url("/echo"), content=nested()).content == b"".join(pattern(n) for n in range(5))


def test_50_streamed_uploads_share_a_connection_without_mixing(kit: Kit, h2_wire: Wire) -> None:
    server, client = kit.pair(h2_wire)

    def body(n: int) -> Iterator[bytes]:
        for _ in range(20):
            yield bytes([n]) * (1_000 + n)

    futures = [client.submit("POST", server.url("/sha256"), content=body(n)) for n in range(50)]
    for n, future in enumerate(futures):
        whole = b"".join(body(n))
        assert future.result(WAIT_S).json() == {"sha256": hashlib.sha256(whole).hexdigest(), "length": len(whole)}
    assert server.connections_accepted == 1


def test_a_body_that_is_reused_by_the_generator_is_sent_as_it_was_when_it_was_given(kit: Kit, wire: Wire) -> None:
    server, client = kit.pair(wire)
    buffer = bytearray(4)

    def reusing() -> Iterator[bytearray]:
        for n in range(200):
            buffer[:] = b"%04d" % n
            yield buffer

    assert client.post(server.url("/echo"), content=reusing()).content == b"".join(b"%04d" % n for n in range(200))


def test_a_bytearray_may_be_changed_as_soon_as_submit_has_returned(kit: Kit, wire: Wire) -> None:
    server, client = kit.pair(wire)
    content = bytearray(b"before")
    future = client.submit("POST", server.url("/echo"), content=content)
    content[:] = b"behind"
    assert future.result(WAIT_S).content == b"before"
