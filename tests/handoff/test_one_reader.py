"""A streamed body is read by one thread at a time, whichever way; what is here already, by any number."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from handoff_kit import Thread, Waiters, make_response, open_pipe, streaming

from hyperpool.errors import LocalProtocolError, ResponseClosed
from hyperpool.handoff.response import Response

READS: dict[str, Callable[[Response], Any]] = {
    "read": lambda response: response.read(1),
    "readinto": lambda response: response.readinto(bytearray(1)),
    "iter_raw": lambda response: next(response.iter_raw()),
    "iter_bytes": lambda response: next(response.iter_bytes()),
    "iter_text": lambda response: next(response.iter_text()),
    "iter_lines": lambda response: next(response.iter_lines()),
    "content": lambda response: response.content,
}


@pytest.mark.parametrize("second", READS)
@pytest.mark.parametrize("first", READS)
def test_of_two_threads_the_second_is_told(first: str, second: str) -> None:
    pipe = open_pipe()
    response, waiters = streaming(pipe), Waiters(pipe._cond)
    reader = Thread(lambda: READS[first](response))
    waiters.until_parked()
    with pytest.raises(LocalProtocolError, match="another thread is reading this response"):
        READS[second](response)
    pipe.feed(b"abc\n")
    pipe.finish([])
    assert reader.value()


def test_an_iterator_that_two_threads_share_gives_each_piece_to_one_of_them() -> None:
    pipe = open_pipe()
    response, waiters = streaming(pipe), Waiters(pipe._cond)
    pieces = response.iter_bytes()
    reader = Thread(lambda: next(pieces))
    waiters.until_parked()
    with pytest.raises(LocalProtocolError):
        next(pieces)
    pipe.feed(b"first")
    assert reader.value() == b"first"
    pipe.feed(b"second")
    assert next(pieces) == b"second"
    pipe.finish([])
    assert list(pieces) == []


class Contested(dict[str, Any]):
    """Where another thread begins its turn as soon as it can."""

    OTHER = (-1,)

    def pop(self, *args: Any) -> Any:
        found = super().pop(*args)
        if found != self.OTHER:
            self["by"] = self.OTHER
        return found


@pytest.mark.parametrize("error", [ValueError("a crash of the loop"), KeyboardInterrupt()], ids=type)
def test_who_fails_takes_the_turn_from_nobody_who_has_begun_meanwhile(
    error: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe = open_pipe()
    response = streaming(pipe)
    response._reading = reading = Contested()
    monkeypatch.setattr(pipe, "_take_locked", raising(error))
    pipe.feed(b"there")
    with pytest.raises(type(error)):
        response.read(1)
    assert reading == {"by": Contested.OTHER}


def raising(error: BaseException) -> Callable[[], bytes]:
    def take() -> bytes:
        raise error

    return take


def test_content_is_one_step_so_that_nobody_takes_a_part_of_it() -> None:
    pipe = open_pipe()
    response, waiters = streaming(pipe), Waiters(pipe._cond)
    reader = Thread(lambda: response.content)
    waiters.until_parked()
    pipe.feed(b"first ")
    for take in READS.values():
        with pytest.raises(LocalProtocolError):
            take(response)
    pipe.feed(b"second")
    pipe.finish([])
    assert reader.value() == b"first second" == response.content


def test_a_step_that_raises_gives_its_turn_back() -> None:
    response = streaming(open_pipe())
    response.close()
    for _ in range(2):
        with pytest.raises(ResponseClosed):
            next(response.iter_bytes())


def test_a_body_that_is_here_is_everybodys() -> None:
    response = make_response([b"abc"])
    mine, another = response.iter_bytes(1), response.iter_bytes(1)
    assert [next(mine), next(another), *mine] == [b"a", b"a", b"b", b"c"]
    assert list(another) == [b"b", b"c"] and response.content == b"abc"
