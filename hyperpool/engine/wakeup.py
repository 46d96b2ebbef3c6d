"""A byte that wakes a selector: a socketpair, since selectors wait for sockets on every system."""

from __future__ import annotations

import socket


class SocketWakeup:
    """One end is written by anybody, the other watched by the selector of one loop.

    `wake` is called under the inbox lock, everything else by the loop thread.
    """

    def __init__(self) -> None:
        self.receiver, self._sender = socket.socketpair()
        self.receiver.setblocking(False)
        self._sender.setblocking(False)

    def wake(self) -> None:
        """Make the selector return. Never blocks."""
        try:
            self._sender.send(b"\0")
        except BlockingIOError:
            return  # thousands of bytes lie there already: the selector is awake

    def drain(self) -> None:
        """Take the bytes out."""
        try:
            while len(self.receiver.recv(4096)) == 4096:
                continue
        except BlockingIOError:
            return

    def close(self) -> None:
        """Close both ends."""
        self.receiver.close()
        self._sender.close()
