# SPDX-License-Identifier: Apache-2.0
"""Virtual time, and all that happens in it by chance; the same seed tells the same story."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import count
from random import Random
from zlib import crc32

from airflow_dispatch_provider.lifecycle.events import BackendRules, Limits, Settings
from airflow_dispatch_provider.routing.model import Route, Target
from airflow_dispatch_provider.routing.routes import RouteTable
from airflow_dispatch_provider.simulation.places import CELERY, KUBERNETES, LOCAL, Place, Run
from airflow_dispatch_provider.simulation.schedulers import Scheduler
from airflow_dispatch_provider.simulation.tasks import HEARTBEAT, Task, Tasks, Violation

BACKENDS = {"local": (LOCAL, 4), "celery": (CELERY, 16), "pods": (KUBERNETES, 16)}
"""Kind and slots of each."""

ROUTES = {"near": ("local",), "far": ("celery", "pods"), "wide": ("pods", "celery", "local")}
LONGEST_API_OUTAGE, LONGEST_DATABASE_OUTAGE = 120.0, 60.0
"""Seconds."""

CALM = 7200.0
"""Seconds after the last fault within which everything has to have ended."""

DAY = 86_400.0


@dataclass(frozen=True)
class Shape:
    """How large a world is, and how rough."""

    schedulers: int = 2
    batch: int = 12
    """Tasks that come at a time."""

    every: float = 60.0
    """Seconds between two batches."""

    fault_every: float = 30.0
    """Seconds between two faults, on average."""


class World:
    """One run. Raises ``Violation`` as soon as an invariant does not hold."""

    def __init__(self, seed: int, shape: Shape = Shape()) -> None:
        self.rng, self.shape, self.now = Random(seed), shape, 0.0
        self.tasks, self.jobs = Tasks(), dict[int, float]()
        self.database_up = True
        self.faults: Counter[str] = Counter()
        self.recent: deque[tuple[float, str]] = deque(maxlen=20)
        """When the last faults happened (virtual seconds), and which."""

        self.trace = 0
        """A checksum of all that has begun and ended, in order."""

        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._ties, self._job_ids = count(), count(1)
        self._calm = False
        self.slots = {name: slots for name, (_, slots) in BACKENDS.items()}
        self.places = {name: Place(self, name, kind) for name, (kind, _) in BACKENDS.items()}
        routes = [Route(queue=queue, to=tuple(map(Target, to))) for queue, to in ROUTES.items()]
        table = RouteTable(routes, Route(queue="*", to=(Target("celery"),)), {})
        self.settings = Settings(table, dict.fromkeys(BACKENDS, BackendRules()), Limits())
        self.schedulers: dict[int, Scheduler] = {}
        for place in range(shape.schedulers):
            self._start(place)
        self._beat()

    def after(self, seconds: float, call: Callable[[], None]) -> None:
        heappush(self._heap, (self.now + seconds, next(self._ties), call))

    def note(self, task: Task, what: str) -> None:
        """Something has begun or ended."""
        self.trace = crc32(f"{self.now} {task.number} {what}".encode(), self.trace)

    def run(self, seconds: float) -> None:
        """So long with faults, and then until everything has ended."""
        self._bring_tasks(seconds + CALM / 4)
        self._break_something(seconds)
        self._until(seconds, lambda: False)
        self._calm_down()
        self._until(self.now + CALM, self._is_over)
        if not self._is_over():
            raise Violation(f"after {CALM:.0f} s without faults: {self.left()}")

    def _until(self, end: float, is_over: Callable[[], bool]) -> None:
        while self._heap and self._heap[0][0] <= end and not is_over():
            self.now, _, call = heappop(self._heap)
            call()
        if not is_over():
            self.now = max(self.now, end)

    def left(self) -> str:
        """Whatever is still there, in words."""
        rows = [
            f"task {task.number} {task.state} owner {task.owner} try {task.attempt}"
            for task in list(self.tasks.open.values())[:5]
        ]
        machines = [repr(each.loop.machine) for each in self.schedulers.values()]
        engines = [
            f"{name} {len(engine)}"
            for each in self.schedulers.values()
            for name, engine in each.engines.items()
        ]
        return "; ".join([*rows, *machines, *engines])

    def _is_over(self) -> bool:
        if self.tasks.open:
            return False
        living = self.schedulers.values()
        idle = all(
            not len(each.loop.machine) and not sum(each.loop.machine.slots_used.values()) for each in living
        )
        return idle and not any(len(engine) for each in living for engine in each.engines.values())

    # What happens by itself

    def _bring_tasks(self, until: float) -> None:
        for _ in range(self.shape.batch):
            self.tasks.add(
                self.rng.choice(list(ROUTES)), self.rng.choice((1, 1, 5)), int(self.rng.random() < 0.1)
            )
        if self.now + self.shape.every < until:
            self.after(self.shape.every, lambda: self._bring_tasks(until))

    def _beat(self) -> None:
        """Heartbeats of tasks, and the triggers of those that have deferred."""
        for place in self.places.values():
            place.beat()
        for task in self.tasks.in_state("deferred"):
            self.tasks.schedule(task)
        self.after(HEARTBEAT, self._beat)

    def _start(self, place: int) -> None:
        scheduler = self.schedulers[place] = Scheduler(self, next(self._job_ids))
        self.after(self.rng.uniform(0, 1), lambda: self._round(scheduler))

    def _round(self, scheduler: Scheduler) -> None:
        if scheduler.alive:
            if not scheduler.paused:
                scheduler.beat()
            self.after(self.rng.uniform(0.8, 1.2), lambda: self._round(scheduler))

    # Faults

    def _break_something(self, until: float) -> None:
        fault = self.rng.choice(_FAULTS)
        if self.now:
            name = fault.__name__.strip("_").replace("_", " ")
            self.faults[name] += 1
            self.recent.append((self.now, name))
            fault(self)
        delay = self.rng.expovariate(1 / self.shape.fault_every)
        if self.now + delay < until:
            self.after(delay, lambda: self._break_something(until))

    def _calm_down(self) -> None:
        self._calm = True
        self.tasks.api_up, self.tasks.swallow, self.database_up = True, 0, True
        for place in self.places.values():
            place.up, place.mute = True, False
        for scheduler in self.schedulers.values():
            scheduler.paused = False

    def _down_for(self) -> float:
        return self.rng.choice((0.5, 5.0, 20.0, 60.0, 300.0))

    def _restore(self, repair: Callable[[], None]) -> None:
        self.after(self._down_for(), lambda: None if self._calm else repair())

    def _scheduler_killed(self) -> None:
        place = self.rng.randrange(self.shape.schedulers)
        if self.schedulers[place].alive:
            self.schedulers[place].die()
            self.after(self.rng.uniform(0, 40), lambda: self._start(place))

    def _scheduler_stopped(self) -> None:
        scheduler = self.schedulers[self.rng.randrange(self.shape.schedulers)]
        scheduler.paused = True
        self._restore(lambda: setattr(scheduler, "paused", False))

    def _api_killed(self) -> None:
        """For less than LOST_AFTER: else Airflow takes whatever runs for dead."""
        if self.tasks.api_up:
            self.tasks.api_up, self.tasks.swallow = False, self.rng.choice((0, 1, 3))
            self.after(min(self._down_for(), LONGEST_API_OUTAGE), self._api_is_back)

    def _api_is_back(self) -> None:
        self.tasks.api_up, self.tasks.swallow = True, 0

    def _database_away(self) -> None:
        """For the clerks alone, and not for long: a scheduler whose own questions fail ends."""
        self.database_up = False
        self.after(min(self._down_for(), LONGEST_DATABASE_OUTAGE), lambda: setattr(self, "database_up", True))

    def _backend_away(self) -> None:
        place = self._any_place()
        place.up = False
        self._restore(lambda: setattr(place, "up", True))

    def _backend_mute(self) -> None:
        place = self._any_place()
        place.mute = True
        self._restore(lambda: setattr(place, "mute", False))

    def _run_lost(self) -> None:
        """A message, or a process that had begun; its engine hears nothing."""
        if run := self._any_run():
            self.places[self._place_of(run)].kill(run, "lost", told=False)

    def _run_killed(self) -> None:
        if run := self._any_run():
            self.places[self._place_of(run)].kill(run, "killed")

    def _any_place(self) -> Place:
        return self.rng.choice(list(self.places.values()))

    def _any_run(self) -> Run | None:
        runs = [run for place in self.places.values() for run in place.runs]
        return self.rng.choice(runs) if runs else None

    def _place_of(self, run: Run) -> str:
        return next(name for name, place in self.places.items() if run in place.runs)


_FAULTS: tuple[Callable[[World], None], ...] = (
    World._scheduler_killed,
    World._scheduler_stopped,
    World._api_killed,
    World._database_away,
    World._backend_away,
    World._backend_mute,
    World._run_lost,
    World._run_killed,
)
