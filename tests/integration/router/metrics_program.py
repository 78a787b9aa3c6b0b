# SPDX-License-Identifier: Apache-2.0
"""A router with two backends to which everything happens once that is counted. Airflow's metrics go where the
environment says."""

from __future__ import annotations

import json
import os
from typing import Any

from airflow_dispatch_provider.executors import dispatch_executor, face
from airflow_dispatch_provider.executors.dispatch_executor import DispatchExecutor
from airflow_dispatch_provider.lifecycle.events import Began, Broken, Rejected, Returned
from airflow_dispatch_provider.testing import make_task
from airflow_dispatch_provider.testing.in_memory_clerk import InMemoryClerk

BACKENDS = ("small", "large-2")
FILE = {
    "backends": {
        name: {"executor": "airflow_dispatch_provider.testing.InMemoryExecutor", "slots": 3}
        for name in BACKENDS
    },
    "routes": [{"queue": name, "to": [name]} for name in BACKENDS],
    "default": "small",
}

now = 1000.0


def clock() -> float:
    return now


def beat(executor: Any, times: int = 1) -> None:
    global now
    for _ in range(times):
        now += 1.0
        executor.heartbeat()


def main() -> None:
    face.monotonic = dispatch_executor.monotonic = clock
    with open(os.environ["AIRFLOW__DISPATCH__CONFIG_FILE"], "w") as file:
        json.dump(FILE, file)
    make: Any = DispatchExecutor
    executor = make(parallelism=32)
    executor._make_clerk = lambda limits: InMemoryClerk()
    executor.start()
    for name in BACKENDS:
        for number in range(6):
            executor.queue_workload(make_task(name, task_id=f"{name}-{number}"), None)
    beat(executor, 7)  # a round of gauges, and the beginning of the next one
    loop = executor._loop
    for name in BACKENDS:
        one, two, three = (number for number, job in loop.machine._ledger.out.items() if job.backend == name)
        loop.tell(now, Began(one), Returned(two), Rejected(three, "too large"))
        loop.tell(now, Broken(name, "no broker"))
    beat(executor, 14)


if __name__ == "__main__":
    main()
