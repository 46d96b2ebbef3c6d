"""The rules for heads: what they refuse, and that h2 and h11 have no objection to anything they let through."""

from __future__ import annotations

import string
from typing import Any

import h2.config
import h2.connection
import h11
import hpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hyperpool.errors import LocalProtocolError
from hyperpool.protocol import fields
from hyperpool.protocol.events import RequestHead
from hyperpool.protocol.fields import head_fields_for_h2, prepare_head
from hyperpool.urls import Origin, Url

SECRET = "hunter2"
TCHARS = "!#$%&'*+-.^_`|~" + string.digits + string.ascii_letters


def url(target: str = "/x", *, scheme: str = "https", host: str = "a.test", port: int = 443) -> Url:
    origin = Origin(scheme, host, port)
    return Url(origin, target, None, "", "", str(origin))


def prepare(*headers: tuple[Any, Any], method: Any = "GET", to: Url | None = None, body: int | None = 0) -> RequestHead:
    return prepare_head(method=method, url=to or url(), headers=headers, body_bytes=body)


def refusal(*headers: tuple[Any, Any], **how: Any) -> LocalProtocolError:
    with pytest.raises(LocalProtocolError) as caught:
        prepare(*headers, **how)
    return caught.value


class TestMethods:
    @pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PURGE", "get", "M-SEARCH", TCHARS])
    def test_a_token_is_a_method_in_its_own_case(self, method: str) -> None:
        """RFC 9110 9.1: methods are case-sensitive."""
        assert prepare(method=method).method == method.encode()

    @pytest.mark.parametrize(
        "method", ["", " ", "GET ", " GET", "GE T", "GET\r\n", "GET\n", "G\0T", "G\x7fT", "G:T", "G/T", "GÉT", "G€T"]
    )
    def test_what_is_no_token_is_refused(self, method: str) -> None:
        """P6."""
        assert "not a token" in str(refusal(method=method))

    @pytest.mark.parametrize("method", [b"GET", None, 7])
    def test_a_method_is_text(self, method: Any) -> None:
        assert "not a token" in str(refusal(method=method))

    def test_connect_is_no_request(self) -> None:
        assert "proxy=" in str(refusal(method="CONNECT"))

    def test_what_may_be_repeated_is_what_the_rfc_says(self) -> None:
        """RFC 9110 9.2.2: every safe method is idempotent; POST and PATCH are not."""
        assert fields.SAFE < fields.IDEMPOTENT
        assert {"PUT", "DELETE"} == fields.IDEMPOTENT - fields.SAFE


class TestPairs:
    @pytest.mark.parametrize("one", ["X-A", ("X-A",), ("X-A", "1", "2"), None, 7, (["X-A"], "1")], ids=repr)
    def test_what_is_no_pair_is_refused(self, one: Any) -> None:
        with pytest.raises(LocalProtocolError, match="pairs of str") as caught:
            prepare(("X-B", SECRET), one)
        assert (caught.value.origin, caught.value.processed) == ("https://a.test", "no")
        assert SECRET not in str(caught.value)

    def test_an_error_that_has_to_do_with_something_else_is_not_hidden(self) -> None:
        with pytest.raises(TypeError, match="unhashable"):
            prepare(("X-A", "1"), method=[])


class TestTargets:
    @pytest.mark.parametrize("target", ["/", "//", "/a?b=c&d", "/%20", '/"', "/~{}|^`\\", "/?", "/a:b@c", "/*"])
    def test_a_path_with_its_query_goes_as_it_is(self, target: str) -> None:
        assert prepare(to=url(target)).target == target.encode()

    @pytest.mark.parametrize("bad", [" ", "\t", "\r", "\n", "\0", "\x7f", "#", "é", "\u2028"])
    @pytest.mark.parametrize("around", ["/{}x", "/x{}"])
    def test_a_character_that_ends_or_splits_a_request_line_is_refused(self, around: str, bad: str) -> None:
        """P6; RFC 9112 3.2."""
        error = refusal(to=url(around.format(bad)))
        assert repr(bad) in str(error)
        assert f"position {around.index('{')}" in str(error)

    @pytest.mark.parametrize("target", ["", "x", "?a", "b.test:80", "*"])
    def test_a_target_that_is_no_path_is_refused(self, target: str) -> None:
        assert "must begin with '/'" in str(refusal(to=url(target)))

    @pytest.mark.parametrize(
        "target",
        [
            "http://b.test/x?y",
            "http://b.test",
            "http://B.test:81?y",
            "ftp://b.test/",
            "HTTP://[::1]:8/",
            "a+b.c-d://e/",
        ],
    )
    def test_a_proxy_is_asked_with_an_absolute_target(self, target: str) -> None:
        """RFC 9112 3.2.2."""
        head = prepare(to=url(target))
        assert head.target == target.encode()
        assert head.scheme + b"://" + head.authority.lower() == target.partition("?")[0].lower().rstrip("/x").encode()

    @pytest.mark.parametrize(
        "target",
        ["http:///x", "http://u:p@b.test/", "http://b.test:123456/", "http://b/c@d#e", "://b/", "1a://b/", "http://é/"],
    )
    def test_an_absolute_target_without_a_plain_authority_is_refused(self, target: str) -> None:
        """P6; RFC 9110 4.2.4: userinfo is not sent."""
        assert "target" in str(refusal(to=url(target)))

    def test_host_says_the_same_as_an_absolute_target(self) -> None:
        """RFC 9112 3.2.2."""
        assert prepare(("Host", "B.test:80"), to=url("http://b.test:80/")).authority == b"B.test:80"
        assert "differs" in str(refusal(("Host", "a.test"), to=url("http://b.test/")))

    def test_the_whole_server_can_be_asked_for_its_options(self) -> None:
        """RFC 9112 3.2.4."""
        assert prepare(method="OPTIONS", to=url("*")).target == b"*"


class TestAuthority:
    @pytest.mark.parametrize(
        ("to", "authority"),
        [
            (url(), b"a.test"),
            (url(port=8443), b"a.test:8443"),
            (url(scheme="http", port=80), b"a.test"),
            (url(scheme="http", port=443), b"a.test:443"),
            (url(host="::1"), b"[::1]"),
            (url(host="fe80::1%eth0", port=99), b"[fe80::1]:99"),
            (url(host="xn--mnchen-3ya.test"), b"xn--mnchen-3ya.test"),
        ],
    )
    def test_it_names_the_port_only_where_the_scheme_does_not(self, to: Url, authority: bytes) -> None:
        """RFC 9110 4.2.1; RFC 6874 4: a zone is nobody else's business."""
        head = prepare(to=to)
        assert (head.authority, head.scheme) == (authority, to.origin.scheme.encode())

    @pytest.mark.parametrize(
        "host", ["", "a b", "a\r\n", "a\n", "a\0", "a/b", "a@b", "a#b", "a?b", "a\\b", "münchen", "€"]
    )
    def test_what_is_no_host_name_is_refused(self, host: str) -> None:
        """P6."""
        assert "not a host name" in str(refusal(to=url(host=host)))

    @pytest.mark.parametrize("host", ["b.test", "b.test:8080", "[::1]:1", "b.test:"])
    def test_the_callers_host_takes_the_place_of_ours(self, host: str) -> None:
        """M9: there is one, not two that could differ."""
        head = prepare(("hOsT", host))
        assert (head.authority, head.fields) == (host.encode(), ())

    @pytest.mark.parametrize(
        "host", ["", "a b", "a.test/", "a.test:port", "a.test:123456", "u@a.test", "[::1", "a,b c"]
    )
    def test_a_host_that_names_no_host_is_refused(self, host: str) -> None:
        assert "header 'Host'" in str(refusal(("Host", host)))

    def test_two_hosts_are_refused(self) -> None:
        """M9, even where they agree."""
        assert "given twice" in str(refusal(("Host", "a.test"), ("host", "a.test")))


class TestNames:
    @pytest.mark.parametrize("name", ["x", "X-Y", TCHARS, b"x", "1"])
    def test_a_token_is_a_name_in_its_own_spelling(self, name: str | bytes) -> None:
        spelling = name if isinstance(name, bytes) else name.encode()
        assert prepare((name, "v")).fields == ((spelling, b"v"),)

    @pytest.mark.parametrize(
        "bad", [" ", "\t", "\r\n", "\n", "\0", ":", '"', "(", ",", "/", "\x7f", "é", "€", "\u0130"]
    )
    @pytest.mark.parametrize("around", ["x{}", "x{}y"])
    def test_what_is_no_token_is_refused(self, around: str, bad: str) -> None:
        """P6, M4: and the character is shown."""
        assert f"{bad[0]!r} is not allowed in a name" in str(refusal((around.format(bad), "v")))

    def test_bytes_are_held_to_the_same(self) -> None:
        assert "is not allowed in a name" in str(refusal((b"x\xe9", b"v")))

    @pytest.mark.parametrize("name", ["", b""])
    def test_a_name_has_a_character(self, name: str | bytes) -> None:
        assert "at least one character" in str(refusal((name, "v")))

    @pytest.mark.parametrize("name", [":path", b":authority", ":", ":x"])
    def test_pseudo_headers_are_ours(self, name: str | bytes) -> None:
        """P7."""
        assert "pseudo-headers come from method and URL" in str(refusal((name, "v")))

    @pytest.mark.parametrize("name", [None, 7, ("x",)])
    def test_a_name_is_str_or_bytes(self, name: Any) -> None:
        assert "give str or bytes" in str(refusal((name, "v")))


class TestValues:
    @pytest.mark.parametrize(
        ("value", "octets"),
        [
            ("", b""),
            ("a b", b"a b"),
            (" a ", b"a"),
            ("\ta\t", b"a"),
            (b" a\t", b"a"),
            ("a\tb", b"a\tb"),
            ("café", b"caf\xe9"),
            (b"\xff\x80", b"\xff\x80"),
            ("\xa0", b"\xa0"),
        ],
    )
    def test_it_is_stripped_and_otherwise_goes_as_it_is(self, value: str | bytes, octets: bytes) -> None:
        """RFC 9110 5.5: blanks around a value are not part of it."""
        assert prepare(("x", value)).fields == ((b"x", octets),)

    @pytest.mark.parametrize("bad", ["\r", "\n", "\r\n", "\0", "\x01", "\x0b", "\x1f", "\x7f"])
    @pytest.mark.parametrize("around", ["{}", "a{}", "{}a", "a{}b", "é{}", "a {}\t"])
    @pytest.mark.parametrize("kind", [str, str.encode])
    def test_a_control_character_is_refused(self, around: str, bad: str, kind: Any) -> None:
        """P6: what splits a message in one parser splits it in some other."""
        assert "is not allowed; remove it" in str(refusal(("x", kind(around.format(bad)))))

    @pytest.mark.parametrize("value", ["€", "ab\u0130", "\ud800"])
    def test_text_beyond_latin_1_is_refused_with_its_place(self, value: str) -> None:
        """P6: and not with a UnicodeEncodeError."""
        error = refusal(("x", value))
        assert f"{value[-1]!r} at position {len(value) - 1}" in str(error)
        assert "give bytes" in str(error)

    @pytest.mark.parametrize("value", [None, 7, bytearray(b"x"), ["x"]])
    def test_a_value_is_str_or_bytes(self, value: Any) -> None:
        assert "give the value as str or bytes" in str(refusal(("x", value)))

    @pytest.mark.parametrize("value", [f"{SECRET}\n", f"{SECRET}€", f"{SECRET}\0".encode()])
    def test_a_refused_value_is_not_repeated(self, value: str | bytes) -> None:
        """Messages end in logs."""
        assert SECRET not in str(refusal(("Authorization", value)))


class TestFramingFields:
    @pytest.mark.parametrize("method", ["POST", "PUT", "PATCH"])
    def test_an_empty_body_is_declared_where_one_is_expected(self, method: str) -> None:
        """RFC 9110 8.6."""
        assert prepare(method=method).fields == ((b"Content-Length", b"0"),)

    @pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE", "OPTIONS"])
    def test_an_empty_body_is_not_declared_elsewhere(self, method: str) -> None:
        assert prepare(method=method).fields == ()

    @pytest.mark.parametrize("method", ["GET", "POST"])
    def test_a_body_is_declared(self, method: str) -> None:
        head = prepare(method=method, body=5)
        assert (head.fields, head.body_bytes) == (((b"Content-Length", b"5"),), 5)

    @pytest.mark.parametrize("method", ["GET", "POST"])
    def test_an_unknown_length_is_not_declared(self, method: str) -> None:
        head = prepare(method=method, body=None)
        assert (head.fields, head.body_bytes) == ((), None)

    def test_a_declared_length_is_believed_where_none_is_known(self) -> None:
        head = prepare(("content-length", "7"), method="POST", body=None)
        assert (head.fields, head.body_bytes) == (((b"content-length", b"7"),), 7)

    @pytest.mark.parametrize("declared", ["5", "05", " 5 "])
    def test_a_true_declaration_stands_once(self, declared: str) -> None:
        """P7."""
        assert prepare(("content-length", declared), method="POST", body=5).fields == ((b"content-length", b"5"),)

    @pytest.mark.parametrize("body", [0, 3, 6])
    def test_a_false_declaration_is_refused(self, body: int) -> None:
        """P7."""
        assert f"5 declared, but the body has {body} bytes" in str(refusal(("Content-Length", "5"), body=body))

    @pytest.mark.parametrize("value", ["", "-1", "+1", "1_0", "0x1", "1, 1", "1.0", "a", "\u0661".encode(), "9" * 19])
    def test_what_is_no_length_is_refused(self, value: str | bytes) -> None:
        assert "is not a number of bytes" in str(refusal(("Content-Length", value), body=None))

    def test_an_exabyte_less_one_is_a_length(self) -> None:
        assert prepare(("Content-Length", "9" * 18), body=None).body_bytes == 10**18 - 1

    def test_two_lengths_are_refused(self) -> None:
        """P7, even where they agree."""
        assert "given twice" in str(refusal(("Content-Length", "5"), ("content-length", "5"), body=5))

    @pytest.mark.parametrize("body", [0, 5, None])
    def test_the_callers_chunked_is_taken_and_not_written(self, body: int | None) -> None:
        """P7: the codec alone decides about framing."""
        head = prepare(("Transfer-Encoding", "Chunked"), body=body)
        assert b"transfer-encoding" not in [name.lower() for name, _ in head.fields]

    @pytest.mark.parametrize("value", ["", "gzip", "gzip, chunked", "chunked, chunked", "identity", "x"])
    def test_another_transfer_coding_is_refused(self, value: str) -> None:
        assert "cannot be sent" in str(refusal(("Transfer-Encoding", value)))

    def test_two_transfer_codings_are_refused(self) -> None:
        assert "cannot be sent" in str(refusal(*[("Transfer-Encoding", "chunked")] * 2))

    @pytest.mark.parametrize("order", [1, -1])
    def test_a_length_beside_a_transfer_coding_is_refused(self, order: int) -> None:
        """RFC 9112 6.2; P7."""
        both = [("Content-Length", "5"), ("Transfer-Encoding", "chunked")][::order]
        assert "exclude each other" in str(refusal(*both, body=5))


class TestConnectionFields:
    @pytest.mark.parametrize("value", ["close", "Keep-Alive", "close, TE", "te", "", " , close"])
    def test_what_can_be_asked_of_a_connection_is_passed_on(self, value: str) -> None:
        assert prepare(("Connection", value)).fields == ((b"Connection", value.strip().encode()),)

    @pytest.mark.parametrize("value", ["upgrade", "close, x", "host", "content-length"])
    def test_other_connection_options_are_refused(self, value: str) -> None:
        """P7; RFC 9110 7.6.1: an option names a field that the next hop takes out."""
        assert "is not allowed" in str(refusal(("Connection", value)))

    def test_trailers_can_be_asked_for(self) -> None:
        """RFC 9110 10.1.4."""
        head = prepare(("TE", "Trailers"))
        assert head.fields == ((b"TE", b"Trailers"), (b"Connection", b"TE"))
        assert head_fields_for_h2(head)[4:] == [(b"te", b"Trailers")]

    @pytest.mark.parametrize("order", [1, -1])
    @pytest.mark.parametrize("options", ["TE", "close, te"])
    def test_a_caller_who_names_te_as_an_option_is_not_doubled(self, options: str, order: int) -> None:
        given = [("TE", "trailers"), ("Connection", options)][::order]
        assert prepare(*given).fields == tuple((name.encode(), value.encode()) for name, value in given)

    def test_another_option_does_not_stand_for_te(self) -> None:
        head = prepare(("TE", "trailers"), ("Connection", "close"))
        assert head.fields == ((b"TE", b"trailers"), (b"Connection", b"close"), (b"Connection", b"TE"))

    @pytest.mark.parametrize("value", ["gzip", "trailers, gzip", ""])
    def test_transfer_codings_cannot_be_asked_for(self, value: str) -> None:
        assert "header 'TE'" in str(refusal(("TE", value)))

    @pytest.mark.parametrize("value", ["h2c", "websocket"])
    def test_a_shared_connection_is_not_upgraded(self, value: str) -> None:
        assert "header 'Upgrade'" in str(refusal(("Upgrade", value)))

    @pytest.mark.parametrize("name", ["Keep-Alive", "Proxy-Connection"])
    def test_bookkeeping_of_old_times_is_left_out(self, name: str) -> None:
        assert prepare((name, "timeout=5")).fields == ()


class TestRefusals:
    @pytest.mark.parametrize(
        "how",
        [
            {"method": "G T"},
            {"to": url("x", port=8443)},
            {"to": url("/ ", port=8443)},
            {"body": 3, "headers": [("content-length", "4")]},
        ],
    )
    def test_each_says_that_nothing_was_sent_and_where_it_would_have_gone(self, how: dict[str, Any]) -> None:
        error = refusal(*how.pop("headers", []), **how)
        assert error.processed == "no"
        assert error.origin == str((how.get("to") or url()).origin)

    def test_each_is_an_instance_of_its_own(self) -> None:
        """L11: also where the answer is remembered."""
        assert refusal(method="G T") is not refusal(method="G T")


class TestHttp2Form:
    @pytest.mark.parametrize(
        ("target", "path"),
        [("/y?z", b"/y?z"), ("", b"/"), ("?z", b"/?z"), ("/", b"/")],
        ids=["path", "none", "query", "/"],
    )
    def test_an_absolute_target_is_taken_apart(self, target: str, path: bytes) -> None:
        """RFC 9113 8.3.1."""
        pseudo = dict(head_fields_for_h2(prepare(to=url(f"http://b.test:81{target}"))))
        assert (pseudo[b":scheme"], pseudo[b":authority"], pseudo[b":path"]) == (b"http", b"b.test:81", path)

    def test_options_of_an_absolute_target_without_a_path_are_those_of_the_server(self) -> None:
        """RFC 9112 3.2.4."""
        head = prepare(method="OPTIONS", to=url("http://b.test"))
        assert dict(head_fields_for_h2(head))[b":path"] == b"*"

    def test_pseudo_headers_stand_first_and_names_are_lower_case(self) -> None:
        """RFC 9113 8.3.1, 8.2.1."""
        head = prepare(("X-Y", "Z"), ("Accept", "*/*"), to=url("/p?q"))
        assert head_fields_for_h2(head) == [
            (b":method", b"GET"),
            (b":scheme", b"https"),
            (b":authority", b"a.test"),
            (b":path", b"/p?q"),
            (b"x-y", b"Z"),
            (b"accept", b"*/*"),
        ]

    @pytest.mark.parametrize("name", sorted({*fields.CONNECTION_SPECIFIC, b"host"}))
    def test_what_speaks_of_an_http_1_connection_is_left_out(self, name: bytes) -> None:
        """RFC 9113 8.2.2; M5 of our own making."""
        head = RequestHead(b"GET", b"https", b"a.test", b"/", ((name.title(), b"x"), (b"Y", b"z")))
        assert head_fields_for_h2(head)[4:] == [(b"y", b"z")]

    @pytest.mark.parametrize("name", ["Authorization", "proxy-authorization"])
    @pytest.mark.parametrize("size", [1, 20, 500])
    def test_credentials_are_never_indexed(self, name: str, size: int) -> None:
        """RFC 7541 7.1.3."""
        (field,) = head_fields_for_h2(prepare((name, "s" * size)))[4:]
        assert isinstance(field, hpack.NeverIndexedHeaderTuple)

    @pytest.mark.parametrize(("size", "secret"), [(1, True), (19, True), (20, False), (500, False)])
    def test_a_cookie_that_can_be_guessed_is_never_indexed(self, size: int, secret: bool) -> None:
        """RFC 7541 7.1.3."""
        (field,) = head_fields_for_h2(prepare(("Cookie", "c" * size)))[4:]
        assert isinstance(field, hpack.NeverIndexedHeaderTuple) is secret
        assert tuple(field) == (b"cookie", b"c" * size)

    def test_an_empty_cookie_is_left_out(self) -> None:
        """RFC 9113 8.2.3: joined to the others it would end the value with a blank, which is malformed."""
        assert head_fields_for_h2(prepare(("Cookie", "a=b; c=d"), ("Cookie", "")))[4:] == [(b"cookie", b"a=b; c=d")]

    def test_other_fields_are_indexed(self) -> None:
        assert not any(isinstance(field, hpack.HeaderTuple) for field in head_fields_for_h2(prepare(("x", "y"))))


NAMES = st.sampled_from(
    ["Host", "content-length", "TE", "Connection", "Keep-Alive", "Cookie", "Authorization", "Accept", "Trailer"]
)
VALUES = st.sampled_from(["trailers", "close", "te", "5", "a.test", "b.test:1", "gzip", "chunked", "", "[::1]"])
TAME = {
    "method": st.sampled_from(["GET", "HEAD", "POST", "OPTIONS", "x"]),
    "target": st.text(string.ascii_letters + string.punctuation.replace("#", ""), max_size=5).map("/".__add__),
    "host": st.sampled_from(["a.test", "::1", "fe80::1%x", "a_b"]),
    "name": NAMES | st.text(TCHARS, min_size=1, max_size=6),
    "value": VALUES | st.text("ab \t\xa0\x85\xe9", max_size=5),
}
WILD = {
    "method": st.text(max_size=3),
    "target": st.text(max_size=4),
    "host": st.text(max_size=4),
    "name": st.text(max_size=3) | st.binary(max_size=3),
    "value": st.text(st.characters(max_codepoint=0x17F), max_size=4) | st.binary(max_size=4),
}


@st.composite
def requests(draw: Any) -> dict[str, Any]:
    """What a caller may give: tame but for one part, or else nearly all would be refused for some reason or other."""
    wild = draw(st.sampled_from([None, *WILD]))
    part = {name: TAME[name] if name != wild else TAME[name] | WILD[name] for name in TAME}
    return {
        "method": draw(part["method"]),
        "url": url(draw(part["target"]), host=draw(part["host"])),
        "headers": draw(st.lists(st.tuples(part["name"], part["value"]), max_size=4)),
        "body_bytes": draw(st.sampled_from([0, 5, None])),
    }


@settings(deadline=None)
@given(requests())
def test_h2_and_h11_have_no_objection_to_what_was_accepted(request: dict[str, Any]) -> None:
    """P6, P7: two codecs, written by others, hold us to our promise."""
    try:
        head = prepare_head(**request)
    except LocalProtocolError:
        return
    _ask_h2(head)
    _ask_h11(head)


def _ask_h2(head: RequestHead) -> None:
    config = h2.config.H2Configuration(
        header_encoding=None, validate_outbound_headers=True, normalize_outbound_headers=False
    )
    client = h2.connection.H2Connection(config=config)
    client.initiate_connection()
    client.send_headers(1, head_fields_for_h2(head), end_stream=head.body_bytes == 0)
    # As it came: h2 would join cookies (RFC 9113 8.2.3).
    config = h2.config.H2Configuration(client_side=False, header_encoding=None, normalize_inbound_headers=False)
    server = h2.connection.H2Connection(config=config)
    server.initiate_connection()
    (request,) = [event for event in server.receive_data(client.data_to_send()) if hasattr(event, "headers")]
    assert [tuple(field) for field in request.headers] == [tuple(field) for field in head_fields_for_h2(head)]


def _ask_h11(head: RequestHead) -> None:
    given_fields = [(b"Host", head.authority), *head.fields]
    client, server = h11.Connection(h11.CLIENT), h11.Connection(h11.SERVER)
    wire = client.send(h11.Request(method=head.method, target=head.target, headers=given_fields))
    server.receive_data(wire or b"")
    request = server.next_event()
    assert isinstance(request, h11.Request)
    assert (request.method, request.target) == (head.method, head.target)
    assert request.headers.raw_items() == given_fields
