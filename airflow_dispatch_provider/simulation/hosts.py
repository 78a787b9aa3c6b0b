# SPDX-License-Identifier: Apache-2.0
"""A model of a machine with its processes, and over it the real local engine with its pool.

The model has template processes, what they fork, and signals. The pool is the engine's own, so that it meets templates
that die, hang, or cannot be started.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import count
from types import SimpleNamespace
from typing import Any

from airflow_dispatch_provider.engines.engine import Event, Found, Job
from airflow_dispatch_provider.engines.local import messages
from airflow_dispatch_provider.engines.local._options import LocalOptions
from airflow_dispatch_provider.engines.local._search import Answer
from airflow_dispatch_provider.engines.local.engine import LocalEngine
from airflow_dispatch_provider.engines.local.launch import Mode
from airflow_dispatch_provider.engines.local.messages import Work
from airflow_dispatch_provider.engines.local.pool import Pool
from airflow_dispatch_provider.lifecycle.events import Began, Ended
from airflow_dispatch_provider.lifecycle.states import Outcome
from airflow_dispatch_provider.routing.model import EXECUTE_TASK
from airflow_dispatch_provider.simulation.places import (
    REJECTED,
    Clock,
    Kind,
    Place,
    PlaceEngine,
    RealEngine,
    Run,
)
from airflow_dispatch_provider.simulation.tasks import Task, Violation
from airflow_dispatch_provider.simulation.templates import (
    SIGKILLED,
    Killed,
    Process,
    Template,
    Watchlist,
)

_RACE = 2.0
"""Seconds: what was told to end before it began may have begun by the time of the signal."""

_RESTARTS = 90.0
"""Seconds for which a template process that has died may be missed: at most a minute, and then it has to be ready."""


class Host(Place):
    """One of a backend."""

    def __init__(self, world: Clock, name: str, kind: Kind) -> None:
        super().__init__(world, name, kind)
        self.pids = count(1)
        self.engines: list[HostEngine] = []

    @property
    def shows_the_api(self) -> bool:
        is_kept = self.late or self.reverses or self.slow or self.idle or self.refuses or self.breaks
        return self.up and not is_kept and all(each.is_ready for each in self.engines if not each.is_dead)

    def engine(self, slots: int) -> HostEngine:
        engine = HostEngine(self, slots, next(self.numbers))
        self.engines.append(engine)
        return engine

    def processes(self) -> Iterable[Process]:
        return [run for run in self.runs if isinstance(run, Process)]

    def children(self, template: Template | None) -> Sequence[Process]:
        """Of a template process that lives."""
        processes = self.processes() if template is not None else ()
        return [process for process in processes if process.template is template]

    def launch(self, engine: HostEngine) -> Template:
        """Start a template process; raises OSError where none can be started."""
        if not self.up:
            raise OSError("no process can be started")
        engine.template = Template(self, engine)
        return engine.template

    def fork(self, job: Job, number: int, template: Template) -> Process | None:
        """A process for a dispatch; None: there cannot be one."""
        if self.refuses:
            return None
        task: Task = job.workload.task
        if len(self.children(template)) >= template.engine.slots:
            raise Violation("has more processes than slots", task.number)
        task.sent += 1
        rng = self.world.random("run", task.number, task.sent)
        process = Process(task, job.workload.ti_id, None, job.dispatch, rng)
        process.pid, process.number, process.template = next(self.pids), number, template
        process.created_at = self.world.now
        return self.enter(process)

    def find(self, pid: int, created: float) -> Process | None:
        """See ``processes.find``."""
        return next((process for process in self.processes() if process.pid == pid), None)

    def runs_task(self, pid: int) -> bool:
        """See ``processes.runs_task``."""
        return any(process.runs for process in self.processes() if process.pid == pid)

    def end(self, process: Process, grace: float) -> None:
        """SIGTERM, and SIGKILL after its grace."""
        seconds = min(grace, process.rng.uniform(0.05, 1.0) * grace * 1.5)
        self.world.after(seconds, lambda: self._signal(process))

    def _signal(self, process: Process) -> None:
        if process.over:
            return
        has_its_try = process.task.run is process and process.task.state == "running"
        if process.runs and has_its_try and self.world.now - process.begun_at > _RACE:
            raise Violation("is killed, and runs", process.task.number)
        self.kill(process, "told to end")

    def lose(self, template: Template) -> None:
        """It has died."""
        self.world.disturb(self.name, _RESTARTS)
        for process in self.children(template):
            process.template = None

    # As a place

    def go_away(self, empties: bool) -> None:
        """No process can be started, and the template processes die; where it comes back empty, everything."""
        super().go_away(empties)
        for engine in self.engines:
            engine.kill_template()
        for process in self.processes() if empties else ():
            self.kill(process, "killed with all others")

    def is_heard(self, run: Run) -> bool:
        assert isinstance(run, Process)
        return run.template is not None

    def tell_begun(self, run: Run) -> None:
        assert isinstance(run, Process)
        run.begun_at = self.world.now
        self.tell(run, Began(run.dispatch))

    def tell(self, run: Run, *news: Event) -> None:
        """By its template process, if that lives: what it has heard of the process, and how that has ended."""
        assert isinstance(run, Process)
        if (template := run.template) is None:
            return
        for event in news:
            template.tell(messages.Began(run.number) if isinstance(event, Began) else _end_of(run, event))
        template.fill_later()

    def kill(self, run: Run, reason: str, told: bool = True) -> None:
        """With its template process, where that shall not tell."""
        if not told:
            self._kill_template_of(run)
        super().kill(run, reason)

    def give_back(self, run: Run, is_own_fault: bool) -> None:
        """It ends before it asks for leave to start."""
        self.kill(run, "ended")

    def deny(self, run: Run, is_own_fault: bool) -> None:
        """Its template process dies, and it goes on."""
        self._kill_template_of(run)

    def _kill_template_of(self, run: Run) -> None:
        assert isinstance(run, Process)
        if run.template is not None:
            run.template.kill()

    def desert(self, engine: PlaceEngine) -> None:
        """Its template process ends after what it has forked, and nobody hears of that."""
        engine.is_dead = True
        assert isinstance(engine, HostEngine)
        self.engines.remove(engine)
        engine.kill_template()


def _end_of(process: Process, event: Event) -> messages.Ended:
    """As its template process tells it."""
    if not isinstance(event, Ended):
        return messages.Ended(process.number, SIGKILLED, began=process.began)
    if event.how is Outcome.SUCCESS:
        return messages.Ended(process.number, 0, began=True)
    is_away = event.reason == "no API"
    began = None if is_away else process.began
    return messages.Ended(process.number, 1, event.reason, unanswered=is_away, began=began)


class Search:
    """See ``_search.Search``."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._asked: list[tuple[Found, float]] = []

    def ask(self, found: Sequence[Found]) -> None:
        self._asked += [(each, self._host.world.now) for each in found]

    def answers(self) -> list[Answer]:
        if self._host.mute:
            return []
        asked, self._asked = self._asked, []
        return [Answer(each, self._process(each, at)) for each, at in asked]

    def _process(self, found: Found, before: float) -> Any:
        ours = [run for run in self._host.processes() if run.ti_id == found.ti.id]
        return next((run for run in reversed(ours) if run.created_at < before), None)

    def stop(self) -> None:
        """Nothing goes on."""


class Errand:
    """A workload as the engine reads it, and pickles it."""

    def __init__(self, given: Any, is_spoilt: bool) -> None:
        task: Task = given.task
        ids = {"dag_id": "dag", "run_id": "run", "task_id": str(task.number), "map_index": -1}
        more = {"queue": task.queue, "priority_weight": task.priority}
        self.ti = SimpleNamespace(id=given.ti_id, **more, **ids) if task.is_task else None
        self.callback = SimpleNamespace(id=given.ti_id)
        self.type, self.display_name, self.is_spoilt = EXECUTE_TASK, str(given.ti_id), is_spoilt

    def __reduce__(self) -> tuple[Any, ...]:
        if self.is_spoilt:
            raise TypeError("cannot be pickled")
        return str, (self.display_name,)


class HostEngine(RealEngine):
    """See ``engine.Engine``."""

    place: Host

    def __init__(self, place: Host, slots: int, number: int) -> None:
        """
        :param number: names it among those of its machine
        """
        super().__init__(place, slots)
        self.number, self.templates = number, count(1)
        self.template: Template | None = None
        self.given: dict[int, Job] = {}
        """Jobs that no template process has come to yet, by dispatch."""

        self._watched = Watchlist()
        self._rng = place.world.random("engine", place.name, number)
        search: Any = Search(place)
        self._engine = LocalEngine(
            place.name,
            slots,
            None,
            LocalOptions(template="exec"),
            clock=self._clock,
            make_pool=self._make_pool,
            make_search=lambda title: search,
        )

    def _clock(self) -> float:
        return self.place.world.now

    def _make_pool(self, work: Work, mode: Mode) -> Pool:
        host = self.place
        machine: Any = SimpleNamespace(
            Watchlist=lambda: self._watched,
            KillList=lambda clock: Killed(host),
            find=host.find,
            runs_task=host.runs_task,
            survivors=lambda leader: [],
            kill_trees=lambda roots: None,
        )

        def launch(mode: Mode, work: Work) -> Any:
            return host.launch(self)

        return Pool(work, mode, self._clock, launch, machine)

    @property
    def is_ready(self) -> bool:
        """Whether it could start a process now."""
        return self._engine.room().takes != 0

    def has_room(self, used: int) -> bool:
        """Its slots are taken until its processes are gone, whatever its scheduler thinks of their tasks."""
        processes = {*self._watched.values(), *self.place.children(self.template)}
        return max(used, sum(not process.over for process in processes)) < self.slots

    def kill_template(self) -> None:
        if self.template is not None:
            self.template.kill()

    def submit(self, jobs: Sequence[Job]) -> None:
        self.given.update({job.dispatch: job for job in jobs})
        self._engine.submit([job._replace(workload=self._errand(job)) for job in jobs])

    def _errand(self, job: Job) -> Errand:
        task: Task = job.workload.task
        is_spoilt = self._rng.random() < REJECTED or self.place.world.now < task.spoilt_until
        if is_spoilt:
            task.came_to_nothing(self.place.world.now)
            self.place.note_failure(task)
        return Errand(job.workload, is_spoilt)
