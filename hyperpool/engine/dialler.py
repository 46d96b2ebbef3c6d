"""Dialling on threads of its own, since resolving and shaking hands take as long as they take (L4).

Each dial is one short-lived thread; what comes of it is put into the loop's inbox, and the thread forgets it.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from hyperpool.engine.dial import dial
from hyperpool.engine.dial_cancel import DialCancel, DialPhase
from hyperpool.errors import HyperpoolError
from hyperpool.handoff.inbox import InboxClosed, until_there_is_memory
from hyperpool.handoff.messages import Dialed, DialFailed

if TYPE_CHECKING:
    from hyperpool.engine.resolve import Resolver
    from hyperpool.engine.trust import TlsConfig
    from hyperpool.values import Route


class DialThreads:
    """Dials one route, each time on a thread of its own.

    Owned by the loop thread; what the threads share with it is the `DialCancel`, which is made for that.
    """

    def __init__(self, route: Route, *, tls_config: TlsConfig, resolver: Resolver) -> None:
        self._route = route
        self._tls_config = tls_config
        self._resolver = resolver
        self._cancel = DialCancel()

    def start(self, deliver: Callable[[Any], None], *, deadline_at: float) -> None:
        """Begin one dial, which ends with one `Dialed` or `DialFailed`. Raises RuntimeError where no thread starts."""
        name = f"hyperpool dial {self._route.origin}"
        threading.Thread(target=self._run, args=(deliver, deadline_at), name=name, daemon=True).start()

    @property
    def phase(self) -> DialPhase | None:
        """What the dial that told last waits for, or was waiting for when its time was over."""
        return self._cancel.phase

    def speak_http1(self) -> None:
        """Offer no HTTP/2 from the next dial on."""
        self._route = dataclasses.replace(self._route, http2=False, upgrade=False)

    def cancel(self) -> None:
        """End the dials under way, and all later ones; they report as failed."""
        self._cancel.cancel()

    def abandon_in_child(self) -> None:
        """After a fork, in the child: close the copies of the descriptors of the dials under way."""
        self._cancel.abandon_in_child()

    def _run(self, deliver: Callable[[Any], None], deadline_at: float) -> None:
        try:
            dialed = dial(
                self._route,
                tls_config=self._tls_config,
                resolver=self._resolver,
                deadline_at=deadline_at,
                cancelled=self._cancel,
            )
        except BaseException as error:  # nobody else would tell those who wait (L5)
            until_there_is_memory(self._put_failure, deliver, error)
        else:
            until_there_is_memory(self._put, deliver, dialed)

    def _put_failure(self, deliver: Callable[[Any], None], error: BaseException) -> None:
        told = error
        if not isinstance(error, HyperpoolError):
            told = HyperpoolError(f"connecting to {self._route.origin} failed: {error!r}")
            told.__cause__ = error
        with suppress(InboxClosed):
            deliver(DialFailed(told))

    @staticmethod
    def _put(deliver: Callable[[Any], None], dialed: Any) -> None:
        try:
            deliver(Dialed(dialed))
        except InboxClosed:
            dialed.close()
