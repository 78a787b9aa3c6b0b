# SPDX-License-Identifier: Apache-2.0
"""Dags whose tasks leave a trace of every run; copied into the cluster under test."""

import os
import time
import uuid
from pathlib import Path

from airflow.sdk import dag, get_current_context, task

RECORDS = Path(os.environ["DISPATCH_TEST_RECORDS"])


@task
def record(seconds: float) -> None:
    """Write when this run started and ended, in a file of its own for each."""
    ti = get_current_context()["ti"]
    number = f"_{ti.map_index:03}" if ti.map_index >= 0 else ""
    name = f"{ti.run_id}/{ti.task_id}{number}.{uuid.uuid4().hex}"
    (RECORDS / ti.run_id).mkdir(parents=True, exist_ok=True)
    started = time.time()
    (RECORDS / f"{name}.start").write_text(str(started))
    if seconds:
        time.sleep(seconds)
    else:
        wait_for_release(RECORDS / ti.run_id / "release")
    (RECORDS / f"{name}.end").write_text(f"{started} {time.time()}")


def wait_for_release(file: Path) -> None:
    while not file.exists():
        time.sleep(0.1)


QUEUES = ("two", "four", "spill", "glob-x", "nowhere")


def add_tasks(queue: str, number: int, seconds: float, priority: int = 1) -> None:
    for index in range(number):
        options = {"task_id": f"{queue}_{index:03}", "queue": queue, "priority_weight": priority}
        record.override(**options)(seconds)


@dag(schedule=None, catchup=False, max_active_tasks=1000)
def many() -> None:
    """Short tasks over five queues."""
    each = int(os.environ["DISPATCH_TEST_TASKS"]) // 5
    for queue in QUEUES:
        add_tasks(queue, each, seconds=0.2)


@dag(schedule=None, catchup=False, max_active_tasks=1000)
def mapped() -> None:
    """As many short tasks, each process of which need not make all of them to run one."""
    each = int(os.environ.get("DISPATCH_TEST_MAPPED", "0")) // len(QUEUES)
    for queue in QUEUES:
        record.override(task_id=f"mapped_{queue}", queue=queue).expand(seconds=[0.2] * each)


@dag(schedule=None, catchup=False, max_active_tasks=1000)
def blocked() -> None:
    """More tasks than `two` has slots, of high priority, that end when they are released; and others."""
    add_tasks("two", 12, seconds=0, priority=100)
    add_tasks("four", 3, seconds=0.1)
    add_tasks("glob-x", 3, seconds=0.1)


many()
mapped()
blocked()
