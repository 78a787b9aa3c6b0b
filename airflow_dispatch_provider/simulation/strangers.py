# SPDX-License-Identifier: Apache-2.0
"""A model of what an executor of somebody else's runs, and over it the real foreign engine.

The executor is a subclass of the installed Airflow's base class, with bad manners: it raises in its heartbeat over what
it was given or over nothing, forgets keys, reports ends of what runs on, and does not answer who has what.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from airflow.executors.base_executor import BaseExecutor

from airflow_dispatch_provider.bridge import airflow_api
from airflow_dispatch_provider.engines.engine import Event, Found, Job
from airflow_dispatch_provider.engines.foreign import ForeignEngine
from airflow_dispatch_provider.lifecycle.events import Ended, Sent
from airflow_dispatch_provider.lifecycle.states import Outcome
from airflow_dispatch_provider.simulation.places import (
    REJECTED,
    ModelError,
    Place,
    RealEngine,
    Run,
)
from airflow_dispatch_provider.simulation.schedulers import Workload
from airflow_dispatch_provider.testing.workloads import make_task


class Stranger(BaseExecutor):
    """The executor."""

    def __init__(self, place: StrangePlace, engine: StrangeEngine) -> None:
        super().__init__()
        self._place, self._engine = place, engine
        self._keys: dict[Run, Any] = {}

    def start(self) -> None:
        """Nothing is needed."""

    def heartbeat(self) -> None:
        """The base class's without its metrics."""
        if self._place.raises and not self._place.up:
            raise ModelError("away")
        if self._place.up and not self._place.slow:
            self.trigger_tasks(self.parallelism - len(self.running))

    def _process_workloads(self, workload_items: Sequence[Any]) -> None:
        for workload in workload_items:
            run = self._place.send(self._engine.given[workload.ti.id], self._engine)
            if run is None:
                if self._engine.rng.random() < 0.5:
                    airflow_api.forget_queued(self, workload)
                raise ModelError("too large")
            airflow_api.forget_queued(self, workload)
            self._run(airflow_api.workload_key(self, workload), run)

    def _run(self, key: Any, run: Run) -> None:
        self._keys[run] = key
        self.running.add(key)

    def try_adopt_task_instances(self, tis: Sequence[Any]) -> Sequence[Any]:
        if self._place.mute:
            raise ModelError("mute")
        return [ti for ti in tis if not self._adopt(ti)]

    def _adopt(self, ti: Any) -> bool:
        for run in self._place.runs:
            if run.ti_id == ti.id:
                if run.engine not in (None, self._engine):
                    self._place.tell(run, Ended(0, Outcome.FAILED, None, "another scheduler has it"))
                run.engine = self._engine
                self._run(airflow_api.task_key(self, ti), run)
                return True
        return False

    def hear(self, run: Run, event: Event) -> None:
        """News of its place of a run, or of another one that has its key: it cannot tell them apart."""
        key = self._keys[run]
        if key not in self.running:
            return
        if isinstance(event, Sent):
            self.event_buffer[key] = "queued", event.info
        elif isinstance(event, Ended) and event.how is Outcome.SUCCESS:
            self.success(key)
        else:
            self.fail(key, getattr(event, "reason", None))

    def lose(self, run: Run) -> None:
        """Forget it without a word."""
        self.running.discard(self._keys[run])

    def end(self) -> None:
        """Nothing runs here."""

    def terminate(self) -> None:
        """Nothing runs here."""


class StrangePlace(Place):
    """One of a backend."""

    def engine(self, slots: int) -> StrangeEngine:
        return StrangeEngine(self, slots, next(self.numbers))

    def send(self, given: Workload, engine: StrangeEngine) -> Run | None:
        """None: it cannot be sent."""
        task = given.task
        task.sent += 1
        rng = self.world.random("run", task.number, task.sent)
        if rng.random() < REJECTED or self.refuses or self.world.now < task.spoilt_until:
            task.came_to_nothing(self.world.now)
            self.note_failure(task)
            return None
        return self.enter(Run(task, given.ti_id, engine, 0, rng))

    def tell(self, run: Run, *news: Event) -> None:
        if isinstance(run.engine, StrangeEngine):
            for event in news:
                run.engine.stranger.hear(run, event)

    def kill(self, run: Run, reason: str, told: bool = True) -> None:
        """Of what nobody is told, some executors have the key for ever, and some no more."""
        if not told and isinstance(run.engine, StrangeEngine) and run.rng.random() < 0.5:
            run.engine.stranger.lose(run)
        super().kill(run, reason, told)

    def deny(self, run: Run, is_own_fault: bool) -> None:
        """It has failed, as its executor says, and goes on."""
        self.note_failure(run.task)
        self.tell(run, Ended(0, Outcome.FAILED, None, "denied"))


class StrangeEngine(RealEngine):
    """See ``engine.Engine``."""

    place: StrangePlace

    def __init__(self, place: StrangePlace, slots: int, number: int) -> None:
        """
        :param number: names it among those of its place
        """
        super().__init__(place, slots)
        self.rng = place.world.random("engine", place.name, number)
        self.given: dict[UUID, Workload] = {}
        """By the id of the task instance."""

        self.stranger = Stranger(place, self)
        self._engine = ForeignEngine(
            place.name,
            lambda: self.stranger,
            slots,
            clock=lambda: place.world.now,
            chance=self.rng.random,
        )

    def _fail(self) -> None:
        """The engine lets nothing through."""

    def has_room(self, used: int) -> bool:
        """After a failure it is given nothing, or one at a time; some may be on their way to it."""
        room = self._engine.room()
        return super().has_room(used) and room.unavailable is None and used - len(self) < room.takes

    def submit(self, jobs: Sequence[Job]) -> None:
        self._engine.submit([self._real(job) for job in jobs])

    def _real(self, job: Job) -> Job:
        given: Workload = job.workload
        self.given[given.ti_id] = given
        workload = _workload(given.ti_id, job.key)
        return job._replace(key=airflow_api.workload_key(self.stranger, workload), workload=workload)

    def adopt(self, found: Sequence[Found]) -> None:
        self._engine.adopt([each._replace(ti=_workload(each.ti.id, each.key).ti) for each in found])


def _workload(ti_id: UUID, key: Any) -> Any:
    """
    :param key: number and try of the task
    """
    number, attempt = key
    return make_task(task_id=str(number), try_number=attempt, id=ti_id)
