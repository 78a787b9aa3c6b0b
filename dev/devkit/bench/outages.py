# SPDX-License-Identifier: Apache-2.0
"""Common parts of the benchmarks of outages: a plan, carried out while tasks run, and the scheduler's heartbeats."""

from __future__ import annotations

import argparse
import json
import math
import shutil
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from random import Random, randrange
from typing import Any

from devkit.bench.comparison import benchmark_parser
from devkit.deployments.airflow_cluster import AirflowCluster
from devkit.deployments.outages import Beats, Deployment, Outage
from devkit.environment import say
from devkit.tables import table

RUN = 100
"""Tasks of one Dag run: Airflow's scheduler reads all tasks of a run whenever it looks at it."""

LAST = 0.8
"""No outage is begun once this part of the tasks has ended, unless others made it wait."""

RECOVERY = 5.0
"""Seconds after an outage that count as part of it, for the scheduler's heartbeats."""

DOWN = (1.0, 5.0)
"""Seconds that something that was killed stays so."""

Action = tuple[str, Callable[[], None]]
"""An outage and its end, in words and as a call."""

Run = Callable[[argparse.Namespace, Path, ExitStack], dict[str, Any]]
"""One run of a benchmark: its arguments, the home of an Airflow to be made, and what takes down what it starts."""

QUICK = {
    "AIRFLOW__CORE__MAX_MAP_LENGTH": str(RUN),
    "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "5",
    "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": "15",
    "AIRFLOW__SCHEDULER__SCHEDULER_HEARTBEAT_SEC": "1",
    "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.2",
}
"""Settings with which a dead scheduler is soon missed, and a loop follows soon upon another."""


class Progress:
    """Says on stderr how far the tasks are, and waits meanwhile."""

    def __init__(self, tasks: int) -> None:
        self.deployment: Deployment | None = None
        self.tasks = tasks
        self._began = self._said = time.monotonic()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._began

    def say(self, text: str) -> None:
        ended = self.deployment.ended() if self.deployment else 0
        say(f"{self.seconds:7.1f} s, {ended} of {self.tasks} ended: {text}")
        self._said = time.monotonic()

    def wait(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        self.until(lambda: time.monotonic() >= until)

    def until(self, condition: Callable[[], bool], timeout: float = math.inf) -> bool:
        """Wait until it is so; returns whether it is. Raises ClusterError when a component ends by itself."""
        deadline = time.monotonic() + timeout
        while not (so := condition()) and time.monotonic() < deadline:
            if self.deployment:
                self.deployment.revive()
                self.deployment.airflow.check_running()
            if time.monotonic() - self._said >= 10:
                self.say("going on")
            time.sleep(min(0.5, max(0.0, deadline - time.monotonic())))
        return so

    def ended(self, least: int) -> bool:
        return self.deployment is not None and self.deployment.ended() >= least


def schedule(actions: list[Action], tasks: int, rng: Random) -> list[tuple[int, Action]]:
    """Put them into a random order; each gets a number of tasks that have to have ended before."""
    shuffled = list(actions)
    rng.shuffle(shuffled)
    moments = sorted(int(rng.uniform(0, LAST) * tasks) for _ in shuffled)
    return list(zip(moments, shuffled, strict=True))


def play(steps: Sequence[tuple[int, Action]], progress: Progress, rng: Random, until: float) -> None:
    for moment, (what, action) in steps:
        if not progress.until(partial(progress.ended, moment), until - progress.seconds):
            return
        progress.wait(rng.uniform(0, 2))
        progress.say(what)
        action()
        progress.say("repaired")


def carry_out(
    deployment: Deployment,
    steps: Sequence[tuple[int, Action]],
    progress: Progress,
    rng: Random,
    timeout: float,
    watch: Callable[[], None] = lambda: None,
) -> tuple[list[str], float]:
    """Start the Dag as often as it takes, break what is to be broken, and wait until all runs have ended, for at most
    ``timeout`` seconds. Each run is told the number of its first task.

    :param watch: called now and then while waiting
    :return: run ids, and seconds
    """
    firsts = range(0, progress.tasks, RUN)
    run_ids = [deployment.airflow.trigger(deployment.dag_id, {"first": first}) for first in firsts]
    began = progress.seconds
    play(steps, progress, rng, began + timeout)
    open_runs = list(run_ids)

    def ended() -> bool:
        watch()
        return runs_ended(deployment.airflow, deployment.dag_id, open_runs)

    if not progress.until(ended, began + timeout - progress.seconds):
        progress.say(f"the Dag runs have not ended after {timeout:.0f} s")
    return run_ids, progress.seconds - began


def runs_ended(airflow: AirflowCluster, dag_id: str, open_runs: list[str]) -> bool:
    """:param open_runs: those that have ended are taken out"""
    try:
        while open_runs:
            if airflow.dag_run(dag_id, open_runs[0])["state"] not in ("success", "failed"):
                return False
            open_runs.pop(0)
    except OSError:  # the API server is busy
        return False
    return True


def figures(deployment: Deployment, run_ids: Sequence[str]) -> dict[str, Any]:
    """The outcome of the tasks, and the longest heartbeats."""
    airflow, dag_id = deployment.airflow, deployment.dag_id
    rows = [row for run_id in run_ids for row in airflow.task_instances(dag_id, run_id)]
    states = Counter(row["state"] for row in rows)
    events = Counter(row["event"] for row in airflow.event_logs(dag_id=dag_id))
    calm, troubled = longest(deployment.beats(), deployment.outages.found)
    return {
        "tasks": len(rows),
        "succeeded": states["success"],
        "failed": states["failed"] + states["upstream_failed"],
        "unended": len(rows) - sum(states[state] for state in ("success", "failed", "upstream_failed")),
        "retried": sum(row["try_number"] > 1 for row in rows),
        "stuck": sum(count for event, count in events.items() if "stuck" in event),
        "waited": events["waits_blocked"],
        "longest_calm": calm,
        "longest_outage": troubled,
        "events": dict(events),
        "phases": phases(deployment.beats(), deployment.outages.found),
    }


def longest(schedulers: Sequence[Beats], outages: Sequence[Outage]) -> tuple[float, float]:
    """Milliseconds of the longest heartbeat, apart from outages and in them."""
    inside = {False: [0.0], True: [0.0]}
    for _, milliseconds, _, phase in _classified(schedulers, outages):
        inside[not phase.startswith("no outage")].append(milliseconds)
    return max(inside[False]), max(inside[True])


def phases(schedulers: Sequence[Beats], outages: Sequence[Outage]) -> dict[str, dict[str, float]]:
    """Of each phase: heartbeats, and median and maximum of a heartbeat and of a round of the scheduler's loop."""
    groups: dict[str, list[tuple[float, float]]] = {}
    for _, milliseconds, loop, phase in sorted(_classified(schedulers, outages)):
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


def lines(titles: Mapping[str, str], result: Mapping[str, Any]) -> list[str]:
    """The figures of a run, and below them the scheduler's phases."""
    found = table(("seed", str(result["seed"])), [(title, result[name]) for name, title in titles.items()])
    names = ("scheduler", "heartbeats", "median ms", "max ms", "loop median ms", "loop max ms")
    phases = [(phase, *row.values()) for phase, row in result["phases"].items()]
    return [*found, "", *table(names, phases)]


def outages_parser(description: str) -> argparse.ArgumentParser:
    """With the arguments that every benchmark of outages has."""
    parser = benchmark_parser(description)
    add = parser.add_argument
    add("--tasks", type=whole_runs, default=1000, help=f"a multiple of {RUN} (default: %(default)s)")
    add("--seed", type=int, default=randrange(10**6), help="of what happens when (default: random)")
    add("--keep", type=Path, metavar="FOLDER", help="leave logs and all else that Airflow wrote there")
    return parser


def whole_runs(text: str) -> int:
    """For argparse."""
    if not text.isdigit() or int(text) % RUN or not int(text):
        raise ValueError(text)
    return int(text)


whole_runs.__name__ = f"multiple of {RUN}"  # what argparse says was expected


def run_in_folder(options: argparse.Namespace, run: Run, titles: Mapping[str, str]) -> dict[str, Any]:
    """Call it with an Airflow home that is gone afterwards, and print what it returns."""
    with tempfile.TemporaryDirectory(prefix="dispatch-bench-") as folder:
        home = Path(folder) / "airflow"
        try:
            with ExitStack() as stack:
                result = {"seed": options.seed, **run(options, home, stack)}
        finally:
            if options.keep and home.exists():
                shutil.copytree(home, options.keep, dirs_exist_ok=True)
    print(json.dumps(result, indent=2) if options.output == "json" else "\n".join(lines(titles, result)))
    return result


def _classified(
    schedulers: Sequence[Beats], outages: Sequence[Outage]
) -> list[tuple[float, float, float, str]]:
    """Each heartbeat of each scheduler: when, milliseconds, seconds until the next one, in which phase."""
    found = []
    for beats in schedulers:
        nexts = [at for at, _, _ in beats[1:]] + [math.nan]
        for (at, milliseconds, _), following in zip(beats, nexts, strict=True):
            phase = _phase_of(at, at + milliseconds / 1e3, outages)
            found.append((at, milliseconds, following - at, phase))
    return found


def _phase_of(began: float, ended: float, outages: Sequence[Outage]) -> str:
    """The outage that a heartbeat fell into, or whether there was none before something hung, or after it."""
    for outage in outages:
        if began < outage.ended + RECOVERY and ended > outage.began:
            return outage.kind
    hang = next((outage.began for outage in outages if outage.kind.endswith("hangs")), math.inf)
    return "no outage, before the hang" if began < hang else "no outage, after the hang"
