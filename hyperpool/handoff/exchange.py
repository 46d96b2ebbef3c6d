"""One request with its response, whatever connection carries it: the thing that a Future stands for.

An exchange passes through these states, and through none twice but for a resend (L9):

    QUEUED --open--> OPEN --head--> ANSWERED --end--> DONE
      ^                |                |
      '----requeue-----'                '--(any failure)--> DONE

It is settled exactly once (L5): `complete` and `fail` are the only two ends, both assert that no end came before, and
neither touches the Future. What they decide is carried out by `settle`, last in the loop's step, when no stream map is
being walked: waking a caller may run its code.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from hyperpool import errors
from hyperpool.errors import HyperpoolError
from hyperpool.handoff.body import BodyPipe
from hyperpool.handoff.deadlines import NEVER, Deadlines
from hyperpool.handoff.futures import ResponseFuture, SoleWaiter, resolve
from hyperpool.handoff.hooks import Informational, tell
from hyperpool.handoff.inbox import Inbox, InboxClosed
from hyperpool.handoff.leash import Leash
from hyperpool.handoff.messages import Cancel, Consumed, UploadReady
from hyperpool.handoff.request_body import RequestBody
from hyperpool.handoff.response import Response
from hyperpool.handoff.response_head import ResponseParts, header_dict
from hyperpool.urls import without_userinfo

if TYPE_CHECKING:
    from hyperpool.handoff.pushes import Pushes
    from hyperpool.handoff.source import Source
    from hyperpool.protocol.events import Fields, Head, Interim, RequestHead
    from hyperpool.values import Limits, Request, Route


class State(enum.Enum):
    """Where an exchange stands."""

    QUEUED = "queued"
    OPEN = "open"
    ANSWERED = "answered"
    DONE = "done"


# By these names: before Python 3.12 an Enum finds a member by a detour of 0.1 us, and a request asks a dozen times.
QUEUED, OPEN, ANSWERED, DONE = State


class Resend(NamedTuple):
    """Why a request was sent once more. Immutable."""

    reason: str
    at_s: float


# How much of a body that nobody will read is waited for, since an HTTP/1.1 connection is free only behind it. Halved,
# the page that some servers put into a redirect costs a connection; doubled, a line of 10 Mbit/s is held up for 0.1 s.
PASSED_BODY_BYTES = 64 << 10

Review = Callable[[Any, "Response | BaseException"], bool]


class Exchange:
    """One request and its response.

    Made by the caller's thread, owned by the loop thread from the put of its Submit on.
    """

    __slots__ = (
        "_collected",
        "_interim",
        "_outcome",
        "_pipe",
        "_spare_bytes",
        "connection",
        "deadlines",
        "future",
        "head",
        "inbox",
        "informational",
        "keeps_alive",
        "limits",
        "made_at",
        "origin",
        "parts",
        "passes_by",
        "pushed",
        "pushes",
        "refusals",
        "request",
        "request_body",
        "resends",
        "review",
        "route",
        "sequence",
        "state",
        "stream_id",
        "streamed",
        "timer_at",
    )

    def __init__(
        self,
        request: Request,
        head: RequestHead,
        *,
        source: Source | None,
        streamed: bool,
        submitted_at: float,
        origin: str,
        limits: Limits,
        made_at: str | None = "",
        keeps_alive: object = None,
        alone: bool = False,
    ) -> None:
        """``alone``: one thread waits for it, and wants nothing else of a Future."""
        self.request = request
        self.head = head
        self.streamed = streamed
        self.origin = origin
        self.limits = limits
        self.made_at = made_at
        # The pool, which would close its loops if it were forgotten while somebody waits for this.
        self.keeps_alive = keeps_alive
        self.deadlines = Deadlines(request.timeout, submitted_at, min_rate=limits.min_body_rate)
        self.future: ResponseFuture | SoleWaiter[Response] | None = (
            SoleWaiter(self._reach_loop_with_cancel) if alone else ResponseFuture(self._reach_loop_with_cancel)
        )
        self.route: Route | None = None
        self.inbox: Inbox | None = None
        self.state = QUEUED
        self.sequence = 0
        self.stream_id: int | None = None
        # The connection that carries it now; the loop's business, never read here.
        self.connection: Any = None
        self.timer_at = NEVER
        self.request_body: RequestBody | None = None
        if source is not None:
            self.request_body = RequestBody(
                source, declared_bytes=head.body_bytes, capacity_bytes=limits.upload_buffer_bytes
            )
        self.resends: list[Resend] = []
        # Those of the resends that count towards the bound.
        self.refusals = 0
        # What the server pushes with it, and whether it was pushed itself: then it never goes out again.
        self.pushes: Pushes | None = None
        self.pushed = False
        # Asked before the Future is resolved: who says True resolves it, later and from elsewhere.
        self.review: Review | None = None
        # Whether nobody will read the body behind this head; then, how much more of it is worth waiting for.
        self.passes_by: Callable[[Head], bool] | None = None
        self._spare_bytes: int | None = None
        # Told of 1xx responses, and those that it is to be told of.
        self.informational: Informational | None = None
        self._interim: tuple[Interim, ...] = ()
        self.parts: ResponseParts | None = None
        self._pipe: BodyPipe | None = None
        self._collected: list[bytes] = []
        self._outcome: Response | BaseException | None = None

    # -- said by other threads -------------------------------------------------------------------------------------

    def _say(self, message: Any) -> None:
        assert self.inbox is not None
        try:
            self.inbox.put(message)
        except InboxClosed:
            return  # the loop has ended, and has settled this exchange on its way out (L5)

    def _reach_loop_with_cancel(self) -> None:
        self._say(Cancel(self))

    def _reach_loop_with_credit(self, body_bytes: int) -> None:
        self._say(Consumed(self, body_bytes))

    def _reach_loop_with_upload(self) -> None:
        self._say(UploadReady(self))

    # -- the loop's side -------------------------------------------------------------------------------------------

    def begin(self, stream_id: int | None, now: float) -> None:
        """The head goes out, on this stream where there are streams; the body's uploader starts."""
        assert self.state is QUEUED
        self.state = OPEN
        self.stream_id = stream_id
        self.deadlines.enter("write" if self.request_body else "read", now)
        if self.request_body is not None and not self.head.expects_continue:
            self.request_body.open(self._reach_loop_with_upload)

    def release_upload(self, now: float) -> None:
        """A body that has waited may go. Raises RuntimeError where no thread can be started for it."""
        assert self.request_body is not None
        self.request_body.starved = False
        self.deadlines.touched_at = now
        self.request_body.open(self._reach_loop_with_upload)

    def requeue(self, reason: str, now: float) -> None:
        """The server provably did not act on it: it may go out again (L9)."""
        assert self.state is OPEN
        self.state = QUEUED
        self.stream_id = None
        self.resends.append(Resend(reason, now - self.deadlines.submitted_at))
        self.deadlines.enter("pool", now)
        if self.request_body is not None:
            self.request_body.rewind()

    @property
    def replayable(self) -> bool:
        """Whether the whole request could be sent once more, as far as its body goes."""
        return not self.pushed and (self.request_body is None or self.request_body.replayable)

    def answer(self, head: Head, now: float, *, credit_step_bytes: int | None = None) -> None:
        """The response head is here. A streamed response is settled with it.

        ``credit_step_bytes``: consumed bytes that the loop wants to hear of at a time; half a window by default.
        """
        assert self.state is OPEN
        self.state = ANSWERED
        if self.streamed:
            self.deadlines.total_at = NEVER  # `Timeout.total` ends with what the Future stands for
        if self.deadlines.pace is not None:
            self.deadlines.pace.begin(now)
        elapsed_s = now - self.deadlines.submitted_at
        self.parts = ResponseParts(
            head, self.request, self.origin, elapsed_s, tuple(self.resends), self.limits.max_decoded_bytes
        )
        if self.streamed:
            step_bytes = credit_step_bytes or self.limits.stream_window_bytes // 2
            self._outcome = self._streamed_response(self.parts, step_bytes, self.made_at)
        elif self.passes_by is not None and self.passes_by(head):
            self._spare_bytes = PASSED_BODY_BYTES

    def _pass_by(self) -> None:
        """Settle it without its body: a response that is closed already. The loop will take it off the wire."""
        assert self.parts is not None
        self.streamed = True
        self._collected = []
        self._outcome = response = self._streamed_response(self.parts, 1, None)
        response.close()

    def _streamed_response(self, parts: ResponseParts, credit_step_bytes: int, made_at: str | None) -> Response:
        self._pipe = BodyPipe(credit=self._reach_loop_with_credit, credit_step_bytes=credit_step_bytes)
        return Response(parts, leash=Leash(self._pipe, reset=self._reach_loop_with_cancel, made_at=made_at))

    @property
    def excused(self) -> bool:
        """Whether the pause of this exchange is our own side's: an unread body, or an upload without bytes."""
        body = self.request_body
        return (body is not None and body.starved) or self.unread_bytes > 0

    def feed(self, data: bytes, *, wake: bool = True) -> bool:
        """A piece of body. Whether it is consumed with this, because nobody else will read it piece by piece.

        Without ``wake``, `wake_reader` must follow in the same step of the loop. It may be ``streamed`` from then on:
        where nobody is to read the body, and it is long.
        """
        if self._pipe is not None:
            self._pipe.feed(data, wake=wake)
        else:
            self._collected.append(data)
            if self._spare_bytes is not None:
                self._spare_bytes -= len(data)
                if self._spare_bytes < 0:
                    self._pass_by()
        pace = self.deadlines.pace
        if pace is not None:
            pace.came(len(data), held_up=self.unread_bytes >= self.limits.stream_window_bytes // 2)
        return self._pipe is None

    def wake_reader(self) -> None:
        """Tell the reader of a streamed body that there is something."""
        if self._pipe is not None:
            self._pipe.wake()

    @property
    def unread_bytes(self) -> int:
        """Body bytes that wait for a reader."""
        return 0 if self._pipe is None else self._pipe.buffered_bytes

    def complete(self, trailers: Fields, now: float) -> None:
        """The response is here, whole."""
        assert self.state is ANSWERED and self.parts is not None, "L5: settled once"
        if self._pipe is not None:
            self._pipe.finish(trailers)
        else:
            self.parts.elapsed_s = now - self.deadlines.submitted_at
            self._outcome = Response(self.parts, chunks=self._collected, trailers=trailers)
            # The Response's alone from here on: a timer may know this exchange for long, and would keep its body.
            self._collected = []
        # Last: where there was no memory for all of that it is not done, and can still fail.
        self.state = DONE
        self._let_go()

    def fail(self, error: BaseException) -> None:
        """The exchange ends with this error, which is its own."""
        assert self.state is not DONE, "L5: settled once"
        self._let_go()
        if self._pipe is not None:
            self._pipe.fail(error)
        if self.future is not None and self._outcome is None:
            self._outcome = error
        # Last, as in `complete`.
        self.state = DONE

    def abandon_in_child(self, error: HyperpoolError) -> None:
        """After a fork, in the child: whoever came along and waits for this is told; the parent goes on with it."""
        self.state = DONE
        own = error.own_copy(**self.where())
        if self.request_body is not None:
            self.request_body.abandon_in_child()
        if self._pipe is not None:
            self._pipe.abandon_in_child(own)
        if self.pushes is not None:
            self.pushes.end()
        if self.future is not None:
            self.future.abandon_in_child(own)
        self.future = self._outcome = self.keeps_alive = None

    def inform(self, interim: Interim) -> bool:
        """A 1xx response is here; whether somebody wants to be told, which `settle` will do."""
        if self.informational is not None:
            self._interim += (interim,)
        return bool(self._interim)

    def _tell_interim(self) -> None:
        told, self._interim = self._interim, ()
        for interim in told:
            tell(self.informational, interim.status, header_dict(interim.fields))

    def settle(self) -> None:
        """Resolve the Future, if there is something to resolve it with. Runs the caller's callbacks."""
        if self._interim:
            self._tell_interim()
        future, outcome = self.future, self._outcome
        if future is None or outcome is None:
            return
        try:
            if self.review is None or not self.review(future, outcome):
                resolve(future, outcome)
        except BaseException as error:
            if future.done():
                self.future = self._outcome = None  # it was a done-callback that failed
            elif not isinstance(error, MemoryError):
                self.review = None  # what is wrong with it would be so again
            raise  # where there was no memory for its Future, that is still owed its outcome (L5)
        # From here on the Response belongs to its reader alone: kept here, it could never be found forgotten.
        self.future = self._outcome = self.review = None

    def _let_go(self) -> None:
        # A forgotten pool closes now: the timer of this exchange may hold it for as long as it had been patient.
        self.keeps_alive = None
        if self.request_body is not None:
            self.request_body.end()
        if self.pushes is not None:
            self.pushes.end()

    def where(self) -> dict[str, Any]:
        """The keywords that tell an error of ours which exchange it is about."""
        return {
            "origin": self.origin,
            "stream_id": self.stream_id,
            "processed": "no" if self.state is QUEUED else "maybe",
        }

    def timeout_error(self, now: float, *, because: str = "", slow: str = "") -> errors.Timeout:
        """The error for the deadline that has passed (see `Deadlines.error`); ``because``: what is known of it."""
        what = f"{self.request.method} {without_userinfo(self.request.url)}"
        return self.deadlines.error(now, what=what, where=self.where(), because=because, slow=slow)

    def __repr__(self) -> str:
        url = without_userinfo(self.request.url)
        return f"<Exchange {self.request.method} {url} {self.state.value} stream={self.stream_id}>"
