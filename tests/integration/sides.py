# SPDX-License-Identifier: Apache-2.0
"""Engines of the simulation without the rest of its world, and what they and real ones say."""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count
from random import Random
from typing import Any

from airflow_dispatch_provider.lifecycle.events import Stalled
from airflow_dispatch_provider.simulation.places import PlaceEngine
from airflow_dispatch_provider.simulation.tasks import Task, Tasks

Said = tuple[str, Any, Any]
"""An event: its name, and of an end how, and whether it had begun."""


def said(event: Any) -> Said:
    return type(event).__name__, getattr(event, "how", None), getattr(event, "began", None)


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

    def disturb(self, name: str, seconds: float) -> None:
        """Nobody is impatient."""

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


class Engines:
    """Of two schedulers, the second of which is the heir, and what each says."""

    def __init__(self, world: VirtualTime, *engines: PlaceEngine) -> None:
        self._world, self._engines = world, engines
        self._heard: list[list[Any]] = [[] for _ in engines]

    def turn(self) -> None:
        self._world.go_on()
        for engine, heard in zip(self._engines, self._heard, strict=True):
            heard += engine.poll()

    def until(self, condition: Callable[[], bool]) -> None:
        for _ in range(300):
            if condition():
                return
            self.turn()
        raise TimeoutError(self._heard)

    def said_of(self, dispatch: int, heir: bool = False) -> list[Any]:
        """But for reasons why it waits."""
        events = [event for event in self._heard[heir] if getattr(event, "dispatch", None) == dispatch]
        return [event for event in events if not isinstance(event, Stalled)]

    def hears(self, dispatch: int, kind: type[Any], heir: bool = False) -> list[Any]:
        """All that is said of it, up to the first event of that kind."""
        self.until(lambda: any(isinstance(event, kind) for event in self.said_of(dispatch, heir)))
        return self.said_of(dispatch, heir)
