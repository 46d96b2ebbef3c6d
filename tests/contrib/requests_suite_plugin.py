"""pytest plugin for a run of requests' own tests: every Session mounts HTTP20Adapter, for https:// and http://.

Sessions that a test makes by themselves, and those that ``requests.get`` makes, are meant alike. Host names of the open
network lead to this machine: no test leaves it.
"""

from __future__ import annotations

import itertools
import socket
from typing import Any

import pytest
import requests

from hyperpool.contrib import HTTP20Adapter

# What requests' tests look up, to find that something else refuses them first.
_PUBLIC_HOSTS = ("httpbin.org", "example.com", "www.example.com")

_sends = itertools.count()
_make_session, _send, _look_up = requests.Session.__init__, HTTP20Adapter.send, socket.getaddrinfo


def _make_session_over_hyperpool(self: Any, *args: Any, **options: Any) -> None:
    _make_session(self, *args, **options)
    self.mount("https://", HTTP20Adapter())
    self.mount("http://", HTTP20Adapter())


def _count_and_send(self: Any, *args: Any, **options: Any) -> Any:
    next(_sends)
    return _send(self, *args, **options)


def _look_up_here(host: Any, *args: Any, **options: Any) -> Any:
    return _look_up("127.0.0.1" if host in _PUBLIC_HOSTS else host, *args, **options)


requests.Session.__init__ = _make_session_over_hyperpool  # type: ignore[method-assign]
HTTP20Adapter.send = _count_and_send  # type: ignore[method-assign]
socket.getaddrinfo = _look_up_here


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    terminalreporter.write_line(f"carried by HTTP20Adapter: {next(_sends)}")
