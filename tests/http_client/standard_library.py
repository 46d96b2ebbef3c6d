"""Runs tests of the standard library with our classes in the place of the standard ones; a program of its own.

Usage: standard_library.py NAME … [-k …]: names as `unittest` takes them. Prints how many wires were made, so that
nobody takes tests that passed us by for tests that we passed.
"""

from __future__ import annotations

import http.client
import sys
import unittest
from typing import Any

from hyperpool import http_client
from hyperpool.http_client.wire import Wire

# Test (its end is compared) and reason. Everything else that these modules test must pass.
EXCLUDED = {
    "OfflineTest.test_all": "asks which classes say that they live in the module http.client; ours do not",
    "TestUrlopen.test_chunked": "the server answers with chunks in HTTP/1.0, which RFC 9112 6.1 forbids: a proxy that"
    " knows no chunks in 1.0 would see another end of the response",
    "FailingServerTestCase.test_fail_with_info": "the server writes a traceback with bare line feeds into a header,"
    " which is how responses are split (RFC 9112 2.2)",
}


def tests_in(suite: Any) -> Any:
    for each in suite:
        if isinstance(each, unittest.TestSuite):
            yield from tests_in(each)
        else:
            yield each


def main() -> int:
    http.client.HTTPConnection = http_client.HTTPConnection  # type: ignore[misc]
    http.client.HTTPSConnection = http_client.HTTPSConnection  # type: ignore[misc]
    http.client.HTTPResponse = http_client.HTTPResponse  # type: ignore[misc]
    wires = []
    original = Wire.__init__

    def counted(self: Wire, *given: Any, **options: Any) -> None:
        wires.append(None)
        original(self, *given, **options)

    Wire.__init__ = counted  # type: ignore[method-assign]
    # Imported now: these modules look the classes up.
    found = list(tests_in(unittest.defaultTestLoader.loadTestsFromNames(sys.argv[1:])))
    suite = unittest.TestSuite(test for test in found if not test.id().endswith(tuple(EXCLUDED)))
    result = unittest.TextTestRunner(stream=sys.stdout, verbosity=1).run(suite)
    print(f"ran={result.testsRun} wires={len(wires)} excluded={len(found) - suite.countTestCases()}")
    return 0 if result.wasSuccessful() else 1


if __name__ == "__main__":
    sys.exit(main())
