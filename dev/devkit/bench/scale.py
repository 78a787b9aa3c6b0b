# SPDX-License-Identifier: Apache-2.0
"""How the cost of a decision grows: the life cycle of all jobs by itself, without engines, database and Airflow.

Each case has so many schedulers with an equal part of the jobs, all of which are held; each queue has a route to two of
ten backends. Virtual time goes on by a second with each heartbeat. Measured for one scheduler, which is what its thread
spends; a case has a process of its own.

  queue      taking in one job, of 1,000 that come in one heartbeat
  decide     from a free slot to the dispatch, its end and its event, a job, 1,000 in each heartbeat
  idle       a heartbeat in which nothing has changed
  longest    the longest of 60 heartbeats in which the database answers for all that is held, as it is asked every 30 s
  memory     resident, a job; the keys and workloads that Airflow has anyway are not part of it
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from devkit.bench.comparison import benchmark_parser
from devkit.environment import say
from devkit.tables import Cell, table

BACKENDS = [f"b{number}" for number in range(10)]
_BATCH = 1_000
_LAUNCHED = 20_000


class Case(NamedTuple):
    """One size."""

    jobs: int
    """Of all schedulers."""

    queues: int
    schedulers: int


CASES = (
    Case(10_000, 20, 1),
    Case(100_000, 20, 1),
    Case(1_000_000, 20, 1),
    Case(10_000, 1_000, 1),
    Case(100_000, 1_000, 1),
    Case(1_000_000, 1_000, 1),
    Case(1_000_000, 1_000, 10),
)


class Scheduler:
    """A machine, and the time that it has taken."""

    def __init__(self, number: int, queues: int) -> None:
        from airflow_dispatch_provider.lifecycle.events import BackendRules, Limits, Settings
        from airflow_dispatch_provider.lifecycle.machine import Machine
        from airflow_dispatch_provider.routing.model import Route, Target
        from airflow_dispatch_provider.routing.routes import RouteTable

        routes = [
            Route(queue=f"q{n}", to=(Target(BACKENDS[n % 10]), Target(BACKENDS[(n + 1) % 10])))
            for n in range(queues)
        ]
        table = RouteTable(routes, Route(queue="*", to=(Target(BACKENDS[0]),)), {})
        rules = {name: BackendRules() for name in BACKENDS}
        self.machine = Machine(Settings(table, rules, Limits(max_held=10_000_000)), str(number))
        self.now = 0.0

    def handle(self, *happened: Any) -> tuple[list[Any], float]:
        """The actions, and the seconds that it took to find them."""
        began = time.perf_counter()
        actions = self.machine.handle(self.now, *happened)
        return actions, time.perf_counter() - began

    def beat(self, slots: int, *happened: Any) -> tuple[list[Any], float]:
        """A second later, with so many slots in each backend."""
        from airflow_dispatch_provider.lifecycle.events import Room, Tick

        self.now += 1.0
        return self.handle(*happened, Tick(dict.fromkeys(BACKENDS, Room(slots))))


def jobs_of(case: Case, number: int) -> Iterable[list[Any]]:
    """Those of one scheduler, in batches."""
    from airflow_dispatch_provider.lifecycle.events import Queued
    from airflow_dispatch_provider.routing.model import TaskRef

    rng, count = Random(number), case.jobs // case.schedulers
    for first in range(0, count, _BATCH):
        keys = range(first, min(first + _BATCH, count))
        yield [
            Queued(key, TaskRef(f"q{rng.randrange(case.queues)}", f"dag{key % 500}", ""), rng.randrange(10))
            for key in keys
        ]


def memory() -> int:
    """Bytes that are resident."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def fill(scheduler: Scheduler, case: Case, number: int) -> float:
    """Microseconds to take in one job, while every slot is taken; the median of the batches."""
    costs = []
    for batch in jobs_of(case, number):
        _, seconds = scheduler.handle(*batch)
        costs.append(seconds / len(batch) * 1e6)
        scheduler.beat(0)
    return statistics.median(costs)


def looked_after(scheduler: Scheduler) -> float:
    """Milliseconds of the longest heartbeat, each with the answers to what the one before has asked."""
    from airflow_dispatch_provider.lifecycle.actions import LookUp
    from airflow_dispatch_provider.lifecycle.events import Rows
    from airflow_dispatch_provider.lifecycle.states import Row, RowState

    longest, answers, queued = 0.0, list[Any](), Row(RowState.QUEUED)
    for _ in range(60):
        actions, seconds = scheduler.beat(0, *answers)
        longest = max(longest, seconds)
        asked = [action for action in actions if isinstance(action, LookUp)]
        answers = [Rows(each.asked, dict.fromkeys(each.keys, queued)) for each in asked]
    return longest * 1e3


def launched(scheduler: Scheduler, count: int) -> float:
    """Microseconds for each of so many jobs that find a slot, begin and end."""
    from airflow_dispatch_provider.lifecycle.actions import Submit
    from airflow_dispatch_provider.lifecycle.events import Began, Ended, Sent
    from airflow_dispatch_provider.lifecycle.states import Outcome

    spent, ended, numbers = 0.0, 0, list[int]()
    while ended < count:
        news = [event for n in numbers for event in (Sent(n), Began(n), Ended(n, Outcome.SUCCESS, True))]
        ended += len(numbers)
        actions, seconds = scheduler.beat(_BATCH // len(BACKENDS), *news)
        submits = [action for action in actions if isinstance(action, Submit)]
        numbers = [dispatch.number for submit in submits for dispatch in submit.dispatches]
        assert numbers, "nothing was dispatched"
        spent += seconds
    return spent / ended * 1e6


def measure(case: Case) -> dict[str, float]:
    """Figures of a case: of its first scheduler; memory of all."""
    schedulers = [Scheduler(number, case.queues) for number in range(case.schedulers)]
    before = memory()
    costs = [fill(scheduler, case, number) for number, scheduler in enumerate(schedulers)]
    used = memory() - before
    first = schedulers[0]
    first.now += 1.0
    idle = statistics.median(first.beat(0)[1] for _ in range(20))
    longest = looked_after(first)
    decide = launched(first, min(_LAUNCHED, case.jobs // case.schedulers // 2))
    return {
        "queue_us": costs[0],
        "decide_us": decide,
        "idle_ms": idle * 1e3,
        "longest_ms": longest,
        "memory_bytes": used / case.jobs,
    }


def shown(rows: Sequence[dict[str, float]]) -> list[str]:
    titles = (
        "jobs",
        "queues",
        "schedulers",
        "queue, us",
        "decide, us",
        "idle, ms",
        "longest, ms",
        "memory, B",
    )
    cells: list[list[Cell]] = [list(row.values()) for row in rows]
    return table(titles, cells, {"memory, B": ".0f"})


def arguments() -> argparse.Namespace:
    parser = benchmark_parser(__doc__)
    parser.add_argument(
        "--jobs", type=int, default=1_000_000, help="of the largest case (default: %(default)s)"
    )
    return parser.parse_args()


def main() -> None:
    args = arguments()
    rows = []
    for case in CASES:
        if case.jobs <= args.jobs:
            with ProcessPoolExecutor(1, get_context("spawn")) as pool:
                figures = pool.submit(measure, case).result()
            rows.append({**case._asdict(), **figures})
            say(", ".join(f"{name} {value:,.1f}" for name, value in rows[-1].items()))
    print(json.dumps(rows, indent=2) if args.output == "json" else "\n".join(shown(rows)))
