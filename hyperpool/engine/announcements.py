"""Telling a program of its connections and resends (``events=``): at the end of a turn, when its code may run (L5)."""

from __future__ import annotations

import weakref
from functools import partial
from typing import TYPE_CHECKING, Any

from hyperpool.engine.settlement import Settlement
from hyperpool.handoff.hooks import ConnectionInfo, Hooks, tell

if TYPE_CHECKING:
    from hyperpool.engine.connection import Connection
    from hyperpool.engine.dial import Dialed
    from hyperpool.engine.transport import Transport
    from hyperpool.handoff.exchange import Exchange


class Announcements:
    """What a program is told of, and the connections that it knows.

    Owned by the loop thread. The hooks are the pool's: they may be methods of whoever has the pool, and a loop that
    held them would keep both alive, and itself with them, when the program has forgotten all three.
    """

    def __init__(self, hooks: Hooks, settlement: Settlement) -> None:
        self._hooks = weakref.ref(hooks)
        self._settlement = settlement
        # By transport: a connection that changes its version keeps that.
        self._known: dict[Transport, ConnectionInfo] = {}

    def opened(self, connection: Connection, dialed: Dialed) -> None:
        """A connection is there."""
        tls_version = None if dialed.tls is None else dialed.tls.version
        origin = str(connection.route.origin)
        info = ConnectionInfo(origin, connection.version, dialed.peername, tls_version, dict(dialed.spent_s))
        self._known[connection.transport] = info
        self._tell("connection_opened", info)

    def resent(self, exchange: Exchange) -> None:
        """A request goes out again: the server provably did not act on it."""
        self._tell("resend", exchange.request, exchange.resends[-1])

    def closed(self, connection: Connection) -> None:
        """It is gone; the error where it was lost."""
        info = self._known.pop(connection.transport, None)
        if info is not None:
            self._tell("connection_closed", info, connection.lost_by)

    def _tell(self, name: str, *what: Any) -> None:
        hooks = self._hooks()
        if hooks is not None:
            self._settlement.tell(partial(tell, getattr(hooks, name), *what))
