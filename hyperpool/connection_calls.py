"""The requests of one connection object: what they are made of, and which of them a caller means.

A caller means a request by the id that it got for it, or by none: then it is the latest one that is still being put
together, or the oldest whose response nobody has taken. Among several, those of the calling thread come first, so that
threads which share a connection get their own responses, also over HTTP/1.1, where there are no ids.

Where HTTP/2 was offered (h2c) and nobody knows yet what is spoken, a request gets no id while it is the only one, and
one as soon as there are others: "none" then means one request alone, whenever the server's answer comes.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING, Any

from hyperpool.connection_errors import NoSuchStream
from hyperpool.errors import InvalidURL, LocalProtocolError
from hyperpool.handoff.source import FILE_PIECE_BYTES, FedSource
from hyperpool.headers import HTTPHeaderMap
from hyperpool.protocol.fields import CONNECTION_SPECIFIC
from hyperpool.urls import Origin, parse_url
from hyperpool.values import Request, Timeout

if TYPE_CHECKING:
    from hyperpool.handoff.futures import ResponseFuture
    from hyperpool.handoff.pushes import Pushes

# Requests whose pushes can still be asked for. Each promise holds a stream, of which a server has about a hundred.
MAX_WITH_PUSHES = 100

_BYTES_LIKE = (bytes, bytearray, memoryview)


@dataclass(eq=False, slots=True)
class Call:
    """One request: its head while that is put together, then its upload and its response to come.

    Owned by the thread that makes the request, until its response is taken. ``beside_others``: when it began there were
    others whose responses nobody had taken; ``beside_told``: their ids, too. ``told``: its caller was given the id.
    ``offers``: it was the first and had no body, so it carried the offer of HTTP/2 where one is made.
    """

    stream_id: int
    thread: int
    method: str = ""
    target: str = ""
    headers: HTTPHeaderMap = field(default_factory=HTTPHeaderMap)
    future: ResponseFuture | None = None
    upload: FedSource | None = None
    beside_others: bool = False
    beside_told: bool = False
    told: bool = False
    offers: bool = False


class Calls:
    """All requests of a connection object since it was made or closed.

    Shared; guarded by _lock, under which there are dictionary operations only.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._last_id = -1
        # Those to which putheader, endheaders or send may still come, and those whose responses are still to be taken.
        self._drafts: dict[int, Call] = {}
        self._asked: dict[int, Call] = {}
        self._pushes: OrderedDict[int, tuple[int, Pushes]] = OrderedDict()

    def renew_lock_in_child(self) -> None:
        """After a fork, in the child: a thread that is not here may have held it."""
        self._lock = threading.RLock()

    def begin(self) -> Call:
        """A new request that is to be put together. Ids are odd and ascend, as on the wire (RFC 9113 5.1.1)."""
        with self._lock:
            call = self._new_locked()
            self._drafts[call.stream_id] = call
        return call

    def asked(self, future: ResponseFuture, call: Call | None = None) -> Call:
        """The request has gone out: its response can be taken from now on."""
        with self._lock:
            call = call or self._new_locked()
            call.future = future
            self._asked[call.stream_id] = call
            if future.pushes is not None:
                self._pushes[call.stream_id] = call.thread, future.pushes
                if len(self._pushes) > MAX_WITH_PUSHES:
                    self._pushes.popitem(last=False)
        return call

    def _new_locked(self) -> Call:
        self._last_id += 2
        call = Call(self._last_id, threading.get_ident(), beside_others=bool(self._drafts or self._asked))
        call.beside_told = any(one.told for one in chain(self._drafts.values(), self._asked.values()))
        return call

    def was_told(self, stream_id: int | None) -> bool:
        """Whether a request of this id is here, whose caller knows it."""
        with self._lock:
            call = None if stream_id is None else self._asked.get(stream_id) or self._drafts.get(stream_id)
            return call is not None and call.told

    def draft(self, stream_id: int | None) -> Call:
        """The request that is being put together or uploaded; for None the latest. Raises NoSuchStream.

        A caller that was given None for one, and ids for others, means that one.
        """
        with self._lock:
            call = self._drafts.get(stream_id) if stream_id is not None else self._latest_draft_locked()
        if call is None:
            raise self._unknown(stream_id, "is being put together or uploaded: begin with putrequest()")
        return call

    def _latest_draft_locked(self) -> Call | None:
        # First the thread's own, whatever others were told: what it adds must never get into their requests.
        latest = list(reversed(self._drafts.values()))
        mine = [call for call in latest if call.thread == threading.get_ident()] or latest
        return next((call for call in mine if not call.told), mine[0] if mine else None)

    def finished(self, call: Call) -> None:
        """Nothing is to be added to this request any more."""
        with self._lock:
            self._drafts.pop(call.stream_id, None)

    def forget(self, call: Call) -> None:
        """This request came to nothing."""
        with self._lock:
            self._drafts.pop(call.stream_id, None)
            self._asked.pop(call.stream_id, None)

    def take(self, stream_id: int | None) -> Call:
        """The request whose response is wanted; for None the oldest. Nobody else gets it. Raises NoSuchStream."""
        with self._lock:
            call = self._asked.get(stream_id) if stream_id is not None else _mine(self._asked.values())
            if call is not None:
                del self._asked[call.stream_id]
        if call is None:
            raise self._unknown(stream_id, "waits for a response: it was taken already, or never asked for")
        return call

    def give_back(self, call: Call) -> None:
        """The response was not taken after all."""
        with self._lock:
            self._asked = dict(sorted([*self._asked.items(), (call.stream_id, call)]))

    def pushes(self, stream_id: int | None) -> Pushes | None:
        """What is pushed beside the response to this request; for None the latest; None where nothing is."""
        with self._lock:
            known = stream_id is None or (stream_id % 2 == 1 and 0 < stream_id <= self._last_id)
            found = self._pushes_locked(stream_id) if known else None
        if not known:
            raise self._unknown(stream_id, "was made on this connection")
        return found

    def _pushes_locked(self, stream_id: int | None) -> Pushes | None:
        if stream_id is None:
            mine = [key for key, (thread, _) in self._pushes.items() if thread == threading.get_ident()]
            stream_id = next(reversed(mine or list(self._pushes)), -1)
        return self._pushes.get(stream_id, (0, None))[1]

    @property
    def outstanding(self) -> int:
        """How many responses nobody has taken."""
        with self._lock:
            return len(self._asked)

    @staticmethod
    def _unknown(stream_id: int | None, what: str) -> NoSuchStream:
        which = "no request" if stream_id is None else f"no request with the stream id {stream_id!r}"
        return NoSuchStream(f"{which} {what}", stream_id=stream_id)


def _mine(calls: Iterable[Call]) -> Call | None:
    """The first that this thread made, else the first."""
    first, here = None, threading.get_ident()
    for call in calls:
        if call.thread == here:
            return call
        first = first or call
    return first


# -- what a request is made of -----------------------------------------------------------------------------------------


def make_request(call: Call, origin: Origin, content: Any, *, timeout: Timeout, http2: bool) -> Request:
    """The request for the engine. Raises LocalProtocolError, InvalidURL for what cannot be asked of this origin.

    Pseudo-headers among the headers replace what method and URL say, as hyper has it. On HTTP/2 the fields that speak
    about an HTTP/1.1 connection are dropped (RFC 9113 8.2.2), with those that Connection names.
    """
    fields = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in call.headers.iter_raw()]
    pseudo = {name.lower(): value for name, value in fields if name.startswith(":")}
    fields = [(name, value) for name, value in fields if not name.startswith(":")]
    method = pseudo.pop(":method", call.method)
    target = _target(pseudo.pop(":path", call.target), origin, method)
    if pseudo.pop(":scheme", origin.scheme) != origin.scheme:
        raise LocalProtocolError(f"header ':scheme': this connection is for {origin.scheme}; leave it out")
    if (authority := pseudo.pop(":authority", None)) is not None:
        fields = [("Host", authority), *(pair for pair in fields if pair[0].lower() != "host")]
    if pseudo:
        raise LocalProtocolError(
            f"header {min(pseudo)!r}: there is no such pseudo-header in a request (RFC 9113 8.3.1)"
        )
    if http2:
        fields = _without_connection(fields)
    url = f"{origin}{'/' if target == '*' else target}"
    return Request(method, url, tuple(fields), content, timeout, _verbatim(target))


def _target(url: str, origin: Origin, method: str) -> str:
    """Path and query of what was given as URL; a whole URL must be of this connection's origin."""
    if url.startswith("/") or (url == "*" and method == "OPTIONS"):
        return url
    if not url or url.startswith("?"):
        return f"/{url}"
    if "://" not in url.partition("?")[0]:
        raise InvalidURL(f"{url!r}: give a path that begins with '/', or an absolute URL", origin=str(origin))
    parsed = parse_url(url)
    if parsed.origin != origin:
        raise InvalidURL(f"{url!r}: this connection leads to {origin}; make one to {parsed.origin}", origin=str(origin))
    return parsed.target


def _verbatim(target: str) -> str | None:
    """The target where it can go out as it stands; a URL would lose dots in it, and change percent-encodings."""
    clean = target.isascii() and target.isprintable() and not any(mark in target for mark in ' "#')
    return target if clean else None


def _without_connection(fields: list[tuple[str, str]]) -> list[tuple[str, str]]:
    named = [value.lower().split(",") for name, value in fields if name.lower() == "connection"]
    dropped = {name.decode() for name in CONNECTION_SPECIFIC} | {each.strip() for names in named for each in names}
    # `TE: trailers` is named by Connection on HTTP/1.1 and stays on HTTP/2 (RFC 9113 8.2.2).
    return [(name, value) for name, value in fields if name.lower() not in dropped - {"te"}]


def is_whole(body: Any) -> bool:
    """Whether a body is all here: bytes or str."""
    return body is None or isinstance(body, (str, *_BYTES_LIKE))


def length_of(file: Any) -> int | None:
    """The bytes that a file still has, where it can tell; its position stays."""
    try:
        start = file.tell()
        end = file.seek(0, os.SEEK_END)
        file.seek(start)
    except (AttributeError, OSError, ValueError):
        return None
    return max(int(end) - int(start), 0)


def pieces_of(body: Any) -> Iterator[bytes]:
    """A body as pieces of bytes: bytes, str (as UTF-8), a binary file, or an iterable of bytes."""
    if isinstance(body, str):
        yield body.encode()
    elif isinstance(body, (bytes, bytearray, memoryview)):
        yield bytes(body)
    elif hasattr(body, "read"):
        yield from map(_octets, iter(lambda: body.read(FILE_PIECE_BYTES) or b"", b""))
    elif isinstance(body, Iterable) and not isinstance(body, Mapping):
        yield from map(_octets, body)
    else:
        raise LocalProtocolError(f"a body must be bytes, str, a file or an iterable of bytes, not {body!r:.80}")


def _octets(piece: Any) -> bytes:
    if isinstance(piece, bytes):
        return piece
    if isinstance(piece, (bytearray, memoryview)):
        return bytes(piece)  # a copy: the caller may use its buffer for the next piece
    raise LocalProtocolError(f"the body gave {type(piece).__name__} where bytes are needed")
