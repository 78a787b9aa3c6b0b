# SPDX-License-Identifier: Apache-2.0
"""The simulation's model of Airflow, without the loop that is tried with it."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from airflow_dispatch_provider.simulation.schedulers import (
    DEAD_AFTER,
    JOB_HEARTBEAT,
    LOST_AFTER,
    STUCK_AFTER,
    ModelClerk,
)
from airflow_dispatch_provider.simulation.tasks import SILENCE, Api, Task, Violation
from airflow_dispatch_provider.simulation.world import Shape, World

from .sides import GO, REFUSED, Seen


class Executor:
    """Stands in for the dispatch loop, and knows what its side says."""

    def __init__(self, side: ModelSide) -> None:
        self.side, self.offered, self.revoked = side, list[int](), list[Any]()
        self.machine = self

    def __contains__(self, key: object) -> bool:
        return self.side.holds

    def free_slots(self) -> int:
        return 1

    def queue(self, *of: Any) -> None:
        """Nothing is run."""

    def offer(self, offered: Any, now: float) -> None:
        self.offered.append(offered.subject.task.number)

    def revoke(self, key: Any, now: float) -> bool:
        self.revoked.append(key)
        return self.side.revokes

    def give_up(self, key: Any, now: float) -> None:
        """Nothing is run."""


class ModelSide:
    """See ``sides.Side``."""

    is_model = True
    one_id_per_try = False

    def __init__(self) -> None:
        self.takes, self.revokes, self.holds = True, True, False
        self._world = World(1, Shape(schedulers=2))
        self._schedulers: dict[str, Any] = dict(zip("ab", self._world.schedulers.values(), strict=True))
        for scheduler in self._schedulers.values():
            scheduler.loop = Executor(self)
        self._world.now = 2 * max(DEAD_AFTER, LOST_AFTER, STUCK_AFTER, SILENCE)
        for scheduler in self._schedulers.values():
            scheduler.beaten = self._world.jobs[scheduler.job] = self._world.now
        self._tasks = self._world.tasks
        self._task: Task = self._tasks.add("near", 1, defers=0)
        self._ids: list[Any] = []
        self._runs: dict[int, Any] = {}
        self.see()

    def see(self) -> Seen:
        task = self._task
        if task.id not in self._ids:
            self._ids.append(task.id)
        owner = next((name for name, each in self._schedulers.items() if each.job == task.owner), None)
        return Seen(task.state, owner, task.attempt, self._ids.index(task.id))

    # Schedulers

    def queue(self, scheduler: str = "a") -> None:
        assert self.see().state == "scheduled"
        self._schedulers[scheduler]._queue()

    def event(self, scheduler: str, state: str, attempt: int = 1) -> None:
        key = (self._task.number, attempt)
        self._schedulers[scheduler]._buffer[key] = state, None
        self._tried(self._schedulers[scheduler]._take_events)

    def _tried(self, call: Callable[[], None]) -> None:
        """Airflow uses tries that the model holds for lost: whether it may is not asked here."""
        self._task.begun = True
        if self._task.run is not None:
            self._task.run.runs = False
        call()

    def fall_silent(self, scheduler: str) -> None:
        one = self._schedulers[scheduler]
        one.beaten = self._world.jobs[one.job] = self._world.now - 2 * DEAD_AFTER

    def end(self, scheduler: str) -> None:
        self._world.jobs[self._schedulers[scheduler].job] = float("-inf")

    def beat(self, scheduler: str) -> None:
        self._schedulers[scheduler].beaten -= JOB_HEARTBEAT
        self._schedulers[scheduler].beat_job()

    def adopt(self, scheduler: str) -> bool:
        executor = self._schedulers[scheduler].loop
        executor.offered.clear()
        self._schedulers[scheduler]._adopt()
        return self._task.number in executor.offered

    def wait_queued(self, scheduler: str) -> bool:
        executor = self._schedulers[scheduler].loop
        executor.revoked.clear()
        self._task.queued_at = self._world.now - 2 * STUCK_AFTER
        self._tried(self._schedulers[scheduler]._purge)
        return bool(executor.revoked)

    def lose_heartbeat(self, scheduler: str) -> None:
        self._task.beat = self._world.now - 2 * LOST_AFTER
        self._tried(self._schedulers[scheduler]._purge)

    # Processes

    def start(self, process: int, id: int | None = None) -> str:
        number = self.see().id if id is None else id
        run = self._runs.setdefault(process, SimpleNamespace(runs=False, began=False, is_local=False))
        answer = self._tasks.start(self._task, self._ids[number], run, self._world.now)
        return GO if answer is Api.GO else REFUSED

    def heartbeat(self, process: int) -> bool:
        return self._tasks.heartbeat(self._task, self._runs[process], self._world.now)

    def succeed(self, process: int) -> bool:
        run = self._runs[process]
        if run in self._task.cleared:
            return False
        try:
            return self._tasks.finish(self._task, run)
        except Violation:
            return False

    def defer(self, process: int) -> bool:
        self._task.defers = 1
        return self.succeed(process)

    # Others

    def trigger(self) -> None:
        self._tasks.resume(self._task)

    def clear(self) -> None:
        self._tasks.clear(self._task)

    def _clerk(self, scheduler: str, method: str) -> None:
        clerk = ModelClerk(self._world, self._schedulers[scheduler].job, self._world.random("clerk"))
        changes: list[Callable[[Task], object]] = []
        clerk._later = lambda asked, ids, change: changes.append(change)
        getattr(clerk, method)(0, {self._task.key: self._task.id})
        self._tried(lambda: [change(self._task) for change in changes] and None)

    def put_back(self, scheduler: str) -> None:
        self._task.queued_at = self._world.now - 1
        self._clerk(scheduler, "put_back")

    def unstart(self, scheduler: str) -> None:
        self._task.beat = self._world.now - 2 * SILENCE
        self._clerk(scheduler, "unstart")

    def restart(self, scheduler: str) -> None:
        self._task.beat = self._world.now - 2 * SILENCE
        self._clerk(scheduler, "restart")
