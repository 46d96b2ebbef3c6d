"""The heap of instants by itself."""

from __future__ import annotations

import random

from hyperpool.engine.timers import NEVER, Timers


class Owner:
    timer_at = NEVER


def test_due_owners_come_in_the_order_of_their_instants_each_once() -> None:
    timers: Timers[Owner] = Timers()
    first, second, third = Owner(), Owner(), Owner()
    for owner, at in ((second, 2.0), (third, 3.0), (first, 1.0)):
        timers.arm(owner, at)
    assert timers.next_at() == 1.0
    assert timers.take_due(2.0) == [first, second]
    assert timers.take_due(2.0) == []
    assert timers.next_at() == 3.0


def test_an_earlier_instant_replaces_a_later_one_and_not_the_other_way_round() -> None:
    timers: Timers[Owner] = Timers()
    owner = Owner()
    timers.arm(owner, 5.0)
    timers.arm(owner, 9.0)
    assert owner.timer_at == 5.0
    timers.arm(owner, 2.0)
    assert timers.take_due(2.0) == [owner]
    assert timers.take_due(10.0) == []


def test_a_disarmed_owner_is_never_due_and_can_be_armed_again() -> None:
    timers: Timers[Owner] = Timers()
    owner = Owner()
    timers.arm(owner, 1.0)
    timers.disarm(owner)
    timers.arm(owner, 1.0)
    assert timers.take_due(1.0) == [owner]
    timers.disarm(owner)
    assert timers.take_due(2.0) == []


def test_nothing_is_armed_for_never() -> None:
    timers: Timers[Owner] = Timers()
    timers.arm(Owner(), NEVER)
    assert timers.next_at() == NEVER


def test_finished_owners_are_swept_when_they_are_half_of_the_heap() -> None:
    timers: Timers[Owner] = Timers()
    owners = [Owner() for _ in range(1000)]
    for at, owner in enumerate(owners):
        timers.arm(owner, 1000.0 + at)
    for owner in owners[:900]:
        timers.disarm(owner)
    assert len(timers._heap) <= 200
    assert timers.take_due(5000.0) == owners[900:]


def test_nothing_is_kept_when_the_last_owner_is_done() -> None:
    """An idle loop would wake for each instant that nobody waits for any more."""
    timers: Timers[Owner] = Timers()
    owners = [Owner() for _ in range(10)]
    for at, owner in enumerate(owners):
        timers.arm(owner, 10.0 + at)
        timers.arm(owner, 5.0 + at)
    for owner in owners:
        timers.disarm(owner)
    assert timers._heap == [] and timers.next_at() == NEVER


def test_a_sweep_keeps_who_was_armed_more_than_once() -> None:
    timers: Timers[Owner] = Timers()
    owners = [Owner() for _ in range(200)]
    for at in (30.0, 20.0, 10.0):
        for owner in owners:
            timers.arm(owner, at)
    for owner in owners[100:]:
        timers.disarm(owner)
    assert len(timers._heap) <= 200
    assert timers.take_due(10.0) == owners[:100]


def test_timers_agree_with_a_dictionary_of_instants() -> None:
    choose = random.Random(1)
    timers: Timers[Owner] = Timers()
    owners = [Owner() for _ in range(150)]
    model: dict[Owner, float] = {}
    now = 0.0
    for _ in range(5000):
        owner = choose.choice(owners)
        act = choose.random()
        if act < 0.6:
            at = now + choose.randrange(100)
            timers.arm(owner, at)
            model[owner] = min(model.get(owner, NEVER), at)
        elif act < 0.9:
            timers.disarm(owner)
            model.pop(owner, None)
        else:
            now += choose.randrange(20)
            due = [owner for owner, at in model.items() if at <= now]
            assert set(timers.take_due(now)) == set(due)
            for owner in due:
                del model[owner]
        assert 0 <= timers._stale <= len(timers._heap)
        assert timers.next_at() <= min(model.values(), default=NEVER)
