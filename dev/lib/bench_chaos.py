# SPDX-License-Identifier: Apache-2.0
"""Outages under a real Airflow on PostgreSQL: what they cost a Dag of very short tasks, and the scheduler's loop.

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
import random
import shutil
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from chaos_deployment import DAG_ID, WORKERS, Deployment, Outage, celery_options

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))
from airflow_cluster import ClusterError
from postgres_server import PostgresServer
from valkey_server import ValkeyServer

DOWN = (1.0, 5.0)
"""Seconds that something that was killed stays so."""

LAST = 0.8
"""No outage is begun once this part of the tasks has ended, unless others made it wait."""

AFTERMATH = 5.0
"""Seconds after an outage that count as part of it, for the scheduler's heartbeats."""

UNREPORTED = 10.0
"""Seconds between the end of a task's function and Airflow's knowing of it, at most."""

SETTLE = 75.0
"""Seconds after the Dag run's end within which all slots have to be free: the result watcher asks for all results
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
Action = tuple[str, Callable[[], None]]


class Progress:
    """Says on stderr how far the tasks are, and waits meanwhile."""

    def __init__(self, tasks: int) -> None:
        self.deployment: Deployment | None = None
        self._tasks = tasks
        self._began = self._said = time.monotonic()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._began

    def say(self, text: str) -> None:
        ended = len(self.deployment.ended()) if self.deployment else 0
        print(f"{self.seconds:7.1f} s, {ended} of {self._tasks} ended: {text}", file=sys.stderr, flush=True)
        self._said = time.monotonic()

    def wait(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        self.until(lambda: time.monotonic() >= until)

    def until(self, condition: Callable[[], bool], timeout: float = math.inf) -> bool:
        """Wait until it is so; returns whether it is. Raises ClusterError when a component ends by itself."""
        deadline = time.monotonic() + timeout
        while not (so := condition()) and time.monotonic() < deadline:
            if self.deployment:
                self.deployment.airflow.check_running()
            if time.monotonic() - self._said >= 10:
                self.say("going on")
            time.sleep(min(0.5, max(0.0, deadline - time.monotonic())))
        return so


def settings(options: argparse.Namespace, celery: dict[str, str]) -> dict[str, str]:
    backend = {"executor": "CeleryExecutor", "slots": options.tasks, "config": {"celery": celery}}
    timeout = str(options.queued_timeout)
    return {
        "AIRFLOW__CORE__PARALLELISM": str(options.tasks),
        "AIRFLOW__CORE__MAX_MAP_LENGTH": str(options.tasks),
        "AIRFLOW__CORE__DEFAULT_POOL_TASK_SLOT_COUNT": str(options.tasks),
        "AIRFLOW__DISPATCH__BACKENDS": json.dumps({"celery": backend}),
        "AIRFLOW__EXECUTION_API__JWT_EXPIRATION_TIME": timeout,
        "AIRFLOW__SCHEDULER__MAX_TIS_PER_QUERY": "512",
        "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "5",
        "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": "15",
        "AIRFLOW__SCHEDULER__SCHEDULER_HEARTBEAT_SEC": "1",
        "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.2",
        "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_SEC": "5",
        "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "30",
        "AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT": timeout,
    }


def plan(options: argparse.Namespace, deployment: Deployment, rng: random.Random) -> list[tuple[int, Action]]:
    """What to break, and how many tasks have to have ended before: the first broker is killed as tasks are sent."""

    def kill_broker(index: int) -> Action:
        empty, seconds = index % 2 == 0, rng.uniform(*DOWN)
        what = f"the broker is killed, and comes back {'empty' if empty else 'with its data'}"
        return what, partial(deployment.kill_broker, empty, seconds)

    kills = [kill_broker(index) for index in range(options.broker_kills)]
    first, later = kills[:1], kills[1:]
    worker, seconds = rng.choice(WORKERS), options.result_outage
    later += [
        (f"the broker hangs for {options.hang:g} s", partial(deployment.hang_broker, options.hang)),
        (f"the result backend is down for {seconds:g} s", partial(deployment.stop_results, seconds)),
        (f"{worker} is killed", partial(deployment.kill_worker, worker, rng.uniform(*DOWN))),
        ("the scheduler is killed", partial(deployment.kill_scheduler, rng.uniform(*DOWN))),
    ]
    rng.shuffle(later)
    moments = sorted(int(rng.uniform(0, LAST) * options.tasks) for _ in later)
    return [*((0, action) for action in first), *zip(moments, later, strict=True)]


def run(options: argparse.Namespace, home: Path, stack: ExitStack) -> dict[str, Any]:
    postgres = stack.enter_context(PostgresServer())
    servers = ValkeyServer(appendonly=True), ValkeyServer(appendonly=True)
    for server in servers:
        stack.enter_context(server)
    progress = Progress(options.tasks)
    deployment = Deployment(
        home,
        postgres.create_database("chaos"),
        servers,
        settings(options, celery_options(*servers)),
        options.tasks,
        options.concurrency,
        options.workers == "patient",
        progress.wait,
    )
    progress.say("Airflow starts")
    stack.enter_context(deployment.airflow)
    progress.deployment = deployment
    for name in WORKERS:
        deployment.start_worker(name)
    if not progress.until(lambda: all(map(deployment.ready, WORKERS)), 120):
        raise ClusterError("the workers are not ready after 120 s")
    rng = random.Random(options.seed)
    steps = plan(options, deployment, rng)
    run_id = deployment.airflow.trigger(DAG_ID)
    began = progress.seconds
    play(steps, deployment, progress, rng, began + options.timeout)
    ended = partial(run_ended, deployment, run_id)
    if not progress.until(ended, began + options.timeout - progress.seconds):
        progress.say(f"the Dag run has not ended after {options.timeout:.0f} s")
    seconds = progress.seconds - began
    progress.say("waiting until all slots are free")
    progress.until(lambda: not slots_taken(deployment), SETTLE)
    return {"seed": options.seed, **figures(deployment, run_id, seconds), "phases": phases(deployment)}


def play(
    steps: list[tuple[int, Action]],
    deployment: Deployment,
    progress: Progress,
    rng: random.Random,
    until: float,
) -> None:
    for moment, (what, action) in steps:
        reached = partial(lambda least: len(deployment.ended()) >= least, moment)
        if not progress.until(reached, until - progress.seconds):
            return
        progress.wait(rng.uniform(0, 2))
        progress.say(what)
        action()
        progress.say("repaired")


def run_ended(deployment: Deployment, run_id: str) -> bool:
    try:
        return deployment.airflow.dag_run(DAG_ID, run_id)["state"] in ("success", "failed")
    except OSError:  # the API server is busy
        return False


def slots_taken(deployment: Deployment) -> int:
    """After the last heartbeat."""
    schedulers = deployment.beats()
    return schedulers[-1][-1][2] if schedulers else 0


def figures(deployment: Deployment, run_id: str, seconds: float) -> dict[str, Any]:
    airflow = deployment.airflow
    rows = airflow.task_instances(DAG_ID, run_id)
    states = Counter(row["state"] for row in rows)
    events = Counter(row["event"] for row in airflow.event_logs(dag_id=DAG_ID))
    again, excused = completed_again(deployment)
    inside = {False: [0.0], True: [0.0]}
    for _, milliseconds, _, phase in classified(deployment):
        inside[not phase.startswith("no outage")].append(milliseconds)
    return {
        "tasks": len(rows),
        "succeeded": states["success"],
        "failed": states["failed"] + states["upstream_failed"],
        "unended": len(rows) - sum(states[state] for state in ("success", "failed", "upstream_failed")),
        "started_again": sum(count > 1 for count in Counter(deployment.started()).values()),
        "completed_again": len(again),
        "excused": len(excused),
        "retried": sum(row["try_number"] > 1 for row in rows),
        "stuck": sum(count for event, count in events.items() if "stuck" in event),
        "waited": events["waiting for broker"],
        "slots": slots_taken(deployment),
        "seconds": seconds,
        "longest_calm": max(inside[False]),
        "longest_outage": max(inside[True]),
        "events": dict(events),
    }


def completed_again(deployment: Deployment) -> tuple[set[int], set[int]]:
    """Tasks that completed more than once; and those of them that did not, but for runs whose worker was killed
    before it could tell."""
    killed = {o.kind.split()[0]: o.began for o in deployment.outages if o.kind.split()[0] in WORKERS}
    runs: Counter[int] = Counter()
    told: Counter[int] = Counter()
    for done in deployment.completions():
        runs[done.number] += 1
        death = killed.get(done.worker, math.inf)
        told[done.number] += not (done.started <= death <= done.ended + UNREPORTED)
    again = {number for number, count in runs.items() if count > 1}
    return again, {number for number in again if told[number] <= 1}


def classified(deployment: Deployment) -> list[tuple[float, float, float, str]]:
    """Each heartbeat of each scheduler: when, milliseconds, seconds until the next one, in which phase."""
    found = []
    for beats in deployment.beats():
        nexts = [at for at, _, _ in beats[1:]] + [math.nan]
        for (at, milliseconds, _), following in zip(beats, nexts, strict=True):
            phase = phase_of(at, at + milliseconds / 1e3, deployment.outages)
            found.append((at, milliseconds, following - at, phase))
    return found


def phase_of(began: float, ended: float, outages: list[Outage]) -> str:
    """The outage that a heartbeat fell into, or whether there was none before the hang, or after it."""
    for outage in outages:
        if began < outage.ended + AFTERMATH and ended > outage.began:
            return "worker killed" if outage.kind.split()[0] in WORKERS else outage.kind
    hang = next((outage.began for outage in outages if outage.kind == "broker hangs"), math.inf)
    return "no outage, before the hang" if began < hang else "no outage, after the hang"


def phases(deployment: Deployment) -> dict[str, dict[str, float]]:
    """Of each phase: heartbeats, and median and maximum of a heartbeat and of a round of the scheduler's loop."""
    groups: dict[str, list[tuple[float, float]]] = {}
    for _, milliseconds, loop, phase in sorted(classified(deployment)):
        groups.setdefault(phase, []).append((milliseconds, loop * 1e3))
    found = {}
    for phase, values in groups.items():
        beats = [value for value, _ in values]
        loops = [loop for _, loop in values if not math.isnan(loop)] or [0.0]
        found[phase] = {
            "heartbeats": len(beats),
            "median": statistics.median(beats),
            "max": max(beats),
            "loop_median": statistics.median(loops),
            "loop_max": max(loops),
        }
    return found


def table(result: dict[str, Any]) -> str:
    lines = [f"{'seed':34}{result['seed']:>10}"]
    for name, title in TABLE.items():
        value = result[name]
        lines.append(f"{title:34}{value:10.2f}" if isinstance(value, float) else f"{title:34}{value:10}")
    names = ("heartbeats", "median ms", "max ms", "loop median ms", "loop max ms")
    lines += ["", f"{'scheduler':34}" + "".join(f"{name:>16}" for name in names)]
    for phase, row in result["phases"].items():
        count, *times = row.values()
        lines.append(f"{phase:34}{count:16}" + "".join(f"{value:16.2f}" for value in times))
    return "\n".join(lines)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog=sys.argv[0], description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--tasks", type=int, default=1000, help="default: %(default)s")
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
    add("--seed", type=int, default=random.randrange(10**6), help="of what happens when (default: random)")
    add(
        "--queued-timeout",
        type=float,
        metavar="SECONDS",
        help="[scheduler] task_queued_timeout; by default 120, the outages, and a second for each task, for most"
        " of them wait in the broker",
    )
    add("--timeout", type=float, metavar="SECONDS", help="by default 600 and four times --queued-timeout")
    add("--keep", type=Path, metavar="FOLDER", help="leave logs and all else that Airflow wrote there")
    add("--output", choices=("table", "json"), default="table", help="default: %(default)s")
    options = parser.parse_args()
    if options.queued_timeout is None:
        options.queued_timeout = 120 + options.hang + options.result_outage + options.tasks
    if options.timeout is None:
        options.timeout = 600 + 4 * options.queued_timeout
    return options


def main() -> None:
    options = parse()
    print(f"--seed {options.seed} --queued-timeout {options.queued_timeout:g}", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory(prefix="dispatch-bench-") as folder:
        home = Path(folder) / "airflow"
        try:
            with ExitStack() as stack:
                result = run(options, home, stack)
        finally:
            if options.keep and home.exists():
                shutil.copytree(home, options.keep, dirs_exist_ok=True)
    print(json.dumps(result, indent=2) if options.output == "json" else table(result))
    good = result["succeeded"] == options.tasks and result["completed_again"] == result["excused"]
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
