# SPDX-License-Identifier: Apache-2.0
"""``config_file`` in a scheduler that runs: read at its start and when it changes, and spoken of in log, metrics and
event log."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence

from airflow_dispatch_provider.bridge.event_log import CHANGED_FILE, REFUSED_FILE
from airflow_dispatch_provider.bridge.metrics import gauge_refused_file
from airflow_dispatch_provider.exceptions import DispatchConfigError, Problem
from airflow_dispatch_provider.masking import masked
from airflow_dispatch_provider.settings.changes import changes
from airflow_dispatch_provider.settings.model import Settings
from airflow_dispatch_provider.settings.source import Check, SettingsSource

log = logging.getLogger(__name__)

REMIND = 300.0
"""Seconds between two log lines about a file that is still refused."""


class RoutingFile:
    """The scheduler's side of the file. Nothing but ``start`` raises."""

    def __init__(
        self, source: SettingsSource, tell: Callable[[str, str], None] = lambda event, detail: None
    ) -> None:
        """
        :param tell: called once for each version of the file that differs: with ``REFUSED_FILE`` and its mistakes, or
            with ``CHANGED_FILE`` and the differences
        """
        self._source, self._tell = source, tell
        self._settings: Settings | None = None
        self._refused: DispatchConfigError | None = None
        self._remind_at = math.inf
        self._copy_problem: str | None = None

    @property
    def path(self) -> str | None:
        """``config_file``, known once something was read; None: there is none."""
        return masked(self._source.config_file) if self._source.config_file else None

    @property
    def refusal(self) -> str | None:
        """All mistakes of the file on disk, over which another version is in use; None: it is in use itself."""
        return None if self._refused is None else str(self._refused)

    def start(self, now: float, check: Check = lambda settings: ()) -> Settings:
        """
        :param now: monotonic seconds
        :param check: finds mistakes that cannot be seen in the file alone
        :raises DispatchConfigError: naming every mistake; the scheduler does not start
        """
        self._settings = self._source.load_or_last_good(check)
        self._keep()
        if self._source.refused is not None:
            self._refuse("Starting with the last good version", self._source.refused, now)
        return self._settings

    def changed(self, now: float) -> Settings | None:
        """New settings, where the file has changed and is right as far as can be seen in it: the caller answers with
        ``accept`` or ``refuse``. Called in every heartbeat, but not before it has answered."""
        settings = self._read(now) if self._source.changed() else None
        if now >= self._remind_at and self._refused is not None:
            self._remind("Still going on with the last good version", self._refused, now)
        if self._source.config_file:
            gauge_refused_file(self._refused is not None)
        return settings

    def _read(self, now: float) -> Settings | None:
        try:
            return self._source.reload()
        except DispatchConfigError as error:
            self._refuse("Going on with the last good version", error, now)
            return None

    def accept(self, settings: Settings) -> None:
        """They are in use from now on."""
        found = changes(self._settings, settings) if self._settings is not None else ()
        if found or self._refused is not None:
            self._say_changed(list(map(str, found)) or ["no difference in backends, routes or default"])
        self._refused, self._remind_at = None, math.inf
        self._settings = settings
        self._keep()

    def _say_changed(self, differences: list[str]) -> None:
        """Not of a file that was only touched, or whose comments have changed: tools do that every minute."""
        if self._refused is not None:
            log.info("%s is accepted again.", self._source.config_file)
        log.info("%s has changed and is in use: %s.", self._source.config_file, "; ".join(differences))
        self._tell(CHANGED_FILE, "\n".join(differences))

    def refuse(self, problems: Sequence[Problem], now: float) -> None:
        """The version that was read last is not used."""
        error = DispatchConfigError(problems)
        self._source.refuse(error)
        self._refuse("Going on with the last good version", error, now)

    def _refuse(self, what: str, error: DispatchConfigError, now: float) -> None:
        is_known, self._refused = str(error) == self.refusal, error
        if not is_known:
            self._remind(what, error, now)
            self._tell(REFUSED_FILE, str(error))

    def _remind(self, what: str, error: DispatchConfigError, now: float) -> None:
        self._remind_at = now + REMIND
        log.error("%s of %s: the file that is there is refused. %s", what, self._source.config_file, error)

    def _keep(self) -> None:
        problem = self._source.keep()
        if problem is not None and problem != self._copy_problem:
            message = "No copy of %s can be kept (%s): a restart with a wrong file will end the scheduler."
            log.warning(message, self._source.config_file, problem)
        self._copy_problem = problem
