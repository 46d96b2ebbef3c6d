"""``-o FILE``: FILE is never half a body."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import pytest
from cli_support import Kit, seen_of

from hyperpool.testing import Reply, pattern
from hyperpool.urls import parse_url
from shelf import BODY, SIZE, Shelf


@pytest.fixture
def target(tmp_path: Path) -> Path:
    folder = tmp_path / "downloads"
    folder.mkdir()
    return folder / "saved"


def test_the_body_is_in_the_file_and_nothing_is_shown(kit: Kit, target: Path) -> None:
    done = kit.run("-o", str(target), kit.server().url("/bytes/300000"))
    assert (done.status, done.out, done.err) == (0, b"", "")
    assert target.read_bytes() == pattern(300_000)
    assert os.listdir(target.parent) == ["saved"]


def test_an_older_file_is_replaced_at_the_end(kit: Kit, target: Path) -> None:
    target.write_bytes(b"older and longer" * 1000)
    kit.run("-o", str(target), kit.server().url("/bytes/10"))
    assert target.read_bytes() == pattern(10)


def test_a_link_stays_a_link(kit: Kit, target: Path) -> None:
    (target.parent / "link").symlink_to(target)
    target.write_bytes(b"older")
    kit.run("-o", str(target.parent / "link"), kit.server().url("/bytes/10"))
    assert ((target.parent / "link").is_symlink(), target.read_bytes()) == (True, pattern(10))


def test_a_body_that_is_cut_stays_in_the_part_and_the_file_as_it_was(kit: Kit, target: Path) -> None:
    from hyperpool.testing import Disconnect

    target.write_bytes(b"older")
    server = kit.server(lambda request: Reply(200, (), pattern(100_000), fault=Disconnect(), fault_after_bytes=50_000))
    done = kit.run("-o", str(target), server.url("/"))
    assert (done.status, done.err.endswith(f"; what came is in {target}.part\n")) == (12, True)
    part = target.with_name("saved.part").read_bytes()
    assert (target.read_bytes(), part) == (b"older", pattern(len(part)))


def test_a_body_of_which_nothing_came_leaves_nothing(kit: Kit, target: Path) -> None:
    server = kit.server(lambda request: Reply(200, (("content-encoding", "gzip"),), b"plain"))
    done = kit.run("-o", str(target), server.url("/"))
    assert (done.status, "what came" in done.err, os.listdir(target.parent)) == (13, False, [])


def test_the_next_try_begins_anew(kit: Kit, target: Path) -> None:
    target.with_name("saved.part").write_bytes(b"x" * 1000)
    kit.run("-o", str(target), kit.server().url("/bytes/10"))
    assert (target.read_bytes(), os.listdir(target.parent)) == (pattern(10), ["saved"])


def test_a_page_that_says_what_went_wrong_does_not_replace_the_file(kit: Kit, target: Path) -> None:
    target.write_bytes(b"older")
    done = kit.run("--check-status", "-o", str(target), kit.server().url("/status/404"))
    assert (done.status, target.read_bytes()) == (4, b"older")


@pytest.mark.parametrize("where", ["no/such/folder/x", ""], ids=["no folder", "a folder"])
def test_what_cannot_be_written_is_named(kit: Kit, target: Path, where: str) -> None:
    done = kit.run("-o", str(target.parent / where), kit.server().url("/bytes/10"))
    assert (done.status, done.err.startswith(f"hyperpool: cannot write {target.parent}")) == (14, True)


def test_a_device_is_written_directly(kit: Kit) -> None:
    done = kit.run("-o", os.devnull, kit.server().url("/bytes/10"))
    assert (done.status, done.err, os.path.exists(os.devnull + ".part")) == (0, "", False)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full on this system")
def test_a_full_disk_is_an_error_of_the_file(kit: Kit) -> None:
    done = kit.run("-o", "/dev/full", kit.server().url("/bytes/100000"))
    assert (done.status, done.err) == (14, "hyperpool: cannot write /dev/full: no space left on device\n")


@pytest.mark.slow
def test_a_timeout_while_reading_is_no_fault_of_the_file(kit: Kit, target: Path) -> None:
    from hyperpool.testing import Silence

    server = kit.server(lambda request: Reply(200, (), pattern(1000), fault=Silence(), fault_after_bytes=500))
    assert kit.run("--timeout", "0.3", "-o", str(target), server.url("/")).status == 10


def test_no_coding_is_asked_for_so_that_the_length_is_the_files(kit: Kit, target: Path) -> None:
    kit.run("-o", str(target), kit.server(seen_of).url("/"))
    assert ["accept-encoding", "identity"] in json.loads(target.read_bytes())["headers"]


def test_a_coding_that_came_nevertheless_is_undone(kit: Kit, target: Path) -> None:
    server = kit.server(lambda request: Reply(200, (("content-encoding", "gzip"),), gzip.compress(b"text")))
    kit.run("-o", str(target), server.url("/"))
    assert target.read_bytes() == b"text"


def test_heads_can_be_shown_beside_it(kit: Kit, target: Path) -> None:
    done = kit.run("-v", "-o", str(target), kit.server().url("/bytes/10"))
    assert ("GET /bytes/10 HTTP/2" in done.text, "HTTP/2 200" in done.text) == (True, True)
    assert target.read_bytes() == pattern(10)


def test_a_minus_is_standard_output(kit: Kit) -> None:
    assert kit.run("-o", "-", kit.server().url("/bytes/10")).out == pattern(10)


# -- going on ----------------------------------------------------------------------------------------------------------

WIRES = pytest.mark.parametrize("wire", ["--h2", "--http1.1"])


def cut(kit: Kit, target: Path, wire: str, shelf: Shelf, *words: str) -> str:
    """The URL of a body that a first run got the beginning of; what that run said is checked."""
    shelf.cuts = 1
    url = kit.server(shelf).url("/a?b=c")
    done = kit.run(wire, *words, "-o", str(target), url)
    goes_on = ", and --continue goes on with it" if shelf.etag else ""
    assert (done.status, done.err.endswith(f"; what came is in {target}.part{goes_on}\n")) == (12, True)
    return url


@WIRES
@pytest.mark.parametrize("first", [(), ("-C",)], ids=["-o", "-C -o"])
def test_continue_goes_on_with_what_an_earlier_try_left(
    kit: Kit, target: Path, wire: str, first: tuple[str, ...]
) -> None:
    shelf = Shelf()
    url = cut(kit, target, wire, shelf, *first)
    size = target.with_name("saved.part").stat().st_size
    done = kit.run(wire, "--continue", "-o", str(target), url)
    assert (done.status, done.err) == (0, f"hyperpool: went on after the {size:,} bytes of {target}.part\n")
    assert (target.read_bytes(), os.listdir(target.parent)) == (BODY, ["saved"])
    assert (shelf.asked[-1], shelf.conditions[-1]) == (f"bytes={size}-", '"one"')


@WIRES
def test_continue_begins_anew_where_the_resource_is_another_one(kit: Kit, target: Path, wire: str) -> None:
    shelf = Shelf()
    url = cut(kit, target, wire, shelf)
    shelf.etag, shelf.body = '"two"', BODY[::-1]
    done = kit.run(wire, "-C", "-o", str(target), url)
    assert (done.status, done.err, target.read_bytes()) == (0, "", BODY[::-1])


def test_continue_begins_anew_where_the_server_names_no_version(kit: Kit, target: Path) -> None:
    shelf = Shelf(etag=None)
    url = cut(kit, target, "--http1.1", shelf)
    assert kit.run("-C", "-o", str(target), url).status == 0
    assert (target.read_bytes(), shelf.asked) == (BODY, [None, None])


def test_continue_keeps_what_came_also_where_nothing_can_go_on_with_it(kit: Kit, target: Path) -> None:
    """The note in the error says so; a second failure must not take the first one's bytes."""
    shelf = Shelf(etag=None)
    url = cut(kit, target, "--http1.1", shelf, "-C")
    part = target.with_name("saved.part").read_bytes()
    assert part and BODY.startswith(part)
    done = kit.run("-C", "-o", str(target), url.replace(f":{parse_url(url).origin.port}", ":1"))
    assert (done.status, done.err.endswith(f"; what came is in {target}.part\n")) == (7, True)
    assert target.with_name("saved.part").read_bytes() == part


@pytest.mark.parametrize("words", [(), ("-C",)], ids=["-o", "-C -o"])
def test_a_folder_that_is_not_there_does_not_become_a_file(kit: Kit, target: Path, words: tuple[str, ...]) -> None:
    done = kit.run(*words, "-o", f"{target}/", kit.server().url("/bytes/10"))
    assert (done.status, done.err.startswith(f"hyperpool: cannot write {target}/")) == (14, True)
    assert os.listdir(target.parent) == []


def test_without_continue_the_next_try_asks_for_all_of_it(kit: Kit, target: Path) -> None:
    shelf = Shelf()
    url = cut(kit, target, "--h2", shelf)
    assert kit.run("-o", str(target), url).status == 0
    assert (target.read_bytes(), shelf.asked, os.listdir(target.parent)) == (BODY, [None, None], ["saved"])


def test_with_continue_an_answer_without_the_file_is_its_own_status(kit: Kit, target: Path) -> None:
    target.write_bytes(b"older")
    done = kit.run("-C", "-o", str(target), kit.server().url("/status/404"))
    assert (done.status, target.read_bytes(), os.listdir(target.parent)) == (4, b"older", ["saved"])


def test_heads_and_stats_are_shown_beside_it_too(kit: Kit, target: Path) -> None:
    done = kit.run("-v", "--stats", "-C", "-o", str(target), kit.server(Shelf()).url("/"))
    assert ("GET / HTTP/2" in done.text, "HTTP/2 200" in done.text, f"{SIZE:,} bytes" in done.err) == (True,) * 3


@pytest.mark.parametrize(
    "words", [("-C",), ("-C", "-o", "-"), ("-C", "-o", "x", "POST"), ("-C", "-o", os.devnull), ("-C", "-o", "x", "a=b")]
)
def test_continue_is_for_files_and_get(kit: Kit, words: tuple[str, ...]) -> None:
    *options, last = words
    url = kit.server().url("/bytes/1")
    given = (*options, url, last) if "=" in last else (*words, url)
    done = kit.run(*given)
    assert (done.status, "--continue" in done.err) == (2, True)


def test_a_file_that_another_run_is_writing_is_left_alone(kit: Kit, target: Path) -> None:
    from hyperpool.policy.partial import Partial

    other = Partial(target, "https://a.test/")
    done = kit.run("-C", "-o", str(target), kit.server().url("/bytes/10"))
    other.leave()
    assert (done.status, "another download is writing this" in done.err) == (14, True)
