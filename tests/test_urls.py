"""Origin and Url: which URLs can be requested, and what is made of them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hyperpool.errors import InvalidURL
from hyperpool.urls import Origin, parse_url, without_userinfo

# On a busy machine an example may take long: that is no failure.
unhurried = settings(deadline=None)

GOOD = [
    ("http://a.test", "http", "a.test", 80, "/", None),
    ("https://a.test", "https", "a.test", 443, "/", None),
    ("HTTPS://A.Test/Path?Q=1#frag", "https", "a.test", 443, "/Path?Q=1", None),
    ("https://a.test:8443/x", "https", "a.test", 8443, "/x", None),
    ("https://a.test:/x", "https", "a.test", 443, "/x", None),
    ("https://a.test:1/", "https", "a.test", 1, "/", None),
    ("https://a.test:65535/", "https", "a.test", 65535, "/", None),
    ("http://127.0.0.1:80/", "http", "127.0.0.1", 80, "/", None),
    ("http://[::1]:8080/x", "http", "::1", 8080, "/x", None),
    ("http://[FE80::1]/", "http", "fe80::1", 80, "/", None),
    ("https://user:p%40ss@a.test/", "https", "a.test", 443, "/", "user:p%40ss"),
    ("https://evil.test@a.test/", "https", "a.test", 443, "/", "evil.test"),
    ("https://a.test/a b?c d", "https", "a.test", 443, "/a%20b?c%20d", None),
    ("https://a.test?q=1", "https", "a.test", 443, "/?q=1", None),
    ("https://a.test/\u00fc", "https", "a.test", 443, "/%C3%BC", None),
    ("https://b\u00fccher.test/", "https", "xn--bcher-kva.test", 443, "/", None),
    ("https://a_b.test/", "https", "a_b.test", 443, "/", None),
    ("https://a.test/x\\y", "https", "a.test", 443, "/x%5Cy", None),
    ("https://a.test/http://b.test/ c", "https", "a.test", 443, "/http://b.test/%20c", None),
]
BAD = [
    "",
    "a.test",
    "a.test/x",
    "//a.test/x",
    "/x",
    "ftp://a.test/",
    "file:///etc/passwd",
    "unix:/run/x",
    "javascript:alert(1)",
    "data:text/plain,x",
    "http:",
    "http://",
    "http:///x",
    "https://:443/",
    "https://user@/",
    "https://a.test:0/",
    "https://a.test:65536/",
    "https://a.test:99999999999/",
    "https://a.test:x/",
    "https://a.test:-1/",
    "https://a.test:\uff18\uff10/",
    "https://a .test/",
    "https://a.test /",
    "https:// a.test/",
    "https://a.test\\@b.test/",
    "https://a.test\\.b.test/",
    "https://[::1/",
    "https://[zz]/",
    "https://a.test/\r\nX: y",
    "https://a.test/\n",
    "\thttps://a.test/",
    "https://a\x00.test/",
    "https://a.test/\x7f",
    "https://" + "\u00fc" * 80 + ".test/",
    "https://\u2028.test/",
    "https://a..test/",
    "https://.a.test/",
    "https://a.test../",
    "https://./",
    f"https://{'a' * 64}.test/",
    f"https://a.{'b' * 64}/",
    "https://127.0.0.1%20/",
    "https://127.0.0.1%eth0/",
    "https://[::1%25%20]/",
    "https://[fe80::1%25eth%30]/",
]

# As it is given, and as it is requested.
WIRED = {
    "path": ("http://a.test/\u2603 x", "http://a.test/%E2%98%83%20x"),
    "query": ("http://a.test/?\u00e4=\u00f6 b", "http://a.test/?%C3%A4=%C3%B6%20b"),
    "no path": ("https://a.test?\u00e4", "https://a.test?%C3%A4"),
    "dots": ("http://a.test/a/../b", "http://a.test/b"),
    "scheme and host": ("HTTPS://A.Test/Path", "https://a.test/Path"),
    "IDNA": ("https://b\u00fccher.test:8443/", "https://xn--bcher-kva.test:8443/"),
    "user": ("https://user:secret@a.test/x", "https://a.test/x"),
    "user and IDNA": ("https://u@b\u00fccher.test/#f", "https://xn--bcher-kva.test/#f"),
    "no port": ("https://a.test:/", "https://a.test/"),
    "zone": ("http://[fe80::1%eth0]:81/", "http://[fe80::1%25eth0]:81/"),
    "Unix socket": ("HTTP+unix://%2Frun%2Fa.sock/\u00e4 b", "http+unix://%2Frun%2Fa.sock/%C3%A4%20b"),
}
IN_WIRE_FORM = [
    "http://a.test",
    "http://a.test/",
    "https://a.test:443/a%2Fb?c=d&e=%20#frag",
    "https://a.test?x",
    "https://a.test?",
    "https://a.test#f",
    "https://a.test./",
    "http://[fe80::1%25eth0]/",
    "http+unix://%2Frun%2Fa.sock",
    "http+unix://%2Frun%2Fa.sock/x?y#z",
    f"https://{'a' * 63}.test/",
]


class TestUrls:
    @pytest.mark.parametrize(("text", "scheme", "host", "port", "target", "userinfo"), GOOD)
    def test_it_is_taken_apart(
        self, text: str, scheme: str, host: str, port: int, target: str, userinfo: str | None
    ) -> None:
        url = parse_url(text)
        assert (url.origin, url.target, url.userinfo) == (Origin(scheme, host, port), target, userinfo)
        assert url.text == text

    @pytest.mark.parametrize("text", BAD)
    def test_what_cannot_be_requested_is_refused(self, text: str) -> None:
        """P11: one parser, and no repairs in the authority."""
        with pytest.raises(InvalidURL):
            parse_url(text)

    @pytest.mark.parametrize("name", WIRED)
    def test_its_wire_form_is_what_is_requested(self, name: str) -> None:
        given_, wire = WIRED[name]
        assert parse_url(given_).wire == wire

    @pytest.mark.parametrize("text", IN_WIRE_FORM)
    def test_a_url_in_wire_form_stays_as_it_is(self, text: str) -> None:
        assert parse_url(text).wire == text

    def test_a_label_of_a_host_has_63_characters_at_most(self) -> None:
        """RFC 1035 2.3.4. No name service is asked, so none is blamed."""
        with pytest.raises(InvalidURL, match="1 to 63 characters"):
            parse_url(f"https://{'a' * 64}.test/")

    @pytest.mark.parametrize("given_", [b"https://a.test/", None, 1])
    def test_what_is_no_str_is_refused(self, given_: Any) -> None:
        with pytest.raises(InvalidURL, match=type(given_).__name__):
            parse_url(given_)

    @pytest.mark.parametrize(("text", "culprit"), [("https://a.test/\n", r"'\\n'"), ("https://a b/", "' '")])
    def test_the_message_names_the_culprit(self, text: str, culprit: str) -> None:
        with pytest.raises(InvalidURL, match=f"{culprit} is not allowed"):
            parse_url(text)

    @pytest.mark.parametrize(
        ("text", "shown"),
        [
            ("https://user:secret@a.test/x", "https://a.test/x"),
            ("https://user:p@ss@a.test/", "https://a.test/"),
            ("https://a.test/x@y", "https://a.test/x@y"),
            ("https://a.test/", "https://a.test/"),
        ],
    )
    def test_it_is_shown_without_its_password(self, text: str, shown: str) -> None:
        assert without_userinfo(text) == shown

    def test_a_refusal_keeps_its_cause(self) -> None:
        with pytest.raises(InvalidURL) as caught:
            parse_url("https://[::1/")
        assert caught.value.__cause__ is not None

    @unhurried
    @given(
        st.text(max_size=40)
        | st.builds("http{}://{}/{}".format, st.sampled_from(["", "s"]), st.text(max_size=12), st.text())
    )
    def test_a_url_is_good_or_invalid_and_nothing_else(self, text: str) -> None:
        """P11: no foreign exception, and nothing of the caller's reaches the wire unescaped."""
        try:
            url = parse_url(text)
        except InvalidURL:
            return
        assert url.origin.scheme in ("http", "https")
        assert url.target.isascii()
        assert url.target.startswith("/")
        assert not any(character <= " " for character in url.origin.host + url.target)
        wired = parse_url(url.wire)
        assert (wired.origin, wired.target, wired.wire, wired.userinfo) == (url.origin, url.target, url.wire, None)
        assert url.wire.isascii()

    def test_a_very_long_url_costs_linear_time(self) -> None:
        """P11: half a megabyte of what made regular expressions blow up."""
        parse_url("https://a.test/" + "a@:/?#[" * 70_000)


class TestOrigins:
    @pytest.mark.parametrize(
        ("origin", "authority"),
        [
            (Origin("https", "a.test", 443), "a.test"),
            (Origin("https", "a.test", 80), "a.test:80"),
            (Origin("http", "a.test", 80), "a.test"),
            (Origin("http", "::1", 80), "[::1]"),
            (Origin("http", "::1", 8080), "[::1]:8080"),
        ],
    )
    def test_the_port_is_named_where_it_is_not_the_schemes(self, origin: Origin, authority: str) -> None:
        """RFC 9113 8.3.1, RFC 9110 7.2."""
        assert (origin.authority, str(origin)) == (authority, f"{origin.scheme}://{authority}")

    def test_equal_origins_are_one_key(self) -> None:
        assert len({parse_url("https://A.test").origin, parse_url("https://a.test:443/x").origin}) == 1


@pytest.mark.parametrize(
    "url", ["http://user:secret@a.test:99999/", "ftp://user:secret@a.test/", "http://user:secret@/"]
)
def test_no_password_stands_in_the_error_about_a_url(url: str) -> None:
    with pytest.raises(InvalidURL) as caught:
        parse_url(url)
    assert "secret" not in str(caught.value) and caught.value.__cause__ is None
