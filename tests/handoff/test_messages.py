"""Messages to a loop: values that compare by what they say, and show it."""

from __future__ import annotations

from typing import Any

import pytest

from hyperpool.handoff.messages import (
    Cancel,
    Close,
    Connect,
    Consumed,
    Dialed,
    DialFailed,
    Drain,
    Message,
    Ping,
    Prewarm,
    Retire,
    Submit,
    UploadReady,
)


def test_messages_are_equal_where_class_and_content_are() -> None:
    assert Ping(b"12345678") == Ping(b"12345678")
    assert Ping(b"12345678") != Ping(b"87654321")
    assert Retire() == Retire()


def test_messages_of_two_classes_differ_whatever_they_say() -> None:
    exchange = object()
    assert Submit(exchange) != Cancel(exchange)  # type: ignore[arg-type]
    assert Ping(b"12345678") != b"12345678"


def test_a_message_shows_what_it_says() -> None:
    assert repr(Close(1.5, code=2)) == "Close(grace_at=1.5, code=2)"
    assert repr(Consumed("x", 3)) == "Consumed(exchange='x', body_bytes=3)"  # type: ignore[arg-type]


def test_a_message_has_no_room_for_anything_else() -> None:
    assert not hasattr(Submit(object()), "__dict__")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (Submit, {"exchange": 1}),
        (Cancel, {"exchange": 1}),
        (Consumed, {"exchange": 1, "body_bytes": 2}),
        (UploadReady, {"exchange": 1}),
        (Prewarm, {"connections": 3}),
        (Connect, {"connected": 1, "deadline_at": 2.0, "timeout_s": 1.0}),
        (Ping, {"payload": b"12345678"}),
        (Dialed, {"dialed": 1}),
        (DialFailed, {"error": ValueError("x")}),
        (Retire, {}),
        (Drain, {"answered": print}),
        (Close, {"grace_at": 1.0, "code": 2}),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_message_says_what_it_was_made_with(kind: type[Message], said: dict[str, Any]) -> None:
    message = kind(**said)
    assert {name: getattr(message, name) for name in said} == said
