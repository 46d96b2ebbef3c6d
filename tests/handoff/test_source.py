"""Where request bodies come from: what is accepted, what can be replayed, and whose thread runs the caller's code."""

from __future__ import annotations

import array
import contextvars
import io
import mmap
import os
import threading
from typing import Any

import pytest
from handoff_kit import WAIT_S

from hyperpool.errors import LocalProtocolError
from hyperpool.handoff import source as source_module
from hyperpool.handoff.body import BytesUpload
from hyperpool.handoff.source import BytesSource, StreamSource, make_source


def drain(source: Any, *, step: int = 1 << 20) -> bytes:
    """Open a source and take all of it; its failure is raised."""
    ready = threading.Event()
    upload = source.open(notify=ready.set, capacity_bytes=1 << 20)
    got = b""
    while True:
        data, last, failure = upload.take(step)
        if failure is not None:
            raise failure
        got += data
        if last:
            return got
        if not data:
            assert ready.wait(WAIT_S)
            ready.clear()


class NoSeekResult(io.BytesIO):
    """As tempfile.SpooledTemporaryFile before Python 3.11: seek gives None."""

    def seek(self, *args: int) -> None:  # type: ignore[override]
        super().seek(*args)


class ReadOnly:
    """A file-like with nothing but read."""

    def __init__(self, data: bytes) -> None:
        self.read = io.BytesIO(data).read


def mmap_of(data: bytes) -> mmap.mmap:
    """A file with a buffer: it is read from where it stands."""
    mapped = mmap.mmap(-1, len(data) + 1)
    mapped.write(b"-" + data)
    mapped.seek(1)
    return mapped


class TestForms:
    @pytest.mark.parametrize(
        ("content", "body"),
        [
            (b"abc", b"abc"),
            (bytearray(b"abc"), b"abc"),
            (memoryview(b"abc"), b"abc"),
            (memoryview(b"a-b-c")[::2], b"abc"),
            ("gr\u00fcn", b"gr\xc3\xbcn"),
            (b"", b""),
            ([b"a", bytearray(b"b"), memoryview(b"c")], b"abc"),
            ([b"a", b"", b"b"], b"ab"),
            ([array.array("H", [0, 0])], bytes(4)),
            (array.array("I", [1, 2]), array.array("I", [1, 2]).tobytes()),
            (mmap_of(b"abc"), b"abc"),
            ([], b""),
            (iter([b"a", b"b"]), b"ab"),
            (io.BytesIO(b"abc"), b"abc"),
            (NoSeekResult(b"abc"), b"abc"),
            (ReadOnly(b"abc"), b"abc"),
        ],
    )
    def test_it_is_sent_as_its_bytes(self, content: Any, body: bytes) -> None:
        source = make_source(content)
        assert drain(source) == body

    def test_no_content_is_no_body(self) -> None:
        assert make_source(None) is None

    @pytest.mark.parametrize("content", [1, object(), 1.5])
    def test_what_has_no_bytes_is_refused(self, content: Any) -> None:
        with pytest.raises(LocalProtocolError, match=type(content).__name__):
            make_source(content)

    def test_a_dict_is_refused_with_advice(self) -> None:
        with pytest.raises(LocalProtocolError, match="data= for a form"):
            make_source({"a": "b"})

    @pytest.mark.parametrize("pieces", [["text"], [1]])
    def test_a_piece_that_is_not_bytes_fails_the_upload(self, pieces: list[Any]) -> None:
        with pytest.raises(LocalProtocolError, match=type(pieces[0]).__name__):
            drain(make_source(pieces))

    def test_a_text_file_fails_the_upload(self) -> None:
        with pytest.raises(LocalProtocolError, match="binary mode"):
            drain(make_source(io.StringIO("abc")))

    def test_a_bytes_body_stays_off_threads(self) -> None:
        upload = BytesSource(b"a").open(notify=lambda: None, capacity_bytes=1)
        assert isinstance(upload, BytesUpload)

    def test_bytes_that_the_caller_reuses_are_copied(self) -> None:
        buffer = bytearray(b"abc")
        source = make_source(buffer)
        buffer[:] = b"xxx"
        assert drain(source) == b"abc"


class TestLengthAndReplay:
    @pytest.mark.parametrize(
        ("content", "length", "replayable"),
        [
            (b"abc", 3, True),
            ("\u00fc", 2, True),
            (memoryview(b"abcd").cast("H"), 4, True),
            (io.BytesIO(b"abc"), 3, True),
            (NoSeekResult(b"abc"), 3, True),
            (ReadOnly(b"abc"), None, False),
            ([b"abc"], None, True),
            (iter([b"abc"]), None, False),
        ],
    )
    def test_it_is_known_before_sending(self, content: Any, length: int | None, replayable: bool) -> None:
        """L9. One that can be sent once is "replayable" until it has been opened."""
        source = make_source(content)
        assert source.length_bytes == length
        drain(source)
        assert source.replayable is replayable

    def test_a_body_that_was_never_opened_can_be_sent(self) -> None:
        """L9: a request that was queued and moved has lost nothing yet."""
        assert make_source(iter([b"a"])).replayable

    def test_a_generator_is_not_opened_twice(self) -> None:
        """L9: the second body would be empty, and be sent as if that were all."""
        source = make_source(iter([b"a"]))
        drain(source)
        with pytest.raises(AssertionError, match="L9"):
            source.open(notify=lambda: None, capacity_bytes=1)

    def test_a_replay_gives_the_same_bytes(self) -> None:
        for content in (b"abc", [b"abc"], io.BytesIO(b"abc")):
            source = make_source(content)
            assert [drain(source), drain(source)] == [b"abc", b"abc"]

    def test_a_file_is_sent_from_where_it_stands(self) -> None:
        file = io.BytesIO(b"headerbody")
        file.seek(6)
        source = make_source(file)
        assert (source.length_bytes, drain(source), drain(source)) == (4, b"body", b"body")

    def test_a_file_behind_its_end_is_empty(self) -> None:
        file = io.BytesIO(b"abc")
        file.seek(10)
        source = make_source(file)
        assert (source.length_bytes, drain(source)) == (0, b"")

    def test_a_pipe_is_sent_once_and_without_length(self) -> None:
        reading, writing = os.pipe()
        os.write(writing, b"abc")
        os.close(writing)
        with open(reading, "rb") as file:
            source = make_source(file)
            assert (source.length_bytes, drain(source), source.replayable) == (None, b"abc", False)

    def test_a_large_file_comes_in_bounded_pieces(self) -> None:
        asked: list[int] = []

        class Asked(io.BytesIO):
            def read(self, n: int = -1) -> bytes:  # type: ignore[override]
                asked.append(n)
                return super().read(n)

        drain(make_source(Asked(bytes(200_000))))
        assert set(asked) == {source_module.FILE_PIECE_BYTES}


class TestTheUploader:
    def test_the_callers_code_runs_on_a_thread_of_its_own(self) -> None:
        """L4: never on the thread that opens the source, which is an I/O thread."""
        seen: list[threading.Thread] = []

        def pieces():
            seen.append(threading.current_thread())
            yield b"a"

        drain(make_source(pieces()))
        assert (seen[0].name, seen[0].daemon) == ("hyperpool upload", True)

    def test_the_callers_code_runs_in_the_callers_context(self) -> None:
        variable = contextvars.ContextVar("variable", default="none")

        def pieces():
            yield variable.get().encode()

        variable.set("of the caller")
        source = make_source(pieces())
        variable.set("changed later")
        assert drain(source) == b"of the caller"

    @pytest.mark.parametrize("error", [OSError("disk"), KeyboardInterrupt(), SystemExit(3)])
    def test_what_the_callers_code_raises_reaches_the_loop(self, error: BaseException) -> None:
        """L5: whatever it is, and the thread does not die loudly."""

        def pieces():
            yield b"a"
            raise error

        with pytest.raises(type(error)) as caught:
            drain(make_source(pieces()))
        assert caught.value is error

    def test_the_loop_is_told_once_there_is_memory_to_tell_it(self) -> None:
        """L5: nobody else could tell it, and the thread does not die loudly."""
        told, short = threading.Event(), [MemoryError(), MemoryError()]

        def notify() -> None:
            if short:
                raise short.pop()
            told.set()

        def pieces():
            raise OSError("disk")
            yield b""

        upload = make_source(pieces()).open(notify=notify, capacity_bytes=10)
        assert told.wait(WAIT_S)
        assert isinstance(upload.take(10).failure, OSError)

    def test_an_iterable_that_cannot_even_start_fails_the_upload(self) -> None:
        class Unwilling:
            def __iter__(self):
                raise OSError("not today")

        with pytest.raises(OSError, match="not today"):
            drain(make_source(Unwilling()))

    def test_an_abandoned_generator_is_closed(self) -> None:
        """L5: its finally blocks run, on the uploader thread, when nobody wants more."""
        closed = threading.Event()

        def pieces():
            try:
                while True:
                    yield b"x" * 10
            finally:
                closed.set()

        upload = make_source(pieces()).open(notify=lambda: None, capacity_bytes=10)
        upload.abandon()
        assert closed.wait(WAIT_S)

    def test_an_iterator_of_the_callers_own_is_closed(self) -> None:
        """Not left to its finalizer: only generators have one that closes."""
        closed = threading.Event()

        class Own:
            def __iter__(self) -> Own:
                return self

            def __next__(self) -> bytes:
                raise StopIteration

            def close(self) -> None:
                closed.set()

        drain(make_source(own := Own()))
        assert closed.wait(WAIT_S)
        assert own

    def test_a_buffer_that_the_caller_fills_again_is_copied(self) -> None:
        """The first piece still waits for the wire when the second one is made."""
        made = threading.Event()

        def pieces():
            buffer = bytearray(b"first ")
            yield buffer
            buffer[:] = b"second"
            yield buffer
            made.set()

        upload = make_source(pieces()).open(notify=lambda: None, capacity_bytes=100)
        assert made.wait(WAIT_S)
        assert [bytes(upload.take(6).data), bytes(upload.take(6).data)] == [b"first ", b"second"]

    def test_an_abandoned_run_is_out_of_the_callers_code_before_the_next_begins(self) -> None:
        """L9: else a file that both read would give the second run what is left over by the first."""
        held, begun, order = threading.Event(), threading.Event(), []
        runs = iter([1, 2])

        def pieces():
            run = next(runs)
            order.append(f"begin {run}")
            if run == 2:
                begun.set()
                yield b"whole"
                return
            try:
                yield b"x"
                first_out.set()
                held.wait(WAIT_S)
                yield b"y"
            finally:
                order.append(f"end {run}")

        first_out = threading.Event()
        source = StreamSource(pieces, length_bytes=None, replayable=True)
        first = source.open(notify=lambda: None, capacity_bytes=100)
        assert first_out.wait(WAIT_S)
        first.abandon()
        ready = threading.Event()
        second = source.open(notify=ready.set, capacity_bytes=100)
        # Without the rule the second begins here; with it nothing happens, so this wait is short.
        begun.wait(0.05)
        held.set()
        assert ready.wait(WAIT_S)
        assert order == ["begin 1", "end 1", "begin 2"]
        assert bytes(second.take(10).data) == b"whole"

    def test_a_thread_that_cannot_start_leaves_the_body_unsent(self, monkeypatch) -> None:
        """X7: the error reaches the loop, and the body can still be sent."""

        def refuse(self: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        source = make_source(iter([b"a"]))
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", refuse)
            with pytest.raises(RuntimeError):
                source.open(notify=lambda: None, capacity_bytes=1)
        assert drain(source) == b"a"
