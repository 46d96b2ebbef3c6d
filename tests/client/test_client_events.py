"""What a program is told while its requests go on: ``events=``."""

from __future__ import annotations

import logging
import threading
from typing import Any

import pytest
from client_support import H1_PLAIN, H2_PLAIN, Kit, Wire, raised, stale

import hyperpool
from hyperpool.handoff.hooks import NAMES
from hyperpool.testing import Disconnect, Refuse, Reply
from stage import WAIT_S, eventually, opened


class Log:
    """Notes everything that it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, Any]] = []
        self.threads: dict[str, str] = {}

    def _note(self, name: str, *what: Any) -> None:
        self.told.append((name, *what))
        self.threads[name] = threading.current_thread().name

    def request(self, request: Any) -> None:
        self._note("request", request.method, request.url)

    def response(self, response: Any) -> None:
        self._note("response", response.status_code)

    def retry(self, request: Any, resend: Any) -> None:
        self._note("retry", resend.reason)

    def resend(self, request: Any, resend: Any) -> None:
        self._note("resend", request.url, resend.reason)

    def connection_opened(self, info: Any) -> None:
        self._note("connection_opened", info)

    def connection_closed(self, info: Any, error: Any) -> None:
        self._note("connection_closed", info, error)

    def of(self, *names: str) -> list[Any]:
        return [entry for entry in self.told if entry[0] in names]


def test_a_request_and_its_response_are_told_once(kit: Kit, wire: Wire) -> None:
    log = Log()
    server, client = kit.pair(wire, lambda request: Reply(204), events=log)
    url = server.url("/")
    client.get(url)
    client.submit("PUT", url).result(WAIT_S)
    with client.stream("DELETE", url):
        pass
    expected = [entry for method in ("GET", "PUT", "DELETE") for entry in [("request", method, url), ("response", 204)]]
    assert log.of("request", "response") == expected


def test_every_hop_is_told(kit: Kit, wire: Wire) -> None:
    def handler(request: Any) -> Reply:
        return Reply(302, {"location": "/b"}) if request.target == "/a" else Reply()

    log = Log()
    server, client = kit.pair(wire, handler, events=log)
    hops = [
        ("request", "GET", server.url("/a")),
        ("response", 302),
        ("request", "GET", server.url("/b")),
        ("response", 200),
    ]
    client.get(server.url("/a"))
    assert log.of("request", "response") == hops
    client.submit("GET", server.url("/a")).result(WAIT_S)
    assert log.of("request", "response") == hops * 2


def test_a_retry_is_told_with_its_reason(kit: Kit, plain_wire: Wire) -> None:
    from urllib3.util import Retry

    answers = iter([Reply(503), Disconnect(), Reply(200)])
    log = Log()
    server, client = kit.pair(plain_wire, lambda request: next(answers), events=log)
    retry = Retry(3, status_forcelist=[503], backoff_factor=0, allowed_methods=None)
    assert client.post(server.url("/"), retries=retry).retries[-1].reason == "ConnectionLost"
    assert log.of("request", "response", "retry") == [
        ("request", "POST", server.url("/")),
        ("response", 503),
        ("retry", "503"),
        ("request", "POST", server.url("/")),
        ("retry", "ConnectionLost"),
        ("request", "POST", server.url("/")),
        ("response", 200),
    ]


def test_what_the_engine_sends_again_is_told_by_the_io_thread_and_is_no_retry(kit: Kit) -> None:
    answers = iter([Refuse(), Refuse(), Reply(200)])
    log = Log()
    server, client = kit.pair(H2_PLAIN, lambda request: next(answers), events=log)
    url = server.url("/")
    assert client.post(url, content=b"body").ok
    assert log.of("request", "response", "retry", "resend") == [
        ("request", "POST", url),
        ("resend", url, "REFUSED_STREAM"),
        ("resend", url, "REFUSED_STREAM"),
        ("response", 200),
    ]
    assert log.threads["resend"] == f"hyperpool {server.origin}"


def test_a_kept_connection_that_was_closed_under_a_request_is_a_resend_too(kit: Kit, h1_wire: Wire) -> None:
    log = Log()
    peer, client = kit.peer(stale, tls=h1_wire.tls, alpn=("http/1.1",)), kit.client(h1_wire, events=log)
    assert [client.get(peer.url()).text for _ in range(2)] == ["ok", "ok"]
    assert log.of("resend") == [("resend", peer.url(), "the kept-alive connection was closed")]


def test_an_opened_connection_is_told_with_the_time_of_each_phase(kit: Kit, wire: Wire) -> None:
    log = Log()
    server, client = kit.pair(wire, events=log)
    for _ in range(2):
        client.get(server.url("/bytes/1"))
    [(_, info)] = log.of("connection_opened")
    assert (info.origin, info.http_version) == (server.origin, wire.version)
    assert info.address[1] == server.port
    assert list(info.spent_s) == ["dns", "tcp", *(["tls"] if wire.tls else [])]
    assert info.tls_version == ("TLSv1.3" if wire.tls else None)


def test_a_closed_connection_is_told_with_what_it_was_told_as_open(kit: Kit, wire: Wire) -> None:
    log = Log()
    server, client = kit.pair(wire, events=log)
    client.get(server.url("/bytes/1"))
    client.close()
    [(_, opened)], [(_, closed, error)] = log.of("connection_opened"), log.of("connection_closed")
    assert closed is opened and error is None


def test_a_lost_connection_is_told_with_the_error(kit: Kit, wire: Wire) -> None:
    log = Log()
    server, client = kit.pair(wire, lambda request: Disconnect(rst=True), events=log)
    raised(hyperpool.ConnectionLost, lambda: client.post(server.url("/")))
    assert eventually(lambda: bool(log.of("connection_closed")))
    assert isinstance(log.of("connection_closed")[0][2], hyperpool.ConnectionLost)


def test_as_many_connections_are_closed_as_were_opened(kit: Kit) -> None:
    log, gate = Log(), kit.gate()
    server = kit.server(H1_PLAIN, lambda request: (opened(gate), "ok")[1])
    client = kit.client(H1_PLAIN, events=log, limits=hyperpool.Limits(max_http1_connections_per_origin=5))
    futures = [client.submit("GET", server.url()) for _ in range(50)]
    # Nothing is answered before all connections are in use, so that none is still being dialled when all is answered.
    assert server.wait_until(lambda seen: len(seen.requests) == 5, WAIT_S)
    gate.set()
    for future in futures:
        future.result(WAIT_S)
    client.close()
    begun = [info for _, info in log.of("connection_opened")]
    ended = [info for _, info, _ in log.of("connection_closed")]
    assert len(begun) == server.connections_accepted == 5
    assert {id(info) for info in begun} == {id(info) for info in ended} and len(ended) == len(begun)


def test_hooks_run_where_the_documentation_says(kit: Kit) -> None:
    log = Log()
    server, client = kit.pair(H1_PLAIN, events=log)
    client.get(server.url("/bytes/1"))
    here, io = threading.current_thread().name, f"hyperpool {server.origin}"
    assert log.threads == {"request": here, "response": here, "connection_opened": io}
    client.submit("GET", server.url("/bytes/1")).result(WAIT_S)
    assert (log.threads["request"], log.threads["response"]) == (here, io)


def test_a_mapping_of_callables_and_of_lists_is_taken_too(kit: Kit, plain_wire: Wire) -> None:
    told: list[Any] = []
    events = {"request": told.append, "response": [lambda response: told.append(1), lambda response: told.append(2)]}
    server, client = kit.pair(plain_wire, events={**events, "retry": []})
    client.get(server.url("/bytes/1"))
    assert (told[0].url, told[1:]) == (server.url("/bytes/1"), [1, 2])


@pytest.mark.parametrize("fault", [ValueError, SystemExit])
def test_what_a_hook_raises_is_logged_and_harms_nobody(
    kit: Kit, wire: Wire, fault: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    def raising(*what: Any) -> None:
        raise fault("mine")

    server, client = kit.pair(wire, events=dict.fromkeys(NAMES, raising))
    with caplog.at_level(logging.ERROR, "hyperpool"):
        assert len(client.get(server.url("/bytes/5")).content) == 5
        assert len(client.submit("GET", server.url("/bytes/5")).result(WAIT_S).content) == 5
        client.close()
    assert len(caplog.records) == 6


def test_one_hook_that_raises_does_not_silence_its_neighbours(kit: Kit) -> None:
    told: list[Any] = []

    def raising(request: Any) -> None:
        raise ValueError("mine")

    server, client = kit.pair(H2_PLAIN, events={"request": [raising, told.append]})
    client.get(server.url("/bytes/5"))
    assert len(told) == 1


def test_a_shared_pool_tells_of_connections_and_each_client_of_its_requests(kit: Kit) -> None:
    of_pool, of_client = Log(), Log()
    pool = kit.pool(H2_PLAIN, events=of_pool)
    server, client = kit.server(H2_PLAIN), kit.client(pool=pool, events=of_client)
    client.get(server.url("/bytes/1"))
    assert [entry[0] for entry in of_pool.told] == ["connection_opened"]
    assert [entry[0] for entry in of_client.told] == ["request", "response"]


@pytest.mark.parametrize(
    "bad", [{"reponse": print}, {"request": 5}, {"request": [5]}, object(), print, "request"], ids=["typo", *"abcde"]
)
def test_what_listens_to_nothing_is_refused(bad: Any) -> None:
    with pytest.raises(TypeError):
        hyperpool.Client(events=bad)
