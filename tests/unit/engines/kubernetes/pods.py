# SPDX-License-Identifier: Apache-2.0
"""Pods as the API server reports them."""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]

ANNOTATIONS = {"dag_id": "a_dag", "task_id": "a_task", "run_id": "a_run", "try_number": "2"}
STARTED = "2024-05-01T10:00:00Z"
"""``startedAt`` of a container that has run."""


def waiting(reason: str | None = None, message: str | None = None) -> Json:
    return {"waiting": _present(reason=reason, message=message)}


def running() -> Json:
    return {"running": {"startedAt": STARTED}}


def terminated(
    exit_code: int, reason: str | None = None, message: str | None = None, started: str | None = STARTED
) -> Json:
    return {
        "terminated": _present(
            exitCode=exit_code, reason=reason, message=message, startedAt=started, finishedAt=STARTED
        )
    }


def container(state: Json, name: str = "base", **fields: Any) -> Json:
    common = {"name": name, "image": "i", "imageID": "", "ready": False, "restartCount": 0}
    return {**common, "state": state, **fields}


def condition(kind: str, status: str, reason: str, message: str | None = None) -> Json:
    return {"type": kind, "status": status, **_present(reason=reason, message=message)}


def pod(
    phase: str | None,
    *states: Json,
    init: list[Json] | None = None,
    deleting: bool = False,
    labels: Json | None = None,
    containers: tuple[str, ...] = ("base",),
    **status: Any,
) -> Json:
    """A pod with these states of its container ``base``, or these whole container statuses."""
    statuses = [state if "name" in state else container(state) for state in states]
    return {
        "metadata": {
            "name": "a-pod",
            "namespace": "airflow",
            "resourceVersion": "7",
            "labels": labels or {"airflow-worker": "1"},
            "annotations": ANNOTATIONS,
            **_present(deletionTimestamp="2024-05-01T11:00:00Z" if deleting else None),
        },
        "spec": {"containers": [{"name": name} for name in containers]},
        "status": _present(
            phase=phase, containerStatuses=statuses or None, initContainerStatuses=init, **status
        ),
    }


def _present(**fields: Any) -> Json:
    return {name: value for name, value in fields.items() if value is not None}
