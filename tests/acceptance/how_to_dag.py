# SPDX-License-Identifier: Apache-2.0
"""A Dag of one task for each queue of the how-to pages; copied into the Airflow in which they are followed."""

import time
from pathlib import Path

from airflow.sdk import dag, get_current_context, task

QUEUES = {"heavy": "heavy", "batch": "batch-nightly", "far": "far-eu", "gpu": "gpu-large"}


def work() -> None:
    """Go on for as long as there is the file that the run's configuration may name."""
    hold = get_current_context()["dag_run"].conf.get("while")
    while hold and Path(hold).exists():
        time.sleep(0.2)


def make(name: str, queue: str) -> None:
    @dag(dag_id=name, schedule=None, catchup=False, is_paused_upon_creation=False)
    def one_task() -> None:
        task(work, task_id="work", queue=queue)()

    one_task()


for name, queue in QUEUES.items():
    make(name, queue)
