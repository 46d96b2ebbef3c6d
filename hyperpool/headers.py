"""HTTPHeaderMap: header fields as hyper hands them out.

A list of (name, value) pairs of bytes in the order of the wire, which can be asked by name. What was put in comes out
again unchanged by `iter_raw`; everything else shows the fields in their canonical form: names in lower case, a list of
values split at its commas, where the comma stands between values.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from typing import Any, Union

Text = Union[str, bytes]
Pair = tuple[bytes, bytes]
MapLike = Union["HTTPHeaderMap", Mapping[Any, Any], Iterable["tuple[Any, Any]"]]

# Fields whose value is one value, whatever commas it has (RFC 9110 5.3 and 5.6.1; RFC 6265 3 for Set-Cookie), and those
# that are JSON: Report-To and NEL.
_NEVER_SPLIT = frozenset(
    b"set-cookie set-cookie2 cookie date expires last-modified if-modified-since if-unmodified-since retry-after sunset"
    b" authorization proxy-authorization www-authenticate proxy-authenticate user-agent server location"
    b" content-location referer content-disposition report-to nel".split()
)

_QUOTES = re.compile(rb'[,"\\]')
_BRACKETS = re.compile(rb'[,"\\<>()]')
# By which octet ends what this one begins: quoted strings (RFC 9110 5.6.4), comments, which nest (5.6.5), inner lists
# (RFC 9651 3.1.1), URIs in Link (RFC 8288 3). Then what may begin within each, and outside of all.
_END = {b'"': b'"', b"(": b")", b"<": b">"}
_MAY_BEGIN = {b"": b'"(<', b")": b'"(', b'"': b"", b">": b""}
# "Sun, 06 Nov 1994" and "Sunday, 06-Nov-94" (RFC 9110 5.6.7): dates also stand in fields that nobody has listed.
_WEEKDAY = re.compile(rb"\b(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)(?:day|sday|nesday|rsday|urday)?$")
_DAY_BEGINS = re.compile(rb" ?[0-9]")


class HTTPHeaderMap:
    """Header fields: ordered, repeatable, case-insensitive; bytes out, whatever went in.

    Not shared: one thread at a time changes it. str is encoded as UTF-8; anything but str and bytes is a ValueError.
    ``map[name]`` is the list of a name's values, and setting it appends one. Asking takes time in proportion to the
    number of fields.
    """

    __hash__ = None  # type: ignore[assignment]

    def __init__(self, *given: MapLike, **named: Text) -> None:
        self._items: list[Pair] = []
        for each in given:
            self.merge(each)
        self.merge(named)

    # -- by name ---------------------------------------------------------------------------------------------------

    def __getitem__(self, name: Text) -> list[bytes]:
        wanted = _octets(name).lower()
        values = [value for key, value in self if key == wanted]
        if not values:
            raise KeyError(name)
        return values

    def __setitem__(self, name: Text, value: Text) -> None:
        self._items.append((_octets(name), _octets(value)))

    def __delitem__(self, name: Text) -> None:
        if name not in self:
            raise KeyError(name)
        wanted = _octets(name).lower()
        self._items = [pair for pair in self._items if pair[0].lower() != wanted]

    def __contains__(self, name: object) -> bool:
        if not isinstance(name, (str, bytes)):
            return False
        wanted = _octets(name).lower()
        return any(key.lower() == wanted for key, _ in self._items)

    def get(self, name: Text, default: Any = None) -> Any:
        """The list of a name's values, or the default."""
        try:
            return self[name]
        except KeyError:
            return default

    def pop(self, name: Text, *default: Any) -> Any:
        """The list of a name's values, which are gone then; the default, or KeyError, where there is none."""
        if name not in self and default:
            return default[0]
        values = self[name]
        del self[name]
        return values

    def setdefault(self, name: Text, value: Text) -> list[bytes]:
        """The list of a name's values; with this one, where there was none."""
        if name not in self:
            self[name] = value
        return self[name]

    def replace(self, name: Text, value: Text) -> None:
        """Put this value in the place of the name's first one, and drop its others; at the end where it is new."""
        wanted = _octets(name).lower()
        at = next((place for place, (key, _) in enumerate(self._items) if key.lower() == wanted), len(self._items))
        kept = [pair for pair in self._items[at:] if pair[0].lower() != wanted]
        self._items[at:] = [(_octets(name), _octets(value)), *kept]

    # -- all of it -------------------------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[Pair]:
        for name, value in self._items:
            lower = name.lower()
            for part in _split(lower, value):
                yield lower, part

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def items(self) -> Iterator[Pair]:
        """(name, value) pairs in canonical form, one for each value."""
        return iter(self)

    def keys(self) -> Iterator[bytes]:
        """The name of each pair: as often as it has values."""
        return (name for name, _ in self)

    def values(self) -> Iterator[bytes]:
        """The value of each pair."""
        return (value for _, value in self)

    def iter_raw(self) -> Iterator[Pair]:
        """(name, value) pairs as they were put in."""
        return iter(list(self._items))

    def merge(self, other: MapLike) -> None:
        """Append all fields of another map, of a mapping, or of pairs; nothing happens with the map itself."""
        if other is not self:
            self._items += [(_octets(name), _octets(value)) for name, value in raw_pairs(other)]

    def update(self, *others: MapLike, **named: Text) -> None:
        """`merge` with each."""
        for other in (*others, named):
            self.merge(other)

    def copy(self) -> HTTPHeaderMap:
        """Another map with the same fields."""
        return HTTPHeaderMap(self)

    __copy__ = copy

    def popitem(self) -> Pair:
        """Take the last field away, as it was put in; KeyError where there is none."""
        if not self._items:
            raise KeyError("this header map is empty")
        return self._items.pop()

    def clear(self) -> None:
        """Take all fields away."""
        self._items.clear()

    def __eq__(self, other: object) -> bool:
        return self._items == other._items if isinstance(other, HTTPHeaderMap) else NotImplemented

    def __repr__(self) -> str:
        return f"HTTPHeaderMap({self._items!r})"


MutableMapping.register(HTTPHeaderMap)


def raw_pairs(headers: MapLike | None) -> list[tuple[Any, Any]]:
    """The pairs of whatever holds headers, as they stand there. Raises ValueError for what holds none."""
    if headers is None:
        return []
    if isinstance(headers, HTTPHeaderMap):
        return list(headers.iter_raw())
    pairs = headers.items() if isinstance(headers, Mapping) else headers
    try:
        return [(name, value) for name, value in pairs]
    except TypeError:
        raise ValueError(f"headers must be a mapping or (name, value) pairs, not {headers!r}") from None


def _octets(text: object) -> bytes:
    if isinstance(text, str):
        return text.encode()
    if isinstance(text, bytes):
        return text
    raise ValueError(f"a header name or value must be str or bytes, not {type(text).__name__}")


def _split(lower: bytes, value: bytes) -> list[bytes]:
    if b"," not in value or lower in _NEVER_SPLIT:
        return [value]
    ends = [*_commas(value), len(value)]
    starts = [0, *(end + 1 for end in ends[:-1])]
    return [value[start:end].strip() for start, end in zip(starts, ends, strict=True)]


def _commas(value: bytes) -> list[int]:
    """Where the commas stand that separate values: none in strings, brackets and comments, none in a date."""
    # What nobody closes is no bracket, and no quoted string: then each comma counts, as in hyper.
    for marks in (_BRACKETS, _QUOTES):
        found = _outside(value, marks)
        if found is not None:
            return found
    return [at for at, octet in enumerate(value) if octet == 0x2C]


def _outside(value: bytes, marks: re.Pattern[bytes]) -> list[int] | None:
    """Where the commas stand outside of all that these marks begin and end; None where something does not end."""
    found: list[int] = []
    ends: list[bytes] = []
    escaped_at = -1
    for mark in marks.finditer(value):
        at, octet = mark.start(), mark[0]
        end = ends[-1] if ends else b""
        if at == escaped_at:
            continue
        if octet == b"\\":
            escaped_at = at + 1 if end in (b'"', b")") else -1
        elif octet == end:
            ends.pop()
        elif octet in _MAY_BEGIN[end]:
            ends.append(_END[octet])
        elif octet == b"," and not ends and not _in_date(value, at):
            found.append(at)
    return None if ends else found


def _in_date(value: bytes, comma_at: int) -> bool:
    return bool(_WEEKDAY.search(value, max(0, comma_at - 9), comma_at) and _DAY_BEGINS.match(value, comma_at + 1))
