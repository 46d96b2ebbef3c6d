"""requests' own test suite, with HTTP20Adapter mounted in every Session.

HYPERPOOL_REQUESTS_TESTS names a checkout or an unpacked source distribution of the requests that is installed; without
it there is nothing to run, which the skip says.
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

VARIABLE = "HYPERPOOL_REQUESTS_TESTS"
NEEDED = ("requests", "pytest_httpbin", "pytest_mock", "trustme", "socks")

# (test, why it is left out)
_TARPIT = (
    "needs 10.255.255.1 to swallow packets, which is up to the network (plain requests fails it as well where packets"
    " are refused): test_requests_adapter.py has a mute server of its own"
)
_HALF_A_HEAD = (
    "its server closes before the empty line that ends a response head: to hyperpool there was no response, which is a"
    " ConnectionError; http.client takes half a head for a whole one"
)
_TWO_LENGTHS = (
    "a response with two lengths is refused by the codec (RFC 9112 6.3) before there is a response: a ConnectionError,"
    " not InvalidHeader"
)
LEFT_OUT = [
    ("tests/test_requests.py::TestTimeout::test_connect_timeout", _TARPIT),
    ("tests/test_requests.py::TestTimeout::test_total_timeout_connect", _TARPIT),
    ("tests/test_lowlevel.py::test_chunked_encoding_error", _HALF_A_HEAD),
    ("tests/test_lowlevel.py::test_conflicting_content_lengths", _TWO_LENGTHS),
]

# Far below what is carried (about 300), far above nothing: the adapter was really underneath.
LEAST_CARRIED = 200


def suite() -> Path:
    folder = os.environ.get(VARIABLE)
    if not folder:
        pytest.skip(f"{VARIABLE} does not name a checkout or an unpacked sdist of requests")
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"requests' own tests need {', '.join(missing)}")
    return Path(folder)


def version_in(folder: Path) -> str:
    found = re.search(r'__version__ = "([^"]+)"', (folder / "src/requests/__version__.py").read_text("utf-8"))
    assert found is not None
    return found[1]


def environment() -> dict[str, str]:
    """Ours, but for what would speak to the other pytest, or to requests about this machine."""
    names = ("PYTEST_", "COV_", "REQUESTS_", "CURL_", "SSL_CERT_")
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(names) and not name.lower().endswith("_proxy")
    }
    here = str(Path(__file__).parent)
    return {**kept, "PYTHONPATH": os.pathsep.join([here, kept.get("PYTHONPATH", "")]), "PYTHONDONTWRITEBYTECODE": "1"}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_requests_own_tests_pass_with_the_adapter_mounted() -> None:
    folder = suite()
    assert version_in(folder) == importlib.metadata.version("requests"), f"{VARIABLE} is of another version"
    command = [sys.executable, "-m", "pytest", "-q", "tests", "--timeout=60"]
    command += ["-p", "requests_suite_plugin", "-p", "no:cacheprovider", "-p", "no:hyperpool", "-p", "no:xdist"]
    command += [f"--deselect={test}" for test, _ in LEFT_OUT]
    done = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True, timeout=590)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    carried = re.search(r"carried by HTTP20Adapter: (\d+)", done.stdout)
    assert carried is not None and int(carried[1]) >= LEAST_CARRIED, done.stdout[-2000:]
