# SPDX-License-Identifier: Apache-2.0
"""The stored task instances, as what a scheduler has queued."""

from __future__ import annotations

from typing import Any

from airflow.utils.session import create_session

from ..database import stored, workload_of


def queue_all(executor: Any) -> None:
    """Every one of them."""
    with create_session() as session:
        for ti in stored(session):
            executor.queue_workload(workload_of(ti), session)


def task_ids(queue: str) -> list[str]:
    """Of those with this queue."""
    with create_session() as session:
        return sorted(ti.task_id for ti in stored(session) if ti.queue == queue)


def one_of(queue: str) -> Any:
    """A stored task instance."""
    with create_session() as session:
        return next(ti for ti in stored(session) if ti.queue == queue)
