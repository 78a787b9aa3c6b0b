# SPDX-License-Identifier: Apache-2.0
"""The schedulers of this Airflow, as the database has them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from airflow.configuration import conf
from airflow.jobs.job import Job, JobState
from airflow.utils.session import create_session
from sqlalchemy import select


def living() -> set[str]:
    """Ids of the jobs of those that have sent a heartbeat within Airflow's patience. For threads: in a session of its
    own."""
    patience = timedelta(seconds=dead_after())
    query = select(Job.id).where(
        Job.job_type == "SchedulerJob",
        Job.state == JobState.RUNNING,
        Job.latest_heartbeat >= datetime.now(UTC) - patience,
    )
    with create_session(scoped=False) as session:
        return {str(job_id) for job_id in session.scalars(query)}


def dead_after() -> float:
    """Seconds without a heartbeat after which Airflow takes a scheduler for dead."""
    return conf.getfloat("scheduler", "scheduler_health_check_threshold")


def tidy_interval() -> float:
    """Seconds between two looks for what schedulers that have died have left behind."""
    return conf.getfloat("scheduler", "orphaned_tasks_check_interval", fallback=300.0)
