"""The web applications of the recipes under gunicorn: threads of workers share one client, forked before or after."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from hyperpool.testing import pattern
from stage import WAIT_S

RECIPES = Path(__file__).resolve().parents[2] / "docs" / "recipes"
WORKERS, THREADS = 2, 8

pytest.importorskip("gunicorn")
pytestmark = pytest.mark.slow


def needs(app: str) -> None:
    pytest.importorskip(app.partition("_")[0])


@contextmanager
def gunicorn(app: str, upstream: str, ca_path: str, *options: str, folder: Path = RECIPES) -> Iterator[str]:
    """The application behind gunicorn; where it listens."""
    own = ["-w", str(WORKERS), "-k", "gthread", "--threads", str(THREADS), "-b", "127.0.0.1:0", "--no-control-socket"]
    # Else it would close what is idle for two seconds: on a slow machine under a request, or under its repetition too.
    own += ["--keep-alive", "60"]
    command = [sys.executable, "-m", "gunicorn", *own, "--graceful-timeout", "1", *options, f"{app}:app"]
    path = os.pathsep.join([str(folder), str(RECIPES), os.environ["PYTHONPATH"]])
    environment = {**os.environ, "UPSTREAM": upstream, "UPSTREAM_CA": ca_path, "PYTHONPATH": path}
    # Its own words go to a pipe that is read to the end at its end: there are few of them.
    process = subprocess.Popen(command, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True)
    with process:
        try:
            assert process.stderr is not None
            said = [line := process.stderr.readline()]
            while line and "Listening at" not in line:
                said.append(line := process.stderr.readline())
            assert "Listening at" in line, "".join(said)
            yield line.split("Listening at: ")[1].split()[0]
            process.terminate()
            rest = process.communicate(timeout=WAIT_S)[1]
            assert process.returncode == 0, rest
            assert "Traceback" not in rest, rest
        finally:
            process.kill()


@pytest.mark.parametrize("options", [(), ("--preload",)], ids=["forked before", "preload"])
@pytest.mark.parametrize("app", ["flask_app", "django_app"])
def test_all_threads_of_a_worker_share_one_connection(
    kitchen: Any, ca_path: str, app: str, options: tuple[str, ...]
) -> None:
    needs(app)
    server, client = kitchen.server(), kitchen.client(timeout=WAIT_S)
    with gunicorn(app, server.origin, ca_path, *options) as where:
        with ThreadPoolExecutor(32) as threads:
            answers = list(threads.map(lambda n: client.get(f"{where}/size/{n}").json(), range(320)))
        assert [one["bytes"] for one in answers] == list(range(320))
        assert {one["version"] for one in answers} == {"HTTP/2"}
        assert server.connections_accepted <= len({one["worker"] for one in answers}) * 2
        copied = client.get(f"{where}/copy/3000000").content
        assert hashlib.sha256(copied).digest() == hashlib.sha256(pattern(3_000_000)).digest()


@pytest.mark.parametrize("app", ["flask_app", "django_app"])
def test_a_client_that_was_used_before_the_fork_serves_the_workers_too(
    kitchen: Any, ca_path: str, tmp_path: Path, app: str
) -> None:
    needs(app)
    server, client = kitchen.server(), kitchen.client(timeout=WAIT_S)
    warm = f"from {app} import app, client\nassert client.get('/bytes/1').content\n"
    (tmp_path / "warm.py").write_text(warm)
    with gunicorn("warm", server.origin, ca_path, "--preload", folder=tmp_path) as where:
        with ThreadPoolExecutor(32) as threads:
            answers = list(threads.map(lambda n: client.get(f"{where}/size/{n}").json(), range(160)))
    assert [one.get("bytes", one) for one in answers] == list(range(160))
    assert server.connections_accepted <= 1 + WORKERS * 2


@pytest.mark.parametrize("app", ["flask_app", "django_app"])
def test_a_failure_behind_the_application_is_an_answer_of_its_own(kitchen: Any, ca_path: str, app: str) -> None:
    needs(app)
    server, client = kitchen.server(), kitchen.client(timeout=WAIT_S)
    server.route("/bytes/7")(lambda request: 503)
    from hyperpool.testing import Reset

    server.route("/bytes/8")(lambda request: Reset())
    with gunicorn(app, server.origin, ca_path) as where:
        failed = [client.get(f"{where}/size/{n}") for n in (7, 8)]
    assert [one.status_code for one in failed] == [502, 502]
    assert [one.json()["error"] for one in failed] == ["HTTPStatusError", "StreamReset"]
