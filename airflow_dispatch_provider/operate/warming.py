# SPDX-License-Identifier: Apache-2.0
"""Imports for ``explain`` before somebody waits for them: with Celery and Kubernetes some 2,000 modules."""

from __future__ import annotations

import logging
import threading
from typing import Protocol

from airflow_dispatch_provider.masking import describe
from airflow_dispatch_provider.operate.inspection import inspect
from airflow_dispatch_provider.settings.source import SettingsSource

log = logging.getLogger(__name__)


class HasSettings(Protocol):
    """The part of ``Answers`` that is used."""

    def settings(self, team: str | None) -> SettingsSource: ...


class Warming:
    """Imports the executors of everybody's backends once in a process, on a thread of its own: from the first look at
    the backends on, which comes before the page can ask where a task would go. A process of the API server that nobody
    asks imports nothing."""

    def __init__(self, answers: HasSettings) -> None:
        self._answers = answers
        self._begun = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="dispatch-warming", daemon=True)

    def begin(self) -> None:
        """Never waits; does nothing from the second call on."""
        if self._begun.acquire(blocking=False):
            self._thread.start()

    def wait(self) -> None:
        """Until it is over; for tests."""
        self._thread.join()

    def _run(self) -> None:
        try:
            inspect(self._answers.settings(None).load())
        except Exception as error:
            # Whoever asks is told what is wrong.
            log.debug("The executors of the backends could not be imported: %s", describe(error))
