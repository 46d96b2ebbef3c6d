"""A resource for tests of downloads: it has ranges and validators, and may be cut in the middle."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from typing import Any

from hyperpool.testing import Disconnect, Reply, Request, pattern

SIZE = 300_000
BODY = pattern(SIZE)
SHA256 = hashlib.sha256(BODY).hexdigest()
NOW = datetime.now(timezone.utc)
OLD, FRESH = (format_datetime(NOW - timedelta(seconds=age_s), usegmt=True) for age_s in (3_600, 1))


@dataclass
class Shelf:
    """A resource with ranges and validators, which is cut in the middle where ``cuts`` are left."""

    body: bytes = BODY
    etag: str | None = '"one"'
    modified: str | None = None
    accepts_ranges: bool = True
    cuts: int = 0
    cut_bytes: int = 100_000
    fault: Any = field(default_factory=Disconnect)
    asked: list[str | None] = field(default_factory=list)
    conditions: list[str | None] = field(default_factory=list)

    def __call__(self, request: Request) -> Reply:
        wanted, only_if = request.header("range"), request.header("if-range")
        self.asked.append(wanted)
        self.conditions.append(only_if)
        fields = [("date", format_datetime(NOW, usegmt=True)), ("accept-ranges", "bytes")]
        fields += [("etag", self.etag)] if self.etag else []
        fields += [("last-modified", self.modified)] if self.modified else []
        begin, status = 0, 200
        if self.accepts_ranges and wanted and only_if in (self.etag, self.modified):
            begin, status = int(wanted.removeprefix("bytes=").rstrip("-")), 206
            if begin >= len(self.body):
                return Reply(416, [*fields, ("content-range", f"bytes */{len(self.body)}")])
            fields.append(("content-range", f"bytes {begin}-{len(self.body) - 1}/{len(self.body)}"))
        rest = self.body[begin:]
        fields.append(("content-length", str(len(rest))))
        if self.cuts:
            self.cuts -= 1
            return Reply(status, fields, rest, fault=self.fault, fault_after_bytes=self.cut_bytes)
        return Reply(status, fields, rest)
