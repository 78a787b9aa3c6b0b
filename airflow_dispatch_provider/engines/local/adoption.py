# SPDX-License-Identifier: Apache-2.0
"""Which task instances of a dead scheduler still run on this machine."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

import psutil
from airflow.models.taskinstance import TaskInstance
from airflow.utils.state import TaskInstanceState
from sqlalchemy import select
from sqlalchemy.orm import Session

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
)


def fetch(session: Session, tis: Sequence[Any]) -> dict[Any, Any]:
    """The columns that adoption looks at, by task instance id, in one SELECT."""
    rows = session.execute(select(*_COLUMNS).where(TaskInstance.id.in_([ti.id for ti in tis])))
    return {row.id: row for row in rows}


def process_of(row: Any, hostname: str) -> psutil.Process | None:
    """The live process to watch for this row: the task's supervisor, or the task's own without one.

    Evidence is the id of the task instance in the title of the process, which the supervisor has from the start and the
    task's process from Airflow: a pid alone may be another's by now, and clocks differ. macOS has no titles, so that
    nothing is adopted there.
    """
    if row.state != TaskInstanceState.RUNNING or row.hostname != hostname or not row.pid:
        return None
    with suppress(psutil.Error, OSError):
        task = psutil.Process(row.pid)
        if task.status() == psutil.STATUS_ZOMBIE:
            return None
        return next((each for each in _family(task) if _names(each, str(row.id))), None)
    return None


def _family(task: psutil.Process) -> Iterator[psutil.Process]:
    """The process that supervises the task, where it leads the session as ours do, then the task's own."""
    parent = task.parent()
    if parent is not None and os.getsid(task.pid) == parent.pid:
        yield parent
    yield task


def _names(process: psutil.Process, ti_id: str) -> bool:
    try:
        return any(ti_id in argument for argument in process.cmdline())
    except psutil.AccessDenied:  # of another user, as with run_as_user
        return False
