"""What keeps a dial for ever, phase by phase: a name service, addresses, a proxy, a TLS server.

RELIABILITY T1 and the row "time" of its table. Each phase has three ways to do it: silence; a drip, so that the next
piece is always about to come; and noise, which looks like life and brings nothing. HTTP/2 knows PING for that; where
there is no HTTP/2 yet, noise is what the layer has in its place, and the cell's name says what. The phases behind a
dial are in test_loop_hostile_time.py.

Time is ours: a wait of the dial lets `STEP_S` pass at most, then the far side acts once; a wait that ends at once costs
`COST_S`, so that a far side which is faster than its reader takes time as well. Bytes go through pairs of sockets.
"""

from __future__ import annotations

import errno
import selectors
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hyperframe.frame import PingFrame
from test_dial import HOST, WAIT_S, Mute, credential, server_context

import hyperpool
from hyperpool.engine.dial import Seams, dial
from hyperpool.engine.dial_cancel import DialCancel
from hyperpool.engine.resolve import MAX_ADDRESSES, Resolver
from hyperpool.engine.trust import TlsConfig
from hyperpool.errors import ConnectTimeout, HyperpoolError, ProxyError, TlsError
from hyperpool.proxies import parse_proxy
from hyperpool.testing import Server
from hyperpool.urls import Origin
from hyperpool.values import Route, TlsSettings

TIMEOUT_S, GRACE_S = 5.0, 0.25
STEP_S, COST_S = 0.25, 0.005
MOST_WAITS = 100_000
PORT = 1234

Act = Callable[[int], object]


def nothing(n: int) -> None:
    """What a silent one does."""


class World:
    """All that is outside of one dial.

    ``act`` is what the far side does when the dial waits for it, with 0, 1, 2, ...; where it is ``busy``, it does so
    whether the dial waits or not, and without a pause.
    ``sockets`` are the dial's own, ``far`` the other ends of those that connect.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.now = 1000.0
        self.act: Act = nothing
        self.busy = False
        self.acts = self.waits = 0
        self.addresses = ["192.0.2.1"]
        self.ask: Callable[[str, int], Any] = lambda host, port: self.addresses
        self.answers_at_once = True
        self.kind: Callable[[World], socket.socket] = Piped
        self.sockets: list[socket.socket] = []
        self.far: list[socket.socket] = []
        self.cancel = DialCancel()
        self.over = threading.Event()

    def make_socket(self, family: int, kind: int) -> socket.socket:
        self.now += COST_S
        self.sockets.append(self.kind(self))
        return self.sockets[-1]

    def dial(self, scheme: str, proxy: str | None) -> None:
        """A dial that fails."""
        settings = TlsSettings(verify=credential()[0])
        resolver = Resolver(ask=self.ask)
        if self.answers_at_once:  # else it would be up to the threads whether this takes time
            for port in (PORT, 1):
                resolver.resolve(HOST, port)
        dial(
            Route(Origin(scheme, HOST, PORT), settings, proxy=None if proxy is None else parse_proxy(proxy)),
            tls_config=TlsConfig(settings),
            resolver=resolver,
            deadline_at=self.now + TIMEOUT_S,
            cancelled=self.cancel,
            seams=Seams(lambda: self.now, self.make_socket, lambda: Slow(self)),
        )

    def go_on(self) -> None:
        self.act(self.acts)
        self.acts += 1

    def say(self, data: bytes) -> None:
        """Put bytes into the connection that won; what does not fit is left out, and so is what comes after its end."""
        for far in self.far:
            with suppress(OSError):
                far.send(data)

    def close(self) -> None:
        self.over.set()
        for sock in [*self.sockets, *self.far]:
            sock.close()


class Slow(selectors.DefaultSelector):
    """A wait of the world."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self._world = world

    def select(self, timeout: float | None = None) -> Any:
        world = self._world
        world.waits += 1
        assert world.waits < MOST_WAITS, "the dial goes on for ever"
        ready = super().select(0)
        longest_s = STEP_S if timeout is None else min(timeout, STEP_S)
        world.now += COST_S if ready or world.busy else longest_s
        if world.busy or not ready:
            world.go_on()
        return ready or super().select(0)


class Piped(socket.socket):
    """A socket that connects at once; the world has its other end."""

    def __init__(self, world: World) -> None:
        mine, far = socket.socketpair()
        far.setblocking(False)
        world.far.append(far)
        super().__init__(fileno=mine.detach())

    def setsockopt(self, *_: Any) -> None:
        return None

    def connect_ex(self, _: Any) -> int:
        return 0


class Refused(Mute):
    """A connect that is under way until it is refused."""

    def refuse(self) -> None:
        """Make it ready, with an error."""
        if self.fileno() != -1:
            self.other.setblocking(False)
            with suppress(BlockingIOError):
                while self.other.recv(1 << 20):
                    continue

    def getsockopt(self, *_: Any) -> Any:
        return errno.ECONNREFUSED


class RefusedAtOnce(Mute):
    def connect_ex(self, _: Any) -> int:
        return errno.ECONNREFUSED


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    yield world
    world.close()


def silent(world: World) -> Act:
    """Whoever has been connected to says nothing."""
    return nothing


# -- the name ----------------------------------------------------------------------------------------------------------


def no_answer(world: World) -> Act:
    world.answers_at_once = False
    world.ask = lambda host, port: world.over.wait(WAIT_S) and ["192.0.2.1"]
    return nothing


def one_address_after_another(world: World) -> Act:
    """The resolver is a generator, which always has one more."""
    world.answers_at_once = False
    wanted, taken = threading.Semaphore(0), threading.Semaphore(0)

    def ask(host: str, port: int) -> Iterator[str]:
        for n in range(MAX_ADDRESSES - 1):
            while not (wanted.acquire(timeout=0.01) or world.over.is_set()):
                continue
            if world.over.is_set():
                return
            yield f"192.0.2.{n}"
            taken.release()

    def act(n: int) -> None:
        wanted.release()
        assert taken.acquire(timeout=WAIT_S)

    world.ask = ask
    return act


def wake_ups(world: World) -> Act:
    """What wakes a dial is a hint to look, no answer."""

    def act(n: int) -> None:
        for wakeup in list(world.cancel._wakeups):
            world.cancel.wake(wakeup)

    return act


def no_answer_but_wake_ups(world: World) -> Act:
    no_answer(world)
    world.busy = True
    return wake_ups(world)


# -- the addresses -----------------------------------------------------------------------------------------------------


def a_connect_without_an_answer(world: World) -> Act:
    world.kind = lambda world: Mute()
    return nothing


def a_thousand_addresses(world: World) -> Act:
    world.addresses = [f"192.0.{n // 250}.{n % 250}" for n in range(1_000)]
    return a_connect_without_an_answer(world)


def one_refusal_after_another(world: World) -> Act:
    a_thousand_addresses(world)
    world.kind = lambda world: Refused()
    return lambda n: world.sockets[-1].refuse()  # type: ignore[attr-defined]


def refusals_as_fast_as_they_are_taken(world: World) -> Act:
    a_thousand_addresses(world)
    world.kind = slowly_refused
    return nothing


def slowly_refused(world: World) -> socket.socket:
    world.now += 1.1 * TIMEOUT_S / MAX_ADDRESSES  # else the addresses would be over before the deadline is
    return RefusedAtOnce()


def a_connect_with_wake_ups(world: World) -> Act:
    a_connect_without_an_answer(world)
    world.busy = True
    return wake_ups(world)


# -- the proxy ---------------------------------------------------------------------------------------------------------


def drip(world: World, data: bytes) -> Act:
    return lambda n: world.say(data[n : n + 1] or data[-1:])


def half_an_answer(world: World) -> Act:
    return drip(world, b"HTTP/1.1 200 Connection established\r\nx: yyyy")


def interim_answers(world: World) -> Act:
    return lambda n: world.say(b"HTTP/1.1 103 Early Hints\r\n\r\n")


def interim_answers_without_a_pause(world: World) -> Act:
    world.busy = True
    return interim_answers(world)


def half_a_socks_reply(world: World) -> Act:
    return drip(world, b"\x05\x00" + b"\x05\x00\x00\x03\xff" + b"y" * 255)


class TlsPeer:
    """The server's side of TLS, as bytes; ``said`` is what it has answered and not given out."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        context = server_context(world.folder)
        self.session = context.wrap_bio(self._incoming, self._outgoing, server_side=True)

    def answer(self) -> bytes:
        """Take what the client has sent; what is to be said to it."""
        for far in self._world.far:
            with suppress(BlockingIOError, ConnectionError):
                self._incoming.write(far.recv(1 << 20))
        with suppress(ssl.SSLWantReadError):
            self.session.do_handshake()
        return self._outgoing.read()

    def seal(self, data: bytes) -> bytes:
        self.session.write(data)
        return self._outgoing.read()


def half_an_answer_in_a_session(world: World) -> Act:
    """Each byte is a record of its own."""
    peer: list[TlsPeer] = []

    def act(n: int) -> None:
        peer[:] = peer or [TlsPeer(world)]
        world.say(peer[0].answer())
        if n > 3:
            world.say(peer[0].seal(b"H" if n == 4 else b"TTP/1.1 200 "[n - 5 : n - 4] or b"y"))

    return act


# -- TLS ---------------------------------------------------------------------------------------------------------------


def record(kind: int, body: bytes) -> bytes:
    return bytes([kind]) + b"\x03\x03" + len(body).to_bytes(2, "big") + body


ALERT, HANDSHAKE = 21, 22
# RFC 5246 7.4.1.1: a client that is shaking hands already ignores it.
HELLO_REQUEST = record(HANDSHAKE, bytes(4))
NO_RENEGOTIATION = record(ALERT, b"\x01\x64")  # a warning


def half_a_server_hello(world: World) -> Act:
    return drip(world, b"\x16\x03\x03\x3f\xfc\x02\x00\x3f\xf8\x03\x03")


def a_server_hello_in_records_of_one_byte(world: World) -> Act:
    hello = b"\x02\x00\x3f\xf8\x03\x03"
    return lambda n: world.say(record(HANDSHAKE, hello[n : n + 1] or b"y"))


def an_honest_flight_byte_by_byte(world: World) -> Act:
    """It would be complete after some minutes."""
    flight = bytearray()

    def act(n: int) -> None:
        if not flight:
            flight.extend(TlsPeer(world).answer())
            assert len(flight) > 500
        world.say(bytes(flight[n : n + 1]))

    return act


def hello_requests(world: World) -> Act:
    return lambda n: world.say(HELLO_REQUEST)


def hello_requests_without_a_pause(world: World) -> Act:
    world.busy = True
    return lambda n: world.say(HELLO_REQUEST * 10)


def warnings(world: World) -> Act:
    return lambda n: world.say(NO_RENEGOTIATION)


def pings(world: World) -> Act:
    return lambda n: world.say(PingFrame(0, opaque_data=bytes(8)).serialize())


# -- the cells ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cell:
    """A way to keep a dial: ``phase`` is where it ends; ``kind``, and whether that may be before its deadline."""

    phase: str
    begin: Callable[[World], Act]
    scheme: str = "https"
    proxy: str | None = None
    kind: type[HyperpoolError] = ConnectTimeout


HTTP, HTTPS, SOCKS = f"http://{HOST}:1", f"https://{HOST}:1", f"socks5h://{HOST}:1"
CELLS = {
    "name: silence": Cell("dns", no_answer),
    "name: drip of addresses": Cell("dns", one_address_after_another),
    "name: noise, wake-ups without an answer": Cell("dns", no_answer_but_wake_ups),
    "connect: silence": Cell("tcp", a_connect_without_an_answer),
    "connect: drip, one address after another swallows": Cell("tcp", a_thousand_addresses),
    "connect: drip, one address after another refuses": Cell("tcp", one_refusal_after_another),
    "connect: drip, refusals as fast as they are taken": Cell("tcp", refusals_as_fast_as_they_are_taken),
    "connect: noise, wake-ups without an answer": Cell("tcp", a_connect_with_wake_ups),
    "proxy, http: silence": Cell("proxy", silent, proxy=HTTP),
    "proxy, http: drip": Cell("proxy", half_an_answer, proxy=HTTP),
    "proxy, http: noise, interim answers": Cell("proxy", interim_answers, proxy=HTTP),
    "proxy, http: noise without a pause": Cell("proxy", interim_answers_without_a_pause, proxy=HTTP, kind=ProxyError),
    "proxy, https: silence": Cell("proxy", silent, proxy=HTTPS),
    "proxy, https: drip in its handshake": Cell("proxy", half_a_server_hello, proxy=HTTPS),
    "proxy, https: drip in its session": Cell("proxy", half_an_answer_in_a_session, proxy=HTTPS),
    "proxy, https: noise, HelloRequests": Cell("proxy", hello_requests, proxy=HTTPS),
    "proxy, socks5h: silence": Cell("proxy", silent, proxy=SOCKS),
    "proxy, socks5h: drip": Cell("proxy", half_a_socks_reply, proxy=SOCKS),
    "TLS: silence": Cell("tls", silent),
    "TLS: drip of one record": Cell("tls", half_a_server_hello),
    "TLS: drip of records of one byte": Cell("tls", a_server_hello_in_records_of_one_byte),
    "TLS: drip of an honest flight": Cell("tls", an_honest_flight_byte_by_byte),
    "TLS: noise, HelloRequests": Cell("tls", hello_requests),
    "TLS: noise, HelloRequests without a pause": Cell("tls", hello_requests_without_a_pause),
    "TLS: noise, warnings": Cell("tls", warnings, kind=TlsError),
    "TLS: PINGs of HTTP/2": Cell("tls", pings, kind=TlsError),
}

# What costs the far side next to nothing is not served until the deadline.
AT_MOST_S = {ProxyError: 1.0, TlsError: 2.0, ConnectTimeout: TIMEOUT_S + GRACE_S}


@pytest.mark.parametrize("cell", CELLS)
def test_a_dial_ends_on_time_whatever_keeps_it(world: World, cell: str) -> None:
    told = CELLS[cell]
    world.act = told.begin(world)
    began_at = world.now
    with pytest.raises(HyperpoolError) as caught:
        world.dial(told.scheme, told.proxy)
    assert type(caught.value) is told.kind, repr(caught.value)
    assert caught.value.origin == f"https://{HOST}:{PORT}" and caught.value.processed == "no"
    assert world.now <= began_at + AT_MOST_S[told.kind], "not on time"
    if isinstance(caught.value, ConnectTimeout):
        assert world.now >= began_at + TIMEOUT_S
        assert list(caught.value.spent_s)[-1] == told.phase == caught.value.step
    assert [sock for sock in world.sockets if sock.fileno() != -1] == []


def an_open_tunnel_and_silence(world: World) -> Act:
    return lambda n: world.say(b"" if n else b"HTTP/1.1 200 Connection established\r\n\r\n")


AT = "192.0.2.1:1"
BLAMED = {
    "name": (no_answer, None, f"the host name {HOST} was still being resolved"),
    "name of a proxy": (no_answer, HTTP, f"the host name of the proxy {HTTP} was still being resolved"),
    "connect": (a_connect_without_an_answer, None, f"no address had answered; still trying {AT}234"),
    "connect to a proxy": (
        a_connect_without_an_answer,
        SOCKS,
        f"no address of the proxy {SOCKS} had answered; still trying {AT}",
    ),
    "CONNECT": (silent, HTTP, f"the proxy {HTTP} at {AT} had not opened the way: CONNECT was not complete"),
    "SOCKS": (silent, SOCKS, f"the proxy {SOCKS} at {AT} had not opened the way: SOCKS was not complete"),
    "TLS with a proxy": (
        silent,
        HTTPS,
        f"the proxy {HTTPS} at {AT} had not opened the way: the TLS handshake with it was not complete",
    ),
    "TLS": (silent, None, f"the TLS handshake with {AT}234 was not complete"),
    "TLS through a proxy": (
        an_open_tunnel_and_silence,
        HTTP,
        f"the TLS handshake with the origin, through the proxy {HTTP} at {AT}, was not complete",
    ),
}


@pytest.mark.parametrize("case", BLAMED)
def test_who_kept_a_dial_is_named_to_whoever_waits_meanwhile_and_in_its_error(world: World, case: str) -> None:
    begin, proxy, words = BLAMED[case]
    act, meanwhile = begin(world), []

    def look_and_act(n: int) -> None:
        meanwhile.append(world.cancel.phase)
        act(n)

    world.act = look_and_act
    with pytest.raises(ConnectTimeout) as caught:
        world.dial("https", proxy)
    assert str(caught.value) == f"https://{HOST}:{PORT} could not be connected in time: {words}"
    assert meanwhile[-1] == world.cancel.phase == (caught.value.step, words)


def test_of_a_resolver_without_an_end_a_bounded_part_is_taken() -> None:
    """Its thread ends, and the name can be asked for again."""
    given: list[str] = []

    def ask(host: str, port: int) -> Iterator[str]:
        while True:
            given.append(f"192.0.{len(given) // 250 % 250}.{len(given) % 250}")
            yield given[-1]

    resolver = Resolver(ask=ask)
    assert len(resolver.resolve(HOST, PORT)) == MAX_ADDRESSES == len(given)


def test_a_request_ends_in_its_own_timeout_while_a_resolver_drips() -> None:
    """The same through a whole client, by the real clock: the next request to another name is served."""
    over = threading.Event()

    def ask(host: str, port: int) -> Iterator[str]:
        while host == HOST and not over.wait(0.01):
            yield "192.0.2.1"
        yield "127.0.0.1"

    with Server(tls=False) as server, hyperpool.Client(resolver=ask) as client:
        future = client.submit("GET", f"http://{HOST}:{PORT}/", timeout=hyperpool.Timeout(connect=0.1))
        assert type(future.exception(WAIT_S)) is ConnectTimeout
        assert client.get(server.url("/bytes/3")).status == 200
        over.set()
