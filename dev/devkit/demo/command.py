# SPDX-License-Identifier: Apache-2.0
"""Start a real Airflow with the DispatchExecutor over three backends, run a Dag
whose tasks sit in several queues, show where each task ran and why, check it,
and stop everything again."""

from __future__ import annotations

import argparse

from devkit.arguments import add_airflow_version, add_output, parser_of
from devkit.demo import needs as demo_needs
from devkit.environment import enter, interrupt_on_signals, is_inside
from devkit.programs import kube_build

_EPILOG = """It needs Python 3.11, 3.12 or 3.13 and a package index; no root, no Docker. What
else it needs, and the routes that it shows, are printed when it starts.
Progress goes to stderr, the tables (or JSON) to stdout.

examples:
  ./dev/demo                      three LocalExecutors behind the router
  ./dev/demo --with celery        two CeleryExecutors, with a broker each
  ./dev/demo --keep --port 8080   and then look around in UI and commands

Exit code 0: every task succeeded, ran where the routes say, and no backend ever
ran more tasks than it has slots; with Celery or Kubernetes also: on a host of
its backend.
1: something of that did not hold; it is printed. 2: the demo could not be run."""

FEWEST_TASKS = 5  # one for each queue


def main() -> int:
    options = _parse()
    interrupt_on_signals()
    if not is_inside(options.airflow_version):
        demo_needs.check(options.extra, options.port)
        demo_needs.announce(options.extra, options.airflow_version)
    enter(options.airflow_version)
    from devkit.demo import run as demo_run  # needs the environment that was just entered

    return demo_run.run(options)


def _parse() -> argparse.Namespace:
    parser = parser_of("./dev/demo", __doc__, epilog=_EPILOG)
    add_airflow_version(parser)
    parser.add_argument(
        "--with",
        dest="extra",
        choices=("celery", "kubernetes"),
        help="celery: two of the three backends are CeleryExecutors, each with a broker (Valkey, from a wheel) and an "
        "`airflow celery worker` of its own. kubernetes: two of them are KubernetesExecutors, each with a cluster of "
        "its own: an API server and a node that runs pods as processes. The API server is built first where it is not "
        f"there: that needs Go 1.25 or newer ({kube_build.COST}). "
        "Without --with, all three backends are LocalExecutors",
    )
    parser.add_argument("--tasks", type=_task_count, default=36, metavar="N", help="default: %(default)s")
    parser.add_argument(
        "--keep",
        action="store_true",
        help="leave Airflow running until Ctrl-C, say how to look around in it, and keep its home folder",
    )
    parser.add_argument(
        "--port", type=_port, metavar="N", help="of Airflow's UI, on 127.0.0.1 (default: a free one)"
    )
    add_output(parser)
    parser.add_argument(
        "--db",
        choices=("sqlite", "postgres"),
        default="sqlite",
        help="Airflow's database: a SQLite file, or a PostgreSQL server from a wheel (default: %(default)s)",
    )
    return parser.parse_args()


def _task_count(text: str) -> int:
    try:
        count = int(text)
    except ValueError:
        count = 0
    if count < FEWEST_TASKS:
        raise argparse.ArgumentTypeError(
            f"{text!r} given, a whole number of at least {FEWEST_TASKS} expected"
        )
    return count


def _port(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) < 65536:
        raise argparse.ArgumentTypeError(f"{text!r} given, a number from 1 to 65535 expected")
    return int(text)
