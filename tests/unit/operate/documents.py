# SPDX-License-Identifier: Apache-2.0
"""Short ways to make what schedulers write."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from airflow_dispatch_provider.bridge.database.tables import LASTING, OrderRow, StatusRow
from airflow_dispatch_provider.dispatch.report import VERSION
from airflow_dispatch_provider.operate.documents import Reading, not_counted, order_of, parse

NOW = 1_800_000_000.0


def backend(name: str, **values: Any) -> dict[str, Any]:
    """Of a document."""
    return {
        "name": name,
        "executor": "LocalExecutor",
        "state": "open",
        "cordoned": values.get("state") in ("cordoned", "removed"),
        "since": NOW - 100,
        "slots": 4,
        "used": 0,
        "ahead": 0,
        "free": 4,
        "held": 0,
        "takes": 0,
        "oldest": None,
        "submitted_per_minute": 0,
        "ended_per_minute": 0,
        "trouble": None,
        "next_try": None,
        "not_begun": 0,
        "not_begun_since": None,
        "hint": "",
        "dags": {},
        "minutes": [],
        **values,
    }


def _named(task_id: str) -> dict[str, Any]:
    return {
        "dag_id": "dag",
        "task_id": task_id,
        "run_id": "run",
        "map_index": -1,
        "try_number": 1,
        "kind": "ExecuteTask",
        "queue": "q",
    }


def waits(task_id: str, **values: Any) -> dict[str, Any]:
    """One that waits, of a document."""
    return {
        **_named(task_id),
        "route": "q",
        "targets": ["a"],
        "reason": "waits_full",
        "words": "every target that it may use is full",
        "detail": None,
        "full": [],
        "left_out": [],
        "since": NOW - 10,
        "position": 1,
        **values,
    }


def runs(task_id: str, **values: Any) -> dict[str, Any]:
    """One that a backend has, of a document."""
    return {
        **_named(task_id),
        "backend": "a",
        "has_begun": True,
        "since": NOW - 10,
        **values,
    }


def group(name: str, reason: str, held: int, **values: Any) -> dict[str, Any]:
    return {
        "backend": name,
        "reason": reason,
        "words": reason,
        "detail": None,
        "full": [],
        "left_out": [],
        "held": held,
        "oldest": NOW - 5,
        **values,
    }


def document(scheduler: str, team: str = "", written: float = NOW - 1, **values: Any) -> StatusRow:
    body = {
        "version": VERSION,
        "package": "0",
        "hostname": f"host{scheduler}",
        "executor": "DispatchExecutor",
        "heartbeat": written,
        "file": None,
        "refused": None,
        "api_trouble": None,
        "held": 0,
        "takes": 0,
        "backends": [],
        "groups": [],
        "waiting": [],
        "running": [],
        "returning": {},
        "recalls": {},
        "lines": [],
        **values,
    }
    return StatusRow(f"{scheduler} DispatchExecutor", team, written, json.dumps(body))


def reading(
    *rows: StatusRow,
    orders: Sequence[OrderRow] = (),
    living: Collection[str] | None = None,
    unfinished: Mapping[str, int] | None = None,
) -> Reading:
    """All of their schedulers live, unless it says which; those that have died have left none, unless it says so."""
    alive = {row.scheduler_id.split(" ")[0] for row in rows} if living is None else living
    documents, unread = parse(rows, alive, NOW)
    lasting = [order_of(row) for row in orders if row.command in LASTING]
    recalls = [order_of(row) for row in orders if row.command == "recall"]
    left = unfinished or {}
    uncounted = not_counted(
        [*documents, *unread], alive, lambda jobs: {job: left[job] for job in jobs if job in left}
    )
    return Reading(NOW, documents, lasting, unread, recalls, uncounted)
