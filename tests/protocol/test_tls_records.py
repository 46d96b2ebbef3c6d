"""TLS records counted by their heads: however the bytes are cut, and only for as long as they are records."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperpool.protocol.tls_records import RecordCount

TYPES = st.sampled_from([20, 21, 22, 23])


def record(kind: int, body_bytes: int) -> bytes:
    return bytes((kind, 3, 3)) + body_bytes.to_bytes(2, "big") + bytes(body_bytes)


RECORDS = st.lists(st.builds(record, TYPES, st.integers(0, 60)), min_size=1, max_size=12)


@given(RECORDS, st.lists(st.integers(0, 600), max_size=12), st.integers(0, 70))
def test_a_record_is_counted_when_its_last_byte_is_here(records: list[bytes], cuts: list[int], lacking: int) -> None:
    whole = b"".join(records)
    stream = whole[: max(0, len(whole) - lacking)]
    places = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
    count, counted = RecordCount(), 0
    for begin, end in itertools.pairwise(places):
        counted += count.count(stream[begin:end])
        ends = [len(b"".join(records[: n + 1])) for n in range(len(records))]
        assert counted == sum(one <= end for one in ends)


def test_bytes_that_come_one_by_one_are_counted_alike() -> None:
    stream, count = record(23, 1300) + record(21, 2), RecordCount()
    assert [at for at in range(len(stream)) if count.count(stream[at : at + 1])] == [1304, 1311]


@pytest.mark.parametrize(
    "noise",
    [
        pytest.param(b"HTTP/1.1 400 Bad Request\r\n", id="no TLS"),
        pytest.param(bytes((24, 3, 3, 0, 1)), id="a type that HTTP has no use for"),
        pytest.param(bytes((23, 2, 0, 0, 1)), id="SSL 2"),
        pytest.param(bytes((23, 3, 3, 0xFF, 0xFF)), id="too long"),
    ],
)
def test_what_is_no_record_is_left_to_openssl_to_judge(noise: bytes) -> None:
    count = RecordCount()
    assert count.count(record(23, 7)) == 1
    assert count.count(noise) > 1 << 30
    assert count.count(record(23, 7)) > 1 << 30, "there is no way back"
