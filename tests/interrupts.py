"""What a signal handler that raises does, as that of Ctrl-C may: it hits the main thread wherever that is.

The moments are built by hand: a trace function raises at the Nth of them, for N = 1, 2, 3, ... until there is no Nth.
"""

from __future__ import annotations

import gc
import itertools
import os
import sys
from collections.abc import Callable, Iterable
from typing import Any

from hyperpool.errors import HyperpoolError
from hyperpool.handoff.body import BodyPipe
from hyperpool.handoff.leash import Leash
from hyperpool.handoff.response import Response
from hyperpool.handoff.response_head import ResponseParts
from hyperpool.protocol.events import Head
from hyperpool.values import Request

_HERE = os.path.dirname(__file__)


class Interrupt(BaseException):
    """What the handler raises."""


def interrupted_at(n: int, call: Callable[[], object], *, lines: bool = False) -> bool:
    """Run it with an interrupt where it calls or returns for the Nth time; whether it did so as often.

    With ``lines`` at each line as well, but neither in the tests themselves nor where the outermost frame of others
    returns to them: what is given back there is the caller's.
    """
    steps = itertools.count(1)

    def is_here(frame: Any) -> bool:
        return bool(frame.f_code.co_filename.startswith(_HERE))

    def trace(frame: Any, event: str, arg: Any) -> Any:
        frame.f_trace_lines = lines  # the interpreter looks for signals in calls and loops, not at each line
        if lines and (is_here(frame) or (event == "return" and is_here(frame.f_back))):
            return trace
        if frame.f_code.co_name == "<genexpr>":
            return trace  # it may just be thrown away: what is raised there goes nowhere
        if next(steps) == n:
            sys.settrace(None)
            raise Interrupt
        return trace

    before = sys.gettrace()
    gc.disable()  # the finalizers of subjects before this one: what is raised there goes nowhere
    sys.settrace(trace)
    try:
        call()
    except Interrupt:
        return True
    finally:
        sys.settrace(before)
        gc.enable()
    return False


def streamed(
    pieces: Iterable[bytes], *, fields: Iterable[tuple[bytes, bytes]] = (), version: str = "HTTP/2"
) -> Response:
    """A response whose whole body waits for its reader."""
    pipe = BodyPipe(credit=lambda taken_bytes: None, credit_step_bytes=1)
    for piece in pieces:
        pipe.feed(piece)
    pipe.finish([])
    head = Head(1, 200, list(fields), http_version=version)
    parts = ResponseParts(head, Request("GET", "https://a.test/x"), "https://a.test", 1.5, (), None)
    return Response(parts, leash=Leash(pipe, reset=lambda: None, made_at="caller.py:7"))


# Ways of reading to the end, of whatever has the methods of a response.


def until_empty(read: Callable[[], Any], got: list[Any]) -> None:
    while piece := read():
        got.append(piece)


def into(response: Any, got: list[Any]) -> None:
    buffer = bytearray(2)
    while size := response.readinto(buffer):
        got.append(bytes(buffer[:size]))


def each(pieces: Any, got: list[Any]) -> None:
    for piece in pieces:
        got.append(piece)  # noqa: PERF402 - one by one: the pieces before an interrupt count


def reads_on_or_is_told(
    make: Callable[[], Any],
    read: Callable[[Any, list[bytes]], object],
    read_on: Callable[[Any], bytes],
    whole: tuple[bytes, ...],
    told_by: type[Exception] | tuple[type[Exception], ...] = HyperpoolError,
) -> None:
    """Interrupt ``read`` at each of its lines: who then reads on has it all, or is told."""
    read(make(), [])  # what is imported on first use would stay half imported
    told = 0
    for n in itertools.count(1):
        subject, got = make(), list[bytes]()
        more = interrupted_at(n, lambda: read(subject, got), lines=True)  # noqa: B023 - it runs here
        try:
            got.append(read_on(subject))
        except told_by:
            told += 1
        else:
            assert b"".join(got) in whole, f"interrupted at step {n}"
        if not more:
            assert 0 < told < n
            return
