# SPDX-License-Identifier: Apache-2.0
"""One measurement of one executor in a process of its own, for ``./dev/bench kubernetes``.

    python -m devkit.bench.kubernetes_run SUBJECT PODS

It writes ``created`` to standard output when the pods are there, and whoever runs it ends them; this twice, first for a
few of them. Then comes a line of JSON.
Options come from the environment, as everywhere in Airflow.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import psutil

MODULES = {
    "airflow": "airflow.providers.cncf.kubernetes.executors.kubernetes_executor",
    "dispatch": "airflow_dispatch_provider.executors.kubernetes_executor",
}
PAUSE = 0.01
TIMEOUT = 300.0
WARM_UP = 5


def measure(subject: str, pods: int) -> dict[str, float]:
    import airflow.jobs.scheduler_job_runner  # noqa: F401  what a scheduler has in memory

    from airflow_dispatch_provider.testing import make_task
    from devkit.bench.without_database import without_database

    module = __import__(MODULES[subject.split("-")[0]], fromlist=["KubernetesExecutor"])
    tasks = [make_task() for _ in range(pods + WARM_UP)]
    before = memory([psutil.Process()])
    executor = module.KubernetesExecutor()
    # Not a number: Airflow's executor then does not ask the database whether each task is still queued.
    executor.job_id = "bench"
    without_database(executor)
    executor.start()
    try:
        create(executor, tasks[:WARM_UP])
        finish(executor, WARM_UP)
        gc.collect()
        gc.freeze()  # a collection of all that was imported would be the longest heartbeat
        children = psutil.Process().children(recursive=True)
        cpu = cpu_seconds() + sum(child.cpu_times().user + child.cpu_times().system for child in children)
        began = time.perf_counter()
        creating = create(executor, tasks[WARM_UP:])
        seconds = time.perf_counter() - began
        grown = memory([psutil.Process(), *children]) - before
        ending = finish(executor, pods)
    finally:
        executor.end()
    return {
        "thread_create": sum(creating) / pods * 1e6,
        "longest_create": max(creating) * 1e3,
        "created": pods / seconds,
        "thread_finish": sum(ending) / pods * 1e6,
        "longest_finish": max(ending) * 1e3,
        "cpu": (cpu_seconds() - cpu) / pods * 1e3,
        "processes": len(children),
        "memory": grown / 2**20,
    }


def create(executor: Any, tasks: list[Any]) -> list[float]:
    """Queue them all and let the executor work until there is a pod for each; seconds of each heartbeat."""
    for task in tasks:
        executor.queue_workload(task, None)
    return beat(executor, lambda: not executor.queued_tasks and not unsent(executor))


def finish(executor: Any, number: int) -> list[float]:
    """Have all pods ended, until that many have been reported so; seconds of each heartbeat."""
    print("created", flush=True)
    ended: set[Any] = set()

    def all_ended() -> bool:
        events = executor.get_event_buffer()
        ended.update(key for key, (state, _) in events.items() if state != "queued")
        return len(ended) >= number

    return beat(executor, all_ended)


def beat(executor: Any, done: Callable[[], bool]) -> list[float]:
    beats: list[float] = []
    deadline = time.monotonic() + TIMEOUT
    while True:
        began = time.perf_counter()
        executor.heartbeat()
        beats.append(time.perf_counter() - began)
        if done():
            return beats
        if time.monotonic() > deadline:
            raise TimeoutError(
                f"not done after {TIMEOUT:.0f} s: {executor!r}, {len(executor.queued_tasks)} queued"
            )
        time.sleep(PAUSE)


def unsent(executor: Any) -> int:
    """Workloads without a pod that the executor has taken out of its queue."""
    loop = getattr(executor, "_loop", None)
    if loop is None:
        return int(executor.task_queue.qsize())
    (engine,) = loop.engines.values()
    with engine._driver.machine() as machine:
        return int(loop.machine.held + machine.unsent)


def cpu_seconds() -> float:
    """Of this process and of its children that have ended."""
    return sum(os.times()[:4])


def memory(processes: list[psutil.Process]) -> int:
    """Bytes, each page shared between processes counted once (PSS)."""
    return sum(process.memory_full_info().pss for process in processes)


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1], int(sys.argv[2]))), flush=True)
