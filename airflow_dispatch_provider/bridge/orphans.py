# SPDX-License-Identifier: Apache-2.0
"""Tasks of schedulers that have died, as Airflow's database has them. For threads and commands: each call has a
session of its own."""

from __future__ import annotations

from collections.abc import Collection

from airflow.models.dagrun import DagRun
from airflow.models.taskinstance import TaskInstance
from airflow.utils.session import create_session
from airflow.utils.state import DagRunState, State
from sqlalchemy import func, select

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


def _ids(jobs: Collection[str]) -> list[int]:
    return [int(job) for job in jobs if job.isdecimal()]
