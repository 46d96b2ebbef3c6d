"""Client.download: the file is whole or not there; it is gone on with where that is safe, and nothing else stays."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from client_support import H1_PLAIN, H2_TLS, Kit, Wire, pieces, raised
from urllib3.util import Retry

import hyperpool
from hyperpool import default
from hyperpool.errors import ChecksumError
from hyperpool.policy.partial import Partial
from hyperpool.testing import Disconnect, Reply, Request, Reset, pattern
from shelf import BODY, FRESH, OLD, SHA256, SIZE, Shelf
from stage import WAIT_S, eventually, nobody, opened

# Nothing is waited for between two attempts.
AT_ONCE = Retry(3, backoff_factor=0)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "file.bin"


def left_in(target: Path) -> list[str]:
    return sorted(path.name for path in target.parent.iterdir())


def fails(client: Any, url: str, target: Path, kind: type[BaseException], **options: Any) -> Any:
    return raised(kind, lambda: client.download(url, target, **options))


def cut(kit: Kit, shelf: Shelf, target: Path, wire: Wire = H1_PLAIN, **options: Any) -> tuple[Any, Any]:
    """A server and a client, after a download that was cut in the middle."""
    shelf.cuts = 1
    server, client = kit.pair(wire, shelf)
    with pytest.raises(hyperpool.HyperpoolError):
        client.download(server.url("/a"), target, **options)
    shelf.asked.clear()
    shelf.conditions.clear()
    return server, client


# -- whole -------------------------------------------------------------------------------------------------------------


def test_a_body_becomes_a_file_and_nothing_else(kit: Kit, wire: Wire, target: Path) -> None:
    server, client = kit.pair(wire, Shelf())
    done = client.download(server.url("/a"), target)
    assert (done.path, done.size_bytes, done.resumed_bytes, done.checksum) == (target, SIZE, 0, None)
    assert (Path(done).read_bytes(), done.response.headers["etag"]) == (BODY, '"one"')
    assert left_in(target) == ["file.bin"]


def test_a_file_that_is_there_is_replaced_in_one_step(kit: Kit, target: Path) -> None:
    target.write_bytes(b"old")
    gate, asked = kit.gate(), threading.Event()

    def body() -> Iterator[bytes]:
        yield BODY[:100_000]
        asked.set()
        opened(gate)
        yield BODY[100_000:]

    server, client = kit.pair(H1_PLAIN, lambda request: Reply(200, (("content-length", str(SIZE)),), body()))
    running = kit.threads(1).submit(client.download, server.url(), target)
    opened(asked)
    assert target.read_bytes() == b"old"
    gate.set()
    running.result(WAIT_S)
    assert target.read_bytes() == BODY


def test_the_file_behind_a_link_is_replaced_and_the_link_stays(kit: Kit, target: Path) -> None:
    link = target.with_name("link")
    link.symlink_to(target)
    server, client = kit.pair(H1_PLAIN, Shelf())
    assert client.download(server.url(), link).path == target
    assert link.is_symlink() and target.read_bytes() == BODY


def test_an_empty_body_is_an_empty_file(kit: Kit, wire: Wire, target: Path) -> None:
    server, client = kit.pair(wire, Shelf(body=b""))
    assert (client.download(server.url(), target).size_bytes, target.read_bytes()) == (0, b"")


def test_the_file_is_asked_for_as_it_is_and_a_coding_is_undone_all_the_same(kit: Kit, wire: Wire, target: Path) -> None:
    server, client = kit.pair(wire)
    client.download(server.url("/headers"), target)
    assert b'["accept-encoding", "identity"]' in target.read_bytes()
    client.download(server.url("/gzip"), target)
    assert target.read_bytes() == pattern(10_000)


def test_a_download_follows_redirects_and_base_url_and_params(kit: Kit, target: Path) -> None:
    server = kit.server(H1_PLAIN)
    server.route("/from")(lambda request: Reply(302, (("location", f"/to?{request.query}"),)))
    client = kit.client(H1_PLAIN, base_url=server.url("/"))
    client.download("from", target, params={"a": "1"}, headers={"User-Agent": None})
    assert b'"/to?a=1"' in target.read_bytes()
    assert client.get("headers").json()[0][0] == "host", "the client's own headers are as they were"


def test_the_module_has_a_twin(kit: Kit, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server, client = kit.pair(H1_PLAIN, Shelf())
    monkeypatch.setattr("hyperpool.default._client", client)
    default.download(server.url(), target)
    default.upload(server.url(), target)
    assert target.read_bytes() == BODY


# -- gone on with ------------------------------------------------------------------------------------------------------

SHELVES = {"etag": {}, "last-modified": {"etag": None, "modified": OLD}}


@pytest.mark.parametrize("fault", [Disconnect(), Disconnect(rst=True), Reset()], ids=["closed", "rst", "reset"])
def test_a_cut_download_is_gone_on_with_at_once_where_there_are_retries(
    kit: Kit, wire: Wire, target: Path, fault: Any
) -> None:
    shelf = Shelf(cuts=2, fault=fault)
    server, client = kit.pair(wire, shelf)
    done = client.download(server.url("/a"), target, retries=AT_ONCE, checksum=f"sha256:{SHA256}")
    assert (len(shelf.asked), done.resumed_bytes, target.read_bytes()) == (3, 0, BODY)
    # A TCP reset may take with it what the client's system had received, and nobody had read. HTTP/1.1 has no other.
    is_tcp_reset = fault == Disconnect(rst=True) or (fault == Reset() and not wire.http2)
    assert shelf.asked[0] is None and (shelf.asked[1] is not None or is_tcp_reset)
    assert left_in(target) == ["file.bin"]


@pytest.mark.parametrize("shelf", SHELVES)
def test_a_cut_download_is_gone_on_with_by_the_next_call(kit: Kit, wire: Wire, target: Path, shelf: str) -> None:
    server, client = cut(kit, kept := Shelf(**SHELVES[shelf]), target, wire)
    had_bytes = target.with_name("file.bin.part").stat().st_size
    assert left_in(target) == ["file.bin.part", "file.bin.part.json"] and had_bytes > 0
    done = client.download(server.url("/a"), target, checksum=f"sha256:{SHA256}")
    assert (done.resumed_bytes, kept.asked) == (had_bytes, [f"bytes={had_bytes}-"])
    assert kept.conditions == [kept.etag or kept.modified]
    assert (target.read_bytes(), left_in(target)) == (BODY, ["file.bin"])


DOWNLOADS = """
import sys, hyperpool
url, path = sys.argv[1:]
hyperpool.Client().download(url, path, progress=lambda done, total: done >= 250_000 and print(done, flush=True))
"""


def test_what_a_killed_program_left_behind_is_gone_on_with(kit: Kit, target: Path) -> None:
    """The note is written before the first byte, so that nothing need be done at the end."""
    gate, shelf = kit.gate(), Shelf()

    def stalls(request: Request) -> Reply:
        def body() -> Iterator[bytes]:
            yield BODY[:250_000]
            opened(gate)

        return Reply(200, (("content-length", str(SIZE)), ("etag", '"one"')), body())

    server, client = kit.pair(H1_PLAIN)
    server.route("/a")(stalls)
    command = [sys.executable, "-c", DOWNLOADS, server.url("/a"), str(target)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as running:
        assert running.stdout is not None and running.stdout.readline() == b"250000\n"
        running.kill()
    gate.set()
    server.route("/a")(shelf)
    done = client.download(server.url("/a"), target, checksum=f"sha256:{SHA256}")
    assert 0 < done.resumed_bytes <= 250_000


def test_a_file_that_changed_meanwhile_is_begun_anew(kit: Kit, wire: Wire, target: Path) -> None:
    server, client = cut(kit, shelf := Shelf(), target, wire)
    shelf.etag, shelf.body = '"two"', b"other" * 1_000
    assert client.download(server.url("/a"), target).resumed_bytes == 0
    assert target.read_bytes() == b"other" * 1_000


def test_a_file_that_changes_between_two_attempts_is_begun_anew(kit: Kit, target: Path) -> None:
    shelf = Shelf(cuts=1)

    def changing(request: Request) -> Reply:
        if shelf.asked:
            shelf.etag, shelf.body = '"two"', b"other" * 50_000
        return shelf(request)

    server, client = kit.pair(H1_PLAIN, changing)
    client.download(server.url("/a"), target, retries=AT_ONCE)
    assert target.read_bytes() == b"other" * 50_000


@pytest.mark.parametrize(
    "given",
    [{"etag": None}, {"etag": 'W/"one"'}, {"etag": None, "modified": FRESH}, {"etag": "bare"}],
    ids=["no validator", "weak etag", "last-modified of this second", "an etag without quotes"],
)
def test_without_a_strong_validator_nothing_is_kept_and_a_retry_begins_anew(
    kit: Kit, target: Path, given: dict[str, Any]
) -> None:
    server, client = cut(kit, shelf := Shelf(**given), target)
    assert left_in(target) == []
    shelf.cuts = 1
    assert client.download(server.url("/a"), target, retries=AT_ONCE).size_bytes == SIZE
    assert (shelf.asked, target.read_bytes()) == ([None, None], BODY)


def test_a_server_that_refuses_ranges_is_not_asked_for_any(kit: Kit, target: Path) -> None:
    def refuses(request: Request) -> Reply:
        asked.append(request.header("range"))
        fields = (("accept-ranges", "none"), ("etag", '"one"'), ("content-length", str(SIZE)))
        return Reply(200, fields, BODY, **({} if len(asked) > 1 else {"fault": Disconnect(), "fault_after_bytes": 9}))

    asked: list[Any] = []
    server, client = kit.pair(H1_PLAIN, refuses)
    client.download(server.url(), target, retries=AT_ONCE)
    assert (asked, target.read_bytes()) == ([None, None], BODY)


def test_a_server_that_ignores_ranges_sends_all_of_it(kit: Kit, wire: Wire, target: Path) -> None:
    server, client = cut(kit, shelf := Shelf(accepts_ranges=False), target, wire)
    assert client.download(server.url("/a"), target).resumed_bytes == 0
    assert (len(shelf.asked), target.read_bytes()) == (1, BODY)


def test_resume_false_asks_for_all_and_leaves_nothing_behind(kit: Kit, target: Path) -> None:
    server, client = cut(kit, shelf := Shelf(), target, resume=False)
    assert left_in(target) == []
    shelf.cuts = 1
    client.download(server.url("/a"), target, resume=False, retries=AT_ONCE)
    assert (shelf.asked, target.read_bytes()) == ([None, None], BODY)


def test_another_url_is_never_gone_on_with(kit: Kit, target: Path) -> None:
    server, client = cut(kit, shelf := Shelf(), target)
    client.download(server.url("/b"), target)
    assert (shelf.asked, target.read_bytes()) == ([None], BODY)


def test_the_note_holds_no_url(kit: Kit, target: Path) -> None:
    cut(kit, Shelf(), target)
    assert "/a" not in target.with_name("file.bin.part.json").read_text()


@pytest.mark.parametrize("note", ["", "[]", '{"of": 1}', '{"of": null, "validator": 3}', "\udcff"])
def test_a_note_that_cannot_be_read_is_as_good_as_none(kit: Kit, target: Path, note: str) -> None:
    server, client = cut(kit, shelf := Shelf(), target)
    target.with_name("file.bin.part.json").write_bytes(note.encode("utf-8", "surrogateescape"))
    client.download(server.url("/a"), target)
    assert (shelf.asked, target.read_bytes()) == ([None], BODY)


# -- what a server may answer to a range -------------------------------------------------------------------------------


def test_416_says_that_nothing_was_missing(kit: Kit, wire: Wire, target: Path) -> None:
    server, client = cut(kit, shelf := Shelf(), target, wire)
    target.with_name("file.bin.part").write_bytes(BODY)
    done = client.download(server.url("/a"), target, checksum=f"sha256:{SHA256}")
    assert (done.resumed_bytes, shelf.asked, left_in(target)) == (SIZE, [f"bytes={SIZE}-"], ["file.bin"])


def test_416_for_a_file_of_another_size_begins_anew(kit: Kit, target: Path) -> None:
    server, client = cut(kit, shelf := Shelf(), target)
    target.with_name("file.bin.part").write_bytes(BODY + b"too much")
    assert client.download(server.url("/a"), target).resumed_bytes == 0
    assert (len(shelf.asked), target.read_bytes()) == (2, BODY)


WRONG = {
    "another place": {"content-range": f"bytes 7-{SIZE - 1}/{SIZE}"},
    "no place": {"x": "y"},
    "nonsense": {"content-range": "bytes one-two/three"},
    "no number of bytes": {"content-range": f"bytes 100000-{'9' * 5_000}/*"},
    "another version": {"content-range": f"bytes 100000-{SIZE - 1}/{SIZE}", "etag": '"two"'},
    "coded": {"content-range": f"bytes 100000-{SIZE - 1}/{SIZE}", "content-encoding": "gzip"},
    "several ranges": {"content-type": "multipart/byteranges; boundary=x"},
}


@pytest.mark.parametrize("name", WRONG)
def test_a_part_that_does_not_fit_is_thrown_away_and_all_is_asked_for(
    kit: Kit, wire: Wire, target: Path, name: str
) -> None:
    server, client = cut(kit, Shelf(), target, wire)
    target.with_name("file.bin.part").write_bytes(BODY[:100_000])
    asked = []

    def wrong(request: Request) -> Reply:
        asked.append(request.header("range"))
        return Reply(206, WRONG[name], b"junk") if asked[-1] else Reply(200, body=BODY)

    server.route("/a")(wrong)
    client.download(server.url("/a"), target)
    assert (asked, target.read_bytes()) == (["bytes=100000-", None], BODY)


def test_a_server_may_send_less_than_was_asked_for_as_long_as_it_sends_something(kit: Kit, target: Path) -> None:
    server, client = cut(kit, Shelf(), target)
    target.with_name("file.bin.part").write_bytes(BODY[:100_000])

    def sparing(request: Request) -> Reply:
        begin = int((request.header("range") or "").removeprefix("bytes=").rstrip("-"))
        end = min(begin + 90_000, SIZE)
        return Reply(206, (("content-range", f"bytes {begin}-{end - 1}/{SIZE}"),), BODY[begin:end])

    server.route("/a")(sparing)
    assert client.download(server.url("/a"), target).resumed_bytes == 100_000
    assert target.read_bytes() == BODY


@pytest.mark.parametrize("place", [f"bytes 100000-{SIZE - 1}/{SIZE}", f"bytes 100000-99999/{SIZE}"])
def test_a_part_with_nothing_in_it_is_an_error_and_no_endless_loop(kit: Kit, target: Path, place: str) -> None:
    server, client = cut(kit, Shelf(), target)
    target.with_name("file.bin.part").write_bytes(BODY[:100_000])
    server.route("/a")(lambda request: Reply(206, (("content-range", place),), b""))
    fails(client, server.url("/a"), target, hyperpool.RemoteProtocolError)


def test_a_part_of_an_unknown_whole_is_the_rest(kit: Kit, target: Path) -> None:
    server, client = cut(kit, Shelf(), target)
    target.with_name("file.bin.part").write_bytes(BODY[:100_000])
    server.route("/a")(lambda request: Reply(206, (("content-range", f"bytes 100000-{SIZE - 1}/*"),), BODY[100_000:]))
    client.download(server.url("/a"), target)
    assert target.read_bytes() == BODY


@pytest.mark.parametrize("status", [204, 206, 304, 404, 416, 503])
def test_a_status_without_the_file_is_an_error_and_leaves_nothing(
    kit: Kit, wire: Wire, target: Path, status: int
) -> None:
    server, client = kit.pair(wire, lambda request: Reply(status))
    error = fails(client, server.url(), target, hyperpool.HTTPStatusError, retries=AT_ONCE)
    assert (error.response.status_code, left_in(target)) == (status, [])


def test_a_redirect_that_is_not_followed_is_no_file(kit: Kit, target: Path) -> None:
    server, client = kit.pair(H1_PLAIN)
    fails(client, server.url("/status/302"), target, hyperpool.HTTPStatusError, follow_redirects=False)


# -- failures ----------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform == "win32", reason="no forks, no locks")
def test_a_child_that_was_forked_meanwhile_does_not_keep_the_lock(target: Path) -> None:
    partial = Partial(target, "https://a.test/")
    childs = os.dup(partial._file.fileno())  # what a child has
    partial.leave()
    Partial(target, "https://a.test/").leave()
    os.close(childs)


@pytest.mark.skipif(sys.platform == "win32", reason="no locks")
def test_a_file_system_without_locks_is_none_to_fail_on(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fcntl

    def flock(*args: object) -> None:
        raise OSError(errno.ENOTSUP, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", flock)
    open_here = len(os.listdir("/dev/fd"))
    Partial(target, "https://a.test/").leave()
    assert len(os.listdir("/dev/fd")) == open_here


def test_a_failure_keeps_the_file_that_was_there(kit: Kit, target: Path) -> None:
    target.write_bytes(b"old")
    cut(kit, Shelf(), target)
    assert target.read_bytes() == b"old"


def test_retries_are_counted_over_the_whole_download(kit: Kit, wire: Wire, target: Path) -> None:
    shelf = Shelf(cuts=9, cut_bytes=1_000)
    server, client = kit.pair(wire, shelf)
    with pytest.raises(hyperpool.HyperpoolError) as caught:
        client.download(server.url(), target, retries=AT_ONCE)
    assert (len(shelf.asked), caught.value.origin) == (4, server.origin)


def test_a_server_that_cannot_be_reached_leaves_nothing(kit: Kit, target: Path) -> None:
    server, client = kit.pair(H1_PLAIN)
    server.close()
    kit.enter(nobody(server.port))
    fails(client, server.url(), target, hyperpool.ConnectError)
    assert left_in(target) == []


def test_what_an_earlier_call_left_survives_a_server_that_is_away(kit: Kit, target: Path) -> None:
    server, client = cut(kit, Shelf(), target)
    server.close()
    kit.enter(nobody(server.port))
    fails(client, server.url("/a"), target, hyperpool.ConnectError)
    assert left_in(target) == ["file.bin.part", "file.bin.part.json"]


def test_an_error_of_the_callback_ends_the_download_and_is_raised(kit: Kit, wire: Wire, target: Path) -> None:
    server, client = kit.pair(wire, Shelf())

    def stop(done: int, total: int | None) -> None:
        raise ZeroDivisionError

    fails(client, server.url(), target, ZeroDivisionError, progress=stop)
    assert "file.bin" not in left_in(target)


def test_closing_the_client_ends_the_wait_for_the_next_attempt(kit: Kit, target: Path) -> None:
    shelf = Shelf(cuts=1)
    server, client = kit.pair(H1_PLAIN, shelf)
    failed = threading.Event()

    class Watched(Retry):
        def get_backoff_time(self) -> float:
            failed.set()
            return 3_600.0

    running = kit.threads(1).submit(client.download, server.url(), target, retries=Watched(3))
    opened(failed)
    client.close()
    assert type(running.exception(WAIT_S)) is hyperpool.PoolClosed


def test_the_budget_of_an_origin_holds_downloads_back_too(kit: Kit, target: Path) -> None:
    shelf = Shelf(cuts=100, cut_bytes=0)
    server, client = kit.pair(H1_PLAIN, shelf)
    with pytest.raises(hyperpool.HyperpoolError):
        client.download(server.url(), target, retries=Retry(100, backoff_factor=0))
    assert len(shelf.asked) < 20


def test_whoever_gets_on_need_not_wait_and_spends_no_budget(kit: Kit, target: Path) -> None:
    # Retry would have it wait for up to two minutes each time, from the second cut on.
    shelf = Shelf(cuts=30, cut_bytes=1_000)
    server, client = kit.pair(H1_PLAIN, shelf)
    client.download(server.url(), target, retries=Retry(40, backoff_factor=1_000))
    assert (len(shelf.asked), target.read_bytes()) == (31, BODY)


# -- what others have left there ---------------------------------------------------------------------------------------


NO_ANSWER: dict[str, tuple[type[BaseException], dict[str, Any]]] = {
    "no url": (hyperpool.InvalidURL, {}),
    "http://localhost:1/": (hyperpool.ConnectError, {}),
    "http://localhost:1/?again": (hyperpool.ConnectError, {"resume": False}),
    "http://localhost:1/?wrong": (TypeError, {"stream": True}),
}


@pytest.mark.parametrize("url", NO_ANSWER)
def test_files_that_have_such_names_are_left_alone_until_there_is_an_answer(kit: Kit, target: Path, url: str) -> None:
    part, note = target.with_name("file.bin.part"), target.with_name("file.bin.part.json")
    part.write_bytes(b"somebody's")
    note.write_bytes(b'{"somebody": "else"}')
    kind, options = NO_ANSWER[url]
    fails(kit.client(H1_PLAIN), url, target, kind, **options)
    assert (part.read_bytes(), note.read_bytes()) == (b"somebody's", b'{"somebody": "else"}')


def test_a_mirror_that_is_away_or_has_no_such_file_leaves_the_part_of_the_other(kit: Kit, target: Path) -> None:
    server, client = cut(kit, Shelf(), target)
    fails(client, "http://localhost:1/a", target, hyperpool.ConnectError)
    fails(client, kit.server(H1_PLAIN).url("/status/404"), target, hyperpool.HTTPStatusError)
    assert client.download(server.url("/a"), target).resumed_bytes > 0
    assert target.read_bytes() == BODY


def test_a_link_of_the_parts_name_is_not_followed(kit: Kit, target: Path) -> None:
    other = target.with_name("other")
    other.write_bytes(b"precious")
    target.with_name("file.bin.part").symlink_to(other)
    server, client = kit.pair(H1_PLAIN, Shelf())
    fails(client, server.url("/a"), target, OSError)
    assert other.read_bytes() == b"precious"


def test_a_file_that_is_replaced_keeps_its_mode(kit: Kit, target: Path) -> None:
    target.write_bytes(b"old")
    target.chmod(0o600)
    server, client = kit.pair(H1_PLAIN, Shelf())
    client.download(server.url("/a"), target)
    assert (target.stat().st_mode & 0o777, target.read_bytes()) == (0o600, BODY)


def test_a_second_download_of_the_same_file_is_refused_while_the_first_is_under_way(kit: Kit, target: Path) -> None:
    gate, begun = kit.gate(), threading.Event()

    def body() -> Iterator[bytes]:
        begun.set()
        opened(gate)
        yield BODY

    server, client = kit.pair(H1_PLAIN, lambda request: Reply(200, body=body()))
    running = kit.threads(1).submit(client.download, server.url(), target)
    opened(begun)
    assert str(target) in str(fails(client, server.url(), target, BlockingIOError))
    gate.set()
    running.result(WAIT_S)
    assert (target.read_bytes(), left_in(target)) == (BODY, ["file.bin"])


@pytest.mark.parametrize("name", ["folder", "pipe"])
def test_what_is_no_file_is_refused_and_not_replaced(kit: Kit, tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name == "folder":
        path.mkdir()
    else:
        os.mkfifo(path)
    with pytest.raises((IsADirectoryError, ValueError)):
        kit.client().download("http://127.0.0.1:1/", path)
    assert left_in(path) == [name]


def test_a_folder_that_is_not_there_is_the_systems_own_error(kit: Kit, tmp_path: Path) -> None:
    raised(FileNotFoundError, lambda: kit.client().download("http://127.0.0.1:1/", tmp_path / "no" / "file"))


@pytest.mark.parametrize("name", ["Range", b"if-range"])
def test_a_range_of_the_callers_is_refused(kit: Kit, target: Path, name: Any) -> None:
    fails(kit.client(), "http://127.0.0.1:1/", target, hyperpool.LocalProtocolError, headers={name: "bytes=0-1"})
    assert left_in(target) == []


# -- checksums ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("given", [f"sha256:{SHA256}", f" SHA256:{SHA256.upper()} ", "sha256"])
def test_the_right_checksum_is_told(kit: Kit, target: Path, given: str) -> None:
    server, client = kit.pair(H1_PLAIN, Shelf())
    assert client.download(server.url(), target, checksum=given).checksum.lower() == f"sha256:{SHA256}"


def test_a_hashlib_object_is_fed_with_the_whole_file_also_after_a_cut(kit: Kit, target: Path) -> None:
    server, client = kit.pair(H1_PLAIN, Shelf(cuts=1))
    digest = hashlib.blake2b()
    assert client.download(server.url(), target, checksum=digest, retries=AT_ONCE).checksum is None
    assert digest.digest() == hashlib.blake2b(BODY).digest()


def test_the_wrong_checksum_is_an_error_and_leaves_nothing(kit: Kit, wire: Wire, target: Path) -> None:
    target.write_bytes(b"old")
    server, client = kit.pair(wire, Shelf())
    error = fails(client, server.url(), target, ChecksumError, checksum="sha256:" + "0" * 64)
    assert SHA256 in str(error) and error.origin == server.origin
    assert (left_in(target), target.read_bytes()) == (["file.bin"], b"old")


@pytest.mark.parametrize("given", ["sha256:abc", "nonsense:00", "md5:", "shake_128:00", "sha256:" + "x" * 64])
def test_a_checksum_that_cannot_be_is_refused_before_anything_is_sent(kit: Kit, target: Path, given: str) -> None:
    fails(kit.client(), "http://127.0.0.1:1/", target, ValueError, checksum=given)
    fails(kit.client(), "http://127.0.0.1:1/", target, TypeError, checksum=5)


# -- progress ----------------------------------------------------------------------------------------------------------


def test_progress_is_told_from_nothing_to_the_end(kit: Kit, wire: Wire, target: Path) -> None:
    server, client = kit.pair(wire, Shelf())
    told: list[tuple[int, int | None]] = []
    client.download(server.url(), target, progress=lambda *so_far: told.append(so_far))
    assert (told[0], told[-1], {total for _, total in told}) == ((0, SIZE), (SIZE, SIZE), {SIZE})
    assert [done for done, _ in told] == sorted({done for done, _ in told})


def test_progress_begins_where_the_last_call_ended(kit: Kit, target: Path) -> None:
    server, client = cut(kit, Shelf(), target)
    target.with_name("file.bin.part").write_bytes(BODY[:100_000])
    told: list[tuple[int, int | None]] = []
    client.download(server.url("/a"), target, progress=lambda *so_far: told.append(so_far))
    assert (told[0], told[-1]) == ((100_000, SIZE), (SIZE, SIZE))


def test_the_size_of_a_body_without_a_length_is_none(kit: Kit, wire: Wire, target: Path) -> None:
    server, client = kit.pair(wire)
    told: list[tuple[int, int | None]] = []
    client.download(server.url("/chunked/5000"), target, progress=lambda *so_far: told.append(so_far))
    assert (told[0], told[-1]) == ((0, None), (5_000, None))


class Terminal(io.StringIO):
    """A standard error that is one."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("rich_is_there", [True, False])
@pytest.mark.parametrize("out", [io.StringIO, Terminal])
def test_a_bar_names_the_file_and_ends_full(
    kit: Kit, target: Path, monkeypatch: pytest.MonkeyPatch, rich_is_there: bool, out: Any
) -> None:
    stderr = out()
    monkeypatch.setattr("sys.stderr", stderr)
    if not rich_is_there:
        monkeypatch.setitem(sys.modules, "rich.progress", None)
    server, client = kit.pair(H1_PLAIN, Shelf())
    client.download(server.url(), target, progress=True)
    shown = stderr.getvalue().rpartition("file.bin")[2]
    assert ("300.0/300.0 kB" if rich_is_there else "300,000 of 300,000 bytes (100 %)") in shown


def test_bars_of_several_threads_share_one_display(kit: Kit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stderr = Terminal()
    monkeypatch.setattr("sys.stderr", stderr)
    meet = threading.Barrier(4)

    def together(request: Request) -> Reply:
        meet.wait(WAIT_S)
        return Reply(200, body=BODY)

    server, client = kit.pair(H1_PLAIN, together)
    names = [f"file-{n}" for n in range(4)]
    list(kit.threads(4).map(lambda name: client.download(server.url(), tmp_path / name, progress=True), names))
    shown = stderr.getvalue()
    assert all(name in shown for name in names)
    assert eventually(lambda: not [one for one in threading.enumerate() if "rich" in type(one).__module__])


def test_a_progress_that_is_neither_callable_nor_true_is_refused(kit: Kit, target: Path) -> None:
    fails(kit.client(), "http://127.0.0.1:1/", target, TypeError, progress=5)


def test_without_a_standard_error_nobody_is_told(kit: Kit, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr", None)
    monkeypatch.setitem(sys.modules, "rich.progress", None)
    server, client = kit.pair(H1_PLAIN, Shelf())
    client.download(server.url(), target, progress=True)
    assert target.read_bytes() == BODY


# -- many at once ------------------------------------------------------------------------------------------------------


def test_32_threads_download_at_once_each_its_own_file_with_cuts(kit: Kit, wire: Wire, tmp_path: Path) -> None:
    first = {}

    def cut_once(request: Request) -> Reply:
        size = int(request.path.rpartition("/")[2])
        shelf = first.setdefault(
            request.path, Shelf(body=pattern(size), cuts=size % 8 == 0, cut_bytes=10_000, fault=Reset())
        )
        return shelf(request)

    server, client = kit.pair(wire, cut_once)
    sizes = [100_000 + n for n in range(32)]

    def fetch(size: int) -> bytes:
        return Path(client.download(server.url(f"/{size}"), tmp_path / str(size), retries=AT_ONCE)).read_bytes()

    with ThreadPoolExecutor(32) as threads:
        assert list(threads.map(fetch, sizes)) == [pattern(size) for size in sizes]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(map(str, sizes))


@pytest.mark.slow
def test_the_memory_for_a_download_does_not_grow_with_its_size(kit: Kit, target: Path) -> None:
    size = 64 << 20
    server, client = kit.pair(H2_TLS, lambda request: Reply(200, (("content-length", str(size)),), pieces(size)))
    client.download(server.url(), target)
    tracemalloc.start()
    try:
        client.download(server.url(), target)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (target.stat().st_size, peak < 12 << 20) == (size, True), f"{peak:,} bytes at the most"
