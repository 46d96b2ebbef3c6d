"""Each phase of a request has its own timeout with its own error, and a stream that times out harms no sibling."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from client_support import H1_PLAIN, H2_TLS, Kit, Wire, error_of, raised

import hyperpool
from hyperpool.testing import Reply, Request, ScriptedConnection, pattern
from stage import WAIT_S, eventually, in_time, opened

SHORT_S = 0.1

PHASES = {
    "pool": hyperpool.PoolTimeout,
    "connect": hyperpool.ConnectTimeout,
    "write": hyperpool.WriteTimeout,
    "read": hyperpool.ReadTimeout,
    "total": hyperpool.TotalTimeout,
}


def check(error: Any, phase: str, origin: str) -> None:
    assert type(error) is PHASES[phase]
    assert isinstance(error, TimeoutError) and isinstance(error, hyperpool.HyperpoolError)
    assert error.phase == phase
    assert error.origin == origin
    assert sum(error.spent_s.values()) >= SHORT_S
    assert all(seconds >= 0 for seconds in error.spent_s.values())
    assert f"Timeout.{phase}" in str(error)


@pytest.mark.parametrize("phase", PHASES)
def test_a_timeout_of_years_is_as_good_as_none(kit: Kit, wire: Wire, phase: str) -> None:
    """Selectors refuse more than 24 days: the I/O thread of everybody's requests must not end in one's patience."""
    server, client = kit.pair(wire)
    patience = hyperpool.Timeout(**{**dict.fromkeys(PHASES), phase: 1e12})
    assert client.get(server.url("/bytes/3"), timeout=patience).content == pattern(3)


def test_who_waits_0_s_for_a_slot_takes_one_that_is_free(kit: Kit, wire: Wire) -> None:
    gate = kit.gate()
    one = hyperpool.Limits(
        max_connections_per_origin=1, max_http1_connections_per_origin=1, max_streams_per_connection=1
    )
    server, client = kit.server(wire), kit.client(wire, limits=one, timeout=hyperpool.Timeout(pool=0))
    server.route("/gated")(lambda request: (opened(gate), "busy")[1])
    assert client.get(server.url("/bytes/3")).content == pattern(3)
    assert client.get(server.url("/bytes/3")).content == pattern(3)
    busy = client.submit("GET", server.url("/gated"))
    assert server.wait_until(lambda server: len(server.requests) == 3, WAIT_S)
    raised(hyperpool.PoolTimeout, lambda: client.get(server.url("/bytes/3")))
    gate.set()
    assert busy.result(WAIT_S).text == "busy"


def test_a_silent_server_is_a_read_timeout_and_its_siblings_go_on(kit: Kit, h2_wire: Wire) -> None:
    gate = kit.gate()
    server, client = kit.pair(h2_wire)
    server.route("/gated")(lambda request: (opened(gate), "sibling")[1])
    sibling = client.submit("GET", server.url("/gated"))
    silent = client.submit("GET", server.url("/fault/silence"), timeout=hyperpool.Timeout(read=SHORT_S))
    error = error_of(silent, hyperpool.ReadTimeout)
    check(error, "read", server.origin)
    assert error.spent_s["read"] >= SHORT_S
    assert (error.processed, error.stream_id) == ("maybe", 3)
    assert server.wait_until(lambda server: [one.reset_code for one in server.requests[1:]] == [8], WAIT_S)
    gate.set()
    assert sibling.result(WAIT_S).text == "sibling"
    assert client.get(server.url("/bytes/3")).content == pattern(3)
    assert server.connections_accepted == 1


def test_a_silent_http1_server_is_a_read_timeout_and_its_socket_is_closed(kit: Kit, h1_wire: Wire) -> None:
    server, client = kit.pair(h1_wire)
    error = error_of(
        client.submit("GET", server.url("/fault/silence"), timeout=hyperpool.Timeout(read=SHORT_S)),
        hyperpool.ReadTimeout,
    )
    check(error, "read", server.origin)
    assert (error.processed, error.stream_id) == ("maybe", None)
    assert server.wait_until(lambda server: server.connections_open == 0, WAIT_S)
    assert client.get(server.url("/bytes/3")).content == pattern(3)


def test_a_pause_within_the_body_is_a_read_timeout(kit: Kit, wire: Wire) -> None:
    server, client = kit.pair(wire, lambda request: Reply(200, body=stalling(kit)))
    error = raised(hyperpool.ReadTimeout, lambda: client.get(server.url(), timeout=hyperpool.Timeout(read=SHORT_S)))
    check(error, "read", server.origin)


def stalling(kit: Kit) -> Iterator[bytes]:
    """A body that begins, and goes on when the test is over."""
    gate = kit.gate()
    yield b"a beginning"
    opened(gate)


def test_a_pause_within_a_streamed_body_is_a_read_timeout_after_what_had_come(kit: Kit, wire: Wire) -> None:
    server, client = kit.pair(wire, lambda request: Reply(200, body=stalling(kit)))
    with in_time(lambda: begun(client, server.url(), b"a beginning", hyperpool.Timeout(read=SHORT_S))) as response:
        check(raised(hyperpool.ReadTimeout, lambda: response.read(1)), "read", server.origin)
        raised(hyperpool.ReadTimeout, lambda: response.read(1))


def begun(client: Any, url: str, beginning: bytes, timeout: hyperpool.Timeout) -> Any:
    """A streamed response of which the head and this much of the body have come."""
    response = client.submit("GET", url, stream=True, timeout=timeout).result(WAIT_S)
    assert response.read(len(beginning)) == beginning
    return response


def test_a_reader_that_pauses_for_longer_than_the_read_timeout_loses_nothing(kit: Kit, wire: Wire) -> None:
    server, client = kit.pair(wire)
    slow = hyperpool.Timeout(read=SHORT_S)

    def pausing() -> bytes:
        with begun(client, server.url("/bytes/20000000"), pattern(10), slow) as response:
            # A sibling that times out after just as long stands for the pause: nothing here sleeps.
            error_of(client.submit("GET", server.url("/fault/silence"), timeout=hyperpool.Timeout(read=3 * SHORT_S)))
            return pattern(10) + response.read()

    assert in_time(pausing) == pattern(20_000_000)


def test_a_body_that_comes_slowly_but_steadily_is_no_read_timeout(kit: Kit, wire: Wire) -> None:
    def dripping() -> Iterator[bytes]:
        pause = threading.Event()
        for n in range(6):
            pause.wait(SHORT_S)
            yield b"%d" % n

    server, client = kit.pair(wire, lambda request: Reply(200, body=dripping()))
    patience = hyperpool.Timeout(read=4 * SHORT_S)
    assert in_time(lambda: client.get(server.url(), timeout=patience)).content == b"012345"


def test_total_bounds_the_whole_exchange_however_steadily_it_goes_on(kit: Kit, wire: Wire) -> None:
    def endless() -> Iterator[bytes]:
        pause = threading.Event()
        while True:
            yield b"x"
            pause.wait(SHORT_S / 10)

    server, client = kit.pair(wire, lambda request: Reply(200, body=endless()))

    def was_sent() -> bool:
        error = raised(hyperpool.TotalTimeout, lambda: client.get(server.url(), timeout=SHORT_S))
        check(error, "total", server.origin)
        return bool(error.processed == "maybe")

    # On a busy machine the first one's time may be over before there is a connection.
    assert eventually(was_sent)


def test_total_of_a_streamed_response_ends_at_its_head(kit: Kit, wire: Wire) -> None:
    gate = kit.gate()

    def late() -> Iterator[bytes]:
        opened(gate)
        yield b"late"

    server, client = kit.pair(wire)
    server.route("/late")(lambda request: Reply(200, body=late()))
    with in_time(lambda: begun(client, server.url("/late"), b"", hyperpool.Timeout(SHORT_S))) as response:
        # A request that is made now, and times out after just as long, stands for the wait: nothing here sleeps.
        error_of(client.submit("GET", server.url("/fault/silence"), timeout=SHORT_S), hyperpool.TotalTimeout)
        gate.set()
        assert response.read() == b"late"


def test_total_of_a_streamed_response_counts_until_its_head(kit: Kit, wire: Wire) -> None:
    server, client = kit.pair(wire)
    future = client.submit("GET", server.url("/fault/silence"), stream=True, timeout=SHORT_S)
    check(error_of(future, hyperpool.TotalTimeout), "total", server.origin)


@pytest.mark.parametrize("total_s", [0, 0.0])
def test_a_total_of_zero_times_out_at_once(kit: Kit, total_s: float) -> None:
    server, client = kit.pair()
    assert error_of(client.submit("GET", server.url(), timeout=total_s), hyperpool.TotalTimeout).processed == "no"


def test_a_server_that_takes_nothing_of_the_body_is_a_write_timeout_and_its_siblings_go_on(
    kit: Kit, h2_wire: Wire
) -> None:
    gate = kit.gate()
    server, client = kit.pair(h2_wire)
    server.route("/unread")(lambda request: (opened(gate), "late")[1])
    upload = client.submit(
        "POST", server.url("/unread"), content=bytes(8 << 20), timeout=hyperpool.Timeout(write=SHORT_S)
    )
    error = error_of(upload, hyperpool.WriteTimeout)
    check(error, "write", server.origin)
    assert error.processed == "maybe"
    assert client.post(server.url("/echo"), content=pattern(1000)).content == pattern(1000)
    assert server.connections_accepted == 1


def test_an_http1_server_that_takes_nothing_of_the_body_is_a_write_timeout(kit: Kit, h1_wire: Wire) -> None:
    gate = kit.gate()
    server, client = kit.pair(h1_wire)
    server.route("/unread")(lambda request: (opened(gate), "late")[1])
    upload = client.submit(
        "POST", server.url("/unread"), content=bytes(64 << 20), timeout=hyperpool.Timeout(write=SHORT_S)
    )
    check(error_of(upload, hyperpool.WriteTimeout), "write", server.origin)
    assert client.get(server.url("/bytes/3")).content == pattern(3)


def test_a_slow_generator_is_no_write_timeout(kit: Kit, wire: Wire) -> None:
    server, client = kit.pair(wire)

    def slow() -> Iterator[bytes]:
        yield b"a"
        raised(hyperpool.ReadTimeout, lambda: client.get(server.url("/fault/silence"), timeout=(WAIT_S, 4 * SHORT_S)))
        yield b"b"

    timeout = hyperpool.Timeout(write=SHORT_S, read=WAIT_S)
    # The little that is written may take as long on a busy machine.
    assert in_time(lambda: client.post(server.url("/echo"), content=slow(), timeout=timeout)).content == b"ab"


def test_waiting_for_a_stream_slot_is_a_pool_timeout(kit: Kit, wire: Wire) -> None:
    gate = kit.gate()
    server = kit.server(wire, lambda request: (opened(gate), "through")[1])
    limits = hyperpool.Limits(
        max_connections_per_origin=1, max_http1_connections_per_origin=1, max_streams_per_connection=1
    )
    client = kit.client(wire, limits=limits)
    first = client.submit("GET", server.url("/first"))
    assert server.wait_until(lambda server: len(server.requests) == 1, WAIT_S)
    error = error_of(
        client.submit("GET", server.url("/second"), timeout=hyperpool.Timeout(pool=SHORT_S)), hyperpool.PoolTimeout
    )
    check(error, "pool", server.origin)
    assert (error.processed, error.stream_id) == ("no", None)
    gate.set()
    assert first.result(WAIT_S).text == "through"
    assert [one.target for one in server.requests] == ["/first"]


def silent_until(gate: threading.Event) -> Any:
    def script(connection: ScriptedConnection) -> None:
        opened(gate)

    return script


def test_a_handshake_that_never_ends_is_a_connect_timeout(kit: Kit) -> None:
    gate = kit.gate()
    peer = kit.peer(silent_until(gate), tls=False)
    client = kit.client()
    origin = peer.origin.replace("http:", "https:")
    error = raised(
        hyperpool.ConnectTimeout, lambda: client.get(origin + "/", timeout=hyperpool.Timeout(connect=SHORT_S))
    )
    check(error, "connect", origin)
    assert error.processed == "no"


def test_a_connect_that_never_ends_is_a_connect_timeout(kit: Kit) -> None:
    # A listener with a full backlog: Linux drops further SYNs, as a firewall would.
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        address = listener.getsockname()
        filling = [socket.socket() for _ in range(4)]
        for sock in filling:
            sock.setblocking(False)
            sock.connect_ex(address)
        client = kit.client(H1_PLAIN)
        url = f"http://127.0.0.1:{address[1]}/"
        error = raised(hyperpool.ConnectTimeout, lambda: client.get(url, timeout=hyperpool.Timeout(connect=SHORT_S)))
        assert (error.phase, error.origin) == ("connect", url.rstrip("/"))
        for sock in filling:
            sock.close()


def test_a_name_that_takes_too_long_to_resolve_is_a_connect_timeout(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = kit.gate()

    def slow(*args: Any, **kwargs: Any) -> Any:
        opened(gate)
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    # The resolver's default was bound when its module was first imported.
    from hyperpool.engine import resolve

    monkeypatch.setitem(resolve.Resolver.__init__.__kwdefaults__, "getaddrinfo", slow)
    client = kit.client(H1_PLAIN)
    timeout = hyperpool.Timeout(connect=SHORT_S)
    error = raised(hyperpool.ConnectTimeout, lambda: client.get("http://slow.invalid/", timeout=timeout))
    check(error, "connect", "http://slow.invalid")
    gate.set()


def test_each_waiter_of_one_dial_keeps_its_own_patience(kit: Kit) -> None:
    gate = kit.gate()
    peer = kit.peer(silent_until(gate), tls=False)
    client = kit.client()
    url = peer.url().replace("http:", "https:")
    patient = client.submit("GET", url, timeout=hyperpool.Timeout(connect=WAIT_S))
    hasty = client.submit("GET", url, timeout=hyperpool.Timeout(connect=SHORT_S))
    error_of(hasty, hyperpool.ConnectTimeout)
    assert not patient.done()
    patient.cancel()
    client.close(grace_s=0)


def test_a_hasty_first_waiter_does_not_take_the_connection_from_a_patient_second(kit: Kit) -> None:
    gate = kit.gate()
    answered = threading.Event()

    def script(connection: ScriptedConnection) -> None:
        if connection.number == 1:
            opened(gate)
            return
        connection.recv_until(b"\r\n\r\n")
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        answered.wait(WAIT_S)

    # Two plaintext peers would connect at once; so the name is what takes its time, the first time only.
    peer = kit.peer(script, tls=False)
    client = kit.client(H1_PLAIN)
    first = client.submit("GET", peer.url(), timeout=hyperpool.Timeout(read=SHORT_S))
    error_of(first, hyperpool.ReadTimeout)
    assert client.get(peer.url()).text == "ok"
    answered.set()
    gate.set()


def test_a_builtin_timeout_error_catches_each_of_them() -> None:
    for kind in PHASES.values():
        assert issubclass(kind, TimeoutError)


def test_100_streams_time_out_while_100_others_on_the_connection_are_answered(kit: Kit) -> None:
    server = kit.server(max_concurrent_streams=100)
    client = kit.client(limits=hyperpool.Limits(max_connections_per_origin=1))
    timeout = hyperpool.Timeout(read=2 * SHORT_S)
    silent = [client.submit("GET", server.url("/fault/silence"), timeout=timeout) for _ in range(100)]
    others = [client.submit("GET", server.url(f"/bytes/{n}")) for n in range(100)]
    assert {type(error_of(future)) for future in silent} == {hyperpool.ReadTimeout}
    assert [len(future.result(WAIT_S).content) for future in others] == list(range(100))
    assert server.connections_accepted == 1


def test_a_future_that_nobody_waits_for_times_out_as_well(kit: Kit, wire: Wire) -> None:
    server, client = kit.pair(wire)
    done = threading.Event()
    future = client.submit("GET", server.url("/fault/silence"), timeout=SHORT_S)
    future.add_done_callback(lambda _: done.set())
    assert done.wait(WAIT_S)


def test_a_dead_http2_connection_is_found_out_by_ping_after_a_stream_timed_out(kit: Kit) -> None:
    gate = kit.gate()

    def script(connection: ScriptedConnection) -> None:
        connection.greet()
        opened(gate)

    peer = kit.peer(script)
    client = kit.client(limits=hyperpool.Limits(ping_timeout_s=2 * SHORT_S))
    patient = client.submit("GET", peer.url("/patient"))
    hasty = client.submit("GET", peer.url("/hasty"), timeout=hyperpool.Timeout(read=SHORT_S))
    error_of(hasty, hyperpool.ReadTimeout)
    error = error_of(patient, hyperpool.ConnectionLost)
    assert "PING" in str(error)
    gate.set()


def test_silence_on_a_connection_with_open_streams_is_asked_about(kit: Kit) -> None:
    gate = kit.gate()

    def script(connection: ScriptedConnection) -> None:
        connection.greet()
        opened(gate)

    peer = kit.peer(script)
    client = kit.client(limits=hyperpool.Limits(ping_after_s=SHORT_S, ping_timeout_s=SHORT_S))
    assert "PING" in str(error_of(client.submit("GET", peer.url()), hyperpool.ConnectionLost))
    gate.set()


def test_a_peer_without_settings_is_given_up(kit: Kit) -> None:
    gate = kit.gate()
    peer = kit.peer(silent_until(gate))
    client = kit.client(limits=hyperpool.Limits(settings_timeout_s=SHORT_S))
    assert "SETTINGS" in str(error_of(client.submit("GET", peer.url()), hyperpool.RemoteProtocolError))
    gate.set()


@pytest.mark.parametrize("given", [45, 45.0, (40, 45), None, hyperpool.Timeout(45)], ids=repr)
def test_a_timeout_is_taken_in_the_forms_that_people_know(kit: Kit, given: Any) -> None:
    server, client = kit.pair(timeout=given)
    assert client.get(server.url("/bytes/1"), timeout=given).status_code == 200


def test_a_urllib3_timeout_is_taken(kit: Kit) -> None:
    import urllib3

    server, client = kit.pair()
    timeout = urllib3.Timeout(connect=WAIT_S, read=SHORT_S)
    raised(hyperpool.ReadTimeout, lambda: client.get(server.url("/fault/silence"), timeout=timeout))


@pytest.mark.parametrize("given", ["5", (1, 2, 3), {"read": 5}, True], ids=repr)
def test_a_timeout_of_a_wrong_type_is_a_type_error_in_the_caller(kit: Kit, given: Any) -> None:
    client = kit.client(H2_TLS)
    raised(TypeError, lambda: client.submit("GET", "https://localhost:1/", timeout=given))


@pytest.mark.parametrize("given", [-1, float("nan"), float("inf")], ids=repr)
def test_a_timeout_out_of_range_is_a_value_error_in_the_caller(kit: Kit, given: float) -> None:
    client = kit.client(H2_TLS)
    raised(ValueError, lambda: client.submit("GET", "https://localhost:1/", timeout=given))


def test_the_clients_timeout_is_the_default_of_its_calls(kit: Kit) -> None:
    server, client = kit.pair(timeout=SHORT_S)
    raised(hyperpool.TotalTimeout, lambda: client.get(server.url("/fault/silence")))

    @server.route("/slow")
    def slow(request: Request) -> str:
        request.wait_gone(3 * SHORT_S)
        return "slow"

    assert client.get(server.url("/slow"), timeout=None).text == "slow"
