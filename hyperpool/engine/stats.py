"""What a loop tells about itself: published whole, by swapping one reference, so that readers take no lock."""

from __future__ import annotations

from typing import NamedTuple


class OriginStats(NamedTuple):
    """What one origin's loop has published last. Immutable."""

    origin: str
    http_version: str | None
    connections: int
    open_streams: int
    queued: int
    dialing: int
    requests: int
    resent: int

    @property
    def idle(self) -> bool:
        """Whether nothing was under way or waiting."""
        return not (self.open_streams or self.queued or self.dialing)
