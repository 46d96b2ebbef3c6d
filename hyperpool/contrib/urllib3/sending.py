"""What urllib3's callers give for a request, in the form in which hyperpool takes it: fields, body, timeout, proxy.

The rules are those of urllib3's own connections (``HTTPConnection.request``), where HTTP/2 has room for them.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from typing import Any

import urllib3
from urllib3._version import __version__ as urllib3_version
from urllib3.util import SKIP_HEADER

from hyperpool.proxies import PROXY_PORTS
from hyperpool.values import Proxy, Timeout, as_socket_options, as_source_address

# Bytes or characters of a file whose length is not declared, at a time.
_READ_SIZE = 1 << 16

_USER_AGENT = f"python-urllib3/{urllib3_version}"

# What urllib3 lets its callers leave out. Host goes out all the same: no HTTP version that is spoken here has requests
# without an authority (RFC 9112 3.2, RFC 9113 8.3.1).
_SKIPPABLE = frozenset({"accept-encoding", "host", "user-agent"})


def fields(headers: Mapping[Any, Any] | None, *, chunked: bool) -> tuple[tuple[str, str], ...]:
    """The header fields with what urllib3 adds to them.

    Raises ValueError for SKIP_HEADER where it has no meaning, and TypeError for what is no text.
    """
    given = [(_text(name), _text(value)) for name, value in (headers or {}).items()]
    names = {name.lower() for name, _ in given}
    added = []
    if "accept-encoding" not in names:
        added.append(("Accept-Encoding", "identity"))
    if "user-agent" not in names:
        added.append(("User-Agent", _USER_AGENT))
    if chunked and "transfer-encoding" not in names:
        added.append(("Transfer-Encoding", "chunked"))
    return tuple(added + [pair for pair in given if not _is_skipped(*pair)])


def _is_skipped(name: str, value: str) -> bool:
    if value != SKIP_HEADER:
        return False
    if name.lower() not in _SKIPPABLE:
        raise ValueError(f"urllib3.util.SKIP_HEADER only supports {', '.join(sorted(_SKIPPABLE))}, not {name!r}")
    return True


def _text(given: Any) -> str:
    if isinstance(given, str):
        return str.__str__(given)  # what an Enum of str stands for, as in urllib3
    if isinstance(given, (bytes, bytearray)):
        return given.decode("latin-1")
    if isinstance(given, int):
        return str(given)
    # As http.client has it: None is nothing that a server should read.
    raise TypeError(f"a header is str, bytes or int, not {given!r}")


# -- bodies ------------------------------------------------------------------------------------------------------------


class Pieces:
    """An iterable body whose str pieces go out as UTF-8; empty pieces are left out.

    As thread-safe as what it was given; read by the uploader thread.
    """

    def __init__(self, pieces: Any) -> None:
        self._pieces = pieces

    def __iter__(self) -> Iterator[Any]:
        return map(_octets, filter(None, self._pieces))


def _octets(piece: Any) -> Any:
    if isinstance(piece, str):
        return piece.encode()
    memoryview(piece)  # raises TypeError for what has no octets
    return piece


def content(body: Any, *, chunked: bool) -> Any:
    """The body as `hyperpool.values.Request.content`. Raises TypeError for what is none.

    ``chunked``: its length is not to be declared.
    """
    if body is None:
        return None
    if isinstance(body, str):
        body = body.encode()
    elif not isinstance(body, bytes) and not hasattr(body, "read"):
        body = _from_buffer_or_iterable(body)
    elif not isinstance(body, bytes) and (chunked or _may_give_text(body)):
        # Where it ends is not to be told, or cannot be: the positions of text are no numbers of bytes.
        body = _once(_read(body))
    return Pieces([body]) if chunked and isinstance(body, bytes) else body


def _may_give_text(file: Any) -> bool:
    """Whether ``read`` gives str, as far as can be known beforehand.

    The wrappers of tempfile and codecs are no TextIOBase.
    """
    if isinstance(file, (io.RawIOBase, io.BufferedIOBase)):
        return False
    return getattr(file, "encoding", None) is not None or "b" not in str(getattr(file, "mode", ""))


def _read(file: Any) -> Iterator[Any]:
    while piece := file.read(_READ_SIZE):
        yield piece


def _from_buffer_or_iterable(body: Any) -> Any:
    try:
        return bytes(memoryview(body))
    except TypeError:
        pass
    if isinstance(body, Mapping) or not hasattr(body, "__iter__"):
        raise TypeError(
            f"'body' must be a bytes-like object, file-like object, or iterable of bytes, not {type(body).__name__}"
        )
    # An iterator runs once: hyperpool must not take it for something that it could send again.
    return _once(body) if iter(body) is body else Pieces(body)


def _once(pieces: Any) -> Iterator[Any]:
    return iter(Pieces(pieces))


# -- time and way ------------------------------------------------------------------------------------------------------


def as_timeout(given: urllib3.Timeout) -> Timeout:
    """urllib3's Timeout as hyperpool's; None waits for ever, and so does what was not given.

    Waiting for a stream counts as connecting. A body that the peer does not take has the patience of reading.
    """
    given.start_connect()
    connect = urllib3.Timeout.resolve_default_timeout(given.connect_timeout)
    read = urllib3.Timeout.resolve_default_timeout(given.read_timeout)
    total = urllib3.Timeout.resolve_default_timeout(given.total)
    return Timeout(total, pool=connect, connect=connect, read=read, write=read)


def socket_way(given: Mapping[str, Any]) -> dict[str, Any]:
    """Of a pool's options, those about sockets, as fields of `hyperpool.values.Route`. Raises ValueError.

    Connections are shared by requests that agree in them.
    """
    way: dict[str, Any] = {}
    # To urllib3, no host at all is any address: so it is to the system, unless there is a port with it.
    if (source := given.get("source_address")) and tuple(source) != ("", 0):
        way["source_address"] = as_source_address(source)
    if options := given.get("socket_options"):
        way["socket_options"] = as_socket_options(options)
    return way


def as_proxy(url: Any, headers: Mapping[str, str], *, forwards: bool) -> Proxy:
    """The proxy of a ProxyManager. A password in its URL counts unless Proxy-Authorization was given.

    ``forwards``: urllib3 has put the proxy's fields among those of the request already.
    """
    names = {_text(name).lower() for name in headers}
    return Proxy(
        url.scheme,
        url.host.strip("[]").lower(),
        url.port or PROXY_PORTS[url.scheme],
        None if "proxy-authorization" in names else url.auth,
        () if forwards else tuple((_text(name), _text(value)) for name, value in headers.items()),
    )
