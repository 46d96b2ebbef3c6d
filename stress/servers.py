"""Real servers that somebody else wrote, on a loopback port, for one test: nginx and nghttpd.

Each serves the same tree, so that callers need not care which it is:

    /bytes/N    N bytes of `pattern`, for each N in `SIZES` (and those asked for)
    /echo       POST: the body comes back, up to `ECHO_BYTES`
    /uploads/X  PUT (nginx): the body becomes the file X in `Served.uploads`; GET gives it back

nginx takes no port 0, so a port is chosen first; a start that finds it taken is repeated with another. A server is one
process, which ends with the thread that started it even where `stop` is never reached (setpriv, where there is one).
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from hyperpool.testing.certificates import CertificateAuthority
from hyperpool.testing.paths import pattern

SIZES = (0, 1, 100, 1_000, 1_024, 10_000, 16_384, 65_536, 100_000, 262_144, 1_048_576)
ECHO_BYTES = 4 << 20
SWALLOW_BYTES = 128 << 20

# A start takes 30 ms; a loaded machine may need a hundred times as long.
START_S = 10.0
STOP_S = 5.0
PORT_TRIES = 10

# Enough that no connection is retired within a run; pass fewer to see GOAWAY.
KEEPALIVE_REQUESTS = 100_000_000

# What makes an nginx with a master process take up its configuration anew.
RELOAD = signal.SIGHUP

Command = Callable[[int], Sequence[str]]


class ServerMissing(Exception):
    """The server's program is not installed; the message names its Debian package."""


class StartFailed(Exception):
    """The server ended, or answered to nobody; the message holds its last words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """A running server. Immutable; its process is ended by `stop`, which may be called again."""

    name: str
    port: int
    ca_pem: bytes
    ca_file: Path
    root: Path
    uploads: Path
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def origin(self) -> str:
        return f"https://localhost:{self.port}"

    def url(self, path: str = "/") -> str:
        return self.origin + path

    def stop(self) -> None:
        """End the process. Blocks until it is gone."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
        self.process.wait(STOP_S)

    def last_words(self) -> str:
        """The end of the server's log."""
        return self.log.read_text("utf-8", "replace")[-2_000:] if self.log.exists() else ""


def find_program(name: str, *, package: str) -> str:
    """The program's path. Raises ServerMissing that names the Debian package."""
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")
    if found is None:
        raise ServerMissing(f"{name} is not installed: apt-get install {package}")
    return found


# -- nginx -------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def nginx(
    *,
    h2: bool = True,
    root: Path | None = None,
    sizes: Sequence[int] = (),
    keepalive_requests: int = KEEPALIVE_REQUESTS,
    max_concurrent_streams: int = 128,
    directives: str = "",
    name: str = "",
    master: bool = False,
) -> Iterator[Served]:
    """nginx over TLS, with HTTP/2 or without.

    ``root``: a folder to serve instead of `/bytes/N`. ``sizes``: further N. ``directives``: lines for its server block.
    ``master``: with a master process, which can take up its configuration anew.
    Raises ServerMissing, StartFailed.
    """
    program = find_program("nginx", package="nginx")
    with folder_and_tree(root, sizes) as (folder, served_root):

        def command(port: int) -> Sequence[str]:
            settings = f"""
                listen 127.0.0.1:{port} ssl{" http2" if h2 else ""} backlog=512;
                keepalive_requests {keepalive_requests};
                http2_max_concurrent_streams {max_concurrent_streams};
                {directives}
            """
            config = folder / "nginx.conf"
            config.write_text(_nginx_config(folder, served_root, settings, master=master), "utf-8")
            return [program, "-p", str(folder), "-c", str(config), "-e", str(folder / "log")]

        yield from run(name or ("nginx" if h2 else "nginx-h1"), folder, served_root, command)


def _nginx_config(folder: Path, root: Path, settings: str, *, master: bool) -> str:
    # One process where nothing else is asked for, so that ending it leaves nothing behind. The `user` line counts for
    # root alone: workers would else be nobody, who may not read a private temporary folder.
    user = "user root;" if os.geteuid() == 0 else ""
    return f"""
        daemon off;
        master_process {"on" if master else "off"};
        worker_processes 1;
        {user}
        pid {folder}/pid;
        error_log {folder}/log warn;
        events {{ worker_connections 1024; }}
        http {{
            access_log off;
            default_type application/octet-stream;
            client_body_temp_path {folder}/tmp-body;
            proxy_temp_path {folder}/tmp-proxy;
            fastcgi_temp_path {folder}/tmp-fastcgi;
            uwsgi_temp_path {folder}/tmp-uwsgi;
            scgi_temp_path {folder}/tmp-scgi;
            client_max_body_size 0;
            keepalive_timeout 120s;
            sendfile on;
            tcp_nodelay on;
            server {{
                {settings}
                server_name localhost;
                ssl_certificate {folder}/server.pem;
                ssl_certificate_key {folder}/server.key;
                root {root};
                location /uploads/ {{
                    root {folder};
                    dav_methods PUT DELETE;
                    create_full_put_path on;
                }}
                # No module that echoes: the body is read whole because it could be proxied, the answer to the proxied
                # request is one letter, and the letter is replaced by the body.
                location = /echo {{
                    client_body_buffer_size {ECHO_BYTES};
                    client_body_in_single_buffer on;
                    proxy_pass_request_body off;
                    proxy_set_header Content-Length "";
                    proxy_pass http://unix:{folder}/letter.sock:/;
                    sub_filter_types *;
                    sub_filter X $request_body;
                }}
                # A body is taken whole, into memory, and forgotten.
                location = /swallow {{
                    client_body_buffer_size {SWALLOW_BYTES};
                    proxy_pass_request_body off;
                    proxy_set_header Content-Length "";
                    proxy_pass http://unix:{folder}/letter.sock:/;
                }}
                location = /too-large {{
                    client_max_body_size 1k;
                    proxy_pass http://unix:{folder}/letter.sock:/;
                }}
            }}
            server {{
                listen unix:{folder}/letter.sock;
                location / {{ return 200 X; }}
            }}
        }}
    """


# -- nghttpd -----------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def nghttpd(
    *,
    root: Path | None = None,
    sizes: Sequence[int] = (),
    max_concurrent_streams: int = 100,
    options: Sequence[str] = (),
    echo: bool = True,
) -> Iterator[Served]:
    """nghttp2's server over TLS: HTTP/2 alone.

    ``echo``: what is uploaded comes back; else it is forgotten. ``options``: further ones of its command line, such as
    ``["--padding=100"]``. Raises ServerMissing, StartFailed.
    """
    program = find_program("nghttpd", package="nghttp2-server")
    with folder_and_tree(root, sizes) as (folder, served_root):

        def command(port: int) -> Sequence[str]:
            settings = ["--address=127.0.0.1", f"--htdocs={served_root}", f"-m{max_concurrent_streams}"]
            pair = [str(folder / "server.key"), str(folder / "server.pem")]
            return [program, *settings, *["--echo-upload"] * echo, *options, str(port), *pair]

        yield from run("nghttpd", folder, served_root, command)


# -- what both need ----------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def folder_and_tree(root: Path | None = None, sizes: Sequence[int] = ()) -> Iterator[tuple[Path, Path]]:
    """A private folder with a certificate for localhost, and the tree to serve."""
    with tempfile.TemporaryDirectory(prefix="hyperpool-served-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        authority = CertificateAuthority()
        certificate, key = authority.issue("localhost", "127.0.0.1")
        (folder / "ca.pem").write_bytes(authority.ca_pem)
        (folder / "server.pem").write_bytes(certificate)
        (folder / "server.key").write_bytes(key)
        (folder / "uploads").mkdir()
        yield folder, _tree(folder, sizes) if root is None else root.resolve()


def _tree(folder: Path, sizes: Sequence[int]) -> Path:
    root = folder / "root"
    (root / "bytes").mkdir(parents=True)
    for size in {*SIZES, *sizes}:
        (root / "bytes" / str(size)).write_bytes(pattern(size))
    return root


def run(name: str, folder: Path, root: Path, command: Command) -> Iterator[Served]:
    """Start what ``command`` says for a port, and stop it afterwards. Raises StartFailed."""
    served = _start(name, folder, root, command)
    try:
        yield served
    finally:
        served.stop()


def _start(name: str, folder: Path, root: Path, command: Command) -> Served:
    last_words = ""
    for _ in range(PORT_TRIES):
        port = _free_port()
        served = Served(
            name=name,
            port=port,
            ca_pem=(folder / "ca.pem").read_bytes(),
            ca_file=folder / "ca.pem",
            root=root,
            uploads=folder / "uploads",
            process=_spawn(command(port), folder / "log"),
            log=folder / "log",
        )
        if _is_up(served):
            return served
        served.stop()
        last_words = served.last_words()
        if "ddress already in use" not in last_words:
            break
    raise StartFailed(f"{name} did not start: {last_words or 'no word in its log'}")


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port: int = sock.getsockname()[1]
        return port


def _spawn(command: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
    leash = shutil.which("setpriv")
    with log.open("wb") as out:
        return subprocess.Popen(
            [leash, "--pdeathsig", "KILL", *command] if leash else command,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,  # Ctrl-C is for the program that uses the server, which then stops it
        )


def _is_up(served: Served) -> bool:
    """Whether the server, and nobody else who took the port, answers with the certificate that it was given."""
    trust = ssl.create_default_context(cadata=served.ca_pem.decode())
    deadline_at = time.monotonic() + START_S
    while time.monotonic() < deadline_at and served.process.poll() is None:
        try:
            with socket.create_connection(("127.0.0.1", served.port), timeout=START_S) as sock:
                trust.wrap_socket(sock, server_hostname="localhost").close()
            return True
        except ssl.SSLCertVerificationError:
            return False
        except OSError:
            time.sleep(0.01)
    return False
