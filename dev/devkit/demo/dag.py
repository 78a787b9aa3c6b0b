# SPDX-License-Identifier: Apache-2.0
"""The Dag of ./dev/demo: short tasks that differ in nothing but their queue."""

import os
import time
from collections import Counter
from itertools import cycle, islice

from airflow.sdk import dag, task

# One round of queues. Every third task bursts; no route knows the queue `misc`.
ROUND = (
    *("bursts", "spill", "fast", "reports", "misc", "bursts"),
    *("spill", "bursts", "fast", "reports", "bursts", "spill"),
    *("misc", "bursts", "fast", "reports", "spill", "bursts"),
)
TASKS = int(os.environ.get("DISPATCH_DEMO_TASKS", "36"))


@dag(schedule=None, catchup=False, max_active_tasks=max(TASKS, 1), tags=["dispatch"])
def dispatch_demo() -> None:
    @task
    def work() -> None:
        time.sleep(2)

    numbers: Counter[str] = Counter()
    for queue in islice(cycle(ROUND), TASKS):
        numbers[queue] += 1
        work.override(task_id=f"{queue}_{numbers[queue]:02}", queue=queue)()


dispatch_demo()
