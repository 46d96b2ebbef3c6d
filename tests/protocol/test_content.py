"""Content codings: any cut of the same bytes gives the same body, and no bytes at all give more than was asked for."""

from __future__ import annotations

import contextlib
import gzip
import importlib.util
import time
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import brotli
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from hyperpool.errors import DecodeError
from hyperpool.protocol import content
from hyperpool.protocol.content import accept_encoding, make_decoder

unhurried = settings(deadline=None)


def raw_deflate(body: bytes) -> bytes:
    machine = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return machine.compress(body) + machine.flush()


def zstd(body: bytes, **how: Any) -> bytes:
    """A frame; of unknown length and without a checksum, unless the parameters say something else."""
    how = {"write_content_size": False, **how}
    parameters = zstandard.ZstdCompressionParameters(**how)
    machine = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    return machine.compress(body) + machine.flush()


def checked_zstd(body: bytes) -> bytes:
    return zstandard.ZstdCompressor(write_checksum=True).compress(body)


def skippable(body: bytes, *, kind: int = 0) -> bytes:
    """RFC 8878 3.1.2."""
    return bytes([0x50 + kind]) + b"\x2a\x4d\x18" + len(body).to_bytes(4, "little") + body


def bgzip(body: bytes) -> bytes:
    """A gzip member with an extra field that tells its size, as genome files have them in great numbers."""
    packed = raw_deflate(body)
    head = b"\x1f\x8b\x08\x04" + bytes(4) + b"\0\xff\x06\0BC\x02\0" + (len(packed) + 25).to_bytes(2, "little")
    return head + packed + zlib.crc32(body).to_bytes(4, "little") + len(body).to_bytes(4, "little")


CODINGS: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "gzip": ("gzip", gzip.compress),
    "gzip by its old name": ("X-GZip", gzip.compress),
    "deflate": ("deflate", zlib.compress),
    "deflate without a wrapping": ("deflate", raw_deflate),
    "br": ("br", brotli.compress),
    "zstd": ("zstd", zstd),
    "zstd with a checksum": ("zstd", checked_zstd),
    "deflate, then gzip": ("deflate, gzip", lambda body: gzip.compress(zlib.compress(body))),
    "gzip, br, then zstd": ("gzip,br , zstd", lambda body: zstd(brotli.compress(gzip.compress(body)))),
    "zstd, then deflate": ("zstd,deflate", lambda body: zlib.compress(checked_zstd(body))),
}
EACH = pytest.mark.parametrize(("coding", "encode"), CODINGS.values(), ids=CODINGS)


def bound(coding: str, max_bytes: int) -> int:
    """The most that one call may give: brotli and zstd finish their block (RFC 8878 3.1.1.2.4)."""
    return max_bytes + ((128 << 10) if "zstd" in coding else max_bytes + (32 << 10) if "br" in coding else 0)


BODIES = st.binary(max_size=200) | st.builds(
    lambda part, times: part * times, st.binary(max_size=9), st.integers(0, 999)
)


def pieces(decoder: content.Decoder, data: bytes, max_bytes: int) -> Iterator[bytes]:
    """What one piece of input gives, asked for as the reader asks."""
    yield decoder.decode(data, max_bytes)
    for _ in range(1 << 20):
        if decoder.needs_input:
            return
        yield decoder.decode(b"", max_bytes)
    pytest.fail("a decoder asks for ever to be called again")


def decode(coding: str, data: bytes, *, step: int = 1 << 20, max_bytes: int = 1 << 16) -> bytes:
    decoder = make_decoder(coding)
    assert decoder is not None
    parts = [data[at : at + step] for at in range(0, len(data), step)]
    body = b"".join(piece for part in parts for piece in pieces(decoder, part, max_bytes))
    return body + decoder.flush()


@EACH
@unhurried
@given(body=BODIES, steps=st.lists(st.integers(0, 99), min_size=1, max_size=9), max_bytes=st.integers(1, 999))
def test_any_cut_of_the_same_bytes_gives_the_same_body(
    coding: str, encode: Callable[[bytes], bytes], body: bytes, steps: list[int], max_bytes: int
) -> None:
    """RFC 9110 8.4: pieces are the network's business, and the piece size the reader's."""
    decoder = make_decoder(coding)
    assert decoder is not None
    rest, got = encode(body), []
    while rest:
        steps = [*steps[1:], steps[0]] if any(steps) else [1]
        part, rest = rest[: steps[0]], rest[steps[0] :]
        for piece in pieces(decoder, part, max_bytes):
            assert len(piece) <= bound(coding, max_bytes)
            got.append(piece)
    assert b"".join(got) + decoder.flush() == body


@EACH
def test_a_body_without_a_byte_is_empty_in_every_coding(coding: str, encode: Callable[[bytes], bytes]) -> None:
    """The answer to HEAD, or a 304, names a coding and has no body."""
    decoder = make_decoder(coding)
    assert decoder is not None
    assert (decoder.needs_input, decoder.decode(b"", 99), decoder.flush()) == (True, b"", b"")


@EACH
@pytest.mark.parametrize("kept", [1, 0.5, -1])
def test_a_body_that_is_cut_short_is_refused(coding: str, encode: Callable[[bytes], bytes], kept: float) -> None:
    """M10: never a short success."""
    whole = encode(bytes(range(256)) * 9)
    part = whole[: int(len(whole) * kept)] if kept == 0.5 else whole[: int(kept)]
    with pytest.raises(DecodeError, match="it is cut short"):
        decode(coding, part)


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd", "deflate, gzip"])
@pytest.mark.parametrize("step", [1, 99])
def test_garbage_is_refused_and_its_cause_kept(coding: str, step: int) -> None:
    with pytest.raises(DecodeError, match=r"it is damaged; iter_raw\(\) gives it as it came") as caught:
        decode(coding, b"\xff\xfe" * 50, step=step)
    assert type(caught.value.__cause__).__name__ in ("error", "ZstdError")


@EACH
@unhurried
@given(data=st.data())
def test_no_damage_raises_anything_but_our_own_error(
    coding: str, encode: Callable[[bytes], bytes], data: st.DataObject
) -> None:
    whole = bytearray(encode(b"hello, hello, hello" * 9))
    at = data.draw(st.integers(0, len(whole) - 1))
    whole[at] ^= data.draw(st.integers(1, 255))
    with contextlib.suppress(DecodeError):
        decode(coding, bytes(whole), step=7, max_bytes=50)


class TestBombs:
    """A12: what the input claims does not decide what a call costs."""

    @pytest.mark.parametrize("name", CODINGS)
    def test_one_call_gives_one_piece(self, name: str) -> None:
        coding, encode = CODINGS[name]
        decoder = make_decoder(coding)
        assert decoder is not None
        bomb = encode(bytes(4 << 20))
        assert len(bomb) < 16 << 10
        sizes = [len(piece) for piece in pieces(decoder, bomb, 64 << 10)]
        assert sum(sizes) == 4 << 20
        assert max(sizes) <= bound(coding, 64 << 10)

    def test_nothing_piles_up_between_stacked_decoders(self) -> None:
        """The one that holds output is emptied before the one in front of it gives more."""
        decoder = make_decoder("gzip, gzip, gzip")
        assert isinstance(decoder, content._Stacked)
        bomb = gzip.compress(gzip.compress(gzip.compress(bytes(16 << 20))))
        for _ in pieces(decoder, bomb, 4_096):
            held = [len(one._rest) for one in decoder._decoders if isinstance(one, content._Gzip)]
            assert max(held[1:]) <= 4_096

    def test_more_than_five_codings_are_refused(self) -> None:
        """A13."""
        with pytest.raises(DecodeError, match="7 codings on one body are 2 too many"):
            make_decoder(", ".join(["gzip"] * 7))

    def test_five_codings_are_undone(self) -> None:
        body = b"x"
        for _ in range(5):
            body = gzip.compress(body)
        assert decode(", ".join(["gzip"] * 5), body, step=3, max_bytes=2) == b"x"

    def test_unknown_codings_count_as_well(self) -> None:
        """A13: a chain of 1,500 is refused whatever its links are."""
        with pytest.raises(DecodeError):
            make_decoder("x," * 1_500)

    @pytest.mark.parametrize("step", [20, 64 << 10])
    @pytest.mark.parametrize(("coding", "member"), [("gzip", gzip.compress(b"a")), ("zstd", zstd(b"a"))])
    def test_any_number_of_members_that_hold_something_is_decoded(self, coding: str, member: bytes, step: int) -> None:
        """bgzip makes one of each 64 KiB, and logs are joined from many."""
        assert decode(coding, member * 5_000, step=step) == b"a" * 5_000

    @pytest.mark.parametrize(
        ("coding", "empty"), [("gzip", gzip.compress(b"")), ("zstd", zstd(b"")), ("zstd", skippable(b"x"))]
    )
    @pytest.mark.parametrize("step", [1, 64 << 10])
    def test_more_empty_members_than_a_thousand_are_refused(self, coding: str, empty: bytes, step: int) -> None:
        """A14."""
        with pytest.raises(DecodeError, match="more than 1,000 empty"):
            decode(coding, empty * (content.MAX_EMPTY_MEMBERS + 2), step=step)

    @pytest.mark.parametrize(("coding", "empty"), [("gzip", gzip.compress(b"")), ("zstd", zstd(b""))])
    def test_a_thousand_empty_ones_between_others_are_not(self, coding: str, empty: bytes) -> None:
        full = {"gzip": gzip.compress, "zstd": zstd}[coding](b"a")
        assert decode(coding, (full + empty) * content.MAX_EMPTY_MEMBERS + full) == b"a" * 1_001

    def test_a_file_of_bgzip_is_decoded(self) -> None:
        """Blocks with an extra field each, and an empty one as the end."""
        blocks = [bgzip(bytes([at % 256]) * 2_000) for at in range(1_500)]
        assert len(decode("gzip", b"".join(blocks) + bgzip(b""), step=64 << 10, max_bytes=256 << 10)) == 3_000_000

    def test_many_small_members_cost_time_that_grows_with_their_number_only(self) -> None:
        """A14: reads of 64 KiB, as a response's body is decoded."""
        wire = gzip.compress(b"a" * 300) * 20_000
        began = time.process_time()
        assert len(decode("gzip", wire, step=64 << 10, max_bytes=256 << 10)) == 6_000_000
        assert time.process_time() - began < 5.0

    @pytest.mark.parametrize("coding", ["gzip", "deflate"])
    def test_what_stands_behind_the_end_is_not_kept(self, coding: str) -> None:
        """Zeros for ever would be memory for ever, and copied for every piece."""
        decoder = make_decoder(coding)
        assert isinstance(decoder, content._Zlib)
        decoder.decode({"gzip": gzip.compress, "deflate": zlib.compress}[coding](b"x"), 99)
        for _ in range(9):
            decoder.decode(bytes(1_000), 99)
        assert (len(decoder._machine.unused_data), decoder.needs_input, decoder.flush()) == (0, True, b"")


class TestGzip:
    @unhurried
    @given(
        parts=st.lists(st.tuples(st.binary(max_size=30), st.integers(0, 3)), min_size=1, max_size=5),
        step=st.integers(1, 50),
        max_bytes=st.integers(1, 40),
    )
    def test_members_follow_each_other_with_or_without_padding(
        self, parts: list[tuple[bytes, int]], step: int, max_bytes: int
    ) -> None:
        """RFC 1952 2.2."""
        wire = b"".join(gzip.compress(part) + bytes(zeros) for part, zeros in parts)
        assert decode("gzip", wire, step=step, max_bytes=max_bytes) == b"".join(part for part, _ in parts)

    def test_a_member_that_fills_the_piece_leaves_no_room_for_the_next_one(self) -> None:
        """A12: to zlib, no room at all means all the room there is."""
        decoder = make_decoder("gzip")
        assert decoder is not None
        sizes = [len(piece) for piece in pieces(decoder, gzip.compress(b"a" * 99) + gzip.compress(bytes(9_999)), 99)]
        assert (sum(sizes), max(sizes)) == (99 + 9_999, 99)

    @pytest.mark.parametrize("step", [1, 99])
    def test_a_wrong_checksum_is_refused(self, step: int) -> None:
        """RFC 1952 2.3.1."""
        whole = bytearray(gzip.compress(b"hello"))
        whole[-8] ^= 1
        with pytest.raises(DecodeError, match="damaged"):
            decode("gzip", bytes(whole), step=step)

    @pytest.mark.parametrize("step", [1, 99])
    def test_garbage_behind_a_member_is_refused(self, step: int) -> None:
        with pytest.raises(DecodeError):
            decode("gzip", gzip.compress(b"hello") + b"garbage", step=step)

    def test_a_second_member_that_is_cut_short_is_refused(self) -> None:
        with pytest.raises(DecodeError, match="cut short"):
            decode("gzip", gzip.compress(b"a") + gzip.compress(b"b")[:-3])


class TestDeflate:
    @pytest.mark.parametrize("coding", ["deflate", "gzip"])
    def test_what_stands_behind_a_full_last_piece_is_not_input(self, coding: str) -> None:
        """CPython repeats unused_data in unconsumed_tail here: a reader would have asked for more for ever."""
        encode = {"deflate": zlib.compress, "gzip": gzip.compress}[coding]
        assert decode(coding, encode(b"abc") + bytes(9), max_bytes=1) == b"abc"

    @unhurried
    @given(body=BODIES, level=st.integers(0, 9))
    def test_both_wrappings_are_told_apart(self, body: bytes, level: int) -> None:
        """RFC 9110 8.4.1.2 says zlib's; some servers send none."""
        assert decode("deflate", zlib.compress(body, level), step=1) == body
        assert decode("deflate", raw_deflate(body), step=1) == body

    def test_a_stored_block_without_a_wrapping_is_not_taken_for_one(self) -> None:
        """RFC 1951 3.2.4: five bits of padding may have any value, so may look like zlib's method."""
        assert decode("deflate", b"\x09\x01\x00\xfe\xffx", step=1) == b"x"

    def test_bytes_behind_the_end_mean_nothing(self) -> None:
        assert decode("deflate", zlib.compress(b"x") + b"garbage", step=1) == b"x"


class TestBrotli:
    def test_bytes_behind_the_end_are_refused(self) -> None:
        with pytest.raises(DecodeError, match="damaged"):
            decode("br", brotli.compress(b"x") + b"garbage")


class TestZstd:
    @pytest.mark.parametrize("log", [10, 20, 23])
    def test_a_window_of_8_mib_is_taken(self, log: int) -> None:
        """RFC 9659 3."""
        assert decode("zstd", zstd(b"x" * 100, window_log=log)) == b"x" * 100

    @pytest.mark.parametrize(("log", "size"), [(24, "16,777,216"), (27, "134,217,728")])
    @pytest.mark.parametrize("step", [1, 99])
    def test_a_larger_window_is_refused_and_named(self, log: int, size: str, step: int) -> None:
        """A15."""
        with pytest.raises(DecodeError, match=f"a window of {size} bytes, and HTTP allows 8,388,608 .RFC 9659 3."):
            decode("zstd", zstd(b"x" * 100, window_log=log), step=step)

    @pytest.mark.parametrize(
        ("head", "size"),
        [
            (b"\x00\x6f", (8 << 20) // 8 * 15),  # a mantissa of 7
            (b"\xa0" + (9 << 20).to_bytes(4, "little"), 9 << 20),  # its size is its window
            (b"\xa3\1\2\3\4" + (9 << 20).to_bytes(4, "little"), 9 << 20),  # behind the id of a dictionary
            (b"\xe0" + (1 << 62).to_bytes(8, "little"), 1 << 62),
        ],
    )
    def test_a_window_is_read_from_every_kind_of_frame_head(self, head: bytes, size: int) -> None:
        """A15; RFC 8878 3.1.1.1."""
        with pytest.raises(DecodeError, match=f"a window of {size:,} bytes"):
            decode("zstd", b"\x28\xb5\x2f\xfd" + head)

    @pytest.mark.parametrize("size", [1, 255, 256, 257, 65_791, 65_792, 1 << 20])
    def test_a_frame_that_is_its_own_window_is_taken(self, size: int) -> None:
        one_shot = zstandard.ZstdCompressor(level=3).compress(bytes(size))
        assert len(decode("zstd", one_shot)) == size

    @unhurried
    @given(
        parts=st.lists(
            st.tuples(st.sampled_from([zstd, checked_zstd, skippable]), st.binary(max_size=30)), min_size=1, max_size=5
        ),
        step=st.integers(1, 50),
        max_bytes=st.integers(1, 40),
    )
    def test_frames_follow_each_other_and_some_are_skipped(
        self, parts: list[tuple[Callable[[bytes], bytes], bytes]], step: int, max_bytes: int
    ) -> None:
        """RFC 8878 3.1, 3.1.2."""
        wire = b"".join(encode(part) for encode, part in parts)
        body = b"".join(part for encode, part in parts if encode is not skippable)
        assert decode("zstd", wire, step=step, max_bytes=max_bytes) == body

    @pytest.mark.parametrize("kind", [0, 15])
    @pytest.mark.parametrize("step", [1, 5, 8, 1_000])
    def test_a_skippable_frame_of_any_kind_is_skipped(self, kind: int, step: int) -> None:
        assert decode("zstd", skippable(bytes(300), kind=kind) + zstd(b"x"), step=step) == b"x"

    def test_a_skippable_frame_is_not_kept(self) -> None:
        """It may claim 4 GiB."""
        decoder = make_decoder("zstd")
        assert isinstance(decoder, content._Zstd)
        decoder.decode(skippable(bytes(100_000))[:50_000], 99)
        assert (len(decoder._rest), decoder.needs_input) == (0, True)

    @pytest.mark.parametrize("kept", [5, 8, 9, 107])
    def test_a_skippable_frame_that_is_cut_short_is_refused(self, kept: int) -> None:
        with pytest.raises(DecodeError, match="cut short"):
            decode("zstd", skippable(bytes(100))[:kept])

    @pytest.mark.parametrize("step", [1, 999])
    def test_a_wrong_checksum_is_refused(self, step: int) -> None:
        """RFC 8878 3.1.1."""
        whole = bytearray(checked_zstd(b"hello"))
        whole[-1] ^= 1
        with pytest.raises(DecodeError, match="damaged"):
            decode("zstd", bytes(whole), step=step)

    @pytest.mark.parametrize("size", [0, 1, 255, 256, 65_791, 65_792, 300_000])
    @pytest.mark.parametrize("told", [False, True])
    def test_frame_heads_of_every_size_are_read(self, size: int, told: bool) -> None:
        """RFC 8878 3.1.1.1.1: the content size has 0, 1, 2, 4 or 8 bytes."""
        body = bytes(size)
        encoded = zstandard.ZstdCompressor(write_content_size=told).compress(body)
        assert decode("zstd", encoded, step=1) == body

    @pytest.mark.parametrize("body", [b"\0" * 300_000, bytes(range(256)) * 1_200])
    def test_a_body_of_several_blocks_is_read(self, body: bytes) -> None:
        assert decode("zstd", zstd(body), step=1_000, max_bytes=100) == body

    def test_a_dictionary_that_nobody_has_is_refused(self) -> None:
        known = zstandard.ZstdCompressionDict(b"hello, world" * 20, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
        head = bytearray(zstandard.ZstdCompressor(dict_data=known).compress(b"hello, world"))
        head[4] |= 1  # one byte of dictionary identifier (RFC 8878 3.1.1.1.3)
        with pytest.raises(DecodeError):
            decode("zstd", bytes(head[:5]) + b"\x07" + bytes(head[5:]))


class TestNames:
    @pytest.mark.parametrize("coding", ["", " ", "identity", "Identity, ,", ","])
    def test_where_nothing_was_done_nothing_is_undone(self, coding: str) -> None:
        assert make_decoder(coding) is None

    @pytest.mark.parametrize("coding", ["compress", "gzip, compress", "aws-chunked", "utf-8", "gzip;q=1"])
    def test_an_unknown_coding_is_left_as_it_is(self, coding: str) -> None:
        """RFC 9110 8.4: the caller may know what to do with it."""
        assert make_decoder(coding) is None

    @pytest.mark.parametrize("coding", ["GZIP", " gzip ", "identity, gzip", "gzip,"])
    def test_a_name_asks_no_case_and_lists_may_have_gaps(self, coding: str) -> None:
        """RFC 9110 8.4.1, 5.6.1.2."""
        assert decode(coding, gzip.compress(b"x")) == b"x"


class TestWhatIsInstalled:
    @pytest.fixture(autouse=True)
    def fresh(self) -> Iterator[None]:
        """What is installed is looked up once; these tests are about the looking."""
        content._codings.cache_clear()
        accept_encoding.cache_clear()
        yield
        content._codings.cache_clear()
        accept_encoding.cache_clear()

    def test_everything_is_offered_where_everything_is_there(self) -> None:
        assert accept_encoding() == "gzip, deflate, br, zstd"

    @pytest.mark.parametrize(
        ("module", "coding", "offer"),
        [("brotli", "br", "gzip, deflate, zstd"), ("zstandard", "zstd", "gzip, deflate, br")],
    )
    def test_what_is_not_installed_is_not_offered_and_not_undone(
        self, monkeypatch: pytest.MonkeyPatch, module: str, coding: str, offer: str
    ) -> None:
        find_spec = importlib.util.find_spec
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == module else find_spec(name))
        assert (accept_encoding(), make_decoder(coding)) == (offer, None)

    def test_each_coding_that_is_offered_can_be_undone(self) -> None:
        assert all(make_decoder(coding.strip()) for coding in accept_encoding().split(","))
