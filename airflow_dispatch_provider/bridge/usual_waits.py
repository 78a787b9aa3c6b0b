# SPDX-License-Identifier: Apache-2.0
"""How long tasks have waited in the last runs of their Dags, as Airflow's tables tell it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from statistics import median
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow.models.dagrun import DagRun
from airflow.models.taskinstance import TaskInstance
from airflow.utils.session import create_session
from sqlalchemy import select, union_all

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

MOST = 100
"""Tasks that are asked about at once; SQLite takes no more than 500 queries in one statement."""

_RUNS = 20


class TaskOfRuns(NamedTuple):
    """The same task in every run of its Dag."""

    dag_id: str
    task_id: str
    map_index: int = -1


def usual_waits(tasks: Iterable[TaskOfRuns]) -> Mapping[TaskOfRuns, float]:
    """
    Seconds from being scheduled to the start: the median over the last 20 finished runs of the Dag. Those that did not
    start in any of them are absent, and so are all beyond the first ``MOST``.

    Two statements, which look up 20 rows at most for each task, by index, however many the tables have.
    """
    wanted = list(islice(dict.fromkeys(tasks), MOST))
    if not wanted:
        return {}
    waits: dict[TaskOfRuns, list[float]] = {}
    with create_session(scoped=False) as session:
        for task, waited in _waits(session, wanted):
            waits.setdefault(task, []).append(waited)
    return {task: median(each) for task, each in waits.items()}


def _waits(session: Session, wanted: list[TaskOfRuns]) -> Iterator[tuple[TaskOfRuns, float]]:
    runs = _last_runs(session, {task.dag_id for task in wanted})
    indexes: dict[tuple[str, str], list[int]] = {}
    for task in wanted:
        if task.dag_id in runs:
            indexes.setdefault((task.dag_id, task.task_id), []).append(task.map_index)
    if not indexes:
        return
    # SQLite takes no index for a list of whole keys, and does for a list of one column.
    queries = [_rows_of(*name, runs[name[0]], several) for name, several in indexes.items()]
    for *identity, scheduled, started in session.execute(union_all(*queries)):
        waited = (started - scheduled).total_seconds()
        # A task that was deferred is scheduled anew, and keeps its start.
        if waited >= 0:
            yield TaskOfRuns(*identity), waited


def _rows_of(dag_id: str, task_id: str, runs: list[str], indexes: list[int]) -> Any:
    ti: Any = TaskInstance
    return select(ti.dag_id, ti.task_id, ti.map_index, ti.scheduled_dttm, ti.start_date).where(
        ti.dag_id == dag_id,
        ti.task_id == task_id,
        ti.run_id.in_(runs),
        ti.map_index.in_(indexes),
        ti.scheduled_dttm.is_not(None),
        ti.start_date.is_not(None),
    )


def _last_runs(session: Session, dag_ids: Iterable[str]) -> dict[str, list[str]]:
    """Ids of the last finished runs, by Dag."""
    run: Any = DagRun
    queries = [
        select(run.dag_id, run.run_id)
        .where(run.dag_id == dag_id, run.state.in_(("success", "failed")))
        .order_by(run.id.desc())
        .limit(_RUNS)
        .subquery()
        for dag_id in dag_ids
    ]
    found: dict[str, list[str]] = {}
    for dag_id, run_id in session.execute(union_all(*map(select, queries))):
        found.setdefault(dag_id, []).append(run_id)
    return found
