"""A peer that does just what a test's script says, byte by byte: for what no honest server would do.

Nothing is checked here and nothing is answered by itself, not even SETTINGS or PING. Every socket operation has a
timeout, so that a script that waits for something that never comes fails instead of hanging.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TypeVar

import hpack
from hyperframe.frame import (
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from hyperpool.testing.certificates import CertificateAuthority
from hyperpool.testing.served import H2_PREFACE
from hyperpool.testing.server import load_certificate

TIMEOUT_S = 30.0
F = TypeVar("F", bound=Frame)


class ScriptedConnection:
    """One accepted connection in the hands of a script.

    Owned by the script's thread; `received` may be read from anywhere.
    """

    def __init__(self, sock: socket.socket, *, number: int) -> None:
        self.number = number
        self.sock = sock
        self.received = 0  # application bytes, after TLS
        self.encoder = hpack.Encoder()
        self.decoder = hpack.Decoder()
        self._ahead = bytearray()

    # Bytes.

    def recv(self, n: int = 65536) -> bytes:
        """Up to ``n`` bytes, b"" at the end. Blocks up to the timeout."""
        data = bytes(self._ahead[:n]) or self._recv(n)
        del self._ahead[:n]
        return data

    def recv_exactly(self, n: int) -> bytes:
        """``n`` bytes; raises ConnectionError where the peer ends before."""
        while len(self._ahead) < n:
            self._ahead += self._recv_more()
        data = bytes(self._ahead[:n])
        del self._ahead[:n]
        return data

    def recv_until(self, mark: bytes) -> bytes:
        """Everything up to and including the mark; raises ConnectionError where the peer ends before."""
        while mark not in self._ahead:
            self._ahead += self._recv_more()
        return self.recv_exactly(self._ahead.index(mark) + len(mark))

    def drain(self) -> int:
        """Read until the peer closes, however it does; returns `received`."""
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            while self._recv(65536):
                pass
        return self.received

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def close(self) -> None:
        """Close politely, with TLS close_notify."""
        if isinstance(self.sock, ssl.SSLSocket):
            with contextlib.suppress(OSError, ValueError):
                self.sock.settimeout(0)  # send ours, do not wait for theirs
                self.sock = self.sock.unwrap()
        self.cut()

    def cut(self) -> None:
        """Close by TCP FIN alone: truncated TLS."""
        self.sock.close()

    def abort(self) -> None:
        """Close by TCP RST."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def _recv(self, n: int) -> bytes:
        data = self.sock.recv(n)
        self.received += len(data)
        return data

    def _recv_more(self) -> bytes:
        data = self._recv(65536)
        if not data:
            raise ConnectionError(f"the peer closed the connection; before: {bytes(self._ahead[:100])!r}")
        return data

    # Frames.

    def read_preface(self) -> None:
        preface = self.recv_exactly(len(H2_PREFACE))
        assert preface == H2_PREFACE, f"not an HTTP/2 preface: {preface!r}"

    def read_frame(self) -> Frame:
        """The next frame, whatever it is. Blocks up to the timeout."""
        frame, length = Frame.parse_frame_header(memoryview(self.recv_exactly(9)))
        frame.parse_body(memoryview(self.recv_exactly(length)))
        return frame

    def wait_frame(self, kind: type[F]) -> F:
        """The next frame of this class; those before it are dropped."""
        while True:
            frame = self.read_frame()
            if isinstance(frame, kind):
                return frame

    def send_frame(self, frame: Frame) -> None:
        self.send(frame.serialize())

    def greet(self, **settings: int) -> SettingsFrame:
        """Read the preface and the client's SETTINGS, send ours, and acknowledge; returns the client's."""
        self.read_preface()
        theirs = self.wait_frame(SettingsFrame)
        self.settings(ack=False, **settings)
        self.settings(ack=True)
        return theirs

    def settings(self, *, ack: bool = False, **values: int) -> None:
        """Send SETTINGS, by the names of RFC 9113 6.5.2: ``settings(MAX_CONCURRENT_STREAMS=1)``."""
        numbers = {getattr(SettingsFrame, name): value for name, value in values.items()}
        self.send_frame(SettingsFrame(0, settings=numbers, flags=["ACK"] if ack else []))

    def headers(
        self,
        stream_id: int,
        fields: Sequence[tuple[str, str]],
        *,
        end_stream: bool = False,
        end_headers: bool = True,
    ) -> None:
        flags = [name for name, is_set in (("END_STREAM", end_stream), ("END_HEADERS", end_headers)) if is_set]
        self.send_frame(HeadersFrame(stream_id, data=self.encoder.encode(list(fields)), flags=flags))

    def data(self, stream_id: int, data: bytes, *, end_stream: bool = False) -> None:
        self.send_frame(DataFrame(stream_id, data=data, flags=["END_STREAM"] if end_stream else []))

    def rst(self, stream_id: int, code: int = 0) -> None:
        self.send_frame(RstStreamFrame(stream_id, error_code=code))

    def goaway(self, last_stream_id: int, code: int = 0, debug_data: bytes = b"") -> None:
        self.send_frame(GoAwayFrame(0, last_stream_id=last_stream_id, error_code=code, additional_data=debug_data))

    def window_update(self, stream_id: int, increment: int) -> None:
        self.send_frame(WindowUpdateFrame(stream_id, window_increment=increment))

    def ping(self, data: bytes = b"hyperpoo", *, ack: bool = False) -> None:
        self.send_frame(PingFrame(0, opaque_data=data, flags=["ACK"] if ack else []))

    def decode(self, frame: HeadersFrame) -> list[tuple[str, str]]:
        """The fields of a HEADERS frame; each one must be decoded, in order, or the table goes out of step."""
        return [(str(name), str(value)) for name, value in self.decoder.decode(frame.data)]


Script = Callable[[ScriptedConnection], None]


class ScriptedPeer:
    """A listener that runs a script for each connection it accepts.

    Shared; guarded by _cond. Scripts run in threads of their own.

    ``errors``: what scripts raised, but for disconnects once the peer was closing. ``handshake_errors``: failed TLS.
    """

    def __init__(
        self,
        script: Script,
        *,
        tls: bool = True,
        alpn: Sequence[str] = ("h2",),
        certificate: tuple[bytes, bytes] | None = None,
        authority: CertificateAuthority | None = None,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        self._script = script
        self._timeout_s = timeout_s
        self.authority = authority or CertificateAuthority()
        self.tls_context: ssl.SSLContext | None = None
        if tls:
            self.tls_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.tls_context.set_alpn_protocols(list(alpn))
            load_certificate(self.tls_context, certificate or self.authority.issue("localhost", "127.0.0.1", "::1"))
        self._cond = threading.Condition()
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._scripts_ended = 0
        self._is_closing = False
        self.connections: list[ScriptedConnection] = []
        self.connections_accepted = 0
        self.errors: list[BaseException] = []
        self.handshake_errors: list[BaseException] = []

    def start(self) -> ScriptedPeer:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port: int = self._listener.getsockname()[1]
        self._listener.setblocking(False)
        self._stop_reader, self._stop_writer = socket.socketpair()
        self._accepting = threading.Thread(target=self._accept, name="scripted-accepting", daemon=True)
        self._accepting.start()
        return self

    def close(self) -> None:
        """End every script by shutting its socket, and join all threads; safe to repeat."""
        with self._cond:
            if self._is_closing:
                return
            self._is_closing = True
        self._stop_writer.send(b"\0")
        self._accepting.join()
        for sock in self._sockets:
            shut(sock)
        for thread in self._threads:
            thread.join(self._timeout_s)
        for sock in (self._listener, self._stop_reader, self._stop_writer):
            sock.close()

    def __enter__(self) -> ScriptedPeer:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def origin(self) -> str:
        return f"{'https' if self.tls_context else 'http'}://localhost:{self.port}"

    def url(self, path: str = "/") -> str:
        return self.origin + path

    @property
    def ca_pem(self) -> bytes:
        return self.authority.ca_pem

    @property
    def received(self) -> int:
        """Application bytes that scripts read, on all connections: a script that drains proves what was written."""
        return sum(connection.received for connection in list(self.connections))

    def wait_done(self, scripts: int = 1, timeout_s: float = TIMEOUT_S) -> bool:
        """Block until so many scripts returned or failed (a failed handshake counts); whether they did in time."""
        with self._cond:
            return self._cond.wait_for(lambda: self._scripts_ended >= scripts, timeout_s)

    def _accept(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._listener, selectors.EVENT_READ)
            selector.register(self._stop_reader, selectors.EVENT_READ)
            while not any(key.fileobj is self._stop_reader for key, _ in selector.select()):
                with contextlib.suppress(BlockingIOError, ConnectionError):
                    self._serve(self._listener.accept()[0])

    def _serve(self, sock: socket.socket) -> None:
        sock.settimeout(self._timeout_s)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.connections_accepted += 1
        name = f"scripted-{self.connections_accepted}"
        thread = threading.Thread(target=self._run, args=(sock, self.connections_accepted), name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _run(self, sock: socket.socket, number: int) -> None:
        try:
            connection = self._connection(sock, number)
            if connection is not None:
                self._run_script(connection)
        finally:
            sock.close()
            with self._cond:
                self._scripts_ended += 1
                self._cond.notify_all()

    def _connection(self, sock: socket.socket, number: int) -> ScriptedConnection | None:
        try:
            if self.tls_context is not None:
                # Not in one go: close() must be able to end a handshake that never comes.
                sock = self.tls_context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
            self._sockets.append(sock)
            if isinstance(sock, ssl.SSLSocket):
                sock.do_handshake()
        except OSError as error:
            self.handshake_errors.append(error)
            sock.close()
            return None
        connection = ScriptedConnection(sock, number=number)
        self.connections.append(connection)
        return connection

    def _run_script(self, connection: ScriptedConnection) -> None:
        try:
            self._script(connection)
        except Exception as error:
            if not (self._is_closing and isinstance(error, OSError)):
                self.errors.append(error)
        finally:
            connection.sock.close()


def shut(sock: socket.socket) -> None:
    """End a connection both ways while another thread reads from it or writes to it. Does not block.

    `ssl.SSLSocket.shutdown` will not do: it drops the TLS session first, after which that thread is given ciphertext
    as if it were the text, and would send its own text in the clear.
    """
    with contextlib.suppress(OSError):
        socket.socket.shutdown(sock, socket.SHUT_RDWR)
