"""Fifteen shapes of injection, in five places, on both versions: refused in the caller, and no socket opened.

test_client_injection.py has what is particular to each place; here every shape goes to every place.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from client_support import H1_PLAIN, H2_PLAIN, Kit, Wire

import hyperpool

SHAPES = {
    "CRLF alone": "\r\n",
    "CRLF and a field": "a\r\nX-Injected: b",
    "CR alone": "a\rb",
    "LF alone": "a\nb",
    "NUL": "a\0b",
    "LF at the end": "a\n",
    "CRLF at the end": "a\r\n",
    "a fold": "a\r\n b",
    "two LF": "a\n\nb",
    "CR CR LF": "a\r\r\nb",
    "a whole request": "a\r\n\r\nGET /evil HTTP/1.1\r\nHost: a.test\r\n\r\n",
    "framing": "a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a control character": "a\x01b",
    "a vertical tab": "a\x0bb",
    "DEL": "a\x7fb",
}

PLACES: dict[str, Callable[[Any, Any, str], object]] = {
    "method": lambda client, server, shape: client.submit(f"GET{shape}", server.url("/")),
    "target": lambda client, server, shape: client.submit("GET", f"{server.origin}/{shape}"),
    "name": lambda client, server, shape: client.submit("GET", server.url("/"), headers={f"X-{shape}": "v"}),
    "value": lambda client, server, shape: client.submit("GET", server.url("/"), headers={"X-Name": shape}),
    "host": lambda client, server, shape: client.submit("GET", f"http://localhost{shape}:{server.port}/"),
    "Host": lambda client, server, shape: client.submit("GET", server.url("/"), headers={"Host": f"a.test{shape}"}),
}


@pytest.mark.parametrize("wire", [H1_PLAIN, H2_PLAIN], ids=str)
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("shape", SHAPES)
def test_a_shape_is_refused_in_this_place_and_not_a_byte_leaves(kit: Kit, wire: Wire, place: str, shape: str) -> None:
    server, client = kit.pair(wire)
    with pytest.raises((hyperpool.LocalProtocolError, hyperpool.InvalidURL)) as caught:
        PLACES[place](client, server, SHAPES[shape])
    assert caught.value.processed == "no"
    client.close()
    assert (server.connections_accepted, client.pool.stats().threads) == (0, 0)
