"""Client: what a program holds. One object for the whole process, shared by all of its threads.

It turns what callers write (a URL, parameters, JSON, a timeout in seconds) into a `Request`, and sends that on its
journey: `policy.journey` decides what follows from a response, `policy.escort` who waits for it. Nothing here knows a
socket or a protocol.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any, NoReturn

from hyperpool import arguments
from hyperpool.handoff.forks import Known, in_child
from hyperpool.handoff.hooks import as_hooks
from hyperpool.handoff.leash import caller
from hyperpool.handoff.loop_thread import check_may_wait
from hyperpool.handoff.source import make_source, with_trailers
from hyperpool.policy import auth as auths
from hyperpool.policy import writing
from hyperpool.policy.auth import AuthLike, Netrc
from hyperpool.policy.cookies import Cookies, CookiesLike, of_a_call
from hyperpool.policy.courier import Courier
from hyperpool.policy.defaults import DefaultHeaders
from hyperpool.policy.escort import Escort, carry_out
from hyperpool.policy.journey import Company, Journey, Plan
from hyperpool.policy.retries import Retries, RetriesLike, RetryBudget, as_retry
from hyperpool.policy.writing import Params
from hyperpool.pool import ConnectionPool
from hyperpool.proxies import ProxyLike
from hyperpool.urls import Url, parse_url
from hyperpool.values import HeadersLike, Limits, Request, Timeout, TimeoutLike, as_timeout

if TYPE_CHECKING:
    from hyperpool.handoff.futures import ResponseFuture
    from hyperpool.handoff.hooks import Informational
    from hyperpool.handoff.response import Response
    from hyperpool.policy.download import Download, Run
    from hyperpool.policy.progress import ProgressLike


class _NotGiven:
    def __repr__(self) -> str:
        return "<the client's>"


NOT_GIVEN: Any = _NotGiven()

# What is said of a pool unless somebody says otherwise.
_OF_THE_POOL = {
    **dict.fromkeys(("verify", "http1", "http2", "trust_env"), True),
    **dict.fromkeys(("cert", "proxy", "limits", "uds", "source_address", "resolver")),
}

_clients: Known[Client] = Known()


class Client:
    """An HTTP client to be shared by all threads of a process.

    Shared; what can be changed guards itself. HTTP/2 where the server speaks it, HTTP/1.1 where it does not. Close it
    with `close` or a with block; making one opens nothing.

    base_url: put before relative URLs. headers: sent with every request, where a call does not give its own. params:
        likewise, by their names; a call's None removes one. A mapping, pairs, or a query as str or bytes; an iterable
        as a value is the name once for each of its entries. cookies: a mapping, or a ``http.cookiejar.CookieJar``,
        which is used itself.
    auth: (user, password), or a callable that takes the `Request` and returns it with what proves who asks; for every
        origin that the program itself asks for. Else a user in the URL counts; else, where ``trust_env``, netrc.
    verify: True (certifi, or SSL_CERT_FILE / SSL_CERT_DIR where ``trust_env``), "system", a CA file or folder, PEM
        bytes, an ``ssl.SSLContext``, an ``OpenSSL.SSL.Context``, or False. An ``ssl.SSLContext`` offers no protocol
        (ALPN) after each use, whatever was set on it.
    cert: path or PEM bytes of certificate and key, (cert, key), or (cert, key, password).
    http1, http2: which versions may be spoken; http1=False means HTTP/2 with prior knowledge on ``http://``.
    proxy: URL of a proxy (http, https, socks5, socks5h) or a `Proxy`; or a mapping by "https", "all",
        "https://host" or "https://host:port"; else, where ``trust_env``, HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and
        NO_PROXY, read once by the first request.
    uds: the path of a Unix socket to which everything goes, whatever host a URL names. A URL may name one by itself,
        as in ``http+unix://%2Frun%2Fapp.sock/path``.
    source_address: the IP address of this machine to connect from, or (address, port).
    resolver: a callable that takes (host, port) and returns IP addresses to try in this order, each as str, an
        ``ipaddress`` object, (address, port) or a tuple of ``getaddrinfo``; asked for hosts that are IP addresses, too,
        on a thread where it may block; its answer is kept for ``Limits.dns_ttl_s``. What it raises is the cause of a
        NameResolutionError, or is raised itself where it is a `HyperpoolError`.
    timeout: `Timeout`, seconds (the total, for all redirects and retries together), (connect, read), or None for none.
    retries: how often a request may be sent again, or a ``urllib3.util.Retry``; further bounded, for each origin, by a
        budget of a tenth of its requests.
    follow_redirects, max_redirects: 301, 302, 303, 307 and 308; one more than the maximum raises TooManyRedirects.
    events: an object with any of the methods ``request(request)``, ``response(response)``, ``retry(request, resend)``,
        ``resend(request, resend)``, ``connection_opened(info)`` and ``connection_closed(info, error)``, or a mapping of
        these names to callables or lists of them. The first three run in the thread that waits, or, for `submit`, where
        done-callbacks run; the others run on I/O threads: none may block there. What they raise is logged.
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
        events: Any = None,
        pool: ConnectionPool | None = None,
        uds: str | os.PathLike[str] | None = None,
        source_address: str | tuple[str, int] | None = None,
        resolver: Callable[[str, int], Iterable[Any]] | None = None,
    ) -> None:
        self.base_url = arguments.text("base_url", base_url)
        self.params = params
        self.auth = auths.as_auth(auth)
        self.timeout = Timeout() if timeout is NOT_GIVEN else as_timeout(timeout)
        self.retries = as_retry(retries)
        self.follow_redirects = arguments.flag("follow_redirects", follow_redirects)
        self._headers = DefaultHeaders(headers)
        self._cookies = Cookies(cookies)
        most = arguments.whole("max_redirects", max_redirects, least=0)
        self._owns_pool = pool is None
        own: dict[str, Any] = {"verify": verify, "cert": cert, "http1": http1, "http2": http2, "trust_env": trust_env}
        own |= {"proxy": proxy, "limits": limits, "uds": uds, "source_address": source_address, "resolver": resolver}
        if pool is not None and own != _OF_THE_POOL:
            raise ValueError(f"{', '.join(own)} are the pool's: give them to that")
        if pool is not None:
            arguments.instance("pool", pool, ConnectionPool)
        self.pool = ConnectionPool(**own, events=events) if pool is None else pool
        netrc = Netrc() if trust_env else None
        self._company = Company(self.pool, Courier(), RetryBudget(), netrc, most, threading.Event(), as_hooks(events))
        _clients.add(self)

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
    def params(self) -> Params:
        """The parameters that go with every request, by their names; a call's own go before them.

        May be set to others, for requests made after that. An iterator is read at once.
        """
        return self._params

    @params.setter
    def params(self, given: Params) -> None:
        self._params = writing.lasting(given)

    @property
    def cookies(self) -> Cookies:
        """The cookies of this client: a mapping of names and values over a ``CookieJar``.

        May be set to others; requests that were made before go on with those that they have.
        """
        return self._cookies

    @cookies.setter
    def cookies(self, given: CookiesLike) -> None:
        self._cookies = Cookies(given)

    # -- requests --------------------------------------------------------------------------------------------------

    def request(self, method: str, url: str, **options: Any) -> Response:
        """Send a request and wait for the whole response. Blocks.

        ``options`` are those of `submit`. Raises a `HyperpoolError`; a status of 4xx or 5xx is no error here.
        """
        try:
            return carry_out(self._journey(method, url, **options))
        except TypeError:
            check_options("Client.request()", options)
            raise

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
        trailers: Any = None,
        informational: Informational | None = None,
        target: str | None = None,
        **unknown: NoReturn,
    ) -> ResponseFuture:
        """Send a request; a ``concurrent.futures.Future`` of its `Response`. Never blocks on the network.

        It resolves when the whole body is here, or, with ``stream``, when the head is: read that response to its end
        or close it. `Future.cancel` works until then and reaches the wire. Done-callbacks run on an I/O thread and must
        not block. Raises at once what the caller can mend: InvalidURL, LocalProtocolError, PoolClosed, and PoolFull for
        one origin too many.

        content: bytes or another object with a buffer, str, a binary file, an iterable of bytes. data: form fields, of
        which those that are None are left out, or like content. json: anything that JSON can say. files: a mapping or
        pairs of field name and binary file, bytes, str, or (filename, file, content type, headers), the last two at
        will; with them, data is further fields of the multipart form. A part whose type is not given gets the one that
        its filename tells; without a filename (None), none. cookies:
        pairs for this origin alone, or a ``CookieJar``. auth None: none at all. trailers: a mapping or pairs to send
        behind the body, or a callable that gives them when the body is through. informational: called with (status,
        headers) of each 1xx response; it runs where done-callbacks run, before the response is there. target: goes out
        in place of the URL's path and query, as "*" does with OPTIONS. The rest is as in `Client`.
        """
        if unknown:
            check_options("Client.submit()", unknown)
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
            trailers=trailers,
            informational=informational,
            target=target,
        )
        return Escort(journey).begin()

    @contextmanager
    def stream(self, method: str, url: str, **options: Any) -> Iterator[Response]:
        """A response whose body is read as it comes; closed at the end of the with block, wherever that is reached."""
        try:
            opened = carry_out(self._journey(method, url, stream=True, **options))
        except TypeError:
            check_options("Client.stream()", options)
            raise
        with opened as response:
            yield response

    def download(
        self,
        url: str,
        path: str | os.PathLike[str],
        *,
        resume: bool = True,
        checksum: Any = None,
        progress: ProgressLike = None,
        params: Params = None,
        headers: HeadersLike = None,
        retries: RetriesLike = NOT_GIVEN,
        **options: Any,
    ) -> Download:
        """GET a URL into a file, which is there as a whole or not at all. Blocks.

        The body goes to ``path.part``, which gets its name when all of it came. When it is cut, it is gone on with
        where the server can tell that it is still the same: within ``retries`` at once, and else by the next call, for
        which ``path.part`` and ``path.part.json`` stay; nothing stays where there is nothing to go on with, or where
        ``resume`` is False. checksum: "sha256:hex", "sha256" to be told it, or a hashlib object to be fed.
        progress: a callable of (bytes done, bytes in all or None), or True for a bar on standard error.

        Raises a `HyperpoolError`: HTTPStatusError for any status without the file, ChecksumError; OSError for the file,
        BlockingIOError where another download is writing it. Different files may be downloaded by any threads at once.
        ``Timeout.total`` is for the head of each attempt, as with `stream`; ``options`` are those of `submit`.
        """
        from hyperpool.policy.download import download

        def open_stream(fields: Any, retry: Any) -> AbstractContextManager[Response]:
            return self.stream("GET", url, params=params, headers=fields, retries=retry, **options)

        run = self._download_run(url, path, params, headers, resume=resume, checksum=checksum, retries=retries)
        return download(run, open_stream, progress)

    def _download_run(
        self, url: str, path: Any, params: Params, headers: HeadersLike, *, resume: bool, checksum: Any, retries: Any
    ) -> Run:
        from hyperpool.policy.download import Order, Run

        full = writing.full_url(url, self.base_url, self.params, params)
        order = Order(full, path, headers, resume, checksum)
        return Run(order, as_retry(self.retries if retries is NOT_GIVEN else retries), self._company)

    def upload(
        self,
        url: str,
        file: Any,
        *,
        method: str = "PUT",
        progress: ProgressLike = None,
        headers: HeadersLike = None,
        **options: Any,
    ) -> Response:
        """Send a file as the body of a request. Blocks until the whole response is here; its status is not judged.

        file: a path, or a binary file, which is sent from where it stands to its end, with its length where it tells
        one. Content-Type is guessed by its name unless ``headers`` say it. progress: a callable of (bytes read for
        sending, bytes in all or None), or True for a bar on standard error; it is called by the thread that reads the
        file, and begins anew when the file is sent again. ``options`` are those of `submit`.
        """
        from hyperpool.policy.upload import upload

        def send(fields: Any, content: Any) -> Response:
            return self.request(method, url, headers=fields, content=content, **options)

        return upload(file, headers, progress, send)

    def map(
        self,
        requests: Iterable[Any],
        *,
        max_in_flight: int = 100,
        ordered: bool = False,
        progress: ProgressLike = None,
        **options: Any,
    ) -> Iterator[Response]:
        """The responses to many requests, at most ``max_in_flight`` of them under way at a time.

        ``requests`` is read as slots come free: URLs (GET), or (method, url) or (method, url, options) tuples;
        ``options`` are for all. In order of completion, or of input where ``ordered``. Blocks for each response; raises
        the error of the first that failed. Leaving the iteration early cancels what is under way. progress: a callable
        of (responses so far, requests in all, or None where they have no len()), or True for a bar on standard error.
        """
        check_may_wait("Client.map()")
        from hyperpool.policy.flights import as_completed, check_many, in_order, len_of, told

        check_many(requests)
        bound = arguments.whole("max_in_flight", max_in_flight, least=1)
        submitted = (self._submit_entry(entry, options) for entry in requests)
        responses = in_order(submitted, bound) if ordered else as_completed(submitted, bound)
        return responses if progress is None else told(responses, progress, len_of(requests))

    def _submit_entry(self, entry: Any, options: dict[str, Any]) -> ResponseFuture:
        from hyperpool.policy.flights import parts_of

        method, url, own = parts_of(entry, options)
        try:
            return self.submit(method, url, **own)
        except TypeError:
            check_options("Client.map()", own)
            raise

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
        trailers: Any = None,
        informational: Informational | None = None,
        target: str | None = None,
    ) -> Journey:
        content, content_type = writing.body(content, data, json, files)
        # Judged before anything else looks at it: every step behind this one may rely on a URL that can be requested.
        place = parse_url(writing.full_url(url, self.base_url, self.params, params))
        fields = writing.merged(self._headers.fields, headers)
        if content_type is not None and not writing.names(fields, "content-type"):
            fields += (("Content-Type", content_type),)
        if trailers is not None:
            trailers = trailers if callable(trailers) else arguments.pairs("trailers", trailers)
            fields = writing.announcing(fields, trailers)
        patience = self.timeout if timeout is NOT_GIVEN else as_timeout(timeout)
        authenticate = self._auth(auth, place, fields)
        request = Request(writing.verb(method), place.wire, fields, content, patience, target)
        if authenticate is not None:
            request = auths.apply(authenticate, request)
        retry = as_retry(self.retries if retries is NOT_GIVEN else retries)
        follows = self.follow_redirects if follow_redirects is NOT_GIVEN else follow_redirects
        source = None if request.content is None else make_source(request.content)
        plan = Plan(
            request,
            source if trailers is None else with_trailers(source, trailers),
            stream is not None and arguments.flag("stream", stream),  # None is requests' default
            caller() if stream else "",
            arguments.flag("follow_redirects", follows),
            None if retry is None else Retries(retry),
            authenticate,
            auth is NOT_GIVEN,
            fields,
            self._cookies,
            *of_a_call(cookies),
            arguments.callback("informational", informational),
        )
        return Journey(self._company, plan)

    def _auth(self, given: AuthLike, url: Url, fields: writing.Headers) -> Any:
        """Who proves who we are: the call's own, else an Authorization field as it stands, else the user in the URL,
        else the client's own, else netrc."""
        if given is not NOT_GIVEN:
            return auths.as_auth(given)
        found = auths.from_userinfo(url.userinfo) if url.userinfo else auths.as_auth(self.auth)
        netrc = self._company.netrc
        if found is None and netrc is not None and not netrc.is_empty:
            found = netrc.auth(url.origin.host)
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
        self._company = self._company._replace(closing=closing)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Client {self.pool!r}>"


@in_child
def _start_anew_in_child() -> None:
    for client in _clients:
        client._start_anew_in_child()


# As requests calls them.
_OTHER_NAMES = {"allow_redirects": "follow_redirects", "proxies": "proxy"}


def check_options(call: str, options: Iterable[str]) -> None:
    """Raises TypeError for the first that is no option of a request, with a word on where it belongs.

    Asked only where a call failed: with such an option it cannot have failed for another reason.
    """
    known: Any = Client.submit.__kwdefaults__
    of_client: Any = Client.__init__.__kwdefaults__
    for name in options:
        if name in known:
            continue
        here = _OTHER_NAMES.get(name, name)
        if here in known:
            advice = f"it is {here} here"
        elif here in of_client:
            advice = f"give {here} to the client, as in {call.partition('.')[0]}({here}=...), for all of its requests"
        else:
            advice = "see Client.submit for what there is"
        raise TypeError(f"{call} has no option {name!r}: {advice}") from None
