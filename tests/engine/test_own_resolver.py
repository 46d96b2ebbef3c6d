"""A resolver that the program gives: what it may answer, and that it has the last word."""

from __future__ import annotations

import ipaddress
import socket
from typing import Any

import pytest

from hyperpool.engine.resolve import Address, Resolver, as_address
from hyperpool.errors import HyperpoolError, NameResolutionError

V4, V6 = socket.AF_INET, socket.AF_INET6


class Own:
    """A program's resolver with a clock that is moved by hand."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer
        self.asked: list[tuple[str, int]] = []
        self.now = 100.0
        self.resolver = Resolver(ttl_s=60.0, ask=self, clock=lambda: self.now)

    def __call__(self, host: str, port: int) -> Any:
        self.asked.append((host, port))
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer


@pytest.mark.parametrize(
    ("given", "address"),
    [
        ("192.0.2.1", Address(V4, ("192.0.2.1", 80))),
        ("2001:db8::1", Address(V6, ("2001:db8::1", 80, 0, 0))),
        (ipaddress.ip_address("192.0.2.1"), Address(V4, ("192.0.2.1", 80))),
        (("192.0.2.1", 8080), Address(V4, ("192.0.2.1", 8080))),
        ((V6, 1, 6, "", ("2001:db8::1", 8080, 0, 0)), Address(V6, ("2001:db8::1", 8080, 0, 0))),
    ],
    ids=["IPv4", "IPv6", "ipaddress", "with a port", "getaddrinfo"],
)
def test_an_address_has_five_forms(given: Any, address: Address) -> None:
    assert as_address(given, 80) == address


@pytest.mark.parametrize(
    "given", ["a.test", "", 5.5, None, ("a.test", 80), (1, 2, 3), (socket.AF_UNIX, 1, 0, "", "/run/app.sock")], ids=repr
)
def test_all_else_is_none(given: Any) -> None:
    with pytest.raises(ValueError, match="no IP address"):
        as_address(given, 80)


def test_the_order_is_the_resolvers_and_what_it_says_twice_counts_once() -> None:
    own = Own(["192.0.2.2", "2001:db8::1", "192.0.2.1", "192.0.2.2"])
    found = own.resolver.resolve("a.test", 80)
    assert [address.sockaddr[0] for address in found] == ["192.0.2.2", "2001:db8::1", "192.0.2.1"]


def test_its_answer_is_kept_as_one_of_dns() -> None:
    own = Own(["192.0.2.1"])
    for _ in range(3):
        own.resolver.resolve("a.test", 80)
    own.now += 60.0
    own.resolver.resolve("a.test", 80)
    assert own.asked == [("a.test", 80)] * 2


def test_it_is_asked_for_addresses_and_by_the_name_that_dns_would_see() -> None:
    own = Own(["192.0.2.1"])
    for host in ("192.0.2.9", "2001:db8::9", "bücher.test"):
        own.resolver.resolve(host, 80)
    assert [host for host, _ in own.asked] == ["192.0.2.9", "2001:db8::9", "xn--bcher-kva.test"]


@pytest.mark.parametrize("fault", [ValueError("private"), OSError("down"), SystemExit(), NameResolutionError("mine")])
def test_what_it_refuses_is_not_served_from_before(fault: BaseException) -> None:
    """Unlike DNS that is down (RFC 8767): a guard that says no must be believed."""
    own = Own(["192.0.2.1"])
    own.resolver.resolve("a.test", 80)
    own.now += 60.0
    own.answer = fault
    with pytest.raises(NameResolutionError) as caught:
        own.resolver.resolve("a.test", 80)
    assert caught.value is not fault
    assert isinstance(fault, HyperpoolError) or caught.value.__cause__ is fault


def test_a_name_for_which_it_has_no_address_is_asked_again_after_a_second() -> None:
    own = Own([])
    with pytest.raises(NameResolutionError, match="no address"):
        own.resolver.resolve("a.test", 80)
    own.answer, own.now = ["192.0.2.1"], own.now + 1.0
    assert own.resolver.resolve("a.test", 80)


def test_an_address_of_a_unix_socket_is_shown_as_its_path() -> None:
    assert [str(Address(socket.AF_UNIX, path)) for path in ("/run/app.sock", "\0name")] == ["/run/app.sock", "@name"]
