"""RequestBody: one body from its source to the wire; what its exchange does with it is in test_exchange."""

from __future__ import annotations

from hyperpool.handoff.request_body import RequestBody
from hyperpool.handoff.source import BytesSource, FedSource


def body_of(source: BytesSource | FedSource) -> RequestBody:
    return RequestBody(source, declared_bytes=source.length_bytes, capacity_bytes=100)


def test_a_body_that_was_never_opened_goes_out_whole_after_a_rewind() -> None:
    """L9: it waited for the server's word, and its connection ended before that came."""
    body = body_of(BytesSource(b"whole"))
    body.rewind()
    body.open(lambda: None)
    piece = body.take(100, where=dict)
    assert (bytes(piece.data), piece.last) == (b"whole", True)


def test_a_body_that_was_never_opened_lets_its_feeder_go_in_a_child() -> None:
    source = FedSource()
    body_of(source).abandon_in_child()
    assert not source.feed(b"nobody sends this")
