# SPDX-License-Identifier: Apache-2.0
"""Measure this package side by side with Airflow's own executors. Benchmarks print; they do not gate."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from importlib import import_module

from devkit.arguments import add_airflow_version, parser_of
from devkit.environment import enter, interrupt_on_signals

AREAS = {
    "router": "what routing costs the scheduler's thread, for each task and for each heartbeat",
    "scale": "how the cost of a decision grows, with up to a million jobs, a thousand queues, ten schedulers",
    "local": "LocalExecutor in one process: memory, start, hand-over",
    "start": "LocalExecutor's real tasks, part by part: from being queued to the user's first line",
    "celery": "CeleryExecutor in one process, on Redis and RabbitMQ: publishing, and waiting for results",
    "kubernetes": "KubernetesExecutor in one process, on a real API server: creating, watching and deleting pods",
    "end-to-end": "LocalExecutor and DispatchExecutor under a real Airflow: tasks a second, start latency",
    "celery-outages": "CeleryExecutor under a real Airflow whose broker, results, worker and scheduler fail",
    "kubernetes-outages": "KubernetesExecutor under a real Airflow whose two API servers and scheduler fail",
    "scheduler-outages": "a real Airflow whose two schedulers, api-server and database fail, beside Airflow's own",
    "chaos": "a real Airflow with two schedulers and five backends, everything of which fails",
}


def main() -> int:
    areas = "\n".join(f"  {name:20}{what}" for name, what in AREAS.items())
    parser = parser_of(
        "./dev/bench",
        description=f"{__doc__}\n\nareas:\n{areas}",
        epilog="Everything after the area is for the benchmark: ./dev/bench router --help",
    )
    add_airflow_version(parser)
    parser.add_argument("area", choices=AREAS)
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="see ./dev/bench AREA --help")
    options = parser.parse_args()
    enter(options.airflow_version)
    interrupt_on_signals()
    with tempfile.TemporaryDirectory(prefix="dispatch-bench-") as home:
        os.environ.update(AIRFLOW_HOME=home, AIRFLOW__LOGGING__LOGGING_LEVEL="WARNING")
        sys.argv = [f"./dev/bench {options.area}", *options.arguments]
        import_module(f"devkit.bench.{options.area.replace('-', '_')}").main()
    return 0
