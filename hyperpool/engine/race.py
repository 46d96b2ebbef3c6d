"""The race between the addresses of one host (RFC 8305 5): sockets that connect side by side, of which one wins.

The first address is tried at once, the next one after 250 ms or as soon as the last one failed; the first to connect
wins, and the others are closed. Where time passes, and when to give up, is the dial's (`wait`).
"""

from __future__ import annotations

import errno
import os
import selectors
import socket
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from hyperpool.engine.resolve import Address

# RFC 8305 8, the recommended delay. Half of it opens needless sockets on long paths; twice as much is felt by people
# whose IPv6 is broken.
NEXT_ADDRESS_S = 0.25

# What a connect that has only begun says, on Windows by another name; 0 where loopback was faster. Not EWOULDBLOCK: on
# Linux that is EAGAIN, a connect that failed for want of kernel memory, on a socket that then looks writable.
_UNDER_WAY = {0, errno.EINPROGRESS, getattr(errno, "WSAEWOULDBLOCK", errno.EINPROGRESS)}


class Race:
    """One race, and afterwards the socket that won it.

    Owned by the dialling thread. ``sockets`` are open, each with its address; ``failures`` are told to ``lost`` too.
    ``wait`` sleeps until one of the sockets is ready or an instant comes, and returns those that are; ``check`` only
    looks whether it is time to give up. Both raise then. ``source``: the local address and port to connect from.
    ``options``: as in `Route.socket_options`.
    """

    def __init__(
        self,
        selector: selectors.BaseSelector,
        *,
        clock: Callable[[], float],
        socket_factory: Callable[..., socket.socket],
        check: Callable[[], None],
        wait: Callable[[float | None], list[socket.socket]],
        lost: Callable[[Address], None],
        source: tuple[str, int] | None = None,
        options: tuple[tuple[int, int, int | bytes], ...] = (),
    ) -> None:
        self.sockets: dict[socket.socket, Address] = {}
        self.failures: list[tuple[Address, OSError]] = []
        self._selector = selector
        self._clock = clock
        self._socket_factory = socket_factory
        self._check = check
        self._wait = wait
        self._lost = lost
        self._source = source
        self._options = options

    def run(self, addresses: list[Address]) -> socket.socket | None:
        """The socket that connected; None where every address failed. Blocks."""
        waiting = deque(addresses)
        next_at = self._clock()
        while waiting or self.sockets:
            if waiting and (not self.sockets or self._clock() >= next_at):
                self._check()
                next_at = self._clock() + NEXT_ADDRESS_S if self._start(waiting.popleft()) else next_at
                continue
            for sock in self._wait(next_at if waiting else None):
                if self._finish(sock):
                    return self._win(sock)
                next_at = self._clock()
        return None

    def close(self) -> None:
        """Close whatever was not handed over."""
        for sock in self.sockets:
            sock.close()

    def _start(self, address: Address) -> bool:
        """Begin to connect; False where that failed at once."""
        try:
            sock = self._socket_factory(address.family, socket.SOCK_STREAM)
        except OSError as error:
            self._note_failure(address, error)
            return False
        self.sockets[sock] = address
        try:
            sock.setblocking(False)
            if not isinstance(address.sockaddr, str):
                self._prepare(sock)
            code = sock.connect_ex(address.sockaddr)
            if code not in _UNDER_WAY:
                raise OSError(code, os.strerror(code))
            self._selector.register(sock, selectors.EVENT_WRITE)
        except OSError as error:
            self._drop(sock, error)
            return False
        return True

    def _prepare(self, sock: socket.socket) -> None:
        # Set before connecting: after a reset some systems refuse options on a socket.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option in self._options:
            sock.setsockopt(*option)
        if self._source is not None:
            sock.bind(self._source)

    def _finish(self, sock: socket.socket) -> bool:
        try:
            code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if code:
                raise OSError(code, os.strerror(code))
        except OSError as error:
            self._selector.unregister(sock)
            self._drop(sock, error)
            return False
        return True

    def _win(self, winner: socket.socket) -> socket.socket:
        for sock in list(self.sockets):
            self._selector.unregister(sock)
            if sock is not winner:
                del self.sockets[sock]
                sock.close()
        return winner

    def _drop(self, sock: socket.socket, error: OSError) -> None:
        address = self.sockets.pop(sock)
        sock.close()
        self._note_failure(address, error)

    def _note_failure(self, address: Address, error: OSError) -> None:
        self.failures.append((address, error))
        self._lost(address)

    @property
    def under_way(self) -> str:
        """The addresses of the open sockets, for messages."""
        return ", ".join(map(str, self.sockets.values())) or "none"

    def failed(self, lead: str) -> str:
        """The addresses that failed and why, for messages; nothing where none did."""
        named = [f"{address} ({words(error)})" for address, error in self.failures]
        return lead + ", ".join(named) if named else ""


def words(error: OSError) -> str:
    """What went wrong, in the system's words."""
    return error.strerror or str(error) or type(error).__name__
