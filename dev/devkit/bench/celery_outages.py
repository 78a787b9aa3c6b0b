# SPDX-License-Identifier: Apache-2.0
"""Outages under a real Airflow on PostgreSQL: what they cost very short tasks, and the scheduler's loop.

One CeleryExecutor backend behind the router, with a slot for every task, so that all of them are with Celery at
once; two plain workers; broker and result backend are two Valkeys. While the tasks run, in random order and at
random moments, one after the other:

  broker killed        SIGKILL, and a new start with its data or, half of the times, without
  broker hangs         it accepts connections and never answers
  result backend down  SIGKILL, and a new start with its data
  worker killed        SIGKILL to a worker with all its tasks, and a new start
  scheduler killed     SIGKILL, and a new start, until its first heartbeat

The exit code is 1 when a task did not end in success, or ran to its end twice. A task that did so because its worker
was killed before Airflow knew of the end is counted, and is no error.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections import Counter
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

from devkit.bench.outages import (
    DOWN,
    QUICK,
    RUN,
    Action,
    Progress,
    carry_out,
    figures,
    outages_parser,
    run_in_folder,
    schedule,
)
from devkit.deployments.airflow_api import ClusterError
from devkit.deployments.celery import WORKERS, CeleryDeployment, celery_options
from devkit.environment import say
from devkit.servers.postgres import PostgresServer
from devkit.servers.valkey import ValkeyServer

UNREPORTED = 10.0
"""Seconds between the end of a task's function and Airflow's knowing of it, at most."""

SETTLE = 75.0
"""Seconds after the Dag runs' end within which all slots have to be free: the result watcher asks for all results
once a minute."""

TABLE = {
    "tasks": "tasks",
    "succeeded": "succeeded",
    "failed": "failed",
    "unended": "not ended",
    "started_again": "started more than once",
    "completed_again": "completed more than once",
    "excused": "the same, by the worker's death",
    "retried": "tries > 1",
    "stuck": "found stuck by Airflow",
    "waited": "waited for the broker",
    "slots": "slots still taken at the end",
    "seconds": "seconds",
    "longest_calm": "longest heartbeat, no outage, ms",
    "longest_outage": "longest heartbeat, outages, ms",
}


def settings(options: argparse.Namespace, celery: dict[str, str]) -> dict[str, str]:
    backend = {"executor": "CeleryExecutor", "slots": options.tasks, "config": {"celery": celery}}
    timeout = str(options.queued_timeout)
    return {
        **QUICK,
        "AIRFLOW__CORE__PARALLELISM": str(options.tasks),
        "AIRFLOW__CORE__DEFAULT_POOL_TASK_SLOT_COUNT": str(options.tasks),
        "AIRFLOW__DISPATCH__BACKENDS": json.dumps({"celery": backend}),
        "AIRFLOW__EXECUTION_API__JWT_EXPIRATION_TIME": timeout,
        "AIRFLOW__SCHEDULER__MAX_DAGRUNS_PER_LOOP_TO_SCHEDULE": "2",
        "AIRFLOW__SCHEDULER__MAX_TIS_PER_QUERY": "512",
        "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_SEC": "5",
        "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "30",
        "AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT": timeout,
    }


def plan(options: argparse.Namespace, deployment: CeleryDeployment, rng: Random) -> list[tuple[int, Action]]:
    """The outages, and how many tasks have to have ended before each: the first broker is killed as tasks are sent."""

    def kill_broker(index: int) -> Action:
        empty, seconds = index % 2 == 0, rng.uniform(*DOWN)
        what = f"the broker is killed, and comes back {'empty' if empty else 'with its data'}"
        return what, partial(deployment.kill_server, "broker killed", deployment.broker, seconds, empty)

    kills = [kill_broker(index) for index in range(options.broker_kills)]
    first, later = kills[:1], kills[1:]
    worker, seconds = rng.choice(WORKERS), options.result_outage
    stop_results = partial(deployment.kill_server, "result backend down", deployment.results, seconds)
    later += [
        (f"the broker hangs for {options.hang:g} s", partial(deployment.hang_broker, options.hang)),
        (f"the result backend is down for {seconds:g} s", stop_results),
        (f"{worker} is killed", partial(deployment.kill_worker, worker, rng.uniform(*DOWN))),
        ("the scheduler is killed", partial(deployment.kill_scheduler, rng.uniform(*DOWN))),
    ]
    return [*((0, action) for action in first), *schedule(later, options.tasks, rng)]


def run(options: argparse.Namespace, home: Path, stack: ExitStack) -> dict[str, Any]:
    postgres = stack.enter_context(PostgresServer())
    servers = ValkeyServer(appendonly=True), ValkeyServer(appendonly=True)
    for server in servers:
        stack.enter_context(server)
    progress = Progress(options.tasks)
    deployment = CeleryDeployment(
        home,
        postgres.create_database("chaos"),
        servers,
        settings(options, celery_options(*servers)),
        options.tasks // RUN,
        RUN,
        options.concurrency,
        options.workers == "patient",
        options.light,
        progress.wait,
    )
    progress.say("Airflow starts")
    stack.enter_context(deployment.airflow)
    progress.deployment = deployment
    for name in WORKERS:
        deployment.start_worker(name)
    if not progress.until(lambda: deployment.are_ready(WORKERS), 120):
        raise ClusterError("the workers are not ready after 120 s")
    rng = Random(options.seed)
    steps = plan(options, deployment, rng)
    run_ids, seconds = carry_out(deployment, steps, progress, rng, options.timeout)
    progress.say("waiting until all slots are free")
    progress.until(lambda: not slots_taken(deployment), SETTLE)
    again, excused = completed_again(deployment)
    return {
        **figures(deployment, run_ids),
        "started_again": sum(count > 1 for count in Counter(deployment.started()).values()),
        "completed_again": len(again),
        "excused": len(excused),
        "slots": slots_taken(deployment),
        "seconds": seconds,
    }


def slots_taken(deployment: CeleryDeployment) -> int:
    """After the last heartbeat."""
    schedulers = deployment.beats()
    return schedulers[-1][-1][2] if schedulers else 0


def completed_again(deployment: CeleryDeployment) -> tuple[set[int], set[int]]:
    """Tasks that completed more than once; and those of them that did not, but for runs whose worker was killed
    before it could tell."""
    killed = {outage.kind.split()[0]: outage.began for outage in deployment.outages.found}
    runs: Counter[int] = Counter()
    told: Counter[int] = Counter()
    for done in deployment.completions():
        runs[done.number] += 1
        death = killed.get(done.worker, math.inf)
        told[done.number] += not (done.started <= death <= done.ended + UNREPORTED)
    again = {number for number, count in runs.items() if count > 1}
    return again, {number for number in again if told[number] <= 1}


def parse() -> argparse.Namespace:
    parser = outages_parser(str(__doc__))
    add = parser.add_argument
    add("--broker-kills", type=int, default=10, help="default: %(default)s")
    add("--result-outage", type=float, default=60, metavar="SECONDS", help="default: %(default)s")
    add("--hang", type=float, default=120, metavar="SECONDS", help="default: %(default)s")
    add("--concurrency", type=int, default=2, help="of each of the two workers (default: %(default)s)")
    add(
        "--workers",
        choices=("plain", "patient"),
        default="plain",
        help="patient ones have Celery's result_backend_always_retry; plain ones lose each message that they take"
        " while the result backend refuses connections, until Airflow finds the task stuck (default: %(default)s)",
    )
    add(
        "--light",
        action="store_true",
        help="Celery's worker processes tell the execution API themselves that a task has begun and ended, without"
        " Airflow's supervisor and the Dag: thousands of tasks in minutes",
    )
    add(
        "--queued-timeout",
        type=float,
        metavar="SECONDS",
        help="[scheduler] task_queued_timeout; by default 120, the outages, and a second for each task, for most"
        " of them wait in the broker",
    )
    add("--timeout", type=float, metavar="SECONDS", help="by default 600 and four times --queued-timeout")
    options = parser.parse_args()
    if options.queued_timeout is None:
        options.queued_timeout = 120 + options.hang + options.result_outage + options.tasks
    if options.timeout is None:
        options.timeout = 600 + 4 * options.queued_timeout
    return options


def main() -> None:
    options = parse()
    say(f"--seed {options.seed} --queued-timeout {options.queued_timeout:g}")
    result = run_in_folder(options, run, TABLE)
    good = result["succeeded"] == options.tasks and result["completed_again"] == result["excused"]
    sys.exit(0 if good else 1)
