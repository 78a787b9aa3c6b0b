# SPDX-License-Identifier: Apache-2.0
"""A whole Airflow with two schedulers and local executors, ways to break it, and traces of what its tasks did."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import psutil
from chaos import Beats, Outages, read_beats

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))
from airflow_cluster import AirflowCluster
from postgres_server import PostgresServer

COMPONENTS = ("api-server", "scheduler", "dag-processor")
SCHEDULERS = ("scheduler", "scheduler-2")
DAG_ID = "chaos"
DAG = """
import os
import time
import uuid
from datetime import timedelta
from pathlib import Path

from airflow.sdk import dag, get_current_context, task

RECORDS = Path(os.environ["CHAOS_RECORDS"])

@task(retries=3, retry_delay=timedelta(seconds=1))
def short(index, queue):
    context = get_current_context()
    number = context["dag_run"].conf["first"] + index
    trace = f"{{number}}.{{context['ti'].try_number}}.{{queue}}.{{uuid.uuid4().hex}}"
    (RECORDS / f"{{trace}}.start").touch()
    time.sleep(0.5)
    (RECORDS / f"{{trace}}.end").touch()

@dag(schedule=None, catchup=False, max_active_runs={runs}, max_active_tasks={tasks})
def chaos():
    queues = {queues!r}
    for n, queue in enumerate(queues):
        options = {{"task_id": f"short_{{queue}}", "queue": queue}}
        each = short.override(**options).partial(queue=queue)
        each.expand(index=list(range(n, {tasks}, len(queues))))

chaos()
"""
BACKENDS = {"small": 2, "medium": 3, "large": 4}
"""Slots of each; each has a queue of its name."""


class Trace(NamedTuple):
    """One run of a task's function."""

    number: int
    try_number: int


class Deployment:
    """Airflow with two schedulers on PostgreSQL.

    :param executor: of ``[core] executor``; None: the router, with three local backends
    :param runs: of the Dag, each with that many ``tasks``; the first number of a run's tasks is in its conf
    :param wait: called for the seconds that an outage has to last
    """

    def __init__(
        self,
        home: Path,
        postgres: PostgresServer,
        settings: dict[str, str],
        executor: str | None,
        runs: int,
        tasks: int,
        wait: Callable[[float], None],
    ) -> None:
        self.outages = Outages()
        self._postgres, self._wait = postgres, wait
        self.records, self.heartbeats, modules = (
            home / name for name in ("records", "heartbeats", "modules")
        )
        for folder in (self.records, self.heartbeats, modules):
            folder.mkdir(parents=True)
        shutil.copy(Path(__file__).with_name("chaos_executor.py"), modules)
        env = {**self._settings(modules, executor), **settings}
        self.airflow = AirflowCluster(home, env, postgres.create_database("chaos"), COMPONENTS)
        dag = DAG.format(runs=runs, tasks=tasks, queues=list(BACKENDS))
        (self.airflow.dags / "chaos.py").write_text(dag)

    def _settings(self, modules: Path, executor: str | None) -> dict[str, str]:
        paths = [str(modules), *filter(None, [os.environ.get("PYTHONPATH")])]
        backends = {name: {"executor": "LocalExecutor", "slots": slots} for name, slots in BACKENDS.items()}
        routes = [{"queue": name, "to": [name]} for name in BACKENDS]
        router = {
            "AIRFLOW__DISPATCH__BACKENDS": json.dumps(backends),
            "AIRFLOW__DISPATCH__ROUTES": json.dumps(routes),
            "AIRFLOW__DISPATCH__DEFAULT": "large",
        }
        return {
            "PYTHONPATH": os.pathsep.join(paths),
            "CHAOS_RECORDS": str(self.records),
            "CHAOS_HEARTBEATS": str(self.heartbeats),
            "AIRFLOW__CORE__EXECUTOR": executor or "chaos_executor.TimedDispatchExecutor",
            "AIRFLOW__CORE__PARALLELISM": str(sum(BACKENDS.values())),
            **({} if executor else router),
        }

    def start(self) -> None:
        """Start the second scheduler; the other components are started with ``airflow``."""
        self.airflow.start_scheduler(SCHEDULERS[1])

    # Outages

    def kill_schedulers(self, names: tuple[str, ...], seconds: float) -> None:
        with self.outages.note("scheduler killed"):
            for name in names:
                self.airflow.kill_scheduler(name)
            self._wait(seconds)
            for name in names:
                self.airflow.start_scheduler(name)

    def pause_scheduler(self, name: str, seconds: float) -> None:
        """SIGSTOP for longer than the others take it for alive."""
        with self.outages.note("scheduler stopped"):
            pid = self.airflow.pid(name)
            os.kill(pid, signal.SIGSTOP)
            self._wait(seconds)
            os.kill(pid, signal.SIGCONT)

    def kill_api_server(self, seconds: float) -> None:
        with self.outages.note("api-server killed"):
            self.airflow.kill_component("api-server")
            self._wait(seconds)
            self.airflow.start_component("api-server")
            self.airflow.wait_until_healthy()

    def restart_database(self) -> None:
        with self.outages.note("database restarted"):
            self._postgres.restart()

    def kill_child(self, name: str) -> None:
        """SIGKILL to a child of a scheduler that has children: a template process, or a worker of Airflow's."""
        with self.outages.note("child killed"):
            children = psutil.Process(self.airflow.pid(name)).children()
            parents = [child for child in children if "serve-logs" not in " ".join(child.cmdline())]
            for child in parents[:1]:
                child.kill()

    # What has happened

    def revive(self) -> None:
        """Start again what has ended by itself, as whatever runs it in production would."""
        for name in SCHEDULERS:
            if self.airflow.has_ended(name):
                with self.outages.note(f"{name} ended by itself"):
                    self.airflow.kill_scheduler(name)
                    self.airflow.start_scheduler(name)
        for name in ("api-server", "dag-processor"):
            if self.airflow.has_ended(name):
                with self.outages.note(f"{name} ended by itself"):
                    self.airflow.kill_component(name)
                    self.airflow.start_component(name)

    def traces(self, ending: str) -> Iterator[Trace]:
        """:param ending: ``start`` or ``end``"""
        for path in self.records.glob(f"*.{ending}"):
            number, try_number, *_ = path.name.split(".")
            yield Trace(int(number), int(try_number))

    def ended(self) -> int:
        """How many tasks have run to the end of their function."""
        return len({trace.number for trace in self.traces("end")})

    def beats(self) -> list[Beats]:
        """Of each scheduler that runs the router."""
        return read_beats(self.heartbeats)
