"""What goes beside a request's head and body: trailers, an expectation, who is told of 1xx responses."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from handoff_kit import WAIT_S, make_answer, make_exchange, make_head

from hyperpool.errors import LocalProtocolError
from hyperpool.handoff.body import Upload
from hyperpool.handoff.exchange import Exchange
from hyperpool.handoff.source import FedSource, Source, make_source, with_trailers
from hyperpool.protocol.events import Interim, RequestHead

HOLDING = RequestHead(b"POST", b"https", b"a.test", b"/x", (), 4, expects_continue=True)


def taken(source: Source) -> Upload:
    """The upload of a source, all of which was taken."""
    ready = threading.Event()
    upload = source.open(notify=ready.set, capacity_bytes=100)
    while not (piece := upload.take(100)).last:
        if not piece.data:
            assert ready.wait(WAIT_S)
            ready.clear()
    if piece.failure is not None:
        raise piece.failure
    return upload


def trailed(content: Any, given: Any) -> Source:
    return with_trailers(make_source(content), given)


class TestTrailers:
    @pytest.mark.parametrize("content", [b"body", [b"bo", b"dy"]], ids=["bytes", "pieces"])
    @pytest.mark.parametrize(
        "given", [{"X-A": "1"}, [("x-a", "1")], lambda: {"X-A": "1"}], ids=["map", "pairs", "call"]
    )
    def test_they_are_there_when_the_body_is_through(self, content: Any, given: Any) -> None:
        source = trailed(content, given)
        assert source.length_bytes is None
        assert taken(source).trailers == [(b"x-a", b"1")]

    def test_without_them_there_are_none(self) -> None:
        for content in (b"body", [b"body"]):
            source = make_source(content)
            assert source is not None and taken(source).trailers is None

    def test_an_exchange_has_those_of_its_upload(self) -> None:
        exchange = make_exchange(source=trailed(b"body", {"x": "1"}), head=make_head(None))
        body = exchange.request_body
        assert body is not None and body.trailers is None
        exchange.begin(1, 101.0)
        assert body.take(100, where=exchange.where).last and body.trailers == [(b"x", b"1")]

    @pytest.mark.parametrize("content", [b"body", [b"body"]], ids=["bytes", "pieces"])
    def test_what_is_no_trailer_is_refused_whoever_makes_it(self, content: Any) -> None:
        with pytest.raises(LocalProtocolError, match="head"):
            trailed(content, {"Host": "b"})
        with pytest.raises(LocalProtocolError, match="head"):
            taken(trailed(content, lambda: {"Host": "b"}))

    @pytest.mark.parametrize("make", [lambda: None, FedSource], ids=["no body", "a fed one"])
    def test_they_follow_a_body_that_is_given_whole(self, make: Callable[[], Any]) -> None:
        with pytest.raises(LocalProtocolError, match="needs a body"):
            trailed(make(), {"x": "1"})


class TestExpectations:
    """RFC 9110 10.1.1."""

    def held(self, source: Source) -> Exchange:
        exchange = make_exchange(source=source, head=HOLDING)
        exchange.begin(1, 101.0)
        exchange.request_body.starved = True
        return exchange

    def test_a_body_that_waits_is_not_opened_and_excuses_the_peer(self) -> None:
        exchange = self.held(FedSource(length_bytes=4))
        assert (exchange.request_body.upload, exchange.excused, exchange.replayable) == (None, True, True)

    def test_a_body_that_may_go_is_opened_and_the_clock_begins(self) -> None:
        exchange = self.held(FedSource(length_bytes=4))
        exchange.release_upload(107.0)
        assert exchange.request_body.upload is not None and not exchange.excused
        assert exchange.deadlines.touched_at == 107.0

    def test_who_feeds_a_body_that_is_refused_is_told_before_the_answer_is_whole(self) -> None:
        source = FedSource(length_bytes=4)
        exchange = self.held(source)
        exchange.request_body.refuse()
        assert not exchange.excused and not source.feed(b"body")

    def test_a_fed_body_that_nobody_wanted_cannot_go_out_later(self) -> None:
        """What its owner has fed is gone."""
        source = FedSource(length_bytes=4)
        exchange = self.held(source)
        exchange.answer(make_answer(403), 102.0)
        exchange.complete([], 103.0)
        assert not source.replayable and not source.feed(b"body")


class TestInterim:
    def test_nobody_is_told_who_did_not_ask(self) -> None:
        assert not make_exchange().inform(Interim(1, 103, []))

    def test_they_are_told_when_the_turn_ends_and_once(self) -> None:
        exchange, told = make_exchange(), []
        exchange.informational = lambda status, headers: told.append((status, headers["link"]))
        exchange.begin(1, 101.0)
        assert exchange.inform(Interim(1, 103, [(b"link", b"</a>")]))
        assert told == []
        for _ in range(2):
            exchange.settle()
        assert told == [(103, "</a>")]
        assert exchange.future is not None and not exchange.future.done()
