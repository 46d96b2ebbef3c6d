"""No law rests on the GIL: the hand-over and the client are tested on a CPython without one, where there is one.

HYPERPOOL_FREE_THREADED_PYTHON names its interpreter, in which hyperpool's dependencies and pytest are installed; else
it is looked for under its usual names, on PATH and among pyenv's versions. Where none is found these tests are skipped,
and say so. cffi, and with it cryptography, begins with 3.14: a 3.13 cannot have what the tests need.

What differs there, and does no harm: a response that is forgotten is finalized in the next turn of its loop, within
`engine.loop.FORGOTTEN_WITHIN_S`, since an object is freed by the thread that has made it (PEP 703).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
NAMES = ("python3.15t", "python3.14t")
# An extension module that does not say that it is made for it (brotli 1.2) would quietly switch the GIL on again.
# Warnings are caught by `pytest.warns` in whatever thread they are given, as everywhere else.
WITHOUT_GIL = {"PYTHON_GIL": "0", "PYTHON_CONTEXT_AWARE_WARNINGS": "0"}
ASK = "import sys, pytest, hypothesis, h2, h11, OpenSSL; sys.exit(sys._is_gil_enabled())"


def of_pyenv() -> list[str]:
    """Free-threaded interpreters that pyenv has and does not show, newest first."""
    root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    return sorted(map(str, root.glob("versions/3.*t/bin/python")), reverse=True)


def free_threaded() -> str | None:
    """An interpreter that runs without a GIL and has what the tests need; None where there is none."""
    if not getattr(sys, "_is_gil_enabled", lambda: True)():
        return sys.executable
    named = [os.environ.get("HYPERPOOL_FREE_THREADED_PYTHON"), *map(shutil.which, NAMES), *of_pyenv()]
    for python in filter(None, named):
        environment = {**os.environ, **WITHOUT_GIL}
        if subprocess.run([python, "-c", ASK], env=environment, capture_output=True, check=False).returncode == 0:
            return python
    return None


@pytest.mark.slow
@pytest.mark.parametrize("folder", ["tests/handoff", "tests/engine", "tests/client"])
def test_it_passes_without_a_gil(folder: str) -> None:
    python = free_threaded()
    if python is None:
        pytest.skip("no free-threaded CPython with hyperpool's dependencies (HYPERPOOL_FREE_THREADED_PYTHON)")
    command = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "not slow", str(ROOT / folder)]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **WITHOUT_GIL}, capture_output=True, text=True, timeout=1800, check=False
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
