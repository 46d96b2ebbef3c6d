"""The handlers that a server has without being told: bodies of any size, echoes, delays, codings, faults.

The paths are part of the test kit's interface; `DEFAULT_PATHS` lists them. Bodies are made of `pattern`, so that a
test can check any slice of a huge one without holding it.
"""

from __future__ import annotations

import functools
import gzip
import hashlib
import json
import zlib
from collections.abc import Iterator

from hyperpool.testing.messages import AnswerLike, Disconnect, Handler, Refuse, Reply, Request, Reset, Silence, inline

# A prime, so that no frame, record or buffer size divides it: a piece in the wrong place never looks right.
_PERIOD_BYTES = 65_521
_PIECE_BYTES = 64 << 10
_CODED_BYTES = 10_000

_FAULTS: dict[str, AnswerLike] = {
    "reset": Reset(),
    "refuse": Refuse(),
    "disconnect": Disconnect(),
    "silence": Silence(),
}


@functools.cache
def _period() -> bytes:
    # Twice, so that any slice that begins in the first one is contiguous.
    return hashlib.shake_128(b"hyperpool").digest(_PERIOD_BYTES) * 2


def pattern_at(offset: int, n: int) -> bytes:
    """``n`` bytes of the endless deterministic pattern, from ``offset`` on."""
    start = offset % _PERIOD_BYTES
    if start + n <= 2 * _PERIOD_BYTES:
        return _period()[start : start + n]
    turns = (start + n) // _PERIOD_BYTES + 1
    return (_period()[:_PERIOD_BYTES] * turns)[start : start + n]


def pattern(n: int) -> bytes:
    """The first ``n`` bytes of the pattern."""
    return pattern_at(0, n)


def pattern_pieces(n: int) -> Iterator[bytes]:
    """The first ``n`` bytes of the pattern, in pieces of 64 KiB."""
    for offset in range(0, n, _PIECE_BYTES):
        yield pattern_at(offset, min(_PIECE_BYTES, n - offset))


def _number(request: Request) -> int:
    last = request.path.rpartition("/")[2]
    return int(last) if last.isdecimal() else 0


def _json(value: object, status: int = 200) -> Reply:
    return Reply(status, (("content-type", "application/json"),), json.dumps(value).encode())


@inline
def _bytes(request: Request) -> AnswerLike:
    n = _number(request)
    headers = (("content-type", "application/octet-stream"), ("content-length", str(n)))
    return Reply(200, headers, pattern(n) if n <= _PIECE_BYTES else pattern_pieces(n))


@inline
def _chunked(request: Request) -> AnswerLike:
    return Reply(200, (("content-type", "application/octet-stream"),), pattern_pieces(_number(request)))


def _content_type(request: Request) -> tuple[tuple[str, str], ...]:
    return (("content-type", request.header("content-type") or "application/octet-stream"),)


def _echo(request: Request) -> AnswerLike:
    return Reply(200, _content_type(request), request.read())


def _duplex(request: Request) -> AnswerLike:
    return Reply(200, _content_type(request), request.iter_body())


def _sha256(request: Request) -> AnswerLike:
    digest, length = hashlib.sha256(), 0
    for piece in request.iter_body():
        digest.update(piece)
        length += len(piece)
    return _json({"sha256": digest.hexdigest(), "length": length})


@inline
def _status(request: Request) -> AnswerLike:
    status = _number(request)
    return Reply(status, body=b"" if _is_redirect(status) else f"status {status}\n", headers=_location(status))


def _is_redirect(status: int) -> bool:
    return status in (301, 302, 303, 307, 308)


def _location(status: int) -> tuple[tuple[str, str], ...]:
    return (("location", "/"),) if _is_redirect(status) else ()


def _delay(request: Request) -> AnswerLike:
    seconds = float(request.path.rpartition("/")[2])
    return Silence() if request.wait_gone(seconds) else f"waited {seconds} s\n"


@inline
def _headers(request: Request) -> AnswerLike:
    return _json(request.headers)


@inline
def _gzip(request: Request) -> AnswerLike:
    return Reply(200, (("content-encoding", "gzip"),), gzip.compress(pattern(_CODED_BYTES), mtime=0))


@inline
def _deflate(request: Request) -> AnswerLike:
    return Reply(200, (("content-encoding", "deflate"),), zlib.compress(pattern(_CODED_BYTES)))


@inline
def _trailers(request: Request) -> AnswerLike:
    digest = hashlib.sha256(b"trailers follow\n").hexdigest()
    return Reply(200, (("trailer", "x-sha256"),), b"trailers follow\n", trailers=(("x-sha256", digest),))


@inline
def _early(request: Request) -> AnswerLike:
    return Reply(_number(request), body=b"enough\n", stop_upload=True)


@inline
def _fault(request: Request) -> AnswerLike:
    return _FAULTS.get(request.path.rpartition("/")[2], 404)


@inline
def describe(request: Request) -> AnswerLike:
    """The answer to every other path: method and target as JSON."""
    return _json({"method": request.method, "target": request.target})


DEFAULT_PATHS: dict[str, Handler] = {
    "/bytes/": _bytes,  # /bytes/N: N bytes of the pattern, with content-length
    "/chunked/": _chunked,  # /chunked/N: the same without
    "/echo": _echo,  # the body back, after it was read whole
    "/duplex": _duplex,  # the body back while it arrives
    "/sha256": _sha256,  # {"sha256": hex, "length": n} of the upload, which is not kept
    "/status/": _status,  # /status/N; redirects lead to /
    "/delay/": _delay,  # /delay/SECONDS
    "/headers": _headers,  # the request's fields as a JSON list of pairs
    "/gzip": _gzip,  # pattern(10000), coded
    "/deflate": _deflate,
    "/trailers": _trailers,  # x-sha256 of the body in a trailer field
    "/early/": _early,  # /early/413: answers without reading the upload, and stops it
    "/fault/": _fault,  # /fault/reset, /refuse, /disconnect, /silence
}
