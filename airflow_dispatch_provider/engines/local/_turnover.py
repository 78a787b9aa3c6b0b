# SPDX-License-Identifier: Apache-2.0
"""How many slots become free before the scheduler is back. Pure; times are monotonic seconds, and given."""

from __future__ import annotations

from collections import deque

_REMEMBERED = 10.0
"""Seconds for which an end counts."""

_LEAST = 4.0
"""Seconds over which a pace is taken at least: several that end at the same moment are none."""

_AWAY = 2.0
"""Seconds that the scheduler may be away: with Airflow's defaults it sleeps for one, and its loop takes time, too."""


class Turnover:
    """The pace at which workloads have ended of late, and so the pace at which others may start."""

    def __init__(self) -> None:
        self._ends = deque[float]()

    def ended(self, now: float, number: int) -> None:
        """Take in that so many have ended since the last time."""
        self._ends.extend([now] * number)
        while self._ends and now - self._ends[0] > _REMEMBERED:
            self._ends.popleft()

    def expected(self, now: float) -> int:
        """How many ends there will be while the scheduler is away, if that goes on; one end is no pace."""
        if len(self._ends) < 2:
            return 0
        return round(len(self._ends) * _AWAY / max(_LEAST, now - self._ends[0]))
