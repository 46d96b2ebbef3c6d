"""What a program is told while its requests go on: ``events=`` of clients and pools.

A hook is told of things, and changes nothing: what it raises is logged, and the request goes on. Where it runs is said
with each one; on an I/O thread and on the courier it must not block, as a done-callback must not (L4, L11).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

logger = logging.getLogger("hyperpool")

# Told of (status, headers) of each 1xx response.
Informational = Callable[[int, Any], object]

NAMES = ("request", "response", "retry", "resend", "connection_opened", "connection_closed")


class ConnectionInfo(NamedTuple):
    """One connection, as ``connection_opened`` and ``connection_closed`` tell of it: the same object both times.

    Immutable. ``http_version`` is "HTTP/2" or "HTTP/1.1"; ``address`` is what was connected to, a proxy's where there
    is one: host and port as a socket has them, or the path of a Unix socket. ``tls_version`` is None without TLS.
    ``spent_s``: the seconds that each phase of connecting took: "dns", "tcp", "proxy", "tls".
    """

    origin: str
    http_version: str
    address: Any
    tls_version: str | None
    spent_s: Mapping[str, float]


class Hooks:
    """The callables of a program that are to be told, by name; None for what nobody asked for.

    Immutable. Read from a mapping of names to callables or lists of them, or from the methods of these names that an
    object has. Raises TypeError for anything else.
    """

    __slots__ = (*NAMES, "__weakref__")

    request: Callable[[Any], object] | None
    response: Callable[[Any], object] | None
    retry: Callable[[Any, Any], object] | None
    resend: Callable[[Any, Any], object] | None
    connection_opened: Callable[[ConnectionInfo], object] | None
    connection_closed: Callable[[ConnectionInfo, BaseException | None], object] | None

    def __init__(self, given: Any) -> None:
        is_mapping = isinstance(given, Mapping)
        named = dict(given) if is_mapping else {name: getattr(given, name, None) for name in NAMES}
        if (unknown := set(named) - set(NAMES)) or not (is_mapping or any(named.values())):
            what = f"{sorted(unknown)}" if unknown else f"{given!r}"
            raise TypeError(f"events= takes {', '.join(NAMES)}, as a mapping or as methods of an object, not {what}")
        for name in NAMES:
            setattr(self, name, _as_one(named.get(name)))


def _as_one(hook: Any) -> Callable[..., object] | None:
    if hook is None or callable(hook):
        return hook  # type: ignore[no-any-return]
    hooks = tuple(hook) if hasattr(hook, "__iter__") else (hook,)
    if not all(callable(one) for one in hooks):
        raise TypeError(f"events= takes callables, not {hook!r}")

    def tell_all(*what: Any) -> None:
        for one in hooks:
            tell(one, *what)

    return tell_all if hooks else None


def as_hooks(given: Any) -> Hooks | None:
    """The hooks of what is given as ``events=``; None for none."""
    return None if given is None else Hooks(given)


def tell(hook: Callable[..., object] | None, *what: Any) -> None:
    """Call one, if it is there. Never raises: whoever only listens harms nobody."""
    if hook is None:
        return
    try:
        hook(*what)
    except BaseException:  # a SystemExit, too, must not end the thread that others depend on
        logger.exception("the event hook %r failed", hook)
