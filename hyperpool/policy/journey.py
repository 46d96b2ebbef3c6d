"""One request of a program, with all that follows from it: redirects, retries, challenges, cookies. The decisions.

A journey is a row of attempts, each one exchange of the pool. `send` submits the next one. Then `follow` looks at what
came of it, and says whether it stands, or makes the request for the next. Who calls them, and on which thread, is the
business of `escort`; nothing here waits.
"""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from hyperpool.errors import HTTPStatusError, HyperpoolError, LocalProtocolError, TooManyRedirects, TotalTimeout
from hyperpool.handoff.exchange import Resend
from hyperpool.handoff.hooks import tell
from hyperpool.policy import cookies as cookie_rules
from hyperpool.policy import redirects
from hyperpool.policy.auth import Netrc
from hyperpool.policy.cookies import Cookies
from hyperpool.policy.courier import Courier
from hyperpool.policy.retries import Retries, RetryBudget
from hyperpool.policy.writing import Headers, names, without
from hyperpool.urls import parse_url, without_userinfo
from hyperpool.values import Request

if TYPE_CHECKING:
    from hyperpool.handoff.futures import ResponseFuture
    from hyperpool.handoff.hooks import Hooks, Informational
    from hyperpool.handoff.response import Response
    from hyperpool.handoff.source import Source
    from hyperpool.pool import ConnectionPool

_EXPECT = frozenset(("expect",))


def _expects_continue(request: Request) -> bool:
    return any(name.lower() == "expect" and value.lower() == "100-continue" for name, value in request.headers)


class Company(NamedTuple):
    """What all journeys of a client share. Immutable; each part guards itself."""

    pool: ConnectionPool
    courier: Courier
    budget: RetryBudget
    netrc: Netrc | None
    max_redirects: int
    closing: threading.Event
    hooks: Hooks | None = None


@dataclass(slots=True, eq=False, repr=False)
class Plan:
    """What the caller wants of one journey. Owned by the journey, which strikes out what other origins must not see.

    ``bare``: the headers before ``auth`` signed them. ``pairs``, ``under``: cookies without a domain, of the call and
    of the client. ``jars``: the client's cookies, then those of the call's own jar. ``informational``: told of the 1xx
    responses of each attempt.
    """

    request: Request
    source: Source | None
    stream: bool
    made_at: str
    follow: bool
    retries: Retries | None
    auth: Any
    uses_netrc: bool
    bare: Headers
    cookies: Cookies
    pairs: cookie_rules.Pairs
    call_jar: Any
    informational: Informational | None = None


class Journey:
    """One request on its way, attempt by attempt.

    Owned by one thread at a time: who submits, then who has the outcome of the last attempt (`escort`).
    """

    __slots__ = (
        "_at_home",
        "_began_at",
        "_history",
        "_plan",
        "_proven",
        "_redirects",
        "_resends",
        "_sent_at",
        "_timeout",
        "attempts",
        "company",
    )

    def __init__(self, company: Company, plan: Plan) -> None:
        self.company = company
        self.attempts = 0
        self._plan = plan
        self._timeout = plan.request.timeout
        self._began_at = self._sent_at = time.monotonic()
        self._at_home = True
        self._proven = False
        self._redirects = 0
        self._history: list[Response] = []
        self._resends: list[Resend] = []

    # -- one attempt -----------------------------------------------------------------------------------------------

    def send(self, review: Callable[[Any, Any], bool]) -> ResponseFuture:
        """Submit the next attempt, as `ConnectionPool.submit` does. Raises what that raises, and TotalTimeout."""
        return self.company.pool.submit(self._next_request(), review=review, **self._how())

    def fetch(self) -> Response:
        """Carry out the next attempt, as `ConnectionPool.fetch` does. Blocks. Raises its error, and TotalTimeout."""
        response: Response = self.company.pool.fetch(self._next_request(), **self._how())
        return response

    def _next_request(self) -> Request:
        plan = self._plan
        request = self._with_cookies(plan.request)
        if self.attempts:
            self._sent_at = time.monotonic()
            request = dataclasses.replace(request, timeout=self._timeout_left())
        elif plan.retries is not None:
            self.company.budget.earn(self._origin())
        self.attempts += 1
        if self.company.hooks is not None:
            tell(self.company.hooks.request, request)
        return request

    def _how(self) -> dict[str, Any]:
        plan = self._plan
        return {
            "stream": plan.stream,
            "made_at": plan.made_at,
            "source": plan.source,
            "informational": plan.informational,
            "passes_by": redirects.leads_on if plan.follow else None,
        }

    def _with_cookies(self, request: Request) -> Request:
        plan = self._plan
        if plan.cookies.is_empty and not plan.pairs and plan.call_jar is None:
            return request
        if names(request.headers, "cookie"):
            return request  # the caller's own word
        jars = [jar for jar in (plan.call_jar, plan.cookies.jar) if jar is not None]
        under = plan.cookies.pairs if self._at_home else ()
        value = cookie_rules.header(request.url, jars=jars, under=under, over=plan.pairs)
        return request if value is None else dataclasses.replace(request, headers=(*request.headers, ("Cookie", value)))

    def _timeout_left(self) -> Any:
        if self._timeout.total is None:
            return self._timeout
        left_s = self._timeout.total - self._spent_s()
        if left_s <= 0:
            raise self._out_of_time(None)
        return dataclasses.replace(self._timeout, total=left_s)

    # -- what came of it -------------------------------------------------------------------------------------------

    def stands(self, outcome: Response | BaseException) -> bool:
        """Whether the outcome of the first attempt is the journey's own. Cheap; no code of the caller but its hook."""
        its_own = self._is_final(outcome)
        if its_own and self.company.hooks is not None:
            self._tell_response(outcome, self.company.hooks)
        return its_own

    @staticmethod
    def _tell_response(outcome: Response | BaseException, hooks: Hooks) -> None:
        if not isinstance(outcome, BaseException):
            tell(hooks.response, outcome)

    def _is_final(self, outcome: Response | BaseException) -> bool:
        plan = self._plan
        if isinstance(outcome, BaseException):
            return plan.retries is None
        status = outcome.status_code
        if status in redirects.STATUSES and plan.follow:
            return False
        if plan.retries is not None and plan.retries.look_at(status):
            return False
        if (status == 401 and plan.auth is not None) or (status == 417 and _expects_continue(plan.request)):
            return False
        return not cookie_rules.are_set_by(outcome)

    def follow(self, outcome: Response | BaseException) -> float | None:
        """Look at what came of the last attempt, and make the next request.

        Seconds to wait before it is sent; None where the response stands. Raises the error with which the journey ends.
        """
        if isinstance(outcome, BaseException):
            return self._after_error(outcome)
        outcome.came_after(self._history, self._resends, self._sent_at - self._began_at)
        if self.company.hooks is not None:
            self._tell_response(outcome, self.company.hooks)
        if cookie_rules.are_set_by(outcome):
            self._plan.cookies.extract(outcome)
        try:
            delay_s = self._after_response(outcome)
        except BaseException:
            if self._plan.stream:
                outcome.close()  # nobody else will
            raise
        if delay_s is not None:
            outcome.close()  # unread, and never decoded: it may be a bomb
        return delay_s

    def _after_response(self, response: Response) -> float | None:
        plan, status = self._plan, response.status_code
        if status in redirects.STATUSES and plan.follow and (to := redirects.location(response.raw_fields)):
            return self._redirect(response, to)
        if status == 401 and plan.auth is not None and self._meets_challenge(response):
            return 0.0
        if status == 417 and _expects_continue(plan.request) and self._may_send_again:
            return self._without_expectation()
        if plan.retries is not None and plan.retries.look_at(status) and plan.retries.asks_for(response):
            return self._after_status(response, plan.retries)
        return None

    def _where(self, response: Response) -> dict[str, Any]:
        return {"origin": self._origin(), "stream_id": response.stream_id, "processed": "maybe"}

    def _spent_s(self) -> float:
        return time.monotonic() - self._began_at

    # -- redirects -------------------------------------------------------------------------------------------------

    def _redirect(self, response: Response, to: str) -> float:
        plan, request, where = self._plan, response.request, self._where(response)
        if self._redirects >= self.company.max_redirects:
            bound = f"it was redirected {self._redirects} times: raise max_redirects, or look at error.history"
            raise TooManyRedirects(
                f"{request.method} {without_userinfo(request.url)}: {bound}",
                history=[*self._history, response],
                **where,
            )
        url = redirects.next_url(request.url, to, **where)
        # Built on what the caller meant, without the cookies that were added for this hop alone.
        made = redirects.redirected(plan.request, response.status_code, url)
        if made.method != plan.request.method:
            plan.source = None
            plan.bare = redirects.redirected(
                dataclasses.replace(plan.request, headers=plan.bare), response.status_code, url
            ).headers
        elif plan.source is not None and not plan.source.replayable:
            raise LocalProtocolError(
                f"{request.method} {without_userinfo(request.url)} was redirected ({response.status_code}), and its"
                " body cannot be sent a second time: give bytes, a seekable file or a list",
                **where,
            )
        if parse_url(url).origin != parse_url(request.url).origin:
            plan.request = self._estranged(made)
        elif hasattr(plan.auth, "answer"):  # the proof is for one method and URL
            plan.request = plan.auth(dataclasses.replace(made, headers=plan.bare))
        else:
            plan.request = made
        self._proven = False
        self._redirects += 1
        self._history.append(response)
        return 0.0

    def _estranged(self, made: Request) -> Request:
        """The request for another origin, which learns nothing that was for the first one; and never again, not even
        when it leads back there: from now on the way is a stranger's."""
        plan = self._plan
        made = redirects.estranged(dataclasses.replace(made, headers=plan.bare, target=None))
        plan.bare, plan.auth, plan.pairs = made.headers, None, ()
        self._at_home = False
        if plan.uses_netrc and self.company.netrc is not None:
            own = self.company.netrc.auth(parse_url(made.url).origin.host, named=True)
            return made if own is None else own(made)
        return made

    # -- challenges ------------------------------------------------------------------------------------------------

    def _meets_challenge(self, response: Response) -> bool:
        """Whether there is a proof to send; one for each URL, so that a wrong password is no loop."""
        plan = self._plan
        answer = getattr(plan.auth, "answer", None)
        if answer is None or self._proven or not self._may_send_again:
            return False
        made = answer(plan.request, response)
        if made is None:
            return False
        plan.request, self._proven = made, True
        self._history.append(response)
        return True

    # -- expectations ----------------------------------------------------------------------------------------------

    def _without_expectation(self) -> float:
        """RFC 9110 15.5.18: the server, or a proxy, knows no expectations; the request may go out again without."""
        plan = self._plan
        plan.request = dataclasses.replace(plan.request, headers=without(plan.request.headers, _EXPECT))
        plan.bare = without(plan.bare, _EXPECT)
        self._note_resend("417")
        return 0.0

    @property
    def _may_send_again(self) -> bool:
        source = self._plan.source
        return source is None or source.replayable

    # -- retries ---------------------------------------------------------------------------------------------------

    def _after_error(self, error: BaseException) -> float:
        plan, retries = self._plan, self._plan.retries
        if isinstance(error, TotalTimeout) and self.attempts > 1:
            raise self._out_of_time(error)
        if retries is None:
            raise error
        delay_s = retries.after_error(error, plan.request.method, plan.request.url)
        if delay_s is None:
            raise self._with_count(error)
        if (why := self._why_not(delay_s)) is not None:
            raise self._with_count(error, why)
        self._note_resend(type(error).__name__)
        return delay_s

    def _after_status(self, response: Response, retries: Retries) -> float | None:
        delay_s = retries.after_status(response)
        why = None if delay_s is None else self._why_not(delay_s)
        if delay_s is not None and why is None:
            self._note_resend(str(response.status_code))
            return delay_s
        if not retries.raises_on_status:
            return None
        request = response.request
        words = f"{request.method} {without_userinfo(request.url)} is answered {response.status_code}{self._count()}"
        raise HTTPStatusError(f"{words}{f', {why}' if why else ''}", response=response, **self._where(response))

    def _note_resend(self, reason: str) -> None:
        self._resends.append(Resend(reason, self._spent_s()))
        if self.company.hooks is not None:
            tell(self.company.hooks.retry, self._plan.request, self._resends[-1])

    def _why_not(self, delay_s: float) -> str | None:
        """Why a retry that Retry allows is not made; None where it is."""
        total_s = self._timeout.total
        if not self._may_send_again:
            return "not sent again: its body cannot be replayed"
        if total_s is not None and self._spent_s() + delay_s >= total_s:
            return f"not sent again: Timeout.total={total_s:g} s would be over before"
        if not self.company.budget.spend(self._origin()):
            return f"not sent again: the retry budget of {self._origin()} is spent"
        return None

    def _with_count(self, error: BaseException, why: str | None = None) -> BaseException:
        if isinstance(error, HyperpoolError) and (self._resends or why):
            error.args = (f"{error}{self._count()}{f', {why}' if why else ''}",)
        return error

    def _count(self) -> str:
        n = len(self._resends)
        return "" if n == 0 else f" (after {n} retr{'y' if n == 1 else 'ies'})"

    def _origin(self) -> str:
        return str(parse_url(self._plan.request.url).origin)

    def _out_of_time(self, cause: TotalTimeout | None) -> TotalTimeout:
        """The error of the whole journey: its last attempt knows only the seconds that had been left for it."""
        request, spent_s = self._plan.request, {"total": self._spent_s()}
        error = TotalTimeout(
            f"{request.method} {without_userinfo(request.url)}: not finished within Timeout.total="
            f"{self._timeout.total:g} s ({self._redirects} redirects and {len(self._resends)} retries in that time)",
            spent_s=spent_s if cause is None else cause.spent_s,
            origin=self._origin(),
            stream_id=None if cause is None else cause.stream_id,
            processed="maybe",
        )
        error.__cause__ = cause
        return error
