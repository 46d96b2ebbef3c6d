"""Exit statuses: each failure has its own, and none leaves more than a line."""

from __future__ import annotations

import signal
import socket
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest
from cli_support import Kit, seen_of

from hyperpool import errors
from hyperpool.cli.statuses import Status, of_error
from hyperpool.testing import CertificateAuthority, Reply, Request, Silence
from stage import WAIT_S, nobody


class TestCheckStatus:
    @pytest.mark.parametrize(("status", "expected"), [(200, 0), (302, 3), (404, 4), (503, 5)])
    def test_the_status_decides_when_it_is_asked_for(self, kit: Kit, status: int, expected: int) -> None:
        done = kit.run("--check-status", kit.server().url(f"/status/{status}"))
        assert done.status == expected
        assert done.err.startswith(f"hyperpool: the answer is {status}" if expected else "")

    @pytest.mark.parametrize("status", [302, 404, 503])
    def test_else_every_answer_is_a_success(self, kit: Kit, status: int) -> None:
        done = kit.run(kit.server().url(f"/status/{status}"))
        assert (done.status, done.err) == (0, "")


class TestFailures:
    def test_a_name_that_is_none(self, kit: Kit) -> None:
        assert kit.run("no-such-host.invalid").status == Status.NAME

    def test_a_port_where_nobody_listens(self, kit: Kit) -> None:
        assert kit.run(f"http://127.0.0.1:{kit.stack.enter_context(nobody())}/").status == Status.CONNECT

    def test_a_certificate_of_somebody_else(self, kit: Kit) -> None:
        server = kit.server(authority=CertificateAuthority(), certificate=None)
        assert kit.run(server.url("/")).status == Status.CERTIFICATE
        assert kit.run("--verify=no", server.url("/")).status == Status.OK

    def test_tls_where_plain_http_is_spoken(self, kit: Kit) -> None:
        done = kit.run(kit.server(tls=False).url("/").replace("http://", ""))
        assert (done.status, "use http://" in done.err) == (Status.TLS, True)

    @pytest.mark.slow
    def test_a_server_that_says_nothing(self, kit: Kit) -> None:
        assert kit.run("--timeout", "0.3", kit.server(lambda request: Silence()).url("/")).status == Status.TIMEOUT

    @pytest.mark.parametrize("fault", ["disconnect", "reset"])
    def test_a_connection_that_is_lost(self, kit: Kit, fault: str) -> None:
        assert kit.run(kit.server().url(f"/fault/{fault}")).status == Status.LOST

    def test_a_server_that_does_not_speak_http(self, kit: Kit) -> None:
        def speak() -> None:
            with listener.accept()[0] as peer:
                peer.recv(1000)
                peer.sendall(b"220 mail.test ESMTP\r\n")
                peer.recv(1000)

        with socket.create_server(("127.0.0.1", 0)) as listener:
            speaking = threading.Thread(target=speak)
            speaking.start()
            done = kit.run(f"http://127.0.0.1:{listener.getsockname()[1]}/")
            speaking.join()
        assert done.status == Status.PROTOCOL

    def test_a_body_that_is_not_what_it_is_said_to_be(self, kit: Kit) -> None:
        server = kit.server(lambda request: Reply(200, (("content-encoding", "gzip"),), b"plain"))
        assert kit.run(server.url("/")).status == Status.DECODE

    @pytest.mark.parametrize(
        "words",
        [["ftp://a.test/"], ["https://a.test:0/"], ["https://"], ["http://127.0.0.1:1/", "A B:1"], []],
        ids=str,
    )
    def test_what_cannot_be_requested(self, kit: Kit, words: list[str]) -> None:
        done = kit.run(*words)
        assert (done.status, done.err.count("\n")) == (Status.USAGE, 1)

    def test_every_error_of_the_tree_has_a_status(self) -> None:
        made = {
            errors.ProxyError: Status.PROXY,
            errors.TlsError: Status.TLS,
            errors.CertificateError: Status.CERTIFICATE,
            errors.ConnectTimeout: Status.TIMEOUT,
            errors.ConnectError: Status.CONNECT,
            errors.RemoteProtocolError: Status.PROTOCOL,
            errors.LocalProtocolError: Status.USAGE,
            errors.PoolClosed: Status.OTHER,
        }
        assert {kind: of_error(kind("x")) for kind in made} == made


@pytest.mark.slow
class TestProcess:
    """In a process of its own: what the shell sees."""

    @pytest.mark.parametrize(
        ("words", "status"), [(["--check-status"], 4), ([], 0), (["--bogus"], 2), (["--verify=yes"], 9)], ids=str
    )
    def test_the_status_reaches_the_shell(self, kit: Kit, words: list[str], status: int) -> None:
        done = kit.run_process(*words, kit.server().url("/status/404"))
        assert (done.status, "Traceback" in done.err) == (status, False)

    def test_a_reader_that_goes_away_ends_it_quietly(self, kit: Kit) -> None:
        def for_ever() -> Any:
            while True:
                yield b"x" * 10_000

        child = kit.spawn(kit.server(lambda request: Reply(200, (), for_ever())).url("/"))
        assert child.stdout is not None
        assert child.stderr is not None
        child.stdout.read(10)
        child.stdout.close()
        assert (child.stderr.read(), child.wait(WAIT_S)) == (b"", Status.PIPE_CLOSED)

    def test_sigint_ends_it_with_130(self, kit: Kit) -> None:
        asked = threading.Event()

        def handler(request: Request) -> Any:
            asked.set()
            return Silence()

        child = kit.spawn(kit.server(handler).url("/"))
        assert asked.wait(WAIT_S)
        child.send_signal(signal.SIGINT)
        assert child.communicate(timeout=2 * WAIT_S) == (b"", b"hyperpool: interrupted\n")
        assert child.returncode == 130

    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full on this system")
    def test_a_full_disk_behind_standard_output_is_an_error(self, kit: Kit) -> None:
        with open("/dev/full", "wb") as full:
            done = kit.run_process(kit.server().url("/"), stdout=full)
        assert (done.status, done.err) == (14, "hyperpool: cannot write standard output: no space left on device\n")

    @pytest.mark.parametrize(("closed", "status"), [("<&-", 0), (">&-", 14), ("2>&-", 0)])
    def test_a_closed_stream_is_no_traceback(self, kit: Kit, closed: str, status: int) -> None:
        import shlex

        command = f"{shlex.join(kit.command(kit.server(seen_of).url('/')))} {closed}"
        done = subprocess.run(["sh", "-c", command], capture_output=True, timeout=2 * WAIT_S)
        assert (done.returncode, b"Traceback" in done.stderr) == (status, False)
