"""Who was promised an answer, and the end of a turn: Futures are resolved, last of all, when no map of streams is being
walked (L5).

Resolving one runs its done-callbacks, which are code of the caller: it may submit, cancel, close the pool, or raise.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from hyperpool.engine.timers import Timers
from hyperpool.errors import HyperpoolError
from hyperpool.handoff.exchange import DONE, Exchange
from hyperpool.handoff.futures import LoopFuture, SoleWaiter, resolve

logger = logging.getLogger("hyperpool")

# And nothing more comes of it: a done-callback's SystemExit must not end the origin's thread.
_FAILED = "a done-callback of %r failed"


class Settlement:
    """The exchanges that were accepted, those that are decided in this turn, and who waits for all of them to be.

    Owned by the loop thread.
    """

    def __init__(self, deadlines: Timers[Exchange]) -> None:
        self._deadlines = deadlines
        # Whatever else goes wrong, memory included: who stands here is owed an end (L5).
        self._accepted: dict[Exchange, None] = {}
        self._decided: deque[Exchange] = deque()
        self._drains: list[Callable[[], None]] = []
        self._greeted: deque[tuple[Future[str], str | BaseException]] = deque()
        # What a program is to be told, beside the ends of its requests.
        self._told: list[Callable[[], None]] = []
        # The Futures that are being resolved: a child that is forked meanwhile finds them here and nowhere else.
        self._resolving: list[Future[Any] | SoleWaiter[Any]] = []

    def accept(self, exchange: Exchange) -> None:
        """From now on it is ours to end."""
        self._accepted[exchange] = None

    @property
    def accepted(self) -> list[Exchange]:
        """Those that have not come to their end, or whose end was not carried out."""
        return list(self._accepted)

    def add(self, exchange: Exchange) -> None:
        """This one is done, or its streamed response has begun."""
        self._decided.append(exchange)

    def carry_out(self) -> None:
        """Wake the waiters, each exactly once."""
        while self._decided:
            exchange = self._decided[0]
            if exchange.future is not None:
                self._resolving.append(exchange.future)
            try:
                exchange.settle()
            except BaseException:
                if exchange.future is not None:
                    raise  # it is owed its end still, which a crash brings (L5)
                logger.exception(_FAILED, exchange)
            self._resolving.clear()  # before anything else: it holds the response, which may be forgotten already
            if exchange.state is DONE:
                self._deadlines.disarm(exchange)
                exchange.connection = None
                self._accepted.pop(exchange, None)
            self._decided.popleft()
        while self._greeted:
            _settle(*self._greeted[0])
            self._greeted.popleft()  # after that: a child that is forked meanwhile must find it
        if self._told:
            told, self._told = self._told, []
            for tell in told:
                tell()

    def greet(self, connected: Future[str], outcome: str | BaseException) -> None:
        """Resolve this Future of a connection, too, at the end of the turn."""
        self._greeted.append((connected, outcome))

    def tell(self, call: Callable[[], None]) -> None:
        """Call this, too, at the end of the turn. It does not raise."""
        self._told.append(call)

    def when_all_are(self, answered: Callable[[], None]) -> None:
        """Call this as soon as `all_are` is said."""
        self._drains.append(answered)

    @property
    def awaited(self) -> bool:
        """Whether somebody waits for that."""
        return bool(self._drains)

    def abandon_in_child(self, error: HyperpoolError) -> None:
        """After a fork, in the child: everybody who came along and is owed something here is told."""
        for exchange in self._accepted:
            exchange.abandon_in_child(error)
        for future in (*self._resolving, *(connected for connected, _ in self._greeted)):
            if isinstance(future, (LoopFuture, SoleWaiter)):
                future.abandon_in_child(error.own_copy())
        for told in (self._accepted, self._decided, self._greeted, self._drains, self._told):
            told.clear()

    def all_are(self) -> None:
        """No Future is left to be resolved."""
        for answered in self._drains:
            answered()
        self._drains.clear()


def _settle(connected: Future[str], outcome: str | BaseException) -> None:
    try:
        resolve(connected, outcome)  # once: a crash says it again
    except BaseException:
        if not connected.done():
            raise
        logger.exception(_FAILED, connected)
