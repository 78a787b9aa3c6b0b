# SPDX-License-Identifier: Apache-2.0
"""``airflow dispatch running`` and ``changes``: who uses the slots, and what people have changed. Loaded when one of
them is called."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow_dispatch_provider.cli import output
from airflow_dispatch_provider.cli.commands import command
from airflow_dispatch_provider.cli.operating import (
    OPTIONAL,
    ago,
    check_backend_name,
    clock,
    in_all,
    iso,
    name_fields,
    of_dag,
    plain,
    say_uncounted,
    shown_as_object,
    task_name,
)
from airflow_dispatch_provider.operate.changes import read_changes
from airflow_dispatch_provider.operate.model import Running, RunningTask
from airflow_dispatch_provider.operate.past import Change
from airflow_dispatch_provider.operate.running import read_running


@command
def running(args: Namespace) -> int:
    """``airflow dispatch running``"""
    found = read_running(args.backend, args.dag_id, args.limit, getattr(args, "team", None))
    if found.problem is None:
        check_backend_name(args)
    if (code := shown_as_object(found, args.output)) is not None:
        return code
    if args.output == "table":
        print(output.wrapped(_total(found, args.dag_id)))
    say_uncounted(found.uncounted, args.output)
    if args.output == "table":
        if not found.tasks:
            return 0
        print()
    rows = [_row(found.now, task) for task in found.tasks]
    output.show_rows(
        list(map(_fields, found.tasks)) if args.output == "plain" else rows, args.output, OPTIONAL
    )
    return 0


_STATES = {True: "has begun", False: "has not begun", None: "is being taken over"}


def _total(found: Running, dag_id: str | None) -> str:
    if not found.total:
        return f"No backend has anything{' of a scheduler that is counted' if found.uncounted else ''}."
    tasks = f"{found.total} task{' is' if found.total == 1 else 's are'} with backends{in_all(dag_id)}"
    return f"{tasks}. Listed are those that have been there for longest{of_dag(dag_id)}: {len(found.tasks)}."


def _row(now: datetime, task: RunningTask) -> dict[str, Any]:
    return {
        "backend": task.backend,
        "task": task_name(task),
        "run": task.run_id,
        "queue": task.queue,
        "for": ago(now, task.since),
        "state": _STATES[task.has_begun],
        "scheduler": task.scheduler,
    }


def _fields(task: RunningTask) -> dict[str, Any]:
    """For ``plain``: a field has no blank in it, unless a name has."""
    return {
        "backend": task.backend,
        **name_fields(task),
        "since": iso(task.since),
        "state": _STATES[task.has_begun].replace(" ", "_"),
        "scheduler": task.scheduler,
    }


@command
def changes(args: Namespace) -> int:
    """``airflow dispatch changes``"""
    wanted = getattr(args, "team", None)
    since = datetime.now(UTC) - timedelta(seconds=min(args.seconds, _FARTHEST))
    found = read_changes(since, lambda team: wanted in (None, team))
    if args.output in output.STRUCTURED:
        output.show_object(plain([asdict(change) for change in found]), args.output)
    elif found or args.output != "table":
        row = _change_fields if args.output == "plain" else _change_row
        output.show_rows(list(map(row, found)), args.output)
    else:
        print(f"Nothing has been changed since {clock(since)}.")
    return 0


_FARTHEST = 100 * 366 * 86_400.0
"""Seconds; a time of any length may be asked for, and the years before 1 have no date."""


def _change_row(change: Change) -> dict[str, Any]:
    host = f"on {change.scheduler}" if change.scheduler else None
    return {"at": clock(change.at), "by": change.by or host, "what": change.words.splitlines()}


def _change_fields(change: Change) -> dict[str, Any]:
    """For ``plain``: a field has no blank in it, but for the last one."""
    return {
        "at": iso(change.at),
        "event": change.event,
        "backend": change.backend,
        "by": change.by,
        "scheduler": change.scheduler,
        "what": change.words,
    }
