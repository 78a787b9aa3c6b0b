# SPDX-License-Identifier: Apache-2.0
"""Keeping held task instances alive.

Airflow takes a task that is queued for longer than ``[scheduler] task_queued_timeout`` for stuck, reschedules
it twice and then fails it. A held task is not stuck, so its ``queued_dttm`` is moved forward in time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from uuid import UUID

from airflow.configuration import conf

from airflow_dispatch_provider.bridge.task_instances import update_queued


class Keepalive:
    """Refreshes ``queued_dttm``, in one UPDATE for every 900 held tasks, four times within a time-out."""

    def __init__(self) -> None:
        self._interval = conf.getfloat("scheduler", "task_queued_timeout") / 4
        self._due = 0.0

    def refresh(self, now: float, held_before: Callable[[float], Sequence[UUID]]) -> None:
        """Called at every heartbeat; raises what the database raises, and is due again at once then.

        :param now: monotonic seconds
        :param held_before: gives the ids of the task instances that have been held since before that time
        """
        if now < self._due:
            return
        update_queued(held_before(now - self._interval), queued_dttm=datetime.now(UTC))
        self._due = now + self._interval
