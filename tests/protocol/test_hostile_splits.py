"""The same bytes, cut in two at every place: the outcome of the hostile sets does not depend on what a read holds.

The sets are those of test_hostile_http1.py, test_hostile_http2.py and of the two tables of MUSTs. Byte by byte is in
those files; here each form is cut once, everywhere. A form of more than `ALL_CUTS` bytes is cut at its ends and at as
many places between, since what is judged is the head of each frame and of each message.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import test_hostile_http1 as http1
import test_hostile_http2 as http2
import test_musts_rfc9112 as musts_http1
import test_musts_rfc9113 as musts_http2

from hyperpool.protocol import events
from hyperpool.protocol.h2_codec import H2Codec

ALL_CUTS = 240


def cuts(size: int) -> Iterator[int]:
    """Each place of a short text; the ends of a long one, and places between."""
    if size <= ALL_CUTS:
        yield from range(1, size)
        return
    yield from range(1, 41)
    yield from range(41, size - 40, max(1, size // (ALL_CUTS - 80)))
    yield from range(size - 40, size)


def after(codec: H2Codec, *reads: bytes) -> tuple[list[Any], bool, int | None, list[tuple[int, int]]]:
    """What is heard, with bodies joined; whether the connection failed; what goes out about it."""
    heard: list[Any] = []
    for read in reads:
        for event in codec.receive(read) if codec.failure is None else ():
            last = heard[-1] if heard else None
            if isinstance(event, events.Data) and isinstance(last, events.Data) and last.stream_id == event.stream_id:
                heard[-1] = events.Data(last.stream_id, last.data + event.data, last.flow_bytes + event.flow_bytes)
                continue
            heard.append(event)
    said = codec.data_to_send()
    return http2.plain(heard), codec.failure is not None, http2.goaway_code(said), http2.resets(said)


def heads(forms: dict[str, list[tuple[str, str]]]) -> dict[str, bytes]:
    return {name: http2.head(fields) for name, fields in forms.items()}


def only_wire(forms: dict[str, tuple[bytes, int]]) -> dict[str, bytes]:
    return {name: wire for name, (wire, _) in forms.items()}


def pushing() -> H2Codec:
    return http2.session(push=True)


HTTP2: dict[str, tuple[bytes, Callable[[], H2Codec]]] = {
    name: (wire, make)
    for forms, make in (
        (http2.FIRST, http2.fresh),
        (only_wire(http2.CONNECTION_ERRORS), http2.session),
        (http2.BORNE, http2.session),
        (heads(http2.MALFORMED_HEADS), http2.session),
        (http2.MALFORMED_BODIES, http2.session),
        (only_wire(musts_http2.BREAKS), http2.session),
        (only_wire(musts_http2.BREAKS_PUSHES), pushing),
        (musts_http2.BEARS, http2.session),
        ({name: wire for name, (wire, _) in musts_http2.MEANS.items()}, http2.session),
    )
    for name, wire in forms.items()
}
HTTP1: dict[str, bytes] = {**http1.GOOD, **http1.BAD, **musts_http1.BREAKS}


def slow_where_long(forms: dict[str, bytes]) -> list[Any]:
    return [pytest.param(name, marks=pytest.mark.slow if len(forms[name]) > 1_500 else ()) for name in forms]


@pytest.mark.parametrize("form", slow_where_long({name: wire for name, (wire, _) in HTTP2.items()}))
def test_an_http2_connection_does_not_care_where_a_read_ends(form: str) -> None:
    wire, make = HTTP2[form]
    whole = after(make(), wire)
    for cut in cuts(len(wire)):
        assert after(make(), wire[:cut], wire[cut:]) == whole, f"cut at {cut}"


@pytest.mark.parametrize("form", slow_where_long(HTTP1))
def test_an_http1_connection_does_not_care_where_a_read_ends(form: str) -> None:
    wire = HTTP1[form]
    heard, failure = http1.outcome(wire)
    for cut in cuts(len(wire)):
        in_two, in_two_failure = http1.outcome(wire, [cut])
        assert (in_two, in_two_failure == "None") == (heard, failure == "None"), f"cut at {cut}"
