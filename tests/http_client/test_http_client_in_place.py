"""Libraries that know nothing of us, with our classes in the place of the standard ones, over HTTP/2."""

from __future__ import annotations

import http.client
import logging.handlers
import subprocess
import sys
import urllib.error
import urllib.request
import xmlrpc.client
from typing import Any

import pytest
from http_client_kit import H2, Kit, Wire

from hyperpool import http_client
from hyperpool.testing import Reply, Request, pattern
from stage import WAIT_S


@pytest.fixture
def in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTPConnection", "HTTPSConnection", "HTTPResponse"):
        monkeypatch.setattr(http.client, name, getattr(http_client, name))


pytestmark = pytest.mark.usefixtures("in_place")


def opener(kit: Kit, *more: Any) -> Any:
    return urllib.request.build_opener(
        urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=kit.context), *more
    )


def test_urllib_opens_a_url(kit: Kit, wire: Wire) -> None:
    server = kit.server(wire)
    with opener(kit).open(server.url("/bytes/100000")) as response:
        assert response.read() == pattern(100_000)
        assert response.version == wire.version
        assert response.url == server.url("/bytes/100000")
        assert response.headers["Content-Length"] == "100000"


def test_urllib_posts_a_form(kit: Kit, wire: Wire) -> None:
    with opener(kit).open(kit.server(wire).url("/echo"), b"a=1&b=2") as response:
        assert response.read() == b"a=1&b=2"


def test_urllib_follows_redirects(kit: Kit, wire: Wire) -> None:
    with opener(kit).open(kit.server(wire).url("/status/302")) as response:
        assert response.status == 200


def test_urllib_raises_for_an_error_status(kit: Kit, wire: Wire) -> None:
    with pytest.raises(urllib.error.HTTPError) as caught:
        opener(kit).open(kit.server(wire).url("/status/404"))
    with caught.value:
        assert caught.value.code == 404


def test_urllib_says_url_error_where_nobody_listens(kit: Kit) -> None:
    with pytest.raises(urllib.error.URLError) as caught:
        opener(kit).open("https://localhost:1/")
    assert isinstance(caught.value.reason, ConnectionRefusedError)


def test_urllib_retrieves_to_a_file(kit: Kit, tmp_path: Any) -> None:
    source = opener(kit).open(kit.server(H2).url("/chunked/300000"))
    with source, open(tmp_path / "got", "wb") as file:
        while piece := source.read(8192):
            file.write(piece)
    assert (tmp_path / "got").read_bytes() == pattern(300_000)


def calls(request: Request) -> Reply:
    """An XML-RPC server: the sum of what is given."""
    given, _ = xmlrpc.client.loads(request.read())
    answer = xmlrpc.client.dumps((sum(given),), methodresponse=True)
    return Reply(headers=[("content-type", "text/xml")], body=answer)


def test_xmlrpc_calls(kit: Kit, wire: Wire) -> None:
    server = kit.server(wire, calls)
    options = {"context": kit.context} if wire.tls else {}
    with xmlrpc.client.ServerProxy(server.url("/RPC2"), **options) as proxy:
        assert [proxy.add(1, number) for number in range(3)] == [1, 2, 3]
    assert server.connections_accepted == 1


def test_logging_posts_its_records(kit: Kit, wire: Wire) -> None:
    server = kit.server(wire)
    options = {"secure": True, "context": kit.context} if wire.tls else {}
    where = logging.handlers.HTTPHandler(f"localhost:{server.port}", "/echo", method="POST", **options)
    where.handle(logging.makeLogRecord({"msg": "hello", "name": "ü"}))
    where.close()
    assert server.wait_until(lambda seen: bool(seen.requests) and seen.requests[0].is_complete, WAIT_S)
    assert server.requests[0].body_bytes > 100


@pytest.mark.slow
def test_urllib3_and_requests_work_beside_it() -> None:
    """urllib3 makes subclasses of what stands in http.client: they connect in their own way, and get their own."""
    program = """
import http.client
from hyperpool import http_client
from hyperpool.testing import Server
for name in ("HTTPConnection", "HTTPSConnection", "HTTPResponse"):
    setattr(http.client, name, getattr(http_client, name))
import urllib3
with Server(tls=False) as server:
    with urllib3.PoolManager() as manager:
        response = manager.request("GET", server.url("/gzip"))
        assert (response.status, len(response.data)) == (200, 10000)
        response = manager.request("POST", server.url("/echo"), body=iter([b"a", b"b"]), chunked=True)
        assert response.data == b"ab"
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_importing_it_starts_nothing() -> None:
    program = "import hyperpool.http_client, sys, threading; print(threading.active_count(), 'h2' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.stdout == "1 False\n"
