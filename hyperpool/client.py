"""Client: what a program holds. One object for the whole process, shared by all of its threads.

It turns what callers write (a URL, parameters, JSON, a timeout in seconds) into a `Request`, gives that to the pool,
and waits where the caller wants to wait. Nothing here knows a socket or a protocol.
"""

from __future__ import annotations

import json as json_module
import queue
import re
import sys
import urllib.parse
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Union

from hyperpool._version import __version__
from hyperpool.errors import InvalidURL, LocalProtocolError
from hyperpool.handoff.loop_thread import refuse_on_loop_thread
from hyperpool.pool import ConnectionPool
from hyperpool.protocol.content import accept_encoding
from hyperpool.proxies import ProxyLike
from hyperpool.values import HeadersLike, Limits, Request, Timeout, TimeoutLike, as_timeout

if TYPE_CHECKING:
    from hyperpool.handoff.exchange import ResponseFuture
    from hyperpool.handoff.response import Response

Params = Union[Mapping[str, Any], Sequence["tuple[str, Any]"], str, None]
Headers = tuple[tuple[str, str], ...]


class _NotGiven:
    def __repr__(self) -> str:
        return "<the client's>"


NOT_GIVEN: Any = _NotGiven()

_ABSOLUTE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://").match  # RFC 3986 3.1


class Client:
    """An HTTP client to be shared by all threads of a process.

    Shared; immutable after its making, but for the pool, which guards itself. HTTP/2 where the server speaks it,
    HTTP/1.1 where it does not. Close it with `close` or a with block; making one opens nothing.

    base_url: put before relative URLs. headers: sent with every request, where a call does not give its own. params:
        likewise, by their names.
    verify: True (certifi, or SSL_CERT_FILE / SSL_CERT_DIR where ``trust_env``), "system", a CA file or folder, PEM
        bytes, an ``ssl.SSLContext``, an ``OpenSSL.SSL.Context``, or False.
    cert: path or PEM bytes of certificate and key, (cert, key), or (cert, key, password).
    http1, http2: which versions may be spoken; http1=False means HTTP/2 with prior knowledge on ``http://``.
    proxy: URL of a proxy (http, https, socks5, socks5h) or a `Proxy`; or a mapping by "https", "all" or
        "https://host"; else, where ``trust_env``, HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY, read once by the
        first request.
    timeout: `Timeout`, seconds (the total), (connect, read), or None for none.
    limits: `Limits`. pool: a `ConnectionPool` shared with other clients; what says how to connect is its then.
    """

    def __init__(
        self,
        *,
        base_url: str = "",
        headers: HeadersLike = None,
        params: Params = None,
        verify: Any = True,
        cert: Any = None,
        http1: bool = True,
        http2: bool = True,
        proxy: ProxyLike = None,
        trust_env: bool = True,
        timeout: TimeoutLike = NOT_GIVEN,
        limits: Limits | None = None,
        pool: ConnectionPool | None = None,
    ) -> None:
        self.base_url = base_url
        self.params = params
        self.timeout = Timeout() if timeout is NOT_GIVEN else as_timeout(timeout)
        self.headers = _merged(_default_headers(), headers)
        self._owns_pool = pool is None
        self.pool = pool or ConnectionPool(
            limits=limits, verify=verify, cert=cert, http1=http1, http2=http2, proxy=proxy, trust_env=trust_env
        )
        own = (verify, cert, http1, http2, proxy, trust_env, limits)
        if pool is not None and own != (True, None, True, True, None, True, None):
            raise ValueError(
                "verify, cert, http1, http2, proxy, trust_env and limits are the pool's: give them to that"
            )

    # -- requests --------------------------------------------------------------------------------------------------

    def request(self, method: str, url: str, **options: Any) -> Response:
        """Send a request and wait for the whole response. Blocks.

        ``options``: params, headers, content (bytes, str, binary file, iterable of bytes), data (form fields, or like
        content), json, timeout. Raises a `HyperpoolError`; a status of 4xx or 5xx is no error here.
        """
        return _wait(self.submit(method, url, **options))

    def get(self, url: str, **options: Any) -> Response:
        """`request` with GET (RFC 9110 9.3.1)."""
        return self.request("GET", url, **options)

    def head(self, url: str, **options: Any) -> Response:
        """`request` with HEAD (RFC 9110 9.3.2)."""
        return self.request("HEAD", url, **options)

    def options(self, url: str, **options: Any) -> Response:
        """`request` with OPTIONS (RFC 9110 9.3.7)."""
        return self.request("OPTIONS", url, **options)

    def post(self, url: str, **options: Any) -> Response:
        """`request` with POST (RFC 9110 9.3.3)."""
        return self.request("POST", url, **options)

    def put(self, url: str, **options: Any) -> Response:
        """`request` with PUT (RFC 9110 9.3.4)."""
        return self.request("PUT", url, **options)

    def patch(self, url: str, **options: Any) -> Response:
        """`request` with PATCH (RFC 5789)."""
        return self.request("PATCH", url, **options)

    def delete(self, url: str, **options: Any) -> Response:
        """`request` with DELETE (RFC 9110 9.3.5)."""
        return self.request("DELETE", url, **options)

    def query(self, url: str, **options: Any) -> Response:
        """`request` with QUERY (draft-ietf-httpbis-safe-method-w-body)."""
        return self.request("QUERY", url, **options)

    def submit(
        self,
        method: str,
        url: str,
        *,
        stream: bool = False,
        params: Params = None,
        headers: HeadersLike = None,
        content: Any = None,
        data: Any = None,
        json: Any = None,
        timeout: TimeoutLike = NOT_GIVEN,
    ) -> ResponseFuture:
        """Send a request; a ``concurrent.futures.Future`` of its `Response`. Never blocks on the network.

        It resolves when the whole body is here, or, with ``stream``, when the head is: read that response to its end
        or close it. `Future.cancel` works until then and reaches the wire. Done-callbacks run on the I/O thread and
        must not block. Raises at once what the caller can mend: InvalidURL, LocalProtocolError, PoolClosed, and
        PoolFull for one origin too many.
        """
        content, content_type = _body(content, data, json)
        request = Request(
            _verb(method),
            self._url(url, params),
            self._headers(headers, content_type),
            content,
            self.timeout if timeout is NOT_GIVEN else as_timeout(timeout),
        )
        return self.pool.submit(request, stream=stream, made_at=_caller() if stream else "")

    @contextmanager
    def stream(self, method: str, url: str, **options: Any) -> Iterator[Response]:
        """A response whose body is read as it comes; closed at the end of the with block, wherever that is reached."""
        with _wait(self.submit(method, url, stream=True, **options)) as response:
            yield response

    def map(
        self, requests: Iterable[Any], *, max_in_flight: int = 100, ordered: bool = False, **options: Any
    ) -> Iterator[Response]:
        """The responses to many requests, at most ``max_in_flight`` of them under way at a time.

        ``requests`` is read as slots come free: URLs (GET), or (method, url) or (method, url, options) tuples;
        ``options`` are for all. In order of completion, or of input where ``ordered``. Blocks for each response; raises
        the error of the first that failed. Leaving the iteration early cancels what is under way.
        """
        refuse_on_loop_thread("Client.map()")
        if max_in_flight < 1:
            raise ValueError(f"max_in_flight must be 1 or more, not {max_in_flight}")
        submitted = (self._submit_entry(entry, options) for entry in requests)
        return _in_order(submitted, max_in_flight) if ordered else _as_completed(submitted, max_in_flight)

    def _submit_entry(self, entry: Any, options: dict[str, Any]) -> ResponseFuture:
        if isinstance(entry, str):
            return self.submit("GET", entry, **options)
        method, url, *own = entry
        return self.submit(method, url, **{**options, **(own[0] if own else {})})

    # -- what a request is made of ---------------------------------------------------------------------------------

    def _url(self, url: str, params: Params) -> str:
        if not isinstance(url, str):
            raise InvalidURL(f"a URL must be str, not {type(url).__name__}")
        if self.base_url and not _ABSOLUTE(url):
            url = f"{self.base_url.rstrip('/')}/{url.lstrip('/')}"
        named = {name for name, _ in _pairs(params)}
        own = self.params
        if not isinstance(own, str):
            own = [pair for pair in _pairs(own) if pair[0] not in named]
        return _with_query(_with_query(url, own), params)

    def _headers(self, own: HeadersLike, content_type: str | None) -> Headers:
        if not own and content_type is None:
            return self.headers
        headers = _merged(self.headers, own)
        if content_type is not None and not any(name.lower() == "content-type" for name, _ in headers):
            headers += (("Content-Type", content_type),)
        return headers

    # -- its end ---------------------------------------------------------------------------------------------------

    def close(self, *, grace_s: float = 1.0) -> None:
        """Close the client's own pool; a shared one stays. See `ConnectionPool.close`."""
        if self._owns_pool:
            self.pool.close(grace_s=grace_s)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Client {self.pool!r}>"


def _wait(future: ResponseFuture) -> Response:
    try:
        return future.result()
    except BaseException:
        # Ctrl-C and the like while waiting: nobody will take the response, so its slot must be free (RFC 9113 8.1.1).
        if not future.done():
            future.cancel()
        raise


def _verb(method: str) -> str:
    if not isinstance(method, str):
        raise LocalProtocolError(f"the method must be str, not {type(method).__name__}")
    # ASCII alone: the upper case of "\u0131" is "I", and what is no token must not become one here.
    return method.upper() if method.isascii() else method


def _default_headers() -> Headers:
    return (
        ("User-Agent", f"hyperpool/{__version__}"),
        ("Accept", "*/*"),
        ("Accept-Encoding", accept_encoding()),
    )


def _merged(under: Headers, over: HeadersLike) -> Headers:
    """Header fields of both; a name in ``over`` replaces that name in ``under``, and None as its value removes it."""
    if not over:
        return under
    given = list(over.items()) if isinstance(over, Mapping) else list(over)
    pairs = [(_text(name), value) for name, value in given]
    named = {name.lower() for name, _ in pairs}
    kept = tuple(pair for pair in under if pair[0].lower() not in named)
    return kept + tuple((name, _text(value)) for name, value in pairs if value is not None)


def _text(given: Any) -> str:
    if isinstance(given, bytes):
        return given.decode("latin-1")
    if isinstance(given, (str, int)) and not isinstance(given, bool):
        return str(given)
    raise LocalProtocolError(f"a header name or value must be str or bytes, not {given!r}")


def _pairs(params: Params) -> list[tuple[str, Any]]:
    """Query parameters as pairs, in their order; those of a ready query string stay in it."""
    if isinstance(params, str):
        return []
    pairs = params.items() if isinstance(params, Mapping) else params or ()
    return [(name, value) for name, value in pairs if value is not None]


def _with_query(url: str, params: Params) -> str:
    query = params if isinstance(params, str) else urllib.parse.urlencode(_pairs(params), doseq=True)
    if not query:
        return url
    bare, hash_mark, fragment = url.partition("#")
    separator = "&" if "?" in bare else "?"
    return f"{bare}{separator}{query}{hash_mark}{fragment}"


def _body(content: Any, data: Any, json: Any) -> tuple[Any, str | None]:
    """The content to send and the type to declare for it."""
    if sum(given is not None for given in (content, data, json)) > 1:
        raise LocalProtocolError("give one of content, data and json, not several")
    if json is not None:
        return json_module.dumps(json, separators=(",", ":"), allow_nan=False).encode(), "application/json"
    if isinstance(data, Mapping) or (isinstance(data, (list, tuple)) and all(isinstance(one, tuple) for one in data)):
        return urllib.parse.urlencode(data, doseq=True).encode(), "application/x-www-form-urlencoded"
    return (data, None) if content is None else (content, None)


def _caller() -> str:
    """Where the program asked for this: the nearest frame outside hyperpool."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith(("hyperpool.", "contextlib")):
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"


def _in_order(submitted: Iterator[ResponseFuture], max_in_flight: int) -> Iterator[Response]:
    window: list[ResponseFuture] = []
    try:
        for future in submitted:
            window.append(future)
            if len(window) >= max_in_flight:
                yield _take_first(window)
        while window:
            yield _take_first(window)
    finally:
        for future in window:
            future.cancel()


def _take_first(window: list[ResponseFuture]) -> Response:
    response = window[0].result()
    del window[0]  # not before: Ctrl-C while waiting must find it, to cancel it with the others
    return response


def _as_completed(submitted: Iterator[ResponseFuture], max_in_flight: int) -> Iterator[Response]:
    done: queue.SimpleQueue[Any] = queue.SimpleQueue()
    under_way: set[Any] = set()
    try:
        for future in submitted:
            under_way.add(future)
            future.add_done_callback(done.put)
            if len(under_way) >= max_in_flight:
                yield _take_done(done, under_way)
        while under_way:
            yield _take_done(done, under_way)
    finally:
        for future in under_way:
            future.cancel()


def _take_done(done: queue.SimpleQueue[Any], under_way: set[Any]) -> Response:
    future = done.get()
    under_way.discard(future)
    response: Response = future.result()
    return response
