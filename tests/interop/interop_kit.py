"""Starting somebody else's server for tests."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import pytest

from stress.servers import Served, ServerMissing


@contextlib.contextmanager
def running(made: contextlib.AbstractContextManager[Served]) -> Iterator[Served]:
    """The started server. Where it is not installed, a visible skip; on the machine that judges, a failure."""
    try:
        served = made.__enter__()
    except ServerMissing as missing:
        # There, a server that is missing is a test that was not made.
        if os.environ.get("CI") == "true":
            pytest.fail(str(missing))
        pytest.skip(str(missing))
    try:
        yield served
    finally:
        made.__exit__(None, None, None)
