"""Dials over loopback sockets on ports that the system chose, with names from a dictionary.

Where time matters, `Clockwork` is both clock and selector: when nothing is ready, waiting makes it later at once. A
`Mute` socket is an address that never answers. Nothing here sleeps.
"""

from __future__ import annotations

import datetime
import errno
import functools
import selectors
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from hyperpool.engine.dial import Dialed, Seams, dial
from hyperpool.engine.dial_cancel import DialCancel
from hyperpool.engine.resolve import Resolver
from hyperpool.engine.trust import TlsConfig
from hyperpool.errors import (
    CertificateError,
    ConnectError,
    ConnectTimeout,
    HyperpoolError,
    NameResolutionError,
    PoolClosed,
    TlsError,
)
from hyperpool.urls import Origin
from hyperpool.values import Route, TlsSettings

HOST = "server.test"
WAIT_S = 45.0  # for threads that are expected at once: a bound for broken code only
TCP_SYN_SENT = 2  # linux/tcp_states.h


@functools.cache
def credential() -> tuple[bytes, bytes]:
    """(certificate, certificate with key), self-signed, for HOST."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    now = datetime.datetime.now(datetime.timezone.utc)
    day = datetime.timedelta(days=1)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now - day, now + day)
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(HOST)]), critical=False)
    pem = builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    form = serialization.PrivateFormat.PKCS8
    return pem, pem + key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())


def server_context(folder: Path, *alpn: str) -> ssl.SSLContext:
    (folder / "server.pem").write_bytes(credential()[1])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.pem")
    if alpn:
        context.set_alpn_protocols(list(alpn))
    return context


class Mute(socket.socket):
    """A connect that is under way for ever: its descriptor never becomes writable."""

    def __init__(self) -> None:
        mine, self.other = socket.socketpair()
        mine.setblocking(False)
        try:
            while True:
                mine.send(b"x" * 65_536)
        except BlockingIOError:
            super().__init__(fileno=mine.detach())

    def setsockopt(self, *_: Any) -> None:
        return None

    def connect_ex(self, _: Any) -> int:
        return errno.EINPROGRESS

    def close(self) -> None:
        self.other.close()
        super().close()


class Failing(socket.socket):
    """A socket whose operations are announced before they happen."""

    def __init__(self, family: int, kind: int, *, announce: Callable[[str], None]) -> None:
        super().__init__(family, kind)
        self.announce = announce

    def setblocking(self, flag: bool) -> None:
        self.announce("setblocking")
        super().setblocking(flag)

    def setsockopt(self, *args: Any) -> None:
        self.announce("setsockopt")
        super().setsockopt(*args)

    def getsockopt(self, *args: Any) -> Any:
        self.announce("getsockopt")
        return super().getsockopt(*args)

    def connect_ex(self, address: Any) -> int:
        self.announce("connect_ex")
        return super().connect_ex(address)

    def send(self, *args: Any) -> int:
        self.announce("send")
        return super().send(*args)

    def recv(self, *args: Any) -> bytes:
        self.announce("recv")
        return super().recv(*args)


class Clockwork:
    """A clock that moves only while a selector of it waits in vain."""

    def __init__(self) -> None:
        self.now = 1000.0

    def selector(self) -> selectors.BaseSelector:
        return _Waiting(self)


class _Waiting(selectors.DefaultSelector):
    def __init__(self, clockwork: Clockwork) -> None:
        super().__init__()
        self._clockwork = clockwork

    def select(self, timeout: float | None = None) -> Any:
        waits = timeout is None or self._connects_to_this_machine()  # asked first: the answer may come in between
        ready = super().select(0)
        if not ready and waits:
            return super().select(None)
        self._clockwork.now += 0 if ready else timeout or 0
        return ready

    def _connects_to_this_machine(self) -> bool:
        """Whether a busy kernel owes an answer, which takes none of this clock's time."""
        watched = [key.fileobj for key in self.get_map().values() if isinstance(key.fileobj, socket.socket)]
        return any(sock.family == socket.AF_INET and _awaits_answer(sock) for sock in watched)


def _awaits_answer(sock: socket.socket) -> bool:
    option = getattr(socket, "TCP_INFO", None)  # Linux has it; elsewhere such an answer has been quick enough
    # Not by the socket's own method, which says so.
    return option is not None and socket.socket.getsockopt(sock, socket.IPPROTO_TCP, option, 1)[0] == TCP_SYN_SENT


class Bench:
    """Everything around one dial; `opened` are the client's sockets, in the order of their making."""

    def __init__(self) -> None:
        self.opened: list[socket.socket] = []
        self.started_at: list[float] = []
        self.clockwork = Clockwork()
        self.addresses: Any = []
        self.cancel = DialCancel()
        self.resolver = Resolver(getaddrinfo=self.getaddrinfo)
        self.settings = TlsSettings(verify=credential()[0])
        self.mute: set[int] = set()  # which sockets, by number, never connect
        self.announce: Callable[[str], None] = lambda _: None
        self.factory: Callable[..., socket.socket] = self.make_socket
        self.selector: Callable[[], selectors.BaseSelector] = selectors.DefaultSelector

    def getaddrinfo(self, *_: Any, **__: Any) -> Any:
        if callable(self.addresses):
            return self.addresses()
        return [(socket.AF_INET, 1, 6, "", address) for address in self.addresses]

    def make_socket(self, family: int, kind: int) -> socket.socket:
        self.announce("socket")
        if len(self.opened) in self.mute:
            sock: socket.socket = Mute()
        else:
            sock = Failing(family, kind, announce=self.announce)
        self.opened.append(sock)
        self.started_at.append(self.clockwork.now)
        return sock

    def dial(self, scheme: str = "http", *, host: str = HOST, timeout_s: float | None = None, **route: Any) -> Dialed:
        """By the real clock without a timeout, by Clockwork with one."""
        seams = Seams(socket_factory=self.factory, selector_factory=self.selector)
        if timeout_s is not None:
            if not callable(self.addresses):
                self.resolver.resolve(host, 1234)  # the lookup has a thread, which knows nothing of Clockwork
            seams = Seams(lambda: self.clockwork.now, self.factory, self.clockwork.selector)
        return dial(
            Route(Origin(scheme, host, 1234), self.settings, **route),
            tls_config=TlsConfig(self.settings),
            resolver=self.resolver,
            deadline_at=None if timeout_s is None else self.clockwork.now + timeout_s,
            cancelled=self.cancel,
            seams=seams,
        )

    def still_open(self) -> list[socket.socket]:
        return [sock for sock in self.opened if sock.fileno() != -1]


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    for sock in bench.still_open():
        sock.close()


class Peer:
    """A listening socket, whose thread serves each connection by ``script``."""

    def __init__(self, script: Callable[[socket.socket], None]) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = self._listener.getsockname()
        self.served = 0
        self._ended = False
        self._script = script
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while not self._ended:
            sock, _ = self._listener.accept()
            with sock, suppress(ConnectionError):
                if sock.recv(1, socket.MSG_PEEK):
                    self.served += 1
                    self._script(sock)

    def end(self) -> None:
        self._ended = True
        socket.create_connection(self.address).close()
        self._thread.join(WAIT_S)
        self._listener.close()


@pytest.fixture
def peer() -> Iterator[Callable[[Callable[[socket.socket], None]], Peer]]:
    peers: list[Peer] = []

    def start(script: Callable[[socket.socket], None]) -> Peer:
        peers.append(Peer(script))
        return peers[-1]

    yield start
    for one in peers:
        one.end()


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """Accepts by its backlog, and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening


@pytest.fixture
def closed_port() -> Iterator[Any]:
    """An address that refuses: bound, so that nobody else gets it, but not listening."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()


def speak_tls(context: ssl.SSLContext, first_words: bytes = b"") -> Callable[[socket.socket], None]:
    def script(sock: socket.socket) -> None:
        try:
            with context.wrap_socket(sock, server_side=True) as session:
                session.sendall(first_words)
                session.recv(1)
        except OSError:
            return  # the client left, which is its right

    return script


def answer(words: bytes) -> Callable[[socket.socket], None]:
    def script(sock: socket.socket) -> None:
        sock.recv(65_536)
        sock.sendall(words)

    return script


def reset(sock: socket.socket) -> None:
    sock.recv(65_536)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


# Connections


def test_a_plain_connection_is_non_blocking_and_tuned(bench: Bench, listener: socket.socket) -> None:
    bench.addresses = [listener.getsockname()]
    dialed = bench.dial()
    assert dialed.tls is None and dialed.alpn is None and not dialed.http2
    assert dialed.peername == dialed.sock.getpeername() == listener.getsockname()
    assert dialed.sock.gettimeout() == 0
    assert dialed.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    assert dialed.sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    assert set(dialed.spent_s) == {"dns", "tcp"} and dialed.connect_s >= 0
    assert bench.still_open() == [dialed.sock]
    dialed.close()
    assert not bench.still_open()


def test_a_plain_connection_for_http2_only_is_http2(bench: Bench, listener: socket.socket) -> None:
    bench.addresses = [listener.getsockname()]
    assert bench.dial(http1=False).http2


def test_a_tls_connection_knows_its_protocol(bench: Bench, peer: Any, tmp_path: Path) -> None:
    bench.addresses = [peer(speak_tls(server_context(tmp_path, "h2"))).address]
    dialed = bench.dial("https")
    assert dialed.alpn == "h2" and dialed.http2 and dialed.tls and dialed.tls.version == "TLSv1.3"
    assert set(dialed.spent_s) == {"dns", "tcp", "tls"}
    dialed.close()


def test_what_the_server_says_first_is_not_lost(bench: Bench, peer: Any, tmp_path: Path) -> None:
    bench.addresses = [peer(speak_tls(server_context(tmp_path), b"settings")).address]
    dialed = bench.dial("https")
    assert dialed.tls is not None
    dialed.sock.setblocking(True)
    while not (heard := dialed.tls.read()):
        dialed.tls.feed(dialed.sock.recv(65_536))
    assert heard == b"settings"
    dialed.close()


def test_a_socket_that_would_block_is_waited_for(bench: Bench, peer: Any, tmp_path: Path) -> None:
    seen: list[str] = []

    def block_at_first(operation: str) -> None:
        seen.append(operation)
        if operation in ("send", "recv") and seen.count(operation) == 1:
            raise BlockingIOError

    bench.announce = block_at_first
    bench.addresses = [peer(speak_tls(server_context(tmp_path))).address]
    bench.dial("https").close()
    assert seen.count("send") >= 2 and seen.count("recv") >= 2


def test_a_dial_needs_no_cancel(bench: Bench, listener: socket.socket) -> None:
    bench.addresses = [listener.getsockname()]
    route = Route(Origin("http", HOST, 80), bench.settings)
    config = TlsConfig(bench.settings)
    dial(route, tls_config=config, resolver=bench.resolver, deadline_at=None).close()


# The race


def test_the_next_address_is_tried_at_once_when_one_is_refused(
    bench: Bench, listener: socket.socket, closed_port: Any
) -> None:
    bench.addresses = [closed_port, listener.getsockname()]
    assert bench.dial(timeout_s=5).peername == listener.getsockname()
    assert bench.started_at == [1000, 1000]
    assert bench.resolver.resolve(HOST, 1234)[0].sockaddr == listener.getsockname()


def test_the_next_address_is_tried_after_a_quarter_of_a_second_and_the_slow_one_closed(
    bench: Bench, listener: socket.socket
) -> None:
    bench.addresses = [("192.0.2.1", 1), ("192.0.2.2", 1), listener.getsockname()]
    bench.mute = {0, 1}
    dialed = bench.dial(timeout_s=5)
    assert bench.started_at == [1000, 1000.25, 1000.5]
    assert bench.still_open() == [dialed.sock]
    assert dialed.spent_s["tcp"] == 0.5


def test_a_refusal_does_not_end_the_attempts_under_way(bench: Bench, closed_port: Any) -> None:
    bench.addresses = [("192.0.2.1", 1), closed_port]
    bench.mute = {0}
    with pytest.raises(ConnectTimeout, match=r"still trying 192.0.2.1:1; failed: 127.0.0.1:\d+ \(Connection refused\)"):
        bench.dial(timeout_s=5)
    assert not bench.still_open()


def test_every_address_is_named_when_all_refuse(bench: Bench, closed_port: Any) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        bench.addresses = [closed_port, other.getsockname()]
        with pytest.raises(ConnectError) as caught:
            bench.dial()
    for _, port in bench.addresses:
        assert f"127.0.0.1:{port} (Connection refused)" in str(caught.value)
    assert caught.value.origin == f"http://{HOST}:1234" and caught.value.processed == "no"
    assert isinstance(caught.value.__cause__, OSError)
    assert not bench.still_open()


def test_a_name_that_does_not_resolve_is_told(bench: Bench) -> None:
    def fail() -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    bench.addresses = fail
    errors = []
    for _ in range(2):
        with pytest.raises(NameResolutionError, match=HOST) as caught:
            bench.dial()
        errors.append(caught.value)
    assert errors[0] is not errors[1] and errors[0].origin == f"http://{HOST}:1234"


# Deadlines


def test_a_deadline_in_the_race_says_so_and_puts_the_address_last(bench: Bench) -> None:
    bench.addresses = [("192.0.2.1", 1), ("192.0.2.2", 1)]
    bench.mute = {0, 1}
    with pytest.raises(ConnectTimeout, match="still trying 192.0.2.1:1, 192.0.2.2:1") as caught:
        bench.dial(timeout_s=5)
    assert caught.value.spent_s == {"dns": 0, "tcp": 5} and caught.value.origin
    assert caught.value.step == "tcp"
    assert not bench.still_open()


def test_a_deadline_before_the_second_address_leaves_it_first(bench: Bench) -> None:
    bench.addresses = [("192.0.2.1", 1), ("192.0.2.2", 1)]
    bench.mute = {0, 1}
    with pytest.raises(ConnectTimeout):
        bench.dial(timeout_s=0.125)
    assert bench.resolver.resolve(HOST, 1234)[0].sockaddr == ("192.0.2.2", 1)


def test_a_deadline_while_resolving_says_so_and_leaves_the_question_behind(bench: Bench) -> None:
    go = threading.Event()
    bench.addresses = lambda: go.wait(WAIT_S) and [(socket.AF_INET, 1, 6, "", ("192.0.2.1", 1))]
    with pytest.raises(ConnectTimeout, match=f"the host name {HOST} was still being resolved") as caught:
        bench.dial(timeout_s=5)
    assert caught.value.spent_s == {"dns": 5} and caught.value.step == "dns"
    go.set()
    assert bench.resolver.resolve(HOST, 1234)


def test_a_deadline_in_the_handshake_says_so(bench: Bench, listener: socket.socket) -> None:
    bench.addresses = [listener.getsockname()]
    with pytest.raises(ConnectTimeout, match=r"TLS handshake with 127.0.0.1:\d+ was not complete") as caught:
        bench.dial("https", timeout_s=5)
    assert caught.value.spent_s == {"dns": 0, "tcp": 0, "tls": 5} and caught.value.step == "tls"
    assert not bench.still_open()


def test_a_deadline_that_is_over_opens_no_socket(bench: Bench) -> None:
    bench.addresses = [("192.0.2.1", 1)]
    with pytest.raises(ConnectTimeout):
        bench.dial(timeout_s=0)
    assert bench.opened == []


# Cancel


class Announced(selectors.DefaultSelector):
    """Says when it is about to wait for good."""

    def __init__(self, waiting: threading.Event, after: int) -> None:
        super().__init__()
        self._waiting, self._after = waiting, after

    def select(self, timeout: float | None = None) -> Any:
        ready = super().select(0)
        if not ready:
            self._waiting.set()
            return super().select(timeout)
        return ready


@pytest.mark.parametrize("phase", ["dns", "tcp", "tls"])
def test_a_cancel_ends_a_dial_in_each_phase(bench: Bench, listener: socket.socket, phase: str) -> None:
    waiting, go, outcome = threading.Event(), threading.Event(), []
    bench.selector = lambda: Announced(waiting, 1)
    bench.addresses = [listener.getsockname()]
    if phase == "dns":
        bench.addresses = lambda: go.wait(WAIT_S) and []
    else:
        bench.resolver.resolve(HOST, 1234)
        bench.mute = {0} if phase == "tcp" else set()

    def run() -> None:
        try:
            bench.dial("https" if phase == "tls" else "http")
        except HyperpoolError as error:
            outcome.append(error)

    dialling = threading.Thread(target=run)
    dialling.start()
    assert waiting.wait(WAIT_S)
    bench.cancel.cancel()
    dialling.join(WAIT_S)
    go.set()
    assert [type(error) for error in outcome] == [PoolClosed]
    assert not bench.still_open()


def test_one_cancel_ends_every_dial_that_has_it(bench: Bench) -> None:
    bench.addresses = [("192.0.2.1", 1)]
    bench.resolver.resolve(HOST, 1234)
    bench.mute = {0, 1, 2}
    events = [threading.Event() for _ in range(3)]
    fresh = iter(events)
    bench.selector = lambda: Announced(next(fresh), 1)
    outcome: list[type[BaseException]] = []

    def run() -> None:
        with pytest.raises(PoolClosed) as caught:
            bench.dial()
        outcome.append(caught.type)

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    assert all(event.wait(WAIT_S) for event in events)
    bench.cancel.cancel()
    for thread in threads:
        thread.join(WAIT_S)
    assert outcome == [PoolClosed] * 3 and not bench.still_open()


def test_a_cancel_before_the_dial_opens_no_socket(bench: Bench) -> None:
    bench.addresses = [("192.0.2.1", 1)]
    bench.resolver.resolve(HOST, 1234)
    bench.cancel.cancel()
    with pytest.raises(PoolClosed, match="nobody wants it"):
        bench.dial()
    assert bench.opened == []


def test_a_cancel_after_the_dial_leaves_its_socket_alone(bench: Bench, listener: socket.socket) -> None:
    bench.addresses = [listener.getsockname()]
    dialed = bench.dial()
    bench.cancel.cancel()
    assert dialed.sock.fileno() != -1


def test_an_answer_that_comes_after_the_dial_wakes_nobody() -> None:
    cancel = DialCancel()
    wakeup = cancel.attach(lambda: None)
    cancel.detach(wakeup)
    cancel.wake(wakeup)


def test_a_forked_childs_copy_of_a_dial_is_closed_although_its_lock_was_held() -> None:
    cancel, abandoned = DialCancel(), []
    wakeup = cancel.attach(lambda: abandoned.append(True))
    cancel._lock.acquire()
    cancel.abandon_in_child()
    cancel.cancel()
    assert (abandoned, cancel.cancelled, wakeup.receiver.fileno()) == ([True], True, -1)


# Handshakes that fail


@pytest.mark.parametrize(
    ("script", "words"),
    [
        (answer(b"HTTP/1.1 400 Bad Request\r\n\r\n"), "speaks plain HTTP"),
        (answer(b"SSH-2.0-x\r\n"), "does not speak TLS"),
        (lambda sock: sock.recv(65_536), "closed the connection during the TLS handshake"),
        (reset, "broke during the TLS handshake"),
    ],
)
def test_a_server_that_breaks_the_handshake_is_a_tls_error(bench: Bench, peer: Any, script: Any, words: str) -> None:
    bench.addresses = [peer(script).address, ("127.0.0.1", 1)]
    with pytest.raises(TlsError, match=words) as caught:
        bench.dial("https")
    assert caught.value.origin == f"https://{HOST}:1234" and not isinstance(caught.value, CertificateError)
    assert not bench.still_open()
    assert bench.resolver.resolve(HOST, 1234)[-1].sockaddr == bench.addresses[0]


@pytest.mark.parametrize("settings", [TlsSettings(verify=credential()[0]), TlsSettings(verify=True, trust_env=False)])
def test_a_certificate_problem_is_never_tried_elsewhere(
    bench: Bench, peer: Any, tmp_path: Path, settings: TlsSettings
) -> None:
    script = speak_tls(server_context(tmp_path))
    first, second = peer(script), peer(script)
    bench.addresses, bench.settings = [first.address, second.address], settings
    with pytest.raises(CertificateError) as caught:
        bench.dial("https", host="other.test")
    assert caught.value.origin == "https://other.test:1234"
    assert second.served == 0 and len(bench.opened) == 1 and not bench.still_open()


@pytest.mark.parametrize("alpn", [(), ("http/1.1",)])
def test_a_server_without_http2_is_refused_where_nothing_else_is_wanted(
    bench: Bench, peer: Any, tmp_path: Path, alpn: tuple[str, ...]
) -> None:
    bench.addresses = [peer(speak_tls(server_context(tmp_path, *alpn))).address]
    with pytest.raises(TlsError, match="does not speak HTTP/2"):
        bench.dial("https", http1=False)
    assert not bench.still_open()


def test_settings_that_cannot_be_used_are_told_before_anything_is_opened(bench: Bench) -> None:
    bench.settings = TlsSettings(verify="/no/such/file")
    with pytest.raises(TlsError, match="/no/such/file") as caught:
        bench.dial("https")
    assert caught.value.origin and bench.opened == []


# A system that fails


def outcome_of(bench: Bench) -> ConnectError | None:
    try:
        bench.dial("https").close()
    except ConnectError as error:
        return error
    return None


def test_each_operation_may_fail_and_no_socket_is_left(bench: Bench, peer: Any, tmp_path: Path) -> None:
    bench.addresses = [peer(speak_tls(server_context(tmp_path))).address]
    failures: list[str] = []
    countdown = 0

    def fail(operation: str) -> None:
        nonlocal countdown
        countdown -= 1
        if countdown == 0:
            failures.append(operation)
            raise OSError(errno.EIO, "Input/output error")

    bench.announce = fail
    nth, error = 0, None
    # How many operations there are depends on how the server's bytes arrive: until one dial comes through.
    while nth == 0 or error is not None:
        nth += 1
        countdown = nth
        error = outcome_of(bench)
        assert error is None or ("Input/output error" in str(error) and error.origin)
        assert not bench.still_open()
    assert set(failures) == {"socket", "setblocking", "setsockopt", "connect_ex", "getsockopt", "send", "recv"}


def test_a_connect_that_raises_nothing_but_fails_at_once_is_named(bench: Bench) -> None:
    bench.addresses = [("255.255.255.255", 1)]
    with pytest.raises(ConnectError, match=r"255.255.255.255:1 \("):
        bench.dial()
    assert not bench.still_open()


class Broken(selectors.DefaultSelector):
    def select(self, timeout: float | None = None) -> Any:
        raise OSError(errno.ENOMEM, "Cannot allocate memory")


def no_selector() -> selectors.BaseSelector:
    raise OSError(errno.EMFILE, "Too many open files")


@pytest.mark.parametrize("factory", [Broken, no_selector])
def test_a_selector_that_fails_is_a_connect_error(bench: Bench, listener: socket.socket, factory: Any) -> None:
    bench.addresses, bench.selector = [listener.getsockname()], factory
    with pytest.raises(ConnectError, match="Cannot allocate memory|Too many open files") as caught:
        bench.dial()
    assert caught.value.origin and not bench.still_open()


def test_a_wake_up_that_cannot_be_made_is_a_connect_error(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.addresses = [("192.0.2.1", 1)]
    monkeypatch.setattr(socket, "socketpair", no_selector)
    with pytest.raises(ConnectError, match="Too many open files"):
        bench.dial()
