"""What a command line sends: method, target, fields and body, on both versions of HTTP."""

from __future__ import annotations

import base64
import json
import os
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from cli_support import Done, Kit, seen_of, standard_input

from hyperpool.cli import content
from hyperpool.testing import pattern
from proxy_kit import SocksProxy, TunnelProxy
from stage import WAIT_S


def sent(kit: Kit, *words: str, path: str = "/", **options: Any) -> dict[str, Any]:
    """What the server got; the first word is the METHOD where it is upper case."""
    server = kit.server(seen_of, **options)
    method = [word for word in words[:1] if word.isalpha() and word.isupper()]
    done = kit.run(*method, server.url(path), *words[len(method) :])
    assert done.status == 0, done.err
    seen: dict[str, Any] = json.loads(done.out)
    return seen


def header(seen: dict[str, Any], name: str) -> list[str]:
    return [value for key, value in seen["headers"] if key == name]


class TestMethod:
    @pytest.mark.parametrize(
        ("words", "method"),
        [
            ([], "GET"),
            (["q==1", "A:1"], "GET"),
            (["x=1"], "POST"),
            (["PUT", "x=1"], "PUT"),
            (["GET", "x=1"], "GET"),
            (["DELETE"], "DELETE"),
        ],
    )
    def test_it_is_get_or_post_unless_it_is_given(self, kit: Kit, words: list[str], method: str) -> None:
        assert sent(kit, *words)["method"] == method


class TestQuery:
    def test_parameters_are_added_in_their_order(self, kit: Kit) -> None:
        assert sent(kit, "q==red fox", "q==é", "n==1", path="/find")["target"] == "/find?q=red+fox&q=%C3%A9&n=1"

    def test_the_query_of_the_url_is_kept(self, kit: Kit) -> None:
        """hyper's command line lost it."""
        assert sent(kit, "search==hyper", path="/find?lang=en")["target"] == "/find?lang=en&search=hyper"

    def test_a_query_in_the_url_alone_is_sent(self, kit: Kit) -> None:
        assert sent(kit, path="/find?lang=en")["target"] == "/find?lang=en"

    def test_a_value_may_come_from_a_file(self, kit: Kit, tmp_path: Path) -> None:
        (tmp_path / "q").write_text("fox\n")
        assert sent(kit, f"q==@{tmp_path}/q", path="/find")["target"] == "/find?q=fox"


class TestHeaders:
    def test_a_header_replaces_the_default(self, kit: Kit) -> None:
        assert header(sent(kit, "User-Agent:x"), "user-agent") == ["x"]

    def test_a_header_may_be_given_twice(self, kit: Kit) -> None:
        assert header(sent(kit, "A:1", "A:2"), "a") == ["1", "2"]

    def test_a_header_without_value_is_removed(self, kit: Kit) -> None:
        assert header(sent(kit, "User-Agent:"), "user-agent") == []

    def test_a_header_with_a_semicolon_is_empty(self, kit: Kit) -> None:
        assert header(sent(kit, "User-Agent;"), "user-agent") == [""]

    def test_a_value_may_come_from_a_file(self, kit: Kit, tmp_path: Path) -> None:
        (tmp_path / "cookie").write_text("a=1\n")
        assert header(sent(kit, f"Cookie:@{tmp_path}/cookie"), "cookie") == ["a=1"]

    def test_the_authority_can_be_given_as_hyper_took_it(self, kit: Kit) -> None:
        assert sent(kit, ":authority:other.test")["authority"] == "other.test"

    @pytest.mark.parametrize(
        ("auth", "credentials"), [("ann:se:cret", "ann:se:cret"), ("ann:", "ann:"), ("ann", "ann:")]
    )
    def test_auth_is_basic_authentication(self, kit: Kit, auth: str, credentials: str) -> None:
        expected = "Basic " + base64.b64encode(credentials.encode()).decode()
        assert header(sent(kit, "-a", auth), "authorization") == [expected]

    def test_the_user_of_the_url_is_basic_authentication(self, kit: Kit) -> None:
        server = kit.server(seen_of)
        done = kit.run(server.url("/").replace("https://", "https://ann:se%3Acret@"))
        expected = "Basic " + base64.b64encode(b"ann:se:cret").decode()
        assert header(json.loads(done.out), "authorization") == [expected]

    def test_an_authorization_header_wins_over_auth(self, kit: Kit) -> None:
        assert header(sent(kit, "-a", "a:b", "Authorization:Bearer x"), "authorization") == ["Bearer x"]


class TestOctets:
    """What is typed and is no UTF-8 comes to Python as surrogates (PEP 383)."""

    def test_the_url_and_the_query_have_them_percent_encoded(self, kit: Kit) -> None:
        assert sent(kit, "q\udcfe==\udcff", path="/\udce9?x=\udcff")["target"] == "/%E9?x=%FF&q%FE=%FF"

    def test_a_form_has_them_percent_encoded(self, kit: Kit) -> None:
        assert sent(kit, "-f", "a\udcfe=é\udcff")["body"] == "a%FE=%C3%A9%FF"

    def test_a_multipart_form_has_them_as_they_are(self, kit: Kit, tmp_path: Path) -> None:
        (tmp_path / "cat\udcff").write_bytes(b"meow")
        bodies: list[bytes] = []
        server = kit.server(lambda request: bodies.append(request.read()) or 200)
        assert kit.run(server.url("/"), "a=\udcff", f"f@{tmp_path}/cat\udcff").status == 0
        assert b'name="a"\r\n\r\n\xff\r\n' in bodies[0]
        assert b'filename="cat?"' in bodies[0]

    @pytest.mark.parametrize(
        ("words", "typed"),
        [
            (["a=\udcff"], "a="),
            (["\udcff=a"], "=a"),
            (['a:="\udcff"'], "a:="),
            (["b=1", "\udcff@/etc/passwd"], "@/etc"),
        ],
    )
    def test_where_only_utf8_is_possible_it_is_a_usage_error(self, kit: Kit, words: list[str], typed: str) -> None:
        done = kit.run("https://127.0.0.1:1/", *words)
        assert (done.status, done.err.count("\n"), "UTF-8" in done.err, typed in done.err) == (2, 1, True, True)

    @pytest.mark.parametrize("typed", ["€", "é", "\udcff"])
    def test_a_header_has_what_was_typed(self, kit: Kit, typed: str) -> None:
        assert [value.encode("latin-1") for value in header(sent(kit, f"H:{typed}"), "h")] == [os.fsencode(typed)]

    def test_a_header_has_what_is_in_the_file(self, kit: Kit, tmp_path: Path) -> None:
        (tmp_path / "h").write_text("€\n", "utf-8")
        seen = sent(kit, f"H:@{tmp_path}/h")
        assert [value.encode("latin-1") for value in header(seen, "h")] == ["€".encode()]

    def test_credentials_have_what_was_typed(self, kit: Kit) -> None:
        expected = "Basic " + base64.b64encode(b"ann:\xff").decode()
        assert header(sent(kit, "-a", "ann:\udcff"), "authorization") == [expected]


class TestJson:
    def test_fields_make_an_object(self, kit: Kit) -> None:
        """The example of hyper's documentation."""
        seen = sent(kit, "POST", "name=Hyper", "language=Python", "description=CLI HTTP client")
        assert json.loads(seen["body"]) == {
            "name": "Hyper",
            "language": "Python",
            "description": "CLI HTTP client",
        }
        assert header(seen, "content-type") == ["application/json"]
        assert header(seen, "content-length") == ["73"]

    def test_raw_fields_are_json_as_it_was_typed(self, kit: Kit) -> None:
        assert sent(kit, "a:=1.10", "b:= [1, 2]", "c:=null")["body"] == '{"a": 1.10, "b": [1, 2], "c": null}'

    def test_the_last_of_two_values_counts(self, kit: Kit) -> None:
        assert json.loads(sent(kit, "a=1", "a=2")["body"]) == {"a": "2"}

    def test_fields_may_come_from_files(self, kit: Kit, tmp_path: Path) -> None:
        (tmp_path / "text").write_text("é\n", "utf-8")
        (tmp_path / "json").write_text('{"x": 1}')
        seen = sent(kit, f"a=@{tmp_path}/text", f"b:=@{tmp_path}/json")
        assert json.loads(seen["body"]) == {"a": "é\n", "b": {"x": 1}}

    def test_json_is_asked_for_in_return(self, kit: Kit) -> None:
        assert header(sent(kit, "a=1"), "accept") == ["application/json, */*;q=0.5"]

    @pytest.mark.parametrize("item", ["a:={", "a:=NaN", "a:=", "a:=Ann"])
    def test_what_is_no_json_is_refused_before_anything_is_sent(self, kit: Kit, item: str) -> None:
        done = kit.run("https://127.0.0.1:1/", item)
        assert (done.status, "this is no JSON" in done.err) == (2, True)


class TestForm:
    def test_fields_are_urlencoded(self, kit: Kit) -> None:
        seen = sent(kit, "--form", "a=red fox", "a=é&=")
        assert (seen["body"], header(seen, "content-type")) == (
            "a=red+fox&a=%C3%A9%26%3D",
            ["application/x-www-form-urlencoded"],
        )

    def test_a_form_without_fields_is_no_body(self, kit: Kit) -> None:
        assert sent(kit, "--form")["method"] == "GET"

    def test_a_field_may_be_the_text_of_a_file(self, kit: Kit, tmp_path: Path) -> None:
        (tmp_path / "text").write_text("a b")
        assert sent(kit, "-f", f"x=@{tmp_path}/text")["body"] == "x=a+b"

    def test_json_strings_numbers_and_booleans_are_written_as_httpie_does(self, kit: Kit, tmp_path: Path) -> None:
        (tmp_path / "json").write_text("7\n")
        seen = sent(kit, "-f", 'a:="é"', "b:=1.10", "c:=true", f"d:=@{tmp_path}/json")
        assert seen["body"] == "a=%C3%A9&b=1.1&c=True&d=7"

    @pytest.mark.parametrize(
        ("item", "words"),
        [("a:=[1]", "has no such JSON"), ("a:=null", "has no such JSON"), ("a:={", "this is no JSON")],
    )
    def test_other_json_is_refused(self, kit: Kit, item: str, words: str) -> None:
        done = kit.run("-f", "https://127.0.0.1:1/", item)
        assert (done.status, words in done.err) == (2, True)

    def test_files_make_it_multipart(self, kit: Kit, tmp_path: Path) -> None:
        (tmp_path / "cat.txt").write_text("meow")
        seen = sent(kit, "title=Cat", f"picture@{tmp_path}/cat.txt")
        kind, _, boundary = header(seen, "content-type")[0].partition("; boundary=")
        assert (kind, seen["method"]) == ("multipart/form-data", "POST")
        assert seen["body"].split(f"--{boundary}")[1:] == [
            '\r\nContent-Disposition: form-data; name="title"\r\n\r\nCat\r\n',
            (
                '\r\nContent-Disposition: form-data; name="picture"; filename="cat.txt"\r\n'
                "Content-Type: text/plain\r\n\r\nmeow\r\n"
            ),
            "--\r\n",
        ]

    def test_a_file_may_be_given_a_type(self, kit: Kit, tmp_path: Path) -> None:
        (tmp_path / "cat").write_text("meow")
        body = sent(kit, f"x@{tmp_path}/cat;type=text/csv")["body"]
        assert ('filename="cat"' in body, "Content-Type: text/csv" in body) == (True, True)

    def test_a_file_without_a_known_type_is_called_octets(self, kit: Kit, tmp_path: Path) -> None:
        (tmp_path / "cat").write_text("meow")
        assert "Content-Type: application/octet-stream" in sent(kit, f"x@{tmp_path}/cat")["body"]


class TestWholeBody:
    def test_a_file_is_sent_as_it_is(self, kit: Kit, tmp_path: Path) -> None:
        (tmp_path / "a.csv").write_text("a,b\n")
        seen = sent(kit, "PUT", f"@{tmp_path}/a.csv")
        assert (seen["body"], header(seen, "content-type"), header(seen, "content-length")) == (
            "a,b\n",
            ["text/csv"],
            ["4"],
        )

    def test_a_large_file_arrives_whole(self, kit: Kit, tmp_path: Path) -> None:
        (tmp_path / "large").write_bytes(pattern(3_000_000))
        done = kit.run(kit.server().url("/sha256"), f"@{tmp_path}/large")
        assert json.loads(done.out)["length"] == 3_000_000

    @pytest.mark.parametrize("item", ["@/no/such/file", "x=@/no/such/file", "x@/no/such/file", "@/"])
    def test_a_file_that_cannot_be_read_is_named(self, kit: Kit, item: str) -> None:
        done = kit.run("https://127.0.0.1:1/", item)
        assert (done.status, done.err.startswith("hyperpool: cannot read /")) == (14, True)

    def test_a_text_field_must_be_text(self, kit: Kit, tmp_path: Path) -> None:
        (tmp_path / "cat").write_bytes(b"\xff\xd8")
        done = kit.run("https://127.0.0.1:1/", f"x=@{tmp_path}/cat")
        assert (done.status, "is not UTF-8 text; name@file uploads it" in done.err) == (14, True)


class TestStandardInput:
    def run(self, kit: Kit, monkeypatch: pytest.MonkeyPatch, body: bytes | None, *words: str, path: str = "/") -> Done:
        server = kit.server(None if path == "/sha256" else seen_of)
        with standard_input(monkeypatch.setattr, body):
            method = [word for word in words[:1] if word.isalpha() and word.isupper()]
            return kit.run(*method, server.url(path), *words[len(method) :])

    @pytest.mark.parametrize(
        ("body", "words", "content_type"),
        [
            (b'{"a": 1}\n', [], ["application/json"]),
            (b"plain text", [], []),
            (b"a=1", ["--form"], ["application/x-www-form-urlencoded"]),
            (b"a,b", ["Content-Type:text/csv"], ["text/csv"]),
        ],
    )
    def test_a_pipe_is_the_body(
        self, kit: Kit, monkeypatch: pytest.MonkeyPatch, body: bytes, words: list[str], content_type: list[str]
    ) -> None:
        seen = json.loads(self.run(kit, monkeypatch, body, *words).out)
        assert (seen["method"], seen["body"].encode(), header(seen, "content-type")) == ("POST", body, content_type)

    def test_a_pipe_at_its_end_is_no_body(self, kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
        assert json.loads(self.run(kit, monkeypatch, None).out)["method"] == "GET"

    def test_a_long_pipe_is_streamed(self, kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
        done = self.run(kit, monkeypatch, pattern(3_000_000), "POST", path="/sha256")
        assert json.loads(done.out)["length"] == 3_000_000

    @pytest.mark.parametrize("words", [["--ignore-stdin"], ["GET"], ["x=1"]])
    def test_it_is_left_alone_where_it_is_not_wanted(
        self, kit: Kit, monkeypatch: pytest.MonkeyPatch, words: list[str]
    ) -> None:
        """GET in a shell's `while read` loop must not take the list."""
        assert "from a pipe" not in self.run(kit, monkeypatch, b"from a pipe", *words).text

    def test_it_can_be_asked_for(self, kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
        seen = json.loads(self.run(kit, monkeypatch, b"asked", "GET", "@-").out)
        assert (seen["method"], seen["body"]) == ("GET", "asked")

    def test_asking_for_it_where_there_is_none_is_an_error(self, kit: Kit) -> None:
        done = kit.run("https://127.0.0.1:1/", "@-")
        assert (done.status, "@- is standard input, but that is no pipe" in done.err) == (2, True)

    @pytest.mark.parametrize("size", [5, 3_000_000])
    def test_a_file_has_its_length(self, kit: Kit, tmp_path: Path, size: int) -> None:
        (tmp_path / "body").write_bytes(b"x" * size)
        server = kit.server()
        with (tmp_path / "body").open("rb") as file:
            child = kit.spawn("-v", server.url("/sha256"), stdin=file)
            out, _ = child.communicate(timeout=2 * WAIT_S)
        assert f"content-length: {size}\n".encode() in out
        assert f'"length": {size}'.encode() in out

    def test_an_empty_file_is_no_body(self, kit: Kit, tmp_path: Path) -> None:
        (tmp_path / "body").touch()
        server = kit.server()
        with (tmp_path / "body").open("rb") as file:
            out, _ = kit.spawn(server.url("/"), stdin=file).communicate(timeout=2 * WAIT_S)
        assert json.loads(out)["method"] == "GET"

    def test_a_pipe_that_stays_silent_is_explained(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def say(words: str) -> None:
            said.append(words)
            os.write(writer, b"late")
            os.close(writer)

        monkeypatch.setattr(content, "STDIN_NOTE_S", 0.0)
        said: list[str] = []
        reader, writer = os.pipe()
        with ExitStack() as files:
            files.callback(os.close, reader)
            body = content.body_of_stdin(reader, form=False, files=files, note=say)
        assert (body.content, said) == (
            b"late",
            ["waiting for the body on standard input (--ignore-stdin sends none)"],
        )


class TestVersions:
    @pytest.mark.parametrize(
        ("words", "tls", "version"),
        [
            ([], True, "HTTP/2"),
            (["--h2"], True, "HTTP/2"),
            (["--http1.1"], True, "HTTP/1.1"),
            ([], False, "HTTP/1.1"),
            (["--h2"], False, "HTTP/2"),
        ],
    )
    def test_the_version_is_the_one_that_was_asked_for(
        self, kit: Kit, words: list[str], tls: bool, version: str
    ) -> None:
        done = kit.run("-h", *words, kit.server(tls=tls).url("/"))
        assert done.text.splitlines()[0].split(" ")[:2] == [version, "200"]

    def test_h2_alone_refuses_a_server_without_it(self, kit: Kit) -> None:
        done = kit.run("--h2", kit.server(http2=False).url("/"))
        assert (done.status, "does not speak HTTP/2" in done.err) == (8, True)


class TestProxy:
    @pytest.mark.parametrize("kind", [TunnelProxy, SocksProxy])
    def test_the_request_goes_through_it(self, kit: Kit, kind: Any) -> None:
        proxy = kit.stack.enter_context(kind())
        done = kit.run("-h", "--proxy", proxy.url(), kit.server().url("/"))
        assert (done.text.startswith("HTTP/2 200"), proxy.tunnels) == (True, 1)

    def test_one_of_the_environment_counts(self, kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
        proxy = kit.stack.enter_context(TunnelProxy())
        monkeypatch.setenv("HTTPS_PROXY", proxy.url())
        assert kit.run("-h", kit.server().url("/")).status == 0
        assert proxy.tunnels == 1

    @pytest.mark.parametrize(("url", "status"), [("ftp://a.test", 2), ("http://127.0.0.1:1", 15)])
    def test_one_that_is_none_has_its_own_status(self, kit: Kit, url: str, status: int) -> None:
        assert kit.run("--proxy", url, kit.server().url("/")).status == status


class TestRedirects:
    def test_they_are_shown_unless_they_are_to_be_followed(self, kit: Kit) -> None:
        server = kit.server(None)
        assert b"location: /" in kit.run("-h", server.url("/status/302")).out
        assert json.loads(kit.run("-F", server.url("/status/302")).out) == {"method": "GET", "target": "/"}

    def test_the_request_that_is_shown_is_the_one_that_was_answered(self, kit: Kit) -> None:
        server = kit.server(None)
        shown = kit.run("-v", "-F", server.url("/status/303"), "a=1").out
        assert shown.startswith(b"GET / HTTP/2")
        assert b'{"a"' not in shown
