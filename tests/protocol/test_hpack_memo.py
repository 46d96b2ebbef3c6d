"""The memory for header blocks: hpack's own coders, which have none, must not be able to tell the difference."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import hpack
import pytest
from hpack.hpack import encode_integer
from hypothesis import given, settings
from hypothesis import strategies as st

from hyperpool.protocol import hpack_memo
from hyperpool.protocol.hpack_memo import MemoDecoder, MemoEncoder

unhurried = settings(deadline=None)

Block = list[tuple[bytes, bytes]]
STATUS = (b":status", b"200")  # index 8 of the static table
SECRET = hpack.NeverIndexedHeaderTuple(b"authorization", b"hunter2")

# Few names and values, so that blocks refer to each other; long ones, so that the table overflows.
NAMES = st.sampled_from([b":status", b"date", b"x", b"y", b"set-cookie"])
VALUES = st.sampled_from([b"200", b"404", b"", b"a", b"b", b"c" * 60, b"d" * 150])
PLAIN = st.tuples(NAMES, VALUES)
NEVER = st.builds(hpack.NeverIndexedHeaderTuple, NAMES, VALUES)
BLOCKS = st.lists(PLAIN | NEVER, max_size=4)
SIZES = st.sampled_from([0, 32, 100, 200, 4_096])

# Raw representations (RFC 7541 6.1 to 6.3), which no encoder of ours would choose: any index, any kind of literal.
TEXT = st.sampled_from([b"", b"a", b"b", b"x" * 90]).map(lambda text: bytes([len(text)]) + text)


def integer(value: int, bits: int, mark: int) -> bytes:
    octets = bytearray(encode_integer(value, bits))
    octets[0] |= mark
    return bytes(octets)


INDEX = st.sampled_from([1, 2, 8, 31, 54, 61, 62, 63, 64, 70])
RAW_FIELD = st.one_of(
    INDEX.map(lambda index: integer(index, 7, 0x80)),
    *(
        st.builds(lambda index, value, bits=bits, mark=mark: integer(index, bits, mark) + value, INDEX, TEXT)
        for bits, mark in ((6, 0x40), (4, 0x00), (4, 0x10))
    ),
    *(
        st.builds(lambda name, value, mark=mark: bytes([mark]) + name + value, TEXT, TEXT)
        for mark in (0x40, 0x00, 0x10)
    ),
)
RAW_SIZE = SIZES.map(lambda size: integer(size, 5, 0x20))
RAW_BLOCK = st.builds(
    lambda sizes, raw: b"".join(sizes + raw), st.lists(RAW_SIZE, max_size=1), st.lists(RAW_FIELD, max_size=4)
)


def marked(fields: Any) -> list[tuple[type, bytes, bytes]]:
    """Fields with what == does not tell: which of them must never be indexed."""
    return [(type(field), field[0], field[1]) for field in fields]


def table(coder: Any) -> tuple[Any, ...]:
    found = coder.header_table
    return list(found.dynamic_entries), found._current_size, found.maxsize


def decoded(decoder: hpack.Decoder, block: bytes) -> Any:
    try:
        return marked(decoder.decode(block, raw=True))
    except hpack.HPACKError as error:
        return type(error)


def agree(blocks: Sequence[bytes]) -> None:
    """Both decoders get the same blocks, and are compared after each, up to the first that is refused."""
    ours, plain = MemoDecoder(), hpack.Decoder()
    for block in blocks:
        expected = decoded(plain, block)
        assert decoded(ours, block) == expected
        assert table(ours) == table(plain)
        if isinstance(expected, type):
            return  # a connection does not live on after a COMPRESSION_ERROR (RFC 9113 4.3)


class TestDecoding:
    @unhurried
    @given(st.lists(st.tuples(BLOCKS, st.none() | SIZES, st.integers(1, 3)), max_size=6))
    def test_it_says_what_hpack_says_of_what_an_encoder_sends(self, plan: list[tuple[Block, int | None, int]]) -> None:
        """RFC 7541 2.3.2: same fields, same table, after each block of any sequence."""
        encoder = hpack.Encoder()
        wire = []
        for fields, size, times in plan:
            if size is not None:
                encoder.header_table_size = size
            wire += [encoder.encode(fields) for _ in range(times)]
        agree(wire)

    @settings(deadline=None, max_examples=200)
    @given(pool=st.lists(RAW_BLOCK, min_size=1, max_size=4), order=st.lists(st.integers(0, 3), max_size=12))
    def test_it_says_what_hpack_says_of_any_blocks_in_any_order(self, pool: list[bytes], order: list[int]) -> None:
        """Blocks come again where they mean something else, or nothing: that is what a memory could get wrong."""
        agree([pool[at % len(pool)] for at in order])

    @unhurried
    @given(st.lists(st.binary(max_size=6), max_size=4))
    def test_it_refuses_what_hpack_refuses(self, blocks: list[bytes]) -> None:
        """A11."""
        agree([*blocks, *blocks])

    def test_a_block_that_comes_again_and_again_is_not_decoded_each_time(self) -> None:
        block = hpack.Encoder().encode([STATUS])
        decoder = MemoDecoder()
        decoder.decode(block, raw=True)
        assert decoder.decode(block, raw=True) is decoder.decode(block, raw=True)

    def test_nothing_is_kept_of_blocks_that_come_once(self) -> None:
        """There is a date in most of them, and a connection may hardly be used."""
        decoder = MemoDecoder()
        for number in range(hpack_memo.MEMO_BLOCKS * 2 + 9):
            decoder.decode(b"\x00\x01x\x05%05d" % number, raw=True)
        assert decoder._known == {} and len(decoder._seen) == 9

    def test_a_block_that_refers_to_the_table_is_remembered_while_the_table_stands(self) -> None:
        encoder, decoder = hpack.Encoder(), MemoDecoder()
        decoder.decode(encoder.encode([(b"x", b"y")]), raw=True)
        block = encoder.encode([(b"x", b"y")])
        decoder.decode(block, raw=True)
        second = decoder.decode(block, raw=True)
        assert decoder.decode(block, raw=True) is second
        decoder.decode(encoder.encode([(b"x", b"z")]), raw=True)
        assert marked(decoder.decode(block, raw=True)) == [(hpack.HeaderTuple, b"x", b"z")]

    def test_what_a_remembered_block_adds_is_added_again(self) -> None:
        """RFC 7541 2.3.2: the next index depends on it."""
        block = b"\x40\x01x\x01y"
        decoder = MemoDecoder()
        for _ in range(3):
            decoder.decode(block, raw=True)
        assert list(decoder.header_table.dynamic_entries) == [(b"x", b"y")] * 3

    def test_a_secret_stays_one_when_it_is_remembered(self) -> None:
        """RFC 7541 6.2.3."""
        block = hpack.Encoder().encode([SECRET])
        decoder = MemoDecoder()
        decoder.decode(block, raw=True)
        assert marked(decoder.decode(block, raw=True)) == marked([SECRET])

    def test_a_block_that_resizes_the_table_is_not_remembered(self) -> None:
        decoder = MemoDecoder()
        decoder.decode(integer(0, 5, 0x20) + b"\x88", raw=True)
        assert decoder._known == {}

    def test_a_block_that_changes_what_it_refers_to_is_not_remembered(self) -> None:
        """It would never be asked for again: the table has moved on."""
        decoder = MemoDecoder()
        decoder.decode(b"\x40\x01x\x01y", raw=True)
        known = list(decoder._known)
        decoder.decode(integer(62, 7, 0x80) + b"\x40\x01x\x01z", raw=True)
        assert list(decoder._known) == known

    def test_a_long_block_is_not_remembered(self) -> None:
        decoder = MemoDecoder()
        longest = b"\x88" * hpack_memo.MEMO_BLOCK_BYTES
        decoder.max_header_list_size = 1 << 20
        for _ in range(2):
            decoder.decode(longest, raw=True)
            decoder.decode(longest + b"\x88", raw=True)
        assert list(decoder._known) == [longest]

    def test_a_bomb_is_refused_each_time(self) -> None:
        """A9: nothing is remembered of what was refused."""
        decoder = MemoDecoder()
        decoder.max_header_list_size = 1_000
        for _ in range(2):
            with pytest.raises(hpack.OversizedHeaderListError):
                decoder.decode(b"\x88" * 100, raw=True)
        assert decoder._known == {}

    def test_the_memory_has_a_bound(self) -> None:
        decoder = MemoDecoder()
        for number in range(hpack_memo.MEMO_BLOCKS * 2 + 9):
            for _ in range(2):
                decoder.decode(b"\x00\x01x\x05%05d" % number, raw=True)
            assert len(decoder._known) <= hpack_memo.MEMO_BLOCKS
        assert len(decoder._known) == 9

    def test_a_full_memory_starts_anew(self) -> None:
        """A server that changes its ways finds room."""
        decoder = MemoDecoder()
        for number in range(hpack_memo.MEMO_BLOCKS + 1):
            block = b"\x00\x01x\x05%05d" % number
            decoder.decode(block, raw=True)
            second = decoder.decode(block, raw=True)
        assert decoder.decode(block, raw=True) is second


class TestEncoding:
    @settings(deadline=None, max_examples=200)
    @given(st.lists(st.tuples(BLOCKS, st.none() | SIZES, st.integers(1, 3)), max_size=6))
    def test_hpack_reads_what_it_writes(self, plan: list[tuple[Block, int | None, int]]) -> None:
        """The peer's decoder gets the same fields and keeps the same table."""
        ours, peer = MemoEncoder(), hpack.Decoder()
        for fields, size, times in plan:
            if size is not None:
                ours.header_table_size = size
            for _ in range(times):
                assert [tuple(field) for field in peer.decode(ours.encode(fields), raw=True)] == fields
                assert table(ours) == table(peer)

    def test_what_every_request_says_is_a_reference_from_the_second_time_on(self) -> None:
        encoder = MemoEncoder()
        blocks = [encoder.encode([(b":authority", b"a.test"), (b"user-agent", b"x")]) for _ in range(3)]
        assert len(blocks[0]) > 2
        assert [len(block) for block in blocks[1:]] == [2, 2]

    def test_any_other_field_is_a_reference_from_the_third_time_on(self) -> None:
        encoder = MemoEncoder()
        blocks = [encoder.encode([(b":path", b"/x")]) for _ in range(4)]
        assert [len(block) == 1 for block in blocks] == [False, False, True, True]

    def test_a_field_that_comes_once_leaves_the_table_as_it_is(self) -> None:
        encoder = MemoEncoder()
        for number in range(9):
            encoder.encode([(b":path", b"/%d" % number), (b"x-id", b"%d" % number)])
        assert list(encoder.header_table.dynamic_entries) == []

    def test_fields_that_come_again_do_not_push_others_out(self) -> None:
        """RFC 7541 4.4."""
        encoder, peer = MemoEncoder(), hpack.Decoder()
        for number in range(450):
            fields = [(b"x", b"%d" % (number // 3))]
            assert [tuple(field) for field in peer.decode(encoder.encode(fields), raw=True)] == fields
        kept = list(encoder.header_table.dynamic_entries)
        assert kept[-1] == (b"x", b"0")
        assert (b"x", b"149") not in kept

    @pytest.mark.parametrize("times", [1, 3])
    def test_a_secret_is_never_indexed_however_often_it_comes(self, times: int) -> None:
        """RFC 7541 7.1.3."""
        encoder, peer = MemoEncoder(), hpack.Decoder()
        for _ in range(times):
            assert marked(peer.decode(encoder.encode([STATUS, SECRET]), raw=True))[1:] == marked([SECRET])
        assert (list(encoder.header_table.dynamic_entries), SECRET in encoder._references) == ([], False)
        assert encoder._seen == set()

    def test_a_table_that_was_resized_is_announced_once(self) -> None:
        """RFC 7541 4.2."""
        encoder = MemoEncoder()
        encoder.header_table_size = 100
        assert [encoder.encode([STATUS]) for _ in range(3)] == [integer(100, 5, 0x20) + b"\x88", b"\x88", b"\x88"]

    def test_references_do_not_outlive_a_smaller_table(self) -> None:
        encoder, peer = MemoEncoder(), hpack.Decoder()
        fields = [(b":authority", b"a.test")]
        for size in (4_096, 4_096, 0, 4_096):
            encoder.header_table_size = size
            assert [tuple(field) for field in peer.decode(encoder.encode(fields), raw=True)] == fields

    def test_the_memory_has_a_bound(self) -> None:
        encoder = MemoEncoder()
        for number in range(hpack_memo.MEMO_BLOCKS * 2 + 9):
            encoder.encode([(b"x", b"%d" % number)])
            assert len(encoder._seen) <= hpack_memo.MEMO_BLOCKS


class TestTheDecodersTable:
    def test_a_block_that_leaves_a_full_table_as_it_is_is_seen_to_do_so(self) -> None:
        block = b"\x40\x01x\x01y"
        decoder, plain = MemoDecoder(), hpack.Decoder()
        for _ in range(4_096 // 34 + 3):
            decoder.decode(block, raw=True)
            plain.decode(block, raw=True)
        known = decoder._known.get(block)
        assert known is not None and known.settled_at == decoder.header_table.version
        decoder.decode(block, raw=True)
        plain.decode(block, raw=True)
        assert table(decoder) == table(plain)

    def test_another_block_ends_that(self) -> None:
        block, other = b"\x40\x01x\x01y", b"\x40\x01z\x01z"
        decoder, plain = MemoDecoder(), hpack.Decoder()
        for each in [block] * 130 + [other] + [block] * 3 + [other, block, other]:
            decoder.decode(each, raw=True)
            plain.decode(each, raw=True)
            assert table(decoder) == table(plain)
