"""What goes over an HTTP/2 connection, one line for each frame: for eyes, at logger "hyperpool.frames", level DEBUG.

Pure. Names, numbers, lengths, settings and error codes are shown; header values and bodies never are (they hold
cookies, passwords and other people's data), and neither is the text of a GOAWAY. Nothing is judged here: what breaks
the rules is shown as it came, since that is what one looks for.

Theory of operation: bytes come split anywhere, and go out in one run with others. So each direction is walked by a
`FrameWalk` of its own: nine bytes of head, the few bytes of the payload that a line tells of, and the rest is skipped
without being kept. A line is made as soon as these few bytes are there, so the split never shows.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable

from h2.errors import ErrorCodes
from hyperframe.frame import FRAMES, GoAwayFrame, PushPromiseFrame, RstStreamFrame, SettingsFrame, WindowUpdateFrame

HEAD_BYTES = 9
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"  # RFC 9113 3.4
_SETTING_BYTES = 6
_PADDED = 0x08
_STREAM_ID = 0x7FFF_FFFF  # the first bit is reserved (RFC 9113 4.1)

# How much of a payload a line tells of. A SETTINGS frame may hold 2,730 settings; after a hundred nobody reads on.
_TOLD_BYTES: dict[int, int] = {
    RstStreamFrame.type: 4,
    SettingsFrame.type: 100 * _SETTING_BYTES,
    PushPromiseFrame.type: 5,
    GoAwayFrame.type: 8,
    WindowUpdateFrame.type: 4,
}

# RFC 9113 6.5.2, RFC 8441 3, RFC 9218 2.1.
_SETTING_NAMES = {
    1: "HEADER_TABLE_SIZE",
    2: "ENABLE_PUSH",
    3: "MAX_CONCURRENT_STREAMS",
    4: "INITIAL_WINDOW_SIZE",
    5: "MAX_FRAME_SIZE",
    6: "MAX_HEADER_LIST_SIZE",
    8: "ENABLE_CONNECT_PROTOCOL",
    9: "NO_RFC7540_PRIORITIES",
}
_CODE_NAMES = {int(code): code.name for code in ErrorCodes}

logger = logging.getLogger("hyperpool.frames")
_connection_numbers = itertools.count(1)


class FrameLog:
    """Both directions of one HTTP/2 connection, described.

    Owned by the loop thread. ``write`` gets each line: "#3 <- DATA stream=1 length=16384 END_STREAM".
    """

    def __init__(self, write: Callable[[str], None], *, number: int) -> None:
        self.sent = FrameWalk(lambda line: write(f"#{number} -> {line}"), preface=PREFACE).feed
        self.received = FrameWalk(lambda line: write(f"#{number} <- {line}")).feed


def frame_log() -> FrameLog | None:
    """The log of a connection that is being made; None where nobody listens.

    Asked once for each connection: a walk that began in the middle would take bodies for heads. So a logger that is
    turned on later sees the connections that are made from then on.
    """
    if not logger.isEnabledFor(logging.DEBUG):
        return None
    return FrameLog(lambda line: logger.debug("%s", line), number=next(_connection_numbers))


class FrameWalk:
    """Walks one direction's bytes from frame to frame.

    Owned by the loop thread.
    """

    def __init__(self, write: Callable[[str], None], *, preface: bytes = b"") -> None:
        self._write = write
        self._preface_bytes = len(preface)
        self._kept = bytearray()
        self._skip_bytes = 0

    def feed(self, data: bytes) -> None:
        """Take the next bytes, split anywhere; a line is written for each frame whose told part is complete."""
        at, size = 0, len(data)
        while at < size:
            if self._skip_bytes:
                step = min(self._skip_bytes, size - at)
                self._skip_bytes -= step
            else:
                step = min(self._wanted_bytes() - len(self._kept), size - at)
                self._kept += data[at : at + step]
                self._look()
            at += step

    def _wanted_bytes(self) -> int:
        if self._preface_bytes:
            return self._preface_bytes
        if len(self._kept) < HEAD_BYTES:
            return HEAD_BYTES
        return HEAD_BYTES + _told_bytes(self._kept)

    def _look(self) -> None:
        """Write the line where everything that it tells of is here."""
        # Twice asked: once the head is here, it says how much more is wanted, which may be nothing.
        if len(self._kept) < self._wanted_bytes():
            return
        if self._preface_bytes:
            self._preface_bytes = 0
            self._write("connection preface")
        else:
            self._write(describe(bytes(self._kept)))
            self._skip_bytes = int.from_bytes(self._kept[:3], "big") - (len(self._kept) - HEAD_BYTES)
        self._kept.clear()


def _told_bytes(head: bytearray) -> int:
    return min(int.from_bytes(head[:3], "big"), _TOLD_BYTES.get(head[3], 0))


def describe(frame: bytes) -> str:
    """One frame in words, from its head and the beginning of its payload."""
    kind, flags, stream_id = frame[3], frame[4], int.from_bytes(frame[5:HEAD_BYTES], "big") & _STREAM_ID
    known = FRAMES.get(kind)
    name = known.__name__[: -len("Frame")] if known is not None else ""
    words = [_NAMES.get(name, name.upper()) or f"type {kind:#04x}"]
    words += [f"stream={stream_id}", f"length={int.from_bytes(frame[:3], 'big')}"]
    words += [flag.name for flag in (known.defined_flags if known is not None else ()) if flags & flag.bit]
    tell = _TELL.get(kind)
    if tell is not None:
        words += tell(flags, frame[HEAD_BYTES:])
    return " ".join(words)


# What hyperframe's class names do not say in the RFC's spelling.
_NAMES = {
    "RstStream": "RST_STREAM",
    "PushPromise": "PUSH_PROMISE",
    "GoAway": "GOAWAY",
    "WindowUpdate": "WINDOW_UPDATE",
    "AltSvc": "ALTSVC",
}


def _settings(flags: int, payload: bytes) -> list[str]:
    """RFC 9113 6.5.1."""
    words = []
    for at in range(0, len(payload) - _SETTING_BYTES + 1, _SETTING_BYTES):
        number = int.from_bytes(payload[at : at + 2], "big")
        value = int.from_bytes(payload[at + 2 : at + _SETTING_BYTES], "big")
        words.append(f"{_SETTING_NAMES.get(number, f'setting {number:#06x}')}={value}")
    return words


def _reset(flags: int, payload: bytes) -> list[str]:
    """RFC 9113 6.4."""
    return [_code(payload[:4])]


def _promise(flags: int, payload: bytes) -> list[str]:
    """RFC 9113 6.6: the length of the padding comes first, where there is any."""
    promised = payload[1:5] if flags & _PADDED else payload[:4]
    return [f"promised={int.from_bytes(promised, 'big') & _STREAM_ID}"]


def _goaway(flags: int, payload: bytes) -> list[str]:
    """RFC 9113 6.8."""
    return [f"last_stream={int.from_bytes(payload[:4], 'big') & _STREAM_ID}", _code(payload[4:8])]


def _window(flags: int, payload: bytes) -> list[str]:
    """RFC 9113 6.9."""
    return [f"+{int.from_bytes(payload[:4], 'big') & _STREAM_ID}"]


def _code(octets: bytes) -> str:
    code = int.from_bytes(octets, "big")
    return _CODE_NAMES.get(code, f"error {code}")


_TELL: dict[int, Callable[[int, bytes], list[str]]] = {
    RstStreamFrame.type: _reset,
    SettingsFrame.type: _settings,
    PushPromiseFrame.type: _promise,
    GoAwayFrame.type: _goaway,
    WindowUpdateFrame.type: _window,
}
