"""What hyper's three connections have in common, which is all but the arguments with which they are made.

A connection object is a thin thing over a pool of its own with one origin, one way to it, and one HTTP/2 connection:
requests go to that pool at once, and the object remembers which responses nobody has taken yet. No protocol in here,
and no waiting for anything but what the caller asked for: a slow response delays nobody else's request.

On HTTP/1.1 a request that comes while another one's response is still under way gets a socket of its own: there is no
other way to keep them apart.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, TypeVar

from hyperpool.connection_arguments import as_timeout, host_and_port, limits_for, proxy_parts
from hyperpool.connection_calls import Call, Calls, is_whole, length_of, make_request, pieces_of
from hyperpool.connection_errors import as_hyper_raises
from hyperpool.connection_messages import HTTP11Response, HTTP20Push, HTTP20Response, HTTPVersion, make_response
from hyperpool.errors import HyperpoolError, LocalProtocolError
from hyperpool.handoff.forks import Known, in_child
from hyperpool.handoff.leash import caller
from hyperpool.handoff.loop_thread import check_may_wait
from hyperpool.handoff.source import FedSource
from hyperpool.headers import HTTPHeaderMap, MapLike, Text, raw_pairs
from hyperpool.pool import ConnectionPool
from hyperpool.urls import Origin, parse_url
from hyperpool.values import Limits, Proxy, Route, TlsSettings

if TYPE_CHECKING:
    from hyperpool.connection_arguments import TimeoutLike
    from hyperpool.handoff.futures import ResponseFuture
    from hyperpool.window import BaseFlowControlManager

C = TypeVar("C", bound="Connection")

HTTP2 = HTTPVersion.http20.value
TLS_PORT = 443

# RFC 9110 8.6, RFC 9112 6.3: without a declared length their requests have no body.
_WITHOUT_BODY = frozenset({"GET", "HEAD", "DELETE", "OPTIONS", "TRACE"})

# All that there are: their locks must be made anew in a forked child.
_connections: Known[Connection] = Known()


@in_child
def _renew_locks_in_child() -> None:
    for connection in _connections:
        connection._renew_locks_in_child()


class _Session:
    """What a connection object has between its first use and its close.

    Shared; pool and calls guard themselves, the others are swapped whole. ``version``: what the server speaks, None as
    long as nobody knows. ``refused``: it was offered HTTP/2 in plaintext, and answered in HTTP/1.1.
    """

    def __init__(self, limits: Limits) -> None:
        self.pool = ConnectionPool(limits=limits)
        self.calls = Calls()
        self.version: str | None = None
        self.refused = False

    def meant(self, stream_id: int | None) -> int | None:
        """An id where it means a request; over HTTP/1.1 only one that was given while nobody knew the version."""
        return stream_id if self.version == HTTP2 or self.calls.was_told(stream_id) else None

    def learn(self, call: Call, version: str) -> None:
        """A request was answered in this version."""
        if version == HTTP2:
            self.version = HTTP2
        elif call.offers:
            self.refused = True


class Connection:
    """What the three connections have in common.

    Shared; guarded by _lock.
    """

    default_port = 443
    may_upgrade = False

    def __init__(
        self,
        host: str,
        port: int | None,
        *,
        secure: bool | None,
        ssl_context: Any,
        proxy: tuple[str | None, int | None, MapLike | None],
        timeout: TimeoutLike,
        window_manager: type[BaseFlowControlManager] | None = None,
        **way: Any,
    ) -> None:
        self.host, self.port = host_and_port(host, port, self.default_port)
        self.secure = self.port == TLS_PORT if secure is None else bool(secure)
        self.ssl_context = ssl_context
        self.proxy_host, self.proxy_port, self.proxy_headers = proxy_parts(*proxy)
        self.network_buffer_size = 65_536
        self._timeout = as_timeout(timeout)
        self._limits = limits_for(window_manager)
        tls = TlsSettings(True if ssl_context is None else ssl_context)
        way |= {"upgrade": self.may_upgrade and not self.secure, "each_frame": True}
        self._route = Route(self._origin(), tls, proxy=self._proxy(), window_manager=window_manager, **way)
        self._lock = threading.RLock()
        self._session: _Session | None = None
        _connections.add(self)

    def _renew_locks_in_child(self) -> None:
        self._lock = threading.RLock()
        if self._session is not None:
            self._session.calls.renew_lock_in_child()

    def _origin(self) -> Origin:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return parse_url(f"{'https' if self.secure else 'http'}://{host}:{self.port}").origin

    def _proxy(self) -> Proxy | None:
        if self.proxy_host is None or self.proxy_port is None:
            return None
        headers = HTTPHeaderMap(raw_pairs(self.proxy_headers)).iter_raw()
        pairs = tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in headers)
        return Proxy("http", self.proxy_host, self.proxy_port, None, pairs)

    def _current(self) -> _Session:
        session = self._session
        if session is None:
            made = _Session(self._limits)
            with self._lock:
                # Another thread may have been faster; a pool that was not used has opened nothing.
                session = self._session = self._session or made
        return session

    # -- connecting ------------------------------------------------------------------------------------------------

    def connect(self) -> None:
        """Connect, unless that was done. Blocks. Raises a `HyperpoolError` where there is no way to the server."""
        self._hear_version(self._current())

    def _hear_version(self, session: _Session) -> None:
        check_may_wait("connecting")
        with as_hyper_raises():
            version = session.pool.connect(self._route, timeout_s=self._timeout.connect).result()
        # An upgrade may have been seen meanwhile, which is never taken back.
        if session.version != HTTP2:
            session.version = version

    def _speaks_http2(self, session: _Session) -> bool:
        """Whether requests get stream ids. Connects on first use."""
        if session.version is None or (self._route.upgrade and session.version != HTTP2):
            self._hear_version(session)
        return session.version == HTTP2

    def _tell(self, session: _Session, call: Call, *, http2: bool) -> int | None:
        """What its caller is told as the id of a request."""
        # Once it is known to be HTTP/1.1, ids go on only until the last that was given is done with.
        undecided = self._route.upgrade and (call.beside_told if session.refused else call.beside_others)
        call.told = http2 or undecided
        return call.stream_id if call.told else None

    def ping(self, opaque_data: Text) -> None:
        """Send a PING with these 8 bytes (RFC 9113 6.7); nothing over HTTP/1.1. Connects on first use."""
        payload = opaque_data.encode() if isinstance(opaque_data, str) else bytes(opaque_data)
        session = self._current()
        self._speaks_http2(session)
        session.pool.ping(self._route, payload)

    # -- requests --------------------------------------------------------------------------------------------------

    def request(self, method: Text, url: Text, body: Any = None, headers: MapLike | None = None) -> int | None:
        """Send a request; its stream id over HTTP/2, None over HTTP/1.1.

        Where HTTP/2 was offered in plaintext and no answer was taken yet, the id beside other requests, and None alone.
        ``url``: path and query, or a whole URL of this origin. ``body``: bytes, str (as UTF-8), a binary file, or an
        iterable of bytes, a generator too; files and iterables are read here, so this blocks while the server takes no
        more of them. ``headers``: a mapping, pairs or an `HTTPHeaderMap`. Never waits for another response. Connects
        on first use. Raises what the caller can mend, and what keeps the connection from being made.
        """
        session = self._current()
        http2 = self._speaks_http2(session)
        draft = Call(0, 0, _text(method), _text(url), HTTPHeaderMap(raw_pairs(headers)))
        content = body if is_whole(body) else FedSource(length_bytes=length_of(body))
        call = session.calls.asked(self._submit(session, draft, content, http2=http2))
        call.offers = _offers(call, draft.headers, content)
        told = self._tell(session, call, http2=http2)
        if isinstance(content, FedSource):
            call.upload = content
            try:
                _feed(session.calls, call, body, final=True)
            except BaseException:
                session.calls.forget(call)
                raise
        return told

    def _submit(self, session: _Session, call: Call, content: Any, *, http2: bool) -> Any:
        request = make_request(call, self._route.origin, content, timeout=self._timeout, http2=http2)
        with as_hyper_raises():
            return session.pool.submit(request, stream=True, made_at=caller(), route=self._route)

    def putrequest(self, method: Text, selector: Text, **kwargs: Any) -> int | None:
        """Begin to put a request together; its stream id over HTTP/2, None over HTTP/1.1.

        Nothing is sent before `endheaders`. Further keywords are taken for http.client's sake.
        """
        session = self._current()
        http2 = self._speaks_http2(session)
        call = session.calls.begin()
        call.method, call.target = _text(method), _text(selector)
        return self._tell(session, call, http2=http2)

    def putheader(self, header: Text, argument: Text, stream_id: int | None = None, replace: bool = False) -> None:
        """Add a header field to a request; with ``replace``, in the place of those of its name."""
        headers = self._draft(self._current(), stream_id).headers
        if replace:
            headers.replace(header, argument)
        else:
            headers[header] = argument

    def endheaders(self, message_body: Any = None, final: bool = False, stream_id: int | None = None) -> None:
        """Send the head of a request, with what there is of its body.

        ``final``: there will be no more. Else `send` has to end it; over HTTP/1.1 a GET, HEAD, DELETE or OPTIONS that
        declares no length has no body, and ends here.
        """
        session = self._current()
        http2 = self._speaks_http2(session)
        call = self._draft(session, stream_id)
        if call.upload is not None:
            raise LocalProtocolError("the head of this request was sent already: go on with send()")
        if message_body is None and not http2 and call.method in _WITHOUT_BODY and not _declares_body(call.headers):
            final = True
        whole = final and is_whole(message_body)
        content = message_body if whole else FedSource(length_bytes=length_of(message_body) if final else None)
        session.calls.asked(self._submit(session, call, content, http2=http2), call)
        call.offers = _offers(call, call.headers, content)
        if whole:
            session.calls.finished(call)
            return
        call.upload = content
        _feed(session.calls, call, message_body, final=final)

    def send(self, data: Any, final: bool = False, stream_id: int | None = None) -> None:
        """Send a piece of a request's body: bytes, str, a binary file or an iterable of bytes.

        ``final``: it is the last. Blocks while the server takes no more. Raises the error with which the request has
        ended; what a server that has answered already does not want is dropped.
        """
        session = self._current()
        call = self._draft(session, stream_id)
        if call.upload is None:
            raise LocalProtocolError("the head of this request was not sent yet: call endheaders() first")
        _feed(session.calls, call, data, final=final)

    @staticmethod
    def _draft(session: _Session, stream_id: int | None) -> Call:
        return session.calls.draft(session.meant(stream_id))

    # -- responses -------------------------------------------------------------------------------------------------

    def get_response(self, stream_id: int | None = None) -> HTTP20Response | HTTP11Response:
        """The response to a request, as soon as its head is here. Blocks.

        ``stream_id``: what `request` returned; over HTTP/1.1 any other is ignored. None: the oldest response that
        nobody has taken, of those that this thread asked for if there is one. Raises NoSuchStream (a StreamReset) at
        once where there is none, else the error with which the request ended.
        """
        session = self._current()
        call = session.calls.take(session.meant(stream_id))
        assert call.future is not None
        try:
            with as_hyper_raises():
                response = call.future.result()
        except BaseException:
            if not call.future.done():
                session.calls.give_back(call)  # Ctrl-C and the like: it can be asked for again
            raise
        session.learn(call, response.http_version)
        return make_response(response, call.stream_id)

    getresponse = get_response

    def get_pushes(self, stream_id: int | None = None, capture_all: bool = False) -> Iterator[HTTP20Push]:
        """What the server has pushed beside the response to a request so far; each push is given out once.

        ``stream_id``: what `request` returned; None: this thread's latest request. With ``capture_all`` also what is
        still to come, until that response ends: blocks for each. Nothing where pushes are not enabled.
        """
        pushes = self._current().calls.pushes(stream_id)
        if pushes is not None:
            for push in pushes.until_the_end() if capture_all else pushes.so_far():
                yield HTTP20Push(push)

    # -- its end ---------------------------------------------------------------------------------------------------

    def close(self, error_code: int | None = None) -> None:
        """Close the connection; what is under way is reset. It may be used again: then it connects anew.

        ``error_code``: what the server is told (RFC 9113 7). Returns when no thread and no socket of it is left.
        """
        with self._lock:
            session, self._session = self._session, None
        if session is not None:
            session.pool.close(grace_s=0, code=error_code or 0)

    def __enter__(self: C) -> C:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __repr__(self) -> str:
        session = self._session
        state = "closed" if session is None else f"{session.version} outstanding={session.calls.outstanding}"
        return f"<{type(self).__name__} {self._route.origin} {state}>"


def _feed(calls: Calls, call: Call, body: Any, *, final: bool) -> None:
    """Hand a body, or a piece of one, to the wire. Blocks while that is full."""
    upload = call.upload
    assert upload is not None and call.future is not None
    check_may_wait("sending a body")
    try:
        wanted = body is None or all(upload.feed(piece) for piece in pieces_of(body))
    except BaseException as error:
        upload.fail(error)  # a body that breaks off must never look complete
        calls.finished(call)
        raise
    if final:
        upload.finish()
        calls.finished(call)
    if not wanted and call.future.done():
        _raise_error_of(call.future)


def _raise_error_of(future: ResponseFuture) -> None:
    failure = future.exception()
    if failure is not None:
        with as_hyper_raises():
            raise failure.own_copy() if isinstance(failure, HyperpoolError) else failure


def _offers(call: Call, headers: HTTPHeaderMap, content: Any) -> bool:
    """Whether a request carries the offer of HTTP/2, where one is made."""
    # The first has a connection of its own; with a body, or with "close", it would offer nothing.
    return call.stream_id == 1 and content is None and "connection" not in headers


def _text(given: Text) -> str:
    return given.decode("latin-1") if isinstance(given, bytes) else given


def _declares_body(headers: HTTPHeaderMap) -> bool:
    return "content-length" in headers or "transfer-encoding" in headers
