"""The clients of the benchmark whose work is done in C or Rust, and niquests; and the list of all.

Each is used as its documentation says that threads share it: pycurl has one handle per thread, since a handle must not
be shared, and one multi handle where many requests are under way from one thread.
"""

from __future__ import annotations

import importlib.util
import io
import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stress import bench_async
from stress.bench_clients import (
    PATIENCE_S,
    Httpcore,
    Httpx,
    Hyperpool,
    Opener,
    Peer,
    Requests,
    Seen,
    Setting,
    Tally,
    Urllib3,
    is_installed,
    load,
)


class Niquests(Peer):
    """niquests, by its own urllib3-future. Shared: its Session is called thread-safe."""

    def __init__(self, setting: Setting) -> None:
        niquests = load("niquests")
        # HTTP/3 is switched off, and so are the questions about revoked certificates, which the others do not ask.
        self._session = niquests.Session(
            disable_http3=True,
            disable_http2=not setting.h2,
            pool_connections=setting.origins + 10,
            pool_maxsize=setting.workers,
            revocation_configuration=None,
        )
        self._session.verify, self._session.trust_env = setting.ca_file, False

    def get(self, url: str) -> int:
        return len(self._session.get(url, timeout=PATIENCE_S).content)

    def download(self, url: str, seen: Seen) -> None:
        with self._session.get(url, timeout=PATIENCE_S, stream=True) as response:
            for chunk in response.iter_content(65_536):
                if seen(len(chunk)):
                    return

    def upload(self, url: str, path: Path) -> int:
        with path.open("rb") as file:
            return int(self._session.put(url, data=file, timeout=PATIENCE_S).status_code)

    def close(self) -> None:
        self._session.close()


class Pycurl(Peer):
    """libcurl. Each thread has a handle of its own, and so a connection of its own."""

    def __init__(self, setting: Setting) -> None:
        self._curl = load("pycurl")
        self._setting = setting
        self._own = threading.local()
        self._all: list[Any] = []

    def handle(self) -> Any:
        curl = self._curl
        handle = curl.Curl()
        handle.setopt(curl.CAINFO, self._setting.ca_file)
        http = curl.CURL_HTTP_VERSION_2TLS if self._setting.h2 else curl.CURL_HTTP_VERSION_1_1
        handle.setopt(curl.HTTP_VERSION, http)
        handle.setopt(curl.NOSIGNAL, 1)  # libcurl: required where there are threads
        handle.setopt(curl.FAILONERROR, 1)
        handle.setopt(curl.NOPROXY, "*")
        self._all.append(handle)
        return handle

    def _mine(self) -> Any:
        if not hasattr(self._own, "handle"):
            self._own.handle = self.handle()
        return self._own.handle

    def get(self, url: str) -> int:
        handle, body = self._mine(), io.BytesIO()
        handle.setopt(self._curl.URL, url)
        handle.setopt(self._curl.WRITEDATA, body)
        handle.perform()
        return len(body.getvalue())

    def download(self, url: str, seen: Seen) -> None:
        enough = False

        def take(chunk: bytes) -> int:
            nonlocal enough
            enough = seen(len(chunk))
            return 0 if enough else len(chunk)  # fewer than there are: libcurl gives up

        handle = self._mine()
        handle.setopt(self._curl.URL, url)
        handle.setopt(self._curl.WRITEFUNCTION, take)
        try:
            handle.perform()
        except self._curl.error:
            if not enough:
                raise

    def upload(self, url: str, path: Path) -> int:
        curl, handle = self._curl, self._mine()
        with path.open("rb") as file:
            handle.setopt(curl.URL, url)
            handle.setopt(curl.UPLOAD, 1)
            handle.setopt(curl.READDATA, file)
            handle.setopt(curl.INFILESIZE_LARGE, os.path.getsize(path))
            handle.setopt(curl.WRITEDATA, io.BytesIO())
            handle.perform()
        return int(handle.getinfo(curl.RESPONSE_CODE))

    def close(self) -> None:
        for handle in self._all:
            handle.close()


class PycurlMulti(Peer):
    """libcurl's multi handle, HTTP/2 multiplexed. One thread's own."""

    how_flying = "multi"

    def __init__(self, setting: Setting) -> None:
        self._curl = load("pycurl")
        self._handles = Pycurl(setting)
        self._settled = 0
        self._multi = self._curl.CurlMulti()
        self._multi.setopt(self._curl.M_PIPELINING, self._curl.PIPE_MULTIPLEX)
        self._multi.setopt(self._curl.M_MAX_HOST_CONNECTIONS, 8)

    def fly(self, url: str, in_flight: int, tally: Tally) -> None:
        tally.probed(self._handles.get(tally.probe_url or url))
        handles = [self._handles.handle() for _ in range(in_flight)]
        for handle in handles:
            handle.setopt(self._curl.PIPEWAIT, 1)
            handle.setopt(self._curl.URL, url)
            self._begin(handle)
        active = in_flight
        while active:
            while self._multi.perform()[0] == self._curl.E_CALL_MULTI_PERFORM:
                pass
            before = self._settled
            active -= self._settle(tally)
            if self._settled == before:  # else there are new ones, which `perform` has not begun
                self._multi.select(1.0)

    def _begin(self, handle: Any) -> None:
        handle.body, handle.began_at = io.BytesIO(), time.monotonic()
        handle.setopt(self._curl.WRITEDATA, handle.body)
        self._multi.add_handle(handle)

    def _settle(self, tally: Tally) -> int:
        ended, more = 0, 1
        while more:
            more, good, bad = self._multi.info_read()
            for handle in good:
                tally.count(handle.began_at, len(handle.body.getvalue()))
            for _, number, message in bad:
                tally.fail(OSError(number, message))
            for handle in [*good, *(each[0] for each in bad)]:
                self._settled += 1
                self._multi.remove_handle(handle)
                if tally.over:
                    ended += 1
                else:
                    self._begin(handle)
        return ended

    def close(self) -> None:
        self._handles.close()
        self._multi.close()


class Primp(Peer):
    """primp (Rust). Shared: its Client releases the GIL while it waits."""

    def __init__(self, setting: Setting) -> None:
        self._client = load("primp").Client(ca_cert_file=setting.ca_file, timeout=PATIENCE_S)

    def get(self, url: str) -> int:
        return len(self._client.get(url).content)

    def download(self, url: str, seen: Seen) -> None:
        with self._client.get(url, stream=True) as response:
            for chunk in response.iter_bytes():
                if seen(len(chunk)):
                    return

    def upload(self, url: str, path: Path) -> int:
        # It takes a body as bytes alone.
        return int(self._client.put(url, content=path.read_bytes()).status_code)


class Pyreqwest(Peer):
    """pyreqwest (Rust, reqwest). Shared: its SyncClient is called thread-safe."""

    def __init__(self, setting: Setting) -> None:
        self._client = bench_async.reqwest(load("pyreqwest.client").SyncClientBuilder(), setting)

    def get(self, url: str) -> int:
        return len(self._client.get(url).build().send().bytes())

    def download(self, url: str, seen: Seen) -> None:
        with self._client.get(url).build_streamed() as response:
            reader = response.body_reader
            while (chunk := reader.read_chunk()) is not None:
                if seen(len(chunk)):
                    return

    def upload(self, url: str, path: Path) -> int:
        return int(self._client.put(url).body_bytes(path.read_bytes()).build().send().status)

    def close(self) -> None:
        self._client.close()


@dataclass(frozen=True, slots=True)
class Kind:
    """A client that can be measured. Immutable. ``package`` is the distribution, ``module`` what is imported."""

    package: str
    module: str
    open: Opener

    @property
    def missing(self) -> str:
        """Why it cannot be measured; empty where it can."""
        if not is_installed(self.module):
            return "not installed"
        if self.package in ("urllib3", "requests") and is_shadowed():
            return "urllib3-future, which niquests needs, stands in the place of urllib3 (see docs/performance.md)"
        return ""


def is_shadowed() -> bool:
    """Whether what is imported as urllib3 is urllib3-future, which overwrites it unless it is told not to."""
    spec = importlib.util.find_spec("urllib3")
    return spec is not None and spec.origin is not None and (Path(spec.origin).parent / "backend").is_dir()


KINDS: dict[str, Kind] = {
    "hyperpool": Kind("hyperpool", "hyperpool", Hyperpool),
    "hyperpool-aio": Kind("hyperpool", "hyperpool", bench_async.HyperpoolAio),
    "httpcore": Kind("httpcore", "httpcore", Httpcore),
    "httpx": Kind("httpx", "httpx", Httpx),
    "httpx-async": Kind("httpx", "httpx", bench_async.HttpxAsync),
    "urllib3": Kind("urllib3", "urllib3", Urllib3),
    "requests": Kind("requests", "requests", Requests),
    "niquests": Kind("niquests", "niquests", Niquests),
    "aiohttp": Kind("aiohttp", "aiohttp", bench_async.Aiohttp),
    "pycurl": Kind("pycurl", "pycurl", Pycurl),
    "pycurl-multi": Kind("pycurl", "pycurl", PycurlMulti),
    "primp": Kind("primp", "primp", Primp),
    "primp-async": Kind("primp", "primp", bench_async.PrimpAsync),
    "pyreqwest": Kind("pyreqwest", "pyreqwest.client", Pyreqwest),
    "pyreqwest-async": Kind("pyreqwest", "pyreqwest.client", bench_async.PyreqwestAsync),
}
