# SPDX-License-Identifier: Apache-2.0
"""Everything at once: a real Airflow with two schedulers and five backends, all of which fail.

Airflow on PostgreSQL, and behind the router a LocalExecutor, two CeleryExecutors with a broker, a result backend and a
worker each, and two KubernetesExecutors with an API server and a node each. While the tasks run, in random order and at
random moments, one after the other; each kind before any a second time:

  scheduler killed       SIGKILL to one, or to both, and a new start
  scheduler stopped      SIGSTOP to one for longer than the other takes it for alive, and SIGCONT
  schedulers restarted   SIGTERM to one after the other, and a new start
  child killed           SIGKILL to the process of which a scheduler's task processes are children
  api-server killed      SIGKILL, and a new start
  database restarted     PostgreSQL ends all sessions, and starts with its data
  broker killed          SIGKILL, and a new start, with its messages or without
  results killed         SIGKILL to a result backend, and a new start with its data
  cluster killed         SIGKILL to an API server of Kubernetes, and a new start with its data
  cluster hangs          what is between the schedulers and it accepts connections and passes nothing on
  connections cut        every second, all connections of the schedulers to it are reset
  configuration changed  for a while, a backend is cordoned, has one slot, or is not there

Pods run a few lines in place of Airflow's supervisor; all other tasks are run as Airflow has it. The exit code is 1
when a task did not end in success, started twice in one try, or lost a try that the Execution API had not let begin, or
when a message, a pod or a slot is left at the end. Logs on a full disk and clocks that jump are not among the faults.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

from devkit.bench.outages import (
    DOWN,
    RUN,
    Action,
    Progress,
    carry_out,
    outages_parser,
    run_in_folder,
    schedule,
)
from devkit.bench.scheduler_outages import PAUSE, TABLE, is_right, outcome, settings, start
from devkit.deployments.everything import CELERY, SLOTS, Everything, Routing
from devkit.deployments.kubernetes import BACKENDS
from devkit.deployments.two_schedulers import SCHEDULERS
from devkit.environment import say
from devkit.servers.postgres import PostgresServer

SETTLE = 90.0
"""Seconds after the Dag runs' end within which no message, pod or slot may be left."""

HANG = (5.0, 30.0)
"""Seconds for which something hangs, or the configuration is another one."""

Fault = Callable[[Everything, Random], Action]

LEFT = {"messages": "messages left behind", "pods": "pods left behind", "slots": "slots left behind"}


def _scheduler_killed(deployment: Everything, rng: Random) -> Action:
    names = rng.choice([SCHEDULERS[:1], SCHEDULERS[1:], SCHEDULERS])
    return f"{' and '.join(names)}: SIGKILL", partial(deployment.kill_schedulers, names, rng.uniform(*DOWN))


def _scheduler_stopped(deployment: Everything, rng: Random) -> Action:
    name = rng.choice(SCHEDULERS)
    return f"{name} is stopped", partial(deployment.pause_scheduler, name, rng.uniform(*PAUSE))


def _schedulers_restarted(deployment: Everything, rng: Random) -> Action:
    return "the schedulers are restarted, one after the other", partial(deployment.roll, rng.uniform(*DOWN))


def _child_killed(deployment: Everything, rng: Random) -> Action:
    name = rng.choice(SCHEDULERS)
    return f"a child of {name} is killed", partial(deployment.kill_child, name)


def _api_server_killed(deployment: Everything, rng: Random) -> Action:
    return "the api-server is killed", partial(deployment.kill_api_server, rng.uniform(*DOWN))


def _database_restarted(deployment: Everything, rng: Random) -> Action:
    return "the database is restarted", deployment.restart_database


def _broker_killed(deployment: Everything, rng: Random) -> Action:
    name, empty = rng.choice(CELERY), rng.random() < 0.5
    server = deployment.brokers[name]
    what = f"the broker {name} is killed{', and comes back empty' if empty else ''}"
    return what, partial(deployment.kill_server, "broker killed", server, rng.uniform(*DOWN), empty)


def _results_killed(deployment: Everything, rng: Random) -> Action:
    name = rng.choice(CELERY)
    server = deployment.results[name]
    call = partial(deployment.kill_server, "results killed", server, rng.uniform(*DOWN))
    return f"the result backend {name} is killed", call


def _cluster_killed(deployment: Everything, rng: Random) -> Action:
    name = rng.choice(BACKENDS)
    server = deployment.clusters[name]
    call = partial(deployment.kill_server, "cluster killed", server, rng.uniform(*DOWN))
    return f"the cluster {name} is killed", call


def _cluster_hangs(deployment: Everything, rng: Random) -> Action:
    name = rng.choice(BACKENDS)
    return f"the cluster {name} hangs", partial(deployment.hang, name, rng.uniform(*HANG))


def _connections_cut(deployment: Everything, rng: Random) -> Action:
    name = rng.choice(BACKENDS)
    return f"connections to {name} are cut", partial(deployment.cut_connections, name, rng.randint(5, 15))


def _configuration_changed(deployment: Everything, rng: Random) -> Action:
    name, what = rng.choice(list(SLOTS)), rng.choice(list(CHANGES))
    call = partial(deployment.reconfigure, partial(CHANGES[what], name), rng.uniform(*HANG))
    return f"{name}: {what}", call


def _cordon(name: str, routing: Routing) -> None:
    routing["backends"][name]["cordoned"] = True


def _shrink(name: str, routing: Routing) -> None:
    routing["backends"][name]["slots"] = 1


def _remove(name: str, routing: Routing) -> None:
    """Its tasks go to another one."""
    other = next(each for each in SLOTS if each != name)
    del routing["backends"][name]
    routing["default"] = other
    routing["routes"] = [route for route in routing["routes"] if route["queue"] != name]


CHANGES: dict[str, Callable[[str, Routing], None]] = {
    "is cordoned": _cordon,
    "has one slot": _shrink,
    "is not there": _remove,
}
FAULTS: tuple[Fault, ...] = (
    _scheduler_killed,
    _scheduler_stopped,
    _schedulers_restarted,
    _child_killed,
    _api_server_killed,
    _database_restarted,
    _broker_killed,
    _results_killed,
    _cluster_killed,
    _cluster_hangs,
    _connections_cut,
    _configuration_changed,
)


def plan(deployment: Everything, tasks: int, faults: int, rng: Random) -> list[tuple[int, Action]]:
    """So many, of which each kind is there before any is there again."""
    chosen: list[Fault] = []
    while len(chosen) < faults:
        chosen += rng.sample(FAULTS, len(FAULTS))
    return schedule([fault(deployment, rng) for fault in chosen[:faults]], tasks, rng)


def run(options: argparse.Namespace, home: Path, stack: ExitStack) -> dict[str, Any]:
    postgres = stack.enter_context(PostgresServer())
    progress = Progress(options.tasks)
    runs = options.tasks // RUN
    deployment = Everything(home, postgres, settings(options.tasks), stack, runs, RUN, progress.wait)
    start(deployment, progress, stack)
    rng = Random(options.seed)
    steps = plan(deployment, options.tasks, options.faults, rng)
    run_ids, seconds = carry_out(deployment, steps, progress, rng, options.timeout)
    progress.say("waiting until nothing is left")
    progress.until(lambda: not any(deployment.left().values()), SETTLE)
    return {**outcome(deployment, run_ids), **deployment.left(), "seconds": seconds}


def parse() -> argparse.Namespace:
    parser = outages_parser(str(__doc__))
    parser.set_defaults(tasks=200)
    add = parser.add_argument
    add("--faults", type=int, default=len(FAULTS), metavar="N", help="default: %(default)s, one of each kind")
    add("--timeout", type=float, default=1200, metavar="SECONDS", help="default: %(default)s")
    return parser.parse_args()


def main() -> None:
    options = parse()
    say(f"--seed {options.seed} --tasks {options.tasks} --faults {options.faults}")
    result = run_in_folder(options, run, {**TABLE, **LEFT})
    sys.exit(0 if is_right(result) and not any(result[name] for name in LEFT) else 1)
