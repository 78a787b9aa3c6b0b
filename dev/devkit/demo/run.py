# SPDX-License-Identifier: Apache-2.0
"""The part of ./dev/demo that runs in an environment with Airflow."""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import sys
import tempfile
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from shlex import quote

from devkit.demo import celery as demo_celery
from devkit.demo import kubernetes as demo_kubernetes
from devkit.demo.extra import Extra, started
from devkit.demo.layout import LOCAL, Layout, Options, settings
from devkit.demo.progress import Progress
from devkit.demo.report import Outcome, TaskRow, as_json, as_table, check, rows_of
from devkit.demo.text import activation, introduction, status, tour
from devkit.deployments.airflow_api import ClusterError
from devkit.deployments.airflow_cluster import AirflowCluster
from devkit.environment import ignore_signals, say, step
from devkit.servers.postgres import PostgresServer

DAG_ID = "dispatch_demo"
EXTRAS = {"celery": demo_celery.EXTRA, "kubernetes": demo_kubernetes.EXTRA}


def run(options: argparse.Namespace) -> int:
    """Run the demo with the options of the command line; returns its exit code."""
    extra = EXTRAS[options.extra] if options.extra else None
    layout = extra.layout if extra else LOCAL
    say(introduction(layout))
    home = Path(tempfile.mkdtemp(prefix="dispatch-demo-"))
    outcome = Outcome()
    try:
        with _airflow(home, options, layout, extra) as airflow:
            outcome = _run_dag(airflow, options.tasks, layout)
            _print(outcome, options.output, layout)
            if options.keep:
                _keep_running(airflow)
    except ClusterError as error:
        outcome.problems.append(str(error))
        say(f"error: {error}")
    except KeyboardInterrupt:
        say("Interrupted: everything that was started has been stopped.")
        raise
    finally:
        _clean_up(home, options.keep or bool(outcome.problems))
    if not options.keep:
        say("To look around in this Airflow, its UI included, run it again with --keep.")
    return 1 if outcome.problems else 0


@contextlib.contextmanager
def _airflow(
    home: Path, options: argparse.Namespace, layout: Layout, extra: Extra | None
) -> Iterator[AirflowCluster]:
    with contextlib.ExitStack() as stack:
        try:
            yield _start(stack, home, options, layout, extra)
        finally:
            ignore_signals()


def _start(
    stack: contextlib.ExitStack, home: Path, asked: argparse.Namespace, layout: Layout, extra: Extra | None
) -> AirflowCluster:
    db_url = None
    if asked.db == "postgres":
        with step("Starting PostgreSQL"):
            db_url = started(stack, PostgresServer(), "PostgreSQL").url
    options: Options = {}
    if extra:
        with step(f"Starting {extra.servers_title}"):
            options = stack.enter_context(extra.servers(layout))
    airflow = AirflowCluster(home, settings(layout, asked.tasks, options), db_url, port=asked.port)
    shutil.copy(Path(__file__).with_name("dag.py"), airflow.dags / f"{DAG_ID}.py")
    stack.callback(_stop, airflow)
    with step("Starting Airflow"), Progress() as progress:
        progress.show("making the database")
        airflow.start(on_poll=lambda waiting_for: progress.show(f"waiting for {waiting_for}"))
    if extra:
        _install_hostname(airflow)
        with step(f"Starting {extra.workers_title}"), Progress() as progress:
            poll = partial(_waiting, progress)
            stack.enter_context(extra.workers(airflow, layout, options, poll))
    return airflow


def _waiting(progress: Progress, names: str) -> None:
    progress.show(f"waiting for {names}")


def _install_hostname(airflow: AirflowCluster) -> None:
    """Put the module with the workers' ``[core] hostname_callable`` where Airflow looks for such modules."""
    folder = airflow.home / "config"
    folder.mkdir(exist_ok=True)
    shutil.copy(Path(__file__).with_name("hostname.py"), folder / "demo_hostname.py")


def _run_dag(airflow: AirflowCluster, tasks: int, layout: Layout) -> Outcome:
    with step(f"Running {tasks} tasks"), Progress() as progress:
        progress.show("waiting for the Dag")
        run_id = airflow.trigger(DAG_ID)
        run_state = airflow.wait_for_run(
            DAG_ID,
            run_id,
            timeout=180 + 10 * tasks,
            on_poll=lambda: progress.show(status(_rows(airflow, run_id, layout), layout)),
        )
    rows = _rows(airflow, run_id, layout)
    return Outcome(rows, run_state, check(rows, run_state, tasks, layout))


def _rows(airflow: AirflowCluster, run_id: str, layout: Layout) -> list[TaskRow]:
    events = airflow.event_logs(dag_id=DAG_ID, run_id=run_id, event="dispatched")
    return rows_of(airflow.task_instances(DAG_ID, run_id), events, with_hosts=bool(layout.workers))


def _print(outcome: Outcome, output: str, layout: Layout) -> None:
    print(as_json(outcome) if output == "json" else as_table(outcome, layout), flush=True)
    for problem in outcome.problems:
        say(f"PROBLEM: {problem}")
    if not outcome.problems:
        host = ", on the host of that backend" if layout.workers else ""
        say(f"OK: {len(outcome.rows)} tasks succeeded, each on a backend of its route{host}.")
        say("No backend ran more tasks at a time than it has slots.")


def _keep_running(airflow: AirflowCluster) -> None:
    activate = airflow.home / "activate"
    activate.write_text(activation(airflow.env, os.environ, Path(sys.executable).parent))
    say(tour(airflow.url, airflow.home, DAG_ID))
    with contextlib.suppress(KeyboardInterrupt):
        threading.Event().wait()


def _stop(airflow: AirflowCluster) -> None:
    with step("Stopping Airflow"):
        airflow.stop()


def _clean_up(home: Path, keep: bool) -> None:
    if keep:
        say(f"AIRFLOW_HOME is kept, and in its folder processes what Airflow printed: {home}")
        say(f"To delete it: rm -r {quote(str(home))}")
    else:
        shutil.rmtree(home, ignore_errors=True)
