# SPDX-License-Identifier: Apache-2.0
"""Workloads that ended before they had begun. No user code has run: they are launched again, and cost no try. Pure."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any

MAX_DELAY = 60.0


def delay(times: int) -> float:
    """Seconds to wait after so many failures in a row: 1, 2, 4 ... ``MAX_DELAY``."""
    return min(MAX_DELAY, 2.0 ** (max(times, 1) - 1))


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
        self._tried[key] = tried
        self._waiting[key] = now + delay(tried), workload
        return delay(tried)

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

    failures: int = 0
    until: float = 0.0
    error: str = ""

    def note(self, error: str, now: float) -> None:
        """A workload could not begin, as nobody answered. What was launched beside it belongs to the same outage."""
        self.error = error
        if now >= self.until:
            self.failures += 1
            self.until = now + delay(self.failures)

    def answered(self) -> None:
        """A workload has begun."""
        self.failures, self.until = 0, 0.0

    def problem(self, now: float) -> str | None:
        """Why nothing should be launched now; None: it may be tried."""
        return f"The Execution API does not answer: {self.error}" if now < self.until else None
