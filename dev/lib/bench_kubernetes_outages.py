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
import json
import random
import shutil
import sys
import tempfile
from collections import Counter
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from chaos import (
    DOWN,
    RUN,
    Action,
    Progress,
    longest,
    phases,
    play,
    runs_ended,
    schedule,
    table,
    trigger,
    whole_runs,
)
from kube_deployment import BACKENDS, DAG_ID, KubeDeployment

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))
from postgres_server import PostgresServer

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
        "AIRFLOW__CORE__PARALLELISM": room,
        "AIRFLOW__CORE__DEFAULT_POOL_TASK_SLOT_COUNT": room,
        "AIRFLOW__CORE__MAX_MAP_LENGTH": str(RUN),
        "AIRFLOW__SCHEDULER__MAX_DAGRUNS_PER_LOOP_TO_SCHEDULE": "4",
        "AIRFLOW__SCHEDULER__MAX_TIS_PER_QUERY": "64",
        "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "5",
        "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": "15",
        "AIRFLOW__SCHEDULER__SCHEDULER_HEARTBEAT_SEC": "1",
        "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.2",
        "AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT": "900",
    }


def plan(
    options: argparse.Namespace, deployment: KubeDeployment, rng: random.Random
) -> list[tuple[int, Action]]:
    def some() -> str:
        return rng.choice(BACKENDS)

    actions: list[Action] = [
        ("an API server is killed", partial(deployment.kill_server, some(), rng.uniform(*DOWN)))
        for _ in range(options.kills)
    ]
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
    rng = random.Random(options.seed)
    steps = plan(options, deployment, rng)
    run_ids = trigger(deployment.airflow, DAG_ID, options.tasks)
    began = progress.seconds
    play(steps, progress, rng, began + options.timeout)
    memory = [0.0, 0.0]
    open_runs = list(run_ids)

    def ended() -> bool:
        memory[:] = map(max, memory, deployment.scheduler_memory())
        return runs_ended(deployment.airflow, DAG_ID, open_runs)

    if not progress.until(ended, began + options.timeout - progress.seconds):
        progress.say(f"the Dag runs have not ended after {options.timeout:.0f} s")
    seconds = progress.seconds - began
    progress.say("waiting until all pods are gone")
    progress.until(lambda: not deployment.left(), SETTLE)
    result = {"seed": options.seed, **figures(deployment, run_ids), "seconds": seconds}
    result |= {"memory": memory[0], "children": int(memory[1])}
    return {**result, "phases": phases(deployment.beats(), deployment.outages.found)}


def figures(deployment: KubeDeployment, run_ids: list[str]) -> dict[str, Any]:
    airflow = deployment.airflow
    rows = [row for run_id in run_ids for row in airflow.task_instances(DAG_ID, run_id)]
    states = Counter(row["state"] for row in rows)
    events = Counter(row["event"] for row in airflow.event_logs(dag_id=DAG_ID))
    calm, troubled = longest(deployment.beats(), deployment.outages.found)
    started = deployment.started()
    return {
        "tasks": len(rows),
        "succeeded": states["success"],
        "failed": states["failed"] + states["upstream_failed"],
        "unended": len(rows) - sum(states[state] for state in ("success", "failed", "upstream_failed")),
        "retried": sum(row["try_number"] > 1 for row in rows),
        "stuck": sum(count for event, count in events.items() if "stuck" in event),
        "astray": started["near"]["far"] + started["far"]["near"],
        "again": deployment.ended() - len(rows),
        "waited": events["waiting for cluster"],
        "left": deployment.left(),
        "longest_calm": calm,
        "longest_outage": troubled,
        "events": dict(events),
    }


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog=sys.argv[0], description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--tasks", type=whole_runs, default=1000, help=f"a multiple of {RUN} (default: %(default)s)")
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
    add("--seed", type=int, default=random.randrange(10**6), help="of what happens when (default: random)")
    add("--timeout", type=float, default=1800, metavar="SECONDS", help="default: %(default)s")
    add("--keep", type=Path, metavar="FOLDER", help="leave logs and all else that Airflow wrote there")
    add("--output", choices=("table", "json"), default="table", help="default: %(default)s")
    return parser.parse_args()


def main() -> None:
    options = parse()
    print(f"--seed {options.seed}", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory(prefix="dispatch-bench-") as folder:
        home = Path(folder) / "airflow"
        try:
            with ExitStack() as stack:
                result = run(options, home, stack)
        finally:
            if options.keep and home.exists():
                shutil.copytree(home, options.keep, dirs_exist_ok=True)
    print(json.dumps(result, indent=2) if options.output == "json" else table(TABLE, result))
    good = result["succeeded"] == options.tasks and not (result["astray"] or result["left"])
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
