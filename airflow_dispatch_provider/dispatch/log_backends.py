# SPDX-License-Identifier: Apache-2.0
"""Which backend has the logs of a running task, asked in processes that never start the executor."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from airflow_dispatch_provider.bridge import event_log
from airflow_dispatch_provider.bridge.workload import task_ref_of
from airflow_dispatch_provider.dispatch.backend import Backend
from airflow_dispatch_provider.dispatch.rules import route_table
from airflow_dispatch_provider.exceptions import DispatchConfigError
from airflow_dispatch_provider.routing.routes import ordered_targets
from airflow_dispatch_provider.settings.model import BackendSettings, Settings
from airflow_dispatch_provider.settings.source import SettingsSource

log = logging.getLogger(__name__)


class LogBackends:
    """Makes a backend when the logs of its tasks are first asked for, and only that one."""

    def __init__(self, source: SettingsSource, conf: Any, team_name: str | None) -> None:
        self._source, self._conf, self._team_name = source, conf, team_name
        self._settings: Settings | None = None
        self._made: dict[str, Backend] = {}
        self._known: dict[str, BackendSettings] = {}
        """As they were last configured: one that is drained is in the file no more, and its tasks run."""

    def of(self, ti: Any, started: Mapping[str, Backend] | None) -> Backend | None:
        """The backend of a task instance, or of a history row of one: by the event log, else by its route.

        :param started: the backends of an executor that has been started; None elsewhere
        """
        settings = self._load()
        if settings is None:
            return None
        name = event_log.owner_of(ti) or _first_choice(settings, ti)
        if started is not None:
            return started.get(name)
        wanted, made = self._known.get(name), self._made.get(name)
        if wanted is None:
            return None
        if made is None or made.settings != wanted:
            made = self._made[name] = Backend(name, wanted, self._conf, self._team_name)
        return made

    def _load(self) -> Settings | None:
        if self._settings is None or self._source.changed():
            try:
                self._settings = self._source.load_or_last_good()
                self._known.update(self._settings.backends)
            except DispatchConfigError as error:
                log.warning("Logs of running tasks cannot be found. %s", error)
        return self._settings


def _first_choice(settings: Settings, ti: Any) -> str:
    ref = task_ref_of(ti)
    return ordered_targets(route_table(settings).match(ref).route, ref.seed)[0].backend
