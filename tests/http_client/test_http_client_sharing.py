"""Many objects, one connection: who shares with whom, and for how long."""

from __future__ import annotations

import gc
import http.client
import json
import os
import ssl
import threading
import warnings
import weakref
from contextlib import closing
from typing import Any

import pytest
import requests
import requests.adapters
import urllib3
from http_client_kit import H1, H2, Kit, Wire, fetch, threads

from hyperpool import http_client
from hyperpool.http_client import shared
from hyperpool.testing import CertificateAuthority, Reply, Request, pattern
from stage import WAIT_S, eventually, opened, peers_gone


def named(request: Request) -> Reply:
    """The target and the body back."""
    return Reply(body=json.dumps([request.target, request.read().decode()]))


@pytest.mark.slow
def test_64_threads_with_an_object_each_have_one_socket_and_their_own_responses(kit: Kit) -> None:
    server = kit.server(H2, named)

    def act(number: int) -> None:
        connection = kit.connection(server)
        for turn in range(5):
            connection.request("POST", f"/{number}/{turn}", f"body {number} {turn}")
            assert json.loads(connection.getresponse().read()) == [f"/{number}/{turn}", f"body {number} {turn}"]
        connection.close()

    # Somebody holds the route while others come and go.
    holder = kit.connection(server)
    holder.connect()
    assert threads(act, 64) == []
    assert server.connections_accepted == 1
    assert len(server.requests) == 64 * 5


def test_64_objects_with_the_standard_trust_share_one_socket(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    def factory() -> ssl.SSLContext:
        made.append(kit.fresh_context())
        return made[-1]

    monkeypatch.setattr(ssl, "_create_default_https_context", factory)
    server = kit.server(H2)
    for _ in range(64):
        connection = http_client.HTTPSConnection("localhost", server.port)
        assert fetch(connection, "/bytes/3") == pattern(3)
        connection.close()
    assert server.connections_accepted == 1
    assert len(made) == 1


def test_who_trusts_otherwise_does_not_share(kit: Kit) -> None:
    server = kit.server(H2)
    fetch(kit.connection(server))
    fetch(kit.connection(server, context=kit.fresh_context()))
    assert server.connections_accepted == 2


def test_a_slow_response_delays_no_other_object(kit: Kit) -> None:
    gate = kit.gate()
    server = kit.server(H2)
    server.route("/slow")(lambda request: b"slow" if gate.wait(WAIT_S) else 500)
    slow = kit.connection(server)
    slow.request("GET", "/slow")
    assert fetch(kit.connection(server), "/bytes/3") == pattern(3)
    gate.set()
    assert slow.getresponse().read() == b"slow"
    assert server.connections_accepted == 1


def test_an_unread_response_delays_no_other_object(kit: Kit) -> None:
    server = kit.server(H2)
    unread = kit.connection(server)
    unread.request("GET", "/bytes/30000000")
    response = unread.getresponse()
    assert fetch(kit.connection(server), "/bytes/3") == pattern(3)
    response.close()


def test_plaintext_objects_use_a_connection_one_after_the_other(kit: Kit) -> None:
    server = kit.server(H1)
    one, other = kit.connection(server), kit.connection(server)
    for _ in range(3):
        fetch(one)
        fetch(other)
    assert server.connections_accepted == 1


def test_plaintext_objects_that_ask_at_the_same_time_have_a_connection_each(kit: Kit) -> None:
    gate = kit.gate()
    server = kit.server(H1, lambda request: 200 if gate.wait(WAIT_S) else 500)
    one, other = kit.connection(server), kit.connection(server)
    one.request("GET", "/")
    other.request("GET", "/")
    assert server.wait_until(lambda seen: len(seen.requests) == 2, WAIT_S)
    gate.set()
    assert [each.getresponse().status for each in (one, other)] == [200, 200]


def test_a_connection_that_the_server_closed_while_idle_is_replaced(kit: Kit, wire: Wire) -> None:
    server = kit.server(wire)
    connection = kit.connection(server)
    fetch(connection)
    server.drop_connections()
    assert eventually(lambda: peers_gone(server.port))
    assert fetch(connection, "/bytes/3") == pattern(3)


def test_an_http2_connection_with_the_standard_trust_is_kept_for_the_next_object(
    kit: Kit, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = kit.fresh_context()
    monkeypatch.setattr(ssl, "_create_default_https_context", lambda: context)
    server = kit.server(H2)
    for _ in range(2):
        connection = http_client.HTTPSConnection("localhost", server.port)
        fetch(connection)
        connection.close()
    assert server.connections_accepted == 1


def test_a_connection_with_a_context_of_the_callers_own_goes_with_its_last_object(kit: Kit) -> None:
    """Programs make a context for each call: the next one could never share it."""
    server = kit.server(H2)
    one, other = kit.connection(server), kit.connection(server)
    fetch(one)
    fetch(other)
    one.close()
    fetch(other)
    other.close()
    assert server.wait_until(lambda seen: seen.connections_open == 0, WAIT_S)
    assert server.connections_accepted == 1


def test_a_context_of_the_callers_own_is_not_kept(kit: Kit) -> None:
    server = kit.server(H2)
    gone: list[weakref.ref[Any]] = []
    for _ in range(3):
        context = kit.fresh_context()
        gone.append(weakref.ref(context))
        with closing(http_client.HTTPSConnection("localhost", server.port, context=context)) as connection:
            fetch(connection)
        del context, connection
        for thread in [one for one in threading.enumerate() if one.name.startswith("hyperpool ")]:
            thread.join(WAIT_S)
    gc.collect()
    # The last one may still be in the list of threads that have ended.
    assert [reference() for reference in gone[:-1]] == [None, None]


def test_what_a_forgotten_object_left_is_closed_when_another_comes(kit: Kit) -> None:
    server, elsewhere = kit.server(H1), kit.server(H1)
    fetch(http_client.HTTPConnection("localhost", server.port))
    gc.collect()
    fetch(kit.connection(elsewhere))
    assert server.wait_until(lambda seen: seen.connections_open == 0, WAIT_S)


def test_the_pool_can_be_closed_and_comes_back(kit: Kit, wire: Wire) -> None:
    server = kit.server(wire)
    connection = kit.connection(server)
    fetch(connection)
    http_client.shared_pool().close()
    connection.close()
    assert fetch(connection, "/bytes/3") == pattern(3)


def test_the_environments_proxies_are_not_asked(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    """`http.client` knows proxies by set_tunnel alone."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    assert fetch(kit.connection(kit.server(H1)), "/bytes/3") == pattern(3)
    assert fetch(kit.connection(kit.server(H2)), "/bytes/3") == pattern(3)


# -- trust -------------------------------------------------------------------------------------------------------------


def test_the_standard_trust_follows_the_factory_and_the_environment(
    kit: Kit, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    first = shared.standard_context()
    assert shared.standard_context() is first
    bundle = tmp_path / "ca.pem"
    bundle.write_bytes(CertificateAuthority().ca_pem)
    monkeypatch.setenv("SSL_CERT_FILE", os.fspath(bundle))
    second = shared.standard_context()
    monkeypatch.setattr(ssl, "_create_default_https_context", ssl._create_unverified_context)
    third = shared.standard_context()
    assert len({id(first), id(second), id(third)}) == 3
    assert third.verify_mode == ssl.CERT_NONE


def test_a_new_factory_each_time_leaves_no_context_for_each(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    for _ in range(20):
        monkeypatch.setattr(ssl, "_create_default_https_context", lambda: ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
        made.append(shared.standard_context())
    assert shared.standard_context() is made[-1]
    assert len(shared._contexts) < len(made)
    assert shared.is_standard(made[-1]) and not shared.is_standard(made[0])


def test_an_unverified_context_is_asked_for_as_ever(kit: Kit) -> None:
    context = ssl._create_unverified_context()
    assert fetch(kit.connection(kit.server(H2), context=context), "/bytes/3") == pattern(3)


def test_a_client_certificate_in_the_context_is_shown(kit: Kit, tmp_path: Any) -> None:
    authority = CertificateAuthority()
    path = tmp_path / "me.pem"
    path.write_bytes(b"".join(authority.issue("me", eku=("client",))))
    context = kit.fresh_context()
    context.load_cert_chain(path)
    server = kit.server(H2, client_ca_pem=authority.ca_pem)
    assert fetch(kit.connection(server, context=context), "/bytes/3") == pattern(3)


@pytest.mark.parametrize("stranger", ["http.client", "urllib3", "requests"])
def test_others_go_on_with_a_context_that_was_used(kit: Kit, stranger: str) -> None:
    server = kit.server(H2)
    assert fetch(kit.connection(server), "/bytes/3") == pattern(3)
    if stranger == "http.client":
        with closing(http.client.HTTPSConnection("localhost", server.port, context=kit.context)) as connection:
            assert fetch(connection, "/bytes/3") == pattern(3)
    elif stranger == "urllib3":
        with urllib3.PoolManager(ssl_context=kit.context) as manager:
            assert manager.request("GET", server.url("/bytes/3"), retries=False).data == pattern(3)
    else:
        with requests.Session() as session:
            session.mount("https://", WithContext(kit.context))
            assert session.get(server.url("/bytes/3")).content == pattern(3)
    assert [seen.http_version for seen in server.requests] == ["2", "1.1"]


class WithContext(requests.adapters.HTTPAdapter):
    """requests with a context of the caller's."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context
        super().__init__()

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        super().init_poolmanager(*args, ssl_context=self._context, **options)

    def cert_verify(self, *_: Any) -> None:
        """The context does."""


OLD = "key_file" in http.client.HTTPSConnection.__init__.__code__.co_varnames


@pytest.mark.skipif(not OLD, reason="key_file and cert_file are gone since Python 3.12")
def test_key_file_and_cert_file_are_taken_and_change_no_shared_context(
    kit: Kit, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = CertificateAuthority()
    path = tmp_path / "me.pem"
    path.write_bytes(b"".join(authority.issue("me", eku=("client",))))
    monkeypatch.setattr(ssl, "_create_default_https_context", kit.fresh_context)
    server = kit.server(H2, client_ca_pem=authority.ca_pem)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        connection = http_client.HTTPSConnection("localhost", server.port, str(path), str(path))
    assert not shared.is_standard(connection._context)
    assert fetch(connection, "/bytes/3") == pattern(3)
    connection.close()


@pytest.mark.skipif(not OLD, reason="check_hostname is gone since Python 3.12")
def test_check_hostname_changes_no_shared_context(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ssl, "_create_default_https_context", kit.fresh_context)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        connection = http_client.HTTPSConnection("localhost", 1, check_hostname=False)
    assert not connection._context.check_hostname
    assert shared.standard_context().check_hostname


# -- the socket's place ------------------------------------------------------------------------------------------------


def test_sock_tells_what_it_can(kit: Kit, wire: Wire) -> None:
    server = kit.server(wire)
    connection = kit.connection(server, timeout=7)
    connection.connect()
    sock = connection.sock
    assert sock.gettimeout() == 7
    assert sock.getpeername() == ("localhost", server.port)
    assert sock.selected_alpn_protocol() == ({True: "h2", False: "http/1.1"}[wire.http2] if wire.tls else None)
    sock.setsockopt(6, 1, 1)
    sock.setblocking(True)
    assert sock.gettimeout() is None
    sock.settimeout(3)
    assert sock.gettimeout() == 3
    assert "open" in repr(sock)
    with sock:
        assert sock.send(b"GET / HTTP/1.1\r\n") == 16
    assert "closed" in repr(sock)


def test_bytes_written_to_sock_are_a_request(kit: Kit, wire: Wire) -> None:
    connection = kit.connection(kit.server(wire))
    connection.connect()
    connection.sock.sendall(b"GET /bytes/3 HTTP/1.1\r\nHo")
    connection.sock.sendall(b"st: a.test\r\n\r\n")
    response = http_client.HTTPResponse(connection.sock, method="GET")
    response.begin()
    assert response.read() == pattern(3)


def test_detach_gives_no_descriptor(kit: Kit) -> None:
    connection = kit.connection(kit.server(H2))
    connection.connect()
    assert connection.sock.detach() == -1


def test_connecting_on_an_io_thread_is_refused(kit: Kit) -> None:
    """L11: it would wait for itself."""
    server = kit.server(H2)
    seen: list[BaseException] = []
    connection = kit.connection(server)
    connection.connect()

    def on_done(_: Any) -> None:
        try:
            kit.connection(server).connect()
        except RuntimeError as error:
            seen.append(error)

    # A callback of a Future that is done already would run here, where connecting is allowed.
    gate = kit.gate()
    server.route("/gated")(lambda request: (opened(gate), "through")[1])
    connection.request("GET", "/gated")
    connection.sock._future.add_done_callback(on_done)
    gate.set()
    connection.getresponse().read()
    assert len(seen) == 1
