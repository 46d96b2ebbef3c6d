"""HEADER_TABLE_SIZE that changes between two header blocks, against a decoder that insists on RFC 7541 4.2."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import hpack
import pytest
from hyperframe.frame import Frame, HeadersFrame, SettingsFrame

from hyperpool.protocol.events import RequestHead
from hyperpool.protocol.h2_codec import H2Codec
from hyperpool.protocol.hpack_memo import MOST_TABLE_BYTES, MemoEncoder
from hyperpool.values import Limits

HEAD = RequestHead(b"GET", b"https", b"a.test", b"/", ((b"x", b"y"),))
SIZES = (0, 64, 4_096, 2**32 - 1)


class Server:
    """Changes its table size, and decodes what comes."""

    def __init__(self) -> None:
        self.decoder = hpack.Decoder()
        self.client = H2Codec(Limits())
        self.client.receive(SettingsFrame(0).serialize() + SettingsFrame(0, flags=["ACK"]).serialize())
        self.client.data_to_send()

    def resize(self, size_bytes: int) -> None:
        self.decoder.max_allowed_table_size = size_bytes
        self.client.receive(SettingsFrame(0, settings={SettingsFrame.HEADER_TABLE_SIZE: size_bytes}).serialize())
        self.client.data_to_send()

    def decode_a_request(self) -> bytes:
        """The header block of a request that the client sends now, decoded."""
        self.client.open(HEAD, end=True)
        wire = self.client.data_to_send()
        frame, length = Frame.parse_frame_header(memoryview(wire[:9]))
        frame.parse_body(memoryview(wire[9 : 9 + length]))
        assert isinstance(frame, HeadersFrame)
        assert (b"x", b"y") in [tuple(field) for field in self.decoder.decode(frame.data, raw=True)]
        return frame.data


@pytest.mark.parametrize("sizes", list(itertools.product(SIZES, repeat=3)), ids=str)
def test_a_table_size_that_changes_thrice_before_a_request_is_said_as_the_peer_must_hear_it(
    sizes: Sequence[int],
) -> None:
    server = Server()
    server.decode_a_request()
    for size_bytes in sizes:
        server.resize(size_bytes)
    server.decode_a_request()
    server.decode_a_request()


def test_a_table_size_is_said_once() -> None:
    server = Server()
    server.resize(64)
    server.resize(64)
    assert server.decode_a_request().startswith(b"\x3f\x21")
    assert not server.decode_a_request().startswith(b"\x3f")


def test_a_table_that_shrank_and_grew_again_is_emptied_first() -> None:
    server = Server()
    server.resize(0)
    server.resize(4_096)
    assert server.decode_a_request().startswith(b"\x20\x3f\xe1\x1f")


def test_the_size_that_holds_can_be_asked_for() -> None:
    encoder = MemoEncoder()
    encoder.header_table_size = 64
    assert encoder.header_table_size == 64


def test_a_table_does_not_grow_to_all_that_the_peer_allows() -> None:
    # It would be kept for as long as the connection, and searched for each field that is new.
    encoder, decoder = MemoEncoder(), hpack.Decoder()
    encoder.header_table_size = decoder.max_allowed_table_size = 2**32 - 1
    for number in range(2 * MOST_TABLE_BYTES // 32):
        field = (b":path", b"/%d" % number)
        for _ in range(2):  # what comes again is what enters the table
            assert decoder.decode(encoder.encode([field]), raw=True) == [field]
    assert encoder.header_table._current_size <= MOST_TABLE_BYTES
