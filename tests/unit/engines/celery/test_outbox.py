# SPDX-License-Identifier: Apache-2.0
"""The machine of the broker's thread: for each thing that may come of a step, what it says and what it does next."""

from __future__ import annotations

import pytest

from airflow_dispatch_provider.engines.celery import _outbox as module
from airflow_dispatch_provider.engines.celery._outbox import (
    CHECK_EVERY,
    Answer,
    Check,
    Count,
    Doubt,
    Send,
    Tell,
    Wait,
)
from airflow_dispatch_provider.engines.celery._outgoing import SendFailed
from airflow_dispatch_provider.lifecycle.events import Rejected
from tests.unit.engines.celery.outbox_world import DOWN, World, dispatches, sent


@pytest.fixture
def world() -> World:
    return World()


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


def test_queues_are_counted_once(world):
    """Before what waits is sent; without an answer nothing is said of them."""
    world.outbox.count(["a", "b"])
    world.submit(1)
    step = world.step()
    assert step == Count(["a", "b"])
    world.done(step, Answer(counts={"a": 2, "b": 0}))
    assert world.outbox.take_counts() == {"a": 2, "b": 0}
    assert world.outbox.take_counts() == {}
    assert world.do(Send) == sent(1)
    world.outbox.count(["a"])
    world.done(world.step(), Answer(DOWN, "down"))
    world.now += 1
    world.connect()
    assert (world.outbox.take_counts(), type(world.step())) == ({}, Wait)


@pytest.mark.parametrize(("missing", "doubts"), [(None, ["id 1"]), ((), [])])
def test_what_may_not_have_arrived_is_in_doubt_where_the_broker_cannot_tell(world, missing, doubts):
    """Once it can be asked for anything at all."""
    world.submit(1)
    step = world.step()
    world.done(step, Answer(SendFailed(DOWN, unknown=step.batch), "down"))
    assert world.outbox.take_doubts() == []
    world.now += 1
    world.connect(missing)
    assert world.outbox.take_doubts() == doubts
    assert world.outbox.take_doubts() == []


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
