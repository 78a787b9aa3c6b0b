# SPDX-License-Identifier: Apache-2.0
"""Which tasks are over in Airflow while nobody has seen their pods end. Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from airflow_dispatch_provider.bridge.airflow_api import WorkloadKey
from airflow_dispatch_provider.bridge.task_instances import OPEN, Stored

PATIENCE = 30.0
"""Seconds for which a pod that is not known to have started may still be seen to end."""

PATIENCE_WITH_STARTED = 600.0
"""The same where the task's container runs: it may be storing the task's log."""


class Overdue:
    """Remembers since when each row has said that its task is over."""

    def __init__(self) -> None:
        self._since: dict[WorkloadKey, float] = {}

    def find(
        self,
        now: float,
        keys: Collection[WorkloadKey],
        rows: Mapping[WorkloadKey, Stored],
        has_started: Callable[[WorkloadKey], bool],
    ) -> list[WorkloadKey]:
        """
        :param now: monotonic seconds
        :param keys: of all tasks that are waited for
        :param rows: of those that the database has; one that is missing was deleted
        """
        over = {key for key in keys if key not in rows or rows[key].state not in OPEN}
        self._since = {key: self._since.get(key, now) for key in over}
        return [key for key, since in self._since.items() if now - since >= _patience(has_started(key))]


def _patience(started: bool) -> float:
    return PATIENCE_WITH_STARTED if started else PATIENCE
