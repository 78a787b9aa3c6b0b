# SPDX-License-Identifier: Apache-2.0
"""Who is told what the router does: one hook, a small consumer for each purpose."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

from airflow_dispatch_provider.bridge import metrics
from airflow_dispatch_provider.bridge.event_log import DISPATCHED, dispatched_extra
from airflow_dispatch_provider.routing.decide import Decision

log = logging.getLogger(__name__)


class DispatchObserver(Protocol):
    """Called on the scheduler's thread with the workloads that one backend has just accepted."""

    def dispatched(self, decisions: Sequence[Decision]) -> None: ...


class DispatchLog:
    """A debug line for each; a user finds the same in the task's event log."""

    def dispatched(self, decisions: Sequence[Decision]) -> None:
        if log.isEnabledFor(logging.DEBUG):
            for each in decisions:
                message = "Dispatched %s to %s by route %r: %s."
                log.debug(message, each.held.key, each.target, each.route, each.reason.words)


class DispatchMetrics:
    """Counters for each backend and reason."""

    def dispatched(self, decisions: Sequence[Decision]) -> None:
        counts = Counter((each.target.backend, each.reason.value) for each in decisions)
        for (backend, reason), number in counts.items():
            metrics.count_dispatches(backend, reason, number)


class DispatchEvents:
    """A row in Airflow's event log: what the user sees, and what an adopting scheduler goes by."""

    def __init__(self, log_task_event: Callable[..., Any]) -> None:
        """
        :param log_task_event: ``BaseExecutor.log_task_event``
        """
        self._log_task_event = log_task_event

    def dispatched(self, decisions: Sequence[Decision]) -> None:
        for each in decisions:
            extra = dispatched_extra(each.target, each.route, each.reason)
            self._log_task_event(event=DISPATCHED, extra=extra, ti_key=each.held.key)


def tell(observers: Iterable[DispatchObserver], decisions: Sequence[Decision]) -> None:
    """An observer that fails is logged and does not keep the others from hearing it."""
    for observer in observers:
        try:
            observer.dispatched(decisions)
        except Exception:
            log.exception("%s failed to record a dispatch.", type(observer).__name__)
