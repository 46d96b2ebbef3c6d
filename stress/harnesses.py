"""What `stress.fuzz` throws bytes at: one function for each door through which foreign bytes come in.

A harness takes one input and returns its outcome, as a short text in which kinds matter and values do not: inputs with
a new outcome are worth keeping. It raises whatever is wrong. Errors of hyperpool's tree are answers; every other
exception, and every broken promise that is written down here as an assert, is a finding.
"""

from __future__ import annotations

import importlib
import re
import sys
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import h2.config
import h2.connection
import h2.exceptions
import h11

from hyperpool.errors import (
    ConnectionLost,
    DecodeError,
    HyperpoolError,
    InvalidURL,
    LocalProtocolError,
    RemoteProtocolError,
)
from hyperpool.protocol import content, events
from hyperpool.protocol.fields import prepare_head
from hyperpool.protocol.h1_codec import H1Codec
from hyperpool.protocol.h2_codec import CANCEL, PROTOCOL_ERROR, H2Codec
from hyperpool.proxies import ProxyMap, _read_environment, parse_proxy, read_no_proxy
from hyperpool.urls import Origin, Url, parse_url
from hyperpool.values import Limits
from stress.redirect_chains import redirect_chain

ROOT = Path(__file__).resolve().parent.parent

GET = events.RequestHead(b"GET", b"https", b"a.test", b"/", ())
HEAD = events.RequestHead(b"HEAD", b"https", b"a.test", b"/", ())
POST = events.RequestHead(b"POST", b"https", b"a.test", b"/", (), None)
LIMITS = Limits(max_header_bytes=16 << 10)

PIECE_BYTES = 64 << 10
# One block of br or zstd more than was asked for (see `content.Decoder`).
MOST_BYTES = 1 << 20
ENOUGH_BYTES = 4 << 20
# A decoder that has input, and gives nothing this often in a row, does not get on.
IDLE_CALLS = 2_000


# -- what all share ----------------------------------------------------------------------------------------------------


def _cuts(data: bytes) -> Iterable[bytes]:
    """The same bytes in pieces whose sizes follow from them."""
    size, at = 1 + zlib.crc32(data) % 23, 0
    while at < len(data):
        yield data[at : at + size]
        at += size
        size = 1 + size * 7 % 61


def _joined(heard: list[events.Event]) -> list[Any]:
    """Events with pieces of body that follow each other made one: how they are cut is the network's business."""
    out: list[Any] = []
    for event in heard:
        last = out[-1] if out else None
        if isinstance(event, events.Data) and isinstance(last, events.Data) and last.stream_id == event.stream_id:
            event = events.Data(last.stream_id, last.data + event.data, last.flow_bytes + event.flow_bytes)
            out.pop()
        out.append(event)
    return out


def _check_events(heard: list[events.Event]) -> None:
    for event in heard:
        if isinstance(event, (events.Head, events.Interim)):
            assert 100 <= event.status <= 999, event
            for name, value in event.fields:
                assert name and not re.search(rb"[\0-\x20\x7f:]", name), event
                assert not re.search(rb"[\0\r\n]", value), event
        if isinstance(event, events.Broken):
            assert isinstance(event.error, RemoteProtocolError), event


def _outcome(heard: list[events.Event], failure: BaseException | None) -> str:
    kinds: list[str] = []
    for event in heard:
        if not kinds or kinds[-1] != type(event).__name__:
            kinds.append(type(event).__name__)
    return f"{' '.join(kinds[:12])} | {_kind(failure)}"


def _kind(error: BaseException | None) -> str:
    """An error's class and words, without what differs from input to input."""
    if error is None:
        return "well"
    words = re.sub(r"b?'(?:[^'\\]|\\.)*'|b?\"(?:[^\"\\]|\\.)*\"|\d[\d,.]*", "_", str(error))
    return f"{type(error).__name__}: {words[:90]}"


# -- HTTP/2 ------------------------------------------------------------------------------------------------------------


def _h2_session() -> H2Codec:
    """Streams 1 (asked), 3 (uploading), 5 (HEAD) and 7 (reset by us); the peer has said nothing."""
    codec = H2Codec(LIMITS)
    for head, end in ((GET, True), (POST, False), (HEAD, True), (GET, True)):
        codec.open(head, end=end)
    codec.reset(7, CANCEL)
    codec.data_to_send()
    return codec


def h2_input(data: bytes) -> str:
    """`H2Codec.receive`: whole and in pieces, with the same outcome; and what may be called afterwards."""
    whole, cut = _h2_session(), _h2_session()
    heard = whole.receive(data)
    while whole.held:
        heard += whole.receive(b"")
    in_pieces: list[events.Event] = []
    for piece in _cuts(data):
        if cut.failure is None:
            in_pieces += cut.receive(piece)
    assert not cut.held
    _check_events(heard)
    assert type(whole.failure) is type(cut.failure), (whole.failure, cut.failure)
    assert repr(_joined(heard)) == repr(_joined(in_pieces)), "another outcome where the bytes come in pieces"
    said = whole.data_to_send()
    assert len(said) <= 64 * len(data) + 1_000, "amplification"
    assert whole.failure is None or isinstance(whole.failure, RemoteProtocolError)
    _use_h2(whole)
    return _outcome(heard, whole.failure)


def _use_h2(codec: H2Codec) -> None:
    """What a connection does next, whatever it has heard."""
    for stream_id in (1, 3, 5, 7):
        codec.grant(1_000, stream_id)
        codec.reset(stream_id, PROTOCOL_ERROR)
    codec.grant(1_000)
    codec.data_to_send()
    codec.receive_eof()


def h2_connection(data: bytes) -> str:
    """A whole connection on the step-driven bench: requests, then these bytes, then time, then the laws."""
    bench_room = _engine_bench()
    bench = bench_room.Bench(LIMITS)
    calls = [
        bench.submit("/get"),
        bench.submit("/stream", stream=True),
        bench.submit("/post", content=b"p" * 100_000),
        bench.submit("/head", method="HEAD"),
    ]
    try:
        bench.run()
        peer = bench.connect_h2()
        bench.run()
        peer.send(data)
        bench.run()
        streamed = calls[1]
        if streamed.done and streamed.error is None:
            _read(streamed)
        calls[0].future.cancel()
        bench.advance(30.0)
    finally:
        bench.close()
    errors = [call.error for call in calls if not call.future.cancelled()]
    for error in errors:
        assert error is None or isinstance(error, HyperpoolError), error
        assert "bug in hyperpool" not in str(error), error
    return " / ".join(_kind(error)[:60] for error in errors)


def _read(call: Any) -> None:
    try:
        call.read()
    except HyperpoolError:
        return


def _engine_bench() -> Any:
    folder = str(ROOT / "tests/engine")
    if folder not in sys.path:
        sys.path.append(folder)
    return importlib.import_module("engine_bench")


# -- HTTP/1.1 ----------------------------------------------------------------------------------------------------------


def _h1_session() -> H1Codec:
    codec = H1Codec(max_header_bytes=LIMITS.max_header_bytes)
    codec.open(GET, end=True)
    codec.data_to_send()
    return codec


def h1_response(data: bytes) -> str:
    """`H1Codec.receive`, whole and in pieces, then the end of the connection."""
    whole, cut = _h1_session(), _h1_session()
    heard = whole.receive(data)
    in_pieces: list[events.Event] = []
    for piece in _cuts(data):
        if cut.failure is None:
            in_pieces += cut.receive(piece)
    heard += whole.receive_eof()
    in_pieces += cut.receive_eof()
    _check_events(heard)
    assert whole.failure is None or isinstance(whole.failure, (RemoteProtocolError, ConnectionLost)), whole.failure
    assert type(whole.failure) is type(cut.failure), (whole.failure, cut.failure)
    assert repr(_joined(heard)) == repr(_joined(in_pieces)), "another outcome where the bytes come in pieces"
    ends = sum(isinstance(event, events.End) for event in heard)
    assert ends <= 1, "one request, two responses"
    return _outcome(heard, whole.failure)


def h1_chunked(data: bytes) -> str:
    """A chunked body, behind a good head."""
    return h1_response(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + data)


# -- what callers give -------------------------------------------------------------------------------------------------


def url(data: bytes) -> str:
    """`parse_url`: what it lets through has one host, and a target that is one word."""
    text = data.decode("utf-8", "surrogateescape")
    try:
        parsed = parse_url(text)
    except InvalidURL as error:
        return _kind(error)
    origin = parsed.origin
    for part in (origin.host, parsed.target):
        assert part.isascii() and not re.search(r"[\0-\x20\x7f]", part), (text, part)
    assert origin.host and not re.search(r"[/?#@\\]", origin.host), (text, origin)
    assert 1 <= origin.port <= 65_535 and origin.scheme in ("http", "https")
    assert parsed.target[:1] in "/*" and "#" not in parsed.target
    again = parse_url(str(origin) + parsed.target)
    assert (again.origin, again.target) == (origin, parsed.target), "a URL means something else the second time"
    return f"{origin.scheme} {re.sub('[a-z0-9]+', '_', origin.host)} {origin.port != 443}"[:60]


def header(data: bytes) -> str:
    """`prepare_head`, and both codecs: what it lets through is one request to servers that check."""
    lines = data.decode("utf-8", "surrogateescape").split("\n")
    method, target, *rest = [*lines, "", ""][: max(len(lines), 2)]
    pairs = [(name, value) for name, _, value in (line.partition(":") for line in rest if line)]
    try:
        head = prepare_head(
            method=method,
            url=Url(Origin("http", "a.test", 80), target or "/", None, "", "", ""),
            headers=pairs,
            body_bytes=0,
        )
    except LocalProtocolError as error:
        return _kind(error)
    _send_h1(head)
    _send_h2(head)
    return f"good {len(head.fields)} {head.body_bytes}"


def _send_h1(head: events.RequestHead) -> None:
    codec = H1Codec(max_header_bytes=1 << 20)
    try:
        codec.open(head, end=True)
    except LocalProtocolError:
        return  # e.g. CONNECT, which is the tunnel's
    wire = codec.data_to_send()
    server = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    server.receive_data(wire)
    heard = [server.next_event() for _ in range(2)]
    assert isinstance(heard[0], h11.Request) and isinstance(heard[1], h11.EndOfMessage), (wire, heard)
    assert not server.trailing_data[0], ("smuggled", wire)
    assert len(heard[0].headers) == len(head.fields) + 1, ("a field more or less", wire)


def _send_h2(head: events.RequestHead) -> None:
    codec = H2Codec(LIMITS)
    codec.open(head, end=True)
    server = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding=None))
    server.decoder.max_header_list_size = 1 << 20
    server.initiate_connection()
    heard = server.receive_data(codec.data_to_send())
    assert any(type(event).__name__ == "RequestReceived" for event in heard), heard


def proxies(data: bytes) -> str:
    """The environment's proxies: only InvalidURL comes out, and no password with it."""
    lines = [*data.decode("utf-8", "surrogateescape").split("\n"), "", "", "", "", ""]
    environ = dict(zip(("http_proxy", "HTTPS_PROXY", "all_proxy", "no_proxy"), lines, strict=False))
    for line in lines[:3]:
        _check_secret(line)
    for exemption in read_no_proxy(lines[3]):
        for host in (lines[4] or "a.test", "127.0.0.1", "::1"):
            exemption.covers(Origin("http", host, 80))
    try:
        entries, _ = _read_environment(environ)
        ProxyMap({"http": lines[0], "no_proxy": lines[3]}).choose(Origin("http", "a.test", 80))
    except InvalidURL as error:
        return _kind(error)
    return "good " + " ".join(f"{key}={proxy.scheme if proxy else ''}" for key, proxy in sorted(entries.items()))


def _check_secret(text: str) -> None:
    found = re.search(r":([a-z]{6,})@", text)
    secret = found[1] if found else ""
    try:
        shown = repr(parse_proxy(text))
    except InvalidURL as error:
        shown = f"{error} {error.__cause__}"
    # What also stands behind the last "@" is shown as a part of the host, and is no secret.
    if secret and secret not in text.rpartition("@")[2]:
        assert secret not in shown, "a password is shown"


# -- bodies ------------------------------------------------------------------------------------------------------------

CODINGS = ("gzip", "deflate", "br", "zstd", "gzip, gzip", "deflate, br", "zstd, gzip")


def decoding(data: bytes) -> str:
    """Content-Encoding: the first byte says which, the rest is the body. Pieces are bounded, and it gets on."""
    coding = CODINGS[data[0] % len(CODINGS)] if data else "gzip"
    decoder = content.make_decoder(coding)
    if decoder is None:
        return "not installed"
    total = idle = 0
    try:
        for piece in [*_cuts(data[1:]), None]:
            out = decoder.flush() if piece is None else decoder.decode(piece, PIECE_BYTES)
            while True:
                assert len(out) <= PIECE_BYTES + MOST_BYTES, f"{coding}: {len(out):,} bytes at once"
                total += len(out)
                idle = 0 if out else idle + 1
                assert idle < IDLE_CALLS, f"{coding}: it does not get on"
                if total > ENOUGH_BYTES:
                    return f"{coding} bomb"
                if piece is None or decoder.needs_input:
                    break
                out = decoder.decode(b"", PIECE_BYTES)
    except DecodeError as error:
        return _kind(error)
    return f"{coding} {total.bit_length()}"


HARNESSES: dict[str, Callable[[bytes], str]] = {
    "h2": h2_input,
    "h2-connection": h2_connection,
    "h1": h1_response,
    "h1-chunked": h1_chunked,
    "url": url,
    "header": header,
    "content": decoding,
    "proxies": proxies,
    "redirects": redirect_chain,
}
