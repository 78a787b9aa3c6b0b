# SPDX-License-Identifier: Apache-2.0
"""A model of Airflow's scheduler around a real dispatch loop.

Rules after Airflow 3.3: the critical section, ``process_executor_events``, adoption of what dead schedulers had, tasks
stuck in queued, and tasks without a heartbeat.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from random import Random
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol
from uuid import UUID

from airflow_dispatch_provider.dispatch.loop import Loop
from airflow_dispatch_provider.lifecycle import actions, events
from airflow_dispatch_provider.lifecycle.actions import Dispatch
from airflow_dispatch_provider.lifecycle.events import EXECUTION_API, Offered, Rows
from airflow_dispatch_provider.lifecycle.job import Waits
from airflow_dispatch_provider.lifecycle.machine import Machine
from airflow_dispatch_provider.lifecycle.states import Row, State
from airflow_dispatch_provider.lifecycle.transitions import Rows as TableRows
from airflow_dispatch_provider.routing.model import TaskRef
from airflow_dispatch_provider.simulation.places import Clock, ModelError, Place, PlaceEngine
from airflow_dispatch_provider.simulation.tasks import (
    ADOPTABLE,
    RUNNING,
    SILENCE,
    STUCK_RETRIES,
    Task,
    Violation,
)

if TYPE_CHECKING:
    from airflow_dispatch_provider.simulation.patience import Patience

DEAD_AFTER = 30.0
"""``scheduler_health_check_threshold``, seconds."""

ADOPTION_EVERY = 30.0
JOB_HEARTBEAT = 5.0
"""``job_heartbeat_sec``, seconds."""

STUCK_AFTER = 600.0
"""``task_queued_timeout``, seconds."""

LOST_AFTER = 300.0
"""``task_instance_heartbeat_timeout``, seconds."""

FINDS_OUT_WITHIN = 100.0
"""Seconds without an outage after which a scheduler has set back what was let begin and whose answer was lost: the next
question to the execution API may be a minute away, and then its silence has to last."""

EVIDENCE_LOST = 0.5
"""Part of the schedulers that die before the rows of their last dispatches are written."""


_REFUSED = 0.5
"""Part of the questions to a database that is away which fail at once; the others are lost."""


class Instance(NamedTuple):
    """A task instance as it was read from its row."""

    task: Task
    id: UUID
    queued_by_job_id: int | None = None


class Workload(NamedTuple):
    """For one dispatch or more."""

    task: Task
    ti_id: UUID
    assigned: str | None = None
    """``external_executor_id``: another one each time that it is queued (Airflow 3.2 and later)."""

    @property
    def ti(self) -> Instance:
        """As it was when it was queued: its row may have another id by now."""
        return Instance(self.task, self.ti_id)


class World(Clock, Protocol):
    """See ``world.World``."""

    jobs: dict[int, float]
    """When each scheduler's job has sent its last heartbeat but one, which is in its row; minus infinity: it has
    ended."""

    taken_for_dead: set[int]
    """Jobs that some scheduler has marked as failed, until their next heartbeat."""

    database_up: bool

    def undisturbed(self, since: float) -> float: ...

    places: dict[str, Place]
    settings: events.Settings
    rows: TableRows
    slots: dict[str, int]
    patience: Patience


class ModelClerk:
    """See ``clerk.Clerk``: each question is answered after a while, or lost."""

    def __init__(self, world: World, job: int, rng: Random) -> None:
        self._world, self._job, self._rng = world, job, rng
        self._answers: list[Any] = []
        self.answered = False
        """It had an answer, the last time that it was asked for any."""

    def start(self) -> None:
        """Nothing is needed."""

    def stop(self, timeout: float) -> None:
        """Nothing is needed."""

    def ask_living(self) -> None:
        """Nobody tidies up here."""

    def take_living(self) -> None:
        return None

    def ask_api(self) -> None:
        """Its answer comes before those of the database to what is asked later."""
        is_up = self._world.tasks.api_up
        self._answers.append(
            events.Recovered(EXECUTION_API) if is_up else events.Broken(EXECUTION_API, "away")
        )

    def answers(self) -> list[Any]:
        answers, self._answers = self._answers, []
        self.answered = bool(answers)
        return answers

    def look_up(self, asked: int, ids: Mapping[Hashable, Any]) -> None:
        self._later(asked, ids, lambda task: None)

    def put_back(self, asked: int, ids: Mapping[Hashable, Any]) -> None:
        before = self._world.now

        def change(task: Task) -> None:
            if task.state == "queued" and task.owner == self._job and task.queued_at < before:
                self._world.tasks.schedule(task)

        self._later(asked, ids, change)

    def restart(self, asked: int, ids: Mapping[Hashable, Any]) -> None:
        def change(task: Task) -> None:
            if task.owner == self._job and self._silent(task):
                self._world.tasks.restart(task, "restart")

        self._later(asked, ids, change)

    def unstart(self, asked: int, ids: Mapping[Hashable, Any]) -> None:
        def change(task: Task) -> None:
            if (task.owner == self._job or task.is_here) and self._silent(task):
                if task.state == "running" and task.run.began:
                    raise Violation("is set back though it had begun", task.number)
                self._world.tasks.schedule(task)

        self._later(asked, ids, change)

    def _silent(self, task: Task) -> bool:
        return task.state in RUNNING and self._world.now - task.beat >= SILENCE

    def refresh(self, ids: Mapping[Hashable, Any]) -> None:
        for ti_id in ids.values():
            task = self._world.tasks.by_id.get(ti_id)
            if task is not None and task.state == "queued" and task.owner == self._job:
                task.queued_at = self._world.now

    def _later(self, asked: int, ids: Mapping[Hashable, Any], change: Callable[[Task], object]) -> None:
        def answer() -> None:
            if not self._world.database_up:
                if self._rng.random() < _REFUSED:
                    self._answers += [events.Unanswered(asked, key) for key in ids]
                return
            tasks, rows = self._world.tasks, dict[Hashable, Row]()
            for key, ti_id in ids.items():
                if ti_id in tasks.by_id:
                    change(tasks.by_id[ti_id])
                rows[key] = tasks.row(ti_id, self._job, self._world.now)
            self._answers.append(Rows(asked, rows))

        self._world.after(self._rng.uniform(0.01, 2.0), answer)


class ModelSurface:
    """See ``loop.Surface``."""

    def __init__(self, world: World, scheduler: Scheduler) -> None:
        self._world, self._scheduler = world, scheduler
        self.unwritten: list[tuple[Task, str]] = []
        self.launched = 0
        """How many dispatches there were."""

    def prepare(self, dispatch: Dispatch, backend: str) -> Any:
        task: Task = dispatch.workload.task
        if task.is_unprepared and self._world.now < task.spoilt_until:
            task.came_to_nothing(self._world.now)
            self._world.places[backend].note_failure(task)
            raise ValueError("cannot be prepared")  # Not a ModelError: nothing else may fail for it.
        return dispatch.workload

    def dispatched(self, backend: str, dispatches: Sequence[Dispatch]) -> None:
        tasks: list[Task] = [each.workload.task for each in dispatches]
        self.unwritten += [(task, backend) for task in tasks]
        self.launched += len(tasks)
        for task in tasks:
            self._world.patience.dispatched(self._scheduler, task, backend)

    def write(self) -> None:
        """Airflow does so once a loop."""
        for task, backend in self.unwritten:
            task.evidence = backend
        self.unwritten.clear()

    def record(self, key: Hashable, word: str, detail: str) -> None:
        """For people."""

    def value_of(self, action: actions.Emit | actions.EmitId) -> Any:
        if isinstance(action, actions.EmitId):
            return "running" if action.runs else "queued", action.info
        return action.how.value, action.info


class WatchedLoop(Loop):
    """It may fail at nothing but what a model lets fail."""

    def note_failure(self, what: str, error: Exception) -> None:
        if isinstance(error, ModelError):
            super().note_failure(what, error)
            return
        raise Violation(f"raises {type(error).__name__}", detail=f"{what}: {error}") from error


class Scheduler:
    """One process of a scheduler, from its start to its death."""

    def __init__(self, world: World, job: int) -> None:
        self.world, self.job = world, job
        self.alive, self.paused, self.rng = True, False, world.random("scheduler", job)
        self.engines: dict[str, PlaceEngine] = {
            name: place.engine(world.slots[name]) for name, place in world.places.items()
        }
        self._surface, self._buffer = ModelSurface(world, self), dict[Any, Any]()
        machine = Machine(world.settings, str(job), world.rows)
        self._clerk = clerk = ModelClerk(world, job, world.random("clerk", job))
        self.loop = WatchedLoop(machine, self.engines, clerk, self._surface, lambda: world.now)
        self._adopt_at = world.now + self.rng.uniform(0, ADOPTION_EVERY)
        self.beaten = world.jobs[job] = world.now
        self.loop.start(str(job), world.now)

    def die(self) -> None:
        self.alive = False
        if self.rng.random() >= EVIDENCE_LOST:
            self._surface.write()
        self.world.jobs[self.job] = float("-inf")
        for task in list(self.world.tasks.open.values()):
            if task.owner == self.job and not task.is_task:
                # Airflow has no adoption of callbacks.
                del self.world.tasks.open[task.number]
        for engine in self.engines.values():
            engine.place.desert(engine)

    def use(self, settings: events.Settings) -> None:
        """As the router does: the engine of a new backend is there before the machine knows of it."""
        for name in settings.backends:
            if name not in self.engines:
                self.engines[name] = engine = self.world.places[name].engine(self.world.slots[name])
                self.loop.add(name, engine)
        self.loop.tell(self.world.now, settings)

    def _part(self) -> None:
        """With the engines of backends that are drained."""
        for name in self.engines.keys() - self.loop.machine.slots_used.keys():
            self.loop.remove(name)
            engine = self.engines.pop(name)
            engine.place.desert(engine)

    def beat(self) -> None:
        """One round of its loop."""
        if self.world.now >= self._adopt_at:
            self._adopt_at = self.world.now + ADOPTION_EVERY
            self._adopt()
            self._purge()
        self.beat_job()
        self._queue()
        self._surface.write()
        self._heartbeat()
        self._part()
        self._take_events()

    def _heartbeat(self) -> None:
        """While the execution API is known to answer nobody, one task at a time may try it; an answer of the clerk may
        say that it does."""
        known, before = self._waits_for_api(), self._surface.launched
        self.loop.heartbeat(self.world.now, self._buffer)
        launched = self._surface.launched - before
        if launched > 1 and known and not self._clerk.answered and self._waits_for_api():
            raise Violation("launches tasks that cannot begin", detail=f"{launched} in one heartbeat")

    def _waits_for_api(self) -> bool:
        if self.world.tasks.api_up:
            return False
        machine = self.loop.machine
        held = next((key for key in machine if machine.state(key) is State.HELD), None)
        return held is not None and machine.waits(held) is Waits.API

    def beat_job(self) -> None:
        """Every few seconds. It runs again, also where another one has marked it as failed; what is written is when it
        sent the one before."""
        if self.world.now - self.beaten >= JOB_HEARTBEAT:
            self.world.jobs[self.job], self.beaten = self.beaten, self.world.now
            self.world.taken_for_dead.discard(self.job)

    def _queue(self) -> None:
        ready = sorted(self.world.tasks.in_state("scheduled"), key=lambda task: (-task.priority, task.number))
        for task in ready[: self.loop.machine.free_slots() if ready else 0]:
            task.state, task.owner, task.queued_at = "queued", self.job, self.world.now
            workload = Workload(task, task.id, self.world.tasks.assign(task))
            self.loop.queue(task.key, workload, _ref(task), task.priority, self.world.now)

    def _take_events(self) -> None:
        taken, self._buffer = self._buffer, {}
        for key, (state, info) in taken.items():
            task = self.world.tasks.of_key(key)
            if task is None:
                continue
            if state not in ("success", "failed"):
                task.external_executor_id = info
                continue
            if not task.is_task:
                if task.state in ("queued", "running"):
                    self.world.tasks.end_callback(task, state)
            elif self._is_lost(task, state) and key not in self.loop.machine:
                self.world.tasks.next_try(task, f"{state} was told while it was {task.state}")

    def _is_lost(self, task: Task, told: str) -> bool:
        """Its executor says that it has ended, and its row does not."""
        has_only_deferred = task.state == "scheduled" and task.resumes and told == "success"
        is_open = task.state in ("scheduled", *ADOPTABLE)
        return task.owner == self.job and is_open and not has_only_deferred

    def _adopt(self) -> None:
        now = self.world.now
        dead = self.world.taken_for_dead
        dead |= {job for job, beat in self.world.jobs.items() if now - beat > DEAD_AFTER}
        for task in list(self.world.tasks.open.values()):
            if task.owner in dead and task.state in ADOPTABLE and task.is_task:
                self._take_over(task)

    def _take_over(self, task: Task) -> None:
        runs = task.state in RUNNING
        names = tuple(self.engines) if runs and task.evidence is None else ()
        offered = Offered(
            task.key, _ref(task), runs, task.evidence, names, Instance(task, task.id, task.owner)
        )
        self.loop.offer(offered, self.world.now)
        task.owner = self.job
        task.excused = runs and not task.begun

    def _purge(self) -> None:
        now = self.world.now
        self._purge_stuck(now)
        for task in list(self.world.tasks.open.values()):
            is_ours = task.owner == self.job and task.state in RUNNING and task.is_task
            if is_ours and now - task.beat > LOST_AFTER:
                task.excused |= self.world.undisturbed(task.beat) < FINDS_OUT_WITHIN
                self.loop.give_up(task.key, now)
                self.world.tasks.next_try(task, "no heartbeat")

    def _purge_stuck(self, now: float) -> None:
        for task in self.world.tasks.in_state("queued"):
            if not (task.owner == self.job and now - task.queued_at > STUCK_AFTER and task.is_task):
                continue
            if not self.loop.revoke(task.key, now):
                return  # Airflow looks at no other one of this executor then
            if task.stuck < STUCK_RETRIES:
                task.stuck += 1
                self.world.tasks.schedule(task)
            else:
                self.world.tasks.fail(task, "queued for too long")


def _ref(task: Task) -> TaskRef:
    return TaskRef(task.queue, "dag", str(task.number), task.kind)
