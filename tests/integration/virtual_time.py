# SPDX-License-Identifier: Apache-2.0
"""A place of the simulation without the rest of its world."""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count
from random import Random

from airflow_dispatch_provider.simulation.tasks import Task, Tasks


class VirtualTime:
    """See ``places.Clock``. Chance is the same every time."""

    def __init__(self) -> None:
        self.now, self.tasks = 0.0, Tasks()
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._ties = count()

    def random(self, *of: object) -> Random:
        return Random(str(of))

    def after(self, seconds: float, call: Callable[[], None]) -> None:
        heappush(self._heap, (self.now + seconds, next(self._ties), call))

    def note(self, task: Task, what: str) -> None:
        """Nobody reads it."""

    def go_on(self) -> None:
        """For a second."""
        until = self.now + 1
        while self._heap and self._heap[0][0] <= until:
            self.now, _, call = heappop(self._heap)
            call()
        self.now = until

    def queued(self) -> Task:
        """A new task, as its scheduler has queued it."""
        task = self.tasks.add("q", 1)
        task.state = "queued"
        return task
