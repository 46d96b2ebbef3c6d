"""The pipes as readers and feeders use them that must not wait: they are called back, once."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from handoff_kit import make_response, streaming
from hypothesis import given, settings
from hypothesis import strategies as st

from hyperpool.errors import ResponseClosed
from hyperpool.handoff.body import BodyPipe, UploadPipe
from hyperpool.handoff.pieces import Resizer


class Calls(list[str]):
    """Who was called, in order."""

    def by(self, name: str) -> Callable[[], None]:
        return lambda: self.append(name)


def make_pipe() -> BodyPipe:
    return BodyPipe(credit=lambda n_bytes: None, credit_step_bytes=1 << 20)


# -- a body ------------------------------------------------------------------------------------------------------------


def test_who_finds_a_body_pipe_empty_is_called_once_when_a_piece_comes() -> None:
    calls, pipe = Calls(), make_pipe()
    assert not pipe.is_ready(calls.by("a"))
    pipe.feed(b"1")
    pipe.feed(b"2")
    assert calls == ["a"]


def test_a_pipe_with_something_to_take_calls_nobody() -> None:
    calls, pipe = Calls(), make_pipe()
    pipe.feed(b"1")
    assert pipe.is_ready(calls.by("a"))
    pipe.feed(b"2")
    assert calls == []


def test_the_last_who_asked_is_called() -> None:
    calls, pipe = Calls(), make_pipe()
    assert not pipe.is_ready(calls.by("a"))
    assert not pipe.is_ready(calls.by("b"))
    pipe.feed(b"1")
    assert calls == ["b"]


@pytest.mark.parametrize(
    "end", [lambda pipe: pipe.finish([]), lambda pipe: pipe.fail(ResponseClosed("over")), BodyPipe.abandon]
)
def test_every_end_of_a_body_calls(end: Callable[[BodyPipe], object]) -> None:
    calls, pipe = Calls(), make_pipe()
    assert not pipe.is_ready(calls.by("a"))
    end(pipe)
    assert (calls, pipe.is_ready(calls.by("b"))) == (["a"], True)


def test_a_pipe_calls_under_no_lock() -> None:
    pipe, free = make_pipe(), []
    assert not pipe.is_ready(lambda: free.append(not pipe._cond._is_owned()))  # type: ignore[attr-defined]
    pipe.feed(b"1")
    assert free == [True]


def test_a_forked_child_does_not_wake_the_parents_reader() -> None:
    calls, pipe = Calls(), make_pipe()
    assert not pipe.is_ready(calls.by("a"))
    pipe.abandon_in_child(ResponseClosed("over"))
    assert (calls, pipe.is_ready(calls.by("b"))) == ([], True)


# -- an upload ---------------------------------------------------------------------------------------------------------


def test_who_finds_an_upload_pipe_full_is_called_once_when_there_is_room() -> None:
    calls, pipe = Calls(), UploadPipe(capacity_bytes=2, notify=lambda: None)
    assert pipe.has_room(calls.by("a"))
    pipe.feed(b"123")
    assert not pipe.has_room(calls.by("b"))
    pipe.take(1)
    assert calls == []
    pipe.take(1)
    pipe.take(1)
    assert (calls, pipe.has_room(calls.by("c"))) == (["b"], True)


def test_an_upload_that_nobody_wants_calls_and_takes_no_more() -> None:
    calls, pipe = Calls(), UploadPipe(capacity_bytes=2, notify=lambda: None)
    pipe.feed(b"12")
    assert not pipe.has_room(calls.by("a"))
    pipe.abandon()
    assert (calls, pipe.has_room(calls.by("b")), pipe.feed(b"3")) == (["a"], True, False)


def test_a_forked_child_does_not_wake_the_parents_feeder() -> None:
    calls, pipe = Calls(), UploadPipe(capacity_bytes=2, notify=lambda: None)
    pipe.feed(b"12")
    assert not pipe.has_room(calls.by("a"))
    pipe.abandon_in_child()
    assert calls == []


# -- a response --------------------------------------------------------------------------------------------------------


def test_a_response_shows_its_pipe_and_keeps_what_was_read_from_it() -> None:
    pipe = make_pipe()
    response = streaming(pipe)
    assert response.pipe is pipe
    pipe.feed(b"{}")
    pipe.finish([])
    response.keep(pipe.take())
    assert (response.content, response.json()) == (b"{}", {})
    assert make_response([b"here"]).pipe is None


# -- pieces of another size, for readers that are fed ------------------------------------------------------------------


@settings(deadline=None)  # on a busy machine an example may take long: that is no failure
@given(st.lists(st.binary(max_size=9), max_size=6), st.integers(1, 7))
def test_pieces_are_cut_anew_as_they_come(pieces: list[bytes], n: int) -> None:
    resizer, made = Resizer(n), []
    for piece in pieces:
        made += resizer.feed(piece)
        assert all(len(one) == n for one in made)
    made += resizer.end()
    assert b"".join(made) == b"".join(pieces)
    assert not made or 0 < len(made[-1]) <= n


@pytest.mark.parametrize("n", [0, -1])
def test_pieces_of_nothing_are_none(n: int) -> None:
    with pytest.raises(ValueError, match="n must be 1 or more"):
        Resizer(n)
