"""Content-Encoding (RFC 9110 8.4): undoing what the server did to a body, in bounded pieces.

A decoder never produces more than it is asked for in one call, whatever its input claims, so a decompression bomb
costs one piece of memory. It works on the reader's thread, as the reader reads. brotli and zstandard are used where
they are installed; zlib is always there.
"""

from __future__ import annotations

import functools
import importlib.util
import re
import zlib
from collections.abc import Callable
from typing import Any, Protocol

from hyperpool.errors import DecodeError

# No honest server stacks more; each one multiplies what a bomb can do (urllib3 CVE-2025-66418).
MAX_STACKED = 5
# gzip allows any number of members (RFC 1952 2.2), and bgzip makes one of each 64 KiB. Those that hold nothing are work
# without an end in sight: tens of thousands of them are an attack on time (CVE-2026-128131). bgzip ends with one.
MAX_EMPTY_MEMBERS = 1_000
# RFC 9659 3: a decoder for HTTP need not offer a larger window.
ZSTD_WINDOW_BYTES = 8 << 20
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"  # RFC 8878 3.1.1
_SKIPPABLE = re.compile(rb"[\x50-\x5f]\x2a\x4d\x18").match  # RFC 8878 3.1.2


class Decoder(Protocol):
    """Undoes one coding, or several.

    Owned by one reader.
    """

    @property
    def needs_input(self) -> bool:
        """Whether nothing more can be had from the input so far."""

    def decode(self, data: bytes, max_bytes: int) -> bytes:
        """About ``max_bytes`` of output; call again with b"" until ``needs_input``. Raises DecodeError.

        br and zstd may give up to one block of their own more (see there): a bound all the same.
        """

    def flush(self) -> bytes:
        """The end of the input is here. Raises DecodeError where it should have gone on."""


def make_decoder(content_encoding: str) -> Decoder | None:
    """The decoder for a Content-Encoding value; None where there is nothing to undo, or a coding is not known.

    Raises DecodeError for more than five codings.
    """
    names = [name.strip().lower() for name in content_encoding.split(",")]
    names = [name for name in names if name and name != "identity"]
    if len(names) > MAX_STACKED:
        raise DecodeError(f"{len(names)} codings on one body are {len(names) - MAX_STACKED} too many")
    if not names or not all(name in _codings() for name in names):
        return None
    decoders = [_codings()[name]() for name in reversed(names)]
    return decoders[0] if len(decoders) == 1 else _Stacked(decoders)


@functools.lru_cache(maxsize=1)
def accept_encoding() -> str:
    """What to send as Accept-Encoding: what is installed (RFC 9110 12.5.3)."""
    return ", ".join(name for name in ("gzip", "deflate", "br", "zstd") if name in _codings())


@functools.lru_cache(maxsize=1)
def _codings() -> dict[str, Callable[[], Decoder]]:
    known: dict[str, Callable[[], Decoder]] = {"gzip": _Gzip, "x-gzip": _Gzip, "deflate": _Deflate}
    if importlib.util.find_spec("brotli"):
        known["br"] = _Brotli
    if importlib.util.find_spec("zstandard"):
        known["zstd"] = _Zstd
    return known


def _broken(coding: str, cause: BaseException | None = None, *, why: str = "it is damaged") -> DecodeError:
    error = DecodeError(f"the body cannot be decoded as {coding}: {why}; iter_raw() gives it as it came")
    error.__cause__ = cause
    return error


class _Zlib:
    """What gzip and deflate share: a zlib machine, and the input that it has not taken."""

    coding = ""

    def __init__(self, wbits: int) -> None:
        self._machine = zlib.decompressobj(wbits)
        self._rest = b""
        self._begun = False
        self._full = False

    @property
    def needs_input(self) -> bool:
        # After a full piece zlib may hold more output with no input left over.
        return not (self._rest or self._full)

    def decode(self, data: bytes, max_bytes: int) -> bytes:
        data = self._rest + data if self._rest else data
        self._begun = self._begun or bool(data)
        try:
            out = self._machine.decompress(data, max_bytes)
        except zlib.error as error:
            raise _broken(self.coding, error) from error
        # At the end, CPython's unconsumed_tail may repeat unused_data: taken for input, it would be offered for ever.
        self._rest = b"" if self._machine.eof else self._machine.unconsumed_tail
        self._full = len(out) == max_bytes and not self._machine.eof
        return out

    def flush(self) -> bytes:
        if self._begun and not self._machine.eof:
            raise _broken(self.coding, why="it is cut short")
        return b""


class _Gzip(_Zlib):
    """gzip (RFC 1952), of one member or several.

    Owned by one reader.
    """

    coding = "gzip"

    def __init__(self) -> None:
        super().__init__(zlib.MAX_WBITS | 16)
        self._is_empty = True
        self._empty_members = 0

    def decode(self, data: bytes, max_bytes: int) -> bytes:
        """See `Decoder.decode`."""
        if self._machine.eof:
            # Padding; zlib would keep all of it, and copy it for every piece.
            data = data.lstrip(b"\0")
        pieces = [self._decode_member(data, max_bytes)]
        room = max_bytes - len(pieces[0])
        while self._machine.eof and (behind := self._machine.unused_data.lstrip(b"\0")):
            # A member ended and bytes follow; zeros are padding.
            self._next_member()
            if not room:
                self._rest = behind
                break
            pieces.append(self._decode_member(behind, room))
            room -= len(pieces[-1])
        return b"".join(pieces)

    def _decode_member(self, data: bytes, max_bytes: int) -> bytes:
        out = super().decode(data, max_bytes)
        self._is_empty = self._is_empty and not out
        return out

    def _next_member(self) -> None:
        self._empty_members += self._is_empty
        self._is_empty = True
        if self._empty_members > MAX_EMPTY_MEMBERS:
            raise _broken(self.coding, why=f"it has more than {MAX_EMPTY_MEMBERS:,} empty members")
        self._machine = zlib.decompressobj(zlib.MAX_WBITS | 16)
        self._rest = b""


class _Deflate(_Zlib):
    """deflate (RFC 9110 8.4.1.2): zlib's wrapping by the letter, raw by the custom of some servers.

    Owned by one reader.
    """

    coding = "deflate"

    def __init__(self) -> None:
        super().__init__(zlib.MAX_WBITS)
        self._first = b""

    def decode(self, data: bytes, max_bytes: int) -> bytes:
        """See `Decoder.decode`."""
        if self._machine.eof:
            return b""  # what stands behind the end means nothing, and zlib would keep it
        if not self._begun:
            self._first += data
            if len(self._first) < 2:
                return b""
            data, self._first = self._first, b""
            # RFC 1950 2.2: the method is 8, and the two bytes together are a multiple of 31.
            if data[0] & 0x0F != 8 or int.from_bytes(data[:2], "big") % 31:
                self._machine = zlib.decompressobj(-zlib.MAX_WBITS)
        return super().decode(data, max_bytes)

    def flush(self) -> bytes:
        """See `Decoder.flush`."""
        if self._first:
            raise _broken(self.coding, why="it is cut short")
        return super().flush()


class _Brotli:
    """br (RFC 7932).

    Owned by one reader. The machine fills whole blocks of memory, of 32 KiB and more as the output grows: less than
    ``max_bytes`` and 32 KiB may come on top of ``max_bytes``.
    """

    def __init__(self) -> None:
        import brotli  # type: ignore[import-untyped]

        self._machine = brotli.Decompressor()
        self._error = brotli.error
        self._begun = False
        self._more = False

    @property
    def needs_input(self) -> bool:
        """See `Decoder.needs_input`."""
        return not self._more

    def decode(self, data: bytes, max_bytes: int) -> bytes:
        """See `Decoder.decode`."""
        self._begun = self._begun or bool(data)
        try:
            out: bytes = self._machine.process(data, output_buffer_limit=max_bytes)
        except self._error as error:
            raise _broken("br", error) from error
        # The machine answers for input that it holds, not for output: a full piece means that there may be more.
        self._more = len(out) >= max_bytes or not self._machine.can_accept_more_data()
        return out

    def flush(self) -> bytes:
        """See `Decoder.flush`."""
        if self._begun and not self._machine.is_finished():
            raise _broken("br", why="it is cut short")
        return b""


class _Zstd:
    """zstd (RFC 8878) with the window that RFC 9659 allows.

    Owned by one reader. zstandard's push interface does not bound its output, so it is fed one block at a time, which
    the format bounds to 128 KiB (RFC 8878 3.1.1.2.4): that much more than ``max_bytes`` may come of a call.
    """

    def __init__(self) -> None:
        import zstandard

        self._error = zstandard.ZstdError
        self._factory = zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW_BYTES)
        self._machine: Any = None
        self._rest = b""
        self._is_empty = False
        self._empty_frames = 0
        self._checksum_bytes = 0
        self._unit_bytes: Callable[[bytes], int] = _frame_head_bytes

    @property
    def needs_input(self) -> bool:
        """See `Decoder.needs_input`."""
        return not 0 < self._unit_bytes(self._rest) <= len(self._rest)

    def decode(self, data: bytes, max_bytes: int) -> bytes:
        """See `Decoder.decode`."""
        self._rest += data
        out: list[bytes] = []
        size = 0
        while size < max_bytes and not self.needs_input:
            end = self._unit_bytes(self._rest)
            unit, self._rest = self._rest[:end], self._rest[end:]
            out.append(self._feed(unit))
            size += len(out[-1])
        return b"".join(out)

    def _feed(self, unit: bytes) -> bytes:
        if self._machine is None:
            self._begin_frame(unit)
        elif self._unit_bytes is _block_bytes and unit[0] & 1:
            self._unit_bytes = (lambda rest: 4) if self._checksum_bytes else _frame_head_bytes
        try:
            piece: bytes = self._machine.decompress(unit)
        except self._error as error:
            raise _broken("zstd", error) from error
        self._is_empty = self._is_empty and not piece
        if self._machine.eof:
            self._rest = self._machine.unused_data + self._rest
            self._machine, self._unit_bytes = None, _frame_head_bytes
        return piece

    def _begin_frame(self, head: bytes) -> None:
        self._empty_frames += self._is_empty
        self._is_empty = True
        if self._empty_frames > MAX_EMPTY_MEMBERS:
            raise _broken("zstd", why=f"it has more than {MAX_EMPTY_MEMBERS:,} empty frames")
        if _window_bytes(head) > ZSTD_WINDOW_BYTES:
            needed, allowed = _window_bytes(head), ZSTD_WINDOW_BYTES
            why = f"it needs a window of {needed:,} bytes, and HTTP allows {allowed:,} (RFC 9659 3)"
            raise _broken("zstd", why=why)
        self._machine = self._factory.decompressobj()
        self._checksum_bytes = head[4] & 4
        # A skippable frame has no blocks, nor output: the machine takes what is there and gives back what is behind.
        self._unit_bytes = len if _SKIPPABLE(head) else _block_bytes

    def flush(self) -> bytes:
        """See `Decoder.flush`."""
        if self._machine is not None or self._rest:
            raise _broken("zstd", why="it is cut short")
        return b""


def _frame_head_bytes(rest: bytes) -> int:
    """Size of the frame head that ``rest`` begins with (RFC 8878 3.1.1.1); 0 while it is not told yet."""
    if len(rest) < 5:
        return 0
    if _SKIPPABLE(rest):
        return 8
    descriptor = rest[4]
    single = descriptor >> 5 & 1
    size_bytes = (single, 2, 4, 8)[descriptor >> 6]
    return 5 + (1 - single) + (0, 1, 2, 4)[descriptor & 3] + size_bytes


def _window_bytes(head: bytes) -> int:
    """What this whole frame head asks a decoder to remember (RFC 8878 3.1.1.1.2)."""
    if head[:4] != _ZSTD_MAGIC:
        return 0  # one to be skipped, or none at all, which the machine sees
    descriptor = head[4]
    if not descriptor >> 5 & 1:
        base = 1 << 10 + (head[5] >> 3)
        return base + base // 8 * (head[5] & 7)
    # Without a window of its own the frame is one: its size stands behind the dictionary's id.
    size = int.from_bytes(head[5 + (0, 1, 2, 4)[descriptor & 3] :], "little")
    return size + 256 if descriptor >> 6 == 1 else size


def _block_bytes(rest: bytes) -> int:
    """Size of the block that ``rest`` begins with (RFC 8878 3.1.1.2); 0 while it is not told yet."""
    if len(rest) < 3:
        return 0
    head = int.from_bytes(rest[:3], "little")
    run_length = head >> 1 & 3 == 1
    return 3 + (1 if run_length else head >> 3)


class _Stacked:
    """Several codings, the last applied first.

    Owned by one reader.
    """

    def __init__(self, decoders: list[Decoder]) -> None:
        self._decoders = decoders

    @property
    def needs_input(self) -> bool:
        """See `Decoder.needs_input`."""
        return all(decoder.needs_input for decoder in self._decoders)

    def decode(self, data: bytes, max_bytes: int) -> bytes:
        """See `Decoder.decode`."""
        # A decoder that still holds output is asked before the one in front of it, so nothing piles up between them.
        start = 0
        for at, decoder in enumerate(self._decoders):
            if not decoder.needs_input:
                start = at
        assert not (start and data), "the last input was not used up"
        for decoder in self._decoders[start:]:
            data = decoder.decode(data, max_bytes)
        return data

    def flush(self) -> bytes:
        """See `Decoder.flush`."""
        for decoder in self._decoders:
            decoder.flush()
        return b""
