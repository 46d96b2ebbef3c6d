"""Host names and what stands for them: A-labels, addresses, and the cache between us and getaddrinfo.

Lives here: `Resolver` and the two questions about a host name that others ask too. Must never come in: connecting.

getaddrinfo blocks for as long as it likes and cannot be interrupted. So it runs on a daemon thread of its own, one per
name however many ask (single flight), and whoever asks gets a Future: it may stop waiting at its deadline, and the
thread is left behind to fill the cache for the next one.

An entry is fresh for ``ttl_s``. After that the name is asked again, and if that fails for another reason than "there is
no such name", the old addresses serve on (RFC 8767): a resolver that is down for a minute stops no traffic.

A program may give a resolver of its own, to pin names or to judge addresses. It is asked for everything, addresses in
URLs too, and sockets connect to what it answered and to nothing else; what it refuses is not served from before.
"""

from __future__ import annotations

import ipaddress
import socket
import threading
import time
from collections import OrderedDict
from concurrent.futures import Future
from dataclasses import dataclass, replace
from itertools import islice, zip_longest
from typing import TYPE_CHECKING, Any, NamedTuple

from hyperpool.errors import HyperpoolError, InvalidURL, NameResolutionError
from hyperpool.handoff.inbox import until_there_is_memory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

# A name that does not resolve is asked again after this long. Long enough that a storm of requests for it makes one
# query per second; short enough that nobody restarts a program after repairing the name.
NEGATIVE_TTL_S = 1.0

# Names kept at once, least recently used out first: as many as `Limits.max_origins`, at about 1 KiB each.
MAX_NAMES = 1_024

# Taken of what a program's own resolver gives for one name, which may be a generator without an end. A dial begins with
# one in 250 ms: half as many would last for half a minute.
MAX_ADDRESSES = 256

_NO_SUCH_NAME = {socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)}

Key = tuple[str, int]


class Address(NamedTuple):
    """What `socket.socket(family)` can connect to. Immutable."""

    family: int
    sockaddr: Any

    def __str__(self) -> str:
        if isinstance(self.sockaddr, str):
            return self.sockaddr.replace("\0", "@")  # as ss and systemd write names in the abstract space
        host, port = self.sockaddr[:2]
        return f"[{host}]:{port}" if ":" in str(host) else f"{host}:{port}"


@dataclass(frozen=True, slots=True)
class _Entry:
    """The last answer for a name: addresses, or the error where there are none. Immutable."""

    addresses: tuple[Address, ...]
    error: HyperpoolError | None
    fresh_until_at: float

    def settle(self, waiting: Future[list[Address]]) -> Future[list[Address]]:
        if self.error is None:
            waiting.set_result(list(self.addresses))
        else:
            waiting.set_exception(self.error)
        return waiting


class Resolver:
    """Addresses of host names, remembered.

    Shared; guarded by _lock, which is held for dictionary operations only. ``getaddrinfo`` is by default the socket
    module's at the time of the question: programs replace it there to send names elsewhere. ``ask``: what a program
    gives in its place, which is called with (host, port).
    """

    def __init__(
        self,
        *,
        ttl_s: float = 60.0,
        getaddrinfo: Callable[..., Any] | None = None,
        ask: Callable[[str, int], Iterable[Any]] | None = None,
        clock: Callable[[], float] = time.monotonic,
        max_names: int = MAX_NAMES,
    ) -> None:
        self._ttl_s = ttl_s
        self._getaddrinfo = getaddrinfo
        self._own = ask
        self._clock = clock
        self._max_names = max_names
        self._lock = threading.Lock()
        self._entries: OrderedDict[Key, _Entry] = OrderedDict()
        self._flights: dict[Key, Future[list[Address]]] = {}

    def __repr__(self) -> str:
        return f"<Resolver names={len(self._entries)} asking={len(self._flights)}>"

    def resolve(self, host: str, port: int) -> list[Address]:
        """The addresses in the order in which to try them. Blocks as long as getaddrinfo does.

        Raises NameResolutionError, and what the program's own resolver raises of our errors.
        """
        try:
            return self.lookup(host, port).result()
        except HyperpoolError as error:
            raise error.own_copy() from error.__cause__

    def lookup(self, host: str, port: int) -> Future[list[Address]]:
        """The same as a Future, done already where the answer is known. Never blocks.

        Do not cancel it, and do not raise its exception itself but an `own_copy`: others may hold the same one.
        """
        if self._own is None and is_address(host):
            return _literal(host, port)
        key = (host, port)
        with self._lock:
            entry = self._fresh_locked(key)
            flight = self._flights.get(key)
            first = entry is None and flight is None
            if first:
                flight = self._flights[key] = Future()
        if entry is not None:
            return entry.settle(Future())
        assert flight is not None
        if first:
            self._start_asking(key)
        return flight

    def demote(self, host: str, port: int, address: Address) -> None:
        """Move an address that did not answer behind the others, until the name is asked again."""
        with self._lock:
            entry = self._entries.get((host, port))
            if entry is not None and address in entry.addresses:
                others = (other for other in entry.addresses if other != address)
                self._entries[host, port] = replace(entry, addresses=(*others, address))

    def _fresh_locked(self, key: Key) -> _Entry | None:
        entry = self._entries.get(key)
        if entry is None or entry.fresh_until_at <= self._clock():
            return None
        self._entries.move_to_end(key)
        return entry

    def _start_asking(self, key: Key) -> None:
        try:
            # Daemon: a resolver that never answers must not keep the interpreter alive.
            name = f"hyperpool resolve {key[0]}"
            threading.Thread(target=self._ask, args=(key,), name=name, daemon=True).start()
        except (RuntimeError, MemoryError) as error:
            # "can't start new thread": whoever waits for this flight must hear of it, and whoever asks next must not:
            # the name service has said nothing.
            until_there_is_memory(self._strand, key, error)

    def _strand(self, key: Key, error: BaseException) -> None:
        failure = _failure(key[0], error)
        with self._lock:
            flight = self._flights.pop(key, None)
        if flight is not None:  # else a thread runs all the same, and was faster
            flight.set_exception(failure)

    def _ask(self, key: Key) -> None:
        try:
            addresses = self._addresses(*key)
        except BaseException as error:
            # gaierror, UnicodeError for a label that is too long, and whatever code of the program may raise: a flight
            # that is never landed would hold up everybody who asks for this name, for ever.
            until_there_is_memory(self._land, key, (), error)
        else:
            until_there_is_memory(self._land, key, addresses, None)

    def _addresses(self, host: str, port: int) -> list[Address]:
        name = host if is_address(host) else ascii_name(host)
        if self._own is not None:
            given = islice(self._own(name, port), MAX_ADDRESSES)
            return list(dict.fromkeys(as_address(one, port) for one in given))
        ask = self._getaddrinfo or socket.getaddrinfo
        found = ask(name, port, type=socket.SOCK_STREAM)
        return interleave(Address(family, sockaddr) for family, _, _, _, sockaddr in found)

    def _land(self, key: Key, addresses: Sequence[Address], cause: BaseException | None) -> None:
        """Remember the answer and tell all who wait for it."""
        with self._lock:
            entry = self._answer_locked(key, tuple(addresses), cause)
            self._entries[key] = entry
            self._entries.move_to_end(key)
            while len(self._entries) > self._max_names:
                self._entries.popitem(last=False)
            flight = self._flights.get(key)
        if flight is not None and not flight.done():  # else it was stranded: this thread had seemed not to start
            entry.settle(flight)
        with self._lock:
            # After that: where there was no memory for it, this is done again. By now it may be the next one's.
            if flight is not None and self._flights.get(key) is flight:
                del self._flights[key]

    def _answer_locked(self, key: Key, addresses: tuple[Address, ...], cause: BaseException | None) -> _Entry:
        if addresses:
            return _Entry(addresses, None, self._clock() + self._ttl_s)
        ask_again_at = self._clock() + NEGATIVE_TTL_S
        if self._own is not None:
            return _Entry((), _refusal(key[0], cause), ask_again_at)
        stale = self._entries.get(key)
        if stale is not None and stale.addresses and not _no_such_name(cause):
            return _Entry(stale.addresses, None, ask_again_at)
        return _Entry((), _failure(key[0], cause), ask_again_at)


def is_address(host: str) -> bool:
    """An IP address, with or without brackets and zone."""
    try:
        ipaddress.ip_address(_bare(host))
    except ValueError:
        return False
    return True


def ascii_name(host: str) -> str:
    """The A-label form of a host name (RFC 5890 2.3.2.1). Raises InvalidURL where it has none."""
    if host.isascii():
        return host
    try:
        import idna

        # Never the stdlib's "idna" codec: it is IDNA 2003 and turns "straße" into another host.
        return idna.encode(host, std3_rules=True).decode("ascii")
    except (ImportError, UnicodeError) as error:
        raise InvalidURL(f"host name {host!r} has no ASCII form ({error}); give it in its xn-- form") from error


def tls_name(host: str) -> str:
    """What a certificate calls this host: an A-label without the final dot, or an address without its zone."""
    return _bare(host) if is_address(host) else ascii_name(host.lower()).removesuffix(".")


def as_address(given: Any, port: int) -> Address:
    """One address as a program's resolver gives it: str, ``ipaddress``, (address, port), or a tuple of getaddrinfo.

    Raises ValueError for a name and anything else, NameResolutionError for a zone that is not known here.
    """
    if isinstance(given, tuple) and len(given) == 5 and given[0] in (socket.AF_INET, socket.AF_INET6):
        return Address(given[0], given[4])
    host, port = given if isinstance(given, tuple) and len(given) == 2 else (given, port)
    if not is_address(str(host)):
        raise ValueError(f"{given!r} is no IP address, nor (address, port)")
    return _literal(str(host), port).result()[0]


def interleave(addresses: Iterable[Address]) -> list[Address]:
    """IPv6 and IPv4 in turns, IPv6 first (RFC 8305 4); within a family getaddrinfo's order, which is RFC 6724's."""
    unique = list(dict.fromkeys(addresses))
    six = [address for address in unique if address.family == socket.AF_INET6]
    others = [address for address in unique if address.family != socket.AF_INET6]
    return [address for pair in zip_longest(six, others) for address in pair if address is not None]


def _bare(host: str) -> str:
    """The host without brackets, and without its zone, which only IPv6 has (RFC 4007 11)."""
    bare = host.strip("[]")
    return bare.partition("%")[0] if ":" in bare else bare


def _literal(host: str, port: int) -> Future[list[Address]]:
    """An address needs no question, but a zone must be known to this machine (RFC 4007 11)."""
    bare, _, zone = host.strip("[]").partition("%")
    done: Future[list[Address]] = Future()
    if ":" not in bare:
        done.set_result([Address(socket.AF_INET, (bare, port))])
        return done
    try:
        scope = _scope_id(zone) if zone else 0
    except (OSError, ValueError) as error:
        failure = NameResolutionError(f"{host}: this machine has no network interface {zone!r}")
        failure.__cause__ = error
        done.set_exception(failure)
    else:
        done.set_result([Address(socket.AF_INET6, (bare, port, 0, scope))])
    return done


def _scope_id(zone: str) -> int:
    return int(zone) if zone.isdecimal() else socket.if_nametoindex(zone)


def _no_such_name(cause: BaseException | None) -> bool:
    return cause is None or (isinstance(cause, socket.gaierror) and cause.errno in _NO_SUCH_NAME)


def _refusal(host: str, cause: BaseException | None) -> HyperpoolError:
    """What the program's own resolver said in place of addresses."""
    if isinstance(cause, HyperpoolError):
        return cause
    why = "it gives no address" if cause is None else f"{type(cause).__name__}: {cause}".removesuffix(": ")
    error = NameResolutionError(f"host {host!r} is not resolved by the resolver of this client: {why}")
    error.__cause__ = cause
    return error


def _failure(host: str, cause: BaseException | None) -> NameResolutionError:
    words = getattr(cause, "strerror", None) or cause or "it has no address"
    hint = "check its spelling" if _no_such_name(cause) else "the name service may be down; try again"
    error = NameResolutionError(f"host name {host!r} cannot be resolved: {words}; {hint}")
    error.__cause__ = cause
    return error
