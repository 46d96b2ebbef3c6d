"""Retries: what is sent again, when, how often, and the budget that keeps them from multiplying an outage."""

from __future__ import annotations

import email.utils
import itertools
import threading
import time
from typing import Any

import pytest
from client_support import H2_TLS, Kit, Wire, error_of, raised
from urllib3.util import Retry

import hyperpool
from hyperpool.policy.retries import BURST, SHARE, TRICKLE_PER_S, Retries, RetryBudget
from hyperpool.testing import Disconnect, Reply, Request, Reset, Silence
from stage import WAIT_S, eventually, nobody


def by_request(client: Any, method: str, url: str, **options: Any) -> Any:
    return client.request(method, url, **options)


def by_submit(client: Any, method: str, url: str, **options: Any) -> Any:
    return client.submit(method, url, **options).result(WAIT_S)


def by_stream(client: Any, method: str, url: str, **options: Any) -> Any:
    with client.stream(method, url, **options) as response:
        return response


ways = pytest.mark.parametrize("way", [by_request, by_submit, by_stream], ids=lambda way: way.__name__)


def in_turn(*answers: Any) -> Any:
    """A handler that gives these answers one after the other, the last one for ever."""
    left, lock = list(answers), threading.Lock()

    def handle(request: Request) -> Any:
        body = request.read()
        with lock:
            answer = left.pop(0) if len(left) > 1 else left[0]
        return body if answer == "echo" else answer

    return handle


def test_no_wait_is_longer_than_a_thread_can_wait() -> None:
    """A wait that no thread can make would raise in the caller, or end the courier of all."""
    retries = Retries(Retry(3, backoff_factor=1e300, backoff_max=1e300))
    error = hyperpool.ConnectError("refused")
    waits = [retries.after_error(error, "GET", "https://a.test/") for _ in range(3)]
    assert waits == [0.0, threading.TIMEOUT_MAX, threading.TIMEOUT_MAX]


RETRY = Retry(3, status_forcelist=[500, 503], raise_on_status=False)


@ways
def test_a_status_of_the_list_is_asked_for_again_and_the_response_says_so(kit: Kit, wire: Wire, way: Any) -> None:
    server, client = kit.pair(wire, in_turn(503, 500, b"at last"), retries=RETRY)
    response = way(client, "GET", server.url())
    assert response.status_code == 200
    assert [resend.reason for resend in response.retries] == ["503", "500"]
    assert response.retries[0].at_s <= response.retries[1].at_s


@ways
def test_the_last_response_stands_or_is_an_error_as_raise_on_status_says(kit: Kit, wire: Wire, way: Any) -> None:
    server, client = kit.pair(wire, in_turn(503), retries=RETRY)
    assert way(client, "GET", server.url()).status_code == 503
    assert len(server.requests) == 4
    strict = Retry(2, status_forcelist=[503])
    error = raised(hyperpool.HTTPStatusError, lambda: way(client, "GET", server.url(), retries=strict))
    assert (error.response.status_code, len(server.requests)) == (503, 7)
    assert "after 2 retries" in str(error)


@ways
@pytest.mark.parametrize("fault", [Reset(), Disconnect()], ids=["reset", "disconnect"])
def test_what_may_have_been_processed_is_sent_again_for_idempotent_methods_only(
    kit: Kit, wire: Wire, way: Any, fault: Any
) -> None:
    server, client = kit.pair(wire, in_turn(fault, b"at last"), retries=3)
    assert way(client, "PUT", server.url(), content=b"x").status_code == 200
    other, client = kit.pair(wire, in_turn(fault, b"never"), retries=3)
    with pytest.raises(hyperpool.HyperpoolError) as caught:
        way(client, "POST", other.url(), content=b"x")
    assert (caught.value.processed, len(other.requests)) == ("maybe", 1)


def test_allowed_methods_may_name_post(kit: Kit, wire: Wire) -> None:
    retry = Retry(3, allowed_methods=None)
    server, client = kit.pair(wire, in_turn(Reset(), "echo"), retries=retry)
    assert client.post(server.url(), content=[b"a ", b"list"]).content == b"a list"


@ways
def test_without_retries_nothing_is_sent_again(kit: Kit, wire: Wire, way: Any) -> None:
    server, client = kit.pair(wire, in_turn(Reset(), b"never"), retries=5)
    with pytest.raises(hyperpool.HyperpoolError):
        way(client, "GET", server.url(), retries=0)
    server.route("/status")(lambda request: 503)
    assert way(client, "GET", server.url("/status")).status_code == 503


@ways
def test_a_connection_that_is_refused_is_tried_again_for_any_method(kit: Kit, way: Any) -> None:
    url = f"http://127.0.0.1:{kit.enter(nobody())}/"
    client = kit.client(H2_TLS)
    error = raised(hyperpool.ConnectError, lambda: way(client, "POST", url, retries=2))
    assert "after 2 retries" in str(error) and error.processed == "no"
    error = raised(hyperpool.ConnectError, lambda: way(client, "POST", url, retries=Retry(2, connect=1)))
    assert "after 1 retry" in str(error)


def test_an_untrusted_certificate_is_never_tried_again(kit: Kit) -> None:
    server = kit.server(errors_expected=True)
    error = raised(hyperpool.CertificateError, lambda: kit.client(verify=True, retries=3).get(server.url()))
    assert "retr" not in str(error)


def test_a_body_that_cannot_be_replayed_is_not_sent_again(kit: Kit, wire: Wire) -> None:
    server, client = kit.pair(wire, in_turn(503, b"never"), retries=RETRY)
    assert client.put(server.url(), content=iter([b"once"])).status_code == 503
    assert len(server.requests) == 1


def test_a_file_is_sent_again_from_where_it_stood(kit: Kit, wire: Wire, tmp_path: Any) -> None:
    path = tmp_path / "body"
    path.write_bytes(b"--from a file")
    server, client = kit.pair(wire, in_turn(503, "echo"), retries=RETRY)
    with path.open("rb") as file:
        file.seek(2)
        assert client.put(server.url(), content=file).content == b"from a file"


# -- waiting -----------------------------------------------------------------------------------------------------------


@ways
@pytest.mark.slow
def test_retry_after_in_seconds_is_waited_for(kit: Kit, way: Any) -> None:
    server, client = kit.pair(handler=in_turn(Reply(503, (("retry-after", "1"),)), b"at last"), retries=1)
    began_at = time.monotonic()
    assert way(client, "GET", server.url()).status_code == 200
    assert time.monotonic() - began_at >= 1


@ways
@pytest.mark.slow
def test_retry_after_as_a_date_is_waited_for(kit: Kit, way: Any) -> None:
    dates: list[str] = []

    def busy_once(request: Request) -> Any:
        if dates:
            return b"at last"
        # Of the moment of the answer: one that was made before might have passed by then.
        dates.append(email.utils.formatdate(time.time() + 2, usegmt=True))
        return Reply(429, (("retry-after", dates[0]),))

    server, client = kit.pair(handler=busy_once, retries=1)
    assert way(client, "GET", server.url()).status_code == 200
    assert time.time() >= email.utils.parsedate_to_datetime(dates[0]).timestamp()


@pytest.mark.parametrize("value", ["soon", "-1", "", "0", "Thu, 01 Jan 1970 00:00:00 GMT"])
def test_a_retry_after_that_says_nothing_is_not_waited_for(kit: Kit, value: str) -> None:
    server, client = kit.pair(handler=in_turn(Reply(503, (("retry-after", value),)), b"at last"), retries=1)
    assert client.get(server.url()).status_code == 200


def test_retry_after_is_no_reason_where_retry_is_told_so(kit: Kit) -> None:
    server, client = kit.pair(handler=in_turn(Reply(503, (("retry-after", "0"),)), b"never"))
    assert client.get(server.url(), retries=Retry(3, respect_retry_after_header=False)).status_code == 503


@ways
def test_a_wait_that_would_outlast_the_total_timeout_is_not_begun(kit: Kit, way: Any) -> None:
    server, client = kit.pair(handler=in_turn(Reply(503, (("retry-after", "3600"),))), retries=3)
    response = way(client, "GET", server.url(), timeout=30)
    assert (response.status_code, len(server.requests)) == (503, 1)


@pytest.mark.parametrize("way", [by_request, by_submit], ids=lambda way: way.__name__)
def test_the_total_timeout_spans_all_attempts(kit: Kit, way: Any) -> None:
    answers = itertools.cycle([503, Silence()])
    server, client = kit.pair(handler=lambda request: next(answers), retries=RETRY)
    timeout = hyperpool.Timeout(0.3, read=None)

    def ended_in_the_second() -> bool:
        error = raised(hyperpool.TotalTimeout, lambda: way(client, "GET", server.url(), timeout=timeout))
        assert "Timeout.total=0.3 s" in str(error)
        return "1 retries" in str(error)

    # On a busy machine the time may be over in the first attempt.
    assert eventually(ended_in_the_second)


LONG = Reply(503, (("retry-after", "3600"),))


def test_cancel_ends_a_wait(kit: Kit) -> None:
    server, client = kit.pair(handler=in_turn(LONG), retries=3)
    future = client.submit("GET", server.url())
    assert eventually(lambda: bool(client._company.courier._due))
    assert future.cancel()
    assert eventually(lambda: future._state == "CANCELLED_AND_NOTIFIED")
    assert len(server.requests) == 1


def test_close_ends_the_waits_of_those_who_submitted_and_of_those_who_wait_themselves(kit: Kit) -> None:
    server, client = kit.pair(handler=in_turn(LONG), retries=3)
    future = client.submit("GET", server.url())
    waiting = kit.threads(1).submit(client.get, server.url())
    assert eventually(lambda: bool(client._company.courier._due) and len(server.requests) == 2)
    client.close(grace_s=0)
    error_of(future, hyperpool.PoolClosed)
    error_of(waiting, hyperpool.PoolClosed)


def test_a_retry_that_raises_is_the_callers_to_see(kit: Kit) -> None:
    class Broken(Retry):
        def is_retry(self, *args: Any, **options: Any) -> bool:
            raise RuntimeError("a fault of the caller's own")

    server, client = kit.pair(handler=in_turn(503), retries=Broken(3))
    raised(RuntimeError, lambda: client.get(server.url()))
    error_of(client.submit("GET", server.url()), RuntimeError)


@pytest.mark.parametrize(("given", "kind"), [(-1, ValueError), ("3", TypeError), (True, TypeError), (1.5, TypeError)])
def test_what_is_no_number_of_retries_is_refused(kit: Kit, given: Any, kind: type[Exception]) -> None:
    raised(kind, lambda: hyperpool.Client(retries=given))
    raised(kind, lambda: kit.client().get("http://127.0.0.1:1/", retries=given))


def test_a_retry_of_the_callers_is_not_used_up(kit: Kit) -> None:
    retry = Retry(1, status_forcelist=[503], raise_on_status=False)
    server, client = kit.pair(handler=in_turn(503), retries=retry)
    for _ in range(3):
        client.get(server.url())
    assert (retry.total, len(server.requests)) == (1, 6)


# -- the budget --------------------------------------------------------------------------------------------------------


def test_the_budget_of_an_origin_is_a_burst_a_share_and_a_trickle() -> None:
    now = [100.0]
    budget = RetryBudget(clock=lambda: now[0])

    def granted() -> int:
        return sum(1 for _ in itertools.takewhile(budget.spend, itertools.repeat("https://a.test")))

    assert granted() == BURST
    for _ in range(50):
        budget.earn("https://a.test")
    assert granted() == pytest.approx(50 * SHARE, abs=1)
    now[0] += 3
    assert granted() == pytest.approx(3 * TRICKLE_PER_S, abs=1)
    now[0] += 3600
    assert granted() == BURST
    assert budget.spend("https://other.test")


@pytest.mark.parametrize("way", [by_request, by_submit], ids=lambda way: way.__name__)
def test_32_threads_with_retries_do_not_multiply_an_outage(kit: Kit, wire: Wire, way: Any) -> None:
    server, client = kit.pair(wire, in_turn(503), retries=RETRY)
    began_at = time.monotonic()
    with kit.threads(32) as threads:
        done = list(threads.map(lambda _: way(client, "GET", server.url()).status_code, range(320)))
    took_s = time.monotonic() - began_at
    assert done == [503] * 320
    assert 320 + BURST <= len(server.requests) <= 320 + BURST + 320 * SHARE + took_s * TRICKLE_PER_S + 1


@pytest.mark.parametrize("way", [by_request, by_submit], ids=lambda way: way.__name__)
def test_32_threads_each_get_the_answer_to_their_own_request_after_retries(kit: Kit, wire: Wire, way: Any) -> None:
    failed: set[str] = set()
    lock = threading.Lock()

    def first_time_fails(request: Request) -> Any:
        with lock:
            fails = int(request.path[1:]) % 32 == 0 and request.path not in failed
            failed.add(request.path)
        return 503 if fails else request.path

    server, client = kit.pair(wire, first_time_fails, retries=RETRY)
    with kit.threads(32) as threads:
        done = list(threads.map(lambda n: way(client, "GET", server.url(f"/{n}")), range(256)))
    assert [one.text for one in done] == [f"/{n}" for n in range(256)]
    assert [len(one.retries) for one in done] == [int(n % 32 == 0) for n in range(256)]


def test_a_redirect_after_a_retry_keeps_the_count(kit: Kit) -> None:
    server, client = kit.pair(handler=in_turn(503, Reply(302, (("location", "/b"),)), b"at last"), retries=RETRY)
    response = client.get(server.url("/a"))
    assert [resend.reason for resend in response.retries] == ["503"]
    assert [one.status_code for one in response.history] == [302]
