"""Server push: what a server sends without being asked."""

from __future__ import annotations

from typing import Any

import pytest
from hyper_support import H1, H2, H20, Bench
from hyperframe.frame import Frame, HeadersFrame, PushPromiseFrame, RstStreamFrame, SettingsFrame

from hyperpool import RemoteProtocolError, StreamReset
from hyperpool.connection_errors import NoSuchStream
from stage import eventually


class PushingPeer:
    """A script that answers one request and promises others beside it."""

    def __init__(self, **promise: str) -> None:
        self.promise = promise
        self.settings: dict[int, int] = {}
        self.resets: list[tuple[int, int]] = []
        self.gate: Any = None

    def __call__(self, conn: Any) -> None:
        self.settings = dict(conn.greet().settings)
        stream_id = conn.wait_frame(HeadersFrame).stream_id
        self._promise(conn, stream_id, 2, "/early")
        conn.headers(stream_id, [(":status", "200")])
        self._promise(conn, stream_id, 4, "/late")
        conn.data(stream_id, b"asked for", end_stream=True)
        if self.gate is not None:
            self.gate.wait(30)
        for promised_id, body in ((2, b"early body"), (4, b"late body")):
            conn.headers(promised_id, [(":status", "200"), ("x-pushed", "yes")])
            conn.data(promised_id, body, end_stream=True)
        self._listen(conn)

    def _promise(self, conn: Any, stream_id: int, promised_id: int, path: str) -> None:
        authority = f"localhost:{conn.sock.getsockname()[1]}"
        pseudo = {":method": "GET", ":scheme": "https", ":authority": authority, ":path": path, **self.promise}
        fields = [*pseudo.items(), ("accept", "*/*")]
        frame = PushPromiseFrame(stream_id, promised_stream_id=promised_id, data=conn.encoder.encode(fields))
        frame.flags.add("END_HEADERS")
        conn.send_frame(frame)

    def _listen(self, conn: Any) -> None:
        frame: Frame
        while True:
            try:
                frame = conn.read_frame()
            except OSError:
                return
            if isinstance(frame, RstStreamFrame):
                self.resets.append((frame.stream_id, frame.error_code))


def asked(bench: Bench, peer: PushingPeer, **options: Any) -> Any:
    connection = bench.connection(H20, bench.peer(peer).port, **{"enable_push": True, **options})
    connection.request("GET", "/")
    return connection


def test_a_server_that_pushes_although_that_is_off_breaks_the_protocol(bench: Bench) -> None:
    peer = PushingPeer()
    connection = asked(bench, peer, enable_push=False)
    with pytest.raises(RemoteProtocolError):
        connection.get_response().read()
    assert peer.settings[SettingsFrame.ENABLE_PUSH] == 0
    assert list(connection.get_pushes()) == []


def test_enabling_them_is_what_the_server_hears(bench: Bench) -> None:
    peer = PushingPeer()
    asked(bench, peer).get_response().read()
    assert peer.settings[SettingsFrame.ENABLE_PUSH] == 1


def test_pushes_come_with_their_requests(bench: Bench) -> None:
    connection = asked(bench, PushingPeer())
    pushes = list(connection.get_pushes(capture_all=True))
    assert [(push.method, push.scheme, push.path) for push in pushes] == [
        (b"GET", b"https", b"/early"),
        (b"GET", b"https", b"/late"),
    ]
    assert pushes[0].authority == f"localhost:{connection.port}".encode()
    assert list(pushes[0].request_headers) == [(b"accept", b"*/*")]


def test_a_push_has_a_response_like_any_other(bench: Bench) -> None:
    connection = asked(bench, PushingPeer())
    responses = [push.get_response() for push in connection.get_pushes(capture_all=True)]
    assert [(each.status, each.headers["x-pushed"], each.read()) for each in responses] == [
        (200, [b"yes"], b"early body"),
        (200, [b"yes"], b"late body"),
    ]


def test_asking_a_push_twice_gives_the_same_response(bench: Bench) -> None:
    push = next(asked(bench, PushingPeer()).get_pushes(capture_all=True))
    assert push.get_response() is push.get_response()


def test_the_response_that_was_asked_for_is_not_disturbed(bench: Bench) -> None:
    connection = asked(bench, PushingPeer())
    assert connection.get_response().read() == b"asked for"


def test_pushes_can_be_asked_for_after_the_response_was_read(bench: Bench) -> None:
    connection = asked(bench, PushingPeer())
    connection.get_response().read()
    assert [push.path for push in connection.get_pushes(1)] == [b"/early", b"/late"]


def test_each_push_is_given_out_once(bench: Bench) -> None:
    connection = asked(bench, PushingPeer())
    connection.get_response().read()
    assert len(list(connection.get_pushes())) == 2
    assert list(connection.get_pushes()) == []


def test_without_capture_all_nothing_is_waited_for(bench: Bench) -> None:
    def script(conn: Any) -> None:
        conn.greet()
        conn.drain()

    connection = bench.connection(H20, bench.peer(script).port, enable_push=True)
    connection.request("GET", "/")
    assert list(connection.get_pushes()) == []


def test_pushes_of_a_request_that_was_never_made_are_an_error(bench: Bench) -> None:
    connection = asked(bench, PushingPeer())
    with pytest.raises(NoSuchStream):
        list(connection.get_pushes(7))


@pytest.mark.parametrize("way", [H1, H2], ids=str)
def test_a_server_that_pushes_nothing_pushes_nothing(bench: Bench, way: Any) -> None:
    _, connection = bench.pair(way, enable_push=True)
    connection.request("GET", "/bytes/1")
    assert list(connection.get_pushes(capture_all=way is H2)) == []
    assert connection.get_response().status == 200


def test_cancelling_a_push_resets_its_stream(bench: Bench) -> None:
    peer = PushingPeer()
    peer.gate = bench.gate()
    connection = asked(bench, peer)
    push = next(connection.get_pushes(capture_all=True))
    push.cancel()
    peer.gate.set()
    assert eventually(lambda: (2, 8) in peer.resets)
    with pytest.raises(StreamReset, match="cancelled"):
        push.get_response()


def test_a_push_whose_response_is_here_can_be_cancelled_too(bench: Bench) -> None:
    push = next(asked(bench, PushingPeer()).get_pushes(capture_all=True))
    push.get_response()
    push.cancel()


@pytest.mark.parametrize(
    "promise",
    [{":authority": "elsewhere.test"}, {":scheme": "http"}, {":method": "POST"}],
    ids=["host", "scheme", "method"],
)
def test_what_the_server_may_not_push_is_refused(bench: Bench, promise: dict[str, str]) -> None:
    peer = PushingPeer(**promise)
    peer.gate = bench.gate()
    connection = asked(bench, peer)
    assert connection.get_response().read() == b"asked for"
    peer.gate.set()
    assert eventually(lambda: {stream_id for stream_id, _ in peer.resets} == {2, 4})
    assert list(connection.get_pushes()) == []


def test_pushes_that_nobody_takes_do_no_harm(bench: Bench) -> None:
    connection = asked(bench, PushingPeer())
    connection.get_response().read()
    connection.close()
