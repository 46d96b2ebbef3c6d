"""The clients of the benchmark that are written in Python, each used as its documentation says that threads share it.

`Peer` says what a scenario may ask of a client; what a client cannot do, it has no method for. No client retries, reads
the environment, or is spared checking the server's certificate. Further ones: `bench_peers`, `bench_async`.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import queue
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

# What a download is read in, where the reader may choose.
CHUNK_BYTES = 65_536
# Of each request, where the client takes such a number; httpx's own 5 s would be errors on a busy machine, and where a
# client is stuck, more would only be time lost.
PATIENCE_S = 20.0

# Takes the length of each piece; True: that was enough.
Seen = Callable[[int], bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What a client is opened for. Immutable. ``idle_s`` 0: the client's own."""

    ca_file: str
    h2: bool
    workers: int
    origins: int = 1
    idle_s: float = 0.0
    patience_s: float = PATIENCE_S


class Tally(Protocol):
    """Where those who keep requests in flight by themselves write down how it went."""

    probe_url: str

    @property
    def over(self) -> bool: ...

    def probed(self, length: int) -> None: ...

    def count(self, began_at: float, length: int) -> None: ...

    def fail(self, error: BaseException) -> None: ...


class Peer:
    """A client that is open. Shared by all threads of a scenario; closed by `close`.

    Those with ``get`` are called by threads; those with ``fly`` keep many requests under way from one thread.
    """

    how_flying = ""

    def close(self) -> None:
        """Nothing, for clients that are not closed."""


class Hyperpool(Peer):
    """Ours. Shared."""

    how_flying = "Futures"

    def __init__(self, setting: Setting) -> None:
        import hyperpool

        self._client = hyperpool.Client(
            verify=setting.ca_file,
            http2=setting.h2,
            trust_env=False,
            timeout=hyperpool.Timeout(read=setting.patience_s),
            limits=hyperpool.Limits(idle_s=setting.idle_s) if setting.idle_s else None,
        )

    def get(self, url: str) -> int:
        return len(self._client.get(url).content)

    def download(self, url: str, seen: Seen) -> None:
        with self._client.stream("GET", url) as response:
            _read(response.iter_bytes(), seen)

    def upload(self, url: str, path: Path) -> int:
        with path.open("rb") as file:
            return self._client.put(url, content=file).status_code

    @contextlib.contextmanager
    def hold(self, url: str) -> Iterator[None]:
        with self._client.stream("GET", url):
            yield

    def fly(self, url: str, in_flight: int, tally: Tally) -> None:
        """Futures that put themselves into a queue when they are done."""
        tally.probed(self.get(tally.probe_url or url))
        done: queue.SimpleQueue[Any] = queue.SimpleQueue()
        began_at: dict[Any, float] = {}
        while began_at or not tally.over:
            while len(began_at) < in_flight and not tally.over:
                now = time.monotonic()
                future = self._client.submit("GET", url)
                began_at[future] = now
                future.add_done_callback(done.put)
            if began_at:
                self._settle(done.get(), began_at, tally)

    def _settle(self, future: Any, began_at: dict[Any, float], tally: Tally) -> None:
        if error := future.exception():
            tally.fail(error)
            began_at.pop(future)
        else:
            tally.count(began_at.pop(future), len(future.result().content))

    def close(self) -> None:
        self._client.close()


class Httpcore(Peer):
    """httpx's transport. Shared: its pool is made for threads."""

    def __init__(self, setting: Setting) -> None:
        httpcore = load("httpcore")
        self._pool = httpcore.ConnectionPool(
            ssl_context=trusting(setting),
            http2=setting.h2,
            http1=not setting.h2,
            max_connections=max(100, setting.origins),
        )
        self._patience = {"timeout": dict.fromkeys(("pool", "connect", "read", "write"), setting.patience_s)}

    def get(self, url: str) -> int:
        return len(self._pool.request("GET", url, extensions=self._patience).content)

    def download(self, url: str, seen: Seen) -> None:
        with self._pool.stream("GET", url, extensions=self._patience) as response:
            _read(response.iter_stream(), seen)

    def upload(self, url: str, path: Path) -> int:
        headers = {"Content-Length": str(os.path.getsize(path))}
        with path.open("rb") as file:
            response = self._pool.request("PUT", url, headers=headers, content=pieces(file), extensions=self._patience)
            return int(response.status)

    @contextlib.contextmanager
    def hold(self, url: str) -> Iterator[None]:
        with self._pool.stream("GET", url, extensions=self._patience):
            yield

    def close(self) -> None:
        self._pool.close()


class Httpx(Peer):
    """httpx. Shared: its Client is made for threads."""

    def __init__(self, setting: Setting) -> None:
        httpx = load("httpx")
        count = max(100, setting.origins)
        self._client = httpx.Client(
            verify=trusting(setting),
            http2=setting.h2,
            trust_env=False,
            timeout=setting.patience_s,
            limits=httpx.Limits(max_connections=count, max_keepalive_connections=count, keepalive_expiry=PATIENCE_S),
        )

    def get(self, url: str) -> int:
        return len(self._client.get(url).content)

    def download(self, url: str, seen: Seen) -> None:
        with self._client.stream("GET", url) as response:
            _read(response.iter_bytes(), seen)

    def upload(self, url: str, path: Path) -> int:
        with path.open("rb") as file:
            return int(self._client.put(url, content=file).status_code)

    @contextlib.contextmanager
    def hold(self, url: str) -> Iterator[None]:
        with self._client.stream("GET", url):
            yield

    def close(self) -> None:
        self._client.close()


class Urllib3(Peer):
    """urllib3, which speaks HTTP/1.1. Shared: its PoolManager is made for threads."""

    def __init__(self, setting: Setting) -> None:
        urllib3 = load("urllib3")
        self._pool = urllib3.PoolManager(
            num_pools=setting.origins + 10,
            ca_certs=setting.ca_file,
            maxsize=setting.workers,
            timeout=setting.patience_s,
        )

    def get(self, url: str) -> int:
        return len(self._pool.request("GET", url, retries=False).data)

    def download(self, url: str, seen: Seen) -> None:
        response = self._pool.request("GET", url, retries=False, preload_content=False)
        # Closed and not given back: where it was left early, bytes of this response are still to come.
        with contextlib.closing(response):
            _read(response.stream(CHUNK_BYTES), seen)

    def upload(self, url: str, path: Path) -> int:
        headers = {"Content-Length": str(os.path.getsize(path))}
        with path.open("rb") as file:
            return int(self._pool.request("PUT", url, body=file, headers=headers, retries=False).status)

    @contextlib.contextmanager
    def hold(self, url: str) -> Iterator[None]:
        response = self._pool.request("GET", url, retries=False, preload_content=False)
        with contextlib.closing(response):
            yield

    def close(self) -> None:
        self._pool.clear()


class Requests(Peer):
    """requests, which speaks HTTP/1.1. Shared: its Session is used by many threads, though nobody promises it."""

    def __init__(self, setting: Setting) -> None:
        requests, adapters = load("requests"), load("requests.adapters")
        self._session, self._patience_s = requests.Session(), setting.patience_s
        self._session.verify, self._session.trust_env = setting.ca_file, False
        adapter = adapters.HTTPAdapter(pool_connections=setting.origins + 10, pool_maxsize=setting.workers)
        self._session.mount("https://", adapter)

    def get(self, url: str) -> int:
        return len(self._session.get(url, timeout=self._patience_s).content)

    def download(self, url: str, seen: Seen) -> None:
        with self._session.get(url, timeout=self._patience_s, stream=True) as response:
            _read(response.iter_content(CHUNK_BYTES), seen)

    def upload(self, url: str, path: Path) -> int:
        with path.open("rb") as file:
            return int(self._session.put(url, data=file, timeout=self._patience_s).status_code)

    @contextlib.contextmanager
    def hold(self, url: str) -> Iterator[None]:
        with self._session.get(url, timeout=self._patience_s, stream=True):
            yield

    def close(self) -> None:
        self._session.close()


# -- what all of them need ---------------------------------------------------------------------------------------------


def load(name: str) -> Any:
    """The module of a peer. Not an import statement: none of them need be installed, nor be known to a type checker."""
    return importlib.import_module(name)


def is_installed(module: str) -> bool:
    return importlib.util.find_spec(module.partition(".")[0]) is not None


def trusting(setting: Setting) -> Any:
    """A context of the standard library that trusts the server's authority alone."""
    import ssl

    return ssl.create_default_context(cafile=setting.ca_file)


def pieces(file: Any) -> Iterator[bytes]:
    """A file in pieces, for clients that take an iterable."""
    while piece := file.read(CHUNK_BYTES):
        yield piece


def _read(chunks: Any, seen: Seen) -> None:
    for chunk in chunks:
        if seen(len(chunk)):
            return


Opener = Callable[[Setting], Peer]


@contextlib.contextmanager
def opened(opener: Opener, setting: Setting) -> Iterator[Any]:
    """The client, open; closed at the end."""
    peer = opener(setting)
    try:
        yield peer
    finally:
        peer.close()
