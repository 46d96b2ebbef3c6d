"""HPACK with a memory: a header block that comes again is not decoded, or encoded, again.

Pure. Servers send the same few blocks thousands of times, and reading one byte by byte costs more than all the rest of
a small response (measured: half of the loop's time against nginx). A remembered block may be used again when decoding
it anew would give the same fields and leave the same dynamic table behind (RFC 7541 2.3.2):

- a block that refers to no dynamic entry means the same whatever the table holds; what it adds is added again;
- a block that does refer to one means the same while the table is the same, which a version number tells.

The encoder side remembers fields, not blocks: most of what a request says was said by the one before. A reference to
the table stands until the table changes, so the table is kept from changing all the time.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import hpack
from hpack.table import HeaderTable

# Different blocks that are remembered on a connection; when they are more, the server does not repeat itself and the
# memory starts anew. Each is bounded by what the peer may send as one block.
MEMO_BLOCKS = 256
# What all requests to an origin say alike, nearly always.
_SAID_BY_ALL = frozenset({b":authority", b"user-agent", b"accept", b"accept-encoding", b"accept-language"})
_NOT_INDEXED = b"\x00"  # RFC 7541 6.2.2
# A longer block is rare, and not worth its memory.
MEMO_BLOCK_BYTES = 4 << 10
# What our own table holds at most, whatever more the peer allows (RFC 7541 4.2): up to 4 GiB, which would be kept, and
# searched from end to end for each new field. The initial size (RFC 9113 6.5.2), with which Go and nghttp2 stay too.
MOST_TABLE_BYTES = 4 << 10

Entry = tuple[bytes, bytes]


class _WatchedTable(HeaderTable):
    """A dynamic table that tells what one block does with it.

    Owned by the loop thread.
    """

    def __init__(self) -> None:
        super().__init__()
        self.version = 0
        self.added: list[Entry] = []
        self.referred = False
        self.resized_to: int | None = None

    def begin_block(self) -> None:
        """Forget what the last block did."""
        self.added = []
        self.referred = False
        self.resized_to = None

    def get_by_index(self, index: int) -> Entry:
        """See hpack; an index past the static table (RFC 7541 A) refers to the dynamic one."""
        self.referred = self.referred or index > HeaderTable.STATIC_TABLE_LENGTH
        return super().get_by_index(index)

    def add(self, name: bytes, value: bytes) -> None:
        """See hpack."""
        self.version += 1
        self.added.append((name, value))
        super().add(name, value)

    def has_room_for(self, name: bytes, value: bytes) -> bool:
        """Whether it can be added without another's being dropped (RFC 7541 4.1, 4.4)."""
        return self._current_size + len(name) + len(value) + 32 <= self._maxsize

    def add_again(self, entries: list[Entry]) -> bool:
        """What a remembered block adds; whether the table differs afterwards from what it was.

        A full table to which the same block was added again and again pushes out what it takes in.
        """
        before = list(self.dynamic_entries)
        for name, value in entries:
            super().add(name, value)
        changed = before != list(self.dynamic_entries)
        self.version += changed
        return changed

    @property
    def maxsize(self) -> int:
        """See hpack."""
        return super().maxsize

    @maxsize.setter
    def maxsize(self, newmax: int) -> None:
        self.version += 1
        self.resized_to = newmax
        HeaderTable.maxsize.fset(self, newmax)  # type: ignore[attr-defined]


@dataclass(slots=True)
class Known:
    """What a block meant. ``version`` is None where that does not depend on the table.

    ``judged``: what somebody has found out about its fields, for as long as they are remembered. ``settled_at``: the
    table's version that it leaves as it is.
    """

    fields: list[Any]
    added: list[Entry]
    version: int | None
    judged: Any = None
    settled_at: int = -1


class MemoDecoder(hpack.Decoder):
    """hpack's decoder with a memory.

    Owned by the loop thread.
    """

    def __init__(self) -> None:
        super().__init__()
        self.header_table: _WatchedTable = _WatchedTable()
        self._known: dict[bytes, Known] = {}
        # Hashes of blocks that came once, and may never come again: there is a date in most of them.
        self._seen: set[int] = set()
        # A block that was decoded, and not yet taken; or why it could not be.
        self._ahead: Known | None = None
        self._failed: Exception | None = None

    def look(self, data: bytes) -> Known | None:
        """What this block means, before somebody takes it by `take` or asks for it by `decode`; one of them must come.

        None where it cannot be decoded: `decode` raises why.
        """
        known = self._known.get(data)
        if known is not None and known.version in (None, self.header_table.version):
            return known
        try:
            self._ahead = self._learn(data)
        except Exception as error:  # whatever it is, it is raised where the block is decoded
            self._failed = error
        return self._ahead

    def take(self, known: Known) -> None:
        """The block is acted on: the table changes as it says, unless it has done so already."""
        if known is self._ahead:
            self._ahead = None
            return
        table = self.header_table
        if known.added and known.settled_at != table.version and not table.add_again(known.added):
            known.settled_at = table.version

    def decode(self, data: bytes, raw: bool = False) -> Iterable[Any]:
        """See hpack."""
        known = self._ahead
        if known is None and self._failed is None:
            known = self.look(data)
        if known is None:
            assert self._failed is not None
            raise self._failed
        self.take(known)
        return known.fields

    def _learn(self, data: bytes) -> Known:
        table = self.header_table
        table.begin_block()
        version = table.version
        fields = list(super().decode(data, raw=True))
        known = Known(fields, table.added, version if table.referred else None)
        if len(data) <= MEMO_BLOCK_BYTES and table.resized_to is None and not (table.referred and table.added):
            self._remember(bytes(data), known)
        return known

    def _remember(self, data: bytes, known: Known) -> None:
        """Only what comes again: a block takes 3 KiB, and a connection that is hardly used would keep each one."""
        if hash(data) in self._seen:
            if len(self._known) >= MEMO_BLOCKS:
                self._known.clear()
            self._known[data] = known
            return
        if len(self._seen) >= MEMO_BLOCKS:
            self._seen.clear()
        self._seen.add(hash(data))


class MemoEncoder(hpack.Encoder):
    """hpack's encoder with a memory for fields, and an eye for those that come again.

    Owned by the loop thread. What every request says enters the table at once. Any other field does so when it comes
    for the second time, and while there is room: paths that differ would push out what is of use, and each change of
    the table makes the remembered references worthless.
    """

    def __init__(self) -> None:
        super().__init__()
        self.header_table: _WatchedTable = _WatchedTable()
        # Field -> what stands for it while the table is as it is; and those that came once.
        self._references: dict[Entry, bytes] = {}
        self._version = 0
        self._seen: set[Entry] = set()

    @property
    def header_table_size(self) -> int:
        """See hpack."""
        return self.header_table.maxsize

    @header_table_size.setter
    def header_table_size(self, size_bytes: int) -> None:
        # Said before the next block: the smallest size since the last one, then the size that holds (RFC 7541 4.2).
        # hpack would say all of them, also what the peer has taken back by now, and none where the last one came twice.
        size_bytes = min(size_bytes, MOST_TABLE_BYTES)
        if size_bytes == self.header_table.maxsize:
            return
        self.header_table.maxsize = size_bytes
        smallest = min([*self.table_size_changes, size_bytes])
        self.table_size_changes = [smallest] if smallest == size_bytes else [smallest, size_bytes]

    def encode(self, headers: Any, huffman: bool = True) -> bytes:
        """See hpack. ``headers``: tuples, and `hpack.NeverIndexedHeaderTuple` for secrets."""
        table = self.header_table
        parts = []
        if table.resized:
            parts.append(self._encode_table_size_change())
            table.resized = False
        if table.version != self._version:
            self._forget_references()  # its size has changed
        known = self._references.get
        parts.extend([known(field) or self._represent(field, huffman) for field in headers])
        return b"".join(parts)

    def _forget_references(self) -> None:
        self._references.clear()
        self._version = self.header_table.version

    def _represent(self, field: Any, huffman: bool) -> bytes:
        if isinstance(field, hpack.NeverIndexedHeaderTuple):
            return self.add(field, True, huffman)
        name, value = field
        table = self.header_table
        match = table.search(name, value)
        if match is not None and match[2] is not None:
            reference = self._references[field] = self._encode_indexed(match[0])
            return reference
        if name in _SAID_BY_ALL or (field in self._seen and table.has_room_for(name, value)):
            part = self.add(field, False, huffman)
            self._forget_references()
            return part
        if len(self._seen) >= MEMO_BLOCKS:
            self._seen.clear()
        self._seen.add(field)
        if match is None:
            return self._encode_literal(name, value, _NOT_INDEXED, huffman)
        return self._encode_indexed_literal(match[0], value, _NOT_INDEXED, huffman)
