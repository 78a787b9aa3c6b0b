# SPDX-License-Identifier: Apache-2.0
"""The machine of the broker's thread, where the broker refuses messages, and where workers are to be told."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_dispatch_provider.engines.celery._outbox import (
    _REMEMBERED,
    CHECK_EVERY,
    MAX_BATCH,
    Answer,
    Check,
    Connect,
    Probe,
    Send,
    Tell,
    Untold,
    Wait,
)
from airflow_dispatch_provider.engines.celery._outgoing import Outgoing, Refusal, SendFailed, Why
from airflow_dispatch_provider.lifecycle.events import Recovered, Rejected, Returned
from tests.unit.engines.celery.outbox_world import DOWN, World, sent


@pytest.fixture
def world() -> World:
    return World()


# Refusals

FULL, MESSAGE, QUEUE = Why.FULL, Why.MESSAGE, Why.QUEUE


def refuse(world: World, *refused: tuple[Outgoing, Why]) -> list[Any]:
    return world.do(Send, Answer(refusals=[Refusal(outgoing, "no", why) for outgoing, why in refused]))


def test_a_message_of_its_own_trouble_is_rejected_alone(world):
    """The broker works, as the others show: two such messages in a row say nothing about it."""
    one, _two, three = world.submit(1, 2, 3)
    events = refuse(world, (one, MESSAGE), (three, MESSAGE))
    assert events == [*sent(2), Rejected(1, "no"), Recovered("x"), Rejected(3, "no"), Recovered("x")]


def test_messages_that_all_fail_may_be_everybodys_trouble(world):
    one, two = world.submit(1, 2)
    assert refuse(world, (one, MESSAGE), (two, MESSAGE)) == [Rejected(1, "no"), Rejected(2, "no")]


def test_a_full_queue_closes_itself_only(world):
    """Its messages go back unblamed, also those that have not been tried; the others are sent."""
    world.outbox._batch_size = 3
    one, _two, three, _four, _five = world.submit("1 full", 2, "3 full", "4 full", 5)
    events = refuse(world, (one, FULL), (three, FULL))
    reason = "queue 'full': no"
    assert events == [*sent(2), Returned(1, reason), Returned(3, reason), Returned(4, reason)]
    assert world.outbox.closed(world.now) == {"full": reason}
    assert world.outbox.unavailable(world.now) is None
    assert world.do(Send) == sent(5)


def test_a_closed_queue_is_tried_again_later_each_time_and_opened_by_a_success(world):
    waits = []
    for number in range(8):
        (one,) = world.submit(f"{number} full")
        refuse(world, (one, FULL))
        closed_at = world.now
        while world.outbox.closed(world.now):
            world.now += 0.5
        waits.append(world.now - closed_at)
        while isinstance(world.step(), Check):
            world.done(Check())
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60]
    world.submit("9 full")
    assert world.do(Send) == sent(9)
    (one,) = world.submit("10 full")
    refuse(world, (one, FULL))
    assert world.outbox.closed(world.now + 0.5)
    assert not world.outbox.closed(world.now + 1)


def test_a_queue_refused_long_ago_begins_with_the_shortest_delay(world):
    """Nobody knows any more what troubled it then."""
    for number, (later, delay) in enumerate([(0, 1), (0, 2), (0, 4), (_REMEMBERED + 4, 1)]):
        world.now += later
        while isinstance(world.step(), Check):
            world.done(Check())
        (one,) = world.submit(f"{number} full")
        refuse(world, (one, FULL))
        assert world.outbox.closed(world.now + delay - 0.1)
        world.now += delay
        assert not world.outbox.closed(world.now)


def test_a_queue_that_may_not_be_used_counts_against_one_of_its_messages(world):
    """So that each fails in the end, with the reason, and the broker is not blamed."""
    one, two, _ = world.submit("1 theirs", "2 theirs", 3)
    events = refuse(world, (one, QUEUE), (two, QUEUE))
    reason = "queue 'theirs': no"
    assert events == [*sent(3), Rejected(1, "no"), Recovered("x"), Returned(2, reason)]
    assert world.outbox.closed(world.now) == {"theirs": reason}


def test_refusals_beside_a_failure_stand(world):
    _one, two, three = world.submit(1, "2 full", 3)
    failed = SendFailed(DOWN, unsent=[three], refusals=[Refusal(two, "no", FULL)])
    assert world.fail(Send, failed) == [*sent(1), Returned(2, "queue 'full': no")]
    world.wait()
    world.connect()
    assert world.do(Send) == sent(3)


def test_a_queue_that_nobody_uses_any_more_is_forgotten(world):
    for name in ("old", "new"):
        (one,) = world.submit(f"1 {name}")
        refuse(world, (one, FULL))
        world.now += 1000
        world.do(Check)
    assert set(world.outbox._lanes) == {"new"}


# Telling workers


def test_revocations_outlast_an_outage(world):
    world.outbox.tell("id 1")
    world.fail(Tell)
    world.wait()
    world.fail(Connect)
    world.wait()
    world.connect()
    step = world.step()
    assert step == Tell(["id 1"])
    world.done(step)
    assert isinstance(world.step(), Wait)


def test_a_revocation_that_breaks_the_connection_again_and_again_is_given_up(world):
    """It must not keep the tasks from being sent."""
    world.submit(1)
    world.outbox.tell("id 7")
    world.fail(Tell)
    world.wait()
    world.connect()
    world.fail(Tell)
    assert world.outbox.notes == [Untold(1, "is down")]
    world.wait()
    world.connect()
    assert world.do(Send) == sent(1)


def test_it_shows_its_state(world):
    (one,) = world.submit("1 full")
    refuse(world, (one, FULL))
    world.submit(2)
    assert repr(world.outbox) == "Outbox(redis://b/0, connected, unsent 1, closed ['full'])"
    assert MAX_BATCH > 1


def test_it_shows_that_it_cannot_be_used():
    """Connected or not."""
    world = World(connected=False)
    world.fail(Connect)
    assert repr(world.outbox) == "Outbox(redis://b/0, unusable, unsent 0)"
    world.wait()
    world.do(Connect)
    assert repr(world.outbox) == "Outbox(redis://b/0, unusable, unsent 0)"


def test_before_its_first_step_nothing_hangs():
    """However long ago it was made."""
    outbox = World(connected=False).outbox
    assert (outbox.unavailable(5000.0), outbox.trouble) == (None, None)
    assert repr(outbox) == "Outbox(redis://b/0, connecting, unsent 0)"


@pytest.mark.parametrize(
    ("kind", "delays"),
    [
        # A neutral request, and another one.
        (Connect, {0.0: 0.25, 0.5: 0.375, 1.0: 0.5}),
        (Probe, {0.0: 0.25, 1.0: 0.5}),
        (Check, {0.0: 0.25, 1.0: 0.5}),
        (Send, {0.0: 0.25, 1.0: 0.5}),
        (Tell, {0.0: 0.25, 1.0: 0.5}),
    ],
)
def test_chance_spreads_what_is_tried_again(kind, delays):
    """Over the upper half, so that schedulers do not try in step."""
    for chance, delay in delays.items():
        world = World(connected=kind not in (Connect, Probe))
        if kind is Probe:
            world.do(Connect)
        if kind is Send:
            world.submit(1)
        if kind is Tell:
            world.outbox.tell("id 1")
        if kind is Check:
            world.now += CHECK_EVERY
        step = world.step()
        assert isinstance(step, kind)
        world.outbox.done(world.now, step, Answer(DOWN, "is down"), chance)
        assert world.step() == Wait(world.now + delay)


@pytest.mark.parametrize(("chance", "until"), [(0.0, 0.5), (1.0, 1.0)])
def test_chance_spreads_when_a_closed_queue_is_tried_again(chance, until):
    """Over the upper half as well."""
    world = World()
    (one,) = world.submit("1 full")
    answer = Answer(refusals=[Refusal(one, "no", FULL)])
    world.outbox.done(world.now, world.step(), answer, chance)
    assert world.outbox.closed(world.now + until - 0.1)
    assert not world.outbox.closed(world.now + until)


def test_a_revocation_that_failed_once_is_told_with_the_next(world):
    """One that comes in between is told as well."""
    world.outbox.tell("id 1")
    world.fail(Tell)
    world.outbox.tell("id 2")
    world.wait()
    world.connect()
    assert world.step() == Tell(["id 1", "id 2"])
    assert world.outbox.notes == []


def test_what_is_settled_while_it_is_refused_says_nothing(world):
    """A worker has it, or nobody waits for it any more."""
    for why in (FULL, QUEUE, MESSAGE):
        (one,) = world.submit("1 full")
        step = world.step()
        world.outbox.settled("id 1")
        found = world.done(step, Answer(refusals=[Refusal(one, "no", why)]))
        assert found == []
        world.now += 0.1


def test_what_waits_is_taken_back_in_its_order(world):
    """The last engine that stops leaves it to another scheduler."""
    world.submit(3, 1, 2)
    assert world.outbox.take_waiting() == [3, 1, 2]
    assert (world.outbox.take_waiting(), world.outbox.unsent) == ([], 0)
