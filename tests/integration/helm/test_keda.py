# SPDX-License-Identifier: Apache-2.0
"""The KEDA query of docs/how-to/helm.md, as the chart renders it, asked of PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from airflow.models.log import Log
from airflow.models.taskinstance import TaskInstance
from airflow.utils.session import create_session
from sqlalchemy import delete, text, update

from airflow_dispatch_provider.bridge.version_compat import AIRFLOW_V_3_4_PLUS

from ..database import TASKS, save_event_log, stored, workload_of
from .charts import charts
from .recipes import recipes

pytestmark = [
    pytest.mark.usefixtures("clean"),
    pytest.mark.parametrize("database", ["postgres"], indirect=True, scope="session"),
    pytest.mark.integration("postgres"),
]

NEWEST = [chart for chart in charts() if chart.folder is None][-1]
RECIPE = "keda-task-instance-id" if AIRFLOW_V_3_4_PLUS else "keda"
CONCURRENCY = 3
# Half of the tasks have the queue "a", and may overflow.
ROUTES = [{"queue": "a", "to": ["celery", "kubernetes"]}]
# What the chart asks where `executor` names KubernetesExecutor, too, in words of ours.
CHARTS_OWN = """
    SELECT count(*) FROM task_instance
    WHERE state IN ('queued', 'running') AND queue IN ('a', 'b') AND executor IS DISTINCT FROM 'KubernetesExecutor'
"""


@pytest.fixture
def clean(database: str) -> None:
    """All task instances QUEUED a moment ago, no event log."""
    now = datetime.now(UTC)
    with create_session() as session:
        session.execute(delete(Log))
        session.execute(update(TaskInstance).values(state="queued", queued_dttm=now, try_number=1))


@pytest.fixture
def query(helm: Path, scratch: Path) -> str:
    recipe = recipes()[RECIPE]
    few = {"config": {"celery": {"worker_concurrency": CONCURRENCY}}}
    rendered = NEWEST.render(helm, scratch, recipes()[recipe.on].values, recipe.values, few)
    return rendered.keda_query


def workers(query: str) -> int:
    """The number that KEDA gets."""
    with create_session() as session:
        (found,) = session.connection().exec_driver_sql(query.replace("%", "%%")).one()
    return int(found)


def dispatched(make_router: Callable[..., Any], **slots: int) -> Any:
    """A router that was offered all task instances; the scheduler has saved its event log."""
    router = make_router(slots, routes=ROUTES, default="celery")
    with create_session() as session:
        for ti in stored(session):
            router.queue_workload(workload_of(ti), session)
    router.heartbeat()
    save_event_log(router)
    return router


def test_what_is_held_or_runs_elsewhere_needs_no_celery_worker(make_router, query: str) -> None:
    router = dispatched(make_router, celery=4, kubernetes=2)
    assert dict(router._loop.machine.slots_used) == {
        "celery": 4,
        "kubernetes": 2,
    }
    assert workers(query) == 2, "4 tasks, 3 for each worker"
    with create_session() as session:
        assert session.scalar(text(CHARTS_OWN)) == TASKS, "which is what the page says of the chart's query"


def test_nothing_was_dispatched(query: str) -> None:
    assert workers(query) == 0


def test_running_tasks_count_and_ended_ones_do_not(make_router, query: str) -> None:
    dispatched(make_router, celery=TASKS, kubernetes=1)
    assert workers(query) == TASKS // CONCURRENCY
    with create_session() as session:
        for number, ti in enumerate(stored(session)):
            ti.state = "success" if number < 6 else "running"
    assert workers(query) == (TASKS - 6) // CONCURRENCY


def test_only_the_last_dispatch_of_a_task_counts(make_router, query: str) -> None:
    dispatched(make_router, celery=TASKS, kubernetes=1)
    router = make_router({"celery": 1, "kubernetes": TASKS}, routes=[{"queue": "*", "to": ["kubernetes"]}])
    with create_session() as session:
        for ti in stored(session):
            router.queue_workload(workload_of(ti), session)
    router.heartbeat()
    save_event_log(router)
    assert workers(query) == 0


def test_an_entry_that_is_no_json_breaks_nothing(make_router, query: str) -> None:
    dispatched(make_router, celery=4, kubernetes=2)
    with create_session() as session:
        session.add_all(Log(event="dispatched", task_instance=ti, extra="not JSON") for ti in stored(session))
    assert workers(query) == 0
