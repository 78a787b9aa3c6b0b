# SPDX-License-Identifier: Apache-2.0
"""How long tasks usually wait, from the tables of a real Airflow."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from airflow.models.dagrun import DagRun
from airflow.models.taskinstance import TaskInstance
from airflow.utils.session import create_session
from sqlalchemy import event, select, update

from airflow_dispatch_provider.bridge.usual_waits import MOST, TaskOfRuns, usual_waits
from tests.integration.database import DAG_ID, stored

ONE, TWO = TaskOfRuns(DAG_ID, "t1"), TaskOfRuns(DAG_ID, "t2")


@pytest.fixture
def set_run(database: str) -> Iterator[Any]:
    """Set the state of the run, and how long each of these tasks has waited in it."""

    def set_waits(state: str, **waits: float | None) -> None:
        with create_session() as session:
            session.execute(update(DagRun).where(DagRun.dag_id == DAG_ID).values(_state=state))
            scheduled = session.scalar(select(DagRun.run_after).where(DagRun.dag_id == DAG_ID))
            for ti in stored(session):
                if ti.task_id in waits:
                    wait = waits[ti.task_id]
                    ti.scheduled_dttm = scheduled
                    ti.start_date = None if wait is None else scheduled + timedelta(seconds=wait)

    yield set_waits
    set_waits("queued")
    with create_session() as session:
        values = {"scheduled_dttm": None, "start_date": None}
        session.execute(update(TaskInstance).where(TaskInstance.dag_id == DAG_ID).values(**values))


def test_of_finished_runs_alone(set_run):
    """A task that did not start in one is not known; nor is one that began before it was scheduled anew, or has another
    index."""
    set_run("success", t1=30.0, t2=None, t3=-5.0)
    tasks = [ONE, TWO, TaskOfRuns(DAG_ID, "t3"), TaskOfRuns(DAG_ID, "t1", 7), TaskOfRuns("no dag", "t1")]
    assert usual_waits(tasks) == {ONE: 30.0}
    set_run("running")
    assert usual_waits(tasks) == {}
    assert usual_waits([]) == {}


def test_however_many_wait(set_run):
    """Two statements, and no task beyond the first so many."""
    set_run("failed", t1=30.0, t2=90.0)
    statements: list[str] = []
    with create_session() as session:
        bind = session.get_bind()

    def note(connection: Any, cursor: Any, statement: str, *rest: Any) -> None:
        statements.append(statement)

    event.listen(bind, "before_cursor_execute", note)
    try:
        others = [TaskOfRuns(DAG_ID, f"other{number}") for number in range(MOST - 1)]
        assert usual_waits([ONE, *others, TWO]) == {ONE: 30.0}
    finally:
        event.remove(bind, "before_cursor_execute", note)
    assert len([each for each in statements if each.startswith("SELECT")]) == 2
