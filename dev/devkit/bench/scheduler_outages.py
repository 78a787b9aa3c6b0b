# SPDX-License-Identifier: Apache-2.0
"""Two schedulers under fire: a real Airflow on PostgreSQL.

Behind the router are three LocalExecutor backends, or two CeleryExecutor backends with a broker, a result backend and a
worker each. --executor airflow runs Airflow's own LocalExecutor or CeleryExecutor with as many slots instead. While the
tasks run, in random order and at random moments, one after the other:

  scheduler killed     SIGKILL to one, and to both, and a new start
  scheduler stopped    SIGSTOP to one for longer than the other takes it for alive, and SIGCONT
  api-server killed    SIGKILL, and a new start
  database restarted   PostgreSQL ends all sessions, and starts with its data
  child killed         SIGKILL to the process of which a scheduler's task processes are children

What ends by itself meanwhile is started again. The exit code is 1 when a task did not end in success, started twice in
one try, or lost a try that the Execution API had not let begin. A task that was let begin and meets no API server after
that is its supervisor's affair, whichever executor has launched it: Airflow gives it another try, also where only its
success could not be reported.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Mapping
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
from devkit.deployments.two_schedulers import SCHEDULERS, Backends, TwoSchedulers, celery, local
from devkit.environment import say
from devkit.servers.postgres import PostgresServer
from devkit.servers.valkey import ValkeyServer

PAUSE = (20.0, 30.0)
"""Seconds for which a scheduler is stopped; after 15 the other one takes it for dead, see QUICK."""

TABLE = {
    "tasks": "tasks",
    "succeeded": "succeeded",
    "failed": "failed",
    "unended": "not ended",
    "started_again": "started twice in one try",
    "unbegun": "lost a try that was not let begin",
    "halfway": "lost a try between that and its function",
    "completed_again": "completed in two tries",
    "retried": "tries > 1",
    "seconds": "seconds",
    "longest_calm": "longest heartbeat, no outage, ms",
    "longest_outage": "longest heartbeat, outages, ms",
}


def settings(tasks: int) -> dict[str, str]:
    return {
        **QUICK,
        "AIRFLOW__CORE__DEFAULT_POOL_TASK_SLOT_COUNT": str(tasks),
        # Just started, an API server may need longer than the default of 5 s for its first answers.
        "AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT": "60",
    }


def plan(deployment: TwoSchedulers, tasks: int, rng: Random) -> list[tuple[int, Action]]:
    """Each kind once, or once for each number of schedulers."""
    one, other, paused = rng.choice(SCHEDULERS), rng.choice(SCHEDULERS), rng.choice(SCHEDULERS)
    kill = deployment.kill_schedulers

    def down() -> float:
        return rng.uniform(*DOWN)

    actions: list[Action] = [
        (f"{one} is killed", partial(kill, (one,), down())),
        ("both schedulers are killed", partial(kill, SCHEDULERS, down())),
        (f"{paused} is stopped", partial(deployment.pause_scheduler, paused, rng.uniform(*PAUSE))),
        ("the api-server is killed", partial(deployment.kill_api_server, down())),
        ("the database is restarted", deployment.restart_database),
        (f"a child of {other} is killed", partial(deployment.kill_child, other)),
    ]
    return schedule(actions, tasks, rng)


def run(options: argparse.Namespace, home: Path, stack: ExitStack) -> dict[str, Any]:
    postgres = stack.enter_context(PostgresServer())
    progress = Progress(options.tasks)
    backends, runs = backends_of(options, stack), options.tasks // RUN
    deployment = TwoSchedulers(home, postgres, settings(options.tasks), backends, runs, RUN, progress.wait)
    start(deployment, progress, stack)
    rng = Random(options.seed)
    steps = plan(deployment, options.tasks, rng)
    run_ids, seconds = carry_out(deployment, steps, progress, rng, options.timeout)
    return {**outcome(deployment, run_ids), "seconds": seconds}


def start(deployment: TwoSchedulers, progress: Progress, stack: ExitStack) -> None:
    """Airflow and the workers; returns when all are ready.

    :param stack: takes them down
    """
    progress.say("Airflow starts")
    stack.enter_context(deployment.airflow)
    deployment.start()
    progress.deployment = deployment
    if not progress.until(deployment.is_ready, 120):
        raise ClusterError("the workers are not ready after 120 s")


def outcome(deployment: TwoSchedulers, run_ids: list[str]) -> dict[str, Any]:
    """The figures of ``TABLE``, but for the seconds."""
    starts = Counter(deployment.tries("start"))
    ends = Counter(trace.number for trace in set(deployment.tries("end")))
    return {
        **figures(deployment, run_ids),
        "started_again": sum(count > 1 for count in starts.values()),
        **lost_tries(deployment, run_ids),
        "completed_again": sum(count > 1 for count in ends.values()),
    }


def backends_of(options: argparse.Namespace, stack: ExitStack) -> Backends:
    of_airflow = options.executor == "airflow"
    if options.backends == "local":
        return local(of_airflow)
    servers = [stack.enter_context(ValkeyServer(appendonly=True)) for _ in range(4)]
    return celery(of_airflow, [(servers[0], servers[1]), (servers[2], servers[3])])


def lost_tries(deployment: TwoSchedulers, run_ids: list[str]) -> dict[str, int]:
    """Tries before the last one of a task that were not let begin, and in which its function had not begun."""
    begun = set(deployment.tries("start"))
    let_begin = {
        (row["run_id"], row["task_id"], row["map_index"], row["try_number"])
        for row in deployment.airflow.event_logs(dag_id=deployment.dag_id, event="running")
    }
    lost = {"unbegun": 0, "halfway": 0}
    for run_id in run_ids:
        first = int(deployment.airflow.dag_run(deployment.dag_id, run_id)["conf"]["first"])
        for row in deployment.airflow.task_instances(deployment.dag_id, run_id):
            number = first + index_of(row, list(deployment.backends.slots))
            for attempt in range(1, row["try_number"]):
                if (number, attempt) not in begun:
                    was_let = (run_id, row["task_id"], row["map_index"], attempt) in let_begin
                    lost["halfway" if was_let else "unbegun"] += 1
    return lost


def index_of(row: dict[str, Any], queues: list[str]) -> int:
    """The number of a task within its run: a task for each queue, mapped over every so many numbers."""
    return int(queues.index(row["queue"]) + row["map_index"] * len(queues))


def main() -> None:
    parser = outages_parser(str(__doc__))
    parser.set_defaults(tasks=200)
    add = parser.add_argument
    add("--backends", choices=("local", "celery"), default="local", help="default: %(default)s")
    add("--executor", choices=("dispatch", "airflow"), default="dispatch", help="default: %(default)s")
    add("--timeout", type=float, default=900, metavar="SECONDS", help="default: %(default)s")
    options = parser.parse_args()
    say(f"--seed {options.seed} --backends {options.backends} --executor {options.executor}")
    result = run_in_folder(options, run, TABLE)
    sys.exit(0 if is_right(result) else 1)


def is_right(result: Mapping[str, Any]) -> bool:
    """Whether all succeeded, and none started twice in one try or lost one that was not let begin."""
    wrong = result["started_again"] or result["unbegun"]
    return bool(result["succeeded"] == result["tasks"] and not wrong)
