# SPDX-License-Identifier: Apache-2.0
"""Tasks of schedulers that have died or do not say what they have, as Airflow's database has them. For threads and
commands: each call has a session of its own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from typing import Any

from airflow.models.dagrun import DagRun
from airflow.models.taskinstance import TaskInstance
from airflow.utils.session import create_session
from airflow.utils.state import DagRunState, State, TaskInstanceState
from sqlalchemy import and_, func, or_, select

from airflow_dispatch_provider.bridge.event_log import owners, was_given

_UNFINISHED = tuple(State.adoptable_states)
"""Queued, or running."""


def is_unfinished(state: str | None) -> bool:
    """Whether a task instance in this state is in the care of a scheduler."""
    return state in _UNFINISHED


def unfinished(jobs: Collection[str]) -> dict[str, int]:
    """How many task instances are queued or running of each of these schedulers' jobs, and wait to be adopted, as
    Airflow does with those of runs that go on. Jobs without any are left out."""
    query = (
        select(TaskInstance.queued_by_job_id, func.count())
        .join(TaskInstance.dag_run)
        .where(
            TaskInstance.state.in_(_UNFINISHED),
            TaskInstance.queued_by_job_id.in_(_ids(jobs)),
            DagRun.state == DagRunState.RUNNING,
        )
        .group_by(TaskInstance.queued_by_job_id)
    )
    with create_session(scoped=False) as session:
        return {str(job): number for job, number in session.execute(query)}


def given_to(backend: str, since: Mapping[str, float | None]) -> Counter[str]:
    """
    How many task instances are queued or running that were last given to a backend, by the scheduler's job.

    :param since: the jobs that are asked about. Of one that has said at this moment what it has (seconds since 1970)
        only those count that have changed since in another way than by Airflow's queueing them: among them the tasks of
        a dead scheduler that it has taken over; with 0 all that run. None: all of its own, and those that run and are
        not known to have been given to any backend: it may have died before it could write that down.
    """
    jobs = [_of_job(int(job), at) for job, at in since.items() if job.isdecimal()]
    if not jobs:
        return Counter()
    columns = [getattr(TaskInstance, name) for name in _COLUMNS]
    begun = TaskInstance.state != TaskInstanceState.QUEUED
    with create_session(scoped=False) as session:
        candidates = or_(was_given(TaskInstance, backend), and_(begun, ~was_given(TaskInstance)))
        query = select(*columns).where(TaskInstance.state.in_(_UNFINISHED), or_(*jobs), candidates)
        rows: Any = session.execute(query).all()
        owner_of = owners(session, rows)
    found: Counter[str] = Counter()
    for row in rows:
        job, owner = str(row.queued_by_job_id), owner_of.get(row.id)
        is_unknown = owner is None and since[job] is None and row.state != TaskInstanceState.QUEUED
        found[job] += owner == backend or is_unknown
    return +found


_COLUMNS = ("id", "dag_id", "task_id", "run_id", "map_index", "try_number", "state", "queued_by_job_id")


def _of_job(job: int, since: float | None) -> Any:
    own = TaskInstance.queued_by_job_id == job
    if since is None:
        return own
    at = datetime.fromtimestamp(since, UTC)
    not_by_queueing = or_(TaskInstance.state != TaskInstanceState.QUEUED, TaskInstance.queued_dttm < at)
    return and_(own, TaskInstance.updated_at >= at, not_by_queueing)


def _ids(jobs: Collection[str]) -> list[int]:
    return [int(job) for job in jobs if job.isdecimal()]
