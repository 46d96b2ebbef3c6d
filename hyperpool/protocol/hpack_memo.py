"""HPACK with a memory: a header block that comes again is not decoded, or encoded, again.

Pure. Servers send the same few blocks thousands of times, and reading one byte by byte costs more than all the rest of
a small response (measured: half of the loop's time against nginx). A remembered block may be used again when decoding
it anew would give the same fields and leave the same dynamic table behind (RFC 7541 2.3.2):

- a block that refers to no dynamic entry means the same whatever the table holds; what it adds is added again;
- a block that does refer to one means the same while the table is the same, which a version number tells.

The encoder side is simpler: a field list that is encoded entirely by reference leaves the table as it is, so its bytes
stand until the table changes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import hpack
from hpack.table import HeaderTable

# Different blocks that are remembered on a connection; when they are more, the server does not repeat itself and the
# memory starts anew. Each is bounded by what the peer may send as one block.
MEMO_BLOCKS = 256
# A longer block is rare, and not worth its memory.
MEMO_BLOCK_BYTES = 4 << 10

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

    def add_again(self, entries: list[Entry]) -> None:
        """What a remembered block adds; that it does so is known already."""
        for name, value in entries:
            self.version += 1
            super().add(name, value)

    @property
    def maxsize(self) -> int:
        """See hpack."""
        return super().maxsize

    @maxsize.setter
    def maxsize(self, newmax: int) -> None:
        self.version += 1
        self.resized_to = newmax
        HeaderTable.maxsize.fset(self, newmax)  # type: ignore[attr-defined]


class _Known(NamedTuple):
    """What a block meant. ``version`` is None where that does not depend on the table."""

    fields: list[Any]
    added: list[Entry]
    version: int | None


class MemoDecoder(hpack.Decoder):
    """hpack's decoder with a memory.

    Owned by the loop thread.
    """

    def __init__(self) -> None:
        super().__init__()
        self.header_table: _WatchedTable = _WatchedTable()
        self._known: dict[bytes, _Known] = {}

    def decode(self, data: bytes, raw: bool = False) -> Iterable[Any]:
        """See hpack."""
        known = self._known.get(data)
        table = self.header_table
        if known is not None and known.version in (None, table.version):
            table.add_again(known.added)
            return known.fields
        table.begin_block()
        version = table.version
        fields = list(super().decode(data, raw))
        self._remember(bytes(data), fields, version)
        return fields

    def _remember(self, data: bytes, fields: list[Any], version: int) -> None:
        table = self.header_table
        if len(data) > MEMO_BLOCK_BYTES or table.resized_to is not None or (table.referred and table.added):
            return
        if len(self._known) >= MEMO_BLOCKS:
            self._known.clear()
        self._known[data] = _Known(fields, table.added, version if table.referred else None)


class MemoEncoder(hpack.Encoder):
    """hpack's encoder with a memory.

    Owned by the loop thread.
    """

    def __init__(self) -> None:
        super().__init__()
        self.header_table: _WatchedTable = _WatchedTable()
        self._known: dict[tuple[Any, ...], bytes] = {}
        self._version = 0

    @property
    def header_table_size(self) -> int:
        """See hpack."""
        return self.header_table.maxsize

    @header_table_size.setter
    def header_table_size(self, size_bytes: int) -> None:
        # Said before the next block: the smallest size since the last one, then the size that holds (RFC 7541 4.2).
        # hpack would say all of them, also what the peer has taken back by now, and none where the last one came twice.
        if size_bytes == self.header_table.maxsize:
            return
        self.header_table.maxsize = size_bytes
        smallest = min([*self.table_size_changes, size_bytes])
        self.table_size_changes = [smallest] if smallest == size_bytes else [smallest, size_bytes]

    def encode(self, headers: Any, huffman: bool = True) -> bytes:
        """See hpack."""
        table = self.header_table
        if table.version != self._version:
            self._known.clear()
            self._version = table.version
        key = tuple(headers)
        block = self._known.get(key)
        if block is None:
            # A block that begins with the table's new size says so once (RFC 7541 4.2).
            lasting = not table.resized and len(self._known) < MEMO_BLOCKS and _all_indexable(key)
            block = super().encode(key, huffman)
            if lasting and table.version == self._version:
                self._known[key] = block
        return block


def _all_indexable(fields: tuple[Any, ...]) -> bool:
    # Secrets are never kept: hpack's never-indexed tuples compare equal to plain ones. A third part marks one as well.
    return not any(isinstance(field, hpack.NeverIndexedHeaderTuple) or len(field) > 2 for field in fields)
