"""The servers that the benchmark asks, each started when a scenario first needs it and kept until the end.

Bodies are sparse files: their content is zeros, their length is what counts.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stress import servers
from stress.bench_delay import delayed
from stress.bench_scenarios import LINE_MBIT, ROUND_TRIP_S, Kind, Scenario, Where
from stress.bench_values import BODY_BYTES
from stress.servers import Served

# Answers which protocol was spoken, as a length that tells them apart: 2 bytes or none.
_PROBE = "location = /probe { return 200 $http2; }"
# Below what Linux gives out for outgoing connections (32,768 and up).
_FIRST_PORT, _LAST_PORT = 12_000, 32_000
_FILES = 65_536


@dataclass(frozen=True, slots=True)
class Place:
    """A server that runs. Immutable. ``port`` is where clients go, which need not be the server's own."""

    served: Served
    port: int
    has_probe: bool = True
    plain_port: int = 0
    ports: tuple[int, ...] = ()

    def job_for(self, scenario: Scenario, size_bytes: int) -> dict[str, Any]:
        """The fields of a `Job` that say where to go."""
        origin = f"https://localhost:{self.port}"
        self._put(BODY_BYTES, size_bytes)
        path = f"/bytes/{BODY_BYTES if scenario.kind is Kind.SLOW else size_bytes}"
        if scenario.kind is Kind.UP:
            # nghttpd takes a body anywhere.
            path = "/swallow" if self.has_probe else f"/bytes/{BODY_BYTES}"
        return {
            "url": origin + path,
            "probe_url": f"{origin}/probe" if self.has_probe else "",
            "ca_file": str(self.served.ca_file),
            "port": self.port,
            "plain_port": self.plain_port,
            "size_bytes": size_bytes,
            "urls": tuple(f"https://localhost:{port}{path}" for port in self.ports),
        }

    def _put(self, *sizes: int) -> None:
        for size in sizes:
            path = self.served.root / "bytes" / str(size)
            if not path.exists():
                path.touch()
                os.truncate(path, size)


class Places:
    """All servers of a run. Owned by the main thread; a context manager that ends them."""

    def __init__(self, origins: int) -> None:
        self._origins = origins
        self._stack = contextlib.ExitStack()
        self._open: dict[Where, Place] = {}

    def __enter__(self) -> Places:
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def job_for(self, scenario: Scenario, size_bytes: int) -> dict[str, Any]:
        """Where a scenario goes. Raises ServerMissing, StartFailed."""
        if scenario.where is Where.NOBODY:
            return {}
        if scenario.where not in self._open:
            self._open[scenario.where] = self._stack.enter_context(self._start(scenario.where))
        return self._open[scenario.where].job_for(scenario, size_bytes)

    def _start(self, where: Where) -> contextlib.AbstractContextManager[Place]:
        starts: dict[Where, Callable[[], contextlib.AbstractContextManager[Place]]] = {
            Where.NGINX_H2: lambda: _nginx(h2=True),
            Where.NGINX_H1: lambda: _nginx(h2=False),
            Where.NGHTTPD: _nghttpd,
            # Its own windows of 64 KiB would be what is measured.
            Where.NGHTTPD_UP: lambda: _nghttpd(echo=False, options=("-w30", "-W30")),
            Where.FAR: lambda: _far(rate_mbit=LINE_MBIT),
            Where.FAR_OPEN: lambda: _far(rate_mbit=0),
            Where.ORIGINS: lambda: _many(self._origins),
        }
        return starts[where]()


@contextlib.contextmanager
def _nginx(*, h2: bool) -> Iterator[Place]:
    with servers.nginx(h2=h2, directives=_PROBE) as served:
        yield Place(served, served.port)


@contextlib.contextmanager
def _nghttpd(**how: Any) -> Iterator[Place]:
    with servers.nghttpd(**how) as served:
        yield Place(served, served.port, has_probe=False)


@contextlib.contextmanager
def _far(*, rate_mbit: float) -> Iterator[Place]:
    """nginx behind the long line: over TLS, and as a plain stream for what one TCP connection carries there."""
    plain = f"127.0.0.1:{_free_ports(1)[0]}"
    with (
        servers.nginx(directives=f"listen {plain}; {_PROBE}") as served,
        delayed(f"127.0.0.1:{served.port}", plain, delay_s=ROUND_TRIP_S / 2, rate_mbit=rate_mbit) as (
            port,
            plain_port,
        ),
    ):
        yield Place(served, port, plain_port=plain_port)


@contextlib.contextmanager
def _many(count: int) -> Iterator[Place]:
    """One nginx on many ports of localhost, each of them an origin."""
    ports = _free_ports(count)
    with servers.folder_and_tree() as (folder, root):

        def command(port: int) -> Sequence[str]:
            listens = "\n".join(f"listen 127.0.0.1:{each} ssl http2;" for each in (*ports, port))
            (folder / "nginx.conf").write_text(_config(folder, root, listens), "utf-8")
            program = servers.find_program("nginx", package="nginx")
            start = [program, "-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", str(folder / "log")]
            # Sockets for listening and for what is accepted; a server without a master cannot raise its own limit.
            return ["sh", "-c", f'ulimit -n "$(ulimit -H -n)" || ulimit -n {_FILES}; exec "$@"', "sh", *start]

        for served in servers.run("nginx-many", folder, root, command):
            yield Place(served, served.port, has_probe=False, ports=tuple(ports))


def _config(folder: Path, root: Path, listens: str) -> str:
    return f"""
        daemon off;
        master_process off;
        {"user root;" if os.geteuid() == 0 else ""}
        pid {folder}/pid;
        error_log {folder}/log crit;
        events {{ worker_connections 16384; }}
        http {{
            access_log off;
            keepalive_timeout 120s;
            client_body_temp_path {folder}/tmp-body;
            proxy_temp_path {folder}/tmp-proxy;
            fastcgi_temp_path {folder}/tmp-fastcgi;
            uwsgi_temp_path {folder}/tmp-uwsgi;
            scgi_temp_path {folder}/tmp-scgi;
            server {{
                {listens}
                ssl_certificate {folder}/server.pem;
                ssl_certificate_key {folder}/server.key;
                root {root};
            }}
        }}
    """


def _free_ports(count: int) -> list[int]:
    found = []
    for port in range(_FIRST_PORT, _LAST_PORT):
        with socket.socket() as sock:
            try:
                sock.bind(("127.0.0.1", port))
            except OSError:
                continue
        found.append(port)
        if len(found) == count:
            return found
    raise servers.StartFailed(f"{count} ports of 127.0.0.1 were wanted, {len(found)} are free")
