# SPDX-License-Identifier: Apache-2.0
"""A whole Airflow with one Celery backend behind the router, ways to break it, and traces of what its tasks did."""

from __future__ import annotations

import contextlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import psutil

from devkit.deployments.outages import ROUTER, Deployment, Wait
from devkit.environment import variables_of
from devkit.servers.valkey import ValkeyServer

WORKERS = ("worker-1", "worker-2")
QUEUE = "default"
DAG = """
import os
import time
import uuid
from datetime import timedelta
from pathlib import Path

from airflow.sdk import dag, get_current_context, task

RECORDS = Path(os.environ["CHAOS_RECORDS"])

# Mapped: as so many tasks of their own, parsing this file would take each worker longer than all else.
@task(retries=2, retry_delay=timedelta(seconds=1))
def short(index):
    number = get_current_context()["dag_run"].conf["first"] + index
    trace, started = f"{{number}}.{{uuid.uuid4().hex}}", time.time()
    (RECORDS / f"{{trace}}.start").touch()
    (RECORDS / f"{{trace}}.end").write_text(f"{{os.environ['CHAOS_WORKER']}} {{started}} {{time.time()}}")

@dag(schedule=None, catchup=False, max_active_runs={runs}, max_active_tasks={tasks})
def chaos():
    short.expand(index=list(range({tasks})))

chaos()
"""
PATIENT = """
from airflow.providers.celery.executors.default_celery import DEFAULT_CELERY_CONFIG

CELERY_CONFIG = {**DEFAULT_CELERY_CONFIG, "result_backend_always_retry": True}
"""


@dataclass(frozen=True)
class Completion:
    """One run of a task to the end of its function."""

    number: int
    worker: str
    started: float
    ended: float


class CeleryDeployment(Deployment):
    """Airflow, two workers, their broker and their result backend. Both servers keep their data in a file.

    :param runs: of the Dag, each with that many ``tasks``; the first number of a run's tasks is in its conf
    :param patient: whether workers wait for a result backend that is down; otherwise they are as Airflow makes them
    :param light: whether workers run tasks without Airflow's supervisor, see light_worker.py
    """

    def __init__(
        self,
        home: Path,
        database: str,
        servers: tuple[ValkeyServer, ValkeyServer],
        settings: dict[str, str],
        runs: int,
        tasks: int,
        concurrency: int,
        patient: bool,
        light: bool,
        wait: Wait,
    ) -> None:
        self.broker, self.results = servers
        self._concurrency = concurrency
        self._patient = patient
        env = {
            "AIRFLOW__CORE__EXECUTOR": ROUTER,
            "AIRFLOW__DISPATCH__DEFAULT": json.dumps({"backend": "celery", "queue": QUEUE}),
            **settings,
        }
        super().__init__(home, database, env, "chaos", DAG.format(runs=runs, tasks=tasks), wait)
        if light:
            worker = Path(__file__).with_name("light_worker.py")
            shutil.copy(worker, self.modules / "airflow_local_settings.py")
        (self.modules / "chaos_patient.py").write_text(PATIENT)

    def start_worker(self, name: str) -> None:
        options = celery_options(self.broker, self.results)
        if self._patient:
            options["celery_config_options"] = "chaos_patient.CELERY_CONFIG"
        env = {**variables_of({"celery": options}), "CHAOS_WORKER": name}
        self.airflow.start_worker(name, [QUEUE], self._concurrency, env)

    # Outages

    def hang_broker(self, seconds: float) -> None:
        with self.outages.note("broker hangs"):
            self.broker.pause()
            self.wait(seconds)
            self.broker.resume()

    def kill_worker(self, name: str, seconds: float) -> None:
        """With all its tasks, as when its machine is lost: these are in process groups of their own."""
        with self.outages.note(f"{name} killed"):
            tree = psutil.Process(self.airflow.pid(name)).children(recursive=True)
            self.airflow.kill_component(name)
            for process in tree:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            self.wait(seconds)
            self.start_worker(name)

    def revive(self) -> None:
        """Start workers again that have ended by themselves, as whatever runs them in production would: some do when
        their broker goes away while they start."""
        for name in WORKERS:
            self.restart_if_ended(name, self.airflow.kill_component, self.start_worker)

    # What the tasks and the schedulers wrote

    def started(self) -> list[int]:
        """The number of a task for each of its starts."""
        return [int(words[0]) for _, words in self.traces("start")]

    def completions(self) -> list[Completion]:
        found = []
        for path, (number, *_) in self.traces("end"):
            words = path.read_text().split()
            if len(words) == 3:  # otherwise it was killed while it wrote
                times = float(words[1]), float(words[2])
                found.append(Completion(int(number), words[0], *times))
        return found


def celery_options(broker: ValkeyServer, results: ValkeyServer) -> dict[str, str]:
    """The options about which the scheduler's backend and the workers have to agree."""
    return {"broker_url": broker.url(), "result_backend": results.url()}
