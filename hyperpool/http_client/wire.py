"""What stands in the place of a socket: `http.client` writes a request to it and reads a response from it.

A wire belongs to one connection object; the connections under it belong to the pool and are shared. Closing a wire
takes back what this object asked for, and nothing of anybody else.

A body that comes together with its head goes out as bytes, which can be sent again where a server provably did not look
at it. One that comes piece by piece is fed (`handoff.source.FedSource`): whoever sends waits while the server does not
keep up, as with a socket.
"""

from __future__ import annotations

import concurrent.futures
import errno
import io
import socket
from typing import TYPE_CHECKING, Any

from hyperpool.errors import HyperpoolError
from hyperpool.handoff.loop_thread import check_may_wait
from hyperpool.handoff.source import FedSource
from hyperpool.http_client import shared
from hyperpool.http_client.answer import BUFFER_BYTES, Answer
from hyperpool.http_client.faults import standard_error
from hyperpool.http_client.outgoing import Outgoing
from hyperpool.values import Request, Route, Timeout

if TYPE_CHECKING:
    from hyperpool.handoff.futures import ResponseFuture

# A counted body is held back until it is here, up to this. More would only be memory: a body of this size is worth
# feeding. Half of it makes bodies of 64 KiB, which are common, impossible to repeat.
HELD_BYTES = 128 << 10


class Wire:
    """A connection as `http.client` sees it.

    Owned by its connection object, and used by one thread at a time; `close` and `shutdown` from any.
    """

    def __init__(self, route: Route, url: str, *, timeout_s: float | None, keep_warm: bool) -> None:
        """Wait for a connection of the pool to this route.

        ``url``: of the origin, where every request goes. ``keep_warm``: leave an HTTP/2 connection to the pool for its
        ``idle_s`` when the last wire of the route is closed. Raises what the standard library would.
        """
        check_may_wait("connecting")
        self._timeout_s = _checked(timeout_s)
        self.closed = False
        self._route = route
        self._url = url
        self._request: Outgoing | None = None
        self._held: list[bytes] = []
        self._fed: FedSource | None = None
        self._future: ResponseFuture | None = None
        self._answer: Answer | None = None
        self._stay = shared.Stay(route)
        try:
            self.http_version = self._stay.pool.connect(route, timeout_s=timeout_s).result()
        except BaseException as error:
            self._stay.end(keep_warm=keep_warm)
            if not isinstance(error, HyperpoolError):
                raise
            raise standard_error(error) from error
        self._keep_warm = keep_warm and self.http_version == "HTTP/2"

    # -- the request -----------------------------------------------------------------------------------------------

    def sendall(self, data: Any, flags: int = 0) -> None:
        """Take the bytes of a request. Blocks while the server does not keep up with a long body."""
        piece = memoryview(data).cast("B")
        self._check_open()
        if self._request is None or self._answer is not None:
            self._begin()
        assert self._request is not None
        pieces = self._request.feed(piece)
        if self._request.head is None:
            return
        if self._future is not None:
            self._feed(pieces)
            return
        self._held += pieces
        if self._request.complete or sum(map(len, self._held)) > HELD_BYTES:
            self.flush()

    def send(self, data: Any, flags: int = 0) -> int:
        """`sendall`; all of it is sent."""
        self.sendall(data)
        return memoryview(data).nbytes

    def _begin(self) -> None:
        self._request, self._future, self._fed, self._answer, self._held = Outgoing(), None, None, None, []

    def flush(self) -> None:
        """Let the request go out as far as it is here: its head at least."""
        request, held = self._request, self._held
        if request is None or request.head is None or self._future is not None:
            return
        head, self._held = request.head, []
        if request.complete and head.length_bytes is not None:
            self._submit(b"".join(held) if head.length_bytes else None)
            return
        self._fed = FedSource(length_bytes=head.length_bytes)
        self._submit(self._fed)
        self._feed(held)

    def _submit(self, content: Any) -> None:
        assert self._request is not None and self._request.head is not None
        head, wait_s = self._request.head, self._timeout_s
        timeout = Timeout(pool=wait_s, connect=wait_s, write=wait_s, read=wait_s)
        request = Request(head.method, self._url, head.fields, content, timeout, head.target)
        try:
            # made_at=None: to forget a response of http.client is no mistake, and warning of it would be news.
            self._future = self._stay.pool.submit(request, stream=True, made_at=None, route=self._route)
        except HyperpoolError as error:
            self._request = None
            raise standard_error(error) from error

    def _feed(self, pieces: list[bytes]) -> None:
        if self._fed is None:
            return
        assert self._request is not None
        if all(self._fed.feed(piece) for piece in pieces):
            if self._request.complete:
                self._fed.finish()
            return
        self._fed = None
        self._raise_failure()

    def _raise_failure(self) -> None:
        """Say why nobody wants the body. Where the server has answered, it is no error: the answer says more."""
        assert self._future is not None
        try:
            error = self._future.exception()
        except concurrent.futures.CancelledError:
            raise ConnectionAbortedError(errno.ECONNABORTED, "the connection was closed on this side") from None
        if isinstance(error, HyperpoolError):
            raise standard_error(error) from error

    # -- the response ----------------------------------------------------------------------------------------------

    def makefile(self, mode: str = "rb", buffering: int | None = None, **options: Any) -> Any:
        """The response to the request that was sent, as a file of bytes; its first read waits for the head."""
        self._check_open()
        if mode not in ("r", "rb"):
            raise io.UnsupportedOperation(f"makefile({mode!r}): this is no socket; only a response can be read from it")
        self.flush()
        if self._future is None:
            raise OSError(errno.ENOTCONN, "no request was sent whose response could be read")
        complete = self._request is not None and self._request.complete
        self._answer = Answer(self._future, patience_s=None if complete else self._timeout_s)
        return self._answer if buffering == 0 else io.BufferedReader(self._answer, BUFFER_BYTES)

    # -- what else is asked of a socket ----------------------------------------------------------------------------

    def settimeout(self, timeout_s: float | None) -> None:
        """Seconds for each wait of later requests; None waits for ever. Raises ValueError for fewer than 0."""
        self._timeout_s = _checked(timeout_s)

    def gettimeout(self) -> float | None:
        """Seconds for each wait."""
        return self._timeout_s

    def setblocking(self, flag: bool) -> None:
        """As for sockets: ``settimeout(None)`` or ``settimeout(0)``."""
        self._timeout_s = None if flag else 0.0

    def setsockopt(self, *options: Any) -> None:
        """Nothing: the connection is shared, and what it needs is set already."""

    def getpeername(self) -> tuple[str, int]:
        """Host and port as they were given, no address: that is the pool's matter, and may change."""
        return self._route.origin.host, self._route.origin.port

    def fileno(self) -> int:
        """Raises UnsupportedOperation: the descriptor is shared, and waiting for it would tell nothing."""
        raise io.UnsupportedOperation("fileno(): the connection is shared by many objects")

    def selected_alpn_protocol(self) -> str | None:
        """ "h2" or "http/1.1" over TLS, None without."""
        if self._route.origin.scheme != "https":
            return None
        return "h2" if self.http_version == "HTTP/2" else "http/1.1"

    def shutdown(self, how: int = socket.SHUT_RDWR) -> None:
        """Give up what is under way: a thread that reads it is told."""
        if how == socket.SHUT_WR:
            return
        if self._future is not None:
            self._future.cancel()
        if self._answer is not None and self._answer.response is not None:
            self._answer.response.close()

    # -- its end ---------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Let go. A request without a reader is taken back; a response that has one goes on. Never blocks."""
        if self.closed:
            return
        self.closed = True
        self._take_back()
        self._stay.end(keep_warm=self._keep_warm)

    def detach(self) -> int:
        """Close; there is no descriptor to give away."""
        self.close()
        return -1

    def _take_back(self) -> None:
        if self._future is not None and self._answer is None:
            self._future.cancel()

    def __del__(self) -> None:
        # A request that is never answered would keep its stream for ever. Nothing else is done here: the pool's lock
        # is not for finalizers.
        if not getattr(self, "closed", True):
            self._take_back()

    def _check_open(self) -> None:
        if self.closed:
            raise OSError(errno.EBADF, "this connection was closed")

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self.closed else "open"
        return f"<Wire {state} {self._route.origin} {getattr(self, 'http_version', 'not connected')}>"


def _checked(timeout_s: float | None) -> float | None:
    if timeout_s is not None and not timeout_s >= 0:
        raise ValueError(f"a timeout is 0 s or more, or None for ever, not {timeout_s!r}")
    return timeout_s
