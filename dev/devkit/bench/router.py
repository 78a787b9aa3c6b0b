# SPDX-License-Identifier: Apache-2.0
"""The cost of routing: DispatchExecutor over in-memory backends against one of these backends alone.

Both get the same workloads; the difference is the router's own share. No database, no process, no network.

  over engines     backends that are engines, as this package's executors have them
  over executors   backends that are executors of somebody else: each workload is copied for them, and goes through the
                   queues of Airflow's base class
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

from devkit.bench.comparison import benchmark_parser, summary
from devkit.environment import say
from devkit.tables import table

os.environ["AIRFLOW__CORE__PARALLELISM"] = "1000000"
QUEUES = 20


def configure(backends: int, slots: int, executor: str) -> None:
    """Half of the queues are routed by name, half by globs; two backends in turn, with overflow.

    :param executor: a class of ``devkit.bench.in_memory``
    """
    names = [f"b{number}" for number in range(backends)]
    path = f"devkit.bench.in_memory.{executor}"
    routes = [
        {"queue": f"q{n}" if n % 2 else f"q{n}*", "to": [names[n % backends], names[(n + 1) % backends]]}
        for n in range(QUEUES)
    ]
    options = {
        "backends": json.dumps({name: {"executor": path, "slots": slots} for name in names}),
        "routes": json.dumps(routes),
        "default": names[0],
        "max_held": "1000000",
    }
    for option, value in options.items():
        os.environ[f"AIRFLOW__DISPATCH__{option.upper()}"] = value


class EngineAlone:
    """One engine, given what the router would give it."""

    def __init__(self, slots: int) -> None:
        from devkit.bench.in_memory import InMemoryEngine

        self.engine = InMemoryEngine(slots)

    def run(self, tasks: list[Any]) -> int:
        """Queue, send and end these tasks; returns how many ends were told."""
        from airflow_dispatch_provider.engines.engine import Job

        self.engine.submit([Job(number, task.ti.key, task) for number, task in enumerate(tasks)])
        self.engine.poll()
        self.engine.finish_all()
        return len(self.engine.poll())


class Executor:
    """An executor that is driven as the scheduler does it."""

    def __init__(self, executor: Any, backends: list[Any]) -> None:
        self.executor, self.backends = executor, backends

    def run(self, tasks: list[Any]) -> int:
        """Queue, send and end these tasks; returns how many ends were told."""
        self.give(tasks)
        self.end_all()
        return self.drain()

    def give(self, tasks: list[Any]) -> None:
        for task in tasks:
            self.executor.queue_workload(task, None)
        self.executor.heartbeat()

    def end_all(self) -> None:
        """With the second heartbeat comes the database's answer."""
        for backend in self.backends:
            backend.finish_all()
        self.executor.heartbeat()
        self.executor.heartbeat()

    def drain(self) -> int:
        """Events as the scheduler takes them, and the rows of the event log."""
        events = self.executor.get_event_buffer()
        self.executor._task_event_logs.clear()
        return len(events)


def executor_alone(slots: int) -> Executor:
    from devkit.bench.in_memory import PlainExecutor

    make: Any = PlainExecutor
    executor = make(parallelism=slots)
    return Executor(executor, [executor])


def routed(has_event_log: bool = True) -> Executor:
    """The router, as configured.

    :param has_event_log: it makes the rows of the event log: each is one object of Airflow's ``Log``
    """
    from airflow_dispatch_provider.executors.dispatch_executor import DispatchExecutor
    from devkit.bench.in_memory import EngineExecutor
    from devkit.bench.without_database import without_database

    executor: Any = DispatchExecutor(parallelism=32)
    without_database(executor)
    EngineExecutor.made.clear()
    executor.start()
    if not has_event_log:
        executor._loop._surface.dispatched = lambda backend, dispatches: None
    backends = [backend.executor for backend in executor._backends.values()]
    return Executor(executor, list(EngineExecutor.made) or backends)


def cost_per_task(subject: EngineAlone | Executor, tasks: list[Any], burst: int) -> float:
    """Microseconds from queue_workload to the drained terminal event, for each task.

    :param burst: how many are queued, dispatched and ended together
    """
    gc.collect()
    start = time.perf_counter()
    ended = sum(subject.run(tasks[first : first + burst]) for first in range(0, len(tasks), burst))
    seconds = time.perf_counter() - start
    assert ended == len(tasks), (ended, len(tasks))
    return seconds / len(tasks) * 1e6


def median_heartbeat(executor: Executor) -> float:
    """Milliseconds of a heartbeat and drain in which nothing changes; median of 50."""
    times = []
    for _ in range(50):
        start = time.perf_counter()
        executor.executor.heartbeat()
        executor.drain()
        times.append((time.perf_counter() - start) * 1e3)
    return statistics.median(times)


def idle_heartbeat(tasks: list[Any]) -> float:
    """The same while all tasks run."""
    router = routed()
    router.give(tasks)
    router.drain()
    return median_heartbeat(router)


def held_heartbeat(tasks: list[Any]) -> float:
    """The same while every slot is taken and all but a few of these tasks are held."""
    router = routed()
    for engine in router.executor._loop.engines.values():
        engine.slots = 1
    router.give(tasks)
    router.drain()
    return median_heartbeat(router)


def workloads(number: int) -> list[Any]:
    from airflow_dispatch_provider.testing import make_task

    return [make_task(f"q{n % QUEUES}", priority=n % 7) for n in range(number)]


def costs(args: argparse.Namespace, subjects: dict[str, Any]) -> dict[str, list[float]]:
    """Microseconds a task, in turns; a run before the first is not counted."""
    figures: dict[str, list[float]] = {name: [] for name in subjects}
    for run in range(args.runs + 1):
        tasks = workloads(args.tasks)
        each = {name: cost_per_task(subject, tasks, args.burst) for name, subject in subjects.items()}
        say(f"run {run} of {args.runs}: " + ", ".join(f"{name} {cost:.1f} us" for name, cost in each.items()))
        if run:
            for name, cost in each.items():
                figures[name].append(cost)
    return figures


def measured_over(
    args: argparse.Namespace, kind: str, executor: str, alone: Callable[[int], Any]
) -> list[dict[str, Any]]:
    """Rows of one kind of backend."""
    configure(args.backends, args.tasks, executor)
    subjects = {"alone": alone(args.tasks), "routed": routed(), "without event log": routed(False)}
    own, through, unlogged = costs(args, subjects).values()
    return [
        row(f"{kind} alone, us a task ({args.tasks:,} tasks)", own),
        row(f"through the router, over {kind}s, us a task", through),
        row("the router's share, us a task", [b - a for a, b in zip(own, through, strict=True)]),
        row("... without its event-log rows", [b - a for a, b in zip(own, unlogged, strict=True)]),
    ]


def measure(args: argparse.Namespace) -> list[dict[str, Any]]:
    rows = measured_over(args, "executor", "PlainExecutor", executor_alone)
    rows += measured_over(args, "engine", "EngineExecutor", EngineAlone)
    idle = [idle_heartbeat(workloads(10_000)) for _ in range(args.runs)]
    held = [held_heartbeat(workloads(10_000)) for _ in range(args.runs)]
    return [
        *rows,
        row("heartbeat, 10,000 running, nothing changed, ms", idle),
        row("heartbeat, 10,000 held, every slot taken, ms", held),
    ]


def row(what: str, values: list[float]) -> dict[str, Any]:
    return {"what": what, **summary(values)}


def main() -> None:
    parser = benchmark_parser(__doc__)
    parser.add_argument("--tasks", type=int, default=100_000)
    parser.add_argument("--burst", type=int, default=1_000, help="queued at a time (default: %(default)s)")
    parser.add_argument("--backends", type=int, default=3)
    parser.add_argument("--runs", type=int, default=5)
    args = parser.parse_args()
    rows = measure(args)
    shown = table(("", "min", "median", "max"), [list(row.values()) for row in rows])
    print(json.dumps(rows, indent=2) if args.output == "json" else "\n".join(shown))
