# SPDX-License-Identifier: Apache-2.0
"""Thousands of pods from a real scheduler on two clusters that fail: what it costs, and the scheduler's heartbeats.

Airflow on PostgreSQL, the router, a KubernetesExecutor for each of two API servers. While the pods are created, run,
end and are deleted, in random order and at random moments, one after the other:

  API server killed  SIGKILL, and a new start
  API server hangs   what is between the scheduler and it accepts connections and passes nothing on
  connections cut    every second, all connections of the scheduler to it are reset
  scheduler killed   SIGKILL, and a new start, until its first heartbeat

Pods run a few lines in place of Airflow's supervisor, which takes seconds of CPU to start; the scheduler, the execution
API, the executors and the API servers are what they always are. Without any outage:
--kills 0 --hang 0 --cuts 0 --no-scheduler-kill

The exit code is 1 when a task did not end in success, was started where its route does not lead, or left a pod behind.
"""

from __future__ import annotations

import argparse
import sys
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

from devkit.bench.outages import (
    DOWN,
    QUICK,
    Action,
    Progress,
    carry_out,
    figures,
    outages_parser,
    run_in_folder,
    schedule,
)
from devkit.deployments.kubernetes import BACKENDS, KubeDeployment
from devkit.environment import say
from devkit.servers.postgres import PostgresServer

SETTLE = 60.0
"""Seconds after the Dag runs' end within which all pods have to be gone."""

TABLE = {
    "tasks": "tasks",
    "succeeded": "succeeded",
    "failed": "failed",
    "unended": "not ended",
    "retried": "tries > 1",
    "stuck": "found stuck by Airflow",
    "astray": "started where no route leads",
    "again": "pods more than tasks",
    "waited": "waited for the cluster",
    "left": "pods left behind",
    "seconds": "seconds",
    "children": "scheduler's child processes",
    "memory": "scheduler and children, PSS, MiB",
    "longest_calm": "longest heartbeat, no outage, ms",
    "longest_outage": "longest heartbeat, outages, ms",
}


def settings(options: argparse.Namespace) -> dict[str, str]:
    room = str(max(128, 2 * options.slots))
    return {
        **QUICK,
        "AIRFLOW__CORE__PARALLELISM": room,
        "AIRFLOW__CORE__DEFAULT_POOL_TASK_SLOT_COUNT": room,
        "AIRFLOW__SCHEDULER__MAX_DAGRUNS_PER_LOOP_TO_SCHEDULE": "4",
        "AIRFLOW__SCHEDULER__MAX_TIS_PER_QUERY": "64",
        "AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT": "900",
    }


def plan(options: argparse.Namespace, deployment: KubeDeployment, rng: Random) -> list[tuple[int, Action]]:
    def some() -> str:
        return rng.choice(BACKENDS)

    def kill() -> Action:
        server = deployment.clusters[some()]
        call = partial(deployment.kill_server, "API server killed", server, rng.uniform(*DOWN))
        return "an API server is killed", call

    actions = [kill() for _ in range(options.kills)]
    if options.hang:
        what = f"an API server hangs for {options.hang:g} s"
        actions.append((what, partial(deployment.hang, some(), options.hang)))
    if options.cuts:
        what = f"connections are cut every second for {options.cuts} s"
        actions.append((what, partial(deployment.cut_connections, some(), options.cuts)))
    if options.scheduler_kill:
        actions.append(("the scheduler is killed", partial(deployment.kill_scheduler, rng.uniform(*DOWN))))
    return schedule(actions, options.tasks, rng)


def run(options: argparse.Namespace, home: Path, stack: ExitStack) -> dict[str, Any]:
    postgres = stack.enter_context(PostgresServer())
    progress = Progress(options.tasks)
    deployment = KubeDeployment(
        home,
        postgres.create_database("pods"),
        settings(options),
        stack,
        options.slots,
        options.processes,
        progress.wait,
    )
    progress.say("Airflow starts")
    deployment.start()
    progress.deployment = deployment
    rng = Random(options.seed)
    steps = plan(options, deployment, rng)
    memory = [0.0, 0.0]

    def watch() -> None:
        memory[:] = map(max, memory, deployment.scheduler_memory())

    run_ids, seconds = carry_out(deployment, steps, progress, rng, options.timeout, watch)
    progress.say("waiting until all pods are gone")
    progress.until(lambda: not deployment.pods_left(), SETTLE)
    found = figures(deployment, run_ids)
    started = deployment.started()
    return {
        **found,
        "astray": started["near"]["far"] + started["far"]["near"],
        "again": deployment.ended() - found["tasks"],
        "left": deployment.pods_left(),
        "seconds": seconds,
        "children": int(memory[1]),
        "memory": memory[0],
    }


def parse() -> argparse.Namespace:
    parser = outages_parser(str(__doc__))
    add = parser.add_argument
    add("--kills", type=int, default=10, help="of an API server (default: %(default)s)")
    add("--hang", type=float, default=60, metavar="SECONDS", help="default: %(default)s")
    add("--cuts", type=int, default=60, help="default: %(default)s")
    add(
        "--no-scheduler-kill",
        dest="scheduler_kill",
        action="store_false",
        help="leave the scheduler alone",
    )
    add("--slots", type=int, default=100, help="of each backend (default: %(default)s)")
    add(
        "--processes",
        type=int,
        default=4,
        help="that each node runs at a time, the other pods wait (default: 4)",
    )
    add("--timeout", type=float, default=1800, metavar="SECONDS", help="default: %(default)s")
    return parser.parse_args()


def main() -> None:
    options = parse()
    say(f"--seed {options.seed}")
    result = run_in_folder(options, run, TABLE)
    good = result["succeeded"] == options.tasks and not (result["astray"] or result["left"])
    sys.exit(0 if good else 1)
