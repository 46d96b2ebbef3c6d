"""One client for the whole process, and the functions that use it: ``hyperpool.get(url)`` from any thread.

They are the methods of the same names of one `Client` with all its defaults, which is made on first use.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from hyperpool.client import Client
from hyperpool.handoff.forks import in_child

if TYPE_CHECKING:
    from hyperpool.handoff.futures import ResponseFuture
    from hyperpool.handoff.response import Response
    from hyperpool.policy.download import Download

_client: Client | None = None
_lock = threading.RLock()


@in_child
def _renew_lock_in_child() -> None:
    global _lock
    _lock = threading.RLock()  # another thread may have held it when the process forked


def default_client() -> Client:
    """The process-wide client; made on first use, and anew after it was closed."""
    global _client
    known = _client
    if known is not None and not known.pool.closed:
        return known
    with _lock:
        # Another thread may have been here meanwhile; whose client it replaced is closed, or is none.
        if _client is known:
            _client = Client()
        assert _client is not None
        return _client


def request(method: str, url: str, **options: Any) -> Response:
    """`Client.request` of the process-wide client."""
    return default_client().request(method, url, **options)


def submit(method: str, url: str, **options: Any) -> ResponseFuture:
    """`Client.submit` of the process-wide client."""
    return default_client().submit(method, url, **options)


def stream(method: str, url: str, **options: Any) -> AbstractContextManager[Response]:
    """`Client.stream` of the process-wide client."""
    return default_client().stream(method, url, **options)


def download(url: str, path: str | os.PathLike[str], **options: Any) -> Download:
    """`Client.download` of the process-wide client."""
    return default_client().download(url, path, **options)


def upload(url: str, file: Any, **options: Any) -> Response:
    """`Client.upload` of the process-wide client."""
    return default_client().upload(url, file, **options)


def map(requests: Iterable[Any], **options: Any) -> Iterator[Response]:
    """`Client.map` of the process-wide client."""
    return default_client().map(requests, **options)


def get(url: str, **options: Any) -> Response:
    """`Client.get` of the process-wide client."""
    return default_client().get(url, **options)


def head(url: str, **options: Any) -> Response:
    """`Client.head` of the process-wide client."""
    return default_client().head(url, **options)


def options(url: str, **options: Any) -> Response:
    """`Client.options` of the process-wide client."""
    return default_client().options(url, **options)


def post(url: str, **options: Any) -> Response:
    """`Client.post` of the process-wide client."""
    return default_client().post(url, **options)


def put(url: str, **options: Any) -> Response:
    """`Client.put` of the process-wide client."""
    return default_client().put(url, **options)


def patch(url: str, **options: Any) -> Response:
    """`Client.patch` of the process-wide client."""
    return default_client().patch(url, **options)


def delete(url: str, **options: Any) -> Response:
    """`Client.delete` of the process-wide client."""
    return default_client().delete(url, **options)


def query(url: str, **options: Any) -> Response:
    """`Client.query` of the process-wide client."""
    return default_client().query(url, **options)
