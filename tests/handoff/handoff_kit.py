"""Small tools for the tests of the hand-off floor. None of them replaces a class of hyperpool."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Any

from hyperpool.handoff.body import BodyPipe
from hyperpool.handoff.exchange import Exchange
from hyperpool.handoff.inbox import Inbox
from hyperpool.handoff.leash import Leash
from hyperpool.handoff.response import Response
from hyperpool.handoff.response_head import ResponseParts
from hyperpool.protocol.events import Head, RequestHead
from hyperpool.values import Limits, Request, Timeout

# A wait that ends by itself: reached only where something would hang.
WAIT_S = 45.0
ORIGIN = "https://a.test"


class Thread(threading.Thread):
    """A started thread that keeps what its function returned or raised."""

    def __init__(self, act: Callable[[], object]) -> None:
        super().__init__(daemon=True)
        self._act = act
        self._value: Any = None
        self._error: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            self._value = self._act()
        except BaseException as error:
            self._error = error

    def value(self) -> Any:
        self.join(WAIT_S)
        assert not self.is_alive(), "the thread hangs"
        if self._error is not None:
            raise self._error
        return self._value


class Waiters:
    """Tells when a thread has begun to wait on a condition: at its `wait`, the lock is let go."""

    def __init__(self, condition: threading.Condition) -> None:
        self.came = threading.Event()
        wait = condition.wait

        def announced(timeout: float | None = None) -> bool:
            self.came.set()
            return wait(timeout)

        condition.wait = announced  # type: ignore[method-assign]
        self._condition = condition

    def until_parked(self) -> None:
        assert self.came.wait(WAIT_S)
        # `came` was set under the lock; who gets it now knows that the other is inside the wait.
        with self._condition:
            pass


class FakeWakeup:
    """The seam between inbox and selector, counting instead of writing bytes."""

    def __init__(self) -> None:
        self.woken = 0
        self.on_drain: Callable[[], object] = lambda: None
        self.on_wake: Callable[[], object] = lambda: None

    def wake(self) -> None:
        self.woken += 1
        self.on_wake()

    def drain(self) -> None:
        self.woken = 0
        self.on_drain()


def make_request(**changes: Any) -> Request:
    given: dict[str, Any] = {"method": "GET", "url": f"{ORIGIN}/x", "timeout": Timeout(), **changes}
    return Request(**given)


def make_head(body_bytes: int | None = 0) -> RequestHead:
    return RequestHead(b"GET", b"https", b"a.test", b"/x", (), body_bytes)


def make_exchange(**changes: Any) -> Exchange:
    given: dict[str, Any] = {
        "source": None,
        "streamed": False,
        "submitted_at": 100.0,
        "origin": ORIGIN,
        "limits": Limits(),
        "made_at": "caller.py:7",
        **changes,
    }
    head = given.pop("head", make_head())
    exchange = Exchange(given.pop("request", make_request()), head, **given)
    exchange.inbox = Inbox(FakeWakeup())
    return exchange


def make_answer(status: int = 200, fields: Iterable[tuple[bytes, bytes]] = (), **more: Any) -> Head:
    return Head(1, status, list(fields), **more)


def make_response(
    chunks: Iterable[bytes] = (),
    *,
    fields: Iterable[tuple[bytes, bytes]] = (),
    status: int = 200,
    streamed: bool = False,
    max_decoded_bytes: int | None = None,
    trailers: Iterable[tuple[bytes, bytes]] = (),
    **head: Any,
) -> Response:
    """A response whose whole body is here: collected, or in a pipe that has ended."""
    parts = ResponseParts(make_answer(status, fields, **head), make_request(), ORIGIN, 1.5, (), max_decoded_bytes)
    if not streamed:
        return Response(parts, chunks=list(chunks), trailers=list(trailers))
    pipe = open_pipe()
    for chunk in chunks:
        pipe.feed(chunk)
    pipe.finish(list(trailers))
    return Response(parts, leash=Leash(pipe, reset=lambda: None, made_at="caller.py:7"))


def open_pipe(credit: Callable[[int], None] = lambda taken: None, step: int = 1) -> BodyPipe:
    return BodyPipe(credit=credit, credit_step_bytes=step)


def streaming(pipe: BodyPipe, *, reset: Callable[[], None] = lambda: None, **head: Any) -> Response:
    """A streamed response over a pipe that the test feeds."""
    parts = ResponseParts(make_answer(**head), make_request(), ORIGIN, 1.5, (), None)
    return Response(parts, leash=Leash(pipe, reset=reset, made_at="caller.py:7"))
