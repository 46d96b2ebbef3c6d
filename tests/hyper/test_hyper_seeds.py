"""Every code block of the two documents with which hyperpool began runs as printed (see seed_examples.txt)."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import Any

import pytest
from hyper_support import H1, H2, H2C, Bench, Way

from hyperpool.testing import Reply

BLOCKS = Path(__file__).with_name("seed_examples.txt").read_text("utf-8").split("\n---\n")[1:]
PAGE = b"<!DOCTYPE html>\n<!--[if IE 8]><html class='ie8'><![endif]-->" + b"<p>httpbin</p>" * 1_000


def httpbin(request: Any) -> Reply:
    """The little of http2bin.org that the documents ask for."""
    if request.path == "/":
        return Reply(200, {"server": "h2o/1.0.2-alpha1", "content-type": "text/html; charset=utf-8"}, PAGE)
    said = [request.method, request.path, request.header("key") or "", request.read().decode()]
    return Reply(200, {"content-type": "application/json"}, "|".join(said))


def run(block: str, names: dict[str, Any], **hosts: str) -> str:
    """Run a block, with these texts put in the places of others; what it printed."""
    lines = [line.removeprefix(">>> ") for line in block.split("\n") if is_code(line, block)]
    code = "\n".join(lines).replace("hyper", "hyperpool")
    for mark, host in {"http2bin.org": hosts["host"], "('')": f"('{hosts['host']}')"}.items():
        code = code.replace(mark, host)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(code, names)  # the documents' own lines
    return printed.getvalue()


def is_code(line: str, block: str) -> bool:
    return line.startswith(">>> ") or ">>>" not in block


@pytest.fixture(params=[H2C, H2, H1], ids=str)
def host(request: pytest.FixtureRequest, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> str:
    """Where the documents' connections lead: in plaintext, and, as if it were port 443, over TLS."""
    way: Way = request.param
    server = bench.server(way, httpbin)
    monkeypatch.setenv("SSL_CERT_FILE", bench.ca_file)
    if way.tls:
        from hyperpool import connection_base

        # Only root could listen on 443, by which these connections know that they are to use TLS.
        monkeypatch.setattr(connection_base, "TLS_PORT", server.port)
    return f"localhost:{server.port}"


@pytest.mark.parametrize("host", [H2C, H2], ids=str, indirect=True)
def test_the_announcement_runs(host: str) -> None:
    names: dict[str, Any] = {}
    run(BLOCKS[0], names, host=host)
    assert (names["resp"].status, names["resp"].read()) == (200, PAGE)
    names["conn"].close()


def test_the_first_request_of_the_quickstart_runs(host: str) -> None:
    names: dict[str, Any] = {}
    for block in BLOCKS[1:4]:
        run(block, names, host=host)
    assert names["resp"].headers["content-type"] == [b"text/html; charset=utf-8"]
    assert repr(names["resp"].headers).startswith("HTTPHeaderMap([(b'server', b'h2o/1.0.2-alpha1')")
    assert (names["resp"].status, names["body"]) == (200, PAGE)
    names["c"].close()


def test_several_requests_at_once_run(host: str) -> None:
    names: dict[str, Any] = {}
    run(BLOCKS[4], names, host=host)
    bodies = [names[f"{which}_response"].read() for which in ("first", "second", "third")]
    wanted = [b"GET|/get|value|", b"POST|/post||hello", b"GET|/ip||"]
    # Where ids are None, the first response taken is the first that was asked for, whatever it is called.
    assert bodies == wanted if names["second"] is not None else sorted(bodies) == sorted(wanted)
    names["c"].close()


def test_the_requests_integration_runs(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    server = bench.server(H2, httpbin)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", bench.ca_file)
    names: dict[str, Any] = {}
    assert run(BLOCKS[5], names, host=f"localhost:{server.port}") == "200\n"
    assert names["r"].raw.version == 20
    names["s"].close()


def test_no_block_was_left_out() -> None:
    assert len(BLOCKS) == 6
