"""A connected, non-blocking socket and, where there is one, the TLS that runs on it.

Bytes of HTTP in and out above, ciphertext below. Nothing here waits: what the socket does not take stays in the
backlog until the selector says that there is room.
"""

from __future__ import annotations

import socket
from typing import Protocol

from hyperpool.errors import ConnectionLost, HyperpoolError

# One recv, and one piece of what the connection hears: several TLS records, so that few system calls are made. From
# 128 KiB on, malloc takes each buffer from the kernel and gives it back: the page faults then cost more than all the
# rest of a large body (docs/performance.md). Halved, a large body takes 15 % more CPU.
RECV_BYTES = 112 << 10

# glibc's malloc does so until it has seen a larger block freed, and then keeps blocks of up to that size, and twice as
# much at the end of each arena (mallopt(3), M_MMAP_THRESHOLD, M_TRIM_THRESHOLD): here, what an unread megabyte and the
# buffers around it need. OpenSSL's buffers, and bytearrays that grow, cannot all be small: without this line an upload
# met 630 page faults and 3,300 us of CPU for each MB in one process, and none and 1,400 us in the next. The block is
# never touched, so it costs nothing. Other kinds of malloc do not mind.
bytes(2 << 20)


class Tls(Protocol):
    """What a transport needs of TLS (see `protocol.tls`)."""

    @property
    def eof(self) -> bool: ...

    @property
    def truncated(self) -> bool: ...

    @property
    def failure(self) -> HyperpoolError | None: ...

    def feed(self, ciphertext: bytes) -> None: ...

    def feed_eof(self) -> None: ...

    def read(self) -> bytes: ...

    def write(self, plaintext: bytes | bytearray) -> None: ...

    def ciphertext(self) -> bytes: ...

    def close(self) -> None: ...


class Transport:
    """One socket.

    Owned by the loop thread.
    """

    def __init__(self, sock: socket.socket, tls: Tls | None) -> None:
        self.sock = sock
        self._tls = tls
        self._backlog = bytearray()
        # How many bytes the socket has not taken yet.
        self.backlog_bytes = 0
        # All that the socket has taken so far.
        self.sent_bytes = 0
        # Whether the last `receive` may have left something in the socket.
        self.more = False
        self.eof = False
        self.failure: HyperpoolError | None = None

    def receive(self) -> bytes:
        """What is here now, up to `RECV_BYTES`. Sets ``more``, ``eof`` and ``failure``; never raises."""
        data = self._recv()
        self.more = len(data) == RECV_BYTES  # else the socket is empty; if it is not, the selector will say so
        return data if self._tls is None else self._decrypt(self._tls, data)

    def _recv(self) -> bytes:
        try:
            data = self.sock.recv(RECV_BYTES)
        except (BlockingIOError, InterruptedError):
            return b""
        except OSError as error:
            self._lose(error)
            return b""
        self.eof = not data
        return data

    def _decrypt(self, tls: Tls, data: bytes) -> bytes:
        try:
            if data:
                tls.feed(data)
            if self.eof:
                tls.feed_eof()
            plaintext = tls.read()
        except HyperpoolError as error:
            self.failure = self.failure or error
            return b""
        self.eof = self.eof or tls.eof
        # A record that is broken, behind good ones that were read.
        self.failure = self.failure or tls.failure
        if tls.truncated and self.failure is None:
            # A body that only the connection's end delimits is complete with close_notify alone (RFC 9112 9.8).
            message = (
                "the server closed the connection without TLS's close_notify (RFC 8446 6.1): what came may be cut short"
            )
            self.failure = ConnectionLost(message, processed="maybe")
        return plaintext

    def send(self, data: bytes | bytearray) -> None:
        """Put bytes on the wire, or behind those that wait for it."""
        if self._tls is not None:
            try:
                self._tls.write(data)
                data = self._tls.ciphertext()
            except HyperpoolError as error:
                self.failure = self.failure or error
                return
        if self._backlog:
            self._backlog += data
            self.flush()
            return
        sent = self._send(data)
        if sent < len(data):
            self._backlog += memoryview(data)[sent:]
            self.backlog_bytes = len(self._backlog)

    def flush(self) -> None:
        """Offer the backlog to the socket once more, with what TLS has to say for itself."""
        if self._tls is not None and (own := self._tls.ciphertext()):
            self._backlog += own
        if self._backlog:
            sent = self._send(self._backlog)
            del self._backlog[:sent]
            self.backlog_bytes = len(self._backlog)

    def _send(self, data: bytes | bytearray) -> int:
        try:
            sent = self.sock.send(data)
        except (BlockingIOError, InterruptedError):
            return 0
        except OSError as error:
            self._lose(error)
            return 0
        self.sent_bytes += sent
        return sent

    def _lose(self, error: OSError) -> None:
        if self.failure is None:
            self.failure = ConnectionLost(f"the connection was lost: {error.strerror or error}", processed="maybe")
            self.failure.__cause__ = error

    def close(self) -> None:
        """Say goodbye as far as the socket takes it without waiting, and close."""
        if self.failure is None and self._tls is not None:
            self._tls.close()
            self.flush()
        elif self.failure is None:
            self.flush()
        self.sock.close()

    def abort(self) -> None:
        """Close the socket as it is (L12)."""
        self.sock.close()
