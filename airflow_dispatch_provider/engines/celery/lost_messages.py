# SPDX-License-Identifier: Apache-2.0
"""Adopted tasks whose messages the broker has lost.

A scheduler sends its own messages again when a broker comes back empty. Of tasks that it adopted it has no message
to send: Airflow has to schedule these again. A copy that turns up all the same is refused by the Execution API.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping
from typing import Any

from airflow_dispatch_provider.masking import describe

log = logging.getLogger(__name__)

MARGIN = 60.0
"""Seconds: a message that was sent so soon after the broker began anew counts as lost, for the clocks of schedulers
differ, and a second copy does less harm than a task that waits for nothing."""


class LostMessages:
    """Looks once after each adoption, and once each time the broker began anew."""

    def __init__(self, reschedule: Callable[[Collection[Any], float], Collection[Any]]) -> None:
        """
        :param reschedule: of these task instance ids, have those scheduled again that are queued since before this
            time (POSIX seconds); gives their ids
        """
        self._reschedule = reschedule
        self._looked_at: float | None = None

    def look_again(self) -> None:
        """After an adoption."""
        self._looked_at = None

    def find(self, kept_since: float | None, adopted: Callable[[], Mapping[str, Any]]) -> list[str]:
        """Celery ids of tasks that are scheduled again. Called at every heartbeat; raises nothing.

        :param kept_since: since when the broker has lost nothing, POSIX seconds; None where it cannot tell
        :param adopted: gives the id of the task instance behind each adopted Celery id; called when a look is due
        """
        if kept_since is None or kept_since == self._looked_at:
            return []
        try:
            ids = adopted()
            gone = set(self._reschedule(ids.values(), kept_since + MARGIN)) if ids else set()
        except Exception as error:
            log.warning("Cannot look up which messages the broker has lost: %s", describe(error))
            return []
        self._looked_at = kept_since
        if gone:
            log.warning("The broker has lost the messages of %d adopted tasks: scheduled again.", len(gone))
        return [celery_id for celery_id, ti_id in ids.items() if ti_id in gone]
