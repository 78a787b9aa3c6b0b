# SPDX-License-Identifier: Apache-2.0
"""Waiting for nothing: tasks that nobody has, tasks beside a free slot of a backend that is all right, and backends
that wait for the trouble of one task."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from math import inf
from typing import Protocol

from airflow_dispatch_provider.lifecycle.states import State
from airflow_dispatch_provider.routing.circuit import CircuitState
from airflow_dispatch_provider.simulation.places import Place
from airflow_dispatch_provider.simulation.schedulers import Scheduler
from airflow_dispatch_provider.simulation.tasks import Task, Tasks, Violation

UNCARED = 120.0
"""Seconds for which a task that is queued may be in nobody's care."""

IDLE = 180.0
"""Seconds for which a task may wait beside a free slot: more than the longest time for which a circuit is open, twice
over, and more than it takes to ask what has become of what a dead scheduler had."""

RECOVERED = 180.0
"""Seconds after which a fault that is over may keep no backend from its work."""

SUSPECTED = 900.0
"""Seconds for which a failure may be remembered against a backend: as long as nothing has succeeded there."""


class World(Protocol):
    """See ``world.World``."""

    now: float
    tasks: Tasks
    places: dict[str, Place]
    schedulers: dict[int, Scheduler]


class Patience:
    """Asked from time to time. A backend is all right where no fault has hit it, or everything, for the whole time."""

    def __init__(self, world: World, routes: Mapping[str, Sequence[str]]) -> None:
        """
        :param routes: the backends of each queue, the first choice first
        """
        self._world, self._routes = world, routes
        self._disturbed: dict[str, float] = {}
        """Until when (virtual seconds) a fault lasts, by what it has hit: a backend, or ``""`` for everything."""

        self._uncared: dict[Task, tuple[object, float]] = {}
        self._idle: dict[Task, tuple[object, float]] = {}
        """Since when, with what has to stay as it is meanwhile."""

    def disturb(self, what: str, seconds: float) -> None:
        """A fault has hit this.

        :param what: its last word may be the name of a backend
        """
        name = what.rpartition(" ")[2]
        name = name if name in self._world.places else ""
        self._disturbed[name] = max(self._disturbed.get(name, -inf), self._world.now + seconds)

    def check(self) -> None:
        """Raises ``Violation``."""
        uncared, idle = dict[Task, object](), dict[Task, object]()
        for scheduler in self._world.schedulers.values():
            if scheduler.alive and not scheduler.paused:
                machine, free = scheduler.loop.machine, self._free_slots(scheduler)
                for task in self._queued(scheduler):
                    if task.key not in machine:
                        uncared[task] = scheduler
                    elif (backend := free.get(task.queue)) is not None and self._waits(scheduler, task):
                        idle[task] = scheduler, backend
                self._check_circuits(scheduler)
        self._uncared = self._since(self._uncared, uncared, UNCARED, "is in nobody's care")
        self._idle = self._since(self._idle, idle, IDLE, "waits beside a free slot")

    def _queued(self, scheduler: Scheduler) -> Collection[Task]:
        tasks = self._world.tasks.in_state("queued")
        return [task for task in tasks if task.owner == scheduler.job and task.is_task]

    def _free_slots(self, scheduler: Scheduler) -> Mapping[str, str]:
        """The backend that has one, by queue."""
        used, found = scheduler.loop.machine.slots_used, dict[str, str]()
        for queue, (name, *_) in self._routes.items():
            is_open = queue not in self._world.places[name].closed and self._is_all_right(
                name, self._world.now
            )
            if is_open and scheduler.engines[name].has_room(used.get(name, 0)):
                found[queue] = name
        return found

    def _waits(self, scheduler: Scheduler, task: Task) -> bool:
        is_held = scheduler.loop.machine.state(task.key) is State.HELD
        return is_held and self._world.now >= task.spoilt_until

    def dispatched(self, scheduler: Scheduler, task: Task, backend: str) -> None:
        """A task goes to its first choice where that has a slot for it, unless it came to nothing there."""
        first = self._routes.get(task.queue, (backend,))[0]
        machine, place = scheduler.loop.machine, self._world.places[first]
        if first == backend or not self._is_all_right(first, self._world.now - RECOVERED):
            return
        was_full = (
            task.queue in place.closed or self._world.now < place.reopened.get(task.queue, -inf) + RECOVERED
        )
        is_closed = machine.circuit(first) is not CircuitState.CLOSED or was_full
        has_failed = any(each is task for _, each in place.failures)
        if scheduler.engines[first].has_room(machine.slots_used[first]) and not is_closed and not has_failed:
            raise Violation("passes over a free slot", task.number, f"of {first} for {backend}")

    def _check_circuits(self, scheduler: Scheduler) -> None:
        """None is open for the trouble of one task alone."""
        now, machine = self._world.now, scheduler.loop.machine
        for name in machine.slots_used:
            if machine.circuit(name) is CircuitState.OPEN and self._is_all_right(name, now - RECOVERED):
                failed = {task for at, task in self._world.places[name].failures if now - at < SUSPECTED}
                if len(failed) == 1:
                    raise Violation("is taken for a failure of its backend", failed.pop().number, name)

    def _is_all_right(self, name: str, since: float) -> bool:
        return all(since >= self._disturbed.get(what, -inf) for what in ("", name))

    def _since(
        self,
        before: Mapping[Task, tuple[object, float]],
        found: Mapping[Task, object],
        seconds: float,
        kind: str,
    ) -> dict[Task, tuple[object, float]]:
        now, after = self._world.now, dict[Task, tuple[object, float]]()
        for task, what in found.items():
            known, since = before.get(task, (None, now))
            after[task] = what, since if known == what else now
            if now - after[task][1] >= seconds:
                raise Violation(kind, task.number, f"for {seconds:.0f} s")
        return after
