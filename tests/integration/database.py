# SPDX-License-Identifier: Apache-2.0
"""A real metadata database with the task instances of one Dag run in it."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from airflow import settings
from airflow.jobs.scheduler_job_runner import SchedulerJobRunner
from airflow.models.taskinstance import TaskInstance
from airflow.utils.session import create_session
from sqlalchemy import select
from sqlalchemy.orm import load_only

from airflow_dispatch_provider.bridge.version_compat import AIRFLOW_V_3_4_PLUS
from airflow_dispatch_provider.dispatch.clerk import AirflowDatabase
from airflow_dispatch_provider.lifecycle.events import Rows
from airflow_dispatch_provider.lifecycle.states import Row, RowState
from airflow_dispatch_provider.testing import make_task
from airflow_dispatch_provider.testing.in_memory_clerk import InMemoryClerk

_TESTS = Path(__file__).parents[1]
DAG_ID, TASKS = "it_dag", 12
RETRIED = "it_retried"
"""A Dag with tasks that run something, and have more tries."""

_DAG_FILE = f"""
from datetime import timedelta
from airflow.sdk import DAG
from airflow.providers.standard.operators.bash import BashOperator
from airflow.providers.standard.operators.empty import EmptyOperator

with DAG("{DAG_ID}", schedule=None):
    for number in range({TASKS}):
        EmptyOperator(task_id=f"t{{number}}", queue="a" if number % 2 else "b")

with DAG("{RETRIED}", schedule=None):
    for number in range(2):
        BashOperator(task_id=f"t{{number}}", bash_command="true", retries=9, retry_delay=timedelta(0))
"""


# One process for all, since each has to import Airflow first.
_COMMANDS = """
import os
import sys
if os.environ["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"].startswith("mysql"):
    from integration.mysql import use_pymysql
    use_pymysql()
from airflow.cli.cli_parser import get_parser

for command in sys.argv[1:]:
    arguments = get_parser().parse_args(command.split())
    arguments.func(arguments)
"""


def prepare(url: str, folder: Path) -> None:
    """Migrate the database, parse the Dags into it and create a run of each, as a user would."""
    dags = folder / "dags"
    dags.mkdir()
    (dags / "it_dag.py").write_text(_DAG_FILE)
    triggers = [f"dags trigger {dag_id}" for dag_id in (DAG_ID, RETRIED)]
    run(url, "db migrate", "dags reserialize", *triggers, AIRFLOW__CORE__DAGS_FOLDER=str(dags))


def run(url: str, *commands: str, **env: str) -> None:
    """Commands of Airflow, with a database."""
    settings = {
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": url,
        "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
        "PYTHONPATH": str(_TESTS),
    }
    done = subprocess.run(
        [sys.executable, "-c", _COMMANDS, *commands],
        env={**os.environ, **settings, **env},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"


def connect(url: str) -> None:
    """Make this process use the database."""
    os.environ["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"] = url
    settings.dispose_orm()
    settings.configure_vars()
    settings.configure_adapters()
    settings.configure_orm()


def stored(session: Any, **options: Any) -> list[Any]:
    query = select(TaskInstance).where(TaskInstance.dag_id == DAG_ID).order_by(TaskInstance.task_id)
    return list(session.scalars(query.options(**options) if options else query))


def as_the_scheduler_offers_them(session: Any) -> list[Any]:
    """Task instances with most columns not loaded. (The base class of Airflow 3.4 reads some more of each.)"""
    query = select(TaskInstance).where(TaskInstance.dag_id == DAG_ID)
    columns = [TaskInstance.id, TaskInstance.dag_id, TaskInstance.task_id, TaskInstance.run_id]
    if AIRFLOW_V_3_4_PLUS:
        columns += [TaskInstance.try_number, TaskInstance.region_id, TaskInstance.region_index]
    return list(session.scalars(query.options(load_only(*columns)).execution_options(populate_existing=True)))


def workload_of(ti: Any, **fields: Any) -> Any:
    return make_task(
        ti.queue,
        id=ti.id,
        dag_id=ti.dag_id,
        task_id=ti.task_id,
        run_id=ti.run_id,
        map_index=ti.map_index,
        try_number=ti.try_number,
        **fields,
    )


class DirectClerk(InMemoryClerk):
    """Asks the database of the router whose job is 1, on the router's own thread: the answer is there at the next
    heartbeat."""

    def __init__(self) -> None:
        super().__init__()
        self._database = AirflowDatabase(1, silence=20.0)

    def look_up(self, asked: int, ids: Any) -> None:
        self._answers.append(Rows(asked, self._database.look_up(ids)))

    def put_back(self, asked: int, ids: Any) -> None:
        self._database.put_back(ids, time.time())
        self.look_up(asked, ids)

    def restart(self, asked: int, ids: Any) -> None:
        self._database.restart(ids)
        self.look_up(asked, ids)

    def unstart(self, asked: int, ids: Any) -> None:
        self._database.unstart(ids)
        self.look_up(asked, ids)

    def refresh(self, ids: Any) -> None:
        self._database.refresh(ids)


class TheyRun(InMemoryClerk):
    """Every task that is not in ``rows`` runs, as the database says, and its process is silent."""

    def look_up(self, asked: int, ids: Any) -> None:
        runs = Row(RowState.RUNNING, silent=3600.0)
        self._answers.append(Rows(asked, {key: self.rows.get(key, runs) for key in ids}))


def save_event_log(router: Any) -> None:
    """With the real scheduler code."""
    gc.collect()
    with create_session() as session:
        SchedulerJobRunner._process_task_event_logs(router._task_event_logs, session)


def databases(*names: str) -> list[Any]:
    """Parameters of the fixture ``database``."""
    return [pytest.param(name, marks=pytest.mark.integration(name)) for name in names]
