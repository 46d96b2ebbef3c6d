"""The MUSTs of RFC 9112 that a server can break towards a client, or a client itself: one case for each.

Bytes against `H1Codec` and `prepare_head`. Each case is named by its section. What other files hold already is not
repeated: `HELD` says where it stands, and a test looks whether it still does.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from test_hostile_http1 import CHUNKED, LAST, OK, body, outcome

from hyperpool.errors import ConnectionLost, LocalProtocolError
from hyperpool.protocol import events
from hyperpool.protocol.events import Data, End, Head, RequestHead
from hyperpool.protocol.fields import forwarded, prepare_head
from hyperpool.protocol.h1_codec import H1Codec
from hyperpool.proxies import parse_proxy
from hyperpool.urls import parse_url

HERE = Path(__file__).resolve().parent
NOTHING = OK + b"Content-Length: 0\r\n\r\n"


def codec_for(method: bytes = b"GET") -> H1Codec:
    codec = H1Codec()
    codec.open(RequestHead(method, b"http", b"a.test", b"/", ()), end=True)
    codec.data_to_send()
    return codec


def heard_by(method: bytes, wire: bytes, *, eof: bool = False) -> tuple[list[Any], H1Codec]:
    codec = codec_for(method)
    heard = codec.receive(wire)
    if eof:
        heard += codec.receive_eof()
    return heard, codec


# -- what a server must not do -----------------------------------------------------------------------------------------

BREAKS: dict[str, bytes] = {
    "9112-2.1 a request in place of a response": b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n",
    "9112-2.2 a blank before the first field": OK + b" X: y\r\nContent-Length: 0\r\n\r\n",
    "9112-2.2 a line of blanks before the first field": OK + b" \r\nContent-Length: 0\r\n\r\n",
    "9112-2.2 a bare CR as the end of the status line": b"HTTP/1.1 200 OK\rContent-Length: 0\r\n\r\n",
    "9112-2.3 a version of two digits": b"HTTP/11 200 OK\r\n\r\n",
    "9112-2.3 no dot in the version": b"HTTP/1,1 200 OK\r\n\r\n",
    "9112-2.3 another protocol": b"RTSP/1.0 200 OK\r\n\r\n",
    "9112-4 letters for the status": b"HTTP/1.1 OK 200\r\n\r\n",
    "9112-4 no blank between version and status": b"HTTP/1.1200 OK\r\n\r\n",
    "9112-4 a blank before the status line": b" HTTP/1.1 200 OK\r\n\r\n",
    "9112-5 a field without a colon": OK + b"Content-Length 0\r\n\r\n",
    "9112-5 a field without a name": OK + b": x\r\n\r\n",
    "9112-5.1 a blank before the colon": OK + b"X : y\r\n\r\n",
    "9112-6.1 an unknown coding": OK + b"Transfer-Encoding: br\r\n\r\n",
    "9112-6.1 an empty coding": OK + b"Transfer-Encoding:\r\n\r\n",
    "9112-6.1 an unknown coding before chunked": OK + b"Transfer-Encoding: br, chunked\r\n\r\n" + LAST,
    "9112-6.3 two lengths in one field": OK + b"Content-Length: 3, 3\r\n\r\nabc",
    "9112-6.3 a length that is negative": OK + b"Content-Length: -1\r\n\r\n",
    "9112-7.1 a chunk that is negative": CHUNKED + b"-1\r\n\r\n" + LAST,
    "9112-7.1 a chunk without its CRLF": CHUNKED + b"3\r\nabc" + LAST,
    "9112-7.1 a chunk size that overflows 64 bits": CHUNKED + b"1" + b"0" * 16 + b"\r\nabc",
    "9112-7.1.2 a status line among the trailers": CHUNKED + b"0\r\n" + NOTHING,
    "9112-9.3 a second response that nobody asked for": NOTHING + NOTHING,
    "9112-9.3 an interim head behind the response": NOTHING + b"HTTP/1.1 103 X\r\n\r\n",
}


@pytest.mark.parametrize("must", BREAKS)
def test_a_server_that_breaks_it_is_refused_and_the_connection_with_it(must: str) -> None:
    heard, failure = outcome(BREAKS[must])
    assert failure != "None"
    assert End(1) not in heard or BREAKS[must].startswith(NOTHING)


# What must not end well where the connection ends behind it (RFC 9112 8).
INCOMPLETE: dict[str, bytes] = {
    "9112-8 nothing at all": b"",
    "9112-8 half a status line": b"HTTP/1.1 20",
    "9112-8 a head without its end": OK + b"Content-Length: 3\r\n",
    "9112-8 an interim head alone": b"HTTP/1.1 103 Hints\r\n\r\n",
    "9112-8 less than the length": OK + b"Content-Length: 4\r\n\r\nabc",
    "9112-8 nothing of the length": OK + b"Content-Length: 4\r\n\r\n",
    "9112-8 chunks without the last": CHUNKED + b"3\r\nabc\r\n",
    "9112-8 half a chunk": CHUNKED + b"3\r\nab",
    "9112-8 half a chunk line": CHUNKED + b"3",
    "9112-8 a chunk without its CRLF": CHUNKED + b"3\r\nabc\r",
    "9112-8 the last chunk without its end": CHUNKED + b"3\r\nabc\r\n0\r\n",
    "9112-8 the last chunk with half its end": CHUNKED + b"3\r\nabc\r\n0\r\n\r",
    "9112-8 half a trailer": CHUNKED + b"3\r\nabc\r\n0\r\nX: y",
}


@pytest.mark.parametrize("must", INCOMPLETE)
def test_a_message_that_is_cut_short_is_never_complete(must: str) -> None:
    heard, codec = heard_by(b"GET", INCOMPLETE[must], eof=True)
    assert type(codec.failure) is ConnectionLost
    assert End(1) not in heard


# By name: the method, the wire behind it, the body that it has, and whether the connection may carry another request.
MEANS: dict[str, tuple[bytes, bytes, bytes, bool]] = {
    "9112-6.3 HEAD has no body, whatever its length": (b"HEAD", OK + b"Content-Length: 5\r\n\r\n", b"", True),
    "9112-6.3 HEAD has no body, whatever its coding": (b"HEAD", CHUNKED, b"", True),
    "9112-6.3 204 has no body": (b"GET", b"HTTP/1.1 204 X\r\n\r\n", b"", True),
    "9112-6.3 304 has no body, whatever its length": (
        b"GET",
        b"HTTP/1.1 304 X\r\nContent-Length: 5\r\n\r\n",
        b"",
        True,
    ),
    "9112-6.3 a length of nothing": (b"GET", NOTHING, b"", True),
    "9112-6.3 a length": (b"GET", OK + b"Content-Length: 3\r\n\r\nabc", b"abc", True),
    "9112-7.1 hexadecimal in both cases": (b"GET", CHUNKED + b"00000A\r\n0123456789\r\n" + LAST, b"0123456789", True),
    "9112-7.1.1 extensions that nobody knows": (b"GET", CHUNKED + b"3;x=y\r\nabc\r\n0;z\r\n\r\n", b"abc", True),
    "9110-5.6.3 blanks before extensions": (b"GET", CHUNKED + b"3 ; x = y\r\nabc\r\n0 ;z\r\n\r\n", b"abc", True),
    "9112-2.3 HTTP/1.0 is not kept": (b"GET", b"HTTP/1.0 200 X\r\nContent-Length: 3\r\n\r\nabc", b"abc", False),
    "9112-9.6 close is obeyed": (b"GET", OK + b"Connection: close\r\nContent-Length: 3\r\n\r\nabc", b"abc", False),
    "9112-9.6 close among others": (
        b"GET",
        OK + b"Connection: x, CLOSE\r\nContent-Length: 3\r\n\r\nabc",
        b"abc",
        False,
    ),
    "9112-9.6 close in a second field": (
        b"GET",
        OK + b"Connection: x\r\nConnection: close\r\nContent-Length: 3\r\n\r\nabc",
        b"abc",
        False,
    ),
    "9112-9.3 an interim head first": (b"GET", b"HTTP/1.1 100 X\r\n\r\n" + NOTHING, b"", True),
}


@pytest.mark.parametrize("must", MEANS)
def test_a_message_ends_where_the_rfc_says(must: str) -> None:
    method, wire, wanted, reusable = MEANS[must]
    heard, codec = heard_by(method, wire)
    assert (body(heard), heard[-1], codec.failure) == (wanted, End(1), None)
    assert codec.reusable is reusable


def test_9112_6_3_a_body_without_framing_ends_with_the_connection() -> None:
    heard, codec = heard_by(b"GET", OK + b"\r\nabc", eof=True)
    assert (body(heard), heard[-1], codec.reusable) == (b"abc", End(1), False)


def test_9112_5_2_a_fold_is_read_as_blanks() -> None:
    heard, _ = heard_by(b"GET", OK + b"X: a\r\n\t b\r\nContent-Length: 0\r\n\r\n")
    assert isinstance(heard[0], Head) and heard[0].fields[0] == (b"x", b"a b")


def test_9112_7_1_2_trailers_stay_apart_from_the_head() -> None:
    heard, _ = heard_by(b"GET", CHUNKED + b"3\r\nabc\r\n0\r\nX: y\r\n\r\n")
    assert [type(event) for event in heard] == [Head, Data, events.Trailers, End]
    assert not any(name == b"x" for name, _ in heard[0].fields)


# -- what a client must do ---------------------------------------------------------------------------------------------


def written(url: str = "http://a.test/x", *, method: str = "GET", body_bytes: int | None = 0, **headers: str) -> bytes:
    pairs = [(name.replace("_", "-"), value) for name, value in headers.items()]
    request = prepare_head(method=method, url=parse_url(url), headers=pairs, body_bytes=body_bytes)
    return wire_of(request, end=body_bytes == 0)


def wire_of(request: RequestHead, *, end: bool = True) -> bytes:
    codec = H1Codec()
    codec.open(request, end=end)
    return codec.data_to_send()


class TestWhatWeSend:
    def test_9112_3_a_request_line_is_method_target_version(self) -> None:
        assert written().startswith(b"GET /x HTTP/1.1\r\n")

    @pytest.mark.parametrize("target", ["/a b", "/a\tb", "/a\rb", "/a\nb", "/a\x0bb"])
    def test_9112_3_2_no_blank_stands_in_a_target(self, target: str) -> None:
        try:
            line, _, _ = written("http://a.test" + target).partition(b"\r\n")
        except (LocalProtocolError, ValueError):
            return
        assert line.count(b" ") == 2 and b"\t" not in line and b"\r" not in line and b"\n" not in line

    def test_9112_3_2_host_stands_there_first_and_once(self) -> None:
        lines = written(X="y").split(b"\r\n")
        assert lines[1].lower() == b"host: a.test"
        assert sum(line.lower().startswith(b"host:") for line in lines) == 1

    def test_9112_3_2_host_is_the_targets_authority_without_its_user(self) -> None:
        wire = written("http://user:secret@a.test:8080/")
        assert b"\r\nHost: a.test:8080\r\n" in wire and b"user" not in wire.split(b"\r\n")[1]

    def test_9112_3_2_1_an_empty_path_is_a_slash(self) -> None:
        assert written("http://a.test").startswith(b"GET / ")
        assert written("http://a.test?q").startswith(b"GET /?q ")

    def test_9112_3_2_2_a_proxy_gets_the_absolute_form(self) -> None:
        request = prepare_head(method="GET", url=parse_url("http://a.test/x?y"), headers=[], body_bytes=0)
        wire = wire_of(forwarded(request, parse_proxy("http://p.test"), http2=False))
        assert wire.startswith(b"GET http://a.test/x?y HTTP/1.1\r\nHost: a.test\r\n")

    def test_9112_3_2_4_the_options_of_a_server_have_the_asterisk_form(self) -> None:
        request = RequestHead(b"OPTIONS", b"http", b"a.test", b"*", ())
        assert wire_of(request).startswith(b"OPTIONS * HTTP/1.1\r\n")

    def test_9112_5_1_no_blank_stands_before_a_colon(self) -> None:
        for line in written(X_A="b", Y="").split(b"\r\n")[1:-2]:
            name, colon, _ = line.partition(b":")
            assert colon and name == name.strip()

    def test_9112_5_2_no_field_is_folded(self) -> None:
        for value in ("a\r\n b", "a\n b", "a\r\n\tb"):
            with pytest.raises(LocalProtocolError):
                written(X=value)

    def test_9112_6_1_a_length_and_a_coding_never_stand_together(self) -> None:
        known, unknown = written(method="POST", body_bytes=3), written(method="POST", body_bytes=None)
        assert (b"Content-Length: 3" in known, b"Transfer-Encoding" in known) == (True, False)
        assert (b"Content-Length" in unknown, b"Transfer-Encoding: chunked" in unknown) == (False, True)

    def test_9112_6_1_chunked_is_applied_once_and_last(self) -> None:
        wire = written(method="POST", body_bytes=None, Transfer_Encoding="chunked")
        assert wire.lower().count(b"transfer-encoding") == wire.count(b"chunked") == 1

    def test_9112_6_2_a_body_in_chunks_is_what_its_chunks_say(self) -> None:
        codec = H1Codec()
        codec.open(RequestHead(b"POST", b"http", b"a.test", b"/", (), None), end=False)
        codec.data_to_send()
        codec.send(1, b"0123456789abcdef", end=False)
        codec.send(1, b"", end=False)
        codec.send(1, b"x", end=True)
        assert codec.data_to_send() == b"10\r\n0123456789abcdef\r\n1\r\nx\r\n0\r\n\r\n"

    def test_9112_6_3_a_request_without_a_body_has_no_framing(self) -> None:
        wire = written().lower()
        assert b"content-length" not in wire and b"transfer-encoding" not in wire

    def test_9112_7_4_te_is_named_by_connection(self) -> None:
        """RFC 9110 10.1.4 as well."""
        wire = written(TE="trailers").lower()
        assert b"te: trailers" in wire and b"connection: te" in wire

    def test_9112_9_2_a_request_waits_for_the_response_before_it(self) -> None:
        """We never pipeline; a response behind a response is nobody's."""
        codec = codec_for()
        assert not codec.reusable
        codec.receive(NOTHING)
        assert codec.reusable

    def test_9112_9_6_nothing_is_sent_behind_our_own_close(self) -> None:
        codec = H1Codec()
        codec.open(RequestHead(b"GET", b"http", b"a.test", b"/", ((b"Connection", b"close"),)), end=True)
        codec.receive(NOTHING)
        assert not codec.reusable


# -- what stands elsewhere ---------------------------------------------------------------------------------------------

# By section: the file, and a word of it that names the case (a form, or a test).
HELD: dict[str, tuple[str, str]] = {
    "9112-2.2 bare LF": ("test_hostile_http1.py", "2.2 an LF alone behind the status line"),
    "9112-2.2 bare CR": ("test_hostile_http1.py", "2.2 a CR alone in a value"),
    "9112-2.3 versions": ("test_hostile_http1.py", "2.3 HTTP/1.10"),
    "9112-3.2.3 CONNECT has the authority form": ("../engine/test_tunnel.py", "CONNECT "),
    "9112-4 status lines": ("test_hostile_http1.py", "4 a status of four digits"),
    "9112-5 NUL and controls": ("test_hostile_http1.py", "9110 5.5 a NUL in a value"),
    "9112-5.1 blanks before a colon": ("test_hostile_http1.py", "5.1 a blank before the colon of a length"),
    "9112-5.2 folded framing": ("test_hostile_http1.py", "6.1 a folded coding"),
    "9112-6.1 chunked is last": ("test_hostile_http1.py", "6.1 chunked before another"),
    "9112-6.1 codings in HTTP/1.0": ("test_hostile_http1.py", "6.1 a coding in HTTP/1.0"),
    "9112-6.3 a coding beside a length": ("test_hostile_http1.py", "6.1 a coding beside a length"),
    "9112-6.3 two lengths": ("test_hostile_http1.py", "6.3 two lengths that do not agree"),
    "9112-7.1 chunk sizes": ("test_hostile_http1.py", "7.1 a size of 17 digits"),
    "9112-7.1.1 chunk extensions": ("test_hostile_http1.py", "7.1.1 an extension past the limit"),
    "9112-7.1.2 framing in trailers": ("test_hostile_http1.py", "9110 6.5.1 a length as trailer"),
    "9112-8 what is missing is said": ("test_hostile_http1.py", "test_an_early_end_says_how_far_it_came"),
    "9112-9.3.1 what may be repeated": (
        "../engine/test_loop_http1.py",
        "test_a_post_that_a_kept_alive_connection",
    ),
    "9112-9.3.2 no pipelining": ("../engine/test_loop_http1.py", "test_requests_are_never_pipelined"),
    "9112-9.5 an early answer ends an upload": (
        "../engine/test_loop_http1.py",
        "test_an_early_answer_ends_the_upload_and_the_connection",
    ),
    "9112-9.8 TLS that is cut short": ("../client/test_client_tls_faults.py", "truncat"),
    "9112-11.1 splitting by the caller": ("../client/test_client_injection_matrix.py", "GET /evil"),
    "9112-11.2 bytes behind the end": ("test_hostile_http1.py", "11.2 a second response behind the end"),
}


@pytest.mark.parametrize("must", HELD)
def test_what_is_held_elsewhere_still_is(must: str) -> None:
    file, word = HELD[must]
    assert word in (HERE / file).read_text(), f"{must}: {word!r} is no longer in {file}"
