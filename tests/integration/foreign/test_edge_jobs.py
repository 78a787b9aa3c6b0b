# SPDX-License-Identifier: Apache-2.0
"""The EdgeExecutor as a backend: its table of jobs, with a real database and workers that the test plays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from airflow.models.taskinstance import TaskInstance
from airflow.providers.edge3.models.edge_job import EdgeJobModel
from airflow.utils.session import create_session
from sqlalchemy import delete, select, update

from ..database import DirectClerk, as_the_scheduler_offers_them, stored, workload_of
from .conftest import Hand

pytestmark = [
    pytest.mark.integration("sqlite"),
    pytest.mark.once,
    pytest.mark.parametrize("database", ["sqlite"], indirect=True, scope="session"),
]

EDGE = {"executor": "airflow.providers.edge3.executors.EdgeExecutor", "slots": 4}


def jobs() -> dict[str, str]:
    """States of the jobs that workers may see, by task."""
    with create_session() as session:
        rows = session.execute(select(EdgeJobModel.task_id, EdgeJobModel.state))
        return {task_id: str(getattr(state, "value", state)) for task_id, state in rows}


def set_state(state: str) -> None:
    """As a worker does."""
    with create_session() as session:
        session.execute(update(EdgeJobModel).values(state=state))


@pytest.fixture
def task(database: str) -> Any:
    """A task instance that this scheduler has queued."""
    with create_session() as session:
        session.execute(delete(EdgeJobModel))
        values = {"state": "queued", "queued_by_job_id": 1, "try_number": 1, "external_executor_id": None}
        session.execute(update(TaskInstance).values(**values))
        return workload_of(next(iter(stored(session))))


@pytest.fixture
def start(make_router: Callable[..., Any]) -> Callable[[], Hand]:
    def started() -> Hand:
        clerk = DirectClerk()
        return Hand(make_router({"edge": EDGE}, clerk=clerk), clerk)

    return started


def test_a_job_is_in_the_table_and_its_end_comes_back(task: Any, start: Callable[[], Hand]) -> None:
    """The slot is free afterwards."""
    hand = start()
    hand.queue(task)
    hand.beat_until(lambda: jobs() == {task.ti.task_id: "queued"})
    set_state("running")
    hand.router.heartbeat()
    with create_session() as session:
        session.execute(update(TaskInstance).values(state="success"))
    set_state("success")
    hand.beat_until(lambda: hand.is_ended(task))
    assert (hand.state(task), hand.router.slots_occupied) == ("success", 0)


def test_what_is_revoked_is_not_in_the_table_any_more(task: Any, start: Callable[[], Hand]) -> None:
    """No worker can take it."""
    hand = start()
    hand.queue(task)
    hand.beat_until(jobs)
    hand.router.revoke_task(ti=task.ti)
    hand.router.heartbeat()
    assert jobs() == {}
    assert not hand.router.has_task(task.ti)


def test_a_job_that_another_scheduler_had_is_adopted(task: Any, start: Callable[[], Hand]) -> None:
    """By the table; its end arrives at the one that adopted it, and the row says which it was."""
    first = start()
    first.queue(task)
    first.beat_until(jobs)
    set_state("running")
    with create_session() as session:
        mine = update(TaskInstance).where(TaskInstance.id == task.ti.id)
        session.execute(update(TaskInstance).values(state="success"))
        session.execute(mine.values(state="running"))
    second = start()
    with create_session() as session:
        offered = [ti for ti in as_the_scheduler_offers_them(session) if ti.task_id == task.ti.task_id]
        assert second.router.try_adopt_task_instances(offered) == []
    second.beat_until(lambda: "adopted" in str(second.router._loop.machine.story(task.ti.key)))
    with create_session() as session:
        session.execute(mine.values(state="success"))
    set_state("success")
    second.beat_until(lambda: second.router.slots_occupied == 0)
    assert second.state(task) != "failed"
