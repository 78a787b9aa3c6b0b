# SPDX-License-Identifier: Apache-2.0
"""The machine of the broker's thread: for each thing that may come of a step, what it says and what it does next."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_dispatch_provider.engines.celery import _outbox as module
from airflow_dispatch_provider.engines.celery._outbox import (
    _REMEMBERED,
    CHECK_EVERY,
    HUNG_AFTER,
    LOST,
    MAX_BATCH,
    Answer,
    Check,
    Connect,
    Doubt,
    Lost,
    Outbox,
    Probe,
    Send,
    Tell,
    Untold,
    Wait,
)
from airflow_dispatch_provider.engines.celery._outgoing import Outgoing, Refusal, SendFailed, Why
from airflow_dispatch_provider.engines.celery._receipts import Receipts
from airflow_dispatch_provider.lifecycle.events import Broken, Ended, Recovered, Rejected, Returned, Sent
from airflow_dispatch_provider.lifecycle.states import Outcome

DOWN = ConnectionError("is down")
TROUBLE = "The broker redis://b/0 cannot be used: is down"


class World:
    """An outbox, and the time; connected and probed, unless told otherwise."""

    def __init__(self, most: int = 1000, connected: bool = True) -> None:
        self.now = 1000.0
        self.outbox = Outbox("x", "redis://b/0", most, Receipts("token", 600.0))
        if connected:
            self.connect()

    def step(self) -> Any:
        return self.outbox.next(self.now)

    def done(self, step: Any, answer: Answer | None = None) -> list[Any]:
        self.outbox.done(self.now, step, answer or Answer())
        return self.outbox.take_events()

    def do(self, kind: type[Any], answer: Answer | None = None) -> list[Any]:
        """The next step has to be of this kind."""
        step = self.step()
        assert isinstance(step, kind), step
        return self.done(step, answer)

    def connect(self, missing: Any = None) -> list[Any]:
        return self.do(Connect, Answer(missing=missing)) + self.do(Probe)

    def submit(self, *items: str | int) -> list[Outgoing]:
        """Numbers of dispatches; with a queue where it is not the usual one: ``"7 other"``."""
        batch = []
        for item in items:
            number, _, queue = str(item).partition(" ")
            batch.append(Outgoing(f"id {number}", int(number), None, queue or "q"))
        self.outbox.submit(batch)
        return batch

    def fail(self, kind: type[Any], error: BaseException = DOWN) -> list[Any]:
        return self.do(kind, Answer(error, "is down"))

    def wait(self) -> None:
        step = self.step()
        assert isinstance(step, Wait)
        self.now = step.until


@pytest.fixture
def world() -> World:
    return World()


def sent(*numbers: int) -> list[Any]:
    return [Sent(number, f"id {number}") for number in numbers]


def dispatches(step: Any) -> list[Any]:
    return [outgoing.key for outgoing in step.batch]


# What comes next


def test_it_connects_probes_sends_and_waits():
    world = World(connected=False)
    world.submit(1, 2)
    assert world.connect() == []
    assert world.do(Send) == sent(1, 2)
    assert world.step() == Wait(world.now + CHECK_EVERY)


def test_revocations_go_before_what_waits(world):
    """A revoked task was sent earlier, or may have been."""
    world.submit(1)
    world.do(Send)
    world.submit(2)
    world.outbox.tell("id 1")
    step = world.step()
    assert step == Tell(["id 1"])
    world.done(step)
    assert world.do(Send) == sent(2)


def test_a_busy_connection_is_checked_as_often_as_an_idle_one(world):
    world.now += CHECK_EVERY
    world.submit(1)
    assert world.do(Check) == []
    assert world.do(Send) == sent(1)


def test_a_batch_is_bounded(world, monkeypatch):
    monkeypatch.setattr(module, "MAX_BATCH", 2)
    world.outbox._batch_size = 2
    world.submit(1, 2, 3)
    assert world.do(Send) == sent(1, 2)
    assert world.do(Send) == sent(3)


def test_room_is_what_may_still_be_on_its_way():
    world = World(most=3)
    world.submit(1, 2)
    assert world.outbox.takes() == 1
    step = world.step()
    assert world.outbox.takes() == 1
    world.done(step)
    assert world.outbox.takes() == 3


# Withdrawn, revoked, settled


def test_only_what_waits_can_be_withdrawn(world):
    world.submit(1, 2)
    assert world.outbox.withdraw("id 1")
    step = world.step()
    assert dispatches(step) == [2]
    assert not world.outbox.withdraw("id 2")
    world.done(step)
    assert not world.outbox.withdraw("id 2")


@pytest.mark.parametrize("part", ["unsent", "unknown"])
def test_what_is_revoked_while_it_is_being_sent_says_nothing_more(world, part):
    """And is not sent again, but the workers are told."""
    (one,) = world.submit(1)
    step = world.step()
    world.outbox.tell("id 1")
    assert world.done(step, Answer(SendFailed(DOWN, **{part: [one]}), "is down")) == []
    world.wait()
    world.connect()
    assert world.do(Tell) == []
    assert isinstance(world.step(), Wait)


# Failures of sending


def test_what_was_possibly_sent_counts_as_sent(world):
    """It is never sent again here: the execution API lets one copy begin, and a wait is better than two."""
    _one, two, three = world.submit(1, 2, 3)
    events = world.fail(Send, SendFailed(DOWN, unsent=[three], unknown=[two]))
    assert events == sent(1, 2)
    world.wait()
    world.connect(missing=None)
    assert world.outbox.notes == [Doubt(["id 2"])]
    assert world.do(Send) == sent(3)
    assert isinstance(world.step(), Wait)


def test_an_error_that_nobody_expected_leaves_all_in_doubt(world):
    world.submit(1, 2)
    assert world.fail(Send, KeyError("bug")) == sent(1, 2)


def test_after_a_failure_one_is_tried_at_a_time_and_after_a_success_all(world):
    batch = world.submit(1, 2, 3, 4)
    assert world.fail(Send, SendFailed(DOWN, unsent=batch)) == []
    assert world.outbox.unavailable(world.now) is None
    world.wait()
    world.connect()
    assert world.do(Send) == sent(1)
    assert world.do(Send) == sent(2, 3, 4)


def test_one_that_fails_alone_while_a_probe_succeeds_is_rejected(world):
    """It keeps none of the others, and the broker is not blamed."""
    batch = world.submit(1, 2, 3)
    world.fail(Send, SendFailed(DOWN, unsent=batch))
    world.wait()
    world.connect()
    assert world.fail(Send, SendFailed(DOWN, unsent=batch[:1])) == [Rejected(1, "is down")]
    world.wait()
    world.connect()
    assert world.do(Send) == sent(2)
    assert world.do(Send) == sent(3)


def test_one_that_fails_before_a_probe_is_not_blamed(world):
    """A connection that has broken meanwhile looks the same."""
    batch = world.submit(1)
    assert world.fail(Send, SendFailed(DOWN, unsent=batch)) == []
    world.wait()
    world.connect()
    assert world.do(Send) == sent(1)


# Trouble with the broker


@pytest.mark.parametrize("neutral", [Connect, Probe])
def test_a_neutral_request_that_fails_is_the_brokers_trouble(neutral):
    """Waiting messages are given back, and the next such request that succeeds ends it."""
    world = World(connected=False)
    world.submit(1, 2)
    if neutral is Probe:
        world.do(Connect)
    assert world.fail(neutral) == [Broken("x", TROUBLE), Returned(1, TROUBLE), Returned(2, TROUBLE)]
    assert world.outbox.unavailable(world.now) == TROUBLE
    world.submit(3)
    assert world.outbox.take_events() == [Returned(3, TROUBLE)]
    world.wait()
    assert world.do(Connect) == []
    assert world.do(Probe) == [Recovered("x")]
    assert world.outbox.unavailable(world.now) is None


def test_attempts_to_connect_come_later_each_time():
    world = World(connected=False)
    delays = []
    for _ in range(12):
        before = world.now
        assert world.fail(Connect) == [Broken("x", TROUBLE)]
        world.wait()
        delays.append(world.now - before)
    assert delays == sorted(delays)
    assert delays[0] == 0.5
    assert delays[-1] == 30.0


def test_a_broker_that_connects_and_takes_nothing_is_tried_again_soon(world):
    """However long it was away before: it is not known to be unusable, and work may wait for it."""
    world.now += CHECK_EVERY
    world.fail(Check)
    for _ in range(10):
        world.wait()
        world.fail(Connect)
    world.wait()
    world.connect()
    delays = []
    for number in range(8):
        world.submit(number)
        world.fail(Send, TimeoutError())
        before = world.now
        world.wait()
        world.connect()
        delays.append(world.now - before)
    assert delays == [1, 2, 4, 5, 5, 5, 5, 5]
    world.submit(9)
    world.do(Send)
    world.submit(10)
    world.fail(Send, TimeoutError())
    assert world.step() == Wait(world.now + 0.5)


def test_a_check_that_fails_is_not_yet_trouble(world):
    """The connection may only have been closed; whether the broker can be used, the next one tells."""
    world.submit(1)
    world.now += CHECK_EVERY
    assert world.fail(Check) == []
    assert world.outbox.unavailable(world.now) is None
    world.wait()
    world.connect()
    assert world.do(Send) == sent(1)


def test_a_step_that_takes_long_hangs_the_broker(world):
    world.submit(1, 2)
    step = world.step()
    world.now += HUNG_AFTER
    assert world.outbox.unavailable(world.now) is None
    world.now += 0.1
    assert world.outbox.unavailable(world.now) == "The broker redis://b/0 does not answer."
    world.done(step)
    assert world.outbox.unavailable(world.now) is None


def test_waiting_for_work_is_no_trouble(world):
    world.step()
    assert world.outbox.unavailable(world.now + 1000) is None


# What the broker has lost


def test_a_batch_that_the_broker_does_not_have_has_ended(world):
    """Before it is sent again the database is asked: so it has ended, and was not returned."""
    world.submit(1, 2)
    first = world.step()
    world.done(first)
    world.submit(3)
    second = world.step()
    world.done(second)
    world.now += CHECK_EVERY
    world.fail(Check)
    world.wait()
    step = world.step()
    assert step == Connect([first.receipt, second.receipt])
    assert world.done(step, Answer(missing={first.receipt})) == [
        Ended(1, Outcome.FAILED, None, LOST, mishap=True),
        Ended(2, Outcome.FAILED, None, LOST, mishap=True),
    ]
    assert world.outbox.notes == [Lost(2)]
    world.do(Probe)
    world.now += CHECK_EVERY
    world.fail(Check)
    world.wait()
    assert world.step() == Connect([second.receipt])


def test_no_other_scheduler_has_the_same_receipts(world):
    world.submit(1)
    assert world.step().receipt.startswith("token.")


def test_a_receipt_that_may_have_expired_is_not_asked_for(world):
    """By then Airflow has taken the task back, if no worker has begun with it."""
    world.submit(1)
    world.do(Send)
    world.now += 601
    world.fail(Check)
    world.wait()
    assert world.step() == Connect([])


@pytest.mark.parametrize("settle", ["settled", "tell"])
def test_what_a_worker_has_cannot_be_lost_any_more(world, settle):
    world.submit(1)
    world.do(Send)
    getattr(world.outbox, settle)("id 1")
    if settle == "tell":
        world.do(Tell)
    world.now += CHECK_EVERY
    world.fail(Check)
    world.wait()
    assert world.step() == Connect([])


def test_a_broker_that_cannot_tell_has_lost_nothing(world):
    world.submit(1)
    world.do(Send)
    world.now += CHECK_EVERY
    world.fail(Check)
    world.wait()
    assert world.connect(missing=None) == []


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
