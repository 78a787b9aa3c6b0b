# SPDX-License-Identifier: Apache-2.0
"""What ./dev/demo does once it is in an environment with Airflow."""

from __future__ import annotations

import contextlib
import shutil
import sys
import tempfile
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from environment import REPO, ignore_signals, interrupt_on_signals, say, step

sys.path.insert(0, str(REPO / "tests"))
import demo_celery
import demo_kubernetes
from airflow_cluster import AirflowCluster, ClusterError
from demo_extra import Extra
from demo_layout import LOCAL, Layout, Options, settings
from demo_progress import Progress
from demo_report import Outcome, TaskRow, as_json, as_table, check, rows_of
from postgres_server import PostgresServer

DAG_ID = "dispatch_demo"
EXTRAS = {"celery": demo_celery.EXTRA, "kubernetes": demo_kubernetes.EXTRA}


def run(tasks: int, db: str, output: str, keep: bool, name: str | None) -> int:
    """Run the demo; returns its exit code.

    :param name: of one of the extras
    """
    extra = EXTRAS[name] if name else None
    layout = extra.layout if extra else LOCAL
    interrupt_on_signals()
    home = Path(tempfile.mkdtemp(prefix="dispatch-demo-"))
    outcome = Outcome()
    try:
        with _airflow(home, tasks, db, layout, extra) as airflow:
            outcome = _run_dag(airflow, tasks, layout)
            _print(outcome, output, layout)
            if keep:
                _keep_running(airflow)
    except ClusterError as error:
        outcome.problems.append(str(error))
        say(f"error: {error}")
    finally:
        _clean_up(home, keep or bool(outcome.problems))
    if not keep:
        say(f"To look around in Airflow's UI yourself: ./dev/demo{f' --with {name}' if name else ''} --keep")
    return 1 if outcome.problems else 0


@contextlib.contextmanager
def _airflow(
    home: Path, tasks: int, db: str, layout: Layout, extra: Extra | None
) -> Iterator[AirflowCluster]:
    with contextlib.ExitStack() as stack:
        db_url = None
        if db == "postgres":
            with step("Starting PostgreSQL"):
                db_url = stack.enter_context(PostgresServer()).url
        options: Options = {}
        if extra:
            with step(f"Starting {extra.servers_title}"):
                options = stack.enter_context(extra.servers(layout))
        airflow = AirflowCluster(home, env=settings(layout, tasks, options), db_url=db_url)
        shutil.copy(Path(__file__).with_name("demo_dag.py"), airflow.dags / f"{DAG_ID}.py")
        stack.callback(_stop, airflow)
        with step("Starting Airflow"), Progress() as progress:
            progress.show("making the database")
            airflow.start(on_poll=lambda waiting_for: progress.show(f"waiting for {waiting_for}"))
        if extra:
            _install_hostname(airflow)
            with step(f"Starting {extra.workers_title}"), Progress() as progress:
                poll = partial(_waiting, progress)
                stack.enter_context(extra.workers(airflow, layout, options, poll))
        yield airflow


def _waiting(progress: Progress, names: str) -> None:
    progress.show(f"waiting for {names}")


def _install_hostname(airflow: AirflowCluster) -> None:
    """Put the module with the workers' ``[core] hostname_callable`` where Airflow looks for such modules."""
    folder = airflow.home / "config"
    folder.mkdir(exist_ok=True)
    shutil.copy(Path(__file__).with_name("demo_hostname.py"), folder)


def _run_dag(airflow: AirflowCluster, tasks: int, layout: Layout) -> Outcome:
    with step(f"Running {tasks} tasks"), Progress() as progress:
        run_id = airflow.trigger(DAG_ID)
        run_state = airflow.wait_for_run(
            DAG_ID,
            run_id,
            timeout=180 + 10 * tasks,
            on_poll=lambda: progress.show(_status(_rows(airflow, run_id, layout), layout)),
        )
    rows = _rows(airflow, run_id, layout)
    return Outcome(rows, run_state, check(rows, run_state, tasks, layout))


def _rows(airflow: AirflowCluster, run_id: str, layout: Layout) -> list[TaskRow]:
    events = airflow.event_logs(dag_id=DAG_ID, run_id=run_id, event="dispatched")
    return rows_of(airflow.task_instances(DAG_ID, run_id), events, with_hosts=bool(layout.workers))


def _status(rows: list[TaskRow], layout: Layout) -> str:
    done = sum(row.ended for row in rows)
    busy = [
        f"{name} {sum(row.backend == name and not row.ended for row in rows)}/{slots}"
        for name, slots in layout.slots.items()
    ]
    held = sum(row.state == "queued" and not row.backend for row in rows)
    return " | ".join([f"{done} of {len(rows)} done", *busy, f"held {held}"])


def _print(outcome: Outcome, output: str, layout: Layout) -> None:
    print(as_json(outcome) if output == "json" else as_table(outcome), flush=True)
    for problem in outcome.problems:
        say(f"PROBLEM: {problem}")
    if not outcome.problems:
        where = "where its route says" + (" on its backend's own host" if layout.workers else "")
        say(f"OK: {len(outcome.rows)} tasks succeeded, each {where}, no backend above its slots.")


def _keep_running(airflow: AirflowCluster) -> None:
    say(f"\nAirflow's UI: {airflow.url}/dags/{DAG_ID} (no password)")
    say(f"Its home:     {airflow.home} (what the processes print: {airflow.home}/processes)")
    say("Ctrl-C stops it.")
    with contextlib.suppress(KeyboardInterrupt):
        threading.Event().wait()


def _stop(airflow: AirflowCluster) -> None:
    ignore_signals()
    with step("Stopping Airflow"):
        airflow.stop()


def _clean_up(home: Path, keep: bool) -> None:
    if keep:
        say(f"Kept: {home}")
    else:
        shutil.rmtree(home, ignore_errors=True)
