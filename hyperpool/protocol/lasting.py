"""Header fields that go with one request after another: judged once, and written down once for each version.

What is remembered stands on the fields themselves. So nobody else keeps their values, which are secrets as often as
not, and they are forgotten together with whoever has set them.
"""

from __future__ import annotations

from typing import Any

from hyperpool.protocol.field_rules import checked_name, checked_value


class LastingFields(tuple[tuple[bytes, bytes], ...]):  # noqa: SLOT001 - a tuple can have no slots but ()
    """Fields that passed once, and would pass each time: no rule looks at what else is in the message.

    Immutable, but for what the codecs remember of them; loops that race there remember the same.
    """

    as_h1: bytes | None = None
    as_h2: list[tuple[bytes, bytes]] | None = None


class LastingHeaders(tuple[tuple[str, str], ...]):  # noqa: SLOT001 - as above
    """Header fields as a client has them for all of its requests. Immutable, but for what is remembered of them."""

    passed: LastingFields | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return LastingHeaders, (tuple(self),)  # a copy remembers nothing


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
        passed = headers.passed = LastingFields(octets)
    return passed
