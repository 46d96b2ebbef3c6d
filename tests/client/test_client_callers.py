"""Callers that do what they should not: a body that blocks, a Future that they resolve, two readers, endless callbacks.

Nothing hangs, nothing dies loudly, and the client serves the next request. See test_client_injection.py for what
callers write into requests, test_client_uploads.py for bodies that raise or give the wrong thing.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from client_support import H1_PLAIN, H2_TLS, Kit, Wire, error_of

import hyperpool
from hyperpool.testing import pattern
from stage import WAIT_S, eventually, opened


def serves(client: Any, server: Any) -> bool:
    """Whether the client works as if nothing had happened."""
    return bool(client.get(server.url("/bytes/3"), timeout=WAIT_S).content == pattern(3))


# -- bodies ------------------------------------------------------------------------------------------------------------


class Blocking:
    """A body whose second piece never comes, until the test lets it go."""

    def __init__(self, gate: threading.Event) -> None:
        self.gate = gate
        self.asked = threading.Event()

    def __iter__(self) -> Any:
        yield b"first"
        self.asked.set()
        opened(self.gate)
        yield b"too late"


def test_a_request_whose_body_blocks_can_be_cancelled(kit: Kit, wire: Wire) -> None:
    server, client = kit.pair(wire)
    body = Blocking(kit.gate())
    future = client.submit("POST", server.url("/echo"), content=body)
    opened(body.asked)
    assert future.cancel()
    assert serves(client, server)
    body.gate.set()


def test_a_request_whose_body_blocks_ends_with_its_total_timeout(kit: Kit, wire: Wire) -> None:
    server, client = kit.pair(wire)
    body = Blocking(kit.gate())
    future = client.submit("POST", server.url("/echo"), content=body, timeout=hyperpool.Timeout(total=0.1))
    error_of(future, hyperpool.TotalTimeout)
    assert serves(client, server)
    body.gate.set()


def test_close_does_not_wait_for_a_body_that_blocks(kit: Kit, wire: Wire) -> None:
    server, client = kit.pair(wire)
    body = Blocking(kit.gate())
    future = client.submit("POST", server.url("/echo"), content=body)
    opened(body.asked)
    client.close(grace_s=0)
    error_of(future, hyperpool.PoolClosed)
    body.gate.set()


def test_a_body_that_blocks_delays_no_other(kit: Kit, wire: Wire) -> None:
    server, client = kit.pair(wire)
    body = Blocking(kit.gate())
    future = client.submit("POST", server.url("/echo"), content=body)
    opened(body.asked)
    assert serves(client, server)
    body.gate.set()
    assert future.result(WAIT_S).content == b"firsttoo late"


def test_one_piece_of_100_mb_is_sent_in_frames(kit: Kit, wire: Wire) -> None:
    server, client = kit.pair(wire, timeout=60)
    assert client.post(server.url("/sha256"), content=iter([bytes(100 << 20)])).json()["length"] == 100 << 20


def test_a_file_that_is_closed_during_its_upload_raises_its_own_error_and_the_client_goes_on(
    kit: Kit, wire: Wire, tmp_path: Path
) -> None:
    server, client = kit.pair(wire)
    path = tmp_path / "body"
    path.write_bytes(bytes(10 << 20))

    class ClosesItself:
        def __init__(self) -> None:
            self.file = path.open("rb")
            self.tell, self.seek = self.file.tell, self.file.seek

        def read(self, n: int) -> bytes:
            piece = self.file.read(n)
            self.file.close()
            return piece

    error_of(client.submit("POST", server.url("/sha256"), content=ClosesItself()), ValueError)
    assert serves(client, server)


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, GeneratorExit])
def test_a_thread_that_dies_while_it_uploads_fails_its_request_alone(kit: Kit, wire: Wire, error: Any) -> None:
    server, client = kit.pair(wire)

    def dies() -> Any:
        yield b"x"
        raise error

    assert isinstance(client.submit("POST", server.url("/echo"), content=dies()).exception(WAIT_S), error)
    assert serves(client, server)


def test_pieces_that_come_after_the_cancel_are_dropped(kit: Kit, wire: Wire) -> None:
    server, client = kit.pair(wire)
    going_on, closed = kit.gate(), threading.Event()

    def endless() -> Any:
        try:
            yield b"x"
            opened(going_on)
            while True:
                yield b"y"
        finally:
            closed.set()

    future = client.submit("POST", server.url("/echo"), content=endless())
    assert server.wait_until(lambda server: any(one.body_bytes for one in server.requests), WAIT_S)
    assert future.cancel()
    going_on.set()
    opened(closed)
    assert serves(client, server)


# -- Futures and callbacks ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
def test_a_future_that_the_caller_resolves_harms_nothing_and_frees_its_slot(
    kit: Kit, wire: Wire, stream: bool, caplog: pytest.LogCaptureFixture
) -> None:
    server, client = kit.pair(wire)
    gate = kit.gate()
    server.route("/gated")(lambda request: (opened(gate), "late")[1])
    future = client.submit("GET", server.url("/gated"), stream=stream)
    future.set_result("mine")
    gate.set()
    assert eventually(lambda: client.pool.stats().open_streams == client.pool.stats().queued == 0)
    assert serves(client, server)
    assert future.result() == "mine"
    assert caplog.records == []


def test_a_chain_of_2000_callbacks_that_each_submit_is_no_recursion(kit: Kit, wire: Wire) -> None:
    server, client = kit.pair(wire, timeout=200)
    left, done = [2000], threading.Event()

    def again(future: Any) -> None:
        if future.exception() is not None or not left[0]:
            done.set()
            return
        left[0] -= 1
        client.submit("GET", server.url("/bytes/1")).add_done_callback(again)

    client.submit("GET", server.url("/bytes/1")).add_done_callback(again)
    assert done.wait(200) and left == [0]


def test_a_callback_may_cancel_its_own_future_and_submit_after_the_close(kit: Kit, wire: Wire) -> None:
    server, client = kit.pair(wire)
    seen: list[Any] = []
    done = threading.Event()

    def callback(future: Any) -> None:
        seen.append(future.cancel())
        client.close()
        try:
            client.submit("GET", server.url("/bytes/1"))
        except hyperpool.PoolClosed as error:
            seen.append(type(error))
        done.set()

    client.submit("GET", server.url("/bytes/1")).add_done_callback(callback)
    assert done.wait(WAIT_S) and seen == [False, hyperpool.PoolClosed]


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_burst_of_100000_submits_is_answered_or_refused_within_the_bound(kit: Kit) -> None:
    server, begins, inside, gate = kit.server(H2_TLS), kit.gate(), kit.gate(), kit.gate()
    server.route("/first")(lambda request: (opened(begins), "first")[1])
    client = kit.client(H2_TLS, limits=hyperpool.Limits(max_queued_per_origin=1000), timeout=300)
    url = server.url("/bytes/1")
    blocked = client.submit("GET", server.url("/first"))
    blocked.add_done_callback(lambda _: inside.set() or gate.wait(300))  # nothing is answered while all are submitted
    begins.set()
    opened(inside)
    futures = [client.submit("GET", url) for _ in range(100_000)]
    gate.set()
    outcomes = [future.exception(300) for future in futures]
    assert {type(one) for one in outcomes} == {type(None), hyperpool.PoolFull}
    assert sum(one is None for one in outcomes) >= 1000
    assert serves(client, server)


def test_headers_that_are_changed_after_submit_are_sent_as_they_were(kit: Kit, wire: Wire) -> None:
    server, client = kit.pair(wire)
    headers = {"X-Mine": "before"}
    future = client.submit("GET", server.url("/headers"), headers=headers)
    headers["X-Mine"] = "after\r\n"
    assert ["x-mine", "before"] in [[name.lower(), value] for name, value in future.result(WAIT_S).json()]


# -- one response, two threads -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("wire", [H2_TLS, H1_PLAIN], ids=str)
def test_a_second_thread_that_reads_at_the_same_time_is_refused_and_takes_nothing(kit: Kit, wire: Wire) -> None:
    gate, first_waits = kit.gate(), threading.Event()

    def answer(request: Any) -> Any:
        def pieces() -> Any:
            first_waits.set()
            opened(gate)
            yield pattern(100_000)

        from hyperpool.testing import Reply

        return Reply(200, (), pieces())

    server = kit.server(wire, answer)
    client = kit.client(wire, timeout=WAIT_S)
    with client.stream("GET", server.url("/")) as response:
        first = kit.threads(1).submit(response.read)
        assert eventually(lambda: bool(response._reading))
        with pytest.raises(hyperpool.LocalProtocolError, match="one reader at a time"):
            response.read(10)
        gate.set()
        assert first.result(WAIT_S) == pattern(100_000)
        assert response.read() == b""


@pytest.mark.slow
@pytest.mark.parametrize("wire", [H2_TLS, H1_PLAIN], ids=str)
def test_threads_that_share_a_response_get_each_byte_once(kit: Kit, wire: Wire) -> None:
    server, client = kit.pair(wire, timeout=60)
    n = 3_000_000
    with client.stream("GET", server.url(f"/bytes/{n}")) as response:

        def read() -> int:
            got = 0
            while True:
                try:
                    piece = response.read(1000)
                except hyperpool.LocalProtocolError:
                    continue
                if not piece:
                    return got
                got += len(piece)

        assert sum(one.result(WAIT_S) for one in [kit.threads(4).submit(read) for _ in range(4)]) == n
