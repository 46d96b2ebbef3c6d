"""Client: what a program holds. One object for the whole process, shared by all of its threads.

It turns what callers write (a URL, parameters, JSON, a timeout in seconds) into a `Request`, and sends that on its
journey: `policy.journey` decides what follows from a response, `policy.escort` who waits for it. Nothing here knows a
socket or a protocol.
"""

from __future__ import annotations

import dataclasses
import os
import sys
import threading
import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from hyperpool.handoff.loop_thread import refuse_on_loop_thread
from hyperpool.handoff.source import Source, make_source
from hyperpool.policy import auth as auths
from hyperpool.policy import writing
from hyperpool.policy.auth import AuthLike, Netrc
from hyperpool.policy.cookies import Cookies, CookiesLike, of_a_call
from hyperpool.policy.courier import Courier
from hyperpool.policy.defaults import DefaultHeaders
from hyperpool.policy.escort import Escort, carry_out
from hyperpool.policy.flights import as_completed, in_order
from hyperpool.policy.journey import Company, Journey, Plan
from hyperpool.policy.multipart import Multipart
from hyperpool.policy.retries import Retries, RetriesLike, RetryBudget, as_retry
from hyperpool.policy.writing import Params
from hyperpool.pool import ConnectionPool
from hyperpool.proxies import ProxyLike
from hyperpool.values import HeadersLike, Limits, Request, Timeout, TimeoutLike, as_timeout, parse_url, without_userinfo

if TYPE_CHECKING:
    from hyperpool.handoff.exchange import ResponseFuture
    from hyperpool.handoff.response import Response


class _NotGiven:
    def __repr__(self) -> str:
        return "<the client's>"


NOT_GIVEN: Any = _NotGiven()

_clients: weakref.WeakValueDictionary[int, Client] = weakref.WeakValueDictionary()


class Client:
    """An HTTP client to be shared by all threads of a process.

    Shared; what can be changed guards itself. HTTP/2 where the server speaks it, HTTP/1.1 where it does not. Close it
    with `close` or a with block; making one opens nothing.

    base_url: put before relative URLs. headers: sent with every request, where a call does not give its own. params:
        likewise, by their names. cookies: a mapping, or a ``http.cookiejar.CookieJar``, which is used itself.
    auth: (user, password), or a callable that takes the `Request` and returns it with what proves who asks; for every
        origin that the program itself asks for. Else a user in the URL counts; else, where ``trust_env``, netrc.
    verify: True (certifi, or SSL_CERT_FILE / SSL_CERT_DIR where ``trust_env``), "system", a CA file or folder, PEM
        bytes, an ``ssl.SSLContext``, an ``OpenSSL.SSL.Context``, or False.
    cert: path or PEM bytes of certificate and key, (cert, key), or (cert, key, password).
    http1, http2: which versions may be spoken; http1=False means HTTP/2 with prior knowledge on ``http://``.
    proxy: URL of a proxy (http, https, socks5, socks5h) or a `Proxy`; or a mapping by "https", "all" or
        "https://host"; else, where ``trust_env``, HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY, read once by the
        first request.
    timeout: `Timeout`, seconds (the total, for all redirects and retries together), (connect, read), or None for none.
    retries: how often a request may be sent again, or a ``urllib3.util.Retry``; further bounded, for each origin, by a
        budget of a tenth of its requests.
    follow_redirects, max_redirects: 301, 302, 303, 307 and 308; one more than the maximum raises TooManyRedirects.
    limits: `Limits`. pool: a `ConnectionPool` shared with other clients; what says how to connect is its then.
    """

    def __init__(
        self,
        *,
        base_url: str = "",
        headers: HeadersLike = None,
        params: Params = None,
        cookies: CookiesLike = None,
        auth: AuthLike = None,
        verify: Any = True,
        cert: Any = None,
        http1: bool = True,
        http2: bool = True,
        proxy: ProxyLike = None,
        trust_env: bool = True,
        timeout: TimeoutLike = NOT_GIVEN,
        limits: Limits | None = None,
        retries: RetriesLike = 0,
        follow_redirects: bool = True,
        max_redirects: int = 20,
        pool: ConnectionPool | None = None,
    ) -> None:
        self.base_url = base_url
        self.params = params
        self.auth = auths.as_auth(auth)
        self.timeout = Timeout() if timeout is NOT_GIVEN else as_timeout(timeout)
        self.retries = as_retry(retries)
        self.follow_redirects = follow_redirects
        self._headers = DefaultHeaders(headers)
        self._cookies = Cookies(cookies)
        self._owns_pool = pool is None
        own = (verify, cert, http1, http2, proxy, trust_env, limits)
        if pool is not None and own != (True, None, True, True, None, True, None):
            raise ValueError(
                "verify, cert, http1, http2, proxy, trust_env and limits are the pool's: give them to that"
            )
        self.pool = pool or ConnectionPool(
            limits=limits, verify=verify, cert=cert, http1=http1, http2=http2, proxy=proxy, trust_env=trust_env
        )
        netrc = Netrc() if trust_env else None
        self._company = Company(self.pool, Courier(), RetryBudget(), netrc, max_redirects, threading.Event())
        _clients[id(self)] = self

    @property
    def headers(self) -> DefaultHeaders:
        """The header fields that go with every request: a mapping, whose changes hold for requests made after them.

        May be set to others, which are put over hyperpool's own defaults.
        """
        return self._headers

    @headers.setter
    def headers(self, given: HeadersLike) -> None:
        self._headers.replace(given)

    @property
    def cookies(self) -> Cookies:
        """The cookies of this client: a mapping of names and values over a ``CookieJar``. May be set to others."""
        return self._cookies

    @cookies.setter
    def cookies(self, given: CookiesLike) -> None:
        self._cookies = Cookies(given)

    # -- requests --------------------------------------------------------------------------------------------------

    def request(self, method: str, url: str, **options: Any) -> Response:
        """Send a request and wait for the whole response. Blocks.

        ``options`` are those of `submit`. Raises a `HyperpoolError`; a status of 4xx or 5xx is no error here.
        """
        return carry_out(self._journey(method, url, **options))

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
        cookies: CookiesLike = None,
        content: Any = None,
        data: Any = None,
        files: Any = None,
        json: Any = None,
        auth: AuthLike = NOT_GIVEN,
        timeout: TimeoutLike = NOT_GIVEN,
        follow_redirects: bool = NOT_GIVEN,
        retries: RetriesLike = NOT_GIVEN,
    ) -> ResponseFuture:
        """Send a request; a ``concurrent.futures.Future`` of its `Response`. Never blocks on the network.

        It resolves when the whole body is here, or, with ``stream``, when the head is: read that response to its end
        or close it. `Future.cancel` works until then and reaches the wire. Done-callbacks run on an I/O thread and must
        not block. Raises at once what the caller can mend: InvalidURL, LocalProtocolError, PoolClosed, and PoolFull for
        one origin too many.

        content: bytes, str, a binary file, an iterable of bytes. data: form fields, or like content. json: anything
        that JSON can say. files: a mapping or pairs of field name and binary file, bytes, str, or (filename, file,
        content type, headers), the last two at will; with them, data is further fields of the multipart form. cookies:
        pairs for this origin alone, or a ``CookieJar``. auth None: none at all. The rest is as in `Client`.
        """
        journey = self._journey(
            method,
            url,
            stream=stream,
            params=params,
            headers=headers,
            cookies=cookies,
            content=content,
            data=data,
            files=files,
            json=json,
            auth=auth,
            timeout=timeout,
            follow_redirects=follow_redirects,
            retries=retries,
        )
        return Escort(journey).begin()

    @contextmanager
    def stream(self, method: str, url: str, **options: Any) -> Iterator[Response]:
        """A response whose body is read as it comes; closed at the end of the with block, wherever that is reached."""
        with carry_out(self._journey(method, url, stream=True, **options)) as response:
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
        return in_order(submitted, max_in_flight) if ordered else as_completed(submitted, max_in_flight)

    def _submit_entry(self, entry: Any, options: dict[str, Any]) -> ResponseFuture:
        if isinstance(entry, str):
            return self.submit("GET", entry, **options)
        method, url, *own = entry
        return self.submit(method, url, **{**options, **(own[0] if own else {})})

    # -- what a request is made of ---------------------------------------------------------------------------------

    def _journey(
        self,
        method: str,
        url: str,
        *,
        stream: bool = False,
        params: Params = None,
        headers: HeadersLike = None,
        cookies: CookiesLike = None,
        content: Any = None,
        data: Any = None,
        files: Any = None,
        json: Any = None,
        auth: AuthLike = NOT_GIVEN,
        timeout: TimeoutLike = NOT_GIVEN,
        follow_redirects: bool = NOT_GIVEN,
        retries: RetriesLike = NOT_GIVEN,
    ) -> Journey:
        content, content_type = writing.body(content, data, json, files)
        url = writing.full_url(url, self.base_url, self.params, params)
        fields = writing.merged(self._headers.fields, headers)
        if content_type is not None and not writing.names(fields, "content-type"):
            fields += (("Content-Type", content_type),)
        patience = self.timeout if timeout is NOT_GIVEN else as_timeout(timeout)
        authenticate = self._auth(auth, url, fields)
        request = Request(writing.verb(method), without_userinfo(url) if "@" in url else url, fields, content, patience)
        if authenticate is not None:
            request = auths.apply(authenticate, request)
        retry = as_retry(self.retries if retries is NOT_GIVEN else retries)
        plan = Plan(
            request,
            None if request.content is None else _source(request.content),
            stream,
            _caller() if stream else "",
            self.follow_redirects if follow_redirects is NOT_GIVEN else follow_redirects,
            None if retry is None else Retries(retry),
            authenticate,
            auth is NOT_GIVEN,
            fields,
            self._cookies,
            *of_a_call(cookies),
        )
        return Journey(self._company, plan)

    def _auth(self, given: AuthLike, url: str, fields: writing.Headers) -> Any:
        """Who proves who we are: the call's own, else an Authorization field as it stands, else the user in the URL,
        else the client's own, else netrc."""
        if given is not NOT_GIVEN:
            return auths.as_auth(given)
        userinfo = parse_url(url).userinfo if "@" in url else None
        found = auths.from_userinfo(userinfo) if userinfo else auths.as_auth(self.auth)
        netrc = self._company.netrc
        if found is None and netrc is not None and not netrc.is_empty:
            found = netrc.auth(parse_url(url).origin.host)
        return None if found is None or writing.names(fields, "authorization") else found

    # -- its end ---------------------------------------------------------------------------------------------------

    def close(self, *, grace_s: float = 1.0) -> None:
        """Close the client's own pool; a shared one stays. See `ConnectionPool.close`."""
        if self._owns_pool:
            self._company.closing.set()
            self.pool.close(grace_s=grace_s)
            self._company.courier.close()

    def _start_anew_in_child(self) -> None:
        """After a fork: other threads of the parent may have held our locks, and are not here to release them."""
        for part in (self._headers, self._cookies, self._company.budget, self._company.courier):
            part.start_anew_in_child()
        closing = threading.Event()
        if self._company.closing.is_set():
            closing.set()
        self._company = dataclasses.replace(self._company, closing=closing)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Client {self.pool!r}>"


def _source(content: Any) -> Source | None:
    if isinstance(content, Multipart):
        return content.source()
    return make_source(content)


def _caller() -> str:
    """Where the program asked for this: the nearest frame outside hyperpool."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith(("hyperpool.", "contextlib")):
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"


def _start_anew_in_child() -> None:
    for client in [client for ref in _clients.valuerefs() if (client := ref()) is not None]:
        client._start_anew_in_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_anew_in_child)
