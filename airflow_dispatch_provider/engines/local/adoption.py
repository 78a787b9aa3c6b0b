# SPDX-License-Identifier: Apache-2.0
"""Which task instances of a dead scheduler still run on this machine."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any

import psutil
from airflow.models.taskinstance import TaskInstance
from airflow.utils.state import TaskInstanceState
from sqlalchemy import select
from sqlalchemy.orm import Session

_CLOCK_SLACK = 2.0
"""Seconds that a process may seem to be younger than the first sign of life from it."""

_COLUMNS = (
    TaskInstance.id,
    TaskInstance.dag_id,
    TaskInstance.task_id,
    TaskInstance.run_id,
    TaskInstance.map_index,
    TaskInstance.try_number,
    TaskInstance.state,
    TaskInstance.hostname,
    TaskInstance.pid,
    TaskInstance.start_date,
    TaskInstance.last_heartbeat_at,
)


def fetch(session: Session, tis: Sequence[Any]) -> dict[Any, Any]:
    """The columns that adoption looks at, by task instance id, in one SELECT."""
    rows = session.execute(select(*_COLUMNS).where(TaskInstance.id.in_([ti.id for ti in tis])))
    return {row.id: row for row in rows}


def process_of(row: Any, hostname: str) -> psutil.Process | None:
    """The live process to watch for this row: the task's supervisor, or the task's own without one."""
    if row.state != TaskInstanceState.RUNNING or row.hostname != hostname or not row.pid:
        return None
    seen = last_sign_of_life(row.start_date, row.last_heartbeat_at)
    with suppress(psutil.Error, OSError):
        process = psutil.Process(row.pid)
        alive = process.is_running() and process.status() != psutil.STATUS_ZOMBIE
        if alive and seen is not None and process.create_time() <= seen + _CLOCK_SLACK:
            return _supervisor(process) or process
    return None


def last_sign_of_life(*times: datetime | None) -> float | None:
    """
    The latest of the times that are known, in seconds since the epoch.

    A process that is younger only has the pid of the one that was seen then. The start date alone would
    not do: a task that was deferred and resumed keeps its first one.
    """
    known = [time.timestamp() for time in times if time is not None]
    return max(known, default=None)


def _supervisor(task: psutil.Process) -> psutil.Process | None:
    """Our supervising processes lead a session and are their task's parent."""
    parent = task.parent()
    return parent if parent is not None and os.getsid(task.pid) == parent.pid else None
