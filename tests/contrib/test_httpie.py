"""HTTPie's own command with hyperpool's plugin under it, in a process of its own, as a user runs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from hyperpool.testing import CertificateAuthority, Reply, Request, Server, pattern
from proxy_kit import TunnelProxy

pytest.importorskip("httpie", reason="HTTPie is not installed: pip install httpie")

pytestmark = pytest.mark.slow

WAIT_S = 45.0
AUTHORITY = CertificateAuthority()

# What an installed hyperpool declares; written down here, since the checkout under test is not installed.
ENTRY_POINTS = "[httpie.plugins.transport.v1]\nhyperpool = hyperpool.contrib.httpie:HyperpoolTransport\n"


@dataclass
class Httpie:
    """The ``http`` command with the plugin, and a folder of its own for settings and sessions."""

    folder: Path

    def __post_init__(self) -> None:
        declared = self.folder / "site" / "hyperpool_checkout-0.dist-info"
        declared.mkdir(parents=True)
        (declared / "METADATA").write_text("Metadata-Version: 2.1\nName: hyperpool-checkout\nVersion: 0\n")
        (declared / "entry_points.txt").write_text(ENTRY_POINTS)
        settings = self.folder / "settings"
        settings.mkdir()
        # HTTPie would else ask a server for news of itself, in the background.
        (settings / "config.json").write_text('{"disable_update_warnings": true}')
        self.ca = self.folder / "ca.pem"
        self.ca.write_bytes(AUTHORITY.ca_pem)
        path = [str(declared.parent), os.environ.get("PYTHONPATH", "")]
        kept = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
        self.env = {**kept, "PYTHONPATH": os.pathsep.join(path), "HTTPIE_CONFIG_DIR": str(settings)}

    def run(self, *words: str, body: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
        """Run ``http`` with these words, trusting the test's servers; ``body`` goes to its standard input."""
        options = ["--verify", str(self.ca), *(() if body is not None else ("--ignore-stdin",))]
        command = [sys.executable, "-m", "httpie", *options, *words]
        return subprocess.run(
            command, input=body, capture_output=True, timeout=WAIT_S, env=self.env, cwd=self.folder, check=False
        )

    def answer(self, *words: str, body: bytes | None = None) -> bytes:
        """What ``http`` writes; it must have succeeded."""
        done = self.run(*words, body=body)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout


@pytest.fixture
def httpie(tmp_path: Path) -> Httpie:
    return Httpie(tmp_path)


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(authority=AUTHORITY) as running:
        running.route("/seen")(seen_of)
        yield running


def seen_of(request: Request) -> Reply:
    """A handler that answers with what it got, as JSON."""
    seen = {
        "method": request.method,
        "target": request.target,
        "headers": dict(request.headers),
        "body": request.read().decode("utf-8", "replace"),
        "version": request.http_version,
    }
    return Reply(200, (("content-type", "application/json"),), json.dumps(seen).encode())


def test_verbose_speaks_and_shows_http_2(httpie: Httpie, server: Server) -> None:
    shown = httpie.answer("--verbose", server.url("/seen"), "name=Ann").decode()
    assert "HTTP/2.0 200 OK" in shown
    seen = json.loads(shown[shown.rindex("\r\n\r\n") :])
    assert (seen["method"], json.loads(seen["body"]), seen["version"]) == ("POST", {"name": "Ann"}, "2")


def test_a_server_without_http_2_is_spoken_to_in_http_1(httpie: Httpie) -> None:
    with Server(authority=AUTHORITY, http2=False) as server:
        assert httpie.answer("--headers", server.url("/")).startswith(b"HTTP/1.1 200 OK")


def test_the_plugin_is_listed(httpie: Httpie) -> None:
    command = [sys.executable, "-m", "httpie.manager", "plugins", "list"]
    done = subprocess.run(command, capture_output=True, timeout=WAIT_S, env=httpie.env, check=False)
    assert b"hyperpool (httpie.plugins.transport.v1)" in done.stdout


def test_download_saves_the_body(httpie: Httpie, server: Server) -> None:
    httpie.answer("--download", "--output", "saved", server.url("/bytes/3000000"))
    assert (httpie.folder / "saved").read_bytes() == pattern(3_000_000)


def test_download_goes_on_where_it_stopped(httpie: Httpie, server: Server) -> None:
    @server.route("/part")
    def part(request: Request) -> Any:
        assert request.header("range") == "bytes=1000-"
        return Reply(206, (("content-range", "bytes 1000-2999/3000"),), pattern(3_000)[1_000:])

    (httpie.folder / "saved").write_bytes(pattern(1_000))
    httpie.answer("--download", "--continue", "--output", "saved", server.url("/part"))
    assert (httpie.folder / "saved").read_bytes() == pattern(3_000)


def test_a_session_keeps_headers_and_cookies(httpie: Httpie, server: Server) -> None:
    @server.route("/cookie")
    def set_cookie(request: Request) -> Any:
        return Reply(200, (("set-cookie", "a=1"), ("set-cookie", "b=2")))

    httpie.answer("--session=ann", server.url("/cookie"), "X-Name:Ann")
    seen = json.loads(httpie.answer("--session=ann", "--body", server.url("/seen")))
    assert (seen["headers"]["x-name"], sorted(seen["headers"]["cookie"].split("; "))) == ("Ann", ["a=1", "b=2"])


def test_a_file_is_uploaded_as_it_is(httpie: Httpie, server: Server) -> None:
    (httpie.folder / "large").write_bytes(pattern(3_000_000))
    assert json.loads(httpie.answer("PUT", server.url("/sha256"), "@large"))["length"] == 3_000_000


def test_standard_input_is_uploaded(httpie: Httpie, server: Server) -> None:
    assert json.loads(httpie.answer("--body", server.url("/seen"), body=b"from a pipe"))["body"] == "from a pipe"


def test_a_chunked_upload_arrives_whole(httpie: Httpie, server: Server) -> None:
    (httpie.folder / "large").write_bytes(pattern(1_000_000))
    assert json.loads(httpie.answer("--chunked", server.url("/sha256"), "@large"))["length"] == 1_000_000


def test_a_multipart_form_arrives_whole(httpie: Httpie, server: Server) -> None:
    (httpie.folder / "cat.txt").write_text("meow")
    seen = json.loads(httpie.answer("--form", "--body", server.url("/seen"), "a=1", "f@cat.txt"))
    assert ('filename="cat.txt"' in seen["body"], "meow" in seen["body"]) == (True, True)


def test_a_stranger_is_not_trusted_unless_verify_is_no(httpie: Httpie) -> None:
    with Server() as server:
        refused = httpie.run(server.url("/"))
        assert (refused.returncode, b"SSLError" in refused.stderr) == (1, True)
        assert httpie.answer("--verify=no", "--headers", server.url("/")).startswith(b"HTTP/2.0 200")


def test_a_client_certificate_is_shown(httpie: Httpie) -> None:
    cert, key = AUTHORITY.issue("ann", eku=("client",))
    (httpie.folder / "cert.pem").write_bytes(cert)
    (httpie.folder / "key.pem").write_bytes(key)
    (httpie.folder / "both.pem").write_bytes(cert + key)
    with Server(authority=AUTHORITY, client_ca_pem=AUTHORITY.ca_pem) as server:
        assert httpie.run(server.url("/")).returncode == 1
        assert b"HTTP/2.0 200" in httpie.answer("--headers", "--cert=cert.pem", "--cert-key=key.pem", server.url("/"))
        assert b"HTTP/2.0 200" in httpie.answer("--headers", "--cert=both.pem", server.url("/"))


def test_the_passphrase_of_a_key_is_used(httpie: Httpie) -> None:
    from cryptography.hazmat.primitives import serialization as pem

    cert, key = AUTHORITY.issue("ann", eku=("client",))
    private = pem.load_pem_private_key(key, None)
    locked = private.private_bytes(pem.Encoding.PEM, pem.PrivateFormat.PKCS8, pem.BestAvailableEncryption(b"sesame"))
    (httpie.folder / "cert.pem").write_bytes(cert)
    (httpie.folder / "key.pem").write_bytes(locked)
    with Server(authority=AUTHORITY, client_ca_pem=AUTHORITY.ca_pem) as server:
        words = ["--headers", "--cert=cert.pem", "--cert-key=key.pem", "--cert-key-pass=sesame", server.url("/")]
        assert b"HTTP/2.0 200" in httpie.answer(*words)


def test_a_timeout_is_httpies_own(httpie: Httpie, server: Server) -> None:
    done = httpie.run("--timeout=0.3", server.url("/fault/silence"))
    assert (done.returncode, b"Request timed out (0.3s)" in done.stderr) == (2, True)


@pytest.mark.parametrize(("status", "expected"), [(200, 0), (302, 3), (404, 4), (503, 5)])
def test_check_status_is_httpies_own(httpie: Httpie, server: Server, status: int, expected: int) -> None:
    assert httpie.run("--check-status", server.url(f"/status/{status}")).returncode == expected


def test_redirects_are_followed(httpie: Httpie, server: Server) -> None:
    shown = httpie.answer("--follow", "--all", "--headers", server.url("/status/302"))
    assert shown.count(b"HTTP/2.0 ") == 2
    assert server.connections_accepted == 1


def test_a_body_is_shown_while_it_comes(httpie: Httpie, server: Server) -> None:
    assert httpie.answer("--stream", "--body", server.url("/chunked/300000")) == pattern(300_000)


def test_a_lost_connection_is_one_error_and_no_traceback(httpie: Httpie, server: Server) -> None:
    done = httpie.run(server.url("/fault/disconnect"))
    assert (done.returncode, b"Traceback" in done.stderr, b"ConnectionError" in done.stderr) == (1, False, True)


def test_a_proxy_is_used(httpie: Httpie, server: Server) -> None:
    with TunnelProxy() as proxy:
        shown = httpie.answer("--headers", f"--proxy=https:{proxy.url()}", server.url("/"))
        assert (shown.startswith(b"HTTP/2.0 200"), proxy.tunnels) == (True, 1)
