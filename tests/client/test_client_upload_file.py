"""Client.upload: a file goes out with its length, its type and word of how far it is."""

from __future__ import annotations

import hashlib
import io
import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from client_support import H1_PLAIN, Kit, Wire, raised

import hyperpool
from hyperpool.policy.upload import guessed_type
from hyperpool.testing import Reply, Request, pattern

BODY = pattern(700_000)


def judge(request: Request) -> Any:
    """What was received: method, type, length, digest."""
    said = f"{request.method} {request.header('content-type')} {request.header('content-length')} "
    return said + hashlib.sha256(request.read()).hexdigest()


def received(method: str, kind: str, length: int | None, body: bytes = BODY) -> str:
    return f"{method} {kind} {length} {hashlib.sha256(body).hexdigest()}"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    found = tmp_path / "report.pdf"
    found.write_bytes(BODY)
    return found


def test_a_path_is_sent_with_its_length_and_its_type(kit: Kit, wire: Wire, path: Path) -> None:
    server, client = kit.pair(wire, judge)
    for given in (path, str(path)):
        assert client.upload(server.url(), given).text == received("PUT", "application/pdf", len(BODY))


def test_an_open_file_is_sent_from_where_it_stands_and_stays_open(kit: Kit, wire: Wire, path: Path) -> None:
    server, client = kit.pair(wire, judge)
    with path.open("rb") as file:
        file.seek(1_000)
        answer = client.upload(server.url(), file, method="POST").text
        assert not file.closed
    assert answer == received("POST", "application/pdf", len(BODY) - 1_000, BODY[1_000:])


def test_a_type_that_is_given_is_kept_and_the_clients_own_headers_too(kit: Kit, path: Path) -> None:
    server, client = kit.pair(H1_PLAIN, judge)
    assert client.upload(server.url(), path, headers={b"content-type": "text/x-mine"}).text.split()[1] == "text/x-mine"
    server.route("/agent")(lambda request: str(request.header("user-agent")))
    assert client.upload(server.url("/agent"), path, headers={"User-Agent": None}).text == "None"


TYPES = {
    "a.pdf": "application/pdf",
    "a.json": "application/json",
    "a.tar.gz": "application/gzip",
    "a.txt.xz": "application/x-xz",
    "a.unheard-of": "application/octet-stream",
    "": "application/octet-stream",
}


@pytest.mark.parametrize("name", TYPES)
def test_the_type_is_that_of_the_file_as_it_is(name: str) -> None:
    assert guessed_type(name) == TYPES[name]


def test_a_file_of_a_descriptor_has_no_name_to_guess_by(kit: Kit, path: Path) -> None:
    server, client = kit.pair(H1_PLAIN, judge)
    with os.fdopen(os.open(path, os.O_RDONLY), "rb") as file:
        assert client.upload(server.url(), file).text == received("PUT", "application/octet-stream", len(BODY))


class Pipe:
    """A file that can only be read."""

    def __init__(self, data: bytes) -> None:
        self._file = io.BytesIO(data)

    def read(self, n: int = -1) -> bytes:
        return self._file.read(n)


@pytest.mark.parametrize("is_told", [True, False])
def test_a_pipe_is_sent_without_a_length(kit: Kit, wire: Wire, is_told: bool) -> None:
    server, client = kit.pair(wire, judge)
    told: list[tuple[int, int | None]] = []
    progress = (lambda *so_far: told.append(so_far)) if is_told else None
    answer = client.upload(server.url(), Pipe(BODY), progress=progress)
    assert answer.text == received("PUT", "application/octet-stream", None)
    assert not is_told or told[-1] == (len(BODY), None)


@pytest.mark.parametrize("given", [b"bytes", 5, None, ["a"]])
def test_what_is_neither_path_nor_file_is_refused(kit: Kit, given: Any) -> None:
    raised(hyperpool.LocalProtocolError, lambda: kit.client().upload("http://127.0.0.1:1/", given))


def test_a_path_that_is_not_there_is_the_systems_own_error(kit: Kit, tmp_path: Path) -> None:
    raised(FileNotFoundError, lambda: kit.client().upload("http://127.0.0.1:1/", tmp_path / "no"))


# -- progress ----------------------------------------------------------------------------------------------------------


def test_progress_is_told_to_the_end_and_not_by_an_io_thread(kit: Kit, wire: Wire, path: Path) -> None:
    server, client = kit.pair(wire, judge)
    told: list[tuple[int, int | None]] = []
    threads = set()

    def tell(done: int, total: int | None) -> None:
        told.append((done, total))
        threads.add(threading.current_thread().name)

    assert client.upload(server.url(), path, progress=tell).text == received("PUT", "application/pdf", len(BODY))
    assert told[-1] == (len(BODY), len(BODY)) and [done for done, _ in told] == sorted({done for done, _ in told})
    assert threads == {"hyperpool upload"}


def test_progress_begins_anew_when_the_file_is_sent_again(kit: Kit, wire: Wire, path: Path) -> None:
    server, client = kit.pair(wire, judge)
    server.route("/from")(lambda request: (request.read(), Reply(307, (("location", "/to"),)))[1])
    told: list[int] = []
    with path.open("rb") as file:
        file.seek(1_000)
        client.upload(server.url("/from"), file, progress=lambda done, total: told.append(done))
    size = len(BODY) - 1_000
    assert (told.count(size), told.count(told[0]), told[-1]) == (2, 2, size)


def test_an_error_of_the_callback_is_raised_and_ends_the_request(kit: Kit, wire: Wire, path: Path) -> None:
    server = kit.server(wire, lambda request: Reply(200, body=request.iter_body()), errors_expected=True)

    def stop(done: int, total: int | None) -> None:
        raise ZeroDivisionError

    raised(ZeroDivisionError, lambda: kit.client(wire).upload(server.url(), path, progress=stop))


@pytest.mark.parametrize("rich_is_there", [True, False])
def test_a_bar_names_the_file(kit: Kit, path: Path, monkeypatch: pytest.MonkeyPatch, rich_is_there: bool) -> None:
    stderr = io.StringIO()
    monkeypatch.setattr("sys.stderr", stderr)
    if not rich_is_there:
        monkeypatch.setitem(sys.modules, "rich.progress", None)
    server, client = kit.pair(H1_PLAIN, judge)
    client.upload(server.url(), path, progress=True)
    shown = stderr.getvalue().rpartition("report.pdf")[2]
    assert ("700.0/700.0 kB" if rich_is_there else "700,000 of 700,000 bytes (100 %)") in shown


def test_32_threads_upload_at_once(kit: Kit, wire: Wire, path: Path) -> None:
    server, client = kit.pair(wire, judge)
    with ThreadPoolExecutor(32) as threads:
        answers = list(threads.map(lambda _: client.upload(server.url(), path).text, range(64)))
    assert set(answers) == {received("PUT", "application/pdf", len(BODY))}
