# SPDX-License-Identifier: Apache-2.0
"""Which backend has the logs of a running task, asked in processes that never start the executor."""

from __future__ import annotations

import logging
from typing import Any

from airflow_dispatch_provider.dispatch import adoption
from airflow_dispatch_provider.dispatch.backend import Backend
from airflow_dispatch_provider.dispatch.router import Router
from airflow_dispatch_provider.exceptions import DispatchConfigError
from airflow_dispatch_provider.routing.model import TaskRef
from airflow_dispatch_provider.routing.routes import RouteTable, ordered_targets, task_seed
from airflow_dispatch_provider.settings.model import Settings
from airflow_dispatch_provider.settings.source import SettingsSource

log = logging.getLogger(__name__)


class LogBackends:
    """Makes a backend when the logs of its tasks are first asked for, and only that one."""

    def __init__(self, source: SettingsSource, conf: Any, team_name: str | None) -> None:
        self._source, self._conf, self._team_name = source, conf, team_name
        self._settings: Settings | None = None
        self._made: dict[str, Backend] = {}

    def of(self, ti: Any, router: Router | None) -> Backend | None:
        """The backend of a task instance, or of a history row of one: by the event log, else by its route.

        :param router: of an executor that has been started; None elsewhere
        """
        settings = router.settings if router is not None else self._load()
        if settings is None:
            return None
        name = adoption.owner_of(ti) or _first_choice(settings, ti)
        if router is not None:
            return router.backends.get(name)
        if name not in self._made and name in settings.backends:
            backend = settings.backends[name]
            self._made[name] = Backend(name, backend, settings.limits, self._conf, self._team_name)
        return self._made.get(name)

    def _load(self) -> Settings | None:
        if self._settings is None or self._source.changed():
            try:
                self._settings = self._source.load_or_last_good()
            except DispatchConfigError as error:
                log.warning("Logs of running tasks cannot be found. %s", error)
        return self._settings


def _first_choice(settings: Settings, ti: Any) -> str:
    seed = task_seed(ti.dag_id, ti.run_id, ti.task_id, ti.map_index)
    table = RouteTable(settings.routes, settings.default, settings.executors)
    match = table.match(TaskRef(ti.queue, ti.dag_id, executor=ti.executor))
    return ordered_targets(match.route, seed)[0].backend
