# SPDX-License-Identifier: Apache-2.0
"""Tasks that backends have: who uses their slots."""

from __future__ import annotations

import time
from collections.abc import Iterator

from airflow_dispatch_provider.bridge.database.tables import TablesMissing
from airflow_dispatch_provider.operate.documents import Reading, moment, read
from airflow_dispatch_provider.operate.model import Running, RunningTask
from airflow_dispatch_provider.operate.waiting import LIMIT


def read_running(
    backend: str | None = None, dag_id: str | None = None, limit: int = LIMIT, team: str | None = None
) -> Running:
    """
    The tasks that backends have, those that they have had for longest first.

    :param backend: only of this one
    :param dag_id: only of this Dag
    :param team: only of this team; None: of all
    """
    try:
        return running_of(read(team), backend, dag_id, limit)
    except TablesMissing as error:
        return Running(moment(time.time()), 0, [], str(error))


def running_of(reading: Reading, backend: str | None, dag_id: str | None, limit: int) -> Running:
    """See ``read_running``; ``total`` is of that backend, whatever the Dag."""
    tasks = [
        task for task in _tasks(reading) if backend in (None, task.backend) and dag_id in (None, task.dag_id)
    ]
    total = sum(document.out(backend) for document in reading.living)
    tasks.sort(key=lambda task: task.since)
    return Running(moment(reading.now), total, tasks[:limit], reading.problem)


def _tasks(reading: Reading) -> Iterator[RunningTask]:
    for document in reading.living:
        for entry in document.body["running"]:
            values = {**entry, "since": moment(entry["since"])}
            yield RunningTask(**values, team=document.team, scheduler=document.scheduler)
