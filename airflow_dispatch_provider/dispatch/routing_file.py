# SPDX-License-Identifier: Apache-2.0
"""``config_file`` in a scheduler that runs: read at its start and when it changes, and spoken of in log and metrics."""

from __future__ import annotations

import logging
import math

from airflow_dispatch_provider.bridge.metrics import gauge_refused_file
from airflow_dispatch_provider.exceptions import DispatchConfigError
from airflow_dispatch_provider.settings.changes import changes
from airflow_dispatch_provider.settings.model import Settings
from airflow_dispatch_provider.settings.source import SettingsSource

log = logging.getLogger(__name__)

REMIND = 300.0
"""Seconds between two log lines about a file that is still refused."""


class RoutingFile:
    """The scheduler's side of the file. Nothing but ``start`` raises."""

    def __init__(self, source: SettingsSource) -> None:
        self._source = source
        self._settings: Settings | None = None
        self._remind_at = math.inf
        self._copy_problem: str | None = None

    def start(self, now: float) -> Settings:
        """
        :param now: monotonic seconds
        :raises DispatchConfigError: naming every mistake; the scheduler does not start
        """
        self._settings = self._source.load_or_last_good()
        self._keep()
        if self._source.refused is not None:
            self._refuse("Starting with the last good version", self._source.refused, now)
        return self._settings

    def changed(self, now: float) -> Settings | None:
        """New settings, where the file has changed and is right. Called in every heartbeat."""
        settings = self._reload(now) if self._source.changed() else None
        if now >= self._remind_at and self._source.refused is not None:
            self._refuse("Still going on with the last good version", self._source.refused, now)
        if self._source.config_file:
            gauge_refused_file(self._source.refused is not None)
        return settings

    def _reload(self, now: float) -> Settings | None:
        was_refused = self._source.refused is not None
        try:
            settings = self._source.reload()
        except DispatchConfigError as error:
            self._refuse("Going on with the last good version", error, now)
            return None
        self._remind_at = math.inf
        self._report(settings, was_refused)
        self._settings = settings
        self._keep()
        return settings

    def _refuse(self, what: str, error: DispatchConfigError, now: float) -> None:
        self._remind_at = now + REMIND
        log.error("%s of %s: the file that is there is refused. %s", what, self._source.config_file, error)

    def _report(self, settings: Settings, was_refused: bool) -> None:
        if was_refused:
            log.info("%s is accepted again.", self._source.config_file)
        found = changes(self._settings, settings) if self._settings is not None else ()
        differences = "; ".join(map(str, found)) or "no difference in backends, routes or default"
        log.info("%s has changed and is in use: %s.", self._source.config_file, differences)

    def _keep(self) -> None:
        problem = self._source.keep()
        if problem is not None and problem != self._copy_problem:
            message = "No copy of %s can be kept (%s): a restart with a wrong file will end the scheduler."
            log.warning(message, self._source.config_file, problem)
        self._copy_problem = problem
