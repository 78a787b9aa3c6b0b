# SPDX-License-Identifier: Apache-2.0
"""A model of Airflow's database and of its execution API: the rows of tasks, and who may change them when.

Rules after Airflow 3.3: ``ti_run`` lets one process of a try begin, and answers the same process once more. A try that
has run and one that was cleared are followed by one with another id; one that failed while it was queued is not.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from enum import Enum
from math import inf
from typing import Any
from uuid import UUID

from airflow_dispatch_provider.lifecycle.events import Limits
from airflow_dispatch_provider.lifecycle.states import GONE, Row, row_of
from airflow_dispatch_provider.routing.model import EXECUTE_TASK

HEARTBEAT = 5.0
"""Seconds between two heartbeats of a running task."""

SILENCE = 4 * HEARTBEAT
"""Seconds without one after which its process is dead, see ``events.Limits``."""

LAUNCHES = Limits().launch_retries
"""A task may fail once it has come to nothing so often before it began."""

LAUNCHED_FOR = 240.0
"""And that for so many seconds: the delays between so many launches come to five minutes."""

RUNNING = ("running", "restarting")
ADOPTABLE = ("queued", *RUNNING)

STUCK_RETRIES = 2
"""A task that is queued for too long is scheduled again so often, unless it has run since; then it fails."""


class Violation(BaseException):
    """An invariant does not hold. No ``Exception``: the loop lets none of these out.

    :param kind: which one: the same words for the same
    :param task: the number of the task concerned; None: there is no single one
    """

    def __init__(self, kind: str, task: int | None = None, detail: str = "") -> None:
        subject = "" if task is None else f"task {task} "
        super().__init__(f"{subject}{kind}{': ' if detail else ''}{detail}")
        self.kind, self.task = kind, task


@dataclass(eq=False)
class Task:
    """One task instance, as its row says, and what an observer knows besides; or a callback, of which Airflow has a
    state, and no executor asks for it."""

    number: int
    id: UUID
    queue: str
    priority: int
    defers: int = 0
    """How often it will still defer."""

    kind: str = EXECUTE_TASK

    state: str = "scheduled"
    owner: int | None = None
    """Id of the scheduler's job (``queued_by_job_id``)."""

    attempt: int = 1
    queued_at: float = 0.0
    beat: float = -inf
    run: Any = None
    """The process that was let begin last, in this try."""

    evidence: str | None = None
    """The backend that the event log names."""

    external_executor_id: str | None = None
    begun: bool = False
    """Its own code has begun, in this try."""

    in_vain: int = 0
    """How many of its dispatches have come to nothing before they began, in this try."""

    stuck: int = 0
    """How often it was scheduled again since it last ran, because it was queued for too long."""

    resumes: bool = False
    """It has deferred in this try (``next_method``)."""

    vain_since: float = 0.0
    vain_for: float = 0.0
    """When the first of these has, and seconds between that and the last."""

    excused: bool = False
    """The execution API let it begin and could not say so, and nobody who knows that nothing ran is left."""

    may_repeat: bool = False
    """It is a callback, and whoever sent it may take it for lost while it runs."""

    cleared: list[Any] = field(default_factory=list)
    """Processes that were let begin in a try that a user has cleared since: they end when they hear of it."""

    spoilt_until: float = -inf
    """Until then (virtual seconds) no backend can send it."""

    is_unprepared: bool = False
    """Then: its workload cannot even be prepared."""

    completed: int = 0
    sent: int = 0
    """How many of its dispatches have been sent, in all tries."""

    @property
    def is_here(self) -> bool:
        """All schedulers are on one host, which runs local processes."""
        return self.run is not None and self.run.is_local

    @property
    def key(self) -> Hashable:
        return self.number, self.attempt

    @property
    def is_task(self) -> bool:
        return self.kind == EXECUTE_TASK

    @property
    def may_fail(self) -> bool:
        """Airflow may use its try."""
        has_been_tried = self.in_vain > LAUNCHES and self.vain_for >= LAUNCHED_FOR
        return self.begun or self.excused or has_been_tried

    def came_to_nothing(self, now: float) -> None:
        """A dispatch of it has, before it began."""
        if not self.in_vain:
            self.vain_since = now
        self.in_vain += 1
        self.vain_for = now - self.vain_since


class Api(Enum):
    """Answers of the execution API to a process that asks for leave to start."""

    GO = "go"
    REFUSED = "refused"
    AWAY = "away"


@dataclass
class Tasks:
    """All of them, and the execution API, which changes them."""

    by_number: dict[int, Task] = field(default_factory=dict)
    by_id: dict[UUID, Task] = field(default_factory=dict)
    open: dict[int, Task] = field(default_factory=dict)
    """Those that have not succeeded."""

    api_up: bool = True
    swallow: int = 0
    """So many answers are lost though what was asked is done."""

    _ids: int = 0
    _assigned: int = 0

    def add(self, queue: str, priority: int, defers: int = 0, kind: str = EXECUTE_TASK) -> Task:
        number = len(self.by_number)
        task = Task(number, self._new_id(), queue, priority, defers, kind)
        self.by_number[number] = self.by_id[task.id] = self.open[number] = task
        return task

    def assign(self, task: Task) -> str:
        """An ``external_executor_id`` for what is queued now."""
        self._assigned += 1
        task.external_executor_id = f"assigned {self._assigned}"
        return task.external_executor_id

    def _new_id(self) -> UUID:
        self._ids += 1
        return UUID(int=self._ids)

    def of_key(self, key: Any) -> Task | None:
        """None: that try is over."""
        number, attempt = key
        task = self.by_number[number]
        return task if task.attempt == attempt else None

    def in_state(self, state: str) -> list[Task]:
        return [task for task in self.open.values() if task.state == state]

    # The scheduler and its executor

    def schedule(self, task: Task) -> None:
        """In the same try."""
        task.state, task.owner = "scheduled", None

    def resume(self, task: Task) -> None:
        """Its trigger has fired. Its scheduler stays its owner."""
        task.state = "scheduled"

    def next_try(self, task: Task, why: str) -> None:
        """Airflow runs it anew: the try is used."""
        self._check_loss(task, why)
        self._renew(task, task.state == "running")

    def restart(self, task: Task, why: str) -> None:
        """As what no executor adopts."""
        self._check_loss(task, why)
        self._renew(task, True)
        task.owner = None

    def fail(self, task: Task, why: str) -> None:
        """It has no more tries."""
        self._check_loss(task, why)
        task.state = "failed"
        del self.open[task.number]

    def _check_loss(self, task: Task, why: str) -> None:
        if task.state == "restarting":
            return  # a user wants another try
        if not task.may_fail:
            raise Violation("loses a try that had not begun", task.number, why)
        if task.run is not None and task.run.runs:
            raise Violation("loses a try that runs", task.number, why)

    def end_callback(self, task: Task, state: str) -> None:
        """As its scheduler was told."""
        if state == "failed" and not task.may_fail:
            raise Violation("is a callback that fails and had not begun", task.number)
        task.state = state
        self.open.pop(task.number, None)

    def clear(self, task: Task) -> None:
        """A user has it run anew, wherever it is: what runs ends first, and has another id already."""
        if task.state != "running":
            self.take_away(task)
            return
        self._leave_run(task)
        task.state = "restarting"
        self._rename(task)

    def take_away(self, task: Task) -> None:
        """It is run anew, whatever it does."""
        self._leave_run(task)
        self._renew(task, True)

    def _leave_run(self, task: Task) -> None:
        if task.run is not None:
            task.cleared.append(task.run)
            task.run = None

    def _rename(self, task: Task) -> None:
        del self.by_id[task.id]
        task.id = self._new_id()
        self.by_id[task.id] = task

    def _renew(self, task: Task, another_id: bool) -> None:
        if another_id:
            self._rename(task)
        task.attempt, task.begun, task.run = task.attempt + 1, False, None
        task.excused, task.in_vain, task.stuck, task.resumes = False, 0, 0, False
        task.state, task.evidence, task.external_executor_id = "scheduled", None, None

    def row(self, ti_id: UUID, job: int, now: float) -> Row:
        task = self.by_id.get(ti_id)
        if task is None:
            return GONE
        return row_of(task.state, task.owner == job, now - task.beat, task.is_here)

    # Processes

    def start(self, task: Task, ti_id: UUID, run: Any, now: float) -> Api:
        """``ti_run``; a callback asks nobody."""
        if not task.is_task:
            task.state = "running"
            return Api.GO
        if not self.api_up and not self.swallow:
            return Api.AWAY
        is_own = task.state == "running" and task.run is run
        if task.id != ti_id or not (task.state in ("queued", "restarting") or is_own):
            return Api.REFUSED
        task.state, task.run, task.beat, task.stuck = "running", run, now, 0
        if self.swallow:
            self.swallow -= 1
            return Api.AWAY
        return Api.GO

    def heartbeat(self, task: Task, run: Any, now: float) -> bool:
        """False: the process has to end, since its task is somebody else's by now."""
        if not self.api_up or not task.is_task:
            return True
        if task.run is not run or task.state != "running":
            return False
        task.beat = now
        return True

    def finish(self, task: Task, run: Any) -> bool:
        """Its own code has ended; False: not now. A run that is not its try's any more may not complete."""
        if not task.is_task:
            return self._complete(task)
        if not self.api_up:
            return False
        if run in task.cleared:
            return True
        if task.run is not run or task.state != "running":
            raise Violation("has a run that completes", task.number, f"its try is {task.state}")
        if task.defers:
            task.defers -= 1
            task.state, task.resumes = "deferred", True
            return True
        task.state = "success"
        del self.open[task.number]
        return self._complete(task)

    def _complete(self, task: Task) -> bool:
        task.completed += 1
        if task.completed > 1 and not task.may_repeat:
            raise Violation("completes twice", task.number)
        return True
