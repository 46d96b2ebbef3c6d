"""One accepted socket and the one thread that does all its I/O, whatever protocol is spoken on it.

A turn (`step`) waits for the socket or a command, runs the commands, reads until the socket is empty, lets the peer
write, and sends once. Which peer it is, ALPN says, or on plaintext the first bytes (RFC 9113 3.3, prior knowledge).
No HTTP in here.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import ssl
import struct
import threading
import time
from collections import deque
from collections.abc import Callable

from hyperpool.testing.h1_peer import H1Peer
from hyperpool.testing.h2_peer import H2Peer
from hyperpool.testing.service import CUT, Ending, Peer, Service

H2_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"  # RFC 9113 3.4

READ_BYTES = 64 << 10
READS_PER_TURN = 16  # 256 KiB with TLS, whose records are 16 KiB: enough to batch, little enough to stay fair
OUT_BYTES = 256 << 10  # what may wait for the socket; with it streamed replies stay flat in memory

# How long a politely closed connection reads on at most: until the peer has closed its own end, as clients do at once
# when they have read the last answer. One that is slow to read it loses none of it, however busy the machine is.
LINGER_S = 30.0

WOULD_BLOCK = (ssl.SSLWantReadError, ssl.SSLWantWriteError, BlockingIOError, InterruptedError)
DISCONNECTS = (ConnectionError, ssl.SSLEOFError, ssl.SSLZeroReturnError)


class ServedConnection:
    """One connection of a server.

    Owned by its thread; `post`, `wake`, `call`, `stop` and `join` may be called from any.
    """

    def __init__(self, sock: socket.socket, *, number: int, service: Service) -> None:
        self.number = number
        self.peer: Peer | None = None
        self._service = service
        self._sock = sock
        self._selector = selectors.DefaultSelector()
        self._wake_reader, self._wake_writer = socket.socketpair()
        self._lock = threading.Lock()  # guards the four below
        self._commands: deque[Callable[[], None]] = deque()
        self._is_woken = False
        self._has_ended = False
        self._interest = 0
        self._out = bytearray()
        self._first_bytes = b""
        self._is_shaking = False
        self._reads_on = True  # the socket, or OpenSSL's buffer above it, may have more
        self._writes_on = False  # the peer may have more
        self._ending: Ending | None = None
        self._lingers_until: float | None = None
        self._is_open = True
        self._thread = threading.Thread(target=self._run, name=f"served-{number}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def join(self, timeout_s: float) -> bool:
        """Block until the thread ended; whether it did. The thread itself may call it, and does not wait."""
        if self._thread is not threading.current_thread():
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    @property
    def has_ended(self) -> bool:
        with self._lock:
            return self._has_ended

    def __repr__(self) -> str:
        return f"<ServedConnection {self.number} {type(self.peer).__name__} ending={self._ending}>"

    def stop(self) -> None:
        """Close at once."""
        self.post(lambda: self.drop(CUT))

    def post(self, command: Callable[[], None]) -> bool:
        with self._lock:
            if self._has_ended:
                return False
            self._commands.append(command)
            if not self._is_woken and threading.get_ident() != self._thread.ident:
                self._is_woken = True
                self._wake_writer.send(b"\0")
            return True

    def wake(self) -> None:
        self.post(_nothing)

    def call(self, command: Callable[[], None], timeout_s: float) -> None:
        """Run the command on the I/O thread, and block until the turn in which it ran is over."""
        if threading.current_thread() is self._thread:
            return command()
        done = threading.Event()
        # The second command runs a turn later: by then what the first one wrote was given to the socket.
        if self.post(command) and self.post(lambda: None if self.post(done.set) else done.set()):
            deadline_at = time.monotonic() + timeout_s
            while not done.wait(0.05) and not self.has_ended and time.monotonic() < deadline_at:
                pass

    def write(self, data: bytes) -> None:
        self._out += data

    def switch(self, peer: Peer) -> None:
        self.peer = peer

    def end(self, ending: Ending) -> None:
        self._ending = self._ending or ending

    def drop(self, ending: Ending) -> None:
        """Close without sending what was written."""
        self._out.clear()
        self._ending = ending
        self._lingers_until = None

    def step(self) -> bool:
        """One turn; whether there may be another."""
        self._wait()
        self._run_commands()
        self._receive()
        self._pump()
        self._flush()
        self._end_if_due()
        return self._is_open

    def _run(self) -> None:
        try:
            self._begin()
            while self.step():
                pass
        except Exception as error:
            # What a socket says while it is being closed is no news.
            if not (isinstance(error, DISCONNECTS) or (self._lingers_until and isinstance(error, OSError))):
                self._service.log.error(error)
        finally:
            self._finish()

    def _begin(self) -> None:
        self._wake_reader.setblocking(False)
        self._selector.register(self._wake_reader, selectors.EVENT_READ)
        self._sock.setblocking(False)
        if self._sock.family != getattr(socket, "AF_UNIX", None):
            self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._service.tls_context is not None:
            self._is_shaking = True
            self._sock = self._service.tls_context.wrap_socket(
                self._sock, server_side=True, do_handshake_on_connect=False
            )

    def _wait(self) -> None:
        self._set_interest(self._wanted_interest())
        for key, _ in self._selector.select(self._patience_s()):
            if key.fileobj is self._wake_reader:
                self._wake_reader.recv(4096)

    def _patience_s(self) -> float | None:
        if self._commands or self._reads_on or (self._writes_on and not self._out):
            return 0
        return None if self._lingers_until is None else max(0.0, self._lingers_until - time.monotonic())

    def _wanted_interest(self) -> int:
        if self._is_shaking:
            return self._interest or selectors.EVENT_READ
        reads = selectors.EVENT_READ if self._wants_read() else 0
        return reads | (selectors.EVENT_WRITE if self._out else 0)

    def _wants_read(self) -> bool:
        if self._ending is not None:
            return self._lingers_until is not None
        return not self._service.is_paused and (self.peer is None or self.peer.wants_read)

    def _set_interest(self, wanted: int) -> None:
        if wanted == self._interest:
            return
        if not wanted:
            self._selector.unregister(self._sock)
        elif self._interest:
            self._selector.modify(self._sock, wanted)
        else:
            self._selector.register(self._sock, wanted)
        self._interest = wanted

    def _run_commands(self) -> None:
        with self._lock:
            self._is_woken = False
            commands, self._commands = self._commands, deque()
        for command in commands:
            command()

    def _receive(self) -> None:
        self._reads_on = False
        if self._is_shaking:
            return self._shake()
        if self._wants_read():
            pieces = self._read_pieces()
            if self._lingers_until is not None:
                self._is_open = not (pieces and not pieces[-1])
            elif pieces:
                self._take(pieces)

    def _read_pieces(self) -> list[bytes]:
        pieces: list[bytes] = []
        try:
            for _ in range(READS_PER_TURN):
                pieces.append(self._sock.recv(READ_BYTES))
                if not pieces[-1]:
                    return pieces
        except WOULD_BLOCK:
            return pieces
        self._reads_on = True
        return pieces

    def _take(self, pieces: list[bytes]) -> None:
        data = b"".join(pieces)
        if data and self.peer is None:
            self._first_bytes += data
            data = self._sniff()
        if data and self.peer is not None:
            self.peer.receive(data)
        if not pieces[-1]:
            self._receive_end()

    def _receive_end(self) -> None:
        if self.peer is not None:
            self.peer.receive(b"")
        self.end(CUT)

    def _shake(self) -> None:
        assert isinstance(self._sock, ssl.SSLSocket)
        try:
            self._sock.do_handshake()
        except ssl.SSLWantReadError:
            return self._set_interest(selectors.EVENT_READ)
        except ssl.SSLWantWriteError:
            return self._set_interest(selectors.EVENT_WRITE)
        except OSError as error:
            self._service.log.handshake_error(error)
            return self.end(CUT)
        self._is_shaking, self._reads_on = False, True
        if self._sock.selected_alpn_protocol() is not None:
            self._speak(h2=self._sock.selected_alpn_protocol() == "h2")

    def _sniff(self) -> bytes:
        seen, options = self._first_bytes, self._service.options
        if len(seen) < len(H2_PREFACE) and H2_PREFACE.startswith(seen):
            return b""
        speaks_h2 = seen.startswith(H2_PREFACE)
        if options.http2 if speaks_h2 else options.http1:
            self._speak(h2=speaks_h2)
        else:
            self._service.log.handshake_error(ConnectionError(f"a protocol that is switched off: {seen[:24]!r}"))
            self.end(CUT)
        self._first_bytes = b""
        return seen

    def _speak(self, *, h2: bool) -> None:
        self.peer = (H2Peer if h2 else H1Peer)(self, self._service)

    def _pump(self) -> None:
        room_bytes = OUT_BYTES - len(self._out)
        if self.peer is not None and self._ending is None and room_bytes > 0:
            self._writes_on = self.peer.pump(room_bytes)

    def _flush(self) -> None:
        with contextlib.suppress(*WOULD_BLOCK):
            while self._out:
                with memoryview(self._out) as out, out[:OUT_BYTES] as head:
                    sent_bytes = self._sock.send(head)
                del self._out[:sent_bytes]

    def _end_if_due(self) -> None:
        if self._ending is None or self._out:
            return
        if not self._ending.is_polite:
            self._is_open = False
        elif self._lingers_until is None:
            self._begin_linger()
        elif time.monotonic() >= self._lingers_until:
            self._is_open = False

    def _begin_linger(self) -> None:
        self._lingers_until = time.monotonic() + LINGER_S
        if isinstance(self._sock, ssl.SSLSocket):
            # It raises for want of the peer's close_notify; ours is sent by then.
            with contextlib.suppress(OSError, ValueError):
                self._set_interest(0)
                self._sock = self._sock.unwrap()
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_WR)

    def _finish(self) -> None:
        with self._lock:
            self._has_ended = True
            self._commands.clear()
        if self.peer is not None:
            self.peer.abandon("the connection ended")
        if self._ending is not None and self._ending.rst:
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        else:
            self._drain_kernel()
        for resource in (self._selector, self._sock, self._wake_reader, self._wake_writer):
            resource.close()
        self._service.log.closed()

    def _drain_kernel(self) -> None:
        # Closing with unread bytes sends a TCP RST, which a test that wants one asks for. Past TLS: nobody decrypts.
        with contextlib.suppress(OSError):
            for _ in range(READS_PER_TURN):
                if not socket.socket.recv(self._sock, READ_BYTES):
                    return


def _nothing() -> None:
    return None
