"""FrameGuard: what nine bytes give away, however they come."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hyperpool.protocol import frame_guard
from hyperpool.protocol.frame_guard import UNASKED_AT_A_TIME, FrameGuard

# On a busy machine an example may take long: that is no failure.
unhurried = settings(deadline=None)

LIMIT = 100
FRAME_SIZE_ERROR = 6
PROTOCOL_ERROR = 1
DATA, HEADERS, SETTINGS, PING, GOAWAY = 0, 1, 4, 6, 7
ACK = 1


def frame(kind: int, size: int, *, flags: int = 0, stream_id: int = 0, body: bytes | None = None) -> bytes:
    """A frame (RFC 9113 4.1); ``body`` may be shorter than its head says."""
    head = size.to_bytes(3, "big") + bytes([kind, flags]) + stream_id.to_bytes(4, "big")
    return head + (bytes(size) if body is None else body)


START = frame(SETTINGS, 0)
END_HEADERS = 4
HEAD = frame(HEADERS, 1, flags=END_HEADERS, stream_id=1)


def guarded(*parts: bytes) -> tuple[FrameGuard, int]:
    """A guard that has seen these reads, and how many bytes of them it let through."""
    guard = FrameGuard(max_frame_bytes=LIMIT)
    admitted = 0
    for part in parts:
        if guard.failure is None:
            admitted += guard.admit(part)
    return guard, admitted


def verdict(guard: FrameGuard) -> tuple[str, int]:
    return str(guard.failure), guard.error_code


def split(stream: bytes, at: list[int]) -> list[bytes]:
    ends = [0, *sorted(min(one, len(stream)) for one in at), len(stream)]
    return [stream[start:end] for start, end in itertools.pairwise(ends)]


class TestTheFirstFrame:
    def test_settings_may_come_first(self) -> None:
        """RFC 9113 3.4."""
        guard, admitted = guarded(START)
        assert (guard.failure, admitted) == (None, 9)

    @pytest.mark.parametrize("kind", [DATA, HEADERS, PING, GOAWAY, 0xFA])
    def test_nothing_else_may(self, kind: int) -> None:
        """F1."""
        guard, admitted = guarded(frame(kind, 8))
        assert f"type {kind}, not SETTINGS" in str(guard.failure)
        assert (guard.error_code, admitted) == (PROTOCOL_ERROR, 0)

    def test_an_acknowledgement_may_not_either(self) -> None:
        """F1: it acknowledges, it does not begin."""
        guard, _ = guarded(frame(SETTINGS, 0, flags=ACK))
        assert "not SETTINGS" in str(guard.failure)

    def test_http1_text_is_told_from_its_first_nine_bytes(self) -> None:
        """F1, T8: "HTT" would be a frame of 4.7 MB, waited for until a deadline."""
        guard, admitted = guarded(b"HTTP/1.1 ")
        assert "http2=False" in str(guard.failure)
        assert (guard.error_code, admitted) == (PROTOCOL_ERROR, 0)

    def test_eight_bytes_are_not_enough_to_judge(self) -> None:
        guard, admitted = guarded(b"HTTP/1.1")
        assert (guard.failure, admitted) == (None, 8)

    def test_later_frames_may_be_of_any_kind(self) -> None:
        """RFC 9113 4.1: what is unknown is ignored, and that is h2's part."""
        guard, _ = guarded(START + frame(0xFA, 3) + frame(SETTINGS, 0, flags=ACK) + frame(PING, 8))
        assert guard.failure is None

    def test_a_later_frame_that_looks_like_text_is_a_frame_of_4_7_megabytes(self) -> None:
        guard, _ = guarded(START + b"HTTP/1.1 ")
        assert "announced a frame of 4,740,180 bytes" in str(guard.failure)


class TestTheSize:
    def test_a_frame_of_the_limit_passes(self) -> None:
        guard, _ = guarded(START + frame(DATA, LIMIT))
        assert guard.failure is None

    def test_a_larger_one_is_refused_from_its_head_alone(self) -> None:
        """F2: before a body is buffered for it."""
        guard, admitted = guarded(START + frame(DATA, LIMIT + 1, body=b""))
        assert "announced a frame of 101 bytes where 100 are allowed" in str(guard.failure)
        assert (guard.error_code, admitted) == (FRAME_SIZE_ERROR, len(START))

    def test_the_first_frame_is_measured_as_well(self) -> None:
        guard, _ = guarded(frame(SETTINGS, LIMIT + 1, body=b""))
        assert guard.error_code == FRAME_SIZE_ERROR

    def test_what_stands_before_a_bad_frame_is_let_through(self) -> None:
        """L5: events before an error count."""
        good = START + frame(DATA, 50)
        _, admitted = guarded(good + frame(DATA, 1 << 20, body=b""))
        assert admitted == len(good)

    def test_the_first_bad_frame_decides(self) -> None:
        guard, _ = guarded(START + frame(DATA, 200, body=b"") + frame(DATA, 300, body=b""))
        assert "200 bytes" in str(guard.failure)


class TestALittleAtATime:
    """What nobody has asked for is taken in portions; the bytes behind a portion come again later."""

    PING_FRAME = frame(PING, 8)

    def test_a_portion_ends_between_two_frames(self) -> None:
        _, admitted = guarded(START, 2 * UNASKED_AT_A_TIME * self.PING_FRAME)
        assert admitted == len(START) + UNASKED_AT_A_TIME * len(self.PING_FRAME)

    def test_the_next_portion_is_as_large(self) -> None:
        guard, _ = guarded(START)
        stream = 5 * UNASKED_AT_A_TIME * self.PING_FRAME
        portions = []
        while stream:
            portions.append(guard.admit(stream))
            stream = stream[portions[-1] :]
        assert portions == [UNASKED_AT_A_TIME * len(self.PING_FRAME)] * 5

    def test_a_frame_that_comes_in_two_reads_is_judged_once(self) -> None:
        guard, _ = guarded(START)
        stream = UNASKED_AT_A_TIME * self.PING_FRAME
        assert guard.admit(stream[:-3]) == len(stream) - 3
        assert guard.admit(stream[-3:] + self.PING_FRAME) == 3 + len(self.PING_FRAME)

    def test_large_frames_make_a_small_portion(self) -> None:
        guard = FrameGuard(max_frame_bytes=1 << 14)
        large = frame(0xFA, 1 << 14)
        assert guard.admit(START + 10 * large) == len(START) + 2 * len(large)

    def test_data_is_asked_for(self) -> None:
        stream = START + 10 * UNASKED_AT_A_TIME * frame(DATA, 1)
        assert guarded(stream)[1] == len(stream)

    def test_so_is_what_work_has_earned(self) -> None:
        guard, _ = guarded(START)
        guard.pings = UNASKED_AT_A_TIME
        stream = 2 * UNASKED_AT_A_TIME * frame(PING, 8, flags=ACK)
        assert guard.admit(stream) == len(stream)
        assert guard.admit(stream) == len(stream) // 2


class TestAwaitedHeads:
    """What each request is answered with is no flood; the budget is for those beside it."""

    def test_they_cost_nothing(self) -> None:
        guard, _ = guarded(START)
        for _ in range(5 * UNASKED_AT_A_TIME):
            guard.ask()
        guard.streams = 0  # so that nothing is earned
        stream = 5 * UNASKED_AT_A_TIME * HEAD
        assert guard.admit(stream) == len(stream)
        assert guard.admit(stream) == UNASKED_AT_A_TIME * len(HEAD)

    def test_requests_that_are_never_answered_do_not_add_up_without_end(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(frame_guard, "MOST_TOKENS", 50)
        guard, _ = guarded(START)
        for _ in range(10_000):
            guard.ask()
        heads = 0
        while guard.failure is None:
            guard.admit(HEAD)
            heads += 1
        assert heads == 50 + 50 + 1


frames = st.builds(frame, st.integers(0, 12), st.integers(0, LIMIT + 2), flags=st.integers(0, 3))
streams = st.builds(
    lambda first, rest, tail: first + b"".join(rest) + tail,
    st.sampled_from([START, b"", b"HTTP/1.1 200 OK"]),
    st.lists(frames, max_size=6),
    st.binary(max_size=12),
)


@unhurried
@given(stream=streams, at=st.lists(st.integers(0, 700), max_size=12))
def test_the_verdict_does_not_depend_on_how_the_bytes_come(stream: bytes, at: list[int]) -> None:
    """RELIABILITY 3: the same set at every split."""
    whole, admitted = guarded(stream)
    parts, admitted_in_parts = guarded(*split(stream, at))
    assert verdict(parts) == verdict(whole)
    # A part of a bad frame's head may have gone through before the rest of it came; h2 waits with those bytes.
    assert admitted <= admitted_in_parts <= admitted + 8


@unhurried
@given(stream=streams)
def test_the_verdict_is_the_same_for_single_bytes(stream: bytes) -> None:
    whole, _ = guarded(stream)
    single, _ = guarded(*(stream[at : at + 1] for at in range(len(stream))))
    assert verdict(single) == verdict(whole)


@unhurried
@given(bodies=st.lists(st.integers(0, LIMIT), max_size=8), at=st.lists(st.integers(0, 900), max_size=8))
def test_good_frames_pass_whole(bodies: list[int], at: list[int]) -> None:
    stream = START + b"".join(frame(DATA, size) for size in bodies)
    guard, admitted = guarded(*split(stream, at))
    assert (guard.failure, admitted) == (None, len(stream))


def test_a_read_of_nothing_changes_nothing() -> None:
    guard, _ = guarded(START, b"", frame(DATA, 50)[:20], b"", frame(DATA, 50)[20:], b"", frame(DATA, 200, body=b""))
    assert "200 bytes" in str(guard.failure)
