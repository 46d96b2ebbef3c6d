"""httpx's own tests, with our transports in place of its own.

HYPERPOOL_HTTPX_TESTS names a checkout, or a folder with the ``tests`` of the httpx that is installed; without it there
is nothing to run, which the skip says.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

VARIABLE = "HYPERPOOL_HTTPX_TESTS"
NEEDED = ("uvicorn", "trustme", "chardet", "trio")
TESTS = ("client", "models", "test_api.py", "test_auth.py", "test_config.py", "test_main.py", "test_timeouts.py")

_HTTPCORE = "looks at attributes of httpcore, or for the module itself"
_TRACE = "the command prints what the trace extension tells it"
# (test, why it is left out)
LEFT_OUT = [
    ("client/test_proxies.py::test_transport_for_request", _HTTPCORE),
    ("client/test_proxies.py::test_proxies_environ", _HTTPCORE),
    ("client/test_proxies.py::test_socks_proxy", _HTTPCORE),
    ("client/test_proxies.py::test_async_proxy_close", "asks a host of the open network"),
    ("client/test_proxies.py::test_sync_proxy_close", "asks a host of the open network"),
    ("test_api.py::test_httpcore_lazy_loading", _HTTPCORE),
    *((f"test_main.py::test_{name}", _TRACE) for name in ("get", "json", "binary", "post", "verbose", "auth")),
    *((f"test_main.py::test_{name}", _TRACE) for name in ("redirects", "follow_redirects")),
    (
        "test_timeouts.py::test_pool_timeout",
        "a body that has arrived holds no connection, so none is waited for",
    ),
    ("client/test_client.py::test_client_decode_text_using", "what chardet guesses depends on its version"),
    ("models/test_responses.py::test_response_decode_text_using_autodetect", "the same"),
    ("models/test_responses.py::test_response_no_charset_with_cp_1252_content", "the same"),
]

# Far below what is carried (69), far above nothing: the transports were really underneath.
LEAST_CARRIED = 40


def suite() -> Path:
    folder = os.environ.get(VARIABLE)
    if not folder:
        pytest.skip(f"{VARIABLE} does not name a checkout of httpx")
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"httpx's own tests need {', '.join(missing)}")
    return Path(folder)


def environment() -> dict[str, str]:
    """Ours, but for what would speak to the other pytest, or to httpx about this machine."""
    names = ("PYTEST_", "COV_", "SSL_CERT_")
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(names) and not name.lower().endswith("_proxy")
    }
    here = str(Path(__file__).parent)
    return {**kept, "PYTHONPATH": os.pathsep.join([here, kept.get("PYTHONPATH", "")]), "PYTHONDONTWRITEBYTECODE": "1"}


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_httpxs_own_tests_pass_over_the_transports(tmp_path: Path) -> None:
    folder = suite()
    settings = tmp_path / "pytest.ini"
    settings.write_text("[pytest]\nmarkers =\n  copied_from\n  network\n")
    command = [sys.executable, "-m", "pytest", "-q", "-c", str(settings), f"--rootdir={folder}", "--timeout=60"]
    command += ["-p", "httpx_suite_plugin", "-p", "no:cacheprovider", "-p", "no:hyperpool", "-p", "no:xdist"]
    command += ["-k", "not trio", *(f"--deselect=tests/{test}" for test, _ in LEFT_OUT)]
    command += [f"tests/{name}" for name in TESTS]
    done = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True, timeout=290)
    words = done.stdout[-8000:] + done.stderr[-2000:]
    assert done.returncode == 0, f"httpx {importlib.metadata.version('httpx')}: {words}"
    carried = re.search(r"carried by HyperpoolTransport: (\d+)", done.stdout)
    assert carried is not None and int(carried[1]) >= LEAST_CARRIED, words
