"""How long to leave a server alone that refuses: a little longer each time, with jitter, and never for long."""

from __future__ import annotations

import random

# The first attempt after a refusal is made at once: most refusals are a race with a limit, and are over by then.
FIRST_S = 0.05
# A server that has said no for 8 s is asked every second or so: recovery is seen by then, and no load comes of it.
LONGEST_S = 1.0


def pause_s(failures: int) -> float:
    """Seconds before the next attempt, when so many in a row were in vain: 0, then 50 ms, 100 ms, ... half as long or
    half as long again, so that clients that failed together do not come back together."""
    if failures <= 1:
        return 0.0
    return min(LONGEST_S, FIRST_S * 2.0 ** min(failures - 2, 30)) * random.uniform(0.5, 1.5)


class Pause:
    """Attempts in a row that were in vain, and until when to wait with the next one.

    Owned by the loop thread.
    """

    __slots__ = ("_failed_at", "_failures", "until_at")

    def __init__(self) -> None:
        self._failures = 0
        self._failed_at = 0.0
        self.until_at = 0.0

    def failed(self, now: float) -> None:
        """In vain; what fails in one instant is one attempt."""
        if now > self._failed_at:
            self._failed_at = now
            self._failures += 1
            self.until_at = now + pause_s(self._failures)

    def worked(self) -> None:
        """The server answers."""
        self._failures = 0
        self.until_at = 0.0
