# SPDX-License-Identifier: Apache-2.0
"""
LocalExecutor: this package's against Airflow's own, alternating, in fresh processes.

What the rows say:
  idle ...    after start(), nothing queued: the executor's processes, and the memory of all of them together
  start ...   until start() returns, and until the executor can run a workload
  single ...  one workload on an idle executor: from queue_workload() to the first line of the stub
  batch ...   workloads a second, from the first queue_workload() to the last event drained

In `single` and `batch` a stub that writes one timestamp stands in for Airflow's supervisor and the task, so
that they measure what the executor adds, and nothing of what the user waits for: a real task takes some 300 ms
more with either. Airflow's executor has forked its workers before; this package's forks a process for each
workload within the measured time. Heartbeats follow each other after 10 ms; the scheduler's are rarer.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import statistics
import struct
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil

from devkit.bench.comparison import Figures, benchmark_parser, in_turn, lines, summary

SUBJECTS = ("airflow", "fork", "exec")
ROWS = {
    "idle processes": "idle processes",
    "idle PSS": "idle PSS, MiB",
    "idle private": "idle private, MiB",
    "start returns": "start returns, ms",
    "start ready": "start ready, ms",
    "single latency": "single latency, ms",
    "batch throughput": "batch throughput, 1/s",
    "batch heartbeat max": "batch heartbeat max, ms",
}
RECORD = struct.Struct("=16sd")


def stub(workload: Any, *args: Any, **kwargs: Any) -> int:
    """Stands in for a task: notes when it was reached. One append of 24 bytes is atomic."""
    fd = os.open(os.environ["BENCH_RECORDS"], os.O_WRONLY | os.O_APPEND)
    os.write(fd, RECORD.pack(uuid.UUID(str(workload.ti.id)).bytes, time.time()))
    os.close(fd)
    return 0


def begin_and_stub(workload: Any, *args: Any, **kwargs: Any) -> int:
    """The same after it was let start, as every task is: the answer of the Execution API is at hand."""
    from airflow.sdk.api import client  # is there already, in a process that runs tasks

    answer = SimpleNamespace(read=lambda: os.environ["BENCH_CONTEXT"].encode())
    answering: Any = SimpleNamespace(patch=lambda *args, **kwargs: answer)
    client.TaskInstanceOperations(answering).start(workload.ti.id, os.getpid(), datetime.now(tz=UTC))
    return stub(workload)


def make_executor(subject: str, parallelism: int) -> Any:
    if subject == "airflow":
        return _airflow_executor(parallelism)
    from airflow_dispatch_provider.executors.local_executor import LocalExecutor

    os.environ["AIRFLOW__DISPATCH__LOCAL_TEMPLATE"] = subject
    from devkit.bench import local as importable  # this module, which may run as __main__
    from devkit.bench.without_database import without_database

    cls: Any = type("Stubbed", (LocalExecutor,), {"runner": staticmethod(importable.begin_and_stub)})
    executor = cls(parallelism)
    without_database(executor)
    return executor


def _airflow_executor(parallelism: int) -> Any:
    module: Any = import_module("airflow.executors.local_executor")
    base: Any = import_module("airflow.executors.base_executor").BaseExecutor
    if hasattr(base, "run_workload"):
        base.run_workload = staticmethod(stub)
    else:
        module._execute_work = lambda log, workload, *rest: stub(workload)
    return module.LocalExecutor(parallelism)


def make_task() -> Any:
    from airflow.executors import workloads

    ti = workloads.TaskInstance(
        id=uuid.uuid4(),
        dag_version_id=uuid.uuid4(),
        task_id=f"t{uuid.uuid4()}",
        dag_id="d",
        run_id="r",
        try_number=1,
        pool_slots=1,
        queue="default",
        priority_weight=1,
    )
    bundle = workloads.BundleInfo(name="dags-folder")
    return workloads.ExecuteTask(
        token="", ti=ti, dag_rel_path=Path("d.py"), bundle_info=bundle, log_path=None
    )


def reached() -> dict[str, float]:
    data = Path(os.environ["BENCH_RECORDS"]).read_bytes()
    return {str(uuid.UUID(bytes=raw)): when for raw, when in RECORD.iter_unpack(data)}


def record_of(task: str) -> float | None:
    """When the stub was reached for it; seconds since 1970."""
    return reached().get(task)


def wait_for(condition: Callable[[], Any], pause: float = 0.001) -> Any:
    deadline = time.monotonic() + 120
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError("nothing happened for two minutes")
        time.sleep(pause)
    return value


def is_ready(executor: Any) -> bool:
    executor.heartbeat()
    return bool(executor.slots_available > 0)


def measure_start(executor: Any) -> dict[str, float]:
    begin = time.perf_counter()
    executor.start()
    returned = time.perf_counter()
    wait_for(lambda: is_ready(executor))
    ready = time.perf_counter()
    return {"start returns": (returned - begin) * 1e3, "start ready": (ready - begin) * 1e3}


def measure_idle(executor: Any) -> dict[str, float]:
    time.sleep(2)
    totals = [child.memory_full_info() for child in psutil.Process().children(recursive=True)]
    return {
        "idle processes": len(totals),
        "idle PSS": sum(memory.pss for memory in totals) / 2**20,
        "idle private": sum(memory.uss for memory in totals) / 2**20,
    }


def measure_single(executor: Any) -> dict[str, float]:
    latencies = []
    for _ in range(15):
        task = make_task()
        queued = time.time()
        executor.queue_workload(task, None)
        executor.heartbeat()
        when = wait_for(partial(record_of, str(task.ti.id)))
        latencies.append((when - queued) * 1e3)
        time.sleep(0.05)
        executor.heartbeat()
    executor.get_event_buffer()
    return {"single latency": statistics.median(latencies)}


def measure_batch(executor: Any, count: int) -> dict[str, float]:
    tasks = [make_task() for _ in range(count)]
    longest = 0.0
    ended = 0
    begin = time.perf_counter()
    for task in tasks:
        executor.queue_workload(task, None)
    while ended < count:
        before = time.perf_counter()
        executor.heartbeat()
        longest = max(longest, time.perf_counter() - before)
        ended += sum(state in ("success", "failed") for state, _ in executor.get_event_buffer().values())
        time.sleep(0.01)
    seconds = time.perf_counter() - begin
    return {"batch throughput": count / seconds, "batch heartbeat max": longest * 1e3}


def run_one(subject: str, parallelism: int, count: int) -> dict[str, float]:
    """All measurements of one subject, in this process."""
    logging.disable(logging.INFO)
    import airflow.jobs.scheduler_job_runner  # noqa: F401  what a scheduler has in memory

    with tempfile.NamedTemporaryFile() as records:
        os.environ["BENCH_RECORDS"] = records.name
        executor = make_executor(subject, parallelism)
        results = measure_start(executor)
        try:
            results |= measure_idle(executor)
            results |= measure_single(executor)
            results |= measure_batch(executor, count)
        finally:
            executor.end()
    return results


def run_in_fresh_process(options: argparse.Namespace, subject: str, _run: int) -> Figures:
    command = [sys.executable, "-m", __spec__.name, "--one", subject]
    command += ["--parallelism", str(options.parallelism), "--workloads", str(options.workloads)]
    from devkit.servers.execution_api import start_context

    env = {**os.environ, "BENCH_CONTEXT": start_context().decode()}
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=env).stdout
    return dict(json.loads(output.strip().splitlines()[-1]))


def main() -> None:
    parser = benchmark_parser(__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--parallelism", type=int, default=32)
    parser.add_argument("--workloads", type=int, default=200, help="size of the batch")
    parser.add_argument("--subjects", nargs="+", choices=SUBJECTS, default=list(SUBJECTS))
    parser.add_argument("--one", choices=SUBJECTS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(run_one(options.one, options.parallelism, options.workloads)))
        return
    found = in_turn(options.subjects, options.runs, ROWS, partial(run_in_fresh_process, options))
    if options.output == "json":
        results = {
            subject: {row: summary([run[row] for run in runs]) for row in ROWS}
            for subject, runs in found.items()
        }
        print(json.dumps(results, indent=1))
    else:
        print(*lines("", ROWS, found), sep="\n")


if __name__ == "__main__":
    main()
