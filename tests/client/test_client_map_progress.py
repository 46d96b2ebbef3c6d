"""Client.map with progress: word of how many responses there were, for a callback or as a bar."""

from __future__ import annotations

import io
import sys
import threading
from typing import Any

import pytest
from client_support import H1_PLAIN, Kit, Wire

import hyperpool
from stage import WAIT_S


def urls(server: Any, n: int) -> list[str]:
    return [server.url(f"/bytes/{number}") for number in range(n)]


@pytest.mark.parametrize("ordered", [True, False])
def test_each_response_is_counted_before_it_is_given(kit: Kit, wire: Wire, ordered: bool) -> None:
    server, client = kit.pair(wire)
    told: list[tuple[int, int | None]] = []
    responses = client.map(urls(server, 20), ordered=ordered, progress=lambda *so_far: told.append(so_far))
    seen = [told[-1] for _ in responses]
    assert seen == [(n, 20) for n in range(1, 21)]
    assert told[0] == (0, 20)


def test_the_number_of_a_lazy_input_is_none_and_it_stays_lazy(kit: Kit) -> None:
    server, client = kit.pair(H1_PLAIN)
    told: list[tuple[int, int | None]] = []
    taken = []

    def lazy() -> Any:
        for url in urls(server, 50):
            taken.append(url)
            yield url

    responses = client.map(lazy(), max_in_flight=3, progress=lambda *so_far: told.append(so_far))
    next(responses)
    assert (told, len(taken) <= 4) == ([(0, None), (1, None)], True)
    assert len(list(responses)) == 49 and told[-1] == (50, None)


def test_leaving_early_cancels_what_is_under_way_and_takes_the_bar_away(
    kit: Kit, h2_wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stderr", io.StringIO())
    server, client = kit.pair(h2_wire)
    responses = client.map([server.url("/bytes/1"), server.url("/delay/60")], progress=True)
    next(responses)
    assert server.wait_until(lambda server: len(server.requests) == 2, WAIT_S)
    responses.close()
    assert server.wait_until(lambda server: any(one.reset_code == 8 for one in server.requests), WAIT_S)
    from hyperpool.policy import progress

    assert progress._board._users == 0


def test_an_error_is_raised_as_without_progress(kit: Kit, wire: Wire) -> None:
    server, client = kit.pair(wire)
    with pytest.raises(hyperpool.HyperpoolError):
        list(client.map([server.url("/bytes/1"), server.url("/fault/reset")], progress=lambda done, total: None))


def test_an_error_of_the_callback_is_raised(kit: Kit) -> None:
    server, client = kit.pair(H1_PLAIN)

    def stop(done: int, total: int | None) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        list(client.map(urls(server, 3), progress=stop))


@pytest.mark.parametrize("rich_is_there", [True, False])
def test_a_bar_counts_to_the_end(kit: Kit, monkeypatch: pytest.MonkeyPatch, rich_is_there: bool) -> None:
    stderr = io.StringIO()
    monkeypatch.setattr("sys.stderr", stderr)
    if not rich_is_there:
        monkeypatch.setitem(sys.modules, "rich.progress", None)
    server, client = kit.pair(H1_PLAIN)
    assert len(list(client.map(urls(server, 30), progress=True))) == 30
    shown = stderr.getvalue().rpartition("requests")[2]
    assert ("30/30" if rich_is_there else "30 of 30 (100 %)") in shown


@pytest.mark.slow
def test_thousands_of_requests_of_several_threads_are_counted_each_for_its_own(kit: Kit, wire: Wire) -> None:
    server, client = kit.pair(wire)
    told: dict[int, list[int]] = {}

    def run(_: int) -> int:
        def tell(done: int, total: int | None) -> None:
            told.setdefault(threading.get_ident(), []).append(done)

        return sum(1 for _ in client.map([server.url("/bytes/3")] * 500, progress=tell))

    with kit.threads(4) as threads:
        assert list(threads.map(run, range(4))) == [500] * 4
    assert sum(counts.count(500) for counts in told.values()) == 4
