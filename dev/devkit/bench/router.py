# SPDX-License-Identifier: Apache-2.0
"""The cost of routing: DispatchExecutor over in-memory backends against one in-memory executor alone.

Both get the same workloads; the difference is the router's own share. No database, no process, no network.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import time
from typing import Any

from devkit.bench.comparison import benchmark_parser, summary
from devkit.environment import say
from devkit.tables import table

os.environ["AIRFLOW__CORE__PARALLELISM"] = "1000000"
QUEUES = 20


def configure(backends: int, slots: int) -> None:
    """Half of the queues are routed by name, half by globs; two backends in turn, with overflow."""
    in_memory = "airflow_dispatch_provider.testing.in_memory.InMemoryExecutor"
    names = [f"b{number}" for number in range(backends)]
    routes = [
        {"queue": f"q{n}" if n % 2 else f"q{n}*", "to": [names[n % backends], names[(n + 1) % backends]]}
        for n in range(QUEUES)
    ]
    options = {
        "backends": json.dumps({name: {"executor": in_memory, "slots": slots} for name in names}),
        "routes": json.dumps(routes),
        "default": names[0],
        "max_held": "1000000",
    }
    for option, value in options.items():
        os.environ[f"AIRFLOW__DISPATCH__{option.upper()}"] = value


class Alone:
    """The in-memory executor by itself, driven like the router."""

    def __init__(self, slots: int) -> None:
        from airflow_dispatch_provider.testing import InMemoryExecutor

        self.executor = InMemoryExecutor(parallelism=slots)
        self.children = [self.executor]


class Routed:
    def __init__(self) -> None:
        from airflow_dispatch_provider.executors.dispatch_executor import DispatchExecutor
        from airflow_dispatch_provider.testing.in_memory_clerk import InMemoryClerk

        make: Any = DispatchExecutor  # its database is replaced
        self.executor = make(parallelism=32)
        self.executor._make_clerk = lambda limits: InMemoryClerk()
        self.executor.start()
        self.children = [backend.executor for backend in self.executor._backends.values()]


def drain(executor: Any) -> int:
    """Events as the scheduler takes them, and the rows of the event log."""
    events = executor.get_event_buffer()
    while executor._task_event_logs:
        executor._task_event_logs.popleft()
    return len(events)


def cost_per_task(subject: Any, tasks: list[Any], burst: int) -> float:
    """Microseconds from queue_workload to the drained terminal event, for each task.

    :param burst: how many are queued, dispatched and ended together
    """
    gc.collect()
    drained = 0
    start = time.perf_counter()
    for first in range(0, len(tasks), burst):
        for task in tasks[first : first + burst]:
            subject.executor.queue_workload(task, None)
        subject.executor.heartbeat()
        for child in subject.children:
            child.finish_all()
            child.given.clear()
        subject.executor.heartbeat()
        drained += drain(subject.executor)
    seconds = time.perf_counter() - start
    assert drained == len(tasks), (drained, len(tasks))
    return seconds / len(tasks) * 1e6


def without_event_log(subject: Any) -> Any:
    """The same router, writing no rows: each is one object of Airflow's ``Log``."""
    subject.executor._loop._surface.dispatched = lambda backend, dispatches: None
    return subject


def idle_heartbeat(subject: Any, tasks: list[Any]) -> float:
    """Milliseconds of one heartbeat and drain while all tasks run and nothing changes; median of 50."""
    for task in tasks:
        subject.executor.queue_workload(task, None)
    subject.executor.heartbeat()
    drain(subject.executor)
    times = []
    for _ in range(50):
        start = time.perf_counter()
        subject.executor.heartbeat()
        drain(subject.executor)
        times.append((time.perf_counter() - start) * 1e3)
    for child in subject.children:
        child.finish_all()
        child.given.clear()
    subject.executor.heartbeat()
    drain(subject.executor)
    return statistics.median(times)


def held_heartbeat(subject: Any, tasks: list[Any]) -> float:
    """Milliseconds of one heartbeat while every slot is taken and all these tasks are held; median of 50."""
    for engine in subject.executor._loop.engines.values():
        engine.slots = 1
    for task in tasks:
        subject.executor.queue_workload(task, None)
    subject.executor.heartbeat()
    times = []
    for _ in range(50):
        start = time.perf_counter()
        subject.executor.heartbeat()
        times.append((time.perf_counter() - start) * 1e3)
    return statistics.median(times)


def measure(args: argparse.Namespace) -> list[dict[str, Any]]:
    from airflow_dispatch_provider.testing import make_task

    def workloads(number: int) -> list[Any]:
        return [make_task(f"q{n % QUEUES}", priority=n % 7) for n in range(number)]

    configure(args.backends, args.tasks)
    alone, routed, silent = Alone(args.tasks), Routed(), without_event_log(Routed())
    own: list[float] = []
    through: list[float] = []
    unlogged: list[float] = []
    for run in range(args.runs + 1):
        tasks = workloads(args.tasks)
        costs = [cost_per_task(subject, tasks, args.burst) for subject in (alone, routed, silent)]
        for figures, cost in zip((own, through, unlogged), costs, strict=True):
            if run:
                figures.append(cost)
        said = ", ".join(f"{cost:.1f}" for cost in costs)
        say(f"run {run} of {args.runs}: alone, routed, without event log: {said} us")
    idle = [idle_heartbeat(routed, workloads(10_000)) for _ in range(args.runs)]
    held = [held_heartbeat(Routed(), workloads(10_000)) for _ in range(args.runs)]
    return [
        row(f"executor alone, us a task ({args.tasks:,} tasks)", own),
        row("through the router, us a task", through),
        row("the router's share, us a task", [b - a for a, b in zip(own, through, strict=True)]),
        row("... without its event-log rows", [b - a for a, b in zip(own, unlogged, strict=True)]),
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
