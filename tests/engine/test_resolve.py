"""The cache and the order of addresses, with a name service made of a dictionary and a clock that is moved by hand."""

from __future__ import annotations

import itertools
import socket
import threading
from concurrent.futures import Future
from typing import Any

import pytest

from hyperpool.engine.resolve import Address, Resolver, ascii_name, interleave, is_address, tls_name
from hyperpool.errors import InvalidURL, NameResolutionError
from hyperpool.handoff import inbox as inboxes

V4, V6 = socket.AF_INET, socket.AF_INET6


def four(host: str, port: int = 443) -> Address:
    return Address(V4, (host, port))


def six(host: str, port: int = 443) -> Address:
    return Address(V6, (host, port, 0, 0))


class Names:
    """A name service: answers by host, a count of questions, a clock."""

    def __init__(self, **answers: Any) -> None:
        self.answers: dict[str, Any] = {name.replace("_", "."): answer for name, answer in answers.items()}
        self.asked: list[str] = []
        self.now = 100.0

    def clock(self) -> float:
        return self.now

    def getaddrinfo(self, host: str, port: int, **_: Any) -> list[Any]:
        self.asked.append(host)
        answer = self.answers[host]
        if isinstance(answer, Exception):
            raise answer
        return [(V6 if ":" in ip else V4, 1, 6, "", (ip, port, 0, 0) if ":" in ip else (ip, port)) for ip in answer]

    def resolver(self, **more: Any) -> Resolver:
        return Resolver(ttl_s=60.0, getaddrinfo=self.getaddrinfo, clock=self.clock, **more)


GONE = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
DOWN = socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")


def test_an_answer_is_remembered_until_its_time_is_over() -> None:
    names = Names(a_test=["192.0.2.1"])
    resolver = names.resolver()
    assert resolver.resolve("a.test", 443) == resolver.resolve("a.test", 443) == [four("192.0.2.1")]
    names.now += 59.9
    resolver.resolve("a.test", 443)
    assert names.asked == ["a.test"]
    names.now += 0.1
    resolver.resolve("a.test", 443)
    assert names.asked == ["a.test"] * 2


def test_a_name_that_does_not_exist_is_remembered_for_a_second() -> None:
    names = Names(a_test=GONE)
    resolver = names.resolver()
    errors = []
    for _ in range(2):
        with pytest.raises(NameResolutionError, match="'a.test' cannot be resolved: Name.*spelling") as caught:
            resolver.resolve("a.test", 443)
        errors.append(caught.value)
    assert errors[0] is not errors[1] and errors[0].__cause__ is GONE
    assert len(names.asked) == 1
    names.now += 1
    names.answers["a.test"] = ["192.0.2.1"]
    assert resolver.resolve("a.test", 443) == [four("192.0.2.1")]


def test_old_addresses_serve_while_the_name_service_is_down() -> None:
    names = Names(a_test=["192.0.2.1"])
    resolver = names.resolver()
    resolver.resolve("a.test", 443)
    names.now += 60
    names.answers["a.test"] = DOWN
    assert resolver.resolve("a.test", 443) == [four("192.0.2.1")]
    resolver.resolve("a.test", 443)
    assert len(names.asked) == 2
    names.now += 1
    resolver.resolve("a.test", 443)
    assert len(names.asked) == 3


@pytest.mark.parametrize("answer", [GONE, []])
def test_old_addresses_do_not_serve_once_the_name_is_gone(answer: Any) -> None:
    names = Names(a_test=["192.0.2.1"])
    resolver = names.resolver()
    resolver.resolve("a.test", 443)
    names.now += 60
    names.answers["a.test"] = answer
    with pytest.raises(NameResolutionError):
        resolver.resolve("a.test", 443)


@pytest.mark.parametrize("error", [DOWN, UnicodeError("label too long"), ValueError("embedded null"), KeyError("x")])
def test_whatever_getaddrinfo_raises_is_a_name_resolution_error(error: Exception) -> None:
    with pytest.raises(NameResolutionError) as caught:
        Names(a_test=error).resolver().resolve("a.test", 443)
    assert caught.value.__cause__ is error


@pytest.mark.parametrize("refusal", [RuntimeError("can't start new thread"), MemoryError()])
def test_a_thread_that_cannot_be_started_is_a_name_resolution_error(
    monkeypatch: pytest.MonkeyPatch, refusal: BaseException
) -> None:
    def refuse(_: threading.Thread) -> None:
        raise refusal

    resolver = Names(a_test=["192.0.2.1"]).resolver()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        flight = resolver.lookup("a.test", 443)
    assert isinstance(flight.exception(timeout=0), NameResolutionError)
    assert resolver.resolve("a.test", 443), "nobody waits for a thread that is not there"


def test_a_thread_that_runs_although_its_start_failed_is_no_trouble(monkeypatch: pytest.MonkeyPatch) -> None:
    start = threading.Thread.start

    def start_and_fail(thread: threading.Thread) -> None:
        start(thread)
        thread.join(30)
        raise MemoryError

    resolver = Names(a_test=["192.0.2.1"]).resolver()
    monkeypatch.setattr(threading.Thread, "start", start_and_fail)
    assert resolver.lookup("a.test", 443).result(timeout=0)
    assert not resolver._flights


def test_who_lands_takes_no_later_flight_away() -> None:
    """Two threads ask where the first one had seemed not to start; nobody would land what one of them took away."""
    resolver, later = Names(a_test=["192.0.2.1"]).resolver(), Future[Any]()
    key = ("a.test", 443)
    flight = resolver._flights[key] = Future()
    flight.add_done_callback(lambda _: resolver._flights.update({key: later}))
    resolver._ask(key)
    assert flight.done() and resolver._flights == {key: later}


@pytest.mark.parametrize("at", [1, 2, 3])
def test_an_answer_is_told_once_there_is_memory_for_it(monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    """Else all who ask for this name would wait for it, now and later."""
    monkeypatch.setattr(inboxes, "MEMORY_AGAIN_S", 0.0)
    resolver = Names(a_test=["192.0.2.1"]).resolver()
    clock, calls = resolver._clock, itertools.count(1)

    def short_of_memory() -> float:
        if next(calls) <= at:
            raise MemoryError
        return clock()

    flight = resolver._flights["a.test", 443] = Future()
    monkeypatch.setattr(resolver, "_clock", short_of_memory)
    resolver._ask(("a.test", 443))
    assert flight.result(timeout=0)
    assert not resolver._flights


@pytest.mark.parametrize("host", ["127.0.0.1%20", "127.0.0.1%eth0"])
def test_only_ipv6_has_zones(host: str) -> None:
    """RFC 4007 11. Else the address would be taken, and the rest of the name forgotten."""
    assert not is_address(host)
    assert is_address("fe80::1%eth0") and tls_name("fe80::1%eth0") == "fe80::1"


def test_all_who_ask_at_once_share_one_question() -> None:
    names, go = Names(a_test=["192.0.2.1"]), threading.Event()

    def slow(host: str, port: int, **more: Any) -> list[Any]:
        go.wait()
        return names.getaddrinfo(host, port, **more)

    resolver = Resolver(getaddrinfo=slow)
    flights = [resolver.lookup("a.test", 443) for _ in range(5)]
    assert not flights[0].done() and repr(resolver) == "<Resolver names=0 asking=1>"
    go.set()
    assert [flight.result() for flight in flights] == [[four("192.0.2.1")]] * 5
    assert names.asked == ["a.test"]


def test_a_known_name_is_answered_at_once() -> None:
    resolver = Names(a_test=["192.0.2.1"]).resolver()
    resolver.resolve("a.test", 443)
    assert resolver.lookup("a.test", 443).done()


def test_the_least_recently_used_name_is_forgotten_first() -> None:
    names = Names(a=["192.0.2.1"], b=["192.0.2.2"], c=["192.0.2.3"])
    resolver = names.resolver(max_names=2)
    for host in ("a", "b", "a", "c", "a", "b"):
        resolver.resolve(host, 443)
    assert names.asked == ["a", "b", "c", "b"]


def test_families_take_turns_and_ipv6_goes_first() -> None:
    given = [four("1.1.1.1"), four("2.2.2.2"), four("1.1.1.1"), four("3.3.3.3"), six("::1"), six("::2")]
    wanted = [six("::1"), four("1.1.1.1"), six("::2"), four("2.2.2.2"), four("3.3.3.3")]
    assert interleave(given) == wanted


def test_a_failed_address_goes_behind_the_others() -> None:
    names = Names(a_test=["192.0.2.1", "::1", "192.0.2.2"])
    resolver = names.resolver()
    resolver.demote("a.test", 443, six("::1"))  # not known yet: nothing happens
    assert resolver.resolve("a.test", 443) == [six("::1"), four("192.0.2.1"), four("192.0.2.2")]
    resolver.demote("a.test", 443, six("::1"))
    resolver.demote("a.test", 443, four("192.0.2.9"))
    assert resolver.resolve("a.test", 443) == [four("192.0.2.1"), four("192.0.2.2"), six("::1")]


def test_a_callers_list_is_its_own() -> None:
    resolver = Names(a_test=["192.0.2.1"]).resolver()
    resolver.resolve("a.test", 443).clear()
    assert resolver.resolve("a.test", 443) == [four("192.0.2.1")]


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("192.0.2.1", Address(V4, ("192.0.2.1", 80))),
        ("2001:db8::1", Address(V6, ("2001:db8::1", 80, 0, 0))),
        ("[::1]", Address(V6, ("::1", 80, 0, 0))),
        ("fe80::1%3", Address(V6, ("fe80::1", 80, 0, 3))),
        ("fe80::1%254", Address(V6, ("fe80::1", 80, 0, 254))),
        ("fe80::1%lo", Address(V6, ("fe80::1", 80, 0, socket.if_nametoindex("lo")))),
    ],
)
def test_an_address_is_not_asked_for(host: str, address: Address) -> None:
    names = Names()
    assert names.resolver().resolve(host, 80) == [address]
    assert names.asked == []


def test_a_zone_that_this_machine_does_not_have_is_named() -> None:
    with pytest.raises(NameResolutionError, match="no network interface 'nowhere0'"):
        Resolver().resolve("fe80::1%nowhere0", 80)


def test_addresses_read_as_people_write_them() -> None:
    assert (str(four("192.0.2.1")), str(six("::1", 80))) == ("192.0.2.1:443", "[::1]:80")


@pytest.mark.parametrize("host", ["1.2.3.4", "[::1]", "fe80::1%eth0"])
def test_an_address_is_an_address_with_brackets_and_zone_too(host: str) -> None:
    assert is_address(host)


@pytest.mark.parametrize("host", ["a.test", "1.2", "", "256.1.1.1"])
def test_anything_else_is_a_name(host: str) -> None:
    assert not is_address(host)


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("A.test.", "a.test"),
        ("Straße.test", "xn--strae-oqa.test"),
        ("[::1]", "::1"),
        ("fe80::1%eth0", "fe80::1"),
        ("under_score.test", "under_score.test"),
    ],
)
def test_the_name_that_a_certificate_must_carry(host: str, name: str) -> None:
    assert tls_name(host) == name


def test_a_name_in_another_script_is_asked_for_in_ascii() -> None:
    names = Names()
    names.answers["xn--bcher-kva.test"] = ["192.0.2.1"]
    assert names.resolver().resolve("bücher.test", 443) == [four("192.0.2.1")]


def test_a_name_without_ascii_form_is_an_invalid_url() -> None:
    with pytest.raises(InvalidURL, match="xn--"):
        ascii_name("☃\u2044.test")
