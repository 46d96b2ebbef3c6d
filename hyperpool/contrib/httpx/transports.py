"""The transports: one for threads, one for event loops, over the same pool where they are given the same one."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import httpx

from hyperpool.aio.client import ready
from hyperpool.aio.uploads import AsyncSource, declared_bytes
from hyperpool.aio.waiting import Turns, outcome_of, take
from hyperpool.contrib.httpx import sending
from hyperpool.contrib.httpx.errors import as_httpx_raises, may_try_again
from hyperpool.contrib.httpx.sending import LimitsLike, ProxyLike
from hyperpool.errors import HyperpoolError
from hyperpool.handoff.response import Response
from hyperpool.pool import ConnectionPool
from hyperpool.urls import Origin
from hyperpool.values import Request, Route, TlsSettings, as_socket_options

# Seconds before the second of ``retries``, which double with each further one; before the first there is none.
_BACKOFF_S = 0.5

# Settings for ``sni_hostname`` that are remembered: each comes to hold a CA bundle, about 1 MB.
_REMEMBERED = 64


class Transport:
    """What both transports are made of: a pool, and the way to it.

    Shared; single dictionary operations only, so it needs no lock.

    verify, cert, http1, http2: as in `hyperpool.Client`. trust_env: whether SSL_CERT_FILE and SSL_CERT_DIR count; the
        environment's proxies do not, as with httpx's own transports.
    uds: the path of a Unix socket. local_address: the IP address to connect from. socket_options: as httpx has them.
    limits: ``httpx.Limits`` or `hyperpool.Limits`. proxy: a URL, an ``httpx.Proxy``, or a `hyperpool.values.Proxy`.
    retries: how often a connection that cannot be made is tried again; what may have been sent never is.
    pool: a `ConnectionPool` to use, which stays open after `close`; what says how to connect is its own then.
    """

    def __init__(
        self,
        verify: Any = True,
        cert: Any = None,
        *,
        trust_env: bool = True,
        http1: bool = True,
        http2: bool = True,
        limits: LimitsLike = None,
        proxy: ProxyLike = None,
        uds: str | None = None,
        local_address: str | None = None,
        socket_options: Any = None,
        retries: int = 0,
        pool: ConnectionPool | None = None,
    ) -> None:
        own = (verify, cert, trust_env, http1, http2, limits, proxy, uds, local_address, socket_options)
        if pool is not None and own != (*(True, None, True, True, True), *(None,) * 5):
            raise ValueError("what says how to connect is the pool's own: give it to that")
        self._make_pool = functools.partial(
            ConnectionPool,
            limits=sending.as_limits(limits),
            verify=verify,
            cert=cert,
            http1=http1,
            http2=http2,
            # httpx lets the socket go before the proxy.
            proxy={"all": sending.as_proxy(proxy)} if uds is None else None,
            trust_env=trust_env,
            uds=uds,
            source_address=local_address,
        )
        self._owns_pool = pool is None
        self._pool = pool or self._make_pool()
        options = as_socket_options(socket_options)
        self._way: dict[str, Any] = {"socket_options": options} if options else {}
        self._retries = retries
        self._special_tls: dict[tuple[TlsSettings, str], TlsSettings] = {}

    @property
    def pool(self) -> ConnectionPool:
        """The `ConnectionPool` that carries the requests."""
        return self._pool

    def _asked(self, request: httpx.Request, content: Any) -> tuple[Request, dict[str, Any]]:
        """What the pool is asked for: the response at its head, which may be forgotten: httpx closes what it gives."""
        origin = sending.origin_of(request.url)
        how = {"stream": True, "made_at": None, "route": self._route(origin, request.extensions)}
        return sending.as_request(request, origin, content), how

    def _route(self, origin: Origin, extensions: Any) -> Route:
        route, name = self._pool.route(origin, **self._way), extensions.get("sni_hostname")
        if not name or origin.scheme == "http" or name == origin.host:
            return route
        return dataclasses.replace(route, tls=self._tls_for(route.tls, name))

    def _tls_for(self, tls: TlsSettings, name: str) -> TlsSettings:
        """The same object for the same name: connections are shared by the equality of their settings."""
        found = self._special_tls.get((tls, name))
        if found is None:
            if len(self._special_tls) >= _REMEMBERED:
                self._special_tls.clear()
            found = self._special_tls.setdefault((tls, name), sending.with_server_name(tls, name))
        return found

    def _delay_s(self, error: HyperpoolError, attempts: int) -> float | None:
        """Seconds to wait before the next attempt to connect; None where there is none."""
        if attempts > self._retries or not may_try_again(error):
            return None
        return 0.0 if attempts == 1 else _BACKOFF_S * 2 ** (attempts - 2)

    def _give_up_pool(self) -> Callable[[], None]:
        """What closes the pool, unless it was given.

        A new one takes its place: one ``httpx.Client`` after another can use the same transport of httpx.
        """
        if not self._owns_pool:
            return lambda: None
        pool, self._pool = self._pool, self._make_pool()
        return pool.close

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._pool!r}>"


def _as_httpx(response: Response, stream: Any, trailers: list[tuple[bytes, bytes]]) -> httpx.Response:
    extensions: dict[str, Any] = {
        "http_version": response.http_version.encode("ascii"),
        # Empty until the body has been read to its end.
        "trailing_headers": trailers,
    }
    if response.stream_id is None:
        extensions["reason_phrase"] = response.reason.encode("latin-1")
    else:
        extensions["stream_id"] = response.stream_id
    return httpx.Response(response.status_code, headers=list(response.raw_fields), stream=stream, extensions=extensions)


class _Body:
    """What the bodies of both kinds of response share. Owned by its one reader."""

    def __init__(self, response: Response, request: httpx.Request) -> None:
        self._response = response
        self._request = request
        self.trailers: list[tuple[bytes, bytes]] = []

    def _note_trailers(self) -> None:
        fields = self._response.trailers.iteritems()
        self.trailers[:] = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in fields]


# -- for threads -------------------------------------------------------------------------------------------------------


class HyperpoolTransport(Transport, httpx.BaseTransport):
    """A transport for ``httpx.Client``: any number of threads, one HTTP/2 connection to each origin.

    Shared by threads; close it with `close`, or with the client. What it is made with: see `Transport`.
    """

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request; its response at the head. Blocks. Raises httpx's own exceptions."""
        try:
            response = self._answer(request)
        except HyperpoolError as error:
            raise as_httpx_raises(error, request) from error
        body = Body(response, request)
        return _as_httpx(response, body, body.trailers)

    def _answer(self, request: httpx.Request) -> Response:
        attempts = 0
        while True:
            attempts += 1
            try:
                asked, how = self._asked(request, _content(request))
                return self._pool.fetch(asked, **how)
            except HyperpoolError as error:
                delay_s = self._delay_s(error, attempts)
                if delay_s is None:
                    raise
            time.sleep(delay_s)

    def close(self) -> None:
        """Close the connections and join their threads; a pool that was given is left alone."""
        self._give_up_pool()()


def _content(request: httpx.Request) -> Any:
    whole = sending.whole_body(request)
    # An iterator, for the same reason as below.
    return iter(request.stream) if whole is None else whole or None  # type: ignore[arg-type]


class Body(_Body, httpx.SyncByteStream):
    """A response body, as it comes from the wire.

    Owned by one reader; `close` may be called by any thread.
    """

    def __iter__(self) -> Iterator[bytes]:
        try:
            yield from self._response.iter_raw()
        except HyperpoolError as error:
            raise as_httpx_raises(error, self._request) from error
        self._note_trailers()

    def close(self) -> None:
        """Let the body go; where it was not read to its end, the stream is reset. Never blocks."""
        self._response.close()


# -- for event loops ---------------------------------------------------------------------------------------------------


class AsyncHyperpoolTransport(Transport, httpx.AsyncBaseTransport):
    """A transport for ``httpx.AsyncClient`` in asyncio programs: any number of tasks and event loops.

    Shared by threads; close it with `aclose`, or with the client. What it is made with: see `Transport`.
    """

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request; its response at the head. Cancelling the task cancels it on the wire."""
        await ready()
        whole, source = sending.whole_body(request), None
        if whole is None:
            # An iterator is sent once: what a stream of httpx would do a second time is its own secret.
            length_bytes = declared_bytes(request.headers.multi_items())
            source = AsyncSource(aiter(request.stream), length_bytes=length_bytes)  # type: ignore[arg-type]
        try:
            response = await self._answer(request, source or whole or None)
        except BaseException as error:
            await _ended(source)
            if isinstance(error, HyperpoolError):
                raise as_httpx_raises(error, request) from error
            raise
        body = AsyncBody(response, request, source)
        return _as_httpx(response, body, body.trailers)

    async def _answer(self, request: httpx.Request, content: Any) -> Response:
        attempts = 0
        while True:
            attempts += 1
            try:
                asked, how = self._asked(request, content)
                return await outcome_of(self._pool.submit(asked, **how))
            except HyperpoolError as error:
                delay_s = self._delay_s(error, attempts)
                if delay_s is None:
                    raise
            await asyncio.sleep(delay_s)

    async def aclose(self) -> None:
        """Close the connections, while other tasks go on; a pool that was given is left alone."""
        await asyncio.to_thread(self._give_up_pool())  # it joins threads


class AsyncBody(_Body, httpx.AsyncByteStream):
    """A response body, as it comes from the wire.

    Owned by one reading task.
    """

    def __init__(self, response: Response, request: httpx.Request, source: AsyncSource | None) -> None:
        super().__init__(response, request)
        self._source = source

    async def __aiter__(self) -> AsyncIterator[bytes]:
        pipe, turns = self._response.pipe, Turns()
        assert pipe is not None, "a transport's responses are streamed"
        try:
            while piece := await take(pipe):
                yield piece
                await turns.after(len(piece))
        except HyperpoolError as error:
            raise as_httpx_raises(error, self._request) from error
        self._note_trailers()

    async def aclose(self) -> None:
        """Let the body go; where it was not read to its end, the stream is reset."""
        self._response.close()
        await _ended(self._source)


async def _ended(source: AsyncSource | None) -> None:
    if source is not None:
        await source.end()
