# SPDX-License-Identifier: Apache-2.0
"""Leftovers of schedulers that have died, and tasks just taken over, by the tables of a real Airflow."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from airflow.models.dagrun import DagRun
from airflow.models.log import Log
from airflow.models.taskinstance import TaskInstance
from airflow.utils.session import create_session
from sqlalchemy import delete, update

from airflow_dispatch_provider.bridge.event_log import DISPATCHED, dispatched_extra
from airflow_dispatch_provider.bridge.orphans import given_to, unfinished
from airflow_dispatch_provider.routing.model import Target
from airflow_dispatch_provider.routing.reasons import Reason
from tests.integration.database import DAG_ID, databases, stored

pytestmark = pytest.mark.parametrize(
    "database", databases("sqlite", "postgres", "mysql"), indirect=True, scope="session"
)
NOW = datetime.now(UTC)


@pytest.fixture
def tasks(database: str) -> Iterator[Any]:
    """Change task instances: the state, the scheduler's job, and the backend that each was given to, if any."""

    def change(**changes: tuple[str, int, str | None]) -> None:
        with create_session() as session:
            session.execute(update(DagRun).where(DagRun.dag_id == DAG_ID).values(_state="running"))
            for ti in stored(session):
                if ti.task_id in changes:
                    ti.state, ti.queued_by_job_id, backend = changes[ti.task_id]
                    ti.queued_dttm = NOW - timedelta(seconds=60)
                    if backend is not None:
                        extra = dispatched_extra(Target(backend), "route", Reason.FIRST_CHOICE)
                        session.add(Log(event=DISPATCHED, task_instance=ti, extra=extra))

    yield change
    with create_session() as session:
        values = {"state": None, "queued_by_job_id": None, "queued_dttm": None}
        session.execute(update(TaskInstance).where(TaskInstance.dag_id == DAG_ID).values(**values))
        session.execute(update(DagRun).where(DagRun.dag_id == DAG_ID).values(_state="queued"))
        session.execute(delete(Log).where(Log.event == DISPATCHED, Log.dag_id == DAG_ID))


def test_what_nobody_has_taken_over(tasks):
    """Queued or running tasks of these schedulers, in runs that go on."""
    tasks(t1=("queued", 3, "a"), t2=("running", 3, "a"), t3=("success", 3, "a"), t4=("queued", 4, "a"))
    assert unfinished({"3", "5", "no job"}) == {"3": 2}
    with create_session() as session:
        session.execute(update(DagRun).where(DagRun.dag_id == DAG_ID).values(_state="failed"))
    assert unfinished({"3"}) == {}
    assert unfinished(set()) == {}


def test_where_they_were_given_to_last(tasks):
    """All of one that has died, and whatever runs without a trace of where."""
    tasks(t0=("queued", 3, "b"), t1=("queued", 3, "a"), t2=("running", 3, "b"), t3=("running", 3, None))
    tasks(t0=("queued", 3, "a"), t4=("queued", 3, None), t5=("success", 3, "a"), t6=("running", 4, "a"))
    assert given_to("a", {"3": None, "no job": None}) == {"3": 3}
    assert given_to("b", {"3": None}) == {"3": 2}
    assert given_to("a", {}) == {}


def test_what_a_scheduler_has_taken_over_since_it_wrote(tasks):
    """Rows that have changed since; not those that Airflow has only queued, or this package has refreshed."""
    before, after = NOW.timestamp() - 5, NOW.timestamp() + 3600
    tasks(t1=("queued", 4, "a"), t2=("running", 4, "a"), t3=("running", 4, None))
    assert given_to("a", {"4": before}) == {"4": 2}
    assert given_to("a", {"4": after}) == {}
    with create_session() as session:
        fresh = {"queued_dttm": datetime.now(UTC)}
        session.execute(update(TaskInstance).where(TaskInstance.queued_by_job_id == 4).values(**fresh))
    assert given_to("a", {"4": before}) == {"4": 1}
