# SPDX-License-Identifier: Apache-2.0
"""Tasks that Airflow knows to have ended, while Celery's result never came.

Workers report a task's state to Airflow themselves; the result only frees the slot. It is lost where the result
backend was away when a worker stored it, has lost its data, or gives results of ``rpc://`` to a scheduler that died.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from airflow_dispatch_provider.masking import describe

log = logging.getLogger(__name__)

INTERVAL = 5.0
"""Seconds between two looks into the database, on the scheduler's thread."""

CHUNK = 500
"""Tasks in one look: a query by primary key of a few milliseconds."""

GRACE = 60.0
"""Seconds for which a result may come after its task has ended."""


class LostResults:
    """Looks at all that is waited for, a part at a time, and again from the start."""

    def __init__(self, open_among: Callable[[Collection[Any]], Collection[Any]]) -> None:
        """
        :param open_among: of these task instance ids, those of tasks that are queued or running
        """
        self._open_among = open_among
        self._due = 0.0
        self._round: list[str] = []
        self._ended: dict[str, float] = {}

    def find(self, now: float, waiting: Callable[[], Mapping[str, Any]]) -> list[str]:
        """Celery ids whose tasks have ended long ago. Called at every heartbeat; raises nothing.

        :param now: monotonic seconds
        :param waiting: gives the id of the task instance behind each Celery id; called only when a look is due
        """
        if now < self._due:
            return []
        self._due = now + INTERVAL
        try:
            return self._look(now, waiting())
        except Exception as error:
            log.warning("Cannot look up which tasks have ended without a result: %s", describe(error))
            return []

    def _look(self, now: float, waiting: Mapping[str, Any]) -> list[str]:
        part = self._next(waiting)
        if not part:
            return []
        still_open = set(self._open_among([waiting[celery_id] for celery_id in part]))
        ended = [celery_id for celery_id in part if waiting[celery_id] not in still_open]
        for celery_id in part:
            if waiting[celery_id] in still_open:
                self._ended.pop(celery_id, None)
        for celery_id in ended:
            self._ended.setdefault(celery_id, now)
        return self._forget(celery_id for celery_id in ended if now - self._ended[celery_id] >= GRACE)

    def _next(self, waiting: Mapping[str, Any]) -> list[str]:
        if not self._round:
            self._round = list(waiting)
            self._ended = {
                celery_id: since for celery_id, since in self._ended.items() if celery_id in waiting
            }
        part, self._round = self._round[:CHUNK], self._round[CHUNK:]
        return [celery_id for celery_id in part if celery_id in waiting]

    def _forget(self, celery_ids: Iterable[str]) -> list[str]:
        lost = list(celery_ids)
        for celery_id in lost:
            del self._ended[celery_id]
        return lost
