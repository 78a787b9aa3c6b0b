# SPDX-License-Identifier: Apache-2.0
"""One try of a task, as Airflow's tables tell it: for people who ask what happened."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

from airflow.models.dag import DagModel
from airflow.models.dagrun import DagRun
from airflow.models.log import Log
from airflow.models.taskinstance import TaskInstance
from airflow.utils.session import create_session
from sqlalchemy import select

from airflow_dispatch_provider.bridge.event_log import rows_of
from airflow_dispatch_provider.bridge.version_compat import AIRFLOW_V_3_4_PLUS


class Event(NamedTuple):
    """A row of Airflow's event log."""

    at: datetime
    event: str
    owner: str | None
    extra: str | None


class Try(NamedTuple):
    """One try of a task. A time is None where it has not come to that."""

    try_number: int
    state: str | None
    queue: str | None
    scheduled: datetime | None
    queued: datetime | None
    """Moved forward while this package holds the task, so that Airflow does not take it for stuck."""

    queued_by: int | None
    """The scheduler's job."""

    started: datetime | None
    ended: datetime | None
    hostname: str | None
    events: Sequence[Event]


def find_try(
    dag_id: str, run_id: str, task_id: str, map_index: int = -1, try_number: int | None = None
) -> Try | None:
    """
    One try of a task, with its rows in the event log, the oldest first; None: there is none.

    :param try_number: None: the last one
    """
    with create_session(scoped=False) as session:
        for model in _models():
            query = (
                select(model)
                .where(
                    model.dag_id == dag_id,
                    model.run_id == run_id,
                    model.task_id == task_id,
                    model.map_index == map_index,
                )
                .order_by(model.try_number.desc())
                .limit(1)
            )
            if try_number is not None:
                query = query.where(model.try_number == try_number)
            row: Any = session.scalars(query).unique().one_or_none()
            if row is not None:
                return _try(row, rows_of(session, row))
    return None


def missing(dag_id: str, run_id: str, task_id: str, map_index: int, try_number: int | None) -> str:
    """Of a try that ``find_try`` has not found, what there is not: the Dag, its run, the task in that, or the try. A
    sentence."""
    run = DagRun.dag_id == dag_id, DagRun.run_id == run_id
    task = TaskInstance.dag_id == dag_id, TaskInstance.run_id == run_id, TaskInstance.task_id == task_id
    with create_session(scoped=False) as session:
        if session.scalar(select(DagModel.dag_id).where(DagModel.dag_id == dag_id)) is None:
            return f"There is no Dag {dag_id!r}."
        if session.scalar(select(DagRun.run_id).where(*run)) is None:
            return f"Dag {dag_id!r} has no run {run_id!r}."
        found = set(session.scalars(select(TaskInstance.map_index).where(*task)))
    if not found:
        return f"Run {run_id!r} of Dag {dag_id!r} has no task {task_id!r}."
    if map_index in found:
        return f"Task {task_id!r} has had no try {try_number} in that run."
    if found == {-1}:
        return f"Task {task_id!r} is not mapped in that run: leave out the map index."
    return (
        f"Task {task_id!r} is mapped in that run: give a map index, from {min(found - {-1})} to {max(found)}."
    )


def _models() -> Sequence[Any]:
    """Up to Airflow 3.3 earlier tries are in a table of their own."""
    if AIRFLOW_V_3_4_PLUS:
        return (TaskInstance,)
    from airflow.models.taskinstancehistory import TaskInstanceHistory

    return TaskInstance, TaskInstanceHistory


def _try(row: Any, events: Sequence[Log]) -> Try:
    found = (Event(_at(each), each.event, each.owner, each.extra) for each in events)
    return Try(
        row.try_number,
        None if row.state is None else str(getattr(row.state, "value", row.state)),
        row.queue,
        row.scheduled_dttm,
        row.queued_dttm,
        row.queued_by_job_id,
        row.start_date,
        row.end_date,
        row.hostname,
        sorted(found, key=lambda each: each.at),
    )


def _at(row: Any) -> Any:
    return row.dttm
