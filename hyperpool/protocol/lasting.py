"""Header fields that go with one request after another: judged once, and written down once for each version.

What is remembered stands on the fields themselves. So nobody else keeps their values, which are secrets as often as
not, and they are forgotten together with whoever has set them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from hyperpool.protocol.field_rules import checked_name, checked_value
from hyperpool.values import LastingHeaders

T = TypeVar("T")


class LastingFields(tuple[tuple[bytes, bytes], ...]):  # noqa: SLOT001 - a tuple can have no slots but ()
    """Fields that passed once, and would pass each time: no rule looks at what else is in the message.

    Immutable, but for what `written_once` remembers; loops that race there remember the same.
    """

    written: dict[Any, Any]


def passed_before(headers: Any) -> LastingFields | None:
    """The form on the wire of headers that last; None, or nothing, where they must be looked at with each request.

    Raises LocalProtocolError for what is no field.
    """
    if headers.__class__ is not LastingHeaders:
        return None
    passed: LastingFields | None = headers.passed
    if passed is None:
        ruled = any(checked_name(name)[1] is not None for name, _ in headers)
        octets = () if ruled else [(checked_name(name)[0], checked_value(name, value)) for name, value in headers]
        passed = LastingFields(octets)
        passed.written = {}
        headers.passed = passed
    return passed


def written_once(fields: tuple[tuple[bytes, bytes], ...], write: Callable[[Any], T]) -> T:
    """What ``write`` makes of these fields; of those that last it is remembered, and must not be changed."""
    if fields.__class__ is not LastingFields:
        return write(fields)
    written: dict[Any, T] = fields.written
    if write not in written:
        written[write] = write(fields)
    return written[write]
