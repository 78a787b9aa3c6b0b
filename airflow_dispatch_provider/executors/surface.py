# SPDX-License-Identifier: Apache-2.0
"""The executor that Airflow calls, as the dispatch loop needs it."""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Hashable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

from airflow_dispatch_provider.bridge.airflow_api import event_state
from airflow_dispatch_provider.bridge.event_log import DISPATCHED, dispatched_extra
from airflow_dispatch_provider.bridge.workload import (
    for_backend,
    token_lifetime,
    with_fresh_token,
    without_id,
)
from airflow_dispatch_provider.dispatch.backend import Backend
from airflow_dispatch_provider.lifecycle import actions
from airflow_dispatch_provider.lifecycle.actions import Dispatch
from airflow_dispatch_provider.routing.model import EXECUTE_TASK

log = logging.getLogger(__name__)


class FaceSurface:
    """The part of an executor that the loop needs, with one backend: see ``dispatch.loop.Surface``."""

    def __init__(self, executor: Any) -> None:
        """
        :param executor: a BaseExecutor
        """
        self._executor = executor
        self._fresh = token_lifetime() / 20
        """Seconds for which a token is taken as new: making one costs more than all the rest."""

    def prepare(self, dispatch: Dispatch, backend: str) -> Any:
        return self._prepared(dispatch, dispatch.workload)

    def _prepared(self, dispatch: Dispatch, workload: Any) -> Any:
        """A second message under the id that Airflow has assigned would be taken for the first one: by a result backend
        that several backends share, for instance."""
        own = without_id(workload) if dispatch.again else workload
        return with_fresh_token(own, self._generator, self._fresh)

    def _generator(self) -> Any:
        return self._executor.jwt_generator

    def dispatched(self, backend: str, dispatches: Sequence[Dispatch]) -> None:
        """No rows: there is nowhere else where a task of this executor could be."""

    def record(self, key: Hashable, word: str, detail: str) -> None:
        self._write(word, json.dumps({"detail": detail}), key, EXECUTE_TASK)

    def _write(self, event: str, extra: str, key: Hashable, kind: str) -> None:
        """Only tasks have a log. A row that cannot be written stops nothing."""
        if kind != EXECUTE_TASK:
            return
        try:
            self._executor.log_task_event(event=event, extra=extra, ti_key=key)
        except Exception:
            log.exception("No row for the event log could be made of %s %s.", event, key)

    def value_of(self, action: actions.Emit | actions.EmitId) -> Any:
        if isinstance(action, actions.EmitId):
            return event_state(action.kind, "running" if action.runs else "queued"), action.info
        return action.value or (event_state(action.kind, action.how.value), action.info)


class RouterSurface(FaceSurface):
    """The same with several backends."""

    def __init__(self, executor: Any, backends: Mapping[str, Backend]) -> None:
        super().__init__(executor)
        self._backends = backends

    def prepare(self, dispatch: Dispatch, backend: str) -> Any:
        """An engine of ours is told the queue of the target apart: the task keeps its own."""
        to = self._backends[backend]
        queue = None if to.has_engine else dispatch.target.queue
        return self._prepared(dispatch, for_backend(dispatch.workload, to.executor, queue))

    def dispatched(self, backend: str, dispatches: Sequence[Dispatch]) -> None:
        """Rows for the user to see, and for an adopting scheduler to go by."""
        debug = log.isEnabledFor(logging.DEBUG)
        for each in dispatches:
            extra = dispatched_extra(each.target, each.route, each.reason, each.ahead)
            self._write(DISPATCHED, extra, each.key, each.kind)
            if debug:
                message = "Dispatched %s to %s by route %r: %s."
                log.debug(message, each.key, each.target, each.route, each.reason.words)


class AnsweredFor(AbstractSet[Hashable]):
    """Keys that Airflow takes for the executor's running ones: a view, which it cannot change."""

    def __init__(self, keys: Collection[Hashable]) -> None:
        self._keys = keys

    def __contains__(self, key: object) -> bool:
        return key in self._keys

    def __iter__(self) -> Iterator[Hashable]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)

    def add(self, key: Hashable) -> None:
        """Airflow 3.4 adds adopted tasks; those are there."""
