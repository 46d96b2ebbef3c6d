"""What the processes of the benchmark tell one another: a Job goes in, a Measured comes out, both as JSON."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

BODY_BYTES = 1_024
# A measurement that did not end; everything else that goes wrong is counted, and is no failure of the program.
FAILED = "the measurement failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What one measuring process is to do. Immutable.

    ``url`` is what is asked for; ``probe_url``, where there is one, answers "h2" over HTTP/2 and nothing over
    HTTP/1.1; ``urls`` are those of many origins; ``plain_port`` serves one plain TCP stream.
    """

    client: str
    scenario: str
    seconds: float
    url: str = ""
    probe_url: str = ""
    ca_file: str = ""
    port: int = 0
    plain_port: int = 0
    size_bytes: int = BODY_BYTES
    urls: tuple[str, ...] = ()

    def plain(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> Job:
        return cls(**{**plain, "urls": tuple(plain["urls"])})


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One measurement, or the medians of several. Immutable.

    ``rate`` and ``cpu_us`` are in the unit of the scenario: requests, megabytes (10**6 bytes) or imports. ``low`` and
    ``high`` are the slowest and the fastest round. ``more`` holds what only one kind of scenario has.
    """

    client: str
    scenario: str
    how: str = ""
    protocol: str = ""
    rate: float = 0.0
    low: float = 0.0
    high: float = 0.0
    cpu_us: float = 0.0
    p50_ms: float = 0.0
    p99_ms: float = 0.0
    memory_mib: float = 0.0
    sockets: float = 0
    threads: float = 0
    errors: int = 0
    first_error: str = ""
    rounds: int = 1
    note: str = ""
    more: dict[str, float] = field(default_factory=dict)

    @property
    def failed(self) -> bool:
        return self.first_error.startswith(FAILED)


_MEDIANS = ("rate", "cpu_us", "p50_ms", "p99_ms", "memory_mib", "sockets", "threads")


def median(several: Sequence[Measured]) -> Measured:
    """The rounds as one row: medians of those that ended, all errors, and the spread of the rate."""
    taken = [each for each in several if each.rate] or list(several)
    rates = [each.rate for each in taken]
    first = taken[0]
    values: dict[str, Any] = {name: statistics.median(getattr(each, name) for each in taken) for name in _MEDIANS}
    return Measured(
        client=first.client,
        scenario=first.scenario,
        how=first.how,
        protocol="/".join(dict.fromkeys(each.protocol for each in taken if each.protocol)),
        low=min(rates),
        high=max(rates),
        errors=sum(each.errors for each in several),
        # That a round did not end counts more than what went wrong in one that did.
        first_error=next((each.first_error for each in sorted(several, key=_by_failure) if each.first_error), ""),
        rounds=len(taken),
        note=first.note,
        more={name: statistics.median(each.more.get(name, 0.0) for each in taken) for name in first.more},
        **values,
    )


def _by_failure(each: Measured) -> bool:
    return not each.failed
