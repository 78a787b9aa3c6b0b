# SPDX-License-Identifier: Apache-2.0
"""Workloads that ended before they had begun. No user code has run: they are launched again, and cost no try. Pure."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any

from airflow_dispatch_provider.engines.outage import Backoff
from airflow_dispatch_provider.routing.circuit import growing_delay

_FIRST, _MOST = 1.0, 60.0
"""Seconds between two launches: the first time, and at most."""


@dataclass
class Relaunches:
    """Workloads that wait for their next launch, and how often each has been launched in vain."""

    retries: int = 10
    """``[dispatch] launch_retries``: further launches of one workload before it fails with the last reason."""

    _tried: dict[Hashable, int] = field(default_factory=dict)
    _waiting: dict[Hashable, tuple[float, Any]] = field(default_factory=dict)

    def add(self, key: Hashable, workload: Any, now: float) -> float | None:
        """Seconds until its next launch; None where it has had all that it gets.

        :param now: monotonic seconds, as in ``due``
        """
        tried = self._tried.get(key, 0) + 1
        if tried > self.retries:
            self.forget(key)
            return None
        delay = growing_delay(tried - 1, _FIRST, _MOST)
        self._tried[key] = tried
        self._waiting[key] = now + delay, workload
        return delay

    def due(self, now: float) -> list[tuple[Hashable, Any]]:
        """Take out what is to be launched now."""
        keys = [key for key, (moment, _) in self._waiting.items() if moment <= now]
        return [(key, self._waiting.pop(key)[1]) for key in keys]

    def forget(self, key: Hashable) -> None:
        """It has ended, or was revoked."""
        self._tried.pop(key, None)
        self._waiting.pop(key, None)


@dataclass
class ApiOutage:
    """The Execution API as workloads have met it: a server of its own, which every engine needs to begin anything."""

    backoff: Backoff = field(default_factory=lambda: Backoff(_FIRST, _MOST))
    error: str = ""

    def note(self, error: str, now: float) -> None:
        """A workload could not begin, as nobody answered. What was launched beside it belongs to the same outage."""
        self.error = error
        if self.backoff.due(now):
            self.backoff = self.backoff.failed(now)

    def answered(self) -> None:
        """A workload has begun."""
        self.backoff = self.backoff.over()

    def problem(self, now: float) -> str | None:
        """Why nothing should be launched now; None: it may be tried."""
        return f"The Execution API does not answer: {self.error}" if not self.backoff.due(now) else None
