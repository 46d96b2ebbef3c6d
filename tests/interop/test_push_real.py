"""hyper's API against servers that somebody else wrote: pushes of nghttpd and nginx, h2c upgrades of h2o."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager

import pytest
from interop_kit import running

from hyperpool.connection import HTTP20Connection, HTTPConnection
from hyperpool.connection_messages import HTTPVersion
from hyperpool.testing import pattern
from hyperpool.tls import init_context
from stress import servers
from stress.servers import Served, find_program, folder_and_tree

pytestmark = pytest.mark.interop

PUSHED = "/bytes/65536"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port: int = sock.getsockname()[1]
        return port


@contextlib.contextmanager
def h2o(plain_ports: list[int]) -> Iterator[Served]:
    """h2o with a second port, without TLS."""
    program = find_program("h2o", package="h2o")
    with folder_and_tree() as (folder, root):

        def command(port: int) -> Sequence[str]:
            plain_ports[:] = [free_port()]
            config = f"""
listen: {{host: 127.0.0.1, port: {plain_ports[0]}}}
hosts:
  default:
    listen:
      host: 127.0.0.1
      port: {port}
      ssl: {{certificate-file: {folder}/server.pem, key-file: {folder}/server.key}}
    paths:
      /: {{file.dir: {root}}}
{"user: root" if os.geteuid() == 0 else ""}
num-threads: 1
"""
            (folder / "h2o.conf").write_text(config)
            return [program, "-c", str(folder / "h2o.conf")]

        yield from servers.run("h2o", folder, root, command)


PUSHING: dict[str, Callable[[], AbstractContextManager[Served]]] = {
    "nghttpd": lambda: servers.nghttpd(options=[f"--push=/bytes/1={PUSHED}"]),
    "nginx": lambda: servers.nginx(directives=f"location = /bytes/1 {{ http2_push {PUSHED}; }}"),
}


@pytest.fixture(scope="module", params=PUSHING)
def pushing(request: pytest.FixtureRequest) -> Iterator[Served]:
    """A server that pushes one file beside another."""
    with running(PUSHING[request.param]()) as served:
        yield served


@pytest.fixture(scope="module")
def plain_port() -> Iterator[int]:
    """A port on which h2o goes from HTTP/1.1 to HTTP/2.

    Not Apache's: 2.4.71 now and then closes an upgraded connection in mid-response, with GOAWAY and NO_ERROR.
    """
    ports: list[int] = []
    with running(h2o(ports)):
        yield ports[0]


@contextlib.contextmanager
def connected(served: Served, *, enable_push: bool = True) -> Iterator[HTTP20Connection]:
    context = init_context(served.ca_file)
    with HTTP20Connection("localhost", served.port, secure=True, ssl_context=context, enable_push=enable_push) as made:
        yield made


# -- push --------------------------------------------------------------------------------------------------------------


def test_what_is_pushed_arrives_whole(pushing: Served) -> None:
    with connected(pushing) as connection:
        stream_id = connection.request("GET", "/bytes/1")
        pushes = list(connection.get_pushes(stream_id, capture_all=True))
        assert [(push.method, push.path) for push in pushes] == [(b"GET", PUSHED.encode())]
        assert pushes[0].get_response().read() == pattern(65_536)
        assert connection.get_response(stream_id).read() == pattern(1)


def test_what_is_pushed_can_be_taken_after_the_response(pushing: Served) -> None:
    with connected(pushing) as connection:
        connection.request("GET", "/bytes/1")
        connection.get_response().read()
        (push,) = connection.get_pushes(capture_all=True)
        assert push.get_response().status == 200


def test_nothing_is_pushed_where_it_is_not_enabled(pushing: Served) -> None:
    with connected(pushing, enable_push=False) as connection:
        connection.request("GET", "/bytes/1")
        assert list(connection.get_pushes(capture_all=True)) == []
        assert connection.get_response().read() == pattern(1)


def test_a_push_that_was_cancelled_leaves_the_connection_usable(pushing: Served) -> None:
    with connected(pushing) as connection:
        for _ in range(20):
            connection.request("GET", "/bytes/1")
            for push in connection.get_pushes(capture_all=True):
                push.cancel()
            assert connection.get_response().read() == pattern(1)


def test_pushes_that_nobody_takes_do_not_exhaust_the_connection(pushing: Served) -> None:
    with connected(pushing) as connection:
        for _ in range(150):
            connection.request("GET", "/bytes/1")
            assert connection.get_response().read() == pattern(1)


# -- h2c by upgrade ----------------------------------------------------------------------------------------------------


def test_a_real_server_goes_on_in_http2(plain_port: int) -> None:
    with HTTPConnection("localhost", plain_port, timeout=30) as connection:
        assert connection.request("GET", "/bytes/100") is None
        response = connection.get_response()
        assert (response.version, response.read()) == (HTTPVersion.http20, pattern(100))


@pytest.mark.parametrize("size", [0, 1, 65_536, 1_048_576])
def test_a_body_of_any_size_arrives_with_the_upgrade(plain_port: int, size: int) -> None:
    with HTTPConnection("localhost", plain_port, timeout=30) as connection:
        connection.request("GET", f"/bytes/{size}")
        assert connection.get_response().read() == pattern(size)


def test_later_requests_have_ids_and_share_the_connection(plain_port: int) -> None:
    with HTTPConnection("localhost", plain_port, timeout=30) as connection:
        connection.request("GET", "/bytes/1")
        connection.get_response().read()
        ids = [connection.request("GET", "/bytes/65536") for _ in range(10)]
        assert ids == list(range(3, 23, 2))
        assert {connection.get_response(each).read() for each in reversed(ids)} == {pattern(65_536)}


def test_prior_knowledge_works_too(plain_port: int) -> None:
    with HTTP20Connection("localhost", plain_port, timeout=30) as connection:
        assert connection.request("GET", "/bytes/1") == 1
        assert connection.get_response().read() == pattern(1)
