# SPDX-License-Identifier: Apache-2.0
"""A real Airflow (api-server, scheduler, dag-processor) on PostgreSQL, one Dag, its executors in turn.

  tasks a second   a Dag of trivial tasks without dependencies, from the first start to the last end
  start latency    one task on an idle deployment: from being queued to its start, as Airflow records them
  beside a backlog the same while another backend has all slots taken and tasks held (DispatchExecutor only)
  busy seconds     tasks x their duration as Airflow records it: what is left is waiting and hand-over

subjects: Airflow's LocalExecutor, this package's LocalExecutor without and with [dispatch] local_warm_dags, and as only
backend of DispatchExecutor.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections import Counter
from datetime import datetime
from functools import partial
from pathlib import Path

from devkit.bench.comparison import Figures, benchmark_parser, in_turn, lines
from devkit.deployments.airflow_cluster import AirflowCluster
from devkit.servers.postgres import PostgresServer

OURS = "airflow_dispatch_provider.executors"
SUBJECTS = {
    "airflow": "LocalExecutor",
    "local": f"{OURS}.local_executor.LocalExecutor",
    "warm": f"{OURS}.local_executor.LocalExecutor",
    "dispatch": f"{OURS}.dispatch_executor.DispatchExecutor",
}
ROWS = {
    "throughput": "tasks a second",
    "latency": "start latency, ms",
    "beside": "beside a backlog, ms",
    "p95": "task duration p95, s",
}
BACKLOG_SLOTS, BACKLOG = 2, 20
DAG = """
import time

from airflow.sdk import dag, task

@task
def nothing():
    pass

@task(queue="slow")
def sleep():
    time.sleep(60)

def tasks(number):
    for index in range(number):
        nothing.override(task_id=f"t{{index:03}}")()

@dag(schedule=None, catchup=False, max_active_tasks=1000)
def many():
    tasks({number})

@dag(schedule=None, catchup=False)
def single():
    tasks(1)

@dag(schedule=None, catchup=False, max_active_tasks=1000)
def backlog():
    for index in range({backlog}):
        sleep.override(task_id=f"t{{index:03}}")()

many()
single()
backlog()
"""


def settings(subject: str, parallelism: int, idle_sleep: float = 1.0) -> dict[str, str]:
    backends = {
        "local": {"executor": "LocalExecutor", "slots": parallelism},
        "slow": {"executor": "LocalExecutor", "slots": BACKLOG_SLOTS},
    }
    return {
        "AIRFLOW__CORE__EXECUTOR": SUBJECTS[subject],
        # The router's tasks are bounded by the slots of its backends; held ones count against parallelism.
        "AIRFLOW__CORE__PARALLELISM": str(parallelism + BACKLOG if subject == "dispatch" else parallelism),
        "AIRFLOW__CORE__DEFAULT_POOL_TASK_SLOT_COUNT": "1000",
        "AIRFLOW__SCHEDULER__MAX_TIS_PER_QUERY": "64",
        "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": str(idle_sleep),
        "AIRFLOW__DISPATCH__BACKENDS": json.dumps(backends),
        "AIRFLOW__DISPATCH__ROUTES": json.dumps([{"queue": "slow", "to": ["slow"]}]),
        "AIRFLOW__DISPATCH__DEFAULT": "local",
        "AIRFLOW__DISPATCH__LOCAL_WARM_DAGS": "8" if subject == "warm" else "0",
    }


def moment(text: str) -> float:
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


def throughput(airflow: AirflowCluster) -> dict[str, float]:
    run_id = airflow.trigger("many")
    state = airflow.wait_for_run("many", run_id, timeout=600)
    rows = airflow.task_instances("many", run_id)
    assert state == "success", state
    starts = [moment(row["start_date"]) for row in rows]
    ends = [moment(row["end_date"]) for row in rows]
    durations = sorted(end - start for start, end in zip(starts, ends, strict=True))
    return {
        "throughput": len(rows) / (max(ends) - min(starts)),
        "p95": durations[int(len(durations) * 0.95)],
    }


def latency(airflow: AirflowCluster, repeats: int) -> float:
    """Median of the milliseconds between being queued and starting."""
    waits = []
    for _ in range(repeats):
        time.sleep(2)
        run_id = airflow.trigger("single")
        airflow.wait_for_run("single", run_id, timeout=60)
        (row,) = airflow.task_instances("single", run_id)
        waits.append((moment(row["start_date"]) - moment(row["queued_when"])) * 1e3)
    return statistics.median(waits)


def make_backlog(airflow: AirflowCluster) -> None:
    """Fill the slots of the other backend, and wait until the rest of the Dag is queued behind them."""
    run_id = airflow.trigger("backlog")
    states: Counter[str] = Counter()
    while states["running"] < BACKLOG_SLOTS or states["queued"] < BACKLOG - BACKLOG_SLOTS:
        time.sleep(0.5)
        states = Counter(row["state"] for row in airflow.task_instances("backlog", run_id))


def measure(server: PostgresServer, options: argparse.Namespace, subject: str, run: int) -> Figures:
    with tempfile.TemporaryDirectory(prefix="dispatch-bench-") as home:
        env = settings(subject, options.parallelism, options.idle_sleep)
        database = server.create_database(f"{subject}{run}")
        airflow = AirflowCluster(Path(home), env, database, ("api-server", "scheduler", "dag-processor"))
        (airflow.dags / "bench.py").write_text(DAG.format(number=options.tasks, backlog=BACKLOG))
        with airflow:
            figures = {"latency": latency(airflow, options.repeats), **throughput(airflow)}
            if subject == "dispatch":
                make_backlog(airflow)
                figures["beside"] = latency(airflow, options.repeats)
            return figures


def main() -> None:
    parser = benchmark_parser(__doc__)
    parser.add_argument("--tasks", type=int, default=200, help="default: %(default)s")
    parser.add_argument("--parallelism", type=int, default=8, help="default: %(default)s")
    parser.add_argument("--runs", type=int, default=5, help="default: %(default)s")
    parser.add_argument("--repeats", type=int, default=5, help="single tasks per run (default: %(default)s)")
    parser.add_argument(
        "--idle-sleep",
        type=float,
        default=1.0,
        metavar="SECONDS",
        help="[scheduler] scheduler_idle_sleep_time; Airflow's default is 1",
    )
    parser.add_argument("--subjects", nargs="+", choices=SUBJECTS, default=list(SUBJECTS))
    options = parser.parse_args()
    with PostgresServer() as server:
        results = in_turn(options.subjects, options.runs, ROWS, partial(measure, server, options))
    print(json.dumps(results, indent=2) if options.output == "json" else "\n".join(lines("", ROWS, results)))
