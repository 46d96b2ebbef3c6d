"""Window managers: classes of the caller's that decide about credit."""

from __future__ import annotations

from typing import Any

import pytest
from hyper_support import H2, H11, H20, Bench, Way
from hyperframe.frame import HeadersFrame, SettingsFrame, WindowUpdateFrame

from hyperpool import LocalProtocolError
from hyperpool.testing import pattern
from hyperpool.window import BaseFlowControlManager, FlowControlManager


class Recording(FlowControlManager):
    """hyper's own, which remembers what it was told."""

    made: list[Recording]

    def __init__(self, initial_window_size: int, document_size: int | None = None) -> None:
        super().__init__(initial_window_size, document_size)
        self.frames: list[int] = []
        type(self).made.append(self)

    def increase_window_size(self, frame_size: int) -> int:
        self.frames.append(frame_size)
        return super().increase_window_size(frame_size)


class Stupid(BaseFlowControlManager):
    """The one of hyper's documentation."""

    def increase_window_size(self, frame_size: int) -> int:
        return frame_size


@pytest.fixture
def recording() -> Any:
    Recording.made = []
    return Recording


@pytest.mark.parametrize("manager", [Stupid, FlowControlManager])
def test_a_large_body_arrives_whole(bench: Bench, h2_way: Way, manager: Any) -> None:
    _, connection = bench.pair(h2_way, window_manager=manager)
    connection.request("GET", "/bytes/1000000")
    assert connection.get_response().read() == pattern(1_000_000)


def test_there_is_one_for_the_connection_and_one_for_each_stream(bench: Bench, recording: Any) -> None:
    _, connection = bench.pair(H2, window_manager=recording)
    for _ in range(2):
        connection.request("GET", "/bytes/100000")
        connection.get_response().read()
    assert [made.initial_window_size for made in recording.made] == [65_535] * 3
    assert [sum(made.frames) >= 40_000 for made in recording.made] == [True] * 3


def test_a_manager_is_told_the_size_of_the_document(bench: Bench, recording: Any) -> None:
    _, connection = bench.pair(H2, window_manager=recording)
    connection.request("GET", "/bytes/100000")
    connection.get_response().read()
    assert recording.made[-1].document_size == 100_000


def test_what_a_manager_grants_is_what_the_server_gets(bench: Bench) -> None:
    class Generous(BaseFlowControlManager):
        def increase_window_size(self, frame_size: int) -> int:
            return frame_size * 3

    granted: list[tuple[int, int]] = []
    windows: list[int] = []

    def script(conn: Any) -> None:
        windows.append(conn.greet().settings[SettingsFrame.INITIAL_WINDOW_SIZE])
        stream_id = conn.wait_frame(HeadersFrame).stream_id
        conn.headers(stream_id, [(":status", "200")])
        conn.data(stream_id, bytes(1_000))
        for _ in range(2):
            update = conn.wait_frame(WindowUpdateFrame)
            granted.append((update.stream_id, update.window_increment))
        conn.data(stream_id, b"", end_stream=True)
        conn.drain()

    connection = bench.connection(H20, bench.peer(script).port, window_manager=Generous)
    connection.request("GET", "/")
    assert len(connection.get_response().read()) == 1_000
    assert (windows, sorted(granted)) == ([65_535], [(0, 3_000), (1, 3_000)])


@pytest.mark.parametrize("raises", [lambda: 1 / 0, lambda: 2**31])
def test_a_manager_that_fails_ends_the_request_with_its_error(bench: Bench, raises: Any) -> None:
    class Broken(BaseFlowControlManager):
        def increase_window_size(self, frame_size: int) -> int:
            return raises()

    _, connection = bench.pair(H2, window_manager=Broken)
    connection.request("GET", "/bytes/1000")
    with pytest.raises(LocalProtocolError, match="window manager"):
        connection.get_response().read()


def test_over_http1_a_manager_has_nothing_to_do(bench: Bench, recording: Any) -> None:
    _, connection = bench.pair(H11, window_manager=recording)
    connection.request("GET", "/bytes/1000")
    assert connection.get_response().read() == pattern(1_000)
    assert recording.made == []


def test_the_base_class_leaves_the_decision_to_its_subclasses() -> None:
    base = BaseFlowControlManager(10)
    for ask in (lambda: base.increase_window_size(1), base.blocked):
        with pytest.raises(NotImplementedError, match="BaseFlowControlManager"):
            ask()


@pytest.mark.parametrize(
    ("size", "frame", "grown"), [(65_535, 10, 0), (65_535, 49_151, 0), (65_535, 49_152, 49_152), (1_200, 201, 201)]
)
def test_hypers_own_manager_fills_up_when_little_is_left(size: int, frame: int, grown: int) -> None:
    manager = FlowControlManager(size)
    assert manager._handle_frame(frame) == grown
    assert manager.window_size == size - frame + grown


def test_hypers_own_manager_fills_up_a_blocked_window() -> None:
    manager = FlowControlManager(1_000)
    manager.window_size = 400
    assert (manager._blocked(), manager.window_size) == (600, 1_000)
