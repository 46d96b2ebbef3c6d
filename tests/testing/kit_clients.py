"""Clients that are not hyperpool's: a small blocking one on `h2`, for tests that must see single events."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any

import h2.config
import h2.connection
import h2.events

from hyperpool.testing import Server

TIMEOUT_S = 45.0


def trusting(ca_pem: bytes, *alpn: str) -> ssl.SSLContext:
    """A context that trusts this CA alone, as strictly as Python 3.13 does by default."""
    context = ssl.create_default_context(cadata=ca_pem.decode())
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    context.options &= ~ssl.OP_IGNORE_UNEXPECTED_EOF  # which Debian's Python 3.11 sets
    if alpn:
        context.set_alpn_protocols(list(alpn))
    return context


class H2Client:
    """One connection. Owned by one thread."""

    def __init__(self, server: Server) -> None:
        raw = socket.create_connection(("127.0.0.1", server.port), TIMEOUT_S)
        tls = server.origin.startswith("https")
        self.sock = trusting(server.ca_pem, "h2").wrap_socket(raw, server_hostname="localhost") if tls else raw
        self.h2 = h2.connection.H2Connection(config=h2.config.H2Configuration(header_encoding="utf-8"))
        self.h2.initiate_connection()
        self.events: list[Any] = []
        self.authority = f"localhost:{server.port}"
        self.flush()

    def __enter__(self) -> H2Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.sock.close()

    def flush(self) -> None:
        self.sock.sendall(self.h2.data_to_send())

    def request(
        self,
        path: str,
        *,
        method: str = "GET",
        headers: Sequence[tuple[str, str]] = (),
        end_stream: bool = True,
    ) -> int:
        stream_id = self.h2.get_next_available_stream_id()
        head = [(":method", method), (":path", path), (":scheme", "https"), (":authority", self.authority)]
        self.h2.send_headers(stream_id, [*head, *headers], end_stream=end_stream)
        self.flush()
        return stream_id

    def receive(self) -> list[Any]:
        """One read; returns its events, none where no frame was complete. Raises ConnectionError at the end."""
        data = self.sock.recv(65536)
        if not data:
            raise ConnectionError("the server closed the connection")
        events = self.h2.receive_data(data)
        for event in events:
            if isinstance(event, h2.events.DataReceived):
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        self.events += events
        self.flush()
        return events

    def wait(self, kind: type, match: Callable[[Any], bool] = lambda event: True) -> Any:
        """The first event of this class, of those seen or still to come."""
        while True:
            for event in self.events:
                if isinstance(event, kind) and match(event):
                    return event
            self.receive()

    def wait_ended(self, stream_id: int) -> None:
        self.wait(h2.events.StreamEnded, lambda event: event.stream_id == stream_id)

    def status(self, stream_id: int) -> str:
        event = self.wait(h2.events.ResponseReceived, lambda event: event.stream_id == stream_id)
        return str(dict(event.headers)[":status"])

    def body(self, stream_id: int) -> bytes:
        self.wait_ended(stream_id)
        return b"".join(
            event.data
            for event in self.events
            if isinstance(event, h2.events.DataReceived) and event.stream_id == stream_id
        )

    def wait_reset(self, stream_id: int) -> int:
        event = self.wait(h2.events.StreamReset, lambda event: event.stream_id == stream_id)
        return int(event.error_code)

    def read_to_end(self) -> bool:
        """Read until the connection ends; whether by an orderly close."""
        try:
            while self.sock.recv(65536):
                pass
        except ConnectionResetError:
            return False
        return True
