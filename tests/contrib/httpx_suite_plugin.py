"""pytest plugin for a run of httpx's own tests: clients that make a transport of httpx's own get ours instead.

Its mock, WSGI and ASGI transports stay: they never reach a network.
"""

from __future__ import annotations

import itertools
from typing import Any

import httpx
import pytest

from hyperpool.contrib.httpx import AsyncHyperpoolTransport, HyperpoolTransport

_sends = itertools.count()


class _Transport(HyperpoolTransport, httpx.HTTPTransport):
    def __init__(self, *args: Any, **options: Any) -> None:
        HyperpoolTransport.__init__(self, *args, **options)

    __enter__ = httpx.BaseTransport.__enter__
    __exit__ = httpx.BaseTransport.__exit__

    def _asked(self, request: httpx.Request, content: Any) -> Any:
        next(_sends)
        return super()._asked(request, content)


class _AsyncTransport(AsyncHyperpoolTransport, httpx.AsyncHTTPTransport):
    def __init__(self, *args: Any, **options: Any) -> None:
        AsyncHyperpoolTransport.__init__(self, *args, **options)

    __aenter__ = httpx.AsyncBaseTransport.__aenter__
    __aexit__ = httpx.AsyncBaseTransport.__aexit__

    def _asked(self, request: httpx.Request, content: Any) -> Any:
        next(_sends)
        return super()._asked(request, content)


_client: Any = httpx._client
httpx.HTTPTransport = _client.HTTPTransport = _Transport  # type: ignore[misc]
httpx.AsyncHTTPTransport = _client.AsyncHTTPTransport = _AsyncTransport  # type: ignore[misc]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    terminalreporter.write_line(f"carried by HyperpoolTransport: {next(_sends)}")
