# SPDX-License-Identifier: Apache-2.0
"""For executors whose workloads are on their way to a server for a while: what waits where, while it cannot be sent."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from airflow_dispatch_provider.bridge import airflow_api
from airflow_dispatch_provider.bridge.airflow_api import Workload, WorkloadKey
from airflow_dispatch_provider.bridge.event_log import EventLogQueue
from airflow_dispatch_provider.bridge.keepalive import Keepalive
from airflow_dispatch_provider.bridge.version_compat import AIRFLOW_V_3_4_PLUS
from airflow_dispatch_provider.bridge.workload import token_lifetime, with_new_token

if TYPE_CHECKING:
    from airflow.executors.base_executor import BaseExecutor
else:
    BaseExecutor = object


class HoldsBack(airflow_api.HighestPriorityFirst, BaseExecutor):
    """
    Mixin for an executor that sends from a thread of its own. It is given no more than may be on its way, so that
    the rest can be overtaken; while the server cannot be used, unsent work waits in the base class's queues, kept
    alive, or is returned to the router.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._held_back: dict[WorkloadKey, float] = {}
        self._keepalive: Keepalive | None = None
        self._task_event_logs = self._own_event_logs = EventLogQueue()

    # What the executor gives

    def health(self) -> str | None:
        """See ``protocols.ReportsHealth``."""
        raise NotImplementedError

    def _may_send(self) -> int:
        """How many more workloads may be on their way now; 0 while the server cannot be used."""
        raise NotImplementedError

    def _withdraw_unsent(self) -> Iterable[Workload]:
        """Take back, and forget, all that was handed over and certainly not sent."""
        raise NotImplementedError

    def _waits_for(self) -> tuple[str, str]:
        """``event`` and ``extra`` of the row in the event log of a task that is held back."""
        raise NotImplementedError

    def _note_held_back(self, workloads: Sequence[Workload]) -> None:
        """Called once with what has begun to be held back."""

    # Handing over

    if AIRFLOW_V_3_4_PLUS:

        def trigger_workloads(self, open_slots: int) -> None:
            """Hand over as much as may be on its way; the rest stays where it can be overtaken."""
            if room := self._room(open_slots):
                base: Any = super()
                base.trigger_workloads(room)

    else:

        def trigger_tasks(self, open_slots: int) -> None:
            """Hand over as much as may be on its way; the rest stays where it can be overtaken."""
            if room := self._room(open_slots):
                super().trigger_tasks(room)

    def _room(self, open_slots: int) -> int:
        return max(0, min(open_slots, self._may_send())) if any(airflow_api.queues(self)) else 0

    def _take_for_sending(self, key: WorkloadKey, workload: Workload) -> Workload:
        """The workload, out of the queue, with a token that is still good for a while."""
        airflow_api.forget_queued_key(self, key)
        since = self._held_back.pop(key, None)
        if since is not None and time.monotonic() - since >= token_lifetime() / 2:
            return with_new_token(workload, self.jwt_generator)
        return workload

    # While the server cannot be used

    def take_returned(self) -> Sequence[Workload]:
        """See ``protocols.ReturnsWork``: meanwhile the router is asked to find another way."""
        if not self._held_back or not self._is_held_up():
            return []
        queued = self._queued()
        returned = [queued[key] for key in self._held_back if key in queued]
        for key in self._held_back:
            airflow_api.forget_queued_key(self, key)
        self._held_back.clear()
        return returned

    def _is_held_up(self) -> bool:
        """Whether nothing can be sent at the moment."""
        return self.health() is not None

    def _sync_held_back(self) -> None:
        """Called by every ``sync``, after what was sent has been noted."""
        self._own_event_logs.forget_taken()
        if self._is_held_up():
            self._hold_back()
        if self._held_back:
            if self._keepalive is None:
                self._keepalive = Keepalive()
            self._keepalive.refresh(time.monotonic(), self._held_back_before)

    def _hold_back(self) -> None:
        """Take back what was not sent; it waits here with what was queued since."""
        for workload in self._withdraw_unsent():
            self.queue_workload(workload, session=None)  # type: ignore[arg-type]
        news = {key: workload for key, workload in self._queued().items() if key not in self._held_back}
        if not news:
            return
        self._note_held_back(list(news.values()))
        self._held_back.update(dict.fromkeys(news, time.monotonic()))
        event, extra = self._waits_for()
        for key, workload in news.items():
            if airflow_api.is_task(workload):
                self.log_task_event(event=event, extra=extra, ti_key=key)

    def _queued(self) -> dict[WorkloadKey, Workload]:
        return {key: workload for queue in airflow_api.queues(self) for key, workload in queue.items()}

    def _held_back_before(self, moment: float) -> list[Any]:
        queued = self._queued()
        self._held_back = {key: since for key, since in self._held_back.items() if key in queued}
        return task_ids(queued[key] for key, since in self._held_back.items() if since < moment)


def task_ids(workloads: Iterable[Workload]) -> list[Any]:
    """Ids of the task instances among workloads."""
    return [workload.ti.id for workload in workloads if airflow_api.is_task(workload)]
