"""The answers that HTTP/2 makes us give, and whether the peer that asks reads them (RFC 9113 10.5).

PING and SETTINGS are to be answered at once. Who keeps asking and reads nothing would have us keep the answers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hyperpool.engine.transport import Transport

# 68 KB of PINGs; more than a server may ask at once (see `protocol.frame_guard`), so only one that does not read for
# long comes this far. nghttp2 stops at 1,000.
MAX_UNREAD = 4_000


class UnreadAnswers:
    """How many answers stand in the backlog.

    Owned by the loop thread. An upload may keep the backlog from ever being empty, so it is not enough to look for
    that: what was written by a certain moment is out when the socket has taken as many bytes as there were then.
    """

    __slots__ = ("_mark_answers", "_mark_bytes", "_out")

    def __init__(self) -> None:
        self._out = self._mark_answers = self._mark_bytes = 0

    def too_many(self, answers: int, wire: Transport) -> bool:
        """Whether it is a flood, now that so many have been given in all."""
        if wire.sent_bytes >= self._mark_bytes:
            self._out = self._mark_answers
            self._mark_answers, self._mark_bytes = answers, wire.sent_bytes + wire.backlog_bytes
        if not wire.backlog_bytes:
            self._out = answers
        return answers - self._out > MAX_UNREAD
