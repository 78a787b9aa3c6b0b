# SPDX-License-Identifier: Apache-2.0
"""A whole Airflow with two schedulers, ways to break it, and traces of what its tasks did."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from devkit.deployments.outages import ROUTER, Deployment, Wait
from devkit.environment import variables_of
from devkit.servers.postgres import PostgresServer
from devkit.servers.valkey import ValkeyServer

SCHEDULERS = ("scheduler", "scheduler-2")
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
    env = [variables_of({"celery": each}) for each in options]
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


class Try(NamedTuple):
    """One run of a task's function."""

    number: int
    try_number: int


class TwoSchedulers(Deployment):
    """Airflow with two schedulers on PostgreSQL.

    :param runs: of the Dag, each with that many ``tasks``; the first number of a run's tasks is in its conf
    """

    def __init__(
        self,
        home: Path,
        postgres: PostgresServer,
        settings: dict[str, str],
        backends: Backends,
        runs: int,
        tasks: int,
        wait: Wait,
    ) -> None:
        self.backends = backends
        self._postgres = postgres
        parallelism = {"AIRFLOW__CORE__PARALLELISM": str(sum(backends.slots.values()))}
        env = {**parallelism, **backends.env, **settings}
        dag = DAG.format(runs=runs, tasks=tasks, queues=list(backends.slots))
        super().__init__(home, postgres.create_database("chaos"), env, "chaos", dag, wait)

    def start(self) -> None:
        """Start the second scheduler and the workers; the other components are started with ``airflow``."""
        self.airflow.start_scheduler(SCHEDULERS[1])
        for queue, env in self.backends.workers.items():
            self.airflow.start_worker(f"worker-{queue}", [queue], self.backends.slots[queue], env)

    def is_ready(self) -> bool:
        """Whether all workers have been connected to their brokers."""
        return self.are_ready([f"worker-{queue}" for queue in self.backends.workers])

    # Outages

    def kill_schedulers(self, names: tuple[str, ...], seconds: float) -> None:
        with self.outages.note("scheduler killed"):
            for name in names:
                self.airflow.kill_scheduler(name)
            self.wait(seconds)
            for name in names:
                self.airflow.start_scheduler(name)

    def pause_scheduler(self, name: str, seconds: float) -> None:
        """SIGSTOP for longer than the others take it for alive."""
        with self.outages.note("scheduler stopped"):
            pid = self.airflow.pid(name)
            os.kill(pid, signal.SIGSTOP)
            self.wait(seconds)
            os.kill(pid, signal.SIGCONT)

    def kill_api_server(self, seconds: float) -> None:
        with self.outages.note("api-server killed"):
            self.airflow.kill_component("api-server")
            self.wait(seconds)
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
            children = self.airflow.children(name)
            parents = [child for child, command in children.items() if "serve-logs" not in command]
            for child in parents[:1]:
                child.kill()

    # What has happened

    def revive(self) -> None:
        """Start again what has ended by itself, as whatever runs it in production would."""
        for name in SCHEDULERS:
            self.restart_if_ended(name, self.airflow.kill_scheduler, self.airflow.start_scheduler)
        for name in ("api-server", "dag-processor"):
            self.restart_if_ended(name, self.airflow.kill_component, self.airflow.start_component)

    def tries(self, ending: str) -> Iterator[Try]:
        """:param ending: ``start`` or ``end``"""
        for _, (number, try_number, *_) in self.traces(ending):
            yield Try(int(number), int(try_number))
