"""The successor of a connection that was retired for its age goes where the name points by then."""

from __future__ import annotations

import queue
import socket
import time
from typing import Any

from hyperpool.engine.dialler import DialThreads
from hyperpool.engine.resolve import Resolver
from hyperpool.engine.trust import TlsConfig
from hyperpool.urls import parse_url
from hyperpool.values import Limits, Route, TlsSettings

WAIT_S = 45.0  # a bound for broken code only


def test_a_dial_after_the_answers_time_asks_the_name_service_anew_and_goes_to_the_new_address() -> None:
    now = 0.0
    with socket.create_server(("127.0.0.1", 0)) as old, socket.create_server(("127.0.0.1", 0)) as new:
        pointed_to = old
        asked: list[str] = []

        def getaddrinfo(host: str, *_: Any, **__: Any) -> Any:
            asked.append(host)
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", pointed_to.getsockname())]

        ttl_s = Limits().dns_ttl_s
        resolver = Resolver(ttl_s=ttl_s, getaddrinfo=getaddrinfo, clock=lambda: now)
        settings = TlsSettings()
        route = Route(parse_url("http://moves.test").origin, settings)
        dialer = DialThreads(route, tls_config=TlsConfig(settings), resolver=resolver)
        delivered: queue.Queue[Any] = queue.Queue()

        def dial_to() -> Any:
            dialer.start(delivered.put, deadline_at=time.monotonic() + WAIT_S)
            dialed = delivered.get(timeout=WAIT_S).dialed
            try:
                return dialed.sock.getpeername()
            finally:
                dialed.close()

        assert dial_to() == old.getsockname()
        pointed_to = new
        assert dial_to() == old.getsockname()  # one of many, opened together with the first: no new question
        now += ttl_s
        assert dial_to() == new.getsockname()
        assert asked == ["moves.test"] * 2
        assert Limits().max_age_s > ttl_s  # so that the successor of an aged connection always asks
