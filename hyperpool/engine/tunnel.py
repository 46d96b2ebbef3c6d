"""What stands between a socket and an origin: the steps through a proxy, each as bytes in and bytes out.

Lives here: `Way` (which steps a route needs, in their order), `Connect` (RFC 9110 9.3.6) and `TlsInTls`; SOCKS is in
engine/socks.py. Must never come in: sockets and waiting, which are the dial's.

    route                              steps                                       what carries HTTP
    https://  no proxy                 TLS to the origin                           that TLS
    https://  http proxy               CONNECT, TLS to the origin                  that TLS
    https://  https proxy              TLS to the proxy, CONNECT and TLS in it     TlsInTls
    http://   http proxy               none: requests are forwarded                the socket
    http://   https proxy              TLS to the proxy: requests are forwarded    that TLS
    any       socks5, socks5h proxy    SOCKS, then as without a proxy              as without a proxy

Every step has the shape of `TlsStream` in its handshake (`Step`), so that one loop of the dial drives them all.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

from hyperpool.engine.resolve import ascii_name
from hyperpool.engine.socks import Socks
from hyperpool.errors import HyperpoolError, LocalProtocolError, ProxyError, RemoteProtocolError
from hyperpool.protocol.events import MAX_INTERIM
from hyperpool.protocol.fields import proxy_fields
from hyperpool.protocol.h1_head import HEAD_END, check_head
from hyperpool.proxies import forwards

if TYPE_CHECKING:
    from collections.abc import Callable

    import h11

    from hyperpool.engine.trust import TlsConfig
    from hyperpool.protocol.tls import Buffer, TlsStream
    from hyperpool.urls import Origin
    from hyperpool.values import Proxy, Route

# The head of an answer to CONNECT: proxies send 40 to 400 bytes. Half of this is still ten times as much; more is
# somebody who wants to fill our memory.
MAX_ANSWER_BYTES = 16 << 10


class Step(Protocol):
    """One step on the way to an origin.

    Owned by the dialling thread. `handshake` is True when the step is made and raises where it cannot be; until then
    `ciphertext` is to be sent and what comes is to be fed.
    """

    def handshake(self) -> bool: ...

    def ciphertext(self) -> bytes: ...

    def feed(self, ciphertext: bytes) -> None: ...

    def feed_eof(self) -> None: ...


class Connect:
    """The request for a tunnel, and the proxy's answer.

    Owned by the dialling thread. ``onward`` takes what came behind the answer: the first words of an origin that talks
    before it is asked, which is none of TLS, and should be told by those who know.
    """

    def __init__(self, proxy: Proxy, origin: Origin, onward: Callable[[bytes], object]) -> None:
        import h11

        self._proxy = proxy
        self._onward = onward
        self._origin = origin
        self._machine = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_ANSWER_BYTES)
        self._interim = self._judged_bytes = 0
        self._unread = bytearray()
        self._ended = False
        self._outgoing = self._request()

    def _request(self) -> bytes:
        import h11

        target = f"{_bracketed(self._origin.host)}:{self._origin.port}"
        fields = [(b"Host", target.encode()), *proxy_fields(self._proxy)]
        try:
            asked = h11.Request(method=b"CONNECT", target=target, headers=fields)
            return (self._machine.send(asked) or b"") + (self._machine.send(h11.EndOfMessage()) or b"")
        except h11.LocalProtocolError as error:
            raise LocalProtocolError(f"no tunnel to {target!r} can be asked for: {error}") from error

    def ciphertext(self) -> bytes:
        """What is to be sent; given out once."""
        outgoing, self._outgoing = self._outgoing, b""
        return outgoing

    def feed(self, ciphertext: bytes) -> None:
        """Take bytes of the proxy."""
        self._unread += ciphertext

    def feed_eof(self) -> None:
        """The proxy closed."""
        self._ended = True

    def handshake(self) -> bool:
        """Whether the tunnel stands. Raises ProxyError with the proxy's ``status`` where it is refused."""
        import h11

        try:
            while head := self._take_head():
                self._machine.receive_data(head)
                event = self._machine.next_event()
                if isinstance(event, h11.Response):
                    return self._judge(event)
                self._count_interim()
        except (RemoteProtocolError, h11.RemoteProtocolError) as error:
            raise self._refused(f"gave no answer of HTTP/1.1 ({error}) when asked for a tunnel") from error
        if self._ended:
            raise self._refused("closed the connection when asked for a tunnel")
        return False

    def _take_head(self) -> bytes:
        """The next head, once all of it is here and judged; b"" until then."""
        end = self._unread.find(HEAD_END, max(0, self._judged_bytes - len(HEAD_END) + 1))
        check_head(self._unread, end, self._judged_bytes, max_bytes=MAX_ANSWER_BYTES, framed=False)
        if end < 0:
            self._judged_bytes = len(self._unread)
            return b""
        size = end + len(HEAD_END)
        head, self._unread, self._judged_bytes = bytes(self._unread[:size]), self._unread[size:], 0
        return head

    def _count_interim(self) -> None:
        self._interim += 1
        if self._interim > MAX_INTERIM:
            raise self._refused(f"sent more than {MAX_INTERIM} interim responses (RFC 9110 15.2)")

    def _judge(self, answer: h11.Response) -> bool:
        status, reason = answer.status_code, answer.reason.decode("latin-1")
        if not 200 <= status < 300:
            # tinyproxy says 401 for credentials that it does not know.
            hint = self._hint() if status in (401, 407) else ""
            raise self._refused(f"refused the tunnel with {status} {reason}".rstrip() + hint, status)
        if self._unread:
            self._onward(bytes(self._unread))
        return True

    def _hint(self) -> str:
        if self._proxy.userinfo is None:
            return "; give the credentials in the proxy's URL, as http://user:password@host"
        return "; it does not accept the credentials in its URL"

    def _refused(self, words: str, status: int | None = None) -> ProxyError:
        return ProxyError(f"proxy {self._proxy} {words}", status=status)


def _bracketed(host: str) -> str:
    # A zone identifier means something on this machine only (RFC 6874 4).
    return f"[{host.partition('%')[0]}]" if ":" in host else ascii_name(host)


class Nested:
    """A step whose bytes go through a TLS session with the proxy.

    Owned by the dialling thread; the session with the proxy is established.
    """

    def __init__(self, outer: TlsStream, step: Step) -> None:
        self._outer = outer
        self._step = step

    def handshake(self) -> bool:
        """As of the step."""
        return self._step.handshake()

    def ciphertext(self) -> bytes:
        """What the step has to send, encrypted for the proxy. Never raises."""
        with suppress(HyperpoolError):  # the outer session keeps it as its failure, and the next bytes tell it
            self._outer.write(self._step.ciphertext())
        return self._outer.ciphertext()

    def feed(self, ciphertext: bytes) -> None:
        """Take bytes of the proxy's session; what is in them is the step's."""
        outer = self._outer
        outer.feed(ciphertext)
        if plaintext := outer.read():
            self._step.feed(plaintext)
        if outer.eof or outer.failure is not None:
            self._step.feed_eof()

    def feed_eof(self) -> None:
        """No more bytes will come."""
        self._outer.feed_eof()
        self._step.feed_eof()


class TlsInTls(Nested):
    """The origin's TLS session inside the proxy's: what the engine's `Transport` needs of TLS, as of one session.

    Owned by one thread at a time: the dialler, then the loop. How it ends is told by the inner session alone: only
    the origin's close_notify says that nothing is missing (RFC 8446 6.1), whatever the proxy says.
    """

    def __init__(self, outer: TlsStream, inner: TlsStream) -> None:
        super().__init__(outer, inner)
        self._inner = inner

    @property
    def eof(self) -> bool:
        """Whether the origin ended its session."""
        return self._inner.eof

    @property
    def truncated(self) -> bool:
        """Whether the bytes ended without that."""
        return self._inner.truncated

    @property
    def failure(self) -> HyperpoolError | None:
        """Why nothing can be read any more."""
        return self._inner.failure or self._outer.failure

    @property
    def alpn(self) -> str | None:
        """What the origin chose (RFC 7301)."""
        return self._inner.alpn

    @property
    def version(self) -> str | None:
        """The TLS version of the session with the origin."""
        return self._inner.version

    def read(self) -> bytes:
        """Everything that can be decrypted now. See `TlsStream.read`."""
        return self._inner.read()

    def write(self, plaintext: Buffer) -> None:
        """Encrypt; take the result with `ciphertext`."""
        self._inner.write(plaintext)

    def close(self) -> None:
        """Queue both sessions' close_notify, the inner one first. Never raises."""
        self._inner.close()
        with suppress(HyperpoolError):
            self._outer.write(self._inner.ciphertext())
        self._outer.close()


class Way:
    """The steps from a connected socket to an origin.

    Owned by the dialling thread. ``host`` and ``port`` are to be connected to; ``opening`` are the steps that the proxy
    takes part in, each with its name, ``socks`` the one of them that is SOCKS; ``tls`` is the step behind them, None
    where there is none; ``session`` carries HTTP in the end.
    Making it opens nothing. Raises what is wrong with settings: TlsError, InvalidURL, LocalProtocolError, ProxyError.
    """

    def __init__(self, route: Route, tls_config: TlsConfig) -> None:
        origin, proxy = route.origin, route.proxy
        self.host, self.port = (origin.host, origin.port) if proxy is None else (proxy.host, proxy.port)
        self.opening: list[tuple[str, Step]] = []
        self.socks: Socks | None = None
        outer = _session_with_proxy(route, tls_config)
        inner: TlsStream | None = None
        if outer is not None:
            self.opening.append(("the TLS handshake with it", outer))
        if origin.scheme == "https":
            inner = tls_config.client(origin.host, http1=route.http1, http2=route.http2)
        if proxy is not None and proxy.scheme.startswith("socks"):
            self.socks = Socks(proxy, origin)
            self.opening.append(("SOCKS", self.socks))
        elif proxy is not None and inner is not None:
            connect = Connect(proxy, origin, inner.feed)
            self.opening.append(("CONNECT", connect if outer is None else Nested(outer, connect)))
        self.tls = inner if inner is None or outer is None else TlsInTls(outer, inner)
        self.session = self.tls or outer


def _session_with_proxy(route: Route, tls_config: TlsConfig) -> TlsStream | None:
    proxy = route.proxy
    if proxy is None or proxy.scheme != "https":
        return None
    # HTTP/1.1 to the proxy; HTTP/2 only where it is to forward nothing else.
    only_http2 = forwards(route) and not route.http1
    return tls_config.client(proxy.host, http1=not only_http2, http2=only_http2)
