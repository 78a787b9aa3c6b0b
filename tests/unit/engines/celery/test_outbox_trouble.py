# SPDX-License-Identifier: Apache-2.0
"""The machine of the broker's thread, where the broker is in trouble, or has lost what it was given."""

from __future__ import annotations

import pytest

from airflow_dispatch_provider.engines.celery._outbox import (
    CHECK_EVERY,
    HUNG_AFTER,
    LOST,
    Answer,
    Check,
    Connect,
    Lost,
    Probe,
    Send,
    Tell,
    Wait,
)
from airflow_dispatch_provider.lifecycle.events import Broken, Ended, Recovered, Returned
from airflow_dispatch_provider.lifecycle.states import Outcome
from tests.unit.engines.celery.outbox_world import TROUBLE, World, sent


@pytest.fixture
def world() -> World:
    return World()


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
