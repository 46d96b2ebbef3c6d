"""files=: multipart forms, streamed from files, read back by the standard library's own parser."""

from __future__ import annotations

import email
import email.policy
import io
from pathlib import Path
from typing import Any

import pytest
from client_support import H1_PLAIN, Kit, Wire, raised

import hyperpool
from hyperpool.policy.multipart import Multipart
from hyperpool.testing import Reply, Request
from stage import WAIT_S

Part = tuple[str, str, str, bytes]


def whole(request: Request) -> Any:
    """The body back, behind the type that was declared for it and its length."""
    declared = f"{request.header('content-type')}\n{request.header('content-length')}\n".encode()
    return Reply(body=declared + request.read())


def parts_of(body: bytes) -> tuple[str, list[Part]]:
    """The declared length, and (name, filename, type, content) of each part."""
    declared, length, rest = body.split(b"\n", 2)
    message = email.message_from_bytes(
        b"Content-Type: " + declared + b"\r\n\r\n" + rest, policy=email.policy.HTTP.clone(cte_type="8bit")
    )
    found = []
    for part in message.iter_parts():
        disposition = part["content-disposition"]
        name, filename = (str(disposition.params.get(key, "")) for key in ("name", "filename"))
        found.append((name, filename, str(part.get("content-type", "")), part.get_payload(decode=True)))
    assert length == b"None" or int(length) == len(rest)
    return length.decode(), found


def sent(kit: Kit, wire: Wire = H1_PLAIN, **options: Any) -> tuple[str, list[Part]]:
    server, client = kit.pair(wire, whole)
    return parts_of(client.post(server.url(), **options).content)


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "cat.png"
    path.write_bytes(bytes(range(256)) * 1000)
    return path


def test_an_open_file_goes_out_with_its_name_its_type_and_its_length(kit: Kit, wire: Wire, picture: Path) -> None:
    with picture.open("rb") as file:
        length, parts = sent(kit, wire, files={"photo": file})
    assert length.isdecimal()
    assert parts == [("photo", "cat.png", "image/png", picture.read_bytes())]


FORMS: dict[str, tuple[Any, Part]] = {
    "bytes": (b"x", ("f", "f", "application/octet-stream", b"x")),
    "str": ("\u00e4", ("f", "f", "application/octet-stream", "\u00e4".encode())),
    "named": (("a.txt", b"x"), ("f", "a.txt", "text/plain", b"x")),
    "typed": (("a.txt", b"x", "text/x-mine"), ("f", "a.txt", "text/x-mine", b"x")),
    "with headers": (("a.txt", b"x", "text/x-mine", {"X-A": "1"}), ("f", "a.txt", "text/x-mine", b"x")),
    "a file in memory": (io.BytesIO(b"x"), ("f", "f", "application/octet-stream", b"x")),
    "empty": (b"", ("f", "f", "application/octet-stream", b"")),
    "no filename": ((None, "v"), ("f", "", "", b"v")),
    "no filename, but a type": ((None, "{}", "application/json"), ("f", "", "application/json", b"{}")),
    "an empty filename": (("", b"x"), ("f", "", "application/octet-stream", b"x")),
    "a type in the headers": (("a.txt", b"x", None, {"Content-Type": "x/y"}), ("f", "a.txt", "x/y", b"x")),
    "in lower case": (("a.txt", b"x", None, {"content-type": "x/y"}), ("f", "a.txt", "x/y", b"x")),
    "without a filename": ((None, b"x", None, {"Content-Type": "x/y"}), ("f", "", "x/y", b"x")),
    "a type in both": (("a", b"x", "a/b", {"content-type": "x/y"}), ("f", "a", "a/b", b"x")),
    "no type at all": (("a.txt", b"x", None, {"Content-Type": None}), ("f", "a.txt", "", b"x")),
}


@pytest.mark.parametrize("name", FORMS)
def test_each_form_of_a_file_makes_a_part(kit: Kit, name: str) -> None:
    given, part = FORMS[name]
    assert sent(kit, files={"f": given})[1] == [part]


def test_fields_come_before_files_and_lists_are_repeated(kit: Kit, wire: Wire) -> None:
    data = {"a": "1", "b": ["2", "3"], "none": None, "n": 5}
    _, parts = sent(kit, wire, data=data, files=[("f", b"x"), ("f", b"y")])
    assert [(name, content) for name, _, _, content in parts] == [
        *(("a", b"1"), ("b", b"2"), ("b", b"3"), ("n", b"5")),
        *(("f", b"x"), ("f", b"y")),
    ]


def test_a_file_is_sent_from_where_it_stands(kit: Kit) -> None:
    file = io.BytesIO(b"--rest")
    file.seek(2)
    assert sent(kit, files={"f": file})[1][0][3] == b"rest"


class Pipe:
    """A file that can only be read."""

    def __init__(self, data: bytes) -> None:
        self._file = io.BytesIO(data)
        self.sizes: list[int] = []

    def read(self, n: int = -1) -> bytes:
        self.sizes.append(n)
        return self._file.read(n)


def test_a_file_without_a_size_is_streamed_without_a_length(kit: Kit, wire: Wire) -> None:
    pipe = Pipe(bytes(1 << 20))
    length, parts = sent(kit, wire, files={"f": ("a", pipe)})
    assert (length, len(parts[0][3])) == ("None", 1 << 20)
    assert max(pipe.sizes) <= 1 << 17 and min(pipe.sizes) > 0, "it is read piece by piece"


@pytest.mark.parametrize("replayable", [True, False])
def test_files_are_sent_again_where_they_can_be_rewound(kit: Kit, wire: Wire, replayable: bool) -> None:
    server, client = kit.pair(wire, whole)
    server.route("/a")(lambda request: (request.read(), Reply(307, (("location", "/b"),)))[1])
    file = io.BytesIO(b"again") if replayable else Pipe(b"once")
    future = client.submit("POST", server.url("/a"), files={"f": ("a", file)})
    if replayable:
        assert parts_of(future.result(WAIT_S).content)[1][0][3] == b"again"
    else:
        assert "second time" in str(raised(hyperpool.LocalProtocolError, lambda: future.result(WAIT_S)))


def test_names_are_kept_from_breaking_out_of_their_header(kit: Kit) -> None:
    name, filename = 'a"b\r\nX: y', 'c"d\r\nZ.txt'
    server, client = kit.pair(H1_PLAIN, whole)
    body = client.post(server.url(), files={name: (filename, b"x")}).content
    assert b"\r\nX: y" not in body and b"\r\nZ.txt" not in body


@pytest.mark.parametrize("headers", [{"X-A": "1\r\nX-B: 2"}, {"X\r\nY": "1"}])
def test_a_header_of_a_part_cannot_smuggle_another(kit: Kit, headers: Any) -> None:
    raised(hyperpool.LocalProtocolError, lambda: Multipart([], [("f", ("a", b"x", "text/plain", headers))]))


WRONG: dict[str, dict[str, Any]] = {
    "content": {"files": {"f": b"x"}, "content": b"y"},
    "json": {"files": {"f": b"x"}, "json": 1},
    "data as bytes": {"files": {"f": b"x"}, "data": b"y"},
    "text mode": {"files": {"f": io.StringIO("x")}},
    "a number": {"files": {"f": 5}},
    "too short": {"files": {"f": ("a",)}},
}


@pytest.mark.parametrize("name", WRONG)
def test_what_makes_no_form_is_refused_before_anything_is_sent(kit: Kit, name: str) -> None:
    raised(hyperpool.LocalProtocolError, lambda: kit.client().post("http://127.0.0.1:1/", **WRONG[name]))


@pytest.mark.parametrize("files", [None, {}, []])
def test_no_files_is_a_plain_form(kit: Kit, files: Any) -> None:
    server, client = kit.pair(H1_PLAIN, whole)
    assert client.post(server.url(), data={"a": "1"}, files=files).content.endswith(b"\na=1")


def test_a_content_type_of_the_callers_stays(kit: Kit) -> None:
    server, client = kit.pair(H1_PLAIN, whole)
    body = client.post(server.url(), files={"f": b"x"}, headers={"Content-Type": "multipart/mixed; boundary=b"}).content
    assert body.startswith(b"multipart/mixed; boundary=b\n")


def test_32_threads_upload_forms_at_once(kit: Kit, wire: Wire) -> None:
    server, client = kit.pair(wire, whole)

    def upload(n: int) -> bytes:
        return parts_of(client.post(server.url(), files={"f": io.BytesIO(b"%d" % n * 1000)}).content)[1][0][3]

    with kit.threads(32) as threads:
        assert list(threads.map(upload, range(64))) == [b"%d" % n * 1000 for n in range(64)]
