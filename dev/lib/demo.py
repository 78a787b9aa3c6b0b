# SPDX-License-Identifier: Apache-2.0
"""Start a real Airflow with the DispatchExecutor over three backends, run a Dag whose tasks sit in several
queues, show where each task ran and why, check it, and stop everything again."""

from __future__ import annotations

import argparse

from environment import add_airflow_version, enter, run

_EPILOG = """It needs Python 3.11 and a package index for pip, nothing else: no root, no Docker, no server.
Progress goes to stderr, the table (or JSON) to stdout.
Exit code 0: every task succeeded, ran where the routes say, and no backend ever ran more than its slots;
with Celery or Kubernetes also: on a host of its backend.
1: something of that did not hold; what, is printed. 2: the demo could not be run."""

FEWEST_TASKS = 5  # one for each queue


def main() -> int:
    options = _parse()
    enter(options.airflow_version)
    import demo_run  # needs the environment that was just entered

    return demo_run.run(options.tasks, options.db, options.output, options.keep, options.extra)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="./dev/demo",
        description=__doc__,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_airflow_version(parser)
    parser.add_argument(
        "--with",
        dest="extra",
        choices=("celery", "kubernetes"),
        help="two of the three backends are CeleryExecutors, each with a broker (Valkey, from a wheel) and an "
        "`airflow celery worker` of its own; or KubernetesExecutors, each with a cluster of its own: an API server, "
        "which is built first where it is not there (needs Go), and a node that runs pods as processes. Without "
        "it, all three backends are LocalExecutors",
    )
    parser.add_argument("--tasks", type=_task_count, default=36, metavar="N", help="default: %(default)s")
    parser.add_argument(
        "--keep", action="store_true", help="leave Airflow running until Ctrl-C, and keep its home folder"
    )
    parser.add_argument("--output", choices=("table", "json"), default="table", help="default: %(default)s")
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


if __name__ == "__main__":
    run(main)
