"""The standard library's own tests of urllib, xmlrpc, logging and http.client, with our classes in its place.

Each runs in an interpreter of its own (standard_library.py), which replaces the classes before the tests are imported.
What is left out, and why, is listed there.
"""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest
from standard_library import EXCLUDED

PROGRAM = Path(__file__).with_name("standard_library.py")
# xmlrpc's servers wait half a second each time they stop; they take 28 s with the standard classes too.
TIMEOUT_S = 240


def has_tests(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


# Names, the least number of tests and of connections that go through ours. Where sockets are faked there are none.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "least_tests", "least_wires"),
    [
        ("test.test_urllib", 90, 0),
        ("test.test_urllib2", 60, 0),
        ("test.test_urllib2_localnet", 20, 25),
        ("test.test_xmlrpc", 80, 35),
        ("test.test_httplib", 100, 8),
        ("test.test_logging.HTTPHandlerTest", 1, 4),
    ],
)
def test_the_standard_librarys_tests_pass_with_our_classes(name: str, least_tests: int, least_wires: int) -> None:
    module = ".".join(name.split(".")[:2])
    if not has_tests(module):
        pytest.skip(f"this interpreter came without {module}")
    done = subprocess.run(
        [sys.executable, "-W", "error::ResourceWarning", str(PROGRAM), name],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=TIMEOUT_S,
    )
    assert done.returncode == 0, done.stdout[-6000:]
    counted = re.search(r"ran=(\d+) wires=(\d+)", done.stdout)
    assert counted is not None
    assert int(counted[1]) >= least_tests
    assert int(counted[2]) >= least_wires


def test_each_exclusion_has_its_reason() -> None:
    assert all(len(reason) > 40 for reason in EXCLUDED.values())
    assert len(EXCLUDED) <= 3
