"""What callers write, turned into the parts of a request: verbs, headers, parameters, bodies. Pure functions.

Header sets are immutable tuples of pairs here, so that a request under way never sees a change of the client's.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, Union

from hyperpool import arguments
from hyperpool._version import __version__
from hyperpool.errors import InvalidURL, LocalProtocolError
from hyperpool.values import HeadersLike

Params = Union[Mapping[str, Any], Iterable["tuple[str, Any]"], str, bytes, None]
Pairs = list[tuple[Any, Any]]
Headers = tuple[tuple[str, str], ...]

_ABSOLUTE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://").match  # RFC 3986 3.1


def verb(method: str) -> str:
    """The method in upper case. Raises LocalProtocolError."""
    if not isinstance(method, str):
        raise LocalProtocolError(f"the method must be str, not {type(method).__name__}")
    # ASCII alone: the upper case of "\u0131" is "I", and what is no token must not become one here.
    return method.upper() if method.isascii() else method


# -- headers -----------------------------------------------------------------------------------------------------------


def default_headers() -> Headers:
    """What every request says unless it is told otherwise."""
    from hyperpool.protocol.content import accept_encoding

    return (
        ("User-Agent", f"hyperpool/{__version__}"),
        ("Accept", "*/*"),
        ("Accept-Encoding", accept_encoding()),
    )


def merged(under: Headers, over: HeadersLike) -> Headers:
    """Header fields of both; a name in ``over`` replaces that name in ``under``, and None as its value removes it."""
    if over is None:
        return under
    given = pairs(over)
    named = {name.lower() for name, _ in given}
    kept = tuple(pair for pair in under if pair[0].lower() not in named)
    return kept + tuple((name, text(value)) for name, value in given if value is not None)


def pairs(given: HeadersLike) -> list[tuple[str, Any]]:
    """What a caller gives as headers, as pairs; None as a value stays, since it removes a field of the client's."""
    return [] if given is None else [(text(name), value) for name, value in arguments.pairs("headers", given)]


def names(headers: Headers, wanted: str) -> bool:
    """Whether a field of this name, in lower case, is among them."""
    return any(name.lower() == wanted for name, _ in headers)


def announcing(headers: Headers, trailers: Any) -> Headers:
    """The headers of a request with trailers, which are named before where that is possible (RFC 9110 6.6.2).

    Raises LocalProtocolError where they declare a length: what follows a body is sent in chunks (RFC 9112 7.1.2).
    """
    if names(headers, "content-length"):
        raise LocalProtocolError(
            "trailers= needs a body without Content-Length: leave that header out (RFC 9112 7.1.2)"
        )
    if callable(trailers) or not trailers or names(headers, "trailer"):
        return headers
    return (*headers, ("Trailer", ", ".join(dict.fromkeys(text(name) for name, _ in trailers))))


def without(headers: Headers, unwanted: frozenset[str]) -> Headers:
    """The fields but for those of these names, which are in lower case."""
    return tuple(pair for pair in headers if pair[0].lower() not in unwanted)


def text(given: Any) -> str:
    """A header name or value as str. Raises LocalProtocolError for what is neither str, bytes nor int."""
    if isinstance(given, str):
        return str.__str__(given)  # what an Enum of str stands for, not the name of its member
    if isinstance(given, bytes):
        return given.decode("latin-1")
    if isinstance(given, int) and not isinstance(given, bool):
        return str(given)
    raise LocalProtocolError(f"a header name or value must be str or bytes, not {type(given).__name__}")


# -- the URL -----------------------------------------------------------------------------------------------------------


def full_url(url: str, base_url: str, own_params: Params, params: Params) -> str:
    """The URL to ask for: below ``base_url`` where it is relative, with the parameters of both, the call's by name."""
    if not isinstance(url, str):
        raise InvalidURL(f"a URL must be str, not {type(url).__name__}")
    if base_url and not _ABSOLUTE(url):
        url = f"{base_url.rstrip('/')}/{url.lstrip('/')}"
    if own_params is None and params is None:
        return url
    own, of_call = _query(own_params), _query(params)
    if not isinstance(own, str) and not isinstance(of_call, str):
        named = {name for name, _ in of_call}
        own = [pair for pair in own if pair[0] not in named]
    return _with_query(_with_query(url, own), of_call)


def lasting(params: Params) -> Params:
    """Parameters that serve every request: what can be read only once is read here."""
    if params is None or isinstance(params, (str, bytes)):
        return params
    pairs = _pairs(params)
    if not isinstance(params, Iterator) and not any(isinstance(value, Iterator) for _, value in pairs):
        return params  # the caller's own object, which may be changed later
    return [(name, list(value) if isinstance(value, Iterator) else value) for name, value in pairs]


def _query(params: Params) -> str | Pairs:
    """A ready query string as str; else pairs in their order. None as a value stays: it removes one of the client's."""
    if isinstance(params, bytes):
        from string import punctuation
        from urllib.parse import quote

        return quote(params, safe=punctuation)  # bytes that are not ASCII go out as they are, percent-encoded
    return str(arguments.plain(params)) if isinstance(params, str) else _pairs(params)


def _pairs(params: Any) -> Pairs:
    return [] if params is None else arguments.pairs("params", params)


def _with_query(url: str, given: str | Pairs) -> str:
    query = given if isinstance(given, str) else _urlencoded(given)
    if not query:
        return url
    bare, hash_mark, fragment = url.partition("#")
    separator = "&" if "?" in bare else "?"
    return f"{bare}{separator}{query}{hash_mark}{fragment}"


# -- the body ----------------------------------------------------------------------------------------------------------


def body(content: Any, data: Any, json: Any, files: Any) -> tuple[Any, str | None]:
    """The content to send and the type to declare for it. Raises LocalProtocolError for what contradicts itself."""
    if files is not None and (parts := arguments.pairs("files", files)):
        return _multipart(content, data, json, parts)
    if json is not None and data is not None and not data:
        data = None  # an empty form says nothing, as in requests and httpx
    if (content is not None) + (data is not None) + (json is not None) > 1:
        raise LocalProtocolError("give one of content, data and json, not several")
    if json is not None:
        return _json(json), "application/json"
    if is_form(data):
        return _urlencoded(arguments.pairs("data", data)).encode(), "application/x-www-form-urlencoded"
    return (data, None) if content is None else (content, None)


def _json(given: Any) -> bytes:
    import json

    try:
        return json.dumps(given, separators=(",", ":"), allow_nan=False).encode()
    except (TypeError, ValueError) as error:
        # One of the two, not the error's own class: a value's may have to be made in another way.
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"json= cannot be sent: {error}") from error


def _urlencoded(fields: Pairs) -> str:
    from urllib.parse import urlencode

    return urlencode(list(_fields(fields)))


def is_form(data: Any) -> bool:
    """Whether ``data`` is form fields: a mapping, or pairs."""
    if data is None or isinstance(data, (str, bytes)):
        return False  # at once: a look at an abstract class takes longer than all the rest of `body`
    return isinstance(data, Mapping) or (
        isinstance(data, (list, tuple)) and all(isinstance(one, tuple) for one in data)
    )


def _multipart(content: Any, data: Any, json: Any, files: Pairs) -> tuple[Any, str]:
    from hyperpool.policy.multipart import Multipart

    if content is not None or json is not None:
        raise LocalProtocolError("files= makes the whole body: give form fields as data=, and neither content nor json")
    if data is not None and not is_form(data):
        raise LocalProtocolError("beside files=, data= must be form fields: a mapping or (name, value) pairs")
    fields = [] if data is None else list(_fields(arguments.pairs("data", data)))
    made = Multipart(fields, files)
    return made, made.content_type


def _fields(data: Pairs) -> Iterator[tuple[Any, Any]]:
    """Form fields one by one; a collection or an iterator as a value is a field of that name for each of its entries.

    None is no field.
    """
    for name, value in data:
        entries = value if _is_several(value) else (value,)
        yield from ((arguments.plain(name), arguments.plain(one)) for one in entries if one is not None)


def _is_several(value: Any) -> bool:
    # Not whatever can be iterated over: an ip_network can, and is one value all the same.
    if isinstance(value, (str, bytes, bytearray, memoryview, Mapping)):
        return False
    return isinstance(value, (Iterator, Collection))
