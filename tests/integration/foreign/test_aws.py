# SPDX-License-Identifier: Apache-2.0
"""The executors of the amazon provider as backends, with an AWS of moto's."""

from __future__ import annotations

import pytest
from airflow.models.taskinstance import TaskInstance
from airflow.utils.session import create_session
from sqlalchemy import update

from airflow_dispatch_provider.lifecycle.states import Row, RowState
from airflow_dispatch_provider.testing import make_task
from airflow_dispatch_provider.testing.in_memory_clerk import InMemoryClerk

from ..database import DirectClerk, as_the_scheduler_offers_them, stored, workload_of
from .aws import Lambda, Service
from .conftest import Start

pytestmark = [pytest.mark.integration("moto"), pytest.mark.once]


@pytest.mark.parametrize(("exit_code", "state"), [(0, "success"), (1, "failed")])
def test_a_task_goes_there_and_its_end_comes_back(
    service: Service, start: Start, exit_code: int, state: str
) -> None:
    """Under its key and try, and nobody else's."""
    hand, task, other = start(), make_task("one"), make_task("two", try_number=2)
    hand.queue(task)
    hand.beat_until(service.received)
    (received,) = service.received()
    assert str(task.ti.id) in received
    if exit_code == 0:
        hand.succeeded(task)
    service.end(exit_code)
    hand.queue(other)
    hand.beat_until(lambda: hand.is_ended(task))
    assert hand.state(task) == state
    hand.beat_until(lambda: len(service.received()) == 2)
    assert not hand.is_ended(other)


@pytest.mark.parametrize("service", ["lambda"], indirect=True)
def test_a_function_that_could_not_run_has_failed(service: Service, start: Start) -> None:
    """By the dead letter queue."""
    assert isinstance(service, Lambda)
    hand, task = start(), make_task()
    hand.queue(task)
    hand.beat_until(service.received)
    service.die()
    hand.beat_until(lambda: hand.is_ended(task))
    assert hand.state(task) == "failed"


def test_a_submission_that_is_refused_costs_no_try(service: Service, start: Start) -> None:
    """The executor gives up and says that the task has failed; it had not begun, and is launched again."""
    clerk, task = InMemoryClerk(), make_task()
    clerk.rows[task.ti.key] = Row(RowState.QUEUED)
    hand = start(clerk)
    with service.refusing() as refused:
        hand.queue(task)
        hand.beat_until(lambda: refused)
    hand.beat_until(service.received)
    assert not hand.is_ended(task)
    hand.succeeded(task)
    service.end(0)
    hand.beat_until(lambda: hand.is_ended(task))
    assert hand.state(task) == "success"


def test_it_cannot_take_back_what_it_has_and_goes_on_with_it(service: Service, start: Start) -> None:
    """It has no ``revoke_task``: what the scheduler takes for stuck stays where it is, and is not sent again."""
    clerk, task = InMemoryClerk(), make_task()
    clerk.rows[task.ti.key] = Row(RowState.QUEUED)
    hand = start(clerk)
    hand.queue(task)
    hand.beat_until(service.received)
    with pytest.raises(NotImplementedError):
        hand.router.revoke_task(ti=task.ti)
    hand.succeeded(task)
    service.end(0)
    hand.beat_until(lambda: hand.is_ended(task))
    assert hand.state(task) == "success"
    assert len(service.received()) == 1


def test_the_last_events_arrive_at_the_end(service: Service, start: Start) -> None:
    """``end`` waits for its tasks."""
    hand, task = start(), make_task()
    hand.queue(task)
    hand.beat_until(service.received)
    hand.succeeded(task)
    service.end(0)
    hand.router.end()
    hand.drain()
    assert hand.state(task) == "success"


def test_what_can_be_stopped_is_stopped_by_terminate(service: Service, start: Start) -> None:
    """A function goes on."""
    hand, task = start(), make_task()
    hand.queue(task)
    hand.beat_until(service.received)
    hand.router.terminate()
    assert service.stopped() == service.can_stop


@pytest.mark.parametrize("database", ["sqlite"], indirect=True, scope="session")
def test_a_dead_schedulers_task_is_adopted(service: Service, start: Start, database: str) -> None:
    """By the id that AWS gave it, which the scheduler has stored; its end arrives at the one that adopted it, and the
    row says which it was."""
    with create_session() as session:
        session.execute(update(TaskInstance).values(state="success", try_number=1))
        ti = next(iter(stored(session)))
        task = workload_of(ti)
        first = start(DirectClerk())
        first.queue(task)
        first.beat_until(service.received)
        external_id = first.beat_until(lambda: first.events.get(task.ti.key))[1]
        mine = update(TaskInstance).where(TaskInstance.id == ti.id)
        session.execute(mine.values(state="running", queued_by_job_id=1, external_executor_id=external_id))
    second = start(DirectClerk())
    with create_session() as session:
        offered = [each for each in as_the_scheduler_offers_them(session) if each.id == ti.id]
        assert second.router.try_adopt_task_instances(offered) == []
    second.beat_until(lambda: "adopted" in str(second.router._loop.machine.story(task.ti.key)))
    with create_session() as session:
        session.execute(update(TaskInstance).values(state="success"))
    service.end(0)
    second.beat_until(lambda: second.router.slots_occupied == 0)
    assert second.state(task) != "failed"
