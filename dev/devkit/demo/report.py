# SPDX-License-Identifier: Apache-2.0
"""The outcome of the demo's tasks: whether it is right, and how it is shown."""

from __future__ import annotations

import json
import socket
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

from devkit.demo.layout import Layout
from devkit.tables import Cell, table

_ENDED = frozenset({"success", "failed", "skipped", "upstream_failed", "removed"})
_HEADERS = ("task", "queue", "backend", "route", "reason", "waited", "ran", "state")


@dataclass(frozen=True)
class TaskRow:
    """One task instance, and what the router wrote about it into Airflow's event log."""

    task: str
    queue: str
    state: str | None
    backend: str | None = None
    """None: not given to a backend yet."""

    route: str = ""
    reason: str = ""
    detail: str = ""
    dispatches: int = 0
    host: str | None = None
    """The host name that Airflow recorded; None: not started, or of no interest."""

    scheduled: datetime | None = None
    start: datetime | None = None
    end: datetime | None = None

    @property
    def ended(self) -> bool:
        return self.state in _ENDED

    @property
    def waited(self) -> float | None:
        """Seconds from being scheduled to running."""
        return _seconds(self.scheduled, self.start)

    @property
    def seconds(self) -> float | None:
        return _seconds(self.start, self.end)


@dataclass
class Outcome:
    rows: list[TaskRow] = field(default_factory=list)
    run_state: str = ""
    problems: list[str] = field(default_factory=list)


def rows_of(
    task_instances: Sequence[dict[str, Any]], events: Sequence[dict[str, Any]], with_hosts: bool = False
) -> list[TaskRow]:
    """Join task instances with their ``dispatched`` events, both as the REST API gives them."""
    by_task: dict[str, list[dict[str, str]]] = {}
    for event in events:
        by_task.setdefault(event["task_id"], []).append(json.loads(event["extra"]))
    return [
        _row(ti, by_task.get(ti["task_id"], []), with_hosts)
        for ti in sorted(task_instances, key=lambda ti: ti["task_id"])
    ]


def check(rows: Sequence[TaskRow], run_state: str, tasks: int, layout: Layout) -> list[str]:
    """Everything that is not as the configuration says, in words."""
    problems = [] if run_state == "success" else [f"the run ended as {run_state!r}, not as 'success'"]
    if len(rows) != tasks:
        problems.append(f"{len(rows)} task instances found, {tasks} expected")
    for row in rows:
        problems += [*_task_problems(row, layout.allowed(row.queue)), *_host_problems(row, layout)]
    for backend, limit in layout.slots.items():
        if (most := most_at_once([row for row in rows if row.backend == backend])) > limit:
            problems.append(f"backend {backend} ran {most} tasks at once, its slots are {limit}")
    return problems


def most_at_once(rows: Sequence[TaskRow]) -> int:
    """How many of the tasks ran at the same time at most, by their start and end times."""
    edges = [edge for row in rows if row.start and row.end for edge in ((row.start, 1), (row.end, -1))]
    running = most = 0
    for _, change in sorted(edges):  # at the same instant the end comes first
        running += change
        most = max(most, running)
    return most


def as_table(outcome: Outcome, layout: Layout) -> str:
    """80 columns wide at most, where the names of the layout are no longer than those of the demo's."""
    tasks = table(_HEADERS, [_cells(row) for row in outcome.rows], {"waited": ".1f", "ran": ".1f"}, rule=True)
    backends = table(
        ("backend", "slots", "tasks", "most at once", "on host"),
        [_backend_cells(name, outcome.rows, layout) for name in layout.slots],
        rule=True,
    )
    return "\n".join(["", *tasks, "", *_legend(outcome.rows), "", *backends, ""])


def as_json(outcome: Outcome) -> str:
    tasks = [{**asdict(row), "waited": row.waited, "seconds": row.seconds} for row in outcome.rows]
    if not _any_host(outcome.rows):
        for task in tasks:
            del task["host"]
    document = {"run_state": outcome.run_state, "problems": outcome.problems, "tasks": tasks}
    return json.dumps(document, indent=2, default=datetime.isoformat)


def _row(ti: dict[str, Any], dispatched: list[dict[str, str]], with_host: bool) -> TaskRow:
    last = dispatched[-1] if dispatched else {}
    return TaskRow(
        task=ti["task_id"],
        queue=ti["queue"],
        state=ti["state"],
        backend=last.get("backend"),
        route=last.get("route", ""),
        reason=last.get("reason", ""),
        detail=last.get("detail", ""),
        dispatches=len(dispatched),
        host=(ti["hostname"] or None) if with_host else None,
        scheduled=_time(ti.get("scheduled_when")),
        start=_time(ti["start_date"]),
        end=_time(ti["end_date"]),
    )


def _task_problems(row: TaskRow, allowed: Sequence[str]) -> list[str]:
    problems = []
    if row.state != "success":
        problems.append(f"{row.task} ended as {row.state}")
    if not row.dispatches:
        problems.append(f"{row.task} has no 'dispatched' event in Airflow's event log")
    if row.backend and row.backend not in allowed:
        problems.append(
            f"{row.task} (queue {row.queue}) ran on {row.backend}, its route allows {', '.join(allowed)}"
        )
    return problems


def _host_problems(row: TaskRow, layout: Layout) -> list[str]:
    """A task of a Celery backend runs on that backend's worker, any other task on no worker at all."""
    if not row.backend or not row.start:
        return []
    worker = layout.workers.get(row.backend)
    if worker and row.host != worker:
        return [f"{row.task} (backend {row.backend}) ran on {row.host}, not on {worker}"]
    if not worker and row.host in layout.workers.values():
        return [f"{row.task} (backend {row.backend}, which is local) ran on {row.host}"]
    return []


def _any_host(rows: Sequence[TaskRow]) -> bool:
    return any(row.host for row in rows)


def _cells(row: TaskRow) -> tuple[Cell, ...]:
    decision = (row.backend, row.route or None, row.reason or None)
    return (row.task, row.queue, *decision, row.waited, row.seconds, row.state)


def _backend_cells(name: str, rows: Sequence[TaskRow], layout: Layout) -> tuple[Cell, ...]:
    own = [row for row in rows if row.backend == name]
    hosts = sorted({row.host for row in own if row.host} - {socket.getfqdn(), socket.gethostname()})
    return (name, layout.slots[name], len(own), most_at_once(own), ", ".join(hosts) or "this machine")


def _legend(rows: Sequence[TaskRow]) -> list[str]:
    words = {row.reason: row.detail for row in rows if row.reason}
    return [
        *(f"{reason}: {detail}" for reason, detail in sorted(words.items())),
        "waited: seconds from being scheduled to running; ran: seconds of running",
    ]


def _seconds(start: datetime | None, end: datetime | None) -> float | None:
    return (end - start).total_seconds() if start and end else None


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None
