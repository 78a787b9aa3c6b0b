# SPDX-License-Identifier: Apache-2.0
"""A whole Airflow with two schedulers, ways to break it, and traces of what its tasks did."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from devkit.deployments.airflow_cluster import AirflowCluster
from devkit.deployments.chaos import Beats, Outages, read_beats
from devkit.servers.postgres import PostgresServer
from devkit.servers.valkey import ValkeyServer

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
ROUTER = "devkit.deployments.timed_executor.TimedDispatchExecutor"
LOCAL_SLOTS = {"small": 2, "medium": 3, "large": 4}
CELERY_SLOTS = {"one": 4, "two": 4}


@dataclass(frozen=True)
class Backends:
    """Where the tasks run: each backend has a queue of its name."""

    slots: dict[str, int]
    env: dict[str, str]
    workers: dict[str, dict[str, str]] = field(default_factory=dict)
    """Environment of a Celery worker for a queue."""


def local(of_airflow: bool) -> Backends:
    """Three LocalExecutors behind the router, or Airflow's one with as many slots."""
    backends = {name: {"executor": "LocalExecutor", "slots": slots} for name, slots in LOCAL_SLOTS.items()}
    return Backends(
        LOCAL_SLOTS, {"AIRFLOW__CORE__EXECUTOR": "LocalExecutor"} if of_airflow else router(backends)
    )


def celery(of_airflow: bool, servers: Sequence[tuple[ValkeyServer, ValkeyServer]]) -> Backends:
    """Two brokers with their result backends behind the router, or Airflow's CeleryExecutor, which has one."""
    options = [{"broker_url": broker.url(), "result_backend": results.url()} for broker, results in servers]
    env = [{f"AIRFLOW__CELERY__{name.upper()}": url for name, url in each.items()} for each in options]
    if of_airflow:
        workers = dict.fromkeys(CELERY_SLOTS, env[0])
        return Backends(CELERY_SLOTS, {"AIRFLOW__CORE__EXECUTOR": "CeleryExecutor", **env[0]}, workers)
    backends = {
        name: {"executor": "CeleryExecutor", "slots": slots, "config": {"celery": each}}
        for (name, slots), each in zip(CELERY_SLOTS.items(), options, strict=True)
    }
    return Backends(CELERY_SLOTS, router(backends), dict(zip(CELERY_SLOTS, env, strict=True)))


def router(backends: dict[str, Any]) -> dict[str, str]:
    return {
        "AIRFLOW__CORE__EXECUTOR": ROUTER,
        "AIRFLOW__DISPATCH__BACKENDS": json.dumps(backends),
        "AIRFLOW__DISPATCH__ROUTES": json.dumps([{"queue": name, "to": [name]} for name in backends]),
        "AIRFLOW__DISPATCH__DEFAULT": next(iter(backends)),
    }


class Trace(NamedTuple):
    """One run of a task's function."""

    number: int
    try_number: int


class Deployment:
    """Airflow with two schedulers on PostgreSQL.

    :param runs: of the Dag, each with that many ``tasks``; the first number of a run's tasks is in its conf
    :param wait: called for the seconds that an outage has to last
    """

    def __init__(
        self,
        home: Path,
        postgres: PostgresServer,
        settings: dict[str, str],
        backends: Backends,
        runs: int,
        tasks: int,
        wait: Callable[[float], None],
    ) -> None:
        self.outages = Outages()
        self.backends = backends
        self._postgres, self._wait = postgres, wait
        self.records, self.heartbeats, modules = (
            home / name for name in ("records", "heartbeats", "modules")
        )
        for folder in (self.records, self.heartbeats, modules):
            folder.mkdir(parents=True)
        env = {**self._settings(modules), **backends.env, **settings}
        self.airflow = AirflowCluster(home, env, postgres.create_database("chaos"), COMPONENTS)
        dag = DAG.format(runs=runs, tasks=tasks, queues=list(backends.slots))
        (self.airflow.dags / "chaos.py").write_text(dag)

    def _settings(self, modules: Path) -> dict[str, str]:
        paths = [str(modules), *filter(None, [os.environ.get("PYTHONPATH")])]
        return {
            "PYTHONPATH": os.pathsep.join(paths),
            "CHAOS_RECORDS": str(self.records),
            "CHAOS_HEARTBEATS": str(self.heartbeats),
            "AIRFLOW__CORE__PARALLELISM": str(sum(self.backends.slots.values())),
        }

    def start(self) -> None:
        """Start the second scheduler and the workers; the other components are started with ``airflow``."""
        self.airflow.start_scheduler(SCHEDULERS[1])
        for queue, env in self.backends.workers.items():
            self.airflow.start_worker(f"worker-{queue}", [queue], self.backends.slots[queue], env)

    def is_ready(self) -> bool:
        """Whether all workers have been connected to their brokers."""
        logs = (self.airflow.log(f"worker-{queue}") for queue in self.backends.workers)
        return all(" ready." in log.read_text(errors="replace") for log in logs)

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
            # Airflow's schedulers end by themselves where a statement of theirs meets a database that is away.
            self.revive()
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
