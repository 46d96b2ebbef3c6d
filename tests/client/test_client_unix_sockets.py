"""Requests over Unix sockets: by URL, by client, and what a server must not be able to do with them."""

from __future__ import annotations

import os
import socket
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import as_completed
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from client_support import H1_PLAIN, H2_PLAIN, Kit, Wire, raised

import hyperpool
from hyperpool.testing import Reply
from stage import WAIT_S

pytestmark = pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="no Unix sockets here")


@pytest.fixture
def path() -> Iterator[str]:
    """The path of a socket that is to be made: not in tmp_path, which may be too long for one."""
    with tempfile.TemporaryDirectory() as folder:
        yield os.path.join(folder, "app.sock")


def url(path: str, target: str = "/") -> str:
    return f"http+unix://{quote(path, safe='')}{target}"


def told(request: Any) -> Reply:
    return Reply(headers={"set-cookie": "seen=1"}, body=f"{request.scheme} {request.authority} {request.target}")


def test_a_url_names_the_socket_and_the_server_is_localhost(kit: Kit, plain_wire: Wire, path: str) -> None:
    kit.server(plain_wire, told, uds=path)
    response = kit.client(plain_wire).get(url(path, "/a?b=c#d"), params={"e": "f"})
    assert (response.text, response.http_version) == ("http localhost /a?b=c&e=f", plain_wire.version)


def test_a_client_may_be_bound_to_a_socket_whatever_its_urls_say(kit: Kit, wire: Wire, path: str) -> None:
    kit.server(wire, told, uds=path)
    client = kit.client(wire, uds=path)
    scheme = "https" if wire.tls else "http"
    assert client.get(f"{scheme}://localhost:81/x").text == f"{scheme} localhost:81 /x"


def test_a_base_url_may_be_a_socket(kit: Kit, path: str) -> None:
    kit.server(H1_PLAIN, told, uds=path)
    assert kit.client(H1_PLAIN, base_url=url(path, "/v1")).get("containers").text == "http localhost /v1/containers"


def test_many_threads_share_the_connection_to_a_socket(kit: Kit, path: str) -> None:
    server, client = kit.server(H2_PLAIN, uds=path), kit.client(H2_PLAIN)
    with kit.threads(8) as crew:
        futures = [crew.submit(client.get, url(path, f"/bytes/{n}")) for n in range(40)]
        assert sorted(len(future.result(WAIT_S).content) for future in as_completed(futures)) == list(range(40))
    assert server.connections_accepted == 1


def test_two_sockets_are_two_origins(kit: Kit, path: str) -> None:
    """Neither connections nor cookies nor figures are shared."""
    client = kit.client(H1_PLAIN)
    for one in (path, path + "2"):
        kit.server(H1_PLAIN, told, uds=one)
        assert client.get(url(one)).ok
    assert list(client.pool.stats().origins) == [url(one, "") for one in (path, path + "2")]
    third = kit.server(H1_PLAIN, uds=path + "3")
    client.get(url(path + "3", "/headers"))
    assert "cookie" not in dict(third.requests[0].headers)


def test_proxies_of_the_environment_are_not_for_sockets(kit: Kit, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    kit.server(H1_PLAIN, told, uds=path)
    assert kit.client(H1_PLAIN).get(url(path)).ok
    assert kit.client(H1_PLAIN, uds=path).get("http://localhost/").ok


def test_a_socket_that_is_not_there_is_a_connect_error_that_names_it(kit: Kit, path: str) -> None:
    error = raised(hyperpool.ConnectError, lambda: kit.client(H1_PLAIN).get(url(path)))
    assert (error.origin, error.processed) == (url(path, ""), "no")
    assert f"{path} (No such file" in str(error)


def test_a_socket_path_that_is_too_long_is_a_connect_error(kit: Kit) -> None:
    error = raised(hyperpool.ConnectError, lambda: kit.client(H1_PLAIN).get(url("/" + "x" * 300)))
    assert "too long" in str(error)


def test_a_full_queue_of_a_socket_is_waited_for(kit: Kit, path: str) -> None:
    """A connect over TCP waits in the kernel; this one must try again."""
    listener = kit.enter(socket.socket(socket.AF_UNIX))
    listener.bind(path)
    listener.listen(0)
    others = []
    while True:
        others.append(kit.enter(socket.socket(socket.AF_UNIX)))
        others[-1].setblocking(False)
        if others[-1].connect_ex(path):
            break
    future = kit.client(H1_PLAIN).submit("GET", url(path, "/late"))

    def accept_all() -> None:
        while True:
            sock, _ = listener.accept()
            with sock:
                if sock.recv(1000).startswith(b"GET /late"):
                    return sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    for other in others:
        other.close()
    accepting = threading.Thread(target=accept_all)
    accepting.start()
    assert future.result(WAIT_S).text == "ok"
    accepting.join()


def test_a_full_queue_ends_with_the_connect_timeout(kit: Kit, path: str) -> None:
    listener = kit.enter(socket.socket(socket.AF_UNIX))
    listener.bind(path)
    listener.listen(0)
    while True:
        other = kit.enter(socket.socket(socket.AF_UNIX))
        other.setblocking(False)
        if other.connect_ex(path):
            break
    client = kit.client(H1_PLAIN, timeout=hyperpool.Timeout(connect=0.05))
    raised(hyperpool.ConnectTimeout, lambda: client.get(url(path)))


@pytest.mark.skipif(not os.path.exists("/proc/net/unix"), reason="abstract sockets are Linux's")
def test_a_socket_may_be_in_the_abstract_space(kit: Kit) -> None:
    name = f"\0hyperpool-{os.getpid()}-{threading.get_ident()}"
    listener = kit.enter(socket.socket(socket.AF_UNIX))
    listener.bind(name)
    listener.listen()
    future = kit.client(H1_PLAIN).submit("GET", url(name))
    sock, _ = listener.accept()
    with sock:
        sock.recv(1000)
        sock.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")
        assert future.result(WAIT_S).status_code == 204


@pytest.mark.parametrize("location", ["/there?x", "there?x", "http://localhost/there?x", "//localhost/there?x"])
def test_a_redirect_stays_on_the_socket(kit: Kit, path: str, location: str) -> None:
    def handler(request: Any) -> Reply:
        return Reply(302, {"location": location}) if request.target == "/here" else told(request)

    kit.server(H1_PLAIN, handler, uds=path)
    client = kit.client(H1_PLAIN, auth=("user", "password"))
    response = client.get(url(path, "/here"))
    assert (response.text, response.url) == ("http localhost /there?x", url(path, "/there?x"))
    assert "Authorization" in dict(response.request.headers)


@pytest.mark.parametrize("source", ["tcp", "socket"])
def test_no_redirect_leads_to_a_socket_that_the_program_did_not_name(kit: Kit, path: str, source: str) -> None:
    """Whoever listens there trusts who can reach it: a Docker daemon, say."""
    secret = kit.server(H1_PLAIN, told, uds=path + "2")
    away = lambda request: Reply(302, {"location": url(path + "2", "/containers")})  # noqa: E731
    server = kit.server(H1_PLAIN, away, **({} if source == "tcp" else {"uds": path}))
    start = server.url("/") if source == "tcp" else url(path)
    error = raised(hyperpool.RemoteProtocolError, lambda: kit.client(H1_PLAIN).get(start))
    assert "Unix socket" in str(error.__cause__)
    assert secret.requests == []


def test_a_redirect_from_a_socket_to_another_host_takes_no_credentials_along(kit: Kit, path: str) -> None:
    outside = kit.server(H1_PLAIN)
    kit.server(H1_PLAIN, lambda request: Reply(302, {"location": outside.url("/headers")}), uds=path)
    client = kit.client(H1_PLAIN, auth=("user", "password"))
    assert client.get(url(path)).url == outside.url("/headers")
    assert "authorization" not in dict(outside.requests[0].headers)


@pytest.mark.parametrize(
    "bad",
    [
        "http+unix:///x",
        "http+unix://relative.sock/x",
        "http+unix://%00/",
        "http+unix://%2Fa%00b/",
        "http+unix://u@%2Fa/",
    ],
)
def test_what_names_no_socket_is_an_invalid_url(kit: Kit, bad: str) -> None:
    assert "percent-encoded" in str(raised(hyperpool.InvalidURL, lambda: kit.client().get(bad)))


@pytest.mark.parametrize("of", ["client", "pool"])
def test_uds_may_be_a_path_object(kit: Kit, path: str, of: str) -> None:
    kit.server(H1_PLAIN, told, uds=path)
    given = Path(path)
    with hyperpool.ConnectionPool(uds=given) as pool:
        client = kit.client(H1_PLAIN, uds=given) if of == "client" else kit.client(H1_PLAIN, pool=pool)
        assert client.get("http://localhost/x").text == "http localhost /x"


@pytest.mark.parametrize("bad", ["relative", "", "/", 5, b"/tmp/x", Path("relative")], ids=repr)
def test_uds_must_be_an_absolute_path(bad: Any) -> None:
    with pytest.raises(ValueError, match="absolute path"):
        hyperpool.Client(uds=bad)


@pytest.mark.parametrize(
    "beside", [{"proxy": "http://p.test"}, {"source_address": "127.0.0.1"}, {"resolver": print}], ids=str
)
def test_a_client_of_a_socket_takes_nothing_that_is_about_addresses(beside: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="uds alone"):
        hyperpool.Client(uds="/tmp/x", **beside)


def test_a_socket_survives_what_its_name_needs_to_be_quoted(kit: Kit) -> None:
    with tempfile.TemporaryDirectory() as folder:
        odd = str(Path(folder, "ä b?#%2F@.sock"))
        kit.server(H1_PLAIN, told, uds=odd)
        assert kit.client(H1_PLAIN).get(url(odd, "/x")).text == "http localhost /x"
