# SPDX-License-Identifier: Apache-2.0
"""Tasks that backends have: who uses their slots."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator

from airflow_dispatch_provider.bridge.database.tables import TablesMissing
from airflow_dispatch_provider.operate.documents import Reading, moment, read
from airflow_dispatch_provider.operate.model import Running, RunningOfTeams, RunningTask
from airflow_dispatch_provider.operate.uncounted import uncounted_of
from airflow_dispatch_provider.operate.waiting import LIMIT


def read_running(
    backend: str | None = None, dag_id: str | None = None, limit: int = LIMIT, team: str | None = None
) -> Running:
    """
    The tasks that backends have, those that they have had for longest first; ``total`` is of that backend, whatever the
    Dag.

    :param backend: only of this one
    :param dag_id: only of this Dag
    :param team: only of this team; None: of all
    """
    return first_of(read_running_of_teams(backend, dag_id, team), limit)


def read_running_of_teams(
    backend: str | None = None, dag_id: str | None = None, team: str | None = None
) -> RunningOfTeams:
    """As ``read_running``, all that are listed."""
    try:
        return running_of(read(team), backend, dag_id)
    except TablesMissing as error:
        return RunningOfTeams(moment(time.time()), {}, [], str(error))


def running_of(reading: Reading, backend: str | None, dag_id: str | None) -> RunningOfTeams:
    """See ``read_running``."""
    tasks = [
        task
        for task in tasks_there(reading)
        if backend in (None, task.backend) and dag_id in (None, task.dag_id)
    ]
    tasks.sort(key=lambda task: task.since)
    totals: Counter[str | None] = Counter()
    for document in reading.living:
        totals[document.team] += document.out(backend)
    return RunningOfTeams(moment(reading.now), dict(totals), tasks, reading.problem, uncounted_of(reading))


def first_of(found: RunningOfTeams, limit: int) -> Running:
    """Of all teams as one."""
    return Running(found.now, sum(found.totals.values()), found.tasks[:limit], found.problem, found.uncounted)


def tasks_there(reading: Reading) -> Iterator[RunningTask]:
    """Those that their schedulers have listed."""
    for document in reading.living:
        for entry in document.body["running"]:
            values = {**entry, "since": moment(entry["since"])}
            yield RunningTask(**values, team=document.team, scheduler=document.scheduler)
