"""hyperpool through proxies that somebody else wrote: tinyproxy, squid (plain and over TLS), microsocks and dante."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from interop_kit import running

import hyperpool
from hyperpool.errors import ProxyError
from hyperpool.testing import CertificateAuthority, Server, pattern, pattern_pieces
from stress.servers import find_program

pytestmark = [pytest.mark.interop, pytest.mark.slow]

THREADS = 32
START_S = 45.0
PORT_TRIES = 5

AUTHORITY = CertificateAuthority()
CERTIFICATE = AUTHORITY.issue("localhost", "127.0.0.1")
USER = ("user", "pass")
# `openssl passwd -apr1 pass`.
PASSWORD_LINE = "user:$apr1$abcdefgh$rK/lObuciIG5ziaV8BdHR/\n"


@dataclass(frozen=True)
class Running:
    """A proxy that runs. ``forwards``: plain requests are given to it rather than tunnelled."""

    url: str
    forwards: bool

    def with_user(self, userinfo: str) -> str:
        return self.url.replace("://", f"://{userinfo}@")


Command = Callable[[int, Path], Sequence[str]]


def tinyproxy(port: int, folder: Path, *, auth: bool = False) -> Sequence[str]:
    config = f"""
        Port {port}
        Listen 127.0.0.1
        Allow 127.0.0.1
        Timeout 60
        MaxClients 200
        LogLevel Error
        {f"BasicAuth {USER[0]} {USER[1]}" if auth else ""}
    """
    return [find_program("tinyproxy", package="tinyproxy-bin"), "-d", "-c", write(folder, "tinyproxy.conf", config)]


def squid(port: int, folder: Path, *, auth: bool = False, tls: bool = False) -> Sequence[str]:
    program = find_program("squid", package="squid-openssl")
    write(folder, "proxy.pem", b"".join(CERTIFICATE).decode())
    rules = "http_access allow all"
    if auth:
        passwords = write(folder, "passwords", PASSWORD_LINE)
        rules = f"""
            auth_param basic program /usr/lib/squid/basic_ncsa_auth {passwords}
            auth_param basic children 1 startup=1
            acl known proxy_auth REQUIRED
            http_access allow known
            http_access deny all
        """
    config = f"""
        {"https_port" if tls else "http_port"} 127.0.0.1:{port} {f"tls-cert={folder}/proxy.pem" if tls else ""}
        {rules}
        cache deny all
        access_log none
        cache_log {folder}/cache.log
        cache_store_log none
        pid_filename none
        coredump_dir {folder}
        visible_hostname localhost
        shutdown_lifetime 0 seconds
        max_filedescriptors 1024
        pinger_enable off
        netdb_filename none
    """
    # squid gives up being root, so its folder must be readable for whoever it becomes.
    folder.chmod(0o777)
    # Without leading blanks: they continue the line before.
    text = "\n".join(line.strip() for line in config.splitlines())
    return [program, "-N", "-f", write(folder, "squid.conf", text)]


def microsocks(port: int, folder: Path, *, auth: bool = False) -> Sequence[str]:
    credentials = ["-u", USER[0], "-P", USER[1]] if auth else []
    return [find_program("microsocks", package="microsocks"), "-i", "127.0.0.1", "-p", str(port), *credentials]


def dante(port: int, folder: Path) -> Sequence[str]:
    config = f"""
        logoutput: {folder}/dante.log
        internal: 127.0.0.1 port = {port}
        external: 127.0.0.1
        clientmethod: none
        socksmethod: none
        user.privileged: {"root" if os.geteuid() == 0 else "nobody"}
        user.unprivileged: nobody
        client pass {{ from: 127.0.0.0/8 to: 0.0.0.0/0 }}
        socks pass {{ from: 0.0.0.0/0 to: 0.0.0.0/0 }}
    """
    return [find_program("danted", package="dante-server"), "-f", write(folder, "danted.conf", config)]


def write(folder: Path, name: str, text: str) -> str:
    path = folder / name
    path.write_text(text, "utf-8")
    path.chmod(0o644)
    return str(path)


@contextlib.contextmanager
def started(command: Command, scheme: str) -> Iterator[Running]:
    """The proxy on a free port, until the end of the block. Raises ServerMissing."""
    with tempfile.TemporaryDirectory(prefix="hyperpool-proxy-", ignore_cleanup_errors=True) as name:
        process, port = _start(command, Path(name))
        try:
            yield Running(f"{scheme}://localhost:{port}", forwards=scheme in ("http", "https"))
        finally:
            _stop(process)


def _start(command: Command, folder: Path) -> tuple[subprocess.Popen[bytes], int]:
    for _ in range(PORT_TRIES):
        with socket.create_server(("127.0.0.1", 0)) as sock:
            port: int = sock.getsockname()[1]
        leash = shutil.which("setpriv")
        prefix = [leash, "--pdeathsig", "KILL"] if leash else []
        with (folder / "log").open("wb") as out:
            process = subprocess.Popen(
                [*prefix, *command(port, folder)],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        if _is_up(process, port):
            return process, port
        _stop(process)
    words = "".join(path.read_text("utf-8", "replace")[-2_000:] for path in folder.glob("*log"))
    raise RuntimeError(f"the proxy did not start: {words or 'no word in its log'}")


def _is_up(process: subprocess.Popen[bytes], port: int) -> bool:
    deadline_at = time.monotonic() + START_S
    while time.monotonic() < deadline_at and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=START_S).close()
        except OSError:
            time.sleep(0.01)
        else:
            return True
    return False


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End it with its children: dante and squid have some, and the group is theirs alone."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(30)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(30)


def over_tls(command: Any) -> Command:
    return lambda port, folder: command(port, folder, tls=True)


def with_auth(command: Any) -> Command:
    return lambda port, folder: command(port, folder, auth=True)


PROXIES: dict[str, tuple[Command, str]] = {
    "tinyproxy": (tinyproxy, "http"),
    "squid": (squid, "http"),
    "squid-tls": (over_tls(squid), "https"),
    "microsocks": (microsocks, "socks5h"),
    "dante": (dante, "socks5"),
}
GUARDED: dict[str, tuple[Command, str]] = {
    "tinyproxy": (with_auth(tinyproxy), "http"),
    "squid": (with_auth(squid), "http"),
    "microsocks": (with_auth(microsocks), "socks5h"),
}


@pytest.fixture(scope="module", params=PROXIES)
def proxy(request: pytest.FixtureRequest) -> Iterator[Any]:
    """Each of the proxies."""
    with running(started(*PROXIES[request.param])) as made:  # type: ignore[arg-type]
        yield made


@pytest.fixture(scope="module", params=GUARDED)
def guarded(request: pytest.FixtureRequest) -> Iterator[Any]:
    """Each of the proxies that can ask for credentials, doing so."""
    with running(started(*GUARDED[request.param])) as made:  # type: ignore[arg-type]
        yield made


@pytest.fixture
def origin() -> Iterator[Server]:
    """An origin over TLS."""
    with Server(authority=AUTHORITY, certificate=CERTIFICATE) as server:
        yield server


@pytest.fixture
def plain() -> Iterator[Server]:
    """An origin without TLS."""
    with Server(tls=False, http2=False) as server:
        yield server


def client(proxy: str, **options: Any) -> hyperpool.Client:
    return hyperpool.Client(verify=AUTHORITY.ca_pem, proxy=proxy, timeout=30, **options)


@pytest.mark.parametrize("http2", [True, False], ids=["h2", "h1"])
def test_the_version_is_agreed_with_the_origin_through_the_tunnel(proxy: Running, origin: Server, http2: bool) -> None:
    with client(proxy.url, http2=http2) as it:
        response = it.get(origin.url("/bytes/1000000"))
    assert response.http_version == ("HTTP/2" if http2 else "HTTP/1.1")
    assert response.content == pattern(1_000_000)


@pytest.mark.parametrize("http2", [True, False], ids=["h2", "h1"])
def test_an_upload_comes_back_through_the_tunnel_as_it_was(proxy: Running, origin: Server, http2: bool) -> None:
    with client(proxy.url, http2=http2) as it:
        assert it.post(origin.url("/echo"), content=pattern_pieces(3_000_000)).content == pattern(3_000_000)


def test_32_threads_share_one_tunnel(proxy: Running, origin: Server) -> None:
    with client(proxy.url) as it, ThreadPoolExecutor(THREADS) as threads:
        it.get(origin.url("/bytes/1"))
        sizes = [number * 97 % 20_000 for number in range(THREADS * 20)]
        got = threads.map(lambda size: it.get(origin.url(f"/bytes/{size}")).content, sizes)
        assert list(got) == [pattern(size) for size in sizes]
    assert origin.connections_accepted == 1


def test_plain_requests_reach_their_origin(proxy: Running, plain: Server) -> None:
    with client(proxy.url) as it:
        for size in (0, 1, 100_000):
            assert it.get(plain.url(f"/bytes/{size}")).content == pattern(size)
        assert it.post(plain.url("/echo"), content=pattern_pieces(200_000)).content == pattern(200_000)
        assert it.head(plain.url("/bytes/10")).headers["Content-Length"] == "10"
        assert it.get(plain.url("/no-such-page?a=b")).status_code in (200, 404)


def test_32_threads_send_plain_requests(proxy: Running, plain: Server) -> None:
    with client(proxy.url) as it, ThreadPoolExecutor(THREADS) as threads:
        sizes = [number * 97 % 20_000 for number in range(THREADS * 5)]
        got = threads.map(lambda size: it.get(plain.url(f"/bytes/{size}")).content, sizes)
        assert list(got) == [pattern(size) for size in sizes]


def test_an_origin_that_nobody_runs_is_told(proxy: Running) -> None:
    with socket.socket() as bound, client(proxy.url) as it:
        bound.bind(("127.0.0.1", 0))
        with pytest.raises(ProxyError):
            it.get(f"https://localhost:{bound.getsockname()[1]}/")


def test_with_the_credentials_the_way_is_open(guarded: Running, origin: Server, plain: Server) -> None:
    with client(guarded.with_user(":".join(USER))) as it:
        assert it.get(origin.url("/bytes/1000")).http_version == "HTTP/2"
        assert it.get(plain.url("/bytes/1000")).content == pattern(1_000)


def test_the_origin_never_sees_the_credentials(guarded: Running, origin: Server, plain: Server) -> None:
    with client(guarded.with_user(":".join(USER))) as it:
        it.get(origin.url("/bytes/1"))
        it.get(plain.url("/bytes/1"))
    seen = [name.lower() for server in (origin, plain) for request in server.requests for name, _ in request.headers]
    assert seen and "proxy-authorization" not in seen


@pytest.mark.parametrize("userinfo", ["", "user:wrong", "stranger:pass"])
def test_without_the_credentials_the_tunnel_is_refused(guarded: Running, origin: Server, userinfo: str) -> None:
    with client(guarded.with_user(userinfo) if userinfo else guarded.url) as it:
        with pytest.raises(ProxyError, match="credentials") as caught:
            it.get(origin.url("/"))
    assert caught.value.status in ((407, 401) if guarded.forwards else (None,))


def test_without_the_credentials_a_plain_request_does_not_reach_its_origin(guarded: Running, plain: Server) -> None:
    with client(guarded.url) as it:
        if guarded.forwards:
            assert it.get(plain.url("/")).status_code in (401, 407)
        else:
            with pytest.raises(ProxyError, match="credentials"):
                it.get(plain.url("/"))
    assert plain.requests == []
